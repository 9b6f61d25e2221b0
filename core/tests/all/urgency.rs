//! The order in which a selection is fetched: deadlines, ranges of files, priorities.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::content::{BLOB_BYTES, BlobMap, Content, SEQUENCE};
use crate::support::folder::{Folder, Spec, only, range};
use crate::support::member::{Member, all};
use crate::support::{Bench, CONFIG, author};
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::codec::Message;
use megatorrent_core::limits::WANTED_PER_FETCH_MAX;
use megatorrent_core::node::{FileRange, Job, Priority, Selection};
use megatorrent_core::parts::{Mask, PART_LEN};
use megatorrent_core::time::Instant;

/// Files of one blob.
const SINGLES: [Spec<'_>; 5] = [("a", &[0]), ("b", &[1]), ("c", &[2]), ("d", &[3]), ("e", &[4])];
/// Files of several.
const LONG: [Spec<'_>; 2] = [("a", &[0, 1, 2]), ("b", &[3, 4, 5, 6, 7, 8])];

fn at(secs: u64) -> Instant {
    Instant(0) + Duration::from_secs(secs)
}

/// A node that follows the channel with this selection and knows its files, and a peer that has all of it.
fn selecting(folder: &Folder, selection: Selection) -> (Bench, Member) {
    let mut bench = Bench::answering(CONFIG, None);
    folder.store_index(&mut bench);
    folder.select(&mut bench, selection);
    folder.follow(&mut bench);
    let mut seed = Member::join(&mut bench, 1, &[folder.channel]);
    seed.say_have(&mut bench, all());
    (bench, seed)
}

/// Returns the order in which a peer that brings one blob after the other is asked.
fn fetched<'a>(folder: &'a Folder, bench: &mut Bench, seed: &mut Member) -> Vec<&'a str> {
    while seed.bring(bench, folder, BLOB_BYTES) > 0 {}
    folder.names(&seed.asked)
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

fn normal_first(paths: &[&str]) -> Selection {
    Selection { others: Priority::Low, ..only(paths) }
}

#[test]
fn files_come_by_priority_and_equal_ones_in_the_manifests_order_where_order_counts() {
    let folder = Folder::new(SEQUENCE, &SINGLES);
    let mut selection = Selection { in_order: true, ..normal_first(&["b", "d"]) };
    selection.files.insert("c".into(), Priority::High);
    let (mut bench, mut seed) = selecting(&folder, selection.clone());
    assert_eq!(fetched(&folder, &mut bench, &mut seed), ["c0", "b0", "d0", "a0", "e0"]);

    selection.in_order = false;
    let (mut bench, mut seed) = selecting(&folder, selection);
    let order = fetched(&folder, &mut bench, &mut seed);
    assert_eq!((order[0], sorted(order[1..3].to_vec())), ("c0", vec!["b0", "d0"]));
}

#[test]
fn a_changed_priority_applies_to_blobs_that_are_not_fetched_yet() {
    let folder = Folder::new(SEQUENCE, &SINGLES);
    let (mut bench, mut seed) = selecting(&folder, Selection { in_order: true, ..normal_first(&["a", "b"]) });
    seed.bring(&mut bench, &folder, BLOB_BYTES / 2);
    folder.select(&mut bench, Selection { in_order: true, ..normal_first(&["e"]) });
    // The range in flight goes on.
    assert_eq!(fetched(&folder, &mut bench, &mut seed), ["a0", "b0", "e0", "c0", "d0"]);
    assert_eq!(bench.status().bytes_duplicate, 0);
}

#[test]
fn the_earliest_deadline_comes_first_whatever_its_files_priority() {
    let folder = Folder::new(SEQUENCE, &SINGLES);
    let due = |path, secs| FileRange { deadline: Some(at(secs)), ..range(path, 0..1) };
    let ranges = vec![due("a", 30), range("b", 0..1), due("c", 10), due("d", 20)];
    for others in [Priority::Skip, Priority::Low, Priority::Normal, Priority::High] {
        let selection = Selection { others, ranges: ranges.clone(), ..Selection::default() };
        let (mut bench, mut seed) = selecting(&folder, selection);
        let order = fetched(&folder, &mut bench, &mut seed);
        assert_eq!(order[..4], ["c0", "d0", "a0", "b0"], "{others:?}");
        assert_eq!(folder.extent(&bench), (true, others != Priority::Skip));
    }
}

#[test]
fn a_passed_deadline_is_urgent_and_a_removed_one_is_not() {
    let folder = Folder::new(SEQUENCE, &SINGLES);
    let due = |path, secs| FileRange { deadline: Some(at(secs)), ..range(path, 0..1) };
    let (mut bench, mut seed) = selecting(&folder, only(&[]));
    bench.sleep(Duration::from_mins(1));
    let in_order = Selection { in_order: true, ..Selection::default() };
    folder.select(&mut bench, Selection { ranges: vec![due("e", 90), due("d", 30)], ..in_order.clone() });
    seed.hear(&mut bench);
    assert_eq!(folder.names(&seed.asked), ["d0"]);
    folder.select(&mut bench, in_order);
    assert_eq!(fetched(&folder, &mut bench, &mut seed), ["d0", "a0", "b0", "c0", "e0"]);
}

#[test]
fn a_channel_with_deadlines_comes_before_those_without() {
    let (content, folder) = (Content::new(&author(7), 4), Folder::new(SEQUENCE, &SINGLES));
    let ranges = vec![FileRange { deadline: Some(at(60)), ..range("d", 0..1) }];
    let mut bench = Bench::answering(CONFIG, None);
    folder.store_index(&mut bench);
    folder.select(&mut bench, Selection { ranges, ..Selection::default() });
    content.follow(&mut bench);
    folder.follow(&mut bench);
    let mut seed = Member::join(&mut bench, 1, &[content.channel, folder.channel]);
    // The peer is asked at once for blobs of the channel that it claims first.
    seed.say_have(&mut bench, all());
    seed.peer.send(&mut bench, &Message::Have(seed.tags[1], SEQUENCE, all()));
    let mut blobs: BlobMap = content.data.iter().cloned().collect();
    blobs.extend(folder.blobs().clone());
    seed.bring(&mut bench, &blobs, 2 * BLOB_BYTES);
    assert_eq!(folder.names(&seed.asked)[..2], ["another channel's", "d0"]);
    let last = seed.asked.iter().rposition(|(name, _)| *name == folder.blob_name("d0"));
    seed.bring_all(&mut bench, &blobs);
    let then = &seed.asked[last.expect("it was asked for") + 1..][..20];
    let of_folder = then.iter().filter(|(name, _)| folder.blobs().contains_key(name)).count();
    assert_eq!(of_folder, 10, "then both in turn");
}

#[test]
fn a_blob_of_two_files_is_as_urgent_as_the_more_urgent_one() {
    let folder = Folder::new(SEQUENCE, &[("b", &[4, 1, 5, 2, 6, 7]), ("d", &[2, 3])]);
    let mut bench = Bench::answering(CONFIG, None);
    folder.store(&mut bench, |name| ["body", "page", "b*"].contains(&name));
    folder.select(
        &mut bench,
        Selection { files: [("d".into(), Priority::High)].into(), ..Selection::default() },
    );
    folder.follow(&mut bench);
    let mut seed = Member::join(&mut bench, 1, &[folder.channel]);
    seed.say_have(&mut bench, all());
    let order = fetched(&folder, &mut bench, &mut seed);
    // One more was asked for before the index was read.
    assert_eq!((order[0], sorted(order[2..4].to_vec())), ("d*", vec!["b3", "d1"]), "{order:?}");
}

#[test]
fn a_range_is_the_blobs_that_cover_it_and_comes_before_all_else() {
    for folder in [Folder::new(SEQUENCE, &LONG), Folder::of_chunks(SEQUENCE, &LONG)] {
        let blob = PLAIN_LEN as u64;
        let part = |bytes| FileRange { bytes, ..range("b", 0..0) };
        for (bytes, covered) in [
            (2 * blob..3 * blob, &["b2"][..]),
            (2 * blob + 1..3 * blob + 1, &["b2", "b3"]),
            (3 * blob - 1..3 * blob, &["b2"]),
            (5 * blob..u64::MAX, &["b5"]),
        ] {
            let files =
                Selection { others: Priority::High, ranges: vec![part(bytes)], ..Selection::default() };
            let (mut bench, mut seed) = selecting(&folder, files);
            let order = fetched(&folder, &mut bench, &mut seed);
            assert_eq!((sorted(order[..covered.len()].to_vec()), order.len()), (covered.to_vec(), 9));
        }
    }
}

#[test]
fn a_seek_into_one_gib_takes_two_parts() {
    let folder = Folder::of_many(SEQUENCE, &[("film", 1024)]);
    let sought = 700 * PLAIN_LEN + 11 * PART_LEN + 5;
    let bytes = sought as u64..sought as u64 + 1;
    let selection = Selection { ranges: vec![FileRange { bytes, ..range("film", 0..0) }], ..only(&[]) };
    let mut bench = Bench::answering(CONFIG, None);
    folder.store(&mut bench, |name| ["body", "page"].contains(&name));
    folder.select(&mut bench, selection);
    folder.follow(&mut bench);
    let mut seed = folder.seed(&mut bench, 1);
    seed.bring(&mut bench, &folder, PART_LEN as u64);
    seed.hear(&mut bench);
    let [(index, of_index), (data, of_data), ..] = seed.asked[..] else { panic!("{:?}", seed.asked) };
    assert_eq!((folder.name(&index), of_index), ("film*", Mask::one(0)));
    // A peer brings them in order, and the sought one is the first.
    assert_eq!((folder.name(&data), of_data.iter().next()), ("film700", Some(11)));
}

#[test]
fn a_range_of_a_skipped_file_is_fetched_alone_and_an_empty_range_is_nothing() {
    for folder in [Folder::new(SEQUENCE, &LONG), Folder::of_chunks(SEQUENCE, &LONG)] {
        let ranges = vec![range("b", 4..6)];
        let (mut bench, mut seed) = selecting(&folder, Selection { ranges, ..only(&[]) });
        assert_eq!(sorted(fetched(&folder, &mut bench, &mut seed)), ["b4", "b5"]);
        assert_eq!(folder.extent(&bench), (true, false));
        let mut asker = Member::join(&mut bench, 2, &[folder.channel]);
        asker.ask_have(&mut bench, SEQUENCE);
        let told = asker.told_positions().expect("not all is there");
        for (name, is_told) in [("body", true), ("b4", true), ("b5", true), ("b0", false), ("a0", false)] {
            assert_eq!(told.contains(&folder.position(name)), is_told, "{name}");
        }
        let blob = PLAIN_LEN as u64;
        for bytes in [0..0, 5..5, blob..blob, 2 * blob..blob, 6 * blob..7 * blob, u64::MAX - 1..u64::MAX] {
            let ranges = vec![FileRange { bytes, ..range("b", 0..0) }];
            let (_, seed) = selecting(&folder, Selection { ranges, ..only(&[]) });
            assert_eq!(folder.names(&seed.asked), [""; 0]);
        }
    }
}

#[test]
fn a_long_range_does_not_delay_an_earlier_deadline() {
    let folder = Folder::of_many(SEQUENCE, &[("a", 1000), ("b", 2), ("c", 2)]);
    let due = |path, secs| FileRange { deadline: Some(at(secs)), ..range(path, 0..1) };
    let ranges = vec![range("a", 0..1000), due("c", 20), due("b", 10)];
    let (mut bench, mut seed) = selecting(&folder, Selection { ranges, ..Selection::default() });
    seed.refuse(&mut bench);
    seed.refuse(&mut bench);
    assert_eq!(folder.names(&seed.asked)[..2], ["b0", "c0"]);
}

#[test]
fn a_long_file_does_not_delay_a_more_urgent_one_whose_index_comes_late() {
    let folder = Folder::of_many(SEQUENCE, &[("a", 1000), ("z", 40)]);
    let high = Selection { files: [("z".into(), Priority::High)].into(), ..Selection::default() };
    let ranges = vec![FileRange { deadline: Some(at(5)), ..range("z", 30..31) }];
    for (selection, next) in [(high, None), (Selection { ranges, ..Selection::default() }, Some("z30"))] {
        let mut bench = Bench::answering(CONFIG, None);
        folder.store(&mut bench, |name| ["body", "page", "a*"].contains(&name));
        folder.select(&mut bench, selection);
        folder.follow(&mut bench);
        let mut seed = Member::join(&mut bench, 1, &[folder.channel]);
        seed.say_have(&mut bench, all());
        // The index of 40 blobs is one piece.
        seed.bring(&mut bench, &folder, BLOB_BYTES / 32);
        // One more was asked for before the index was read.
        seed.refuse(&mut bench);
        seed.hear(&mut bench);
        let asked = folder.names(&seed.asked);
        assert_eq!((asked[0], &asked[2][..1]), ("z*", "z"), "{asked:?}");
        assert!(next.is_none_or(|next| asked[2] == next), "{asked:?}");
    }
}

#[test]
fn the_wanted_blobs_are_bounded_however_many_are_missing() {
    let folder = Folder::of_many(SEQUENCE, &[("a", 1000), ("b", 1000)]);
    let everything = Selection::default();
    let ranges = vec![range("a", 0..1000), range("b", 0..1000)];
    for selection in [everything.clone(), Selection { ranges, ..everything }] {
        let mut bench = Bench::new(CONFIG, None);
        folder.store_index(&mut bench);
        folder.select(&mut bench, selection);
        folder.follow(&mut bench);
        let mut missing = BTreeSet::new();
        while let Some((id, job)) = bench.jobs.pop_front() {
            if let Job::Have(ids, _) = &job {
                missing.extend(ids.iter().filter(|id| !bench.world.store.blobs.contains_key(id)).copied());
            }
            for input in bench.world.answer(bench.now, id, job) {
                bench.handle(input);
            }
        }
        assert!(
            (WANTED_PER_FETCH_MAX / 2..=WANTED_PER_FETCH_MAX).contains(&missing.len()),
            "{}",
            missing.len()
        );
    }
}
