//! One script, played by the simulator and by the real runtime over loopback: the same events in the same order of
//! dependence.
//!
//! An event *depends* on another where no node may report it without that one having happened before ([`depends`]). Two
//! runs are the same where each node reports the same events in each step of the script, and in both runs no event comes
//! before what it depends on. Which of two events comes first that do not depend on each other is chance, and so are
//! times, connections, and what a node says again of a version after a restart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::support::{MIB, PATIENCE, random_bytes};
use futures_lite::future;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{Collection, EntryPath, FileEntry, HeadContent, Item, Manifest, Reference};
use megatorrent_core::node::{Command, Draft, Event};
use megatorrent_core::tree::Shape;
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::{AuthorBlobs, ingest};
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use megatorrent_sim::{DhtConfig, HostConfig, HostId, World, WorldConfig};
use smol::{LocalExecutor, Task};
use tempfile::TempDir;

/// Who takes part. In both runtimes a further node begins the DHT and knows no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Author,
    A,
    B,
    C,
}

/// What happens in a script, one after the other.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A node starts, on what it had stored if it ran before.
    Start(Who),
    Stop(Who),
    /// It follows the author's channel.
    Follow(Who),
    /// The author puts a version onto the DHT: the first of [`files`], so many.
    Publish {
        files: usize,
    },
    /// A node comes to have all of that version.
    Completes(Who, Version),
}

/// The author's first version is 1.
type Version = usize;

/// Steps: no event of a later one may happen in an earlier one.
const SCRIPT: [&[Act]; 4] = [
    &[
        Act::Start(Who::Author),
        Act::Publish { files: 1 },
        Act::Start(Who::A),
        Act::Start(Who::B),
        Act::Follow(Who::A),
        Act::Follow(Who::B),
        Act::Completes(Who::A, 1),
        Act::Completes(Who::B, 1),
    ],
    &[Act::Stop(Who::A), Act::Publish { files: 3 }, Act::Completes(Who::B, 2)],
    &[Act::Start(Who::A), Act::Completes(Who::A, 2)],
    &[Act::Stop(Who::Author), Act::Start(Who::C), Act::Follow(Who::C), Act::Completes(Who::C, 2)],
];

fn identity_seed() -> Secret {
    Secret::new([7; 32])
}

fn channel() -> PublicKey {
    Identity::new(&identity_seed(), None).public_key()
}

/// The files of the channel's last version: a tree of several blobs, a blob, and an empty one.
fn files() -> [(&'static str, Vec<u8>); 3] {
    [("film", random_bytes(1, 3 * MIB + 1)), ("note", random_bytes(2, 100)), ("empty", Vec::new())]
}

/// An event that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Head,
    Manifest,
    File(usize),
    Complete,
}

type Happened = (Who, Version, Kind);

/// Whether `later` depends on `earlier`.
fn depends(later: Happened, earlier: Happened) -> bool {
    let ((node, version, kind), (other, other_version, other_kind)) = (later, earlier);
    if node != other {
        // Nobody has a head that the author has not made.
        return version == other_version && other == Who::Author && other_kind == Kind::Head;
    }
    if version != other_version {
        // A node goes from version to version.
        return version > other_version && kind == Kind::Head && other_kind == Kind::Head;
    }
    match kind {
        Kind::Head => false,
        Kind::Manifest => other_kind == Kind::Head,
        Kind::File(_) => other_kind == Kind::Manifest,
        Kind::Complete => matches!(other_kind, Kind::Manifest | Kind::File(_)),
    }
}

/// A runtime that plays the script.
trait Stage {
    async fn act(&mut self, act: Act);
    /// All events so far, in order.
    fn news(&self) -> Vec<(Who, Event)>;
}

/// What a stage's run amounted to: of each step, what happened for the first time, in order.
async fn play(stage: &mut impl Stage) -> Vec<Vec<Happened>> {
    let (mut steps, mut seen) = (Vec::new(), BTreeSet::new());
    for acts in SCRIPT {
        for act in acts {
            stage.act(*act).await;
        }
        steps.push(happened(&stage.news()).into_iter().filter(|event| seen.insert(*event)).collect());
    }
    steps
}

fn happened(news: &[(Who, Event)]) -> Vec<Happened> {
    let sequence_of = |event: &Event| match event {
        Event::Head { sequence, .. } => Some((*sequence, Kind::Head)),
        Event::Manifest { sequence, .. } => Some((*sequence, Kind::Manifest)),
        Event::FileComplete { sequence, file, .. } => Some((*sequence, Kind::File(*file))),
        Event::Complete { sequence, .. } => Some((*sequence, Kind::Complete)),
        // The DHT may not know the head yet, and connections come and go.
        Event::HeadNotFound { .. }
        | Event::Connected { .. }
        | Event::Disconnected { .. }
        | Event::DialFailed { .. } => None,
        trouble => panic!("nobody lies and nothing fails here: {trouble:?}"),
    };
    let sequences: BTreeSet<u64> =
        news.iter().filter_map(|(_, event)| sequence_of(event)).map(|(sequence, _)| sequence).collect();
    let version: BTreeMap<u64, Version> = sequences.into_iter().zip(1..).collect();
    news.iter()
        .filter_map(|(who, event)| {
            sequence_of(event).map(|(sequence, kind)| (*who, version[&sequence], kind))
        })
        .collect()
}

