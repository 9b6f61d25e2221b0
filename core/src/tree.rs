//! Trees: a stream of any length as one 73-byte reference (`docs/protocol.md` §3).
//!
//! A tree's shape follows from the stream's size alone: data blobs hold [`PLAIN_LEN`] bytes each, only the last may
//! hold less; index blobs hold [`FANOUT`] links each, only the last of a level may hold less; the depth is the least
//! that holds the size. So nobody can send a tree of surprising shape.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use zeroize::Zeroizing;

use crate::blob::{LINK_LEN, Link, PLAIN_LEN, TAG_LEN};
use crate::limits::TREE_DEPTH_MAX;

/// Links in an index blob.
pub const FANOUT: usize = PLAIN_LEN / LINK_LEN;
/// Bytes of a [`TreeRef`] in a manifest's body.
pub const TREE_REF_LEN: usize = 8 + 1 + LINK_LEN;

const _: () = assert!(FANOUT == 16_384);

/// How much the blobs of a tree hold: [`Shape::REAL`], but for simulations with smaller blobs
/// ([`crate::suite::BlobFormat::PLAIN_LEN`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    plain_len: usize,
}

impl Shape {
    /// The protocol's: [`PLAIN_LEN`] and [`FANOUT`].
    pub const REAL: Self = Self::new(PLAIN_LEN);

    /// Trees of blobs with `plain_len` bytes of plaintext.
    ///
    /// # Panics
    /// Where that is not a whole number of links, two at least and [`FANOUT`] at most.
    pub const fn new(plain_len: usize) -> Self {
        assert!(plain_len.is_multiple_of(LINK_LEN) && plain_len >= 2 * LINK_LEN && plain_len <= PLAIN_LEN);
        Self { plain_len }
    }

    /// Bytes of plaintext in a blob.
    pub const fn plain_len(self) -> usize {
        self.plain_len
    }

    /// Links in an index blob.
    pub const fn fanout(self) -> usize {
        self.plain_len / LINK_LEN
    }

    /// Bytes that a full node of `height` covers.
    fn span(self, height: u8) -> u64 {
        // Beyond the greatest depth a span would not fit 64 bits; no canonical tree has such a node.
        self.plain_len as u64 * (self.fanout() as u64).pow(u32::from(height.min(TREE_DEPTH_MAX)))
    }

    /// The least depth that holds `size` bytes; `None` above what [`TREE_DEPTH_MAX`] holds.
    fn depth_for(self, size: u64) -> Option<u8> {
        (0..=TREE_DEPTH_MAX).find(|&depth| size <= self.span(depth))
    }

    /// Data blobs of a stream: an empty stream has one too.
    fn leaf_count(self, size: u64) -> u64 {
        size.div_ceil(self.plain_len as u64).max(1)
    }
}

/// A reference to a stream (`docs/protocol.md` §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRef {
    /// Bytes of the stream.
    pub size: u64,
    /// 0: `link` is the data blob; n: an index blob over trees of depth n − 1. Always the least that holds `size`.
    pub depth: u8,
    /// The top blob.
    pub link: Link,
    /// How much its blobs hold; no part of what is written.
    pub shape: Shape,
}

impl TreeRef {
    /// A reference whose depth is the canonical one for its size; `None` otherwise.
    pub fn new(size: u64, depth: u8, link: Link) -> Option<Self> {
        Self::new_in(Shape::REAL, size, depth, link)
    }

    pub(crate) fn new_in(shape: Shape, size: u64, depth: u8, link: Link) -> Option<Self> {
        (shape.depth_for(size) == Some(depth)).then_some(Self { size, depth, link, shape })
    }

    /// The top node, from which [`Node::children`] leads to all others.
    pub fn root(&self) -> Node {
        Node { link: self.link.clone(), height: self.depth, offset: 0, len: self.size, shape: self.shape }
    }

    /// Number of blobs, index blobs included.
    pub fn blob_count(&self) -> u64 {
        let leaves = self.shape.leaf_count(self.size);
        let mut level = leaves;
        (0..self.depth).fold(leaves, |total, _| {
            level = level.div_ceil(self.shape.fanout() as u64);
            total + level
        })
    }

    /// Size (big-endian), depth, link. The result holds a key: wipe it after use.
    pub fn to_bytes(&self) -> Zeroizing<[u8; TREE_REF_LEN]> {
        let mut out = Zeroizing::new([0; TREE_REF_LEN]);
        out[..8].copy_from_slice(&self.size.to_be_bytes());
        out[8] = self.depth;
        out[9..].copy_from_slice(&*self.link.to_bytes());
        out
    }

