//! The DHT budget: what waits, what is due, and how much may start.
//!
//! What is done on the DHT falls into classes, each with a share of the budget that it gets whatever the others want.
//! A share that is not used is the others', in proportion to theirs (start-time fair queueing). Within a class, what
//! is due longest comes first, and nothing waits twice: so everything has its turn. What is late shows in the status.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

use super::api::{DhtError, DhtOp, JobResult};
use crate::bep44::SignedItem;
use crate::bucket::Bucket;
use crate::identity::PublicKey;
use crate::ids::{InfoHash, JobId, Topic};
use crate::limits::{
    ANNOUNCE_INTERVAL, ANNOUNCES_MAX, DHT_BLOBS_PER_MINUTE, DHT_FAVOURS_PER_MINUTE, DHT_JOBS_MAX,
    DHT_LOOKUPS_PER_MINUTE, DHT_OPS_BURST, DHT_OPS_PER_MINUTE, DHT_POLLS_PER_MINUTE, DHT_PUBLISH_PER_MINUTE,
    DHT_RETRY_INTERVAL, DHT_UPKEEP_PER_MINUTE,
};
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
    /// Peers of a swarm, or of one of its blobs.
    Lookup(Topic, InfoHash),
    /// Announce a channel's topic.
    Announce(InfoHash),
    /// Announce one blob.
    AnnounceBlob(InfoHash),
}

impl Purpose {
    fn class(self) -> Class {
        match self {
            Self::Publish => Class::Publish,
            Self::Announce(_) | Self::Reput(_) => Class::Upkeep,
            Self::Poll(_) => Class::Poll,
            Self::Lookup(..) => Class::Lookup,
            Self::AnnounceBlob(_) => Class::Blobs,
            Self::Relay(_) | Self::Keep(_) | Self::LookUpHead(_) => Class::Favour,
        }
    }
}

/// Operations that share a part of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Publish,
    Upkeep,
    Poll,
    Lookup,
    Blobs,
    Favour,
}

impl Class {
    const ALL: [Self; 6] = [Self::Publish, Self::Upkeep, Self::Poll, Self::Lookup, Self::Blobs, Self::Favour];

    fn per_minute(self) -> u64 {
        match self {
            Self::Publish => DHT_PUBLISH_PER_MINUTE,
            Self::Upkeep => DHT_UPKEEP_PER_MINUTE,
            Self::Poll => DHT_POLLS_PER_MINUTE,
            Self::Lookup => DHT_LOOKUPS_PER_MINUTE,
            Self::Blobs => DHT_BLOBS_PER_MINUTE,
            Self::Favour => DHT_FAVOURS_PER_MINUTE,
        }
    }

    /// How long so many operations take within the share: what is to be done so often fits it, if not done more often.
    pub(super) fn time_for(self, operations: usize) -> Duration {
        Duration::from_millis(60_000 * operations as u64 / self.per_minute())
    }
}

/// The operations of one class.
#[derive(Default)]
struct Line {
    /// What is to be done once, by when it was asked for.
    waiting: VecDeque<(Instant, Purpose, DhtOp)>,
    /// What is to be announced again and again, by when it is due.
    announces: BTreeSet<(Instant, Purpose)>,
    /// When it is its turn, in the time that [`DhtQueue::turn`] is in.
    turn: Duration,
}

impl Line {
    /// When the next operation is due.
    fn due(&self) -> Option<Instant> {
        let asked = self.waiting.front().map(|(asked, ..)| *asked);
        asked.into_iter().chain(self.announces.first().map(|(due, _)| *due)).min()
    }

    /// What is due and has not started, by how much it is late.
    fn late(&self, now: Instant) -> impl Iterator<Item = Duration> {
        let asked = self.waiting.iter().map(|(asked, ..)| *asked).take_while(move |due| *due < now);
        let announces = self.announces.iter().map(|(due, _)| *due).take_while(move |due| *due < now);
        asked.chain(announces).map(move |due| now.since(due))
    }
}

/// Operations by class, within the budget.
pub(super) struct DhtQueue {
    /// The port to announce; `None`: nobody can reach us, so nothing is announced.
    port: Option<u16>,
    lines: [Line; Class::ALL.len()],
    /// The turn of the last operation that started, in a time that goes by as fast as the classes use up their shares. The
    /// class whose turn is first goes next, and then its next turn is [`Class::time_for`] one operation later. What has
    /// waited for nothing saves up no turns.
    turn: Duration,
    in_flight: BTreeMap<JobId, Purpose>,
    budget: Bucket,
    /// When each info-hash is announced next.
    announces: BTreeMap<Purpose, Instant>,
}

