//! In which swarms a v6 peer is of interest: those of which it may have a queued blob. So each request costs a look at these, however
//! many swarms the peer is part of, and those of which it has nothing do not stand before the others.

use super::super::channels::contents::Place;
use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::{Downloads, Line};
use crate::ids::{BlobName, ConnId, Topic};
use crate::limits::USELESS_AFTER;
use crate::suite::Suite;
use crate::time::Instant;

impl Downloads {
    /// A peer has more of a swarm than it had, as far as it said. One that took back what it had said does not tell again of what it
    /// refused, so that nothing of that counts.
    pub(crate) fn has_more_of(&mut self, conn: ConnId, topic: Topic, takes_back: bool) {
        if let Some(line) = self.lines.get_mut(conn) {
            line.interests.insert(topic);
            if takes_back {
                line.refused.clear();
            }
        }
        self.may_have_more(conn);
    }

    /// Whether a v6 peer is asked for nothing, has nothing that is missing, and has brought nothing for [`USELESS_AFTER`].
    pub(crate) fn is_at_rest<S: Suite>(&self, now: Instant, conns: &Conns<S>, conn: ConnId) -> bool {
        let is_asked = super::is_asked(conns, conn);
        let rests = |line: &Line| line.interests.is_empty() && now.since(line.brought_at) >= USELESS_AFTER;
        conns.speaks_v6(conn) && !is_asked && self.lines.get(conn).is_some_and(rests)
    }

    /// Peers may have got what they did not have: they are asked again.
    pub(crate) fn ask_all_again<S: Suite>(&mut self, conns: &Conns<S>, swarms: &Swarms) {
        for (conn, line) in self.lines.iter_mut() {
            if !line.refused.is_empty() {
                line.refused.clear();
                line.interests.extend(swarms.shared(conn));
            }
        }
        for id in conns.ids() {
            self.may_have_more(id);
            self.sum_up(conns, id);
        }
        self.is_due = true;
    }

    /// Blobs were queued that were not: peers of their swarms may have them.
    pub(super) fn note_interests(&mut self, swarms: &Swarms) {
        for topic in self.wants.take_gained() {
            for (_, line) in self.lines.iter_mut().filter(|(conn, _)| swarms.is_shared(*conn, &topic)) {
                line.interests.insert(topic);
            }
        }
    }

    /// The queued blob of which a peer is best asked; swarms of which it has none are of no interest any more.
    pub(super) fn pick_and_forget<S: Suite>(
        &mut self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
    ) -> Option<(BlobName, Place)> {
        let (found, in_vain) = self.look(conns, swarms, conn);
        if let Some(line) = self.lines.get_mut(conn) {
            for topic in &in_vain {
                line.interests.remove(topic);
            }
        }
        found
    }
}
