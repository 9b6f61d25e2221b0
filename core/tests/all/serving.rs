//! Serving parts (`docs/protocol.md` §12): upload slots, and the handling of bad requests. One node among scripted peers,
//! in virtual time.

use std::time::Duration;

use crate::support::content::{BLOB_BYTES, Content, SEQUENCE};
use crate::support::folder::Folder;
use crate::support::member::{Member, drink};
use crate::support::{Bench, CONFIG, identity};
use megatorrent_core::codec::{EXACT_STEP, Message, Want};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::ids::Root;
use megatorrent_core::limits::{
    PART_SEND_BUFFERS_MAX, PARTS_LOADED_MAX, PIECE_LEN_MAX, UPLOAD_SLOTS, WANTS_MAX,
};
use megatorrent_core::parts::{Mask, PART_LEN, PARTS};
use megatorrent_core::time::Instant;

const MIB: usize = 1 << 20;

/// A channel of this many blobs, and a node that has all of it.
fn seeding(blobs: u8) -> (Content, Bench) {
    let content = Content::new(&identity(), blobs);
    let mut bench = Bench::answering(CONFIG, None);
    content.seed(&mut bench);
    (content, bench)
}

fn join(bench: &mut Bench, port: u16, content: &Content) -> Member {
    Member::join(bench, port, &[content.channel])
}

/// Asks for whole blobs from `first` on, and again from the channel's first on after its last.
fn want_all(bench: &mut Bench, content: &Content, member: &mut Member, wants: usize, first: usize) {
    for n in 0..wants {
        member.want(bench, content.root((first + n) % content.data.len()), Mask::ALL);
    }
}

fn got(member: &Member) -> usize {
    member.pieces.iter().map(|(.., bytes)| bytes.len()).sum()
}

/// The places of the pieces that came, in order.
fn places(member: &Member) -> Vec<(u32, u8, u8)> {
    member.pieces.iter().map(|(number, part, half, _)| (*number, *part, *half)).collect()
}

#[test]
fn parts_come_in_halves_after_the_values_and_no_others_come() {
    let (content, mut bench) = seeding(2);
    let mut peer = join(&mut bench, 1, &content);
    let whole = peer.want(&mut bench, content.root(0), Mask::ALL);
    let some = peer.want(&mut bench, content.root(1), Mask(0b1010));
    peer.hear(&mut bench);
    assert!(
        peer.values
            .iter()
            .all(|(number, values)| { values.root() == content.root(usize::from(*number == some)) })
    );
    let mut named: Vec<u32> = peer.values.iter().map(|(number, _)| *number).collect();
    named.sort_unstable();
    assert_eq!(named, [whole, some], "once for each want");
    for (number, part, half, bytes) in &peer.pieces {
        let right = content.part(usize::from(*number == some), usize::from(*part));
        assert!(right[usize::from(*half) * PIECE_LEN_MAX..][..PIECE_LEN_MAX] == bytes[..]);
    }
    for (number, mask) in [(whole, Mask::ALL), (some, Mask(0b1010))] {
        for part in 0..PARTS {
            let halves = peer.pieces.iter().filter(|it| it.0 == number && usize::from(it.1) == part);
            let halves: Vec<u8> = halves.map(|(_, _, half, _)| *half).collect();
            assert_eq!(halves, if mask.has(part) { vec![0, 1] } else { vec![] }, "{part} of {number}");
        }
    }
    assert_eq!(bench.status().bytes_sent, BLOB_BYTES + 2 * PART_LEN as u64);
}

#[test]
fn the_last_part_is_cut_where_the_peer_says_and_values_come_only_where_it_asks() {
    let (content, mut bench) = seeding(1);
    for (cut, lens) in [
        (EXACT_STEP, &[EXACT_STEP as usize][..]),
        (8 * EXACT_STEP, &[PIECE_LEN_MAX]),
        (9 * EXACT_STEP, &[PIECE_LEN_MAX, EXACT_STEP as usize]),
        (15 * EXACT_STEP, &[PIECE_LEN_MAX, 7 * EXACT_STEP as usize]),
    ] {
        let mut peer = join(&mut bench, 1, &content);
        let (root, mask) = (content.root(0), Mask(0b101));
        let want = Want { number: 7, root, mask, values: false, last_len: Some(cut) };
        peer.peer.send(&mut bench, &Message::Want(want));
        peer.hear(&mut bench);
        let of = |part: u8| {
            let of_part = peer.pieces.iter().filter(move |it| it.1 == part);
            of_part.map(|(.., bytes)| bytes.len()).collect::<Vec<_>>()
        };
        assert_eq!((of(0), of(2)), (vec![PIECE_LEN_MAX; 2], lens.to_vec()), "{cut}");
        assert!(peer.values.is_empty());
        bench.node.disconnected(bench.now, peer.peer.conn);
    }
}