impl DhtQueue {
    pub(super) fn new(now: Instant, port: Option<u16>) -> Self {
        Self {
            port,
            lines: Default::default(),
            turn: Duration::ZERO,
            in_flight: BTreeMap::new(),
            budget: Bucket::new(DHT_OPS_PER_MINUTE, DHT_OPS_BURST, now),
            announces: BTreeMap::new(),
        }
    }

    fn line(&mut self, purpose: Purpose) -> &mut Line {
        &mut self.lines[purpose.class() as usize]
    }

    /// Queues an operation. `false`: it waits or runs already and is not queued again, which bounds the queue by the number
    /// of channels.
    pub(super) fn push(&mut self, now: Instant, purpose: Purpose, op: DhtOp) -> bool {
        let runs = self.in_flight.values().any(|p| *p == purpose);
        let waiting = &mut self.line(purpose).waiting;
        let is_new = !runs && !waiting.iter().any(|(_, p, _)| *p == purpose);
        if is_new {
            waiting.push_back((now, purpose, op));
        }
        is_new
    }

    /// Leaves out what waits for a purpose. `true`: there was something.
    pub(super) fn forget(&mut self, is_of: impl Fn(&Purpose) -> bool) -> bool {
        let waiting = |queue: &Self| queue.lines.iter().map(|line| line.waiting.len()).sum::<usize>();
        let before = waiting(self);
        for line in &mut self.lines {
            line.waiting.retain(|(_, purpose, _)| !is_of(purpose));
        }
        waiting(self) < before
    }

    pub(super) fn put(&mut self, now: Instant, purpose: Purpose, item: SignedItem, cas: Option<i64>) -> bool {
        self.push(now, purpose, DhtOp::Put(item, cas))
    }

    /// Announces a topic or a blob now and each [`ANNOUNCE_INTERVAL`]. At [`ANNOUNCES_MAX`] of a class further ones are left
    /// out.
    pub(super) fn announce(&mut self, purpose: Purpose, now: Instant) {
        let has_room = self.line(purpose).announces.len() < ANNOUNCES_MAX;
        if has_room && self.port.is_some() && !self.announces.contains_key(&purpose) {
            self.announce_at(purpose, now);
        }
    }

    fn announce_at(&mut self, purpose: Purpose, due: Instant) {
        self.stop_announcing(purpose);
        self.announces.insert(purpose, due);
        self.line(purpose).announces.insert((due, purpose));
    }

    /// `true`: it was announced until then.
    pub(super) fn stop_announcing(&mut self, purpose: Purpose) -> bool {
        let due = self.announces.remove(&purpose);
        due.is_some_and(|due| self.line(purpose).announces.remove(&(due, purpose)))
    }

