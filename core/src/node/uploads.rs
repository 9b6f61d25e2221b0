//! Serving. An *upload slot* is one part of a blob, or for REQUESTs one blob, read into a send buffer and sent to one peer.
//!
//! Few slots are in use at once ([`UPLOAD_SLOTS`]), so that each part is soon whole at a peer that serves it on. Index blobs and
//! documents come first, as nothing else is known without them; then what was served least, so that parts that only we have spread
//! before others are repeated; then the peer that has waited longest. A peer that has waited for [`ROUNDS`] of all waiting peers, or
//! is two blobs' parts behind another, comes before all that: whichever parts they ask for, peers share our line equally. A slot that
//! takes several times the median slot time stops counting, so that slow readers do not keep quick ones waiting, and its buffer
//! goes to another peer that waits for one. A peer that takes nothing at all gets no further slot until it does.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
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
use crate::ids::{BlobId, ConnId, Root};
use crate::limits::{
    ANSWERS_LOADED_MAX, PART_SEND_BUFFERS_MAX, PARTS_LOADED_MAX, SEND_BUFFERS_MAX, SERVED_MAX, SLOT_TIME_MAX,
    SLOT_TIME_MIN, SLOT_TIME_QUICK, SLOT_TIME_START, UPLOAD_SLOTS, UPLOAD_SLOTS_QUICK, UPLOAD_SLOTS_SHORT,
};
use crate::parts::{PARTS, Values};
use crate::suite::Suite;
use crate::time::Instant;

/// A slot counts for at most this many times the median slot time.
const SLOT_TIMES_USUAL: u32 = 4;

/// Each part of an index blob is served this often before all others, and to a peer that was not served for
/// [`INDEX_PATIENCE`]. Those who got it serve it on.
const INDEX_FIRST: u8 = 3;
const INDEX_PATIENCE: Duration = Duration::from_millis(300);

/// A peer is overdue where all that wait could have been served so many times since it was.
const ROUNDS: u64 = 6;
/// It is so too where another one got so many parts more while both waited; what it lacks beyond [`BEHIND_MAX`] is forgotten.
/// With fewer, parts are repeated in a crowd before all are spread.
const BEHIND: u64 = 2 * PARTS as u64;
const BEHIND_MAX: u64 = 2 * BEHIND;

/// How much waits for a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// All that its asker will ask for, and no more than one PIECE is asked of it.
    Short,
    /// Other blobs are known by it, and few have it yet.
    Index,
    Data,
}

/// The order in which peers, blobs and parts are served, the least first: not short, by slots in use, not overdue, by need, how
/// often it was served, and the number of the peer's last slot.
type Rank = (bool, usize, bool, Need, u8, u64);

/// What a slot is for.
#[derive(Clone, Copy, Debug)]
enum Served {
    Blob(BlobId),
    Part(Root, usize),
}

/// [`SLOT_TIMES_USUAL`] times the median time of completed slots. It is not their mean, so that a few very slow readers do not
/// change it.
struct SlotTime(Duration);

impl SlotTime {
    fn learn(&mut self, took: Duration) {
        let eighths = if took * SLOT_TIMES_USUAL > self.0 { 9 } else { 7 };
        self.0 = (self.0 * eighths / 8).clamp(SLOT_TIME_QUICK, SLOT_TIME_MAX);
    }

    /// How long a slot counts.
    fn counted(&self) -> Duration {
        self.0.max(SLOT_TIME_MIN)
    }

    /// How many slots count at once. Parts that are sent about as quickly as they are read are read several at a time.
    fn slots(&self) -> usize {
        if self.0 <= SLOT_TIME_QUICK * SLOT_TIMES_USUAL { UPLOAD_SLOTS_QUICK } else { UPLOAD_SLOTS }
    }
}

impl Default for SlotTime {
    fn default() -> Self {
        Self(SLOT_TIME_START)
    }
}

