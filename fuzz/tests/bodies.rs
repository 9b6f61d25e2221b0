//! Bodies and pages (`docs/protocol.md` §5), and file entries in JSON.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use megatorrent_core::ids::Root;
use megatorrent_core::limits::{
    COLLECTIONS_MAX, CONTENT_BYTES_MAX, DESCRIPTION_LEN_MAX, EXTENTS_MAX, ITEMS_MAX, MAGNET_LEN_MAX,
    NAME_LEN_MAX, PACKS_MAX, PAGE_ITEMS_MAX, PAGE_LEN_MAX, PATH_LEN_MAX, TITLE_LEN_MAX,
};
use megatorrent_core::manifest::{
    Body, EntryPath, Extent, FileEntry, Item, Manifest, Page, PageRef, Reference, SLICE_ALIGN, entry,
};
use megatorrent_core::parts::{PART_LEN, PARTS};
use megatorrent_fuzz::{byte_strings, check, near, near_text, texts};

fn bodies() -> &'static [Vec<u8>] {
    static BODIES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    BODIES.get_or_init(|| byte_strings("body", "read-body", "cbor"))
}

fn bodies_with_pages() -> &'static [Body] {
    static BODIES: OnceLock<Vec<Body>> = OnceLock::new();
    BODIES.get_or_init(|| {
        let read = bodies().iter().filter_map(|cbor| Body::from_cbor(cbor).ok());
        read.filter(|body| body.pages().next().is_some()).collect()
    })
}

fn pages() -> &'static [Vec<u8>] {
    static PAGES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PAGES.get_or_init(|| byte_strings("body", "read-page", "cbor"))
}

fn entries() -> &'static [String] {
    static ENTRIES: OnceLock<Vec<String>> = OnceLock::new();
    ENTRIES.get_or_init(|| texts("body", "entry", "text"))
}

fn paths() -> &'static [String] {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    PATHS.get_or_init(|| texts("body", "path", "text"))
}

fn check_body(body: &Body) {
    assert!(body.title.len() <= TITLE_LEN_MAX && body.description.len() <= DESCRIPTION_LEN_MAX);
    assert!(body.collections.len() <= COLLECTIONS_MAX && body.packs.len() <= PACKS_MAX);
    assert!(body.item_count() <= ITEMS_MAX as u64 && body.bytes <= CONTENT_BYTES_MAX);
    for page in body.pages() {
        assert!((1..=PAGE_ITEMS_MAX).contains(&(page.items as usize)));
        assert!(page.tree.size <= PAGE_LEN_MAX as u64);
    }
}

fn check_file(file: &FileEntry) {
    assert!(file.path.as_str().len() <= PATH_LEN_MAX);
    assert_eq!(file.reference.size(), Some(file.size));
    match &file.reference {
        Reference::Extents(extents) => {
            assert!(extents.len() <= EXTENTS_MAX);
            for extent in extents {
                let Extent::Slice(slice) = extent else { continue };
                assert!(slice.length > 0 && slice.offset % SLICE_ALIGN == 0);
                assert!(u64::from(slice.offset) + u64::from(slice.length) < (PARTS * PART_LEN) as u64);
            }
        }
        Reference::Chunks(chunks) => assert!(chunks.len() <= EXTENTS_MAX),
        Reference::Symlink(target) => assert!((1..=PATH_LEN_MAX).contains(&target.len())),
        Reference::Folder => {}
    }
}

#[test]
fn a_body_that_is_read_keeps_its_limits_and_is_written_as_short_as_it_can_be() {
    check!(20_000, |input| {
        let cbor = near(input, bodies())?;
        let Ok(body) = Body::from_cbor(&cbor) else { return Ok(()) };
        check_body(&body);
        let again = body.to_cbor();
        assert!(again.len() <= cbor.len());
        assert_eq!(Body::from_cbor(&again), Ok(body));
        Ok(())
    });
}

#[test]
fn a_page_that_is_read_keeps_its_limits_and_is_written_as_short_as_it_can_be() {
    check!(20_000, |input| {
        let cbor = near(input, pages())?;
        let Ok(page) = Page::from_cbor(&cbor) else { return Ok(()) };
        assert!((1..=PAGE_ITEMS_MAX).contains(&page.items.len()));
        assert!(page.items.is_sorted_by(|a, b| a.name() < b.name()));
        for item in &page.items {
            match item {
                Item::Magnet(uri) => assert!(uri.starts_with("magnet:?") && uri.len() <= MAGNET_LEN_MAX),
                Item::File(file) => {
                    check_file(file);
                    assert_eq!(entry::from_json(entry::to_json(file).as_bytes()).as_ref(), Ok(file));
                }
            }
        }
        let again = page.to_cbor();
        assert!(again.len() <= cbor.len());
        assert_eq!(Page::from_cbor(&again), Ok(page));
        Ok(())
    });
}

#[test]
fn pages_are_what_their_body_says_or_refused_and_join_to_a_manifest_that_readers_take() {
    check!(4000, |input| {
        let cbor = near(input, pages())?;
        let mut body = input.choose(bodies_with_pages())?.clone();
        // What the body says of its pages is mostly true.
        if let Ok(page) = Page::from_cbor(&cbor) {
            let slices = page.items.iter().filter_map(|item| match item {
                Item::File(file) => Some(file.reference.slices()),
                Item::Magnet(_) => None,
            });
            let packs: BTreeSet<u32> = slices.flatten().map(|slice| slice.pack).collect();
            body.packs.extend(packs.into_iter().map(|pack| (pack, Root([7; 32]))));
            for said in body.collections.iter_mut().flat_map(|one| &mut one.pages) {
                said.first = page.items.first().map_or_else(String::new, |item| item.name().to_owned());
                said.items = u32::try_from(page.items.len()).expect("few");
                said.blobs = page.items.iter().map(Item::blob_count).sum();
            }
        }
        if input.ratio(1, 4)? {
            body.bytes = input.arbitrary()?;
        }
        let read = |said: &PageRef| said.read(&body.packs, &cbor).ok();
        let read: Vec<Option<Page>> = body.pages().map(read).collect();
        for (said, page) in body.pages().zip(&read) {
            let Some(page) = page else { continue };
            assert_eq!(page.items.len() as u64, u64::from(said.items));
            assert_eq!(page.items.iter().map(Item::blob_count).sum::<u64>(), said.blobs);
        }
        let bytes = body.bytes;
        if let Ok(manifest) = Manifest::assemble(body, read) {
            assert!(manifest.files().map(|file| file.size).sum::<u64>() <= bytes);
            let _ = manifest.check();
        }
        Ok(())
    });
}

#[test]
fn an_entry_that_is_read_survives_being_written() {
    check!(10_000, |input| {
        let text = near(input, entries())?;
        let Ok(file) = entry::from_json(&text) else { return Ok(()) };
        check_file(&file);
        assert_eq!(entry::from_json(entry::to_json(&file).as_bytes()), Ok(file));
        Ok(())
    });
}

#[test]
fn no_path_leaves_its_folder() {
    check!(20_000, |input| {
        let text = near_text(input, paths())?;
        let Ok(path) = EntryPath::new(&text) else { return Ok(()) };
        assert_eq!(path.as_str(), text);
        let names: Vec<&str> = text.split('/').collect();
        assert!(names.iter().all(|name| (1..=NAME_LEN_MAX).contains(&name.len())));
        assert!(names.iter().all(|name| !matches!(*name, "." | "..")));
        assert!(!text.chars().any(char::is_control) && text.len() <= PATH_LEN_MAX);
        Ok(())
    });
}
