//! A channel's content: the signed head (v5 JSON, [`Head`]) and the body and pages that it may point to
//! (CBOR, [`Body`] and [`Page`]); [`Manifest`] is all of it.

mod body;
mod cbor;
pub mod entry;
mod form;
mod head;
mod json;
mod page;
mod path;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub(crate) use body::ID_LEN;
pub use body::{Body, BodyCollection};
pub use entry::{Chunk, Extent, FileEntry, Reference, SLICE_ALIGN, Slice};
pub use form::{AuthorStore, FormError};
pub use head::{Head, HeadContent, HeadError};
pub use page::{Page, PageRef};
pub use path::EntryPath;

use crate::ids::Root;
use crate::limits::{
    BODY_LEN_MAX, COLLECTIONS_MAX, CONTENT_BYTES_MAX, DESCRIPTION_LEN_MAX, ITEMS_MAX, MAGNET_LEN_MAX,
    PACKS_MAX, TITLE_LEN_MAX,
};
use crate::tree::{Shape, TreeRef};

/// A channel's content, all of it in memory. [`Body`] and [`Page`] are its parts as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Title; may be empty.
    pub title: String,
    /// Description; may be empty.
    pub description: String,
    /// Collections, in the author's order.
    pub collections: Vec<Collection>,
    /// The packs that slices lie in, by their numbers.
    pub packs: BTreeMap<u32, Root>,
    /// The ids of the blobs, where the body has them.
    pub ids: Option<TreeRef>,
}

/// A titled list of items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Title; may be empty.
    pub title: String,
    /// Items: in a head in the author's order, in a body in that of their names.
    pub items: Vec<Item>,
}

/// A file or a magnet URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A file.
    File(FileEntry),
    /// A magnet URI, verbatim.
    Magnet(String),
}

impl Item {
    /// What it is sorted by in a body: its path, or the URI.
    pub fn name(&self) -> &str {
        match self {
            Self::File(file) => file.path.as_str(),
            Self::Magnet(uri) => uri,
        }
    }

    /// Counts its blobs (`docs/protocol.md` §12).
    pub fn blob_count(&self) -> u64 {
        self.file().map_or(0, |file| file.reference.blob_count())
    }

    /// The file, where it is one.
    pub fn file(&self) -> Option<&FileEntry> {
        match self {
            Self::File(file) => Some(file),
            Self::Magnet(_) => None,
        }
    }

    fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.file().into_iter().flat_map(|file| file.reference.slices())
    }
}

