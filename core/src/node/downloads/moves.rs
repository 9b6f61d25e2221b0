//! What waits at a peer that has much to bring moves to one that has nothing else: it is cancelled there. Without this, the line of a peer
//! that is asked by many is never free, and others have nothing to do.
//!
//! What waits at one of few seeds moves to the first peer that has it too, and so it does at all others that wait for it: that peer is
//! soon asked for more than the seed. From there it may move once more, to a peer that got it later.

use core::time::Duration;

use super::super::channels::contents::Place;
use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::super::cx::Cx;
use super::Downloads;
use super::transfer::Request;
use super::wants::Want;
use crate::ids::{BlobName, ConnId, Root};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;

/// What waits for longer than this moves, and for longer than twice the time in which the other peer would bring it.
const MOVE_AFTER: Duration = Duration::from_millis(800);
/// Some of what moves comes twice. Where one byte in so many and [`MOVED_FREE`] more came twice, nothing moves.
const MOVED_SHARE: u64 = 80;
const MOVED_FREE: u64 = 512 << 10;

/// A part that one peer is asked for and has not begun to bring, and that another has.
struct Waiting {
    root: Root,
    place: Place,
    part: usize,
    at: ConnId,
    /// What moves first: what waits longest, then what most peers have, as it is the least likely to be in flight.
    order: (Duration, u16, Instant),
}

impl Downloads {
    /// Asks a peer that has nothing else for the part that waits longest elsewhere. `false`: there is none. `is_scarce`: seeds are few.
    pub(super) fn move_here<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
        is_scarce: bool,
    ) -> bool {
        if !conns.speaks_v6(helper) {
            return false;
        }
        let Some(Waiting { root, place, part, at, .. }) =
            self.longest_waiting(cx.now(), conns, swarms, helper, is_scarce)
        else {
            return false;
        };
        let mask = Mask::one(part);
        self.release(at, root, mask);
        self.cancel(conns, at, root, mask);
        self.ask_for_parts(cx, conns, helper, (root, &place), mask);
        // Between seeds it moves once, or it would go back and forth.
        if !swarms.is_seed(at) || swarms.is_seed(helper) {
            self.wants.with_transfer(&BlobName::Native(root), |transfer| transfer.note_moved(helper, part));
        }
        true
    }

    fn longest_waiting<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
        is_scarce: bool,
    ) -> Option<Waiting> {
        let own = self.time_for_all(conns, helper, 1).unwrap_or_default();
        let is_spent = self.bytes_duplicate > self.moved_twice_max();
        let most = |waiting: &Waiting| {
            if is_scarce && swarms.is_seed(waiting.at) {
                own
            } else if is_spent {
                Duration::MAX
            } else {
                MOVE_AFTER.max(own * 2)
            }
        };
        let waiting = self
            .wants
            .busy()
            .flat_map(|(name, want)| self.waiting_of(now, conns, swarms, (helper, is_scarce), (name, want)));
        waiting.filter(|waiting| waiting.order.0 > most(waiting)).max_by_key(|waiting| waiting.order)
    }

    /// So many bytes may come twice before nothing moves.
    pub(super) fn moved_twice_max(&self) -> u64 {
        self.bytes_received / MOVED_SHARE + MOVED_FREE
    }

    /// The parts of a blob that wait at one peer each.
    fn waiting_of<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        swarms: &Swarms,
        (helper, is_scarce): (ConnId, bool),
        (name, want): (&BlobName, &Want),
    ) -> impl Iterator<Item = Waiting> {
        let transfer = want.transfer();
        let found = name.root().zip(self.has_of(conns, swarms, helper, name, want));
        found.into_iter().flat_map(move |(root, (place, has))| {
            let view = swarms.view(helper, place.topic());
            let waits = move |request: &&Request| {
                has.has(request.part())
                    && !request.is_begun()
                    && !request.was_moved()
                    && request.conn() != helper
                    && transfer.askers(request.part()) == 1
            };
            transfer.requests().iter().filter(waits).filter_map(move |request| {
                // A peer that never brought anything is not cancelled: it is asked for the same as another, unless it is one of few
                // seeds, which serve others meanwhile. One whose line serves others in between is likely to do so for as long again.
                let unknown = (is_scarce && swarms.is_seed(request.conn())).then_some(Duration::MAX);
                let left = self.time_for_all(conns, request.conn(), 0).or(unknown)?;
                let left = left.max(self.silent_for(now, request));
                let part = request.part();
                let order = (left, view.availability(place.position(), part), request.asked());
                Some(Waiting { root, place, part, at: request.conn(), order })
            })
        })
    }
}
