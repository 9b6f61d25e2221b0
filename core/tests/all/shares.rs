//! Swarms without a head, each about one tree: joined, fetched, served, mended and left.

use std::time::Duration;

use crate::support::content::{BLOB_BYTES, BlobMap};
use crate::support::folder::{range, tree};
use crate::support::member::{Member, all};
use crate::support::{Bench, CONFIG, identity};
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::codec::Message;
use megatorrent_core::ids::{Root, Secret, Topic};
use megatorrent_core::limits::{ANNOUNCE_INTERVAL, CHANNELS_MAX, RECHECK_INTERVAL_MIN, SELECTED_RANGES_MAX};
use megatorrent_core::node::{
    Command, Event, Priority, Refusal, Selection, SelectionError, Target, TargetStatus,
};
use megatorrent_core::parts::{Mask, PARTS};
use megatorrent_core::tree::TreeRef;
use megatorrent_core::uri;

const TOPIC: Topic = Topic([7; 32]);
const SHARE: Target = Target::Swarm(TOPIC);
/// The one version of a share.
const VERSION: u64 = 1;

/// The second blob alone.
fn second() -> Selection {
    Selection { others: Priority::Skip, ranges: vec![range("", 1..2)], ..Selection::default() }
}

fn join(bench: &mut Bench, tree: &TreeRef, selection: Selection) {
    bench.command(Command::Join { topic: TOPIC, tree: tree.clone(), selection });
}

/// A node that joined, and a peer that has all.
fn joined(tree: &TreeRef, selection: Selection) -> (Bench, Member) {
    let mut bench = Bench::answering(CONFIG, None);
    join(&mut bench, tree, selection);
    let seed = seed(&mut bench, 1);
    (bench, seed)
}

fn seed(bench: &mut Bench, port: u16) -> Member {
    let mut seed = member(bench, port);
    seed.say_have(bench, all());
    seed
}

fn member(bench: &mut Bench, port: u16) -> Member {
    Member::join_swarms(bench, port, &[TOPIC], VERSION)
}

fn status(bench: &Bench) -> TargetStatus {
    bench.node.swarm_status(&TOPIC).expect("it is joined")
}

/// Whether all that is selected is stored, and whether all is.
fn extent(bench: &Bench) -> (bool, bool) {
    let status = status(bench);
    (status.satisfied, status.complete)
}

/// What was told of the share, in order.
fn told(bench: &mut Bench) -> Vec<&'static str> {
    let told = std::mem::take(&mut bench.events);
    told.into_iter().filter_map(|event| news(&event)).collect()
}

fn news(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::FileComplete { target: SHARE, sequence: VERSION, file: 0 } => "file",
        Event::FileRefused { target: SHARE, sequence: VERSION, file: 0 } => "refused",
        Event::Complete { target: SHARE, sequence: VERSION } => "complete",
        Event::SelectionComplete { target: SHARE, sequence: VERSION } => "selection",
        Event::BlobsLost { target: SHARE, sequence: VERSION } => "lost",
        Event::Connected { .. } | Event::Disconnected { .. } | Event::DialFailed { .. } => return None,
        other => panic!("{other:?} of a share"),
    })
}

/// How many bytes of a blob the node brings to who asks.
fn served(bench: &mut Bench, asker: &mut Member, root: Root) -> usize {
    asker.pieces.clear();
    asker.want(bench, root, Mask::ALL);
    asker.hear(bench);
    asker.pieces.iter().map(|(.., bytes)| bytes.len()).sum()
}

/// The data blobs, in order.
fn data(tree: &TreeRef, blobs: &BlobMap, numbers: &[u8]) -> Vec<Root> {
    let roots: Vec<Root> =
        numbers.iter().map(|n| crate::support::content::data(&identity(), *n).0.root).collect();
    let is_data = |root: &Root| blobs.contains_key(&(*root).into()) && *root != tree.blob.root;
    assert!(roots.iter().all(is_data));
    roots
}

