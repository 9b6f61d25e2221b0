//! Sockets that no node holds: an attacker's or a test's.

use megatorrent_core::suite::Suite;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use crate::host::HostId;
use crate::link::{End, LinkId, Side};
use crate::net::ephemeral_port;
use crate::world::World;

/// An event of a stranger's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrangerEvent {
    /// Its dial succeeded.
    Opened(LinkId),
    /// A host or stranger dialled the address on which it listens.
    Accepted(LinkId, SocketAddr),
    /// Bytes can be read.
    Readable(LinkId),
    /// The other end has closed or is gone.
    Closed(LinkId),
}

impl StrangerEvent {
    /// The link to which it happened.
    pub fn link(self) -> LinkId {
        let (Self::Opened(link) | Self::Accepted(link, _) | Self::Readable(link) | Self::Closed(link)) = self;
        link
    }
}

/// One end of a link, which no node holds. Where strangers connect to each other, both ends are sockets of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Socket {
    pub(crate) link: LinkId,
    pub(crate) side: Side,
}

/// The addresses on which strangers listen, and their sockets' events.
#[derive(Default)]
pub(crate) struct Strangers {
    listeners: BTreeSet<SocketAddr>,
    /// `None` until the first [`World::take_socket_events`]: before it, no events are kept.
    events: Option<Vec<(Side, StrangerEvent)>>,
}

impl<S: Suite> World<S> {
    /// Takes every connection to an address that no host has.
    pub fn raw_listen(&mut self, at: SocketAddr) {
        self.strangers.listeners.insert(at);
    }

    /// Takes the events of the strangers' sockets since the last call; the first call begins to keep them.
    pub fn take_stranger_events(&mut self) -> Vec<StrangerEvent> {
        self.take_socket_events().into_iter().map(|(_, event)| event).collect()
    }

    /// Like [`Self::take_stranger_events`], with the end of the link that each is about.
    pub(crate) fn take_socket_events(&mut self) -> Vec<(Side, StrangerEvent)> {
        self.strangers.events.replace(Vec::new()).unwrap_or_default()
    }

    /// Connects to a host from a socket that no node holds: the caller chooses the bytes to send, and nothing is read
    /// without [`Self::raw_read`].
    pub fn raw_dial(&mut self, from: SocketAddr, to: HostId) -> LinkId {
        self.make_link(End::Raw { from, unsent: VecDeque::new() }, Some(to))
    }

    /// Connects to an address from a machine, whose line and place in the network then count.
    pub(crate) fn machine_dial(&mut self, from: HostId, at: SocketAddr) -> Socket {
        self.counts.total.dials += 1;
        let to = self.addresses.get(&at.into()).copied();
        let source = SocketAddr::new(self.address(from).ip(), 0);
        let id = self.make_link(End::Raw { from: source, unsent: VecDeque::new() }, to);
        let port = ephemeral_port(id);
        if let Some(link) = self.links.get_mut(id) {
            let from_port = SocketAddr::new(source.ip(), port);
            link.ends[Side::Dialer as usize] = End::Raw { from: from_port, unsent: VecDeque::new() };
            link.hosts[Side::Dialer as usize] = Some(from);
            link.dialled = Some(at);
        }
        Socket { link: id, side: Side::Dialer }
    }

    /// Sends bytes on a raw socket, as fast as the other end takes them.
    pub fn raw_send(&mut self, id: LinkId, bytes: &[u8]) {
        if let Some(socket) = self.raw_socket(id) {
            self.socket_send(socket, bytes);
        }
    }

    pub(crate) fn socket_send(&mut self, socket: Socket, bytes: &[u8]) {
        let link = self.links.get_mut(socket.link);
        if let Some(End::Raw { unsent, .. }) = link.map(|link| &mut link.ends[socket.side as usize]) {
            unsent.extend(bytes);
            self.write_socket(socket.link, socket.side);
        }
    }

    /// Bytes given to a raw socket that the other end has not yet made room for.
    pub fn raw_unsent(&self, id: LinkId) -> usize {
        self.raw_socket(id).map_or(0, |socket| self.socket_unsent(socket))
    }

    pub(crate) fn socket_unsent(&self, socket: Socket) -> usize {
        match self.links.get(socket.link).map(|link| &link.ends[socket.side as usize]) {
            Some(End::Raw { unsent, .. }) => unsent.len(),
            _ => 0,
        }
    }

    /// Takes the bytes that have arrived on a raw socket.
    pub fn raw_read(&mut self, id: LinkId) -> Vec<u8> {
        self.raw_socket(id).map_or_else(Vec::new, |socket| self.socket_read(socket))
    }

    pub(crate) fn socket_read(&mut self, socket: Socket) -> Vec<u8> {
        let Some(link) = self.links.get_mut(socket.link) else { return Vec::new() };
        let pipe = &mut link.pipes[socket.side as usize];
        let mut bytes = vec![0; pipe.arrived];
        let n = pipe.read(&mut bytes);
        self.tell_of_room(socket.link, socket.side, n);
        bytes
    }

    /// Whether a raw socket's other end has not closed, as far as is known at this end.
    pub fn raw_is_open(&self, id: LinkId) -> bool {
        let Some(Socket { side, .. }) = self.raw_socket(id) else { return false };
        self.links.get(id).is_some_and(|link| !link.pipes[side as usize].is_ended)
    }

    /// Closes a raw socket.
    pub fn raw_close(&mut self, id: LinkId) {
        if let Some(socket) = self.raw_socket(id) {
            self.socket_close(socket);
        }
    }

    pub(crate) fn socket_close(&mut self, Socket { link, side }: Socket) {
        if self.links.get(link).is_some_and(|link| matches!(link.ends[side as usize], End::Raw { .. })) {
            self.close_end(link, side);
        }
    }

    /// Returns the end of a link that no node holds; the dialler's where that is both.
    fn raw_socket(&self, id: LinkId) -> Option<Socket> {
        let link = self.links.get(id)?;
        let sides = [Side::Dialer, Side::Listener].into_iter();
        let mut raw = sides.filter(|&side| matches!(link.ends[side as usize], End::Raw { .. }));
        raw.next().map(|side| Socket { link: id, side })
    }

    /// Accepts a dial to an address on which a stranger listens, perhaps on a machine. `false`: none does.
    pub(crate) fn stranger_accepts(&mut self, id: LinkId, machine: Option<HostId>) -> bool {
        let at = self.links.get(id).and_then(|link| link.dialled);
        let Some(at) = at.filter(|at| self.strangers.listeners.contains(at)) else { return false };
        if let Some(link) = self.links.get_mut(id) {
            link.ends[Side::Listener as usize] = End::Raw { from: at, unsent: VecDeque::new() };
            link.hosts[Side::Listener as usize] = machine;
        }
        self.tell_stranger(Side::Listener, StrangerEvent::Accepted(id, at));
        true
    }

    /// Something happened at an end of a link, which may be a stranger's.
    pub(crate) fn stranger_hears(&mut self, id: LinkId, side: Side, event: StrangerEvent) {
        let is_raw =
            self.links.get(id).is_some_and(|link| matches!(link.ends[side as usize], End::Raw { .. }));
        if is_raw {
            self.tell_stranger(side, event);
        }
    }

    fn tell_stranger(&mut self, side: Side, event: StrangerEvent) {
        if let Some(events) = &mut self.strangers.events {
            events.push((side, event));
        }
    }
}
