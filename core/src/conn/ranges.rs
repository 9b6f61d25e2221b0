//! Ranges of blobs between two v6 peers (`docs/protocol.md` §12): those we asked for and those we owe.
//!
//! Both are bounded: our ranges by the node's windows, the peer's by [`WANTS_MAX`].

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use crate::buffer::Buffer;
use crate::codec::Message;
use crate::error::Violation;
use crate::ids::BlobName;
use crate::limits::{PIECE_LEN_MAX, WANTS_MAX};

/// Bytes of a blob in each of our PIECEs: as few pieces as possible, all about equally long.
pub(super) const fn piece_len(blob_len: usize) -> usize {
    blob_len.div_ceil(blob_len.div_ceil(PIECE_LEN_MAX))
}

/// A range that we asked for and that has not come whole.
#[derive(Debug)]
struct Asked {
    blob: BlobName,
    /// Where the peer's next PIECE begins.
    next: u32,
    /// Where the range ends, or was cut.
    end: u32,
}

/// What a PIECE brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// The first `len` bytes are the blob's at this offset; the rest is no longer wanted.
    Bytes { blob: BlobName, offset: u32, len: usize },
    /// The peer does not serve the range.
    Refused(BlobName),
    /// Only bytes of a cancelled range.
    Late,
}

/// The ranges that we asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    next_id: u32,
    open: BTreeMap<u32, Asked>,
    /// How many cancelled bytes may still come, because they may have been in flight.
    late_allowed: u64,
}

impl Wanted {
    /// Asks for a range; returns its number, and the message that asks.
    pub(super) fn ask(&mut self, blob: BlobName, range: Range<u32>) -> (u32, Message) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.open.insert(id, Asked { blob, next: range.start, end: range.end });
        (id, Message::Want { id, blob, range })
    }

    /// Gives up the part of a range from `from` on; returns the message that says so, unless there is no such part.
    pub(super) fn cut(&mut self, id: u32, from: u32) -> Option<Message> {
        let asked = self.open.get_mut(&id).filter(|asked| from < asked.end)?;
        let from = from.max(asked.next);
        self.late_allowed += u64::from(asked.end - from);
        asked.end = from;
        if asked.next == from {
            self.open.remove(&id);
        }
        Some(Message::Cancel { id, from })
    }

    /// Takes a PIECE of `len` bytes.
    pub(super) fn take(&mut self, id: u32, offset: u32, len: usize) -> Result<Brought, Violation> {
        let piece_len = u32::try_from(len).map_err(|_| Violation::DataLong)?;
        let Some(asked) = self.open.get_mut(&id) else {
            // It may have been in flight when its range was cancelled.
            self.late_allowed = self.late_allowed.checked_sub(len as u64).ok_or(Violation::UnaskedData)?;
            return if id < self.next_id { Ok(Brought::Late) } else { Err(Violation::UnaskedData) };
        };
        let blob = asked.blob;
        if len == 0 {
            self.open.remove(&id);
            return Ok(Brought::Refused(blob));
        }
        if offset != asked.next {
            return Err(Violation::UnaskedData);
        }
        let useful = piece_len.min(asked.end - asked.next);
        self.late_allowed =
            self.late_allowed.checked_sub(u64::from(piece_len - useful)).ok_or(Violation::DataLong)?;
        asked.next += useful;
        if asked.next == asked.end {
            self.open.remove(&id);
        }
        Ok(Brought::Bytes { blob, offset, len: useful as usize })
    }

    /// Counts the ranges that have not come whole.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Counts the bytes that have not come.
    pub(super) fn open_bytes(&self) -> u64 {
        self.open.values().map(|asked| u64::from(asked.end - asked.next)).sum()
    }
}

#[derive(Debug)]
enum State {
    /// It waits for an upload slot.
    Waiting,
    /// The store is reading its blob.
    Loading,
    Loaded(Buffer),
    /// The store does not have its blob.
    Missing,
}

/// A range that the peer asked for.
#[derive(Debug)]
struct Want {
    id: u32,
    blob: BlobName,
    next: u32,
    end: u32,
    state: State,
}

