//! The connection table, and what the node does with each connection's bytes and messages.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::net::SocketAddr;

use super::bucket::Bucket;
use super::gossip::Gossip;
use super::peers::Source;
use super::scheduler::Scheduler;
use super::{Action, Event, Job, Node, Pending, RecordKey, STORE_RETRY, Timer, Written};
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::codec::Message;
use crate::conn::{Conn, Incoming};
use crate::error::{CloseReason, Violation};
use crate::ids::{BlobId, ConnId, JobId};
use crate::limits::{
    ANNOUNCES_PER_MINUTE, DOWNLOAD_CONNECTIONS_MAX, DRAIN_TIMEOUT, FAVOURS_PER_MINUTE, HANDSHAKE_TIMEOUT,
    IDLE_TIMEOUT, INBOUND_MAX, KEEP_ALIVE, LACKS_MAX, STALL_BYTES_MIN, STALL_TIMEOUT, USELESS_AFTER,
    USELESS_LOADING_AFTER, WINDOW_MAX, WINDOW_START,
};
use crate::rng::Rng;
use crate::suite::Suite;
use crate::time::Instant;
use crate::transport::Role;

/// A connection and what the node knows of it.
pub(super) struct Entry<S: Suite> {
    pub(super) conn: Conn<S>,
    pub(super) peer: PeerAddr,
    /// Where an inbound peer says that it listens, at the IP address that it connects from.
    listens_at: Option<PeerAddr>,
    opened: Instant,
    is_keyed: bool,
    /// Requests that may be outstanding. It begins at one, since some peers answer one request and close, and would
    /// lose the answer with a second request unread; each blob proves room for another.
    window: usize,
    blobs_served: u64,
    /// The peer has sent a HELLO, so it reads ours.
    pub(super) speaks_hello: bool,
    pub(super) gossip: Gossip,
    /// What we do for it on the DHT, and carry on for it.
    pub(super) favours: Bucket,
    pub(super) announces: Bucket,
    was_asked_for_peers: bool,
    /// Progress at the last check, and when that was.
    checked: (u64, Instant),
    waits_for_recv: bool,
    waits_for_send: bool,
    /// Why it drains.
    broke: Option<Violation>,
}

impl<S: Suite> Entry<S> {
    pub(super) fn is_outbound(&self) -> bool {
        self.conn.role() == Role::Dialler
    }

    /// Whether blobs may be asked of the peer: it was dialled, or it speaks v6, so that it expects requests on either
    /// kind of connection.
    fn is_askable(&self) -> bool {
        self.conn.is_open() && (self.is_outbound() || self.gossip.is_on())
    }

    /// The address under which the peer is known: the one dialled, or where it says that it listens.
    pub(super) fn address(&self) -> &PeerAddr {
        self.listens_at.as_ref().unwrap_or(&self.peer)
    }
}

struct Slot<S: Suite> {
    generation: u32,
    entry: Option<Entry<S>>,
}

/// The connections, by slot. Waiting lists hold each connection at most once.
pub(super) struct Conns<S: Suite> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    rng: Rng,
    inbound: usize,
    outbound: BTreeSet<ConnId>,
    recv_waiters: VecDeque<ConnId>,
    send_waiters: VecDeque<ConnId>,
}

