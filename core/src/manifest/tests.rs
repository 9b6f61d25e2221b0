//! Bodies and pages, written and read back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::blob::BlobRef;
use crate::ids::{BlobId, Secret};
use crate::limits::{EXTENTS_MAX, PAGE_LEN_MIN};
use crate::tree::{Cursor, Step};

/// Small blobs, so that pages and ids have index blobs too.
pub(crate) const SHAPE: Shape = Shape::new(1024);

/// Blobs that are named by their content and not sealed.
#[derive(Clone, Default)]
pub(crate) struct Blobs {
    pub(crate) stored: BTreeMap<Root, Vec<u8>>,
    as_v5: BTreeSet<(Root, BlobId)>,
    /// It says the id of no blob.
    has_no_ids: bool,
}

impl AuthorStore for Blobs {
    type Error = core::convert::Infallible;

    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.stored.get(&blob.root).cloned())
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, Self::Error> {
        let hash = *blake3::hash(&buf[..len]).as_bytes();
        self.stored.insert(Root(hash), buf[..len].to_vec());
        Ok(BlobRef { root: Root(hash), key: Secret::new(hash) })
    }

    fn id(&mut self, root: &Root) -> Result<Option<BlobId>, Self::Error> {
        Ok((!self.has_no_ids).then(|| id_of(root)))
    }

    fn store_v5(&mut self, root: &Root, id: &BlobId) -> Result<(), Self::Error> {
        self.as_v5.insert((*root, *id));
        Ok(())
    }
}

pub(crate) fn id_of(root: &Root) -> BlobId {
    BlobId(root.0.map(|byte| !byte))
}

impl Blobs {
    pub(crate) fn tree(&mut self, content: &[u8]) -> TreeRef {
        let Ok(tree) = TreeRef::write(SHAPE, content, |buf, len| self.store(buf, len));
        tree
    }

    /// The blobs of a tree in the order of their positions, and its content.
    pub(crate) fn walk(&self, tree: &TreeRef) -> (Vec<Root>, Vec<u8>) {
        let (mut cursor, mut roots, mut content) = (Cursor::whole(tree), Vec::new(), Vec::new());
        loop {
            match cursor.step() {
                Step::End => return (roots, content),
                Step::NeedsIndex(node) => {
                    assert!(cursor.open(&node.blob.root, &self.stored[&node.blob.root]));
                }
                Step::Blob(node) => {
                    roots.push(node.blob.root);
                    if node.height == 0 {
                        content.extend(&self.stored[&node.blob.root]);
                    }
                }
            }
        }
    }

    pub(crate) fn body(&self, tree: &TreeRef) -> Body {
        Body::from_cbor_in(tree.shape, &self.walk(tree).1).expect("our own body")
    }

    fn read(&self, tree: &TreeRef) -> Manifest {
        let body = self.body(tree);
        let page = |page: &PageRef| page.read(&body.packs, &self.walk(&page.tree).1).expect("our own page");
        let pages = body.pages().map(|one| Some(page(one))).collect();
        Manifest::assemble(body, pages).expect("our own sums")
    }
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).expect("a good path")
}

pub(crate) fn entry(at: &str, size: u64, reference: Reference) -> FileEntry {
    FileEntry { path: path(at), size, modified_ms: None, executable: false, reference, blake3: None }
}

pub(crate) fn extents(at: &str, extents: Vec<Extent>) -> Item {
    let reference = Reference::Extents(extents);
    Item::File(entry(at, reference.size().expect("short"), reference))
}

pub(crate) fn slice(pack: u32, offset: u32, length: u32) -> Slice {
    Slice { pack, offset, length, key: Secret::new([offset.to_le_bytes()[0]; 32]) }
}

pub(crate) fn of(items: Vec<Item>) -> Manifest {
    Manifest { collections: vec![Collection { title: "All".to_string(), items }], ..Manifest::default() }
}

pub(crate) fn folder(at: &str) -> Item {
    Item::File(entry(at, 0, Reference::Folder))
}

pub(crate) fn store(manifest: &Manifest, blobs: &mut Blobs) -> Result<TreeRef, BodyError> {
    manifest.store(SHAPE, true, blobs).map_err(|error| match error {
        FormError::Manifest(error) => error,
        FormError::Store(never) => match never {},
    })
}

