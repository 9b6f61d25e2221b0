//! A walk through the blobs of one file, or a range of it, or of a tree, in the order of their positions.

use alloc::vec::Vec;
use core::ops::Range;

use super::files::Files;
use super::selection::Urgency;
use super::{Spot, Wanted};
use crate::blob::BlobRef;
use crate::ids::BlobName;
use crate::manifest::{Chunk, Extent, Reference};
use crate::tree::{Cursor, Node, Step, TreeRef};

enum Way {
    Tree(Cursor),
    File(Pieces),
}

/// The extents or chunks of a file.
struct Pieces {
    file: usize,
    /// What is wanted of the file; `None`: all of it, with the blob of an empty stream.
    bytes: Option<Range<u64>>,
    /// The next one, or the one whose tree is walked through; none is wanted from `end` on.
    at: usize,
    end: usize,
    /// Where the next one begins in the file.
    offset: u64,
    tree: Option<Cursor>,
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
    /// The position of the next tree's first blob, or of the next chunk.
    base: u64,
    urgency: Urgency,
    in_hand: usize,
    has_index_in_hand: bool,
    /// The data blobs passed, where the content itself is wanted.
    leaves: Option<Vec<(BlobRef, u32)>>,
}

impl Walk {
    fn new(way: Way, base: u64, urgency: Urgency) -> Self {
        Self { way, base, urgency, in_hand: 0, has_index_in_hand: false, leaves: None }
    }

    /// Through a whole tree.
    pub(super) fn tree(tree: &TreeRef, base: u64, urgency: Urgency) -> Self {
        Self::new(Way::Tree(Cursor::whole(tree)), base, urgency)
    }

    /// Through a whole tree whose data blobs are wanted afterwards ([`Self::into_leaves`]).
    pub(super) fn keeping_leaves(tree: &TreeRef, base: u64, urgency: Urgency) -> Self {
        Self { leaves: Some(Vec::new()), ..Self::tree(tree, base, urgency) }
    }

    /// Through a whole file, whose first blob stands at `base`.
    pub(super) fn whole(file: usize, reference: &Reference, base: u64, urgency: Urgency) -> Self {
        let end = piece_count(reference);
        let pieces = Pieces { file, bytes: None, at: 0, end, offset: 0, tree: None };
        Self::new(Way::File(pieces), base, urgency)
    }

    /// Through the blobs of a range of a file.
    pub(super) fn range(
        file: usize,
        reference: &Reference,
        bytes: &Range<u64>,
        base: u64,
        urgency: Urgency,
    ) -> Self {
        let mut pieces = Pieces { file, bytes: Some(bytes.clone()), at: 0, end: 0, offset: 0, tree: None };
        let (mut base, mut offset, mut is_before) = (base, 0, true);
        for at in 0..piece_count(reference) {
            let (size, blobs) = piece(reference, at);
            let is_wanted = !part_of(bytes, offset, size).is_empty();
            if is_before && is_wanted {
                (pieces.at, pieces.offset, is_before) = (at, offset, false);
            }
            if is_before {
                base += blobs;
            }
            if is_wanted {
                pieces.end = at + 1;
            }
            offset += size;
        }
        Self::new(Way::File(pieces), base, urgency)
    }

    pub(super) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// The byte of a data blob's content from which a range of a file wants it.
    pub(super) fn from(&self, wanted: &Wanted) -> Option<u32> {
        let Way::File(Pieces { bytes: Some(bytes), .. }) = &self.way else { return None };
        u32::try_from(bytes.start.saturating_sub(wanted.spot()?.offset)).ok()
    }

