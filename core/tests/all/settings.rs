//! Settings that change while a node runs: each acts on what stands, at once.

use std::time::Duration;

use crate::support::content::{Content, item};
use crate::support::member::Member;
use crate::support::peer::Peer;
use crate::support::{Bench, CONFIG, addr, at, author, identity};
use megatorrent_core::codec::Message;
use megatorrent_core::error::CloseReason;
use megatorrent_core::limits::ANNOUNCE_INTERVAL;
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::{Action, Command, Config, Input};
use megatorrent_core::parts::Mask;
use megatorrent_core::transport::Role;

fn configure(bench: &mut Bench, config: Config) {
    bench.command(Command::Configure(config.into()));
}

/// A peer that the node dials at an address that it was given.
fn dialled(bench: &mut Bench, port: u16, version: u64) -> Peer {
    bench.command(Command::AddPeer(addr(port)));
    let conn = bench.take_dial(&addr(port)).expect("it is dialled");
    let mut peer = Peer::shake(bench, conn, Role::Listener);
    peer.say_hello(bench, version);
    peer.receive(bench);
    peer
}

fn ports(messages: &[Message]) -> Vec<Option<u16>> {
    let port = |message: &Message| match message {
        Message::Hello { port, .. } => Some(*port),
        _ => None,
    };
    messages.iter().filter_map(port).collect()
}

#[test]
fn another_port_is_announced_and_told_to_the_peers_that_were_dialled() {
    let mut bench = Bench::answering(Config { listen_port: None, ..CONFIG }, None);
    let content = Content::new(&identity(), 1);
    content.follow(&mut bench);
    let (mut v6, mut v5) = (dialled(&mut bench, 1, 6), dialled(&mut bench, 2, 5));
    let mut inbound = Member::join(&mut bench, 3, &[]).peer;
    bench.sleep(Duration::from_secs(1));
    assert!(bench.world.announces.is_empty(), "nobody can reach it");
    for peer in [&mut v6, &mut v5, &mut inbound] {
        peer.receive(&mut bench);
    }
    configure(&mut bench, Config { listen_port: Some(7000), ..CONFIG });
    bench.sleep(Duration::from_secs(1));
    assert_eq!(bench.world.announces.len(), 1, "it is due at once");
    let told = [&mut v6, &mut v5, &mut inbound].map(|peer| ports(&peer.receive(&mut bench)));
    assert_eq!(told, [vec![Some(7000)], vec![Some(7000)], vec![]]);
    configure(&mut bench, Config { listen_port: Some(7001), ..CONFIG });
    bench.sleep(Duration::from_secs(1));
    assert_eq!((bench.world.announces.len(), ports(&v6.receive(&mut bench))), (2, vec![Some(7001)]));
    configure(&mut bench, Config { listen_port: None, ..CONFIG });
    bench.sleep(2 * ANNOUNCE_INTERVAL);
    assert_eq!(bench.world.announces.len(), 2);
}

#[test]
fn a_peer_that_says_it_listens_elsewhere_is_known_there() {
    let mut bench = Bench::answering(CONFIG, None);
    let mut peer = Peer::dial(&mut bench, at("9.9.9.9:50000"));
    for port in [1000, 1001] {
        let sequences = std::collections::BTreeMap::new();
        peer.send(&mut bench, &Message::Hello { version: Some(6), sequences, port: Some(port), features: 0 });
        let peers = bench.node.peers(bench.now);
        assert_eq!(peers[0].address, at(&format!("9.9.9.9:{port}")));
    }
    // Both are dialled again once it has gone.
    bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
    bench.node.disconnected(bench.now, peer.conn);
    bench.sleep(Duration::from_mins(1));
    for port in [1000, 1001] {
        assert!(bench.dials.iter().any(|(_, to)| *to == at(&format!("9.9.9.9:{port}"))), "{:?}", bench.dials);
    }
}

#[test]
fn another_name_is_announced_to_standing_connections_at_once() {
    const NAME: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:6881";
    let mut bench = Bench::answering(CONFIG, None);
    let content = Content::new(&identity(), 1);
    content.follow(&mut bench);
    let mut peer = Member::join(&mut bench, 1, &[content.channel]).peer;
    peer.receive(&mut bench);
    let mut announced = |bench: &mut Bench| {
        peer.receive(bench)
            .iter()
            .filter(|m| matches!(m, Message::Announce(_, name, _) if *name == at(NAME)))
            .count()
    };
    configure(&mut bench, Config { own_address: Some(at(NAME)), ..CONFIG });
    assert_eq!(announced(&mut bench), 1);
    configure(&mut bench, Config { own_address: Some(at(NAME)), ..CONFIG });
    assert_eq!(announced(&mut bench), 0, "it is the same");
    configure(&mut bench, CONFIG);
    bench.sleep(2 * ANNOUNCE_INTERVAL);
    assert_eq!(announced(&mut bench), 0);
}

