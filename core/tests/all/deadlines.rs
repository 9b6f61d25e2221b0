//! Deadlines never spin: whatever comes in and in whichever order, a node that is woken when it says so soon names a later
//! deadline.

use std::time::Duration;

use crate::support::content::{Content, SECRET, SEQUENCE, item};
use crate::support::member::{all, parts_of};
use crate::support::ops::{Op, apply, pick, with_peer};
use crate::support::peer::Peer;
use crate::support::{Bench, UNIX, addr, at, author, identity};
use arbitrary::{Arbitrary, Unstructured};
use megatorrent_core::blob::BlobRef;
use megatorrent_core::codec::{Message, Want};
use megatorrent_core::ids::{BlobId, Topic};
use megatorrent_core::limits::PIECE_LEN_MAX;
use megatorrent_core::manifest::{Head, HeadContent};
use megatorrent_core::node::{
    Command, Config, DhtError, DhtOp, Draft, Input, JobResult, Priority, Selection,
};
use megatorrent_core::parts::{Mask, Values};
use megatorrent_core::time::{Instant, UnixTime};
use megatorrent_core::tree::TreeRef;
use megatorrent_core::uri;
use proptest::prelude::*;

/// How often a node may be woken at one instant: what the first time makes possible may be due at once.
const WAKES_AT_ONCE_MAX: u32 = 1;
/// How often it may be woken while time passes, on average: deadlines that are ever closer to each other are no progress either.
const WAKES_PER_SEC_MAX: u128 = 200;
/// Enough that connections can be opened, and little enough that they wait for each other.
const BYTES_PER_SEC: u64 = 1 << 16;

/// The authors of the channels that are spoken of.
const AUTHORS: u8 = 4;
const EMPTY: HeadContent = HeadContent::Inline(Vec::new());
const NAME: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:6881";

/// Something that users, drivers, peers and the DHT do, beside [`Op`].
#[derive(Arbitrary, Debug)]
enum Step {
    Op(Op),
    /// The world answers one job, or all: the DHT has the heads that it was given, and the store the blobs.
    Answer(u8),
    AnswerAll,
    DhtFails(bool),
    /// A peer takes some of what the node has to send.
    Take(u8, u16),
    Say(u8, Word, u8),
    Command(u8, Wish),
    Document(u8),
    /// The wall clock is set.
    Clock(i16),
    /// The monotonic clock steps back.
    Back(u32),
    Minutes(u8),
}

/// A message of a peer.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Hello(bool, Option<u16>),
    Watch,
    Have(bool),
    AskHave,
    GetHead,
    Head(bool),
    Want,
    Cancel,
    Values(bool),
    Piece(bool),
    FindPeers,
    Peers,
    Announce,
    Publish,
    Refuse,
    Nothing,
}

/// A command of a user.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Wish {
    Follow,
    Unfollow,
    Select(bool),
    Join,
    Leave,
    Pause,
    Resume,
    AddIdentity,
    RemoveIdentity,
    Unban,
    Configure,
    Publish(bool),
}

/// One node, its peers, and the one content that there is.
struct Play {
    bench: Bench,
    peers: Vec<Peer>,
    content: Content,
    is_limited: bool,
}

fn is_set(choice: u8, bit: u32) -> bool {
    choice & (1 << bit) != 0
}

fn config(choice: u8) -> Config {
    let is_set = |bit: u32| is_set(choice, bit);
    let limit = |bit: u32| is_set(bit).then_some(BYTES_PER_SEC);
    Config {
        listen_port: is_set(0).then_some(6881),
        own_address: is_set(1).then(|| at(NAME)),
        private_dht: !is_set(2),
        gateway: is_set(3),
        takes_all: is_set(0),
        upload_bytes_per_sec: limit(4),
        download_bytes_per_sec: limit(5),
    }
}

impl Play {
    fn new(choice: u8) -> Self {
        let config = config(choice);
        let is_limited = config.upload_bytes_per_sec.or(config.download_bytes_per_sec).is_some();
        let mut play = Self {
            bench: Bench::new(config, Some(identity())),
            peers: Vec::new(),
            content: Content::new(&author(1), 2),
            is_limited,
        };
        play.content.publish(&mut play.bench);
        if is_set(choice, 6) {
            let channel = play.content.channel;
            play.bench.command(Command::Follow { channel, read_key: None });
            play.bench.answer_jobs();
        }
        if is_set(choice, 7) {
            play.bench.world.store.blobs.extend(play.content.data.iter().cloned());
        }
        play
    }

