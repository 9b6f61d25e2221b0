//! Wrong clocks, by `faketime`: where that is not installed, these tests say so and check nothing (`scripts/test` installs
//! it; core's and the simulator's tests of clocks need no such program).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::process::{Command, Output, Stdio};

use crate::support::{Swarm, megatorrent, ok_json, run, stderr, subscribe_args};
use serde_json::Value;

/// Runs the program to its end in a swarm's folder, at another time by its wall clock.
fn run_at(swarm: &Swarm, time: &str, args: &[&str]) -> Output {
    let program = megatorrent();
    let mut command = Command::new("faketime");
    command.args(["--exclude-monotonic", "-f", time]).arg(program.get_program()).args(args);
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.current_dir(swarm.path()).env("TZ", "UTC").stdin(Stdio::null()).output().unwrap()
}

fn has_faketime() -> bool {
    let is_there = Command::new("faketime").arg("--version").output().is_ok_and(|out| out.status.success());
    if !is_there {
        eprintln!("skipped: faketime is not installed");
    }
    is_there
}

fn result(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

const IN_2020: &str = "@2020-07-01 00:00:00";

#[test]
fn a_clock_that_was_wrong_once_locks_nobody_out() {
    if !has_faketime() {
        return;
    }
    let swarm = Swarm::new();
    let entry = swarm.ingest("note.txt", 5000, &[]);
    let publish = ["publish", "-d", "author", "-b", &swarm.address, "--json", "-i", &entry];

    let ahead = run_at(&swarm, "+2y", &publish);
    assert!(!stderr(&ahead).contains("clock"), "{}", stderr(&ahead));
    let ahead = result(&ahead);
    assert_eq!(ahead.get("clock_ms"), None);

    let right = run(swarm.path(), publish);
    let said = stderr(&right);
    assert_eq!(said.matches("warning: this computer's clock says ").count(), 1, "{said}");
    let right = result(&right);
    assert_eq!(right["sequence"].as_u64(), ahead["sequence"].as_u64().map(|sequence| sequence + 1));
    assert!(right["clock_ms"].as_u64() < right["sequence"].as_u64());

    let in_2020 = run_at(&swarm, IN_2020, &publish);
    let said = stderr(&in_2020);
    assert_eq!(in_2020.status.code(), Some(1), "{said}");
    assert!(said.contains("2020-07-01 00:00:0") && said.contains("--any-clock"), "{said}");
    let insisting = result(&run_at(&swarm, IN_2020, &[&publish[..], &["--any-clock"]].concat()));
    assert_eq!(insisting["sequence"].as_u64(), right["sequence"].as_u64().map(|sequence| sequence + 1));

    let _author = swarm.serve_author();
    let uri = insisting["uri"].as_str().unwrap();
    let mut args = subscribe_args("reader", uri, &swarm.address);
    args.push("--once".into());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let reader = run_at(&swarm, IN_2020, &args);
    assert_eq!(reader.status.code(), Some(0), "{}", stderr(&reader));
    swarm.assert_equal("reader", "note.txt");
}

#[test]
fn a_clock_after_2100_is_refused() {
    if !has_faketime() {
        return;
    }
    let swarm = Swarm::new();
    let entry = swarm.ingest("note.txt", 5, &[]);
    let publish = ["publish", "-d", "author", "-b", &swarm.address, "-i", &entry];
    let late = run_at(&swarm, "@2100-01-02 00:00:00", &publish);
    assert_eq!(late.status.code(), Some(1));
    assert!(stderr(&late).contains("after 2100"), "{}", stderr(&late));
    assert!(
        ok_json(swarm.path(), publish)["sequence"].as_u64() < Some(4_102_444_800_000),
        "nothing was signed"
    );
}
