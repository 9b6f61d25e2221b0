//! Blobs: 2^20 bytes sealed with ChaCha20-Poly1305 (`docs/protocol.md` §2). A native blob is named by its root, the BLAKE3 hash
//! of the result, a v5 blob by its id, the SHA-256.
//!
//! All sealing and opening is in place: no copy and no allocation of a blob's size. The functions are meant for
//! worker threads too: they take `Send` values only and know nothing of a node.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::ids::{BlobId, BlobName, Root, Secret};
use crate::parts::Values;
use crate::rng::Rng;

/// Bytes of plaintext in a blob.
pub const PLAIN_LEN: usize = 1 << 20;
/// Bytes of the tag at a blob's end.
pub const TAG_LEN: usize = 16;
/// Bytes of a blob: the plaintext and its tag.
pub const BLOB_LEN: usize = PLAIN_LEN + TAG_LEN;
/// Bytes of a ChaCha20-Poly1305 nonce (RFC 8439 §2.8).
pub const NONCE_LEN: usize = 12;

/// A native blob's key seals that blob only, so one nonce serves all.
pub(crate) const NATIVE_NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];
/// The nonce of the keystream that fills what the content leaves of a native blob. It differs from
/// [`NATIVE_NONCE`]: the seal would add the same keystream to the filling again and so uncover where it stands, and
/// that stream's first block is the seal's Poly1305 key.
const FILL_NONCE: [u8; NONCE_LEN] = [0xff; NONCE_LEN];

/// Where a native blob is and how to open it: 64 bytes (`docs/protocol.md` §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// The blob's name.
    pub root: Root,
    /// The blob's key; its nonce is zero.
    pub key: Secret,
}

/// Bytes of a [`BlobRef`].
pub const BLOB_REF_LEN: usize = 64;

impl BlobRef {
    /// Root, then key. The result holds the key: wipe it after use.
    pub fn to_bytes(&self) -> Zeroizing<[u8; BLOB_REF_LEN]> {
        let mut out = Zeroizing::new([0; BLOB_REF_LEN]);
        out[..32].copy_from_slice(&self.root.0);
        out[32..].copy_from_slice(self.key.expose());
        out
    }

    /// Root, then key.
    pub fn from_bytes(bytes: &[u8; BLOB_REF_LEN]) -> Self {
        let (root, key) = (core::array::from_fn(|i| bytes[i]), core::array::from_fn(|i| bytes[32 + i]));
        Self { root: Root(root), key: Secret::new(key) }
    }
}

/// Native sealing, in place: `buf[..len]` holds the content; afterwards `buf` holds the sealed blob.
/// The key is BLAKE3's keyed hash of the content under `secret`, so equal content under one secret gives one blob.
///
/// # Panics
/// Where `buf` is not [`BLOB_LEN`] bytes long, or `len` is above [`PLAIN_LEN`].
pub fn seal(secret: &Secret, buf: &mut [u8], len: usize) -> BlobRef {
    seal_valued(secret, buf, len).0
}

/// [`seal`], and the blob's values, which cost nothing beside its root.
///
/// # Panics
/// As [`seal`] does.
pub fn seal_valued(secret: &Secret, buf: &mut [u8], len: usize) -> (BlobRef, Values) {
    let key = Secret::new(*blake3::keyed_hash(secret.expose(), &buf[..len]).as_bytes());
    seal_bytes(&key, buf, len);
    let values = Values::of(buf);
    (BlobRef { root: values.root(), key }, values)
}

/// Native sealing under a known key: reproduces a blob from its content. The result is the blob's root, which is the
/// one that [`seal`] gave exactly where the content is the same.
///
/// # Panics
/// Where `buf` is not [`BLOB_LEN`] bytes long, or `len` is above [`PLAIN_LEN`].
pub fn seal_with_key(key: &Secret, buf: &mut [u8], len: usize) -> Root {
    seal_bytes(key, buf, len);
    Root(*blake3::hash(buf).as_bytes())
}

