//! The peer's REQUESTs, answered strictly in their order (`docs/protocol.md` §10).

use alloc::collections::VecDeque;

use crate::buffer::Buffer;
use crate::ids::BlobId;
use crate::limits::ANSWERS_LOADED_MAX;

/// An answer that the peer waits for.
enum Answer {
    /// The store was not asked yet.
    Queued(BlobId),
    /// The store reads it.
    Reading(BlobId),
    /// To send.
    Ready(Buffer),
    /// The store does not have it.
    Missing,
}

/// An answer that can be sent.
pub(super) enum Ready {
    Blob(Buffer),
    /// The store does not have the blob.
    Missing,
}

/// The answers that the peer waits for, oldest first.
#[derive(Default)]
pub(super) struct Answers(VecDeque<Answer>);

impl Answers {
    /// The peer asks for a blob.
    pub(super) fn owe(&mut self, id: BlobId) {
        self.0.push_back(Answer::Queued(id));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next blob to ask the store for, unless enough are loaded.
    pub(super) fn next_to_read(&self) -> Option<BlobId> {
        let mut loaded = self.0.iter().take(ANSWERS_LOADED_MAX);
        loaded.find_map(|answer| if let Answer::Queued(id) = answer { Some(*id) } else { None })
    }

    /// Answers that are being read or wait to be sent.
    pub(super) fn slots(&self) -> usize {
        let in_turn = |answer: &&Answer| matches!(answer, Answer::Reading(_) | Answer::Ready(_));
        self.0.iter().filter(in_turn).count()
    }

    /// The store is asked for a blob. `false`: none that is next.
    pub(super) fn reading(&mut self, id: BlobId) -> bool {
        let mut next = self.0.iter_mut().take(ANSWERS_LOADED_MAX);
        let answer = next.find(|answer| matches!(answer, Answer::Queued(queued) if *queued == id));
        answer.map(|answer| *answer = Answer::Reading(id)).is_some()
    }

    /// The store answered.
    ///
    /// # Errors
    /// The answer, where no request waits for it.
    pub(super) fn read_done(&mut self, id: BlobId, blob: Option<Buffer>) -> Result<(), Option<Buffer>> {
        let is_it = |answer: &&mut Answer| matches!(answer, Answer::Reading(reading) if *reading == id);
        let Some(answer) = self.0.iter_mut().find(is_it) else { return Err(blob) };
        *answer = blob.map_or(Answer::Missing, Answer::Ready);
        Ok(())
    }

    /// Whether the oldest can be sent.
    pub(super) fn has_ready(&self) -> bool {
        matches!(self.0.front(), Some(Answer::Ready(_) | Answer::Missing))
    }

    /// Takes the oldest where it can be sent.
    pub(super) fn take_ready(&mut self) -> Option<Ready> {
        match self.0.pop_front()? {
            Answer::Ready(buffer) => Some(Ready::Blob(buffer)),
            Answer::Missing => Some(Ready::Missing),
            waits => {
                self.0.push_front(waits);
                None
            }
        }
    }

    /// All buffers that wait to be sent; the connection is over.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = Buffer> {
        let ready = |answer| if let Answer::Ready(buffer) = answer { Some(buffer) } else { None };
        self.0.into_iter().filter_map(ready)
    }
}
