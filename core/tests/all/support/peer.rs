//! The other end of a connection: core's own client.

use std::collections::BTreeMap;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::client::{Client, Heard};
use megatorrent_core::codec::{Message, Tag};
use megatorrent_core::ids::{BlobId, ConnId, SessionId, Topic};
use megatorrent_core::rng::Rng;
use megatorrent_core::transport::Role;

use super::Bench;

pub(crate) struct Peer {
    pub(crate) conn: ConnId,
    client: Client,
}

impl Peer {
    /// Opens a connection to the node's listener.
    pub(crate) fn dial(bench: &mut Bench, from: PeerAddr) -> Self {
        let conn = bench.node.accept(bench.now, from).expect("there is room");
        Self::shake(bench, conn, Role::Dialler)
    }

    /// Takes the node's dial to an address; the peer says nothing.
    pub(crate) fn listen(bench: &mut Bench, to: &PeerAddr) -> Self {
        let conn = bench.take_dial(to).expect("the peer is dialled");
        Self::shake(bench, conn, Role::Listener)
    }

    pub(crate) fn shake(bench: &mut Bench, conn: ConnId, role: Role) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&conn.slot.to_le_bytes());
        seed[4..8].copy_from_slice(&conn.generation.to_le_bytes());
        let mut peer = Self { conn, client: Client::new(role, &mut Rng::new(seed)) };
        assert!(peer.take(bench, usize::MAX) > 0, "the node's key comes first");
        peer.deliver_output(bench);
        assert_eq!(peer.client.hear(), Ok(Some(Heard::Open)));
        peer
    }

    /// The tag of a channel on this connection.
    pub(crate) fn tag(&self, topic: &Topic) -> Tag {
        self.client.tag(topic).expect("it is open")
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.client.session_id().expect("it is open")
    }

    // --- to the node ----------------------------------------------------------------------------------------

    pub(crate) fn send(&mut self, bench: &mut Bench, message: &Message) {
        if matches!(message, Message::Request(_)) {
            self.client.admit_blobs();
        }
        self.client.send(message);
        self.deliver_output(bench);
    }

    pub(crate) fn send_plaintext(&mut self, bench: &mut Bench, plaintext: &[u8]) {
        self.client.send_plaintext(plaintext);
        self.deliver_output(bench);
    }

    pub(crate) fn send_keep_alive(&mut self, bench: &mut Bench) {
        self.send(bench, &Message::Empty);
    }

    pub(crate) fn send_blob(&mut self, bench: &mut Bench, blob: &[u8]) {
        self.send(bench, &Message::Data(blob.to_vec()));
    }

    fn deliver_output(&mut self, bench: &mut Bench) {
        deliver(bench, self.conn, &self.client.take_output());
    }

    pub(crate) fn say_hello(&mut self, bench: &mut Bench, version: u64) {
        let (version, sequences) = (Some(version), BTreeMap::new());
        self.send(bench, &Message::Hello { version, sequences, port: None, features: 0 });
    }

    // --- from the node --------------------------------------------------------------------------------------

    /// Takes all messages that the node has to send.
    pub(crate) fn receive(&mut self, bench: &mut Bench) -> Vec<Message> {
        while self.take(bench, usize::MAX) > 0 {}
        self.messages()
    }

    /// Takes at most `most` bytes; returns how many.
    pub(crate) fn take(&mut self, bench: &mut Bench, most: usize) -> usize {
        let chunk = bench.node.send_chunk(bench.now, self.conn);
        let n = chunk.len().min(most);
        self.client.feed(&chunk[..n]);
        if n > 0 {
            bench.node.sent(bench.now, self.conn, n);
        }
        bench.drain();
        n
    }

    /// The messages that have come whole.
    pub(crate) fn messages(&mut self) -> Vec<Message> {
        let heard = std::iter::from_fn(|| self.client.hear().expect("sealed for us"));
        let message = |heard| match heard {
            Heard::Message(message) => message,
            other => panic!("{other:?} from a node"),
        };
        heard.map(message).collect()
    }

    /// Whether the node sends a REQUEST for a blob.
    pub(crate) fn is_asked_for(&mut self, bench: &mut Bench, id: &BlobId) -> bool {
        self.receive(bench).contains(&Message::Request(*id))
    }
}

/// Gives the node bytes until it takes no more.
pub(crate) fn deliver(bench: &mut Bench, conn: ConnId, mut bytes: &[u8]) {
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
