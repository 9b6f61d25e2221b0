//! One blob on its way from v6 peers: a buffer that ranges of one or several peers fill.

use alloc::vec::Vec;
use core::time::Duration;

use super::scheduler::Place;
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::ids::ConnId;
use crate::limits::RUNS_MAX;
use crate::time::Instant;

/// Whose bytes lie where in a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contribution {
    pub(super) conn: ConnId,
    pub(super) peer: PeerAddr,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Who is asked for a run, by the connection's number for the range, and when something last happened to it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) conn: ConnId,
    pub(super) peer: PeerAddr,
    pub(super) range: u32,
    pub(super) asked: Instant,
    pub(super) moved: Instant,
}

/// A part of the blob that one peer brings, in order; `None`: nobody is asked for it at the moment.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) source: Option<Source>,
    pub(super) start: u32,
    pub(super) next: u32,
    pub(super) end: u32,
}

impl Run {
    pub(super) fn is_whole(&self) -> bool {
        self.next == self.end
    }

    pub(super) fn is_begun(&self) -> bool {
        self.next > self.start
    }

    pub(super) fn is_of(&self, conn: ConnId) -> bool {
        self.source.as_ref().is_some_and(|source| source.conn == conn)
    }

    /// Nobody is asked for what lacks of it.
    pub(super) fn is_orphan(&self) -> bool {
        self.source.is_none() && !self.is_whole()
    }
}

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// No run goes on with them.
    Unwanted,
    /// The first of a run, and how long they took.
    First(Duration),
    More,
}

/// A blob on its way.
pub(super) struct Transfer {
    /// Where the blob stands in a channel that wants it.
    pub(super) place: Place,
    buffer: Buffer,
    /// They partition the blob, in order.
    pub(super) runs: Vec<Run>,
    /// It is to come from one peer alone, since bytes of several did not fit together.
    pub(super) is_alone: bool,
    /// How often a range of it was taken from a peer for another.
    pub(super) takeovers: u32,
}

impl Transfer {
    /// A transfer of the whole blob, of which nobody is asked yet.
    pub(super) fn new(place: Place, buffer: Buffer, is_alone: bool) -> Self {
        let end = u32::try_from(buffer.blob().len()).expect("a blob is 2^20 bytes or shorter");
        let runs = [Run { source: None, start: 0, next: 0, end }].into();
        Self { place, buffer, runs, is_alone, takeovers: 0 }
    }

    /// Bytes for the run that the connection brings and that goes on at `offset`.
    pub(super) fn feed(&mut self, conn: ConnId, offset: u32, bytes: &[u8], now: Instant) -> Fed {
        let run = self.runs.iter_mut().find(|run| run.is_of(conn) && run.next == offset && !run.is_whole());
        let Some(run) = run else { return Fed::Unwanted };
        let is_first = !run.is_begun();
        let room = &mut self.buffer.blob_mut()[run.next as usize..run.end as usize];
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        run.next += u32::try_from(n).expect("within the blob");
        let Some(source) = &mut run.source else { return Fed::More };
        source.moved = now;
        if is_first { Fed::First(now.since(source.asked)) } else { Fed::More }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.runs.iter().all(Run::is_whole)
    }

    /// Nobody is asked for any of it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.runs.iter().all(|run| run.is_whole() || run.is_orphan())
    }

    /// Nothing of it has come.
    pub(super) fn is_empty(&self) -> bool {
        !self.runs.iter().any(Run::is_begun)
    }

    pub(super) fn can_split(&self) -> bool {
        !self.is_alone && self.runs.len() < RUNS_MAX
    }

    /// Nobody is asked any more for what lacks of a run from `from` on; what came of it stays its peer's. The index of the
    /// new run.
    pub(super) fn orphan(&mut self, at: usize, from: u32) -> usize {
        let run = &mut self.runs[at];
        let from = from.clamp(run.next, run.end);
        let rest = Run { source: None, start: from, next: from, end: run.end };
        run.end = from;
        if run.start == run.end {
            self.runs[at] = rest;
            return at;
        }
        self.runs.insert(at + 1, rest);
        at + 1
    }

    /// The connection brings nothing more.
    pub(super) fn orphan_all_of(&mut self, conn: ConnId) {
        while let Some(at) = self.runs.iter().position(|run| run.is_of(conn) && !run.is_whole()) {
            self.orphan(at, 0);
        }
    }

    /// The buffer, and who brought what, adjacent runs of one connection as one.
    pub(super) fn finish(self) -> (Buffer, Vec<Contribution>) {
        let mut parts: Vec<Contribution> = Vec::new();
        for Run { source, start, next, .. } in self.runs {
            let Some(Source { conn, peer, .. }) = source else { continue };
            match parts.last_mut() {
                Some(last) if last.conn == conn && last.end == start => last.end = next,
                _ => parts.push(Contribution { conn, peer, start, end: next }),
            }
        }
        (self.buffer, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BLOB_LEN;
    use crate::identity::Identity;
    use crate::ids::Secret;
    use alloc::vec;

    const NOW: Instant = Instant(0);

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    fn place() -> Place {
        let channel = Identity::new(&Secret::new([1; 32]), None).public_key();
        Place { channel, position: 0, is_index: false }
    }

    fn source(slot: u32) -> Source {
        let peer = "127.0.0.1:1".parse().expect("an address");
        Source { conn: conn(slot), peer, range: 0, asked: NOW, moved: NOW }
    }

    #[test]
    fn two_peers_fill_one_blob_and_it_is_known_who_brought_what() {
        let end = u32::try_from(BLOB_LEN).expect("small");
        let mut transfer = Transfer::new(place(), Buffer::new(), false);
        transfer.runs[0].source = Some(source(1));
        assert_eq!(transfer.feed(conn(1), 0, &vec![1; 600_000], NOW), Fed::First(Duration::ZERO));
        assert_eq!(transfer.feed(conn(1), 0, &[1; 10], NOW), Fed::Unwanted, "in order only");
        let rest = transfer.orphan(0, 800_000);
        transfer.runs[rest].source = Some(source(2));
        assert_eq!(transfer.feed(conn(1), 800_000, &[1; 10], NOW), Fed::Unwanted, "it is another's");
        assert_eq!(transfer.feed(conn(2), 800_000, &vec![2; BLOB_LEN], NOW), Fed::First(Duration::ZERO));
        assert!(!transfer.is_whole());
        assert_eq!(transfer.feed(conn(1), 600_000, &vec![1; BLOB_LEN], NOW), Fed::More);
        assert!(transfer.is_whole());
        let (buffer, parts) = transfer.finish();
        assert_eq!((buffer.blob()[799_999], buffer.blob()[800_000]), (1, 2));
        let parts: Vec<_> = parts.iter().map(|part| (part.conn, part.start, part.end)).collect();
        assert_eq!(parts, [(conn(1), 0, 800_000), (conn(2), 800_000, end)]);
    }

    #[test]
    fn what_a_lost_peer_brought_stays_and_the_rest_goes_to_another() {
        let mut transfer = Transfer::new(place(), Buffer::new(), false);
        transfer.runs[0].source = Some(source(1));
        transfer.feed(conn(1), 0, &[1; 100], NOW);
        transfer.orphan_all_of(conn(1));
        assert!(transfer.is_abandoned() && !transfer.is_empty());
        let at = transfer.runs.iter().position(Run::is_orphan).expect("the rest");
        assert_eq!(transfer.runs[at].start, 100);
        transfer.runs[at].source = Some(source(2));
        transfer.orphan_all_of(conn(2));
        assert_eq!(transfer.runs.len(), 2, "what brought nothing leaves nothing");
    }
}
