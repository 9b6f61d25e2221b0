//! Availability (`docs/protocol.md` §12): the HAVEs that a node takes from its peers, and those that it sends.

use std::time::Duration;

use crate::support::content::{BLOB_BYTES, Content, SEQUENCE};
use crate::support::member::{Member, all, bitmap, parts_of, positions};
use crate::support::{Bench, CONFIG, author, identity};
use megatorrent_core::codec::{Have, Message};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::limits::{
    HAVE_BLOBS_MAX, HAVE_BYTES_MAX, HAVE_INTERVAL_MIN, HAVE_POSITIONS_MAX, HAVE_UNDER_WAY_MAX,
    PART_WINDOW_START, UNASKED_BYTES_BURST,
};
use megatorrent_core::node::Command;
use megatorrent_core::parts::{Mask, PARTS};

fn following(contents: &[Content]) -> Bench {
    let mut bench = Bench::answering(CONFIG, None);
    for content in contents {
        content.follow(&mut bench);
    }
    bench
}

#[test]
fn a_peers_claims_take_bounded_memory_and_claims_that_do_not_fit_are_ignored() {
    let contents = [3, 4, 5].map(|n| Content::new(&author(n), 1));
    let channels = [0, 1, 2].map(|n| contents[n].channel);
    let claim = |bench: &mut Bench, member: &mut Member, channel: usize, have: Have| {
        let have = Message::Have(member.tags[channel], SEQUENCE, have);
        member.peer.send(bench, &have);
        member.hear(bench);
    };
    let last = u32::try_from(HAVE_BLOBS_MAX - 1).expect("small");
    let only = positions([contents[2].position(0)]);
    // Each claim takes an eighth of a byte for every position up to the highest.
    const { assert!(HAVE_BYTES_MAX == 2 * (HAVE_BLOBS_MAX / 8)) }
    for (claims, is_asked) in [(0, true), (1, true), (2, false)] {
        let mut bench = following(&contents);
        let mut peer = Member::join(&mut bench, 1, &channels);
        for channel in 0..claims {
            claim(&mut bench, &mut peer, channel, positions([last]));
        }
        claim(&mut bench, &mut peer, 2, only.clone());
        assert_eq!(!peer.asked.is_empty(), is_asked, "after {claims} claims");
        assert_eq!(bench.closed, []);
        // A claim of everything takes no memory.
        claim(&mut bench, &mut peer, 2, all());
        assert_eq!(peer.asked_for(&contents[2]), [0]);
    }
}

#[test]
fn a_have_counts_only_for_a_channel_that_both_watch() {
    let [content, unknown] = [3, 4].map(|n| Content::new(&author(n), 1));
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::join(&mut bench, 1, &[content.channel, unknown.channel]);
    for have in [all(), positions([1]), bitmap(&[0xFF; 100])] {
        peer.peer.send(&mut bench, &Message::Have(peer.tags[1], SEQUENCE, have));
    }
    peer.peer.send(&mut bench, &Message::AskHave(peer.tags[1], SEQUENCE));
    peer.peer.send(&mut bench, &Message::Watch(Vec::new()));
    peer.has(&mut bench, &content, &[0]);
    peer.ask_have(&mut bench, SEQUENCE);
    assert_eq!((peer.asked.len(), peer.told.len(), bench.closed.len()), (0, 0, 0));
    peer.peer.send(&mut bench, &Message::Watch(peer.tags.clone()));
    peer.has(&mut bench, &content, &[0]);
    assert_eq!(peer.asked.len(), 1);
}

