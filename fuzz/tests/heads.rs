//! Heads (`docs/protocol.md` §6).

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::{
    COLLECTIONS_MAX, CONTENT_BYTES_MAX, EXTENTS_MAX, ITEM_VALUE_LEN_MAX, MAGNET_LEN_MAX, PATH_LEN_MAX,
    SEQUENCE_STEP_MAX, TITLE_LEN_MAX,
};
use megatorrent_core::manifest::{Head, HeadContent, HeadError, Item, Reference};
use megatorrent_fuzz::{check, near, number, texts};
use serde_json::{Value, json};

const READ_KEY: Secret = Secret::new([0x7a; 32]);
const NONCE: [u8; 12] = [4; 12];

/// The author of most heads among the vectors.
fn author() -> Identity {
    Identity::new(&Secret::new(std::array::from_fn(|n| u8::try_from(n).expect("32 bytes"))), None)
}

/// Heads of the author and others, signed.
fn signed() -> &'static [String] {
    static SIGNED: OnceLock<Vec<String>> = OnceLock::new();
    SIGNED.get_or_init(|| texts("head", "read", "text"))
}

/// What stands in a head beside its signature.
fn unsigned() -> &'static [String] {
    static UNSIGNED: OnceLock<Vec<String>> = OnceLock::new();
    UNSIGNED.get_or_init(|| {
        let content = |text: &String| {
            let mut document: Value = serde_json::from_str(text).ok()?;
            let members = document.as_object_mut()?;
            members.retain(|name, _| matches!(&**name, "body" | "collections" | "timestamp"));
            (!members.is_empty()).then(|| document.to_string())
        };
        signed().iter().filter_map(content).collect()
    })
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Signs a head's members.
fn sign(mut document: Value) -> String {
    let signature = author().sign(document.to_string().as_bytes());
    document["signature"] = hex(&signature).into();
    document.to_string()
}

/// A private head with this inner text, whatever it is.
fn private(sequence: u64, inner: &[u8]) -> String {
    let cipher = ChaCha20Poly1305::new(READ_KEY.expose().into());
    let sealed = cipher.encrypt(&Nonce::from(NONCE), inner).expect("short");
    sign(json!({
        "ciphertext": hex(&sealed),
        "encrypted": true,
        "nonce": hex(&NONCE),
        "publicKey": author().public_key().to_string(),
        "sequence": sequence,
    }))
}

/// A public head with these members; `None`: they are no object.
fn public(sequence: u64, inner: &[u8]) -> Option<String> {
    let mut document: Value = serde_json::from_slice(inner).ok()?;
    let members = document.as_object_mut()?;
    members.insert("publicKey".into(), author().public_key().to_string().into());
    members.insert("sequence".into(), sequence.into());
    members.remove("signature");
    members.remove("encrypted");
    Some(sign(document))
}

fn check_content(content: &HeadContent) {
    let HeadContent::Inline(collections) = content else { return };
    assert!(collections.len() <= COLLECTIONS_MAX);
    assert!(collections.iter().all(|one| one.title.len() <= TITLE_LEN_MAX));
    let mut bytes = 0;
    for item in collections.iter().flat_map(|one| &one.items) {
        match item {
            Item::Magnet(uri) => assert!(uri.starts_with("magnet:?") && uri.len() <= MAGNET_LEN_MAX),
            Item::File(file) => {
                bytes += file.size;
                assert!(file.path.as_str().len() <= PATH_LEN_MAX);
                assert_eq!(file.reference.size(), Some(file.size));
                let Reference::Chunks(chunks) = &file.reference else { panic!("{file:?}") };
                assert!(chunks.len() <= EXTENTS_MAX);
            }
        }
    }
    assert!(bytes <= CONTENT_BYTES_MAX);
}

#[test]
fn whatever_an_author_signs_is_refused_or_survives_being_written_again() {
    check!(2500, |input| {
        let sequence = number(input, &[])?;
        let is_private = input.arbitrary()?;
        let inner = near(input, unsigned())?;
        let text = if is_private { Some(private(sequence, &inner)) } else { public(sequence, &inner) };
        let Some(text) = text else { return Ok(()) };
        let (author, key) = (author(), author().public_key());
        let Ok(head) = Head::from_json(&key, Some(&READ_KEY), text.as_bytes()) else { return Ok(()) };
        assert_eq!((head.public_key, head.sequence, head.private), (key, sequence, is_private));
        check_content(&head.content);
        for seal in [None, Some((&READ_KEY, NONCE))] {
            let again = Head::to_json(&author, sequence, head.timestamp_ms, &head.content, seal);
            let want = Head { private: seal.is_some(), ..head.clone() };
            assert_eq!(Head::from_json(&key, Some(&READ_KEY), again.as_bytes()), Ok(want));
            assert!(!head.content.fits(seal.is_some()) || again.len() <= ITEM_VALUE_LEN_MAX + 8);
        }
        Ok(())
    });
}

#[test]
fn no_change_of_a_signed_head_is_taken() {
    static HEADS: OnceLock<Vec<Head>> = OnceLock::new();
    check!(2500, |input| {
        let key = author().public_key();
        let read = |text: &[u8]| Head::from_json(&key, Some(&READ_KEY), text).ok();
        let heads = HEADS.get_or_init(|| signed().iter().filter_map(|text| read(text.as_bytes())).collect());
        if let Some(head) = read(&near(input, signed())?) {
            assert!(heads.contains(&head), "{head:?}");
        }
        Ok(())
    });
}

fn item(input: &mut Unstructured<'_>) -> Result<(SignedItem, u64)> {
    let sequence = number(input, &[])?;
    let text = public(sequence, &near(input, unsigned())?).unwrap_or_default();
    let seq = if input.ratio(1, 4)? { number(input, &[])? } else { sequence };
    let item = SignedItem::sign(&author(), seq.cast_signed(), text.into_bytes());
    let mut item = item.unwrap_or_else(|| SignedItem {
        key: author().public_key(),
        seq: seq.cast_signed(),
        value: vec![0; ITEM_VALUE_LEN_MAX + 1],
        signature: [0; 64],
    });
    if input.ratio(1, 4)? {
        item.value = near(input, &[&item.value])?;
    }
    Ok((item, sequence))
}

#[test]
fn an_item_is_taken_only_with_its_own_signature_the_heads_sequence_and_a_step_that_is_not_too_long() {
    check!(1500, |input| {
        let (item, sequence) = item(input)?;
        let known = number(input, &[sequence, sequence.wrapping_sub(SEQUENCE_STEP_MAX)])?;
        let head = Head::from_item(&item, Some(&READ_KEY), known);
        if !item.verify() {
            assert_eq!(head, Err(HeadError::Signature));
        } else if let Ok(head) = head {
            assert!(item.seq >= 0 && item.value.len() <= ITEM_VALUE_LEN_MAX);
            assert_eq!(head.sequence, item.seq.unsigned_abs());
            assert!(head.sequence.saturating_sub(known) <= SEQUENCE_STEP_MAX);
        }
        Ok(())
    });
}
