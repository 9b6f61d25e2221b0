//! The blob store: `DIR/blobs/ab/<64 hex digits>`, one file for each blob, named by the root of a native blob and the id of a v5 one.
//! Behind the bytes of a native blob stand its values and, once they were hashed, its id (`native.rs`).
//!
//! A blob is written to a temporary file and renamed, so that whatever kills the process, a file under a blob's name
//! is whole. Only a machine that goes down can tear a renamed file whose bytes had not reached the disk. The file
//! `blobs/boot` therefore names the boot in which blobs were last written. When a store opens in a later boot, no
//! blob is believed before it was hashed once ([`Store::check_all`] ends that state for good); after a mere kill
//! nothing needs hashing. What a disk spoils afterwards is found by chance: some of the reads are hashed.
//!
//! Several processes may use one store at once (`ingest` beside a running node): each holds a shared lock on
//! `blobs/boot`, and only who is alone clears away what a killed process left.

mod behind;
mod copies;
mod in_place;
mod native;
mod reach;
mod standing;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::ids::{BlobId, BlobName, Root, Topic};
use megatorrent_core::node::Written;
use megatorrent_core::parts::Values;

use crate::held::{HeldFile, HeldFiles};
use crate::losses::Losses;
use crate::outputs::Plan;
pub(crate) use reach::is_empty;
pub(crate) use verify::BLOB_FOLDERS;

/// Ids remembered as checked while the store is not yet trusted (some 3 MiB). At the cap they are forgotten, and a
/// blob that is used again is hashed again.
const CHECKED_IDS_MAX: usize = 65_536;
/// One in so many reads is hashed, which costs next to nothing: a blob that the disk has spoilt goes to few peers, each of
/// which would ban us for it.
const READS_PER_CHECK: u64 = 16;
/// Blobs remembered that could not be read; at the cap further ones still count as stored.
const UNREADABLE_IDS_MAX: usize = 4096;
/// Failures to write that come sooner after another are not told again.
const FAILURES_APART: Duration = Duration::from_secs(10);
/// Folders for temporary files, used in turn: threads that create files in one folder wait for each other.
const TEMP_FOLDERS: u64 = 16;
/// Content of `blobs/boot` when all blobs have reached the disk.
const SYNCED: &str = "synced";
/// Content of `blobs/boot` where the system does not tell one boot from another; it never counts as the same boot.
const UNKNOWN_BOOT: &str = "unknown";
/// Longest content of `blobs/boot` that is read.
const BOOT_LEN_MAX: u64 = 256;
/// `blobs/format` says in which form the blobs are stored.
const FORMAT: &str = "2\n";

/// Why a blob could not be stored.
#[derive(Debug)]
pub enum StoreError {
    /// No space or quota is left at this path.
    NoSpace(PathBuf),
    /// The disk failed: what was done, to what, and the system's error.
    Io(&'static str, PathBuf, io::Error),
    /// The blobs here are stored in another form.
    Format(PathBuf),
}

impl StoreError {
    /// Sorts the system's error into the two kinds. `what` is a verb: "write", "rename".
    pub(crate) fn new(what: &'static str, path: &Path, error: io::Error) -> Self {
        if is_no_space(&error) {
            Self::NoSpace(path.to_owned())
        } else {
            Self::Io(what, path.to_owned(), error)
        }
    }
}

/// Whether the system refused for want of space or quota.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace(path) => {
                write!(f, "no space is left for {}: free some, or use another folder (-d)", path.display())
            }
            Self::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", path.display()),
            Self::Format(path) => write!(
                f,
                "{} holds blobs in a form that this program does not know: use the program that wrote them, or another \
                 folder (-d)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoSpace(_) | Self::Format(_) => None,
            Self::Io(_, _, error) => Some(error),
        }
    }
}

