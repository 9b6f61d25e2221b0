//! Blobs that cannot be read at present, and the folder that they are in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::ids::{BlobName, Root};
use megatorrent_core::node::Job;

use super::{Store, StoreError, UNREADABLE_IDS_MAX, file_len, lock};
use crate::held::table::folder_id;
use crate::home;
use crate::losses::{Loss, Losses, What, is_no_handles, patiently};

/// The node's folder, which may be on a disk that goes and comes.
pub(super) struct HomeFolder {
    dir: PathBuf,
    /// What `store.id` says.
    id: Option<String>,
    /// What tells its device from others.
    device: u64,
    /// The device and inode under which it was seen last.
    seen: Mutex<Option<(u64, u64)>>,
}

impl HomeFolder {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let id = home::read_id(dir).map_err(|e| StoreError::new("read", &dir.join(home::STORE_ID), e))?;
        let seen = folder_id(dir);
        let device = seen.map_or(0, |(device, _)| device);
        Ok(Self { dir: dir.to_owned(), id, device, seen: Mutex::new(seen) })
    }

    /// Whether it is there: the same folder, or the same store on a disk that was mounted again.
    pub(super) fn is_there(&self) -> bool {
        let Some(found) = folder_id(&self.dir) else { return false };
        let mut seen = lock(&self.seen);
        if *seen != Some(found) {
            let is_same = self.id.is_some() && home::read_id(&self.dir).ok().flatten() == self.id;
            if !is_same {
                return false;
            }
            *seen = Some(found);
        }
        true
    }
}

impl Store {
    /// What cannot be read.
    pub(crate) fn losses(&self) -> &Losses {
        &self.0.losses
    }

    /// The file of a blob that is stored whole, as far as its length tells. That it is not there says nothing where the folder is not.
    pub(super) fn open_stored(&self, name: &BlobName, write: bool) -> io::Result<Option<File>> {
        let path = self.path(name);
        match patiently(|| File::options().read(true).write(write).open(&path)) {
            Ok(file) => Ok((file.metadata()?.len() == file_len(name)).then_some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                self.note_unreadable(name, &error);
                Err(error)
            }
        }
    }

    /// Takes note of what became of a read.
    pub(super) fn noted<T>(&self, name: &BlobName, read: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &read {
            self.note_unreadable(name, error);
        }
        read
    }

    fn note_unreadable(&self, name: &BlobName, error: &io::Error) {
        let path = self.path(name);
        let loss = if self.0.home.is_there() { Loss::of(error, || true) } else { Loss::FolderAbsent };
        match loss {
            Loss::NoHandles => self.0.losses.note(What::Handles, &path, loss, error),
            Loss::FolderAbsent => self.0.losses.note(What::Home, &self.0.home.dir, loss, error),
            _ => {
                let mut unreadable = lock(&self.0.unreadable);
                if unreadable.len() < UNREADABLE_IDS_MAX {
                    unreadable.insert(*name);
                }
                drop(unreadable);
                self.0.losses.note(What::Blobs, &path, Loss::DiskFailed, error);
            }
        }
    }

    /// Whether a read of the blob has failed, and it is not to be tried again yet.
    pub(super) fn is_unreadable(&self, name: &BlobName) -> bool {
        lock(&self.0.unreadable).contains(name)
            && (!self.0.losses.may_try(What::Blobs) || !self.is_readable_again(name))
    }

    fn is_readable_again(&self, name: &BlobName) -> bool {
        let is_readable = self.read_unchecked(name, &mut vec![0; BLOB_LEN]);
        match &is_readable {
            Ok(_) => {
                lock(&self.0.unreadable).remove(name);
            }
            Err(error) => self.note_unreadable(name, error),
        }
        is_readable.is_ok()
    }

    /// Whether the node's folder is not there. The user is told.
    fn is_away(&self) -> bool {
        let is_away = !self.0.home.is_there();
        if is_away {
            let error = io::Error::from(io::ErrorKind::NotFound);
            self.0.losses.note(What::Home, &self.0.home.dir, Loss::FolderAbsent, &error);
        }
        is_away
    }

    /// Whether a blob that was not found may be where nothing can be read at present.
    pub fn is_out_of_reach(&self, name: &BlobName) -> bool {
        self.is_away() || name.root().is_some_and(|root| self.0.held.is_out_of_reach(&root))
    }

    /// Refuses to make anything in a folder that is not the node's.
    pub fn check_home(&self) -> Result<(), StoreError> {
        if self.is_away() {
            let error = io::Error::new(io::ErrorKind::NotFound, "its disk is not mounted");
            return Err(StoreError::new("use", &self.0.home.dir, error));
        }
        Ok(())
    }

