//! What the author calls the blobs: once all that is selected is here, the stream of ids is read blob by blob beside the names at
//! the same positions. One blob is opened at a time, and nothing of it is held once both are through.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use super::super::Wanted;
use super::super::files::Files;
use super::super::selection::Urgency;
use super::super::walk::{Next, Walk};
use super::{Ask, Fetch, FileState, Ids, Stage};
use crate::ids::{BlobId, BlobName, Root};
use crate::limits::CLAIMS_MAX;
use crate::manifest::ID_LEN;
use crate::tree::{Cursor, Node, Step, TreeRef};

/// The ids and the names that are still to be read.
pub(super) struct Claims {
    files: Files,
    packs_start: u64,
    /// Pages and files to go through, each with its first position.
    ahead: VecDeque<(Source, u64)>,
    walk: Option<Walk>,
    ids: Cursor,
    /// The open blob of the ids: where its bytes begin in the stream, and these.
    open: Option<(u64, Vec<u8>)>,
    /// Positions and names whose ids are not read yet.
    found: VecDeque<(u64, Root)>,
    waits: Waits,
    batch: Vec<(BlobId, Root)>,
}

enum Source {
    Tree(TreeRef),
    File(usize),
}

/// What the content is waited for of.
enum Waits {
    Nothing,
    /// An index blob of the walk.
    Walk(BlobName),
    /// A blob of the ids.
    Ids(Node),
}

impl Fetch {
    /// Notes what the ids are of, as all that is selected is here and the files will be forgotten.
    pub(super) fn line_up_claims(&mut self) {
        let Ids::Done(tree) = &self.ids else { return };
        let mut ahead: VecDeque<_> = mem::take(&mut self.page_trees)
            .into_iter()
            .map(|(tree, start)| (Source::Tree(tree), start))
            .collect();
        let done = self.states.iter().zip(&self.starts).enumerate();
        let done = done.filter(|(_, (state, _))| **state == FileState::Done);
        ahead.extend(done.map(|(file, (_, start))| (Source::File(file), *start)));
        let is_here = |place: &u64| self.packs_stored.contains(place);
        let packs = (self.packs_start..).zip(self.files.packs());
        let found = packs.filter(|(place, _)| is_here(place)).map(|(place, (_, root))| (place, *root));
        self.claims = Some(Box::new(Claims {
            found: found.collect(),
            files: mem::replace(&mut self.files, Files::Unknown),
            packs_start: self.packs_start,
            ahead,
            walk: None,
            ids: Cursor::whole(tree),
            open: None,
            waits: Waits::Nothing,
            batch: Vec::new(),
        }));
    }

    /// Begins to read the ids, where they are here and were not read.
    pub(in super::super) fn begin_claims(&mut self, asks: &mut Vec<Ask>) {
        let is_satisfied = matches!(self.stage, Stage::Satisfied { .. });
        if let Some(claims) = self.claims.as_mut().filter(|claims| is_satisfied && claims.is_idle())
            && !claims.go_on(asks)
        {
            self.claims = None;
        }
    }

    pub(super) fn on_claims_opened(&mut self, name: BlobName, plain: Option<&[u8]>, asks: &mut Vec<Ask>) {
        let goes_on = |claims: &mut Box<Claims>| claims.on_opened(name, plain) && claims.go_on(asks);
        if !self.claims.as_mut().is_some_and(goes_on) {
            self.claims = None;
        }
    }
}

impl Claims {
    fn is_idle(&self) -> bool {
        matches!(self.waits, Waits::Nothing)
    }

