//! One node against a scripted v5 peer and against arbitrary inputs, without a network.

use std::collections::{BTreeMap, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{BLOB_LEN, Link, seal};
use megatorrent_core::codec::{Message, kind};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::frame;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobId, ConnId, InfoHash, JobId, Secret};
use megatorrent_core::limits::{
    BAN_TIME, HANDSHAKE_TIMEOUT, HELLO_WAIT, IDLE_TIMEOUT, INBOUND_MAX, STALL_TIMEOUT,
};
use megatorrent_core::manifest::{Chunk, Collection, EntryPath, FileEntry, HeadContent, Item, Reference};
use megatorrent_core::node::{
    Action, Command, Config, DhtError, DhtOp, Draft, Event, Input, Job, JobResult, Node, RecordKey, Written,
};
use megatorrent_core::time::{Instant, UnixTime};
use megatorrent_core::transport::{Handshake, Opener, Role, Sealer, Session};
use proptest::prelude::*;

const UNIX: UnixTime = UnixTime(1_700_000_000_000);
const CONFIG: Config = Config {
    listen_port: Some(6881),
    own_address: None,
    gateway: false,
    upload_bytes_per_sec: None,
    download_bytes_per_sec: None,
};

fn identity() -> Identity {
    Identity::new(&Secret::new([3; 32]), None)
}

fn addr(port: u16) -> PeerAddr {
    format!("127.0.0.1:{port}").parse().expect("valid")
}

/// A node and its actions, with time in hand.
struct Bench {
    node: Node,
    now: Instant,
    actions: VecDeque<Action>,
    announced: Vec<InfoHash>,
}

impl Bench {
    fn new(identity: Option<Identity>) -> Self {
        let node = Node::new(CONFIG, identity, [9; 32], Instant(0), UNIX);
        Self { node, now: Instant(0), actions: VecDeque::new(), announced: Vec::new() }
    }

    fn drain(&mut self) {
        while let Some(action) = self.node.poll() {
            self.actions.push_back(action);
        }
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    /// The first action that `pick` takes, out of those that wait.
    fn take<T>(&mut self, mut pick: impl FnMut(&Action) -> Option<T>) -> Option<(T, Action)> {
        let at = self.actions.iter().position(|a| pick(a).is_some())?;
        let action = self.actions.remove(at)?;
        pick(&action).map(|picked| (picked, action))
    }

    fn event(&mut self, fits: impl Fn(&Event) -> bool) -> Option<Event> {
        let found = self.take(|a| matches!(a, Action::Event(e) if fits(e)).then_some(()))?;
        if let Action::Event(event) = found.1 { Some(event) } else { None }
    }

    fn dht_job(&mut self, fits: impl Fn(&DhtOp) -> bool) -> Option<JobId> {
        self.take(|a| match a {
            Action::Job(id, Job::Dht(op)) if fits(op) => Some(*id),
            _ => None,
        })
        .map(|(id, _)| id)
    }

    /// Wakes the node whenever it says so, up to `until`, as a driver would that has nothing else to do.
    fn sleep_until(&mut self, until: Instant) {
        let mut wakes = 0;
        while let Some((at, why)) = self.node.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            self.handle(Input::Wake);
            wakes += 1;
            assert!(wakes < 10_000, "the node spins: {why}");
        }
        self.now = self.now.max(until);
    }

    /// Answers every job that waits as a store and a DHT would that are empty and take everything.
    fn answer_jobs(&mut self) {
        while let Some((id, action)) =
            self.take(|a| if let Action::Job(id, _) = a { Some(*id) } else { None })
        {
            let Action::Job(_, job) = action else { unreachable!("picked as a job") };
            if let Job::Dht(DhtOp::Announce(hash, _)) = &job {
                self.announced.push(*hash);
            }
            let result = match job {
                Job::ReadBlob(_, buffer) => JobResult::BlobRead(buffer, false),
                Job::WriteBlob(id, buffer) => {
                    let fits = megatorrent_core::blob::verify(&id, buffer.blob());
                    JobResult::BlobWritten(buffer, if fits { Written::Stored } else { Written::Mismatch })
                }
                Job::Have(ids) => JobResult::Have(vec![false; ids.len()]),
                Job::OpenBlob(_) => JobResult::Opened(None),
                Job::Persist(..) => JobResult::Persisted(true),
                Job::Dht(DhtOp::Put(..)) => JobResult::DhtPut(Ok(3)),
                Job::Dht(_) => JobResult::DhtDone(Ok(())),
            };
            self.handle(Input::Done(id, result));
        }
    }
}

