//! The bound on a peer's unsolicited messages (`docs/protocol.md` §14).

use core::mem;

use crate::bucket::Bucket;
use crate::error::Violation;
use crate::limits::{UNASKED_BYTES_BURST, UNASKED_BYTES_PER_MINUTE, UNASKED_MESSAGE_BYTES};
use crate::time::Instant;

/// The peer's allowance in bytes, and the cost of its last message.
pub(super) struct Unasked {
    allowance: Bucket,
    last_cost: u64,
}

impl Unasked {
    pub(super) fn new(now: Instant) -> Self {
        Self { allowance: Bucket::new(UNASKED_BYTES_PER_MINUTE, UNASKED_BYTES_BURST, now), last_cost: 0 }
    }

    /// Charges the peer for an unsolicited message of `len` bytes.
    ///
    /// # Errors
    /// [`Violation::Flood`] where that exceeds the allowance.
    pub(super) fn take(&mut self, len: usize, now: Instant) -> Result<(), Violation> {
        self.last_cost = len as u64 + UNASKED_MESSAGE_BYTES;
        if self.allowance.take_n(self.last_cost, now) { Ok(()) } else { Err(Violation::Flood) }
    }

    /// Gives back the cost of `bytes` of the last message.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.allowance.give_back(bytes.min(mem::take(&mut self.last_cost)));
    }
}
