//! File entries and what they name (`docs/protocol.md` §3 to §5), and their JSON: v5's form in a head (§6), and one of all forms
//! for the entries that `ingest` writes.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::json::Json;
use super::{EntryPath, HeadError};
use crate::blob::{self, BLOB_LEN, BlobRef, NATIVE_NONCE, NONCE_LEN, TAG_LEN};
use crate::ids::{BlobId, BlobName, Root, Secret};
use crate::limits::{EXTENTS_MAX, PATH_LEN_MAX};
use crate::tree::{Node, Shape, TreeRef};

/// A file of a channel, or what stands where a file could: a symlink or an empty folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it goes below the output folder.
    pub path: EntryPath,
    /// Its size in bytes; 0 of a symlink or a folder.
    pub size: u64,
    /// Modification time, milliseconds since 1970.
    pub modified_ms: Option<u64>,
    /// Whether it is a program.
    pub executable: bool,
    /// Its bytes.
    pub reference: Reference,
    /// BLAKE3 of its bytes, where the author says it. A head has no place for it.
    pub blake3: Option<[u8; 32]>,
}

/// Where a file's bytes are, or what stands in a file's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Extents, which the file's bytes are joined from in order.
    Extents(Vec<Extent>),
    /// v5's list of chunks, in order.
    Chunks(Vec<Chunk>),
    /// No file but a symlink, with this target.
    Symlink(String),
    /// No file but an empty folder.
    Folder,
}

/// A stretch of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The content of a tree.
    Tree(TreeRef),
    /// The content of a slice.
    Slice(Slice),
}

/// A piece of a pack, sealed on its own (`docs/protocol.md` §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The pack's number in its channel.
    pub pack: u32,
    /// Where the sealed piece begins in the pack: a multiple of [`SLICE_ALIGN`].
    pub offset: u32,
    /// Bytes of content; the sealed piece is [`TAG_LEN`] longer.
    pub length: u32,
    /// Its key, which nothing else has; the nonce is zero.
    pub key: Secret,
}

/// Slices begin at multiples of this number of bytes.
pub const SLICE_ALIGN: u32 = 16;

/// v5's chunk: a piece of a blob sealed on its own; a native data blob is the piece that fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The blob's id; of a native blob, what its author says that it is.
    pub id: BlobId,
    /// The root of a native blob, whose only piece fills it; `None`: a v5 blob.
    pub root: Option<Root>,
    /// Where the sealed piece begins in the blob.
    pub offset: u32,
    /// Bytes of the sealed piece, tag included.
    pub length: u32,
    /// Its key.
    pub key: Secret,
    /// Its nonce.
    pub nonce: [u8; NONCE_LEN],
    /// Bytes of content; the rest of the piece is filling.
    pub real_size: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "1 048 592 fits")]
const BLOB_LEN_U32: u32 = BLOB_LEN as u32;

impl FileEntry {
    /// Returns the file as v5 lists it, from the data nodes of its trees in stream order, without the blobs' ids. A chunk list
    /// stays as it is. `None`: v5 has no form for it.
    pub fn to_v5(&self, leaves: &[Node]) -> Option<Self> {
        let chunk = |leaf: &Node| Chunk::from_ref(&leaf.blob, BlobId([0; 32]), leaf.content_len());
        let chunks = match &self.reference {
            Reference::Extents(extents) if extents.iter().all(|one| matches!(one, Extent::Tree(_))) => {
                leaves.iter().map(chunk).collect()
            }
            Reference::Chunks(chunks) => chunks.clone(),
            _ => return None,
        };
        Some(Self { reference: Reference::Chunks(chunks), blake3: None, ..self.clone() })
    }

