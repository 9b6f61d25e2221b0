//! Export: the file that comes out is the file that went in, and nothing of the user's is lost on the way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use megatorrent_core::blob::{self, BLOB_LEN, PLAIN_LEN};
use megatorrent_core::ids::{BlobName, Root, Secret};
use megatorrent_core::manifest::{Chunk, EntryPath, Extent, FileEntry, Reference, Slice};
use megatorrent_core::rng::Rng;
use megatorrent_core::tree::{Shape, TreeRef};
use megatorrent_runtime_smol::export::{Copies, Export, ExportError, Exported, data_blobs, export};
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::seal_and_store;
use megatorrent_runtime_smol::state::FileRecord;

const SIZES: [usize; 6] = [0, 1, PLAIN_LEN - 1, PLAIN_LEN, PLAIN_LEN + 1, 5 * PLAIN_LEN + 3];
/// 2020-01-01, with milliseconds.
const MODIFIED_MS: u64 = 1_577_836_800_123;

/// A home and an output folder.
struct World {
    dir: tempfile::TempDir,
    home: Home,
    packs: BTreeMap<u32, Root>,
    copies: Copies,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let home = Home::open(&dir.path().join("home")).expect("opens");
        Self { dir, home, packs: BTreeMap::new(), copies: Copies::None }
    }

    /// One that keeps the blobs beside the files.
    fn copying() -> Self {
        Self { copies: Copies::Blobs, ..Self::new() }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn entry(&self, path: &str, bytes: &[u8]) -> FileEntry {
        let (store, secret) = (&self.home.store, Secret::new([7; 32]));
        let tree = TreeRef::write(Shape::REAL, bytes, |buf, len| seal_and_store(store, &secret, buf, len));
        let tree = tree.expect("stored");
        let path = EntryPath::new(path).expect("a good path");
        FileEntry {
            path,
            size: tree.size,
            modified_ms: None,
            executable: false,
            reference: tree.into(),
            blake3: None,
        }
    }

    fn export(&self, entry: &FileEntry) -> Result<Exported, ExportError> {
        self.export_with(entry, 2, &AtomicBool::new(false))
    }

    fn export_with(
        &self,
        entry: &FileEntry,
        workers: usize,
        cancel: &AtomicBool,
    ) -> Result<Exported, ExportError> {
        let Home { store, state, .. } = &self.home;
        export(
            &Export {
                entry,
                packs: &self.packs,
                store,
                state,
                out_dir: &self.out(),
                workers,
                copies: self.copies,
                topic: None,
                restore: false,
                sync: false,
            },
            &|_| {},
            cancel,
        )
    }

    fn blob_path(&self, id: &BlobName) -> PathBuf {
        let hex = id.to_string();
        self.home.store.root().join(&hex[..2]).join(hex)
    }

    /// The names in the output folder, hidden ones too.
    fn listing(&self) -> Vec<String> {
        let names = fs::read_dir(self.out()).expect("listed").map(|e| e.expect("listed").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new([seed; 32]).fill(&mut bytes);
    bytes
}

fn tree(entry: &FileEntry) -> &TreeRef {
    match &entry.reference {
        Reference::Extents(extents) => match &extents[..] {
            [Extent::Tree(tree)] => tree,
            other => panic!("it is a tree: {other:?}"),
        },
        other => panic!("it is a tree: {other:?}"),
    }
}

fn chunks(entry: &FileEntry, world: &World) -> Vec<Chunk> {
    let Reference::Extents(extents) = &entry.reference else { panic!("it has extents") };
    let blobs = data_blobs(extents, &world.home.store, 100).expect("readable").expect("few");
    let id = |root| world.home.store.id_of(root).expect("readable").expect("stored");
    blobs.iter().map(|(blob, len)| Chunk::from_ref(blob, id(&blob.root), *len)).collect()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).expect("readable")
}

#[test]
fn files_come_back_as_they_were() {
    let world = World::new();
    for len in SIZES {
        for workers in [1, 3] {
            let bytes = content(len, 0);
            let mut entry = world.entry(&format!("a/b{workers}/{len}.bin"), &bytes);
            (entry.modified_ms, entry.executable) = (Some(MODIFIED_MS), workers == 3);
            let opened = AtomicU64::new(0);
            let Home { store, state, .. } = &world.home;
            let request = Export {
                entry: &entry,
                packs: &world.packs,
                store,
                state,
                out_dir: &world.out(),
                workers,
                copies: if workers == 3 { Copies::Blobs } else { Copies::None },
                topic: None,
                restore: false,
                sync: workers == 3,
            };
            let count = |n| {
                opened.fetch_add(n, Relaxed);
            };
            assert_eq!(
                export(&request, &count, &AtomicBool::new(false)).expect("written"),
                Exported::Written
            );
            let path = world.out().join(entry.path.as_str());
            assert!(read(&path) == bytes, "{len} bytes with {workers} workers");
            assert_eq!(opened.load(Relaxed), len as u64);
            let metadata = fs::metadata(&path).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o111 != 0, workers == 3);
            let modified =
                metadata.modified().expect("a time").duration_since(UNIX_EPOCH).expect("after 1970");
            assert_eq!(modified, Duration::from_millis(MODIFIED_MS));
            assert_eq!(world.export(&entry).expect("there"), Exported::AlreadyThere);
        }
    }
}

