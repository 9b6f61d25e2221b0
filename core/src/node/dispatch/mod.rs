//! The dispatcher knows all leaves: it hands each input to the leaves that it concerns, and translates their results. This
//! file has the driver's inputs and the work that they make possible; `connections.rs` has the peers' messages, `stored.rs` what the
//! store says.

mod commands;
mod connections;
mod settings;
mod stored;
mod views;

use alloc::vec::Vec;

use super::api::{Action, Config, Event, Input, Job, JobResult, RecordKey};
use super::channels::{self, Channels};
use super::commands::Commands;
use super::conns::Conns;
use super::cx::{Cx, Pending};
use super::dht::{DhtQueue, Purpose};
use super::downloads::Downloads;
use super::gateway::Gateway;
use super::gossip::Gossip;
use super::peers::{Need, Peers};
use super::publications::Publications;
use super::throttle::Throttles;
use super::timers::Timer;
use super::uploads::Uploads;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::conn::Incoming;
use crate::error::{CloseReason, Violation};
use crate::identity::PublicKey;
use crate::ids::{ConnId, JobId, Root};
use crate::limits::{INBOUND_FETCHING_MAX, INBOUND_MAX};
use crate::rng::Rng;
use crate::suite::Suite;
use crate::time::{Instant, UnixTime};
use crate::transport::Role;

/// All leaves of a node; no other type knows them all.
pub(super) struct Dispatcher<S: Suite> {
    cx: Cx,
    conns: Conns<S>,
    peers: Peers,
    channels: Channels,
    downloads: Downloads,
    uploads: Uploads,
    throttles: Throttles,
    dht: DhtQueue,
    commands: Commands,
    publications: Publications,
    gateway: Gateway,
    gossip: Gossip,
    is_shut_down: bool,
}

impl<S: Suite> Dispatcher<S> {
    pub(super) fn new(config: Config, seed: [u8; 32], now: Instant, unix: UnixTime) -> Self {
        let rng = Rng::new(seed);
        Self {
            conns: Conns::new(rng.fork("connections"), config.listen_port),
            cx: Cx::new(rng.fork("node"), now, unix),
            peers: Peers::new(config.private_dht, now),
            channels: Channels::new(S::SHAPE, now),
            downloads: Downloads::new(S::BLOB_LEN, S::PART_LEN, config.takes_all),
            uploads: Uploads::new(S::BLOB_LEN, S::PART_LEN),
            throttles: Throttles::new(config.upload_bytes_per_sec, config.download_bytes_per_sec, now),
            dht: DhtQueue::new(now, config.listen_port),
            commands: Commands::default(),
            publications: Publications::default(),
            gateway: Gateway::new(config.gateway, now),
            gossip: Gossip::new(config.own_address),
            is_shut_down: false,
        }
    }

    // --- the methods of Node --------------------------------------------------------------------------------

    /// Moves the clock; an earlier `now` counts as the latest.
    pub(super) fn advance_to(&mut self, now: Instant) {
        self.cx.advance_to(now);
    }

