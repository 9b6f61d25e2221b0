//! The form of a channel's content in its head (`docs/protocol.md` §6): v5's form where all of it fits a DHT item, so that
//! any v5 reader can use it, and a body otherwise.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{BodyError, Collection, HeadContent, Item, Manifest, Reference};
use crate::blob::BlobRef;
use crate::limits::{BODY_LEN_MAX, INLINE_CHUNKS_MAX};
use crate::tree::{Cursor, Node, Shape, Step, TreeRef};

/// An author's blobs.
pub trait AuthorStore {
    /// Why a blob could not be read or stored.
    type Error;

    /// Returns the plaintext of a stored index blob; `None` where it is not stored.
    fn open(&mut self, link: &BlobRef) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Seals, under the channel's content secret, the blob whose content is the first `len` bytes of `buf`, and stores it.
    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, Self::Error>;
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
    /// is stored.
    ///
    /// # Errors
    /// [`FormError::Manifest`] where no reader would take the manifest, before anything is stored.
    pub fn of<B: AuthorStore>(
        manifest: &Manifest,
        shape: Shape,
        private: bool,
        blobs: &mut B,
    ) -> Result<Self, FormError<B::Error>> {
        manifest.check()?;
        if manifest.is_told_by_collections()
            && let Some(collections) = as_v5(manifest, shape, blobs).map_err(FormError::Store)?
        {
            let inline = Self::Inline(collections);
            if inline.fits(private) {
                return Ok(inline);
            }
        }
        let body = Zeroizing::new(manifest.to_cbor());
        if body.len() as u64 > BODY_LEN_MAX {
            return Err(BodyError::TooLarge.into());
        }
        let tree = TreeRef::write(shape, &body, |buf, len| blobs.store(buf, len));
        tree.map(Self::Root).map_err(FormError::Store)
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

/// Returns the collections with chunk lists in place of trees. `None` where the lists are too long for a head, an index
/// blob is not stored, or blobs do not have v5's length.
fn as_v5<B: AuthorStore>(
    manifest: &Manifest,
    shape: Shape,
    blobs: &mut B,
) -> Result<Option<Vec<Collection>>, B::Error> {
    let mut collections = manifest.collections.clone();
    let mut left = INLINE_CHUNKS_MAX;
    for item in collections.iter_mut().flat_map(|collection| &mut collection.items) {
        let Item::File(file) = item else { continue };
        let count = match &file.reference {
            Reference::Chunks(chunks) => chunks.len() as u64,
            Reference::Tree(tree) => tree.data_blob_count(),
        };
        let Some(rest) = usize::try_from(count).ok().and_then(|count| left.checked_sub(count)) else {
            return Ok(None);
        };
        left = rest;
        if let Reference::Tree(tree) = &file.reference {
            let _ = data_blobs(tree, blobs)?;
            return Ok(None);
        }
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