#[test]
fn private_addresses_that_a_dht_found_are_given_up_where_it_is_public() {
    let mut bench = Bench::answering(CONFIG, None);
    bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
    bench.sleep(Duration::from_secs(1));
    bench.dht_finds([addr(1), addr(2), at("9.9.9.9:3")]);
    bench.sleep(Duration::from_secs(1));
    let found = Peer::listen(&mut bench, &addr(1));
    let named = dialled(&mut bench, 4, 6);
    configure(&mut bench, Config { private_dht: false, ..CONFIG });
    assert_eq!(bench.closed_for(found.conn), Some(CloseReason::Disallowed));
    assert_eq!(bench.closed_for(named.conn), None, "the user named it");
    // The dial under way is judged by its answer.
    let under_way = bench.dials.iter().position(|(_, to)| *to == addr(2)).expect("it is dialled");
    let (job, _) = bench.dials.remove(under_way);
    assert_eq!(bench.node.dialed(bench.now, job, true), None);
    assert!(bench.take_dial(&at("9.9.9.9:3")).is_some());
    let known = bench.status().peers_known;
    bench.dht_finds([addr(5)]);
    assert_eq!(bench.status().peers_known, known);
    configure(&mut bench, CONFIG);
    bench.dht_finds([addr(5)]);
    assert_eq!(bench.status().peers_known, known + 1);
}

#[test]
fn a_gateway_begins_and_ends_to_be_one_for_the_peers_that_it_has() {
    let mut bench = Bench::answering(CONFIG, None);
    let mut peer = Member::join(&mut bench, 1, &[]).peer;
    let mut put = |bench: &mut Bench, n: u8| {
        peer.send(bench, &Message::Publish(item(&author(n), 5, &HeadContent::Inline(Vec::new()))));
        bench.sleep(Duration::from_secs(1));
        peer.receive(bench).pop()
    };
    assert_eq!(put(&mut bench, 1), Some(Message::Error("Not a Gateway".into())));
    configure(&mut bench, Config { gateway: true, ..CONFIG });
    assert!(matches!(put(&mut bench, 1), Some(Message::Ok(_))));
    bench.sleep(Duration::from_mins(90));
    assert_eq!(bench.world.puts.len(), 2, "it is kept alive");
    configure(&mut bench, CONFIG);
    assert_eq!(bench.world.puts.len(), 2);
    bench.sleep(Duration::from_hours(3));
    assert_eq!(bench.world.puts.len(), 2, "it is not any more");
}

#[test]
fn what_is_wanted_already_is_taken_whole_from_then_on_or_no_more() {
    // A blob whose content is one part, so that the other parts are filling.
    let asked = |first: bool, then: Option<bool>| {
        let content = Content::new(&identity(), 2);
        let mut bench = Bench::answering(Config { takes_all: first, ..CONFIG }, None);
        content.follow(&mut bench);
        if let Some(takes_all) = then {
            configure(&mut bench, Config { takes_all, ..CONFIG });
        }
        let mut seed = Member::seed(&mut bench, 1, &content);
        seed.bring_all(&mut bench, &content);
        assert_eq!(content.stored(&bench), 2);
        seed.parts_asked()
    };
    let (some, all) = (asked(false, None), asked(true, None));
    assert!(some <= all);
    assert_eq!((asked(false, Some(true)), asked(true, Some(false))), (all, some));
}

/// Bytes that a peer takes at once, or in a second of what the node may send.
fn taken(bench: &mut Bench, peer: &mut Member) -> usize {
    std::iter::from_fn(|| Some(peer.take(bench, usize::MAX)).filter(|n| *n > 0)).sum()
}

#[test]
fn limits_act_on_connections_that_stand_and_wait() {
    let content = Content::new(&identity(), 3);
    let mut bench = Bench::answering(CONFIG, None);
    bench.world.store.blobs.extend(content.data.iter().cloned());
    content.follow(&mut bench);
    let mut leecher = Member::join(&mut bench, 1, &[content.channel]);
    configure(&mut bench, Config { upload_bytes_per_sec: Some(20_000), ..CONFIG });
    for blob in 0..3 {
        leecher.want(&mut bench, content.root(blob), Mask(0xFFFF));
    }
    let slow = taken(&mut bench, &mut leecher);
    assert!(slow < 20_000, "{slow}");
    // It waits for a share; without a limit it goes on at once.
    configure(&mut bench, CONFIG);
    let quick = taken(&mut bench, &mut leecher);
    assert!(quick > 200_000, "{quick}");
    configure(&mut bench, Config { upload_bytes_per_sec: Some(20_000), ..CONFIG });
    let slow = taken(&mut bench, &mut leecher);
    assert!(slow < 20_000, "{slow}");
}

#[test]
fn a_limit_on_receiving_acts_on_a_connection_that_stands_and_wakes_one_that_waits() {
    let mut bench = Bench::answering(CONFIG, None);
    let peer = Member::join(&mut bench, 1, &[]).peer;
    let limit = Config { download_bytes_per_sec: Some(1), ..CONFIG };
    assert!(!bench.node.recv_space(peer.conn).is_empty());
    bench.node.handle(
        bench.now,
        Input::Command(megatorrent_core::ids::CommandId(99), Command::Configure(limit.into())),
    );
    while bench.node.poll().is_some() {}
    // All that was saved up is used, after which the connection waits.
    let mut received = 0;
    while received < 10_000 && !bench.node.recv_space(peer.conn).is_empty() {
        bench.node.received(bench.now, peer.conn, 1);
        received += 1;
    }
    assert!(received < 10_000);
    while bench.node.poll().is_some() {}
    bench.node.handle(
        bench.now,
        Input::Command(megatorrent_core::ids::CommandId(100), Command::Configure(CONFIG.into())),
    );
    let woken = std::iter::from_fn(|| bench.node.poll());
    assert!(woken.into_iter().any(|action| matches!(action, Action::Readable(conn) if conn == peer.conn)));
}
