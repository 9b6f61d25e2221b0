//! Who holds what part of the address book.

use alloc::collections::{BTreeMap, BTreeSet};

use super::netgroup::Netgroup;
use crate::addr::PeerAddr;

/// Where an address came from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Configuration or a URI.
    Configured,
    /// A record of an earlier run: it served then.
    Remembered,
    Dht,
    /// The peer itself, about its own address.
    Announced,
    /// Hearsay: PEX, and names that were flooded.
    Exchanged,
}

/// The addresses of one source.
#[derive(Default)]
struct Part {
    count: usize,
    /// Addresses by who told of them, or whose they are.
    netgroups: BTreeMap<Netgroup, BTreeSet<PeerAddr>>,
    /// The same by number.
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

    /// The source, of those that can be made up, with the most addresses.
    pub(super) fn fullest_source(&self) -> Option<Source> {
        let parts = self.parts.iter().filter(|(source, _)| **source != Source::Configured);
        parts.max_by_key(|(_, part)| part.count).map(|(source, _)| *source)
    }

    /// The netgroups that have addresses from `source`, those with most of them first.
    pub(super) fn largest(&self, source: Source) -> impl Iterator<Item = &BTreeSet<PeerAddr>> {
        let part = self.parts.get(&source);
        part.into_iter()
            .flat_map(|part| part.sizes.iter().rev().filter_map(|(_, netgroup)| part.netgroups.get(netgroup)))
    }
}
