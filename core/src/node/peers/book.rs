//! The address book: who is known, who told of them, how well it went, and who is tried next.
//!
//! One book holds what the DHT, PEX, ANNOUNCE, URIs, earlier runs and configuration name. It is shared out, so that
//! whoever can make up addresses fills a part of it only: by kind of source, by who told them, and by network. Where a
//! share is full, a newcomer takes the place of a worse address in the same share, or is ignored: who was there first
//! stays, since a flood is always newer than what it shall wash away. Only what the user configured has no share.

mod known;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::alive::Alive;
use super::bans::Bans;
use super::netgroup::Netgroup;
use super::shares::Shares;
use super::shares::Source;
use crate::addr::PeerAddr;
use crate::ids::ConnId;
use crate::limits::{
    BACKOFF_MAX, BACKOFF_MIN, FAILURES_GONE, HEARSAY_DIALS_MAX, PEERS_KNOWN_MAX, PEERS_PER_NETWORK_MAX,
    PEERS_PER_REFERRER_MAX, PEERS_PER_SOURCE_MAX,
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
    referrer: Option<Netgroup>,
    state: State,
    since: Instant,
    failures: u32,
    retry_at: Instant,
    /// It answered a handshake once.
    reached: bool,
    /// It answered one when it was last dialled.
    answers: bool,
    /// It came to us, and was dialled to see whether it answers.
    was_felt: bool,
    /// It served a blob once.
    useful: bool,
    /// It spoke v5 when it last served or said HELLO.
    is_v5: bool,
    /// It has a record, for the next run.
    recorded: bool,
    /// Since when the address is among those to dial, and a lot that settles the order among equals.
    queued: Option<(Instant, u64)>,
    /// Its place among those that others are told of.
    alive_at: Option<usize>,
}

/// Kinds of addresses to dial ([`Peer::class`]).
const CLASSES: u8 = 5;
/// The first of those whose addresses anybody can make up.
const FIRST_UNPROVEN: u8 = 2;
/// The first of those that only a peer told of.
const FIRST_HEARSAY: u8 = 3;
/// The order in which addresses of one class are dialled: as they came. Neither failures nor luck matter, so a steady
/// flow of made-up addresses, fresh each, cannot keep back one that failed once; how often that returns, its back-off
/// says.
type Rank = (u8, (Instant, u64));
/// The order in which they are dropped, the greatest first: gone, useless, never reached, failed, badly vouched for.
type Badness = (bool, bool, bool, u32, Source);

impl Peer {
    fn new(source: Source, referrer: Option<Netgroup>, now: Instant) -> Self {
        Self {
            source,
            referrer,
            state: State::Idle,
            since: now,
            failures: 0,
            retry_at: now,
            reached: false,
            answers: false,
            was_felt: false,
            useful: false,
            is_v5: false,
            recorded: source == Source::Remembered,
            queued: None,
            alive_at: None,
        }
    }

    /// Until when others are told of it, who is told only of what answered when it was last tried. Once its connection has
    /// ended without a blob, that is until it is to be tried again.
    fn told_until(&self) -> Option<Instant> {
        match self.state {
            State::Ourselves => None,
            _ if !self.answers => None,
            State::Idle if self.failures > 0 => Some(self.retry_at),
            _ => Some(Instant(u64::MAX)),
        }
    }

    /// It came to us, and nobody knows whether others reach it where it says that it listens.
    fn is_unproven(&self) -> bool {
        !self.answers && !self.was_felt
    }

    fn class(&self) -> u8 {
        match self.source {
            _ if self.useful => 0,
            Source::Configured | Source::Remembered => 1,
            _ if self.reached => 1,
            Source::Dht => FIRST_UNPROVEN,
            Source::Announced => FIRST_HEARSAY,
            Source::Exchanged => 4,
        }
    }

    fn is_dialled_hearsay(&self) -> bool {
        self.state == State::Dialing && self.class() >= FIRST_HEARSAY
    }

    fn badness(&self) -> Badness {
        (self.failures >= FAILURES_GONE, !self.useful, !self.reached, self.failures, self.source)
    }

    /// Whose share of our outbound connections it counts against; `None`: nobody's.
    fn dial_netgroup(&self, addr: &PeerAddr) -> Option<Netgroup> {
        match addr {
            PeerAddr::Onion(..) | PeerAddr::I2p(..) | PeerAddr::Dns(..) => Some(self.book_netgroup(addr)),
            PeerAddr::Ip(_) => Some(Netgroup::of(addr)).filter(|netgroup| !netgroup.is_local()),
        }
    }

