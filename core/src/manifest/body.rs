//! The body: what a channel says of itself, and where the pages of its collections are (`docs/protocol.md` §5).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::cbor::{Reader, Result, Writer, count};
use super::{BodyError, EntryPath, PageRef, is_magnet};
use crate::ids::{BlobId, Root};
use crate::limits::{
    BODY_LEN_MAX, COLLECTIONS_MAX, CONTENT_BYTES_MAX, DESCRIPTION_LEN_MAX, ITEMS_MAX, PACKS_MAX,
    PAGE_ITEMS_MAX, PAGE_LEN_MAX, TITLE_LEN_MAX,
};
use crate::tree::{Shape, TreeRef};

/// Value of key 0: the body's format. Any other is refused.
const FORMAT: u64 = 2;
/// Fields of a page's reference.
const PAGE_FIELDS: usize = 4;
/// Bytes of an id in the stream of ids.
pub(crate) const ID_LEN: u64 = size_of::<BlobId>() as u64;

/// A channel's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Title; may be empty.
    pub title: String,
    /// Description; may be empty.
    pub description: String,
    /// Collections, in the author's order.
    pub collections: Vec<BodyCollection>,
    /// Packs, by their numbers.
    pub packs: BTreeMap<u32, Root>,
    /// The ids of the blobs, one for each position before its own.
    pub ids: Option<TreeRef>,
    /// The sum of all files' sizes.
    pub bytes: u64,
}

/// A collection, whose items lie in pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyCollection {
    /// Title; may be empty.
    pub title: String,
    /// Its pages, in the order of their items.
    pub pages: Vec<PageRef>,
}

impl Body {
    /// Its pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = &PageRef> {
        self.collections.iter().flat_map(|collection| &collection.pages)
    }

    /// How many items it has.
    pub fn item_count(&self) -> u64 {
        self.pages().map(|page| u64::from(page.items)).sum()
    }

    /// Counts the positions (`docs/protocol.md` §12) before those of the ids, where the body has `body_blobs` itself. `None`
    /// where they are more than a number holds.
    pub(crate) fn positions(&self, body_blobs: u64) -> Option<u64> {
        let front = body_blobs.checked_add(self.packs.len() as u64)?;
        self.pages()
            .try_fold(front, |sum, page| sum.checked_add(page.tree.blob_count())?.checked_add(page.blobs))
    }

    /// The body's deterministic CBOR (RFC 8949 §4.2).
    pub fn to_cbor(&self) -> Vec<u8> {
        let (mut w, items) = (Writer::default(), self.item_count());
        let members = [
            !self.title.is_empty(),
            !self.description.is_empty(),
            !self.collections.is_empty(),
            !self.packs.is_empty(),
            self.ids.is_some(),
            items > 0,
        ];
        w.map(1 + count(members));
        w.uint(0);
        w.uint(FORMAT);
        w.text_member(1, &self.title);
        w.text_member(2, &self.description);
        w.array_member(3, &self.collections, Writer::collection);
        if !self.packs.is_empty() {
            w.uint(4);
            w.map(self.packs.len());
            for (number, root) in &self.packs {
                w.uint((*number).into());
                w.bytes(&root.0);
            }
        }
        if let Some(ids) = &self.ids {
            w.uint(6);
            w.bytes(&*ids.to_bytes());
        }
        if items > 0 {
            w.uint(11);
            w.array(2);
            w.uint(self.bytes);
            w.uint(items);
        }
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
        let read = |mut body: Self, totals| {
            body.check(totals)?;
            let own = shape.blob_count(bytes.len() as u64);
            let positions = own.and_then(|own| body.positions(own)).ok_or("it has too many blobs")?;
            let is_whole = |ids: &TreeRef| positions.checked_mul(ID_LEN) == Some(ids.size);
            if !body.ids.as_ref().is_none_or(is_whole) {
                return Err("it does not have one id for each blob");
            }
            Ok(body)
        };
        let document = Reader { rest: bytes, shape }.whole(Reader::body);
        document.and_then(|(body, totals)| read(body, totals)).map_err(BodyError::Malformed)
    }

    /// Checks what the body says, `totals` being the bytes and items in it.
    fn check(&mut self, totals: Option<(u64, u64)>) -> Result<()> {
        if self.title.len() > TITLE_LEN_MAX || self.description.len() > DESCRIPTION_LEN_MAX {
            return Err("the channel's title or description is too long");
        }
        if self.collections.iter().any(|collection| collection.title.len() > TITLE_LEN_MAX) {
            return Err("a collection's title is too long");
        }
        self.collections.iter().flat_map(|collection| &collection.pages).try_for_each(check_page)?;
        let is_sorted = |one: &BodyCollection| one.pages.is_sorted_by(|a, b| a.first < b.first);
        if !self.collections.iter().all(is_sorted) {
            return Err("a collection's pages do not ascend");
        }
        let (bytes, items) = match totals {
            Some((_, 0)) => return Err("sums of nothing are not left out"),
            Some(totals) => totals,
            None => (0, 0),
        };
        if items > ITEMS_MAX as u64 || bytes > CONTENT_BYTES_MAX {
            return Err("there are too many items, or too many bytes");
        }
        if items != self.item_count() {
            return Err("the number of items is not the sum of the pages'");
        }
        self.bytes = bytes;
        Ok(())
    }
}