    /// From [`Self::to_bytes`]' form; `None` where the depth is not the size's.
    pub fn from_bytes(bytes: &[u8; TREE_REF_LEN]) -> Option<Self> {
        Self::from_bytes_in(Shape::REAL, bytes)
    }

    pub(crate) fn from_bytes_in(shape: Shape, bytes: &[u8; TREE_REF_LEN]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (depth, link) = rest.split_first()?;
        Self::new_in(shape, u64::from_be_bytes(*size), *depth, Link::from_bytes(link.first_chunk()?))
    }
}

/// A node of a tree: what its blob must hold follows from the tree's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its blob.
    pub link: Link,
    /// Height above the data blobs; 0 is data.
    pub height: u8,
    /// Where its bytes begin in the stream.
    pub offset: u64,
    /// How many bytes of the stream it covers.
    pub len: u64,
    /// How much the tree's blobs hold.
    pub shape: Shape,
}

impl Node {
    /// How many children it has: none for a data node, at most [`FANOUT`] otherwise.
    pub fn child_count(&self) -> usize {
        match self.height {
            0 => 0,
            height => {
                let fanout = self.shape.fanout() as u64;
                let count = self.len.div_ceil(self.shape.span(height - 1)).clamp(1, fanout);
                usize::try_from(count).expect("at most FANOUT")
            }
        }
    }

    /// The child at `index`, from the opened blob's plaintext; `None` where there is none, or `plain` ends before it.
    pub fn child(&self, plain: &[u8], index: usize) -> Option<Self> {
        if index >= self.child_count() {
            return None;
        }
        let link = Link::from_bytes(plain.get(index * LINK_LEN..)?.first_chunk()?);
        let height = self.height - 1;
        let span = self.shape.span(height);
        let start = index as u64 * span;
        let len = (self.len - start).min(span);
        Some(Self { link, height, offset: self.offset + start, len, shape: self.shape })
    }

    /// The children of an index node, from its opened blob's plaintext, in order. Empty for a data node.
    pub fn children(&self, plain: &[u8]) -> Vec<Self> {
        (0..self.child_count()).map_while(|index| self.child(plain, index)).collect()
    }

    fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// Builds a tree over data blobs that come in order. At most one index node for each level is in memory.
///
/// `store` gets a blob's buffer whose first `len` bytes are an index node's content; it seals it
/// ([`crate::blob::seal`]), stores the blob and returns its link. After an error from it the writer is of no more use.
pub struct TreeWriter {
    shape: Shape,
    /// What waits at each height for the node above it.
    levels: Vec<Level>,
    leaves: u64,
}

/// The links of one height that wait for their index node. Never empty.
enum Level {
    /// The first; it may turn out to be the root, so a stream of one blob takes no index buffer.
    One(Link),
    /// Several, encoded in a buffer that becomes the index blob.
    Many(Zeroizing<Vec<u8>>),
}

impl TreeWriter {
    /// A writer without links.
    pub fn new() -> Self {
        Self::new_in(Shape::REAL)
    }

    /// A writer without links, of a tree of another shape.
    pub fn new_in(shape: Shape) -> Self {
        Self { shape, levels: Vec::new(), leaves: 0 }
    }

    /// Appends the next data blob. All but the stream's last must be full.
    pub fn push<E>(
        &mut self,
        link: Link,
        mut store: impl FnMut(&mut [u8], usize) -> Result<Link, E>,
    ) -> Result<(), E> {
        self.leaves += 1;
        self.push_at(0, link, &mut store)
    }

    /// Stores the index nodes that are left and returns the reference to the stream of `size` bytes.
    ///
    /// # Panics
    /// Where `size` is not one that as many data blobs as were pushed hold.
    pub fn finish<E>(
        mut self,
        size: u64,
        mut store: impl FnMut(&mut [u8], usize) -> Result<Link, E>,
    ) -> Result<TreeRef, E> {
        assert!(
            self.leaves == self.shape.leaf_count(size),
            "{} data blobs do not hold {size} bytes",
            self.leaves
        );
        let mut height = 0;
        loop {
            let is_top = height + 1 == self.levels.len();
            match mem::replace(&mut self.levels[height], Level::Many(Zeroizing::default())) {
                Level::One(link) if is_top => {
                    let depth = u8::try_from(height).expect("64 bits of size give few levels");
                    let tree = TreeRef::new_in(self.shape, size, depth, link);
                    return Ok(tree.expect("full nodes give the least depth"));
                }
                Level::One(link) => {
                    let links = Zeroizing::new(link.to_bytes().to_vec());
                    let node = self.seal_node(links, &mut store)?;
                    self.push_at(height + 1, node, &mut store)?;
                }
                Level::Many(links) => {
                    let node = self.seal_node(links, &mut store)?;
                    self.push_at(height + 1, node, &mut store)?;
                }
            }
            height += 1;
        }
    }

