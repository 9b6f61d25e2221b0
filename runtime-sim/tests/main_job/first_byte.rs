//! How many round trips lie between the DHT's answer and a file: at a latency of 100 ms there and back, in the world's clock.

use std::time::Duration;

use megatorrent_core::node::Event;
use megatorrent_core::time::Instant;
use megatorrent_sim::{DhtConfig, World, WorldConfig};

use crate::common::{LIMIT, author, content, publish, published, reader};

const ROUND_TRIP: Duration = Duration::from_millis(100);
/// When the DHT answers.
const ANSWER: Duration = Duration::from_millis(500);
/// Small beside a round trip.
const DISK_US: u64 = 50;

fn far_world() -> World {
    let one_way = 50;
    assert_eq!(Duration::from_millis(2 * one_way), ROUND_TRIP);
    let answer = ANSWER.as_millis().try_into().expect("small");
    let dht = DhtConfig { latency_ms: answer..=answer, loss_percent: 0 };
    let physics = WorldConfig {
        latency_ms: one_way..=one_way,
        cut_bytes_min: 64 * 1024,
        disk_us: DISK_US..=DISK_US,
        dht,
        ..WorldConfig::default()
    };
    World::new(1, physics)
}

/// Returns how many tenths of a round trip after the DHT's answer a reader has its first file of `files` of 1 KiB, whether the
/// head was inline, and how long after the follow it knew that all of the newest version is here.
fn first_file(files: usize) -> (u128, bool, Duration) {
    let mut world = far_world();
    let author = author(&mut world);
    let channel = world.channel(author).expect("it has an identity");
    let entries: Vec<_> = (0..files)
        .map(|n| {
            let name = format!("{n}");
            let bytes = content(&name, 1024);
            world.ingest(author, &name, &bytes)
        })
        .collect();
    publish(&mut world, author, &entries);
    world.run_for(Duration::from_secs(10));
    let inline = published(&world, author)[0].1;
    let reader = reader(&mut world);
    let begun = world.now();
    world.follow(reader, channel, None);
    assert!(world.run_until(LIMIT, |world| world.is_complete(reader, &channel)));
    let at = |is_it: fn(&Event) -> bool| -> Instant {
        world.events(reader).find(|(_, event)| is_it(event)).expect("it is told").0
    };
    let file = at(|event| matches!(event, Event::FileComplete { .. }));
    let after = file.since(begun + ANSWER);
    (after.as_millis() * 10 / ROUND_TRIP.as_millis(), inline, world.now().since(begun))
}

#[test]
fn a_file_is_there_a_few_round_trips_after_the_dhts_answer() {
    for (files, most) in [(1, 40), (60, 60)] {
        let (tenths, inline, complete) = first_file(files);
        println!(
            "{files} files, inline: {inline}: the first {}.{} round trips after the DHT's answer, all known to be there after {complete:?}",
            tenths / 10,
            tenths % 10
        );
        assert_eq!(inline, files == 1);
        assert!(tenths <= most, "{tenths} tenths of a round trip");
    }
}
