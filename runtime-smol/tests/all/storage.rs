//! The blob store, the state and ingest: what is stored is whole, whatever happened before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::blob::{self, BLOB_LEN, PLAIN_LEN};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, BlobName, Secret};
use megatorrent_core::manifest::Extent;
use megatorrent_core::node::{Claim, RecordKey, Written};
use megatorrent_core::parts::{PART_LEN, Values};
use megatorrent_core::rng::Rng;
use megatorrent_core::tree::TreeRef;
use megatorrent_runtime_smol::home::{self, Home, HomeError, load_dht_state, save_dht_state};
use megatorrent_runtime_smol::ingest::{IngestError, ingest};
use megatorrent_runtime_smol::state::{State, StateError};
use megatorrent_runtime_smol::store::Store;

/// The last two are the longest that is listed without an index blob, and one that is not.
const SIZES: [usize; 8] =
    [0, 1, PLAIN_LEN - 1, PLAIN_LEN, PLAIN_LEN + 1, 5 * PLAIN_LEN + 3, 16 * PLAIN_LEN, 16 * PLAIN_LEN + 1];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), false).expect("the store opens")
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new([seed; 32]).fill(&mut bytes);
    bytes
}

fn secret() -> Secret {
    Secret::new([7; 32])
}

fn sealed(seed: u8) -> (BlobName, Vec<u8>) {
    let mut buf = content(BLOB_LEN, seed);
    let blob = blob::seal(&secret(), &mut buf, PLAIN_LEN);
    (blob.root.into(), buf)
}

fn path(dir: &tempfile::TempDir, id: &BlobName) -> PathBuf {
    let hex = id.to_string();
    dir.path().join("blobs").join(&hex[..2]).join(hex)
}

fn take_in(bytes: impl Read + Send, store: &Store, workers: usize) -> Result<Vec<Extent>, IngestError> {
    ingest(bytes, store, &secret(), workers, &|_| {}, &AtomicBool::new(false))
}

/// The trees that a file is joined from.
fn trees(extents: &[Extent]) -> impl Iterator<Item = &TreeRef> {
    extents.iter().map(|extent| match extent {
        Extent::Tree(tree) => tree,
        Extent::Slice(_) => panic!("ingest makes no slices"),
    })
}

fn blob_count(extents: &[Extent]) -> u64 {
    trees(extents).map(TreeRef::blob_count).sum()
}

/// The content of a file, read back blob by blob.
fn read_back(extents: &[Extent], store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    for tree in trees(extents) {
        let mut nodes = vec![tree.root()];
        while let Some(node) = nodes.pop() {
            let plain = store.open_blob(&node.blob, node.content_len()).expect("readable").expect("stored");
            if node.height == 0 {
                bytes.extend_from_slice(&plain);
            }
            nodes.extend(node.children(&plain).into_iter().rev());
        }
    }
    bytes
}

#[test]
fn a_stream_of_any_length_comes_back() {
    let dir = folder();
    let store = open(&dir);
    for len in SIZES {
        for workers in [1, 3] {
            let bytes = content(len, 0);
            let stored = AtomicU64::new(0);
            let count = |n| {
                stored.fetch_add(n, Relaxed);
            };
            let extents = ingest(&bytes[..], &store, &secret(), workers, &count, &AtomicBool::new(false))
                .expect("stored");
            let size: u64 = trees(&extents).map(|tree| tree.size).sum();
            assert_eq!((size, stored.load(Relaxed)), (len as u64, len as u64));
            assert!(read_back(&extents, &store) == bytes, "{len} bytes with {workers} workers");
        }
    }
}

#[test]
fn a_reader_that_gives_little_at_a_time_changes_nothing() {
    /// Gives 1 to 4096 bytes, and now and then an interruption.
    struct Trickle<'a>(&'a [u8], usize);
    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(17) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let max = (self.1 % 4096 + 1).min(buf.len());
            self.0.read(&mut buf[..max])
        }
    }
    let dir = folder();
    let store = open(&dir);
    let bytes = content(2 * PLAIN_LEN + 77, 1);
    let whole = take_in(&bytes[..], &store, 2).expect("stored");
    assert_eq!(take_in(Trickle(&bytes, 0), &store, 2).expect("stored"), whole);
}

