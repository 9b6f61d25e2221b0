//! Blobs that come whole, by REQUEST and DATA: v5 blobs from peers of either version, and native blobs from v5 peers under the id
//! that their author says; and what is served so.

use std::time::Duration;

use crate::support::content::{
    BLOB_BYTES, BlobMap, SEQUENCE, Sealed, data_of, file, item, item_of, sealed, sealed_native,
};
use crate::support::folder::Folder;
use crate::support::member::{Manner, Member, all, pass, positions};
use crate::support::peer::Peer;
use crate::support::{Bench, CONFIG, addr, identity};
use megatorrent_core::blob;
use megatorrent_core::codec::Message;
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::ids::{BlobId, BlobName};
use megatorrent_core::limits::STALL_TIMEOUT;
use megatorrent_core::manifest::{Chunk, HeadContent};
use megatorrent_core::node::{Command, Event};
use megatorrent_core::parts::{Mask, PARTS};

/// A node that follows the channel of [`identity`], whose head names this chunk.
fn fetching(chunk: &Chunk) -> Bench {
    let mut bench = Bench::answering(CONFIG, None);
    let channel = identity().public_key();
    bench.world.heads.insert(channel, (item_of(chunk, SEQUENCE.cast_signed()), 1));
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
    bench
}

/// A v5 peer that the node dials.
fn v5(bench: &mut Bench, port: u16) -> Peer {
    bench.command(Command::AddPeer(addr(port)));
    let mut peer = Peer::listen(bench, &addr(port));
    peer.say_hello(bench, 5);
    peer
}

/// A v6 peer that has all of the channel.
fn v6(bench: &mut Bench, port: u16) -> Member {
    let mut member = Member::join(bench, port, &[identity().public_key()]);
    member.say_have(bench, all());
    member
}

fn is_complete(bench: &Bench) -> bool {
    bench.count(|event| matches!(event, Event::Complete { .. })) == 1
}

fn blobs_of(name: BlobName, blob: &[u8]) -> BlobMap {
    [(name, blob.to_vec())].into()
}

// --- native blobs by their ids ------------------------------------------------------------------------------------

#[test]
fn a_native_blob_comes_whole_from_a_v5_peer_and_is_served_by_both_names() {
    let (chunk, blob) = sealed_native(1);
    let root = chunk.root.expect("it is native");
    let mut bench = fetching(&chunk);
    let mut peer = v5(&mut bench, 1);
    assert!(peer.is_asked_for(&mut bench, &chunk.id));
    peer.send_blob(&mut bench, &blob);
    assert_eq!(bench.world.store.blobs, blobs_of(root.into(), &blob));
    assert!(is_complete(&bench));
    let mut asker = Member::join(&mut bench, 2, &[identity().public_key()]);
    asker.want(&mut bench, root, Mask::ALL);
    asker.peer.send(&mut bench, &Message::Request(chunk.id));
    asker.hear(&mut bench);
    assert_eq!((asker.pieces.len(), asker.blobs.len()), (2 * PARTS, 1));
    assert!(asker.blobs[0] == blob);
}

#[test]
fn an_authors_false_id_bans_nobody_and_the_blob_comes_by_its_root() {
    let (mut chunk, blob) = sealed_native(1);
    let (other, other_blob) = sealed(2);
    let root = chunk.root.expect("it is native");
    chunk.id = other.id;
    let mut bench = fetching(&chunk);
    let mut peer = v5(&mut bench, 1);
    assert!(peer.is_asked_for(&mut bench, &other.id));
    peer.send_blob(&mut bench, &other_blob);
    assert_eq!((bench.closed_for(peer.conn), bench.status().bans), (None, 0));
    assert_eq!(bench.world.store.blobs, BlobMap::new());
    bench.sleep(Duration::from_secs(15));
    assert!(!peer.is_asked_for(&mut bench, &other.id), "it is of no use");
    let mut member = v6(&mut bench, 2);
    member.bring_all(&mut bench, &blobs_of(root.into(), &blob));
    assert!(is_complete(&bench));
    // Under the false id nothing is served.
    member.peer.send(&mut bench, &Message::Request(other.id));
    member.hear(&mut bench);
    assert_eq!(member.errors, ["Not Found"]);
}

