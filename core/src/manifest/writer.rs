//! Writing a body, its pages and its ids (`docs/protocol.md` §5). What is written follows from the manifest alone.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::body::ID_LEN;
use super::cbor::Writer;
use super::{
    AuthorStore, Body, BodyCollection, BodyError, Collection, Extent, FileEntry, FormError, Item, Manifest,
    PageRef, Reference,
};
use crate::blob::{BlobRef, TAG_LEN};
use crate::ids::{BlobId, Root, Secret};
use crate::limits::{BODY_LEN_MAX, PAGE_CUT, PAGE_LEN_MAX, PAGE_LEN_MIN};
use crate::tree::{Cursor, Shape, Step, TreeRef, TreeWriter};

impl Manifest {
    /// Stores the pages, the ids unless `with_ids` is false or a blob is not stored, and the body. The items are sorted.
    ///
    /// # Errors
    /// [`FormError::Manifest`] where no reader would take the manifest, before anything is stored.
    pub fn store<B: AuthorStore>(
        &self,
        shape: Shape,
        with_ids: bool,
        blobs: &mut B,
    ) -> Result<TreeRef, FormError<B::Error>> {
        let refuse = |why| FormError::Manifest(BodyError::Malformed(why));
        self.check_in(shape).map_err(refuse)?;
        let native = self.as_native(shape);
        let collections: Vec<_> =
            native.collections.iter().map(cut).collect::<Result<_, _>>().map_err(refuse)?;
        // Of the body itself alone there is nothing to say.
        let with_ids =
            with_ids && (!self.packs.is_empty() || collections.iter().any(|cuts| !cuts.is_empty()));
        let mut body = native.body(shape, with_ids, &collections);
        if body.to_cbor().len() as u64 > BODY_LEN_MAX {
            return Err(BodyError::TooLarge.into());
        }
        let mut store = || -> Result<TreeRef, B::Error> {
            native.store_v5(blobs)?;
            let pages = body.collections.iter_mut().flat_map(|collection| &mut collection.pages);
            for (page, cut) in pages.zip(collections.iter().flatten()) {
                page.tree = TreeRef::write(shape, &cut.bytes, |buf, len| blobs.store(buf, len))?;
            }
            if with_ids {
                body.ids = native.ids(shape, &body, &collections, blobs)?;
            }
            let bytes = Zeroizing::new(body.to_cbor());
            TreeRef::write(shape, &bytes, |buf, len| blobs.store(buf, len))
        };
        store().map_err(FormError::Store)
    }

