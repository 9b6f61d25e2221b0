//! Peers that take too long, withhold what they are asked for, or refuse it: they hold up nobody, and little comes twice
//! (`docs/policy.md`). One node among scripted peers, in virtual time.

use std::time::Duration;

use crate::support::content::{BLOB_BYTES, Content};
use crate::support::member::{Member, pass};
use crate::support::{Bench, CONFIG, identity};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::limits::{
    ASKED_AT_ONCE_MAX, PART_WINDOW_SEED, PART_WINDOW_START, PARTS_UNDER_WAY_MAX, PIECE_LEN_MAX, SILENCE_MAX,
};
use megatorrent_core::node::{Command, FileRange, Job, Selection};
use megatorrent_core::parts::{Mask, PART_LEN, PARTS, Values};
use megatorrent_core::time::Instant;

const MIB: u64 = 1 << 20;
const PART_BYTES: u64 = PART_LEN as u64;

/// A channel of this many blobs, and a node that follows it and has none of them.
fn fetching(blobs: u8) -> (Content, Bench) {
    let content = Content::new(&identity(), blobs);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    (content, bench)
}

/// Members that have all blobs.
fn seeds<const N: usize>(bench: &mut Bench, content: &Content) -> [Member; N] {
    std::array::from_fn(|n| Member::seed(bench, 1 + u16::try_from(n).expect("few"), content))
}

/// Lets time pass until the content is complete; returns how long that took.
fn complete(bench: &mut Bench, content: &Content, members: &mut [&mut Member], most: Duration) -> Duration {
    let start = bench.now;
    while content.stored(bench) < content.data.len() {
        let took = bench.now.since(start);
        assert!(took < most, "{} blobs after {took:?}", content.stored(bench));
        pass(bench, content, Duration::from_millis(50), members);
    }
    bench.now.since(start)
}

#[test]
fn what_a_peer_withholds_is_asked_of_an_idle_one_after_about_a_second_and_cancelled_once_it_is_stored() {
    let (content, mut bench) = fetching(1);
    let [mut silent, mut honest] = seeds(&mut bench, &content);
    let name = content.name(0);
    honest.bring_all(&mut bench, &content);
    silent.hear(&mut bench);
    let withheld = silent.asked_of(&name);
    assert_eq!(honest.asked_of(&name), !withheld);
    while honest.parts_open() == 0 {
        assert!(bench.now < Instant(0) + Duration::from_secs(2), "nobody else is asked");
        pass(&mut bench, &content, Duration::from_millis(50), &mut [&mut silent]);
        honest.hear(&mut bench);
    }
    assert!(bench.now > Instant(0) + Duration::from_millis(900), "{:?}", bench.now);
    assert_eq!((honest.asked_of(&name), silent.cancelled.len()), (Mask::ALL, 0), "whichever comes first");
    honest.bring(&mut bench, &content, PART_BYTES);
    silent.hear(&mut bench);
    let [(_, first)] = silent.cancelled[..] else { panic!("{:?}", silent.cancelled) };
    assert_eq!(first.len(), 1, "it is stored");
    honest.bring_all(&mut bench, &content);
    silent.hear(&mut bench);
    let cancelled = silent.cancelled.iter().fold(Mask::NONE, |mask, (_, more)| mask | *more);
    assert_eq!((content.stored(&bench), cancelled, silent.open.len()), (1, withheld, 0));
    assert_eq!((bench.status().bytes_duplicate, bench.closed.len()), (0, 0));
}

#[test]
fn the_last_parts_are_asked_of_an_idle_peer_too_before_they_take_long() {
    let (content, mut bench) = fetching(2);
    let [mut busy, mut idle] = seeds(&mut bench, &content);
    idle.bring_all(&mut bench, &content);
    busy.hear(&mut bench);
    let left = busy.parts_open();
    assert_eq!((left, idle.parts_open()), (PART_WINDOW_SEED, 0), "they are not the last ones");
    busy.bring(&mut bench, &content, (left as u64 - 3) * PART_BYTES);
    idle.bytes_per_sec = 4 * MIB;
    let took = complete(&mut bench, &content, &mut [&mut idle], Duration::from_secs(2));
    assert!(
        took < Duration::from_millis(900),
        "{took:?}, and what is slow is asked for elsewhere after that"
    );
    busy.hear(&mut bench);
    let cancelled: usize = busy.cancelled.iter().map(|(_, mask)| mask.len()).sum();
    assert_eq!((cancelled, busy.parts_open()), (3, 0));
    assert_eq!((bench.status().bytes_duplicate, bench.closed.len()), (0, 0));
}

