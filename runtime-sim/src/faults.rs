//! Faults between hosts, and planted bugs that prove that the checkers work.

use megatorrent_core::suite::Suite;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use megatorrent_core::time::Instant;

use crate::host::HostId;
use crate::link::{LinkId, Side};
use crate::net::DIAL_TIMEOUT;
use crate::world::{Happening, World};

/// A partition, for [`World::heal`]; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionId(u64);

/// A fault planted in the world, never in core: each breaks a rule that one checker checks, so that a run with it must
/// fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Stores keep blobs without checking their hash.
    StoreUnchecked,
    /// A file is delivered with another byte in it.
    DeliverWrong,
    /// A disk answers a job twice.
    JobTwice,
    /// A disk never answers some jobs.
    JobLost,
    /// The use of a cap counts ten-thousandfold.
    CapPassed(Cap),
    /// A node is not told that its connections ended.
    EndUnheard,
    /// A node is woken at its deadline and told nothing, so that its deadline stays.
    WakeLost,
    /// A disk says that it failed to write a blob that it wrote.
    StoredUnsaid,
    /// The DHT says that it stored an item that it did not store.
    PutLost,
    /// A node reports an older sequence after a newer one.
    SequenceBack,
    /// A name that a node passes on seems to have the hops with which it came.
    HopsKept,
    /// Announces that nodes send count tenfold.
    QuotaPassed,
    /// A disk reads a blob with another byte, so that the host that serves it is banned.
    ReadWrong,
    /// A partition does not heal, though the world says so.
    NeverHeals,
    /// The world depends on something besides its seed.
    SeedIgnored,
}

impl Bug {
    /// All bugs.
    pub const ALL: [Self; 19] = [
        Self::StoreUnchecked,
        Self::DeliverWrong,
        Self::JobTwice,
        Self::JobLost,
        Self::CapPassed(Cap::Jobs),
        Self::CapPassed(Cap::Connections),
        Self::CapPassed(Cap::Addresses),
        Self::CapPassed(Cap::Bans),
        Self::CapPassed(Cap::DhtOperations),
        Self::EndUnheard,
        Self::WakeLost,
        Self::StoredUnsaid,
        Self::PutLost,
        Self::SequenceBack,
        Self::HopsKept,
        Self::QuotaPassed,
        Self::ReadWrong,
        Self::NeverHeals,
        Self::SeedIgnored,
    ];
}

/// A cap of a node's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cap {
    /// Jobs of one kind that wait for their answer.
    Jobs,
    /// Connections.
    Connections,
    /// Addresses known.
    Addresses,
    /// Bans.
    Bans,
    /// Operations on the DHT, over time.
    DhtOperations,
}

/// Two sets of hosts between which nothing passes, in one or both directions.
struct Partition {
    id: PartitionId,
    from: BTreeSet<HostId>,
    to: BTreeSet<HostId>,
    one_way: bool,
}

impl Partition {
    fn blocks(&self, from: HostId, to: HostId) -> bool {
        let passes = |a, b| self.from.contains(&a) && self.to.contains(&b);
        passes(from, to) || (!self.one_way && passes(to, from))
    }
}

/// The partitions in force, and the events that they hold back.
#[derive(Default)]
pub(crate) struct Faults {
    partitions: Vec<Partition>,
    partitions_made: u64,
    /// Hosts whose proxy is dead.
    cut_off: BTreeSet<HostId>,
    /// The events across a partition, in order: TCP sends bytes again until they arrive. Bounded by the links' windows.
    held: Vec<Happening>,
    pub(crate) bug: Option<Bug>,
}

impl Faults {
    fn blocks(&self, from: HostId, to: HostId) -> bool {
        self.partitions.iter().any(|partition| partition.blocks(from, to))
    }
}

impl<S: Suite> World<S> {
    /// Lets nothing pass from `from` to `to`, nor back unless `one_way`. Bytes sent meanwhile arrive after [`Self::heal`], as
    /// with TCP; dials time out.
    pub fn partition(&mut self, from: &[HostId], to: &[HostId], one_way: bool) -> PartitionId {
        let id = PartitionId(self.faults.partitions_made);
        self.faults.partitions_made += 1;
        let (from, to) = (from.iter().copied().collect(), to.iter().copied().collect());
        self.faults.partitions.push(Partition { id, from, to, one_way });
        id
    }

    /// Ends a partition. Does nothing where it has ended.
    pub fn heal(&mut self, id: PartitionId) {
        if self.faults.bug == Some(Bug::NeverHeals) {
            return;
        }
        self.faults.partitions.retain(|partition| partition.id != id);
        // Another partition may hold the events back again.
        for happening in std::mem::take(&mut self.faults.held) {
            self.queue.push(self.now, happening);
        }
    }

