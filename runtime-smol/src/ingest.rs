//! From a stream of bytes to the blobs of a file, on several cores and in bounded memory.
//!
//! Each worker takes the stream's next 2^20 bytes, seals them in its own buffer and stores the blob. The references are
//! put back in order and go into core's [`TreeWriter`], which asks for an index blob whenever one is full. A short file needs
//! none: it is the list of its data blobs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret};
use megatorrent_core::manifest::{AuthorStore, Extent};
use megatorrent_core::parts::{Mask, PART_LEN};
use megatorrent_core::tree::{TreeRef, TreeWriter};

/// Data blobs of a file that is listed without an index blob: up to 16 MiB.
const LISTED_MAX: usize = 16;

use crate::held::Draft;
use crate::held::table::{Header, Row, Stat};
use crate::store::{Store, StoreError, lock};

/// Links that may wait for one before them; at the cap, workers wait for it instead of reading on.
const LINKS_AHEAD_MAX: usize = 256;
/// Workers; more asked for are not started. Each takes 1 MiB.
const WORKERS_MAX: usize = 16;

/// Why a stream could not be turned into blobs. Blobs that were stored before stay, and are found stored the next time.
#[derive(Debug)]
pub enum IngestError {
    /// The stream could not be read.
    Read(io::Error),
    /// A blob could not be stored.
    Store(StoreError),
    /// The file was changed while it was read.
    Changed(PathBuf),
    /// It was cancelled.
    Cancelled,
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot read the input: {error}"),
            Self::Store(error) => error.fmt(f),
            Self::Changed(path) => {
                write!(f, "{} changed while it was read: try again once nothing writes to it", path.display())
            }
            Self::Cancelled => f.write_str("cancelled; what is stored so far is used the next time"),
        }
    }
}

impl std::error::Error for IngestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Changed(_) | Self::Cancelled => None,
        }
    }
}

/// Turns `input`, read to its end, into the blobs of a file, and returns what it is joined from: nothing of an empty input. Their keys come from their content and `secret`, so the
/// same bytes under the same secret give the same reference, and blobs that are stored already cost no disk.
///
/// `progress` is called with the size of each piece that is stored, from any worker. `cancel` ends the work at the
/// next piece.
pub fn ingest(
    input: impl Read + Send,
    store: &Store,
    secret: &Secret,
    workers: usize,
    progress: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<Extent>, IngestError> {
    ingest_into(input, Sink { store, held: None }, secret, workers, progress, cancel)
}

/// The same of a file that stays where it is and is held there: of its data nothing is stored but a row of a table for each blob.
///
/// # Errors
/// [`IngestError::Changed`] too, where it is not the same file after it was read as before; then nothing of it is held.
pub fn ingest_in_place(
    path: &Path,
    store: &Store,
    secret: &Secret,
    workers: usize,
    progress: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<Extent>, IngestError> {
    let path = path.canonicalize().map_err(IngestError::Read)?;
    let file = Arc::new(File::open(&path).map_err(IngestError::Read)?);
    let before = Stat::of(&file).map_err(IngestError::Read)?;
    let failed =
        |error| IngestError::Store(StoreError::new("write the table of a file in", store.root(), error));
    let draft = store.held_files().begin(file.clone(), Header::new(&path, before)).map_err(failed)?;
    let extents = ingest_into(&*file, Sink { store, held: Some(&draft) }, secret, workers, progress, cancel)?;
    let size: u64 = extents.iter().map(Extent::size).sum();
    let is_same = size == before.size
        && Stat::of(&file).is_ok_and(|after| after == before)
        && fs::symlink_metadata(&path).is_ok_and(|after| Stat::from(&after) == before);
    if !is_same {
        return Err(IngestError::Changed(path));
    }
    store.held_files().finish(draft).map_err(failed)?;
    Ok(extents)
}

/// Where data blobs go.
#[derive(Clone, Copy)]
struct Sink<'a> {
    store: &'a Store,
    /// The file that holds them; `None`: they are stored.
    held: Option<&'a Draft>,
}

impl Sink<'_> {
    /// Seals the data blob whose content is the first `len` bytes of `buf`, and stores or holds it.
    fn take(&self, secret: &Secret, buf: &mut [u8], len: usize, offset: u64) -> Result<BlobRef, IngestError> {
        let Some(draft) = self.held else { return seal_and_store(self.store, secret, buf, len) };
        let (blob, values) = blob::seal_valued(secret, buf, len);
        let (root, key, id) = (blob.root, blob.key.clone(), Some(blob::id(buf)));
        let len = u32::try_from(len).expect("a blob holds at most 2^20 bytes");
        let row =
            Row { root, key, id, values, offset, len, mask: Mask::first((len as usize).div_ceil(PART_LEN)) };
        let failed =
            |e| IngestError::Store(StoreError::new("write the table of a file in", self.store.root(), e));
        draft.add(&row).map_err(failed)?;
        Ok(blob)
    }
}

