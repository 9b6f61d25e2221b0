//! The main job between separate processes on loopback: a file goes in on one side and comes out on the other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::support::{
    MIB, Running, Swarm, blobs, ok_json, run, run_with_input, serve, stderr, subscribe_args,
};
use megatorrent_core::identity::Identity;
use megatorrent_core::manifest::{Extent, HeadContent};
use megatorrent_core::node::{Command, Draft};
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::ingest;
use megatorrent_runtime_smol::{Options, Runtime};
use serde_json::Value;

/// Fetches a channel as far as it goes; the exit code and what was said.
fn subscribe_once(swarm: &Swarm, name: &str, uri: &str, extra: &[&str]) -> (Option<i32>, String) {
    let mut args = subscribe_args(name, uri, &swarm.address);
    args.push("--once".into());
    args.extend(extra.iter().map(ToString::to_string));
    let output = run(swarm.path(), args);
    (output.status.code(), stderr(&output))
}

fn assert_fetches(swarm: &Swarm, name: &str, uri: &str, extra: &[&str]) {
    let (code, said) = subscribe_once(swarm, name, uri, extra);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn files_of_every_size_arrive_whole() {
    let swarm = Swarm::new();
    let sizes = [0, 1, MIB - 1, MIB, MIB + 1, 10 * MIB];
    let entries: Vec<_> = sizes.iter().map(|len| swarm.ingest(&format!("f{len}"), *len, &[])).collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let published = swarm.publish(&entries, &["--title", "Sizes"]);
    assert_eq!(published["inline"], false);
    let _author = swarm.serve_author();
    assert_fetches(&swarm, "reader", published["uri"].as_str().unwrap(), &[]);
    for len in sizes {
        swarm.assert_equal("reader", &format!("f{len}"));
    }
}

#[test]
fn files_arrive_in_order_and_within_limits_too() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 3 * MIB, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let _author = swarm.serve_author();
    let start = Instant::now();
    let extra = ["--in-order", "--download-limit", "2M", "--upload-limit", "500k"];
    assert_fetches(&swarm, "reader", published["uri"].as_str().unwrap(), &extra);
    // Three MiB at two MB a second, of which a quarter of a second's worth may come at once.
    assert!(start.elapsed() > Duration::from_millis(1200), "{:?}", start.elapsed());
    swarm.assert_equal("reader", "film");
}

#[test]
fn a_small_v5_entry_is_published_inline() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("note.txt", 5000, &["--v5"]);
    let published = swarm.publish(&[&entry], &[]);
    assert_eq!(published["inline"], true);
    let _author = swarm.serve_author();
    assert_fetches(&swarm, "reader", published["uri"].as_str().unwrap(), &[]);
    swarm.assert_equal("reader", "note.txt");
}

#[test]
fn a_private_channel_opens_only_with_its_read_key() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("secret", MIB + 7, &[]);
    let published = swarm.publish(&[&entry], &["--private"]);
    assert_eq!(published["private"], true);
    let uri = published["uri"].as_str().unwrap();
    let (public, key) = (&uri[..uri.len() - 65], &uri[uri.len() - 64..]);
    let _author = swarm.serve_author();

    let wrong = format!("{public}:{}", "00".repeat(32));
    for (name, uri, word) in [("keyless", public, "read key"), ("mistaken", &wrong, "read key")] {
        let (code, said) = subscribe_once(&swarm, name, uri, &[]);
        assert_eq!(code, Some(6), "{said}");
        assert!(said.contains(word), "{said}");
        assert!(!swarm.join(&format!("{name}-out")).exists(), "wrote something");
        assert!(blobs(&swarm.join(name)).is_empty(), "fetched something");
    }

    assert_fetches(&swarm, "by-uri", uri, &[]);
    fs::write(swarm.join("read.key"), format!("{key}\n")).unwrap();
    assert_fetches(&swarm, "by-file", public, &["-s", "read.key"]);
    let mut args = subscribe_args("by-stdin", "-", &swarm.address);
    args.push("--once".into());
    let by_stdin = run_with_input(swarm.path(), args, uri.as_bytes());
    assert_eq!(by_stdin.status.code(), Some(0), "{}", stderr(&by_stdin));
    for name in ["by-uri", "by-file", "by-stdin"] {
        swarm.assert_equal(name, "secret");
    }
}

