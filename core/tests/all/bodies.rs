//! Bodies of several pages, and packs: what of them is fetched, told of and served, and what an author that says what is not so comes to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use crate::support::content::{SECRET, SEQUENCE, Sealed, collection, data_of, file, item};
use crate::support::folder::only;
use crate::support::member::{Member, all};
use crate::support::{Bench, CONFIG, author, identity};
use megatorrent_core::blob::{BLOB_LEN, BlobRef};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobName, Root, Secret};
use megatorrent_core::manifest::{
    AuthorStore, Body, Extent, HeadContent, Item, Manifest, PageRef, Reference, Slice,
};
use megatorrent_core::node::{Command, Event};
use megatorrent_core::parts::{Mask, PARTS};
use megatorrent_core::tree::{Shape, TreeRef};
use megatorrent_core::uri;

fn follow(bench: &mut Bench, author: &Identity, body: &TreeRef) {
    let channel = author.public_key();
    let content = HeadContent::Body(body.clone());
    bench.world.heads.insert(channel, (item(author, SEQUENCE.cast_signed(), &content), 1));
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
}

/// A peer that has all of the authors' channels.
fn seed(bench: &mut Bench, port: u16, authors: &[&Identity]) -> Member {
    let channels: Vec<_> = authors.iter().map(|author| author.public_key()).collect();
    let mut seed = Member::join(bench, port, &channels);
    for channel in channels {
        let tag = seed.peer.tag(&uri::topic(&channel, None));
        seed.peer.send(bench, &megatorrent_core::codec::Message::Have(tag, SEQUENCE, all()));
    }
    seed
}

fn count(bench: &Bench, fits: impl Fn(&Event) -> bool) -> usize {
    bench.events.iter().filter(|event| fits(event)).count()
}

fn extent(bench: &Bench, author: &Identity) -> (bool, bool) {
    let status = bench.node.channel_status(&author.public_key()).expect("it is followed");
    (status.satisfied, status.complete)
}

// --- pages --------------------------------------------------------------------------------------------------------

/// Enough for several pages.
const FILES: usize = 2000;

/// A channel of many files, all of the same content.
fn many_files() -> (Sealed, TreeRef, Body) {
    let mut sealed = Sealed::default();
    let (link, blob) = data_of(&identity(), 1, 1000);
    sealed.0.insert(link.root.into(), blob);
    let tree = sealed.tree([link], 1000);
    let items = (0..FILES).map(|n| file(&format!("{n:04}"), 1000, tree.clone().into())).collect();
    let body = sealed.body(items, false);
    let read = read(&mut sealed, &body);
    assert!(read.pages().count() > 2, "{} pages", read.pages().count());
    (sealed, body, read)
}

fn read(sealed: &mut Sealed, tree: &TreeRef) -> Body {
    let Ok(plain) = sealed.open(&tree.blob);
    let len = usize::try_from(tree.size).expect("it is short");
    Body::from_cbor(&plain.expect("it is there")[..len]).expect("it was written so")
}

fn write(sealed: &mut Sealed, bytes: &[u8]) -> TreeRef {
    let Ok(tree) =
        TreeRef::write(Shape::REAL, bytes, |buf, len| Ok::<BlobRef, Infallible>(sealed.seal(buf, len)));
    tree
}

#[test]
fn the_files_of_all_pages_arrive_and_each_page_costs_what_it_holds() {
    let (sealed, body, read) = many_files();
    let mut bench = Bench::answering(CONFIG, None);
    follow(&mut bench, &identity(), &body);
    let mut seed = seed(&mut bench, 1, &[&identity()]);
    seed.bring_all(&mut bench, &sealed.0);
    assert_eq!(extent(&bench, &identity()), (true, true));
    assert_eq!(bench.world.store.blobs, sealed.0);
    assert_eq!(count(&bench, |event| matches!(event, Event::FileComplete { .. })), FILES);
    let of_pages: usize = read.pages().map(|page| seed.asked_of(&page.tree.blob.root.into()).len()).sum();
    let needed = read.pages().map(|page| page.tree.size.div_ceil(1 << 16).next_power_of_two());
    assert_eq!(of_pages as u64, needed.sum::<u64>());
}

#[test]
fn a_page_that_is_none_is_refused_in_words_and_the_files_of_the_others_arrive() {
    type Change = fn(&mut Sealed, &mut PageRef);
    let changes: [Change; 4] = [
        |_, page| page.tree.blob.key = Secret::new([0xBB; 32]),
        |sealed, page| page.tree = write(sealed, b"no page"),
        |_, page| page.blobs += 1,
        |_, page| page.items -= 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let (mut sealed, _, mut read) = many_files();
        let broken = &mut read.collections[0].pages[1];
        let lost = broken.items as usize;
        change(&mut sealed, broken);
        let body = write(&mut sealed, &read.to_cbor());
        let mut bench = Bench::answering(CONFIG, None);
        follow(&mut bench, &identity(), &body);
        let mut seed = seed(&mut bench, 1, &[&identity()]);
        seed.bring_all(&mut bench, &sealed.0);
        assert_eq!(count(&bench, |event| matches!(event, Event::PageRefused { .. })), 1, "{n}");
        let complete = count(&bench, |event| matches!(event, Event::FileComplete { .. }));
        assert_eq!((complete, bench.status().bans), (FILES - lost, 0), "{n}");
        assert_eq!((extent(&bench, &identity()).1, seed.closed_for(&bench)), (false, None));
        let asked = seed.parts_asked();
        bench.sleep(Duration::from_mins(5));
        seed.hear(&mut bench);
        assert_eq!(seed.parts_asked(), asked, "nothing is fetched over and over");
    }
}