#[test]
fn both_forms_of_reference_give_the_same_file() {
    let world = World::new();
    let bytes = content(2 * PLAIN_LEN + 9, 1);
    let mut entry = world.entry("as-chunks", &bytes);
    entry.reference = Reference::Chunks(chunks(&entry, &world));
    world.export(&entry).expect("written");
    assert!(read(world.out().join("as-chunks")) == bytes);
    let entry = world.entry("x", &bytes);
    let Reference::Extents(extents) = &entry.reference else { panic!("it has extents") };
    assert_eq!(data_blobs(extents, &world.home.store, 2).expect("readable"), None, "there are three");
}

#[test]
fn chunks_of_a_v5_author_are_read() {
    let world = World::new();
    let (key, nonce) = (Secret::new([1; 32]), [2; 12]);
    let mut padding = Rng::new([3; 32]);
    let mut list = Vec::new();
    for text in ["one ", "two"] {
        let mut buf = vec![0; BLOB_LEN];
        buf[..text.len()].copy_from_slice(text.as_bytes());
        let id = blob::seal_v5(&key, &nonce, &mut padding, &mut buf, text.len());
        world.home.store.write(&id.into(), &buf).expect("stored");
        let (length, real_size) = (1_048_592, u32::try_from(text.len()).expect("short"));
        list.push(Chunk { id, root: None, offset: 0, length, key: key.clone(), nonce, real_size });
    }
    let mut entry = world.entry("v5", b"one two");
    entry.reference = Reference::Chunks(list.clone());
    world.export(&entry).expect("written");
    assert_eq!(read(world.out().join("v5")), b"one two");
    entry.path = EntryPath::new("wrong").expect("a good path");
    list[1].nonce = [0; 12];
    entry.reference = Reference::Chunks(list.clone());
    assert!(matches!(world.export(&entry), Err(ExportError::Unreadable(id)) if id == list[1].name()));
    assert!(world.home.store.has(&list[1].name()), "the blob is not to blame");
    entry.size += 1;
    assert!(matches!(world.export(&entry), Err(ExportError::Inconsistent(_))));
    assert_eq!(world.listing(), ["v5"]);
}

#[test]
fn a_missing_blob_is_named_and_nothing_is_left() {
    let world = World::new();
    let entry = world.entry("file", &content(4 * PLAIN_LEN, 2));
    let lost = chunks(&entry, &world)[2].name();
    fs::remove_file(world.blob_path(&lost)).expect("removed");
    assert!(matches!(world.export(&entry), Err(ExportError::Missing(id)) if id == lost));
    assert!(world.listing().is_empty());
    let top = tree(&entry).blob.root.into();
    fs::remove_file(world.blob_path(&top)).expect("removed");
    assert!(matches!(world.export(&entry), Err(ExportError::Missing(name)) if name == top));
    assert!(world.listing().is_empty());
}

#[test]
fn a_corrupt_blob_is_missing_from_then_on() {
    let world = World::new();
    let entry = world.entry("file", &content(2 * PLAIN_LEN, 3));
    let bad = chunks(&entry, &world)[1].name();
    let mut bytes = fs::read(world.blob_path(&bad)).expect("there");
    bytes[..BLOB_LEN].fill(0);
    fs::write(world.blob_path(&bad), bytes).expect("written");
    assert!(matches!(world.export(&entry), Err(ExportError::Missing(id)) if id == bad));
    assert!(!world.home.store.has(&bad));
    assert!(world.listing().is_empty());
}

