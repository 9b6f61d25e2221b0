//! Channels whose seeds are gone cost the live ones nothing, over real sockets, disk and DHT on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::{FutureExt, future};
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{Collection, EntryPath, FileEntry, HeadContent, Item, Manifest, Reference};
use megatorrent_core::node::{Command, Draft, Event, Target};
use megatorrent_core::tree::Shape;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::home::{self, Home};
use megatorrent_runtime_smol::ingest::{AuthorBlobs, ingest};
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use smol::LocalExecutor;
use tempfile::TempDir;

type Executor = Rc<LocalExecutor<'static>>;

const LOOPBACK: &str = "127.0.0.1:0";

fn run<F: Future<Output = ()>>(patience: Duration, test: impl FnOnce(Executor) -> F) {
    let executor = Rc::new(LocalExecutor::new());
    let late = async {
        Timer::after(patience).await;
        panic!("the test takes too long");
    };
    smol::block_on(executor.run(test(Rc::clone(&executor)).or(late)));
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn start(executor: &Executor, dir: &Path, boot: Option<SocketAddr>) -> Handle {
    home::make(dir).expect("it is a node's from here on");
    let mut options = Options::new(Home::open(dir).expect("the folder can be used"));
    options.listen = Some(LOOPBACK.parse().expect("an address"));
    options.bootstrap = boot.into_iter().map(Into::into).collect();
    Runtime::start(executor, options).await.expect("the node starts")
}

fn addr(node: &Handle) -> SocketAddr {
    node.local_addr().expect("it listens")
}

async fn wait_for(node: &Handle, wanted: impl Fn(&Event) -> bool) {
    while !wanted(&node.next_event().await) {}
}

fn identity(number: u16) -> Identity {
    let mut secret = [7; 32];
    secret[..2].copy_from_slice(&number.to_be_bytes());
    Identity::new(&Secret::new(secret), None)
}

fn follow(channel: PublicKey) -> Command {
    Command::Follow { channel, read_key: None }
}

/// Starts an author's node, which publishes a file of so many blobs.
async fn author(
    executor: &Executor,
    dir: &Path,
    boot: SocketAddr,
    (number, blobs): (u16, usize),
    upload_bytes_per_sec: Option<u64>,
) -> Handle {
    home::make(dir).expect("it is a node's from here on");
    let mut options = Options::new(Home::open(dir).expect("the folder can be used"));
    let content: Vec<u8> =
        (0..blobs * PLAIN_LEN).map(|i| (i % 251 + i / PLAIN_LEN * 7).to_le_bytes()[0]).collect();
    let secret = identity(number).content_secret();
    let extents = ingest(&*content, &options.home.store, &secret, 2, &|_| {}, &AtomicBool::new(false));
    let path = EntryPath::new("file").expect("a path");
    let file = FileEntry {
        path,
        size: content.len() as u64,
        modified_ms: None,
        executable: false,
        reference: Reference::Extents(extents.expect("stored")),
        blake3: None,
    };
    let items = vec![Item::File(file)];
    let collections = vec![Collection { title: String::new(), items }];
    let manifest = Manifest { collections, ..Manifest::default() };
    let blobs = &mut AuthorBlobs { store: &options.home.store, secret: &secret };
    let content = HeadContent::of(&manifest, Shape::REAL, false, true, blobs).expect("a channel");
    options.listen = Some(LOOPBACK.parse().expect("an address"));
    options.bootstrap = vec![boot.into()];
    options.identity = Some(identity(number));
    options.upload_bytes_per_sec = upload_bytes_per_sec;
    // A gone server would cost each look-up of the others a time-out, which on the public network few nodes are.
    options.dht = DhtMode::Client;
    let node = Runtime::start(executor, options).await.expect("the node starts");
    node.command(follow(identity(number).public_key()));
    let draft = Draft { content, read_key: None, gateways: Vec::new() };
    let channel = identity(number).public_key();
    node.command(Command::Publish { channel, draft }).await.expect("it is published");
    node
}

/// How long a node takes from following a channel until it has all of it.
async fn time_to_follow(node: &Handle, number: u16) -> Duration {
    let (began, channel) = (Instant::now(), identity(number).public_key());
    node.command(follow(channel));
    let whole = Target::Channel(channel);
    wait_for(node, |event| matches!(event, Event::Complete { target, .. } if *target == whole)).await;
    began.elapsed()
}

fn is_complete(node: &Handle, number: u16) -> bool {
    node.channel_status(&identity(number).public_key()).is_some_and(|status| status.complete)
}

/// A node follows channels of `blobs` blobs whose authors close while it fetches, and then one of 8 blobs, which takes little longer
/// than alone.
fn is_in_time_beside(dead: u16, blobs: usize, patience: Duration) {
    run(patience, async move |executor| {
        let dirs: [TempDir; 4] = std::array::from_fn(|_| folder());
        let boot = start(&executor, dirs[0].path(), None).await;
        let at = addr(&boot);
        let rate = Some(4 << 20);
        let live = author(&executor, dirs[1].path(), at, (0, 8), rate).await;
        let other = start(&executor, dirs[2].path(), Some(at)).await;
        let alone = time_to_follow(&other, 0).await;
        other.shutdown().await;

        let follower = start(&executor, dirs[3].path(), Some(at)).await;
        let mut authors = Vec::new();
        for number in 1..=dead {
            let dir = folder();
            authors.push((number, author(&executor, dir.path(), at, (number, blobs), rate).await, dir));
        }
        for (number, ..) in &authors {
            follower.command(follow(identity(*number).public_key()));
        }
        for (number, author, _) in &authors {
            let channel = identity(*number).public_key();
            while follower.channel_status(&channel).is_none_or(|status| status.blobs_stored < 4) {
                future::yield_now().await;
            }
            author.shutdown().await;
        }
        let took = time_to_follow(&follower, 0).await;
        println!("{took:?} beside {dead} channels, {alone:?} alone");
        assert!(took <= alone * 6 / 5 + Duration::from_millis(500), "{took:?} instead of {alone:?}");
        assert!((1..=dead).all(|number| !is_complete(&follower, number)), "the others are dead");
        for node in [boot, live, follower] {
            node.shutdown().await;
        }
    });
}

#[test]
fn where_the_seeds_of_four_channels_are_gone_halfway_a_fifth_is_in_time() {
    is_in_time_beside(4, 64, Duration::from_mins(2));
}

#[test]
#[ignore = "takes 10 GiB of disk; scripts/soak runs it"]
fn where_the_seeds_of_eight_channels_of_over_a_gibibyte_are_gone_a_ninth_is_in_time() {
    is_in_time_beside(8, 1100, Duration::from_mins(10));
}

/// Bytes of memory that this process has had at most.
fn memory_max() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

#[test]
#[ignore = "takes 10 min; scripts/soak runs it"]
fn a_thousand_channels_of_which_nine_hundred_are_dead_stay_below_128_mib() {
    run(Duration::from_hours(1), async |executor| {
        let (boot_dir, holder_dir, follower_dir) = (folder(), folder(), folder());
        let boot = start(&executor, boot_dir.path(), None).await;
        let at = addr(&boot);
        // Of a hundred channels somebody else has all; of another twenty there is a head.
        let holder = start(&executor, holder_dir.path(), Some(at)).await;
        for first in (0..120).step_by(10) {
            let mut authors = Vec::new();
            for number in first..first + 10 {
                let dir = folder();
                authors.push((author(&executor, dir.path(), at, (number, 1), None).await, dir));
                if number < 100 {
                    holder.command(follow(identity(number).public_key()));
                }
            }
            let live = first.min(90)..(first + 10).min(100);
            while !live.clone().all(|number| is_complete(&holder, number)) {
                Timer::after(Duration::from_millis(100)).await;
            }
            for (author, _dir) in authors {
                author.shutdown().await;
            }
        }
        let follower = start(&executor, follower_dir.path(), Some(at)).await;
        (0..1000).for_each(|number| drop(follower.command(follow(identity(number).public_key()))));
        while !(0..100).all(|number| is_complete(&follower, number)) {
            Timer::after(Duration::from_secs(1)).await;
        }
        Timer::after(Duration::from_mins(2)).await;
        let mib = memory_max() >> 20;
        assert!(mib < 128, "{mib} MiB of all three nodes, and their authors before");
        for node in [boot, holder, follower] {
            node.shutdown().await;
        }
    });
}
