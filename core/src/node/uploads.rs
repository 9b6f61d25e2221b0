//! Serving: whose turn it is. A *turn* is one blob, or a range of it, read into a send buffer and sent to one peer.
//!
//! Few turns run at once ([`UPLOAD_TURNS`]), so that each blob is soon whole at somebody who serves it on. What was not
//! served before comes first, so that blobs that only we have spread before others are repeated, then who has waited
//! longest; but nobody waits for more than two rounds of all who wait. A turn that takes several times as long as turns
//! usually do no longer counts, so that slow readers do not keep quick ones from theirs, and its buffer goes to others
//! where they wait for one. Who takes nothing at all gets no further turn until it does.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Job, Node, Pending, Timer};
use crate::buffer::Buffer;
use crate::ids::{BlobId, ConnId};
use crate::limits::{
    ANSWERS_LOADED_MAX, SEND_BUFFERS_MAX, SERVED_MAX, TURN_TIME_MAX, TURN_TIME_MIN, TURN_TIME_START,
    UPLOAD_TURNS, V5_TURNS_MAX,
};
use crate::suite::Suite;
use crate::time::Instant;

/// Turns that a peer gets before others while it has next to nothing, so that it soon has something to serve.
const NEWCOMER_TURNS: u32 = 2;
/// How long a turn counts, in times of what half of all turns take at most.
const TURN_TIMES_USUAL: u32 = 4;

/// Who comes before whom, the least first: who has fewest turns running, newcomers, who has waited too long, what was
/// not served before, who has waited longest.
type Rank = (usize, bool, bool, bool, u64);

/// How long a turn counts. It follows the median of the turns that were sent to their end, and not their mean, as a few very
/// slow readers are not to change it.
struct TurnTime(Duration);

impl TurnTime {
    fn learn(&mut self, took: Duration) {
        let eighths = if took * TURN_TIMES_USUAL > self.0 { 9 } else { 7 };
        self.0 = (self.0 * eighths / 8).clamp(TURN_TIME_MIN, TURN_TIME_MAX);
    }
}

impl Default for TurnTime {
    fn default() -> Self {
        Self(TURN_TIME_START)
    }
}

/// The turns of all connections.
#[derive(Default)]
pub(super) struct Uploads {
    /// Connections that may have something waiting.
    waiting: BTreeSet<ConnId>,
    /// When each turn of a connection began, oldest first.
    running: Vec<(Instant, ConnId)>,
    turn_time: TurnTime,
    /// The blobs served so far.
    served: BTreeSet<BlobId>,
    /// Turns so far.
    count: u64,
}

impl Uploads {
    /// The connection is gone, and its buffers are free.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.waiting.remove(&conn);
        self.running.retain(|(_, running)| *running != conn);
    }

    fn serve(&mut self, blob: BlobId) {
        if self.served.len() >= SERVED_MAX {
            self.served.clear();
        }
        self.served.insert(blob);
        self.count += 1;
    }

    /// Turns that keep others from theirs, and when the first of them no longer does.
    fn fresh(&self, now: Instant) -> (usize, Option<Instant>) {
        let ends = self.running.iter().map(|(began, _)| *began + self.turn_time.0);
        let mut ends = ends.filter(|end| *end > now);
        let first = ends.next();
        (ends.count() + usize::from(first.is_some()), first)
    }
}

impl<S: Suite> Node<S> {
    /// The peer asks for a blob or a range of one.
    pub(super) fn on_wanted(&mut self, conn: ConnId) {
        if self.uploads.waiting.insert(conn)
            && let Some(entry) = self.conns.get_mut(conn)
        {
            entry.turn = entry.turn.max(self.uploads.count);
        }
        self.begin_turns();
    }

    /// Gives turns to those that wait, as long as there is room.
    pub(super) fn begin_turns(&mut self) {
        let now = self.cx.now();
        while !self.uploads.waiting.is_empty() {
            let (fresh, first_end) = self.uploads.fresh(now);
            if fresh >= UPLOAD_TURNS {
                if let Some(at) = first_end {
                    self.cx.set_timer_sooner(Timer::Uploads, at);
                }
                return;
            }
            let Some((conn, blob)) = self.next_turn() else { return };
            if self.uploads.running.len() >= SEND_BUFFERS_MAX {
                self.take_buffer_back();
            }
            let Some(buffer) = self.send_pool.take() else {
                // Every buffer is at a v5 peer or with the store: whoever gives one back comes here.
                return;
            };
            let Some(entry) = self.conns.get_mut(conn) else { return };
            entry.conn.reading(blob);
            self.uploads.serve(blob);
            entry.turn = self.uploads.count;
            entry.turns_given += 1;
            self.uploads.running.push((now, conn));
            self.cx.job(Pending::Read(conn, blob), Job::ReadBlob(blob, buffer));
        }
    }

