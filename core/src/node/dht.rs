//! The DHT budget: the operations that wait or are due, and how many may start.
//!
//! DHT operations fall into classes, each with a guaranteed share of the budget. The other classes get an unused share, in
//! proportion to theirs (start-time fair queueing). Within a class, the operation that has been due longest comes first, and
//! none waits twice, so that each one comes in the end. The status shows how many are late.
//!
//! An operation that a user waits for, of a publication or the first look-ups of a channel just followed, does not wait for the rest: a
//! part of the budget is reserved for these. Of the channels just followed, the latest comes first.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::api::{DhtError, DhtOp, JobResult};
use crate::bep44::SignedItem;
use crate::bucket::Bucket;
use crate::identity::PublicKey;
use crate::ids::{InfoHash, JobId, Topic};
use crate::limits::{
    ANNOUNCE_INTERVAL, ANNOUNCES_MAX, AWAITED_TIME, DHT_BLOBS_PER_MINUTE, DHT_FAVOURS_PER_MINUTE,
    DHT_JOBS_MAX, DHT_JOBS_RESERVED, DHT_LOOKUPS_PER_MINUTE, DHT_OPS_BURST, DHT_OPS_PER_MINUTE,
    DHT_OPS_RESERVED, DHT_POLLS_PER_MINUTE, DHT_PUBLISH_PER_MINUTE, DHT_RESERVED_PER_MINUTE,
    DHT_RETRY_INTERVAL, DHT_UPKEEP_PER_MINUTE,
};
use crate::time::Instant;

/// The end of time, for an operation that a user waits for without end.
const ALWAYS: Instant = Instant(u64::MAX);

/// The purpose of an operation, which says which part gets its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Look up the newest head of a channel.
    Poll(PublicKey),
    /// Keep a head alive.
    Reput(PublicKey),
    /// Any step of the publication in a channel.
    Publish(PublicKey),
    /// Put an item for another node.
    Relay(PublicKey),
    /// Put an item for another node again.
    Keep(PublicKey),
    /// Look up the head of a channel for another node.
    LookUpHead(PublicKey),
    /// Look up peers of a swarm, or of one of its blobs.
    Lookup(Topic, InfoHash),
    /// Announce a channel's topic.
    Announce(InfoHash),
    /// Announce one blob.
    AnnounceBlob(InfoHash),
}

