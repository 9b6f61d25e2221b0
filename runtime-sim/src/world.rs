//! The world: its clock, its hosts, and its events.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobName, JobId, Secret};
use megatorrent_core::limits::{INBOUND_MAX, OUTBOUND_MAX};
use megatorrent_core::node::{
    Action, Answer, Command, Config, DhtError, DhtOp, Event, Input, Job, JobResult, Node, Refusal, StoreNews,
};
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::{RealSuite, Suite};
use megatorrent_core::time::Instant;

use crate::announces::Announces;
use crate::checker::check;
use crate::config::{HostConfig, WorldConfig};
use crate::dht::Dht;
use crate::dice::Dice;
use crate::faults::{Bug, Faults};
use crate::host::{Host, HostId, JobKind, Jobs};
use crate::link::{LinkId, Side};
use crate::queue::Queue;
use crate::store::{Pool, Store};
use crate::stranger::Strangers;
use crate::table::Links;
use crate::trace::{Kind, Trace};
use crate::traffic::Counts;

/// The port on which a listening host is reached.
pub const LISTEN_PORT: u16 = 6881;
/// Actions that a node may ask for without a pause: its caps on connections and jobs allow far fewer.
const ACTIONS_PER_TURN_MAX: usize = 64 * (INBOUND_MAX + OUTBOUND_MAX);

/// Hosts, links, stores and a DHT in virtual time, all drawn from one seed.
///
/// Nothing happens between two events: the world's clock jumps from one to the next, and a node is woken exactly at its
/// own deadline. A checker that objects ends the run with a panic, after which the seed and the time are printed.
pub struct World<S: Suite = RealSuite> {
    pub(crate) config: WorldConfig,
    pub(crate) now: Instant,
    pub(crate) queue: Queue<Happening>,
    pub(crate) hosts: Vec<Host<S>>,
    pub(crate) addresses: BTreeMap<PeerAddr, HostId>,
    pub(crate) links: Links,
    pub(crate) pool: Pool,
    pub(crate) trace: Trace,
    pub(crate) dice_links: Dice,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    /// The bytes that strangers sent.
    pub(crate) uncounted: Counts,
    pub(crate) announces: Announces,
    pub(crate) strangers: Strangers,
    /// The nodes' events, for a caller that runs the world event by event; `None`: not kept.
    news: Option<Vec<(HostId, News)>>,
    dht: Dht,
    seed: u64,
    rng_nodes: Rng,
    dice_disks: Dice,
    dice_reads: Dice,
    /// The number of events that nodes have reported.
    reported: u64,
    steps: u64,
}

const _: () = assert!(size_of::<Happening>() <= 40);

/// Returns a public address for the `n`th host, in its own netgroup (/16) while there are some: the peers of a public swarm
/// are strangers to each other, and nodes share out connections by netgroup.
fn public_ip(n: u32) -> Ipv4Addr {
    const NETWORKS: u32 = 60 << 8; // 20.0.0.0/16 to 79.255.0.0/16
    Ipv4Addr::from((((20 << 8) + n % NETWORKS) << 16) | (n / NETWORKS + 1))
}

/// What a node has said to its user.
#[derive(Clone, Debug)]
pub enum News {
    /// An event.
    Event(Event),
    /// The answer to a command.
    Answer(Result<Answer, Refusal>),
}

