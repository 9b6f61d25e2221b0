//! The connection table: the state of connections that concerns every part of the node. Each part keeps its own table for
//! the rest.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;
use core::net::SocketAddr;
use core::time::Duration;

use super::api::{Action, Event, PeerStatus};
use super::cx::Cx;
use super::peers::Peers;
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::codec::{Message, VERSION};
use crate::conn::Conn;
use crate::error::{CloseReason, Violation};
use crate::identity::PublicKey;
use crate::ids::ConnId;
use crate::limits::{DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HELLO_WAIT, IDLE_TIMEOUT, KEEP_ALIVE};
use crate::rng::Rng;
use crate::suite::Suite;
use crate::time::Instant;
use crate::transport::{Link, Role};

/// The messages that a peer speaks, according to its first HELLO; a dialled peer that sends none is taken for v5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Unknown,
    V5,
    V6,
}

struct Entry<S: Suite> {
    conn: Conn<S>,
    peer: PeerAddr,
    /// The address at which an inbound peer says that it listens, with the IP address that it connects from.
    listens_at: Option<PeerAddr>,
    opened: Instant,
    is_keyed: bool,
    /// Bytes that came and went over its socket.
    bytes: (u64, u64),
    /// The peer has sent a HELLO, so it reads ours.
    has_said_hello: bool,
    version: Version,
    /// The rule that the peer broke, while the connection drains.
    broke: Option<Violation>,
    is_touched: bool,
}

impl<S: Suite> Entry<S> {
    fn is_outbound(&self) -> bool {
        self.conn.role() == Role::Dialler
    }

    fn address(&self) -> &PeerAddr {
        self.listens_at.as_ref().unwrap_or(&self.peer)
    }
}

struct Slot<S: Suite> {
    generation: u32,
    entry: Option<Entry<S>>,
}

/// A connection that is gone.
pub(super) struct Closed<S: Suite>(Entry<S>);

impl<S: Suite> Closed<S> {
    pub(super) fn into_parts(self) -> (Conn<S>, PeerAddr) {
        (self.0.conn, self.0.peer)
    }

    /// Returns the address under which the peer is known; `None`: it dialled us and did not say where it listens.
    pub(super) fn known_as(&self) -> Option<&PeerAddr> {
        self.0.listens_at.as_ref().or_else(|| self.0.is_outbound().then_some(&self.0.peer))
    }

    pub(super) fn was_keyed(&self) -> bool {
        self.0.is_keyed
    }

    /// Whether the peer took our dial, but did not complete the handshake.
    pub(super) fn went_unanswered(&self) -> bool {
        self.0.is_outbound() && !self.0.is_keyed
    }

    /// Returns why it ended: the rule that the peer broke, if it was being told, else `reason`.
    pub(super) fn reason(&self, reason: CloseReason) -> CloseReason {
        self.0.broke.map_or(reason, CloseReason::Violation)
    }
}

/// The connections, by slot.
pub(super) struct Conns<S: Suite> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    rng: Rng,
    inbound: usize,
    outbound: BTreeSet<ConnId>,
    /// The port that our HELLO names.
    listen_port: Option<u16>,
    /// Connections that may have changed since [`Self::flush`], each once.
    touched: Vec<ConnId>,
}

impl<S: Suite> Conns<S> {
    pub(super) fn new(rng: Rng, listen_port: Option<u16>) -> Self {
        let (slots, free, outbound) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { slots, free, rng, inbound: 0, outbound, listen_port, touched: Vec::new() }
    }

    // --- the table ------------------------------------------------------------------------------------------

    /// Counts the inbound and the outbound connections.
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

    fn entry(&self, id: ConnId) -> Option<&Entry<S>> {
        self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?.entry.as_ref()
    }

