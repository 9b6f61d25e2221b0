//! The address book under floods, lies and luck.

use super::*;
use crate::addr::OnionAddr;
use crate::limits::{EXCHANGED_PER_NETWORK_MAX, PEERS_MAX};
use alloc::format;
use alloc::string::ToString;

const NOW: Instant = Instant(0);
const UNIX: UnixTime = UnixTime(0);
const SHARE: usize = 8;

fn at(text: &str) -> PeerAddr {
    text.parse().expect("valid")
}

/// An address on a local network.
fn addr(n: usize) -> PeerAddr {
    at(&format!("10.0.{}.{}:1", n / 256, n % 256))
}

/// An address in a network of its own.
fn far(n: usize) -> PeerAddr {
    at(&format!("{}.{}.7.7:1", 20 + n / 256, n % 256))
}

/// An address in 9.9.0.0/16.
fn near(n: usize) -> PeerAddr {
    at(&format!("9.9.{}.{}:1", n / 256, n % 256))
}

fn onion(n: usize) -> PeerAddr {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(n as u64).to_be_bytes());
    PeerAddr::Onion(OnionAddr::from_public_key(key), 6881)
}

fn count(peers: &Book, fits: impl Fn(&PeerAddr) -> bool) -> usize {
    peers.peers.keys().filter(|addr| fits(addr)).count()
}

/// Dials all that may be dialled, and gives it.
fn dial_all(peers: &mut Book, rng: &mut Rng) -> Vec<PeerAddr> {
    core::iter::from_fn(|| {
        let next = peers.next_dial(&Bans::default(), NOW, UNIX, SHARE, rng)?;
        peers.dialing(&next);
        Some(next)
    })
    .collect()
}

#[test]
fn failures_wait_longer_and_success_makes_up() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    peers.add(addr(1), Source::Dht, NOW);
    peers.ended(&addr(1), false, NOW);
    assert_eq!(peers.next_dial(&Bans::default(), NOW, UNIX, SHARE, &mut rng), None);
    assert_eq!(peers.next_retry(), Some(NOW + BACKOFF_MIN));
    peers.ended(&addr(1), false, NOW);
    assert_eq!(peers.next_retry(), Some(NOW + 2 * BACKOFF_MIN));
    peers.ended(&addr(1), true, NOW);
    assert_eq!(peers.next_dial(&Bans::default(), NOW, UNIX, SHARE, &mut rng), Some(addr(1)));
    (0..99).for_each(|_| peers.ended(&addr(1), false, NOW));
    assert_eq!(peers.next_retry(), Some(NOW + BACKOFF_MAX));
}

#[test]
fn fresh_made_up_addresses_do_not_keep_back_one_that_failed_once() {
    for (honest, fakes) in
        [(Source::Exchanged, Source::Dht), (Source::Dht, Source::Exchanged), (Source::Dht, Source::Dht)]
    {
        let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
        peers.add(addr(1), honest, NOW);
        peers.ended(&addr(1), false, NOW);
        let mut fresh = (0..).map(far);
        let mut now = NOW;
        let is_dialled = (0..1000).any(|_| {
            // Four new ones for each that is dialled, none of which answers.
            for fake in fresh.by_ref().take(4) {
                peers.add(fake, fakes, now);
            }
            now = now + Duration::from_secs(1);
            let next =
                peers.next_dial(&Bans::default(), now, UNIX, SHARE, &mut rng).expect("there is always one");
            peers.dialing(&next);
            peers.ended(&next, false, now);
            next == addr(1)
        });
        assert!(is_dialled, "{honest:?} among {fakes:?}");
    }
}

