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
use crate::frame::{HEADER_LEN, TAG_LEN};

const BLOB_START: usize = HEADER_LEN + 1;
/// Bytes of a whole DATA frame on the wire.
pub(crate) const BUFFER_LEN: usize = BLOB_START + BLOB_LEN + TAG_LEN;

/// Room for one blob within its frame. Its number is bounded by the node that hands it out, so a driver gives each
/// buffer back with the answer to the job that carried it.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A zeroed buffer.
    pub fn new() -> Self {
        Self(vec![0; BUFFER_LEN].into_boxed_slice())
    }

    /// The blob's [`BLOB_LEN`] bytes.
    pub fn blob(&self) -> &[u8] {
        &self.0[BLOB_START..BLOB_START + BLOB_LEN]
    }

    /// The blob's [`BLOB_LEN`] bytes, to read a blob into.
    pub fn blob_mut(&mut self) -> &mut [u8] {
        &mut self.0[BLOB_START..BLOB_START + BLOB_LEN]
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