#[test]
fn what_the_user_has_there_is_never_overwritten() {
    let world = World::new();
    let bytes = content(PLAIN_LEN + 5, 4);
    let entry = world.entry("dir/file", &bytes);
    let path = world.out().join("dir/file");
    fs::create_dir_all(world.out().join("dir")).expect("created");
    let mut other = bytes.clone();
    other[PLAIN_LEN] ^= 1;
    for theirs in [b"theirs".to_vec(), other] {
        fs::write(&path, &theirs).expect("written");
        let error = world.export(&entry).expect_err("it is the user's");
        assert!(matches!(&error, ExportError::Exists(at) if at.ends_with("out/dir/file")), "{error}");
        assert!(read(&path) == theirs);
    }
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("created");
    assert!(matches!(world.export(&entry), Err(ExportError::Exists(_))));
    fs::remove_dir(&path).expect("removed");
    fs::write(&path, &bytes).expect("written");
    assert_eq!(world.export(&entry).expect("the same bytes"), Exported::AlreadyThere);
}

#[test]
fn a_newer_version_replaces_ours_and_only_ours() {
    let world = World::new();
    let path = world.out().join("file");
    let (first, second, third) = (b"first".as_slice(), b"second, longer".as_slice(), b"third".as_slice());
    world.export(&world.entry("file", first)).expect("written");
    let second_entry = world.entry("file", second);
    assert_eq!(world.export(&second_entry).expect("replaced"), Exported::Written);
    assert_eq!(read(&path), second);
    assert_eq!(world.export(&second_entry).expect("there"), Exported::AlreadyThere);
    // A change of the program's bit alone is a newer version too.
    let mut program = second_entry.clone();
    program.executable = true;
    assert_eq!(world.export(&program).expect("replaced"), Exported::Written);
    assert_ne!(fs::metadata(&path).expect("there").permissions().mode() & 0o100, 0);
    fs::write(&path, "edited by the user").expect("written");
    assert!(matches!(world.export(&world.entry("file", third)), Err(ExportError::Exists(_))));
    assert_eq!(read(&path), b"edited by the user");
    assert_eq!(world.listing(), ["file"]);
}

#[test]
fn a_file_written_before_the_kill_is_known_again() {
    let world = World::copying();
    let (old, new) = (world.entry("file", b"old"), world.entry("file", b"newer"));
    world.export(&old).expect("written");
    // Killed between the rename and the record.
    fs::write(world.out().join("file"), b"newer").expect("written");
    assert_eq!(world.export(&new).expect("the same bytes"), Exported::AlreadyThere);
    assert_eq!(world.export(&old).expect("ours again"), Exported::Written);
    assert_eq!(read(world.out().join("file")), b"old");
}

#[test]
fn a_file_torn_by_a_power_cut_is_written_again() {
    let world = World::copying();
    let entry = world.entry("file", b"whole");
    world.export(&entry).expect("written");
    let path = world.out().canonicalize().expect("there").join("file");
    let record = world.home.state.file(&path).expect("readable").expect("known");
    assert!(record.boot.is_some(), "it was not waited for");
    // Torn, with the size and time that the record has, and the machine was started anew.
    fs::write(&path, b"\0\0\0\0\0").expect("written");
    let time =
        UNIX_EPOCH + Duration::new(u64::try_from(record.modified.0).expect("after 1970"), record.modified.1);
    File::options().write(true).open(&path).expect("opens").set_modified(time).expect("set");
    assert_eq!(world.export(&entry).expect("as far as is known"), Exported::AlreadyThere);
    let reboot = FileRecord { boot: Some("another boot".to_owned()), ..record };
    world.home.state.persist_file(&path, &reboot).expect("stored");
    assert_eq!(world.export(&entry).expect("written"), Exported::Written);
    assert_eq!(read(&path), b"whole");
}