    /// Checks that the reference can hold the file; the text says what is wrong.
    pub(super) fn check(&self, shape: Shape) -> Result<(), &'static str> {
        match &self.reference {
            Reference::Extents(extents) => {
                if extents.len() > EXTENTS_MAX {
                    return Err("a file has too many extents");
                }
                if !extents.iter().all(|extent| extent.is_consistent(shape)) {
                    return Err("a slice does not lie within its pack");
                }
            }
            Reference::Chunks(chunks) => {
                if chunks.len() > EXTENTS_MAX {
                    return Err("a file has too many chunks");
                }
                if !chunks.iter().all(Chunk::is_consistent) {
                    return Err("a chunk does not lie within its blob or holds more than its piece");
                }
            }
            Reference::Symlink(target) if target.is_empty() || target.len() > PATH_LEN_MAX => {
                return Err("a symlink's target is empty or too long");
            }
            Reference::Symlink(_) | Reference::Folder if self.executable || self.blake3.is_some() => {
                return Err("a symlink or an empty folder has members of another kind");
            }
            Reference::Symlink(_) | Reference::Folder => {}
        }
        let is_whole = self.reference.size() == Some(self.size);
        is_whole.then_some(()).ok_or("a file's size is not the sum of what it names")
    }
}

impl Reference {
    /// Bytes of what it names; `None` where they are more than a number holds.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Extents(extents) => extents.iter().try_fold(0_u64, |sum, one| sum.checked_add(one.size())),
            Self::Chunks(chunks) => {
                chunks.iter().try_fold(0_u64, |sum, one| sum.checked_add(one.real_size.into()))
            }
            Self::Symlink(_) | Self::Folder => Some(0),
        }
    }

    /// Counts its blobs (`docs/protocol.md` §12). A slice has none, as its pack counts for itself.
    pub fn blob_count(&self) -> u64 {
        match self {
            Self::Extents(extents) => extents.iter().map(Extent::blob_count).fold(0, u64::saturating_add),
            Self::Chunks(chunks) => chunks.len() as u64,
            Self::Symlink(_) | Self::Folder => 0,
        }
    }

    /// Its slices, in order.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        let extents = if let Self::Extents(extents) = self { &**extents } else { &[] };
        extents.iter().filter_map(|extent| match extent {
            Extent::Slice(slice) => Some(slice),
            Extent::Tree(_) => None,
        })
    }
}

impl From<TreeRef> for Reference {
    /// The file that is this stream; an empty one needs no blob.
    fn from(tree: TreeRef) -> Self {
        Self::Extents(if tree.size == 0 { Vec::new() } else { [Extent::Tree(tree)].into() })
    }
}

impl Extent {
    /// Bytes of content.
    pub fn size(&self) -> u64 {
        match self {
            Self::Tree(tree) => tree.size,
            Self::Slice(slice) => slice.length.into(),
        }
    }

    /// Counts its blobs: none of a slice.
    pub fn blob_count(&self) -> u64 {
        match self {
            Self::Tree(tree) => tree.blob_count(),
            Self::Slice(_) => 0,
        }
    }

    fn is_consistent(&self, shape: Shape) -> bool {
        match self {
            Self::Tree(_) => true,
            Self::Slice(slice) => slice.lies_within(shape),
        }
    }
}

impl Slice {
    /// Opens the slice in place in the whole pack; returns the range of `pack` that then holds the content. Changes nothing and
    /// returns `None` where the tag does not match or the slice does not lie within the pack.
    pub fn open(&self, pack: &mut [u8]) -> Option<Range<usize>> {
        let place = self.place()?;
        let content = place.start..place.end - TAG_LEN;
        blob::open_piece(&self.key, &NATIVE_NONCE, pack.get_mut(place)?).then_some(content)
    }

    /// Seals the slice in place, whose content stands at its place in the pack. `false`: it does not lie within the pack.
    pub fn seal(&self, pack: &mut [u8]) -> bool {
        let Some(piece) = self.place().and_then(|place| pack.get_mut(place)) else { return false };
        blob::seal_piece(&self.key, &NATIVE_NONCE, piece);
        true
    }

