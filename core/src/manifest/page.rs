//! Pages: the items of a body's collections (`docs/protocol.md` §5).
//!
//! Bytes are read straight into the manifest's types, without a tree of generic values between, which would take thirty times
//! their length.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::cbor::{Reader, Result, Writer, count};
use super::{BodyError, Chunk, EntryPath, Extent, FileEntry, Item, Reference, Slice, is_magnet};
use crate::blob::NONCE_LEN;
use crate::ids::{BlobId, Root, Secret};
use crate::limits::{EXTENTS_MAX, PAGE_ITEMS_MAX, PAGE_LEN_MAX};
use crate::tree::{Shape, TreeRef};

/// Fields of a chunk.
const CHUNK_FIELDS: usize = 6;
/// Fields of a slice.
const SLICE_FIELDS: usize = 4;
/// CBOR's major type of a text.
const TEXT: u8 = 3;
/// CBOR's major type of an array.
const ARRAY: u8 = 4;

/// Some of a collection's items, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The items.
    pub items: Vec<Item>,
}

/// What a body says of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRef {
    /// Its bytes.
    pub tree: TreeRef,
    /// The first item's name.
    pub first: String,
    /// How many items it has.
    pub items: u32,
    /// How many blobs these have (`docs/protocol.md` §12).
    pub blobs: u64,
}

impl Page {
    /// The page's deterministic CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.array(self.items.len());
        self.items.iter().for_each(|item| w.item(item));
        w.0
    }

    /// Reads a page, whatever a body says of it. Refuses anything but what [`Self::to_cbor`] would write, except that it skips
    /// unknown integer keys of maps, which must be deterministic too.
    pub fn from_cbor(bytes: &[u8]) -> core::result::Result<Self, BodyError> {
        Self::from_cbor_in(Shape::REAL, bytes).map_err(BodyError::Malformed)
    }

    fn from_cbor_in(shape: Shape, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > PAGE_LEN_MAX {
            return Err("a page is longer than 256 KiB");
        }
        let items = Reader { rest: bytes, shape }.whole(|r| r.filled_array(PAGE_ITEMS_MAX, Reader::item))?;
        let page = Self { items };
        page.check(shape)?;
        Ok(page)
    }

    fn check(&self, shape: Shape) -> Result<()> {
        if !self.items.is_sorted_by(|a, b| a.name() < b.name()) {
            return Err("a page's names do not ascend");
        }
        let mut paths = BTreeSet::new();
        for item in &self.items {
            match item {
                Item::Magnet(uri) if !is_magnet(uri) => {
                    return Err("an item is neither a file nor a magnet URI");
                }
                Item::Magnet(_) => {}
                Item::File(file) => {
                    file.check(shape)?;
                    paths.insert(file.path.as_str());
                    // A folder's path comes before those of its files.
                    if file.path.ancestors().any(|folder| paths.contains(folder)) {
                        return Err("a file stands where another needs a folder");
                    }
                }
            }
        }
        Ok(())
    }
}

impl PageRef {
    /// Reads the page, which must be what the body says, from its whole bytes. `packs` are the body's.
    ///
    /// # Errors
    /// Where the page is to be refused; other pages stand.
    pub fn read(&self, packs: &BTreeMap<u32, Root>, bytes: &[u8]) -> core::result::Result<Page, BodyError> {
        let page = Page::from_cbor_in(self.tree.shape, bytes).map_err(BodyError::Malformed)?;
        self.check(packs, &page).map_err(BodyError::Malformed)?;
        Ok(page)
    }

    fn check(&self, packs: &BTreeMap<u32, Root>, page: &Page) -> Result<()> {
        if page.items.first().map(Item::name) != Some(&*self.first) {
            return Err("a page does not begin with the item that the body says");
        }
        if page.items.len() as u64 != u64::from(self.items) {
            return Err("a page has another number of items than the body says");
        }
        if page.items.iter().map(Item::blob_count).sum::<u64>() != self.blobs {
            return Err("a page's items have another number of blobs than the body says");
        }
        let mut slices = page.items.iter().flat_map(Item::slices);
        if slices.any(|slice| !packs.contains_key(&slice.pack)) {
            return Err("a slice lies in a pack that the body does not have");
        }
        Ok(())
    }
}

impl Writer {
    pub(super) fn item(&mut self, item: &Item) {
        match item {
            Item::Magnet(uri) => self.text(uri),
            Item::File(file) => self.file(file),
        }
    }

