//! Which connections can take another request, summarised side by side: each time that there is room for one blob more, every
//! connection is looked at, and what a connection is made of lies far apart.

use crate::time::Instant;

/// What is to be known of a connection that may be asked for blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// It may be asked at all.
    is_askable: bool,
    /// It may be asked for one blob more.
    has_room: bool,
    is_v5: bool,
    /// Blobs asked for.
    outstanding: usize,
    /// It brought nothing for long, and is left alone until then.
    backed_off_until: Instant,
    /// The epoch of the wants in which the peer had nothing useful.
    nothing_useful_at: u64,
    bytes_per_sec: u64,
}

impl Candidate {
    /// `true`: it may be asked from here on, or otherwise than before.
    pub(super) fn set_askable(&mut self, is_askable: bool, is_v5: bool) -> bool {
        let before = (self.is_askable, self.is_v5);
        (self.is_askable, self.is_v5) = (is_askable, is_v5);
        is_askable && before != (is_askable, is_v5)
    }

    pub(super) fn set_load(&mut self, outstanding: usize, has_room: bool, bytes_per_sec: u64) {
        (self.outstanding, self.has_room, self.bytes_per_sec) = (outstanding, has_room, bytes_per_sec);
    }

    pub(super) fn is_askable(&self) -> bool {
        self.is_askable
    }

    pub(super) fn has_room(&self) -> bool {
        self.is_askable && self.has_room
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether it is asked for one blob more, if it has any of use.
    pub(super) fn is_useful(&self, now: Instant, epoch: u64) -> bool {
        self.has_room() && !self.is_backed_off(now) && !self.has_nothing_useful(epoch)
    }

    pub(super) fn is_backed_off(&self, now: Instant) -> bool {
        now < self.backed_off_until
    }

    pub(super) fn back_off_until(&mut self, until: Instant) {
        self.backed_off_until = until;
    }

    pub(super) fn has_nothing_useful(&self, epoch: u64) -> bool {
        self.nothing_useful_at == epoch
    }

    /// It has nothing useful in this epoch; 0: it may have.
    pub(super) fn set_nothing_useful_at(&mut self, epoch: u64) {
        self.nothing_useful_at = epoch;
    }

    /// Roughly how fast it is, as its line and the peers that it serves allow. One that has brought nothing yet counts as
    /// the fastest, so that it is tried.
    pub(super) fn speed(&self) -> u32 {
        if self.bytes_per_sec == 0 { u32::MAX } else { self.bytes_per_sec.ilog2() }
    }
}
