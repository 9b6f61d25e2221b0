//! Token buckets: a rate on average, and a burst after a quiet time.

use core::time::Duration;

use crate::time::Instant;

/// `per_minute` on average, up to `burst` at once.
pub(super) struct Bucket {
    nanos_each: u64,
    /// The most that is saved up, and what was saved at a point in time, in nanoseconds.
    full: u64,
    saved: u64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_minute: u64, burst: u64, now: Instant) -> Self {
        let nanos_each = 60_000_000_000 / per_minute;
        let full = burst * nanos_each;
        Self { nanos_each, full, saved: full, at: now }
    }

    fn saved_at(&self, now: Instant) -> u64 {
        self.saved.saturating_add(now.0.saturating_sub(self.at.0)).min(self.full)
    }

    /// When one can be taken.
    pub(super) fn next(&self, now: Instant) -> Instant {
        now + Duration::from_nanos(self.nanos_each.saturating_sub(self.saved_at(now)))
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let saved = self.saved_at(now);
        let is_there = saved >= self.nanos_each;
        if is_there {
            (self.saved, self.at) = (saved - self.nanos_each, now);
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(60, 3, Instant(5));
        let taken = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Instant(5)), 3);
        assert_eq!(bucket.next(Instant(5)), Instant(5) + Duration::from_secs(1));
        assert_eq!(taken(&mut bucket, Instant(5) + Duration::from_secs(2)), 2);
        assert_eq!(taken(&mut bucket, Instant(5) + Duration::from_hours(1)), 3);
    }
}
