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
//!
//! # How it is made
//! Each part (a *leaf*) owns its state, and its own table of what it knows of each connection. Its methods take the context of
//! the call ([`cx::Cx`]) and what they need of other parts as arguments; what concerns others they return. Only this file knows
//! all parts: it hands each input to those that it concerns, and translates what they return.

mod announce;
mod api;
mod channels;
mod conns;
mod cx;
mod dht;
mod downloads;
mod gateway;
mod peers;
mod pool;
mod publications;
mod quotas;
mod table;
mod throttle;
mod timers;
mod uploads;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

pub use api::*;
pub use channels::contents::{FileRange, Priority, Selection, SelectionError, SelectionTarget};

use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::codec::{Message, Tag, VERSION};
use crate::conn::Incoming;
use crate::error::{CloseReason, Violation};
use crate::identity::{Identity, PublicKey};
use crate::ids::{BlobId, ConnId, JobId, Topic};
use crate::limits::{INBOUND_FETCHING_MAX, INBOUND_MAX};
use crate::rng::Rng;
use crate::suite::{RealSuite, Suite};
use crate::time::{Instant, UnixTime};
use crate::transport::Role;
use announce::Flood;
use channels::{Channels, GetHead};
use conns::Conns;
use cx::{Cx, Pending};
use dht::{DhtQueue, Purpose};
use downloads::Downloads;
use gateway::Gateway;
use peers::{Need, Peers, Source};
use publications::{Next, Publications};
use throttle::Throttles;
use timers::Timer;
use uploads::Uploads;