/// The other end of a connection, made of core's own layers below the node.
struct Peer {
    conn: ConnId,
    sealer: Sealer,
    opener: Opener,
    inbox: Vec<u8>,
}

impl Peer {
    /// Opens a connection to the node's listener.
    fn dial(bench: &mut Bench, from: PeerAddr) -> Self {
        let conn = bench.node.accept(bench.now, from).expect("there is room");
        Self::shake(bench, conn, Role::Dialler)
    }

    fn shake(bench: &mut Bench, conn: ConnId, role: Role) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&conn.slot.to_le_bytes());
        let handshake = Handshake::from_secret(role, seed);
        let ours = handshake.public_key();
        let theirs: [u8; 32] =
            bench.node.send_chunk(bench.now, conn).try_into().expect("its key comes first");
        bench.node.sent(bench.now, conn, 32);
        deliver(bench, conn, &ours);
        let Session { sealer, opener, .. } = handshake.finish(theirs).expect("an honest key");
        Self { conn, sealer, opener, inbox: Vec::new() }
    }

    fn send(&mut self, bench: &mut Bench, message: &Message) {
        let (kind, payload) = message.encode();
        let frame = frame::seal(&mut self.sealer, kind, &payload);
        deliver(bench, self.conn, &frame);
    }

    fn send_blob(&mut self, bench: &mut Bench, blob: &[u8]) {
        let mut frame = u32::try_from(1 + blob.len() + 16).expect("small").to_be_bytes().to_vec();
        frame.push(kind::DATA);
        frame.extend(blob);
        let tag = self.sealer.seal(&mut frame[4..]);
        frame.extend(tag);
        deliver(bench, self.conn, &frame);
    }

    /// The plaintexts of all frames that the node has for us.
    fn receive(&mut self, bench: &mut Bench) -> Vec<Vec<u8>> {
        loop {
            let chunk = bench.node.send_chunk(bench.now, self.conn).to_vec();
            if chunk.is_empty() {
                break;
            }
            self.inbox.extend(&chunk);
            bench.node.sent(bench.now, self.conn, chunk.len());
        }
        bench.drain();
        let mut plain = Vec::new();
        while let Some((header, _)) = self.inbox.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*header) as usize;
            let mut frame: Vec<u8> = self.inbox.drain(..4 + len).collect();
            plain.push(self.opener.open(&mut frame[4..]).expect("sealed for us").to_vec());
        }
        plain
    }
}

fn deliver(bench: &mut Bench, conn: ConnId, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = bench.node.recv_space(conn);
        let n = space.len().min(bytes.len());
        if n == 0 {
            break;
        }
        space[..n].copy_from_slice(&bytes[..n]);
        bench.node.received(bench.now, conn, n);
        bytes = &bytes[n..];
    }
    bench.drain();
}

fn sealed(fill: u8) -> (Link, Box<[u8; BLOB_LEN]>) {
    let mut blob: Box<[u8; BLOB_LEN]> =
        vec![fill; BLOB_LEN].into_boxed_slice().try_into().expect("its length");
    let link = seal(&Secret::new([1; 32]), &mut blob[..], 1000);
    (link, blob)
}

/// A channel of one file with one chunk, as a signed item.
fn item_of(link: &Link, sequence: i64) -> SignedItem {
    let chunk = Chunk::from_link(link, 1000);
    let file = FileEntry {
        path: EntryPath::new("file").expect("valid"),
        size: 1000,
        modified_ms: None,
        executable: false,
        reference: Reference::Chunks(vec![chunk]),
    };
    let collection = Collection { title: String::new(), items: vec![Item::File(file)] };
    let content = HeadContent::Inline(vec![collection]);
    let identity = identity();
    let text =
        megatorrent_core::manifest::Head::to_json(&identity, sequence.unsigned_abs(), UNIX.0, &content, None);
    SignedItem::sign(&identity, sequence, text.into_bytes()).expect("it fits")
}

