//! The anonymous X25519 exchange, which keys ChaCha20-Poly1305 in both directions (`docs/protocol.md` §8).

use blake2::Blake2b;
use blake2::digest::{Digest, consts::U32};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{Open, Role, Seal};
use crate::error::Violation;
use crate::ids::{Secret, SessionId};
use crate::rng::Rng;
use crate::wire::{KEY_LEN, TAG_LEN};

/// Our half of the key exchange, before the peer's key is known.
pub struct Handshake {
    secret: StaticSecret,
    role: Role,
}

impl Handshake {
    /// Makes a fresh ephemeral key.
    pub fn new(role: Role, rng: &mut Rng) -> Self {
        Self::from_secret(role, rng.bytes_32())
    }

    /// Takes a given ephemeral key, for test vectors.
    pub fn from_secret(role: Role, secret: [u8; 32]) -> Self {
        Self { secret: StaticSecret::from(secret), role }
    }

    /// The 32 bytes to send at once, without waiting for the peer's.
    pub fn public_key(&self) -> [u8; KEY_LEN] {
        PublicKey::from(&self.secret).to_bytes()
    }

    /// Derives both directions' keys from the peer's 32 bytes.
    ///
    /// # Errors
    /// [`Violation::LowOrderKey`] where the shared secret does not depend on our key.
    pub fn finish(self, their_public: [u8; KEY_LEN]) -> Result<Session, Violation> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(their_public));
        if !shared.was_contributory() {
            return Err(Violation::LowOrderKey);
        }
        let client = derive(shared.as_bytes(), b'C');
        let server = derive(shared.as_bytes(), b'S');
        let (ours, theirs) = match self.role {
            Role::Dialler => (client, server),
            Role::Listener => (server, client),
        };
        Ok(Session {
            sealer: Sealer(Direction::new(&ours)),
            opener: Opener(Direction::new(&theirs)),
            tag_key: Secret::new(*derive(shared.as_bytes(), b'T')),
            session_id: SessionId(*derive(shared.as_bytes(), b'I')),
        })
    }
}

/// What both ends of a keyed connection derive.
pub struct Session<S = Sealer, O = Opener> {
    /// For what we send.
    pub sealer: S,
    /// For what we receive.
    pub opener: O,
    /// For naming channels to this peer ([`crate::uri::tag`]); both ends have the same.
    pub tag_key: Secret,
    /// Names the connection; both ends have the same.
    pub session_id: SessionId,
}

/// `BLAKE2b-256(shared ‖ label)`.
fn derive(shared: &[u8; 32], label: u8) -> Zeroizing<[u8; 32]> {
    let mut hash = Blake2b::<U32>::new();
    hash.update(shared);
    hash.update([label]);
    Zeroizing::new(hash.finalize().into())
}

/// One direction's cipher and its count of frames, which is the nonce.
struct Direction {
    cipher: ChaCha20Poly1305,
    frames: u64,
}

impl Direction {
    fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.into()), frames: 0 }
    }

    /// The 96-bit little-endian counter. A u64 cannot wrap: at a frame each nanosecond it lasts 584 years.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.frames.to_le_bytes());
        self.frames += 1;
        nonce.into()
    }
}

/// Seals what we send, in order.
pub struct Sealer(Direction);

impl Seal for Sealer {
    fn seal(&mut self, plaintext: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = self.0.next_nonce();
        let tag = self.0.cipher.encrypt_inout_detached(&nonce, &[], plaintext.into());
        tag.expect("a frame is far below the cipher's 256 GiB").into()
    }
}

/// Opens what we receive, in order.
pub struct Opener(Direction);

impl Open for Opener {
    fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Violation> {
        let text_len = sealed.len().checked_sub(TAG_LEN).ok_or(Violation::FrameShort)?;
        let (text, tag) = sealed.split_at_mut(text_len);
        let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| Violation::FrameShort)?;
        let nonce = self.0.next_nonce();
        let opened = self.0.cipher.decrypt_inout_detached(&nonce, &[], (&mut *text).into(), &tag.into());
        opened.map(|()| text).map_err(|_| Violation::Tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> ((Sealer, Opener), (Sealer, Opener)) {
        let dialler = Handshake::from_secret(Role::Dialler, [1; 32]);
        let listener = Handshake::from_secret(Role::Listener, [2; 32]);
        let (to_listener, to_dialler) = (dialler.public_key(), listener.public_key());
        let dialler = dialler.finish(to_dialler).expect("an honest key");
        let listener = listener.finish(to_listener).expect("an honest key");
        assert!(dialler.tag_key == listener.tag_key && dialler.session_id == listener.session_id);
        assert!(dialler.session_id.0 != *dialler.tag_key.expose(), "each has its own label");
        ((dialler.sealer, dialler.opener), (listener.sealer, listener.opener))
    }

    #[test]
    fn each_end_opens_what_the_other_sealed_in_order() {
        let ((mut seal, _), (mut answer, mut open)) = pair();
        for text in [&b"one"[..], b"", b"three"] {
            let mut frame = text.to_vec();
            let tag = seal.seal(&mut frame);
            frame.extend(tag);
            assert_eq!(open.open(&mut frame).as_deref(), Ok(text));
        }
        let mut reflected = b"x".to_vec();
        let tag = answer.seal(&mut reflected);
        reflected.extend(tag);
        assert_eq!(open.open(&mut reflected), Err(Violation::Tag), "directions have different keys");
    }

    #[test]
    fn a_flipped_bit_or_a_replayed_frame_does_not_open() {
        let ((mut seal, _), (_, mut open)) = pair();
        let mut frame = b"text".to_vec();
        let tag = seal.seal(&mut frame);
        frame.extend(tag);
        let mut flipped = frame.clone();
        flipped[1] ^= 1;
        assert_eq!(open.open(&mut flipped), Err(Violation::Tag));
        assert_eq!(open.open(&mut frame), Err(Violation::Tag), "its nonce has passed");
        assert_eq!(open.open(&mut [0; 15]), Err(Violation::FrameShort));
    }

    #[test]
    fn low_order_keys_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for low in [[0; 32], one] {
            let result = Handshake::from_secret(Role::Listener, [2; 32]).finish(low);
            assert_eq!(result.map(|_| ()), Err(Violation::LowOrderKey));
        }
    }
}
