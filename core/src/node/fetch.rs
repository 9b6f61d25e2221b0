//! Fetching one head's content: the body's tree, then the trees and chunks of its files, with a bounded number of
//! blobs in hand. It says which blobs it lacks; who is asked for them is not its business.
//!
//! Each blob in hand is in one state: being looked up in the store, wanted (the scheduler's), or, for an index blob
//! and a body's data, being opened. What is stored counts at once, so a fetch that is begun again goes on where it was.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::api::Event;
use super::have::Stored;
use super::scheduler::Place;
use crate::blob::Link;
use crate::identity::PublicKey;
use crate::ids::BlobId;
use crate::limits::{BODY_LEN_MAX, FILES_AT_ONCE_MAX, WANTED_PER_FETCH_MAX};
use crate::manifest::{BodyError, HeadContent, Manifest, Reference};
use crate::tree::{self, TreeRef};

/// What a fetch asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// Which of these are stored.
    Have(Vec<BlobId>),
    /// Get this blob, which stands here.
    Want(BlobId, Place),
    /// Open this stored blob.
    Open(Link),
    Event(Event),
}

/// One file's (or the body's) way through its blobs, depth first, one open index blob per height at most.
struct Walk {
    /// The next blob's place in the channel (`docs/protocol.md` §12): the order is that of this walk.
    position: u64,
    /// Nodes still to visit, the lowest height last.
    cursors: Vec<(Vec<tree::Node>, usize)>,
    /// Blobs of a chunk list, and the next one.
    chunks: (Vec<BlobId>, usize),
    /// Index blobs in hand: at most one.
    index_in_hand: usize,
    in_hand: usize,
    /// The data nodes visited, where the content itself is wanted (the body).
    leaves: Option<Vec<tree::Node>>,
}

impl Walk {
    fn tree(position: u64, tree: &TreeRef, keep_leaves: bool) -> Self {
        let leaves = keep_leaves.then(Vec::new);
        Self {
            position,
            cursors: [([tree.root()].into(), 0)].into(),
            chunks: (Vec::new(), 0),
            index_in_hand: 0,
            in_hand: 0,
            leaves,
        }
    }

    fn chunks(position: u64, ids: Vec<BlobId>) -> Self {
        let chunks = (ids, 0);
        Self { position, cursors: Vec::new(), chunks, index_in_hand: 0, in_hand: 0, leaves: None }
    }

    /// The next blob, its position, and the index node it is, if it is one. `None`: nothing until an index blob is
    /// open, or at all.
    fn next(&mut self) -> Option<(BlobId, u64, Option<tree::Node>)> {
        let (id, node) = self.next_blob()?;
        self.position += 1;
        Some((id, self.position - 1, node))
    }

    fn next_blob(&mut self) -> Option<(BlobId, Option<tree::Node>)> {
        let (ids, at) = &mut self.chunks;
        if let Some(id) = ids.get(*at) {
            *at += 1;
            self.in_hand += 1;
            return Some((*id, None));
        }
        while let Some((nodes, at)) = self.cursors.last_mut() {
            let Some(node) = nodes.get(*at) else {
                self.cursors.pop();
                continue;
            };
            if node.height > 0 && self.index_in_hand > 0 {
                return None;
            }
            *at += 1;
            self.in_hand += 1;
            let node = node.clone();
            if node.height > 0 {
                self.index_in_hand += 1;
                return Some((node.link.id, Some(node)));
            }
            let id = node.link.id;
            if let Some(leaves) = &mut self.leaves {
                leaves.push(node);
            }
            return Some((id, None));
        }
        None
    }

    fn opened(&mut self, node: &tree::Node, plain: &[u8]) {
        self.index_in_hand -= 1;
        self.in_hand -= 1;
        self.cursors.push((node.children(plain), 0));
    }

    fn is_finished(&self) -> bool {
        let (ids, at) = &self.chunks;
        self.in_hand == 0 && *at == ids.len() && self.cursors.iter().all(|(nodes, at)| *at == nodes.len())
    }
}

/// A place that waits for a blob.
#[derive(Clone)]
struct Part {
    file: usize,
    position: u64,
    /// The index node that the blob is; `None` for data.
    node: Option<tree::Node>,
}

