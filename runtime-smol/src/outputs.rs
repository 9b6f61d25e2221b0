//! The files of a version into which parts are opened as they come.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use megatorrent_core::manifest::{FileEntry, Manifest};

use crate::export::{self, ExportError};
use crate::held::HeldFile;
use crate::held::table::folder_id;
use crate::state::State;
use crate::store::{Store, lock};

/// Where the files of a version go. Each is opened when the first part of it comes.
pub struct Plan {
    manifest: Arc<Manifest>,
    out_dir: PathBuf,
    /// The device and inode of the output folder, once it was looked at: into another one nothing is written.
    folder: Mutex<Option<(u64, u64)>>,
    /// By number in the manifest; `None`: it cannot be opened, and what comes of it is stored.
    files: Mutex<BTreeMap<usize, Option<Arc<HeldFile>>>>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plan").field(&self.out_dir).finish()
    }
}

impl Plan {
    /// The files go below `out_dir`.
    pub fn new(manifest: Arc<Manifest>, out_dir: PathBuf) -> Self {
        Self { manifest, out_dir, folder: Mutex::default(), files: Mutex::default() }
    }

    /// Makes the output folder where there is none, and looks whether it has room for the files that are not there.
    ///
    /// # Errors
    /// As [`export`](crate::export::export) has them, of the folder.
    pub fn check(&self, store: &Store, state: &State) -> Result<(), ExportError> {
        let out_dir = &self.out_dir;
        export::check_output(state, out_dir)?;
        fs::create_dir_all(out_dir).map_err(|e| ExportError::new("create", out_dir, e))?;
        *lock(&self.folder) = folder_id(out_dir);
        let free = rustix::fs::statvfs(out_dir).map_err(|e| ExportError::new("look at", out_dir, e))?;
        let (under_way, real) = (store.held_files().under_way(), out_dir.canonicalize());
        let real = real.map_err(|e| ExportError::new("open", out_dir, e))?;
        let is_there = |entry: &&FileEntry| {
            let path = real.join(entry.path.as_str());
            under_way.contains(&path) || fs::symlink_metadata(&path).is_ok()
        };
        let needed = self.manifest.files().filter(|entry| !is_there(entry)).map(|entry| entry.size);
        let needed = needed.fold(0, u64::saturating_add);
        if needed > free.f_bavail.saturating_mul(free.f_frsize) {
            return Err(ExportError::NoSpace(out_dir.clone()));
        }
        Ok(())
    }

    /// The device of the output folder, once it was looked at.
    pub(crate) fn device(&self) -> Option<u64> {
        lock(&self.folder).map(|(device, _)| device)
    }

    pub(crate) fn file(&self, store: &Store, number: usize) -> Option<Arc<HeldFile>> {
        let mut files = lock(&self.files);
        if let Some(known) = files.get(&number) {
            return known.clone();
        }
        let folder = *lock(&self.folder);
        if folder.is_some() && folder != folder_id(&self.out_dir) {
            // What comes meanwhile is stored.
            return None;
        }
        let entry = self.manifest.files().nth(number)?;
        let opened = export::open_working(entry, &self.manifest.packs, store, &self.out_dir);
        let file = opened
            .inspect_err(
                |error| tracing::warn!(%error, "a file is not written yet; its blobs are stored meanwhile"),
            )
            .ok();
        files.insert(number, file.clone());
        file
    }
}
