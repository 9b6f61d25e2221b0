//! Places of dials and of connections that are left for swarms in which nobody is connected, so that those whose peers are gone do
//! not keep another waiting. A look-up for such a swarm has one of the addresses that it finds dialled at once, and one at a
//! time. An address that failed waits in the book as all do, so those of gone peers hold such a place once.

use alloc::collections::BTreeMap;

use super::super::conns::Conns;
use super::super::cx::Cx;
use super::super::downloads::Downloads;
use super::Peers;
use super::dials::share;
use crate::addr::PeerAddr;
use crate::ids::{ConnId, Topic};
use crate::limits::{DIALS_MAX, DIALS_RESERVED, OUTBOUND_MAX, OUTBOUND_RESERVED};
use crate::suite::Suite;

/// The dials under way in places that are left for such swarms.
#[derive(Default)]
pub(super) struct Reserved {
    dials: BTreeMap<PeerAddr, Topic>,
}

impl Reserved {
    fn has_room_for(&self, topic: &Topic) -> bool {
        self.dials.len() < DIALS_RESERVED && !self.dials.values().any(|dialled| dialled == topic)
    }

    pub(super) fn dial_ended(&mut self, addr: &PeerAddr) {
        self.dials.remove(addr);
    }
}

/// An address that is dialled at once.
pub(crate) struct Place {
    addr: PeerAddr,
    taken_from: Option<ConnId>,
}

impl Place {
    /// The connection that must give way.
    pub(crate) fn taken_from(&self) -> Option<ConnId> {
        self.taken_from
    }
}

impl Peers {
    /// The address to dial at once, of those that were found for a swarm in which nobody is connected.
    pub(crate) fn reserved_place<S: Suite>(
        &self,
        cx: &Cx,
        conns: &Conns<S>,
        downloads: &Downloads,
        topic: &Topic,
        found: &[PeerAddr],
    ) -> Option<Place> {
        if self.dials >= DIALS_MAX || !self.reserved.has_room_for(topic) {
            return None;
        }
        let share = share(OUTBOUND_MAX - OUTBOUND_RESERVED);
        let may_be =
            |addr: &&PeerAddr| self.book.may_be_first(addr, share) && !self.bans.has(addr, cx.unix());
        let addr = found.iter().find(may_be)?.clone();
        let (_, outbound) = conns.count();
        if outbound + self.dials < OUTBOUND_MAX {
            return Some(Place { addr, taken_from: None });
        }
        let is_useless = |conn, opened| {
            downloads.is_useless(cx.now(), conns, conn, opened) || downloads.is_at_rest(cx.now(), conns, conn)
        };
        let taken_from = conns.oldest_outbound(|conn, _, opened| is_useless(conn, opened))?;
        Some(Place { addr, taken_from: Some(taken_from) })
    }

    pub(crate) fn dial_reserved(&mut self, cx: &mut Cx, topic: Topic, place: Place) {
        self.reserved.dials.insert(place.addr.clone(), topic);
        self.book.dialing(&place.addr);
        self.dial(cx, place.addr);
    }
}
