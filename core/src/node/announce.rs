//! ANNOUNCE flooding: how a node that only has an onion or I2P name is found without a DHT (`docs/protocol.md` §12).
//!
//! Names are carried on, so many hops and each once; IP addresses never are: a flood that names a third party's IP
//! address would make many nodes connect to it. An IP address is believed of the connection it comes over.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::peers::Source;
use super::quotas::Quotas;
use super::{Node, Timer};
use crate::addr::PeerAddr;
use crate::codec::Message;
use crate::ids::{BlobId, ConnId};
use crate::limits::{ANNOUNCE_HOPS_MAX, ANNOUNCE_INTERVAL, ANNOUNCES_PER_MINUTE, ANNOUNCES_SEEN_MAX};
use crate::suite::Suite;
use crate::time::Instant;

/// The announces seen lately.
pub(super) struct Flood {
    /// How many each host may send.
    taken: Quotas,
    seen: BTreeMap<(BlobId, PeerAddr), Instant>,
    /// The same by age.
    by_age: BTreeSet<(Instant, BlobId, PeerAddr)>,
}

impl Flood {
    pub(super) fn new() -> Self {
        let taken = Quotas::new(ANNOUNCES_PER_MINUTE);
        Self { taken, seen: BTreeMap::new(), by_age: BTreeSet::new() }
    }

    /// `true`: it was not seen for half an [`ANNOUNCE_INTERVAL`]. At [`ANNOUNCES_SEEN_MAX`] the oldest is forgotten.
    fn is_new(&mut self, id: BlobId, addr: &PeerAddr, now: Instant) -> bool {
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
}

impl<S: Suite> Node<S> {
    pub(super) fn on_announce(&mut self, conn: ConnId, id: BlobId, addr: PeerAddr, hops: u8) {
        let now = self.now;
        let Some(entry) = self.conns.get(conn) else { return };
        if !addr.is_exchangeable() || !self.flood.taken.take(conn, &entry.peer, now) {
            return;
        }
        match &addr {
            PeerAddr::Ip(socket) => {
                // Believed only about the address that it comes from, so that nobody can send us to a third party.
                if matches!(&entry.peer, PeerAddr::Ip(peer) if peer.ip() == socket.ip()) {
                    let teller = entry.peer.clone();
                    self.peers.told(addr, Source::Announced, &teller, now);
                }
                return;
            }
            PeerAddr::Onion(..) | PeerAddr::I2p(..) => {}
            // None is exchangeable.
            PeerAddr::Dns(..) => return,
        }
        let teller = entry.address().clone();
        if Some(&addr) == self.config.own_address.as_ref() || !self.flood.is_new(id, &addr, now) {
            return;
        }
        if self.channels.values().any(|c| c.topic.0 == id.0) {
            self.peers.told(addr.clone(), Source::Exchanged, &teller, now);
        }
        if let Some(hops) = hops.checked_sub(1) {
            self.flood(&[(id, addr, hops)], Some(conn));
        }
    }

    /// Sends announces to every v6 peer that has room, but the one they came from.
    fn flood(&mut self, announces: &[(BlobId, PeerAddr, u8)], from: Option<ConnId>) {
        for id in self.conns.ids().into_iter().filter(|id| Some(*id) != from) {
            self.send_announces(id, announces);
        }
    }

    fn send_announces(&mut self, conn: ConnId, announces: &[(BlobId, PeerAddr, u8)]) {
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn).filter(|e| e.gossip.is_on()) else { return };
        for (id, addr, hops) in announces {
            if addr == entry.address() || !entry.conn.has_control_room() {
                continue;
            }
            if entry.announces_out.take(now) {
                entry.conn.push(&Message::Announce(*id, addr.clone(), *hops));
            }
        }
        self.wake_driver(conn);
    }

    fn own_announces(&self) -> Vec<(BlobId, PeerAddr, u8)> {
        let Some(own) = &self.config.own_address else { return Vec::new() };
        let heads = self.channels.values().filter(|c| c.sequence > 0);
        heads.map(|c| (BlobId(c.topic.0), own.clone(), ANNOUNCE_HOPS_MAX)).collect()
    }

    /// Our own name, for a peer that is new.
    pub(super) fn announce_to(&mut self, conn: ConnId) {
        let own = self.own_announces();
        self.send_announces(conn, &own);
    }

    /// Our own name, for everybody, now and each [`ANNOUNCE_INTERVAL`].
    pub(super) fn announce_own(&mut self) {
        if self.config.own_address.is_some() {
            let own = self.own_announces();
            self.flood(&own, None);
            self.timers.set(Timer::Announce, self.now + ANNOUNCE_INTERVAL);
        }
    }
}
