//! The address book: who is known, how well it went, who is banned.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::addr::PeerAddr;
use crate::ids::ConnId;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, BANS_MAX, PEERS_KNOWN_MAX, PEERS_MAX};
use crate::rng::Rng;
use crate::time::{Instant, UnixTime};

/// Where an address came from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// Configuration, a URI, or a record of an earlier run.
    Configured,
    Dht,
    /// The peer itself, about its own address.
    Announced,
    Exchanged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Dialing,
    Connected(ConnId),
    /// It is ourselves: never dialled.
    Ourselves,
}

struct Peer {
    source: Source,
    state: State,
    failures: u32,
    retry_at: Instant,
    /// It answered a handshake once.
    reached: bool,
    /// It served a blob once.
    useful: bool,
    /// It spoke v5 when it last served or said HELLO.
    is_v5: bool,
    /// Settles the order among equals while the address is among those to dial.
    lot: Option<u64>,
}

/// The order in which addresses are dialled, the least first.
type Rank = (bool, u32, Source, u64);

impl Peer {
    fn rank(&self, lot: u64) -> Rank {
        (!self.useful, self.failures, self.source, lot)
    }
}

/// The address book. Each idle address is in one of two orders, so that nobody looks at all addresses to find one.
#[derive(Default)]
pub(super) struct Peers {
    book: BTreeMap<PeerAddr, Peer>,
    /// Idle addresses that may be dialled, the banned included.
    ready: BTreeSet<(Rank, PeerAddr)>,
    /// The other idle addresses, by the end of their back-off.
    waiting: BTreeSet<(Instant, PeerAddr)>,
    bans: BTreeMap<PeerAddr, UnixTime>,
}

impl Peers {
    /// Notes an address. `true`: it is new.
    pub(super) fn add(&mut self, addr: PeerAddr, source: Source, now: Instant) -> bool {
        if self.book.contains_key(&addr) {
            self.change(&addr, |peer| peer.source = peer.source.min(source));
            return false;
        }
        if self.book.len() >= PEERS_KNOWN_MAX && !self.evict() {
            return false;
        }
        self.waiting.insert((now, addr.clone()));
        let (state, failures, reached, useful, is_v5, lot) = (State::Idle, 0, false, false, false, None);
        self.book.insert(addr, Peer { source, state, failures, retry_at: now, reached, useful, is_v5, lot });
        true
    }

    /// Changes what is known of an address, and moves it to its place in the orders.
    fn change(&mut self, addr: &PeerAddr, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.book.get_mut(addr) else { return };
        match (peer.state, peer.lot) {
            (State::Idle, Some(lot)) => drop(self.ready.remove(&(peer.rank(lot), addr.clone()))),
            (State::Idle, None) => drop(self.waiting.remove(&(peer.retry_at, addr.clone()))),
            _ => {}
        }
        let retry_at = peer.retry_at;
        change(peer);
        if peer.state != State::Idle || peer.retry_at != retry_at {
            peer.lot = None;
        }
        match (peer.state, peer.lot) {
            (State::Idle, Some(lot)) => drop(self.ready.insert((peer.rank(lot), addr.clone()))),
            (State::Idle, None) => drop(self.waiting.insert((peer.retry_at, addr.clone()))),
            _ => {}
        }
    }

    /// Drops the worst idle address.
    fn evict(&mut self) -> bool {
        let idle = self.book.iter().filter(|(_, p)| p.state == State::Idle && p.source != Source::Configured);
        let worst = idle.max_by_key(|(_, p)| (!p.useful, p.failures, p.source)).map(|(addr, _)| addr.clone());
        worst.is_some_and(|addr| {
            self.change(&addr, |peer| peer.state = State::Ourselves); // out of the orders
            self.book.remove(&addr).is_some()
        })
    }

