//! Token buckets: an average rate, and a burst after a quiet time.

use core::time::Duration;

use crate::time::Instant;

/// Yields `per_minute` tokens on average, up to `burst` at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    nanos_each: u64,
    /// The most that is saved up, and the savings as of `at`, in nanoseconds.
    full: u64,
    saved: u64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_minute: u64, burst: u64, now: Instant) -> Self {
        let nanos_each = 60_000_000_000 / per_minute;
        let full = burst * nanos_each;
        Self { nanos_each, full, saved: full, at: now }
    }

    fn saved_at(&self, now: Instant) -> u64 {
        self.saved.saturating_add(now.0.saturating_sub(self.at.0)).min(self.full)
    }

    /// Returns when a token can be taken.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        self.next_of(1, now)
    }

    /// When so many can be taken; of those that are saved up at most.
    pub(crate) fn next_of(&self, n: u64, now: Instant) -> Instant {
        let price = n.saturating_mul(self.nanos_each).min(self.full);
        now + Duration::from_nanos(price.saturating_sub(self.saved_at(now)))
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_n(1, now)
    }

    /// Takes `n` tokens, all or none.
    pub(crate) fn take_n(&mut self, n: u64, now: Instant) -> bool {
        let (saved, price) = (self.saved_at(now), n.saturating_mul(self.nanos_each));
        let is_there = saved >= price;
        if is_there {
            (self.saved, self.at) = (saved - price, now);
        }
        is_there
    }

    /// Nanoseconds until the bucket is full.
    pub(crate) fn missing(&self, now: Instant) -> u64 {
        self.full - self.saved_at(now)
    }

    /// Gives back `n` tokens.
    pub(crate) fn give_back(&mut self, n: u64) {
        self.saved = self.saved.saturating_add(n.saturating_mul(self.nanos_each)).min(self.full);
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
        assert_eq!(bucket.next_of(3, Instant(5)), Instant(5) + Duration::from_secs(3));
        assert_eq!(taken(&mut bucket, Instant(5) + Duration::from_secs(2)), 2);
        assert_eq!(bucket.missing(Instant(5) + Duration::from_secs(4)), 1_000_000_000);
        assert_eq!(bucket.missing(Instant(5) + Duration::from_hours(1)), 0);
        assert_eq!(taken(&mut bucket, Instant(5) + Duration::from_hours(1)), 3);
    }

    #[test]
    fn several_at_once_are_taken_whole_or_not_at_all() {
        let mut bucket = Bucket::new(60, 3, Instant(5));
        assert!(
            !bucket.take_n(4, Instant(5)) && bucket.take_n(2, Instant(5)) && !bucket.take_n(2, Instant(5))
        );
        bucket.give_back(9);
        assert!(bucket.take_n(3, Instant(5)) && !bucket.take(Instant(5)));
    }
}
