//! Hosts that are not nodes: they speak the wire through core's transport, frames and messages, and lie.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::{Message, VERSION};
use megatorrent_core::frame::{HEADER_LEN, seal};
use megatorrent_core::ids::{BlobId, InfoHash};
use megatorrent_core::limits::PEERS_MAX;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_core::transport::Role;

use crate::host::HostId;
use crate::link::Side;
use crate::ranges::{self, Want};
use crate::stranger::{Socket, StrangerEvent};
use crate::wire::{Incoming, Wire, data_frame};
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
    /// Says that it has everything, and refuses whatever is asked.
    FalseHave,
    /// Tells over and over what it has, of channels asked for and of others.
    HaveFlood,
    /// Says that it has everything, takes what is asked, and never answers.
    Silence,
    /// Says that it put a head on the DHT, and does not; knows no head.
    FalseGateway,
}

impl Attack {
    /// All that any swarm meets; a false gateway harms only who chooses it.
    pub const ALL: [Self; 11] = [
        Self::WrongBlob,
        Self::BitFlip,
        Self::Replay,
        Self::SlowLoris,
        Self::Garbage,
        Self::PexFlood,
        Self::AnnounceFlood,
        Self::Sybils,
        Self::FalseHave,
        Self::HaveFlood,
        Self::Silence,
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
            Self::FalseHave => "a false HAVE",
            Self::HaveFlood => "a HAVE flood",
            Self::Silence => "silence in place of answers",
            Self::FalseGateway => "a gateway that stores nothing",
        }
    }

    /// Whether it says that it has every blob, so that it is asked for them.
    fn claims_all(self) -> bool {
        match self {
            Self::WrongBlob
            | Self::BitFlip
            | Self::Replay
            | Self::SlowLoris
            | Self::FalseHave
            | Self::HaveFlood
            | Self::Silence => true,
            Self::Garbage | Self::PexFlood | Self::AnnounceFlood | Self::Sybils | Self::FalseGateway => false,
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
struct Session<S: Suite> {
    role: Role,
    wire: Wire<S>,
    /// What a slow loris has still to send.
    drip: VecDeque<u8>,
    /// What the other end asked to be told of: a channel's version, as it stands in ASK_HAVE.
    asked_have: Option<Vec<u8>>,
}

struct Adversary<S: Suite> {
    attack: Attack,
    addresses: Vec<SocketAddr>,
    sessions: BTreeMap<Socket, Session<S>>,
    next_turn: Instant,
    next_inject: Instant,
    ports_told: u16,
}

/// All adversaries of a world.
pub(crate) struct Adversaries<S: Suite> {
    list: Vec<Adversary<S>>,
    by_address: BTreeMap<SocketAddr, usize>,
    by_socket: BTreeMap<Socket, usize>,
    rng: Rng,
    topic: InfoHash,
    /// Has every blob, for those who need a right one.
    author: HostId,
}

impl<S: Suite> Adversaries<S> {
    pub(crate) fn new(rng: Rng, topic: InfoHash, author: HostId) -> Self {
        let (by_address, by_socket) = (BTreeMap::new(), BTreeMap::new());
        Self { list: Vec::new(), by_address, by_socket, rng, topic, author }
    }

    /// Lets one come; where it listens, in the first place.
    pub(crate) fn add(&mut self, world: &mut World<S>, attack: Attack) -> SocketAddr {
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
        let (now, first) = (world.now(), addresses[0]);
        self.list.push(Adversary {
            attack,
            addresses,
            sessions: BTreeMap::new(),
            next_turn: now,
            next_inject: now,
            ports_told: 0,
        });
        first
    }

    /// When one of them acts next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.list.iter().map(|adversary| adversary.next_turn).min()
    }

    /// Lets those act whose time has come; they dial any of `victims`.
    pub(crate) fn wake(&mut self, world: &mut World<S>, victims: &[HostId]) {
        let now = world.now();
        for index in 0..self.list.len() {
            if self.list[index].next_turn <= now {
                self.turn(world, index, victims);
            }
        }
    }

    pub(crate) fn handle(&mut self, world: &mut World<S>, side: Side, event: StrangerEvent) {
        let (StrangerEvent::Opened(link)
        | StrangerEvent::Accepted(link, _)
        | StrangerEvent::Readable(link)
        | StrangerEvent::Closed(link)) = event;
        let socket = Socket { link, side };
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
                world.dht_mut().inject_peer(now, self.topic, address);
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
        for (socket, session) in &mut self.list[index].sessions {
            if let Some(byte) = session.drip.pop_front() {
                world.socket_send(*socket, &[byte]);
            }
        }
        let sockets: Vec<Socket> = self.list[index].sessions.keys().copied().collect();
        for socket in sockets {
            if world.socket_unsent(socket) < UNSENT_MAX {
                self.flood(world, index, socket);
            }
        }
    }

    fn open(&mut self, world: &mut World<S>, socket: Socket, role: Role) {
        let Some(&index) = self.by_socket.get(&socket) else { return };
        let (wire, key) = Wire::new(role, &mut self.rng);
        world.socket_send(socket, &key);
        let session = Session { role, wire, drip: VecDeque::new(), asked_have: None };
        self.list[index].sessions.insert(socket, session);
    }

    fn read(&mut self, world: &mut World<S>, socket: Socket) {
        let bytes = world.socket_read(socket);
        let Some(&index) = self.by_socket.get(&socket) else { return };
        let mut rest = &bytes[..];
        while let Some(session) = self.list[index].sessions.get_mut(&socket) {
            match session.wire.read(&mut rest) {
                Ok(Some(Incoming::Keyed)) => self.keyed(world, index, socket),
                Ok(Some(Incoming::Plaintext(plaintext))) => {
                    self.on_plaintext(world, index, socket, &plaintext);
                }
                // What it cannot read does not trouble it.
                Ok(None) => return,
                Err(_) => return world.socket_close(socket),
            }
        }
    }

    fn on_plaintext(&mut self, world: &mut World<S>, index: usize, socket: Socket, plaintext: &[u8]) {
        match plaintext.split_first() {
            Some((&ranges::ASK_HAVE, asked)) => return self.on_ask_have(world, index, socket, asked),
            Some((&ranges::WANT, payload)) => {
                let Some(want) = Want::parse(payload) else { return };
                return self.on_want(world, index, socket, &want);
            }
            _ => {}
        }
        let attack = self.list[index].attack;
        let role = self.list[index].sessions.get(&socket).map(|session| session.role);
        match Message::decode(plaintext) {
            Ok(Message::Hello { .. }) if role == Some(Role::Listener) => self.say_hello(world, index, socket),
            // It follows whatever the node follows, or says so.
            Ok(Message::Watch(tags)) => self.send(world, index, socket, &Message::Watch(tags)),
            Ok(Message::Request(id)) => self.on_request(world, index, socket, id),
            Ok(Message::FindPeers(_)) if attack != Attack::Silence => {
                let peers = self.false_peers(index);
                self.send(world, index, socket, &Message::Peers(peers));
            }
            Ok(Message::Publish(_)) if attack == Attack::FalseGateway => {
                self.send(world, index, socket, &Message::Ok("Stored at 8 nodes".into()));
            }
            Ok(Message::GetHead { tag, .. }) if attack == Attack::FalseGateway => {
                self.send(world, index, socket, &Message::Head(tag, None));
            }
            _ => {}
        }
    }

    fn keyed(&mut self, world: &mut World<S>, index: usize, socket: Socket) {
        if self.list[index].attack == Attack::Garbage {
            let mut noise = vec![0; 4096];
            self.rng.fill(&mut noise);
            // A length that passes, so that the noise is read as a frame.
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
            &Message::Hello { version: Some(VERSION), sequences: BTreeMap::new(), port: None },
        );
    }

    fn on_request(&mut self, world: &mut World<S>, index: usize, socket: Socket, id: BlobId) {
        let right = |world: &World<S>| world.store(self.author).blob(&id).map(<[u8]>::to_vec);
        match self.list[index].attack {
            Attack::WrongBlob => {
                let noise = self.noise(S::BLOB_LEN);
                let frame = self.data_frame(index, socket, &noise);
                world.socket_send(socket, &frame);
            }
            Attack::SlowLoris => {
                let noise = self.noise(S::BLOB_LEN);
                let frame = self.data_frame(index, socket, &noise);
                self.drip(index, socket, &frame);
            }
            Attack::BitFlip => {
                let Some(blob) = right(world) else { return };
                let frame = self.data_frame(index, socket, &blob);
                self.send_flipped(world, socket, frame);
            }
            Attack::Replay => {
                let Some(blob) = right(world) else { return };
                let frame = self.data_frame(index, socket, &blob);
                world.socket_send(socket, &frame);
                world.socket_send(socket, &frame);
            }
            Attack::Garbage | Attack::Silence => {}
            Attack::PexFlood
            | Attack::AnnounceFlood
            | Attack::Sybils
            | Attack::FalseHave
            | Attack::HaveFlood
            | Attack::FalseGateway => {
                self.send(world, index, socket, &Message::Error("Not Found".into()));
            }
        }
    }

    fn on_want(&mut self, world: &mut World<S>, index: usize, socket: Socket, want: &Want) {
        let attack = self.list[index].attack;
        let bytes = match attack {
            Attack::WrongBlob | Attack::SlowLoris => self.noise(want.range.len()),
            Attack::BitFlip | Attack::Replay => {
                let blob = world.store(self.author).blob(&want.blob);
                let Some(part) = blob.and_then(|blob| blob.get(want.range.clone())) else { return };
                part.to_vec()
            }
            Attack::Garbage | Attack::Silence => return,
            Attack::PexFlood
            | Attack::AnnounceFlood
            | Attack::Sybils
            | Attack::FalseHave
            | Attack::HaveFlood
            | Attack::FalseGateway => {
                return self.send_raw(world, index, socket, ranges::PIECE, &want.refusal());
            }
        };
        for payload in want.pieces(&bytes) {
            match attack {
                Attack::SlowLoris => {
                    let frame = self.seal(index, socket, ranges::PIECE, &payload);
                    self.drip(index, socket, &frame);
                }
                Attack::BitFlip => {
                    let frame = self.seal(index, socket, ranges::PIECE, &payload);
                    self.send_flipped(world, socket, frame);
                }
                _ => self.send_raw(world, index, socket, ranges::PIECE, &payload),
            }
        }
    }

    fn on_ask_have(&mut self, world: &mut World<S>, index: usize, socket: Socket, asked: &[u8]) {
        if let Some(session) = self.list[index].sessions.get_mut(&socket) {
            session.asked_have = Some(asked.to_vec());
        }
        if self.list[index].attack.claims_all()
            && let Some(all) = ranges::have_all(asked)
        {
            self.send_raw(world, index, socket, ranges::HAVE, &all);
        }
    }

    /// Sends a frame in which a bit of the ciphertext has flipped.
    fn send_flipped(&mut self, world: &mut World<S>, socket: Socket, mut frame: Vec<u8>) {
        if frame.len() > HEADER_LEN {
            let at = HEADER_LEN + pick(&mut self.rng, frame.len() - HEADER_LEN);
            frame[at] ^= 1 << self.rng.below(8);
        }
        world.socket_send(socket, &frame);
    }

    fn drip(&mut self, index: usize, socket: Socket, frame: &[u8]) {
        if let Some(session) = self.list[index].sessions.get_mut(&socket) {
            session.drip.extend(frame);
        }
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut noise = vec![0; len];
        self.rng.fill(&mut noise);
        noise
    }

    /// What a flood sends in its turn.
    fn flood(&mut self, world: &mut World<S>, index: usize, socket: Socket) {
        for _ in 0..FLOOD_MESSAGES {
            match self.list[index].attack {
                Attack::PexFlood => {
                    let peers = self.false_peers(index);
                    self.send(world, index, socket, &Message::Peers(peers));
                }
                Attack::AnnounceFlood => {
                    let adversary = &mut self.list[index];
                    adversary.ports_told = adversary.ports_told.wrapping_add(1).max(1);
                    let address = SocketAddr::new(adversary.addresses[0].ip(), adversary.ports_told);
                    let id = BlobId(self.rng.bytes_32());
                    self.send(world, index, socket, &Message::Announce(id, address.into(), 0));
                }
                Attack::HaveFlood => {
                    let session = self.list[index].sessions.get(&socket);
                    let asked = session.and_then(|session| session.asked_have.clone());
                    let have = ranges::have_noise(asked.as_deref(), &mut self.rng);
                    self.send_raw(world, index, socket, ranges::HAVE, &have);
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

    fn send(&mut self, world: &mut World<S>, index: usize, socket: Socket, message: &Message) {
        let (kind, payload) = message.encode();
        self.send_raw(world, index, socket, kind, &payload);
    }

    fn send_raw(&mut self, world: &mut World<S>, index: usize, socket: Socket, kind: u8, payload: &[u8]) {
        let frame = self.seal(index, socket, kind, payload);
        world.socket_send(socket, &frame);
        if self.list[index].attack == Attack::Replay {
            world.socket_send(socket, &frame);
        }
    }

    /// A sealed frame; empty where the connection has no keys.
    fn seal(&mut self, index: usize, socket: Socket, kind: u8, payload: &[u8]) -> Vec<u8> {
        let session = self.list[index].sessions.get_mut(&socket);
        let sealer = session.and_then(|session| session.wire.sealer());
        sealer.map_or_else(Vec::new, |sealer| seal(sealer, kind, payload))
    }

    /// A sealed DATA frame; empty where the connection has no keys.
    fn data_frame(&mut self, index: usize, socket: Socket, blob: &[u8]) -> Vec<u8> {
        let session = self.list[index].sessions.get_mut(&socket);
        let sealer = session.and_then(|session| session.wire.sealer());
        sealer.map_or_else(Vec::new, |sealer| data_frame(sealer, blob))
    }
}

fn pick(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).expect("below a length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostConfig, WorldConfig};
    use megatorrent_core::ids::Secret;
    use megatorrent_core::suite::RealSuite;

    const ASKED: [u8; 21] = [0xA2, 1, 0x50, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 2, 1];

    /// A peer that asks one adversary for what a blob's range is, and hears it out.
    struct Asker {
        world: World,
        adversaries: Adversaries<RealSuite>,
        socket: Socket,
        wire: Wire<RealSuite>,
        blob: Vec<u8>,
        /// The plaintexts that came, and whether a frame did not open.
        heard: Vec<Vec<u8>>,
        is_broken: bool,
    }

    impl Asker {
        fn ask(attack: Attack) -> Self {
            let mut world = World::new(1, WorldConfig::default());
            let identity_seed = Some(Secret::new([7; 32]));
            let author = world.add_host(HostConfig { identity_seed, ..HostConfig::default() });
            world.ingest(author, "file", b"content");
            let id = world.store(author).blob_ids().next().expect("the file's");
            let blob = world.store(author).blob(&id).expect("it is stored").to_vec();
            let machine = world.add_machine(HostConfig::default());
            world.take_stranger_events();
            let mut rng = Rng::new([1; 32]);
            let mut adversaries = Adversaries::new(rng.fork("adversaries"), InfoHash([1; 20]), author);
            let at = adversaries.add(&mut world, attack);
            let socket = world.machine_dial(machine, at);
            let (wire, key) = Wire::new(Role::Dialler, &mut rng);
            world.socket_send(socket, &key);
            let (heard, is_broken) = (Vec::new(), false);
            let mut asker = Self { world, adversaries, socket, wire, blob, heard, is_broken };
            asker.run();
            let range = [&[0xA4, 1, 9, 2, 0x58, 32][..], &id.0, &[3, 0, 4, 0x1A, 0, 1, 0xE2, 0x40]].concat();
            for (kind, payload) in [(ranges::ASK_HAVE, &ASKED[..]), (ranges::WANT, &range)] {
                let sealer = asker.wire.sealer().expect("it is keyed");
                let frame = seal(sealer, kind, payload);
                asker.world.socket_send(socket, &frame);
            }
            asker.run();
            asker
        }

        fn run(&mut self) {
            let end = self.world.now() + Duration::from_secs(10);
            while self.world.next_at().is_some_and(|at| at < end) {
                self.world.step();
                self.adversaries.wake(&mut self.world, &[]);
                for (side, event) in self.world.take_socket_events() {
                    let (StrangerEvent::Opened(link)
                    | StrangerEvent::Accepted(link, _)
                    | StrangerEvent::Readable(link)
                    | StrangerEvent::Closed(link)) = event;
                    if (Socket { link, side }) == self.socket {
                        self.hear();
                    } else {
                        self.adversaries.handle(&mut self.world, side, event);
                    }
                }
            }
        }

        fn hear(&mut self) {
            let bytes = self.world.socket_read(self.socket);
            let mut rest = &bytes[..];
            while !self.is_broken {
                match self.wire.read(&mut rest) {
                    Ok(Some(Incoming::Plaintext(plaintext))) => self.heard.push(plaintext),
                    Ok(Some(Incoming::Keyed)) => {}
                    Ok(None) => return,
                    Err(_) => self.is_broken = true,
                }
            }
        }

        /// The bytes of all PIECEs that opened, in order; `None`: none came.
        fn pieces(&self) -> Option<Vec<u8>> {
            let pieces = self.heard.iter().filter(|heard| heard.first() == Some(&ranges::PIECE));
            let parts: Vec<&[u8]> = pieces.map(|piece| &piece[9..]).collect();
            (!parts.is_empty()).then(|| parts.concat())
        }

        fn claims_all(&self) -> bool {
            let all = ranges::have_all(&ASKED).expect("an ASK_HAVE");
            self.heard.iter().any(|heard| heard.first() == Some(&ranges::HAVE) && heard[1..] == all)
        }
    }

    #[test]
    fn each_kind_lies_in_its_own_way() {
        const LEN: usize = 123_456;
        for attack in Attack::ALL.into_iter().chain([Attack::FalseGateway]) {
            let asker = Asker::ask(attack);
            let right = &asker.blob[..LEN];
            let (pieces, is_broken) = (asker.pieces(), asker.is_broken);
            match attack {
                Attack::WrongBlob => {
                    assert!(pieces.is_some_and(|bytes| bytes.len() == LEN && bytes != right), "{attack:?}");
                }
                Attack::BitFlip => assert!(is_broken && pieces.is_none(), "the frame does not open"),
                Attack::Replay => assert!(is_broken, "a frame comes twice"),
                Attack::SlowLoris | Attack::Silence => assert!(!is_broken && pieces.is_none(), "{attack:?}"),
                Attack::Garbage => assert!(is_broken && asker.heard.is_empty()),
                _ => assert_eq!(pieces, Some(Vec::new()), "{attack:?} refuses"),
            }
            assert!(asker.claims_all() || !attack.claims_all() || is_broken, "{attack:?}");
        }
    }
}
