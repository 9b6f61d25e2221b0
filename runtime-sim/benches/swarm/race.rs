//! Equal peers that join at once, one seeder, no faults: how long until the last one is complete.

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::node::Event;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

use crate::measure::{forget_peak, peak, processor_time};
use crate::timeline::Timeline;

/// Time in which the seeder's announce reaches the DHT, after its head is there.
const SEEDER_READY: Duration = Duration::from_secs(30);

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
    pub(crate) verbose: bool,
    pub(crate) config: WorldConfig,
}

/// A race under way.
pub(crate) struct Swarm<S: Suite> {
    pub(crate) world: World<S>,
    pub(crate) channel: PublicKey,
    pub(crate) seeder: HostId,
    pub(crate) peers: Vec<HostId>,
    pub(crate) started: Instant,
    /// The lower bound.
    pub(crate) bound: Duration,
    pub(crate) rate: u64,
}

impl Race {
    pub(crate) fn describe(&self) {
        let Self { blobs, rate, down, config, seed, .. } = self;
        let down = if *down == 0 { "without a bound".into() } else { format!("at most {down} times that") };
        println!(
            "{blobs} blobs; each node and the seeder uploads {} kB/s and downloads {down}; latency {}-{} ms one way, \
             window {} KiB, pieces of {} KiB, seed {seed}",
            rate / 1000,
            config.latency_ms.start(),
            config.latency_ms.end(),
            config.window_bytes >> 10,
            config.cut_bytes_max >> 10
        );
        println!(
            "{:>6} {:>9} {:>9} {:>6} {:>11} {:>8} {:>8} {:>11} {:>11} {:>9} {:>9}",
            "peers",
            "time s",
            "bound s",
            "ratio",
            "duplicates",
            "seeder",
            "control",
            "processor s",
            "events",
            "events/s",
            "peak MiB"
        );
    }

    /// Runs it and prints one line, after the timeline if that is wanted.
    pub(crate) fn run<S: Suite>(&self) {
        forget_peak();
        let (began, mut swarm) = (processor_time(), self.start::<S>());
        let mut timeline = Timeline::new(&swarm);
        let end = swarm.started + swarm.bound * self.limit;
        while swarm.complete() < swarm.peers.len() && swarm.world.now() < end {
            swarm.world.run_for(swarm.bound / 10);
            if self.verbose {
                timeline.tell(&swarm);
            }
        }
        let took = processor_time().saturating_sub(began);
        swarm.world.check();
        if self.verbose {
            swarm.tell_ends();
        }
        self.sum_up(&swarm, took);
    }

    fn start<S: Suite>(&self) -> Swarm<S> {
        let mut world = World::<S>::with_suite(self.seed, self.config.clone());
        let config = HostConfig {
            upload_bytes_per_sec: self.rate,
            download_bytes_per_sec: (self.down > 0).then_some(self.down * self.rate),
            ..HostConfig::default()
        };
        let identity_seed = Some(Secret::new([7; 32]));
        let seeder = world.add_host(HostConfig { identity_seed, ..config.clone() });
        let channel = world.channel(seeder).expect("it has an identity");
        let mut content = vec![0; self.blobs * S::PLAIN_LEN];
        Rng::new([0; 32]).fork(&format!("race {}", self.seed)).fill(&mut content);
        let file = world.ingest(seeder, "film", &content);
        world.publish(seeder, "Channel", &[file], false);
        let is_published = |world: &World<S>| {
            world.events(seeder).any(|(_, event)| matches!(event, Event::Published { .. }))
        };
        assert!(world.run_until(Duration::from_mins(2), is_published), "the seeder cannot publish");
        world.run_for(SEEDER_READY);
        let peers: Vec<HostId> = (0..self.nodes).map(|_| world.add_host(config.clone())).collect();
        for peer in &peers {
            world.follow(*peer, channel, None);
        }
        let started = world.now();
        let bytes = (world.store(seeder).blob_count() * S::BLOB_LEN) as u64;
        let bound = self.lower_bound(bytes);
        Swarm { world, channel, seeder, peers, started, bound, rate: self.rate }
    }

