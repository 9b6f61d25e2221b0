//! A disk that fails or is full, and a process that is killed, at each call that changes what is on the disk: nothing that was
//! reported is lost, the message names what happened, and the same command goes on.
//!
//! `strace` injects the faults; where it cannot, these tests say so and check nothing (`scripts/test` installs it). The usual
//! run tries a sample, `--ignored` (`scripts/soak`) every call.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;
use std::path::Path;

use crate::support::strace::{self, Case, Ended, Plan, Traced};
use crate::support::{MIB, Swarm, run, serve, stderr, subscribe_args};

/// Cases of each command in the usual run.
const SAMPLE: usize = 30;

/// A command, and what must hold once it was hit.
struct Subject<'a> {
    name: &'static str,
    /// Makes the folder of a case from its name.
    prepare: &'a dyn Fn(&str),
    /// Runs it in that folder.
    run: &'a dyn Fn(&str, &Path, Option<&Case>) -> Ended,
    /// Checks what is there, and that it goes on.
    after: &'a dyn Fn(&str, &Ended) -> Result<(), String>,
}

fn sweep(swarm: &Swarm, subject: &Subject<'_>, every: bool) {
    let log = |case: &str| swarm.join(&format!("{case}.log"));
    for case in ["clean-1", "clean-2"] {
        let name = format!("case/{case}");
        fs::create_dir_all(swarm.join("case")).unwrap();
        (subject.prepare)("case/k");
        let ended = (subject.run)("case/k", &log(case), None);
        assert!(ended.is_success(), "{name}: {}", stderr(&ended.output));
        (subject.after)("case/k", &ended).unwrap();
        fs::remove_dir_all(swarm.join("case")).unwrap();
    }
    let plan = Plan::new([&log("clean-1"), &log("clean-2")]);
    // A sample meets the same calls each time; scripts/soak meets all.
    let seed = if every { std::process::id() as usize } else { 1 };
    let cases = if every { plan.all() } else { sample(plan.some(seed), seed) };
    let (mut failures, mut told) = (Vec::new(), 0);
    for case in &cases {
        fs::create_dir_all(swarm.join("case")).unwrap();
        (subject.prepare)("case/k");
        let ended = (subject.run)("case/k", &log("case"), Some(case));
        if ended.says_something() {
            told += 1;
            let verdict = ended.check().and_then(|()| (subject.after)("case/k", &ended));
            if let Err(why) = verdict {
                eprintln!("{}: {case}: {why}", subject.name);
                failures.push(format!("{case}: {why}"));
            }
        }
        fs::remove_dir_all(swarm.join("case")).unwrap();
    }
    eprintln!(
        "{}: {} cases, {told} hit the disk, {} failed (seed {seed})",
        subject.name,
        cases.len(),
        failures.len()
    );
    assert!(told > 0, "{}: no fault was injected", subject.name);
    assert!(failures.is_empty(), "{}: {} of {told} cases failed (seed {seed})", subject.name, failures.len());
}