impl Want {
    /// Whether its last byte, its refusal or a CANCEL of the rest is still to come (`docs/protocol.md` §12).
    fn is_open(&self) -> bool {
        self.next < self.end
    }
}

/// The next PIECE to send.
pub(super) struct Piece<'a> {
    pub(super) id: u32,
    pub(super) offset: u32,
    /// Empty: the range is refused.
    pub(super) bytes: &'a [u8],
}

/// The ranges that the peer asked for, oldest first.
#[derive(Debug, Default)]
pub(super) struct Owed {
    wants: VecDeque<Want>,
    /// Buffers that are no longer needed.
    spent: Vec<Buffer>,
}

impl Owed {
    pub(super) fn want(&mut self, id: u32, blob: BlobName, range: Range<u32>) -> Result<(), Violation> {
        // Cancelled ranges that wait for the store's answer do not count: there are at most two.
        let mut open = 0;
        for want in self.wants.iter().filter(|want| want.is_open()) {
            if want.id == id {
                return Err(Violation::WantRepeated);
            }
            open += 1;
        }
        if open >= WANTS_MAX {
            return Err(Violation::TooManyWants);
        }
        self.wants.push_back(Want { id, blob, next: range.start, end: range.end, state: State::Waiting });
        Ok(())
    }

    pub(super) fn cancel(&mut self, id: u32, from: u32) {
        let Some(at) = self.wants.iter().position(|want| want.id == id && want.is_open()) else { return };
        let want = &mut self.wants[at];
        want.end = want.end.min(from);
        // A range that the store is reading stays, so that the answer finds it.
        if !want.is_open() && !matches!(want.state, State::Loading) {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(Want { state: State::Loaded(buffer), .. }) = self.wants.remove(at) {
            self.spent.push(buffer);
        }
    }

    /// Returns the blobs of the ranges that wait for a slot, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = BlobName> {
        self.wants.iter().filter(|want| matches!(want.state, State::Waiting)).map(|want| want.blob)
    }

    /// Counts the ranges that are being read or sent.
    pub(super) fn slots(&self) -> usize {
        let is_in_slot = |want: &&Want| matches!(want.state, State::Loading | State::Loaded(_));
        self.wants.iter().filter(is_in_slot).count()
    }

    /// Marks the blob of a range that [`Self::waiting`] named as being read.
    pub(super) fn loading(&mut self, blob: &BlobName) {
        let waits = |want: &&mut Want| want.blob == *blob && matches!(want.state, State::Waiting);
        if let Some(want) = self.wants.iter_mut().find(waits) {
            want.state = State::Loading;
        }
    }

    /// Takes the store's answer. Gives the buffer back where no range waits for it.
    pub(super) fn loaded(&mut self, blob: &BlobName, found: Option<Buffer>) -> Option<Buffer> {
        let at = self.wants.iter().position(|w| w.blob == *blob && matches!(w.state, State::Loading));
        let Some(at) = at else { return found };
        let want = &mut self.wants[at];
        if !want.is_open() {
            self.wants.remove(at);
            return found;
        }
        want.state = found.map_or(State::Missing, State::Loaded);
        None
    }

    /// Takes the buffer of a range that is being sent; the range waits for another slot.
    pub(super) fn unload(&mut self) -> Option<Buffer> {
        let want = self.wants.iter_mut().find(|want| matches!(want.state, State::Loaded(_)))?;
        match core::mem::replace(&mut want.state, State::Waiting) {
            State::Loaded(buffer) => Some(buffer),
            _ => None,
        }
    }

    pub(super) fn has_piece(&self) -> bool {
        self.wants.iter().any(|want| matches!(want.state, State::Loaded(_) | State::Missing))
    }

