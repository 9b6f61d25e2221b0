//! The body and its pages: fetched side by side, read one after the other.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use zeroize::Zeroizing;

use super::super::files::Files;
use super::super::selection::Urgency;
use super::super::walk::Walk;
use super::{Ask, Fetch, FileState, Ids, Stage, WalkId};
use crate::blob::BlobRef;
use crate::ids::BlobName;
use crate::manifest::{Body, BodyError, Item, Manifest, Page, PageRef};
use crate::tree::TreeRef;

/// The data blobs of a document, each with the bytes of its content.
type Leaves = Vec<(BlobRef, u32)>;

/// The body and its pages, as far as they are here. Document 0 is the body, document n its n-th page.
pub(super) struct Documents {
    tree: TreeRef,
    body: Option<Body>,
    /// Where in the body each page stands (collection and page), and the position of its tree.
    places: Vec<(usize, usize, u64)>,
    pages: Vec<State>,
    /// Pages that are neither read nor refused.
    missing: usize,
    /// The next page to fetch.
    next: usize,
    /// Fetched documents that wait to be read.
    to_read: VecDeque<(usize, Leaves)>,
    reading: Option<Reading>,
}

enum State {
    Missing,
    Read(Page),
    Refused,
}

/// A document whose data blobs are opened one by one.
struct Reading {
    document: usize,
    leaves: Leaves,
    at: usize,
    bytes: Zeroizing<Vec<u8>>,
}

impl Documents {
    fn new(tree: TreeRef) -> Self {
        let (places, pages) = (Vec::new(), Vec::new());
        let to_read = VecDeque::new();
        Self { tree, body: None, places, pages, missing: 0, next: 0, to_read, reading: None }
    }

    /// The next page to fetch: its document, its tree, and the position of that.
    pub(super) fn next_page(&mut self) -> Option<(usize, TreeRef, u64)> {
        let (page, start) = self.page(self.next)?;
        let next = (self.next + 1, page.tree.clone(), start);
        self.next += 1;
        Some(next)
    }

    /// A page and the position of its tree.
    fn page(&self, page: usize) -> Option<(&PageRef, u64)> {
        let (collection, page, start) = *self.places.get(page)?;
        Some((self.body.as_ref()?.collections.get(collection)?.pages.get(page)?, start))
    }

    fn tree_of(&self, document: usize) -> Option<(TreeRef, u64)> {
        let Some(page) = document.checked_sub(1) else { return Some((self.tree.clone(), 0)) };
        self.page(page).map(|(page, start)| (page.tree.clone(), start))
    }

    /// Takes note of what became of a page. `false`: that was known.
    fn settle(&mut self, page: usize, to: State) -> bool {
        let Some(state @ State::Missing) = self.pages.get_mut(page) else { return false };
        *state = to;
        self.missing -= 1;
        true
    }
}

impl Fetch {
    pub(super) fn begin_documents(&mut self, tree: TreeRef, asks: &mut Vec<Ask>) {
        self.blobs_total = tree.blob_count();
        self.walks.insert(WalkId::Document(0), Walk::keeping_leaves(&tree, 0, Urgency::USUAL));
        self.stage = Stage::Documents(alloc::boxed::Box::new(Documents::new(tree)));
        self.advance(asks);
    }

    /// Whether the content of this blob is waited for to read a document.
    pub(super) fn is_reading(&self, name: &BlobName) -> bool {
        let Stage::Documents(documents) = &self.stage else { return false };
        let leaf = documents.reading.as_ref().and_then(|reading| reading.leaves.get(reading.at));
        leaf.is_some_and(|(blob, _)| *name == BlobName::Native(blob.root))
    }

    /// Opens the blob again whose content is waited for to read a document.
    pub(super) fn read_again(&self) -> Option<Ask> {
        let Stage::Documents(documents) = &self.stage else { return None };
        let reading = documents.reading.as_ref()?;
        reading.leaves.get(reading.at).map(|(blob, len)| Ask::Open(blob.clone(), *len))
    }

