//! Hosts that are not nodes: they speak the wire through core's transport, frames and messages, and lie.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::blob::BLOB_LEN;
use megatorrent_core::codec::{Message, VERSION, kind};
use megatorrent_core::frame::{Frame, FrameReader, TAG_LEN, seal};
use megatorrent_core::ids::{BlobId, InfoHash};
use megatorrent_core::limits::PEERS_MAX;
use megatorrent_core::rng::Rng;
use megatorrent_core::time::Instant;
use megatorrent_core::transport::{Handshake, KEY_LEN, Opener, Role, Sealer};

use crate::host::HostId;
use crate::link::LinkId;
use crate::stranger::StrangerEvent;
use crate::world::{LISTEN_PORT, World};

/// How an adversary does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// Answers each request with a blob of noise.
    WrongBlob,
    /// Answers with the right blob, in which a bit flips after it was sealed.
    BitFlip,
    /// Sends each sealed frame twice.
    Replay,
    /// Answers with a byte now and then.
    SlowLoris,
    /// Sends noise as soon as the handshake is done.
    Garbage,
    /// Tells of peers that do not exist, without end.
    PexFlood,
    /// Announces blobs under more and more ports of its own address.
    AnnounceFlood,
    /// Is many, and has nothing.
    Sybils,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WrongBlob,
        Self::BitFlip,
        Self::Replay,
        Self::SlowLoris,
        Self::Garbage,
        Self::PexFlood,
        Self::AnnounceFlood,
        Self::Sybils,
    ];

    /// What it is called in a timeline.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongBlob => "wrong blobs",
            Self::BitFlip => "flipped bits",
            Self::Replay => "replayed frames",
            Self::SlowLoris => "a slow loris",
            Self::Garbage => "garbage after the handshake",
            Self::PexFlood => "a PEX flood",
            Self::AnnounceFlood => "an ANNOUNCE flood",
            Self::Sybils => "Sybils",
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
/// Bytes that wait to be sent, beyond which a flood pauses: the world's memory is not what is under attack.
const UNSENT_MAX: usize = 4 << 20;

/// One connection of an adversary.
struct Session {
    role: Role,
    handshake: Option<Handshake>,
    keys: Option<(Sealer, Opener)>,
    key: Vec<u8>,
    reader: FrameReader,
    /// What a slow loris has still to send.
    drip: VecDeque<u8>,
}

struct Adversary {
    attack: Attack,
    addresses: Vec<SocketAddr>,
    sessions: BTreeMap<LinkId, Session>,
    next_turn: Instant,
    next_inject: Instant,
    ports_told: u16,
}

/// All adversaries of a world.
pub(crate) struct Adversaries {
    list: Vec<Adversary>,
    by_address: BTreeMap<SocketAddr, usize>,
    by_link: BTreeMap<LinkId, usize>,
    rng: Rng,
    topic: InfoHash,
    /// Has every blob, for those who need a right one.
    author: HostId,
}

impl Adversaries {
    pub(crate) fn new(rng: Rng, topic: InfoHash, author: HostId) -> Self {
        let (by_address, by_link) = (BTreeMap::new(), BTreeMap::new());
        Self { list: Vec::new(), by_address, by_link, rng, topic, author }
    }

    pub(crate) fn add(&mut self, world: &mut World, attack: Attack) {
        let index = self.list.len();
        let [high, low] = u16::try_from(index).expect("adversaries are few").to_be_bytes();
        let count = if attack == Attack::Sybils { SYBILS } else { 1 };
        // Public addresses, each adversary's in networks of its own; Sybils have rented three.
        let address = |n| {
            let network = 100 + 3 * (high & 7) + n % 3;
            SocketAddr::new(IpAddr::V4(Ipv4Addr::new(network, low, 0, 1 + n)), LISTEN_PORT)
        };
        let addresses: Vec<_> = (0..count).map(address).collect();
        for address in &addresses {
            world.raw_listen(*address);
            self.by_address.insert(*address, index);
        }
        let now = world.now();
        self.list.push(Adversary {
            attack,
            addresses,
            sessions: BTreeMap::new(),
            next_turn: now,
            next_inject: now,
            ports_told: 0,
        });
    }

