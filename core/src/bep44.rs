//! BEP 44 mutable items: the signed tuple in which a head travels (`docs/protocol.md` §6).

use alloc::format;
use alloc::vec::Vec;

use crate::identity::{Identity, PublicKey};
use crate::limits::ITEM_VALUE_LEN_MAX;

/// A signed mutable item without a salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedItem {
    /// `k`.
    pub key: PublicKey,
    /// `seq`, never negative.
    pub seq: i64,
    /// The raw bytes of `v`, without their bencoding, at most [`ITEM_VALUE_LEN_MAX`].
    pub value: Vec<u8>,
    /// `sig`.
    pub signature: [u8; 64],
}

impl SignedItem {
    /// Signs `value` under `seq`; `None` where the value is too long or `seq` is negative.
    pub fn sign(identity: &Identity, seq: i64, value: Vec<u8>) -> Option<Self> {
        let signature = identity.sign(&signable(seq, &value));
        let item = Self { key: identity.public_key(), seq, value, signature };
        item.is_within_limits().then_some(item)
    }

    /// Whether the signature is good, the value short enough and `seq` not negative.
    pub fn verify(&self) -> bool {
        self.is_within_limits() && self.key.verifies(&signable(self.seq, &self.value), &self.signature)
    }

    fn is_within_limits(&self) -> bool {
        self.seq >= 0 && self.value.len() <= ITEM_VALUE_LEN_MAX
    }
}

/// The bytes that are signed: `3:seqi<seq>e1:v<len>:<value>` (BEP 44, without a salt).
pub fn signable(seq: i64, value: &[u8]) -> Vec<u8> {
    let mut out = format!("3:seqi{seq}e1:v{}:", value.len()).into_bytes();
    out.extend_from_slice(value);
    out
}
