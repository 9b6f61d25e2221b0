//! The address book: who is known, who told of them, how well it went, and who is tried next.
//!
//! One book holds what the DHT, PEX, ANNOUNCE, URIs, earlier runs and configuration name. It is shared out, so that
//! whoever can make up addresses fills a part of it only: by kind of source, by who told them, and by network. Where a
//! share is full, a newcomer takes the place of a worse address in the same share, or is ignored: who was there first
//! stays, since a flood is always newer than what it shall wash away. Only what the user configured has no share.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::bans::Bans;
use super::crowd::{Crowd, is_public};
use super::shares::Shares;
pub(super) use super::shares::Source;
use crate::addr::PeerAddr;
use crate::ids::ConnId;
use crate::limits::{
    BACKOFF_MAX, BACKOFF_MIN, EXCHANGED_PER_NETWORK_MAX, FAILURES_GONE, PEERS_KNOWN_MAX, PEERS_MAX,
    PEERS_PER_NETWORK_MAX, PEERS_PER_SOURCE_MAX, PEERS_PER_TELLER_MAX,
};
use crate::rng::Rng;
use crate::time::{Instant, UnixTime};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Dialing,
    /// We dialled it.
    Connected(ConnId),
    /// It came to us.
    Accepted(ConnId),
    /// It is ourselves: never dialled.
    Ourselves,
}

struct Peer {
    source: Source,
    /// Who told of it, where a peer did.
    teller: Option<Crowd>,
    state: State,
    since: Instant,
    failures: u32,
    retry_at: Instant,
    /// It answered a handshake once.
    reached: bool,
    /// It served a blob once.
    useful: bool,
    /// It spoke v5 when it last served or said HELLO.
    is_v5: bool,
    /// It has a record, for the next run.
    recorded: bool,
    /// Since when the address is among those to dial, and a lot that settles the order among equals.
    queued: Option<(Instant, u64)>,
}

/// Kinds of addresses to dial ([`Peer::class`]).
const CLASSES: u8 = 5;
/// The first of those whose addresses anybody can make up.
const FIRST_UNPROVEN: u8 = 2;
/// The order in which addresses of one class are dialled: as they came. Neither failures nor luck matter, so a steady
/// flow of made-up addresses, fresh each, cannot keep back one that failed once; how often that returns, its back-off
/// says.
type Rank = (u8, (Instant, u64));
/// The order in which they are dropped, the greatest first: gone, useless, never reached, failed, badly vouched for.
type Badness = (bool, bool, bool, u32, Source);

impl Peer {
    fn new(source: Source, teller: Option<Crowd>, now: Instant) -> Self {
        let (state, recorded) = (State::Idle, source == Source::Remembered);
        let (failures, reached, useful, is_v5, queued) = (0, false, false, false, None);
        Self {
            source,
            teller,
            state,
            since: now,
            failures,
            retry_at: now,
            reached,
            useful,
            is_v5,
            recorded,
            queued,
        }
    }

    fn class(&self) -> u8 {
        match self.source {
            _ if self.useful => 0,
            Source::Configured | Source::Remembered => 1,
            _ if self.reached => 1,
            Source::Dht => FIRST_UNPROVEN,
            Source::Announced => 3,
            Source::Exchanged => 4,
        }
    }

    fn badness(&self) -> Badness {
        (self.failures >= FAILURES_GONE, !self.useful, !self.reached, self.failures, self.source)
    }

    /// Whose share of our outbound connections it counts against; `None`: nobody's.
    fn dial_crowd(&self, addr: &PeerAddr) -> Option<Crowd> {
        match (addr, &self.teller) {
            (PeerAddr::Name(..), Some(teller)) => Some(teller.clone()),
            _ => Some(Crowd::of(addr)).filter(|crowd| !crowd.is_local()),
        }
    }

    /// Whose share of its source it counts against.
    fn book_crowd(&self, addr: &PeerAddr) -> Crowd {
        self.teller.clone().unwrap_or_else(|| Crowd::of(addr))
    }
}