/// A blob store, cheap to clone and meant for worker threads: every call may touch the disk.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    /// `DIR/blobs`.
    root: PathBuf,
    /// `blobs/boot`, locked as long as the store lives.
    boot_file: Mutex<File>,
    /// Whether `blobs/boot` names this boot, or an earlier one after which a check is still due.
    boot_marked: AtomicBool,
    /// Which of the 256 folders exist for sure.
    folders: [AtomicBool; 256],
    /// Number of the next temporary file.
    next_temp: AtomicU64,
    /// Whether blobs are hashed before their first use.
    checking: AtomicBool,
    /// The blobs that were hashed and found whole, while `checking`.
    checked: Mutex<BTreeSet<BlobName>>,
    /// Blobs that the disk failed to read: they are not stored unless it reads them again.
    unreadable: Mutex<BTreeSet<BlobName>>,
    /// Written to while a blob that was found torn is removed, read while one gets its name.
    moves: RwLock<()>,
    /// Reads so far.
    reads: AtomicU64,
    /// Bytes of files that stand where a channel's are to stand, looked at so far.
    looked_at: AtomicU64,
    /// What could not be written last, and when.
    last_failure: Mutex<Option<(Instant, Arc<StoreError>)>>,
    /// Native blobs of which parts are stored.
    partials: native::Partials,
    /// Files that hold blobs.
    held: HeldFiles,
    /// Who syncs files behind.
    syncs: Mutex<Option<Sender<Weak<HeldFile>>>>,
    /// What cannot be read.
    losses: Arc<Losses>,
    /// The folder as it was at the start, or when it was back.
    home: reach::HomeFolder,
    /// Where the files of versions go, by swarm and sequence.
    outputs: Mutex<BTreeMap<(Topic, u64), Arc<Plan>>>,
}

impl Store {
    /// Opens the store in `dir`, creating `dir/blobs` where there is none. `check` asks that each blob be hashed
    /// before its first use even where nothing tells that the machine went down.
    pub fn open(dir: &Path, check: bool) -> Result<Self, StoreError> {
        let root = dir.join("blobs");
        let temps = (0..TEMP_FOLDERS).map(|number| temp_folder(&root, number));
        for temp in temps.clone() {
            fs::create_dir_all(&temp).map_err(|e| StoreError::new("create", &temp, e))?;
        }
        check_format(&root)?;
        let boot_path = root.join("boot");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut boot_file = options.open(&boot_path).map_err(|e| StoreError::new("open", &boot_path, e))?;
        let losses = Arc::<Losses>::default();
        let held = HeldFiles::open(dir, Arc::clone(&losses))?;
        let home = reach::HomeFolder::open(dir)?;
        if boot_file.try_lock().is_ok() {
            temps.for_each(|temp| remove_files(&temp));
            held.clean();
        }
        // From exclusive to shared. A file system without locks only loses the clearing above and `sync`'s mark.
        let _ = boot_file.lock_shared();
        let mut last = String::new();
        let read = (&mut boot_file).take(BOOT_LEN_MAX).read_to_string(&mut last);
        let same_boot = boot_id().is_some_and(|id| id == last);
        let fresh = last.is_empty() && !has_folder(&root).map_err(|e| StoreError::new("list", &root, e))?;
        let trusted = read.is_ok() && (last == SYNCED || same_boot || fresh);
        Ok(Self(Arc::new(Inner {
            root,
            boot_file: Mutex::new(boot_file),
            boot_marked: AtomicBool::new(same_boot || !trusted),
            folders: [const { AtomicBool::new(false) }; 256],
            next_temp: AtomicU64::new(0),
            checking: AtomicBool::new(check || !trusted),
            checked: Mutex::new(BTreeSet::new()),
            unreadable: Mutex::new(BTreeSet::new()),
            moves: RwLock::default(),
            reads: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            last_failure: Mutex::default(),
            partials: native::Partials::open(dir)?,
            held,
            syncs: Mutex::default(),
            losses,
            home,
            outputs: Mutex::default(),
        })))
    }

    /// Whether blobs are hashed before their first use, since the machine may have gone down while some were
    /// written. A node that stays should then run [`Self::check_all`] on a thread of its own.
    pub fn is_checking(&self) -> bool {
        self.0.checking.load(Relaxed)
    }

    /// Whether the blob is stored whole, or held in a file.
    pub fn has(&self, id: &BlobName) -> bool {
        self.has_stored(id) || id.root().is_some_and(|root| !self.whole_places(&root).is_empty())
    }

    /// Whether the blob is stored whole.
    fn has_stored(&self, id: &BlobName) -> bool {
        if self.is_unreadable(id) {
            return false;
        }
        if self.needs_check(id) {
            return self.read_stored(id, &mut vec![0; BLOB_LEN]).unwrap_or(false);
        }
        fs::metadata(self.path(id)).is_ok_and(|m| m.is_file() && m.len() == file_len(id))
    }

    /// Reads a blob into `buf`, [`BLOB_LEN`] bytes. `false`: it is not stored. A file of another length is no blob:
    /// it counts as absent, and the next [`Self::write`] replaces it; so does one that cannot be read.
    pub fn read(&self, id: &BlobName, buf: &mut [u8]) -> io::Result<bool> {
        assert_eq!(buf.len(), BLOB_LEN, "a blob has one length");
        if self.read_stored(id, buf)? {
            return Ok(true);
        }
        id.root().map_or(Ok(false), |root| self.read_held(&root, buf))
    }

