//! Fetching from v6 peers (`docs/protocol.md` §12): which ranges a node asks of which peers, which peer takes over from
//! which, and which are banned for wrong bytes. One node among scripted peers, in virtual time.

mod support;

use std::time::Duration;

use megatorrent_core::codec::Have;
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::limits::{PIECE_LEN_MAX, SILENCE_MAX, STALL_TIMEOUT};
use megatorrent_core::node::{Command, Event, Node, Selection};
use megatorrent_core::time::Instant;
use support::content::{BLOB_END, Content, PIECE_MAX, SEQUENCE};
use support::member::{Member, pass};
use support::{Bench, CONFIG, UNIX, identity};

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
    let asked = one.asked.iter().chain(&other.asked);
    assert!(asked.map(|(_, range)| range).all(|range| *range == (0..BLOB_END)));
    assert_eq!(content.stored(&bench), 3);
    assert!(bench.event(|e| matches!(e, Event::Complete { sequence: SEQUENCE, .. })).is_some());
    for member in [&mut one, &mut other, &mut leecher] {
        member.hear(&mut bench);
        assert_eq!(member.told.last().map(|(_, have)| have), Some(&Have::All));
    }
    // The node tells at once which blobs it has stored already.
    assert_eq!(leecher.told[0].1, Have::Bitmap(vec![0b1100_0000]));
    assert!(leecher.asked.is_empty(), "it claimed nothing");
    let status = bench.status();
    assert_eq!((status.bytes_received, status.bytes_duplicate), (3 * u64::from(BLOB_END), 0));
}

#[test]
fn the_rarest_blobs_are_asked_for_first() {
    let (content, mut bench) = fetching(12);
    let common: Vec<usize> = (0..9).collect();
    let _others = [1, 2].map(|port| Member::with(&mut bench, port, &content, &common));
    let mut rare = Member::with(&mut bench, 3, &content, &(0..12).collect::<Vec<_>>());
    rare.bring_all(&mut bench, &content);
    assert_eq!(sorted(rare.asked_for(&content)[..3].to_vec()), [9, 10, 11]);
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
    assert_eq!(first.asked_for(&content), [0]);
    let mut second = Member::with(&mut bench, 2, &content, &(0..8).collect::<Vec<_>>());
    second.bring(&mut bench, &content, 3 * u64::from(BLOB_END));
    assert_eq!(second.asked_for(&content), [1, 2, 3, 4]);
    bench.command(play(false));
    second.bring_all(&mut bench, &content);
    assert_eq!(sorted(second.asked_for(&content)[4..6].to_vec()), [6, 7]);
}

#[test]
fn a_peers_window_is_one_blob_and_the_bytes_of_a_second() {
    let (content, mut bench) = fetching(24);
    let mut fast = Member::seed(&mut bench, 1, &content).at(7 * MIB / 2);
    let mut slow = Member::seed(&mut bench, 2, &content).at(MIB / 4);
    for _ in 0..30 {
        pass(&mut bench, &content, Duration::from_millis(100), &mut [&mut fast, &mut slow]);
        assert!(fast.open.len() <= 4 && slow.open.len() <= 1);
    }
    assert_eq!(fast.open.len(), 4);
    // It becomes slow too: the node asks it for nothing more, though blobs are left.
    fast.bytes_per_sec = MIB / 10;
    pass(&mut bench, &content, Duration::from_secs(4), &mut [&mut fast, &mut slow]);
    let asked = fast.asked.len();
    pass(&mut bench, &content, Duration::from_secs(4), &mut [&mut fast, &mut slow]);
    assert_eq!(fast.asked.len(), asked);
    assert!(!fast.open.is_empty() && asked + slow.asked.len() < 24);
}

// --- taking over --------------------------------------------------------------------------------------------------