    /// Removes a blob whose bytes were found not to be what its name says; it is wanted again. `false`: a whole one stands in its
    /// place by now.
    pub(super) fn remove_damaged(&self, name: &BlobName) -> io::Result<bool> {
        let _moves = self.0.moves.write().unwrap_or_else(PoisonError::into_inner);
        let mut buf = vec![0; BLOB_LEN];
        if self.read_unchecked(name, &mut buf).unwrap_or(false) && blob::verify(name, &buf) {
            return Ok(false);
        }
        let path = self.path(name);
        if path.exists() {
            let number = u64::from_le_bytes(*name.as_bytes().first_chunk().expect("32 bytes"));
            self.remove(name)?;
            self.0.losses.note_wrong(number, &path, true);
        }
        Ok(true)
    }

    /// The device that a job waits for, as far as that is known without waiting for any.
    pub(crate) fn device_of(&self, job: &Job) -> u64 {
        let of_root = |root: &Root| self.0.held.device_of(root);
        let found = match job {
            Job::WritePart(root, _, _, _, stand) => {
                of_root(root).or_else(|| stand.as_deref().and_then(|stand| self.device_of_output(stand)))
            }
            Job::ReadPart(root, ..) | Job::FinishBlob(root, _) => of_root(root),
            Job::OpenBlob(blob, _) => of_root(&blob.root),
            Job::Have(names, _) => names.iter().find_map(|name| of_root(&name.root()?)),
            Job::ReadBlob(..) | Job::WriteBlob(..) | Job::NoteIds(_) | Job::Persist(..) | Job::Dht(_) => None,
        };
        found.unwrap_or(self.0.home.device)
    }

    /// Tries again what could not be read, where it is time. Touches the disk.
    pub fn try_losses_again(&self) {
        for what in self.0.losses.due() {
            match what {
                What::Handles => {
                    // One for each worker, and some for peers.
                    let opened: io::Result<Vec<File>> =
                        (0..4).map(|_| File::open(&self.0.home.dir)).collect();
                    match opened {
                        Err(error) if is_no_handles(&error) => {
                            self.0.losses.note(what, &self.0.home.dir, Loss::NoHandles, &error);
                        }
                        _ => self.0.losses.clear(what),
                    }
                }
                What::Home => {
                    if !self.is_away() {
                        self.0.losses.clear(what);
                    }
                }
                What::Blobs => self.try_blobs_again(),
                What::File(_) | What::Parts(_) => self.0.held.try_again(what),
            }
        }
    }

    /// Reads the blobs that could not be read, until one cannot again.
    fn try_blobs_again(&self) {
        let names: Vec<BlobName> = lock(&self.0.unreadable).iter().copied().collect();
        if names.iter().all(|name| self.is_readable_again(name)) {
            self.0.losses.clear(What::Blobs);
        }
    }
}

/// Whether a folder holds nothing.
pub(crate) fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use megatorrent_core::ids::BlobId;
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_blob_that_could_not_be_read_counts_as_stored_once_it_can() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path(), false).expect("it opens");
        let (id, blob) = (BlobName::V5(BlobId([7; 32])), vec![1; BLOB_LEN]);
        store.write(&id, &blob).expect("stored");
        store.note_unreadable(&id, &Errno::IO.into());
        assert!(!store.has(&id), "it is not tried again at once");
        let told = store.losses().take_news();
        assert!(matches!(&told[..], [news] if news.loss == Loss::DiskFailed), "{told:?}");
        store.try_blobs_again();
        assert!(store.has(&id) && lock(&store.0.unreadable).is_empty());
        assert!(matches!(&store.losses().take_news()[..], [news] if news.is_back));
        // Or it comes from a peer.
        store.note_unreadable(&id, &Errno::IO.into());
        store.write(&id, &blob).expect("stored again");
        assert!(store.has(&id) && lock(&store.0.unreadable).is_empty());
    }

    #[test]
    fn that_descriptors_have_run_out_says_nothing_of_a_blob() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path(), false).expect("it opens");
        let (id, blob) = (BlobName::V5(BlobId([7; 32])), vec![1; BLOB_LEN]);
        store.write(&id, &blob).expect("stored");
        store.note_unreadable(&id, &Errno::MFILE.into());
        assert!(store.has(&id));
        assert!(matches!(&store.losses().take_news()[..], [news] if news.loss == Loss::NoHandles));
    }
}