/// Follows the channel of [`identity`], whose head (of one blob) the DHT has and whose peers are `ports`.
fn follow(bench: &mut Bench, link: &Link, ports: &[u16]) -> PublicKey {
    let channel = identity().public_key();
    for port in ports {
        bench.handle(Input::Command(Command::AddPeer(addr(*port))));
    }
    bench.handle(Input::Command(Command::Follow { channel, read_key: None }));
    bench.sleep_until(bench.now);
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("the head is looked up");
    bench.handle(Input::DhtItem(get, item_of(link, 5)));
    bench.handle(Input::Done(get, JobResult::DhtDone(Ok(()))));
    bench.answer_jobs();
    channel
}

/// Lets the next dial to `port` succeed; the peer says that it speaks v5.
fn connect(bench: &mut Bench, port: u16) -> Peer {
    let mut peer = connect_silent(bench, port);
    peer.send(bench, &Message::Hello { version: Some(5), sequences: BTreeMap::new(), port: None });
    peer
}

/// Lets the next dial to `port` succeed; the peer says nothing.
fn connect_silent(bench: &mut Bench, port: u16) -> Peer {
    let (job, _) = bench
        .take(|a| if let Action::Dial(job, to) = a { (*to == addr(port)).then_some(*job) } else { None })
        .expect("the peer is dialled");
    let conn = bench.node.dialed(bench.now, job, true).expect("there is room");
    bench.drain();
    Peer::shake(bench, conn, Role::Listener)
}

fn has_request(frames: &[Vec<u8>], id: &BlobId) -> bool {
    frames.iter().any(|f| Message::decode(f) == Ok(Message::Request(*id)))
}

#[test]
fn a_blob_is_fetched_checked_and_stored_and_the_channel_is_complete() {
    let (link, blob) = sealed(1);
    let mut bench = Bench::new(None);
    let channel = follow(&mut bench, &link, &[1]);
    let mut peer = connect_silent(&mut bench, 1);
    let frames = peer.receive(&mut bench);
    assert!(!has_request(&frames, &link.id), "not before it is known what the peer speaks");
    assert!(matches!(
        Message::decode(&frames[0]),
        Ok(Message::Hello { version: Some(6), sequences, port: Some(6881) }) if sequences.is_empty()
    ));
    peer.send(&mut bench, &Message::Hello { version: Some(5), sequences: BTreeMap::new(), port: None });
    let answer = peer.receive(&mut bench);
    assert!(matches!(
        Message::decode(&answer[0]),
        Ok(Message::Hello { sequences, .. }) if sequences.get(&channel) == Some(&5)
    ));
    assert!(has_request(&answer, &link.id));
    peer.send_blob(&mut bench, &blob[..]);
    bench.answer_jobs();
    assert!(bench.event(|e| matches!(e, Event::ChannelComplete { sequence: 5, .. })).is_some());
    let status = bench.node.channel_status(&channel).expect("followed");
    assert_eq!(
        (status.complete, status.blobs_stored, status.blobs_total, status.waiting),
        (true, 1, 1, None)
    );
    assert!(bench.announced.contains(&link.id.info_hash()), "v5 readers look for each blob");
}

#[test]
fn a_dialled_peer_that_says_nothing_is_taken_for_v5() {
    let (link, _) = sealed(1);
    let mut bench = Bench::new(None);
    follow(&mut bench, &link, &[1]);
    let mut peer = connect_silent(&mut bench, 1);
    bench.sleep_until(bench.now + HELLO_WAIT / 2);
    assert!(!has_request(&peer.receive(&mut bench), &link.id));
    bench.sleep_until(bench.now + HELLO_WAIT / 2);
    assert!(has_request(&peer.receive(&mut bench), &link.id));
}

