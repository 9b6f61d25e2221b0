//! Hosts that are not nodes: they speak the protocol through core's client, and lie.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::client::{Client, Heard};
use megatorrent_core::codec::{Have, Message, Tag, VERSION, Want};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, BlobName, Secret, Topic};
use megatorrent_core::limits::PEERS_MAX;
use megatorrent_core::manifest::{Head, HeadContent};
use megatorrent_core::parts::Mask;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_core::transport::Role;
use megatorrent_core::transport::frame::HEADER_LEN;
use megatorrent_core::uri;

use crate::host::HostId;
use crate::link::Side;
use crate::stranger::{Socket, StrangerEvent};
use crate::world::{LISTEN_PORT, World};

/// How an adversary does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// Answers with the right values and parts of noise, and each request for a whole blob with noise.
    WrongParts,
    /// Answers with the right bytes, of which a bit flips after they were sealed.
    BitFlip,
    /// Sends each sealed frame twice.
    Replay,
    /// Sends what it is asked for, a byte each ten seconds.
    SlowLoris,
    /// Sends noise as soon as the handshake is done.
    Garbage,
    /// Sends PEERS that do not exist, without end.
    PexFlood,
    /// Announces the channel and unknown topics, under more and more ports of its own address and of onion names, with the
    /// most hops.
    AnnounceFlood,
    /// Is many, and has nothing.
    Sybils,
    /// Pushes the first head that it met, over and over, and gives a peer that knows the newest head another one of the same
    /// sequence, properly signed.
    StaleHead,
    /// Says that it has everything, and refuses all that it is asked for.
    FalseHave,
    /// Sends HAVEs over and over, about channels asked for and others.
    HaveFlood,
    /// Says that it has everything, takes every request, and never answers: it withholds parts.
    Silence,
    /// Answers with values of other parts, then with the right parts.
    WrongValues,
    /// Sends parts to a peer that has their values, and never answers one that asks for values too.
    ValuesWithheld,
    /// Sends what it is asked for at 15 kB/s.
    Trickle,
    /// Says that it put a head on the DHT, and does not; knows no head.
    FalseGateway,
}

impl Attack {
    /// The attacks that any swarm meets; a false gateway harms only a node that chooses it.
    pub const ALL: [Self; 15] = [
        Self::WrongParts,
        Self::BitFlip,
        Self::Replay,
        Self::SlowLoris,
        Self::Garbage,
        Self::PexFlood,
        Self::AnnounceFlood,
        Self::Sybils,
        Self::StaleHead,
        Self::FalseHave,
        Self::HaveFlood,
        Self::Silence,
        Self::WrongValues,
        Self::ValuesWithheld,
        Self::Trickle,
    ];

    /// Its name in a timeline.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongParts => "wrong parts",
            Self::BitFlip => "flipped bits",
            Self::Replay => "replayed frames",
            Self::SlowLoris => "a slow loris",
            Self::Garbage => "garbage after the handshake",
            Self::PexFlood => "a PEX flood",
            Self::AnnounceFlood => "an ANNOUNCE flood",
            Self::Sybils => "Sybils",
            Self::StaleHead => "stale and forked heads",
            Self::FalseHave => "a false HAVE",
            Self::HaveFlood => "a HAVE flood",
            Self::Silence => "silence in place of answers",
            Self::WrongValues => "wrong values",
            Self::ValuesWithheld => "values withheld",
            Self::Trickle => "a trickle",
            Self::FalseGateway => "a gateway that stores nothing",
        }
    }

    /// Whether it says that it has every blob, so that it is asked for them.
    pub fn claims_all(self) -> bool {
        match self {
            Self::WrongParts
            | Self::BitFlip
            | Self::Replay
            | Self::SlowLoris
            | Self::FalseHave
            | Self::HaveFlood
            | Self::Silence
            | Self::WrongValues
            | Self::ValuesWithheld
            | Self::Trickle => true,
            Self::Garbage
            | Self::PexFlood
            | Self::AnnounceFlood
            | Self::Sybils
            | Self::StaleHead
            | Self::FalseGateway => false,
        }
    }

    /// How many bytes of what it is asked for it sends at a time, and how often; `None`: as many as its line takes.
    fn pace(self) -> Option<(usize, Duration)> {
        match self {
            Self::SlowLoris => Some((1, Duration::from_secs(10))),
            Self::Trickle => Some((1_500, Duration::from_millis(100))),
            _ => None,
        }
    }
}