enum Stage {
    /// The body's blobs are fetched.
    Body(TreeRef),
    /// The body's data blobs are opened one by one.
    Reading { body: TreeRef, leaves: Vec<tree::Node>, bytes: Vec<u8> },
    /// The files' blobs are fetched.
    Files,
    /// All is stored.
    Complete,
    /// The body cannot be used, or some file could not.
    Refused,
}

/// The fetch of one head's content.
pub(super) struct Fetch {
    channel: PublicKey,
    pub(super) sequence: u64,
    stage: Stage,
    pub(super) manifest: Option<Arc<Manifest>>,
    next_file: usize,
    /// The position of its first blob.
    next_position: u64,
    /// Files that the manifest names.
    files: usize,
    refused_files: usize,
    /// The walks under way by file; the body's is file 0 of its stage.
    walks: BTreeMap<usize, Walk>,
    in_hand: BTreeMap<BlobId, Vec<Part>>,
    in_hand_count: usize,
    checking: bool,
    to_check: Vec<BlobId>,
    /// Index blobs that are being opened.
    opening: BTreeSet<BlobId>,
    /// Index blobs that did not open, though stored once: a second time, the reference is at fault.
    reopened: BTreeMap<BlobId, u8>,
    /// The positions of what is stored.
    pub(super) stored: Stored,
    pub(super) blobs_stored: u64,
    pub(super) blobs_total: u64,
    pub(super) content_bytes: u64,
}