#[test]
fn equal_content_gives_equal_blobs_under_one_secret_only() {
    let dir = folder();
    let store = open(&dir);
    let bytes = content(3 * PLAIN_LEN + 5, 2);
    let first = take_in(&bytes[..], &store, 2).expect("stored");
    let count = store.count().expect("listed");
    assert_eq!(count, blob_count(&first));
    assert_eq!(take_in(&bytes[..], &store, 3).expect("stored"), first);
    assert_eq!(store.count().expect("listed"), count, "nothing was added");
    let other = Secret::new([8; 32]);
    let second = ingest(&bytes[..], &store, &other, 2, &|_| {}, &AtomicBool::new(false)).expect("stored");
    assert_ne!(second, first);
    assert_eq!(store.count().expect("listed"), 2 * count);
}

#[test]
fn ingest_says_what_failed() {
    struct Broken(u64);
    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(buf.len() as u64).ok_or_else(|| io::Error::other("bad sector"))?;
            Ok(buf.len())
        }
    }
    let dir = folder();
    let store = open(&dir);
    let error = take_in(Broken(3 << 20), &store, 3).expect_err("the input fails");
    assert_eq!(error.to_string(), "cannot read the input: bad sector");
    let cancelled = ingest(io::repeat(1), &store, &secret(), 2, &|_| {}, &AtomicBool::new(true));
    assert!(matches!(cancelled, Err(IngestError::Cancelled)));
    // A file where a blob's folder should be.
    let (id, _) = sealed(3);
    fs::write(path(&dir, &id).parent().expect("a folder"), "").expect("written");
    let error = take_in(&content(PLAIN_LEN, 3)[..], &store, 1).expect_err("the folder cannot be made");
    assert!(matches!(error, IngestError::Store(_)), "{error}");
}

#[test]
fn a_blob_is_stored_once_and_read_back() {
    let dir = folder();
    let store = open(&dir);
    let (id, blob) = sealed(4);
    let mut buf = vec![0; BLOB_LEN];
    assert!(!store.has(&id) && !store.read(&id, &mut buf).expect("readable"));
    store.write(&id, &blob).expect("stored");
    assert!(store.has(&id) && store.read(&id, &mut buf).expect("readable") && buf == blob);
    let written = fs::metadata(path(&dir, &id)).expect("there").modified().expect("a time");
    store.write(&id, &blob).expect("stored");
    assert_eq!(fs::metadata(path(&dir, &id)).expect("there").modified().expect("a time"), written);
    assert_eq!(store.count().expect("listed"), 1);
}

#[test]
fn a_blob_that_is_not_its_name_is_not_stored() {
    let dir = folder();
    let store = open(&dir);
    let (id, mut blob) = sealed(5);
    blob[99] ^= 1;
    let none = BlobId([0; 32]);
    assert_eq!(store.verify_and_write(&id, &none, &blob), Written::Mismatch);
    assert_eq!(store.verify_and_write(&id, &none, &blob[..99]), Written::Mismatch);
    assert_eq!(store.verify_and_write(&id, &blob::id(&blob), &blob), Written::NotOfRoot, "its author lied");
    assert_eq!((store.has(&id), store.count().expect("listed")), (false, 0));
    blob[99] ^= 1;
    assert_eq!(store.verify_and_write(&id, &none, &blob), Written::Stored);
    assert!(store.has(&id));
}

