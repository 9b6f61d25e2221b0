//! The last parts are asked of a second peer, at the next review at the latest. Each peer has a line of its own that others wait for too, and who has to wait
//! for the longest of them waits while most lines are free already.

use super::super::channels::contents::Place;
use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::super::cx::Cx;
use super::transfer::Request;
use super::wants::Want;
use super::{Downloads, is_asked};
use crate::ids::{ConnId, Root};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;

/// Where nothing is queued and no more parts than this are under way, they are the last ones.
const LAST_PARTS: usize = 4;
/// Peers that each of them is asked of without waiting.
const LAST_ASKED_AT_ONCE_MAX: usize = 2;
/// One byte in so many may come twice by that, as small content has few parts but the last ones.
const LAST_SHARE: u64 = 4;

impl Downloads {
    /// Whether only the last parts are missing, and all of them are asked for.
    fn is_at_end(&self) -> bool {
        // Most times it is not, and this tells it at once: few parts are asked of more peers than the last ones.
        let may_be = || {
            self.wants.parts_under_way() <= LAST_PARTS * LAST_ASKED_AT_ONCE_MAX && !self.wants.is_any_queued()
        };
        may_be() && self.different_parts_under_way() <= LAST_PARTS
    }

    fn different_parts_under_way(&self) -> usize {
        self.wants.busy().map(|(_, want)| want.transfer().parts_under_way()).sum()
    }

    /// Whether one part more may come twice: no more than moves may so far, and not too much if all comes twice that is asked of
    /// several peers.
    fn may_come_twice(&self) -> bool {
        let more = self.wants.parts_under_way().saturating_sub(self.different_parts_under_way()) + 1;
        let twice = self.bytes_duplicate + (more * self.part_len) as u64;
        twice <= self.bytes_received / LAST_SHARE && self.bytes_duplicate <= self.moved_twice_max()
    }

    /// Asks a peer that is asked for nothing for one of the last parts that others were asked for. `false`: there is none.
    pub(super) fn ask_for_last<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
    ) -> bool {
        let may_help = conns.speaks_v6(helper) && !is_asked(conns, helper) && self.room(conns, helper, 0) > 0;
        if !may_help || !self.is_at_end() || !self.may_come_twice() {
            return false;
        }
        let Some((root, place, part)) = self.last_waiting(conns, swarms, helper) else { return false };
        self.ask_for_parts(cx, conns, helper, (root, &place), Mask::one(part));
        true
    }

    /// The part that was asked for first, of those that a peer has and nobody has begun to bring.
    fn last_waiting<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
    ) -> Option<(Root, Place, usize)> {
        let mut first: Option<(Instant, (Root, Place, usize))> = None;
        for (name, want) in self.wants.busy() {
            let (Some(root), Some((place, has))) =
                (name.root(), self.has_of(conns, swarms, helper, name, want))
            else {
                continue;
            };
            for part in (want.transfer().asked() & has).iter() {
                if let Some(asked) = waits_since(want, part)
                    && first.as_ref().is_none_or(|(least, _)| asked < *least)
                {
                    first = Some((asked, (root, place, part)));
                }
            }
        }
        first.map(|(_, part)| part)
    }
}

/// When a part was asked for, where nobody has begun to bring it and another peer may be asked.
fn waits_since(want: &Want, part: usize) -> Option<Instant> {
    let requests = || want.transfer().requests().iter().filter(|request| request.part() == part);
    let may_more = requests().count() < LAST_ASKED_AT_ONCE_MAX && !requests().any(Request::is_begun);
    requests().map(Request::asked).min().filter(|_| may_more)
}
