//! Serving. An *upload slot* is one blob, or a range of one, read into a send buffer and sent to one peer.
//!
//! Few slots are in use at once ([`UPLOAD_SLOTS`]), so that each blob is soon whole at a peer that serves it on. Blobs not served
//! before come first, so that blobs that only we have spread before others are repeated; then the peer that has waited
//! longest. No peer waits for more than two rounds of all that wait. A slot that takes several times the median slot time
//! no longer counts, so that slow readers do not keep quick ones waiting, and its buffer goes to others that wait for
//! one. A peer that takes nothing at all gets no further slot until it does.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::api::Job;
use super::conns::Conns;
use super::cx::{Cx, Pending};
use super::pool::Pool;
use super::table::ConnTable;
use super::timers::Timer;
use crate::buffer::Buffer;
use crate::conn::Conn;
use crate::ids::{BlobId, ConnId};
use crate::limits::{
    ANSWERS_LOADED_MAX, SEND_BUFFERS_MAX, SERVED_MAX, SLOT_TIME_MAX, SLOT_TIME_MIN, SLOT_TIME_START,
    UPLOAD_SLOTS, V5_SLOTS_MAX,
};
use crate::suite::Suite;
use crate::time::Instant;

/// A slot counts for this many times the median slot time.
const SLOT_TIMES_USUAL: u32 = 4;

/// In which order peers and blobs are served, the least first: by slots in use, not overdue, served before, and the slot in which
/// the peer was served last.
type Rank = (usize, bool, bool, u64);

/// For how long a slot counts. It follows the median of the slots that were sent to their end, and not their mean, so that a few
/// very slow readers do not change it.
struct SlotTime(Duration);

impl SlotTime {
    fn learn(&mut self, took: Duration) {
        let eighths = if took * SLOT_TIMES_USUAL > self.0 { 9 } else { 7 };
        self.0 = (self.0 * eighths / 8).clamp(SLOT_TIME_MIN, SLOT_TIME_MAX);
    }
}

impl Default for SlotTime {
    fn default() -> Self {
        Self(SLOT_TIME_START)
    }
}

/// What a connection was served.
#[derive(Default)]
struct Served {
    /// The slot in which it was last served, or began to wait; 0: it never asked.
    slot: u64,
}

/// The upload slots of all connections.
pub(super) struct Uploads {
    pool: Pool,
    conns: ConnTable<Served>,
    /// Connections that may have something waiting.
    waiting: BTreeSet<ConnId>,
    /// When each slot of a connection began, oldest first.
    running: Vec<(Instant, ConnId)>,
    slot_time: SlotTime,
    /// The blobs served so far.
    served: BTreeSet<BlobId>,
    /// Slots given so far.
    count: u64,
    /// Something has changed so that a slot may begin.
    is_due: bool,
    bytes_sent: u64,
}

impl Uploads {
    /// Serves blobs of `blob_len` bytes.
    pub(super) fn new(blob_len: usize) -> Self {
        Self {
            pool: Pool::new(SEND_BUFFERS_MAX, blob_len),
            conns: ConnTable::default(),
            waiting: BTreeSet::new(),
            running: Vec::new(),
            slot_time: SlotTime::default(),
            served: BTreeSet::new(),
            count: 0,
            is_due: false,
            bytes_sent: 0,
        }
    }

    pub(super) fn opened(&mut self, conn: ConnId) {
        self.conns.insert(conn, Served::default());
    }

    /// The connection is gone; `buffers` are those that it held.
    pub(super) fn closed(&mut self, conn: ConnId, buffers: Vec<Buffer>) {
        for buffer in buffers {
            self.pool.give_back(buffer);
        }
        self.conns.remove(conn);
        self.waiting.remove(&conn);
        self.running.retain(|(_, running)| *running != conn);
        self.is_due = true;
    }

