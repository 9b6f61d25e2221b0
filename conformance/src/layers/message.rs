//! v5's messages: reading a plaintext, and writing it again.

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::codec::{Message, kind};
use megatorrent_core::limits::{GOSSIP_CHANNELS_MAX, PEERS_MAX, TEXT_LEN_MAX};
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, author, hex, hosts, v6, violation};
use crate::value::{digest, integer, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "message",
    about: "decode: plaintext of a frame -> the message, and the plaintext with which it is sent.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    if op == "decode" { decode(input) } else { Err(no_such_op(op)) }
}

/// Reads a plaintext, and writes it again.
pub(super) fn decode(input: Input<'_>) -> Result<Value, Fault> {
    let plaintext = input.bytes("plaintext")?;
    let message = Message::decode(&plaintext).map_err(violation)?;
    Ok(json!({ "message": describe(&message), "sent": digest(&message.encode()) }))
}

fn describe(message: &Message) -> Value {
    match message {
        Message::Hello { version, sequences, port, features } => {
            let sequences = sequences.iter().map(|(key, sequence)| (key.to_string(), integer(*sequence)));
            let sequences = Value::Object(sequences.collect());
            let features = integer(*features);
            json!({ "type": "HELLO", "v": version, "sequences": sequences, "port": port, "features": features })
        }
        Message::Request(id) => json!({ "type": "REQUEST", "id": id.to_hex() }),
        Message::Data(bytes) => json!({ "type": "DATA", "bytes": digest(bytes) }),
        Message::FindPeers(id) => json!({ "type": "FIND_PEERS", "id": id.to_hex() }),
        Message::Peers(peers) => {
            let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
            json!({ "type": "PEERS", "peers": peers })
        }
        Message::Publish(item) => json!({ "type": "PUBLISH", "item": describe_item(item) }),
        Message::Announce(id, peer, hops) => {
            json!({ "type": "ANNOUNCE", "id": id.to_hex(), "peer": peer.to_string(), "hops": hops })
        }
        Message::Ok(text) => json!({ "type": "OK", "text": text }),
        Message::Error(text) => json!({ "type": "ERROR", "text": text }),
        Message::Unknown(kind) => json!({ "type": "unknown", "byte": kind }),
        Message::Empty => json!({ "type": "empty" }),
        beyond => v6::describe(beyond).expect("it describes the others"),
    }
}

pub(super) fn describe_item(item: &SignedItem) -> Value {
    json!({
        "k": item.key.to_string(),
        "seq": integer(item.seq),
        "v": hex(&item.value),
        "sig": hex(&item.signature),
        "verifies": item.verify(),
    })
}

/// The arguments of one message.
pub(super) fn message(kind: u8, payload: impl AsRef<[u8]>) -> Value {
    json!({ "plaintext": hex(&[&[kind], payload.as_ref()].concat()) })
}

fn cases(cases: &mut Cases) {
    cases.section(10);
    cases.accept("an empty frame", "decode", json!({ "plaintext": "" }));
    cases.accept("an unknown type", "decode", message(0x42, b"whatever"));
    cases.accept("DATA", "decode", message(kind::DATA, b"part of a blob"));
    cases.accept("DATA without bytes", "decode", message(kind::DATA, b""));
    cases.accept("OK", "decode", message(kind::OK, b"Published"));
    cases.accept("ERROR", "decode", message(kind::ERROR, b"Not Found"));
    cases.accept("ERROR whose text is cut", "decode", message(kind::ERROR, "x".repeat(TEXT_LEN_MAX + 1)));
    cases.accept("ERROR that is no UTF-8", "decode", message(kind::ERROR, [0xff, 0xfe, b'x']));
    hello_cases(cases);
    id_cases(cases);
    peers_cases(cases);
    publish_cases(cases);
    announce_cases(cases);
}