#[test]
fn an_idle_peer_takes_over_half_of_a_slow_ones_rest_and_no_byte_comes_twice() {
    let (content, mut bench) = fetching(1);
    let mut slow = Member::with(&mut bench, 1, &content, &[0]).at(TOR);
    let mut fast = Member::with(&mut bench, 2, &content, &[0]).at(2 * MIB);
    while fast.asked.is_empty() {
        assert!(bench.now < Instant(0) + Duration::from_secs(6), "no peer takes over");
        pass(&mut bench, &content, Duration::from_millis(100), &mut [&mut slow]);
        fast.hear(&mut bench);
    }
    let next = slow.open[0].next;
    let half = next + (BLOB_END - next) / 2;
    assert!(next > 0);
    assert_eq!((&slow.cancelled[..], &fast.asked[0].1), (&[(0, half)][..], &(half..BLOB_END)));
    pass(&mut bench, &content, Duration::from_secs(10), &mut [&mut slow, &mut fast]);
    assert_eq!(content.stored(&bench), 1, "alone, the slow one would take a minute");
    let blob = u64::from(BLOB_END);
    assert_eq!((bench.status().bytes_received, bench.status().bytes_duplicate), (blob, 0));
    // Bytes in flight may still come, and are ignored.
    slow.send_piece(&mut bench, 0, half, &[1; 1000]);
    assert_eq!((bench.status().bytes_received, bench.status().bytes_duplicate), (blob, 1000));
    assert_eq!((bench.closed.len(), content.stored(&bench)), (0, 1));
}

#[test]
fn a_silent_peer_loses_the_whole_range() {
    let (content, mut bench) = fetching(1);
    let mut silent = Member::with(&mut bench, 1, &content, &[0]);
    silent.bring(&mut bench, &content, 100_000);
    let next = silent.open[0].next;
    pass(&mut bench, &content, STALL_TIMEOUT + Duration::from_secs(2), &mut [&mut silent]);
    let mut idle = Member::with(&mut bench, 2, &content, &[0]);
    pass(&mut bench, &content, Duration::from_secs(2), &mut [&mut silent, &mut idle]);
    assert_eq!((&silent.cancelled[..], &idle.asked[0].1), (&[(0, next)][..], &(next..BLOB_END)));
    idle.bring_all(&mut bench, &content);
    assert_eq!(
        (content.stored(&bench), bench.status().bytes_duplicate),
        (1, 0),
        "the bytes that it brought are kept"
    );
}

