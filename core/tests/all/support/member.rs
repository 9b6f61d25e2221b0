//! Scripted v6 peers: they follow a channel as the node does, send the messages that a test chooses, and bring and take
//! bytes at its rate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::{self, Have, Message, Tag};
use megatorrent_core::error::CloseReason;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobName, Root, Topic};
use megatorrent_core::limits::{KEEP_ALIVE, PIECE_LEN_MAX};
use megatorrent_core::node::{Command, Event, RecordKey};
use megatorrent_core::parts::{Mask, PART_LEN, VALUES_LEN, Values};
use megatorrent_core::time::Instant;
use megatorrent_core::transport::Role;
use megatorrent_core::uri;

use super::content::{BLOB_BYTES, Blobs, Content, SEQUENCE};
use super::peer::Peer;
use super::{Bench, addr};

/// The virtual time of a step.
const STEP: Duration = Duration::from_millis(50);
/// Bytes that a socket takes at once.
const SIP_LEN: usize = 16 * 1024;

/// All of a version.
pub(crate) fn all() -> Have {
    Have { all: true, ..Have::default() }
}

pub(crate) fn positions(positions: impl IntoIterator<Item = u32>) -> Have {
    Have { positions: positions.into_iter().collect(), ..Have::default() }
}

pub(crate) fn bitmap(bits: &[u8]) -> Have {
    Have { bitmap: bits.to_vec(), ..Have::default() }
}

/// Parts of one blob.
pub(crate) fn parts_of(position: u32, mask: Mask) -> Have {
    Have { under_way: vec![(position, mask)], ..Have::default() }
}

/// What the node asked of a member and has not got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `None`: it was asked for by REQUEST.
    pub(crate) number: Option<u32>,
    pub(crate) blob: BlobName,
    pub(crate) left: Mask,
    /// The first half of the first part of these was brought.
    is_begun: bool,
    values: bool,
    /// How many bytes of the last part are asked for, where not all are.
    pub(crate) last_len: Option<usize>,
}

