//! Fetches over a store in memory: what they ask for, in which order, and what they come to.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::ids::Secret;
use crate::manifest::tests::{Blobs, SHAPE, entry, extents, folder, id_of, of, slice, store};
use crate::manifest::{Chunk, Item, PageRef};
use crate::node::channels::contents::selection::FileRange;

/// A fetch, and what it came to.
struct World {
    fetch: Fetch,
    blobs: Blobs,
    /// Blobs that are here.
    here: BTreeSet<BlobName>,
    /// Blobs that no peer has.
    lost: BTreeSet<BlobName>,
    /// Blobs that are not what their keys make.
    unfit: BTreeSet<BlobName>,
    asks: VecDeque<Ask>,
    manifest: Option<Arc<Manifest>>,
    /// The positions at which each name was wanted.
    wanted: BTreeMap<u64, Wanted>,
    order: Vec<u64>,
    stored: BTreeSet<u64>,
    complete: Vec<usize>,
    refused: Vec<usize>,
    refused_pages: usize,
    refused_body: Option<BodyError>,
    claims: Vec<Vec<(BlobId, Root)>>,
}

impl World {
    fn new(blobs: Blobs, source: Source, selection: Selection) -> Self {
        let mut asks = Vec::new();
        let fetch = Fetch::new(1, source, selection, 8, &mut asks);
        Self {
            fetch,
            blobs,
            here: BTreeSet::new(),
            lost: BTreeSet::new(),
            unfit: BTreeSet::new(),
            asks: asks.into(),
            manifest: None,
            wanted: BTreeMap::new(),
            order: Vec::new(),
            stored: BTreeSet::new(),
            complete: Vec::new(),
            refused: Vec::new(),
            refused_pages: 0,
            refused_body: None,
            claims: Vec::new(),
        }
    }

    fn of_body(blobs: Blobs, body: TreeRef) -> Self {
        Self::new(blobs, Source::Head(HeadContent::Body(body)), Selection::default())
    }

    /// Answers all that is asked.
    fn run(mut self) -> Self {
        loop {
            let mut asks = Vec::new();
            self.stored.extend(self.fetch.take_progress().0);
            let Some(ask) = self.asks.pop_front() else {
                self.fetch.begin_claims(&mut asks);
                if asks.is_empty() {
                    return self;
                }
                self.asks.extend(asks);
                continue;
            };
            match ask {
                Ask::Have(names) => {
                    let held = |name| if self.here.contains(name) { Held::Whole } else { Held::Nothing };
                    let have: Vec<Held> = names.iter().map(held).collect();
                    self.fetch.on_have(&names, &have, &mut asks);
                }
                Ask::Want { wanted, position, .. } => {
                    let name = wanted.name();
                    self.order.push(position);
                    self.wanted.insert(position, wanted);
                    if self.unfit.contains(&name) {
                        self.fetch.on_unfit(name, &mut asks);
                    } else if !self.lost.contains(&name) {
                        self.here.insert(name);
                        self.fetch.on_stored(name, &mut asks);
                    }
                }
                Ask::Open(blob, len) => {
                    let name = BlobName::Native(blob.root);
                    assert!(self.here.contains(&name), "only what is stored is opened");
                    let plain = self.blobs.stored.get(&blob.root).cloned();
                    assert!(plain.as_ref().is_none_or(|plain| plain.len() as u64 == u64::from(len)));
                    self.fetch.on_opened(name, plain.as_deref(), &mut asks);
                }
                Ask::Manifest(manifest) => self.manifest = Some(manifest),
                Ask::BodyRefused(error) => self.refused_body = Some(error),
                Ask::PageRefused(_) => self.refused_pages += 1,
                Ask::Claims(claims) => self.claims.push(claims),
                Ask::FileComplete(file) => self.complete.push(file),
                Ask::FileRefused(file) => self.refused.push(file),
                Ask::DropWants => {}
            }
            self.asks.extend(asks);
        }
    }

    fn names(&self) -> Vec<&str> {
        self.manifest.iter().flat_map(|manifest| manifest.files()).map(|file| file.path.as_str()).collect()
    }
}

fn content(n: u32, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| at.wrapping_mul(u64::from(n) | 1).to_le_bytes()[1] ^ n.to_le_bytes()[0])
        .collect()
}

