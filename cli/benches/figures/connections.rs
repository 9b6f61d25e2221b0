//! What idle connections cost a real node: processor time and memory.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use megatorrent_core::ids::Topic;
use megatorrent_core::uri::{ChannelUri, topic};

use crate::Outcome;
use crate::parts::serve_args;
use crate::process::{Process, run};
use crate::report::{Goal, Report};
use crate::stranger::Line;

/// How many connections are held.
const COUNTS: [usize; 3] = [10, 100, 1000];
/// The most memory that one may take where there are many.
const MEMORY_KIB_MAX: f64 = 16.0;
/// How long the node is left alone after the last connection, and how long it is then watched.
const SETTLE_TIME: Duration = Duration::from_secs(5);
const WATCH_TIME: Duration = Duration::from_mins(1);
/// Each peer keeps its connection alive once in this time, as nodes do.
const KEEP_ALIVE: Duration = Duration::from_secs(45);

/// A node that serves a channel, to which so many peers are connected that follow it and have all of it.
pub(crate) fn connections(folder: &Path, report: &mut Report) -> Outcome<()> {
    report.heading("Idle connections of a node that serves a channel, a minute each");
    let folder = folder.join("connections");
    fs::create_dir(&folder)?;
    run(&folder, &["gen-key"])?;
    fs::write(folder.join("note"), "content")?;
    run(&folder, &["ingest", "-i", "note", "-d", "node", "-k", "identity.json", "-o", "entry.json"])?;
    let bootstrap = Process::start(&folder, &serve_args("bootstrap", None))?;
    let address = bootstrap.ready()?;
    let publish = Process::start(&folder, &["publish", "-d", "node", "-b", &address, "-i", "entry.json"])?;
    let (_, published) = publish.event(|object| object["uri"].is_string())?;
    publish.finish()?;
    let uri: ChannelUri = published["uri"].as_str().unwrap_or_default().parse()?;
    let topic = topic(&uri.public_key, None);
    let alone_ms = measure(&folder, &address, &topic, 0)?.cpu_ms;
    report.figure("none: processor time", "ms", &[alone_ms], Goal::None);
    for count in COUNTS {
        let Cost { cpu_ms, memory_kib } = measure(&folder, &address, &topic, count)?;
        let (each, of) = (1.0 / count as f64, format!("{count} connections"));
        report.figure(&format!("{of}: processor time"), "ms", &[cpu_ms], Goal::None);
        let own_ms = (cpu_ms - alone_ms).max(0.0);
        report.figure(&format!("{of}: processor time of each"), "ms", &[own_ms * each], Goal::None);
        // Of few connections, what is made ready once weighs most.
        let goal = if count >= 100 { Goal::AtMost(MEMORY_KIB_MAX) } else { Goal::None };
        report.figure(&format!("{of}: resident memory of each"), "KiB", &[memory_kib * each], goal);
    }
    bootstrap.terminate()?;
    Ok(fs::remove_dir_all(&folder)?)
}

/// What all connections together cost.
struct Cost {
    cpu_ms: f64,
    memory_kib: f64,
}

fn measure(folder: &Path, bootstrap: &str, topic: &Topic, count: usize) -> Outcome<Cost> {
    let node = Process::start(folder, &serve_args("node", Some(bootstrap)))?;
    let address = node.ready()?.parse()?;
    thread::sleep(SETTLE_TIME);
    let before_mib = node.resident_mib()?;
    let mut lines = Vec::with_capacity(count);
    for _ in 0..count {
        let mut line = Line::dial(address)?;
        line.follow(topic)?;
        lines.push(line);
    }
    // The moment at which each is due again.
    let due = |number: usize| KEEP_ALIVE.mul_f64((number + 1) as f64 / count as f64);
    thread::sleep(SETTLE_TIME);
    let (start, before) = (Instant::now(), node.cpu_time()?);
    for (number, line) in lines.iter_mut().enumerate() {
        thread::sleep(due(number).saturating_sub(start.elapsed()));
        line.keep_alive()?;
    }
    thread::sleep(WATCH_TIME.saturating_sub(start.elapsed()));
    let cpu = node.cpu_time()?.saturating_sub(before);
    let memory_kib = (node.resident_mib()? - before_mib) * 1024.0;
    for line in &mut lines {
        line.keep_alive()?;
    }
    if count > 0 && !lines.iter_mut().all(Line::is_open) {
        return Err("the node closed a connection".into());
    }
    node.terminate()?;
    Ok(Cost { cpu_ms: cpu.as_secs_f64() * 1e3, memory_kib })
}
