//! A channel's address, its topic, and peers' addresses.

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::limits::BOOTSTRAP_MAX;
use megatorrent_core::uri::{self, ChannelUri};
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, channel, hex, hosts, parse_error, public_key, secret};
use crate::value::no_such_op;

pub(super) const LAYER: Layer = Layer {
    name: "uri",
    about: "parse: text -> public key, read key, bootstrap peers, and the address as it is written. topic: public_key, \
            read_key (null: public) -> the channel's topic and the info-hash of its swarm. peer: text -> the one form in \
            which a peer's address is written, its network, whether it is public, and whether it is exchanged.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "parse" => {
            let uri: ChannelUri = input.text("text")?.parse().map_err(parse_error)?;
            let bootstrap: Vec<_> = uri.bootstrap.iter().map(ToString::to_string).collect();
            Ok(json!({
                "public_key": uri.public_key.to_string(),
                "read_key": uri.read_key.as_ref().map(|key| hex(key.expose())),
                "bootstrap": bootstrap,
                "written": uri.to_secret_string().as_str(),
                "written_without_read_key": uri.to_public_string(),
            }))
        }
        "topic" => {
            let read_key = input.optional("read_key").map(|_| secret(input, "read_key")).transpose()?;
            let topic = uri::topic(&public_key(input, "public_key")?, read_key.as_ref());
            Ok(json!({ "topic": hex(&topic.0), "info_hash": hex(&topic.info_hash().0) }))
        }
        "peer" => {
            let peer: PeerAddr = input.text("text")?.parse().map_err(parse_error)?;
            let network = match peer {
                PeerAddr::Ip(_) => "ip",
                PeerAddr::Onion(..) => "onion",
                PeerAddr::I2p(..) => "i2p",
                PeerAddr::Dns(..) => "dns",
            };
            Ok(json!({
                "written": peer.to_string(),
                "network": network,
                "public": peer.is_public(),
                "exchanged": peer.is_exchangeable(),
            }))
        }
        _ => Err(no_such_op(op)),
    }
}

fn cases(cases: &mut Cases) {
    cases.section(7);
    let key = channel();
    let read_key = "7a".repeat(32);
    parse_cases(cases, key.as_str().expect("hex"), &read_key);
    cases.accept("topic of a public channel", "topic", json!({ "public_key": key, "read_key": null }));
    cases.accept("topic of a private channel", "topic", json!({ "public_key": key, "read_key": read_key }));
    peer_cases(cases);
    hidden_peer_cases(cases);
}

fn peer_cases(cases: &mut Cases) {
    for text in [
        "192.0.2.1:6881",
        "[::ffff:192.0.2.1]:80",
        "[2001:DB8::1]:9",
        "LocalHost:9",
        "LOCALHOST:00080",
        "_a-b.x9:65535",
        "1.2.3.x4:1",
        "192.0.2.1:00080",
        "[::]:5",
        "[ff02::1]:5",
        "[::ffff:0.0.0.0]:5",
        "255.255.255.255:5",
        "224.0.0.1:5",
        "0.0.0.0:5",
        "192.0.2.1:0",
        "[::1]:80",
        "127.0.0.1:80",
        "10.255.255.255:80",
        "172.16.0.1:80",
        "172.32.0.1:80",
        "192.168.0.1:80",
        "169.254.0.1:80",
        "100.63.255.255:80",
        "100.64.0.0:80",
        "100.127.255.255:80",
        "[::ffff:10.0.0.1]:80",
        "[fdff::1]:80",
        "[febf::1]:80",
        "[fec0::1]:80",
        "onion.example:80",
    ] {
        cases.accept(format!("peer {text}"), "peer", json!({ "text": text }));
    }
    refused_peer_cases(cases);
    name_cases(cases);
}

