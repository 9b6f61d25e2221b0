//! Copies of files that cost nothing: where the file system lets two files share their bytes.
//!
//! ```text
//! DIR/copies/<16 hex>   a file as it was when it was ingested, held in place of the file itself, or when it was fetched whole
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use megatorrent_core::ids::Root;
use rustix::fs::{self as sys, Mode, OFlags};

use super::{Store, StoreError};
use crate::export::Copies;
use crate::held::working::free_number;

impl Store {
    /// What is kept, where copies are wanted, of files in a folder that is there: some that share their bytes where the file system
    /// can do that, else the blobs.
    pub fn copies_of(&self, folder: &Path) -> Copies {
        let own = self.copies();
        let nameless = |folder: &Path| {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            sys::open(folder, flags, Mode::RUSR | Mode::WUSR).map(File::from).map_err(io::Error::from)
        };
        let shared =
            fs::create_dir_all(&own).and_then(|()| share_bytes(&nameless(&own)?, &nameless(folder)?));
        let _ = fs::remove_dir(&own);
        if shared.is_ok() { Copies::Shared } else { Copies::Blobs }
    }

    /// Whether all of a blob is held in a copy.
    pub(crate) fn has_in_copy(&self, root: &Root) -> bool {
        let own = self.copies();
        self.whole_places(root).iter().any(|place| place.path().starts_with(&own))
    }

    fn copies(&self) -> PathBuf {
        self.0.root.with_file_name("copies")
    }

    /// A copy of a file that shares its bytes, until either is written to. `None`: the file system cannot do that.
    ///
    /// # Errors
    /// Where the copy's folder or the copy cannot be made.
    pub fn share(&self, file: &File) -> Result<Option<PathBuf>, StoreError> {
        let folder = self.copies();
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
