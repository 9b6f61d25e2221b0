//! Heads: v5's signed JSON in both orders of members and both encryptions, with `body` beside v5's members.

use megatorrent_core::bep44::{SignedItem, signable};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{Head, HeadContent, HeadError};
use megatorrent_core::tree::TreeRef;
use serde_json::{Value, json};

use super::content::{chunk_entry, collections, describe, native_entry, tree_text};
use super::{Cases, Fault, Input, Layer, author, channel, hex, identity_of, public_key, secret, seed};
use crate::value::{integer, no_such_op};

/// Heads signed by `peers/v5.py`, which shares no code with core.
const FOREIGN: &str = include_str!("../../vectors/foreign/heads.json");

pub(super) const LAYER: Layer = Layer {
    name: "head",
    about: "write: seed, sequence, timestamp, content (collections, or body), read_key and nonce where private -> the text. \
            read: public_key, read_key (null: none), text -> its content. item: a BEP 44 item around a head, known (the \
            highest sequence known, 0: none) -> the same. Refused: malformed, other-channel, signature, read-key-missing, read-key-wrong, \
            sequence-mismatch, sequence-ahead.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    let read_key = input.optional("read_key").map(|_| secret(input, "read_key")).transpose()?;
    match op {
        "write" => {
            let content = content(input.object("content")?)?;
            let seal = match &read_key {
                Some(key) => Some((key, input.array("nonce")?)),
                None => None,
            };
            let (sequence, timestamp) = (input.number("sequence")?, input.number("timestamp")?);
            Ok(Head::to_json(&identity_of(input)?, sequence, timestamp, &content, seal).into())
        }
        "read" => {
            let channel = public_key(input, "public_key")?;
            let head = Head::from_json(&channel, read_key.as_ref(), input.text("text")?.as_bytes());
            head.map(|head| show(&head)).map_err(head_error)
        }
        "item" => {
            let seq = input.integer("seq")?;
            let (key, value) = (public_key(input, "public_key")?, input.bytes("value")?);
            let item = SignedItem { key, seq, value, signature: input.array("signature")? };
            let head = Head::from_item(&item, read_key.as_ref(), input.number("known")?);
            head.map(|head| show(&head)).map_err(head_error)
        }
        _ => Err(no_such_op(op)),
    }
}

fn head_error(error: HeadError) -> Fault {
    Fault::Reject(match error {
        HeadError::Malformed(_) => "malformed",
        HeadError::OtherChannel => "other-channel",
        HeadError::Signature => "signature",
        HeadError::ReadKeyMissing => "read-key-missing",
        HeadError::ReadKeyWrong => "read-key-wrong",
        HeadError::SequenceMismatch => "sequence-mismatch",
        HeadError::SequenceAhead => "sequence-ahead",
        other => return Fault::BadVector(format!("{other:?} has no class")),
    })
}

/// `{"body": …}` or `{"collections": …}`.
fn content(input: Input<'_>) -> Result<HeadContent, Fault> {
    if input.optional("body").is_none() {
        return collections(input).map(HeadContent::Inline);
    }
    let tree = TreeRef::from_text(input.text("body")?);
    tree.map(HeadContent::Body).ok_or_else(|| Fault::BadVector("body is no tree".into()))
}

fn show(head: &Head) -> Value {
    let content = match &head.content {
        HeadContent::Inline(collections) => json!({ "collections": describe(collections) }),
        HeadContent::Body(tree) => json!({ "body": *tree.to_text() }),
    };
    json!({
        "sequence": integer(head.sequence),
        "timestamp": integer(head.timestamp_ms),
        "private": head.private,
        "content": content,
    })
}

/// The read key of the private vectors.
pub(super) fn read_key() -> Value {
    "7a".repeat(32).into()
}

fn cases(cases: &mut Cases) {
    cases.section(6);
    write_cases(cases);
    foreign_cases(cases);
    reject_cases(cases);
    private_cases(cases);
    item_cases(cases);
    native_cases(cases);
    super::head_json::cases(cases);
}

fn write_cases(cases: &mut Cases) {
    let write = |content: &Value, read_key: Value, nonce: Value| {
        json!({ "seed": seed(), "sequence": 1_700_000_000_001_u64, "timestamp": 1_700_000_000_000_u64, "content": content,
                "read_key": read_key, "nonce": nonce })
    };
    let inline = json!({ "collections": [
        { "title": "Öffentlich \"quoted\" \\ \t", "items": ["magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a", chunk_entry("f", 5), native_entry("g", 5)] },
    ] });
    let body = json!({ "body": tree_text(12_345) });
    let nonce = || Value::from("000102030405060708090a0b");
    for (name, content) in [("inline", &inline), ("body", &body)] {
        cases.accept(format!("public, {name}"), "write", write(content, Value::Null, Value::Null));
        cases.accept(format!("private, {name}"), "write", write(content, read_key(), nonce()));
    }
}