/// A channel with some pages, packs, and files of several extents.
fn channel(blobs: &mut Blobs) -> Manifest {
    let tree = |blobs: &mut Blobs, n, len| Extent::Tree(blobs.tree(&content(n, len)));
    let mut items = vec![
        Item::Magnet("magnet:?xt=urn:btih:00".to_string()),
        folder("empty"),
        extents("nothing", Vec::new()),
        extents("small", vec![Extent::Slice(slice(7, 0, 30))]),
        extents("two", vec![Extent::Slice(slice(7, 64, 30)), Extent::Slice(slice(2, 0, 9))]),
        Item::File(entry("link", 0, Reference::Symlink("two".to_string()))),
    ];
    let mixed = [tree(blobs, 1, 5000), Extent::Slice(slice(2, 64, 9)), tree(blobs, 2, 20_000)];
    items.push(extents("mixed", mixed.into()));
    for n in 0..900 {
        items.push(extents(&format!("many/a file of a long name, number {n:05}"), vec![tree(blobs, n, 10)]));
    }
    let chunk = Chunk {
        id: BlobId([1; 32]),
        root: None,
        offset: 0,
        length: 160,
        key: Secret::new([2; 32]),
        nonce: [3; 12],
        real_size: 7,
    };
    items.push(Item::File(entry("v5", 7, Reference::Chunks(vec![chunk]))));
    let mut manifest = of(items);
    manifest.packs = [(2, Root([2; 32])), (7, Root([77; 32]))].into();
    manifest
}

#[test]
fn all_of_a_channel_comes_and_each_position_once() {
    let mut blobs = Blobs::default();
    let body = store(&channel(&mut blobs), &mut blobs).expect("a good manifest");
    let world = World::of_body(blobs, body.clone()).run();
    assert!(world.fetch.has_all() && world.refused_body.is_none());
    let files = world.names().len();
    let mut complete = world.complete.clone();
    complete.sort_unstable();
    assert_eq!(complete, (0..files).collect::<Vec<_>>());
    let (stored, total, _) = world.fetch.numbers();
    assert_eq!((stored, world.stored.len() as u64), (total, total));
    assert!(world.stored.iter().copied().eq(0..total));
    // The body's blobs come first, then the packs by number.
    let own = body.blob_count();
    assert!(matches!(&world.wanted[&own], Wanted::Pack(Root(root)) if root[0] == 2));
    assert!(matches!(&world.wanted[&(own + 1)], Wanted::Pack(Root(root)) if root[0] == 77));
    assert!(world.blobs.body(&body).pages().count() > 1, "several pages");
}

#[test]
fn the_ids_tell_what_each_native_blob_is_called() {
    let mut blobs = Blobs::default();
    let body = store(&channel(&mut blobs), &mut blobs).expect("a good manifest");
    let world = World::of_body(blobs, body.clone()).run();
    assert!(world.claims.iter().all(|batch| batch.len() <= CLAIMS_MAX));
    let claims: BTreeSet<_> = world.claims.concat().into_iter().collect();
    let ids = world.blobs.body(&body).ids.expect("they are written");
    let of_ids = world.fetch.numbers().1 - ids.blob_count();
    let native = world.wanted.range(body.blob_count()..of_ids).filter_map(|(_, wanted)| wanted.name().root());
    let expected: BTreeSet<_> = native.map(|root| (id_of(&root), root)).collect();
    assert!(claims == expected && claims.len() > 900);
}

#[test]
fn a_selected_file_comes_alone_with_its_packs() {
    let mut blobs = Blobs::default();
    let body = store(&channel(&mut blobs), &mut blobs).expect("a good manifest");
    let files = [("mixed".to_string(), Priority::Normal)].into();
    let selection = Selection { others: Priority::Skip, files, ..Selection::default() };
    let world = World::new(blobs, Source::Head(HeadContent::Body(body)), selection).run();
    assert!(world.fetch.is_satisfied() && !world.fetch.has_all());
    let names = world.names();
    assert_eq!(world.complete.iter().map(|file| names[*file]).collect::<Vec<_>>(), ["mixed"]);
    let packs = world.wanted.values().filter(|wanted| matches!(wanted, Wanted::Pack(_)));
    assert_eq!(packs.map(Wanted::name).collect::<Vec<_>>(), [BlobName::Native(Root([2; 32]))]);
    let claimed = world.claims.concat().len();
    assert!(claimed > 20 && claimed < 200, "of that file, its pack and the pages: {claimed}");
}

