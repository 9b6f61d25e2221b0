//! What takes too long is asked of another peer too. The first request stays: whichever part comes first counts. So who withholds
//! what it was asked for, or trickles it, holds up nobody, and the bytes that come twice are bounded.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::super::channels::contents::Place;
use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::super::cx::Cx;
use super::super::timers::Timer;
use super::Downloads;
use super::transfer::Request;
use super::wants::Want;
use crate::ids::{BlobName, ConnId, Root};
use crate::limits::{ASKED_AT_ONCE_MAX, SILENCE_MAX, STALL_TIMEOUT};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;

/// How often what is under way is looked at for peers that take too long.
pub(super) const REVIEW_INTERVAL: Duration = Duration::from_millis(250);
/// A request takes too long where it is likely to take longer than this, and three times as long as another peer needs.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same of a whole blob.
const PATIENCE_WHOLE: Duration = Duration::from_secs(3);
/// Peers that a part of an index blob is asked of without waiting.
const INDEX_ASKED_AT_ONCE_MAX: usize = 2;
/// Where bytes came twice, one in so many and [`DUPLICATES_FREE`] more, what still moves is not asked for again.
const DUPLICATES_SHARE: u64 = 40;
const DUPLICATES_FREE: u64 = 1 << 20;

impl Downloads {
    /// The connections that have brought nothing for so long that they are to be closed; others are left alone for a while.
    pub(crate) fn find_silent<S: Suite>(&mut self, cx: &mut Cx, conns: &Conns<S>) -> Vec<ConnId> {
        let now = cx.now();
        if self.wants.busy().next().is_none() {
            return Vec::new();
        }
        cx.set_timer_in(Timer::Review, REVIEW_INTERVAL);
        let mut silent = Vec::new();
        for (conn, line) in self.lines.iter() {
            let is_asked = conns.get(conn).is_some_and(|requests| requests.parts_outstanding() > 0);
            let silent_for = if is_asked { now.since(line.brought_at) } else { Duration::ZERO };
            if silent_for >= SILENCE_MAX {
                silent.push(conn);
            } else if silent_for >= STALL_TIMEOUT
                && let Some(candidate) = self.candidates.get_mut(conn)
            {
                candidate.back_off_until(now + STALL_TIMEOUT);
            }
        }
        silent
    }