/// An event of the world. Large data is boxed, as the heap moves events about.
pub(crate) enum Happening {
    /// A node's deadline, unless it has moved.
    Wake { host: HostId },
    /// A disk has done its work.
    Disk { host: HostId, epoch: u32, id: JobId, job: Box<Job> },
    /// A DHT operation's packets reach the DHT.
    DhtReached { host: HostId, epoch: u32, id: JobId, op: Box<DhtOp> },
    /// The DHT's answer, or part of it, reaches the host.
    DhtAnswer { host: HostId, epoch: u32, input: Box<Input> },
    /// The end of a DHT operation reaches the host.
    DhtEnds { host: HostId, epoch: u32, id: JobId, result: Result<(), DhtError> },
    /// A dial reaches the address dialled.
    DialArrives { link: LinkId, to: Option<HostId> },
    /// A dial's outcome reaches the dialler.
    DialEnds { link: LinkId, connected: bool },
    /// A host's uplink has room again.
    Uplink { host: HostId },
    /// Bytes reach the slow line of the host at an end of a link.
    Edge { link: LinkId, to: Side, n: usize },
    /// Bytes reach an end of a link.
    Bytes { link: LinkId, to: Side, n: usize },
    /// The sender learns that bytes were read.
    Room { link: LinkId, to: Side, n: usize },
    /// The other end has closed, after all its bytes.
    Fin { link: LinkId, to: Side },
    /// The other end is gone, with the bytes in flight.
    Reset { link: LinkId, to: Side },
}

impl World {
    /// An empty world of real nodes.
    pub fn new(seed: u64, config: WorldConfig) -> Self {
        Self::with_suite(seed, config)
    }
}

