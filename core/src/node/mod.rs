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

mod announce;
mod api;
mod channels;
mod conns;
mod cx;
mod dht;
mod downloads;
mod fetch;
mod gateway;
mod gossip;
mod have;
mod peers;
mod pool;
mod publications;
mod quotas;
mod rate;
mod readiness;
mod recheck;
mod record;
mod scheduler;
mod table;
mod throttle;
mod timers;
mod transfer;
mod uploads;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

pub use api::*;

use crate::addr::PeerAddr;
use crate::error::{CloseReason, Violation};
use crate::identity::{Identity, PublicKey};
use crate::ids::{ConnId, JobId};
use crate::limits::RECV_BUFFERS_MAX;
use crate::rng::Rng;
use crate::suite::{RealSuite, Suite};
use crate::time::{Instant, UnixTime};
use announce::Flood;
use channels::Channel;
use conns::Conns;
use cx::{Cx, Pending};
use dht::{DhtQueue, Purpose};
use gateway::Gateway;
use have::Holders;
use peers::{Need, Peers, Source};
use pool::Pool;
use publications::{Env, Next, Publications};
use scheduler::Scheduler;
use throttle::Throttles;
use timers::Timer;
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
    /// Whether we put and look up heads on the DHT for peers that have none.
    pub gateway: bool,
    /// Bytes sent each second, over all connections, at most; `None`: without a limit. Less than
    /// [`crate::limits::RATE_LIMIT_MIN`] counts as that.
    pub upload_bytes_per_sec: Option<u64>,
    /// Bytes received each second, likewise: more than that is not read from the sockets.
    pub download_bytes_per_sec: Option<u64>,
}