    /// `max(F/u_seed, F/d_min, N·F/(u_seed + Σu_i))` for F bytes in blobs, as they are stored.
    fn lower_bound(&self, bytes: u64) -> Duration {
        let nodes = self.nodes as u64;
        let time = |bytes: u64, rate: u64| Duration::from_secs_f64(bytes as f64 / rate as f64);
        let slowest_line = if self.down > 0 { time(bytes, self.down * self.rate) } else { Duration::ZERO };
        time(bytes, self.rate).max(slowest_line).max(time(nodes * bytes, (nodes + 1) * self.rate))
    }

    fn sum_up<S: Suite>(&self, swarm: &Swarm<S>, took: Duration) {
        let last = swarm.ends().into_iter().map(|end| end.unwrap_or(Duration::MAX)).max().unwrap_or_default();
        let is_complete = last < Duration::MAX;
        let time = if is_complete { last } else { swarm.world.now().since(swarm.started) };
        let needed = (swarm.peers.len() * swarm.world.store(swarm.seeder).blob_count() * S::BLOB_LEN) as u64;
        let flows: Vec<_> = swarm.world.flows().collect();
        let content: u64 = flows.iter().map(|(.., bytes)| bytes).sum();
        let seeded: u64 =
            flows.iter().filter(|(from, ..)| *from == swarm.seeder).map(|(.., bytes)| bytes).sum();
        let (steps, traffic) = (swarm.world.steps(), swarm.world.traffic());
        println!(
            "{:>6} {:>9.2} {:>9.2} {:>6.3} {:>9.2} % {:>6.2} % {:>6.2} % {:>11.2} {:>11} {:>9} {:>9}{}",
            self.nodes,
            time.as_secs_f64(),
            swarm.bound.as_secs_f64(),
            time.as_secs_f64() / swarm.bound.as_secs_f64(),
            (content as f64 / needed as f64 - 1.0) * 100.0,
            percent(seeded, content),
            percent(traffic.bytes() - content, traffic.bytes()),
            took.as_secs_f64(),
            steps,
            u128::from(steps) * 1_000_000 / took.as_micros().max(1),
            peak() >> 20,
            if is_complete { String::new() } else { format!("  GAVE UP: {} complete", swarm.complete()) }
        );
    }
}

impl<S: Suite> Swarm<S> {
    /// Peers that have everything.
    pub(crate) fn complete(&self) -> usize {
        self.peers.iter().filter(|peer| self.world.is_complete(**peer, &self.channel)).count()
    }

    /// When each peer was complete, after the start.
    fn ends(&self) -> Vec<Option<Duration>> {
        self.first(|event| matches!(event, Event::ChannelComplete { .. }))
    }

    /// When each peer first reported such an event.
    fn first(&self, is_it: impl Fn(&Event) -> bool) -> Vec<Option<Duration>> {
        let first = |peer: &HostId| {
            let at = self.world.events(*peer).find(|(_, event)| is_it(event)).map(|(at, _)| *at);
            at.map(|at| at.since(self.started))
        };
        self.peers.iter().map(first).collect()
    }

    /// How the peers' milestones are spread.
    fn tell_ends(&self) {
        for (what, mut times) in [
            ("a peer's first connection", self.first(|event| matches!(event, Event::Connected { .. }))),
            ("the head", self.first(|event| matches!(event, Event::Head { .. }))),
            ("the manifest", self.first(|event| matches!(event, Event::Manifest { .. }))),
            ("complete", self.ends()),
        ] {
            times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
            let at = |permille: usize| {
                let time = times[(times.len() - 1) * permille / 1000];
                time.map_or("never".into(), |time| format!("{:.2} s", time.as_secs_f64()))
            };
            let (first, median, late, last) = (at(0), at(500), at(990), at(1000));
            println!("       {what}: first {first}, median {median}, 99 % {late}, last {last}");
        }
    }
}

pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
