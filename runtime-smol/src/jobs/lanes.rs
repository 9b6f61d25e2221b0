//! Which job a worker does next, and when a worker is woken: the oldest job is next, but of one device at most half of the workers do
//! jobs at once, so that a disk that hangs holds up its own jobs alone.
//!
//! To wake a thread costs as much as a small job, so few are woken: one for a device of which nobody does a job, a further one where
//! several jobs wait for each that does, and one where no job of a device was begun for a while ([`Lanes::relieve`]). A worker looks
//! for the next job before it sleeps, so what waits is done by one that is awake.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::store::lock;

/// Jobs that wait for each worker that does jobs of their device before another is woken.
const BACKLOG: usize = 4;

/// The jobs of all devices. They have no cap of their own.
pub(super) struct Lanes<T> {
    inner: Mutex<Inner<T>>,
    is_ready: Condvar,
    /// Most jobs of one device that are done at once.
    of_device_max: usize,
}

struct Inner<T> {
    lanes: BTreeMap<u64, Lane<T>>,
    next: u64,
    /// Workers that sleep and were not woken.
    asleep: usize,
    /// Workers that were woken and do not run yet.
    woken: usize,
    is_closed: bool,
}

/// The jobs of a device.
struct Lane<T> {
    /// With the number in which they came.
    waiting: VecDeque<(u64, T)>,
    running: usize,
    /// Whether a job was begun since [`Lanes::relieve`] looked.
    was_begun: bool,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: 0, was_begun: false }
    }
}

impl<T> Inner<T> {
    /// Has a worker woken. `false`: none sleeps.
    fn wake(&mut self) -> bool {
        let sleeps = self.asleep > 0;
        if sleeps {
            (self.asleep, self.woken) = (self.asleep - 1, self.woken + 1);
        }
        sleeps
    }

    /// Takes out the oldest job of a device of which fewer than `most` are done.
    fn begin(&mut self, most: usize) -> Option<(u64, T)> {
        let ready = self.lanes.iter().filter(|(_, lane)| lane.running < most);
        let fronts = ready.filter_map(|(device, lane)| Some((lane.waiting.front()?.0, *device)));
        let (_, device) = fronts.min()?;
        let lane = self.lanes.get_mut(&device)?;
        let (_, job) = lane.waiting.pop_front()?;
        (lane.running, lane.was_begun) = (lane.running + 1, true);
        Some((device, job))
    }

    fn end(&mut self, device: u64) {
        if let Some(lane) = self.lanes.get_mut(&device) {
            lane.running -= 1;
            if lane.running == 0 && lane.waiting.is_empty() {
                self.lanes.remove(&device);
            }
        }
    }
}

impl<T> Lanes<T> {
    pub(super) fn new(workers: usize) -> Self {
        let inner = Inner { lanes: BTreeMap::new(), next: 0, asleep: 0, woken: 0, is_closed: false };
        Self { inner: Mutex::new(inner), is_ready: Condvar::new(), of_device_max: (workers / 2).max(1) }
    }

    /// Hands a job in. `true`: some workers sleep on, so [`Self::relieve`] is due in a while.
    ///
    /// # Errors
    /// The job, after [`Self::close`].
    pub(super) fn push(&self, device: u64, job: T) -> Result<bool, T> {
        let mut inner = lock(&self.inner);
        if inner.is_closed {
            return Err(job);
        }
        let number = inner.next;
        inner.next += 1;
        let woken = inner.woken;
        let lane = inner.lanes.entry(device).or_default();
        lane.waiting.push_back((number, job));
        let is_due =
            lane.running < self.of_device_max && lane.waiting.len() > BACKLOG * (lane.running + woken);
        let wakes = is_due && inner.wake();
        let is_left = inner.asleep > 0;
        drop(inner);
        if wakes {
            self.is_ready.notify_one();
        }
        Ok(is_left)
    }

    /// Wakes a worker for each device of which jobs wait and none was begun since the last call: who does one may wait for a slow disk.
    /// `true`: something waits still, so it is due again.
    pub(super) fn relieve(&self) -> bool {
        let mut inner = lock(&self.inner);
        let (mut due, mut is_left) = (0, false);
        for lane in inner.lanes.values_mut() {
            let was_begun = mem::take(&mut lane.was_begun);
            let may_more = !lane.waiting.is_empty() && lane.running < self.of_device_max;
            due += usize::from(may_more && !was_begun);
            is_left |= may_more;
        }
        let woken = (0..due).filter(|_| inner.wake()).count();
        let is_left = is_left && inner.asleep > 0;
        drop(inner);
        (0..woken).for_each(|_| self.is_ready.notify_one());
        is_left
    }