#[test]
fn a_body_that_is_none_is_refused_in_words() {
    for bytes in [&b"no body"[..], &[0xA1, 0x00, 0x03], &[]] {
        let mut sealed = Sealed::default();
        let body = write(&mut sealed, bytes);
        let mut bench = Bench::answering(CONFIG, None);
        follow(&mut bench, &identity(), &body);
        let mut seed = seed(&mut bench, 1, &[&identity()]);
        seed.bring_all(&mut bench, &sealed.0);
        assert_eq!(count(&bench, |event| matches!(event, Event::BodyRefused { .. })), 1);
        assert_eq!((seed.parts_asked(), bench.status().bans), (1, 0));
    }
}

// --- packs --------------------------------------------------------------------------------------------------------

fn pack(fill: u8) -> (Root, Vec<u8>) {
    let bytes: Vec<u8> = (0..BLOB_LEN).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ fill).collect();
    (Root(*blake3::hash(&bytes).as_bytes()), bytes)
}

fn slice(pack: u32, offset: u32) -> Extent {
    Extent::Slice(Slice { pack, offset, length: 100, key: SECRET })
}

fn sliced(path: &str, extents: Vec<Extent>) -> Item {
    let size = extents.iter().map(Extent::size).sum();
    file(path, size, Reference::Extents(extents))
}

/// A channel with two packs, and the names of its blobs by position.
fn packed() -> (Sealed, TreeRef, Vec<BlobName>) {
    let mut sealed = Sealed::default();
    let packs = [pack(1), pack(2)];
    let (link, blob) = data_of(&identity(), 1, 1000);
    sealed.0.insert(link.root.into(), blob);
    let tree = sealed.tree([link.clone()], 1000);
    let items = vec![
        sliced("a", vec![slice(0, 0), slice(0, 128)]),
        sliced("b", vec![Extent::Tree(tree), slice(7, 0)]),
        sliced("c", vec![slice(7, 128)]),
    ];
    let roots: BTreeMap<u32, Root> = [(0, packs[0].0), (7, packs[1].0)].into();
    let manifest =
        Manifest { collections: vec![collection(items)], packs: roots.clone(), ..Manifest::default() };
    let Ok(body) = manifest.store(Shape::REAL, false, &mut sealed) else { panic!("readers take it") };
    let page = read(&mut sealed, &body).pages().next().expect("it has one").tree.blob.root;
    let places = [body.blob.root, roots[&0], roots[&7], page, link.root].map(BlobName::Native);
    sealed.0.extend(packs.map(|(root, bytes)| (root.into(), bytes)));
    (sealed, body, places.into())
}

#[test]
fn packs_are_fetched_whole_once_and_served() {
    let (sealed, body, places) = packed();
    let mut bench = Bench::answering(CONFIG, None);
    follow(&mut bench, &identity(), &body);
    let mut seed = seed(&mut bench, 1, &[&identity()]);
    seed.bring_all(&mut bench, &sealed.0);
    assert_eq!((extent(&bench, &identity()), seed.parts_asked()), ((true, true), 2 * PARTS + 3));
    assert_eq!(bench.world.store.blobs, sealed.0);
    let status = bench.node.channel_status(&identity().public_key()).expect("it is followed");
    assert_eq!((status.blobs_stored, status.blobs_total), (5, 5));
    let mut asker = Member::join(&mut bench, 2, &[identity().public_key()]);
    asker.want(&mut bench, places[2].root().expect("it is native"), Mask::ALL);
    asker.hear(&mut bench);
    assert_eq!(asker.pieces.len(), 2 * PARTS);
}

#[test]
fn of_a_selected_file_only_its_packs_are_fetched_and_told_of() {
    let (sealed, body, places) = packed();
    for (path, here) in [("a", &[0, 1, 3][..]), ("b", &[0, 2, 3, 4]), ("c", &[0, 2, 3])] {
        let mut bench = Bench::answering(CONFIG, None);
        bench.command(Command::Select { channel: identity().public_key(), selection: only(&[path]) });
        follow(&mut bench, &identity(), &body);
        let mut seed = seed(&mut bench, 1, &[&identity()]);
        seed.bring_all(&mut bench, &sealed.0);
        assert_eq!(extent(&bench, &identity()), (true, false), "{path}");
        let stored: Vec<&BlobName> = bench.world.store.blobs.keys().collect();
        assert!(here.iter().all(|at| stored.contains(&&places[*at as usize])) && stored.len() == here.len());
        let mut asker = Member::join(&mut bench, 2, &[identity().public_key()]);
        asker.ask_have(&mut bench, SEQUENCE);
        assert_eq!(asker.told_positions().as_deref(), Some(here), "{path}");
    }
}

#[test]
fn a_pack_is_what_its_bytes_are_whatever_another_channel_says_of_it() {
    let [packer, other] = [3, 4].map(author);
    let (mut sealed, body, places) = packed();
    let root = places[1].root().expect("it is native");
    // The other channel says that it is a file.
    let tree = TreeRef::new(1000, 0, BlobRef { root, key: SECRET }).expect("one blob");
    let false_body = sealed.body(vec![file("x", 1000, tree.into())], false);
    for is_packer_first in [true, false] {
        let mut bench = Bench::answering(CONFIG, None);
        let mut order = [(&packer, &body), (&other, &false_body)];
        if !is_packer_first {
            order.reverse();
        }
        for (author, body) in order {
            follow(&mut bench, author, body);
        }
        let mut seed = seed(&mut bench, 1, &[&packer, &other]);
        seed.bring_all(&mut bench, &sealed.0);
        assert_eq!([&packer, &other].map(|author| extent(&bench, author).1), [true, false]);
        assert_eq!(count(&bench, |event| matches!(event, Event::FileRefused { .. })), 1);
        assert_eq!(bench.status().bans, 0);
    }
}
