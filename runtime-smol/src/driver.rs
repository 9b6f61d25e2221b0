//! The driver: carries bytes, answers and time into core's [`Node`], and its actions out.
//!
//! Everything runs on one thread. A borrow of the node never lasts across an `.await`. Whoever touches the node then
//! drains its actions ([`Driver::pump`]), which never waits. Each connection has a task that reads and one that
//! writes, straight between the socket and the node's own buffers: there is no queue and no copy between them. A
//! task whose side of the node has no room, or nothing to send, sleeps until the node's action says otherwise; that
//! is the back-pressure.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_io::{Async, Timer};
use futures_lite::{FutureExt, future};
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::ids::{CommandId, ConnId, JobId};
use megatorrent_core::node::{Action, Answer, Command, Input, Job, Node, Refusal};
use megatorrent_core::time::{Instant, UnixTime};
use megatorrent_core::transport::frame::HEADER_LEN;
use smol::channel::{Receiver, Sender};
use smol::{LocalExecutor, Task};

use crate::dht::Dht;
use crate::egress::{Egress, prepare};
use crate::events::{News, Numbered, Ring};
use crate::jobs::Jobs;
use crate::signal::Signal;
use crate::store::Store;

/// Bytes that one connection may move in one direction before the other tasks get their turn.
const TURN_BYTES: usize = 4 << 20;
/// Actions carried out in a row before the other tasks get their turn.
const TURN_ACTIONS: usize = 1024;
/// Answers handed in, or connections accepted, in a row before the other tasks get their turn.
const TURN_INPUTS: usize = 64;
/// How often the node is told the wall time, which others may set and which runs on while the machine sleeps.
const CLOCK_INTERVAL: Duration = Duration::from_mins(1);
/// Pause after a failed accept, at first and at last: a process out of file descriptors must not spin.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long the jobs under way may take at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The monotonic clock that the node lives by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// `None`: later than this machine can tell.
    fn to_std(self, at: Instant) -> Option<std::time::Instant> {
        self.0.checked_add(Duration::from_nanos(at.0))
    }
}

/// The wall time; a clock set before 1970 counts as 1970.
pub(crate) fn wall_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One connection's socket and the two tasks that serve it.
struct Conn {
    io: Rc<ConnIo>,
    read: Task<()>,
    write: Task<()>,
}

struct ConnIo {
    stream: Async<TcpStream>,
    /// Bytes that were read beyond what the node had room for, and their number: mostly the next frame's header, which would cost
    /// a read of its own.
    ahead: Cell<([u8; HEADER_LEN], usize)>,
    readable: Flag,
    writable: Flag,
}

/// What becomes of a command.
type Outcome = Result<Answer, Refusal>;

/// Set by the node's action, taken by the task that waits for it.
#[derive(Default)]
struct Flag {
    set: Cell<bool>,
    signal: Signal,
}

impl Flag {
    fn set(&self) {
        self.set.set(true);
        self.signal.notify();
    }

    async fn taken(&self) {
        self.signal.wait_for(|| self.set.take().then_some(())).await;
    }
}

/// The node and all that it acts through.
pub(crate) struct Driver {
    pub(crate) node: RefCell<Node>,
    pub(crate) clock: Clock,
    pub(crate) dht: Rc<Dht>,
    egress: Egress,
    executor: Rc<LocalExecutor<'static>>,
    jobs: Jobs,
    conns: RefCell<BTreeMap<ConnId, Conn>>,
    dials: RefCell<BTreeMap<JobId, Task<()>>>,
    /// Answers that were there at once; handed in by the timer task, as the node may be borrowed.
    late: RefCell<VecDeque<Input>>,
    /// Until when the timer task sleeps. While it works: 0, so that nobody wakes it for nothing.
    armed: Cell<Instant>,
    timer: Flag,
    ring: RefCell<Ring>,
    news: Signal,
    /// Commands given so far, and where their answers are awaited.
    commands: Cell<u64>,
    awaited: RefCell<BTreeMap<CommandId, Sender<Outcome>>>,
    quiet: Signal,
    store: Store,
    tasks: RefCell<Vec<Task<()>>>,
    listener: RefCell<Option<Task<()>>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("jobs", &self.jobs).field("dht", &self.dht).finish_non_exhaustive()
    }
}