#[test]
fn a_have_adds_to_earlier_ones_and_one_of_an_older_version_changes_nothing() {
    let content = Content::new(&identity(), 3);
    let mut bench = following(std::slice::from_ref(&content));
    let holder = Member::with(&mut bench, 1, &content, &[0]);
    assert_eq!(holder.asked.len(), 1);
    let mut peer = Member::with(&mut bench, 2, &content, &[0]);
    peer.has(&mut bench, &content, &[1]);
    peer.peer.send(&mut bench, &Message::Have(peer.tags[0], SEQUENCE - 1, all()));
    bench.node.disconnected(bench.now, holder.peer.conn);
    bench.drain();
    peer.bring_all(&mut bench, &content);
    let mut asked = peer.asked_for(&content);
    asked.sort_unstable();
    assert_eq!(asked, [0, 1]);
}

#[test]
fn an_asker_is_told_at_once_and_then_at_intervals_and_all_peers_at_the_end() {
    let content = Content::new(&identity(), 12);
    let mut bench = following(std::slice::from_ref(&content));
    let mut source = Member::with(&mut bench, 1, &content, &(0..12).collect::<Vec<_>>());
    let mut asker = Member::join(&mut bench, 2, &[content.channel]);
    assert!(asker.told.is_empty(), "it has not asked");
    asker.ask_have(&mut bench, SEQUENCE);
    asker.ask_have(&mut bench, SEQUENCE);
    asker.ask_have(&mut bench, SEQUENCE - 1);
    let told: Vec<&Have> = asker.told.iter().map(|(_, have)| have).collect();
    assert_eq!(told, [&bitmap(&[0b1110_0000])], "once for each version");

    for _ in 0..4 * 11 {
        bench.sleep(Duration::from_millis(25));
        source.bring(&mut bench, &content, BLOB_BYTES / 4);
        asker.hear(&mut bench);
    }
    assert_eq!(content.stored(&bench), 11);
    bench.sleep(HAVE_INTERVAL_MIN);
    asker.hear(&mut bench);
    assert!(asker.told.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= HAVE_INTERVAL_MIN));
    assert!(asker.told[1..].iter().all(|(_, have)| have.bitmap.is_empty() && !have.replaces));
    let told: Vec<u32> = asker.told[1..].iter().flat_map(|(_, have)| have.positions.clone()).collect();
    let missing = content.number(&source.open[0].blob);
    let stored = (0..12).filter(|n| *n != missing).map(|n| content.position(n));
    assert_eq!(sorted(told), stored.collect::<Vec<u32>>(), "each once");

    source.bring(&mut bench, &content, BLOB_BYTES);
    asker.hear(&mut bench);
    assert_eq!(asker.told.last(), Some(&(bench.now, all())), "at once");
    assert_eq!(source.told, [(bench.now, all())], "even a peer that did not ask");
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

// --- parts under way ----------------------------------------------------------------------------------------------

/// Bytes of two parts.
const TWO: u64 = BLOB_BYTES / 8;

#[test]
fn parts_that_are_stored_are_told_and_served_while_the_rest_is_under_way() {
    let content = Content::new(&identity(), 1);
    let mut bench = following(std::slice::from_ref(&content));
    let mut source = Member::with(&mut bench, 1, &content, &[0]);
    let mut asker = Member::join(&mut bench, 2, &[content.channel]);
    asker.ask_have(&mut bench, SEQUENCE);
    let (root, at) = (content.root(0), content.position(0));
    let mut told = Mask::NONE;
    for _ in 0..3 {
        source.bring(&mut bench, &content, TWO);
        bench.sleep(HAVE_INTERVAL_MIN);
        asker.hear(&mut bench);
        let here = bench.world.store.here(&root);
        let (_, newest) = asker.told.last().expect("it is told");
        assert_eq!(newest.under_way, [(at, here - told)], "only what is news");
        told = here;
    }
    assert_eq!((told.len(), asker.told_parts()[&at]), (6, told));

    let number = asker.want(&mut bench, root, told);
    asker.hear(&mut bench);
    assert_eq!(asker.values.iter().map(|(_, values)| values.root()).collect::<Vec<_>>(), [root]);
    assert_eq!(asker.pieces.len(), 12);
    for (of, part, half, bytes) in std::mem::take(&mut asker.pieces) {
        let start = usize::from(half) * bytes.len();
        assert!(of == number && content.part(0, part.into())[start..start + bytes.len()] == bytes[..]);
    }
    let missing = asker.want(&mut bench, root, !told);
    asker.hear(&mut bench);
    assert_eq!(asker.pieces, [(missing, 0, 0, Vec::new())], "what it lacks is refused");
}