#[test]
fn a_file_of_another_length_is_no_blob() {
    let dir = folder();
    let store = open(&dir);
    let (id, blob) = sealed(6);
    store.write(&id, &blob).expect("stored");
    for len in [0, 1, BLOB_LEN - 1, BLOB_LEN + 1] {
        let mut other = blob.clone();
        other.resize(len, 0);
        fs::write(path(&dir, &id), other).expect("written");
        assert!(!store.has(&id) && !store.read(&id, &mut vec![0; BLOB_LEN]).expect("readable"), "{len}");
        assert_eq!(store.count().expect("listed"), 0);
        store.write(&id, &blob).expect("stored");
        assert!(store.has(&id), "it was replaced");
    }
}

#[test]
fn a_blob_that_does_not_open_is_removed_only_if_it_is_corrupt() {
    let dir = folder();
    let store = open(&dir);
    let extents = take_in(&content(1000, 7)[..], &store, 1).expect("stored");
    let mut blob = trees(&extents).next().expect("one").blob.clone();
    let name = blob.root.into();
    let right = std::mem::replace(&mut blob.key, Secret::new([1; 32]));
    assert_eq!(store.open_blob(&blob, 1000).expect("readable"), None, "the wrong key");
    blob.key = right;
    assert_eq!(store.open_blob(&blob, 999).expect("readable"), None, "the wrong length");
    assert!(store.has(&name), "the blob is not to blame");
    assert!(store.open_blob(&blob, 1000).expect("readable").is_some());
    let mut bytes = fs::read(path(&dir, &name)).expect("there");
    bytes[5] ^= 1;
    fs::write(path(&dir, &name), &bytes).expect("written");
    assert_eq!(store.open_blob(&blob, 1000).expect("readable"), None);
    assert!(!store.has(&name), "it is to be fetched again");
}

#[test]
fn damage_is_not_taken_for_a_wrong_claim_and_the_parts_may_come_again() {
    let dir = folder();
    let store = open(&dir);
    let mut bytes = content(BLOB_LEN, 3);
    let blob = blob::seal(&secret(), &mut bytes, 1000);
    let (name, values) = (blob.root.into(), Values::of(&bytes));
    let claims = [Claim::Content(blob.key.clone(), 1000), Claim::Content(blob.key.clone(), 1001)];
    assert_eq!(
        store.write_part(&blob.root, 0, &values, &mut bytes.clone()[..PART_LEN], None),
        Written::Stored
    );
    assert_eq!(store.finish(&blob.root, &claims), Ok(vec![true, false]));
    let mut damaged = fs::read(path(&dir, &name)).expect("there");
    damaged[7 * PART_LEN] ^= 1;
    fs::write(path(&dir, &name), &damaged).expect("written");
    assert_eq!(store.finish(&blob.root, &claims), Err(Written::Mismatch));
    assert!(!store.has(&name));
    assert_eq!(
        store.write_part(&blob.root, 0, &values, &mut bytes.clone()[..PART_LEN], None),
        Written::Stored
    );
    assert_eq!(store.finish(&blob.root, &claims), Ok(vec![true, false]));
}

#[test]
fn a_blob_that_the_disk_has_spoilt_is_found_by_some_read_and_removed() {
    let dir = folder();
    let store = open(&dir);
    let (id, bytes) = sealed(1);
    store.write(&id, &bytes).expect("stored");
    let mut bytes = fs::read(path(&dir, &id)).expect("there");
    bytes[BLOB_LEN / 2] ^= 1;
    fs::write(path(&dir, &id), &bytes).expect("written");
    let mut buf = vec![0; BLOB_LEN];
    let wrong = (0..1000).take_while(|_| store.read(&id, &mut buf).expect("readable")).count();
    assert!(wrong < 100, "{wrong} times its wrong bytes were given away");
    assert!(!store.has(&id) && !path(&dir, &id).exists());
}

