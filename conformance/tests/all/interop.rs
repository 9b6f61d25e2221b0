//! The real program and a v5 peer that shares no code with it: either fetches from the other, and reads its channels.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::support::{
    Running, Swarm, megatorrent, ok, read_json, run, serve, split, v5_peer, v5_serve, write_file,
};
use serde_json::Value;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Fetches an entry's blobs with the v5 peer, puts the file together and returns it.
fn v5_fetch(folder: &Path, entry: &str, address: &str, options: &[&str]) -> Vec<u8> {
    let (host, port) = split(address);
    let got = tempfile::tempdir_in(folder).expect("a folder");
    let blobs = got.path().to_str().expect("UTF-8");
    ok(v5_peer(folder, &[&["fetch", host, port, "--entry", entry, "--blobs", blobs], options].concat()));
    let out = got.path().join("out");
    ok(v5_peer(folder, &["assemble", entry, out.to_str().expect("UTF-8"), "--blobs", blobs]));
    fs::read(out).expect("assembled")
}

/// By their ids, which we know of the channels that we follow: in a head, or in the ids of a body.
#[test]
fn a_v5_peer_fetches_from_us() {
    for length in [MIB / 2, 3 * MIB + 77] {
        let (folder, swarm) = (folder(), Swarm::new());
        let content = write_file(&folder.path().join("file"), length);
        ok(megatorrent(folder.path(), &["gen-key"]));
        ok(megatorrent(folder.path(), &["ingest", "-i", "file", "-d", "data", "-o", "entry.json", "--v5"]));
        ok(megatorrent(
            folder.path(),
            &["publish", "-i", "entry.json", "-d", "data", "-b", &swarm.bootstrap],
        ));
        let (_node, address) = serve(folder.path(), &["--dht", "off"]);
        for options in [
            &[][..],
            &["--one-request"],
            &["--pipeline"],
            &["--no-hello"],
            &["--hello-bare"],
            &["--one-request", "--no-hello"],
            &["--pipeline", "--no-hello"],
        ] {
            let got = v5_fetch(folder.path(), "entry.json", &address, options);
            assert!(got == content, "{options:?}");
        }
    }
}

#[test]
fn a_v5_peer_is_refused_a_missing_blob() {
    let folder = folder();
    let (_node, address) = serve(folder.path(), &["--dht", "off"]);
    let (host, port) = split(&address);
    let unknown = "ab".repeat(32);
    let output = run(v5_peer(folder.path(), &["fetch", host, port, &unknown, &unknown]));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(said.matches("Not Found").count(), 2, "{said}");
}

/// A channel that our program published, with one file, and what the v5 peer reads in its head.
struct OurChannel {
    folder: TempDir,
    swarm: Swarm,
    content: Vec<u8>,
    manifest: Value,
}

impl OurChannel {
    fn publish(options: &[&str]) -> Self {
        let (folder, swarm) = (folder(), Swarm::new());
        let path = folder.path();
        let content = write_file(&path.join("file.bin"), MIB / 2);
        let keys: Value = serde_json::from_str(&ok(megatorrent(path, &["gen-key"]))).expect("JSON");
        let private_uri = keys["private_uri"].as_str().expect("a text");
        fs::write(path.join("read.key"), private_uri.rsplit_once(':').expect("a read key").1)
            .expect("written");
        ok(megatorrent(path, &["ingest", "-i", "file.bin", "-d", "data", "-o", "entry.json"]));
        let publish =
            ["publish", "-i", "entry.json", "-d", "data", "--title", "Ünïcode", "-b", &swarm.bootstrap];
        ok(megatorrent(path, &[&publish, options].concat()));

        let public_key = keys["public_key"].as_str().expect("hex");
        fs::write(path.join("head.json"), swarm.get(public_key)).expect("written");
        let verify = ok(v5_peer(path, &["manifest", "verify", "head.json", "--read-key-file", "read.key"]));
        let manifest = serde_json::from_str(&verify).expect("JSON");
        Self { folder, swarm, content, manifest }
    }
}