fn ingest_into(
    input: impl Read + Send,
    sink: Sink<'_>,
    secret: &Secret,
    workers: usize,
    progress: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<Extent>, IngestError> {
    let store = sink.store;
    let source = Mutex::new(Source { input, next: 0, size: 0, ended: false });
    let merge = Mutex::new(Merge::default());
    let run = Run {
        source,
        merge,
        merged: Condvar::new(),
        failed: AtomicBool::new(false),
        sink,
        secret,
        progress,
        cancel,
    };
    thread::scope(|scope| {
        let mut others = Vec::new();
        for number in 1..workers.min(WORKERS_MAX) {
            let builder = thread::Builder::new().name(format!("ingest-{number}"));
            match builder.spawn_scoped(scope, || run.work()) {
                Ok(thread) => others.push(thread),
                // One worker is enough; the more there are, the sooner it is done.
                Err(error) => tracing::warn!(%error, "cannot start a worker thread"),
            }
        }
        let mut result = run.work();
        for thread in others {
            // The first failure is the cause; a later one says no more.
            result = result.and(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        result
    })?;
    let source = run.source.into_inner().unwrap_or_else(PoisonError::into_inner);
    let merge = run.merge.into_inner().unwrap_or_else(PoisonError::into_inner);
    if merge.next <= LISTED_MAX as u64 {
        return Ok(listed(&merge.first, source.size).collect());
    }
    let tree = merge.tree.finish(source.size, |buf, len| seal_and_store(store, secret, buf, len))?;
    Ok(vec![Extent::Tree(tree)])
}

/// What the workers share.
struct Run<'a, R> {
    source: Mutex<Source<R>>,
    merge: Mutex<Merge>,
    /// Signalled when links left [`Merge::waiting`], and on failure.
    merged: Condvar,
    /// Some worker failed: the others end.
    failed: AtomicBool,
    sink: Sink<'a>,
    secret: &'a Secret,
    progress: &'a (dyn Fn(u64) + Sync),
    cancel: &'a AtomicBool,
}

struct Source<R> {
    input: R,
    /// Index of the next piece.
    next: u64,
    /// Bytes read so far.
    size: u64,
    ended: bool,
}

/// Puts links back into the order of their pieces.
#[derive(Default)]
struct Merge {
    tree: TreeWriter,
    /// The first references.
    first: Vec<BlobRef>,
    /// Index of the link that the tree takes next.
    next: u64,
    /// Links that came before their turn.
    waiting: BTreeMap<u64, BlobRef>,
}

impl<R: Read> Run<'_, R> {
    fn work(&self) -> Result<(), IngestError> {
        let result = self.seal_pieces();
        if result.is_err() {
            self.failed.store(true, Relaxed);
            // Under the lock, so that nobody misses it between looking and waiting.
            let _merge = lock(&self.merge);
            self.merged.notify_all();
        }
        result
    }

    fn seal_pieces(&self) -> Result<(), IngestError> {
        let buf = &mut vec![0; BLOB_LEN][..];
        while let Some((index, len)) = self.next_piece(&mut buf[..PLAIN_LEN])? {
            let link = self.sink.take(self.secret, buf, len, index * PLAIN_LEN as u64)?;
            self.merge(index, link)?;
            (self.progress)(len as u64);
        }
        Ok(())
    }

    /// Reads the next piece: its index and length. `None`: there is none, or another worker failed.
    fn next_piece(&self, buf: &mut [u8]) -> Result<Option<(u64, usize)>, IngestError> {
        self.wait_for_merge();
        let mut source = lock(&self.source);
        if source.ended || self.failed.load(Relaxed) {
            return Ok(None);
        }
        if self.cancel.load(Relaxed) {
            return Err(IngestError::Cancelled);
        }
        let len = read_full(&mut source.input, buf).map_err(IngestError::Read)?;
        source.ended = len < buf.len();
        if len == 0 {
            return Ok(None);
        }
        let index = source.next;
        source.next += 1;
        source.size += len as u64;
        Ok(Some((index, len)))
    }

    /// Waits while too many links lack one before them. The worker that has it never waits here before it is merged.
    fn wait_for_merge(&self) {
        let mut merge = lock(&self.merge);
        while merge.waiting.len() >= LINKS_AHEAD_MAX && !self.failed.load(Relaxed) {
            merge = self.merged.wait(merge).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn merge(&self, index: u64, link: BlobRef) -> Result<(), IngestError> {
        let mut guard = lock(&self.merge);
        let merge = &mut *guard;
        merge.waiting.insert(index, link);
        while let Some(link) = merge.waiting.remove(&merge.next) {
            merge.next += 1;
            if merge.first.len() < LISTED_MAX {
                merge.first.push(link.clone());
            }
            merge.tree.push(link, |buf, len| seal_and_store(self.sink.store, self.secret, buf, len))?;
        }
        self.merged.notify_all();
        Ok(())
    }
}

/// The data blobs of a stream of `size` bytes, each as a tree of its own.
fn listed(blobs: &[BlobRef], size: u64) -> impl Iterator<Item = Extent> {
    let tree = move |(blob, n): (&BlobRef, u64)| {
        let len = (size - n * PLAIN_LEN as u64).min(PLAIN_LEN as u64);
        TreeRef::new(len, 0, blob.clone()).expect("one blob holds it")
    };
    blobs.iter().zip(0..).map(tree).map(Extent::Tree)
}

/// Seals the blob whose content is the first `len` bytes of `buf`, and stores it.
///
/// # Panics
/// As [`blob::seal`] does.
pub fn seal_and_store(
    store: &Store,
    secret: &Secret,
    buf: &mut [u8],
    len: usize,
) -> Result<BlobRef, IngestError> {
    let (blob, values) = blob::seal_valued(secret, buf, len);
    store.write_native(&blob.root, &values, Some(blob::id(buf)), buf).map_err(IngestError::Store)?;
    Ok(blob)
}

/// Reads until `buf` is full or the input ends, and returns how much it got.
fn read_full(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match input.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// An author's blobs in a store, under the secret that gives them their keys.
#[derive(Debug)]
pub struct AuthorBlobs<'a> {
    /// Where they are.
    pub store: &'a Store,
    /// The channel's content secret.
    pub secret: &'a Secret,
}

impl AuthorBlobs<'_> {
    fn read<T>(&self, read: impl FnOnce(&Store) -> io::Result<T>) -> Result<T, IngestError> {
        let failed = |error| IngestError::Store(StoreError::new("read a blob in", self.store.root(), error));
        read(self.store).map_err(failed)
    }
}

impl AuthorStore for AuthorBlobs<'_> {
    type Error = IngestError;

    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, IngestError> {
        self.read(|store| store.open_index(blob))
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, IngestError> {
        seal_and_store(self.store, self.secret, buf, len)
    }

    fn id(&mut self, root: &Root) -> Result<Option<BlobId>, IngestError> {
        self.read(|store| store.id_of(root))
    }

    fn store_v5(&mut self, root: &Root, id: &BlobId) -> Result<(), IngestError> {
        let mut blob = vec![0; BLOB_LEN];
        if self.read(|store| store.read(&BlobName::Native(*root), &mut blob))? {
            self.store.write(&BlobName::V5(*id), &blob).map_err(IngestError::Store)?;
        }
        Ok(())
    }
}