impl Purpose {
    fn class(self) -> Class {
        match self {
            Self::Publish(_) => Class::Publish,
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

    /// Returns how long the share takes for `operations`: that many fit in each such period.
    pub(super) fn time_for(self, operations: usize) -> Duration {
        Duration::from_millis(60_000 * operations as u64 / self.per_minute())
    }
}

/// An operation that is to be done once, and when it was asked for.
struct Waiting {
    asked: Instant,
    purpose: Purpose,
    op: DhtOp,
}

/// The operations of one class.
#[derive(Default)]
struct Line {
    /// Single operations, in the order in which they were asked for.
    waiting: BTreeMap<u64, Waiting>,
    /// Repeated announces, by when they are due.
    announces: BTreeSet<(Instant, Purpose)>,
    /// The start tag of its next operation, in the virtual time of [`DhtQueue::virtual_time`].
    start_tag: Duration,
}

impl Line {
    /// Returns when the next operation is due. `announces`: we announce.
    fn due(&self, announces: bool) -> Option<Instant> {
        let asked = self.waiting.values().next().map(|waiting| waiting.asked);
        let announce = self.announces.first().filter(|_| announces).map(|(due, _)| *due);
        asked.into_iter().chain(announce).min()
    }

    /// Returns by how much each operation that is due and has not started is late.
    fn late(&self, announces: bool, now: Instant) -> impl Iterator<Item = Duration> {
        let asked = self.waiting.values().map(|waiting| waiting.asked).take_while(move |due| *due < now);
        let due = self.announces.iter().map(|(due, _)| *due).take_while(move |due| announces && *due < now);
        asked.chain(due).map(move |due| now.since(due))
    }
}

/// Operations by class, within the budget.
pub(super) struct DhtQueue {
    /// The port to announce; `None`: no peer can reach us, so nothing is announced.
    port: Option<u16>,
    lines: [Line; Class::ALL.len()],
    /// The place of each single operation in its line, and since when a user waits for it, if one does.
    waiting: BTreeMap<Purpose, (u64, Option<Instant>)>,
    /// The operations that a user waits for, the latest first.
    awaited: BTreeSet<(Reverse<Instant>, u64, Purpose)>,
    /// Operations asked for so far.
    asked: u64,
    /// The start tag of the last operation that started, in a time that passes as fast as the classes use up their shares.
    /// The class with the least start tag goes next, and its next tag is [`Class::time_for`] one operation later. An idle
    /// class saves up nothing.
    virtual_time: Duration,
    in_flight: BTreeMap<JobId, Purpose>,
    budget: Bucket,
    /// The part of the budget that is reserved for operations that a user waits for.
    reserve: Bucket,
    /// When each announce is due next.
    announces: BTreeMap<Purpose, Instant>,
}

impl DhtQueue {
    pub(super) fn new(now: Instant, port: Option<u16>) -> Self {
        Self {
            port,
            lines: Default::default(),
            waiting: BTreeMap::new(),
            awaited: BTreeSet::new(),
            asked: 0,
            virtual_time: Duration::ZERO,
            in_flight: BTreeMap::new(),
            budget: Bucket::new(DHT_OPS_PER_MINUTE, DHT_OPS_BURST, now),
            reserve: Bucket::new(DHT_RESERVED_PER_MINUTE, DHT_OPS_RESERVED, now),
            announces: BTreeMap::new(),
        }
    }

    /// Changes the port to announce: all announces are due with the new one at once, or wait until there is one.
    pub(super) fn set_port(&mut self, port: Option<u16>, now: Instant) {
        if self.port == port {
            return;
        }
        self.port = port;
        for purpose in self.announces.keys().copied().collect::<Vec<_>>() {
            self.announce_at(purpose, now);
        }
    }

    fn line(&mut self, purpose: Purpose) -> &mut Line {
        &mut self.lines[purpose.class() as usize]
    }

    /// Queues an operation. `false`: one with its purpose waits or is in flight already, which bounds the queue by the number
    /// of channels.
    pub(super) fn push(&mut self, now: Instant, purpose: Purpose, op: DhtOp) -> bool {
        let is_new = !self.in_flight.values().any(|p| *p == purpose) && !self.waiting.contains_key(&purpose);
        if is_new {
            self.asked += 1;
            let at = self.asked;
            self.waiting.insert(purpose, (at, None));
            self.line(purpose).waiting.insert(at, Waiting { asked: now, purpose, op });
            if purpose.class() == Class::Publish {
                self.note_awaited(purpose, ALWAYS);
            }
        }
        is_new
    }

    /// A user waits since a time for an operation, if that waits for its turn; after [`AWAITED_TIME`] it waits with all others.
    pub(super) fn note_awaited(&mut self, purpose: Purpose, since: Instant) {
        let Some((at, earlier)) = self.waiting.get_mut(&purpose) else { return };
        if let Some(earlier) = earlier.replace(since) {
            self.awaited.remove(&(Reverse(earlier), *at, purpose));
        }
        self.awaited.insert((Reverse(since), *at, purpose));
    }

    /// Drops the operations of some purposes that have not started; returns whether there were any.
    pub(super) fn forget(&mut self, is_of: impl Fn(&Purpose) -> bool) -> bool {
        let dropped: Vec<(Purpose, u64)> =
            self.waiting.iter().filter(|(purpose, _)| is_of(purpose)).map(|(p, (at, _))| (*p, *at)).collect();
        for (purpose, at) in &dropped {
            self.take_waiting(purpose.class(), *at);
        }
        !dropped.is_empty()
    }

    pub(super) fn put(&mut self, now: Instant, purpose: Purpose, item: SignedItem, cas: Option<i64>) -> bool {
        self.push(now, purpose, DhtOp::Put(item, cas))
    }

    /// Announces a topic or a blob at once and each [`ANNOUNCE_INTERVAL`], while peers can reach us. Returns `false` where it is
    /// announced already, or [`ANNOUNCES_MAX`] of its class are.
    pub(super) fn announce(&mut self, purpose: Purpose, now: Instant) -> bool {
        let has_room = self.line(purpose).announces.len() < ANNOUNCES_MAX;
        let is_begun = has_room && !self.announces.contains_key(&purpose);
        if is_begun {
            self.announce_at(purpose, now);
        }
        is_begun
    }

    fn announce_at(&mut self, purpose: Purpose, due: Instant) {
        self.stop_announcing(purpose);
        self.announces.insert(purpose, due);
        self.line(purpose).announces.insert((due, purpose));
    }

    /// Stops announcing; returns whether it was being announced.
    pub(super) fn stop_announcing(&mut self, purpose: Purpose) -> bool {
        let due = self.announces.remove(&purpose);
        due.is_some_and(|due| self.line(purpose).announces.remove(&(due, purpose)))
    }

    /// Returns when an operation may start as all do, if one is due and need not wait for one in flight.
    fn next_usual(&self, now: Instant) -> Option<Instant> {
        let has_room = self.in_flight.len() + DHT_JOBS_RESERVED < DHT_JOBS_MAX;
        let announces = self.port.is_some();
        let due = self.lines.iter().filter_map(|line| line.due(announces)).min().filter(|_| has_room)?;
        Some(due.max(self.budget.next_of(1 + DHT_OPS_RESERVED, now)))
    }

    /// Returns the same for an operation that a user waits for.
    fn next_awaited(&self, now: Instant) -> Option<Instant> {
        let is_awaited = |(Reverse(since), ..): &(Reverse<Instant>, _, _)| now.since(*since) < AWAITED_TIME;
        let may_start = self.awaited.first().is_some_and(is_awaited) && self.in_flight.len() < DHT_JOBS_MAX;
        may_start.then(|| self.budget.next(now).max(self.reserve.next(now)))
    }

    /// Takes the next operation that may start, and counts it against the budget.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Purpose, DhtOp)> {
        let is_now = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_now(self.next_usual(now)) {
            let is_due = |class: &Class| is_now(self.lines[*class as usize].due(self.port.is_some()));
            let due = Class::ALL.into_iter().filter(is_due);
            let (start_tag, class) = due
                .map(|class| (self.virtual_time.max(self.lines[class as usize].start_tag), class))
                .min()?;
            self.virtual_time = start_tag;
            self.lines[class as usize].start_tag = start_tag + class.time_for(1);
            self.budget.take(now);
            return self.take_first(class, now);
        }
        if !is_now(self.next_awaited(now)) {
            return None;
        }
        let (_, at, purpose) = *self.awaited.first()?;
        self.budget.take(now);
        self.reserve.take(now);
        self.take_waiting(purpose.class(), at)
    }

    fn take_waiting(&mut self, class: Class, at: u64) -> Option<(Purpose, DhtOp)> {
        let Waiting { purpose, op, .. } = self.lines[class as usize].waiting.remove(&at)?;
        if let Some((_, Some(since))) = self.waiting.remove(&purpose) {
            self.awaited.remove(&(Reverse(since), at, purpose));
        }
        Some((purpose, op))
    }

    /// Takes the operation of a class that has been due longest.
    fn take_first(&mut self, class: Class, now: Instant) -> Option<(Purpose, DhtOp)> {
        let announces = self.port.is_some();
        let line = &mut self.lines[class as usize];
        let due = line.due(announces);
        if let Some((at, _)) =
            line.waiting.first_key_value().filter(|(_, waiting)| Some(waiting.asked) == due)
        {
            let at = *at;
            return self.take_waiting(class, at);
        }
        let (_, purpose) = *line.announces.first()?;
        let (Purpose::Announce(hash) | Purpose::AnnounceBlob(hash)) = purpose else { return None };
        self.announce_at(purpose, now + ANNOUNCE_INTERVAL);
        Some((purpose, DhtOp::Announce(hash, self.port?)))
    }

    /// Takes an announce's result: retries one that failed before the next one is due, unless it was stopped in the meantime
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

    /// Gives up an operation in flight: whatever else it brings is of no use, and its purpose may have another at once.
    pub(super) fn abandon(&mut self, purpose: Purpose) {
        self.in_flight.retain(|_, p| *p != purpose);
    }

    /// Returns when [`Self::next`] may have an operation; `None`: not before one in flight ends.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        [self.next_usual(now), self.next_awaited(now)].into_iter().flatten().min()
    }

