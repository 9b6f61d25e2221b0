//! The honest bound: the time that a swarm without waste takes, from the moment when its peers have found each other.
//!
//! It is the fluid bound, which no swarm can beat, and what a swarm cannot avoid besides: a part has to cross the network hop by
//! hop before everybody can send, and each request takes a round trip.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use megatorrent_core::parts::PARTS;
use megatorrent_core::suite::Suite;

use super::Plan;

/// How long after a part has begun to be there its holder passes it on, besides a round trip: it tells and is asked.
const PASSING_ON: Duration = Duration::from_millis(50);
/// Round trips before the first byte of content: for the index, the body and the content.
const ROUND_TRIPS: u32 = 3;
/// Discovery counts at most as this long: after that, a swarm's slowness is its own.
pub const DISCOVERY_MAX: Duration = Duration::from_secs(2);

/// The rates in bytes a second, and the round trip, of a plan's hosts.
pub(super) struct Lines {
    source: u64,
    /// Up and down; no bound is the highest rate.
    peers: Vec<(u64, u64)>,
    round_trip: Duration,
}

impl Lines {
    pub(super) fn of(plan: &Plan) -> Self {
        let (least, most) = (plan.world.latency_ms.start(), plan.world.latency_ms.end());
        let configs = plan.members.iter().map(|member| &member.config);
        let rates = |config: &crate::HostConfig| {
            let down = config.download_bytes_per_sec.unwrap_or(u64::MAX);
            (config.upload_bytes_per_sec.max(1), down.max(1))
        };
        Self {
            source: plan.author.upload_bytes_per_sec.max(1),
            peers: configs.map(rates).collect(),
            // There and back at the mean latency.
            round_trip: Duration::from_millis(least + most),
        }
    }

    /// The least time in which the lines carry `bytes` from the source to each peer: what the source has to send once, what each
    /// peer has to receive, and what all of them together have to send.
    pub(super) fn fluid(&self, bytes: u64) -> Duration {
        let slowest = self.peers.iter().map(|(_, down)| *down).min().unwrap_or(u64::MAX);
        let all = self.peers.iter().fold(self.source, |sum, (up, _)| sum.saturating_add(*up));
        let copies = bytes.saturating_mul(self.peers.len() as u64);
        time(bytes, self.source).max(time(bytes, slowest)).max(time(copies, all))
    }

    /// How long `bytes` take to reach every peer if each host that has them sends them to one peer after the other. A peer begins
    /// to send when it has them, is told of and asked.
    pub(super) fn spread(&self, bytes: u64) -> Duration {
        // When each sender has sent its next copy, and how long a copy takes.
        let first = time(bytes, self.source);
        let mut senders = BinaryHeap::from([Reverse((first, first))]);
        let mut last = Duration::ZERO;
        for (up, _) in &self.peers {
            let Some(Reverse((at, each))) = senders.pop() else { break };
            last = at;
            senders.push(Reverse((at + each, each)));
            let own = time(bytes, *up);
            senders.push(Reverse((at + self.round_trip + PASSING_ON + own, own)));
        }
        last
    }

    /// The honest bound for `content` bytes in parts of `part` bytes.
    pub(super) fn honest(&self, content: u64, part: u64) -> Duration {
        self.fluid(content) + self.spread(part) + self.round_trip * ROUND_TRIPS
    }
}

/// Bytes that a peer needs of a channel of one file of `blobs` blobs: those, and a part of the body and of each index blob.
pub(super) fn needed<S: Suite>(blobs: usize) -> u64 {
    let mut parts = blobs * PARTS + 1;
    let mut level = blobs;
    while level > 1 {
        level = level.div_ceil(S::SHAPE.fanout());
        parts += level;
    }
    parts as u64 * part_len::<S>()
}

/// Bytes of a part.
pub(super) fn part_len<S: Suite>() -> u64 {
    (S::PLAIN_LEN / PARTS) as u64
}

fn time(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::null::NullSuite;

    fn lines(peers: usize, down: u64) -> Lines {
        Lines { source: 1000, peers: vec![(1000, down); peers], round_trip: Duration::from_millis(150) }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_slowest_of_source_line_and_all_uplinks_bounds_the_time() {
        assert_eq!(lines(3, u64::MAX).fluid(4000), ms(4000), "the source sends each byte once");
        assert_eq!(lines(3, 500).fluid(4000), ms(8000), "a peer's line");
        let slow = Lines { source: 4000, ..lines(4, u64::MAX) };
        assert_eq!(slow.fluid(4000), ms(2000), "four copies over 8 kB/s");
    }

    #[test]
    fn a_part_spreads_from_more_and_more_holders() {
        assert_eq!(lines(1, u64::MAX).spread(100), ms(100));
        // The source sends one each 100 ms; the first peer has sent one 150 + 50 + 100 ms after it got it.
        assert_eq!(lines(4, u64::MAX).spread(100), ms(400));
        assert_eq!(lines(5, u64::MAX).spread(100), ms(400));
        // At 500 ms from the source and the first two peers.
        assert_eq!(lines(8, u64::MAX).spread(100), ms(500));
        assert!(lines(1000, u64::MAX).spread(100) < ms(3000));
        assert_eq!(lines(1, u64::MAX).honest(4000, 100), ms(4000 + 100 + 3 * 150));
    }

    #[test]
    fn index_and_body_are_needed_by_the_part() {
        type True = NullSuite<{ 1 << 20 }>;
        assert_eq!(part_len::<True>(), 65_536);
        assert_eq!(
            [1, 2, 1024, 1025].map(needed::<True>).map(|bytes| bytes / 65_536),
            [17, 2 * 16 + 2, 1024 * 16 + 2, 1025 * 16 + 4]
        );
    }
}
