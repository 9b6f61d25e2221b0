//! Ownership of channels: Ed25519 keys, strictly verified, and v5's identity file (`docs/protocol.md` §1).

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::ParseError;
use crate::hex;
use crate::ids::Secret;

/// Separates the content secret from every other use of an identity's seed.
const CONTENT_SECRET_CONTEXT: &str = "megatorrent 2026-11 channel content secret";

/// A channel's public key: the canonical encoding of an Ed25519 point that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Checks the point. Each point has one accepted encoding, so that a channel has one name.
    ///
    /// # Errors
    /// [`ParseError::PublicKey`] where the bytes are no point, a point of small order or a non-canonical encoding.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, ParseError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| ParseError::PublicKey)?;
        let canonical = key.to_edwards().compress().to_bytes() == bytes;
        (canonical && !key.is_weak()).then_some(Self(bytes)).ok_or(ParseError::PublicKey)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`, by strict rules (`verify_strict`): no malleable and no
    /// small-order signature passes.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl FromStr for PublicKey {
    type Err = ParseError;

    /// From 64 hex digits.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::from_bytes(hex::decode_array(text).ok_or(ParseError::PublicKey)?)
    }
}

impl fmt::Display for PublicKey {
    /// 64 lowercase hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", hex::encode(&self.0[..4]))
    }
}

/// An author's secret half, with the read key of the author's private channel. Wiped when dropped.
pub struct Identity {
    signing: SigningKey,
    read_key: Option<Secret>,
}

/// The members of `identity.json`, borrowed from its text so that no unwiped copy is made.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "they are the file's names")]
struct IdentityFile<'a> {
    public_key: &'a str,
    secret_key: &'a str,
    read_key: Option<&'a str>,
}

impl Identity {
    /// From the Ed25519 seed (RFC 8032 §5.1.5) and, where there is one, the read key.
    pub fn new(seed: &Secret, read_key: Option<Secret>) -> Self {
        Self { signing: SigningKey::from_bytes(seed.expose()), read_key }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        // A clamped scalar times the base point has the group's order, so it is never of small order.
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// The read key, where the file has one (a v5 identity has none).
    pub fn read_key(&self) -> Option<&Secret> {
        self.read_key.as_ref()
    }

    /// The secret from which this channel's blobs get their keys (`docs/protocol.md` §1): BLAKE3's `derive_key`
    /// of the seed. Only the author has it; readers get the keys themselves.
    pub fn content_secret(&self) -> Secret {
        Secret::new(blake3::derive_key(CONTENT_SECRET_CONTEXT, self.signing.as_bytes()))
    }

    /// Signs `message` (RFC 8032 §5.1.6).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// `identity.json`'s text (spec v5), with `readKey` beside v5's members.
    pub fn to_json(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.signing.to_keypair_bytes());
        let secret = Zeroizing::new(hex::encode(pair.as_slice()));
        let public = self.public_key();
        Zeroizing::new(match &self.read_key {
            None => format!("{{\"publicKey\":\"{public}\",\"secretKey\":\"{}\"}}\n", *secret),
            Some(key) => {
                let read = Zeroizing::new(hex::encode(key.expose()));
                format!(
                    "{{\"publicKey\":\"{public}\",\"readKey\":\"{}\",\"secretKey\":\"{}\"}}\n",
                    *read, *secret
                )
            }
        })
    }

    /// From `identity.json`'s text. Members beyond the known three are ignored.
    ///
    /// # Errors
    /// [`ParseError::Identity`] names the member that is missing or wrong, never its value.
    pub fn from_json(text: &str) -> Result<Self, ParseError> {
        let file: IdentityFile<'_> = serde_json::from_str(text)
            .map_err(|_| ParseError::Identity("it is not JSON with the texts publicKey and secretKey"))?;
        let pair = hex::decode_array(file.secret_key).map(Zeroizing::new);
        let pair: Zeroizing<[u8; 64]> =
            pair.ok_or(ParseError::Identity("secretKey is not 128 hex digits"))?;
        let signing = SigningKey::from_keypair_bytes(&pair).map_err(|_| {
            ParseError::Identity("secretKey's second half is not the public key of its first half")
        })?;
        let read_key = file.read_key.map(Secret::from_hex).transpose();
        let read_key = read_key.map_err(|_| ParseError::Identity("readKey is not 64 hex digits"))?;
        let identity = Self { signing, read_key };
        if file.public_key.parse() != Ok(identity.public_key()) {
            return Err(ParseError::Identity("publicKey does not belong to secretKey"));
        }
        Ok(identity)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public_key())
    }
}
