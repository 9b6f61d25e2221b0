//! The Mainline DHT through the `mainline` crate: jobs in, [`Input`]s out.
//!
//! Goals: each [`DhtOp`] gets exactly one answer, whatever the client does; the client's known faults
//! (`docs/dependencies.md`) stay inside this module. Non-goals: what to put or announce and when, and whether an item
//! may be believed (core checks every one again).
//!
//! Rules that the client's faults impose:
//! - at most `OPS_MAX` operations at once (beyond that its socket drops packets), one at a time for each target (its
//!   queries are told apart by target only);
//! - an operation ends after `OP_TIMEOUT`, because a call that meets the client's death never returns; a dead
//!   client is replaced;
//! - a put or an announce may have reached only ourselves, or nodes that have left: then a get refreshes the client's node
//!   cache and it is tried once more. What we store at ourselves is not counted;
//! - the list of nodes to begin with stays short, as each may be asked on each query.

mod life;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use futures_lite::{FutureExt, StreamExt, future};
use mainline::async_dht::AsyncDht;
use mainline::errors::{ConcurrencyError, PutError, PutMutableError, PutQueryError};
use mainline::{
    AnnouncePeerRequestArguments, Id, MutableItem, PutRequestSpecific, RequestFilter, RequestSpecific,
};
use megatorrent_core::addr::{DnsName, PeerAddr, is_public};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{InfoHash, JobId};
use megatorrent_core::limits::{DHT_JOBS_MAX, ITEM_VALUE_LEN_MAX};
use megatorrent_core::node::{DhtError, DhtOp, Input, JobResult};
use smol::lock::Semaphore;
use smol::{LocalExecutor, Task};

use crate::dht_own;
use crate::egress::Egress;
use crate::signal::Signal;
use life::{keep, look, save};

/// Operations under way at once; later ones wait their turn.
const OPS_MAX: usize = 8;
/// An operation that takes longer has failed.
const OP_TIMEOUT: Duration = Duration::from_secs(30);
/// Nodes kept for the next run.
pub const CACHED_NODES_MAX: usize = 64;
/// The client closes its socket a while after it is dropped; how often to look for it, and for how long at most.
const CLOSE_INTERVAL: Duration = Duration::from_millis(5);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Different items passed on from one get, and peers from one lookup; more are dropped.
const FINDINGS_MAX: usize = 1024;
/// Copies of one item passed on from one get: a look-up asks about 20 nodes that may hold it.
const COPIES_MAX: usize = 32;

const _: () = assert!(DHT_JOBS_MAX <= OPS_MAX, "core's jobs start without waiting for a slot");

/// Whether and how a node takes part in the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DhtMode {
    /// A server on a loopback or private address; elsewhere a client that becomes a server when it finds that
    /// others reach it.
    #[default]
    Auto,
    /// Not at all: no UDP socket, and every operation fails with [`DhtError::Disabled`].
    Off,
    /// Stores for others from the start. For private networks and machines with a public address.
    Server,
    /// Never stores for others.
    Client,
}

/// How this node takes part in the DHT, derived from [`DhtMode`] and the addresses at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the UDP socket is bound. The client knows IPv4 only.
    pub ip: Ipv4Addr,
    /// Whether it stores for others from the start.
    pub server: bool,
    /// Whether it stores for others at all.
    pub serves: bool,
    /// Whether this is a network of its own, on this machine or a private network: short timeouts, never the public
    /// network's nodes, and private addresses are those of peers. A node to begin with that is public, or has a name, may be of
    /// the public network.
    pub local: bool,
}

