//! The addresses that peers are told of when they ask for others: those that answered when they were last tried.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::netgroup::Netgroup;
use crate::addr::PeerAddr;
use crate::limits::{EXCHANGED_PER_NETWORK_MAX, PEERS_MAX};
use crate::rng::Rng;
use crate::time::Instant;

/// The addresses, and until when each is told. Beside the book, which is too long to be looked through for each question;
/// it has no more addresses than the book.
#[derive(Default)]
pub(super) struct Alive(Vec<(PeerAddr, Instant)>);

impl Alive {
    /// Adds an address; its place.
    pub(super) fn add(&mut self, addr: PeerAddr, until: Instant) -> usize {
        self.0.push((addr, until));
        self.0.len() - 1
    }

    /// Changes until when the address at a place is told.
    pub(super) fn set(&mut self, at: usize, until: Instant) {
        self.0[at].1 = until;
    }

    /// Takes out the address at a place; which one has the place now.
    pub(super) fn remove(&mut self, at: usize) -> Option<&PeerAddr> {
        self.0.swap_remove(at);
        self.0.get(at).map(|(addr, _)| addr)
    }

    /// Any of them and few of each network, for a peer at `asker`: private ones only where the asker's is private too.
    pub(super) fn choose(&self, asker: &PeerAddr, now: Instant, rng: &mut Rng) -> Vec<PeerAddr> {
        let mut places: Vec<usize> = (0..self.0.len()).collect();
        let (mut told, mut networks) = (Vec::new(), BTreeMap::new());
        while !places.is_empty() && told.len() < PEERS_MAX {
            let at = usize::try_from(rng.below(places.len() as u64)).expect("below a length");
            let (addr, until) = &self.0[places.swap_remove(at)];
            if *until <= now || addr == asker || (asker.is_public() && !addr.is_public()) {
                continue;
            }
            let network = Netgroup::of(addr);
            let is_local = network.is_local();
            let count: &mut usize = networks.entry(network).or_default();
            *count += 1;
            if is_local || *count <= EXCHANGED_PER_NETWORK_MAX {
                told.push(addr.clone());
            }
        }
        told
    }
}