/// A node; over the real suite unless a simulator names another one.
pub struct Node<S: Suite = RealSuite> {
    cx: Cx,
    conns: Conns<S>,
    peers: Peers,
    channels: Channels,
    downloads: Downloads,
    uploads: Uploads,
    throttles: Throttles,
    dht: DhtQueue,
    publications: Publications,
    gateway: Gateway,
    flood: Flood,
    bytes_sent: u64,
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
        Self {
            conns: Conns::new(rng.fork("connections"), config.listen_port),
            cx: Cx::new(rng.fork("node"), now, unix),
            peers: Peers::new(config.private_dht, now),
            channels: Channels::new(S::SHAPE, now),
            downloads: Downloads::new(S::BLOB_LEN),
            uploads: Uploads::new(S::BLOB_LEN),
            throttles: Throttles::new(config.upload_bytes_per_sec, config.download_bytes_per_sec, now),
            dht: DhtQueue::new(now, config.listen_port),
            publications: Publications::new(identity),
            gateway: Gateway::new(config.gateway, now),
            flood: Flood::new(config.own_address),
            bytes_sent: 0,
            is_shut_down: false,
        }
    }

    /// Takes back a record of an earlier run, before anything else. `false`: it does not parse and is left alone.
    pub fn restore(&mut self, key: &RecordKey, value: &[u8]) -> bool {
        match key {
            RecordKey::Channel(channel) => {
                self.with_channels(|channels, env| channels.restore(env, *channel, value))
            }
            RecordKey::Ban(addr) => self.peers.restore_ban(&mut self.cx, addr, value),
            RecordKey::Peer(addr) => {
                self.peers.restore(&mut self.cx, addr);
                true
            }
        }
    }

    // --- control --------------------------------------------------------------------------------------------

    /// Control in: an input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.cx.advance_to(now);
        match input {
            Input::Command(command) => self.on_command(command),
            Input::Done(job, result) => self.on_done(job, result),
            Input::DhtItem(job, item) => self.on_dht_item(job, item),
            Input::DhtPeers(job, peers) => {
                if matches!(self.dht.purpose(job), Some(Purpose::Lookup(..))) {
                    self.peers.on_dht_peers(&self.cx, peers);
                }
            }
            Input::Head(channel, document) => {
                self.channels.offer_document(&mut self.cx, channel, document);
            }
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

    /// Control in: a stream that others opened. `None`: no room for it, drop it.
    pub fn accept(&mut self, now: Instant, peer: PeerAddr) -> Option<ConnId> {
        self.cx.advance_to(now);
        if self.is_shut_down || self.peers.is_banned(&self.cx, &peer) {
            return None;
        }
        let (inbound, _) = self.conns.count();
        if !self.downloads.is_empty() && inbound >= INBOUND_FETCHING_MAX {
            let unused = self.conns.oldest_inbound(|id, conn| {
                let is_used = self.uploads.was_asked_by(id) || self.downloads.uses(&self.conns, id);
                conn.owes_answers() || is_used
            });
            self.close(unused?, CloseReason::Evicted);
        } else if inbound >= INBOUND_MAX {
            let idle = self.conns.oldest_inbound(|_, conn| conn.owes_answers());
            self.close(idle?, CloseReason::Evicted);
        }
        Some(self.open(Role::Listener, peer))
    }

    /// Control in: the answer to [`Action::Dial`]. `None`: drop the stream, if there is one.
    pub fn dialed(&mut self, now: Instant, job: JobId, connected: bool) -> Option<ConnId> {
        self.cx.advance_to(now);
        let Some(Pending::Dial(peer)) = self.cx.answered(job) else { return None };
        let is_needed = self.peers.on_dial_answered(&peer, connected);
        let mut conn = None;
        if connected && !self.is_shut_down {
            let id = self.open(Role::Dialler, peer.clone());
            if is_needed {
                self.peers.connected(&peer, id);
            }
            conn = Some(id);
        } else if is_needed {
            self.peers.ended(&self.cx, &peer, false);
            self.with_publications(|publications, env| publications.on_gone(env, &peer));
            self.cx.event(Event::DialFailed { peer });
        }
        self.settle();
        conn
    }

    /// Control in: the stream ended or failed.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId) {
        self.cx.advance_to(now);
        self.forget(conn, CloseReason::Remote);
        self.settle();
    }

    // --- data -----------------------------------------------------------------------------------------------

    /// Data in: where the socket's next bytes go; empty: do not read it until [`Action::Readable`].
    pub fn recv_space(&mut self, conn: ConnId) -> &mut [u8] {
        let Some(line) = self.conns.get_mut(conn) else { return &mut [] };
        let space = line.recv_space();
        if space.is_empty() {
            return space;
        }
        let n = self.throttles.may_receive(&mut self.cx, conn).min(space.len());
        &mut space[..n]
    }

    /// Data in: `n` bytes were read into [`Self::recv_space`].
    pub fn received(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.cx.advance_to(now);
        let Some(line) = self.conns.get_mut(conn) else { return };
        let room = line.recv_space().len();
        debug_assert!(n <= room, "more was received than there was space for");
        self.throttles.received(conn, n.min(room));
        // What came may be several things; after the first, nothing more is handed in.
        let (mut n, mut is_any) = (n.min(room), false);
        while let Some(line) = self.conns.get_mut(conn) {
            match line.received(self.cx.now(), n) {
                Ok(Incoming::Nothing) => break,
                Ok(incoming) => self.on_incoming(conn, incoming),
                Err(violation) => self.on_violation(conn, violation),
            }
            (n, is_any) = (0, true);
        }
        if is_any {
            self.conns.wake_driver(&mut self.cx, conn);
            self.settle();
        }
    }

    /// Data out: the next bytes to write; empty: nothing until [`Action::Writable`].
    pub fn send_chunk(&mut self, now: Instant, conn: ConnId) -> &[u8] {
        self.cx.advance_to(now);
        let Some(line) = self.conns.get_mut(conn) else { return &[] };
        let chunk = line.send_chunk(self.cx.now());
        if chunk.is_empty() {
            return chunk;
        }
        let n = self.throttles.may_send(&mut self.cx, conn).min(chunk.len());
        &chunk[..n]
    }

    /// Data out: `n` bytes of [`Self::send_chunk`] were written.
    pub fn sent(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.cx.advance_to(now);
        let Some(line) = self.conns.get_mut(conn) else { return };
        let spent = line.sent(self.cx.now(), n);
        self.throttles.sent(conn, n);
        self.bytes_sent += line.take_blob_bytes_out();
        if let Some(reason) = self.conns.drained(conn) {
            return self.close(conn, reason);
        }
        self.uploads.on_sent(&mut self.cx, &mut self.conns, self.channels.swarms(), conn, spent);
        self.with_channels(|channels, env| channels.on_room(env, conn));
        self.conns.wake_driver(&mut self.cx, conn);
    }

    // --- for a user's eyes ----------------------------------------------------------------------------------

    /// The channels followed.
    pub fn channels(&self) -> Vec<PublicKey> {
        self.channels.heads().channels().collect()
    }

    /// Counters.
    pub fn status(&self, now: Instant) -> NodeStatus {
        let (inbound, outbound) = self.conns.count();
        let (dht_late, lag) = self.dht.late(now.max(self.cx.now()));
        let (bytes_received, bytes_duplicate) = self.downloads.bytes();
        NodeStatus {
            inbound,
            outbound,
            peers_known: self.peers.known(),
            bans: self.peers.bans(&self.cx),
            bytes_received,
            bytes_sent: self.bytes_sent,
            bytes_duplicate,
            dht_late,
            dht_lag_secs: lag.as_secs(),
        }
    }

    /// A followed channel's state.
    pub fn channel_status(&self, channel: &PublicKey) -> Option<ChannelStatus> {
        self.channels.status(&self.conns, &self.downloads, self.peers.known(), channel)
    }

    // --- inputs ---------------------------------------------------------------------------------------------

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Follow { channel, read_key } => {
                self.with_channels(|channels, env| channels.follow(env, channel, read_key));
            }
            Command::Unfollow(channel) => self.with_channels(|channels, env| channels.unfollow(env, channel)),
            Command::Select { channel, selection } => {
                self.with_channels(|channels, env| channels.select(env, channel, selection));
            }
            Command::Join { topic, tree, selection } => {
                self.with_channels(|channels, env| channels.join(env, topic, tree, selection));
            }
            Command::Leave(topic) => self.with_channels(|channels, env| channels.leave(env, topic)),
            Command::Publish(draft) => self.publish(draft),
            Command::AddPeer(addr) => self.peers.add(&self.cx, addr, Source::Configured),
        }
    }

    fn on_done(&mut self, job: JobId, result: JobResult) {
        // A job that is not ours, or answered twice, is the driver's fault and changes nothing.
        let Some(pending) = self.cx.answered(job) else { return };
        match (pending, result) {
            (Pending::Read(conn, id), JobResult::BlobRead(buffer, found)) => {
                let swarms = self.channels.swarms();
                self.uploads.on_read(&mut self.cx, &mut self.conns, swarms, conn, (id, buffer, found));
                if !found {
                    self.with_channels(|channels, env| channels.on_asked_in_vain(env, conn));
                }
            }
            (Pending::Write(id, parts), JobResult::BlobWritten(buffer, written)) => {
                let outcome = self.downloads.on_written(&mut self.cx, id, parts, &buffer, written);
                let (places, by, lies) = outcome.into_parts();
                for peer in &by {
                    self.peers.served(&mut self.cx, peer);
                }
                for lie in lies {
                    self.ban(lie.peer(), Violation::WrongBlob);
                    self.close(lie.conn(), CloseReason::Violation(Violation::WrongBlob));
                }
                for place in places {
                    self.with_channels(|channels, env| channels.on_stored(env, &place, id));
                }
                self.downloads.give_back(&mut self.cx, &mut self.conns, buffer);
            }
            (Pending::Have(topic, fetch, ids), JobResult::Have(have)) => {
                self.with_channels(|channels, env| channels.on_have_job(env, (topic, fetch), &ids, &have));
            }
            (Pending::Open(topic, fetch, id), JobResult::Opened(plain)) => {
                let (of, plain) = ((topic, fetch), plain.as_deref());
                self.with_channels(|channels, env| channels.on_opened(env, of, id, plain));
            }
            (Pending::Head(channel), JobResult::Persisted(durable)) => {
                self.on_head_persisted(channel, durable);
            }
            (Pending::Dht, result) => self.on_dht_done(job, &result),
            (Pending::Ban(event), JobResult::Persisted(_)) => self.cx.event(event),
            (Pending::Record, JobResult::Persisted(_)) => {}
            (_, result) => debug_assert!(false, "the answer does not fit its job: {result:?}"),
        }
    }

    fn on_head_persisted(&mut self, channel: PublicKey, durable: bool) {
        let is_own = self.publications.is_storing(&channel);
        if self.with_channels(|channels, env| channels.on_persisted(env, channel, durable, is_own)) {
            self.announce_own();
        }
        self.with_publications(|publications, env| publications.on_stored(env, &channel, durable));
        self.channels.offer_next(&mut self.cx, channel);
    }

    fn on_wake(&mut self) {
        while let Some(timer) = self.cx.pop_due() {
            match timer {
                Timer::Conn(conn) => self.on_conn_timer(conn),
                Timer::Channel(channel) => {
                    let is_own = self.publications.channel() == Some(channel);
                    self.with_channels(|channels, env| channels.on_channel_timer(env, channel, is_own));
                }
                Timer::Swarm(topic) => {
                    if self.with_channels(|channels, env| channels.on_swarm_timer(env, topic)) {
                        self.peers.hurry(&self.cx);
                    }
                }
                Timer::Store => self.downloads.on_store_timer(),
                Timer::Review => self.review(),
                Timer::Uploads => {
                    self.uploads.begin_turns(&mut self.cx, &mut self.conns, self.channels.swarms());
                }
                Timer::Have => self.with_channels(Channels::on_have_timer),
                Timer::Watch => self.with_channels(Channels::on_watch_timer),
                Timer::Throttle => self.throttles.on_timer(&mut self.cx),
                Timer::Announce => self.announce_own(),
                Timer::Publish => self.with_publications(Publications::on_timer),
                Timer::Bans => self.peers.end_bans(&mut self.cx),
                Timer::Keep => {
                    let heads = self.channels.heads();
                    let is_followed = |key: &PublicKey| heads.is_followed(key);
                    self.gateway.keep_relayed(&mut self.cx, &mut self.dht, is_followed);
                }
                // What they wait for is looked at after every input.
                Timer::Dht | Timer::Dial | Timer::Seek | Timer::Rotation => {}
            }
        }
    }

    fn on_conn_timer(&mut self, conn: ConnId) {
        if self.conns.take_for_v5(conn) {
            self.downloads.may_have_more(conn);
            self.peers.seek_soon(&self.cx);
        }
        let check = self.downloads.check(self.cx.now(), &self.conns, conn);
        if let Some(reason) = self.conns.on_timer(&mut self.cx, conn, check) {
            self.close(conn, reason);
        }
    }

    fn review(&mut self) {
        for conn in self.downloads.find_silent(&mut self.cx, &self.conns) {
            self.close(conn, CloseReason::Stalled);
        }
        self.downloads.review(&mut self.cx, &mut self.conns, self.channels.swarms());
    }

    // --- what becomes possible ------------------------------------------------------------------------------

    /// Begins what has become possible.
    fn settle(&mut self) {
        if self.is_shut_down {
            return;
        }
        self.assign();
        self.connect();
        self.start_dht();
        self.peers.delete_forgotten(&mut self.cx);
    }

    /// Asks for what is missing.
    fn assign(&mut self) {
        for conn in self.conns.take_touched() {
            self.downloads.note(&self.conns, conn);
        }
        if self.downloads.assign(&mut self.cx, &mut self.conns, self.channels.swarms()) {
            // Before, a peer that turned out to be of no use could not be asked for peers.
            self.peers.seek_soon(&self.cx);
        }
    }

    /// Dials and looks for peers, as far as connections are needed.
    fn connect(&mut self) {
        let need = match (self.downloads.is_empty(), self.publications.is_active()) {
            (false, _) if self.downloads.is_starved() => Need::AnyBlob,
            (false, _) => Need::Blobs,
            (true, true) => Need::Publication,
            (true, false) if self.channels.is_empty() => Need::Nothing,
            (true, false) => Need::News,
        };
        if let Some(useless) = self.peers.connect(&mut self.cx, &mut self.conns, &self.downloads, need) {
            self.close(useless, CloseReason::Evicted);
            self.peers.dial_more(&mut self.cx, &self.conns, need);
            self.assign();
        }
    }

    fn start_dht(&mut self) {
        while let Some((purpose, op)) = self.dht.next(self.cx.now()) {
            let job = self.cx.job_id(Pending::Dht);
            self.dht.started(job, purpose);
            self.with_channels(|channels, env| channels.on_dht_started(env, purpose));
            self.cx.act(Action::Job(job, Job::Dht(op)));
        }
        let next = self.dht.deadline(self.cx.now());
        self.cx.set_or_cancel_timer(Timer::Dht, next);
    }

    // --- parts that work together ---------------------------------------------------------------------------

    fn with_channels<T>(&mut self, step: impl FnOnce(&mut Channels, &mut channels::Env<'_, S>) -> T) -> T {
        let mut env = channels::Env::new(&mut self.cx, &mut self.conns, &mut self.downloads, &mut self.dht);
        step(&mut self.channels, &mut env)
    }

    /// Lets a publication go on, and does what it then asks for.
    fn with_publications(
        &mut self,
        step: impl FnOnce(&mut Publications, &mut publications::Env<'_, S>) -> Next,
    ) {
        let mut env = publications::Env::new(&mut self.cx, &mut self.conns, &mut self.peers, &mut self.dht);
        match step(&mut self.publications, &mut env) {
            Next::Nothing => {}
            Next::Sign(channel) => {
                let recorded = self.channels.heads().sequence(&channel);
                let signed = self.publications.sign(&mut self.cx, recorded);
                if signed.is_some_and(|item| !self.channels.accept_own(&mut self.cx, item)) {
                    self.publications.fail_unusable(&mut self.cx);
                }
            }
            Next::NotePut(channel) => self.channels.note_put(&self.cx, &channel),
        }
    }

    fn publish(&mut self, draft: Draft) {
        let Some(channel) = self.publications.admit(&mut self.cx) else { return };
        let read_key = draft.read_key.clone();
        self.with_channels(|channels, env| channels.follow(env, channel, read_key));
        let Some(topic) = self.channels.heads().topic(&channel) else {
            let error = PublishError::TooManyChannels;
            return self.cx.event(Event::PublishFailed { channel: Some(channel), error });
        };
        self.with_publications(|publications, env| publications.begin(env, channel, topic, draft));
    }

    /// Our own name, for everybody.
    fn announce_own(&mut self) {
        self.flood.announce(&mut self.cx, &mut self.conns, self.channels.heads().topics());
    }

    /// Excludes an address for a proven lie, and ends its connection.
    fn ban(&mut self, peer: &PeerAddr, violation: Violation) {
        if let Some(conn) = self.peers.ban(&mut self.cx, peer, violation) {
            self.close(conn, CloseReason::Banned);
        }
    }

    // --- the DHT --------------------------------------------------------------------------------------------

    fn on_dht_item(&mut self, job: JobId, item: SignedItem) {
        let Some(purpose) = self.dht.purpose(job) else { return };
        // Many nodes hold the head that is known; its signature was checked when it came first.
        if !self.channels.heads().is_newest(&item) && !item.verify() {
            return;
        }
        match purpose {
            Purpose::Poll(channel) if item.key == channel => {
                self.with_channels(|channels, env| channels.on_polled(env, item));
            }
            Purpose::Publish => self.publications.on_item(&item),
            Purpose::LookUpHead(channel) if item.key == channel => self.gateway.on_item(channel, &item),
            _ => {}
        }
    }

    fn on_dht_done(&mut self, job: JobId, result: &JobResult) {
        let Some(purpose) = self.dht.purpose(job) else { return };
        self.dht.finished(job);
        match purpose {
            Purpose::Publish => {
                self.with_publications(|publications, env| publications.on_dht_done(env, result));
            }
            Purpose::Relay(key) => {
                let stored = self.gateway.on_relayed(&mut self.cx, &mut self.conns, key, result);
                if let Some(item) = stored {
                    self.channels.offer(&mut self.cx, item);
                }
            }
            Purpose::Keep(key) => self.gateway.on_kept(&key, result),
            Purpose::LookUpHead(channel) => {
                self.gateway.on_looked_up(&mut self.cx, &mut self.conns, channel);
            }
            Purpose::Announce(_) | Purpose::AnnounceBlob(_) => {
                self.dht.on_announced(self.cx.now(), purpose, result);
            }
            Purpose::Poll(_) | Purpose::Reput(_) | Purpose::Lookup(..) => {
                self.with_channels(|channels, env| channels.on_dht_done(env, purpose, result));
            }
        }
    }

    // --- connections ----------------------------------------------------------------------------------------

    fn open(&mut self, role: Role, peer: PeerAddr) -> ConnId {
        let now = self.cx.now();
        let conn = self.conns.open(&mut self.cx, role, peer);
        let salt = self.conns.salt();
        self.peers.opened(conn, now);
        self.channels.opened(conn, now);
        self.downloads.opened(conn, salt, now);
        self.uploads.opened(conn);
        self.flood.opened(conn, now);
        conn
    }

    /// Closes from our side.
    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.forget(conn, reason) {
            self.cx.act(Action::Close(conn, reason));
        }
    }

    /// Takes a connection out of all tables: its buffers go back, what it was asked for goes to others.
    fn forget(&mut self, id: ConnId, reason: CloseReason) -> bool {
        let Some(closed) = self.conns.remove(&mut self.cx, id) else { return false };
        let (known_as, was_keyed) = (closed.known_as().cloned(), closed.was_keyed());
        let (went_unanswered, told) = (closed.went_unanswered(), closed.reason(reason));
        let (mut line, peer) = closed.into_parts();
        self.throttles.closed(id);
        self.peers.closed(id);
        self.flood.closed(id);
        self.channels.closed(id);
        let requested = line.take_outstanding();
        let (receiving, sending) = line.into_buffers();
        let has_brought = self.downloads.closed(&mut self.cx, &mut self.conns, id, requested, receiving);
        self.uploads.closed(id, sending);
        self.uploads.begin_turns(&mut self.cx, &mut self.conns, self.channels.swarms());
        if let Some(address) = known_as
            && self.peers.connection(&address).is_none_or(|conn| conn == id)
        {
            if went_unanswered {
                self.peers.unreached(&address);
            }
            // A peer that served and closed may serve again at once: some answer one request a connection.
            let served = has_brought && reason == CloseReason::Remote && !self.downloads.is_empty();
            self.peers.ended(&self.cx, &address, served);
            self.with_publications(|publications, env| publications.on_gone(env, &address));
        }
        if self.conns.count() == (0, 0) {
            self.downloads.trim();
            self.uploads.trim();
        }
        if was_keyed {
            self.cx.event(Event::Disconnected { conn: id, peer, reason: told });
        }
        true
    }

    /// A proven lie, or a flood: the address is banned, and the connection ends.
    fn shut_out(&mut self, conn: ConnId, violation: Violation) {
        let Some(address) = self.conns.address(conn).cloned() else { return };
        self.ban(&address, violation);
        self.close(conn, CloseReason::Violation(violation));
    }

    fn on_violation(&mut self, conn: ConnId, violation: Violation) {
        match violation {
            // A peer that comes back at once would go on at once.
            Violation::Flood => self.shut_out(conn, violation),
            _ => match violation.wire_text() {
                Some(why) => self.conns.drain(&mut self.cx, conn, violation, why),
                None => self.close(conn, CloseReason::Violation(violation)),
            },
        }
    }

    // --- messages -------------------------------------------------------------------------------------------

    fn on_incoming(&mut self, conn: ConnId, incoming: Incoming) {
        let (cx, conns, swarms) = (&mut self.cx, &mut self.conns, self.channels.swarms());
        match incoming {
            Incoming::Nothing => {}
            Incoming::Open => {
                for (conn, reason) in conns.on_open(cx, &mut self.peers, conn) {
                    self.close(conn, reason);
                }
                if self.conns.is_askable(conn) {
                    // It spoke v5 before, and says no HELLO.
                    self.downloads.may_have_more(conn);
                }
            }
            Incoming::Request => self.uploads.on_wanted(cx, conns, swarms, conn),
            Incoming::Cancelled => self.uploads.on_cancelled(cx, conns, swarms, conn),
            Incoming::Blob(id, buffer) => {
                if let Some(peer) = conns.address(conn) {
                    self.peers.speaks(peer, !conns.speaks_v6(conn));
                }
                self.downloads.on_blob(cx, conns, conn, id, buffer);
            }
            Incoming::Piece(piece) => self.downloads.on_piece(cx, conns, conn, &piece),
            Incoming::Late(len) => self.downloads.on_late(len),
            Incoming::Refused(id) => self.downloads.on_refused(cx, conns, conn, id),
            Incoming::NotFound(id) => self.downloads.on_not_found(cx, conns, conn, id),
            Incoming::Message(message) => self.on_message(conn, message),
            Incoming::PublishAnswered(answer) => {
                self.with_publications(|publications, env| publications.on_put_answered(env, conn, answer));
            }
        }
    }

    fn on_message(&mut self, conn: ConnId, message: Message) {
        match message {
            Message::Hello { version, sequences, port } => {
                let excess =
                    port.and_then(|port| self.conns.on_listen_port(&self.cx, &mut self.peers, conn, port));
                if let Some((conn, reason)) = excess {
                    self.close(conn, reason);
                }
                self.on_hello(conn, version, &sequences);
            }
            Message::FindPeers(_) => {
                let Some(asker) = self.conns.address(conn).cloned() else { return };
                let peers = self.peers.exchanged(&mut self.cx, &asker);
                self.conns.push(conn, &Message::Peers(peers));
            }
            Message::Peers(peers) => self.peers.on_peers(&self.cx, &self.conns, conn, peers),
            Message::Announce(id, addr, hops) => {
                let swarms = self.channels.swarms();
                let is_ours = |id: &BlobId| swarms.contains(&Topic(id.0));
                let (cx, conns) = (&mut self.cx, &mut self.conns);
                let found = self.flood.on_announce(cx, conns, conn, (id, addr, hops), is_ours);
                if let Some((addr, source, teller)) = found {
                    self.peers.told(&self.cx, addr, source, &teller);
                }
            }
            Message::Publish(item) => {
                let newest = self.channels.heads().newest_sequence(&item.key);
                self.gateway.on_publish(&mut self.cx, &mut self.conns, &mut self.dht, conn, item, newest);
            }
            Message::GetHead { tag, known, look_up } => self.on_get_head(conn, (tag, known, look_up)),
            Message::Head(tag, item) => self.on_head(conn, tag, item),
            Message::Watch(tags) => {
                let common = self.channels.on_watch(conn, &tags);
                if let Some(addr) = self.conns.dialled(conn).filter(|_| !common.is_empty()) {
                    self.peers.remember(&mut self.cx, addr);
                }
                for (topic, tag) in common {
                    self.with_channels(|channels, env| channels.on_watched(env, conn, topic, tag));
                }
            }
            Message::AskHave(tag, version) => {
                self.with_channels(|channels, env| channels.on_ask_have(env, conn, tag, version));
            }
            Message::Have(tag, version, have) => {
                self.with_channels(|channels, env| channels.on_have(env, conn, (tag, version), have));
            }
            // The connection handles these itself.
            Message::Want { .. }
            | Message::Piece { .. }
            | Message::Cancel { .. }
            | Message::Error(_)
            | Message::Request(_)
            | Message::Data(_)
            | Message::Ok(_)
            | Message::Unknown(_)
            | Message::Empty => {}
        }
    }

    fn on_hello(&mut self, conn: ConnId, version: Option<u64>, sequences: &BTreeMap<PublicKey, u64>) {
        let is_v6 = version.is_some_and(|v| v >= VERSION);
        if self.conns.peer(conn).is_none() {
            return;
        }
        if let Some(addr) = self.conns.dialled(conn) {
            self.peers.speaks(addr, !is_v6);
        }
        let is_first = self.conns.on_hello(&mut self.cx, conn, is_v6);
        // A listener answers the first HELLO; it sends none unasked, as a plain fetcher may not expect one. A dialler
        // names its channels once it knows that the peer is v5.
        if is_first && (!is_v6 || self.conns.dialled(conn).is_none()) {
            let named = if is_v6 { BTreeMap::new() } else { self.channels.heads().public_sequences() };
            let hello = self.conns.hello(named);
            self.conns.push(conn, &hello);
        }
        if is_first && is_v6 {
            self.with_channels(|channels, env| channels.watch(env, conn));
            let topics = self.channels.heads().topics();
            self.flood.announce_to(&mut self.cx, &mut self.conns, conn, topics);
        }
        self.with_publications(|publications, env| publications.on_hello(env, conn));
        self.downloads.may_have_more(conn);
        self.peers.seek_soon(&self.cx);
        self.with_channels(|channels, env| channels.on_sequences(env, sequences));
    }

    fn on_get_head(&mut self, conn: ConnId, asked: (Tag, u64, Option<PublicKey>)) {
        let (is_gateway, (tag, known, _)) = (self.gateway.is_on(), asked);
        let answer = self.with_channels(|channels, env| channels.on_get_head(env, conn, asked, is_gateway));
        if let GetHead::LookUp(channel) = answer {
            let asked = (tag, channel, known);
            self.gateway.look_up(&mut self.cx, &mut self.conns, &mut self.dht, conn, asked);
        }
    }

    fn on_head(&mut self, conn: ConnId, tag: Tag, item: Option<SignedItem>) {
        let judged = match &item {
            Some(item) => self.with_channels(|channels, env| channels.on_head(env, conn, &tag, item)),
            None => Ok(false),
        };
        match judged {
            Err(violation) => self.shut_out(conn, violation),
            Ok(is_news) => {
                self.with_publications(|publications, env| publications.on_head(env, conn, item.as_ref()));
                item.filter(|_| is_news).into_iter().for_each(|item| self.channels.offer(&mut self.cx, item));
            }
        }
    }
}