/// Who is tried when, as it follows from the book.
#[derive(Default)]
struct Orders {
    /// Idle addresses that may be dialled, the banned included.
    ready: BTreeSet<(Rank, PeerAddr)>,
    /// The other idle addresses, by the end of their back-off.
    waiting: BTreeSet<(Instant, PeerAddr)>,
    /// Outbound connections and dials.
    dialled: BTreeMap<Crowd, usize>,
}

impl Orders {
    fn enter(&mut self, addr: &PeerAddr, peer: &Peer) {
        match (peer.state, peer.queued) {
            (State::Idle, Some(queued)) => drop(self.ready.insert(((peer.class(), queued), addr.clone()))),
            (State::Idle, None) => drop(self.waiting.insert((peer.retry_at, addr.clone()))),
            (State::Dialing | State::Connected(_), _) => {
                if let Some(crowd) = peer.dial_crowd(addr) {
                    *self.dialled.entry(crowd).or_default() += 1;
                }
            }
            (State::Accepted(_) | State::Ourselves, _) => {}
        }
    }

    fn leave(&mut self, addr: &PeerAddr, peer: &Peer) {
        match (peer.state, peer.queued) {
            (State::Idle, Some(queued)) => drop(self.ready.remove(&((peer.class(), queued), addr.clone()))),
            (State::Idle, None) => drop(self.waiting.remove(&(peer.retry_at, addr.clone()))),
            (State::Dialing | State::Connected(_), _) => {
                if let Some(crowd) = peer.dial_crowd(addr)
                    && let Some(count) = self.dialled.get_mut(&crowd)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.dialled.remove(&crowd);
                    }
                }
            }
            (State::Accepted(_) | State::Ourselves, _) => {}
        }
    }
}

/// Which connection would make place for another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Any: there is no more room for connections.
    Any,
    /// One of this crowd: its share is used up.
    Of(Crowd),
}

/// The address book. Each idle address is in one of two orders, so that nobody looks at all addresses to find one.
#[derive(Default)]
pub(super) struct Peers {
    book: BTreeMap<PeerAddr, Peer>,
    orders: Orders,
    shares: Shares,
    /// Nothing may be dialled under this share, and nothing has changed since that was found.
    exhausted: Option<usize>,
    /// How many addresses were dialled, so that each class has its turn.
    dials: u64,
    /// Addresses dropped that have a record.
    forgotten: Vec<PeerAddr>,
    pub(super) bans: Bans,
}

impl Peers {
    /// Notes an address that no peer told of. `true`: it is new.
    pub(super) fn add(&mut self, addr: PeerAddr, source: Source, now: Instant) -> bool {
        self.note(addr, Peer::new(source, None, now))
    }

    /// Notes what the peer at `teller` told, of itself or of others. `true`: it is new. A private address means
    /// nothing, or somebody else, where a public one told it.
    pub(super) fn told(&mut self, addr: PeerAddr, source: Source, teller: &PeerAddr, now: Instant) -> bool {
        let fits = is_public(&addr) || !is_public(teller);
        fits && self.note(addr, Peer::new(source, Some(Crowd::of(teller)), now))
    }

    fn note(&mut self, addr: PeerAddr, new: Peer) -> bool {
        if let Some(known) = self.book.get(&addr) {
            // Who vouches best for an address is who told of it.
            if new.source < known.source {
                self.shares.leave(known.source, known.book_crowd(&addr), &addr);
                self.shares.enter(new.source, new.book_crowd(&addr), &addr);
                self.change(&addr, |peer| (peer.source, peer.teller) = (new.source, new.teller));
            }
            return false;
        }
        if !self.make_room(&addr, &new) {
            if new.recorded {
                self.forgotten.push(addr);
            }
            return false;
        }
        self.exhausted = None;
        self.shares.enter(new.source, new.book_crowd(&addr), &addr);
        self.orders.enter(&addr, &new);
        self.book.insert(addr, new);
        true
    }