#[test]
fn a_silent_peer_is_asked_for_no_more_until_it_goes_on() {
    for goes_on in [false, true] {
        let (content, mut bench) = fetching(3);
        let mut peer = Member::with(&mut bench, 1, &content, &[0, 1, 2]);
        pass(&mut bench, &content, STALL_TIMEOUT + Duration::from_secs(2), &mut [&mut peer]);
        assert_eq!(peer.asked.len(), 1);
        if goes_on {
            peer.bring_all(&mut bench, &content);
            assert_eq!(content.stored(&bench), 3);
        } else {
            peer.refuse(&mut bench);
            pass(&mut bench, &content, STALL_TIMEOUT / 2, &mut [&mut peer]);
            assert_eq!(peer.asked.len(), 1, "it is backed off");
            pass(&mut bench, &content, STALL_TIMEOUT, &mut [&mut peer]);
            assert_eq!(peer.asked.len(), 2, "it gets another chance");
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
    let time = Duration::from_secs(4 * u64::from(BLOB_END) / TOR);
    const { assert!(4 * BLOB_END as u64 / TOR > SILENCE_MAX.as_secs()) }
    pass(&mut bench, &content, time * 11 / 10, &mut [&mut peer]);
    assert_eq!((content.stored(&bench), &bench.closed[..]), (4, &[][..]));
    assert_eq!((peer.asked.len(), peer.cancelled.len()), (4, 0));
}

// --- few seeds ----------------------------------------------------------------------------------------------------

#[test]
fn where_seeds_are_few_other_peers_are_preferred() {
    // Without a preference, each peer would be equally likely.
    for seed in 0..8 {
        let content = Content::new(&identity(), 1);
        let mut bench = Bench::answering(CONFIG, None);
        bench.node = Node::new(CONFIG, None, [seed; 32], Instant(0), UNIX);
        content.follow(&mut bench);
        let asked = Member::with(&mut bench, 1, &content, &[0]);
        let mut seed = Member::seed(&mut bench, 2, &content);
        let mut leecher = Member::with(&mut bench, 3, &content, &[0]);
        leave(&mut bench, &asked);
        seed.hear(&mut bench);
        leecher.hear(&mut bench);
        assert_eq!((seed.asked.len(), leecher.asked.len()), (0, 1));
    }
}

#[test]
fn a_seed_leaves_a_blob_that_it_has_not_begun_to_another_peer_that_has_it() {
    for (waited, is_left) in [(Duration::from_millis(100), false), (Duration::from_millis(600), true)] {
        let (content, mut bench) = fetching(2);
        let mut seed = Member::seed(&mut bench, 1, &content);
        let [first] = seed.asked_for(&content)[..] else { panic!("it is asked for one") };
        bench.sleep(waited);
        let leecher = Member::with(&mut bench, 2, &content, &[first]);
        seed.hear(&mut bench);
        if is_left {
            assert_eq!((&seed.cancelled[..], leecher.asked_for(&content)), (&[(0, 0)][..], vec![first]));
            assert_eq!(seed.asked_for(&content), [first, 1 - first]);
        } else {
            assert_eq!((seed.cancelled.len(), leecher.asked.len()), (0, 0));
        }
    }
}

#[test]
fn a_seed_leaves_a_blob_even_to_a_busy_peer_for_one_that_only_the_seed_has() {
    let (content, mut bench) = fetching(3);
    let mut leecher = Member::with(&mut bench, 1, &content, &[2]);
    let mut seed = Member::seed(&mut bench, 2, &content);
    let [first] = seed.asked_for(&content)[..] else { panic!("it is asked for one") };
    bench.sleep(Duration::from_millis(600));
    leecher.has(&mut bench, &content, &[first]);
    seed.hear(&mut bench);
    assert_eq!((&seed.cancelled[..], seed.asked_for(&content)), (&[(0, 0)][..], vec![first, 1 - first]));
    assert_eq!(leecher.asked_for(&content), [2], "it is busy");
    leecher.bring_all(&mut bench, &content);
    assert_eq!(leecher.asked_for(&content), [2, first]);
}

// --- wrong bytes --------------------------------------------------------------------------------------------------

const LIED: CloseReason = CloseReason::Violation(Violation::WrongBlob);

#[test]
fn a_peer_that_alone_brought_a_wrong_blob_is_banned() {
    let (content, mut bench) = fetching(1);
    let mut liar = Member::with(&mut bench, 1, &content, &[0]);
    let mut honest = Member::with(&mut bench, 2, &content, &[0]);
    liar.lies = true;
    liar.bring_all(&mut bench, &content);
    assert_eq!((liar.closed_for(&bench), liar.is_banned(&bench)), (Some(LIED), true));
    assert!(bench.event(|e| matches!(e, Event::Banned { violation: Violation::WrongBlob, .. })).is_some());
    assert!(bench.node.accept(bench.now, liar.addr()).is_none());
    honest.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), honest.is_banned(&bench)), (1, false));
}

#[test]
fn the_right_blob_shows_which_of_several_peers_lied() {
    for liar in [0, 1] {
        let (content, mut bench) = fetching(1);
        let mut both = [1, 2].map(|port| Member::with(&mut bench, port, &content, &[0]));
        both[liar].lies = true;
        let [first, second] = &mut both;
        let brought = first.bring(&mut bench, &content, u64::from(BLOB_END) / 2);
        first.refuse(&mut bench);
        second.bring(&mut bench, &content, u64::from(BLOB_END) - brought);
        assert_eq!(second.asked.len(), 2, "once for the rest, once for all of it");
        assert_eq!((&bench.closed[..], bench.status().bans), (&[][..], 0), "either may have lied");
        second.refuse(&mut bench);

        // It comes from one peer alone, and no other helps.
        let mut third = Member::with(&mut bench, 3, &content, &[0]);
        third.bring(&mut bench, &content, u64::from(BLOB_END) / 2);
        let mut fourth = Member::with(&mut bench, 4, &content, &[0]);
        pass(&mut bench, &content, STALL_TIMEOUT * 3 / 4, &mut [&mut third]);
        fourth.hear(&mut bench);
        assert_eq!((third.asked[0].1.clone(), fourth.asked.len()), (0..BLOB_END, 0));
        leave(&mut bench, &third);
        // Peers that refused it are asked again after a while.
        for n in [0, 1, 0, 1] {
            both[n].refuse(&mut bench);
        }
        fourth.hear(&mut bench);
        assert_eq!(fourth.asked[0].1, 0..BLOB_END, "the other peer's bytes are not mixed in");
        fourth.bring_all(&mut bench, &content);

        assert_eq!(content.stored(&bench), 1);
        assert_eq!((both[liar].closed_for(&bench), both[liar].is_banned(&bench)), (Some(LIED), true));
        assert_eq!((both[1 - liar].closed_for(&bench), bench.status().bans), (None, 1));
    }
}

