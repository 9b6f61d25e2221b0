//! What the application must remember: subscriptions, jobs and settings, each a record of JSON in the node's state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::node::Config;
use megatorrent_runtime_smol::state::{State, StateError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{ChannelId, Difference, JobId, JobInfo};
use crate::clock;
use crate::exit::Failure;

/// A subscription, as it outlives the process. The read key is core's to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Followed {
    /// The output folder; `None`: it is seeded alone.
    pub(super) output: Option<PathBuf>,
    /// Whether the output folder is to be called by the title, which is not known yet.
    #[serde(default)]
    pub(super) unnamed: bool,
    pub(super) copy: bool,
    pub(super) in_order: bool,
    pub(super) paused: bool,
    /// Milliseconds since 1970.
    pub(super) added_unix_ms: u64,
    /// The newest version that was marked as seen.
    pub(super) read_sequence: u64,
    /// The title of the newest version that was read.
    pub(super) title: String,
    /// What was known of it at last, for a time at which it was not read again.
    #[serde(default)]
    pub(super) known: Known,
    /// Its number in this node; 0: it has none yet.
    #[serde(default)]
    pub(super) number: u64,
    /// Whether it is only looked at.
    #[serde(default)]
    pub(super) preview: bool,
}

/// What a list says of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) sequence: u64,
    pub(super) files: u64,
    pub(super) size_bytes: u64,
    /// The number of its blobs, and when it was complete: milliseconds since 1970. `None`: it is not.
    pub(super) complete: Option<(u64, u64)>,
    /// How it differs from the one that was marked as seen, where that is known.
    #[serde(default)]
    pub(super) difference: Option<Difference>,
}

/// A job, with what begins it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) info: JobInfo,
    pub(super) request: super::jobs::Request,
}

/// What calls have changed of the options, each alone: the rest is as the options of a run say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Changes {
    /// 0: without a limit.
    pub(crate) upload_bytes_per_sec: Option<u64>,
    /// Likewise.
    pub(crate) download_bytes_per_sec: Option<u64>,
    pub(crate) gateway: Option<bool>,
    pub(crate) whole: Option<bool>,
}

impl Changes {
    /// A limit as it is written here.
    pub(crate) fn rate(limit: Option<u64>) -> u64 {
        limit.unwrap_or(0)
    }

    /// Lets a configuration be so.
    pub(super) fn apply(&self, config: &mut Config) {
        let limit = |rate: u64| (rate > 0).then_some(rate);
        config.upload_bytes_per_sec = self.upload_bytes_per_sec.map_or(config.upload_bytes_per_sec, limit);
        config.download_bytes_per_sec =
            self.download_bytes_per_sec.map_or(config.download_bytes_per_sec, limit);
        config.gateway = self.gateway.unwrap_or(config.gateway);
        config.takes_all = self.whole.unwrap_or(config.takes_all);
    }

    /// With later changes over these.
    pub(super) fn with(self, later: Self) -> Self {
        Self {
            upload_bytes_per_sec: later.upload_bytes_per_sec.or(self.upload_bytes_per_sec),
            download_bytes_per_sec: later.download_bytes_per_sec.or(self.download_bytes_per_sec),
            gateway: later.gateway.or(self.gateway),
            whole: later.whole.or(self.whole),
        }
    }

    /// Those of what others changed too.
    pub(super) fn of_what(self, others: Self) -> Self {
        Self {
            upload_bytes_per_sec: self.upload_bytes_per_sec.filter(|_| others.upload_bytes_per_sec.is_some()),
            download_bytes_per_sec: self
                .download_bytes_per_sec
                .filter(|_| others.download_bytes_per_sec.is_some()),
            gateway: self.gateway.filter(|_| others.gateway.is_some()),
            whole: self.whole.filter(|_| others.whole.is_some()),
        }
    }
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
            unnamed: false,
            copy: false,
            in_order: false,
            paused: false,
            added_unix_ms: clock::now_ms(),
            read_sequence: 0,
            title: String::new(),
            known: Known::default(),
            number: 0,
            preview: false,
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

/// What calls have changed of the options.
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
