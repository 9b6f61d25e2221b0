//! The shares of the address book that sources and netgroups hold.

use alloc::collections::{BTreeMap, BTreeSet};

use super::netgroup::Netgroup;
use crate::addr::PeerAddr;

/// Where an address came from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Configuration or a URI.
    Configured,
    /// A record of an earlier run, in which it served.
    Remembered,
    Dht,
    /// The peer itself, about its own address.
    Announced,
    /// Hearsay: PEX, and names that gossip brought.
    Exchanged,
}

/// The addresses of one source.
#[derive(Default)]
struct Part {
    count: usize,
    /// Addresses by the netgroup of their referrer, or their own.
    netgroups: BTreeMap<Netgroup, BTreeSet<PeerAddr>>,
    /// The netgroups by number of addresses.
    sizes: BTreeSet<(usize, Netgroup)>,
}

impl Part {
    fn change(&mut self, netgroup: Netgroup, change: impl FnOnce(&mut BTreeSet<PeerAddr>) -> bool) {
        let addrs = self.netgroups.entry(netgroup.clone()).or_default();
        let before = addrs.len();
        change(addrs);
        let after = addrs.len();
        self.count = self.count + after - before;
        self.sizes.remove(&(before, netgroup.clone()));
        if after > 0 {
            self.sizes.insert((after, netgroup));
        } else {
            self.netgroups.remove(&netgroup);
        }
    }
}

/// The parts of the book, by source and within it by netgroup.
#[derive(Default)]
pub(super) struct Shares {
    parts: BTreeMap<Source, Part>,
}

impl Shares {
    pub(super) fn enter(&mut self, source: Source, netgroup: Netgroup, addr: &PeerAddr) {
        self.parts.entry(source).or_default().change(netgroup, |addrs| addrs.insert(addr.clone()));
    }

    pub(super) fn leave(&mut self, source: Source, netgroup: Netgroup, addr: &PeerAddr) {
        self.parts.entry(source).or_default().change(netgroup, |addrs| addrs.remove(addr));
    }

    pub(super) fn source(&self, source: Source) -> usize {
        self.parts.get(&source).map_or(0, |part| part.count)
    }

    pub(super) fn netgroup(&self, source: Source, netgroup: &Netgroup) -> Option<&BTreeSet<PeerAddr>> {
        self.parts.get(&source)?.netgroups.get(netgroup)
    }

    /// Returns the source with the most addresses, of those that an attacker can fill.
    pub(super) fn fullest_source(&self) -> Option<Source> {
        let parts = self.parts.iter().filter(|(source, _)| **source != Source::Configured);
        parts.max_by_key(|(_, part)| part.count).map(|(source, _)| *source)
    }

    /// Returns the addresses from `source` by netgroup, the largest netgroup first.
    pub(super) fn largest(&self, source: Source) -> impl Iterator<Item = &BTreeSet<PeerAddr>> {
        let part = self.parts.get(&source);
        part.into_iter()
            .flat_map(|part| part.sizes.iter().rev().filter_map(|(_, netgroup)| part.netgroups.get(netgroup)))
    }
}