    /// When one of them acts next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.list.iter().map(|adversary| adversary.next_turn).min()
    }

    /// Lets those act whose time has come; they dial any of `victims`.
    pub(crate) fn wake(&mut self, world: &mut World, victims: &[HostId]) {
        let now = world.now();
        for index in 0..self.list.len() {
            if self.list[index].next_turn <= now {
                self.turn(world, index, victims);
            }
        }
    }

    pub(crate) fn handle(&mut self, world: &mut World, event: StrangerEvent) {
        match event {
            StrangerEvent::Opened(link) => self.open(world, link, Role::Dialler),
            StrangerEvent::Accepted(link, at) => {
                if let Some(&index) = self.by_address.get(&at) {
                    self.by_link.insert(link, index);
                    self.open(world, link, Role::Listener);
                }
            }
            StrangerEvent::Readable(link) => self.read(world, link),
            StrangerEvent::Closed(link) => {
                if let Some(index) = self.by_link.remove(&link) {
                    self.list[index].sessions.remove(&link);
                }
                world.raw_close(link);
            }
        }
    }

    fn turn(&mut self, world: &mut World, index: usize, victims: &[HostId]) {
        let adversary = &mut self.list[index];
        adversary.next_turn = world.now() + TURN;
        if adversary.next_inject <= world.now() {
            adversary.next_inject = world.now() + INJECT_INTERVAL;
            for address in adversary.addresses.clone() {
                let now = world.now();
                world.dht_mut().inject_peer(now, self.topic, address);
            }
        }
        let adversary = &mut self.list[index];
        let dialled = adversary.sessions.values().filter(|session| session.role == Role::Dialler).count();
        if dialled < DIALS_MAX && !victims.is_empty() {
            let victim = victims[pick(&mut self.rng, victims.len())];
            let from = SocketAddr::new(adversary.addresses[0].ip(), 50_000);
            let link = world.raw_dial(from, victim);
            self.by_link.insert(link, index);
        }
        for (link, session) in &mut self.list[index].sessions {
            if let Some(byte) = session.drip.pop_front() {
                world.raw_send(*link, &[byte]);
            }
        }
        let links: Vec<LinkId> = self.list[index].sessions.keys().copied().collect();
        for link in links {
            if world.raw_unsent(link) < UNSENT_MAX {
                self.flood(world, index, link);
            }
        }
    }

    fn open(&mut self, world: &mut World, link: LinkId, role: Role) {
        let Some(&index) = self.by_link.get(&link) else { return };
        let handshake = Handshake::new(role, &mut self.rng);
        world.raw_send(link, &handshake.public_key());
        let session = Session {
            role,
            handshake: Some(handshake),
            keys: None,
            key: Vec::new(),
            reader: FrameReader::default(),
            drip: VecDeque::new(),
        };
        self.list[index].sessions.insert(link, session);
    }

    fn read(&mut self, world: &mut World, link: LinkId) {
        let bytes = world.raw_read(link);
        let Some(&index) = self.by_link.get(&link) else { return };
        let Some(session) = self.list[index].sessions.get_mut(&link) else { return };
        let missing = KEY_LEN - session.key.len();
        let (key, mut rest) = bytes.split_at(missing.min(bytes.len()));
        session.key.extend(key);
        if let (Ok(key), Some(handshake)) =
            (session.key.as_slice().try_into(), session.handshake.take_if(|_| session.key.len() == KEY_LEN))
        {
            session.keys = handshake.finish(key).ok().map(|keys| (keys.sealer, keys.opener));
            self.keyed(world, index, link);
        }
        while !rest.is_empty() {
            let Some(session) = self.list[index].sessions.get_mut(&link) else { return };
            let space = session.reader.space(&mut []);
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            match session.reader.filled(n, 0) {
                Ok(Some(Frame::Small(frame))) => self.on_frame(world, index, link, frame),
                Ok(_) => {}
                Err(_) => return world.raw_close(link),
            }
        }
    }

    fn on_frame(&mut self, world: &mut World, index: usize, link: LinkId, mut frame: Vec<u8>) {
        let Some(session) = self.list[index].sessions.get_mut(&link) else { return };
        let Some((_, opener)) = &mut session.keys else { return };
        let Ok(plaintext) = opener.open(&mut frame) else { return };
        match Message::decode(plaintext) {
            Ok(Message::Hello { .. }) if session.role == Role::Listener => self.say_hello(world, index, link),
            Ok(Message::Request(id)) => self.on_request(world, index, link, id),
            Ok(Message::FindPeers(_)) => {
                let peers = self.false_peers(index);
                self.send(world, index, link, &Message::Peers(peers));
            }
            _ => {}
        }
    }

    fn keyed(&mut self, world: &mut World, index: usize, link: LinkId) {
        if self.list[index].attack == Attack::Garbage {
            let mut noise = vec![0; 4096];
            self.rng.fill(&mut noise);
            // A length that passes, so that the noise is read as a frame.
            noise[..4].copy_from_slice(&2048_u32.to_be_bytes());
            world.raw_send(link, &noise);
        } else if self.list[index].sessions.get(&link).is_some_and(|session| session.role == Role::Dialler) {
            self.say_hello(world, index, link);
        }
    }

    fn say_hello(&mut self, world: &mut World, index: usize, link: LinkId) {
        self.send(
            world,
            index,
            link,
            &Message::Hello { version: Some(VERSION), sequences: BTreeMap::new(), port: None },
        );
    }

    fn on_request(&mut self, world: &mut World, index: usize, link: LinkId, id: BlobId) {
        let right = |world: &World| world.store(self.author).blob(&id).map(<[u8]>::to_vec);
        match self.list[index].attack {
            Attack::WrongBlob => {
                let noise = self.noise();
                let frame = self.data_frame(index, link, &noise);
                world.raw_send(link, &frame);
            }
            Attack::SlowLoris => {
                let noise = self.noise();
                let frame = self.data_frame(index, link, &noise);
                if let Some(session) = self.list[index].sessions.get_mut(&link) {
                    session.drip.extend(&frame);
                }
            }
            Attack::BitFlip => {
                let Some(blob) = right(world) else { return };
                let mut frame = self.data_frame(index, link, &blob);
                let at = pick(&mut self.rng, BLOB_LEN);
                if let Some(byte) = frame.get_mut(8 + at) {
                    *byte ^= 1 << self.rng.below(8);
                }
                world.raw_send(link, &frame);
            }
            Attack::Replay => {
                let Some(blob) = right(world) else { return };
                let frame = self.data_frame(index, link, &blob);
                world.raw_send(link, &frame);
                world.raw_send(link, &frame);
            }
            Attack::Garbage => {}
            Attack::PexFlood | Attack::AnnounceFlood | Attack::Sybils => {
                self.send(world, index, link, &Message::Error("Not Found".into()));
            }
        }
    }

    fn noise(&mut self) -> Vec<u8> {
        let mut noise = vec![0; BLOB_LEN];
        self.rng.fill(&mut noise);
        noise
    }

    /// What a flood sends in its turn.
    fn flood(&mut self, world: &mut World, index: usize, link: LinkId) {
        for _ in 0..FLOOD_MESSAGES {
            match self.list[index].attack {
                Attack::PexFlood => {
                    let peers = self.false_peers(index);
                    self.send(world, index, link, &Message::Peers(peers));
                }
                Attack::AnnounceFlood => {
                    let adversary = &mut self.list[index];
                    adversary.ports_told = adversary.ports_told.wrapping_add(1).max(1);
                    let address = SocketAddr::new(adversary.addresses[0].ip(), adversary.ports_told);
                    let id = BlobId(self.rng.bytes_32());
                    self.send(world, index, link, &Message::Announce(id, address.into(), 0));
                }
                _ => return,
            }
        }
    }

    /// Sybils name each other; others name addresses where nothing is.
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

    fn send(&mut self, world: &mut World, index: usize, link: LinkId, message: &Message) {
        let adversary = &mut self.list[index];
        let Some((sealer, _)) = adversary.sessions.get_mut(&link).and_then(|session| session.keys.as_mut())
        else {
            return;
        };
        let (kind, payload) = message.encode();
        let frame = seal(sealer, kind, &payload);
        world.raw_send(link, &frame);
        if adversary.attack == Attack::Replay {
            world.raw_send(link, &frame);
        }
    }

    /// A sealed DATA frame; empty where the connection has no keys.
    fn data_frame(&mut self, index: usize, link: LinkId, blob: &[u8]) -> Vec<u8> {
        let session = self.list[index].sessions.get_mut(&link);
        let Some((sealer, _)) = session.and_then(|session| session.keys.as_mut()) else { return Vec::new() };
        let len = u32::try_from(1 + blob.len() + TAG_LEN).expect("a blob is about a mebibyte");
        let mut frame = [&len.to_be_bytes()[..], &[kind::DATA], blob].concat();
        let tag = sealer.seal(&mut frame[4..]);
        frame.extend(tag);
        frame
    }
}

fn pick(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).expect("below a length")
}
