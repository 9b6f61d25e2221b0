//! The real program and a v6 peer that shares no code with it: either fetches a channel from the other by parts, and tells the
//! other what it has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Running, Swarm, megatorrent, ok, read_json, serve, split, v5_peer, v6_peer, v6_serve, write_file,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
/// The channel's files and their lengths. With a body and a page of one blob each before them, their blobs have the positions 2
/// (`small`), 3 to 5 and 6 to 7; the ids are last.
const FILES: [(&str, usize); 4] =
    [("tree.bin", 2 * MIB + 77), ("v5.bin", MIB + 1), ("empty", 0), ("small", 7)];
const POSITIONS: u64 = 9;
/// The first MiB of two files is the same blob, at the positions 3 and 6.
const BLOBS: usize = 8;
/// Parts that hold content, by classes of 1, 2, 4, 8 and 16: of the first MiB and the second one all.
const PARTS: usize = 2 * 16 + 6;

/// A channel that our program published.
struct Channel {
    folder: TempDir,
    swarm: Swarm,
    uri: String,
    public_key: String,
    read_key: Option<String>,
}

impl Channel {
    fn publish(options: &[&str]) -> Self {
        let (folder, swarm) = (tempfile::tempdir().expect("a folder"), Swarm::new());
        let path = folder.path();
        let keys: Value = serde_json::from_str(&ok(megatorrent(path, &["gen-key"]))).expect("JSON");
        let text = |name: &str| keys[name].as_str().expect("a text").to_owned();
        let mut publish = vec!["publish", "-d", "data", "-b", &swarm.bootstrap];
        for (name, length) in FILES {
            write_file(&path.join(name), length);
            let entry = format!("{name}.json");
            let form: &[&str] = if name == "v5.bin" { &["--v5"] } else { &[] };
            ok(megatorrent(path, &[&["ingest", "-i", name, "-d", "data", "-o", &entry], form].concat()));
            publish.extend(["-i", entry.leak()]);
        }
        ok(megatorrent(path, &[&publish, options].concat()));
        let is_private = options.contains(&"--private");
        let uri = text(if is_private { "private_uri" } else { "public_uri" });
        let read_key = is_private.then(|| uri.rsplit_once(':').expect("a read key").1.to_owned());
        Self { folder, swarm, uri, public_key: text("public_key"), read_key }
    }

    /// The same, which only the v6 peer has: in `channel.json` and `blobs`, from which it serves.
    fn fetched() -> Self {
        let channel = Self::publish(&[]);
        let (_node, address) = channel.serve();
        ok(channel.fetch(&address, &[]));
        channel
    }