impl Plan {
    /// `None`: there is no DHT.
    pub fn new(mode: DhtMode, listen: Option<IpAddr>, bootstrap: &[PeerAddr]) -> Option<Self> {
        let listen = listen.map(|ip| ip.to_canonical());
        // An unspecified address is every address, public ones too.
        let is_private = |ip: IpAddr| !ip.is_unspecified() && !is_public(ip);
        let is_local = |peer: &PeerAddr| matches!(peer, PeerAddr::Ip(addr) if is_private(addr.ip()));
        let is_loopback = |peer: &PeerAddr| matches!(peer, PeerAddr::Ip(addr) if addr.ip().is_loopback());
        let all = |test: &dyn Fn(&PeerAddr) -> bool| !bootstrap.is_empty() && bootstrap.iter().all(test);
        let bound_locally = listen.is_some_and(is_private);
        let ip = match listen {
            Some(IpAddr::V4(ip)) => ip,
            Some(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST,
            None if all(&is_loopback) => Ipv4Addr::LOCALHOST,
            Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
        };
        let server = match mode {
            DhtMode::Off => return None,
            DhtMode::Auto => bound_locally,
            DhtMode::Server => true,
            DhtMode::Client => false,
        };
        // Who binds loopback reaches nothing else; else the nodes to begin with tell, where there are any.
        let local = listen.is_some_and(|ip| ip.is_loopback())
            || if bootstrap.is_empty() { bound_locally } else { all(&is_local) };
        Some(Self { ip, server, serves: mode != DhtMode::Client, local })
    }
}

/// Keeps nodes for the next run.
pub type Save = dyn Fn(&[SocketAddrV4]) + Send + Sync;

/// What a [`Dht`] is told at its start.
pub struct Config {
    /// The way to the network.
    pub egress: Egress,
    /// How to take part.
    pub plan: Plan,
    /// The UDP port; 0: any.
    pub port: u16,
    /// Nodes to begin with. None: the public network's well-known nodes, unless [`Plan::local`].
    pub bootstrap: Vec<PeerAddr>,
    /// Nodes known from the last run.
    pub cached: Vec<SocketAddrV4>,
    /// Keeps at most [`CACHED_NODES_MAX`] nodes for the next run; called on another thread.
    pub save: Arc<Save>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("plan", &self.plan).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why no node to begin with can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Names that do not resolve.
    pub unresolved: Vec<DnsName>,
    /// Addresses at which nothing listens, as their machines say.
    pub refused: Vec<SocketAddrV4>,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unresolved = self.unresolved.iter().map(|name| format!("the name {name} does not resolve"));
        let refused = self.refused.iter().map(|addr| format!("nothing listens at UDP {addr}"));
        f.write_str(&unresolved.chain(refused).collect::<Vec<_>>().join(", "))
    }
}

/// A node of the DHT, or the absence of one. Operations go in by [`Self::submit`]; what they bring goes to the sink.
pub struct Dht {
    inner: Option<Rc<Inner>>,
    ops: RefCell<BTreeMap<JobId, Task<()>>>,
    keeper: RefCell<Option<Task<()>>>,
    executor: Rc<LocalExecutor<'static>>,
}

impl fmt::Debug for Dht {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dht")
            .field("config", &self.inner.as_ref().map(|inner| &inner.config))
            .finish_non_exhaustive()
    }
}

struct Inner {
    config: Config,
    sink: Box<dyn Fn(Input)>,
    client: RefCell<Option<AsyncDht>>,
    /// Notified when `client`, `address`, `nodes`, `unreachable`, `suspected` or `buried` changes.
    changed: Signal,
    address: Cell<Option<SocketAddrV4>>,
    nodes: Cell<usize>,
    unreachable: RefCell<Option<Unreachable>>,
    /// Newest known nodes, for the next run.
    known: RefCell<Vec<SocketAddrV4>>,
    /// The keeper shall look whether the client lives.
    suspected: Cell<bool>,
    /// Further nodes to begin with, for a client that knows none.
    hints: RefCell<Vec<PeerAddr>>,
    /// How many clients are of no use any more.
    buried: Cell<u64>,
    slots: Semaphore,
    busy: RefCell<BTreeSet<Id>>,
    /// Notified when a target is free again.
    freed: Signal,
    own_puts: Arc<OwnPuts>,
    /// Writes to the client's own address; see [`Self::nudge`].
    nudger: Cell<Option<(SocketAddrV4, Async<UdpSocket>)>>,
}

