//! The life of the DHT's client: the nodes that it begins with, its building anew when it dies, and what its routing table holds.

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_lite::{FutureExt, future};
use mainline::async_dht::AsyncDht;
use mainline::{DhtBuilder, ServerSettings};
use megatorrent_core::addr::{DnsName, PeerAddr};

use super::{CACHED_NODES_MAX, Config, Filter, Inner, Unreachable, lock};
use crate::egress::Egress;

/// A client that does not answer a question about itself for this long is dead.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node on this machine or a private network may take to answer. On the public DHT it is the client's
/// default of two seconds; here each node that has left would cost that on every query.
const LOCAL_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Nodes to begin with, in all; each may be asked on every query.
pub(super) const BOOTSTRAP_MAX: usize = 16;
/// How many of them may come from the last run.
const CACHED_BOOTSTRAP_MAX: usize = 12;
/// The same in a private network, which is small, and where the one-shot clients of the last run are gone.
const CACHED_BOOTSTRAP_LOCAL_MAX: usize = 4;
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
/// How long one round of name resolution may take; names that took longer are tried again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node to begin with may take to refuse or to answer, before it is as good as silent.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// A question that any node answers, of one that does not take part itself (BEP 5, BEP 43).
const PING: &[u8] = b"d1:ad2:id20:megatorrent says hi.e1:q4:ping2:roi1e1:t4:ours1:y1:qe";

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
            origin.add(peer);
        }
        origin
    }

    /// Adds a node; `true` where its address was not there before.
    fn add(&mut self, peer: PeerAddr) -> bool {
        match peer {
            PeerAddr::Ip(SocketAddr::V4(addr)) => return self.given.insert(addr),
            PeerAddr::Dns(host, port) => self.names.push((host, port)),
            // The DHT is UDP over IPv4.
            PeerAddr::Ip(SocketAddr::V6(_)) | PeerAddr::Onion(..) | PeerAddr::I2p(..) => {}
        }
        false
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
pub(super) async fn keep(inner: Rc<Inner>) {
    let mut origin = Origin::new(&inner.config);
    let mut retry = Backoff::new(RETRY_INTERVAL);
    let mut has_failed = false;
    if !origin.names.is_empty() {
        origin.resolve(&inner.config.egress).await;
    }
    loop {
        match build(&inner, &origin).await {
            Ok(client) => {
                retry = Backoff::new(RETRY_INTERVAL);
                has_failed = false;
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
                // The client before this one may not have let go of the port yet.
                if has_failed || inner.address.get().is_none() {
                    tracing::warn!(%error, port = inner.config.port, "the DHT's UDP socket cannot be opened; trying again");
                }
                has_failed = true;
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
        if alone {
            let mut is_new = false;
            for peer in inner.hints.take() {
                is_new |= origin.add(peer);
            }
            if is_new {
                inner.unreachable.take();
                return;
            }
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
pub(super) async fn look(inner: &Inner, client: &AsyncDht) -> bool {
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

pub(super) async fn save(inner: &Inner) {
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
