//! From a channel's file entry back to a file below the output folder.
//!
//! The bytes go to a hidden file beside the target, which is renamed when all of it is there: a file under the
//! target's name is whole or not ours. Nothing of the user's is overwritten: a file that stands there already is
//! replaced only where the state says that we wrote it and it was not touched since, and taken for ours only where it
//! holds the very bytes. No symbolic link below the output folder is followed: every step goes from an open folder to
//! the next (`openat` with `O_NOFOLLOW`), so a link that appears in the meantime changes nothing.
//!
//! What this system cannot take, or what could lead out of the output folder, is refused in words, and other files are written
//! all the same. Any name that core lets through is safe on Unix, where only `/` divides components.
//!
//! Unix only, as are those calls; another system needs its own form of `Folder`.

mod aside;
mod error;
mod in_place;
mod links;
mod output;
mod standing;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{BlobName, Root, Topic};
use megatorrent_core::manifest::{Chunk, Extent, FileEntry, Reference, Slice};
use megatorrent_core::tree::{Cursor, Step, TreeRef};
use rustix::fs::{self as sys, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

pub use error::{ExportError, Exported, shown};
pub(crate) use in_place::open_working;
pub use output::{check_output, forget_output};
use standing::Holds;
pub(crate) use standing::Standing;

use crate::held::table::Stat;
use crate::held::working::{WORKING_PREFIX, WORKING_SUFFIX};
use crate::state::{FileRecord, State};
use crate::store::{Store, boot_id, lock, reserve};

/// Workers; more asked for are not started. Each takes 1 MiB.
const WORKERS_MAX: usize = 16;

/// What a node keeps of a channel besides the files that stand in their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copies {
    /// Nothing: a file is held in place.
    #[default]
    None,
    /// A copy of each file that shares its bytes ([`Store::share`]).
    Shared,
    /// All blobs.
    Blobs,
}

/// What to write, and where.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The file, or the symlink or empty folder.
    pub entry: &'a FileEntry,
    /// The channel's packs, which slices lie in.
    pub packs: &'a BTreeMap<u32, Root>,
    /// Where its blobs are.
    pub store: &'a Store,
    /// What knows which files we wrote.
    pub state: &'a State,
    /// The output folder; created where there is none.
    pub out_dir: &'a Path,
    /// Threads to work on it.
    pub workers: usize,
    /// What is kept besides the file.
    pub copies: Copies,
    /// The topic of the channel, so that what is under way of it is known as such.
    pub topic: Option<Topic>,
    /// A user asks for the file again: what was edited since we wrote it is renamed to `NAME.edited`, what is damaged is
    /// written anew.
    pub restore: bool,
    /// Wait until the file has reached the disk. Without it, a file that was written shortly before the machine went
    /// down is compared with its blobs the next time.
    pub sync: bool,
}

