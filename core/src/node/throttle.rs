//! Rate limits on a node's sending and receiving, over all its connections.
//!
//! Bytes that may move are saved up at the limit's rate, for at most [`BURST`]. While enough are saved and no connection
//! waits, a connection moves what it has. Otherwise it waits, and at the next round the waiting connections share the
//! bytes saved in the meantime, in the order in which they came; the unused part of a share goes to the next round. So
//! busy connections get equal shares, and a slow one holds none of them up.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::api::Action;
use super::cx::Cx;
use super::timers::Timer;
use crate::ids::ConnId;
use crate::limits::RATE_LIMIT_MIN;
use crate::time::Instant;

/// Shortest time between two rounds.
const ROUND: Duration = Duration::from_millis(20);
/// The time for which unused bytes are saved up. A driver that is late by less loses nothing.
const BURST: Duration = Duration::from_millis(250);
/// Smallest share of a round; where there is less for each connection, some wait for the next round.
const SHARE_MIN: i64 = 256;
/// Saved bytes are counted in billionths, so that rounding loses none.
const NANOS: i128 = 1_000_000_000;

/// The limit on one direction.
pub(super) struct Throttle {
    bytes_per_sec: u64,
    /// Bytes that may move beside the shares, times [`NANOS`], as of `at`; negative where more moved.
    saved: i128,
    at: Instant,
    /// The bytes that connections may still move of their shares of this round; 0: they wait for the next.
    shares: BTreeMap<ConnId, i64>,
    /// The connections that wait, the longest first.
    waiting: VecDeque<ConnId>,
    next_round: Instant,
}

impl Throttle {
    pub(super) fn new(bytes_per_sec: u64, now: Instant) -> Self {
        let mut throttle = Self {
            bytes_per_sec: bytes_per_sec.max(RATE_LIMIT_MIN),
            saved: 0,
            at: now,
            shares: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_round: now,
        };
        throttle.saved = throttle.bytes_in(BURST);
        throttle
    }

    /// Returns the bytes that may move in a time, times [`NANOS`].
    fn bytes_in(&self, time: Duration) -> i128 {
        i128::from(self.bytes_per_sec) * i128::try_from(time.as_nanos()).expect("2^94 at most")
    }

    fn refill(&mut self, now: Instant) {
        let saved = self.saved + self.bytes_in(now.since(self.at));
        self.saved = saved.min(self.bytes_in(BURST));
        self.at = now;
    }

    fn saved_bytes(&self) -> i64 {
        i64::try_from(self.saved.div_euclid(NANOS)).unwrap_or(i64::MAX)
    }

    /// Returns how many bytes a connection may move at once; 0: it waits for a round.
    fn allow(&mut self, conn: ConnId, now: Instant) -> usize {
        if let Some(share) = self.shares.get(&conn) {
            return usize::try_from(*share).unwrap_or(0);
        }
        self.refill(now);
        let part = self.part();
        if self.waiting.is_empty() && self.saved_bytes() >= part {
            return usize::try_from(part).unwrap_or(usize::MAX);
        }
        self.shares.insert(conn, 0);
        self.waiting.push_back(conn);
        0
    }

    /// Returns the bytes that one round saves up, at least [`SHARE_MIN`].
    fn part(&self) -> i64 {
        i64::try_from(self.bytes_in(ROUND) / NANOS).unwrap_or(i64::MAX).max(SHARE_MIN)
    }

    fn moved(&mut self, conn: ConnId, n: usize) {
        let mut n = i64::try_from(n).unwrap_or(i64::MAX);
        if let Some(share) = self.shares.get_mut(&conn).filter(|share| **share > 0) {
            let of_share = n.min(*share);
            *share -= of_share;
            n -= of_share;
            if *share == 0 {
                self.shares.remove(&conn);
            }
        }
        self.saved -= i128::from(n) * NANOS;
    }

    fn forget(&mut self, conn: ConnId) {
        let Some(share) = self.shares.remove(&conn) else { return };
        if share == 0 {
            self.waiting.retain(|waiting| *waiting != conn);
        }
        self.saved += i128::from(share) * NANOS;
    }

