//! Peers of peers: whom others are told of, and finding more while there are too few (`docs/protocol.md` §11).
//!
//! A node that opened fewer connections than it wants asks the peers that it has, one after the other, each ever more
//! rarely; while it is being brought blobs, only if it has nobody to dial. Where it has nobody to dial and nothing is
//! brought, it dials back, once each, those that came to it and say that they listen: whether others reach them there,
//! nobody knows before, and only who answered is told of. So peers that all know one node only find each other through it.

use core::time::Duration;

use super::conns::Entry;
use super::peers::Source;
use super::{Node, Timer};
use crate::addr::PeerAddr;
use crate::codec::Message;
use crate::ids::{BlobId, ConnId};
use crate::limits::{FIND_PEERS_INTERVAL_MAX, FIND_PEERS_INTERVAL_MIN, FIND_PEERS_PAUSE};
use crate::suite::Suite;
use crate::time::Instant;

/// When a connection's peer may be asked for others, and how long after that again.
pub(super) struct Asking {
    due: Instant,
    interval: Duration,
}

impl Asking {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, interval: FIND_PEERS_INTERVAL_MIN }
    }

    fn asked(&mut self, now: Instant) {
        self.due = now + self.interval;
        self.interval = (self.interval * 2).min(FIND_PEERS_INTERVAL_MAX);
    }

    /// Others are needed more than they were.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.interval = FIND_PEERS_INTERVAL_MIN;
        self.due = self.due.min(now + self.interval);
    }
}

impl<S: Suite> Entry<S> {
    /// Whether the peer can be asked for others now. A v5 peer may answer one request and close, so one that may have a
    /// blob that lacks (by the scheduler's `epoch`) is not.
    fn may_tell_peers(&self, lacking_epoch: Option<u64>) -> bool {
        let is_of_no_other_use =
            || self.outstanding() == 0 && lacking_epoch.is_none_or(|epoch| self.dry == epoch);
        self.is_askable() && (self.gossip.is_on() || is_of_no_other_use())
    }
}

impl<S: Suite> Node<S> {
    /// A connection may be asked for peers now, or dialled back, that could not before.
    pub(super) fn seek_soon(&mut self) {
        self.seek_at = self.now;
    }

    /// There are too few connections: takes the next step to find somebody, when that is due. `is_idle`: nobody is left to
    /// dial, and nothing is being fetched.
    pub(super) fn seek_peers(&mut self, is_idle: bool) {
        if self.now >= self.seek_at {
            let is_done = [self.ask_for_peers(), is_idle && self.dial_back()].contains(&true);
            let pause = if is_done { FIND_PEERS_PAUSE } else { FIND_PEERS_INTERVAL_MIN };
            self.seek_at = self.now + pause;
            if !is_done && let Some((due, _)) = self.next_to_ask() {
                self.seek_at = self.seek_at.min(due);
            }
        }
        self.timers.set(Timer::Seek, self.seek_at);
    }

    /// The connection that is asked next, and when.
    fn next_to_ask(&self) -> Option<(Instant, ConnId)> {
        let lacking_epoch = Some(self.scheduler.epoch).filter(|_| !self.scheduler.is_empty());
        let may_tell = self.conns.entries().filter(|(_, entry)| entry.may_tell_peers(lacking_epoch));
        may_tell.map(|(id, entry)| (entry.asking.due, id)).min()
    }

    fn ask_for_peers(&mut self) -> bool {
        let now = self.now;
        let Some((_, conn)) = self.next_to_ask().filter(|(due, _)| *due <= now) else { return false };
        // A v5 peer may know who has a blob. To others the question does not tell what we want.
        let (lacking, random) = (self.scheduler.queued().next(), BlobId(self.rng.bytes_32()));
        let Some(entry) = self.conns.get_mut(conn) else { return false };
        let id = lacking.filter(|_| !entry.gossip.is_on()).unwrap_or(random);
        entry.asking.asked(now);
        entry.conn.ask_for_peers(id);
        self.wake_driver(conn);
        true
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