#[test]
fn a_torn_file_that_nothing_is_known_of_is_told_from_the_users_by_its_bytes() {
    for world in [World::new(), World::copying()] {
        let bytes = content(PLAIN_LEN + 5, 4);
        let mut entry = world.entry("file", &bytes);
        entry.modified_ms = Some(MODIFIED_MS);
        let path = world.out().join("file");
        fs::create_dir_all(world.out()).expect("created");
        let stand = |bytes: &[u8], modified_ms| {
            fs::write(&path, bytes).expect("written");
            let file = File::options().write(true).open(&path).expect("opens");
            file.set_modified(UNIX_EPOCH + Duration::from_millis(modified_ms)).expect("set");
        };
        let mut torn = bytes.clone();
        torn[512..4096].fill(0);
        torn[PLAIN_LEN..].fill(0);
        let mut edited = torn.clone();
        edited[8191] ^= 1;
        let mut half_a_sector = bytes.clone();
        half_a_sector[1024..1100].fill(0);
        let theirs = [
            (&torn[..], MODIFIED_MS + 1000),
            (&torn[..PLAIN_LEN], MODIFIED_MS),
            (&edited[..], MODIFIED_MS),
            (&half_a_sector[..], MODIFIED_MS),
        ];
        for (number, (theirs, modified_ms)) in theirs.into_iter().enumerate() {
            stand(theirs, modified_ms);
            assert!(matches!(world.export(&entry), Err(ExportError::Exists(_))), "{number}");
            assert!(read(&path) == theirs, "{number}");
        }
        stand(&torn, MODIFIED_MS);
        let timeless = FileEntry { modified_ms: None, ..entry.clone() };
        assert!(
            matches!(world.export(&timeless), Err(ExportError::Exists(_))),
            "nothing tells it from the user's"
        );
        assert!(read(&path) == torn);
        assert_eq!(world.export(&entry).expect("written"), Exported::Written);
        assert!(read(&path) == bytes);
        assert_eq!(world.listing(), ["file"]);
    }
}

#[test]
fn no_link_leads_out_of_the_output_folder() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    fs::create_dir_all(outside.join("b")).expect("created");
    fs::create_dir_all(world.out().join("real")).expect("created");
    symlink(&outside, world.out().join("a")).expect("linked");
    symlink(outside.join("b"), world.out().join("real/b")).expect("linked");
    fs::write(world.out().join("plain"), "").expect("written");
    for path in ["a/file", "a/b/file", "real/b/file", "plain/file"] {
        let error = world.export(&world.entry(path, b"x")).expect_err(path);
        assert!(matches!(error, ExportError::NotAFolder(_)), "{error}");
    }
    // The last component: a link to a file, to nothing yet, and to what we wrote.
    fs::write(outside.join("file"), "x").expect("written");
    symlink(outside.join("file"), world.out().join("link")).expect("linked");
    symlink(outside.join("new"), world.out().join("dangling")).expect("linked");
    for path in ["link", "dangling"] {
        assert!(matches!(world.export(&world.entry(path, b"x")), Err(ExportError::Exists(_))), "{path}");
    }
    assert_eq!(read(outside.join("file")), b"x");
    assert!(
        !outside.join("new").exists() && fs::read_dir(outside.join("b")).expect("listed").next().is_none()
    );
    // The output folder itself may be a link: the user named it.
    fs::remove_file(world.out().join("a")).expect("removed");
    fs::rename(world.out(), world.dir.path().join("elsewhere")).expect("renamed");
    symlink(world.dir.path().join("elsewhere"), world.out()).expect("linked");
    world.export(&world.entry("c/file", b"y")).expect("written");
    assert_eq!(read(world.dir.path().join("elsewhere/c/file")), b"y");
}

#[test]
fn a_left_over_of_a_killed_process_is_written_over() {
    let world = World::copying();
    let entry = world.entry("file", b"new");
    let cancelled = world.export_with(&entry, 1, &AtomicBool::new(true));
    assert!(matches!(cancelled, Err(ExportError::Cancelled)));
    assert!(world.listing().is_empty());
    // Find out what the hidden file is called: a process that is killed in the middle leaves it.
    let name = std::cell::OnceCell::new();
    let cancel = AtomicBool::new(false);
    let spy = std::sync::Mutex::new(name);
    let Home { store, state, .. } = &world.home;
    let request = Export {
        entry: &entry,
        packs: &world.packs,
        store,
        state,
        out_dir: &world.out(),
        workers: 1,
        copies: Copies::Blobs,
        topic: None,
        restore: false,
        sync: false,
    };
    let look = |_| {
        let found = world.listing();
        let held = world.export(&entry).expect_err("two do not write one file at once");
        assert!(matches!(held, ExportError::Busy(_)), "{held}");
        spy.lock().expect("unpoisoned").set(found).expect("one piece");
    };
    export(&request, &look, &cancel).expect("written");
    let hidden = spy.into_inner().expect("unpoisoned").into_inner().expect("seen");
    assert!(hidden.len() == 1 && hidden[0].starts_with(".mt-"), "{hidden:?}");
    fs::remove_file(world.out().join("file")).expect("removed");
    fs::write(world.out().join(&hidden[0]), "longer than the new content").expect("written");
    world.export(&entry).expect("written");
    assert_eq!((read(world.out().join("file")), world.listing()), (b"new".to_vec(), vec!["file".to_owned()]));
}

