//! The traffic over links, counted by kind from outside: frames show their length, and their kind too where nothing is
//! encrypted (any suite but the real one).

use std::any::TypeId;
use std::collections::BTreeMap;
use std::time::Duration;

use megatorrent_core::codec::{PIECE_HEADER_LEN, kind};
use megatorrent_core::limits::CONTROL_LEN_MAX;
use megatorrent_core::suite::{RealSuite, Suite};
use megatorrent_core::transport::KEY_LEN;
use megatorrent_core::transport::frame::{HEADER_LEN, TAG_LEN};

use crate::host::HostId;
use crate::link::{Link, Side};
use crate::world::World;

/// Encrypted frames from this length on are counted as content: no control message but a long list of peers is as long.
/// So a blob's end in a short frame is counted as control.
const DATA_FRAME_LEN_MIN: usize = 8 * 1024;

/// Bytes that were put on links, by kind, and other counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Public keys of handshakes.
    pub handshake: u64,
    /// Frames of messages without content.
    pub control: u64,
    /// Frames that carry content.
    pub data: u64,
    /// Operations on the DHT.
    pub dht_ops: u64,
    /// Dials begun.
    pub dials: u64,
}

impl Traffic {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.handshake + self.control + self.data
    }
}

/// Everything that has crossed the world's links.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) total: Traffic,
    /// Frames and their bytes by kind, where the kind can be read.
    kinds: BTreeMap<u8, (u64, u64)>,
    /// Plaintexts of ANNOUNCE frames that were sent whole since the last check, where they can be read.
    pub(crate) announces: Vec<Vec<u8>>,
    /// Bytes of content by sender and receiver, over links that are gone; the others count their own.
    gone: BTreeMap<(HostId, HostId), u64>,
}

impl Counts {
    /// Keeps the counts of a link that ends.
    pub(crate) fn keep(&mut self, link: &Link) {
        for (from, to, bytes) in flows_of(link) {
            *self.gone.entry((from, to)).or_default() += bytes;
        }
    }
}

/// Bytes of content that crossed a link between two hosts, by direction.
fn flows_of(link: &Link) -> impl Iterator<Item = (HostId, HostId, u64)> {
    [Side::Dialer, Side::Listener].into_iter().filter_map(|to| {
        let bytes = link.pipes[to as usize].content;
        let (from, to) = (link.hosts[to.other() as usize]?, link.hosts[to as usize]?);
        (bytes > 0).then_some((from, to, bytes))
    })
}

impl<S: Suite> World<S> {
    /// Everything that was put on links so far.
    pub fn traffic(&self) -> Traffic {
        self.counts.total
    }

    /// Messages that were begun, by type byte: how many, and the bytes of their frames. Empty where the suite encrypts.
    pub fn messages(&self) -> impl Iterator<Item = (u8, u64, u64)> {
        self.counts.kinds.iter().map(|(kind, (count, bytes))| (*kind, *count, *bytes))
    }

    /// Bytes of content (parts of blobs, without the frames around them) that were put on links, by sender and receiver, in
    /// order.
    pub fn flows(&self) -> impl Iterator<Item = (HostId, HostId, u64)> {
        let mut flows = self.counts.gone.clone();
        for (from, to, bytes) in self.links.iter().flat_map(|(_, link)| flows_of(link)) {
            *flows.entry((from, to)).or_default() += bytes;
        }
        flows.into_iter().map(|((from, to), bytes)| (from, to, bytes))
    }

    /// Bytes of every kind that have left a host through its uplink.
    pub fn uploaded(&self, id: HostId) -> u64 {
        let host = &self.hosts[id.index()];
        let rate = u128::from(host.config.upload_bytes_per_sec.max(1));
        let waiting = self.upload_wait(id).as_nanos() * rate / 1_000_000_000;
        host.uplink.bytes.saturating_sub(u64::try_from(waiting).unwrap_or(u64::MAX))
    }

    /// How long a host's uplink takes to send its backlog.
    pub fn upload_wait(&self, id: HostId) -> Duration {
        self.hosts[id.index()].uplink.free_at.since(self.now)
    }
}

/// A reader of one direction of a link, as far as it can be read.
#[derive(Debug)]
pub(crate) enum Meter {
    Handshake {
        left: usize,
    },
    Header {
        bytes: [u8; HEADER_LEN],
        have: usize,
    },
    /// A frame's length is known, and its kind comes next.
    Kind {
        len: usize,
    },
    /// The part of an ANNOUNCE that was sent.
    Announce {
        frame: Vec<u8>,
        len: usize,
    },
    Frame {
        is_data: bool,
        /// Bytes before the content.
        head: usize,
        content: usize,
        /// Bytes after it.
        tail: usize,
    },
}

impl Default for Meter {
    fn default() -> Self {
        Self::Handshake { left: KEY_LEN }
    }
}

const HEADER: Meter = Meter::Header { bytes: [0; HEADER_LEN], have: 0 };

