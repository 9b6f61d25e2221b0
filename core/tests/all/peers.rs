//! The peers that a node dials, keeps and bans, without a network: a node that wants a channel no peer has, among peers
//! that take connections and serve nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::content::{Content, item_of, sealed};
use crate::support::member::{Member, pass};
use crate::support::peer::{Peer, deliver};
use crate::support::{Bench, CONFIG, UNIX, at, identity};
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::Message;
use megatorrent_core::error::CloseReason;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, Secret};
use megatorrent_core::limits::{
    BAN_TIME, BANS_PER_HOST_MAX, DIALS_MAX, DIALS_RESERVED, FETCH_CONNECTIONS_FEW, FIND_PEERS_INTERVAL_MAX,
    FIND_PEERS_INTERVAL_MIN, FIND_PEERS_PAUSE, FIND_PEERS_PAUSE_DIALLING, KEEP_ALIVE, OUTBOUND_MAX,
    OUTBOUND_RESERVED, OUTBOUND_SHARE, PEERS_KNOWN_MAX, PEERS_PER_NETWORK_MAX, PEERS_PER_REFERRER_MAX,
    ROTATION_INTERVAL, USELESS_AFTER,
};
use megatorrent_core::node::{Command, Config, Event, RecordKey};
use megatorrent_core::time::Instant;
use megatorrent_core::transport::Role;
use megatorrent_core::uri;

/// An address in its own network.
fn far(n: usize) -> PeerAddr {
    at(&format!("{}.{}.7.7:1", 20 + n / 256, n % 256))
}

fn idle() -> Bench {
    Bench::answering(CONFIG, None)
}

/// A node with a missing blob.
fn missing_a_blob() -> Bench {
    let mut bench = idle();
    let channel = identity().public_key();
    bench.world.heads.insert(channel, (item_of(&sealed(1).0, 5), 1));
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
    bench
}

/// The peers that the node is connected to, by address.
type Open = BTreeMap<PeerAddr, Peer>;

/// Answers the dials, all of which succeed. `false`: there was none.
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

/// Answers the dials, all of which fail.
fn refuse_all(bench: &mut Bench) {
    while let Some((job, _)) = bench.dials.pop() {
        assert!(bench.node.dialed(bench.now, job, false).is_none());
        bench.drain();
    }
}

/// Lets the peers answer each request with "Not Found", and keep their connections alive.
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
fn sybils_of_one_netgroup_hold_few_connections_and_few_places_in_the_book() {
    let mut bench = missing_a_blob();
    bench.dht_finds((0..5000_u16).map(|n| at(&format!("9.9.{}.{}:1", n / 250, n % 250 + 1))));
    assert_eq!(bench.status().peers_known, PEERS_PER_NETWORK_MAX);
    let mut open = Open::new();
    connect_all(&mut bench, &mut open);
    let share = (OUTBOUND_MAX - OUTBOUND_RESERVED) / OUTBOUND_SHARE;
    assert_eq!(open.len(), share);
    bench.dht_finds((0..20).map(far));
    while connect_all(&mut bench, &mut open) {}
    assert_eq!((of_network(&open, "9.9."), of_network(&open, "20.")), (share, 20));
}

#[test]
fn no_private_address_from_the_public_dht_is_dialled() {
    let private = ["127.0.0.1:80", "10.0.0.1:80", "100.64.0.1:80", "[fd00::1]:80", "[::ffff:192.168.0.1]:80"];
    for (private_dht, known) in [(false, 1), (true, 1 + private.len())] {
        let mut bench = Bench::answering(Config { private_dht, ..CONFIG }, None);
        bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
        bench.sleep(Duration::from_secs(2));
        bench.dht_finds(private.map(at).into_iter().chain([at("9.9.9.9:80")]));
        assert_eq!((bench.status().peers_known, bench.dials.len()), (known, known));
    }
}

