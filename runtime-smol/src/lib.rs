//! Megatorrent's runtime on real sockets, disk and DHT: it carries what core decides.
//!
//! Goals: one thread for the network, with bytes going straight between sockets and core's buffers; a few threads for
//! the disk and for hashing; one for the DHT. Non-goals: any rule of the protocol.
//!
//! ```no_run
//! use std::{path::Path, rc::Rc};
//! use megatorrent_runtime_smol::{Options, Runtime, home::Home};
//!
//! let executor = Rc::new(smol::LocalExecutor::new());
//! smol::block_on(executor.run(async {
//!     let mut options = Options::new(Home::open(Path::new("data"))?);
//!     options.listen = Some("127.0.0.1:0".parse()?);
//!     let node = Runtime::start(&executor, options).await?;
//!     println!("{:?}", node.next_event().await);
//!     node.shutdown().await;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! }))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Async;
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{CommandId, Secret, Topic};
use megatorrent_core::node::{
    Answer, BanStatus, BlobCell, Command, Config, Event, Input, Node, NodeStatus, PeerStatus, Refusal,
    Selection, TargetStatus,
};
use smol::LocalExecutor;
use zeroize::Zeroizing;

use crate::dht::{Dht, DhtMode, Plan, Unreachable};
use crate::driver::{Clock, Driver};
use crate::egress::Egress;
use crate::events::{News, Numbered};
use crate::home::Home;
use crate::jobs::Jobs;
use crate::losses::LossNews;
use crate::state::{State, StateError};
use crate::store::Store;

pub mod dht;
mod dht_own;
mod driver;
pub mod egress;
pub mod events;
pub mod export;
mod held;
pub mod home;
pub mod ingest;
mod jobs;
pub mod losses;
pub mod outputs;
mod signal;
pub mod state;
pub mod store;
pub mod survey;
pub mod verify;

/// A node that ran for less does not wait for its blobs to reach the disk when it ends ([`Store::sync`]): its user
/// waits, and all that is lost is a check of the blobs, should the machine go down.
const SYNC_AFTER: Duration = Duration::from_mins(10);

/// What a node is told at its start.
#[derive(Debug)]
pub struct Options {
    /// Where it keeps its blobs and its state.
    pub home: Home,
    /// The author's keys, where it publishes.
    pub identity: Option<Identity>,
    /// Where it listens; `None`: it only dials. Where that is one address, and not of loopback, dials go out from it and reach
    /// only what can be reached from it. Port 0: one is chosen, and with a DHT on the same port number, one that is free for
    /// both. `[::]` is every address, of IPv4 too, and of IPv4 alone where the machine has no IPv6.
    pub listen: Option<SocketAddr>,
    /// Whether and how it takes part in the DHT.
    pub dht: DhtMode,
    /// The DHT's UDP port; `None`: the number of the TCP port.
    pub dht_port: Option<u16>,
    /// Nodes to begin with: their UDP port is their DHT's, their TCP port takes peers.
    pub bootstrap: Vec<PeerAddr>,
    /// Whether it puts and looks up heads for peers that have no DHT, where it has one.
    pub gateway: bool,
    /// Bytes sent each second, over all connections to peers, at most; `None`: without a limit.
    pub upload_bytes_per_sec: Option<u64>,
    /// Bytes received each second, likewise.
    pub download_bytes_per_sec: Option<u64>,
    /// Whether it fetches the filling of blobs too, so that peers learn no lengths.
    pub takes_all: bool,
    /// What is fetched of channels, before anything is, where it is not everything.
    pub selections: Vec<(PublicKey, Selection)>,
}

impl Options {
    /// A node in `home` that listens nowhere and takes part in the DHT as it sees fit.
    pub fn new(home: Home) -> Self {
        Self {
            home,
            identity: None,
            listen: None,
            dht: DhtMode::Auto,
            dht_port: None,
            bootstrap: Vec::new(),
            gateway: false,
            upload_bytes_per_sec: None,
            download_bytes_per_sec: None,
            takes_all: false,
            selections: Vec::new(),
        }
    }
}