#[test]
fn the_beginning_of_an_index_blob_waits_for_nobody_and_no_other_part_may() {
    let folder = Folder::new(SEQUENCE, &[("a", &[0, 1])]);
    let mut bench = Bench::answering(CONFIG, None);
    folder.store(&mut bench, |_| true);
    folder.follow(&mut bench);
    let mut readers = [1, 2].map(|port| Member::join(&mut bench, port, &[folder.channel]));
    for reader in &mut readers {
        // Nothing is taken of what it is sent.
        reader.want(&mut bench, folder.root("a0"), Mask::ALL);
    }
    let short = |mask, cut| (mask, Some(cut * EXACT_STEP));
    for (port, name, (mask, last_len), comes) in [
        (3, "a*", short(Mask(1), 1), true),
        (4, "a*", short(Mask(1), 8), true),
        (5, "a*", short(Mask(1), 9), false),
        (6, "a*", (Mask(1), None), false),
        (7, "a1", short(Mask(1), 1), false),
    ] {
        let mut asker = Member::join(&mut bench, port, &[folder.channel]);
        let want = Want { number: 0, root: folder.root(name), mask, values: true, last_len };
        asker.peer.send(&mut bench, &Message::Want(want));
        asker.hear(&mut bench);
        assert_eq!(asker.pieces.len(), usize::from(comes), "{name} {last_len:?}");
    }
}

#[test]
fn a_part_that_the_store_has_altered_is_refused_and_not_sent() {
    let (content, mut bench) = seeding(1);
    let mut peer = join(&mut bench, 1, &content);
    peer.want(&mut bench, content.root(0), Mask::ALL);
    peer.hear(&mut bench);
    let stored = bench.world.store.blobs.get_mut(&content.name(0)).expect("it is stored");
    stored[5 * PART_LEN + 3] ^= 1;
    peer.pieces.clear();
    let [others, altered] =
        [Mask::ALL - Mask::one(5), Mask::one(5)].map(|mask| peer.want(&mut bench, content.root(0), mask));
    peer.hear(&mut bench);
    let of = |number| peer.pieces.iter().filter(|it| it.0 == number).map(|it| it.3.len()).sum::<usize>();
    assert_eq!((of(others), of(altered)), ((PARTS - 1) * PART_LEN, 0));
    assert!(peer.pieces.contains(&(altered, 0, 0, Vec::new())));
}

#[test]
fn parts_that_were_served_least_come_first() {
    let (content, mut bench) = seeding(1);
    let mut first = join(&mut bench, 1, &content);
    first.want(&mut bench, content.root(0), Mask::first(12));
    first.hear(&mut bench);
    let mut second = join(&mut bench, 2, &content);
    second.want(&mut bench, content.root(0), Mask::ALL);
    second.hear(&mut bench);
    let order: Vec<u8> = places(&second).into_iter().filter(|it| it.2 == 0).map(|it| it.1).collect();
    let mut rare = order[..4].to_vec();
    rare.sort_unstable();
    assert_eq!(rare, [12, 13, 14, 15], "{order:?}");
}

// --- upload slots -------------------------------------------------------------------------------------------------

#[test]
fn leechers_get_about_the_same_and_a_newcomer_waits_for_two_parts_of_each_at_most() {
    const LEECHERS: u16 = 12;
    const { assert!(LEECHERS as usize > 2 * UPLOAD_SLOTS) }
    let (content, mut bench) = seeding(8);
    let mut leechers: Vec<Member> = (0..LEECHERS).map(|n| join(&mut bench, n, &content)).collect();
    for (n, leecher) in leechers.iter_mut().enumerate() {
        want_all(&mut bench, &content, leecher, 32, n);
    }
    // Five blobs for each.
    while leechers.iter().map(got).sum::<usize>() < 60 * MIB {
        assert!(bench.now < Instant(0) + Duration::from_secs(20), "the uplink is not used");
        drink(&mut bench, 4 * MIB, &mut leechers.iter_mut().collect::<Vec<_>>());
    }
    let each: Vec<usize> = leechers.iter().map(got).collect();
    assert!(each.iter().all(|got| (4 * MIB..=7 * MIB + 1000).contains(got)), "{each:?}");

    let mut newcomer = join(&mut bench, LEECHERS, &content);
    newcomer.want(&mut bench, content.root(0), Mask::one(0));
    let came = bench.now;
    // Two parts of each take less than half a second.
    while got(&newcomer) < PART_LEN {
        assert!(bench.now.since(came) < Duration::from_millis(600), "it waits for more than two of each");
        let all = leechers.iter_mut().chain([&mut newcomer]);
        drink(&mut bench, 4 * MIB, &mut all.collect::<Vec<_>>());
    }
}

#[test]
fn a_peer_that_does_not_read_delays_no_other() {
    let (content, mut bench) = seeding(8);
    // Each holds a buffer, and two are left.
    let mut mute: Vec<Member> = (2..PART_SEND_BUFFERS_MAX / PARTS_LOADED_MAX)
        .map(|n| join(&mut bench, u16::try_from(n).expect("few"), &content))
        .collect();
    for (n, member) in mute.iter_mut().enumerate() {
        want_all(&mut bench, &content, member, 4, n);
    }
    let mut reader = join(&mut bench, 1, &content);
    want_all(&mut bench, &content, &mut reader, 40, 0);
    while got(&reader) < 40 * MIB {
        assert!(bench.now < Instant(0) + Duration::from_secs(30), "it got {} bytes", got(&reader));
        drink(&mut bench, 4 * MIB, &mut [&mut reader]);
        for member in &mut mute {
            member.take(&mut bench, 0);
        }
    }
    assert_eq!(bench.closed, []);
}

