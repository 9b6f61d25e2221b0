//! A selection over time: newer versions, restarts, lost blobs, and unobtainable files.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::content::{BLOB_BYTES, SEQUENCE};
use crate::support::folder::{Folder, Spec, only};
use crate::support::member::{Member, all};
use crate::support::{Bench, CONFIG};
use megatorrent_core::limits::HEAD_POLL_INTERVAL;
use megatorrent_core::node::{Command, Event, Job, Selection};
use megatorrent_core::parts::Mask;

const FIRST: [Spec<'_>; 4] = [("a", &[0, 1]), ("b", &[2, 3]), ("c", &[4]), ("d", &[5])];

fn selecting(folder: &Folder, selection: Selection) -> (Bench, Member) {
    let mut bench = Bench::answering(CONFIG, None);
    folder.select(&mut bench, selection);
    folder.follow(&mut bench);
    let mut seed = folder.seed(&mut bench, 1);
    seed.bring_all(&mut bench, folder);
    (bench, seed)
}

/// Gives the DHT and the peer a newer version; returns the blobs that the peer was asked for.
fn update<'a>(bench: &mut Bench, seed: &mut Member, folder: &'a Folder) -> Vec<&'a str> {
    folder.publish(bench);
    bench.sleep(HEAD_POLL_INTERVAL + Duration::from_secs(10));
    let before = seed.asked.len();
    seed.version = folder.sequence;
    seed.say_have(bench, all());
    seed.bring_all(bench, folder);
    sorted(folder.names(&seed.asked[before..]))
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

/// Returns the sequences whose selection became complete.
fn completed(bench: &Bench) -> Vec<u64> {
    let sequence = |event: &Event| match event {
        Event::SelectionComplete { sequence, .. } => Some(*sequence),
        _ => None,
    };
    bench.events.iter().filter_map(sequence).collect()
}

// --- newer versions -----------------------------------------------------------------------------------------------

#[test]
fn files_stay_selected_by_their_paths_in_newer_versions() {
    let [one, two, three, four] = [SEQUENCE, SEQUENCE + 1, SEQUENCE + 2, SEQUENCE + 3];
    let (mut bench, mut seed) = selecting(&Folder::new(one, &FIRST), only(&["b"]));
    // One selected file has changed, and another file is new.
    let second = Folder::new(two, &[("a", &[0, 1]), ("b", &[2, 9]), ("e", &[8])]);
    assert_eq!(update(&mut bench, &mut seed, &second), ["b*", "b1", "body", "page"]);
    // The selected file has another name.
    let third = Folder::new(three, &[("a", &[0, 1]), ("e", &[8]), ("f", &[2, 9, 7])]);
    assert_eq!(update(&mut bench, &mut seed, &third), ["body", "page"]);
    assert_eq!(third.extent(&bench), (true, false));
    // The file is back, and has more in it.
    let fourth = Folder::new(four, &[("b", &[2, 9, 7])]);
    assert_eq!(update(&mut bench, &mut seed, &fourth), ["b*", "b2", "body", "page"]);
    assert_eq!((fourth.extent(&bench), completed(&bench)), ((true, true), vec![one, two, three]));
    let is_complete = |event: &Event| matches!(event, Event::Complete { .. });
    assert_eq!(bench.count(is_complete), 1, "all that the fourth names is selected");
    assert_eq!(bench.status().bytes_duplicate, 0);
}

#[test]
fn a_newer_version_takes_over_in_the_middle_of_a_fetch() {
    let first = Folder::new(SEQUENCE, &FIRST);
    let mut bench = Bench::answering(CONFIG, None);
    first.select(&mut bench, only(&["b", "c"]));
    first.follow(&mut bench);
    let mut seed = first.seed(&mut bench, 1);
    seed.bring(&mut bench, &first, 2 * BLOB_BYTES);
    let second = Folder::new(SEQUENCE + 1, &[("b", &[2, 3]), ("c", &[6])]).after(&first);
    update(&mut bench, &mut seed, &second);
    assert_eq!((second.extent(&bench), completed(&bench)), ((true, true), vec![]));
    assert!(!first.stored(&bench).contains(&"a0"));
}

// --- before and after ---------------------------------------------------------------------------------------------

#[test]
fn a_selection_may_come_before_the_channel_is_followed_or_its_head_is_known() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    for follows_first in [false, true] {
        let mut bench = Bench::answering(CONFIG, None);
        let follow = || Command::Follow { channel: folder.channel, read_key: None };
        if follows_first {
            bench.command(follow());
            bench.sleep(Duration::from_secs(1));
        }
        folder.select(&mut bench, only(&["a", "d"]));
        folder.select(&mut bench, only(&["d"]));
        if !follows_first {
            bench.command(follow());
        }
        folder.publish(&mut bench);
        bench.sleep(Duration::from_secs(10));
        let mut seed = folder.seed(&mut bench, 1);
        seed.bring_all(&mut bench, &folder);
        assert_eq!(folder.names(&seed.asked), ["body", "page", "d0"]);
        assert_eq!(completed(&bench), [SEQUENCE]);
    }
}

