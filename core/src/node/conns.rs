//! The connection table, and what the node does with each connection's bytes and messages.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;

use super::peers::Source;
use super::scheduler::Scheduler;
use super::{Action, Event, Job, Node, Pending, RecordKey, STORE_RETRY, Timer, Written};
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::codec::{Message, VERSION};
use crate::conn::{Conn, Incoming};
use crate::error::{CloseReason, Violation};
use crate::ids::{BlobId, ConnId, JobId};
use crate::limits::{
    DOWNLOAD_CONNECTIONS_MAX, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, INBOUND_MAX, KEEP_ALIVE,
    LACKS_MAX, STALL_BYTES_MIN, STALL_TIMEOUT, WINDOW_MAX, WINDOW_START,
};
use crate::rng::Rng;
use crate::time::Instant;
use crate::transport::Role;

/// A connection and what the node knows of it.
pub(super) struct Entry {
    conn: Conn,
    peer: PeerAddr,
    opened: Instant,
    is_keyed: bool,
    /// Requests that may be outstanding. It begins at one, since some peers answer one request and close, and would
    /// lose the answer with a second request unread; each blob proves room for another.
    window: usize,
    blobs_served: u64,
    /// The peer has sent a HELLO, so it reads ours.
    speaks_hello: bool,
    was_asked_for_peers: bool,
    /// Progress at the last check, and when that was.
    checked: (u64, Instant),
    waits_for_recv: bool,
    waits_for_send: bool,
    /// Why it drains.
    broke: Option<Violation>,
}

impl Entry {
    fn is_outbound(&self) -> bool {
        self.conn.role() == Role::Dialler
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// The connections, by slot. Waiting lists hold each connection at most once.
pub(super) struct Conns {
    slots: Vec<Slot>,
    free: Vec<u32>,
    rng: Rng,
    inbound: usize,
    outbound: BTreeSet<ConnId>,
    recv_waiters: VecDeque<ConnId>,
    send_waiters: VecDeque<ConnId>,
}

impl Conns {
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

    fn entries(&self) -> impl Iterator<Item = (ConnId, &Entry)> {
        (0..).zip(&self.slots).filter_map(|(slot, s)| {
            let id = ConnId { slot, generation: s.generation };
            s.entry.as_ref().map(|entry| (id, entry))
        })
    }

    fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_mut() } else { None }
    }

