//! Whose turn it is to be served, seen from outside: an author whose readers do not reach each other.

use std::time::Duration;

use megatorrent_core::blob::{BLOB_LEN, PLAIN_LEN};
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::parts::PART_LEN;
use megatorrent_core::rng::Rng;
use megatorrent_sim::{HostConfig, HostId, NullSuite, World, WorldConfig};

/// Blobs of true size, without weight.
type True = NullSuite<PLAIN_LEN>;

/// How much more one reader may have got than another: what two blobs weigh, and the parts that are on their way.
const UNFAIR_MAX: u64 = (2 * BLOB_LEN + 4 * PART_LEN) as u64;
/// Bytes by which blobs differ.
const MARK_LEN: usize = 32;

/// An author with a line of `rate` bytes a second who has published, and readers.
struct Author {
    world: World<True>,
    host: HostId,
    channel: PublicKey,
}

impl Author {
    fn new(rate: u64, window_bytes: usize, blobs: usize) -> Self {
        let physics = WorldConfig { latency_ms: 5..=30, window_bytes, ..WorldConfig::default() };
        let mut world = World::with_suite(12, physics);
        let identity_seed = Some(Secret::new([7; 32]));
        let host =
            world.add_host(HostConfig { identity_seed, upload_bytes_per_sec: rate, ..HostConfig::default() });
        let channel = world.channel(host).expect("it has an identity");
        let mut content = vec![0; blobs * PLAIN_LEN];
        let mut rng = Rng::new([0; 32]).fork("film");
        content.chunks_mut(PLAIN_LEN).for_each(|blob| rng.fill(&mut blob[..MARK_LEN]));
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

    /// Bytes of the parts that a reader has stored.
    fn received(&self, reader: HostId) -> u64 {
        self.world.node(reader).expect("it runs").status(self.world.now()).bytes_received
    }
}

#[test]
fn slow_readers_leave_the_line_to_quick_ones_which_share_it_equally() {
    const RATE: u64 = 500_000;
    let mut author = Author::new(RATE, PART_LEN / 2, 40);
    let slow = author.readers(2, 4_000);
    author.world.run_for(Duration::from_secs(20));
    let quick = author.readers(5, 4 * RATE);
    author.world.run_for(Duration::from_secs(10));
    let before = author.world.uploaded(author.host);
    for minute in 1..=4 {
        author.world.run_for(Duration::from_mins(1));
        let got: Vec<u64> = quick.iter().map(|reader| author.sent_to(*reader)).collect();
        let (least, most) = (got.iter().min().expect("five"), got.iter().max().expect("five"));
        assert!(most - least <= UNFAIR_MAX, "{got:?} after {minute} minutes");
    }
    let used = (author.world.uploaded(author.host) - before) * 100 / (4 * 60 * RATE);
    assert!(used >= 95, "{used} % of the line are used");
    for reader in slow {
        let got = author.sent_to(reader);
        assert!(got >= 4 * 60 * 4_000 * 9 / 10, "they get what they take: {got}");
    }
}

#[test]
fn where_all_are_slow_parts_are_still_sent_few_at_a_time() {
    // Two parts at once take six or seven seconds.
    let mut author = Author::new(20_000, PART_LEN / 8, 40);
    let readers = author.readers(8, 4_000_000);
    author.world.run_for(Duration::from_mins(4));
    let mut begun = 0;
    for _ in 0..50 {
        author.world.run_for(Duration::from_secs(7));
        let sent: u64 = readers.iter().map(|reader| author.sent_to(*reader)).sum();
        let whole: u64 = readers.iter().map(|reader| author.received(*reader)).sum();
        begun += sent - whole;
    }
    // What is on its way is half a part on average, of each that was begun. Two are in slots; a slot ends when the connection
    // has taken the part's last half, so that as many last halves are on their way beside them.
    let at_once = begun * 20 / 50 / PART_LEN as u64;
    assert!((10..=45).contains(&at_once), "{at_once} tenths of parts are sent at once");
}