    /// Takes no further jobs; those that wait are done.
    pub(super) fn close(&self) {
        lock(&self.inner).is_closed = true;
        self.is_ready.notify_all();
    }

    /// Waits for the next job, and its device, which is to be handed in with the next call: `done`. `None`: there are no more, or
    /// those who do jobs of the same devices do the rest.
    pub(super) fn next(&self, done: Option<u64>) -> Option<(u64, T)> {
        let mut inner = lock(&self.inner);
        if let Some(device) = done {
            inner.end(device);
        }
        loop {
            if let Some(job) = inner.begin(self.of_device_max) {
                return Some(job);
            }
            if inner.is_closed {
                return None;
            }
            inner.asleep += 1;
            let sleeps = |inner: &mut Inner<T>| inner.woken == 0 && !inner.is_closed;
            inner = self.is_ready.wait_while(inner, sleeps).unwrap_or_else(PoisonError::into_inner);
            inner.woken = inner.woken.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Closes lanes at its end, so that no thread outlives a test that fails.
    struct Closes<'a, T>(&'a Lanes<T>);

    impl<T> Drop for Closes<'_, T> {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    /// Waits until so many workers sleep.
    fn until_asleep<T>(lanes: &Lanes<T>, count: usize) {
        while lock(&lanes.inner).asleep < count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_device_that_hangs_leaves_half_of_the_workers_to_others() {
        let lanes = Lanes::new(4);
        for n in 0..5 {
            lanes.push(1, n).expect("open");
        }
        lanes.push(2, 10).expect("open");
        let next = || lanes.next(None);
        assert_eq!([next(), next(), next()], [Some((1, 0)), Some((1, 1)), Some((2, 10))]);
        // The fourth worker waits: for another device's job, or for the end of one of the first's.
        thread::scope(|scope| {
            let _closes = Closes(&lanes);
            let fourth = scope.spawn(|| lanes.next(None));
            lanes.push(3, 20).expect("open");
            assert_eq!(fourth.join().expect("no panic"), Some((3, 20)));
            assert_eq!(lanes.next(Some(1)), Some((1, 2)));
        });
    }

    #[test]
    fn what_waits_behind_a_slow_job_is_done_by_another_worker_when_it_is_relieved() {
        let lanes = Lanes::new(4);
        let (begun, seen) = mpsc::channel();
        thread::scope(|scope| {
            let _closes = Closes(&lanes);
            for _ in 0..4 {
                let (lanes, begun) = (&lanes, begun.clone());
                scope.spawn(move || {
                    let mut done = None;
                    while let Some((device, (number, end))) = lanes.next(done) {
                        begun.send(number).expect("somebody listens");
                        let end: mpsc::Receiver<()> = end;
                        let _ = end.recv();
                        done = Some(device);
                    }
                });
            }
            until_asleep(&lanes, 4);
            let at_once = || mpsc::channel().1;
            let (slow, end) = mpsc::channel();
            assert_eq!(lanes.push(1, (1, end)).ok(), Some(true));
            assert_eq!(seen.recv(), Ok(1));
            assert_eq!(lanes.push(1, (2, at_once())).ok(), Some(true), "it waits for that one");
            assert_eq!(lanes.push(2, (3, at_once())).ok(), Some(true), "another disk does not");
            assert_eq!(seen.recv(), Ok(2), "who is awake takes the oldest");
            assert_eq!(seen.recv(), Ok(3));
            until_asleep(&lanes, 3);
            assert_eq!(lanes.push(1, (4, at_once())).ok(), Some(true));
            assert!(lanes.relieve() && seen.try_recv().is_err(), "a job was begun of late");
            lanes.relieve();
            assert_eq!(seen.recv(), Ok(4));
            until_asleep(&lanes, 3);
            drop(slow);
            until_asleep(&lanes, 4);
            assert!(!lanes.relieve());
        });
    }

    #[test]
    fn what_waits_is_done_after_the_end_too() {
        let lanes = Lanes::new(2);
        lanes.push(1, "first").expect("open");
        lanes.push(1, "second").expect("open");
        lanes.close();
        assert_eq!(lanes.push(1, "late"), Err("late"));
        assert_eq!(lanes.next(None), Some((1, "first")));
        assert_eq!(lanes.next(None), None, "the device has its worker");
        assert_eq!(lanes.next(Some(1)), Some((1, "second")));
        assert_eq!(lanes.next(Some(1)), None);
    }
}
