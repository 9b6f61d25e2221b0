//! Files held in place: whatever is done to them, nothing wrong leaves them, and what is right goes on being served.

mod deeds;
mod losses;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use megatorrent_core::blob::{BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{BlobName, Root, Secret, Topic};
use megatorrent_core::manifest::{Collection, EntryPath, Extent, FileEntry, Item, Manifest, Reference};
use megatorrent_core::node::{Claim, Held, Stand, Written};
use megatorrent_core::parts::{self, Mask, PART_LEN, PARTS, Values};
use megatorrent_core::rng::Rng;
use megatorrent_runtime_smol::export::{
    Copies, Export, ExportError, Exported, data_blobs, export, forget_output,
};
use megatorrent_runtime_smol::home::{self, Home, HomeError};
use megatorrent_runtime_smol::ingest::{IngestError, ingest, ingest_in_place};
use megatorrent_runtime_smol::outputs::Plan;
use megatorrent_runtime_smol::store::Store;

const TOPIC: Topic = Topic([7; 32]);

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self, name: &str) -> Store {
        Home::blobs_only(&self.path(name)).expect("opens")
    }

    /// A file of random bytes.
    fn file(&self, name: &str, len: usize) -> PathBuf {
        fs::write(self.path(name), content(len)).expect("written");
        self.path(name)
    }
}

fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new([3; 32]).fill(&mut bytes);
    bytes
}

fn secret() -> Secret {
    Secret::new([9; 32])
}

fn hold(store: &Store, path: &Path) -> Result<Vec<Extent>, IngestError> {
    ingest_in_place(path, store, &secret(), 2, &|_| {}, &AtomicBool::new(false))
}

fn blobs(extents: &[Extent], store: &Store) -> Vec<(BlobRef, u32)> {
    data_blobs(extents, store, 100).expect("readable").expect("few")
}

/// The parts of blobs that a store gives out, all of which are right.
fn served(store: &Store, blobs: &[(BlobRef, u32)]) -> Vec<Mask> {
    let mut buf = vec![0; PART_LEN];
    let mut has = |root: &Root, part: usize| {
        let values = store.read_part(root, part, &mut buf).expect("readable");
        assert!(
            values.as_ref().is_none_or(|it| it.root() == *root && it.check(part, &buf)),
            "nothing wrong leaves it"
        );
        values.is_some()
    };
    let mask_of = |(blob, _): &(BlobRef, u32)| {
        let parts = (0..PARTS).filter(|part| has(&blob.root, *part));
        parts.fold(Mask::NONE, |mask, part| mask | Mask::one(part))
    };
    blobs.iter().map(mask_of).collect()
}

/// What is sealed of a file, by root.
fn sealed(world: &World, extents: &[Extent], path: &Path) -> BTreeMap<Root, Vec<u8>> {
    let copy = world.store("copy");
    let file = File::open(path).expect("opens");
    let again = ingest(file, &copy, &secret(), 1, &|_| {}, &AtomicBool::new(false)).expect("stored");
    assert_eq!(blobs(&again, &copy), blobs(extents, &copy), "the same blobs either way");
    let read = |root: Root| {
        let mut blob = vec![0; BLOB_LEN];
        assert!(copy.read(&BlobName::Native(root), &mut blob).expect("readable"));
        blob
    };
    blobs(extents, &copy).into_iter().map(|(blob, _)| (blob.root, read(blob.root))).collect()
}

fn len_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("listed"));
    let len = |entry: fs::DirEntry| {
        let metadata = entry.metadata().expect("there");
        if metadata.is_dir() {
            len_of(&entry.path())
        } else {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        }
    };
    entries.map(len).sum()
}

