//! Fetching one version's content: the body's tree, those of its pages, then the trees, packs and chunks of the files that are
//! selected, and last the ids, with a bounded number of blobs in hand. It says which blobs are missing; who is asked for them is
//! not its business.
//!
//! Each blob in hand is in one state: being looked up in the store, wanted, out of reach until the store says otherwise, or, for an
//! index blob and a document's data, being opened. What is stored counts at once, so a fetch that is begun again goes on where it was. Once all that is selected is
//! stored, nothing of the content is held but some numbers.

mod advance;
mod choice;
mod claims;
mod documents;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;

use super::files::Files;
use super::selection::{Priority, Selection, Urgency};
use super::walk::Walk;
use super::{Coverage, Progress, Spot, Wanted};
use crate::blob::BlobRef;
use crate::ids::{BlobId, BlobName, InfoHash, Root, Secret};
use crate::limits::{BODY_LEN_MAX, CLAIMS_MAX, WANTED_PER_FETCH_MAX};
use crate::manifest::{BodyError, Collection, Extent, HeadContent, Manifest, Reference};
use crate::node::api::Held;
use crate::tree::{Node, TreeRef};
use claims::Claims;
use documents::Documents;

/// What a fetch asks for, and what it has found out.
#[derive(Debug)]
pub(super) enum Ask {
    /// Which of these are stored.
    Have(Vec<BlobName>),
    /// Get this blob, which stands at a position; `is_index`: others are only known once it is here.
    Want {
        wanted: Wanted,
        position: u64,
        is_index: bool,
        urgency: Urgency,
        /// The byte of its content from which it is wanted first.
        from: Option<u32>,
    },
    /// Nothing of what was wanted is wanted any more.
    DropWants,
    /// Open so many bytes of content of this stored blob.
    Open(BlobRef, u32),
    Manifest(Arc<Manifest>),
    BodyRefused(BodyError),
    PageRefused(BodyError),
    /// What the author calls blobs.
    Claims(Vec<(BlobId, Root)>),
    FileComplete(usize),
    FileRefused(usize),
}

/// What is fetched.
pub(super) enum Source {
    /// What a channel's head names.
    Head(HeadContent),
    /// One tree.
    Tree(TreeRef),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    Skipped,
    Waiting,
    Walked,
    Done,
    Refused,
}

/// Which walk: that of a document (0: the body, n: its n-th page), of a range, of a file, or of the ids. The earlier take blobs in hand first, so they are in the order of
/// their urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WalkId {
    Document(usize),
    /// Its place among the ranges, and its file.
    Range(usize, usize),
    File(Reverse<Priority>, usize),
    Ids,
}

impl WalkId {
    fn file(self) -> Option<usize> {
        match self {
            Self::Document(_) | Self::Ids => None,
            Self::Range(_, file) | Self::File(_, file) => Some(file),
        }
    }
}

/// A walk that waits for a blob.
#[derive(Clone)]
struct Part {
    walk: WalkId,
    wanted: Wanted,
    position: u64,
    /// The index node that the blob is; `None` for data.
    node: Option<Node>,
    /// It was passed before, and counts no more.
    is_again: bool,
}

impl Part {
    /// Others are known by it, or known better: it comes before data.
    fn is_index(&self) -> bool {
        self.node.is_some() || matches!(self.walk, WalkId::Document(_) | WalkId::Ids)
    }
}

enum Stage {
    /// The body and its pages are fetched and read.
    Documents(Box<Documents>),
    /// The files' blobs are fetched.
    Files,
    /// All that is selected is stored.
    Satisfied { has_all: bool },
    /// The body cannot be used, or some file could not.
    Refused,
}

/// The ids of the blobs: the tree, and while it is not here the position of its first blob.
enum Ids {
    /// There are none.
    None,
    Waiting(TreeRef, u64),
    Walked(TreeRef, u64),
    Done(TreeRef),
    /// Nothing is selected that they would be of.
    Skipped(TreeRef, u64),
    Refused,
}

