//! Waiting for a condition within one thread, without a lock and without lost wake-ups.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A condition variable for tasks of one thread. Whoever changes what others wait for calls [`Self::notify`]; each
/// waiter then looks at its own condition again. It holds one waker for each waiting task.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Has every waiter look again.
    pub(crate) fn notify(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Waits until `condition` gives a value.
    pub(crate) async fn wait_for<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| {
            if let Some(value) = condition() {
                return Poll::Ready(value);
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_lite::future;
    use smol::LocalExecutor;

    use super::*;

    #[test]
    fn all_waiters_see_a_change() {
        let executor = LocalExecutor::new();
        let shared = Rc::new((Signal::default(), Cell::new(0)));
        let waiters: Vec<_> = (1..=3)
            .map(|n| {
                let shared = Rc::clone(&shared);
                executor.spawn(async move { shared.0.wait_for(|| (shared.1.get() >= n).then_some(n)).await })
            })
            .collect();
        let sum = future::block_on(executor.run(async {
            for n in 1..=3 {
                future::yield_now().await;
                shared.1.set(n);
                shared.0.notify();
            }
            let mut sum = 0;
            for waiter in waiters {
                sum += waiter.await;
            }
            sum
        }));
        assert_eq!(sum, 6);
    }
}