/// As many of the cases as there is time for.
fn sample(cases: Vec<Case>, seed: usize) -> Vec<Case> {
    let step = cases.len().div_ceil(SAMPLE);
    cases.into_iter().skip(seed % step.max(1)).step_by(step.max(1)).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Fetches the film from a node; the folder has the name of the case.
fn fetch(swarm: &Swarm, case: &str, uri: &str, from: &str) -> Result<(), String> {
    let name = format!("{case}/check");
    let mut args = subscribe_args(&name, uri, from);
    args.extend(["--once", "--timeout", "20"].map(String::from));
    let output = run(swarm.path(), args);
    if output.status.code() != Some(0) {
        return Err(format!("it cannot be fetched: {}", stderr(&output)));
    }
    is_film(swarm, &format!("{name}-out/film"))
}

fn is_film(swarm: &Swarm, path: &str) -> Result<(), String> {
    let got = fs::read(swarm.join(path)).map_err(|error| format!("{path}: {error}"))?;
    if got == fs::read(swarm.join("film")).unwrap() { Ok(()) } else { Err(format!("{path} is not the film")) }
}

/// Serves a case's author, and fetches from there.
fn serves(swarm: &Swarm, case: &str, uri: &str) -> Result<(), String> {
    let author = serve(swarm.path(), &format!("{case}/author"), &[&swarm.address]);
    let address = author.ready();
    let fetched = fetch(swarm, case, uri, &address);
    author.stop();
    fetched
}

fn ingest(every: bool, extra: &[&str]) {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    fs::write(swarm.join("film"), crate::support::random_bytes(1, 18 * MIB + 5)).unwrap();
    let args = |case: &str| -> Vec<String> {
        let (home, entry) = (format!("{case}/author"), format!("{case}/film.json"));
        let args = ["ingest", "-i", "film", "-d", &home, "-k", "identity.json", "-o", &entry];
        args.iter().chain(extra).map(ToString::to_string).collect()
    };
    let after = |case: &str, ended: &Ended| {
        let entry = format!("{case}/film.json");
        if !ended.is_success() {
            let again = run(swarm.path(), args(case));
            // A killed one may have been through.
            let is_there = ended.was_killed() && stderr(&again).contains("exists");
            if again.status.code() != Some(0) && !is_there {
                return Err(format!("again: {}", stderr(&again)));
            }
        }
        let home = format!("{case}/author");
        let output = run(swarm.path(), ["publish", "-d", &home, "-b", &swarm.address, "-i", &entry]);
        let said = stderr(&output);
        if output.status.code() != Some(0) || said.contains("are not in") {
            return Err(format!("what was ingested cannot be published: {said}"));
        }
        let left = left_over(&swarm.join(&home));
        if left.is_empty() { Ok(()) } else { Err(format!("left over: {left:?}")) }
    };
    let subject = Subject {
        name: "ingest",
        prepare: &|case| fs::create_dir_all(swarm.join(case)).unwrap(),
        run: &|case, log, fault| strace::run(swarm.path(), log, fault, &args(case)),
        after: &after,
    };
    sweep(&swarm, &subject, every);
}

/// Files of a home that nobody has a use for.
fn left_over(home: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "new" || extension == "part")
                || path.parent().and_then(Path::parent).is_some_and(|folder| folder.ends_with("tmp"))
            {
                left.push(path.strip_prefix(home).unwrap().display().to_string());
            }
        }
    }
    left
}

fn publish(every: bool) {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 2 * MIB + 5, &[]);
    let args = |case: &str| -> Vec<String> {
        let home = format!("{case}/author");
        ["publish", "-d", &home, "-b", &swarm.address, "-i", &entry].map(String::from).to_vec()
    };
    let after = |case: &str, ended: &Ended| {
        let reported = serde_json::from_slice::<serde_json::Value>(&ended.output.stdout).ok();
        let reported = reported.filter(|line| line.get("uri").is_some());
        let published = match reported {
            Some(published) => published,
            None if ended.is_success() => return Err("no URI".to_owned()),
            None => {
                let again = run(swarm.path(), args(case).iter().map(String::as_str).chain(["--json"]));
                if again.status.code() != Some(0) {
                    return Err(format!("again: {}", stderr(&again)));
                }
                serde_json::from_slice(&again.stdout).unwrap()
            }
        };
        serves(&swarm, case, published["uri"].as_str().unwrap())
    };
    let subject = Subject {
        name: "publish",
        prepare: &|case| copy_folder(&swarm.join("author"), &swarm.join(case).join("author")),
        run: &|case, log, fault| strace::run(swarm.path(), log, fault, &args(case)),
        after: &after,
    };
    sweep(&swarm, &subject, every);
}

