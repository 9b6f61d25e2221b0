//! Heads that came from elsewhere than the DHT and peers: without an item to carry them they are used, and go no further until the
//! item turns up.

use std::time::Duration;

use crate::support::content::item;
use crate::support::folder::{Folder, Spec};
use crate::support::member::{self, Member};
use crate::support::peer::Peer;
use crate::support::{Bench, CONFIG, UNIX, addr, author, identity};
use megatorrent_core::codec::Message;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::limits::{HEAD_LEN_MAX, HEAD_POLL_INTERVAL, REPUT_INTERVAL, SEQUENCE_STEP_MAX};
use megatorrent_core::manifest::{Head, HeadContent, HeadError};
use megatorrent_core::node::{Command, Event, Input, Job};

const FILES: [Spec<'_>; 1] = [("a", &[0, 1])];
const SEQUENCE: u64 = 5;
const NOTHING: [i64; 0] = [];

fn version(sequence: u64) -> Folder {
    Folder::new(sequence, &FILES)
}

/// A node that follows the channel, of which the DHT knows no head.
fn follower() -> Bench {
    let mut bench = Bench::answering(CONFIG, None);
    bench.command(Command::Follow { channel: channel(), read_key: None });
    bench.sleep_until(bench.now);
    bench
}

fn channel() -> PublicKey {
    identity().public_key()
}

fn tell(bench: &mut Bench, document: Vec<u8>) {
    bench.handle(Input::Head(channel(), document));
}

/// A node that knows the head as a document, a peer that watches the channel, and one that brings the item later.
fn holder() -> (Bench, Member, Member) {
    let mut bench = follower();
    let members = [1, 2].map(|port| Member::join(&mut bench, port, &[channel()]));
    tell(&mut bench, version(SEQUENCE).document());
    let [watcher, bringer] = members;
    (bench, watcher, bringer)
}

/// The sequences of the heads that became the newest, in order.
fn adopted(bench: &Bench) -> Vec<u64> {
    let heads = bench.events.iter().filter_map(|event| match event {
        Event::Head { sequence, .. } => Some(*sequence),
        _ => None,
    });
    heads.collect()
}

fn refusals(bench: &Bench) -> Vec<HeadError> {
    let refused = bench.events.iter().filter_map(|event| match event {
        Event::HeadRefused { error, .. } => Some(*error),
        _ => None,
    });
    refused.collect()
}

fn sequence(bench: &Bench) -> u64 {
    bench.node.channel_status(&channel()).expect("it is followed").sequence
}

/// The sequences of the items that a peer is sent.
fn sent(bench: &mut Bench, peer: &mut Peer) -> Vec<i64> {
    let heads = peer.receive(bench).into_iter().filter_map(|message| match message {
        Message::Head(_, item) => item.map(|item| item.seq),
        _ => None,
    });
    heads.collect()
}

fn ask(bench: &mut Bench, member: &mut Member) -> Vec<i64> {
    member.peer.send(bench, &Message::GetHead { tag: member.tags[0], known: 0, look_up: None });
    sent(bench, &mut member.peer)
}

fn bring_item(bench: &mut Bench, member: &mut Member, folder: &Folder) {
    let head = Message::Head(member.tags[0], Some(folder.head()));
    member.peer.send(bench, &head);
}

#[test]
fn what_a_document_names_is_fetched_and_it_is_durable() {
    let folder = version(SEQUENCE);
    let mut bench = follower();
    tell(&mut bench, folder.document());
    assert_eq!((adopted(&bench), sequence(&bench)), (vec![SEQUENCE], SEQUENCE));
    let mut seed = Member::join(&mut bench, 1, &[channel()]);
    seed.say_have(&mut bench, member::all());
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.extent(&bench), (true, true));
    let bench = bench.restarted();
    assert_eq!((sequence(&bench), refusals(&bench)), (SEQUENCE, vec![]));
}

#[test]
fn a_document_of_a_channel_that_is_not_followed_is_of_no_effect() {
    let mut bench = Bench::answering(CONFIG, None);
    tell(&mut bench, version(SEQUENCE).document());
    assert!(bench.events.is_empty() && bench.world.records.is_empty());
}

#[test]
fn a_document_that_is_not_the_authors_is_refused() {
    let mut bench = follower();
    let mut forged = version(SEQUENCE).document();
    let digit = forged.iter().rposition(u8::is_ascii_hexdigit).expect("the signature is the last member");
    forged[digit] = if forged[digit] == b'0' { b'1' } else { b'0' };
    let content = HeadContent::Inline(Vec::new());
    let anothers = Head::to_json(&author(4), SEQUENCE, UNIX.0, &content, None).into_bytes();
    for document in [forged, anothers, b"{}".to_vec(), vec![b' '; HEAD_LEN_MAX + 1]] {
        let before = refusals(&bench).len();
        tell(&mut bench, document);
        assert_eq!((refusals(&bench).len() - before, sequence(&bench)), (1, 0));
    }
    assert!(adopted(&bench).is_empty());
}

#[test]
fn a_document_changes_nothing_unless_it_is_newer_than_what_is_known_item_or_not() {
    for is_item in [false, true] {
        let mut bench = follower();
        if is_item {
            bench.world.heads.insert(channel(), (version(SEQUENCE).head(), 8));
            bench.sleep(HEAD_POLL_INTERVAL);
        } else {
            tell(&mut bench, version(SEQUENCE).document());
        }
        let records = bench.world.records.len();
        for older in [SEQUENCE, SEQUENCE - 1] {
            tell(&mut bench, version(older).document());
        }
        assert_eq!((adopted(&bench), bench.world.records.len()), (vec![SEQUENCE], records));
        let content = HeadContent::Inline(Vec::new());
        let fork = Head::to_json(&identity(), SEQUENCE, UNIX.0, &content, None).into_bytes();
        for told in [1, 1] {
            tell(&mut bench, fork.clone());
            assert_eq!(bench.count(|event| matches!(event, Event::Fork { sequence: SEQUENCE, .. })), told);
        }
        let ahead = SEQUENCE + SEQUENCE_STEP_MAX + 1;
        tell(&mut bench, Head::to_json(&identity(), ahead, UNIX.0, &content, None).into_bytes());
        assert_eq!((refusals(&bench), sequence(&bench)), (vec![HeadError::SequenceAhead], SEQUENCE));
        tell(&mut bench, version(SEQUENCE + 1).document());
        assert_eq!(adopted(&bench), [SEQUENCE, SEQUENCE + 1]);
    }
}

