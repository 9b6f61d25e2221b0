//! Peers: who is known, who is dialled, who is asked for others, and who is banned.

mod alive;
mod bans;
mod book;
mod dials;
mod netgroup;
mod reserved;
mod seek;
mod shares;

use alloc::vec;
use alloc::vec::Vec;

use super::api::{Action, BanStatus, PeerSource, RecordKey, Refusal};
use super::cx::{Cx, Pending};
use crate::addr::PeerAddr;
use crate::error::Violation;
use crate::ids::{ConnId, JobId};
use crate::time::Instant;
use bans::Bans;
use book::Book;
pub(crate) use dials::Need;
use dials::Rotation;
pub(crate) use netgroup::same_host;
use reserved::Reserved;
use seek::Seek;
pub(crate) use shares::Source;

/// The address book, the dials under way, the questions for more peers, and the bans.
pub(super) struct Peers {
    book: Book,
    bans: Bans,
    private_dht: bool,
    /// Dials under way.
    dials: usize,
    reserved: Reserved,
    rotation: Rotation,
    seek: Seek,
}

impl Peers {
    pub(super) fn new(private_dht: bool, now: Instant) -> Self {
        Self {
            book: Book::default(),
            bans: Bans::default(),
            private_dht,
            dials: 0,
            reserved: Reserved::default(),
            rotation: Rotation::default(),
            seek: Seek::new(now),
        }
    }

    // --- connections ----------------------------------------------------------------------------------------

    /// A connection was opened, in either direction.
    pub(super) fn opened(&mut self, conn: ConnId, now: Instant) {
        self.seek.opened(conn, now);
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.seek.closed(conn);
    }

    /// The connection with the peer that is known under an address.
    pub(super) fn connection(&self, addr: &PeerAddr) -> Option<ConnId> {
        self.book.connection(addr)
    }

    /// Starts a dial; its answer comes by [`super::Node::dialed`].
    fn dial(&mut self, cx: &mut Cx, addr: PeerAddr) {
        self.dials += 1;
        let job = cx.job_id(Pending::Dial(addr.clone()));
        cx.act(Action::Dial(job, addr));
    }

    /// A dial was answered. `false`: the peer has come to us meanwhile, so that the dial changes nothing but what is known of
    /// whether it answers.
    pub(super) fn on_dial_answered(&mut self, addr: &PeerAddr, is_connected: bool) -> bool {
        self.dials -= 1;
        self.reserved.dial_ended(addr);
        let is_needed = self.book.connection(addr).is_none();
        if !is_connected {
            self.book.unreached(addr);
        }
        is_needed
    }

    /// Our dial opened this connection.
    pub(super) fn connected(&mut self, addr: &PeerAddr, conn: ConnId) {
        self.book.connected(addr, conn);
    }

    /// The peer that listens at `addr` opened this connection.
    pub(super) fn accepted(&mut self, cx: &Cx, addr: &PeerAddr, conn: ConnId) {
        self.book.told(addr.clone(), Source::Announced, addr, cx.now());
        self.book.accepted(addr, conn);
        self.seek_soon(cx);
    }

    /// Of two connections with a peer that we dialled, the one that it opened is kept.
    pub(super) fn kept_accepted(&mut self, addr: &PeerAddr, conn: ConnId) {
        self.book.accepted(addr, conn);
    }

    /// It completed the handshake of our dial.
    pub(super) fn keyed(&mut self, addr: &PeerAddr) {
        self.book.keyed(addr);
    }

    /// It did not complete the handshake of our dial.
    pub(super) fn unreached(&mut self, addr: &PeerAddr) {
        self.book.unreached(addr);
    }

    pub(super) fn ourselves(&mut self, addr: &PeerAddr) {
        self.book.ourselves(addr);
    }

    /// A dial failed, or a connection ended. `served`: it brought a blob, so it is worth another dial at once.
    pub(super) fn ended(&mut self, cx: &Cx, addr: &PeerAddr, served: bool) {
        self.book.ended(addr, served, cx.now());
    }

    pub(super) fn speaks(&mut self, addr: &PeerAddr, is_v5: bool) {
        self.book.speaks(addr, is_v5);
    }

    /// Whether the peer spoke v5 last time, so that its HELLO need not be waited for.
    pub(super) fn is_v5(&self, addr: &PeerAddr) -> bool {
        self.book.is_v5(addr)
    }

    // --- addresses ------------------------------------------------------------------------------------------

    /// Notes an address that no peer told of.
    pub(super) fn add(&mut self, cx: &Cx, addr: PeerAddr, source: Source) {
        self.book.add(addr, source, cx.now());
    }

    /// Notes an address that the user named.
    pub(super) fn configure(&mut self, cx: &Cx, addr: &PeerAddr) -> Result<(), Refusal> {
        if self.is_banned(cx, addr) {
            return Err(Refusal::Banned);
        }
        if self.book.is_ourselves(addr) {
            return Err(Refusal::Ourselves);
        }
        self.book.add(addr.clone(), Source::Configured, cx.now());
        if self.book.knows(addr) { Ok(()) } else { Err(Refusal::TooManyPeers) }
    }

