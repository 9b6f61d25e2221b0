//! The body: deterministic CBOR (RFC 8949 §4.2.1), read and written item by item (`docs/protocol.md` §5).
//!
//! It is read straight into the manifest's types, without a tree of generic values between: a hostile body of 8 MiB
//! would need some 250 MiB as such a tree. Reading checks that each item's head is the one the encoder would write, and
//! that keys ascend, so each content has one encoding.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use ciborium_ll::{Decoder, Encoder, Header};

use super::{BodyError, Chunk, Collection, EntryPath, FileEntry, Item, Manifest, Reference};
use crate::blob::NONCE_LEN;
use crate::ids::{BlobId, Secret};
use crate::limits::{BODY_LEN_MAX, CBOR_DEPTH_MAX, CHUNKS_MAX, COLLECTIONS_MAX, ITEMS_MAX};
use crate::tree::{Shape, TreeRef};

/// Value of key 0: the body's format. Any other is refused.
const FORMAT: u64 = 1;
/// Fields of a chunk.
const CHUNK_FIELDS: usize = 6;
/// Longest head of a CBOR item.
const HEADER_LEN_MAX: usize = 9;

type Result<T> = core::result::Result<T, &'static str>;

impl Manifest {
    /// The body's deterministic CBOR (RFC 8949 §4.2).
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut w = Writer(Vec::new());
        let members = [!self.title.is_empty(), !self.description.is_empty(), !self.collections.is_empty()];
        w.header(Header::Map(Some(1 + count(members))));
        w.uint(0);
        w.uint(FORMAT);
        w.text_member(1, &self.title);
        w.text_member(2, &self.description);
        w.array_member(3, &self.collections, Writer::collection);
        w.0
    }

    /// Refuses anything but what [`Self::to_cbor`] would write, except that it skips unknown integer keys of maps, which must
    /// be deterministic too.
    pub fn from_cbor(bytes: &[u8]) -> core::result::Result<Self, BodyError> {
        Self::from_cbor_in(Shape::REAL, bytes)
    }

    /// [`Self::from_cbor`], where trees have another shape.
    pub(crate) fn from_cbor_in(shape: Shape, bytes: &[u8]) -> core::result::Result<Self, BodyError> {
        if bytes.len() as u64 > BODY_LEN_MAX {
            return Err(BodyError::TooLarge);
        }
        let manifest = Reader { rest: bytes, shape }.document().map_err(BodyError::Malformed)?;
        manifest.check()?;
        Ok(manifest)
    }
}

fn count<const N: usize>(members: [bool; N]) -> usize {
    members.into_iter().filter(|present| *present).count()
}

struct Writer(Vec<u8>);

impl Writer {
    fn header(&mut self, header: Header) {
        let mut buf = [0; HEADER_LEN_MAX];
        self.0.extend_from_slice(encode(header, &mut buf));
    }

    fn uint(&mut self, value: u64) {
        self.header(Header::Positive(value));
    }

    fn bytes(&mut self, value: &[u8]) {
        self.header(Header::Bytes(Some(value.len())));
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, value: &str) {
        self.header(Header::Text(Some(value.len())));
        self.0.extend_from_slice(value.as_bytes());
    }

    fn text_member(&mut self, key: u64, value: &str) {
        if !value.is_empty() {
            self.uint(key);
            self.text(value);
        }
    }

    fn array_member<T>(&mut self, key: u64, values: &[T], write: fn(&mut Self, &T)) {
        if !values.is_empty() {
            self.uint(key);
            self.header(Header::Array(Some(values.len())));
            for value in values {
                write(self, value);
            }
        }
    }

    fn collection(&mut self, collection: &Collection) {
        let members = [!collection.title.is_empty(), !collection.items.is_empty()];
        self.header(Header::Map(Some(count(members))));
        self.text_member(1, &collection.title);
        self.array_member(2, &collection.items, Self::item);
    }

