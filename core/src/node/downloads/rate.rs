//! How fast a connection brings what it is asked for.

use core::time::Duration;

use crate::time::Instant;

/// How long bytes are counted before they make a rate.
const SPAN: Duration = Duration::from_millis(250);

/// A moving average of the times in which something was outstanding, waiting included.
#[derive(Debug, Default)]
pub(super) struct Rate {
    bytes_per_sec: u64,
    /// Since when something is outstanding, or the last span ended; and the bytes since.
    since: Option<Instant>,
    bytes: u64,
}

impl Rate {
    /// 0 before anything came.
    pub(super) fn bytes_per_sec(&self) -> u64 {
        self.bytes_per_sec
    }

    /// Something is outstanding.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Bytes came. `is_last`: nothing is outstanding any more.
    pub(super) fn add(&mut self, now: Instant, bytes: usize, is_last: bool) {
        self.bytes += bytes as u64;
        let Some(since) = self.since else { return };
        let took = now.since(since);
        if (took >= SPAN || is_last) && took > Duration::ZERO {
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            let latest = self.bytes.saturating_mul(1_000_000_000) / nanos;
            self.bytes_per_sec =
                if self.bytes_per_sec == 0 { latest } else { self.bytes_per_sec.saturating_add(latest) / 2 };
            (self.since, self.bytes) = ((!is_last).then_some(now), 0);
        }
    }

    /// Nothing is outstanding any more, though not all of it came.
    pub(super) fn end(&mut self) {
        (self.since, self.bytes) = (None, 0);
    }

    /// How long `bytes` take; `None` before anything came.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        let millis = bytes.saturating_mul(1000).checked_div(self.bytes_per_sec)?;
        Some(Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    #[test]
    fn a_rate_is_of_the_time_in_which_something_was_outstanding() {
        let mut rate = Rate::default();
        rate.begin(at(0));
        rate.add(at(100), 100_000, false);
        assert_eq!(rate.bytes_per_sec(), 0, "too short to tell");
        rate.add(at(1000), 100_000, true);
        assert_eq!(rate.bytes_per_sec(), 200_000);
        rate.begin(at(60_000));
        rate.add(at(61_000), 600_000, true);
        assert_eq!(rate.bytes_per_sec(), 400_000, "the minute between them does not count");
        assert_eq!(rate.time_for(800_000), Some(Duration::from_secs(2)));
        assert_eq!(Rate::default().time_for(1), None);
    }
}