/// Addresses that one Sybil attack has.
const SYBILS: u8 = 24;
/// Connections that one adversary keeps open to nodes by its own dials.
const DIALS_MAX: usize = 3;
/// How often an adversary acts on its own.
const TURN: Duration = Duration::from_secs(2);
/// How often the adversaries' addresses are put under the channel's topic.
const INJECT_INTERVAL: Duration = Duration::from_mins(10);
/// Messages that a flood sends each turn on each connection.
const FLOOD_MESSAGES: usize = 40;
/// Bytes of a false bitmap: about as many as a frame holds.
const BITMAP_LEN: usize = 32 * 1024;
/// Positions in a false HAVE.
const POSITIONS: u16 = 256;
/// Unsent bytes beyond which a flood pauses: the world's memory is not under attack.
const UNSENT_MAX: usize = 4 << 20;

/// Onion names for a flood, of the Ed25519 keys with seeds of 32 equal bytes, 1 to 12, with the checksum and the version
/// that Tor's rend-spec-v3 §6 asks for. Each port makes another address of one.
const FALSE_NAMES: [&str; 12] = [
    "rkeohxlubhyzl7ks3mwtzos5olfgocn7dwkbeg7toseadnapn5optfad",
    "qe4xodvipulv6vvdkrtmgtd6ztfy3curwtxdpis56yhvxd6jwokbr4qd",
    "5vesrrri2hbmn2xjam4jawmvmeuvsjz2lrr7snrwyfdbjlehg7iuvmyd",
    "zkj2yfyfdbyhdvt3qpd76dx6qeeor3cfgblv25zgq6jthw62xz6p7dyd",
    "nz5bzxjjwc3y7uj26tcvtd7p6txsvfywny6kn4xe7p6m3acqlpyvihad",
    "rkdv77y6wocfcv32zvnp5zafivswrxl4rhqjbbr2avl3y6xut4l6obqd",
    "5jfgyy7ctrjavpxvkb5rglwf7gkuo5vox27hxescd3vgsfcg2iwfmxqd",
    "compmldndjcxyun2njfv6pn5f5u7zkjscyqy3sezpzawxul5spfd5iad",
    "7ulsioc2uddvwzh3pdgwal5b3gi7327xnmj4ldwxalvmqnpj6yma3rqd",
    "iots44keaf3c35tlndbg3667e2bkv3e7er2ozjdbhzbeud527u6nabyd",
    "m27h4mzmpjctgmv5tufh67nqkx24l3y2a2w2m3mywop3naimi45n2uid",
    "bnitvwnusjablsqjalwqpece2owf3pwcgbxqnfemcdni5nxdt4w3zpyd",
];

/// One connection of an adversary.
struct Session<S: Suite> {
    role: Role,
    client: Client<S>,
    /// The bytes that a slow sender still has to send.
    drip: VecDeque<u8>,
    /// The channel's version of the other end's ASK_HAVE.
    asked_have: Option<(Tag, u64)>,
}

/// An adversary's answer to a request for a part of a blob.
enum Answer {
    Silence,
    Refusal,
    Bytes(Vec<u8>),
}

struct Adversary<S: Suite> {
    attack: Attack,
    addresses: Vec<SocketAddr>,
    sessions: BTreeMap<Socket, Session<S>>,
    next_turn: Instant,
    /// When a slow sender sends more; `None`: it has nothing to send.
    next_drip: Option<Instant>,
    next_inject: Instant,
    ports_told: u16,
    /// The first head that it met.
    head: Option<SignedItem>,
}

/// All adversaries of a world.
pub(crate) struct Adversaries<S: Suite> {
    list: Vec<Adversary<S>>,
    by_address: BTreeMap<SocketAddr, usize>,
    by_socket: BTreeMap<Socket, usize>,
    rng: Rng,
    topic: Topic,
    /// The author's host, which has every blob, for attacks that need a right one.
    author: HostId,
    /// The author's identity, which the adversaries have got to fork heads.
    identity: Identity,
    /// The channel's read key, if it is private.
    read_key: Option<Secret>,
}

impl<S: Suite> Adversaries<S> {
    /// Makes the adversaries of the channel that `author` publishes as `identity`.
    pub(crate) fn new(rng: Rng, author: HostId, identity: Identity, read_key: Option<Secret>) -> Self {
        let (by_address, by_socket) = (BTreeMap::new(), BTreeMap::new());
        let topic = uri::topic(&identity.public_key(), read_key.as_ref());
        Self { list: Vec::new(), by_address, by_socket, rng, topic, author, identity, read_key }
    }

