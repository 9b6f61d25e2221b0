//! A look at stored blobs, folder by folder.

use std::fs;
use std::io;
use std::path::PathBuf;

use megatorrent_core::blob;
use megatorrent_core::ids::{BlobId, BlobName, Root};

use super::{Store, file_len};

/// Folders of blobs: one for each first byte of a name.
pub(crate) const BLOB_FOLDERS: u64 = 256;

/// A file in the place of a stored blob.
pub(crate) struct BlobFile {
    pub(crate) path: PathBuf,
    /// `None`: it has the length of no blob.
    name: Option<BlobName>,
}

impl Store {
    /// The number of blobs that are stored.
    pub(crate) fn count_stored(&self) -> io::Result<u64> {
        (0..=u8::MAX).try_fold(0, |count, folder| Ok(count + self.blobs_in(folder)?.len() as u64))
    }

    /// The files in one of the [`BLOB_FOLDERS`].
    pub(crate) fn blobs_in(&self, folder: u8) -> io::Result<Vec<BlobFile>> {
        let folder = self.0.root.join(format!("{folder:02x}"));
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let bytes = entry.file_name().to_str().and_then(|name| name.parse::<BlobId>().ok());
            let (Some(BlobId(bytes)), Ok(metadata)) = (bytes, entry.metadata()) else { continue };
            let names = [BlobName::Native(Root(bytes)), BlobName::V5(BlobId(bytes))];
            let name = names.into_iter().find(|name| file_len(name) == metadata.len());
            files.push(BlobFile { path: entry.path(), name });
        }
        Ok(files)
    }

    /// Hashes a blob. `false`: it is not what its name says, and is removed.
    pub(crate) fn look_at_blob(&self, file: &BlobFile, buf: &mut [u8]) -> io::Result<bool> {
        let Some(name) = &file.name else {
            fs::remove_file(&file.path)?;
            return Ok(false);
        };
        let read = self.noted(name, self.read_unchecked(name, buf));
        let has_values = || name.root().is_none_or(|root| matches!(self.values_of(&root), Ok(Some(_))));
        if read? && blob::verify(name, buf) && has_values() {
            return Ok(true);
        }
        // One that somebody removed meanwhile is not damaged.
        let is_there = file.path.exists();
        self.remove(name)?;
        Ok(!is_there)
    }
}