#[test]
fn a_share_is_fetched_told_of_served_and_announced() {
    let (tree, blobs) = tree(&[0, 1, 2]);
    let (mut bench, mut seed) = joined(&tree, Selection::default());
    let before = status(&bench);
    assert_eq!((before.target, before.sequence, before.private), (SHARE, VERSION, false));
    assert_eq!((before.blobs_stored, before.blobs_total, before.content_bytes), (0, 4, tree.size));
    assert_eq!(before.waiting.as_deref(), Some("the tree's blobs: 1 peers are asked"));
    assert_eq!(before.root.as_ref(), Some(&tree));
    seed.bring_all(&mut bench, &blobs);
    assert_eq!((bench.world.store.blobs == blobs, seed.parts_asked()), (true, 3 * PARTS + 1));
    assert_eq!(told(&mut bench), ["file", "complete"]);
    let after = status(&bench);
    assert_eq!((after.blobs_stored, after.complete, after.waiting), (4, true, None));

    let mut asker = member(&mut bench, 2);
    assert_eq!(asker.told_positions(), None, "also who did not ask is told that all is here");
    assert_eq!(served(&mut bench, &mut asker, tree.blob.root), PLAIN_LEN);
    assert_eq!(bench.closed, []);
    bench.sleep(ANNOUNCE_INTERVAL);
    let announced: Vec<_> = bench.world.announces.iter().map(|(_, hash)| *hash).collect();
    assert_eq!(announced, [TOPIC.info_hash(); 2]);
}

#[test]
fn of_a_share_no_more_is_fetched_than_is_selected() {
    let (tree, blobs) = tree(&[0, 1, 2]);
    let ids = data(&tree, &blobs, &[0, 1, 2]);
    let (mut bench, mut seed) = joined(&tree, second());
    seed.bring_all(&mut bench, &blobs);
    assert_eq!(seed.asked_of(&tree.blob.root.into()), Mask::one(0));
    assert_eq!((seed.asked_of(&ids[1].into()), seed.parts_asked()), (Mask::ALL, PARTS + 1));
    assert_eq!((extent(&bench), told(&mut bench)), ((true, false), vec!["selection"]));
    let mut asker = member(&mut bench, 2);
    asker.ask_have(&mut bench, VERSION);
    assert_eq!(asker.told_positions(), Some(vec![0, 2]));
    // Who joins again chooses again.
    join(&mut bench, &tree, Selection::default());
    assert_eq!(extent(&bench), (false, false));
    seed.bring_all(&mut bench, &blobs);
    assert_eq!((extent(&bench), seed.parts_asked()), ((true, true), 3 * PARTS + 1));
    assert_eq!(told(&mut bench), ["file", "complete"]);
}

#[test]
fn what_the_store_has_lost_of_a_share_is_told_of_and_fetched_again() {
    let (tree, blobs) = tree(&[0, 1, 2]);
    let ids = data(&tree, &blobs, &[0, 1, 2]);
    for (selection, is_all) in [(Selection::default(), true), (second(), false)] {
        let (mut bench, mut seed) = joined(&tree, selection);
        seed.bring_all(&mut bench, &blobs);
        let before = seed.parts_asked();
        told(&mut bench);
        bench.world.store.blobs.remove(&ids[1].into());
        let mut asker = member(&mut bench, 2);
        assert_eq!(served(&mut bench, &mut asker, ids[1]), 0);
        bench.sleep(RECHECK_INTERVAL_MIN);
        assert_eq!((told(&mut bench), extent(&bench)), (vec!["lost"], (false, false)));
        seed.bring_all(&mut bench, &blobs);
        assert_eq!((seed.parts_asked() - before, extent(&bench)), (PARTS, (true, is_all)));
        assert_eq!(told(&mut bench), [if is_all { "complete" } else { "selection" }]);
        assert_eq!(served(&mut bench, &mut asker, ids[1]), PLAIN_LEN);
    }
}

#[test]
fn a_share_whose_index_does_not_open_is_refused_and_says_so() {
    let (mut tree, blobs) = tree(&[0, 1]);
    tree.blob.key = Secret::new([0xBB; 32]);
    let (mut bench, mut seed) = joined(&tree, Selection::default());
    seed.bring_all(&mut bench, &blobs);
    assert_eq!(told(&mut bench), ["refused"]);
    // In short, and then whole, as the rest cannot be made with that key.
    assert_eq!(seed.parts_asked(), 2);
    let waiting = status(&bench).waiting;
    assert_eq!(waiting.as_deref(), Some("nothing that could come, as the tree cannot be used"));
    assert_eq!(seed.closed_for(&bench), None, "it is not the peer's lie");
}

