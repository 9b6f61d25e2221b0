//! Who a node dials, keeps and shuts out, without a network: a node that wants a channel nobody has, among peers that
//! take connections and serve nothing.

use std::collections::BTreeMap;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{BLOB_LEN, seal};
use megatorrent_core::codec::Message;
use megatorrent_core::error::CloseReason;
use megatorrent_core::frame;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, ConnId, JobId, Secret};
use megatorrent_core::limits::{
    BAN_TIME, BANS_PER_HOST_MAX, OUTBOUND_MAX, OUTBOUND_SHARE, PEERS_KNOWN_MAX, PEERS_PER_NETWORK_MAX,
    PEERS_PER_TELLER_MAX, ROTATION_INTERVAL, USELESS_AFTER,
};
use megatorrent_core::manifest::{
    Chunk, Collection, EntryPath, FileEntry, Head, HeadContent, Item, Reference,
};
use megatorrent_core::node::{Action, Command, Config, DhtOp, Input, Job, JobResult, Node, RecordKey};
use megatorrent_core::time::{Instant, UnixTime};
use megatorrent_core::transport::{Handshake, Opener, Role, Sealer};

const UNIX: UnixTime = UnixTime(1_700_000_000_000);
const CONFIG: Config = Config {
    listen_port: Some(6881),
    own_address: None,
    gateway: false,
    upload_bytes_per_sec: None,
    download_bytes_per_sec: None,
};

fn at(text: &str) -> PeerAddr {
    text.parse().expect("valid")
}

/// An address in a network of its own.
fn far(n: usize) -> PeerAddr {
    at(&format!("{}.{}.7.7:1", 20 + n / 256, n % 256))
}

/// A node, its time, and what it asks for.
struct Bench {
    node: Node,
    now: Instant,
    /// Peers to which it is connected, by address.
    open: BTreeMap<PeerAddr, Peer>,
    dials: Vec<(JobId, PeerAddr)>,
    closed: Vec<(ConnId, CloseReason)>,
    deleted: Vec<RecordKey>,
    lookups: Vec<JobId>,
}

impl Bench {
    fn new() -> Self {
        let node = Node::new(CONFIG, None, [9; 32], Instant(0), UNIX);
        let (open, dials, closed, deleted) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { node, now: Instant(0), open, dials, closed, deleted, lookups: Vec::new() }
    }

    /// A node that lacks a blob.
    fn lacking() -> Self {
        let mut bench = Self::new();
        let identity = Identity::new(&Secret::new([3; 32]), None);
        bench.command(Command::Follow { channel: identity.public_key(), read_key: None });
        bench.sleep_until(bench.now);
        bench
    }

    fn command(&mut self, command: Command) {
        self.handle(Input::Command(command));
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.node.poll() {
            match action {
                Action::Dial(job, addr) => self.dials.push((job, addr)),
                Action::Close(conn, reason) => {
                    self.open.retain(|_, peer| peer.conn != conn);
                    self.closed.push((conn, reason));
                }
                Action::Job(id, job) => self.job(id, job),
                Action::Readable(_) | Action::Writable(_) | Action::Event(_) => {}
            }
        }
    }

    fn job(&mut self, id: JobId, job: Job) {
        let result = match job {
            Job::ReadBlob(_, buffer) => JobResult::BlobRead(buffer, false),
            Job::WriteBlob(..) => panic!("nobody serves"),
            Job::Have(ids) => JobResult::Have(vec![false; ids.len()]),
            Job::OpenBlob(_) => JobResult::Opened(None),
            Job::Persist(key, None) => {
                self.deleted.push(key);
                JobResult::Persisted(true)
            }
            Job::Persist(..) => JobResult::Persisted(true),
            Job::Dht(DhtOp::Put(..)) => JobResult::DhtPut(Ok(8)),
            Job::Dht(DhtOp::Get(_)) => {
                self.node.handle(self.now, Input::DhtItem(id, head()));
                JobResult::DhtDone(Ok(()))
            }
            Job::Dht(DhtOp::Lookup(_)) => {
                // Left open, so that a test can say what is found.
                self.lookups.push(id);
                return;
            }
            Job::Dht(DhtOp::Announce(..)) => JobResult::DhtDone(Ok(())),
        };
        self.node.handle(self.now, Input::Done(id, result));
    }

    fn dht_finds(&mut self, peers: impl IntoIterator<Item = PeerAddr>) {
        let job = *self.lookups.last().expect("peers are looked up");
        self.handle(Input::DhtPeers(job, peers.into_iter().collect()));
    }