    /// Our node that has all; its address.
    fn serve(&self) -> (Running, String) {
        serve(self.path(), &["-b", &self.swarm.bootstrap])
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The v6 peer fetching from `address`.
    fn fetch(&self, address: &str, options: &[&str]) -> Command {
        let (host, port) = split(address);
        let mut args = vec!["fetch", host, port, &self.public_key];
        args.extend(self.read_key.iter().flat_map(|key| ["--read-key", key]));
        args.extend(options);
        v6_peer(self.path(), &args)
    }

    /// Our subscriber in `data`, which knows these peers.
    fn subscribe(&self, data: &str, options: &[&str], peers: &[&str]) -> Command {
        let mut args = vec!["subscribe", &self.uri, "-d", data, "-H", "127.0.0.1", "-T", "0", "-o"];
        let out = format!("{data}-out");
        args.push(&out);
        for peer in [&self.swarm.bootstrap[..]].iter().chain(peers) {
            args.extend(["-b", peer]);
        }
        args.extend(options);
        megatorrent(self.path(), &args)
    }

    /// Whether all files are in `folder`.
    fn is_in(&self, folder: &str) -> bool {
        FILES.iter().all(|(name, _)| {
            let want = fs::read(self.path().join(name)).expect("written");
            fs::read(self.path().join(folder).join(name)).is_ok_and(|got| got == want)
        })
    }
}

/// What a v6 peer was asked for until its visitor left: parts and nothing else, and only those that it has.
fn wants(peer: &Running) -> Vec<Value> {
    let lines = RefCell::new(Vec::new());
    peer.wait_for("end of the visit", |line| {
        lines.borrow_mut().push(line.clone());
        line["event"] == "closed"
    });
    let lines = lines.into_inner();
    assert!(lines.iter().all(|line| line["event"] != "request"), "REQUEST is for v5 blobs: {lines:?}");
    let wants: Vec<Value> = lines.into_iter().filter(|line| line["event"] == "want").collect();
    assert!(wants.iter().all(|want| want["had"] == true), "{wants:?}");
    wants
}

/// The numbers of blobs and parts. On a busy machine one that takes long may have been asked for again.
fn distinct(wants: &[Value]) -> (usize, usize) {
    let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
    for want in wants {
        let mask = want["mask"].as_u64().expect("a number");
        *asked.entry(want["root"].as_str().expect("hex")).or_default() |= mask;
    }
    (asked.len(), asked.values().map(|mask| mask.count_ones() as usize).sum())
}

#[test]
fn a_v6_peer_fetches_a_channel_from_us() {
    let channel = Channel::publish(&[]);
    let (_node, address) = channel.serve();
    for (i, options) in [
        &[][..],
        &["--parts", "5"],
        &["--parts", "3", "--cancel"],
        &["--parts", "1", "--needed"],
        &["--needed", "--cancel"],
    ]
    .into_iter()
    .enumerate()
    {
        let (out, blobs) = (format!("out{i}"), format!("blobs{i}"));
        let said = ok(channel.fetch(&address, &[&["--out", &out, "--blobs", &blobs], options].concat()));
        assert!(channel.is_in(&out), "{options:?}: {said}");
        let done: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("JSON");
        assert_eq!(done["positions"], POSITIONS, "{done}");
        assert_eq!((&done["ids"], &done["requests"]), (&json!(POSITIONS - 1), &json!(0)), "{done}");
    }
}

#[test]
fn a_v6_peer_fetches_a_private_channel_from_us() {
    let channel = Channel::publish(&["--private"]);
    let (_node, address) = channel.serve();
    ok(channel.fetch(&address, &[]));
    assert!(channel.is_in("out"));
}

#[test]
fn we_fetch_from_a_v6_peer() {
    let channel = Channel::fetched();
    for (i, options) in [&[][..], &["--order", "reverse"], &["--order", "halves"], &["--have", "growing"]]
        .into_iter()
        .enumerate()
    {
        let (peer, address) = v6_serve(channel.path(), options);
        let data = format!("data{i}");
        ok(channel.subscribe(&data, &["--once"], &[&address]));
        assert!(channel.is_in(&format!("{data}-out")), "{options:?}");
        assert_eq!(distinct(&wants(&peer)), (BLOBS, PARTS), "{options:?}");
    }
}

#[test]
fn we_fetch_from_each_peer_the_blobs_that_it_claims() {
    let channel = Channel::fetched();
    let (even, first) = v6_serve(channel.path(), &["--have", "even"]);
    let (odd, second) = v6_serve(channel.path(), &["--have", "odd"]);
    ok(channel.subscribe("both", &["--once"], &[&first, &second]));
    assert!(channel.is_in("both-out"));
    let (even, odd) = (wants(&even), wants(&odd));
    assert!(distinct(&even).0 >= 4 && distinct(&odd).0 >= 3, "{even:?} {odd:?}");
    assert_eq!(distinct(&[even, odd].concat()), (BLOBS, PARTS));
}

#[test]
fn we_fetch_from_each_peer_the_parts_that_it_claims() {
    let channel = Channel::fetched();
    let (low, first) = v6_serve(channel.path(), &["--have", "low"]);
    let (high, second) = v6_serve(channel.path(), &["--have", "high"]);
    ok(channel.subscribe("both", &["--once"], &[&first, &second]));
    assert!(channel.is_in("both-out"));
    let (low, high) = (wants(&low), wants(&high));
    assert_eq!((distinct(&low), distinct(&high)), ((BLOBS, PARTS - 16), (2, 16)));
}

/// Its first HAVE claims everything, its second one takes that back for what it has.
#[test]
fn we_ask_for_nothing_that_a_peer_took_back() {
    let channel = Channel::fetched();
    let (less, first) = v6_serve(channel.path(), &["--have", "replaced"]);
    let victim = Running::start(channel.subscribe("part", &[], &[&first]));
    less.event("want");
    let (_odd, second) = v6_serve(channel.path(), &["--have", "odd"]);
    drop(victim);
    ok(channel.subscribe("part", &["--once"], &[&first, &second]));
    assert!(channel.is_in("part-out"));
    // What was asked for before the second HAVE came is refused.
    let refused = less.rest().iter().filter(|line| line["event"] == "want" && line["had"] == false).count();
    assert!(refused <= 4, "{refused}");
}

/// No peer has the page at position 1, so the blobs of its items are unknown.
#[test]
fn we_tell_a_v6_peer_what_we_have_so_far() {
    let channel = Channel::fetched();
    let (_growing, address) = v6_serve(channel.path(), &["--have", "even"]);
    let node = Running::start(channel.subscribe("part", &[], &[&address]));
    let address = node.event("ready")["p2p"].as_str().expect("it listens").to_owned();
    let said = ok(channel.fetch(&address, &["--only-have", "1"]));
    let have: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("JSON");
    assert_eq!((&have["positions"], &have["all"]), (&json!([0]), &json!(false)), "{said}");
}

/// A channel of v5 blobs, which travel by REQUEST to and from v6 peers too.
#[test]
fn v5_blobs_travel_between_v6_peers() {
    let (folder, swarm) = (tempfile::tempdir().expect("a folder"), Swarm::new());
    let path = folder.path();
    let content = write_file(&path.join("f"), MIB + 5);
    let keys: Value = serde_json::from_str(&ok(v5_peer(path, &["gen-key", "identity.json"]))).expect("JSON");
    ok(v5_peer(path, &["ingest", "f", "--entry", "entry.json"]));
    let sign = ["manifest", "sign", "--identity", "identity.json", "--sequence", "1", "--item", "--out"];
    ok(v5_peer(path, &[&sign[..], &["item.json", "entry.json"]].concat()));
    let item = read_json(&path.join("item.json"));
    swarm.put(&item);
    fs::write(path.join("channel.json"), json!({ "item": item, "read_key": null }).to_string())
        .expect("written");
    let (peer, address) = v6_serve(path, &[]);
    let public_key = keys["publicKey"].as_str().expect("hex").to_owned();
    let uri = format!("megatorrent://{public_key}");
    let channel = Channel { folder, swarm, uri, public_key, read_key: None };
    ok(channel.subscribe("data", &["--once"], &[&address]));
    assert!(fs::read(channel.path().join("data-out/f")).is_ok_and(|got| got == content));
    assert_eq!(
        peer.rest().iter().filter(|line| line["event"] == "request" && line["had"] == true).count(),
        2
    );
    let (_node, address) = channel.serve();
    let done = ok(channel.fetch(&address, &["--blobs", "got"]));
    assert!(done.contains("\"requests\": 2"), "{done}");
    assert!(fs::read(channel.path().join("out/f")).is_ok_and(|got| got == content));
}

/// Ways to break a rule for which a peer is left.
const BREAKS: [&str; 8] =
    ["garbage-have", "no-values", "out-of-order", "unasked", "long-piece", "short-piece", "twice", "beyond"];

#[test]
fn a_v6_peer_that_breaks_a_rule_is_left_and_others_serve() {
    let channel = Channel::fetched();
    let (_honest, truth) = v6_serve(channel.path(), &[]);
    for bad in BREAKS {
        let (peer, address) = v6_serve(channel.path(), &["--bad", bad]);
        let victim = Running::start(channel.subscribe(&format!("{bad}-alone"), &[], &[&address]));
        peer.event(if bad == "garbage-have" { "ask_have" } else { "want" });
        peer.event("closed");
        drop(victim);
        ok(channel.subscribe(bad, &["--once"], &[&address, &truth]));
        assert!(channel.is_in(&format!("{bad}-out")), "{bad}");
    }
}

#[test]
fn a_v6_peer_that_refuses_or_stalls_keeps_nothing_from_us() {
    let channel = Channel::fetched();
    let (_honest, truth) = v6_serve(channel.path(), &[]);
    for bad in ["refuse", "stall"] {
        let (_peer, address) = v6_serve(channel.path(), &["--bad", bad]);
        ok(channel.subscribe(bad, &["--once"], &[&address, &truth]));
        assert!(channel.is_in(&format!("{bad}-out")), "{bad}");
    }
}

#[test]
fn a_v6_peer_with_wrong_bytes_or_values_is_banned() {
    let channel = Channel::fetched();
    for bad in ["wrong-bytes", "wrong-values"] {
        let (_liar, lies) = v6_serve(channel.path(), &["--bad", bad]);
        let victim = Running::start(channel.subscribe(bad, &[], &[&lies]));
        let warning = victim.wait_for("word of a ban", |line| {
            line["event"] == "warning" && line["message"].as_str().is_some_and(|text| text.contains("banned"))
        });
        assert!(warning["message"].as_str().is_some_and(|text| text.contains(&lies)), "{warning}");
        drop(victim);
        let (_honest, truth) = v6_serve(channel.path(), &[]);
        ok(channel.subscribe(bad, &["--once"], &[&lies, &truth]));
        assert!(channel.is_in(&format!("{bad}-out")), "{bad}");
    }
}
