//! What an author publishes, followers get, whatever the size and the form.

use std::time::Duration;

use crate::main_job::common::*;
use megatorrent_core::error::CloseReason;
use megatorrent_core::manifest::HeadError;
use megatorrent_core::node::Event;
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

#[test]
fn small_files_travel_in_an_inline_head() {
    for len in [0, 1, MIB - 1, MIB] {
        let mut swarm = Swarm::with(world(len as u64), "one", len);
        assert!(matches!(published(&swarm.world, swarm.author)[..], [(_, true)]), "{len} bytes fit inline");
        let follower = swarm.follower();
        swarm.assert_completes(follower);
    }
}

#[test]
fn a_long_file_travels_by_a_tree_that_the_head_points_to() {
    let mut swarm = Swarm::with(world(20), "film", 20 * MIB + 1);
    assert!(matches!(published(&swarm.world, swarm.author)[..], [(_, false)]), "it does not fit inline");
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    let (data, index, body, page, ids) = (21, 1, 1, 1, 1);
    assert_eq!(swarm.world.store(follower).blob_count(), data + index + body + page + ids);
}

#[test]
fn many_small_files_travel_by_a_body() {
    let mut world = world(21);
    let author = author(&mut world);
    let contents: Vec<_> = (0..12).map(|n| content(&format!("{n}"), 100 + n)).collect();
    let ingest = |(n, bytes): (usize, &Vec<u8>)| world.ingest(author, &format!("dir/{n}.txt"), bytes);
    let files: Vec<_> = contents.iter().enumerate().map(ingest).collect();
    publish(&mut world, author, &files);
    assert!(matches!(published(&world, author)[..], [(_, false)]));
    let follower = reader(&mut world);
    let channel = world.channel(author).expect("it has an identity");
    world.follow(follower, channel, None);
    assert!(world.run_until(LIMIT, |world| world.is_complete(follower, &channel)));
    for (file, bytes) in files.iter().zip(&contents) {
        assert!(world.read_file(follower, file).as_ref() == Some(bytes));
    }
    let complete = world.events(follower).filter(|(_, event)| matches!(event, Event::FileComplete { .. }));
    assert_eq!(complete.count(), files.len(), "each file is reported once");
}

#[test]
fn a_private_channel_opens_to_its_read_key_alone() {
    for len in [10, 2 * MIB] {
        let mut world = world(30);
        let author = author(&mut world);
        let channel = world.channel(author).expect("it has an identity");
        let bytes = content("secret", len);
        let file = world.ingest(author, "secret", &bytes);
        world.publish(author, "Private", std::slice::from_ref(&file), true);
        let [with, without, wrong] = [(); 3].map(|()| reader(&mut world));
        world.follow(with, channel, Some(read_key()));
        world.follow(without, channel, None);
        world.follow(wrong, channel, Some(megatorrent_core::ids::Secret::new([9; 32])));
        assert!(world.run_until(LIMIT, |world| world.is_complete(with, &channel)));
        assert!(world.read_file(with, &file) == Some(bytes));
        for (host, expected) in [(without, HeadError::ReadKeyMissing), (wrong, HeadError::ReadKeyWrong)] {
            let refused =
                |event: &Event| matches!(event, Event::HeadRefused { error, .. } if *error == expected);
            assert!(world.run_until(LIMIT, |world| reported(world, host, refused)), "{expected:?}");
            assert_eq!(world.store(host).blob_count(), 0);
        }
        // The key that was lacking comes later.
        world.follow(without, channel, Some(read_key()));
        assert!(world.run_until(LIMIT, |world| world.is_complete(without, &channel)));
    }
}

#[test]
fn a_second_publication_reaches_a_follower() {
    let mut swarm = Swarm::new(40, 2);
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    swarm.content = content("second", 3 * MIB);
    let second = swarm.world.ingest(swarm.author, "second", &swarm.content);
    publish(&mut swarm.world, swarm.author, &[swarm.file.clone(), second.clone()]);
    swarm.file = second;
    let newest = published(&swarm.world, swarm.author)[1].0;
    let channel = swarm.channel;
    let is_newest = |world: &World| {
        let status = world.node(follower).and_then(|node| node.channel_status(&channel));
        status.is_some_and(|status| status.sequence == newest)
    };
    assert!(swarm.world.run_until(LIMIT, is_newest));
    swarm.assert_completes(follower);
}

