//! What happened, with a number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ChannelId, JobId};
use crate::output::News;

/// A piece of news. Numbers go up by one; a reader that names the last one that it has gets those after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Event {
    /// Its number in this node's life; begins at 1 with each start.
    pub(crate) number: u64,
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub(crate) kind: EventKind,
    /// In words.
    pub(crate) text: String,
}

/// What an event is, and about what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct EventKind {
    /// Its name, as `--help` of the commands lists them.
    pub(crate) event: News,
    /// The channel that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<ChannelId>,
    /// The job that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<JobId>,
    /// What else belongs to it.
    pub(crate) members: Map<String, Value>,
}
