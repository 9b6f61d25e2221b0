//! The parts that we asked a v6 peer for (`docs/protocol.md` §12). The node's windows bound them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::codec::{Message, Want};
use crate::error::Violation;
use crate::ids::Root;
use crate::limits::WANTS_MAX;
use crate::parts::Mask;

/// What was asked for under one number and has not come.
#[derive(Debug)]
struct Asked {
    root: Root,
    /// Its values are to come first.
    values: bool,
    left: Mask,
    /// Those of them that were cancelled. They may be in flight.
    cancelled: Mask,
    /// Those of which the first half has come.
    begun: Mask,
    /// The last part and how many bytes of it were asked for, where not all.
    cut: Option<(usize, usize)>,
}

/// What a PARTS or PIECE brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// What was asked for, of this blob.
    Wanted(Root),
    /// The peer does not serve these parts of a blob.
    Refused(Root, Mask),
    /// Only what was cancelled long ago.
    Late,
}

/// What we asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Bytes of half a part.
    half_len: usize,
    next_number: u32,
    /// By number. Of what was cancelled whole, the newest [`WANTS_MAX`] are kept.
    asked: BTreeMap<u32, Asked>,
    open_parts: usize,
    /// How many bytes, PARTS and refusals of others that were cancelled may still come.
    late_bytes: u64,
    late_values: u32,
    late_refusals: u32,
}

impl Wanted {
    /// Of blobs with parts of `part_len` bytes.
    pub(super) fn new(part_len: usize) -> Self {
        let half_len = part_len.div_ceil(2);
        Self {
            half_len,
            next_number: 0,
            asked: BTreeMap::new(),
            open_parts: 0,
            late_bytes: 0,
            late_values: 0,
            late_refusals: 0,
        }
    }

    /// Asks for parts of a blob; returns the message that asks. `last_len`: bytes of the last part, where not all are wanted.
    ///
    /// # Panics
    /// Where `mask` is empty.
    pub(super) fn ask(&mut self, root: Root, mask: Mask, values: bool, last_len: Option<u32>) -> Message {
        let last = mask.last().expect("a WANT asks for something");
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let cut = last_len.map(|len| (last, len as usize));
        let (cancelled, begun) = (Mask::NONE, Mask::NONE);
        self.asked.insert(number, Asked { root, values, left: mask, cancelled, begun, cut });
        self.open_parts += mask.len();
        Message::Want(Want { number, root, mask, values, last_len })
    }

    /// Gives up parts of a blob, under whatever numbers they were asked for; returns the messages that say so. What is in flight
    /// still comes, as if it had not been given up.
    pub(super) fn cancel(&mut self, root: &Root, mask: Mask) -> impl Iterator<Item = Message> + use<> {
        let mut messages = Vec::new();
        for (number, asked) in self.asked.iter_mut().filter(|(_, asked)| asked.root == *root) {
            let gone = (asked.left & mask) - asked.cancelled;
            if gone.is_empty() {
                continue;
            }
            self.open_parts -= gone.len();
            asked.cancelled = asked.cancelled | gone;
            messages.push(Message::Cancel { number: *number, mask: gone });
        }
        self.forget_cancelled();
        messages.into_iter()
    }

    /// Forgets the oldest of what was cancelled whole, except how much of it may still come.
    fn forget_cancelled(&mut self) {
        let is_cancelled = |asked: &Asked| asked.cancelled.covers(asked.left);
        let mut excess =
            self.asked.values().filter(|asked| is_cancelled(asked)).count().saturating_sub(WANTS_MAX);
        while let Some(number) = (excess > 0).then(|| self.oldest(is_cancelled)).flatten() {
            excess -= 1;
            let Some(asked) = self.asked.remove(&number) else { return };
            let halves = 2 * asked.left.len() - (asked.left & asked.begun).len();
            self.late_bytes += (self.half_len * halves) as u64;
            self.late_values += u32::from(asked.values);
            self.late_refusals += 1;
        }
    }