impl<S: Suite> Conns<S> {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            rng,
            inbound: 0,
            outbound: BTreeSet::new(),
            recv_waiters: VecDeque::new(),
            send_waiters: VecDeque::new(),
        }
    }

    /// Inbound and outbound connections.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.inbound, self.outbound.len())
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.entries().map(|(id, _)| id).collect()
    }

    fn entries(&self) -> impl Iterator<Item = (ConnId, &Entry<S>)> {
        (0..).zip(&self.slots).filter_map(|(slot, s)| {
            let id = ConnId { slot, generation: s.generation };
            s.entry.as_ref().map(|entry| (id, entry))
        })
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry<S>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_mut() } else { None }
    }

    fn insert(&mut self, role: Role, peer: PeerAddr, now: Instant) -> ConnId {
        let entry = Entry {
            conn: Conn::new(role, &mut self.rng, now),
            peer,
            listens_at: None,
            opened: now,
            is_keyed: false,
            window: WINDOW_START,
            blobs_served: 0,
            speaks_hello: false,
            gossip: Gossip::default(),
            favours: Bucket::new(FAVOURS_PER_MINUTE, FAVOURS_PER_MINUTE, now),
            announces: Bucket::new(ANNOUNCES_PER_MINUTE, ANNOUNCES_PER_MINUTE, now),
            was_asked_for_peers: false,
            checked: (0, now),
            waits_for_recv: false,
            waits_for_send: false,
            broke: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            u32::try_from(self.slots.len() - 1).expect("the connection limits are small")
        });
        let place = &mut self.slots[slot as usize];
        place.entry = Some(entry);
        let id = ConnId { slot, generation: place.generation };
        match role {
            Role::Dialler => drop(self.outbound.insert(id)),
            Role::Listener => self.inbound += 1,
        }
        id
    }

    fn remove(&mut self, id: ConnId) -> Option<Entry<S>> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|s| s.generation == id.generation)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        if !self.outbound.remove(&id) {
            self.inbound -= 1;
        }
        Some(entry)
    }

    /// The inbound connection that has been open longest without a request waiting.
    fn oldest_idle_inbound(&self) -> Option<ConnId> {
        let idle = self.entries().filter(|(_, e)| !e.is_outbound() && !e.conn.owes_answers());
        idle.min_by_key(|(_, e)| e.opened).map(|(id, _)| id)
    }

    /// The outbound connection that has served nothing for longest, of those to which `fits` applies.
    pub(super) fn useless_outbound(&self, now: Instant, fits: impl Fn(&PeerAddr) -> bool) -> Option<ConnId> {
        let outbound =
            self.entries().filter(|(_, e)| e.is_outbound() && e.blobs_served == 0 && fits(&e.peer));
        let useless = outbound.filter(|(_, e)| {
            let is_loading = e.conn.outstanding() > 0;
            now.since(e.opened) >= if is_loading { USELESS_LOADING_AFTER } else { USELESS_AFTER }
        });
        useless.min_by_key(|(_, e)| e.opened).map(|(id, _)| id)
    }

    /// The connection on which we have sent this key.
    fn is_own_key(&self, key: &[u8; 32]) -> Option<ConnId> {
        self.entries().find(|(_, e)| e.conn.own_key() == key).map(|(id, _)| id)
    }

    /// Peers may have got what they lacked: they are asked again.
    pub(super) fn forget_lacks(&mut self) {
        for entry in self.slots.iter_mut().filter_map(|s| s.entry.as_mut()) {
            entry.conn.lacks.clear();
            entry.was_asked_for_peers = false;
        }
    }

    /// Connections with peers whose blobs are on their way.
    fn downloading(&self) -> usize {
        self.entries().filter(|(_, e)| e.conn.outstanding() > 0).count()
    }

    /// Keyed outbound connections, and of them those that can still be asked for a blob that lacks.
    pub(super) fn usable(&self, scheduler: &Scheduler) -> (usize, usize) {
        let open = self.entries().filter(|(_, e)| e.is_askable());
        open.fold((0, 0), |(open, usable), (_, e)| {
            (
                open + 1,
                usable + usize::from(scheduler.pick(&e.conn.lacks).is_some() || e.conn.outstanding() > 0),
            )
        })
    }
}

impl<S: Suite> Node<S> {
    // --- control: opening and closing -------------------------------------------------------------------------

    /// Control in: a stream that others opened. `None`: no room for it, drop it.
    pub fn accept(&mut self, now: Instant, peer: PeerAddr) -> Option<ConnId> {
        self.advance_to(now);
        let unix = self.unix();
        if self.is_shut_down || self.peers.bans.has(&peer, unix) {
            return None;
        }
        if self.conns.inbound >= INBOUND_MAX {
            let oldest = self.conns.oldest_idle_inbound()?;
            self.close(oldest, CloseReason::Evicted);
        }
        Some(self.open(Role::Listener, peer))
    }

    /// Control in: the answer to [`Action::Dial`]. `None`: drop the stream, if there is one.
    pub fn dialed(&mut self, now: Instant, job: JobId, connected: bool) -> Option<ConnId> {
        self.advance_to(now);
        let Some(Pending::Dial(peer)) = self.jobs.remove(&job) else { return None };
        self.dials -= 1;
        let mut conn = None;
        if self.peers.connection(&peer).is_some() {
            // It came to us meanwhile; one connection is enough.
        } else if connected && !self.is_shut_down {
            let id = self.open(Role::Dialler, peer.clone());
            self.peers.connected(&peer, id);
            conn = Some(id);
        } else {
            self.peers.ended(&peer, false, self.now);
            self.event(Event::DialFailed { peer });
        }
        self.settle();
        conn
    }

