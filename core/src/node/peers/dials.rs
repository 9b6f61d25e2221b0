//! Which connections the node opens, keeps and gives up.

use super::super::conns::Conns;
use super::super::cx::Cx;
use super::super::downloads::Downloads;
use super::super::timers::Timer;
use super::Peers;
use crate::ids::ConnId;
use crate::limits::{
    DIALS_MAX, DIALS_RESERVED, FETCH_CONNECTIONS, FETCH_CONNECTIONS_OWN, GATEWAYS_MAX, KEPT_CONNECTIONS,
    OUTBOUND_MAX, OUTBOUND_PER_NETWORK_MIN, OUTBOUND_RESERVED, OUTBOUND_SHARE, ROTATION_INTERVAL,
    ROTATION_INTERVAL_MOVING,
};
use crate::suite::Suite;
use crate::time::Instant;

/// What connections are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// News of the channels that are followed.
    News,
    /// A publication, whose gateways are dialled whoever else is connected.
    Publication,
    /// Blobs that are missing; nobody connected is known to have any of them.
    AnyBlob,
    /// Blobs that are missing.
    Blobs,
}

impl Need {
    pub(super) fn is_blobs(self) -> bool {
        matches!(self, Self::Blobs | Self::AnyBlob)
    }

    /// How many connections the node opens, where it has `inbound` others.
    fn connections(self, inbound: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::News => KEPT_CONNECTIONS,
            Self::Publication => KEPT_CONNECTIONS + GATEWAYS_MAX,
            Self::AnyBlob => OUTBOUND_MAX - OUTBOUND_RESERVED,
            // About as many as others have, so that all are asked for equally much.
            Self::Blobs => FETCH_CONNECTIONS.saturating_sub(inbound).max(FETCH_CONNECTIONS_OWN),
        }
    }
}

/// When a useless connection was last given up for another.
#[derive(Default)]
pub(super) struct Rotation {
    at: Instant,
    /// What had been received by then.
    bytes_received: u64,
}

impl Peers {
    /// Dials, and looks for more peers, as far as connections are needed. A connection that is to be closed for another
    /// address's sake, after which [`Self::dial_more`] goes on.
    pub(crate) fn connect<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        downloads: &Downloads,
        need: Need,
    ) -> Option<ConnId> {
        let (inbound, outbound) = conns.count();
        let wanted = need.connections(inbound);
        self.dial_up_to(cx, outbound, wanted);
        let has_nobody = self.may_dial(outbound, wanted);
        if has_nobody || (outbound < wanted && need != Need::Blobs) {
            self.seek_peers(cx, conns, downloads, need, has_nobody);
        } else {
            cx.cancel_timer(Timer::Seek);
        }
        let mut useless = None;
        if need.is_blobs() && self.dials < DIALS_MAX - DIALS_RESERVED {
            useless = self.rotate(cx, conns, downloads, wanted);
        } else {
            cx.cancel_timer(Timer::Rotation);
        }
        self.wait_to_dial(cx, outbound, wanted);
        useless
    }

    /// Dials in place of a connection that was closed for it.
    pub(crate) fn dial_more<S: Suite>(&mut self, cx: &mut Cx, conns: &Conns<S>, need: Need) {
        let (inbound, outbound) = conns.count();
        let wanted = need.connections(inbound);
        self.dial_up_to(cx, outbound, wanted);
        self.wait_to_dial(cx, outbound, wanted);
    }

    fn may_dial(&self, outbound: usize, wanted: usize) -> bool {
        outbound + self.dials < wanted && self.dials < DIALS_MAX - DIALS_RESERVED
    }

    fn dial_up_to(&mut self, cx: &mut Cx, outbound: usize, wanted: usize) {
        while self.may_dial(outbound, wanted) {
            let (now, unix) = (cx.now(), cx.unix());
            let Some(addr) = self.book.next_dial(&self.bans, now, unix, share(wanted), cx.rng()) else {
                return;
            };
            self.book.dialing(&addr);
            self.dial(cx, addr);
        }
    }

    fn wait_to_dial(&self, cx: &mut Cx, outbound: usize, wanted: usize) {
        let next = self.book.next_retry().filter(|_| self.may_dial(outbound, wanted));
        cx.set_or_cancel_timer(Timer::Dial, next);
    }

    /// While an address waits that no connection is left for, or none of its netgroup's share: a connection that has served
    /// nothing, so that peers that never serve cannot hold all of them for ever.
    fn rotate<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &Conns<S>,
        downloads: &Downloads,
        wanted: usize,
    ) -> Option<ConnId> {
        let (bytes_received, _) = downloads.bytes();
        let is_moving = bytes_received > self.rotation.bytes_received;
        let pause = if is_moving { ROTATION_INTERVAL_MOVING } else { ROTATION_INTERVAL };
        let due = self.rotation.at + pause;
        if cx.now() < due {
            cx.set_timer(Timer::Rotation, due);
            return None;
        }
        let Some(place) = self.book.wanted_place(&self.bans, cx.unix(), share(wanted)) else {
            cx.cancel_timer(Timer::Rotation);
            return None;
        };
        self.rotation = Rotation { at: cx.now(), bytes_received };
        cx.set_timer_in(Timer::Rotation, ROTATION_INTERVAL);
        conns.oldest_outbound(|conn, addr, opened| {
            downloads.is_useless(cx.now(), conns, conn, opened) && self.book.makes_place(addr, &place)
        })
    }
}

/// Outbound connections that one netgroup may have.
pub(super) fn share(wanted: usize) -> usize {
    (wanted / OUTBOUND_SHARE).max(OUTBOUND_PER_NETWORK_MIN)
}
