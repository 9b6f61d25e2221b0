//! `simulate` as its users meet it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

mod support;

use std::fs;

use megatorrent_sim::scenario::Scenario;
use support::{ok, ok_lines, run, stderr};

const SMALL: [&str; 7] = ["simulate", "--peers", "3", "--blobs", "1", "--seed", "7"];

#[test]
fn one_seed_is_one_swarm_and_the_first_line_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |args: &[&str]| ok_lines(folder.path(), SMALL.iter().chain(args));
    let first = lines(&[]);
    assert_eq!(first, lines(&[]), "two processes, one trace");
    assert_eq!((&first[0]["event"], &first[0]["seed"]), (&"simulation".into(), &7.into()));
    assert!(first[0]["mode"].as_str().unwrap().contains("crypto") && first[0]["commit"].is_string());
    assert!(first[1..first.len() - 1].iter().all(|line| line["event"] == "timeline"));
    let result = first.last().unwrap();
    assert_eq!((&result["complete"], &result["peers"]), (&3.into(), &3.into()));
    assert_eq!(result["trace_hash"].as_str().unwrap().len(), 64);
    assert!(result["ratio_permille"].as_u64().unwrap() >= 1000);

    let mixed = lines(&["--scenario", "mixed"]);
    assert!(
        mixed.last().unwrap()["exchanges"].as_array().unwrap().iter().any(|sent| sent["from"] == "v5 peers")
    );
    let null = lines(&["--scenario", "hostile", "--null"]);
    assert!(null[0]["mode"].as_str().unwrap().starts_with("null crypto, blobs of 16 KiB"));
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
    ] {
        let output = run(folder.path(), ["simulate"].iter().chain(&args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    }
}
