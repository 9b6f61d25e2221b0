//! How many connected peers have each part of each blob of a version.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::share::Theirs;
use crate::parts::{Mask, PARTS};

/// The counts by position.
#[derive(Debug, Default)]
pub(super) struct Availability {
    /// The version that is counted; 0 before there is one.
    version: u64,
    /// Its blobs, as far as we know; positions beyond them are not counted, as anybody can claim them.
    total: u64,
    /// Peers that have a blob whole.
    whole: Vec<u16>,
    /// Peers that have a part of a blob, and not all of it.
    parts: BTreeMap<usize, [u16; PARTS]>,
}

impl Availability {
    /// Counts anew what peers have of a version.
    pub(super) fn new<'a, P: Iterator<Item = &'a Theirs>>(version: u64, total: u64, peers: P) -> Self {
        let mut availability = Self { version, total, ..Self::default() };
        peers.for_each(|theirs| availability.add(theirs));
        availability
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many peers have a part of a blob. Those that have every blob are not counted: they make none rarer than another.
    pub(super) fn count(&self, position: u64, part: usize) -> u16 {
        let Ok(at) = usize::try_from(position) else { return 0 };
        let of_part = self.parts.get(&at).and_then(|parts| parts.get(part)).copied().unwrap_or(0);
        self.whole.get(at).copied().unwrap_or(0).saturating_add(of_part)
    }

    /// A peer has these parts of a blob, and had those before.
    pub(super) fn change(&mut self, position: usize, before: Mask, after: Mask) {
        if position as u64 >= self.total {
            return;
        }
        self.count_parts(position, before, -1);
        self.count_parts(position, after, 1);
    }

    fn count_parts(&mut self, position: usize, mask: Mask, by: i16) {
        if mask == Mask::ALL {
            if self.whole.len() <= position {
                self.whole.resize(position + 1, 0);
            }
            self.whole[position] = self.whole[position].saturating_add_signed(by);
        } else if !mask.is_empty() {
            let parts = self.parts.entry(position).or_default();
            for part in mask.iter() {
                parts[part] = parts[part].saturating_add_signed(by);
            }
            if *parts == [0; PARTS] {
                self.parts.remove(&position);
            }
        }
    }

    /// What a peer has counts from here on.
    pub(super) fn add(&mut self, theirs: &Theirs) {
        if theirs.version() == self.version {
            theirs.listed().for_each(|(position, mask)| self.change(position, Mask::NONE, mask));
        }
    }

    /// What a peer has counts no longer.
    pub(super) fn remove(&mut self, theirs: &Theirs) {
        if theirs.version() == self.version {
            theirs.listed().for_each(|(position, mask)| self.change(position, mask, Mask::NONE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HAVE_BLOBS_MAX;

    fn theirs(version: u64, positions: &[usize]) -> Theirs {
        let mut theirs = Theirs::new(version);
        assert!(positions.iter().all(|position| theirs.add(*position).is_some()));
        theirs
    }

    #[test]
    fn a_peer_that_has_all_counts_for_no_blob() {
        let mut counts = Availability::new(5, 5, [theirs(5, &[3])].iter());
        assert_eq!((counts.count(3, 0), counts.count(4, 0)), (1, 0));
        counts.remove(&theirs(5, &[3]));
        counts.add(&Theirs::all(5));
        assert_eq!(counts.count(3, 0), 0);
        counts.add(&theirs(4, &[3]));
        assert_eq!(counts.count(3, 0), 0, "another version's positions mean other blobs");
        counts.add(&theirs(5, &[3, HAVE_BLOBS_MAX - 1]));
        assert_eq!((counts.count(3, 0), counts.whole.len()), (1, 4), "no blob has the other position");
    }

    #[test]
    fn a_part_of_a_blob_counts_alone_until_the_blob_is_whole() {
        let mut counts = Availability::new(5, 5, [theirs(5, &[3])].iter());
        counts.change(3, Mask::NONE, Mask(0b01));
        counts.change(3, Mask(0b01), Mask(0b11));
        assert_eq!([0, 1, 2].map(|part| counts.count(3, part)), [2, 2, 1]);
        counts.change(3, Mask(0b11), Mask::ALL);
        assert_eq!(([0, 2].map(|part| counts.count(3, part)), counts.parts.len()), ([2, 2], 0));
    }
}
