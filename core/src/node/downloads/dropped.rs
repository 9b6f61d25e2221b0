//! What is not wanted any more. A channel's newer version wants most of what is in flight for the one before, so that arrives and is
//! stored. What a user no longer selects, or follows, is cancelled.

use core::time::Duration;

use super::super::conns::Conns;
use super::super::cx::Cx;
use super::Downloads;
use super::transfer::Transfer;
use crate::ids::{BlobName, Topic};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;

/// How long what is in flight goes on when something else is selected: as soon as the store has said what is missing, most of it
/// is wanted again.
const DROPPED_PATIENCE: Duration = Duration::from_secs(1);

impl Downloads {
    /// What only this swarm wanted is not wanted any more; what is in flight goes on.
    pub(crate) fn drop_wants(&mut self, topic: &Topic) {
        self.wants.drop_wants(topic);
    }

    /// The same, and what is in flight is cancelled, unless it is wanted again before long.
    pub(crate) fn drop_wants_soon(&mut self, now: Instant, topic: &Topic) {
        self.wants.drop_wants(topic);
        self.wants.give_up_at(now + DROPPED_PATIENCE);
    }

    /// The same, and what is in flight is cancelled at once.
    pub(crate) fn cancel_wants<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, topic: &Topic) {
        self.wants.drop_wants(topic);
        self.wants.give_up_at(cx.now());
        self.cancel_due(cx, conns);
    }

    /// Cancels what nobody has wanted for long enough.
    pub(super) fn cancel_due<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>) {
        for name in self.wants.due_to_give_up(cx.now()) {
            let Some((asked, buffers)) = self.wants.with_transfer(&name, Transfer::give_up) else { continue };
            self.part_pool.give_all_back(buffers);
            if let BlobName::Native(root) = name {
                for conn in asked {
                    self.cancel(conns, conn, root, Mask::ALL);
                }
            }
        }
    }
}
