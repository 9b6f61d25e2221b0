//! One download from four seeders that limit themselves: all honest, and with every kind of failure at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use megatorrent_core::ids::Topic;
use megatorrent_core::uri::{ChannelUri, topic};
use serde_json::Value;

use crate::Outcome;
use crate::input;
use crate::machine::mb;
use crate::parts::serve_args;
use crate::process::{Process, run};
use crate::report::{Goal, Report};
use crate::stranger::{Liar, Lie};

/// What each seeder lets itself send.
const UPLOAD_LIMIT: &str = "20M";
const UPLOAD_MB_PER_SEC: f64 = 20.0;
const SEEDERS: usize = 4;
/// What the project asks for of the sum of their limits.
const RATE_MIN: f64 = 70.0;
const SEED: u64 = 3;

/// A channel on the DHT, and folders from which it can be served.
struct Channel<'a> {
    folder: &'a Path,
    bootstrap: Process,
    address: String,
    uri: String,
    topic: Topic,
    size_mib: u64,
}

/// What one download showed.
struct Download {
    /// From the verified manifest, and from the process's start, to the last blob verified and stored.
    secs: f64,
    secs_from_start: f64,
    cpu_secs: f64,
}

pub(crate) fn seeders(folder: &Path, size_mib: u64, runs: usize, report: &mut Report) -> Outcome<()> {
    report.heading(&format!("{size_mib} MiB from {SEEDERS} seeders that send {UPLOAD_MB_PER_SEC} MB/s each"));
    // Input and blobs; for each run two times blobs and file. None is removed before the end: see `settle`.
    input::check_free(folder, (2 + 4 * runs as u64) * size_mib)?;
    let folder = folder.join("seeders");
    fs::create_dir(&folder)?;
    let channel = Channel::publish(&folder, size_mib)?;
    let (mut rates, mut ratios, mut cpu_secs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut faulty_secs, mut faulty_ratios) = (Vec::new(), Vec::new());
    let megabytes = mb((size_mib << 20) as f64);
    for number in 0..runs {
        let download = channel.fetch_from_four(&format!("reader-{number}"))?;
        rates.push(megabytes / download.secs);
        ratios.push(megabytes / download.secs / (SEEDERS as f64 * UPLOAD_MB_PER_SEC));
        cpu_secs.push(download.cpu_secs);
        let faulty = channel.fetch_with_faults(&format!("patient-{number}"))?;
        // Half of it from two, and half from one.
        let least = megabytes / 2.0 / (2.0 * UPLOAD_MB_PER_SEC) + megabytes / 2.0 / UPLOAD_MB_PER_SEC;
        faulty_secs.push(faulty.secs_from_start);
        faulty_ratios.push(faulty.secs_from_start / least);
    }
    channel.bootstrap.terminate()?;
    fs::remove_dir_all(&folder)?;
    report.figure("four: manifest to all blobs stored", "MB/s", &rates, Goal::AtLeast(RATE_MIN));
    report.figure("that / the sum of their limits", "", &ratios, Goal::None);
    report.figure("receiver: processor time, file written out too", "s", &cpu_secs, Goal::None);
    report.figure(
        "two honest, one killed at half, a liar, a mute: all stored",
        "s",
        &faulty_secs,
        Goal::None,
    );
    report.figure("that / what the honest ones' limits allow", "", &faulty_ratios, Goal::None);
    Ok(())
}

impl<'a> Channel<'a> {
    fn publish(folder: &'a Path, size_mib: u64) -> Outcome<Self> {
        run(folder, &["gen-key"])?;
        input::write(&folder.join("input"), size_mib, SEED)?;
        run(folder, &["ingest", "-i", "input", "-d", "author", "-k", "identity.json", "-o", "entry.json"])?;
        let bootstrap = Process::start(folder, &serve_args("bootstrap", None))?;
        let address = bootstrap.ready()?;
        let publish =
            Process::start(folder, &["publish", "-d", "author", "-b", &address, "-i", "entry.json"])?;
        let (_, published) = publish.event(|object| object["uri"].is_string())?;
        publish.finish()?;
        let uri = published["uri"].as_str().unwrap_or_default().to_owned();
        let topic = topic(&uri.parse::<ChannelUri>()?.public_key, None);
        for number in 0..SEEDERS {
            copy(&folder.join("author"), &folder.join(seeder_name(number)))?;
        }
        Ok(Self { folder, bootstrap, address, uri, topic, size_mib })
    }