    /// Changes what is known of an address, and moves it to its place in the orders.
    fn change(&mut self, addr: &PeerAddr, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.book.get_mut(addr) else { return };
        self.exhausted = None;
        self.orders.leave(addr, peer);
        let retry_at = peer.retry_at;
        change(peer);
        if peer.state != State::Idle || peer.retry_at != retry_at {
            peer.queued = None;
        }
        self.orders.enter(addr, peer);
    }

    // --- shares of the book ---------------------------------------------------------------------------------

    /// Whether there is a place for a new address, if need be that of another one.
    fn make_room(&mut self, addr: &PeerAddr, new: &Peer) -> bool {
        if new.source != Source::Configured {
            let network = Crowd::of(addr);
            let is_full = !network.is_local()
                && self.book.range(network.range()).take(PEERS_PER_NETWORK_MAX).count()
                    == PEERS_PER_NETWORK_MAX;
            if is_full {
                let worst = worst(self.book.range(network.range()));
                if !self.displace(worst, new) {
                    return false;
                }
            }
            let told = new.teller.as_ref().and_then(|teller| self.shares.crowd(new.source, teller));
            if let Some(told) = told.filter(|told| told.len() >= PEERS_PER_TELLER_MAX) {
                let worst = self.worst_of(told);
                if !self.displace(worst, new) {
                    return false;
                }
            }
            let is_full = self.shares.source(new.source) >= PEERS_PER_SOURCE_MAX;
            if is_full && !self.displace_in(new.source, addr, new) {
                return false;
            }
        }
        if self.book.len() < PEERS_KNOWN_MAX {
            return true;
        }
        let fullest = self.shares.fullest_source();
        fullest.is_some_and(|source| self.displace_in(source, addr, new))
    }

    /// Drops the worst address of `source`'s most crowded network or teller: where the newcomer comes from a source or
    /// crowd that has fewer, or that address is worse.
    fn displace_in(&mut self, source: Source, addr: &PeerAddr, new: &Peer) -> bool {
        let of_largest = |addrs: &BTreeSet<PeerAddr>| Some((addrs.len(), self.worst_of(addrs)?));
        let Some((count, worst)) = self.shares.largest(source).find_map(of_largest) else { return false };
        let own = self.shares.crowd(source, &new.book_crowd(addr)).map_or(0, BTreeSet::len);
        let has_less = if source == new.source {
            count > own + 1
        } else {
            self.shares.source(source) > self.shares.source(new.source) + 1
        };
        if has_less { self.drop_address(&worst.1) } else { self.displace(Some(worst), new) }
    }

    fn worst_of(&self, addrs: &BTreeSet<PeerAddr>) -> Option<(Badness, PeerAddr)> {
        worst(addrs.iter().filter_map(|addr| self.book.get_key_value(addr)))
    }

    /// Drops `worst` if it is worse than the newcomer.
    fn displace(&mut self, worst: Option<(Badness, PeerAddr)>, new: &Peer) -> bool {
        worst.is_some_and(|(badness, addr)| badness > new.badness() && self.drop_address(&addr))
    }

    fn drop_address(&mut self, addr: &PeerAddr) -> bool {
        let Some(peer) = self.book.remove(addr) else { return false };
        self.orders.leave(addr, &peer);
        self.shares.leave(peer.source, peer.book_crowd(addr), addr);
        if peer.recorded {
            self.forgotten.push(addr.clone());
        }
        true
    }

    /// Addresses dropped since the last call whose records are of no use any more.
    pub(super) fn take_forgotten(&mut self) -> Vec<PeerAddr> {
        core::mem::take(&mut self.forgotten)
    }

    // --- dialling -------------------------------------------------------------------------------------------

