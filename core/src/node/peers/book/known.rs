//! What the book says of one address.

use super::{Book, State};
use crate::addr::PeerAddr;

impl Book {
    pub(in super::super) fn knows(&self, addr: &PeerAddr) -> bool {
        self.peers.contains_key(addr)
    }

    /// Whether an address is our own.
    pub(in super::super) fn is_ourselves(&self, addr: &PeerAddr) -> bool {
        self.peers.get(addr).is_some_and(|peer| peer.state == State::Ourselves)
    }
}
