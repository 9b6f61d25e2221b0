//! Finding more peers while there are too few (`docs/protocol.md` §11).
//!
//! A node that opened fewer connections than it wants asks its peers for others, one after the other, each ever more rarely.
//! While blobs are missing, it asks only peers that have none of them, unless it has few connections, and each of these at once
//! where no peer is known to have a missing blob. Where it has no address to dial and no peer sends blobs, it opens feeler
//! connections, once each, to the inbound peers that say that they listen: only a feeler shows whether they can be reached, and
//! only the addresses that answered are given out. So peers that all know only one node find each other through it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::conns::Conns;
use super::super::cx::Cx;
use super::super::downloads::Downloads;
use super::super::table::ConnTable;
use super::super::timers::Timer;
use super::dials::Need;
use super::{Peers, Source};
use crate::addr::PeerAddr;
use crate::ids::{BlobId, ConnId};
use crate::limits::{
    DIALS_MAX, DIALS_RESERVED, FETCH_CONNECTIONS_FEW, FIND_PEERS_INTERVAL_MAX, FIND_PEERS_INTERVAL_MIN,
    FIND_PEERS_INTERVAL_START, FIND_PEERS_PAUSE, FIND_PEERS_PAUSE_DIALLING,
};
use crate::suite::Suite;
use crate::time::Instant;

/// When a connection's peer may be asked for others next, and the interval after that.
struct Asking {
    due: Instant,
    interval: Duration,
    /// The peer has not been asked yet.
    is_new: bool,
}

impl Asking {
    fn new(now: Instant) -> Self {
        Self { due: now, interval: FIND_PEERS_INTERVAL_START, is_new: true }
    }

    fn asked(&mut self, now: Instant, is_v6: bool) {
        let interval = if is_v6 { self.interval } else { self.interval.max(FIND_PEERS_INTERVAL_MIN) };
        (self.due, self.is_new) = (now + interval, false);
        self.interval = (interval * 2).min(FIND_PEERS_INTERVAL_MAX);
    }

    /// Shortens the interval, as peers are needed more than before.
    fn hurry(&mut self, now: Instant) {
        self.interval = self.interval.min(FIND_PEERS_INTERVAL_MIN);
        self.due = self.due.min(now + self.interval);
    }
}

/// The schedule of asking peers for others.
pub(super) struct Seek {
    /// When a peer may be asked for others next, or a feeler sent, if peers are needed.
    next: Instant,
    /// When that was last done.
    last: Option<Instant>,
    asking: ConnTable<Asking>,
    /// The same by when they may be asked, so that the next is found without a look at each.
    by_due: BTreeSet<(Instant, ConnId)>,
}

impl Seek {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now, last: None, asking: ConnTable::default(), by_due: BTreeSet::new() }
    }

    pub(super) fn opened(&mut self, conn: ConnId, now: Instant) {
        self.asking.insert(conn, Asking::new(now));
        self.by_due.insert((now, conn));
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        if let Some(asking) = self.asking.remove(conn) {
            self.by_due.remove(&(asking.due, conn));
        }
    }

    fn asked(&mut self, conn: ConnId, now: Instant, is_v6: bool) {
        if let Some(asking) = self.asking.get_mut(conn) {
            self.by_due.remove(&(asking.due, conn));
            asking.asked(now, is_v6);
            self.by_due.insert((asking.due, conn));
        }
    }

    fn hurry(&mut self, now: Instant) {
        self.asking.iter_mut().for_each(|(_, asking)| asking.hurry(now));
        self.by_due = self.asking.iter().map(|(conn, asking)| (asking.due, conn)).collect();
    }

    /// Returns the connections that may be asked and were not yet.
    fn new_ones<S: Suite>(&self, conns: &Conns<S>, downloads: &Downloads) -> Vec<ConnId> {
        let new = self.asking.iter().filter(|(_, asking)| asking.is_new).map(|(conn, _)| conn);
        new.filter(|conn| may_tell(conns, downloads, *conn)).collect()
    }

    /// Returns the connection that is asked next, and when.
    fn next_to_ask<S: Suite>(&self, conns: &Conns<S>, downloads: &Downloads) -> Option<(Instant, ConnId)> {
        self.by_due.iter().copied().find(|(_, conn)| may_tell(conns, downloads, *conn))
    }
}