fn foreign_cases(cases: &mut Cases) {
    let foreign: Value =
        serde_json::from_str(FOREIGN).expect("peers/check_vectors.py --write-foreign wrote it");
    for head in foreign.as_array().expect("a list") {
        let name = head["name"].as_str().expect("a name");
        let read = |key: Value| json!({ "public_key": channel(), "read_key": key, "text": head["text"] });
        cases.accept(format!("another program's head: {name}"), "read", read(head["read_key"].clone()));
        if !head["read_key"].is_null() {
            cases.reject(format!("without read key: {name}"), "read", read(Value::Null), "read-key-missing");
            cases.reject(
                format!("wrong read key: {name}"),
                "read",
                read("7b".repeat(32).into()),
                "read-key-wrong",
            );
        }
    }
}

/// The document signed as it stands: `document` has no signature and ends in `}`.
pub(super) fn signed(document: &str) -> String {
    let signature = hex(&author().sign(document.as_bytes()));
    format!(r#"{},"signature":"{signature}"}}"#, document.strip_suffix('}').expect("an object"))
}

pub(super) fn read(text: &str) -> Value {
    json!({ "public_key": channel(), "read_key": null, "text": text })
}

/// A document of ours with `members` after `publicKey`.
pub(super) fn document(members: &str) -> String {
    format!(r#"{{"publicKey":"{}",{members}}}"#, author().public_key())
}

fn reject_cases(cases: &mut Cases) {
    let good = document(r#""sequence":7,"collections":[],"timestamp":8"#);
    cases.accept("in an order of its own", "read", read(&signed(&good)));
    let sorted =
        format!(r#"{{"collections":[],"publicKey":"{}","sequence":7,"timestamp":8}}"#, author().public_key());
    let sorted_signature = hex(&author().sign(sorted.as_bytes()));
    let shuffled = good.replace('}', &format!(r#","signature":"{sorted_signature}"}}"#));
    cases.accept("signed sorted, sent in another order", "read", read(&shuffled));
    cases.accept("white space, signed compact", "read", read(&signed(&good).replace(',', " ,\n ")));
    let with_more =
        document(r#""sequence":7,"collections":[],"timestamp":8,"note":{"b":1.5,"a":[true,null,-1,1e+21]}"#);
    cases.accept("members more, which the signature covers", "read", read(&signed(&with_more)));
    let neither = good.replace(r#""sequence":7,"collections":[]"#, r#""collections":[],"sequence":7"#);
    let neither =
        neither.replace('}', &format!(r#","signature":"{}"}}"#, hex(&author().sign(good.as_bytes()))));
    cases.reject("signed in an order that is neither", "read", read(&neither), "signature");
    let changed = signed(&good).replace(":7,", ":8,");
    cases.reject("a changed sequence", "read", read(&changed), "signature");
    cases.reject(
        "signature over other bytes",
        "read",
        read(&shuffled.replace(&sorted_signature, &"11".repeat(64))),
        "signature",
    );
    let other = megatorrent_core::identity::Identity::new(&Secret::new([9; 32]), None);
    let foreign = signed(&good).replace(&author().public_key().to_string(), &other.public_key().to_string());
    cases.reject("another channel's", "read", read(&foreign), "other-channel");
    for (name, members) in [
        ("no sequence", r#""collections":[],"timestamp":8"#),
        ("a negative sequence", r#""sequence":-7,"collections":[],"timestamp":8"#),
        ("a sequence that is a text", r#""sequence":"7","collections":[],"timestamp":8"#),
        ("no collections", r#""sequence":7,"timestamp":8"#),
        ("collections that are an object", r#""sequence":7,"collections":{},"timestamp":8"#),
        (
            "an item that is neither",
            r#""sequence":7,"collections":[{"title":"","items":["http://x"]}],"timestamp":8"#,
        ),
    ] {
        cases.reject(name, "read", read(&signed(&document(members))), "malformed");
    }
    let traversal = json!([{ "title": "", "items": [chunk_entry("../../f", 5)] }]);
    let traversal = document(&format!(r#""sequence":7,"collections":{traversal},"timestamp":8"#));
    cases.reject("a name that leaves the folder", "read", read(&signed(&traversal)), "malformed");
    let twice = document(r#""sequence":7,"sequence":9,"collections":[],"timestamp":8"#);
    cases.reject("a member twice", "read", read(&signed(&twice)), "malformed");
    cases.reject("no signature", "read", read(&good), "malformed");
    cases.reject("no JSON", "read", read("manifest"), "malformed");
    cases.reject("bytes after it", "read", read(&format!("{}x", signed(&good))), "malformed");
    let deep = document(&format!(
        r#""sequence":7,"collections":[],"timestamp":8,"x":{}{}"#,
        "[".repeat(400),
        "]".repeat(400)
    ));
    cases.reject("nested 400 deep", "read", read(&signed(&deep)), "malformed");
}

fn private_cases(cases: &mut Cases) {
    let head = |members: &str| {
        let text = signed(&document(&format!(r#""sequence":7,"encrypted":true,{members}"#)));
        json!({ "public_key": channel(), "read_key": read_key(), "text": text })
    };
    let nonce = |length: usize| "00".repeat(length);
    for (name, members) in [
        ("a nonce of 8 bytes", format!(r#""nonce":"{}","ciphertext":"{}""#, nonce(8), nonce(40))),
        ("a nonce that is no hex", r#""nonce":"xx","ciphertext":"00""#.into()),
        ("no ciphertext", format!(r#""nonce":"{}""#, nonce(12))),
    ] {
        cases.reject(format!("private with {name}"), "read", head(&members), "malformed");
    }
    for length in [12, 24] {
        let members = format!(r#""nonce":"{}","ciphertext":"{}""#, nonce(length), nonce(7));
        let name = format!("private with a ciphertext shorter than a tag, nonce of {length}");
        cases.reject(name, "read", head(&members), "read-key-wrong");
    }
}

/// The heads that this implementation writes are read again: with a body, in the clear and sealed.
fn native_cases(cases: &mut Cases) {
    let inline =
        json!({ "collections": [{ "title": "T", "items": [chunk_entry("f", 5), native_entry("g", 6)] }] });
    let body = json!({ "body": tree_text(12_345) });
    for (name, content_of) in [("inline", &inline), ("body", &body)] {
        let content = content(Input::new(content_of)).expect("good content");
        let (key, nonce) = (Secret::new([0x7a; 32]), [9; 12]);
        for (kind, seal) in [("public", None), ("private", Some((&key, nonce)))] {
            let text = Head::to_json(&author(), 1_700_000_000_001, 1_700_000_000_000, &content, seal);
            let read_key = seal.map_or(Value::Null, |_| read_key());
            let input = json!({ "public_key": channel(), "read_key": read_key, "text": text });
            cases.accept(format!("a {kind} head, {name}"), "read", input);
        }
    }
}

fn item_cases(cases: &mut Cases) {
    const STEP_MAX: u64 = 1 << 53;
    const SEQUENCE: u64 = 1_700_000_000_000;
    let text = |sequence: u64| {
        signed(&document(&format!(r#""sequence":{sequence},"collections":[],"timestamp":8"#)))
    };
    let item = |seq: u64, sequence: u64, known: u64| {
        let seq = i64::try_from(seq).expect("it fits");
        let item = SignedItem::sign(&author(), seq, text(sequence).into_bytes()).expect("short");
        let (value, signature) = (hex(&item.value), hex(&item.signature));
        json!({ "public_key": channel(), "seq": integer(seq), "value": value, "signature": signature, "known": integer(known) })
    };
    cases.accept("an item", "item", item(SEQUENCE, SEQUENCE, SEQUENCE - 1));
    cases.accept("an item, none known", "item", item(SEQUENCE, SEQUENCE, 0));
    cases.accept("the highest that a writer signs, none known", "item", item(STEP_MAX, STEP_MAX, 0));
    cases.reject("a higher one, none known", "item", item(STEP_MAX + 1, STEP_MAX + 1, 0), "sequence-ahead");
    let far = SEQUENCE + STEP_MAX;
    cases.accept("an item 2^53 above the known one", "item", item(far, far, SEQUENCE));
    cases.reject(
        "an item more than 2^53 above the known one",
        "item",
        item(far + 1, far + 1, SEQUENCE),
        "sequence-ahead",
    );
    let last = i64::MAX.unsigned_abs();
    cases.accept("the last sequence of all", "item", item(last, last, last - STEP_MAX));
    let mismatch = item(SEQUENCE + 1, SEQUENCE, SEQUENCE);
    cases.reject("an item of another sequence", "item", mismatch, "sequence-mismatch");
    let mut negative = item(SEQUENCE, SEQUENCE, SEQUENCE);
    let signature = author().sign(&signable(-1, text(SEQUENCE).as_bytes()));
    (negative["seq"], negative["signature"]) = ((-1).into(), hex(&signature).into());
    cases.reject("an item of a negative sequence, well signed", "item", negative, "signature");
    let mut forged = item(SEQUENCE, SEQUENCE, SEQUENCE);
    forged["signature"] = hex(&author().sign(text(SEQUENCE).as_bytes())).into();
    cases.reject("an item signed over the value alone", "item", forged, "signature");
}