    fn read_stored(&self, id: &BlobName, buf: &mut [u8]) -> io::Result<bool> {
        let read = self.read_unchecked(id, buf);
        if !self.noted(id, read)? {
            return Ok(false);
        }
        let is_due = self.0.reads.fetch_add(1, Relaxed) % READS_PER_CHECK == READS_PER_CHECK - 1;
        if is_due || self.needs_check(id) {
            if !blob::verify(id, buf) {
                self.remove_damaged(id)?;
                return Ok(false);
            }
            if self.is_checking() {
                self.note_checked(id);
            }
        }
        Ok(true)
    }

    /// Stores a blob without looking at its hash. One that is stored already is not written again.
    ///
    /// # Panics
    /// Where `blob` is not [`BLOB_LEN`] bytes long.
    pub fn write(&self, name: &BlobName, blob: &[u8]) -> Result<(), StoreError> {
        assert_eq!(blob.len(), BLOB_LEN, "a blob has one length");
        match name {
            BlobName::V5(_) => self.write_file(name, &[blob]),
            BlobName::Native(root) => self.write_native(root, &Values::of(blob), None, blob),
        }
    }

    /// Stores the file of a blob, in pieces.
    fn write_file(&self, name: &BlobName, pieces: &[&[u8]]) -> Result<(), StoreError> {
        if self.has(name) {
            return Ok(());
        }
        self.mark_boot()?;
        self.ensure_folder(name)?;
        let number = self.0.next_temp.fetch_add(1, Relaxed);
        let temp = temp_folder(&self.0.root, number).join(format!("{}-{number}", std::process::id()));
        let written =
            write_new(&temp, pieces).map_err(|e| StoreError::new("write a blob in", &self.0.root, e));
        let result = written.and_then(|()| self.move_in(&temp, name));
        if result.is_err() {
            let _ = fs::remove_file(&temp);
        }
        result
    }

    /// Gives a file that holds a whole blob its name.
    fn move_in(&self, from: &Path, name: &BlobName) -> Result<(), StoreError> {
        let path = self.path(name);
        // Whoever looked at a torn file of that name must not remove this one.
        let naming = self.0.moves.read().unwrap_or_else(PoisonError::into_inner);
        let moved = fs::rename(from, &path).map_err(|e| StoreError::new("rename a blob to", &path, e));
        if moved.is_err() {
            // Somebody may have removed the folder.
            self.0.folders[usize::from(name.as_bytes()[0])].store(false, Relaxed);
        } else {
            lock(&self.0.unreadable).remove(name);
            if self.is_checking() {
                self.note_checked(name);
            }
        }
        drop(naming);
        moved
    }

    /// Stores a blob that a peer was asked for by an id, if its bytes are those of its name.
    pub fn verify_and_write(&self, name: &BlobName, id: &BlobId, blob: &[u8]) -> Written {
        if blob.len() != BLOB_LEN || !blob::verify(name, blob) {
            // A native blob's author may have said that it has an id which is another blob's.
            let is_of_id = blob.len() == BLOB_LEN && blob::id(blob) == *id;
            return if is_of_id { Written::NotOfRoot } else { Written::Mismatch };
        }
        self.written(self.write(name, blob))
    }

    /// What could not be written last, if anything.
    pub fn last_failure(&self) -> Option<Arc<StoreError>> {
        lock(&self.0.last_failure).as_ref().map(|(_, error)| error.clone())
    }

    /// What became of something, in core's words.
    fn written(&self, result: Result<(), StoreError>) -> Written {
        result.map_or_else(|error| self.not_written(error), |()| Written::Stored)
    }

    /// The same of a failure, which is kept for whoever asks why.
    fn not_written(&self, error: StoreError) -> Written {
        let written = match &error {
            StoreError::NoSpace(_) => Written::NoSpace,
            StoreError::Io(..) | StoreError::Format(_) => Written::Failed,
        };
        let mut last = lock(&self.0.last_failure);
        // Of a disk that fails, a whole window of parts comes back.
        if last.as_ref().is_none_or(|(at, _)| at.elapsed() > FAILURES_APART) {
            tracing::warn!(%error, "the disk takes nothing");
        }
        *last = Some((Instant::now(), Arc::new(error)));
        written
    }