/// Writes a file whose blobs are stored. `progress` is called with the size of each piece that was opened, from any
/// worker; `cancel` ends the work at the next piece.
pub fn export(
    request: &Export<'_>,
    progress: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<Exported, ExportError> {
    let entry = request.entry;
    check_name(entry, request.out_dir)?;
    check_output(request.state, request.out_dir)?;
    match &entry.reference {
        Reference::Symlink(target) => return links::symlink(request, target),
        Reference::Folder => return links::folder(request),
        Reference::Extents(_) | Reference::Chunks(_) => {}
    }
    check_size(entry, request.out_dir)?;
    let target = Target::open(request.out_dir, entry.path.as_str())?;
    let known = request.state.file(&target.path).map_err(ExportError::State)?;
    let digest = digest(entry, request.packs);
    let run = Run { request, progress, cancel, stop: AtomicBool::new(false) };
    let Some(found) = target.stat()? else {
        return run.write(&target, digest, Stands::Nothing);
    };
    let is_ours = known.as_ref().is_some_and(|known| found.matches(known));
    let was_this = known.as_ref().is_some_and(|known| known.digest == digest);
    if let Some(known) = known.filter(|known| is_ours && known.digest == digest) {
        if request.restore && run.has_lost(&target, &digest)? {
            return run.write(&target, digest, Stands::Ours);
        }
        if known.boot.is_none() || known.boot == boot_id() {
            return Ok(Exported::AlreadyThere);
        }
    } else if is_ours {
        return run.write(&target, digest, Stands::Ours);
    }
    let is_in_place = request.copies != Copies::Blobs;
    if is_in_place && run.is_held(&target, &digest)? {
        run.keep_copy(&target, digest)?;
        run.remember(&target, digest, &found)?;
        return Ok(Exported::AlreadyThere);
    }
    let holds = run.compare(&target, &found)?;
    if holds == Holds::All {
        if is_in_place {
            run.hold(&target, digest)?;
            run.keep_copy(&target, digest)?;
        }
        run.remember(&target, digest, &found)?;
        return Ok(Exported::AlreadyThere);
    }
    let was_written = || {
        let stat = std::fs::symlink_metadata(&target.path).map(|metadata| Stat::from(&metadata));
        stat.is_ok_and(|stat| request.store.held_files().wrote(&target.path, &stat))
    };
    match (is_ours || holds == Holds::Torn || was_written(), request.restore && was_this) {
        (true, _) => run.write(&target, digest, Stands::Ours),
        (false, true) => run.write(&target, digest, Stands::Edited),
        (false, false) => Err(ExportError::Exists(target.path)),
    }
}

/// What stands at the target, so far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// Nothing, or nothing that may be touched.
    Nothing,
    /// What we wrote, which is replaced.
    Ours,
    /// What was written to since, which is set aside.
    Edited,
}

/// When a file was changed last, as its channel says.
fn channel_time(entry: &FileEntry) -> Option<SystemTime> {
    let since = entry.modified_ms.map(Duration::from_millis);
    since.and_then(|since| UNIX_EPOCH.checked_add(since))
}

/// Refuses a name that a file of ours under way may have.
fn check_name(entry: &FileEntry, out_dir: &Path) -> Result<(), ExportError> {
    let path = entry.path.as_str();
    let is_ours = |name: &str| {
        let middle = name.strip_prefix(WORKING_PREFIX).and_then(|name| name.strip_suffix(WORKING_SUFFIX));
        middle.is_some_and(|middle| middle.len() == 16 && middle.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if path.split('/').any(is_ours) {
        let why = "its name is one that this program gives to files that are not written whole yet";
        return Err(ExportError::Refused(out_dir.join(path), why));
    }
    Ok(())
}

fn check_size(entry: &FileEntry, out_dir: &Path) -> Result<(), ExportError> {
    if entry.reference.size() == Some(entry.size) {
        Ok(())
    } else {
        Err(ExportError::Inconsistent(out_dir.join(entry.path.as_str())))
    }
}

/// The data blobs of a file's trees in order, each with the bytes of its content. At most `blobs_max`; `None` where there are
/// more, or slices.
pub fn data_blobs(
    extents: &[Extent],
    store: &Store,
    blobs_max: usize,
) -> Result<Option<Vec<(BlobRef, u32)>>, ExportError> {
    let mut blobs = Vec::new();
    for extent in extents {
        let Extent::Tree(tree) = extent else { return Ok(None) };
        let mut cursor = Cursor::whole(tree);
        while let Some((blob, len, _)) = next_data_blob(&mut cursor, store)? {
            if blobs.len() == blobs_max {
                return Ok(None);
            }
            blobs.push((blob, len));
        }
    }
    Ok(Some(blobs))
}

/// BLAKE3 over all that an entry says of its file, so that a record tells one version from another.
pub(crate) fn digest(entry: &FileEntry, packs: &BTreeMap<u32, Root>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry.size.to_be_bytes());
    hasher.update(&entry.modified_ms.unwrap_or(u64::MAX).to_be_bytes());
    hasher.update(&[u8::from(entry.executable)]);
    let numbers = |hasher: &mut blake3::Hasher, numbers: [u32; 3]| {
        for number in numbers {
            hasher.update(&number.to_be_bytes());
        }
    };
    match &entry.reference {
        Reference::Extents(extents) => {
            for extent in extents {
                match extent {
                    Extent::Tree(tree) => {
                        hasher.update(&[0]).update(&*tree.to_bytes());
                    }
                    Extent::Slice(slice) => {
                        let root = packs.get(&slice.pack).map_or([0; 32], |root| root.0);
                        hasher.update(&[1]).update(&root).update(slice.key.expose());
                        numbers(&mut hasher, [slice.pack, slice.offset, slice.length]);
                    }
                }
            }
        }
        Reference::Chunks(chunks) => {
            for chunk in chunks {
                hasher.update(&[2]).update(chunk.name().as_bytes());
                hasher.update(chunk.key.expose()).update(&chunk.nonce);
                numbers(&mut hasher, [chunk.offset, chunk.length, chunk.real_size]);
            }
        }
        Reference::Symlink(_) | Reference::Folder => {}
    }
    *hasher.finalize().as_bytes()
}

/// One export under way.
struct Run<'a> {
    request: &'a Export<'a>,
    progress: &'a (dyn Fn(u64) + Sync),
    cancel: &'a AtomicBool,
    /// Some worker is through with it: the others end.
    stop: AtomicBool,
}

