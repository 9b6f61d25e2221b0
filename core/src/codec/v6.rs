//! The messages beyond v5, except PIECE: CBOR maps with small integer keys (`docs/protocol.md` §12). Unknown keys are
//! ignored; the frame bounds arrays and texts.

use alloc::vec;
use alloc::vec::Vec;

use ciborium::Value;

use super::{Message, kind};
use crate::bep44::SignedItem;
use crate::blob::BLOB_LEN;
use crate::error::Violation;
use crate::identity::PublicKey;
use crate::ids::{BlobId, BlobName, Root};
use crate::limits::{CBOR_DEPTH_MAX, HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX, WATCH_TAGS_MAX};

/// A channel's name between two peers: BLAKE2b-128 of its topic, keyed with a secret of their connection, so that
/// only a peer that knows the topic recognises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub [u8; 16]);

/// Which blobs of a channel's version a peer has, by their positions (`docs/protocol.md` §12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Have {
    /// Every one.
    All,
    /// A bit for each position, the first byte's highest bit for position 0; positions beyond the end are missing.
    Bitmap(Vec<u8>),
    /// The blobs at these positions.
    Positions(Vec<u32>),
}

/// The channel's tag, or the number of a range.
const TAG: u64 = 1;
/// The known sequence, the item's public key, the blob id, or where a cancelled part begins.
const SECOND: u64 = 2;
const THIRD: u64 = 3;
const FOURTH: u64 = 4;
const FIFTH: u64 = 5;