    fn push_at<E>(
        &mut self,
        height: usize,
        link: Link,
        store: &mut impl FnMut(&mut [u8], usize) -> Result<Link, E>,
    ) -> Result<(), E> {
        match self.levels.get_mut(height) {
            None => self.levels.push(Level::One(link)),
            Some(Level::Many(links)) if links.len() == self.shape.plain_len() => {
                let full = mem::take(links);
                self.levels[height] = Level::One(link);
                let node = self.seal_node(full, store)?;
                self.push_at(height + 1, node, store)?;
            }
            Some(Level::Many(links)) => links.extend_from_slice(&*link.to_bytes()),
            Some(level @ Level::One(_)) => {
                // The whole blob's room at once, so that no grown vector leaves keys behind.
                let links = Level::Many(Zeroizing::new(Vec::with_capacity(self.shape.plain_len() + TAG_LEN)));
                if let (Level::One(first), Level::Many(links)) = (mem::replace(level, links), level) {
                    links.extend_from_slice(&*first.to_bytes());
                    links.extend_from_slice(&*link.to_bytes());
                }
            }
        }
        Ok(())
    }

    fn seal_node<E>(
        &self,
        mut links: Zeroizing<Vec<u8>>,
        store: &mut impl FnMut(&mut [u8], usize) -> Result<Link, E>,
    ) -> Result<Link, E> {
        let len = links.len();
        links.resize(self.shape.plain_len() + TAG_LEN, 0);
        store(&mut links, len)
    }
}

impl Default for TreeWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a range of a stream in order: says which blob it wants next and cuts the data out of what it is fed. Holds
/// the links of at most one index node for each height.
pub struct TreeReader {
    /// Opened index nodes with children still to visit, the lowest last.
    stack: Vec<Pending>,
    wanted: Option<Node>,
    range: Range<u64>,
}

/// Links of an opened index node that are still to visit.
struct Pending {
    node: Node,
    links: Zeroizing<Vec<u8>>,
    next: usize,
}

impl TreeReader {
    /// A reader of `range`, cut to the stream's end. An empty range wants nothing.
    pub fn new(tree: &TreeRef, range: Range<u64>) -> Self {
        let range = range.start..range.end.min(tree.size);
        let wanted = (!range.is_empty()).then(|| tree.root());
        Self { stack: Vec::new(), wanted, range }
    }

    /// The node whose opened blob [`Self::feed`] takes next; `None` when the range is read.
    pub fn wanted(&self) -> Option<&Node> {
        self.wanted.as_ref()
    }

    /// Takes the plaintext of the wanted node's blob and returns the stream's next bytes: empty after an index node.
    /// Without a wanted node it does nothing.
    ///
    /// # Panics
    /// Where `plain` is not a blob's plaintext.
    pub fn feed<'a>(&mut self, plain: &'a [u8]) -> &'a [u8] {
        let Some(node) = self.wanted.take() else { return &[] };
        assert!(plain.len() == node.shape.plain_len(), "a blob's plaintext has one length");
        let mut data: &[u8] = &[];
        if node.height == 0 {
            let from = self.range.start.max(node.offset) - node.offset;
            let to = self.range.end.min(node.end()) - node.offset;
            // A canonical tree's data node covers at most a blob's bytes.
            data = &plain[to_usize(from)..to_usize(to)];
        } else {
            let first =
                to_usize(self.range.start.saturating_sub(node.offset) / node.shape.span(node.height - 1));
            let links = Zeroizing::new(plain[..node.child_count() * LINK_LEN].to_vec());
            self.stack.push(Pending { node, links, next: first });
        }
        self.advance();
        data
    }

    fn advance(&mut self) {
        while let Some(top) = self.stack.last_mut() {
            match top.node.child(&top.links, top.next) {
                Some(child) if child.offset < self.range.end => {
                    top.next += 1;
                    self.wanted = Some(child);
                    return;
                }
                _ => self.stack.pop(),
            };
        }
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
