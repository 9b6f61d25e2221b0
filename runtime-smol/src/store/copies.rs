//! Copies of files that cost nothing: where the file system lets two files share their bytes.
//!
//! ```text
//! DIR/copies/<16 hex>   a file as it was when it was ingested, held in place of the file itself
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Store, StoreError};
use crate::held::working::free_number;

impl Store {
    /// A copy of a file that shares its bytes, until either is written to. `None`: the file system cannot do that.
    ///
    /// # Errors
    /// Where the copy's folder or the copy cannot be made.
    pub fn share(&self, file: &File) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.0.root.with_file_name("copies");
        fs::create_dir_all(&folder).map_err(|e| StoreError::new("create", &folder, e))?;
        let failed = |e| StoreError::new("make a copy in", &folder, e);
        let path = folder.join(format!("{:016x}", free_number().map_err(failed)?));
        let mut options = OpenOptions::new();
        let copy = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        if share_bytes(&copy, file).is_ok() {
            return Ok(Some(path));
        }
        drop(copy);
        self.unshare(&path);
        Ok(None)
    }

    /// Removes a copy that is not used.
    pub fn unshare(&self, path: &Path) {
        // One that stays is in nobody's way.
        let _ = fs::remove_file(path);
        let _ = path.parent().map(fs::remove_dir);
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn share_bytes(copy: &File, file: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(copy, file)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn share_bytes(_: &File, _: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
