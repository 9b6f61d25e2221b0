//! A channel's content: the signed head (v5 JSON, [`Head`]) and the body that it may point to (CBOR, [`Manifest`]).

mod body;
pub mod entry;
mod form;
mod head;
mod json;
mod path;

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use entry::{Chunk, FileEntry, Reference};
pub use form::{AuthorStore, FormError};
pub use head::{Head, HeadContent, HeadError};
pub use path::EntryPath;

use crate::limits::{
    BODY_LEN_MAX, CHUNKS_MAX, COLLECTIONS_MAX, DESCRIPTION_LEN_MAX, ITEMS_MAX, MAGNET_LEN_MAX, TITLE_LEN_MAX,
};

/// A channel's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Title; may be empty.
    pub title: String,
    /// Description; may be empty.
    pub description: String,
    /// Collections, in the author's order.
    pub collections: Vec<Collection>,
}

/// A titled list of items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Title; may be empty.
    pub title: String,
    /// Items, in the author's order.
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

impl Manifest {
    /// The files of all collections, in order.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        files(&self.collections)
    }

    /// Checks that a reader would take it: within the limits, each path once, no file where another needs a folder,
    /// every reference consistent. An author checks before writing; reading checks anyway.
    pub fn check(&self) -> Result<(), BodyError> {
        if self.title.len() > TITLE_LEN_MAX || self.description.len() > DESCRIPTION_LEN_MAX {
            return Err(BodyError::Malformed("the channel's title or description is too long"));
        }
        check_collections(&self.collections).map_err(BodyError::Malformed)
    }
}

fn files(collections: &[Collection]) -> impl Iterator<Item = &FileEntry> {
    collections.iter().flat_map(|c| &c.items).filter_map(|item| match item {
        Item::File(file) => Some(file),
        Item::Magnet(_) => None,
    })
}

fn check_collections(collections: &[Collection]) -> Result<(), &'static str> {
    if collections.len() > COLLECTIONS_MAX {
        return Err("there are too many collections");
    }
    if collections.iter().any(|c| c.title.len() > TITLE_LEN_MAX) {
        return Err("a collection's title is too long");
    }
    if collections.iter().map(|c| c.items.len()).sum::<usize>() > ITEMS_MAX {
        return Err("there are too many items");
    }
    let (mut chunks, mut paths) = (0, BTreeSet::new());
    for item in collections.iter().flat_map(|c| &c.items) {
        match item {
            Item::Magnet(uri) if !is_magnet(uri) => return Err("an item is neither a file nor a magnet URI"),
            Item::Magnet(_) => {}
            Item::File(file) => {
                file.check()?;
                chunks += if let Reference::Chunks(list) = &file.reference { list.len() } else { 0 };
                if !paths.insert(file.path.as_str()) {
                    return Err("two files have one path");
                }
            }
        }
    }
    if chunks > CHUNKS_MAX {
        return Err("there are too many chunks");
    }
    if files(collections).any(|file| file.path.ancestors().any(|folder| paths.contains(folder))) {
        return Err("a file stands where another needs a folder");
    }
    Ok(())
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
