//! Which files are fetched, and in which order.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::super::selection::{FileRange, Priority, Selection, Urgency};
use super::{Ask, Fetch, FileState, Stage, Walk, WalkId, blob_count};

impl Fetch {
    /// Puts what is selected and not here in the order in which it is fetched.
    pub(super) fn line_up(&mut self) {
        let mut order = Vec::new();
        for (file, (path, ..)) in self.files.iter().enumerate() {
            let priority = self.selection.priority(path);
            match self.states[file] {
                FileState::Done | FileState::Refused => {}
                _ if priority == Priority::Skip => self.states[file] = FileState::Skipped,
                _ => {
                    self.states[file] = FileState::Waiting;
                    order.push((Reverse(priority), file));
                }
            }
        }
        order.sort_unstable();
        self.waiting = order.into_iter().map(|(_, file)| file).collect();
        let mut ranges: Vec<&FileRange> = self.selection.ranges.iter().collect();
        ranges.sort_by_key(|range| Urgency::of_range(range.deadline));
        for (n, range) in ranges.into_iter().enumerate() {
            let found = self.files.iter().zip(&self.starts).find(|((path, ..), _)| *path == range.path);
            if let Some(((_, _, reference), start)) = found {
                let urgency = Urgency::of_range(range.deadline);
                let walk = Walk::range(reference, &range.bytes, *start, urgency);
                self.walks.insert(WalkId::Range(n), walk);
            }
        }
    }

    /// Another selection holds from here on. `false`: the content must be fetched anew for it, as nothing of it is held.
    pub(crate) fn select(&mut self, selection: Selection, asks: &mut Vec<Ask>) -> bool {
        self.selection = selection;
        match self.stage {
            Stage::Body(_) | Stage::Reading { .. } | Stage::Refused => true,
            Stage::Satisfied { .. } => false,
            Stage::Files => {
                self.walks.clear();
                self.in_hand.clear();
                (self.in_hand_count, self.to_check) = (0, Vec::new());
                asks.push(Ask::DropWants);
                self.recount();
                self.line_up();
                self.advance(asks);
                true
            }
        }
    }

    /// Files that are begun again count anew.
    fn recount(&mut self) {
        let body_blobs = self.starts.first().copied().unwrap_or(self.blobs_total);
        let files = self.files.iter().zip(&self.states);
        let done = files.filter(|(_, state)| **state == FileState::Done);
        self.blobs_stored =
            body_blobs + done.map(|((_, _, reference), _)| blob_count(reference)).sum::<u64>();
    }
}
