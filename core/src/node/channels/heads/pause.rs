//! Channels that are paused: their heads stay, and are neither looked up nor put nor told of.

use super::Heads;
use crate::identity::PublicKey;
use crate::ids::Topic;
use crate::node::cx::Cx;

impl Heads {
    pub(crate) fn is_paused(&self, channel: &PublicKey) -> bool {
        self.paused.contains(channel)
    }

    pub(crate) fn count_paused(&self) -> usize {
        self.paused.len()
    }

    /// Whether a topic is that of a paused channel.
    pub(crate) fn is_of_paused(&self, topic: &Topic) -> bool {
        self.paused.iter().any(|channel| self.topic(channel).as_ref() == Some(topic))
    }

    /// Pauses a channel. `false`: it was paused before, or is not followed.
    pub(crate) fn pause(&mut self, channel: PublicKey) -> bool {
        self.conns.iter_mut().for_each(|(_, told)| told.forget(&channel));
        self.is_followed(&channel) && self.paused.insert(channel)
    }

    /// Goes on with a channel: it is looked up at once. `false`: it was not paused.
    pub(crate) fn resume(&mut self, cx: &Cx, channel: PublicKey) -> bool {
        let is_paused = self.paused.remove(&channel);
        if let Some(upkeep) = self.by_channel.get_mut(&channel).filter(|_| is_paused) {
            upkeep.poll_due = Some(cx.now());
            upkeep.is_looked_up = false;
        }
        is_paused
    }
}
