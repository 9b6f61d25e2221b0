//! Bytes a second, over the last seconds, and what they were over the last ten minutes and the last day.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use megatorrent_core::node::NodeStatus;

use crate::api::{RateHistory, RateSample};
use crate::clock;

/// Over which time the present rate is taken.
const WINDOW: Duration = Duration::from_secs(5);
/// Samples of ten minutes and of a day: how long each is, and how many are kept.
const SHORT: (Duration, usize) = (Duration::from_secs(2), 300);
const LONG: (Duration, usize) = (Duration::from_mins(5), 288);

/// The counters of the last seconds, and rates before that.
pub(super) struct Rates {
    counters: VecDeque<(Instant, u64, u64)>,
    short: Series,
    long: Series,
}

impl Default for Rates {
    fn default() -> Self {
        Self { counters: VecDeque::new(), short: Series::new(SHORT), long: Series::new(LONG) }
    }
}

impl Rates {
    pub(super) fn note(&mut self, status: &NodeStatus) {
        let counters = (Instant::now(), status.bytes_received, status.bytes_sent);
        self.counters.push_back(counters);
        while self.counters.front().is_some_and(|(at, ..)| counters.0 - *at > WINDOW) {
            self.counters.pop_front();
        }
        self.short.note(counters);
        self.long.note(counters);
    }

    /// Received and sent.
    pub(super) fn bytes_per_sec(&self) -> (u64, u64) {
        let (Some(first), Some(last)) = (self.counters.front(), self.counters.back()) else { return (0, 0) };
        rates(*first, *last)
    }

    /// Of the last day, or of the last ten minutes.
    pub(super) fn history(&self, day: bool) -> RateHistory {
        let series = if day { &self.long } else { &self.short };
        RateHistory { step_secs: series.step.as_secs(), samples: series.samples.iter().copied().collect() }
    }
}

/// Received and sent a second, from one look at the counters to a later one.
fn rates(first: (Instant, u64, u64), last: (Instant, u64, u64)) -> (u64, u64) {
    let ms = u64::try_from((last.0 - first.0).as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = |from: u64, to: u64| to.saturating_sub(from).saturating_mul(1_000) / ms;
    (rate(first.1, last.1), rate(first.2, last.2))
}

/// Rates of one length each, the oldest first.
struct Series {
    step: Duration,
    samples_max: usize,
    since: Option<(Instant, u64, u64)>,
    samples: VecDeque<RateSample>,
}

impl Series {
    fn new((step, samples_max): (Duration, usize)) -> Self {
        Self { step, samples_max, since: None, samples: VecDeque::new() }
    }

    fn note(&mut self, counters: (Instant, u64, u64)) {
        let since = *self.since.get_or_insert(counters);
        if counters.0 - since.0 < self.step {
            return;
        }
        let (receive_bytes_per_sec, send_bytes_per_sec) = rates(since, counters);
        let unix_ms = clock::now_ms();
        self.samples.push_back(RateSample { unix_ms, receive_bytes_per_sec, send_bytes_per_sec });
        if self.samples.len() > self.samples_max {
            self.samples.pop_front();
        }
        self.since = Some(counters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_bounded_and_says_what_came_in_each_step() {
        let mut series = Series::new((Duration::from_secs(2), 3));
        let start = Instant::now();
        for second in 0..=10_u64 {
            series.note((start + Duration::from_secs(second), second * 100, second * 7));
        }
        let rates: Vec<(u64, u64)> =
            series.samples.iter().map(|it| (it.receive_bytes_per_sec, it.send_bytes_per_sec)).collect();
        assert_eq!(rates, [(100, 7); 3]);
    }
}
