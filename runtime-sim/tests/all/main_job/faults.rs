//! The main job in spite of crashes, broken links, lies and floods.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::main_job::common::*;
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::error::Violation;
use megatorrent_core::limits::{BAN_TIME, INBOUND_MAX};
use megatorrent_core::node::{Event, RecordKey};
use megatorrent_sim::{HostId, LinkId, World};

#[test]
fn the_author_crashes_midway_and_comes_back() {
    let mut swarm = Swarm::new(1, 8);
    let follower = swarm.follower();
    swarm.run_until_stored(follower, 3);
    swarm.world.crash(swarm.author);
    swarm.world.run_for(Duration::from_mins(3));
    assert!(!swarm.world.is_complete(follower, &swarm.channel));
    swarm.world.start(swarm.author);
    swarm.assert_completes(follower);
}

#[test]
fn a_follower_that_crashes_midway_goes_on_from_what_it_has() {
    let mut swarm = Swarm::new(2, 8);
    let follower = swarm.follower();
    swarm.run_until_stored(follower, 5);
    swarm.world.crash(follower);
    swarm.world.run_for(Duration::from_mins(1));
    let had = swarm.world.store(follower).blob_count();
    let before = swarm.world.node(swarm.author).map(|node| node.status(swarm.world.now()).bytes_sent);
    // Nobody tells it again what to follow: that is in its records.
    swarm.world.start(follower);
    swarm.assert_completes(follower);
    let after = swarm.world.node(swarm.author).map(|node| node.status(swarm.world.now()).bytes_sent);
    let sent = after.zip(before).map_or(0, |(after, before)| after - before);
    let missing = swarm.world.store(follower).blob_count() - had;
    assert!(sent < (missing as u64 + 1) * MIB as u64, "{sent} bytes were sent for {missing} blobs");
}

#[test]
fn a_crash_at_any_point_loses_nothing_that_was_stored() {
    let mut swarm = Swarm::new(3, 4);
    let follower = swarm.follower();
    let mut kept = 0;
    for _ in 0..40 {
        swarm.world.run_for(Duration::from_millis(731));
        swarm.world.crash(follower);
        let stored = swarm.world.store(follower).blob_count();
        assert!(stored >= kept, "{stored} blobs after {kept}");
        kept = stored;
        swarm.world.start(follower);
        // It is told once; a crash before that was durable means that it is told again.
        swarm.world.follow(follower, swarm.channel, None);
    }
    swarm.assert_completes(follower);
}

#[test]
fn links_that_are_reset_or_fall_silent_are_made_anew() {
    for break_link in [World::reset as fn(&mut World, LinkId), World::half_open] {
        let mut swarm = Swarm::new(4, 8);
        let follower = swarm.follower();
        for stored in [1, 3, 5] {
            swarm.run_until_stored(follower, stored);
            for link in swarm.world.links_of(follower) {
                break_link(&mut swarm.world, link);
            }
        }
        swarm.assert_completes(follower);
    }
}

/// A swarm in which one follower has got everything and serves each part with a bit flipped, beside the right values; the
/// author is away.
fn with_liar(seed: u64) -> (Swarm, HostId) {
    let mut swarm = Swarm::new(seed, 4);
    let liar = swarm.follower();
    swarm.assert_completes(liar);
    swarm.world.crash(swarm.author);
    swarm.world.store_mut(liar).set_lying(true);
    (swarm, liar)
}

fn is_ban(event: &Event) -> bool {
    matches!(event, Event::Banned { violation: Violation::WrongBlob, .. })
}

#[test]
fn a_liar_is_banned_and_the_parts_come_from_another() {
    let (mut swarm, liar) = with_liar(5);
    let follower = swarm.follower();
    assert!(swarm.world.run_until(LIMIT, |world| reported(world, follower, is_ban)));
    let received = |world: &World| world.node(follower).map(|node| node.status(world.now()).bytes_received);
    assert_eq!(received(&swarm.world), Some(0), "no wrong part is stored");
    let liar_ip = swarm.world.address(liar).ip();
    let names_liar = |event: &Event| matches!(event, Event::Banned { peer: PeerAddr::Ip(peer), .. } if peer.ip() == liar_ip);
    assert!(reported(&swarm.world, follower, names_liar));
    swarm.world.start(swarm.author);
    swarm.assert_completes(follower);
}

#[test]
fn a_ban_survives_a_crash_and_ends_after_its_time() {
    let (mut swarm, liar) = with_liar(6);
    let follower = swarm.follower();
    let bans_kept = |world: &World| {
        world.store(follower).records().filter(|(key, _)| matches!(key, RecordKey::Ban(_))).count()
    };
    assert!(swarm.world.run_until(LIMIT, |world| reported(world, follower, is_ban)));
    swarm.world.run_for(Duration::from_secs(1));
    assert!(bans_kept(&swarm.world) > 0, "the ban is durable");
    swarm.world.crash(follower);
    let restarted = swarm.world.now();
    swarm.world.start(follower);
    let bans = |world: &World| world.node(follower).map_or(0, |node| node.status(world.now()).bans);
    assert!(bans(&swarm.world) > 0);
    swarm.world.run_for(BAN_TIME / 2);
    let liar = PeerAddr::from(swarm.world.address(liar));
    let goes_to_liar = |(at, event): &(_, Event)| {
        *at > restarted && matches!(event, Event::Connected { peer, outbound: true, .. } if *peer == liar)
    };
    assert!(!swarm.world.events(follower).any(goes_to_liar));
    swarm.world.start(swarm.author);
    swarm.assert_completes(follower);
    swarm.world.run_for(BAN_TIME);
    assert_eq!(bans(&swarm.world), 0);
}