#[test]
fn a_range_takes_the_extents_that_it_lies_in() {
    let mut blobs = Blobs::default();
    let body = store(&channel(&mut blobs), &mut blobs).expect("a good manifest");
    // The first extent has 5000 bytes in 5 data blobs, the second is a slice of 9, the third has 20 data blobs.
    for (bytes, data, packs) in [
        (0..1, 1, 0),
        (4999..5001, 1, 1),
        (5008..5010, 1, 1),
        (5009..5010, 1, 0),
        (0..25_009, 25, 1),
        (5..5, 0, 0),
    ] {
        let ranges = vec![FileRange { path: "mixed".to_string(), bytes: bytes.clone(), deadline: None }];
        let selection = Selection { others: Priority::Skip, ranges, ..Selection::default() };
        let (blobs, body) = (blobs.clone(), body.clone());
        let world = World::new(blobs, Source::Head(HeadContent::Body(body)), selection).run();
        assert!(world.fetch.is_satisfied(), "{bytes:?}");
        let is_pack = |wanted: &&Wanted| matches!(wanted, Wanted::Pack(_));
        assert_eq!(world.wanted.values().filter(is_pack).count(), packs, "{bytes:?}");
        let count = world.wanted.values().filter(|wanted| is_data(&world.blobs, wanted)).count();
        assert_eq!(count, data, "{bytes:?}");
    }
}

/// Whether a blob is data of the file of many extents.
fn is_data(blobs: &Blobs, wanted: &Wanted) -> bool {
    let data: Vec<Vec<u8>> = [content(1, 5000), content(2, 20_000)]
        .iter()
        .flat_map(|all| all.chunks(1024).map(<[u8]>::to_vec))
        .collect();
    let content = wanted.name().root().and_then(|root| blobs.stored.get(&root));
    content.is_some_and(|content| data.contains(content))
}

#[test]
fn what_is_not_what_its_key_makes_is_its_authors_fault() {
    let mut blobs = Blobs::default();
    let manifest = channel(&mut blobs);
    let body = store(&manifest, &mut blobs).expect("a good manifest");
    let read = blobs.body(&body);
    let page = read.pages().next().expect("one").tree.blob.root;
    let is_mixed = |file: &&crate::manifest::FileEntry| file.path.as_str() == "mixed";
    let mixed = manifest.files().find(is_mixed).expect("it is there").clone();
    let Reference::Extents(parts) = &mixed.reference else { panic!("extents") };
    let Extent::Tree(data) = &parts[2] else { panic!("a tree") };
    let ids = read.ids.clone().expect("they are written").blob.root;
    let pages = read.pages().count();
    for (root, what) in [(body.blob.root, "body"), (page, "page"), (data.blob.root, "file"), (ids, "ids")] {
        let mut world = World::of_body(blobs.clone(), body.clone());
        world.unfit.insert(root.into());
        let world = world.run();
        let refused: Vec<_> = world.refused.iter().map(|file| world.names()[*file].to_string()).collect();
        assert_eq!(world.refused_body.is_some(), what == "body", "{what}");
        assert_eq!(world.refused_pages, usize::from(what == "page"), "{what}");
        assert_eq!(refused, Vec::from_iter((what == "file").then(|| "mixed".to_string())), "{what}");
        assert!(!world.fetch.has_all(), "{what}");
        assert_eq!(world.fetch.is_satisfied(), what == "ids", "{what}");
        let complete = world.complete.len();
        assert_eq!(complete + world.refused.len(), world.names().len(), "{what}: the others arrive");
        assert_eq!(complete == 0, what == "body", "{what}");
        assert!(pages > 1);
    }
}

#[test]
fn a_blob_that_went_missing_is_fetched_again_and_a_document_is_read_after_all() {
    let mut blobs = Blobs::default();
    let body = store(&channel(&mut blobs), &mut blobs).expect("a good manifest");
    let page = blobs.body(&body).pages().next().expect("one").tree.clone();
    for tree in [body.clone(), page] {
        let mut world = World::of_body(blobs.clone(), body.clone());
        let last = *blobs.walk(&tree).0.last().expect("one");
        // It is found to be missing once, when it is opened.
        let mut missing = true;
        while let Some(ask) = world.asks.pop_front() {
            let mut asks = Vec::new();
            match ask {
                Ask::Open(blob, _) if blob.root == last && missing => {
                    missing = false;
                    world.fetch.on_opened(last.into(), None, &mut asks);
                }
                Ask::Open(blob, _) => {
                    let plain = blobs.stored[&blob.root].clone();
                    world.fetch.on_opened(blob.root.into(), Some(&plain), &mut asks);
                }
                Ask::Have(names) => world.fetch.on_have(&names, &vec![Held::Whole; names.len()], &mut asks),
                _ => {}
            }
            world.asks.extend(asks);
        }
        assert!(!missing && world.fetch.has_all());
        let (stored, total, _) = world.fetch.numbers();
        assert_eq!(stored, total);
    }
}