    fn sleep_until(&mut self, until: Instant) {
        while let Some((at, _)) = self.node.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            self.handle(Input::Wake);
        }
        self.now = self.now.max(until);
    }

    /// Answers the dials: who is there takes the connection and says HELLO.
    fn connect_all(&mut self, is_there: impl Fn(&PeerAddr) -> bool) -> Vec<PeerAddr> {
        let mut reached = Vec::new();
        while let Some((job, addr)) = self.dials.pop() {
            let conn = self.node.dialed(self.now, job, is_there(&addr));
            self.drain();
            if let Some(conn) = conn {
                let peer = Peer::shake(self, conn, Role::Listener);
                self.open.insert(addr.clone(), peer);
                reached.push(addr);
            }
        }
        reached
    }

    /// The peers say "Not Found" to each request, and keep their connections alive.
    fn hold_all(&mut self) {
        for (addr, mut peer) in core::mem::take(&mut self.open) {
            for message in peer.receive(self) {
                match message {
                    Message::Request(_) => peer.send(self, &Message::Error("Not Found".into())),
                    Message::FindPeers(_) => peer.send(self, &Message::Peers(Vec::new())),
                    _ => {}
                }
            }
            peer.send(self, &Message::FindPeers(BlobId([7; 32])));
            self.open.insert(addr, peer);
        }
        self.open.retain(|_, peer| self.closed.iter().all(|(conn, _)| *conn != peer.conn));
    }

    fn of_network(&self, prefix: &str) -> usize {
        self.open.keys().filter(|addr| addr.to_string().starts_with(prefix)).count()
    }
}

/// The other end of a connection.
struct Peer {
    conn: ConnId,
    sealer: Sealer,
    opener: Opener,
}

impl Peer {
    fn shake(bench: &mut Bench, conn: ConnId, role: Role) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&conn.slot.to_le_bytes());
        seed[4..8].copy_from_slice(&conn.generation.to_le_bytes());
        let handshake = Handshake::from_secret(role, seed);
        let ours = handshake.public_key();
        let theirs = bench.node.send_chunk(bench.now, conn).try_into().expect("its key comes first");
        bench.node.sent(bench.now, conn, 32);
        deliver(bench, conn, &ours);
        let session = handshake.finish(theirs).expect("an honest key");
        Self { conn, sealer: session.sealer, opener: session.opener }
    }

    fn send(&mut self, bench: &mut Bench, message: &Message) {
        let (kind, payload) = message.encode();
        let frame = frame::seal(&mut self.sealer, kind, &payload);
        deliver(bench, self.conn, &frame);
    }

    /// What the node has to say.
    fn receive(&mut self, bench: &mut Bench) -> Vec<Message> {
        let mut bytes = Vec::new();
        loop {
            let chunk = bench.node.send_chunk(bench.now, self.conn).to_vec();
            if chunk.is_empty() {
                break;
            }
            bench.node.sent(bench.now, self.conn, chunk.len());
            bytes.extend(chunk);
        }
        bench.drain();
        let mut messages = Vec::new();
        while let Some((header, _)) = bytes.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*header) as usize;
            let mut frame: Vec<u8> = bytes.drain(..4 + len).collect();
            let plain = self.opener.open(&mut frame[4..]).expect("sealed for us");
            messages.push(Message::decode(plain).expect("an honest message"));
        }
        messages
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

/// The head of a channel of one file with one blob.
fn head() -> SignedItem {
    let mut blob = vec![1; BLOB_LEN];
    let link = seal(&Secret::new([1; 32]), &mut blob, 1000);
    let file = FileEntry {
        path: EntryPath::new("file").expect("valid"),
        size: 1000,
        modified_ms: None,
        executable: false,
        reference: Reference::Chunks(vec![Chunk::from_link(&link, 1000)]),
    };
    let content =
        HeadContent::Inline(vec![Collection { title: String::new(), items: vec![Item::File(file)] }]);
    let identity = Identity::new(&Secret::new([3; 32]), None);
    let text = Head::to_json(&identity, 5, UNIX.0, &content, None);
    SignedItem::sign(&identity, 5, text.into_bytes()).expect("it fits")
}

#[test]
fn sybils_of_one_network_hold_few_connections_and_few_places_in_the_book() {
    let mut bench = Bench::lacking();
    bench.dht_finds((0..5000_u16).map(|n| at(&format!("9.9.{}.{}:1", n / 250, n % 250 + 1))));
    assert_eq!(bench.node.status(bench.now).peers_known, PEERS_PER_NETWORK_MAX);
    bench.connect_all(|_| true);
    assert_eq!(bench.open.len(), OUTBOUND_MAX / OUTBOUND_SHARE);
    bench.dht_finds((0..20).map(far));
    while !bench.connect_all(|_| true).is_empty() {}
    assert_eq!((bench.of_network("9.9."), bench.of_network("20.")), (OUTBOUND_MAX / OUTBOUND_SHARE, 20));
}