#[test]
fn what_a_killed_process_left_is_ignored_and_cleared() {
    let dir = folder();
    drop(open(&dir));
    let left = dir.path().join("blobs/tmp/0/123-0");
    fs::write(&left, &sealed(8).1[..5000]).expect("written");
    let store = open(&dir);
    assert!(!left.exists() && store.count().expect("listed") == 0);
    // While one process is at work, another one leaves its temporary files alone.
    fs::write(&left, "").expect("written");
    let beside = open(&dir);
    assert!(left.exists());
    drop((store, beside));
    drop(open(&dir));
    assert!(!left.exists());
}

/// Leaves zeros in place of a file's bytes.
fn tear(path: &Path) {
    let len = fs::metadata(path).expect("there").len();
    fs::write(path, vec![0; usize::try_from(len).expect("small")]).expect("written");
}

/// As after a power cut: the blobs were last written in another boot.
fn pretend_reboot(dir: &tempfile::TempDir) {
    fs::write(dir.path().join("blobs/boot"), "another boot").expect("written");
}

#[test]
fn after_a_power_cut_no_torn_blob_is_taken_for_whole() {
    let dir = folder();
    let store = open(&dir);
    let (torn, whole) = (sealed(9), sealed(10));
    for (id, blob) in [&torn, &whole] {
        store.write(id, blob).expect("stored");
    }
    assert!(!store.is_checking());
    drop(store);
    assert!(!open(&dir).is_checking(), "a process that was merely killed tears no blob");
    tear(&path(&dir, &torn.0));
    pretend_reboot(&dir);
    let mut buf = vec![0; BLOB_LEN];
    let store = open(&dir);
    assert!(store.is_checking());
    assert!(!store.read(&torn.0, &mut buf).expect("readable") && store.has(&whole.0));
    assert_eq!(store.count().expect("listed"), 1, "the torn one was removed");
    store.write(&torn.0, &torn.1).expect("stored");
    assert!(store.has(&torn.0));
    tear(&path(&dir, &torn.0));
    drop(store);
    // What one process has not looked at, the next one still does not believe.
    let store = open(&dir);
    assert!(store.is_checking() && !store.has(&torn.0) && store.has(&whole.0));
}

#[test]
fn a_check_of_all_blobs_ends_the_doubt() {
    let dir = folder();
    let store = open(&dir);
    let (torn, whole) = (sealed(11), sealed(12));
    for (id, blob) in [&torn, &whole] {
        store.write(id, blob).expect("stored");
    }
    drop(store);
    tear(&path(&dir, &torn.0));
    pretend_reboot(&dir);
    let store = open(&dir);
    assert_eq!(store.check_all(&AtomicBool::new(true)).expect("readable"), None);
    assert!(store.is_checking(), "it was cancelled");
    assert_eq!(store.check_all(&AtomicBool::new(false)).expect("readable"), Some(1));
    assert!(!store.is_checking() && !store.has(&torn.0) && store.has(&whole.0));
    drop(store);
    assert!(!open(&dir).is_checking());
    assert!(Store::open(dir.path(), true).expect("opens").is_checking(), "asked for");
}

#[cfg(target_os = "linux")]
#[test]
fn blobs_that_reached_the_disk_are_believed_after_a_reboot() {
    let dir = folder();
    let boot = || fs::read_to_string(dir.path().join("blobs/boot")).expect("there");
    let store = open(&dir);
    let (first, second) = (sealed(13), sealed(14));
    store.write(&first.0, &first.1).expect("stored");
    let beside = open(&dir);
    store.sync().expect("flushed");
    assert_ne!(boot(), "synced", "another process may be writing");
    drop(beside);
    store.sync().expect("flushed");
    assert_eq!(boot(), "synced");
    store.write(&second.0, &second.1).expect("stored");
    assert_ne!(boot(), "synced", "what is written later is in doubt again");
}

