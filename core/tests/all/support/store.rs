//! A store in memory: whole blobs, blobs under way with their values, and what authors call native blobs by.

use std::collections::{BTreeMap, BTreeSet};

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::buffer::Buffer;
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret};
use megatorrent_core::node::{Claim, Held, Job, JobResult, Written};
use megatorrent_core::parts::{self, Mask, PART_LEN, PARTS, Values};

use super::content::BlobMap;

/// A native blob of which some parts are here.
#[derive(Clone)]
pub(crate) struct UnderWay {
    pub(crate) values: Values,
    pub(crate) here: Mask,
    /// A whole blob's bytes, of which those of other parts mean nothing.
    bytes: Vec<u8>,
}

impl UnderWay {
    pub(crate) fn new(values: Values) -> Self {
        let mut bytes = vec![0; BLOB_LEN];
        bytes[PLAIN_LEN..].copy_from_slice(values.tag());
        Self { values, here: Mask::NONE, bytes }
    }

    /// A blob that is whole.
    fn whole(bytes: &[u8]) -> Self {
        Self { values: Values::of(bytes), here: Mask::ALL, bytes: bytes.to_vec() }
    }

    /// Some parts of a blob.
    pub(crate) fn of(blob: &[u8], here: Mask) -> Self {
        Self { here, ..Self::whole(blob) }
    }

    fn part(&self, part: usize) -> &[u8] {
        &self.bytes[part * PART_LEN..][..PART_LEN]
    }

    fn add(&mut self, part: usize, bytes: &[u8]) {
        self.bytes[part * PART_LEN..][..PART_LEN].copy_from_slice(bytes);
        self.here = self.here | Mask::one(part);
    }

    /// Makes the filling, and says whether that gives the blob.
    fn fill(&mut self, key: &Secret, content_len: usize) -> bool {
        let mut filled = self.bytes.clone();
        let mut parts = filled[..PLAIN_LEN].chunks_exact_mut(PART_LEN).enumerate();
        let is_right = parts.all(|(n, part)| parts::complete_part(key, &self.values, content_len, n, part));
        if is_right {
            (self.bytes, self.here) = (filled, Mask::ALL);
        }
        is_right
    }
}

#[derive(Clone, Default)]
pub(crate) struct Store {
    /// The blobs that are whole.
    pub(crate) blobs: BlobMap,
    pub(crate) under_way: BTreeMap<Root, UnderWay>,
    /// What authors call native blobs by: several may say the same of different ones.
    pub(crate) noted: BTreeMap<BlobId, BTreeSet<Root>>,
    /// What becomes of everything that is to be written; `None`: what should.
    pub(crate) fails: Option<Written>,
    /// How many parts and whole blobs were written.
    pub(crate) writes: usize,
    values: BTreeMap<Root, Values>,
}

impl Store {
    /// What of a native blob is here.
    pub(crate) fn here(&self, root: &Root) -> Mask {
        if self.blobs.contains_key(&(*root).into()) {
            return Mask::ALL;
        }
        self.under_way.get(root).map_or(Mask::NONE, |it| it.here)
    }

    /// Does a job of the store's.
    ///
    /// # Panics
    /// Where it is another's.
    pub(crate) fn answer(&mut self, job: Job) -> JobResult {
        match job {
            Job::ReadBlob(id, mut buffer) => {
                let found = self.find(&id);
                if let Some(blob) = found {
                    buffer.blob_mut().copy_from_slice(blob);
                }
                let is_found = found.is_some();
                JobResult::BlobRead(buffer, is_found)
            }
            Job::WriteBlob(name, id, buffer) => {
                let written = self.write_blob(name, id, buffer.blob());
                JobResult::BlobWritten(buffer, written)
            }
            Job::ReadPart(root, part, buffer) => self.read_part(root, part, buffer),
            Job::WritePart(root, part, values, buffer, _) => {
                let written = self.write_part(root, part, &values, buffer.blob());
                JobResult::PartWritten(buffer, written)
            }
            Job::FinishBlob(root, claims) => JobResult::BlobFinished(self.finish(root, &claims)),
            Job::Have(names, _) => JobResult::Have(names.iter().map(|name| self.held(name)).collect()),
            Job::NoteIds(ids) => {
                for (id, root) in ids {
                    self.noted.entry(id).or_default().insert(root);
                }
                JobResult::IdsNoted
            }
            Job::OpenBlob(blob, len) => JobResult::Opened(self.open(&blob, len as usize)),
            Job::Persist(..) | Job::Dht(_) => panic!("not a store's job: {job:?}"),
        }
    }