/// A node; over the real suite unless a simulator names another one.
pub struct Node<S: Suite = RealSuite> {
    config: Config,
    cx: Cx,
    conns: Conns<S>,
    peers: Peers,
    scheduler: Scheduler,
    throttles: Throttles,
    recv_pool: Pool,
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
    publications: Publications,
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
            conns: Conns::new(rng.fork("connections")),
            cx: Cx::new(rng.fork("node"), now, unix),
            peers: Peers::new(now),
            scheduler: Scheduler::default(),
            throttles,
            recv_pool: Pool::new(RECV_BUFFERS_MAX, S::BLOB_LEN),
            store_rests: false,
            assign_due: false,
            usual_wait: Duration::ZERO,
            uploads: Uploads::new(S::BLOB_LEN),
            holders: BTreeMap::new(),
            in_order: BTreeSet::new(),
            have_due: BTreeSet::new(),
            told_at: now,
            watch_next: now,
            dht,
            channels: BTreeMap::new(),
            publications: Publications::new(identity),
            gateway: Gateway::new(config.gateway, now),
            flood: Flood::new(config.own_address.clone()),
            bytes_received: 0,
            bytes_sent: 0,
            bytes_duplicate: 0,
            is_shut_down: false,
            config,
        }
    }

    /// Takes back a record of an earlier run, before anything else. `false`: it does not parse and is left alone.
    pub fn restore(&mut self, key: &RecordKey, value: &[u8]) -> bool {
        match key {
            RecordKey::Channel(channel) => self.restore_channel(*channel, value),
            RecordKey::Ban(addr) => self.peers.restore_ban(&mut self.cx, addr, value),
            RecordKey::Peer(addr) => {
                self.peers.restore(&mut self.cx, addr);
                true
            }
        }
    }

    /// Control in: an input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.cx.advance_to(now);
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
        self.cx.poll()
    }

    /// Control out: when to hand in [`Input::Wake`], and why; now, while an action waits.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.cx.deadline()
    }

    /// Control in: the wall clock was set; `unix` is the wall time at `now`.
    pub fn set_clock(&mut self, now: Instant, unix: UnixTime) {
        self.cx.advance_to(now);
        self.cx.set_clock(unix);
        self.peers.end_bans(&mut self.cx);
    }

    /// Control in: closes every connection; the driver drains the actions and ends. Nothing is begun afterwards.
    pub fn shutdown(&mut self, now: Instant) {
        self.cx.advance_to(now);
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
        let (dht_late, lag) = self.dht.late(now.max(self.cx.now()));
        NodeStatus {
            inbound,
            outbound,
            peers_known: self.peers.known(),
            bans: self.peers.bans(&self.cx),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            bytes_duplicate: self.bytes_duplicate,
            dht_late,
            dht_lag_secs: lag.as_secs(),
        }
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
                self.peers.add(&self.cx, addr, Source::Configured);
            }
        }
    }

    fn on_done(&mut self, job: JobId, result: JobResult) {
        // A job that is not ours, or answered twice, is the driver's fault and changes nothing.
        let Some(pending) = self.cx.answered(job) else { return };
        match (pending, result) {
            (Pending::Read(conn, id), JobResult::BlobRead(buffer, found)) => {
                self.uploads.on_read(&mut self.cx, &mut self.conns, conn, id, buffer, found);
                if !found {
                    self.on_asked_in_vain(conn);
                }
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
            (Pending::Ban(news), JobResult::Persisted(_)) => self.cx.event(news),
            (Pending::Record, JobResult::Persisted(_)) => {}
            (_, result) => debug_assert!(false, "the answer does not fit its job: {result:?}"),
        }
    }

    fn on_wake(&mut self) {
        while let Some(timer) = self.cx.pop_due() {
            match timer {
                Timer::Conn(conn) => self.on_conn_timer(conn),
                Timer::Channel(channel) => self.on_channel_timer(channel),
                Timer::Store => (self.store_rests, self.assign_due) = (false, true),
                Timer::Review => self.review(),
                Timer::Uploads => self.uploads.begin_turns(&mut self.cx, &mut self.conns),
                Timer::Have => self.tell_due(),
                Timer::Watch => self.watch_anew(),
                Timer::Throttle => self.throttles.on_timer(&mut self.cx),
                Timer::Announce => self.announce_own(),
                Timer::Publish => self.with_publications(Publications::on_timer),
                Timer::Bans => self.peers.end_bans(&mut self.cx),
                Timer::Keep => {
                    let channels = &self.channels;
                    let is_followed = |key: &PublicKey| channels.contains_key(key);
                    self.gateway.keep_relayed(&mut self.cx, &mut self.dht, is_followed);
                }
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
        self.connect();
        self.start_dht();
        self.peers.delete_forgotten(&mut self.cx);
    }

    /// Dials and looks for peers, as far as connections are needed.
    fn connect(&mut self) {
        let need = self.need();
        if let Some(useless) = self.peers.connect(&mut self.cx, &mut self.conns, need) {
            self.close(useless, CloseReason::Evicted);
            self.peers.dial_more(&mut self.cx, &self.conns, need);
            self.assign_requests();
        }
    }

    fn need(&self) -> Need {
        if !self.scheduler.is_empty() {
            Need::Blobs {
                is_starved: self.scheduler.is_starved(),
                epoch: self.scheduler.epoch,
                example: self.scheduler.queued().next(),
                bytes_received: self.bytes_received,
            }
        } else if self.publications.is_active() {
            Need::Publication
        } else if self.channels.is_empty() {
            Need::Nothing
        } else {
            Need::News
        }
    }

    /// Excludes an address for a proven lie, and ends its connection.
    fn ban(&mut self, peer: &PeerAddr, violation: Violation) {
        if let Some(conn) = self.peers.ban(&mut self.cx, peer, violation) {
            self.close(conn, CloseReason::Banned);
        }
    }

    fn publish(&mut self, draft: Draft) {
        let Some(channel) = self.publications.admit(&mut self.cx) else { return };
        self.follow(channel, draft.read_key.clone());
        let Some(topic) = self.channels.get(&channel).map(|c| c.topic) else {
            let error = PublishError::TooManyChannels;
            return self.cx.event(Event::PublishFailed { channel: Some(channel), error });
        };
        self.with_publications(|publications, env| publications.begin(env, channel, topic, draft));
    }

    /// Lets a publication go on, and does what it then asks for.
    fn with_publications(&mut self, step: impl FnOnce(&mut Publications, &mut Env<'_, S>) -> Next) {
        let mut env =
            Env { cx: &mut self.cx, conns: &mut self.conns, peers: &mut self.peers, dht: &mut self.dht };
        match step(&mut self.publications, &mut env) {
            Next::Nothing => {}
            Next::Sign(channel) => {
                let recorded = self.channels.get(&channel).map_or(0, |c| c.sequence);
                if let Some(item) = self.publications.sign(&mut self.cx, recorded) {
                    self.accept_own_head(item);
                }
            }
            Next::NotePut(channel) => self.note_put(&channel),
        }
    }

    /// Our own name, for everybody.
    fn announce_own(&mut self) {
        let topics = self.channels.values().filter(|c| c.sequence > 0).map(|c| c.topic);
        self.flood.announce(&mut self.cx, &mut self.conns, topics);
    }

    /// Our own name, for a peer that has just come.
    fn announce_to(&mut self, conn: ConnId) {
        let topics = self.channels.values().filter(|c| c.sequence > 0).map(|c| c.topic);
        self.flood.announce_to(&mut self.cx, &mut self.conns, conn, topics);
    }

    fn start_dht(&mut self) {
        while let Some((purpose, op)) = self.dht.next(self.cx.now()) {
            let job = self.cx.job_id(Pending::Dht);
            self.dht.started(job, purpose);
            self.on_dht_started(purpose);
            self.cx.act(Action::Job(job, Job::Dht(op)));
        }
        match self.dht.deadline(self.cx.now()) {
            Some(at) => self.cx.set_timer(Timer::Dht, at),
            None => self.cx.cancel_timer(Timer::Dht),
        }
    }

    fn on_dht_peers(&mut self, job: JobId, peers: Vec<PeerAddr>) {
        if matches!(self.dht.purpose(job), Some(Purpose::Lookup(..))) {
            for peer in peers.into_iter().filter(PeerAddr::is_exchangeable) {
                self.peers.add(&self.cx, peer, Source::Dht);
            }
        }
    }
}
