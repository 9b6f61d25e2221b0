//! What a user has done to the files of a channel: one that was deleted or edited since it was written stays so, and is not fetched again
//! by itself, as long as the channel says the same of it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use megatorrent_core::manifest::{FileEntry, Manifest, Reference};
use megatorrent_core::parts::PART_LEN;

use crate::export::{ExportError, digest};
use crate::held::HeldFile;
use crate::held::table::{Stat, hex};
use crate::outputs::real_path;
use crate::state::{FileRecord, State};
use crate::store::{Store, boot_id};

/// A file that is left as the user has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number in the manifest.
    pub file: usize,
    /// Where it stood.
    pub path: PathBuf,
    /// What was done to it.
    pub deed: Deed,
}

/// What a user did to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It was deleted, or moved away.
    Deleted,
    /// It was written to, or something else was put in its place.
    Edited,
}

impl Deed {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Edited => "edited",
        }
    }
}

/// Looks at an output folder.
#[derive(Clone, Copy, Debug)]
pub struct Survey<'a> {
    /// The node's blobs, and what knows which files are held.
    pub store: &'a Store,
    /// What knows which files were written.
    pub state: &'a State,
    /// The output folder.
    pub out_dir: &'a Path,
}

impl Survey<'_> {
    /// Whether nothing was ever written to the folder, and nothing is in it.
    pub fn is_new(&self) -> Result<bool, ExportError> {
        let real = real_path(self.out_dir);
        let is_empty = match fs::read_dir(&real) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        Ok(is_empty && !self.state.has_files_below(&real).map_err(ExportError::State)?)
    }

    /// The files of a version that are left as the user has them. Those that were deleted are held no longer.
    ///
    /// # Errors
    /// Where the state cannot be used, and where it was cancelled.
    pub fn kept(&self, manifest: &Manifest, cancel: &AtomicBool) -> Result<Vec<Kept>, ExportError> {
        let real = real_path(self.out_dir);
        let (mut kept, mut paths) = (Vec::new(), BTreeSet::new());
        for (file, entry) in manifest.files().enumerate() {
            if cancel.load(Relaxed) {
                return Err(ExportError::Cancelled);
            }
            let is_file = matches!(entry.reference, Reference::Extents(_) | Reference::Chunks(_));
            if !is_file || !paths.insert(entry.path.as_str()) {
                continue;
            }
            let path = real.join(entry.path.as_str());
            if let Some(deed) = self.deed(entry, &path, digest(entry, &manifest.packs), cancel)? {
                kept.push(Kept { file, path, deed });
            }
        }
        Ok(kept)
    }

    /// What was done to the file that was written at a path for this entry.
    fn deed(
        &self,
        entry: &FileEntry,
        path: &Path,
        digest: [u8; 32],
        cancel: &AtomicBool,
    ) -> Result<Option<Deed>, ExportError> {
        let record = self.state.file(path).map_err(ExportError::State)?;
        let record = record.filter(|record| record.digest == digest);
        let held = self.store.held_files().at(path).filter(|it| it.header().digest == Some(hex(&digest)));
        if record.is_none() && held.is_none() {
            return Ok(None);
        }
        // What was not on the disk when the machine went down is no deed of the user's.
        let boot = boot_id();
        let is_of_old = |known: &Option<String>| known.is_some() && *known != boot;
        let is_unsure = record.as_ref().is_some_and(|it| is_of_old(&it.boot))
            || held.as_ref().is_some_and(|it| is_of_old(&it.header().boot));
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                if is_unsure {
                    if let Some(held) = &held {
                        self.store.held_files().forget(held);
                    }
                    return Ok(None);
                }
                self.forget(path, record.as_ref(), held.as_ref(), digest)?;
                return Ok(Some(Deed::Deleted));
            }
            // What cannot be looked at is none of the user's deeds.
            Err(_) => return Ok(None),
        };
        let written = FileRecord::of(&found, digest, boot);
        let is_as_written = |record: &FileRecord| {
            (record.size, record.modified) == (written.size, written.modified) && found.is_file()
        };
        if record.as_ref().is_some_and(is_as_written) {
            return Ok(None);
        }
        let stat = Stat::from(&found);
        if is_unsure || self.store.held_files().wrote(path, &stat) {
            return Ok(None);
        }
        if !found.is_file() || found.len() != entry.size {
            return Ok(Some(Deed::Edited));
        }
        // It was touched, or nobody knows when it was written: its bytes tell.
        let Some(held) = held else { return Ok(None) };
        if !is_right(&held, cancel)? {
            return Ok(Some(Deed::Edited));
        }
        self.state.persist_file(path, &written).map_err(ExportError::State)?;
        Ok(None)
    }

    /// That it was there stays known, and is all that stays.
    fn forget(
        &self,
        path: &Path,
        record: Option<&FileRecord>,
        held: Option<&Arc<HeldFile>>,
        digest: [u8; 32],
    ) -> Result<(), ExportError> {
        let Some(held) = held else { return Ok(()) };
        if record.is_none() {
            let record = FileRecord { size: held.len(), modified: (0, 0), digest, boot: None };
            self.state.persist_file(path, &record).map_err(ExportError::State)?;
        }
        self.store.held_files().forget(held);
        Ok(())
    }
}

/// Whether all that a file holds comes out right.
fn is_right(held: &Arc<HeldFile>, cancel: &AtomicBool) -> Result<bool, ExportError> {
    let (look, mut buf) = (held.look(), vec![0; PART_LEN]);
    for number in 0..held.rows() {
        if cancel.load(Relaxed) {
            return Err(ExportError::Cancelled);
        }
        look.row(number, &mut buf);
    }
    let seen = look.end();
    Ok(seen.stat.is_ok() && seen.lost_bytes == 0)
}
