//! The messages: a type byte and a payload in each frame. v5's (`docs/protocol.md` §10) are here, those beyond it (§12)
//! in their own file.

mod v6;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str::from_utf8;

use serde_json::Value;
pub use v6::{Have, Tag};

use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::error::{ParseError, Violation};
use crate::hex;
use crate::identity::PublicKey;
use crate::ids::{BlobId, Root};
use crate::limits::{ANNOUNCE_HOPS_MAX, GOSSIP_CHANNELS_MAX, PEERS_MAX, PIECE_LEN_MAX, TEXT_LEN_MAX};
use crate::parts::{Mask, PARTS, VALUES_LEN, Values};
pub use crate::wire::PIECE_HEADER_LEN;

/// The lowest version that a node serves.
pub const VERSION_MIN: u64 = 5;
/// The version that our HELLO names; its messages are used where the peer's HELLO names it too.
pub const VERSION: u64 = 6;

/// Type bytes.
pub mod kind {
    #![allow(missing_docs, reason = "they are the messages' own names")]
    pub const HELLO: u8 = 0x01;
    pub const REQUEST: u8 = 0x02;
    pub const DATA: u8 = 0x03;
    pub const FIND_PEERS: u8 = 0x04;
    pub const PEERS: u8 = 0x05;
    pub const PUBLISH: u8 = 0x06;
    pub const ANNOUNCE: u8 = 0x07;
    pub const OK: u8 = 0x08;
    pub const GET_HEAD: u8 = 0x10;
    pub const HEAD: u8 = 0x11;
    pub const WATCH: u8 = 0x12;
    pub const WANT: u8 = 0x13;
    pub const PIECE: u8 = 0x14;
    pub const CANCEL: u8 = 0x15;
    pub const ASK_HAVE: u8 = 0x16;
    pub const HAVE: u8 = 0x17;
    pub const PARTS: u8 = 0x18;
    pub const ERROR: u8 = 0xFF;
}

/// What WANT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The asker's number for it; no other open WANT of the connection has it.
    pub number: u32,
    /// The blob.
    pub root: Root,
    /// Its parts that are wanted; not empty.
    pub mask: Mask,
    /// Whether the blob's values are to come before them.
    pub values: bool,
    /// Bytes of the last of these parts that are wanted, where not all are: a multiple of [`EXACT_STEP`], above 0 and below
    /// [`crate::parts::PART_LEN`].
    pub last_len: Option<u32>,
}

/// The last part of a WANT may be cut at a multiple of this many bytes.
pub const EXACT_STEP: u32 = 4096;

/// A message. Everything in it is parsed and within its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first message of a dialler.
    Hello {
        /// Absent: taken as 5.
        version: Option<u64>,
        /// Newest sequences by channel.
        sequences: BTreeMap<PublicKey, u64>,
        /// Where the sender listens (not in v5).
        port: Option<u16>,
        /// What the sender can do beyond its version (not in v5); no bit is assigned.
        features: u64,
    },
    /// Ask for a blob.
    Request(BlobId),
    /// A blob's bytes, or the next of them.
    Data(Vec<u8>),
    /// Ask for peers that may have a blob.
    FindPeers(BlobId),
    /// Addresses; those that cannot be exchanged are left out.
    Peers(Vec<PeerAddr>),
    /// Ask to put an item on the DHT; its signature is not yet checked.
    Publish(SignedItem),
    /// An address serves a blob (or a channel, whose topic is in place of the id), and the hops that are left (absent in v5:
    /// none).
    Announce(BlobId, PeerAddr, u8),
    /// Done.
    Ok(String),
    /// Refused; v5's texts are for people, except that `Not Found` answers a REQUEST.
    Error(String),
    /// Ask for a channel's head if it is above the known sequence.
    GetHead {
        /// The channel.
        tag: Tag,
        /// The highest sequence known; 0 for none.
        known: u64,
        /// The key to look up on the DHT where the peer does not know the channel.
        look_up: Option<PublicKey>,
    },
    /// A channel's head, not yet verified; `None`: none newer.
    Head(Tag, Option<SignedItem>),
    /// Push the heads of these channels from here on; replaces any earlier list.
    Watch(Vec<Tag>),
    /// Ask for parts of a blob.
    Want(Want),
    /// The values of a blob that was asked for, not yet checked.
    Parts {
        /// The asker's number.
        number: u32,
        /// The blob's values.
        values: Box<Values>,
    },
    /// Half a part of a blob that was asked for.
    Piece {
        /// The asker's number.
        number: u32,
        /// The part, below [`PARTS`].
        part: u8,
        /// 0: its first half; 1: the rest.
        half: u8,
        /// At most [`crate::limits::PIECE_LEN_MAX`]; none of part 0, half 0: what is left is refused.
        bytes: Vec<u8>,
    },
    /// Give up parts that were asked for.
    Cancel {
        /// The asker's number.
        number: u32,
        /// The parts.
        mask: Mask,
    },
    /// Ask which blobs of a channel's version the peer has, now and from here on.
    AskHave(Tag, u64),
    /// Blobs, and parts of blobs, of a channel's version that the sender has.
    Have(Tag, u64, Have),
    /// A message of unknown type, or an ANNOUNCE of a name that is no address.
    Unknown(u8),
    /// An empty frame.
    Empty,
}

