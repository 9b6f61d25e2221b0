//! Trees: a stream of any length as one 73-byte reference (`docs/protocol.md` §3).
//!
//! A tree's shape follows from the stream's size alone. Each data blob holds [`PLAIN_LEN`] bytes, and only the last may
//! hold less. Each index blob holds [`FANOUT`] links, and only the last of a level may hold less. The depth is the least
//! that holds the size. So no peer can send a tree of surprising shape.

mod cursor;
mod writer;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

pub use cursor::{Cursor, Step};
pub use writer::TreeWriter;
use zeroize::Zeroizing;

use crate::base64;
use crate::blob::{BLOB_REF_LEN, BlobRef, PLAIN_LEN};
use crate::limits::TREE_DEPTH_MAX;

/// Links in an index blob.
pub const FANOUT: usize = 1024;
/// Bytes of a [`TreeRef`] in a manifest's body.
pub const TREE_REF_LEN: usize = 8 + 1 + BLOB_REF_LEN;

const _: () = assert!(FANOUT * BLOB_REF_LEN == crate::parts::PART_LEN, "an index blob is read by one part");

/// The capacity of a tree's blobs: [`Shape::REAL`], except in simulations with smaller blobs
/// ([`crate::suite::BlobFormat::PLAIN_LEN`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    plain_len: usize,
}

impl Shape {
    /// The protocol's shape: [`PLAIN_LEN`] and [`FANOUT`].
    pub const REAL: Self = Self::new(PLAIN_LEN);

    /// Trees of blobs with `plain_len` bytes of plaintext.
    ///
    /// # Panics
    /// Where that is not a whole number of links, from two to [`FANOUT`].
    pub const fn new(plain_len: usize) -> Self {
        assert!(
            plain_len.is_multiple_of(BLOB_REF_LEN) && plain_len >= 2 * BLOB_REF_LEN && plain_len <= PLAIN_LEN
        );
        Self { plain_len }
    }

    /// Bytes of plaintext in a blob.
    pub const fn plain_len(self) -> usize {
        self.plain_len
    }

    /// Links in an index blob: [`FANOUT`], or as many as a small blob holds.
    pub const fn fanout(self) -> usize {
        let fit = self.plain_len / BLOB_REF_LEN;
        if fit < FANOUT { fit } else { FANOUT }
    }

    /// Data blobs below a full node of `height`; a data blob counts itself.
    fn leaves(self, height: u8) -> u64 {
        // Beyond the greatest depth a span would not fit in 64 bits; no canonical tree has such a node.
        (self.fanout() as u64).pow(u32::from(height.min(TREE_DEPTH_MAX)))
    }

    /// Bytes that a full node of `height` covers.
    fn span(self, height: u8) -> u64 {
        self.plain_len as u64 * self.leaves(height)
    }

    /// Blobs of a full node of `height`: its own and all below it.
    fn blobs(self, height: u8) -> u64 {
        (0..=height.min(TREE_DEPTH_MAX)).map(|height| self.leaves(height)).sum()
    }

    /// Counts the blobs of the tree of a stream, index blobs included; `None` where no tree holds it.
    pub(crate) fn blob_count(self, size: u64) -> Option<u64> {
        Some(self.position_below(self.depth_for(size)?, self.leaf_count(size) - 1) + 1)
    }

    /// Returns the position of a data blob in a tree. Each node on the way down to it comes after its parent and the
    /// parent's earlier children, which are all full.
    fn position_below(self, depth: u8, data_blob: u64) -> u64 {
        let (mut position, mut left) = (0, data_blob);
        for height in (0..depth).rev() {
            position += 1 + left / self.leaves(height) * self.blobs(height);
            left %= self.leaves(height);
        }
        position
    }

    /// Returns the least depth that holds `size` bytes; `None` where even [`TREE_DEPTH_MAX`] does not.
    pub(crate) fn depth_for(self, size: u64) -> Option<u8> {
        (0..=TREE_DEPTH_MAX).find(|&depth| size <= self.span(depth))
    }

    /// Counts the data blobs of a stream: an empty stream has one too.
    fn leaf_count(self, size: u64) -> u64 {
        size.div_ceil(self.plain_len as u64).max(1)
    }
}

/// A reference to a stream (`docs/protocol.md` §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRef {
    /// Bytes of the stream.
    pub size: u64,
    /// 0: `blob` is the data blob; n: it is an index blob over trees of depth n − 1. Always the least that holds `size`.
    pub depth: u8,
    /// The top blob.
    pub blob: BlobRef,
    /// The capacity of its blobs; not written.
    pub shape: Shape,
}

impl TreeRef {
    /// Makes a reference; `None` where the depth is not the canonical one for the size.
    pub fn new(size: u64, depth: u8, blob: BlobRef) -> Option<Self> {
        Self::new_in(Shape::REAL, size, depth, blob)
    }

    pub(crate) fn new_in(shape: Shape, size: u64, depth: u8, blob: BlobRef) -> Option<Self> {
        (shape.depth_for(size) == Some(depth)).then_some(Self { size, depth, blob, shape })
    }

    /// The top node, from which [`Node::children`] leads to all others.
    pub fn root(&self) -> Node {
        Node::new(self.shape, self.blob.clone(), self.root_site())
    }

    fn root_site(&self) -> Site {
        Site { position: 0, height: self.depth, offset: 0, len: self.size }
    }

    /// Counts the data blobs: an empty stream has one too.
    pub fn data_blob_count(&self) -> u64 {
        self.shape.leaf_count(self.size)
    }

    /// Counts the blobs, index blobs included.
    pub fn blob_count(&self) -> u64 {
        // The last data blob is the last blob of all.
        self.shape.position_below(self.depth, self.data_blob_count() - 1) + 1
    }

