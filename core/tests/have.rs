//! Availability (`docs/protocol.md` §12): the HAVEs that a node takes from its peers, and those that it sends.

mod support;

use std::time::Duration;

use megatorrent_core::codec::{Have, Message};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::limits::{
    HAVE_BLOBS_MAX, HAVE_BYTES_MAX, HAVE_INTERVAL, HAVE_POSITIONS_MAX, UNASKED_BYTES_BURST,
};
use megatorrent_core::node::Command;
use support::content::{BLOB_END, Content, SEQUENCE};
use support::member::Member;
use support::{Bench, CONFIG, author, identity};

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
    let only = Have::Positions(vec![contents[2].position(0)]);
    // Each claim takes an eighth of a byte for every position up to the highest.
    const { assert!(HAVE_BYTES_MAX == 2 * (HAVE_BLOBS_MAX / 8)) }
    for (claims, is_asked) in [(0, true), (1, true), (2, false)] {
        let mut bench = following(&contents);
        let mut peer = Member::join(&mut bench, 1, &channels);
        for channel in 0..claims {
            claim(&mut bench, &mut peer, channel, Have::Positions(vec![last]));
        }
        claim(&mut bench, &mut peer, 2, only.clone());
        assert_eq!(!peer.asked.is_empty(), is_asked, "after {claims} claims");
        assert_eq!(bench.closed, []);
        // A claim of everything takes no memory.
        claim(&mut bench, &mut peer, 2, Have::All);
        assert_eq!(peer.asked, [(contents[2].id(0), 0..BLOB_END)]);
    }
}

#[test]
fn a_have_counts_only_for_a_channel_that_both_watch() {
    let [content, unknown] = [3, 4].map(|n| Content::new(&author(n), 1));
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::join(&mut bench, 1, &[content.channel, unknown.channel]);
    for have in [Have::All, Have::Positions(vec![1]), Have::Bitmap(vec![0xFF; 100])] {
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
    peer.peer.send(&mut bench, &Message::Have(peer.tags[0], SEQUENCE - 1, Have::All));
    bench.node.disconnected(bench.now, holder.peer.conn);
    bench.drain();
    peer.bring_all(&mut bench, &content);
    let mut asked = peer.asked_for(&content);
    asked.sort_unstable();
    assert_eq!(asked, [0, 1]);
}

#[test]
fn an_asker_is_told_at_once_and_then_twice_a_second_and_all_peers_at_the_end() {
    let content = Content::new(&identity(), 12);
    let mut bench = following(std::slice::from_ref(&content));
    let mut source = Member::with(&mut bench, 1, &content, &(0..12).collect::<Vec<_>>());
    let mut asker = Member::join(&mut bench, 2, &[content.channel]);
    assert!(asker.told.is_empty(), "it has not asked");
    asker.ask_have(&mut bench, SEQUENCE);
    asker.ask_have(&mut bench, SEQUENCE);
    asker.ask_have(&mut bench, SEQUENCE - 1);
    let told: Vec<&Have> = asker.told.iter().map(|(_, have)| have).collect();
    assert_eq!(told, [&Have::Bitmap(vec![0b1100_0000])], "once for each version");

    for _ in 0..11 {
        bench.sleep(Duration::from_millis(100));
        source.bring(&mut bench, &content, u64::from(BLOB_END));
        asker.hear(&mut bench);
    }
    assert_eq!(content.stored(&bench), 11);
    for _ in 0..5 {
        bench.sleep(Duration::from_millis(100));
        asker.hear(&mut bench);
    }
    assert!(asker.told.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= HAVE_INTERVAL));
    let mut told: Vec<u32> = Vec::new();
    for (_, have) in &asker.told[1..] {
        let Have::Positions(positions) = have else { panic!("additions are few: {have:?}") };
        told.extend(positions);
    }
    told.sort_unstable();
    let missing = content.number(&source.open[0].blob);
    let stored = (0..12).filter(|n| *n != missing).map(|n| content.position(n));
    assert_eq!(told, stored.collect::<Vec<u32>>());

    let hears = asker.told.len();
    source.bring(&mut bench, &content, u64::from(BLOB_END));
    asker.hear(&mut bench);
    assert_eq!(asker.told[hears..], [(bench.now, Have::All)]);
    assert_eq!(source.told, [(bench.now, Have::All)], "even a peer that did not ask");
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
    assert_eq!(told, [&Have::Bitmap(vec![0b1000_0000])]);
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
    peer.peer.send(&mut bench, &Message::Have(peer.tags[1], SEQUENCE, Have::All));
    peer.hear(&mut bench);
    assert_eq!(peer.asked, [(later.id(0), 0..BLOB_END)]);
}

#[test]
fn unseen_positions_are_free_and_a_peer_that_repeats_them_is_banned() {
    let content = Content::new(&identity(), 1);
    let mut bench = following(std::slice::from_ref(&content));
    let mut peer = Member::join(&mut bench, 1, &[content.channel]);
    let each = |positions: std::ops::Range<u32>| Have::Positions(positions.collect());
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
