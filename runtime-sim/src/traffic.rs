//! What crosses the links, counted by kind from the outside: v5's frames carry their length in the open.

use std::collections::BTreeMap;

use megatorrent_core::frame::{HEADER_LEN, TAG_LEN};
use megatorrent_core::transport::KEY_LEN;

use crate::host::HostId;

/// Frames from this length on are counted as content: no control message but a long list of peers comes near.
const DATA_FRAME_LEN_MIN: usize = 8 * 1024;

/// Bytes that were put on links, by kind, and what else is counted with them.
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

/// All that has crossed the world's links.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) total: Traffic,
    /// Bytes of content by who sent it to whom.
    pub(crate) flows: BTreeMap<(HostId, HostId), u64>,
}

/// Reads along one direction of a link, as far as it can be read: lengths.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meter {
    Handshake { left: usize },
    Header { bytes: [u8; HEADER_LEN], have: usize },
    Frame { is_data: bool, left: usize },
}

impl Default for Meter {
    fn default() -> Self {
        Self::Handshake { left: KEY_LEN }
    }
}

const HEADER: Meter = Meter::Header { bytes: [0; HEADER_LEN], have: 0 };

impl Meter {
    /// Counts bytes that are sent into `total`; how many of them are content.
    pub(crate) fn count(&mut self, mut sent: &[u8], total: &mut Traffic) -> u64 {
        let before = total.data;
        while !sent.is_empty() {
            match self {
                Self::Handshake { left } => {
                    let n = sent.len().min(*left);
                    total.handshake += n as u64;
                    *left -= n;
                    sent = &sent[n..];
                    if *left == 0 {
                        *self = HEADER;
                    }
                }
                Self::Header { bytes, have } => {
                    bytes[*have] = sent[0];
                    *have += 1;
                    sent = &sent[1..];
                    if *have == HEADER_LEN {
                        let left = u32::from_be_bytes(*bytes) as usize;
                        let is_data = left >= DATA_FRAME_LEN_MIN + TAG_LEN;
                        *(if is_data { &mut total.data } else { &mut total.control }) += HEADER_LEN as u64;
                        *self = if left == 0 { HEADER } else { Self::Frame { is_data, left } };
                    }
                }
                Self::Frame { is_data, left } => {
                    let n = sent.len().min(*left);
                    *(if *is_data { &mut total.data } else { &mut total.control }) += n as u64;
                    *left -= n;
                    sent = &sent[n..];
                    if *left == 0 {
                        *self = HEADER;
                    }
                }
            }
        }
        total.data - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_however_the_stream_is_cut() {
        let frame = |len: u32| [&len.to_be_bytes()[..], &vec![7; len as usize]].concat();
        let stream = [vec![1; KEY_LEN], frame(16), frame(1_048_609), frame(100)].concat();
        for cut in [1, 3, 5, 1000, stream.len()] {
            let (mut meter, mut total) = (Meter::default(), Traffic::default());
            let data: u64 = stream.chunks(cut).map(|part| meter.count(part, &mut total)).sum();
            assert_eq!((total.handshake, total.control, total.data), (32, 124, 1_048_613), "pieces of {cut}");
            assert_eq!(data, total.data);
        }
    }
}
