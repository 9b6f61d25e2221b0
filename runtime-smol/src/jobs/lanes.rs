//! Which job a worker does next: the oldest, but of one device at most half of the workers do jobs at once. A disk that hangs so
//! holds up its own jobs alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::store::lock;

/// The jobs of all devices.
pub(super) struct Lanes<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    /// Most jobs of one device that are done at once.
    of_device_max: usize,
}

struct Inner<T> {
    lanes: BTreeMap<u64, Lane<T>>,
    next: u64,
    is_closed: bool,
}

/// The jobs of a device.
struct Lane<T> {
    /// With the number in which they came.
    waiting: VecDeque<(u64, T)>,
    running: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: 0 }
    }
}

impl<T> Lanes<T> {
    pub(super) fn new(workers: usize) -> Self {
        let inner = Inner { lanes: BTreeMap::new(), next: 0, is_closed: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), of_device_max: (workers / 2).max(1) }
    }

    /// Hands a job in; gives it back after [`Self::close`].
    pub(super) fn push(&self, device: u64, job: T) -> Result<(), T> {
        let mut inner = lock(&self.inner);
        if inner.is_closed {
            return Err(job);
        }
        let number = inner.next;
        inner.next += 1;
        inner.lanes.entry(device).or_default().waiting.push_back((number, job));
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes no further jobs; those that wait are done.
    pub(super) fn close(&self) {
        lock(&self.inner).is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for the next job, and its device, of which [`Self::done`] is to be told. `None`: there are no more.
    pub(super) fn next(&self) -> Option<(u64, T)> {
        let mut inner = lock(&self.inner);
        loop {
            let may = |lane: &Lane<T>| lane.running < self.of_device_max;
            let first = |lane: &Lane<T>| lane.waiting.front().map(|(number, _)| *number);
            let ready = inner.lanes.iter().filter(|(_, lane)| may(lane));
            let next = ready.filter_map(|(device, lane)| Some((first(lane)?, *device))).min();
            if let Some((_, device)) = next
                && let Some(lane) = inner.lanes.get_mut(&device)
                && let Some((_, job)) = lane.waiting.pop_front()
            {
                lane.running += 1;
                return Some((device, job));
            }
            if inner.is_closed && inner.lanes.values().all(|lane| lane.waiting.is_empty()) {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job of a device is done.
    pub(super) fn done(&self, device: u64) {
        let mut inner = lock(&self.inner);
        if let Some(lane) = inner.lanes.get_mut(&device) {
            lane.running -= 1;
            if lane.running == 0 && lane.waiting.is_empty() {
                inner.lanes.remove(&device);
            }
        }
        let is_over = inner.is_closed;
        drop(inner);
        if is_over {
            self.changed.notify_all();
        } else {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_hangs_leaves_half_of_the_workers_to_others() {
        let lanes = Lanes::new(4);
        for n in 0..5 {
            lanes.push(1, n).expect("open");
        }
        lanes.push(2, 10).expect("open");
        assert_eq!([lanes.next(), lanes.next(), lanes.next()], [Some((1, 0)), Some((1, 1)), Some((2, 10))]);
        // The fourth worker waits: for another device's job, or for the end of one of the first's.
        std::thread::scope(|scope| {
            let fourth = scope.spawn(|| lanes.next());
            lanes.push(3, 20).expect("open");
            assert_eq!(fourth.join().expect("no panic"), Some((3, 20)));
        });
        lanes.done(1);
        assert_eq!(lanes.next(), Some((1, 2)));
    }

    #[test]
    fn what_waits_is_done_after_the_end_too() {
        let lanes = Lanes::new(2);
        lanes.push(1, "first").expect("open");
        lanes.push(1, "second").expect("open");
        lanes.close();
        assert_eq!(lanes.push(1, "late"), Err("late"));
        assert_eq!(lanes.next(), Some((1, "first")));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| lanes.next());
            lanes.done(1);
            assert_eq!(other.join().expect("no panic"), Some((1, "second")));
        });
        lanes.done(1);
        assert_eq!(lanes.next(), None);
    }
}
