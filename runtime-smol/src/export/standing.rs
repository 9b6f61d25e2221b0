//! A file that stands where one of a channel's is to stand already.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use megatorrent_core::ids::Root;
use megatorrent_core::manifest::FileEntry;
use rustix::fs::{self as sys, Mode, OFlags};

use super::{ExportError, Found, Run, Target, check_name, check_size, digest, pieces};
use super::{Piece, Sealed};
use crate::held::HeldFile;
use crate::held::table::{Stat, hex};
use crate::store::{Store, lock};

/// Bytes that a disk writes all or none of.
const SECTOR: usize = 512;

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

/// What a file that stands at a target holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Exactly the entry's bytes.
    All,
    /// What a power cut may have left of them: their time, and nothing but them and zeros, so that nobody loses anything by having
    /// them all.
    Torn,
    /// Something else.
    Other,
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

/// Whether the bytes at `offset` of a file differ from the content by nothing but sectors of zeros.
fn lacks_sectors(bytes: &[u8], content: &[u8], offset: u64) -> bool {
    let into = usize::try_from(offset % SECTOR as u64).expect("less than a sector");
    // The first may have begun before.
    let first = (SECTOR - into).min(bytes.len());
    let ((first_bytes, bytes), (first_content, content)) = (bytes.split_at(first), content.split_at(first));
    let rest = bytes.chunks(SECTOR).zip(content.chunks(SECTOR));
    let mut all = std::iter::once((first_bytes, first_content)).chain(rest);
    all.all(|(sector, wanted)| sector == wanted || sector.iter().all(|byte| *byte == 0))
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

    /// Compares the file that stands at the target with the entry.
    pub(super) fn compare(&self, target: &Target, found: &Found) -> Result<Holds, ExportError> {
        let entry = self.request.entry;
        if !found.is_file || found.size != entry.size {
            return Ok(Holds::Other);
        }
        let file = target.open_file()?;
        // Seconds are what every file system can express. Without a time, zeros may be what another program has reserved.
        let may_be_torn =
            entry.modified_ms.is_some_and(|ms| i64::try_from(ms / 1000).ok() == Some(found.modified.0));
        let is_torn = AtomicBool::new(false);
        let is_of_it = self.for_each_piece(&|_| false, &|piece, content| {
            let mut bytes = vec![0; content.len()];
            match file.read_exact_at(&mut bytes, piece.offset) {
                Ok(()) if bytes == content => Ok(true),
                Ok(()) => {
                    is_torn.store(true, Relaxed);
                    Ok(may_be_torn && lacks_sectors(&bytes, content, piece.offset))
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                Err(e) => Err(ExportError::new("read", &target.path, e)),
            }
        })?;
        Ok(match (is_of_it, is_torn.into_inner()) {
            (true, false) => Holds::All,
            (true, true) => Holds::Torn,
            (false, _) => Holds::Other,
        })
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
