//! The event queue, in the order of (time, sequence).

use std::collections::VecDeque;

use megatorrent_core::time::Instant;

/// Buckets: one for each number of low bits in which two times can differ, 0 to 64.
const BUCKETS: usize = u64::BITS as usize + 1;

/// Events for which an empty bucket keeps memory; it seldom gives more back.
const KEPT_MAX: usize = 4096;

/// A radix heap: since time never goes back, events are sorted only as finely as the next one needs. Events of one instant
/// come out in the order in which they went in.
///
/// An event's bucket is the number of low bits in which its time differs from that of the last event taken out. All events
/// of a bucket come after those of lower ones. Where bucket 0 is empty, the first time of the lowest bucket with events
/// becomes the last one, and its events move to lower buckets, in their order; equal times stay together.
pub(crate) struct Queue<E> {
    /// The time of the last event taken out, or of the next one.
    last: u64,
    /// Events at `last`.
    due: VecDeque<E>,
    /// Events by bucket; the first one stays empty.
    buckets: [Bucket<E>; BUCKETS],
    /// Which of the buckets have events: bit n − 1 for bucket n.
    filled: u64,
}

struct Bucket<E> {
    events: Vec<(u64, E)>,
    /// The first time of the events.
    min: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        let buckets = std::array::from_fn(|_| Bucket { events: Vec::new(), min: u64::MAX });
        Self { last: 0, due: VecDeque::new(), buckets, filled: 0 }
    }

    /// Adds an event that happens at `at`, which is not before the last one that was taken out.
    pub(crate) fn push(&mut self, at: Instant, event: E) {
        debug_assert!(at.0 >= self.last, "nothing is added to the past");
        let bits = u64::BITS - (at.0 ^ self.last).leading_zeros();
        if bits == 0 {
            return self.due.push_back(event);
        }
        let bucket = &mut self.buckets[bits as usize];
        bucket.min = bucket.min.min(at.0);
        bucket.events.push((at.0, event));
        self.filled |= 1 << (bits - 1);
    }

    /// Returns when the next event happens.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        if self.due.is_empty() {
            self.lowest().map(|lowest| Instant(self.buckets[lowest].min))
        } else {
            Some(Instant(self.last))
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, E)> {
        if self.due.is_empty() {
            self.sort_out()?;
        }
        self.due.pop_front().map(|event| (Instant(self.last), event))
    }

    /// The lowest bucket that has events.
    fn lowest(&self) -> Option<usize> {
        (self.filled != 0).then(|| self.filled.trailing_zeros() as usize + 1)
    }

    /// Moves the events of the lowest bucket to lower ones; those of its first time are due.
    fn sort_out(&mut self) -> Option<()> {
        let lowest = self.lowest()?;
        let bucket = &mut self.buckets[lowest];
        self.last = std::mem::replace(&mut bucket.min, u64::MAX);
        self.filled &= self.filled - 1;
        let mut events = std::mem::take(&mut bucket.events);
        for (at, event) in events.drain(..) {
            self.push(Instant(at), event);
        }
        if events.capacity() <= KEPT_MAX {
            self.buckets[lowest].events = events;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use megatorrent_core::rng::Rng;

    #[test]
    fn events_of_one_instant_keep_their_order() {
        let mut queue = Queue::new();
        for (at, event) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            queue.push(Instant(at), event);
        }
        assert_eq!(queue.next_at(), Some(Instant(1)));
        let order: String = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
        assert_eq!(order, "abcd");
    }

    #[test]
    fn events_come_out_by_time_then_by_place_whenever_they_are_added() {
        let mut rng = Rng::new([4; 32]);
        let (mut queue, mut waiting, mut now) = (Queue::new(), Vec::new(), 0);
        for place in 0..20_000_u64 {
            // Near and far, several at once, and also at the present instant.
            let distance = rng.below(20);
            let at = now + rng.below(1 << distance) / 3;
            queue.push(Instant(at), place);
            waiting.push((at, place));
            for _ in 0..rng.below(3) {
                let Some(first) = waiting.iter().copied().min() else { break };
                waiting.retain(|event| *event != first);
                assert_eq!(queue.next_at(), Some(Instant(first.0)));
                assert_eq!(queue.pop(), Some((Instant(first.0), first.1)));
                now = first.0;
            }
        }
        waiting.sort_unstable();
        let rest = std::iter::from_fn(|| queue.pop().map(|(at, place)| (at.0, place)));
        assert!(rest.eq(waiting), "and all of them");
        assert_eq!(queue.next_at(), None);
    }
}
