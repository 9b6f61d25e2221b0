//! Heads whose reading depends on the fine points of JSON: order, numbers, and which members count.

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use megatorrent_core::bep44::SignedItem;
use serde_json::{Value, json};

use super::content::{chunk_entry, native_entry, tree_entry, tree_text};
use super::head::{document, read, read_key, signed};
use super::{Cases, author, channel, hex};

pub(super) fn cases(cases: &mut Cases) {
    order_cases(cases);
    number_cases(cases);
    text_cases(cases);
    depth_cases(cases);
    content_cases(cases);
    member_cases(cases);
    item_cases(cases);
    sealed_cases(cases);
}

/// The members that a head needs besides `publicKey`.
const REST: &str = r#""sequence":7,"collections":[],"timestamp":8"#;

/// A document of ours as it was sent, signed over a text that may be another. Both have no signature.
fn signed_over(sent: &str, covered: &str) -> Value {
    let signature = hex(&author().sign(covered.as_bytes()));
    let sent = sent.strip_suffix('}').expect("an object");
    read(&format!(r#"{sent},"signature":"{signature}"}}"#))
}

/// The document with one unknown member, signed as if that had been written otherwise.
fn member_signed_as(sent: &str, covered: &str) -> Value {
    let with = |member: &str| document(&format!(r#"{REST},"x":{member}"#));
    signed_over(&with(sent), &with(covered))
}

fn order_cases(cases: &mut Cases) {
    let key = author().public_key();
    let sorted = |names: &str| {
        format!(r#"{{"collections":[],"publicKey":"{key}","sequence":7,"timestamp":8,"x":{names}}}"#)
    };
    // U+FF61 comes before U+1F600 as a code point and in UTF-8, and after it in UTF-16 (d83d de00).
    let sent = document(&format!(r#"{REST},"x":{{"｡":1,"a":2,"😀":3}}"#));
    let by_utf_16 = sorted(r#"{"a":2,"😀":3,"｡":1}"#);
    let by_code_point = sorted(r#"{"a":2,"｡":1,"😀":3}"#);
    cases.accept("signed sorted by UTF-16 code units", "read", signed_over(&sent, &by_utf_16));
    cases.reject("signed sorted by code points", "read", signed_over(&sent, &by_code_point), "signature");
    let digits = document(&format!(r#"{REST},"x":{{"b":1,"10":2,"2":3}}"#));
    cases.accept("names that are digits, in an order of their own", "read", signed_over(&digits, &digits));
    let as_text = sorted(r#"{"10":2,"2":3,"b":1}"#);
    let as_numbers = sorted(r#"{"2":3,"10":2,"b":1}"#);
    cases.accept("names that are digits, sorted as texts", "read", signed_over(&digits, &as_text));
    cases.reject(
        "names that are digits, sorted as numbers",
        "read",
        signed_over(&digits, &as_numbers),
        "signature",
    );
}

fn number_cases(cases: &mut Cases) {
    for (sent, covered) in [
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709552000"),
        ("-9007199254740993", "-9007199254740992"),
        ("-0", "0"),
        ("1.0", "1"),
        ("7e0", "7"),
        ("1e20", "100000000000000000000"),
        ("1e21", "1e+21"),
        ("0.000001", "0.000001"),
        ("0.0000001", "1e-7"),
        ("-123.4560", "-123.456"),
        ("1752632500695037.25", "1752632500695037.2"),
        ("5e-324", "5e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
    ] {
        cases.accept(format!("{sent} signed as {covered}"), "read", member_signed_as(sent, covered));
    }
    for (sent, covered) in [
        ("9007199254740993", "9007199254740992"),
        ("-9007199254740993", "-9007199254740993"),
        ("18446744073709551616", "18446744073709551616"),
        ("1.0", "1.0"),
        ("1e21", "1e21"),
    ] {
        let input = member_signed_as(sent, covered);
        cases.reject(format!("{sent} signed as {covered}"), "read", input, "signature");
    }
    for number in ["1e400", "-1e400", "01", "+1", "1.", ".5", "0x1", "NaN", "Infinity"] {
        let input = member_signed_as(number, number);
        cases.reject(format!("the number {number}"), "read", input, "malformed");
    }
    for (name, members) in [
        ("a sequence of 7.0", r#""sequence":7.0,"collections":[],"timestamp":8"#),
        ("a sequence of 7e0", r#""sequence":7e0,"collections":[],"timestamp":8"#),
        ("a sequence of 2^64", r#""sequence":18446744073709551616,"collections":[],"timestamp":8"#),
        ("a timestamp of 8.5", r#""sequence":7,"collections":[],"timestamp":8.5"#),
        ("no timestamp", r#""sequence":7,"collections":[]"#),
    ] {
        let written = document(members).replace("7.0", "7").replace("7e0", "7");
        let written = written.replace("18446744073709551616", "18446744073709552000");
        cases.reject(name, "read", signed_over(&document(members), &written), "malformed");
    }
    let great = document(r#""sequence":18446744073709551615,"collections":[],"timestamp":9007199254740993"#);
    cases.accept("the highest sequence that is a number", "read", signed_over(&great, &great));
}

fn text_cases(cases: &mut Cases) {
    let escapes = r#""\u0000\b\t\n\u000b\f\r\u001f\"\\\/\u007f\u2028\u00e9\ud83d\ude00""#;
    let covered = "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7f}\u{2028}é😀\"";
    cases.accept("escapes, signed as JavaScript writes them", "read", member_signed_as(escapes, covered));
    let as_sent = member_signed_as(escapes, escapes);
    cases.reject("escapes, signed as they were sent", "read", as_sent, "signature");
    for (name, text) in [
        ("half a surrogate pair", r#""\ud83d""#),
        ("the other half alone", r#""\ude00""#),
        ("halves in the wrong order", r#""\ude00\ud83d""#),
        ("half a surrogate pair as a name", r#"{"\ud83d":1}"#),
        ("a control character without an escape", "\"\t\""),
        ("an escape that is none", r#""\x41""#),
        ("a member twice, further down", r#"{"a":1,"a":1}"#),
        ("a member twice, once escaped", r#"{"a":1,"\u0061":1}"#),
        ("a comma at the end", "[1,]"),
    ] {
        cases.reject(name, "read", member_signed_as(text, text), "malformed");
    }
    let marked = format!("\u{feff}{}", signed(&document(REST)));
    cases.reject("a byte order mark in front", "read", read(&marked), "malformed");
    let item = |value: Vec<u8>| {
        let item = SignedItem::sign(&author(), 7, value).expect("short");
        json!({ "public_key": channel(), "seq": 7, "value": hex(&item.value), "signature": hex(&item.signature), "known": 7 })
    };
    let text = signed(&document(REST));
    cases.accept("an item of sequence 7", "item", item(text.clone().into_bytes()));
    let mut broken = text.into_bytes();
    broken.splice(1..1, *b"\"\xff\":1,");
    cases.reject("an item that is not UTF-8", "item", item(broken), "malformed");
}

fn depth_cases(cases: &mut Cases) {
    let nested = |open: &str, close: &str, depth: usize| {
        let inner = open.repeat(depth) + "1" + &close.repeat(depth);
        read(&signed(&document(&format!(r#"{REST},"x":{inner}"#))))
    };
    cases.accept("nested 32 deep, the document counted", "read", nested("[", "]", 31));
    cases.reject("nested 33 deep, the document counted", "read", nested("[", "]", 32), "malformed");
    cases.accept("objects nested 32 deep", "read", nested(r#"{"a":"#, "}", 31));
    cases.reject("objects nested 33 deep", "read", nested(r#"{"a":"#, "}", 32), "malformed");
}

/// `body` beside the content that it takes the place of, and files in forms that a head does not have.
fn content_cases(cases: &mut Cases) {
    let body = tree_text(12_345);
    let with = |members: &str| read(&signed(&document(&format!(r#""sequence":7,"timestamp":8,{members}"#))));
    for (name, members) in [
        ("a body beside an empty list", format!(r#""collections":[],"body":"{body}""#)),
        ("a body alone", format!(r#""body":"{body}""#)),
        ("a body beside collections that mean nothing", format!(r#""collections":"7","body":"{body}""#)),
    ] {
        cases.accept(name, "read", with(&members));
    }
    let deep = body.replacen("AAAAAAAAMDkA", "AAAAAAAAMDkB", 1);
    assert_ne!(deep, body);
    // The last character has 4 bits too many.
    let bits = format!("{}h", body.strip_suffix('g').expect("it ends in 0x22"));
    for (name, value) in [
        ("a body that is null", "null".to_owned()),
        ("a body that is a number", "7".to_owned()),
        ("a body of 97 characters", format!(r#""{}""#, &body[..97])),
        ("a body of 99 characters", format!(r#""{body}A""#)),
        ("a body with padding", format!(r#""{body}==""#)),
        ("a body in the other alphabet", format!(r#""{}""#, body.replacen("MDkA", "MD+A", 1))),
        ("a body with bits too many", format!(r#""{bits}""#)),
        ("a body in hex", format!(r#""{}""#, "11".repeat(49))),
        ("a body of needless depth", format!(r#""{deep}""#)),
        ("a body of 146 characters", format!(r#""{}""#, "11".repeat(73))),
    ] {
        cases.reject(name, "read", with(&format!(r#""collections":[],"body":{value}"#)), "malformed");
    }
    let file = |entry: &Value| with(&format!(r#""collections":[{{"title":"","items":[{entry}]}}]"#));
    cases.accept("a chunk of a native blob", "read", file(&native_entry("f", 5)));
    cases.reject("a file of extents", "read", file(&tree_entry("f", 5)), "malformed");
    let mut both = chunk_entry("f", 5);
    both["extents"] = tree_entry("f", 5)["extents"].clone();
    cases.accept("a file with chunks, and extents that mean nothing", "read", file(&both));
    cases.reject("a folder", "read", file(&json!({ "name": "f", "size": 0, "folder": true })), "malformed");
    let mut foreign = native_entry("f", 5);
    foreign["chunks"][0]["nonce"] = "55".repeat(12).into();
    cases.reject("a root beside another nonce", "read", file(&foreign), "malformed");
    let mut no_chunks = chunk_entry("f", 0);
    no_chunks["chunks"] = Value::Null;
    cases.reject("a file with null for chunks alone", "read", file(&no_chunks), "malformed");
    let mut short = chunk_entry("f", 5);
    for name in ["offset", "length"] {
        short["chunks"][0].as_object_mut().expect("a chunk").remove(name);
    }
    cases.accept("a chunk without offset and length", "read", file(&short));
    short["chunks"][0].as_object_mut().expect("a chunk").remove("realSize");
    cases.reject("a chunk without realSize", "read", file(&short), "malformed");
}

/// What a member of another type means.
fn member_cases(cases: &mut Cases) {
    let with = |members: &str| read(&signed(&document(&format!(r#""sequence":7,"timestamp":8,{members}"#))));
    let file = |member: &str| {
        let entry = format!(r#"{{"name":"f","size":0,"chunks":[],{member}}}"#);
        with(&format!(r#""collections":[{{"items":[{entry}]}}]"#))
    };
    for (name, input) in [
        ("a collection without a title", with(r#""collections":[{"items":[]}]"#)),
        ("executable that is true", file(r#""executable":true"#)),
        ("executable that is a text is false", file(r#""executable":"yes""#)),
        ("executable that is false", file(r#""executable":false"#)),
        ("a time", file(r#""modified":1700000000000"#)),
        ("encrypted that is a text is public", with(r#""collections":[],"encrypted":"true""#)),
        ("encrypted that is null is public", with(r#""collections":[],"encrypted":null"#)),
        ("encrypted that is false is public", with(r#""collections":[],"encrypted":false"#)),
        ("hex in capitals", {
            let text = signed(&document(REST));
            let key = author().public_key().to_string();
            let capitals = document(REST).replace(&key, &key.to_uppercase());
            assert!(text.contains(&key));
            read(&signed(&capitals))
        }),
    ] {
        cases.accept(name, "read", input);
    }
    for (name, input) in [
        ("a collection without items", with(r#""collections":[{"title":"t"}]"#)),
        ("a collection whose title is a number", with(r#""collections":[{"title":7,"items":[]}]"#)),
        ("a time that is null", file(r#""modified":null"#)),
        ("a time that is a fraction", file(r#""modified":0.5"#)),
        ("an item that is a number", with(r#""collections":[{"items":[7]}]"#)),
        ("a document that is a list", read("[]")),
    ] {
        cases.reject(name, "read", input, "malformed");
    }
}

/// What holds for the items of a head as for those of a body.
fn item_cases(cases: &mut Cases) {
    let head = |collections: &Value| {
        read(&signed(&document(&format!(r#""sequence":7,"timestamp":8,"collections":{collections}"#))))
    };
    let of = |items: Value| head(&json!([{ "title": "", "items": items }]));
    let titled = |len| head(&json!([{ "title": "t".repeat(len), "items": [] }]));
    let with = |name: &str, value: Value| {
        let mut entry = chunk_entry("f", 5);
        entry["chunks"][0][name] = value;
        of(json!([entry]))
    };
    cases.accept("a title of 1024 bytes", "read", titled(1024));
    cases.accept(
        "a magnet and a file of one name",
        "read",
        of(json!(["magnet:?x", chunk_entry("magnet:?x", 5)])),
    );
    let (one, other) = (chunk_entry("f", 5), chunk_entry("f", 6));
    let longer = json!({ "name": "f", "size": 6, "chunks": one["chunks"] });
    for (name, input) in [
        ("a title of 1025 bytes", titled(1025)),
        ("a path twice", of(json!([one, other]))),
        ("a path in two collections", head(&json!([{ "items": [one] }, { "items": [other] }]))),
        ("a file where another needs a folder", of(json!([chunk_entry("f/g", 5), one]))),
        ("a size above the sum of its chunks", of(json!([longer]))),
        ("a file of a byte without a chunk", of(json!([{ "name": "f", "size": 1, "chunks": [] }]))),
        ("a chunk that leaves its blob", with("offset", 1.into())),
        ("a chunk that holds more than its piece", with("length", 20.into())),
        ("a chunk of a tag only", with("length", 16.into())),
        ("a chunk with a nonce of 24 bytes", with("nonce", "55".repeat(24).into())),
        ("a chunk whose length is 2^32", with("length", (1_u64 << 32).into())),
        ("a magnet in capitals", of(json!(["MAGNET:?x"]))),
    ] {
        cases.reject(name, "read", input, "malformed");
    }
}

/// Heads with a bad sealed part, and one that seals a body.
fn sealed_cases(cases: &mut Cases) {
    let nonce = [7; 12];
    let sealed = |plain: &str| {
        let cipher = ChaCha20Poly1305::new(&[0x7a; 32].into());
        let sealed = cipher.encrypt(&Nonce::from(nonce), plain.as_bytes()).expect("a short text");
        let (nonce, sealed) = (hex(&nonce), hex(&sealed));
        let members = format!(r#""sequence":7,"encrypted":true,"nonce":"{nonce}","ciphertext":"{sealed}""#);
        json!({ "public_key": channel(), "read_key": read_key(), "text": signed(&document(&members)) })
    };
    let body = tree_text(12_345);
    cases.accept("private with a body", "read", sealed(&format!(r#"{{"timestamp":8,"body":"{body}"}}"#)));
    cases.accept(
        "private with members more",
        "read",
        sealed(r#"{"collections":[],"timestamp":8,"sequence":9,"publicKey":"x"}"#),
    );
    for (name, plain) in [
        ("private, and sealed is a list", "[]".to_owned()),
        ("private, and sealed is a number", "7".to_owned()),
        ("private, and sealed is no JSON", "collections".to_owned()),
        ("private, and sealed is nothing", String::new()),
        ("private without a timestamp", r#"{"collections":[]}"#.to_owned()),
        ("private without content", r#"{"timestamp":8}"#.to_owned()),
        ("private with a member twice", r#"{"collections":[],"timestamp":8,"timestamp":8}"#.to_owned()),
        (
            "private, nested 33 deep",
            format!(r#"{{"collections":[],"timestamp":8,"x":{}{}}}"#, "[".repeat(32), "]".repeat(32)),
        ),
    ] {
        cases.reject(name, "read", sealed(&plain), "malformed");
    }
}