#[test]
fn after_a_restart_the_selection_holds_once_the_driver_has_set_it_again() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    let (bench, _) = selecting(&folder, only(&["b"]));
    let mut bench = bench.restarted();
    folder.select(&mut bench, only(&["b"]));
    bench.sleep(Duration::from_secs(1));
    assert_eq!((folder.extent(&bench), completed(&bench)), ((true, false), vec![SEQUENCE]));
    let mut seed = folder.seed(&mut bench, 1);
    seed.bring_all(&mut bench, &folder);
    assert_eq!(seed.asked, []);
    folder.select(&mut bench, only(&["b", "c"]));
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked), ["c0"]);
    // Without it, everything is selected.
    let mut bench = bench.restarted();
    let mut seed = folder.seed(&mut bench, 1);
    seed.bring_all(&mut bench, &folder);
    assert_eq!(sorted(folder.names(&seed.asked)), ["a*", "a0", "a1", "d0"]);
}

// --- lost blobs ---------------------------------------------------------------------------------------------------

/// Lets a peer ask for a blob that the store has lost, after which the node rechecks the store.
fn ask_for_lost(bench: &mut Bench, folder: &Folder, name: &str) {
    let mut asker = Member::join(bench, 9, &[folder.channel]);
    asker.want(bench, folder.root(name), Mask::ALL);
    asker.hear(bench);
    bench.sleep(Duration::from_secs(1));
    bench.node.disconnected(bench.now, asker.peer.conn);
    bench.drain();
}

fn is_lost(event: &Event) -> bool {
    matches!(event, Event::BlobsLost { .. })
}

#[test]
fn only_the_lost_blobs_of_a_selection_are_fetched_again() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    let (mut bench, mut seed) = selecting(&folder, only(&["b"]));
    bench.world.store.blobs.remove(&folder.blob_name("b1"));
    let before = seed.asked.len();
    ask_for_lost(&mut bench, &folder, "b1");
    assert_eq!((bench.count(is_lost), folder.extent(&bench)), (1, (false, false)));
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked[before..]), ["b1"]);
    assert_eq!((folder.extent(&bench), completed(&bench).len()), ((true, false), 2));
}

#[test]
fn files_selected_while_lost_blobs_are_fetched_again_are_reported() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    let (mut bench, mut seed) = selecting(&folder, only(&["b"]));
    bench.world.store.blobs.remove(&folder.blob_name("b1"));
    ask_for_lost(&mut bench, &folder, "b1");
    folder.select(&mut bench, only(&["b", "c"]));
    seed.bring_all(&mut bench, &folder);
    let is_told = |event: &Event| matches!(event, Event::FileComplete { file: 2, .. });
    assert_eq!((folder.extent(&bench), bench.count(is_told)), ((true, false), 1));
}

#[test]
fn an_answer_to_an_earlier_recheck_does_not_count_for_a_later_one() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    let mut bench = Bench::new(CONFIG, None);
    folder.store(&mut bench, |name| ["body", "page"].contains(&name) || name.starts_with('b'));
    folder.select(&mut bench, only(&["b"]));
    folder.follow(&mut bench);
    bench.answer_jobs();
    assert_eq!(completed(&bench), [SEQUENCE]);
    let mut asker = Member::join(&mut bench, 1, &[folder.channel]);
    asker.want(&mut bench, folder.root("a0"), Mask::ALL);
    asker.hear(&mut bench);
    bench.answer_jobs();
    bench.sleep(Duration::from_secs(1));
    // The recheck comes as far as the file's index blob.
    let is_open =
        |name: &str, job: &Job| matches!(job, Job::OpenBlob(blob, _) if blob.root == folder.root(name));
    let mut held = None;
    while held.is_none() {
        let (id, job) = bench.jobs.pop_front().expect("it is opened");
        if is_open("b*", &job) {
            held = Some((id, job));
            continue;
        }
        for input in bench.world.answer(bench.now, id, job) {
            bench.handle(input);
        }
    }
    folder.select(&mut bench, only(&["b", "d"]));
    let (id, have) = bench.job(|job| matches!(job, Job::Have(..))).expect("the body is looked up");
    for input in bench.world.answer(bench.now, id, have) {
        bench.handle(input);
    }
    assert!(bench.jobs.iter().any(|(_, job)| is_open("body", job)));
    let (id, job) = held.expect("it was held");
    for input in bench.world.answer(bench.now, id, job) {
        bench.handle(input);
    }
    bench.answer_jobs();
    assert_eq!(bench.count(|event| matches!(event, Event::BodyRefused { .. })), 0);
    let mut seed = folder.seed(&mut bench, 2);
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked), ["d0"]);
}

