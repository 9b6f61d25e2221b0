//! A channel's durable record, as CBOR: its read key, and its newest head, whose sequence never goes back.

use alloc::vec::Vec;

use ciborium::Value;

use super::held::HeldHead;
use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::ids::Secret;

const READ_KEY: u64 = 1;
/// The newest head as an item: sequence, value, signature.
const ITEM: u64 = 2;
/// The newest head as a document that came without an item: sequence, document.
const DOCUMENT: u64 = 3;

/// The channel is paused; otherwise it is not there.
const PAUSED: u64 = 4;

pub(super) fn encode(read_key: Option<&Secret>, head: Option<&HeldHead>, is_paused: bool) -> Vec<u8> {
    let mut map = Vec::new();
    if let Some(key) = read_key {
        map.push((READ_KEY.into(), Value::Bytes(key.expose().to_vec())));
    }
    if let Some(head) = head {
        let document = Value::Bytes(head.document().to_vec());
        map.push(match head.item() {
            Some(item) => {
                let fields = [item.seq.into(), document, Value::Bytes(item.signature.to_vec())];
                (ITEM.into(), Value::Array(fields.into()))
            }
            None => (DOCUMENT.into(), Value::Array([head.sequence().into(), document].into())),
        });
    }
    if is_paused {
        map.push((PAUSED.into(), true.into()));
    }
    let mut out = Vec::new();
    ciborium::into_writer(&Value::Map(map), &mut out).expect("writing to memory does not fail");
    out
}

/// What a record says: the read key, the head, and whether the channel is paused.
pub(crate) type Record = (Option<Secret>, Option<HeldHead>, bool);

/// `None`: not a record of ours, or its item is not properly signed. A document's signature is not checked here.
pub(super) fn decode(channel: PublicKey, bytes: &[u8]) -> Option<Record> {
    let value: Value = ciborium::from_reader(bytes).ok()?;
    let field =
        |name: u64| value.as_map()?.iter().find(|(key, _)| *key == name.into()).map(|(_, value)| value);
    let read_key = match field(READ_KEY) {
        Some(key) => Some(Secret::new(key.as_bytes()?.as_slice().try_into().ok()?)),
        None => None,
    };
    let head = match (field(ITEM), field(DOCUMENT)) {
        (Some(item), _) => Some(decode_item(channel, item.as_array()?)?),
        (None, Some(document)) => Some(decode_document(document.as_array()?)?),
        (None, None) => None,
    };
    Some((read_key, head, field(PAUSED).is_some()))
}

fn decode_item(channel: PublicKey, fields: &[Value]) -> Option<HeldHead> {
    let [seq, value, signature] = fields else { return None };
    let seq = i64::try_from(seq.as_integer()?).ok()?;
    let (value, signature) = (value.as_bytes()?.clone(), signature.as_bytes()?.as_slice().try_into().ok()?);
    let item = SignedItem { key: channel, seq, value, signature };
    item.verify().then(|| HeldHead::of_item(item))
}

fn decode_document(fields: &[Value]) -> Option<HeldHead> {
    let [sequence, document] = fields else { return None };
    let sequence = u64::try_from(sequence.as_integer()?).ok()?;
    Some(HeldHead::of_document(sequence, document.as_bytes()?.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn records_are_read_back_and_damage_is_noticed() {
        let identity = Identity::new(&Secret::new([3; 32]), None);
        let channel = identity.public_key();
        let item = SignedItem::sign(&identity, 7, b"value".to_vec()).expect("it fits");
        let (item, document) = (HeldHead::of_item(item), HeldHead::of_document(8, b"document".to_vec()));
        let key = Secret::new([4; 32]);
        for key in [None, Some(&key)] {
            for head in [None, Some(&item), Some(&document)] {
                for is_paused in [false, true] {
                    let bytes = encode(key, head, is_paused);
                    assert_eq!(decode(channel, &bytes), Some((key.cloned(), head.cloned(), is_paused)));
                }
            }
        }
        let mut bytes = encode(None, Some(&item), false);
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        assert_eq!(decode(channel, &bytes), None);
        assert_eq!(decode(channel, b""), None);
    }
}