impl Driver {
    pub(crate) fn new(
        node: Node,
        clock: Clock,
        dht: Rc<Dht>,
        egress: Egress,
        (jobs, store): (Jobs, Store),
        executor: &Rc<LocalExecutor<'static>>,
    ) -> Self {
        Self {
            node: RefCell::new(node),
            clock,
            dht,
            egress,
            executor: Rc::clone(executor),
            jobs,
            conns: RefCell::default(),
            dials: RefCell::default(),
            late: RefCell::default(),
            armed: Cell::default(),
            timer: Flag::default(),
            ring: RefCell::default(),
            news: Signal::default(),
            commands: Cell::default(),
            awaited: RefCell::default(),
            quiet: Signal::default(),
            store,
            tasks: RefCell::default(),
            listener: RefCell::default(),
        }
    }

    /// Starts the tasks that live as long as the node.
    pub(crate) fn run(self: &Rc<Self>, listener: Option<Async<TcpListener>>) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.push(self.executor.spawn(keep_time(Rc::clone(self))));
        tasks.push(self.executor.spawn(set_clock(Rc::clone(self))));
        tasks.push(self.executor.spawn(hand_in_answers(Rc::clone(self))));
        let driver = Rc::clone(self);
        tasks.push(self.executor.spawn(async move { match driver.jobs.relieve().await {} }));
        tasks.push(self.executor.spawn(look_after_losses(Rc::clone(self))));
        if let Some(listener) = listener {
            self.listener.replace(Some(self.executor.spawn(accept(Rc::clone(self), listener))));
        }
    }

    /// Hands an input in and carries out what follows from it.
    pub(crate) fn handle(self: &Rc<Self>, input: Input) {
        self.node.borrow_mut().handle(self.clock.now(), input);
        self.pump();
    }

    /// Carries the node's actions out. What is left over after a turn is the timer task's, since the deadline is due
    /// while actions wait.
    fn pump(self: &Rc<Self>) {
        for _ in 0..TURN_ACTIONS {
            let action = self.node.borrow_mut().poll();
            let Some(action) = action else { break };
            self.dispatch(action);
        }
        let sooner = self.node.borrow().deadline().is_some_and(|(at, _)| at < self.armed.get());
        if sooner || !self.late.borrow().is_empty() {
            self.timer.set();
        }
    }

    fn dispatch(self: &Rc<Self>, action: Action) {
        match action {
            Action::Readable(conn) => self.with_conn(conn, |io| io.readable.set()),
            Action::Writable(conn) => self.with_conn(conn, |io| io.writable.set()),
            Action::Job(id, Job::Dht(op)) => {
                if let Some(result) = self.dht.submit(id, op) {
                    self.late.borrow_mut().push_back(Input::Done(id, result));
                }
            }
            Action::Job(id, job) => {
                if let Err(result) = self.jobs.submit(id, job) {
                    self.late.borrow_mut().push_back(Input::Done(id, result));
                }
            }
            Action::Dial(job, peer) => {
                let task = self.executor.spawn(dial(Rc::clone(self), job, peer));
                self.dials.borrow_mut().insert(job, task);
            }
            Action::Close(conn, reason) => {
                tracing::debug!(?conn, ?reason, "closing");
                self.drop_conn(conn);
            }
            Action::Event(event) => self.tell(News::Event(event)),
            Action::Answer(id, outcome) => {
                let awaited = self.awaited.borrow_mut().remove(&id);
                // Full it cannot be, and that nobody waits any more changes nothing.
                let _ = awaited.map(|awaited| awaited.try_send(outcome));
            }
        }
    }

    fn with_conn(&self, conn: ConnId, act: impl FnOnce(&ConnIo)) {
        if let Some(conn) = self.conns.borrow().get(&conn) {
            act(&conn.io);
        }
    }

    /// Ends the connection's tasks, which closes its socket.
    fn drop_conn(&self, conn: ConnId) {
        let conn = self.conns.borrow_mut().remove(&conn);
        drop(conn);
    }

    fn add_conn(self: &Rc<Self>, id: ConnId, stream: Async<TcpStream>) {
        let io = Rc::new(ConnIo {
            stream,
            ahead: Cell::default(),
            readable: Flag::default(),
            writable: Flag::default(),
        });
        let read = self.executor.spawn(serve(Rc::clone(self), id, Rc::clone(&io), Direction::Read));
        let write = self.executor.spawn(serve(Rc::clone(self), id, Rc::clone(&io), Direction::Write));
        self.conns.borrow_mut().insert(id, Conn { io, read, write });
        self.pump();
    }

    /// Hands a command in; its answer comes through what is returned.
    pub(crate) fn command(self: &Rc<Self>, command: Command) -> Receiver<Outcome> {
        let id = CommandId(self.commands.get());
        self.commands.set(id.0 + 1);
        let (sender, receiver) = smol::channel::bounded(1);
        self.awaited.borrow_mut().insert(id, sender);
        self.handle(Input::Command(id, command));
        receiver
    }

    fn tell(&self, news: News) {
        self.ring.borrow_mut().push(news);
        self.news.notify();
    }

    /// The number of the newest piece of news.
    pub(crate) fn newest(&self) -> u64 {
        self.ring.borrow().newest()
    }

    /// The next piece of news after one with this number, if there is one.
    pub(crate) fn try_after(&self, number: u64) -> Option<Numbered> {
        self.ring.borrow().after(number)
    }

    /// The next piece of news after one with this number.
    pub(crate) async fn after(&self, number: u64) -> Numbered {
        self.news.wait_for(|| self.try_after(number)).await
    }

    /// Closes everything and waits for the jobs under way.
    pub(crate) async fn shutdown(self: &Rc<Self>) {
        // A task that is merely dropped keeps its socket until the executor comes to it, so each is awaited.
        if let Some(listener) = self.listener.take() {
            listener.cancel().await;
        }
        for dial in self.dials.take().into_values() {
            dial.cancel().await;
        }
        self.node.borrow_mut().shutdown(self.clock.now());
        self.pump();
        let done = self.quiet.wait_for(|| (self.jobs.pending() == 0).then_some(()));
        let late = async {
            Timer::after(SHUTDOWN_TIMEOUT).await;
            tracing::error!(jobs = self.jobs.pending(), "the disk did not finish in time");
        };
        done.or(late).await;
        let conns = self.conns.take().into_values().flat_map(|conn| [conn.read, conn.write]);
        for task in self.tasks.take().into_iter().chain(conns) {
            task.cancel().await;
        }
        self.dht.stop().await;
        self.jobs.stop().await;
        // Whoever waits for an answer that cannot come any more learns that.
        self.awaited.take();
    }
}

