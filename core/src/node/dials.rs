//! Which connections we open, keep and give up, and who is shut out.

use alloc::vec;
use core::time::Duration;

use super::{Action, Event, Node, Pending, RecordKey, Timer, record};
use crate::addr::PeerAddr;
use crate::error::{CloseReason, Violation};
use crate::limits::{
    BAN_TIME, DIALS_MAX, FETCH_CONNECTIONS, FETCH_CONNECTIONS_OWN, GATEWAYS_MAX, KEPT_CONNECTIONS,
    OUTBOUND_MAX, OUTBOUND_PER_NETWORK_MIN, OUTBOUND_SHARE, ROTATION_INTERVAL, ROTATION_INTERVAL_MOVING,
};
use crate::suite::Suite;
use crate::time::Instant;

/// When a useless connection was last given up for another.
#[derive(Default)]
pub(super) struct Rotation {
    at: Instant,
    /// What had been received by then.
    bytes_received: u64,
}

impl<S: Suite> Node<S> {
    /// Dials while blobs lack, or while too few connections are open for news to arrive.
    pub(super) fn start_dials(&mut self) {
        let lacks = !self.scheduler.is_empty();
        let wanted = if lacks {
            // More are of use where those do not have what lacks.
            if self.scheduler.is_starved() { OUTBOUND_MAX } else { self.fetch_connections() }
        } else if self.channels.is_empty() && self.publication.is_none() {
            0
        } else if self.publication.is_some() {
            // Gateways are dialled whoever else is connected.
            KEPT_CONNECTIONS + GATEWAYS_MAX
        } else {
            KEPT_CONNECTIONS
        };
        let share = (wanted / OUTBOUND_SHARE).max(OUTBOUND_PER_NETWORK_MIN);
        self.dial_up_to(wanted, share);
        let (_, outbound) = self.conns.count();
        let (is_starved, has_nobody) = (lacks && self.scheduler.is_starved(), self.may_dial(wanted));
        if has_nobody || (outbound < wanted && (is_starved || !lacks)) {
            self.seek_peers(has_nobody, is_starved);
        } else {
            self.timers.cancel(Timer::Seek);
        }
        if lacks && self.dials < DIALS_MAX {
            self.rotate(wanted, share);
        } else {
            self.timers.cancel(Timer::Rotation);
        }
        match self.peers.next_retry().filter(|_| self.may_dial(wanted)) {
            Some(at) => self.timers.set(Timer::Dial, at),
            None => self.timers.cancel(Timer::Dial),
        }
    }

    /// About as many as others have, so that all are asked for equally much.
    fn fetch_connections(&self) -> usize {
        let (inbound, _) = self.conns.count();
        FETCH_CONNECTIONS.saturating_sub(inbound).max(FETCH_CONNECTIONS_OWN)
    }

    fn may_dial(&self, wanted: usize) -> bool {
        let (_, outbound) = self.conns.count();
        outbound + self.dials < wanted && self.dials < DIALS_MAX
    }

    fn dial_up_to(&mut self, wanted: usize, share: usize) {
        while self.may_dial(wanted) {
            let unix = self.unix();
            let Some(addr) = self.peers.next_dial(self.now, unix, share, &mut self.rng) else { return };
            self.peers.dialing(&addr);
            self.dial(addr);
        }
    }

    pub(super) fn dial(&mut self, addr: PeerAddr) {
        self.dials += 1;
        let job = self.job_id(Pending::Dial(addr.clone()));
        self.actions.push_back(Action::Dial(job, addr));
    }

    /// While blobs lack and an address waits that no connection is left for, or none of its network's share: gives up a
    /// connection that has served nothing, so that peers which never serve cannot hold all of them for ever.
    fn rotate(&mut self, wanted: usize, share: usize) {
        let is_moving = self.bytes_received > self.rotation.bytes_received;
        let pause = if is_moving { ROTATION_INTERVAL_MOVING } else { ROTATION_INTERVAL };
        let due = self.rotation.at + pause;
        if self.now < due {
            return self.timers.set(Timer::Rotation, due);
        }
        let unix = self.unix();
        let Some(place) = self.peers.wanted_place(unix, share) else {
            return self.timers.cancel(Timer::Rotation);
        };
        self.rotation = Rotation { at: self.now, bytes_received: self.bytes_received };
        let peers = &self.peers;
        let useless = self.conns.useless_outbound(self.now, |addr| peers.makes_place(addr, &place));
        if let Some(useless) = useless {
            self.close(useless, CloseReason::Evicted);
            self.dial_up_to(wanted, share);
            self.assign_requests();
        }
        self.timers.set(Timer::Rotation, self.now + ROTATION_INTERVAL);
    }

    // --- what is kept ---------------------------------------------------------------------------------------

    /// A peer that served us, or that we reached and that watches a channel of ours, is known after a restart too.
    pub(super) fn remember(&mut self, addr: &PeerAddr) {
        if self.peers.remember(addr) {
            self.persist(Pending::Record, RecordKey::Peer(addr.clone()), Some(vec![]));
        }
    }

    /// Records of addresses that are known no longer are deleted.
    pub(super) fn forget_peers(&mut self) {
        for addr in self.peers.take_forgotten() {
            self.persist(Pending::Record, RecordKey::Peer(addr), None);
        }
    }

    // --- bans -----------------------------------------------------------------------------------------------

    /// Excludes an address for a proven lie, also after a restart.
    pub(super) fn ban(&mut self, peer: &PeerAddr, violation: Violation) {
        // What it sent before it was found out is no news.
        if !self.peers.bans.has(peer, self.unix()) {
            let until = self.unix().plus(BAN_TIME);
            if let Some(room) = self.peers.bans.add(peer.clone(), until) {
                self.persist(Pending::Record, RecordKey::Ban(room), None);
            }
            let news = Event::Banned { peer: peer.clone(), violation, until };
            self.persist(Pending::Ban(news), RecordKey::Ban(peer.clone()), Some(record::encode_time(until)));
        }
        if let Some(conn) = self.peers.connection(peer) {
            self.close(conn, CloseReason::Banned);
        }
        self.wait_for_bans();
    }

    /// Takes back a ban of an earlier run; one that has ended loses its record.
    pub(super) fn restore_ban(&mut self, addr: &PeerAddr, value: &[u8]) -> bool {
        let Some(until) = record::decode_time(value) else { return false };
        if self.peers.bans.restore(addr, until, self.unix()) {
            self.wait_for_bans();
        } else {
            self.persist(Pending::Record, RecordKey::Ban(addr.clone()), None);
        }
        true
    }

    /// Deletes the bans that have ended, and waits for the next to end.
    pub(super) fn end_bans(&mut self) {
        for over in self.peers.bans.take_ended(self.unix()) {
            self.persist(Pending::Record, RecordKey::Ban(over), None);
        }
        self.peers.bans_changed();
        self.wait_for_bans();
    }

    fn wait_for_bans(&mut self) {
        match self.peers.bans.next_end() {
            Some(end) => {
                let left = Duration::from_millis(end.0.saturating_sub(self.unix().0));
                self.timers.set(Timer::Bans, self.now + left.max(Duration::from_millis(1)));
            }
            None => self.timers.cancel(Timer::Bans),
        }
    }
}
