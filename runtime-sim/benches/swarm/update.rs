//! How fast a new head reaches connected subscribers, against the network's diameter in latency.
#![allow(dead_code, reason = "the benchmark and the test each use a part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use megatorrent_core::ids::Secret;
use megatorrent_core::node::Event;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_sim::{HostConfig, HostId, NullSuite, World, WorldConfig};

/// Time in which subscribers that are complete find each other.
const SETTLED: Duration = Duration::from_mins(10);
/// Of a hundred subscribers, how many the time is told for.
pub(crate) const REACHED_PERCENT: usize = 99;

/// How a new head spread.
pub(crate) struct Update {
    count: usize,
    pub(crate) connections: usize,
    /// The longest of all shortest ways; `None`: some are not connected.
    pub(crate) diameter: Option<Duration>,
    pub(crate) from_author: Option<Duration>,
    /// How long after it was durable at the author each subscriber that was reached knew it, in order.
    pub(crate) times: Vec<Duration>,
    pub(crate) events: u64,
}

impl Update {
    /// Publishes a second version to subscribers that are connected and complete, and takes the DHT away at the instant in
    /// which the author's new head is durable: then no push has reached anybody, and no packet of its put has reached the
    /// DHT. So whatever anybody learns afterwards comes from peers, and the DHT never holds the new head.
    pub(crate) fn run(seed: u64, count: usize) -> Self {
        let mut world = World::<NullSuite>::with_suite(seed, WorldConfig::default());
        let identity_seed = Some(Secret::new([7; 32]));
        let author = world.add_host(HostConfig { identity_seed, ..HostConfig::default() });
        let channel = world.channel(author).expect("it has an identity");
        let file = world.ingest(author, "one", b"the first version");
        world.publish(author, "Channel", &[file], false);
        assert!(world.run_until(Duration::from_mins(2), |world| is_published(world, author)));
        let subscribers: Vec<HostId> = (0..count).map(|_| world.add_host(HostConfig::default())).collect();
        for subscriber in &subscribers {
            world.follow(*subscriber, channel, None);
        }
        world.run_for(SETTLED);
        let complete = subscribers.iter().filter(|peer| world.is_complete(**peer, &channel)).count();
        assert_eq!(complete, count, "subscribers that have the first version");
        let old = newest(&world, author);

        let file = world.ingest(author, "two", b"the second version");
        world.publish(author, "Channel", &[file], false);
        assert!(world.run_until(Duration::from_mins(2), |world| newest(world, author) > old));
        let (started, new) = (world.now(), newest(&world, author));
        world.dht_mut().set_up(false);
        let graph = Graph::new(&world, subscribers.iter().copied().chain([author]));

        let has_it = |world: &World<NullSuite>, host: HostId| newest(world, host) == new;
        let all_have = |world: &World<NullSuite>| subscribers.iter().all(|host| has_it(world, *host));
        world.run_until(Duration::from_mins(2), all_have);
        let on_dht = world.dht().newest(world.now(), &channel).map(|item| item.seq.unsigned_abs());
        assert_eq!(on_dht, Some(old), "the DHT has served nothing newer");
        let told = |host: &HostId| Some(told_at(&world, *host, new)?.since(started));
        let mut times: Vec<Duration> = subscribers.iter().filter_map(told).collect();
        times.sort();
        Self {
            count,
            connections: graph.connections(),
            diameter: graph.diameter(),
            from_author: graph.farthest(author),
            times,
            events: world.steps(),
        }
    }

    /// When so many of a hundred subscribers knew the head; `None`: never.
    pub(crate) fn reached(&self, percent: usize) -> Option<Duration> {
        self.times.get((self.count * percent).div_ceil(100).checked_sub(1)?).copied()
    }

    /// The same against the diameter.
    pub(crate) fn of_diameter(&self, percent: usize) -> Option<f64> {
        Some(self.reached(percent)?.as_secs_f64() / self.diameter?.as_secs_f64())
    }
}

fn is_published<S: Suite>(world: &World<S>, host: HostId) -> bool {
    world.publications(host) > 0
}

/// The newest sequence of which a host's node has reported the head; 0: none.
fn newest<S: Suite>(world: &World<S>, host: HostId) -> u64 {
    let heads = world.events(host).rev().find_map(|(_, event)| match event {
        Event::Head { sequence, .. } => Some(*sequence),
        _ => None,
    });
    heads.unwrap_or(0)
}

fn told_at<S: Suite>(world: &World<S>, host: HostId, new: u64) -> Option<Instant> {
    let mut events = world.events(host);
    events
        .find(|(_, event)| matches!(event, Event::Head { sequence, .. } if *sequence == new))
        .map(|(at, _)| *at)
}

/// Who is connected to whom, and the latency one way.
struct Graph(BTreeMap<HostId, Vec<(HostId, Duration)>>);

impl Graph {
    fn new<S: Suite>(world: &World<S>, hosts: impl Iterator<Item = HostId>) -> Self {
        let mut ways: BTreeMap<HostId, Vec<_>> = hosts.map(|host| (host, Vec::new())).collect();
        for (a, b, latency) in world.connections() {
            for (from, to) in [(a, b), (b, a)] {
                ways.entry(from).or_default().push((to, latency));
            }
        }
        Self(ways)
    }

    fn connections(&self) -> usize {
        self.0.values().map(Vec::len).sum::<usize>() / 2
    }

    /// How long a message takes to the farthest host by the shortest way; `None`: it does not reach all.
    fn farthest(&self, from: HostId) -> Option<Duration> {
        let mut reached = BTreeMap::new();
        let mut heap = BinaryHeap::from([Reverse((Duration::ZERO, from))]);
        let mut last = Duration::ZERO;
        while let Some(Reverse((at, host))) = heap.pop() {
            if reached.contains_key(&host) {
                continue;
            }
            reached.insert(host, at);
            last = at;
            heap.extend(self.0[&host].iter().map(|(next, latency)| Reverse((at + *latency, *next))));
        }
        (reached.len() == self.0.len()).then_some(last)
    }

    /// The longest of all shortest ways.
    fn diameter(&self) -> Option<Duration> {
        self.0
            .keys()
            .map(|host| self.farthest(*host))
            .try_fold(Duration::ZERO, |most, way| Some(most.max(way?)))
    }
}
