//! `simulate`: a whole swarm in virtual time, drawn from one number.

use std::fs;
use std::path::Path;
use std::time::Duration;

use megatorrent_sim::picture;
use megatorrent_sim::scenario::{Params, Report, run as simulate};
use megatorrent_sim::shrink::shrink;
use serde_json::{Value, json};

use crate::args::Simulate;
use crate::exit::{Exit, Failure};
use crate::output::{News, Output};

/// The commit that the program was built from, where its build was told or found it.
const COMMIT: &str = env!("MEGATORRENT_COMMIT");

pub(crate) fn run(args: &Simulate, output: Output) -> Result<(), Failure> {
    let seed = args.seed.map_or_else(random_seed, Ok)?;
    let params = Params {
        seed,
        peers: args.peers,
        blobs: args.blobs,
        only: args.only.as_ref().map(|only| only.0.clone()),
        null: args.null,
        weight: false,
        bound: args.bound.map(Duration::from_secs),
        bug: None,
    };
    params.check(args.scenario).map_err(Failure::usage)?;
    if let Some(path) = &args.picture {
        try_picture(path)?;
    }
    let mode = params.crypto(args.scenario).describe();
    let first = json!({ "scenario": args.scenario.name(), "seed": seed, "commit": COMMIT, "mode": mode });
    let text = format!("{}: seed {seed}, commit {COMMIT}, {mode}", args.scenario);
    output.event(News::Simulation, first, &text)?;
    let mut report = simulate(args.scenario, &params);
    tell(&report, output)?;
    if report.finding.is_some() && !args.no_shrink {
        output.note("looking for the shortest scenario that fails so");
        report = shrink(&report, |shorter| {
            output.note(&format!("still fails: {}", shorter.command()));
        });
    }
    let shown = finish(&report, output);
    let drawn = args.picture.as_deref().map_or(Ok(()), |path| draw(&report, path, output));
    match (shown, drawn) {
        // What the run has shown matters more.
        (Err(failure), Err(no_picture)) => {
            output.warn(&no_picture.to_string());
            Err(failure)
        }
        (shown, drawn) => shown.and(drawn),
    }
}

/// The timeline.
fn tell(report: &Report, output: Output) -> Result<(), Failure> {
    for entry in &report.timeline {
        let seconds = entry.at.as_secs_f64();
        let members = json!({ "seconds": seconds, "kind": entry.kind, "text": entry.text });
        output.event(News::Timeline, members, &format!("{seconds:8.2} s  {}", entry.text))?;
    }
    if report.entries_left_out > 0 {
        let members = json!({ "count": report.entries_left_out });
        output.event(News::LeftOut, members, &format!("and {} more", report.entries_left_out))?;
    }
    Ok(())
}

/// The numbers, or the failure.
fn finish(report: &Report, output: Output) -> Result<(), Failure> {
    if let Some(finding) = &report.finding {
        let command = report.command();
        let message = format!("{} ({}). To see it again: {command}", finding.text, finding.checker);
        return Err(Failure::new(Exit::Integrity, message));
    }
    let mut text: Vec<String> =
        picture::numbers(report).into_iter().map(|(name, value)| format!("{name:<27}{value}")).collect();
    text.push(format!("{:<27}{}", "trace hash", report.trace_hex()));
    text.push(format!("{:<27}{}", "again", report.command()));
    output.result(&result(report), &text.join("\n"))
}

/// What a run has shown, as one object.
fn result(report: &Report) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let traffic = report.traffic;
    json!({
        "event": News::Result.name(),
        "scenario": report.scenario.name(),
        "seed": report.params.seed,
        "peers": report.peers,
        "adversaries": report.adversaries,
        "blobs": report.blobs,
        "complete": report.completions.len(),
        "median_ms": report.median().map(millis),
        "last_ms": report.last().map(millis),
        "fluid_bound_ms": report.fluid_bound.map(millis),
        "honest_bound_ms": report.honest_bound.map(millis),
        "discovery_ms": report.discovery.map(millis),
        "ratio_permille": report.ratio_permille(),
        "fluid_ratio_permille": report.fluid_ratio_permille(),
        "without_adversaries": report.peaceful.as_ref().map(|peaceful| json!({
            "median_ms": peaceful.median.map(millis),
            "last_ms": peaceful.last.map(millis),
            "slowdown_permille": report.slowdown_permille(),
        })),
        "exchanges": report
            .exchanges
            .iter()
            .map(|sent| json!({ "from": sent.from.name(), "to": sent.to.name(), "bytes": sent.bytes }))
            .collect::<Vec<_>>(),
        "completions_ms":
            report.completions.iter().map(|(host, took)| json!([host, millis(*took)])).collect::<Vec<_>>(),
        "updates_ms": report
            .updates
            .iter()
            .map(|times| times.iter().copied().map(millis).collect::<Vec<_>>())
            .collect::<Vec<_>>(),
        "content_bytes": traffic.data,
        "control_bytes": traffic.control,
        "handshake_bytes": traffic.handshake,
        "duplicates_permille": report.duplicates_permille,
        "dials": traffic.dials,
        "dht_operations": traffic.dht_ops,
        "virtual_ms": millis(report.took),
        "trace_entries": report.trace_len,
        "trace_hash": report.trace_hex(),
        "again": report.command(),
    })
}

#[derive(Clone, Copy)]
enum Format {
    Svg,
    Html,
}

fn picture_format(path: &Path) -> Result<Format, Failure> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Format::Svg),
        Some("html" | "htm") => Ok(Format::Html),
        _ => {
            let message = format!("{}: a picture's name ends with .svg or .html", path.display());
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Sees whether a picture can be written, so that nobody waits for a run in vain. Leaves things as they are.
fn try_picture(path: &Path) -> Result<(), Failure> {
    picture_format(path)?;
    let tried = if path.exists() {
        fs::OpenOptions::new().append(true).open(path).map(drop)
    } else {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        tempfile::tempfile_in(folder.unwrap_or(Path::new("."))).map(drop)
    };
    tried.map_err(|error| Failure::file("cannot write", path, &error))
}

fn draw(report: &Report, path: &Path, output: Output) -> Result<(), Failure> {
    let text = match picture_format(path)? {
        Format::Svg => picture::svg(report, COMMIT),
        Format::Html => picture::html(report, COMMIT),
    };
    fs::write(path, text).map_err(|error| Failure::file("cannot write", path, &error))?;
    output.note(&format!("the picture is in {}", path.display()));
    Ok(())
}

fn random_seed() -> Result<u64, Failure> {
    // Few digits, as people copy it.
    getrandom::u32().map(u64::from).map_err(|error| {
        Failure::new(Exit::Other, format!("the system has no randomness to give ({error}); name a --seed"))
    })
}