impl Dht {
    /// Starts the client on another thread; operations wait for it. With `None` there is no DHT.
    pub fn start(
        executor: &Rc<LocalExecutor<'static>>,
        config: Option<Config>,
        sink: impl Fn(Input) + 'static,
    ) -> Self {
        let inner = config.map(|config| {
            Rc::new(Inner {
                own_puts: Arc::new(OwnPuts::new(config.plan)),
                known: RefCell::new(config.cached.clone()),
                sink: Box::new(sink),
                client: RefCell::default(),
                changed: Signal::default(),
                address: Cell::default(),
                nodes: Cell::default(),
                unreachable: RefCell::default(),
                suspected: Cell::default(),
                hints: RefCell::default(),
                buried: Cell::default(),
                slots: Semaphore::new(OPS_MAX),
                busy: RefCell::default(),
                freed: Signal::default(),
                nudger: Cell::default(),
                config,
            })
        });
        let keeper = inner.as_ref().map(|inner| executor.spawn(keep(Rc::clone(inner))));
        Self { inner, ops: RefCell::default(), keeper: RefCell::new(keeper), executor: Rc::clone(executor) }
    }

    /// Does `op`. Its one answer goes to the sink; where there is no DHT it is returned at once.
    #[must_use = "an answer that is returned does not go to the sink"]
    pub fn submit(self: &Rc<Self>, job: JobId, op: DhtOp) -> Option<JobResult> {
        let Some(inner) = &self.inner else { return Some(failed(&op, DhtError::Disabled)) };
        let (dht, inner) = (Rc::clone(self), Rc::clone(inner));
        let task = self.executor.spawn(async move {
            let result = run(&inner, job, &op).await;
            (inner.sink)(Input::Done(job, result));
            dht.ops.borrow_mut().remove(&job);
        });
        self.ops.borrow_mut().insert(job, task);
        None
    }

    /// The UDP socket's address, once it is bound.
    pub fn local_addr(&self) -> Option<SocketAddrV4> {
        self.inner.as_ref()?.address.get()
    }

    /// Waits until the UDP socket is bound; `None` where there is no DHT.
    pub async fn bound(&self) -> Option<SocketAddrV4> {
        let inner = self.inner.as_ref()?;
        Some(inner.changed.wait_for(|| inner.address.get()).await)
    }

    /// A further node to begin with, for a time at which no node is known.
    pub fn add_bootstrap(&self, peer: PeerAddr) {
        let Some(inner) = &self.inner else { return };
        let mut hints = inner.hints.borrow_mut();
        if hints.len() < life::BOOTSTRAP_MAX && !hints.contains(&peer) {
            hints.push(peer);
            // Looks at the routing table at once.
            inner.suspected.set(true);
            inner.changed.notify();
        }
    }

    /// Nodes in the routing table, as of the last look at it.
    pub fn nodes(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.nodes.get())
    }

    /// Waits until the routing table has a node; at once where there is no DHT.
    pub async fn joined(&self) {
        if let Some(inner) = &self.inner {
            inner.changed.wait_for(|| (inner.nodes.get() > 0).then_some(())).await;
        }
    }

    /// Waits until it is known that no node to begin with can be reached, which is tried again all the same. For ever where one
    /// answers or keeps silent, and where there is no DHT.
    pub async fn unreachable(&self) -> Unreachable {
        match &self.inner {
            Some(inner) => inner.changed.wait_for(|| inner.unreachable.borrow().clone()).await,
            None => future::pending().await,
        }
    }

    /// Drops what is under way, saves the known nodes and waits until the socket is closed.
    pub async fn stop(&self) {
        let keeper = self.keeper.take();
        for task in self.ops.take().into_values().chain(keeper) {
            task.cancel().await;
        }
        let Some(inner) = &self.inner else { return };
        let client = inner.client.take();
        if let Some(client) = client {
            look(inner, &client).await;
            drop(client);
            // It ends when it hears that nobody has it any more.
            inner.nudge();
        }
        save(inner).await;
        let Some(addr) = inner.address.get() else { return };
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while Instant::now() < deadline && inner.config.egress.try_udp(addr).is_err() {
            Timer::after(CLOSE_INTERVAL).await;
        }
    }
}

// --- operations ---------------------------------------------------------------------------------------------

pub(crate) fn failed(op: &DhtOp, error: DhtError) -> JobResult {
    match op {
        DhtOp::Put(..) => JobResult::DhtPut(Err(error)),
        DhtOp::Get(_) | DhtOp::Lookup(_) | DhtOp::Announce(..) => JobResult::DhtDone(Err(error)),
    }
}