#[test]
fn no_source_fills_the_book_and_what_the_user_configured_stays() {
    let mut peers = Book::default();
    peers.add(addr(0), Source::Configured, NOW);
    let add_all = |peers: &mut Book, source, range: core::ops::Range<usize>| {
        for n in range {
            peers.add(addr(n), source, NOW);
        }
    };
    add_all(&mut peers, Source::Exchanged, 1..9000);
    assert_eq!(peers.known(), 1 + PEERS_PER_SOURCE_MAX);
    add_all(&mut peers, Source::Dht, 10_000..19_000);
    assert_eq!(peers.known(), PEERS_KNOWN_MAX);
    add_all(&mut peers, Source::Announced, 20_000..29_000);
    assert_eq!(peers.known(), PEERS_KNOWN_MAX);
    let third = PEERS_KNOWN_MAX / 3;
    let counts =
        [Source::Exchanged, Source::Dht, Source::Announced].map(|source| peers.shares.source(source));
    assert!(counts.iter().all(|n| n.abs_diff(third) <= 2), "they share it alike: {counts:?}");
    assert!(!peers.add(addr(0), Source::Dht, NOW), "the configured one is still there");
    assert!(peers.add(far(1), Source::Configured, NOW) && peers.known() == PEERS_KNOWN_MAX);
}

#[test]
fn a_teller_fills_its_share_only_and_replaces_its_own() {
    let mut peers = Book::default();
    let liar = at("8.8.1.1:1");
    for n in 0..5000 {
        peers.told(far(n % 1000), Source::Exchanged, &liar, NOW);
    }
    assert_eq!(peers.known(), PEERS_PER_REFERRER_MAX);
    // Its neighbours are taken for the same; others are not.
    assert!(!peers.told(far(2000), Source::Exchanged, &at("8.8.200.1:9"), NOW));
    assert!(peers.told(far(2000), Source::Exchanged, &at("8.9.1.1:1"), NOW));
    // What others vouch for does not count against it, and what failed makes room for its next.
    assert!(!peers.add(far(0), Source::Dht, NOW));
    assert!(peers.told(far(2001), Source::Exchanged, &liar, NOW));
    assert!(!peers.told(far(2002), Source::Exchanged, &liar, NOW));
    peers.ended(&far(1), false, NOW);
    assert!(peers.told(far(2002), Source::Exchanged, &liar, NOW));
    assert!(!peers.peers.contains_key(&far(1)));
}

#[test]
fn a_flood_from_many_tellers_leaves_the_few_addresses_of_an_honest_one() {
    let mut peers = Book::default();
    let honest = at("77.7.7.7:1");
    for n in 0..10 {
        peers.told(far(n), Source::Exchanged, &honest, NOW);
    }
    for referrer in 0..100 {
        let referrer = at(&format!("{}.1.1.1:1", 100 + referrer));
        let told = |n: usize| at(&format!("{}.{}.{}.9:1", 130 + n / 10_000, n % 250, (n / 250) % 40));
        for n in 0..2000 {
            peers.told(told(n), Source::Exchanged, &referrer, NOW);
        }
    }
    assert_eq!(peers.known(), PEERS_PER_SOURCE_MAX);
    assert_eq!(count(&peers, |a| (0..10).any(|n| *a == far(n))), 10);
    assert!(peers.add(far(3000), Source::Dht, NOW));
}

#[test]
fn a_network_has_so_many_places_in_the_book_and_of_our_connections() {
    for make in [
        near as fn(usize) -> PeerAddr,
        |n| at(&format!("[2a00:1:{n:x}::1]:1")),
        |n| at(&format!("9.9.9.9:{}", n + 1)),
        |n| at(&format!("a.example:{}", n + 1)),
    ] {
        let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
        for n in 0..3000 {
            peers.add(make(n), Source::Dht, NOW);
        }
        assert_eq!(peers.known(), PEERS_PER_NETWORK_MAX, "{}", make(0));
        (0..9).for_each(|n| assert!(peers.add(far(n), Source::Exchanged, NOW)));
        let dialled = dial_all(&mut peers, &mut rng);
        assert_eq!(dialled.len(), SHARE + 9, "{}", make(0));
        assert_eq!(dialled.iter().filter(|a| (0..9).any(|n| **a == far(n))).count(), 9);
        // One of them ends, and another of the same network may take its place.
        peers.ended(&dialled[0], false, NOW);
        assert_eq!(dial_all(&mut peers, &mut rng).len(), 1);
    }
}

