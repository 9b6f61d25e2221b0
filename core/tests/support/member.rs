//! Scripted v6 peers: they follow a channel as the node does, send the messages that a test chooses, and bring and take
//! bytes at its rate.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::{Have, Message, Tag};
use megatorrent_core::error::CloseReason;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobName, Topic};
use megatorrent_core::limits::KEEP_ALIVE;
use megatorrent_core::node::{Event, RecordKey};
use megatorrent_core::time::Instant;
use megatorrent_core::uri;

use super::content::{BLOB_END, Blobs, Content, PIECE_MAX, SEQUENCE};
use super::peer::Peer;
use super::{Bench, addr};

/// The virtual time of a step.
const STEP: Duration = Duration::from_millis(50);
/// Bytes that a socket takes at once.
const SIP_LEN: usize = 16 * 1024;

/// A range that the node asked of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) id: u32,
    pub(crate) blob: BlobName,
    pub(crate) next: u32,
    pub(crate) end: u32,
}

/// A peer, and the node's messages to it so far, oldest first.
pub(crate) struct Member {
    pub(crate) peer: Peer,
    port: u16,
    /// The swarms' names, in the order in which they were given.
    pub(crate) tags: Vec<Tag>,
    /// The version of the first swarm that it makes claims about.
    pub(crate) version: u64,
    /// Bytes that it brings each second.
    pub(crate) bytes_per_sec: u64,
    credit: u64,
    /// It changes the first byte of each piece.
    pub(crate) lies: bool,
    /// Ranges that are not complete.
    pub(crate) open: Vec<Want>,
    pub(crate) asked: Vec<(BlobName, Range<u32>)>,
    pub(crate) cancelled: Vec<(u32, u32)>,
    pub(crate) asked_have: Vec<(Tag, u64)>,
    pub(crate) told: Vec<(Instant, Have)>,
    /// Number, offset and bytes.
    pub(crate) pieces: Vec<(u32, u32, Vec<u8>)>,
    pub(crate) errors: Vec<String>,
    said: Instant,
    next_id: u32,
}

impl Member {
    /// Connects to the node, and watches channels.
    pub(crate) fn join(bench: &mut Bench, port: u16, channels: &[PublicKey]) -> Self {
        let topics: Vec<Topic> = channels.iter().map(|channel| uri::topic(channel, None)).collect();
        Self::join_swarms(bench, port, &topics, SEQUENCE)
    }

    /// Connects to the node, and watches swarms; it makes claims about a version of the first.
    pub(crate) fn join_swarms(bench: &mut Bench, port: u16, topics: &[Topic], version: u64) -> Self {
        let mut peer = Peer::dial(bench, addr(port));
        peer.say_hello(bench, 6);
        let tags: Vec<Tag> = topics.iter().map(|topic| peer.tag(topic)).collect();
        peer.send(bench, &Message::Watch(tags.clone()));
        let mut member = Self {
            peer,
            port,
            tags,
            version,
            bytes_per_sec: 0,
            credit: 0,
            lies: false,
            open: Vec::new(),
            asked: Vec::new(),
            cancelled: Vec::new(),
            asked_have: Vec::new(),
            told: Vec::new(),
            pieces: Vec::new(),
            errors: Vec::new(),
            said: bench.now,
            next_id: 0,
        };
        member.hear(bench);
        member
    }

    /// Connects, watches the channel, and says that it has these data blobs of it.
    pub(crate) fn with(bench: &mut Bench, port: u16, content: &Content, blobs: &[usize]) -> Self {
        let mut member = Self::join(bench, port, &[content.channel]);
        member.has(bench, content, blobs);
        member
    }

    /// Connects, watches the channel, and says that it has all of it.
    pub(crate) fn seed(bench: &mut Bench, port: u16, content: &Content) -> Self {
        let mut member = Self::join(bench, port, &[content.channel]);
        member.say_have(bench, Have::All);
        member
    }

    pub(crate) fn at(mut self, bytes_per_sec: u64) -> Self {
        self.bytes_per_sec = bytes_per_sec;
        self
    }

    // --- messages to the node -------------------------------------------------------------------------------

    pub(crate) fn has(&mut self, bench: &mut Bench, content: &Content, blobs: &[usize]) {
        let positions = blobs.iter().map(|n| content.position(*n)).collect();
        self.say_have(bench, Have::Positions(positions));
    }

    pub(crate) fn say_have(&mut self, bench: &mut Bench, have: Have) {
        self.peer.send(bench, &Message::Have(self.tags[0], self.version, have));
        self.hear(bench);
    }

    pub(crate) fn ask_have(&mut self, bench: &mut Bench, sequence: u64) {
        self.peer.send(bench, &Message::AskHave(self.tags[0], sequence));
        self.hear(bench);
    }