#[test]
fn an_ingested_file_is_served_from_where_it_lies_and_costs_little() {
    let world = World::new();
    let path = world.file("film", 5 * PLAIN_LEN + 70_000);
    let store = world.store("home");
    let extents = hold(&store, &path).expect("held");
    let all = blobs(&extents, &store);
    assert_eq!(all.len(), 6);
    assert!(len_of(&world.path("home")) < 100_000, "{} bytes", len_of(&world.path("home")));
    assert_eq!(served(&store, &all), [Mask::ALL; 6]);
    for (root, blob) in sealed(&world, &extents, &path) {
        let name = BlobName::Native(root);
        let mut read = vec![0; BLOB_LEN];
        assert!(store.has(&name) && store.read(&name, &mut read).expect("readable") && read == blob);
        assert_eq!(store.held(&name), Held::Whole);
        assert_eq!(store.id_of(&root).expect("readable"), Some(megatorrent_core::blob::id(&blob)));
    }
    // Another process, and a later time.
    drop(store);
    let later = world.store("home");
    assert_eq!((served(&later, &all), later.count().expect("listed")), (vec![Mask::ALL; 6], 6));
}

#[test]
fn a_store_that_is_open_finds_what_another_process_ingested_since() {
    let world = World::new();
    let node = world.store("home");
    let path = world.file("film", PLAIN_LEN);
    let extents = hold(&world.store("home"), &path).expect("held");
    assert_eq!(served(&node, &blobs(&extents, &node)), [Mask::ALL]);
}

#[test]
fn whatever_is_done_to_a_held_file_nothing_wrong_leaves_it() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed, [usize; 2]); 6] = [
        ("a byte is changed", |path| write_at(path, 70_000, b"?"), [15, 16]),
        ("it ends in the second blob", |path| truncate(path, PLAIN_LEN as u64 + 100), [16, 0]),
        ("it is longer", |path| append(path), [16, 16]),
        ("it is deleted", |path| fs::remove_file(path).expect("removed"), [0, 0]),
        ("it is replaced", |path| replace(path, b"another"), [0, 0]),
        (
            "it is a folder",
            |path| {
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("made");
            },
            [0, 0],
        ),
    ];
    for reopened in [true, false] {
        for (what, deed, left) in &deeds {
            let world = World::new();
            let path = world.file("film", 2 * PLAIN_LEN);
            let store = world.store("home");
            let extents = hold(&store, &path).expect("held");
            let all = blobs(&extents, &store);
            let store = if reopened {
                drop(store);
                deed(&path);
                world.store("home")
            } else {
                assert_eq!(served(&store, &all), [Mask::ALL; 2]);
                deed(&path);
                store
            };
            let found: Vec<usize> = served(&store, &all).iter().map(|mask| mask.len()).collect();
            // The open file of one that is gone from its folder may go on being served.
            let is_open = !reopened && left == &[0, 0];
            assert!(found == left || (is_open && found == [16, 16]), "{what}: {found:?}");
            if reopened {
                let whole: Vec<bool> = all.iter().map(|(blob, _)| store.has(&blob.root.into())).collect();
                assert_eq!(whole, left.map(|parts| parts == 16), "{what}");
            }
        }
    }
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(bytes, offset).expect("written");
}

fn truncate(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).expect("opens").set_len(len).expect("cut");
}

fn append(path: &Path) {
    let mut file = OpenOptions::new().append(true).open(path).expect("opens");
    file.write_all(b"more").expect("written");
}

fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).expect("written");
    fs::rename(beside, path).expect("renamed");
}

