//! Which files are fetched, and in which order.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;

use super::super::selection::{FileRange, Priority, Selection, Urgency};
use super::{Ask, Fetch, FileState, Ids, Stage, Walk, WalkId};

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
        self.line_up_ids();
        let mut ranges: Vec<&FileRange> = self.selection.ranges.iter().collect();
        ranges.sort_by_key(|range| Urgency::of_range(range.deadline));
        for (n, range) in ranges.into_iter().enumerate() {
            let Some(file) = self.files.iter().position(|(path, ..)| path == range.path) else { continue };
            if let Some((_, _, reference)) = self.files.get(file)
                && self.states[file] != FileState::Refused
            {
                let urgency = Urgency::of_range(range.deadline);
                let walk = Walk::range(file, reference, &range.bytes, self.starts[file], urgency);
                self.walks.insert(WalkId::Range(n, file), walk);
            }
        }
    }

    /// The ids are fetched last, where they are of anything.
    fn line_up_ids(&mut self) {
        let is_skipped =
            !self.states.is_empty() && self.states.iter().all(|state| *state == FileState::Skipped);
        self.ids = match mem::replace(&mut self.ids, Ids::None) {
            Ids::Waiting(tree, start) | Ids::Walked(tree, start) | Ids::Skipped(tree, start) => {
                if is_skipped { Ids::Skipped(tree, start) } else { Ids::Waiting(tree, start) }
            }
            ids @ (Ids::None | Ids::Done(..) | Ids::Refused) => ids,
        };
    }

    /// Whether something is selected of a file that cannot be had. What a refused page holds nobody knows.
    pub(super) fn is_refused_selected(&self) -> bool {
        if self.has_refused_page && self.selection.others != Priority::Skip {
            return true;
        }
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
            Stage::Documents(_) => true,
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
        let files = self.files.iter().zip(&self.states);
        let done = files.filter(|(_, state)| **state == FileState::Done);
        let of_files: u64 = done.map(|((_, _, reference), _)| reference.blob_count()).sum();
        let of_ids = if let Ids::Done(tree) = &self.ids { tree.blob_count() } else { 0 };
        self.blobs_stored = self.document_blobs + self.packs_stored.len() as u64 + of_files + of_ids;
    }
}
