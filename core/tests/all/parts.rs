//! Fetching from v6 peers (`docs/protocol.md` §12): which parts of which blobs a node asks of which peers, which peers it gives up,
//! and which are banned for wrong bytes. One node among scripted peers, in virtual time.

use std::time::Duration;

use crate::support::content::{BLOB_BYTES, Content, SEQUENCE};
use crate::support::member::{Manner, Member, all, bitmap, pass};
use crate::support::{Bench, CONFIG, UNIX, identity};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::limits::{PART_WINDOW_START, PIECE_LEN_MAX, SILENCE_MAX, STALL_TIMEOUT};
use megatorrent_core::node::{Command, Event, Node, Selection};
use megatorrent_core::parts::{Mask, PARTS, VALUES_LEN, Values};
use megatorrent_core::time::Instant;

const MIB: u64 = 1 << 20;
/// The bandwidth of Tor, roughly.
const TOR: u64 = 20_000;

/// A channel of this many blobs, and a node that follows it and has none of them.
fn fetching(blobs: u8) -> (Content, Bench) {
    let content = Content::new(&identity(), blobs);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    (content, bench)
}

fn leave(bench: &mut Bench, member: &Member) {
    bench.node.disconnected(bench.now, member.peer.conn);
    bench.drain();
}

fn sorted(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_channel_comes_from_peers_that_claim_to_have_it_and_askers_are_told() {
    let (content, mut bench) = fetching(3);
    let [mut one, mut other, mut leecher] =
        [1, 2, 3].map(|port| Member::join(&mut bench, port, &[content.channel]));
    assert_eq!(one.asked_have, [(one.tags[0], SEQUENCE)]);
    leecher.ask_have(&mut bench, SEQUENCE);
    one.has(&mut bench, &content, &[0, 1]);
    other.has(&mut bench, &content, &[2]);
    one.bring_all(&mut bench, &content);
    other.bring_all(&mut bench, &content);
    assert_eq!((sorted(one.asked_for(&content)), other.asked_for(&content)), (vec![0, 1], vec![2]));
    assert_eq!(one.parts_asked() + other.parts_asked(), 3 * PARTS, "no part twice");
    assert_eq!(content.stored(&bench), 3);
    assert!(bench.event(|e| matches!(e, Event::Complete { sequence: SEQUENCE, .. })).is_some());
    for member in [&mut one, &mut other, &mut leecher] {
        member.hear(&mut bench);
        assert_eq!(member.told.last().map(|(_, have)| have), Some(&all()));
    }
    // The node tells at once which blobs it has stored already.
    assert_eq!(leecher.told[0].1, bitmap(&[0b1110_0000]));
    assert!(leecher.asked.is_empty(), "it claimed nothing");
    let status = bench.status();
    assert_eq!((status.bytes_received, status.bytes_duplicate), (3 * BLOB_BYTES, 0));
}

#[test]
fn the_rarest_blobs_are_asked_for_first() {
    let (content, mut bench) = fetching(12);
    let common: Vec<usize> = (0..9).collect();
    let other = Member::with(&mut bench, 1, &content, &common);
    let begun = other.asked_for(&content);
    let mut rare = Member::with(&mut bench, 2, &content, &(0..12).collect::<Vec<_>>());
    rare.bring_all(&mut bench, &content);
    let asked = rare.asked_for(&content);
    assert_eq!(
        (&asked[..1], sorted(asked[1..4].to_vec())),
        (&begun[..], vec![9, 10, 11]),
        "after what has begun"
    );
}

#[test]
fn blobs_of_a_played_file_come_in_order_even_where_others_are_rarer() {
    let (content, mut bench) = fetching(8);
    let play = |in_order| Command::Select {
        channel: content.channel,
        selection: Selection { in_order, ..Selection::default() },
    };
    bench.command(play(true));
    let first = Member::with(&mut bench, 1, &content, &[0, 1, 2, 3, 4, 5]);
    assert_eq!(first.asked, [(content.name(0), Mask::first(PART_WINDOW_START))], "the parts too");
    let mut second = Member::with(&mut bench, 2, &content, &(0..8).collect::<Vec<_>>());
    // The window has grown meanwhile.
    second.bring(&mut bench, &content, BLOB_BYTES + BLOB_BYTES / 2);
    assert_eq!(second.asked_for(&content), [0, 1, 2, 3]);
    let asked: Vec<usize> = second.asked.iter().flat_map(|(_, mask)| mask.iter()).collect();
    let in_order = (PART_WINDOW_START..PARTS).chain((0..3).flat_map(|_| 0..PARTS));
    assert_eq!(asked, in_order.take(asked.len()).collect::<Vec<_>>());
    bench.command(play(false));
    second.bring_all(&mut bench, &content);
    let mut rare = second.asked_for(&content)[4..6].to_vec();
    rare.sort_unstable();
    assert_eq!(rare, [6, 7]);
}

#[test]
fn a_blob_that_has_begun_comes_before_others() {
    let (content, mut bench) = fetching(6);
    let everything: Vec<usize> = (0..6).collect();
    let mut peers = [1, 2, 3].map(|port| Member::with(&mut bench, port, &content, &everything));
    while content.stored(&bench) < 5 {
        for peer in &mut peers {
            peer.bring(&mut bench, &content, BLOB_BYTES / 8);
        }
        let begun = bench.world.store.under_way.len();
        assert!(begun <= 2, "{begun} blobs are begun and not whole");
    }
}

#[test]
fn the_parts_of_a_blob_come_from_several_peers_at_once() {
    let (content, mut bench) = fetching(1);
    let mut peers = [1, 2, 3].map(|port| Member::with(&mut bench, port, &content, &[0]));
    let asked = peers.each_ref().map(|peer| peer.asked_of(&content.name(0)));
    assert_eq!(asked.map(Mask::len), [PART_WINDOW_START; 3]);
    for peer in &mut peers {
        peer.bring_all(&mut bench, &content);
    }
    let of_all = peers.each_ref().map(Member::parts_asked);
    assert_eq!((content.stored(&bench), of_all.iter().sum::<usize>()), (1, PARTS), "none twice");
    assert!(of_all.iter().all(|parts| *parts >= PART_WINDOW_START));
    assert_eq!(bench.status().bytes_duplicate, 0);
}

#[test]
fn a_peer_is_asked_for_what_it_brings_while_a_request_is_on_its_way_and_little_more() {
    let (content, mut bench) = fetching(24);
    let mut fast = Member::seed(&mut bench, 1, &content).at(4 * MIB);
    let mut slow = Member::seed(&mut bench, 2, &content).at(MIB / 4);
    pass(&mut bench, &content, Duration::from_secs(3), &mut [&mut fast, &mut slow]);
    for _ in 0..10 {
        pass(&mut bench, &content, Duration::from_millis(100), &mut [&mut fast, &mut slow]);
        // A quarter of a second, twice a step, and two.
        assert!((12..=30).contains(&fast.parts_open()), "{}", fast.parts_open());
        assert!((1..=6).contains(&slow.parts_open()), "{}", slow.parts_open());
    }
    // It becomes slow too, and is asked for less.
    fast.bytes_per_sec = MIB / 4;
    pass(&mut bench, &content, Duration::from_secs(8), &mut [&mut fast, &mut slow]);
    assert!((1..=6).contains(&fast.parts_open()), "{}", fast.parts_open());
    assert!(content.stored(&bench) < 24);
}

// --- silence ------------------------------------------------------------------------------------------------------

#[test]
fn a_silent_peer_is_asked_for_no_more_until_it_goes_on() {
    for goes_on in [false, true] {
        let (content, mut bench) = fetching(3);
        let mut peer = Member::with(&mut bench, 1, &content, &[0, 1, 2]);
        pass(&mut bench, &content, STALL_TIMEOUT + Duration::from_secs(2), &mut [&mut peer]);
        assert_eq!(peer.parts_asked(), PART_WINDOW_START);
        if goes_on {
            peer.bring_all(&mut bench, &content);
            assert_eq!(content.stored(&bench), 3);
        } else {
            peer.refuse(&mut bench);
            pass(&mut bench, &content, STALL_TIMEOUT / 2, &mut [&mut peer]);
            assert_eq!(peer.parts_asked(), PART_WINDOW_START, "it is backed off");
            pass(&mut bench, &content, STALL_TIMEOUT, &mut [&mut peer]);
            assert_eq!(peer.parts_asked(), 2 * PART_WINDOW_START, "it gets another chance");
        }
        assert_eq!(bench.closed, []);
    }
}

#[test]
fn a_peer_silent_for_two_minutes_is_given_up() {
    let (content, mut bench) = fetching(1);
    let mut silent = Member::with(&mut bench, 1, &content, &[0]);
    let slack = Duration::from_secs(3);
    pass(&mut bench, &content, SILENCE_MAX.saturating_sub(slack), &mut [&mut silent]);
    assert_eq!(silent.closed_for(&bench), None);
    pass(&mut bench, &content, 2 * slack, &mut [&mut silent]);
    assert_eq!(silent.closed_for(&bench), Some(CloseReason::Stalled));
    let mut other = Member::with(&mut bench, 2, &content, &[0]);
    other.bring_all(&mut bench, &content);
    assert_eq!(content.stored(&bench), 1);
}

#[test]
fn a_peer_behind_tor_is_used_and_never_given_up() {
    let (content, mut bench) = fetching(4);
    let mut peer = Member::seed(&mut bench, 1, &content).at(TOR);
    let time = Duration::from_secs(4 * BLOB_BYTES / TOR);
    const { assert!(4 * BLOB_BYTES / TOR > SILENCE_MAX.as_secs()) }
    pass(&mut bench, &content, time * 11 / 10, &mut [&mut peer]);
    assert_eq!((content.stored(&bench), &bench.closed[..]), (4, &[][..]));
    assert_eq!((peer.parts_asked(), peer.cancelled.len()), (4 * PARTS, 0));
}

// --- few seeds ----------------------------------------------------------------------------------------------------

#[test]
fn where_seeds_are_few_other_peers_are_preferred() {
    // Without a preference, each peer would be equally likely.
    for seed in 0..8 {
        // All of it is in one part.
        let content = Content::of_len(&identity(), 60_000);
        let mut bench = Bench::answering(CONFIG, None);
        bench.node = Node::new(CONFIG, [seed; 32], Instant(0), UNIX);
        content.follow(&mut bench);
        let asked = Member::with(&mut bench, 1, &content, &[0]);
        let mut seed = Member::seed(&mut bench, 2, &content);
        let mut leecher = Member::with(&mut bench, 3, &content, &[0]);
        leave(&mut bench, &asked);
        seed.hear(&mut bench);
        leecher.hear(&mut bench);
        assert_eq!((seed.parts_asked(), leecher.parts_asked()), (0, 1));
    }
}

// --- wrong bytes --------------------------------------------------------------------------------------------------

const LIED: CloseReason = CloseReason::Violation(Violation::WrongBlob);

#[test]
fn a_part_that_does_not_check_bans_exactly_the_peer_that_sent_it_whoever_else_brings_parts_of_the_blob() {
    for liar in 0..3 {
        let (content, mut bench) = fetching(1);
        let mut peers = [1, 2, 3].map(|port| Member::with(&mut bench, port, &content, &[0]));
        peers[liar].manner = Manner::Lies;
        for _ in 0..2 {
            for peer in &mut peers {
                peer.bring(&mut bench, &content, BLOB_BYTES / 16);
            }
        }
        assert_eq!((peers[liar].closed_for(&bench), peers[liar].is_banned(&bench)), (Some(LIED), true));
        let wrong = |e: &Event| matches!(e, Event::Banned { violation: Violation::WrongBlob, .. });
        assert_eq!(bench.count(wrong), 1);
        assert!(bench.node.accept(bench.now, peers[liar].addr()).is_none());
        for (n, peer) in peers.iter_mut().enumerate().filter(|(n, _)| *n != liar) {
            peer.bring_all(&mut bench, &content);
            assert_eq!((n, peer.closed_for(&bench)), (n, None));
        }
        assert_eq!((content.stored(&bench), bench.status().bans), (1, 1));
        assert_eq!(bench.status().bytes_received, BLOB_BYTES);
    }
}

#[test]
fn values_of_another_root_ban_their_sender_before_a_part_comes() {
    let (content, mut bench) = fetching(1);
    let mut liar = Member::with(&mut bench, 1, &content, &[0]);
    let mut honest = Member::with(&mut bench, 2, &content, &[0]);
    liar.manner = Manner::LiesOfValues;
    liar.bring(&mut bench, &content, BLOB_BYTES / 16);
    assert_eq!(liar.closed_for(&bench), Some(LIED));
    bench.sleep(Duration::from_millis(1));
    assert!(liar.is_banned(&bench));
    honest.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), bench.status().bans, honest.parts_asked()), (1, 1, PARTS));
}