/// Random edits and reads, against a model: which parts still hold what was ingested.
#[test]
fn random_edits_of_a_held_file_take_the_parts_that_they_touch_and_no_others() {
    for seed in 0..8 {
        let mut rng = Rng::new([seed; 32]);
        let world = World::new();
        let len = PLAIN_LEN + 1 + usize::try_from(rng.below(2 * PLAIN_LEN as u64)).expect("small");
        let path = world.file("film", len);
        let mut store = world.store("home");
        let extents = hold(&store, &path).expect("held");
        let all = blobs(&extents, &store);
        let original = fs::read(&path).expect("readable");
        let mut withdrawn = BTreeSet::new();
        for _ in 0..30 {
            match rng.below(4) {
                0 => {
                    let at = rng.below(len as u64);
                    let byte = u8::try_from(rng.below(256)).expect("a byte");
                    write_at(&path, at, &[byte]);
                }
                1 => {
                    drop(store);
                    store = world.store("home");
                }
                _ => {}
            }
            // What was found changed once stays withdrawn, though the bytes may have been set back.
            let present = fs::read(&path).expect("readable");
            let changed = (0..len).filter(|at| present[*at] != original[*at]);
            withdrawn.extend(changed.map(|at| (at / PLAIN_LEN, at % PLAIN_LEN / PART_LEN)));
            let mut left = vec![Mask::ALL; all.len()];
            for (blob, part) in &withdrawn {
                left[*blob] = left[*blob] - Mask::one(*part);
            }
            assert_eq!(served(&store, &all), left, "seed {seed}");
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_ingested_is_not_held() {
    let world = World::new();
    let path = world.file("film", 3 * PLAIN_LEN);
    let store = world.store("home");
    let touched = AtomicBool::new(false);
    let touch = |_| {
        if !touched.swap(true, Relaxed) {
            write_at(&path, 0, b"torn");
        }
    };
    let torn = ingest_in_place(&path, &store, &secret(), 2, &touch, &AtomicBool::new(false));
    let error = torn.expect_err("it changed");
    assert!(
        matches!(error, IngestError::Changed(_)) && error.to_string().contains("changed while it was read")
    );
    assert_eq!(fs::read_dir(world.path("home/held")).expect("listed").count(), 0);
    hold(&store, &path).expect("nothing writes to it");
}

#[test]
fn a_file_that_was_ingested_again_is_held_once() {
    let world = World::new();
    let path = world.file("film", PLAIN_LEN);
    let store = world.store("home");
    hold(&store, &path).expect("held");
    write_at(&path, 5, b"another version");
    let second = hold(&store, &path).expect("held");
    assert_eq!(fs::read_dir(world.path("home/held")).expect("listed").count(), 1);
    assert_eq!(served(&store, &blobs(&second, &store)), [Mask::ALL]);
}

// --- downloads ----------------------------------------------------------------------------------------------

/// A reader's home, and a file of a channel that comes part by part.
struct Reader {
    world: World,
    home: Home,
    entry: FileEntry,
    manifest: Arc<Manifest>,
    sealed: BTreeMap<Root, Vec<u8>>,
    blobs: Vec<(BlobRef, u32)>,
}

impl Reader {
    fn new(len: usize) -> Self {
        let world = World::new();
        let path = world.file("film", len);
        let author = world.store("author");
        let extents = hold(&author, &path).expect("held");
        let (sealed, blobs) = (sealed(&world, &extents, &path), blobs(&extents, &author));
        let entry = FileEntry {
            path: EntryPath::new("dir/film").expect("a path"),
            size: len as u64,
            modified_ms: None,
            executable: false,
            reference: Reference::Extents(extents),
            blake3: None,
        };
        let collections = vec![Collection { title: String::new(), items: vec![Item::File(entry.clone())] }];
        let manifest = Arc::new(Manifest { collections, ..Manifest::default() });
        let home = Home::open(&world.path("reader")).expect("opens");
        Self { world, home, entry, manifest, sealed, blobs }
    }

    fn out(&self) -> PathBuf {
        self.world.path("out")
    }

    fn begin(&self) {
        self.home.store.begin_outputs(TOPIC, 1, Plan::new(self.manifest.clone(), self.out()));
    }

    /// The entry is another version's from here on.
    fn publish_again(&mut self) {
        let items = vec![Item::File(self.entry.clone())];
        let collections = vec![Collection { title: String::new(), items }];
        self.manifest = Arc::new(Manifest { collections, ..Manifest::default() });
        self.begin();
    }

    fn again(self) -> Self {
        let Self { world, home, entry, manifest, sealed, blobs } = self;
        drop(home);
        let home = Home::open(&world.path("reader")).expect("opens");
        Self { world, home, entry, manifest, sealed, blobs }
    }

    /// A part comes from a peer.
    fn bring(&self, blob: usize, part: usize) -> Written {
        let (BlobRef { root, key }, len) = &self.blobs[blob];
        let bytes = &self.sealed[root];
        let stand = Stand {
            topic: TOPIC,
            version: 1,
            file: 0,
            offset: (blob * PLAIN_LEN) as u64,
            key: key.clone(),
            len: *len,
        };
        let mut buf = bytes[part * PART_LEN..][..PART_LEN].to_vec();
        self.home.store.write_part(root, part, &Values::of(bytes), &mut buf, Some(&stand))
    }

    /// What the store says of a blob that is to stand in the file.
    fn held(&self, blob: usize) -> Held {
        let (BlobRef { root, key }, len) = &self.blobs[blob];
        let (offset, key) = ((blob * PLAIN_LEN) as u64, key.clone());
        let stand = Stand { topic: TOPIC, version: 1, file: 0, offset, key, len: *len };
        let held = self.home.store.held_or_standing(&[(*root).into()], &BTreeMap::from([(*root, stand)]));
        held.into_iter().next().expect("one answer")
    }

    fn finish(&self, blob: usize) -> Result<Vec<bool>, Written> {
        let (BlobRef { root, key }, len) = &self.blobs[blob];
        self.home.store.finish(root, &[Claim::Content(key.clone(), *len)])
    }

    fn bring_all(&self) {
        for (n, (_, len)) in self.blobs.iter().enumerate() {
            for part in parts::needed(*len as usize, PART_LEN).iter() {
                assert_eq!(self.bring(n, part), Written::Stored);
            }
            assert_eq!(self.finish(n), Ok(vec![true]));
        }
    }

    fn export(&self) -> Result<Exported, ExportError> {
        self.export_as(false)
    }

    fn export_as(&self, restore: bool) -> Result<Exported, ExportError> {
        let Home { store, state, .. } = &self.home;
        let (entry, packs, out_dir) = (&self.entry, &self.manifest.packs, &self.out());
        let request = Export {
            entry,
            packs,
            store,
            state,
            out_dir,
            workers: 2,
            copies: Copies::None,
            topic: Some(TOPIC),
            restore,
            sync: false,
        };
        export(&request, &|_| {}, &AtomicBool::new(false))
    }

    fn assert_equal(&self) {
        let (ours, theirs) = (fs::read(self.out().join("dir/film")), fs::read(self.world.path("film")));
        assert!(ours.expect("it has its name") == theirs.expect("readable"));
    }

    fn listing(&self) -> Vec<String> {
        let names = fs::read_dir(self.out().join("dir"))
            .expect("listed")
            .map(|entry| entry.expect("listed").file_name());
        names.map(|name| name.into_string().expect("UTF-8")).collect()
    }

    fn stored(&self) -> usize {
        let folders =
            fs::read_dir(self.home.store.root()).expect("listed").map(|entry| entry.expect("listed"));
        let blobs = folders.filter(|folder| folder.file_name().len() == 2);
        blobs.map(|folder| fs::read_dir(folder.path()).expect("listed").count()).sum()
    }
}

#[test]
fn parts_are_opened_into_their_places_and_served_from_there_before_and_after_the_file_has_its_name() {
    let reader = Reader::new(3 * PLAIN_LEN + 300_000);
    reader.begin();
    assert_eq!(reader.bring(1, 4), Written::Stored);
    let root = reader.blobs[1].0.root;
    assert!(matches!(reader.home.store.held(&root.into()), Held::Parts(mask, _) if mask == Mask::one(4)));
    assert_eq!(served(&reader.home.store, &reader.blobs[1..2]), [Mask::one(4)]);
    reader.bring_all();
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 4]);
    assert!(matches!(&reader.listing()[..], [name] if name.starts_with(".mt-") && name.len() == 25));
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    reader.assert_equal();
    assert_eq!((reader.listing(), reader.stored()), (vec!["film".to_owned()], 0), "every byte is there once");
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 4]);
    let reader = reader.again();
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 4]);
    assert_eq!(reader.export().expect("known"), Exported::AlreadyThere);
}