fn refused_peer_cases(cases: &mut Cases) {
    for text in [
        "",
        ":1",
        "a",
        "a:",
        "a:70000",
        "a:+1",
        "a:-1",
        "a:1x",
        "192.0.2.999:1",
        "192.0.2.01:1",
        "192.0.2:1",
        "1.2.3.4.5:1",
        "a b:1",
        "a..b:1",
        ".a:1",
        "a.:1",
        "ä.example:1",
        "../x:1",
        "2001:db8::1",
        "2001:db8::1:80",
        "[2001:db8::1]",
        "[192.0.2.1]:1",
        "[a]:1",
        "[fe80::1%1]:1",
        "user@host:1",
    ] {
        cases.reject(format!("peer {text:?}"), "peer", json!({ "text": text }), "peer-addr");
    }
}

fn name_cases(cases: &mut Cases) {
    let peer = |host: &str| json!({ "text": format!("{host}:80") });
    cases.accept("a label of 63 letters", "peer", peer(&"a".repeat(63)));
    cases.reject("a label of 64 letters", "peer", peer(&"a".repeat(64)), "peer-addr");
    let name = |last: usize| [vec!["a".repeat(63); 3], vec!["a".repeat(last)]].concat().join(".");
    cases.accept("a name of 253 letters", "peer", peer(&name(61)));
    cases.reject("a name of 254 letters", "peer", peer(&name(62)), "peer-addr");
}

/// Onion services and I2P destinations, and hosts that look like theirs and must never be looked up as DNS names.
fn hidden_peer_cases(cases: &mut Cases) {
    let onion = hosts::ONIONS[0];
    for (name, host) in [
        ("an onion service", onion.to_owned()),
        ("another onion service", hosts::ONIONS[1].to_owned()),
        ("an onion service in capitals", onion.to_uppercase()),
        ("an I2P destination", hosts::I2P.to_owned()),
        ("an I2P destination in capitals", hosts::I2P.to_uppercase()),
    ] {
        cases.accept(format!("peer: {name}"), "peer", json!({ "text": format!("{host}:80") }));
    }
    cases.accept("peer: an onion service on port 0", "peer", json!({ "text": format!("{onion}:0") }));
    for (name, host, class) in [
        ("an onion address with a wrong checksum", hosts::ONION_CHECKSUM.to_owned(), "onion-checksum"),
        ("an onion address whose key is another", hosts::ONION_KEY.to_owned(), "onion-checksum"),
        ("an onion address of version 2 in this form", hosts::ONION_VERSION.to_owned(), "onion-version"),
        ("an onion address that is cut", onion[1..].to_owned(), "onion-name"),
        ("an onion address that is too long", format!("a{onion}"), "onion-name"),
        ("an onion address with a digit of no base 32", onion.replacen('p', "1", 1), "onion-name"),
        ("an onion address of version 2", "expyuzz4wqqyqhjn.onion".to_owned(), "onion-name"),
        ("a subdomain of an onion service", format!("www.{onion}"), "onion-name"),
        ("any name under onion", "tracker.onion".to_owned(), "onion-name"),
        ("onion alone", "onion".to_owned(), "onion-name"),
        ("an onion address with a final dot", format!("{onion}."), "peer-addr"),
        ("an I2P hash whose unused bits are not 0", hosts::I2P_TRAILING_BITS.to_owned(), "i2p-name"),
        ("an I2P hash that is cut", hosts::I2P[1..].to_owned(), "i2p-name"),
        ("an I2P hash that is too long", format!("a{}", hosts::I2P), "i2p-name"),
        ("an I2P hash without b32", hosts::I2P.replacen(".b32", "", 1), "i2p-name"),
        ("a subdomain of an I2P destination", format!("www.{}", hosts::I2P), "i2p-name"),
        ("a name of an I2P address book", "tracker.i2p".to_owned(), "i2p-name"),
        ("i2p alone", "I2P".to_owned(), "i2p-name"),
    ] {
        cases.reject(format!("peer: {name}"), "peer", json!({ "text": format!("{host}:80") }), class);
    }
}

