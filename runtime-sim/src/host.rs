//! A host: one node with its disk, its sockets and the world's records of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobName, CommandId, ConnId, JobId};
use megatorrent_core::limits::{
    BANS_MAX, CHANNELS_MAX, DHT_JOBS_MAX, DHT_OPS_BURST, DHT_OPS_PER_MINUTE, DIALS_MAX, INBOUND_MAX,
    OUTBOUND_MAX, PART_SEND_BUFFERS_MAX, PARTS_UNDER_WAY_MAX, PEERS_KNOWN_MAX, RECV_BUFFERS_MAX,
    SEND_BUFFERS_MAX, WANTED_PER_FETCH_MAX,
};
use megatorrent_core::node::{Answer, Event, Job, Node, Refusal};
use megatorrent_core::suite::Suite;
use megatorrent_core::time::{Instant, UnixTime};

use crate::checker::check;
use crate::config::HostConfig;
use crate::faults::{Bug, Cap};
use crate::link::{LinkId, Side};
use crate::store::Store;

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub(crate) u32);

impl HostId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Wall time at the world's beginning (2023-11-14), in milliseconds since 1970.
const UNIX_START_MS: u64 = 1_700_000_000_000;
/// Events kept for [`crate::World::events`]; the oldest makes room.
const EVENTS_KEPT_MAX: usize = 65_536;
/// Wakes at one instant that a node may need before it counts as spinning.
const WAKES_PER_INSTANT_MAX: u32 = 64;
/// Every job is answered within this time; dials take longest, where packets are lost both ways.
const JOB_TIME_MAX: Duration = Duration::from_mins(1);

/// A host's line to the others.
#[derive(Default)]
pub(crate) struct Uplink {
    /// Bytes that it was given so far.
    pub(crate) bytes: u64,
    /// When it has sent all bytes that it was given.
    pub(crate) free_at: Instant,
    /// Links that wait for their turn.
    pub(crate) waiting: VecDeque<(LinkId, Side)>,
    /// The link that is writing is one that waited.
    pub(crate) is_called: bool,
    /// An event is queued that goes on with the links that wait.
    pub(crate) is_due: bool,
}

pub(crate) struct Host<S: Suite> {
    pub(crate) config: HostConfig,
    pub(crate) address: SocketAddr,
    /// `None` while the host is down.
    pub(crate) node: Option<Node<S>>,
    /// How often the node was started; events for an earlier run do not reach a later one.
    pub(crate) epoch: u32,
    pub(crate) conns: Sockets,
    pub(crate) jobs: Jobs,
    pub(crate) store: Store,
    pub(crate) events: VecDeque<(Instant, Event)>,
    /// Commands given so far, over all runs, those of this run without an answer, and the answers.
    commands: u64,
    unanswered: BTreeSet<CommandId>,
    pub(crate) answers: VecDeque<(Instant, Result<Answer, Refusal>)>,
    /// When the node wants to be woken.
    pub(crate) wake_at: Option<Instant>,
    /// The first wake that is queued for it, which may be earlier: a later deadline costs no new wake.
    pub(crate) wake_queued: Option<Instant>,
    pub(crate) uplink: Uplink,
    /// When its line has delivered all bytes that reached it.
    pub(crate) downlink_free_at: Instant,
    /// When its disk has written all records that it was given: they are written in order.
    pub(crate) records_free_at: Instant,
    last_wake: (Instant, u32),
    /// Blobs, and parts of them, that its disk is writing.
    pub(crate) writing: BTreeSet<(BlobName, Option<usize>)>,
    /// The highest sequence that the node reported for each channel, over all its runs.
    sequences: BTreeMap<PublicKey, u64>,
}

impl<S: Suite> Host<S> {
    pub(crate) fn new(config: HostConfig, address: SocketAddr) -> Self {
        let store = Store::new(config.store_blobs_max);
        Self {
            config,
            address,
            node: None,
            epoch: 0,
            conns: Sockets::default(),
            jobs: Jobs::default(),
            store,
            events: VecDeque::new(),
            commands: 0,
            unanswered: BTreeSet::new(),
            answers: VecDeque::new(),
            wake_at: None,
            wake_queued: None,
            uplink: Uplink::default(),
            downlink_free_at: Instant(0),
            records_free_at: Instant(0),
            last_wake: (Instant(0), 0),
            writing: BTreeSet::new(),
            sequences: BTreeMap::new(),
        }
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.config.identity_seed.as_ref().map(|seed| Identity::new(seed, self.config.read_key.clone()))
    }

    pub(crate) fn unix(&self, now: Instant) -> UnixTime {
        UnixTime((UNIX_START_MS + now.0 / 1_000_000).saturating_add_signed(self.config.clock_ahead_ms))
    }