// --- pieces that are not as they should be ------------------------------------------------------------------------

#[test]
fn a_piece_that_is_unsolicited_or_out_of_order_ends_the_connection() {
    let end = BLOB_END - 100;
    for (id, offset, len, violation) in [
        (1, 0, 1, Violation::UnaskedData),
        (0, 1, 1, Violation::UnaskedData),
        (0, end, 100, Violation::UnaskedData),
        (u32::MAX, 0, 0, Violation::UnaskedData),
    ] {
        let (content, mut bench) = fetching(1);
        let mut peer = Member::with(&mut bench, 1, &content, &[0]);
        peer.send_piece(&mut bench, id, offset, &vec![0; len]);
        let reason = Some(CloseReason::Violation(violation));
        assert_eq!(peer.closed_for(&bench), reason, "{len} bytes of {id} at {offset}");
    }
}

#[test]
fn more_bytes_than_were_asked_for_and_not_cancelled_end_the_connection() {
    let (content, mut bench) = fetching(1);
    let mut peer = Member::with(&mut bench, 1, &content, &[0]);
    peer.bring(&mut bench, &content, u64::from(BLOB_END - 1));
    let next = peer.open[0].next;
    peer.send_piece(&mut bench, 0, next, &vec![0; (BLOB_END - next + 1) as usize]);
    assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::DataLong)));

    let (content, mut bench) = fetching(2);
    let mut seed = Member::seed(&mut bench, 1, &content);
    let first = seed.asked_for(&content)[0];
    bench.sleep(Duration::from_secs(1));
    let _leecher = Member::with(&mut bench, 2, &content, &[first]);
    seed.hear(&mut bench);
    assert_eq!(seed.cancelled, [(0, 0)]);
    let (pieces, piece) = (BLOB_END / PIECE_MAX, vec![0; PIECE_LEN_MAX]);
    for n in 0..pieces {
        seed.send_piece(&mut bench, 0, n * PIECE_MAX, &piece);
    }
    assert_eq!(seed.closed_for(&bench), None, "all of it may have been in flight");
    seed.send_piece(&mut bench, 0, pieces * PIECE_MAX, &piece);
    assert_eq!(seed.closed_for(&bench), Some(CloseReason::Violation(Violation::UnaskedData)));
}

#[test]
fn a_piece_is_no_longer_than_the_protocol_allows() {
    let (content, mut bench) = fetching(1);
    let mut peer = Member::with(&mut bench, 1, &content, &[0]);
    peer.send_piece(&mut bench, 0, 0, &content.data[0].1[..PIECE_LEN_MAX]);
    assert_eq!(peer.closed_for(&bench), None);
    peer.send_piece(&mut bench, 0, PIECE_MAX, &content.data[0].1[PIECE_LEN_MAX..=2 * PIECE_LEN_MAX]);
    assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::Malformed)));
}

#[test]
fn a_pieces_bytes_beyond_a_cut_count_as_duplicate() {
    let (content, mut bench) = fetching(1);
    let mut slow = Member::with(&mut bench, 1, &content, &[0]).at(TOR);
    let mut fast = Member::with(&mut bench, 2, &content, &[0]);
    while slow.cancelled.is_empty() {
        pass(&mut bench, &content, Duration::from_millis(100), &mut [&mut slow]);
    }
    let (next, end) = (slow.open[0].next, slow.open[0].end);
    let last = next + (end - next) / PIECE_MAX * PIECE_MAX;
    slow.bring(&mut bench, &content, u64::from(last - next));
    slow.send_piece(&mut bench, 0, last, &content.data[0].1[last as usize..last as usize + PIECE_LEN_MAX]);
    fast.bring_all(&mut bench, &content);
    assert_eq!(content.stored(&bench), 1);
    assert_eq!(bench.status().bytes_duplicate, u64::from(PIECE_MAX - (end - last)));
}
