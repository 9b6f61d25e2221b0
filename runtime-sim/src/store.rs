//! A host's disk: blobs and durable records. It outlives the node's crash.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Weak};

use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::{BlobId, BlobName, Root};
use megatorrent_core::node::{Claim, Held, Job, JobResult, RecordKey, StoreNews, Written};
use megatorrent_core::parts::{Mask, PARTS, Values};
use megatorrent_core::suite::Suite;

use crate::dice::Dice;
use crate::faults::Bug;
use crate::sparse::Sparse;

/// One in this many reads of whole blobs is hashed, as in the real store, which so finds blobs that its disk has damaged.
const READS_PER_CHECK: u64 = 16;

/// The verified blobs of all stores: equal blobs of many hosts take memory once.
pub(crate) struct Pool {
    known: BTreeMap<BlobName, Weak<Sparse>>,
    /// The ids that authors tell of native blobs.
    told_ids: BTreeMap<Root, BlobId>,
    /// Whether zeros take memory.
    has_weight: bool,
}

impl Pool {
    pub(crate) fn new(has_weight: bool) -> Self {
        Self { known: BTreeMap::new(), told_ids: BTreeMap::new(), has_weight }
    }

    /// Notes the id that an author tells of a native blob: a plain v5 peer knows it by that alone.
    pub(crate) fn note_id(&mut self, root: Root, id: BlobId) {
        self.told_ids.insert(root, id);
    }

    /// The names under which a store may hold a native blob.
    pub(crate) fn names_of(&self, root: Root) -> impl Iterator<Item = BlobName> {
        let listed = self.told_ids.get(&root).copied().map(BlobName::V5);
        [BlobName::Native(root)].into_iter().chain(listed)
    }

    fn intern(&mut self, id: BlobName, bytes: &[u8]) -> Arc<Sparse> {
        if let Some(known) = self.known.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        let fresh = self.keep(bytes);
        self.known.insert(id, Arc::downgrade(&fresh));
        fresh
    }

    fn keep(&self, bytes: &[u8]) -> Arc<Sparse> {
        Arc::new(Sparse::new(bytes, self.has_weight))
    }
}

/// A native blob of which parts are stored.
struct Partial {
    values: Arc<Values>,
    parts: BTreeMap<usize, Sparse>,
}

impl Partial {
    fn mask(&self) -> Mask {
        self.parts.keys().fold(Mask::NONE, |mask, part| mask | Mask::one(*part))
    }
}

/// A host's blobs and records.
pub struct Store {
    blobs: BTreeMap<BlobName, Arc<Sparse>>,
    /// Of the native ones.
    values: BTreeMap<Root, Arc<Values>>,
    partials: BTreeMap<Root, Partial>,
    /// Which native blob has an id, as its author says.
    ids: BTreeMap<BlobId, Root>,
    records: BTreeMap<RecordKey, Vec<u8>>,
    /// Bytes that it took from peers.
    fetched: u64,
    blobs_max: usize,
    failing: bool,
    lying: bool,
    bug: Option<Bug>,
    /// Blobs that it took although their bytes are wrong, even if a read has removed them since.
    wrong: Vec<BlobName>,
    /// Blobs that a fault has damaged and that were not written anew. A read may have found one out, and lost it.
    rotten: BTreeSet<BlobName>,
    /// The disk is not there.
    is_away: bool,
    /// What the node is to be told of it.
    news: Vec<StoreNews>,
}

impl Store {
    pub(crate) fn new(blobs_max: usize) -> Self {
        Self {
            blobs: BTreeMap::new(),
            values: BTreeMap::new(),
            partials: BTreeMap::new(),
            ids: BTreeMap::new(),
            records: BTreeMap::new(),
            fetched: 0,
            blobs_max,
            failing: false,
            lying: false,
            bug: None,
            wrong: Vec::new(),
            rotten: BTreeSet::new(),
            is_away: false,
            news: Vec::new(),
        }
    }

    /// Blobs that were stored although their bytes are wrong.
    pub(crate) fn taken_wrongly(&self) -> &[BlobName] {
        &self.wrong
    }