#[test]
fn records_outlive_the_process() {
    let dir = folder();
    let channel = Identity::new(&Secret::new([3; 32]), None).public_key();
    let peer: PeerAddr = "[2001:db8::1]:99".parse().expect("an address");
    let named: PeerAddr = "example.org:99".parse().expect("an address");
    let mut records = BTreeMap::from([
        (RecordKey::Channel(channel), vec![0; 5000]),
        (RecordKey::Ban(peer.clone()), vec![1]),
        (RecordKey::Peer(peer.clone()), vec![]),
        (RecordKey::Peer(named.clone()), vec![2]),
    ]);
    let read = |dir: &Path| {
        let state = State::open(dir).expect("opens");
        state.records().expect("readable").into_iter().collect::<BTreeMap<_, _>>()
    };
    assert!(read(dir.path()).is_empty());
    let state = State::open(dir.path()).expect("opens");
    for (key, value) in &records {
        state.persist(key, Some(value)).expect("durable");
    }
    drop(state);
    assert_eq!(read(dir.path()), records);
    let state = State::open(dir.path()).expect("opens");
    state.persist(&RecordKey::Ban(peer.clone()), None).expect("durable");
    state.persist(&RecordKey::Peer(peer), None).expect("durable");
    state.persist(&RecordKey::Peer(named.clone()), Some(b"new")).expect("durable");
    state.persist(&RecordKey::Ban(named.clone()), None).expect("removing what is not there is no fault");
    drop(state);
    records.retain(|key, _| matches!(key, RecordKey::Channel(_)));
    records.insert(RecordKey::Peer(named), b"new".to_vec());
    assert_eq!(read(dir.path()), records);
}

#[test]
fn one_node_at_a_time_has_a_folder() {
    use std::os::unix::fs::PermissionsExt;
    let outer = folder();
    let dir = outer.path().join("node");
    let home = Home::open(&dir).expect("opens");
    for (name, mode) in [("", 0o700), ("state.redb", 0o600)] {
        assert_eq!(fs::metadata(dir.join(name)).expect("there").permissions().mode() & 0o777, mode, "{name}");
    }
    let error = Home::open(&dir).expect_err("it is held");
    assert!(matches!(error, HomeError::State(StateError::Held(_))));
    assert!(error.to_string().contains("stop that node"), "{error}");
    let (id, blob) = sealed(15);
    Home::blobs_only(&dir).expect("ingest works beside a node").write(&id, &blob).expect("stored");
    assert!(home.store.has(&id));
    drop(home);
    assert!(Home::open(&dir).expect("it is free again").store.has(&id));
}

#[test]
fn what_a_killed_process_had_made_of_a_state_or_of_a_store_is_in_nobodys_way() {
    let dir = folder();
    fs::write(dir.path().join("state.redb.new"), [0; 5000]).expect("written");
    fs::create_dir_all(dir.path().join("blobs/tmp/0")).expect("made");
    fs::write(dir.path().join("blobs/tmp/0/format-1"), "").expect("written");
    home::make(dir.path()).expect("it is a node's");
    let home = Home::open(dir.path()).expect("opens");
    assert!(home.state.records().expect("readable").is_empty());
    assert!(matches!(State::open(dir.path()), Err(StateError::Held(_))));
    assert!(!dir.path().join("state.redb.new").exists() && !dir.path().join("blobs/tmp/0/format-1").exists());
}

