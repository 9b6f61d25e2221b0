//! The layers, each in its own file: its cases, and its operations on core.

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
mod page_cbor;
mod positions;
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

/// The class of a text that does not parse.
fn parse_error(error: ParseError) -> Fault {
    Fault::Reject(match error {
        ParseError::BlobId => "blob-id",
        ParseError::Secret => "secret",
        ParseError::PublicKey => "public-key",
        ParseError::PeerAddr => "peer-addr",
        ParseError::OnionName => "onion-name",
        ParseError::OnionVersion => "onion-version",
        ParseError::OnionChecksum => "onion-checksum",
        ParseError::I2pName => "i2p-name",
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

/// Hosts of onion services and of an I2P destination, by what is wrong with them.
mod hosts {
    /// Examples of Tor's rend-spec-v3 §6.
    pub(super) const ONIONS: [&str; 2] = [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
    ];
    /// One bit of the first one's checksum differs.
    pub(super) const ONION_CHECKSUM: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4psaryd.onion";
    /// One bit of the first one's key differs.
    pub(super) const ONION_KEY: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4oscryd.onion";
    /// The first one's key with version 2, and the checksum that this gives.
    pub(super) const ONION_VERSION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4p2jxyc.onion";
    pub(super) const I2P: &str = "63f74lf67h3f4xxfurypz5xyes3in3ybpt5krrkojnak3ljbud3q.b32.i2p";
    /// The same hash in another text: of the last character's four bits too many, one is set.
    pub(super) const I2P_TRAILING_BITS: &str = "63f74lf67h3f4xxfurypz5xyes3in3ybpt5krrkojnak3ljbud3r.b32.i2p";
}

/// A long byte string that repeats `pattern` (hex).
fn repeat(pattern: &str, length: usize) -> Value {
    json!({ "repeat": pattern, "length": length })
}
