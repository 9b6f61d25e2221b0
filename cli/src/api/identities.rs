//! Requests and answers about the keys of channels of one's own.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ChannelId;

/// Asks for the identities.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetIdentities {}

/// The identities.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Identities {
    pub(crate) identities: Vec<IdentityInfo>,
}

/// An identity, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct IdentityInfo {
    /// The channel that it signs.
    pub(crate) channel: ChannelId,
    /// The channel's address, without the read key.
    pub(crate) uri: String,
    /// Its file.
    pub(crate) file: String,
    /// Whether it has a read key, for private channels.
    pub(crate) has_read_key: bool,
}

/// Makes an identity.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateIdentity {}

/// Takes over an identity.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportIdentity {
    /// The file, as an absolute path: an identity, or a backup of one.
    pub(crate) file: String,
    /// The passphrase of a backup.
    #[serde(default)]
    pub(crate) passphrase: Option<String>,
}

/// Writes a backup of an identity.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportIdentity {
    pub(crate) channel: ChannelId,
    /// The file to make, as an absolute path; one that exists is not touched.
    pub(crate) file: String,
    /// What seals it.
    pub(crate) passphrase: String,
}

impl fmt::Debug for ImportIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportIdentity").field("file", &self.file).finish_non_exhaustive()
    }
}

impl fmt::Debug for ExportIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportIdentity")
            .field("channel", &self.channel)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