fn target(op: &DhtOp) -> Id {
    match op {
        DhtOp::Get(key) => MutableItem::target_from_key(key.as_bytes(), None),
        DhtOp::Put(item, _) => MutableItem::target_from_key(item.key.as_bytes(), None),
        DhtOp::Lookup(hash) | DhtOp::Announce(hash, _) => Id::from(hash.0),
    }
}

/// Frees the target when the operation ends, also when it is dropped.
struct Claim<'a>(&'a Inner, Id);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.busy.borrow_mut().remove(&self.1);
        self.0.freed.notify();
    }
}

async fn run(inner: &Inner, job: JobId, op: &DhtOp) -> JobResult {
    let target = target(op);
    let _claim =
        inner.freed.wait_for(|| inner.busy.borrow_mut().insert(target).then(|| Claim(inner, target))).await;
    let _slot = inner.slots.acquire().await;
    let work = async {
        let client = inner.changed.wait_for(|| inner.client.borrow().clone()).await;
        let buried = inner.buried.get();
        // The client's methods panic when its thread has died, or never return: then somebody else's panic tells.
        let answer = async { AssertUnwindSafe(perform(inner, &client, job, op)).catch_unwind().await.ok() };
        let other = inner.changed.wait_for(|| (inner.buried.get() != buried).then_some(None));
        let result = answer.or(other).await;
        if result.is_none() && inner.buried.get() == buried {
            inner.bury();
        }
        result
    };
    let late = async {
        Timer::after(OP_TIMEOUT).await;
        inner.suspect();
        None
    };
    work.or(late).await.unwrap_or_else(|| failed(op, DhtError::Failed))
}

async fn perform(inner: &Inner, client: &AsyncDht, job: JobId, op: &DhtOp) -> JobResult {
    let result = inner.nudged(perform_with(inner, client, job, op)).await;
    if inner.nodes.get() == 0 {
        // It may have met a node: those who wait for one need not wait for the next look.
        inner.suspect();
    }
    result
}

async fn perform_with(inner: &Inner, client: &AsyncDht, job: JobId, op: &DhtOp) -> JobResult {
    match op {
        DhtOp::Get(key) => {
            // Each node's copy, as core counts them; of one item no more than any look-up brings.
            let mut copies: BTreeMap<_, usize> = BTreeMap::new();
            let mut on_item = |item: SignedItem| {
                let id = (item.seq, item.signature);
                if copies.len() < FINDINGS_MAX || copies.contains_key(&id) {
                    let count = copies.entry(id).or_default();
                    *count += 1;
                    if *count <= COPIES_MAX {
                        (inner.sink)(Input::DhtItem(job, item));
                    }
                }
            };
            // What our own server holds comes last: who reads a head back asks whether others have it.
            let own = inner.address.get().filter(|_| inner.config.plan.server);
            let mut own_item = None;
            if let Some(own) = own {
                own_item = dht_own::get(&inner.config.egress, own, key).await;
            }
            let mut is_held_back = own_item.is_some();
            let found = get(client, key, |item| {
                if own_item.as_ref() != Some(&item) || !mem::take(&mut is_held_back) {
                    on_item(item);
                }
            });
            let found = inner.nudged(found).await;
            JobResult::DhtDone(match own_item {
                Some(item) => {
                    on_item(item);
                    Ok(())
                }
                None => found,
            })
        }
        DhtOp::Put(item, cas) => JobResult::DhtPut(put(inner, client, item, *cas).await),
        DhtOp::Lookup(hash) => JobResult::DhtDone(lookup(inner, client, job, *hash).await),
        DhtOp::Announce(_, 0) => JobResult::DhtDone(Err(DhtError::Failed)),
        DhtOp::Announce(hash, port) => JobResult::DhtDone(announce(inner, client, *hash, *port).await),
    }
}

fn query_error(error: &PutQueryError) -> DhtError {
    match error {
        PutQueryError::NoClosestNodes => DhtError::NoNodes,
        PutQueryError::ErrorResponse(_) | PutQueryError::Timeout => DhtError::Failed,
    }
}

