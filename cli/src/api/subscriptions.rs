//! Requests and answers about channels that are followed.

use std::borrow::Cow;
use std::fmt;

use megatorrent_core::identity::PublicKey;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A channel: its public key, 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelId(pub(crate) PublicKey);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ChannelId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ChannelId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        text.parse().map(Self).map_err(|_| de::Error::custom("a channel is 64 hexadecimal digits"))
    }
}

impl JsonSchema for ChannelId {
    fn schema_name() -> Cow<'static, str> {
        "ChannelId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "A channel's public key, in hexadecimal digits.",
        })
    }
}

/// Follows a channel.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddSubscription {
    /// `megatorrent://PUBLICKEY[:READKEY][?bootstrap=HOST:PORT]`.
    pub(crate) uri: String,
    /// The folder for the files, as an absolute path [default: `downloads/TITLE-or-KEY/` in the node's folder].
    #[serde(default)]
    pub(crate) output: Option<String>,
    /// Keep a copy besides, which shares the files' bytes where the file system can do that.
    #[serde(default)]
    pub(crate) copy: bool,
    /// Fetch in the order of the bytes rather than the rarest first.
    #[serde(default)]
    pub(crate) in_order: bool,
    /// Take the output folder although it is not the one that files were written to before.
    #[serde(default)]
    pub(crate) new: bool,
    /// Only look: what the channel is and which files it has is found out, and nothing of them is fetched. It is listed nowhere, and
    /// ends after half an hour, with the node, or by `removeSubscription`; without this it becomes a subscription.
    #[serde(default)]
    pub(crate) preview: bool,
}

impl fmt::Debug for AddSubscription {
    /// Without the URI: it may hold a read key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddSubscription").field("output", &self.output).finish_non_exhaustive()
    }
}

/// The state of a channel: the first word that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Two versions are signed with one number.
    Conflict,
    /// It was found and cannot be read.
    NeedsKey,
    /// Its output folder is not there, or cannot be written to.
    FolderMissing,
    /// There is no space for it.
    NeedsSpace,
    /// It rests, as a user wished.
    Paused,
    /// Nobody has answered yet.
    Looking,
    /// Its files are coming.
    Arriving,
    /// Some files are missing, and nobody who has them is there.
    WaitingForPeers,
    /// All that is wanted is here, and was not seen yet.
    New,
    /// All that was wanted is here, and nobody has said within the hour that there is nothing newer.
    NotAskedLately,
    /// All that is wanted is here.
    UpToDate,
}

/// Channels by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Counts {
    pub(crate) all: u64,
    pub(crate) conflict: u64,
    pub(crate) needs_key: u64,
    pub(crate) folder_missing: u64,
    pub(crate) needs_space: u64,
    pub(crate) paused: u64,
    pub(crate) looking: u64,
    pub(crate) arriving: u64,
    pub(crate) waiting_for_peers: u64,
    pub(crate) new: u64,
    pub(crate) not_asked_lately: u64,
    pub(crate) up_to_date: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, state: State) {
        self.all += 1;
        *match state {
            State::Conflict => &mut self.conflict,
            State::NeedsKey => &mut self.needs_key,
            State::FolderMissing => &mut self.folder_missing,
            State::NeedsSpace => &mut self.needs_space,
            State::Paused => &mut self.paused,
            State::Looking => &mut self.looking,
            State::Arriving => &mut self.arriving,
            State::WaitingForPeers => &mut self.waiting_for_peers,
            State::New => &mut self.new,
            State::NotAskedLately => &mut self.not_asked_lately,
            State::UpToDate => &mut self.up_to_date,
        } += 1;
    }
}

/// A channel that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Subscription {
    pub(crate) channel: ChannelId,
    /// Its number in this node, by which a page can name it without its key.
    pub(crate) number: u64,
    /// Its address, without the read key.
    pub(crate) uri: String,
    /// Whether its read key is known.
    pub(crate) private: bool,
    /// As its author calls it; empty: not known yet, or without one.
    pub(crate) title: String,
    pub(crate) state: State,
    /// What it waits for, in words; null: nothing.
    pub(crate) waiting: Option<String>,
    /// What went wrong with its files, in words; null: nothing.
    pub(crate) failure: Option<String>,
    /// The number of its newest version; 0: none is known.
    pub(crate) sequence: u64,
    /// Whether all of the newest version is here, as far as it is wanted.
    pub(crate) complete: bool,
    /// Files of the newest version.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) size_bytes: u64,
    /// Blobs of the newest version that are here.
    pub(crate) blobs: u64,
    /// Blobs of the newest version that are known of.
    pub(crate) blobs_total: u64,
    /// The folder for its files; null: it is seeded alone.
    pub(crate) output: Option<String>,
    /// Whether the blobs are kept beside the files.
    pub(crate) copy: bool,
    /// Whether it is fetched in the order of its bytes.
    pub(crate) in_order: bool,
    /// When it was followed: milliseconds since 1970.
    pub(crate) added_unix_ms: u64,
    /// When its newest version was there in full; null: not yet, in this node's life.
    pub(crate) completed_unix_ms: Option<u64>,
    /// Whether a version is here that was not marked as seen.
    pub(crate) unread: bool,
    /// When the DHT last said which version is the newest; null: not yet, in this node's life.
    pub(crate) asked_unix_ms: Option<u64>,
    /// About how many of its bytes are here.
    pub(crate) here_bytes: u64,
    /// Bytes of it that came a second, over the last seconds.
    pub(crate) receive_bytes_per_sec: u64,
    /// How the newest version differs from the one that was marked as seen; null: that is not known.
    pub(crate) difference: Option<Difference>,
    /// Files that are left as a user has them.
    pub(crate) kept_files: u64,
    /// Whether it is only looked at.
    pub(crate) preview: bool,
}