    /// Counts the operations that are due and have not started, and returns by how much the most overdue one is late.
    pub(super) fn late(&self, now: Instant) -> (usize, Duration) {
        let late = self.lines.iter().flat_map(|line| line.late(self.port.is_some(), now));
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

    /// Starts all operations that may start, and ends each at once.
    fn start_all(queue: &mut DhtQueue, now: Instant) -> Vec<Purpose> {
        let mut started = Vec::new();
        while let Some((purpose, _)) = queue.next(now) {
            queue.started(JobId(0), purpose);
            queue.finished(JobId(0));
            started.push(purpose);
        }
        started
    }

    /// Returns what starts within `secs` seconds, one second at a time.
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
        (0..1000).for_each(|n| assert!(queue.announce(Purpose::Announce(hash(n)), start)));
        let burst = start_all(&mut queue, start).len();
        assert_eq!(burst, usize::try_from(DHT_OPS_BURST - DHT_OPS_RESERVED).expect("small"));
        assert_eq!(start_all(&mut queue, start), []);
        let later = start + Duration::from_mins(1);
        assert_eq!(queue.deadline(start), Some(start + Duration::from_millis(500)));
        let minute = run(&mut queue, start, 60).len();
        assert_eq!(minute, usize::try_from(DHT_OPS_PER_MINUTE).expect("small"));
        assert_eq!(queue.late(later), (1000 - burst - minute, Duration::from_mins(1)));
    }