/// Why a node could not start.
#[derive(Debug)]
pub enum StartError {
    /// Its TCP address cannot be listened on.
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// Its UDP address cannot be used.
    DhtPort {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// Its state cannot be read.
    State(StateError),
    /// The system gives no randomness, no thread or no socket; what was asked for.
    System(&'static str, io::Error),
}

impl StartError {
    fn advice(error: &io::Error) -> &'static str {
        match error.kind() {
            io::ErrorKind::AddrInUse => "another program has this port: stop it or choose another port",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address: choose one that it has"
            }
            _ => "choose another address or port",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { addr, error } => {
                write!(f, "cannot listen on TCP {addr}: {error}; {}", Self::advice(error))
            }
            Self::DhtPort { addr, error } => {
                write!(
                    f,
                    "cannot use UDP {addr} for the DHT: {error}; {}, or do without the DHT",
                    Self::advice(error)
                )
            }
            Self::State(error) => error.fmt(f),
            Self::System(what, error) => {
                write!(f, "the system gives no {what}: {error}; close other programs or raise its limits")
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { error, .. } | Self::DhtPort { error, .. } | Self::System(_, error) => Some(error),
            Self::State(error) => Some(error),
        }
    }
}

/// Starts nodes.
#[derive(Debug)]
pub struct Runtime;

impl Runtime {
    /// Starts a node on `executor`, which the caller runs. When this returns, the node listens, and its DHT socket is
    /// bound unless a name has to be resolved first.
    pub async fn start(
        executor: &Rc<LocalExecutor<'static>>,
        options: Options,
    ) -> Result<Handle, StartError> {
        let Options {
            home: Home { dir, store, state },
            identity,
            listen,
            dht,
            dht_port,
            bootstrap,
            gateway,
            upload_bytes_per_sec,
            download_bytes_per_sec,
            takes_all,
            selections,
        } = options;
        let plan = Plan::new(dht, listen.map(|addr| addr.ip()), &bootstrap);
        let egress = Egress::direct(listen);
        let bound = egress.bind(plan.map(|plan| plan.ip), dht_port)?;
        let listener =
            bound.listener.map(Async::new).transpose().map_err(|e| StartError::System("listener", e))?;

        let (clock, seed) = (Clock::start(), seed()?);
        let config = Config {
            listen_port: bound.local_addr.map(|addr| addr.port()),
            own_address: None,
            private_dht: plan.is_some_and(|plan| plan.local),
            gateway: gateway && plan.is_some(),
            upload_bytes_per_sec,
            download_bytes_per_sec,
            takes_all,
        };
        let mut node = Node::new(config.clone(), *seed, clock.now(), driver::wall_time());
        select(&mut node, clock.now(), selections);
        restore(&mut node, &state)?;
        let state = Arc::new(state);
        let jobs = Jobs::start(&store, &state).map_err(|e| StartError::System("thread", e))?;

        let named = bootstrap.iter().any(|peer| matches!(peer, PeerAddr::Dns(..)));
        let wait = plan.is_some_and(|plan| !named && (plan.local || !bootstrap.is_empty()));
        let of_dht =
            plan.map(|plan| dht_config(egress, plan, bound.dht_port, bootstrap.clone(), (&dir, &store)));
        let driver = Rc::new_cyclic(|driver: &std::rc::Weak<Driver>| {
            let driver = driver.clone();
            let sink = move |input| {
                if let Some(driver) = driver.upgrade() {
                    driver.handle(input);
                }
            };
            let dht = Rc::new(Dht::start(executor, of_dht, sink));
            Driver::new(node, clock, dht, egress, (jobs, store.clone()), executor)
        });
        driver.run(listener);
        let identity = identity.map(|identity| Command::AddIdentity(identity.into()));
        for command in identity.into_iter().chain(bootstrap.into_iter().map(Command::AddPeer)) {
            driver.command(command);
        }
        if wait {
            driver.dht.bound().await;
        }
        let (local_addr, started, read) = (bound.local_addr, Instant::now(), Default::default());
        let inner = Inner { driver, dir, store, state, local_addr, started, config, read };
        Ok(Handle(Rc::new(inner)))
    }
}

fn seed() -> Result<Zeroizing<[u8; 32]>, StartError> {
    let mut seed = Zeroizing::new([0; 32]);
    let filled = getrandom::fill(seed.as_mut());
    filled.map_err(|e| StartError::System("randomness", io::Error::other(e.to_string())))?;
    Ok(seed)
}

/// What is fetched of channels is known before any of them is. Nobody waits for the answers, so the numbers are none that the
/// driver gives.
fn select(node: &mut Node, now: megatorrent_core::time::Instant, selections: Vec<(PublicKey, Selection)>) {
    for ((channel, selection), number) in selections.into_iter().zip((0..=u64::MAX).rev()) {
        node.handle(now, Input::Command(CommandId(number), Command::Select { channel, selection }));
    }
}

/// Hands the node what it noted in an earlier run.
fn restore(node: &mut Node, state: &State) -> Result<(), StartError> {
    for (key, value) in state.records().map_err(StartError::State)? {
        if !node.restore(&key, &value) {
            tracing::warn!(?key, "a record of an earlier run cannot be read; it is left alone");
        }
    }
    Ok(())
}

fn dht_config(
    egress: Egress,
    plan: Plan,
    port: u16,
    bootstrap: Vec<PeerAddr>,
    (dir, store): (&Path, &Store),
) -> dht::Config {
    let cached = home::load_dht_state(dir).iter().filter_map(|node| node.parse().ok()).collect();
    let (dir, store) = (dir.to_owned(), store.clone());
    let save = Arc::new(move |nodes: &[SocketAddrV4]| {
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let saved =
            store.check_home().map_err(io::Error::other).and_then(|()| home::save_dht_state(&dir, &nodes));
        if let Err(error) = saved {
            tracing::warn!(%error, "the DHT's nodes cannot be saved; the next start begins from its bootstrap nodes");
        }
    });
    dht::Config { egress, plan, port, bootstrap, cached, save }
}

/// A running node. Clones are the same node; it stops with [`Self::shutdown`].
#[derive(Clone, Debug)]
pub struct Handle(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    driver: Rc<Driver>,
    dir: PathBuf,
    store: Store,
    state: Arc<State>,
    local_addr: Option<SocketAddr>,
    started: Instant,
    config: Config,
    /// The numbers of the last event and the last loss that were given to the handle's own reader.
    read: (Cell<u64>, Cell<u64>),
}

/// The answer to a command, to be awaited or not: the command is carried out in any case, and without this only its answer is
/// lost.
pub struct Answering(Pin<Box<dyn Future<Output = Result<Answer, Refusal>>>>);

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answering")
    }
}