    /// Asks for a range; returns its number.
    pub(crate) fn want(&mut self, bench: &mut Bench, blob: BlobName, range: Range<u32>) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        self.peer.send(bench, &Message::Want { id, blob, range });
        id
    }

    pub(crate) fn send_piece(&mut self, bench: &mut Bench, id: u32, offset: u32, bytes: &[u8]) {
        self.peer.send(bench, &Message::Piece { id, offset, bytes: bytes.to_vec() });
        self.hear(bench);
    }

    /// Refuses all ranges asked for.
    pub(crate) fn refuse(&mut self, bench: &mut Bench) {
        self.hear(bench);
        for Want { id, next, .. } in std::mem::take(&mut self.open) {
            self.send_piece(bench, id, next, &[]);
        }
    }

    /// Brings up to this many bytes of the ranges asked for, the oldest range first; returns how many.
    pub(crate) fn bring(&mut self, bench: &mut Bench, blobs: &impl Blobs, bytes: u64) -> u64 {
        self.credit += bytes;
        let mut brought = 0;
        loop {
            self.hear(bench);
            let Some(want) = self.open.first_mut() else {
                self.credit = 0;
                return brought;
            };
            let len = (want.end - want.next).min(PIECE_MAX);
            if self.credit < u64::from(len) {
                return brought;
            }
            let (id, offset) = (want.id, want.next);
            let blob = blobs.blob(&want.blob);
            let mut piece = blob[offset as usize..(offset + len) as usize].to_vec();
            piece[0] ^= u8::from(self.lies);
            want.next += len;
            if want.next == want.end {
                self.open.remove(0);
            }
            self.credit -= u64::from(len);
            brought += u64::from(len);
            self.send_piece(bench, id, offset, &piece);
        }
    }

    /// Brings all ranges asked for, including those that the node asks for meanwhile.
    pub(crate) fn bring_all(&mut self, bench: &mut Bench, blobs: &impl Blobs) {
        while self.bring(bench, blobs, u64::from(BLOB_END)) > 0 {}
    }

    // --- messages from the node -----------------------------------------------------------------------------

    pub(crate) fn hear(&mut self, bench: &mut Bench) {
        for message in self.peer.receive(bench) {
            self.note(bench.now, message);
        }
    }

    /// Takes at most `most` bytes; returns how many.
    pub(crate) fn take(&mut self, bench: &mut Bench, most: usize) -> usize {
        let taken = self.peer.take(bench, most);
        for message in self.peer.messages() {
            self.note(bench.now, message);
        }
        taken
    }

    fn note(&mut self, now: Instant, message: Message) {
        match message {
            Message::Want { id, blob, range } => {
                self.open.push(Want { id, blob, next: range.start, end: range.end });
                self.asked.push((blob, range));
            }
            Message::Cancel { id, from } => {
                self.cancelled.push((id, from));
                for want in self.open.iter_mut().filter(|want| want.id == id) {
                    want.end = want.end.min(from.max(want.next));
                }
                self.open.retain(|want| want.next < want.end);
            }
            Message::AskHave(tag, sequence) => self.asked_have.push((tag, sequence)),
            Message::Have(tag, version, have) if (tag, version) == (self.tags[0], self.version) => {
                self.told.push((now, have));
            }
            Message::Piece { id, offset, bytes } => self.pieces.push((id, offset, bytes)),
            Message::Error(text) => self.errors.push(text),
            _ => {}
        }
    }

    /// The data blobs that it was asked for, in order.
    pub(crate) fn asked_for(&self, content: &Content) -> Vec<usize> {
        self.asked.iter().map(|(id, _)| content.number(id)).collect()
    }

    /// The positions that the node claimed, in order; `None`: the node claimed to have all.
    pub(crate) fn told_positions(&self) -> Option<Vec<u32>> {
        let mut told = BTreeSet::new();
        for (_, have) in &self.told {
            match have {
                Have::All => return None,
                Have::Positions(positions) => told.extend(positions),
                Have::Bitmap(bits) => {
                    let has = |at: &u32| bits[*at as usize / 8] & (0x80 >> (at % 8)) != 0;
                    told.extend((0..u32::try_from(bits.len()).expect("short") * 8).filter(has));
                }
            }
        }
        Some(told.into_iter().collect())
    }

    /// Why its connection ended, according to the node's event; `None`: it did not.
    pub(crate) fn closed_for(&self, bench: &Bench) -> Option<CloseReason> {
        bench.events.iter().find_map(|event| match event {
            Event::Disconnected { conn, reason, .. } if *conn == self.peer.conn => Some(*reason),
            _ => None,
        })
    }

    pub(crate) fn addr(&self) -> PeerAddr {
        addr(self.port)
    }

    /// Whether its address is banned, and the ban durable.
    pub(crate) fn is_banned(&self, bench: &Bench) -> bool {
        let key = RecordKey::Ban(self.addr());
        bench.world.records.iter().any(|(record, value)| *record == key && value.is_some())
    }

    fn keep_alive(&mut self, bench: &mut Bench) {
        if bench.now.since(self.said) >= KEEP_ALIVE {
            self.said = bench.now;
            self.peer.send_keep_alive(bench);
        }
    }
}

/// Lets time pass, in which members bring the ranges that they are asked for.
pub(crate) fn pass(bench: &mut Bench, blobs: &impl Blobs, time: Duration, members: &mut [&mut Member]) {
    let end = bench.now + time;
    while bench.now < end {
        bench.sleep(STEP);
        for member in &mut *members {
            member.keep_alive(bench);
            let bytes = member.bytes_per_sec * u64::try_from(STEP.as_millis()).expect("short") / 1000;
            member.bring(bench, blobs, bytes);
        }
    }
}

/// Lets a step of time pass, in which members take up to `bytes` from the node, all as fast as they can.
pub(crate) fn drink(bench: &mut Bench, bytes_per_sec: usize, members: &mut [&mut Member]) {
    bench.sleep(STEP);
    let mut left = bytes_per_sec * STEP.subsec_millis() as usize / 1000;
    loop {
        let mut taken = 0;
        for member in &mut *members {
            let n = member.take(bench, SIP_LEN.min(left));
            (taken, left) = (taken + n, left - n);
        }
        if taken == 0 || left == 0 {
            return;
        }
    }
}