    /// Asks idle peers for what others take too long for.
    pub(crate) fn review<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) {
        let now = cx.now();
        self.cancel_due(cx, conns);
        if self.store_rests {
            return;
        }
        let may_help = self
            .candidates
            .iter()
            .filter(|(_, candidate)| candidate.has_room() && !candidate.is_backed_off(now));
        let mut helpers: Vec<(Reverse<u64>, ConnId)> = may_help
            .filter_map(|(conn, _)| Some((Reverse(self.lines.get(conn)?.rate.bytes_per_sec()), conn)))
            .collect();
        // A peer that has proven to bring something comes first.
        helpers.sort_unstable();
        for (_, conn) in helpers {
            let is_idle = !super::is_asked(conns, conn);
            if let Some((name, place, mask)) = self.slow_for(now, conns, swarms, conn, is_idle) {
                match (name, self.wants.get(&name).and_then(Want::id)) {
                    (BlobName::Native(root), _) if conns.speaks_v6(conn) => {
                        self.ask_for_parts(cx, conns, conn, (root, &place), mask);
                    }
                    (_, Some(id)) if self.may_ask_whole(conns, conn) => {
                        self.ask_whole(cx, conns, conn, (name, id), &place);
                    }
                    _ => {}
                }
            }
        }
    }

    /// An index blob, and the parts of it that a peer has and nobody has begun to bring: all the rest waits for them, so another
    /// peer is asked at once.
    pub(super) fn index_under_way<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
    ) -> Option<(Root, Place, Mask)> {
        if !conns.speaks_v6(helper) {
            return None;
        }
        self.wants.busy().find_map(|(name, want)| {
            let (root, transfer) = (name.root()?, want.transfer());
            let (place, has) =
                self.has_of(conns, swarms, helper, name, want).filter(|(place, _)| place.is_index())?;
            let waits = |part: &usize| {
                !transfer.is_asked(helper, *part)
                    && transfer.askers(*part) < INDEX_ASKED_AT_ONCE_MAX
                    && !transfer
                        .requests()
                        .iter()
                        .any(|request| request.part() == *part && request.is_begun())
            };
            let parts = (transfer.asked() & has).iter().filter(waits);
            let mask = parts.fold(Mask::NONE, |mask, part| mask | Mask::one(part));
            (!mask.is_empty()).then_some((root, place, mask))
        })
    }

    /// The blob whose missing parts take longest, and those of them that a peer may bring sooner. A peer that is not idle is asked
    /// only for what others wait for.
    fn slow_for<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
        is_idle: bool,
    ) -> Option<(BlobName, Place, Mask)> {
        let mut slowest = None;
        for (name, want) in self.wants.busy() {
            let Some((place, has)) = self.has_of(conns, swarms, helper, name, want) else { continue };
            if !is_idle && !place.is_index() && !place.in_order() && place.urgency().deadline().is_none() {
                continue;
            }
            let (mask, left) = match name {
                BlobName::Native(_) if conns.speaks_v6(helper) => {
                    match self.slow_parts(now, conns, want, helper, has) {
                        (Mask::NONE, _) => self.parts_of_slow_whole(now, conns, want, helper, has),
                        slow => slow,
                    }
                }
                _ => self.slow_whole(now, want, helper),
            };
            if !mask.is_empty() {
                slowest = slowest.max(Some((left, Reverse(*name), mask)));
            }
        }
        let (_, Reverse(name), mask) = slowest?;
        let (place, _) = self.has_of(conns, swarms, helper, &name, self.wants.get(&name)?)?;
        Some((name, place, mask))
    }

    /// The parts of a blob that take too long, and how long; as many of them as a peer may be asked for.
    fn slow_parts<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        want: &Want,
        helper: ConnId,
        has: Mask,
    ) -> (Mask, Duration) {
        let (Some(line), Some(requests)) = (self.lines.get(helper), conns.get(helper)) else {
            return (Mask::NONE, Duration::ZERO);
        };
        let transfer = want.transfer();
        let own = line.rate.time_for(self.part_len as u64).unwrap_or_default();
        let (mut slow, mut longest) = (Mask::NONE, Duration::ZERO);
        let mut room = line.part_window(self.part_len).saturating_sub(requests.parts_outstanding());
        for part in (transfer.asked() & has).iter() {
            let is_asked_enough =
                transfer.is_asked(helper, part) || transfer.askers(part) >= ASKED_AT_ONCE_MAX;
            if is_asked_enough || room == 0 {
                continue;
            }
            let of_part = transfer.requests().iter().filter(|request| request.part() == part);
            let left = of_part.map(|request| self.time_left(now, conns, request.conn(), request.asked()));
            let left = left.min().unwrap_or_default();
            if left > PATIENCE + self.usual_wait * 2 && left > own * 3 {
                (slow, longest, room) = (slow | Mask::one(part), longest.max(left), room - 1);
            }
        }
        (slow, longest)
    }

    /// Of a blob that takes too long whole, the parts that a peer may be asked for, and how long it has taken.
    fn parts_of_slow_whole<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        want: &Want,
        helper: ConnId,
        has: Mask,
    ) -> (Mask, Duration) {
        let (slow, left) = self.slow_whole(now, want, helper);
        let (Some(line), Some(requests)) = (self.lines.get(helper), conns.get(helper)) else {
            return (Mask::NONE, Duration::ZERO);
        };
        let room = line.part_window(self.part_len).saturating_sub(requests.parts_outstanding());
        let parts = (slow & has & want.transfer().unasked()).iter().take(room);
        (parts.fold(Mask::NONE, |mask, part| mask | Mask::one(part)), left)
    }

    /// Whether a blob takes too long whole, or a native one by parts, so that a peer may be asked for all of it; and how long.
    fn slow_whole(&self, now: Instant, want: &Want, helper: ConnId) -> (Mask, Duration) {
        let is_helper = |(conn, _): &(ConnId, Instant)| *conn == helper;
        let of_parts = want.transfer().requests().iter().map(Request::asked);
        let asked = want.asked().iter().map(|(_, at)| *at).chain(of_parts);
        let latest = asked.map(|at| now.since(at)).min().unwrap_or_default();
        let is_slow = latest > PATIENCE_WHOLE + self.usual_wait * 2
            && want.asked().len() < ASKED_AT_ONCE_MAX
            && !want.asked().iter().any(is_helper);
        (if is_slow { Mask::ALL } else { Mask::NONE }, latest)
    }

    /// How long a peer is likely to take for all that it was asked for.
    fn time_left<S: Suite>(&self, now: Instant, conns: &Conns<S>, conn: ConnId, asked: Instant) -> Duration {
        let (Some(line), Some(requests)) = (self.lines.get(conn), conns.get(conn)) else {
            return Duration::MAX;
        };
        let silent = now.since(line.brought_at.max(asked));
        let bytes = (requests.parts_outstanding() * self.part_len) as u64;
        match line.rate.time_for(bytes) {
            // Where much came twice, only what seems to be lost is asked for again.
            Some(time) if silent < PATIENCE && !self.has_too_many_duplicates() => time,
            Some(_) if silent < PATIENCE => Duration::ZERO,
            _ => silent,
        }
    }

    fn has_too_many_duplicates(&self) -> bool {
        self.bytes_duplicate > self.bytes_received / DUPLICATES_SHARE + DUPLICATES_FREE
    }
}
