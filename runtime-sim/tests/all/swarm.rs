//! The swarm beyond two nodes, without asking the DHT: heads pushed, gateways, names found by flooding.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use megatorrent_core::addr::{OnionAddr, PeerAddr};
use megatorrent_core::client::{Client, Heard};
use megatorrent_core::codec::Message;
use megatorrent_core::ids::{BlobId, Secret};
use megatorrent_core::limits::{
    GATEWAY_PATIENCE_MIN, ITEM_LIFETIME, OUTBOUND_MAX, OUTBOUND_SHARE, PEERS_PER_NETWORK_MAX,
};
use megatorrent_core::node::{Answer, Command, Event, PublishError, Refusal, Takers};
use megatorrent_core::rng::Rng;
use megatorrent_core::transport::Role;
use megatorrent_core::uri;
use megatorrent_sim::{HostConfig, HostId, LinkId, StrangerEvent, World, WorldConfig};

const SEED: u64 = 7;

fn author() -> HostConfig {
    HostConfig { identity_seed: Some(Secret::new([3; 32])), ..HostConfig::default() }
}

fn plain() -> HostConfig {
    HostConfig::default()
}

fn onion(number: u8) -> PeerAddr {
    PeerAddr::Onion(OnionAddr::from_public_key([number; 32]), 6881)
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
    world.publications(host) == times
}

fn is_complete(world: &World, host: HostId, of: HostId) -> bool {
    let channel = world.channel(of).expect("the author has one");
    world.is_complete(host, &channel)
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
    assert!(world.run_until(Duration::from_mins(1), |w| is_published(w, author, 1)));
    assert_eq!(takers_of(&world, author), [Takers::Gateways { count: 2, read_back_by_another: true }]);
    world.follow(storage, channel, None);
    assert!(
        world.run_until(Duration::from_mins(1), |w| sequence(w, storage, author) > 0),
        "it is on the DHT"
    );
}

#[test]
fn peers_that_know_one_node_find_each_other_through_it_and_do_without_it() {
    let mut world = World::new(SEED, WorldConfig::default());
    let hub = world.add_host(HostConfig { dht: false, ..plain() });
    // Nobody else is on the DHT, where it publishes.
    let author = world.add_host(HostConfig { listens: false, ..author() });
    let channel = world.channel(author).expect("it has one");
    let followers: Vec<HostId> =
        (0..4).map(|_| world.add_host(HostConfig { dht: false, ..plain() })).collect();
    for host in followers.iter().chain([&author]) {
        connect(&mut world, *host, hub);
    }
    for host in followers.iter().chain([&hub]) {
        world.follow(*host, channel, None);
    }
    publish(&mut world, author, b"one");
    world.run_for(Duration::from_mins(5));
    world.crash(hub);
    publish(&mut world, author, b"two");
    let all_have = |w: &World| {
        let newest = sequence(w, author, author);
        followers.iter().all(|host| sequence(w, *host, author) == newest && is_complete(w, *host, author))
    };
    let first = sequence(&world, author, author);
    assert!(world.run_until(Duration::from_mins(1), |w| sequence(w, author, author) > first && all_have(w)));
}

/// What makes a gateway a dead one.
type Kill = fn(&mut World, HostId);

/// How long an author without a DHT takes to publish through so many gateways of which one may be dead, twice.
fn time_to_publish_via(gateways: usize, dead: Option<(usize, Kill)>) -> [Duration; 2] {
    let mut world = World::new(SEED, WorldConfig::default());
    let gateways: Vec<HostId> =
        (0..gateways).map(|_| world.add_host(HostConfig { gateway: true, ..plain() })).collect();
    world.add_host(plain());
    if let Some((at, kill)) = dead {
        kill(&mut world, gateways[at]);
    }
    let author = world.add_host(HostConfig { dht: false, ..author() });
    let addrs: Vec<PeerAddr> = gateways.iter().map(|g| world.address(*g).into()).collect();
    let file = world.ingest(author, "file", b"content");
    [1, 2].map(|time| {
        let began = world.now();
        world.publish_via(author, "t", std::slice::from_ref(&file), false, addrs.clone());
        assert!(world.run_until(Duration::from_mins(5), |w| is_published(w, author, time)));
        let alive = u32::try_from(addrs.len()).expect("few") - u32::from(dead.is_some());
        let read_back_by_another = alive > 1;
        let takers = Takers::Gateways { count: alive, read_back_by_another };
        assert_eq!(takers_of(&world, author), vec![takers; time]);
        world.now().since(began)
    })
}

fn takers_of(world: &World, author: HostId) -> Vec<Takers> {
    let takers = |(_, answer): &(_, Result<Answer, Refusal>)| match answer {
        Ok(Answer::Published { takers, .. }) => Some(*takers),
        _ => None,
    };
    world.answers(author).filter_map(takers).collect()
}

