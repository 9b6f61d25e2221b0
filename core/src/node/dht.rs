//! The DHT budget: what waits, what is due, and how much may start.
//!
//! Look-ups and puts that somebody waits for come first, then announces in the order in which they are due. What is
//! late shows in the status.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

use super::api::DhtOp;
use crate::bep44::SignedItem;
use crate::bucket::Bucket;
use crate::identity::PublicKey;
use crate::ids::{InfoHash, JobId};
use crate::limits::{ANNOUNCE_INTERVAL, ANNOUNCES_MAX, DHT_JOBS_MAX, DHT_OPS_BURST, DHT_OPS_PER_MINUTE};
use crate::time::Instant;

/// Why an operation runs: who gets its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// The newest head of a channel.
    Poll(PublicKey),
    /// Keep a head alive.
    Reput(PublicKey),
    /// Any step of a publication.
    Publish,
    /// Another node's item, which it asked us to put.
    Relay(PublicKey),
    /// An item that we put for another node, once more.
    Keep(PublicKey),
    /// The head of a channel that another node asked us to look up.
    LookUpHead(PublicKey),
    /// Peers of a channel or of one blob of it.
    Lookup(PublicKey, InfoHash),
    Announce(InfoHash),
}

/// Operations by urgency, within the budget.
pub(super) struct DhtQueue {
    /// What somebody waits for, by when it was asked for.
    waiting: VecDeque<(Instant, Purpose, DhtOp)>,
    in_flight: BTreeMap<JobId, Purpose>,
    budget: Bucket,
    announces: BTreeSet<(Instant, InfoHash)>,
    due: BTreeMap<InfoHash, Instant>,
}