    /// Keeps an event, after checking what it claims.
    pub(crate) fn report(&mut self, now: Instant, event: Event) {
        if let Event::Head { channel, sequence } = &event {
            let highest = self.sequences.entry(*channel).or_default();
            check!(
                Sequences,
                *highest <= *sequence,
                "a channel's sequence went back from {highest} to {sequence}"
            );
            *highest = *sequence;
        }
        if self.events.len() >= EVENTS_KEPT_MAX {
            self.events.pop_front();
        }
        self.events.push_back((now, event));
    }

    /// Numbers a command.
    pub(crate) fn begin_command(&mut self) -> CommandId {
        let id = CommandId(self.commands);
        self.commands += 1;
        self.unanswered.insert(id);
        id
    }

    /// Keeps the answer to a command, after checking that it is the only one.
    pub(crate) fn end_command(&mut self, now: Instant, id: CommandId, result: Result<Answer, Refusal>) {
        check!(Jobs, self.unanswered.remove(&id), "{id:?} is answered but open no more: {result:?}");
        if self.answers.len() >= EVENTS_KEPT_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((now, result));
    }

    /// Forgets the commands of a node that is gone.
    pub(crate) fn drop_commands(&mut self) {
        self.unanswered.clear();
    }

    /// Replaces the disk by an empty one, after which the node may begin with any sequence.
    pub(crate) fn wipe(&mut self) {
        self.store.wipe();
        self.sequences.clear();
    }

    /// Counts a wake at `now`: a node that asks for wake after wake at one instant would spin in a real driver.
    pub(crate) fn count_wake(&mut self, now: Instant) {
        let count = if self.last_wake.0 == now { self.last_wake.1 + 1 } else { 0 };
        let reason = || self.node.as_ref().and_then(Node::deadline).map_or("", |(_, reason)| reason);
        check!(Wakes, count < WAKES_PER_INSTANT_MAX, "the node spins at one instant: {}", reason());
        self.last_wake = (now, count);
    }

    /// Checks a blob, or a part of one, that is about to be written: it must be neither being written nor stored.
    pub(crate) fn begin_write(&mut self, id: (BlobName, Option<usize>)) {
        check!(Blobs, self.writing.insert(id), "{id:?} is written twice at once");
        check!(Blobs, !self.store.has::<S>(id), "{id:?} was fetched again, though it is stored");
    }

    /// Checks what must hold whenever the node has no action left. `bug`: the planted one.
    pub(crate) fn check(&self, now: Instant, bug: Option<Bug>) {
        let seen = |cap: Cap, count: usize| count * inflation(bug, cap);
        let sockets = seen(Cap::Connections, self.conns.len());
        check!(Caps, sockets <= INBOUND_MAX + OUTBOUND_MAX, "{sockets} sockets");
        if let Some(node) = &self.node {
            let status = node.status(now);
            let [inbound, outbound] =
                [status.inbound, status.outbound].map(|count| seen(Cap::Connections, count));
            check!(Caps, inbound <= INBOUND_MAX, "{inbound} inbound connections");
            check!(Caps, outbound <= OUTBOUND_MAX, "{outbound} outbound connections");
            let (known, sockets) = (status.inbound + status.outbound, self.conns.len());
            check!(
                Connections,
                known == sockets,
                "node and sockets disagree: {known} connections, {sockets} sockets"
            );
            let addresses = seen(Cap::Addresses, status.peers_known);
            check!(Caps, addresses <= PEERS_KNOWN_MAX, "{addresses} addresses known");
            let bans = seen(Cap::Bans, status.bans);
            check!(Caps, bans <= BANS_MAX, "{bans} bans");
            let oldest = self.jobs.oldest().map_or(0, |begun| now.since(begun).as_secs());
            check!(Jobs, oldest < JOB_TIME_MAX.as_secs(), "a job has had no answer for {oldest} s");
        }
    }
}

/// The factor by which a cap's use counts: more than one where a bug is planted.
fn inflation(bug: Option<Bug>, cap: Cap) -> usize {
    if bug == Some(Bug::CapPassed(cap)) { 10_000 } else { 1 }
}

/// A node's open sockets, by the slots of their ids.
#[derive(Default)]
pub(crate) struct Sockets {
    places: Vec<Option<Socket>>,
    /// Sockets whose slot a newer one has: the node gave them up, and the driver is about to be told.
    given_up: Vec<Socket>,
    count: usize,
}

type Socket = (ConnId, LinkId, Side);