    /// Notes what a look-up on the DHT found; of that, what may be a peer's address. A private one is only where the DHT is a
    /// private network's.
    pub(super) fn on_dht_peers(&mut self, cx: &Cx, mut peers: Vec<PeerAddr>) -> Vec<PeerAddr> {
        peers.retain(|peer| peer.is_exchangeable() && (self.private_dht || peer.is_public()));
        for peer in &peers {
            self.book.add(peer.clone(), Source::Dht, cx.now());
        }
        peers
    }

    /// Notes an address that the peer at `referrer` told.
    pub(super) fn told(&mut self, cx: &Cx, addr: PeerAddr, source: Source, referrer: &PeerAddr) {
        self.book.told(addr, source, referrer, cx.now());
    }

    /// Changes whether the DHT is a private network's; returns the connections that must end. Found by a public DHT, a private
    /// address is no peer's.
    pub(super) fn set_private_dht(&mut self, is_private: bool) -> Vec<ConnId> {
        self.private_dht = is_private;
        if is_private { Vec::new() } else { self.book.forget_private_dht() }
    }

    /// Whether an address must not be a peer's.
    pub(super) fn is_excluded(&self, addr: &PeerAddr) -> bool {
        !self.private_dht && self.book.is_of_private_dht(addr)
    }

    /// How an address was found.
    pub(super) fn found(&self, addr: &PeerAddr) -> Option<PeerSource> {
        Some(match self.book.source(addr)? {
            Source::Configured => PeerSource::Configured,
            Source::Remembered => PeerSource::Remembered,
            Source::Dht => PeerSource::Dht,
            Source::Announced => PeerSource::Announced,
            Source::Exchanged => PeerSource::Exchanged,
        })
    }

    /// The addresses that a peer at `asker` is told of.
    pub(super) fn exchanged(&self, cx: &mut Cx, asker: &PeerAddr) -> Vec<PeerAddr> {
        let now = cx.now();
        self.book.exchanged(asker, now, cx.rng())
    }

    /// Addresses known.
    pub(super) fn known(&self) -> usize {
        self.book.known()
    }

    /// The peer served a blob: it is dialled first, and known after a restart.
    pub(super) fn served(&mut self, cx: &mut Cx, addr: &PeerAddr) {
        self.book.served(addr);
        self.remember(cx, addr);
    }

    /// The peer is to be known after a restart.
    pub(super) fn remember(&mut self, cx: &mut Cx, addr: &PeerAddr) {
        if self.book.remember(addr) {
            cx.persist(Pending::Record, RecordKey::Peer(addr.clone()), Some(vec![]));
        }
    }

    /// Deletes the records of addresses that were dropped.
    pub(super) fn delete_forgotten(&mut self, cx: &mut Cx) {
        for addr in self.book.take_forgotten() {
            cx.persist(Pending::Record, RecordKey::Peer(addr), None);
        }
    }

    /// Takes an address back from its record.
    pub(super) fn restore(&mut self, cx: &mut Cx, addr: &PeerAddr) {
        self.book.add(addr.clone(), Source::Remembered, cx.now());
        self.delete_forgotten(cx);
    }

    // --- bans -----------------------------------------------------------------------------------------------

    pub(super) fn is_banned(&self, cx: &Cx, addr: &PeerAddr) -> bool {
        self.bans.has(addr, cx.unix())
    }

    /// Bans an address for what its peer did, also across a restart; the connection that must end.
    pub(super) fn ban(&mut self, cx: &mut Cx, addr: &PeerAddr, violation: Violation) -> Option<ConnId> {
        self.bans.ban(cx, addr, violation);
        self.book.connection(addr)
    }

    /// Lifts the ban of an address; the jobs that delete its records. `None`: it is not banned.
    pub(super) fn unban(&mut self, cx: &mut Cx, addr: &PeerAddr) -> Option<Vec<JobId>> {
        let jobs = self.bans.lift(cx, addr)?;
        self.book.bans_changed();
        Some(jobs)
    }

    /// The bans in force.
    pub(super) fn ban_statuses(&self, cx: &Cx) -> Vec<BanStatus> {
        self.bans.statuses(cx.unix())
    }

    /// Takes a ban back from its record. `false`: the record does not parse.
    pub(super) fn restore_ban(&mut self, cx: &mut Cx, addr: &PeerAddr, value: &[u8]) -> bool {
        self.bans.restore(cx, addr, value)
    }

    /// Lifts the bans that have ended.
    pub(super) fn end_bans(&mut self, cx: &mut Cx) {
        self.bans.end(cx);
        self.book.bans_changed();
    }

    /// Bans in force.
    pub(super) fn bans(&self, cx: &Cx) -> usize {
        self.bans.count(cx.unix())
    }
}