    /// Gives all links of a host another one-way latency. Bytes in flight keep their order.
    pub fn set_latency(&mut self, host: HostId, latency: Duration) {
        for link in self.links.iter_mut().filter(|link| link.hosts.contains(&Some(host))) {
            link.latency = latency;
        }
    }

    /// Kills a host's proxy, so that its connections are reset, its dials fail at once, and no host reaches it; or starts a
    /// new proxy.
    pub fn set_proxy_dead(&mut self, host: HostId, is_dead: bool) {
        if !is_dead {
            self.faults.cut_off.remove(&host);
        } else if self.faults.cut_off.insert(host) {
            self.links_of(host).into_iter().for_each(|link| self.reset(link));
        }
    }

    /// Empties a host's disk, as if it were replaced.
    pub fn wipe(&mut self, host: HostId) {
        self.hosts[host.index()].wipe();
    }

    /// Plants a bug in the world, to see that a checker finds it.
    pub fn plant(&mut self, bug: Bug) {
        static PLANTED: AtomicU64 = AtomicU64::new(0);
        self.faults.bug = Some(bug);
        match bug {
            Bug::PutLost => self.dht_mut().lose_puts(),
            Bug::SeedIgnored => self.reseed_disks(PLANTED.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Returns the planted bug.
    pub fn planted(&self) -> Option<Bug> {
        self.faults.bug
    }

    /// Returns an event that the partitions let pass; `None`: it is held back, or has become another one.
    pub(crate) fn pass(&mut self, happening: Happening) -> Option<Happening> {
        if let Happening::DialArrives { link, to } = &happening
            && self.is_cut_off(*link, *to)
        {
            self.queue.push(self.now, Happening::DialEnds { link: *link, connected: false });
            return None;
        }
        if self.faults.partitions.is_empty() {
            return Some(happening);
        }
        let Some((link, from, to)) = self.way(&happening) else { return Some(happening) };
        if !self.faults.blocks(from, to) {
            return Some(happening);
        }
        match happening {
            // Its packets are lost, and the dialler gives up in the end.
            Happening::DialArrives { .. } | Happening::DialEnds { .. } => {
                let failed = Happening::DialEnds { link, connected: false };
                self.queue.push(self.now + DIAL_TIMEOUT, failed);
            }
            held => self.faults.held.push(held),
        }
        None
    }

    /// Whether a dial begins or ends at a host whose proxy is dead.
    fn is_cut_off(&self, link: LinkId, to: Option<HostId>) -> bool {
        let cut_off = &self.faults.cut_off;
        let from = || self.links.get(link).and_then(|link| link.hosts[Side::Dialer as usize]);
        !cut_off.is_empty() && [from(), to].into_iter().flatten().any(|host| cut_off.contains(&host))
    }

    /// Returns the link that an event crosses, and its direction; `None`: it crosses none, or ends at no host.
    fn way(&self, happening: &Happening) -> Option<(LinkId, HostId, HostId)> {
        let (link, to) = match happening {
            Happening::DialArrives { link, to } => {
                let from = self.links.get(*link)?.hosts[Side::Dialer as usize]?;
                return Some((*link, from, (*to)?));
            }
            Happening::DialEnds { link, connected: true } => (*link, Side::Dialer),
            Happening::Bytes { link, to, .. }
            | Happening::Edge { link, to, .. }
            | Happening::Room { link, to, .. }
            | Happening::Fin { link, to }
            | Happening::Reset { link, to } => (*link, *to),
            _ => return None,
        };
        let hosts = self.links.get(link)?.hosts;
        Some((link, hosts[to.other() as usize]?, hosts[to as usize]?))
    }

    /// Passes bytes through the slow line of the host at `to`, behind all earlier ones.
    pub(crate) fn edge_reached(&mut self, id: LinkId, to: Side, n: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(host) = link.hosts[to as usize] else { return };
        let host = &mut self.hosts[host.index()];
        let Some(rate) = host.config.download_bytes_per_sec else { return };
        let took = n as u64 * 1_000_000_000 / rate.max(1);
        host.downlink_free_at = Instant(host.downlink_free_at.max(self.now).0 + took);
        let pipe = &mut link.pipes[to as usize];
        pipe.last_arrival = pipe.last_arrival.max(host.downlink_free_at);
        self.queue.push(host.downlink_free_at, Happening::Bytes { link: id, to, n });
    }
}
