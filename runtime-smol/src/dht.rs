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
//! - a put may have reached only ourselves, or nodes that have left: then a get refreshes the client's node cache and
//!   the put is tried once more. What we store at ourselves is not counted;
//! - the list of nodes to begin with stays short, as each may be asked on each query.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
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
use mainline::errors::{ConcurrencyError, PutMutableError, PutQueryError};
use mainline::{DhtBuilder, Id, MutableItem, RequestFilter, RequestSpecific, ServerSettings};
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

/// Operations under way at once; later ones wait their turn.
const OPS_MAX: usize = 8;
/// An operation that takes longer has failed.
const OP_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that does not answer a question about itself for this long is dead.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node on this machine or a private network may take to answer. On the public DHT it is the client's
/// default of two seconds; here each node that has left would cost that on every query.
const LOCAL_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Nodes to begin with, in all; each may be asked on every query.
const BOOTSTRAP_MAX: usize = 16;
/// How many of them may come from the last run.
const CACHED_BOOTSTRAP_MAX: usize = 12;
/// The same in a private network, which is small, and where the one-shot clients of the last run are gone.
const CACHED_BOOTSTRAP_LOCAL_MAX: usize = 4;
/// Nodes kept for the next run.
pub const CACHED_NODES_MAX: usize = 64;
/// How often they are saved.
const SAVE_INTERVAL: Duration = Duration::from_mins(5);
/// How often the routing table is looked at while it is empty, at first and at last: the client does not tell when it has met
/// its first node.
const LOOK_INTERVAL_EMPTY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(2));
/// How often it is looked at when it is not.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// A first node of a private network that meets none of the last run's nodes within this time begins a new network.
const LONE_AFTER: Duration = Duration::from_secs(5);
/// Pause before names are resolved again, or the client is built again, at first and at last.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(1));
/// The client closes its socket a while after it is dropped; how often to look for it, and for how long at most.
const CLOSE_INTERVAL: Duration = Duration::from_millis(5);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long one round of name resolution may take; names that took longer are tried again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node to begin with may take to refuse or to answer, before it is as good as silent.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A question that any node answers, of one that does not take part itself (BEP 5, BEP 43).
const PING: &[u8] = b"d1:ad2:id20:megatorrent says hi.e1:q4:ping2:roi1e1:t4:ours1:y1:qe";
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
        DhtOp::Announce(hash, port) => {
            let done = client.announce_peer(Id::from(hash.0), Some(*port)).await;
            JobResult::DhtDone(done.map(drop).map_err(|error| query_error(&error)))
        }
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
            if text.contains("PutMutable") {
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

/// A pause that grows.
struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    fn new((min, max): (Duration, Duration)) -> Self {
        Self { next: min, max }
    }

    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }
}

/// The nodes that a client begins with.
struct Origin {
    /// Configured or well known, resolved so far.
    given: BTreeSet<SocketAddrV4>,
    /// Not yet resolved.
    names: Vec<(DnsName, u16)>,
    cached: Vec<SocketAddrV4>,
}

impl Origin {
    fn new(config: &Config) -> Self {
        let mut peers = config.bootstrap.clone();
        if peers.is_empty() && !config.plan.local {
            peers.extend(mainline::DEFAULT_BOOTSTRAP_NODES.iter().filter_map(|name| name.parse().ok()));
        }
        let mut origin = Self { given: BTreeSet::new(), names: Vec::new(), cached: config.cached.clone() };
        for peer in peers {
            match peer {
                PeerAddr::Ip(SocketAddr::V4(addr)) => drop(origin.given.insert(addr)),
                PeerAddr::Dns(host, port) => origin.names.push((host, port)),
                // The DHT is UDP over IPv4.
                PeerAddr::Ip(SocketAddr::V6(_)) | PeerAddr::Onion(..) | PeerAddr::I2p(..) => {}
            }
        }
        origin
    }

    /// Resolves what is left; `true` where that brought an address.
    async fn resolve(&mut self, egress: &Egress) -> bool {
        let before = self.given.len();
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        // Side by side, so that one name server that hangs does not hold up the other names.
        let names = mem::take(&mut self.names).into_iter();
        let lookups: Vec<_> = names.map(|(host, port)| (egress.resolve(&host, port), host, port)).collect();
        for (lookup, host, port) in lookups {
            let late = async {
                Timer::at(deadline).await;
                Err(io::ErrorKind::TimedOut.into())
            };
            match lookup.or(late).await {
                Ok(addrs) => self.given.extend(addrs.into_iter().filter_map(|addr| match addr {
                    SocketAddr::V4(addr) => Some(addr),
                    SocketAddr::V6(_) => None,
                })),
                Err(error) => {
                    tracing::debug!(%host, %error, "a DHT node's name cannot be resolved");
                    self.names.push((host, port));
                }
            }
        }
        self.given.len() > before
    }

