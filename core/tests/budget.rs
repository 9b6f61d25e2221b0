//! What the DHT budget promises a node that follows many channels: each is announced and looked up in its turn, whatever
//! the others want.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{InfoHash, Secret};
use megatorrent_core::limits::{ANNOUNCE_INTERVAL, CHANNELS_MAX, DHT_POLLS_PER_MINUTE, FRESH_COPIES_MIN};
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::Command;
use megatorrent_core::time::Instant;
use megatorrent_core::uri;
use support::content::item;
use support::{Bench, CONFIG};

/// How much later than it is due an operation may start where all that is due fits the budget: others that are due at
/// the same time may come first.
const SLACK: Duration = Duration::from_secs(10);

const HOUR: Duration = Duration::from_hours(1);

fn author(n: u16) -> Identity {
    let [high, low] = n.to_be_bytes();
    let mut secret = [7; 32];
    (secret[0], secret[1]) = (high, low);
    Identity::new(&Secret::new(secret), None)
}

fn follow(bench: &mut Bench, channel: PublicKey) {
    bench.command(Command::Follow { channel, read_key: None });
}

/// Follows so many channels that are complete, as they list nothing.
fn follow_complete(bench: &mut Bench, channels: u16) -> Vec<PublicKey> {
    let follow_one = |n| {
        let author = author(n);
        let head = item(&author, 5, &HeadContent::Inline(vec![]));
        bench.world.heads.insert(author.public_key(), (head, FRESH_COPIES_MIN));
        follow(bench, author.public_key());
        author.public_key()
    };
    (0..channels).map(follow_one).collect()
}

fn topics(channels: &[PublicKey]) -> Vec<InfoHash> {
    channels.iter().map(|channel| uri::topic(channel, None).info_hash()).collect()
}

/// The longest time from `since` until now in which something did not happen, for the one of `all` to which it happened
/// least often.
fn longest_gap<K: Ord + Copy>(log: &[(Instant, K)], all: &[K], since: Instant, now: Instant) -> Duration {
    let mut last: BTreeMap<K, Instant> = all.iter().map(|key| (*key, since)).collect();
    let mut longest = Duration::ZERO;
    for (at, key) in log.iter().filter(|(at, _)| *at >= since) {
        let Some(last) = last.get_mut(key) else { continue };
        longest = longest.max(at.since(*last));
        *last = *at;
    }
    last.values().map(|last| now.since(*last)).fold(longest, Duration::max)
}

#[test]
fn channels_that_nobody_has_published_do_not_keep_the_others_from_being_announced() {
    let mut bench = Bench::answering(CONFIG, None);
    let complete = follow_complete(&mut bench, 2);
    (100..130).for_each(|n| follow(&mut bench, author(n).public_key()));
    bench.sleep(5 * HOUR);
    let gap = longest_gap(&bench.world.announces, &topics(&complete), Instant(0), bench.now);
    assert!(gap <= ANNOUNCE_INTERVAL + SLACK, "not announced for {gap:?}");
}

/// Where many channels are followed, their operations come in waves at first, as all began at once; each starts later than it
/// is due where two waves meet, and thereby spreads them.
const WAVE: Duration = Duration::from_mins(1);

#[test]
fn hundreds_of_channels_are_announced_in_time_and_looked_up_in_turn() {
    for count in [300, CHANNELS_MAX] {
        let mut bench = Bench::answering(CONFIG, None);
        let channels = follow_complete(&mut bench, u16::try_from(count).expect("few"));
        bench.sleep(8 * HOUR);
        let (since, mut lag) = (bench.now, 0);
        for _ in 0..300 {
            bench.sleep(Duration::from_mins(1));
            lag = bench.status().dht_lag_secs.max(lag);
        }
        let gap = longest_gap(&bench.world.announces, &topics(&channels), since, bench.now);
        eprintln!("announces {gap:?}");
        let poll_interval = Duration::from_mins(count as u64) / u32::try_from(DHT_POLLS_PER_MINUTE).expect("few");
        let pgap = longest_gap(&bench.world.gets, &channels, since, bench.now);
        eprintln!("polls {pgap:?} {poll_interval:?} lag {lag}");
        assert!(gap <= ANNOUNCE_INTERVAL + WAVE, "{count}: not announced for {gap:?}");
        assert!(pgap <= poll_interval + WAVE, "{count}: not looked up for {pgap:?}");
        assert!(lag <= WAVE.as_secs(), "{count}: {lag} s late");
    }
}
