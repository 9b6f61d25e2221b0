//! One node and its surroundings, without a network: time that a test controls, a store and a DHT in memory ([`world`]),
//! and peers made of core's own layers below the node ([`peer`]).
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod content;
pub(crate) mod crowd;
pub(crate) mod folder;
pub(crate) mod heap;
pub(crate) mod member;
pub(crate) mod ops;
pub(crate) mod peer;
pub(crate) mod store;
pub(crate) mod world;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::error::CloseReason;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{CommandId, ConnId, JobId, Secret};
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::{
    Action, Answer, Command, Config, DhtOp, Draft, Event, Input, Job, Node, NodeStatus, RecordKey, Refusal,
};
use megatorrent_core::time::{Instant, UnixTime};
use world::World;

pub(crate) const UNIX: UnixTime = UnixTime(1_700_000_000_000);
pub(crate) const CONFIG: Config = Config {
    listen_port: Some(6881),
    own_address: None,
    private_dht: true,
    gateway: false,
    takes_all: false,
    upload_bytes_per_sec: None,
    download_bytes_per_sec: None,
};
/// A node that wakes more often than this in an hour spins.
const WAKES_PER_HOUR_MAX: u64 = 10_000;

/// The author of the channel that most tests are about.
pub(crate) fn identity() -> Identity {
    author(3)
}

pub(crate) fn author(n: u8) -> Identity {
    Identity::new(&Secret::new([n; 32]), None)
}

pub(crate) fn at(text: &str) -> PeerAddr {
    text.parse().expect("valid")
}

pub(crate) fn addr(port: u16) -> PeerAddr {
    at(&format!("127.0.0.1:{port}"))
}

/// Publishes nothing at all in the channel that most tests are about.
pub(crate) fn publication() -> Command {
    let draft = Draft { content: HeadContent::Inline(Vec::new()), read_key: None, gateways: Vec::new() };
    Command::Publish { channel: identity().public_key(), draft }
}

/// A node, its time, and its actions so far, oldest first.
pub(crate) struct Bench {
    pub(crate) node: Node,
    pub(crate) now: Instant,
    pub(crate) world: World,
    /// Whether the world answers each job as soon as it comes.
    pub(crate) answers: bool,
    /// Jobs without an answer.
    pub(crate) jobs: VecDeque<(JobId, Job)>,
    pub(crate) dials: Vec<(JobId, PeerAddr)>,
    pub(crate) closed: Vec<(ConnId, CloseReason)>,
    pub(crate) events: Vec<Event>,
    /// Commands given so far, and those without an answer.
    commands: u64,
    pub(crate) unanswered: BTreeSet<CommandId>,
    /// The answers to the others, each checked to be the only one.
    pub(crate) replies: Vec<(CommandId, Result<Answer, Refusal>)>,
    /// Every action as text, where a test asks for that.
    pub(crate) log: Option<Vec<String>>,
}

impl Bench {
    /// A node whose jobs wait until a test answers them.
    pub(crate) fn new(config: Config, identity: Option<Identity>) -> Self {
        let mut bench = Self {
            node: Node::new(config, [9; 32], Instant(0), UNIX),
            now: Instant(0),
            world: World::default(),
            answers: false,
            jobs: VecDeque::new(),
            dials: Vec::new(),
            closed: Vec::new(),
            events: Vec::new(),
            commands: 0,
            unanswered: BTreeSet::new(),
            replies: Vec::new(),
            log: None,
        };
        if let Some(identity) = identity {
            bench.command(Command::AddIdentity(identity.into()));
            bench.replies.clear();
        }
        bench
    }

    /// A node whose jobs are answered at once.
    pub(crate) fn answering(config: Config, identity: Option<Identity>) -> Self {
        Self { answers: true, ..Self::new(config, identity) }
    }

    /// The node after a restart: the store and the DHT are as they were, and the driver hands in the records that are left.
    pub(crate) fn restarted(self) -> Self {
        let mut bench = Self::answering(CONFIG, None);
        bench.world = self.world;
        for (key, value) in bench.world.kept_records() {
            assert!(bench.node.restore(&key, &value), "{key:?}");
        }
        bench
    }

    // --- in and out -----------------------------------------------------------------------------------------

    pub(crate) fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    pub(crate) fn command(&mut self, command: Command) -> CommandId {
        let id = CommandId(self.commands);
        self.commands += 1;
        self.unanswered.insert(id);
        self.handle(Input::Command(id, command));
        id
    }