/// Whether a peer may be asked for others. One that may have a missing blob is of more use than that where there are others, and a v5
/// peer may answer one request and close.
fn may_tell<S: Suite>(conns: &Conns<S>, downloads: &Downloads, conn: ConnId) -> bool {
    let (inbound, outbound) = conns.count();
    let is_needed = inbound + outbound < FETCH_CONNECTIONS_FEW && conns.speaks_v6(conn);
    conns.is_askable(conn) && (is_needed || downloads.is_of_no_use(conns, conn))
}

impl Peers {
    /// Checks at once whether to ask for peers or to send a feeler, as more of either may be possible.
    pub(crate) fn seek_soon(&mut self, cx: &Cx) {
        self.seek.next = cx.now();
    }

    /// Asks for peers sooner, as they are needed more than before.
    pub(crate) fn hurry(&mut self, cx: &Cx) {
        self.seek.hurry(cx.now());
    }

    /// Takes the next step to find peers, once it is due, as there are too few connections. `has_nobody`: there is no address
    /// to dial.
    pub(super) fn seek_peers<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        downloads: &Downloads,
        need: Need,
        has_nobody: bool,
    ) {
        let now = cx.now();
        if now >= self.seek.next {
            if need == Need::AnyBlob {
                // No peer is known to have a missing blob, so each new peer is asked at once.
                for conn in self.seek.new_ones(conns, downloads) {
                    self.ask_for_peers(cx, conns, downloads, conn);
                }
            }
            let pause = if has_nobody { FIND_PEERS_PAUSE } else { FIND_PEERS_PAUSE_DIALLING };
            let may_feel = has_nobody && need != Need::Blobs;
            if self.seek.last.is_none_or(|last| now >= last + pause) {
                let due = self.seek.next_to_ask(conns, downloads).filter(|(due, _)| *due <= now);
                if let Some((_, conn)) = due {
                    self.ask_for_peers(cx, conns, downloads, conn);
                }
                let feels = may_feel && self.send_feelers(cx);
                if due.is_some() || feels {
                    self.seek.last = Some(now);
                }
            }
            let asks = self.seek.next_to_ask(conns, downloads);
            let next = match asks {
                _ if may_feel && self.book.has_feeler() => now,
                Some((due, _)) => due,
                None => now + FIND_PEERS_INTERVAL_MIN,
            };
            self.seek.next = self.seek.last.map_or(next, |last| next.max(last + pause));
        }
        cx.set_timer(Timer::Seek, self.seek.next);
    }

    fn ask_for_peers<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        downloads: &Downloads,
        conn: ConnId,
    ) {
        // A v5 peer may know peers that have a blob. The question does not tell a v6 peer what we want.
        let (missing, random) = (downloads.example(), BlobId(cx.rng().bytes_32()));
        let is_v6 = conns.speaks_v6(conn);
        let Some(line) = conns.get_mut(conn) else { return };
        line.ask_for_peers(missing.filter(|_| !is_v6).unwrap_or(random));
        self.seek.asked(conn, cx.now(), is_v6);
    }

    /// Opens feeler connections to inbound peers, each of which ends as soon as it has answered. `true`: at least one.
    fn send_feelers(&mut self, cx: &mut Cx) -> bool {
        let before = self.dials;
        while self.dials < DIALS_MAX - DIALS_RESERVED
            && let Some(addr) = self.book.next_feeler()
        {
            self.dial(cx, addr);
        }
        self.dials > before
    }

    /// Takes the answer to our FIND_PEERS.
    pub(crate) fn on_peers<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &Conns<S>,
        conn: ConnId,
        peers: Vec<PeerAddr>,
    ) {
        let Some(referrer) = conns.address(conn).cloned() else { return };
        for peer in peers {
            self.book.told(peer, Source::Exchanged, &referrer, cx.now());
        }
    }
}