    fn item(&mut self, item: &Item) {
        let file = match item {
            Item::Magnet(uri) => return self.text(uri),
            Item::File(file) => file,
        };
        self.header(Header::Map(Some(3 + count([file.modified_ms.is_some(), file.executable]))));
        self.text_member(1, file.path.as_str());
        self.uint(2);
        self.uint(file.size);
        if let Some(time) = file.modified_ms {
            self.uint(3);
            self.uint(time);
        }
        if file.executable {
            self.uint(4);
            self.header(Header::Simple(ciborium_ll::simple::TRUE));
        }
        match &file.reference {
            Reference::Tree(tree) => {
                self.uint(5);
                self.bytes(&*tree.to_bytes());
            }
            Reference::Chunks(chunks) => {
                // An empty file may have no chunk, but still has a reference.
                self.uint(6);
                self.header(Header::Array(Some(chunks.len())));
                for chunk in chunks {
                    self.chunk(chunk);
                }
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk) {
        self.header(Header::Array(Some(CHUNK_FIELDS)));
        self.bytes(&chunk.id.0);
        self.uint(chunk.offset.into());
        self.uint(chunk.length.into());
        self.bytes(chunk.key.expose());
        self.bytes(&chunk.nonce);
        self.uint(chunk.real_size.into());
    }
}

/// Writes the only deterministic encoding of an item's head: the shortest.
fn encode(header: Header, buf: &mut [u8; HEADER_LEN_MAX]) -> &[u8] {
    let mut space = &mut buf[..];
    Encoder::from(&mut space).push(header).expect("a head is at most 9 bytes");
    let len = HEADER_LEN_MAX - space.len();
    &buf[..len]
}

struct Reader<'a> {
    rest: &'a [u8],
    shape: Shape,
}

impl<'a> Reader<'a> {
    fn document(mut self) -> Result<Manifest> {
        let mut manifest = Manifest::default();
        let mut format = None;
        self.map(|r, key| {
            match key {
                0 => format = Some(r.uint()?),
                1 => manifest.title = r.filled_text()?,
                2 => manifest.description = r.filled_text()?,
                3 => manifest.collections = r.filled_array(COLLECTIONS_MAX, Self::collection)?,
                _ => return r.skip(),
            }
            Ok(())
        })?;
        if format != Some(FORMAT) {
            return Err("it has a format that this version does not know: update");
        }
        if !self.rest.is_empty() {
            return Err("bytes follow its end");
        }
        Ok(manifest)
    }

    fn collection(&mut self) -> Result<Collection> {
        let mut collection = Collection::default();
        self.map(|r, key| {
            match key {
                1 => collection.title = r.filled_text()?,
                2 => collection.items = r.filled_array(ITEMS_MAX, Self::item)?,
                _ => return r.skip(),
            }
            Ok(())
        })?;
        Ok(collection)
    }

    fn item(&mut self) -> Result<Item> {
        if self.rest.first().is_some_and(|first| first >> 5 == 3) {
            return Ok(Item::Magnet(self.text()?.to_owned()));
        }
        let (mut path, mut size, mut modified_ms, mut executable) = (None, None, None, false);
        let mut reference = None;
        self.map(|r, key| {
            match key {
                1 => path = Some(EntryPath::new(r.text()?).map_err(|_| "a path could leave its folder")?),
                2 => size = Some(r.uint()?),
                3 => modified_ms = Some(r.uint()?),
                4 => executable = r.truth()?,
                5 => {
                    let tree = TreeRef::from_bytes_in(r.shape, &r.bytes_array()?);
                    reference = Some(Reference::Tree(tree.ok_or("a tree's depth does not fit its size")?));
                }
                6 if reference.is_some() => return Err("a file has two references"),
                6 => reference = Some(Reference::Chunks(r.array(CHUNKS_MAX, Self::chunk)?)),
                _ => return r.skip(),
            }
            Ok(())
        })?;
        Ok(Item::File(FileEntry {
            path: path.ok_or("a file has no path")?,
            size: size.ok_or("a file has no size")?,
            modified_ms,
            executable,
            reference: reference.ok_or("a file has no reference")?,
        }))
    }

