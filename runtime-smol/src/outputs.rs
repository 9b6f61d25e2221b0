//! The files of a version into which parts are opened as they come, and those that stand at their places already.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use megatorrent_core::ids::Topic;
use megatorrent_core::manifest::{FileEntry, Manifest};

use crate::export::{self, ExportError, Standing};
use crate::held::HeldFile;
use crate::held::table::{folder_id, hex};
use crate::state::State;
use crate::store::{Store, lock};

/// Files that stand at their places and are kept open; at the cap all are closed, and opened again when they are needed.
const STANDING_OPEN_MAX: usize = 64;

/// Where the files of a version go. Each is opened when the first part of it comes.
pub struct Plan {
    manifest: Arc<Manifest>,
    /// The collection and the item of each file, in the manifest's order.
    entries: Vec<(usize, usize)>,
    out_dir: PathBuf,
    /// Files that a user asked for again, though what stands at their places was edited.
    restored: BTreeSet<usize>,
    /// The device and inode of the output folder, once it was looked at: into another one nothing is written.
    folder: Mutex<Option<(u64, u64)>>,
    /// By number in the manifest; `None`: it cannot be opened, and what comes of it is stored.
    files: Mutex<BTreeMap<usize, Option<Arc<HeldFile>>>>,
    /// Files that stand there already, likewise.
    standing: Mutex<Standings>,
}

#[derive(Default)]
struct Standings {
    open: BTreeMap<usize, Arc<Standing>>,
    none: BTreeSet<usize>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plan").field(&self.out_dir).finish()
    }
}

impl Plan {
    /// The files go below `out_dir`.
    pub fn new(manifest: Arc<Manifest>, out_dir: PathBuf) -> Self {
        let mut entries = Vec::new();
        for (collection, of) in manifest.collections.iter().enumerate() {
            let files = of.items.iter().enumerate().filter(|(_, item)| item.file().is_some());
            entries.extend(files.map(|(item, _)| (collection, item)));
        }
        Self {
            manifest,
            entries,
            out_dir,
            restored: BTreeSet::new(),
            folder: Mutex::default(),
            files: Mutex::default(),
            standing: Mutex::default(),
        }
    }

    /// These files are fetched though something else stands at their places, which was ours and was edited.
    #[must_use]
    pub fn restoring(self, files: BTreeSet<usize>) -> Self {
        Self { restored: files, ..self }
    }

    /// Makes the output folder where there is none, and looks whether it has room for the files that are not there, apart from those
    /// that are `left_out`.
    ///
    /// # Errors
    /// As [`export`](crate::export::export) has them, of the folder.
    pub fn check(&self, store: &Store, state: &State, left_out: &BTreeSet<usize>) -> Result<(), ExportError> {
        let out_dir = &self.out_dir;
        export::check_output(state, out_dir)?;
        fs::create_dir_all(out_dir).map_err(|e| ExportError::new("create", out_dir, e))?;
        *lock(&self.folder) = folder_id(out_dir);
        let free = rustix::fs::statvfs(out_dir).map_err(|e| ExportError::new("look at", out_dir, e))?;
        let (under_way, real) = (store.held_files().under_way(), out_dir.canonicalize());
        let real = real.map_err(|e| ExportError::new("open", out_dir, e))?;
        let is_there = |entry: &FileEntry| {
            let path = real.join(entry.path.as_str());
            under_way.contains(&path) || fs::symlink_metadata(&path).is_ok()
        };
        let files = self.manifest.files().enumerate();
        let missing = files.filter(|(n, entry)| !left_out.contains(n) && !is_there(entry));
        let needed = missing.map(|(_, entry)| entry.size).fold(0, u64::saturating_add);
        if needed > free.f_bavail.saturating_mul(free.f_frsize) {
            return Err(ExportError::NoSpace(out_dir.clone()));
        }
        Ok(())
    }

    /// Removes what is under way of files that this version does not have, or has with another content.
    pub(crate) fn tidy(&self, topic: &Topic, store: &Store) {
        let Ok(real) = self.out_dir.canonicalize() else { return };
        let topic = hex(&topic.0);
        let mut under_way = store.held_files().under_way_below(&real);
        under_way.retain(|_, file| file.header().topic.as_ref() == Some(&topic));
        if under_way.is_empty() {
            return;
        }
        for entry in self.manifest.files() {
            let digest = hex(&export::digest(entry, &self.manifest.packs));
            let path = real.join(entry.path.as_str());
            if under_way.get(&path).is_some_and(|file| file.header().digest == Some(digest)) {
                under_way.remove(&path);
            }
        }
        for file in under_way.values() {
            store.held_files().discard(file);
        }
    }

    fn entry(&self, number: usize) -> Option<&FileEntry> {
        let (collection, item) = *self.entries.get(number)?;
        self.manifest.collections.get(collection)?.items.get(item)?.file()
    }

    /// The device of the output folder, once it was looked at.
    pub(crate) fn device(&self) -> Option<u64> {
        lock(&self.folder).map(|(device, _)| device)
    }

    pub(crate) fn file(&self, topic: &Topic, store: &Store, number: usize) -> Option<Arc<HeldFile>> {
        let mut files = lock(&self.files);
        if let Some(known) = files.get(&number) {
            // One that is gone, though it was under way, is begun anew.
            let is_lost =
                known.as_ref().is_some_and(|it| it.header().working.is_some() && it.file().is_none());
            if !is_lost {
                return known.clone();
            }
        }
        let folder = *lock(&self.folder);
        if folder.is_some() && folder != folder_id(&self.out_dir) {
            // What comes meanwhile is stored.
            return None;
        }
        let entry = self.entry(number)?;
        let (packs, is_restored) = (&self.manifest.packs, self.restored.contains(&number));
        let opened = export::open_working((entry, packs), (store, topic), &self.out_dir, is_restored);
        let file = opened
            .inspect_err(|error| {
                let said = "a file is not written yet; its blobs are stored meanwhile";
                // An older version makes room in the end; of anything else the end of the file's export tells.
                if matches!(error, ExportError::Exists(_)) {
                    tracing::debug!(%error, "{said}");
                } else {
                    tracing::warn!(%error, "{said}");
                }
            })
            .ok();
        files.insert(number, file.clone());
        file
    }

    /// The file that stands at the place of one of the version's already.
    pub(crate) fn standing(&self, number: usize) -> Option<Arc<Standing>> {
        let mut standing = lock(&self.standing);
        if standing.none.contains(&number) {
            return None;
        }
        if let Some(known) = standing.open.get(&number) {
            return Some(Arc::clone(known));
        }
        let Some(found) = Standing::find(self.entry(number)?, &self.manifest.packs, &self.out_dir) else {
            standing.none.insert(number);
            return None;
        };
        if standing.open.len() >= STANDING_OPEN_MAX {
            standing.open.clear();
        }
        let found = Arc::new(found);
        standing.open.insert(number, Arc::clone(&found));
        Some(found)
    }
}

/// An output folder without links, also one that is not there (any more).
pub(crate) fn real_path(out_dir: &Path) -> PathBuf {
    let path = std::path::absolute(out_dir).unwrap_or_else(|_| out_dir.to_owned());
    let real = path.ancestors().find_map(|folder| {
        let rest = path.strip_prefix(folder).ok()?;
        Some(folder.canonicalize().ok()?.join(rest))
    });
    // A join with nothing ends in a slash.
    real.map_or(path.clone(), |real| real.components().collect())
}