    fn oldest(&self, fits: impl Fn(&Asked) -> bool) -> Option<u32> {
        self.asked.iter().find(|(_, asked)| fits(asked)).map(|(number, _)| *number)
    }

    /// Takes a PARTS.
    pub(super) fn take_values(&mut self, number: u32) -> Result<Brought, Violation> {
        if let Some(asked) = self.asked.get_mut(&number) {
            let was_due = core::mem::replace(&mut asked.values, false);
            return if was_due { Ok(Brought::Wanted(asked.root)) } else { Err(Violation::UnaskedData) };
        }
        self.late_values = self.late_values.checked_sub(1).ok_or(Violation::UnaskedData)?;
        if self.was_asked(number) { Ok(Brought::Late) } else { Err(Violation::UnaskedData) }
    }

    /// Takes a PIECE with `len` bytes of a part's half.
    pub(super) fn take(&mut self, number: u32, part: u8, half: u8, len: usize) -> Result<Brought, Violation> {
        let part = usize::from(part);
        let Some(asked) = self.asked.get_mut(&number) else { return self.late(number, len) };
        if len == 0 && (part, half) == (0, 0) {
            let (root, left) = (asked.root, asked.left - asked.cancelled);
            self.open_parts -= left.len();
            self.asked.remove(&number);
            return Ok(Brought::Refused(root, left));
        }
        if !asked.left.has(part) {
            return Err(Violation::UnaskedData);
        }
        let wanted = asked.cut.filter(|(cut, _)| *cut == part).map_or(2 * self.half_len, |(_, len)| len);
        let is_second = asked.begun.has(part);
        let due = if is_second { wanted.saturating_sub(self.half_len) } else { wanted.min(self.half_len) };
        // Values come before what they check.
        if asked.values || len != due || (half == 1) != is_second {
            return Err(Violation::UnaskedData);
        }
        let root = asked.root;
        if is_second || wanted <= self.half_len {
            self.open_parts -= usize::from(!asked.cancelled.has(part));
            asked.left = asked.left - Mask::one(part);
            if asked.left.is_empty() {
                self.asked.remove(&number);
            }
        } else {
            asked.begun = asked.begun | Mask::one(part);
        }
        Ok(Brought::Wanted(root))
    }

    /// Takes bytes of what was cancelled, forgotten and perhaps in flight.
    fn late(&mut self, number: u32, len: usize) -> Result<Brought, Violation> {
        if len == 0 {
            self.late_refusals = self.late_refusals.checked_sub(1).ok_or(Violation::UnaskedData)?;
        }
        self.late_bytes = self.late_bytes.checked_sub(len as u64).ok_or(Violation::UnaskedData)?;
        if self.was_asked(number) { Ok(Brought::Late) } else { Err(Violation::UnaskedData) }
    }

    fn was_asked(&self, number: u32) -> bool {
        number < self.next_number
    }

    /// Counts the parts that have not come whole.
    pub(super) fn open_parts(&self) -> usize {
        self.open_parts
    }

    /// Whether another WANT may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.asked.values().filter(|asked| !asked.cancelled.covers(asked.left)).count() < WANTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PIECE_LEN_MAX;
    use crate::parts::PART_LEN;

    const ROOT: Root = Root([1; 32]);
    const HALF: usize = PIECE_LEN_MAX;
    const UNASKED: Result<Brought, Violation> = Err(Violation::UnaskedData);

    fn asked(mask: Mask, values: bool, last_len: Option<u32>) -> Wanted {
        let mut wanted = Wanted::new(PART_LEN);
        let want = Want { number: 0, root: ROOT, mask, values, last_len };
        assert_eq!(wanted.ask(ROOT, mask, values, last_len), Message::Want(want));
        wanted
    }

