//! One blob in flight from v6 peers: a buffer that segments of one or several peers fill.

use alloc::vec::Vec;
use core::time::Duration;

use super::super::channels::contents::Place;
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::ids::ConnId;
use crate::limits::SEGMENTS_MAX;
use crate::time::Instant;

/// Whose bytes lie where in a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contribution {
    conn: ConnId,
    peer: PeerAddr,
    start: u32,
    end: u32,
}

impl Contribution {
    pub(super) fn new(conn: ConnId, peer: PeerAddr, start: u32, end: u32) -> Self {
        Self { conn, peer, start, end }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(crate) fn peer(&self) -> &PeerAddr {
        &self.peer
    }

    /// Its bytes of a blob.
    pub(super) fn of<'a>(&self, blob: &'a [u8]) -> &'a [u8] {
        &blob[self.start as usize..self.end as usize]
    }
}

/// A request for a segment: who is asked, by the connection's number for the range, and when something last happened to it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    conn: ConnId,
    peer: PeerAddr,
    range: u32,
    asked: Instant,
    moved: Instant,
}

impl Request {
    pub(super) fn new(conn: ConnId, peer: PeerAddr, range: u32, now: Instant) -> Self {
        Self { conn, peer, range, asked: now, moved: now }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(super) fn range(&self) -> u32 {
        self.range
    }

    /// How long nothing has come of it.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.since(self.moved)
    }

    /// How long ago it was made.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.since(self.asked)
    }
}

/// A part of the blob that one peer brings, in order; without a request nobody is asked for it at the moment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    request: Option<Request>,
    start: u32,
    next: u32,
    end: u32,
}

impl Segment {
    pub(super) fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.next == self.end
    }

    pub(super) fn is_begun(&self) -> bool {
        self.next > self.start
    }

    fn is_of(&self, conn: ConnId) -> bool {
        self.request.as_ref().is_some_and(|request| request.conn == conn)
    }

    /// Nobody is asked for what is missing of it.
    pub(super) fn is_orphan(&self) -> bool {
        self.request.is_none() && !self.is_whole()
    }

    /// Bytes that are missing.
    pub(super) fn missing(&self) -> u32 {
        self.end - self.next
    }

    /// Where what is missing begins, and the middle of it.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    pub(super) fn middle(&self) -> u32 {
        self.next + self.missing() / 2
    }
}

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// No segment goes on with them.
    Unwanted,
    /// The first of a segment, and how long they took.
    First(Duration),
    More,
}

/// A blob in flight.
pub(super) struct Transfer {
    /// Where the blob stands in a swarm that wants it.
    place: Place,
    buffer: Buffer,
    /// They partition the blob, in order.
    segments: Vec<Segment>,
    /// It is to come from one peer alone, since bytes of several did not fit together.
    is_alone: bool,
    /// How often a segment of it was taken from a peer for another.
    takeovers: u32,
    /// When it is given up, as nobody wants the blob any more.
    given_up_at: Option<Instant>,
}

impl Transfer {
    /// A transfer of the whole blob, of which nobody is asked yet.
    pub(super) fn new(place: Place, buffer: Buffer, is_alone: bool, takeovers: u32) -> Self {
        let end = u32::try_from(buffer.blob().len()).expect("a blob is 2^20 bytes or shorter");
        let segments = [Segment { request: None, start: 0, next: 0, end }].into();
        Self { place, buffer, segments, is_alone, takeovers, given_up_at: None }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn set_place(&mut self, place: Place) {
        self.place = place;
    }

    pub(super) fn takeovers(&self) -> u32 {
        self.takeovers
    }

    /// When it is given up, as nobody wants the blob any more.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.given_up_at
    }

    pub(super) fn give_up_at(&mut self, at: Option<Instant>) {
        self.given_up_at = at;
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What peers are asked for.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.segments.iter().filter(|segment| !segment.is_whole()).filter_map(Segment::request)
    }