/// How a member brings parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Honest,
    /// It changes the first byte of each half.
    Lies,
    /// It sends other values than the blob's.
    LiesOfValues,
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
    pub(crate) manner: Manner,
    /// What is not complete.
    pub(crate) open: Vec<Wanted>,
    pub(crate) asked: Vec<(BlobName, Mask)>,
    pub(crate) cancelled: Vec<(BlobName, Mask)>,
    pub(crate) asked_have: Vec<(Tag, u64)>,
    /// How often it was asked for other peers, and answered that it knows none.
    pub(crate) asked_for_peers: usize,
    pub(crate) told: Vec<(Instant, Have)>,
    /// Number, part, half and bytes.
    pub(crate) pieces: Vec<(u32, u8, u8, Vec<u8>)>,
    pub(crate) values: Vec<(u32, Values)>,
    /// Whole blobs.
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) errors: Vec<String>,
    said: Instant,
    next_number: u32,
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
        let mut member = Self::new(bench, port, peer, tags);
        member.version = version;
        member.hear(bench);
        member
    }

    /// A v5 peer that the node dials; `None`: it does not.
    pub(crate) fn v5(bench: &mut Bench, port: u16) -> Option<Self> {
        bench.command(Command::AddPeer(addr(port)));
        let conn = bench.take_dial(&addr(port))?;
        let mut peer = Peer::shake(bench, conn, Role::Listener);
        peer.say_hello(bench, 5);
        let mut member = Self::new(bench, port, peer, Vec::new());
        member.hear(bench);
        Some(member)
    }

    fn new(bench: &Bench, port: u16, peer: Peer, tags: Vec<Tag>) -> Self {
        Self {
            peer,
            port,
            tags,
            version: SEQUENCE,
            bytes_per_sec: 0,
            credit: 0,
            manner: Manner::Honest,
            open: Vec::new(),
            asked: Vec::new(),
            cancelled: Vec::new(),
            asked_have: Vec::new(),
            asked_for_peers: 0,
            told: Vec::new(),
            pieces: Vec::new(),
            values: Vec::new(),
            blobs: Vec::new(),
            errors: Vec::new(),
            said: bench.now,
            next_number: 0,
        }
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
        member.say_have(bench, all());
        member
    }

    pub(crate) fn at(mut self, bytes_per_sec: u64) -> Self {
        self.bytes_per_sec = bytes_per_sec;
        self
    }

    // --- messages to the node -------------------------------------------------------------------------------

    pub(crate) fn has(&mut self, bench: &mut Bench, content: &Content, blobs: &[usize]) {
        self.say_have(bench, positions(blobs.iter().map(|n| content.position(*n))));
    }

    pub(crate) fn say_have(&mut self, bench: &mut Bench, have: Have) {
        self.peer.send(bench, &Message::Have(self.tags[0], self.version, have));
        self.hear(bench);
    }

    pub(crate) fn ask_have(&mut self, bench: &mut Bench, sequence: u64) {
        self.peer.send(bench, &Message::AskHave(self.tags[0], sequence));
        self.hear(bench);
    }

    /// Asks for parts, and for the values before them; returns the number.
    pub(crate) fn want(&mut self, bench: &mut Bench, root: Root, mask: Mask) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let want = codec::Want { number, root, mask, values: true, last_len: None };
        self.peer.send(bench, &Message::Want(want));
        number
    }

    pub(crate) fn send_values(&mut self, bench: &mut Bench, number: u32, values: Values) {
        self.peer.send(bench, &Message::Parts { number, values: Box::new(values) });
        self.hear(bench);
    }

    pub(crate) fn send_piece(
        &mut self,
        bench: &mut Bench,
        number: u32,
        (part, half): (u8, u8),
        bytes: &[u8],
    ) {
        self.peer.send(bench, &Message::Piece { number, part, half, bytes: bytes.to_vec() });
        self.hear(bench);
    }

    /// Refuses all that it is asked for.
    pub(crate) fn refuse(&mut self, bench: &mut Bench) {
        self.hear(bench);
        for Wanted { number, .. } in std::mem::take(&mut self.open) {
            match number {
                Some(number) => self.send_piece(bench, number, (0, 0), &[]),
                None => self.peer.send(bench, &Message::Error("Not Found".into())),
            }
        }
    }

    /// Brings up to this many bytes of what it is asked for, the oldest want first; returns how many.
    pub(crate) fn bring(&mut self, bench: &mut Bench, blobs: &impl Blobs, bytes: u64) -> u64 {
        self.credit += bytes;
        let mut brought = 0;
        loop {
            self.hear(bench);
            let Some(wanted) = self.open.first_mut() else {
                self.credit = 0;
                return brought;
            };
            let len = if wanted.number.is_some() { PIECE_LEN_MAX as u64 } else { BLOB_BYTES };
            if self.credit < len {
                return brought;
            }
            if let Some(number) = wanted.number.filter(|_| std::mem::take(&mut wanted.values)) {
                let right = Values::of(blobs.blob(&wanted.blob));
                let wrong = Values::from_bytes([7; VALUES_LEN]);
                let values = if self.manner == Manner::LiesOfValues { wrong } else { right };
                self.send_values(bench, number, values);
                continue;
            }
            self.credit -= len;
            brought += len;
            self.bring_next(bench, blobs);
        }
    }

    /// Brings half a part, or a whole blob.
    fn bring_next(&mut self, bench: &mut Bench, blobs: &impl Blobs) {
        let wanted = self.open.first_mut().expect("something is asked for");
        let blob = blobs.blob(&wanted.blob);
        let Some(number) = wanted.number else {
            self.open.remove(0);
            let mut blob = blob.to_vec();
            blob[0] ^= u8::from(self.manner == Manner::Lies);
            return self.peer.send_blob(bench, &blob);
        };
        let part = wanted.left.iter().next().expect("it is open");
        let half = usize::from(wanted.is_begun);
        let is_last = wanted.left.len() == 1;
        let len = wanted.last_len.filter(|_| is_last).unwrap_or(PART_LEN);
        let range = half * PIECE_LEN_MAX..len.min((half + 1) * PIECE_LEN_MAX);
        let is_whole = range.end == len;
        let mut bytes = blob[part * PART_LEN..][range].to_vec();
        bytes[0] ^= u8::from(self.manner == Manner::Lies);
        wanted.is_begun = !is_whole;
        if is_whole {
            wanted.left = wanted.left - Mask::one(part);
            if wanted.left.is_empty() {
                self.open.remove(0);
            }
        }
        let place = (u8::try_from(part).expect("few"), u8::try_from(half).expect("two"));
        self.send_piece(bench, number, place, &bytes);
    }

    /// Brings all that it is asked for, and what the node asks for meanwhile.
    pub(crate) fn bring_all(&mut self, bench: &mut Bench, blobs: &impl Blobs) {
        while self.bring(bench, blobs, BLOB_BYTES) > 0 {}
    }

    // --- messages from the node -----------------------------------------------------------------------------

    pub(crate) fn hear(&mut self, bench: &mut Bench) {
        for message in self.peer.receive(bench) {
            if matches!(message, Message::FindPeers(_)) {
                self.asked_for_peers += 1;
                self.peer.send(bench, &Message::Peers(Vec::new()));
            }
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
            Message::Want(want) => {
                let (blob, left) = (want.root.into(), want.mask);
                let number = Some(want.number);
                let last_len = want.last_len.map(|len| len as usize);
                self.open.push(Wanted { number, blob, left, is_begun: false, values: want.values, last_len });
                self.asked.push((blob, left));
            }
            Message::Request(id) => {
                let blob = BlobName::V5(id);
                self.open.push(Wanted {
                    number: None,
                    blob,
                    left: Mask::ALL,
                    is_begun: false,
                    values: false,
                    last_len: None,
                });
                self.asked.push((blob, Mask::ALL));
            }
            Message::Cancel { number, mask } => self.cancel(number, mask),
            Message::AskHave(tag, sequence) => self.asked_have.push((tag, sequence)),
            Message::Have(tag, version, have)
                if (Some(&tag), version) == (self.tags.first(), self.version) =>
            {
                self.told.push((now, have));
            }
            Message::Piece { number, part, half, bytes } => self.pieces.push((number, part, half, bytes)),
            Message::Parts { number, values } => self.values.push((number, *values)),
            Message::Data(bytes) => self.blobs.push(bytes),
            Message::Error(text) => self.errors.push(text),
            _ => {}
        }
    }

    fn cancel(&mut self, number: u32, mask: Mask) {
        let Some(wanted) = self.open.iter_mut().find(|wanted| wanted.number == Some(number)) else { return };
        self.cancelled.push((wanted.blob, mask));
        let is_first_gone = wanted.left.iter().next().is_some_and(|part| mask.has(part));
        wanted.is_begun &= !is_first_gone;
        wanted.left = wanted.left - mask;
        self.open.retain(|wanted| !wanted.left.is_empty());
    }

    /// The data blobs of which it was asked for parts, in order, each once.
    pub(crate) fn asked_for(&self, content: &Content) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let numbers = self.asked.iter().map(|(blob, _)| content.number(blob));
        numbers.filter(|number| seen.insert(*number)).collect()
    }

    /// The parts of a blob that it was asked for.
    pub(crate) fn asked_of(&self, blob: &BlobName) -> Mask {
        let of_blob = self.asked.iter().filter(|(asked, _)| asked == blob);
        of_blob.fold(Mask::NONE, |mask, (_, more)| mask | *more)
    }

    /// Counts the parts that it was asked for.
    pub(crate) fn parts_asked(&self) -> usize {
        self.asked.iter().map(|(_, mask)| mask.len()).sum()
    }

    /// Counts the parts that it is asked for and has not brought.
    pub(crate) fn parts_open(&self) -> usize {
        self.open.iter().map(|wanted| wanted.left.len()).sum()
    }

    /// The positions that the node said it has whole, in order; `None`: it said that it has all.
    pub(crate) fn told_positions(&self) -> Option<Vec<u32>> {
        let mut told = BTreeSet::new();
        for (_, have) in &self.told {
            if have.all {
                return None;
            }
            told.extend(&have.positions);
            let has = |at: &u32| have.bitmap[*at as usize / 8] & (0x80 >> (at % 8)) != 0;
            told.extend((0..u32::try_from(have.bitmap.len()).expect("short") * 8).filter(has));
        }
        Some(told.into_iter().collect())
    }

    /// The parts of blobs under way that the node said it has, by position.
    pub(crate) fn told_parts(&self) -> BTreeMap<u32, Mask> {
        let mut told: BTreeMap<u32, Mask> = BTreeMap::new();
        for (position, mask) in self.told.iter().flat_map(|(_, have)| &have.under_way) {
            let known = told.entry(*position).or_default();
            *known = *known | *mask;
        }
        told
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

    pub(crate) fn keep_alive(&mut self, bench: &mut Bench) {
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