    /// The manifest as a body says it: chunks of native blobs alone are extents, and no chunk has a root.
    fn as_native(&self, shape: Shape) -> Cow<'_, Self> {
        let has_root = |file: &FileEntry| match &file.reference {
            Reference::Chunks(chunks) => chunks.iter().any(|chunk| chunk.root.is_some()),
            _ => false,
        };
        if !self.files().any(has_root) {
            return Cow::Borrowed(self);
        }
        let mut native = self.clone();
        for item in native.collections.iter_mut().flat_map(|collection| &mut collection.items) {
            if let Item::File(file) = item
                && let Reference::Chunks(chunks) = &file.reference
                && shape == Shape::REAL
            {
                let tree = |blob, size: u32| TreeRef::new(size.into(), 0, blob).map(Extent::Tree);
                let extents = chunks.iter().map(|chunk| tree(chunk.blob()?, chunk.real_size));
                if let Some(extents) = extents.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty()) {
                    file.reference = Reference::Extents(extents);
                }
            }
        }
        Cow::Owned(native)
    }

    /// Stores the native blobs of chunk lists that are written without their roots, as the v5 blobs that readers take them for.
    fn store_v5<B: AuthorStore>(&self, blobs: &mut B) -> Result<(), B::Error> {
        for file in self.files() {
            if let Reference::Chunks(chunks) = &file.reference {
                for chunk in chunks {
                    chunk.root.map_or(Ok(()), |root| blobs.store_v5(&root, &chunk.id))?;
                }
            }
        }
        Ok(())
    }

    /// The body, its trees of the right sizes and without names.
    fn body(&self, shape: Shape, with_ids: bool, collections: &[Vec<Cut<'_>>]) -> Body {
        let tree = |size: u64| {
            let blob = BlobRef { root: Root([0; 32]), key: Secret::new([0; 32]) };
            let depth = shape.depth_for(size).expect("pages and ids are far shorter than the longest stream");
            TreeRef::new_in(shape, size, depth, blob).expect("the depth is that of the size")
        };
        let page = |cut: &Cut<'_>| PageRef {
            tree: tree(cut.bytes.len() as u64),
            first: cut.items.first().map_or("", |item| item.name()).into(),
            items: u32::try_from(cut.items.len()).expect("a page is short"),
            blobs: cut.items.iter().map(|item| item.blob_count()).fold(0, u64::saturating_add),
        };
        let collection = |(one, cuts): (&Collection, &Vec<Cut<'_>>)| BodyCollection {
            title: one.title.clone(),
            pages: cuts.iter().map(page).collect(),
        };
        Body {
            title: self.title.clone(),
            description: self.description.clone(),
            collections: self.collections.iter().zip(collections).map(collection).collect(),
            packs: self.packs.clone(),
            ids: with_ids.then(|| tree(0)),
            bytes: self.content_bytes(),
        }
    }

    /// Stores the ids of the blobs by position. Those of the body's own blobs are not known yet, and are zeros. `None`: some blob
    /// is not stored.
    fn ids<B: AuthorStore>(
        &self,
        shape: Shape,
        body: &Body,
        collections: &[Vec<Cut<'_>>],
        blobs: &mut B,
    ) -> Result<Option<TreeRef>, B::Error> {
        let mut ids = Ids::new(shape);
        let own = shape.blob_count(body.to_cbor().len() as u64).unwrap_or(0);
        for _ in 0..own {
            ids.push(&BlobId([0; 32]), blobs)?;
        }
        for root in self.packs.values() {
            if !ids.push_stored(root, blobs)? {
                return Ok(None);
            }
        }
        for page in body.pages() {
            if !ids.push_tree(&page.tree, blobs)? {
                return Ok(None);
            }
        }
        for item in collections.iter().flatten().flat_map(|cut| &cut.items) {
            if let Item::File(file) = item
                && !ids.push_file(file, blobs)?
            {
                return Ok(None);
            }
        }
        ids.finish(blobs).map(Some)
    }
}

/// A page that is cut.
struct Cut<'a> {
    items: Vec<&'a Item>,
    bytes: Zeroizing<Vec<u8>>,
}

/// Cuts a collection into pages.
fn cut(collection: &Collection) -> Result<Vec<Cut<'_>>, &'static str> {
    let mut items: Vec<&Item> = collection.items.iter().collect();
    items.sort_by(|a, b| a.name().cmp(b.name()));
    if items.windows(2).any(|pair| matches!(pair, [a, b] if a.name() == b.name())) {
        return Err("a collection has one item twice");
    }
    let (mut cuts, mut page, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        let mut w = Writer::default();
        w.item(item);
        let encoded = Zeroizing::new(w.0);
        if page_len(1, encoded.len()) > PAGE_LEN_MAX {
            return Err("a file has more extents or chunks than a page holds");
        }
        if page_len(page.len() + 1, bytes.len() + encoded.len()) > PAGE_LEN_MAX {
            cuts.push(Cut::new(&mut page, &mut bytes));
        }
        page.push(item);
        bytes.extend_from_slice(&encoded);
        if page_len(page.len(), bytes.len()) >= PAGE_LEN_MIN && ends_page(item.name()) {
            cuts.push(Cut::new(&mut page, &mut bytes));
        }
    }
    if !page.is_empty() {
        cuts.push(Cut::new(&mut page, &mut bytes));
    }
    Ok(cuts)
}