#[test]
fn a_private_network_is_not_shared_out_and_means_nothing_from_afar() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    (0..200).for_each(|n| assert!(peers.add(addr(n), Source::Dht, NOW)));
    assert_eq!(dial_all(&mut peers, &mut rng).len(), 200);
    assert!(!peers.told(addr(300), Source::Exchanged, &far(1), NOW));
    assert!(!peers.told(at("127.0.0.1:80"), Source::Exchanged, &onion(1), NOW));
    assert!(peers.told(addr(300), Source::Exchanged, &addr(1), NOW));
}

#[test]
fn names_are_shared_out_by_who_told_them() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    let (liar, honest) = (onion(90_000), near(1));
    for n in 0..5000 {
        peers.told(onion(n), Source::Exchanged, &liar, NOW);
    }
    (5000..5003).for_each(|n| assert!(peers.told(onion(n), Source::Exchanged, &honest, NOW)));
    assert_eq!(peers.known(), PEERS_PER_REFERRER_MAX + 3);
    let dialled = dial_all(&mut peers, &mut rng);
    assert_eq!(dialled.len(), SHARE + 3);
    assert!((5000..5003).all(|n| dialled.contains(&onion(n))));
}

#[test]
fn a_connection_that_came_to_us_takes_no_share() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    let conn = ConnId { slot: 0, generation: 0 };
    (0..40).for_each(|n| assert!(peers.add(near(n), Source::Dht, NOW)));
    (0..20).for_each(|n| peers.accepted(&near(n), conn));
    let dialled = dial_all(&mut peers, &mut rng);
    assert_eq!(dialled.len(), SHARE);
    for a in &dialled {
        peers.connected(a, conn);
    }
    assert_eq!(peers.next_dial(&Bans::default(), NOW, UNIX, SHARE, &mut rng), None);
    assert_eq!(peers.wanted_place(&Bans::default(), UNIX, SHARE), Some(Place::Of(Netgroup::of(&near(0)))));
    peers.accepted(&dialled[0], conn);
    assert_eq!(peers.wanted_place(&Bans::default(), UNIX, SHARE), Some(Place::Any));
    assert_eq!(dial_all(&mut peers, &mut rng).len(), 1);
}

#[test]
fn the_worst_goes_first_and_who_was_there_first_stays() {
    let mut peers = Book::default();
    (0..PEERS_PER_NETWORK_MAX).for_each(|n| assert!(peers.add(near(n), Source::Dht, NOW)));
    peers.served(&near(3));
    assert!(peers.remember(&near(3)));
    peers.keyed(&near(4));
    (0..2).for_each(|_| peers.ended(&near(5), false, NOW));
    peers.ended(&near(6), false, NOW);
    peers.ended(&near(4), false, NOW);
    (0..FAILURES_GONE).for_each(|_| peers.ended(&near(3), false, NOW));
    let mut newcomers = (1000..).map(near);
    for gone in [3, 5, 6] {
        assert!(peers.add(newcomers.next().expect("endless"), Source::Dht, NOW));
        assert!(!peers.peers.contains_key(&near(gone)), "{gone}");
    }
    assert!(!peers.add(near(999), Source::Dht, NOW), "all others are as good, or better");
    assert!(peers.peers.contains_key(&near(4)), "it was reached once");
    assert_eq!(peers.take_forgotten(), [near(3)], "its record is of no use any more");
}

#[test]
fn what_an_earlier_run_knew_is_bounded_too() {
    let mut peers = Book::default();
    for n in 0..PEERS_KNOWN_MAX {
        peers.add(far(n), Source::Remembered, NOW);
    }
    assert_eq!(peers.known(), PEERS_PER_SOURCE_MAX);
    assert_eq!(peers.take_forgotten().len(), PEERS_KNOWN_MAX - PEERS_PER_SOURCE_MAX);
    assert!(!peers.remember(&far(0)), "it has a record already");
    peers.add(at("9.9.9.9:1"), Source::Dht, NOW);
    assert!(peers.remember(&at("9.9.9.9:1")) && !peers.remember(&at("9.9.9.9:1")));
}

