//! Requests and answers about what is to be published: files and folders on the node, and bytes that a caller brings.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ChannelId, FileChange};

/// Asks what is in a folder on the node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetFolder {
    /// The folder, as an absolute path [default: the home folder of the user as whom the node runs].
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// How many entries are skipped.
    #[serde(default)]
    pub(crate) offset: u64,
    /// How many are given at most; the service has a bound of its own.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

/// What is in a folder: folders first, each in the order of their names. What begins with a dot is left out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Folder {
    /// The folder, as an absolute path.
    pub(crate) path: String,
    /// The folder above it; null: there is none.
    pub(crate) parent: Option<String>,
    pub(crate) entries: Vec<FolderEntry>,
    /// How many entries there are.
    pub(crate) total: u64,
}

/// A file or a folder on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FolderEntry {
    pub(crate) name: String,
    pub(crate) folder: bool,
    /// Bytes; of a folder, 0.
    pub(crate) size_bytes: u64,
}

/// Asks what would be published.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanPublication {
    /// The file or folder, as an absolute path.
    pub(crate) source: String,
    /// The channel whose newest version it would replace.
    #[serde(default)]
    pub(crate) channel: Option<ChannelId>,
}

/// What would be published.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Plan {
    /// Files.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) size_bytes: u64,
    /// Names that begin with a dot, links and what is no file: they are left out.
    pub(crate) left_out: u64,
    /// Files that the newest version does not have.
    pub(crate) added: u64,
    /// Files of another size or time than there.
    pub(crate) changed: u64,
    /// Files of the newest version that are not here: they go.
    pub(crate) removed: u64,
    /// The first thousand files, in the order of their paths.
    pub(crate) listed: Vec<PlannedFile>,
}

/// A file that would be published.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PlannedFile {
    /// Its path in the channel.
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    /// How it differs from the newest version; null: it is as there.
    pub(crate) change: Option<FileChange>,
}

/// Encrypts a file or a folder and publishes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishFolder {
    /// The file or folder, as an absolute path. It is handed out from where it lies, and must stay as it is.
    pub(crate) source: String,
    /// The channel: one whose identity is in the node's folder (`getIdentities`).
    pub(crate) channel: ChannelId,
    /// The title.
    #[serde(default)]
    pub(crate) title: String,
    /// Seal the manifest with the identity's read key: only who has the link can find it.
    #[serde(default)]
    pub(crate) private: bool,
}

/// Makes a folder for bytes that a caller has.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUpload {}

/// A folder for bytes that a caller has. It stays until it is removed: what was published is handed out from it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the words of the API")]
pub(crate) struct Upload {
    /// Its name.
    pub(crate) upload: String,
    /// The folder, as an absolute path.
    pub(crate) folder: String,
    /// The most bytes that one `writeUpload` takes.
    pub(crate) piece_bytes: u64,
    /// Bytes free where it lies; null: the system does not say.
    pub(crate) free_bytes: Option<u64>,
}

/// Adds bytes to a file.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteUpload {
    pub(crate) upload: String,
    /// The file's path in the folder, with `/` between folders.
    pub(crate) path: String,
    /// Where they go: at most the file's length so far.
    pub(crate) offset: u64,
    /// The bytes, in base64 with padding.
    pub(crate) data: String,
}

impl fmt::Debug for WriteUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteUpload")
            .field("upload", &self.upload)
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// What a file has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Written {
    /// Its bytes.
    pub(crate) size_bytes: u64,
}

/// Removes an upload's folder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveUpload {
    pub(crate) upload: String,
}
