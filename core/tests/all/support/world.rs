//! The surroundings of a node: a store in memory, and a DHT whose results a test chooses.

use std::collections::BTreeMap;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{InfoHash, JobId};
use megatorrent_core::node::{DhtOp, Input, Job, JobResult, RecordKey};
use megatorrent_core::time::Instant;

use super::store::Store;

/// DHT nodes that store a put item.
const REPLICAS: u32 = 20;

/// The store and the DHT. Both are empty at first, and accept everything.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) store: Store,
    /// The records that were stored (`None`: deleted), oldest first.
    pub(crate) records: Vec<(RecordKey, Option<Vec<u8>>)>,
    /// Whether records cannot be stored.
    pub(crate) refuses_records: bool,
    /// The head that a look-up of each channel finds, and at how many nodes.
    pub(crate) heads: BTreeMap<PublicKey, (SignedItem, usize)>,
    /// Look-ups that find no head before they do.
    pub(crate) misses: u32,
    /// Whether look-ups find items that were put.
    pub(crate) is_kept: bool,
    /// The sequences that were put, and when.
    pub(crate) puts: Vec<(Instant, i64)>,
    /// When which channels' heads were looked up.
    pub(crate) gets: Vec<(Instant, PublicKey)>,
    /// When peers were looked up under which info-hashes.
    pub(crate) lookups: Vec<(Instant, InfoHash)>,
    /// When which info-hashes were announced.
    pub(crate) announces: Vec<(Instant, InfoHash)>,
    /// The newest look-up of peers. It goes on until the next one begins, so that a test can choose its results.
    pub(crate) lookup: Option<JobId>,
    /// Whether look-ups of peers end at once instead, without a peer.
    pub(crate) ends_lookups: bool,
}

impl World {
    /// Returns a job's inputs: the DHT's findings, then the answer.
    pub(crate) fn answer(&mut self, now: Instant, id: JobId, job: Job) -> Vec<Input> {
        let result = match job {
            Job::Persist(..) if self.refuses_records => JobResult::Persisted(false),
            Job::Persist(key, value) => {
                self.records.push((key, value));
                JobResult::Persisted(true)
            }
            Job::Dht(op) => return self.answer_dht(now, id, op),
            of_store => self.store.answer(of_store),
        };
        vec![Input::Done(id, result)]
    }

    fn answer_dht(&mut self, now: Instant, id: JobId, op: DhtOp) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut done = Some(id);
        match op {
            DhtOp::Get(channel) => {
                self.gets.push((now, channel));
                let found = self.heads.get(&channel).cloned();
                let is_missed = self.misses > 0 && found.is_some();
                self.misses -= u32::from(is_missed);
                let (item, copies) = found.filter(|_| !is_missed).unzip();
                inputs.extend(
                    item.into_iter().cycle().take(copies.unwrap_or(0)).map(|i| Input::DhtItem(id, i)),
                );
            }
            DhtOp::Put(item, _) => {
                self.puts.push((now, item.seq));
                if self.is_kept {
                    self.heads.insert(item.key, (item, REPLICAS as usize));
                }
                return vec![Input::Done(id, JobResult::DhtPut(Ok(REPLICAS)))];
            }
            DhtOp::Lookup(hash) => {
                self.lookups.push((now, hash));
                if !self.ends_lookups {
                    done = self.lookup.replace(id);
                }
            }
            DhtOp::Announce(hash, _) => self.announces.push((now, hash)),
        }
        inputs.extend(done.map(|id| Input::Done(id, JobResult::DhtDone(Ok(())))));
        inputs
    }

    /// The records that a driver hands in at the next start.
    pub(crate) fn kept_records(&self) -> BTreeMap<RecordKey, Vec<u8>> {
        let mut kept = BTreeMap::new();
        for (key, value) in &self.records {
            match value {
                Some(value) => drop(kept.insert(key.clone(), value.clone())),
                None => drop(kept.remove(key)),
            }
        }
        kept
    }

    /// The records that were deleted.
    pub(crate) fn deleted(&self) -> Vec<RecordKey> {
        self.records.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.clone()).collect()
    }
}
