//! The server: listeners, connections, and what all of them share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write};
use std::net::TcpStream;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use event_listener::Event as Signal;
use futures_lite::future;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use serde_json::Value;
use smol::{Async, Task, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::connection::{Connections, Slot, Socket, Watched};
use super::guard::Peer;
use super::limits::{
    ACCEPT_PAUSE, BUFFER_BYTES_MAX, CALLS_BURST, CALLS_PER_SEC, CLOSE_TIME, CONNECTIONS_MAX,
    CONTROL_CONNECTIONS_MAX, HEAD_TIME, HEADERS_MAX, STALL_TIME,
};
use super::listen::{Listener, is_own_user};
use super::rate::{Rate, Refusals};
use super::token::{Access, Login, Way};
use super::{Backend, routes};
use crate::api::{Scope, openrpc};
use crate::node::Executor;

/// The server, while it lives. Dropping it cuts all connections.
pub(crate) struct Server<B: Backend> {
    inner: Rc<Inner<B>>,
    accepting: Vec<Task<()>>,
}

/// What all connections share.
pub(super) struct Inner<B: Backend> {
    executor: Executor,
    pub(super) backend: Rc<B>,
    pub(super) access: Rc<Access>,
    pub(super) allowed_hosts: Vec<String>,
    /// The OpenRPC document.
    pub(super) description: Rc<Value>,
    tcp: Rc<Connections>,
    control: Rc<Connections>,
    tasks: RefCell<BTreeMap<u64, Task<()>>>,
    next_task: Cell<u64>,
    is_closing: Cell<bool>,
    close: Signal,
    pub(super) counts: Counts,
    refusals: RefCell<Refusals>,
    rates: RefCell<[Rate; 3]>,
}

/// What is held at the moment, over TCP and, of calls, on the control socket.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) streams: Rc<Cell<usize>>,
    pub(super) calls: Rc<Cell<usize>>,
    pub(super) control_calls: Rc<Cell<usize>>,
    pub(super) body_bytes: Rc<Cell<usize>>,
}

/// A part of a count, given back when dropped.
pub(super) struct Place {
    count: Rc<Cell<usize>>,
    taken: usize,
}

impl Place {
    pub(super) fn none(count: &Rc<Cell<usize>>) -> Self {
        Self { count: Rc::clone(count), taken: 0 }
    }

    /// Takes more, if all that is taken stays within `max`.
    pub(super) fn take(&mut self, more: usize, max: usize) -> bool {
        let all = self.count.get().saturating_add(more);
        if all > max {
            return false;
        }
        self.count.set(all);
        self.taken += more;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count.set(self.count.get() - self.taken);
    }
}

impl<B: Backend> Server<B> {
    /// Serves at once. `allowed_hosts` are the names, each with a port or without, by which proxies and other machines call this
    /// node; loopback's and the addresses listened on need no mention.
    pub(crate) fn start(
        executor: &Executor,
        backend: Rc<B>,
        access: Rc<Access>,
        allowed_hosts: Vec<String>,
        listeners: Vec<Listener>,
    ) -> Self {
        let inner = Rc::new(Inner {
            executor: Rc::clone(executor),
            backend,
            access,
            allowed_hosts,
            description: Rc::new(openrpc()),
            tcp: Connections::new(CONNECTIONS_MAX),
            control: Connections::new(CONTROL_CONNECTIONS_MAX),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            is_closing: Cell::new(false),
            close: Signal::new(),
            counts: Counts::default(),
            refusals: RefCell::default(),
            rates: RefCell::new([Rate::new(CALLS_PER_SEC, CALLS_BURST); 3]),
        });
        let accept = |listener| executor.spawn(accept(Rc::clone(&inner), listener));
        let accepting = listeners.into_iter().map(accept).collect();
        Self { inner, accepting }
    }

    /// Ends it: takes no more connections, lets answers under way reach their callers for a moment, and cuts the rest.
    pub(crate) async fn close(mut self) {
        self.accepting.clear();
        self.inner.is_closing.set(true);
        self.inner.close.notify(usize::MAX);
        let gone = future::zip(self.inner.tcp.all_gone(), self.inner.control.all_gone());
        let late = async {
            Timer::after(CLOSE_TIME).await;
            ((), ())
        };
        future::or(gone, late).await;
    }
}

impl<B: Backend> Drop for Server<B> {
    fn drop(&mut self) {
        // Each task holds what holds the tasks.
        let tasks = self.inner.tasks.take();
        drop(tasks);
    }
}

