//! Blobs that a store loses while its node runs: the node notices when it is asked for them, and gets them back.

use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobName, Secret};
use megatorrent_core::limits::{RECHECK_DAMAGED_INTERVAL, RECHECK_INTERVAL_MAX, RECHECK_INTERVAL_MIN};
use megatorrent_core::manifest::FileEntry;
use megatorrent_core::node::{Command, Event, Target};
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::BlobFormat;
use megatorrent_sim::{HostConfig, HostId, NullSuite, World, WorldConfig};

type Blobs = NullSuite<15_360>;
const LIMIT: Duration = Duration::from_mins(10);

/// An author and a follower, both complete and connected. One of the two is `open` to others, the other can be reached by
/// nobody.
struct Pair {
    world: World<Blobs>,
    channel: PublicKey,
    file: FileEntry,
    content: Vec<u8>,
    open: HostId,
    hidden: HostId,
}

impl Pair {
    fn new(seed: u64, is_author_open: bool) -> Self {
        let mut world = World::with_suite(seed, WorldConfig::default());
        let config = |listens| HostConfig { listens, ..HostConfig::default() };
        let identity_seed = Some(Secret::new([7; 32]));
        let author = world.add_host(HostConfig { identity_seed, ..config(is_author_open) });
        let follower = world.add_host(config(!is_author_open));
        let channel = world.channel(author).expect("it has an identity");
        // Three data blobs and an index blob; the body is the fifth.
        let mut content = vec![0; 3 * Blobs::PLAIN_LEN];
        Rng::new([0; 32]).fork("film").fill(&mut content);
        let file = world.ingest(author, "film", &content);
        world.publish(author, "Channel", std::slice::from_ref(&file), false);
        let (open, hidden) = if is_author_open { (author, follower) } else { (follower, author) };
        let mut pair = Self { world, channel, file, content, open, hidden };
        let address = pair.world.address(pair.open).into();
        pair.world.command(pair.hidden, Command::AddPeer(address));
        pair.world.follow(follower, channel, None);
        pair.assert_complete(&[author, follower]);
        pair
    }

    fn late_reader(&mut self) -> HostId {
        let reader = self.world.add_host(HostConfig { listens: false, ..HostConfig::default() });
        self.world.follow(reader, self.channel, None);
        reader
    }

    fn blobs(&self) -> Vec<BlobName> {
        self.world.store(self.open).blob_ids().collect()
    }

    fn lose(&mut self, id: &BlobName) {
        assert!(self.world.store_mut(self.open).remove(id));
    }

    fn assert_complete(&mut self, hosts: &[HostId]) {
        let channel = self.channel;
        let done = self.world.run_until(LIMIT, |world| hosts.iter().all(|h| world.is_complete(*h, &channel)));
        let status = |h: &HostId| self.world.node(*h).and_then(|node| node.channel_status(&channel));
        assert!(done, "{:#?}", hosts.iter().map(status).collect::<Vec<_>>());
        for host in hosts {
            assert!(self.world.read_file(*host, &self.file).is_some_and(|bytes| bytes == self.content));
        }
        self.world.check();
    }

    fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.world.events(self.open).filter(|(_, event)| is_it(event)).count()
    }

    fn losses(&self) -> usize {
        self.count(|event| matches!(event, Event::BlobsLost { .. }))
    }
}

/// Whoever is open has lost some blobs, which only the hidden one has; a reader comes who reaches the open one alone.
fn heals(mut pair: Pair, lost: &[BlobName]) {
    let told = |event: &Event| matches!(event, Event::Manifest { .. } | Event::FileComplete { .. });
    let completed = |event: &Event| matches!(event, Event::Complete { .. });
    let (told_before, completed_before) = (pair.count(told), pair.count(completed));
    for id in lost {
        pair.lose(id);
    }
    let reader = pair.late_reader();
    pair.assert_complete(&[reader, pair.open]);
    assert_eq!(pair.losses(), 1, "the user is told, and once");
    assert_eq!(pair.count(told), told_before, "of what is known already nothing is told again");
    assert_eq!(pair.count(completed), completed_before + 1);
}

#[test]
fn a_follower_gets_a_lost_blob_back_whichever_it_is() {
    for at in 0..5 {
        let pair = Pair::new(at, false);
        let lost = pair.blobs()[usize::try_from(at).expect("small")];
        heals(pair, &[lost]);
    }
}

#[test]
fn an_author_gets_a_lost_blob_back_of_who_has_it() {
    for at in 0..5 {
        let pair = Pair::new(at, true);
        let lost = pair.blobs()[usize::try_from(at).expect("small")];
        heals(pair, &[lost]);
    }
}

#[test]
fn an_author_whose_blobs_are_all_gone_gets_them_back() {
    let pair = Pair::new(9, true);
    let lost = pair.blobs();
    heals(pair, &lost);
}

#[test]
fn a_blob_that_rots_is_found_out_when_a_part_is_read_and_is_fetched_again() {
    let mut pair = Pair::new(4, true);
    let rotten = pair.blobs()[0];
    assert!(pair.world.store_mut(pair.open).corrupt(&rotten));
    let reader = pair.late_reader();
    let limit = pair.world.now() + Duration::from_mins(2);
    while pair.losses() == 0 {
        assert!(pair.world.now() < limit, "the reader asks for it");
        pair.world.run_for(Duration::from_secs(1));
    }
    pair.assert_complete(&[pair.open, reader]);
    let is_ban = |(_, event): &(_, Event)| matches!(event, Event::Banned { .. });
    assert!(!pair.world.events(reader).any(is_ban), "no wrong byte was sent");
}

