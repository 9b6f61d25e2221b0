//! Peers of peers: whom others are told of, and finding more while there are too few (`docs/protocol.md` §11).
//!
//! A node that opened fewer connections than it wants asks the peers that it has, one after the other, each ever more
//! rarely; while blobs lack, those that have none of them, and each of these at once where nobody is known to have what
//! lacks. Where it has nobody to dial and nothing is brought, it dials back, once each, those that came to it and say that
//! they listen: whether others reach them there, nobody knows before, and only who answered is told of. So peers that all
//! know one node only find each other through it.

use alloc::vec::Vec;
use core::time::Duration;

use super::super::conns::{Conns, Entry};
use super::super::cx::Cx;
use super::super::table::ConnTable;
use super::super::timers::Timer;
use super::dials::Need;
use super::{Peers, Source};
use crate::addr::PeerAddr;
use crate::ids::{BlobId, ConnId};
use crate::limits::{
    FIND_PEERS_INTERVAL_MAX, FIND_PEERS_INTERVAL_MIN, FIND_PEERS_PAUSE, FIND_PEERS_PAUSE_DIALLING,
};
use crate::suite::Suite;
use crate::time::Instant;

/// When a connection's peer may be asked for others, and how long after that again.
struct Asking {
    due: Instant,
    interval: Duration,
    /// It was not asked yet.
    is_new: bool,
}

impl Asking {
    fn new(now: Instant) -> Self {
        Self { due: now, interval: FIND_PEERS_INTERVAL_MIN, is_new: true }
    }

    fn asked(&mut self, now: Instant) {
        (self.due, self.is_new) = (now + self.interval, false);
        self.interval = (self.interval * 2).min(FIND_PEERS_INTERVAL_MAX);
    }

    /// Others are needed more than they were.
    fn hurry(&mut self, now: Instant) {
        self.interval = FIND_PEERS_INTERVAL_MIN;
        self.due = self.due.min(now + self.interval);
    }
}

/// Who is asked for others when.
pub(super) struct Seek {
    /// When a peer may be asked for others, or a feeler sent, if some are needed.
    next: Instant,
    /// When that was done last.
    last: Option<Instant>,
    asking: ConnTable<Asking>,
}

impl Seek {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now, last: None, asking: ConnTable::default() }
    }

    pub(super) fn opened(&mut self, conn: ConnId, now: Instant) {
        self.asking.insert(conn, Asking::new(now));
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.asking.remove(conn);
    }

    /// The connections that may be asked, where `epoch` is that of the missing blobs.
    fn candidates<S: Suite>(
        &self,
        conns: &Conns<S>,
        epoch: Option<u64>,
    ) -> impl Iterator<Item = (ConnId, &Asking)> {
        self.asking.iter().filter(move |(id, _)| conns.get(*id).is_some_and(|entry| may_tell(entry, epoch)))
    }

    /// The connection that is asked next, and when.
    fn next_to_ask<S: Suite>(&self, conns: &Conns<S>, epoch: Option<u64>) -> Option<(Instant, ConnId)> {
        self.candidates(conns, epoch).map(|(id, asking)| (asking.due, id)).min()
    }
}

/// Whether the peer can be asked for others now. One that may have a missing blob is of more use than that, and a v5 peer may
/// answer one request and close.
fn may_tell<S: Suite>(entry: &Entry<S>, epoch: Option<u64>) -> bool {
    let is_of_no_other_use = || entry.outstanding() == 0 && epoch.is_none_or(|epoch| entry.dry == epoch);
    entry.is_askable() && is_of_no_other_use()
}

impl Peers {
    /// A connection may be asked for peers now, or a feeler sent, that could not before.
    pub(crate) fn seek_soon(&mut self, cx: &Cx) {
        self.seek.next = cx.now();
    }

    /// Others are needed more than they were.
    pub(crate) fn hurry(&mut self, cx: &Cx) {
        self.seek.asking.iter_mut().for_each(|(_, asking)| asking.hurry(cx.now()));
    }

    /// There are too few connections: takes the next step to find somebody, when that is due. `has_nobody`: to dial.
    pub(super) fn seek_peers<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        need: Need,
        has_nobody: bool,
    ) {
        let now = cx.now();
        let epoch = need.epoch();
        if now >= self.seek.next {
            if need.is_starved() {
                // Nobody is known to have what is missing, so each new peer is asked at once.
                let new = self.seek.candidates(conns, epoch).filter(|(_, asking)| asking.is_new);
                let new: Vec<ConnId> = new.map(|(id, _)| id).collect();
                new.into_iter().for_each(|conn| self.ask_for_peers(cx, conns, need, conn));
            }
            let pause = if has_nobody { FIND_PEERS_PAUSE } else { FIND_PEERS_PAUSE_DIALLING };
            let may_feel = has_nobody && (need.is_starved() || !need.is_blobs());
            if self.seek.last.is_none_or(|last| now >= last + pause) {
                let due = self.seek.next_to_ask(conns, epoch).filter(|(due, _)| *due <= now);
                if let Some((_, conn)) = due {
                    self.ask_for_peers(cx, conns, need, conn);
                }
                let feels = may_feel && self.send_feeler(cx);
                if due.is_some() || feels {
                    self.seek.last = Some(now);
                }
            }
            let next =
                self.seek.next_to_ask(conns, epoch).map_or(now + FIND_PEERS_INTERVAL_MIN, |(due, _)| due);
            self.seek.next = self.seek.last.map_or(next, |last| next.max(last + pause));
        }
        cx.set_timer(Timer::Seek, self.seek.next);
    }

    fn ask_for_peers<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, need: Need, conn: ConnId) {
        // A v5 peer may know who has a blob. To others the question does not tell what we want.
        let (missing, random) = (need.example(), BlobId(cx.rng().bytes_32()));
        let Some(entry) = conns.get_mut(conn) else { return };
        let id = missing.filter(|_| !entry.gossip.is_on()).unwrap_or(random);
        entry.conn.ask_for_peers(id);
        if let Some(asking) = self.seek.asking.get_mut(conn) {
            asking.asked(cx.now());
        }
        conns.wake_driver(cx, conn);
    }

    /// Dials a peer that came to us; the connection ends as soon as it has answered.
    fn send_feeler(&mut self, cx: &mut Cx) -> bool {
        let Some(addr) = self.book.next_dial_back() else { return false };
        self.dial(cx, addr);
        true
    }

    /// The answer to our FIND_PEERS.
    pub(crate) fn on_peers<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &Conns<S>,
        conn: ConnId,
        peers: Vec<PeerAddr>,
    ) {
        let Some(teller) = conns.get(conn).map(|entry| entry.address().clone()) else { return };
        for peer in peers {
            self.book.told(peer, Source::Exchanged, &teller, cx.now());
        }
    }
}