/// It accepts connections, and says nothing.
fn silence(world: &mut World, gateway: HostId) {
    world.crash(gateway);
    world.raw_listen(world.address(gateway));
}

#[test]
fn a_dead_gateway_slows_no_publication_down() {
    let [usual, _] = time_to_publish_via(3, None);
    for (gateways, at) in [(3, 1), (2, 0), (2, 1)] {
        for kill in [World::crash as Kill, silence] {
            for took in time_to_publish_via(gateways, Some((at, kill))) {
                assert!(took < usual + GATEWAY_PATIENCE_MIN * 3 / 2, "{took:?}, usually {usual:?}");
            }
        }
    }
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
        w.answers(author).any(|(_, a)| matches!(a, Err(error) if error.to_string().contains("Not a Gateway")))
    };
    assert!(world.run_until(Duration::from_mins(2), refused));
}

#[test]
fn a_node_that_is_no_gateway_keeps_no_head_from_being_published_through_one() {
    for order in [[0, 1], [1, 0]] {
        let mut world = World::new(SEED, WorldConfig::default());
        let nodes = [true, false].map(|gateway| world.add_host(HostConfig { gateway, ..plain() }));
        let author = world.add_host(HostConfig { dht: false, ..author() });
        let addrs = order.map(|at| world.address(nodes[at]).into()).to_vec();
        let file = world.ingest(author, "file", b"content");
        world.publish_via(author, "t", &[file], false, addrs);
        assert!(world.run_until(Duration::from_secs(20), |w| is_published(w, author, 1)));
        let takers = Takers::Gateways { count: 1, read_back_by_another: false };
        assert_eq!(takers_of(&world, author), [takers]);
    }
}

#[test]
fn where_no_gateway_can_be_reached_publishing_fails_soon() {
    let mut world = World::new(SEED, WorldConfig::default());
    let gateways = [0; 2].map(|_| world.add_host(HostConfig { gateway: true, ..plain() }));
    for gateway in gateways {
        world.crash(gateway);
    }
    let author = world.add_host(HostConfig { dht: false, ..author() });
    let addrs = gateways.iter().map(|gateway| world.address(*gateway).into()).collect();
    let file = world.ingest(author, "file", b"content");
    world.publish_via(author, "t", &[file], false, addrs);
    let is_failed =
        |w: &World| w.answers(author).any(|(_, answer)| *answer == Err(PublishError::Gateways(None).into()));
    assert!(world.run_until(GATEWAY_PATIENCE_MIN + Duration::from_secs(1), is_failed));
    assert!(takers_of(&world, author).is_empty());
}