    /// A document's blobs are stored: it is read when its turn comes.
    pub(super) fn read_document(&mut self, document: usize, leaves: Leaves, asks: &mut Vec<Ask>) {
        let Stage::Documents(documents) = &mut self.stage else { return };
        documents.to_read.push_back((document, leaves));
        self.read_next(asks);
    }

    fn read_next(&mut self, asks: &mut Vec<Ask>) {
        let Stage::Documents(documents) = &mut self.stage else { return };
        if documents.reading.is_some() {
            return;
        }
        let Some((document, leaves)) = documents.to_read.pop_front() else { return };
        asks.extend(leaves.first().map(|(blob, len)| Ask::Open(blob.clone(), *len)));
        documents.reading = Some(Reading { document, leaves, at: 0, bytes: Zeroizing::default() });
    }

    /// The content of a document's data blob; `None` where it is not stored after all.
    pub(super) fn on_document_data(&mut self, name: BlobName, plain: Option<&[u8]>, asks: &mut Vec<Ask>) {
        let Stage::Documents(documents) = &mut self.stage else { return };
        let Some(mut reading) = documents.reading.take() else { return };
        let (document, expected) =
            (reading.document, reading.leaves.get(reading.at).map_or(0, |leaf| leaf.1));
        match plain {
            // A blob went missing between being stored and being read: once more from the start.
            None if self.reopened.insert(name) => self.fetch_again(document),
            Some(plain) if plain.len() as u64 == u64::from(expected) => {
                reading.bytes.extend_from_slice(plain);
                reading.at += 1;
                if let Some((blob, len)) = reading.leaves.get(reading.at) {
                    asks.push(Ask::Open(blob.clone(), *len));
                    documents.reading = Some(reading);
                    return;
                }
                self.parse(document, &reading.bytes, asks);
            }
            _ => {
                let why = BodyError::Malformed("its blobs do not hold what it says of them");
                self.refuse_document(document, why, asks);
            }
        }
        self.read_next(asks);
        self.advance(asks);
    }

    fn fetch_again(&mut self, document: usize) {
        let Stage::Documents(documents) = &self.stage else { return };
        let Some((tree, start)) = documents.tree_of(document) else { return };
        self.blobs_stored -= tree.blob_count();
        self.walks.insert(WalkId::Document(document), Walk::keeping_leaves(&tree, start, Urgency::USUAL));
    }

    fn parse(&mut self, document: usize, bytes: &[u8], asks: &mut Vec<Ask>) {
        let Stage::Documents(documents) = &mut self.stage else { return };
        let Some(page) = document.checked_sub(1) else { return self.parse_body(bytes, asks) };
        let (Some(body), Some((of_page, _))) = (&documents.body, documents.page(page)) else { return };
        match of_page.read(&body.packs, bytes) {
            Ok(read) => {
                documents.settle(page, State::Read(read));
            }
            Err(error) => self.refuse_page(document, error, asks),
        }
    }

    fn parse_body(&mut self, bytes: &[u8], asks: &mut Vec<Ask>) {
        let Stage::Documents(documents) = &mut self.stage else { return };
        let body = match Body::from_cbor_in(documents.tree.shape, bytes) {
            Ok(body) => body,
            Err(error) => return self.refuse_body(error, asks),
        };
        let own = documents.tree.blob_count();
        let mut next = own + body.packs.len() as u64;
        for (collection, of) in body.collections.iter().enumerate() {
            for (page, of) in of.pages.iter().enumerate() {
                documents.places.push((collection, page, next));
                documents.pages.push(State::Missing);
                next += of.tree.blob_count();
            }
        }
        documents.missing = documents.pages.len();
        self.packs_start = own;
        self.document_blobs = next - body.packs.len() as u64;
        let positions = body.positions(own).expect("a body that was read has a number of blobs");
        let ids = body.ids.as_ref();
        self.blobs_total = positions.saturating_add(ids.map_or(0, TreeRef::blob_count));
        self.ids = ids.map_or(Ids::None, |tree| Ids::Waiting(tree.clone(), positions));
        documents.body = Some(body);
    }