    /// Whose share of its source it counts against.
    fn book_netgroup(&self, addr: &PeerAddr) -> Netgroup {
        self.referrer.clone().unwrap_or_else(|| Netgroup::of(addr))
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
    dialled: BTreeMap<Netgroup, usize>,
    /// Dials in flight of addresses that only a peer told of.
    hearsay: usize,
    /// Addresses of peers that came to us which nobody has tried.
    unproven: BTreeSet<PeerAddr>,
}

impl Orders {
    fn enter(&mut self, addr: &PeerAddr, peer: &Peer) {
        match (peer.state, peer.queued) {
            (State::Idle, Some(queued)) => drop(self.ready.insert(((peer.class(), queued), addr.clone()))),
            (State::Idle, None) => drop(self.waiting.insert((peer.retry_at, addr.clone()))),
            (State::Dialing | State::Connected(_), _) => {
                self.hearsay += usize::from(peer.is_dialled_hearsay());
                if let Some(netgroup) = peer.dial_netgroup(addr) {
                    *self.dialled.entry(netgroup).or_default() += 1;
                }
            }
            (State::Accepted(_), _) if peer.is_unproven() => drop(self.unproven.insert(addr.clone())),
            (State::Accepted(_) | State::Ourselves, _) => {}
        }
    }

    fn leave(&mut self, addr: &PeerAddr, peer: &Peer) {
        match (peer.state, peer.queued) {
            (State::Idle, Some(queued)) => drop(self.ready.remove(&((peer.class(), queued), addr.clone()))),
            (State::Idle, None) => drop(self.waiting.remove(&(peer.retry_at, addr.clone()))),
            (State::Dialing | State::Connected(_), _) => {
                self.hearsay -= usize::from(peer.is_dialled_hearsay());
                if let Some(netgroup) = peer.dial_netgroup(addr)
                    && let Some(count) = self.dialled.get_mut(&netgroup)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.dialled.remove(&netgroup);
                    }
                }
            }
            (State::Accepted(_), _) => drop(self.unproven.remove(addr)),
            (State::Ourselves, _) => {}
        }
    }
}

/// Which connection would make place for another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Any: there is no more room for connections.
    Any,
    /// One of this netgroup: its share is used up.
    Of(Netgroup),
}

/// The address book. Each idle address is in one of two orders, so that nobody looks at all addresses to find one.
#[derive(Default)]
pub(super) struct Book {
    peers: BTreeMap<PeerAddr, Peer>,
    orders: Orders,
    shares: Shares,
    /// Whom peers that ask are told of.
    alive: Alive,
    /// Nothing may be dialled under this share, and nothing has changed since that was found.
    exhausted: Option<usize>,
    /// How many addresses were dialled, so that each class has its turn.
    dials: u64,
    /// Addresses dropped that have a record.
    forgotten: Vec<PeerAddr>,
}

impl Book {
    /// Notes an address that no peer told of. `true`: it is new.
    pub(super) fn add(&mut self, addr: PeerAddr, source: Source, now: Instant) -> bool {
        self.note(addr, Peer::new(source, None, now))
    }

    /// Notes what the peer at `referrer` told, of itself or of others. `true`: it is new. A private address means
    /// nothing, or somebody else, where a public one told it.
    pub(super) fn told(&mut self, addr: PeerAddr, source: Source, referrer: &PeerAddr, now: Instant) -> bool {
        let fits = addr.is_public() || !referrer.is_public();
        fits && self.note(addr, Peer::new(source, Some(Netgroup::of(referrer)), now))
    }

