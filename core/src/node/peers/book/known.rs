//! What the book says of one address.

use alloc::vec::Vec;

use super::{Book, Source, State};
use crate::addr::PeerAddr;
use crate::ids::ConnId;

impl Book {
    pub(in super::super) fn knows(&self, addr: &PeerAddr) -> bool {
        self.peers.contains_key(addr)
    }

    /// Whether an address is our own.
    pub(in super::super) fn is_ourselves(&self, addr: &PeerAddr) -> bool {
        self.peers.get(addr).is_some_and(|peer| peer.state == State::Ourselves)
    }

    /// Where an address came from.
    pub(in super::super) fn source(&self, addr: &PeerAddr) -> Option<Source> {
        self.peers.get(addr).map(|peer| peer.source)
    }

    /// Whether an address may only be a peer's in a private network: it is private, and nobody but the DHT vouches for it.
    pub(in super::super) fn is_of_private_dht(&self, addr: &PeerAddr) -> bool {
        !addr.is_public() && self.source(addr) == Some(Source::Dht)
    }

    /// Forgets such addresses; returns the connections with those that are in use.
    pub(in super::super) fn forget_private_dht(&mut self) -> Vec<ConnId> {
        let private: Vec<PeerAddr> =
            self.peers.keys().filter(|addr| self.is_of_private_dht(addr)).cloned().collect();
        let mut connected = Vec::new();
        for addr in private {
            match self.peers.get(&addr).map(|peer| peer.state) {
                Some(State::Idle) => drop(self.drop_address(&addr)),
                Some(State::Connected(conn) | State::Accepted(conn)) => connected.push(conn),
                // A dial under way is judged by its answer.
                Some(State::Dialing | State::Ourselves) | None => {}
            }
        }
        connected
    }
}
