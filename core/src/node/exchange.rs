//! Peers of peers: whom others are told of, and finding more while there are too few (`docs/policy.md`).
//!
//! A node that opened fewer connections than it wants asks the peers that it has, one after the other, each ever more
//! rarely; while blobs lack, those that have none of them, and each of these at once where nobody is known to have what
//! lacks. Where it has nobody to dial and nothing is brought, it dials back, once each, those that came to it and say that
//! they listen: whether others reach them there, nobody knows before, and only who answered is told of. So peers that all
//! know one node only find each other through it.

use alloc::vec::Vec;
use core::time::Duration;

use super::conns::Entry;
use super::peers::Source;
use super::{Node, Timer};
use crate::addr::PeerAddr;
use crate::codec::Message;
use crate::ids::{BlobId, ConnId};
use crate::limits::{
    FIND_PEERS_INTERVAL_MAX, FIND_PEERS_INTERVAL_MIN, FIND_PEERS_PAUSE, FIND_PEERS_PAUSE_DIALLING,
};
use crate::suite::Suite;
use crate::time::Instant;

/// When a connection's peer may be asked for others, and how long after that again.
pub(super) struct Asking {
    due: Instant,
    interval: Duration,
    /// It was not asked yet.
    is_new: bool,
}

impl Asking {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, interval: FIND_PEERS_INTERVAL_MIN, is_new: true }
    }

    fn asked(&mut self, now: Instant) {
        (self.due, self.is_new) = (now + self.interval, false);
        self.interval = (self.interval * 2).min(FIND_PEERS_INTERVAL_MAX);
    }

    /// Others are needed more than they were.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.interval = FIND_PEERS_INTERVAL_MIN;
        self.due = self.due.min(now + self.interval);
    }
}

impl<S: Suite> Entry<S> {
    /// Whether the peer can be asked for others now. One that may have a blob that lacks (by the scheduler's `epoch`) is
    /// of more use than that; and a v5 peer may answer one request and close.
    fn may_tell_peers(&self, lacking_epoch: Option<u64>) -> bool {
        let is_of_no_other_use =
            || self.outstanding() == 0 && lacking_epoch.is_none_or(|epoch| self.dry == epoch);
        self.is_askable() && is_of_no_other_use()
    }
}

impl<S: Suite> Node<S> {
    /// A connection may be asked for peers now, or dialled back, that could not before.
    pub(super) fn seek_soon(&mut self) {
        self.seek_at = self.now;
    }

    /// There are too few connections: takes the next step to find somebody, when that is due. `has_nobody`: to dial.
    /// `is_starved`: blobs lack that nobody is known to have, so that each new peer is asked at once.
    pub(super) fn seek_peers(&mut self, has_nobody: bool, is_starved: bool) {
        let now = self.now;
        if now >= self.seek_at {
            if is_starved {
                self.ask_new_peers();
            }
            let pause = if has_nobody { FIND_PEERS_PAUSE } else { FIND_PEERS_PAUSE_DIALLING };
            let may_dial_back = has_nobody && (is_starved || self.scheduler.is_empty());
            if self.sought.is_none_or(|sought| now >= sought + pause) && self.take_step(may_dial_back) {
                self.sought = Some(now);
            }
            let next = self.next_to_ask().map_or(now + FIND_PEERS_INTERVAL_MIN, |(due, _)| due);
            self.seek_at = self.sought.map_or(next, |sought| next.max(sought + pause));
        }
        self.timers.set(Timer::Seek, self.seek_at);
    }

    fn may_tell_peers(&self) -> impl Iterator<Item = (ConnId, &Asking)> {
        let lacking_epoch = Some(self.scheduler.epoch).filter(|_| !self.scheduler.is_empty());
        let may_tell = self.conns.entries().filter(move |(_, entry)| entry.may_tell_peers(lacking_epoch));
        may_tell.map(|(id, entry)| (id, &entry.asking))
    }

    /// The connection that is asked next, and when.
    fn next_to_ask(&self) -> Option<(Instant, ConnId)> {
        self.may_tell_peers().map(|(id, asking)| (asking.due, id)).min()
    }

    fn ask_new_peers(&mut self) {
        let new: Vec<ConnId> =
            self.may_tell_peers().filter(|(_, asking)| asking.is_new).map(|(id, _)| id).collect();
        for conn in new {
            self.ask_for_peers(conn);
        }
    }

    /// Asks the peer that is due, if one is, and dials one back. `false`: there was nothing to do.
    fn take_step(&mut self, may_dial_back: bool) -> bool {
        let due = self.next_to_ask().filter(|(due, _)| *due <= self.now);
        if let Some((_, conn)) = due {
            self.ask_for_peers(conn);
        }
        let dials_back = may_dial_back && self.dial_back();
        due.is_some() || dials_back
    }

    fn ask_for_peers(&mut self, conn: ConnId) {
        // A v5 peer may know who has a blob. To others the question does not tell what we want.
        let (lacking, random) = (self.scheduler.queued().next(), BlobId(self.rng.bytes_32()));
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let id = lacking.filter(|_| !entry.gossip.is_on()).unwrap_or(random);
        entry.asking.asked(self.now);
        entry.conn.ask_for_peers(id);
        self.wake_driver(conn);
    }

    /// Dials a peer that came to us; the connection ends as soon as it has answered.
    fn dial_back(&mut self) -> bool {
        let Some(addr) = self.peers.next_dial_back() else { return false };
        self.dial(addr);
        true
    }

    pub(super) fn on_find_peers(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let peers = self.peers.alive.choose(entry.address(), self.now, &mut self.rng);
        entry.conn.push(&Message::Peers(peers));
    }

    /// The answer to our FIND_PEERS.
    pub(super) fn on_peers(&mut self, conn: ConnId, peers: impl IntoIterator<Item = PeerAddr>) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let teller = entry.address().clone();
        for peer in peers {
            self.peers.told(peer, Source::Exchanged, &teller, self.now);
        }
    }
}
