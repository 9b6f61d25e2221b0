//! File entries, and their JSON: v5's form where the reference is a chunk list, with `root` for a tree
//! (`docs/protocol.md` §4 and §6).

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::json::Json;
use super::{EntryPath, HeadError};
use crate::blob::{self, BLOB_LEN, BlobRef, NATIVE_NONCE, NONCE_LEN, TAG_LEN};
use crate::ids::{BlobId, BlobName, Root, Secret};
use crate::limits::CHUNKS_MAX;
use crate::tree::{Node, Shape, TreeRef};

/// A file of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it goes below the output folder.
    pub path: EntryPath,
    /// Its size in bytes.
    pub size: u64,
    /// Modification time, milliseconds since 1970.
    pub modified_ms: Option<u64>,
    /// Whether it is a program.
    pub executable: bool,
    /// Its bytes.
    pub reference: Reference,
}

/// Where a file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A tree (any size).
    Tree(TreeRef),
    /// v5's list of chunks, in order; a slice is a list of one.
    Chunks(Vec<Chunk>),
}

/// v5's chunk: a piece of a blob sealed on its own; a native data blob is the piece that fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The blob's id; of a native blob, what its author says that it is.
    pub id: BlobId,
    /// The name of a native blob, whose only piece fills it; `None`: a v5 blob.
    pub root: Option<Root>,
    /// Where the sealed piece begins in the blob.
    pub offset: u32,
    /// Bytes of the sealed piece, tag included.
    pub length: u32,
    /// Its key.
    pub key: Secret,
    /// Its nonce.
    pub nonce: [u8; NONCE_LEN],
    /// Bytes of content; the rest of the piece is padding.
    pub real_size: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "1 048 592 fits")]
const BLOB_LEN_U32: u32 = BLOB_LEN as u32;

impl FileEntry {
    /// Returns the file as v5 lists it, from its tree's data nodes in stream order. A chunk list stays as it is.
    pub fn to_v5(&self, leaves: &[Node]) -> Self {
        let mut entry = self.clone();
        if matches!(self.reference, Reference::Tree(_)) {
            let chunk = |leaf: &Node| {
                let real_size = u32::try_from(leaf.len).expect("a data node covers at most 2^20 bytes");
                Chunk::from_ref(&leaf.blob, BlobId([0; 32]), real_size)
            };
            entry.reference = Reference::Chunks(leaves.iter().map(chunk).collect());
        }
        entry
    }

    /// Checks that the reference can hold the file; the text says what is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match &self.reference {
            Reference::Tree(tree) if tree.size != self.size => Err("a file's size is not its tree's"),
            Reference::Tree(_) => Ok(()),
            Reference::Chunks(chunks) if chunks.len() > CHUNKS_MAX => Err("a file has too many chunks"),
            Reference::Chunks(chunks) => {
                if !chunks.iter().all(Chunk::is_consistent) {
                    return Err("a chunk does not lie within its blob or holds more than its piece");
                }
                // At most CHUNKS_MAX times 2^20: no overflow.
                let sum: u64 = chunks.iter().map(|chunk| u64::from(chunk.real_size)).sum();
                (sum == self.size).then_some(()).ok_or("a file's size is not the sum of its chunks")
            }
        }
    }
}

impl Chunk {
    /// A native data blob of `real_size` bytes of content.
    pub fn from_ref(blob: &BlobRef, id: BlobId, real_size: u32) -> Self {
        let (root, key) = (Some(blob.root), blob.key.clone());
        Self { id, root, offset: 0, length: BLOB_LEN_U32, key, nonce: NATIVE_NONCE, real_size }
    }

    /// The name of its blob.
    pub fn name(&self) -> BlobName {
        self.root.map_or(BlobName::V5(self.id), BlobName::Native)
    }

    /// Opens the piece in place in the whole blob; returns the range of `blob` that then holds the content. Changes nothing
    /// and returns `None` where the tag does not match or the chunk does not lie within the blob.
    pub fn open(&self, blob: &mut [u8]) -> Option<Range<usize>> {
        let range = self.range()?;
        let piece = blob.get_mut(range.clone()).filter(|_| self.is_consistent())?;
        let start = range.start;
        blob::open_piece(&self.key, &self.nonce, piece).then(|| start..start + self.content_len())
    }

    fn range(&self) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        Some(start..start.checked_add(usize::try_from(self.length).ok()?)?)
    }

    fn content_len(&self) -> usize {
        usize::try_from(self.real_size).unwrap_or(usize::MAX)
    }

    /// Whether the piece lies within a blob, is longer than its tag and has room for the content.
    fn is_consistent(&self) -> bool {
        let room = self
            .range()
            .filter(|range| range.end <= BLOB_LEN)
            .and_then(|range| range.len().checked_sub(TAG_LEN));
        room.is_some_and(|room| room > 0 && self.content_len() <= room)
    }
}