pub(super) fn encode(message: &Message) -> Option<(u8, Vec<u8>)> {
    let (kind, fields) = match message {
        Message::GetHead { tag, known, look_up } => {
            let key = look_up.map(|key| (THIRD, bytes(key.as_bytes())));
            let fields = [(TAG, bytes(&tag.0)), (SECOND, Value::from(*known))];
            (kind::GET_HEAD, fields.into_iter().chain(key).collect())
        }
        Message::Head(tag, None) => (kind::HEAD, vec![(TAG, bytes(&tag.0))]),
        Message::Head(tag, Some(item)) => {
            let fields = [
                (TAG, bytes(&tag.0)),
                (SECOND, bytes(item.key.as_bytes())),
                (THIRD, Value::from(item.seq)),
                (FOURTH, bytes(&item.value)),
                (FIFTH, bytes(&item.signature)),
            ];
            (kind::HEAD, fields.into())
        }
        Message::Watch(tags) => {
            let tags = tags.iter().take(WATCH_TAGS_MAX).map(|tag| bytes(&tag.0)).collect();
            (kind::WATCH, vec![(TAG, Value::Array(tags))])
        }
        Message::Want { id, blob, range } => {
            let fields = [
                (TAG, Value::from(*id)),
                (if blob.root().is_some() { SECOND } else { 6 }, bytes(blob.as_bytes())),
                (THIRD, Value::from(range.start)),
                (FOURTH, Value::from(range.end - range.start)),
            ];
            (kind::WANT, fields.into())
        }
        Message::Cancel { id, from } => {
            (kind::CANCEL, vec![(TAG, Value::from(*id)), (SECOND, Value::from(*from))])
        }
        Message::AskHave(tag, sequence) => {
            (kind::ASK_HAVE, vec![(TAG, bytes(&tag.0)), (SECOND, Value::from(*sequence))])
        }
        Message::Have(tag, sequence, have) => {
            let have = match have {
                Have::Bitmap(bits) => (THIRD, bytes(bits)),
                Have::Positions(positions) => {
                    (FOURTH, Value::Array(positions.iter().map(|p| Value::from(*p)).collect()))
                }
                Have::All => (FIFTH, Value::Bool(true)),
            };
            (kind::HAVE, vec![(TAG, bytes(&tag.0)), (SECOND, Value::from(*sequence)), have])
        }
        _ => return None,
    };
    let map = fields.into_iter().map(|(name, value): (u64, Value)| (Value::from(name), value)).collect();
    let mut payload = Vec::new();
    ciborium::into_writer(&Value::Map(map), &mut payload).expect("writing to memory does not fail");
    Some((kind, payload))
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// `None`: not one of these messages' types.
pub(super) fn decode(kind: u8, payload: &[u8]) -> Option<Result<Message, Violation>> {
    let read: fn(&Fields) -> Option<Message> = match kind {
        kind::GET_HEAD => get_head,
        kind::HEAD => head,
        kind::WATCH => watch,
        kind::WANT => want,
        kind::CANCEL => cancel,
        kind::ASK_HAVE => ask_have,
        kind::HAVE => have,
        _ => return None,
    };
    Some(Fields::parse(payload).and_then(|fields| read(&fields)).ok_or(Violation::Malformed))
}

struct Fields(Vec<(Value, Value)>);

impl Fields {
    fn parse(payload: &[u8]) -> Option<Self> {
        match ciborium::de::from_reader_with_recursion_limit(payload, CBOR_DEPTH_MAX).ok()? {
            Value::Map(fields) => Some(Self(fields)),
            _ => None,
        }
    }

    fn get(&self, name: u64) -> Option<&Value> {
        self.0.iter().find(|(key, _)| *key == Value::from(name)).map(|(_, value)| value)
    }

    fn bytes<const N: usize>(&self, name: u64) -> Option<[u8; N]> {
        self.get(name)?.as_bytes()?.as_slice().try_into().ok()
    }

    fn integer<T: TryFrom<ciborium::value::Integer>>(&self, name: u64) -> Option<T> {
        T::try_from(self.get(name)?.as_integer()?).ok()
    }

    fn public_key(&self, name: u64) -> Option<PublicKey> {
        PublicKey::from_bytes(self.bytes(name)?).ok()
    }

    fn tag(&self) -> Option<Tag> {
        self.bytes(TAG).map(Tag)
    }
}

fn get_head(fields: &Fields) -> Option<Message> {
    let look_up = match fields.get(THIRD) {
        Some(_) => Some(fields.public_key(THIRD)?),
        None => None,
    };
    Some(Message::GetHead { tag: fields.tag()?, known: fields.integer(SECOND)?, look_up })
}

fn head(fields: &Fields) -> Option<Message> {
    let tag = fields.tag()?;
    if fields.get(SECOND).is_none() {
        return Some(Message::Head(tag, None));
    }
    let item = SignedItem {
        key: fields.public_key(SECOND)?,
        seq: fields.integer(THIRD)?,
        value: fields.get(FOURTH)?.as_bytes()?.clone(),
        signature: fields.bytes(FIFTH)?,
    };
    Some(Message::Head(tag, Some(item)))
}

fn watch(fields: &Fields) -> Option<Message> {
    let tags = fields.get(TAG)?.as_array()?;
    let tags =
        tags.iter().take(WATCH_TAGS_MAX).map(|tag| Some(Tag(tag.as_bytes()?.as_slice().try_into().ok()?)));
    tags.collect::<Option<_>>().map(Message::Watch)
}

fn want(fields: &Fields) -> Option<Message> {
    let (start, len): (u32, u32) = (fields.integer(THIRD)?, fields.integer(FOURTH)?);
    let range = start..start.checked_add(len)?;
    let is_within = !range.is_empty() && range.end as usize <= BLOB_LEN;
    let (root, id) = (fields.bytes(SECOND).map(Root), fields.bytes(6).map(BlobId));
    let blob = root.map(BlobName::Native).or(id.map(BlobName::V5))?;
    let id = fields.integer(TAG)?;
    is_within.then_some(Message::Want { id, blob, range })
}

fn cancel(fields: &Fields) -> Option<Message> {
    Some(Message::Cancel { id: fields.integer(TAG)?, from: fields.integer(SECOND)? })
}

fn ask_have(fields: &Fields) -> Option<Message> {
    Some(Message::AskHave(fields.tag()?, fields.integer(SECOND)?))
}

fn have(fields: &Fields) -> Option<Message> {
    let have = if let Some(bits) = fields.get(THIRD) {
        let mut bits = bits.as_bytes()?.clone();
        bits.truncate(HAVE_BLOBS_MAX / 8);
        Have::Bitmap(bits)
    } else if let Some(positions) = fields.get(FOURTH) {
        let positions = positions.as_array()?.iter().take(HAVE_POSITIONS_MAX);
        let position = |value: &Value| u32::try_from(value.as_integer()?).ok();
        Have::Positions(positions.map(position).collect::<Option<_>>()?)
    } else if fields.get(FIFTH)?.as_bool()? {
        Have::All
    } else {
        return None;
    };
    Some(Message::Have(fields.tag()?, fields.integer(SECOND)?, have))
}