    /// Takes the content that it waits for. `false`: nothing more can be read.
    fn on_opened(&mut self, name: BlobName, plain: Option<&[u8]>) -> bool {
        match mem::replace(&mut self.waits, Waits::Nothing) {
            Waits::Walk(awaited) if awaited == name => {
                let walk = self.walk.as_mut();
                let is_open = walk.zip(plain).is_some_and(|(walk, plain)| walk.opened(&name, plain));
                // Of what is not here after all nothing is said.
                self.walk.take_if(|_| !is_open);
                true
            }
            Waits::Ids(node) if name == BlobName::Native(node.blob.root) => {
                let Some(plain) = plain.filter(|plain| plain.len() as u64 == u64::from(node.content_len()))
                else {
                    return false;
                };
                if node.height > 0 {
                    return self.ids.open(&node.blob.root, plain);
                }
                self.open = Some((node.offset, plain.to_vec()));
                true
            }
            waits => {
                self.waits = waits;
                true
            }
        }
    }

    /// Goes on as far as what is open allows. `false`: it is through.
    fn go_on(&mut self, asks: &mut Vec<Ask>) -> bool {
        while self.is_idle() {
            if let Some((position, root)) = self.found.front().copied() {
                let Some(offset) = position.checked_mul(ID_LEN) else { return false };
                match self.id_at(offset) {
                    Some(id) => {
                        self.found.pop_front();
                        self.batch.push((id, root));
                        if self.batch.len() == CLAIMS_MAX {
                            asks.push(Ask::Claims(mem::take(&mut self.batch)));
                        }
                    }
                    None if !self.open_ids_at(offset, asks) => return false,
                    None => {}
                }
            } else if !self.find(asks) {
                let batch = mem::take(&mut self.batch);
                asks.extend((!batch.is_empty()).then_some(Ask::Claims(batch)));
                return false;
            }
        }
        true
    }

    /// The id at an offset of the stream, where it is open.
    fn id_at(&self, offset: u64) -> Option<BlobId> {
        let (start, bytes) = self.open.as_ref()?;
        let within = usize::try_from(offset.checked_sub(*start)?).ok()?;
        Some(BlobId(*bytes.get(within..)?.first_chunk()?))
    }

    /// Opens the blob of the ids that has the byte at an offset, or one above it. `false`: there is none.
    fn open_ids_at(&mut self, offset: u64, asks: &mut Vec<Ask>) -> bool {
        self.open = None;
        self.ids.seek(offset);
        loop {
            match self.ids.step() {
                Step::End => return false,
                Step::Blob(node) if node.height > 0 => {}
                Step::Blob(node) | Step::NeedsIndex(node) => {
                    asks.push(Ask::Open(node.blob.clone(), node.content_len()));
                    self.waits = Waits::Ids(node);
                    return true;
                }
            }
        }
    }

    /// Finds another name, or says what must be opened first. `false`: there is none.
    fn find(&mut self, asks: &mut Vec<Ask>) -> bool {
        loop {
            let Some(walk) = &mut self.walk else {
                let Some((source, start)) = self.ahead.pop_front() else { return false };
                self.walk = match &source {
                    Source::Tree(tree) => Some(Walk::tree(tree, start, Urgency::USUAL)),
                    Source::File(file) => {
                        let reference = self.files.get(*file).map(|(_, _, reference)| reference);
                        reference.map(|reference| Walk::whole(*file, reference, start, Urgency::USUAL))
                    }
                };
                continue;
            };
            match walk.next(&self.files, self.packs_start) {
                Next::Blob(Wanted::Native { blob, len, .. }, position, node) => {
                    let name = BlobName::Native(blob.root);
                    self.found.push_back((position, blob.root));
                    if node.is_some() {
                        asks.push(Ask::Open(blob, len));
                        self.waits = Waits::Walk(name);
                    } else {
                        walk.data_stored();
                    }
                    return true;
                }
                // A pack stands at a position of its own; v5 blobs are named by their ids.
                Next::Blob(..) => walk.data_stored(),
                Next::Reopen(_, node) => {
                    asks.push(Ask::Open(node.blob.clone(), node.content_len()));
                    self.waits = Waits::Walk(node.blob.root.into());
                    return true;
                }
                Next::Wait | Next::End => self.walk = None,
            }
        }
    }
}