    /// Blobs that a fault has damaged and that were not written anew. A read may have found one out, and lost it.
    pub(crate) fn rotten(&self) -> &BTreeSet<BlobName> {
        &self.rotten
    }

    /// Number of blobs stored.
    pub fn blob_count(&self) -> usize {
        self.blobs.len()
    }

    /// The ids stored, in order.
    pub fn blob_ids(&self) -> impl Iterator<Item = BlobName> {
        self.blobs.keys().copied()
    }

    /// A blob's bytes, sealed as they are stored.
    pub fn blob(&self, id: &BlobName) -> Option<Vec<u8>> {
        self.blobs.get(id).map(|blob| blob.to_vec())
    }

    /// The parts of a blob that are stored.
    pub fn parts(&self, name: &BlobName) -> Mask {
        if self.blobs.contains_key(name) {
            return Mask::ALL;
        }
        name.root().and_then(|root| self.partials.get(&root)).map_or(Mask::NONE, Partial::mask)
    }

    /// Whether a blob, or a part of one, is stored as it should be.
    pub(crate) fn has<S: Suite>(&self, (name, part): (BlobName, Option<usize>)) -> bool {
        let Some(part) = part else {
            return self.blob(&name).is_some_and(|blob| S::verify_blob(&name, &blob));
        };
        let is_whole = self.blobs.contains_key(&name) && !self.rotten.contains(&name);
        let partial = name.root().and_then(|root| self.partials.get(&root));
        is_whole || partial.is_some_and(|partial| partial.parts.contains_key(&part))
    }

    /// The part of a blob's bytes within `range`; `None` too where the blob ends before that.
    pub(crate) fn range(&self, id: &BlobName, range: Range<usize>) -> Option<Vec<u8>> {
        let blob = self.blobs.get(id).filter(|blob| range.end <= blob.len())?;
        let mut bytes = vec![0; range.len()];
        blob.copy_to(range.start, &mut bytes);
        Some(bytes)
    }

