//! What users do to files that were fetched, and how they look at what they have and get it back.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;
use std::path::Path;

use crate::support::strace::{self, Case, Fault, Scope};
use crate::support::{MIB, Running, Swarm, blobs, ok_lines, random_bytes, run, stderr, subscribe_args};
use serde_json::Value;

/// All objects on a command's stdout, whatever its code, and that.
fn lines(folder: &Path, args: &[String]) -> (Vec<Value>, i32) {
    let output = run(folder, args.iter().map(String::as_str).chain(["--json"]));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, output.status.code().unwrap_or_else(|| panic!("{}", stderr(&output))))
}

/// The members `what` of the events of a name.
fn told(lines: &[Value], event: &str, what: [&str; 2]) -> Vec<(String, String)> {
    let of_name = lines.iter().filter(|line| line["event"] == event);
    let text = |line: &Value, member: &str| {
        let text = line[member].as_str().unwrap();
        text.rsplit('/').next().unwrap().to_owned()
    };
    let mut told: Vec<_> = of_name.map(|line| (text(line, what[0]), text(line, what[1]))).collect();
    told.sort();
    told
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn once(swarm: &Swarm, uri: &str) -> Vec<String> {
    [subscribe_args("reader", uri, &swarm.address), vec!["--once".to_owned()]].concat()
}

fn verify(swarm: &Swarm, extra: &[&str]) -> Vec<String> {
    let mut args = vec!["verify", "-d", "reader"];
    if extra.contains(&"--repair") {
        args.extend(["-H", "127.0.0.1", "--dht", "server", "-b", &swarm.address]);
    }
    args.into_iter().chain(extra.iter().copied()).map(str::to_owned).collect()
}

#[test]
fn what_a_user_deleted_or_edited_stays_so_until_it_is_asked_for() {
    let swarm = Swarm::new();
    let entries =
        [swarm.ingest("a", 2 * MIB, &[]), swarm.ingest("b", 18 * MIB + 5, &[]), swarm.ingest("c", 1000, &[])];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let uri = swarm.publish(&entries, &[])["uri"].as_str().unwrap().to_owned();
    let author = swarm.serve_author();
    ok_lines(swarm.path(), once(&swarm, &uri));
    assert_eq!(lines(swarm.path(), &verify(&swarm, &[])).1, 0);

    // One is deleted, one edited, one damaged behind everybody's back.
    let out = swarm.join("reader-out");
    fs::remove_file(out.join("a")).unwrap();
    let mut edited = fs::read(out.join("b")).unwrap();
    edited[3 * MIB] ^= 1;
    fs::write(out.join("b"), &edited).unwrap();
    let (found, code) = lines(swarm.path(), &verify(&swarm, &[]));
    assert_eq!(told(&found, "found", ["path", "state"]), pairs(&[("a", "deleted"), ("b", "edited")]));
    assert_eq!(code, 5);

    // A subscription leaves them so, and fetches nothing of them.
    for _ in 0..2 {
        let (events, code) = lines(swarm.path(), &once(&swarm, &uri));
        assert_eq!(told(&events, "withdrawn", ["path", "why"]), pairs(&[("a", "deleted"), ("b", "edited")]));
        assert_eq!(code, 1, "one that was edited is in the way");
        assert!(!out.join("a").exists() && fs::read(out.join("b")).unwrap() == edited);
    }

    let (events, code) = lines(swarm.path(), &verify(&swarm, &["--repair"]));
    assert_eq!(code, 0, "{events:#?}");
    let repaired = events.iter().find(|line| line["event"] == "repaired").unwrap();
    assert_eq!((&repaired["folders"], &repaired["left"]), (&1.into(), &0.into()));
    for name in ["a", "b", "c"] {
        swarm.assert_equal("reader", name);
    }
    assert_eq!(fs::read(out.join("b.edited")).unwrap(), edited);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4, "nothing is left under way");
    let stored = blobs(&swarm.join("reader")).len();
    assert!(stored <= 4, "the body, its page, the index and the ids: {stored}");
    assert_eq!(lines(swarm.path(), &verify(&swarm, &[])).1, 0);
    assert_eq!(lines(swarm.path(), &once(&swarm, &uri)).1, 0);
    author.stop();
}

#[test]
fn a_deleted_file_comes_with_another_content() {
    let swarm = Swarm::new();
    let (a, b) = (swarm.ingest("a", MIB, &[]), swarm.ingest("b", MIB + 1, &[]));
    let uri = swarm.publish(&[&a, &b], &[])["uri"].as_str().unwrap().to_owned();
    let author = swarm.serve_author();
    ok_lines(swarm.path(), once(&swarm, &uri));
    author.stop();
    for name in ["a", "b"] {
        fs::remove_file(swarm.join("reader-out").join(name)).unwrap();
    }
    let a = swarm.ingest("a", MIB + 70_000, &["--force"]);
    swarm.publish(&[&a, &b], &[]);
    let author = swarm.serve_author();
    let (events, code) = lines(swarm.path(), &once(&swarm, &uri));
    assert_eq!(code, 0, "{events:#?}");
    // Of the version that it knows already, the first may be told of too.
    let told = told(&events, "withdrawn", ["path", "why"]);
    assert!(pairs(&[("b", "deleted")]).iter().all(|pair| told.contains(pair)), "{told:?}");
    swarm.assert_equal("reader", "a");
    assert!(!swarm.join("reader-out/b").exists());
    author.stop();
}