    fn note(&mut self, addr: PeerAddr, new: Peer) -> bool {
        if let Some(known) = self.peers.get(&addr) {
            // Who vouches best for an address is who told of it.
            if new.source < known.source {
                self.shares.leave(known.source, known.book_netgroup(&addr), &addr);
                self.shares.enter(new.source, new.book_netgroup(&addr), &addr);
                self.change(&addr, |peer| (peer.source, peer.referrer) = (new.source, new.referrer));
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
        self.shares.enter(new.source, new.book_netgroup(&addr), &addr);
        self.orders.enter(&addr, &new);
        self.peers.insert(addr, new);
        true
    }

    /// Changes what is known of an address, and moves it to its place in the orders.
    fn change(&mut self, addr: &PeerAddr, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(addr) else { return };
        self.exhausted = None;
        self.orders.leave(addr, peer);
        let retry_at = peer.retry_at;
        change(peer);
        if peer.state != State::Idle || peer.retry_at != retry_at {
            peer.queued = None;
        }
        self.orders.enter(addr, peer);
        let until = peer.told_until().filter(|_| addr.is_exchangeable());
        match (peer.alive_at, until) {
            (None, Some(until)) => peer.alive_at = Some(self.alive.add(addr.clone(), until)),
            (Some(at), Some(until)) => self.alive.set(at, until),
            (Some(at), None) => {
                peer.alive_at = None;
                self.not_alive(at);
            }
            (None, None) => {}
        }
    }

    fn not_alive(&mut self, at: usize) {
        let moved = self.alive.remove(at).and_then(|moved| self.peers.get_mut(moved));
        if let Some(moved) = moved {
            moved.alive_at = Some(at);
        }
    }

    // --- shares of the book ---------------------------------------------------------------------------------

    /// Whether there is a place for a new address, if need be that of another one.
    fn make_room(&mut self, addr: &PeerAddr, new: &Peer) -> bool {
        if new.source != Source::Configured {
            let network = Netgroup::of(addr);
            let is_full = !network.is_local()
                && self.peers.range(network.range()).take(PEERS_PER_NETWORK_MAX).count()
                    == PEERS_PER_NETWORK_MAX;
            if is_full {
                let worst = worst(self.peers.range(network.range()));
                if !self.displace(worst, new) {
                    return false;
                }
            }
            let told = new.referrer.as_ref().and_then(|referrer| self.shares.netgroup(new.source, referrer));
            if let Some(told) = told.filter(|told| told.len() >= PEERS_PER_REFERRER_MAX) {
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
        if self.peers.len() < PEERS_KNOWN_MAX {
            return true;
        }
        let fullest = self.shares.fullest_source();
        fullest.is_some_and(|source| self.displace_in(source, addr, new))
    }

    /// Drops the worst address of `source`'s most crowded network or referrer: where the newcomer comes from a source or
    /// netgroup that has fewer, or that address is worse.
    fn displace_in(&mut self, source: Source, addr: &PeerAddr, new: &Peer) -> bool {
        let of_largest = |addrs: &BTreeSet<PeerAddr>| Some((addrs.len(), self.worst_of(addrs)?));
        let Some((count, worst)) = self.shares.largest(source).find_map(of_largest) else { return false };
        let own = self.shares.netgroup(source, &new.book_netgroup(addr)).map_or(0, BTreeSet::len);
        let has_less = if source == new.source {
            count > own + 1
        } else {
            self.shares.source(source) > self.shares.source(new.source) + 1
        };
        if has_less { self.drop_address(&worst.1) } else { self.displace(Some(worst), new) }
    }

    fn worst_of(&self, addrs: &BTreeSet<PeerAddr>) -> Option<(Badness, PeerAddr)> {
        worst(addrs.iter().filter_map(|addr| self.peers.get_key_value(addr)))
    }

    /// Drops `worst` if it is worse than the newcomer.
    fn displace(&mut self, worst: Option<(Badness, PeerAddr)>, new: &Peer) -> bool {
        worst.is_some_and(|(badness, addr)| badness > new.badness() && self.drop_address(&addr))
    }

    fn drop_address(&mut self, addr: &PeerAddr) -> bool {
        let Some(peer) = self.peers.remove(addr) else { return false };
        self.orders.leave(addr, &peer);
        self.shares.leave(peer.source, peer.book_netgroup(addr), addr);
        if let Some(at) = peer.alive_at {
            self.not_alive(at);
        }
        if peer.recorded {
            self.forgotten.push(addr.clone());
        }
        true
    }

    /// Addresses dropped since the last call whose records are of no use any more.
    pub(super) fn take_forgotten(&mut self) -> Vec<PeerAddr> {
        mem::take(&mut self.forgotten)
    }

    // --- dialling -------------------------------------------------------------------------------------------

    /// The address to dial next, if one is due, with at most `share` outbound connections in one netgroup. Every other time it
    /// is one of the best class, the times between those that anybody can make up have their turns.
    pub(super) fn next_dial(
        &mut self,
        bans: &Bans,
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
        let may_hear = self.orders.hearsay < HEARSAY_DIALS_MAX;
        let classes = in_turn.chain(0..CLASSES).filter(|class| may_hear || *class < FIRST_HEARSAY);
        let mut candidates = classes.flat_map(|class| self.candidates(bans, class, unix));
        let next = candidates.find(|(_, netgroup)| self.has_share(netgroup.as_ref(), share));
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
            if let Some(peer) = self.peers.get_mut(&addr) {
                peer.queued = Some(queued);
                self.orders.ready.insert(((peer.class(), queued), addr));
            }
        }
    }

    /// Addresses of a class whose back-off is over, the first first, with whose share each counts against.
    fn candidates(
        &self,
        bans: &Bans,
        class: u8,
        unix: UnixTime,
    ) -> impl Iterator<Item = (&PeerAddr, Option<Netgroup>)> {
        let ready = self.orders.ready.range(((class, (Instant(0), 0)), first_address())..);
        let ready = ready.map_while(move |(rank, addr)| (rank.0 == class).then_some(addr));
        let allowed = ready.filter(move |addr| !bans.has(addr, unix));
        allowed.map(|addr| (addr, self.peers.get(addr).and_then(|peer| peer.dial_netgroup(addr))))
    }

    /// Whether an address may be dialled before others: it answered last time or was never dialled, and its netgroup has less than
    /// its share.
    pub(super) fn may_be_first(&self, addr: &PeerAddr, share: usize) -> bool {
        self.peers.get(addr).is_some_and(|peer| {
            let may_answer = peer.answers || peer.failures == 0;
            peer.state == State::Idle
                && may_answer
                && self.has_share(peer.dial_netgroup(addr).as_ref(), share)
        })
    }

    fn has_share(&self, netgroup: Option<&Netgroup>, share: usize) -> bool {
        netgroup.is_none_or(|netgroup| self.orders.dialled.get(netgroup).copied().unwrap_or(0) < share)
    }

    /// Whose connection must be given up for the best address that waits for one; `None`: no address waits.
    pub(super) fn wanted_place(&self, bans: &Bans, unix: UnixTime, share: usize) -> Option<Place> {
        let (_, netgroup) = (0..CLASSES).find_map(|class| self.candidates(bans, class, unix).next())?;
        Some(netgroup.filter(|netgroup| !self.has_share(Some(netgroup), share)).map_or(Place::Any, Place::Of))
    }

    /// Whether giving up the connection with `addr` makes the place.
    pub(super) fn makes_place(&self, addr: &PeerAddr, place: &Place) -> bool {
        match place {
            Place::Any => true,
            Place::Of(netgroup) => {
                self.peers.get(addr).and_then(|peer| peer.dial_netgroup(addr)).as_ref() == Some(netgroup)
            }
        }
    }

    /// The address of a peer that came to us, to be dialled to see whether it answers there; each once.
    pub(super) fn next_feeler(&mut self) -> Option<PeerAddr> {
        let addr = self.orders.unproven.first()?.clone();
        self.change(&addr, |peer| peer.was_felt = true);
        Some(addr)
    }

    /// Whether there is one.
    pub(super) fn has_feeler(&self) -> bool {
        !self.orders.unproven.is_empty()
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
        self.change(addr, |peer| (peer.state, peer.was_felt) = (State::Accepted(conn), false));
    }

    /// It answered our dial.
    pub(super) fn keyed(&mut self, addr: &PeerAddr) {
        if self.peers.get(addr).is_some_and(|peer| !peer.answers) {
            self.change(addr, |peer| (peer.reached, peer.answers) = (true, true));
        }
    }

    /// It did not.
    pub(super) fn unreached(&mut self, addr: &PeerAddr) {
        self.change(addr, |peer| peer.answers = false);
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

    /// The peer served a blob.
    pub(super) fn served(&mut self, addr: &PeerAddr) {
        if self.peers.get(addr).is_some_and(|peer| !peer.useful) {
            self.change(addr, |peer| peer.useful = true);
        }
    }

    /// The peer is to be known after a restart. `true`: it has no record yet.
    pub(super) fn remember(&mut self, addr: &PeerAddr) -> bool {
        self.peers.get_mut(addr).is_some_and(|peer| !mem::replace(&mut peer.recorded, true))
    }

    /// Notes whether the peer speaks v5.
    pub(super) fn speaks(&mut self, addr: &PeerAddr, is_v5: bool) {
        if let Some(peer) = self.peers.get_mut(addr) {
            peer.is_v5 = is_v5;
        }
    }

    /// Whether the peer spoke v5 last time, so that its HELLO need not be waited for.
    pub(super) fn is_v5(&self, addr: &PeerAddr) -> bool {
        self.peers.get(addr).is_some_and(|peer| peer.is_v5)
    }

    pub(super) fn connection(&self, addr: &PeerAddr) -> Option<ConnId> {
        match self.peers.get(addr)?.state {
            State::Connected(conn) | State::Accepted(conn) => Some(conn),
            State::Idle | State::Dialing | State::Ourselves => None,
        }
    }

    /// The addresses that a peer at `asker` is told of.
    pub(super) fn exchanged(&self, asker: &PeerAddr, now: Instant, rng: &mut Rng) -> Vec<PeerAddr> {
        self.alive.choose(asker, now, rng)
    }

    pub(super) fn known(&self) -> usize {
        self.peers.len()
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
mod tests;
