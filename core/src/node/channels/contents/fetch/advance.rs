//! Going on: which blobs are taken in hand next, and what is through.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;

use super::super::Wanted;
use super::super::files::Files;
use super::super::selection::Urgency;
use super::super::walk::{Next, Walk};
use super::{Ask, Fetch, FileState, Ids, Part, Stage, WalkId};
use crate::limits::FILES_AT_ONCE_MAX;
use crate::manifest::Reference;

impl Fetch {
    /// Goes on as far as what is stored allows.
    pub(super) fn advance(&mut self, asks: &mut Vec<Ask>) {
        self.finish_walks(asks);
        if self.in_hand_count <= self.in_hand_max / 2 || self.is_pressed() {
            self.refill(asks);
        }
        if !self.is_checking && !self.to_check.is_empty() {
            self.is_checking = true;
            asks.push(Ask::Have(mem::take(&mut self.to_check)));
        }
        // Files without blobs, such as an empty one, finish without a step of their own.
        self.finish_walks(asks);
        self.finish_documents(asks);
    }

    fn finish_walks(&mut self, asks: &mut Vec<Ask>) {
        let finished: Vec<WalkId> =
            self.walks.iter().filter(|(_, walk)| walk.is_finished()).map(|(id, _)| *id).collect();
        for id in finished {
            let walk = self.walks.remove(&id);
            match id {
                WalkId::Document(document) => {
                    let leaves = walk.and_then(Walk::into_leaves).unwrap_or_default();
                    self.read_document(document, leaves, asks);
                }
                WalkId::File(_, file) => {
                    self.states[file] = FileState::Done;
                    if !self.repeated.contains(&file) {
                        asks.push(Ask::FileComplete(file));
                    }
                }
                WalkId::Ids => {
                    if let Ids::Walked(tree, _) = &self.ids {
                        self.ids = Ids::Done(tree.clone());
                    }
                }
                WalkId::Range(..) => {}
            }
        }
        let is_idle = self.walks.is_empty() && self.waiting.is_empty();
        if is_idle && matches!(self.stage, Stage::Files) && !matches!(self.ids, Ids::Waiting(..)) {
            self.rest();
        }
    }

    /// All that is selected is stored, or cannot be had: what is not needed any more is given up.
    fn rest(&mut self) {
        if self.is_refused_selected() {
            self.stage = Stage::Refused;
            return;
        }
        let has_ids = matches!(self.ids, Ids::None | Ids::Done(..));
        let has_all =
            has_ids && !self.has_refused_page && self.states.iter().all(|state| *state == FileState::Done);
        let chunks = self.files.iter().filter_map(|(_, _, reference)| match reference {
            Reference::Chunks(chunks) if has_all => Some(chunks),
            _ => None,
        });
        self.chunks = chunks.flatten().map(|chunk| chunk.id.info_hash()).collect();
        self.line_up_claims();
        self.stage = Stage::Satisfied { has_all };
        self.files = Files::Unknown;
        (self.states, self.starts, self.reopened) = (Vec::new(), Vec::new(), BTreeSet::new());
        (self.repeated, self.packs_stored) = (BTreeSet::new(), BTreeSet::new());
        self.page_trees = Vec::new();
        // A map that has become empty keeps memory.
        self.walks = BTreeMap::new();
        if self.in_hand.is_empty() && self.opening.is_empty() {
            (self.in_hand, self.opening) = (BTreeMap::new(), BTreeSet::new());
        }
    }

    /// Whether something more urgent than what is in hand could be taken, and there is room for a batch of it.
    fn is_pressed(&self) -> bool {
        let least = self.walks.values().map(Walk::urgency).max();
        let is_next = |walk: &Walk| walk.can_go_on() && Some(walk.urgency()) < least;
        self.in_hand_count <= self.in_hand_max / 4 * 3 && self.walks.values().any(is_next)
    }

    /// Takes blobs in hand, up to the bounds: those of ranges first, then those of the files that come first. Where a walk waits
    /// for an index blob, less urgent ones leave room for what it names.
    fn refill(&mut self, asks: &mut Vec<Ask>) {
        loop {
            let mut walks = mem::take(&mut self.walks);
            let mut waiting: Option<Urgency> = None;
            for (id, walk) in &mut walks {
                let is_behind = waiting.is_some_and(|urgency| urgency < walk.urgency());
                let room = if is_behind { self.in_hand_max / 2 } else { self.in_hand_max };
                self.take_in_hand(*id, walk, room, asks);
                if waiting.is_none() && walk.is_waiting() {
                    waiting = Some(walk.urgency());
                }
            }
            self.walks = walks;
            if self.in_hand_count >= self.in_hand_max || self.walks.len() >= FILES_AT_ONCE_MAX {
                return;
            }
            if !self.begin_walk() {
                return;
            }
        }
    }

    /// Begins the next page, file, or the ids. `false`: there is none.
    fn begin_walk(&mut self) -> bool {
        if let Stage::Documents(documents) = &mut self.stage {
            let Some((document, tree, start)) = documents.next_page() else { return false };
            let walk = Walk::keeping_leaves(&tree, start, Urgency::USUAL);
            self.walks.insert(WalkId::Document(document), walk);
            return true;
        }
        if !matches!(self.stage, Stage::Files) {
            return false;
        }
        if let Some(file) = self.waiting.pop_front() {
            let Some((path, _, reference)) = self.files.get(file) else { return false };
            let priority = self.selection.priority(path);
            let walk = Walk::whole(file, reference, self.starts[file], Urgency::of_file(priority));
            self.states[file] = FileState::Walked;
            self.walks.insert(WalkId::File(Reverse(priority), file), walk);
            return true;
        }
        let Ids::Waiting(tree, start) = &self.ids else { return false };
        let walk = Walk::tree(tree, *start, Urgency::USUAL);
        self.ids = Ids::Walked(tree.clone(), *start);
        self.walks.insert(WalkId::Ids, walk);
        true
    }

    fn take_in_hand(&mut self, id: WalkId, walk: &mut Walk, room: usize, asks: &mut Vec<Ask>) {
        while self.in_hand_count < room {
            match walk.next(&self.files, self.packs_start) {
                Next::Blob(wanted, position, node) => {
                    self.in_hand_count += 1;
                    let name = wanted.name();
                    // Also one that is in hand already: a peer that has it may know of this place only.
                    self.to_check.push(name);
                    let part = Part { walk: id, wanted, position, node, is_again: false };
                    self.in_hand.entry(name).or_default().push(part);
                }
                Next::Reopen(position, node) => {
                    self.in_hand_count += 1;
                    let (blob, len) = (node.blob.clone(), node.content_len());
                    let (name, wanted) =
                        (blob.root.into(), Wanted::Native { blob: blob.clone(), len, id: None, spot: None });
                    let part = Part { walk: id, wanted, position, node: Some(node), is_again: true };
                    self.in_hand.entry(name).or_default().push(part);
                    if self.opening.insert(name) {
                        asks.push(Ask::Open(blob, len));
                    }
                }
                Next::Wait | Next::End => return,
            }
        }
        // It goes on when half of what is in hand has come, and holds no index blob until then.
        walk.release();
    }
}
