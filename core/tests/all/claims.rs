//! What native blobs are said to hold (`docs/protocol.md` §2): only the parts that hold content are asked for, the rest is made,
//! and an author that says what is not so harms nobody but its channel's readers.

use crate::support::content::{BLOB_BYTES, BlobMap, Content, SEQUENCE, Sealed, file, item};
use crate::support::folder::Folder;
use crate::support::member::{Manner, Member, all};
use crate::support::store::UnderWay;
use crate::support::{Bench, CONFIG, author, identity};
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::codec::Message;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::{Command, Config, Event, Job, Written};
use megatorrent_core::parts::{Mask, PART_LEN, PARTS, Values};
use megatorrent_core::tree::TreeRef;
use megatorrent_core::uri;

// --- only what is needed ------------------------------------------------------------------------------------------

#[test]
fn only_the_parts_that_hold_content_are_asked_for_and_the_rest_is_made() {
    for (len, parts) in [
        (1, 1),
        (PART_LEN, 1),
        (PART_LEN + 1, 2),
        (3 * PART_LEN - 5, 4),
        (5 * PART_LEN, 8),
        (8 * PART_LEN + 1, 16),
        (PLAIN_LEN, 16),
        (PLAIN_LEN + 1, 17),
    ] {
        let content = Content::of_len(&identity(), len);
        let mut bench = Bench::answering(CONFIG, None);
        content.follow(&mut bench);
        let mut seed = Member::seed(&mut bench, 1, &content);
        seed.bring_all(&mut bench, &content);
        assert_eq!(seed.parts_asked(), parts, "of {len} bytes");
        assert_eq!(content.stored(&bench), content.data.len(), "byte for byte");
        assert_eq!(bench.status().bytes_received, (parts * PART_LEN) as u64);
        let last = content.data.len() - 1;
        let of_last = seed.asked_of(&content.name(last));
        assert_eq!(of_last, Mask::first(of_last.len()), "from the front");
        assert!(bench.event(|event| matches!(event, Event::Complete { .. })).is_some());

        let mut asker = Member::join(&mut bench, 2, &[content.channel]);
        asker.want(&mut bench, content.root(last), Mask::ALL);
        asker.hear(&mut bench);
        assert_eq!(asker.pieces.len(), 2 * PARTS, "all of it is served");
    }
}

#[test]
fn whoever_takes_all_asks_for_every_part_of_every_blob() {
    let content = Content::of_len(&identity(), PLAIN_LEN + 5);
    let mut bench = Bench::answering(Config { takes_all: true, ..CONFIG }, None);
    content.follow(&mut bench);
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring_all(&mut bench, &content);
    assert_eq!((seed.parts_asked(), content.stored(&bench)), (2 * PARTS, 2));
    assert_eq!(bench.status().bytes_received, 2 * BLOB_BYTES);
}

/// A channel with a body, and a node that follows it and knows none of its blobs.
fn following_a_folder(config: Config) -> (Folder, Bench, Member) {
    let folder = Folder::of_many(SEQUENCE, &[("a", 40)]);
    let mut bench = Bench::answering(config, None);
    folder.follow(&mut bench);
    let mut seed = Member::join(&mut bench, 1, &[folder.channel]);
    seed.say_have(&mut bench, all());
    (folder, bench, seed)
}

#[test]
fn an_index_blob_or_a_document_is_asked_for_no_longer_than_it_is_unless_all_is_taken() {
    for takes_all in [false, true] {
        let (folder, mut bench, mut seed) = following_a_folder(Config { takes_all, ..CONFIG });
        for name in ["body", "page", "a*"] {
            let open = seed.open.first().expect("it is asked for");
            assert_eq!(folder.name(&open.blob), name);
            assert_eq!(open.last_len, (!takes_all).then_some(4096));
            seed.bring(&mut bench, &folder, BLOB_BYTES / 32 * if takes_all { 32 } else { 1 });
        }
        let sent = 3 * if takes_all { BLOB_BYTES } else { 4096 };
        assert_eq!((bench.status().bytes_received, bench.status().bans), (sent, 0));
        assert!(folder.names(&seed.asked).last().is_some_and(|name| name.starts_with('a')), "all is read");
    }
}