/// The slots that a connection got.
#[derive(Default)]
struct Turns {
    /// The number of the slot in which it was last served, or began to wait; 0: it never asked.
    slot: u64,
    /// When that was.
    since: Instant,
    /// Parts that it got, as many as a blob has for a whole one; of the time before it began to wait, about as many as others.
    got: u64,
}

/// The upload slots of all connections.
pub(super) struct Uploads {
    /// Buffers for whole blobs, and for parts.
    pool: Pool,
    part_pool: Pool,
    conns: ConnTable<Turns>,
    /// Connections that may have a request waiting.
    waiting: BTreeSet<ConnId>,
    /// When each slot of a connection began, oldest first.
    running: Vec<(Instant, ConnId)>,
    slot_time: SlotTime,
    /// How often each part of a blob was served.
    served: BTreeMap<Root, [u8; PARTS]>,
    /// Slots given so far.
    count: u64,
    /// The most that a connection got.
    most: u64,
    /// A slot may begin since the last look.
    is_due: bool,
    bytes_sent: u64,
}

impl Uploads {
    /// Serves blobs of `blob_len` bytes, and parts of `part_len`.
    pub(super) fn new(blob_len: usize, part_len: usize) -> Self {
        Self {
            pool: Pool::new(SEND_BUFFERS_MAX, blob_len),
            part_pool: Pool::new(PART_SEND_BUFFERS_MAX, part_len),
            conns: ConnTable::default(),
            waiting: BTreeSet::new(),
            running: Vec::new(),
            slot_time: SlotTime::default(),
            served: BTreeMap::new(),
            count: 0,
            most: 0,
            is_due: false,
            bytes_sent: 0,
        }
    }

    pub(super) fn opened(&mut self, conn: ConnId) {
        self.conns.insert(conn, Turns::default());
    }

    /// Forgets a connection that is gone; `buffers` are those that it held.
    pub(super) fn closed(&mut self, conn: ConnId, buffers: Vec<Buffer>) {
        for buffer in buffers {
            self.give_back(buffer);
        }
        self.conns.remove(conn);
        self.waiting.remove(&conn);
        self.running.retain(|(_, running)| *running != conn);
        self.is_due = true;
    }

    /// Whether the peer has ever asked for a blob.
    pub(super) fn was_asked_by(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|turns| turns.slot > 0)
    }

    /// Counts the blob bytes sent.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Frees the memory of the free buffers.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
        self.part_pool.trim();
    }

    /// A buffer is free, of either kind.
    fn give_back(&mut self, buffer: Buffer) {
        if self.part_pool.is_of(&buffer) {
            self.part_pool.give_back(buffer);
        } else {
            self.pool.give_back(buffer);
        }
    }

    fn note_served(&mut self, root: Root, part: usize) {
        if self.served.len() >= SERVED_MAX {
            self.served.clear();
        }
        let times = &mut self.served.entry(root).or_default()[part];
        *times = times.saturating_add(1);
    }

    /// Counts the slots that count against [`UPLOAD_SLOTS`], and returns when the first of them stops doing so.
    fn fresh(&self, now: Instant) -> (usize, Option<Instant>) {
        let ends = self.running.iter().map(|(began, _)| *began + self.slot_time.counted());
        let mut ends = ends.filter(|end| *end > now);
        let first = ends.next();
        (ends.count() + usize::from(first.is_some()), first)
    }
}

impl Uploads {
    /// Notes that the peer asks for a blob or parts of one.
    pub(super) fn on_wanted(&mut self, now: Instant, conn: ConnId) {
        if self.waiting.insert(conn)
            && let Some(turns) = self.conns.get_mut(conn)
        {
            (turns.slot, turns.since) = (turns.slot.max(self.count), now);
            // Whoever asks for nothing saves nothing up.
            turns.got = turns.got.max((self.most + 1).saturating_sub(BEHIND));
        }
        self.is_due = true;
    }

    /// Lets others have a slot, as one has taken several times as long as usual.
    pub(super) fn on_timer(&mut self) {
        self.is_due = true;
    }

