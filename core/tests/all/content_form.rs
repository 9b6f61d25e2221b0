//! The form of a head's content: inline where all of it fits a DHT item, a body otherwise (`docs/protocol.md` §6).

use std::collections::BTreeMap;

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::limits::{INLINE_CHUNKS_MAX, ITEM_VALUE_LEN_MAX};
use megatorrent_core::manifest::{
    AuthorStore, Body, BodyError, Collection, EntryPath, Extent, FileEntry, FormError, Head, HeadContent,
    Item, Manifest, Reference,
};
use megatorrent_core::tree::{Shape, TreeRef};

static SECRET: Secret = Secret::new([7; 32]);
static READ_KEY: Secret = Secret::new([9; 32]);

/// A store, and how many blobs were opened.
#[derive(Default)]
struct Blobs {
    stored: BTreeMap<Root, Vec<u8>>,
    as_v5: BTreeMap<BlobId, Root>,
    opened: usize,
    is_full: bool,
}

impl AuthorStore for Blobs {
    type Error = &'static str;

    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, &'static str> {
        self.opened += 1;
        Ok(self.stored.get(&blob.root).map(|sealed| {
            let mut plain = sealed.clone();
            assert!(blob::open(blob, &mut plain));
            plain.truncate(PLAIN_LEN);
            plain
        }))
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, &'static str> {
        if self.is_full {
            return Err("full");
        }
        let blob = blob::seal(&SECRET, buf, len);
        self.stored.insert(blob.root, buf.to_vec());
        Ok(blob)
    }

    fn id(&mut self, root: &Root) -> Result<Option<BlobId>, &'static str> {
        Ok(self.stored.get(root).map(|blob| blob::id(blob)))
    }

    fn store_v5(&mut self, root: &Root, id: &BlobId) -> Result<(), &'static str> {
        self.as_v5.insert(*id, *root);
        Ok(())
    }
}

impl Blobs {
    fn file(&mut self, len: usize) -> FileEntry {
        let tree =
            TreeRef::write(Shape::REAL, &vec![7; len], |buf, len| self.store(buf, len)).expect("it has room");
        let path = EntryPath::new("f").expect("a good path");
        FileEntry {
            path,
            size: tree.size,
            modified_ms: None,
            executable: false,
            reference: tree.into(),
            blake3: None,
        }
    }

    fn body(&mut self, tree: &TreeRef) -> Body {
        let plain = self.open(&tree.blob).expect("readable").expect("stored");
        let size = usize::try_from(tree.size).expect("short");
        Body::from_cbor(&plain[..size]).expect("our own body")
    }

    fn form(&mut self, manifest: &Manifest, private: bool) -> Result<HeadContent, FormError<&'static str>> {
        HeadContent::of(manifest, Shape::REAL, private, true, self)
    }
}

fn manifest(title: &str, items: Vec<Item>) -> Manifest {
    let collections = vec![Collection { title: title.into(), items }];
    Manifest { collections, ..Manifest::default() }
}

/// Returns the greatest length of a head of `content`: JavaScript reads no larger numbers.
fn head_len(content: &HeadContent, private: bool) -> usize {
    let author = Identity::new(&Secret::new([1; 32]), None);
    let seal = private.then_some((&READ_KEY, [4; 12]));
    Head::to_json(&author, 1 << 53, 1 << 53, content, seal).len()
}

/// Checks that the manifest is inline up to some length of its title, and has a body from the next byte on.
fn is_inline_to_the_byte(private: bool, items: &[Item], blobs: &mut Blobs) {
    let titled = |len: usize| manifest(&"t".repeat(len), items.to_vec());
    let inline = |len| match blobs.form(&titled(len), private).expect("it has a form") {
        HeadContent::Inline(collections) => Some(collections),
        HeadContent::Body(_) => None,
    };
    let kept: Vec<_> = (0..ITEM_VALUE_LEN_MAX).map_while(inline).collect();
    let last = kept.last().cloned().expect("a short title fits");
    assert_eq!(last[0].title.len(), kept.len() - 1);
    let mut longer = last.clone();
    longer[0].title.push('t');
    assert!(head_len(&HeadContent::Inline(last), private) <= ITEM_VALUE_LEN_MAX);
    assert!(head_len(&HeadContent::Inline(longer), private) > ITEM_VALUE_LEN_MAX);
    let HeadContent::Body(body) = blobs.form(&titled(kept.len()), private).expect("it has a form") else {
        panic!("a title that is one byte too long");
    };
    assert!(head_len(&HeadContent::Body(body.clone()), private) <= ITEM_VALUE_LEN_MAX);
    let written = blobs.body(&body);
    assert_eq!(written.collections[0].title.len(), kept.len());
    assert_eq!(written.item_count(), items.len() as u64);
}

