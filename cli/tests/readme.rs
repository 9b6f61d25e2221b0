//! Runs the examples of README.md as they stand there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

mod support;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{MIB, random_bytes, serve};

/// What a fence may be marked as: commands that this test runs, commands on the source tree (this test is part of the
/// second of them), and what a command shows.
const KINDS: [&str; 3] = ["sh", "sh source", "text"];

#[test]
fn every_example_of_the_readme_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let blocks = fenced_blocks(&readme);
    for (kind, body) in &blocks {
        assert!(KINDS.contains(&kind.as_str()), "unknown kind of example {kind:?}:\n{body}");
    }
    let bodies =
        |wanted: &str| blocks.iter().filter(|(k, _)| k == wanted).map(|(_, b)| b.clone()).collect::<Vec<_>>();
    assert_eq!(bodies("sh source"), ["cargo run --release -p megatorrent -- demo\n", "sh scripts/test\n"]);
    let examples = bodies("sh");
    assert!(!examples.is_empty());

    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in [(1, "film.mkv"), (2, "notes.txt")] {
        fs::write(folder.path().join(name), random_bytes(seed, MIB + 100)).unwrap();
    }
    let hub = serve(folder.path(), "hub", &[]);
    let address = hub.ready();
    // Nodes that an example leaves running end with it.
    let script = format!("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", examples.concat());
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path_with_binary())
        .env("MEGATORRENT_BOOTSTRAP", address)
        .env("MEGATORRENT_HOST", "127.0.0.1")
        .env("MEGATORRENT_P2P_PORT", "0")
        .env("MEGATORRENT_DHT", "server")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{}", support::stderr(&output));
    hub.stop();
}

/// The kind and the lines of each fenced block, in order.
fn fenced_blocks(markdown: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(kind), None) => open = Some((kind.to_owned(), String::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((kind, body))) => open = Some((kind, body + line + "\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence without an end");
    blocks
}

fn path_with_binary() -> std::ffi::OsString {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_megatorrent"));
    let folders = [binary.parent().unwrap().to_owned()];
    let old = env::var_os("PATH").unwrap();
    env::join_paths(folders.into_iter().chain(env::split_paths(&old))).unwrap()
}
