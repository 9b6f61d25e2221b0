//! The form of a head's content: inline where all of it fits a DHT item, a body otherwise (`docs/protocol.md` §6).

use std::collections::BTreeMap;

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobName, Secret};
use megatorrent_core::limits::{INLINE_CHUNKS_MAX, ITEM_VALUE_LEN_MAX};
use megatorrent_core::manifest::{
    AuthorStore, BodyError, Collection, EntryPath, FileEntry, FormError, Head, HeadContent, Item, Manifest,
    Reference,
};
use megatorrent_core::tree::{Shape, TreeRef};

static SECRET: Secret = Secret::new([7; 32]);
static READ_KEY: Secret = Secret::new([9; 32]);

/// A store, and how many blobs were opened.
#[derive(Default)]
struct Blobs {
    stored: BTreeMap<BlobName, Vec<u8>>,
    opened: usize,
    is_full: bool,
}

impl AuthorStore for Blobs {
    type Error = &'static str;

    fn open(&mut self, link: &BlobRef) -> Result<Option<Vec<u8>>, &'static str> {
        self.opened += 1;
        Ok(self.stored.get(&blob.root).map(|sealed| {
            let mut plain = sealed.clone();
            assert!(blob::open(link, &mut plain));
            plain.truncate(PLAIN_LEN);
            plain
        }))
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, &'static str> {
        if self.is_full {
            return Err("full");
        }
        let link = blob::seal(&SECRET, buf, len);
        self.stored.insert(blob.root, buf.to_vec());
        Ok(link)
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
            reference: Reference::Tree(tree),
        }
    }

    fn form(&mut self, manifest: &Manifest, private: bool) -> Result<HeadContent, FormError<&'static str>> {
        HeadContent::of(manifest, Shape::REAL, private, self)
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
        HeadContent::Root(_) => None,
    };
    let kept: Vec<_> = (0..ITEM_VALUE_LEN_MAX).map_while(inline).collect();
    let last = kept.last().cloned().expect("a short title fits");
    assert_eq!(last[0].title.len(), kept.len() - 1);
    let mut longer = last.clone();
    longer[0].title.push('t');
    assert!(head_len(&HeadContent::Inline(last), private) <= ITEM_VALUE_LEN_MAX);
    assert!(head_len(&HeadContent::Inline(longer), private) > ITEM_VALUE_LEN_MAX);
    let HeadContent::Root(body) = blobs.form(&titled(kept.len()), private).expect("it has a form") else {
        panic!("a title that is one byte too long");
    };
    assert!(head_len(&HeadContent::Root(body.clone()), private) <= ITEM_VALUE_LEN_MAX);
    let plain = blobs.open(&body.blob).expect("readable").expect("stored");
    let size = usize::try_from(body.size).expect("short");
    assert_eq!(Manifest::from_cbor(&plain[..size]), Ok(titled(kept.len())));
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

    let Reference::Tree(tree) = &file.reference else { panic!("a tree") };
    blobs.stored.remove(&tree.blob.root);
    let form = blobs.form(&manifest("", vec![Item::File(file)]), false);
    assert!(matches!(form, Ok(HeadContent::Root(_))), "without its index no chunk is known");
}

#[test]
fn no_index_is_read_of_a_tree_that_cannot_fit() {
    let mut blobs = Blobs::default();
    let long = blobs.file(INLINE_CHUNKS_MAX * PLAIN_LEN + 1);
    assert!(matches!(blobs.form(&manifest("", vec![Item::File(long)]), false), Ok(HeadContent::Root(_))));
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
        Ok(BlobRef { id: BlobName([3; 32]), key: Secret::new([4; 32]) })
    }
}

#[test]
fn blobs_of_another_length_are_no_chunks() {
    let shape = Shape::new(1024);
    let tree = TreeRef::write(shape, b"x", |_, _| {
        Ok::<_, ()>(BlobRef { id: BlobName([1; 32]), key: Secret::new([2; 32]) })
    });
    let path = EntryPath::new("f").expect("a good path");
    let reference = Reference::Tree(tree.expect("nothing fails"));
    let file = FileEntry { path, size: 1, modified_ms: None, executable: false, reference };
    let form = HeadContent::of(&manifest("", vec![Item::File(file)]), shape, false, &mut Short);
    assert!(matches!(form, Ok(HeadContent::Root(body)) if body.shape == shape));
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