    /// How long nothing has come of it.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.requests().map(|request| request.waited(now)).min().unwrap_or(Duration::MAX)
    }

    /// How long ago it was asked for.
    fn age(&self, now: Instant) -> Duration {
        self.requests().map(|request| request.age(now)).max().unwrap_or_default()
    }

    /// In which order transfers are given up for those of other swarms, the least first.
    pub(super) fn loss(&self, now: Instant) -> (bool, Duration) {
        (self.has_begun(), self.age(now))
    }

    /// Something of it has come.
    pub(super) fn has_begun(&self) -> bool {
        self.segments.iter().any(Segment::is_begun)
    }

    /// The bytes of a segment.
    pub(super) fn bounds(&self, at: usize) -> Option<core::ops::Range<u32>> {
        self.segments.get(at).map(|segment| segment.start..segment.end)
    }

    /// Somebody is asked for a segment.
    pub(super) fn ask(&mut self, at: usize, request: Request) {
        if let Some(segment) = self.segments.get_mut(at) {
            segment.request = Some(request);
        }
    }

    /// Bytes for the segment that the connection brings and that goes on at `offset`.
    pub(super) fn feed(&mut self, conn: ConnId, offset: u32, bytes: &[u8], now: Instant) -> Fed {
        let fits = |s: &&mut Segment| s.is_of(conn) && s.next == offset && !s.is_whole();
        let Some(segment) = self.segments.iter_mut().find(fits) else { return Fed::Unwanted };
        let is_first = !segment.is_begun();
        let room = &mut self.buffer.blob_mut()[segment.next as usize..segment.end as usize];
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        segment.next += u32::try_from(n).expect("within the blob");
        let Some(request) = &mut segment.request else { return Fed::More };
        request.moved = now;
        if is_first { Fed::First(request.age(now)) } else { Fed::More }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.segments.iter().all(Segment::is_whole)
    }

    /// Nobody is asked for any of it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.segments.iter().all(|segment| segment.is_whole() || segment.is_orphan())
    }

    /// Nothing of it has come, or what has come is of no use without the peer that brought it.
    pub(super) fn is_worthless(&self) -> bool {
        self.is_alone || !self.has_begun()
    }

    pub(super) fn can_split(&self) -> bool {
        !self.is_alone && self.segments.len() < SEGMENTS_MAX
    }

    /// What is missing of a segment from `from` on goes to another peer, since this one is too slow: the request that is cut
    /// there, and the segment to ask for.
    pub(super) fn take_over(&mut self, at: usize, from: u32) -> (Option<Request>, usize) {
        let request = self.segments[at].request.clone();
        self.takeovers += 1;
        (request, self.orphan(at, from))
    }

    /// Nobody is asked any more for what is missing of a segment from `from` on; what came of it stays its peer's. The index
    /// of the new segment.
    fn orphan(&mut self, at: usize, from: u32) -> usize {
        let segment = &mut self.segments[at];
        let from = from.clamp(segment.next, segment.end);
        let rest = Segment { request: None, start: from, next: from, end: segment.end };
        segment.end = from;
        if segment.start == segment.end {
            self.segments[at] = rest;
            return at;
        }
        self.segments.insert(at + 1, rest);
        at + 1
    }

    /// The connection brings nothing more. `false`: it was asked for nothing.
    pub(super) fn release(&mut self, conn: ConnId) -> bool {
        let is_asked = self.segments.iter().any(|segment| segment.is_of(conn));
        while let Some(at) = self.segments.iter().position(|s| s.is_of(conn) && !s.is_whole()) {
            self.orphan(at, 0);
        }
        is_asked
    }

    /// The buffer, and who brought what, adjacent segments of one connection as one.
    pub(super) fn finish(self) -> (Buffer, Vec<Contribution>) {
        let mut parts: Vec<Contribution> = Vec::new();
        for Segment { request, start, next, .. } in self.segments {
            let Some(Request { conn, peer, .. }) = request else { continue };
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
    use crate::ids::Topic;
    use alloc::vec;

    const NOW: Instant = Instant(0);

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    fn transfer() -> Transfer {
        let mut transfer = Transfer::new(Place::new(Topic([1; 32]), 0, false), Buffer::new(), false, 0);
        transfer.ask(0, request(1));
        transfer
    }

    fn request(slot: u32) -> Request {
        Request::new(conn(slot), "127.0.0.1:1".parse().expect("an address"), 0, NOW)
    }

    #[test]
    fn two_peers_fill_one_blob_and_it_is_known_who_brought_what() {
        let end = u32::try_from(BLOB_LEN).expect("small");
        let mut transfer = transfer();
        assert_eq!(transfer.feed(conn(1), 0, &vec![1; 600_000], NOW), Fed::First(Duration::ZERO));
        assert_eq!(transfer.feed(conn(1), 0, &[1; 10], NOW), Fed::Unwanted, "in order only");
        let (cut, rest) = transfer.take_over(0, 800_000);
        assert_eq!(cut.map(|request| request.conn()), Some(conn(1)));
        transfer.ask(rest, request(2));
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
        let mut transfer = transfer();
        transfer.feed(conn(1), 0, &[1; 100], NOW);
        assert!(transfer.release(conn(1)) && !transfer.release(conn(2)));
        assert!(transfer.is_abandoned() && !transfer.is_worthless());
        let at = transfer.segments.iter().position(Segment::is_orphan).expect("the rest");
        assert_eq!(transfer.bounds(at).map(|bounds| bounds.start), Some(100));
        transfer.ask(at, request(2));
        transfer.release(conn(2));
        assert_eq!(transfer.segments.len(), 2, "what brought nothing leaves nothing");
    }
}
