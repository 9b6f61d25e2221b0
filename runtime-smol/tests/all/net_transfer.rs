//! Whole nodes over real sockets, disk and DHT on loopback: what goes in at one comes out at another.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_io::Timer;
use futures_lite::{FutureExt, future};
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{Collection, EntryPath, FileEntry, HeadContent, Item, Manifest, Reference};
use megatorrent_core::node::{Answer, Command, Draft, Event, Takers, Target};
use megatorrent_core::parts::PART_LEN;
use megatorrent_core::tree::Shape;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::export::{Copies, Export, Exported, export};
use megatorrent_runtime_smol::home::{self, Home, load_dht_state};
use megatorrent_runtime_smol::ingest::{AuthorBlobs, ingest};
use megatorrent_runtime_smol::losses::Loss;
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use smol::LocalExecutor;
use tempfile::TempDir;

type Executor = Rc<LocalExecutor<'static>>;

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOPBACK: &str = "127.0.0.1:0";

fn run<F: Future<Output = ()>>(test: impl FnOnce(Executor) -> F) {
    let executor = Rc::new(LocalExecutor::new());
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("the test takes too long");
    };
    smol::block_on(executor.run(test(Rc::clone(&executor)).or(late)));
}

fn options(dir: &Path, bootstrap: Option<SocketAddr>) -> Options {
    home::make(dir).expect("it is a node's from here on");
    let mut options = Options::new(Home::open(dir).expect("the folder can be used"));
    options.listen = Some(LOOPBACK.parse().expect("an address"));
    options.bootstrap = bootstrap.into_iter().map(Into::into).collect();
    options
}

async fn start(executor: &Executor, options: Options) -> Handle {
    Runtime::start(executor, options).await.expect("the node starts")
}

fn addr(node: &Handle) -> SocketAddr {
    node.local_addr().expect("it listens")
}

async fn wait_for(node: &Handle, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    loop {
        let event = node.next_event().await;
        if wanted(&event) {
            return event;
        }
        assert!(!matches!(event, Event::Banned { .. }), "{event:?}");
    }
}

fn author() -> Identity {
    Identity::new(&Secret::new([7; 32]), None)
}

/// Bytes that no blob repeats.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251 + i / PLAIN_LEN * 7).to_le_bytes()[0]).collect()
}

/// Stores `content` in `home` and describes it.
fn add_file(home: &Home, name: &str, content: &[u8]) -> FileEntry {
    let secret = author().content_secret();
    let extents = ingest(content, &home.store, &secret, 2, &|_| {}, &AtomicBool::new(false)).expect("stored");
    FileEntry {
        path: EntryPath::new(name).expect("a path"),
        size: content.len() as u64,
        modified_ms: None,
        executable: false,
        reference: Reference::Extents(extents),
        blake3: None,
    }
}

fn draft(store: &Store, files: &[FileEntry]) -> Command {
    let items = files.iter().cloned().map(Item::File).collect();
    let collections = vec![Collection { title: String::new(), items }];
    let manifest = Manifest { collections, ..Manifest::default() };
    let blobs = &mut AuthorBlobs { store, secret: &author().content_secret() };
    let content = HeadContent::of(&manifest, Shape::REAL, false, true, blobs).expect("a channel");
    let draft = Draft { content, read_key: None, gateways: Vec::new() };
    Command::Publish { channel: author().public_key(), draft }
}

fn follow(channel: PublicKey) -> Command {
    Command::Follow { channel, read_key: None }
}

fn exported(node: &Handle, entry: &FileEntry, out: &Path) -> Vec<u8> {
    let request = Export {
        entry,
        packs: &BTreeMap::new(),
        store: node.store(),
        state: node.state(),
        out_dir: out,
        workers: 2,
        copies: Copies::None,
        topic: None,
        restore: false,
        sync: false,
    };
    assert_eq!(export(&request, &|_| {}, &AtomicBool::new(false)).expect("whole"), Exported::Written);
    std::fs::read(out.join(entry.path.as_str())).expect("written")
}