    fn list(&self, local: bool, own: &BTreeSet<SocketAddrV4>) -> Vec<SocketAddrV4> {
        let cached_max = if local { CACHED_BOOTSTRAP_LOCAL_MAX } else { CACHED_BOOTSTRAP_MAX };
        let fresh = |addr: &&SocketAddrV4| !own.contains(addr);
        let cached =
            self.cached.iter().filter(fresh).filter(|addr| !self.given.contains(addr)).take(cached_max);
        let cached: Vec<_> = cached.copied().collect();
        let given = self.given.iter().filter(fresh).take(BOOTSTRAP_MAX - cached.len());
        given.copied().chain(cached.iter().copied()).collect()
    }
}

/// Builds the client, and builds it again when it dies or has better nodes to begin with.
async fn keep(inner: Rc<Inner>) {
    let mut origin = Origin::new(&inner.config);
    let mut retry = Backoff::new(RETRY_INTERVAL);
    if !origin.names.is_empty() {
        origin.resolve(&inner.config.egress).await;
    }
    loop {
        match build(&inner, &origin).await {
            Ok(client) => {
                retry = Backoff::new(RETRY_INTERVAL);
                inner.suspected.set(false);
                inner.client.replace(Some(client.clone()));
                inner.changed.notify();
                let (given, names) = (origin.given.clone(), origin.names.clone());
                let knocks = async {
                    knock_at_all(&inner, given, names).await;
                    future::pending::<()>().await;
                };
                watch_over(&inner, &client, &mut origin).or(knocks).await;
                if inner.client.borrow().is_some() {
                    inner.bury();
                }
            }
            Err(error) => {
                tracing::warn!(%error, port = inner.config.port, "the DHT's UDP socket cannot be opened; trying again");
                Timer::after(retry.pause()).await;
            }
        }
    }
}

async fn build(inner: &Rc<Inner>, origin: &Origin) -> io::Result<AsyncDht> {
    let plan = inner.config.plan;
    // Once a port was chosen it is kept: others know us by it.
    let port = inner.address.get().map_or(inner.config.port, |addr| addr.port());
    let list = origin.list(plan.local, &lock(&inner.own_puts.own));
    let mut settings = DhtBuilder::default();
    let filter = Box::new(Filter(Arc::clone(&inner.own_puts)));
    settings.server_settings(ServerSettings { filter, ..ServerSettings::default() });
    if plan.local {
        settings.request_timeout(LOCAL_REQUEST_TIMEOUT);
    }
    if plan.server {
        settings.server_mode();
    }
    let egress = &inner.config.egress;
    // One that the client chose is not known before it has been asked, nor can it be nudged before.
    let port = if port == 0 { egress.try_udp(SocketAddrV4::new(plan.ip, 0))? } else { port };
    let client = egress.open_dht(SocketAddrV4::new(plan.ip, port), &list, settings).await?.as_async();
    *lock(&inner.own_puts.own) = own_addrs(egress, SocketAddrV4::new(plan.ip, port), list.first());
    inner.address.set(Some(SocketAddrV4::new(plan.ip, port)));
    Ok(client)
}

