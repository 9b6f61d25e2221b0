//! `simulate` as its users meet it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;
use std::path::Path;

use crate::support::{ok, ok_lines, run, stderr};
use megatorrent_sim::scenario::Scenario;
use serde_json::Value;

const SMALL: [&str; 7] = ["simulate", "--peers", "3", "--blobs", "1", "--seed", "7"];

#[test]
fn one_seed_is_one_swarm_and_the_first_line_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |args: &[&str]| ok_lines(folder.path(), SMALL.iter().chain(args));
    let first = lines(&[]);
    assert_eq!(first, lines(&[]), "two processes, one trace");
    assert_eq!((&first[0]["event"], &first[0]["seed"]), (&"simulation".into(), &7.into()));
    assert!(first[0]["mode"].as_str().unwrap().contains("crypto"));
    let commit = first[0]["commit"].as_str().unwrap();
    let is_hash = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.git"));
    let is_found = repository.exists() && std::env::var_os("MEGATORRENT_COMMIT").is_none();
    assert!(is_hash || !is_found, "{commit}");
    assert!(first[1..first.len() - 1].iter().all(|line| line["event"] == "timeline"));
    let result = first.last().unwrap();
    assert_eq!((&result["complete"], &result["peers"]), (&3.into(), &3.into()));
    assert_eq!(result["trace_hash"].as_str().unwrap().len(), 64);
    let member = |name: &str| result[name].as_u64().unwrap();
    assert!(member("fluid_ratio_permille") >= 1000 && member("ratio_permille") > 0);
    assert!(member("honest_bound_ms") > member("fluid_bound_ms") && member("discovery_ms") > 0);

    let mixed = lines(&["--scenario", "mixed"]);
    assert!(
        mixed.last().unwrap()["exchanges"].as_array().unwrap().iter().any(|sent| sent["from"] == "v5 peers")
    );
    let null = lines(&["--scenario", "hostile", "--null"]);
    assert!(null[0]["mode"].as_str().unwrap().starts_with("null crypto, blobs of 1 MiB"));
    let result = null.last().unwrap();
    assert!(result["again"].as_str().unwrap().contains(" --null"));
    assert!(result["without_adversaries"]["slowdown_permille"].is_u64());

    let churn = lines(&["--scenario", "churn", "--only", "none"]);
    assert!(churn.iter().all(|line| !line["text"].as_str().unwrap_or_default().starts_with('[')));
}

#[test]
fn words_go_to_stderr_numbers_to_stdout_and_the_picture_to_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--scenario", "partition", "--picture", "swarm.svg"];
    let output = run(folder.path(), SMALL.iter().chain(&args));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("partition: seed 7, commit "), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing passes between"));
    let numbers = String::from_utf8(output.stdout).unwrap();
    assert!(
        numbers.contains("3 of 3 peers") && numbers.contains("--seed 7") && numbers.contains("trace hash")
    );
    assert!(fs::read_to_string(folder.path().join("swarm.svg")).unwrap().starts_with("<svg"));
    ok(folder.path(), SMALL.iter().chain(&["--picture", "swarm.html"]));
    assert!(fs::read_to_string(folder.path().join("swarm.html")).unwrap().starts_with("<!DOCTYPE html>"));
}

#[test]
fn help_names_every_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let help = ok(folder.path(), ["simulate", "--help"]);
    for scenario in Scenario::ALL {
        assert!(help.contains(&format!("\n  {scenario:<13}  ")), "{scenario}: {help}");
    }
}

#[test]
fn what_cannot_be_simulated_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        ["--scenario", "rain"],
        ["--peers", "0"],
        ["--peers", "1000000"],
        ["--blobs", "0"],
        ["--only", "1,x"],
        ["--picture", "swarm.png"],
        ["--scenario=mixed", "--null"],
        ["--scenario=mixed", "--blobs=3"],
        ["--scenario=partition", "--only=0,99"],
        ["--only", "0"],
        ["--bound", "0"],
    ] {
        let output = run(folder.path(), ["simulate"].iter().chain(&args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
    let output = run(folder.path(), ["simulate", "--scenario=partition", "--only=0,99", "--seed=1"]);
    assert!(stderr(&output).contains("no event 99 to be left: partition has events 0 to 1"), "{output:?}");
}

/// Nobody can be complete within a second.
const FAILING: [&str; 9] =
    ["simulate", "--peers", "3", "--blobs", "4", "--seed", "7", "--bound=1", "--scenario=flash-crowd"];

#[test]
fn a_run_that_fails_is_shrunk_drawn_and_told_with_what_repeats_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), FAILING.iter().chain(&["--json", "--picture", "swarm.html"]));
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let lines: Vec<Value> = String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(lines.iter().any(|line| line["event"] == "timeline" && line["text"] == "3 peers join"));
    let error = lines.last().unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &5.into()));
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("not complete 1 s after the healing") && message.contains("(liveness)"),
        "{message}"
    );
    let words = stderr(&output);
    assert!(words.contains("looking for the shortest scenario that fails so\nstill fails: "), "{words}");
    assert!(words.contains("the picture is in swarm.html"), "{words}");

    // The command in the message shows the same again.
    let (_, command) = message.split_once("To see it again: megatorrent ").unwrap();
    let page = fs::read_to_string(folder.path().join("swarm.html")).unwrap();
    assert!(page.contains("FAILED (liveness)") && page.contains(command), "{command}");
    let again = run(folder.path(), command.split(' ').chain(["--no-shrink", "--json"]));
    assert_eq!(again.status.code(), Some(5));
    let told = String::from_utf8(again.stdout.clone()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(told.lines().last().unwrap()).unwrap()["message"], message);
    assert!(!stderr(&again).contains("looking for the shortest"), "{}", stderr(&again));
}

#[test]
fn where_no_picture_can_be_written_no_result_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), SMALL.iter().chain(&["--picture", "nowhere/swarm.svg"]));
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: cannot write nowhere/swarm.svg: "), "before the run");
    assert!(ok(folder.path(), ["simulate", "--help"]).contains("3 the picture's folder is not there"));
    fs::create_dir(folder.path().join("folder.svg")).unwrap();
    let output = run(folder.path(), SMALL.iter().chain(&["--picture", "folder.svg"]));
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of the trial");
}

/// A disk that is full only when the picture is written.
#[cfg(target_os = "linux")]
#[test]
fn a_picture_that_fails_at_the_end_does_not_hide_what_the_run_has_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("full.svg")).unwrap();
    let picture = ["--picture", "full.svg"];
    let output = run(folder.path(), SMALL.iter().chain(&picture));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(String::from_utf8(output.stdout).unwrap().contains("3 of 3 peers"));
    let output = run(folder.path(), FAILING.iter().chain(&picture).chain(&["--no-shrink"]));
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(
        words.contains("warning: cannot write full.svg") && words.contains("To see it again: "),
        "{words}"
    );
}