    pub(crate) fn drain(&mut self) {
        loop {
            while let Some(action) = self.node.poll() {
                if let Some(log) = &mut self.log {
                    log.push(format!("{:?} {action:?}", self.now));
                }
                match action {
                    Action::Dial(job, addr) => self.dials.push((job, addr)),
                    Action::Close(conn, reason) => self.closed.push((conn, reason)),
                    Action::Job(id, job) => self.jobs.push_back((id, job)),
                    Action::Event(event) => self.events.push(event),
                    Action::Answer(id, result) => {
                        assert!(self.unanswered.remove(&id), "{id:?} has no answer yet: {result:?}");
                        self.replies.push((id, result));
                    }
                    Action::Readable(_) | Action::Writable(_) => {}
                }
            }
            if !self.answers || !self.answer_next() {
                return;
            }
        }
    }

    /// Lets the world answer the jobs that wait, and those that follow from them.
    pub(crate) fn answer_jobs(&mut self) {
        while self.answer_next() {
            self.drain();
        }
    }

    fn answer_next(&mut self) -> bool {
        let Some((id, job)) = self.jobs.pop_front() else { return false };
        for input in self.world.answer(self.now, id, job) {
            self.node.handle(self.now, input);
        }
        true
    }

    /// Lets the newest look-up of peers find these.
    pub(crate) fn dht_finds(&mut self, peers: impl IntoIterator<Item = PeerAddr>) {
        let job = self.world.lookup.expect("peers are looked up");
        self.handle(Input::DhtPeers(job, peers.into_iter().collect()));
    }

    // --- pending actions ------------------------------------------------------------------------------------

    /// Takes the first job that fits.
    pub(crate) fn job(&mut self, fits: impl Fn(&Job) -> bool) -> Option<(JobId, Job)> {
        let at = self.jobs.iter().position(|(_, job)| fits(job))?;
        self.jobs.remove(at)
    }

    pub(crate) fn dht_job(&mut self, fits: impl Fn(&DhtOp) -> bool) -> Option<JobId> {
        self.job(|job| matches!(job, Job::Dht(op) if fits(op))).map(|(id, _)| id)
    }

    /// Takes the first record that is to be made durable under a key that fits.
    pub(crate) fn record(
        &mut self,
        fits: impl Fn(&RecordKey) -> bool,
    ) -> Option<(JobId, RecordKey, Option<Vec<u8>>)> {
        match self.job(|job| matches!(job, Job::Persist(key, _) if fits(key)))? {
            (id, Job::Persist(key, value)) => Some((id, key, value)),
            _ => None,
        }
    }

    /// Takes the first event that fits.
    pub(crate) fn event(&mut self, fits: impl Fn(&Event) -> bool) -> Option<Event> {
        let at = self.events.iter().position(fits)?;
        Some(self.events.remove(at))
    }

    /// Takes the first refusal of a command.
    pub(crate) fn refusal(&mut self) -> Option<Refusal> {
        let at = self.replies.iter().position(|(_, result)| result.is_err())?;
        self.replies.remove(at).1.err()
    }

    /// Takes the answer to the first publication that has ended.
    pub(crate) fn published(&mut self) -> Option<Result<Answer, Refusal>> {
        let is_of = |result: &Result<Answer, Refusal>| {
            matches!(result, Ok(Answer::Published { .. }) | Err(Refusal::Publish(_)))
        };
        let at = self.replies.iter().position(|(_, result)| is_of(result))?;
        Some(self.replies.remove(at).1)
    }

    /// Counts the events that fit.
    pub(crate) fn count(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| fits(event)).count()
    }

    /// Returns why the node closed a connection; `None`: it did not.
    pub(crate) fn closed_for(&self, conn: ConnId) -> Option<CloseReason> {
        self.closed.iter().find(|(closed, _)| *closed == conn).map(|(_, reason)| *reason)
    }

    /// Takes the dial to an address, and lets it succeed.
    pub(crate) fn take_dial(&mut self, to: &PeerAddr) -> Option<ConnId> {
        let at = self.dials.iter().position(|(_, addr)| addr == to)?;
        let (job, _) = self.dials.remove(at);
        let conn = self.node.dialed(self.now, job, true).expect("there is room");
        self.drain();
        Some(conn)
    }

    pub(crate) fn status(&self) -> NodeStatus {
        self.node.status(self.now)
    }

    // --- time -----------------------------------------------------------------------------------------------

    /// Wakes the node at each deadline up to `until`, like a driver that has nothing else to do.
    pub(crate) fn sleep_until(&mut self, until: Instant) {
        let wakes_max = WAKES_PER_HOUR_MAX * (1 + until.since(self.now).as_secs() / 3600);
        let mut wakes = 0;
        while let Some((due, why)) = self.node.deadline().filter(|(due, _)| *due <= until) {
            self.now = self.now.max(due);
            self.handle(Input::Wake);
            wakes += 1;
            assert!(wakes < wakes_max, "the node spins: {why}");
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn sleep(&mut self, time: Duration) {
        self.sleep_until(self.now + time);
    }
}
