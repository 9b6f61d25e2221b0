//! The DHT budget of a node that follows many channels: each channel is announced and looked up in turn, whatever the
//! others need.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::content::{Content, item};
use crate::support::{Bench, CONFIG, identity};
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{InfoHash, Secret};
use megatorrent_core::limits::{
    ANNOUNCE_INTERVAL, CHANNELS_MAX, DHT_POLLS_PER_MINUTE, FRESH_COPIES_MIN, HEAD_POLL_INTERVAL,
    LOOKUP_INTERVAL_MAX, LOOKUP_INTERVAL_MIN,
};
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::Command;
use megatorrent_core::time::Instant;
use megatorrent_core::uri;

/// Longest delay of an operation where everything due fits the budget: others that are due at the same time may come
/// first.
const SLACK: Duration = Duration::from_secs(10);

/// The same where hundreds of channels are followed, and two waves of operations meet.
const WAVE: Duration = Duration::from_mins(1);

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

#[expect(clippy::cast_possible_truncation, reason = "it is a small number")]
const POLLS_PER_MINUTE: u32 = DHT_POLLS_PER_MINUTE as u32;

fn author(n: u16) -> Identity {
    let [high, low] = n.to_be_bytes();
    let mut secret = [7; 32];
    (secret[0], secret[1]) = (high, low);
    Identity::new(&Secret::new(secret), None)
}

fn follow(bench: &mut Bench, channel: PublicKey) {
    bench.command(Command::Follow { channel, read_key: None });
}

/// Follows `count` channels that are complete, as they list nothing.
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

/// Returns the longest time from `since` on in which an event did not happen to one of `all`.
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

/// Returns the longest delay of an operation, sampled each minute.
fn longest_lag(bench: &mut Bench, time: Duration) -> Duration {
    let until = bench.now + time;
    let mut longest = 0;
    while bench.now < until {
        bench.sleep(Duration::from_mins(1));
        longest = bench.status().dht_lag_secs.max(longest);
    }
    Duration::from_secs(longest)
}

#[test]
fn unpublished_channels_do_not_keep_the_others_from_being_announced() {
    let mut bench = Bench::answering(CONFIG, None);
    let complete = follow_complete(&mut bench, 2);
    (100..130).for_each(|n| follow(&mut bench, author(n).public_key()));
    bench.sleep(5 * HOUR);
    let gap = longest_gap(&bench.world.announces, &topics(&complete), Instant(0), bench.now);
    assert!(gap <= ANNOUNCE_INTERVAL + SLACK, "not announced for {gap:?}");
    assert!(bench.status().dht_lag_secs <= SLACK.as_secs());
}

#[test]
fn hundreds_of_channels_are_announced_in_time_and_looked_up_in_turn() {
    for count in [300, CHANNELS_MAX] {
        let mut bench = Bench::answering(CONFIG, None);
        let channels = follow_complete(&mut bench, u16::try_from(count).expect("few"));
        let poll_interval = HEAD_POLL_INTERVAL.max(Duration::from_mins(count as u64) / POLLS_PER_MINUTE);
        // At first all are due at once and come in waves; where two waves meet they spread.
        let lag = longest_lag(&mut bench, DAY);
        assert!(lag <= poll_interval, "{count}: {lag:?} late");
        let since = bench.now;
        let lag = longest_lag(&mut bench, 4 * poll_interval);
        assert!(lag <= WAVE, "{count}: {lag:?} late");
        let gap = longest_gap(&bench.world.announces, &topics(&channels), since, bench.now);
        assert!(gap <= ANNOUNCE_INTERVAL + SLACK, "{count}: not announced for {gap:?}");
        let gap = longest_gap(&bench.world.gets, &channels, since, bench.now);
        assert!(gap <= poll_interval + WAVE, "{count}: not looked up for {gap:?}");
        // Conversely, no operation that fits the budget is left out.
        let polls = bench.world.gets.iter().filter(|(at, _)| *at >= since).count();
        assert!(polls >= 3 * count, "{count}: {polls} look-ups");
    }
}

#[test]
fn a_node_that_finds_no_peer_looks_ever_more_rarely_until_something_changes() {
    let mut bench = Bench::answering(CONFIG, None);
    bench.world.ends_lookups = true;
    let content = Content::new(&identity(), 1);
    follow(&mut bench, content.channel);
    bench.sleep(HOUR);
    let before = bench.world.lookups.len();
    bench.sleep(HOUR);
    let count = u32::try_from(bench.world.lookups.len() - before).expect("few");
    assert!((HOUR / count).abs_diff(LOOKUP_INTERVAL_MAX) < Duration::from_secs(30), "{count} in an hour");
    content.publish(&mut bench);
    let before = bench.world.lookups.len();
    bench.sleep(HEAD_POLL_INTERVAL + 16 * LOOKUP_INTERVAL_MIN);
    let count = bench.world.lookups.len() - before;
    assert!(count >= 5, "{count} look-ups for a channel that lacks a blob");
}
