//! Identifiers: parsed once at the edge, so that nothing inside handles strings.

use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::ParseError;
use crate::hex;

/// Orders ids as their bytes. They are looked up in tables for each part that moves, and two of them nearly always differ within
/// the first eight bytes, which are compared as a number.
macro_rules! ordered_by_bytes {
    ($id:ident) => {
        impl Ord for $id {
            fn cmp(&self, other: &Self) -> Ordering {
                let front = |bytes: &[u8; 32]| bytes.first_chunk().copied().map(u64::from_be_bytes);
                front(&self.0).cmp(&front(&other.0)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $id {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}

/// The SHA-256 of a blob's 1 048 592 bytes: a v5 blob's name, and of a native one what v5 peers ask for it by
/// (`docs/protocol.md` §2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobId(pub [u8; 32]);

ordered_by_bytes!(BlobId);

impl BlobId {
    /// The info-hash under which v5 peers announce this blob: the first 20 bytes of the id.
    pub fn info_hash(&self) -> InfoHash {
        InfoHash(first_20(&self.0))
    }

    /// 64 lowercase hex digits.
    pub fn to_hex(&self) -> String {
        hex::encode(&self.0)
    }
}

impl FromStr for BlobId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        hex::decode_array(text).map(Self).ok_or(ParseError::BlobId)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({}…)", hex::encode(&self.0[..4]))
    }
}

/// The name of a native blob: BLAKE3 of its 1 048 592 sealed bytes (`docs/protocol.md` §2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root(pub [u8; 32]);

ordered_by_bytes!(Root);

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({}…)", hex::encode(&self.0[..4]))
    }
}

/// What a blob is named by, which is what it is checked by (`docs/protocol.md` §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobName {
    /// A native blob or a pack, by its root.
    Native(Root),
    /// A v5 blob, by its id.
    V5(BlobId),
}

impl BlobName {
    /// The 32 bytes of the root or id.
    pub fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Native(Root(bytes)) | Self::V5(BlobId(bytes)) => bytes,
        }
    }

    /// The root of a native blob.
    pub fn root(&self) -> Option<Root> {
        match self {
            Self::Native(root) => Some(*root),
            Self::V5(_) => None,
        }
    }
}

impl From<Root> for BlobName {
    fn from(root: Root) -> Self {
        Self::Native(root)
    }
}

impl From<BlobId> for BlobName {
    fn from(id: BlobId) -> Self {
        Self::V5(id)
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(root) => root.fmt(f),
            Self::V5(id) => id.fmt(f),
        }
    }
}

/// A BEP 5 info-hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InfoHash({}…)", hex::encode(&self.0[..4]))
    }
}

/// The name under which a channel's swarm meets (`docs/protocol.md` §7); its first 20 bytes are the info-hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic(pub [u8; 32]);

ordered_by_bytes!(Topic);

impl Topic {
    /// The info-hash on which the channel's peers announce themselves.
    pub fn info_hash(&self) -> InfoHash {
        InfoHash(first_20(&self.0))
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({}…)", hex::encode(&self.0[..4]))
    }
}

fn first_20(bytes: &[u8; 32]) -> [u8; 20] {
    core::array::from_fn(|i| bytes[i])
}

/// 32 secret bytes: wiped when dropped, compared in constant time, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes over `bytes`.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a cipher or a key file.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 64 hex digits.
    ///
    /// # Errors
    /// [`ParseError::Secret`], which does not repeat the text.
    pub fn from_hex(text: &str) -> Result<Self, ParseError> {
        hex::decode_array(text).map(Self).ok_or(ParseError::Secret)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Names a keyed connection (`docs/protocol.md` §8). Both of its ends derive the same id, which no other connection has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 32]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", hex::encode(&self.0[..4]))
    }
}

/// A connection: a slot and the slot's generation, so that a late call on a closed connection changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index in the node's connection table.
    pub slot: u32,
    /// How many connections held the slot before.
    pub generation: u32,
}

/// A job handed to the driver; each id gets exactly one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// A command's number, which the caller chooses; each command gets exactly one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);
