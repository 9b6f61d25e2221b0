//! The parts that a peer asked us for (`docs/protocol.md` §12). [`WANTS_MAX`] bounds them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::buffer::Buffer;
use crate::codec::Want;
use crate::error::Violation;
use crate::ids::Root;
use crate::limits::{PIECE_LEN_MAX, WANTS_MAX};
use crate::parts::{Mask, Values};

/// What the peer asked for under one number.
struct Owing {
    number: u32,
    root: Root,
    /// The parts that wait for an upload slot.
    waiting: Mask,
    /// Those that the store is reading, and those of them that were cancelled meanwhile.
    loading: Mask,
    cancelled: Mask,
    loaded: VecDeque<(usize, Buffer)>,
    /// Parts of which the first half was sent, and those of them that were cancelled since: they are sent to their end.
    half_sent: Mask,
    ending: Mask,
    /// The values are to be sent first, as soon as they are known.
    values_due: bool,
    values: Option<Box<Values>>,
    /// The last part and how many bytes of it are wanted, where not all are.
    cut: Option<(usize, usize)>,
    /// Parts that the store does not have. They are refused once all others are sent, since a refusal is of all that is left.
    missing: Mask,
}

impl Owing {
    /// Whether its last byte, its refusal or a CANCEL of the rest is still to come (`docs/protocol.md` §12).
    fn is_open(&self) -> bool {
        !(self.left() - self.ending).is_empty()
    }

    /// The parts that are still to be sent.
    fn left(&self) -> Mask {
        let loaded = self.loaded.iter().fold(Mask::NONE, |mask, (part, _)| mask | Mask::one(*part));
        self.waiting | (self.loading - self.cancelled) | loaded | self.missing
    }

    /// Whether nothing refers to it.
    fn is_done(&self) -> bool {
        self.left().is_empty() && self.loading.is_empty()
    }

    /// Whether nothing is left but what is refused.
    fn is_refused(&self) -> bool {
        !self.missing.is_empty() && self.left() == self.missing
    }

    fn has_message(&self) -> bool {
        self.is_refused() || !self.loaded.is_empty()
    }
}