#[test]
fn an_asker_is_not_told_of_parts_that_it_has_itself() {
    let content = Content::new(&identity(), 1);
    let mut bench = following(std::slice::from_ref(&content));
    let mut source = Member::with(&mut bench, 1, &content, &[0]);
    let first = source.asked_of(&content.name(0));
    assert_eq!(first.len(), PART_WINDOW_START);
    let own = Mask::one(first.iter().next().expect("some"));
    let mut asker = Member::join(&mut bench, 2, &[content.channel]);
    asker.say_have(&mut bench, parts_of(content.position(0), own));
    asker.ask_have(&mut bench, SEQUENCE);
    source.bring(&mut bench, &content, PART_WINDOW_START as u64 * TWO / 2);
    bench.sleep(HAVE_INTERVAL_MIN);
    asker.hear(&mut bench);
    assert_eq!(asker.told_parts(), [(content.position(0), first - own)].into());
}

#[test]
fn of_a_blob_under_way_a_peer_is_asked_for_the_parts_that_it_told_of() {
    let content = Content::new(&identity(), 1);
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::join(&mut bench, 1, &[content.channel]);
    let (at, name) = (content.position(0), content.name(0));
    peer.say_have(&mut bench, parts_of(at, Mask(0b100)));
    assert_eq!(peer.asked_of(&name), Mask(0b100));
    peer.bring_all(&mut bench, &content);
    peer.say_have(&mut bench, parts_of(at, Mask(0b1_1000)));
    assert_eq!(peer.asked_of(&name), Mask(0b1_1100), "it adds to what was said");
    peer.bring_all(&mut bench, &content);
    peer.has(&mut bench, &content, &[0]);
    peer.bring_all(&mut bench, &content);
    assert_eq!((peer.asked_of(&name), peer.parts_asked()), (Mask::ALL, PARTS), "none twice");
    assert_eq!(content.stored(&bench), 1);
}

#[test]
fn what_a_peer_tells_of_blobs_under_way_is_bounded_over_all_channels() {
    let contents = [3, 4].map(|n| Content::new(&author(n), 1));
    let channels = [0, 1].map(|n| contents[n].channel);
    for (others, is_asked) in [(HAVE_UNDER_WAY_MAX - 1, true), (HAVE_UNDER_WAY_MAX, false)] {
        let mut bench = following(&contents);
        let mut peer = Member::join(&mut bench, 1, &channels);
        let others = u32::try_from(others).expect("few");
        let under_way = (0..others).map(|n| (1000 + n, Mask(1))).collect();
        peer.say_have(&mut bench, Have { under_way, ..Have::default() });
        let told = parts_of(contents[1].position(0), Mask(0b11));
        peer.peer.send(&mut bench, &Message::Have(peer.tags[1], SEQUENCE, told));
        peer.hear(&mut bench);
        assert_eq!((peer.parts_asked() > 0, bench.closed.len()), (is_asked, 0));
    }
}

#[test]
fn a_have_that_replaces_takes_back_what_was_said_before() {
    let content = Content::new(&identity(), 3);
    for had in [all(), positions((0..3).map(|n| content.position(n)))] {
        let mut bench = Bench::answering(CONFIG, None);
        bench.command(Command::Follow { channel: content.channel, read_key: None });
        let mut peer = Member::join(&mut bench, 1, &[content.channel]);
        // Nothing is known to be missing yet.
        peer.say_have(&mut bench, had);
        peer.say_have(&mut bench, Have { replaces: true, ..positions([content.position(1)]) });
        content.follow(&mut bench);
        bench.sleep(Duration::from_secs(10));
        peer.hear(&mut bench);
        peer.say_have(&mut bench, positions([content.position(1)]));
        peer.bring_all(&mut bench, &content);
        assert_eq!(peer.asked_for(&content), [1]);
    }
}