/// The fetch of one version's content.
pub(super) struct Fetch {
    /// No other fetch has it.
    number: u64,
    stage: Stage,
    files: Files,
    selection: Selection,
    states: Vec<FileState>,
    /// The position of each file's first blob.
    starts: Vec<u64>,
    /// Files whose path counts for another.
    repeated: BTreeSet<usize>,
    /// The position of the first pack.
    packs_start: u64,
    /// Packs that are stored, by their positions.
    packs_stored: BTreeSet<u64>,
    /// Blobs of the body and its pages.
    document_blobs: u64,
    has_refused_page: bool,
    /// The trees of the pages that were read, and their positions.
    page_trees: Vec<(TreeRef, u64)>,
    ids: Ids,
    claims: Option<Box<Claims>>,
    /// Files that are selected and not begun, in the order in which they are.
    waiting: VecDeque<usize>,
    walks: BTreeMap<WalkId, Walk>,
    in_hand: BTreeMap<BlobName, Vec<Part>>,
    in_hand_count: usize,
    in_hand_max: usize,
    is_checking: bool,
    to_check: Vec<BlobName>,
    /// Something that it needs is stored where nothing can be read at present.
    is_out_of_reach: bool,
    /// Index blobs that are being opened.
    opening: BTreeSet<BlobName>,
    /// Index blobs that did not open, though stored once: a second time, the reference is at fault.
    reopened: BTreeSet<BlobName>,
    /// Positions of blobs that were found to be stored since somebody looked.
    stored: Vec<u64>,
    /// Those of them that others are known by.
    index: Vec<Root>,
    blobs_stored: u64,
    blobs_total: u64,
    content_bytes: u64,
    /// The blobs that v5 readers look for one by one, once all is stored.
    chunks: Vec<InfoHash>,
}

impl Fetch {
    pub(super) fn new(
        number: u64,
        source: Source,
        selection: Selection,
        in_hand_max: usize,
        asks: &mut Vec<Ask>,
    ) -> Self {
        let mut fetch = Self {
            number,
            stage: Stage::Files,
            files: Files::Unknown,
            selection,
            states: Vec::new(),
            starts: Vec::new(),
            repeated: BTreeSet::new(),
            packs_start: 0,
            packs_stored: BTreeSet::new(),
            document_blobs: 0,
            has_refused_page: false,
            page_trees: Vec::new(),
            ids: Ids::None,
            claims: None,
            waiting: VecDeque::new(),
            walks: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            in_hand_count: 0,
            in_hand_max,
            is_checking: false,
            to_check: Vec::new(),
            is_out_of_reach: false,
            opening: BTreeSet::new(),
            reopened: BTreeSet::new(),
            stored: Vec::new(),
            index: Vec::new(),
            blobs_stored: 0,
            blobs_total: 0,
            content_bytes: 0,
            chunks: Vec::new(),
        };
        match source {
            Source::Head(HeadContent::Inline(collections)) => fetch.begin_inline(collections, asks),
            Source::Head(HeadContent::Body(body)) if body.size > BODY_LEN_MAX => {
                fetch.refuse_body(BodyError::TooLarge, asks);
            }
            Source::Head(HeadContent::Body(body)) => fetch.begin_documents(body, asks),
            Source::Tree(tree) => {
                fetch.files = Files::Tree(Reference::Extents([Extent::Tree(tree)].into()));
                fetch.begin_files(alloc::vec![0], asks);
            }
        }
        fetch
    }

    // --- what it has come to --------------------------------------------------------------------------------

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether all that is selected is stored.
    pub(super) fn is_satisfied(&self) -> bool {
        matches!(self.stage, Stage::Satisfied { .. })
    }

