//! Jobs on their way: each waits for its turn, does its work, and is told and kept when it is over.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::node::Command;
use serde_json::{Value, json};

use super::jobs::verify::Found;
use super::jobs::{Progress, Request, folder, ingest, publish, verify};
use super::{Reporter, Service};
use crate::api::{self, Answers, ApiError, ChannelId, JobId, JobInfo, MarkRead};
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::News;

/// How often a channel that is waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl Service {
    /// Takes a job; it is kept before this returns.
    pub(super) async fn add_job(&self, request: Request) -> Result<JobInfo, ApiError> {
        let is_kept = self.0.jobs.borrow().keeps(&request);
        let (record, room) = self.0.jobs.borrow_mut().add(request)?;
        let id = record.info.id;
        if let Some(room) = room {
            self.0.records.set_job(room, None).await?;
        }
        if is_kept && let Err(failure) = self.0.records.set_job(id, Some(&record)).await {
            let mut jobs = self.0.jobs.borrow_mut();
            let ended = jobs.ended(id, Err(Failure::new(failure.exit, failure.message.clone())));
            if let Some(record) = ended {
                jobs.close(record);
            }
            return Err(failure.into());
        }
        self.tell_job(&record.info);
        self.begin(id);
        Ok(record.info)
    }

    /// Lets a job do its work when its turn comes.
    pub(super) fn begin(&self, id: JobId) {
        self.spawn(|it| async move {
            let Ok(is_heavy) = it.0.jobs.borrow().is_heavy(id) else { return };
            let turns = if is_heavy { &it.0.heavy } else { &it.0.light };
            let turn = turns.acquire_arc().await;
            let Some((request, progress)) = it.0.jobs.borrow_mut().begin(id) else { return };
            let result = it.work(id, request, &progress).await;
            drop(turn);
            it.end_job(id, result).await;
        });
    }

    async fn end_job(&self, id: JobId, result: Result<Value, Failure>) {
        let ended = self.0.jobs.borrow().ended(id, result);
        let Some(record) = ended else { return };
        let is_kept = self.0.jobs.borrow().keeps(&record.request);
        // Whoever sees that it is over may end the process, and the next one would do the work again.
        if is_kept && let Err(failure) = self.0.records.set_job(id, Some(&record)).await {
            self.0.reporter.of_job(id).warn(failure.message);
        }
        let info = record.info.clone();
        self.0.jobs.borrow_mut().close(record);
        self.tell_job(&info);
    }

    pub(super) async fn cancel_job(&self, id: JobId) -> Result<JobInfo, ApiError> {
        let ended = self.0.jobs.borrow_mut().cancel(id)?;
        if let Some(record) = ended {
            let is_kept = self.0.jobs.borrow().keeps(&record.request);
            if is_kept {
                self.0.records.set_job(id, Some(&record)).await?;
            }
            self.tell_job(&record.info);
        }
        self.0.jobs.borrow().info(id)
    }

    async fn work(&self, id: JobId, request: Request, progress: &Arc<Progress>) -> Result<Value, Failure> {
        let node = &self.0.node;
        if matches!(request, Request::Publish(_) | Request::PublishFolder(_)) {
            self.0.has_told.set(true);
        }
        match request {
            Request::Ingest(call) => {
                let (store, progress) = (node.store().clone(), progress.clone());
                let work =
                    move || ingest::run(call.file.as_ref(), &ingest::Wish::of(&call)?, &store, &progress);
                smol::unblock(work).await
            }
            Request::Publish(call) => {
                let reporter = self.0.reporter.of_job(id);
                let put = publish::run(&call, node, progress, &reporter, &self.0.publishing).await?;
                self.mark_own(&put).await;
                Ok(put)
            }
            Request::PublishFolder(call) => {
                let reporter = self.0.reporter.of_job(id);
                let identity = self.identity_of(&call.channel).await.ok_or_else(|| {
                    Failure::new(
                        Exit::NotFound,
                        "the channel's identity is not in the node's folder any more",
                    )
                })?;
                let put = folder::run(&call, identity, node, progress, &reporter, &self.0.publishing).await?;
                self.mark_own(&put).await;
                Ok(put)
            }
            Request::Verify(call) => self.verify(id, call, progress).await,
            Request::Fetch(call) => {
                let timeout = call.timeout_secs.map(Duration::from_secs);
                self.fetched(call.channel.0, timeout, call.patient, progress).await?;
                Ok(json!({}))
            }
        }
    }

    /// What a user has just published is no news to them.
    async fn mark_own(&self, put: &Value) {
        let channel = put["public_key"].as_str().and_then(|key| key.parse().ok()).map(ChannelId);
        if channel.is_some() {
            // It may not be followed.
            let _ = Answers::answer(self, MarkRead { channel }).await;
        }
    }

    /// Waits until all that is wanted of a channel is in its place.
    async fn fetched(
        &self,
        channel: PublicKey,
        timeout: Option<Duration>,
        patient: bool,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let log = Rc::clone(&self.0.log);
        loop {
            if progress.cancelled().load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Failure::new(Exit::Other, "cancelled"));
            }
            let verdict = match self.0.channels.borrow_mut().get_mut(&channel) {
                Some(channel) => channel.verdict(timeout, patient),
                None => Some(Err(Failure::new(Exit::NotFound, format!("channel {channel} is not followed")))),
            };
            if let Some(verdict) = verdict {
                return verdict;
            }
            let late = async {
                smol::Timer::after(LOOK_INTERVAL).await;
            };
            futures_lite::future::or(log.wait(log.last()), late).await;
        }
    }

    async fn verify(&self, id: JobId, call: api::Verify, progress: &Arc<Progress>) -> Result<Value, Failure> {
        let timeout = call.timeout_secs.map(Duration::from_secs);
        let reporter = self.0.reporter.of_job(id);
        let found = verify::look(self.0.node.store(), progress, &reporter).await?;
        if !call.repair {
            found.verdict()?;
            return Ok(found.summary);
        }
        self.repair(&found, timeout, progress, &reporter).await
    }

    /// Brings back what was found to be gone or damaged, channel by channel.
    pub(crate) async fn repair(
        &self,
        found: &Found,
        timeout: Option<Duration>,
        progress: &Progress,
        reporter: &Reporter,
    ) -> Result<Value, Failure> {
        progress.set_step("fetching what is gone");
        let node = &self.0.node;
        let channels: Vec<PublicKey> = self.0.channels.borrow().keys().copied().collect();
        let (mut folders, mut failure) = (0_u64, None);
        for key in channels {
            let is_concerned = self.0.channels.borrow_mut().get_mut(&key).map(|it| it.has_lost(found));
            let Some(is_concerned) = is_concerned else { continue };
            if !is_concerned? {
                continue;
            }
            folders += 1;
            // Of what was damaged the node may not know yet.
            node.command(Command::LookAgain(key)).await?;
            if let Some(channel) = self.0.channels.borrow_mut().get_mut(&key) {
                channel.restore();
            }
            // The others have their turn.
            if let Err(error) = self.fetched(key, timeout, false, progress).await {
                reporter.warn(&error.message);
                failure.get_or_insert(error);
            }
        }
        let left = found.own + u64::from(failure.is_some());
        let members = json!({ "folders": folders, "left": left });
        let text = format!("{} looked through for what was missing", count(folders, "folder"));
        reporter.event(News::Repaired, members.clone(), text);
        match failure {
            Some(failure) => Err(failure),
            None if found.own > 0 => {
                let files = verify::are(found.own, "file");
                let exit = if found.own_wrong > 0 { Exit::Integrity } else { Exit::NotFound };
                Err(Failure::new(
                    exit,
                    format!("{files} not as it was and is yours: nothing is written over it"),
                ))
            }
            None => Ok(members),
        }
    }
}
