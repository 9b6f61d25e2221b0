//! A walk through the blobs of one file, or a range of it, in the order of their positions.

use alloc::vec::Vec;
use core::ops::Range;

use super::Wanted;
use super::selection::Urgency;
use crate::blob::BlobRef;
use crate::ids::BlobName;
use crate::manifest::{Chunk, Reference};
use crate::tree::{Cursor, Node, Step, TreeRef};

enum Way {
    Tree(Cursor),
    /// The blobs of a chunk list, and the next one.
    Chunks(Vec<Wanted>, usize),
}

/// What a walk comes to.
pub(super) enum Next {
    /// A blob, its position, and the index node that it is, if it is one.
    Blob(Wanted, u64, Option<Node>),
    /// An index blob that was passed, and must be opened again; its position.
    Reopen(u64, Node),
    /// Nothing before an index blob in hand is opened.
    Wait,
    End,
}

/// Depth first; at most one index blob is in hand.
pub(super) struct Walk {
    way: Way,
    /// The position of the file's first blob.
    base: u64,
    urgency: Urgency,
    in_hand: usize,
    has_index_in_hand: bool,
    /// The data blobs passed, where the content itself is wanted.
    leaves: Option<Vec<BlobRef>>,
}

impl Walk {
    fn new(way: Way, base: u64, urgency: Urgency) -> Self {
        Self { way, base, urgency, in_hand: 0, has_index_in_hand: false, leaves: None }
    }

    /// Through a whole tree whose data blobs are wanted afterwards ([`Self::into_leaves`]).
    pub(super) fn keeping_leaves(tree: &TreeRef, urgency: Urgency) -> Self {
        let walk = Self::new(Way::Tree(Cursor::whole(tree)), 0, urgency);
        Self { leaves: Some(Vec::new()), ..walk }
    }

    /// Through a whole file.
    pub(super) fn whole(reference: &Reference, base: u64, urgency: Urgency) -> Self {
        let way = match reference {
            Reference::Tree(tree) => Way::Tree(Cursor::whole(tree)),
            Reference::Chunks(chunks) => Way::Chunks(chunks.iter().map(wanted).collect(), 0),
        };
        Self::new(way, base, urgency)
    }

    /// Through the blobs of a range of a file.
    pub(super) fn range(reference: &Reference, bytes: &Range<u64>, base: u64, urgency: Urgency) -> Self {
        match reference {
            Reference::Tree(tree) => Self::new(Way::Tree(Cursor::new(tree, bytes.clone())), base, urgency),
            Reference::Chunks(chunks) => {
                let (mut ids, mut before, mut start) = (Vec::new(), 0, 0);
                for chunk in chunks {
                    let end = start + u64::from(chunk.real_size);
                    if end <= bytes.start {
                        before += 1;
                    } else if start < bytes.end && !bytes.is_empty() {
                        ids.push(wanted(chunk));
                    }
                    start = end;
                }
                Self::new(Way::Chunks(ids, 0), base + before, urgency)
            }
        }
    }

    pub(super) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// Goes on; what it comes to is in hand from then on.
    pub(super) fn next(&mut self) -> Next {
        let next = self.step();
        match &next {
            Next::Blob(_, _, node) => {
                self.in_hand += 1;
                self.has_index_in_hand |= node.is_some();
            }
            Next::Reopen(..) => (self.in_hand, self.has_index_in_hand) = (self.in_hand + 1, true),
            Next::Wait | Next::End => {}
        }
        next
    }

    fn step(&mut self) -> Next {
        match &mut self.way {
            Way::Chunks(ids, at) => {
                let Some(id) = ids.get(*at) else { return Next::End };
                *at += 1;
                Next::Blob(id.clone(), self.base + *at as u64 - 1, None)
            }
            Way::Tree(_) if self.has_index_in_hand => Next::Wait,
            Way::Tree(cursor) => match cursor.step() {
                Step::End => Next::End,
                Step::NeedsIndex(node) => Next::Reopen(self.base + node.position, node),
                Step::Blob(node) => {
                    let position = self.base + node.position;
                    let id = Wanted::Native { blob: node.blob.clone(), len: node.content_len(), id: None };
                    if node.height > 0 {
                        return Next::Blob(id, position, Some(node));
                    }
                    if let Some(leaves) = &mut self.leaves {
                        leaves.push(node.blob);
                    }
                    Next::Blob(id, position, None)
                }
            },
        }
    }

    /// A data blob in hand is stored.
    pub(super) fn data_stored(&mut self) {
        self.in_hand -= 1;
    }

    /// The index blob in hand was opened. `false`: it does not hold the links that its reference promises.
    pub(super) fn opened(&mut self, id: &BlobName, plain: &[u8]) -> bool {
        self.in_hand -= 1;
        self.has_index_in_hand = false;
        match &mut self.way {
            Way::Tree(cursor) => id.root().is_some_and(|root| cursor.open(&root, plain)),
            Way::Chunks(..) => false,
        }
    }

    /// Frees the memory of opened index blobs; they are opened again when the walk goes on.
    pub(super) fn release(&mut self) {
        if let Way::Tree(cursor) = &mut self.way
            && !self.has_index_in_hand
        {
            cursor.release();
        }
    }

    /// Nothing is in hand, and nothing follows.
    pub(super) fn is_finished(&self) -> bool {
        self.in_hand == 0 && self.is_at_end()
    }

    fn is_at_end(&self) -> bool {
        match &self.way {
            Way::Tree(cursor) => cursor.is_at_end(),
            Way::Chunks(ids, at) => *at == ids.len(),
        }
    }

    /// Whether it waits for an index blob, and something follows.
    pub(super) fn is_waiting(&self) -> bool {
        self.has_index_in_hand && !self.is_at_end()
    }

    /// Whether there is something to take in hand.
    pub(super) fn can_go_on(&self) -> bool {
        !self.has_index_in_hand && !self.is_at_end()
    }

    pub(super) fn into_leaves(self) -> Option<Vec<BlobRef>> {
        self.leaves
    }
}

fn wanted(chunk: &Chunk) -> Wanted {
    match chunk.root {
        Some(root) => {
            let blob = BlobRef { root, key: chunk.key.clone() };
            Wanted::Native { blob, len: chunk.real_size, id: Some(chunk.id) }
        }
        None => Wanted::V5(chunk.id),
    }
}
