//! The node: every decision, over all connections.
//!
//! # How to drive it
//! Methods fall into four classes; any order is safe, none blocks, none calls back.
//! - **Control in**: [`Node::handle`], [`Node::accept`], [`Node::dialed`], [`Node::disconnected`], [`Node::set_clock`],
//!   [`Node::shutdown`].
//! - **Control out**: [`Node::poll`] until `None` after anything went in; [`Node::deadline`] says when to hand in
//!   [`Input::Wake`] if nothing else happens. While an action waits, the deadline is now.
//! - **Data in**: [`Node::recv_space`], fill some of it from the socket, [`Node::received`]. Empty space: do not read
//!   that socket until [`Action::Readable`] names it.
//! - **Data out**: [`Node::send_chunk`], write some of it, [`Node::sent`]. Empty chunk: nothing until
//!   [`Action::Writable`] names the connection. An empty slice of either kind may have set a deadline.
//!
//! A call on a connection that is gone changes nothing. Time never goes back: an earlier `now` counts as the latest.

mod alive;
mod announce;
mod api;
mod bans;
mod channels;
mod conns;
mod crowd;
mod dht;
mod dials;
mod downloads;
mod exchange;
mod fetch;
mod gateway;
mod gossip;
mod have;
mod peers;
mod pool;
mod publish;
mod publish_via;
mod quotas;
mod rate;
mod readiness;
mod recheck;
mod record;
mod scheduler;
mod shares;
mod throttle;
mod timers;
mod transfer;
mod uploads;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

pub use api::*;

use crate::addr::PeerAddr;
use crate::error::CloseReason;
use crate::identity::{Identity, PublicKey};
use crate::ids::{BlobId, ConnId, JobId};
use crate::limits::{RECV_BUFFERS_MAX, SEND_BUFFERS_MAX};
use crate::rng::Rng;
use crate::suite::{RealSuite, Suite};
use crate::time::{Instant, UnixTime};
use announce::Flood;
use channels::Channel;
use conns::Conns;
use dht::{DhtQueue, Purpose};
use dials::Rotation;
use gateway::Gateway;
use have::Holders;
use peers::{Peers, Source};
use pool::Pool;
use publish::Publication;
use scheduler::Scheduler;
use throttle::Throttles;
use timers::{Timer, Timers};
use transfer::Contribution;
use uploads::Uploads;

/// How long the store rests after it had no room or failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What a node is told at its start.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The port on which others reach us; `None`: nobody can, and nothing is announced.
    pub listen_port: Option<u16>,
    /// The onion or I2P name and port under which others reach us, if there is one: it is announced to peers.
    pub own_address: Option<PeerAddr>,
    /// Whether the DHT is one of this machine or of a private network, not the public one: only there private addresses are
    /// those of peers.
    pub private_dht: bool,
    /// Whether we put and look up heads on the DHT for peers that have none.
    pub gateway: bool,
    /// Bytes sent each second, over all connections, at most; `None`: without a limit. Less than
    /// [`crate::limits::RATE_LIMIT_MIN`] counts as that.
    pub upload_bytes_per_sec: Option<u64>,
    /// Bytes received each second, likewise: more than that is not read from the sockets.
    pub download_bytes_per_sec: Option<u64>,
}

/// What a job's answer means to us.
enum Pending {
    Dial(PeerAddr),
    /// A blob for a peer.
    Read(ConnId, BlobId),
    /// A blob, and whose bytes it is made of.
    Write(BlobId, Vec<Contribution>),
    /// For a channel's fetch of one version.
    Have(PublicKey, u64, Vec<BlobId>),
    Open(PublicKey, u64, BlobId),
    /// A channel's newest head is made durable.
    Head(PublicKey),
    /// A ban is made durable; its news wait for that.
    Ban(Event),
    /// A record whose fate changes nothing.
    Record,
    Dht,
}

/// A node; over the real suite unless a simulator names another one.
pub struct Node<S: Suite = RealSuite> {
    config: Config,
    identity: Option<Identity>,
    rng: Rng,
    now: Instant,
    clock: (Instant, UnixTime),
    actions: VecDeque<Action>,
    timers: Timers,
    jobs: BTreeMap<JobId, Pending>,
    next_job: u64,
    conns: Conns<S>,
    peers: Peers,
    dials: usize,
    rotation: Rotation,
    /// When a peer may be asked for others, or dialled back, if some are needed.
    seek_at: Instant,
    /// When that was done last.
    sought: Option<Instant>,
    scheduler: Scheduler,
    throttles: Throttles,
    recv_pool: Pool,
    send_pool: Pool,
    store_rests: bool,
    /// Something has changed so that more may be asked for.
    assign_due: bool,
    /// How long the first bytes of a range usually take.
    usual_wait: Duration,
    uploads: Uploads,
    /// How rare the blobs of each channel's newest version are.
    holders: BTreeMap<PublicKey, Holders>,
    /// Channels whose blobs are fetched in order.
    in_order: BTreeSet<PublicKey>,
    /// Channels of which peers may be told more.
    have_due: BTreeSet<PublicKey>,
    /// When peers were last told.
    told_at: Instant,
    /// When the next WATCH to everybody may follow.
    watch_next: Instant,
    dht: DhtQueue,
    /// Boxed, as a node of the tree has room for eleven, and most nodes follow fewer.
    channels: BTreeMap<PublicKey, Box<Channel>>,
    publication: Option<Publication>,
    gateway: Gateway,
    flood: Flood,
    bytes_received: u64,
    bytes_sent: u64,
    bytes_duplicate: u64,
    is_shut_down: bool,
}