impl Sockets {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, conn: ConnId) -> Option<(LinkId, Side)> {
        let place = self.places.get(conn.slot as usize).into_iter().flatten();
        let (_, link, side) = place.chain(&self.given_up).find(|(known, ..)| *known == conn)?;
        Some((*link, *side))
    }

    pub(crate) fn add(&mut self, conn: ConnId, link: LinkId, side: Side) {
        check!(Connections, self.get(conn).is_none(), "the node gave connection id {conn:?} twice");
        let slot = conn.slot as usize;
        if self.places.len() <= slot {
            self.places.resize(slot + 1, None);
        }
        self.given_up.extend(self.places[slot].replace((conn, link, side)));
        self.count += 1;
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<(LinkId, Side)> {
        let found = self.get(conn)?;
        match self.places.get_mut(conn.slot as usize) {
            Some(place) if place.is_some_and(|(known, ..)| known == conn) => *place = None,
            _ => self.given_up.retain(|(known, ..)| *known != conn),
        }
        self.count -= 1;
        Some(found)
    }

    /// All open sockets.
    pub(crate) fn into_ends(self) -> impl Iterator<Item = (LinkId, Side)> {
        let all = self.places.into_iter().flatten().chain(self.given_up);
        all.map(|(_, link, side)| (link, side))
    }
}

/// The jobs that a node waits for. Checks that no id is used twice and no cap is exceeded.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Few jobs, as most kinds are capped. Ids ascend, so a search from the end is short.
    open: Vec<(JobId, JobKind, Instant)>,
    counts: [usize; 10],
    answered: u64,
    /// Operations on the DHT, and when the first of them began.
    dht_ops: (u64, Option<Instant>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobKind {
    Dial = 0,
    Read = 1,
    Write = 2,
    Dht = 3,
    Look = 4,
    Open = 5,
    Record = 6,
    ReadPart = 7,
    WritePart = 8,
    Finish = 9,
}

impl JobKind {
    pub(crate) fn of(job: &Job) -> Self {
        match job {
            Job::ReadBlob(..) => Self::Read,
            Job::WriteBlob(..) => Self::Write,
            Job::ReadPart(..) => Self::ReadPart,
            Job::WritePart(..) => Self::WritePart,
            Job::FinishBlob(..) => Self::Finish,
            Job::Dht(_) => Self::Dht,
            Job::Have(..) => Self::Look,
            Job::OpenBlob(..) => Self::Open,
            Job::Persist(..) | Job::NoteIds(_) => Self::Record,
        }
    }

    fn cap(self) -> usize {
        match self {
            Self::Dial => DIALS_MAX,
            Self::Read => SEND_BUFFERS_MAX,
            Self::Write => RECV_BUFFERS_MAX,
            Self::ReadPart => PART_SEND_BUFFERS_MAX,
            Self::WritePart => PARTS_UNDER_WAY_MAX,
            Self::Dht => DHT_JOBS_MAX,
            // The blobs in hand; the worlds' nodes follow few channels.
            Self::Look | Self::Open | Self::Finish => WANTED_PER_FETCH_MAX,
            // At most one for each record that a node can have.
            Self::Record => CHANNELS_MAX + BANS_MAX + PEERS_KNOWN_MAX,
        }
    }
}

impl Jobs {
    /// Notes that a job begins. `bug`: the planted one.
    pub(crate) fn begin(&mut self, id: JobId, kind: JobKind, now: Instant, bug: Option<Bug>) {
        check!(Jobs, self.find(id).is_none(), "the node used job id {id:?} while it is open");
        self.open.push((id, kind, now));
        self.counts[kind as usize] += 1;
        let count = self.counts[kind as usize] * inflation(bug, Cap::Jobs);
        check!(Caps, count <= kind.cap(), "{count} jobs of kind {kind:?}, of at most {}", kind.cap());
        if kind == JobKind::Dht {
            let (count, since) = &mut self.dht_ops;
            *count += inflation(bug, Cap::DhtOperations) as u64;
            let passed = now.since(*since.get_or_insert(now)).as_millis();
            let budget = u128::from(DHT_OPS_BURST) + passed * u128::from(DHT_OPS_PER_MINUTE) / 60_000;
            check!(Caps, u128::from(*count) <= budget, "{count} DHT operations in {passed} ms");
        }
    }

    /// Notes that a job gets its answer.
    pub(crate) fn end(&mut self, id: JobId) {
        let found = self.find(id);
        check!(Jobs, found.is_some(), "job {id:?} is answered but not open");
        let Some(at) = found else { return };
        let (_, kind, _) = self.open.swap_remove(at);
        self.counts[kind as usize] -= 1;
        self.answered += 1;
    }

    /// Returns when the oldest open job began.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.open.iter().map(|(.., begun)| *begun).min()
    }

    fn find(&self, id: JobId) -> Option<usize> {
        self.open.iter().rposition(|(open, ..)| *open == id)
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }
}