#[test]
fn a_public_channel_is_inline_to_the_byte() {
    let mut blobs = Blobs::default();
    let file = Item::File(blobs.file(5));
    is_inline_to_the_byte(false, &[file], &mut blobs);
}

#[test]
fn a_private_channel_is_inline_to_the_byte() {
    is_inline_to_the_byte(true, &[Item::Magnet("magnet:?xt=urn:btih:00".into())], &mut Blobs::default());
}

#[test]
fn a_file_goes_inline_as_v5_lists_it() {
    let mut blobs = Blobs::default();
    let file = blobs.file(PLAIN_LEN + 5);
    let Ok(HeadContent::Inline(collections)) =
        blobs.form(&manifest("", vec![Item::File(file.clone())]), false)
    else {
        panic!("two chunks fit");
    };
    let [Item::File(v5)] = &collections[0].items[..] else { panic!("one file") };
    let Reference::Chunks(chunks) = &v5.reference else { panic!("a list of chunks") };
    assert_eq!(chunks.iter().map(|c| c.real_size).collect::<Vec<_>>(), [1 << 20, 5]);
    assert_eq!((blobs.opened, v5.size), (1, file.size));
    for chunk in chunks {
        let root = chunk.root.expect("a native blob");
        assert_eq!(blob::id(&blobs.stored[&root]), chunk.id);
    }
    assert!(blobs.as_v5.is_empty());

    let Reference::Extents(extents) = &file.reference else { panic!("extents") };
    let Extent::Tree(tree) = &extents[0] else { panic!("a tree") };
    blobs.stored.remove(&tree.blob.root);
    let form = blobs.form(&manifest("", vec![Item::File(file)]), false);
    assert!(matches!(form, Ok(HeadContent::Body(_))), "without its index no chunk is known");
}

#[test]
fn roots_are_left_out_where_the_rest_fits_without_them() {
    let mut blobs = Blobs::default();
    let file = Item::File(blobs.file(5));
    let form = |blobs: &mut Blobs, len: usize| {
        let form = blobs.form(&manifest(&"t".repeat(len), vec![file.clone()]), false).expect("it has a form");
        let HeadContent::Inline(collections) = form else { return None };
        let Item::File(file) = &collections[0].items[0] else { panic!("a file") };
        let Reference::Chunks(chunks) = &file.reference else { panic!("chunks") };
        Some((chunks[0].id, chunks[0].root))
    };
    let forms: Vec<_> = (0..ITEM_VALUE_LEN_MAX).map_while(|len| form(&mut blobs, len)).collect();
    let with_roots = forms.iter().take_while(|(_, root)| root.is_some()).count();
    // `"blake3":"…",` has 76 bytes.
    assert_eq!(forms.len() - with_roots, 76);
    assert!(forms[with_roots..].iter().all(|(_, root)| root.is_none()));
    let (id, root) = forms[0];
    assert_eq!(blobs.as_v5, [(id, root.expect("it has one"))].into(), "it is kept as a v5 blob too");
}

#[test]
fn what_v5_has_no_form_for_has_a_body() {
    let path = EntryPath::new("f").expect("a good path");
    let entry = |reference| FileEntry {
        path: path.clone(),
        size: 0,
        modified_ms: None,
        executable: false,
        reference,
        blake3: None,
    };
    for (reference, inline) in [
        (Reference::Folder, false),
        (Reference::Symlink("g".into()), false),
        (Reference::Extents(Vec::new()), true),
        (Reference::Chunks(Vec::new()), true),
    ] {
        let form = Blobs::default().form(&manifest("", vec![Item::File(entry(reference))]), false);
        assert_eq!(matches!(form, Ok(HeadContent::Inline(_))), inline);
    }
}

