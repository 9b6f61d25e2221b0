//! Files held in place are edited, truncated, moved, linked, replaced and deleted while peers fetch from them over real sockets,
//! against a model of what must still be right. Nothing wrong arrives, nobody is banned, and what was not touched is served.
//!
//! `HELD_SEED=N` repeats the world of a seed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_io::Timer;
use megatorrent_core::blob::{BlobRef, PLAIN_LEN};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{Collection, EntryPath, FileEntry, HeadContent, Item, Manifest, Reference};
use megatorrent_core::node::{Command, Draft, Event};
use megatorrent_core::parts::PART_LEN;
use megatorrent_core::rng::Rng;
use megatorrent_core::tree::Shape;
use megatorrent_runtime_smol::export::data_blobs;
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::{AuthorBlobs, ingest_in_place};
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use smol::LocalExecutor;

type Executor = Rc<LocalExecutor<'static>>;

/// How long worlds are tried.
const TIME: Duration = Duration::from_secs(15);
/// A world whose untouched parts have not arrived by then has failed.
const PATIENCE: Duration = Duration::from_mins(1);
const FILES: usize = 4;
const READERS: usize = 2;
/// Slow enough that much is done to the files before all is fetched.
const UPLOAD_BYTES_PER_SEC: u64 = 6_000_000;

/// A file, and what of it must still be right.
struct Held {
    path: PathBuf,
    len: usize,
    blobs: Vec<(BlobRef, u32)>,
    /// The parts that may have changed, by their number in the file; a blob's begin anew.
    touched: BTreeSet<(usize, usize)>,
    /// Whether the file at this path is still the one that was held.
    is_there: bool,
}

impl Held {
    fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let parts = |(blob, (_, len)): (usize, &(BlobRef, u32))| {
            (0..(*len as usize).div_ceil(PART_LEN)).map(move |part| (blob, part))
        };
        self.blobs.iter().enumerate().flat_map(parts)
    }

    fn touch(&mut self, from: usize, to: usize) {
        let begins = |(blob, part): (usize, usize)| blob * PLAIN_LEN + part * PART_LEN;
        let touched: Vec<_> =
            self.parts().filter(|it| begins(*it) < to && begins(*it) + PART_LEN > from).collect();
        self.touched.extend(touched);
    }

    fn lose(&mut self) {
        self.touch(0, usize::MAX);
        self.is_there = false;
    }
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.below(end.max(1) as u64)).expect("small")
}

fn random(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(what)
}

fn overwrite(rng: &mut Rng, held: &mut Held, path: &Path) {
    let offset = below(rng, held.len);
    let len = (1 + below(rng, 200_000)).min(held.len - offset);
    let file = File::options().write(true).open(path).expect("there");
    file.write_all_at(&random(rng, len), offset as u64).expect("written");
    held.touch(offset, offset + len);
}

/// Does one thing to a file; says what.
fn harm(rng: &mut Rng, held: &mut Held) -> &'static str {
    let path = held.path.clone();
    let open = || File::options().write(true).open(&path).expect("there");
    match below(rng, 10) {
        0 => overwrite(rng, held, &path),
        1 => {
            open().write_all_at(&random(rng, 1000), held.len as u64).expect("written");
            return "append";
        }
        2 => {
            let len = below(rng, held.len);
            held.touch(len, usize::MAX);
            open().set_len(len as u64).expect("cut");
            held.len = len.max(1);
            return "truncate";
        }
        3 => {
            held.lose();
            fs::remove_file(&path).expect("there");
            return "delete";
        }
        4 => {
            held.lose();
            let other = beside(&path, "other");
            fs::write(&other, random(rng, held.len)).expect("written");
            fs::rename(other, &path).expect("renamed");
            return "replace";
        }
        5 => {
            held.lose();
            fs::rename(&path, beside(&path, "moved")).expect("renamed");
            return "move";
        }
        6 => {
            let link = beside(&path, "link");
            let _ = fs::remove_file(&link);
            fs::hard_link(&path, &link).expect("linked");
            overwrite(rng, held, &link);
            return "edit by a hard link";
        }
        7 => {
            held.lose();
            let real = beside(&path, "real");
            fs::rename(&path, &real).expect("renamed");
            symlink(real, &path).expect("linked");
            return "symlink";
        }
        8 => {
            open().set_modified(UNIX_EPOCH).expect("touched");
            return "touch";
        }
        _ => {
            let modified = fs::metadata(&path).and_then(|it| it.modified()).expect("there");
            overwrite(rng, held, &path);
            open().set_modified(modified).expect("touched");
            return "edit under the old time";
        }
    }
    "edit"
}

fn author() -> Identity {
    Identity::new(&Secret::new([7; 32]), None)
}

fn options(dir: &Path, bootstrap: Option<SocketAddr>) -> Options {
    let mut options = Options::new(Home::open(dir).expect("the folder can be used"));
    options.listen = Some("127.0.0.1:0".parse().expect("an address"));
    options.bootstrap = bootstrap.into_iter().map(Into::into).collect();
    options
}