    /// Returns when the waiting connections get their shares; `None`: none waits.
    fn deadline(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let held: i64 = self.shares.values().sum();
        let missing = i128::from(SHARE_MIN.saturating_sub(held)) * NANOS - self.saved;
        let nanos = missing.max(0).div_euclid(i128::from(self.bytes_per_sec)) + 1;
        let enough = self.at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(enough.max(self.next_round))
    }

    /// Shares out the saved bytes; returns the connections that may go on.
    fn round(&mut self, now: Instant) -> Vec<ConnId> {
        if self.deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.next_round = now + ROUND;
        self.shares.retain(|_, share| {
            self.saved += i128::from(*share) * NANOS;
            *share == 0
        });
        self.refill(now);
        let saved = self.saved_bytes();
        let most = usize::try_from(saved / SHARE_MIN).unwrap_or(0);
        let ready: Vec<ConnId> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        let Ok(count @ 1..) = i64::try_from(ready.len()) else { return ready };
        for conn in &ready {
            self.shares.insert(*conn, saved / count);
        }
        self.saved -= i128::from(saved / count * count) * NANOS;
        ready
    }
}

/// The limits on both directions; `None`: no limit.
pub(super) struct Throttles {
    upload: Option<Throttle>,
    download: Option<Throttle>,
}

impl Throttles {
    pub(super) fn new(upload: Option<u64>, download: Option<u64>, now: Instant) -> Self {
        let new = |limit: Option<u64>| limit.map(|limit| Throttle::new(limit, now));
        Self { upload: new(upload), download: new(download) }
    }

    /// Changes the limits. The connections that wait for a share go on, and wait anew under the new limit.
    pub(super) fn set(&mut self, cx: &mut Cx, upload: Option<u64>, download: Option<u64>) {
        for conn in change(&mut self.upload, upload, cx.now()) {
            cx.act(Action::Writable(conn));
        }
        for conn in change(&mut self.download, download, cx.now()) {
            cx.act(Action::Readable(conn));
        }
    }

    /// Returns how many bytes a connection may send at once; 0: it waits for [`Action::Writable`].
    pub(super) fn may_send(&mut self, cx: &mut Cx, conn: ConnId) -> usize {
        allow(&mut self.upload, cx, conn)
    }

    /// Returns how many bytes a connection may receive at once; 0: it waits for [`Action::Readable`].
    pub(super) fn may_receive(&mut self, cx: &mut Cx, conn: ConnId) -> usize {
        allow(&mut self.download, cx, conn)
    }

    pub(super) fn sent(&mut self, conn: ConnId, n: usize) {
        if let Some(throttle) = &mut self.upload {
            throttle.moved(conn, n);
        }
    }

    pub(super) fn received(&mut self, conn: ConnId, n: usize) {
        if let Some(throttle) = &mut self.download {
            throttle.moved(conn, n);
        }
    }

    /// Begins a round: wakes the driver for the connections that may go on.
    pub(super) fn on_timer(&mut self, cx: &mut Cx) {
        let now = cx.now();
        for conn in self.upload.iter_mut().flat_map(|throttle| throttle.round(now)) {
            cx.act(Action::Writable(conn));
        }
        for conn in self.download.iter_mut().flat_map(|throttle| throttle.round(now)) {
            cx.act(Action::Readable(conn));
        }
        let next = [&self.upload, &self.download].into_iter().flatten().filter_map(Throttle::deadline).min();
        if let Some(at) = next {
            cx.set_timer(Timer::Throttle, at);
        }
    }

    /// Forgets a connection that is gone.
    pub(super) fn closed(&mut self, conn: ConnId) {
        for throttle in [&mut self.upload, &mut self.download].into_iter().flatten() {
            throttle.forget(conn);
        }
    }
}

/// Changes a limit, and returns the connections that waited under the earlier one.
fn change(throttle: &mut Option<Throttle>, limit: Option<u64>, now: Instant) -> VecDeque<ConnId> {
    let limit = limit.map(|limit| limit.max(RATE_LIMIT_MIN));
    if throttle.as_ref().map(|throttle| throttle.bytes_per_sec) == limit {
        return VecDeque::new();
    }
    let before = mem::replace(throttle, limit.map(|limit| Throttle::new(limit, now)));
    before.map(|before| before.waiting).unwrap_or_default()
}