    fn open(&mut self, role: Role, peer: PeerAddr) -> ConnId {
        let conn = self.conns.insert(role, peer, self.now);
        self.timers.set(Timer::Conn(conn), self.now + HANDSHAKE_TIMEOUT);
        conn
    }

    /// Control in: the stream ended or failed.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId) {
        self.advance_to(now);
        self.forget(conn, CloseReason::Remote);
        self.settle();
    }

    /// Closes from our side.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.forget(conn, reason) {
            self.actions.push_back(Action::Close(conn, reason));
        }
    }

    /// Takes a connection out of the table: its buffers go back, what it was asked for goes to others.
    fn forget(&mut self, id: ConnId, reason: CloseReason) -> bool {
        let Some(mut entry) = self.conns.remove(id) else { return false };
        self.timers.cancel(Timer::Conn(id));
        for blob in entry.conn.take_outstanding() {
            if self.scheduler.is_asked(&blob, id) {
                self.scheduler.requeue(blob);
            }
        }
        let is_known = entry.is_outbound() || entry.listens_at.is_some();
        let address = entry.address().clone();
        let (receiving, sending) = entry.conn.into_buffers();
        if let Some(buffer) = receiving {
            self.recv_pool.give_back(buffer);
        }
        for buffer in sending {
            self.send_pool.give_back(buffer);
        }
        self.feed_recv_waiters();
        self.feed_send_waiters();
        if is_known && self.peers.connection(&address).is_none_or(|conn| conn == id) {
            // A peer that served and closed may serve again at once: some answer one request a connection.
            let served =
                entry.blobs_served > 0 && reason == CloseReason::Remote && !self.scheduler.is_empty();
            self.peers.ended(&address, served, self.now);
            self.on_gateway_gone(&address);
        }
        if self.conns.count() == (0, 0) {
            self.recv_pool.trim();
            self.send_pool.trim();
        }
        if entry.is_keyed {
            let reason = entry.broke.map_or(reason, CloseReason::Violation);
            self.event(Event::Disconnected { conn: id, peer: entry.peer, reason });
        }
        true
    }

    // --- data plane -------------------------------------------------------------------------------------------

    /// Data in: where the socket's next bytes go; empty: do not read it until [`Action::Readable`].
    pub fn recv_space(&mut self, conn: ConnId) -> &mut [u8] {
        self.conns.get_mut(conn).map_or(&mut [], |entry| entry.conn.recv_space())
    }

    /// Data in: `n` bytes were read into [`Self::recv_space`].
    pub fn received(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.advance_to(now);
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let room = entry.conn.recv_space().len();
        debug_assert!(n <= room, "more was received than there was space for");
        match entry.conn.received(now, n.min(room)) {
            Ok(Incoming::Nothing) => return,
            Ok(incoming) => self.on_incoming(conn, incoming),
            Err(violation) => self.on_violation(conn, violation),
        }
        self.wake_driver(conn);
        self.settle();
    }

    /// Data out: the next bytes to write; empty: nothing until [`Action::Writable`].
    pub fn send_chunk(&mut self, now: Instant, conn: ConnId) -> &[u8] {
        self.advance_to(now);
        let now = self.now;
        self.conns.get_mut(conn).map_or(&[], |entry| entry.conn.send_chunk(now))
    }

    /// Data out: `n` bytes of [`Self::send_chunk`] were written.
    pub fn sent(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.advance_to(now);
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let sent = entry.conn.sent(now, n);
        if entry.conn.is_drained() {
            return self.close(conn, CloseReason::Remote);
        }
        if let Some(buffer) = sent {
            self.bytes_sent += buffer.blob().len() as u64;
            self.send_pool.give_back(buffer);
            self.serve(conn);
            self.feed_send_waiters();
        }
        self.send_heads(conn);
        self.wake_driver(conn);
    }

    /// Tells a driver that waits on this connection that it may go on.
    pub(super) fn wake_driver(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let (readable, writable) = (entry.conn.take_readable(), entry.conn.take_writable());
        if readable {
            self.actions.push_back(Action::Readable(conn));
        }
        if writable {
            self.actions.push_back(Action::Writable(conn));
        }
    }

    // --- what comes in ----------------------------------------------------------------------------------------

    fn on_violation(&mut self, conn: ConnId, violation: Violation) {
        let why = match violation {
            Violation::Version => "Protocol Version Mismatch",
            Violation::Malformed => "Malformed Message",
            _ => return self.close(conn, CloseReason::Violation(violation)),
        };
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.conn.drain(why);
        entry.broke = Some(violation);
        self.timers.set(Timer::Conn(conn), self.now + DRAIN_TIMEOUT);
    }

    fn on_incoming(&mut self, conn: ConnId, incoming: Incoming) {
        match incoming {
            Incoming::Nothing => {}
            Incoming::Keyed(key) => self.on_keyed(conn, &key),
            Incoming::Request => self.serve(conn),
            Incoming::Blob(id, buffer) => self.on_blob(conn, id, buffer),
            Incoming::NotFound(id) => {
                let Some(entry) = self.conns.get_mut(conn) else { return };
                entry.conn.lacks.insert(id);
                self.scheduler.requeue(id);
            }
            Incoming::Message(message) => self.on_message(conn, message),
            Incoming::PublishAnswered(answer) => self.on_publish_answered(conn, answer),
        }
    }

    fn on_keyed(&mut self, conn: ConnId, key: &[u8; 32]) {
        if let Some(own) = self.conns.is_own_key(key) {
            return self.on_self_connection([own, conn]);
        }
        let hello = self.first_hello();
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.is_keyed = true;
        let (peer, outbound) = (entry.peer.clone(), entry.is_outbound());
        if outbound {
            entry.conn.push(&hello);
            self.peers.keyed(&peer);
        }
        self.timers.set(Timer::Conn(conn), now + KEEP_ALIVE);
        self.event(Event::Connected { conn, peer, outbound });
    }

    /// Our own announce led back to us: these are both ends of one connection. Whichever hears first ends it.
    fn on_self_connection(&mut self, ends: [ConnId; 2]) {
        for end in ends {
            if let Some(entry) = self.conns.get_mut(end).filter(|e| e.is_outbound()) {
                let addr = entry.peer.clone();
                self.peers.ourselves(&addr);
            }
            self.close(end, CloseReason::Evicted);
        }
    }

    fn on_message(&mut self, conn: ConnId, message: Message) {
        match message {
            Message::Hello { version, sequences, port } => {
                if let Some(port) = port {
                    self.on_listen_port(conn, port);
                }
                self.on_hello(conn, version, &sequences);
            }
            Message::FindPeers(_) => self.on_find_peers(conn),
            Message::Peers(peers) => self.on_peers(conn, peers),
            Message::Announce(id, addr, hops) => self.on_announce(conn, id, addr, hops),
            Message::Publish(item) => self.on_publish_request(conn, item),
            Message::GetHead { tag, known, look_up } => self.on_get_head(conn, tag, known, look_up),
            Message::Head(tag, item) => self.on_head(conn, tag, item),
            Message::Watch(tags) => self.on_watch(conn, &tags),
            // The connection handles these itself.
            Message::Error(_)
            | Message::Request(_)
            | Message::Data(_)
            | Message::Ok(_)
            | Message::Unknown(_)
            | Message::Empty => {}
        }
    }

    /// Where the peer says that it listens: believed of the address that it connects from.
    fn on_listen_port(&mut self, conn: ConnId, port: u16) {
        let unix = self.unix();
        let Some(entry) = self.conns.get_mut(conn).filter(|e| !e.is_outbound()) else { return };
        let PeerAddr::Ip(socket) = &entry.peer else { return };
        let addr = PeerAddr::Ip(SocketAddr::new(socket.ip(), port));
        if !addr.is_exchangeable() {
            return;
        }
        if self.peers.bans.has(&addr, unix) {
            return self.close(conn, CloseReason::Banned);
        }
        if let Some(other) = self.peers.connection(&addr) {
            return self.on_second_connection(conn, other);
        }
        entry.listens_at = Some(addr.clone());
        self.peers.told(addr.clone(), Source::Announced, &addr, self.now);
        self.peers.accepted(&addr, conn);
    }

    /// Two nodes dialled each other. Both keep the connection whose dialler's key is the lower, and both see both keys.
    fn on_second_connection(&mut self, accepted: ConnId, dialled: ConnId) {
        let Some(theirs) = self.conns.get_mut(accepted).and_then(|e| e.conn.their_key()) else { return };
        let Some(entry) = self.conns.get_mut(dialled).filter(|e| e.is_outbound() && e.conn.is_open()) else {
            return;
        };
        let addr = entry.peer.clone();
        if *entry.conn.own_key() < theirs {
            return self.close(accepted, CloseReason::Duplicate);
        }
        self.close(dialled, CloseReason::Duplicate);
        if let Some(entry) = self.conns.get_mut(accepted) {
            entry.listens_at = Some(addr.clone());
            self.peers.accepted(&addr, accepted);
        }
    }

    /// A proven lie: the address is banned, and the connection ends.
    pub(super) fn on_lie(&mut self, conn: ConnId, violation: Violation) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let address = entry.address().clone();
        self.ban(&address, violation);
        self.close(conn, CloseReason::Violation(violation));
    }

    // --- serving ----------------------------------------------------------------------------------------------

    /// Asks the store for what a peer waits for, as far as buffers go.
    fn serve(&mut self, conn: ConnId) {
        while let Some(entry) = self.conns.get_mut(conn) {
            let Some(id) = entry.conn.next_to_read() else { return };
            let Some(buffer) = self.send_pool.take() else {
                if !mem::replace(&mut entry.waits_for_send, true) {
                    self.conns.send_waiters.push_back(conn);
                }
                return;
            };
            entry.conn.reading(id);
            self.job(Pending::Read(conn, id), Job::ReadBlob(id, buffer));
        }
    }

    pub(super) fn on_blob_read(&mut self, conn: ConnId, id: BlobId, buffer: Buffer, found: bool) {
        let (ready, unused) = if found { (Some(buffer), None) } else { (None, Some(buffer)) };
        let left = match self.conns.get_mut(conn) {
            Some(entry) => entry.conn.read_done(id, ready),
            None => ready,
        };
        let spare = left.into_iter().chain(unused);
        for buffer in spare {
            self.send_pool.give_back(buffer);
        }
        self.serve(conn);
        self.feed_send_waiters();
        self.wake_driver(conn);
    }

    fn feed_send_waiters(&mut self) {
        while let Some(buffer) = self.send_pool.take() {
            self.send_pool.give_back(buffer);
            let Some(conn) = self.conns.send_waiters.pop_front() else { return };
            if let Some(entry) = self.conns.get_mut(conn) {
                entry.waits_for_send = false;
                self.serve(conn);
            }
        }
    }

    // --- fetching ---------------------------------------------------------------------------------------------

    /// Spreads the queued blobs over the connections.
    pub(super) fn assign_requests(&mut self) {
        if self.scheduler.is_queue_empty() || self.store_rests {
            return;
        }
        let ids: Vec<ConnId> =
            self.conns.entries().filter(|(_, e)| e.is_askable()).map(|(id, _)| id).collect();
        let mut downloading = self.conns.downloading();
        for id in ids {
            let was_downloading = self.conns.get_mut(id).is_some_and(|e| e.conn.outstanding() > 0);
            if was_downloading || downloading < DOWNLOAD_CONNECTIONS_MAX {
                self.assign_to(id);
                let is_downloading = self.conns.get_mut(id).is_some_and(|e| e.conn.outstanding() > 0);
                downloading += usize::from(is_downloading && !was_downloading);
                self.wake_driver(id);
            }
        }
    }

    fn assign_to(&mut self, id: ConnId) {
        let now = self.now;
        let Some(entry) = self.conns.get_mut(id) else { return };
        if !entry.is_askable() || entry.conn.lacks.len() >= LACKS_MAX {
            return;
        }
        let had = entry.conn.outstanding();
        while entry.conn.outstanding() < entry.window {
            let Some(blob) = self.scheduler.pick(&entry.conn.lacks) else { break };
            entry.conn.request(blob);
            self.scheduler.asked(blob, id);
        }
        if had == 0 && entry.conn.outstanding() > 0 {
            entry.checked = (entry.conn.progress_bytes, now);
            self.timers.set_sooner(Timer::Conn(id), now + STALL_TIMEOUT);
        } else if entry.conn.outstanding() == 0 && !mem::replace(&mut entry.was_asked_for_peers, true) {
            // It has nothing that lacks; it may know who has.
            if let Some(blob) = self.scheduler.queued().next() {
                entry.conn.ask_for_peers(blob);
            }
        }
        self.lend_recv_buffer(id);
    }

    /// Gives a connection the buffer for its next blob, now or when one is free; takes back what it no longer needs.
    fn lend_recv_buffer(&mut self, id: ConnId) {
        let Some(entry) = self.conns.get_mut(id) else { return };
        if let Some(unused) = entry.conn.take_unused_buffer() {
            self.recv_pool.give_back(unused);
            self.feed_recv_waiters();
        } else if entry.conn.needs_buffer() {
            match self.recv_pool.take() {
                Some(buffer) => entry.conn.give_buffer(buffer),
                None if mem::replace(&mut entry.waits_for_recv, true) => {}
                None => self.conns.recv_waiters.push_back(id),
            }
        }
    }

    fn feed_recv_waiters(&mut self) {
        while let Some(buffer) = self.recv_pool.take() {
            let waiter = loop {
                let Some(id) = self.conns.recv_waiters.pop_front() else { break None };
                let Some(entry) = self.conns.get_mut(id) else { continue };
                entry.waits_for_recv = false;
                if entry.conn.needs_buffer() {
                    break Some(id);
                }
            };
            match waiter.and_then(|id| Some((id, self.conns.get_mut(id)?))) {
                Some((id, entry)) => {
                    entry.conn.give_buffer(buffer);
                    self.wake_driver(id);
                }
                None => return self.recv_pool.give_back(buffer),
            }
        }
    }

    fn on_blob(&mut self, conn: ConnId, id: BlobId, buffer: Buffer) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.blobs_served += 1;
        entry.window = (entry.window + 1).min(WINDOW_MAX);
        let peer = entry.address().clone();
        self.scheduler.writing(id);
        self.job(Pending::Write(id, conn, peer), Job::WriteBlob(id, buffer));
        self.assign_to(conn);
    }

    pub(super) fn on_blob_written(&mut self, id: BlobId, conn: ConnId, peer: &PeerAddr, written: Written) {
        match written {
            Written::Stored => {
                self.bytes_received += S::BLOB_LEN as u64;
                if self.peers.served(peer) {
                    self.persist(Pending::Record, RecordKey::Peer(peer.clone()), Some(Vec::new()));
                }
                for owner in self.scheduler.stored(id) {
                    self.with_fetch(owner, |fetch, asks| fetch.on_blob(id, asks));
                }
            }
            Written::Mismatch => {
                self.scheduler.requeue(id);
                self.ban(peer, Violation::WrongBlob);
                self.close(conn, CloseReason::Violation(Violation::WrongBlob));
            }
            Written::NoSpace | Written::Failed => {
                self.scheduler.requeue(id);
                if !mem::replace(&mut self.store_rests, true) {
                    self.event(Event::StoreFull { no_space: written == Written::NoSpace });
                }
                self.timers.set(Timer::Store, self.now + STORE_RETRY);
            }
        }
        self.feed_recv_waiters();
    }

    // --- time -------------------------------------------------------------------------------------------------

    /// A connection's deadline: closes it or sets the next one.
    pub(super) fn on_conn_timer(&mut self, id: ConnId) {
        let now = self.now;
        let Some(entry) = self.conns.get_mut(id) else { return };
        if let Some(violation) = entry.broke {
            return self.close(id, CloseReason::Violation(violation));
        }
        if !entry.is_keyed {
            return self.close(id, CloseReason::HandshakeTimeout);
        }
        let idle_end = entry.conn.last_moved + IDLE_TIMEOUT;
        let mut next = idle_end;
        if entry.conn.outstanding() > 0 {
            let (bytes, at) = entry.checked;
            if now >= at + STALL_TIMEOUT {
                if entry.conn.progress_bytes < bytes + STALL_BYTES_MIN {
                    return self.close(id, CloseReason::Stalled);
                }
                entry.checked = (entry.conn.progress_bytes, now);
            }
            next = next.min(entry.checked.1 + STALL_TIMEOUT);
        }
        if entry.is_outbound() {
            if now >= entry.conn.last_sent_frame + KEEP_ALIVE && entry.conn.has_control_room() {
                entry.conn.push_keep_alive();
                entry.conn.last_sent_frame = now;
            }
            next = next.min(entry.conn.last_sent_frame + KEEP_ALIVE);
        }
        if now >= idle_end {
            return self.close(id, CloseReason::Idle);
        }
        // Never in the past: a keep-alive without room waits for its next turn.
        self.timers.set(Timer::Conn(id), next.max(now + core::time::Duration::from_secs(1)));
        self.wake_driver(id);
    }
}
