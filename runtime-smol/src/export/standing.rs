//! A file that stands where one of a channel's is to stand already.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use megatorrent_core::ids::Root;
use megatorrent_core::manifest::FileEntry;
use rustix::fs::{self as sys, Mode, OFlags};

use super::{ExportError, Run, Target, check_name, check_size, digest, pieces};
use super::{Piece, Sealed};
use crate::held::HeldFile;
use crate::held::table::{Stat, hex};
use crate::store::{Store, lock};

/// A regular file of the right size.
pub(crate) struct Standing {
    path: PathBuf,
    file: File,
    digest: String,
    /// What holds its blobs, once one of them came out right.
    held: Mutex<Option<Arc<HeldFile>>>,
}

impl Standing {
    pub(crate) fn find(entry: &FileEntry, packs: &BTreeMap<u32, Root>, out_dir: &Path) -> Option<Self> {
        check_name(entry, out_dir).and_then(|()| check_size(entry, out_dir)).ok()?;
        let target = Target::find(out_dir, entry.path.as_str())?;
        let found = target.stat().ok()??;
        if !found.is_file || found.size != entry.size || entry.size == 0 {
            return None;
        }
        let file = target.open_file().ok()?;
        let is_same = file.metadata().is_ok_and(|it| it.is_file() && it.len() == entry.size);
        let digest = hex(&digest(entry, packs));
        is_same.then(|| Self { path: target.path, file, digest, held: Mutex::default() })
    }

    /// Reads the content of a blob that would begin at `offset`. `false`: the file ends before it does.
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        match self.file.read_exact_at(buf, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| true),
        }
    }

    /// What holds its blobs, from here on.
    pub(crate) fn held(&self, store: &Store) -> io::Result<Arc<HeldFile>> {
        let mut held = lock(&self.held);
        if let Some(held) = &*held {
            return Ok(Arc::clone(held));
        }
        let known = store.held_files().at(&self.path).filter(|file| {
            let header = file.header();
            let is_same = || Stat::of(&self.file).is_ok_and(|stat| stat == header.stat);
            header.digest.as_ref() == Some(&self.digest) && is_same()
        });
        let file = if let Some(known) = known {
            known
        } else {
            let file = store.hold_file(&self.path, self.file.try_clone()?, Some(self.digest.clone()))?;
            store.held_files().replaced(&file);
            file
        };
        *held = Some(Arc::clone(&file));
        Ok(file)
    }
}

impl Target {
    /// Opens the regular file that stands there.
    pub(super) fn open_file(&self) -> Result<File, ExportError> {
        // Without O_NONBLOCK, opening what has become a pipe since would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = sys::openat(&self.folder.fd, &self.name, flags, Mode::empty());
        file.map(File::from).map_err(|e| ExportError::new("open", &self.path, e))
    }
}

impl Run<'_> {
    /// What is held at the target and was not touched since, as this entry.
    fn held_at(&self, target: &Target, digest: &[u8; 32]) -> Option<Arc<HeldFile>> {
        let held = self.request.store.held_files().at(&target.path)?;
        let header = held.header();
        let stands = std::fs::symlink_metadata(&target.path).is_ok_and(|it| Stat::from(&it) == header.stat);
        (stands && header.digest == Some(hex(digest))).then_some(held)
    }

    /// Whether all of the entry is held in the file that stands at the target, so that it need not be compared.
    pub(super) fn is_held(&self, target: &Target, digest: &[u8; 32]) -> Result<bool, ExportError> {
        let Some(held) = self.held_at(target, digest) else { return Ok(false) };
        for piece in pieces(self.request) {
            let Piece { sealed, offset } = piece?;
            match sealed {
                Sealed::Blob(blob, _) if self.request.store.is_held_in(&held, &blob.root, offset) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether something of the file that stands at the target was withdrawn.
    pub(super) fn has_lost(&self, target: &Target, digest: &[u8; 32]) -> Result<bool, ExportError> {
        let held = self.request.store.held_files().at(&target.path);
        let Some(held) = held.filter(|held| held.header().digest == Some(hex(digest))) else {
            return Ok(false);
        };
        let failed = |e| ExportError::new("read the table of", &target.path, e);
        held.is_whole().map(|is_whole| !is_whole).map_err(failed)
    }
}
