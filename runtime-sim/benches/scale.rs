//! How much a world holds and how fast it passes: `cargo bench -p megatorrent-sim --bench scale`, with `NODES` and
//! `BLOBS` to try other sizes than 5 000 and 256.

mod crowd;

use std::time::{Duration, Instant};

use crowd::Crowd;
use megatorrent_core::suite::Suite;
use megatorrent_sim::{HostConfig, NullSuite, World, WorldConfig};

/// Nodes that follow a channel that nobody publishes.
const IDLE_NODES: u64 = 10_000;

fn main() {
    println!(
        "small blobs ({} bytes) and checksums in place of ciphers; commit-independent seed 1",
        NullSuite::PLAIN_LEN
    );
    if std::env::var("CROWD_ONLY").is_err() {
        idle();
    }
    crowded(size("NODES", 5_000), size("BLOBS", 256));
}

fn size(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// What nodes take that know of a channel and wait for its head.
fn idle() {
    let mut world = World::<NullSuite>::with_suite(1, WorldConfig::default());
    let channel = world.add_host(HostConfig {
        identity_seed: Some(megatorrent_core::ids::Secret::new([7; 32])),
        ..HostConfig::default()
    });
    let channel = world.channel(channel).expect("it has an identity");
    let before = resident();
    let started = Instant::now();
    for _ in 0..IDLE_NODES {
        let host = world.add_host(HostConfig::default());
        world.follow(host, channel, None);
    }
    world.run_for(Duration::from_mins(10));
    println!(
        "{IDLE_NODES} idle nodes, 10 minutes: {} bytes each, {} events in {:.2} s",
        (resident() - before) / IDLE_NODES,
        world.steps(),
        started.elapsed().as_secs_f64()
    );
}

/// A channel that a crowd completes under churn.
fn crowded(nodes: usize, blobs: usize) {
    let started = Instant::now();
    let mut crowd = Crowd::new(1, nodes, blobs);
    crowd.churn_until_complete(Duration::from_hours(2));
    let (took, steps) = (started.elapsed().as_secs_f64(), crowd.world.steps());
    println!(
        "{nodes} nodes, {blobs} blobs, {} crashes: complete after {} s of their time, {took:.1} s of ours",
        crowd.crashes,
        crowd.world.now().0 / 1_000_000_000
    );
    println!("{steps} events, {:.0} each second; {} MiB at most", steps as f64 / took, peak() >> 20);
    println!("trace {:02x?} of {} entries", &crowd.world.trace_hash()[..4], crowd.world.trace_len());
}

/// Bytes of memory that this process holds (Linux; 0 elsewhere).
fn resident() -> u64 {
    status("VmRSS:")
}

/// The most that it ever held.
fn peak() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