#[test]
fn a_newer_item_follows_a_document_and_a_newer_document_an_item() {
    let (mut bench, mut watcher, mut bringer) = holder();
    bring_item(&mut bench, &mut bringer, &version(SEQUENCE + 1));
    assert_eq!(sent(&mut bench, &mut watcher.peer), [6]);
    tell(&mut bench, version(SEQUENCE + 2).document());
    assert_eq!(adopted(&bench), [5, 6, 7]);
    // What others have of the newest is its document alone, and the older item is the newest no more.
    assert_eq!(sent(&mut bench, &mut watcher.peer), NOTHING);
    assert_eq!(ask(&mut bench, &mut watcher), NOTHING);
}

#[test]
fn a_head_without_an_item_is_neither_put_nor_sent() {
    let (mut bench, mut watcher, _) = holder();
    assert_eq!(ask(&mut bench, &mut watcher), NOTHING);
    bench.sleep(2 * REPUT_INTERVAL);
    assert_eq!((bench.world.puts.len(), sent(&mut bench, &mut watcher.peer)), (0, vec![]));
}

#[test]
fn a_head_whose_item_a_peer_brings_is_sent_to_those_that_watch_and_put_each_hour() {
    let (mut bench, mut watcher, mut bringer) = holder();
    bench.sleep(Duration::from_secs(10));
    for _ in 0..2 {
        bring_item(&mut bench, &mut bringer, &version(SEQUENCE));
    }
    assert_eq!(sent(&mut bench, &mut watcher.peer), [5], "at once, and once");
    assert_eq!(sent(&mut bench, &mut bringer.peer), NOTHING, "who brought it has it");
    assert_eq!(ask(&mut bench, &mut watcher), [5]);
    assert_eq!(adopted(&bench), [5], "it is the head that was known");
    bench.sleep(3 * REPUT_INTERVAL);
    let puts: Vec<i64> = bench.world.puts.iter().map(|(_, sequence)| *sequence).collect();
    assert!(puts.len() >= 2 && puts.iter().all(|sequence| *sequence == 5), "{puts:?}");

    let mut bench = bench.restarted();
    let mut watcher = Member::join(&mut bench, 1, &[channel()]);
    assert_eq!(ask(&mut bench, &mut watcher), [5], "the item is durable too");
}

#[test]
fn a_head_whose_item_the_dht_brings_is_sent_to_those_that_watch_and_kept_there() {
    let (mut bench, mut watcher, _) = holder();
    bench.world.heads.insert(channel(), (version(SEQUENCE).head(), 1));
    bench.sleep(HEAD_POLL_INTERVAL);
    assert_eq!((sent(&mut bench, &mut watcher.peer), adopted(&bench)), (vec![5], vec![5]));
    bench.sleep(3 * REPUT_INTERVAL);
    assert!(bench.world.puts.len() >= 2, "one copy is too few: {:?}", bench.world.puts);
}

#[test]
fn an_item_that_comes_while_its_document_is_being_stored_has_its_turn() {
    let mut bench = Bench::new(CONFIG, None);
    bench.command(Command::Follow { channel: channel(), read_key: None });
    bench.sleep_until(bench.now);
    bench.answer_jobs();
    let mut members = [1, 2].map(|port| Member::join(&mut bench, port, &[channel()]));
    tell(&mut bench, version(SEQUENCE).document());
    bring_item(&mut bench, &mut members[0], &version(SEQUENCE));
    assert_eq!(bench.jobs.iter().filter(|(_, job)| matches!(job, Job::Persist(..))).count(), 1);
    bench.answer_jobs();
    assert_eq!(adopted(&bench), [5]);
    assert_eq!(sent(&mut bench, &mut members[1].peer), [5]);
}

#[test]
fn an_item_that_the_disk_does_not_take_is_tried_again() {
    let (mut bench, mut watcher, mut bringer) = holder();
    bench.world.refuses_records = true;
    bring_item(&mut bench, &mut bringer, &version(SEQUENCE));
    assert_eq!(sent(&mut bench, &mut watcher.peer), NOTHING);
    bench.world.refuses_records = false;
    bench.sleep(Duration::from_secs(10));
    assert_eq!(sent(&mut bench, &mut watcher.peer), [5]);
}

#[test]
fn the_item_of_another_document_of_the_same_sequence_is_a_fork() {
    let (mut bench, mut watcher, mut bringer) = holder();
    let fork = item(&identity(), 5, &HeadContent::Inline(Vec::new()));
    bringer.peer.send(&mut bench, &Message::Head(bringer.tags[0], Some(fork)));
    assert_eq!(bench.count(|event| matches!(event, Event::Fork { sequence: SEQUENCE, .. })), 1);
    assert_eq!(sent(&mut bench, &mut watcher.peer), NOTHING);
    assert_eq!(bringer.closed_for(&bench), None);
    let mut late = Peer::dial(&mut bench, addr(3));
    late.say_hello(&mut bench, 6);
    assert_eq!(sent(&mut bench, &mut late), NOTHING);
}