    /// Whether both stores hold the same bytes as a blob. For bytes that were right when they were written, that takes no time.
    pub(crate) fn has_same(&self, other: &Self, id: &BlobName) -> bool {
        match (self.blobs.get(id), other.blobs.get(id)) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
            _ => false,
        }
    }

    /// The durable records, in order.
    pub fn records(&self) -> impl Iterator<Item = (&RecordKey, &[u8])> {
        self.records.iter().map(|(key, value)| (key, value.as_slice()))
    }

    /// Gives the store room for `blobs_max` blobs; those it holds stay.
    pub fn set_room(&mut self, blobs_max: usize) {
        self.blobs_max = blobs_max;
    }

    /// Makes every write fail, or work again.
    pub fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
    }

    /// Takes the disk away with all that it holds, or brings it back.
    pub(crate) fn set_away(&mut self, is_away: bool) {
        (self.is_away, self.failing) = (is_away, is_away);
    }

    /// What the node is to be told of the store since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<StoreNews> {
        std::mem::take(&mut self.news)
    }

    /// Flips a bit of all that its node reads to send, and tells it the right values, or reads truly again: so a node lies that
    /// means well.
    pub fn set_lying(&mut self, lying: bool) {
        self.lying = lying;
    }

    /// Flips a bit of a stored blob, in its first part: a read finds the damage, and loses the blob. Returns whether the blob is
    /// stored.
    pub fn corrupt(&mut self, id: &BlobName) -> bool {
        let Some(stored) = self.blobs.get_mut(id) else { return false };
        if self.rotten.insert(*id) {
            let mut bytes = stored.to_vec();
            bytes[0] ^= 1;
            *stored = Arc::new(Sparse::new(&bytes, true));
        }
        true
    }

    /// Loses everything, as if the disk were replaced.
    pub(crate) fn wipe(&mut self) {
        self.blobs.clear();
        self.values.clear();
        self.partials.clear();
        self.ids.clear();
        self.rotten.clear();
        self.records.clear();
    }

    /// Plants a bug, or none.
    pub(crate) fn plant(&mut self, bug: Option<Bug>) {
        self.bug = bug;
    }

    /// Loses a blob; returns whether it was stored.
    pub fn remove(&mut self, id: &BlobName) -> bool {
        self.rotten.remove(id);
        if let Some(root) = id.root() {
            self.values.remove(&root);
            self.partials.remove(&root);
        }
        self.blobs.remove(id).is_some()
    }

    /// Opens a native blob; returns its plaintext.
    pub(crate) fn open<S: Suite>(&self, blob: &BlobRef) -> Option<Vec<u8>> {
        self.open_as::<S>(blob.root.into(), blob)
    }

    /// Opens a native blob that is stored under some name; returns its plaintext.
    pub(crate) fn open_as<S: Suite>(&self, name: BlobName, blob: &BlobRef) -> Option<Vec<u8>> {
        let mut bytes = self.blob(&name)?;
        if !S::open_blob(blob, &mut bytes) {
            return None;
        }
        bytes.truncate(S::PLAIN_LEN);
        Some(bytes)
    }

    /// Bytes that it took from peers, even if they are lost since.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Checks and stores a blob that a peer sent.
    pub(crate) fn fetch<S: Suite>(&mut self, pool: &mut Pool, id: BlobName, bytes: &[u8]) -> Written {
        let written = self.write::<S>(pool, id, bytes);
        if written == Written::Stored {
            self.fetched += bytes.len() as u64;
        }
        written
    }

    /// Checks and stores a blob.
    pub(crate) fn write<S: Suite>(&mut self, pool: &mut Pool, id: BlobName, bytes: &[u8]) -> Written {
        let matches = S::verify_blob(&id, bytes);
        if !matches && self.bug != Some(Bug::StoreUnchecked) {
            return Written::Mismatch;
        }
        if self.failing {
            return Written::Failed;
        }
        if !self.has_room_for(&id) {
            return Written::NoSpace;
        }
        if !matches {
            self.wrong.push(id);
        }
        self.rotten.remove(&id);
        if let Some(root) = id.root() {
            self.values.entry(root).or_insert_with(|| Arc::new(S::values_of(bytes)));
            self.partials.remove(&root);
        }
        self.blobs.insert(id, if matches { pool.intern(id, bytes) } else { pool.keep(bytes) });
        Written::Stored
    }

    fn has_room_for(&self, name: &BlobName) -> bool {
        let is_begun = name.root().is_some_and(|root| self.partials.contains_key(&root));
        let used = self.blobs.len() + self.partials.len();
        used < self.blobs_max || is_begun || self.blobs.contains_key(name)
    }

    // --- parts ----------------------------------------------------------------------------------------------

    fn write_part<S: Suite>(
        &mut self,
        pool: &Pool,
        (root, part): (Root, usize),
        values: &Arc<Values>,
        bytes: &[u8],
    ) -> Written {
        if !S::check_part(values, part, bytes) && self.bug != Some(Bug::StoreUnchecked) {
            return Written::Mismatch;
        }
        if self.failing {
            return Written::Failed;
        }
        if !self.has_room_for(&root.into()) {
            return Written::NoSpace;
        }
        self.fetched += bytes.len() as u64;
        if !self.blobs.contains_key(&root.into()) {
            let begun = || Partial { values: Arc::clone(values), parts: BTreeMap::new() };
            let partial = self.partials.entry(root).or_insert_with(begun);
            partial.parts.insert(part, Sparse::new(bytes, pool.has_weight));
        }
        Written::Stored
    }

    /// Reads a part, which finds out where it is damaged and loses the blob.
    fn read_part<S: Suite>(&mut self, root: Root, part: usize, buf: &mut [u8]) -> Option<Box<Values>> {
        let name = BlobName::Native(root);
        if let Some(blob) = self.blobs.get(&name) {
            blob.copy_to(part * S::PART_LEN, buf);
            let values = self.values.get(&root).filter(|values| S::check_part(values, part, buf));
            let values = values.map(|values| Box::new((**values).clone()));
            if values.is_none() {
                self.blobs.remove(&name);
                self.values.remove(&root);
                self.news.push(StoreNews::Damaged);
            }
            return values;
        }
        let partial = self.partials.get(&root)?;
        partial.parts.get(&part)?.copy_to(0, buf);
        Some(Box::new((*partial.values).clone()))
    }

    /// Makes a blob whole, and says which claims are right.
    fn finish<S: Suite>(
        &mut self,
        pool: &mut Pool,
        root: Root,
        claims: &[Claim],
    ) -> Result<Vec<bool>, Written> {
        let name = BlobName::Native(root);
        if self.failing {
            return Err(Written::Failed);
        }
        if !self.blobs.contains_key(&name) {
            let partial = self.partials.get_mut(&root).ok_or(Written::Mismatch)?;
            let is_made = claims.iter().any(|claim| make_rest::<S>(pool, partial, claim));
            let partial = self.partials.remove(&root).ok_or(Written::Mismatch)?;
            if !is_made && partial.mask() != Mask::ALL {
                return Ok(vec![false; claims.len()]);
            }
            self.move_partial::<S>(pool, root, &partial);
        }
        // What is damaged is gone, and comes again.
        claims.iter().map(|claim| self.is_right::<S>(root, claim).ok_or(Written::Mismatch)).collect()
    }

    fn move_partial<S: Suite>(&mut self, pool: &mut Pool, root: Root, partial: &Partial) {
        let name = BlobName::Native(root);
        let known = pool.known.get(&name).and_then(Weak::upgrade);
        let known = known.filter(|_| self.bug != Some(Bug::StoreUnchecked));
        let blob = known.unwrap_or_else(|| {
            let mut bytes = vec![0; S::BLOB_LEN];
            for (part, sparse) in &partial.parts {
                sparse.copy_to(0, &mut bytes[part * S::PART_LEN..][..S::PART_LEN]);
            }
            bytes[S::PLAIN_LEN..].copy_from_slice(partial.values.tag());
            if S::verify_blob(&name, &bytes) {
                pool.intern(name, &bytes)
            } else {
                self.wrong.push(name);
                pool.keep(&bytes)
            }
        });
        self.values.insert(root, Arc::clone(&partial.values));
        self.rotten.remove(&name);
        self.blobs.insert(name, blob);
    }

    /// Whether a whole blob holds what somebody says. `None`: it is not stored, or was damaged and is lost.
    fn is_right<S: Suite>(&mut self, root: Root, claim: &Claim) -> Option<bool> {
        let Claim::Content(key, len) = claim else { return Some(true) };
        let mut buf = vec![0; S::PART_LEN];
        for part in filled::<S>(*len) {
            let values = self.read_part::<S>(root, part, &mut buf)?;
            if !S::complete_part(key, &values, *len as usize, part, &mut buf) {
                return Some(false);
            }
        }
        Some(true)
    }

    fn held(&self, name: &BlobName) -> Held {
        if self.is_away {
            return Held::OutOfReach;
        }
        let partial = name.root().and_then(|root| self.partials.get(&root));
        match (self.blobs.contains_key(name), partial) {
            (true, _) => Held::Whole,
            (false, Some(partial)) => Held::Parts(partial.mask(), Box::new((*partial.values).clone())),
            (false, None) => Held::Nothing,
        }
    }

    // --- jobs -----------------------------------------------------------------------------------------------

    /// Reads a whole blob by its id, which may find it damaged and lose it.
    fn read_by_id<S: Suite>(&mut self, dice: &mut Dice, id: BlobId, buf: &mut [u8]) -> bool {
        let root = self.ids.get(&id).copied();
        let names = [Some(BlobName::V5(id)), root.map(BlobName::Native)];
        let Some(name) = names.into_iter().flatten().find(|name| self.blobs.contains_key(name)) else {
            return false;
        };
        if self.rotten.contains(&name) && dice.below(READS_PER_CHECK) == 0 {
            self.blobs.remove(&name);
            return false;
        }
        let Some(blob) = self.blobs.get(&name) else { return false };
        blob.copy_to(0, buf);
        matches!(name, BlobName::V5(_)) || S::id_of(buf) == id
    }

    /// Does a job of the disk. The dice say which reads are hashed.
    ///
    /// # Panics
    /// On a DHT job, which no disk does.
    pub(crate) fn perform<S: Suite>(&mut self, pool: &mut Pool, dice: &mut Dice, job: Job) -> JobResult {
        let is_wrong = self.lying || self.bug == Some(Bug::ReadWrong);
        let is_unsaid = self.bug == Some(Bug::StoredUnsaid);
        let said = |written| if is_unsaid && written == Written::Stored { Written::Failed } else { written };
        match job {
            Job::OpenBlob(..) if self.is_away => JobResult::OutOfReach,
            Job::ReadBlob(_, buffer) if self.is_away => JobResult::BlobRead(buffer, false),
            Job::ReadPart(_, _, buffer) if self.is_away => JobResult::PartRead(buffer, None),
            Job::ReadBlob(id, mut buffer) => {
                let found = self.read_by_id::<S>(dice, id, buffer.blob_mut());
                buffer.blob_mut()[0] ^= u8::from(is_wrong);
                JobResult::BlobRead(buffer, found)
            }
            Job::WriteBlob(name, id, buffer) => {
                let written = self.fetch::<S>(pool, name, buffer.blob());
                let is_of_id = written == Written::Mismatch && S::id_of(buffer.blob()) == id;
                JobResult::BlobWritten(buffer, if is_of_id { Written::NotOfRoot } else { said(written) })
            }
            Job::ReadPart(root, part, mut buffer) => {
                let values = self.read_part::<S>(root, part, buffer.blob_mut());
                buffer.blob_mut()[0] ^= u8::from(is_wrong);
                JobResult::PartRead(buffer, values)
            }
            Job::WritePart(root, part, values, buffer, _) => {
                let written = self.write_part::<S>(pool, (root, part), &values, buffer.blob());
                JobResult::PartWritten(buffer, said(written))
            }
            Job::FinishBlob(root, claims) => JobResult::BlobFinished(self.finish::<S>(pool, root, &claims)),
            Job::Have(names, _) => JobResult::Have(names.iter().map(|name| self.held(name)).collect()),
            Job::OpenBlob(blob, len) => {
                let is_right = self.is_right::<S>(blob.root, &Claim::Content(blob.key.clone(), len));
                let mut buf = vec![0; S::PART_LEN];
                let mut content = 0..(len as usize).div_ceil(S::PART_LEN);
                let is_here = content.all(|part| self.read_part::<S>(blob.root, part, &mut buf).is_some());
                let plain = self.open::<S>(&blob).filter(|_| is_here && is_right == Some(true));
                JobResult::Opened(plain.map(|plain| plain[..len as usize].to_vec()))
            }
            Job::NoteIds(ids) => {
                self.ids.extend(ids);
                JobResult::IdsNoted
            }
            Job::Persist(key, value) => JobResult::Persisted(self.persist(key, value)),
            Job::Dht(_) => unreachable!("a DHT job is dispatched to the DHT"),
        }
    }

    fn persist(&mut self, key: RecordKey, value: Option<Vec<u8>>) -> bool {
        if self.failing {
            return false;
        }
        match value {
            Some(value) => self.records.insert(key, value),
            None => self.records.remove(&key),
        };
        true
    }
}

/// The parts that hold filling where the content has `len` bytes.
fn filled<S: Suite>(len: u32) -> Range<usize> {
    (len as usize / S::PART_LEN).min(PARTS)..PARTS
}

/// Makes the parts that are missing of a blob. `false`: they do not come out so, or content is missing.
fn make_rest<S: Suite>(pool: &Pool, partial: &mut Partial, claim: &Claim) -> bool {
    let Claim::Content(key, len) = claim else { return partial.mask() == Mask::ALL };
    if !partial.mask().covers(Mask::first((*len as usize).div_ceil(S::PART_LEN))) {
        return false;
    }
    let mut made = Vec::new();
    for part in filled::<S>(*len) {
        let mut buf = vec![0; S::PART_LEN];
        if let Some(known) = partial.parts.get(&part) {
            known.copy_to(0, &mut buf);
        }
        if !S::complete_part(key, &partial.values, *len as usize, part, &mut buf) {
            return false;
        }
        made.push((part, Sparse::new(&buf, pool.has_weight)));
    }
    partial.parts.extend(made);
    true
}
