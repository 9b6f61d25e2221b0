//! Positions of blobs (`docs/protocol.md` §12): the blobs that somebody has of a version.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::limits::HAVE_BLOBS_MAX;
use crate::parts::Mask;

/// Positions, up to [`HAVE_BLOBS_MAX`]; those beyond are left out. Takes memory up to the highest one in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions(Vec<u8>);

impl Positions {
    /// From a bitmap whose first byte's highest bit is position 0.
    pub(super) fn from_bitmap(bits: Vec<u8>) -> Self {
        Self(bits)
    }

    pub(super) fn bitmap(&self) -> &[u8] {
        &self.0
    }

    /// `true`: it was missing.
    pub(super) fn add(&mut self, position: usize) -> bool {
        if position >= HAVE_BLOBS_MAX {
            return false;
        }
        if self.0.len() <= position / 8 {
            self.0.resize(position / 8 + 1, 0);
        }
        let (byte, bit) = (&mut self.0[position / 8], 0x80 >> (position % 8));
        let is_new = *byte & bit == 0;
        *byte |= bit;
        is_new
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.0.get(position / 8).is_some_and(|byte| byte & (0x80 >> (position % 8)) != 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let bytes = self.0.iter().enumerate().filter(|(_, byte)| **byte != 0);
        bytes.flat_map(|(i, byte)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| i * 8 + bit)
        })
    }
}

/// What we have of a version, in the order in which it was stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    positions: Positions,
    log: Vec<u32>,
    /// Parts of blobs that are not whole.
    under_way: BTreeMap<u32, Mask>,
}

impl Stored {
    pub(super) fn add(&mut self, position: u64) {
        if let Ok(position) = u32::try_from(position)
            && self.positions.add(position as usize)
        {
            self.under_way.remove(&position);
            self.log.push(position);
        }
    }

    /// Parts of a blob are here. `true`: more than before.
    pub(super) fn add_parts(&mut self, position: u64, mask: Mask) -> bool {
        let Ok(position) = u32::try_from(position) else { return false };
        if mask.is_empty() || position as usize >= HAVE_BLOBS_MAX || self.positions.has(position as usize) {
            return false;
        }
        let known = self.under_way.entry(position).or_default();
        let is_more = !known.covers(mask);
        *known = *known | mask;
        is_more
    }

    /// The parts of blobs that are not whole.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (u32, Mask)> {
        self.under_way.iter().map(|(position, mask)| (*position, *mask))
    }

    pub(super) fn is_under_way(&self, position: u32) -> bool {
        self.under_way.contains_key(&position)
    }

    /// Whether a blob is here whole.
    pub(super) fn has(&self, position: usize) -> bool {
        self.positions.has(position)
    }

    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// What was stored after the first `from`.
    pub(super) fn since(&self, from: usize) -> &[u32] {
        &self.log[from.min(self.log.len())..]
    }

    pub(super) fn bitmap(&self) -> &[u8] {
        self.positions.bitmap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_bounded_and_ordered() {
        let mut positions = Positions::default();
        assert!(positions.add(70) && positions.add(0) && !positions.add(70));
        assert!(!positions.add(HAVE_BLOBS_MAX) && !positions.has(HAVE_BLOBS_MAX));
        assert!(positions.has(0) && positions.has(70) && !positions.has(71) && !positions.has(100_000));
        assert_eq!(positions.iter().collect::<Vec<_>>(), [0, 70]);
        assert_eq!((positions.bitmap()[0], positions.bitmap().len()), (0x80, 9));
    }

    #[test]
    fn what_is_stored_is_told_in_the_order_in_which_it_was_stored() {
        let mut stored = Stored::default();
        for position in [7, 3, 7, HAVE_BLOBS_MAX as u64] {
            stored.add(position);
        }
        assert_eq!((stored.len(), stored.since(1), stored.since(9)), (2, &[3][..], &[][..]));
        assert_eq!(stored.bitmap(), [0x11]);
    }
}