    /// Goes on; what it comes to is in hand from then on. `packs` is the position of the first pack.
    pub(super) fn next(&mut self, files: &Files, packs: u64) -> Next {
        let next = if self.has_index_in_hand { Next::Wait } else { self.step(files, packs) };
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

    fn step(&mut self, files: &Files, packs: u64) -> Next {
        loop {
            let begin = self.way.begin();
            if let Some(cursor) = self.way.cursor()
                && let Some(next) = node_of(cursor.step(), self.base, begin)
            {
                if let (Next::Blob(Wanted::Native { blob, len, .. }, _, None), Some(leaves)) =
                    (&next, &mut self.leaves)
                {
                    leaves.push((blob.clone(), *len));
                }
                return next;
            }
            let Way::File(pieces) = &mut self.way else { return Next::End };
            let Some((_, _, reference)) = files.get(pieces.file) else { return Next::End };
            if pieces.tree.take().is_some() {
                let (_, blobs) = piece(reference, pieces.at);
                self.base += blobs;
                pieces.pass(reference);
            }
            if pieces.at >= pieces.end {
                return Next::End;
            }
            match reference {
                Reference::Extents(extents) => match &extents[pieces.at] {
                    Extent::Tree(tree) => pieces.tree = Some(pieces.cursor(tree)),
                    Extent::Slice(slice) => {
                        let pack = files.pack(slice.pack);
                        pieces.pass(reference);
                        // A page with a slice in no pack was refused.
                        let Some((place, root)) = pack else { continue };
                        return Next::Blob(Wanted::Pack(root), packs + place, None);
                    }
                },
                Reference::Chunks(chunks) => {
                    let begin = Spot::new(pieces.file, pieces.offset);
                    let (wanted, position) = (chunk_wanted(&chunks[pieces.at], begin), self.base);
                    self.base += 1;
                    pieces.pass(reference);
                    return Next::Blob(wanted, position, None);
                }
                Reference::Symlink(_) | Reference::Folder => return Next::End,
            }
        }
    }

    /// A data blob in hand is stored.
    pub(super) fn data_stored(&mut self) {
        self.in_hand -= 1;
    }

    /// The index blob in hand was opened. `false`: it does not hold the links that its reference promises.
    pub(super) fn opened(&mut self, name: &BlobName, plain: &[u8]) -> bool {
        self.in_hand -= 1;
        self.has_index_in_hand = false;
        match (self.way.cursor(), name.root()) {
            (Some(cursor), Some(root)) => cursor.open(&root, plain),
            _ => false,
        }
    }

    /// Frees the memory of opened index blobs; they are opened again when the walk goes on.
    pub(super) fn release(&mut self) {
        if !self.has_index_in_hand
            && let Some(cursor) = self.way.cursor()
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
            Way::File(pieces) => {
                let is_tree_over = pieces.tree.as_ref().is_some_and(Cursor::is_at_end);
                pieces.at >= pieces.end || (is_tree_over && pieces.at + 1 == pieces.end)
            }
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

    pub(super) fn into_leaves(self) -> Option<Vec<(BlobRef, u32)>> {
        self.leaves
    }
}

impl Way {
    /// Where the stream that is walked through begins, if it is a file's.
    fn begin(&self) -> Option<Spot> {
        match self {
            Self::Tree(_) => None,
            Self::File(pieces) => Some(Spot::new(pieces.file, pieces.offset)),
        }
    }

    fn cursor(&mut self) -> Option<&mut Cursor> {
        match self {
            Self::Tree(cursor) => Some(cursor),
            Self::File(pieces) => pieces.tree.as_mut(),
        }
    }
}

impl Pieces {
    /// Goes to the next piece.
    fn pass(&mut self, reference: &Reference) {
        let (size, _) = piece(reference, self.at);
        (self.at, self.offset) = (self.at + 1, self.offset + size);
    }

    /// A walk through what is wanted of a tree that begins where the next piece does.
    fn cursor(&self, tree: &TreeRef) -> Cursor {
        match &self.bytes {
            None => Cursor::whole(tree),
            Some(bytes) => {
                let part = part_of(bytes, self.offset, tree.size);
                Cursor::new(tree, part.start - self.offset..part.end - self.offset)
            }
        }
    }
}

/// What of a range lies in a piece that begins at `offset`.
fn part_of(bytes: &Range<u64>, offset: u64, size: u64) -> Range<u64> {
    let end = offset + size;
    let start = bytes.start.clamp(offset, end);
    start..bytes.end.clamp(start, end)
}

/// What a step of a walk through a tree comes to, whose first blob stands at `base` and whose stream begins at `begin`. `None` at
/// its end.
fn node_of(step: Step, base: u64, begin: Option<Spot>) -> Option<Next> {
    match step {
        Step::End => None,
        Step::NeedsIndex(node) => Some(Next::Reopen(base + node.position, node)),
        Step::Blob(node) => {
            let of_file = begin.filter(|_| node.height == 0);
            let spot = of_file.map(|begin| begin.after(node.offset));
            let wanted = Wanted::Native { blob: node.blob.clone(), len: node.content_len(), id: None, spot };
            Some(Next::Blob(wanted, base + node.position, (node.height > 0).then_some(node)))
        }
    }
}

fn chunk_wanted(chunk: &Chunk, spot: Spot) -> Wanted {
    let native = |blob| Wanted::Native { blob, len: chunk.real_size, id: Some(chunk.id), spot: Some(spot) };
    chunk.blob().map_or(Wanted::V5(chunk.id), native)
}

fn piece_count(reference: &Reference) -> usize {
    match reference {
        Reference::Extents(extents) => extents.len(),
        Reference::Chunks(chunks) => chunks.len(),
        Reference::Symlink(_) | Reference::Folder => 0,
    }
}

/// The bytes and the blobs of a piece; nothing beyond the last.
fn piece(reference: &Reference, at: usize) -> (u64, u64) {
    match reference {
        Reference::Extents(extents) => extents.get(at).map_or((0, 0), |one| (one.size(), one.blob_count())),
        Reference::Chunks(chunks) => chunks.get(at).map_or((0, 0), |one| (one.real_size.into(), 1)),
        Reference::Symlink(_) | Reference::Folder => (0, 0),
    }
}