impl<S: Suite> World<S> {
    /// An empty world of nodes over a suite, such as [`crate::NullSuite`].
    pub fn with_suite(seed: u64, config: WorldConfig) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = Rng::new(bytes);
        Self {
            dht: Dht::new(config.dht.clone(), rng.fork("dht")),
            pool: Pool::new(config.has_weight),
            config,
            now: Instant(0),
            queue: Queue::new(),
            hosts: Vec::new(),
            addresses: BTreeMap::new(),
            links: Links::default(),
            trace: Trace::new(),
            seed,
            dice_links: Dice::new(rng.fork("links")),
            faults: Faults::default(),
            counts: Counts::default(),
            uncounted: Counts::default(),
            announces: Announces::default(),
            strangers: Strangers::default(),
            news: None,
            rng_nodes: rng.fork("nodes"),
            dice_disks: Dice::new(rng.fork("disks")),
            dice_reads: Dice::new(rng.fork("reads")),
            reported: 0,
            steps: 0,
        }
    }

    // --- hosts ----------------------------------------------------------------------------------------------

    /// Adds a host with its own address, and starts its node.
    pub fn add_host(&mut self, config: HostConfig) -> HostId {
        let id = self.add_machine(config);
        self.start(id);
        id
    }

    /// Adds a host with its own address, a line and a store, but without a node.
    pub(crate) fn add_machine(&mut self, config: HostConfig) -> HostId {
        let id =
            HostId(u32::try_from(self.hosts.len()).expect("hosts fit memory, so their number fits 32 bits"));
        let address = SocketAddr::new(IpAddr::V4(public_ip(id.0)), LISTEN_PORT);
        self.addresses.insert(config.name.clone().unwrap_or_else(|| address.into()), id);
        self.hosts.push(Host::new(config, address));
        id
    }

    /// Starts a host's node with the content of its store. Does nothing while it runs.
    pub fn start(&mut self, id: HostId) {
        let host = &mut self.hosts[id.index()];
        if host.node.is_some() {
            return;
        }
        let seed = self.rng_nodes.fork(&format!("{} {}", id.0, host.epoch)).bytes_32();
        let config = Config {
            takes_all: false,
            listen_port: (host.config.listens && host.config.name.is_none()).then_some(LISTEN_PORT),
            own_address: host.config.name.clone(),
            private_dht: false,
            gateway: host.config.gateway,
            upload_bytes_per_sec: host.config.upload_limit_bytes_per_sec,
            download_bytes_per_sec: host.config.download_limit_bytes_per_sec,
        };
        let identity = host.identity();
        let mut node = Node::with_suite(config, seed, self.now, host.unix(self.now));
        for (key, value) in host.store.records() {
            assert!(node.restore(key, value), "the node does not take back its own record {key:?}");
        }
        host.node = Some(node);
        self.trace.record(self.now, id, Kind::Started, u64::from(host.epoch));
        self.settle(id);
        if let Some(identity) = identity {
            self.command(id, Command::AddIdentity(identity.into()));
        }
    }

    /// Ends a host's node as SIGKILL does: its sockets are reset, and its unanswered jobs never happened. The store keeps
    /// its content.
    pub fn crash(&mut self, id: HostId) {
        let host = &mut self.hosts[id.index()];
        if host.node.take().is_none() {
            return;
        }
        host.epoch += 1;
        host.jobs = Jobs::default();
        host.drop_commands();
        host.writing.clear();
        host.wake_at = None;
        let sockets = std::mem::take(&mut host.conns);
        self.trace.record(self.now, id, Kind::Crashed, sockets.len() as u64);
        for (link, side) in sockets.into_ends() {
            self.abort_end(link, side);
        }
    }

    /// Sets a host's wall clock ahead of the world's, or behind it where `ms` is negative.
    pub fn set_clock_ahead(&mut self, id: HostId, ms: i64) {
        let host = &mut self.hosts[id.index()];
        host.config.clock_ahead_ms = ms;
        let unix = host.unix(self.now);
        if let Some(node) = &mut host.node {
            node.set_clock(self.now, unix);
            self.settle(id);
        }
    }

    /// The address on which a host listens.
    pub fn address(&self, id: HostId) -> SocketAddr {
        self.hosts[id.index()].address
    }

    /// The name under which a host is known in place of its address.
    pub(crate) fn name(&self, id: HostId) -> Option<&PeerAddr> {
        self.hosts[id.index()].config.name.as_ref()
    }

    /// A host's node; `None` while it is down.
    pub fn node(&self, id: HostId) -> Option<&Node<S>> {
        self.hosts[id.index()].node.as_ref()
    }

    /// The public key of a host's identity.
    pub fn channel(&self, id: HostId) -> Option<PublicKey> {
        self.identity(id).map(|identity| identity.public_key())
    }

    /// A host's identity.
    pub(crate) fn identity(&self, id: HostId) -> Option<Identity> {
        self.hosts[id.index()].identity()
    }

    /// Whether a host has every blob that its newest head of a channel names.
    pub fn is_complete(&self, id: HostId, channel: &PublicKey) -> bool {
        let status = self.node(id).and_then(|node| node.channel_status(channel));
        status.is_some_and(|status| status.complete)
    }

    /// A host's store.
    pub fn store(&self, id: HostId) -> &Store {
        &self.hosts[id.index()].store
    }

    /// A host's store, to fill or damage it.
    pub fn store_mut(&mut self, id: HostId) -> &mut Store {
        &mut self.hosts[id.index()].store
    }

    /// Takes a host's disk away with all that it holds, or brings it back, which the node is told.
    pub fn set_disk_away(&mut self, id: HostId, is_away: bool) {
        self.store_mut(id).set_away(is_away);
        if !is_away {
            self.input(id, Input::Store(StoreNews::Back));
        }
    }

    /// The events of a host's node, over all its runs, with their times.
    pub fn events(&self, id: HostId) -> impl DoubleEndedIterator<Item = &(Instant, Event)> {
        self.hosts[id.index()].events.iter()
    }

    /// The answers to a host's commands, over all its runs, with their times.
    pub fn answers(
        &self,
        id: HostId,
    ) -> impl DoubleEndedIterator<Item = &(Instant, Result<Answer, Refusal>)> {
        self.hosts[id.index()].answers.iter()
    }

    /// Counts the publications of a host that succeeded.
    pub fn publications(&self, id: HostId) -> usize {
        self.answers(id).filter(|(_, answer)| matches!(answer, Ok(Answer::Published { .. }))).count()
    }

    /// Jobs that a host's node waits for.
    pub fn jobs_open(&self, id: HostId) -> usize {
        self.hosts[id.index()].jobs.open_count()
    }

    /// Jobs that were answered since the node's start.
    pub fn jobs_answered(&self, id: HostId) -> u64 {
        self.hosts[id.index()].jobs.answered()
    }

    /// Gives a host's node a command. Does nothing while it is down.
    pub fn command(&mut self, id: HostId, command: Command) {
        let host = &mut self.hosts[id.index()];
        if host.node.is_some() {
            let number = host.begin_command();
            self.input(id, Input::Command(number, command));
        }
    }

    /// Has a host follow a channel.
    pub fn follow(&mut self, id: HostId, channel: PublicKey, read_key: Option<Secret>) {
        self.command(id, Command::Follow { channel, read_key });
    }

    /// The DHT.
    pub fn dht(&self) -> &Dht {
        &self.dht
    }

    /// The DHT, to take it away or to fill it.
    pub fn dht_mut(&mut self) -> &mut Dht {
        &mut self.dht
    }

    /// Plants a bug: the disks draw from something besides the seed.
    pub(crate) fn reseed_disks(&mut self, n: u64) {
        self.dice_disks = Dice::new(Rng::new([0; 32]).fork(&format!("disks {n}")));
    }

    // --- time -----------------------------------------------------------------------------------------------

    /// The time since the world's beginning.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The seed that repeats this world.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The hash over all events so far: equal for two runs of one seed.
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.digest()
    }

    /// Counts the events so far, such as an arrived piece, a wake or an ended job.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Counts the entries that the trace covers.
    pub fn trace_len(&self) -> u64 {
        self.trace.entries()
    }

    /// Lets `duration` pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until `is_reached`, for at most `limit`; returns whether it was reached. Asks at the start and after each
    /// report of a node.
    pub fn run_until(&mut self, limit: Duration, mut is_reached: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut seen = None;
        loop {
            if seen != Some(self.reported) {
                seen = Some(self.reported);
                if is_reached(self) {
                    return true;
                }
            }
            if self.queue.next_at().is_none_or(|at| at > end) {
                self.now = end;
                return false;
            }
            self.step();
        }
    }

    /// Returns when the next event happens; `None`: there is none.
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    /// Lets the time until `at` pass without an event.
    ///
    /// # Panics
    /// Where an event happens before.
    pub fn skip_to(&mut self, at: Instant) {
        assert!(self.next_at().is_none_or(|next| next >= at), "time does not pass over an event");
        self.now = self.now.max(at);
    }

    /// Takes the nodes' events and answers since the last call, with their hosts; the first call begins to keep them.
    pub fn take_news(&mut self) -> Vec<(HostId, News)> {
        self.news.replace(Vec::new()).unwrap_or_default()
    }

    /// Lets the next event happen. `false`: there is none.
    pub fn step(&mut self) -> bool {
        let Some((at, happening)) = self.queue.pop() else { return false };
        debug_assert!(at >= self.now);
        self.now = at;
        self.steps += 1;
        let Some(happening) = self.pass(happening) else { return true };
        match happening {
            Happening::Wake { host } => self.wake(host),
            Happening::Disk { host, epoch, id, job } => self.disk_done(host, epoch, id, *job),
            Happening::DhtReached { host, epoch, id, op } => self.dht_reached(host, epoch, id, *op),
            Happening::DhtAnswer { host, epoch, input } => self.dht_answer(host, epoch, *input),
            Happening::DhtEnds { host, epoch, id, result } => {
                self.dht_answer(host, epoch, Input::Done(id, JobResult::DhtDone(result)));
            }
            Happening::DialArrives { link, to } => self.dial_arrives(link, to),
            Happening::DialEnds { link, connected } => self.dial_ends(link, connected),
            Happening::Uplink { host } => self.uplink_has_room(host),
            Happening::Edge { link, to, n } => self.edge_reached(link, to, n),
            Happening::Bytes { link, to, n } => self.bytes_arrive(link, to, n),
            Happening::Room { link, to, n } => self.room_arrives(link, to, n),
            Happening::Fin { link, to } => self.fin_arrives(link, to),
            Happening::Reset { link, to } => self.reset_arrives(link, to),
        }
        true
    }

    /// Checks each host against the rules that hold at any time.
    ///
    /// # Panics
    /// Where one does not hold.
    pub fn check(&self) {
        for host in &self.hosts {
            host.check(self.now, self.faults.bug);
        }
    }

    // --- nodes ----------------------------------------------------------------------------------------------

    pub(crate) fn input(&mut self, id: HostId, input: Input) {
        if let Some(node) = &mut self.hosts[id.index()].node {
            node.handle(self.now, input);
            self.settle(id);
        }
    }

    fn wake(&mut self, id: HostId) {
        let host = &mut self.hosts[id.index()];
        if host.wake_queued != Some(self.now) {
            return;
        }
        host.wake_queued = None;
        match host.wake_at {
            Some(at) if at > self.now => return self.queue_wake(id, at),
            Some(_) => host.wake_at = None,
            None => return,
        }
        host.count_wake(self.now);
        self.trace.record(self.now, id, Kind::Woken, 0);
        if self.faults.bug == Some(Bug::WakeLost) {
            return self.settle(id);
        }
        self.input(id, Input::Wake);
    }

    fn queue_wake(&mut self, id: HostId, at: Instant) {
        let host = &mut self.hosts[id.index()];
        if host.wake_queued.is_none_or(|queued| queued > at) {
            host.wake_queued = Some(at);
            self.queue.push(at, Happening::Wake { host: id });
        }
    }

    /// Does the node's actions until there are none, then sleeps to its deadline. Called after each change of a node.
    pub(crate) fn settle(&mut self, id: HostId) {
        for turn in 0.. {
            check!(Wakes, turn < ACTIONS_PER_TURN_MAX, "the node does not come to rest");
            let host = &mut self.hosts[id.index()];
            let Some(node) = &mut host.node else { return };
            let deadline = node.deadline();
            let Some(action) = node.poll() else {
                host.wake_at = deadline.map(|(at, _)| at.max(self.now));
                break;
            };
            let is_due = deadline.is_some_and(|(at, _)| at <= self.now);
            check!(
                Wakes,
                is_due,
                "an action waits, but the deadline is {deadline:?} at {:?}: {action:?}",
                self.now
            );
            self.act(id, action);
        }
        if let Some(at) = self.hosts[id.index()].wake_at {
            self.queue_wake(id, at);
        }
    }

    fn act(&mut self, id: HostId, action: Action) {
        self.trace.record_action(self.now, id, &action);
        match action {
            Action::Dial(job, peer) => {
                self.hosts[id.index()].jobs.begin(job, JobKind::Dial, self.now, self.faults.bug);
                self.counts.total.dials += 1;
                self.dial(id, job, &peer);
            }
            Action::Close(conn, _) => self.close(id, conn),
            Action::Readable(conn) => {
                if let Some((link, side)) = self.hosts[id.index()].conns.get(conn) {
                    self.read_socket(link, side);
                }
            }
            Action::Writable(conn) => {
                if let Some((link, side)) = self.hosts[id.index()].conns.get(conn) {
                    self.write_socket(link, side);
                }
            }
            Action::Job(job_id, job) => self.begin_job(id, job_id, job),
            Action::Event(event) => {
                self.reported += 1;
                let event = self.tampered(id, event);
                if let Some(news) = &mut self.news {
                    news.push((id, News::Event(event.clone())));
                }
                self.hosts[id.index()].report(self.now, event);
            }
            Action::Answer(number, result) => {
                self.reported += 1;
                if let Some(news) = &mut self.news {
                    news.push((id, News::Answer(result.clone())));
                }
                self.hosts[id.index()].end_command(self.now, number, result);
            }
        }
    }

    // --- jobs -----------------------------------------------------------------------------------------------

    fn begin_job(&mut self, id: HostId, job_id: JobId, job: Job) {
        let host = &mut self.hosts[id.index()];
        host.jobs.begin(job_id, JobKind::of(&job), self.now, self.faults.bug);
        if let Some(written) = written_by(&job) {
            host.begin_write(written);
        }
        let epoch = host.epoch;
        let job = match job {
            Job::Dht(op) if host.config.dht => {
                self.counts.total.dht_ops += 1;
                let reached = self.now + self.dht.reach();
                self.queue
                    .push(reached, Happening::DhtReached { host: id, epoch, id: job_id, op: op.into() });
                return;
            }
            Job::Dht(op) => {
                let result = match op {
                    DhtOp::Put(..) => JobResult::DhtPut(Err(DhtError::Disabled)),
                    _ => JobResult::DhtDone(Err(DhtError::Disabled)),
                };
                let input = Input::Done(job_id, result);
                self.queue.push(self.now, Happening::DhtAnswer { host: id, epoch, input: input.into() });
                return;
            }
            job => job,
        };
        let mut done = self.now + Duration::from_micros(self.dice_disks.draw(&self.config.disk_us));
        if matches!(job, Job::Persist(..)) {
            done = done.max(host.records_free_at);
            host.records_free_at = done;
        }
        self.queue.push(done, Happening::Disk { host: id, epoch, id: job_id, job: job.into() });
    }

    fn disk_done(&mut self, id: HostId, epoch: u32, job_id: JobId, job: Job) {
        let host = &mut self.hosts[id.index()];
        if host.epoch != epoch {
            return;
        }
        host.store.plant(self.faults.bug);
        if let Some(written) = written_by(&job) {
            host.writing.remove(&written);
        }
        let result = host.store.perform::<S>(&mut self.pool, &mut self.dice_reads, job);
        match self.faults.bug {
            Some(Bug::JobTwice) => host.jobs.end(job_id),
            Some(Bug::JobLost) if job_id.0 % 16 == 15 => return,
            _ => {}
        }
        let news = host.store.take_news();
        self.answer(id, job_id, result);
        for news in news {
            self.input(id, Input::Store(news));
        }
    }

    fn dht_reached(&mut self, host: HostId, epoch: u32, job_id: JobId, op: DhtOp) {
        // Sent packets arrive, whatever became of the sender.
        let from = self.hosts[host.index()].address.ip();
        for (after, input) in self.dht.perform(self.now, from, job_id, op) {
            let happening = match input {
                Input::Done(id, JobResult::DhtDone(result)) => Happening::DhtEnds { host, epoch, id, result },
                input => Happening::DhtAnswer { host, epoch, input: input.into() },
            };
            self.queue.push(self.now + after, happening);
        }
    }

    fn dht_answer(&mut self, id: HostId, epoch: u32, input: Input) {
        if self.hosts[id.index()].epoch != epoch {
            return;
        }
        match input {
            Input::Done(job, result) => self.answer(id, job, result),
            news => self.input(id, news),
        }
    }

    /// Changes an event as a planted bug says.
    fn tampered(&self, id: HostId, event: Event) -> Event {
        let is_head = |(_, event): &(Instant, Event)| matches!(event, Event::Head { .. });
        match event {
            Event::Head { channel, .. }
                if self.faults.bug == Some(Bug::SequenceBack) && self.events(id).any(is_head) =>
            {
                Event::Head { channel, sequence: 1 }
            }
            event => event,
        }
    }

    fn answer(&mut self, id: HostId, job: JobId, result: JobResult) {
        self.hosts[id.index()].jobs.end(job);
        self.trace.record(self.now, id, Kind::Answered, job.0);
        self.input(id, Input::Done(job, result));
    }
}

impl<S: Suite> Drop for World<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the world's seed is {}, its time {} ns", self.seed, self.now.0);
        }
    }
}

/// The blob, or the part of one, that a job writes.
fn written_by(job: &Job) -> Option<(BlobName, Option<usize>)> {
    match job {
        Job::WriteBlob(name, ..) => Some((*name, None)),
        Job::WritePart(root, part, ..) => Some(((*root).into(), Some(*part))),
        _ => None,
    }
}
