//! Serving ranges (`docs/protocol.md` §12): upload slots, and the handling of bad requests. One node among scripted peers,
//! in virtual time.

mod support;

use std::time::Duration;

use megatorrent_core::codec::Message;
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::ids::BlobName;
use megatorrent_core::limits::{PIECE_LEN_MAX, SEND_BUFFERS_MAX, UPLOAD_SLOTS, WANTS_MAX};
use megatorrent_core::time::Instant;
use support::content::{BLOB_END, Content};
use support::member::{Member, drink};
use support::{Bench, CONFIG, identity};

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
        member.want(bench, content.id((first + n) % content.data.len()), 0..BLOB_END);
    }
}

fn got(member: &Member) -> usize {
    member.pieces.iter().map(|(.., bytes)| bytes.len()).sum()
}

#[test]
fn a_range_comes_in_pieces_in_order_and_without_gaps() {
    let (content, mut bench) = seeding(2);
    let mut peer = join(&mut bench, 1, &content);
    let whole = peer.want(&mut bench, content.id(0), 0..BLOB_END);
    let part = peer.want(&mut bench, content.id(1), 1000..BLOB_END - 1);
    peer.hear(&mut bench);
    for (id, blob, start) in [(whole, 0, 0), (part, 1, 1000)] {
        let mut next = start;
        for (_, offset, bytes) in peer.pieces.iter().filter(|(piece, ..)| *piece == id) {
            let at = *offset as usize;
            assert_eq!(at, next);
            assert!((1..=PIECE_LEN_MAX).contains(&bytes.len()));
            assert!(content.data[blob].1[at..at + bytes.len()] == bytes[..]);
            next += bytes.len();
        }
        assert_eq!(next, BLOB_END as usize - usize::from(id == part));
    }
    assert_eq!(bench.status().bytes_sent, 2 * u64::from(BLOB_END) - 1001);
}

// --- upload slots -------------------------------------------------------------------------------------------------

#[test]
fn leechers_get_about_the_same_and_a_newcomer_waits_for_two_of_each_at_most() {
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
    newcomer.want(&mut bench, content.id(0), 0..BLOB_END);
    let came = bench.now;
    while got(&newcomer) < BLOB_END as usize {
        assert!(bench.now.since(came) < Duration::from_secs(7), "it waits for more than two blobs of each");
        let all = leechers.iter_mut().chain([&mut newcomer]);
        drink(&mut bench, 4 * MIB, &mut all.collect::<Vec<_>>());
    }
}

#[test]
fn a_peer_that_does_not_read_delays_no_other() {
    let (content, mut bench) = seeding(8);
    // Each holds a buffer, and two are left.
    let mut mute: Vec<Member> =
        (2..SEND_BUFFERS_MAX).map(|n| join(&mut bench, u16::try_from(n).expect("few"), &content)).collect();
    for (n, member) in mute.iter_mut().enumerate() {
        want_all(&mut bench, &content, member, 4, n);
    }
    let mut reader = join(&mut bench, 1, &content);
    want_all(&mut bench, &content, &mut reader, 40, 0);
    while got(&reader) < 40 * BLOB_END as usize {
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
fn a_range_of_a_missing_blob_is_refused_and_others_are_served() {
    let (content, mut bench) = seeding(1);
    let mut peer = join(&mut bench, 1, &content);
    let unknown = peer.want(&mut bench, BlobName([7; 32]), 100..200);
    let known = peer.want(&mut bench, content.id(0), 100..200);
    peer.hear(&mut bench);
    peer.pieces.sort_unstable();
    let bytes = content.data[0].1[100..200].to_vec();
    assert_eq!(peer.pieces, [(unknown, 100, Vec::new()), (known, 100, bytes)]);
    assert_eq!(bench.closed, []);
}

#[test]
fn an_absurd_range_is_malformed() {
    let (content, mut bench) = seeding(1);
    let want = |range| Message::Want { id: 0, blob: content.id(0), range }.encode();
    let mut wraps = want(u32::MAX - 1..u32::MAX);
    // The length, at its end, becomes 23: beyond the greatest offset.
    *wraps.last_mut().expect("a length") = 23;
    for plaintext in [want(5..5), want(0..BLOB_END + 1), want(BLOB_END..BLOB_END + 1), wraps] {
        let mut peer = join(&mut bench, 1, &content);
        peer.peer.send_plaintext(&mut bench, &plaintext);
        peer.hear(&mut bench);
        assert_eq!(peer.errors, ["Malformed Message"]);
        assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::Malformed)));
    }
    let mut peer = join(&mut bench, 1, &content);
    peer.want(&mut bench, content.id(0), BLOB_END - 1..BLOB_END);
    peer.hear(&mut bench);
    assert_eq!((got(&peer), peer.closed_for(&bench)), (1, None));
}

#[test]
fn more_open_ranges_than_the_protocol_allows_end_the_connection_and_so_does_a_number_twice() {
    for (numbers, violation) in [(WANTS_MAX, Violation::TooManyWants), (1, Violation::WantRepeated)] {
        let (content, mut bench) = seeding(1);
        let mut peer = join(&mut bench, 1, &content);
        for n in 0..=numbers {
            assert_eq!(peer.closed_for(&bench), None);
            let id = u32::try_from(if numbers == 1 { 0 } else { n }).expect("few");
            let message = Message::Want { id, blob: content.id(0), range: 0..BLOB_END };
            peer.peer.send(&mut bench, &message);
        }
        assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(violation)));
    }
}

#[test]
fn a_cancel_cuts_its_range_and_one_of_no_open_range_does_nothing() {
    let (content, mut bench) = seeding(3);
    let mut peer = join(&mut bench, 1, &content);
    let ids = [0, 1, 2].map(|n| peer.want(&mut bench, content.id(n), 0..BLOB_END));
    for (id, from) in [(ids[1], 300_000), (ids[2], 0), (77, 0), (ids[0], BLOB_END), (ids[0], u32::MAX)] {
        peer.peer.send(&mut bench, &Message::Cancel { id, from });
    }
    peer.hear(&mut bench);
    let end = |id| {
        let pieces = peer.pieces.iter().filter(|(piece, ..)| *piece == id);
        pieces.map(|(_, offset, bytes)| *offset as usize + bytes.len()).max()
    };
    assert_eq!(ids.map(end), [Some(BLOB_END as usize), Some(300_000), None]);
    // A completed range is not open.
    peer.peer.send(&mut bench, &Message::Cancel { id: ids[0], from: 0 });
    assert_eq!(bench.closed, []);
    for _ in 0..WANTS_MAX {
        peer.want(&mut bench, content.id(0), 0..1);
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
    while got(&reader) < 40 * BLOB_END as usize {
        assert!(bench.now < Instant(0) + Duration::from_secs(45), "it got {} bytes", got(&reader));
        drink(&mut bench, 4 * MIB, &mut [&mut reader]);
        for member in &mut mute {
            member.take(&mut bench, 0);
        }
    }
}
