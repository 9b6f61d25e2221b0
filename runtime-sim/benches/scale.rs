//! How much a world holds and how fast it passes: `cargo bench -p megatorrent-sim --bench scale`, with `NODES` and
//! `BLOBS` to try other sizes than 5 000 and 256, and `PART` (`idle`, `crowd`, `real`) for one of its parts.

mod crowd;
mod measure;

use std::time::Duration;

use crowd::Crowd;
use measure::{number, peak, processor_time, resident};
use megatorrent_core::suite::{BlobFormat, RealSuite, Suite};
use megatorrent_sim::{HostConfig, NullSuite, World, WorldConfig};

/// Nodes that follow a channel that nobody publishes.
const IDLE_NODES: u64 = 10_000;

fn main() {
    let part = number("PART", String::new());
    let is_wanted = |name: &str| part.is_empty() || part == name;
    println!("seed 1; times are this process's on a processor");
    println!("small blobs ({} bytes), checksums in place of ciphers:", <NullSuite>::PLAIN_LEN);
    if is_wanted("idle") {
        idle();
    }
    if is_wanted("crowd") {
        crowded::<NullSuite>(number("NODES", 5_000), number("BLOBS", 256));
    }
    if is_wanted("real") {
        println!("blobs of {} bytes, real ciphers:", RealSuite::PLAIN_LEN);
        crowded::<RealSuite>(50, 16);
    }
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
    let started = processor_time();
    for _ in 0..IDLE_NODES {
        let host = world.add_host(HostConfig::default());
        world.follow(host, channel, None);
    }
    world.run_for(Duration::from_mins(10));
    let took = processor_time().saturating_sub(started);
    println!(
        "{IDLE_NODES} idle nodes, 10 minutes: {} bytes each, {} events in {took:.2?}, {} each second",
        (resident() - before) / IDLE_NODES,
        world.steps(),
        u128::from(world.steps()) * 1_000_000 / took.as_micros().max(1)
    );
}

/// A channel that a crowd completes under churn.
fn crowded<S: Suite>(nodes: usize, blobs: usize) {
    let started = processor_time();
    let mut crowd = Crowd::<S>::new(1, nodes, blobs);
    crowd.churn_until_complete(Duration::from_hours(2));
    let (took, steps) = (processor_time().saturating_sub(started), crowd.world.steps());
    println!(
        "{nodes} nodes, {blobs} blobs, {} crashes: complete after {} s of their time, {took:.1?} of ours",
        crowd.crashes,
        crowd.world.now().0 / 1_000_000_000
    );
    println!(
        "{steps} events, {} each second; {} MiB at most",
        u128::from(steps) * 1000 / took.as_millis().max(1),
        peak() >> 20
    );
    println!("trace {:02x?} of {} entries", &crowd.world.trace_hash()[..4], crowd.world.trace_len());
}