// --- connections --------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

/// What became of one attempt to move bytes.
enum Step {
    Moved(usize),
    /// The socket has nothing, or takes nothing.
    Blocked,
    /// The node has no room, or nothing to send.
    Paused,
    Ended,
}

impl Step {
    fn from_io(result: io::Result<usize>) -> Self {
        match result {
            Ok(0) => Self::Ended,
            Ok(n) => Self::Moved(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Self::Blocked,
            Err(error) if error.kind() == ErrorKind::Interrupted => Self::Moved(0),
            Err(_) => Self::Ended,
        }
    }
}

/// Moves bytes between a socket and the node until either ends.
async fn serve(driver: Rc<Driver>, conn: ConnId, io: Rc<ConnIo>, direction: Direction) {
    let mut moved = 0;
    loop {
        let step = match direction {
            Direction::Read => read(&driver, conn, &io),
            Direction::Write => write(&driver, conn, &io),
        };
        let ready = match step {
            Step::Moved(n) => {
                driver.pump();
                moved += n;
                if moved >= TURN_BYTES {
                    moved = 0;
                    future::yield_now().await;
                }
                continue;
            }
            Step::Paused => {
                // What ends the pause may be a deadline that the node has set just now.
                driver.pump();
                match direction {
                    Direction::Read => io.readable.taken().await,
                    Direction::Write => io.writable.taken().await,
                }
                Ok(())
            }
            Step::Blocked => match direction {
                Direction::Read => io.stream.readable().await,
                Direction::Write => io.stream.writable().await,
            },
            Step::Ended => break,
        };
        if ready.is_err() {
            break;
        }
        moved = 0;
    }
    driver.node.borrow_mut().disconnected(driver.clock.now(), conn);
    driver.pump();
    // This ends this task too.
    driver.drop_conn(conn);
}

fn read(driver: &Driver, conn: ConnId, io: &ConnIo) -> Step {
    let mut node = driver.node.borrow_mut();
    let space = node.recv_space(conn);
    if space.is_empty() {
        return Step::Paused;
    }
    let (mut ahead, len) = io.ahead.take();
    if len > 0 {
        let n = len.min(space.len());
        space[..n].copy_from_slice(&ahead[..n]);
        ahead.copy_within(n..len, 0);
        io.ahead.set((ahead, len - n));
        node.received(driver.clock.now(), conn, n);
        return Step::Moved(n);
    }
    let room = space.len();
    let mut spaces = [IoSliceMut::new(space), IoSliceMut::new(&mut ahead)];
    let step = Step::from_io(io.stream.get_ref().read_vectored(&mut spaces));
    if let Step::Moved(n @ 1..) = step {
        io.ahead.set((ahead, n.saturating_sub(room)));
        node.received(driver.clock.now(), conn, n.min(room));
    }
    step
}

fn write(driver: &Driver, conn: ConnId, io: &ConnIo) -> Step {
    let mut node = driver.node.borrow_mut();
    let chunk = node.send_chunk(driver.clock.now(), conn);
    if chunk.is_empty() {
        return Step::Paused;
    }
    let step = Step::from_io(io.stream.get_ref().write(chunk));
    if let Step::Moved(n @ 1..) = step {
        node.sent(driver.clock.now(), conn, n);
    }
    step
}

async fn accept(driver: Rc<Driver>, listener: Async<TcpListener>) {
    let mut pause = ACCEPT_PAUSE.0;
    let mut in_a_row = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE.0;
                prepare(stream.get_ref());
                let conn = driver.node.borrow_mut().accept(driver.clock.now(), PeerAddr::from(peer));
                match conn {
                    Some(conn) => driver.add_conn(conn, stream),
                    None => driver.pump(),
                }
            }
            // The peer gave up before we came to it.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; trying again");
                Timer::after(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
        in_a_row += 1;
        if in_a_row >= TURN_INPUTS {
            in_a_row = 0;
            future::yield_now().await;
        }
    }
}