    fn file(&mut self, file: &FileEntry) {
        let has_size = !matches!(file.reference, Reference::Symlink(_) | Reference::Folder);
        let has_reference = match &file.reference {
            Reference::Extents(extents) => !extents.is_empty(),
            Reference::Chunks(chunks) => !chunks.is_empty(),
            Reference::Symlink(_) | Reference::Folder => true,
        };
        let members =
            [has_size, file.modified_ms.is_some(), file.executable, has_reference, file.blake3.is_some()];
        self.map(1 + count(members));
        self.text_member(1, file.path.as_str());
        if has_size {
            self.uint(2);
            self.uint(file.size);
        }
        if let Some(time) = file.modified_ms {
            self.uint(3);
            self.uint(time);
        }
        self.truth_member(4, file.executable);
        match &file.reference {
            Reference::Extents(extents) => self.array_member(5, extents, Self::extent),
            Reference::Chunks(chunks) => self.array_member(6, chunks, Self::chunk),
            Reference::Symlink(target) => self.text_member(8, target),
            Reference::Folder => self.truth_member(9, true),
        }
        if let Some(hash) = &file.blake3 {
            self.uint(10);
            self.bytes(hash);
        }
    }

    fn extent(&mut self, extent: &Extent) {
        match extent {
            Extent::Tree(tree) => self.bytes(&*tree.to_bytes()),
            Extent::Slice(slice) => {
                self.array(SLICE_FIELDS);
                self.uint(slice.pack.into());
                self.uint(slice.offset.into());
                self.uint(slice.length.into());
                self.bytes(slice.key.expose());
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk) {
        self.array(CHUNK_FIELDS);
        self.bytes(&chunk.id.0);
        self.uint(chunk.offset.into());
        self.uint(chunk.length.into());
        self.bytes(chunk.key.expose());
        self.bytes(&chunk.nonce);
        self.uint(chunk.real_size.into());
    }
}

/// The members of a file that say where its bytes are, as far as they were read.
#[derive(Default)]
struct Members {
    size: Option<u64>,
    executable: bool,
    extents: Option<Vec<Extent>>,
    chunks: Option<Vec<Chunk>>,
    target: Option<String>,
    is_folder: bool,
    blake3: Option<[u8; 32]>,
}

impl Members {
    fn into_reference(self) -> Result<(u64, Reference)> {
        let is_file = self.size.is_some()
            || self.executable
            || self.extents.is_some()
            || self.chunks.is_some()
            || self.blake3.is_some();
        match (self.target, self.is_folder, self.extents, self.chunks) {
            (Some(target), false, None, None) if !is_file => Ok((0, Reference::Symlink(target))),
            (None, true, None, None) if !is_file => Ok((0, Reference::Folder)),
            (Some(_), ..) | (_, true, ..) => Err("a symlink or an empty folder has members of another kind"),
            (.., Some(_), Some(_)) => Err("a file has two references"),
            (.., extents, chunks) => {
                let size = self.size.ok_or("a file has no size")?;
                let reference =
                    chunks.map_or_else(|| Reference::Extents(extents.unwrap_or_default()), Reference::Chunks);
                Ok((size, reference))
            }
        }
    }
}

impl Reader<'_> {
    fn item(&mut self) -> Result<Item> {
        if self.is_next(TEXT) {
            return Ok(Item::Magnet(self.text()?.to_owned()));
        }
        let (mut path, mut modified_ms, mut members) = (None, None, Members::default());
        self.map(|r, key| {
            match key {
                1 => path = Some(EntryPath::new(r.text()?).map_err(|_| "a path could leave its folder")?),
                2 => members.size = Some(r.uint()?),
                3 => modified_ms = Some(r.uint()?),
                4 => members.executable = r.truth()?,
                5 => members.extents = Some(r.filled_array(EXTENTS_MAX, Self::extent)?),
                6 => members.chunks = Some(r.filled_array(EXTENTS_MAX, Self::chunk)?),
                8 => members.target = Some(r.filled_text()?),
                9 => members.is_folder = r.truth()?,
                10 => members.blake3 = Some(r.bytes_array()?),
                _ => return r.skip(),
            }
            Ok(())
        })?;
        let path = path.ok_or("a file has no path")?;
        let (executable, blake3) = (members.executable, members.blake3);
        let (size, reference) = members.into_reference()?;
        Ok(Item::File(FileEntry { path, size, modified_ms, executable, reference, blake3 }))
    }

    fn extent(&mut self) -> Result<Extent> {
        if !self.is_next(ARRAY) {
            return self.tree().map(Extent::Tree);
        }
        self.fields(SLICE_FIELDS, "a slice does not have four fields")?;
        Ok(Extent::Slice(Slice {
            pack: self.uint_32()?,
            offset: self.uint_32()?,
            length: self.uint_32()?,
            key: Secret::new(self.bytes_array()?),
        }))
    }

    fn chunk(&mut self) -> Result<Chunk> {
        self.fields(CHUNK_FIELDS, "a chunk does not have six fields")?;
        Ok(Chunk {
            id: BlobId(self.bytes_array()?),
            root: None,
            offset: self.uint_32()?,
            length: self.uint_32()?,
            key: Secret::new(self.bytes_array()?),
            nonce: self.bytes_array::<NONCE_LEN>()?,
            real_size: self.uint_32()?,
        })
    }
}