#[test]
fn an_onion_only_node_publishes_is_found_and_seeds_without_a_dht_or_an_ip_address() {
    let mut world = World::new(SEED, WorldConfig::default());
    let hub = world.add_host(HostConfig { gateway: true, ..plain() });
    let far = world.add_host(HostConfig { dht: false, ..plain() });
    let name = onion(1);
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

#[test]
fn a_gateway_keeps_what_it_relayed_on_the_dht_for_a_day() {
    let mut world = World::new(SEED, WorldConfig::default());
    let gateway = world.add_host(HostConfig { gateway: true, ..plain() });
    let author = world.add_host(HostConfig { dht: false, ..author() });
    let channel = world.channel(author).expect("it has one");
    let addrs = vec![world.address(gateway).into()];
    let file = world.ingest(author, "file", b"content");
    world.publish_via(author, "t", &[file], false, addrs);
    assert!(world.run_until(Duration::from_mins(1), |w| is_published(w, author, 1)));
    world.crash(author);
    let is_there = |world: &World| world.dht().newest(world.now(), &channel).is_some();
    for hour in 1..=24 {
        world.run_for(Duration::from_hours(1));
        assert!(is_there(&world), "after {hour} hours");
    }
    world.run_for(ITEM_LIFETIME);
    assert!(!is_there(&world), "nobody has asked for it again");
}

#[test]
fn followers_keep_a_head_on_the_dht_when_its_author_has_left() {
    let mut world = World::new(SEED, WorldConfig::default());
    let author = world.add_host(author());
    let channel = world.channel(author).expect("it has one");
    let followers: Vec<HostId> = (0..3).map(|_| world.add_host(plain())).collect();
    for host in &followers {
        world.follow(*host, channel, None);
    }
    publish(&mut world, author, b"one");
    let all = |w: &World| followers.iter().all(|host| is_complete(w, *host, author));
    assert!(world.run_until(Duration::from_mins(2), |w| all(w) && is_published(w, author, 1)));
    world.crash(author);
    let mut gone = Duration::ZERO;
    for _ in 0..12 * 360 {
        world.run_for(Duration::from_secs(10));
        let is_there = world.dht().newest(world.now(), &channel).is_some();
        gone = if is_there { Duration::ZERO } else { gone + Duration::from_secs(10) };
        assert!(gone < Duration::from_mins(2), "a look-up each minute finds that it is gone");
    }
}

/// Sybils that take connections, keep them and have nothing.
struct Sybils {
    addresses: Vec<SocketAddr>,
    /// Their connections with nodes that dialled them.
    open: BTreeMap<LinkId, Client>,
    most_open: usize,
}

impl Sybils {
    fn new(world: &mut World, author: HostId, addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let channel = world.channel(author).expect("the author has one");
        let topic = uri::topic(&channel, None).info_hash();
        let addresses: Vec<SocketAddr> = addresses.collect();
        let now = world.now();
        for address in &addresses {
            world.raw_listen(*address);
            world.dht_mut().inject_peer(now, topic, *address);
        }
        world.take_stranger_events();
        Self { addresses, open: BTreeMap::new(), most_open: 0 }
    }

    /// Lets time pass until `is_reached`.
    fn run(&mut self, world: &mut World, limit: Duration, is_reached: impl Fn(&World) -> bool) -> bool {
        let end = world.now() + limit;
        while world.now() < end && !is_reached(world) {
            world.run_for(Duration::from_millis(50));
            for event in world.take_stranger_events() {
                self.on_event(world, event);
            }
        }
        is_reached(world)
    }

    fn on_event(&mut self, world: &mut World, event: StrangerEvent) {
        match event {
            StrangerEvent::Accepted(link, at) => {
                assert!(self.addresses.contains(&at));
                let mut client = Client::new(Role::Listener, &mut Rng::new([7; 32]));
                world.raw_send(link, &client.take_output());
                self.open.insert(link, client);
                self.most_open = self.most_open.max(self.open.len());
            }
            StrangerEvent::Readable(link) => {
                let bytes = world.raw_read(link);
                let Some(client) = self.open.get_mut(&link) else { return };
                client.feed(&bytes);
                answer(client);
                world.raw_send(link, &client.take_output());
            }
            StrangerEvent::Closed(link) => {
                self.open.remove(&link);
                world.raw_close(link);
            }
            StrangerEvent::Opened(_) => {}
        }
    }
}

/// Says "Not Found" to each request, and keeps the connection alive.
fn answer(client: &mut Client) {
    while let Some(heard) = client.hear().expect("a node's frames open") {
        client.send(&match heard {
            Heard::Message(Message::Request(_)) => Message::Error("Not Found".into()),
            Heard::Message(Message::FindPeers(_)) => Message::Peers(Vec::new()),
            Heard::Message(Message::Empty) => Message::FindPeers(BlobId([0; 32])),
            _ => continue,
        });
    }
}

/// An author whose content is on the DHT's word at its own address and at many Sybils', and a follower.
fn among_sybils(
    addresses: impl Iterator<Item = SocketAddr>,
    limit: Duration,
) -> (World, HostId, HostId, Sybils) {
    // All of them have answered within the seconds after which they are asked again.
    let mut world = World::new(SEED, WorldConfig { latency_ms: 1..=10, ..WorldConfig::default() });
    let author = world.add_host(author());
    publish(&mut world, author, b"one");
    assert!(world.run_until(Duration::from_mins(1), |w| is_published(w, author, 1)));
    let mut sybils = Sybils::new(&mut world, author, addresses);
    let follower = world.add_host(plain());
    let channel = world.channel(author).expect("the author has one");
    world.follow(follower, channel, None);
    assert!(sybils.run(&mut world, limit, |w| is_complete(w, follower, author)));
    (world, author, follower, sybils)
}

#[test]
fn sybils_of_one_network_leave_room_for_the_one_honest_peer() {
    let addresses = (1..=450).map(|n: u16| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(200, 7, high, low), 6881))
    });
    let (world, _, follower, sybils) = among_sybils(addresses, Duration::from_mins(10));
    assert!(sybils.most_open > 0, "they were tried");
    // A moment passes until a Sybil sees that its connection was closed.
    assert!(sybils.most_open <= 2 * OUTBOUND_MAX / OUTBOUND_SHARE, "{}", sybils.most_open);
    let known = world.node(follower).expect("it runs").status(world.now()).peers_known;
    assert!(known <= PEERS_PER_NETWORK_MAX + 2, "the author, and the follower itself: {known}");
}

#[test]
fn sybils_of_many_networks_hold_the_connections_for_a_while_only() {
    let addresses = (1..=200).map(|n: u8| SocketAddr::from((Ipv4Addr::new(200, n, 0, 1), 6881)));
    let (_, _, _, sybils) = among_sybils(addresses, Duration::from_mins(30));
    assert!(sybils.most_open > 0, "they were tried");
}
