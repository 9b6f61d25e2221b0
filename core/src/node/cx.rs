//! The context that every part of a node works with: time, randomness, timers, and the actions to do.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::api::{Action, Claim, Event, Job, RecordKey};
use super::timers::{Timer, Timers};
use crate::addr::PeerAddr;
use crate::identity::PublicKey;
use crate::ids::{BlobId, BlobName, ConnId, JobId, Root, Topic};
use crate::rng::Rng;
use crate::time::{Instant, UnixTime};

/// The meaning of a job's answer.
#[derive(Debug)]
pub(super) enum Pending {
    Dial(PeerAddr),
    /// A blob, or a part of one, for a peer.
    ReadBlob(ConnId, BlobId),
    ReadPart(ConnId, Root, usize),
    /// A received blob, or part of one, and the peer that it came from.
    WriteBlob(BlobName, ConnId, PeerAddr),
    /// A part, of which so many bytes came over a connection.
    WritePart(Root, usize, usize, ConnId, PeerAddr),
    /// A blob whose needed parts are stored, and what it is said to hold.
    Finish(Root, Vec<Claim>),
    /// Which blobs are stored, for the fetch with this number of a swarm's content.
    Have(Topic, u64, Vec<BlobName>),
    /// An opened blob, likewise.
    Open(Topic, u64, BlobName),
    /// A channel's newest head, of this sequence, being made durable.
    Head(PublicKey, u64),
    /// A ban being made durable; its event is emitted afterwards.
    Ban(Event),
    /// A record whose outcome changes nothing.
    Record,
    Dht,
}

/// The context of a call, passed to the part of the node that decides.
pub(super) struct Cx {
    now: Instant,
    /// The wall time at an instant.
    clock: (Instant, UnixTime),
    rng: Rng,
    actions: VecDeque<Action>,
    timers: Timers,
    jobs: BTreeMap<JobId, Pending>,
    next_job: u64,
}

impl Cx {
    pub(super) fn new(rng: Rng, now: Instant, unix: UnixTime) -> Self {
        Self {
            now,
            clock: (now, unix),
            rng,
            actions: VecDeque::new(),
            timers: Timers::default(),
            jobs: BTreeMap::new(),
            next_job: 0,
        }
    }

    // --- time and randomness --------------------------------------------------------------------------------

    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Moves the clock; an earlier `now` counts as the latest.
    pub(super) fn advance_to(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    pub(super) fn unix(&self) -> UnixTime {
        let (at, unix) = self.clock;
        unix.plus(self.now.since(at))
    }

    pub(super) fn set_clock(&mut self, unix: UnixTime) {
        self.clock = (self.now, unix);
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    // --- actions --------------------------------------------------------------------------------------------

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.act(Action::Event(event));
    }

    /// Makes an id for a job whose answer means `pending`.
    pub(super) fn job_id(&mut self, pending: Pending) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(id, pending);
        id
    }

    pub(super) fn job(&mut self, pending: Pending, job: Job) -> JobId {
        let id = self.job_id(pending);
        self.act(Action::Job(id, job));
        id
    }

    pub(super) fn persist(&mut self, pending: Pending, key: RecordKey, value: Option<Vec<u8>>) -> JobId {
        self.job(pending, Job::Persist(key, value))
    }

    /// Has the store note which native blobs have these ids, as their author says.
    pub(super) fn note_ids(&mut self, ids: Vec<(BlobId, Root)>) {
        self.job(Pending::Record, Job::NoteIds(ids));
    }

    /// Takes the meaning of a job's answer. `None`: it is no job of ours, or was answered before.
    pub(super) fn answered(&mut self, job: JobId) -> Option<Pending> {
        self.jobs.remove(&job)
    }

    /// Takes the next action for the driver.
    pub(super) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    // --- timers ---------------------------------------------------------------------------------------------

    pub(super) fn set_timer(&mut self, timer: Timer, at: Instant) {
        self.timers.set(timer, at);
    }

    /// Moves a deadline to `at` if that is sooner.
    pub(super) fn set_timer_sooner(&mut self, timer: Timer, at: Instant) {
        self.timers.set_sooner(timer, at);
    }

    /// Sets a timer to go off after `time`.
    pub(super) fn set_timer_in(&mut self, timer: Timer, time: Duration) {
        self.timers.set(timer, self.now + time);
    }

    pub(super) fn cancel_timer(&mut self, timer: Timer) {
        self.timers.cancel(timer);
    }

    /// Sets a timer, or cancels it where `at` is `None`.
    pub(super) fn set_or_cancel_timer(&mut self, timer: Timer, at: Option<Instant>) {
        match at {
            Some(at) => self.timers.set(timer, at),
            None => self.timers.cancel(timer),
        }
    }

    /// Takes the next timer that is due.
    pub(super) fn pop_due(&mut self) -> Option<Timer> {
        self.timers.pop_due(self.now)
    }

    /// Returns the next deadline and its reason; the deadline is now while an action waits.
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        if self.actions.is_empty() { self.timers.next() } else { Some((self.now, "actions wait")) }
    }
}
