//! Plain v5 peers: they speak v5's messages over core's handshake, frames and codec, and share nothing else with a node.
//!
//! Such a peer reads the channel's head from the DHT, looks each of its blobs up by the blob's info-hash, fetches one
//! blob over each connection, checks its hash, announces its blobs, and serves them: it gives one answer over each
//! connection, then closes. A head must fit a DHT item, so a v5 head lists few blobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::client::{Client, Heard};
use megatorrent_core::codec::Message;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobId, JobId};
use megatorrent_core::manifest::{Collection, Head, HeadContent, Item, Reference};
use megatorrent_core::node::{DhtOp, Input, Written};
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;
use megatorrent_core::transport::Role;

use crate::config::HostConfig;
use crate::host::HostId;
use crate::link::Side;
use crate::stranger::{Socket, StrangerEvent};
use crate::world::{LISTEN_PORT, World};

/// The version that a plain peer's HELLO names.
const VERSION: u64 = 5;
/// How often the head is looked up.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// How soon it is looked up again while none is known, and a blob's peers while none brought it.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often each stored blob is announced.
const ANNOUNCE_INTERVAL: Duration = Duration::from_mins(15);
/// A connection that takes longer is given up.
const CONNECTION_TIME_MAX: Duration = Duration::from_mins(2);
/// How often a server checks whether its answer is sent.
const LINGER: Duration = Duration::from_millis(100);
/// Addresses remembered for one blob; further ones are ignored.
const SOURCES_MAX: usize = 64;
/// The job of every DHT operation: each answer is kept with its operation.
const JOB: JobId = JobId(0);

/// A peer's state.
struct Peer {
    address: SocketAddr,
    channel: PublicKey,
    /// The newest head's sequence; 0: none is known.
    sequence: u64,
    wanted: BTreeSet<BlobId>,
    /// Where each blob may be, best first.
    sources: BTreeMap<BlobId, VecDeque<SocketAddr>>,
    /// Blobs that a peer is being asked for.
    fetching: BTreeSet<BlobId>,
    stored: BTreeSet<BlobId>,
    is_complete: bool,
}

/// A connection's state.
struct Session<S: Suite> {
    host: HostId,
    role: Role,
    client: Client<S>,
    /// The blob that the dialler asks for.
    blob: Option<BlobId>,
    /// Its only answer is given to the socket.
    has_answered: bool,
}

/// An entry of the agenda.
enum Todo {
    Poll,
    Look(BlobId),
    Announce(BlobId),
    /// An operation's packets reach the DHT.
    Reach(DhtOp),
    /// The DHT answers an operation.
    Answer(DhtOp, Input),
    /// A server's answer may be sent, or a connection takes too long.
    Check(Socket),
}

/// All plain peers of a world.
pub(crate) struct Peers<S: Suite> {
    by_host: BTreeMap<HostId, Peer>,
    by_address: BTreeMap<SocketAddr, HostId>,
    sessions: BTreeMap<Socket, (Instant, Session<S>)>,
    agenda: BTreeMap<(Instant, u64), (HostId, Todo)>,
    todos: u64,
    rng: Rng,
    completed: Vec<(HostId, u64)>,
}

