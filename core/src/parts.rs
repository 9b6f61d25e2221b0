//! Parts: the sixteenths of a blob, each checked, opened and sealed alone (`docs/protocol.md` §2).
//!
//! BLAKE3 hashes a tree, and a subtree of 2^16 bytes has a *chaining value* of its own. The sixteen of a blob and its tag, its *values*,
//! give the root, the BLAKE3 hash of the blob. So a node that has the values tells right bytes from wrong ones 64 KiB at a time.
//!
//! The functions are plain: a runtime calls them on worker threads.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::Zeroize;

use core::fmt;
use core::ops::{BitAnd, BitOr, Not, Sub};

use crate::blob::{self, BLOB_LEN, NATIVE_NONCE, PLAIN_LEN, TAG_LEN};
use crate::ids::{Root, Secret};

/// Bytes of a part.
pub const PART_LEN: usize = 1 << 16;
/// Parts of a blob; its tag belongs to none.
pub const PARTS: usize = PLAIN_LEN / PART_LEN;
/// Bytes of [`Values`] as they travel.
pub const VALUES_LEN: usize = PARTS * VALUE_LEN + TAG_LEN;

const VALUE_LEN: usize = 32;
/// Bytes of keystream before a blob's first: the block that ChaCha20-Poly1305 (RFC 8439 §2.6) makes its Poly1305 key of.
const FIRST_BLOCK_LEN: u64 = 64;

const _: () = assert!(PARTS == 16 && BLOB_LEN == PARTS * PART_LEN + TAG_LEN);

/// Some of a blob's parts: the bit of value 2^*n* is part *n*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mask(pub u16);

impl Mask {
    /// No part.
    pub const NONE: Self = Self(0);
    /// All sixteen.
    pub const ALL: Self = Self(u16::MAX);

    /// One part; none where there is no such part.
    pub const fn one(part: usize) -> Self {
        if part < PARTS { Self(1 << part) } else { Self::NONE }
    }

    /// The first `count` parts.
    pub const fn first(count: usize) -> Self {
        if count >= PARTS { Self::ALL } else { Self((1 << count) - 1) }
    }

    /// Whether a part is in it.
    pub const fn has(self, part: usize) -> bool {
        part < PARTS && self.0 & 1 << part != 0
    }

    /// Whether all parts of another are in it.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether no part is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Counts the parts.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The parts, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        (0..PARTS).filter(move |part| self.has(*part))
    }

    /// The last part.
    pub fn last(self) -> Option<usize> {
        self.0.checked_ilog2().map(|part| part as usize)
    }
}

impl BitOr for Mask {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Mask {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Mask {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// The parts of one that are not in another.
impl Sub for Mask {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The parts to ask for of a blob's content: those that hold it, rounded up to 1, 2, 4, 8 or 16 (`docs/protocol.md` §2), since what
/// is asked for tells peers the length. `part_len`: bytes of a part.
pub fn needed(content_len: usize, part_len: usize) -> Mask {
    Mask::first(content_len.div_ceil(part_len).max(1).next_power_of_two())
}

/// What a blob's parts are checked by: their chaining values in order, then the blob's tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Values([u8; VALUES_LEN]);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Values")
    }
}

impl Values {
    /// Those of a sealed blob.
    ///
    /// # Panics
    /// Where `blob` is not [`BLOB_LEN`] bytes long.
    pub fn of(blob: &[u8]) -> Self {
        assert!(blob.len() == BLOB_LEN, "a blob has one length");
        let (parts, tag) = blob.split_at(PLAIN_LEN);
        let mut out = [0; VALUES_LEN];
        for (n, part) in parts.chunks_exact(PART_LEN).enumerate() {
            out[n * VALUE_LEN..][..VALUE_LEN].copy_from_slice(&value(n, part));
        }
        out[PARTS * VALUE_LEN..].copy_from_slice(tag);
        Self(out)
    }