    fn refuse_document(&mut self, document: usize, error: BodyError, asks: &mut Vec<Ask>) {
        match document {
            0 => self.refuse_body(error, asks),
            page => self.refuse_page(page, error, asks),
        }
    }

    /// The body cannot be used, and with it all that it names.
    pub(super) fn refuse_body(&mut self, error: BodyError, asks: &mut Vec<Ask>) {
        self.stage = Stage::Refused;
        self.walks.clear();
        self.in_hand.clear();
        self.in_hand_count = 0;
        asks.push(Ask::BodyRefused(error));
    }

    /// A page cannot be used; the others can.
    pub(super) fn refuse_page(&mut self, document: usize, error: BodyError, asks: &mut Vec<Ask>) {
        self.drop_walks(|id| id == WalkId::Document(document));
        let Stage::Documents(documents) = &mut self.stage else { return };
        documents.to_read.retain(|(waiting, _)| *waiting != document);
        documents.reading.take_if(|reading| reading.document == document);
        if document.checked_sub(1).is_some_and(|page| documents.settle(page, State::Refused)) {
            self.has_refused_page = true;
            asks.push(Ask::PageRefused(error));
        }
    }

    /// Goes on with the files once the body and all pages were read or refused.
    pub(super) fn finish_documents(&mut self, asks: &mut Vec<Ask>) {
        let Stage::Documents(documents) = &mut self.stage else { return };
        if documents.missing > 0 {
            return;
        }
        let Some(body) = documents.body.take() else { return };
        let of_pages = documents.places.iter().zip(body.pages());
        self.page_trees = of_pages.map(|((.., start), page)| (page.tree.clone(), *start)).collect();
        let mut start = self.document_blobs + body.packs.len() as u64;
        let (mut starts, mut of_pages, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        for (state, page) in mem::take(&mut documents.pages).into_iter().zip(body.pages()) {
            let (first, mut next) = (starts.len(), start);
            if let State::Read(read) = state {
                for item in &read.items {
                    if let Item::File(_) = item {
                        starts.push(next);
                    }
                    next += item.blob_count();
                }
                pages.push(Some(read));
            } else {
                pages.push(None);
            }
            start += page.blobs;
            of_pages.push(first..starts.len());
        }
        match Manifest::assemble(body, pages) {
            Err(error) => self.refuse_body(error, asks),
            Ok(manifest) => self.begin_manifest(Arc::new(manifest), starts, &of_pages, asks),
        }
    }

    fn begin_manifest(
        &mut self,
        manifest: Arc<Manifest>,
        starts: Vec<u64>,
        of_pages: &[Range<usize>],
        asks: &mut Vec<Ask>,
    ) {
        asks.push(Ask::Manifest(manifest.clone()));
        self.files = Files::of_manifest(manifest);
        self.repeated = self.files.repeated();
        let clashing = self.files.clashing();
        let is_refused = |page: &&Range<usize>| {
            let at = clashing.partition_point(|file| *file < page.start);
            clashing.get(at).is_some_and(|file| page.contains(file))
        };
        let refused: Vec<Range<usize>> = of_pages.iter().filter(is_refused).cloned().collect();
        self.states = alloc::vec![FileState::Waiting; starts.len()];
        for page in refused {
            self.has_refused_page = true;
            let why = BodyError::Malformed("a file stands where another needs a folder");
            asks.push(Ask::PageRefused(why));
            for file in page {
                self.states[file] = FileState::Refused;
                asks.push(Ask::FileRefused(file));
            }
        }
        self.begin_files(starts, asks);
    }
}