impl Manifest {
    /// The files of all collections, in order.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        files(&self.collections)
    }

    /// Checks that a reader would take it: within the limits, each path once, no file where another needs a folder,
    /// every reference consistent, the slices apart and each in a pack. An author checks before writing; reading checks
    /// anyway.
    pub fn check(&self) -> Result<(), BodyError> {
        self.check_in(Shape::REAL).map_err(BodyError::Malformed)
    }

    fn check_in(&self, shape: Shape) -> Result<(), &'static str> {
        if self.title.len() > TITLE_LEN_MAX || self.description.len() > DESCRIPTION_LEN_MAX {
            return Err("the channel's title or description is too long");
        }
        check_collections(shape, &self.collections)?;
        if !self.files().any(|file| file.reference.slices().next().is_some()) && self.packs.is_empty() {
            return Ok(());
        }
        if self.packs.len() > PACKS_MAX {
            return Err("there are too many packs");
        }
        self.check_packs()?;
        self.check_slices()
    }

    /// Checks that packs and slices have each other.
    fn check_packs(&self) -> Result<(), &'static str> {
        let slices = self.files().flat_map(|file| file.reference.slices());
        let used: BTreeSet<u32> = slices.map(|slice| slice.pack).collect();
        if used.iter().any(|pack| !self.packs.contains_key(pack)) {
            return Err("a slice lies in a pack that the body does not have");
        }
        if used.len() < self.packs.len() { Err("no slice lies in a pack") } else { Ok(()) }
    }

    /// Checks that slices do not overlap; several files may have one.
    fn check_slices(&self) -> Result<(), &'static str> {
        let mut slices: Vec<&Slice> = self.files().flat_map(|file| file.reference.slices()).collect();
        slices.sort_by_key(|slice| (slice.pack, slice.offset, slice.length));
        slices.dedup();
        let overlap =
            |pair: &[&Slice]| matches!(pair, [a, b] if a.pack == b.pack && b.taken().start < a.taken().end);
        if slices.windows(2).any(overlap) { Err("two slices of a pack overlap") } else { Ok(()) }
    }

    /// Joins a body and its pages, in order; `None`: one that was refused, whose items are left out.
    ///
    /// # Errors
    /// Where the whole is to be refused.
    pub fn assemble(body: Body, pages: Vec<Option<Page>>) -> Result<Self, BodyError> {
        let is_whole = pages.iter().all(Option::is_some);
        let mut pages = pages.into_iter();
        let mut collection = |one: BodyCollection| Collection {
            title: one.title,
            items: pages.by_ref().take(one.pages.len()).flatten().flat_map(|page| page.items).collect(),
        };
        let Body { title, description, collections, packs, ids, bytes } = body;
        let collections = collections.into_iter().map(&mut collection).collect();
        let manifest = Self { title, description, collections, packs, ids };
        let sum = manifest.content_bytes();
        if sum > bytes || (is_whole && sum < bytes) {
            return Err(BodyError::Malformed("the number of bytes is not the sum of the files'"));
        }
        if is_whole {
            manifest.check_packs().map_err(BodyError::Malformed)?;
        }
        Ok(manifest)
    }

    /// The sum of all files' sizes.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.files().map(|file| file.size).fold(0, u64::saturating_add)
    }
}

fn files(collections: &[Collection]) -> impl Iterator<Item = &FileEntry> {
    collections.iter().flat_map(|c| &c.items).filter_map(Item::file)
}

fn check_collections(shape: Shape, collections: &[Collection]) -> Result<(), &'static str> {
    if collections.len() > COLLECTIONS_MAX {
        return Err("there are too many collections");
    }
    if collections.iter().any(|c| c.title.len() > TITLE_LEN_MAX) {
        return Err("a collection's title is too long");
    }
    if collections.iter().map(|c| c.items.len()).sum::<usize>() > ITEMS_MAX {
        return Err("there are too many items");
    }
    let mut paths = BTreeSet::new();
    for item in collections.iter().flat_map(|c| &c.items) {
        match item {
            Item::Magnet(uri) if !is_magnet(uri) => return Err("an item is neither a file nor a magnet URI"),
            Item::Magnet(_) => {}
            Item::File(file) => {
                file.check(shape)?;
                if !paths.insert(file.path.as_str()) {
                    return Err("two files have one path");
                }
            }
        }
    }
    if files(collections).any(|file| file.path.ancestors().any(|folder| paths.contains(folder))) {
        return Err("a file stands where another needs a folder");
    }
    let bytes = files(collections).map(|file| file.size).fold(0, u64::saturating_add);
    if bytes > CONTENT_BYTES_MAX { Err("there are too many bytes") } else { Ok(()) }
}

fn is_magnet(uri: &str) -> bool {
    uri.starts_with("magnet:?") && uri.len() <= MAGNET_LEN_MAX && !uri.chars().any(char::is_control)
}

/// Why a body cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// Not the deterministic CBOR of a body, or content that breaks the rules; the text says which part.
    Malformed(&'static str),
    /// Longer than [`crate::limits::BODY_LEN_MAX`].
    TooLarge,
}

// The error's text names this figure.
const _: () = assert!(BODY_LEN_MAX == 8 << 20);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the channel's list of files is malformed: {why}"),
            Self::TooLarge => {
                f.write_str("the channel's list of files is longer than 8 MiB: split the channel")
            }
        }
    }
}

impl core::error::Error for BodyError {}