/// Writes a body of one collection for each page.
fn body_of(blobs: &mut Blobs, pages: &[Vec<Item>], change: impl Fn(&mut crate::manifest::Body)) -> TreeRef {
    let mut body = crate::manifest::Body::default();
    for items in pages {
        let bytes = crate::manifest::Page { items: items.clone() }.to_cbor();
        let page = PageRef {
            tree: blobs.tree(&bytes),
            first: items[0].name().to_string(),
            items: u32::try_from(items.len()).expect("few"),
            blobs: items.iter().map(Item::blob_count).sum(),
        };
        let collection = crate::manifest::BodyCollection { pages: vec![page], ..Default::default() };
        body.collections.push(collection);
        body.bytes +=
            items.iter().map(|item| if let Item::File(file) = item { file.size } else { 0 }).sum::<u64>();
    }
    change(&mut body);
    blobs.tree(&body.to_cbor())
}

#[test]
fn a_page_with_other_counts_is_refused_and_the_files_of_others_stand() {
    let mut blobs = Blobs::default();
    let files = |blobs: &mut Blobs, name: &str| {
        let tree = blobs.tree(name.as_bytes());
        vec![extents(name, vec![Extent::Tree(tree)])]
    };
    let pages = [files(&mut blobs, "a"), files(&mut blobs, "b"), files(&mut blobs, "c")];
    let body = body_of(&mut blobs, &pages, |body| body.collections[1].pages[0].blobs += 5);
    let world = World::of_body(blobs, body).run();
    assert_eq!((world.refused_pages, world.names()), (1, vec!["a", "c"]));
    assert_eq!(world.complete.len(), 2);
    assert!(world.fetch.is_refused());
    // The positions are those that the body says.
    let [first, .., last] = world.order[..] else { panic!("some blobs") };
    assert_eq!((first, last, world.fetch.numbers().1), (0, world.stored.len() as u64 + 5, last + 1));
}

#[test]
fn of_two_collections_with_one_path_the_first_counts_and_a_clash_refuses_a_page() {
    let mut blobs = Blobs::default();
    let (a, b, c) = (blobs.tree(b"1"), blobs.tree(b"2"), blobs.tree(b"3"));
    let one = |name: &str, tree: &TreeRef| extents(name, vec![Extent::Tree(tree.clone())]);
    let pages = [
        vec![one("a", &a)],
        vec![one("a", &b), one("b", &b)],
        vec![one("b/c", &c), one("c", &c)],
        vec![one("d", &c)],
    ];
    let body = body_of(&mut blobs, &pages, |_| {});
    let world = World::of_body(blobs, body).run();
    assert_eq!(world.names(), ["a", "a", "b", "b/c", "c", "d"]);
    let mut complete = world.complete.clone();
    complete.sort_unstable();
    assert_eq!((complete, world.refused.clone(), world.refused_pages), (vec![0, 2, 5], vec![3, 4], 1));
}

#[test]
fn wrong_sums_refuse_the_body_before_a_file_is_fetched() {
    let mut blobs = Blobs::default();
    let tree = blobs.tree(b"1");
    let pages = [vec![extents("a", vec![Extent::Tree(tree)])]];
    let body = body_of(&mut blobs, &pages, |body| body.bytes += 1);
    let world = World::of_body(blobs, body).run();
    assert!(world.refused_body.is_some() && world.manifest.is_none() && world.fetch.is_refused());
}

#[test]
fn chunks_of_native_blobs_are_native_and_claimed_at_once() {
    let blob = BlobRef { root: Root([4; 32]), key: Secret::new([5; 32]) };
    let chunk = Chunk::from_ref(&blob, BlobId([6; 32]), 9);
    let collections = of(vec![Item::File(entry("f", 9, Reference::Chunks(vec![chunk])))]).collections;
    let source = Source::Head(HeadContent::Inline(collections));
    let world = World::new(Blobs::default(), source, Selection::default()).run();
    assert!(world.fetch.has_all());
    assert_eq!(world.claims, [[(BlobId([6; 32]), Root([4; 32]))]]);
    let Wanted::Native { blob: wanted, len: 9, id: Some(BlobId([6, ..])), .. } = &world.wanted[&0] else {
        panic!("a native blob")
    };
    assert_eq!(*wanted, blob);
    assert_eq!(SHAPE.plain_len(), 1024);
}