    fn insert(&mut self, role: Role, peer: PeerAddr, now: Instant) -> ConnId {
        let entry = Entry {
            conn: Conn::new(role, &mut self.rng, now),
            peer,
            opened: now,
            is_keyed: false,
            window: WINDOW_START,
            blobs_served: 0,
            speaks_hello: false,
            was_asked_for_peers: false,
            checked: (0, now),
            waits_for_recv: false,
            waits_for_send: false,
            broke: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
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

    fn remove(&mut self, id: ConnId) -> Option<Entry> {
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

    fn is_own_key(&self, key: &[u8; 32]) -> Option<ConnId> {
        self.outbound.iter().copied().find(|id| {
            self.slots
                .get(id.slot as usize)
                .and_then(|s| s.entry.as_ref())
                .is_some_and(|e| e.conn.own_key() == key)
        })
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
        let open = self.entries().filter(|(_, e)| e.is_outbound() && e.conn.is_open());
        open.fold((0, 0), |(open, usable), (_, e)| {
            (
                open + 1,
                usable + usize::from(scheduler.pick(&e.conn.lacks).is_some() || e.conn.outstanding() > 0),
            )
        })
    }
}

impl Node {
    // --- control: opening and closing -------------------------------------------------------------------------

    /// Control in: a stream that others opened. `None`: no room for it, drop it.
    pub fn accept(&mut self, now: Instant, peer: PeerAddr) -> Option<ConnId> {
        self.advance_to(now);
        let unix = self.unix();
        if self.is_shut_down || self.peers.is_banned(&peer, unix) {
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
        if connected && !self.is_shut_down {
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
        let was_outbound = entry.is_outbound();
        let (receiving, sending) = entry.conn.into_buffers();
        if let Some(buffer) = receiving {
            self.recv_pool.give_back(buffer);
        }
        for buffer in sending {
            self.send_pool.give_back(buffer);
        }
        self.feed_recv_waiters();
        self.feed_send_waiters();
        if was_outbound {
            // A peer that served and closed may serve again at once: some answer one request a connection.
            let served =
                entry.blobs_served > 0 && reason == CloseReason::Remote && !self.scheduler.is_empty();
            self.peers.ended(&entry.peer, served, self.now);
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
        }
    }

    fn on_keyed(&mut self, conn: ConnId, key: &[u8; 32]) {
        if let Some(own) = self.conns.is_own_key(key) {
            return self.on_self_connection(own, conn);
        }
        let hello = self.hello();
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

    /// Our own announce led back to us.
    fn on_self_connection(&mut self, dialled: ConnId, accepted: ConnId) {
        if let Some(entry) = self.conns.get_mut(dialled) {
            let addr = entry.peer.clone();
            self.peers.ourselves(&addr);
        }
        self.close(dialled, CloseReason::Evicted);
        self.close(accepted, CloseReason::Evicted);
    }

    /// Our HELLO: the sequences of the public channels that we follow.
    fn hello(&self) -> Message<'static> {
        let public = self.channels.iter().filter(|(_, c)| c.read_key.is_none() && c.sequence > 0);
        Message::Hello(Some(VERSION), public.map(|(key, c)| (*key, c.sequence)).collect::<BTreeMap<_, _>>())
    }

    /// Tells the peers that speak HELLO of a newer sequence.
    pub(super) fn spread_hello(&mut self) {
        let hello = self.hello();
        for id in self.conns.ids() {
            let Some(entry) = self.conns.get_mut(id) else { continue };
            if entry.speaks_hello && entry.conn.has_control_room() {
                entry.conn.push(&hello);
                self.wake_driver(id);
            }
        }
    }

    fn on_message(&mut self, conn: ConnId, message: Message<'_>) {
        let hello = self.hello();
        let Some(entry) = self.conns.get_mut(conn) else { return };
        match message {
            Message::Hello(_, sequences) => {
                // A listener answers the first HELLO; it sends none unasked, as a plain fetcher may not expect one.
                if !mem::replace(&mut entry.speaks_hello, true) && !entry.is_outbound() {
                    entry.conn.push(&hello);
                }
                self.on_gossip(&sequences);
            }
            Message::FindPeers(_) => {
                let peers = self.peers.to_exchange(&entry.peer);
                entry.conn.push(&Message::Peers(peers));
            }
            Message::Peers(peers) => {
                for peer in peers {
                    self.peers.add(peer, Source::Exchanged, self.now);
                }
            }
            Message::Announce(_, addr) => {
                // Believed only about the address that it comes from, so that nobody can send us to a third party.
                let own =
                    matches!((&addr, &entry.peer), (PeerAddr::Ip(a), PeerAddr::Ip(b)) if a.ip() == b.ip());
                if own && addr.is_exchangeable() {
                    self.peers.add(addr, Source::Announced, self.now);
                }
            }
            Message::Publish(item) => {
                let why = if item.verify() { "Not a Gateway" } else { "Invalid Signature" };
                entry.conn.push(&Message::Error(why.into()));
            }
            // An ERROR that answers no request is a remark; the rest the connection handles itself.
            Message::Error(_)
            | Message::Request(_)
            | Message::Data(_)
            | Message::Ok(_)
            | Message::Unknown(_)
            | Message::Empty => {}
        }
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
        let ids: Vec<ConnId> = self.conns.outbound.iter().copied().collect();
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
        if !entry.conn.is_open() || entry.conn.lacks.len() >= LACKS_MAX {
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
        let peer = entry.peer.clone();
        self.scheduler.writing(id);
        self.job(Pending::Write(id, conn, peer), Job::WriteBlob(id, buffer));
        self.assign_to(conn);
    }

    pub(super) fn on_blob_written(&mut self, id: BlobId, conn: ConnId, peer: &PeerAddr, written: Written) {
        match written {
            Written::Stored => {
                self.bytes_received += crate::blob::BLOB_LEN as u64;
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