#[test]
fn chunks_of_native_blobs_are_extents_in_a_body() {
    let mut blobs = Blobs::default();
    let file = Item::File(blobs.file(PLAIN_LEN + 5));
    let Ok(HeadContent::Inline(v5)) = blobs.form(&manifest("", vec![file]), false) else { panic!("it fits") };
    let described = Manifest { description: "d".into(), ..manifest("", v5[0].items.clone()) };
    let Ok(HeadContent::Body(body)) = blobs.form(&described, false) else { panic!("it says more") };
    let body = blobs.body(&body);
    let page = body.pages().next().expect("one");
    assert_eq!((page.items, page.blobs), (1, 2));
    // The ids of body, page and data blobs, of which the body does not know its own.
    assert_eq!(body.ids.expect("all are stored").size, 32 * 4);
    assert!(blobs.as_v5.is_empty());
}

#[test]
fn no_index_is_read_of_a_tree_that_cannot_fit() {
    let mut blobs = Blobs::default();
    let long = blobs.file(INLINE_CHUNKS_MAX * PLAIN_LEN + 1);
    let manifest = manifest("", vec![Item::File(long)]);
    let form = HeadContent::of(&manifest, Shape::REAL, false, false, &mut blobs);
    assert!(matches!(form, Ok(HeadContent::Body(_))));
    assert_eq!(blobs.opened, 0);
}

#[test]
fn no_part_of_a_manifest_is_left_out() {
    let items = vec![Item::Magnet("magnet:?xt=urn:btih:00".into())];
    let with = |title: &str, description: &str| Manifest {
        title: title.into(),
        description: description.into(),
        ..manifest("Films", items.clone())
    };
    for (title, description, inline) in
        [("", "", true), ("Films", "", true), ("Others", "", false), ("", "All of them", false)]
    {
        let form = Blobs::default().form(&with(title, description), false).expect("it has a form");
        assert_eq!(matches!(form, HeadContent::Inline(_)), inline, "{title:?} {description:?}");
    }
}

/// A store of short blobs, of which none needs to be read.
struct Short;

impl AuthorStore for Short {
    type Error = ();

    fn open(&mut self, _: &BlobRef) -> Result<Option<Vec<u8>>, ()> {
        Err(())
    }

    fn store(&mut self, buf: &mut [u8], _: usize) -> Result<BlobRef, ()> {
        assert_eq!(buf.len(), 1024 + BLOB_LEN - PLAIN_LEN);
        Ok(BlobRef { root: Root([3; 32]), key: Secret::new([4; 32]) })
    }

    fn id(&mut self, _: &Root) -> Result<Option<BlobId>, ()> {
        Ok(Some(BlobId([5; 32])))
    }

    fn store_v5(&mut self, _: &Root, _: &BlobId) -> Result<(), ()> {
        Err(())
    }
}

#[test]
fn blobs_of_another_length_are_no_chunks() {
    let shape = Shape::new(1024);
    let tree = TreeRef::write(shape, b"x", |_, _| {
        Ok::<_, ()>(BlobRef { root: Root([1; 32]), key: Secret::new([2; 32]) })
    });
    let path = EntryPath::new("f").expect("a good path");
    let reference = Reference::from(tree.expect("nothing fails"));
    let file = FileEntry { path, size: 1, modified_ms: None, executable: false, reference, blake3: None };
    let form = HeadContent::of(&manifest("", vec![Item::File(file)]), shape, false, true, &mut Short);
    assert!(matches!(form, Ok(HeadContent::Body(body)) if body.shape == shape));
}

#[test]
fn failures_are_reported() {
    let mut blobs = Blobs { is_full: true, ..Blobs::default() };
    let twice = vec![Item::Magnet("http://x".into())];
    let error = blobs.form(&manifest("", twice), false);
    assert!(matches!(error, Err(FormError::Manifest(BodyError::Malformed(_)))), "{error:?}");
    let long = manifest(&"t".repeat(1000), Vec::new());
    assert_eq!(blobs.form(&long, false), Err(FormError::Store("full")));
}