/// How a version differs from an earlier one, in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Difference {
    pub(crate) added: u64,
    pub(crate) changed: u64,
    pub(crate) removed: u64,
}

/// Asks for the channels that are followed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetSubscriptions {
    /// Those alone whose title or key has this in it, whatever the case.
    #[serde(default)]
    pub(crate) search: Option<String>,
    /// Those in one of these states alone; empty: in any.
    #[serde(default)]
    pub(crate) states: Vec<State>,
    /// In which order [default: added].
    #[serde(default)]
    pub(crate) sort: Sort,
    /// The other way round.
    #[serde(default)]
    pub(crate) descending: bool,
    /// How many are skipped.
    #[serde(default)]
    pub(crate) offset: u64,
    /// How many are given at most; the service has a bound of its own.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

/// An order of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// When they were followed.
    #[default]
    Added,
    /// By title, then key.
    Title,
    /// Those that need a hand first.
    State,
    /// By their bytes.
    Size,
    /// By their bytes that are here.
    Here,
    /// By the number of their newest version, which is the time at which it was made.
    Changed,
}

/// The channels that are followed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the words of the API")]
pub(crate) struct Subscriptions {
    pub(crate) subscriptions: Vec<Subscription>,
    /// How many fit the search and the state.
    pub(crate) total: u64,
    /// All channels by state.
    pub(crate) counts: Counts,
}

/// Asks for one channel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetSubscription {
    pub(crate) channel: ChannelId,
}

/// Stops following a channel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveSubscription {
    pub(crate) channel: ChannelId,
}

/// Lets a channel rest; all of them where none is named.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseSubscription {
    #[serde(default)]
    pub(crate) channel: Option<ChannelId>,
}

/// Goes on with a channel; with all of them where none is named.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeSubscription {
    #[serde(default)]
    pub(crate) channel: Option<ChannelId>,
}

/// Looks after a channel at once; after all of them where none is named.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckSubscription {
    #[serde(default)]
    pub(crate) channel: Option<ChannelId>,
}

/// What was done, and can be undone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Undoable {
    /// What `undo` takes.
    pub(crate) undo: u64,
    /// For how many milliseconds.
    pub(crate) for_ms: u64,
}

/// Takes back what was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Undo {
    pub(crate) undo: u64,
}

/// Marks a channel's files as seen; those of all channels where none is named.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MarkRead {
    #[serde(default)]
    pub(crate) channel: Option<ChannelId>,
}

/// Asks for the files of a channel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetFiles {
    pub(crate) channel: ChannelId,
    /// Those below this folder alone, with `/` between folders; empty: all.
    #[serde(default)]
    pub(crate) under: String,
    /// How many are skipped.
    #[serde(default)]
    pub(crate) offset: u64,
    /// How many are given at most; the service has a bound of its own.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

/// Files and folders at one place, in order of their names.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the words of the API")]
pub(crate) struct Files {
    /// The version that they are of; 0: none is known.
    pub(crate) sequence: u64,
    pub(crate) files: Vec<FileInfo>,
    /// How many there are at this place.
    pub(crate) total: u64,
}

/// A file or a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FileInfo {
    /// Its path in the channel.
    pub(crate) path: String,
    /// Bytes; of a folder, of all in it.
    pub(crate) size_bytes: u64,
    /// Whether it is a folder.
    pub(crate) folder: bool,
    /// Where it lies, if all of it is there; of a folder, null.
    pub(crate) target: Option<String>,
    /// How far it is; of a folder, of the file in it that is behind most.
    pub(crate) state: FileState,
    /// How it differs from the version that was marked as seen; null: not at all, or that is not known.
    pub(crate) change: Option<FileChange>,
    /// Files in it, if it is a folder, or else 1.
    pub(crate) files: u64,
    /// Those of them that are in their places.
    pub(crate) files_here: u64,
}

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileState {
    /// It could not be written.
    Failed,
    /// It is not here, or not all of it.
    Missing,
    /// A user has deleted or edited it, and it is left so.
    Kept,
    /// It is in its place.
    Here,
}

/// How a file differs from an earlier version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileChange {
    New,
    Changed,
}

/// Asks which blobs of a channel's newest version are here.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetBlobs {
    pub(crate) channel: ChannelId,
    /// Into how many cells they are gathered at most [default: 600].
    #[serde(default)]
    pub(crate) cells: Option<u64>,
}

/// The blobs of a version, as far as they are known, in cells of one size but for the last, in the order of the content.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the words of the API")]
pub(crate) struct Blobs {
    /// Blobs in each cell.
    pub(crate) blobs: Vec<u32>,
    /// Those that are here.
    pub(crate) here: Vec<u32>,
    /// Those of which parts are here, and not all.
    pub(crate) under_way: Vec<u32>,
    /// Those that are neither here nor with any peer that is connected.
    pub(crate) unseen: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_not_shown() {
        let call = AddSubscription {
            uri: "megatorrent://00:secret".into(),
            output: None,
            copy: false,
            in_order: false,
            new: false,
            preview: false,
        };
        assert!(!format!("{call:?}").contains("secret"));
    }

    #[test]
    fn a_channel_is_64_digits() {
        assert!(serde_json::from_str::<ChannelId>("\"00\"").is_err());
        assert!(serde_json::from_str::<ChannelId>("7").is_err());
    }
}