#[test]
fn a_follower_that_came_before_the_channel_gets_it() {
    let mut world = world(41);
    let author = author(&mut world);
    let channel = world.channel(author).expect("it has an identity");
    let follower = reader(&mut world);
    world.follow(follower, channel, None);
    let not_found = |event: &Event| matches!(event, Event::HeadNotFound { error: None, .. });
    assert!(world.run_until(LIMIT, |world| reported(world, follower, not_found)));
    let file = world.ingest(author, "late", b"late");
    publish(&mut world, author, std::slice::from_ref(&file));
    assert!(world.run_until(LIMIT, |world| world.is_complete(follower, &channel)));
    assert_eq!(world.read_file(follower, &file).as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_third_completes_from_the_second_after_the_author_has_gone() {
    let mut swarm = Swarm::new(50, 4);
    let second = swarm.follower();
    swarm.assert_completes(second);
    swarm.world.crash(swarm.author);
    let third = swarm.follower();
    swarm.assert_completes(third);
}

#[test]
fn a_channel_outlives_the_expiry_of_all_dht_items_with_and_without_its_author() {
    let mut swarm = Swarm::new(51, 1);
    swarm.world.run_for(Duration::from_hours(5));
    let second = swarm.follower();
    swarm.assert_completes(second);
    swarm.world.crash(swarm.author);
    swarm.world.run_for(Duration::from_hours(5));
    let third = swarm.follower();
    swarm.assert_completes(third);
}

#[test]
fn peers_stay_on_good_terms_for_a_day() {
    let mut swarm = Swarm::new(52, 2);
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    swarm.world.run_for(Duration::from_hours(24));
    let is_offence = |event: &&Event| match event {
        Event::Disconnected { reason, .. } => matches!(reason, CloseReason::Violation(_)),
        event => matches!(event, Event::Banned { .. }),
    };
    for host in [swarm.author, follower] {
        let offence = swarm.world.events(host).map(|(_, event)| event).find(is_offence);
        assert!(offence.is_none(), "{offence:?}");
    }
    swarm.world.check();
}

#[test]
fn everything_wanted_is_in_one_state_and_every_job_is_answered() {
    let mut swarm = Swarm::new(60, 5);
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    let status = swarm.world.node(follower).and_then(|node| node.channel_status(&swarm.channel));
    let status = status.expect("it follows the channel");
    assert_eq!(status.blobs_stored, status.blobs_total);
    assert_eq!(status.blobs_total, swarm.world.store(follower).blob_count() as u64);
    assert_eq!(status.content_bytes, swarm.content.len() as u64);
    for host in [swarm.author, follower] {
        let mut steps = 0;
        while swarm.world.jobs_open(host) > 0 {
            steps += 1;
            assert!(swarm.world.step() && steps < 100_000, "a job stays open");
        }
        assert!(swarm.world.jobs_answered(host) > 0);
    }
    swarm.world.check();
}

// --- determinism --------------------------------------------------------------------------------------------

/// What a world came to.
fn outcome(seed: u64, config: WorldConfig) -> (World, HostId, Vec<u8>) {
    let mut swarm = Swarm::with(World::new(seed, config), "film", 3 * MIB / 2);
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    let bytes = swarm.world.read_file(follower, &swarm.file).expect("it is complete");
    (swarm.world, follower, bytes)
}

#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| {
        let (world, ..) = outcome(seed, WorldConfig::default());
        (world.trace_hash(), world.trace_len())
    };
    let first = trace(70);
    assert!(first.1 > 100);
    assert_eq!(first, trace(70));
    assert_ne!(first.0, trace(71).0);
}

#[test]
fn how_the_bytes_are_cut_changes_nothing_but_the_time() {
    let (_, _, whole) = outcome(72, WorldConfig::default());
    let bytewise = WorldConfig { cut_bytes_max: 1, window_bytes: 4096, ..WorldConfig::default() };
    let mut swarm = Swarm::with(World::new(72, bytewise), "film", 10);
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    let (_, _, pieces) = outcome(72, WorldConfig { cut_bytes_max: 7, ..WorldConfig::default() });
    assert!(whole == pieces);
}

// --- limits -------------------------------------------------------------------------------------------------

#[test]
fn a_full_store_pauses_the_fetch_and_room_resumes_it() {
    let mut swarm = Swarm::new(80, 6);
    let follower = swarm.world.add_host(HostConfig { store_blobs_max: 3, ..HostConfig::default() });
    swarm.world.follow(follower, swarm.channel, None);
    let is_full = |event: &Event| matches!(event, Event::StoreFull { no_space: true });
    assert!(swarm.world.run_until(LIMIT, |world| reported(world, follower, is_full)));
    assert!(swarm.world.store(follower).blob_count() <= 3);
    swarm.world.store_mut(follower).set_room(100);
    swarm.assert_completes(follower);
}

#[test]
fn without_a_dht_node_the_failure_is_told_and_mended_later() {
    use megatorrent_core::node::{DhtError, PublishError};

    let mut world = world(81);
    world.dht_mut().set_up(false);
    let author = author(&mut world);
    let channel = world.channel(author).expect("it has an identity");
    let file = world.ingest(author, "a", b"a");
    world.publish(author, "Channel", std::slice::from_ref(&file), false);
    let follower = reader(&mut world);
    world.follow(follower, channel, None);
    let failed = Err(PublishError::Dht(DhtError::NoNodes).into());
    let not_found =
        |event: &Event| matches!(event, Event::HeadNotFound { error: Some(DhtError::NoNodes), .. });
    assert!(world.run_until(LIMIT, |world| world.answers(author).any(|(_, answer)| *answer == failed)));
    assert!(world.run_until(LIMIT, |world| reported(world, follower, not_found)));
    world.dht_mut().set_up(true);
    publish(&mut world, author, std::slice::from_ref(&file));
    assert!(world.run_until(LIMIT, |world| world.is_complete(follower, &channel)));
}