#[test]
fn a_sequence_never_goes_back() {
    let mut swarm = Swarm::new(7, 1);
    let old = swarm.world.dht().newest(swarm.world.now(), &swarm.channel).cloned().expect("it is published");
    publish(&mut swarm.world, swarm.author, std::slice::from_ref(&swarm.file));
    let second = published(&swarm.world, swarm.author)[1].0;
    let follower = swarm.follower();
    swarm.assert_completes(follower);
    swarm.world.crash(swarm.author);
    swarm.world.crash(follower);
    // All that the DHT knows is the old head again, which is properly signed.
    let now = swarm.world.now();
    swarm.world.dht_mut().replace(now, &old);
    swarm.world.start(follower);
    swarm.world.run_for(Duration::from_mins(10));
    let sequence = |world: &World| {
        world
            .node(follower)
            .and_then(|node| node.channel_status(&swarm.channel))
            .map(|status| status.sequence)
    };
    assert_eq!(sequence(&swarm.world), Some(second));
    let now = swarm.world.now();
    swarm.world.dht_mut().replace(now, &old);
    // The author's clock has lost a year, and the DHT would believe it.
    swarm.world.set_clock_ahead(swarm.author, -365 * 24 * 3600 * 1000);
    swarm.world.start(swarm.author);
    publish(&mut swarm.world, swarm.author, std::slice::from_ref(&swarm.file));
    let third = published(&swarm.world, swarm.author)[2].0;
    assert!(third > second, "{third} after {second}");
    assert!(swarm.world.run_until(LIMIT, |world| sequence(world) == Some(third)));
}

#[test]
fn dead_and_foreign_addresses_in_the_dht_delay_nobody_for_long() {
    let mut swarm = Swarm::new(8, 2);
    let topic = megatorrent_core::uri::topic(&swarm.channel, None).info_hash();
    let now = swarm.world.now();
    for n in 0..100 {
        let dead = SocketAddr::from((Ipv4Addr::new(10, 66, 0, n), 6881));
        swarm.world.dht_mut().inject_peer(now, topic, dead);
    }
    let follower = swarm.follower();
    swarm.assert_completes(follower);
}

// --- whoever knocks -----------------------------------------------------------------------------------------

fn stranger(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(172, 16, high, low), 50_000))
}

#[test]
fn idle_connections_do_not_keep_an_honest_peer_out() {
    let mut swarm = Swarm::new(9, 6);
    let follower = swarm.follower();
    let mut links = Vec::new();
    // Twice as many as it takes, all the time: the node closes some, and as many come again.
    let crowd = 2 * INBOUND_MAX;
    for wave in 0..60 {
        links.retain(|link| swarm.world.raw_is_open(*link));
        for n in links.len()..crowd {
            let from = stranger(u16::try_from(n + wave * crowd).unwrap_or(u16::MAX));
            links.push(swarm.world.raw_dial(from, swarm.author));
        }
        swarm.world.run_for(Duration::from_secs(1));
        swarm.world.check();
    }
    let inbound = swarm.world.node(swarm.author).map(|node| node.status(swarm.world.now()).inbound);
    assert!(inbound.is_some_and(|inbound| inbound <= INBOUND_MAX));
    assert!(links.len() > INBOUND_MAX, "there were enough of them to fill the table");
    assert!(swarm.world.is_complete(follower, &swarm.channel), "it was served while they were there");
    swarm.assert_completes(follower);
}

#[test]
fn garbage_ends_its_own_connection_and_nothing_else() {
    let mut swarm = Swarm::new(10, 4);
    let follower = swarm.follower();
    let key = content("key", 32);
    let frame =
        |length: u32, rest: usize| [&key[..], &length.to_be_bytes(), &content("frame", rest)].concat();
    let hostile = [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".repeat(4),
        content("noise", 100_000),
        vec![0; 32], // a low-order point
        frame(u32::MAX, 100),
        frame(0, 100),
        frame(15, 100),
        frame(16, 100),
        frame(1_048_609, 2 * MIB),
    ];
    for (n, bytes) in (0..).zip(&hostile) {
        let link = swarm.world.raw_dial(stranger(n), swarm.author);
        swarm.world.raw_send(link, bytes);
        swarm.world.run_for(Duration::from_secs(2));
        assert!(!swarm.world.raw_is_open(link), "hostile input {n} ends the connection");
    }
    // A key and then nothing is no offence, but it does not last.
    let silent = swarm.world.raw_dial(stranger(99), swarm.author);
    swarm.world.raw_send(silent, &key);
    swarm.world.run_for(Duration::from_mins(5));
    assert!(swarm.world.raw_read(silent).len() >= 32, "the node's own key");
    assert!(!swarm.world.raw_is_open(silent));
    swarm.assert_completes(follower);
}