    /// Wakes the node until it waits for a later instant.
    fn settle(&mut self) {
        let bench = &mut self.bench;
        let mut wakes = 0;
        while let Some((_, why)) = bench.node.deadline().filter(|(due, _)| *due <= bench.now) {
            assert!(wakes < WAKES_AT_ONCE_MAX, "the node spins: {why}");
            bench.handle(Input::Wake);
            wakes += 1;
        }
    }

    /// Lets time pass, and wakes the node whenever it says so.
    fn pass(&mut self, time: Duration) {
        let until = self.bench.now + time;
        let wakes_max = 100 + time.as_millis() * WAKES_PER_SEC_MAX / 1000;
        let mut wakes = 0;
        self.settle();
        while let Some((due, why)) = self.bench.node.deadline().filter(|(due, _)| *due <= until) {
            self.bench.now = due;
            self.settle();
            wakes += 1;
            assert!(wakes < wakes_max, "the node spins ever faster: {why}");
        }
        self.bench.now = until;
    }

    /// A step, and what follows from it at once.
    fn play(&mut self, step: Step) {
        self.step(step);
        self.bench.drain();
        for (conn, _) in std::mem::take(&mut self.bench.closed) {
            self.peers.retain(|peer| peer.conn != conn);
        }
        self.settle();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Op(Op::Wait(ms)) => self.pass(Duration::from_millis(u64::from(ms))),
            Step::Op(op) => {
                if self.is_limited && matches!(op, Op::Accept(_) | Op::Dialed(..)) {
                    // A connection that has just been opened is to have what its handshake takes.
                    self.pass(Duration::from_secs(2));
                }
                apply(&mut self.bench, &mut self.peers, op);
            }
            Step::Minutes(minutes) => self.pass(Duration::from_mins(u64::from(minutes % 4))),
            Step::Back(nanos) => {
                let earlier = Instant(self.bench.now.0.saturating_sub(u64::from(nanos)));
                self.bench.node.handle(earlier, Input::Wake);
            }
            Step::Clock(minutes) => {
                let millis = i64::from(minutes) * 60_000 + UNIX.0.cast_signed();
                self.bench.node.set_clock(self.bench.now, UnixTime(millis.unsigned_abs()));
            }
            Step::AnswerAll => self.bench.answer_jobs(),
            Step::Answer(n) => {
                let Some(at) = pick(self.bench.jobs.len(), n) else { return };
                if let Some((id, job)) = self.bench.jobs.remove(at) {
                    for input in self.bench.world.answer(self.bench.now, id, job) {
                        self.bench.handle(input);
                    }
                }
            }
            Step::DhtFails(is_disabled) => {
                let error = if is_disabled { DhtError::Disabled } else { DhtError::NoNodes };
                if let Some(id) = self.bench.dht_job(|op| !matches!(op, DhtOp::Put(..))) {
                    self.bench.handle(Input::Done(id, JobResult::DhtDone(Err(error))));
                }
            }
            Step::Document(n) => {
                let document = Head::to_json(&author(n % AUTHORS), u64::from(n), UNIX.0, &EMPTY, None);
                let channel = author(n % AUTHORS).public_key();
                self.bench.handle(Input::Head(channel, document.into_bytes()));
            }
            Step::Say(n, what, value) => {
                let content = &self.content;
                with_peer(&mut self.bench, &mut self.peers, n, &|bench, peer| {
                    let message = message(content, peer, what, value);
                    peer.send(bench, &message);
                });
            }
            Step::Take(n, most) => with_peer(&mut self.bench, &mut self.peers, n, &|bench, peer| {
                let len = bench.node.send_chunk(bench.now, peer.conn).len();
                bench.node.sent(bench.now, peer.conn, len.min(usize::from(most)));
            }),
            Step::Command(n, what) => {
                let command = command(&self.content, n, what);
                self.bench.command(command);
            }
        }
    }
}