    /// Gives slots to waiting peers while there is room. `is_index`: whether others are known by a blob.
    pub(super) fn fill_slots<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        is_index: impl Fn(&Root) -> bool,
    ) {
        let now = cx.now();
        if !mem::take(&mut self.is_due) {
            return;
        }
        while !self.waiting.is_empty() {
            let (fresh, first_end) = self.fresh(now);
            let slots = self.slot_time.slots();
            let most = if fresh < slots { Need::Data } else { Need::Short };
            let may_more = fresh < slots + UPLOAD_SLOTS_SHORT;
            let next = may_more.then(|| self.next_slot(now, conns, most, &is_index)).flatten();
            let Some((conn, what)) = next else {
                if let Some(at) = first_end.filter(|_| fresh >= slots) {
                    cx.set_timer_sooner(Timer::Uploads, at);
                }
                return;
            };
            if matches!(what, Served::Part(..)) && !self.part_pool.has_free() {
                self.take_buffer_back(now, conns);
            }
            if !self.begin_slot(cx, conns, conn, what) {
                // Every buffer is at a slow peer or with the store: giving one back leads here again.
                return;
            }
        }
    }

    /// Has the store read something for a peer. `false`: no buffer is free.
    fn begin_slot<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        what: Served,
    ) -> bool {
        let (Some(line), Some(turns)) = (conns.get_mut(conn), self.conns.get_mut(conn)) else { return false };
        match what {
            Served::Blob(id) => {
                let Some(buffer) = self.pool.take() else { return false };
                line.reading_blob(id);
                cx.job(Pending::ReadBlob(conn, id), Job::ReadBlob(id, buffer));
            }
            Served::Part(root, part) => {
                let Some(buffer) = self.part_pool.take() else { return false };
                line.reading_part(&root, part);
                cx.job(Pending::ReadPart(conn, root, part), Job::ReadPart(root, part, buffer));
            }
        }
        self.count += 1;
        (turns.slot, turns.since) = (self.count, cx.now());
        let parts = if matches!(what, Served::Blob(_)) { PARTS as u64 } else { 1 };
        turns.got = turns.got.max(self.most.saturating_sub(BEHIND_MAX)) + parts;
        self.most = self.most.max(turns.got);
        if let Served::Part(root, part) = what {
            self.note_served(root, part);
        }
        self.running.push((cx.now(), conn));
        true
    }

    /// Chooses the next peer to serve, and what of, where nothing is needed less than `most`.
    fn next_slot<S: Suite>(
        &mut self,
        now: Instant,
        conns: &Conns<S>,
        most: Need,
        is_index: impl Fn(&Root) -> bool,
    ) -> Option<(ConnId, Served)> {
        let uploads = &*self;
        let patience = ROUNDS * uploads.waiting.len() as u64;
        let mut best: Option<(Rank, ConnId, Served)> = None;
        let mut idle = Vec::new();
        for conn in &uploads.waiting {
            let (Some(line), Some(turns)) = (conns.get(*conn), uploads.conns.get(*conn)) else { continue };
            let (answers, parts) = line.slots();
            let is_overdue = uploads.count - turns.slot > patience || turns.got + BEHIND <= uploads.most;
            // Takes what has the least rank so far; without it, only says whether it would.
            let mut consider = |times: u8, need: Need, what: Option<Served>| {
                let times = if is_overdue { 0 } else { times };
                let rank = (need > Need::Short, answers + parts, !is_overdue, need, times, turns.slot);
                let is_best = need <= most && best.as_ref().is_none_or(|(least, ..)| rank < *least);
                if let Some(what) = what.filter(|_| is_best) {
                    best = Some((rank, *conn, what));
                }
                is_best
            };
            if line.waiting_blob().is_none() && line.waiting_parts().next().is_none() {
                idle.push(*conn);
            }
            if line.is_stuck(now, uploads.slot_time.counted()) {
                continue;
            }
            if answers < ANSWERS_LOADED_MAX
                && uploads.pool.has_free()
                && let Some(id) = line.waiting_blob()
            {
                consider(0, Need::Data, Some(Served::Blob(id)));
            }
            if parts < PARTS_LOADED_MAX {
                for (root, mask, is_short) in line.waiting_parts() {
                    let is_index = is_index(&root);
                    // Nothing served less than never and waiting longer than the first comes after it: for most blobs, that is all
                    // that is looked at.
                    if !is_index && !consider(0, Need::Data, None) {
                        continue;
                    }
                    let times = uploads.served.get(&root).copied().unwrap_or_default();
                    let Some(part) = mask.iter().min_by_key(|part| times[*part]) else { continue };
                    let has_waited = now.since(turns.since) >= INDEX_PATIENCE;
                    let need = if !is_index {
                        Need::Data
                    } else if is_short {
                        Need::Short
                    } else if times[part] < INDEX_FIRST || has_waited {
                        Need::Index
                    } else {
                        Need::Data
                    };
                    consider(times[part], need, Some(Served::Part(root, part)));
                }
            }
        }
        for conn in idle {
            self.waiting.remove(&conn);
        }
        best.map(|(_, conn, what)| (conn, what))
    }

    /// Takes the buffer of the longest overdue slot of a v6 peer, which waits for another, as all buffers are lent.
    fn take_buffer_back<S: Suite>(&mut self, now: Instant, conns: &mut Conns<S>) {
        let slow: Vec<ConnId> = self
            .running
            .iter()
            .filter(|(began, _)| now.since(*began) >= self.slot_time.counted())
            .map(|(_, conn)| *conn)
            .collect();
        for conn in slow {
            let buffer = conns.get_mut(conn).and_then(Conn::unload);
            if let Some(buffer) = buffer {
                self.part_pool.give_back(buffer);
                self.waiting.insert(conn);
                self.count_slots(now, conns, conn);
                return;
            }
        }
    }

    /// Takes the store's answer: the buffer, and whether it holds the blob.
    pub(super) fn on_blob_read<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (id, buffer, found): (BlobId, Buffer, bool),
    ) {
        let (ready, unused) = if found { (Some(buffer), None) } else { (None, Some(buffer)) };
        let left = match conns.get_mut(conn) {
            Some(line) => line.blob_done(id, ready),
            None => ready,
        };
        self.pool.give_all_back(left.into_iter().chain(unused));
        self.free_slots(cx, conns, conn, None);
    }

    /// Takes the store's answer: the buffer, and the blob's values where it holds the part.
    pub(super) fn on_part_read<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        ((root, part), buffer, values): ((Root, usize), Buffer, Option<Box<Values>>),
    ) {
        let (ready, unused) = match values {
            Some(values) => (Some((buffer, values)), None),
            None => (None, Some(buffer)),
        };
        let left = match conns.get_mut(conn) {
            Some(line) => line.part_done(&root, part, ready),
            None => ready.map(|(buffer, _)| buffer),
        };
        self.part_pool.give_all_back(left.into_iter().chain(unused));
        self.free_slots(cx, conns, conn, None);
    }

    /// Notes that the peer cancelled parts.
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
            if line.waiting_blob().is_some() || line.waiting_parts().next().is_some() {
                self.waiting.insert(conn);
            }
        }
        for buffer in free {
            self.give_back(buffer);
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
        time.counted()
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

    #[test]
    fn more_parts_are_read_at_once_where_most_are_sent_at_once() {
        let mut time = SlotTime::default();
        (0..99).for_each(|_| time.learn(Duration::from_micros(100)));
        assert_eq!(time.slots(), UPLOAD_SLOTS_QUICK);
        (0..20).for_each(|_| time.learn(Duration::from_millis(65)));
        assert_eq!((time.slots(), time.counted()), (UPLOAD_SLOTS, SLOT_TIME_MIN));
    }
}
