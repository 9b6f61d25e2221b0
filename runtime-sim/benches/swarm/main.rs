//! How near a swarm comes to what its links allow, and how fast news cross it:
//! `cargo bench -p megatorrent-sim --bench swarm`.
//!
//! Environment, each with what is usual in parentheses:
//! - `PART` (both): `race` or `update` alone.
//! - `NODES` (`10,100,1000`; for the update `1000`), `BLOBS` (1024), `SEED` (1).
//! - `PLAIN` (262144): bytes of plaintext in a null blob: 1024, 15360, 61440, 262144 or 1048576.
//! - `REAL`: real cryptography and blobs of 1 MiB instead, 10 nodes, 64 blobs and 4 MB/s unless named otherwise.
//! - `RATE` (1000000): bytes that each node, the seeder too, uploads in a second; `DOWN` (4): times that what it downloads
//!   at most, 0 for no bound.
//! - `LATENCY` (120): longest one-way latency in ms, the shortest is 5; `WINDOW` (what `RATE` carries in a quarter of a
//!   second, or a little more): bytes that a connection takes unacknowledged; `CUT` (a quarter of that): bytes that cross a
//!   link at once.
//! - `VERBOSE`: a line for each tenth of the lower bound, see `timeline.rs`; `LIMIT` (12): times the bound, then it gives up.

#![expect(clippy::cast_precision_loss, reason = "figures for a reader need three digits")]

#[path = "../measure/mod.rs"]
mod measure;
mod race;
mod timeline;
mod update;

use measure::{flag, number};
use megatorrent_core::suite::{RealSuite, Suite};
use megatorrent_sim::{NullSuite, WorldConfig};
use race::Race;

fn main() {
    let part = number("PART", String::new());
    if part != "update" {
        races();
    }
    if part != "race" {
        let most = nodes("1000").into_iter().max();
        update::run(number("SEED", 1), most.expect("a list has an element"));
    }
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
    let usual = WorldConfig::default();
    let rate = number("RATE", rate);
    let window_bytes = number("WINDOW", window_for(rate));
    let cut_bytes = number("CUT", window_bytes / 4);
    let mut plan = Race {
        seed: number("SEED", 1),
        nodes: 0,
        blobs: number("BLOBS", blobs),
        rate,
        down: number("DOWN", 4),
        limit: number("LIMIT", 12),
        verbose: flag("VERBOSE"),
        config: WorldConfig {
            latency_ms: *usual.latency_ms.start()..=number("LATENCY", *usual.latency_ms.end()),
            window_bytes,
            cut_bytes_max: cut_bytes,
            cut_bytes_min: cut_bytes,
            ..usual
        },
    };
    plan.describe();
    for nodes in nodes(usual_nodes) {
        plan.nodes = nodes;
        plan.run::<S>();
    }
}

/// What a connection needs unacknowledged so that it alone can fill an uplink over the longest usual round trip.
fn window_for(rate: u64) -> usize {
    usize::try_from(rate / 4).expect("rates are small").next_power_of_two()
}

fn nodes(usual: &str) -> Vec<usize> {
    let text = number("NODES", usual.to_owned());
    text.split(',').map(|count| count.trim().parse().expect("NODES is a list of numbers")).collect()
}
