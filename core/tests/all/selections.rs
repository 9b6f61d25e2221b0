//! Partial selections: which blobs of a channel are fetched, claimed and served.

use std::time::Duration;

use crate::support::content::{BLOB_BYTES, SEQUENCE};
use crate::support::folder::{Folder, Spec, only, range};
use crate::support::member::{Member, positions};
use crate::support::{Bench, CONFIG};
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::{
    ANNOUNCE_INTERVAL, CHANNELS_MAX, PATH_LEN_MAX, SELECTED_FILES_MAX, SELECTED_RANGES_MAX,
};
use megatorrent_core::node::{Command, Event, Job, Priority, Refusal, Selection, SelectionError};
use megatorrent_core::parts::{Mask, PARTS};

/// `b` and `d` have their second blob in common.
const FIVE: [Spec<'_>; 5] = [("a", &[0, 1]), ("b", &[2, 3]), ("c", &[4]), ("d", &[5, 3]), ("e", &[6, 7])];

fn nothing() -> Selection {
    Selection { others: Priority::Skip, ..Selection::default() }
}

/// A node that follows the channel with this selection, and a peer that has all of it.
fn selecting(folder: &Folder, selection: Selection) -> (Bench, Member) {
    let mut bench = Bench::answering(CONFIG, None);
    folder.select(&mut bench, selection);
    folder.follow(&mut bench);
    let seed = folder.seed(&mut bench, 1);
    (bench, seed)
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

fn is_selected(event: &Event) -> bool {
    matches!(event, Event::SelectionComplete { sequence: SEQUENCE, .. })
}

fn is_complete(event: &Event) -> bool {
    matches!(event, Event::Complete { .. })
}

#[test]
fn only_the_blobs_of_two_selected_files_of_five_are_fetched_claimed_and_served() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, only(&["b", "d"]));
    seed.bring_all(&mut bench, &folder);
    let fetched = ["b*", "b0", "b1", "body", "d*", "d0", "page"];
    assert_eq!(sorted(folder.names(&seed.asked)), fetched);
    assert_eq!(folder.extent(&bench), (true, false));
    bench.sleep(Duration::from_mins(1));
    seed.hear(&mut bench);
    assert_eq!((bench.count(is_selected), bench.count(is_complete)), (1, 0));
    // Three blobs of data, and one part of each other: no more of them is content.
    assert_eq!(seed.parts_asked(), 3 * PARTS + 4);
    let files: Vec<usize> = bench.events.iter().filter_map(file_complete).collect();
    assert_eq!(sorted_numbers(files), [1, 3]);

    let mut asker = Member::join(&mut bench, 2, &[folder.channel]);
    asker.ask_have(&mut bench, SEQUENCE);
    let here = ["body", "page", "b*", "b0", "b1", "d*", "d0", "d1"];
    assert_eq!(asker.told_positions(), Some(folder.positions(&here)), "at every position of a repeated blob");
    for (name, len) in [("b1", PLAIN_LEN), ("a0", 0)] {
        asker.pieces.clear();
        asker.want(&mut bench, folder.root(name), Mask::ALL);
        asker.hear(&mut bench);
        assert_eq!(asker.pieces.iter().map(|(.., bytes)| bytes.len()).sum::<usize>(), len, "{name}");
    }
    assert_eq!(bench.closed, []);
}

fn file_complete(event: &Event) -> Option<usize> {
    match event {
        Event::FileComplete { file, .. } => Some(*file),
        _ => None,
    }
}

fn sorted_numbers(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers
}

#[test]
fn files_selected_later_are_fetched_and_no_blob_twice() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, only(&["b"]));
    seed.bring(&mut bench, &folder, BLOB_BYTES);
    assert_eq!(folder.extent(&bench), (false, false));
    // While the first is being fetched, and again when all selected files are complete.
    folder.select(&mut bench, only(&["b", "d"]));
    seed.bring_all(&mut bench, &folder);
    assert_eq!((folder.extent(&bench), bench.count(is_selected)), ((true, false), 1));
    folder.select(&mut bench, only(&["a", "b", "d"]));
    assert_eq!(folder.extent(&bench), (false, false));
    seed.bring_all(&mut bench, &folder);
    assert_eq!((folder.extent(&bench), bench.count(is_selected)), ((true, false), 2));
    folder.select(&mut bench, Selection::default());
    seed.bring_all(&mut bench, &folder);
    assert_eq!((folder.extent(&bench), bench.count(is_complete)), ((true, true), 1));
    let asked = folder.names(&seed.asked).len();
    // Eight blobs of data, and of six others one part each.
    assert_eq!((asked, seed.parts_asked(), bench.status().bytes_duplicate), (14, 8 * PARTS + 6, 0));
}