impl Future for Answering {
    type Output = Result<Answer, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// One reader of a node's news, among any number of others.
#[derive(Debug)]
pub struct Reader {
    node: Handle,
    number: u64,
}

impl Reader {
    /// The number of the last piece that was read.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the next piece of news.
    pub async fn next(&mut self) -> Numbered {
        let next = self.node.0.driver.after(self.number).await;
        self.number = next.number;
        next
    }

    /// The next piece of news, if there is one.
    pub fn try_next(&mut self) -> Option<Numbered> {
        let next = self.node.0.driver.try_after(self.number)?;
        self.number = next.number;
        Some(next)
    }
}

impl Handle {
    /// Hands the node a command, at once. Its answer is [`Refusal::Shutdown`] where the node ends before there is one.
    pub fn command(&self, command: Command) -> Answering {
        let answer = self.0.driver.command(command);
        Answering(Box::pin(async move { answer.recv().await.unwrap_or(Err(Refusal::Shutdown)) }))
    }

    /// Reads the node's news after the piece with this number; 0: all that are kept. News wait in one ring of bounded size for
    /// all readers; when it is full, the oldest piece about a mere connection (connected, disconnected, dial failed) makes room, or
    /// else the oldest of all, and each reader that has not come to it learns that it missed one.
    pub fn events_after(&self, number: u64) -> Reader {
        Reader { node: self.clone(), number }
    }

    /// The number of the newest piece of news; 0 before the first.
    pub fn newest_event(&self) -> u64 {
        self.0.driver.newest()
    }

    /// The next event for the handle's own reader, which clones share: each event is given once.
    pub async fn next_event(&self) -> Event {
        loop {
            if let Some(event) = self.try_event() {
                return event;
            }
            self.0.driver.after(self.0.read.0.get()).await;
        }
    }