    /// The address to dial next, if one is due, with at most `share` outbound connections in one crowd. Every other time it
    /// is one of the best class, the times between those that anybody can make up have their turns.
    pub(super) fn next_dial(
        &mut self,
        now: Instant,
        unix: UnixTime,
        share: usize,
        rng: &mut Rng,
    ) -> Option<PeerAddr> {
        self.end_back_offs(now, rng);
        if self.exhausted == Some(share) {
            return None;
        }
        let unproven = CLASSES - FIRST_UNPROVEN;
        let turn = u8::try_from(self.dials / 2 % u64::from(unproven)).expect("below the number of classes");
        let in_turn = (0..unproven).map(|n| FIRST_UNPROVEN + (turn + n) % unproven);
        let in_turn = in_turn.take(if self.dials % 2 == 1 { usize::from(unproven) } else { 0 });
        let mut candidates = in_turn.chain(0..CLASSES).flat_map(|class| self.candidates(class, unix));
        let next = candidates.find(|(_, crowd)| self.has_share(crowd.as_ref(), share));
        let next = next.map(|(addr, _)| addr.clone());
        drop(candidates);
        self.dials += u64::from(next.is_some());
        self.exhausted = if next.is_none() { Some(share) } else { None };
        next
    }

    fn end_back_offs(&mut self, now: Instant, rng: &mut Rng) {
        while let Some((_, addr)) = self.orders.waiting.first().filter(|(at, _)| *at <= now).cloned() {
            let queued = (now, rng.u64());
            self.orders.waiting.pop_first();
            self.exhausted = None;
            if let Some(peer) = self.book.get_mut(&addr) {
                peer.queued = Some(queued);
                self.orders.ready.insert(((peer.class(), queued), addr));
            }
        }
    }

    /// Addresses of a class whose back-off is over, the first first, with whose share each counts against.
    fn candidates(&self, class: u8, unix: UnixTime) -> impl Iterator<Item = (&PeerAddr, Option<Crowd>)> {
        let ready = self.orders.ready.range(((class, (Instant(0), 0)), first_address())..);
        let ready = ready.map_while(move |(rank, addr)| (rank.0 == class).then_some(addr));
        let allowed = ready.filter(move |addr| !self.bans.has(addr, unix));
        allowed.map(|addr| (addr, self.book.get(addr).and_then(|peer| peer.dial_crowd(addr))))
    }

    fn has_share(&self, crowd: Option<&Crowd>, share: usize) -> bool {
        crowd.is_none_or(|crowd| self.orders.dialled.get(crowd).copied().unwrap_or(0) < share)
    }

    /// Whose connection must be given up for the best address that waits for one; `None`: no address waits.
    pub(super) fn wanted_place(&self, unix: UnixTime, share: usize) -> Option<Place> {
        let (_, crowd) = (0..CLASSES).find_map(|class| self.candidates(class, unix).next())?;
        Some(crowd.filter(|crowd| !self.has_share(Some(crowd), share)).map_or(Place::Any, Place::Of))
    }

    /// Whether giving up the connection with `addr` makes the place.
    pub(super) fn makes_place(&self, addr: &PeerAddr, place: &Place) -> bool {
        match place {
            Place::Any => true,
            Place::Of(crowd) => {
                self.book.get(addr).and_then(|peer| peer.dial_crowd(addr)).as_ref() == Some(crowd)
            }
        }
    }

    /// Addresses may be dialled again.
    pub(super) fn bans_changed(&mut self) {
        self.exhausted = None;
    }