#[test]
fn a_smaller_selection_is_complete_at_once_where_its_files_are_stored() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, only(&["c"]));
    seed.bring_all(&mut bench, &folder);
    folder.select(&mut bench, only(&["a", "c"]));
    assert_eq!(folder.extent(&bench), (false, false));
    folder.select(&mut bench, only(&["c"]));
    assert_eq!((folder.extent(&bench), bench.count(is_selected)), ((true, false), 2));
}

#[test]
fn parts_in_flight_that_are_still_selected_go_on() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, only(&["a"]));
    seed.bring(&mut bench, &folder, BLOB_BYTES / 2);
    assert!(!seed.open.is_empty());
    folder.select(&mut bench, only(&["a", "e"]));
    bench.sleep(Duration::from_secs(5));
    seed.hear(&mut bench);
    assert_eq!(seed.cancelled, []);
    seed.bring_all(&mut bench, &folder);
    assert_eq!((folder.extent(&bench), bench.status().bytes_duplicate), ((true, false), 0));
}

#[test]
fn a_part_that_is_being_written_when_the_selection_changes_is_not_fetched_again() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let mut bench = Bench::new(CONFIG, None);
    folder.select(&mut bench, only(&["c"]));
    folder.follow(&mut bench);
    bench.answer_jobs();
    let mut seed = folder.seed(&mut bench, 1);
    for _ in ["body", "page"] {
        seed.bring_all(&mut bench, &folder);
        bench.answer_jobs();
    }
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked), ["body", "page", "c0"]);
    let (id, write) = bench.job(|job| matches!(job, Job::WritePart(..))).expect("it is written");
    folder.select(&mut bench, only(&["c", "a"]));
    bench.answer_jobs();
    for input in bench.world.answer(bench.now, id, write) {
        bench.handle(input);
    }
    bench.answer_jobs();
    while seed.bring(&mut bench, &folder, 10 * BLOB_BYTES) > 0 {
        bench.answer_jobs();
    }
    assert_eq!(sorted(folder.names(&seed.asked)), ["a*", "a0", "a1", "body", "c0", "page"]);
    assert_eq!((folder.extent(&bench), seed.parts_asked()), ((true, false), 3 * PARTS + 3));
}

#[test]
fn availability_learned_while_nothing_was_missing_counts_when_more_is_selected() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let mut bench = Bench::answering(CONFIG, None);
    folder.select(&mut bench, only(&["c"]));
    folder.follow(&mut bench);
    let mut peer = Member::join(&mut bench, 1, &[folder.channel]);
    peer.say_have(&mut bench, positions(folder.positions(&["body", "page", "c0"])));
    peer.bring_all(&mut bench, &folder);
    assert_eq!(folder.extent(&bench), (true, false));
    // It was asked once, and announces each blob from then on.
    assert_eq!(peer.asked_have.len(), 1);
    peer.say_have(&mut bench, positions(folder.positions(&["e*", "e0", "e1"])));
    folder.select(&mut bench, only(&["c", "e"]));
    peer.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&peer.asked)[3..], ["e*", "e0", "e1"]);
    assert_eq!((folder.extent(&bench), peer.asked_have.len()), ((true, false), 1));
}

#[test]
fn peers_are_looked_for_at_once_when_more_is_selected() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let mut bench = Bench::answering(CONFIG, None);
    bench.world.ends_lookups = true;
    folder.select(&mut bench, only(&["c"]));
    folder.follow(&mut bench);
    let mut seed = folder.seed(&mut bench, 1);
    seed.bring_all(&mut bench, &folder);
    bench.node.disconnected(bench.now, seed.peer.conn);
    bench.sleep(2 * ANNOUNCE_INTERVAL + Duration::from_mins(1));
    let before = bench.world.lookups.len();
    folder.select(&mut bench, Selection::default());
    bench.sleep(Duration::from_secs(2));
    assert!(bench.world.lookups.len() > before, "peers are looked up");
    // A peer that refused a blob is asked for it again.
    let mut peer = folder.seed(&mut bench, 2);
    peer.refuse(&mut bench);
    bench.sleep(Duration::from_secs(20));
    peer.bring_all(&mut bench, &folder);
    assert_eq!(folder.extent(&bench), (true, true));
}

#[test]
fn while_nothing_is_selected_the_channel_pauses_and_what_is_in_flight_is_cancelled() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, Selection::default());
    seed.bring(&mut bench, &folder, 3 * BLOB_BYTES);
    assert!(!seed.open.is_empty());
    folder.select(&mut bench, nothing());
    let asked = seed.asked.len();
    bench.sleep(Duration::from_secs(3));
    seed.hear(&mut bench);
    assert_eq!((seed.asked.len(), seed.open.len()), (asked, 0), "{:?}", seed.open);
    assert_eq!((folder.extent(&bench), bench.count(is_selected)), ((true, false), 1));
    let before = folder.stored(&bench).len();
    folder.select(&mut bench, Selection::default());
    seed.bring_all(&mut bench, &folder);
    assert_eq!((folder.extent(&bench), folder.stored(&bench).len()), ((true, true), 15));
    assert!((4..15).contains(&before));
    assert_eq!(bench.status().bytes_duplicate, 0);
}

