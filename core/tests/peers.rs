//! Who a node dials, keeps and shuts out, without a network: a node that wants a channel nobody has, among peers that
//! take connections and serve nothing.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::Message;
use megatorrent_core::error::CloseReason;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, Secret};
use megatorrent_core::limits::{
    BAN_TIME, BANS_PER_HOST_MAX, OUTBOUND_MAX, OUTBOUND_SHARE, PEERS_KNOWN_MAX, PEERS_PER_NETWORK_MAX,
    PEERS_PER_TELLER_MAX, ROTATION_INTERVAL, USELESS_AFTER,
};
use megatorrent_core::node::{Action, Command, RecordKey};
use megatorrent_core::time::Instant;
use megatorrent_core::transport::Role;
use megatorrent_core::uri;
use support::content::{item_of, sealed};
use support::peer::Peer;
use support::{Bench, CONFIG, UNIX, at, identity};

/// An address in a network of its own.
fn far(n: usize) -> PeerAddr {
    at(&format!("{}.{}.7.7:1", 20 + n / 256, n % 256))
}

fn idle() -> Bench {
    Bench::answering(CONFIG, None)
}

/// A node that lacks a blob.
fn lacking() -> Bench {
    let mut bench = idle();
    let channel = identity().public_key();
    bench.world.heads.insert(channel, (item_of(&sealed(1).0, 5), 1));
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
    bench
}

/// Peers to which the node is connected, by address.
type Open = BTreeMap<PeerAddr, Peer>;

/// Answers the dials: all take the connection. `false`: there was none.
fn connect_all(bench: &mut Bench, open: &mut Open) -> bool {
    let mut is_any = false;
    while let Some((job, addr)) = bench.dials.pop() {
        let conn = bench.node.dialed(bench.now, job, true);
        bench.drain();
        if let Some(conn) = conn {
            open.insert(addr, Peer::shake(bench, conn, Role::Listener));
            is_any = true;
        }
    }
    open.retain(|_, peer| bench.closed_for(peer.conn).is_none());
    is_any
}

/// Answers the dials: nobody is there.
fn refuse_all(bench: &mut Bench) {
    while let Some((job, _)) = bench.dials.pop() {
        assert!(bench.node.dialed(bench.now, job, false).is_none());
        bench.drain();
    }
}

/// The peers say "Not Found" to each request, and keep their connections alive.
fn hold_all(bench: &mut Bench, open: &mut Open) {
    for peer in open.values_mut() {
        for message in peer.receive(bench) {
            match message {
                Message::Request(_) => peer.send(bench, &Message::Error("Not Found".into())),
                Message::FindPeers(_) => peer.send(bench, &Message::Peers(Vec::new())),
                _ => {}
            }
        }
        peer.send(bench, &Message::FindPeers(BlobId([7; 32])));
    }
    open.retain(|_, peer| bench.closed_for(peer.conn).is_none());
}

fn of_network(open: &Open, prefix: &str) -> usize {
    open.keys().filter(|addr| addr.to_string().starts_with(prefix)).count()
}

#[test]
fn sybils_of_one_network_hold_few_connections_and_few_places_in_the_book() {
    let mut bench = lacking();
    bench.dht_finds((0..5000_u16).map(|n| at(&format!("9.9.{}.{}:1", n / 250, n % 250 + 1))));
    assert_eq!(bench.status().peers_known, PEERS_PER_NETWORK_MAX);
    let mut open = Open::new();
    connect_all(&mut bench, &mut open);
    assert_eq!(open.len(), OUTBOUND_MAX / OUTBOUND_SHARE);
    bench.dht_finds((0..20).map(far));
    while connect_all(&mut bench, &mut open) {}
    assert_eq!((of_network(&open, "9.9."), of_network(&open, "20.")), (OUTBOUND_MAX / OUTBOUND_SHARE, 20));
}

#[test]
fn fakes_that_hold_all_connections_and_serve_nothing_give_way_to_addresses_not_tried() {
    let mut bench = lacking();
    // Thousands of Sybils, in as many networks; then the one honest peer is found.
    bench.dht_finds((0..900).map(far));
    let mut open = Open::new();
    while connect_all(&mut bench, &mut open) {}
    assert_eq!(open.len(), OUTBOUND_MAX);
    let honest = at("77.7.7.7:1");
    bench.dht_finds([honest.clone()]);
    let all = ROTATION_INTERVAL * 900 * 3;
    let mut waited = Instant(0);
    while !open.contains_key(&honest) {
        assert!(waited < Instant(0) + all, "it is never tried");
        waited = waited + ROTATION_INTERVAL;
        hold_all(&mut bench, &mut open);
        bench.sleep(ROTATION_INTERVAL);
        connect_all(&mut bench, &mut open);
        assert!(open.len() <= OUTBOUND_MAX);
    }
    assert!(waited > Instant(0) + USELESS_AFTER, "each has time to serve first");
}

