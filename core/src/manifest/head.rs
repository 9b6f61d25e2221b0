//! The head: v5's signed JSON manifest, with `body` where the content does not fit in it (`docs/protocol.md` §6).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use poly1305::Poly1305;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::json::Json;
use super::{Collection, Item, check_collections, entry};
use crate::bep44::SignedItem;
use crate::blob::{NONCE_LEN, TAG_LEN};
use crate::hex;
use crate::identity::{Identity, PublicKey};
use crate::ids::Secret;
use crate::limits::{ITEM_VALUE_LEN_MAX, SEQUENCE_SIGNED_MAX, SEQUENCE_STEP_MAX};
use crate::tree::{Shape, TreeRef};

/// Bytes of a secretbox nonce: XSalsa20's.
const SECRETBOX_NONCE_LEN: usize = 24;

/// What a head carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadContent {
    /// The content itself, in v5's form, which has no place for the channel's title or description.
    Inline(Vec<Collection>),
    /// The body's tree.
    Body(TreeRef),
}

impl HeadContent {
    /// Whether a head with this content fits a BEP 44 value, whatever its sequence and timestamp.
    pub fn fits(&self, private: bool) -> bool {
        // No length depends on a key, so any will do.
        let key = Secret::new([0; 32]);
        let anyone = Identity::new(&key, None);
        let seal = private.then_some((&key, [0; NONCE_LEN]));
        let longest = Head::to_json(&anyone, SEQUENCE_SIGNED_MAX, SEQUENCE_SIGNED_MAX, self, seal);
        longest.len() <= ITEM_VALUE_LEN_MAX
    }

    fn to_members(&self) -> (Json, Option<Json>) {
        match self {
            Self::Inline(collections) => {
                (Json::Array(collections.iter().map(collection_to_value).collect()), None)
            }
            Self::Body(tree) => (Json::Array(Vec::new()), Some(entry::tree_to_value(tree))),
        }
    }

    /// Reads the object with `collections` and perhaps `body`, which takes precedence.
    fn from_value(shape: Shape, value: &Json) -> Result<Self, &'static str> {
        if let Some(body) = value.get("body") {
            let tree = entry::tree_from_value(shape, body);
            return tree.map(Self::Body).ok_or("its body is not a tree's reference of 98 characters");
        }
        let list = value.get("collections").and_then(Json::as_array).ok_or("it has no collections")?;
        let collections = list.iter().map(collection_from_value).collect::<Result<Vec<_>, _>>()?;
        check_collections(shape, &collections)?;
        Ok(Self::Inline(collections))
    }
}

/// A verified, readable head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The channel.
    pub public_key: PublicKey,
    /// Its sequence.
    pub sequence: u64,
    /// The author's clock, milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Whether it was sealed.
    pub private: bool,
    /// The content.
    pub content: HeadContent,
}

impl Head {
    /// Returns the signed JSON text, members sorted by name (canonical), sealed where a read key and a nonce are given. The
    /// nonce must never have been used with that key. JavaScript reads no number above [`SEQUENCE_SIGNED_MAX`] exactly.
    pub fn to_json(
        identity: &Identity,
        sequence: u64,
        timestamp_ms: u64,
        content: &HeadContent,
        seal: Option<(&Secret, [u8; NONCE_LEN])>,
    ) -> String {
        let public_key = Some(Json::hex(identity.public_key().as_bytes()));
        let (collections, body) = content.to_members();
        let timestamp = Some(Json::Uint(timestamp_ms));
        let mut document = match seal {
            None => Json::object([
                ("body", body),
                ("collections", Some(collections)),
                ("publicKey", public_key),
                ("sequence", Some(Json::Uint(sequence))),
                ("timestamp", timestamp),
            ]),
            Some((read_key, nonce)) => {
                let inner = Json::object([
                    ("body", body),
                    ("collections", Some(collections)),
                    ("timestamp", timestamp),
                ]);
                let plain = Zeroizing::new(inner.to_text());
                let cipher = ChaCha20Poly1305::new(read_key.expose().into());
                let sealed = cipher.encrypt(&Nonce::from(nonce), plain.as_bytes());
                Json::object([
                    (
                        "ciphertext",
                        Some(Json::hex(&sealed.expect("a head is shorter than ChaCha20's 256 GiB"))),
                    ),
                    ("encrypted", Some(Json::Bool(true))),
                    ("nonce", Some(Json::hex(&nonce))),
                    ("publicKey", public_key),
                    ("sequence", Some(Json::Uint(sequence))),
                ])
            }
        };
        document.sort();
        let signature = Json::hex(&identity.sign(document.to_text().as_bytes()));
        if let Json::Object(members) = &mut document {
            members.push(("signature".into(), signature));
        }
        document.sort();
        document.to_text()
    }