    pub(super) fn restore(&mut self, key: &RecordKey, value: &[u8]) -> bool {
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

    pub(super) fn handle(&mut self, input: Input) {
        match input {
            Input::Command(id, command) => self.on_command(id, command),
            Input::Done(job, result) => self.on_done(job, result),
            Input::DhtItem(job, item) => self.on_dht_item(job, item),
            Input::DhtPeers(job, peers) => self.on_dht_peers(job, peers),
            Input::Head(channel, document) => {
                self.channels.offer_document(&mut self.cx, channel, document);
            }
            Input::Store(news) => {
                self.with_channels(|channels, env| channels.on_store_news(env, news));
            }
            Input::Wake => self.on_wake(),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Action> {
        self.cx.poll()
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.cx.deadline()
    }

    pub(super) fn set_clock(&mut self, unix: UnixTime) {
        self.cx.set_clock(unix);
        self.peers.end_bans(&mut self.cx);
    }

    pub(super) fn shutdown(&mut self) {
        self.is_shut_down = true;
        self.publications.shutdown(&mut self.cx);
        for conn in self.conns.ids() {
            self.close(conn, CloseReason::Shutdown);
        }
    }

    pub(super) fn accept(&mut self, peer: PeerAddr) -> Option<ConnId> {
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

    pub(super) fn dialed(&mut self, job: JobId, connected: bool) -> Option<ConnId> {
        let Some(Pending::Dial(peer)) = self.cx.answered(job) else { return None };
        let connected = connected && !self.peers.is_excluded(&peer);
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
        conn
    }

    pub(super) fn disconnected(&mut self, conn: ConnId) {
        self.forget(conn, CloseReason::Remote);
    }

    pub(super) fn recv_space(&mut self, conn: ConnId) -> &mut [u8] {
        let Some(line) = self.conns.get_mut(conn) else { return &mut [] };
        let space = line.recv_space();
        if space.is_empty() {
            return space;
        }
        let n = self.throttles.may_receive(&mut self.cx, conn).min(space.len());
        &mut space[..n]
    }

    pub(super) fn received(&mut self, conn: ConnId, n: usize) {
        let Some(line) = self.conns.get_mut(conn) else { return };
        let room = line.recv_space().len();
        debug_assert!(n <= room, "more was received than there was space for");
        self.throttles.received(conn, n.min(room));
        self.conns.note_moved(conn, n.min(room), 0);
        // The bytes may hold several messages; all of them are handed in with the first.
        let mut n = n.min(room);
        while let Some(line) = self.conns.get_mut(conn) {
            match line.received(self.cx.now(), n) {
                Ok(Incoming::Nothing) => break,
                Ok(incoming) => self.on_incoming(conn, incoming),
                Err(violation) => self.on_violation(conn, violation),
            }
            n = 0;
        }
    }

    pub(super) fn send_chunk(&mut self, conn: ConnId) -> &[u8] {
        let Some(line) = self.conns.get_mut(conn) else { return &[] };
        let chunk = line.send_chunk(self.cx.now());
        if chunk.is_empty() {
            return chunk;
        }
        let n = self.throttles.may_send(&mut self.cx, conn).min(chunk.len());
        &chunk[..n]
    }

    pub(super) fn sent(&mut self, conn: ConnId, n: usize) {
        let Some(line) = self.conns.get_mut(conn) else { return };
        let spent = line.sent(self.cx.now(), n);
        self.throttles.sent(conn, n);
        self.conns.note_moved(conn, 0, n);
        if let Some(reason) = self.conns.drained(conn) {
            return self.close(conn, reason);
        }
        self.uploads.on_sent(&self.cx, &mut self.conns, conn, spent);
        self.with_channels(|channels, env| channels.on_room(env, conn));
    }

    // --- inputs ---------------------------------------------------------------------------------------------

    fn on_done(&mut self, job: JobId, result: JobResult) {
        // A job that is not ours, or answered twice, is the driver's fault and changes nothing.
        let Some(pending) = self.cx.answered(job) else { return };
        self.commands.on_job(&mut self.cx, job, matches!(result, JobResult::Persisted(true)));
        match (pending, result) {
            (Pending::ReadBlob(conn, id), JobResult::BlobRead(buffer, found)) => {
                let is_given = found && self.channels.may_serve(&self.conns, conn);
                self.uploads.on_blob_read(&self.cx, &mut self.conns, conn, (id, buffer, is_given));
                if !found {
                    self.with_channels(|channels, env| channels.on_asked_in_vain(env, conn));
                }
            }
            (Pending::ReadPart(conn, root, part), JobResult::PartRead(buffer, values)) => {
                let found = values.is_some();
                let values = values.filter(|_| self.channels.may_serve(&self.conns, conn));
                self.uploads.on_part_read(&self.cx, &mut self.conns, conn, ((root, part), buffer, values));
                if !found {
                    self.with_channels(|channels, env| channels.on_asked_in_vain(env, conn));
                }
            }
            (Pending::WriteBlob(name, conn, peer), JobResult::BlobWritten(buffer, written)) => {
                let (cx, conns) = (&mut self.cx, &mut self.conns);
                let (by, wrote) = ((conn, peer), (buffer, written));
                let outcome = self.downloads.on_blob_written(cx, conns, name, by, wrote);
                self.on_outcome(name, outcome);
            }
            (Pending::WritePart(root, part, len, conn, peer), JobResult::PartWritten(buffer, written)) => {
                let (cx, conns) = (&mut self.cx, &mut self.conns);
                let (by, wrote) = ((conn, peer), (buffer, written));
                let outcome = self.downloads.on_part_written(cx, conns, (root, part, len), by, wrote);
                self.on_outcome(root.into(), outcome);
            }
            (Pending::Finish(root, claims), JobResult::BlobFinished(finished)) => {
                let outcome = self.downloads.on_finished(&mut self.cx, (root, &claims), finished);
                self.on_outcome(root.into(), outcome);
            }
            (Pending::Have(topic, fetch, names), JobResult::Have(held)) => {
                self.on_held((topic, fetch), &names, &held);
            }
            (Pending::Open(topic, fetch, id), JobResult::Opened(plain)) => {
                let (of, plain) = ((topic, fetch), plain.as_deref());
                self.with_channels(|channels, env| channels.on_opened(env, of, id, plain));
            }
            (Pending::Open(topic, fetch, id), JobResult::OutOfReach) => {
                self.with_channels(|channels, env| channels.on_out_of_reach(env, (topic, fetch), id));
            }
            (Pending::Head(channel, sequence), JobResult::Persisted(durable)) => {
                self.on_head_persisted(channel, sequence, durable);
            }
            (Pending::Dht, result) => self.on_dht_done(job, &result),
            (Pending::Ban(event), JobResult::Persisted(_)) => self.cx.event(event),
            (Pending::Record, JobResult::Persisted(_) | JobResult::IdsNoted) => {}
            (_, result) => debug_assert!(false, "the answer does not fit its job: {result:?}"),
        }
    }

    fn on_head_persisted(&mut self, channel: PublicKey, sequence: u64, durable: bool) {
        let (is_own, of) = (self.publications.is_storing(&channel, sequence), (channel, sequence));
        if self.with_channels(|channels, env| channels.on_persisted(env, of, durable, is_own)) {
            self.announce_own();
        }
        if is_own {
            self.with_publications(|publications, env| publications.on_stored(env, channel, durable));
        }
        self.channels.offer_next(&mut self.cx, channel);
    }

    fn on_wake(&mut self) {
        while let Some(timer) = self.cx.pop_due() {
            match timer {
                Timer::Conn(conn) => self.on_conn_timer(conn),
                Timer::Channel(channel) => {
                    let is_own = self.publications.is_own(&channel);
                    self.with_channels(|channels, env| channels.on_channel_timer(env, channel, is_own));
                }
                Timer::Swarm(topic) => {
                    if self.with_channels(|channels, env| channels.on_swarm_timer(env, topic)) {
                        self.peers.hurry(&self.cx);
                    }
                }
                Timer::Store => self.downloads.on_store_timer(&mut self.cx),
                Timer::Review => self.review(),
                Timer::Uploads => self.uploads.on_timer(),
                Timer::Have => self.with_channels(Channels::on_have_timer),
                Timer::Watch => self.with_channels(Channels::on_watch_timer),
                Timer::Throttle => self.throttles.on_timer(&mut self.cx),
                Timer::Announce => self.announce_own(),
                Timer::Publish(channel) => {
                    self.with_publications(|publications, env| publications.on_timer(env, channel));
                }
                Timer::Bans => self.peers.end_bans(&mut self.cx),
                Timer::Keep => {
                    let heads = self.channels.heads();
                    let is_followed = |key: &PublicKey| heads.is_followed(key);
                    self.gateway.keep_relayed(&mut self.cx, &mut self.dht, is_followed);
                }
                // `flush` checks what they wait for after every input.
                Timer::Dht | Timer::Dial | Timer::Seek | Timer::Rotation => {}
            }
        }
    }

    fn on_conn_timer(&mut self, conn: ConnId) {
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

    // --- new work -------------------------------------------------------------------------------------------

    /// Begins the work that has become possible, and wakes the driver.
    pub(super) fn flush(&mut self) {
        if !self.is_shut_down {
            let is_index = |root: &Root| self.channels.is_index(root);
            self.uploads.fill_slots(&mut self.cx, &mut self.conns, is_index);
            self.assign();
            self.connect();
            self.start_dht();
            self.peers.delete_forgotten(&mut self.cx);
        }
        for (command, result) in self.publications.take_ended() {
            self.commands.on_published(&mut self.cx, command, result);
        }
        self.conns.flush(&mut self.cx);
    }

    /// Asks for missing blobs.
    fn assign(&mut self) {
        let mut may_seek = false;
        for conn in self.conns.touched() {
            may_seek |= self.downloads.on_touched(&self.conns, *conn);
        }
        if may_seek {
            self.peers.seek_soon(&self.cx);
        }
        if self.downloads.assign(&mut self.cx, &mut self.conns, self.channels.swarms()) {
            // A peer that proved useless may be asked for peers.
            self.peers.seek_soon(&self.cx);
        }
    }

    /// Dials and looks for peers where connections are needed.
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

    // --- leaves that work together --------------------------------------------------------------------------

    fn with_channels<T>(&mut self, step: impl FnOnce(&mut Channels, &mut channels::Env<'_, S>) -> T) -> T {
        let mut env = channels::Env::new(&mut self.cx, &mut self.conns, &mut self.downloads, &mut self.dht);
        step(&mut self.channels, &mut env)
    }

    /// Announces our own name to all peers.
    fn announce_own(&mut self) {
        self.gossip.announce(&mut self.cx, &mut self.conns, self.channels.heads().topics());
    }

    /// Bans an address, and ends its connection.
    fn ban(&mut self, peer: &PeerAddr, violation: Violation) {
        if let Some(conn) = self.peers.ban(&mut self.cx, peer, violation) {
            self.close(conn, CloseReason::Banned);
        }
    }

    // --- the DHT --------------------------------------------------------------------------------------------

    fn on_dht_item(&mut self, job: JobId, item: SignedItem) {
        let Some(purpose) = self.dht.purpose(job) else { return };
        // Many nodes hold the known head, whose signature was checked when it first came.
        if !self.channels.heads().is_newest(&item) && !item.verify() {
            return;
        }
        match purpose {
            Purpose::Poll(channel) if item.key == channel => {
                self.with_channels(|channels, env| channels.on_polled(env, item));
            }
            Purpose::Publish(channel) if item.key == channel => {
                self.with_publications(|publications, env| publications.on_dht_item(env, &item));
            }
            Purpose::LookUpHead(channel) if item.key == channel => self.gateway.on_item(channel, &item),
            _ => {}
        }
    }

    fn on_dht_peers(&mut self, job: JobId, peers: Vec<PeerAddr>) {
        let Some(Purpose::Lookup(topic, _)) = self.dht.purpose(job) else { return };
        let peers = self.peers.on_dht_peers(&self.cx, peers);
        if !self.channels.swarms().is_alone(&topic) {
            return;
        }
        let Some(place) = self.peers.reserved_place(&self.cx, &self.conns, &self.downloads, &topic, &peers)
        else {
            return;
        };
        if let Some(useless) = place.taken_from() {
            self.close(useless, CloseReason::Evicted);
        }
        self.peers.dial_reserved(&mut self.cx, topic, place);
    }

    fn on_dht_done(&mut self, job: JobId, result: &JobResult) {
        let Some(purpose) = self.dht.purpose(job) else { return };
        self.dht.finished(job);
        match purpose {
            Purpose::Publish(channel) => {
                self.with_publications(|publications, env| publications.on_dht_done(env, channel, result));
            }
            Purpose::Relay(key) => {
                let stored = self.gateway.on_relayed(&mut self.cx, &mut self.conns, key, result);
                if let Some(item) = stored {
                    self.channels.offer(&mut self.cx, item);
                }
            }
            Purpose::Keep(key) => self.gateway.on_kept(&key, result),
            Purpose::LookUpHead(channel) => {
                self.gateway.on_looked_up(&mut self.conns, channel);
            }
            Purpose::Announce(_) | Purpose::AnnounceBlob(_) => {
                self.dht.on_announced(self.cx.now(), purpose, result);
            }
            Purpose::Poll(_) | Purpose::Reput(_) | Purpose::Lookup(..) => {
                self.with_channels(|channels, env| channels.on_dht_done(env, purpose, result));
            }
        }
    }
}
