//! Who takes over from whom: what a peer takes too long for is asked of another.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::super::channels::contents::Place;
use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::super::cx::Cx;
use super::super::timers::Timer;
use super::Downloads;
use super::transfer::{Request, Segment, Transfer};
use crate::ids::{BlobName, ConnId, Topic};
use crate::limits::{SILENCE_MAX, STALL_TIMEOUT};
use crate::suite::Suite;
use crate::time::Instant;

/// How often transfers are looked at for peers that take too long.
pub(super) const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// A segment is taken over where it would take longer than this, and longer than three times what the other needs.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same where nothing else is left to ask for.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(2);
/// Each time that a blob's segment was taken over doubles the patience, up to this many times.
const TAKEOVERS_COUNTED: u32 = 6;
/// A peer that has everything and lets us wait this long is asked for something else once another has the blob.
const SEED_PATIENCE: Duration = Duration::from_millis(500);

impl Downloads {
    /// Looks for segments that take too long, and for idle peers that may bring them sooner. The connections that have
    /// brought nothing for so long that they are to be closed.
    pub(crate) fn find_silent<S: Suite>(&mut self, cx: &mut Cx, conns: &Conns<S>) -> Vec<ConnId> {
        let now = cx.now();
        if self.wants.transfers().is_empty() {
            return Vec::new();
        }
        cx.set_timer_in(Timer::Review, REVIEW_INTERVAL);
        let mut silent = Vec::new();
        for (conn, line) in self.lines.iter() {
            let is_asked = conns.get(conn).is_some_and(|requests| requests.ranges() > 0);
            let silent_for = if is_asked { now.since(line.brought) } else { Duration::ZERO };
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

    /// Lets idle peers take over what takes too long.
    pub(crate) fn review<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) {
        let now = cx.now();
        self.cancel_due(cx, conns);
        let is_idle = |conn: ConnId| conns.get(conn).is_some_and(|requests| requests.ranges() == 0);
        let may_help = self.candidates.iter().filter(|(conn, candidate)| {
            !candidate.is_v5() && candidate.has_room() && !candidate.is_backed_off(now) && is_idle(*conn)
        });
        let mut idle: Vec<(Reverse<u64>, ConnId)> = may_help
            .filter_map(|(conn, _)| Some((Reverse(self.lines.get(conn)?.rate.bytes_per_sec()), conn)))
            .collect();
        // A peer that has proven to bring something comes first: one that takes over and brings nothing costs the most.
        idle.sort_unstable();
        for (_, conn) in idle {
            self.take_over(cx, conns, swarms, conn);
        }
        // A swarm may have become silent.
        self.are_claims_due = true;
    }

    /// Lets an idle peer bring (a part of) the segment that would take longest.
    fn take_over<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms, helper: ConnId) {
        let Some((blob, at, from)) = self.slowest_segment_for(cx.now(), conns, swarms, helper) else {
            return;
        };
        let Some((request, rest)) = self.wants.take_over(&blob, at, from) else { return };
        if let Some(request) = request {
            self.cut(conns, &request, from);
        }
        self.ask_for_segment(cx, conns, helper, &blob, rest);
        self.is_due = true;
    }