    #[test]
    fn parts_come_in_any_order_and_their_halves_in_order() {
        let mut wanted = asked(Mask(0b101), true, None);
        assert_eq!(wanted.take(0, 0, 0, HALF), UNASKED, "the values come first");
        assert_eq!(wanted.take_values(0), Ok(Brought::Wanted(ROOT)));
        assert_eq!(wanted.take_values(0), UNASKED);
        assert_eq!(wanted.take(0, 2, 0, HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!(wanted.take(0, 2, 0, HALF), UNASKED);
        assert_eq!(wanted.take(0, 0, 1, HALF), UNASKED);
        assert_eq!(wanted.take(0, 1, 0, HALF), UNASKED, "it was not asked for");
        assert_eq!(wanted.take(0, 0, 0, HALF - 1), UNASKED);
        assert_eq!(wanted.take(0, 0, 0, HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!(wanted.take(0, 2, 1, HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!(wanted.open_parts(), 1);
        assert_eq!(wanted.take(0, 0, 1, HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!((wanted.take(0, 0, 0, HALF), wanted.open_parts()), (UNASKED, 0));
        assert_eq!(wanted.take(1, 0, 0, 0), UNASKED, "it was never asked for");
    }

    #[test]
    fn what_was_cancelled_may_still_come_but_only_once() {
        let mut wanted = asked(Mask(0b11), true, None);
        assert_eq!(wanted.take_values(0), Ok(Brought::Wanted(ROOT)));
        assert_eq!(wanted.take(0, 0, 0, HALF), Ok(Brought::Wanted(ROOT)));
        let cancelled: Vec<_> = wanted.cancel(&ROOT, Mask(1)).collect();
        assert_eq!(cancelled, [Message::Cancel { number: 0, mask: Mask(1) }]);
        assert_eq!((wanted.cancel(&ROOT, Mask(1)).count(), wanted.open_parts()), (0, 1));
        assert_eq!(wanted.take(0, 0, 1, HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!(wanted.take(0, 0, 1, HALF), UNASKED);
        assert_eq!(wanted.cancel(&ROOT, Mask::ALL).count(), 1);
        assert_eq!((wanted.open_parts(), wanted.take_values(0)), (0, UNASKED));
        for _ in 0..WANTS_MAX {
            wanted.ask(ROOT, Mask(1), false, None);
            assert_eq!(wanted.cancel(&ROOT, Mask::ALL).count(), 1);
        }
        assert_eq!(wanted.take(0, 1, 0, HALF), Ok(Brought::Late), "it is among the oldest");
        assert_eq!(wanted.take(1, 0, 0, HALF), Ok(Brought::Wanted(ROOT)));
    }

    #[test]
    fn a_want_is_refused_by_an_empty_piece() {
        let mut wanted = asked(Mask(0b110), true, None);
        assert_eq!(wanted.take(0, 0, 0, 0), Ok(Brought::Refused(ROOT, Mask(0b110))));
        assert_eq!(wanted.open_parts(), 0);
        assert_eq!(wanted.take(0, 0, 0, 0), UNASKED, "it was refused");
    }

    #[test]
    fn what_was_cancelled_and_forgotten_is_refused_at_most_once() {
        let mut wanted = asked(Mask(1), false, None);
        assert_eq!(wanted.cancel(&ROOT, Mask::ALL).count(), 1);
        for _ in 0..WANTS_MAX {
            wanted.ask(ROOT, Mask(1), false, None);
            assert_eq!(wanted.cancel(&ROOT, Mask::ALL).count(), 1);
        }
        assert_eq!(wanted.take(0, 0, 0, 0), Ok(Brought::Late));
        assert_eq!(wanted.take(0, 0, 0, 0), UNASKED);
    }

    #[test]
    fn the_last_part_may_be_cut() {
        let mut short = asked(Mask(0b11), false, Some(4096));
        assert_eq!(short.take(0, 1, 0, HALF), UNASKED);
        assert_eq!(short.take(0, 1, 0, 4096), Ok(Brought::Wanted(ROOT)));
        assert_eq!(short.take(0, 0, 0, HALF), Ok(Brought::Wanted(ROOT)));
        let mut long = asked(Mask(1), false, Some(40_960));
        assert_eq!(long.take(0, 0, 0, HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!(long.take(0, 0, 1, 40_960 - HALF), Ok(Brought::Wanted(ROOT)));
        assert_eq!(long.open_parts(), 0);
    }
}