fn subscribe(every: bool, extra: &[&str]) {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 2 * MIB + 5, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let author = serve(swarm.path(), "author", &[&swarm.address]);
    let address = author.ready();
    let args = |case: &str, timeout: &str| {
        let mut args = subscribe_args(&format!("{case}/reader"), uri, &address);
        args.extend(["--once", "--timeout", timeout].iter().chain(extra).map(ToString::to_string));
        args
    };
    let after = |case: &str, ended: &Ended| {
        let is_complete = String::from_utf8_lossy(&ended.output.stdout).contains("\"complete\"");
        let film = format!("{case}/reader-out/film");
        if is_complete || ended.is_success() {
            is_film(&swarm, &film)
                .map_err(|why| format!("reported complete, but {why}: {}", stderr(&ended.output)))?;
        }
        let again = run(swarm.path(), args(case, "20"));
        if again.status.code() != Some(0) {
            return Err(format!("again: {}", stderr(&again)));
        }
        is_film(&swarm, &film)?;
        let out = fs::read_dir(swarm.join(&format!("{case}/reader-out"))).unwrap();
        let names: Vec<_> =
            out.map(|entry| entry.unwrap().file_name()).filter(|name| name != "film").collect();
        let left = left_over(&swarm.join(&format!("{case}/reader")));
        if names.is_empty() && left.is_empty() {
            Ok(())
        } else {
            Err(format!("left over: {names:?} {left:?}"))
        }
    };
    let subject = Subject {
        name: "subscribe",
        prepare: &|case| fs::create_dir_all(swarm.join(case)).unwrap(),
        run: &|case, log, fault| strace::run(swarm.path(), log, fault, &args(case, "3")),
        after: &after,
    };
    sweep(&swarm, &subject, every);
}

fn serving(every: bool) {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 2 * MIB + 5, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let start = |case: &str, log: &Path, fault: Option<&Case>| {
        let home = format!("{case}/author");
        let args = [
            "serve",
            "-d",
            &home,
            "-H",
            "127.0.0.1",
            "-T",
            "0",
            "-P",
            "0",
            "--dht",
            "server",
            "-b",
            &swarm.address,
        ];
        let mut node = Traced::start(swarm.path(), log, fault, &args);
        // Long enough for a reader that finds it by the DHT.
        let mut reader = subscribe_args(&format!("{case}/first"), uri, &swarm.address);
        reader.extend(["--once", "--timeout", "2"].map(String::from));
        if node.is_running() {
            let output = run(swarm.path(), reader);
            assert!(fault.is_some() || output.status.code() == Some(0), "{}", stderr(&output));
        }
        node.terminate();
        node.end()
    };
    let subject = Subject {
        name: "serve",
        prepare: &|case| copy_folder(&swarm.join("author"), &swarm.join(case).join("author")),
        run: &start,
        after: &|case, _| serves(&swarm, case, uri),
    };
    sweep(&swarm, &subject, every);
}

#[test]
fn an_ingest_on_a_failing_disk_loses_nothing() {
    ingest(false, &[]);
}

#[test]
fn an_ingest_of_copies_on_a_failing_disk_loses_nothing() {
    ingest(false, &["--copy"]);
}

#[test]
fn a_publish_on_a_failing_disk_loses_nothing() {
    publish(false);
}

#[test]
fn a_subscribe_on_a_failing_disk_loses_nothing() {
    subscribe(false, &[]);
}

#[test]
fn a_subscribe_with_copies_on_a_failing_disk_loses_nothing() {
    subscribe(false, &["--copy"]);
}

#[test]
fn a_serve_on_a_failing_disk_loses_nothing() {
    serving(false);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_call_of_ingest() {
    ingest(true, &[]);
    ingest(true, &["--copy"]);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_call_of_publish() {
    publish(true);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_call_of_subscribe() {
    subscribe(true, &[]);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_call_of_subscribe_with_copies() {
    subscribe(true, &["--copy"]);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_call_of_serve() {
    serving(true);
}