#[test]
fn the_longest_names_fit() {
    let world = World::new();
    let name = "n".repeat(255);
    world.export(&world.entry(&format!("{name}/{name}"), b"x")).expect("written");
    assert_eq!(read(world.out().join(&name).join(&name)), b"x");
}

#[test]
fn extents_and_slices_are_joined() {
    let mut world = World::new();
    let bytes = content(PLAIN_LEN + 77, 5);
    let middle = world.entry("middle", &bytes);
    let (key, mut pack) = (Secret::new([8; 32]), content(BLOB_LEN, 6));
    let slice = |offset| Slice { pack: 3, offset, length: 7, key: key.clone() };
    for (at, text) in [(16, b"before "), (64, b"behind.")] {
        pack[at..][..7].copy_from_slice(text);
        assert!(slice(u32::try_from(at).expect("small")).seal(&mut pack));
    }
    let root = Root(*blake3::hash(&pack).as_bytes());
    world.home.store.write(&root.into(), &pack).expect("stored");
    world.packs.insert(3, root);
    let slice = |offset| Extent::Slice(slice(offset));
    let mut entry = world.entry("joined", b"");
    let extents = vec![slice(16), Extent::Tree(tree(&middle).clone()), slice(64)];
    (entry.size, entry.reference) = (bytes.len() as u64 + 14, Reference::Extents(extents));
    for workers in [1, 3] {
        entry.path = EntryPath::new(&format!("joined by {workers}")).expect("a path");
        world.export_with(&entry, workers, &AtomicBool::new(false)).expect("written");
        let joined = read(world.out().join(entry.path.as_str()));
        assert!(joined == [b"before ", &bytes[..], b"behind."].concat());
    }
    let name = BlobName::Native(root);
    entry.path = EntryPath::new("not joined").expect("a path");
    entry.reference = Reference::Extents(vec![slice(32), Extent::Tree(tree(&middle).clone()), slice(64)]);
    assert!(matches!(world.export(&entry), Err(ExportError::Unreadable(at)) if at == name));
    world.packs.clear();
    assert!(matches!(world.export(&entry), Err(ExportError::Inconsistent(_))));
}

#[test]
fn folders_and_symlinks_are_made_and_none_leads_out() {
    let world = World::new();
    let of = |path: &str, reference| FileEntry { size: 0, reference, ..world.entry(path, b"") };
    let link = |path: &str, target: &str| of(path, Reference::Symlink(target.to_owned()));
    world.export(&of("a/b/empty", Reference::Folder)).expect("made");
    assert!(world.out().join("a/b/empty").is_dir());
    assert_eq!(world.export(&link("a/b/l", "../../t")).expect("made"), Exported::Written);
    assert_eq!(fs::read_link(world.out().join("a/b/l")).expect("a link"), Path::new("../../t"));
    assert_eq!(world.export(&link("a/b/l", "../../t")).expect("there"), Exported::AlreadyThere);
    assert!(matches!(world.export(&link("a/b/l", "other")), Err(ExportError::Exists(_))));
    for (path, target) in [("x", ".."), ("x", "/etc"), ("a/x", "b/../../.."), ("a/x", "../../y")] {
        let error = world.export(&link(path, target)).expect_err("it leads out");
        assert!(matches!(error, ExportError::Refused(..)), "{error}");
    }
    // No file goes through a link.
    assert!(matches!(world.export(&world.entry("a/b/l/f", b"x")), Err(ExportError::NotAFolder(_))));
    assert!(matches!(world.export(&of("a/b/l", Reference::Folder)), Err(ExportError::NotAFolder(_))));
}

#[test]
fn names_that_other_systems_do_not_take_are_taken() {
    let world = World::new();
    for name in ["AUX", "a:b", "back\\slash", "ends.", "ends ", "gpj\u{202e}exe."] {
        world.export(&world.entry(name, name.as_bytes())).expect("written");
        assert_eq!(read(world.out().join(name)), name.as_bytes());
    }
    fs::write(world.out().join("gpj\u{202e}exe."), "the user's").expect("written");
    let error =
        world.export(&world.entry("gpj\u{202e}exe.", b"x")).expect_err("it is the user's").to_string();
    assert!(error.contains("gpj\\u{202e}exe."), "{error}");
    let ours = world.export(&world.entry("d/.mt-0123456789abcdef.part", b"x"));
    assert!(matches!(ours, Err(ExportError::Refused(..))));
}