#[test]
fn a_networks_share_is_not_held_for_ever_by_those_of_it_that_serve_nothing() {
    let mut bench = lacking();
    let honest = at("9.9.250.1:1");
    let sybils = (1..=50).map(|n| at(&format!("9.9.1.{n}:1")));
    bench.dht_finds(sybils.chain([honest.clone()]));
    let mut open = Open::new();
    for _ in 0..200 {
        connect_all(&mut bench, &mut open);
        if open.contains_key(&honest) {
            return;
        }
        hold_all(&mut bench, &mut open);
        bench.sleep(ROTATION_INTERVAL);
    }
    panic!("it is never tried");
}

#[test]
fn what_one_peer_tells_fills_its_share_of_the_book_and_no_private_address_is_believed_of_it() {
    let mut bench = lacking();
    let mut tell = |told: &dyn Fn(u8, u8) -> PeerAddr, from: usize| {
        // It connects again and again, as one answer is due for one question.
        for round in 0..40 {
            bench.command(Command::AddPeer(far(from)));
            let conn = loop {
                if let Some(conn) = bench.take_dial(&far(from)) {
                    break conn;
                }
                refuse_all(&mut bench);
                if bench.dials.is_empty() {
                    bench.sleep(Duration::from_secs(10));
                }
            };
            let mut peer = Peer::shake(&mut bench, conn, Role::Listener);
            peer.say_hello(&mut bench, 6);
            let asked = peer.receive(&mut bench);
            if asked.iter().any(|m| matches!(m, Message::Request(_))) {
                peer.send(&mut bench, &Message::Error("Not Found".into()));
            }
            let asked = [asked, peer.receive(&mut bench)].concat();
            assert!(asked.iter().any(|m| matches!(m, Message::FindPeers(_))), "{asked:?}");
            peer.send(&mut bench, &Message::Peers((0..64).map(|n| told(round, n)).collect()));
            bench.node.disconnected(bench.now, conn);
            bench.drain();
        }
        bench.status().peers_known
    };
    let known = tell(&|round, n| at(&format!("{}.{}.1.1:1", 100 + round, n)), 1);
    assert_eq!(known, 1 + PEERS_PER_TELLER_MAX);
    assert_eq!(
        tell(&|round, n| at(&format!("10.{round}.1.{n}:1")), 2),
        known + 1,
        "the teller itself is known"
    );
}

#[test]
fn a_flood_of_announces_fills_its_tellers_share_only() {
    let mut bench = lacking();
    let mut peer = Peer::dial(&mut bench, at("9.9.9.9:50000"));
    // A v5 peer that came to us is asked for nothing.
    peer.say_hello(&mut bench, 5);
    for minute in 0..20_u16 {
        for n in 0..200 {
            let port = 1 + minute * 200 + n;
            peer.send(&mut bench, &Message::Announce(BlobId([7; 32]), at(&format!("9.9.9.9:{port}")), 6));
            peer.send(&mut bench, &Message::Announce(BlobId([7; 32]), at(&format!("8.8.8.8:{port}")), 6));
        }
        peer.receive(&mut bench);
        assert_eq!(bench.closed, []);
        bench.sleep(Duration::from_mins(1));
    }
    assert_eq!(bench.status().peers_known, PEERS_PER_NETWORK_MAX, "and of itself only");
    bench.dht_finds((0..900).map(far));
    assert_eq!(bench.status().peers_known, PEERS_PER_NETWORK_MAX + 900);
    const { assert!(PEERS_PER_NETWORK_MAX + 900 < PEERS_KNOWN_MAX) }
}

// --- bans ---------------------------------------------------------------------------------------------------

fn until(ms: u64) -> [u8; 8] {
    (UNIX.0 + ms).to_be_bytes()
}

#[test]
fn the_record_of_a_ban_is_deleted_when_it_ends_or_at_the_next_start() {
    let mut bench = idle();
    let (over, lasting) = (RecordKey::Ban(far(1)), RecordKey::Ban(far(2)));
    assert!(bench.node.restore(&over, &until(0)) && bench.node.restore(&lasting, &until(5000)));
    assert!(!bench.node.restore(&lasting, b"?"), "what does not parse is left alone");
    bench.drain();
    assert_eq!(bench.world.deleted(), [over]);
    assert_eq!(bench.status().bans, 1);
    bench.sleep_until(Instant(0) + Duration::from_millis(4999));
    assert_eq!(bench.world.deleted().len(), 1);
    bench.sleep_until(Instant(0) + Duration::from_secs(5));
    assert_eq!((&bench.world.deleted()[1..], bench.status().bans), (&[lasting][..], 0));
}