#[test]
fn fakes_that_hold_all_connections_and_serve_nothing_give_way_to_addresses_not_tried() {
    let mut bench = Bench::lacking();
    // Thousands of Sybils, in as many networks; then the one honest peer is found.
    bench.dht_finds((0..900).map(far));
    while !bench.connect_all(|_| true).is_empty() {}
    assert_eq!(bench.open.len(), OUTBOUND_MAX);
    let honest = at("77.7.7.7:1");
    bench.dht_finds([honest.clone()]);
    let all = ROTATION_INTERVAL * 900 * 3;
    let mut waited = Instant(0);
    while !bench.open.contains_key(&honest) {
        assert!(waited < Instant(0) + all, "it is never tried");
        waited = waited + ROTATION_INTERVAL;
        bench.hold_all();
        bench.sleep_until(bench.now + ROTATION_INTERVAL);
        bench.connect_all(|_| true);
        assert!(bench.open.len() <= OUTBOUND_MAX);
    }
    assert!(waited > Instant(0) + USELESS_AFTER, "each has time to serve first");
}

#[test]
fn a_networks_share_is_not_held_for_ever_by_those_of_it_that_serve_nothing() {
    let mut bench = Bench::lacking();
    let honest = at("9.9.250.1:1");
    let sybils = (1..=50).map(|n| at(&format!("9.9.1.{n}:1")));
    bench.dht_finds(sybils.chain([honest.clone()]));
    for _ in 0..200 {
        bench.connect_all(|_| true);
        if bench.open.contains_key(&honest) {
            return;
        }
        bench.hold_all();
        bench.sleep_until(bench.now + ROTATION_INTERVAL);
    }
    panic!("it is never tried");
}

#[test]
fn what_one_peer_tells_fills_its_share_of_the_book_and_no_private_address_is_believed_of_it() {
    let mut bench = Bench::lacking();
    let mut tell = |told: &dyn Fn(u8, u8) -> PeerAddr, from: usize| {
        // It connects again and again, as one answer is due for one question.
        for round in 0..40 {
            bench.command(Command::AddPeer(far(from)));
            let dialled = |bench: &mut Bench| {
                let at = bench.dials.iter().position(|(_, addr)| *addr == far(from))?;
                Some(bench.dials.remove(at).0)
            };
            let job = loop {
                match dialled(&mut bench) {
                    Some(job) => break job,
                    None => drop(bench.connect_all(|_| false)),
                }
                if bench.dials.is_empty() {
                    bench.sleep_until(bench.now + core::time::Duration::from_secs(10));
                }
            };
            let conn = bench.node.dialed(bench.now, job, true).expect("there is room");
            let mut peer = Peer::shake(&mut bench, conn, Role::Listener);
            let hello = Message::Hello { version: Some(6), sequences: BTreeMap::new(), port: None };
            peer.send(&mut bench, &hello);
            let asked = peer.receive(&mut bench);
            if asked.iter().any(|m| matches!(m, Message::Request(_))) {
                peer.send(&mut bench, &Message::Error("Not Found".into()));
            }
            let asked = [asked, peer.receive(&mut bench)].concat();
            assert!(asked.iter().any(|m| matches!(m, Message::FindPeers(_))), "{asked:?}");
            peer.send(&mut bench, &Message::Peers((0..64).map(|n| told(round, n)).collect()));
            bench.node.disconnected(bench.now, conn);
            bench.drain();
        }
        bench.node.status(bench.now).peers_known
    };
    let known = tell(&|round, n| at(&format!("{}.{}.1.1:1", 100 + round, n)), 1);
    assert_eq!(known, 1 + PEERS_PER_TELLER_MAX);
    assert_eq!(
        tell(&|round, n| at(&format!("10.{round}.1.{n}:1")), 2),
        known + 1,
        "the teller itself is known"
    );
}

#[test]
fn a_flood_of_announces_fills_its_tellers_share_only() {
    let mut bench = Bench::lacking();
    let from = at("9.9.9.9:50000");
    let conn = bench.node.accept(bench.now, from).expect("there is room");
    let mut peer = Peer::shake(&mut bench, conn, Role::Dialler);
    // A v5 peer that came to us is asked for nothing.
    peer.send(&mut bench, &Message::Hello { version: Some(5), sequences: BTreeMap::new(), port: None });
    for minute in 0..20_u16 {
        for n in 0..200 {
            let port = 1 + minute * 200 + n;
            peer.send(&mut bench, &Message::Announce(BlobId([7; 32]), at(&format!("9.9.9.9:{port}")), 6));
            peer.send(&mut bench, &Message::Announce(BlobId([7; 32]), at(&format!("8.8.8.8:{port}")), 6));
        }
        peer.receive(&mut bench);
        assert_eq!(bench.closed, []);
        bench.sleep_until(bench.now + core::time::Duration::from_mins(1));
    }
    assert_eq!(bench.node.status(bench.now).peers_known, PEERS_PER_NETWORK_MAX, "and of itself only");
    bench.dht_finds((0..900).map(far));
    assert_eq!(bench.node.status(bench.now).peers_known, PEERS_PER_NETWORK_MAX + 900);
    const { assert!(PEERS_PER_NETWORK_MAX + 900 < PEERS_KNOWN_MAX) }
}