#[test]
fn the_beginning_of_a_part_that_comes_out_wrong_bans_nobody_until_the_whole_part_does() {
    let (folder, mut bench, mut liar) = following_a_folder(CONFIG);
    liar.manner = Manner::Lies;
    liar.bring(&mut bench, &folder, BLOB_BYTES / 32);
    assert_eq!((bench.status().bans, liar.closed_for(&bench)), (0, None));
    assert_eq!(
        (liar.open[0].left, liar.open[0].last_len),
        (Mask::one(0), None),
        "its author may be the liar"
    );
    liar.bring_all(&mut bench, &folder);
    assert_eq!(bench.status().bans, 1);
}

// --- what is here from an earlier time ----------------------------------------------------------------------------

#[test]
fn a_blob_under_way_goes_on_after_a_restart_and_no_part_is_fetched_again() {
    let content = Content::new(&identity(), 2);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring(&mut bench, &content, 5 * PART_LEN as u64);
    let first = seed.asked_for(&content)[0];
    let here = bench.world.store.here(&content.root(first));
    assert_eq!(here.len(), 5);

    let mut bench = bench.restarted();
    bench.sleep(std::time::Duration::from_secs(1));
    let mut asker = Member::join(&mut bench, 2, &[content.channel]);
    asker.ask_have(&mut bench, SEQUENCE);
    assert_eq!(asker.told_parts(), [(content.position(first), here)].into(), "it is told at once");
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring_all(&mut bench, &content);
    assert_eq!(seed.asked_of(&content.name(first)), !here);
    assert_eq!((content.stored(&bench), seed.parts_asked()), (2, 2 * PARTS - 5));
}

#[test]
fn a_blob_of_which_all_that_is_needed_is_here_is_made_whole_without_a_peer() {
    let content = Content::of_len(&identity(), 100_000);
    let mut bench = Bench::answering(CONFIG, None);
    let under_way = UnderWay::of(&content.data[0].1, Mask::first(2));
    bench.world.store.under_way.insert(content.root(0), under_way);
    content.follow(&mut bench);
    assert_eq!(content.stored(&bench), 1);
    assert!(bench.event(|event| matches!(event, Event::Complete { .. })).is_some());
}

#[test]
fn parts_that_the_store_has_lost_are_fetched_again() {
    let content = Content::of_len(&identity(), 100_000);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring(&mut bench, &content, PART_LEN as u64);
    bench.world.store.under_way.clear();
    seed.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), seed.closed_for(&bench)), (1, None));
}

#[test]
fn values_that_the_store_has_garbled_are_not_believed_and_no_peer_is_banned_for_them() {
    let content = Content::of_len(&identity(), 100_000);
    let mut bench = Bench::answering(CONFIG, None);
    let (_, other) = crate::support::content::data_of(&author(9), 1, 1000);
    let mut garbled = UnderWay::of(&content.data[0].1, Mask::one(0));
    garbled.values = Values::of(&other);
    bench.world.store.under_way.insert(content.root(0), garbled);
    content.follow(&mut bench);
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring_all(&mut bench, &content);
    assert_eq!((content.stored(&bench), seed.closed_for(&bench), bench.status().bans), (1, None, 0));
}

#[test]
fn a_store_without_room_is_left_alone_and_tried_again() {
    for why in [Written::NoSpace, Written::Failed] {
        let content = Content::of_len(&identity(), 100_000);
        let mut bench = Bench::answering(CONFIG, None);
        content.follow(&mut bench);
        let mut seed = Member::seed(&mut bench, 1, &content);
        bench.world.store.fails = Some(why);
        seed.bring_all(&mut bench, &content);
        let is_full = |event: &Event| matches!(event, Event::StoreFull { .. });
        assert_eq!((bench.count(is_full), seed.parts_asked()), (1, 2));
        let rests = |bench: &Bench| bench.node.channel_status(&content.channel).map(|it| it.store_rests);
        assert_eq!(rests(&bench), Some(true));
        bench.world.store.fails = None;
        bench.sleep(std::time::Duration::from_secs(6));
        seed.bring_all(&mut bench, &content);
        assert_eq!((content.stored(&bench), bench.status().bans, rests(&bench)), (1, 0, Some(false)));
    }
}

#[test]
fn a_store_that_fails_to_make_a_blob_whole_is_tried_again_without_a_peer() {
    let content = Content::of_len(&identity(), 100);
    let mut bench = Bench::new(CONFIG, None);
    content.follow(&mut bench);
    bench.answer_jobs();
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring_all(&mut bench, &content);
    let (id, write) = bench.job(|job| matches!(job, Job::WritePart(..))).expect("it is written");
    for input in bench.world.answer(bench.now, id, write) {
        bench.handle(input);
    }
    bench.world.store.fails = Some(Written::NoSpace);
    bench.answer_jobs();
    assert_eq!((content.stored(&bench), seed.parts_open()), (0, 0));
    bench.world.store.fails = None;
    bench.sleep(std::time::Duration::from_secs(6));
    bench.answer_jobs();
    assert_eq!((content.stored(&bench), seed.parts_asked()), (1, 1));
}