    /// Verifies and reads a head of `channel`, in both member orders and with both nonce lengths (spec v5). The caller bounds
    /// the text's length.
    pub fn from_json(channel: &PublicKey, read_key: Option<&Secret>, text: &[u8]) -> Result<Self, HeadError> {
        Self::from_json_in(Shape::REAL, channel, read_key, text)
    }

    /// [`Self::from_json`], where trees have another shape.
    pub(crate) fn from_json_in(
        shape: Shape,
        channel: &PublicKey,
        read_key: Option<&Secret>,
        text: &[u8],
    ) -> Result<Self, HeadError> {
        let mut document = Json::parse(text).ok_or(HeadError::Malformed("it is not JSON"))?;
        let key = document.get("publicKey").and_then(Json::as_bytes);
        if key.ok_or(HeadError::Malformed("it has no publicKey"))? != *channel.as_bytes() {
            return Err(HeadError::OtherChannel);
        }
        verify(channel, &mut document)?;
        let sequence = document.get("sequence").and_then(Json::as_u64);
        let sequence = sequence.ok_or(HeadError::Malformed("its sequence is not a number from 0 on"))?;
        let private = document.get("encrypted") == Some(&Json::Bool(true));
        let inner = if private { open(&document, read_key)? } else { document };
        let timestamp = inner.get("timestamp").and_then(Json::as_u64);
        let timestamp_ms =
            timestamp.ok_or(HeadError::Malformed("its timestamp is not a number from 0 on"))?;
        let content = HeadContent::from_value(shape, &inner).map_err(HeadError::Malformed)?;
        Ok(Self { public_key: *channel, sequence, timestamp_ms, private, content })
    }

    /// Verifies and reads the head in a DHT item. The item's own signature must verify too, and its sequence must be the
    /// head's: at most [`SEQUENCE_STEP_MAX`] above `known`, the channel's highest known sequence (0 before the first).
    pub fn from_item(item: &SignedItem, read_key: Option<&Secret>, known: u64) -> Result<Self, HeadError> {
        Self::from_item_in(Shape::REAL, item, read_key, known)
    }

    /// [`Self::from_item`], where trees have another shape.
    pub(crate) fn from_item_in(
        shape: Shape,
        item: &SignedItem,
        read_key: Option<&Secret>,
        known: u64,
    ) -> Result<Self, HeadError> {
        if !item.verify() {
            return Err(HeadError::Signature);
        }
        let head = Self::from_json_in(shape, &item.key, read_key, &item.value)?;
        if u64::try_from(item.seq) != Ok(head.sequence) {
            return Err(HeadError::SequenceMismatch);
        }
        if head.sequence > known.saturating_add(SEQUENCE_STEP_MAX) {
            return Err(HeadError::SequenceAhead);
        }
        Ok(head)
    }
}

/// Takes out `signature` and checks it over the rest, in the document's order or sorted by name.
fn verify(channel: &PublicKey, document: &mut Json) -> Result<(), HeadError> {
    let signature = document.get("signature").and_then(Json::as_bytes);
    let signature = signature.ok_or(HeadError::Malformed("it has no signature of 128 hex digits"))?;
    if let Json::Object(members) = document {
        members.retain(|(name, _)| name != "signature");
    }
    let own_order = document.to_text();
    if channel.verifies(own_order.as_bytes(), &signature) {
        return Ok(());
    }
    document.sort();
    let sorted = document.to_text();
    let good = sorted != own_order && channel.verifies(sorted.as_bytes(), &signature);
    good.then_some(()).ok_or(HeadError::Signature)
}