#[test]
fn content_of_few_parts_is_not_asked_for_twice_at_once() {
    let content = Content::of_len(&identity(), 3 * PART_LEN - 100);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let [mut silent, mut honest] = seeds(&mut bench, &content);
    honest.bring_all(&mut bench, &content);
    silent.hear(&mut bench);
    let name = content.name(0);
    assert_eq!(
        silent.asked_of(&name) & honest.asked_of(&name),
        Mask::NONE,
        "a part is more than a quarter of what came"
    );
    honest.bytes_per_sec = 4 * MIB;
    complete(&mut bench, &content, &mut [&mut honest], Duration::from_secs(6));
}

#[test]
fn a_peer_that_withholds_the_values_holds_up_nobody() {
    let (content, mut bench) = fetching(2);
    let [silent, mut honest] = seeds(&mut bench, &content);
    assert_eq!(silent.parts_open(), PART_WINDOW_START);
    honest.bytes_per_sec = 4 * MIB;
    complete(&mut bench, &content, &mut [&mut honest], Duration::from_secs(4));
    assert_eq!((silent.closed_for(&bench), bench.status().bytes_duplicate), (None, 0));
}

#[test]
fn a_peer_that_trickles_holds_up_nobody_and_little_comes_twice() {
    let (content, mut bench) = fetching(12);
    let [mut slow, mut fast] = seeds(&mut bench, &content);
    (slow.bytes_per_sec, fast.bytes_per_sec) = (20_000, 4 * MIB);
    let took = complete(&mut bench, &content, &mut [&mut slow, &mut fast], Duration::from_secs(8));
    assert!(took < Duration::from_secs(6), "{took:?}, and three seconds without it");
    let status = bench.status();
    assert_eq!(status.bytes_received, 12 * BLOB_BYTES);
    assert!(status.bytes_duplicate <= 8 * PART_BYTES, "{} bytes came twice", status.bytes_duplicate);
    assert_eq!(bench.closed, []);
}

#[test]
fn what_waits_at_a_busy_peer_moves_to_an_idle_one_once() {
    let (content, mut bench) = fetching(1);
    let mut busy = Member::seed(&mut bench, 1, &content).at(60_000);
    // It is known how fast it is.
    pass(&mut bench, &content, Duration::from_secs(4), &mut [&mut busy]);
    let mut idle = Member::seed(&mut bench, 2, &content).at(4 * MIB);
    let took = complete(&mut bench, &content, &mut [&mut busy, &mut idle], Duration::from_secs(2));
    assert!(took < Duration::from_secs(1), "{took:?}, and a part alone takes the busy one as long");
    busy.hear(&mut bench);
    let mut cancelled = Mask::NONE;
    for (name, mask) in &busy.cancelled {
        assert_eq!((*name, (cancelled & *mask).is_empty()), (content.name(0), true));
        cancelled = cancelled | *mask;
    }
    assert!(!cancelled.is_empty() && idle.asked_of(&content.name(0)).covers(cancelled));
    assert_eq!((idle.cancelled.len(), bench.closed.len()), (0, 0));
}

#[test]
fn what_waits_at_a_quick_peer_that_has_fallen_silent_moves_too() {
    let (content, mut bench) = fetching(1);
    let mut busy = Member::seed(&mut bench, 1, &content).at(2 * MIB);
    pass(&mut bench, &content, Duration::from_millis(300), &mut [&mut busy]);
    assert!(busy.parts_open() > 0);
    // Its line serves others from here on.
    let mut idle = Member::seed(&mut bench, 2, &content).at(4 * MIB);
    let took = complete(&mut bench, &content, &mut [&mut idle], Duration::from_secs(4));
    assert!(took < Duration::from_millis(1400), "{took:?}");
    busy.hear(&mut bench);
    assert!(!busy.cancelled.is_empty());
    assert_eq!((busy.closed_for(&bench), bench.status().bytes_duplicate), (None, 0));
}

#[test]
fn two_peers_that_withhold_hold_up_nobody() {
    let (content, mut bench) = fetching(4);
    let silent: [Member; 2] = seeds(&mut bench, &content);
    let mut honest = Member::seed(&mut bench, 50, &content).at(2 * MIB);
    complete(&mut bench, &content, &mut [&mut honest], Duration::from_secs(8));
    assert!(silent.iter().all(|peer| peer.closed_for(&bench).is_none()));
    assert_eq!(bench.status().bytes_duplicate, 0);
}

