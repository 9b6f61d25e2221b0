//! The connection table, and what the node does with each connection's bytes and messages.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::exchange::Asking;
use super::gossip::Gossip;
use super::peers::Source;
use super::rate::Rate;
use super::readiness::Readiness;
use super::{Action, Event, Node, Pending, Timer, throttle};
use crate::addr::PeerAddr;
use crate::bucket::Bucket;
use crate::codec::Message;
use crate::conn::{Conn, Incoming};
use crate::error::{CloseReason, Violation};
use crate::ids::{BlobId, ConnId, JobId};
use crate::limits::{
    ANNOUNCES_PER_MINUTE, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HAVES_BURST, HAVES_PER_MINUTE, HELLO_WAIT,
    IDLE_TIMEOUT, INBOUND_FETCHING_MAX, INBOUND_MAX, KEEP_ALIVE, STALL_BYTES_MIN, STALL_TIMEOUT,
    USELESS_AFTER, USELESS_LOADING_AFTER, WINDOW_START,
};
use crate::rng::Rng;
use crate::suite::Suite;
use crate::time::Instant;
use crate::transport::{Link, Role};

/// A connection and what the node knows of it.
pub(super) struct Entry<S: Suite> {
    pub(super) conn: Conn<S>,
    pub(super) peer: PeerAddr,
    /// Where an inbound peer says that it listens, at the IP address that it connects from.
    listens_at: Option<PeerAddr>,
    opened: Instant,
    is_keyed: bool,
    /// Requests that may be outstanding with a v5 peer. It begins at one, since some peers answer one request and close,
    /// and would lose the answer with a second request unread; each blob proves room for another.
    pub(super) window: usize,
    pub(super) blobs_served: u64,
    /// Blobs that the peer said it lacks.
    pub(super) lacks: BTreeSet<BlobId>,
    /// The scheduler's epoch in which the peer had nothing that lacks.
    pub(super) dry: u64,
    /// Makes its choices among equally rare blobs other than those of other connections.
    pub(super) salt: u64,
    /// How fast it brings the ranges that it is asked for, when it last brought some, and until when it is not asked for
    /// more, since it brings none.
    pub(super) rate: Rate,
    pub(super) brought: Instant,
    /// A range was taken from it, as nothing came.
    pub(super) was_in_vain: bool,
    pub(super) rests_until: Instant,
    /// The upload turn in which the peer was last served, or began to wait.
    pub(super) turn: u64,
    /// Upload turns that the peer got.
    pub(super) turns_given: u32,
    /// The peer has sent a HELLO, so it reads ours.
    pub(super) speaks_hello: bool,
    /// It was dialled, and its HELLO says v5, or it sends none.
    pub(super) is_v5: bool,
    pub(super) gossip: Gossip,
    /// Announces sent to it.
    pub(super) announces_out: Bucket,
    /// HAVEs sent to it.
    pub(super) haves_out: Bucket,
    pub(super) asking: Asking,
    /// Progress of v5 requests at the last check, and when that was.
    pub(super) checked: (u64, Instant),
    pub(super) waits_for_recv: bool,
    /// Why it drains.
    broke: Option<Violation>,
}

impl<S: Suite> Entry<S> {
    pub(super) fn is_outbound(&self) -> bool {
        self.conn.role() == Role::Dialler
    }