impl Run<'_> {
    fn write(&self, target: &Target, digest: [u8; 32], stands: Stands) -> Result<Exported, ExportError> {
        if self.request.copies != Copies::Blobs {
            let written = self.write_in_place(target, digest, stands)?;
            self.keep_copy(target, digest)?;
            return Ok(written);
        }
        let temp = Temp::create(target, self.request.entry.executable)?;
        let failed = |what| move |e: io::Error| ExportError::new(what, &target.path, e);
        let size = self.request.entry.size;
        // After a power cut, a torn file has its length.
        reserve(&temp.file, size).and_then(|()| temp.file.set_len(size)).map_err(failed("write"))?;
        self.for_each_piece(&|_| false, &|piece, content| {
            temp.file.write_all_at(content, piece.offset).map_err(failed("write"))?;
            Ok(true)
        })?;
        self.set_modified(&temp.file);
        if self.request.sync {
            temp.file.sync_all().map_err(failed("flush"))?;
        }
        let written = temp.file.metadata().map_err(failed("look at"))?;
        let aside = temp.rename(stands)?;
        if self.request.sync {
            // The name too, before the record that vouches for it.
            sys::fsync(&target.folder.fd).map_err(|e| failed("flush the folder of")(e.into()))?;
        }
        let found = Found::of(&written);
        self.remember(target, digest, &found)?;
        Ok(aside.map_or(Exported::Written, Exported::SetAside))
    }

    fn set_modified(&self, file: &File) {
        if let Some(modified) = channel_time(self.request.entry) {
            // A time that the file system cannot express is not worth losing the file for.
            let _ = file.set_modified(modified);
        }
    }

    fn remember(&self, target: &Target, digest: [u8; 32], found: &Found) -> Result<(), ExportError> {
        let boot = if self.request.sync { None } else { Some(boot()) };
        let record = FileRecord { size: found.size, modified: found.modified, digest, boot };
        output::remember(self.request.state, self.request.out_dir)?;
        self.request.state.persist_file(&target.path, &record).map_err(ExportError::State)
    }

    /// Opens all pieces that are not there on several threads and hands each to `take`, which says whether to go on. `true`: it
    /// always did.
    fn for_each_piece(&self, is_there: &IsThere<'_>, take: &Take<'_>) -> Result<bool, ExportError> {
        self.stop.store(false, Relaxed);
        let pieces = Mutex::new(pieces(self.request));
        let blobs = usize::try_from(self.request.entry.size.div_ceil(PLAIN_LEN as u64)).unwrap_or(usize::MAX);
        thread::scope(|scope| {
            let mut others = Vec::new();
            for number in 1..self.request.workers.min(WORKERS_MAX).min(blobs) {
                let builder = thread::Builder::new().name(format!("export-{number}"));
                match builder.spawn_scoped(scope, || self.work(&pieces, is_there, take)) {
                    Ok(thread) => others.push(thread),
                    // One worker is enough; the more there are, the sooner it is done.
                    Err(error) => tracing::warn!(%error, "cannot start a worker thread"),
                }
            }
            let mut result = self.work(&pieces, is_there, take);
            for thread in others {
                let other = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and_then(|all| other.map(|also| all && also));
            }
            result
        })
    }

    fn work(
        &self,
        pieces: &Mutex<Pieces<'_>>,
        is_there: &IsThere<'_>,
        take: &Take<'_>,
    ) -> Result<bool, ExportError> {
        let result = self.take_pieces(pieces, is_there, take);
        if !matches!(result, Ok(true)) {
            self.stop.store(true, Relaxed);
        }
        result
    }

    fn take_pieces(
        &self,
        pieces: &Mutex<Pieces<'_>>,
        is_there: &IsThere<'_>,
        take: &Take<'_>,
    ) -> Result<bool, ExportError> {
        let store = self.request.store;
        let mut buf = vec![0; BLOB_LEN];
        while !self.stop.load(Relaxed) {
            if self.cancel.load(Relaxed) {
                return Err(ExportError::Cancelled);
            }
            // The lock ends with the statement.
            let piece = lock(pieces).next();
            let Some(piece) = piece.transpose()? else { break };
            if is_there(&piece) {
                (self.progress)(piece.sealed.len());
                continue;
            }
            let content = piece.sealed.open(store, &mut buf)?;
            if !take(&piece, content)? {
                return Ok(false);
            }
            (self.progress)(content.len() as u64);
        }
        Ok(true)
    }
}

