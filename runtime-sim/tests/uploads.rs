//! Whose turn it is to be served, seen from outside: an author whose readers do not reach each other.

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_sim::{HostConfig, HostId, NullSuite, World, WorldConfig};

const fn blob_len<S: Suite>() -> u64 {
    S::BLOB_LEN as u64
}

/// An author with a line of `rate` bytes a second who has published, and readers.
struct Author<S: Suite> {
    world: World<S>,
    host: HostId,
    channel: PublicKey,
}

impl<S: Suite> Author<S> {
    fn new(rate: u64, blobs: usize) -> Self {
        let physics = WorldConfig { latency_ms: 5..=30, window_bytes: 32 * 1024, ..WorldConfig::default() };
        let mut world = World::with_suite(11, physics);
        let identity_seed = Some(Secret::new([7; 32]));
        let host =
            world.add_host(HostConfig { identity_seed, upload_bytes_per_sec: rate, ..HostConfig::default() });
        let channel = world.channel(host).expect("it has an identity");
        let mut content = vec![0; blobs * S::PLAIN_LEN];
        Rng::new([0; 32]).fork("film").fill(&mut content);
        let file = world.ingest(host, "film", &content);
        world.publish(host, "Channel", &[file], false);
        world.run_for(Duration::from_mins(1));
        Self { world, host, channel }
    }

    /// Readers whose lines take `rate` bytes a second.
    fn readers(&mut self, count: usize, rate: u64) -> Vec<HostId> {
        let config =
            HostConfig { listens: false, download_bytes_per_sec: Some(rate), ..HostConfig::default() };
        let readers: Vec<HostId> = (0..count).map(|_| self.world.add_host(config.clone())).collect();
        for reader in &readers {
            self.world.follow(*reader, self.channel, None);
        }
        readers
    }

    fn sent_to(&self, reader: HostId) -> u64 {
        let flows = self.world.flows().filter(|(from, to, _)| (*from, *to) == (self.host, reader));
        flows.map(|(.., bytes)| bytes).sum()
    }
}

#[test]
fn slow_readers_leave_the_line_to_quick_ones_which_share_it_equally() {
    const RATE: u64 = 500_000;
    let mut author = Author::<NullSuite<61_440>>::new(RATE, 150);
    let slow = author.readers(2, 4_000);
    author.world.run_for(Duration::from_secs(20));
    let quick = author.readers(5, 4 * RATE);
    author.world.run_for(Duration::from_secs(10));
    let before = author.world.uploaded(author.host);
    let had: Vec<u64> = quick.iter().map(|reader| author.sent_to(*reader)).collect();
    author.world.run_for(Duration::from_mins(1));
    let used = (author.world.uploaded(author.host) - before) * 100 / (60 * RATE);
    assert!(used >= 95, "{used} % of the line are used");
    let got: Vec<u64> = quick.iter().zip(&had).map(|(reader, had)| author.sent_to(*reader) - had).collect();
    let (least, most) = (got.iter().min().expect("five"), got.iter().max().expect("five"));
    assert!(most - least <= most / 6, "{got:?}");
    assert!(
        slow.iter().all(|reader| author.sent_to(*reader) > 4 * blob_len::<NullSuite<61_440>>()),
        "they get what they take"
    );
}

#[test]
fn where_all_are_slow_blobs_are_still_sent_few_at_a_time() {
    // Two blobs at once take six or seven seconds.
    let mut author = Author::<NullSuite<262_144>>::new(80_000, 40);
    let readers = author.readers(8, 4_000_000);
    author.world.run_for(Duration::from_mins(4));
    let mut begun = 0;
    for _ in 0..50 {
        author.world.run_for(Duration::from_secs(7));
        let sent: u64 = readers.iter().map(|reader| author.sent_to(*reader)).sum();
        let whole: usize = readers.iter().map(|reader| author.world.store(*reader).blob_count()).sum();
        begun += sent - whole as u64 * blob_len::<NullSuite<262_144>>();
    }
    // What is on its way is half a blob on average, of each that was begun.
    let at_once = begun * 20 / 50 / blob_len::<NullSuite<262_144>>();
    assert!(at_once <= 35, "{at_once} tenths of blobs are sent at once");
}
