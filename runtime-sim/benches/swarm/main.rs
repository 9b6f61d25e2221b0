//! How near a swarm comes to what its links allow, and how fast news cross it:
//! `cargo bench -p megatorrent-sim --bench swarm`.
//!
//! Environment, each with what is usual in parentheses:
//! - `PART` (all): `honest`, `liars`, `race` or `update` alone.
//! - `NODES` (`10,100,1000`; for the update `1000`), `BLOBS` (1024), `SEED` (1).
//! - For `honest`, which plays the scenario `flash-crowd`: `PEERS` (`20,100`), `BLOBS` (`4,8,16,32,128`), `SEEDS` (`1,2,3`),
//!   `WEIGHT` (false). It asks for no other variable.
//! - For `liars`, which plays the scenario `liars`: `SEEDS` (`1,2,3`), `COUNT` (`1,12`), liars of one kind at once. It asks for no
//!   other variable.
//! - `PLAIN` (262144): bytes of plaintext in a null blob: 1024, 15360, 61440, 262144 or 1048576.
//! - `REAL`: real cryptography and blobs of 1 MiB instead, 10 nodes, 64 blobs and 4 MB/s unless named otherwise.
//! - `RATE` (1000000): bytes that each node, the seeder too, uploads in a second; `DOWN` (4): times that what it downloads
//!   at most, 0 for no bound.
//! - `LATENCY` (120): longest one-way latency in ms, the shortest is 5; `WINDOW` (what `RATE` carries in a quarter of a
//!   second, or a little more): bytes that a connection takes unacknowledged; `CUT` (a quarter of that): bytes that cross a
//!   link at once.
//! - `VERBOSE`: a line for each tenth of the lower bound, see `timeline.rs`; `LIMIT` (12): times the bound, then it gives up.

#![expect(clippy::cast_precision_loss, reason = "figures for a reader need three digits")]

mod goals;
mod honest;
mod liars;
#[path = "../measure/mod.rs"]
mod measure;
mod race;
mod table;
mod timeline;
mod update;

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use measure::{flag, number, processor_time};
use megatorrent_core::suite::{BlobFormat, RealSuite, Suite};
use megatorrent_sim::NullSuite;
use race::Race;
use update::{REACHED_PERCENT, Update};

fn main() {
    let part = number("PART", String::new());
    let is_wanted = |name: &str| part.is_empty() || part == name;
    if is_wanted("honest") {
        let (peers, blobs) = (list("PEERS", "20,100"), list("BLOBS", "4,8,16,32,128"));
        honest::table(&peers, &blobs, &list("SEEDS", "1,2,3"), number("WEIGHT", false));
    }
    if is_wanted("liars") {
        liars::table(&list("COUNT", "1,12"), &list("SEEDS", "1,2,3"));
    }
    if is_wanted("race") {
        races();
    }
    if is_wanted("update") {
        let most = nodes("1000").into_iter().max();
        show_update(number("SEED", 1), most.expect("a list has an element"));
    }
}

fn show_update(seed: u64, count: usize) {
    let began = processor_time();
    println!("a new head reaches subscribers without the DHT (checksums in place of ciphers, seed {seed})");
    let update = Update::run(seed, count);
    let show = |way: Option<Duration>| {
        way.map_or("unbounded, since some are not connected".into(), |way| format!("{way:.1?}"))
    };
    println!(
        "{count} subscribers, {} connections; diameter {} (the longest shortest way, by Dijkstra from every node), from the \
         author {}",
        update.connections,
        show(update.diameter),
        show(update.from_author)
    );
    let (times, percent) = (&update.times, REACHED_PERCENT);
    match (update.reached(percent), times.last()) {
        (Some(time), Some(last)) => println!(
            "{percent} % have the new head after {time:.1?}: {:.2} times the diameter; half after {:.1?}, {} after {last:.1?}",
            update.of_diameter(percent).unwrap_or(f64::NAN),
            times[times.len() / 2],
            times.len()
        ),
        _ => println!("only {} of {count} have the new head after 2 minutes", times.len()),
    }
    println!(
        "the DHT went away before it was put there; {} events, {:.1?} of processor time",
        update.events,
        processor_time().saturating_sub(began)
    );
}

fn races() {
    if flag("REAL") {
        println!(
            "the time of a swarm against theory, with real cryptography and blobs of {} bytes",
            RealSuite::PLAIN_LEN
        );
        return all::<RealSuite>("10", 64, 4_000_000);
    }
    let plain_len = number("PLAIN", 262_144);
    println!(
        "the time of a swarm against theory, with small blobs ({plain_len} bytes) and checksums in place of ciphers"
    );
    let run = match plain_len {
        1_024 => all::<NullSuite>,
        15_360 => all::<NullSuite<15_360>>,
        61_440 => all::<NullSuite<61_440>>,
        262_144 => all::<NullSuite<262_144>>,
        1_048_576 => all::<NullSuite<1_048_576>>,
        _ => panic!("PLAIN is one of 1024, 15360, 61440, 262144, 1048576"),
    };
    run("10,100,1000", 1024, 1_000_000);
}

/// A race for each number of nodes.
fn all<S: Suite>(usual_nodes: &str, blobs: usize, rate: u64) {
    let rate = number("RATE", rate);
    let plan = |nodes| {
        let usual = Race::new(number("SEED", 1), nodes, number("BLOBS", blobs), rate);
        let window_bytes = number("WINDOW", usual.config.window_bytes);
        let latency_ms = usual.config.latency_ms.clone();
        let mut plan =
            Race { down: number("DOWN", usual.down), limit: number("LIMIT", usual.limit), ..usual }
                .with_pieces(window_bytes, number("CUT", window_bytes / 4));
        plan.config.latency_ms = *latency_ms.start()..=number("LATENCY", *latency_ms.end());
        plan
    };
    plan(0).describe();
    for nodes in nodes(usual_nodes) {
        plan(nodes).show::<S>(flag("VERBOSE"));
    }
}

fn nodes(usual: &str) -> Vec<usize> {
    list("NODES", usual)
}

/// The numbers in an environment variable.
fn list<T: FromStr<Err: Debug>>(name: &str, usual: &str) -> Vec<T> {
    let text = number(name, usual.to_owned());
    text.split(',').map(|count| count.trim().parse().expect(name)).collect()
}