    /// The blob, the segment, and where the helper's part begins.
    fn slowest_segment_for<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        swarms: &Swarms,
        helper: ConnId,
    ) -> Option<(BlobName, usize, u32)> {
        let mut slowest = None;
        for (id, transfer) in self.wants.transfers() {
            for (at, segment) in transfer.segments().iter().enumerate() {
                let Some(request) = segment.request().filter(|_| !segment.is_whole()) else { continue };
                let left = self.time_left(now, conns, request, segment.is_begun());
                let may = !segment.is_begun() || transfer.can_split();
                if request.conn() != helper
                    && self.is_too_slow(transfer, segment, left, helper)
                    && may
                    && self.may_have(conns, swarms, helper, id, transfer.place())
                {
                    // What has begun goes on at its front.
                    let is_silent = self
                        .candidates
                        .get(request.conn())
                        .is_none_or(|candidate| candidate.is_backed_off(now));
                    let is_moving = segment.is_begun() && !is_silent;
                    let from = if is_moving { segment.middle() } else { segment.next() };
                    slowest = slowest.max(Some((left, Reverse(*id), at, from)));
                }
            }
        }
        slowest.map(|(_, Reverse(id), at, from)| (id, at, from))
    }

    fn is_too_slow(&self, transfer: &Transfer, segment: &Segment, left: Duration, helper: ConnId) -> bool {
        let half = u64::from(segment.missing() / 2);
        let helper_time =
            self.lines.get(helper).and_then(|line| line.rate.time_for(half)).unwrap_or_default();
        // What has begun, at the end, is not waiting for its turn any more.
        let is_last = self.wants.is_queue_empty() && segment.is_begun();
        let patience = if is_last { PATIENCE_AT_THE_END } else { PATIENCE } + self.usual_wait * 3;
        // The next to take over gets more time than the one before, so that slow peers all around come to an end.
        let patience = patience * (1 << transfer.takeovers().min(TAKEOVERS_COUNTED));
        left > patience && left > helper_time * 3
    }

    /// How long a peer is likely to take for all that it was asked for.
    fn time_left<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        request: &Request,
        is_begun: bool,
    ) -> Duration {
        let (Some(line), Some(requests)) = (self.lines.get(request.conn()), conns.get(request.conn())) else {
            return Duration::MAX;
        };
        let waited = request.waited(now);
        match line.rate.time_for(requests.range_bytes()) {
            Some(time) if is_begun => time.max(waited),
            _ => waited,
        }
    }

    /// A peer that is no seed has got these blobs: a seed that has not come to them is asked for what nobody else has
    /// instead.
    pub(crate) fn relieve_seeds<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        (topic, positions): (Topic, &[u64]),
    ) {
        if swarms.is_seed_of(conn, &topic) {
            return;
        }
        let now = cx.now();
        for (id, place, request) in self.waiting_blobs(topic, positions) {
            if request.age(now) < SEED_PATIENCE || request.conn() == conn {
                continue;
            }
            self.sum_up(conns, conn);
            let is_ready =
                |candidate: &super::Candidate| candidate.has_room() && !candidate.is_backed_off(now);
            let has_room = self.candidates.get(conn).is_some_and(is_ready);
            let is_at_seed = swarms.is_seed_of(request.conn(), &topic);
            if has_room && (is_at_seed || place.is_index()) {
                self.cut(conns, &request, 0);
                self.ask_for_segment(cx, conns, conn, &id, 0);
            } else if !has_room && is_at_seed && self.has_rarer(conns, swarms, request.conn(), &place) {
                self.cut(conns, &request, 0);
                self.release(conns, request.conn(), Some(&id));
            } else {
                continue;
            }
            self.is_due = true;
        }
    }

    /// The blobs at the positions of which one peer was asked for all, and nothing has come.
    fn waiting_blobs(&self, topic: Topic, positions: &[u64]) -> Vec<(BlobName, Place, Request)> {
        let waiting = |(id, transfer): (BlobName, &Transfer)| {
            let [segment] = transfer.segments() else { return None };
            let request = segment.request().filter(|_| !segment.is_begun())?;
            Some((id, *transfer.place(), request.clone()))
        };
        self.wants.transfers_at(topic, positions).filter_map(waiting).collect()
    }

    /// Whether a queued blob that the peer has is rarer than the one at a place.
    fn has_rarer<S: Suite>(&self, conns: &Conns<S>, swarms: &Swarms, conn: ConnId, place: &Place) -> bool {
        let availability = |place: &Place| swarms.availability(place.topic(), place.position());
        let other = self.pick(conns, swarms, conn);
        other.is_some_and(|(_, other)| !place.is_index() && availability(&other) < availability(place))
    }

    /// From `from` on, what was asked for is no longer wanted of a peer.
    pub(super) fn cut<S: Suite>(&mut self, conns: &mut Conns<S>, request: &Request, from: u32) {
        let conn = request.conn();
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get_mut(conn)) else { return };
        requests.cut(request.range(), from);
        if requests.ranges() == 0 {
            line.rate.end();
        }
        self.sum_up(conns, conn);
    }
}