#[test]
fn what_came_before_there_was_a_place_for_it_moves_there() {
    let reader = Reader::new(2 * PLAIN_LEN + 10);
    assert_eq!((reader.bring(0, 2), reader.bring(0, 3)), (Written::Stored, Written::Stored));
    for part in 0..PARTS {
        assert_eq!(reader.bring(1, part), Written::Stored);
    }
    assert_eq!((reader.finish(1), reader.stored()), (Ok(vec![true]), 1));
    reader.begin();
    reader.bring_all();
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    reader.assert_equal();
    assert_eq!(reader.stored(), 0);
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 3]);
}

#[test]
fn a_download_that_ended_in_the_middle_goes_on_with_what_it_had() {
    let reader = Reader::new(2 * PLAIN_LEN);
    reader.begin();
    for part in 3..9 {
        assert_eq!(reader.bring(0, part), Written::Stored);
    }
    let reader = reader.again();
    let root = reader.blobs[0].0.root;
    let had = Mask::first(9) - Mask::first(3);
    assert!(matches!(reader.home.store.held(&root.into()), Held::Parts(mask, _) if mask == had));
    reader.begin();
    reader.bring_all();
    assert_eq!(reader.listing().len(), 1, "it goes on with the same file");
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    reader.assert_equal();
    assert_eq!(reader.listing(), ["film"]);
}