#[test]
fn a_disk_that_loses_a_blob_again_and_again_is_looked_at_ever_more_rarely() {
    let mut pair = Pair::new(3, true);
    let lost = pair.blobs()[0];
    for _ in 0..60 {
        pair.world.store_mut(pair.open).remove(&lost);
        pair.late_reader();
        pair.world.run_for(RECHECK_INTERVAL_MIN * 5);
    }
    // Six times within the first hour and then once in each: an interval doubles until it is an hour.
    assert_eq!(RECHECK_INTERVAL_MAX, RECHECK_INTERVAL_MIN * 60);
    assert!((3..=6 + 5).contains(&pair.losses()), "{} times in five hours", pair.losses());
    pair.world.run_for(RECHECK_INTERVAL_MAX);
    let reader = pair.late_reader();
    pair.assert_complete(&[pair.open, reader]);
}

#[test]
fn a_channel_that_has_lost_nothing_is_looked_at_in_silence() {
    let mut pair = Pair::new(5, false);
    let whole = pair.channel;
    let second = pair.world.add_host(HostConfig {
        identity_seed: Some(Secret::new([8; 32])),
        listens: false,
        ..HostConfig::default()
    });
    let channel = pair.world.channel(second).expect("it has an identity");
    let before = pair.blobs();
    let file = pair.world.ingest(second, "notes", &vec![9; 2 * Blobs::PLAIN_LEN]);
    pair.world.publish(second, "Another", &[file], false);
    let address = pair.world.address(pair.open).into();
    pair.world.command(second, Command::AddPeer(address));
    pair.world.follow(pair.open, channel, None);
    let open = pair.open;
    assert!(pair.world.run_until(LIMIT, |world| world.is_complete(open, &channel)));
    let lost = pair.blobs().into_iter().find(|id| !before.contains(id)).expect("the second channel's");
    pair.lose(&lost);
    let reader = pair.late_reader();
    pair.world.follow(reader, channel, None);
    assert!(pair.world.run_until(LIMIT, |world| world.is_complete(reader, &channel)));
    // The reader has both channels in common with the node, which cannot know whose blob was asked for.
    pair.assert_complete(&[reader, open]);
    let of_whole =
        |event: &Event| matches!(event, Event::BlobsLost { target, .. } if *target == Target::Channel(whole));
    assert_eq!((pair.losses(), pair.count(of_whole)), (1, 0));
}

#[test]
fn who_asks_again_after_it_had_all_is_told_again() {
    let mut pair = Pair::new(6, true);
    // When the author first asks it, the follower lacks a blob.
    pair.world.crash(pair.hidden);
    pair.world.wipe(pair.hidden);
    pair.world.store_mut(pair.hidden).set_room(4);
    pair.world.start(pair.hidden);
    let address = pair.world.address(pair.open).into();
    pair.world.command(pair.hidden, Command::AddPeer(address));
    pair.world.follow(pair.hidden, pair.channel, None);
    pair.world.run_for(Duration::from_mins(1));
    let had: Vec<BlobName> = pair.world.store(pair.hidden).blob_ids().collect();
    assert_eq!(had.len(), 4);
    let lacks = *pair.blobs().iter().find(|id| !had.contains(id)).expect("it has four of five");
    for lost in [had[0], lacks] {
        pair.lose(&lost);
        let reader = pair.late_reader();
        pair.assert_complete(&[reader, pair.open]);
        pair.world.crash(reader);
        // Now it gets the rest, of which it need not tell who has all.
        pair.world.store_mut(pair.hidden).set_room(usize::MAX);
        pair.assert_complete(&[pair.hidden]);
    }
    assert_eq!(pair.losses(), 2);
}

/// A disk that is away for a minute costs nothing: what a reader lacks comes once it is back, and nothing was fetched meanwhile.
#[test]
fn an_author_whose_disk_is_away_for_a_while_serves_on_when_it_is_back() {
    for (seed, away) in [(11, 10), (12, 70), (13, 4000)] {
        let mut pair = Pair::new(seed, true);
        let author = pair.open;
        pair.world.crash(pair.hidden);
        pair.world.set_disk_away(author, true);
        let reader = pair.late_reader();
        pair.world.run_for(Duration::from_secs(away));
        let channel = pair.channel;
        assert!(!pair.world.is_complete(reader, &channel));
        assert_eq!(pair.losses(), 0, "nothing is lost");
        pair.world.set_disk_away(author, false);
        let back = pair.world.now();
        pair.assert_complete(&[author, reader]);
        let took = pair.world.now().since(back);
        assert!(took < Duration::from_secs(30), "{took:?} after {away} s");
    }
}

#[test]
fn a_disk_that_went_away_while_a_follower_had_all_is_not_filled_again_from_peers() {
    let mut pair = Pair::new(14, true);
    let received =
        |pair: &Pair| pair.world.node(pair.open).map(|node| node.status(pair.world.now()).bytes_received);
    let before = received(&pair);
    pair.world.set_disk_away(pair.open, true);
    let reader = pair.late_reader();
    pair.world.run_for(Duration::from_mins(3));
    pair.world.set_disk_away(pair.open, false);
    pair.assert_complete(&[reader, pair.open]);
    assert_eq!((received(&pair), pair.losses()), (before, 0));
}

#[test]
fn blobs_that_are_found_damaged_one_after_the_other_come_again_at_once() {
    let mut pair = Pair::new(15, true);
    let rotten = pair.blobs();
    for (n, id) in rotten.iter().enumerate() {
        assert!(pair.world.store_mut(pair.open).corrupt(id));
        let found = pair.world.now();
        let reader = pair.late_reader();
        pair.assert_complete(&[pair.open, reader]);
        let took = pair.world.now().since(found);
        assert!(took < RECHECK_DAMAGED_INTERVAL * 2, "the {n}th after {took:?}");
        pair.world.crash(reader);
    }
    assert_eq!(pair.losses(), rotten.len());
}