impl<B: Backend> Inner<B> {
    /// Does something that goes on though nobody waits for it.
    pub(super) fn spawn(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let number = self.next_task.get();
        self.next_task.set(number + 1);
        let inner = Rc::clone(self);
        let task = self.executor.spawn(async move {
            work.await;
            if let Some(task) = inner.forget(number) {
                task.detach();
            }
        });
        self.tasks.borrow_mut().insert(number, task);
    }

    fn forget(&self, number: u64) -> Option<Task<()>> {
        self.tasks.borrow_mut().remove(&number)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Waits until the server ends.
    pub(super) async fn closing(&self) {
        let close = self.close.listen();
        if !self.is_closing.get() {
            close.await;
        }
    }

    /// Counts calls; whether they are within the caller's rate.
    pub(super) fn may_call(&self, login: &Login, calls: u32) -> bool {
        let index = match (login.way, login.scope) {
            (Way::Control, _) | (Way::Token, Scope::Admin) => return true,
            (Way::Token, Scope::Read) => 0,
            (Way::Token, Scope::Control) => 1,
            (Way::Cookie, _) => 2,
        };
        self.rates.borrow_mut()[index].take(calls, Instant::now())
    }

    /// Counts a refusal; whether the caller is told the reason.
    pub(super) fn may_ask_why(&self, peer: Peer) -> bool {
        match peer {
            Peer::Control => true,
            Peer::Tcp { ip, .. } => self.refusals.borrow_mut().count(ip, Instant::now()),
        }
    }
}

/// Takes connections until it is dropped.
async fn accept<B: Backend>(inner: Rc<Inner<B>>, listener: Listener) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Socket::Unix(stream)),
        };
        match accepted {
            Ok(socket) => take(&inner, socket),
            // The caller is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Most likely there is no descriptor left.
            Err(_) => {
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
        // Whoever connects fast enough does not keep the thread.
        future::yield_now().await;
    }
}

fn take<B: Backend>(inner: &Rc<Inner<B>>, socket: Socket) {
    let peer = match &socket {
        Socket::Unix(stream) if is_own_user(stream) => Peer::Control,
        Socket::Tcp(stream) => match tcp_peer(stream) {
            Ok(peer) => peer,
            Err(_) => return,
        },
        Socket::Unix(_) => return,
    };
    let connections = if peer.is_control() { &inner.control } else { &inner.tcp };
    match connections.enter() {
        Some(slot) => inner.spawn(serve(Rc::clone(inner), socket, peer, slot)),
        None => turn_away(&socket),
    }
}

fn tcp_peer(stream: &Async<TcpStream>) -> io::Result<Peer> {
    let stream = stream.get_ref();
    // Events are small and waited for.
    stream.set_nodelay(true)?;
    // A caller that vanished without a word is not waited for longer than one that reads nothing.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(millis) = u32::try_from(STALL_TIME.as_millis()) {
        rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    Ok(Peer::Tcp { ip: stream.peer_addr()?.ip(), local: stream.local_addr()? })
}

/// Says that all connections are busy, as far as the socket takes it at once.
fn turn_away(socket: &Socket) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let _ = match socket {
        Socket::Tcp(it) => it.get_ref().write(ANSWER),
        Socket::Unix(it) => it.get_ref().write(ANSWER),
    };
}

/// Why a connection is left.
enum End {
    Over,
    Evicted,
    Closing,
}

async fn serve<B: Backend>(inner: Rc<Inner<B>>, socket: Socket, peer: Peer, slot: Rc<Slot>) {
    let socket = Rc::new(socket);
    let service = service_fn(|request| {
        let answer = routes::answer(Rc::clone(&inner), peer, Rc::clone(&slot), request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let io = FuturesIo::new(Watched::new(Rc::clone(&socket)));
    let mut connection = pin!(
        Builder::new()
            .timer(SmolTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service)
    );
    let over = async {
        // Why it broke concerns the caller alone.
        let _ = connection.as_mut().await;
        End::Over
    };
    let evicted = async {
        slot.evicted().await;
        End::Evicted
    };
    let closing = async {
        inner.closing().await;
        End::Closing
    };
    let end = future::or(over, future::or(evicted, closing)).await;
    if let End::Closing = end {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
    if slot.has_unread.get() && !inner.is_closing() {
        socket.linger().await;
    }
}