/// Takes a piece and its content; `false`: no further piece is needed.
type Take<'a> = dyn Fn(&Piece, &[u8]) -> Result<bool, ExportError> + Sync + 'a;
/// Whether a piece's content need not be opened.
type IsThere<'a> = dyn Fn(&Piece) -> bool + Sync + 'a;

/// A part of a file that comes out of one blob.
struct Piece {
    sealed: Sealed,
    offset: u64,
}

/// Where the bytes of a piece are.
enum Sealed {
    /// A native data blob, and the bytes of its content.
    Blob(BlobRef, usize),
    /// A slice, and its pack.
    Slice(Slice, Root),
    Chunk(Chunk),
}

/// A file's pieces, in order. An index blob of a tree is read when the first below it is asked for.
type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece, ExportError>> + Send + 'a>;

fn pieces<'a>(request: &Export<'a>) -> Pieces<'a> {
    let (store, packs) = (request.store, request.packs);
    let path = request.out_dir.join(request.entry.path.as_str());
    match &request.entry.reference {
        Reference::Extents(extents) => {
            Box::new(with_offsets(extents, Extent::size).flat_map(move |(extent, offset)| -> Pieces<'a> {
                match extent {
                    Extent::Tree(tree) => Box::new(tree_pieces(tree, store, offset)),
                    Extent::Slice(slice) => {
                        let sealed = packs.get(&slice.pack).map(|root| Sealed::Slice(slice.clone(), *root));
                        let piece = sealed.map(|sealed| Piece { sealed, offset });
                        Box::new(std::iter::once(piece.ok_or(ExportError::Inconsistent(path.clone()))))
                    }
                }
            }))
        }
        Reference::Chunks(chunks) => {
            let pieces = with_offsets(chunks, |chunk| chunk.real_size.into());
            Box::new(pieces.map(|(chunk, offset)| Ok(Piece { sealed: Sealed::Chunk(chunk.clone()), offset })))
        }
        Reference::Symlink(_) | Reference::Folder => Box::new(std::iter::empty()),
    }
}

/// What a file consists of, each with its offset in the file.
fn with_offsets<T>(all: &[T], size: impl Fn(&T) -> u64) -> impl Iterator<Item = (&T, u64)> {
    all.iter().scan(0, move |next, one| {
        let offset = *next;
        *next += size(one);
        Some((one, offset))
    })
}

/// The pieces of a tree, which begins at `start` in the file: its data blobs.
fn tree_pieces(
    tree: &TreeRef,
    store: &Store,
    start: u64,
) -> impl Iterator<Item = Result<Piece, ExportError>> {
    let mut cursor = Cursor::whole(tree);
    let piece = move |(blob, len, offset)| {
        let len = usize::try_from(len).unwrap_or(PLAIN_LEN);
        Piece { sealed: Sealed::Blob(blob, len), offset: start + offset }
    };
    std::iter::from_fn(move || next_data_blob(&mut cursor, store).map(|found| found.map(piece)).transpose())
}