impl Message {
    /// Parses a message's plaintext: a type byte and a payload, or nothing at all.
    ///
    /// # Errors
    /// [`Violation::Malformed`], and [`Violation::Version`] for a HELLO below 5.
    pub fn decode(plaintext: &[u8]) -> Result<Self, Violation> {
        let Some((&kind, payload)) = plaintext.split_first() else { return Ok(Self::Empty) };
        match kind {
            kind::HELLO => decode_hello(payload),
            kind::REQUEST => blob_id(payload).map(Self::Request),
            kind::DATA => Ok(Self::Data(payload.to_vec())),
            kind::FIND_PEERS => blob_id(payload).map(Self::FindPeers),
            kind::PEERS => decode_peers(payload),
            kind::PUBLISH => decode_publish(payload),
            kind::ANNOUNCE => decode_announce(payload),
            kind::OK => Ok(Self::Ok(text(payload))),
            kind::ERROR => Ok(Self::Error(text(payload))),
            kind::PIECE => {
                let (number, part, half, bytes) = split_piece(payload).ok_or(Violation::Malformed)?;
                Ok(Self::Piece { number, part, half, bytes: bytes.to_vec() })
            }
            kind::PARTS => decode_parts(payload).ok_or(Violation::Malformed),
            other => v6::decode(other, payload).unwrap_or(Ok(Self::Unknown(other))),
        }
    }

    /// Returns the plaintext. A node writes DATA and PIECE in another way, with fewer copies.
    pub fn encode(&self) -> Vec<u8> {
        if matches!(self, Self::Empty) {
            return Vec::new();
        }
        let (kind, mut plaintext) = self.kind_and_payload();
        plaintext.insert(0, kind);
        plaintext
    }

    fn kind_and_payload(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Hello { version, sequences, port, features } => {
                (kind::HELLO, encode_hello(*version, sequences, *port, *features))
            }
            Self::Request(id) => (kind::REQUEST, id.to_hex().into_bytes()),
            Self::Data(bytes) => (kind::DATA, bytes.clone()),
            Self::FindPeers(id) => (kind::FIND_PEERS, id.to_hex().into_bytes()),
            Self::Peers(peers) => {
                let texts = peers.iter().take(PEERS_MAX).map(|p| Value::from(p.to_string()));
                (kind::PEERS, json(&Value::Array(texts.collect())))
            }
            Self::Publish(item) => {
                let fields = [
                    ("k", Value::from(item.key.to_string())),
                    ("seq", item.seq.into()),
                    ("sig", hex::encode(&item.signature).into()),
                    ("v", hex::encode(&item.value).into()),
                ];
                (kind::PUBLISH, object(fields))
            }
            Self::Announce(id, peer, hops) => {
                let fields = [
                    ("blobId", Value::from(id.to_hex())),
                    ("hops", (*hops).into()),
                    ("peerAddress", peer.to_string().into()),
                ];
                (kind::ANNOUNCE, object(fields))
            }
            Self::Ok(text) => (kind::OK, text.clone().into_bytes()),
            Self::Error(text) => (kind::ERROR, text.clone().into_bytes()),
            Self::Piece { number, part, half, bytes } => {
                (kind::PIECE, [&piece_header(*number, *part, *half), &bytes[..]].concat())
            }
            Self::Parts { number, values } => {
                (kind::PARTS, [&number.to_be_bytes(), &values.as_bytes()[..]].concat())
            }
            Self::GetHead { .. }
            | Self::Head(..)
            | Self::Watch(_)
            | Self::Want(_)
            | Self::Cancel { .. }
            | Self::AskHave(..)
            | Self::Have(..) => v6::encode(self).expect("it writes each of these"),
            Self::Unknown(kind) => (*kind, Vec::new()),
            Self::Empty => (0, Vec::new()),
        }
    }
}