/// Files held by a home, and the entries of their channel.
fn hold(rng: &mut Rng, home: &Home, folder: &Path) -> (Vec<Held>, Vec<FileEntry>) {
    let hold = |number: usize, rng: &mut Rng| {
        let len = 1 + below(rng, 3 * PLAIN_LEN);
        let path = folder.join(format!("file{number}"));
        fs::write(&path, random(rng, len)).expect("written");
        let secret = author().content_secret();
        let extents =
            ingest_in_place(&path, &home.store, &secret, 2, &|_| {}, &AtomicBool::new(false)).expect("held");
        let blobs = data_blobs(&extents, &home.store, 100).expect("readable").expect("few");
        let entry = FileEntry {
            path: EntryPath::new(&format!("file{number}")).expect("a path"),
            size: len as u64,
            modified_ms: None,
            executable: false,
            reference: Reference::Extents(extents),
            blake3: None,
        };
        (Held { path, len, blobs, touched: BTreeSet::new(), is_there: true }, entry)
    };
    (0..FILES).map(|number| hold(number, rng)).unzip()
}

fn draft(home: &Home, files: Vec<FileEntry>) -> Command {
    let items = files.into_iter().map(Item::File).collect();
    let collections = vec![Collection { title: String::new(), items }];
    let manifest = Manifest { collections, ..Manifest::default() };
    let blobs = &mut AuthorBlobs { store: &home.store, secret: &author().content_secret() };
    let content = HeadContent::of(&manifest, Shape::REAL, false, true, blobs).expect("a channel");
    let draft = Draft { content, read_key: None, gateways: Vec::new() };
    Command::Publish { channel: author().public_key(), draft }
}

/// Takes the events of a node; nobody is banned.
fn drain(node: &Handle) {
    while let Some(event) = node.try_event() {
        assert!(!matches!(event, Event::Banned { .. }), "{event:?}");
    }
}

/// The untouched parts that a reader does not have. What it has is right.
fn missing(reader: &Handle, files: &[Held]) -> Vec<(usize, (usize, usize))> {
    let mut missing = Vec::new();
    let mut buf = vec![0; PART_LEN];
    for (number, held) in files.iter().enumerate() {
        for (blob, part) in held.parts() {
            let root = held.blobs[blob].0.root;
            let read = reader.store().read_part(&root, part, &mut buf).expect("readable");
            let is_right =
                read.as_ref().is_none_or(|values| values.root() == root && values.check(part, &buf));
            assert!(is_right, "something wrong arrived");
            if read.is_none() && !held.touched.contains(&(blob, part)) {
                missing.push((number, (blob, part)));
            }
        }
    }
    missing
}

async fn world(executor: &Executor, seed: u64) {
    let mut rng = Rng::new(std::array::from_fn(|n| seed.to_le_bytes()[n % 8]));
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("files");
    fs::create_dir(&folder).expect("a folder");
    let mut all = options(&dir.path().join("author"), None);
    let (files, entries) = hold(&mut rng, &all.home, &folder);
    let draft = draft(&all.home, entries);
    (all.identity, all.upload_bytes_per_sec) = (Some(author()), Some(UPLOAD_BYTES_PER_SEC));
    let boot = Runtime::start(executor, options(&dir.path().join("boot"), None)).await.expect("starts");
    all.bootstrap = boot.local_addr().into_iter().map(Into::into).collect();
    let publisher = Runtime::start(executor, all).await.expect("starts");
    publisher.command(draft).await.expect("it is published");
    let mut readers = Vec::new();
    for number in 0..READERS {
        let reader = options(&dir.path().join(format!("reader{number}")), boot.local_addr());
        let reader = Runtime::start(executor, reader).await.expect("starts");
        reader.command(Command::Follow { channel: author().public_key(), read_key: None });
        readers.push(reader);
    }
    let harms = 2 + below(&mut rng, 12);
    let harming = thread::spawn(move || harm_all(rng, files, harms));
    while !harming.is_finished() {
        readers.iter().chain([&publisher]).for_each(drain);
        Timer::after(Duration::from_millis(10)).await;
    }
    let (files, done) = harming.join().expect("nothing fails");
    let started = Instant::now();
    loop {
        readers.iter().chain([&publisher]).for_each(drain);
        let missing: Vec<_> = readers.iter().flat_map(|reader| missing(reader, &files)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "done: {done:?}; not served, though untouched: {missing:?}");
        Timer::after(Duration::from_millis(50)).await;
    }
    for node in readers.into_iter().chain([publisher, boot]) {
        node.shutdown().await;
    }
}

fn harm_all(mut rng: Rng, mut files: Vec<Held>, harms: usize) -> (Vec<Held>, Vec<(usize, &'static str)>) {
    let mut done = Vec::new();
    for _ in 0..harms {
        thread::sleep(Duration::from_millis(rng.below(120)));
        let number = below(&mut rng, FILES);
        if files[number].is_there {
            let what = harm(&mut rng, &mut files[number]);
            done.push((number, what));
        }
    }
    (files, done)
}

#[test]
fn whatever_is_done_to_held_files_while_they_are_fetched_nothing_wrong_leaves_and_the_rest_does() {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let given = std::env::var("HELD_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let first = given.unwrap_or(u64::try_from(time % 1_000_000).expect("small"));
    let (started, mut worlds) = (Instant::now(), 0);
    while worlds == 0 || (given.is_none() && started.elapsed() < TIME) {
        let seed = first + worlds;
        println!("HELD_SEED={seed}");
        let executor = Executor::default();
        smol::block_on(executor.run(world(&executor, seed)));
        worlds += 1;
    }
    println!("{worlds} worlds from seed {first} on");
}