#[test]
fn a_damaged_state_is_an_error_and_no_panic() {
    let dir = folder();
    let file = dir.path().join("state.redb");
    let channel = Identity::new(&Secret::new([3; 32]), None).public_key();
    let state = State::open(dir.path()).expect("opens");
    state.persist(&RecordKey::Channel(channel), Some(&[9; 3000])).expect("durable");
    drop(state);
    let good = fs::read(&file).expect("there");
    fs::write(&file, "this is no database").expect("written");
    let error = State::open(dir.path()).expect_err("no database");
    assert!(error.to_string().contains("is damaged"), "{error}");
    let used = good.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
    let mut refused = 0;
    for part in 0..64 {
        let mut bad = good.clone();
        let at = used * part / 64;
        let end = (at + 64).min(used);
        bad[at..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
        if part % 8 == 7 {
            bad.truncate(at);
        }
        fs::write(&file, &bad).expect("written");
        let read = State::open(dir.path()).and_then(|state| state.records());
        refused += u32::from(read.is_err());
    }
    assert!(refused > 0, "some damage is seen");
}

#[test]
fn the_nodes_of_the_dht_are_kept() {
    let dir = folder();
    assert!(load_dht_state(dir.path()).is_empty());
    let nodes: Vec<String> = (1..=600).map(|port| format!("127.0.0.1:{port}")).collect();
    save_dht_state(dir.path(), &nodes).expect("saved");
    assert_eq!(load_dht_state(dir.path()), nodes[..512]);
    let file = dir.path().join("dht_state.json");
    for bad in ["", "[", "{}", "[1]", &"[".repeat(60_000), &" ".repeat(70_000)] {
        fs::write(&file, bad).expect("written");
        assert!(load_dht_state(dir.path()).is_empty());
    }
    fs::write(&file, r#"["127.0.0.1:1","../etc","127.0.0.1"]"#).expect("written");
    assert_eq!(load_dht_state(dir.path()), ["127.0.0.1:1"]);
}

/// Runs the named test of this file as a child process on `dir`; it writes a line for each step that must last.
fn child(test: &str, dir: &Path) -> Child {
    let program = std::env::current_exe().expect("this test program");
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--ignored"]).env("STORAGE_TEST_DIR", dir);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the child starts")
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os("STORAGE_TEST_DIR").map(PathBuf::from)
}

/// Kills the child after `count` lines that begin with "did", and returns what it said it did: at least those.
fn kill_after(mut child: Child, count: usize) -> usize {
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    // The test harness may have begun the first line.
    let done = lines.by_ref().filter(|line| line.contains("did")).take(count).count();
    child.kill().expect("killed");
    let more = lines.filter(|line| line.ends_with("did")).count();
    child.wait().expect("it ended");
    done + more
}

#[test]
#[ignore = "run by a_killed_ingest_goes_on, as the process that is killed"]
fn child_that_ingests() {
    let Some(dir) = child_dir() else { return };
    home::make(&dir).expect("made");
    let store = Home::blobs_only(&dir).expect("opens");
    let said = |_| println!("did");
    ingest(&content(48 * PLAIN_LEN, 0)[..], &store, &secret(), 2, &said, &AtomicBool::new(false))
        .expect("stored");
}

#[test]
fn a_killed_ingest_goes_on() {
    let dir = folder();
    let done = kill_after(child("storage::child_that_ingests", dir.path()), 5);
    assert!(done >= 5, "it was killed on its way");
    let store = open(&dir);
    assert!(store.count().expect("listed") >= done as u64, "what was reported stored is there");
    assert_eq!(
        Store::open(dir.path(), true).expect("opens").check_all(&AtomicBool::new(false)).expect("read"),
        Some(0)
    );
    let bytes = content(48 * PLAIN_LEN, 0);
    let tree = take_in(&bytes[..], &store, 2).expect("stored");
    assert_eq!(store.count().expect("listed"), blob_count(&tree));
}

#[test]
#[ignore = "run by a_killed_node_keeps_its_records, as the process that is killed"]
fn child_that_persists() {
    let Some(dir) = child_dir() else { return };
    let state = State::open(&dir).expect("opens");
    for port in 1..u16::MAX {
        let key = RecordKey::Peer(PeerAddr::Ip(([127, 0, 0, 1], port).into()));
        state.persist(&key, Some(&[1; 200])).expect("durable");
        println!("did");
    }
}

#[test]
fn a_killed_node_keeps_its_records() {
    let dir = folder();
    for kills in 1..=3 {
        let done = kill_after(child("storage::child_that_persists", dir.path()), 20 * kills);
        let state = State::open(dir.path()).expect("the lock ended with the process");
        let records = state.records().expect("readable");
        assert!(done >= 20 * kills && records.len() >= done, "{} of {done}", records.len());
    }
}
