//! The form of a channel's content in its head (`docs/protocol.md` §6): v5's form where all of it fits a DHT item, so that
//! any v5 reader can use it, and a body otherwise.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{BodyError, Collection, Extent, HeadContent, Item, Manifest, Reference};
use crate::blob::BlobRef;
use crate::ids::{BlobId, Root};
use crate::limits::INLINE_CHUNKS_MAX;
use crate::tree::{Cursor, Node, Shape, Step, TreeRef};

/// An author's blobs.
pub trait AuthorStore {
    /// Why a blob could not be read or stored.
    type Error;

    /// Returns the plaintext of a stored index blob; `None` where it is not stored.
    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Seals, under the channel's content secret, the blob whose content is the first `len` bytes of `buf`, and stores it.
    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, Self::Error>;

    /// Returns the SHA-256 of a stored native blob or pack; `None` where it is not stored.
    fn id(&mut self, root: &Root) -> Result<Option<BlobId>, Self::Error>;

    /// Stores a stored native blob as a v5 blob too, under its id.
    fn store_v5(&mut self, root: &Root, id: &BlobId) -> Result<(), Self::Error>;
}

/// Why a manifest could not be given a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormError<E> {
    /// No reader would take it.
    Manifest(BodyError),
    /// The author's blobs could not be read, or the body could not be stored.
    Store(E),
}

impl<E> From<BodyError> for FormError<E> {
    fn from(error: BodyError) -> Self {
        Self::Manifest(error)
    }
}

impl HeadContent {
    /// Returns the content of a head for `manifest`, whose trees are of `shape`; a `private` head is sealed with a read
    /// key. The head fits a BEP 44 value, whatever its sequence.
    ///
    /// The manifest goes inline where its files can have v5's form and nothing that it says is left out. Otherwise the body
    /// is stored, with the blobs' ids where `with_ids` says so.
    ///
    /// # Errors
    /// [`FormError::Manifest`] where no reader would take the manifest, before anything is stored.
    pub fn of<B: AuthorStore>(
        manifest: &Manifest,
        shape: Shape,
        private: bool,
        with_ids: bool,
        blobs: &mut B,
    ) -> Result<Self, FormError<B::Error>> {
        manifest.check_in(shape).map_err(BodyError::Malformed)?;
        if manifest.is_told_by_collections()
            && let Some(collections) = as_v5(manifest, shape, blobs).map_err(FormError::Store)?
        {
            let inline = Self::Inline(collections);
            if inline.fits(private) {
                return Ok(inline);
            }
            let (foreign, native) = inline.without_roots();
            if foreign.fits(private) {
                for (root, id) in native {
                    blobs.store_v5(&root, &id).map_err(FormError::Store)?;
                }
                return Ok(foreign);
            }
        }
        manifest.store(shape, with_ids, blobs).map(Self::Body)
    }

    /// The same without the roots of native blobs, and these with their ids.
    fn without_roots(mut self) -> (Self, Vec<(Root, BlobId)>) {
        let mut native = Vec::new();
        if let Self::Inline(collections) = &mut self {
            for item in collections.iter_mut().flat_map(|collection| &mut collection.items) {
                if let Item::File(file) = item
                    && let Reference::Chunks(chunks) = &mut file.reference
                {
                    let roots = chunks.iter_mut().filter_map(|chunk| Some((chunk.root.take()?, chunk.id)));
                    native.extend(roots);
                }
            }
        }
        (self, native)
    }
}

impl Manifest {
    /// Whether the collections alone say everything: a reader shows the first collection's title for a channel without
    /// one.
    fn is_told_by_collections(&self) -> bool {
        let shown = self.collections.first().map_or("", |collection| &collection.title);
        self.description.is_empty() && (self.title.is_empty() || self.title == shown)
    }
}

/// Returns the collections with chunk lists in place of extents. `None` where the lists are too long for a head, v5 has no form
/// for an item, a blob is not stored, or blobs do not have v5's length.
fn as_v5<B: AuthorStore>(
    manifest: &Manifest,
    shape: Shape,
    blobs: &mut B,
) -> Result<Option<Vec<Collection>>, B::Error> {
    let mut collections = manifest.collections.clone();
    let mut left = INLINE_CHUNKS_MAX;
    for item in collections.iter_mut().flat_map(|collection| &mut collection.items) {
        let Item::File(file) = item else { continue };
        let mut leaves = Vec::new();
        let count = match &file.reference {
            Reference::Chunks(chunks) => chunks.len() as u64,
            Reference::Extents(extents) => {
                let tree = |extent: &Extent| match extent {
                    Extent::Tree(tree) if shape == Shape::REAL => Some(tree.data_blob_count()),
                    Extent::Tree(_) | Extent::Slice(_) => None,
                };
                let counts: Option<Vec<u64>> = extents.iter().map(tree).collect();
                let Some(counts) = counts else { return Ok(None) };
                counts.into_iter().fold(0, u64::saturating_add)
            }
            Reference::Symlink(_) | Reference::Folder => return Ok(None),
        };
        let Some(rest) = usize::try_from(count).ok().and_then(|count| left.checked_sub(count)) else {
            return Ok(None);
        };
        left = rest;
        if let Reference::Extents(extents) = &file.reference {
            for extent in extents {
                let Extent::Tree(tree) = extent else { return Ok(None) };
                let Some(more) = data_blobs(tree, blobs)? else { return Ok(None) };
                leaves.extend(more);
            }
        }
        let Some(mut v5) = file.to_v5(&leaves) else { return Ok(None) };
        if matches!(file.reference, Reference::Extents(_))
            && let Reference::Chunks(chunks) = &mut v5.reference
        {
            for chunk in chunks {
                let Some(root) = chunk.root else { return Ok(None) };
                let Some(id) = blobs.id(&root)? else { return Ok(None) };
                chunk.id = id;
            }
        }
        *file = v5;
    }
    Ok(Some(collections))
}

/// Returns the data nodes of a tree; `None` where an index blob is not stored.
fn data_blobs<B: AuthorStore>(tree: &TreeRef, blobs: &mut B) -> Result<Option<Vec<Node>>, B::Error> {
    let (mut cursor, mut leaves) = (Cursor::whole(tree), Vec::new());
    loop {
        match cursor.step() {
            Step::Blob(node) if node.height == 0 => leaves.push(node),
            Step::Blob(_) => {}
            Step::NeedsIndex(node) => {
                let Some(plain) = blobs.open(&node.blob)? else { return Ok(None) };
                if !cursor.open(&node.blob.root, &Zeroizing::new(plain)) {
                    return Ok(None);
                }
            }
            Step::End => return Ok(Some(leaves)),
        }
    }
}
