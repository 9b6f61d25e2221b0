//! The three outgoing lanes: control messages first, then the answers to the peer's requests, strictly in their order,
//! then the parts that the peer wants.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::answers::{Answers, Ready};
use super::owed::{self, Owed};
use crate::buffer::Buffer;
use crate::codec::{self, Message, kind};
use crate::limits::{CONTROL_LEN_MAX, CONTROL_QUEUE_MAX, REQUESTS_QUEUED_MAX};
use crate::transport::{Ciphers, Link};

/// Gives an idle link an answer to a WANT; returns how many bytes of a blob it holds, and whether these are the first half of a part.
fn give<C: Ciphers>(link: &mut Link<C>, answer: &owed::Answer<'_>) -> (usize, bool) {
    match answer {
        owed::Answer::Values { number, values } => {
            link.send(&[&[kind::PARTS], &number.to_be_bytes(), values.as_bytes()]);
            (0, false)
        }
        owed::Answer::Piece { number, part, half, bytes } => {
            let part = u8::try_from(*part).expect("a blob has sixteen parts");
            link.send(&[&[kind::PIECE], &codec::piece_header(*number, part, *half), bytes]);
            (bytes.len(), *half == 0 && !bytes.is_empty())
        }
    }
}

/// Everything that waits to be sent, not yet sealed.
#[derive(Default)]
pub(super) struct Lanes {
    /// Plaintexts.
    control: VecDeque<Vec<u8>>,
    /// The peer's REQUESTs.
    pub(super) answers: Answers,
    /// The peer's WANTs.
    pub(super) owed: Owed,
}

impl Lanes {
    pub(super) fn push(&mut self, message: &Message) {
        let plaintext = message.encode();
        assert!(plaintext.len() <= CONTROL_LEN_MAX, "our own messages are cut to fit");
        self.control.push_back(plaintext);
    }

    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    pub(super) fn has_control_room(&self) -> bool {
        self.control.len() < CONTROL_QUEUE_MAX
    }

    /// Whether the peer may ask for more.
    pub(super) fn has_room(&self) -> bool {
        self.has_control_room() && self.answers.len() < REQUESTS_QUEUED_MAX
    }

    /// Whether part of a blob, or its refusal, can be sent.
    pub(super) fn has_blob(&self) -> bool {
        self.answers.has_ready() || self.owed.has_message()
    }

    /// Gives an idle link all control messages; returns whether there were any.
    pub(super) fn give_control<C: Ciphers>(&mut self, link: &mut Link<C>) -> bool {
        let is_any = self.has_control();
        for plaintext in self.control.drain(..) {
            link.send(&[&plaintext]);
        }
        is_any
    }

    /// Gives an idle link the next answer to a REQUEST or else to a WANT; returns how many bytes of a blob it holds.
    /// `is_prompt`: the peer takes what is sent at once, so both halves of a part travel together.
    pub(super) fn give_blob<C: Ciphers>(&mut self, link: &mut Link<C>, is_prompt: bool) -> usize {
        match self.answers.take_ready() {
            Some(Ready::Blob(buffer)) => {
                let len = buffer.blob().len();
                link.send_blob(kind::DATA, buffer).expect("the link is open and idle");
                len
            }
            Some(Ready::Missing) => {
                link.send(&[&Message::Error("Not Found".into()).encode()]);
                0
            }
            None => {
                let mut sent = 0;
                while let Some((bytes, is_first_half)) = self.owed.send(|answer| give(link, answer)) {
                    sent += bytes;
                    if !(is_prompt && is_first_half) {
                        break;
                    }
                }
                sent
            }
        }
    }

    /// Whether the peer waits for a blob or a part.
    pub(super) fn owes_answers(&self) -> bool {
        !self.answers.is_empty() || !self.owed.is_empty()
    }

    /// Returns all buffers that it holds; the connection is over.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = Buffer> {
        self.answers.into_buffers().chain(self.owed.into_buffers())
    }
}