    fn chunk(&mut self) -> Result<Chunk> {
        if self.header()? != Header::Array(Some(CHUNK_FIELDS)) {
            return Err("a chunk does not have six fields");
        }
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

    /// Takes the next item's head; refuses one that is not the shortest.
    fn header(&mut self) -> Result<Header> {
        let mut decoder = Decoder::from(self.rest);
        let header = decoder.pull().map_err(|_| "it ends too early or is not CBOR")?;
        let (head, rest) = self.rest.split_at(decoder.offset());
        if encode(header, &mut [0; HEADER_LEN_MAX]) != head {
            return Err("a number or length is not in its shortest form");
        }
        // RFC 8949 §3.3; of those below 24, the second byte would not be the shortest form.
        if matches!(header, Header::Simple(24..=31)) {
            return Err("a simple value is not well-formed");
        }
        self.rest = rest;
        Ok(header)
    }

    fn uint(&mut self) -> Result<u64> {
        match self.header()? {
            Header::Positive(value) => Ok(value),
            _ => Err("a field is not a number"),
        }
    }

    fn uint_32(&mut self) -> Result<u32> {
        u32::try_from(self.uint()?).map_err(|_| "a chunk's number is too large")
    }

    fn truth(&mut self) -> Result<bool> {
        match self.header()? {
            Header::Simple(ciborium_ll::simple::TRUE) => Ok(true),
            _ => Err("executable is there but not true"),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        if self.header()? != Header::Bytes(Some(N)) {
            return Err("a field is not a byte string of its length");
        }
        self.take(N)?.try_into().map_err(|_| "it ends too early")
    }

    fn text(&mut self) -> Result<&'a str> {
        match self.header()? {
            Header::Text(Some(len)) => {
                core::str::from_utf8(self.take(len)?).map_err(|_| "a text is not UTF-8")
            }
            _ => Err("a field is not a text"),
        }
    }

    /// Takes a text, which may not be empty: the member would be left out.
    fn filled_text(&mut self) -> Result<String> {
        Some(self.text()?)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or("an empty text is not left out")
    }

    fn array<T>(&mut self, len_max: usize, read: fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        match self.header()? {
            Header::Array(Some(len)) if len <= len_max => (0..len).map(|_| read(self)).collect(),
            Header::Array(Some(_)) => Err("there are too many collections, items or chunks"),
            _ => Err("a field is not an array"),
        }
    }

    /// Takes an array, which may not be empty: the member would be left out.
    fn filled_array<T>(&mut self, len_max: usize, read: fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        Some(self.array(len_max, read)?)
            .filter(|items| !items.is_empty())
            .ok_or("an empty array is not left out")
    }

    /// Takes a map with ascending integer keys; `read` takes each value. Skips negative keys, which are all unknown.
    fn map(&mut self, mut read: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        let Header::Map(Some(len)) = self.header()? else { return Err("a field is not a map") };
        let mut previous: &[u8] = &[];
        for _ in 0..len {
            let at = self.rest;
            let header = self.header()?;
            self.check_ascent(at, &mut previous)?;
            match header {
                Header::Positive(key) => read(self, key)?,
                Header::Negative(_) => self.skip()?,
                _ => return Err("a map's key is not a number"),
            }
        }
        Ok(())
    }

    /// Checks that the key that begins at `at` and was just read comes after the map's `previous` one: bytewise order of
    /// the encoded keys (RFC 8949 §4.2.1).
    fn check_ascent(&self, at: &'a [u8], previous: &mut &'a [u8]) -> Result<()> {
        let key = &at[..at.len() - self.rest.len()];
        if key <= *previous {
            return Err("a map's keys do not ascend");
        }
        *previous = key;
        Ok(())
    }

    /// Skips the value of an unknown key.
    fn skip(&mut self) -> Result<()> {
        self.skip_below(CBOR_DEPTH_MAX)
    }

    fn skip_below(&mut self, depth_left: usize) -> Result<()> {
        let below = depth_left.checked_sub(1).ok_or("it is nested too deep")?;
        match self.header()? {
            Header::Positive(_) | Header::Negative(_) | Header::Float(_) | Header::Simple(_) => Ok(()),
            Header::Bytes(Some(len)) => self.take(len).map(drop),
            Header::Text(Some(len)) => {
                core::str::from_utf8(self.take(len)?).map(drop).map_err(|_| "a text is not UTF-8")
            }
            Header::Array(Some(len)) => (0..len).try_for_each(|_| self.skip_below(below)),
            Header::Tag(_) => self.skip_below(below),
            Header::Map(Some(len)) => {
                let mut previous: &[u8] = &[];
                for _ in 0..len {
                    let at = self.rest;
                    self.skip_below(below)?;
                    self.check_ascent(at, &mut previous)?;
                    self.skip_below(below)?;
                }
                Ok(())
            }
            Header::Bytes(None)
            | Header::Text(None)
            | Header::Array(None)
            | Header::Map(None)
            | Header::Break => Err("a length is indefinite"),
        }
    }
}
