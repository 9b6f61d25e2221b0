//! The parts of the benchmark.

use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;
use crate::input;
use crate::machine::{self, Primitive, mb};
use crate::process::{Process, Usage, run};
use crate::report::{Goal, Report};

/// The floors and ceilings that the project set itself.
const INGEST_RATIO_MIN: f64 = 0.8;
const TRANSFER_RATIO_MIN: f64 = 0.8;
const HELD_RATIO_MIN: f64 = 0.85;
const PEAK_MIB_MAX: f64 = 64.0;
const IDLE_MIB_MAX: f64 = 20.0;
const READY_MS_MAX: f64 = 100.0;

/// How long an idle node is left alone before its memory is read.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// Starts of `serve` for each run asked for; one takes a moment only.
const STARTS_PER_RUN: usize = 3;
/// Seeds of the file that is ingested and transferred, and of the large one.
const SEED: u64 = 1;
const LARGE_SEED: u64 = 2;
/// What ingest does to each byte of a file that stays where it is: beside the blob its id, which v5 peers ask for.
const INGEST_WORK: [Primitive; 3] = [Primitive::FileRead, Primitive::MakeBlob, Primitive::Sha256];
/// What a transfer does to each byte on its way from file to file: the sender the first three, the receiver the last four, and
/// the kernel between them.
const TRANSFER_WORK: [Primitive; 8] = [
    Primitive::FileRead,
    Primitive::Reseal,
    Primitive::Seal,
    Primitive::Loopback,
    Primitive::Open,
    Primitive::Check,
    Primitive::Crypt,
    Primitive::FileWrite,
];

/// What the machine does by itself, on one core and on two at once.
pub(crate) fn primitives(folder: &Path, runs: usize, report: &mut Report) -> Outcome<()> {
    for cores in [1, 2] {
        report.heading(&format!("Primitives, 1 MiB at a time, {cores} at once"));
        for primitive in Primitive::ALL {
            let rates = repeat(runs, || primitive.measure(cores, folder))?;
            report.figure(&format!("{}, ×{cores}", primitive.name()), "MB/s", &rates, Goal::None);
        }
    }
    Ok(())
}

/// An empty `serve`: how soon it is ready, and what it takes then.
pub(crate) fn idle(folder: &Path, runs: usize, report: &mut Report) -> Outcome<()> {
    report.heading("An idle node");
    let (mut ready_ms, mut resident_mib, mut cpu_ms) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..runs * STARTS_PER_RUN {
        let node = Process::start(folder, &serve_args(&format!("idle-{number}"), None))?;
        let (at, _) = node.event_named("ready")?;
        ready_ms.push((at - node.started()).as_secs_f64() * 1e3);
        if number < runs {
            let before = node.cpu_secs()?;
            thread::sleep(IDLE_TIME);
            resident_mib.push(node.resident_mib()?);
            cpu_ms.push((node.cpu_secs()? - before) * 1e3 / IDLE_TIME.as_secs_f64());
        }
        node.terminate()?;
    }
    report.figure("serve: start to ready", "ms", &ready_ms, Goal::AtMost(READY_MS_MAX));
    report.figure("serve: resident memory, idle", "MiB", &resident_mib, Goal::AtMost(IDLE_MIB_MAX));
    report.figure("serve: processor time a second, idle", "ms", &cpu_ms, Goal::None);
    Ok(())
}

/// A file and an identity, in a folder of their own.
pub(crate) struct Bench {
    folder: PathBuf,
    size_mib: u64,
    runs: usize,
}

impl Bench {
    pub(crate) fn new(folder: &Path, size_mib: u64, runs: usize) -> Outcome<Self> {
        // The input, the author's blobs and what two holders have; for each run, and one to warm up, the index of an ingest, the files of
        // three transfers, and what the primitives write beside them.
        input::check_free(folder, 5 * size_mib + (5 * size_mib + machine::FILES_MIB) * (runs as u64 + 1))?;
        let folder = folder.join("bench");
        fs::create_dir(&folder)?;
        run(&folder, &["gen-key"])?;
        input::write(&folder.join("input"), size_mib, SEED)?;
        Ok(Self { folder, size_mib, runs })
    }

    fn mb(&self) -> f64 {
        mb((self.size_mib << 20) as f64)
    }

