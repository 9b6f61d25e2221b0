//! One native blob on its way: a part is wanted, under way from one peer or more, or here; that is all.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::buffer::Buffer;
use crate::ids::ConnId;
use crate::parts::{Mask, Values};
use crate::time::Instant;

/// A part that a connection was asked for and has not brought whole.
#[derive(Debug)]
pub(super) struct Request {
    conn: ConnId,
    part: usize,
    asked: Instant,
    /// Only so many bytes of it, since the rest can be made here.
    len: Option<usize>,
    /// It waited at another connection before, and stays at this one.
    was_moved: bool,
    /// Its first half, once that came.
    begun: Option<Buffer>,
}

impl Request {
    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(super) fn part(&self) -> usize {
        self.part
    }

    pub(super) fn asked(&self) -> Instant {
        self.asked
    }

    /// How many bytes of it were asked for, where not all were.
    pub(super) fn len(&self) -> Option<usize> {
        self.len
    }

    pub(super) fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    pub(super) fn was_moved(&self) -> bool {
        self.was_moved
    }
}

/// What of a blob is here, and what is under way from whom.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    /// The parts that must come from peers.
    needed: Mask,
    values: Option<Arc<Values>>,
    here: Mask,
    /// Those that came whole and are being written.
    writing: Mask,
    requests: Vec<Request>,
    /// A part that was completed here came out wrong: its sender or the blob's author is to blame.
    needs_all: bool,
    /// The store makes the blob whole.
    is_finishing: bool,
}

impl Transfer {
    /// These parts must come from peers too.
    pub(super) fn need(&mut self, mask: Mask) {
        self.needed = self.needed | mask;
    }

    /// Exactly these parts must come from peers, unless all must.
    pub(super) fn set_needed(&mut self, mask: Mask) {
        self.needed = if self.needs_all { Mask::ALL } else { mask };
    }

    pub(super) fn values(&self) -> Option<&Arc<Values>> {
        self.values.as_ref()
    }

    pub(super) fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The parts that are here.
    pub(super) fn here(&self) -> Mask {
        self.here
    }

    /// The parts that somebody is asked for.
    pub(super) fn asked(&self) -> Mask {
        self.requests.iter().fold(Mask::NONE, |mask, request| mask | Mask::one(request.part))
    }

    /// The parts that nobody is asked for.
    pub(super) fn unasked(&self) -> Mask {
        if self.is_finishing { Mask::NONE } else { self.needed - self.here - self.writing - self.asked() }
    }

    /// Something of it came or is under way.
    pub(super) fn is_begun(&self) -> bool {
        !self.here.is_empty() || !self.is_idle()
    }

