//! How long after the DHT's answer a file is there: in round trips at 100 ms there and back, and all of it at 50 ms, in the world's
//! clock.

use std::time::Duration;

use megatorrent_core::node::Event;
use megatorrent_core::time::Instant;
use megatorrent_sim::{DhtConfig, World, WorldConfig};

use crate::main_job::common::{LIMIT, author, content, publish, published, reader};

const ROUND_TRIP: Duration = Duration::from_millis(100);
/// At which a file has to be whole within [`SOON`] of the DHT's answer.
const SHORT_ROUND_TRIP: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(350);
/// When the DHT answers.
const ANSWER: Duration = Duration::from_millis(500);
/// Small beside a round trip.
const DISK_US: u64 = 50;

fn far_world(round_trip: Duration) -> World {
    let one_way = (round_trip / 2).as_millis().try_into().expect("small");
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

/// Returns how long after the DHT's answer a reader has its first file of `files` of 1 KiB, and knows that all of the newest
/// version is here; and whether the head was inline.
fn first_file(files: usize, round_trip: Duration) -> (Duration, Duration, bool) {
    let mut world = far_world(round_trip);
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
    let answered = begun + ANSWER;
    (file.since(answered), world.now().since(answered), inline)
}

#[test]
fn a_file_is_there_a_few_round_trips_after_the_dhts_answer() {
    for (files, most) in [(1, 40), (60, 60)] {
        let (first, complete, inline) = first_file(files, ROUND_TRIP);
        let tenths = first.as_millis() * 10 / ROUND_TRIP.as_millis();
        println!(
            "{files} files, inline: {inline}: the first {}.{} round trips after the DHT's answer, all known to be there {complete:?} after it",
            tenths / 10,
            tenths % 10
        );
        assert_eq!(inline, files == 1);
        assert!(tenths <= most, "{tenths} tenths of a round trip");
    }
}

#[test]
fn a_small_file_is_whole_soon_after_the_dhts_answer() {
    for files in [1, 60] {
        let (first, complete, inline) = first_file(files, SHORT_ROUND_TRIP);
        println!(
            "{files} files, inline: {inline}: the first is whole {first:?} after the DHT's answer, all after {complete:?}"
        );
        assert!(first <= SOON, "{first:?}");
        assert!(!inline || complete <= SOON, "{complete:?}");
    }
}
