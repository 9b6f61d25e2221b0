//! What the store is told and what it says.

use alloc::boxed::Box;

use crate::ids::{Secret, Topic};
use crate::parts::{Mask, Values};

/// What somebody says that a native blob holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Content of this many bytes, sealed under this key, and filling (`docs/protocol.md` §2).
    Content(Secret, u32),
    /// Slices.
    Pack,
}

/// Where the content of a data blob stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The swarm.
    pub topic: Topic,
    /// The sequence of the version.
    pub version: u64,
    /// The file's number in that version's manifest.
    pub file: usize,
    /// Bytes of the file before it.
    pub offset: u64,
    /// The blob's key.
    pub key: Secret,
    /// Bytes of content, at most [`crate::blob::PLAIN_LEN`].
    pub len: u32,
}

/// What of a blob is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// These parts, and its values, of a native blob.
    Parts(Mask, Box<Values>),
    /// All.
    Whole,
    /// It is kept where nothing can be read at present, and need not be fetched: [`StoreNews::Back`] follows.
    OutOfReach,
}

/// What happened to the store while nobody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreNews {
    /// A blob was found damaged and is withdrawn.
    Damaged,
    /// What could not be read may be readable again.
    Back,
}

/// What became of a blob or part to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Its hash matched and it is stored.
    Stored,
    /// Its hash did not match; nothing is stored.
    Mismatch,
    /// It has the id by which it was asked for, but not the root: whoever said that the two are of one blob is at fault.
    NotOfRoot,
    /// No space or quota left; nothing is stored.
    NoSpace,
    /// The disk failed; nothing is stored.
    Failed,
}