    fn entry_mut(&mut self, id: ConnId) -> Option<&mut Entry<S>> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let entry = slot.entry.as_mut()?;
        if !mem::replace(&mut entry.is_touched, true) {
            self.touched.push(id);
        }
        Some(entry)
    }

    /// The connections that may have changed since [`Self::flush`].
    pub(super) fn touched(&self) -> &[ConnId] {
        &self.touched
    }

    /// Wakes the driver for touched connections that it can read or write again.
    pub(super) fn flush(&mut self, cx: &mut Cx) {
        let mut touched = mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation);
            let Some(entry) = slot.and_then(|slot| slot.entry.as_mut()) else { continue };
            entry.is_touched = false;
            if entry.conn.take_readable() {
                cx.act(Action::Readable(id));
            }
            if entry.conn.take_writable() {
                cx.act(Action::Writable(id));
            }
        }
        // Keeps the memory for the next call.
        self.touched = touched;
    }

    /// Draws a random number for another part's table.
    pub(super) fn salt(&mut self) -> u64 {
        self.rng.u64()
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Conn<S>> {
        self.entry(id).map(|entry| &entry.conn)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn<S>> {
        self.entry_mut(id).map(|entry| &mut entry.conn)
    }

    /// Queues a message for a peer.
    pub(super) fn push(&mut self, id: ConnId, message: &Message) {
        if let Some(conn) = self.get_mut(id) {
            conn.push(message);
        }
    }

    /// Opens a connection in a free slot; its handshake may take [`HANDSHAKE_TIMEOUT`].
    pub(super) fn open(&mut self, cx: &mut Cx, role: Role, peer: PeerAddr) -> ConnId {
        let now = cx.now();
        let entry = Entry {
            conn: Conn::with_parts(Link::v5(role, &mut self.rng), S::PART_LEN, now),
            peer,
            listens_at: None,
            opened: now,
            is_keyed: false,
            bytes: (0, 0),
            has_said_hello: false,
            version: Version::Unknown,
            broke: None,
            is_touched: false,
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
        cx.set_timer_in(Timer::Conn(id), HANDSHAKE_TIMEOUT);
        id
    }

    pub(super) fn remove(&mut self, cx: &mut Cx, id: ConnId) -> Option<Closed<S>> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|s| s.generation == id.generation)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        if !self.outbound.remove(&id) {
            self.inbound -= 1;
        }
        cx.cancel_timer(Timer::Conn(id));
        Some(Closed(entry))
    }

    /// Returns the inbound connection that has been open longest, of those that are not used.
    pub(super) fn oldest_inbound(&self, is_used: impl Fn(ConnId, &Conn<S>) -> bool) -> Option<ConnId> {
        let unused = self.entries().filter(|(id, e)| !e.is_outbound() && !is_used(*id, &e.conn));
        unused.min_by_key(|(_, e)| e.opened).map(|(id, _)| id)
    }

    /// Returns the outbound connection that has been open longest, of those that fit.
    pub(super) fn oldest_outbound(
        &self,
        fits: impl Fn(ConnId, &PeerAddr, Instant) -> bool,
    ) -> Option<ConnId> {
        let fitting = self.entries().filter(|(id, e)| e.is_outbound() && fits(*id, &e.peer, e.opened));
        fitting.min_by_key(|(_, e)| e.opened).map(|(id, _)| id)
    }

    /// Counts bytes that came or went over a connection.
    pub(super) fn note_moved(&mut self, id: ConnId, received: usize, sent: usize) {
        if let Some(entry) = self.entry_mut(id) {
            entry.bytes.0 += received as u64;
            entry.bytes.1 += sent as u64;
        }
    }

    /// What there is to show of each connection, but for what others know of it.
    pub(super) fn statuses(&self, now: Instant) -> Vec<PeerStatus> {
        let status = |(conn, entry): (ConnId, &Entry<S>)| PeerStatus {
            conn,
            address: entry.address().clone(),
            outbound: entry.is_outbound(),
            found: None,
            open_for: now.since(entry.opened),
            bytes_received: entry.bytes.0,
            bytes_sent: entry.bytes.1,
            shared: Vec::new(),
            is_keyed: entry.is_keyed,
            speaks_v6: match entry.version {
                Version::Unknown => None,
                version => Some(version == Version::V6),
            },
            wanted_of_it: entry.conn.outstanding() + entry.conn.parts_outstanding(),
            wanted_of_us: entry.conn.owed(),
        };
        self.entries().map(status).collect()
    }

    // --- the peer -------------------------------------------------------------------------------------------

    /// The address dialled, or that of the socket.
    pub(super) fn peer(&self, id: ConnId) -> Option<&PeerAddr> {
        self.entry(id).map(|entry| &entry.peer)
    }

    /// The address under which the peer is known: the one dialled, or the one at which it says that it listens.
    pub(super) fn address(&self, id: ConnId) -> Option<&PeerAddr> {
        self.entry(id).map(Entry::address)
    }

    /// The address that we dialled; `None`: the peer dialled us.
    pub(super) fn dialled(&self, id: ConnId) -> Option<&PeerAddr> {
        self.peer(id).filter(|_| self.is_outbound(id))
    }

    pub(super) fn is_outbound(&self, id: ConnId) -> bool {
        self.outbound.contains(&id)
    }

    /// Whether the peer speaks the messages beyond v5.
    pub(super) fn speaks_v6(&self, id: ConnId) -> bool {
        self.entry(id).is_some_and(|entry| entry.version == Version::V6)
    }

    pub(super) fn has_said_hello(&self, id: ConnId) -> bool {
        self.entry(id).is_some_and(|entry| entry.has_said_hello)
    }

    /// Whether we may ask the peer for blobs: it speaks v6, and so expects requests whoever dialled, or we dialled it and
    /// take it for a v5 peer.
    pub(super) fn is_askable(&self, id: ConnId) -> bool {
        self.entry(id).is_some_and(|entry| {
            let answers = match entry.version {
                Version::V6 => true,
                Version::V5 => entry.is_outbound(),
                Version::Unknown => false,
            };
            answers && entry.conn.is_open()
        })
    }

    /// Returns the connection that is the other end of this one, if the node is connected to itself.
    fn other_end(&self, id: ConnId) -> Option<ConnId> {
        let session = self.get(id)?.session_id()?;
        let has_it = |(other, e): &(ConnId, &Entry<S>)| *other != id && e.conn.session_id() == Some(session);
        self.entries().find(has_it).map(|(other, _)| other)
    }

    // --- greeting -------------------------------------------------------------------------------------------

    /// Greets a peer after the handshake. `is_v5`: take a dialled peer for v5 at once.
    fn on_keyed(&mut self, cx: &mut Cx, id: ConnId, is_v5: bool) {
        let hello = self.hello(BTreeMap::new());
        let Some(entry) = self.entry_mut(id) else { return };
        let is_outbound = entry.is_outbound();
        if is_outbound {
            entry.conn.push(&hello);
            if is_v5 {
                entry.version = Version::V5;
            }
        }
        entry.is_keyed = true;
        cx.set_timer_in(Timer::Conn(id), if is_outbound { HELLO_WAIT } else { KEEP_ALIVE });
    }

    /// Makes our HELLO. It names no channel to a v6 peer, or one of unknown version.
    pub(super) fn hello(&self, sequences: BTreeMap<PublicKey, u64>) -> Message {
        Message::Hello { version: Some(VERSION), sequences, port: self.listen_port, features: 0 }
    }

    /// Notes a HELLO. `true`: it is the first, which says what the peer speaks.
    pub(super) fn on_hello(&mut self, cx: &mut Cx, id: ConnId, is_v6: bool) -> bool {
        let Some(entry) = self.entry_mut(id).filter(|entry| !entry.has_said_hello) else { return false };
        entry.has_said_hello = true;
        entry.version = if is_v6 { Version::V6 } else { Version::V5 };
        if is_v6 {
            cx.set_timer_sooner(Timer::Conn(id), cx.now() + KEEP_ALIVE);
        }
        true
    }

    /// Changes the port on which we listen; returns the connections whose peers are to be told: those that we dialled, as the
    /// others know where they reached us.
    pub(super) fn set_listen_port(&mut self, port: Option<u16>) -> Vec<ConnId> {
        if self.listen_port == port {
            return Vec::new();
        }
        self.listen_port = port;
        let is_told = |(_, entry): &(ConnId, &Entry<S>)| entry.is_outbound() && entry.is_keyed;
        self.entries().filter(is_told).map(|(id, _)| id).collect()
    }

    // --- one connection for each peer -----------------------------------------------------------------------

    /// Completes the handshake; returns the connections to close, and why.
    pub(super) fn on_open(
        &mut self,
        cx: &mut Cx,
        peers: &mut Peers,
        id: ConnId,
    ) -> Vec<(ConnId, CloseReason)> {
        if let Some(other) = self.other_end(id) {
            return self.on_self_connection(peers, [other, id]);
        }
        let Some(peer) = self.peer(id).cloned() else { return Vec::new() };
        let outbound = self.is_outbound(id);
        if outbound {
            peers.keyed(&peer);
            if peers.connection(&peer).is_some_and(|other| other != id) {
                // The peer dialled us as well, and answers where it says that it listens. One connection is enough.
                return [(id, CloseReason::Duplicate)].into();
            }
        }
        self.on_keyed(cx, id, outbound && peers.is_v5(&peer));
        cx.event(Event::Connected { conn: id, peer, outbound });
        Vec::new()
    }

    /// Our own announce led back to us: closes both ends of the connection.
    fn on_self_connection(&self, peers: &mut Peers, ends: [ConnId; 2]) -> Vec<(ConnId, CloseReason)> {
        for end in ends.into_iter().filter(|end| self.is_outbound(*end)) {
            self.peer(end).into_iter().for_each(|addr| peers.ourselves(addr));
        }
        ends.map(|end| (end, CloseReason::Evicted)).into()
    }

    /// Notes the port on which an inbound peer says that it listens: it is believed about the address that it connects from.
    /// Returns the connection to close, if any, and why.
    pub(super) fn on_listen_port(
        &mut self,
        cx: &Cx,
        peers: &mut Peers,
        id: ConnId,
        port: u16,
    ) -> Option<(ConnId, CloseReason)> {
        let socket = match self.peer(id).filter(|_| !self.is_outbound(id))? {
            PeerAddr::Ip(socket) => SocketAddr::new(socket.ip(), port),
            PeerAddr::Onion(..) | PeerAddr::I2p(..) | PeerAddr::Dns(..) => return None,
        };
        let addr = PeerAddr::Ip(socket);
        if !addr.is_exchangeable() {
            return None;
        }
        if peers.is_banned(cx, &addr) {
            return Some((id, CloseReason::Banned));
        }
        if let Some(other) = peers.connection(&addr) {
            return self.on_second_connection(peers, id, other);
        }
        let entry = self.entry_mut(id)?;
        let before = entry.listens_at.replace(addr.clone());
        if let Some(before) = before.filter(|before| peers.connection(before) == Some(id)) {
            // It listens on another port than it did.
            peers.ended(cx, &before, false);
        }
        peers.accepted(cx, &addr, id);
        None
    }

    /// Closes one connection of two nodes that dialled each other. Both see both session ids and keep the lower one.
    fn on_second_connection(
        &mut self,
        peers: &mut Peers,
        accepted: ConnId,
        dialled: ConnId,
    ) -> Option<(ConnId, CloseReason)> {
        let came = self.get(accepted)?.session_id()?;
        let entry = self.entry(dialled).filter(|e| e.is_outbound() && e.conn.is_open())?;
        if entry.conn.session_id() < Some(came) {
            return Some((accepted, CloseReason::Duplicate));
        }
        let addr = entry.peer.clone();
        if let Some(entry) = self.entry_mut(accepted) {
            entry.listens_at = Some(addr.clone());
        }
        peers.kept_accepted(&addr, accepted);
        Some((dialled, CloseReason::Duplicate))
    }

    // --- time -----------------------------------------------------------------------------------------------

    /// Tells the peer which rule it broke: the connection ends once it has taken that, or after [`DRAIN_TIMEOUT`].
    pub(super) fn drain(&mut self, cx: &mut Cx, id: ConnId, violation: Violation, why: &'static str) {
        let Some(entry) = self.entry_mut(id) else { return };
        entry.conn.drain(why);
        entry.broke = Some(violation);
        cx.set_timer_in(Timer::Conn(id), DRAIN_TIMEOUT);
    }

    /// Returns why a connection ends that has drained.
    pub(super) fn drained(&self, id: ConnId) -> Option<CloseReason> {
        let entry = self.entry(id).filter(|entry| entry.conn.is_drained())?;
        Some(entry.broke.map_or(CloseReason::Remote, CloseReason::Violation))
    }

    /// Acts on a connection's deadline: returns why it ends, or sets the next deadline. `check`: when its requests are checked
    /// next, or why they end it.
    pub(super) fn on_timer(
        &mut self,
        cx: &mut Cx,
        id: ConnId,
        check: Result<Option<Instant>, CloseReason>,
    ) -> Option<CloseReason> {
        let now = cx.now();
        let entry = self.entry_mut(id)?;
        if let Some(violation) = entry.broke {
            return Some(CloseReason::Violation(violation));
        }
        if !entry.is_keyed {
            return Some(CloseReason::HandshakeTimeout);
        }
        if entry.is_outbound() && entry.version == Version::Unknown {
            // It has sent no HELLO in HELLO_WAIT.
            entry.version = Version::V5;
        }
        let check_at = match check {
            Ok(at) => at,
            Err(reason) => return Some(reason),
        };
        // Both ends of a v6 connection keep it alive, so silence means that the peer is gone, whatever we send. Our own
        // keep-alives, which we send to a v5 peer that we dialled, are no sign of life either.
        let (is_v6, is_outbound) = (entry.version == Version::V6, entry.is_outbound());
        let is_kept = is_v6 || (is_outbound && !entry.conn.owes_answers());
        let last_life = if is_kept { entry.conn.last_received() } else { entry.conn.last_moved() };
        let idle_end = last_life + IDLE_TIMEOUT;
        let mut next = check_at.map_or(idle_end, |at| at.min(idle_end));
        if is_outbound || is_v6 {
            if now >= entry.conn.last_sent_frame() + KEEP_ALIVE && entry.conn.has_control_room() {
                entry.conn.push_keep_alive(now);
            }
            next = next.min(entry.conn.last_sent_frame() + KEEP_ALIVE);
        }
        if now >= idle_end {
            return Some(CloseReason::Idle);
        }
        // Never in the past: a keep-alive that finds no room waits for the next deadline.
        cx.set_timer(Timer::Conn(id), next.max(now + Duration::from_secs(1)));
        None
    }
}