    /// Its sealed bytes in the pack.
    fn place(&self) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        Some(start..start.checked_add(usize::try_from(self.length).ok()?)?.checked_add(TAG_LEN)?)
    }

    /// The bytes that it takes in its pack, with what rounds them up.
    pub(super) fn taken(&self) -> Range<u64> {
        let end = u64::from(self.offset) + u64::from(self.length) + TAG_LEN as u64;
        self.offset.into()..end.next_multiple_of(SLICE_ALIGN.into())
    }

    /// A pack's last bytes, where a blob has its tag, are in no slice.
    fn lies_within(&self, shape: Shape) -> bool {
        let end = u64::from(self.offset) + u64::from(self.length) + TAG_LEN as u64;
        self.length > 0 && self.offset.is_multiple_of(SLICE_ALIGN) && end <= shape.plain_len() as u64
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

    /// The native data blob that it is; `None`: it is a piece of a v5 blob, or of no blob of this kind.
    pub fn blob(&self) -> Option<BlobRef> {
        let is_whole = self.offset == 0 && self.length == BLOB_LEN_U32 && self.nonce == NATIVE_NONCE;
        self.root.filter(|_| is_whole).map(|root| BlobRef { root, key: self.key.clone() })
    }
}

/// Writes an entry (`ENTRY.json` of `ingest`): compact, its members sorted by name. It holds the file's keys.
pub fn to_json(entry: &FileEntry) -> String {
    let mut value = to_value(entry);
    if let Json::Object(members) = &mut value {
        let member = match &entry.reference {
            Reference::Extents(extents) => {
                Some(("extents", Json::Array(extents.iter().map(extent_to_value).collect())))
            }
            Reference::Symlink(target) => Some(("target", Json::Text(target.clone()))),
            Reference::Folder => Some(("folder", Json::Bool(true))),
            Reference::Chunks(_) => None,
        };
        members.extend(member.map(|(name, value)| (name.into(), value)));
        members.extend(entry.blake3.map(|hash| ("blake3".into(), Json::hex(&hash))));
    }
    value.sort();
    value.to_text()
}

/// Reads an entry of any form. Unknown members are ignored.
pub fn from_json(text: &[u8]) -> Result<FileEntry, HeadError> {
    let value = Json::parse(text).ok_or(HeadError::Malformed("it is not JSON"))?;
    any_from_value(&value).map_err(HeadError::Malformed)
}

fn any_from_value(value: &Json) -> Result<FileEntry, &'static str> {
    let forms = ["chunks", "extents", "target", "folder"].map(|name| value.get(name));
    let reference = match forms {
        [Some(_), None, None, None] => return from_value(value),
        [None, Some(extents), None, None] => {
            let extents = extents.as_array().ok_or("a file's extents are no array")?;
            let extents = extents.iter().map(extent_from_value).collect::<Option<_>>();
            Reference::Extents(extents.ok_or("an extent is neither a tree nor a slice")?)
        }
        [None, None, Some(target), None] => {
            Reference::Symlink(target.as_text().ok_or("a symlink's target is not a text")?.into())
        }
        [None, None, None, Some(Json::Bool(true))] => Reference::Folder,
        _ => return Err("a file has no reference, or several"),
    };
    let blake3 = match value.get("blake3") {
        None => None,
        Some(hash) => Some(hash.as_bytes().ok_or("a file's blake3 is not a hash")?),
    };
    let entry = FileEntry { blake3, ..with_reference(value, reference)? };
    entry.check(Shape::REAL)?;
    Ok(entry)
}

/// A tree as base64url of its [`TreeRef::to_bytes`], a slice as an array.
fn extent_to_value(extent: &Extent) -> Json {
    match extent {
        Extent::Tree(tree) => tree_to_value(tree),
        Extent::Slice(slice) => {
            let numbers = [slice.pack, slice.offset, slice.length].map(|number| Json::Uint(number.into()));
            Json::Array(numbers.into_iter().chain([Json::hex(slice.key.expose())]).collect())
        }
    }
}

fn extent_from_value(value: &Json) -> Option<Extent> {
    let Some([pack, offset, length, key]) = value.as_array() else {
        return tree_from_value(Shape::REAL, value).map(Extent::Tree);
    };
    let number = |value: &Json| u32::try_from(value.as_u64()?).ok();
    let (pack, offset, length) = (number(pack)?, number(offset)?, number(length)?);
    Some(Extent::Slice(Slice { pack, offset, length, key: Secret::new(key.as_bytes()?) }))
}

