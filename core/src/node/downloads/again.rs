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
use super::transfer::Request;
use super::wants::Want;
use super::{Downloads, Line};
use crate::conn::Conn;
use crate::ids::{BlobName, ConnId, Root};
use crate::limits::{ASKED_AT_ONCE_MAX, INDEX_ASKED_MAX, SILENCE_MAX, STALL_TIMEOUT};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;

/// How often what is under way is looked at for peers that take too long.
pub(super) const REVIEW_INTERVAL: Duration = Duration::from_millis(250);
/// A request takes too long where it is likely to take longer than this, and three times as long as another peer needs.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a connection was asked for that has brought nothing for longer than this takes nobody's room.
const QUIET_AFTER: Duration = Duration::from_millis(500);
/// The same as [`PATIENCE`], of a whole blob.
const PATIENCE_WHOLE: Duration = Duration::from_secs(3);
/// Among the [`ASKED_AT_ONCE_MAX`] peers that a part is asked of, one that has brought nothing for so long makes room for another.
const STAYS_FOR: Duration = Duration::from_secs(5);
/// Parts that a peer is asked for beyond its window, where they take too long and are urgent.
const URGENT_SPARE: usize = 4;
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
        let were_quiet = self.parts_quiet;
        self.count_quiet(now, conns);
        self.is_due |= self.parts_quiet > were_quiet;
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

    /// Counts the parts that connections were asked for which have fallen silent.
    pub(super) fn count_quiet<S: Suite>(&mut self, now: Instant, conns: &Conns<S>) {
        let is_quiet = |line: &Line| now.since(line.brought_at) > QUIET_AFTER + self.usual_wait * 2;
        let quiet =
            self.lines.iter().filter(|(_, line)| is_quiet(line)).filter_map(|(conn, _)| conns.get(conn));
        self.parts_quiet = quiet.map(Conn::parts_outstanding).sum();
    }

    /// The parts that take up room: those that may come at any moment, and those that are being written.
    pub(super) fn under_way(&self) -> usize {
        self.wants.parts_under_way().saturating_sub(self.parts_quiet)
    }

    /// Asks idle peers for what others take too long for, or have not begun to bring.
    pub(crate) fn review<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) {
        let now = cx.now();
        self.cancel_due(cx, conns);
        if self.store_rests {
            return;
        }
        let may_help = self.candidates.iter().filter(|(_, it)| it.is_askable() && !it.is_backed_off(now));
        // A peer that has proven to bring something comes first, one that withheld what it was asked for last.
        let order = |(conn, _): (ConnId, _)| {
            let line = self.lines.get(conn)?;
            Some((Reverse(line.rate.bytes_per_sec()), line.withheld, conn))
        };
        let mut helpers: Vec<(Reverse<u64>, u32, ConnId)> = may_help.filter_map(order).collect();
        helpers.sort_unstable();
        let is_scarce = self.are_seeds_scarce(swarms);
        for (.., conn) in helpers {
            let is_idle = !super::is_asked(conns, conn);
            if let Some((name, place, mask)) = self.slow_for(now, conns, swarms, conn, is_idle) {
                match (name, self.wants.get(&name).and_then(Want::id)) {
                    (BlobName::Native(root), _) if conns.speaks_v6(conn) => {
                        self.make_room(now, conns, root, mask);
                        self.ask_for_parts(cx, conns, conn, (root, &place), mask);
                    }
                    (_, Some(id)) if self.may_ask_whole(conns, conn) => {
                        self.ask_whole(cx, conns, conn, (name, id), &place);
                    }
                    _ => {}
                }
            } else if is_idle && !self.ask_for_last(cx, conns, swarms, conn) {
                self.move_here(cx, conns, swarms, conn, is_scarce);
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
            let is_urgent = want.places().iter().any(|(place, _)| is_urgent(place));
            if !is_idle && !is_urgent {
                continue;
            }
            let Some((_, has)) = self.has_of(conns, swarms, helper, name, want) else { continue };
            let (mask, left) = match name {
                BlobName::Native(_) if conns.speaks_v6(helper) => {
                    let room = self.room(conns, helper, if is_urgent { URGENT_SPARE } else { 0 });
                    match self.slow_parts(now, conns, want, helper, has, room) {
                        (Mask::NONE, _) => self.parts_of_slow_whole(now, want, helper, has, room),
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

    /// The parts of a blob that take too long, up to `room`, and how long.
    fn slow_parts<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        want: &Want,
        helper: ConnId,
        has: Mask,
        mut room: usize,
    ) -> (Mask, Duration) {
        let transfer = want.transfer();
        let own = self.lines.get(helper).and_then(|line| line.rate.time_for(self.part_len as u64));
        let most = (PATIENCE + self.usual_wait * 2).max(own.unwrap_or_default() * 3);
        let (mut slow, mut longest) = (Mask::NONE, Duration::ZERO);
        for part in (transfer.asked() & has).iter() {
            if room == 0 {
                break;
            }
            let of_part = transfer.requests().iter().filter(|request| request.part() == part);
            let stays = |request: &Request| self.silent_for(now, request) < STAYS_FOR;
            let is_full = transfer.askers(part) >= asked_max(want) && of_part.clone().all(stays);
            if is_full || transfer.is_asked(helper, part) {
                continue;
            }
            let all_withhold = is_index(want)
                && of_part.clone().all(|request| {
                    let silent = self.silent_for(now, request);
                    silent > REVIEW_INTERVAL + self.usual_wait * 2
                        && (silent >= PATIENCE || self.time_for_all(conns, request.conn(), 0).is_none())
                });
            let left = of_part.map(|request| self.time_left(now, conns, request));
            let left = if all_withhold { left.max() } else { left.min() }.unwrap_or_default();
            if left > most {
                (slow, longest, room) = (slow | Mask::one(part), longest.max(left), room - 1);
            }
        }
        (slow, longest)
    }

    /// Where parts are asked of as many peers as may be, the one that has been silent longest is asked no longer.
    fn make_room<S: Suite>(&mut self, now: Instant, conns: &mut Conns<S>, root: Root, mask: Mask) {
        let name = BlobName::Native(root);
        for part in mask.iter() {
            let Some(transfer) = self.wants.get(&name).map(Want::transfer) else { return };
            if self.wants.get(&name).is_none_or(|want| transfer.askers(part) < asked_max(want)) {
                continue;
            }
            let of_part = transfer.requests().iter().filter(|request| request.part() == part);
            let Some(silent) = of_part.max_by_key(|it| self.silent_for(now, it)).map(Request::conn) else {
                continue;
            };
            if let Some(line) = self.lines.get_mut(silent) {
                line.withheld += 1;
            }
            self.release(silent, root, Mask::one(part));
            self.cancel(conns, silent, root, Mask::one(part));
        }
    }

    /// Of a blob that takes too long whole, the parts that a peer may be asked for, up to `room`, and how long it has taken.
    fn parts_of_slow_whole(
        &self,
        now: Instant,
        want: &Want,
        helper: ConnId,
        has: Mask,
        room: usize,
    ) -> (Mask, Duration) {
        let (slow, left) = self.slow_whole(now, want, helper);
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

    /// For how long a peer that was asked for a part has brought nothing.
    pub(super) fn silent_for(&self, now: Instant, request: &Request) -> Duration {
        let line = self.lines.get(request.conn());
        line.map_or(Duration::MAX, |line| now.since(line.brought_at.max(request.asked())))
    }

    /// How long a peer that was asked for a part is likely to take for all that it was asked for.
    fn time_left<S: Suite>(&self, now: Instant, conns: &Conns<S>, request: &Request) -> Duration {
        let silent = self.silent_for(now, request);
        match self.time_for_all(conns, request.conn(), 0) {
            // Where much came twice, only what seems to be lost is asked for again.
            Some(time) if silent < PATIENCE && !self.has_too_many_duplicates() => time,
            Some(_) if silent < PATIENCE => Duration::ZERO,
            _ => silent,
        }
    }

    /// How long a peer is likely to take for all that it is asked for and `more` parts. `None`: nothing is known of it.
    pub(super) fn time_for_all<S: Suite>(
        &self,
        conns: &Conns<S>,
        conn: ConnId,
        more: usize,
    ) -> Option<Duration> {
        let parts = conns.get(conn)?.parts_outstanding() + more;
        self.lines.get(conn)?.rate.time_for((parts * self.part_len) as u64)
    }

    fn has_too_many_duplicates(&self) -> bool {
        self.bytes_duplicate > self.bytes_received / DUPLICATES_SHARE + DUPLICATES_FREE
    }
}

fn is_index(want: &Want) -> bool {
    want.places().iter().any(|(place, _)| place.is_index())
}

/// How many peers a part of a blob may be asked of at once.
fn asked_max(want: &Want) -> usize {
    if is_index(want) { INDEX_ASKED_MAX } else { ASKED_AT_ONCE_MAX }
}

/// Whether busy peers are asked for it too where it takes too long: other things wait for it, or somebody does.
fn is_urgent(place: &Place) -> bool {
    place.is_index() || place.in_order() || place.urgency().deadline().is_some()
}
