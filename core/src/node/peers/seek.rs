//! Peers of peers: whom others are told of, and finding more while there are too few (`docs/protocol.md` §11).
//!
//! A node that opened fewer connections than it wants asks the peers that it has, one after the other, each ever more
//! rarely; while blobs lack, those that have none of them, and each of these at once where nobody is known to have what
//! lacks. Where it has nobody to dial and nothing is brought, it dials back, once each, those that came to it and say that
//! they listen: whether others reach them there, nobody knows before, and only who answered is told of. So peers that all
//! know one node only find each other through it.

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

    /// The connections that may be asked. One that may have a missing blob is of more use than that, and a v5 peer may answer
    /// one request and close.
    fn candidates<S: Suite>(
        &self,
        conns: &Conns<S>,
        downloads: &Downloads,
    ) -> impl Iterator<Item = (ConnId, &Asking)> {
        let may_tell = |id: ConnId| conns.is_askable(id) && downloads.is_of_no_use(conns, id);
        self.asking.iter().filter(move |(id, _)| may_tell(*id))
    }

    /// The connection that is asked next, and when.
    fn next_to_ask<S: Suite>(&self, conns: &Conns<S>, downloads: &Downloads) -> Option<(Instant, ConnId)> {
        self.candidates(conns, downloads).map(|(id, asking)| (asking.due, id)).min()
    }
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
        downloads: &Downloads,
        need: Need,
        has_nobody: bool,
    ) {
        let now = cx.now();
        if now >= self.seek.next {
            if need == Need::AnyBlob {
                // Nobody is known to have what is missing, so each new peer is asked at once.
                let new = self.seek.candidates(conns, downloads).filter(|(_, asking)| asking.is_new);
                let new: Vec<ConnId> = new.map(|(id, _)| id).collect();
                for conn in new {
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
                let feels = may_feel && self.send_feeler(cx);
                if due.is_some() || feels {
                    self.seek.last = Some(now);
                }
            }
            let next =
                self.seek.next_to_ask(conns, downloads).map_or(now + FIND_PEERS_INTERVAL_MIN, |(due, _)| due);
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
        // A v5 peer may know who has a blob. To others the question does not tell what we want.
        let (missing, random) = (downloads.example(), BlobId(cx.rng().bytes_32()));
        let is_v6 = conns.speaks_v6(conn);
        let Some(line) = conns.get_mut(conn) else { return };
        line.ask_for_peers(missing.filter(|_| !is_v6).unwrap_or(random));
        if let Some(asking) = self.seek.asking.get_mut(conn) {
            asking.asked(cx.now());
        }
    }

    /// Dials a peer that came to us; the connection ends as soon as it has answered.
    fn send_feeler(&mut self, cx: &mut Cx) -> bool {
        let Some(addr) = self.book.next_feeler() else { return false };
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
        let Some(referrer) = conns.address(conn).cloned() else { return };
        for peer in peers {
            self.book.told(peer, Source::Exchanged, &referrer, cx.now());
        }
    }
}