/// Opens the JSON inside a sealed head.
fn open(document: &Json, read_key: Option<&Secret>) -> Result<Json, HeadError> {
    let member = |name| document.get(name).and_then(Json::as_text).and_then(hex::decode);
    let nonce = member("nonce").ok_or(HeadError::Malformed("its nonce is not hex"))?;
    let sealed = member("ciphertext").ok_or(HeadError::Malformed("its ciphertext is not hex"))?;
    if nonce.len() != NONCE_LEN && nonce.len() != SECRETBOX_NONCE_LEN {
        return Err(HeadError::Malformed("its nonce is neither 12 nor 24 bytes"));
    }
    let key = read_key.ok_or(HeadError::ReadKeyMissing)?;
    let plain = if let Ok(nonce) = <[u8; SECRETBOX_NONCE_LEN]>::try_from(&*nonce) {
        secretbox_open(key, &nonce, sealed)
    } else {
        let nonce =
            Nonce::try_from(&*nonce).map_err(|_| HeadError::Malformed("its nonce is not 12 bytes"))?;
        ChaCha20Poly1305::new(key.expose().into()).decrypt(&nonce, &*sealed).ok()
    };
    let plain = Zeroizing::new(plain.ok_or(HeadError::ReadKeyWrong)?);
    Json::parse(&plain).ok_or(HeadError::Malformed("its sealed content is not JSON"))
}

/// NaCl's `crypto_secretbox_open`: XSalsa20 whose first 32 bytes are the Poly1305 key, the tag in front.
fn secretbox_open(key: &Secret, nonce: &[u8; SECRETBOX_NONCE_LEN], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let mut cipher = XSalsa20::new(key.expose().into(), &(*nonce).into());
    let mut mac_key = Zeroizing::new([0; 32]);
    cipher.apply_keystream(&mut *mac_key);
    let (tag, message) = sealed.split_first_chunk_mut::<TAG_LEN>()?;
    let computed = Poly1305::new((&*mac_key).into()).compute_unpadded(message);
    if !bool::from(computed.as_slice().ct_eq(tag)) {
        return None;
    }
    cipher.apply_keystream(message);
    Some(sealed.split_off(TAG_LEN))
}

fn collection_to_value(collection: &Collection) -> Json {
    let items = collection.items.iter().map(|item| match item {
        Item::File(file) => entry::to_value(file),
        Item::Magnet(uri) => Json::Text(uri.clone()),
    });
    Json::object([
        ("items", Some(Json::Array(items.collect()))),
        ("title", Some(Json::Text(collection.title.clone()))),
    ])
}

fn collection_from_value(value: &Json) -> Result<Collection, &'static str> {
    let title = match value.get("title") {
        None => String::new(),
        Some(title) => title.as_text().ok_or("a collection's title is not a text")?.into(),
    };
    let items = value.get("items").and_then(Json::as_array).ok_or("a collection has no items")?;
    let item = |item: &Json| match item {
        Json::Text(uri) => Ok(Item::Magnet(uri.clone())),
        file => entry::from_value(file).map(Item::File),
    };
    Ok(Collection { title, items: items.iter().map(item).collect::<Result<_, _>>()? })
}