    #[test]
    fn each_class_gets_its_share_whatever_the_others_want_and_unused_shares() {
        let start = Instant(5);
        let mut queue = DhtQueue::new(start, PORT);
        for n in 0..1000 {
            // Each class has more than fits, and favours wait longest.
            queue.push(start, Purpose::Lookup(TOPIC, hash(n)), DhtOp::Lookup(hash(n)));
            queue.announce(Purpose::AnnounceBlob(hash(n)), start);
            queue.announce(Purpose::Announce(hash(n)), start);
            for (class, purpose) in [
                (Class::Favour, Purpose::LookUpHead(channel())),
                (Class::Poll, Purpose::Poll(channel())),
                (Class::Publish, Purpose::Publish(channel())),
            ] {
                let waiting = Waiting { asked: start, purpose, op: DhtOp::Get(channel()) };
                queue.lines[class as usize].waiting.insert(n as u64, waiting);
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
        // An idle class has saved up nothing.
        queue.push(start, Purpose::Publish(channel()), DhtOp::Get(channel()));
        let next = run(&mut queue, start + Duration::from_mins(2), 5);
        assert_eq!(of(&next, Class::Publish), 1, "{next:?}");
    }

    /// A look-up that a user waits for as of now.
    fn look_up(queue: &mut DhtQueue, now: Instant, n: usize) {
        push(queue, now, lookup(n));
        queue.note_awaited(lookup(n).0, now);
    }

    #[test]
    fn what_a_user_waits_for_starts_at_once_the_latest_first_and_leaves_the_others_their_shares() {
        let start = Instant(5);
        let mut queue = DhtQueue::new(start, PORT);
        (0..1000).for_each(|n| assert!(queue.announce(Purpose::Announce(hash(n)), start)));
        (0..100).for_each(|n| _ = push(&mut queue, start, lookup(n)));
        start_all(&mut queue, start);
        let later = start + Duration::from_secs(10);
        start_all(&mut queue, later);
        look_up(&mut queue, later, 200);
        look_up(&mut queue, later + Duration::from_nanos(1), 90);
        assert_eq!(start_all(&mut queue, later), [lookup(90).0, lookup(200).0]);
        // Also where there is no end of it.
        (300..900).for_each(|n| look_up(&mut queue, later, n));
        let started = run(&mut queue, later, 60);
        let of_topics = started.iter().filter(|purpose| matches!(purpose, Purpose::Announce(_))).count();
        assert!(of_topics as u64 >= DHT_UPKEEP_PER_MINUTE, "{of_topics}");
        assert!(!queue.awaited.is_empty() && queue.next_awaited(later + AWAITED_TIME).is_none());
    }

    #[test]
    fn the_operation_due_longest_comes_first_and_once() {
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
        assert!(!push(&mut queue, now, reput.clone()), "it is in flight");
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
    fn nothing_is_announced_without_a_listening_port() {
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
    fn an_operation_is_late_from_when_it_was_asked_for() {
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
    fn no_more_than_eight_run_at_once_of_which_two_are_for_users() {
        let mut queue = DhtQueue::new(Instant(0), PORT);
        (0..20).for_each(|n| assert!(queue.announce(Purpose::Announce(hash(n)), Instant(0))));
        let now = Instant(5);
        for n in 0..DHT_JOBS_MAX as u64 {
            if n == (DHT_JOBS_MAX - DHT_JOBS_RESERVED) as u64 {
                assert!(queue.next(now).is_none() && queue.deadline(now).is_none());
                (0..4).for_each(|n| look_up(&mut queue, now, n));
            }
            let (purpose, _) = queue.next(now).expect("within the bounds");
            queue.started(JobId(n), purpose);
        }
        assert!(queue.next(now).is_none() && queue.deadline(now).is_none());
        queue.finished(JobId(7));
        queue.finished(JobId(0));
        assert!(queue.next(now).is_some());
    }
}