    /// When the next back-off ends, of those that had not when [`Self::next_dial`] was last asked.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.orders.waiting.first().map(|(at, _)| *at)
    }

    // --- how it went ----------------------------------------------------------------------------------------

    pub(super) fn dialing(&mut self, addr: &PeerAddr) {
        self.set(addr, State::Dialing);
    }

    /// Our dial succeeded.
    pub(super) fn connected(&mut self, addr: &PeerAddr, conn: ConnId) {
        self.set(addr, State::Connected(conn));
    }

    /// The peer that listens at `addr` came to us.
    pub(super) fn accepted(&mut self, addr: &PeerAddr, conn: ConnId) {
        self.set(addr, State::Accepted(conn));
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

    /// The peer served a blob. `true`: it deserves a record, and has none yet.
    pub(super) fn served(&mut self, addr: &PeerAddr) -> bool {
        let Some(peer) = self.book.get(addr) else { return false };
        let is_new = !peer.recorded;
        if !peer.useful || is_new {
            self.change(addr, |peer| (peer.useful, peer.recorded) = (true, true));
        }
        is_new
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
            State::Connected(conn) | State::Accepted(conn) => Some(conn),
            State::Idle | State::Dialing | State::Ourselves => None,
        }
    }

    /// Addresses that were reached, any of them and few of each network, for a peer at `asker`: private ones only
    /// where the asker's is private too.
    pub(super) fn to_exchange(&self, asker: &PeerAddr, rng: &mut Rng) -> Vec<PeerAddr> {
        let fits = |(addr, p): &(&PeerAddr, &Peer)| {
            let alive = p.reached && p.failures == 0 && p.state != State::Ourselves;
            alive && *addr != asker && addr.is_exchangeable() && (is_public(addr) || !is_public(asker))
        };
        let mut alive: Vec<&PeerAddr> = self.book.iter().filter(fits).map(|(addr, _)| addr).collect();
        let (mut told, mut networks) = (Vec::new(), BTreeMap::new());
        while !alive.is_empty() && told.len() < PEERS_MAX {
            let at = usize::try_from(rng.below(alive.len() as u64)).expect("below a length");
            let addr = alive.swap_remove(at);
            let network = Crowd::of(addr);
            let is_local = network.is_local();
            let count: &mut usize = networks.entry(network).or_default();
            *count += 1;
            if is_local || *count <= EXCHANGED_PER_NETWORK_MAX {
                told.push(addr.clone());
            }
        }
        told
    }

    pub(super) fn known(&self) -> usize {
        self.book.len()
    }
}

/// The worst idle address, which is not the user's; of equals the last that came.
fn worst<'a>(peers: impl Iterator<Item = (&'a PeerAddr, &'a Peer)>) -> Option<(Badness, PeerAddr)> {
    let idle = peers.filter(|(_, peer)| peer.state == State::Idle && peer.source != Source::Configured);
    let worst = idle.max_by_key(|(addr, peer)| (peer.badness(), peer.since, Reverse(*addr)));
    worst.map(|(addr, peer)| (peer.badness(), addr.clone()))
}