pub(crate) fn piece_header(number: u32, part: u8, half: u8) -> [u8; PIECE_HEADER_LEN] {
    let mut header = [part, half, 0, 0, 0, 0];
    header.rotate_left(2);
    header[..4].copy_from_slice(&number.to_be_bytes());
    header
}

/// Splits a PIECE's payload into number, part, half and content; `None` where it is shorter than its header or too long, or names
/// a part or half that no blob has.
pub(crate) fn split_piece(payload: &[u8]) -> Option<(u32, u8, u8, &[u8])> {
    let (number, rest) = payload.split_first_chunk()?;
    let (&[part, half], bytes) = rest.split_first_chunk()?;
    let fits = bytes.len() <= PIECE_LEN_MAX && usize::from(part) < PARTS && half < 2;
    fits.then_some((u32::from_be_bytes(*number), part, half, bytes))
}

fn decode_parts(payload: &[u8]) -> Option<Message> {
    let (number, values) = payload.split_first_chunk()?;
    let values: [u8; VALUES_LEN] = values.try_into().ok()?;
    Some(Message::Parts { number: u32::from_be_bytes(*number), values: Box::new(Values::from_bytes(values)) })
}

fn blob_id(payload: &[u8]) -> Result<BlobId, Violation> {
    from_utf8(payload).ok().and_then(|t| t.parse().ok()).ok_or(Violation::Malformed)
}