fn allow(throttle: &mut Option<Throttle>, cx: &mut Cx, conn: ConnId) -> usize {
    let Some(throttle) = throttle else { return usize::MAX };
    let allowed = throttle.allow(conn, cx.now());
    if allowed == 0
        && let Some(at) = throttle.deadline()
    {
        cx.set_timer_sooner(Timer::Throttle, at);
    }
    allowed
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    /// Runs connections that each move what they may at once, up to `most` bytes a round; returns the bytes of each, and the
    /// rounds, in `time`.
    fn run(throttle: &mut Throttle, most: &[usize], time: Duration) -> (Vec<usize>, usize) {
        let (mut now, mut moved, mut rounds) = (Instant(0), vec![0; most.len()], 0);
        let mut ready: Vec<ConnId> = (0..).map(conn).take(most.len()).collect();
        while now < Instant(0) + time {
            for conn in ready {
                let at = conn.slot as usize;
                let mut left = most[at];
                loop {
                    let n = throttle.allow(conn, now).min(left);
                    if n == 0 {
                        break;
                    }
                    throttle.moved(conn, n);
                    (moved[at], left) = (moved[at] + n, left - n);
                }
            }
            // A connection with an unused share comes again when its socket takes more: here, at the next round.
            let unused: Vec<ConnId> =
                throttle.shares.iter().filter(|(_, share)| **share > 0).map(|(conn, _)| *conn).collect();
            now = throttle.deadline().unwrap_or(now + ROUND);
            ready = throttle.round(now);
            ready.extend(unused);
            rounds += 1;
        }
        (moved, rounds)
    }

    #[test]
    fn a_minute_brings_the_rate_and_no_spinning() {
        for rate in [RATE_LIMIT_MIN, 20_000, 500_000, 20_000_000, 3_000_000_000] {
            for count in [1, 3, 50] {
                let mut throttle = Throttle::new(rate, Instant(0));
                let (moved, rounds) = run(&mut throttle, &vec![usize::MAX; count], 60 * SECOND);
                let (sum, due) = (moved.iter().sum::<usize>() as u64, rate * 60);
                assert!(sum > due * 98 / 100 && sum < due * 102 / 100, "{rate}, {count}: {sum} of {due}");
                assert!(rounds <= 3001, "{rate}, {count}: {rounds} rounds in a minute");
                let (least, greatest) = (moved.iter().min(), moved.iter().max());
                let (least, greatest) = (least.expect("one at least"), greatest.expect("one at least"));
                let burst = usize::try_from(rate / 4).expect("small") + 256;
                assert!(greatest - least <= burst, "{rate}, {count}: from {least} to {greatest}");
            }
        }
    }

    #[test]
    fn the_unused_shares_of_slow_connections_go_to_the_others() {
        let mut throttle = Throttle::new(1_000_000, Instant(0));
        let (moved, _) = run(&mut throttle, &[usize::MAX, 100, usize::MAX], 60 * SECOND);
        let sum: usize = moved.iter().sum();
        assert!(sum > 58_800_000, "{sum}");
        assert!(moved[1] > 100 * 1000, "the slow one is not left behind: {}", moved[1]);
        assert!(moved[0].abs_diff(moved[2]) < 300_000, "{moved:?}");
    }

    #[test]
    fn a_limit_is_never_so_low_that_nothing_passes() {
        let mut throttle = Throttle::new(0, Instant(0));
        assert!(throttle.allow(conn(0), Instant(0)) >= 20, "a keep-alive");
        let (moved, _) = run(&mut throttle, &[20; 30], 60 * SECOND);
        assert!(moved.iter().all(|moved| *moved >= 20), "all of the connections: {moved:?}");
    }

    #[test]
    fn a_closed_connection_leaves_its_share_and_its_place() {
        let mut throttle = Throttle::new(1_000_000, Instant(0));
        throttle.moved(conn(9), 1_000_000);
        assert_eq!((throttle.allow(conn(0), Instant(0)), throttle.allow(conn(1), Instant(0))), (0, 0));
        throttle.forget(conn(0));
        let at = throttle.deadline().expect("one waits");
        assert!(throttle.round(Instant(at.0 - 1)).is_empty(), "too soon");
        assert_eq!(throttle.round(at), [conn(1)]);
        let share = throttle.allow(conn(1), at);
        assert!(share >= 256, "{share}");
        throttle.forget(conn(1));
        assert!(throttle.saved_bytes() >= 256 && throttle.deadline().is_none());
    }
}