/// Hands each item found to `on_item`, with repetitions.
async fn get(
    client: &AsyncDht,
    key: &PublicKey,
    mut on_item: impl FnMut(SignedItem),
) -> Result<(), DhtError> {
    // Without a salt and without a lower bound of the sequence: the client mixes up queries that differ in either.
    let mut found = client.get_mutable_detailed(key.as_bytes(), None, None);
    while let Some(item) = found.items.next().await {
        let usable =
            item.key() == key.as_bytes() && item.seq() >= 0 && item.value().len() <= ITEM_VALUE_LEN_MAX;
        if usable {
            let (seq, value, signature) = (item.seq(), item.value().to_vec(), *item.signature());
            on_item(SignedItem { key: *key, seq, value, signature });
        }
    }
    let outcome = found.outcome.recv().await;
    if outcome.responded() == 0 { Err(DhtError::NoNodes) } else { Ok(()) }
}

async fn put(inner: &Inner, client: &AsyncDht, item: &SignedItem, cas: Option<i64>) -> Result<u32, DhtError> {
    if item.value.len() > ITEM_VALUE_LEN_MAX {
        return Err(DhtError::TooLarge);
    }
    let first = put_once(inner, client, item, cas).await;
    let retry = matches!(first, Ok(0) | Err(DhtError::Failed | DhtError::NoNodes));
    if !retry && first != Err(DhtError::Stale) {
        return first;
    }
    let (mut same, mut newer) = (0_u32, false);
    let copies = get(client, &item.key, |found| {
        same += u32::from(found.seq == item.seq && found.value == item.value);
        newer |= found.seq > item.seq || (found.seq == item.seq && found.value != item.value);
    });
    inner.nudged(copies).await?;
    if retry {
        return inner.nudged(put_once(inner, client, item, cas)).await;
    }
    // Some nodes refuse an item that they have already as if it were old.
    if newer || same == 0 { Err(DhtError::Stale) } else { Ok(same) }
}

/// How many others took it.
async fn put_once(
    inner: &Inner,
    client: &AsyncDht,
    item: &SignedItem,
    cas: Option<i64>,
) -> Result<u32, DhtError> {
    let (key, signature) = (*item.key.as_bytes(), item.signature);
    let item = MutableItem::new_signed_unchecked(key, signature, &item.value, item.seq, None);
    let watch = OwnPuts::watch(&inner.own_puts, item.target());
    match client.put_mutable(item, cas).await {
        Ok(outcome) => Ok(outcome.stored_at.saturating_sub(watch.seen())),
        Err(PutMutableError::Query(error)) => Err(query_error(&error)),
        Err(PutMutableError::Concurrency(error)) => Err(match error {
            ConcurrencyError::NotMostRecent => DhtError::Stale,
            ConcurrencyError::CasFailed => DhtError::CasMismatch,
            ConcurrencyError::ConflictRisk => DhtError::Failed,
        }),
    }
}

async fn announce(inner: &Inner, client: &AsyncDht, hash: InfoHash, port: u16) -> Result<(), DhtError> {
    if announce_once(inner, client, hash, port).await? > 0 {
        return Ok(());
    }
    // Nobody else answered in time; the client would ask no more than those that did for some minutes.
    let mut peers = client.get_peers(Id::from(hash.0));
    inner.nudged(async { while peers.next().await.is_some() {} }).await;
    match inner.nudged(announce_once(inner, client, hash, port)).await? {
        0 => Err(DhtError::Failed),
        _ => Ok(()),
    }
}

/// How many others took it.
async fn announce_once(inner: &Inner, client: &AsyncDht, hash: InfoHash, port: u16) -> Result<u32, DhtError> {
    let info_hash = Id::from(hash.0);
    let watch = OwnPuts::watch(&inner.own_puts, &info_hash);
    let announce = AnnouncePeerRequestArguments { info_hash, port, implied_port: None };
    match client.put(PutRequestSpecific::AnnouncePeer(announce), None).await {
        Ok(outcome) => Ok(outcome.stored_at.saturating_sub(watch.seen())),
        Err(PutError::Query(error)) => Err(query_error(&error)),
        Err(PutError::Concurrency(_)) => Err(DhtError::Failed),
    }
}

