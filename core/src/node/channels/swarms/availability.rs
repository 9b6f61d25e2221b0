//! How many connected peers have each blob of a version.

use alloc::vec::Vec;

use super::share::Theirs;

/// The counts by position.
#[derive(Debug, Default)]
pub(super) struct Availability {
    /// The version that is counted; 0 before there is one.
    version: u64,
    /// Its blobs, as far as we know; positions beyond them are not counted, as anybody can claim them.
    total: u64,
    counts: Vec<u16>,
}

impl Availability {
    /// Counts anew what peers have of a version.
    pub(super) fn new<'a, P: Iterator<Item = &'a Theirs>>(version: u64, total: u64, peers: P) -> Self {
        let mut availability = Self { version, total, counts: Vec::new() };
        peers.for_each(|theirs| availability.add(theirs));
        availability
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many peers have a blob. Those that have every blob are not counted: they make none rarer than another.
    pub(super) fn count(&self, position: u64) -> u16 {
        usize::try_from(position).ok().and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }

    /// A peer has one blob more.
    pub(super) fn add_one(&mut self, position: usize) {
        self.change(position, 1);
    }

    /// What a peer has counts from here on.
    pub(super) fn add(&mut self, theirs: &Theirs) {
        self.change_all(theirs, 1);
    }

    /// What a peer has counts no longer.
    pub(super) fn remove(&mut self, theirs: &Theirs) {
        self.change_all(theirs, -1);
    }

    fn change(&mut self, position: usize, by: i16) {
        if position as u64 >= self.total {
            return;
        }
        if self.counts.len() <= position {
            self.counts.resize(position + 1, 0);
        }
        self.counts[position] = self.counts[position].saturating_add_signed(by);
    }

    fn change_all(&mut self, theirs: &Theirs, by: i16) {
        if theirs.version() == self.version {
            theirs.listed().for_each(|position| self.change(position, by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::share::News;
    use super::*;
    use crate::limits::HAVE_BLOBS_MAX;

    fn theirs(version: u64, positions: &[usize]) -> Theirs {
        let mut theirs = Theirs::new(version);
        assert!(positions.iter().all(|position| theirs.add(*position) == News::Blob));
        theirs
    }

    #[test]
    fn a_peer_that_has_all_counts_for_no_blob() {
        let mut counts = Availability::new(5, 5, [theirs(5, &[3])].iter());
        assert_eq!((counts.count(3), counts.count(4)), (1, 0));
        counts.remove(&theirs(5, &[3]));
        counts.add(&Theirs::all(5));
        assert_eq!(counts.count(3), 0);
        counts.add(&theirs(4, &[3]));
        assert_eq!(counts.count(3), 0, "another version's positions mean other blobs");
        counts.add(&theirs(5, &[3, HAVE_BLOBS_MAX - 1]));
        assert_eq!((counts.count(3), counts.counts.len()), (1, 4), "no blob has the other position");
    }
}