fn check_page(page: &PageRef) -> Result<()> {
    if page.tree.size > PAGE_LEN_MAX as u64 {
        return Err("a page is longer than 256 KiB");
    }
    if page.items == 0 || page.items as usize > PAGE_ITEMS_MAX {
        return Err("a page has no items or too many");
    }
    let is_name = is_magnet(&page.first) || EntryPath::new(&page.first).is_ok();
    is_name.then_some(()).ok_or("a page begins with neither a path nor a magnet URI")
}

impl Writer {
    fn collection(&mut self, collection: &BodyCollection) {
        self.map(count([!collection.title.is_empty(), !collection.pages.is_empty()]));
        self.text_member(1, &collection.title);
        self.array_member(2, &collection.pages, Self::page);
    }

    fn page(&mut self, page: &PageRef) {
        self.array(PAGE_FIELDS);
        self.bytes(&*page.tree.to_bytes());
        self.text(&page.first);
        self.uint(page.items.into());
        self.uint(page.blobs);
    }
}

impl Reader<'_> {
    fn body(&mut self) -> Result<(Body, Option<(u64, u64)>)> {
        let (mut body, mut format, mut totals) = (Body::default(), None, None);
        self.map(|r, key| {
            match key {
                0 => format = Some(r.uint()?),
                1 => body.title = r.filled_text()?,
                2 => body.description = r.filled_text()?,
                3 => body.collections = r.filled_array(COLLECTIONS_MAX, Self::collection)?,
                4 => body.packs = r.packs()?,
                6 => body.ids = Some(r.tree()?),
                11 => {
                    r.fields(2, "the sums are not two numbers")?;
                    totals = Some((r.uint()?, r.uint()?));
                }
                _ => return r.skip(),
            }
            Ok(())
        })?;
        if format != Some(FORMAT) {
            return Err("it has a format that this version does not know: update");
        }
        Ok((body, totals))
    }

    fn packs(&mut self) -> Result<BTreeMap<u32, Root>> {
        let mut packs = BTreeMap::new();
        let count = self.table(|r, number| {
            let number = u32::try_from(number).map_err(|_| "a pack's number is too large")?;
            packs.insert(number, Root(r.bytes_array()?));
            Ok(())
        })?;
        match count {
            0 => Err("an empty table is not left out"),
            1..=PACKS_MAX => Ok(packs),
            _ => Err("there are too many packs"),
        }
    }

    fn collection(&mut self) -> Result<BodyCollection> {
        let mut collection = BodyCollection::default();
        self.map(|r, key| {
            match key {
                1 => collection.title = r.filled_text()?,
                2 => collection.pages = r.filled_array(ITEMS_MAX, Self::page)?,
                _ => return r.skip(),
            }
            Ok(())
        })?;
        Ok(collection)
    }

    fn page(&mut self) -> Result<PageRef> {
        self.fields(PAGE_FIELDS, "a page does not have four fields")?;
        Ok(PageRef {
            tree: self.tree()?,
            first: self.text()?.into(),
            items: self.uint_32()?,
            blobs: self.uint()?,
        })
    }
}
