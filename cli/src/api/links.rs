//! Requests and answers about links to files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ChannelId;

/// Makes a link to a file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateFileLink {
    pub(crate) channel: ChannelId,
    /// The file's path in the channel. All of it must be here.
    pub(crate) path: String,
}

/// A link to a file: whoever has it reads the file, without a login.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FileLink {
    /// The link's path, below where the API listens. It names neither channel nor file.
    pub(crate) path: String,
    /// For how many seconds it can be used.
    pub(crate) valid_secs: u64,
    /// The file's bytes.
    pub(crate) size_bytes: u64,
    /// The type that it is served as; a browser shows or plays those that are not `application/octet-stream`, which it keeps as a file.
    pub(crate) content_type: String,
}

/// Ends links before their time. With neither channel nor path, all of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeFileLinks {
    /// Those to files of this channel.
    #[serde(default)]
    pub(crate) channel: Option<ChannelId>,
    /// The link with this path.
    #[serde(default)]
    pub(crate) path: Option<String>,
}

/// What was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Revoked {
    /// How many links.
    pub(crate) links: u64,
}