    /// The blob that has an id, whatever its author says.
    fn find(&self, id: &BlobId) -> Option<&Vec<u8>> {
        let native = self.noted.get(id).into_iter().flatten();
        let native = native.filter_map(|root| self.blobs.get(&(*root).into()));
        self.blobs.get(&(*id).into()).or_else(|| native.into_iter().find(|blob| blob::id(blob) == *id))
    }

    fn held(&self, name: &BlobName) -> Held {
        let under_way = name.root().and_then(|root| self.under_way.get(&root));
        match under_way {
            _ if self.blobs.contains_key(name) => Held::Whole,
            Some(it) => Held::Parts(it.here, Box::new(it.values.clone())),
            None => Held::Nothing,
        }
    }

    fn write_blob(&mut self, name: BlobName, id: BlobId, blob: &[u8]) -> Written {
        if !blob::verify(&name, blob) {
            let is_asked_for = name.root().is_some() && blob::id(blob) == id;
            return if is_asked_for { Written::NotOfRoot } else { Written::Mismatch };
        }
        if let Some(why) = self.fails {
            return why;
        }
        self.writes += 1;
        self.blobs.insert(name, blob.to_vec());
        name.root().map(|root| self.under_way.remove(&root));
        Written::Stored
    }

    fn read_part(&mut self, root: Root, part: usize, mut buffer: Buffer) -> JobResult {
        let name = BlobName::Native(root);
        let found = match (self.blobs.get(&name), self.under_way.get(&root)) {
            (Some(blob), _) => {
                let values = self.values.entry(root).or_insert_with(|| Values::of(blob));
                Some((&blob[part * PART_LEN..][..PART_LEN], &*values))
            }
            (None, Some(it)) if it.here.has(part) => Some((it.part(part), &it.values)),
            _ => None,
        };
        let right = found.filter(|(bytes, values)| values.check(part, bytes));
        if let Some((bytes, _)) = right {
            buffer.blob_mut().copy_from_slice(bytes);
        }
        let values = right.map(|(_, values)| Box::new(values.clone()));
        JobResult::PartRead(buffer, values)
    }

    fn write_part(&mut self, root: Root, part: usize, values: &Values, bytes: &[u8]) -> Written {
        assert_eq!(values.root(), root, "the node checks what the values give");
        assert!(part < PARTS && bytes.len() == PART_LEN);
        if !values.check(part, bytes) {
            return Written::Mismatch;
        }
        if let Some(why) = self.fails {
            return why;
        }
        self.writes += 1;
        let new = || UnderWay::new(values.clone());
        let it = self.under_way.entry(root).or_insert_with(new);
        if it.values != *values {
            *it = new();
        }
        it.add(part, bytes);
        Written::Stored
    }

    fn finish(&mut self, root: Root, claims: &[Claim]) -> Result<Vec<bool>, Written> {
        let name = BlobName::Native(root);
        let whole = self.blobs.get(&name).map(|blob| UnderWay::whole(blob));
        let mut it = whole.or_else(|| self.under_way.get(&root).cloned()).ok_or(Written::Mismatch)?;
        let needed = |claim: &Claim| match claim {
            Claim::Content(_, len) => parts::needed(*len as usize, PART_LEN),
            Claim::Pack => Mask::ALL,
        };
        if !claims.iter().all(|claim| it.here.covers(needed(claim))) {
            return Err(Written::Mismatch);
        }
        if let Some(why) = self.fails {
            return Err(why);
        }
        let is_right = |claim: &Claim| match claim {
            Claim::Content(key, len) => it.fill(key, *len as usize),
            Claim::Pack => true,
        };
        let rights = claims.iter().map(is_right).collect();
        if it.here == Mask::ALL {
            assert!(blob::verify(&name, &it.bytes), "parts that check give the blob");
            self.under_way.remove(&root);
            self.blobs.insert(name, it.bytes);
        }
        Ok(rights)
    }

    fn open(&self, blob: &BlobRef, len: usize) -> Option<Vec<u8>> {
        let mut plain = self.blobs.get(&blob.root.into())?.clone();
        parts::crypt(&blob.key, 0, &mut plain[..len]);
        let content = plain[..len].to_vec();
        (blob::seal_with_key(&blob.key, &mut plain, len) == blob.root).then_some(content)
    }
}