#[test]
fn a_channel_reaches_subscribers_also_when_its_author_has_gone() {
    run(async |executor| {
        let dirs: [TempDir; 5] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
        let boot = start(&executor, options(dirs[0].path(), None)).await;
        let bytes = content(5 * PLAIN_LEN + 1);
        let channel = author().public_key();

        let mut author_options = options(dirs[1].path(), Some(addr(&boot)));
        let entry = add_file(&author_options.home, "folder/file", &bytes);
        author_options.identity = Some(author());
        let publisher = start(&executor, author_options).await;
        assert_eq!(
            publisher.dht_addr().map(|a| a.port()),
            Some(addr(&publisher).port()),
            "one port number for both"
        );
        publisher.command(follow(channel));
        let answer = publisher.command(draft(publisher.store(), std::slice::from_ref(&entry))).await;
        let Ok(Answer::Published { sequence: newest, takers: Takers::DhtNodes(1..), .. }) = answer else {
            panic!("{answer:?}")
        };

        let complete = |event: &Event| matches!(event, Event::Complete { target, sequence } if *target == Target::Channel(channel) && *sequence == newest);
        let first = start(&executor, options(dirs[2].path(), Some(addr(&boot)))).await;
        first.command(follow(channel));
        wait_for(&first, complete).await;
        assert_eq!(exported(&first, &entry, &dirs[4].path().join("first")), bytes);

        publisher.shutdown().await;
        drop(publisher);
        let second = start(&executor, options(dirs[3].path(), Some(addr(&boot)))).await;
        second.command(follow(channel));
        wait_for(&second, complete).await;
        assert_eq!(exported(&second, &entry, &dirs[4].path().join("second")), bytes);
        let status = second.channel_status(&channel).expect("followed");
        assert!(status.complete && status.blobs_stored == status.blobs_total, "{status:?}");

        for node in [boot, first, second] {
            node.shutdown().await;
        }
        assert!(!load_dht_state(dirs[2].path()).is_empty(), "the DHT's nodes are kept for the next start");
    });
}

