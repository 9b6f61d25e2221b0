//! Where the service's parts tell their news: into the log, each with what it is about.

use std::rc::Rc;

use megatorrent_core::identity::PublicKey;
use serde_json::{Map, Value, json};

use super::Log;
use crate::api::{ChannelId, EventKind, JobId};
use crate::output::News;

/// The log, for news about one thing.
#[derive(Clone)]
pub(crate) struct Reporter {
    log: Rc<Log>,
    channel: Option<ChannelId>,
    job: Option<JobId>,
}

impl Reporter {
    /// For news about the node.
    pub(crate) fn new(log: Rc<Log>) -> Self {
        Self { log, channel: None, job: None }
    }

    /// For news about a channel.
    pub(crate) fn of_channel(&self, channel: PublicKey) -> Self {
        Self { channel: Some(ChannelId(channel)), ..self.clone() }
    }

    /// For news about a job.
    pub(crate) fn of_job(&self, job: JobId) -> Self {
        Self { job: Some(job), ..self.clone() }
    }

    /// A piece of news. `members` is an object, or null.
    pub(crate) fn event(&self, event: News, members: Value, text: impl Into<String>) {
        let members = if let Value::Object(members) = members { members } else { Map::new() };
        self.log.push(EventKind { event, channel: self.channel, job: self.job, members }, text.into());
    }

    /// What a user should look at.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        self.event(News::Warning, json!({ "message": text }), text);
    }

    /// What a user may like to know.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.event(News::Note, Value::Null, text);
    }
}