#[test]
fn however_many_peers_withhold_the_rest_is_had_from_the_one_that_brings() {
    let (content, mut bench) = fetching(4);
    let mut silent: [Member; 20] = seeds(&mut bench, &content);
    let mut honest = Member::seed(&mut bench, 50, &content).at(2 * MIB);
    let members = silent.iter_mut().chain([&mut honest]);
    complete(&mut bench, &content, &mut members.collect::<Vec<_>>(), Duration::from_secs(15));
    assert_eq!((honest.closed_for(&bench), bench.status().bans), (None, 0));
}

#[test]
fn a_peer_that_brings_nothing_at_all_is_closed_in_the_end() {
    let (content, mut bench) = fetching(1);
    let [mut silent] = seeds(&mut bench, &content);
    pass(&mut bench, &content, SILENCE_MAX.saturating_sub(Duration::from_secs(1)), &mut [&mut silent]);
    assert_eq!(silent.closed_for(&bench), None);
    pass(&mut bench, &content, Duration::from_secs(2), &mut [&mut silent]);
    assert_eq!((silent.closed_for(&bench), bench.status().bans), (Some(CloseReason::Stalled), 0));
}

#[test]
fn no_part_is_asked_of_more_peers_at_once_than_allowed() {
    let content = Content::of_len(&identity(), 60_000);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let mut silent: [Member; 8] = seeds(&mut bench, &content);
    pass(&mut bench, &content, Duration::from_secs(4), &mut silent.each_mut());
    let asked = silent.iter().filter(|peer| peer.parts_open() > 0).count();
    assert_eq!(asked, ASKED_AT_ONCE_MAX);
    // One of them refuses: another has its place.
    let refusing = silent.iter_mut().find(|peer| peer.parts_open() > 0).expect("some are asked");
    refusing.refuse(&mut bench);
    pass(&mut bench, &content, Duration::from_secs(2), &mut silent.each_mut());
    assert_eq!(silent.iter().filter(|peer| peer.parts_open() > 0).count(), ASKED_AT_ONCE_MAX);
    assert_eq!(silent.iter().map(Member::parts_asked).sum::<usize>(), ASKED_AT_ONCE_MAX + 1);
}

#[test]
fn of_two_peers_that_bring_the_same_part_the_first_counts_and_the_second_is_a_duplicate() {
    let content = Content::of_len(&identity(), 60_000);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let [mut first, mut second] = seeds(&mut bench, &content);
    pass(&mut bench, &content, Duration::from_secs(2), &mut [&mut first, &mut second]);
    assert_eq!((first.parts_open(), second.parts_open()), (1, 1));
    // Both have begun; the second is in flight when the first is stored.
    first.bring(&mut bench, &content, PART_BYTES / 2);
    second.bring(&mut bench, &content, PART_BYTES / 2);
    let in_flight = second.open[0].clone();
    first.bring(&mut bench, &content, PART_BYTES / 2);
    assert_eq!(content.stored(&bench), 1);
    let number = in_flight.number.expect("it was a WANT");
    second.send_piece(&mut bench, number, (0, 1), &content.part(0, 0)[PIECE_LEN_MAX..]);
    assert_eq!((second.closed_for(&bench), second.cancelled.len()), (None, 1));
    assert_eq!(bench.status().bytes_duplicate, PIECE_LEN_MAX as u64);
    // No more of it could have been in flight.
    second.send_piece(&mut bench, number, (0, 1), &content.part(0, 0)[PIECE_LEN_MAX..]);
    assert_eq!(second.closed_for(&bench), Some(CloseReason::Violation(Violation::UnaskedData)));
}

#[test]
fn wrong_bytes_of_the_slower_peer_ban_it_only_where_they_are_looked_at() {
    let content = Content::of_len(&identity(), 60_000);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let [mut liar, mut honest] = seeds(&mut bench, &content);
    pass(&mut bench, &content, Duration::from_secs(2), &mut [&mut liar, &mut honest]);
    liar.send_values(&mut bench, 0, Values::of(&content.data[0].1));
    liar.send_piece(&mut bench, 0, (0, 0), &vec![9; PIECE_LEN_MAX]);
    honest.bring(&mut bench, &content, PART_BYTES / 2);
    liar.send_piece(&mut bench, 0, (0, 1), &vec![9; PIECE_LEN_MAX]);
    assert!(liar.closed_for(&bench).is_some());
    honest.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), bench.status().bans, honest.parts_asked()), (1, 1, 1));
}