#[test]
fn a_wrong_blob_bans_its_peer_for_an_hour_also_after_a_restart_and_comes_from_another() {
    let (link, blob) = sealed(1);
    let mut bench = Bench::new(None);
    follow(&mut bench, &link, &[1, 2]);
    let mut liar = connect(&mut bench, 1);
    let mut honest = connect(&mut bench, 2);
    let asked = [liar.receive(&mut bench), honest.receive(&mut bench)].map(|f| has_request(&f, &link.id));
    assert_eq!(asked, [true, false], "one of them is asked");
    let mut wrong = blob.clone();
    wrong[5] ^= 1;
    liar.send_blob(&mut bench, &wrong[..]);
    let (key, value) = {
        let write =
            bench.take(|a| if let Action::Job(id, Job::WriteBlob(..)) = a { Some(*id) } else { None });
        let Some((id, Action::Job(_, Job::WriteBlob(_, buffer)))) = write else {
            panic!("the blob is checked")
        };
        bench.handle(Input::Done(id, JobResult::BlobWritten(buffer, Written::Mismatch)));
        let record = bench.take(|a| match a {
            Action::Job(id, Job::Persist(key @ RecordKey::Ban(_), Some(value))) => {
                Some((*id, key.clone(), value.clone()))
            }
            _ => None,
        });
        let ((id, key, value), _) = record.expect("the ban is made durable");
        bench.handle(Input::Done(id, JobResult::Persisted(true)));
        (key, value)
    };
    assert_eq!(key, RecordKey::Ban(addr(1)));
    assert!(bench.event(|e| matches!(e, Event::Banned { violation: Violation::WrongBlob, .. })).is_some());
    assert!(bench.take(|a| matches!(a, Action::Close(c, _) if *c == liar.conn).then_some(())).is_some());
    assert!(has_request(&honest.receive(&mut bench), &link.id));
    honest.send_blob(&mut bench, &blob[..]);
    bench.answer_jobs();
    assert!(bench.event(|e| matches!(e, Event::ChannelComplete { .. })).is_some());

    for (age, dialled) in [(BAN_TIME / 2, false), (BAN_TIME, true)] {
        let mut node = Node::new(CONFIG, None, [1; 32], Instant(0), UNIX.plus(age));
        assert!(node.restore(&key, &value));
        node.handle(Instant(0), Input::Command(Command::AddPeer(addr(1))));
        node.handle(
            Instant(0),
            Input::Command(Command::Follow { channel: identity().public_key(), read_key: None }),
        );
        let mut dials = std::iter::from_fn(|| node.poll()).filter(|a| matches!(a, Action::Dial(..)));
        assert_eq!(dials.next().is_some(), dialled, "after {age:?}");
    }
}

#[test]
fn a_peer_that_says_not_found_or_stalls_or_closes_is_replaced() {
    let (link, blob) = sealed(1);
    let mut bench = Bench::new(None);
    follow(&mut bench, &link, &[1, 2, 3, 4]);
    let mut peers: Vec<Peer> = (1..=4).map(|port| connect(&mut bench, port)).collect();
    let mut next = |bench: &mut Bench| {
        let at = peers
            .iter_mut()
            .position(|p| has_request(&p.receive(bench), &link.id))
            .expect("someone is asked");
        peers.remove(at)
    };
    let mut first = next(&mut bench);
    first.send(&mut bench, &Message::Error("Not Found".into()));
    let second = next(&mut bench);
    bench.node.disconnected(bench.now, first.conn);
    bench.node.disconnected(bench.now, second.conn);
    let third = next(&mut bench);
    bench.sleep_until(bench.now + STALL_TIMEOUT);
    let stalled =
        bench.take(|a| matches!(a, Action::Close(c, CloseReason::Stalled) if *c == third.conn).then_some(()));
    assert!(stalled.is_some());
    next(&mut bench).send_blob(&mut bench, &blob[..]);
    bench.answer_jobs();
    assert!(bench.event(|e| matches!(e, Event::ChannelComplete { .. })).is_some());
}

