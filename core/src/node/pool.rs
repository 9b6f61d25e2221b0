//! A bounded pool of blob buffers, which bounds the memory that blobs take.

use alloc::vec::Vec;

use crate::buffer::Buffer;

/// A pool in which at most `max` buffers exist at once, free or lent; they are made when first needed.
pub(super) struct Pool {
    free: Vec<Buffer>,
    lent: usize,
    max: usize,
    blob_len: usize,
}

impl Pool {
    pub(super) fn new(max: usize, blob_len: usize) -> Self {
        Self { free: Vec::new(), lent: 0, max, blob_len }
    }

    /// Lends a buffer; `None` while all are lent: the caller waits.
    pub(super) fn take(&mut self) -> Option<Buffer> {
        if self.lent == self.max {
            return None;
        }
        self.lent += 1;
        Some(self.free.pop().unwrap_or_else(|| Buffer::for_blob_of(self.blob_len)))
    }

    /// Whether a buffer is of this pool's kind.
    pub(super) fn is_of(&self, buffer: &Buffer) -> bool {
        buffer.blob().len() == self.blob_len
    }

    pub(super) fn has_free(&self) -> bool {
        self.lent < self.max
    }

    pub(super) fn give_back(&mut self, buffer: Buffer) {
        assert!(self.lent > 0, "only lent buffers come back");
        self.lent -= 1;
        self.free.push(buffer);
    }

    pub(super) fn give_all_back(&mut self, buffers: impl IntoIterator<Item = Buffer>) {
        for buffer in buffers {
            self.give_back(buffer);
        }
    }

    /// Frees the memory of the free buffers.
    pub(super) fn trim(&mut self) {
        self.free = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_max_are_lent() {
        let mut pool = Pool::new(2, 16);
        let (first, second) = (pool.take(), pool.take());
        assert!(first.is_some() && second.is_some() && pool.take().is_none());
        pool.give_back(first.expect("taken"));
        assert!(pool.take().is_some() && pool.take().is_none());
    }
}