    /// The best address to dial, if one is due.
    pub(super) fn next_dial(&mut self, now: Instant, unix: UnixTime, rng: &mut Rng) -> Option<PeerAddr> {
        while let Some((_, addr)) = self.waiting.first().filter(|(at, _)| *at <= now).cloned() {
            let lot = rng.u64();
            self.waiting.pop_first();
            if let Some(peer) = self.book.get_mut(&addr) {
                peer.lot = Some(lot);
                self.ready.insert((peer.rank(lot), addr));
            }
        }
        let mut allowed = self.ready.iter().filter(|(_, addr)| !self.is_banned(addr, unix));
        allowed.next().map(|(_, addr)| addr.clone())
    }

    /// When the next back-off ends, of those that had not when [`Self::next_dial`] was last asked.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    pub(super) fn dialing(&mut self, addr: &PeerAddr) {
        self.set(addr, State::Dialing);
    }

    pub(super) fn connected(&mut self, addr: &PeerAddr, conn: ConnId) {
        self.set(addr, State::Connected(conn));
    }

    pub(super) fn keyed(&mut self, addr: &PeerAddr) {
        if let Some(peer) = self.book.get_mut(addr) {
            peer.reached = true;
        }
    }

    pub(super) fn ourselves(&mut self, addr: &PeerAddr) {
        self.set(addr, State::Ourselves);
    }

    fn set(&mut self, addr: &PeerAddr, state: State) {
        self.change(addr, |peer| peer.state = state);
    }

    /// A dial failed, or a connection ended. `served`: it brought a blob, so it is worth another at once.
    pub(super) fn ended(&mut self, addr: &PeerAddr, served: bool, now: Instant) {
        self.change(addr, |peer| {
            if peer.state == State::Ourselves {
                return;
            }
            peer.state = State::Idle;
            if served {
                peer.failures = 0;
                peer.retry_at = now;
            } else {
                peer.retry_at = now + backoff(peer.failures);
                peer.failures = peer.failures.saturating_add(1);
            }
        });
    }

    /// The peer served a blob. `true`: for the first time.
    pub(super) fn served(&mut self, addr: &PeerAddr) -> bool {
        let mut was_useful = true;
        self.change(addr, |peer| was_useful = core::mem::replace(&mut peer.useful, true));
        !was_useful
    }

    /// Notes whether the peer speaks v5.
    pub(super) fn speaks(&mut self, addr: &PeerAddr, is_v5: bool) {
        if let Some(peer) = self.book.get_mut(addr) {
            peer.is_v5 = is_v5;
        }
    }

    /// Whether the peer spoke v5 last time, so that its HELLO need not be waited for.
    pub(super) fn is_v5(&self, addr: &PeerAddr) -> bool {
        self.book.get(addr).is_some_and(|peer| peer.is_v5)
    }

    pub(super) fn connection(&self, addr: &PeerAddr) -> Option<ConnId> {
        match self.book.get(addr)?.state {
            State::Connected(conn) => Some(conn),
            State::Idle | State::Dialing | State::Ourselves => None,
        }
    }

    /// Addresses that were reached, for a peer at `asker`: private ones only where the asker's is private too.
    pub(super) fn to_exchange(&self, asker: &PeerAddr) -> Vec<PeerAddr> {
        let fits = |(addr, p): &(&PeerAddr, &Peer)| {
            let alive = p.reached && p.failures == 0 && p.state != State::Ourselves;
            alive && *addr != asker && addr.is_exchangeable() && (is_public(addr) || !is_public(asker))
        };
        self.book.iter().filter(fits).map(|(addr, _)| addr.clone()).take(PEERS_MAX).collect()
    }

    /// Bans an address; gives the one whose ban made room, if one did.
    pub(super) fn ban(&mut self, addr: PeerAddr, until: UnixTime) -> Option<PeerAddr> {
        self.bans.insert(addr, until);
        if self.bans.len() <= BANS_MAX {
            return None;
        }
        let first = self.bans.iter().min_by_key(|(_, until)| **until).map(|(addr, _)| addr.clone())?;
        self.bans.remove(&first);
        Some(first)
    }

    pub(super) fn is_banned(&self, addr: &PeerAddr, unix: UnixTime) -> bool {
        self.bans.get(addr).is_some_and(|until| unix < *until)
    }

    /// Takes out the bans that have ended.
    pub(super) fn expired_bans(&mut self, unix: UnixTime) -> Vec<PeerAddr> {
        let over: Vec<_> =
            self.bans.iter().filter(|(_, until)| **until <= unix).map(|(a, _)| a.clone()).collect();
        self.bans.retain(|_, until| *until > unix);
        over
    }

    pub(super) fn known(&self) -> usize {
        self.book.len()
    }

    pub(super) fn bans(&self, unix: UnixTime) -> usize {
        self.bans.values().filter(|until| unix < **until).count()
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(20)).min(BACKOFF_MAX)
}