/// [`seal_with_key`], and the blob's values, whose root it is.
///
/// # Panics
/// As [`seal_with_key`] does.
pub fn seal_valued_with_key(key: &Secret, buf: &mut [u8], len: usize) -> Values {
    seal_bytes(key, buf, len);
    Values::of(buf)
}

fn seal_bytes(key: &Secret, buf: &mut [u8], len: usize) {
    assert!(buf.len() == BLOB_LEN, "a blob has one length");
    fill(key, 0, &mut buf[..PLAIN_LEN][len..]);
    seal_piece(key, &NATIVE_NONCE, buf);
}

/// Writes filling: what stands `offset` bytes behind the end of a native blob's content, before the seal.
pub(crate) fn fill(key: &Secret, offset: usize, filling: &mut [u8]) {
    if !filling.is_empty() {
        filling.fill(0);
        let mut stream = ChaCha20::new(key.expose().into(), &FILL_NONCE.into());
        stream.seek(offset as u64);
        stream.apply_keystream(filling);
    }
}

/// v5's sealing, in place: as [`seal`], under a key and nonce that the caller drew, with random filling.
///
/// # Panics
/// Where `buf` is not [`BLOB_LEN`] bytes long, or `len` is above [`PLAIN_LEN`].
pub fn seal_v5(
    key: &Secret,
    nonce: &[u8; NONCE_LEN],
    padding: &mut Rng,
    buf: &mut [u8],
    len: usize,
) -> BlobId {
    assert!(buf.len() == BLOB_LEN, "a blob has one length");
    padding.fill(&mut buf[..PLAIN_LEN][len..]);
    seal_piece(key, nonce, buf);
    id(buf)
}

/// The SHA-256 of a sealed blob: a v5 blob's name, and what v5 peers call a native one. Meant for a worker thread.
pub fn id(blob: &[u8]) -> BlobId {
    BlobId(Sha256::digest(blob).into())
}

/// Opens a native blob in place: the plaintext is `buf[..PLAIN_LEN]`. `false` (the buffer is as it was): it is not
/// [`BLOB_LEN`] bytes long, or the tag does not match.
pub fn open(blob: &BlobRef, buf: &mut [u8]) -> bool {
    buf.len() == BLOB_LEN && open_piece(&blob.key, &NATIVE_NONCE, buf)
}

/// Whether the bytes are those of the blob with this name. Meant for a worker thread.
pub fn verify(name: &BlobName, blob: &[u8]) -> bool {
    let hash = match name {
        BlobName::Native(_) => *blake3::hash(blob).as_bytes(),
        BlobName::V5(_) => id(blob).0,
    };
    hash.ct_eq(name.as_bytes()).into()
}

/// Opens in place what was sealed on its own, the tag at its end. `false` (the piece is as it was): shorter than a
/// tag, or the tag does not match.
pub(crate) fn open_piece(key: &Secret, nonce: &[u8; NONCE_LEN], piece: &mut [u8]) -> bool {
    let Some((sealed, tag)) = piece.split_last_chunk_mut::<TAG_LEN>() else { return false };
    cipher(key).decrypt_inout_detached(&(*nonce).into(), b"", sealed.into(), &Tag::from(*tag)).is_ok()
}

/// Seals in place, the last [`TAG_LEN`] bytes of `piece` taking the tag.
///
/// # Panics
/// Where `piece` is shorter than a tag.
pub(crate) fn seal_piece(key: &Secret, nonce: &[u8; NONCE_LEN], piece: &mut [u8]) {
    let (plain, tag) = piece.split_last_chunk_mut::<TAG_LEN>().expect("the caller left room for the tag");
    let sealed = cipher(key).encrypt_inout_detached(&(*nonce).into(), b"", plain.into());
    *tag = sealed.expect("a piece is far shorter than ChaCha20's 256 GiB").into();
}

fn cipher(key: &Secret) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.expose().into())
}