#[test]
fn a_plain_fetcher_gets_answers_in_order_and_no_hello() {
    let mut bench = Bench::new(None);
    let mut peer = Peer::dial(&mut bench, addr(50_000));
    for n in 1..=3 {
        peer.send(&mut bench, &Message::Request(BlobId([n; 32])));
    }
    for (n, found) in [(1, true), (2, false), (3, true)] {
        let read = bench.take(|a| match a {
            Action::Job(id, Job::ReadBlob(blob, _)) if blob.0[0] == n => Some(*id),
            _ => None,
        });
        let Some((id, Action::Job(_, Job::ReadBlob(_, mut buffer)))) = read else {
            panic!("request {n} is read")
        };
        buffer.blob_mut().fill(n);
        bench.handle(Input::Done(id, JobResult::BlobRead(buffer, found)));
        let frames = peer.receive(&mut bench);
        match (&frames[..], found) {
            ([data], true) => assert_eq!((data[0], data[1], data.len()), (kind::DATA, n, 1 + BLOB_LEN)),
            ([error], false) => assert_eq!(Message::decode(error), Ok(Message::Error("Not Found".into()))),
            other => panic!("one answer, not {}", other.0.len()),
        }
    }
    peer.send(&mut bench, &Message::Hello { version: Some(5), sequences: BTreeMap::new(), port: None });
    assert!(matches!(&peer.receive(&mut bench)[..], [hello] if hello[0] == kind::HELLO));
}