async fn lookup(inner: &Inner, client: &AsyncDht, job: JobId, hash: InfoHash) -> Result<(), DhtError> {
    let mut seen = BTreeSet::new();
    let mut found = client.get_peers(Id::from(hash.0));
    while let Some(peers) = found.next().await {
        let mut fresh = Vec::new();
        for peer in peers {
            // The same peer comes from many nodes, and from one node many times.
            if peer.port() != 0
                && !peer.ip().is_unspecified()
                && seen.len() < FINDINGS_MAX
                && seen.insert(peer)
            {
                fresh.push(PeerAddr::from(SocketAddr::V4(peer)));
            }
        }
        if !fresh.is_empty() {
            (inner.sink)(Input::DhtPeers(job, fresh));
        }
    }
    if seen.is_empty() && inner.nudged(client.to_bootstrap()).await.is_empty() {
        Err(DhtError::NoNodes)
    } else {
        Ok(())
    }
}

// --- what reaches ourselves ---------------------------------------------------------------------------------

/// Counts the puts that reach our own server through the network, so that they are not taken for replicas.
#[derive(Debug)]
struct OwnPuts {
    serves: bool,
    /// Our own socket's addresses, as far as they are known.
    own: Mutex<BTreeSet<SocketAddrV4>>,
    /// By the target as the client prints it.
    watched: Mutex<BTreeMap<String, u32>>,
}

impl OwnPuts {
    fn new(plan: Plan) -> Self {
        Self { serves: plan.serves, own: Mutex::default(), watched: Mutex::default() }
    }

    fn watch(this: &Arc<Self>, target: &Id) -> Watch {
        let name = target.to_string();
        lock(&this.watched).insert(name.clone(), 0);
        Watch { puts: Arc::clone(this), name }
    }
}

struct Watch {
    puts: Arc<OwnPuts>,
    name: String,
}

impl Watch {
    fn seen(&self) -> u32 {
        lock(&self.puts.watched).get(&self.name).copied().unwrap_or(0)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.puts.watched).remove(&self.name);
    }
}

/// The values behind these locks are whole after every statement, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The client's one hook into its server.
#[derive(Clone, Debug)]
struct Filter(Arc<OwnPuts>);

impl RequestFilter for Filter {
    fn allow_request(&self, request: &RequestSpecific, from: SocketAddrV4) -> bool {
        if lock(&self.0.own).contains(&from) {
            // The kind of request has no public name; its printed form does (a test holds the client to it).
            let text = format!("{request:?}");
            if text.contains("PutMutable") || text.contains("AnnouncePeer") {
                for (target, seen) in lock(&self.0.watched).iter_mut() {
                    *seen += u32::from(text.contains(target));
                }
            }
        }
        self.0.serves
    }
}

// --- the client's life --------------------------------------------------------------------------------------

impl Inner {
    /// Does what begins with a word to the client. The client hears it when its socket has something to read, or else each
    /// 50 ms, so it gets something: one byte, which it drops as malformed.
    async fn nudged<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(done) = future::poll_once(&mut work).await {
            return done;
        }
        self.nudge();
        work.await
    }

    /// Has the client look at what it was told.
    fn nudge(&self) {
        let Some(own) = self.address.get() else { return };
        let ip = if own.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *own.ip() };
        let to = SocketAddrV4::new(ip, own.port());
        let nudger = self.nudger.take().filter(|(at, _)| *at == to).map(|(_, socket)| socket);
        let Some(nudger) = nudger.or_else(|| self.config.egress.connect_udp(ip, to).ok()) else { return };
        // Where it does not arrive, the client hears the word a little later.
        let _ = nudger.get_ref().send(&[0]);
        self.nudger.set(Some((to, nudger)));
    }

    /// An operation hung: have the keeper look whether the client lives.
    fn suspect(&self) {
        self.suspected.set(true);
        self.changed.notify();
    }

    /// Nobody shall use this client any more; the keeper builds another.
    fn bury(&self) {
        self.client.take();
        self.buried.set(self.buried.get() + 1);
        self.suspect();
    }
}
