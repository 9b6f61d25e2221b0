//! Connections: how many there are, which of them makes room, and how slow a reader may be.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use event_listener::Event as Signal;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, future};
use smol::{Async, Timer};

use super::limits::{LINGER_BYTES_MAX, LINGER_TIME, SLOWEST_BYTES_PER_SEC, STALL_TIME};

/// A caller's socket.
pub(super) enum Socket {
    Tcp(Async<TcpStream>),
    Unix(Async<UnixStream>),
}

impl Socket {
    /// Says that nothing more comes, and throws away a bounded part of what the caller still sends: a socket that is closed with
    /// bytes unread is reset, and the reset may overtake the answer.
    pub(super) async fn linger(&self) {
        let _ = match self {
            Self::Tcp(it) => it.get_ref().shutdown(Shutdown::Write),
            Self::Unix(it) => it.get_ref().shutdown(Shutdown::Write),
        };
        let read = async {
            let mut buffer = [0; 4096];
            let mut left = LINGER_BYTES_MAX;
            while let Ok(count @ 1..) = self.read(&mut buffer).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        };
        let late = async {
            Timer::after(LINGER_TIME).await;
        };
        future::or(read, late).await;
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(it) => (&mut &*it).read(buffer).await,
            Self::Unix(it) => (&mut &*it).read(buffer).await,
        }
    }
}

/// A socket that fails when its reader is too slow.
pub(super) struct Watched {
    socket: Rc<Socket>,
    patience: Patience,
}

impl Watched {
    pub(super) fn new(socket: Rc<Socket>) -> Self {
        Self { socket, patience: Patience::default() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &*self.socket {
            Socket::Tcp(it) => Pin::new(&mut &*it).poll_read(cx, buffer),
            Socket::Unix(it) => Pin::new(&mut &*it).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = match &*this.socket {
            Socket::Tcp(it) => Pin::new(&mut &*it).poll_write(cx, bytes),
            Socket::Unix(it) => Pin::new(&mut &*it).poll_write(cx, bytes),
        };
        match written {
            Poll::Ready(Ok(count)) => {
                this.patience.took(count, bytes.len());
                Poll::Ready(Ok(count))
            }
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => this.patience.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &*self.socket {
            Socket::Tcp(it) => it.get_ref().shutdown(Shutdown::Write),
            Socket::Unix(it) => it.get_ref().shutdown(Shutdown::Write),
        })
    }
}

/// How much longer a slow reader is waited for. Its time begins when it takes nothing, and bytes buy it more.
#[derive(Default)]
struct Patience {
    due: Option<Instant>,
    timer: Option<Timer>,
}

impl Patience {
    /// It took `count` bytes of those that were offered.
    fn took(&mut self, count: usize, offered: usize) {
        let Some(due) = self.due else { return };
        self.timer = None;
        self.due = (count < offered).then(|| extended(due, count, Instant::now()));
    }

    /// Ready when its time is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + STALL_TIME);
        let timer = self.timer.get_or_insert_with(|| Timer::at(due));
        ready!(Pin::new(timer).poll(cx));
        Poll::Ready(())
    }
}

fn extended(due: Instant, count: usize, now: Instant) -> Instant {
    let bought = Duration::from_millis(count as u64 * 1000 / SLOWEST_BYTES_PER_SEC);
    (due + bought).min(now + STALL_TIME)
}

/// A place among the connections of one kind.
pub(super) struct Slot {
    number: u64,
    /// Since when it waits for a request; `None`: it does not.
    idle_since: Cell<Option<Instant>>,
    /// Whether part of a request was left unread.
    pub(super) has_unread: Cell<bool>,
    evicted: Signal,
    is_evicted: Cell<bool>,
    all: Rc<Connections>,
}

impl Slot {
    /// Waits until it has to make room.
    pub(super) async fn evicted(&self) {
        let listener = self.evicted.listen();
        if !self.is_evicted.get() {
            listener.await;
        }
    }

    /// Takes it out of those that may have to make room, until what is returned is dropped.
    pub(super) fn busy(self: &Rc<Self>) -> Rc<Busy> {
        self.idle_since.set(None);
        Rc::new(Busy(Rc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.all.remove(self.number);
    }
}

/// A request that is under way on a connection.
pub(super) struct Busy(Rc<Slot>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.set(Some(Instant::now()));
    }
}

/// The connections of one kind.
pub(super) struct Connections {
    max: usize,
    next: Cell<u64>,
    slots: RefCell<BTreeMap<u64, std::rc::Weak<Slot>>>,
    gone: Signal,
}

impl Connections {
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { max, next: Cell::new(0), slots: RefCell::default(), gone: Signal::new() })
    }

    /// A place for one more, for which the one that waits longest for a request may have to go; `None`: all are busy.
    pub(super) fn enter(self: &Rc<Self>) -> Option<Rc<Slot>> {
        if self.slots.borrow().len() >= self.max {
            self.evict()?;
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let slot = Rc::new(Slot {
            number,
            idle_since: Cell::new(Some(Instant::now())),
            has_unread: Cell::new(false),
            evicted: Signal::new(),
            is_evicted: Cell::new(false),
            all: Rc::clone(self),
        });
        self.slots.borrow_mut().insert(number, Rc::downgrade(&slot));
        Some(slot)
    }

    /// Waits until there is none.
    pub(super) async fn all_gone(&self) {
        loop {
            let gone = self.gone.listen();
            if self.slots.borrow().is_empty() {
                return;
            }
            gone.await;
        }
    }

    fn evict(&self) -> Option<()> {
        let slots = self.slots.borrow();
        let waiting = slots.values().filter_map(std::rc::Weak::upgrade);
        let idle = waiting.filter_map(|slot| slot.idle_since.get().map(|since| (since, slot)));
        let oldest = idle.min_by_key(|(since, _)| *since).map(|(_, slot)| slot);
        drop(slots);
        let slot = oldest?;
        // Its place is free at once; it is gone when its task has heard of it.
        self.slots.borrow_mut().remove(&slot.number);
        slot.is_evicted.set(true);
        slot.evicted.notify(usize::MAX);
        Some(())
    }

    fn remove(&self, number: u64) {
        self.slots.borrow_mut().remove(&number);
        self.gone.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_waits_longest_makes_room_and_a_busy_one_never() {
        let all = Connections::new(2);
        let first = all.enter().expect("room");
        let second = all.enter().expect("room");
        let busy = first.busy();
        let third = all.enter().expect("the second makes room");
        assert!(second.is_evicted.get() && !first.is_evicted.get());
        let other = third.busy();
        assert!(all.enter().is_none());
        drop(busy);
        let fourth = all.enter().expect("the first makes room");
        assert!(first.is_evicted.get());
        drop((first, second, third, fourth, other));
        smol::block_on(all.all_gone());
    }

    #[test]
    fn bytes_buy_a_slow_reader_time_up_to_a_bound() {
        let now = Instant::now();
        let due = now + Duration::from_secs(1);
        assert_eq!(extended(due, 4096, now), now + Duration::from_secs(2));
        assert_eq!(extended(due, 1 << 20, now), now + STALL_TIME);
        assert_eq!(extended(due, 1, now), due);
    }
}