fn all_kinds(blobs: &mut Blobs) -> Manifest {
    let long = blobs.tree(&[7; 5000]);
    let (empty, one) = (blobs.tree(b""), blobs.tree(b"x"));
    let chunk = Chunk {
        id: BlobId([1; 32]),
        root: None,
        offset: 32,
        length: 160,
        key: Secret::new([2; 32]),
        nonce: [3; 12],
        real_size: 7,
    };
    let mut program = entry("bin/run", 5001, Reference::Extents([long, one].map(Extent::Tree).into()));
    (program.executable, program.modified_ms, program.blake3) = (true, Some(5), Some([9; 32]));
    let mut manifest = of(vec![
        Item::File(program),
        extents("packed", vec![Extent::Slice(slice(3, 64, 20)), Extent::Slice(slice(9, 0, 1))]),
        extents("empty", Vec::new()),
        extents("an empty stream", vec![Extent::Tree(empty)]),
        Item::File(entry("v5", 7, Reference::Chunks(vec![chunk]))),
        Item::File(entry("link", 0, Reference::Symlink("bin/run".to_string()))),
        folder("nothing"),
        Item::Magnet("magnet:?xt=urn:btih:00".to_string()),
    ]);
    manifest.packs = [(3, Root([3; 32])), (9, Root([9; 32]))].into();
    (manifest.title, manifest.description) = ("Title".to_string(), "Description".to_string());
    manifest
}

fn sorted(mut manifest: Manifest) -> Manifest {
    for collection in &mut manifest.collections {
        collection.items.sort_by(|a, b| a.name().cmp(b.name()));
    }
    manifest.ids = None;
    manifest
}

#[test]
fn all_kinds_of_items_are_read_back_in_the_order_of_their_names() {
    let mut blobs = Blobs::default();
    let manifest = all_kinds(&mut blobs);
    let tree = store(&manifest, &mut blobs).expect("a good manifest");
    let read = blobs.read(&tree);
    assert!(read.ids.is_some());
    assert_eq!(sorted(read), sorted(manifest));
}

#[test]
fn the_ids_are_those_of_all_positions_before_them() {
    let mut blobs = Blobs::default();
    let manifest = all_kinds(&mut blobs);
    let tree = store(&manifest, &mut blobs).expect("a good manifest");
    let body = blobs.body(&tree);
    let mut expected: Vec<[u8; 32]> = vec![[0; 32]; usize::try_from(tree.blob_count()).expect("few")];
    let native = |roots: Vec<Root>| roots.into_iter().map(|root| id_of(&root).0);
    expected.extend(native(body.packs.values().copied().collect()));
    expected.extend(native(body.pages().flat_map(|page| blobs.walk(&page.tree).0).collect()));
    for file in blobs.read(&tree).files() {
        match &file.reference {
            Reference::Chunks(chunks) => expected.extend(chunks.iter().map(|chunk| chunk.id.0)),
            Reference::Extents(extents) => {
                for extent in extents {
                    if let Extent::Tree(tree) = extent {
                        expected.extend(native(blobs.walk(tree).0));
                    }
                }
            }
            _ => {}
        }
    }
    let ids = body.ids.expect("all ids are known");
    assert_eq!(blobs.walk(&ids).1, expected.concat());

    blobs.has_no_ids = true;
    let tree = store(&manifest, &mut blobs).expect("a good manifest");
    assert_eq!(blobs.body(&tree).ids, None);
    let Ok(tree) = manifest.store(SHAPE, false, &mut Blobs::default()) else {
        panic!("no ids are asked for")
    };
    assert_eq!(tree.size, store(&manifest, &mut blobs).expect("a good manifest").size);
}

#[test]
fn an_empty_channel_is_three_bytes() {
    let mut blobs = Blobs::default();
    let tree = store(&Manifest::default(), &mut blobs).expect("it is a manifest");
    assert_eq!(blobs.walk(&tree).1, [0xa1, 0, 2]);
}

