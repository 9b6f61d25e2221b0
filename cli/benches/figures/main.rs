//! The project's figures, measured against what this machine allows in the same run (`docs/benchmarks.md`).
//!
//! `cargo bench -p megatorrent --bench figures -- [PART]… [--size MiB] [--memory-size MiB] [--runs N] [--dir DIR] [--json]`
//!
//! Parts: `primitives`, `ingest`, `transfer`, `holders`, `seeders`, `memory`, `idle`, `service`, `connections`; without one, all of them. The binary is the real one.
//! Figures are reported, not judged: a shared machine is no place for timed tests.

#![expect(clippy::cast_precision_loss, reason = "figures are rounded to three digits anyway")]

mod connections;
mod input;
mod machine;
mod parts;
mod process;
mod report;
mod seeders;
mod service;
#[path = "../../tests/all/support/stranger.rs"]
mod stranger;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use report::Report;

/// What ends the benchmark early, with its reason for a person.
type Outcome<T> = Result<T, Box<dyn Error>>;

const PARTS: [&str; 9] =
    ["primitives", "ingest", "transfer", "holders", "seeders", "memory", "idle", "service", "connections"];

/// What is measured, and how large.
struct Settings {
    parts: Vec<String>,
    /// Size of the file that is ingested and transferred.
    size_mib: u64,
    /// Size of the file whose way through the programs shows their peak memory.
    memory_size_mib: u64,
    runs: usize,
    dir: PathBuf,
    json: bool,
}

impl Settings {
    fn parse(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut settings = Self {
            parts: Vec::new(),
            size_mib: 1024,
            memory_size_mib: 10 * 1024,
            runs: 5,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
            json: false,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--size" => settings.size_mib = value()?.parse()?,
                "--memory-size" => settings.memory_size_mib = value()?.parse()?,
                "--runs" => settings.runs = value()?.parse()?,
                "--dir" => settings.dir = value()?.into(),
                "--json" => settings.json = true,
                "--bench" => {} // Cargo's own.
                part if PARTS.contains(&part) => settings.parts.push(arg),
                _ => return Err(format!("{arg:?} is none of {PARTS:?} and no option").into()),
            }
        }
        if settings.runs == 0 || settings.size_mib == 0 || settings.memory_size_mib == 0 {
            return Err("sizes and runs are at least 1".into());
        }
        Ok(settings)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

fn run() -> Outcome<()> {
    let settings = Settings::parse(std::env::args().skip(1))?;
    let folder = tempfile::Builder::new().prefix("figures-").tempdir_in(&settings.dir)?;
    let mut report = Report::new(settings.json);
    report.machine();
    if settings.wants("primitives") {
        parts::primitives(folder.path(), settings.runs, &mut report)?;
    }
    if settings.wants("idle") {
        parts::idle(folder.path(), settings.runs, &mut report)?;
    }
    if settings.wants("service") {
        service::service(folder.path(), settings.runs, &mut report)?;
    }
    if settings.wants("connections") {
        connections::connections(folder.path(), &mut report)?;
    }
    if ["ingest", "transfer", "holders"].iter().any(|part| settings.wants(part)) {
        let bench = parts::Bench::new(folder.path(), settings.size_mib, settings.runs)?;
        if settings.wants("ingest") {
            bench.ingest(&mut report)?;
        }
        if settings.wants("transfer") {
            bench.transfer(&mut report)?;
        }
        if settings.wants("holders") {
            bench.holders(&mut report)?;
        }
        bench.close()?;
    }
    if settings.wants("seeders") {
        seeders::seeders(folder.path(), settings.size_mib, settings.runs, &mut report)?;
    }
    if settings.wants("memory") {
        parts::memory(folder.path(), settings.memory_size_mib, &mut report)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
