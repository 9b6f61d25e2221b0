//! Bytes that are mostly zeros, without the zeros.

/// Zeros are left out in whole blocks of this many bytes.
const BLOCK: usize = 256;
/// Zeros to compare with, which the C library does faster than any loop here, in debug builds too.
static ZEROS: [u8; 4096] = [0; 4096];

/// A byte string. What is left out of it is zeros.
#[derive(Debug)]
pub(crate) struct Sparse {
    len: usize,
    /// Where each stretch that is kept begins, in order, and its bytes' end in [`Self::kept`]. None where all is kept, or
    /// nothing.
    stretches: Box<[(u32, u32)]>,
    kept: Box<[u8]>,
}

impl Sparse {
    /// Keeps `bytes`: with their weight all of them, else without blocks of zeros.
    ///
    /// # Panics
    /// Where they are 4 GiB or longer.
    pub(crate) fn new(bytes: &[u8], has_weight: bool) -> Self {
        let offset = |n: usize| u32::try_from(n).expect("no blob or piece is as long as 4 GiB");
        if has_weight || bytes.len() < BLOCK {
            return Self { len: bytes.len(), stretches: Box::default(), kept: bytes.into() };
        }
        let (mut stretches, mut kept) = (Vec::<(u32, u32)>::new(), Vec::new());
        let mut is_after_zeros = true;
        for (n, block) in bytes.chunks(BLOCK).enumerate() {
            if *block == ZEROS[..block.len()] {
                is_after_zeros = true;
                continue;
            }
            kept.extend_from_slice(block);
            let end = offset(kept.len());
            match stretches.last_mut() {
                Some(last) if !is_after_zeros => last.1 = end,
                _ => stretches.push((offset(n * BLOCK), end)),
            }
            is_after_zeros = false;
        }
        Self { len: bytes.len(), stretches: stretches.into(), kept: kept.into() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the bytes from `from` on into all of `space`.
    ///
    /// # Panics
    /// Where there are not as many.
    pub(crate) fn copy_to(&self, from: usize, space: &mut [u8]) {
        let end = from + space.len();
        assert!(end <= self.len, "no more is read than there is");
        if self.stretches.is_empty() && !self.kept.is_empty() {
            return space.copy_from_slice(&self.kept[from..end]);
        }
        let (mut at, mut kept_from) = (from, 0);
        for &(start, kept_to) in &self.stretches {
            let (start, kept) = (start as usize, &self.kept[kept_from..kept_to as usize]);
            kept_from = kept_to as usize;
            let (first, last) = (start.max(at), (start + kept.len()).min(end));
            if first < last {
                set_zero(&mut space[at - from..first - from]);
                space[first - from..last - from].copy_from_slice(&kept[first - start..last - start]);
                at = last;
            }
        }
        set_zero(&mut space[at - from..]);
    }

    /// All bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.copy_to(0, &mut bytes);
        bytes
    }
}

impl PartialEq for Sparse {
    /// Compares the bytes, however they are kept.
    fn eq(&self, other: &Self) -> bool {
        let is_alike = self.len == other.len && self.stretches == other.stretches && self.kept == other.kept;
        is_alike || self.len == other.len && self.to_vec() == other.to_vec()
    }
}

/// Makes bytes zeros. Fresh memory, which is zeros already, is not touched, so that it takes none.
fn set_zero(bytes: &mut [u8]) {
    for block in bytes.chunks_mut(ZEROS.len()) {
        if *block != ZEROS[..block.len()] {
            block.fill(0);
        }
    }
}

/// The bytes up to the last one that is not zero.
pub(crate) fn without_trailing_zeros(bytes: &[u8]) -> &[u8] {
    let bytes = without_trailing_blocks::<{ ZEROS.len() }>(bytes);
    let bytes = without_trailing_blocks::<64>(bytes);
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..len]
}

fn without_trailing_blocks<const LEN: usize>(mut bytes: &[u8]) -> &[u8] {
    while let Some((rest, block)) = bytes.split_last_chunk::<LEN>()
        && block[..] == ZEROS[..LEN]
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings() -> impl Iterator<Item = Vec<u8>> {
        let places = [0, 1, 255, 256, 257, 511, 512, 1023, 5000, 69_999];
        let of = move |len: usize| {
            (0..1_u32 << places.len()).step_by(7).map(move |set| {
                let mut bytes = vec![0; len];
                for (n, &place) in places.iter().enumerate() {
                    if let Some(byte) = bytes.get_mut(place).filter(|_| set >> n & 1 == 1) {
                        *byte = 7;
                    }
                }
                bytes
            })
        };
        [0, 1, 255, 256, 300, 1024, 70_000].into_iter().flat_map(of)
    }

    #[test]
    fn any_cut_comes_out_as_it_went_in() {
        for bytes in strings() {
            for has_weight in [true, false] {
                let sparse = Sparse::new(&bytes, has_weight);
                assert_eq!((sparse.len(), sparse.to_vec()), (bytes.len(), bytes.clone()));
                for (from, len) in [(0, 1), (1, 300), (200, 100), (256, 256), (4_999, 2), (60_000, 10_000)] {
                    let Some(expected) = bytes.get(from..from + len) else { continue };
                    let mut space = vec![9; len];
                    sparse.copy_to(from, &mut space);
                    assert_eq!(space, expected, "{from} {len}");
                }
                assert!(sparse == Sparse::new(&bytes, false));
            }
        }
    }

    #[test]
    fn zeros_have_no_weight_unless_it_is_wanted() {
        let mut bytes = vec![0; 1 << 20];
        (bytes[0], bytes[(1 << 20) - 1]) = (1, 1);
        assert_eq!(Sparse::new(&bytes, false).kept.len(), 2 * BLOCK);
        assert_eq!(Sparse::new(&bytes, true).kept.len(), 1 << 20);
        bytes[70_000] = 1;
        assert!(Sparse::new(&bytes, true) != Sparse::new(&vec![0; 1 << 20], false));
    }

    #[test]
    fn trailing_zeros_end_at_the_last_other_byte() {
        for bytes in strings() {
            let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            assert_eq!(without_trailing_zeros(&bytes).len(), len);
        }
    }
}