/// Why a head cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// Not the JSON of a head; the text says which part.
    Malformed(&'static str),
    /// It belongs to another channel.
    OtherChannel,
    /// The signature does not verify in either order of members.
    Signature,
    /// It is sealed and no read key is known.
    ReadKeyMissing,
    /// It is sealed under another read key.
    ReadKeyWrong,
    /// Its sequence is not that of the DHT item around it.
    SequenceMismatch,
    /// Its sequence lies more than [`SEQUENCE_STEP_MAX`] above the highest known.
    SequenceAhead,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(why) => return write!(f, "the manifest is malformed: {why}"),
            Self::OtherChannel => "the manifest is another channel's",
            Self::Signature => {
                "the manifest's signature does not verify: it is not from the channel's author"
            }
            Self::ReadKeyMissing => {
                "the channel is private: use its address with the read key (megatorrent://PUBLICKEY:READKEY)"
            }
            Self::ReadKeyWrong => {
                "the read key does not open the channel: ask its author for the current one"
            }
            Self::SequenceMismatch => "the manifest's sequence is not that of the DHT item around it",
            Self::SequenceAhead => {
                "the manifest's sequence is more than 2^53 above the newest one known: the channel's author used another program, \
                 or somebody else has the key"
            }
        })
    }
}

impl core::error::Error for HeadError {}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    const READ_KEY: Secret = Secret::new([9; 32]);

    /// NaCl's `crypto_secretbox`, which other v5 programs use.
    fn secretbox(key: &Secret, nonce: &[u8; SECRETBOX_NONCE_LEN], message: &[u8]) -> Vec<u8> {
        let mut cipher = XSalsa20::new(key.expose().into(), &(*nonce).into());
        let mut mac_key = [0; 32];
        cipher.apply_keystream(&mut mac_key);
        let mut sealed = message.to_vec();
        cipher.apply_keystream(&mut sealed);
        let mut out = Poly1305::new(&mac_key.into()).compute_unpadded(&sealed).to_vec();
        out.append(&mut sealed);
        out
    }

    #[test]
    fn nacl_vector_opens() {
        // NaCl's tests/secretbox.c and secretbox2.c.
        let key = Secret::from_hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let key = key.expect("the test's hex is good");
        let nonce = hex::decode_array("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
            .expect("the test's hex is good");
        let message = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129\
                       6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde\
                       048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705";
        let sealed = "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a\
                      c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae\
                      90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74\
                      e355a5";
        let sealed = hex::decode(sealed).expect("the test's hex is good");
        assert_eq!(secretbox_open(&key, &nonce, sealed.clone()), hex::decode(message));
        for at in [0, 15, 16, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(secretbox_open(&key, &nonce, changed), None);
        }
        assert_eq!(secretbox_open(&key, &nonce, sealed[..15].to_vec()), None);
    }

    #[test]
    fn a_secretbox_head_is_read() {
        let author = Identity::new(&Secret::new([1; 32]), None);
        let nonce = [4; SECRETBOX_NONCE_LEN];
        let inner = r#"{"collections":[{"title":"T","items":["magnet:?xt=urn:btih:0"]}],"timestamp":8}"#;
        let sealed = hex::encode(&secretbox(&READ_KEY, &nonce, inner.as_bytes()));
        let (key, nonce) = (author.public_key(), hex::encode(&nonce));
        let unsigned = format!(
            r#"{{"publicKey":"{key}","sequence":7,"encrypted":true,"nonce":"{nonce}","ciphertext":"{sealed}"}}"#
        );
        let signature = hex::encode(&author.sign(unsigned.as_bytes()));
        let text = unsigned.replace("true,", &format!("true,\"signature\":\"{signature}\","));
        let head = Head::from_json(&key, Some(&READ_KEY), text.as_bytes()).expect("v5's other form");
        assert_eq!((head.sequence, head.timestamp_ms, head.private), (7, 8, true));
        let items = alloc::vec![Item::Magnet("magnet:?xt=urn:btih:0".to_string())];
        assert_eq!(
            head.content,
            HeadContent::Inline(alloc::vec![Collection { title: "T".to_string(), items }])
        );
        let wrong = Secret::new([8; 32]);
        assert_eq!(Head::from_json(&key, Some(&wrong), text.as_bytes()), Err(HeadError::ReadKeyWrong));
        assert_eq!(Head::from_json(&key, None, text.as_bytes()), Err(HeadError::ReadKeyMissing));
    }
}