    /// Hands the next PIECE to `write`.
    pub(super) fn send_piece<T>(&mut self, write: impl FnOnce(&Piece<'_>) -> T) -> Option<T> {
        let ready = |want: &Want| matches!(want.state, State::Loaded(_) | State::Missing);
        let at = self.wants.iter().position(ready)?;
        let want = &mut self.wants[at];
        let State::Loaded(buffer) = &want.state else {
            let refused = Piece { id: want.id, offset: want.next, bytes: &[] };
            let sent = write(&refused);
            self.remove(at);
            return Some(sent);
        };
        let blob = buffer.blob();
        let start = want.next as usize;
        // In a suite with shorter blobs a range may lie beyond the blob: an empty piece refuses it.
        let end = (want.end as usize).min(start + piece_len(blob.len())).min(blob.len());
        let bytes = blob.get(start..end).unwrap_or_default();
        let sent = write(&Piece { id: want.id, offset: want.next, bytes });
        want.next += u32::try_from(bytes.len()).expect("a piece is short");
        if !want.is_open() || bytes.is_empty() {
            self.remove(at);
        }
        Some(sent)
    }

    /// Takes a buffer that is no longer needed.
    pub(super) fn take_spent(&mut self) -> Option<Buffer> {
        self.spent.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Returns all buffers that it holds; the connection is over.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = Buffer> {
        let loaded = self.wants.into_iter().filter_map(|want| match want.state {
            State::Loaded(buffer) => Some(buffer),
            _ => None,
        });
        loaded.chain(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BLOB_LEN;

    const BLOB: BlobName = BlobName([1; 32]);

    #[test]
    fn a_range_comes_in_order_and_no_further_than_asked() {
        let mut wanted = Wanted::default();
        let (id, _) = wanted.ask(BLOB, 100..300);
        assert_eq!(wanted.take(id, 100, 150), Ok(Brought::Bytes { blob: BLOB, offset: 100, len: 150 }));
        assert_eq!((wanted.open(), wanted.open_bytes()), (1, 50));
        assert_eq!(wanted.take(id, 260, 10), Err(Violation::UnaskedData));
        assert_eq!(wanted.take(id, 250, 51), Err(Violation::DataLong));
        let (id, _) = wanted.ask(BLOB, 0..10);
        assert_eq!(wanted.take(id, 0, 10), Ok(Brought::Bytes { blob: BLOB, offset: 0, len: 10 }));
        assert_eq!(wanted.take(id, 10, 1), Err(Violation::UnaskedData), "nothing was cancelled");
        assert_eq!(wanted.take(id + 1, 0, 1), Err(Violation::UnaskedData));
    }

    #[test]
    fn cancelled_bytes_may_still_come_but_only_once() {
        let mut wanted = Wanted::default();
        let (id, _) = wanted.ask(BLOB, 0..100);
        assert_eq!(wanted.take(id, 0, 10), Ok(Brought::Bytes { blob: BLOB, offset: 0, len: 10 }));
        assert_eq!(wanted.cut(id, 50), Some(Message::Cancel { id, from: 50 }));
        assert_eq!(wanted.cut(id, 50), None);
        assert_eq!(wanted.take(id, 10, 60), Ok(Brought::Bytes { blob: BLOB, offset: 10, len: 40 }));
        assert_eq!(wanted.take(id, 70, 30), Ok(Brought::Late));
        assert_eq!(wanted.take(id, 100, 1), Err(Violation::UnaskedData));
    }

    #[test]
    fn a_range_is_refused_by_an_empty_piece() {
        let mut wanted = Wanted::default();
        let (id, _) = wanted.ask(BLOB, 0..100);
        assert_eq!(wanted.take(id, 0, 0), Ok(Brought::Refused(BLOB)));
        assert_eq!(wanted.open(), 0);
    }

    fn pieces(owed: &mut Owed) -> Vec<(u32, u32, usize)> {
        core::iter::from_fn(|| owed.send_piece(|piece| (piece.id, piece.offset, piece.bytes.len()))).collect()
    }

    #[test]
    fn a_range_is_sent_in_pieces_and_its_buffer_comes_back() {
        let mut owed = Owed::default();
        let end = u32::try_from(BLOB_LEN).expect("small");
        owed.want(7, BLOB, 0..end).expect("the first");
        assert_eq!(owed.waiting().collect::<Vec<_>>(), [BLOB]);
        owed.loading(&BLOB);
        assert_eq!((owed.waiting().count(), owed.slots()), (0, 1));
        assert!(owed.loaded(&BLOB, Some(Buffer::new())).is_none());
        let sent = pieces(&mut owed);
        assert_eq!(sent.len(), 17);
        assert!(sent.iter().all(|(id, _, len)| *id == 7 && *len <= PIECE_LEN_MAX));
        assert_eq!(sent.iter().map(|(.., len)| len).sum::<usize>(), BLOB_LEN);
        assert_eq!((owed.spent.len(), owed.is_empty()), (1, true));
    }

    #[test]
    fn a_cancelled_range_ends_at_the_cut_even_while_it_is_read() {
        let mut owed = Owed::default();
        owed.want(1, BLOB, 0..100).expect("few");
        owed.want(2, BLOB, 0..100).expect("few");
        owed.loading(&BLOB);
        owed.cancel(1, 40);
        owed.cancel(2, 0);
        assert!(owed.loaded(&BLOB, Some(Buffer::new())).is_none());
        assert_eq!(pieces(&mut owed), [(1, 0, 40)]);
        owed.want(3, BLOB, 0..100).expect("few");
        owed.loading(&BLOB);
        owed.cancel(3, 0);
        assert!(owed.loaded(&BLOB, Some(Buffer::new())).is_some(), "no range waits for it");
        assert!(owed.is_empty());
    }

    #[test]
    fn a_number_that_is_open_is_not_used_again() {
        let mut owed = Owed::default();
        owed.want(1, BLOB, 0..100).expect("the first");
        assert_eq!(owed.want(1, BlobName([2; 32]), 0..100), Err(Violation::WantRepeated));
        owed.loading(&BLOB);
        assert_eq!(owed.want(1, BLOB, 100..200), Err(Violation::WantRepeated), "it is being read");
        owed.cancel(1, 50);
        assert_eq!(owed.want(1, BLOB, 100..200), Err(Violation::WantRepeated), "half of it is still wanted");
        owed.cancel(1, 0);
        owed.want(1, BLOB, 100..200).expect("cancelled, though the store reads it");
        owed.cancel(1, 150);
        owed.loading(&BLOB);
        assert!(owed.loaded(&BLOB, Some(Buffer::new())).is_some(), "the first one's, which was cancelled");
        assert!(owed.loaded(&BLOB, Some(Buffer::new())).is_none());
        assert_eq!(pieces(&mut owed), [(1, 100, 50)], "the CANCEL was of the second one");
        owed.want(1, BLOB, 0..100).expect("its last byte was sent");
        owed.loading(&BLOB);
        owed.loaded(&BLOB, None);
        assert_eq!(owed.want(1, BLOB, 0..100), Err(Violation::WantRepeated), "its refusal is not sent");
        assert_eq!(pieces(&mut owed), [(1, 0, 0)]);
        owed.want(1, BLOB, 0..100).expect("it was refused");
    }

    #[test]
    fn a_slot_can_be_taken_back_and_the_range_goes_on_where_it_was() {
        let mut owed = Owed::default();
        owed.want(1, BLOB, 0..200_000).expect("few");
        owed.loading(&BLOB);
        owed.loaded(&BLOB, Some(Buffer::new()));
        let first = owed.send_piece(|piece| piece.bytes.len()).expect("it is loaded");
        assert!(owed.unload().is_some() && owed.unload().is_none());
        assert!(!owed.has_piece() && owed.waiting().count() == 1);
        owed.loading(&BLOB);
        owed.loaded(&BLOB, Some(Buffer::new()));
        assert_eq!(owed.send_piece(|piece| piece.offset as usize), Some(first));
    }

    #[test]
    fn a_range_of_a_missing_blob_is_refused_and_too_many_ranges_are_a_violation() {
        let mut owed = Owed::default();
        for id in 0..WANTS_MAX {
            owed.want(u32::try_from(id).expect("few"), BLOB, 0..100).expect("within the bound");
        }
        assert_eq!(owed.want(99, BLOB, 0..100), Err(Violation::TooManyWants));
        owed.loading(&BLOB);
        assert!(owed.loaded(&BLOB, None).is_none());
        assert_eq!(pieces(&mut owed), [(0, 0, 0)]);
    }
}
