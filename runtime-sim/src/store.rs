//! A host's disk: blobs and durable records. It outlives the node's crash.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Weak};

use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::BlobName;
use megatorrent_core::node::{Job, JobResult, RecordKey, Written};
use megatorrent_core::suite::Suite;

use crate::dice::Dice;
use crate::faults::Bug;
use crate::sparse::Sparse;

/// One in this many reads is hashed, as in the real store, which so finds blobs that its disk has damaged.
const READS_PER_CHECK: u64 = 16;

/// The verified blobs of all stores: equal blobs of many hosts take memory once.
pub(crate) struct Pool {
    known: BTreeMap<BlobName, Weak<Sparse>>,
    /// Whether zeros take memory.
    has_weight: bool,
}

impl Pool {
    pub(crate) fn new(has_weight: bool) -> Self {
        Self { known: BTreeMap::new(), has_weight }
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

/// A host's blobs and records.
pub struct Store {
    blobs: BTreeMap<BlobName, Arc<Sparse>>,
    records: BTreeMap<RecordKey, Vec<u8>>,
    /// Bytes that it took from peers.
    fetched: u64,
    blobs_max: usize,
    failing: bool,
    bug: Option<Bug>,
    /// Blobs that it took although their bytes are wrong, even if a read has removed them since.
    wrong: Vec<BlobName>,
    /// Blobs that a fault has damaged and that were not written anew. A read may have found one out, and lost it.
    rotten: BTreeSet<BlobName>,
}

impl Store {
    pub(crate) fn new(blobs_max: usize) -> Self {
        Self {
            blobs: BTreeMap::new(),
            records: BTreeMap::new(),
            fetched: 0,
            blobs_max,
            failing: false,
            bug: None,
            wrong: Vec::new(),
            rotten: BTreeSet::new(),
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

    /// Flips a bit of a stored blob: peers get a wrong blob from this host until a read finds the damage and loses the blob.
    /// Returns whether the blob is stored.
    pub fn corrupt(&mut self, id: &BlobName) -> bool {
        let Some(stored) = self.blobs.get_mut(id) else { return false };
        if self.rotten.insert(*id) {
            let mut bytes = stored.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            *stored = Arc::new(Sparse::new(&bytes, true));
        }
        true
    }

    /// Loses everything, as if the disk were replaced.
    pub(crate) fn wipe(&mut self) {
        self.blobs.clear();
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
        self.blobs.remove(id).is_some()
    }

    /// Opens a stored blob; returns its plaintext.
    pub(crate) fn open<S: Suite>(&self, blob: &BlobRef) -> Option<Vec<u8>> {
        let mut bytes = self.blob(&blob.root.into())?;
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
        if self.blobs.len() >= self.blobs_max && !self.blobs.contains_key(&id) {
            return Written::NoSpace;
        }
        if !matches {
            self.wrong.push(id);
        }
        self.rotten.remove(&id);
        self.blobs.insert(id, if matches { pool.intern(id, bytes) } else { pool.keep(bytes) });
        Written::Stored
    }

    /// Reads a blob, which may find the blob damaged and lose it.
    fn check_read(&mut self, id: &BlobName, dice: &mut Dice) {
        if self.rotten.contains(id) && dice.below(READS_PER_CHECK) == 0 {
            self.blobs.remove(id);
        }
    }

    /// Does a job of the disk. The dice say which reads are hashed.
    ///
    /// # Panics
    /// On a DHT job, which no disk does.
    pub(crate) fn perform<S: Suite>(&mut self, pool: &mut Pool, dice: &mut Dice, job: Job) -> JobResult {
        match job {
            Job::ReadBlob(id, mut buffer) => {
                self.check_read(&id, dice);
                let stored = self.blobs.get(&id);
                if let Some(bytes) = stored {
                    bytes.copy_to(0, buffer.blob_mut());
                    buffer.blob_mut()[0] ^= u8::from(self.bug == Some(Bug::ReadWrong));
                }
                let filled = stored.is_some();
                JobResult::BlobRead(buffer, filled)
            }
            Job::WriteBlob(id, buffer) => {
                let written = self.fetch::<S>(pool, id, buffer.blob());
                let is_unsaid = self.bug == Some(Bug::StoredUnsaid) && written == Written::Stored;
                JobResult::BlobWritten(buffer, if is_unsaid { Written::Failed } else { written })
            }
            Job::Have(ids) => JobResult::Have(ids.iter().map(|id| self.blobs.contains_key(id)).collect()),
            Job::OpenBlob(blob) => {
                let plain = self.open::<S>(&blob);
                if plain.is_none() {
                    self.remove(&blob.root.into());
                }
                JobResult::Opened(plain)
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