/// The next data blob, the bytes of its content, and its offset in the stream.
fn next_data_blob(cursor: &mut Cursor, store: &Store) -> Result<Option<(BlobRef, u32, u64)>, ExportError> {
    loop {
        match cursor.step() {
            // It is read when the cursor needs it.
            Step::Blob(node) if node.height > 0 => {}
            Step::Blob(node) => return Ok(Some((node.blob.clone(), node.content_len(), node.offset))),
            Step::NeedsIndex(node) => {
                let plain = Zeroizing::new(open_index(&node.blob, node.content_len(), store)?);
                if !cursor.open(&node.blob.root, &plain) {
                    return Err(ExportError::Unreadable(node.blob.root.into()));
                }
            }
            Step::End => return Ok(None),
        }
    }
}

/// The content of a stored index blob, `len` bytes: keys, to be wiped after use.
fn open_index(blob: &BlobRef, len: u32, store: &Store) -> Result<Vec<u8>, ExportError> {
    let name = BlobName::Native(blob.root);
    match store.open_blob(blob, len).map_err(|e| ExportError::new("read a blob in", store.root(), e))? {
        Some(plain) => Ok(plain),
        None if store.has(&name) => Err(ExportError::Unreadable(name)),
        None => Err(ExportError::Missing(name)),
    }
}

impl Sealed {
    fn name(&self) -> BlobName {
        match self {
            Self::Blob(blob, _) => blob.root.into(),
            Self::Slice(_, pack) => (*pack).into(),
            Self::Chunk(chunk) => chunk.name(),
        }
    }

    /// Bytes of content.
    fn len(&self) -> u64 {
        match self {
            Self::Blob(_, len) => *len as u64,
            Self::Slice(slice, _) => slice.length.into(),
            Self::Chunk(chunk) => chunk.real_size.into(),
        }
    }

    /// The content, out of its blob, within `buf`.
    fn open<'b>(&self, store: &Store, buf: &'b mut [u8]) -> Result<&'b [u8], ExportError> {
        let failed = |e| ExportError::new("read a blob in", store.root(), e);
        let name = self.name();
        if !store.read(&name, buf).map_err(failed)? {
            return Err(ExportError::Missing(name));
        }
        let range = match self {
            Self::Blob(blob, len) => blob::open(blob, buf).then_some(0..*len),
            Self::Slice(slice, _) => slice.open(buf),
            Self::Chunk(chunk) => chunk.open(buf),
        };
        match range {
            Some(range) => Ok(&buf[range]),
            None if store.remove_if_corrupt(&name).map_err(failed)? => Err(ExportError::Missing(name)),
            None => Err(ExportError::Unreadable(name)),
        }
    }
}

/// An open folder at or below the output folder.
struct Folder {
    fd: OwnedFd,
}

impl Folder {
    fn open(out_dir: &Path) -> Result<Self, ExportError> {
        std::fs::create_dir_all(out_dir).map_err(|e| ExportError::new("create", out_dir, e))?;
        let fd = sys::open(out_dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| ExportError::new("open", out_dir, e))?;
        Ok(Self { fd })
    }

    /// The folder `name` in this one, created where there is none; `path` is its path, for errors.
    fn child(&self, name: &str, path: &Path) -> Result<Self, ExportError> {
        match sys::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(ExportError::new("create", path, error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        match sys::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(ExportError::NotAFolder(path.to_owned())),
            Err(error) => Err(ExportError::new("open", path, error)),
        }
    }
}

/// Where the file goes.
struct Target {
    folder: Folder,
    name: String,
    /// The whole path, for errors and records.
    path: PathBuf,
}

impl Target {
    /// Opens, or creates, the folders on the way to `entry_path` below `out_dir`.
    fn open(out_dir: &Path, entry_path: &str) -> Result<Self, ExportError> {
        let mut folder = Folder::open(out_dir)?;
        let mut path = out_dir.canonicalize().map_err(|e| ExportError::new("open", out_dir, e))?;
        let (folders, name) = entry_path.rsplit_once('/').unwrap_or(("", entry_path));
        for component in folders.split('/').filter(|component| !component.is_empty()) {
            path.push(component);
            folder = folder.child(component, &path)?;
        }
        path.push(name);
        Ok(Self { folder, name: name.to_owned(), path })
    }