#[test]
fn only_reached_addresses_are_told_and_private_ones_stay_private() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    let public = far(9);
    for a in [&addr(1), &addr(2), &public] {
        peers.add(a.clone(), Source::Exchanged, NOW);
    }
    peers.keyed(&addr(1));
    peers.keyed(&public);
    assert_eq!(peers.alive.choose(&far(8), NOW, &mut rng), core::slice::from_ref(&public));
    let mut told = peers.alive.choose(&addr(3), NOW, &mut rng);
    told.sort();
    assert_eq!(told, [addr(1), public]);
    assert!(peers.alive.choose(&addr(1), NOW, &mut rng).iter().all(|a| *a != addr(1)));
}

#[test]
fn who_answered_is_told_while_connected_and_then_until_it_is_to_be_tried_again() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    let conn = ConnId { slot: 0, generation: 0 };
    let mut is_told = |peers: &Book, now| !peers.alive.choose(&addr(2), now, &mut rng).is_empty();
    peers.add(addr(1), Source::Dht, NOW);
    peers.ended(&addr(1), false, NOW);
    peers.connected(&addr(1), conn);
    assert!(!is_told(&peers, NOW), "a socket that opens is no answer");
    peers.keyed(&addr(1));
    assert!(is_told(&peers, NOW + BACKOFF_MAX), "that it failed once is past");
    let end = NOW + BACKOFF_MAX;
    peers.ended(&addr(1), false, end);
    assert!(is_told(&peers, end + BACKOFF_MIN) && !is_told(&peers, end + 2 * BACKOFF_MIN));
    peers.dialing(&addr(1));
    peers.unreached(&addr(1));
    peers.ended(&addr(1), false, end);
    assert!(!is_told(&peers, end));
}

#[test]
fn who_came_to_us_is_to_be_was_felt_once_for_each_connection_unless_it_answered_before() {
    let mut peers = Book::default();
    let conn = ConnId { slot: 0, generation: 0 };
    peers.add(addr(1), Source::Announced, NOW);
    assert_eq!(peers.next_feeler(), None);
    for _ in 0..2 {
        peers.accepted(&addr(1), conn);
        assert_eq!((peers.next_feeler(), peers.next_feeler()), (Some(addr(1)), None));
        assert_eq!(peers.connection(&addr(1)), Some(conn), "it stays as it is");
        peers.ended(&addr(1), false, NOW);
    }
    peers.keyed(&addr(1));
    peers.accepted(&addr(1), conn);
    assert_eq!(peers.next_feeler(), None);
    peers.accepted(&addr(1), conn);
    peers.unreached(&addr(1));
    peers.ended(&addr(1), false, NOW);
    assert_eq!(peers.next_feeler(), None, "it is gone");
}

#[test]
fn an_answer_names_few_of_one_network_and_not_always_the_same() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    let all = (0..PEERS_PER_NETWORK_MAX).map(near).chain((0..200).map(far));
    all.for_each(|a| {
        peers.add(a.clone(), Source::Dht, NOW);
        peers.keyed(&a);
    });
    let [one, other] = [(); 2].map(|()| peers.alive.choose(&addr(1), NOW, &mut rng));
    for told in [&one, &other] {
        assert_eq!(told.len(), PEERS_MAX);
        let of_one = told.iter().filter(|a| a.to_string().starts_with("9.9.")).count();
        assert!(of_one <= EXCHANGED_PER_NETWORK_MAX, "{of_one}");
    }
    assert_ne!(one, other);
}

#[test]
fn we_are_never_dialled() {
    let (mut peers, mut rng) = (Book::default(), Rng::new([0; 32]));
    peers.add(addr(1), Source::Dht, NOW);
    peers.ourselves(&addr(1));
    peers.ended(&addr(1), false, NOW);
    assert_eq!(
        (peers.next_dial(&Bans::default(), NOW, UNIX, SHARE, &mut rng), peers.next_retry()),
        (None, None)
    );
}
