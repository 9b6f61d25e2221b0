//! The swarm beyond two nodes, without asking the DHT: heads pushed, gateways, names found by flooding.

use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::ids::Secret;
use megatorrent_core::node::{Command, Event};
use megatorrent_sim::{HostConfig, HostId, World, WorldConfig};

const SEED: u64 = 7;

fn author() -> HostConfig {
    HostConfig { identity_seed: Some(Secret::new([3; 32])), ..HostConfig::default() }
}

fn plain() -> HostConfig {
    HostConfig::default()
}

fn onion(letter: char) -> PeerAddr {
    format!("{}.onion:6881", String::from(letter).repeat(56)).parse().expect("a v3 name")
}

fn sequence(world: &World, host: HostId, of: HostId) -> u64 {
    let channel = world.channel(of).expect("the author has one");
    world.node(host).and_then(|node| node.channel_status(&channel)).map_or(0, |status| status.sequence)
}

fn publish(world: &mut World, author: HostId, content: &[u8]) {
    let file = world.ingest(author, "file", content);
    world.publish(author, "t", &[file], false);
}

fn is_published(world: &World, host: HostId, times: usize) -> bool {
    world.events(host).filter(|(_, e)| matches!(e, Event::Published { .. })).count() == times
}

fn is_complete(world: &World, host: HostId, of: HostId) -> bool {
    let channel = world.channel(of).expect("the author has one");
    world.node(host).and_then(|node| node.channel_status(&channel)).is_some_and(|status| status.complete)
}

fn connect(world: &mut World, from: HostId, to: HostId) {
    let addr = PeerAddr::from(world.address(to));
    world.command(from, Command::AddPeer(addr));
}

#[test]
fn a_new_head_reaches_followers_that_have_no_dht_and_only_know_each_other() {
    let mut world = World::new(SEED, WorldConfig::default());
    let author = world.add_host(author());
    let channel = world.channel(author).expect("it has one");
    let followers: Vec<HostId> =
        (0..4).map(|_| world.add_host(HostConfig { dht: false, ..plain() })).collect();
    // A chain: each knows the one before it.
    for (at, host) in followers.iter().enumerate() {
        let before = if at == 0 { author } else { followers[at - 1] };
        connect(&mut world, *host, before);
        world.follow(*host, channel, None);
    }
    publish(&mut world, author, b"one");
    let last = followers[3];
    assert!(
        world.run_until(Duration::from_mins(1), |w| is_complete(w, last, author)
            && is_published(w, author, 1))
    );
    let first = sequence(&world, last, author);
    publish(&mut world, author, b"two");
    assert!(world.run_until(Duration::from_mins(1), |w| sequence(w, author, author) > first));
    let published = world.now();
    assert!(world.run_until(Duration::from_secs(10), |w| sequence(w, last, author) > first));
    let took = world.now().since(published);
    assert!(took < Duration::from_secs(2), "pushed along the chain, not polled: {took:?}");
}

#[test]
fn a_node_without_a_dht_publishes_through_gateways_and_reads_back_through_another() {
    let mut world = World::new(SEED, WorldConfig::default());
    let gateways: Vec<HostId> =
        (0..2).map(|_| world.add_host(HostConfig { gateway: true, ..plain() })).collect();
    let storage = world.add_host(plain());
    let author = world.add_host(HostConfig { dht: false, ..author() });
    let channel = world.channel(author).expect("it has one");
    let addrs: Vec<PeerAddr> = gateways.iter().map(|g| world.address(*g).into()).collect();
    let file = world.ingest(author, "file", b"content");
    world.publish_via(author, "t", &[file], false, addrs);
    let published =
        |w: &World| w.events(author).any(|(_, e)| matches!(e, Event::Published { replicas: 2, .. }));
    assert!(world.run_until(Duration::from_mins(1), published));
    world.follow(storage, channel, None);
    assert!(
        world.run_until(Duration::from_mins(1), |w| sequence(w, storage, author) > 0),
        "it is on the DHT"
    );
}

#[test]
fn a_gateway_refuses_what_is_forged_or_old_and_a_plain_node_everything() {
    let mut world = World::new(SEED, WorldConfig::default());
    let plain_node = world.add_host(plain());
    let author = world.add_host(HostConfig { dht: false, ..author() });
    let addrs = vec![world.address(plain_node).into()];
    let file = world.ingest(author, "file", b"content");
    world.publish_via(author, "t", &[file], false, addrs);
    let refused = |w: &World| {
        w.events(author).any(|(_, e)| matches!(e, Event::PublishFailed { error, .. } if error.to_string().contains("Not a Gateway")))
    };
    assert!(world.run_until(Duration::from_mins(2), refused));
}

#[test]
fn an_onion_only_node_publishes_is_found_and_seeds_without_a_dht_or_an_ip_address() {
    let mut world = World::new(SEED, WorldConfig::default());
    let hub = world.add_host(HostConfig { gateway: true, ..plain() });
    let far = world.add_host(HostConfig { dht: false, ..plain() });
    let name = onion('a');
    let author = world.add_host(HostConfig { dht: false, name: Some(name.clone()), ..author() });
    let channel = world.channel(author).expect("it has one");
    let hub_addr = PeerAddr::from(world.address(hub));
    connect(&mut world, far, hub);
    connect(&mut world, author, hub);
    world.follow(far, channel, None);
    world.follow(hub, channel, None);
    let file = world.ingest(author, "file", &vec![7; 3 << 20]);
    world.publish_via(author, "t", std::slice::from_ref(&file), false, vec![hub_addr]);
    assert!(world.run_until(Duration::from_mins(10), |w| is_complete(w, far, author)));
    assert_eq!(world.read_file(far, &file), Some(vec![7; 3 << 20]));
    let dialled = |w: &World, host| {
        w.events(host)
            .any(|(_, e)| matches!(e, Event::Connected { peer, outbound: true, .. } if *peer == name))
    };
    assert!(dialled(&world, far) || dialled(&world, hub), "its name was flooded and believed once reached");
}

fn is_alone(world: &World, host: HostId) -> bool {
    let now = world.now();
    let status = world.node(host).map(|node| node.status(now));
    status.is_some_and(|status| status.inbound + status.outbound == 0)
}

#[test]
fn a_node_whose_proxy_died_goes_on_once_another_runs() {
    let mut world = World::new(SEED, WorldConfig::default());
    let author = world.add_host(author());
    let channel = world.channel(author).expect("it has one");
    let reader = world.add_host(HostConfig { listens: false, ..plain() });
    world.follow(reader, channel, None);
    publish(&mut world, author, b"one");
    assert!(world.run_until(Duration::from_mins(1), |w| is_complete(w, reader, author)));
    world.set_proxy_dead(reader, true);
    world.run_for(Duration::from_secs(5));
    assert!(world.links_of(reader).is_empty(), "its connections dropped");
    connect(&mut world, author, reader);
    world.run_for(Duration::from_mins(2));
    assert!(is_alone(&world, reader), "it reaches nobody, and nobody reaches it");
    let before = sequence(&world, reader, author);
    world.set_proxy_dead(reader, false);
    let file = world.ingest(author, "file", b"two");
    world.publish(author, "t", &[file], false);
    assert!(world.run_until(Duration::from_mins(12), |w| sequence(w, reader, author) > before
        && is_complete(w, reader, author)));
}