#[test]
fn what_comes_twice_from_many_peers_that_trickle_is_bounded() {
    let (content, mut bench) = fetching(24);
    let mut slow: [Member; 6] = seeds(&mut bench, &content);
    let mut fast = [50, 51].map(|port| Member::seed(&mut bench, port, &content).at(4 * MIB));
    for peer in &mut slow {
        peer.bytes_per_sec = 15_000;
    }
    let all = slow.iter_mut().chain(&mut fast);
    complete(&mut bench, &content, &mut all.collect::<Vec<_>>(), Duration::from_secs(12));
    let status = bench.status();
    assert!(status.bytes_duplicate <= status.bytes_received / 40 + MIB, "{}", status.bytes_duplicate);
    assert_eq!((status.bytes_received, bench.closed.len()), (24 * BLOB_BYTES, 0));
}

#[test]
fn what_is_wanted_by_a_deadline_is_asked_of_a_busy_peer_too() {
    for is_urgent in [false, true] {
        let (content, mut bench) = fetching(8);
        if is_urgent {
            let bytes = 0..PART_BYTES * 4;
            let range = FileRange { path: "file".into(), bytes, deadline: Some(Instant(0)) };
            let selection = Selection { ranges: vec![range], ..Selection::default() };
            bench.command(Command::Select { channel: content.channel, selection });
        }
        let mut silent = Member::with(&mut bench, 1, &content, &[0]);
        let withheld = silent.asked_of(&content.name(0));
        let mut busy = Member::seed(&mut bench, 2, &content).at(PART_BYTES * 4);
        pass(&mut bench, &content, Duration::from_secs(4), &mut [&mut silent, &mut busy]);
        assert!(busy.parts_open() > 0);
        let is_asked = busy.asked_of(&content.name(0)).covers(withheld);
        assert_eq!(is_asked, is_urgent);
    }
}

// --- as much as can be under way ----------------------------------------------------------------------------------

#[test]
fn a_store_that_is_slower_than_the_peers_bounds_what_is_under_way_and_nothing_is_lost() {
    let (content, mut bench) = fetching(26);
    let mut silent = Member::seed(&mut bench, 1, &content);
    let mut fast = Member::seed(&mut bench, 2, &content);
    silent.hear(&mut bench);
    let withheld = silent.parts_open() as u64;
    bench.answers = false;
    fast.bring_all(&mut bench, &content);
    let writes = bench.jobs.iter().filter(|(_, job)| matches!(job, Job::WritePart(..))).count();
    assert_eq!(writes + silent.parts_open(), PARTS_UNDER_WAY_MAX);
    // What the one withholds is asked of the other, and both bring it at the same time.
    bench.sleep(Duration::from_secs(2));
    fast.hear(&mut bench);
    assert!(fast.parts_open() as u64 >= withheld, "{}", fast.parts_open());
    for _ in 0..2 * withheld {
        silent.bring(&mut bench, &content, PART_BYTES / 2);
        fast.bring(&mut bench, &content, PART_BYTES / 2);
    }
    (bench.answers, silent.bytes_per_sec, fast.bytes_per_sec) = (true, 4 * MIB, 4 * MIB);
    bench.answer_jobs();
    complete(&mut bench, &content, &mut [&mut silent, &mut fast], Duration::from_secs(10));
    assert_eq!(bench.closed, []);
}

// --- refusals -----------------------------------------------------------------------------------------------------

#[test]
fn a_refused_want_goes_elsewhere_at_once_and_comes_back_after_a_while() {
    let (content, mut bench) = fetching(1);
    let [mut refusing, mut other] = seeds(&mut bench, &content);
    refusing.hear(&mut bench);
    let asked = refusing.parts_asked();
    refusing.refuse(&mut bench);
    assert_eq!(refusing.parts_asked(), asked, "it is asked for nothing more of it");
    other.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), other.parts_asked()), (1, PARTS));
    assert_eq!((bench.closed.len(), bench.status().bans), (0, 0));

    let (content, mut bench) = fetching(1);
    let [mut alone] = seeds(&mut bench, &content);
    alone.refuse(&mut bench);
    pass(&mut bench, &content, Duration::from_secs(20), &mut [&mut alone]);
    alone.bring_all(&mut bench, &content);
    assert_eq!(content.stored(&bench), 1, "it may have got it");
}

#[test]
fn a_peer_that_refuses_one_blob_is_asked_for_others() {
    let (content, mut bench) = fetching(3);
    let [mut peer] = seeds(&mut bench, &content);
    let lacking = peer.asked_for(&content);
    peer.refuse(&mut bench);
    peer.bring_all(&mut bench, &content);
    assert_eq!((lacking.len(), content.stored(&bench)), (1, 2));
    assert!(bench.world.store.here(&content.root(lacking[0])).is_empty());
}