#[test]
fn files_that_stand_there_already_are_taken_before_anything_is_fetched() {
    let swarm = Swarm::new();
    let (large, small) = (swarm.ingest("large", 40 * MIB + 5, &[]), swarm.ingest("small", 1000, &[]));
    let uri = swarm.publish(&[&large, &small], &[])["uri"].as_str().unwrap().to_owned();
    let out = swarm.join("reader-out");
    fs::create_dir(&out).unwrap();
    for name in ["large", "small"] {
        // Nobody else has it.
        fs::rename(swarm.join(name), out.join(name)).unwrap();
    }
    let author = swarm.serve_author();
    let (events, code) = lines(swarm.path(), &once(&swarm, &uri));
    assert_eq!(code, 0, "{events:#?}");
    let file = |name: &str| events.iter().find(|line| line["path"] == name).unwrap()["written"].clone();
    assert_eq!((file("large"), file("small")), (false.into(), false.into()));
    assert_eq!(lines(swarm.path(), &verify(&swarm, &[])).1, 0);
    let stored = blobs(&swarm.join("reader")).len();
    assert!(stored <= 4, "the body, its page, the index and the ids: {stored}");
    author.stop();
}

#[test]
fn a_file_of_the_authors_own_is_told_of_and_not_written_over() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 2 * MIB, &[]);
    swarm.publish(&[&entry], &[]);
    let path = swarm.join("film");
    let edited = random_bytes(9, 2 * MIB);
    fs::write(&path, &edited).unwrap();
    for extra in [&[][..], &["--repair", "-H", "127.0.0.1", "--dht", "server", "-b", &swarm.address]] {
        let args = ["verify", "-d", "author"].into_iter().chain(extra.iter().copied());
        let output = run(swarm.path(), args);
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
        assert!(stderr(&output).contains("it is yours and stays as it is"), "{}", stderr(&output));
        assert_eq!(fs::read(&path).unwrap(), edited);
    }
}

#[test]
fn a_damaged_blob_is_named_and_fetched_again() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 3 * MIB, &[]);
    let uri = swarm.publish(&[&entry], &[])["uri"].as_str().unwrap().to_owned();
    let author = swarm.serve_author();
    let args = [once(&swarm, &uri), vec!["--copy".to_owned()]].concat();
    ok_lines(swarm.path(), args);
    let all = blobs(&swarm.join("reader"));
    let mut bytes = fs::read(&all[0]).unwrap();
    bytes[5000] ^= 1;
    fs::write(&all[0], bytes).unwrap();
    let (events, code) = lines(swarm.path(), &verify(&swarm, &["--repair"]));
    let name = all[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(told(&events, "found", ["path", "state"]), pairs(&[(name, "damaged")]));
    assert_eq!(code, 0, "{events:#?}");
    assert_eq!(blobs(&swarm.join("reader")), all);
    assert_eq!(lines(swarm.path(), &verify(&swarm, &[])).1, 0);
    author.stop();
}

#[test]
fn a_home_that_is_not_there_is_told_and_one_that_runs_is_looked_at() {
    let swarm = Swarm::new();
    let args = |dir: &str, extra: &[&str]| {
        ["verify", "-d", dir].iter().chain(extra).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(lines(swarm.path(), &args("nowhere", &[])).1, 3);
    assert!(!swarm.join("nowhere").exists());
    assert_eq!(lines(swarm.path(), &args("bootstrap", &[])).1, 0);
    assert_eq!(lines(swarm.path(), &args("bootstrap", &["--repair"])).1, 0);
}

#[test]
fn a_repair_that_cannot_be_done_says_what_is_in_the_way() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 3 * MIB, &[]);
    let uri = swarm.publish(&[&entry], &[])["uri"].as_str().unwrap().to_owned();
    let author = swarm.serve_author();
    ok_lines(swarm.path(), once(&swarm, &uri));
    fs::remove_file(swarm.join("reader-out/film")).unwrap();
    let code = |extra: &[&str]| lines(swarm.path(), &verify(&swarm, &[&["--repair"], extra].concat())).1;

    let taken = swarm.address.rsplit_once(':').unwrap().1;
    assert_eq!(code(&["-T", taken]), 8);
    author.stop();
    assert_eq!(code(&["--timeout", "1"]), 3);
    let slow = ["serve", "-d", "author", "-H", "127.0.0.1", "-T", "0", "-P", "0", "--upload-limit", "1M"];
    let author = Running::start(swarm.path(), slow.iter().chain(&["--dht", "server", "-b", &swarm.address]));
    author.ready();
    let mut repair = Running::start(swarm.path(), verify(&swarm, &["--repair", "--timeout", "1"]));
    repair
        .event_where("a blob", |it| it["event"] == "progress" && it["blobs"] == 4 && it["blobs_total"] == 6);
    author.signal("STOP");
    assert_eq!(repair.wait().code(), Some(4), "{}", repair.said());
    author.signal("CONT");
    author.stop();
    assert!(!swarm.join("reader-out/film").exists());
}

#[test]
fn a_repair_without_space_says_so() {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", MIB, &[]);
    let uri = swarm.publish(&[&entry], &[])["uri"].as_str().unwrap().to_owned();
    let _author = swarm.serve_author();
    ok_lines(swarm.path(), once(&swarm, &uri));
    fs::remove_file(swarm.join("reader-out/film")).unwrap();
    let case = Case { scope: Scope::Each, call: "fallocate", number: 1, fault: Fault::NoSpace };
    let full = strace::run(swarm.path(), &swarm.join("log"), Some(&case), &verify(&swarm, &["--repair"]));
    assert_eq!(full.output.status.code(), Some(7), "{}", stderr(&full.output));
}
