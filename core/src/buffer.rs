//! A blob's buffer, laid out so that a blob goes from disk to socket, and back, without a copy.
//!
//! ```text
//! 0      4      5                    1 048 597   1 048 613
//! ├──────┼──────┼───────────────────────┼────────────┤
//! │length│ type │ blob (1 048 592)      │ tag (16)   │
//! └──────┴──────┴───────────────────────┴────────────┘
//! ```

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use crate::blob::BLOB_LEN;
use crate::wire::{HEADER_LEN, TAG_LEN};

const BLOB_START: usize = HEADER_LEN + 1;

/// Room for one blob within its frame. The node bounds the number of buffers that it hands out, so a driver gives each
/// one back with the answer to the job that carried it.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A zeroed buffer.
    pub fn new() -> Self {
        Self::for_blob_of(BLOB_LEN)
    }

    /// A zeroed buffer for a blob of another suite's length.
    pub(crate) fn for_blob_of(blob_len: usize) -> Self {
        Self(vec![0; BLOB_START + blob_len + TAG_LEN].into_boxed_slice())
    }

    /// The blob's bytes ([`BLOB_LEN`] of them in the real suite).
    pub fn blob(&self) -> &[u8] {
        &self.0[BLOB_START..self.0.len() - TAG_LEN]
    }

    /// The blob's bytes, to read a blob into.
    pub fn blob_mut(&mut self) -> &mut [u8] {
        let end = self.0.len() - TAG_LEN;
        &mut self.0[BLOB_START..end]
    }

    /// The place of a message whose payload is the blob's bytes from `at` on: its type byte, the payload, and room for the
    /// tag.
    pub(crate) fn message_from(&mut self, at: usize) -> &mut [u8] {
        &mut self.0[HEADER_LEN + at..]
    }

    /// The whole frame's bytes.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.0
    }

    /// The whole frame's bytes.
    pub(crate) fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffer")
    }
}