impl Node {
    /// `seed` is 32 bytes of full entropy; `unix` is the wall time at `now`, from which the node reckons wall time.
    pub fn new(
        config: Config,
        identity: Option<Identity>,
        seed: [u8; 32],
        now: Instant,
        unix: UnixTime,
    ) -> Self {
        Self::with_suite(config, identity, seed, now, unix)
    }
}

impl<S: Suite> Node<S> {
    /// [`Node::new`] over another suite.
    pub fn with_suite(
        config: Config,
        identity: Option<Identity>,
        seed: [u8; 32],
        now: Instant,
        unix: UnixTime,
    ) -> Self {
        let rng = Rng::new(seed);
        let dht = DhtQueue::new(now, config.listen_port);
        let throttles = Throttles::new(config.upload_bytes_per_sec, config.download_bytes_per_sec, now);
        Self {
            config,
            identity,
            conns: Conns::new(rng.fork("connections")),
            rng: rng.fork("node"),
            now,
            clock: (now, unix),
            actions: VecDeque::new(),
            timers: Timers::default(),
            jobs: BTreeMap::new(),
            next_job: 0,
            peers: Peers::default(),
            dials: 0,
            rotation: Rotation::default(),
            seek_at: now,
            sought: None,
            scheduler: Scheduler::default(),
            throttles,
            recv_pool: Pool::new(RECV_BUFFERS_MAX, S::BLOB_LEN),
            send_pool: Pool::new(SEND_BUFFERS_MAX, S::BLOB_LEN),
            store_rests: false,
            assign_due: false,
            usual_wait: Duration::ZERO,
            uploads: Uploads::default(),
            holders: BTreeMap::new(),
            in_order: BTreeSet::new(),
            have_due: BTreeSet::new(),
            told_at: now,
            watch_next: now,
            dht,
            channels: BTreeMap::new(),
            publication: None,
            gateway: Gateway::new(now),
            flood: Flood::new(),
            bytes_received: 0,
            bytes_sent: 0,
            bytes_duplicate: 0,
            is_shut_down: false,
        }
    }

    /// Takes back a record of an earlier run, before anything else. `false`: it does not parse and is left alone.
    pub fn restore(&mut self, key: &RecordKey, value: &[u8]) -> bool {
        match key {
            RecordKey::Channel(channel) => self.restore_channel(*channel, value),
            RecordKey::Ban(addr) => self.restore_ban(addr, value),
            RecordKey::Peer(addr) => {
                self.peers.add(addr.clone(), Source::Remembered, self.now);
                self.forget_peers();
                true
            }
        }
    }