#[test]
fn a_clock_that_was_wrong_bans_nobody_for_longer_than_a_new_ban() {
    let mut bench = idle();
    let ban = RecordKey::Ban(far(1));
    assert!(bench.node.restore(&ban, &u64::MAX.to_be_bytes()));
    bench.sleep_until(Instant(0) + BAN_TIME);
    assert_eq!(bench.world.deleted(), std::slice::from_ref(&ban));
    // The clock is set forward while one is in force.
    assert!(bench.node.restore(&ban, &until(9_000_000)));
    bench.node.set_clock(bench.now, UNIX.plus(3 * BAN_TIME));
    bench.drain();
    assert_eq!((bench.world.deleted().len(), bench.status().bans), (2, 0));
}

#[test]
fn a_host_that_lied_from_several_ports_is_turned_away_on_all_of_them() {
    let mut bench = idle();
    let accepts = |bench: &mut Bench, from: &str| {
        let conn = bench.node.accept(bench.now, at(from));
        conn.map(|conn| bench.node.disconnected(bench.now, conn)).is_some()
    };
    for (port, is_in) in (1..=BANS_PER_HOST_MAX).map(|port| (port, port < BANS_PER_HOST_MAX)) {
        assert!(bench.node.restore(&RecordKey::Ban(at(&format!("9.9.9.9:{port}"))), &until(60_000)));
        assert!(!accepts(&mut bench, &format!("9.9.9.9:{port}")));
        assert_eq!(accepts(&mut bench, "9.9.9.9:50000"), is_in, "after {port} of them");
    }
    assert!(accepts(&mut bench, "9.9.9.10:50000"));
    bench.sleep_until(Instant(0) + Duration::from_mins(1));
    assert!(accepts(&mut bench, "9.9.9.9:50000"));
}

#[test]
fn a_connection_with_ourselves_is_ended_before_it_is_news_whichever_end_hears_first() {
    for dialler_first in [true, false] {
        let mut bench = lacking();
        let own = at("20.0.0.9:6881");
        bench.dht_finds([own.clone()]);
        let (job, addr) = bench.dials.pop().expect("its own announce led back to it");
        assert_eq!(addr, own);
        let dialled = bench.node.dialed(bench.now, job, true).expect("there is room");
        let accepted = bench.node.accept(bench.now, at("20.0.0.9:50000")).expect("there is room");
        let [from_dialled, from_accepted] =
            [dialled, accepted].map(|end| bench.node.send_chunk(bench.now, end).to_vec());
        let (end, key) = if dialler_first { (dialled, from_accepted) } else { (accepted, from_dialled) };
        let space = bench.node.recv_space(end);
        space[..32].copy_from_slice(&key);
        bench.node.received(bench.now, end, 32);
        let mut closed = Vec::new();
        while let Some(action) = bench.node.poll() {
            match action {
                Action::Close(conn, CloseReason::Evicted) => closed.push(conn),
                Action::Event(event) => panic!("news of a connection that is none: {event:?}"),
                _ => {}
            }
        }
        closed.sort_by_key(|conn| *conn != dialled);
        assert_eq!(closed, [dialled, accepted]);
        bench.sleep_until(bench.now + Duration::from_mins(20));
        assert!(bench.dials.iter().all(|(_, addr)| *addr != own), "it is not dialled again");
    }
}

#[test]
fn who_was_reached_and_watches_a_channel_of_ours_is_known_after_a_restart() {
    let mut bench = Bench::answering(CONFIG, None);
    let channel = identity().public_key();
    bench.command(Command::Follow { channel, read_key: None });
    for (n, topic) in [(1, channel), (2, Identity::new(&Secret::new([9; 32]), None).public_key())] {
        bench.command(Command::AddPeer(far(n)));
        let mut peer = Peer::listen(&mut bench, &far(n));
        peer.say_hello(&mut bench, 6);
        let tag = uri::tag(&peer.tag_key, &uri::topic(&topic, None));
        peer.send(&mut bench, &Message::Watch(vec![tag]));
    }
    let is_peer = |record: &&(RecordKey, _)| matches!(record.0, RecordKey::Peer(_));
    let remembered: Vec<_> = bench.world.records.iter().filter(is_peer).collect();
    assert_eq!(remembered, [&(RecordKey::Peer(far(1)), Some(vec![]))]);
}