    /// Whether blobs may be asked of the peer: it speaks v6, so that it expects requests on either kind of connection, or
    /// it was dialled and is taken for a v5 peer.
    pub(super) fn is_askable(&self) -> bool {
        self.conn.is_open() && (self.gossip.is_on() || self.is_v5)
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
    /// By slot; `None` where nothing is asked for.
    readiness: Vec<Option<Readiness>>,
    pub(super) recv_waiters: VecDeque<ConnId>,
}

impl<S: Suite> Conns<S> {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            rng,
            inbound: 0,
            outbound: BTreeSet::new(),
            readiness: Vec::new(),
            recv_waiters: VecDeque::new(),
        }
    }

    /// Inbound and outbound connections.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.inbound, self.outbound.len())
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.entries().map(|(id, _)| id).collect()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (ConnId, &Entry<S>)> {
        (0..).zip(&self.slots).filter_map(|(slot, s)| {
            let id = ConnId { slot, generation: s.generation };
            s.entry.as_ref().map(|entry| (id, entry))
        })
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry<S>> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut())
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Entry<S>> {
        self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?.entry.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Entry<S>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_mut() } else { None }
    }

    /// Those that may be asked for blobs.
    pub(super) fn ready(&self) -> impl Iterator<Item = (ConnId, &Readiness)> {
        let id = |slot: u32| ConnId { slot, generation: self.slots[slot as usize].generation };
        (0..).zip(&self.readiness).filter_map(move |(slot, readiness)| Some((id(slot), readiness.as_ref()?)))
    }

    pub(super) fn readiness(&self, id: ConnId) -> Option<&Readiness> {
        self.readiness.get(id.slot as usize)?.as_ref()
    }

    pub(super) fn set_readiness(&mut self, id: ConnId, readiness: Option<Readiness>) {
        if self.slots.get(id.slot as usize).is_some_and(|slot| slot.generation == id.generation) {
            self.readiness[id.slot as usize] = readiness;
        }
    }

    fn insert(&mut self, role: Role, peer: PeerAddr, now: Instant) -> ConnId {
        let entry = Entry {
            conn: Conn::new(Link::v5(role, &mut self.rng), now),
            peer,
            listens_at: None,
            opened: now,
            is_keyed: false,
            window: WINDOW_START,
            blobs_served: 0,
            lacks: BTreeSet::new(),
            dry: 0,
            salt: self.rng.u64(),
            rate: Rate::default(),
            brought: now,
            was_in_vain: false,
            rests_until: now,
            turn: 0,
            turns_given: 0,
            speaks_hello: false,
            is_v5: false,
            gossip: Gossip::default(),
            announces_out: Bucket::new(ANNOUNCES_PER_MINUTE, ANNOUNCES_PER_MINUTE, now),
            haves_out: Bucket::new(HAVES_PER_MINUTE, HAVES_BURST, now),
            asking: Asking::new(now),
            checked: (0, now),
            waits_for_recv: false,
            broke: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, entry: None });
            self.readiness.push(None);
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
        self.readiness[id.slot as usize] = None;
        if !self.outbound.remove(&id) {
            self.inbound -= 1;
        }
        Some(entry)
    }

    /// The inbound connection that has been open longest, of those on which no blob was asked for either way.
    fn useless_inbound(&self) -> Option<ConnId> {
        let useless = |e: &Entry<S>| {
            !e.is_outbound()
                && !e.conn.owes_answers()
                && e.turn == 0
                && e.blobs_served == 0
                && e.outstanding() == 0
        };
        self.entries().filter(|(_, e)| useless(e)).min_by_key(|(_, e)| e.opened).map(|(id, _)| id)
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
            let is_loading = e.outstanding() > 0;
            now.since(e.opened) >= if is_loading { USELESS_LOADING_AFTER } else { USELESS_AFTER }
        });
        useless.min_by_key(|(_, e)| e.opened).map(|(id, _)| id)
    }

    /// Finds the connection that is the other end of this one: the node is connected to itself.
    fn other_end(&self, id: ConnId) -> Option<ConnId> {
        let session = self.get(id)?.conn.session_id()?;
        self.entries()
            .find(|(other, e)| *other != id && e.conn.session_id() == Some(session))
            .map(|(id, _)| id)
    }

    /// Peers may have got what they lacked: they are asked again.
    pub(super) fn forget_lacks(&mut self, now: Instant) {
        for entry in self.entries_mut() {
            entry.lacks.clear();
            entry.dry = 0;
            entry.asking.hurry(now);
        }
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
        if !self.scheduler.is_empty() && self.conns.inbound >= INBOUND_FETCHING_MAX {
            let useless = self.conns.useless_inbound()?;
            self.close(useless, CloseReason::Evicted);
        } else if self.conns.inbound >= INBOUND_MAX {
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
        let came = self.peers.connection(&peer).is_some();
        let mut conn = None;
        if connected && !self.is_shut_down {
            let id = self.open(Role::Dialler, peer.clone());
            if !came {
                self.peers.connected(&peer, id);
            }
            conn = Some(id);
        } else if came {
            self.peers.unreached(&peer);
        } else {
            self.peers.unreached(&peer);
            self.peers.ended(&peer, false, self.now);
            self.on_gateway_gone(&peer);
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
        self.throttles.forget(id);
        for blob in entry.conn.take_outstanding() {
            if self.scheduler.is_asked(&blob, id) {
                self.scheduler.requeue(blob);
            }
        }
        self.forget_shares(&entry.gossip.shares);
        let is_known = entry.is_outbound() || entry.listens_at.is_some();
        let is_answered = entry.is_keyed || !entry.is_outbound();
        let address = entry.address().clone();
        let (receiving, sending) = entry.conn.into_buffers();
        if let Some(buffer) = receiving {
            self.give_back_recv(buffer);
        }
        for buffer in sending {
            self.send_pool.give_back(buffer);
        }
        self.release(id, None);
        self.uploads.forget(id);
        self.begin_turns();
        if is_known && self.peers.connection(&address).is_none_or(|conn| conn == id) {
            // A peer that served and closed may serve again at once: some answer one request a connection.
            if !is_answered {
                self.peers.unreached(&address);
            }
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
        let Some(entry) = self.conns.get_mut(conn) else { return &mut [] };
        let space = entry.conn.recv_space();
        if space.is_empty() {
            return space;
        }
        let n =
            throttle::allow(&mut self.throttles.download, &mut self.timers, conn, self.now).min(space.len());
        &mut space[..n]
    }

    /// Data in: `n` bytes were read into [`Self::recv_space`].
    pub fn received(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.advance_to(now);
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let room = entry.conn.recv_space().len();
        debug_assert!(n <= room, "more was received than there was space for");
        self.throttles.received(conn, n.min(room));
        let (mut n, mut is_any) = (n.min(room), false);
        while let Some(entry) = self.conns.get_mut(conn) {
            match entry.conn.received(now, n) {
                Ok(Incoming::Nothing) => break,
                Ok(incoming) => self.on_incoming(conn, incoming),
                Err(violation) => self.on_violation(conn, violation),
            }
            (n, is_any) = (0, true);
        }
        if is_any {
            self.note(conn);
            self.wake_driver(conn);
            self.settle();
        }
    }

    /// Data out: the next bytes to write; empty: nothing until [`Action::Writable`].
    pub fn send_chunk(&mut self, now: Instant, conn: ConnId) -> &[u8] {
        self.advance_to(now);
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return &[] };
        let chunk = entry.conn.send_chunk(now);
        if chunk.is_empty() {
            return chunk;
        }
        let n = throttle::allow(&mut self.throttles.upload, &mut self.timers, conn, now).min(chunk.len());
        &chunk[..n]
    }

    /// Data out: `n` bytes of [`Self::send_chunk`] were written.
    pub fn sent(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.advance_to(now);
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let sent = entry.conn.sent(now, n);
        self.throttles.sent(conn, n);
        self.bytes_sent += entry.conn.take_blob_bytes_out();
        if entry.conn.is_drained() {
            let reason = entry.broke.map_or(CloseReason::Remote, CloseReason::Violation);
            return self.close(conn, reason);
        }
        self.end_turns(conn, sent);
        self.send_heads(conn);
        self.ask_again(conn);
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
            // Who comes back at once would go on at once.
            Violation::Flood => return self.shut_out(conn, violation),
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
            Incoming::Open => self.on_keyed(conn),
            Incoming::Request => self.on_wanted(conn),
            Incoming::Cancelled => self.on_cancelled(conn),
            Incoming::Blob(id, buffer) => self.on_blob(conn, id, buffer),
            Incoming::Piece(piece) => self.on_piece(conn, &piece),
            Incoming::Late(len) => self.bytes_duplicate += len as u64,
            Incoming::Refused(id) => self.on_refused(conn, id),
            Incoming::NotFound(id) => self.on_not_found(conn, id),
            Incoming::Message(message) => self.on_message(conn, message),
            Incoming::PublishAnswered(answer) => self.on_publish_answered(conn, answer),
        }
    }

    fn on_keyed(&mut self, conn: ConnId) {
        if let Some(other) = self.conns.other_end(conn) {
            return self.on_self_connection([other, conn]);
        }
        let hello = self.first_hello();
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let (peer, outbound) = (entry.peer.clone(), entry.is_outbound());
        if outbound {
            self.peers.keyed(&peer);
            if self.peers.connection(&peer).is_some_and(|other| other != conn) {
                // It came to us, and answers where it says that it listens. One connection is enough.
                return self.close(conn, CloseReason::Duplicate);
            }
            entry.conn.push(&hello);
            entry.is_v5 = self.peers.is_v5(&peer);
            self.assign_due |= entry.is_v5;
        }
        entry.is_keyed = true;
        self.timers.set(Timer::Conn(conn), now + if outbound { HELLO_WAIT } else { KEEP_ALIVE });
        self.event(Event::Connected { conn, peer, outbound });
    }

    /// Our own announce led back to us: these are both ends of one connection.
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
            Message::AskHave(tag, sequence) => self.on_ask_have(conn, tag, sequence),
            Message::Have(tag, sequence, have) => self.on_have(conn, tag, sequence, have),
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
        self.seek_soon();
    }

    /// Two nodes dialled each other. Both keep the connection with the lower session id, and both see both ids.
    fn on_second_connection(&mut self, accepted: ConnId, dialled: ConnId) {
        let Some(came) = self.conns.get(accepted).and_then(|e| e.conn.session_id()) else { return };
        let Some(entry) = self.conns.get_mut(dialled).filter(|e| e.is_outbound() && e.conn.is_open()) else {
            return;
        };
        let addr = entry.peer.clone();
        if entry.conn.session_id() < Some(came) {
            return self.close(accepted, CloseReason::Duplicate);
        }
        self.close(dialled, CloseReason::Duplicate);
        if let Some(entry) = self.conns.get_mut(accepted) {
            entry.listens_at = Some(addr.clone());
            self.peers.accepted(&addr, accepted);
        }
    }

    /// A proven lie, or a flood: the address is banned, and the connection ends.
    pub(super) fn shut_out(&mut self, conn: ConnId, violation: Violation) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let address = entry.address().clone();
        self.ban(&address, violation);
        self.close(conn, CloseReason::Violation(violation));
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
        if entry.is_outbound() && !entry.speaks_hello && !entry.is_v5 {
            entry.is_v5 = true;
            (self.assign_due, self.seek_at) = (true, now);
        }
        // Both ends of a v6 connection keep it alive, so silence means that the other one is gone, whatever we send.
        let is_v6 = entry.gossip.is_on();
        // Nor are our own keep-alives a sign of life, which a v5 peer that we dialled gets from us.
        let is_kept = is_v6 || (entry.is_outbound() && !entry.conn.owes_answers());
        let last_life = if is_kept { entry.conn.last_received() } else { entry.conn.last_moved() };
        let idle_end = last_life + IDLE_TIMEOUT;
        let mut next = idle_end;
        if entry.conn.outstanding() > 0 {
            let (bytes, at) = entry.checked;
            if now >= at + STALL_TIMEOUT {
                if entry.conn.progress_bytes() < bytes + STALL_BYTES_MIN {
                    return self.close(id, CloseReason::Stalled);
                }
                entry.checked = (entry.conn.progress_bytes(), now);
            }
            next = next.min(entry.checked.1 + STALL_TIMEOUT);
        }
        if entry.is_outbound() || is_v6 {
            if now >= entry.conn.last_sent_frame() + KEEP_ALIVE && entry.conn.has_control_room() {
                entry.conn.push_keep_alive(now);
            }
            next = next.min(entry.conn.last_sent_frame() + KEEP_ALIVE);
        }
        if now >= idle_end {
            return self.close(id, CloseReason::Idle);
        }
        // Never in the past: a keep-alive without room waits for its next turn.
        self.timers.set(Timer::Conn(id), next.max(now + core::time::Duration::from_secs(1)));
        self.note(id);
        self.wake_driver(id);
    }
}