    /// Reads the input, so that it is in the page cache, and lets everything else in there go.
    fn prepare(&self, others: &[&str]) -> Outcome<()> {
        let others: Vec<_> =
            others.iter().map(|name| self.folder.join(name)).filter(|path| path.exists()).collect();
        input::settle(&others.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        input::compare(&self.folder.join("input"), self.size_mib, SEED)
    }

    /// Removes its files. Later parts need the room.
    pub(crate) fn close(self) -> Outcome<()> {
        Ok(fs::remove_dir_all(&self.folder)?)
    }

    pub(crate) fn ingest(&self, report: &mut Report) -> Outcome<()> {
        report.heading(&format!("Ingest of {} MiB, two cores", self.size_mib));
        let (mut rates, mut limits, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cpu_secs, mut last) = (Vec::new(), String::new());
        for number in 0..=self.runs {
            self.prepare(&[&last])?;
            let limit = limit(&INGEST_WORK, &self.folder)?;
            input::warm_page_cache(&self.folder, self.size_mib * 5 / 4)?;
            let (store, entry) = (format!("ingest-{number}"), format!("ingest-{number}.json"));
            let usage = self.run_ingest(&store, &entry)?;
            last = store;
            if number > 0 {
                let rate = self.mb() / usage.wall.as_secs_f64();
                rates.push(rate);
                limits.push(limit);
                ratios.push(rate / limit);
                cpu_secs.push(usage.cpu_secs);
            }
        }
        report.figure("limit: read, blob, SHA-256", "MB/s", &limits, Goal::None);
        report.figure("ingest, process start to end", "MB/s", &rates, Goal::None);
        report.figure("that / limit", "", &ratios, Goal::AtLeast(INGEST_RATIO_MIN));
        report.figure("ingest: processor time", "s", &cpu_secs, Goal::None);
        Ok(())
    }

    fn run_ingest(&self, store: &str, entry: &str) -> Outcome<Usage> {
        run(&self.folder, &["ingest", "-i", "input", "-d", store, "-k", "identity.json", "-o", entry])
    }

    pub(crate) fn transfer(&self, report: &mut Report) -> Outcome<()> {
        report
            .heading(&format!("Transfer of {} MiB from one process to another over loopback", self.size_mib));
        run(
            &self.folder,
            &["ingest", "-i", "input", "-d", "author", "-k", "identity.json", "-o", "entry.json"],
        )?;
        let swarm = Swarm::start(&self.folder, "author", "entry.json")?;
        let mut seen = Transfers::default();
        let mut last = (String::new(), String::new());
        for number in 0..=self.runs {
            self.prepare(&[&last.0, &last.1])?;
            let limit = limit(&TRANSFER_WORK, &self.folder)?;
            // The author's blobs belong in the page cache, as after an ingest.
            read_all(&self.folder.join("author/blobs"))?;
            input::warm_page_cache(&self.folder, self.size_mib * 5 / 2)?;
            let name = format!("subscriber-{number}");
            let transfer = swarm.subscribe(&name, &[])?;
            input::compare(&self.folder.join(format!("{name}-out/input")), self.size_mib, SEED)?;
            if number > 0 {
                seen.add(&transfer, limit, self.mb());
            }
            last = (name.clone(), format!("{name}-out"));
        }
        swarm.stop()?;
        seen.tell(report);
        Ok(())
    }

    /// What a subscriber that holds the file in place hands out in a time, beside one that keeps copies of the blobs.
    pub(crate) fn holders(&self, report: &mut Report) -> Outcome<()> {
        report.heading(&format!("{} MiB from a subscriber, once the author is gone", self.size_mib));
        run(
            &self.folder,
            &["ingest", "-i", "input", "-d", "first", "-k", "identity.json", "-o", "first.json"],
        )?;
        let mut swarm = Swarm::start(&self.folder, "first", "first.json")?;
        let holders: [(&str, &[&str]); 2] = [("placed", &[]), ("copied", &["--copy"])];
        for (name, options) in holders {
            swarm.subscribe(name, options)?;
        }
        let mut rates = [Vec::new(), Vec::new()];
        let mut last = (String::new(), String::new());
        for number in 0..=self.runs {
            for (at, (holder, _)) in holders.iter().enumerate() {
                swarm.hand_over_to(holder)?;
                self.prepare(&[&last.0, &last.1])?;
                // What a holder has belongs in the page cache, as after its own download.
                read_all(&self.folder.join(holder))?;
                read_all(&self.folder.join(format!("{holder}-out")))?;
                input::warm_page_cache(&self.folder, self.size_mib * 5 / 4)?;
                let name = format!("of-{holder}-{number}");
                let transfer = swarm.subscribe(&name, &[])?;
                input::compare(&self.folder.join(format!("{name}-out/input")), self.size_mib, SEED)?;
                rates[at].push(self.mb() / transfer.blobs.as_secs_f64());
                last = (name.clone(), format!("{name}-out"));
            }
        }
        swarm.stop()?;
        // The first of each warms up.
        let [placed, copied] = rates.map(|mut rates| rates.split_off(1));
        let ratios: Vec<f64> = placed.iter().zip(&copied).map(|(placed, copied)| placed / copied).collect();
        report.figure("held in place: manifest to all blobs", "MB/s", &placed, Goal::None);
        report.figure("copies kept: manifest to all blobs", "MB/s", &copied, Goal::None);
        report.figure("held in place / copies kept", "", &ratios, Goal::AtLeast(HELD_RATIO_MIN));
        Ok(())
    }
}

/// What the machine would allow if both cores did nothing but the work that each byte needs, in MB/s.
fn limit(work: &[Primitive], folder: &Path) -> Outcome<f64> {
    let mut secs_per_mb = 0.0;
    for primitive in work {
        let rates = repeat(machine::TRIES, || primitive.measure(2, folder))?;
        secs_per_mb += 1.0 / rates.into_iter().fold(0.0, f64::max);
    }
    Ok(1.0 / secs_per_mb)
}

fn read_all(folder: &Path) -> Outcome<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            read_all(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            std::io::copy(&mut fs::File::open(entry.path())?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// A bootstrap node and one that serves a channel of one file: its author at first.
struct Swarm {
    folder: PathBuf,
    bootstrap: Process,
    seeder: Process,
    address: String,
    uri: String,
}

/// One subscriber's way to the file.
struct Transfer {
    /// From the verified manifest to the last blob verified and stored.
    blobs: Duration,
    /// From the process's start to the last blob verified and stored.
    start_to_blobs: Duration,
    /// From the process's start to its end, the file in the output folder.
    whole: Duration,
    sender_cpu_secs: f64,
    receiver_cpu_secs: f64,
    peak_mib: f64,
}

impl Swarm {
    /// Publishes `entry`, which the folder `author` holds.
    fn start(folder: &Path, author: &str, entry: &str) -> Outcome<Self> {
        let bootstrap = Process::start(folder, &serve_args("bootstrap", None))?;
        let address = bootstrap.ready()?;
        let publish = Process::start(folder, &["publish", "-d", author, "-b", &address, "-i", entry])?;
        let (_, published) = publish.event(|object| object["uri"].is_string())?;
        publish.finish()?;
        let uri = published["uri"].as_str().unwrap_or_default().to_owned();
        let seeder = Process::start(folder, &serve_args(author, Some(&address)))?;
        seeder.ready()?;
        Ok(Self { folder: folder.to_owned(), bootstrap, seeder, address, uri })
    }

    /// Another folder is served instead, and what was served before is not any more.
    fn hand_over_to(&mut self, name: &str) -> Outcome<()> {
        let next = Process::start(&self.folder, &serve_args(name, Some(&self.address)))?;
        next.ready()?;
        mem::replace(&mut self.seeder, next).terminate()?;
        Ok(())
    }

    fn subscribe(&self, name: &str, options: &[&str]) -> Outcome<Transfer> {
        let before = self.seeder.cpu_secs()?;
        let out = format!("{name}-out");
        let args = ["subscribe", &self.uri, "-d", name, "-o", &out, "--once"];
        let node = ["-H", "127.0.0.1", "--dht", "server", "-b", &self.address];
        let process = Process::start(&self.folder, &[&args[..], &node, options].concat())?;
        let started = process.started();
        let (manifest_at, _) = process.event_named("manifest")?;
        let is_stored = |event: &Value| {
            event["event"] == "progress" && event["blobs"] == event["blobs_total"] && event["blobs"] != 0
        };
        let (stored_at, _) = process.event(is_stored)?;
        let usage = process.finish()?;
        Ok(Transfer {
            blobs: stored_at - manifest_at,
            start_to_blobs: stored_at - started,
            whole: usage.wall,
            sender_cpu_secs: self.seeder.cpu_secs()? - before,
            receiver_cpu_secs: usage.cpu_secs,
            peak_mib: usage.peak_mib,
        })
    }

    /// Ends both nodes; the seeder's peak memory in MiB.
    fn stop(self) -> Outcome<f64> {
        let seeder = self.seeder.terminate()?;
        self.bootstrap.terminate()?;
        Ok(seeder.peak_mib)
    }
}

pub(crate) fn serve_args<'a>(name: &'a str, bootstrap: Option<&'a str>) -> Vec<&'a str> {
    let mut args = vec!["serve", "-d", name, "-H", "127.0.0.1", "-T", "0", "--dht", "server"];
    args.extend(bootstrap.iter().flat_map(|address| ["-b", *address]));
    args
}

/// What the transfers showed.
#[derive(Default)]
struct Transfers {
    limits: Vec<f64>,
    blobs: Vec<f64>,
    start_to_blobs: Vec<f64>,
    whole: Vec<f64>,
    blobs_ratio: Vec<f64>,
    whole_ratio: Vec<f64>,
    sender_cpu_secs: Vec<f64>,
    receiver_cpu_secs: Vec<f64>,
}

impl Transfers {
    fn add(&mut self, transfer: &Transfer, limit: f64, mb: f64) {
        let rate = |time: Duration| mb / time.as_secs_f64();
        self.limits.push(limit);
        self.blobs.push(rate(transfer.blobs));
        self.start_to_blobs.push(rate(transfer.start_to_blobs));
        self.whole.push(rate(transfer.whole));
        self.blobs_ratio.push(rate(transfer.blobs) / limit);
        self.whole_ratio.push(rate(transfer.whole) / limit);
        self.sender_cpu_secs.push(transfer.sender_cpu_secs);
        self.receiver_cpu_secs.push(transfer.receiver_cpu_secs);
    }

    fn tell(&self, report: &Report) {
        report.figure("limit: the sum of the primitives", "MB/s", &self.limits, Goal::None);
        report.figure("manifest to all blobs verified and stored", "MB/s", &self.blobs, Goal::None);
        report.figure("that / limit", "", &self.blobs_ratio, Goal::AtLeast(TRANSFER_RATIO_MIN));
        report.figure("process start to all blobs stored", "MB/s", &self.start_to_blobs, Goal::None);
        report.figure("process start to end, the file written out too", "MB/s", &self.whole, Goal::None);
        report.figure("that / limit", "", &self.whole_ratio, Goal::None);
        report.figure("sender: processor time", "s", &self.sender_cpu_secs, Goal::None);
        report.figure(
            "receiver: processor time, file written out too",
            "s",
            &self.receiver_cpu_secs,
            Goal::None,
        );
    }
}

/// The peak memory of each step on a large file's way.
pub(crate) fn memory(folder: &Path, size_mib: u64, report: &mut Report) -> Outcome<()> {
    report.heading(&format!("Peak memory for a file of {size_mib} MiB"));
    // Three times the file at once: input and blobs, then blobs, blobs and output.
    input::check_free(folder, size_mib * 3 + size_mib / 10)?;
    let folder = folder.join("memory");
    fs::create_dir(&folder)?;
    run(&folder, &["gen-key"])?;
    input::write(&folder.join("input"), size_mib, LARGE_SEED)?;
    let ingest =
        run(&folder, &["ingest", "-i", "input", "-d", "author", "-k", "identity.json", "-o", "entry.json"])?;
    fs::remove_file(folder.join("input"))?;
    let swarm = Swarm::start(&folder, "author", "entry.json")?;
    let start = Instant::now();
    let subscribe = swarm.subscribe("subscriber", &[])?;
    let secs = start.elapsed().as_secs_f64();
    let serve = swarm.stop()?;
    input::compare(&folder.join("subscriber-out/input"), size_mib, LARGE_SEED)?;
    fs::remove_dir_all(&folder)?;
    report.figure("ingest: peak memory", "MiB", &[ingest.peak_mib], Goal::AtMost(PEAK_MIB_MAX));
    report.figure("serve: peak memory", "MiB", &[serve], Goal::AtMost(PEAK_MIB_MAX));
    report.figure("subscribe: peak memory", "MiB", &[subscribe.peak_mib], Goal::AtMost(PEAK_MIB_MAX));
    report.figure("ingest, whole process (disk included)", "s", &[ingest.wall.as_secs_f64()], Goal::None);
    report.figure("subscribe, whole process (disk included)", "s", &[secs], Goal::None);
    Ok(())
}

fn repeat(runs: usize, mut measure: impl FnMut() -> Outcome<f64>) -> Outcome<Vec<f64>> {
    (0..runs).map(|_| measure()).collect()
}
