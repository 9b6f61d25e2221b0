//! Walking a tree.

use alloc::vec::Vec;
use core::ops::Range;

use zeroize::Zeroizing;

use super::{Node, TreeRef};
use crate::blob::BLOB_REF_LEN;
use crate::ids::Root;

/// The next step of a walk through a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next blob, index or data.
    Blob(Node),
    /// [`Cursor::open`] must take this index blob's plaintext first.
    NeedsIndex(Node),
    /// The range is over.
    End,
}

/// A walk through the blobs of a tree, each before those that it links to, and the data blobs in stream order. The
/// cursor does no I/O: it says which index blob it needs, and the driver reads and opens it.
///
/// It keeps the links of at most one opened index blob for each height in memory. Without them ([`Self::release`]) a
/// cursor takes some 100 bytes, and still knows its place.
pub struct Cursor {
    tree: TreeRef,
    /// The next blob is the node of `height` that leads to this data blob, or is this data blob.
    data_blob: u64,
    height: u8,
    /// Where the range ends, in data blobs.
    end: u64,
    /// The opened index blobs on the way to the next blob, from the root down without a gap, all above `height`.
    opened: Vec<Opened>,
}

struct Opened {
    node: Node,
    /// Of all its children.
    links: Zeroizing<Vec<u8>>,
}

impl Cursor {
    /// Walks through the blobs of a range of the stream, cut at the stream's end, and the index blobs above them. An
    /// empty range has none.
    pub fn new(tree: &TreeRef, bytes: Range<u64>) -> Self {
        let plain_len = tree.shape.plain_len() as u64;
        let end = bytes.end.min(tree.size);
        let end = if bytes.start < end { end.div_ceil(plain_len) } else { 0 };
        Self::over(tree, bytes.start / plain_len..end)
    }

    /// Walks through every blob of the tree; even that of an empty stream has one.
    pub fn whole(tree: &TreeRef) -> Self {
        Self::over(tree, 0..tree.data_blob_count())
    }

    /// Walks through some of the tree's data blobs, counted from 0, and the index blobs above them.
    pub fn over(tree: &TreeRef, data_blobs: Range<u64>) -> Self {
        let end = data_blobs.end.min(tree.data_blob_count());
        Self { tree: tree.clone(), data_blob: data_blobs.start, height: tree.depth, end, opened: Vec::new() }
    }

    /// Goes one blob on, unless an index blob must be opened first.
    pub fn step(&mut self) -> Step {
        let Some(node) = self.lowest_known() else { return Step::End };
        if node.height > self.height {
            return Step::NeedsIndex(node);
        }
        match self.height.checked_sub(1) {
            Some(below) => self.height = below,
            None => self.go_to(self.data_blob + 1),
        }
        Step::Blob(node)
    }

    /// Whether the range is over.
    pub fn is_at_end(&self) -> bool {
        self.data_blob >= self.end
    }

    /// Takes the plaintext of the index blob that the cursor needs. Changes nothing and returns `false` where it needs none
    /// or another one, or where `plain` ends before its links.
    pub fn open(&mut self, root: &Root, plain: &[u8]) -> bool {
        let needed = self.lowest_known().filter(|node| node.height > self.height && node.blob.root == *root);
        let Some(node) = needed else { return false };
        let Some(links) = plain.get(..node.child_count() * BLOB_REF_LEN) else { return false };
        self.opened.push(Opened { node, links: Zeroizing::new(links.to_vec()) });
        true
    }

    /// Wipes all opened links. The walk goes on at the same place once the index blobs on the way to it are opened again.
    pub fn release(&mut self) {
        self.opened = Vec::new();
    }

    /// Goes on with the data blob that holds the byte at `offset` of the stream; the walk ends from the range's end on.
    /// Index blobs above both the old and the new place do not come again: a seek forward repeats nothing, one backward
    /// repeats what lies between.
    pub fn seek(&mut self, offset: u64) {
        self.go_to(offset / self.tree.shape.plain_len() as u64);
    }

    /// Goes on with another data blob. The way to it parts from the current one below the nodes that lead to both.
    fn go_to(&mut self, data_blob: u64) {
        let leaves = |height| self.tree.shape.leaves(height);
        let is_above_both = |height: &u8| self.data_blob / leaves(*height) == data_blob / leaves(*height);
        // The root is above all data blobs.
        let parted = (0..self.tree.depth).rev().find(|height| !is_above_both(height));
        self.height = self.height.max(parted.unwrap_or(0));
        self.data_blob = data_blob;
        self.opened.truncate(usize::from(self.tree.depth - self.height));
        if self.is_at_end() {
            self.release();
        }
    }

    /// Returns the lowest node with a known link on the way to the next blob: that blob itself, or the index blob to open
    /// first. `None` at the end.
    fn lowest_known(&self) -> Option<Node> {
        if self.is_at_end() {
            return None;
        }
        let Some(Opened { node, links }) = self.opened.last() else { return Some(self.tree.root()) };
        let first = node.offset / self.tree.shape.plain_len() as u64;
        let index = (self.data_blob - first) / self.tree.shape.leaves(node.height - 1);
        let child = node.child(links, usize::try_from(index).ok()?);
        Some(child.expect("an opened index blob leads to the next blob and has all its links"))
    }
}