fn parse_cases(cases: &mut Cases, key: &str, read_key: &str) {
    let full =
        format!("megatorrent://{key}:{read_key}?bootstrap=192.0.2.1:6881&bootstrap=[2001:db8::1]:6882");
    for (name, text) in [
        ("a bare public key", key.to_owned()),
        ("a public key in capitals", key.to_uppercase()),
        ("a public channel", format!("megatorrent://{key}")),
        ("scheme in capitals", format!("MEGATORRENT://{key}")),
        ("a private channel with bootstrap peers", full),
        ("a percent-encoded IPv6 peer", format!("megatorrent://{key}?bootstrap=%5B2001:db8::1%5D%3a6882")),
        ("a slash after the key", format!("megatorrent://{key}/?bootstrap=192.0.2.1:1")),
        ("a query member more", format!("megatorrent://{key}?name=x&bootstrap=192.0.2.1:1")),
        ("a percent sign in another member", format!("megatorrent://{key}?name=%zz&bootstrap=192.0.2.1:1")),
        ("a member of nearly that name", format!("megatorrent://{key}?Bootstrap=x&xbootstrap=x&bootstrap")),
        ("an empty query", format!("megatorrent://{key}?")),
        ("empty members", format!("megatorrent://{key}?&bootstrap=192.0.2.1:1&&")),
        ("a read key in capitals", format!("megatorrent://{key}:{}", read_key.to_uppercase())),
        ("a bare public key with a query", format!("{key}?bootstrap=192.0.2.1:1")),
        (
            "a bootstrap peer twice",
            format!("megatorrent://{key}?bootstrap=a.example:1&bootstrap=a.example:1"),
        ),
        ("an onion service to begin with", format!("megatorrent://{key}?bootstrap={}:80", hosts::ONIONS[0])),
    ] {
        cases.accept(name, "parse", json!({ "text": text }));
    }
    refused_parse_cases(cases, key, read_key);
}

fn refused_parse_cases(cases: &mut Cases, key: &str, read_key: &str) {
    for (name, text) in [
        ("nothing", String::new()),
        ("another scheme", format!("http://{key}")),
        ("a key that is too short", format!("megatorrent://{}", &key[2..])),
        ("a key that is no point", format!("megatorrent://{}", "02".repeat(32))),
        ("a key of small order", format!("megatorrent://01{}", "00".repeat(31))),
        ("a read key that is too short", format!("megatorrent://{key}:{}", &read_key[2..])),
        ("an empty read key", format!("megatorrent://{key}:")),
        ("a bootstrap peer without a port", format!("megatorrent://{key}?bootstrap=192.0.2.1")),
        ("no bootstrap peer", format!("megatorrent://{key}?bootstrap=")),
        ("a percent-encoded letter", format!("megatorrent://{key}?bootstrap=%61.example:1")),
        ("a percent-encoded dot", format!("megatorrent://{key}?bootstrap=192%2E0.2.1:1")),
        ("a percent sign alone", format!("megatorrent://{key}?bootstrap=a.example:1%")),
        ("a percent sign and one digit", format!("megatorrent://{key}?bootstrap=a.example%3")),
        ("a percent sign and no digits", format!("megatorrent://{key}?bootstrap=a.example%zz1")),
        ("a percent-encoded percent sign", format!("megatorrent://{key}?bootstrap=a.example%253A1")),
        ("a fragment", format!("megatorrent://{key}#x")),
        ("two slashes after the key", format!("megatorrent://{key}//")),
        ("a path", format!("megatorrent://{key}/x")),
        ("a third key", format!("megatorrent://{key}:{read_key}:{read_key}")),
        ("white space", format!(" megatorrent://{key}")),
    ] {
        cases.reject(name, "parse", json!({ "text": text }), "uri");
    }
    let many = |count: usize| {
        let peers: Vec<String> = (1..=count).map(|port| format!("bootstrap=a.example:{port}")).collect();
        json!({ "text": format!("megatorrent://{key}?{}", peers.join("&")) })
    };
    cases.accept("32 bootstrap peers", "parse", many(BOOTSTRAP_MAX));
    cases.reject("33 bootstrap peers", "parse", many(BOOTSTRAP_MAX + 1), "uri");
    let mistyped = format!("megatorrent://{key}?bootstrap={}:80", hosts::ONION_CHECKSUM);
    cases.reject(
        "a mistyped onion service to begin with",
        "parse",
        json!({ "text": mistyped }),
        "onion-checksum",
    );
}
