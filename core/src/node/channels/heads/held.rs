//! A head as it is held: the signed document, and the BEP 44 item that carried it, if one did.

use alloc::vec::Vec;

use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::ids::Secret;
use crate::limits::SEQUENCE_STEP_MAX;
use crate::manifest::{Head, HeadError};
use crate::tree::Shape;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    /// The document is the item's value.
    Item(SignedItem),
    /// It came from elsewhere, and cannot be put on the DHT or pushed to v6 peers.
    Document(Vec<u8>),
}

/// A channel's signed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldHead {
    sequence: u64,
    carrier: Carrier,
}

impl HeldHead {
    /// The head that a properly signed item carries.
    pub(crate) fn of_item(item: SignedItem) -> Self {
        Self { sequence: item.seq.unsigned_abs(), carrier: Carrier::Item(item) }
    }

    /// The head that a document is, by its sequence.
    pub(crate) fn of_document(sequence: u64, document: Vec<u8>) -> Self {
        Self { sequence, carrier: Carrier::Document(document) }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn document(&self) -> &[u8] {
        match &self.carrier {
            Carrier::Item(item) => &item.value,
            Carrier::Document(document) => document,
        }
    }

    /// The item, for those that need its signature.
    pub(crate) fn item(&self) -> Option<&SignedItem> {
        match &self.carrier {
            Carrier::Item(item) => Some(item),
            Carrier::Document(_) => None,
        }
    }

    /// Whether the author signed another document of the same sequence.
    pub(crate) fn is_fork_of(&self, other: &Self) -> bool {
        self.sequence == other.sequence && self.document() != other.document()
    }

    /// Whether it is the same head as `other`, and carried by an item where that one is not.
    pub(crate) fn adds_item_to(&self, other: &Self) -> bool {
        self.item().is_some() && other.item().is_none() && self.document() == other.document()
    }

    /// Verifies it, and reads what it says; `known` is the highest sequence known of the channel.
    pub(crate) fn read(
        &self,
        shape: Shape,
        channel: &PublicKey,
        read_key: Option<&Secret>,
        known: u64,
    ) -> Result<Head, HeadError> {
        match &self.carrier {
            Carrier::Item(item) => Head::from_item_in(shape, item, read_key, known),
            Carrier::Document(_) if self.sequence > known.saturating_add(SEQUENCE_STEP_MAX) => {
                Err(HeadError::SequenceAhead)
            }
            Carrier::Document(document) => Head::from_json_in(shape, channel, read_key, document),
        }
    }
}