#[test]
fn useless_peers_that_hold_all_connections_give_way_to_untried_addresses() {
    let mut bench = missing_a_blob();
    // Thousands of Sybils, in as many networks, which also get the places that are left for swarms without peers; then the
    // one honest peer is found.
    bench.dht_finds((0..900).map(far));
    let mut open = Open::new();
    while connect_all(&mut bench, &mut open) {}
    assert_eq!(open.len(), OUTBOUND_MAX - OUTBOUND_RESERVED);
    for n in 0..OUTBOUND_RESERVED {
        bench.dht_finds([far(900 + n)]);
        connect_all(&mut bench, &mut open);
    }
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
fn useless_peers_do_not_hold_their_netgroups_share_for_ever() {
    let mut bench = missing_a_blob();
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
fn one_referrer_fills_only_its_share_of_the_book_and_with_no_private_address() {
    let mut bench = missing_a_blob();
    let mut tell = |told: &dyn Fn(u8, u8) -> PeerAddr, from: usize| {
        // It connects again and again, as each question allows one answer.
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
    assert_eq!(known, 1 + PEERS_PER_REFERRER_MAX);
    assert_eq!(
        tell(&|round, n| at(&format!("10.{round}.1.{n}:1")), 2),
        known + 1,
        "the referrer itself is known"
    );
}

#[test]
fn a_flood_of_announces_fills_only_its_referrers_share() {
    let mut bench = missing_a_blob();
    let mut peer = Peer::dial(&mut bench, at("9.9.9.9:50000"));
    // An inbound v5 peer is asked for nothing.
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
    assert_eq!(bench.status().peers_known, PEERS_PER_NETWORK_MAX, "and only about itself");
    bench.dht_finds((0..900).map(far));
    assert_eq!(bench.status().peers_known, PEERS_PER_NETWORK_MAX + 900);
    const { assert!(PEERS_PER_NETWORK_MAX + 900 < PEERS_KNOWN_MAX) }
}

// --- peers of peers -----------------------------------------------------------------------------------------

/// Connections that a node without missing blobs opens.
const KEPT: usize = 8;

/// A node that has all of a channel.
fn complete() -> (Bench, Content) {
    let mut bench = Bench::answering(CONFIG, Some(identity()));
    let content = Content::new(&identity(), 1);
    content.seed(&mut bench);
    (bench, content)
}

/// Returns the node's questions, without the messages that begin a connection.
fn questions(messages: Vec<Message>) -> Vec<BlobId> {
    let question = |message| if let Message::FindPeers(id) = message { Some(id) } else { None };
    messages.into_iter().filter_map(question).collect()
}

/// Lets time pass, in which the peers keep their connections alive and know no other; returns when each was asked.
fn asked(bench: &mut Bench, open: &mut Open, time: Duration) -> Vec<(Instant, PeerAddr)> {
    let (step, end) = (Duration::from_millis(250), bench.now + time);
    let (mut asked, mut alive_at) = (Vec::new(), bench.now);
    while bench.now < end {
        let is_due = bench.now >= alive_at;
        for (addr, peer) in &mut *open {
            if is_due {
                peer.send_keep_alive(bench);
            }
            for _ in questions(peer.receive(bench)) {
                asked.push((bench.now, addr.clone()));
                peer.send(bench, &Message::Peers(Vec::new()));
            }
        }
        if is_due {
            alive_at = bench.now + KEEP_ALIVE;
        }
        bench.sleep(step);
    }
    asked
}

#[test]
fn an_author_that_knows_one_peer_asks_it_for_others_and_dials_them() {
    for version in [5, 6] {
        let (mut bench, content) = complete();
        bench.command(Command::AddPeer(far(1)));
        let mut peer = Peer::listen(&mut bench, &far(1));
        peer.say_hello(&mut bench, version);
        let asked = questions(peer.receive(&mut bench));
        assert_eq!(asked.len(), 1);
        assert!(
            content.data.iter().all(|(name, _)| *name.as_bytes() != asked[0].0),
            "it does not reveal the node's blobs"
        );
        assert!(bench.dials.is_empty());
        peer.send(&mut bench, &Message::Peers(vec![far(2), far(3)]));
        assert_eq!(bench.dials.len(), 2);
        let mut open = Open::new();
        connect_all(&mut bench, &mut open);
        assert_eq!(open.into_keys().collect::<Vec<_>>(), [far(2), far(3)]);
    }
}

#[test]
fn a_peer_is_asked_for_others_ever_more_rarely() {
    let (mut bench, _) = complete();
    bench.command(Command::AddPeer(far(1)));
    let mut peer = Peer::listen(&mut bench, &far(1));
    peer.say_hello(&mut bench, 6);
    let mut open = Open::from([(far(1), peer)]);
    let asked = asked(&mut bench, &mut open, Duration::from_hours(1));
    let seconds: Vec<u64> = asked.iter().map(|(at, _)| at.since(asked[0].0).as_secs()).collect();
    assert_eq!(seconds, [0, 0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1923, 2823]);
    assert_eq!(FIND_PEERS_INTERVAL_MAX, FIND_PEERS_INTERVAL_MIN * 15);
}

#[test]
fn a_node_whose_missing_blob_no_peer_has_goes_on_asking() {
    let mut bench = missing_a_blob();
    bench.command(Command::AddPeer(far(1)));
    let mut peer = Peer::listen(&mut bench, &far(1));
    peer.say_hello(&mut bench, 6);
    let mut open = Open::from([(far(1), peer)]);
    let asked = asked(&mut bench, &mut open, Duration::from_mins(20));
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1].0.since(two[0].0)).collect();
    // From half a second on they double up to a minute.
    let (first, rest) = pauses.split_at(7);
    assert!((18..=20).contains(&rest.len()), "{pauses:?}");
    let slack = Duration::from_millis(250);
    assert!(first.windows(2).all(|two| two[1] + slack >= two[0] * 2), "{pauses:?}");
    assert!(rest.iter().all(|pause| *pause + slack >= FIND_PEERS_INTERVAL_MIN), "{pauses:?}");
}

#[test]
fn a_v5_peer_is_asked_for_others_once_it_does_not_have_the_blob_and_only_such_a_peer_learns_which_that_is() {
    let blob = sealed(1).0.id;
    let asked = |version| {
        let mut bench = missing_a_blob();
        bench.command(Command::AddPeer(far(1)));
        let mut peer = Peer::listen(&mut bench, &far(1));
        peer.say_hello(&mut bench, version);
        let messages = peer.receive(&mut bench);
        if version == 5 {
            assert!(messages.contains(&Message::Request(blob)));
            assert_eq!(questions(messages), [], "it may answer one request and close");
            peer.send(&mut bench, &Message::Error("Not Found".into()));
            return questions(peer.receive(&mut bench));
        }
        questions(messages)
    };
    assert_eq!(asked(5), [blob]);
    assert!(matches!(asked(6)[..], [id] if id != blob));
}

#[test]
fn a_node_with_enough_connections_asks_no_peer_and_with_too_few_one_after_the_other() {
    let (mut bench, _) = complete();
    let mut open = Open::new();
    for n in 0..KEPT {
        bench.command(Command::AddPeer(far(n)));
    }
    while connect_all(&mut bench, &mut open) {}
    assert_eq!(open.len(), KEPT);
    for n in 100..200 {
        let peer = Peer::dial(&mut bench, far(n));
        open.insert(far(n), peer);
    }
    for peer in open.values_mut() {
        peer.say_hello(&mut bench, 6);
    }
    assert_eq!(asked(&mut bench, &mut open, Duration::from_hours(1)), []);
    let gone = open.remove(&far(0)).expect("it is there");
    bench.node.disconnected(bench.now, gone.conn);
    bench.drain();
    // It dials the peer that it has lost, and has no other address to dial in between.
    let time = Duration::from_mins(1);
    let asked = asked(&mut bench, &mut open, time);
    let count = |pause: Duration| usize::try_from(time.as_millis() / pause.as_millis()).expect("small");
    let (least, most) = (count(FIND_PEERS_PAUSE_DIALLING), count(FIND_PEERS_PAUSE) / 2);
    assert!((least..most).contains(&asked.len()), "{} of {least} to {most}", asked.len());
    let whom: BTreeSet<&PeerAddr> = asked.iter().map(|(_, addr)| addr).collect();
    assert_eq!(whom.len(), asked.len(), "each once");
}

#[test]
fn a_node_with_few_connections_asks_those_too_that_bring_what_it_lacks() {
    let content = Content::new(&identity(), 40);
    let mut bench = idle();
    content.follow(&mut bench);
    let seed = |bench: &mut Bench, port| Member::seed(bench, port, &content).at(100_000);
    let mut first = seed(&mut bench, 1);
    pass(&mut bench, &content, Duration::from_secs(4), &mut [&mut first]);
    assert!(first.parts_open() > 0 && content.stored(&bench) < 40);
    assert_eq!(
        first.asked_for_peers, 4,
        "at once, and after half a second, a second and a half, and three and a half"
    );
    let most = u16::try_from(FETCH_CONNECTIONS_FEW).expect("few");
    let mut others: Vec<Member> = (2..=most).map(|port| seed(&mut bench, port)).collect();
    let mut members: Vec<&mut Member> = others.iter_mut().chain([&mut first]).collect();
    pass(&mut bench, &content, Duration::from_secs(20), &mut members);
    assert!(content.stored(&bench) < 40, "it still fetches");
    assert_eq!(members.last().map(|first| first.asked_for_peers), Some(4), "they are enough");
}

/// An inbound peer that says that it listens on port 1.
fn come(bench: &mut Bench, n: usize) -> Peer {
    let PeerAddr::Ip(listens) = far(n) else { unreachable!("an IP address") };
    let mut peer = Peer::dial(bench, at(&format!("{}:50000", listens.ip())));
    peer.send(
        bench,
        &Message::Hello { version: Some(6), sequences: BTreeMap::new(), port: Some(1), features: 0 },
    );
    peer
}

/// Returns the addresses that the node gives out to a peer.
fn told(bench: &mut Bench, peer: &mut Peer) -> Vec<PeerAddr> {
    peer.send(bench, &Message::FindPeers(BlobId([7; 32])));
    let answers = peer.receive(bench);
    let answer =
        answers.into_iter().find_map(|m| if let Message::Peers(peers) = m { Some(peers) } else { None });
    answer.expect("an answer is due")
}

#[test]
fn an_inbound_peer_is_given_out_once_it_answered_a_feeler_and_keeps_its_connection() {
    let (mut bench, _) = complete();
    let [mut open, closed, mut asker] = [1, 2, 3].map(|n| come(&mut bench, n));
    assert_eq!(told(&mut bench, &mut asker), []);
    bench.sleep(3 * FIND_PEERS_PAUSE);
    let dialled: BTreeSet<PeerAddr> = bench.dials.iter().map(|(_, addr)| addr.clone()).collect();
    assert_eq!((dialled, bench.dials.len()), ([1, 2, 3].map(far).into(), 3), "each once");
    assert_eq!(told(&mut bench, &mut asker), []);
    let conn = bench.take_dial(&far(1)).expect("it is dialled");
    assert_eq!(told(&mut bench, &mut asker), [], "a socket that opens is no answer");
    let mut back = Peer::shake(&mut bench, conn, Role::Listener);
    assert_eq!(bench.closed_for(conn), Some(CloseReason::Duplicate));
    assert_eq!(back.receive(&mut bench), [], "nothing is said over it");
    refuse_all(&mut bench);
    assert_eq!(told(&mut bench, &mut asker), [far(1)]);
    assert_eq!((bench.closed_for(open.conn), bench.closed_for(closed.conn)), (None, None));
    assert_eq!(told(&mut bench, &mut open), [], "a peer is not told of itself");
    bench.sleep(Duration::from_mins(1));
    assert_eq!(bench.dials, [], "a connected peer that did not answer is not dialled again");
}

#[test]
fn newcomers_are_felt_many_at_once_and_no_more_than_dials_are_left() {
    let (mut bench, _) = complete();
    let most = DIALS_MAX - DIALS_RESERVED;
    let _peers: Vec<Peer> = (0..2 * most).map(|n| come(&mut bench, n)).collect();
    bench.sleep(FIND_PEERS_PAUSE);
    assert_eq!(bench.dials.len(), most);
    refuse_all(&mut bench);
    bench.sleep(FIND_PEERS_PAUSE);
    assert_eq!(bench.dials.len(), most, "the others");
    refuse_all(&mut bench);
    bench.sleep(Duration::from_secs(10));
    assert_eq!(bench.dials, [], "each once");
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
    assert!(!bench.node.restore(&lasting, b"?"), "a record that does not parse is left alone");
    bench.drain();
    assert_eq!(bench.world.deleted(), [over]);
    assert_eq!(bench.status().bans, 1);
    bench.sleep_until(Instant(0) + Duration::from_millis(4999));
    assert_eq!(bench.world.deleted().len(), 1);
    bench.sleep_until(Instant(0) + Duration::from_secs(5));
    assert_eq!((&bench.world.deleted()[1..], bench.status().bans), (&[lasting][..], 0));
}

#[test]
fn a_wrong_clock_makes_no_ban_longer_than_a_new_one() {
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
fn a_host_that_lied_from_several_ports_is_refused_on_all_ports() {
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
fn a_connection_to_ourselves_ends_once_both_ends_are_keyed_in_either_order() {
    for dialler_first in [true, false] {
        let mut bench = missing_a_blob();
        let own = at("20.0.0.9:6881");
        bench.dht_finds([own.clone()]);
        let (job, addr) = bench.dials.pop().expect("its own announce led back to it");
        assert_eq!(addr, own);
        let dialled = bench.node.dialed(bench.now, job, true).expect("there is room");
        let accepted = bench.node.accept(bench.now, at("20.0.0.9:50000")).expect("there is room");
        let [from_dialled, from_accepted] =
            [dialled, accepted].map(|end| bench.node.send_chunk(bench.now, end).to_vec());
        let mut ends = [(dialled, from_accepted), (accepted, from_dialled)];
        if !dialler_first {
            ends.reverse();
        }
        for (end, key) in &ends {
            assert_eq!(bench.closed, [], "one end alone does not know");
            deliver(&mut bench, *end, key);
        }
        let reason = CloseReason::Evicted;
        bench.closed.sort_by_key(|(conn, _)| *conn != dialled);
        assert_eq!(bench.closed, [(dialled, reason), (accepted, reason)]);
        let first = ends[0].0;
        let [connected, disconnected] = &bench.events[bench.events.len() - 2..] else { panic!("two events") };
        assert!(matches!(connected, Event::Connected { conn, .. } if *conn == first));
        assert!(matches!(disconnected, Event::Disconnected { conn, .. } if *conn == first));
        assert!(
            !bench
                .events
                .iter()
                .any(|event| matches!(event, Event::Connected { conn, .. } if *conn == ends[1].0))
        );
        bench.sleep_until(bench.now + Duration::from_mins(20));
        assert!(bench.dials.iter().all(|(_, addr)| *addr != own), "it is not dialled again");
    }
}

#[test]
fn two_nodes_that_dialled_each_other_keep_the_lower_session_id() {
    let mut bench = missing_a_blob();
    let mut outcomes = BTreeSet::new();
    for n in 1..=8 {
        bench.dht_finds([far(n)]);
        let dialled = Peer::listen(&mut bench, &far(n));
        let PeerAddr::Ip(listens_at) = far(n) else { panic!("an IP address") };
        let mut accepted = Peer::dial(&mut bench, SocketAddr::new(listens_at.ip(), 50_000).into());
        let (version, port) = (Some(6), Some(listens_at.port()));
        accepted.send(&mut bench, &Message::Hello { version, sequences: BTreeMap::new(), port, features: 0 });
        let keeps_dialled = dialled.session_id() < accepted.session_id();
        let reasons = [&dialled, &accepted].map(|end| bench.closed_for(end.conn));
        let closed = Some(CloseReason::Duplicate);
        assert_eq!(reasons, if keeps_dialled { [None, closed] } else { [closed, None] });
        outcomes.insert(keeps_dialled);
    }
    assert_eq!(outcomes.len(), 2, "either may be the lower");
}

#[test]
fn a_peer_that_was_reached_and_watches_our_channel_is_known_after_a_restart() {
    let mut bench = Bench::answering(CONFIG, None);
    let channel = identity().public_key();
    bench.command(Command::Follow { channel, read_key: None });
    for (n, topic) in [(1, channel), (2, Identity::new(&Secret::new([9; 32]), None).public_key())] {
        bench.command(Command::AddPeer(far(n)));
        let mut peer = Peer::listen(&mut bench, &far(n));
        peer.say_hello(&mut bench, 6);
        let tag = peer.tag(&uri::topic(&topic, None));
        peer.send(&mut bench, &Message::Watch(vec![tag]));
    }
    let is_peer = |record: &&(RecordKey, _)| matches!(record.0, RecordKey::Peer(_));
    let remembered: Vec<_> = bench.world.records.iter().filter(is_peer).collect();
    assert_eq!(remembered, [&(RecordKey::Peer(far(1)), Some(vec![]))]);
}