// --- what cannot be selected --------------------------------------------------------------------------------------

fn refusal(bench: &mut Bench) -> Option<SelectionError> {
    match bench.refusal()? {
        Refusal::Selection(error) => Some(error),
        _ => None,
    }
}

#[test]
fn a_selection_beyond_its_limits_is_refused_and_the_older_one_stays() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, only(&["c"]));
    let long = "x".repeat(PATH_LEN_MAX + 1);
    let ranges = vec![range("a", 0..1); SELECTED_RANGES_MAX + 1];
    for (selection, why) in [
        (only(&["a", &long]), SelectionError::PathTooLong),
        (Selection { ranges: vec![range(&long, 0..1)], ..Selection::default() }, SelectionError::PathTooLong),
        (Selection { ranges, ..Selection::default() }, SelectionError::TooManyRanges),
    ] {
        folder.select(&mut bench, selection);
        assert_eq!(refusal(&mut bench), Some(why));
    }
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked), ["body", "page", "c0"]);
    assert_eq!(folder.extent(&bench), (true, false));
}

#[test]
fn too_many_files_are_refused() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let mut bench = Bench::answering(CONFIG, None);
    for (count, error) in
        [(SELECTED_FILES_MAX, None), (SELECTED_FILES_MAX + 1, Some(SelectionError::TooManyFiles))]
    {
        let files = (0..count).map(|n| (n.to_string(), Priority::Low)).collect();
        folder.select(&mut bench, Selection { files, ..Selection::default() });
        assert_eq!(refusal(&mut bench), error);
    }
}

#[test]
fn as_many_channels_have_a_selection_as_can_be_followed() {
    let mut bench = Bench::answering(CONFIG, None);
    let channel = |n: usize| {
        let mut secret = [1; 32];
        secret[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Identity::new(&Secret::new(secret), None).public_key()
    };
    let select = |bench: &mut Bench, n: usize, selection: Selection| {
        bench.command(Command::Select { channel: channel(n), selection });
        refusal(bench)
    };
    for n in 0..CHANNELS_MAX {
        assert_eq!(select(&mut bench, n, nothing()), None);
    }
    let refused = Some(SelectionError::TooManySelections);
    assert_eq!(select(&mut bench, CHANNELS_MAX, nothing()), refused);
    assert_eq!(select(&mut bench, CHANNELS_MAX, Selection::default()), None, "it is the default");
    assert_eq!(select(&mut bench, 0, only(&["a"])), None);
    // A selection of everything again, or of an unfollowed channel, makes room.
    assert_eq!(select(&mut bench, 0, Selection::default()), None);
    assert_eq!(select(&mut bench, CHANNELS_MAX, nothing()), None);
    bench.command(Command::Unfollow(channel(1)));
    assert_eq!(select(&mut bench, 0, nothing()), None);
}

#[test]
fn peers_are_looked_up_again_soon_after_more_was_selected_however_slow_the_store_is() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    for slow in [0, 10, 1000, 10_000].map(Duration::from_millis) {
        let mut bench = Bench::answering(CONFIG, None);
        bench.world.ends_lookups = true;
        folder.store_index(&mut bench);
        folder.select(&mut bench, nothing());
        folder.follow(&mut bench);
        bench.sleep(Duration::from_secs(2));
        assert_eq!(folder.extent(&bench), (true, false));
        bench.answers = false;
        folder.select(&mut bench, Selection::default());
        bench.sleep(slow);
        bench.answers = true;
        bench.answer_jobs();
        let looked_up = bench.world.lookups.len();
        bench.sleep(Duration::from_secs(10));
        assert!(bench.world.lookups.len() > looked_up, "{slow:?}");
    }
}

#[test]
fn what_a_peer_says_while_a_wider_selection_is_looked_up_in_the_store_counts() {
    let folder = Folder::new(SEQUENCE, &FIVE);
    let (mut bench, mut seed) = selecting(&folder, nothing());
    let mut late = Member::join(&mut bench, 2, &[folder.channel]);
    seed.bring_all(&mut bench, &folder);
    assert_eq!(
        (folder.extent(&bench), late.asked_have.len()),
        ((true, false), 1),
        "it is asked for the body"
    );
    bench.node.disconnected(bench.now, seed.peer.conn);
    bench.answers = false;
    folder.select(&mut bench, Selection::default());
    let names = ["a0", "a1", "b0", "b1", "c0", "d0", "e0", "e1", "a*", "b*", "d*", "e*"];
    late.say_have(&mut bench, positions(folder.positions(&names)));
    bench.answers = true;
    bench.answer_jobs();
    late.bring_all(&mut bench, &folder);
    assert_eq!(folder.extent(&bench), (true, true));
}
