//! Requests and answers about work that takes a while: jobs.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ApiError, ChannelId};

/// A job's number. It stays the same over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct JobId(pub(crate) u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Encrypts a file into blobs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ingest {
    /// The file to read, as an absolute path.
    pub(crate) file: String,
    /// Its path in the channel, with `/` between folders [default: its name].
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The identity's file, as an absolute path: blobs are sealed under its secret [default: a fresh secret].
    #[serde(default)]
    pub(crate) identity: Option<String>,
    /// Write the entry as v5's list of chunks.
    #[serde(default)]
    pub(crate) v5: bool,
    /// Seal under a fresh secret.
    #[serde(default)]
    pub(crate) unlinkable: bool,
    /// Keep a copy, which shares the file's bytes where the file system can do that.
    #[serde(default)]
    pub(crate) copy: bool,
}

/// Signs a channel's new manifest and puts it on the DHT.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    /// Entries as `ingest` makes them.
    pub(crate) entries: Vec<Value>,
    /// The identity's file, as an absolute path.
    pub(crate) identity: String,
    /// The title.
    #[serde(default)]
    pub(crate) title: String,
    /// Seal the manifest with the identity's read key.
    #[serde(default)]
    pub(crate) private: bool,
    /// Seal the manifest with this read key: 64 hexadecimal digits.
    #[serde(default)]
    pub(crate) read_key: Option<String>,
    /// Nodes that put the head on the DHT, each `HOST:PORT`; none: this one does.
    #[serde(default)]
    pub(crate) gateways: Vec<String>,
    /// Leave out the blobs' SHA-256 ids.
    #[serde(default)]
    pub(crate) no_ids: bool,
    /// Publish although the clock says what cannot be.
    #[serde(default)]
    pub(crate) any_clock: bool,
}

impl fmt::Debug for Publish {
    /// Without entries and read key: they are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("identity", &self.identity)
            .field("private", &self.private)
            .finish_non_exhaustive()
    }
}

/// Looks at all that the node holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    /// Bring back what was deleted, edited or damaged.
    #[serde(default)]
    pub(crate) repair: bool,
    /// Of a channel whose files are brought back, gives up after so long without progress; null: never.
    #[serde(default)]
    pub(crate) timeout_secs: Option<u64>,
}

/// Waits until all that is wanted of a channel's newest version is in its place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fetch {
    pub(crate) channel: ChannelId,
    /// Gives up after so long without progress; null: never.
    #[serde(default)]
    pub(crate) timeout_secs: Option<u64>,
    /// Goes on where a version cannot be read, or written for want of space: a newer one may come.
    #[serde(default)]
    pub(crate) patient: bool,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobKind {
    Ingest,
    Publish,
    PublishFolder,
    Verify,
    /// It ends with the process: the channel itself is what goes on.
    Fetch,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobState {
    /// Its turn has not come.
    Queued,
    /// It is under way.
    Running,
    /// It is done; its result says what came of it.
    Done,
    /// It failed; its error says why.
    Failed,
    /// It was ended before it was done.
    Cancelled,
}

impl JobState {
    /// Whether nothing more comes of it.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct JobInfo {
    pub(crate) id: JobId,
    pub(crate) kind: JobKind,
    /// What it is about, in words: a file's name, a channel's title.
    pub(crate) about: String,
    /// The channel that it is about, if it is about one.
    pub(crate) channel: Option<ChannelId>,
    pub(crate) state: JobState,
    /// What it does at the moment, in words.
    pub(crate) step: String,
    /// Bytes done.
    pub(crate) done_bytes: u64,
    /// Bytes in all; null: not known.
    pub(crate) total_bytes: Option<u64>,
    /// When it was asked for: milliseconds since 1970.
    pub(crate) created_unix_ms: u64,
    /// When it was over; null: it is not.
    pub(crate) ended_unix_ms: Option<u64>,
    /// Whether it was begun again after a restart.
    pub(crate) resumed: bool,
    /// What came of it; null before it is done. Of `ingest`, `path`, `size`, `blobs` and the `entry`; of `publish` what the
    /// command prints; of `publishFolder` that, `files`, `size` and `left_out`; of `verify` the counts.
    pub(crate) result: Option<Value>,
    /// Why it failed; null where it did not.
    pub(crate) error: Option<ApiError>,
}

/// Asks for the jobs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetJobs {
    /// Those alone that are not over.
    #[serde(default)]
    pub(crate) active: bool,
}

/// Jobs, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Jobs {
    pub(crate) jobs: Vec<JobInfo>,
}

/// Asks for one job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetJob {
    pub(crate) job: JobId,
}

/// Ends a job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelJob {
    pub(crate) job: JobId,
}