/// Whether a node has told that it has all of a version.
fn has_completed(news: &[(Who, Event)], who: Who, version: Version) -> bool {
    happened(news).contains(&(who, version, Kind::Complete))
}

// --- virtual time -----------------------------------------------------------------------------------------------

struct Simulated {
    world: World,
    hosts: BTreeMap<Who, HostId>,
}

/// The longest that the world's clock may run for one act.
const LIMIT: Duration = Duration::from_mins(10);

impl Simulated {
    fn new(seed: u64) -> Self {
        // On loopback no packet is lost either, so that nobody learns of an old version after a newer one was put.
        let dht = DhtConfig { loss_percent: 0, ..DhtConfig::default() };
        Self {
            world: World::new(seed, WorldConfig { dht, ..WorldConfig::default() }),
            hosts: BTreeMap::new(),
        }
    }

    fn run_until(&mut self, what: &str, is_reached: impl Fn(&[(Who, Event)]) -> bool) {
        let hosts = &self.hosts;
        let reached = self.world.run_until(LIMIT, |world| is_reached(&news_of(world, hosts)));
        assert!(reached, "{what}: {:?}", happened(&self.news()));
    }
}

fn news_of(world: &World, hosts: &BTreeMap<Who, HostId>) -> Vec<(Who, Event)> {
    let all =
        hosts.iter().flat_map(|(who, host)| world.events(*host).map(move |(at, event)| (at, *who, event)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(at, ..)| **at);
    all.into_iter().map(|(_, who, event)| (who, event.clone())).collect()
}

impl Stage for Simulated {
    async fn act(&mut self, act: Act) {
        match act {
            Act::Start(who) if self.hosts.contains_key(&who) => self.world.start(self.hosts[&who]),
            Act::Start(who) => {
                let identity_seed = (who == Who::Author).then(identity_seed);
                let host = self.world.add_host(HostConfig { identity_seed, ..HostConfig::default() });
                self.hosts.insert(who, host);
            }
            Act::Stop(who) => self.world.crash(self.hosts[&who]),
            Act::Follow(who) => self.world.follow(self.hosts[&who], channel(), None),
            Act::Publish { files: count } => {
                let author = self.hosts[&Who::Author];
                let before = self.world.publications(author);
                let entries: Vec<FileEntry> = files()[..count]
                    .iter()
                    .map(|(name, bytes)| self.world.ingest(author, name, bytes))
                    .collect();
                self.world.publish(author, "Channel", &entries, false);
                let reached = self.world.run_until(LIMIT, |world| world.publications(author) > before);
                assert!(reached, "published: {:?}", happened(&self.news()));
            }
            Act::Completes(who, version) => {
                self.run_until("complete", |news| has_completed(news, who, version));
            }
        }
    }

    fn news(&self) -> Vec<(Who, Event)> {
        news_of(&self.world, &self.hosts)
    }
}

// --- real sockets -----------------------------------------------------------------------------------------------

struct Real {
    executor: Rc<LocalExecutor<'static>>,
    folder: TempDir,
    bootstrap: Handle,
    nodes: BTreeMap<Who, (Handle, Task<()>)>,
    news: Rc<RefCell<Vec<(Who, Event)>>>,
}

impl Real {
    async fn new(executor: &Rc<LocalExecutor<'static>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = loopback(Home::open(&folder.path().join("bootstrap")).unwrap());
        let bootstrap = Runtime::start(executor, options).await.unwrap();
        let (executor, nodes, news) = (Rc::clone(executor), BTreeMap::new(), Rc::default());
        Self { executor, folder, bootstrap, nodes, news }
    }

    async fn start(&mut self, who: Who) {
        let mut options = loopback(Home::open(&self.folder.path().join(format!("{who:?}"))).unwrap());
        options.identity = (who == Who::Author).then(|| Identity::new(&identity_seed(), None));
        options.bootstrap = vec![self.bootstrap.local_addr().unwrap().into()];
        let node = Runtime::start(&self.executor, options).await.unwrap();
        let (source, log) = (node.clone(), Rc::clone(&self.news));
        let listener = self.executor.spawn(async move {
            loop {
                let event = source.next_event().await;
                log.borrow_mut().push((who, event));
            }
        });
        self.nodes.insert(who, (node, listener));
    }

    async fn stop(&mut self, who: Who) {
        let (node, listener) = self.nodes.remove(&who).unwrap();
        node.shutdown().await;
        listener.cancel().await;
    }

    async fn wait_until(&self, what: &str, is_reached: impl Fn(&[(Who, Event)]) -> bool) {
        let reached = async {
            while !is_reached(&self.news.borrow()) {
                // Each event is taken by a task that wakes nobody here.
                smol::Timer::after(Duration::from_millis(5)).await;
            }
        };
        let late = async {
            smol::Timer::after(PATIENCE).await;
            panic!("{what}: {:?}", happened(&self.news.borrow()));
        };
        future::or(reached, late).await;
    }

    async fn publish(&self, count: usize) {
        let (author, _) = &self.nodes[&Who::Author];
        let secret = Identity::new(&identity_seed(), None).content_secret();
        let store = |bytes: &[u8]| {
            ingest(bytes, author.store(), &secret, 1, &|_| {}, &AtomicBool::new(false)).unwrap()
        };
        let blobs = &mut AuthorBlobs { store: author.store(), secret: &secret };
        let files = files();
        let items = files[..count].iter().map(|(name, bytes)| {
            Item::File(FileEntry {
                path: EntryPath::new(name).unwrap(),
                size: bytes.len() as u64,
                modified_ms: None,
                executable: false,
                reference: Reference::Extents(store(bytes)),
                blake3: None,
            })
        });
        let collections = vec![Collection { title: "Channel".into(), items: items.collect() }];
        let manifest = Manifest { title: "Channel".into(), collections, ..Manifest::default() };
        let content = HeadContent::of(&manifest, Shape::REAL, false, true, blobs).unwrap();
        author.dht_joined().await;
        let draft = Draft { content, read_key: None, gateways: Vec::new() };
        author.command(Command::Publish { channel: channel(), draft }).await.unwrap();
    }
}

fn loopback(home: Home) -> Options {
    let mut options = Options::new(home);
    options.listen = Some("127.0.0.1:0".parse().unwrap());
    options
}

impl Stage for Real {
    async fn act(&mut self, act: Act) {
        match act {
            Act::Start(who) => self.start(who).await,
            Act::Stop(who) => self.stop(who).await,
            Act::Follow(who) => {
                self.nodes[&who].0.command(Command::Follow { channel: channel(), read_key: None });
            }
            Act::Publish { files } => self.publish(files).await,
            Act::Completes(who, version) => {
                self.wait_until("complete", |news| has_completed(news, who, version)).await;
            }
        }
    }

    fn news(&self) -> Vec<(Who, Event)> {
        self.news.borrow().clone()
    }
}

// --- both -------------------------------------------------------------------------------------------------------

/// Fails where an event comes before one that it depends on.
fn assert_in_order(steps: &[Vec<Happened>]) {
    let all = steps.concat();
    for (at, event) in all.iter().enumerate() {
        let early = all[at + 1..].iter().find(|later| depends(*event, **later));
        assert!(early.is_none(), "{event:?} came before {early:?}, on which it depends: {all:?}");
    }
}

/// Of each step and node, what happened, in an order in which nothing comes before what it depends on.
fn sorted(mut steps: Vec<Vec<Happened>>) -> Vec<Vec<Happened>> {
    for step in &mut steps {
        step.sort_unstable();
    }
    steps
}

#[test]
fn the_simulator_and_the_real_runtime_tell_the_same_story() {
    let mut simulated = Simulated::new(4);
    let executor = Rc::new(LocalExecutor::new());
    let (virtually, really) = smol::block_on(executor.run(async {
        let virtually = play(&mut simulated).await;
        let mut real = Real::new(&executor).await;
        let really = play(&mut real).await;
        for who in [Who::A, Who::B, Who::C] {
            real.stop(who).await;
        }
        real.bootstrap.shutdown().await;
        (virtually, really)
    }));
    assert_in_order(&virtually);
    assert_in_order(&really);
    let (virtually, really) = (sorted(virtually), sorted(really));
    assert_eq!(virtually, really);

    // What the script says, so that two silent runtimes do not count as one that works.
    let of = |who, version, files| {
        let files = (0..files).map(Kind::File);
        let kinds = [Kind::Head, Kind::Manifest].into_iter().chain(files).chain([Kind::Complete]);
        kinds.map(move |kind| (who, version, kind)).collect::<Vec<Happened>>()
    };
    let step = |number: usize, who| -> Vec<Happened> {
        really[number].iter().filter(|(node, ..)| *node == who).copied().collect()
    };
    assert_eq!(step(0, Who::A), of(Who::A, 1, 1));
    assert_eq!(step(0, Who::B), of(Who::B, 1, 1));
    assert_eq!((step(1, Who::A), step(1, Who::B)), (vec![], of(Who::B, 2, 3)));
    assert_eq!(step(2, Who::A), of(Who::A, 2, 3));
    assert_eq!(step(3, Who::C), of(Who::C, 2, 3));
    assert!(step(1, Who::Author).contains(&(Who::Author, 2, Kind::Head)));
}

#[test]
fn an_event_before_its_reason_is_seen() {
    let story = [vec![
        (Who::Author, 1, Kind::Head),
        (Who::A, 1, Kind::Head),
        (Who::A, 1, Kind::Manifest),
        (Who::A, 1, Kind::File(0)),
        (Who::A, 1, Kind::Complete),
    ]];
    assert_in_order(&story);
    for at in 1..story[0].len() {
        let mut wrong = story.clone();
        wrong[0].swap(at - 1, at);
        assert!(std::panic::catch_unwind(|| assert_in_order(&wrong)).is_err(), "{wrong:?}");
    }
}
