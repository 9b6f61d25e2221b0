//! The other end of a connection, made of core's own layers below the node.

use std::collections::BTreeMap;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::Message;
use megatorrent_core::ids::{BlobId, ConnId, Secret, SessionId};
use megatorrent_core::transport::frame;
use megatorrent_core::transport::{Handshake, Open, Opener, Role, Sealer, Session};

use super::Bench;

pub(crate) struct Peer {
    pub(crate) conn: ConnId,
    /// For naming channels over this connection.
    pub(crate) tag_key: Secret,
    pub(crate) session_id: SessionId,
    sealer: Sealer,
    opener: Opener,
    inbox: Vec<u8>,
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
        let handshake = Handshake::from_secret(role, seed);
        let ours = handshake.public_key();
        let theirs = bench.node.send_chunk(bench.now, conn).try_into().expect("its key comes first");
        bench.node.sent(bench.now, conn, 32);
        deliver(bench, conn, &ours);
        let session = handshake.finish(theirs).expect("an honest key");
        let Session { sealer, opener, tag_key, session_id } = session;
        Self { conn, tag_key, session_id, sealer, opener, inbox: Vec::new() }
    }

    // --- to the node ----------------------------------------------------------------------------------------

    pub(crate) fn send(&mut self, bench: &mut Bench, message: &Message) {
        self.send_plaintext(bench, &message.encode());
    }

    pub(crate) fn send_plaintext(&mut self, bench: &mut Bench, plaintext: &[u8]) {
        let mut wire = Vec::new();
        frame::seal(&mut self.sealer, &[plaintext], &mut wire);
        deliver(bench, self.conn, &wire);
    }

    pub(crate) fn send_keep_alive(&mut self, bench: &mut Bench) {
        self.send(bench, &Message::Empty);
    }

    pub(crate) fn send_blob(&mut self, bench: &mut Bench, blob: &[u8]) {
        self.send(bench, &Message::Data(blob.to_vec()));
    }

    pub(crate) fn say_hello(&mut self, bench: &mut Bench, version: u64) {
        let (version, sequences) = (Some(version), BTreeMap::new());
        self.send(bench, &Message::Hello { version, sequences, port: None });
    }

    // --- from the node --------------------------------------------------------------------------------------

    /// All that the node has to say.
    pub(crate) fn receive(&mut self, bench: &mut Bench) -> Vec<Message> {
        while self.take(bench, usize::MAX) > 0 {}
        self.messages()
    }

    /// Takes at most `most` bytes; how many there were.
    pub(crate) fn take(&mut self, bench: &mut Bench, most: usize) -> usize {
        let chunk = bench.node.send_chunk(bench.now, self.conn);
        let n = chunk.len().min(most);
        self.inbox.extend(&chunk[..n]);
        if n > 0 {
            bench.node.sent(bench.now, self.conn, n);
        }
        bench.drain();
        n
    }

    /// The messages that have come whole.
    pub(crate) fn messages(&mut self) -> Vec<Message> {
        let (mut messages, mut read) = (Vec::new(), 0);
        while let Some(header) = self.inbox[read..].first_chunk::<{ frame::HEADER_LEN }>() {
            let (start, len) = (read + header.len(), u32::from_be_bytes(*header) as usize);
            let Some(sealed) = self.inbox.get_mut(start..start + len) else { break };
            read = start + len;
            let plain = self.opener.open(sealed).expect("sealed for us");
            messages.push(Message::decode(plain).expect("an honest message"));
        }
        self.inbox.drain(..read);
        messages
    }

    /// Whether the node asks for a blob as it asks v5 peers.
    pub(crate) fn is_asked_for(&mut self, bench: &mut Bench, id: &BlobId) -> bool {
        self.receive(bench).contains(&Message::Request(*id))
    }
}

/// Gives the node bytes as long as it takes some.
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