#[test]
fn bad_messages_are_answered_once_and_end_the_connection() {
    let cases: [(u8, &[u8], &str); 5] = [
        (kind::REQUEST, b"../../identity.json", "Malformed Message"),
        (kind::HELLO, br#"{"v":4}"#, "Protocol Version Mismatch"),
        (kind::HELLO, b"\xFF", "Malformed Message"),
        (kind::PEERS, b"{", "Malformed Message"),
        (kind::ANNOUNCE, b"[]", "Malformed Message"),
    ];
    for (kind, payload, why) in cases {
        let mut bench = Bench::new(None);
        let mut peer = Peer::dial(&mut bench, addr(50_000));
        let frame = frame::seal(&mut peer.sealer, kind, payload);
        deliver(&mut bench, peer.conn, &frame);
        let frames = peer.receive(&mut bench);
        assert_eq!(Message::decode(&frames[0]), Ok(Message::Error(why.into())));
        assert!(bench.take(|a| matches!(a, Action::Close(c, _) if *c == peer.conn).then_some(())).is_some());
        assert!(
            bench.node.recv_space(peer.conn).is_empty()
                && bench.node.send_chunk(bench.now, peer.conn).is_empty()
        );
    }
}

#[test]
fn silent_and_idle_connections_end_and_the_oldest_makes_room() {
    let mut bench = Bench::new(None);
    let silent = bench.node.accept(bench.now, addr(1)).expect("there is room");
    let peer = Peer::dial(&mut bench, addr(2));
    bench.sleep_until(bench.now + HANDSHAKE_TIMEOUT);
    let closed = |bench: &mut Bench, conn, reason| {
        bench.take(|a| matches!(a, Action::Close(c, r) if *c == conn && *r == reason).then_some(())).is_some()
    };
    assert!(closed(&mut bench, silent, CloseReason::HandshakeTimeout));
    bench.sleep_until(bench.now + IDLE_TIMEOUT);
    assert!(closed(&mut bench, peer.conn, CloseReason::Idle));

    let oldest = bench.node.accept(bench.now, addr(3)).expect("there is room");
    for port in 0..u16::try_from(INBOUND_MAX).expect("small") {
        bench.now = Instant(bench.now.0 + 1);
        assert!(bench.node.accept(bench.now, addr(1000 + port)).is_some());
    }
    bench.drain();
    assert!(closed(&mut bench, oldest, CloseReason::Evicted));
    assert_eq!(bench.node.status(bench.now).inbound, INBOUND_MAX);
}

#[test]
fn a_gossiped_sequence_makes_the_head_be_looked_up() {
    let (link, _) = sealed(1);
    let mut bench = Bench::new(None);
    let channel = follow(&mut bench, &link, &[]);
    let mut peer = Peer::dial(&mut bench, addr(50_000));
    bench.now = bench.now + std::time::Duration::from_secs(10);
    for (sequence, looked_up) in [(5, false), (6, true)] {
        peer.send(
            &mut bench,
            &Message::Hello { version: Some(5), sequences: [(channel, sequence)].into(), port: None },
        );
        bench.sleep_until(bench.now);
        assert_eq!(
            bench.dht_job(|op| matches!(op, DhtOp::Get(_))).is_some(),
            looked_up,
            "sequence {sequence}"
        );
    }
}

#[test]
fn sequences_never_go_back_and_forks_are_reported() {
    let ((old, _), (new, _)) = (sealed(1), sealed(2));
    let mut bench = Bench::new(None);
    let channel = follow(&mut bench, &new, &[]);
    bench.now = bench.now + std::time::Duration::from_mins(2);
    bench.sleep_until(bench.now);
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("it is polled");
    bench.handle(Input::DhtItem(get, item_of(&old, 4)));
    assert!(bench.event(|e| matches!(e, Event::Fork { .. })).is_none());
    bench.handle(Input::DhtItem(get, item_of(&old, 5)));
    assert!(bench.event(|e| matches!(e, Event::Fork { sequence: 5, .. })).is_some());
    let mut forged = item_of(&old, 9);
    forged.signature[0] ^= 1;
    bench.handle(Input::DhtItem(get, forged));
    let ahead = UNIX.0 + 25 * 3600 * 1000;
    bench.handle(Input::DhtItem(get, item_of(&old, i64::try_from(ahead).expect("small"))));
    assert!(bench.event(|e| matches!(e, Event::HeadRefused { .. })).is_some());
    bench.answer_jobs();
    assert_eq!(bench.node.channel_status(&channel).map(|s| s.sequence), Some(5));
}

#[test]
fn publishing_signs_above_what_is_known_stores_first_and_reads_back() {
    let mut bench = Bench::new(Some(identity()));
    let draft = Draft { content: HeadContent::Inline(Vec::new()), read_key: None, gateways: Vec::new() };
    let newer = i64::try_from(UNIX.0).expect("small") + 1000;
    bench.handle(Input::Command(Command::Publish(draft)));
    // The subscription to our own channel is remembered at once.
    let persist = |a: &Action| {
        if let Action::Job(id, Job::Persist(RecordKey::Channel(_), _)) = a { Some(*id) } else { None }
    };
    let (followed, _) = bench.take(persist).expect("it is made durable");
    bench.handle(Input::Done(followed, JobResult::Persisted(true)));
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("the newest is looked up first");
    bench.handle(Input::DhtItem(get, item_of(&sealed(1).0, newer)));
    bench.handle(Input::Done(get, JobResult::DhtDone(Ok(()))));
    assert!(bench.dht_job(|op| matches!(op, DhtOp::Put(..))).is_none(), "not before it is durable");
    let (record, _) = bench.take(persist).expect("the head is stored");
    bench.handle(Input::Done(record, JobResult::Persisted(true)));
    let ((put, item, cas), _) = bench
        .take(|a| match a {
            Action::Job(id, Job::Dht(DhtOp::Put(item, cas))) => Some((*id, item.clone(), *cas)),
            _ => None,
        })
        .expect("it is put");
    assert_eq!((item.seq, cas, item.verify()), (newer + 1, Some(newer), true));
    bench.handle(Input::Done(put, JobResult::DhtPut(Ok(4))));
    let read_back = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("it is read back");
    bench.handle(Input::DhtItem(read_back, item));
    bench.handle(Input::Done(read_back, JobResult::DhtDone(Ok(()))));
    assert!(bench.event(|e| matches!(e, Event::Published { replicas: 4, inline: true, .. })).is_some());
}

#[test]
fn without_a_dht_publishing_fails_with_the_reason() {
    let mut bench = Bench::new(Some(identity()));
    let draft = Draft { content: HeadContent::Inline(Vec::new()), read_key: None, gateways: Vec::new() };
    bench.handle(Input::Command(Command::Publish(draft)));
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("the newest is looked up first");
    bench.handle(Input::Done(get, JobResult::DhtDone(Err(DhtError::Disabled))));
    let failed = bench.event(|e| matches!(e, Event::PublishFailed { .. })).expect("it fails");
    assert!(format!("{failed:?}").contains("Disabled"));
}

// --- arbitrary inputs ---------------------------------------------------------------------------------------------

/// Something that a driver, peers and the DHT might do, in any order.
#[derive(Arbitrary, Debug)]
enum Op {
    Accept(u8),
    Dialed(u8, bool),
    Bytes(u8, Vec<u8>),
    Send(u8),
    Disconnect(u8),
    Answer(u8, bool),
    Stray(u64),
    Wait(u16),
    Peers(u8, [u8; 4], u16),
    Gossip(u8, u64),
    AddPeer(u16),
    Request(u8, u8),
    Garbage(u8, u8, Vec<u8>),
}

#[derive(Default)]
struct World {
    conns: Vec<Option<Peer>>,
    dials: Vec<JobId>,
    jobs: Vec<(JobId, Job)>,
}

fn pick<T>(list: &[T], n: u8) -> Option<usize> {
    (!list.is_empty()).then(|| usize::from(n) % list.len())
}

fn answer(job: Job, good: bool) -> JobResult {
    match job {
        Job::ReadBlob(_, buffer) => JobResult::BlobRead(buffer, good),
        Job::WriteBlob(_, buffer) => {
            JobResult::BlobWritten(buffer, if good { Written::NoSpace } else { Written::Mismatch })
        }
        Job::Have(ids) => JobResult::Have(vec![good; ids.len()]),
        Job::OpenBlob(_) => JobResult::Opened(good.then(|| vec![0; BLOB_LEN - 16])),
        Job::Persist(..) => JobResult::Persisted(good),
        Job::Dht(DhtOp::Put(..)) => JobResult::DhtPut(if good { Ok(1) } else { Err(DhtError::Stale) }),
        Job::Dht(_) => JobResult::DhtDone(if good { Ok(()) } else { Err(DhtError::NoNodes) }),
    }
}

fn apply(bench: &mut Bench, world: &mut World, op: Op) {
    let with_peer = |bench: &mut Bench, world: &mut World, n: u8, act: &dyn Fn(&mut Bench, &mut Peer)| {
        if let Some(Some(peer)) = pick(&world.conns, n).map(|at| &mut world.conns[at]) {
            act(bench, peer);
        }
    };
    match op {
        Op::Accept(port) => {
            if bench.node.accept(bench.now, addr(u16::from(port))).is_some() {
                bench.drain();
                let peer = Peer::dial(bench, addr(u16::from(port) + 300));
                world.conns.push(Some(peer));
            }
        }
        Op::Dialed(n, good) => {
            if let Some(at) = pick(&world.dials, n) {
                let job = world.dials.remove(at);
                if let Some(conn) = bench.node.dialed(bench.now, job, good) {
                    world.conns.push(Some(Peer::shake(bench, conn, Role::Listener)));
                }
            }
        }
        Op::Bytes(n, bytes) => with_peer(bench, world, n, &|b, p| deliver(b, p.conn, &bytes)),
        Op::Send(n) => with_peer(bench, world, n, &|b, p| {
            let len = b.node.send_chunk(b.now, p.conn).len();
            b.node.sent(b.now, p.conn, len);
        }),
        Op::Disconnect(n) => with_peer(bench, world, n, &|b, p| b.node.disconnected(b.now, p.conn)),
        Op::Answer(n, good) => {
            if let Some(at) = pick(&world.jobs, n) {
                let (id, job) = world.jobs.remove(at);
                if let Job::Dht(DhtOp::Get(_)) = &job {
                    bench.handle(Input::DhtItem(id, item_of(&sealed(1).0, i64::from(n))));
                }
                bench.handle(Input::Done(id, answer(job, good)));
            }
        }
        Op::Stray(id) => {
            let stray = JobId(u64::MAX - id);
            bench.handle(Input::Done(stray, JobResult::Persisted(true)));
            bench.handle(Input::DhtItem(stray, item_of(&sealed(1).0, 1)));
        }
        Op::Wait(ms) => bench.sleep_until(bench.now + std::time::Duration::from_millis(u64::from(ms))),
        Op::Peers(n, ip, port) => {
            if let Some(at) = pick(&world.jobs, n) {
                let found = std::net::SocketAddr::from((ip, port)).into();
                bench.handle(Input::DhtPeers(world.jobs[at].0, vec![found]));
            }
        }
        Op::Gossip(n, seq) => with_peer(bench, world, n, &|b, p| {
            p.send(
                b,
                &Message::Hello {
                    version: Some(5),
                    sequences: [(identity().public_key(), seq)].into(),
                    port: None,
                },
            );
        }),
        Op::AddPeer(port) => bench.handle(Input::Command(Command::AddPeer(addr(port)))),
        Op::Request(n, id) => {
            with_peer(bench, world, n, &|b, p| p.send(b, &Message::Request(BlobId([id; 32]))));
        }
        Op::Garbage(n, kind, payload) => with_peer(bench, world, n, &|b, p| {
            let frame = frame::seal(&mut p.sealer, kind, &payload);
            deliver(b, p.conn, &frame);
        }),
    }
}

/// Runs the operations that `bytes` spell; what the node did, in words.
fn run(bytes: &[u8]) -> Vec<String> {
    let mut bench = Bench::new(Some(identity()));
    let (mut world, mut log) = (World::default(), Vec::new());
    bench.handle(Input::Command(Command::Follow { channel: identity().public_key(), read_key: None }));
    let mut input = Unstructured::new(bytes);
    while let Ok(op) = Op::arbitrary(&mut input) {
        apply(&mut bench, &mut world, op);
        bench.drain();
        for action in bench.actions.drain(..) {
            log.push(format!("{:?} {action:?}", bench.now));
            match action {
                Action::Dial(job, _) => world.dials.push(job),
                Action::Job(id, job) => world.jobs.push((id, job)),
                Action::Close(conn, _) => {
                    world.conns.retain(|p| p.as_ref().is_some_and(|p| p.conn != conn));
                    assert!(bench.node.recv_space(conn).is_empty(), "a closed connection takes no bytes");
                }
                Action::Readable(_) | Action::Writable(_) | Action::Event(_) => {}
            }
        }
        if input.is_empty() {
            break;
        }
    }
    bench.node.shutdown(bench.now);
    bench.drain();
    let status = bench.node.status(bench.now);
    assert_eq!((status.inbound, status.outbound), (0, 0));
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_inputs_breaks_a_node_and_the_same_inputs_give_the_same_actions(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        prop_assert_eq!(run(&bytes), run(&bytes));
    }
}

#[test]
fn info_hashes_are_the_front_of_the_id() {
    assert_eq!(BlobId([7; 32]).info_hash(), InfoHash([7; 20]));
}

#[test]
fn a_subscription_is_remembered_before_its_first_head() {
    let mut bench = Bench::new(None);
    let channel = identity().public_key();
    let read_key = Some(Secret::new([8; 32]));
    bench.handle(Input::Command(Command::Follow { channel, read_key }));
    let record = bench.take(|a| match a {
        Action::Job(_, Job::Persist(key, Some(value))) => Some((key.clone(), value.clone())),
        _ => None,
    });
    let ((key, value), _) = record.expect("it is made durable");
    let mut later = Node::new(CONFIG, None, [1; 32], Instant(0), UNIX);
    assert!(later.restore(&key, &value));
    assert_eq!(later.channel_status(&channel).map(|s| (s.private, s.sequence)), Some((true, 0)));
}

#[test]
fn a_peer_that_lacked_a_blob_is_asked_again_later() {
    let (link, blob) = sealed(1);
    let mut bench = Bench::new(None);
    follow(&mut bench, &link, &[1]);
    let mut peer = connect(&mut bench, 1);
    assert!(has_request(&peer.receive(&mut bench), &link.id));
    peer.send(&mut bench, &Message::Error("Not Found".into()));
    assert!(!has_request(&peer.receive(&mut bench), &link.id), "not at once");
    bench.sleep_until(bench.now + std::time::Duration::from_secs(10));
    assert!(has_request(&peer.receive(&mut bench), &link.id));
    peer.send_blob(&mut bench, &blob[..]);
    bench.answer_jobs();
    assert!(bench.event(|e| matches!(e, Event::ChannelComplete { .. })).is_some());
}

#[test]
fn a_banned_peer_that_comes_by_itself_is_turned_away() {
    let mut bench = Bench::new(None);
    let until = (UNIX.0 + 1000).to_be_bytes();
    assert!(bench.node.restore(&RecordKey::Ban(addr(7000)), &until));
    for (port, turned_away) in [(7000, true), (7001, false)] {
        let mut peer = Peer::dial(&mut bench, addr(50_000 + port));
        peer.send(
            &mut bench,
            &Message::Hello { version: Some(6), sequences: BTreeMap::new(), port: Some(port) },
        );
        let closed = bench.take(|a| matches!(a, Action::Close(_, CloseReason::Banned)).then_some(()));
        assert_eq!(closed.is_some(), turned_away, "from a node that listens on {port}");
    }
}
