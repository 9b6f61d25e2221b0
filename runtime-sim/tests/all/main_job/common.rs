//! What the simulations share: how a world is set up, and what is asked of it.

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::FileEntry;
use megatorrent_core::node::{Answer, Event, Refusal};
use megatorrent_core::rng::Rng;
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

/// Longest time, in the world's clock, that any single step may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(10);
pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn world(seed: u64) -> World {
    World::new(seed, WorldConfig::default())
}

/// A host that publishes under an identity with a read key.
pub(crate) fn author(world: &mut World) -> HostId {
    world.add_host(HostConfig {
        identity_seed: Some(Secret::new([7; 32])),
        read_key: Some(read_key()),
        ..HostConfig::default()
    })
}

pub(crate) fn reader(world: &mut World) -> HostId {
    world.add_host(HostConfig::default())
}

pub(crate) fn read_key() -> Secret {
    Secret::new([8; 32])
}

/// Bytes that no two files share.
pub(crate) fn content(label: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new([0; 32]).fork(label).fill(&mut bytes);
    bytes
}

/// A world with an author who has put a channel of one file of `blobs` blobs on the DHT.
pub(crate) struct Swarm {
    pub(crate) world: World,
    pub(crate) author: HostId,
    pub(crate) channel: PublicKey,
    pub(crate) file: FileEntry,
    pub(crate) content: Vec<u8>,
}

impl Swarm {
    pub(crate) fn new(seed: u64, blobs: usize) -> Self {
        Self::with(world(seed), "film", blobs * MIB)
    }

    pub(crate) fn with(mut world: World, name: &str, len: usize) -> Self {
        let author = author(&mut world);
        let channel = world.channel(author).expect("it has an identity");
        let content = content(name, len);
        let file = world.ingest(author, name, &content);
        publish(&mut world, author, std::slice::from_ref(&file));
        Self { world, author, channel, file, content }
    }

    /// Adds a host that follows the channel.
    pub(crate) fn follower(&mut self) -> HostId {
        let host = reader(&mut self.world);
        self.world.follow(host, self.channel, None);
        host
    }

    /// Runs until `host` has everything, and compares the bytes.
    pub(crate) fn assert_completes(&mut self, host: HostId) {
        let channel = self.channel;
        let done = self.world.run_until(LIMIT, |world| world.is_complete(host, &channel));
        assert!(done, "{}", explain(&self.world, host, &channel));
        assert!(self.world.read_file(host, &self.file).is_some_and(|bytes| bytes == self.content));
        self.world.check();
    }

    /// Runs until `host` has stored `count` blobs.
    pub(crate) fn run_until_stored(&mut self, host: HostId, count: usize) {
        while self.world.store(host).blob_count() < count {
            assert!(self.world.step() && self.world.now().0 < 3_600_000_000_000, "it never gets so far");
        }
    }
}

/// Publishes in the open and waits until the DHT has it.
pub(crate) fn publish(world: &mut World, author: HostId, files: &[FileEntry]) {
    let before = published(world, author).len();
    world.publish(author, "Channel", files, false);
    let done = world.run_until(LIMIT, |world| published(world, author).len() > before);
    assert!(done, "{:?}", world.events(author).collect::<Vec<_>>());
}

/// For each publication of `author`: its sequence and whether it is inline.
pub(crate) fn published(world: &World, author: HostId) -> Vec<(u64, bool)> {
    let of = |answer: &Result<Answer, Refusal>| match answer {
        Ok(Answer::Published { sequence, inline, .. }) => Some((*sequence, *inline)),
        _ => None,
    };
    world.answers(author).filter_map(|(_, answer)| of(answer)).collect()
}

/// Whether `host` has reported an event that `is_it`.
pub(crate) fn reported(world: &World, host: HostId, is_it: impl Fn(&Event) -> bool) -> bool {
    world.events(host).any(|(_, event)| is_it(event))
}

fn explain(world: &World, host: HostId, channel: &PublicKey) -> String {
    let last: Vec<String> =
        world.events(host).rev().take(20).map(|(at, event)| format!("{at:?} {event:?}")).collect();
    let node = world.node(host);
    let status = node.map(|node| (node.channel_status(channel), node.status(world.now())));
    format!("not complete: {status:#?}\nnewest events first:\n{}", last.join("\n"))
}