#[test]
fn a_v5_peer_that_brings_what_has_neither_the_id_nor_the_root_is_banned() {
    let (chunk, mut blob) = sealed_native(1);
    blob[77] ^= 1;
    let mut bench = fetching(&chunk);
    let mut peer = v5(&mut bench, 1);
    assert!(peer.is_asked_for(&mut bench, &chunk.id));
    peer.send_blob(&mut bench, &blob);
    assert_eq!(bench.closed_for(peer.conn), Some(CloseReason::Banned));
    assert_eq!((bench.status().bans, bench.world.store.blobs.len()), (1, 0));
}

#[test]
fn a_native_blob_is_not_asked_for_whole_while_its_parts_are_under_way() {
    let (chunk, blob) = sealed_native(1);
    let root = chunk.root.expect("it is native");
    let mut bench = fetching(&chunk);
    let mut member = v6(&mut bench, 1);
    assert_eq!(member.asked, [(root.into(), Mask::one(0))]);
    let mut peer = v5(&mut bench, 2);
    assert!(!peer.is_asked_for(&mut bench, &chunk.id));
    member.bring_all(&mut bench, &blobs_of(root.into(), &blob));
    assert!(is_complete(&bench));
}

#[test]
fn parts_that_take_too_long_are_had_whole_from_a_v5_peer_and_what_was_asked_for_is_cancelled() {
    let (chunk, blob) = sealed_native(1);
    let mut bench = fetching(&chunk);
    let mut silent = v6(&mut bench, 1);
    let mut peer = v5(&mut bench, 2);
    bench.sleep(Duration::from_secs(5));
    assert!(peer.is_asked_for(&mut bench, &chunk.id));
    peer.send_blob(&mut bench, &blob);
    assert!(is_complete(&bench));
    silent.hear(&mut bench);
    assert_eq!(silent.cancelled.len(), 1);
    assert!(silent.open.is_empty());
}

#[test]
fn a_blob_that_takes_too_long_whole_is_had_by_parts() {
    let (chunk, blob) = sealed_native(1);
    let root = chunk.root.expect("it is native");
    let mut bench = fetching(&chunk);
    let mut silent = v5(&mut bench, 1);
    assert!(silent.is_asked_for(&mut bench, &chunk.id));
    let mut member = v6(&mut bench, 2);
    assert_eq!(member.parts_open(), 0, "one is enough");
    pass(&mut bench, &BlobMap::new(), Duration::from_secs(5), &mut [&mut member]);
    assert_eq!(member.asked_of(&chunk.name()), Mask::one(0));
    member.bring_all(&mut bench, &blobs_of(root.into(), &blob));
    assert!(is_complete(&bench));
    // What comes late is a duplicate, and no lie.
    silent.send_blob(&mut bench, &blob);
    assert_eq!((bench.closed_for(silent.conn), bench.status().bytes_duplicate), (None, blob.len() as u64));
}

// --- v5 blobs from v6 peers ---------------------------------------------------------------------------------------

#[test]
fn v5_blobs_come_whole_from_v6_peers_that_tell_of_them() {
    let folder = Folder::of_chunks(SEQUENCE, &[("a", &[0, 1]), ("b", &[2])]);
    let mut bench = Bench::answering(CONFIG, None);
    folder.store_index(&mut bench);
    folder.follow(&mut bench);
    let mut some = Member::join(&mut bench, 1, &[folder.channel]);
    some.say_have(&mut bench, positions(folder.positions(&["a1"])));
    let mut seed = folder.seed(&mut bench, 2);
    some.bring_all(&mut bench, &folder);
    seed.bring_all(&mut bench, &folder);
    assert_eq!(folder.names(&some.asked), ["a1"]);
    let mut rest = folder.names(&seed.asked);
    rest.sort_unstable();
    assert_eq!((rest, seed.asked.len()), (vec!["a0", "b0"], 2));
    assert_eq!(folder.extent(&bench), (true, true));
    assert_eq!(bench.status().bytes_received, 3 * blob::BLOB_LEN as u64);
    // They are told of and served on as such.
    let mut asker = Member::join(&mut bench, 3, &[folder.channel]);
    assert_eq!(asker.told_positions(), None);
    let BlobName::V5(id) = folder.blob_name("b0") else { panic!("it is a v5 blob") };
    asker.peer.send(&mut bench, &Message::Request(id));
    asker.hear(&mut bench);
    assert!(blob::id(&asker.blobs[0]) == id);
}