impl<S: Suite> Peers<S> {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            by_host: BTreeMap::new(),
            by_address: BTreeMap::new(),
            sessions: BTreeMap::new(),
            agenda: BTreeMap::new(),
            todos: 0,
            rng,
            completed: Vec::new(),
        }
    }

    /// Adds a peer that wants a channel.
    pub(crate) fn add(&mut self, world: &mut World<S>, config: HostConfig, channel: PublicKey) -> HostId {
        let host = world.add_machine(config);
        let address = world.address(host);
        world.raw_listen(address);
        self.by_address.insert(address, host);
        let peer = Peer {
            address,
            channel,
            sequence: 0,
            wanted: BTreeSet::new(),
            sources: BTreeMap::new(),
            fetching: BTreeSet::new(),
            stored: BTreeSet::new(),
            is_complete: false,
        };
        self.by_host.insert(host, peer);
        self.agree(world.now(), host, Todo::Poll);
        host
    }

    /// Returns when one of them acts next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the peers that have become complete since the last call, each with the sequence.
    pub(crate) fn take_completed(&mut self) -> Vec<(HostId, u64)> {
        std::mem::take(&mut self.completed)
    }

    fn agree(&mut self, at: Instant, host: HostId, todo: Todo) {
        self.todos += 1;
        self.agenda.insert((at, self.todos), (host, todo));
    }

    /// Does everything that is due.
    pub(crate) fn wake(&mut self, world: &mut World<S>) {
        while self.deadline().is_some_and(|at| at <= world.now()) {
            let Some((_, (host, todo))) = self.agenda.pop_first() else { return };
            match todo {
                Todo::Poll => self.poll(world, host),
                Todo::Look(blob) => self.look(world, host, blob),
                Todo::Announce(blob) => {
                    self.begin(world, host, DhtOp::Announce(blob.info_hash(), LISTEN_PORT));
                    self.agree(world.now() + ANNOUNCE_INTERVAL, host, Todo::Announce(blob));
                }
                Todo::Reach(op) => {
                    let from = world.address(host).ip();
                    let now = world.now();
                    for (after, input) in world.dht_mut().perform(now, from, JOB, op.clone()) {
                        self.agree(now + after, host, Todo::Answer(op.clone(), input));
                    }
                }
                Todo::Answer(op, input) => self.on_dht(world, host, &op, input),
                Todo::Check(socket) => self.check(world, host, socket),
            }
        }
    }

    // --- the DHT ----------------------------------------------------------------------------------------------

    fn begin(&mut self, world: &mut World<S>, host: HostId, op: DhtOp) {
        world.counts.total.dht_ops += 1;
        let reached = world.now() + world.dht_mut().reach();
        self.agree(reached, host, Todo::Reach(op));
    }

    fn poll(&mut self, world: &mut World<S>, host: HostId) {
        let Some(peer) = self.by_host.get(&host) else { return };
        let (channel, is_known) = (peer.channel, peer.sequence > 0);
        self.begin(world, host, DhtOp::Get(channel));
        let again = if is_known { POLL_INTERVAL } else { RETRY_INTERVAL };
        self.agree(world.now() + again, host, Todo::Poll);
    }

    /// Looks for a blob's peers again and again until it is stored.
    fn look(&mut self, world: &mut World<S>, host: HostId, blob: BlobId) {
        let Some(peer) = self.by_host.get(&host) else { return };
        if peer.stored.contains(&blob) || !peer.wanted.contains(&blob) {
            return;
        }
        if !peer.fetching.contains(&blob) {
            self.begin(world, host, DhtOp::Lookup(blob.info_hash()));
        }
        self.agree(world.now() + RETRY_INTERVAL, host, Todo::Look(blob));
    }

    fn on_dht(&mut self, world: &mut World<S>, host: HostId, op: &DhtOp, input: Input) {
        match (op, input) {
            (DhtOp::Get(_), Input::DhtItem(_, item)) => self.on_head(world, host, &item),
            (DhtOp::Lookup(hash), Input::DhtPeers(_, peers)) => {
                let Some(peer) = self.by_host.get(&host) else { return };
                let blob = peer.wanted.iter().find(|blob| blob.info_hash() == *hash).copied();
                let Some(blob) = blob else { return };
                self.note_sources(host, blob, &peers);
                self.fetch(world, host, blob);
            }
            _ => {}
        }
    }

    /// Takes a newer head with a good signature: its blobs are wanted. A v5 peer cannot use one that lists no chunks.
    fn on_head(&mut self, world: &mut World<S>, host: HostId, item: &SignedItem) {
        let Some(peer) = self.by_host.get_mut(&host) else { return };
        if item.key != peer.channel || item.seq.unsigned_abs() <= peer.sequence || !item.verify() {
            return;
        }
        let head = Head::from_json(&peer.channel, None, &item.value);
        let Ok(Head { sequence, content: HeadContent::Inline(collections), .. }) = head else { return };
        let Some(blobs) = chunks(&collections) else { return };
        peer.sequence = sequence;
        peer.is_complete = false;
        peer.wanted.clone_from(&blobs);
        let now = world.now();
        for blob in blobs {
            self.agree(now, host, Todo::Look(blob));
        }
        self.note_completion(host);
    }

    fn note_sources(&mut self, host: HostId, blob: BlobId, found: &[PeerAddr]) {
        let Some(peer) = self.by_host.get_mut(&host) else { return };
        let sources = peer.sources.entry(blob).or_default();
        for addr in found {
            // It has no proxy, so it cannot dial names.
            let PeerAddr::Ip(at) = addr else { continue };
            if *at != peer.address && !sources.contains(at) && sources.len() < SOURCES_MAX {
                let place = self.rng.below(sources.len() as u64 + 1);
                sources.insert(usize::try_from(place).expect("within the list"), *at);
            }
        }
    }

    // --- fetching ---------------------------------------------------------------------------------------------

    /// Asks the next source for a blob, unless one is being asked.
    fn fetch(&mut self, world: &mut World<S>, host: HostId, blob: BlobId) {
        let Some(peer) = self.by_host.get_mut(&host) else { return };
        if peer.stored.contains(&blob) || peer.fetching.contains(&blob) {
            return;
        }
        let Some(at) = peer.sources.get_mut(&blob).and_then(VecDeque::pop_front) else { return };
        peer.fetching.insert(blob);
        let socket = world.machine_dial(host, at);
        let mut client = Client::new(Role::Dialler, &mut self.rng);
        world.socket_send(socket, &client.take_output());
        let session = Session { host, role: Role::Dialler, client, blob: Some(blob), has_answered: false };
        self.sessions.insert(socket, (world.now(), session));
        self.agree(world.now() + CONNECTION_TIME_MAX, host, Todo::Check(socket));
    }

    /// Ends a connection; where it was for a missing blob, asks the next source.
    fn end(&mut self, world: &mut World<S>, socket: Socket) {
        world.socket_close(socket);
        let Some((_, Session { host, blob: Some(blob), .. })) = self.sessions.remove(&socket) else { return };
        if let Some(peer) = self.by_host.get_mut(&host) {
            peer.fetching.remove(&blob);
        }
        self.fetch(world, host, blob);
    }

    fn on_data(&mut self, world: &mut World<S>, socket: Socket, bytes: &[u8]) {
        let Some((_, Session { host, blob: Some(blob), .. })) = self.sessions.get(&socket) else { return };
        let (host, blob) = (*host, *blob);
        let written = world.hosts[host.index()].store.fetch::<S>(&mut world.pool, blob.into(), bytes);
        if written == Written::Stored {
            if let Some(peer) = self.by_host.get_mut(&host) {
                peer.stored.insert(blob);
            }
            self.agree(world.now(), host, Todo::Announce(blob));
            self.note_completion(host);
        }
        self.end(world, socket);
    }

    fn note_completion(&mut self, host: HostId) {
        let Some(peer) = self.by_host.get_mut(&host) else { return };
        if !peer.is_complete && peer.sequence > 0 && peer.wanted.is_subset(&peer.stored) {
            peer.is_complete = true;
            self.completed.push((host, peer.sequence));
        }
    }

    // --- sockets ----------------------------------------------------------------------------------------------

    /// Takes a socket's event. `false`: the socket is none of theirs.
    pub(crate) fn handle(&mut self, world: &mut World<S>, side: Side, event: StrangerEvent) -> bool {
        let socket = Socket { link: event.link(), side };
        if let StrangerEvent::Accepted(_, at) = event {
            let Some(&host) = self.by_address.get(&at) else { return false };
            let mut client = Client::new(Role::Listener, &mut self.rng);
            world.socket_send(socket, &client.take_output());
            let session = Session { host, role: Role::Listener, client, blob: None, has_answered: false };
            self.sessions.insert(socket, (world.now(), session));
            self.agree(world.now() + CONNECTION_TIME_MAX, host, Todo::Check(socket));
            return true;
        }
        let is_ours = self.sessions.contains_key(&socket);
        if is_ours && !matches!(event, StrangerEvent::Opened(_)) {
            // Bytes that came before the end count.
            self.read(world, socket);
            if matches!(event, StrangerEvent::Closed(_)) {
                self.end(world, socket);
            }
        }
        is_ours
    }

    fn read(&mut self, world: &mut World<S>, socket: Socket) {
        let bytes = world.socket_read(socket);
        if let Some((_, session)) = self.sessions.get_mut(&socket) {
            session.client.feed(&bytes);
        }
        while let Some((_, session)) = self.sessions.get_mut(&socket) {
            match session.client.hear() {
                Ok(Some(Heard::Open)) => self.on_keyed(world, socket),
                Ok(Some(Heard::Message(message))) => self.on_message(world, socket, message),
                Ok(None) => return,
                Ok(Some(Heard::Malformed(_))) | Err(_) => return self.end(world, socket),
            }
        }
    }

    /// A dialler sends HELLO and its request at once; a listener sends nothing unsolicited.
    fn on_keyed(&mut self, world: &mut World<S>, socket: Socket) {
        let Some((_, session)) = self.sessions.get(&socket) else { return };
        let Some(blob) = session.blob else { return };
        let sequences = self.by_host.get(&session.host).map(|peer| (peer.channel, peer.sequence));
        let hello = Message::Hello {
            version: Some(VERSION),
            sequences: sequences.into_iter().collect(),
            port: None,
            features: 0,
        };
        self.send(world, socket, &hello);
        self.send(world, socket, &Message::Request(blob));
    }

    fn on_message(&mut self, world: &mut World<S>, socket: Socket, message: Message) {
        let Some((_, session)) = self.sessions.get(&socket) else { return };
        match (session.role, message) {
            (Role::Dialler, Message::Data(blob)) => self.on_data(world, socket, &blob),
            (Role::Dialler, Message::Error(_)) => self.end(world, socket),
            (Role::Listener, _) if session.has_answered => {}
            (Role::Listener, Message::Request(blob)) => self.serve(world, socket, blob),
            (Role::Listener, Message::FindPeers(blob)) => {
                let sources = self.by_host.get(&session.host).and_then(|peer| peer.sources.get(&blob));
                let peers = sources.into_iter().flatten().map(|at| (*at).into()).collect();
                self.send(world, socket, &Message::Peers(peers));
                self.answered(world, socket);
            }
            _ => {}
        }
    }

    /// Sends a connection's only answer.
    fn serve(&mut self, world: &mut World<S>, socket: Socket, blob: BlobId) {
        let Some((_, session)) = self.sessions.get(&socket) else { return };
        let found = world.store(session.host).blob(&blob.into());
        let answer = found.map_or(Message::Error("Not Found".into()), Message::Data);
        self.send(world, socket, &answer);
        self.answered(world, socket);
    }

    fn answered(&mut self, world: &mut World<S>, socket: Socket) {
        if let Some((_, session)) = self.sessions.get_mut(&socket) {
            session.has_answered = true;
            let host = session.host;
            self.agree(world.now(), host, Todo::Check(socket));
        }
    }

    /// Closes a connection whose answer is sent, or that takes too long.
    fn check(&mut self, world: &mut World<S>, host: HostId, socket: Socket) {
        let Some((opened, session)) = self.sessions.get(&socket) else { return };
        let is_sent = session.has_answered && world.socket_unsent(socket) == 0;
        if is_sent || world.now().since(*opened) >= CONNECTION_TIME_MAX {
            self.end(world, socket);
        } else if session.has_answered {
            self.agree(world.now() + LINGER, host, Todo::Check(socket));
        }
    }

    fn send(&mut self, world: &mut World<S>, socket: Socket, message: &Message) {
        let Some((_, session)) = self.sessions.get_mut(&socket) else { return };
        session.client.send(message);
        world.socket_send(socket, &session.client.take_output());
    }
}

/// Returns the blobs of a v5 head; `None`: it holds a tree, which v5 does not know.
fn chunks(collections: &[Collection]) -> Option<BTreeSet<BlobId>> {
    let mut blobs = BTreeSet::new();
    for item in collections.iter().flat_map(|collection| &collection.items) {
        match item {
            Item::File(file) => match &file.reference {
                Reference::Chunks(chunks) => blobs.extend(chunks.iter().map(|chunk| chunk.id)),
                Reference::Extents(_) => return None,
                Reference::Symlink(_) | Reference::Folder => {}
            },
            Item::Magnet(_) => {}
        }
    }
    Some(blobs)
}