#[test]
fn a_have_that_replaces_leaves_what_is_under_way() {
    let content = Content::new(&identity(), 2);
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::seed(&mut bench, 1, &content);
    let [first] = peer.asked_for(&content)[..] else { panic!("it is asked for parts of one") };
    let now = Have { replaces: true, ..positions([content.position(first)]) };
    peer.say_have(&mut bench, now);
    peer.bring_all(&mut bench, &content);
    assert_eq!((peer.asked_for(&content), content.stored(&bench)), (vec![first], 1));
    assert_eq!(peer.cancelled, []);
}

#[test]
fn whoever_takes_back_what_it_said_may_ask_again() {
    let content = Content::new(&identity(), 2);
    let mut bench = following(std::slice::from_ref(&content));
    let mut seed = Member::seed(&mut bench, 1, &content);
    let mut asker = Member::with(&mut bench, 2, &content, &[0]);
    seed.bring(&mut bench, &content, BLOB_BYTES + BLOB_BYTES / 2);
    asker.ask_have(&mut bench, SEQUENCE);
    bench.sleep(Duration::from_secs(1));
    asker.hear(&mut bench);
    let told = asker.told.len();
    assert!(told > 0);
    asker.ask_have(&mut bench, SEQUENCE);
    assert_eq!(asker.told.len(), told, "it was told");
    asker.say_have(&mut bench, Have { replaces: true, ..Have::default() });
    bench.sleep(Duration::from_secs(1));
    asker.ask_have(&mut bench, SEQUENCE);
    assert_eq!(asker.told.len(), told + 1);
}

#[test]
fn what_a_peer_still_has_is_asked_of_it_at_once_whatever_it_refused_and_asks_itself() {
    let content = Content::new(&identity(), 2);
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::seed(&mut bench, 1, &content);
    let began = bench.now;
    // It has lost a part of a blob, and refuses what was asked of that one and of the other.
    while !peer.open.is_empty() {
        let number = peer.open.remove(0).number.expect("parts are asked for");
        peer.send_piece(&mut bench, number, (0, 0), &[]);
    }
    peer.hear(&mut bench);
    let asked = peer.parts_asked();
    assert!(peer.open.is_empty());
    let under_way = vec![(content.position(0), Mask::ALL - Mask::one(3))];
    peer.say_have(&mut bench, Have { replaces: true, under_way, ..positions([content.position(1)]) });
    peer.ask_have(&mut bench, SEQUENCE);
    peer.bring_all(&mut bench, &content);
    assert_eq!((peer.parts_asked() - asked, content.stored(&bench)), (2 * PARTS - 1, 1));
    assert!(
        bench.now.since(began) < Duration::from_secs(1),
        "before peers are asked again for the sake of it"
    );
}

#[test]
fn whoever_was_told_of_lost_blobs_is_told_that_they_are_gone() {
    let content = Content::new(&identity(), 3);
    let mut bench = following(std::slice::from_ref(&content));
    let mut seed = Member::seed(&mut bench, 1, &content);
    let mut other = Member::join(&mut bench, 2, &[content.channel]);
    other.ask_have(&mut bench, SEQUENCE);
    seed.bring_all(&mut bench, &content);
    other.hear(&mut bench);
    assert!(other.told.iter().any(|(_, have)| have.all));
    bench.world.store.blobs.remove(&content.name(1));
    other.want(&mut bench, content.root(1), Mask::ALL);
    other.hear(&mut bench);
    other.told.clear();
    bench.sleep(Duration::from_secs(3));
    other.hear(&mut bench);
    let (_, first) = other.told.first().expect("it is told");
    assert!(first.replaces && !first.all, "{first:?}");
    let has_lost = |have: &Have| have.positions.contains(&content.position(1));
    assert!(!other.told.iter().any(|(_, have)| have.all || has_lost(have)));
}