    /// From [`VALUES_LEN`] bytes that a peer sent or a file holds. They mean nothing until [`Self::root`] is the blob's.
    pub const fn from_bytes(bytes: [u8; VALUES_LEN]) -> Self {
        Self(bytes)
    }

    /// The values, then the tag.
    pub const fn as_bytes(&self) -> &[u8; VALUES_LEN] {
        &self.0
    }

    /// The tag that the blob ends with.
    pub fn tag(&self) -> &[u8] {
        &self.0[PARTS * VALUE_LEN..]
    }

    /// The blob's name.
    pub fn root(&self) -> Root {
        let mut level: [[u8; VALUE_LEN]; PARTS] =
            core::array::from_fn(|n| core::array::from_fn(|i| self.0[n * VALUE_LEN + i]));
        let mut width = PARTS;
        while width > 1 {
            width /= 2;
            for n in 0..width {
                level[n] = merge_subtrees_non_root(&level[2 * n], &level[2 * n + 1], Mode::Hash);
            }
        }
        let tag =
            blake3::Hasher::new().set_input_offset(PLAIN_LEN as u64).update(self.tag()).finalize_non_root();
        Root(*merge_subtrees_root(&level[0], &tag, Mode::Hash).as_bytes())
    }

    /// Whether these are the bytes of a part. Bytes of another length are not, whoever sent them.
    pub fn check(&self, part: usize, sealed: &[u8]) -> bool {
        part < PARTS
            && sealed.len() == PART_LEN
            && self.0[part * VALUE_LEN..][..VALUE_LEN] == value(part, sealed)
    }
}

/// The chaining value of a part's [`PART_LEN`] bytes.
fn value(part: usize, sealed: &[u8]) -> [u8; VALUE_LEN] {
    blake3::Hasher::new().set_input_offset((part * PART_LEN) as u64).update(sealed).finalize_non_root()
}

/// Opens, or seals, what lies at `offset` of a native blob, in place: the two are the same. Nothing is checked.
pub fn crypt(key: &Secret, offset: usize, bytes: &mut [u8]) {
    let mut stream = ChaCha20::new(key.expose().into(), &NATIVE_NONCE.into());
    stream.seek(FIRST_BLOCK_LEN + offset as u64);
    stream.apply_keystream(bytes);
}

/// Makes a part again from its plaintext, filling included, in place. `false`: it is another plaintext than the one that was
/// sealed, or there is no such part, and `buf` is wiped, so that nothing wrong is sent, and no keystream covers two plaintexts.
pub fn reseal_part(key: &Secret, values: &Values, part: usize, buf: &mut [u8]) -> bool {
    let is_part = part < PARTS && buf.len() == PART_LEN;
    if is_part {
        crypt(key, part * PART_LEN, buf);
    }
    let is_right = is_part && values.check(part, buf);
    if !is_right {
        buf.zeroize();
    }
    is_right
}

/// Makes what of a part is filling, in place, and checks the whole part: `buf` is [`PART_LEN`] bytes, of which those that hold
/// content are there. `false`: the blob is not what a content of `content_len` bytes under this key gives, the
/// bytes that were there are wrong, or there is no such part.
pub fn complete_part(key: &Secret, values: &Values, content_len: usize, part: usize, buf: &mut [u8]) -> bool {
    if part >= PARTS || buf.len() != PART_LEN {
        return false;
    }
    let start = part * PART_LEN;
    let content = content_len.saturating_sub(start).min(buf.len());
    let filling = &mut buf[content..];
    blob::fill(key, start.saturating_sub(content_len), filling);
    crypt(key, start + content, filling);
    values.check(part, buf)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::blob;

    fn sealed(content: &[u8]) -> (Secret, Vec<u8>) {
        let mut buf = vec![0; BLOB_LEN];
        buf[..content.len()].copy_from_slice(content);
        let sealed = blob::seal(&Secret::new([7; 32]), &mut buf, content.len());
        (sealed.key, buf)
    }

    #[test]
    fn values_give_the_hash_of_the_blob_and_tell_each_part() {
        let (_, blob) = sealed(b"a short file");
        let values = Values::of(&blob);
        assert_eq!(values.root().0, *blake3::hash(&blob).as_bytes());
        for (n, part) in blob[..PLAIN_LEN].chunks(PART_LEN).enumerate() {
            assert!(values.check(n, part));
            assert!(!values.check((n + 1) % PARTS, part));
            let mut wrong = part.to_vec();
            wrong[PART_LEN - 1] ^= 1;
            assert!(!values.check(n, &wrong));
        }
    }

    #[test]
    fn bytes_and_parts_of_any_length_and_number_are_refused_and_never_asserted_on() {
        let (_, blob) = sealed(b"");
        let values = Values::of(&blob);
        for len in [0, 1, 1024, PART_LEN - 1, PART_LEN + 1] {
            assert!(!values.check(0, &blob[..len]));
        }
        assert!(!values.check(PARTS, &blob[..PART_LEN]) && !values.check(usize::MAX, &blob[..PART_LEN]));
        assert_ne!(Values::from_bytes([0; VALUES_LEN]).root(), values.root());
        let key = Secret::new([7; 32]);
        for (part, len) in [(PARTS, PART_LEN), (usize::MAX, PART_LEN), (0, PART_LEN + 1), (0, 0)] {
            let mut buf = vec![1; len];
            assert!(!complete_part(&key, &values, usize::MAX, part, &mut buf));
            assert!(!reseal_part(&key, &values, part, &mut buf) && buf.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn filling_is_made_and_what_is_not_so_is_noticed() {
        for len in [0, 1, 12, PART_LEN - 1, PART_LEN, PART_LEN + 5, PLAIN_LEN - 1, PLAIN_LEN] {
            let content: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
            let (key, blob) = sealed(&content);
            let values = Values::of(&blob);
            for part in 0..PARTS {
                let right = &blob[part * PART_LEN..][..PART_LEN];
                let here = len.saturating_sub(part * PART_LEN).min(PART_LEN);
                let mut buf = vec![0; PART_LEN];
                buf[..here].copy_from_slice(&right[..here]);
                assert!(complete_part(&key, &values, len, part, &mut buf) && buf == right, "{len} {part}");
                let is_at_end = (part * PART_LEN..(part + 1) * PART_LEN).contains(&(len + 1));
                assert!(!is_at_end || !complete_part(&key, &values, len + 1, part, &mut buf), "{len} {part}");
            }
        }
    }

    #[test]
    fn a_content_s_parts_are_of_few_classes() {
        let count = |len| needed(len, PART_LEN).len();
        assert_eq!(
            [0, 1, PART_LEN, PART_LEN + 1, 3 * PART_LEN, 9 * PART_LEN, PLAIN_LEN].map(count),
            [1, 1, 1, 2, 4, 16, 16]
        );
        assert_eq!(
            (Mask::first(3).iter().collect::<Vec<_>>(), Mask(0x8001).last()),
            (vec![0, 1, 2], Some(15))
        );
        assert!(Mask::one(16).is_empty() && !Mask::ALL.has(16) && Mask::ALL.covers(Mask(7)));
    }

    #[test]
    fn a_part_opens_alone_and_is_made_again_from_its_plaintext_only() {
        let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (key, blob) = sealed(&content);
        let values = Values::of(&blob);
        let mut part = blob[PART_LEN..2 * PART_LEN].to_vec();
        crypt(&key, PART_LEN, &mut part);
        assert_eq!(part, content[PART_LEN..2 * PART_LEN]);
        assert!(reseal_part(&key, &values, 1, &mut part) && part == blob[PART_LEN..2 * PART_LEN]);
        crypt(&key, PART_LEN, &mut part);
        part[0] ^= 1;
        assert!(!reseal_part(&key, &values, 1, &mut part) && part.iter().all(|byte| *byte == 0));
    }
}