/// Under which addresses our own socket may write to itself. Behind a router that sends our packets back to us there is
/// one more that we cannot know; there, one replica too many is counted among the public network's twenty.
fn own_addrs(egress: &Egress, own: SocketAddrV4, towards: Option<&SocketAddrV4>) -> BTreeSet<SocketAddrV4> {
    if !own.ip().is_unspecified() {
        return BTreeSet::from([own]);
    }
    // Connecting a UDP socket sends nothing, but tells which interface faces that address.
    let facing = towards.and_then(|addr| {
        let socket = egress.connect_udp(*own.ip(), *addr).ok()?;
        socket.get_ref().local_addr().ok()
    });
    let facing = facing.and_then(|addr| match addr.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    facing.into_iter().chain([Ipv4Addr::LOCALHOST]).map(|ip| SocketAddrV4::new(ip, own.port())).collect()
}

/// Looks at the routing table from time to time; returns when the client is to be replaced.
async fn watch_over(inner: &Rc<Inner>, client: &AsyncDht, origin: &mut Origin) {
    let built = Instant::now();
    let mut look_again = Backoff::new(LOOK_INTERVAL_EMPTY);
    let mut resolve_again = Backoff::new(RETRY_INTERVAL);
    let mut resolve_at = built + resolve_again.pause();
    let mut save_at = built + SAVE_INTERVAL;
    loop {
        if !look(inner, client).await {
            tracing::warn!("the DHT client died; starting it again");
            return;
        }
        let alone = inner.nodes.get() == 0;
        if Instant::now() >= save_at {
            save(inner).await;
            save_at = Instant::now() + SAVE_INTERVAL;
        }
        if alone && !origin.names.is_empty() && Instant::now() >= resolve_at {
            if origin.resolve(&inner.config.egress).await {
                return;
            }
            resolve_at = Instant::now() + resolve_again.pause();
        }
        let first = inner.config.plan.server && origin.given.is_empty() && origin.names.is_empty();
        if alone && first && !origin.cached.is_empty() && built.elapsed() >= LONE_AFTER {
            origin.cached.clear();
            return;
        }
        let pause = if alone { look_again.pause() } else { LOOK_INTERVAL };
        let suspected = inner.changed.wait_for(|| inner.suspected.take().then_some(()));
        suspected
            .or(async {
                Timer::after(pause).await;
            })
            .await;
    }
}

/// Tells if no node to begin with can be reached. The client waits for each in vain, as it does not hear that a port refuses.
async fn knock_at_all(inner: &Inner, given: BTreeSet<SocketAddrV4>, names: Vec<(DnsName, u16)>) {
    let others_may_answer = !inner.config.cached.is_empty();
    if others_may_answer || (given.is_empty() && names.is_empty()) {
        return;
    }
    for addr in &given {
        if !is_refused(inner, *addr).await {
            return;
        }
    }
    let unresolved = names.into_iter().map(|(name, _)| name).collect();
    let unreachable = Unreachable { unresolved, refused: given.into_iter().collect() };
    inner.unreachable.replace(Some(unreachable));
    inner.changed.notify();
}

/// Whether a node's machine says that nothing listens there.
async fn is_refused(inner: &Inner, addr: SocketAddrV4) -> bool {
    let answer = async {
        let socket = inner.config.egress.connect_udp(inner.config.plan.ip, addr)?;
        socket.send(PING).await?;
        socket.recv(&mut [0]).await
    };
    let late = async {
        Timer::after(KNOCK_TIMEOUT).await;
        Ok(0)
    };
    matches!(answer.or(late).await, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Learns what the routing table holds; `false`: the client is dead.
async fn look(inner: &Inner, client: &AsyncDht) -> bool {
    let asked = inner.nudged(client.to_bootstrap());
    let answer = async { AssertUnwindSafe(asked).catch_unwind().await.ok() };
    let late = async {
        Timer::after(ALIVE_TIMEOUT).await;
        None
    };
    let Some(nodes) = answer.or(late).await else { return false };
    inner.nodes.set(nodes.len());
    if !nodes.is_empty() {
        let nodes = nodes.iter().filter_map(|addr| addr.parse().ok()).take(CACHED_NODES_MAX);
        inner.known.replace(nodes.collect());
    }
    inner.changed.notify();
    true
}

async fn save(inner: &Inner) {
    let (save, known) = (Arc::clone(&inner.config.save), inner.known.borrow().clone());
    smol::unblock(move || save(&known)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_to_begin_with_is_short_and_does_not_name_ourselves() {
        let addr = |n: u16| SocketAddrV4::new(Ipv4Addr::LOCALHOST, n);
        let many = |from: u16| (from..from + 40).map(addr);
        let mut origin =
            Origin { given: many(100).collect(), names: Vec::new(), cached: many(200).collect() };
        let own = BTreeSet::from([addr(100), addr(200)]);
        let count = |list: &[SocketAddrV4], from: u16| {
            list.iter().filter(|a| (from..from + 40).contains(&a.port())).count()
        };

        let list = origin.list(false, &own);
        assert_eq!((list.len(), count(&list, 200)), (BOOTSTRAP_MAX, CACHED_BOOTSTRAP_MAX));
        assert!(list.iter().all(|addr| !own.contains(addr)));
        let list = origin.list(true, &own);
        assert_eq!((list.len(), count(&list, 200)), (BOOTSTRAP_MAX, CACHED_BOOTSTRAP_LOCAL_MAX));

        origin.cached = origin.given.iter().copied().collect();
        assert_eq!(origin.list(false, &BTreeSet::new()).len(), BOOTSTRAP_MAX, "each is named once");
        origin.given.clear();
        origin.cached.clear();
        assert!(origin.list(true, &own).is_empty());
    }
}
