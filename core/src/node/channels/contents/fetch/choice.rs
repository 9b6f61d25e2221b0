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
            let Some(file) = self.files.iter().position(|(path, ..)| path == range.path) else { continue };
            if let Some((_, _, reference)) = self.files.get(file)
                && self.states[file] != FileState::Refused
            {
                let urgency = Urgency::of_range(range.deadline);
                let walk = Walk::range(reference, &range.bytes, self.starts[file], urgency);
                self.walks.insert(WalkId::Range(n, file), walk);
            }
        }
    }

    /// Whether something is selected of a file that cannot be had.
    pub(super) fn is_refused_selected(&self) -> bool {
        let states = self.files.iter().zip(&self.states);
        let mut refused = states.filter(|(_, state)| **state == FileState::Refused);
        refused.any(|((path, ..), _)| {
            let has_range = self.selection.ranges.iter().any(|range| range.path == path);
            has_range || self.selection.priority(path) != Priority::Skip
        })
    }

    /// Another selection holds from here on. `false`: the content must be fetched anew for it, as nothing of it is held.
    pub(crate) fn select(&mut self, selection: Selection, asks: &mut Vec<Ask>) -> bool {
        self.selection = selection;
        match self.stage {
            Stage::Body(_) | Stage::Reading { .. } => true,
            Stage::Refused if self.files.len() == 0 => true,
            Stage::Satisfied { .. } => false,
            Stage::Files | Stage::Refused => {
                self.stage = Stage::Files;
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
