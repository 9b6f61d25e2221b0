//! Parts: the sixteenths of a blob, each checked, opened and sealed alone (`docs/protocol.md` §2).
//!
//! BLAKE3 hashes a tree, and a subtree of 2^16 bytes has a *chaining value* of its own. The sixteen values of a blob and its tag give the
//! root, the BLAKE3 hash of the blob. So whoever has the values tells right bytes from wrong ones 64 KiB at a time.
//!
//! The functions are plain: a runtime calls them on worker threads.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::Zeroize;

use crate::blob::{BLOB_LEN, NATIVE_NONCE, PLAIN_LEN, TAG_LEN};
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

/// What a blob's parts are checked by: their chaining values in order, then the blob's tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Values([u8; VALUES_LEN]);

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
/// sealed, and `buf` is wiped, so that nothing wrong is sent, and no keystream covers two plaintexts.
pub fn reseal_part(key: &Secret, values: &Values, part: usize, buf: &mut [u8]) -> bool {
    crypt(key, part * PART_LEN, buf);
    let is_right = values.check(part, buf);
    if !is_right {
        buf.zeroize();
    }
    is_right
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