    /// Adds an adversary; returns the first address on which it listens.
    pub(crate) fn add(&mut self, world: &mut World<S>, attack: Attack) -> SocketAddr {
        let index = self.list.len();
        let [high, low] = u16::try_from(index).expect("adversaries are few").to_be_bytes();
        let count = if attack == Attack::Sybils { SYBILS } else { 1 };
        // Public addresses, each adversary's in its own networks; Sybils have rented three.
        let address = |n| {
            let network = 100 + 3 * (high & 7) + n % 3;
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(network, low, 0, 1 + n)), LISTEN_PORT)
        };
        let addresses: Vec<_> = (0..count).map(address).collect();
        for address in &addresses {
            world.raw_listen(*address);
            self.by_address.insert(*address, index);
        }
        let (now, first) = (world.now(), addresses[0]);
        self.list.push(Adversary {
            attack,
            addresses,
            sessions: BTreeMap::new(),
            next_turn: now,
            next_drip: None,
            next_inject: now,
            ports_told: 0,
            head: world.dht().newest(now, &self.identity.public_key()).cloned(),
        });
        first
    }

    /// Returns when one of them acts next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let next = |adversary: &Adversary<S>| {
            adversary.next_drip.map_or(adversary.next_turn, |drip| drip.min(adversary.next_turn))
        };
        self.list.iter().map(next).min()
    }

    /// Lets the adversaries act whose time has come; they dial any of `victims`.
    pub(crate) fn wake(&mut self, world: &mut World<S>, victims: &[HostId]) {
        let now = world.now();
        for index in 0..self.list.len() {
            if self.list[index].next_turn <= now {
                self.turn(world, index, victims);
            }
            if self.list[index].next_drip.is_some_and(|at| at <= now) {
                self.drip(world, index);
            }
        }
    }

    pub(crate) fn handle(&mut self, world: &mut World<S>, side: Side, event: StrangerEvent) {
        let socket = Socket { link: event.link(), side };
        match event {
            StrangerEvent::Opened(_) => self.open(world, socket, Role::Dialler),
            StrangerEvent::Accepted(_, at) => {
                if let Some(&index) = self.by_address.get(&at) {
                    self.by_socket.insert(socket, index);
                    self.open(world, socket, Role::Listener);
                }
            }
            StrangerEvent::Readable(_) => self.read(world, socket),
            StrangerEvent::Closed(_) => {
                if let Some(index) = self.by_socket.remove(&socket) {
                    self.list[index].sessions.remove(&socket);
                }
                world.socket_close(socket);
            }
        }
    }

    fn turn(&mut self, world: &mut World<S>, index: usize, victims: &[HostId]) {
        let adversary = &mut self.list[index];
        adversary.next_turn = world.now() + TURN;
        if adversary.next_inject <= world.now() {
            adversary.next_inject = world.now() + INJECT_INTERVAL;
            for address in adversary.addresses.clone() {
                let now = world.now();
                world.dht_mut().inject_peer(now, self.topic.info_hash(), address);
            }
        }
        let adversary = &mut self.list[index];
        let dialled = adversary.sessions.values().filter(|session| session.role == Role::Dialler).count();
        if dialled < DIALS_MAX && !victims.is_empty() {
            let victim = victims[pick(&mut self.rng, victims.len())];
            let from = SocketAddr::new(adversary.addresses[0].ip(), 50_000);
            let socket = Socket { link: world.raw_dial(from, victim), side: Side::Dialer };
            self.by_socket.insert(socket, index);
        }
        let sockets: Vec<Socket> = self.list[index].sessions.keys().copied().collect();
        for socket in sockets {
            if world.socket_unsent(socket) < UNSENT_MAX {
                self.flood(world, index, socket);
            }
        }
    }

    /// Lets a slow sender send what is due on each connection.
    fn drip(&mut self, world: &mut World<S>, index: usize) {
        let adversary = &mut self.list[index];
        let Some((len, interval)) = adversary.attack.pace() else { return };
        for (socket, session) in &mut adversary.sessions {
            let due: Vec<u8> = session.drip.drain(..len.min(session.drip.len())).collect();
            world.socket_send(*socket, &due);
        }
        let is_left = adversary.sessions.values().any(|session| !session.drip.is_empty());
        adversary.next_drip = is_left.then_some(world.now() + interval);
    }

    fn open(&mut self, world: &mut World<S>, socket: Socket, role: Role) {
        let Some(&index) = self.by_socket.get(&socket) else { return };
        let mut client = Client::new(role, &mut self.rng);
        world.socket_send(socket, &client.take_output());
        let session = Session { role, client, drip: VecDeque::new(), asked_have: None };
        self.list[index].sessions.insert(socket, session);
    }

    fn read(&mut self, world: &mut World<S>, socket: Socket) {
        let bytes = world.socket_read(socket);
        let Some(&index) = self.by_socket.get(&socket) else { return };
        if let Some(session) = self.list[index].sessions.get_mut(&socket) {
            session.client.feed(&bytes);
        }
        while let Some(session) = self.list[index].sessions.get_mut(&socket) {
            match session.client.hear() {
                Ok(Some(Heard::Open)) => self.keyed(world, index, socket),
                Ok(Some(Heard::Message(message))) => self.on_message(world, index, socket, message),
                // It ignores messages that it cannot read.
                Ok(Some(Heard::Malformed(_))) => {}
                Ok(None) => return,
                Err(_) => return world.socket_close(socket),
            }
        }
    }

    fn on_message(&mut self, world: &mut World<S>, index: usize, socket: Socket, message: Message) {
        let attack = self.list[index].attack;
        let role = self.list[index].sessions.get(&socket).map(|session| session.role);
        match message {
            Message::Hello { .. } if role == Some(Role::Listener) => self.say_hello(world, index, socket),
            // It claims to follow all channels that the node follows.
            Message::Watch(tags) => self.send(world, index, socket, &Message::Watch(tags)),
            Message::Request(id) => self.on_request(world, index, socket, id.into()),
            Message::Want(want) => self.on_want(world, index, socket, &want),
            Message::AskHave(tag, sequence) => self.on_ask_have(world, index, socket, tag, sequence),
            Message::FindPeers(_) if attack != Attack::Silence => {
                let peers = self.false_peers(index);
                self.send(world, index, socket, &Message::Peers(peers));
            }
            Message::Publish(_) if attack == Attack::FalseGateway => {
                self.send(world, index, socket, &Message::Ok("Stored at 8 nodes".into()));
            }
            Message::GetHead { tag, known, .. } => self.on_get_head(world, index, socket, tag, known),
            _ => {}
        }
    }

    fn keyed(&mut self, world: &mut World<S>, index: usize, socket: Socket) {
        if self.list[index].attack == Attack::Garbage {
            let mut noise = vec![0; 4096];
            self.rng.fill(&mut noise);
            // A legal length, so that the noise is read as a frame.
            noise[..4].copy_from_slice(&2048_u32.to_be_bytes());
            world.socket_send(socket, &noise);
        } else if self.list[index].sessions.get(&socket).is_some_and(|session| session.role == Role::Dialler)
        {
            self.say_hello(world, index, socket);
        }
    }

    fn say_hello(&mut self, world: &mut World<S>, index: usize, socket: Socket) {
        self.send(
            world,
            index,
            socket,
            &Message::Hello { version: Some(VERSION), sequences: BTreeMap::new(), port: None, features: 0 },
        );
    }

    fn on_request(&mut self, world: &mut World<S>, index: usize, socket: Socket, id: BlobName) {
        match self.answer(world, index, &id, 0..S::BLOB_LEN) {
            Answer::Silence => {}
            Answer::Refusal => self.send(world, index, socket, &Message::Error("Not Found".into())),
            Answer::Bytes(bytes) => self.send_content(world, index, socket, &Message::Data(bytes)),
        }
    }

    fn on_want(&mut self, world: &mut World<S>, index: usize, socket: Socket, want: &Want) {
        let (name, number) = (BlobName::Native(want.root), want.number);
        let attack = self.list[index].attack;
        if want.values && attack == Attack::ValuesWithheld {
            return;
        }
        let mut whole = world.store(self.author).blob(&name).filter(|_| want.values);
        if let Some(blob) = whole.as_mut().filter(|_| attack == Attack::WrongValues) {
            blob[0] ^= 1;
        }
        let mut values = whole.map(|blob| S::values_of(&blob));
        for part in want.mask.iter() {
            let start = part * S::PART_LEN;
            let bytes = match self.answer(world, index, &name, start..start + S::PART_LEN) {
                Answer::Silence => return,
                Answer::Refusal => {
                    let refusal = Message::Piece { number, part: 0, half: 0, bytes: Vec::new() };
                    return self.send(world, index, socket, &refusal);
                }
                Answer::Bytes(bytes) => bytes,
            };
            if let Some(values) = values.take() {
                self.send(world, index, socket, &Message::Parts { number, values: Box::new(values) });
            }
            let part = u8::try_from(part).expect("a blob has sixteen parts");
            for (half, bytes) in (0..).zip(bytes.chunks(S::PART_LEN.div_ceil(2))) {
                let piece = Message::Piece { number, part, half, bytes: bytes.to_vec() };
                self.send_content(world, index, socket, &piece);
            }
        }
    }

    /// Returns its answer to a request for a part of a blob.
    fn answer(&mut self, world: &World<S>, index: usize, blob: &BlobName, range: Range<usize>) -> Answer {
        match self.list[index].attack {
            Attack::WrongParts => Answer::Bytes(self.noise(range.len())),
            Attack::BitFlip
            | Attack::Replay
            | Attack::SlowLoris
            | Attack::WrongValues
            | Attack::ValuesWithheld
            | Attack::Trickle => {
                world.store(self.author).range(blob, range).map_or(Answer::Silence, Answer::Bytes)
            }
            Attack::Garbage | Attack::Silence => Answer::Silence,
            Attack::PexFlood
            | Attack::AnnounceFlood
            | Attack::Sybils
            | Attack::StaleHead
            | Attack::FalseHave
            | Attack::HaveFlood
            | Attack::FalseGateway => Answer::Refusal,
        }
    }

    fn on_get_head(&mut self, world: &mut World<S>, index: usize, socket: Socket, tag: Tag, known: u64) {
        let head = match self.list[index].attack {
            Attack::FalseGateway => None,
            Attack::StaleHead => {
                let newest = world.dht().newest(world.now(), &self.identity.public_key());
                let newest = newest.map(|item| item.seq).filter(|seq| seq.unsigned_abs() == known);
                // A peer that knows less might take it for the right one.
                let forked = newest.and_then(|seq| self.fork(seq));
                forked.or_else(|| self.list[index].head.clone())
            }
            _ => return,
        };
        self.send(world, index, socket, &Message::Head(tag, head));
    }

    /// Signs another head of a sequence, with nothing in it.
    pub(crate) fn fork(&self, seq: i64) -> Option<SignedItem> {
        let (sequence, nothing) = (seq.unsigned_abs(), HeadContent::Inline(Vec::new()));
        let seal = self.read_key.as_ref().map(|key| (key, [1; 12]));
        let text = Head::to_json(&self.identity, sequence, sequence, &nothing, seal);
        SignedItem::sign(&self.identity, seq, text.into_bytes())
    }

    fn on_ask_have(&mut self, world: &mut World<S>, index: usize, socket: Socket, tag: Tag, sequence: u64) {
        if let Some(session) = self.list[index].sessions.get_mut(&socket) {
            session.asked_have = Some((tag, sequence));
        }
        if self.list[index].attack.claims_all() {
            self.send(world, index, socket, &Message::Have(tag, sequence, all()));
        }
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut noise = vec![0; len];
        self.rng.fill(&mut noise);
        noise
    }

    /// Pushes an unsolicited head.
    fn push_head(&mut self, world: &mut World<S>, index: usize, socket: Socket) {
        let adversary = &self.list[index];
        let tag = adversary.sessions.get(&socket).and_then(|session| session.client.tag(&self.topic));
        if let (Some(tag), Some(head)) = (tag, adversary.head.clone()) {
            self.send(world, index, socket, &Message::Head(tag, Some(head)));
        }
    }

    /// Sends a turn's messages of a flood.
    fn flood(&mut self, world: &mut World<S>, index: usize, socket: Socket) {
        for _ in 0..FLOOD_MESSAGES {
            match self.list[index].attack {
                Attack::PexFlood => {
                    let peers = self.false_peers(index);
                    self.send(world, index, socket, &Message::Peers(peers));
                }
                Attack::AnnounceFlood => {
                    let announce = self.false_announce(index);
                    self.send(world, index, socket, &announce);
                }
                Attack::HaveFlood => {
                    let session = self.list[index].sessions.get(&socket);
                    let asked = session.and_then(|session| session.asked_have);
                    let have = have_noise(asked, &mut self.rng);
                    self.send(world, index, socket, &have);
                }
                Attack::StaleHead => return self.push_head(world, index, socket),
                _ => return,
            }
        }
    }

    /// Makes an announce, mostly of a name, as names are passed on, and of the channel or an unknown topic.
    fn false_announce(&mut self, index: usize) -> Message {
        let adversary = &mut self.list[index];
        adversary.ports_told = adversary.ports_told.wrapping_add(1).max(1);
        let port = adversary.ports_told;
        let address = if self.rng.below(4) == 0 {
            SocketAddr::new(adversary.addresses[0].ip(), port).into()
        } else {
            let name = FALSE_NAMES[pick(&mut self.rng, FALSE_NAMES.len())];
            format!("{name}.onion:{port}").parse().expect("the names are verified")
        };
        let id = if self.rng.below(2) == 0 { self.topic.0 } else { self.rng.bytes_32() };
        let hops = u8::try_from(self.rng.below(256)).expect("below 256");
        Message::Announce(BlobId(id), address, hops)
    }

    /// Sybils name each other; others name dead addresses.
    fn false_peers(&mut self, index: usize) -> Vec<PeerAddr> {
        let adversary = &self.list[index];
        if adversary.attack == Attack::Sybils {
            return adversary.addresses.iter().map(|address| (*address).into()).collect();
        }
        let [_, b, c, d, ..] = self.rng.bytes_32();
        let nowhere = |n: u8| {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(130 + b % 30, c.wrapping_add(n), d, 1)), LISTEN_PORT)
        };
        (0..u8::try_from(PEERS_MAX).unwrap_or(u8::MAX)).map(|n| nowhere(n).into()).collect()
    }

    fn send(&mut self, world: &mut World<S>, index: usize, socket: Socket, message: &Message) {
        let frame = self.frame(index, socket, message);
        let session = self.list[index].sessions.get_mut(&socket);
        if let Some(session) = session.filter(|session| !session.drip.is_empty()) {
            // Frames keep their order.
            return session.drip.extend(frame);
        }
        world.socket_send(socket, &frame);
        if self.list[index].attack == Attack::Replay {
            world.socket_send(socket, &frame);
        }
    }

    /// Like [`Self::send`], for a message with content, which some attacks send differently.
    fn send_content(&mut self, world: &mut World<S>, index: usize, socket: Socket, message: &Message) {
        let attack = self.list[index].attack;
        if let Some((_, interval)) = attack.pace() {
            let frame = self.frame(index, socket, message);
            if let Some(session) = self.list[index].sessions.get_mut(&socket) {
                session.drip.extend(frame);
                self.list[index].next_drip.get_or_insert(world.now() + interval);
            }
        } else if attack == Attack::BitFlip {
            let mut frame = self.frame(index, socket, message);
            if frame.len() > HEADER_LEN {
                let at = HEADER_LEN + pick(&mut self.rng, frame.len() - HEADER_LEN);
                frame[at] ^= 1 << self.rng.below(8);
            }
            world.socket_send(socket, &frame);
        } else {
            self.send(world, index, socket, message);
        }
    }

    /// A sealed frame; empty where the connection has no keys.
    fn frame(&mut self, index: usize, socket: Socket, message: &Message) -> Vec<u8> {
        let session = self.list[index].sessions.get_mut(&socket).filter(|session| session.client.is_open());
        session.map_or_else(Vec::new, |session| {
            session.client.send(message);
            session.client.take_output()
        })
    }
}

/// Makes an unsolicited false HAVE, of the channel's version that was asked about or of an unknown one.
fn have_noise(asked: Option<(Tag, u64)>, rng: &mut Rng) -> Message {
    let unknown = rng.bytes_32();
    let unknown = Tag(*unknown.first_chunk().expect("32 bytes are more than 16"));
    let (tag, sequence) = asked.filter(|_| rng.below(4) > 0).unwrap_or((unknown, 1));
    let have = match rng.below(3) {
        0 => {
            let mut bitmap = vec![0; BITMAP_LEN];
            rng.fill(&mut bitmap);
            Have { bitmap, ..Have::default() }
        }
        1 => {
            let mut position = || {
                let [a, b, c, d, ..] = rng.bytes_32();
                u32::from_be_bytes([a, b, c, d])
            };
            let positions = (0..POSITIONS).map(|_| position()).collect();
            let under_way = (0..POSITIONS).map(|n| (position(), Mask(n))).collect();
            Have { positions, under_way, ..Have::default() }
        }
        _ => all(),
    };
    Message::Have(tag, sequence, have)
}

/// It has everything.
fn all() -> Have {
    Have { all: true, ..Have::default() }
}

fn pick(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).expect("below a length")
}

#[cfg(test)]
mod tests;