/// Writes an entry of a head: v5's form. Of another reference it has nothing.
pub(super) fn to_value(entry: &FileEntry) -> Json {
    let chunks = match &entry.reference {
        Reference::Chunks(chunks) => Some(Json::Array(chunks.iter().map(chunk_to_value).collect())),
        _ => None,
    };
    Json::object([
        ("chunks", chunks),
        ("executable", entry.executable.then_some(Json::Bool(true))),
        ("modified", entry.modified_ms.map(Json::Uint)),
        ("name", Some(Json::Text(entry.path.as_str().into()))),
        ("size", Some(Json::Uint(entry.size))),
    ])
}

pub(super) fn tree_to_value(tree: &TreeRef) -> Json {
    Json::Text((*tree.to_text()).clone())
}

fn chunk_to_value(chunk: &Chunk) -> Json {
    Json::object([
        ("blake3", chunk.root.map(|root| Json::hex(&root.0))),
        ("blobId", Some(Json::hex(&chunk.id.0))),
        ("key", Some(Json::hex(chunk.key.expose()))),
        ("length", Some(Json::Uint(chunk.length.into()))),
        ("nonce", Some(Json::hex(&chunk.nonce))),
        ("offset", Some(Json::Uint(chunk.offset.into()))),
        ("realSize", Some(Json::Uint(chunk.real_size.into()))),
    ])
}

/// Reads an entry of a head.
pub(super) fn from_value(value: &Json) -> Result<FileEntry, &'static str> {
    let chunks = value.get("chunks").and_then(Json::as_array).ok_or("a file has no chunks")?;
    let chunks = chunks.iter().map(chunk_from_value).collect::<Result<_, _>>()?;
    let entry = with_reference(value, Reference::Chunks(chunks))?;
    entry.check(Shape::REAL)?;
    Ok(entry)
}

/// Reads what all entries have.
fn with_reference(value: &Json, reference: Reference) -> Result<FileEntry, &'static str> {
    let name = value.get("name").and_then(Json::as_text).ok_or("a file has no name")?;
    let path = EntryPath::new(name).map_err(|_| "a file's name could leave the folder or breaks a line")?;
    let size = value.get("size").and_then(Json::as_u64).ok_or("a file has no size")?;
    let modified_ms = match value.get("modified") {
        None => None,
        Some(time) => Some(time.as_u64().ok_or("a file's modified is not a time in milliseconds")?),
    };
    let executable = matches!(value.get("executable"), Some(Json::Bool(true)));
    Ok(FileEntry { path, size, modified_ms, executable, reference, blake3: None })
}

pub(super) fn tree_from_value(shape: Shape, value: &Json) -> Option<TreeRef> {
    TreeRef::from_text_in(shape, value.as_text()?)
}

/// v5 readers and writers may leave out an `offset` of 0 and the `length` of a whole blob.
fn chunk_from_value(value: &Json) -> Result<Chunk, &'static str> {
    let number = |name, absent| match value.get(name) {
        None => absent,
        Some(number) => u32::try_from(number.as_u64()?).ok(),
    };
    let read = || {
        Some(Chunk {
            id: BlobId(value.get("blobId")?.as_bytes()?),
            root: None,
            offset: number("offset", Some(0))?,
            length: number("length", Some(BLOB_LEN_U32))?,
            key: Secret::new(value.get("key")?.as_bytes()?),
            nonce: value.get("nonce")?.as_bytes()?,
            real_size: number("realSize", None)?,
        })
    };
    let mut chunk = read().ok_or("a chunk has no blobId, key, nonce or realSize, or a wrong number")?;
    if let Some(root) = value.get("blake3") {
        chunk.root = Some(Root(root.as_bytes().ok_or("a chunk's blake3 is not a hash")?));
        if chunk.blob().is_none() {
            return Err("a chunk with blake3 is no native data blob");
        }
    }
    Ok(chunk)
}
