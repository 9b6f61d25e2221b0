//! Work that takes a while: each piece with a number, a state, progress and an end, kept over restarts.

pub(crate) mod folder;
pub(crate) mod ingest;
pub(crate) mod publish;
pub(crate) mod verify;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::records::JobRecord;
use crate::api::{self, ApiError, ChannelId, JobId, JobInfo, JobKind, JobState};
use crate::clock;
use crate::exit::{Exit, Failure};

/// Jobs that are kept; of those that are over the oldest makes room. A job is refused where none is over.
const JOBS_MAX: usize = 1_000;
/// Jobs that read and write a lot of bytes run one after the other; of the others so many at once.
pub(super) const LIGHT_JOBS_MAX: usize = 64;

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    Ingest(api::Ingest),
    Publish(api::Publish),
    PublishFolder(api::PublishFolder),
    Verify(api::Verify),
    Fetch(api::Fetch),
}

impl Request {
    fn kind(&self) -> JobKind {
        match self {
            Self::Ingest(_) => JobKind::Ingest,
            Self::Publish(_) => JobKind::Publish,
            Self::PublishFolder(_) => JobKind::PublishFolder,
            Self::Verify(_) => JobKind::Verify,
            Self::Fetch(_) => JobKind::Fetch,
        }
    }

    /// Whether it keeps disk and processors busy.
    pub(super) fn is_heavy(&self) -> bool {
        matches!(self, Self::Ingest(_) | Self::PublishFolder(_) | Self::Verify(_))
    }

    /// Whether it means something without whoever asked for it.
    fn is_durable(&self) -> bool {
        !matches!(self, Self::Fetch(_))
    }

    fn about(&self) -> String {
        match self {
            Self::Ingest(ingest) => ingest.file.clone(),
            Self::Publish(publish) => publish.title.clone(),
            Self::PublishFolder(publish) => publish.title.clone(),
            Self::Verify(_) => "all that is held".into(),
            Self::Fetch(fetch) => fetch.channel.to_string(),
        }
    }

    fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Fetch(fetch) => Some(fetch.channel),
            Self::PublishFolder(publish) => Some(publish.channel),
            Self::Ingest(_) | Self::Publish(_) | Self::Verify(_) => None,
        }
    }
}

/// How far work is: written by the threads that do it, read by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done_bytes: AtomicU64,
    /// 0: not known.
    total_bytes: AtomicU64,
    step: Mutex<String>,
    is_cancelled: AtomicBool,
}