    /// Returns the position of a data blob; `None` beyond the last.
    pub fn position_of(&self, data_blob: u64) -> Option<u64> {
        (data_blob < self.data_blob_count()).then(|| self.shape.position_below(self.depth, data_blob))
    }

    /// Returns the blob at a position; `None` beyond the last.
    pub fn blob_at(&self, position: u64) -> Option<Site> {
        let mut site = self.root_site();
        while site.position < position {
            let below = site.height.checked_sub(1)?;
            let index = (position - site.position - 1) / self.shape.blobs(below);
            site = site.child(self.shape, usize::try_from(index).ok()?)?;
        }
        Some(site)
    }

    /// Writes size (big-endian), depth and reference. The result holds a key: wipe it after use.
    pub fn to_bytes(&self) -> Zeroizing<[u8; TREE_REF_LEN]> {
        let mut out = Zeroizing::new([0; TREE_REF_LEN]);
        out[..8].copy_from_slice(&self.size.to_be_bytes());
        out[8] = self.depth;
        out[9..].copy_from_slice(&*self.blob.to_bytes());
        out
    }

    /// The same as the text of 98 characters in a head (`docs/protocol.md` §6).
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(base64::encode(&*self.to_bytes()))
    }

    /// Reads the form of [`Self::to_text`]; `None` where the depth does not fit the size.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::from_text_in(Shape::REAL, text)
    }

    pub(crate) fn from_text_in(shape: Shape, text: &str) -> Option<Self> {
        Self::from_bytes_in(shape, &Zeroizing::new(base64::decode_array(text)?))
    }

    /// Reads the form of [`Self::to_bytes`]; `None` where the depth does not fit the size.
    pub fn from_bytes(bytes: &[u8; TREE_REF_LEN]) -> Option<Self> {
        Self::from_bytes_in(Shape::REAL, bytes)
    }

    pub(crate) fn from_bytes_in(shape: Shape, bytes: &[u8; TREE_REF_LEN]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (depth, blob) = rest.split_first()?;
        Self::new_in(shape, u64::from_be_bytes(*size), *depth, BlobRef::from_bytes(blob.first_chunk()?))
    }
}

/// A blob's place in its tree, which follows from the tree's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its position (`docs/protocol.md` §12) in the tree.
    pub position: u64,
    /// Height above the data blobs; 0 is data.
    pub height: u8,
    /// Where its bytes begin in the stream.
    pub offset: u64,
    /// How many bytes of the stream it covers.
    pub len: u64,
}

impl Site {
    /// Counts the children: none where it is data, at most a blob's links otherwise.
    fn child_count(&self, shape: Shape) -> usize {
        let Some(below) = self.height.checked_sub(1) else { return 0 };
        let count = self.len.div_ceil(shape.span(below)).clamp(1, shape.fanout() as u64);
        usize::try_from(count).expect("at most FANOUT")
    }

    fn child(&self, shape: Shape, index: usize) -> Option<Self> {
        if index >= self.child_count(shape) {
            return None;
        }
        let (height, index) = (self.height - 1, index as u64);
        let start = index * shape.span(height);
        Some(Self {
            position: self.position + 1 + index * shape.blobs(height),
            height,
            offset: self.offset + start,
            len: (self.len - start).min(shape.span(height)),
        })
    }
}

/// A node of a tree. The tree's size determines what its blob must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its blob.
    pub blob: BlobRef,
    /// Its position (`docs/protocol.md` §12) in the tree.
    pub position: u64,
    /// Height above the data blobs; 0 is data.
    pub height: u8,
    /// Where its bytes begin in the stream.
    pub offset: u64,
    /// How many bytes of the stream it covers.
    pub len: u64,
    /// The capacity of the tree's blobs.
    pub shape: Shape,
}

impl Node {
    fn new(shape: Shape, blob: BlobRef, site: Site) -> Self {
        let Site { position, height, offset, len } = site;
        Self { blob, position, height, offset, len, shape }
    }

    /// Returns its place.
    pub fn site(&self) -> Site {
        Site { position: self.position, height: self.height, offset: self.offset, len: self.len }
    }

    /// Bytes of content in its blob: its bytes of the stream, or its links.
    pub fn content_len(&self) -> u32 {
        let len = match self.height {
            0 => self.len,
            _ => (self.child_count() * BLOB_REF_LEN) as u64,
        };
        u32::try_from(len).expect("a blob holds at most 2^20 bytes")
    }

    /// Counts the children: none for a data node, at most [`FANOUT`] otherwise.
    pub fn child_count(&self) -> usize {
        self.site().child_count(self.shape)
    }

    /// Reads the child at `index` from the opened blob's plaintext; `None` where there is none, or `plain` ends before it.
    pub fn child(&self, plain: &[u8], index: usize) -> Option<Self> {
        let site = self.site().child(self.shape, index)?;
        let blob = BlobRef::from_bytes(plain.get(index * BLOB_REF_LEN..)?.first_chunk()?);
        Some(Self::new(self.shape, blob, site))
    }

    /// Reads the children of an index node, in order, from its opened blob's plaintext. A data node has none.
    pub fn children(&self, plain: &[u8]) -> Vec<Self> {
        (0..self.child_count()).map_while(|index| self.child(plain, index)).collect()
    }

    /// Returns the bytes of a data node's content that lie in a range of the stream, perhaps none.
    pub fn part(&self, bytes: &Range<u64>) -> Range<usize> {
        let place = |offset: u64| {
            let within = offset.clamp(self.offset, self.offset + self.len) - self.offset;
            usize::try_from(within).expect("a data node covers at most a blob's bytes")
        };
        place(bytes.start)..place(bytes.end.max(bytes.start))
    }
}

#[cfg(test)]
mod tests;
