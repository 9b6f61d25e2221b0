//! Deterministic CBOR (RFC 8949 §4.2.1), item by item. Reading checks that each item's head is the one that the encoder would
//! write, and that keys ascend, so each content has one encoding.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use ciborium_ll::{Decoder, Encoder, Header};

use crate::limits::CBOR_DEPTH_MAX;
use crate::tree::{Shape, TreeRef};

/// Longest head of a CBOR item.
const HEADER_LEN_MAX: usize = 9;

pub(super) type Result<T> = core::result::Result<T, &'static str>;

pub(super) fn count<const N: usize>(members: [bool; N]) -> usize {
    members.into_iter().filter(|present| *present).count()
}

#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn header(&mut self, header: Header) {
        let mut buf = [0; HEADER_LEN_MAX];
        self.0.extend_from_slice(encode(header, &mut buf));
    }

    pub(super) fn uint(&mut self, value: u64) {
        self.header(Header::Positive(value));
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.header(Header::Bytes(Some(value.len())));
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.header(Header::Text(Some(value.len())));
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn array(&mut self, len: usize) {
        self.header(Header::Array(Some(len)));
    }

    pub(super) fn map(&mut self, len: usize) {
        self.header(Header::Map(Some(len)));
    }

    pub(super) fn truth_member(&mut self, key: u64, value: bool) {
        if value {
            self.uint(key);
            self.header(Header::Simple(ciborium_ll::simple::TRUE));
        }
    }

    pub(super) fn text_member(&mut self, key: u64, value: &str) {
        if !value.is_empty() {
            self.uint(key);
            self.text(value);
        }
    }

    pub(super) fn array_member<T>(&mut self, key: u64, values: &[T], write: fn(&mut Self, &T)) {
        if !values.is_empty() {
            self.uint(key);
            self.array(values.len());
            for value in values {
                write(self, value);
            }
        }
    }
}

/// Writes the only deterministic encoding of an item's head: the shortest.
fn encode(header: Header, buf: &mut [u8; HEADER_LEN_MAX]) -> &[u8] {
    let mut space = &mut buf[..];
    Encoder::from(&mut space).push(header).expect("a head is at most 9 bytes");
    let len = HEADER_LEN_MAX - space.len();
    &buf[..len]
}

pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
    pub(super) shape: Shape,
}

impl<'a> Reader<'a> {
    /// Reads the only item of the bytes.
    pub(super) fn whole<T>(mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let value = read(&mut self)?;
        if self.rest.is_empty() { Ok(value) } else { Err("bytes follow its end") }
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

    pub(super) fn uint(&mut self) -> Result<u64> {
        match self.header()? {
            Header::Positive(value) => Ok(value),
            _ => Err("a field is not a number"),
        }
    }

    pub(super) fn uint_32(&mut self) -> Result<u32> {
        u32::try_from(self.uint()?).map_err(|_| "a number is too large")
    }

    pub(super) fn truth(&mut self) -> Result<bool> {
        match self.header()? {
            Header::Simple(ciborium_ll::simple::TRUE) => Ok(true),
            _ => Err("a mark is there but not true"),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn tree(&mut self) -> Result<TreeRef> {
        TreeRef::from_bytes_in(self.shape, &self.bytes_array()?).ok_or("a tree's depth does not fit its size")
    }

    pub(super) fn bytes_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        if self.header()? != Header::Bytes(Some(N)) {
            return Err("a field is not a byte string of its length");
        }
        self.take(N)?.try_into().map_err(|_| "it ends too early")
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        match self.header()? {
            Header::Text(Some(len)) => {
                core::str::from_utf8(self.take(len)?).map_err(|_| "a text is not UTF-8")
            }
            _ => Err("a field is not a text"),
        }
    }

    /// Takes a text, which may not be empty: the member would be left out.
    pub(super) fn filled_text(&mut self) -> Result<String> {
        Some(self.text()?)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or("an empty text is not left out")
    }

    pub(super) fn array<T>(
        &mut self,
        len_max: usize,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        match self.header()? {
            Header::Array(Some(len)) if len <= len_max => (0..len).map(|_| read(self)).collect(),
            Header::Array(Some(_)) => Err("there are too many collections, items, extents or chunks"),
            _ => Err("a field is not an array"),
        }
    }

    /// Takes the head of an array of `len` fields.
    pub(super) fn fields(&mut self, len: usize, otherwise: &'static str) -> Result<()> {
        if self.header()? == Header::Array(Some(len)) { Ok(()) } else { Err(otherwise) }
    }

    /// Whether the next item is of this major type.
    pub(super) fn is_next(&self, major: u8) -> bool {
        self.rest.first().is_some_and(|first| first >> 5 == major)
    }

    /// Takes an array, which may not be empty: the member would be left out.
    pub(super) fn filled_array<T>(
        &mut self,
        len_max: usize,
        read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        Some(self.array(len_max, read)?)
            .filter(|items| !items.is_empty())
            .ok_or("an empty array is not left out")
    }

    /// Takes a map with ascending integer keys; `read` takes each value. Skips negative keys, which are all unknown.
    pub(super) fn map(&mut self, mut read: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        self.entries(|r, key| match key {
            Header::Positive(key) => read(r, key),
            Header::Negative(_) => r.skip(),
            _ => Err("a map's key is not a number"),
        })
        .map(drop)
    }

    /// Takes a map from numbers that are not negative; `read` takes each value. Returns how many there are.
    pub(super) fn table(&mut self, mut read: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<usize> {
        self.entries(|r, key| match key {
            Header::Positive(key) => read(r, key),
            _ => Err("a table's key is not a number from 0 on"),
        })
    }

    fn entries(&mut self, mut read: impl FnMut(&mut Self, Header) -> Result<()>) -> Result<usize> {
        let Header::Map(Some(len)) = self.header()? else { return Err("a field is not a map") };
        let mut previous: &[u8] = &[];
        for _ in 0..len {
            let at = self.rest;
            let key = self.header()?;
            self.check_ascent(at, &mut previous)?;
            read(self, key)?;
        }
        Ok(len)
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
    pub(super) fn skip(&mut self) -> Result<()> {
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