/// The next message of a WANT's answer.
pub(super) enum Answer<'a> {
    /// PARTS.
    Values { number: u32, values: &'a Values },
    /// PIECE; without bytes, what is left is refused.
    Piece { number: u32, part: usize, half: u8, bytes: &'a [u8] },
}

/// What the peer asked for, oldest first.
#[derive(Default)]
pub(super) struct Owed {
    wants: VecDeque<Owing>,
    /// Buffers that are no longer needed.
    spent: Vec<Buffer>,
}

impl Owed {
    pub(super) fn want(&mut self, want: &Want) -> Result<(), Violation> {
        // What a CANCEL has closed does not count while the store reads parts of it or half of one is sent. There is little of it.
        let mut open = 0;
        for owing in self.wants.iter().filter(|owing| owing.is_open()) {
            if owing.number == want.number {
                return Err(Violation::WantRepeated);
            }
            open += 1;
        }
        if open >= WANTS_MAX || self.wants.len() >= 2 * WANTS_MAX {
            return Err(Violation::TooManyWants);
        }
        let last = want.mask.last().unwrap_or_default();
        self.wants.push_back(Owing {
            number: want.number,
            root: want.root,
            waiting: want.mask,
            loading: Mask::NONE,
            cancelled: Mask::NONE,
            loaded: VecDeque::new(),
            half_sent: Mask::NONE,
            ending: Mask::NONE,
            values_due: want.values,
            values: None,
            cut: want.last_len.map(|len| (last, len as usize)),
            missing: Mask::NONE,
        });
        Ok(())
    }

    pub(super) fn cancel(&mut self, number: u32, mask: Mask) {
        let Some(at) = self.wants.iter().position(|owing| owing.number == number && owing.is_open()) else {
            return;
        };
        let owing = &mut self.wants[at];
        owing.ending = owing.ending | (mask & owing.half_sent);
        let mask = mask - owing.half_sent;
        owing.waiting = owing.waiting - mask;
        owing.missing = owing.missing - mask;
        owing.cancelled = owing.cancelled | (owing.loading & mask);
        let is_gone = |(part, _): &(usize, Buffer)| mask.has(*part);
        let (gone, left): (Vec<_>, Vec<_>) = owing.loaded.drain(..).partition(is_gone);
        owing.loaded = left.into();
        self.spent.extend(gone.into_iter().map(|(_, buffer)| buffer));
        self.tidy();
    }

    /// Forgets what is done.
    fn tidy(&mut self) {
        self.wants.retain(|owing| !owing.is_done());
    }

    /// Returns the parts of blobs that wait for a slot, oldest first, and whether no more than one PIECE of the last is wanted.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Root, Mask, bool)> {
        let waits = self.wants.iter().filter(|owing| !owing.waiting.is_empty());
        let is_short = |owing: &Owing| owing.cut.is_some_and(|(_, len)| len <= PIECE_LEN_MAX);
        waits.map(move |owing| (owing.root, owing.waiting, is_short(owing)))
    }

    /// Counts the parts that are being read or sent.
    pub(super) fn slots(&self) -> usize {
        self.wants.iter().map(|owing| owing.loading.len() + owing.loaded.len()).sum()
    }

    /// Marks a part that [`Self::waiting`] named as being read.
    pub(super) fn loading(&mut self, root: &Root, part: usize) {
        let waits = |owing: &&mut Owing| owing.root == *root && owing.waiting.has(part);
        if let Some(owing) = self.wants.iter_mut().find(waits) {
            owing.waiting = owing.waiting - Mask::one(part);
            owing.loading = owing.loading | Mask::one(part);
            owing.cancelled = owing.cancelled - Mask::one(part);
        }
    }

    /// Takes the store's answer. Gives the buffer back where nobody waits for it.
    pub(super) fn loaded(
        &mut self,
        root: &Root,
        part: usize,
        found: Option<(Buffer, Box<Values>)>,
    ) -> Option<Buffer> {
        let reads = |owing: &&mut Owing| owing.root == *root && owing.loading.has(part);
        let Some(owing) = self.wants.iter_mut().find(reads) else { return found.map(|(buffer, _)| buffer) };
        owing.loading = owing.loading - Mask::one(part);
        let is_cancelled = owing.cancelled.has(part);
        owing.cancelled = owing.cancelled - Mask::one(part);
        let mut unused = None;
        match found {
            Some((buffer, _)) if is_cancelled => unused = Some(buffer),
            Some((buffer, values)) => {
                owing.values = owing.values_due.then_some(values);
                owing.loaded.push_back((part, buffer));
            }
            None if is_cancelled => {}
            None => owing.missing = owing.missing | Mask::one(part),
        }
        self.tidy();
        unused
    }

    /// Takes the buffer of a part that is being sent; the part waits for another slot.
    pub(super) fn unload(&mut self) -> Option<Buffer> {
        let owing = self.wants.iter_mut().find(|owing| !owing.loaded.is_empty())?;
        let (part, buffer) = owing.loaded.pop_back()?;
        owing.waiting = owing.waiting | Mask::one(part);
        Some(buffer)
    }

    pub(super) fn has_message(&self) -> bool {
        self.wants.iter().any(Owing::has_message)
    }

    /// Hands the next message to `write`.
    pub(super) fn send<T>(&mut self, write: impl FnOnce(&Answer<'_>) -> T) -> Option<T> {
        let owing = self.wants.iter_mut().find(|owing| owing.has_message())?;
        let number = owing.number;
        if owing.is_refused() {
            let sent = write(&Answer::Piece { number, part: 0, half: 0, bytes: &[] });
            owing.missing = Mask::NONE;
            self.tidy();
            return Some(sent);
        }
        if let Some(values) = owing.values.take().filter(|_| owing.values_due) {
            owing.values_due = false;
            return Some(write(&Answer::Values { number, values: &values }));
        }
        let (part, buffer) = owing.loaded.front()?;
        let part = *part;
        let bytes = buffer.blob();
        let half_len = bytes.len().div_ceil(2);
        let wanted =
            owing.cut.filter(|(cut, _)| *cut == part).map_or(bytes.len(), |(_, len)| len.min(bytes.len()));
        let is_second = owing.half_sent.has(part);
        let range = if is_second { half_len.min(wanted)..wanted } else { 0..half_len.min(wanted) };
        let is_last = range.end == wanted;
        let sent = write(&Answer::Piece { number, part, half: u8::from(is_second), bytes: &bytes[range] });
        if is_last {
            owing.half_sent = owing.half_sent - Mask::one(part);
            owing.ending = owing.ending - Mask::one(part);
            self.spent.extend(owing.loaded.pop_front().map(|(_, buffer)| buffer));
            self.tidy();
        } else {
            owing.half_sent = owing.half_sent | Mask::one(part);
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
        self.wants.into_iter().flat_map(|owing| owing.loaded).map(|(_, buffer)| buffer).chain(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{PART_LEN, VALUES_LEN};

    const ROOT: Root = Root([1; 32]);
    const HALF: usize = PIECE_LEN_MAX;

    fn want(number: u32, mask: u16) -> Want {
        Want { number, root: ROOT, mask: Mask(mask), values: false, last_len: None }
    }

    fn part() -> (Buffer, Box<Values>) {
        (Buffer::for_blob_of(PART_LEN), Box::new(Values::from_bytes([7; VALUES_LEN])))
    }

    /// Loads a part; whether somebody waits for it.
    fn load(owed: &mut Owed, number: usize) -> bool {
        owed.loading(&ROOT, number);
        owed.loaded(&ROOT, number, Some(part())).is_none()
    }

    /// What is sent: number, part, half and length; of values, the number and 99.
    fn sent(owed: &mut Owed) -> Vec<(u32, usize, u8, usize)> {
        let answer = |answer: &Answer<'_>| match answer {
            Answer::Values { number, .. } => (*number, 99, 0, 0),
            Answer::Piece { number, part, half, bytes } => (*number, *part, *half, bytes.len()),
        };
        core::iter::from_fn(|| owed.send(answer)).collect()
    }

    #[test]
    fn values_come_before_the_halves_of_each_part_and_the_buffers_come_back() {
        let mut owed = Owed::default();
        owed.want(&Want { values: true, ..want(7, 0b11) }).expect("the first");
        assert_eq!(owed.waiting().collect::<Vec<_>>(), [(ROOT, Mask(0b11), false)]);
        assert!(load(&mut owed, 1) && load(&mut owed, 0));
        assert_eq!((owed.waiting().count(), owed.slots()), (0, 2));
        let pieces = [(7, 99, 0, 0), (7, 1, 0, HALF), (7, 1, 1, HALF), (7, 0, 0, HALF), (7, 0, 1, HALF)];
        assert_eq!(sent(&mut owed), pieces);
        assert_eq!((owed.spent.len(), owed.is_empty()), (2, true));
    }

    #[test]
    fn cancelled_parts_are_not_sent_even_while_they_are_read() {
        let mut owed = Owed::default();
        owed.want(&want(1, 0b111)).expect("few");
        assert!(load(&mut owed, 0));
        owed.loading(&ROOT, 1);
        owed.cancel(1, Mask(0b011));
        assert_eq!(owed.spent.len(), 1);
        assert!(owed.loaded(&ROOT, 1, Some(part())).is_some(), "nobody waits for it");
        assert!(load(&mut owed, 2));
        assert_eq!(sent(&mut owed).iter().map(|(_, part, ..)| *part).collect::<Vec<_>>(), [2, 2]);
        owed.want(&want(2, 1)).expect("few");
        owed.loading(&ROOT, 0);
        owed.cancel(2, Mask::ALL);
        owed.want(&want(2, 1)).expect("it was cancelled, though the store reads it");
        assert!(owed.loaded(&ROOT, 0, Some(part())).is_some() && owed.waiting().count() == 1);
    }

    #[test]
    fn what_the_store_lacks_is_refused_once_all_else_is_sent() {
        let mut owed = Owed::default();
        owed.want(&want(1, 0b111)).expect("few");
        assert!(load(&mut owed, 0));
        owed.loading(&ROOT, 1);
        assert!(owed.loaded(&ROOT, 1, None).is_none());
        assert_eq!(sent(&mut owed).len(), 2, "the halves of the first");
        assert_eq!(owed.want(&want(1, 1)), Err(Violation::WantRepeated), "its refusal is not sent");
        assert_eq!(owed.waiting().collect::<Vec<_>>(), [(ROOT, Mask(0b100), false)]);
        assert!(load(&mut owed, 2));
        let pieces = [(1, 2, 0, HALF), (1, 2, 1, HALF), (1, 0, 0, 0)];
        assert_eq!((sent(&mut owed), owed.is_empty()), (Vec::from(pieces), true));
    }

    #[test]
    fn what_the_store_lacks_and_nobody_waits_for_is_not_refused() {
        let mut owed = Owed::default();
        owed.want(&want(1, 0b11)).expect("few");
        (0..2).for_each(|part| owed.loading(&ROOT, part));
        assert!(owed.loaded(&ROOT, 0, None).is_none());
        assert_eq!(sent(&mut owed), [], "the second may be there");
        owed.cancel(1, Mask(0b01));
        owed.cancel(1, Mask(0b10));
        owed.want(&want(1, 0b1000)).expect("it was cancelled");
        assert!(owed.loaded(&ROOT, 1, None).is_none());
        assert_eq!(sent(&mut owed), []);
    }

    #[test]
    fn a_number_that_is_open_is_not_used_again_and_few_are_open() {
        let mut owed = Owed::default();
        for number in 0..u32::try_from(WANTS_MAX).expect("small") {
            owed.want(&want(number, 1)).expect("there is room");
        }
        assert_eq!(owed.want(&want(3, 1)), Err(Violation::WantRepeated));
        assert_eq!(owed.want(&want(1000, 1)), Err(Violation::TooManyWants));
        owed.cancel(3, Mask(1));
        owed.want(&want(3, 1)).expect("cancelled");
    }

    #[test]
    fn what_was_cancelled_is_closed_though_half_a_part_is_still_sent() {
        let mut owed = Owed::default();
        let numbers = 0..u32::try_from(WANTS_MAX).expect("small");
        numbers.clone().for_each(|number| owed.want(&want(number, 1)).expect("there is room"));
        assert!(load(&mut owed, 0));
        assert_eq!(owed.send(|_| ()), Some(()));
        numbers.clone().for_each(|number| owed.cancel(number, Mask::ALL));
        numbers.for_each(|number| owed.want(&want(100 + number, 1)).expect("all were closed"));
        assert_eq!(owed.want(&want(99, 1)), Err(Violation::TooManyWants));
        assert_eq!(sent(&mut owed), [(0, 0, 1, PIECE_LEN_MAX)], "to its end");
    }

    #[test]
    fn halves_of_cancelled_parts_that_wait_are_bounded() {
        let mut owed = Owed::default();
        let mut halves = 0;
        while owed.want(&want(halves, 1)).is_ok() {
            owed.loading(&ROOT, 0);
            assert!(owed.loaded(&ROOT, 0, Some(part())).is_none());
            owed.send(|_| ()).expect("the first half");
            owed.unload().expect("the buffer is taken back");
            owed.cancel(halves, Mask::ALL);
            // Nobody reads the rest of it: another root would be served meanwhile.
            owed.wants.iter_mut().for_each(|owing| owing.root = Root([2; 32]));
            halves += 1;
        }
        assert_eq!(halves as usize, 2 * WANTS_MAX);
    }

    #[test]
    fn a_slot_can_be_taken_back_and_the_part_goes_on_where_it_was() {
        let mut owed = Owed::default();
        owed.want(&want(1, 1)).expect("few");
        assert!(load(&mut owed, 0));
        assert_eq!(owed.send(|_| ()), Some(()));
        assert!(owed.unload().is_some() && owed.unload().is_none());
        assert!(!owed.has_message() && owed.waiting().count() == 1);
        assert!(load(&mut owed, 0));
        assert_eq!(sent(&mut owed), [(1, 0, 1, PIECE_LEN_MAX)]);
    }

    #[test]
    fn the_last_part_is_cut_where_the_peer_says() {
        let mut owed = Owed::default();
        owed.want(&Want { last_len: Some(4096), ..want(1, 0b11) }).expect("few");
        assert!(load(&mut owed, 1) && load(&mut owed, 0));
        let lens: Vec<usize> = sent(&mut owed).iter().map(|(.., len)| *len).collect();
        assert_eq!(lens, [4096, PIECE_LEN_MAX, PIECE_LEN_MAX]);
    }
}