#[test]
fn a_v6_peer_that_brings_a_wrong_v5_blob_is_banned_and_one_that_brings_none_is_closed() {
    let (chunk, blob) = sealed(1);
    let blobs = blobs_of(chunk.name(), &blob);
    let mut bench = fetching(&chunk);
    let mut liar = v6(&mut bench, 1);
    let mut silent = v6(&mut bench, 2);
    liar.manner = Manner::Lies;
    liar.bring_all(&mut bench, &blobs);
    assert_eq!(liar.closed_for(&bench), Some(CloseReason::Violation(Violation::WrongBlob)));
    silent.hear(&mut bench);
    assert_eq!(silent.parts_open(), PARTS);
    bench.sleep(STALL_TIMEOUT + Duration::from_secs(1));
    assert_eq!(silent.closed_for(&bench), Some(CloseReason::Stalled));
    let mut honest = v6(&mut bench, 3);
    honest.bring_all(&mut bench, &blobs);
    assert!(is_complete(&bench));
    assert_eq!(bench.status().bans, 1);
    let wrong = |e: &Event| matches!(e, Event::Banned { violation: Violation::WrongBlob, .. });
    assert_eq!(bench.count(wrong), 1);
}

#[test]
fn a_v5_blob_that_takes_too_long_is_asked_of_another_peer_too_and_the_second_is_a_duplicate() {
    let (chunk, blob) = sealed(1);
    let blobs = blobs_of(chunk.name(), &blob);
    let mut bench = fetching(&chunk);
    let mut slow = v6(&mut bench, 1);
    let mut other = v6(&mut bench, 2);
    pass(&mut bench, &blobs, Duration::from_secs(2), &mut [&mut slow, &mut other]);
    assert_eq!((slow.asked.len(), other.asked.len()), (1, 0));
    pass(&mut bench, &blobs, Duration::from_secs(3), &mut [&mut slow, &mut other]);
    assert_eq!((slow.asked.len(), other.asked.len()), (1, 1));
    other.bring(&mut bench, &blobs, BLOB_BYTES);
    assert!(is_complete(&bench));
    slow.bring(&mut bench, &blobs, BLOB_BYTES);
    assert_eq!((slow.closed_for(&bench), bench.status().bytes_duplicate), (None, blob.len() as u64));
}

// --- ids that a body tells ----------------------------------------------------------------------------------------

#[test]
fn native_blobs_are_served_by_the_ids_that_the_body_tells_once_all_is_here() {
    let mut author = Sealed::default();
    let (link, data) = data_of(&identity(), 1, 1000);
    author.0.insert(link.root.into(), data.clone());
    let tree = author.tree([link.clone()], 1000);
    let body = author.body(vec![file("file", 1000, tree.into())], true);
    let mut bench = Bench::answering(CONFIG, None);
    let channel = identity().public_key();
    let head = item(&identity(), SEQUENCE.cast_signed(), &HeadContent::Body(body));
    bench.world.heads.insert(channel, (head, 1));
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
    let mut seed = v6(&mut bench, 1);
    seed.bring_all(&mut bench, &author.0);
    assert!(is_complete(&bench));
    assert_eq!(bench.world.store.blobs, author.0, "body, page, data and ids");
    let id = blob::id(&data);
    assert!(bench.world.store.noted[&id].contains(&link.root));
    let mut asker = Peer::dial(&mut bench, addr(50_000));
    asker.send(&mut bench, &Message::Request(id));
    asker.send(&mut bench, &Message::Request(BlobId(link.root.0)));
    let answers = asker.receive(&mut bench);
    assert!(answers == [Message::Data(data), Message::Error("Not Found".into())], "a root is no id");
}