/// The commands that users give.
fn command(content: &Content, n: u8, what: Wish) -> Command {
    let (channel, topic) = (author(n % AUTHORS).public_key(), Topic([n % AUTHORS; 32]));
    match what {
        Wish::Follow => Command::Follow { channel, read_key: None },
        Wish::Unfollow => Command::Unfollow(channel),
        Wish::Select(has_all) => {
            let others = if has_all { Priority::Normal } else { Priority::Skip };
            Command::Select { channel, selection: Selection { others, ..Selection::default() } }
        }
        Wish::Join => {
            let link = BlobRef { root: content.root(usize::from(n % 2)), key: SECRET };
            let tree = TreeRef::new(1000, 0, link).expect("one blob");
            Command::Join { topic, tree, selection: Selection::default() }
        }
        Wish::Leave => Command::Leave(topic),
        Wish::Pause => Command::Pause(channel),
        Wish::Resume => Command::Resume(channel),
        Wish::AddIdentity => Command::AddIdentity(author(n % AUTHORS).into()),
        Wish::RemoveIdentity => Command::RemoveIdentity(channel),
        Wish::Unban => Command::Unban(addr(u16::from(n))),
        Wish::Configure => Command::Configure(config(n).into()),
        Wish::Publish(has_gateways) => {
            let gateways = if has_gateways { vec![addr(1), addr(2)] } else { Vec::new() };
            Command::Publish { channel, draft: Draft { content: EMPTY, read_key: None, gateways } }
        }
    }
}

/// What a peer says.
fn message(content: &Content, peer: &Peer, what: Word, value: u8) -> Message {
    let author = author(value % AUTHORS);
    let tag = peer.tag(&uri::topic(&author.public_key(), None));
    let number = u32::from(value);
    let item = item(&author, i64::from(value), &EMPTY);
    match what {
        Word::Hello(is_v6, port) => {
            let version = Some(if is_v6 { 6 } else { 5 });
            Message::Hello {
                version,
                sequences: [(author.public_key(), u64::from(value))].into(),
                port,
                features: 0,
            }
        }
        Word::Watch => Message::Watch(
            (0..AUTHORS)
                .map(|n| peer.tag(&uri::topic(&crate::support::author(n).public_key(), None)))
                .collect(),
        ),
        Word::Have(has_all) => {
            let have = if has_all { all() } else { parts_of(number % 5, Mask(u16::from(value) << 4 | 0xF)) };
            Message::Have(tag, SEQUENCE, have)
        }
        Word::AskHave => Message::AskHave(tag, SEQUENCE),
        Word::GetHead => Message::GetHead { tag, known: 0, look_up: Some(author.public_key()) },
        Word::Head(is_there) => Message::Head(tag, is_there.then_some(item)),
        Word::Want => {
            let mask = Mask(u16::from(value) << 4 | 1);
            Message::Want(Want { number, root: content.root(0), mask, values: true, last_len: None })
        }
        Word::Cancel => Message::Cancel { number, mask: Mask(0xF0F1) },
        Word::Values(is_true) => {
            let n = if is_true { usize::from(value / 4 % 2) } else { 0 };
            Message::Parts { number: number % 4, values: Box::new(Values::of(&content.data[n].1)) }
        }
        Word::Piece(is_true) => {
            let (part, half) = (value / 16, value / 8 % 2);
            let right = content.part(usize::from(value / 4 % 2), usize::from(part));
            let right = right[usize::from(half) * PIECE_LEN_MAX..][..PIECE_LEN_MAX].to_vec();
            let bytes = if is_true { right } else { vec![value; usize::from(value)] };
            Message::Piece { number: number % 4, part, half, bytes }
        }
        Word::FindPeers => Message::FindPeers(BlobId(content.root(0).0)),
        Word::Peers => Message::Peers(vec![addr(u16::from(value))]),
        Word::Announce => Message::Announce(BlobId(content.root(0).0), at(NAME), value),
        Word::Publish => Message::Publish(item),
        Word::Refuse => Message::Error("Not Found".into()),
        Word::Nothing => Message::Empty,
    }
}

fn play_all(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut play = Play::new(input.arbitrary().unwrap_or_default());
    while let Ok(step) = Step::arbitrary(&mut input) {
        play.play(step);
        if input.is_empty() {
            break;
        }
    }
    play.pass(Duration::from_hours(1));
    // Each command has its answer, once all jobs have theirs.
    let bench = &mut play.bench;
    bench.node.shutdown(bench.now);
    bench.drain();
    bench.answer_jobs();
    assert!(bench.unanswered.is_empty(), "{:?}", bench.unanswered);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_node_that_was_woken_waits_for_a_later_instant(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        play_all(&bytes);
    }
}
