//! The answer to each method.

mod folders;
mod identities;
mod node;
mod subscriptions;

use std::fs;
use std::path::Path;

use crate::api::{
    Answers, ApiError, CancelJob, Fetch, GetJob, GetJobs, Ingest, JobInfo, Jobs, Publish, Verify,
};

use super::Service;
use super::jobs::Request;
use crate::exit::Failure;

/// Most things that one answer lists, whatever a caller asks for.
const LISTED_MAX: usize = 10_000;

/// The part of a list that a caller asked for, and how long the list is.
fn page<T>(all: Vec<T>, offset: u64, limit: Option<u64>) -> (Vec<T>, u64) {
    let total = all.len() as u64;
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let limit = limit.map_or(LISTED_MAX, |limit| number(limit).min(LISTED_MAX));
    (all.into_iter().skip(number(offset)).take(limit).collect(), total)
}

/// Checks the path of a file that a call names: the node may run in another folder than its caller.
fn check_absolute(path: &str) -> Result<(), Failure> {
    if Path::new(path).is_absolute() {
        return Ok(());
    }
    Err(Failure::usage(format!("{path:?}: name the file by its absolute path")))
}

/// Checks a file that is to be read: a pipe or a device may never end. One that is not there is its reader's business.
async fn check_readable(path: &str) -> Result<(), Failure> {
    check_absolute(path)?;
    let named = path.to_owned();
    match smol::unblock(move || fs::metadata(named)).await {
        Ok(metadata) if !metadata.is_file() => Err(Failure::usage(format!("{path:?} is no regular file"))),
        _ => Ok(()),
    }
}

impl Answers<Ingest> for Service {
    async fn answer(&self, call: Ingest) -> Result<JobInfo, ApiError> {
        check_readable(&call.file).await?;
        if let Some(identity) = &call.identity {
            check_readable(identity).await?;
        }
        self.add_job(Request::Ingest(call)).await
    }
}

impl Answers<Publish> for Service {
    async fn answer(&self, call: Publish) -> Result<JobInfo, ApiError> {
        check_readable(&call.identity).await?;
        self.add_job(Request::Publish(call)).await
    }
}

impl Answers<Verify> for Service {
    async fn answer(&self, call: Verify) -> Result<JobInfo, ApiError> {
        self.add_job(Request::Verify(call)).await
    }
}

impl Answers<Fetch> for Service {
    async fn answer(&self, call: Fetch) -> Result<JobInfo, ApiError> {
        self.add_job(Request::Fetch(call)).await
    }
}

impl Answers<GetJobs> for Service {
    async fn answer(&self, call: GetJobs) -> Result<Jobs, ApiError> {
        let jobs = self.0.jobs.borrow();
        let jobs = jobs.all().filter(|job| !call.active || !job.state.is_over());
        Ok(Jobs { jobs: jobs.collect() })
    }
}

impl Answers<GetJob> for Service {
    async fn answer(&self, call: GetJob) -> Result<JobInfo, ApiError> {
        self.0.jobs.borrow().info(call.job)
    }
}

impl Answers<CancelJob> for Service {
    async fn answer(&self, call: CancelJob) -> Result<JobInfo, ApiError> {
        self.cancel_job(call.job).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_whatever_is_asked_for() {
        assert_eq!(page(vec![1, 2, 3], 1, Some(1)), (vec![2], 3));
        assert_eq!(page(vec![1, 2, 3], 7, None), (vec![], 3));
        assert_eq!(page(vec![0; LISTED_MAX + 1], 0, Some(u64::MAX)).0.len(), LISTED_MAX);
    }
}
