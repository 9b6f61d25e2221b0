//! Writing a tree.

use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use zeroize::Zeroizing;

use super::{Shape, TreeRef};
use crate::blob::{BLOB_REF_LEN, BlobRef, TAG_LEN};

/// Builds a tree over data blobs that come in order. Holds at most one index node of each level in memory.
///
/// `store` takes a blob's buffer whose first `len` bytes are an index node's content, seals it
/// ([`crate::blob::seal`]), stores the blob and returns its reference. After an error of `store` the writer is unusable.
pub struct TreeWriter {
    shape: Shape,
    /// The links of each height that wait for the node above them.
    levels: Vec<Level>,
    leaves: u64,
}

/// The links of one height that wait for their index node. Never empty.
enum Level {
    /// The first blob, which may turn out to be the root: a stream of one blob needs no index buffer.
    One(BlobRef),
    /// Several links, encoded in a buffer that becomes the index blob.
    Many(Zeroizing<Vec<u8>>),
}

impl TreeWriter {
    /// Makes a writer without links.
    pub fn new() -> Self {
        Self::new_in(Shape::REAL)
    }

    /// Makes a writer without links, for a tree of another shape.
    pub fn new_in(shape: Shape) -> Self {
        Self { shape, levels: Vec::new(), leaves: 0 }
    }

    /// Appends the next data blob. All but the stream's last one must be full.
    pub fn push<E>(
        &mut self,
        blob: BlobRef,
        mut store: impl FnMut(&mut [u8], usize) -> Result<BlobRef, E>,
    ) -> Result<(), E> {
        self.leaves += 1;
        self.push_at(0, blob, &mut store)
    }

    /// Stores the index nodes that are left and returns the reference to the stream of `size` bytes.
    ///
    /// # Panics
    /// Where `size` does not need as many data blobs as were pushed.
    pub fn finish<E>(
        mut self,
        size: u64,
        mut store: impl FnMut(&mut [u8], usize) -> Result<BlobRef, E>,
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
                Level::One(blob) if is_top => {
                    let depth = u8::try_from(height).expect("64 bits of size give few levels");
                    let tree = TreeRef::new_in(self.shape, size, depth, blob);
                    return Ok(tree.expect("full nodes give the least depth"));
                }
                Level::One(blob) => {
                    let links = Zeroizing::new(blob.to_bytes().to_vec());
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
        blob: BlobRef,
        store: &mut impl FnMut(&mut [u8], usize) -> Result<BlobRef, E>,
    ) -> Result<(), E> {
        match self.levels.get_mut(height) {
            None => self.levels.push(Level::One(blob)),
            Some(Level::Many(links)) if links.len() == self.shape.fanout() * BLOB_REF_LEN => {
                let full = mem::take(links);
                self.levels[height] = Level::One(blob);
                let node = self.seal_node(full, store)?;
                self.push_at(height + 1, node, store)?;
            }
            Some(Level::Many(links)) => links.extend_from_slice(&*blob.to_bytes()),
            Some(level @ Level::One(_)) => {
                // Room for the whole blob at once, so that no growing vector leaves keys behind.
                let links = Level::Many(Zeroizing::new(Vec::with_capacity(self.shape.plain_len() + TAG_LEN)));
                if let (Level::One(first), Level::Many(links)) = (mem::replace(level, links), level) {
                    links.extend_from_slice(&*first.to_bytes());
                    links.extend_from_slice(&*blob.to_bytes());
                }
            }
        }
        Ok(())
    }

    fn seal_node<E>(
        &self,
        mut links: Zeroizing<Vec<u8>>,
        store: &mut impl FnMut(&mut [u8], usize) -> Result<BlobRef, E>,
    ) -> Result<BlobRef, E> {
        let len = links.len();
        links.resize(self.shape.plain_len() + TAG_LEN, 0);
        store(&mut links, len)
    }
}

impl TreeRef {
    /// Builds the tree of a stream in memory; `store` is that of [`TreeWriter`].
    pub fn write<E>(
        shape: Shape,
        content: &[u8],
        mut store: impl FnMut(&mut [u8], usize) -> Result<BlobRef, E>,
    ) -> Result<Self, E> {
        let mut writer = TreeWriter::new_in(shape);
        let mut buf = Zeroizing::new(vec![0; shape.plain_len() + TAG_LEN]);
        // An empty stream has one blob too.
        for part in content.chunks(shape.plain_len()).chain(content.is_empty().then_some(&[][..])) {
            buf[..part.len()].copy_from_slice(part);
            let blob = store(&mut buf, part.len())?;
            writer.push(blob, &mut store)?;
        }
        writer.finish(content.len() as u64, store)
    }
}

impl Default for TreeWriter {
    fn default() -> Self {
        Self::new()
    }
}