#[test]
fn another_read_key_than_the_identitys_seals_too() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("secret", 100, &[]);
    fs::write(swarm.join("read.key"), "17".repeat(32)).unwrap();
    let published = swarm.publish(&[&entry], &["-s", "read.key"]);
    let uri = published["uri"].as_str().unwrap();
    assert!(uri.ends_with(&format!(":{}", "17".repeat(32))));
    let _author = swarm.serve_author();
    assert_fetches(&swarm, "reader", uri, &[]);
    swarm.assert_equal("reader", "secret");
}

#[test]
fn a_third_subscriber_completes_after_the_author_left() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 5 * MIB + 123, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let author = swarm.serve_author();
    let readers = ["first", "second"].map(|name| {
        let reader = Running::start(swarm.path(), subscribe_args(name, uri, &swarm.address));
        reader.event("complete");
        reader
    });
    author.stop();
    fs::remove_dir_all(swarm.join("author")).unwrap();
    assert_fetches(&swarm, "third", uri, &[]);
    swarm.assert_equal("third", "film");
    drop(readers);
}

#[test]
fn a_killed_download_goes_on_from_the_blobs_it_has() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 8 * MIB, &["--copy"]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    // Half of the author's data blobs are out of reach, so that the download stands where it is killed.
    let hidden = hide_data_blobs(&swarm, 4);
    let author = swarm.serve_author();
    let stands = |e: &Value| {
        e["event"] == "progress"
            && e["blobs_total"].as_u64() == e["blobs"].as_u64().map(|n| n + hidden.len() as u64)
    };
    for (name, extra) in [("copier", &["--copy".to_owned()][..]), ("reader", &[])] {
        let args = [&subscribe_args(name, uri, &swarm.address)[..], extra].concat();
        let mut reader = Running::start(swarm.path(), args);
        reader.event_where("a download that stands", stands);
        reader.signal("KILL");
        reader.wait();
        assert!(
            !swarm.join(&format!("{name}-out")).join("film").exists(),
            "an incomplete file has no name yet"
        );
    }
    let kept = blobs(&swarm.join("copier"));
    let times = |blobs: &[PathBuf]| -> Vec<_> {
        blobs.iter().map(|b| fs::metadata(b).unwrap().modified().unwrap()).collect()
    };
    let before = times(&kept);
    assert!(kept.len() > hidden.len());
    // What came is there at once, before anybody serves the rest.
    let mut reader = Running::start(swarm.path(), subscribe_args("reader", uri, &swarm.address));
    reader.event_where("what came before", stands);
    reader.signal("KILL");
    reader.wait();

    author.stop();
    for (from, to) in hidden {
        fs::rename(from, to).unwrap();
    }
    let _author = swarm.serve_author();
    for (name, extra) in [("copier", &["--copy"][..]), ("reader", &[])] {
        assert_fetches(&swarm, name, uri, extra);
        swarm.assert_equal(name, "film");
    }
    assert_eq!(before, times(&kept), "a blob was fetched twice");
}

#[test]
fn a_download_killed_wherever_it_stands_completes_later() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 24 * MIB, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let _author = swarm.serve_author();
    for event in ["ready", "head", "manifest", "progress", "progress"] {
        let mut reader = Running::start(swarm.path(), subscribe_args("reader", uri, &swarm.address));
        reader.event(event);
        reader.signal("KILL");
        reader.wait();
    }
    assert_fetches(&swarm, "reader", uri, &[]);
    swarm.assert_equal("reader", "film");
    let left: Vec<_> =
        fs::read_dir(swarm.join("reader-out")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["film"], "half-written files are left");
}

