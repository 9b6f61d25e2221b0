//! For a user's eyes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::api::{BlobCell, TargetStatus};
use super::super::conns::Conns;
use super::super::downloads::Downloads;
use super::Channels;
use super::contents::Target;
use super::swarms::STANDALONE_VERSION;
use crate::identity::PublicKey;
use crate::ids::{ConnId, Topic};
use crate::suite::Suite;

impl Channels {
    /// A followed channel's state, in a node that knows this many peers.
    pub(crate) fn status<S: Suite>(
        &self,
        conns: &Conns<S>,
        downloads: &Downloads,
        peers_known: usize,
        channel: &PublicKey,
    ) -> Option<TargetStatus> {
        let topic = self.heads.topic(channel)?;
        let is_newest = self.heads.is_newest_known(channel);
        let (blobs_stored, blobs_total, content_bytes) = self.contents.numbers(&topic);
        let satisfied = self.contents.is_satisfied(&topic) && is_newest;
        Some(TargetStatus {
            target: Target::Channel(*channel),
            topic,
            private: self.heads.is_private(channel),
            sequence: self.heads.sequence(channel),
            blobs_stored,
            blobs_total,
            parts_stored: self.swarms.parts_stored(&topic),
            content_bytes,
            complete: self.contents.has_all(&topic) && is_newest,
            satisfied,
            paused: self.heads.is_paused(channel),
            asked: self.heads.answered(channel),
            waiting: (!satisfied).then(|| self.waiting(conns, downloads, peers_known, &topic)),
            store_rests: downloads.store_rests(),
            root: self.heads.root(channel).cloned(),
        })
    }

    /// The state of a swarm without a head, likewise.
    pub(crate) fn swarm_status<S: Suite>(
        &self,
        conns: &Conns<S>,
        downloads: &Downloads,
        peers_known: usize,
        topic: &Topic,
    ) -> Option<TargetStatus> {
        let tree = self.contents.tree(topic)?;
        let (blobs_stored, blobs_total, content_bytes) = self.contents.numbers(topic);
        let satisfied = self.contents.is_satisfied(topic);
        Some(TargetStatus {
            target: Target::Swarm(*topic),
            topic: *topic,
            private: false,
            sequence: STANDALONE_VERSION,
            blobs_stored,
            blobs_total,
            parts_stored: self.swarms.parts_stored(topic),
            content_bytes,
            complete: self.contents.has_all(topic),
            satisfied,
            paused: false,
            asked: None,
            waiting: (!satisfied).then(|| self.waiting(conns, downloads, peers_known, topic)),
            store_rests: downloads.store_rests(),
            root: Some(tree),
        })
    }

    /// The blobs of a channel's newest version, as far as they are known, in at most `cells_max` cells.
    pub(crate) fn cells(&self, channel: &PublicKey, cells_max: usize) -> Vec<BlobCell> {
        self.heads.topic(channel).map_or_else(Vec::new, |topic| self.swarms.cells(&topic, cells_max))
    }

    /// The swarms that a peer watches too, by what they are of.
    pub(crate) fn shared(&self, conn: ConnId) -> Vec<Target> {
        let target = |topic| self.swarms.channel(&topic).map_or(Target::Swarm(topic), Target::Channel);
        self.swarms.shared(conn).map(target).collect()
    }

    /// The swarms without a head.
    pub(crate) fn standalone(&self) -> Vec<Topic> {
        self.contents.topics().into_iter().filter(|topic| self.contents.tree(topic).is_some()).collect()
    }

    /// What a channel or a swarm without a head waits for: "no peers" says why.
    fn waiting<S: Suite>(
        &self,
        conns: &Conns<S>,
        downloads: &Downloads,
        peers_known: usize,
        topic: &Topic,
    ) -> String {
        if self.heads.is_of_paused(topic) {
            return "it is paused".into();
        }
        let channel = self.swarms.channel(topic);
        let what = match self.contents.waiting(topic) {
            None => return channel.map(|channel| self.heads.waiting(&channel)).unwrap_or_default(),
            Some(_) if self.contents.is_satisfied(topic) => {
                return "the DHT's word that no newer head exists".into();
            }
            Some((what, false)) => return what.into(),
            Some((what, true)) => what,
        };
        let (open, usable) = downloads.usable(conns, &self.swarms);
        let peers = match (peers_known, open, usable) {
            _ if downloads.store_rests() => "the store has no room or fails".into(),
            (0, 0, _) => {
                let what = if channel.is_some() { "channel" } else { "topic" };
                format!("no peer is known: nobody announced the {what} and none was named")
            }
            (known, 0, _) => format!("{known} peers are known, none could be reached yet"),
            (_, open, 0) => format!("{open} peers are connected, none has what is missing"),
            (_, _, usable) => format!("{usable} peers are asked"),
        };
        format!("{what}: {peers}")
    }
}
