//! Files that are held in place: finished where their parts were opened, or taken as they stand there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use megatorrent_core::ids::{Root, Topic};
use megatorrent_core::manifest::FileEntry;
use rustix::fs::{self as sys, AtFlags, Mode, OFlags};

use super::aside::take_place;
use super::{
    Copies, ExportError, Exported, Found, Piece, Run, Sealed, Stands, Target, boot, check_name, check_size,
    digest, pieces,
};
use crate::held::HeldFile;
use crate::held::table::{Header, Stat, hex};
use crate::held::working::working_name;
use crate::store::{Store, lock, reserve};

impl Run<'_> {
    /// Makes the file of what came into it already and of what is stored, and holds it there.
    pub(super) fn write_in_place(
        &self,
        target: &Target,
        digest: [u8; 32],
        stands: Stands,
    ) -> Result<Exported, ExportError> {
        let store = self.request.store;
        let topic = self.request.topic.as_ref();
        let (held, is_new) = working(target, self.request.entry, (store, topic), digest)?;
        let written = self.fill(target, &held, digest, stands);
        if written.is_err() && is_new {
            // Nothing came into it that is not stored.
            if let Some(name) = held.header().working {
                let _ = sys::unlinkat(&target.folder.fd, &name, AtFlags::empty());
                store.held_files().forget(&held);
            }
        }
        written
    }

    fn fill(
        &self,
        target: &Target,
        held: &Arc<HeldFile>,
        digest: [u8; 32],
        stands: Stands,
    ) -> Result<Exported, ExportError> {
        let store = self.request.store;
        let failed = |what| move |e: io::Error| ExportError::new(what, &target.path, e);
        let file = held.file().ok_or_else(|| ExportError::Busy(target.path.clone()))?;
        // Nothing else need be kept of these.
        let in_place = Mutex::new(Vec::new());
        let is_there = |piece: &Piece| match &piece.sealed {
            Sealed::Blob(blob, _) if store.is_held_in(held, &blob.root, piece.offset) => {
                lock(&in_place).push(blob.root);
                true
            }
            Sealed::Blob(..) | Sealed::Slice(..) | Sealed::Chunk(_) => false,
        };
        self.for_each_piece(&is_there, &|piece, content| {
            file.write_all_at(content, piece.offset).map_err(failed("write"))?;
            if let Sealed::Blob(blob, len) = &piece.sealed {
                let len = u32::try_from(*len).expect("a blob holds at most 2^20 bytes");
                store.hold(held, (blob, len), piece.offset).map_err(failed("write the table of"))?;
                lock(&in_place).push(blob.root);
            }
            Ok(true)
        })?;
        self.set_modified(&file);
        if self.request.sync {
            file.sync_all().map_err(failed("flush"))?;
        }
        let mut header = held.header();
        let name = header.working.clone().unwrap_or_default();
        // By this it is known as ours until the table says that it has its name.
        (header.stat, header.boot) = (Stat::of(&file).map_err(failed("look at"))?, Some(boot()));
        held.set_header(header.clone()).map_err(failed("write the table of"))?;
        let aside = take_place(target, &name, stands)?;
        if self.request.sync {
            // The name too, before the record that vouches for it.
            sys::fsync(&target.folder.fd).map_err(|e| failed("flush the folder of")(e.into()))?;
        }
        let stat = Stat::of(&file).map_err(failed("look at"))?;
        let boot = if self.request.sync { None } else { Some(boot()) };
        (header.working, header.stat, header.boot) = (None, stat, boot);
        held.set_header(header).map_err(failed("write the table of"))?;
        store.held_files().replaced(held);
        for root in lock(&in_place).drain(..) {
            store.drop_copy(&root).map_err(failed("remove a blob of"))?;
        }
        let found = Found::of(&file.metadata().map_err(failed("look at"))?);
        self.remember(target, digest, &found)?;
        store.note_written(held);
        Ok(aside.map_or(Exported::Written, Exported::SetAside))
    }

    /// Holds a file that stands there with the right content.
    pub(super) fn hold(&self, target: &Target, digest: [u8; 32]) -> Result<(), ExportError> {
        let store = self.request.store;
        let failed = |what| move |e: io::Error| ExportError::new(what, &target.path, e);
        let held = store.hold_file(&target.path, target.open_file()?, Some(hex(&digest)));
        let held = held.map_err(failed("write the table of"))?;
        let roots = self.hold_blobs(target, &held)?;
        store.held_files().replaced(&held);
        roots.iter().try_for_each(|root| store.drop_copy(root)).map_err(failed("remove a blob of"))
    }

    /// Counts all blobs as held in a file that has the right content; their roots.
    fn hold_blobs(&self, target: &Target, held: &HeldFile) -> Result<Vec<Root>, ExportError> {
        let store = self.request.store;
        let mut roots = Vec::new();
        for piece in pieces(self.request) {
            if let Piece { sealed: Sealed::Blob(blob, len), offset } = piece? {
                let len = u32::try_from(len).expect("a blob holds at most 2^20 bytes");
                let is_held = store.hold(held, (&blob, len), offset);
                is_held.map_err(|e| ExportError::new("write the table of", &target.path, e))?;
                roots.push(blob.root);
            }
        }
        Ok(roots)
    }

    /// Holds a copy besides that shares the bytes of the file that stands there, where one is wanted and there is none.
    pub(super) fn keep_copy(&self, target: &Target, digest: [u8; 32]) -> Result<(), ExportError> {
        let store = self.request.store;
        if self.request.copies != Copies::Shared || self.has_copy()? {
            return Ok(());
        }
        let failed = |what| move |e: io::Error| ExportError::new(what, &target.path, e);
        let Some(path) = store.share(&target.open_file()?)? else {
            return Err(failed("share the bytes of")(io::ErrorKind::Unsupported.into()));
        };
        let held = File::open(&path).and_then(|file| store.hold_file(&path, file, Some(hex(&digest))));
        let held =
            held.inspect_err(|_| store.unshare(&path)).map_err(failed("write the table of a copy of"))?;
        self.hold_blobs(target, &held).map(drop).inspect_err(|_| {
            store.held_files().forget(&held);
            store.unshare(&path);
        })
    }

    /// Whether copies hold all blobs.
    fn has_copy(&self) -> Result<bool, ExportError> {
        for piece in pieces(self.request) {
            if let Sealed::Blob(blob, _) = piece?.sealed
                && !self.request.store.has_in_copy(&blob.root)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The file under way of an entry that nothing stands in the way of, so that parts can be opened into it as they come. What stands
/// there of one that is restored is set aside in the end.
pub(crate) fn open_working(
    (entry, packs): (&FileEntry, &BTreeMap<u32, Root>),
    (store, topic): (&Store, &Topic),
    out_dir: &Path,
    is_restored: bool,
) -> Result<Arc<HeldFile>, ExportError> {
    check_name(entry, out_dir)?;
    check_size(entry, out_dir)?;
    let target = Target::open(out_dir, entry.path.as_str())?;
    if !is_restored && target.stat()?.is_some() {
        return Err(ExportError::Exists(target.path));
    }
    working(&target, entry, (store, Some(topic)), digest(entry, packs)).map(|(held, _)| held)
}

/// The file under way: the one of an earlier time, or a new one (`true`).
fn working(
    target: &Target,
    entry: &FileEntry,
    (store, topic): (&Store, Option<&Topic>),
    digest: [u8; 32],
) -> Result<(Arc<HeldFile>, bool), ExportError> {
    let digest = hex(&digest);
    if let Some(known) = store.held_files().working(&target.path, &digest) {
        if known.file().is_some() {
            return Ok((known, false));
        }
        if !known.is_gone() {
            return Err(ExportError::Busy(target.path.clone()));
        }
        store.held_files().forget(&known);
    }
    for number in store.held_files().orphans() {
        let _ = sys::unlinkat(&target.folder.fd, working_name(number), AtFlags::empty());
    }
    let folder = target.path.parent().unwrap_or(Path::new("/"));
    let created = store.held_files().create(folder, |number| {
        let name = working_name(number);
        let mode = Mode::from_raw_mode(if entry.executable { 0o777 } else { 0o666 });
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&target.folder.fd, &name, flags, mode)?);
        let sized = reserve(&file, entry.size).and_then(|()| file.set_len(entry.size));
        if let Err(error) = sized {
            let _ = sys::unlinkat(&target.folder.fd, &name, AtFlags::empty());
            return Err(error);
        }
        let stat = Stat::of(&file)?;
        let mut header = Header::new(&target.path, stat);
        (header.working, header.digest, header.boot) = (Some(name), Some(digest), Some(boot()));
        header.topic = topic.map(|topic| hex(&topic.0));
        Ok((file, header))
    });
    created.map(|held| (held, true)).map_err(|e| ExportError::new("create a file beside", &target.path, e))
}