impl Progress {
    pub(crate) fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_step(&self, step: &str) {
        step.clone_into(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Is set when the work is to end.
    pub(crate) fn cancelled(&self) -> &AtomicBool {
        &self.is_cancelled
    }

    pub(crate) fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// `None`: not known.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        Some(self.total_bytes.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    pub(crate) fn step(&self) -> String {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The jobs.
pub(super) struct Jobs {
    by_id: BTreeMap<JobId, Job>,
    next: u64,
    /// Whether jobs are kept over restarts. Those of a node that a command has for itself end with the command.
    are_kept: bool,
}

struct Job {
    record: JobRecord,
    progress: Arc<Progress>,
    told: (u64, String),
}

impl Jobs {
    /// Jobs of earlier runs, where they are kept; those that were not over are to be begun again.
    pub(super) fn restore(records: Vec<JobRecord>, are_kept: bool) -> Self {
        let next = records.iter().map(|record| record.info.id.0 + 1).max().unwrap_or(1);
        let jobs = records.into_iter().filter(|_| are_kept).map(|mut record| {
            if !record.info.state.is_over() {
                record.info.state = JobState::Queued;
                record.info.resumed = true;
                record.info.done_bytes = 0;
            }
            (record.info.id, Job { record, progress: Arc::default(), told: Default::default() })
        });
        Self { by_id: jobs.collect(), next, are_kept }
    }

    /// Whether a job is begun again after a restart.
    pub(super) fn keeps(&self, request: &Request) -> bool {
        self.are_kept && request.is_durable()
    }

    /// Those that are to be begun.
    pub(super) fn queued(&self) -> Vec<JobId> {
        let queued = self.by_id.values().filter(|job| job.record.info.state == JobState::Queued);
        queued.map(|job| job.record.info.id).collect()
    }

    /// A new job, and the one that made room for it, if it was kept.
    pub(super) fn add(&mut self, request: Request) -> Result<(JobRecord, Option<JobId>), Failure> {
        let mut room = None;
        if self.by_id.len() >= JOBS_MAX {
            let over = self.by_id.iter().find(|(_, job)| job.record.info.state.is_over());
            let Some((id, _)) = over else {
                return Err(Failure::new(
                    Exit::Other,
                    "too many jobs are under way; try again when one is over",
                ));
            };
            room = Some(*id);
        }
        let room = room.and_then(|room| self.by_id.remove(&room));
        let room = room.filter(|job| self.keeps(&job.record.request)).map(|job| job.record.info.id);
        let id = JobId(self.next);
        self.next += 1;
        let info = JobInfo {
            id,
            kind: request.kind(),
            about: request.about(),
            channel: request.channel(),
            state: JobState::Queued,
            step: String::new(),
            done_bytes: 0,
            total_bytes: None,
            created_unix_ms: clock::now_ms(),
            ended_unix_ms: None,
            resumed: false,
            result: None,
            error: None,
        };
        let record = JobRecord { info, request };
        let job = Job { record: record.clone(), progress: Arc::default(), told: Default::default() };
        self.by_id.insert(id, job);
        Ok((record, room))
    }

    /// Begins a job, unless it was ended before its turn came.
    pub(super) fn begin(&mut self, id: JobId) -> Option<(Request, Arc<Progress>)> {
        let job = self.by_id.get_mut(&id).filter(|job| job.record.info.state == JobState::Queued)?;
        job.record.info.state = JobState::Running;
        Some((job.record.request.clone(), job.progress.clone()))
    }

    /// The record of a job that ends like this. It is over for others once it is kept and [`Self::close`]d.
    pub(super) fn ended(&self, id: JobId, result: Result<Value, Failure>) -> Option<JobRecord> {
        let job = self.by_id.get(&id).filter(|job| !job.record.info.state.is_over())?;
        let was_cancelled = job.progress.cancelled().load(Ordering::Relaxed);
        let mut record = job.record.clone();
        let info = &mut record.info;
        (info.done_bytes, info.total_bytes) = (job.progress.done_bytes(), job.progress.total_bytes());
        info.ended_unix_ms = Some(clock::now_ms());
        info.step.clear();
        match result {
            Ok(value) => (info.state, info.result) = (JobState::Done, Some(value)),
            Err(_) if was_cancelled => info.state = JobState::Cancelled,
            Err(failure) => (info.state, info.error) = (JobState::Failed, Some(ApiError::from(failure))),
        }
        Some(record)
    }

    /// A job is over, as its record says.
    pub(super) fn close(&mut self, record: JobRecord) {
        if let Some(job) = self.by_id.get_mut(&record.info.id) {
            job.record = record;
        }
    }

    /// Asks a job to end. One whose turn has not come is over at once.
    pub(super) fn cancel(&mut self, id: JobId) -> Result<Option<JobRecord>, ApiError> {
        let job = self.by_id.get_mut(&id).ok_or_else(|| no_job(id))?;
        job.progress.cancel();
        if job.record.info.state != JobState::Queued {
            return Ok(None);
        }
        let ended = self.ended(id, Err(Failure::new(Exit::Other, "cancelled")));
        if let Some(record) = &ended {
            self.close(record.clone());
        }
        Ok(ended)
    }

    /// Whether a job keeps disk and processors busy.
    pub(super) fn is_heavy(&self, id: JobId) -> Result<bool, ApiError> {
        self.by_id.get(&id).map(|job| job.record.request.is_heavy()).ok_or_else(|| no_job(id))
    }

    /// A job as it is.
    pub(super) fn info(&self, id: JobId) -> Result<JobInfo, ApiError> {
        self.by_id.get(&id).map(Job::info).ok_or_else(|| no_job(id))
    }

    /// All jobs, newest first.
    pub(super) fn all(&self) -> impl Iterator<Item = JobInfo> {
        self.by_id.values().rev().map(Job::info)
    }

    /// How many are not over.
    pub(super) fn active(&self) -> usize {
        self.by_id.values().filter(|job| !job.record.info.state.is_over()).count()
    }

    /// Asks all work to end, so that the process can; the records stay as they are.
    pub(super) fn cancel_work(&self) {
        self.by_id.values().for_each(|job| job.progress.cancel());
    }

    /// Those that have moved since the last call.
    pub(super) fn moved(&mut self) -> Vec<JobInfo> {
        let running = self.by_id.values_mut().filter(|job| job.record.info.state == JobState::Running);
        running
            .filter_map(|job| {
                let told = (job.progress.done_bytes(), job.progress.step());
                (std::mem::replace(&mut job.told, told.clone()) != told).then(|| job.info())
            })
            .collect()
    }
}

impl Job {
    fn info(&self) -> JobInfo {
        let mut info = self.record.info.clone();
        if info.state == JobState::Running {
            info.step = self.progress.step();
            (info.done_bytes, info.total_bytes) = (self.progress.done_bytes(), self.progress.total_bytes());
        }
        info
    }
}

fn no_job(id: JobId) -> ApiError {
    ApiError::not_found(format!("there is no job {id}; getJobs lists those that there are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify() -> Request {
        Request::Verify(api::Verify::default())
    }

    #[test]
    fn a_job_that_was_not_over_is_begun_again() {
        let mut jobs = Jobs::restore(Vec::new(), true);
        let (record, _) = jobs.add(verify()).expect("there is room");
        let id = record.info.id;
        jobs.begin(id).expect("its turn has come");
        let mut record = record;
        record.info.state = JobState::Running;
        let mut again = Jobs::restore(vec![record.clone()], true);
        assert_eq!(again.queued(), [id]);
        assert!(again.info(id).expect("it is there").resumed);
        assert!(again.add(verify()).expect("there is room").0.info.id > id);
        let mut of_a_command = Jobs::restore(vec![record], false);
        assert!(of_a_command.queued().is_empty());
        assert!(of_a_command.add(verify()).expect("there is room").0.info.id > id);
    }

    #[test]
    fn the_oldest_that_is_over_makes_room() {
        let mut jobs = Jobs::restore(Vec::new(), true);
        let first = jobs.add(verify()).expect("there is room").0.info.id;
        for _ in 1..JOBS_MAX {
            jobs.add(verify()).expect("there is room");
        }
        assert!(jobs.add(verify()).is_err());
        jobs.begin(first).expect("its turn has come");
        let record = jobs.ended(first, Ok(Value::Null)).expect("it ran");
        jobs.close(record);
        assert_eq!(jobs.add(verify()).expect("there is room").1, Some(first));
    }

    #[test]
    fn what_is_cancelled_before_its_turn_is_not_begun() {
        let mut jobs = Jobs::restore(Vec::new(), true);
        let id = jobs.add(verify()).expect("there is room").0.info.id;
        assert!(jobs.cancel(id).expect("it is there").is_some());
        assert!(jobs.begin(id).is_none());
        assert_eq!(jobs.info(id).expect("it is there").state, JobState::Cancelled);
    }
}
