//! Answers to a WANT as they should be, so that what follows them is reached.

use megatorrent_core::codec::{Message, Want};
use megatorrent_core::limits::PIECE_LEN_MAX;
use megatorrent_core::parts::{Mask, PART_LEN, Values};

/// What is left of the answer to a WANT.
#[derive(Clone, Debug)]
pub struct Serving {
    want: Want,
    /// The first half of the first part that is left was sent.
    is_begun: bool,
}

impl Serving {
    /// Nothing is sent.
    pub const fn new(want: Want) -> Self {
        Self { want, is_begun: false }
    }

    /// The next message; `None`: all is sent. `part` is a part's bytes.
    pub fn next<'a>(&mut self, values: &Values, part: impl Fn(usize) -> &'a [u8]) -> Option<Message> {
        let number = self.want.number;
        if std::mem::take(&mut self.want.values) {
            return Some(Message::Parts { number, values: Box::new(values.clone()) });
        }
        let at = self.want.mask.iter().next()?;
        let is_last = self.want.mask.len() == 1;
        let len = self.want.last_len.filter(|_| is_last).map_or(PART_LEN, |len| len as usize);
        let start = if self.is_begun { PIECE_LEN_MAX } else { 0 };
        let bytes = part(at)[start..len.min(start + PIECE_LEN_MAX)].to_vec();
        let half = self.is_begun.into();
        self.is_begun = !self.is_begun && len > PIECE_LEN_MAX;
        if !self.is_begun {
            self.want.mask = self.want.mask - Mask::one(at);
        }
        Some(Message::Piece { number, part: u8::try_from(at).expect("one of sixteen"), half, bytes })
    }
}