impl Meter {
    /// Counts sent bytes; returns how many of them are content. `is_open`: a frame's first byte is its kind.
    pub(crate) fn count(&mut self, mut sent: &[u8], is_open: bool, counts: &mut Counts) -> u64 {
        let mut content_sent = 0;
        let pass = |left: &mut usize, sent: &mut &[u8]| {
            let n = sent.len().min(*left);
            *left -= n;
            *sent = &sent[n..];
            n as u64
        };
        while !sent.is_empty() {
            match self {
                Self::Handshake { left } => {
                    counts.total.handshake += pass(left, &mut sent);
                    if *left == 0 {
                        *self = HEADER;
                    }
                }
                Self::Header { bytes, have } => {
                    bytes[*have] = sent[0];
                    *have += 1;
                    sent = &sent[1..];
                    if *have == HEADER_LEN {
                        let len = u32::from_be_bytes(*bytes) as usize;
                        *self = if is_open && len > TAG_LEN {
                            Self::Kind { len }
                        } else {
                            Self::frame(len, guess(len), &mut counts.total)
                        };
                    }
                }
                Self::Kind { len } => *self = Self::of_kind(sent[0], *len, counts),
                Self::Announce { frame, len } => {
                    let (part, rest) = sent.split_at(sent.len().min(*len - frame.len()));
                    frame.extend(part);
                    counts.total.control += part.len() as u64;
                    sent = rest;
                    if frame.len() == *len {
                        frame.truncate(*len - TAG_LEN);
                        counts.announces.push(std::mem::take(frame));
                        *self = HEADER;
                    }
                }
                Self::Frame { is_data, head, content, tail } => {
                    let before = pass(head, &mut sent);
                    let inside = pass(content, &mut sent);
                    let after = pass(tail, &mut sent);
                    let kind = if *is_data { &mut counts.total.data } else { &mut counts.total.control };
                    *kind += before + inside + after;
                    content_sent += inside;
                    if *head + *content + *tail == 0 {
                        *self = HEADER;
                    }
                }
            }
        }
        content_sent
    }

    /// A frame of `len` bytes begins with its kind.
    fn of_kind(byte: u8, len: usize, counts: &mut Counts) -> Self {
        let (count, bytes) = counts.kinds.entry(byte).or_default();
        *count += 1;
        *bytes += (HEADER_LEN + len) as u64;
        if byte == kind::ANNOUNCE && len <= CONTROL_LEN_MAX + TAG_LEN {
            counts.total.control += HEADER_LEN as u64;
            Self::Announce { frame: Vec::new(), len }
        } else {
            Self::frame(len, head_len(byte), &mut counts.total)
        }
    }

    /// A frame of `len` bytes begins, with content after its first `head` bytes.
    fn frame(len: usize, head: Option<usize>, total: &mut Traffic) -> Self {
        let is_data = head.is_some();
        *(if is_data { &mut total.data } else { &mut total.control }) += HEADER_LEN as u64;
        let tail = len.min(TAG_LEN);
        let plain = len - tail;
        let head = head.unwrap_or(plain).min(plain);
        if len == 0 { HEADER } else { Self::Frame { is_data, head, content: plain - head, tail } }
    }
}

/// Whether a frame's kind is readable from outside: only the real suite encrypts.
pub(crate) fn has_open_frames<S: Suite>() -> bool {
    TypeId::of::<S>() != TypeId::of::<RealSuite>()
}

/// Returns how many bytes come before a frame's content, by its kind; `None`: it has none.
fn head_len(kind: u8) -> Option<usize> {
    match kind {
        kind::DATA => Some(1),
        kind::PIECE => Some(1 + PIECE_HEADER_LEN),
        _ => None,
    }
}

/// The same by the length of an encrypted frame.
fn guess(len: usize) -> Option<usize> {
    let plain = len.checked_sub(TAG_LEN).filter(|plain| *plain >= DATA_FRAME_LEN_MIN)?;
    head_len(if plain <= CONTROL_LEN_MAX { kind::PIECE } else { kind::DATA })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: u32) -> Vec<u8> {
        [&len.to_be_bytes()[..], &[kind], &vec![7; len as usize - 1]].concat()
    }

    #[test]
    fn kinds_are_told_apart_however_the_stream_is_cut() {
        let data = frame(kind::DATA, 1_048_609);
        let piece = frame(kind::PIECE, 32_791);
        let stream = [vec![1; KEY_LEN], frame(9, 16), data, piece, frame(kind::PIECE, 100)].concat();
        for cut in [1, 3, 5, 1000, stream.len()] {
            let read = |is_open| {
                let (mut meter, mut counts) = (Meter::default(), Counts::default());
                let content: u64 =
                    stream.chunks(cut).map(|part| meter.count(part, is_open, &mut counts)).sum();
                let total = counts.total;
                assert_eq!(total.bytes(), stream.len() as u64);
                let pieces = counts.kinds.get(&kind::PIECE).copied();
                assert_eq!(pieces, is_open.then_some((2, 32_795 + 104)));
                (total.handshake, total.control, total.data, content)
            };
            let content = 1_048_592 + 32_768;
            assert_eq!(read(false), (32, 20 + 104, 1_048_613 + 32_795, content), "pieces of {cut}");
            assert_eq!(read(true), (32, 20, 1_048_613 + 32_795 + 104, content + 77), "pieces of {cut}");
        }
    }
}