    fn seeder(&self, number: usize) -> Outcome<(Process, String)> {
        let name = seeder_name(number);
        let mut args = serve_args(&name, Some(&self.address));
        args.extend(["--upload-limit", UPLOAD_LIMIT]);
        let node = Process::start(self.folder, &args)?;
        let address = node.ready()?;
        Ok((node, address))
    }

    fn fetch_from_four(&self, name: &str) -> Outcome<Download> {
        let seeders = (0..SEEDERS).map(|number| self.seeder(number)).collect::<Outcome<Vec<_>>>()?;
        let addresses: Vec<String> = seeders.iter().map(|(_, address)| address.clone()).collect();
        let download = self.download(name, &addresses, None)?;
        for (node, _) in seeders {
            node.terminate()?;
        }
        Ok(download)
    }

    /// Two honest seeders, of which one is killed when half has come, one that sends garbage, and one that is asked and
    /// never answers.
    fn fetch_with_faults(&self, name: &str) -> Outcome<Download> {
        let ((victim, first), (honest, second)) = (self.seeder(0)?, self.seeder(1)?);
        let (garbage, silence) =
            (Liar::start(self.topic, Lie::Garbage)?, Liar::start(self.topic, Lie::Silence)?);
        let addresses = [first, second, garbage.address.to_string(), silence.address.to_string()];
        let download = self.download(name, &addresses, Some(victim))?;
        honest.terminate()?;
        if garbage.asked() == 0 || silence.asked() == 0 {
            return Err("a seeder that fails was not asked, so nothing was shown".into());
        }
        Ok(download)
    }

    /// Lets a subscriber fetch everything; at half of it, `victim` is killed.
    fn download(&self, name: &str, addresses: &[String], victim: Option<Process>) -> Outcome<Download> {
        let (folder, out) = (self.folder, format!("{name}-out"));
        input::settle(&[folder])?;
        let mut args = vec!["subscribe", &self.uri, "-d", name, "-o", &out, "--once"];
        args.extend(["-H", "127.0.0.1", "--dht", "server", "-b", &self.address]);
        args.extend(addresses.iter().flat_map(|address| ["-b", address]));
        let process = Process::start(folder, &args)?;
        let (manifest_at, _) = process.event_named("manifest")?;
        if let Some(victim) = victim {
            process.event(|event| has_stored(event, 1, 2))?;
            drop(victim);
        }
        let (stored_at, _) = process.event(|event| has_stored(event, 1, 1))?;
        let started = process.started();
        let usage = process.finish()?;
        input::compare(&folder.join(&out).join("input"), self.size_mib, SEED)?;
        let secs = |since: Instant| (stored_at - since).as_secs_f64();
        Ok(Download { secs: secs(manifest_at), secs_from_start: secs(started), cpu_secs: usage.cpu_secs })
    }
}

/// Whether a progress event says that such a part of the blobs is stored.
fn has_stored(event: &Value, part: u64, of: u64) -> bool {
    let (blobs, total) = (event["blobs"].as_u64().unwrap_or(0), event["blobs_total"].as_u64().unwrap_or(0));
    // Before the file's index is known, few blobs are known of.
    event["event"] == "progress" && total > 8 && blobs * of >= total * part
}

fn seeder_name(number: usize) -> String {
    format!("seeder-{number}")
}

/// Copies a node's folder; blobs never change, so a second name for each is enough.
fn copy(from: &Path, to: &PathBuf) -> Outcome<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else if from.extension().is_none() && entry.file_name().len() == 64 {
            fs::hard_link(from, to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}
