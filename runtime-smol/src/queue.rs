//! A queue between the network thread and worker threads that wakes few of them.
//!
//! To wake a thread costs as much as a small job. So one is woken only where those awake do not keep up: for the first job where all
//! sleep, for a further one where several wait for each thread that is awake, and where no job was taken for a while
//! ([`Queue::relieve`]). A thread looks at the queue before it sleeps, so what waits is taken by one that is awake.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::store::lock;

/// Items that wait for each thread that is awake before another is woken.
const BACKLOG: usize = 4;

/// A queue of `T` for a number of threads. It has no cap of its own.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    is_ready: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    threads: usize,
    /// Threads that sleep and were not woken.
    asleep: usize,
    /// Threads that were woken and do not run yet.
    woken: usize,
    /// Whether an item was taken since [`Queue::relieve`] looked.
    was_taken: bool,
    is_closed: bool,
}

impl<T> State<T> {
    fn awake(&self) -> usize {
        self.threads - self.asleep
    }

    /// Has a thread woken. `false`: none sleeps.
    fn wake(&mut self) -> bool {
        let sleeps = self.asleep > 0;
        if sleeps {
            (self.asleep, self.woken) = (self.asleep - 1, self.woken + 1);
        }
        sleeps
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(threads: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            threads,
            asleep: 0,
            woken: 0,
            was_taken: false,
            is_closed: false,
        };
        Self { state: Mutex::new(state), is_ready: Condvar::new() }
    }

    /// Adds an item. `true`: it waits for a thread that is awake while others sleep, so [`Self::relieve`] is due in a while.
    ///
    /// # Errors
    /// The item, where the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<bool, T> {
        let mut state = lock(&self.state);
        if state.is_closed {
            return Err(item);
        }
        state.waiting.push_back(item);
        let is_due = state.waiting.len() > BACKLOG * state.awake();
        let wakes = is_due && state.wake();
        let is_left = !wakes && state.asleep > 0;
        drop(state);
        if wakes {
            self.is_ready.notify_one();
        }
        Ok(is_left)
    }

    /// Wakes a thread where items wait and none was taken since the last call: who is awake may wait for a slow disk. `true`:
    /// something waits still, so it is due again.
    pub(crate) fn relieve(&self) -> bool {
        let mut state = lock(&self.state);
        let was_taken = std::mem::take(&mut state.was_taken);
        if state.waiting.is_empty() {
            return false;
        }
        let wakes = !was_taken && state.wake();
        let is_left = state.asleep > 0;
        drop(state);
        if wakes {
            self.is_ready.notify_one();
        }
        is_left
    }

    /// The next item; waits for one. `None`: the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(item) = state.waiting.pop_front() {
                state.was_taken = true;
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state.asleep += 1;
            let sleeps = |state: &mut State<T>| state.woken == 0 && !state.is_closed;
            state = self.is_ready.wait_while(state, sleeps).unwrap_or_else(PoisonError::into_inner);
            state.woken = state.woken.saturating_sub(1);
        }
    }

    /// Takes no more items; those that wait are still taken out.
    pub(crate) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.is_ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Closes a queue at its end, so that no thread outlives a test that fails.
    struct Closes<'a, T>(&'a Queue<T>);

    impl<T> Drop for Closes<'_, T> {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    /// Waits until so many threads sleep.
    fn until_asleep<T>(queue: &Queue<T>, count: usize) {
        while lock(&queue.state).asleep < count {
            thread::yield_now();
        }
    }

    #[test]
    fn what_waits_behind_a_slow_item_is_taken_by_another_thread_when_it_is_relieved() {
        let queue = Queue::new(2);
        let (done, taken) = mpsc::channel();
        thread::scope(|scope| {
            let _closes = Closes(&queue);
            let work = || {
                while let Some((item, end)) = queue.pop() {
                    done.send(item).expect("somebody listens");
                    let end: mpsc::Receiver<()> = end;
                    let _ = end.recv();
                }
            };
            scope.spawn(work);
            scope.spawn(work);
            until_asleep(&queue, 2);
            let (slow, end) = mpsc::channel();
            assert_eq!(queue.push((1, end)).ok(), Some(false), "one thread is woken for it");
            assert_eq!(taken.recv(), Ok(1));
            assert_eq!(queue.push((2, mpsc::channel().1)).ok(), Some(true));
            assert!(queue.relieve() && taken.try_recv().is_err(), "an item was taken of late");
            assert!(!queue.relieve(), "all are awake");
            assert_eq!(taken.recv(), Ok(2));
            until_asleep(&queue, 1);
            drop(slow);
            until_asleep(&queue, 2);
            assert!(!queue.relieve());
        });
        assert!(queue.push((3, mpsc::channel().1)).is_err());
    }

    #[test]
    fn many_items_wake_more_threads_and_all_are_taken_after_the_end() {
        let queue = Queue::new(2);
        let (done, taken) = mpsc::channel();
        let gate = Mutex::new(());
        let (queue, gate) = (&queue, &gate);
        thread::scope(|scope| {
            let _closes = Closes(queue);
            let closed = lock(gate);
            for _ in 0..2 {
                let done = done.clone();
                scope.spawn(move || {
                    while let Some(item) = queue.pop() {
                        done.send(item).expect("somebody listens");
                        drop(lock(gate));
                    }
                });
            }
            until_asleep(queue, 2);
            for item in 0..=2 * BACKLOG {
                queue.push(item).expect("open");
            }
            // Each of the two holds one at the gate.
            let first: Vec<usize> = taken.iter().take(2).collect();
            assert_eq!(first, [0, 1]);
            queue.close();
            drop(closed);
        });
        drop(done);
        assert_eq!(taken.iter().count(), 2 * BACKLOG - 1);
    }
}
