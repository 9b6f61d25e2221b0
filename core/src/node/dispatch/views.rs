//! The dispatcher's part for a user's eyes.

use alloc::vec::Vec;

use super::Dispatcher;
use crate::identity::PublicKey;
use crate::ids::{Secret, Topic};
use crate::node::api::{BanStatus, BlobCell, NodeStatus, PeerStatus, TargetStatus};
use crate::suite::Suite;
use crate::time::Instant;

impl<S: Suite> Dispatcher<S> {
    pub(in super::super) fn channels(&self) -> Vec<PublicKey> {
        self.channels.heads().channels().collect()
    }

    pub(in super::super) fn read_key(&self, channel: &PublicKey) -> Option<&Secret> {
        self.channels.heads().read_key(channel)
    }

    pub(in super::super) fn status(&self, now: Instant) -> NodeStatus {
        let (inbound, outbound) = self.conns.count();
        let (dht_late, lag) = self.dht.late(now.max(self.cx.now()));
        let (bytes_received, bytes_duplicate) = self.downloads.bytes();
        NodeStatus {
            inbound,
            outbound,
            peers_known: self.peers.known(),
            bans: self.peers.bans(&self.cx),
            bytes_received,
            bytes_sent: self.uploads.bytes_sent(),
            bytes_duplicate,
            dht_late,
            dht_lag_secs: lag.as_secs(),
        }
    }

    pub(in super::super) fn channel_status(&self, channel: &PublicKey) -> Option<TargetStatus> {
        self.channels.status(&self.conns, &self.downloads, self.peers.known(), channel)
    }

    pub(in super::super) fn cells(&self, channel: &PublicKey, cells_max: usize) -> Vec<BlobCell> {
        self.channels.cells(channel, cells_max)
    }

    pub(in super::super) fn swarm_status(&self, topic: &Topic) -> Option<TargetStatus> {
        self.channels.swarm_status(&self.conns, &self.downloads, self.peers.known(), topic)
    }

    pub(in super::super) fn targets(&self) -> Vec<TargetStatus> {
        let channels = self.channels().into_iter().filter_map(|channel| self.channel_status(&channel));
        let swarms = self.channels.standalone().into_iter().filter_map(|topic| self.swarm_status(&topic));
        channels.chain(swarms).collect()
    }

    pub(in super::super) fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let mut peers = self.conns.statuses(now.max(self.cx.now()));
        for peer in &mut peers {
            peer.found = self.peers.found(&peer.address);
            peer.shared = self.channels.shared(peer.conn);
        }
        peers
    }

    pub(in super::super) fn bans(&self) -> Vec<BanStatus> {
        self.peers.ban_statuses(&self.cx)
    }
}
