//! What the application must remember: subscriptions, jobs and settings, each a record of JSON in the node's state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use megatorrent_core::identity::PublicKey;
use megatorrent_runtime_smol::state::{State, StateError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{ChannelId, JobId, JobInfo, Limits, Settings};
use crate::clock;
use crate::exit::Failure;

/// A subscription, as it outlives the process. The read key is core's to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Followed {
    /// The output folder; `None`: it is seeded alone.
    pub(super) output: Option<PathBuf>,
    pub(super) copy: bool,
    pub(super) in_order: bool,
    pub(super) paused: bool,
    /// Milliseconds since 1970.
    pub(super) added_unix_ms: u64,
    /// The newest version that was marked as seen.
    pub(super) read_sequence: u64,
    /// The title of the newest version that was read.
    pub(super) title: String,
}

/// A job, with what begins it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) info: JobInfo,
    pub(super) request: super::jobs::Request,
}

/// What a user has changed of the options.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Changes {
    pub(super) limits: Option<Limits>,
    pub(super) settings: Option<Settings>,
}

/// The records. A record is written before the call that changed it is answered.
pub(super) struct Records {
    state: Arc<State>,
    /// One write after the other, in the order of the calls.
    turn: smol::lock::Mutex<()>,
}

const CHANNEL: &str = "channel/";
const JOB: &str = "job/";
const CHANGED: &str = "changed";

impl Records {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, turn: smol::lock::Mutex::new(()) }
    }

    pub(super) fn jobs(&self) -> Result<Vec<JobRecord>, StateError> {
        Ok(read(&self.state, JOB)?.into_iter().map(|(_, record)| record).collect())
    }

    pub(super) async fn set_channel(
        &self,
        channel: ChannelId,
        record: Option<&Followed>,
    ) -> Result<(), Failure> {
        self.write(format!("{CHANNEL}{channel}"), record).await
    }

    pub(super) async fn set_job(&self, job: JobId, record: Option<&JobRecord>) -> Result<(), Failure> {
        // Ten digits, so that their order is that of the numbers.
        self.write(format!("{JOB}{:010}", job.0), record).await
    }

    pub(super) async fn set_changed(&self, changed: &Changes) -> Result<(), Failure> {
        self.write(CHANGED.to_owned(), Some(changed)).await
    }

    async fn write<T: Serialize>(&self, name: String, record: Option<&T>) -> Result<(), Failure> {
        let value = record.map(serde_json::to_vec).transpose();
        let value = value.map_err(|error| Failure::new(crate::exit::Exit::Other, error.to_string()))?;
        let _turn = self.turn.lock().await;
        let state = self.state.clone();
        smol::unblock(move || state.set_application(&name, value.as_deref())).await?;
        Ok(())
    }
}

impl Followed {
    /// A channel without an output folder.
    pub(super) fn seeded() -> Self {
        Self {
            output: None,
            copy: false,
            in_order: false,
            paused: false,
            added_unix_ms: clock::now_ms(),
            read_sequence: 0,
            title: String::new(),
        }
    }

    /// All subscriptions. One without a record has the folder that files of it were written to before.
    pub(super) fn all(state: &State) -> Result<Vec<(PublicKey, Self)>, StateError> {
        let outputs = state.outputs()?.into_iter().map(|known| {
            let record = Self { output: Some(known.folder), copy: known.copy, ..Self::seeded() };
            (known.channel, record)
        });
        let mut all: BTreeMap<PublicKey, Self> = outputs.collect();
        let found = read::<Self>(state, CHANNEL)?;
        all.extend(found.into_iter().filter_map(|(key, record)| Some((key.parse().ok()?, record))));
        Ok(all.into_iter().collect())
    }
}

/// What a user has changed of the options.
pub(super) fn changed(state: &State) -> Result<Changes, StateError> {
    Ok(read(state, CHANGED)?.pop().map(|(_, changed)| changed).unwrap_or_default())
}

/// Records whose names begin so, with the rest of their names. One that cannot be read is left alone.
fn read<T: DeserializeOwned>(state: &State, prefix: &str) -> Result<Vec<(String, T)>, StateError> {
    let found = state.application(prefix)?;
    let parsed = found.into_iter().filter_map(|(name, value)| {
        let record = serde_json::from_slice(&value)
            .inspect_err(|error| tracing::warn!(name, %error, "a record of an earlier run cannot be read"));
        Some((name[prefix.len()..].to_owned(), record.ok()?))
    });
    Ok(parsed.collect())
}
