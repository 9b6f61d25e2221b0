//! Equal peers that join at once, one seeder, no faults: how long until the last one is complete.
#![allow(dead_code, reason = "the benchmark and the test each use a part")]

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::node::Event;
use megatorrent_core::parts::PARTS;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

/// Time in which the seeder's announce reaches the DHT, after its head is there.
const SEEDER_READY: Duration = Duration::from_secs(30);

/// Bytes by which blobs differ.
const MARK_LEN: usize = 32;

/// What is raced.
pub(crate) struct Race {
    pub(crate) seed: u64,
    /// Peers, the seeder not counted.
    pub(crate) nodes: usize,
    pub(crate) blobs: usize,
    /// Bytes a second.
    pub(crate) rate: u64,
    /// Times the rate; 0: no bound.
    pub(crate) down: u64,
    /// Times the lower bound.
    pub(crate) limit: u32,
    pub(crate) config: WorldConfig,
}

/// A race under way.
pub(crate) struct Swarm<S: Suite> {
    pub(crate) world: World<S>,
    pub(crate) channel: PublicKey,
    pub(crate) seeder: HostId,
    pub(crate) peers: Vec<HostId>,
    pub(crate) started: Instant,
    /// Bytes that each peer needs.
    pub(crate) needed: u64,
    /// The lower bound.
    pub(crate) bound: Duration,
    pub(crate) rate: u64,
}

impl Race {
    /// What is usual: lines that bring four times what they send, and connections each of which can fill an uplink.
    pub(crate) fn new(seed: u64, nodes: usize, blobs: usize, rate: u64) -> Self {
        let config = WorldConfig::default();
        let window_bytes = window_for(rate);
        Self { seed, nodes, blobs, rate, down: 4, limit: 12, config }
            .with_pieces(window_bytes, window_bytes / 4)
    }

    /// The same with other connections.
    pub(crate) fn with_pieces(mut self, window_bytes: usize, cut_bytes: usize) -> Self {
        let (cut_bytes_max, cut_bytes_min) = (cut_bytes, cut_bytes);
        self.config = WorldConfig { window_bytes, cut_bytes_max, cut_bytes_min, ..self.config };
        self
    }

    /// Runs it to its end; `tell` looks at it after each tenth of the bound.
    pub(crate) fn run<S: Suite>(&self, swarm: &mut Swarm<S>, mut tell: impl FnMut(&Swarm<S>)) {
        let end = swarm.started + swarm.bound * self.limit;
        while swarm.complete() < swarm.peers.len() && swarm.world.now() < end {
            swarm.world.run_for(swarm.bound / 10);
            tell(swarm);
        }
        swarm.world.check();
    }

    /// All is ready, and the peers begin.
    pub(crate) fn start<S: Suite>(&self) -> Swarm<S> {
        let mut world = World::<S>::with_suite(self.seed, self.config.clone());
        let config = HostConfig {
            upload_bytes_per_sec: self.rate,
            download_bytes_per_sec: (self.down > 0).then_some(self.down * self.rate),
            ..HostConfig::default()
        };
        let identity_seed = Some(Secret::new([7; 32]));
        let seeder = world.add_host(HostConfig { identity_seed, ..config.clone() });
        let channel = world.channel(seeder).expect("it has an identity");
        // Zeros have no weight; a mark makes each blob another one.
        let mut content = vec![0; self.blobs * S::PLAIN_LEN];
        let mut rng = Rng::new([0; 32]).fork(&format!("race {}", self.seed));
        content.chunks_mut(S::PLAIN_LEN).for_each(|blob| rng.fill(&mut blob[..MARK_LEN]));
        let file = world.ingest(seeder, "film", &content);
        world.publish(seeder, "Channel", &[file], false);
        let is_published = |world: &World<S>| world.publications(seeder) > 0;
        assert!(world.run_until(Duration::from_mins(2), is_published), "the seeder cannot publish");
        world.run_for(SEEDER_READY);
        let peers: Vec<HostId> = (0..self.nodes).map(|_| world.add_host(config.clone())).collect();
        for peer in &peers {
            world.follow(*peer, channel, None);
        }
        let started = world.now();
        // All parts of the content, and one each of the index, the body, its page and the ids, whose other parts are filling.
        let parts = self.blobs * PARTS + world.store(seeder).blob_count() - self.blobs;
        let needed = (parts * S::PART_LEN) as u64;
        let bound = self.lower_bound(needed);
        Swarm { world, channel, seeder, peers, started, needed, bound, rate: self.rate }
    }

    /// `max(F/u_seed, F/d_min, N·F/(u_seed + Σu_i))` for F bytes.
    fn lower_bound(&self, bytes: u64) -> Duration {
        let nodes = self.nodes as u64;
        let time = |bytes: u64, rate: u64| Duration::from_secs_f64(bytes as f64 / rate as f64);
        let slowest_line = if self.down > 0 { time(bytes, self.down * self.rate) } else { Duration::ZERO };
        time(bytes, self.rate).max(slowest_line).max(time(nodes * bytes, (nodes + 1) * self.rate))
    }
}

impl<S: Suite> Swarm<S> {
    /// Peers that have everything.
    pub(crate) fn complete(&self) -> usize {
        self.peers.iter().filter(|peer| self.world.is_complete(**peer, &self.channel)).count()
    }

    /// When the last peer was complete, after the start; `None`: not all are.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.ends().into_iter().try_fold(Duration::ZERO, |last, end| Some(last.max(end?)))
    }

    /// The time against the lower bound.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.time()?.as_secs_f64() / self.bound.as_secs_f64())
    }

    /// Content that crossed the links beyond what the peers needed, of a hundred bytes needed.
    pub(crate) fn duplicates_percent(&self) -> f64 {
        let needed = self.peers.len() as u64 * self.needed;
        let content: u64 = self.world.flows().map(|(.., bytes)| bytes).sum();
        (content as f64 / needed as f64 - 1.0) * 100.0
    }

    /// When each peer was complete, after the start.
    pub(crate) fn ends(&self) -> Vec<Option<Duration>> {
        self.first(|event| matches!(event, Event::Complete { .. }))
    }

    /// When each peer first reported such an event.
    pub(crate) fn first(&self, is_it: impl Fn(&Event) -> bool) -> Vec<Option<Duration>> {
        let first = |peer: &HostId| {
            let at = self.world.events(*peer).find(|(_, event)| is_it(event)).map(|(at, _)| *at);
            at.map(|at| at.since(self.started))
        };
        self.peers.iter().map(first).collect()
    }
}

/// What a connection needs unacknowledged so that it alone can fill an uplink over the longest usual round trip.
fn window_for(rate: u64) -> usize {
    usize::try_from(rate / 4).expect("rates are small").next_power_of_two()
}
