//! Our REQUESTs, FIND_PEERS and PUBLISH, matched with their answers (`docs/protocol.md` §10).

use alloc::collections::VecDeque;
use core::mem;

use crate::buffer::Buffer;
use crate::error::Violation;
use crate::ids::BlobId;

/// A question for something else than a blob: at most one of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Peers,
    Publish,
}

/// What an ERROR answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Blob(BlobId),
    Question(Question),
    /// Nothing: it is a remark.
    Nothing,
}

/// A blob that arrives by REQUEST, in one DATA or several.
struct Assembly {
    buffer: Buffer,
    filled: usize,
    /// The byte before the blob's next part, which the next message's type byte overwrites.
    before: u8,
}

impl Assembly {
    fn new(buffer: Buffer) -> Self {
        Self { buffer, filled: 0, before: 0 }
    }

    /// The place of a message with the next part.
    fn region(&mut self) -> &mut [u8] {
        self.buffer.message_from(self.filled)
    }

    fn opened_in_place(&mut self, len: usize) {
        self.region()[0] = self.before;
        self.advance(len);
    }

    fn append(&mut self, part: &[u8]) -> Result<(), Violation> {
        let rest = &mut self.buffer.blob_mut()[self.filled..];
        rest.get_mut(..part.len()).ok_or(Violation::DataLong)?.copy_from_slice(part);
        self.advance(part.len());
        Ok(())
    }

    fn advance(&mut self, len: usize) {
        self.filled += len;
        self.before = self.region()[0];
    }

    fn is_whole(&self) -> bool {
        self.filled == self.buffer.blob().len()
    }
}

/// Our unanswered requests and questions, oldest first, each with its number among all that this connection has asked.
#[derive(Default)]
pub(super) struct Requests {
    blobs: VecDeque<(BlobId, u64)>,
    questions: VecDeque<(Question, u64)>,
    asked: u64,
    /// The oldest blob, or room for it.
    assembly: Option<Assembly>,
}

impl Requests {
    /// Notes a REQUEST.
    pub(super) fn ask_for(&mut self, id: BlobId) {
        self.blobs.push_back((id, self.asked));
        self.asked += 1;
    }

    /// Notes a question.
    pub(super) fn ask(&mut self, question: Question) {
        self.questions.push_back((question, self.asked));
        self.asked += 1;
    }

    pub(super) fn is_asked(&self, question: Question) -> bool {
        self.questions.iter().any(|(asked, _)| *asked == question)
    }

    /// Counts the unanswered REQUESTs.
    pub(super) fn outstanding(&self) -> usize {
        self.blobs.len()
    }

    /// Takes the blobs of the unanswered REQUESTs.
    pub(super) fn take_outstanding(&mut self) -> impl Iterator<Item = BlobId> + use<> {
        mem::take(&mut self.blobs).into_iter().map(|(id, _)| id)
    }

    // --- the buffer -----------------------------------------------------------------------------------------

    pub(super) fn needs_buffer(&self) -> bool {
        self.assembly.is_none() && !self.blobs.is_empty()
    }

    pub(super) fn give_buffer(&mut self, buffer: Buffer) {
        assert!(self.assembly.is_none(), "one blob arrives at a time");
        self.assembly = Some(Assembly::new(buffer));
    }

    pub(super) fn take_unused_buffer(&mut self) -> Option<Buffer> {
        if self.blobs.is_empty() { self.take_buffer() } else { None }
    }

    pub(super) fn take_buffer(&mut self) -> Option<Buffer> {
        self.assembly.take().map(|assembly| assembly.buffer)
    }

    /// The large region; empty unless a REQUEST is unanswered and has its buffer.
    pub(super) fn region(&mut self) -> &mut [u8] {
        match &mut self.assembly {
            Some(assembly) if !self.blobs.is_empty() => assembly.region(),
            _ => &mut [],
        }
    }

    // --- answers --------------------------------------------------------------------------------------------

    /// Takes a DATA with a part of the oldest blob; returns the blob once it is whole.
    pub(super) fn on_data(&mut self, part: &[u8]) -> Result<Option<(BlobId, Buffer)>, Violation> {
        self.arriving()?.append(part)?;
        Ok(self.take_whole())
    }

    /// Like [`Self::on_data`], for a part of `len` bytes whose message lies in [`Self::region`].
    pub(super) fn on_data_in_place(&mut self, len: usize) -> Result<Option<(BlobId, Buffer)>, Violation> {
        self.arriving()?.opened_in_place(len);
        Ok(self.take_whole())
    }

    fn arriving(&mut self) -> Result<&mut Assembly, Violation> {
        self.assembly.as_mut().filter(|_| !self.blobs.is_empty()).ok_or(Violation::UnaskedData)
    }

    fn take_whole(&mut self) -> Option<(BlobId, Buffer)> {
        self.assembly.as_ref().filter(|assembly| assembly.is_whole())?;
        let (id, _) = self.blobs.pop_front()?;
        Some((id, self.take_buffer()?))
    }

    /// Takes an ERROR: it answers the oldest request or question, unless that is a blob that has begun to arrive.
    pub(super) fn on_error(&mut self) -> Answered {
        let blob = self.blobs.front().map(|(id, place)| (*id, *place));
        let has_begun = self.assembly.as_ref().is_some_and(|assembly| assembly.filled > 0);
        match (blob, self.questions.front().copied()) {
            (_, Some((question, place))) if blob.is_none_or(|(_, blob)| place < blob) => {
                self.questions.pop_front();
                Answered::Question(question)
            }
            (Some((id, _)), _) if !has_begun => {
                self.blobs.pop_front();
                Answered::Blob(id)
            }
            _ => Answered::Nothing,
        }
    }

    /// Takes the answer to a question.
    ///
    /// # Errors
    /// [`Violation::Unasked`] where we did not ask it.
    pub(super) fn on_answer(&mut self, question: Question) -> Result<(), Violation> {
        let at = self.questions.iter().position(|(asked, _)| *asked == question);
        at.and_then(|at| self.questions.remove(at)).map(|_| ()).ok_or(Violation::Unasked)
    }
}