    /// Hashes a blob that did not open, and removes it where it is not what its name says. `true`: it is not stored
    /// (any more); `false`: it is whole, and whoever gave its key was wrong.
    pub fn remove_if_corrupt(&self, id: &BlobName) -> io::Result<bool> {
        self.remove_damaged(id)
    }

    /// Calls `visit` with the id of each blob file of the right length, in no order, until it breaks.
    pub fn for_each(&self, mut visit: impl FnMut(BlobName) -> ControlFlow<()>) -> io::Result<()> {
        for folder in fs::read_dir(&self.0.root)? {
            let folder = folder?;
            if !is_folder_name(&folder.file_name()) || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let bytes = file.file_name().to_str().and_then(|name| name.parse::<BlobId>().ok());
                // A file that vanishes while we look was removed, not stored.
                let len = file.metadata().map_or(0, |metadata| metadata.len());
                let names =
                    bytes.map(|BlobId(bytes)| [BlobName::Native(Root(bytes)), BlobName::V5(BlobId(bytes))]);
                let name = names.into_iter().flatten().find(|name| file_len(name) == len);
                if let Some(id) = name.filter(|id| self.path(id) == file.path())
                    && visit(id).is_break()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// How many blobs are stored or held in files. Lists the folders.
    pub fn count(&self) -> io::Result<u64> {
        let mut count = 0;
        self.for_each(|_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count + self.0.held.count())
    }

    /// Hashes every blob and removes those that are not what their name says, which ends [`Self::is_checking`].
    /// Returns how many were removed; `None` when `cancel` was set before the end.
    pub fn check_all(&self, cancel: &AtomicBool) -> Result<Option<u64>, StoreError> {
        let mut removed = 0;
        let mut failure = None;
        let mut buf = vec![0; BLOB_LEN];
        let listed = self.for_each(|id| {
            if cancel.load(Relaxed) {
                return ControlFlow::Break(());
            }
            let sound = self.read_unchecked(&id, &mut buf).map(|present| !present || blob::verify(&id, &buf));
            match sound.and_then(|sound| if sound { Ok(false) } else { self.remove_damaged(&id) }) {
                Ok(torn) => removed += u64::from(torn),
                Err(error) => {
                    failure = Some(StoreError::new("check", &self.path(&id), error));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        listed.map_err(|e| StoreError::new("list", &self.0.root, e))?;
        if let Some(error) = failure {
            return Err(error);
        }
        if !self.0.held.check_all(&|| cancel.load(Relaxed)) || cancel.load(Relaxed) {
            return Ok(None);
        }
        self.0.checking.store(false, Relaxed);
        self.0.boot_marked.store(false, Relaxed);
        lock(&self.0.checked).clear();
        self.mark_boot()?;
        Ok(Some(removed))
    }

    /// Waits until all blobs have reached the disk, so that no later boot needs to check them. Meant for the clean
    /// end of a node that ran for long, when its last write is done; leaving it out loses nothing but time after the
    /// next boot.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.0.held.sync().map_err(|e| StoreError::new("flush the files of", &self.0.root, e))?;
        if self.is_checking() || !self.0.boot_marked.load(Relaxed) {
            return Ok(());
        }
        let mut file = lock(&self.0.boot_file);
        // Another process may be writing blobs that the flush below would miss: then the mark stays.
        let result = if file.try_lock().is_ok() && SYNC_IS_AWAITED {
            self.0.boot_marked.store(false, Relaxed);
            sync_file_system(&file).and_then(|()| set_content(&mut file, SYNCED))
        } else {
            Ok(())
        };
        // Also after a refusal, which may have cost the shared lock (flock(2)).
        let _ = file.lock_shared();
        result.map_err(|e| StoreError::new("flush", &self.0.root, e))
    }

    /// `DIR/blobs`.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where a blob is, or would be.
    fn path(&self, id: &BlobName) -> PathBuf {
        let hex = id.to_string();
        let mut path = self.0.root.join(&hex[..2]);
        path.push(hex);
        path
    }

    fn needs_check(&self, id: &BlobName) -> bool {
        self.is_checking() && !lock(&self.0.checked).contains(id)
    }

    fn note_checked(&self, id: &BlobName) {
        let mut checked = lock(&self.0.checked);
        if checked.len() >= CHECKED_IDS_MAX {
            checked.clear();
        }
        checked.insert(*id);
    }

    fn read_unchecked(&self, id: &BlobName, buf: &mut [u8]) -> io::Result<bool> {
        let Some(mut file) = self.open_stored(id, false)? else { return Ok(false) };
        file.read_exact(buf)?;
        Ok(true)
    }

    fn remove(&self, id: &BlobName) -> io::Result<()> {
        lock(&self.0.checked).remove(id);
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Before the first write: makes `blobs/boot` name this boot, durably. While checking it keeps naming the old
    /// one, so that an interrupted check is taken up again.
    fn mark_boot(&self) -> Result<(), StoreError> {
        if self.0.boot_marked.load(Relaxed) {
            return Ok(());
        }
        let mut file = lock(&self.0.boot_file);
        set_content(&mut file, boot_id().as_deref().unwrap_or(UNKNOWN_BOOT))
            .map_err(|e| StoreError::new("write", &self.0.root.join("boot"), e))?;
        self.0.boot_marked.store(true, Relaxed);
        Ok(())
    }

    fn ensure_folder(&self, id: &BlobName) -> Result<(), StoreError> {
        let exists = &self.0.folders[usize::from(id.as_bytes()[0])];
        if !exists.load(Relaxed) {
            let folder = self.0.root.join(format!("{:02x}", id.as_bytes()[0]));
            // Not the folders above it: on a disk that is not there nothing is made.
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::new("create", &folder, error));
                }
                _ => {}
            }
            exists.store(true, Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.root).finish()
    }
}

/// A lock whose holder panicked guards nothing that could be half done here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a blob's file.
fn file_len(name: &BlobName) -> u64 {
    match name {
        BlobName::Native(_) => native::FILE_LEN,
        BlobName::V5(_) => BLOB_LEN as u64,
    }
}

/// Refuses blobs in another form, and marks an empty folder as one with this.
fn check_format(root: &Path) -> Result<(), StoreError> {
    let path = root.join("format");
    match fs::read_to_string(&path) {
        Ok(text) if text == FORMAT => Ok(()),
        Ok(_) => Err(StoreError::Format(root.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if has_folder(root).map_err(|e| StoreError::new("list", root, e))? {
                return Err(StoreError::Format(root.to_owned()));
            }
            let temp = temp_folder(root, 0).join(format!("format-{}", std::process::id()));
            match write_synced(root, &temp, &path) {
                // Another process that opens the store has taken the file for one that was left behind.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => Ok(()),
                written => written.map_err(|e| StoreError::new("write", &path, e)),
            }
        }
        // Not a text: not ours.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StoreError::Format(root.to_owned())),
        Err(error) => Err(StoreError::new("read", &path, error)),
    }
}

/// Writes the format, whole or not at all, and durably: blobs without it are refused.
fn write_synced(root: &Path, temp: &Path, path: &Path) -> io::Result<()> {
    let mut file = File::create(temp)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    fs::rename(temp, path)?;
    File::open(root)?.sync_all()
}

fn write_new(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    reserve(&file, pieces.iter().map(|piece| piece.len() as u64).sum())?;
    pieces.iter().try_for_each(|piece| file.write_all(piece))
}

/// Asks for the space of a file's first `len` bytes before they are written. In one piece it costs the system less
/// than page by page (a fifth of a blob's whole write on ext4), and a full disk says so at once. A system that cannot
/// do it is none the worse.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn reserve(file: &File, len: u64) -> io::Result<()> {
    // The length stays what was written.
    let reserved = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len);
    reserved.map_err(io::Error::from).or_else(|error| if is_no_space(&error) { Err(error) } else { Ok(()) })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn reserve(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// In place, since the file carries the lock. A torn content matches no boot, which is the safe side.
fn set_content(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What tells one boot of this machine from another.
pub(crate) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty() && id != UNKNOWN_BOOT && id != SYNCED)
}

/// Elsewhere a flush of a file system can only be asked for, not awaited, so nothing may be marked as synced.
const SYNC_IS_AWAITED: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[cfg(any(target_os = "linux", target_os = "android"))]
fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sync_file_system(_: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a name is one of the 256 folders' two hex digits.
fn is_folder_name(name: &std::ffi::OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.len() == 2 && bytes.iter().all(u8::is_ascii_hexdigit)
}

fn has_folder(root: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(root)? {
        if is_folder_name(&entry?.file_name()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn temp_folder(root: &Path, number: u64) -> PathBuf {
    root.join(format!("tmp/{:x}", number % TEMP_FOLDERS))
}

/// What cannot be removed stays, and is in nobody's way.
fn remove_files(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let sort = |kind: io::ErrorKind| StoreError::new("write", Path::new("x"), kind.into());
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert!(matches!(sort(kind), StoreError::NoSpace(_)), "{kind}");
        }
        assert_eq!(sort(io::ErrorKind::PermissionDenied).to_string(), "cannot write x: permission denied");
    }
}
