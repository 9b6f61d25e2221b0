//! Durable records, as CBOR: what a node must still know after a restart.

use alloc::vec::Vec;

use ciborium::Value;

use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::ids::Secret;
use crate::time::UnixTime;

const READ_KEY: u64 = 1;
const ITEM: u64 = 2;

/// A followed channel: its read key, and its newest head, whose sequence never goes back.
pub(super) fn encode_channel(read_key: Option<&Secret>, item: Option<&SignedItem>) -> Vec<u8> {
    let mut map = Vec::new();
    if let Some(key) = read_key {
        map.push((READ_KEY.into(), Value::Bytes(key.expose().to_vec())));
    }
    if let Some(item) = item {
        let fields =
            [item.seq.into(), Value::Bytes(item.value.clone()), Value::Bytes(item.signature.to_vec())];
        map.push((ITEM.into(), Value::Array(fields.into())));
    }
    let mut out = Vec::new();
    ciborium::into_writer(&Value::Map(map), &mut out).expect("writing to memory does not fail");
    out
}

/// `None`: not a record of ours, or its item is not properly signed.
pub(super) fn decode_channel(
    channel: PublicKey,
    bytes: &[u8],
) -> Option<(Option<Secret>, Option<SignedItem>)> {
    let value: Value = ciborium::from_reader(bytes).ok()?;
    let field =
        |name: u64| value.as_map()?.iter().find(|(key, _)| *key == name.into()).map(|(_, value)| value);
    let read_key = match field(READ_KEY) {
        Some(key) => Some(Secret::new(key.as_bytes()?.as_slice().try_into().ok()?)),
        None => None,
    };
    let item = match field(ITEM) {
        Some(item) => Some(decode_item(channel, item.as_array()?)?),
        None => None,
    };
    Some((read_key, item))
}

fn decode_item(channel: PublicKey, fields: &[Value]) -> Option<SignedItem> {
    let [seq, value, signature] = fields else { return None };
    let seq = i64::try_from(seq.as_integer()?).ok()?;
    let (value, signature) = (value.as_bytes()?.clone(), signature.as_bytes()?.as_slice().try_into().ok()?);
    Some(SignedItem { key: channel, seq, value, signature }).filter(SignedItem::verify)
}

pub(super) fn encode_time(time: UnixTime) -> Vec<u8> {
    time.0.to_be_bytes().to_vec()
}

pub(super) fn decode_time(bytes: &[u8]) -> Option<UnixTime> {
    Some(UnixTime(u64::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn records_are_read_back_and_damage_is_noticed() {
        let identity = Identity::new(&Secret::new([3; 32]), None);
        let channel = identity.public_key();
        let item = SignedItem::sign(&identity, 7, b"value".to_vec());
        let key = Secret::new([4; 32]);
        for (key, item) in
            [(None, None), (Some(&key), None), (None, item.as_ref()), (Some(&key), item.as_ref())]
        {
            let bytes = encode_channel(key, item);
            assert_eq!(decode_channel(channel, &bytes), Some((key.cloned(), item.cloned())));
        }
        let mut bytes = encode_channel(None, item.as_ref());
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        assert_eq!(decode_channel(channel, &bytes), None);
        assert_eq!(decode_channel(channel, b""), None);
        assert_eq!(decode_time(&encode_time(UnixTime(9))), Some(UnixTime(9)));
    }
}
