//! The suite: the length of blobs and the way bytes are sealed, as a type parameter of a node. It has two independent
//! parts: the [`BlobFormat`] and the [`Ciphers`] of connections.
//!
//! [`RealSuite`] is the protocol's and the default everywhere, so a driver of real sockets names none: it takes a
//! [`crate::node::Node`] over the real suite, and no value or flag turns that into another one. A simulator brings a suite
//! of small blobs and cheap checksums for thousands of nodes; its nodes are of another type.

use crate::blob::{self, BlobRef, TAG_LEN};
use crate::error::Violation;
use crate::ids::{BlobId, BlobName, Root, Secret};
use crate::parts::{self, PARTS, Values};
use crate::rng::Rng;
use crate::transport::{Ciphers, Handshake, KEY_LEN, Opener, Role, Sealer, Session};
use crate::tree::Shape;

/// A blob format and the ciphers of connections.
pub trait Suite: BlobFormat + Ciphers {}

impl<S: BlobFormat + Ciphers> Suite for S {}

/// The length, sealing and naming of blobs and their parts. Keys, roots, ids, values and tags have the protocol's lengths in every
/// format.
pub trait BlobFormat: 'static {
    /// Bytes of plaintext in a blob; [`Shape::new`] says which lengths are possible.
    const PLAIN_LEN: usize;
    /// Bytes of a blob.
    const BLOB_LEN: usize = Self::PLAIN_LEN + TAG_LEN;
    /// The shape of trees of such blobs.
    const SHAPE: Shape = Shape::new(Self::PLAIN_LEN);

    /// As [`blob::seal`].
    fn seal_blob(secret: &Secret, buf: &mut [u8], len: usize) -> BlobRef;
    /// As [`blob::open`].
    fn open_blob(at: &BlobRef, buf: &mut [u8]) -> bool;
    /// Bytes of a part.
    const PART_LEN: usize = Self::PLAIN_LEN / PARTS;

    /// As [`blob::verify`].
    fn verify_blob(name: &BlobName, blob: &[u8]) -> bool;
    /// As [`blob::id`].
    fn id_of(blob: &[u8]) -> BlobId;
    /// As [`Values::of`].
    fn values_of(blob: &[u8]) -> Values;
    /// As [`Values::root`].
    fn root_of(values: &Values) -> Root;
    /// As [`Values::check`].
    fn check_part(values: &Values, part: usize, sealed: &[u8]) -> bool;
    /// As [`parts::complete_part`].
    fn complete_part(key: &Secret, values: &Values, content_len: usize, part: usize, buf: &mut [u8]) -> bool;
}

/// The protocol's suite: blobs of 2^20 bytes with ChaCha20-Poly1305, BLAKE3 and SHA-256, connections with X25519 and
/// ChaCha20-Poly1305.
#[derive(Debug)]
pub enum RealSuite {}

impl BlobFormat for RealSuite {
    const PLAIN_LEN: usize = blob::PLAIN_LEN;

    fn seal_blob(secret: &Secret, buf: &mut [u8], len: usize) -> BlobRef {
        blob::seal(secret, buf, len)
    }

    fn open_blob(at: &BlobRef, buf: &mut [u8]) -> bool {
        blob::open(at, buf)
    }

    fn verify_blob(name: &BlobName, blob: &[u8]) -> bool {
        blob::verify(name, blob)
    }

    fn id_of(blob: &[u8]) -> BlobId {
        blob::id(blob)
    }

    fn values_of(blob: &[u8]) -> Values {
        Values::of(blob)
    }

    fn root_of(values: &Values) -> Root {
        values.root()
    }

    fn check_part(values: &Values, part: usize, sealed: &[u8]) -> bool {
        values.check(part, sealed)
    }

    fn complete_part(key: &Secret, values: &Values, content_len: usize, part: usize, buf: &mut [u8]) -> bool {
        parts::complete_part(key, values, content_len, part, buf)
    }
}

impl Ciphers for RealSuite {
    type Handshake = Handshake;
    type Sealer = Sealer;
    type Opener = Opener;

    fn handshake(role: Role, rng: &mut Rng) -> Handshake {
        Handshake::new(role, rng)
    }

    fn public_key(handshake: &Handshake) -> [u8; KEY_LEN] {
        handshake.public_key()
    }

    fn finish(handshake: Handshake, their_public: [u8; KEY_LEN]) -> Result<Session, Violation> {
        handshake.finish(their_public)
    }
}