impl DhtQueue {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            budget: Bucket::new(DHT_OPS_PER_MINUTE, DHT_OPS_BURST, now),
            announces: BTreeSet::new(),
            due: BTreeMap::new(),
        }
    }

    fn is_pending(&self, purpose: &Purpose) -> bool {
        self.waiting.iter().any(|(_, p, _)| p == purpose) || self.in_flight.values().any(|p| p == purpose)
    }

    /// Queues an operation; one that waits or runs already is not queued again, which bounds the queue by the number
    /// of channels.
    pub(super) fn push(&mut self, now: Instant, purpose: Purpose, op: DhtOp) {
        if !self.is_pending(&purpose) {
            self.waiting.push_back((now, purpose, op));
        }
    }

    pub(super) fn put(&mut self, now: Instant, purpose: Purpose, item: SignedItem, cas: Option<i64>) {
        self.push(now, purpose, DhtOp::Put(item, cas));
    }

    /// Announces `hash` now and each [`ANNOUNCE_INTERVAL`]. At [`ANNOUNCES_MAX`] further hashes are left out.
    pub(super) fn announce(&mut self, hash: InfoHash, now: Instant) {
        if self.due.len() < ANNOUNCES_MAX && !self.due.contains_key(&hash) {
            self.due.insert(hash, now);
            self.announces.insert((now, hash));
        }
    }

    /// Stops announcing `hash`.
    pub(super) fn forget(&mut self, hash: InfoHash) {
        if let Some(due) = self.due.remove(&hash) {
            self.announces.remove(&(due, hash));
        }
    }

    /// The next operation that may start, counted against the budget.
    pub(super) fn next(&mut self, now: Instant, port: Option<u16>) -> Option<(Purpose, DhtOp)> {
        if self.in_flight.len() >= DHT_JOBS_MAX || self.budget.next(now) > now {
            return None;
        }
        let waiting = self.waiting.pop_front().map(|(_, purpose, op)| (purpose, op));
        let next = waiting.or_else(|| self.next_announce(now, port?))?;
        self.budget.take(now);
        Some(next)
    }

    fn next_announce(&mut self, now: Instant, port: u16) -> Option<(Purpose, DhtOp)> {
        let (due, hash) = *self.announces.first()?;
        if due > now {
            return None;
        }
        self.announces.pop_first();
        let again = now + ANNOUNCE_INTERVAL;
        self.announces.insert((again, hash));
        self.due.insert(hash, again);
        Some((Purpose::Announce(hash), DhtOp::Announce(hash, port)))
    }

    /// An announce failed: try it again sooner than the next one is due.
    pub(super) fn retry_announce(&mut self, hash: InfoHash, at: Instant) {
        if let Some(due) = self.due.insert(hash, at) {
            self.announces.remove(&(due, hash));
            self.announces.insert((at, hash));
        } else {
            self.due.remove(&hash);
        }
    }

    pub(super) fn started(&mut self, job: JobId, purpose: Purpose) {
        self.in_flight.insert(job, purpose);
    }

    pub(super) fn purpose(&self, job: JobId) -> Option<Purpose> {
        self.in_flight.get(&job).copied()
    }

    pub(super) fn finished(&mut self, job: JobId) {
        self.in_flight.remove(&job);
    }

    /// When [`Self::next`] may have something, if not after an operation that is under way.
    pub(super) fn deadline(&self, now: Instant, announcing: bool) -> Option<Instant> {
        if self.in_flight.len() >= DHT_JOBS_MAX {
            return None;
        }
        let announce = self.announces.first().map(|(due, _)| *due).filter(|_| announcing);
        let due = if self.waiting.is_empty() { announce? } else { now };
        Some(due.max(self.budget.next(now)))
    }

    /// How many operations are due and have not started, and by how much the latest of them is late. Without a port
    /// nothing is `announcing`, so no announce is late.
    pub(super) fn late(&self, now: Instant, announcing: bool) -> (usize, Duration) {
        let asked = self.waiting.iter().map(|(asked, ..)| *asked);
        let announces = self.announces.iter().map(|(due, _)| *due).filter(|_| announcing);
        let mut late = (0, Duration::ZERO);
        for due in asked.take_while(|due| *due < now).chain(announces.take_while(|due| *due < now)) {
            late = (late.0 + 1, late.1.max(now.since(due)));
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_all(queue: &mut DhtQueue, now: Instant) -> usize {
        let mut started = 0;
        while let Some((purpose, _)) = queue.next(now, Some(1)) {
            queue.started(JobId(started), purpose);
            queue.finished(JobId(started));
            started += 1;
        }
        usize::try_from(started).expect("few")
    }

    fn hash(n: usize) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        InfoHash(bytes)
    }

    #[test]
    fn the_budget_bounds_the_rate_and_the_lag_shows() {
        let start = Instant(5);
        let mut queue = DhtQueue::new(start);
        (0..1000).for_each(|n| queue.announce(hash(n), start));
        let burst = start_all(&mut queue, start);
        assert_eq!(burst, usize::try_from(DHT_OPS_BURST).expect("small"));
        assert_eq!(start_all(&mut queue, start), 0);
        let later = start + Duration::from_mins(1);
        assert_eq!(queue.deadline(start, true), Some(start + Duration::from_millis(500)));
        let minute: usize = (1..=60).map(|s| start_all(&mut queue, start + Duration::from_secs(s))).sum();
        assert_eq!(minute, usize::try_from(DHT_OPS_PER_MINUTE).expect("small"));
        let (late, lag) = queue.late(later, true);
        assert_eq!((late, lag), (1000 - burst - minute, Duration::from_mins(1)));
        assert_eq!(queue.late(later, false), (0, Duration::ZERO), "nothing is to be announced");
    }

    #[test]
    fn what_somebody_waits_for_comes_first_and_once() {
        let mut queue = DhtQueue::new(Instant(0));
        let lookup = |n| (Purpose::Announce(hash(n)), DhtOp::Lookup(hash(n)));
        queue.announce(hash(1), Instant(0));
        let now = Instant(5);
        queue.push(now, lookup(2).0, lookup(2).1);
        queue.push(now, lookup(2).0, lookup(2).1);
        assert_eq!(queue.next(now, Some(1)).map(|n| n.0), Some(Purpose::Announce(hash(2))));
        assert_eq!(queue.next(now, None).map(|n| n.0), None, "nobody can reach us, so nothing is announced");
        assert_eq!(queue.next(now, Some(1)).map(|n| n.0), Some(Purpose::Announce(hash(1))));
        assert_eq!(queue.next(now, Some(1)).map(|n| n.0), None);
        assert_eq!(queue.deadline(now, true), Some(now + ANNOUNCE_INTERVAL));
        queue.forget(hash(1));
        assert_eq!(queue.deadline(now, true), None);
    }

    #[test]
    fn what_waits_is_late_from_when_it_was_asked_for() {
        let mut queue = DhtQueue::new(Instant(0));
        let at = |secs| Instant(0) + Duration::from_secs(secs);
        for n in 0..9 {
            queue.push(at(n as u64), Purpose::Announce(hash(n)), DhtOp::Lookup(hash(n)));
        }
        assert_eq!(queue.late(at(0), true), (0, Duration::ZERO), "asked for just now");
        assert_eq!(queue.late(at(10), true), (9, Duration::from_secs(10)));
        assert!(queue.next(at(10), None).is_some());
        assert_eq!(queue.late(at(10), true), (8, Duration::from_secs(9)));
        assert_eq!(start_all(&mut queue, at(11)), 8);
        assert_eq!(queue.late(at(20), true), (0, Duration::ZERO));
    }

    #[test]
    fn no_more_than_eight_run_at_once() {
        let mut queue = DhtQueue::new(Instant(0));
        (0..20).for_each(|n| queue.announce(hash(n), Instant(0)));
        let now = Instant(5);
        for n in 0..DHT_JOBS_MAX as u64 {
            let (purpose, _) = queue.next(now, Some(1)).expect("within the bounds");
            queue.started(JobId(n), purpose);
        }
        assert!(queue.next(now, Some(1)).is_none() && queue.deadline(now, true).is_none());
        queue.finished(JobId(0));
        assert!(queue.next(now, Some(1)).is_some());
    }
}
