//! Hostile input on the real program's port: it turns strangers away, tells them nothing, keeps its memory, and serves
//! honest peers meanwhile.

use std::fs;
use std::path::Path;

use crate::support::{Running, Swarm, megatorrent, ok, run, serve, split, v5_peer, write_file};
use serde_json::Value;
use tempfile::TempDir;

/// The most memory that a node may take (issue: `serve` below 64 MiB), whatever strangers send.
const MEMORY_MAX_KIB: u64 = 64 * 1024;
/// Types of messages whose content a stranger must not make us take: v5's, and those beyond it.
const CHECKED_TYPES: [u64; 16] = [1, 2, 3, 4, 5, 6, 7, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
const DATA: u64 = 3;
const PIECE: u64 = 0x14;
const PARTS: u64 = 0x18;
/// Number, part and half, before a PIECE's bytes.
const PIECE_HEADER_LEN: u64 = 6;
/// Number and values.
const PARTS_LEN: u64 = 4 + 528;
const HALF_LEN: u64 = 32_768;
const ERROR: u64 = 255;

/// A node that has a file's blobs, an identity beside its folder, and an honest peer's entry.
struct Target {
    folder: TempDir,
    node: Running,
    address: String,
    secret: String,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        write_file(&path.join("file"), 1 << 20);
        ok(megatorrent(path, &["gen-key"]));
        let identity = crate::support::read_json(&path.join("identity.json"));
        let secret = identity["secretKey"].as_str().expect("hex")[..16].to_owned();
        ok(megatorrent(path, &["ingest", "-i", "file", "-d", "data", "-o", "entry.json", "--v5"]));
        // A v5 peer gets what a channel says the ids of.
        let swarm = Swarm::new();
        ok(megatorrent(path, &["publish", "-i", "entry.json", "-d", "data", "-b", &swarm.bootstrap]));
        let (node, address) = serve(path, &["--dht", "off"]);
        Self { folder, node, address, secret }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether an honest peer gets its file now.
    fn serves(&self) -> bool {
        let (host, port) = split(&self.address);
        let arguments = ["fetch", host, port, "--entry", "entry.json", "--blobs", "got"];
        run(v5_peer(self.path(), &arguments)).status.success()
    }

    /// The hostile program, begun.
    fn attack(&self, kind: &str, options: &[&str]) -> Running {
        let (host, port) = split(&self.address);
        Running::start(v5_peer(self.path(), &[&["bad", kind, host, port], options].concat()))
    }

    /// The hostile program to its end, while honest peers come; its reports.
    fn suffer(&self, kind: &str, options: &[&str]) -> Vec<Value> {
        let mut attack = self.attack(kind, options);
        while attack.is_alive() {
            assert!(self.serves(), "honest peers are served during {kind}");
        }
        let (status, reports) = attack.finish();
        assert!(status.success() && !reports.is_empty(), "{kind}: {reports:?}");
        for report in &reports {
            assert!(!report.to_string().contains(&self.secret), "{report}");
            assert!(answers(report).all(|answer| answer["type"] != DATA), "{report}");
        }
        reports
    }

    /// Checks that the node lives, serves, and took no more memory than it may.
    fn stands(&mut self) {
        assert!(self.node.is_alive() && self.serves());
        let peak = self.node.memory_peak_kib();
        assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    }
}

fn answers(report: &Value) -> impl Iterator<Item = &Value> {
    report["answers"].as_array().into_iter().flatten()
}

fn is_closed(report: &Value) -> bool {
    report["outcome"] == "closed"
}

#[test]
fn what_is_no_v5_is_turned_away() {
    let mut target = Target::new();
    // Our public key goes out unasked; nothing else may.
    let told = |report: &Value| report["bytes"].as_u64().unwrap_or_default();
    for report in target.suffer("http", &[]).iter().chain(&target.suffer("low-order", &[])) {
        assert!(is_closed(report) && told(report) <= 32, "{report}");
    }
    for report in target.suffer("length-4gib", &[]).iter().chain(&target.suffer("short-frame", &[])) {
        assert!(is_closed(report), "{report}");
    }
    for report in target.suffer("random", &["--timeout", "1"]) {
        // Fewer bytes than a key or a length field are no fault yet.
        let is_short =
            report["length"].as_u64().or(report["after_handshake"].as_u64()).expect("a number") < 36;
        assert!((is_closed(&report) || is_short) && told(&report) <= 32, "{report}");
    }
    target.stands();
}

#[test]
fn senseless_messages_end_the_connection_and_nothing_else() {
    let mut target = Target::new();
    for report in target.suffer("deep-json", &[]) {
        assert!(is_closed(&report), "{report}");
    }
    for report in target.suffer("traversal-request", &[]) {
        let is_id = report["request"].as_str().is_some_and(|id| id.len() == 64 && id.starts_with("AAA"));
        assert!(is_closed(&report) || is_id, "{report}");
    }
    for report in target.suffer("garbage", &[]) {
        let is_known = report["type"].as_u64().is_some_and(|kind| CHECKED_TYPES.contains(&kind));
        // `{}` is a legal HELLO. After messages without meaning, the connection still answers.
        let is_legal = report["type"] == 1 && report["length"] == 2;
        let still_answers = answers(&report).any(|answer| answer["type"] == ERROR);
        let expected =
            if is_known && !is_legal { is_closed(&report) } else { still_answers || is_closed(&report) };
        assert!(expected, "{report}");
    }
    target.stands();
}

#[test]
fn lawless_v6_peers_are_turned_away_and_odd_ones_answered() {
    let mut target = Target::new();
    let reports = target.suffer("beyond-v5", &["--entry", "entry.json"]);
    for report in &reports[..reports.len() - 1] {
        // The harmless request after the step is answered where the connection goes on.
        let goes_on = answers(report).any(|answer| answer["text"] == "Not Found");
        let is_legal = report["legal"].as_bool().expect("a flag");
        assert!(goes_on == is_legal && is_closed(report) != is_legal, "{report}");
    }
    let lengths = |step: &str, kind: u64| {
        let report = reports.iter().find(|report| report["step"] == step).expect("it was tried");
        let of_kind = answers(report).filter(|answer| answer["type"] == kind);
        of_kind.map(|answer| answer["length"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(lengths("WANT of a blob that it lacks", PIECE), [PIECE_HEADER_LEN], "it is refused");
    assert_eq!(lengths("WANT of a blob that it lacks, 60 times", PIECE), [PIECE_HEADER_LEN; 60]);
    assert_eq!(lengths("WANT of 4096 bytes", PIECE), [PIECE_HEADER_LEN + 4096]);
    assert!(lengths("WANT of 4096 bytes", PARTS).is_empty());
    assert_eq!(lengths("WANT of values and the last part", PARTS), [PARTS_LEN]);
    assert_eq!(lengths("WANT of values and the last part", PIECE), [PIECE_HEADER_LEN + HALF_LEN; 2]);
    target.stands();
}

#[test]
fn floods_and_slow_senders_cost_bounded_memory() {
    let mut target = Target::new();
    target.suffer("flood", &["--connections", "100000"]);
    // Those within the handshake are cut after its 10 s.
    let reports = target.suffer("slow-loris", &["--connections", "200", "--seconds", "13"]);
    assert!(reports.last().expect("two reports")["closed"].as_u64() >= Some(100), "{reports:?}");
    target.stands();
}

#[test]
fn a_thousand_idle_connections_keep_no_peer_out() {
    let mut target = Target::new();
    for kind in ["idle", "idle-keyed"] {
        let mut attack = target.attack(kind, &["--connections", "1000"]);
        let held = attack.wait_for("report", |report| report["outcome"] == "held");
        assert!(held["connections"].as_u64() > Some(900), "{held}");
        assert!(target.serves(), "{kind}");
        target.stands();
        attack.end_input();
        assert!(attack.finish().0.success());
    }
    let files = fs::read_dir(target.path()).expect("readable").count();
    assert_eq!(files, 5, "nothing came into being beside data, entry, file, got and identity");
}
