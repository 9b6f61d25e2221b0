//! What was done and can be taken back for a while. The service holds it, so that a closed page changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;

use super::records::Followed;

/// How long it is offered to be taken back.
pub(super) const UNDO_FOR: Duration = Duration::from_secs(10);
/// How long it can be: whoever is just reaching for it is not told that it is too late.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// What can be taken back at once; the oldest makes room.
const UNDO_MAX: usize = 1_000;

/// How a thing is taken back.
pub(super) enum Back {
    /// Follow it again.
    Follow(PublicKey, Option<Secret>, Box<Followed>),
    /// Go on with these.
    Resume(Vec<PublicKey>),
}

/// What can be taken back, by number.
#[derive(Default)]
pub(super) struct UndoTable {
    table: BTreeMap<u64, (Instant, Back)>,
    next: u64,
}

impl UndoTable {
    pub(super) fn add(&mut self, back: Back) -> u64 {
        if self.table.len() >= UNDO_MAX {
            self.table.pop_first();
        }
        self.next += 1;
        self.table.insert(self.next, (Instant::now(), back));
        self.next
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Back> {
        self.forget();
        self.table.remove(&number).map(|(_, back)| back)
    }

    /// Forgets what cannot be taken back any more.
    pub(super) fn forget(&mut self) {
        self.table.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
    }
}