#[test]
fn lost_blobs_of_deselected_files_are_given_up_and_not_claimed() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    let (mut bench, mut seed) = selecting(&folder, Selection::default());
    assert_eq!(folder.extent(&bench), (true, true));
    folder.select(&mut bench, only(&["b"]));
    assert_eq!(folder.extent(&bench), (true, true), "all is there");
    bench.world.store.blobs.remove(&folder.blob_name("a1"));
    let before = seed.asked.len();
    let mut leecher = Member::join(&mut bench, 3, &[folder.channel]);
    assert_eq!((leecher.told_positions(), leecher.asked_have.len()), (None, 0));
    ask_for_lost(&mut bench, &folder, "a1");
    leecher.hear(&mut bench);
    assert_eq!(leecher.asked_have.len(), 1, "that takes it back");
    seed.bring_all(&mut bench, &folder);
    assert_eq!((seed.asked.len(), bench.count(is_lost)), (before, 0));
    assert_eq!((folder.extent(&bench), completed(&bench)), ((true, false), vec![SEQUENCE]));
    let mut asker = Member::join(&mut bench, 2, &[folder.channel]);
    asker.ask_have(&mut bench, SEQUENCE);
    assert_eq!(asker.told_positions(), Some(folder.positions(&["body", "page", "b*", "b0", "b1"])));
    // It is fetched again where it is selected again.
    folder.select(&mut bench, Selection::default());
    seed.say_have(&mut bench, all());
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked[before..]), ["a1"]);
    assert_eq!(folder.extent(&bench), (true, true));
}

// --- unobtainable files -------------------------------------------------------------------------------------------

#[test]
fn an_unobtainable_file_does_not_delay_others() {
    let folder = Folder::with_broken(SEQUENCE, &FIRST, "a");
    let (mut bench, mut seed) = selecting(&folder, only(&["a", "c"]));
    let is_refused = |event: &Event| matches!(event, Event::FileRefused { file: 0, .. });
    assert_eq!((bench.count(is_refused), folder.extent(&bench)), (1, (false, false)));
    folder.select(&mut bench, only(&["a", "b", "c"]));
    seed.bring_all(&mut bench, &folder);
    assert_eq!((folder.extent(&bench), completed(&bench).len()), ((false, false), 0));
    assert!(folder.stored(&bench).contains(&"b1"));
    folder.select(&mut bench, only(&["b", "c"]));
    assert_eq!((folder.extent(&bench), completed(&bench).len()), ((true, false), 1));
    assert_eq!(bench.count(is_refused), 1, "told once");
}

#[test]
fn an_unobtainable_range_is_not_taken_for_complete() {
    let folder = Folder::with_broken(SEQUENCE, &FIRST, "a");
    let ranges = vec![crate::support::folder::range("a", 0..1)];
    let (bench, _) = selecting(&folder, Selection { ranges, ..only(&["c"]) });
    let is_refused = |event: &Event| matches!(event, Event::FileRefused { file: 0, .. });
    assert_eq!((bench.count(is_refused), folder.extent(&bench)), (1, (false, false)));
    assert!(folder.stored(&bench).contains(&"c0"));
}

#[test]
fn a_user_who_says_that_blobs_may_be_lost_has_them_looked_up_again_with_where_they_stand() {
    let folder = Folder::new(SEQUENCE, &FIRST);
    let (mut bench, mut seed) = selecting(&folder, only(&["b"]));
    bench.world.store.blobs.remove(&folder.blob_name("b1"));
    let before = seed.asked.len();
    bench.command(Command::LookAgain(folder.channel));
    assert_eq!((bench.count(is_lost), folder.extent(&bench)), (0, (false, false)));
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&seed.asked[before..]), ["b1"]);
    let is_told = |event: &Event| matches!(event, Event::FileComplete { file: 1, .. });
    assert_eq!((folder.extent(&bench), bench.count(is_told)), ((true, false), 2));

    // Where nothing is followed, nothing happens; and data blobs alone stand somewhere.
    let mut bench = Bench::new(CONFIG, None);
    bench.command(Command::LookAgain(folder.channel));
    folder.store(&mut bench, |name| ["body", "page"].contains(&name) || name.contains('*'));
    folder.follow(&mut bench);
    let mut stands = BTreeMap::new();
    while let Some((id, job)) = bench.jobs.pop_front() {
        if let Job::Have(_, of_job) = &job {
            stands.extend(of_job.iter().map(|(root, stand)| (*root, (stand.file, stand.offset, stand.len))));
        }
        for input in bench.world.answer(bench.now, id, job) {
            bench.handle(input);
        }
    }
    let of = |name: &str| stands.get(&folder.root(name)).map(|(file, offset, _)| (*file, *offset));
    assert_eq!((of("a0"), of("b1"), of("d0")), (Some((0, 0)), Some((1, 1 << 20)), Some((3, 0))));
    assert_eq!((of("a*"), of("body")), (None, None));
}