    /// Opens the folders on the way to `entry_path` below `out_dir`, where they are there.
    fn find(out_dir: &Path, entry_path: &str) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut fd = sys::open(out_dir, flags, Mode::empty()).ok()?;
        let mut path = out_dir.canonicalize().ok()?;
        let (folders, name) = entry_path.rsplit_once('/').unwrap_or(("", entry_path));
        for component in folders.split('/').filter(|component| !component.is_empty()) {
            path.push(component);
            fd = sys::openat(&fd, component, flags | OFlags::NOFOLLOW, Mode::empty()).ok()?;
        }
        path.push(name);
        Some(Self { folder: Folder { fd }, name: name.to_owned(), path })
    }

    /// What stands there, links not followed.
    fn stat(&self) -> Result<Option<Found>, ExportError> {
        match sys::statat(&self.folder.fd, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found {
                is_file: sys::FileType::from_raw_mode(stat.st_mode).is_file(),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(ExportError::new("look at", &self.path, error)),
        }
    }
}

/// What stands at the target's name.
struct Found {
    is_file: bool,
    size: u64,
    modified: (i64, u32),
}

impl Found {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { is_file: true, size: metadata.len(), modified: modified_of(metadata) }
    }

    fn matches(&self, known: &FileRecord) -> bool {
        self.is_file && self.size == known.size && self.modified == known.modified
    }
}

fn modified_of(metadata: &std::fs::Metadata) -> (i64, u32) {
    (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0))
}

/// The hidden file beside the target; removed when dropped without [`Self::rename`]. Its name follows from the
/// target's, so that what a killed process left is written over; a lock keeps two processes apart.
struct Temp<'a> {
    file: File,
    name: String,
    target: &'a Target,
    renamed: bool,
}

impl<'a> Temp<'a> {
    fn create(target: &'a Target, executable: bool) -> Result<Self, ExportError> {
        let failed = |e: io::Error| ExportError::new("create a file beside", &target.path, e);
        // A hash, since the target's own name may be as long as a name may be. It covers what the file is created
        // with, so that a left-over has the permissions that are wanted.
        let hash =
            blake3::Hasher::new().update(&[u8::from(executable)]).update(target.name.as_bytes()).finalize();
        let name = format!("{WORKING_PREFIX}{}{WORKING_SUFFIX}", &hash.to_hex()[..16]);
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = sys::openat(&target.folder.fd, &name, flags, mode)
            .map(File::from)
            .map_err(|e| failed(e.into()))?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(ExportError::Busy(target.path.clone()));
        }
        // Who had the lock before may have renamed or removed the file; only what still has the name is ours.
        let own = file.metadata().map_err(failed)?.ino();
        if !sys::statat(&target.folder.fd, &name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_ino == own)
        {
            return Err(ExportError::Busy(target.path.clone()));
        }
        file.set_len(0).map_err(failed)?;
        Ok(Self { file, name, target, renamed: false })
    }

    /// Gives the file its name; the name of what stood there.
    fn rename(mut self, stands: Stands) -> Result<Option<PathBuf>, ExportError> {
        let aside = aside::take_place(self.target, &self.name, stands)?;
        self.renamed = true;
        Ok(aside)
    }
}

/// Gives a file beside the target its name. Without `replace`, nothing may stand there.
fn rename(target: &Target, name: &str, replace: bool) -> Result<(), ExportError> {
    let (folder, path) = (&target.folder.fd, &target.path);
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let result = match sys::renameat_with(folder, name, folder, &target.name, flags) {
        // The file system cannot do both in one step; what appeared between the look and the rename is not seen.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match target.stat()? {
            Some(_) if !replace => Err(Errno::EXIST),
            _ => sys::renameat(folder, name, folder, &target.name),
        },
        other => other,
    };
    match result {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(ExportError::Exists(path.clone())),
        Err(Errno::NOENT) => Err(ExportError::Vanished(path.clone())),
        Err(error) => Err(ExportError::new("rename a file to", path, error)),
    }
}

/// What stands for this boot in records.
fn boot() -> String {
    boot_id().unwrap_or_else(|| "unknown".to_owned())
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = sys::unlinkat(&self.target.folder.fd, &self.name, AtFlags::empty());
        }
    }
}