async fn dial(driver: Rc<Driver>, job: JobId, peer: PeerAddr) {
    let stream = driver.egress.dial(&peer).await;
    if let Err(error) = &stream {
        tracing::debug!(?peer, %error, "cannot connect");
    }
    let conn = driver.node.borrow_mut().dialed(driver.clock.now(), job, stream.is_ok());
    match (conn, stream) {
        (Some(conn), Ok(stream)) => driver.add_conn(conn, stream),
        _ => driver.pump(),
    }
    // This drops this task's own handle, at its end.
    let task = driver.dials.borrow_mut().remove(&job);
    drop(task);
}

// --- time and answers ---------------------------------------------------------------------------------------

/// Wakes the node at its deadlines, and carries out what other tasks' turns left over.
async fn keep_time(driver: Rc<Driver>) {
    let mut timer = Timer::never();
    let mut timer_at = None;
    loop {
        driver.armed.set(Instant::default());
        loop {
            let input = driver.late.borrow_mut().pop_front();
            let Some(input) = input else { break };
            driver.handle(input);
        }
        driver.pump();
        let deadline = driver.node.borrow().deadline();
        match deadline {
            Some((at, _)) if at <= driver.clock.now() => {
                driver.node.borrow_mut().handle(driver.clock.now(), Input::Wake);
                driver.pump();
                future::yield_now().await;
                continue;
            }
            Some((at, reason)) => {
                tracing::trace!(?at, reason, "sleeping");
                driver.armed.set(at);
                if timer_at != Some(at) {
                    timer_at = Some(at);
                    timer = driver.clock.to_std(at).map_or_else(Timer::never, Timer::at);
                }
            }
            None => driver.armed.set(Instant(u64::MAX)),
        }
        let due = async {
            (&mut timer).await;
        };
        if deadline.is_some() {
            driver.timer.taken().or(due).await;
        } else {
            driver.timer.taken().await;
        }
        if timer_at.is_some_and(|at| at <= driver.clock.now()) {
            timer_at = None;
        }
    }
}

async fn set_clock(driver: Rc<Driver>) {
    loop {
        Timer::after(CLOCK_INTERVAL).await;
        driver.node.borrow_mut().set_clock(driver.clock.now(), wall_time());
        driver.pump();
    }
}

/// Tries again what could not be read, and tells core and the user of it.
async fn look_after_losses(driver: Rc<Driver>) {
    loop {
        let store = driver.store.clone();
        store.losses().changed().await;
        smol::unblock(move || store.try_losses_again()).await;
        for news in driver.store.losses().take_store_news() {
            driver.handle(Input::Store(news));
        }
        for news in driver.store.losses().take_news() {
            driver.tell(News::Loss(news));
        }
    }
}

async fn hand_in_answers(driver: Rc<Driver>) {
    loop {
        let (id, result) = driver.jobs.answer().await;
        driver.handle(Input::Done(id, result));
        for _ in 1..TURN_INPUTS {
            let Some((id, result)) = driver.jobs.try_answer() else { break };
            driver.handle(Input::Done(id, result));
        }
        driver.quiet.notify();
        future::yield_now().await;
    }
}
