//! The messages beyond v5, except PARTS and PIECE: CBOR maps with small integer keys (`docs/protocol.md` §12). Unknown keys are
//! ignored; the frame bounds arrays and texts.

use alloc::vec;
use alloc::vec::Vec;

use ciborium::Value;

use super::{EXACT_STEP, Message, Want, kind};
use crate::bep44::SignedItem;
use crate::error::Violation;
use crate::identity::PublicKey;
use crate::ids::Root;
use crate::limits::{CBOR_DEPTH_MAX, HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX, WATCH_TAGS_MAX};
use crate::parts::{Mask, PART_LEN};

/// A channel's name between two peers: BLAKE2b-128 of its topic, keyed with a secret of their connection, so that
/// only a peer that knows the topic recognises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub [u8; 16]);

/// Which blobs of a channel's version a peer has, and parts of which, by their positions (`docs/protocol.md` §12). It adds to what
/// was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// All that was said before does not count.
    pub replaces: bool,
    /// Every blob.
    pub all: bool,
    /// A bit for each position, the first byte's highest bit for position 0; positions beyond the end are not said.
    pub bitmap: Vec<u8>,
    /// The blobs at these positions.
    pub positions: Vec<u32>,
    /// Parts of the blobs at these positions.
    pub under_way: Vec<(u32, Mask)>,
}

/// The channel's tag, or the number of a WANT or CANCEL.
const TAG: u64 = 1;
/// The known sequence, the item's public key, the blob's root, or the cancelled parts.
const SECOND: u64 = 2;
const THIRD: u64 = 3;
const FOURTH: u64 = 4;
const FIFTH: u64 = 5;
const SIXTH: u64 = 6;
const SEVENTH: u64 = 7;

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
        Message::Want(Want { number, root, mask, values, last_len }) => {
            let fields =
                [(TAG, Value::from(*number)), (SECOND, bytes(&root.0)), (THIRD, Value::from(mask.0))];
            let values = values.then_some((FOURTH, Value::Bool(true)));
            let last_len = last_len.map(|len| (FIFTH, Value::from(len)));
            (kind::WANT, fields.into_iter().chain(values).chain(last_len).collect())
        }
        Message::Cancel { number, mask } => {
            (kind::CANCEL, vec![(TAG, Value::from(*number)), (SECOND, Value::from(mask.0))])
        }
        Message::AskHave(tag, sequence) => {
            (kind::ASK_HAVE, vec![(TAG, bytes(&tag.0)), (SECOND, Value::from(*sequence))])
        }
        Message::Have(tag, sequence, have) => {
            let of = [(TAG, bytes(&tag.0)), (SECOND, Value::from(*sequence))];
            (kind::HAVE, of.into_iter().chain(have_fields(have)).collect())
        }
        _ => return None,
    };
    let map = fields.into_iter().map(|(name, value): (u64, Value)| (Value::from(name), value)).collect();
    let mut payload = Vec::new();
    ciborium::into_writer(&Value::Map(map), &mut payload).expect("writing to memory does not fail");
    Some((kind, payload))
}

fn have_fields(have: &Have) -> impl Iterator<Item = (u64, Value)> {
    let numbers = |numbers: Vec<Value>| (!numbers.is_empty()).then_some(Value::Array(numbers));
    let positions = have.positions.iter().take(HAVE_POSITIONS_MAX).map(|at| Value::from(*at));
    let under_way = have.under_way.iter().take(HAVE_POSITIONS_MAX);
    let under_way = under_way.flat_map(|(at, mask)| [Value::from(*at), Value::from(mask.0)]);
    let fields = [
        (THIRD, (!have.bitmap.is_empty()).then(|| bytes(&have.bitmap))),
        (FOURTH, numbers(positions.collect())),
        (FIFTH, have.all.then_some(Value::Bool(true))),
        (SIXTH, numbers(under_way.collect())),
        (SEVENTH, have.replaces.then_some(Value::Bool(true))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
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

    /// Whether a field is there; where it is, it must be true.
    fn is_true(&self, name: u64) -> Option<bool> {
        match self.get(name) {
            None => Some(false),
            Some(value) => value.as_bool().filter(|value| *value),
        }
    }

    /// The first numbers of an array, none where there is no such field.
    fn numbers(&self, name: u64, len_max: usize) -> Option<Vec<u64>> {
        let Some(array) = self.get(name) else { return Some(Vec::new()) };
        let numbers = array.as_array()?.iter().take(len_max);
        numbers.map(|value| u64::try_from(value.as_integer()?).ok()).collect()
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
    let mask = Mask(fields.integer(THIRD)?);
    let last_len: Option<u32> = match fields.get(FIFTH) {
        Some(_) => Some(fields.integer(FIFTH)?),
        None => None,
    };
    let fits = |len: u32| len > 0 && len.is_multiple_of(EXACT_STEP) && (len as usize) < PART_LEN;
    if mask.is_empty() || !last_len.is_none_or(fits) {
        return None;
    }
    let (number, root) = (fields.integer(TAG)?, Root(fields.bytes(SECOND)?));
    Some(Message::Want(Want { number, root, mask, values: fields.is_true(FOURTH)?, last_len }))
}

fn cancel(fields: &Fields) -> Option<Message> {
    Some(Message::Cancel { number: fields.integer(TAG)?, mask: Mask(fields.integer(SECOND)?) })
}

fn ask_have(fields: &Fields) -> Option<Message> {
    Some(Message::AskHave(fields.tag()?, fields.integer(SECOND)?))
}

fn have(fields: &Fields) -> Option<Message> {
    let mut bitmap = match fields.get(THIRD) {
        Some(bits) => bits.as_bytes()?.clone(),
        None => Vec::new(),
    };
    bitmap.truncate(HAVE_BLOBS_MAX / 8);
    let positions = fields.numbers(FOURTH, HAVE_POSITIONS_MAX)?;
    let positions = positions.iter().map(|at| u32::try_from(*at).ok()).collect::<Option<_>>()?;
    let under_way = fields.numbers(SIXTH, 2 * HAVE_POSITIONS_MAX)?;
    let is_odd = fields.get(SIXTH).and_then(Value::as_array).is_some_and(|array| array.len() % 2 == 1);
    let pair = |[at, mask]: &[u64; 2]| Some((u32::try_from(*at).ok()?, Mask(u16::try_from(*mask).ok()?)));
    let under_way = under_way.as_chunks::<2>().0.iter().map(pair).collect::<Option<_>>()?;
    let (all, replaces) = (fields.is_true(FIFTH)?, fields.is_true(SEVENTH)?);
    let have = Have { replaces, all, bitmap, positions, under_way };
    (!is_odd).then_some(Message::Have(fields.tag()?, fields.integer(SECOND)?, have))
}