// --- what is not so -----------------------------------------------------------------------------------------------

/// A blob with filling that does not follow from its content.
fn not_canonical(len: usize) -> (BlobRef, Vec<u8>) {
    let mut blob = vec![0x77; BLOB_LEN];
    let key = Secret::new([5; 32]);
    // All of it is content, as far as the seal goes.
    let root = blob::seal_with_key(&key, &mut blob, PLAIN_LEN);
    assert!(len < PLAIN_LEN);
    (BlobRef { root, key }, blob)
}

/// A channel of an author with these files, each one blob: its head, and all blobs.
fn channel_of(author: &Identity, files: &[(&str, u64, BlobRef)]) -> (HeadContent, BlobMap) {
    let mut sealed = Sealed::default();
    let items = files.iter().map(|(path, size, link)| {
        let tree = TreeRef::new(*size, 0, link.clone()).expect("one blob");
        file(path, *size, tree.into())
    });
    let body = sealed.body(items.collect(), false);
    assert!(author.public_key() != identity().public_key() || !files.is_empty());
    (HeadContent::Body(body), sealed.0)
}

/// Follows a channel whose index is stored.
fn follow(bench: &mut Bench, author: &Identity, content: &HeadContent, index: &BlobMap) {
    let channel = author.public_key();
    bench.world.store.blobs.extend(index.clone());
    bench.world.heads.insert(channel, (item(author, SEQUENCE.cast_signed(), content), 1));
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
}

fn refused(bench: &Bench) -> Vec<usize> {
    let refused = bench.events.iter().filter_map(|event| match event {
        Event::FileRefused { file, .. } => Some(*file),
        _ => None,
    });
    refused.collect()
}

#[test]
fn a_file_whose_filling_does_not_follow_from_its_content_is_refused_in_words_and_nobody_is_banned() {
    for len in [0, 12, PART_LEN, PART_LEN + 1, PLAIN_LEN - 1] {
        let size = len as u64;
        let (link, blob) = not_canonical(len);
        let (good, bytes) = crate::support::content::data_of(&identity(), 1, 1000);
        let size = size.max(1);
        let (content, index) =
            channel_of(&identity(), &[("bad", size, link.clone()), ("good", 1000, good.clone())]);
        let blobs: BlobMap = [(link.root.into(), blob), (good.root.into(), bytes)].into();
        let mut bench = Bench::answering(CONFIG, None);
        follow(&mut bench, &identity(), &content, &index);
        let mut seed = Member::join(&mut bench, 1, &[identity().public_key()]);
        seed.say_have(&mut bench, all());
        seed.bring_all(&mut bench, &blobs);
        assert_eq!((refused(&bench), bench.status().bans), (vec![0], 0), "{len}");
        assert!(bench.world.store.blobs.contains_key(&good.root.into()));
        let is_complete = |event: &Event| matches!(event, Event::Complete { .. });
        assert_eq!((bench.count(is_complete), seed.closed_for(&bench)), (0, None));
        let asked = seed.parts_asked();
        bench.sleep(std::time::Duration::from_mins(5));
        seed.hear(&mut bench);
        assert_eq!(seed.parts_asked(), asked, "it is not fetched over and over");
    }
}

#[test]
fn a_body_and_a_page_whose_filling_does_not_follow_are_refused_in_words_and_nobody_is_banned() {
    let (link, blob) = not_canonical(5);
    let blobs: BlobMap = [(link.root.into(), blob)].into();
    let body = HeadContent::Body(TreeRef::new(5, 0, link).expect("one blob"));
    let mut bench = Bench::answering(CONFIG, None);
    follow(&mut bench, &identity(), &body, &BlobMap::new());
    let mut seed = Member::join(&mut bench, 1, &[identity().public_key()]);
    seed.say_have(&mut bench, all());
    seed.bring_all(&mut bench, &blobs);
    assert_eq!(bench.count(|event| matches!(event, Event::BodyRefused { .. })), 1);
    // As long as the author says it is, and then whole, as the rest cannot be made.
    assert_eq!((bench.status().bans, seed.parts_asked(), seed.closed_for(&bench)), (0, 2, None));
}