impl Fetch {
    pub(super) fn new(channel: PublicKey, sequence: u64, content: HeadContent, asks: &mut Vec<Ask>) -> Self {
        let mut fetch = Self {
            channel,
            sequence,
            stage: Stage::Files,
            manifest: None,
            next_file: 0,
            next_position: 0,
            files: 0,
            refused_files: 0,
            walks: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            in_hand_count: 0,
            checking: false,
            to_check: Vec::new(),
            opening: BTreeSet::new(),
            reopened: BTreeMap::new(),
            stored: Stored::default(),
            blobs_stored: 0,
            blobs_total: 0,
            content_bytes: 0,
        };
        match content {
            HeadContent::Inline(collections) => {
                fetch.begin_files(Manifest { collections, ..Manifest::default() }, asks);
            }
            HeadContent::Root(body) if body.size > BODY_LEN_MAX => {
                fetch.refuse_body(BodyError::TooLarge, asks);
            }
            HeadContent::Root(body) => {
                fetch.blobs_total = body.blob_count();
                fetch.next_position = fetch.blobs_total;
                fetch.walks.insert(0, Walk::tree(0, &body, true));
                fetch.stage = Stage::Body(body);
                fetch.advance(asks);
            }
        }
        fetch
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Complete)
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.stage, Stage::Refused)
    }

    /// What it is doing, in words.
    pub(super) fn waiting(&self) -> &'static str {
        match self.stage {
            Stage::Body(_) | Stage::Reading { .. } => "the channel's body",
            Stage::Files => "the channel's blobs",
            Stage::Complete => "nothing",
            Stage::Refused => "a newer head, as this one's content cannot be used",
        }
    }

    /// The store's word on what [`Ask::Have`] asked.
    pub(super) fn on_have(&mut self, ids: &[BlobId], have: &[bool], asks: &mut Vec<Ask>) {
        self.checking = false;
        for (i, id) in ids.iter().enumerate() {
            if have.get(i).copied().unwrap_or(false) {
                self.on_stored(*id, asks);
                continue;
            }
            for part in self.in_hand.get(id).into_iter().flatten() {
                let is_index = part.node.is_some() || matches!(self.stage, Stage::Body(_));
                let position = part.position;
                asks.push(Ask::Want(*id, Place { channel: self.channel, position, is_index }));
            }
        }
        self.advance(asks);
    }

    /// A blob is stored.
    pub(super) fn on_blob(&mut self, id: BlobId, asks: &mut Vec<Ask>) {
        self.on_stored(id, asks);
        self.advance(asks);
    }

    fn on_stored(&mut self, id: BlobId, asks: &mut Vec<Ask>) {
        let Some(parts) = self.in_hand.remove(&id) else { return };
        let mut to_open = Vec::new();
        for part in parts {
            self.stored.add(part.position);
            if let Some(node) = &part.node {
                if self.opening.insert(id) {
                    asks.push(Ask::Open(node.link.clone()));
                }
                to_open.push(part);
                continue;
            }
            self.in_hand_count -= 1;
            self.blobs_stored += 1;
            if let Some(walk) = self.walks.get_mut(&part.file) {
                walk.in_hand -= 1;
            }
        }
        if !to_open.is_empty() {
            self.in_hand.insert(id, to_open);
        }
    }

    /// An opened blob's plaintext; `None` where it is not stored after all, or its key does not fit.
    pub(super) fn on_opened(&mut self, id: BlobId, plain: Option<&[u8]>, asks: &mut Vec<Ask>) {
        if let Stage::Reading { .. } = self.stage {
            self.on_body_data(plain, asks);
            return;
        }
        self.opening.remove(&id);
        let Some(parts) = self.in_hand.remove(&id) else { return };
        match plain {
            Some(plain) => {
                for part in parts {
                    self.in_hand_count -= 1;
                    self.blobs_stored += 1;
                    if let (Some(walk), Some(node)) = (self.walks.get_mut(&part.file), &part.node) {
                        walk.opened(node, plain);
                    }
                }
            }
            None if self.reopened.insert(id, 1).is_none() => {
                self.in_hand.insert(id, parts);
                self.to_check.push(id);
            }
            None => {
                self.in_hand_count -= parts.len();
                for part in parts {
                    self.refuse_part(&part, asks);
                }
            }
        }
        self.advance(asks);
    }

    /// A stored index blob does not open under its reference's key: the author's fault.
    fn refuse_part(&mut self, part: &Part, asks: &mut Vec<Ask>) {
        if let Stage::Body(_) = self.stage {
            self.refuse_body(BodyError::Malformed("its blobs do not open under the keys given"), asks);
            return;
        }
        self.refused_files += 1;
        self.walks.remove(&part.file);
        for parts in self.in_hand.values_mut() {
            let before = parts.len();
            parts.retain(|p| p.file != part.file);
            self.in_hand_count -= before - parts.len();
        }
        self.in_hand.retain(|_, parts| !parts.is_empty());
        let (channel, sequence) = (self.channel, self.sequence);
        asks.push(Ask::Event(Event::FileRefused { channel, sequence, file: part.file }));
    }

    /// Goes on as far as what is stored allows.
    fn advance(&mut self, asks: &mut Vec<Ask>) {
        self.finish_walks(asks);
        if self.in_hand_count <= WANTED_PER_FETCH_MAX / 2 && !matches!(self.stage, Stage::Reading { .. }) {
            self.refill();
        }
        if !self.checking && !self.to_check.is_empty() {
            self.checking = true;
            asks.push(Ask::Have(core::mem::take(&mut self.to_check)));
        }
        // Files without blobs, such as an empty chunk list, finish without a step of their own.
        self.finish_walks(asks);
    }

    fn finish_walks(&mut self, asks: &mut Vec<Ask>) {
        let finished: Vec<usize> =
            self.walks.iter().filter(|(_, w)| w.is_finished()).map(|(f, _)| *f).collect();
        for file in finished {
            let walk = self.walks.remove(&file);
            if let (Stage::Body(body), Some(leaves)) = (&self.stage, walk.and_then(|w| w.leaves)) {
                let (body, bytes) = (body.clone(), Vec::new());
                asks.extend(leaves.first().map(|leaf| Ask::Open(leaf.link.clone())));
                self.stage = Stage::Reading { body, leaves, bytes };
            } else {
                let (channel, sequence) = (self.channel, self.sequence);
                asks.push(Ask::Event(Event::FileComplete { channel, sequence, file }));
            }
        }
        if matches!(self.stage, Stage::Files) && self.walks.is_empty() && self.next_file >= self.files {
            self.stage = if self.refused_files == 0 { Stage::Complete } else { Stage::Refused };
        }
    }

    fn on_body_data(&mut self, plain: Option<&[u8]>, asks: &mut Vec<Ask>) {
        let Stage::Reading { body, leaves, bytes } = &mut self.stage else { return };
        let Some(plain) = plain else {
            if self.reopened.insert(body.link.id, 1).is_none() {
                // A blob went missing between being stored and being read: once more from the start.
                let body = body.clone();
                self.blobs_stored = 0;
                self.walks.insert(0, Walk::tree(0, &body, true));
                self.stage = Stage::Body(body);
                self.advance(asks);
            } else {
                self.refuse_body(BodyError::Malformed("its blobs do not open under the keys given"), asks);
            }
            return;
        };
        let rest = usize::try_from(body.size).map_or(usize::MAX, |size| size - bytes.len());
        bytes.extend(&plain[..plain.len().min(rest)]);
        let shape = body.shape;
        let read = bytes.len().div_ceil(shape.plain_len()).max(1);
        if let Some(leaf) = leaves.get(read) {
            asks.push(Ask::Open(leaf.link.clone()));
            return;
        }
        match Manifest::from_cbor_in(shape, bytes) {
            Ok(manifest) => self.begin_files(manifest, asks),
            Err(error) => self.refuse_body(error, asks),
        }
    }

    fn refuse_body(&mut self, error: BodyError, asks: &mut Vec<Ask>) {
        self.stage = Stage::Refused;
        self.walks.clear();
        self.in_hand.clear();
        self.in_hand_count = 0;
        let (channel, sequence) = (self.channel, self.sequence);
        asks.push(Ask::Event(Event::BodyRefused { channel, sequence, error }));
    }

    fn begin_files(&mut self, manifest: Manifest, asks: &mut Vec<Ask>) {
        for file in manifest.files() {
            self.content_bytes = self.content_bytes.saturating_add(file.size);
            self.blobs_total = self.blobs_total.saturating_add(blob_count(&file.reference));
        }
        self.files = manifest.files().count();
        let manifest = Arc::new(manifest);
        self.manifest = Some(manifest.clone());
        self.stage = Stage::Files;
        let (channel, sequence) = (self.channel, self.sequence);
        asks.push(Ask::Event(Event::Manifest { channel, sequence, manifest }));
        self.advance(asks);
    }

    /// Takes blobs in hand, the earlier files' first, up to the bounds.
    fn refill(&mut self) {
        let manifest = self.manifest.clone();
        let mut files = manifest.iter().flat_map(|m| m.files()).enumerate().skip(self.next_file);
        loop {
            for (&file, walk) in &mut self.walks {
                while self.in_hand_count < WANTED_PER_FETCH_MAX {
                    let Some((id, position, node)) = walk.next() else { break };
                    self.in_hand_count += 1;
                    // Also one that is in hand already: who has it may know of this place only.
                    self.to_check.push(id);
                    self.in_hand.entry(id).or_default().push(Part { file, position, node });
                }
            }
            if self.in_hand_count >= WANTED_PER_FETCH_MAX || self.walks.len() >= FILES_AT_ONCE_MAX {
                return;
            }
            let Some((file, entry)) = files.next() else { return };
            self.next_file = file + 1;
            let position = self.next_position;
            let walk = match &entry.reference {
                Reference::Tree(tree) => Walk::tree(position, tree, false),
                Reference::Chunks(chunks) => Walk::chunks(position, chunks.iter().map(|c| c.id).collect()),
            };
            self.next_position = position.saturating_add(blob_count(&entry.reference));
            self.walks.insert(file, walk);
        }
    }

    /// The blobs that v5 readers look for one by one: those of chunk lists.
    pub(super) fn chunk_ids(&self) -> impl Iterator<Item = BlobId> {
        let files = self.manifest.iter().flat_map(|m| m.files());
        files
            .flat_map(|f| match &f.reference {
                Reference::Chunks(chunks) => &chunks[..],
                Reference::Tree(_) => &[],
            })
            .map(|chunk| chunk.id)
    }
}

fn blob_count(reference: &Reference) -> u64 {
    match reference {
        Reference::Tree(tree) => tree.blob_count(),
        Reference::Chunks(chunks) => chunks.len() as u64,
    }
}