// --- requests that are not as they should be ----------------------------------------------------------------------

#[test]
fn a_missing_blob_is_refused_and_others_are_served() {
    let (content, mut bench) = seeding(1);
    let mut peer = join(&mut bench, 1, &content);
    let unknown = peer.want(&mut bench, Root([7; 32]), Mask(0b11));
    let known = peer.want(&mut bench, content.root(0), Mask(0b100));
    peer.hear(&mut bench);
    peer.pieces.sort_unstable();
    let (first, second) = content.part(0, 2).split_at(PIECE_LEN_MAX);
    let pieces = [(known, 2, 0, first.to_vec()), (known, 2, 1, second.to_vec())];
    assert!(peer.pieces[0] == (unknown, 0, 0, Vec::new()) && peer.pieces[1..] == pieces);
    assert_eq!(bench.closed, []);
}

#[test]
fn an_absurd_want_is_malformed() {
    let (content, mut bench) = seeding(1);
    let root = content.root(0);
    let want =
        |mask, last_len| Message::Want(Want { number: 0, root, mask: Mask(mask), values: true, last_len });
    let part_len = u32::try_from(PART_LEN).expect("small");
    for message in [
        want(0, None),
        want(0, Some(EXACT_STEP)),
        want(1, Some(0)),
        want(1, Some(EXACT_STEP - 1)),
        want(1, Some(part_len)),
        want(1, Some(u32::MAX)),
    ] {
        let mut peer = join(&mut bench, 1, &content);
        peer.peer.send(&mut bench, &message);
        peer.hear(&mut bench);
        assert_eq!(peer.errors, ["Malformed Message"]);
        assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::Malformed)));
        bench.events.clear();
    }
}

#[test]
fn more_open_wants_than_the_protocol_allows_end_the_connection_and_so_does_a_number_twice() {
    for (numbers, violation) in [(WANTS_MAX, Violation::TooManyWants), (1, Violation::WantRepeated)] {
        let (content, mut bench) = seeding(1);
        let mut peer = join(&mut bench, 1, &content);
        for n in 0..=numbers {
            assert_eq!(peer.closed_for(&bench), None);
            let number = u32::try_from(if numbers == 1 { 0 } else { n }).expect("few");
            let root = content.root(0);
            let want = Want { number, root, mask: Mask::ALL, values: false, last_len: None };
            peer.peer.send(&mut bench, &Message::Want(want));
        }
        assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(violation)));
    }
}

#[test]
fn cancelled_parts_are_not_sent_and_a_cancel_of_what_is_not_open_does_nothing() {
    let (content, mut bench) = seeding(3);
    let mut peer = join(&mut bench, 1, &content);
    let [whole, some, none] = [0, 1, 2].map(|n| peer.want(&mut bench, content.root(n), Mask::ALL));
    let cancels = [(some, Mask(0xFFF0)), (none, Mask::ALL), (77, Mask::ALL), (whole, Mask::NONE)];
    for (number, mask) in cancels {
        peer.peer.send(&mut bench, &Message::Cancel { number, mask });
    }
    peer.hear(&mut bench);
    let parts = |number| {
        let of = places(&peer).into_iter().filter(move |it| it.0 == number && it.2 == 1);
        of.fold(Mask::NONE, |mask, it| mask | Mask::one(it.1.into()))
    };
    assert_eq!([whole, some, none].map(parts), [Mask::ALL, Mask::first(4), Mask::NONE]);
    // A want that was answered is not open, and its number is free.
    peer.peer.send(&mut bench, &Message::Cancel { number: whole, mask: Mask::ALL });
    let root = content.root(0);
    let again = Want { number: whole, root, mask: Mask(1), values: false, last_len: None };
    peer.peer.send(&mut bench, &Message::Want(again));
    peer.hear(&mut bench);
    for _ in 0..2 * WANTS_MAX {
        let number = peer.want(&mut bench, root, Mask(1));
        peer.peer.send(&mut bench, &Message::Cancel { number, mask: Mask(1) });
    }
    assert_eq!(bench.closed, [], "they do not count as open");
}

#[test]
fn any_number_of_peers_that_do_not_read_delay_no_other() {
    let (content, mut bench) = seeding(8);
    let mut mute: Vec<Member> = (2..22).map(|port| join(&mut bench, port, &content)).collect();
    for (n, member) in mute.iter_mut().enumerate() {
        want_all(&mut bench, &content, member, 4, n);
    }
    let mut reader = join(&mut bench, 1, &content);
    want_all(&mut bench, &content, &mut reader, 40, 0);
    while got(&reader) < 40 * MIB {
        assert!(bench.now < Instant(0) + Duration::from_secs(45), "it got {} bytes", got(&reader));
        drink(&mut bench, 4 * MIB, &mut [&mut reader]);
        for member in &mut mute {
            member.take(&mut bench, 0);
        }
    }
}