#[test]
fn a_part_is_a_lie_of_its_sender_also_where_the_values_came_from_another() {
    let (content, mut bench) = fetching(1);
    let mut first = Member::with(&mut bench, 1, &content, &[0]);
    let mut liar = Member::with(&mut bench, 2, &content, &[0]);
    first.bring(&mut bench, &content, BLOB_BYTES / 16);
    liar.manner = Manner::Lies;
    liar.bring(&mut bench, &content, BLOB_BYTES / 16);
    first.bring_all(&mut bench, &content);
    assert_eq!((liar.closed_for(&bench), first.closed_for(&bench)), (Some(LIED), None));
    assert_eq!((content.stored(&bench), bench.status().bans), (1, 1));
}

// --- pieces that are not as they should be ------------------------------------------------------------------------

/// A peer that is asked for parts of the only blob; the first of them, and one that it is not asked for.
fn asked_for_one(bench: &mut Bench, content: &Content) -> (Member, u8, u8) {
    let peer = Member::with(bench, 1, content, &[0]);
    let mask = peer.asked_of(&content.name(0));
    let number = |part: Option<usize>| u8::try_from(part.expect("some")).expect("few");
    (peer, number(mask.iter().next()), number((!mask).iter().next()))
}

#[test]
fn pieces_that_were_not_asked_for_or_are_out_of_order_end_the_connection_and_ban_nobody() {
    let half = PIECE_LEN_MAX;
    for (is_first, number, half_no, len, after_values) in [
        (true, 0, 0, half, false),
        (true, 1, 0, half, true),
        (true, u32::MAX, 0, 0, true),
        (false, 0, 0, half, true),
        (true, 0, 1, half, true),
        (true, 0, 0, half - 1, true),
    ] {
        let (content, mut bench) = fetching(1);
        let (mut peer, first, other) = asked_for_one(&mut bench, &content);
        if after_values {
            peer.send_values(&mut bench, 0, Values::of(&content.data[0].1));
        }
        let part = if is_first { first } else { other };
        assert_eq!(peer.closed_for(&bench), None);
        peer.send_piece(&mut bench, number, (part, half_no), &content.part(0, part.into())[..len]);
        let reason = Some(CloseReason::Violation(Violation::UnaskedData));
        assert_eq!(peer.closed_for(&bench), reason, "{len} bytes of {number}, half {half_no}");
        assert_eq!(bench.status().bans, 0);
    }
}

