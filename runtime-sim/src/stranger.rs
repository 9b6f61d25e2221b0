//! Sockets that no node holds: what an attacker, or a test, does with a network of its own.

use megatorrent_core::suite::Suite;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use crate::host::HostId;
use crate::link::{End, LinkId, Side};
use crate::world::World;

/// What a stranger's socket has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrangerEvent {
    /// Its dial was taken.
    Opened(LinkId),
    /// Somebody dialled the address on which it listens.
    Accepted(LinkId, SocketAddr),
    /// Bytes can be read.
    Readable(LinkId),
    /// The other end has closed or is gone.
    Closed(LinkId),
}

/// The addresses on which strangers listen, and what their sockets have to tell.
#[derive(Default)]
pub(crate) struct Strangers {
    listeners: BTreeSet<SocketAddr>,
    /// `None` until somebody asks: sockets that nobody attends to make no notes.
    events: Option<Vec<StrangerEvent>>,
}

impl<S: Suite> World<S> {
    /// Takes every connection to an address that no host has.
    pub fn raw_listen(&mut self, at: SocketAddr) {
        self.strangers.listeners.insert(at);
    }

    /// What the strangers' sockets have to tell since the last call; the first call begins the notes.
    pub fn take_stranger_events(&mut self) -> Vec<StrangerEvent> {
        self.strangers.events.replace(Vec::new()).unwrap_or_default()
    }

    /// Connects to a host from a socket that no node holds: what is sent on it is up to the caller, and it reads
    /// nothing unless told to ([`Self::raw_read`]).
    pub fn raw_dial(&mut self, from: SocketAddr, to: HostId) -> LinkId {
        self.make_link(End::Raw { from, unsent: VecDeque::new() }, Some(to))
    }

    /// Sends bytes on a raw socket, as fast as the other end takes them.
    pub fn raw_send(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(side) = self.raw_side(id) else { return };
        if let Some(End::Raw { unsent, .. }) =
            self.links.get_mut(id).map(|link| &mut link.ends[side as usize])
        {
            unsent.extend(bytes);
        }
        self.write_socket(id, side);
    }

    /// Bytes given to a raw socket that the other end has not yet made room for.
    pub fn raw_unsent(&self, id: LinkId) -> usize {
        let ends = self.links.get(id).into_iter().flat_map(|link| &link.ends);
        ends.map(|end| if let End::Raw { unsent, .. } = end { unsent.len() } else { 0 }).sum()
    }

    /// Takes what has arrived on a raw socket.
    pub fn raw_read(&mut self, id: LinkId) -> Vec<u8> {
        let Some(side) = self.raw_side(id) else { return Vec::new() };
        let Some(link) = self.links.get_mut(id) else { return Vec::new() };
        let pipe = &mut link.pipes[side as usize];
        let mut bytes = vec![0; pipe.arrived];
        let n = pipe.read(&mut bytes);
        self.tell_of_room(id, side, n);
        bytes
    }

    /// Whether a raw socket's other end has not closed, as far as is known at this end.
    pub fn raw_is_open(&self, id: LinkId) -> bool {
        let Some(side) = self.raw_side(id) else { return false };
        self.links.get(id).is_some_and(|link| !link.pipes[side as usize].is_ended)
    }

    /// Closes a raw socket.
    pub fn raw_close(&mut self, id: LinkId) {
        if let Some(side) = self.raw_side(id) {
            self.close_end(id, side);
        }
    }

    fn raw_side(&self, id: LinkId) -> Option<Side> {
        let link = self.links.get(id)?;
        [Side::Dialer, Side::Listener]
            .into_iter()
            .find(|&side| matches!(link.ends[side as usize], End::Raw { .. }))
    }

    /// A dial reaches an address on which a stranger listens. `false`: none does.
    pub(crate) fn stranger_accepts(&mut self, id: LinkId) -> bool {
        let at = self.links.get(id).and_then(|link| link.dialled);
        let Some(at) = at.filter(|at| self.strangers.listeners.contains(at)) else { return false };
        if let Some(link) = self.links.get_mut(id) {
            link.ends[Side::Listener as usize] = End::Raw { from: at, unsent: VecDeque::new() };
        }
        self.tell_stranger(StrangerEvent::Accepted(id, at));
        true
    }

    /// Something happened at an end of a link, which may be a stranger's.
    pub(crate) fn stranger_hears(&mut self, id: LinkId, side: Side, event: StrangerEvent) {
        let is_raw =
            self.links.get(id).is_some_and(|link| matches!(link.ends[side as usize], End::Raw { .. }));
        if is_raw {
            self.tell_stranger(event);
        }
    }

    fn tell_stranger(&mut self, event: StrangerEvent) {
        if let Some(events) = &mut self.strangers.events {
            events.push(event);
        }
    }
}