// --- bans ---------------------------------------------------------------------------------------------------

fn until(ms: u64) -> [u8; 8] {
    (UNIX.0 + ms).to_be_bytes()
}

#[test]
fn the_record_of_a_ban_is_deleted_when_it_ends_or_at_the_next_start() {
    let mut bench = Bench::new();
    let (over, lasting) = (RecordKey::Ban(far(1)), RecordKey::Ban(far(2)));
    assert!(bench.node.restore(&over, &until(0)) && bench.node.restore(&lasting, &until(5000)));
    assert!(!bench.node.restore(&lasting, b"?"), "what does not parse is left alone");
    bench.drain();
    assert_eq!(bench.deleted, [over]);
    assert_eq!(bench.node.status(bench.now).bans, 1);
    bench.sleep_until(Instant(0) + core::time::Duration::from_millis(4999));
    assert_eq!(bench.deleted.len(), 1);
    bench.sleep_until(Instant(0) + core::time::Duration::from_secs(5));
    assert_eq!((&bench.deleted[1..], bench.node.status(bench.now).bans), (&[lasting][..], 0));
}

#[test]
fn a_clock_that_was_wrong_bans_nobody_for_longer_than_a_new_ban() {
    let mut bench = Bench::new();
    let ban = RecordKey::Ban(far(1));
    assert!(bench.node.restore(&ban, &u64::MAX.to_be_bytes()));
    bench.sleep_until(Instant(0) + BAN_TIME);
    assert_eq!(bench.deleted, std::slice::from_ref(&ban));
    // The clock is set forward while one is in force.
    assert!(bench.node.restore(&ban, &until(9_000_000)));
    bench.node.set_clock(bench.now, UNIX.plus(3 * BAN_TIME));
    bench.drain();
    assert_eq!((bench.deleted.len(), bench.node.status(bench.now).bans), (2, 0));
}

#[test]
fn a_host_that_lied_from_several_ports_is_turned_away_on_all_of_them() {
    let mut bench = Bench::new();
    let accepts = |bench: &mut Bench, from: &str| {
        let conn = bench.node.accept(bench.now, at(from));
        conn.map(|conn| bench.node.disconnected(bench.now, conn)).is_some()
    };
    for (port, is_in) in (1..=BANS_PER_HOST_MAX).map(|port| (port, port < BANS_PER_HOST_MAX)) {
        assert!(bench.node.restore(&RecordKey::Ban(at(&format!("9.9.9.9:{port}"))), &until(60_000)));
        assert!(!accepts(&mut bench, &format!("9.9.9.9:{port}")));
        assert_eq!(accepts(&mut bench, "9.9.9.9:50000"), is_in, "after {port} of them");
    }
    assert!(accepts(&mut bench, "9.9.9.10:50000"));
    bench.sleep_until(Instant(0) + core::time::Duration::from_mins(1));
    assert!(accepts(&mut bench, "9.9.9.9:50000"));
}

#[test]
fn a_connection_with_ourselves_is_ended_before_it_is_news_whichever_end_hears_first() {
    for dialler_first in [true, false] {
        let mut bench = Bench::lacking();
        let own = at("20.0.0.9:6881");
        bench.dht_finds([own.clone()]);
        let (job, addr) = bench.dials.pop().expect("its own announce led back to it");
        assert_eq!(addr, own);
        let dialled = bench.node.dialed(bench.now, job, true).expect("there is room");
        let accepted = bench.node.accept(bench.now, at("20.0.0.9:50000")).expect("there is room");
        let [from_dialled, from_accepted] =
            [dialled, accepted].map(|end| bench.node.send_chunk(bench.now, end).to_vec());
        let (end, key) = if dialler_first { (dialled, from_accepted) } else { (accepted, from_dialled) };
        let space = bench.node.recv_space(end);
        space[..32].copy_from_slice(&key);
        bench.node.received(bench.now, end, 32);
        let mut closed = Vec::new();
        while let Some(action) = bench.node.poll() {
            match action {
                Action::Close(conn, CloseReason::Evicted) => closed.push(conn),
                Action::Event(event) => panic!("news of a connection that is none: {event:?}"),
                _ => {}
            }
        }
        closed.sort_by_key(|conn| *conn != dialled);
        assert_eq!(closed, [dialled, accepted]);
        bench.sleep_until(bench.now + core::time::Duration::from_mins(20));
        assert!(bench.dials.iter().all(|(_, addr)| *addr != own), "it is not dialled again");
    }
}
