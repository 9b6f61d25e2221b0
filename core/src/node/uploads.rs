//! Serving. An *upload slot* is one blob, or a range of one, read into a send buffer and sent to one peer.
//!
//! Few slots are in use at once ([`UPLOAD_SLOTS`]), so that each blob is soon whole at a peer that serves it on. Blobs not
//! served before come first, so that blobs that only we have spread before others are repeated; then the peer that has
//! waited longest. No peer waits for more than two rounds of all waiting peers. A slot that takes several times the median
//! slot time stops counting, so that slow readers do not keep quick ones waiting, and its buffer goes to another peer that
//! waits for one. A peer that takes nothing at all gets no further slot until it does.

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
use crate::ids::{BlobName, ConnId};
use crate::limits::{
    ANSWERS_LOADED_MAX, SEND_BUFFERS_MAX, SERVED_MAX, SLOT_TIME_MAX, SLOT_TIME_MIN, SLOT_TIME_START,
    UPLOAD_SLOTS, V5_SLOTS_MAX,
};
use crate::suite::Suite;
use crate::time::Instant;

/// A slot counts for at most this many times the median slot time.
const SLOT_TIMES_USUAL: u32 = 4;

/// The order in which peers and blobs are served, the least first: by slots in use, not overdue, served before, and the
/// number of the peer's last slot.
type Rank = (usize, bool, bool, u64);

/// How long a slot counts. It follows the median time of completed slots, not the mean, so that a few very slow readers do
/// not change it.
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

/// The slots that a connection got.
#[derive(Default)]
struct Served {
    /// The number of the slot in which it was last served, or began to wait; 0: it never asked.
    slot: u64,
}

/// The upload slots of all connections.
pub(super) struct Uploads {
    pool: Pool,
    conns: ConnTable<Served>,
    /// Connections that may have a request waiting.
    waiting: BTreeSet<ConnId>,
    /// When each slot of a connection began, oldest first.
    running: Vec<(Instant, ConnId)>,
    slot_time: SlotTime,
    /// The blobs served so far.
    served: BTreeSet<BlobName>,
    /// Slots given so far.
    count: u64,
    /// A slot may begin since the last look.
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

    /// Forgets a connection that is gone; `buffers` are those that it held.
    pub(super) fn closed(&mut self, conn: ConnId, buffers: Vec<Buffer>) {
        for buffer in buffers {
            self.pool.give_back(buffer);
        }
        self.conns.remove(conn);
        self.waiting.remove(&conn);
        self.running.retain(|(_, running)| *running != conn);
        self.is_due = true;
    }

    /// Whether the peer has ever asked for a blob.
    pub(super) fn was_asked_by(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|served| served.slot > 0)
    }

    /// Counts the blob bytes sent.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Frees the memory of the free buffers.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
    }

    fn note_served(&mut self, blob: BlobName) {
        if self.served.len() >= SERVED_MAX {
            self.served.clear();
        }
        self.served.insert(blob);
    }

    /// Counts the slots that count against [`UPLOAD_SLOTS`], and returns when the first of them stops doing so.
    fn fresh(&self, now: Instant) -> (usize, Option<Instant>) {
        let ends = self.running.iter().map(|(began, _)| *began + self.slot_time.0);
        let mut ends = ends.filter(|end| *end > now);
        let first = ends.next();
        (ends.count() + usize::from(first.is_some()), first)
    }
}

impl Uploads {
    /// Notes that the peer asks for a blob or a range of one.
    pub(super) fn on_wanted(&mut self, conn: ConnId) {
        if self.waiting.insert(conn)
            && let Some(served) = self.conns.get_mut(conn)
        {
            served.slot = served.slot.max(self.count);
        }
        self.is_due = true;
    }

    /// Lets others have a slot, as one has taken several times as long as usual.
    pub(super) fn on_timer(&mut self) {
        self.is_due = true;
    }

    /// Gives slots to waiting peers while there is room.
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
                // Every buffer is at a v5 peer or with the store: giving one back leads here again.
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

    /// Chooses the next peer to serve, and the blob.
    fn next_slot<S: Suite>(&mut self, now: Instant, conns: &Conns<S>) -> Option<(ConnId, BlobName)> {
        let uploads = &*self;
        let patience = 2 * uploads.waiting.len() as u64;
        let v5_slots = uploads.running.iter().filter(|(_, conn)| !conns.speaks_v6(*conn)).count();
        let mut best: Option<(Rank, ConnId, BlobName)> = None;
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

    /// Takes the buffer of the longest overdue slot of a v6 peer, which waits for another, as all buffers are lent.
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

    /// Takes the store's answer: the buffer, and whether it holds the blob.
    pub(super) fn on_read<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (id, buffer, found): (BlobName, Buffer, bool),
    ) {
        let (ready, unused) = if found { (Some(buffer), None) } else { (None, Some(buffer)) };
        let left = match conns.get_mut(conn) {
            Some(line) => line.read_done(id, ready),
            None => ready,
        };
        left.into_iter().chain(unused).for_each(|buffer| self.pool.give_back(buffer));
        self.free_slots(cx, conns, conn, None);
    }

    /// Notes that the peer cancelled a range, or the rest of one.
    pub(super) fn on_cancelled<S: Suite>(&mut self, cx: &Cx, conns: &mut Conns<S>, conn: ConnId) {
        self.free_slots(cx, conns, conn, None);
    }

    /// Notes that bytes were sent, perhaps the last ones of a slot.
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

    /// Takes the free buffers of a connection, for others to use; returns how long its ended slots took.
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

    /// Forgets the ended slots of a connection, the oldest first; returns how long they took.
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
    fn a_slot_counts_for_a_multiple_of_the_median_within_bounds() {
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