#[test]
fn a_share_that_is_left_is_forgotten_and_what_is_stored_of_it_stays() {
    let (tree, blobs) = tree(&[0, 1, 2]);
    let (mut bench, mut seed) = joined(&tree, Selection::default());
    // The index, a blob, and half of another.
    seed.bring(&mut bench, &blobs, BLOB_BYTES * 3 / 2 + BLOB_BYTES / 16);
    assert!(!seed.open.is_empty());
    let asked = seed.parts_asked();
    bench.command(Command::Leave(TOPIC));
    bench.sleep(Duration::from_secs(5));
    seed.hear(&mut bench);
    assert_eq!((seed.open.len(), bench.world.store.blobs.len()), (0, 2), "what was asked for is cancelled");
    assert!(bench.node.swarm_status(&TOPIC).is_none());
    bench.world.announces.clear();
    bench.sleep(2 * ANNOUNCE_INTERVAL);
    assert_eq!((bench.world.announces.len(), seed.parts_asked()), (0, asked));

    // It is joined again, and goes on where it was.
    let mut seed = self::seed(&mut bench, 2);
    join(&mut bench, &tree, Selection::default());
    seed.peer.send(&mut bench, &Message::Watch(seed.tags.clone()));
    seed.say_have(&mut bench, all());
    seed.bring_all(&mut bench, &blobs);
    assert_eq!((extent(&bench), seed.parts_asked()), ((true, true), 3 * PARTS / 2));
}

#[test]
fn of_a_share_that_was_just_left_peers_hear_nothing_more() {
    let (tree, blobs) = tree(&[0, 1]);
    let (mut bench, mut seed) = joined(&tree, Selection::default());
    seed.bring_all(&mut bench, &blobs);
    // The second of two changes is told of a little later.
    bench.command(Command::Join { topic: Topic([8; 32]), tree, selection: Selection::default() });
    bench.command(Command::Leave(TOPIC));
    seed.peer.receive(&mut bench);
    seed.peer.send(&mut bench, &Message::GetHead { tag: seed.tags[0], known: 0, look_up: None });
    seed.peer.send(&mut bench, &Message::AskHave(seed.tags[0], VERSION));
    assert_eq!(seed.peer.receive(&mut bench), [Message::Head(seed.tags[0], None)]);
}

// --- what cannot be joined ----------------------------------------------------------------------------------------

fn refusal(bench: &mut Bench) -> Option<SelectionError> {
    match bench.refusal()? {
        Refusal::Selection(error) => Some(error),
        _ => None,
    }
}

#[test]
fn another_tree_under_the_same_topic_is_refused_in_words_and_the_first_stays() {
    let (first, blobs) = tree(&[0, 1]);
    let (second, _) = tree(&[2]);
    let (mut bench, mut seed) = joined(&first, Selection::default());
    join(&mut bench, &second, Selection::default());
    let error = refusal(&mut bench).expect("it is refused");
    assert_eq!(error, SelectionError::OtherTree);
    assert_eq!(error.to_string(), "the swarm is joined already, for another tree");
    seed.bring_all(&mut bench, &blobs);
    assert_eq!((extent(&bench), status(&bench).root), ((true, true), Some(first)));
    // Once the first is left, there is room for it.
    bench.command(Command::Leave(TOPIC));
    join(&mut bench, &second, Selection::default());
    assert_eq!((refusal(&mut bench), status(&bench).root), (None, Some(second)));
}

#[test]
fn a_channels_swarm_is_neither_joined_nor_left() {
    let (tree, _) = tree(&[0]);
    let mut bench = Bench::answering(CONFIG, None);
    let channel = identity().public_key();
    let topic = uri::topic(&channel, None);
    bench.command(Command::Follow { channel, read_key: None });
    bench.command(Command::Join { topic, tree, selection: Selection::default() });
    assert_eq!(refusal(&mut bench), Some(SelectionError::IsChannel));
    bench.command(Command::Leave(topic));
    assert!(bench.node.channel_status(&channel).is_some() && bench.node.swarm_status(&topic).is_none());
}

#[test]
fn a_selection_beyond_its_limits_and_one_share_too_many_are_refused() {
    let (tree, _) = tree(&[0]);
    let mut bench = Bench::answering(CONFIG, None);
    bench.world.ends_lookups = true;
    let ranges = vec![range("", 0..1); SELECTED_RANGES_MAX + 1];
    join(&mut bench, &tree, Selection { ranges, ..Selection::default() });
    assert_eq!(refusal(&mut bench), Some(SelectionError::TooManyRanges));
    assert!(bench.node.swarm_status(&TOPIC).is_none());
    for n in 0..CHANNELS_MAX as u64 {
        let mut topic = Topic([1; 32]);
        topic.0[..8].copy_from_slice(&n.to_be_bytes());
        bench.command(Command::Join { topic, tree: tree.clone(), selection: Selection::default() });
        assert_eq!(refusal(&mut bench), None);
    }
    join(&mut bench, &tree, Selection::default());
    assert_eq!(refusal(&mut bench), Some(SelectionError::TooManySwarms));
}
