//! A look at all that a home holds names what is not as it was, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use megatorrent_core::blob::{BLOB_LEN, PLAIN_LEN};
use megatorrent_core::ids::{BlobName, Secret};
use megatorrent_core::manifest::Extent;
use megatorrent_core::rng::Rng;
use megatorrent_runtime_smol::export::data_blobs;
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::{ingest, ingest_in_place};
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::verify::{Finding, Of, Summary, Told, VerifyError, verify};

const LEN: usize = 2 * PLAIN_LEN + 70_000;

struct World {
    dir: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Home::blobs_only(&dir.path().join("home")).expect("opens");
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("there").join(name)
    }

    /// A file that is held where it lies.
    fn held(&self, name: &str) -> (PathBuf, Vec<Extent>) {
        let path = self.path(name);
        let mut bytes = vec![0; LEN];
        Rng::new([u8::try_from(name.len()).expect("short"); 32]).fill(&mut bytes);
        fs::write(&path, bytes).expect("written");
        let never = AtomicBool::new(false);
        let extents = ingest_in_place(&path, &self.store, &Secret::new([9; 32]), 2, &|_| {}, &never);
        (path, extents.expect("held"))
    }

    fn look(&self) -> (Summary, Vec<Finding>) {
        let (found, total, bytes) = (Mutex::new(Vec::new()), AtomicU64::new(0), AtomicU64::new(0));
        let told = Told {
            total: &|n| total.store(n, Relaxed),
            progress: &|n| {
                bytes.fetch_add(n, Relaxed);
            },
            found: &|finding| found.lock().expect("nobody panicked").push(finding),
        };
        let summary = verify(&self.store, 2, told, &AtomicBool::new(false)).expect("it comes to the end");
        assert_eq!(bytes.into_inner(), total.into_inner(), "the bar comes to its end");
        (summary, found.into_inner().expect("nobody panicked"))
    }

    /// What is found, in short.
    fn states(&self) -> Vec<(Of, String, &'static str, u64)> {
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        let short = |it: Finding| (it.of, name(&it.path), it.state.name(), it.lost_bytes);
        self.look().1.into_iter().map(short).collect()
    }
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(bytes, offset).expect("written");
}

#[test]
fn what_is_as_it_was_is_not_told() {
    let world = World::new();
    let (path, _) = world.held("film");
    world.held("other");
    // The same bytes at another time.
    write_at(&path, 5, &fs::read(&path).expect("readable")[5..9]);
    assert!(matches!(world.look(), (Summary { files: 2, blobs: 0 }, found) if found.is_empty()));
}

#[test]
fn each_deed_has_its_word() {
    type Deed = fn(&Path);
    const ALL: u64 = LEN as u64;
    let deeds: [(&str, u64, Deed); 9] = [
        ("edited", 65_536, |path| write_at(path, 70_000, b"?")),
        ("edited", 0, |path| write_at(path, ALL, b"more")),
        ("edited", ALL, |path| fs::write(path, vec![7; LEN]).expect("written")),
        ("edited", ALL, |path| {
            fs::remove_file(path).expect("removed");
            fs::create_dir(path).expect("made");
        }),
        ("edited", ALL, |path| {
            fs::rename(path, path.with_extension("away")).expect("renamed");
            std::os::unix::fs::symlink(path.with_extension("away"), path).expect("linked");
        }),
        ("truncated", 65_536 + 70_000, |path| {
            let file = OpenOptions::new().write(true).open(path).expect("opens");
            file.set_len(2 * PLAIN_LEN as u64 - 100).expect("cut");
        }),
        ("moved", ALL, |path| fs::rename(path, path.with_extension("mkv")).expect("renamed")),
        ("deleted", ALL, |path| fs::remove_file(path).expect("removed")),
        ("deleted", ALL, |path| {
            let folder = path.parent().expect("a folder");
            fs::create_dir(folder.join("elsewhere")).expect("made");
            fs::rename(path, folder.join("elsewhere/film")).expect("renamed");
        }),
    ];
    for (state, lost, deed) in deeds {
        let world = World::new();
        let (path, extents) = world.held("film");
        let blobs = data_blobs(&extents, &world.store, 9).expect("readable").expect("few");
        // The handle of the file is open.
        assert!(
            world.store.read(&BlobName::Native(blobs[0].0.root), &mut vec![0; BLOB_LEN]).expect("readable")
        );
        deed(&path);
        assert_eq!(world.states(), [(Of::Own, "film".to_owned(), state, lost)]);
    }
}

#[test]
fn a_file_that_is_set_right_counts_again() {
    let world = World::new();
    let (path, extents) = world.held("film");
    let before = fs::read(&path).expect("readable");
    write_at(&path, 0, b"the user's");
    assert_eq!(world.states().len(), 1);
    let (blob, _) = &data_blobs(&extents, &world.store, 9).expect("readable").expect("few")[0];
    assert!(!world.store.has(&blob.root.into()));
    fs::write(&path, before).expect("written");
    assert_eq!(world.states(), []);
    assert!(world.store.has(&blob.root.into()));
}

#[test]
fn a_file_that_may_not_be_read_is_told_and_loses_nothing() {
    let world = World::new();
    let (path, extents) = world.held("film");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("set");
    if File::open(&path).is_ok() {
        return; // Root reads everything.
    }
    assert_eq!(world.states(), [(Of::Own, "film".to_owned(), "unreadable", 0)]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    assert_eq!(world.states(), []);
    let (blob, _) = &data_blobs(&extents, &world.store, 9).expect("readable").expect("few")[0];
    assert!(world.store.has(&blob.root.into()));
}

#[test]
fn damaged_blobs_are_named_and_removed() {
    let world = World::new();
    let mut bytes = vec![0; 4 * PLAIN_LEN];
    Rng::new([5; 32]).fill(&mut bytes);
    let never = AtomicBool::new(false);
    let extents =
        ingest(&bytes[..], &world.store, &Secret::new([1; 32]), 2, &|_| {}, &never).expect("stored");
    let blobs = data_blobs(&extents, &world.store, 9).expect("readable").expect("few");
    let paths = blobs.iter().map(|(blob, _)| {
        let name = BlobName::Native(blob.root).to_string();
        world.path("home/blobs").join(&name[..2]).join(name)
    });
    let paths: Vec<PathBuf> = paths.collect();
    // A byte of the first, the values of the second, the end of the third.
    write_at(&paths[0], 1000, b"?");
    write_at(&paths[1], BLOB_LEN as u64 + 5, b"?");
    OpenOptions::new().write(true).open(&paths[2]).expect("opens").set_len(99).expect("cut");
    let (summary, found) = world.look();
    assert_eq!(summary, Summary { files: 0, blobs: 4 });
    let mut damaged: Vec<PathBuf> = found.iter().map(|it| it.path.clone()).collect();
    damaged.sort();
    let mut wanted = paths[..3].to_vec();
    wanted.sort();
    assert_eq!(damaged, wanted);
    assert!(found.iter().all(|it| (it.of, it.state.name()) == (Of::Blob, "damaged")));
    assert_eq!(paths.iter().filter(|path| path.exists()).count(), 1);
    assert!(matches!(world.look(), (Summary { blobs: 1, .. }, found) if found.is_empty()));
}

#[test]
fn a_look_can_be_ended() {
    let world = World::new();
    world.held("film");
    let told = Told { total: &|_| {}, progress: &|_| {}, found: &|_| {} };
    let ended = verify(&world.store, 2, told, &AtomicBool::new(true));
    assert!(matches!(ended, Err(VerifyError::Cancelled)));
}