#[test]
fn an_item_more_changes_two_pages_at_most() {
    let mut blobs = Blobs { has_no_ids: true, ..Blobs::default() };
    let names = |without: usize| {
        let all = (0..20_000)
            .filter(move |n| *n != without)
            .map(|n| folder(&format!("a folder of some name/{n:07}")));
        of(all.collect())
    };
    let mut pages = |without| {
        let tree = store(&names(without), &mut blobs).expect("a good manifest");
        let body = blobs.body(&tree);
        body.pages().map(|page| (page.tree.blob.root, page.tree.size)).collect::<Vec<_>>()
    };
    let all = pages(usize::MAX);
    assert!(all.len() > 10);
    // Only the last page may be shorter.
    assert!(all[..all.len() - 1].iter().all(|page| (PAGE_LEN_MIN as u64..=256 << 10).contains(&page.1)));
    for without in [0, 1, 9999, 10_000, 12_345, 19_999] {
        let less = pages(without);
        let kept: BTreeSet<_> = less.iter().collect();
        let changed = all.iter().filter(|page| !kept.contains(page)).count();
        assert!((1..=2).contains(&changed), "{without}: {changed} pages of {}", all.len());
    }
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let mut blobs = Blobs::default();
    let packed = |slices: Vec<Slice>| {
        let mut manifest = of(vec![extents("f", slices.into_iter().map(Extent::Slice).collect())]);
        manifest.packs = [(1, Root([1; 32]))].into();
        manifest
    };
    let end = u32::try_from(SHAPE.plain_len()).expect("small") - 16;
    assert!(store(&packed(vec![slice(1, 0, end)]), &mut blobs).is_ok());
    assert!(store(&packed(vec![slice(1, 16, 1), slice(1, 16, 1), slice(1, 48, 9)]), &mut blobs).is_ok());
    let mut useless = packed(vec![slice(1, 0, 1)]);
    useless.packs.insert(2, Root([2; 32]));
    let mut larger = entry("f", 5, Reference::Extents(Vec::new()));
    larger.path = path("f");
    for (name, manifest) in [
        ("no content", packed(vec![slice(1, 0, 0)])),
        ("beyond the end", packed(vec![slice(1, 0, end + 1)])),
        ("beyond all numbers", packed(vec![slice(1, u32::MAX - 15, u32::MAX)])),
        ("between multiples", packed(vec![slice(1, 8, 8)])),
        ("no pack", packed(vec![slice(1, 0, 1), slice(2, 0, 1)])),
        ("overlap", packed(vec![slice(1, 0, 17), slice(1, 32, 1)])),
        ("no slice", useless),
        ("no bytes", of(vec![Item::File(larger)])),
        ("too many extents", packed((0..=EXTENTS_MAX).map(|_| slice(1, 0, 1)).collect())),
        ("twice", of(vec![Item::Magnet("magnet:?".into()), Item::Magnet("magnet:?".into())])),
        ("one path", of(vec![folder("a"), extents("a", Vec::new())])),
        ("a folder", of(vec![extents("a", Vec::new()), folder("a/b")])),
        ("no target", of(vec![Item::File(entry("a", 0, Reference::Symlink(String::new())))])),
        ("no magnet", of(vec![Item::Magnet("http://x".into())])),
    ] {
        assert!(matches!(store(&manifest, &mut blobs), Err(BodyError::Malformed(_))), "{name}");
    }
}

#[test]
fn a_page_that_is_not_what_the_body_says_is_refused() {
    let mut blobs = Blobs::default();
    let manifest = all_kinds(&mut blobs);
    let tree = store(&manifest, &mut blobs).expect("a good manifest");
    let body = blobs.body(&tree);
    let page = body.pages().next().expect("one").clone();
    let bytes = blobs.walk(&page.tree).1;
    let refused = |page: PageRef, packs: &BTreeMap<u32, Root>| page.read(packs, &bytes).is_err();
    assert!(!refused(page.clone(), &body.packs));
    assert!(refused(PageRef { first: "bin".to_string(), ..page.clone() }, &body.packs));
    assert!(refused(PageRef { items: page.items + 1, ..page.clone() }, &body.packs));
    assert!(refused(PageRef { blobs: page.blobs - 1, ..page.clone() }, &body.packs));
    assert!(refused(page.clone(), &[(3, Root([3; 32]))].into()));
}

#[test]
fn the_sum_of_bytes_is_judged_once_all_pages_are_read() {
    let mut blobs = Blobs::default();
    let tree = store(&all_kinds(&mut blobs), &mut blobs).expect("a good manifest");
    let body = blobs.body(&tree);
    let pages = |n: usize| -> Vec<Option<Page>> {
        body.pages().take(n).map(|page| page.read(&body.packs, &blobs.walk(&page.tree).1).ok()).collect()
    };
    for (bytes, all, some) in [(0, true, true), (1, false, true)] {
        let more = Body { bytes: body.bytes + bytes, ..body.clone() };
        assert_eq!(Manifest::assemble(more.clone(), pages(1)).is_ok(), all);
        assert_eq!(Manifest::assemble(more, vec![None]).is_ok(), some);
    }
    let less = Body { bytes: body.bytes - 1, ..body.clone() };
    assert!(Manifest::assemble(less, pages(1)).is_err());
    let more =
        Body { packs: [(3, Root([3; 32])), (9, Root([9; 32])), (10, Root([1; 32]))].into(), ..body.clone() };
    assert!(Manifest::assemble(more, pages(1)).is_err(), "no slice lies in a pack");
}

