//! A channel and a crowd that follows it, some of whose nodes crash and return.

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;

use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

/// How often one of each 250 nodes crashes, and perhaps another that is down returns.
const CHURN_INTERVAL: Duration = Duration::from_millis(500);
/// Of a thousand nodes, how many are down at most.
const DOWN_PER_THOUSAND: usize = 100;

/// Churn goes on until so many of a thousand are complete: fewer than are always up.
const COMPLETE_PER_THOUSAND: usize = 800;

/// What crosses a link at once, at least, where there is so much: a TCP segment on Ethernet.
const TCP_SEGMENT_BYTES: usize = 1460;

const _: () = assert!(COMPLETE_PER_THOUSAND < 1000 - DOWN_PER_THOUSAND);

/// The world, its author and its followers.
pub(crate) struct Crowd<S: Suite> {
    pub(crate) world: World<S>,
    pub(crate) channel: PublicKey,
    pub(crate) crashes: usize,
    followers: Vec<HostId>,
    down: Vec<HostId>,
    rng: Rng,
}

impl<S: Suite> Crowd<S> {
    /// An author who has published a channel of `blobs` data blobs, and `nodes` who follow it.
    pub(crate) fn new(seed: u64, nodes: usize, blobs: usize) -> Self {
        // Shorter pieces are other tests' business.
        let physics = WorldConfig { cut_bytes_min: TCP_SEGMENT_BYTES, ..WorldConfig::default() };
        let mut world = World::with_suite(seed, physics);
        let identity_seed = Some(Secret::new([7; 32]));
        let author = world.add_host(HostConfig {
            identity_seed,
            upload_bytes_per_sec: 10 * upload::<S>(),
            ..config::<S>()
        });
        let channel = world.channel(author).expect("it has an identity");
        let mut rng = Rng::new([0; 32]).fork(&format!("crowd {seed}"));
        let mut content = vec![0; blobs * S::PLAIN_LEN];
        rng.fill(&mut content);
        let file = world.ingest(author, "film", &content);
        world.publish(author, "Channel", &[file], false);
        let is_published = |world: &World<S>| world.publications(author) > 0;
        assert!(world.run_until(Duration::from_mins(2), is_published));
        let followers: Vec<HostId> = (0..nodes).map(|_| world.add_host(config::<S>())).collect();
        for &follower in &followers {
            world.follow(follower, channel, None);
        }
        Self { world, channel, crashes: 0, followers, down: Vec::new(), rng }
    }

    /// Crashes and starts nodes until all that ever followed are complete at once, after the churn has ended.
    ///
    /// # Panics
    /// Where that takes longer than `limit`.
    pub(crate) fn churn_until_complete(&mut self, limit: Duration) {
        let end = self.world.now() + limit;
        while self.complete() < self.followers.len() * COMPLETE_PER_THOUSAND / 1000 {
            assert!(self.world.now() < end, "{}", self.explain());
            self.world.run_for(CHURN_INTERVAL);
            self.churn();
        }
        for host in std::mem::take(&mut self.down) {
            self.start(host);
        }
        while self.complete() < self.followers.len() {
            assert!(self.world.now() < end, "{}", self.explain());
            self.world.run_for(CHURN_INTERVAL);
        }
        self.world.check();
    }

    /// How many followers are up and have everything.
    pub(crate) fn complete(&self) -> usize {
        self.followers.iter().filter(|host| self.world.is_complete(**host, &self.channel)).count()
    }

    fn churn(&mut self) {
        for _ in 0..self.followers.len().div_ceil(250) {
            if self.down.len() < self.followers.len() * DOWN_PER_THOUSAND / 1000 {
                let at = self.draw(self.followers.len());
                let host = self.followers[at];
                if self.world.node(host).is_some() {
                    self.world.crash(host);
                    self.down.push(host);
                    self.crashes += 1;
                }
            }
            if !self.down.is_empty() && self.rng.below(2) == 0 {
                let at = self.draw(self.down.len());
                let host = self.down.swap_remove(at);
                self.start(host);
            }
        }
    }

    fn start(&mut self, host: HostId) {
        self.world.start(host);
        // It may have crashed before it could note what it was told.
        self.world.follow(host, self.channel, None);
    }

    fn draw(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).expect("below the bound")
    }

    fn explain(&self) -> String {
        let Instant(ns) = self.world.now();
        let late = self.followers.iter().find(|host| !self.world.is_complete(**host, &self.channel));
        let status =
            late.and_then(|host| self.world.node(*host)).map(|node| node.channel_status(&self.channel));
        format!(
            "{} of {} are complete after {} s: {status:#?}",
            self.complete(),
            self.followers.len(),
            ns / 1_000_000_000
        )
    }
}

/// Two hundred blobs a second where they are small, twenty where they are real.
fn upload<S: Suite>() -> u64 {
    (200 * S::PLAIN_LEN as u64).min(20_000_000)
}

fn config<S: Suite>() -> HostConfig {
    HostConfig { upload_bytes_per_sec: upload::<S>(), ..HostConfig::default() }
}
