//! Where the time of a race goes, interval by interval: what a scheduler is tuned by.
//!
//! | column | what it says |
//! |---|---|
//! | `bound` | time since the start, as a part of the lower bound |
//! | `stored` | the parts that the least, the median and the furthest peer has, of a hundred |
//! | `done` | peers that are complete |
//! | `seeder` | of a hundred, how much of its uplink the seeder has used in the interval |
//! | `up` | the same of the peers: mean, and the least and the most used uplink |
//! | `idle` | peers whose uplinks were used less than a tenth |
//! | `got` | parts stored in the interval, as times what an uplink carries: a tenth of the peers got less, the mean, a tenth got more |
//! | `spread` | of a hundred parts, how many some peer has (the seeder's first task is to make this 100), and in how many copies the rarest is |
//! | `wait` | seconds that something new would wait in the seeder's uplink, in the mean peer's and in the longest |
//! | `conns` | connections of the mean peer, and of the seeder |
//! | `control` | of a hundred bytes, how many were no content |

use std::collections::BTreeMap;

use megatorrent_core::ids::BlobName;
use megatorrent_core::parts::PARTS;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_sim::HostId;

use crate::race::Swarm;
use crate::table::percent;

/// What was so at the last line.
pub(crate) struct Timeline {
    at: Instant,
    lines: u32,
    seeder_up: u64,
    up: Vec<u64>,
    stored: Vec<usize>,
    content: u64,
    bytes: u64,
}

impl Timeline {
    pub(crate) fn new<S: Suite>(swarm: &Swarm<S>) -> Self {
        Self {
            at: swarm.world.now(),
            lines: 0,
            seeder_up: swarm.world.uploaded(swarm.seeder),
            up: swarm.peers.iter().map(|peer| swarm.world.uploaded(*peer)).collect(),
            stored: vec![0; swarm.peers.len()],
            content: content(swarm),
            bytes: swarm.world.traffic().bytes(),
        }
    }

    /// Prints what happened since the last line.
    pub(crate) fn tell<S: Suite>(&mut self, swarm: &Swarm<S>) {
        if self.lines.is_multiple_of(40) {
            print_head();
        }
        self.lines += 1;
        let (now, world) = (Self { lines: self.lines, ..Self::new(swarm) }, &swarm.world);
        let capacity = now.at.since(self.at).as_secs_f64() * swarm.rate as f64;
        let names: Vec<BlobName> = world.store(swarm.seeder).blob_ids().collect();
        let total = names.len() * PARTS;
        let parts = |peer: &HostId| names.iter().map(|name| world.store(*peer).parts(name).len()).sum();
        let stored: Vec<usize> = swarm.peers.iter().map(parts).collect();
        let share = sorted(stored.iter().map(|blobs| percent(*blobs as u64, total as u64)).collect());
        let used = |before: u64, after: u64| (after - before) as f64 / capacity * 100.0;
        let up = sorted(self.up.iter().zip(&now.up).map(|(a, b)| used(*a, *b)).collect());
        let got = self.stored.iter().zip(&stored).map(|(a, b)| ((b - a) * S::PART_LEN) as f64 / capacity);
        let got = sorted(got.collect());
        let waits: Vec<f64> = swarm.peers.iter().map(|peer| world.upload_wait(*peer).as_secs_f64()).collect();
        let (spread, rarest) = copies(swarm, &names);
        let mut ends = BTreeMap::<HostId, usize>::new();
        for end in world.connections().flat_map(|(a, b, _)| [a, b]) {
            *ends.entry(end).or_default() += 1;
        }
        let of_seeder = ends.remove(&swarm.seeder).unwrap_or(0);
        let bytes = now.bytes - self.bytes;
        println!(
            "{:>5.0} % {:>4.0} {:>4.0} {:>4.0} {:>5} {:>6.1} {:>4.0} {:>4.0} {:>4.0} {:>5} {:>5.2} {:>4.2} {:>4.2} {:>6.1} \
             {:>4} {:>5.1} {:>5.1} {:>4.0} {:>6.1} {:>4} {:>5.2} %",
            now.at.since(swarm.started).as_secs_f64() / swarm.bound.as_secs_f64() * 100.0,
            share[0],
            share[share.len() / 2],
            share[share.len() - 1],
            swarm.complete(),
            used(self.seeder_up, now.seeder_up),
            mean(&up),
            up[0],
            up[up.len() - 1],
            up.iter().filter(|used| **used < 10.0).count(),
            got[got.len() / 10],
            mean(&got),
            got[got.len() - 1 - got.len() / 10],
            percent(spread as u64, total as u64),
            rarest,
            world.upload_wait(swarm.seeder).as_secs_f64(),
            mean(&waits),
            waits.iter().copied().fold(0.0, f64::max),
            ends.values().sum::<usize>() as f64 / swarm.peers.len() as f64,
            of_seeder,
            percent(bytes.saturating_sub(now.content - self.content), bytes)
        );
        *self = Self { stored, ..now };
    }
}

fn print_head() {
    println!(
        "{:>7} {:>14} {:>5} {:>6} {:>14} {:>5} {:>15} {:>11} {:>16} {:>11} {:>7}",
        "bound",
        "stored %",
        "done",
        "seeder",
        "up %",
        "idle",
        "got x u",
        "spread %",
        "wait s",
        "conns",
        "control"
    );
}

/// How many of the seeder's parts some peer has, and in how many copies the rarest is among the peers.
fn copies<S: Suite>(swarm: &Swarm<S>, names: &[BlobName]) -> (usize, usize) {
    let mut copies = BTreeMap::<(&BlobName, usize), usize>::new();
    for peer in &swarm.peers {
        for name in names {
            for part in swarm.world.store(*peer).parts(name).iter() {
                *copies.entry((name, part)).or_default() += 1;
            }
        }
    }
    let rarest =
        if copies.len() < names.len() * PARTS { 0 } else { copies.values().copied().min().unwrap_or(0) };
    (copies.len(), rarest)
}

fn content<S: Suite>(swarm: &Swarm<S>) -> u64 {
    swarm.world.flows().map(|(.., bytes)| bytes).sum()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