fn any_item() -> impl Strategy<Value = Item> {
    let tree = any::<u64>().prop_map(|n| {
        let size = n % (1 << 24);
        let blob = BlobRef { root: Root([5; 32]), key: Secret::new([6; 32]) };
        Extent::Tree(
            TreeRef::new_in(SHAPE, size, SHAPE.depth_for(size).expect("small"), blob).expect("its depth"),
        )
    });
    let part = (0..4_u32, 0..8_u32, 1..90_u32)
        .prop_map(|(pack, place, length)| Extent::Slice(slice(pack, place * 112, length)));
    let reference = prop_oneof![
        proptest::collection::vec(prop_oneof![tree, part], 0..4).prop_map(Reference::Extents),
        "[a-z/.]{1,9}".prop_map(Reference::Symlink),
        Just(Reference::Folder),
    ];
    let file = ("[a-zé:]{1,9}", reference, any::<Option<u64>>(), any::<bool>(), any::<Option<[u8; 32]>>());
    let file = file.prop_map(|(name, reference, modified_ms, executable, blake3)| {
        let is_file = matches!(reference, Reference::Extents(_));
        let size = reference.size().expect("small");
        let path = path(&format!("d/{name}"));
        let (executable, blake3) = (executable && is_file, blake3.filter(|_| is_file));
        Item::File(FileEntry { path, size, modified_ms, executable, reference, blake3 })
    });
    prop_oneof![4 => file, 1 => "[a-z0-9:&=]{0,40}".prop_map(|rest| Item::Magnet(format!("magnet:?{rest}")))]
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    let collection = (".{0,9}", proptest::collection::vec(any_item(), 0..9))
        .prop_map(|(title, items)| Collection { title, items });
    (".{0,9}", ".{0,9}", proptest::collection::vec(collection, 0..4)).prop_map(
        |(title, description, collections)| {
            let mut manifest = Manifest { title, description, collections, ..Manifest::default() };
            // Each name once, and each slice where no other overlaps it.
            let (mut names, mut slices) = (BTreeSet::new(), BTreeMap::new());
            for collection in &mut manifest.collections {
                collection.items.retain(|item| {
                    let fits = |one: &Slice| {
                        slices.get(&(one.pack, one.offset)).is_none_or(|length: &u32| *length == one.length)
                    };
                    let is_kept = !names.contains(item.name()) && item.slices().all(fits);
                    if is_kept {
                        names.insert(item.name().to_string());
                        slices.extend(item.slices().map(|one| ((one.pack, one.offset), one.length)));
                    }
                    is_kept
                });
            }
            manifest.packs = slices.keys().map(|(pack, _)| (*pack, Root([7; 32]))).collect();
            manifest
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(manifest in any_manifest()) {
        let mut blobs = Blobs { has_no_ids: true, ..Blobs::default() };
        if manifest.check_in(SHAPE).is_ok() {
            let tree = store(&manifest, &mut blobs).expect("it was checked");
            let (again, read) = (store(&blobs.read(&tree), &mut blobs), blobs.read(&tree));
            prop_assert_eq!(sorted(read), sorted(manifest));
            prop_assert_eq!(again, Ok(tree));
        }
    }

    #[test]
    fn what_is_read_is_what_would_be_written(manifest in any_manifest(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut blobs = Blobs::default();
        if manifest.check_in(SHAPE).is_err() {
            return Ok(());
        }
        let tree = store(&manifest, &mut blobs).expect("it was checked");
        let body = blobs.body(&tree);
        // A changed key may have become an unknown one, which is skipped.
        let is_as_written = |bytes: &[u8], written: Vec<u8>| written == bytes || written.len() < bytes.len();
        let mut bytes = body.to_cbor();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(read) = Body::from_cbor_in(SHAPE, &bytes) {
            prop_assert!(is_as_written(&bytes, read.to_cbor()));
        }
        for page in body.pages() {
            let mut bytes = blobs.walk(&page.tree).1;
            let place = at.index(bytes.len());
            bytes[place] = byte;
            if let Ok(read) = page.read(&body.packs, &bytes) {
                prop_assert!(is_as_written(&bytes, read.to_cbor()));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Body::from_cbor(&[&[0xa2, 0, 2], &*bytes].concat());
        let _ = Page::from_cbor(&[&[0x81], &*bytes].concat());
        let _ = (Body::from_cbor(&bytes), Page::from_cbor(&bytes));
    }
}