    /// The next event for the handle's own reader, if one waits.
    pub fn try_event(&self) -> Option<Event> {
        self.take(&self.0.read.0, |news| match news {
            News::Event(event) => Some(event.clone()),
            News::Loss(_) => None,
        })
    }

    /// The next piece of news of what cannot be read, for the handle's own reader.
    pub async fn next_loss(&self) -> LossNews {
        loop {
            let loss = self.take(&self.0.read.1, |news| match news {
                News::Loss(loss) => Some(loss.clone()),
                News::Event(_) => None,
            });
            if let Some(loss) = loss {
                return loss;
            }
            self.0.driver.after(self.0.read.1.get()).await;
        }
    }

    /// Takes the next piece of a kind for the handle's own reader, whose last one has the number in `read`.
    fn take<T>(&self, read: &Cell<u64>, of_kind: impl Fn(&News) -> Option<T>) -> Option<T> {
        while let Some(next) = self.0.driver.try_after(read.get()) {
            read.set(next.number);
            if let Some(found) = of_kind(&next.news) {
                return Some(found);
            }
        }
        None
    }

    /// The node's counters.
    pub fn status(&self) -> NodeStatus {
        self.0.driver.node.borrow().status(self.0.driver.clock.now())
    }

    /// A followed channel's state.
    pub fn channel_status(&self, channel: &PublicKey) -> Option<TargetStatus> {
        self.0.driver.node.borrow().channel_status(channel)
    }

    /// The blobs of a followed channel's newest version, in at most `cells_max` cells.
    pub fn cells(&self, channel: &PublicKey, cells_max: usize) -> Vec<BlobCell> {
        self.0.driver.node.borrow().cells(channel, cells_max)
    }

    /// The state of a swarm without a head that the node has joined.
    pub fn swarm_status(&self, topic: &Topic) -> Option<TargetStatus> {
        self.0.driver.node.borrow().swarm_status(topic)
    }

    /// The channels followed.
    pub fn channels(&self) -> Vec<PublicKey> {
        self.0.driver.node.borrow().channels()
    }

    /// The states of all channels followed and swarms joined.
    pub fn targets(&self) -> Vec<TargetStatus> {
        self.0.driver.node.borrow().targets()
    }

    /// The settings that it started with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The read key of a followed channel, where one is known.
    pub fn read_key(&self, channel: &PublicKey) -> Option<Secret> {
        self.0.driver.node.borrow().read_key(channel).cloned()
    }

    /// The connections.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.0.driver.node.borrow().peers(self.0.driver.clock.now())
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<BanStatus> {
        self.0.driver.node.borrow().bans()
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr
    }

    /// The DHT's UDP address, once it is bound.
    pub fn dht_addr(&self) -> Option<SocketAddrV4> {
        self.0.driver.dht.local_addr()
    }

    /// Tries a peer, and where no DHT node is known, begins with its UDP port as one.
    pub fn add_bootstrap(&self, peer: PeerAddr) -> Answering {
        self.0.driver.dht.add_bootstrap(peer.clone());
        self.command(Command::AddPeer(peer))
    }

    /// Nodes in the DHT's routing table, as of the last look at it.
    pub fn dht_nodes(&self) -> usize {
        self.0.driver.dht.nodes()
    }

    /// Waits until the DHT's routing table has a node; at once where there is no DHT.
    pub async fn dht_joined(&self) {
        self.0.driver.dht.joined().await;
    }

    /// Waits until it is known that none of the DHT's nodes to begin with can be reached ([`Dht::unreachable`]).
    pub async fn dht_unreachable(&self) -> Unreachable {
        self.0.driver.dht.unreachable().await
    }

    /// The node's blobs.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The node's state.
    pub fn state(&self) -> &Arc<State> {
        &self.0.state
    }

    /// The node's folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Closes all connections, waits for the disk and saves the DHT's nodes. Its ports are free when this returns, its
    /// folder when the last handle is dropped. The node is of no use after this.
    pub async fn shutdown(&self) {
        self.0.driver.shutdown().await;
        if self.0.started.elapsed() >= SYNC_AFTER {
            let store = self.0.store.clone();
            if let Err(error) = smol::unblock(move || store.sync()).await {
                tracing::warn!(%error, "the blobs are checked again should the machine go down");
            }
        }
    }
}