#[test]
fn a_v5_peer_reads_our_channel_and_fetches_its_file() {
    let channel = OurChannel::publish(&[]);
    let collection = &channel.manifest["collections"][0];
    assert_eq!(collection["title"], "Ünïcode");
    assert_eq!(collection["items"][0]["name"], "file.bin");
    let path = channel.folder.path();
    fs::write(path.join("theirs.json"), collection["items"][0].to_string()).expect("written");
    let (_node, address) = serve(path, &["-b", &channel.swarm.bootstrap]);
    assert!(v5_fetch(path, "theirs.json", &address, &[]) == channel.content);
}

/// Sealed, a file's entry is too long for the DHT, so that a v5 reader finds no file there, and a pointer that it
/// does not know.
#[test]
fn a_v5_peer_verifies_and_opens_our_private_head() {
    let channel = OurChannel::publish(&["--private"]);
    assert_eq!(channel.manifest["encrypted"], true);
    assert_eq!(channel.manifest["collections"], Value::Array(Vec::new()));
    assert!(channel.manifest["body"].is_string());
}

/// A channel that the v5 peer signed and put on a DHT, with one file.
struct V5Channel {
    folder: TempDir,
    swarm: Swarm,
    uri: String,
    content: Vec<u8>,
    /// Small, because a head with two chunks, or a sealed one with one, just fits the DHT.
    sequence: u64,
}