/// The least in the order of addresses.
fn first_address() -> PeerAddr {
    PeerAddr::Ip(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(20)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    const NOW: Instant = Instant(0);
    const UNIX: UnixTime = UnixTime(0);
    const SHARE: usize = 8;

    fn at(text: &str) -> PeerAddr {
        text.parse().expect("valid")
    }

    /// An address on a local network.
    fn addr(n: usize) -> PeerAddr {
        at(&format!("10.0.{}.{}:1", n / 256, n % 256))
    }

    /// An address in a network of its own.
    fn far(n: usize) -> PeerAddr {
        at(&format!("{}.{}.7.7:1", 20 + n / 256, n % 256))
    }

    /// An address in 9.9.0.0/16.
    fn near(n: usize) -> PeerAddr {
        at(&format!("9.9.{}.{}:1", n / 256, n % 256))
    }

    fn onion(n: usize) -> PeerAddr {
        let label: alloc::string::String =
            format!("{n:0>56}").chars().map(|c| char::from(b'a' + c as u8 - b'0')).collect();
        at(&format!("{label}.onion:6881"))
    }

    fn count(peers: &Peers, fits: impl Fn(&PeerAddr) -> bool) -> usize {
        peers.book.keys().filter(|addr| fits(addr)).count()
    }

    /// Dials all that may be dialled, and gives it.
    fn dial_all(peers: &mut Peers, rng: &mut Rng) -> Vec<PeerAddr> {
        core::iter::from_fn(|| {
            let next = peers.next_dial(NOW, UNIX, SHARE, rng)?;
            peers.dialing(&next);
            Some(next)
        })
        .collect()
    }

    #[test]
    fn failures_wait_longer_and_success_makes_up() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        peers.add(addr(1), Source::Dht, NOW);
        peers.ended(&addr(1), false, NOW);
        assert_eq!(peers.next_dial(NOW, UNIX, SHARE, &mut rng), None);
        assert_eq!(peers.next_retry(), Some(NOW + BACKOFF_MIN));
        peers.ended(&addr(1), false, NOW);
        assert_eq!(peers.next_retry(), Some(NOW + 2 * BACKOFF_MIN));
        peers.ended(&addr(1), true, NOW);
        assert_eq!(peers.next_dial(NOW, UNIX, SHARE, &mut rng), Some(addr(1)));
        (0..99).for_each(|_| peers.ended(&addr(1), false, NOW));
        assert_eq!(peers.next_retry(), Some(NOW + BACKOFF_MAX));
    }

    #[test]
    fn fresh_made_up_addresses_do_not_keep_back_one_that_failed_once() {
        for (honest, fakes) in
            [(Source::Exchanged, Source::Dht), (Source::Dht, Source::Exchanged), (Source::Dht, Source::Dht)]
        {
            let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
            peers.add(addr(1), honest, NOW);
            peers.ended(&addr(1), false, NOW);
            let mut fresh = (0..).map(far);
            let mut now = NOW;
            let is_dialled = (0..1000).any(|_| {
                // Four new ones for each that is dialled, none of which answers.
                for fake in fresh.by_ref().take(4) {
                    peers.add(fake, fakes, now);
                }
                now = now + Duration::from_secs(1);
                let next = peers.next_dial(now, UNIX, SHARE, &mut rng).expect("there is always one");
                peers.dialing(&next);
                peers.ended(&next, false, now);
                next == addr(1)
            });
            assert!(is_dialled, "{honest:?} among {fakes:?}");
        }
    }

    #[test]
    fn no_source_fills_the_book_and_what_the_user_configured_stays() {
        let mut peers = Peers::default();
        peers.add(addr(0), Source::Configured, NOW);
        let add_all = |peers: &mut Peers, source, range: core::ops::Range<usize>| {
            for n in range {
                peers.add(addr(n), source, NOW);
            }
        };
        add_all(&mut peers, Source::Exchanged, 1..9000);
        assert_eq!(peers.known(), 1 + PEERS_PER_SOURCE_MAX);
        add_all(&mut peers, Source::Dht, 10_000..19_000);
        assert_eq!(peers.known(), PEERS_KNOWN_MAX);
        add_all(&mut peers, Source::Announced, 20_000..29_000);
        assert_eq!(peers.known(), PEERS_KNOWN_MAX);
        let third = PEERS_KNOWN_MAX / 3;
        let counts =
            [Source::Exchanged, Source::Dht, Source::Announced].map(|source| peers.shares.source(source));
        assert!(counts.iter().all(|n| n.abs_diff(third) <= 2), "they share it alike: {counts:?}");
        assert!(!peers.add(addr(0), Source::Dht, NOW), "the configured one is still there");
        assert!(peers.add(far(1), Source::Configured, NOW) && peers.known() == PEERS_KNOWN_MAX);
    }

    #[test]
    fn a_teller_fills_its_share_only_and_replaces_its_own() {
        let mut peers = Peers::default();
        let liar = at("8.8.1.1:1");
        for n in 0..5000 {
            peers.told(far(n % 1000), Source::Exchanged, &liar, NOW);
        }
        assert_eq!(peers.known(), PEERS_PER_TELLER_MAX);
        // Its neighbours are taken for the same; others are not.
        assert!(!peers.told(far(2000), Source::Exchanged, &at("8.8.200.1:9"), NOW));
        assert!(peers.told(far(2000), Source::Exchanged, &at("8.9.1.1:1"), NOW));
        // What others vouch for does not count against it, and what failed makes room for its next.
        assert!(!peers.add(far(0), Source::Dht, NOW));
        assert!(peers.told(far(2001), Source::Exchanged, &liar, NOW));
        assert!(!peers.told(far(2002), Source::Exchanged, &liar, NOW));
        peers.ended(&far(1), false, NOW);
        assert!(peers.told(far(2002), Source::Exchanged, &liar, NOW));
        assert!(!peers.book.contains_key(&far(1)));
    }

    #[test]
    fn a_flood_from_many_tellers_leaves_the_few_addresses_of_an_honest_one() {
        let mut peers = Peers::default();
        let honest = at("77.7.7.7:1");
        for n in 0..10 {
            peers.told(far(n), Source::Exchanged, &honest, NOW);
        }
        for teller in 0..100 {
            let teller = at(&format!("{}.1.1.1:1", 100 + teller));
            let told = |n: usize| at(&format!("{}.{}.{}.9:1", 130 + n / 10_000, n % 250, (n / 250) % 40));
            for n in 0..2000 {
                peers.told(told(n), Source::Exchanged, &teller, NOW);
            }
        }
        assert_eq!(peers.known(), PEERS_PER_SOURCE_MAX);
        assert_eq!(count(&peers, |a| (0..10).any(|n| *a == far(n))), 10);
        assert!(peers.add(far(3000), Source::Dht, NOW));
    }

    #[test]
    fn a_network_has_so_many_places_in_the_book_and_of_our_connections() {
        for make in [
            near as fn(usize) -> PeerAddr,
            |n| at(&format!("[2a00:1:{n:x}::1]:1")),
            |n| at(&format!("9.9.9.9:{}", n + 1)),
            |n| at(&format!("a.example:{}", n + 1)),
        ] {
            let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
            for n in 0..3000 {
                peers.add(make(n), Source::Dht, NOW);
            }
            assert_eq!(peers.known(), PEERS_PER_NETWORK_MAX, "{}", make(0));
            (0..9).for_each(|n| assert!(peers.add(far(n), Source::Exchanged, NOW)));
            let dialled = dial_all(&mut peers, &mut rng);
            assert_eq!(dialled.len(), SHARE + 9, "{}", make(0));
            assert_eq!(dialled.iter().filter(|a| (0..9).any(|n| **a == far(n))).count(), 9);
            // One of them ends, and another of the same network may take its place.
            peers.ended(&dialled[0], false, NOW);
            assert_eq!(dial_all(&mut peers, &mut rng).len(), 1);
        }
    }

    #[test]
    fn a_private_network_is_not_shared_out_and_means_nothing_from_afar() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        (0..200).for_each(|n| assert!(peers.add(addr(n), Source::Dht, NOW)));
        assert_eq!(dial_all(&mut peers, &mut rng).len(), 200);
        assert!(!peers.told(addr(300), Source::Exchanged, &far(1), NOW));
        assert!(!peers.told(at("127.0.0.1:80"), Source::Exchanged, &onion(1), NOW));
        assert!(peers.told(addr(300), Source::Exchanged, &addr(1), NOW));
    }

    #[test]
    fn names_are_shared_out_by_who_told_them() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        let (liar, honest) = (onion(90_000), near(1));
        for n in 0..5000 {
            peers.told(onion(n), Source::Exchanged, &liar, NOW);
        }
        (5000..5003).for_each(|n| assert!(peers.told(onion(n), Source::Exchanged, &honest, NOW)));
        assert_eq!(peers.known(), PEERS_PER_TELLER_MAX + 3);
        let dialled = dial_all(&mut peers, &mut rng);
        assert_eq!(dialled.len(), SHARE + 3);
        assert!((5000..5003).all(|n| dialled.contains(&onion(n))));
    }

    #[test]
    fn a_connection_that_came_to_us_takes_no_share() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        let conn = ConnId { slot: 0, generation: 0 };
        (0..40).for_each(|n| assert!(peers.add(near(n), Source::Dht, NOW)));
        (0..20).for_each(|n| peers.accepted(&near(n), conn));
        let dialled = dial_all(&mut peers, &mut rng);
        assert_eq!(dialled.len(), SHARE);
        for a in &dialled {
            peers.connected(a, conn);
        }
        assert_eq!(peers.next_dial(NOW, UNIX, SHARE, &mut rng), None);
        assert_eq!(peers.wanted_place(UNIX, SHARE), Some(Place::Of(Crowd::of(&near(0)))));
        peers.accepted(&dialled[0], conn);
        assert_eq!(peers.wanted_place(UNIX, SHARE), Some(Place::Any));
        assert_eq!(dial_all(&mut peers, &mut rng).len(), 1);
    }

    #[test]
    fn the_worst_goes_first_and_who_was_there_first_stays() {
        let mut peers = Peers::default();
        (0..PEERS_PER_NETWORK_MAX).for_each(|n| assert!(peers.add(near(n), Source::Dht, NOW)));
        peers.served(&near(3));
        peers.keyed(&near(4));
        (0..2).for_each(|_| peers.ended(&near(5), false, NOW));
        peers.ended(&near(6), false, NOW);
        peers.ended(&near(4), false, NOW);
        (0..FAILURES_GONE).for_each(|_| peers.ended(&near(3), false, NOW));
        let mut newcomers = (1000..).map(near);
        for gone in [3, 5, 6] {
            assert!(peers.add(newcomers.next().expect("endless"), Source::Dht, NOW));
            assert!(!peers.book.contains_key(&near(gone)), "{gone}");
        }
        assert!(!peers.add(near(999), Source::Dht, NOW), "all others are as good, or better");
        assert!(peers.book.contains_key(&near(4)), "it was reached once");
        assert_eq!(peers.take_forgotten(), [near(3)], "its record is of no use any more");
    }

    #[test]
    fn what_an_earlier_run_knew_is_bounded_too() {
        let mut peers = Peers::default();
        for n in 0..PEERS_KNOWN_MAX {
            peers.add(far(n), Source::Remembered, NOW);
        }
        assert_eq!(peers.known(), PEERS_PER_SOURCE_MAX);
        assert_eq!(peers.take_forgotten().len(), PEERS_KNOWN_MAX - PEERS_PER_SOURCE_MAX);
        assert!(!peers.served(&far(0)), "it has a record already");
        peers.add(at("9.9.9.9:1"), Source::Dht, NOW);
        assert!(peers.served(&at("9.9.9.9:1")) && !peers.served(&at("9.9.9.9:1")));
    }

    #[test]
    fn only_reached_addresses_are_told_and_private_ones_stay_private() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        let public = far(9);
        for a in [&addr(1), &addr(2), &public] {
            peers.add(a.clone(), Source::Exchanged, NOW);
        }
        peers.keyed(&addr(1));
        peers.keyed(&public);
        assert_eq!(peers.to_exchange(&far(8), &mut rng), core::slice::from_ref(&public));
        let mut told = peers.to_exchange(&addr(3), &mut rng);
        told.sort();
        assert_eq!(told, [addr(1), public]);
        assert!(peers.to_exchange(&addr(1), &mut rng).iter().all(|a| *a != addr(1)));
    }

    #[test]
    fn an_answer_names_few_of_one_network_and_not_always_the_same() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        let all = (0..PEERS_PER_NETWORK_MAX).map(near).chain((0..200).map(far));
        all.for_each(|a| {
            peers.add(a.clone(), Source::Dht, NOW);
            peers.keyed(&a);
        });
        let [one, other] = [(); 2].map(|()| peers.to_exchange(&addr(1), &mut rng));
        for told in [&one, &other] {
            assert_eq!(told.len(), PEERS_MAX);
            let of_one = told.iter().filter(|a| a.to_string().starts_with("9.9.")).count();
            assert!(of_one <= EXCHANGED_PER_NETWORK_MAX, "{of_one}");
        }
        assert_ne!(one, other);
    }

    #[test]
    fn we_are_never_dialled() {
        let (mut peers, mut rng) = (Peers::default(), Rng::new([0; 32]));
        peers.add(addr(1), Source::Dht, NOW);
        peers.ourselves(&addr(1));
        peers.ended(&addr(1), false, NOW);
        assert_eq!((peers.next_dial(NOW, UNIX, SHARE, &mut rng), peers.next_retry()), (None, None));
    }
}
