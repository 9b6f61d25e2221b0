//! Runs the examples of README.md as they stand there.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{MIB, PATIENCE, random_bytes, serve};

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
    let script = format!("set -eu\n{}", examples.concat());
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path_with_binary())
        .env("HOME", folder.path())
        .env("XDG_DATA_HOME", folder.path().join("share"))
        .env_remove("XDG_CONFIG_HOME")
        .env("MEGATORRENT_BOOTSTRAP", address)
        .env("MEGATORRENT_HOST", "127.0.0.1")
        .env("MEGATORRENT_P2P_PORT", "0")
        .env("MEGATORRENT_DHT", "server")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0);
    let mut shell = shell.spawn().unwrap();
    let status = wait(&mut shell);
    // Nodes that the examples leave running are of the shell's process group.
    let kill = format!("kill -s TERM -- -{}", shell.id());
    let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(killed.success(), "the examples' nodes are told to end");
    let said = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{script}\n{said}");
    hub.stop();
}

/// The shell's end; `None` where it takes too long.
fn wait(shell: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = shell.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(10)); // std has no wait with a deadline
    }
    None
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