/// The length of a page whose items take `len` bytes.
fn page_len(items: usize, len: usize) -> usize {
    let mut w = Writer::default();
    w.array(items);
    w.0.len() + len
}

/// Whether a page of some length ends after the item of this name.
fn ends_page(name: &str) -> bool {
    let hash = blake3::hash(name.as_bytes());
    let first = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u32::from_be_bytes(*first).is_multiple_of(PAGE_CUT)
}

impl<'a> Cut<'a> {
    /// The page of these items, whose encodings follow each other in `encoded`; both are empty afterwards.
    fn new(items: &mut Vec<&'a Item>, encoded: &mut Vec<u8>) -> Self {
        let mut w = Writer::default();
        w.array(items.len());
        w.0.extend_from_slice(&Zeroizing::new(core::mem::take(encoded)));
        Self { items: core::mem::take(items), bytes: Zeroizing::new(w.0) }
    }
}

/// The stream of ids, as it is written.
struct Ids {
    tree: TreeWriter,
    buf: Vec<u8>,
    len: usize,
    size: u64,
}

impl Ids {
    fn new(shape: Shape) -> Self {
        let buf = vec![0; shape.plain_len() + TAG_LEN];
        Self { tree: TreeWriter::new_in(shape), buf, len: 0, size: 0 }
    }

    fn push<B: AuthorStore>(&mut self, id: &BlobId, blobs: &mut B) -> Result<(), B::Error> {
        if self.len + id.0.len() > self.buf.len() - TAG_LEN {
            self.flush(blobs)?;
        }
        self.buf[self.len..][..id.0.len()].copy_from_slice(&id.0);
        (self.len, self.size) = (self.len + id.0.len(), self.size + ID_LEN);
        Ok(())
    }

    /// `false`: the blob is not stored.
    fn push_stored<B: AuthorStore>(&mut self, root: &Root, blobs: &mut B) -> Result<bool, B::Error> {
        let Some(id) = blobs.id(root)? else { return Ok(false) };
        self.push(&id, blobs).map(|()| true)
    }

    fn push_tree<B: AuthorStore>(&mut self, tree: &TreeRef, blobs: &mut B) -> Result<bool, B::Error> {
        let mut cursor = Cursor::whole(tree);
        loop {
            match cursor.step() {
                Step::End => return Ok(true),
                Step::Blob(node) => {
                    if !self.push_stored(&node.blob.root, blobs)? {
                        return Ok(false);
                    }
                }
                Step::NeedsIndex(node) => {
                    let Some(plain) = blobs.open(&node.blob)? else { return Ok(false) };
                    if !cursor.open(&node.blob.root, &Zeroizing::new(plain)) {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn push_file<B: AuthorStore>(&mut self, file: &FileEntry, blobs: &mut B) -> Result<bool, B::Error> {
        match &file.reference {
            Reference::Extents(extents) => {
                for extent in extents {
                    if let Extent::Tree(tree) = extent
                        && !self.push_tree(tree, blobs)?
                    {
                        return Ok(false);
                    }
                }
            }
            Reference::Chunks(chunks) => {
                for chunk in chunks {
                    self.push(&chunk.id, blobs)?;
                }
            }
            Reference::Symlink(_) | Reference::Folder => {}
        }
        Ok(true)
    }

    fn flush<B: AuthorStore>(&mut self, blobs: &mut B) -> Result<(), B::Error> {
        let blob = blobs.store(&mut self.buf, self.len)?;
        self.len = 0;
        self.tree.push(blob, |buf, len| blobs.store(buf, len))
    }

    fn finish<B: AuthorStore>(mut self, blobs: &mut B) -> Result<TreeRef, B::Error> {
        self.flush(blobs)?;
        self.tree.finish(self.size, |buf, len| blobs.store(buf, len))
    }
}