fn hello_cases(cases: &mut Cases) {
    let key = author().public_key();
    let hello = |text: &str| message(kind::HELLO, text.replace("KEY", &key.to_string()));
    for (name, text) in [
        ("HELLO that says nothing", "{}"),
        ("HELLO with version and no gossip", r#"{"v":5}"#),
        ("HELLO of a later version", r#"{"v":6,"gossip":{}}"#),
        ("HELLO with a bare gossip map", r#"{"gossip":{"KEY":1700000000000}}"#),
        ("HELLO with sequences", r#"{"v":5,"gossip":{"sequences":{"KEY":1700000000000}}}"#),
        ("HELLO with members more", r#"{"v":5,"agent":"x","gossip":{"sequences":{"KEY":1},"more":[1]}}"#),
        ("HELLO with a port", r#"{"v":6,"gossip":{},"port":6881}"#),
        ("HELLO with the highest port", r#"{"v":6,"port":65535}"#),
        ("HELLO whose port is 0", r#"{"v":6,"port":0}"#),
        ("HELLO whose port is above 65535", r#"{"v":6,"port":70000}"#),
        ("HELLO whose port is negative", r#"{"v":6,"port":-1}"#),
        ("HELLO whose port is a text", r#"{"v":6,"port":"7"}"#),
        ("HELLO whose port is null", r#"{"v":6,"port":null}"#),
        ("HELLO with features", r#"{"v":6,"features":5}"#),
        ("HELLO with all features", r#"{"v":6,"features":18446744073709551615}"#),
        ("HELLO with no features", r#"{"v":6,"features":0}"#),
        ("HELLO whose features are above 2^64", r#"{"v":6,"features":18446744073709551616}"#),
        ("HELLO whose features are negative", r#"{"v":6,"features":-1}"#),
        ("HELLO whose features are 5.0", r#"{"v":6,"features":5.0}"#),
        ("HELLO whose features are a text", r#"{"v":6,"features":"5"}"#),
        ("HELLO whose features are a list", r#"{"v":6,"features":[5]}"#),
        ("HELLO whose features are null", r#"{"v":6,"features":null}"#),
        ("HELLO of version 7", r#"{"v":7,"gossip":{"sequences":{"KEY":1}}}"#),
        ("HELLO whose sequences are a list", r#"{"v":5,"gossip":{"sequences":[],"KEY":3}}"#),
        (
            "HELLO with the greatest sequence",
            r#"{"v":5,"gossip":{"sequences":{"KEY":18446744073709551615}}}"#,
        ),
        (
            "HELLO with a sequence above 2^64",
            r#"{"v":5,"gossip":{"sequences":{"KEY":18446744073709551616}}}"#,
        ),
        ("HELLO with white space", "{ \"v\" : 5 ,\n\"gossip\" : { } }"),
        (
            "HELLO with keys and numbers that mean nothing",
            r#"{"v":5,"gossip":{"sequences":{"KEY":-1,"x":2}}}"#,
        ),
    ] {
        cases.accept(name, "decode", hello(text));
    }
    refused_hellos(cases);
}

fn refused_hellos(cases: &mut Cases) {
    let hello = |text: &str| message(kind::HELLO, text);
    for (name, text, class) in [
        ("HELLO of version 4", r#"{"v":4,"gossip":{}}"#, "version"),
        ("HELLO whose version is a text", r#"{"v":"5"}"#, "malformed"),
        ("HELLO whose version is 5.0", r#"{"v":5.0}"#, "malformed"),
        ("HELLO whose version is null", r#"{"v":null}"#, "malformed"),
        ("HELLO whose gossip is null", r#"{"v":5,"gossip":null}"#, "malformed"),
        ("HELLO whose version is negative", r#"{"v":-5}"#, "malformed"),
        ("HELLO whose gossip is a list", r#"{"v":5,"gossip":[]}"#, "malformed"),
        ("HELLO that is a list", "[]", "malformed"),
        ("HELLO that ends early", r#"{"v":5"#, "malformed"),
        ("HELLO with bytes after it", r#"{"v":5}x"#, "malformed"),
        ("HELLO without payload", "", "malformed"),
    ] {
        cases.reject(name, "decode", hello(text), class);
    }
    let deep = |depth: usize| {
        message(
            kind::HELLO,
            format!(r#"{{"v":5,"gossip":{{}},"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
        )
    };
    cases.accept("HELLO nested 32 deep", "decode", deep(31));
    cases.reject("HELLO nested 1000 deep", "decode", deep(1000), "malformed");
    let keys = (0..=GOSSIP_CHANNELS_MAX).map(|i| format!(r#""{i}":1"#)).collect::<Vec<_>>().join(",");
    cases.accept(
        "HELLO with more channels than are read",
        "decode",
        hello(&format!(r#"{{"gossip":{{{keys}}}}}"#)),
    );
}

fn id_cases(cases: &mut Cases) {
    for (kind, name) in [(kind::REQUEST, "REQUEST"), (kind::FIND_PEERS, "FIND_PEERS")] {
        cases.accept(name, "decode", message(kind, "0123456789abcdef".repeat(4)));
        for (what, payload) in [
            ("without an id", String::new()),
            ("for 63 digits", "a".repeat(63)),
            ("for 65 digits", "a".repeat(65)),
            ("for 32 raw bytes", "\u{1}".repeat(32)),
            ("for what is no hex", "g".repeat(64)),
            ("with a line's end", format!("{}\n", "a".repeat(64))),
            ("for a path", "../../identity.json".into()),
            ("for a path of 64 characters", format!("{}/", "../".repeat(21))),
        ] {
            cases.reject(format!("{name} {what}"), "decode", message(kind, payload), "malformed");
        }
    }
}

fn peers_cases(cases: &mut Cases) {
    let peers = |text: &str| message(kind::PEERS, text);
    cases.accept("PEERS, none", "decode", peers("[]"));
    cases.accept("PEERS", "decode", peers(r#"["192.0.2.1:6881","[2001:db8::1]:6881"]"#));
    let (onion, i2p) = (hosts::ONIONS[0], hosts::I2P);
    cases.accept("PEERS with an onion name", "decode", peers(&format!(r#"["{onion}:80"]"#)));
    cases.accept("PEERS with an I2P name", "decode", peers(&format!(r#"["{i2p}:80"]"#)));
    let names =
        [hosts::ONION_CHECKSUM, hosts::ONION_VERSION, hosts::I2P_TRAILING_BITS, "a.onion", "a.i2p", onion];
    let names = names.map(|host| format!(r#""{host}:80""#)).join(",");
    cases.accept("PEERS with names that are none", "decode", peers(&format!("[{names}]")));
    let useless =
        r#"["0.0.0.0:1","224.0.0.1:1","192.0.2.1:0","192.0.2.1","example.org:1",7,null,"192.0.2.2:2"]"#;
    cases.accept("PEERS with addresses of no use", "decode", peers(useless));
    let many = (0..=PEERS_MAX).map(|i| format!(r#""192.0.2.{i}:1""#)).collect::<Vec<_>>().join(",");
    cases.accept("PEERS with more than are read", "decode", peers(&format!("[{many}]")));
    cases.reject("PEERS that is an object", "decode", peers("{}"), "malformed");
    cases.reject("PEERS nested 60 000 deep", "decode", peers(&"[".repeat(60_000)), "malformed");
}

fn publish_cases(cases: &mut Cases) {
    let item = SignedItem::sign(&author(), 7, b"value".to_vec()).expect("short");
    let (key, signature) = (item.key.to_string(), hex(&item.signature));
    let publish = |seq: &str, value: &str, signature: &str| {
        message(kind::PUBLISH, format!(r#"{{"k":"{key}","seq":{seq},"v":"{value}","sig":"{signature}"}}"#))
    };
    let value = hex(&item.value);
    cases.accept("PUBLISH", "decode", publish("7", &value, &signature));
    cases.accept("PUBLISH whose signature does not verify", "decode", publish("8", &value, &signature));
    let bare = hex(&author().sign(&item.value));
    cases.accept("PUBLISH whose signature is over the value alone", "decode", publish("7", &value, &bare));
    cases.reject(
        "PUBLISH with a fraction for seq",
        "decode",
        publish("7.5", &value, &signature),
        "malformed",
    );
    cases.reject(
        "PUBLISH with seq above 2^63",
        "decode",
        publish("9223372036854775808", &value, &signature),
        "malformed",
    );
    cases.accept("PUBLISH with a negative seq", "decode", publish("-7", &value, &signature));
    cases.accept("PUBLISH of nothing", "decode", publish("7", "", &signature));
    cases.reject("PUBLISH with a seq of 7.0", "decode", publish("7.0", &value, &signature), "malformed");
    cases.reject("PUBLISH with half a byte", "decode", publish("7", "7", &signature), "malformed");
    cases.reject(
        "PUBLISH with a short signature",
        "decode",
        publish("7", &value, &signature[2..]),
        "malformed",
    );
    cases.reject("PUBLISH without members", "decode", message(kind::PUBLISH, "{}"), "malformed");
}

fn announce_cases(cases: &mut Cases) {
    let announce = |id: &str, peer: &str| {
        message(kind::ANNOUNCE, format!(r#"{{"blobId":"{id}","peerAddress":"{peer}"}}"#))
    };
    let id = "ab".repeat(32);
    cases.accept("ANNOUNCE", "decode", announce(&id, "192.0.2.1:6881"));
    cases.accept("ANNOUNCE of an onion name", "decode", announce(&id, &format!("{}:80", hosts::ONIONS[1])));
    for (name, host) in [
        ("ANNOUNCE of an onion name with a wrong checksum", hosts::ONION_CHECKSUM),
        ("ANNOUNCE of an onion name of another version", hosts::ONION_VERSION),
        ("ANNOUNCE of an I2P name with unused bits that are not 0", hosts::I2P_TRAILING_BITS),
        ("ANNOUNCE of a name of an I2P address book", "tracker.i2p"),
    ] {
        cases.accept(name, "decode", announce(&id, &format!("{host}:80")));
    }
    let with_hops = |hops: &str| {
        let peer = format!("{}:80", hosts::ONIONS[1]);
        message(kind::ANNOUNCE, format!(r#"{{"blobId":"{id}","peerAddress":"{peer}","hops":{hops}}}"#))
    };
    for hops in ["0", "1", "6", "7", "300", "-1", "1.0", "null", r#""1""#] {
        cases.accept(format!("ANNOUNCE with hops of {hops}"), "decode", with_hops(hops));
    }
    cases.accept("ANNOUNCE of a DNS name", "decode", announce(&id, "a.example:1"));
    cases.reject("ANNOUNCE without a port", "decode", announce(&id, "192.0.2.1"), "malformed");
    cases.reject("ANNOUNCE of a short id", "decode", announce("ab", "192.0.2.1:6881"), "malformed");
    cases.reject("ANNOUNCE without members", "decode", message(kind::ANNOUNCE, "{}"), "malformed");
}