#[test]
fn a_question_about_an_unknown_version_is_answered_once_it_is_known() {
    let content = Content::new(&identity(), 1);
    let mut bench = following(&[]);
    bench.command(Command::Follow { channel: content.channel, read_key: None });
    let mut asker = Member::join(&mut bench, 1, &[content.channel]);
    asker.ask_have(&mut bench, SEQUENCE);
    assert!(asker.told.is_empty());
    content.follow(&mut bench);
    bench.sleep(Duration::from_secs(10));
    asker.hear(&mut bench);
    let told: Vec<&Have> = asker.told.iter().map(|(_, have)| have).collect();
    assert_eq!(told, [&bitmap(&[0b1100_0000])]);
    assert_eq!(asker.asked_have, [(asker.tags[0], SEQUENCE)], "and it is asked, too");
}

#[test]
fn a_peer_that_watches_a_channel_before_the_node_follows_it_counts() {
    let [first, later] = [3, 4].map(|n| Content::new(&author(n), 1));
    let mut bench = following(std::slice::from_ref(&first));
    let mut peer = Member::join(&mut bench, 1, &[first.channel, later.channel]);
    later.follow(&mut bench);
    peer.hear(&mut bench);
    // The node has named the channel, so the peer asks for its head.
    peer.peer.send(&mut bench, &Message::GetHead { tag: peer.tags[1], known: SEQUENCE, look_up: None });
    peer.hear(&mut bench);
    assert!(peer.asked_have.contains(&(peer.tags[1], SEQUENCE)), "{:?}", peer.asked_have);
    peer.peer.send(&mut bench, &Message::Have(peer.tags[1], SEQUENCE, all()));
    peer.hear(&mut bench);
    assert_eq!(peer.asked_for(&later), [0]);
}

#[test]
fn unseen_positions_are_free_and_a_peer_that_repeats_them_is_banned() {
    let content = Content::new(&identity(), 1);
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::join(&mut bench, 1, &[content.channel]);
    let each = |range: std::ops::Range<u32>| positions(range);
    let len = u32::try_from(HAVE_POSITIONS_MAX).expect("small");
    // More than the allowance for unsolicited messages.
    let unseen = u32::try_from(HAVE_BLOBS_MAX).expect("small") / len;
    assert!(u64::from(unseen * len) * 4 >= UNASKED_BYTES_BURST);
    for n in 0..unseen {
        peer.say_have(&mut bench, each(n * len..(n + 1) * len));
    }
    let again = UNASKED_BYTES_BURST / u64::from(len * 5 + 200) + 1;
    for _ in 0..again {
        assert_eq!(peer.closed_for(&bench), None);
        peer.say_have(&mut bench, each((unseen - 1) * len..unseen * len));
    }
    assert_eq!(peer.closed_for(&bench), Some(CloseReason::Violation(Violation::Flood)));
    bench.sleep(Duration::from_secs(1));
    assert!(peer.is_banned(&bench));
}

#[test]
fn channels_followed_in_a_row_are_named_together() {
    let contents = [3, 4, 5, 6].map(|n| Content::new(&author(n), 1));
    let mut bench = following(&[]);
    let mut peer = Member::join(&mut bench, 1, &contents.each_ref().map(|content| content.channel));
    let named = |peer: &mut Member, bench: &mut Bench| {
        let watches = peer.peer.receive(bench).into_iter().filter_map(|message| match message {
            Message::Watch(tags) => Some(peer.tags.iter().filter(|tag| tags.contains(tag)).count()),
            _ => None,
        });
        watches.collect::<Vec<_>>()
    };
    for content in &contents {
        content.follow(&mut bench);
    }
    assert_eq!(named(&mut peer, &mut bench), [1], "the first at once");
    bench.sleep(Duration::from_secs(3));
    assert_eq!(named(&mut peer, &mut bench), [contents.len()]);
}
