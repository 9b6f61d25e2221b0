//! The layers, each in a file of its own: its cases, and its operations on core.

mod bep44;
mod blob;
mod body;
mod body_cbor;
mod content;
mod frame;
mod handshake;
mod head;
mod head_json;
mod identity;
mod message;
mod tree;
mod uri;
mod v6;

use megatorrent_core::error::{ParseError, Violation};
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use serde_json::{Value, json};

use crate::value::{Fault, Input, hex};
use crate::{Cases, Layer};

/// Every layer, from the bottom to the top.
pub const LAYERS: [Layer; 11] = [
    identity::LAYER,
    blob::LAYER,
    tree::LAYER,
    body::LAYER,
    head::LAYER,
    bep44::LAYER,
    uri::LAYER,
    handshake::LAYER,
    frame::LAYER,
    message::LAYER,
    v6::LAYER,
];

/// The class of a peer's violation.
fn violation(violation: Violation) -> Fault {
    Fault::Reject(match violation {
        Violation::LowOrderKey => "low-order-key",
        Violation::FrameShort => "frame-short",
        Violation::FrameLong => "frame-long",
        Violation::Tag => "tag",
        Violation::Malformed => "malformed",
        Violation::Version => "version",
        other => return Fault::BadVector(format!("{other:?} has no class")),
    })
}

/// The class of a text that is not what it should be.
fn parse_error(error: ParseError) -> Fault {
    Fault::Reject(match error {
        ParseError::BlobId => "blob-id",
        ParseError::Secret => "secret",
        ParseError::PublicKey => "public-key",
        ParseError::PeerAddr => "peer-addr",
        ParseError::Uri(_) => "uri",
        ParseError::Identity(_) => "identity",
        ParseError::Path(_) => "path",
    })
}

/// The member `name` as a secret.
fn secret(input: Input<'_>, name: &str) -> Result<Secret, Fault> {
    input.array(name).map(Secret::new)
}

/// The member `name` as a public key that core accepts.
fn public_key(input: Input<'_>, name: &str) -> Result<PublicKey, Fault> {
    PublicKey::from_bytes(input.array(name)?).map_err(parse_error)
}

/// The identity of the seed in member `seed`.
fn identity_of(input: Input<'_>) -> Result<Identity, Fault> {
    Ok(Identity::new(&secret(input, "seed")?, None))
}

/// The seed of the channel that most vectors use: bytes 0 to 31.
fn seed() -> Value {
    let bytes: Vec<u8> = (0..32).collect();
    hex(&bytes).into()
}

/// Its identity.
fn author() -> Identity {
    Identity::new(&Secret::new(core::array::from_fn(|i| u8::try_from(i).expect("below 32"))), None)
}

/// Its public key.
fn channel() -> Value {
    author().public_key().to_string().into()
}

/// A long byte string that repeats `pattern` (hex).
fn repeat(pattern: &str, length: usize) -> Value {
    json!({ "repeat": pattern, "length": length })
}