#[test]
fn an_older_version_that_was_under_way_leaves_nothing_once_the_newer_one_is_there() {
    let mut reader = Reader::new(2 * PLAIN_LEN);
    reader.begin();
    assert_eq!(reader.bring(0, 0), Written::Stored);
    reader.entry.executable = true;
    reader.publish_again();
    reader.bring_all();
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    reader.assert_equal();
    assert_eq!((reader.listing(), reader.stored()), (vec!["film".to_owned()], 0));
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 2]);
}

#[test]
fn a_file_that_only_has_the_name_of_one_under_way_is_not_written_to() {
    let reader = Reader::new(PLAIN_LEN);
    reader.begin();
    assert_eq!(reader.bring(0, 0), Written::Stored);
    let path = reader.out().join("dir").join(reader.listing().pop().expect("it is under way"));
    let reader = reader.again();
    replace(&path, b"the user's");
    reader.begin();
    reader.bring_all();
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    reader.assert_equal();
    assert_eq!(fs::read(path).expect("there"), b"the user's");
}

#[test]
fn an_entry_whose_sizes_differ_opens_no_file() {
    let mut reader = Reader::new(PLAIN_LEN);
    reader.entry.size = 5;
    reader.publish_again();
    reader.bring_all();
    assert!(matches!(reader.export(), Err(ExportError::Inconsistent(_))));
    assert!(!reader.out().join("dir").exists());
}

#[test]
fn what_stands_at_the_place_of_a_file_is_not_touched_and_its_blobs_are_stored() {
    let reader = Reader::new(PLAIN_LEN);
    fs::create_dir_all(reader.out().join("dir")).expect("made");
    fs::write(reader.out().join("dir/film"), "the user's").expect("written");
    reader.begin();
    reader.bring_all();
    assert!(matches!(reader.export(), Err(ExportError::Exists(_))));
    assert_eq!(fs::read(reader.out().join("dir/film")).expect("there"), b"the user's");
    assert_eq!(reader.listing(), ["film"]);
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL]);
}

#[test]
fn a_blob_whose_filling_is_not_canonical_is_its_authors_fault() {
    let reader = Reader::new(PLAIN_LEN);
    reader.begin();
    let (BlobRef { root, key }, _) = &reader.blobs[0];
    let bytes = &reader.sealed[root];
    // It is said to hold less than it does.
    let len = 100_000;
    let stand = Stand { topic: TOPIC, version: 1, file: 0, offset: 0, key: key.clone(), len };
    for part in 0..2 {
        let mut buf = bytes[part * PART_LEN..][..PART_LEN].to_vec();
        let written = reader.home.store.write_part(root, part, &Values::of(bytes), &mut buf, Some(&stand));
        assert_eq!(written, Written::Stored);
    }
    assert_eq!(reader.home.store.finish(root, &[Claim::Content(key.clone(), len)]), Ok(vec![false]));
}
