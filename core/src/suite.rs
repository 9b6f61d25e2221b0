//! The suite: how long a blob is and how bytes are sealed, as a type parameter of a node.
//!
//! [`RealSuite`] is the protocol's own and the default everywhere, so a driver of real sockets names none: what it
//! takes is a [`crate::node::Node`] over the real suite, and no value or flag turns it into another one. A simulator
//! brings a suite of small blobs and cheap checksums for thousands of nodes; its nodes are of another type.

use crate::blob::{self, Link, TAG_LEN};
use crate::error::Violation;
use crate::ids::{BlobId, Secret};
use crate::rng::Rng;
use crate::transport::{Handshake, KEY_LEN, Opener, Role, Sealer, Session};
use crate::tree::Shape;
use crate::wire;

/// How long a blob is and how bytes are sealed. Lengths of keys, ids and tags are the protocol's in every suite.
pub trait Suite: Sized + 'static {
    /// Bytes of plaintext in a blob; see [`Shape::new`] for what is possible.
    const PLAIN_LEN: usize;
    /// Bytes of a blob.
    const BLOB_LEN: usize = Self::PLAIN_LEN + TAG_LEN;
    /// The shape of trees of such blobs.
    const SHAPE: Shape = Shape::new(Self::PLAIN_LEN);

    /// Our half of a connection's key exchange.
    type Handshake;
    /// Seals a connection's frames.
    type Sealer: Seal;
    /// Opens a connection's frames.
    type Opener: Open;

    /// A fresh half of a key exchange.
    fn handshake(role: Role, rng: &mut Rng) -> Self::Handshake;
    /// The bytes to send at once.
    fn public_key(handshake: &Self::Handshake) -> [u8; KEY_LEN];
    /// Derives both directions' keys from the peer's bytes.
    ///
    /// # Errors
    /// [`Violation::LowOrderKey`] where the peer's bytes are no key.
    fn finish(
        handshake: Self::Handshake,
        their_public: [u8; KEY_LEN],
    ) -> Result<Session<Self::Sealer, Self::Opener>, Violation>;

    /// As [`blob::seal`].
    fn seal_blob(secret: &Secret, buf: &mut [u8], len: usize) -> Link;
    /// As [`blob::open`].
    fn open_blob(link: &Link, buf: &mut [u8]) -> bool;
    /// As [`blob::verify`].
    fn verify_blob(id: &BlobId, blob: &[u8]) -> bool;
}

/// Seals what we send, in order.
pub trait Seal {
    /// Seals `plaintext` in place and returns the tag that follows it.
    fn seal(&mut self, plaintext: &mut [u8]) -> [u8; wire::TAG_LEN];
}

/// Opens what we receive, in order.
pub trait Open {
    /// Opens `sealed` (ciphertext, then tag) in place; returns the plaintext, its front part.
    ///
    /// # Errors
    /// [`Violation::Tag`]; the buffer's content is then undefined and the connection is over.
    fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Violation>;
}

/// The protocol's suite: X25519, ChaCha20-Poly1305, SHA-256, blobs of 2^20 bytes.
#[derive(Debug)]
pub enum RealSuite {}

impl Suite for RealSuite {
    const PLAIN_LEN: usize = blob::PLAIN_LEN;

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

    fn seal_blob(secret: &Secret, buf: &mut [u8], len: usize) -> Link {
        blob::seal(secret, buf, len)
    }

    fn open_blob(link: &Link, buf: &mut [u8]) -> bool {
        blob::open(link, buf)
    }

    fn verify_blob(id: &BlobId, blob: &[u8]) -> bool {
        blob::verify(id, blob)
    }
}

impl Seal for Sealer {
    fn seal(&mut self, plaintext: &mut [u8]) -> [u8; wire::TAG_LEN] {
        Self::seal(self, plaintext)
    }
}

impl Open for Opener {
    fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Violation> {
        Self::open(self, sealed)
    }
}