/// Whether the address means the same everywhere; a name does.
fn is_public(addr: &PeerAddr) -> bool {
    match addr {
        PeerAddr::Name(..) => true,
        PeerAddr::Ip(socket) => match socket.ip() {
            IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
            IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const NOW: Instant = Instant(0);
    const UNIX: UnixTime = UnixTime(0);

    fn addr(n: usize) -> PeerAddr {
        format!("10.0.{}.{}:1", n / 256, n % 256).parse().expect("valid")
    }

    #[test]
    fn failures_wait_longer_and_success_makes_up() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        peers.add(addr(1), Source::Dht, NOW);
        peers.ended(&addr(1), false, NOW);
        assert_eq!(peers.next_dial(NOW, UNIX, &mut rng), None);
        assert_eq!(peers.next_retry(), Some(NOW + BACKOFF_MIN));
        peers.ended(&addr(1), false, NOW);
        assert_eq!(peers.next_retry(), Some(NOW + 2 * BACKOFF_MIN));
        peers.ended(&addr(1), true, NOW);
        assert_eq!(peers.next_dial(NOW, UNIX, &mut rng), Some(addr(1)));
        (0..99).for_each(|_| peers.ended(&addr(1), false, NOW));
        assert_eq!(peers.next_retry(), Some(NOW + BACKOFF_MAX));
    }

    #[test]
    fn the_book_is_bounded_and_keeps_the_better() {
        let mut peers = Peers::default();
        peers.add(addr(0), Source::Configured, NOW);
        (1..PEERS_KNOWN_MAX + 9).for_each(|n| assert!(peers.add(addr(n), Source::Exchanged, NOW)));
        assert_eq!(peers.known(), PEERS_KNOWN_MAX);
        assert!(!peers.add(addr(0), Source::Dht, NOW), "the configured one is still there");
    }

    #[test]
    fn bans_end_and_are_bounded() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        peers.add(addr(1), Source::Dht, NOW);
        peers.ban(addr(1), UnixTime(10));
        assert_eq!(peers.next_dial(NOW, UnixTime(9), &mut rng), None);
        assert_eq!(peers.next_dial(NOW, UnixTime(10), &mut rng), Some(addr(1)));
        assert_eq!((peers.bans(UnixTime(9)), peers.expired_bans(UnixTime(10))), (1, [addr(1)].into()));
        let ended =
            (0..=BANS_MAX).filter_map(|n| peers.ban(addr(n), UnixTime(n as u64 + 1))).collect::<Vec<_>>();
        assert_eq!(ended, [addr(0)]);
    }

    #[test]
    fn only_reached_addresses_are_told_and_private_ones_stay_private() {
        let mut peers = Peers::default();
        let public: PeerAddr = "9.9.9.9:1".parse().expect("valid");
        for a in [&addr(1), &addr(2), &public] {
            peers.add(a.clone(), Source::Exchanged, NOW);
        }
        peers.keyed(&addr(1));
        peers.keyed(&public);
        assert_eq!(peers.to_exchange(&"8.8.8.8:1".parse().expect("valid")), core::slice::from_ref(&public));
        let mut told = peers.to_exchange(&addr(3));
        told.sort();
        assert_eq!(told, [public, addr(1)]);
        assert!(peers.to_exchange(&addr(1)).iter().all(|a| *a != addr(1)));
    }

    #[test]
    fn we_are_never_dialled() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        peers.add(addr(1), Source::Dht, NOW);
        peers.ourselves(&addr(1));
        peers.ended(&addr(1), false, NOW);
        assert_eq!((peers.next_dial(NOW, UNIX, &mut rng), peers.next_retry()), (None, None));
    }
}