    /// Whether the peer ever asked for a blob.
    pub(super) fn was_asked_by(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|served| served.slot > 0)
    }

    /// Blob bytes sent.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Frees the memory of buffers that nobody uses.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
    }

    fn note_served(&mut self, blob: BlobId) {
        if self.served.len() >= SERVED_MAX {
            self.served.clear();
        }
        self.served.insert(blob);
    }

    /// Turns that keep others from theirs, and when the first of them no longer does.
    fn fresh(&self, now: Instant) -> (usize, Option<Instant>) {
        let ends = self.running.iter().map(|(began, _)| *began + self.slot_time.0);
        let mut ends = ends.filter(|end| *end > now);
        let first = ends.next();
        (ends.count() + usize::from(first.is_some()), first)
    }
}

impl Uploads {
    /// The peer asks for a blob or a range of one.
    pub(super) fn on_wanted(&mut self, conn: ConnId) {
        if self.waiting.insert(conn)
            && let Some(served) = self.conns.get_mut(conn)
        {
            served.slot = served.slot.max(self.count);
        }
        self.is_due = true;
    }

    /// A slot has taken several times as long as usual: others may get theirs.
    pub(super) fn on_timer(&mut self) {
        self.is_due = true;
    }

    /// Gives slots to those that wait, as long as there is room.
    pub(super) fn fill_slots<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>) {
        let now = cx.now();
        if !mem::take(&mut self.is_due) {
            return;
        }
        while !self.waiting.is_empty() {
            let (fresh, first_end) = self.fresh(now);
            if fresh >= UPLOAD_SLOTS {
                if let Some(at) = first_end {
                    cx.set_timer_sooner(Timer::Uploads, at);
                }
                return;
            }
            let Some((conn, blob)) = self.next_slot(now, conns) else { return };
            if self.running.len() >= SEND_BUFFERS_MAX {
                self.take_buffer_back(now, conns);
            }
            let Some(buffer) = self.pool.take() else {
                // Every buffer is at a v5 peer or with the store: whoever gives one back comes here.
                return;
            };
            let (Some(line), Some(served)) = (conns.get_mut(conn), self.conns.get_mut(conn)) else { return };
            line.reading(blob);
            self.count += 1;
            served.slot = self.count;
            self.note_served(blob);
            self.running.push((now, conn));
            cx.job(Pending::Read(conn, blob), Job::ReadBlob(blob, buffer));
        }
    }

    /// Who is next, and with which blob.
    fn next_slot<S: Suite>(&mut self, now: Instant, conns: &Conns<S>) -> Option<(ConnId, BlobId)> {
        let uploads = &*self;
        let patience = 2 * uploads.waiting.len() as u64;
        let v5_slots = uploads.running.iter().filter(|(_, conn)| !conns.speaks_v6(*conn)).count();
        let mut best: Option<(Rank, ConnId, BlobId)> = None;
        let mut idle = Vec::new();
        for conn in &uploads.waiting {
            let (Some(line), Some(served)) = (conns.get(*conn), uploads.conns.get(*conn)) else { continue };
            let (answers, ranges) = line.slots();
            let slots = answers + ranges;
            let may = slots < ANSWERS_LOADED_MAX
                && (conns.speaks_v6(*conn) || v5_slots < V5_SLOTS_MAX)
                && !line.is_stuck(now, uploads.slot_time.0);
            let mut waiting = line.waiting().peekable();
            if waiting.peek().is_none() {
                idle.push(*conn);
            }
            if !may {
                continue;
            }
            let is_overdue = uploads.count - served.slot > patience;
            for blob in waiting {
                let is_repeat = !is_overdue && uploads.served.contains(&blob);
                let rank = (slots, !is_overdue, is_repeat, served.slot);
                if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                    best = Some((rank, *conn, blob));
                }
            }
        }
        for conn in idle {
            self.waiting.remove(&conn);
        }
        best.map(|(_, conn, blob)| (conn, blob))
    }

    /// All buffers are out and somebody waits: the longest slot of a v6 peer gives its own up, and waits for another.
    fn take_buffer_back<S: Suite>(&mut self, now: Instant, conns: &mut Conns<S>) {
        let slow: Vec<ConnId> = self
            .running
            .iter()
            .filter(|(began, _)| now.since(*began) >= self.slot_time.0)
            .map(|(_, conn)| *conn)
            .collect();
        for conn in slow {
            let buffer = conns.get_mut(conn).and_then(Conn::unload);
            if let Some(buffer) = buffer {
                self.pool.give_back(buffer);
                self.waiting.insert(conn);
                self.count_slots(now, conns, conn);
                return;
            }
        }
    }

    /// The store answered: the buffer, and whether it holds the blob.
    pub(super) fn on_read<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (id, buffer, found): (BlobId, Buffer, bool),
    ) {
        let (ready, unused) = if found { (Some(buffer), None) } else { (None, Some(buffer)) };
        let left = match conns.get_mut(conn) {
            Some(line) => line.read_done(id, ready),
            None => ready,
        };
        left.into_iter().chain(unused).for_each(|buffer| self.pool.give_back(buffer));
        self.free_slots(cx, conns, conn, None);
    }

    /// The peer no longer wants a range, or the rest of one.
    pub(super) fn on_cancelled<S: Suite>(&mut self, cx: &Cx, conns: &mut Conns<S>, conn: ConnId) {
        self.free_slots(cx, conns, conn, None);
    }

    /// Bytes were sent, perhaps the last ones of a slot.
    pub(super) fn on_sent<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        spent: Option<Buffer>,
    ) {
        self.bytes_sent += conns.get_mut(conn).map_or(0, Conn::take_blob_bytes_out);
        for took in self.free_slots(cx, conns, conn, spent) {
            self.slot_time.learn(took);
        }
    }

    /// Buffers of a connection may be free: others get theirs. How long the slots took that have ended.
    fn free_slots<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        spent: Option<Buffer>,
    ) -> Vec<Duration> {
        let mut free: Vec<Buffer> = spent.into_iter().collect();
        if let Some(line) = conns.get_mut(conn) {
            free.extend(core::iter::from_fn(|| line.take_spent()));
            if line.waiting().next().is_some() {
                self.waiting.insert(conn);
            }
        }
        for buffer in free {
            self.pool.give_back(buffer);
        }
        self.is_due = true;
        self.count_slots(cx.now(), conns, conn)
    }

    /// Forgets the slots of a connection that have ended, the oldest first; how long they took.
    fn count_slots<S: Suite>(&mut self, now: Instant, conns: &Conns<S>, conn: ConnId) -> Vec<Duration> {
        let (answers, ranges) = conns.get(conn).map_or((0, 0), Conn::slots);
        let of_conn = self.running.iter().filter(|(_, running)| *running == conn).count();
        let mut ended = of_conn.saturating_sub(answers + ranges);
        let mut took = Vec::new();
        self.running.retain(|(began, running)| {
            let ends = *running == conn && ended > 0;
            if ends {
                ended -= 1;
                took.push(now.since(*began));
            }
            !ends
        });
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(slots: impl IntoIterator<Item = u64>) -> Duration {
        let mut time = SlotTime::default();
        for secs in slots {
            time.learn(Duration::from_secs(secs));
        }
        time.0
    }

    #[test]
    fn a_turn_counts_some_times_as_long_as_usual_within_bounds() {
        let usual = after([1; 50]);
        assert!((Duration::from_millis(3_400)..Duration::from_millis(4_700)).contains(&usual), "{usual:?}");
        let with_slow_ones = after((0..200).map(|n| if n % 4 == 0 { 600 } else { 1 }));
        assert!(
            with_slow_ones < Duration::from_secs(4),
            "{with_slow_ones:?}: few slow readers change little"
        );
        assert_eq!((after([0; 99]), after([60; 99])), (SLOT_TIME_MIN, SLOT_TIME_MAX));
    }
}
