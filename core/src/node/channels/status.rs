//! For a user's eyes.

use alloc::format;
use alloc::string::String;

use super::super::api::ChannelStatus;
use super::super::conns::Conns;
use super::super::downloads::Downloads;
use super::Channels;
use crate::identity::PublicKey;
use crate::ids::Topic;
use crate::manifest::HeadContent;
use crate::suite::Suite;

impl Channels {
    /// A followed channel's state, in a node that knows this many peers.
    pub(crate) fn status<S: Suite>(
        &self,
        conns: &Conns<S>,
        downloads: &Downloads,
        peers_known: usize,
        channel: &PublicKey,
    ) -> Option<ChannelStatus> {
        let topic = self.heads.topic(channel)?;
        let is_newest = self.heads.is_newest_known(channel);
        let (blobs_stored, blobs_total, content_bytes) = self.contents.numbers(&topic);
        let satisfied = self.contents.is_satisfied(&topic) && is_newest;
        let root = self.heads.read(channel).and_then(|head| match head.content {
            HeadContent::Root(root) => Some(root),
            HeadContent::Inline(_) => None,
        });
        Some(ChannelStatus {
            channel: *channel,
            private: self.heads.is_private(channel),
            sequence: self.heads.sequence(channel),
            blobs_stored,
            blobs_total,
            content_bytes,
            complete: self.contents.has_all(&topic) && is_newest,
            satisfied,
            waiting: (!satisfied).then(|| self.waiting(conns, downloads, peers_known, channel, &topic)),
            root,
        })
    }

    /// What a channel waits for: "no peers" says why.
    fn waiting<S: Suite>(
        &self,
        conns: &Conns<S>,
        downloads: &Downloads,
        peers_known: usize,
        channel: &PublicKey,
        topic: &Topic,
    ) -> String {
        let what = match self.contents.waiting(topic) {
            None => return self.heads.waiting(channel),
            Some(_) if self.contents.is_satisfied(topic) => {
                return "the DHT's word that no newer head exists".into();
            }
            Some((what, false)) => return what.into(),
            Some((what, true)) => what,
        };
        let (open, usable) = downloads.usable(conns, &self.swarms);
        let peers = match (peers_known, open, usable) {
            _ if downloads.store_rests() => "the store has no room or fails".into(),
            (0, ..) => "no peer is known: nobody announced the channel and none was named".into(),
            (known, 0, _) => format!("{known} peers are known, none could be reached yet"),
            (_, open, 0) => format!("{open} peers are connected, none has what is missing"),
            (_, _, usable) => format!("{usable} peers are asked"),
        };
        format!("{what}: {peers}")
    }
}