/// Moves `count` blobs that the film's data fills out of the author's folder: (where they are, where they belong).
fn hide_data_blobs(swarm: &Swarm, count: usize) -> Vec<(PathBuf, PathBuf)> {
    let args = ["ingest", "-i", "film", "-d", "author", "-k", "identity.json", "--v5", "--copy"];
    let chunks = run(swarm.path(), args);
    let entry: Value = serde_json::from_slice(&chunks.stdout).unwrap();
    let roots = entry["chunks"].as_array().unwrap().iter().map(|c| c["blake3"].as_str().unwrap());
    roots
        .take(count)
        .map(|root| {
            let place = swarm.join("author").join("blobs").join(&root[..2]).join(root);
            let hidden = swarm.join(root);
            fs::rename(&place, &hidden).unwrap();
            (hidden, place)
        })
        .collect()
}

#[test]
fn a_file_whose_disk_is_not_mounted_is_named_and_served_once_it_is_back() {
    let swarm = Swarm::new();
    fs::create_dir(swarm.join("disk")).unwrap();
    let entry = swarm.ingest("disk/film", 3 * MIB, &["--name", "film"]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    fs::rename(swarm.join("disk"), swarm.join("unplugged")).unwrap();
    let author = swarm.serve_author();
    let loss = author.event("loss");
    assert_eq!(loss["state"], "folder_absent");
    assert!(loss["path"].as_str().unwrap().ends_with("disk/film"), "{loss}");
    let reader = Running::start(swarm.path(), subscribe_args("reader", uri, &swarm.address));
    reader.event("manifest");
    fs::rename(swarm.join("unplugged"), swarm.join("disk")).unwrap();
    assert_eq!(author.event("recovered")["state"], "folder_absent");
    reader.event("complete");
    assert!(fs::read(swarm.join("reader-out/film")).unwrap() == fs::read(swarm.join("disk/film")).unwrap());
    reader.stop();
    author.stop();
    // The reader's own disk is not there the next time.
    fs::rename(swarm.join("reader-out"), swarm.join("unplugged")).unwrap();
    let (code, said) = subscribe_once(&swarm, "reader", uri, &[]);
    assert!(code == Some(3) && said.contains("--new"), "{code:?}: {said}");
    assert!(!swarm.join("reader-out").exists());
    // Nor is an empty folder in its place, where it is mounted, taken for it, unless it is to be.
    fs::create_dir(swarm.join("reader-out")).unwrap();
    assert_eq!(subscribe_once(&swarm, "reader", uri, &[]).0, Some(3));
    let _author = swarm.serve_author();
    assert_fetches(&swarm, "reader", uri, &["--new"]);
    assert!(fs::read(swarm.join("reader-out/film")).unwrap() == fs::read(swarm.join("disk/film")).unwrap());
}

#[test]
fn a_follower_gets_an_update() {
    let swarm = Swarm::new();
    let first = swarm.ingest("one", 3000, &[]);
    let published = swarm.publish(&[&first], &[]);
    let uri = published["uri"].as_str().unwrap();
    let author = swarm.serve_author();
    let mut reader = Running::start(swarm.path(), subscribe_args("reader", uri, &swarm.address));
    reader.event("complete");
    swarm.assert_equal("reader", "one");

    author.stop();
    let second = swarm.ingest("two", MIB + 9, &[]);
    let update = swarm.publish(&[&first, &second], &[]);
    assert!(update["sequence"].as_u64() > published["sequence"].as_u64());
    let _author = swarm.serve_author();
    reader.event_where("update", |e| e["event"] == "complete" && e["sequence"] == update["sequence"]);
    swarm.assert_equal("reader", "two");
    reader.signal("INT");
    reader.event("stopped");
    assert_eq!(reader.wait().code(), Some(0));
}

#[test]
fn subscribing_again_fetches_the_update_and_replaces_the_old_file() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("note", 3000, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let author = swarm.serve_author();
    assert_fetches(&swarm, "reader", uri, &[]);
    author.stop();
    swarm.ingest("note", 4000, &["--force"]);
    swarm.publish(&[&entry], &[]);
    let _author = swarm.serve_author();
    assert_fetches(&swarm, "reader", uri, &[]);
    swarm.assert_equal("reader", "note");
}

#[test]
fn a_file_that_is_there_is_not_overwritten_silently() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("note", 3000, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let _author = swarm.serve_author();
    fs::create_dir(swarm.join("reader-out")).unwrap();
    fs::write(swarm.join("reader-out").join("note"), "mine").unwrap();
    let (code, said) = subscribe_once(&swarm, "reader", published["uri"].as_str().unwrap(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("note exists"), "{said}");
    assert_eq!(fs::read(swarm.join("reader-out").join("note")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(swarm.join("reader-out")).unwrap().count(), 1);
}

#[test]
fn a_channel_that_nobody_published_is_not_found() {
    let swarm = Swarm::new();
    let keys = ok_json(swarm.path(), ["gen-key", "-k", "other.json"]);
    let uri = keys["public_uri"].as_str().unwrap();
    let (code, said) = subscribe_once(&swarm, "reader", uri, &["--timeout", "3"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(!swarm.join("reader-out").exists());
}

#[test]
fn a_channel_without_anyone_who_has_its_blobs_says_so() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 2 * MIB, &[]);
    let published = swarm.publish(&[&entry], &[]);
    // The head is on the DHT; the author does not serve.
    let (code, said) =
        subscribe_once(&swarm, "reader", published["uri"].as_str().unwrap(), &["--timeout", "3"]);
    assert!(matches!(code, Some(3 | 4)), "{code:?}: {said}");
    assert!(!swarm.join("reader-out").join("film").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_subscribe_once_says_so() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let swarm = Swarm::new();
        let uri =
            ok_json(swarm.path(), ["gen-key", "-k", "other.json"])["public_uri"].as_str().unwrap().to_owned();
        let mut args = subscribe_args("reader", &uri, &swarm.address);
        args.push("--once".into());
        let mut reader = Running::start(swarm.path(), args);
        reader.event("ready");
        reader.signal(signal);
        assert_eq!(reader.wait().code(), Some(code));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_idle_node_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve(folder.path(), "data", &[]);
    node.ready();
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let rss_kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(rss_kib < 20 * 1024, "{rss_kib} KiB");
}

#[test]
fn the_demo_verifies_what_it_sent() {
    let folder = tempfile::tempdir().unwrap();
    let verified = ok_json(folder.path(), ["demo"]);
    assert_eq!(verified["event"], "verified");
    assert_eq!(verified["size"], 5 * MIB + 123);
    fs::write(folder.path().join("mine"), crate::support::random_bytes(9, MIB + 1)).unwrap();
    let verified = ok_json(folder.path(), ["demo", "mine"]);
    assert_eq!(verified["size"], MIB + 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the demo leaves nothing behind");
}

/// An author signs a head that points to something else than a manifest.
#[test]
fn a_body_that_is_no_manifest_is_an_integrity_failure() {
    let swarm = Swarm::new();
    let executor = Rc::new(smol::LocalExecutor::new());
    smol::block_on(executor.run(async {
        let identity =
            Identity::from_json(&fs::read_to_string(swarm.join("identity.json")).unwrap()).unwrap();
        let channel = identity.public_key();
        let mut options = Options::new(Home::open(&swarm.join("liar")).unwrap());
        let text = b"no manifest".as_slice();
        let secret = identity.content_secret();
        let extents =
            ingest(text, &options.home.store, &secret, 1, &|_| {}, &AtomicBool::new(false)).unwrap();
        let [Extent::Tree(tree)] = &extents[..] else { panic!("{extents:?}") };
        options.identity = Some(identity);
        options.listen = Some("127.0.0.1:0".parse().unwrap());
        options.bootstrap = vec![swarm.address.parse().unwrap()];
        let liar = Runtime::start(&executor, options).await.unwrap();
        let content = HeadContent::Body(tree.clone());
        let draft = Draft { content, read_key: None, gateways: Vec::new() };
        liar.command(Command::Publish { channel, draft }).await.unwrap();

        let mut args = subscribe_args("reader", &format!("megatorrent://{channel}"), &swarm.address);
        args.push("--once".into());
        let folder = swarm.path().to_owned();
        let output = smol::unblock(move || run(&folder, args)).await;
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
        assert!(!swarm.join("reader-out").exists());
        liar.shutdown().await;
    }));
}

#[test]
fn an_author_without_a_dht_publishes_through_a_gateway() {
    let swarm = Swarm::new();
    // A second DHT node, so that the gateway's item is stored somewhere else too.
    let _other = serve(swarm.path(), "other", &[&swarm.address]);
    let entry = swarm.ingest("note.txt", 5000, &[]);
    let args = ["publish", "-i", &entry, "-d", "author", "--gateway", &swarm.address];
    let published = ok_json(swarm.path(), args);
    assert_eq!((&published["gateways"], &published["replicas"]), (&1.into(), &Value::Null));
    assert_eq!(published["read_back_by_another"], false, "there is no other");
    let _author = swarm.serve_author();
    assert_fetches(&swarm, "reader", published["uri"].as_str().unwrap(), &[]);
    swarm.assert_equal("reader", "note.txt");
}

#[test]
fn a_node_that_is_no_gateway_says_so() {
    let swarm = Swarm::new();
    let plain = ["serve", "-d", "plain", "-H", "127.0.0.1", "-T", "0", "-P", "0", "--no-gateway"];
    let plain = Running::start(swarm.path(), plain);
    let entry = swarm.ingest("note.txt", 5000, &[]);
    let args = ["publish", "-i", &entry, "-d", "author", "--gateway", &plain.ready()];
    let output = run(swarm.path(), args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("Not a Gateway") && said.contains("another --gateway"), "{said}");
}

#[test]
fn a_gateway_that_refuses_connections_costs_seconds_and_is_no_failure_beside_another() {
    let swarm = Swarm::new();
    let _other = serve(swarm.path(), "other", &[&swarm.address]);
    let entry = swarm.ingest("note.txt", 5000, &[]);
    let publish = ["publish", "-i", &entry, "-d", "author", "--gateway", "127.0.0.1:1"];
    let start = Instant::now();
    let output = run(swarm.path(), publish);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("no gateway answered; --gateway takes"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let published = ok_json(swarm.path(), publish.into_iter().chain(["--gateway", &swarm.address]));
    assert_eq!(published["gateways"], 1);
}

#[test]
fn the_only_dht_server_reads_back_what_another_gateway_put_at_it() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("note.txt", 5000, &[]);
    let client = [
        "serve",
        "-d",
        "client",
        "-H",
        "127.0.0.1",
        "-T",
        "0",
        "-P",
        "0",
        "--dht",
        "client",
        "-b",
        &swarm.address,
    ];
    let client = Running::start(swarm.path(), client);
    let gateways = ["--gateway", &client.ready(), "--gateway", &swarm.address];
    let publish = ["publish", "-i", &entry, "-d", "author"].into_iter().chain(gateways);
    let published = ok_json(swarm.path(), publish);
    assert_eq!((&published["gateways"], &published["read_back_by_another"]), (&1.into(), &true.into()));
}

#[test]
fn without_ids_a_channel_lists_none() {
    let swarm = Swarm::new();
    // Of fewer blobs the head itself says what they are.
    let entry = swarm.ingest("film", 40 * MIB, &[]);
    let stored = |extra: &[&str]| {
        swarm.publish(&[&entry], extra);
        blobs(&swarm.join("author")).len()
    };
    let without = stored(&["--no-ids"]);
    assert!(stored(&[]) > without, "they have a blob of their own");
}