    /// Nobody is asked for any of it, and nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.writing.is_empty() && !self.is_finishing
    }

    /// Counts the parts that are under way, each once.
    pub(super) fn parts_under_way(&self) -> usize {
        (self.asked() | self.writing).len()
    }

    /// Counts what is under way: requests, and parts that are being written.
    pub(super) fn under_way(&self) -> usize {
        self.requests.len() + self.writing.len()
    }

    /// The store holds the whole blob: what was asked for is no longer wanted.
    pub(super) fn found_whole(&mut self) -> (Vec<ConnId>, Vec<Buffer>) {
        self.made_whole();
        self.give_up()
    }

    /// The store has made the blob whole.
    pub(super) fn made_whole(&mut self) {
        self.here = Mask::ALL;
    }

    /// Parts and values that the store holds from an earlier time.
    pub(super) fn found(&mut self, here: Mask, values: Values) {
        if self.values.is_none() {
            self.values = Some(Arc::new(values));
        }
        self.here = self.here | here;
    }

    // --- what comes -----------------------------------------------------------------------------------------

    /// Values that give the blob's root.
    pub(super) fn set_values(&mut self, values: Values) {
        self.values.get_or_insert_with(|| Arc::new(values));
    }

    /// A connection is asked for parts; for so many bytes of each, where not for all.
    pub(super) fn ask(&mut self, conn: ConnId, mask: Mask, len: Option<usize>, now: Instant) {
        let request = |part| Request { conn, part, asked: now, len, was_moved: false, begun: None };
        self.requests.extend(mask.iter().map(request));
    }

    /// A part that a connection is asked for waited at another one before.
    pub(super) fn note_moved(&mut self, conn: ConnId, part: usize) {
        let moved = self.requests.iter_mut().find(|request| request.conn == conn && request.part == part);
        if let Some(request) = moved {
            request.was_moved = true;
        }
    }

    /// Whether parts must come from peers to their last byte.
    pub(super) fn needs_all(&self) -> bool {
        self.needs_all
    }

    /// A part that was completed here came out wrong, and is wanted again to its last byte.
    pub(super) fn came_out_wrong(&mut self, part: usize) {
        self.needs_all = true;
        self.written(part, false);
    }

    fn request(&self, conn: ConnId, part: usize) -> Option<usize> {
        self.requests.iter().position(|request| request.conn == conn && request.part == part)
    }

    /// What a connection was asked for of a part.
    pub(super) fn request_of(&self, conn: ConnId, part: usize) -> Option<&Request> {
        self.request(conn, part).map(|at| &self.requests[at])
    }

    /// Whether a connection is asked for a part.
    pub(super) fn is_asked(&self, conn: ConnId, part: usize) -> bool {
        self.request(conn, part).is_some()
    }

    /// How many connections are asked for a part.
    pub(super) fn askers(&self, part: usize) -> usize {
        self.requests.iter().filter(|request| request.part == part).count()
    }

    /// The first half of a part came; the rest follows. Gives the buffer back where nobody waits for it.
    pub(super) fn keep_half(&mut self, conn: ConnId, part: usize, buffer: Buffer) -> Option<Buffer> {
        match self.request(conn, part) {
            Some(at) => self.requests[at].begun.replace(buffer),
            None => Some(buffer),
        }
    }

    /// Takes the first half of a part, to add the second to it.
    pub(super) fn take_half(&mut self, conn: ConnId, part: usize) -> Option<Buffer> {
        self.request(conn, part).and_then(|at| self.requests[at].begun.take())
    }

    /// A part came whole over a connection, and is to be written, unless it is here already. `false`: it is.
    pub(super) fn came(&mut self, conn: ConnId, part: usize) -> bool {
        if let Some(at) = self.request(conn, part) {
            self.requests.remove(at);
        }
        let is_missing = !(self.here | self.writing).has(part);
        if is_missing {
            self.writing = self.writing | Mask::one(part);
        }
        is_missing
    }

    /// What became of a part that was written. Where it is stored, what others were asked for of it is no longer wanted: they,
    /// and their buffers.
    pub(super) fn written(&mut self, part: usize, is_stored: bool) -> (Vec<ConnId>, Vec<Buffer>) {
        let mask = Mask::one(part);
        self.writing = self.writing - mask;
        if !is_stored {
            return (Vec::new(), Vec::new());
        }
        self.here = self.here | mask;
        self.take_requests(|request| request.part == part)
    }

    /// Takes all requests that `fit`, as connections and buffers.
    fn take_requests(&mut self, fit: impl Fn(&Request) -> bool) -> (Vec<ConnId>, Vec<Buffer>) {
        let (taken, left): (Vec<Request>, Vec<Request>) = self.requests.drain(..).partition(fit);
        self.requests = left;
        let conns = taken.iter().map(|request| request.conn).collect();
        (conns, taken.into_iter().filter_map(|request| request.begun).collect())
    }

    /// A connection brings nothing more of these parts. Their buffers.
    pub(super) fn release(&mut self, conn: ConnId, mask: Mask) -> Vec<Buffer> {
        self.take_requests(|request| request.conn == conn && mask.has(request.part)).1
    }

    /// Nothing of it is wanted any more: the connections that were asked, and their buffers.
    pub(super) fn give_up(&mut self) -> (Vec<ConnId>, Vec<Buffer>) {
        self.take_requests(|_| true)
    }

    /// Whether all that must come from peers is here, and the store does not yet make the blob whole.
    pub(super) fn is_to_be_finished(&self) -> bool {
        !self.is_finishing && !self.needed.is_empty() && self.here.covers(self.needed)
    }

    pub(super) fn set_finishing(&mut self, is_finishing: bool) {
        self.is_finishing = is_finishing;
    }

    /// The store has lost what it held.
    pub(super) fn lost(&mut self) {
        self.here = Mask::NONE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{PART_LEN, VALUES_LEN};

    const NOW: Instant = Instant(0);

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    fn buffer() -> Buffer {
        Buffer::for_blob_of(PART_LEN)
    }

    #[test]
    fn a_part_is_wanted_under_way_or_here() {
        let mut transfer = Transfer::default();
        transfer.need(Mask::first(2));
        assert_eq!((transfer.unasked(), transfer.is_begun()), (Mask(3), false));
        transfer.ask(conn(1), Mask(3), None, NOW);
        transfer.ask(conn(2), Mask(1), None, NOW);
        assert_eq!((transfer.unasked(), transfer.askers(0), transfer.askers(1)), (Mask::NONE, 2, 1));
        assert!(transfer.keep_half(conn(2), 0, buffer()).is_none());
        assert!(transfer.keep_half(conn(2), 1, buffer()).is_some(), "it was not asked for it");
        assert!(transfer.came(conn(1), 0));
        let (others, buffers) = transfer.written(0, true);
        assert_eq!((others, buffers.len()), (Vec::from([conn(2)]), 1));
        assert!(!transfer.came(conn(2), 0), "it is here");
        transfer.release(conn(1), Mask::ALL);
        assert_eq!((transfer.unasked(), transfer.is_to_be_finished()), (Mask(2), false));
        transfer.found(Mask(2), Values::from_bytes([0; VALUES_LEN]));
        assert!(transfer.is_to_be_finished() && transfer.is_idle());
    }

    #[test]
    fn a_wrong_part_is_wanted_again() {
        let mut transfer = Transfer::default();
        transfer.need(Mask(1));
        transfer.ask(conn(1), Mask(1), None, NOW);
        assert!(transfer.take_half(conn(1), 0).is_none());
        assert!(transfer.came(conn(1), 0) && transfer.unasked().is_empty());
        transfer.written(0, false);
        assert_eq!(transfer.unasked(), Mask(1));
    }
}
