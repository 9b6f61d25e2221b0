//! A follower, authors of channels that die, and the author of one that lives.

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobName, Secret};
use megatorrent_core::manifest::{Extent, Reference};

use megatorrent_core::rng::Rng;
use megatorrent_core::suite::BlobFormat;
use megatorrent_core::time::Instant;
use megatorrent_sim::{DhtConfig, HostConfig, HostId, NullSuite, World, WorldConfig};

/// Blobs of a sixty-fourth of the real ones' length, and lines as much slower: everything that a node counts it counts in blobs
/// (in hand, queued, in flight, asked for at once), so that a thousand of these cost it what a thousand of 1 MiB do. An index
/// blob names 256 others.
pub(crate) type Small = NullSuite<16_384>;

/// What each line sends a second: 20 blobs.
pub(crate) const RATE: u64 = 20 * Small::BLOB_LEN as u64;
/// Data blobs of one file: what one index blob names.
const FILE_BLOBS: usize = 250;

/// Physics without chance, so that two worlds differ only in what is compared.
pub(crate) fn physics() -> WorldConfig {
    WorldConfig {
        latency_ms: 40..=40,
        cut_bytes_min: 1460,
        disk_us: 1_000..=1_000,
        dht: DhtConfig { latency_ms: 500..=500, loss_percent: 0 },
        ..WorldConfig::default()
    }
}

pub(crate) struct Author {
    pub(crate) host: HostId,
    pub(crate) channel: PublicKey,
    /// Its blobs beside those of data: the body and one for each file.
    pub(crate) tree_blobs: u64,
    pub(crate) data_blobs: u64,
    data: Vec<BlobName>,
}

/// An author who has published a channel of so many data blobs.
pub(crate) fn author(world: &mut World<Small>, number: u16, blobs: usize) -> Author {
    let mut secret = [7; 32];
    secret[..2].copy_from_slice(&number.to_be_bytes());
    let identity_seed = Some(Secret::new(secret));
    let host =
        world.add_host(HostConfig { identity_seed, upload_bytes_per_sec: RATE, ..HostConfig::default() });
    let channel = world.channel(host).expect("it has an identity");
    let mut rng = Rng::new([0; 32]).fork(&format!("channel {number}"));
    let (mut files, mut index) = (Vec::new(), Vec::new());
    for from in (0..blobs).step_by(FILE_BLOBS) {
        let mut content = vec![0; (blobs - from).min(FILE_BLOBS) * Small::PLAIN_LEN];
        rng.fill(&mut content);
        let file = world.ingest(host, &format!("film {from}"), &content);
        if let Reference::Extents(extents) = &file.reference
            && let [Extent::Tree(tree)] = &extents[..]
        {
            index.push(tree.blob.root.into());
        }
        files.push(file);
    }
    let data: Vec<BlobName> = world.store(host).blob_ids().filter(|id| !index.contains(id)).collect();
    world.publish(host, "Channel", &files, false);
    let is_published = |world: &World<Small>| world.publications(host) > 0;
    assert!(world.run_until(Duration::from_mins(2), is_published));
    let (data_blobs, all) = (blobs as u64, world.store(host).blob_count() as u64);
    Author { host, channel, tree_blobs: all - data_blobs, data_blobs, data }
}

/// How many of a channel's blobs a host has.
pub(crate) fn stored(world: &World<Small>, host: HostId, channel: &PublicKey) -> u64 {
    let status = world.node(host).and_then(|node| node.channel_status(channel));
    status.map_or(0, |status| status.blobs_stored)
}

/// How a seed goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Its connections end, and nobody is there any more.
    Closes,
    /// Nothing more is heard of it, and connections stay as they are.
    Vanishes,
}

/// The seeds of channels are gone for `others`.
pub(crate) fn die(world: &mut World<Small>, authors: &[Author], death: Death, others: &[HostId]) {
    let hosts: Vec<HostId> = authors.iter().map(|author| author.host).collect();
    match death {
        Death::Closes => hosts.iter().for_each(|host| world.crash(*host)),
        Death::Vanishes => _ = world.partition(&hosts, others, false),
    }
}

/// An author's disk loses all but the body and the index blobs.
pub(crate) fn lose_data(world: &mut World<Small>, author: &Author) {
    for id in &author.data {
        world.store_mut(author.host).remove(id);
    }
}

/// How long a host takes from following a channel until it has all of it.
pub(crate) fn time_to_follow(world: &mut World<Small>, host: HostId, channel: PublicKey) -> Option<Duration> {
    let began = world.now();
    world.follow(host, channel, None);
    time_to_complete(world, host, &channel, began)
}

pub(crate) fn time_to_complete(
    world: &mut World<Small>,
    host: HostId,
    channel: &PublicKey,
    since: Instant,
) -> Option<Duration> {
    let is_complete = world.run_until(Duration::from_mins(10), |world| world.is_complete(host, channel));
    is_complete.then(|| world.now().since(since))
}
