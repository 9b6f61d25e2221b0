//! Clocks that are wrong, the author's or a reader's: every head reaches every reader (`docs/protocol.md` §6).

use std::time::Duration;

use megatorrent_core::ids::Secret;
use megatorrent_core::node::{Answer, Event, Refusal};
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

const LIMIT: Duration = Duration::from_mins(10);
const HOUR_MS: i64 = 3600 * 1000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
/// From the world's beginning back to 2020.
const TO_2020_MS: i64 = -3 * YEAR_MS - YEAR_MS / 2;

/// An author, and readers that follow it from the beginning.
struct Swarm {
    world: World,
    author: HostId,
    readers: Vec<HostId>,
}

impl Swarm {
    /// The readers' clocks are ahead by so much.
    fn new(readers_ahead_ms: &[i64]) -> Self {
        let mut world = World::new(7, WorldConfig::default());
        let identity_seed = Some(Secret::new([7; 32]));
        let author = world.add_host(HostConfig { identity_seed, ..HostConfig::default() });
        let channel = world.channel(author).expect("it has an identity");
        let readers: Vec<HostId> = readers_ahead_ms
            .iter()
            .map(|ms| world.add_host(HostConfig { clock_ahead_ms: *ms, ..HostConfig::default() }))
            .collect();
        for reader in &readers {
            world.follow(*reader, channel, None);
        }
        Self { world, author, readers }
    }

    /// Publishes while the author's clock is ahead by so much, and waits until every reader has it all.
    fn publish(&mut self, ahead_ms: i64, content: &[u8]) -> u64 {
        let (world, author) = (&mut self.world, self.author);
        world.set_clock_ahead(author, ahead_ms);
        let file = world.ingest(author, "file", content);
        world.publish(author, "Channel", std::slice::from_ref(&file), false);
        let before = sequences(world, author).len();
        assert!(world.run_until(LIMIT, |world| sequences(world, author).len() > before));
        let sequence = sequences(world, author)[before];
        for reader in &self.readers {
            let is_there = |world: &World| {
                let channel = world.channel(author).expect("it has an identity");
                let status = world.node(*reader).and_then(|node| node.channel_status(&channel));
                status.is_some_and(|status| status.sequence == sequence && status.complete)
            };
            assert!(world.run_until(LIMIT, is_there), "{:?}", world.events(*reader).collect::<Vec<_>>());
            assert_eq!(world.read_file(*reader, &file).as_deref(), Some(content));
        }
        world.check();
        sequence
    }

    /// Nobody was told that a head cannot be used.
    fn assert_none_refused(&self) {
        for reader in &self.readers {
            let is_refused = |event: &Event| matches!(event, Event::HeadRefused { .. });
            assert!(!self.world.events(*reader).any(|(_, event)| is_refused(event)));
        }
    }
}

/// Those that a host has published.
fn sequences(world: &World, host: HostId) -> Vec<u64> {
    let sequence = |answer: &Result<Answer, Refusal>| match answer {
        Ok(Answer::Published { sequence, .. }) => Some(*sequence),
        _ => None,
    };
    world.answers(host).filter_map(|(_, answer)| sequence(answer)).collect()
}

#[test]
fn an_author_that_was_two_years_ahead_once_is_read_then_and_afterwards() {
    let mut swarm = Swarm::new(&[0, 0]);
    let ahead = swarm.publish(2 * YEAR_MS, b"one");
    let behind = |world: &World, author: HostId| {
        let is_behind = |event: &Event| matches!(event, Event::ClockBehind { .. });
        world.events(author).filter(|(_, event)| is_behind(event)).count()
    };
    assert_eq!(behind(&swarm.world, swarm.author), 0);
    assert_eq!(swarm.publish(0, b"two"), ahead + 1);
    assert_eq!(behind(&swarm.world, swarm.author), 1);
    // A restart changes nothing, nor does a reader that knows nothing yet.
    swarm.world.crash(swarm.author);
    swarm.world.start(swarm.author);
    let channel = swarm.world.channel(swarm.author).expect("it has an identity");
    let late = swarm.world.add_host(HostConfig::default());
    swarm.world.follow(late, channel, None);
    swarm.readers.push(late);
    assert_eq!(swarm.publish(0, b"three"), ahead + 2);
    swarm.assert_none_refused();
}

#[test]
fn a_reader_whose_clock_stands_at_2020_follows_every_head() {
    let mut swarm = Swarm::new(&[TO_2020_MS, 0]);
    let first = swarm.publish(0, b"one");
    assert!(swarm.publish(0, b"two") > first);
    // The clock is set while it follows, and lost again.
    let reader = swarm.readers[0];
    swarm.world.set_clock_ahead(reader, 0);
    swarm.publish(0, b"three");
    swarm.world.set_clock_ahead(reader, TO_2020_MS);
    swarm.publish(0, b"four");
    swarm.assert_none_refused();
}

#[test]
fn a_fast_author_and_a_slow_reader_do_not_miss_each_other() {
    let mut swarm = Swarm::new(&[-10 * HOUR_MS, 10 * HOUR_MS]);
    let first = swarm.publish(20 * HOUR_MS, b"one");
    assert!(swarm.publish(20 * HOUR_MS, b"two") > first);
    swarm.assert_none_refused();
}
