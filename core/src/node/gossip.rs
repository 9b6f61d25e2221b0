//! ANNOUNCE gossip: peers find a node that only has an onion or I2P name without a DHT (`docs/protocol.md` §12).
//!
//! A name is passed on once, for a limited number of hops. IP addresses are never passed on: gossip about a third party's
//! IP address would make many nodes connect to it. A peer is believed about an IP address only if it connects from it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::conns::Conns;
use super::cx::Cx;
use super::peers::Source;
use super::quotas::Quotas;
use super::table::ConnTable;
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::bucket::Bucket;
use crate::codec::Message;
use crate::ids::{BlobId, ConnId, Topic};
use crate::limits::{ANNOUNCE_HOPS_MAX, ANNOUNCE_INTERVAL, ANNOUNCES_PER_MINUTE, ANNOUNCES_SEEN_MAX};
use crate::suite::Suite;
use crate::time::Instant;

/// An announce: a blob or topic, an address that serves it, and the hops that are left.
type Announce = (BlobId, PeerAddr, u8);

/// An address for the address book, its source, and its referrer.
type Found = (PeerAddr, Source, PeerAddr);

/// The gossip of announces.
pub(super) struct Gossip {
    /// The name under which peers reach us, if there is one.
    own: Option<PeerAddr>,
    /// How many announces each host may send.
    taken: Quotas,
    /// How many announces each connection may be sent.
    sent: ConnTable<Bucket>,
    /// When each announce was last taken.
    seen: BTreeMap<(BlobId, PeerAddr), Instant>,
    /// The same announces by age.
    by_age: BTreeSet<(Instant, BlobId, PeerAddr)>,
}

impl Gossip {
    pub(super) fn new(own: Option<PeerAddr>) -> Self {
        Self {
            own,
            taken: Quotas::new(ANNOUNCES_PER_MINUTE),
            sent: ConnTable::default(),
            seen: BTreeMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    /// Changes the name under which peers reach us; returns whether there is another one to announce.
    pub(super) fn set_own(&mut self, cx: &mut Cx, own: Option<PeerAddr>) -> bool {
        let has_changed = self.own != own;
        self.own = own;
        if self.own.is_none() {
            cx.cancel_timer(Timer::Announce);
        }
        has_changed && self.own.is_some()
    }

    pub(super) fn opened(&mut self, conn: ConnId, now: Instant) {
        self.sent.insert(conn, Bucket::new(ANNOUNCES_PER_MINUTE, ANNOUNCES_PER_MINUTE, now));
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.sent.remove(conn);
    }

    /// Whether an announce is unseen for half an [`ANNOUNCE_INTERVAL`]; notes it then. At [`ANNOUNCES_SEEN_MAX`] the oldest
    /// is forgotten.
    fn is_unseen(&mut self, id: BlobId, addr: &PeerAddr, now: Instant) -> bool {
        let key = (id, addr.clone());
        if let Some(at) = self.seen.get(&key) {
            if now.since(*at) < ANNOUNCE_INTERVAL / 2 {
                return false;
            }
            self.by_age.remove(&(*at, id, addr.clone()));
        }
        if self.seen.len() >= ANNOUNCES_SEEN_MAX
            && let Some((_, id, addr)) = self.by_age.pop_first()
        {
            self.seen.remove(&(id, addr));
        }
        self.seen.insert(key, now);
        self.by_age.insert((now, id, addr.clone()));
        true
    }

    /// Takes a peer's announce, and returns the address for the address book. `is_followed`: whether an id is the topic of a
    /// channel that we follow.
    pub(super) fn on_announce<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (id, addr, hops): Announce,
        is_followed: impl Fn(&BlobId) -> bool,
    ) -> Option<Found> {
        let now = cx.now();
        let peer = conns.peer(conn)?;
        if !addr.is_exchangeable() || !self.taken.take(conn, peer, now) {
            return None;
        }
        match &addr {
            PeerAddr::Ip(socket) => {
                // Believed only about the address that it comes from, so that no peer can send us to a third party.
                let is_own = matches!(peer, PeerAddr::Ip(peer) if peer.ip() == socket.ip());
                let referrer = peer.clone();
                return is_own.then_some((addr, Source::Announced, referrer));
            }
            PeerAddr::Onion(..) | PeerAddr::I2p(..) => {}
            // No DNS name is exchangeable.
            PeerAddr::Dns(..) => return None,
        }
        let referrer = conns.address(conn)?.clone();
        if Some(&addr) == self.own.as_ref() || !self.is_unseen(id, &addr, now) {
            return None;
        }
        if let Some(hops) = hops.checked_sub(1) {
            self.flood(cx, conns, &[(id, addr.clone(), hops)], Some(conn));
        }
        is_followed(&id).then_some((addr, Source::Exchanged, referrer))
    }

    /// Sends announces to every v6 peer that has room, except the one that they came from.
    fn flood<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        announces: &[Announce],
        from: Option<ConnId>,
    ) {
        for id in conns.ids().into_iter().filter(|id| Some(*id) != from) {
            self.send(cx, conns, id, announces);
        }
    }

    fn send<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, conn: ConnId, announces: &[Announce]) {
        let Some(address) = conns.address(conn).filter(|_| conns.speaks_v6(conn)).cloned() else { return };
        let (Some(sent), Some(line)) = (self.sent.get_mut(conn), conns.get_mut(conn)) else { return };
        for (id, addr, hops) in announces {
            if *addr == address || !line.has_control_room() {
                continue;
            }
            if sent.take(cx.now()) {
                line.push(&Message::Announce(*id, addr.clone(), *hops));
            }
        }
    }

    fn own_announces(&self, topics: impl Iterator<Item = Topic>) -> Vec<Announce> {
        let own = self.own.iter().cloned().cycle();
        topics.zip(own).map(|(topic, own)| (BlobId(topic.0), own, ANNOUNCE_HOPS_MAX)).collect()
    }

    /// Announces our own name to a peer that has just connected, for the swarms of these topics.
    pub(super) fn announce_to<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        topics: impl Iterator<Item = Topic>,
    ) {
        let own = self.own_announces(topics);
        self.send(cx, conns, conn, &own);
    }

    /// Announces our own name to all peers, and again after each [`ANNOUNCE_INTERVAL`].
    pub(super) fn announce<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        topics: impl Iterator<Item = Topic>,
    ) {
        if self.own.is_some() {
            let own = self.own_announces(topics);
            self.flood(cx, conns, &own, None);
            cx.set_timer_in(Timer::Announce, ANNOUNCE_INTERVAL);
        }
    }
}