#[test]
fn a_peer_that_sends_a_part_of_such_a_blob_wrongly_is_banned_all_the_same() {
    let (link, blob) = not_canonical(5);
    let (content, index) = channel_of(&identity(), &[("bad", 5, link.clone())]);
    let blobs: BlobMap = [(link.root.into(), blob)].into();
    let mut bench = Bench::answering(CONFIG, None);
    follow(&mut bench, &identity(), &content, &index);
    let mut liar = Member::join(&mut bench, 1, &[identity().public_key()]);
    liar.manner = Manner::Lies;
    liar.say_have(&mut bench, all());
    liar.bring_all(&mut bench, &blobs);
    assert_eq!((bench.status().bans, refused(&bench)), (1, vec![]));
}

#[test]
fn of_two_channels_that_say_different_things_of_one_blob_the_one_that_is_right_gets_it() {
    let [right, wrong] = [3, 4].map(author);
    let (link, blob) = crate::support::content::data_of(&identity(), 1, 1000);
    let other_key = BlobRef { key: Secret::new([9; 32]), ..link.clone() };
    let blobs: BlobMap = [(link.root.into(), blob.clone())].into();
    for (size, false_link) in
        [(1000, other_key), (1001, link.clone()), (70_000, link.clone()), (999, link.clone())]
    {
        let (good, good_index) = channel_of(&right, &[("file", 1000, link.clone())]);
        let (bad, bad_index) = channel_of(&wrong, &[("file", size, false_link)]);
        for is_good_first in [true, false] {
            let mut bench = Bench::answering(CONFIG, None);
            let mut order = [(&right, &good, &good_index), (&wrong, &bad, &bad_index)];
            if !is_good_first {
                order.reverse();
            }
            for (author, content, index) in order {
                follow(&mut bench, author, content, index);
            }
            let channels = [right.public_key(), wrong.public_key()];
            let mut seed = Member::join(&mut bench, 1, &channels);
            for topic in channels.map(|channel| uri::topic(&channel, None)) {
                let tag = seed.peer.tag(&topic);
                seed.peer.send(&mut bench, &Message::Have(tag, SEQUENCE, all()));
            }
            seed.bring_all(&mut bench, &blobs);
            assert_eq!((refused(&bench), bench.status().bans), (vec![0], 0), "{size}");
            assert_eq!(bench.world.store.blobs.get(&link.root.into()), Some(&blob));
            let complete = |channel| bench.node.channel_status(&channel).expect("followed").complete;
            assert_eq!(channels.map(complete), [true, false], "{size}");
        }
    }
}

#[test]
fn a_claim_that_comes_while_the_blob_is_made_whole_is_judged_too_without_a_peer() {
    for size in [500, 70_000] {
        judge_late_claim(size);
    }
}

fn judge_late_claim(size: u64) {
    let [right, wrong] = [3, 4].map(author);
    let (link, blob) = crate::support::content::data_of(&identity(), 1, 1000);
    let blobs: BlobMap = [(link.root.into(), blob)].into();
    let (good, good_index) = channel_of(&right, &[("file", 1000, link.clone())]);
    let (bad, bad_index) = channel_of(&wrong, &[("file", size, link.clone())]);
    let mut bench = Bench::new(CONFIG, None);
    follow(&mut bench, &right, &good, &good_index);
    bench.answer_jobs();
    let mut seed = Member::join(&mut bench, 1, &[right.public_key()]);
    seed.say_have(&mut bench, all());
    seed.bring_all(&mut bench, &blobs);
    while !bench.jobs.iter().any(|(_, job)| matches!(job, Job::FinishBlob(..))) {
        let (id, job) = bench.jobs.pop_front().expect("it comes to that");
        for input in bench.world.answer(bench.now, id, job) {
            bench.handle(input);
        }
    }
    let (id, finish) = bench.job(|job| matches!(job, Job::FinishBlob(..))).expect("it is there");
    follow(&mut bench, &wrong, &bad, &bad_index);
    bench.answer_jobs();
    for input in bench.world.answer(bench.now, id, finish) {
        bench.handle(input);
    }
    bench.answer_jobs();
    assert_eq!((refused(&bench), bench.status().bans), (vec![0], 0));
    let complete = |channel| bench.node.channel_status(&channel).expect("followed").complete;
    assert_eq!([&right, &wrong].map(|author| complete(author.public_key())), [true, false]);
    seed.hear(&mut bench);
    assert_eq!(seed.parts_asked(), 1);
}