/// The author's disk is away while a reader comes, with and without an empty mount point in its place, and the author's node stays.
#[test]
fn an_author_whose_disk_was_away_serves_on_without_a_restart() {
    run(async |executor| {
        let dirs: [TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
        let boot = start(&executor, options(dirs[0].path(), None)).await;
        let (home, unplugged) = (dirs[1].path().join("home"), dirs[1].path().join("unplugged"));
        let mut author_options = options(&home, Some(addr(&boot)));
        let entry = add_file(&author_options.home, "file", &content(3 * PLAIN_LEN));
        author_options.identity = Some(author());
        let publisher = start(&executor, author_options).await;
        let channel = author().public_key();
        publisher.command(follow(channel));
        let answer = publisher.command(draft(publisher.store(), std::slice::from_ref(&entry))).await;
        answer.expect("it is published");

        std::fs::rename(&home, &unplugged).expect("renamed");
        std::fs::create_dir(&home).expect("a mount point");
        let subscriber = start(&executor, options(dirs[2].path(), Some(addr(&boot)))).await;
        subscriber.command(follow(channel));
        let lost = publisher.next_loss().await;
        assert!(lost.loss == Loss::FolderAbsent && lost.path == home && !lost.is_back, "{lost}");
        Timer::after(Duration::from_secs(12)).await;
        assert_eq!(std::fs::read_dir(&home).expect("there").count(), 0, "nothing is made below it");
        std::fs::remove_dir(&home).expect("removed");
        std::fs::rename(&unplugged, &home).expect("renamed");
        let back = publisher.next_loss().await;
        assert!(back.is_back && back.path == home, "{back}");
        let asked = std::time::Instant::now();
        wait_for(&subscriber, |event| matches!(event, Event::Complete { .. })).await;
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
        assert_eq!(exported(&subscriber, &entry, &dirs[2].path().join("out")), content(3 * PLAIN_LEN));
        assert_eq!(publisher.status().bytes_received, 0, "nothing was fetched meanwhile");
        for node in [boot, publisher, subscriber] {
            node.shutdown().await;
        }
    });
}

#[test]
fn a_subscription_survives_a_restart() {
    run(async |executor| {
        let dirs: [TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
        let boot = start(&executor, options(dirs[0].path(), None)).await;
        let mut author_options = options(dirs[1].path(), Some(addr(&boot)));
        let old = add_file(&author_options.home, "file", &content(10));
        let new = add_file(&author_options.home, "file", &content(20));
        author_options.identity = Some(author());
        let publisher = start(&executor, author_options).await;
        let channel = author().public_key();
        publisher.command(follow(channel));
        publisher.command(draft(publisher.store(), &[old])).await.expect("it is published");

        let subscriber = start(&executor, options(dirs[2].path(), Some(addr(&boot)))).await;
        subscriber.command(follow(channel));
        wait_for(&subscriber, |event| matches!(event, Event::Complete { .. })).await;
        subscriber.shutdown().await;
        drop(subscriber);

        let answer = publisher.command(draft(publisher.store(), std::slice::from_ref(&new))).await;
        let Ok(Answer::Published { sequence: newest, .. }) = answer else { panic!("{answer:?}") };
        let subscriber = start(&executor, options(dirs[2].path(), Some(addr(&boot)))).await;
        assert_eq!(subscriber.channels(), [channel]);
        let complete =
            |event: &Event| matches!(event, Event::Complete { sequence, .. } if *sequence == newest);
        wait_for(&subscriber, complete).await;
        assert_eq!(exported(&subscriber, &new, &dirs[2].path().join("out")), content(20));
        for node in [boot, publisher, subscriber] {
            node.shutdown().await;
        }
    });
}

#[test]
fn a_download_that_was_broken_off_goes_on_from_what_it_has() {
    run(async |executor| {
        let dirs: [TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a folder"));
        let boot = start(&executor, options(dirs[0].path(), None)).await;
        let bytes = content(40 * PLAIN_LEN);
        let mut author_options = options(dirs[1].path(), Some(addr(&boot)));
        let entry = add_file(&author_options.home, "file", &bytes);
        author_options.identity = Some(author());
        let publisher = start(&executor, author_options).await;
        let channel = author().public_key();
        publisher.command(follow(channel));
        let answer = publisher.command(draft(publisher.store(), std::slice::from_ref(&entry))).await;
        answer.expect("it is published");

        let subscriber = start(&executor, options(dirs[2].path(), Some(addr(&boot)))).await;
        subscriber.command(follow(channel));
        while subscriber.status().bytes_received < 5 * PLAIN_LEN as u64 {
            future::yield_now().await;
        }
        subscriber.shutdown().await;
        let first_part = subscriber.status().bytes_received;
        let stored = subscriber.store().count().expect("listed");
        assert!(stored >= 5, "what was received is stored: {stored}");
        drop(subscriber);

        let subscriber = start(&executor, options(dirs[2].path(), Some(addr(&boot)))).await;
        wait_for(&subscriber, |event| matches!(event, Event::Complete { .. })).await;
        let second_part = subscriber.status().bytes_received;
        // 40 blobs of data, and the parts of an index blob that are in use.
        let parts = (first_part + second_part) / PART_LEN as u64;
        assert!((640..=646).contains(&parts), "no part came twice: {parts}");
        assert_eq!(exported(&subscriber, &entry, &dirs[2].path().join("out")), bytes);
        for node in [boot, publisher, subscriber] {
            node.shutdown().await;
        }
    });
}

/// A connection of somebody who says nothing.
#[expect(clippy::disallowed_methods, reason = "another program's socket")]
fn stranger(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).expect("the listener takes it")
}

#[test]
fn idle_strangers_neither_stop_the_node_nor_fill_it() {
    run(async |executor| {
        let dir = tempfile::tempdir().expect("a folder");
        let mut options = options(dir.path(), None);
        options.dht = DhtMode::Off;
        let node = start(&executor, options).await;
        assert_eq!((node.dht_addr(), node.dht_nodes()), (None, 0));
        let to = addr(&node);
        let strangers = smol::unblock(move || (0..200).map(|_| stranger(to)).collect::<Vec<_>>());
        let strangers = strangers.await;
        while node.status().inbound == 0 {
            Timer::after(Duration::from_millis(5)).await;
        }
        drop(strangers);
        while node.status().inbound > 0 {
            Timer::after(Duration::from_millis(5)).await;
        }
        node.shutdown().await;
        drop(node);
    });
}

#[test]
fn a_node_that_was_shut_down_leaves_its_folder_and_its_ports_free() {
    run(async |executor| {
        let dir = tempfile::tempdir().expect("a folder");
        let mut listen = None;
        for _ in 0..3 {
            let mut options = options(dir.path(), None);
            // An address of its own, where no other test can take the port in between.
            options.listen = Some(listen.unwrap_or("127.0.0.78:0".parse().expect("an address")));
            let node = start(&executor, options).await;
            listen = node.local_addr();
            let stranger = stranger(addr(&node));
            node.shutdown().await;
            drop(stranger);
        }
    });
}
