//! The v5 transport: an anonymous X25519 exchange, then frames sealed with ChaCha20-Poly1305 in both directions
//! (`docs/protocol.md` §8–9).
//!
//! It keeps a stream's content from eavesdroppers and authenticates nobody. [`Link`] is one end of such a stream, made of
//! the rest of this module.

pub mod frame;
mod handshake;
mod link;

pub use handshake::{Handshake, Opener, Sealer, Session};
pub use link::{Link, Received};

use crate::error::Violation;
use crate::rng::Rng;
pub use crate::wire::KEY_LEN;
use crate::wire::TAG_LEN;

/// Which end of the stream we are; the two directions have different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We opened the stream.
    Dialler,
    /// The peer opened the stream.
    Listener,
}

/// How a connection's bytes are sealed. Keys and tags have the protocol's lengths, whatever the ciphers.
pub trait Ciphers: Sized + 'static {
    /// Our half of a connection's key exchange.
    type Handshake;
    /// Seals a connection's frames.
    type Sealer: Seal;
    /// Opens a connection's frames.
    type Opener: Open;

    /// Makes a fresh half of a key exchange.
    fn handshake(role: Role, rng: &mut Rng) -> Self::Handshake;
    /// Returns the bytes to send at once.
    fn public_key(handshake: &Self::Handshake) -> [u8; KEY_LEN];
    /// Derives both directions' keys from the peer's bytes.
    ///
    /// # Errors
    /// [`Violation::LowOrderKey`] where the peer's bytes are no key.
    fn finish(
        handshake: Self::Handshake,
        their_public: [u8; KEY_LEN],
    ) -> Result<Session<Self::Sealer, Self::Opener>, Violation>;
}

/// Seals what we send, in order.
pub trait Seal {
    /// Seals `plaintext` in place and returns the tag that follows it.
    fn seal(&mut self, plaintext: &mut [u8]) -> [u8; TAG_LEN];
}

/// Opens what we receive, in order.
pub trait Open {
    /// Opens `sealed` (ciphertext, then tag) in place; returns the plaintext, its front part.
    ///
    /// # Errors
    /// [`Violation::Tag`]; the buffer's content is then undefined and the connection is over.
    fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Violation>;
}