fn text(payload: &[u8]) -> String {
    let cut = &payload[..payload.len().min(TEXT_LEN_MAX)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    // What stands for a byte that is no UTF-8 is longer than that.
    text.truncate(text.floor_char_boundary(TEXT_LEN_MAX));
    text
}

fn json(value: &Value) -> Vec<u8> {
    format!("{value}").into_bytes()
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Vec<u8> {
    json(&Value::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()))
}

fn parse(payload: &[u8]) -> Result<Value, Violation> {
    serde_json::from_slice(payload).map_err(|_| Violation::Malformed)
}

fn encode_hello(
    version: Option<u64>,
    sequences: &BTreeMap<PublicKey, u64>,
    port: Option<u16>,
    features: u64,
) -> Vec<u8> {
    let gossip =
        sequences.iter().take(GOSSIP_CHANNELS_MAX).map(|(k, seq)| (k.to_string(), Value::from(*seq)));
    let gossip = Value::Object(gossip.collect());
    let gossip = Value::Object([("sequences".to_string(), gossip)].into_iter().collect());
    let version = version.map(|v| ("v".to_string(), Value::from(v)));
    let port = port.map(|p| ("port".to_string(), Value::from(p)));
    let features = (features != 0).then(|| ("features".to_string(), Value::from(features)));
    let fields = [("gossip".to_string(), gossip)].into_iter().chain(version).chain(port).chain(features);
    json(&Value::Object(fields.collect()))
}

fn decode_hello(payload: &[u8]) -> Result<Message, Violation> {
    let hello = parse(payload)?;
    let hello = hello.as_object().ok_or(Violation::Malformed)?;
    let version = match hello.get("v") {
        None => None,
        Some(v) => Some(v.as_u64().ok_or(Violation::Malformed)?),
    };
    if version.is_some_and(|v| v < VERSION_MIN) {
        return Err(Violation::Version);
    }
    let mut sequences = BTreeMap::new();
    if let Some(gossip) = hello.get("gossip") {
        let bare = gossip.as_object().ok_or(Violation::Malformed)?;
        let map = bare.get("sequences").and_then(Value::as_object).unwrap_or(bare);
        for (key, seq) in map.iter().take(GOSSIP_CHANNELS_MAX) {
            // A later version may use other keys and numbers.
            if let (Ok(key), Some(seq)) = (key.parse(), seq.as_u64()) {
                sequences.insert(key, seq);
            }
        }
    }
    let port = hello.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let features = hello.get("features").and_then(Value::as_u64).unwrap_or(0);
    Ok(Message::Hello { version, sequences, port: port.filter(|port| *port != 0), features })
}

fn decode_peers(payload: &[u8]) -> Result<Message, Violation> {
    let peers = parse(payload)?;
    let peers = peers.as_array().ok_or(Violation::Malformed)?;
    let peers = peers.iter().take(PEERS_MAX).filter_map(|p| p.as_str()?.parse().ok());
    Ok(Message::Peers(peers.filter(PeerAddr::is_exchangeable).collect()))
}

fn decode_publish(payload: &[u8]) -> Result<Message, Violation> {
    let publish = parse(payload)?;
    let item = || {
        Some(SignedItem {
            key: publish.get("k")?.as_str()?.parse().ok()?,
            seq: publish.get("seq")?.as_i64()?,
            value: hex::decode(publish.get("v")?.as_str()?)?,
            signature: hex::decode_array(publish.get("sig")?.as_str()?)?,
        })
    };
    item().map(Message::Publish).ok_or(Violation::Malformed)
}

fn decode_announce(payload: &[u8]) -> Result<Message, Violation> {
    let announce = parse(payload)?;
    let fields = || {
        let id = announce.get("blobId")?.as_str()?.parse().ok()?;
        let peer = announce.get("peerAddress")?.as_str()?.parse();
        let hops = announce.get("hops").and_then(Value::as_u64).unwrap_or(0);
        Some((id, peer, u8::try_from(hops).unwrap_or(u8::MAX).min(ANNOUNCE_HOPS_MAX)))
    };
    match fields().ok_or(Violation::Malformed)? {
        (id, Ok(peer), hops) => Ok(Message::Announce(id, peer, hops)),
        (_, Err(ParseError::PeerAddr), _) => Err(Violation::Malformed),
        // The sender may have passed it on without verifying names.
        (_, Err(_), _) => Ok(Message::Unknown(kind::ANNOUNCE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::ids::Secret;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind], payload].concat()
    }

    fn key() -> PublicKey {
        Identity::new(&Secret::new([3; 32]), None).public_key()
    }

    #[test]
    fn messages_survive_the_wire() {
        let identity = Identity::new(&Secret::new([3; 32]), None);
        let want = Want { number: 0, root: Root([5; 32]), mask: Mask(2), values: false, last_len: None };
        let messages = [
            Message::Hello {
                version: Some(5),
                sequences: BTreeMap::from([(key(), 7)]),
                port: None,
                features: 0,
            },
            Message::Hello { version: Some(6), sequences: BTreeMap::new(), port: Some(6881), features: 5 },
            Message::Request(BlobId([0xAB; 32])),
            Message::Data(b"bytes".to_vec()),
            Message::FindPeers(BlobId([1; 32])),
            Message::Peers(
                ["1.2.3.4:5".parse().expect("valid"), "[2001:db8::1]:6".parse().expect("valid")].into(),
            ),
            Message::Publish(SignedItem::sign(&identity, 9, b"v".to_vec()).expect("short")),
            Message::Announce(BlobId([2; 32]), "1.2.3.4:5".parse().expect("valid"), 3),
            Message::GetHead { tag: Tag([1; 16]), known: 7, look_up: None },
            Message::GetHead { tag: Tag([1; 16]), known: u64::MAX, look_up: Some(key()) },
            Message::Head(Tag([1; 16]), None),
            Message::Head(Tag([1; 16]), SignedItem::sign(&identity, 9, b"v".to_vec())),
            Message::Watch([Tag([1; 16]), Tag([2; 16])].into()),
            Message::Want(Want { number: 9, mask: Mask::ALL, values: true, ..want }),
            Message::Want(Want { number: u32::MAX, last_len: Some(61_440), ..want }),
            Message::Parts { number: 9, values: Box::new(Values::from_bytes([3; VALUES_LEN])) },
            Message::Piece { number: 9, part: 15, half: 1, bytes: b"bytes".to_vec() },
            Message::Piece { number: u32::MAX, part: 0, half: 0, bytes: Vec::new() },
            Message::Cancel { number: 9, mask: Mask(0x8001) },
            Message::AskHave(Tag([1; 16]), u64::MAX),
            Message::Have(Tag([1; 16]), 7, Have::default()),
            Message::Have(Tag([1; 16]), 7, Have { all: true, ..Have::default() }),
            Message::Have(Tag([1; 16]), 7, Have { bitmap: [0x80, 1].into(), ..Have::default() }),
            Message::Have(
                Tag([1; 16]),
                7,
                Have {
                    positions: [0, 70_000].into(),
                    under_way: [(3, Mask(5)), (70_001, Mask::ALL)].into(),
                    replaces: true,
                    ..Have::default()
                },
            ),
            Message::Ok("ok".into()),
            Message::Error("Not Found".into()),
            Message::Unknown(0x42),
            Message::Empty,
        ];
        for message in messages {
            assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
        }
    }

    #[test]
    fn hello_is_read_in_every_form_in_use() {
        let hello = |text: &str| {
            Message::decode(&frame(kind::HELLO, text.as_bytes())).map(|m| alloc::format!("{m:?}"))
        };
        let want = |v, seqs: &[u64]| {
            let sequences = seqs.iter().map(|s| (key(), *s)).collect();
            Ok(alloc::format!("{:?}", Message::Hello { version: v, sequences, port: None, features: 0 }))
        };
        let key = key();
        assert_eq!(hello("{}"), want(None, &[]));
        assert_eq!(hello(&alloc::format!(r#"{{"gossip":{{"{key}":4}}}}"#)), want(None, &[4]));
        assert_eq!(
            hello(&alloc::format!(r#"{{"v":6,"gossip":{{"sequences":{{"{key}":4}}}}}}"#)),
            want(Some(6), &[4])
        );
        assert_eq!(hello(r#"{"v":5,"gossip":{"x":1,"sequences":{"y":"z"}}}"#), want(Some(5), &[]));
        assert_eq!(hello(r#"{"v":4}"#), Err(Violation::Version));
        for bad in ["", "[]", "{", r#"{"v":"5"}"#, r#"{"gossip":7}"#, &"[".repeat(60_000)] {
            assert_eq!(hello(bad), Err(Violation::Malformed), "{}", &bad[..bad.len().min(20)]);
        }
    }

    #[test]
    fn a_text_is_cut_at_its_greatest_length_whatever_its_bytes_are() {
        for (payload, len) in [
            (&[b'a'; TEXT_LEN_MAX + 1][..], TEXT_LEN_MAX),
            (&[0xFF; TEXT_LEN_MAX], TEXT_LEN_MAX / 3 * 3),
            (&[0xFF; 3], 9),
        ] {
            let Ok(Message::Error(text)) = Message::decode(&frame(kind::ERROR, payload)) else { panic!() };
            assert_eq!(text.len(), len);
            assert_eq!(Message::decode(&Message::Ok(text.clone()).encode()), Ok(Message::Ok(text)));
        }
    }

    #[test]
    fn payloads_that_do_not_parse_are_malformed() {
        for (kind, payload) in [
            (kind::REQUEST, &b"../../identity.json"[..]),
            (kind::REQUEST, &[b'a'; 63]),
            (kind::FIND_PEERS, &[b'g'; 64]),
            (kind::PEERS, b"{}"),
            (kind::PUBLISH, b"{}"),
            (kind::ANNOUNCE, br#"{"blobId":"00","peerAddress":"1.1.1.1:1"}"#),
            (kind::GET_HEAD, b"\xA1\x02\x05"),
            (kind::HEAD, b"\xA0"),
            (kind::WATCH, b"\xA1\x01\x81\x41\x00"),
            (kind::WATCH, &[0x81; 1000]),
            (kind::PIECE, &[0; 5]),
            (kind::PIECE, &[0, 0, 0, 0, 16, 0, 1]),
            (kind::PIECE, &[0, 0, 0, 0, 0, 2, 1]),
            (kind::PARTS, &[0; 4 + VALUES_LEN - 1]),
            (kind::PARTS, &[0; 4 + VALUES_LEN + 1]),
            (kind::WANT, b"\xA1\x01\x05"),
            (kind::CANCEL, b"\xA1\x01\x20"),
            (kind::ASK_HAVE, b"\xA1\x02\x05"),
            (kind::HAVE, b"\xA1\x02\x05"),
        ] {
            assert_eq!(Message::decode(&frame(kind, payload)), Err(Violation::Malformed));
        }
        assert_eq!(
            Message::decode(&frame(kind::PEERS, br#"["0.0.0.0:1","x","example.org:1"]"#)),
            Ok(Message::Peers(Vec::new()))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..32) {
            let _ = Message::decode(&frame(kind, &bytes));
            let _ = Message::decode(&bytes);
        }
    }
}