    /// The next operation that may start, counted against the budget.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Purpose, DhtOp)> {
        if self.in_flight.len() >= DHT_JOBS_MAX || self.budget.next(now) > now {
            return None;
        }
        let is_due = |class: &Class| self.lines[*class as usize].due().is_some_and(|due| due <= now);
        let turns = Class::ALL.into_iter().filter(is_due);
        let (turn, class) =
            turns.map(|class| (self.turn.max(self.lines[class as usize].turn), class)).min()?;
        self.turn = turn;
        self.lines[class as usize].turn = turn + class.time_for(1);
        self.budget.take(now);
        self.take_first(class, now)
    }

    /// What is due longest.
    fn take_first(&mut self, class: Class, now: Instant) -> Option<(Purpose, DhtOp)> {
        let line = &mut self.lines[class as usize];
        let due = line.due();
        if line.waiting.front().map(|(asked, ..)| *asked) == due {
            return line.waiting.pop_front().map(|(_, purpose, op)| (purpose, op));
        }
        let (_, purpose) = *line.announces.first()?;
        let (Purpose::Announce(hash) | Purpose::AnnounceBlob(hash)) = purpose else { return None };
        self.announce_at(purpose, now + ANNOUNCE_INTERVAL);
        Some((purpose, DhtOp::Announce(hash, self.port?)))
    }

    /// An announce has ended: one that failed is tried again sooner than the next one is due, unless it was stopped meanwhile,
    /// or there is no DHT.
    pub(super) fn on_announced(&mut self, now: Instant, purpose: Purpose, result: &JobResult) {
        let failed = matches!(result, JobResult::DhtDone(Err(error)) if *error != DhtError::Disabled);
        if failed && self.stop_announcing(purpose) {
            self.announce_at(purpose, now + DHT_RETRY_INTERVAL);
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
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.len() >= DHT_JOBS_MAX {
            return None;
        }
        let due = self.lines.iter().filter_map(Line::due).min()?;
        Some(due.max(self.budget.next(now)))
    }

    /// How many operations are due and have not started, and by how much the latest of them is late.
    pub(super) fn late(&self, now: Instant) -> (usize, Duration) {
        let late = self.lines.iter().flat_map(|line| line.late(now));
        late.fold((0, Duration::ZERO), |(count, most), late| (count + 1, most.max(late)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::identity::Identity;
    use crate::ids::Secret;

    const PORT: Option<u16> = Some(1);
    const TOPIC: Topic = Topic([7; 32]);

    /// Starts all that may, and ends it at once.
    fn start_all(queue: &mut DhtQueue, now: Instant) -> Vec<Purpose> {
        let mut started = Vec::new();
        while let Some((purpose, _)) = queue.next(now) {
            queue.started(JobId(0), purpose);
            queue.finished(JobId(0));
            started.push(purpose);
        }
        started
    }

    /// What starts in each second of so many.
    fn run(queue: &mut DhtQueue, from: Instant, secs: u64) -> Vec<Purpose> {
        (1..=secs).flat_map(|s| start_all(queue, from + Duration::from_secs(s))).collect()
    }

    fn hash(n: usize) -> InfoHash {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        InfoHash(bytes)
    }

    fn channel() -> PublicKey {
        Identity::new(&Secret::new([3; 32]), None).public_key()
    }

    fn lookup(n: usize) -> (Purpose, DhtOp) {
        (Purpose::Lookup(TOPIC, hash(n)), DhtOp::Lookup(hash(n)))
    }

    fn push(queue: &mut DhtQueue, now: Instant, (purpose, op): (Purpose, DhtOp)) -> bool {
        queue.push(now, purpose, op)
    }

    #[test]
    fn the_budget_bounds_the_rate_and_the_lag_shows() {
        let start = Instant(5);
        let mut queue = DhtQueue::new(start, PORT);
        (0..1000).for_each(|n| queue.announce(Purpose::Announce(hash(n)), start));
        let burst = start_all(&mut queue, start).len();
        assert_eq!(burst, usize::try_from(DHT_OPS_BURST).expect("small"));
        assert_eq!(start_all(&mut queue, start), []);
        let later = start + Duration::from_mins(1);
        assert_eq!(queue.deadline(start), Some(start + Duration::from_millis(500)));
        let minute = run(&mut queue, start, 60).len();
        assert_eq!(minute, usize::try_from(DHT_OPS_PER_MINUTE).expect("small"));
        assert_eq!(queue.late(later), (1000 - burst - minute, Duration::from_mins(1)));
    }

    #[test]
    fn each_class_gets_its_share_whatever_the_others_want_and_what_others_leave() {
        let start = Instant(5);
        let mut queue = DhtQueue::new(start, PORT);
        for n in 0..1000 {
            // In each class more than fits, and favours long before all else.
            queue.push(start, Purpose::Lookup(TOPIC, hash(n)), DhtOp::Lookup(hash(n)));
            queue.announce(Purpose::AnnounceBlob(hash(n)), start);
            queue.announce(Purpose::Announce(hash(n)), start);
            for (class, purpose) in [
                (Class::Favour, Purpose::LookUpHead(channel())),
                (Class::Poll, Purpose::Poll(channel())),
                (Class::Publish, Purpose::Publish),
            ] {
                queue.lines[class as usize].waiting.push_back((start, purpose, DhtOp::Get(channel())));
            }
        }
        start_all(&mut queue, start);
        let started = run(&mut queue, start, 60);
        let of = |started: &[Purpose], class| started.iter().filter(|p| p.class() == class).count();
        for class in Class::ALL {
            let (count, share) = (of(&started, class), usize::try_from(class.per_minute()).expect("small"));
            assert!(count.abs_diff(share) <= 1, "{count} of {class:?}, whose share is {share}");
        }
        for class in [Class::Favour, Class::Poll, Class::Lookup, Class::Publish] {
            queue.lines[class as usize].waiting.clear();
        }
        let minute = run(&mut queue, start + Duration::from_mins(1), 60);
        let (topics, blobs) = (of(&minute, Class::Upkeep), of(&minute, Class::Blobs));
        assert_eq!(minute.len(), topics + blobs);
        let (upkeep, chunks) = (Class::Upkeep.time_for(topics), Class::Blobs.time_for(blobs));
        assert!(
            upkeep.abs_diff(chunks) <= Class::Blobs.time_for(1),
            "{topics} of topics and {blobs} of blobs"
        );
        // A class that was idle has saved up nothing.
        queue.push(start, Purpose::Publish, DhtOp::Get(channel()));
        let next = run(&mut queue, start + Duration::from_mins(2), 5);
        assert_eq!(of(&next, Class::Publish), 1, "{next:?}");
    }

    #[test]
    fn what_is_due_longest_comes_first_and_once() {
        let mut queue = DhtQueue::new(Instant(0), PORT);
        let item = SignedItem::sign(&Identity::new(&Secret::new([3; 32]), None), 7, b"value".to_vec());
        let reput = (Purpose::Reput(channel()), DhtOp::Put(item.expect("it fits"), None));
        let topic = |n| Purpose::Announce(hash(n));
        queue.announce(topic(1), Instant(2));
        assert!(push(&mut queue, Instant(3), reput.clone()));
        queue.announce(topic(2), Instant(4));
        assert!(!push(&mut queue, Instant(4), reput.clone()), "it waits already");
        let now = Instant(5);
        assert_eq!(start_all(&mut queue, now), [topic(1), reput.0, topic(2)]);
        assert_eq!(queue.deadline(now), Some(now + ANNOUNCE_INTERVAL));
        queue.started(JobId(1), reput.0);
        assert!(!push(&mut queue, now, reput.clone()), "it is under way");
        queue.finished(JobId(1));
        assert!(push(&mut queue, now, reput.clone()));
        assert_eq!(start_all(&mut queue, now), [reput.0]);
        let failed = JobResult::DhtDone(Err(DhtError::NoNodes));
        queue.on_announced(now, topic(2), &failed);
        assert!(queue.stop_announcing(topic(1)) && !queue.stop_announcing(topic(1)));
        queue.on_announced(now, topic(1), &failed);
        assert_eq!(start_all(&mut queue, now + DHT_RETRY_INTERVAL), [topic(2)]);
        queue.stop_announcing(topic(2));
        assert_eq!(queue.deadline(now), None);
    }

    #[test]
    fn nothing_is_announced_where_nobody_can_reach_us() {
        let mut queue = DhtQueue::new(Instant(0), None);
        queue.announce(Purpose::Announce(hash(1)), Instant(0));
        assert_eq!((queue.deadline(Instant(5)), queue.late(Instant(5)).0), (None, 0));
        assert!(push(&mut queue, Instant(5), lookup(1)));
        assert_eq!(start_all(&mut queue, Instant(5)), [lookup(1).0]);
    }

    #[test]
    fn announces_of_blobs_are_bounded_and_leave_room_for_topics() {
        let mut queue = DhtQueue::new(Instant(0), PORT);
        for n in 0..=ANNOUNCES_MAX {
            queue.announce(Purpose::AnnounceBlob(hash(n)), Instant(0));
        }
        assert_eq!(queue.late(Instant(5)).0, ANNOUNCES_MAX);
        queue.announce(Purpose::Announce(hash(0)), Instant(0));
        assert_eq!(queue.late(Instant(5)).0, ANNOUNCES_MAX + 1);
    }

    #[test]
    fn what_waits_is_late_from_when_it_was_asked_for() {
        let mut queue = DhtQueue::new(Instant(0), PORT);
        let at = |secs| Instant(0) + Duration::from_secs(secs);
        for n in 0..9 {
            push(&mut queue, at(n as u64), lookup(n));
        }
        assert_eq!(queue.late(at(0)), (0, Duration::ZERO), "asked for just now");
        assert_eq!(queue.late(at(10)), (9, Duration::from_secs(10)));
        assert!(queue.next(at(10)).is_some());
        assert_eq!(queue.late(at(10)), (8, Duration::from_secs(9)));
        assert_eq!(start_all(&mut queue, at(11)).len(), 8);
        assert_eq!(queue.late(at(20)), (0, Duration::ZERO));
    }

    #[test]
    fn no_more_than_eight_run_at_once() {
        let mut queue = DhtQueue::new(Instant(0), PORT);
        (0..20).for_each(|n| queue.announce(Purpose::Announce(hash(n)), Instant(0)));
        let now = Instant(5);
        for n in 0..DHT_JOBS_MAX as u64 {
            let (purpose, _) = queue.next(now).expect("within the bounds");
            queue.started(JobId(n), purpose);
        }
        assert!(queue.next(now).is_none() && queue.deadline(now).is_none());
        queue.finished(JobId(0));
        assert!(queue.next(now).is_some());
    }
}