impl V5Channel {
    fn new(length: usize, sign: &[&str]) -> Self {
        let (folder, swarm) = (folder(), Swarm::new());
        let identity: Value =
            serde_json::from_str(&ok(v5_peer(folder.path(), &["gen-key", "identity.json"]))).expect("JSON");
        let read_key = "5c".repeat(32);
        fs::write(folder.path().join("read.key"), &read_key).expect("written");
        let mut uri = format!("megatorrent://{}", identity["publicKey"].as_str().expect("hex"));
        if sign.contains(&"--read-key-file") {
            uri = format!("{uri}:{read_key}");
        }
        let mut channel = Self { folder, swarm, uri, content: Vec::new(), sequence: 0 };
        channel.publish(length, sign);
        channel
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A newer head, over the file `f` with new content.
    fn publish(&mut self, length: usize, sign: &[&str]) {
        self.content = write_file(&self.path().join("f"), length);
        ok(v5_peer(self.path(), &["ingest", "f", "--entry", "entry.json"]));
        self.sign(sign);
    }

    /// A newer head over `entry.json`.
    fn sign(&mut self, sign: &[&str]) {
        self.sequence += 1;
        let sequence = self.sequence.to_string();
        let common = ["manifest", "sign", "--identity", "identity.json", "--sequence", &sequence, "--item"];
        ok(v5_peer(self.path(), &[&common[..], &["--out", "item.json", "entry.json"], sign].concat()));
        self.swarm.put(&read_json(&self.path().join("item.json")));
    }

    fn blob_ids(&self) -> Vec<String> {
        let entry = read_json(&self.path().join("entry.json"));
        let chunks = entry["chunks"].as_array().expect("a list").iter();
        chunks.map(|chunk| chunk["blobId"].as_str().expect("hex").to_owned()).collect()
    }

    /// Our subscriber in `data`, which knows these peers.
    fn subscribe(&self, data: &str, peers: &[&str]) -> Command {
        let mut args =
            vec!["subscribe", &self.uri, "--once", "-d", data, "-o", "out", "-H", "127.0.0.1", "-T", "0"];
        for peer in [&self.swarm.bootstrap[..]].iter().chain(peers) {
            args.extend(["-b", peer]);
        }
        megatorrent(self.path(), &args)
    }

    fn fetched(&self) -> bool {
        fs::read(self.path().join("out/f")).is_ok_and(|out| out == self.content)
    }
}

#[test]
fn we_fetch_from_a_v5_peer() {
    for serve in [&[][..], &["--one-request"], &["--split", "7"], &["--no-hello"], &["--hello-bare"]] {
        let channel = V5Channel::new(MIB + 5, &[]);
        let (_peer, address) = v5_serve(channel.path(), serve);
        ok(channel.subscribe("data", &[&address]));
        assert!(channel.fetched(), "{serve:?}");
    }
}

#[test]
fn we_read_every_form_of_a_v5_head() {
    let private = ["--read-key-file", "read.key"];
    for sign in [
        &["--in-order"][..],
        &private,
        &[private[0], private[1], "--secretbox"],
        &[private[0], private[1], "--secretbox", "--in-order"],
    ] {
        let channel = V5Channel::new(7, sign);
        let (_peer, address) = v5_serve(channel.path(), &[]);
        ok(channel.subscribe("data", &[&address]));
        assert!(channel.fetched(), "{sign:?}");
    }
}

#[test]
fn we_find_a_v5_peer_by_its_blobs_on_the_dht() {
    let channel = V5Channel::new(MIB + 1, &[]);
    let (_peer, address) = v5_serve(channel.path(), &[]);
    for id in channel.blob_ids() {
        channel.swarm.announce(&id, &address);
    }
    ok(channel.subscribe("data", &[]));
    assert!(channel.fetched());
}

fn connections(peer: &Running) -> usize {
    peer.rest().iter().filter(|line| line["event"] == "connected").count()
}

#[test]
fn a_peer_with_a_wrong_blob_is_banned_also_after_a_restart() {
    let channel = V5Channel::new(2 * MIB, &[]);
    let (liar, lies) = v5_serve(channel.path(), &["--wrong-blob", "all"]);
    let victim = Running::start(channel.subscribe("data", &[&lies]));
    let warning = victim.wait_for("word of a ban", |line| {
        line["event"] == "warning" && line["message"].as_str().is_some_and(|text| text.contains("banned"))
    });
    assert!(warning["message"].as_str().is_some_and(|text| text.contains(&lies)), "{warning}");
    drop(victim);
    assert!(connections(&liar) > 0);

    let (_honest, truth) = v5_serve(channel.path(), &[]);
    ok(channel.subscribe("data", &[&lies, &truth]));
    assert!(channel.fetched());
    assert_eq!(connections(&liar), 0, "the ban outlives the process");

    ok(channel.subscribe("another", &[&lies, &truth]));
    assert!(connections(&liar) > 0, "a node without the ban asks the liar");
}

#[test]
fn a_blob_that_one_peer_falsifies_comes_from_another() {
    let channel = V5Channel::new(2 * MIB, &[]);
    let wrong = channel.blob_ids().remove(1);
    let (_liar, lies) = v5_serve(channel.path(), &["--wrong-blob", &wrong]);
    let (_honest, truth) = v5_serve(channel.path(), &[]);
    ok(channel.subscribe("data", &[&lies, &truth]));
    assert!(channel.fetched());
}

#[test]
fn peers_that_stall_or_send_too_much_do_not_block_the_others() {
    let channel = V5Channel::new(2 * MIB, &[]);
    let (_mute, mute) = v5_serve(channel.path(), &["--stall"]);
    let (_loud, loud) = v5_serve(channel.path(), &["--long-data"]);
    let (_honest, truth) = v5_serve(channel.path(), &[]);
    let web = listener(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n");
    let (low_order, noise, nothing) = (listener(&[0; 32]), listener(&[0xa5; 5000]), listener(b""));
    ok(channel.subscribe("data", &[&web, &low_order, &noise, &nothing, &mute, &loud, &truth]));
    assert!(channel.fetched());
}

/// A listener that is no peer: it says this to everyone and hangs up. It lives as long as the test.
#[expect(clippy::disallowed_methods, reason = "a stranger's socket")]
fn listener(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has room");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A peer that has hung up already does not matter.
            let _ = stream.and_then(|mut stream| stream.write_all(says));
        }
    });
    address
}

#[test]
fn a_name_that_leaves_the_output_folder_writes_nothing() {
    let mut channel = V5Channel::new(1000, &[]);
    let entry = channel.path().join("entry.json");
    for name in ["../escaped", "/tmp/megatorrent-escaped", "a/../../escaped", ".."] {
        let mut hostile = read_json(&entry);
        hostile["name"] = name.into();
        fs::write(&entry, hostile.to_string()).expect("written");
        channel.sign(&[]);
        let (_peer, address) = v5_serve(channel.path(), &[]);
        let output = run(channel.subscribe(&format!("data-{}", name.len()), &[&address]));
        assert_eq!(output.status.code(), Some(5), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let escaped =
            channel.path().join("escaped").exists() || Path::new("/tmp/megatorrent-escaped").exists();
        assert!(!escaped && !channel.path().join("out/f").exists(), "{name}");
    }
}