/// Writes an entry (`ENTRY.json` of `ingest`): compact, its members sorted by name. It holds the file's keys.
pub fn to_json(entry: &FileEntry) -> String {
    to_value(entry).to_text()
}

/// Reads either form. Unknown members are ignored.
pub fn from_json(text: &[u8]) -> Result<FileEntry, HeadError> {
    let value = Json::parse(text).ok_or(HeadError::Malformed("it is not JSON"))?;
    from_value(Shape::REAL, &value).map_err(HeadError::Malformed)
}

pub(super) fn to_value(entry: &FileEntry) -> Json {
    let (chunks, root) = match &entry.reference {
        Reference::Tree(tree) => (None, Some(tree_to_value(tree))),
        Reference::Chunks(chunks) => (Some(Json::Array(chunks.iter().map(chunk_to_value).collect())), None),
    };
    Json::object([
        ("chunks", chunks),
        ("executable", entry.executable.then_some(Json::Bool(true))),
        ("modified", entry.modified_ms.map(Json::Uint)),
        ("name", Some(Json::Text(entry.path.as_str().into()))),
        ("root", root),
        ("size", Some(Json::Uint(entry.size))),
    ])
}

pub(super) fn tree_to_value(tree: &TreeRef) -> Json {
    Json::object([
        ("depth", Some(Json::Uint(tree.depth.into()))),
        ("id", Some(Json::hex(&tree.blob.root.0))),
        ("key", Some(Json::hex(tree.blob.key.expose()))),
        ("size", Some(Json::Uint(tree.size))),
    ])
}

fn chunk_to_value(chunk: &Chunk) -> Json {
    Json::object([
        ("blobId", Some(Json::hex(&chunk.id.0))),
        ("key", Some(Json::hex(chunk.key.expose()))),
        ("length", Some(Json::Uint(chunk.length.into()))),
        ("nonce", Some(Json::hex(&chunk.nonce))),
        ("offset", Some(Json::Uint(chunk.offset.into()))),
        ("realSize", Some(Json::Uint(chunk.real_size.into()))),
    ])
}

pub(super) fn from_value(shape: Shape, value: &Json) -> Result<FileEntry, &'static str> {
    let name = value.get("name").and_then(Json::as_text).ok_or("a file has no name")?;
    let path =
        EntryPath::new(name).map_err(|_| "a file's name could leave the folder or cannot stand in one")?;
    let size = value.get("size").and_then(Json::as_u64).ok_or("a file has no size")?;
    let reference = match (value.get("root"), value.get("chunks").and_then(Json::as_array)) {
        (Some(root), _) => Reference::Tree(tree_from_value(shape, root)?),
        (None, Some(chunks)) => {
            let chunks = chunks.iter().map(chunk_from_value).collect::<Option<_>>();
            Reference::Chunks(
                chunks.ok_or("a chunk has no blobId, key, nonce or realSize, or a wrong number")?,
            )
        }
        (None, None) => return Err("a file has neither chunks nor root"),
    };
    let modified_ms = match value.get("modified") {
        None => None,
        Some(time) => Some(time.as_u64().ok_or("a file's modified is not a time in milliseconds")?),
    };
    let executable = matches!(value.get("executable"), Some(Json::Bool(true)));
    let entry = FileEntry { path, size, modified_ms, executable, reference };
    entry.check()?;
    Ok(entry)
}

pub(super) fn tree_from_value(shape: Shape, value: &Json) -> Result<TreeRef, &'static str> {
    let read = || {
        let root = Root(value.get("id")?.as_bytes()?);
        let key = Secret::new(value.get("key")?.as_bytes()?);
        let depth = u8::try_from(value.get("depth")?.as_u64()?).ok()?;
        TreeRef::new_in(shape, value.get("size")?.as_u64()?, depth, BlobRef { root, key })
    };
    read().ok_or("a root has no depth, id, key or size, or its depth does not fit its size")
}

/// v5 readers and writers may leave out an `offset` of 0 and the `length` of a whole blob.
fn chunk_from_value(value: &Json) -> Option<Chunk> {
    let number = |name, absent| match value.get(name) {
        None => absent,
        Some(number) => u32::try_from(number.as_u64()?).ok(),
    };
    Some(Chunk {
        id: BlobId(value.get("blobId")?.as_bytes()?),
        root: None,
        offset: number("offset", Some(0))?,
        length: number("length", Some(BLOB_LEN_U32))?,
        key: Secret::new(value.get("key")?.as_bytes()?),
        nonce: value.get("nonce")?.as_bytes()?,
        real_size: number("realSize", None)?,
    })
}