    /// Control in: an input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.advance_to(now);
        match input {
            Input::Command(command) => self.on_command(command),
            Input::Done(job, result) => self.on_done(job, result),
            Input::DhtItem(job, item) => self.on_dht_item(job, item),
            Input::DhtPeers(job, peers) => self.on_dht_peers(job, peers),
            Input::Wake => self.on_wake(),
        }
        self.settle();
    }

    /// Control out: the next action.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Control out: when to hand in [`Input::Wake`], and why; now, while an action waits.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        if self.actions.is_empty() { self.timers.next() } else { Some((self.now, "actions wait")) }
    }

    /// Control in: the wall clock was set; `unix` is the wall time at `now`.
    pub fn set_clock(&mut self, now: Instant, unix: UnixTime) {
        self.advance_to(now);
        self.clock = (self.now, unix);
        self.end_bans();
    }

    /// Control in: closes every connection; the driver drains the actions and ends. Nothing is begun afterwards.
    pub fn shutdown(&mut self, now: Instant) {
        self.advance_to(now);
        self.is_shut_down = true;
        for conn in self.conns.ids() {
            self.close(conn, CloseReason::Shutdown);
        }
    }

    /// The channels followed.
    pub fn channels(&self) -> Vec<PublicKey> {
        self.channels.keys().copied().collect()
    }

    /// Counters.
    pub fn status(&self, now: Instant) -> NodeStatus {
        let (inbound, outbound) = self.conns.count();
        let (dht_late, lag) = self.dht.late(now.max(self.now));
        NodeStatus {
            inbound,
            outbound,
            peers_known: self.peers.known(),
            bans: self.peers.bans.count(self.unix()),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            bytes_duplicate: self.bytes_duplicate,
            dht_late,
            dht_lag_secs: lag.as_secs(),
        }
    }

    fn advance_to(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn unix(&self) -> UnixTime {
        let (at, unix) = self.clock;
        unix.plus(self.now.since(at))
    }

    fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }

    fn job_id(&mut self, pending: Pending) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(id, pending);
        id
    }

    fn job(&mut self, pending: Pending, job: Job) {
        let id = self.job_id(pending);
        self.actions.push_back(Action::Job(id, job));
    }

    fn persist(&mut self, pending: Pending, key: RecordKey, value: Option<Vec<u8>>) {
        self.job(pending, Job::Persist(key, value));
    }

    // --- inputs ---------------------------------------------------------------------------------------------

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Follow { channel, read_key } => self.follow(channel, read_key),
            Command::FetchInOrder { channel, in_order } => {
                if in_order {
                    self.in_order.insert(channel);
                } else {
                    self.in_order.remove(&channel);
                }
            }
            Command::Publish(draft) => self.publish(draft),
            Command::AddPeer(addr) => {
                self.peers.add(addr, Source::Configured, self.now);
            }
        }
    }

    fn on_done(&mut self, job: JobId, result: JobResult) {
        // A job that is not ours, or answered twice, is the driver's fault and changes nothing.
        let Some(pending) = self.jobs.remove(&job) else { return };
        match (pending, result) {
            (Pending::Read(conn, id), JobResult::BlobRead(buffer, found)) => {
                self.on_blob_read(conn, id, buffer, found);
            }
            (Pending::Write(id, parts), JobResult::BlobWritten(buffer, written)) => {
                self.on_blob_written(id, parts, buffer, written);
            }
            (Pending::Have(channel, sequence, ids), JobResult::Have(have)) => {
                self.with_fetch_of(channel, sequence, |fetch, asks| fetch.on_have(&ids, &have, asks));
            }
            (Pending::Open(channel, sequence, id), JobResult::Opened(plain)) => {
                let plain = plain.as_deref();
                self.with_fetch_of(channel, sequence, |fetch, asks| fetch.on_opened(id, plain, asks));
            }
            (Pending::Head(channel), JobResult::Persisted(durable)) => {
                self.on_head_persisted(channel, durable);
            }
            (Pending::Dht, result) => self.on_dht_done(job, &result),
            (Pending::Ban(news), JobResult::Persisted(_)) => self.event(news),
            (Pending::Record, JobResult::Persisted(_)) => {}
            (_, result) => debug_assert!(false, "the answer does not fit its job: {result:?}"),
        }
    }

    fn on_wake(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Conn(conn) => self.on_conn_timer(conn),
                Timer::Channel(channel) => self.on_channel_timer(channel),
                Timer::Store => (self.store_rests, self.assign_due) = (false, true),
                Timer::Review => self.review(),
                Timer::Uploads => self.begin_turns(),
                Timer::Have => self.tell_due(),
                Timer::Watch => self.watch_anew(),
                Timer::Throttle => self.on_throttle_timer(),
                Timer::Announce => self.announce_own(),
                Timer::Publish => self.on_publish_timer(),
                Timer::Bans => self.end_bans(),
                Timer::Keep => self.keep_relayed(),
                // What they wait for is looked at after every input.
                Timer::Dht | Timer::Dial | Timer::Seek | Timer::Rotation => {}
            }
        }
    }

    /// Begins what has become possible.
    fn settle(&mut self) {
        if self.is_shut_down {
            return;
        }
        self.assign_requests();
        self.start_dials();
        self.start_dht();
        self.forget_peers();
    }

    fn start_dht(&mut self) {
        while let Some((purpose, op)) = self.dht.next(self.now) {
            let job = self.job_id(Pending::Dht);
            self.dht.started(job, purpose);
            self.on_dht_started(purpose);
            self.actions.push_back(Action::Job(job, Job::Dht(op)));
        }
        match self.dht.deadline(self.now) {
            Some(at) => self.timers.set(Timer::Dht, at),
            None => self.timers.cancel(Timer::Dht),
        }
    }

    fn on_dht_peers(&mut self, job: JobId, peers: Vec<PeerAddr>) {
        if matches!(self.dht.purpose(job), Some(Purpose::Lookup(..))) {
            let may_be = |peer: &PeerAddr| self.config.private_dht || peer.is_public();
            for peer in peers.into_iter().filter(|peer| peer.is_exchangeable() && may_be(peer)) {
                self.peers.add(peer, Source::Dht, self.now);
            }
        }
    }
}