    /// Whether every blob is stored.
    pub(super) fn has_all(&self) -> bool {
        matches!(self.stage, Stage::Satisfied { has_all: true })
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.stage, Stage::Refused)
    }

    /// Whether the body and its pages were read.
    pub(super) fn knows_files(&self) -> bool {
        !matches!(self.stage, Stage::Documents(_))
    }

    /// Where the content of a blob in hand is to stand, its key and its bytes.
    pub(super) fn stand_of(&self, name: &BlobName) -> Option<(Spot, &Secret, u32)> {
        self.in_hand.get(name)?.iter().find_map(|part| match &part.wanted {
            Wanted::Native { blob, len, spot: Some(spot), .. } => Some((*spot, &blob.key, *len)),
            _ => None,
        })
    }

    /// What it is doing, in words.
    pub(super) fn waiting(&self) -> &'static str {
        match self.stage {
            Stage::Documents(_) => "the channel's body",
            Stage::Files if self.is_tree() => "the tree's blobs",
            Stage::Files => "the channel's blobs",
            Stage::Satisfied { .. } => "nothing",
            Stage::Refused if self.is_tree() => "nothing that could come, as the tree cannot be used",
            Stage::Refused => "a newer head, as this one's content cannot be used",
        }
    }

    /// Whether it is of one tree, without a head. Once all is stored, nobody needs to know.
    fn is_tree(&self) -> bool {
        matches!(self.files, Files::Tree(_))
    }

    /// Blobs that are stored of those that the content names, as far as they are known, index blobs included; and the bytes
    /// of its files.
    pub(super) fn numbers(&self) -> (u64, u64, u64) {
        (self.blobs_stored, self.blobs_total, self.content_bytes)
    }

    /// Blobs in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand_count
    }

    /// What of the version is here; positions, those found since the last call.
    pub(super) fn take_progress(&mut self) -> Progress {
        let extent = match self.stage {
            Stage::Satisfied { has_all: true } => Coverage::All,
            Stage::Satisfied { has_all: false } => Coverage::Selected,
            _ => Coverage::Part,
        };
        (mem::take(&mut self.stored), self.blobs_total, extent)
    }

    /// Blobs that others are known by and that were found to be stored since the last call.
    pub(super) fn take_index(&mut self) -> Vec<Root> {
        mem::take(&mut self.index)
    }

    /// Whether v5 peers may have blobs of it, known to them one by one.
    pub(super) fn has_chunks(&self) -> bool {
        self.files
            .iter()
            .any(|(_, _, reference)| matches!(reference, Reference::Chunks(chunks) if !chunks.is_empty()))
    }

    /// The blobs that v5 readers look for one by one, once all is stored.
    pub(super) fn take_chunks(&mut self) -> Vec<InfoHash> {
        mem::take(&mut self.chunks)
    }

    pub(super) fn selection(&self) -> Selection {
        self.selection.clone()
    }

    /// Whether the blobs of a file are fetched in order.
    pub(super) fn is_in_order(&self) -> bool {
        self.selection.in_order
    }

    /// At most this many blobs are taken in hand from here on.
    pub(super) fn set_in_hand_max(&mut self, in_hand_max: usize) {
        self.in_hand_max = in_hand_max.min(WANTED_PER_FETCH_MAX);
    }

    // --- answers --------------------------------------------------------------------------------------------

    /// The store's word on what [`Ask::Have`] asked.
    pub(super) fn on_have(&mut self, ids: &[BlobName], have: &[Held], asks: &mut Vec<Ask>) {
        self.is_checking = false;
        for (i, id) in ids.iter().enumerate() {
            match have.get(i) {
                Some(Held::Whole) => {
                    self.note_stored(*id, asks);
                    continue;
                }
                Some(Held::OutOfReach) => {
                    self.is_out_of_reach |= self.in_hand.contains_key(id);
                    continue;
                }
                Some(Held::Parts(..) | Held::Nothing) | None => {}
            }
            for part in self.in_hand.get(id).into_iter().flatten() {
                let is_index = part.is_index();
                let walk = self.walks.get(&part.walk);
                let urgency = walk.map_or(Urgency::USUAL, Walk::urgency);
                let from = walk.and_then(|walk| walk.from(&part.wanted));
                let wanted = part.wanted.clone();
                asks.push(Ask::Want { wanted, position: part.position, is_index, urgency, from });
            }
        }
        self.advance(asks);
    }

    /// Whether something that it needs is stored where nothing can be read at present.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.is_out_of_reach
    }

    /// A blob that was to be opened is out of reach: it stays in hand until the store is looked at again.
    pub(super) fn on_out_of_reach(&mut self, name: BlobName, asks: &mut Vec<Ask>) {
        if self.claims.is_some() {
            return self.on_claims_opened(name, None, asks);
        }
        self.is_out_of_reach = true;
        if !self.is_reading(&name) {
            self.opening.remove(&name);
        }
    }

    /// What the store could not read it may read again: all that is missing is looked up once more.
    pub(super) fn look_again(&mut self, asks: &mut Vec<Ask>) {
        let was_out_of_reach = mem::take(&mut self.is_out_of_reach);
        asks.extend(self.read_again().filter(|_| was_out_of_reach));
        let missing = self.in_hand.keys().filter(|name| !self.opening.contains(name));
        self.to_check = missing.copied().collect();
        self.advance(asks);
    }

    /// A blob is stored.
    pub(super) fn on_stored(&mut self, id: BlobName, asks: &mut Vec<Ask>) {
        self.note_stored(id, asks);
        self.advance(asks);
    }

    fn note_stored(&mut self, id: BlobName, asks: &mut Vec<Ask>) {
        let Some(parts) = self.in_hand.remove(&id) else { return };
        let mut to_open = Vec::new();
        for part in parts {
            self.stored.push(part.position);
            if part.is_index()
                && let Some(root) = id.root()
            {
                self.index.push(root);
            }
            if let Some(node) = &part.node {
                if self.opening.insert(id) {
                    asks.push(Ask::Open(node.blob.clone(), node.content_len()));
                }
                to_open.push(part);
                continue;
            }
            self.count(&part);
            if let Some(walk) = self.walks.get_mut(&part.walk) {
                walk.data_stored();
            }
        }
        if !to_open.is_empty() {
            self.in_hand.insert(id, to_open);
        }
    }

    /// A part is through. Ranges count nothing: their blobs come again with their files. A pack counts once.
    fn count(&mut self, part: &Part) {
        self.in_hand_count -= 1;
        if matches!(part.wanted, Wanted::Pack(_)) {
            self.blobs_stored += u64::from(self.packs_stored.insert(part.position));
        } else if !part.is_again && !matches!(part.walk, WalkId::Range(..)) {
            self.blobs_stored += 1;
        }
    }

    /// An opened blob's plaintext; `None` where it is not stored after all, or its key does not fit.
    pub(super) fn on_opened(&mut self, id: BlobName, plain: Option<&[u8]>, asks: &mut Vec<Ask>) {
        if self.claims.is_some() {
            return self.on_claims_opened(id, plain, asks);
        }
        if self.is_reading(&id) {
            return self.on_document_data(id, plain, asks);
        }
        self.opening.remove(&id);
        let Some(parts) = self.in_hand.remove(&id) else { return };
        match plain {
            Some(plain) => {
                for part in parts {
                    self.count(&part);
                    let walk = self.walks.get_mut(&part.walk);
                    if walk.is_some_and(|walk| !walk.opened(&id, plain)) {
                        self.refuse_part(&part, asks);
                    }
                }
            }
            None if self.reopened.insert(id) => {
                self.in_hand.insert(id, parts);
                self.to_check.push(id);
            }
            None => {
                self.in_hand_count -= parts.len();
                for part in &parts {
                    self.refuse_part(part, asks);
                }
            }
        }
        self.advance(asks);
    }

    /// A blob came whole, and is not what its key and its content's length make: the author's fault.
    pub(super) fn on_unfit(&mut self, name: BlobName, asks: &mut Vec<Ask>) {
        let Some(parts) = self.in_hand.remove(&name) else { return };
        self.opening.remove(&name);
        // A pack is what its bytes are.
        let (packs, unfit): (Vec<Part>, _) =
            parts.into_iter().partition(|part| matches!(part.wanted, Wanted::Pack(_)));
        self.in_hand_count -= unfit.len();
        if !packs.is_empty() {
            self.in_hand.insert(name, packs);
            self.to_check.push(name);
        }
        for part in &unfit {
            self.refuse_part(part, asks);
        }
        self.advance(asks);
    }

    /// A stored blob does not hold what its reference promises: the author's fault.
    fn refuse_part(&mut self, part: &Part, asks: &mut Vec<Ask>) {
        const WHY: BodyError = BodyError::Malformed("its blobs do not hold what it says of them");
        match part.walk {
            WalkId::Document(0) => return self.refuse_body(WHY, asks),
            WalkId::Document(page) => return self.refuse_page(page, WHY, asks),
            WalkId::Ids => {
                self.drop_walks(|id| id == WalkId::Ids);
                self.ids = Ids::Refused;
                return;
            }
            WalkId::Range(..) | WalkId::File(..) => {}
        }
        let Some(file) = part.walk.file() else { return };
        self.drop_walks(|id| id.file() == Some(file));
        self.waiting.retain(|waiting| *waiting != file);
        if self.states[file] != FileState::Refused {
            self.states[file] = FileState::Refused;
            asks.push(Ask::FileRefused(file));
        }
    }

    /// Drops walks, and what is in hand of them.
    fn drop_walks(&mut self, is_dropped: impl Fn(WalkId) -> bool) {
        self.walks.retain(|id, _| !is_dropped(*id));
        for parts in self.in_hand.values_mut() {
            let before = parts.len();
            parts.retain(|part| !is_dropped(part.walk));
            self.in_hand_count -= before - parts.len();
        }
        self.in_hand.retain(|_, parts| !parts.is_empty());
    }

    // --- the files ------------------------------------------------------------------------------------------

    fn begin_inline(&mut self, collections: Vec<Collection>, asks: &mut Vec<Ask>) {
        let manifest = Arc::new(Manifest { collections, ..Manifest::default() });
        asks.push(Ask::Manifest(manifest.clone()));
        let chunks = manifest.files().flat_map(|file| match &file.reference {
            Reference::Chunks(chunks) => &**chunks,
            _ => &[],
        });
        let claims: Vec<_> = chunks.filter_map(|chunk| Some((chunk.id, chunk.root?))).collect();
        for batch in claims.chunks(CLAIMS_MAX) {
            asks.push(Ask::Claims(batch.to_vec()));
        }
        self.files = Files::of_manifest(manifest);
        let mut next = 0;
        let starts = self.files.iter().map(|(_, _, reference)| {
            let start = next;
            next += reference.blob_count();
            start
        });
        let starts = starts.collect();
        self.begin_files(starts, asks);
    }

    /// Begins with the files, whose first blobs stand at `starts`.
    fn begin_files(&mut self, starts: Vec<u64>, asks: &mut Vec<Ask>) {
        if !matches!(self.stage, Stage::Documents(_)) {
            let blobs = self.files.iter().map(|(_, _, reference)| reference.blob_count());
            self.blobs_total = blobs.fold(0, u64::saturating_add);
        }
        let bytes = self.files.iter().map(|(_, size, _)| size);
        self.content_bytes = bytes.fold(0, u64::saturating_add);
        // Some may be refused already.
        self.states.resize(starts.len(), FileState::Waiting);
        self.starts = starts;
        self.stage = Stage::Files;
        self.line_up();
        self.advance(asks);
    }
}
