//! Bytes a second, over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use megatorrent_core::node::NodeStatus;

/// Over which time.
const WINDOW: Duration = Duration::from_secs(5);

/// The counters of the last seconds.
#[derive(Default)]
pub(super) struct Rates {
    counters: VecDeque<(Instant, u64, u64)>,
}

impl Rates {
    pub(super) fn note(&mut self, status: &NodeStatus) {
        let now = Instant::now();
        self.counters.push_back((now, status.bytes_received, status.bytes_sent));
        while self.counters.front().is_some_and(|(at, ..)| now - *at > WINDOW) {
            self.counters.pop_front();
        }
    }

    /// Received and sent.
    pub(super) fn bytes_per_sec(&self) -> (u64, u64) {
        let (Some(first), Some(last)) = (self.counters.front(), self.counters.back()) else { return (0, 0) };
        let ms = u64::try_from((last.0 - first.0).as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |from: u64, to: u64| (to - from).saturating_mul(1_000) / ms;
        (rate(first.1, last.1), rate(first.2, last.2))
    }
}