#[test]
fn a_half_that_comes_twice_ends_the_connection() {
    let (content, mut bench) = fetching(1);
    let (mut peer, part, _) = asked_for_one(&mut bench, &content);
    peer.send_values(&mut bench, 0, Values::of(&content.data[0].1));
    for reason in [None, Some(CloseReason::Violation(Violation::UnaskedData))] {
        peer.send_piece(&mut bench, 0, (part, 0), &content.part(0, part.into())[..PIECE_LEN_MAX]);
        assert_eq!(peer.closed_for(&bench), reason);
    }
}

#[test]
fn values_that_were_not_asked_for_end_the_connection() {
    let (content, mut bench) = fetching(1);
    let (mut peer, ..) = asked_for_one(&mut bench, &content);
    let values = Values::of(&content.data[0].1);
    for reason in [None, Some(CloseReason::Violation(Violation::UnaskedData))] {
        peer.send_values(&mut bench, 0, values.clone());
        assert_eq!(peer.closed_for(&bench), reason);
    }
    let (content, mut bench) = fetching(1);
    let (mut peer, ..) = asked_for_one(&mut bench, &content);
    peer.send_values(&mut bench, 7, Values::from_bytes([0; VALUES_LEN]));
    assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::UnaskedData)));
    assert_eq!(bench.status().bans, 0);
}

#[test]
fn a_piece_is_no_longer_than_the_protocol_allows_and_of_a_part_that_there_is() {
    let (content, mut bench) = fetching(1);
    for (part, half, len) in [(0, 0, PIECE_LEN_MAX + 1), (16, 0, PIECE_LEN_MAX), (0, 2, PIECE_LEN_MAX)] {
        let mut peer = Member::with(&mut bench, 1, &content, &[0]);
        peer.send_piece(&mut bench, 0, (part, half), &content.data[0].1[..len]);
        assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::Malformed)));
        bench.events.clear();
    }
}

#[test]
fn half_a_part_of_a_connection_that_ends_is_asked_for_whole_elsewhere() {
    let (content, mut bench) = fetching(1);
    let (mut peer, part, _) = asked_for_one(&mut bench, &content);
    peer.send_values(&mut bench, 0, Values::of(&content.data[0].1));
    peer.send_piece(&mut bench, 0, (part, 0), &content.part(0, part.into())[..PIECE_LEN_MAX]);
    leave(&mut bench, &peer);
    let mut other = Member::with(&mut bench, 2, &content, &[0]);
    other.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), other.parts_asked()), (1, PARTS));
}