    /// Who is next, and with which blob.
    fn next_turn(&mut self) -> Option<(ConnId, BlobId)> {
        let uploads = &self.uploads;
        let patience = 2 * uploads.waiting.len() as u64;
        let v5_turns: usize = uploads
            .running
            .iter()
            .filter_map(|(_, conn)| self.conns.get(*conn))
            .filter(|entry| !entry.gossip.is_on())
            .count();
        let mut best: Option<(Rank, ConnId, BlobId)> = None;
        let mut idle = Vec::new();
        for conn in &uploads.waiting {
            let Some(entry) = self.conns.get(*conn) else { continue };
            let (answers, ranges) = entry.conn.turns();
            let turns = answers + ranges;
            let may = turns < ANSWERS_LOADED_MAX
                && (entry.gossip.is_on() || v5_turns < V5_TURNS_MAX)
                && !entry.conn.is_stuck(self.cx.now(), uploads.turn_time.0);
            let mut waiting = entry.conn.waiting().peekable();
            if waiting.peek().is_none() {
                idle.push(*conn);
            }
            if !may {
                continue;
            }
            let is_overdue = uploads.count - entry.turn > patience;
            let is_newcomer = entry.turns_given < NEWCOMER_TURNS && entry.gossip.is_poor();
            for blob in waiting {
                let is_repeat = !is_overdue && uploads.served.contains(&blob);
                let rank = (turns, !is_newcomer, !is_overdue, is_repeat, entry.turn);
                if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                    best = Some((rank, *conn, blob));
                }
            }
        }
        for conn in idle {
            self.uploads.waiting.remove(&conn);
        }
        best.map(|(_, conn, blob)| (conn, blob))
    }

    /// All buffers are out and somebody waits: the longest turn of a v6 peer gives its own up, and waits for another.
    fn take_buffer_back(&mut self) {
        let now = self.cx.now();
        let slow: Vec<ConnId> = self
            .uploads
            .running
            .iter()
            .filter(|(began, _)| now.since(*began) >= self.uploads.turn_time.0)
            .map(|(_, conn)| *conn)
            .collect();
        for conn in slow {
            let buffer = self.conns.get_mut(conn).and_then(|entry| entry.conn.unload());
            if let Some(buffer) = buffer {
                self.send_pool.give_back(buffer);
                self.uploads.waiting.insert(conn);
                self.count_turns(conn);
                return;
            }
        }
    }

    /// The store answered.
    pub(super) fn on_blob_read(&mut self, conn: ConnId, id: BlobId, buffer: Buffer, found: bool) {
        let (ready, unused) = if found { (Some(buffer), None) } else { (None, Some(buffer)) };
        let left = match self.conns.get_mut(conn) {
            Some(entry) => entry.conn.read_done(id, ready),
            None => ready,
        };
        for buffer in left.into_iter().chain(unused) {
            self.send_pool.give_back(buffer);
        }
        self.free_turns(conn, None);
        self.wake_driver(conn);
        if !found {
            self.on_asked_in_vain(conn);
        }
    }

    /// The peer no longer wants a range, or the rest of one.
    pub(super) fn on_cancelled(&mut self, conn: ConnId) {
        self.free_turns(conn, None);
    }

    /// Bytes were sent, perhaps the last ones of a turn.
    pub(super) fn end_turns(&mut self, conn: ConnId, sent: Option<Buffer>) {
        for took in self.free_turns(conn, sent) {
            self.uploads.turn_time.learn(took);
        }
    }

    /// Buffers of a connection may be free: others get theirs. How long the turns took that have ended.
    fn free_turns(&mut self, conn: ConnId, sent: Option<Buffer>) -> Vec<Duration> {
        let mut free: Vec<Buffer> = sent.into_iter().collect();
        if let Some(entry) = self.conns.get_mut(conn) {
            free.extend(core::iter::from_fn(|| entry.conn.take_spent()));
            if entry.conn.waiting().next().is_some() {
                self.uploads.waiting.insert(conn);
            }
        }
        for buffer in free {
            self.send_pool.give_back(buffer);
        }
        let ended = self.count_turns(conn);
        self.begin_turns();
        ended
    }

    /// Forgets the turns of a connection that have ended, the oldest first; how long they took.
    fn count_turns(&mut self, conn: ConnId) -> Vec<Duration> {
        let now = self.cx.now();
        let (answers, ranges) = self.conns.get(conn).map_or((0, 0), |entry| entry.conn.turns());
        let running = &mut self.uploads.running;
        let mut ended =
            running.iter().filter(|(_, running)| *running == conn).count().saturating_sub(answers + ranges);
        let mut took = Vec::new();
        running.retain(|(began, running)| {
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

    fn after(turns: impl IntoIterator<Item = u64>) -> Duration {
        let mut time = TurnTime::default();
        turns.into_iter().for_each(|secs| time.learn(Duration::from_secs(secs)));
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
        assert_eq!((after([0; 99]), after([60; 99])), (TURN_TIME_MIN, TURN_TIME_MAX));
    }
}
