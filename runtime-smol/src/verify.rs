//! A look at all that a home holds: each part of each file that is held is sealed again and compared, each stored blob is hashed.
//! What is not right is withdrawn, as any other look at it would withdraw it, and told.
//!
//! It takes a few buffers, whatever is held, and works beside a node that runs on the same home.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use megatorrent_core::blob::BLOB_LEN;
use megatorrent_core::parts::PART_LEN;

use crate::export::shown;
use crate::held::HeldFile;
use crate::held::table::Stat;
use crate::held::verify::{Look, Seen};
use crate::store::{BLOB_FOLDERS, Store, StoreError, lock};

/// Threads; more asked for are not started. Each takes 1 MiB.
const WORKERS_MAX: usize = 16;

/// Something that is not as it was.
#[derive(Debug)]
pub struct Finding {
    /// What it is about.
    pub of: Of,
    /// The file's path, or that of the blob's file.
    pub path: PathBuf,
    /// What was found.
    pub state: State,
    /// Bytes that were held and are not any more.
    pub lost_bytes: u64,
}

/// What a [`Finding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A file of a channel that was fetched.
    File,
    /// A file that is being fetched.
    Unfinished,
    /// A file that was ingested where it lies.
    Own,
    /// A stored blob.
    Blob,
}

impl Of {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Unfinished => "unfinished",
            Self::Own => "own",
            Self::Blob => "blob",
        }
    }
}

/// What was found.
#[derive(Debug)]
pub enum State {
    /// Somebody wrote to it, or put another file in its place.
    Edited,
    /// It ends sooner than it did.
    Truncated,
    /// It has another name in the same folder.
    Moved(PathBuf),
    /// Nothing is there.
    Deleted,
    /// It cannot be read.
    Unreadable(io::Error),
    /// Its bytes are others, and nothing tells that anybody wrote them.
    Damaged,
}

impl State {
    /// Its name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Truncated => "truncated",
            Self::Moved(_) => "moved",
            Self::Deleted => "deleted",
            Self::Unreadable(_) => "unreadable",
            Self::Damaged => "damaged",
        }
    }

    /// Whether it is not there, rather than wrong.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::Deleted)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = shown(&self.path);
        match &self.state {
            State::Edited if self.lost_bytes == 0 => {
                return write!(f, "{path} was edited: all that it held is still in it");
            }
            State::Edited => write!(f, "{path} was edited")?,
            State::Truncated => write!(f, "{path} was truncated")?,
            State::Moved(to) => write!(f, "{path} was moved to {}", shown(to))?,
            State::Deleted if self.of == Of::Unfinished => write!(f, "{path} is gone before it was whole")?,
            State::Deleted => write!(f, "{path} is gone: deleted, or moved away")?,
            State::Unreadable(error) => return write!(f, "{path} cannot be read: {error}"),
            State::Damaged => write!(f, "{path} is damaged")?,
        }
        write!(f, ": {} bytes are withdrawn", self.lost_bytes)
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files held.
    pub files: u64,
    /// Blobs stored.
    pub blobs: u64,
}

/// Why not everything could be looked at.
#[derive(Debug)]
pub enum VerifyError {
    /// A folder of the home cannot be read.
    Store(StoreError),
    /// It was cancelled.
    Cancelled,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for VerifyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Cancelled => None,
        }
    }
}

/// How a look is told of, from any thread.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Called once, with the bytes that there are to look at.
    pub total: &'a (dyn Fn(u64) + Sync),
    /// Called with bytes that were looked at.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Called for each thing that is not as it was.
    pub found: &'a (dyn Fn(Finding) + Sync),
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

/// Looks at all that a store holds, on several threads. `cancel` ends it.
///
/// # Errors
/// Where the folders of the home cannot be read, and where it was cancelled.
pub fn verify(
    store: &Store,
    workers: usize,
    told: Told<'_>,
    cancel: &AtomicBool,
) -> Result<Summary, VerifyError> {
    let failed = |error| VerifyError::Store(StoreError::new("list what is held below", store.root(), error));
    let files = store.held_files().all().map_err(failed)?;
    let mut summary = Summary { files: files.len() as u64, blobs: 0 };
    let blobs = store.count_stored().map_err(failed)?;
    let bytes = files.iter().map(|file| file.len()).fold(0, u64::saturating_add);
    (told.total)(bytes.saturating_add(blobs * BLOB_LEN as u64));

    let gone = Mutex::new(Vec::new());
    let rows = Mutex::new(Rows { files: files.into_iter(), at: None });
    in_parallel(workers, || {
        let mut buf = vec![0; PART_LEN];
        while !cancel.load(Relaxed) {
            let Some((look, number)) = lock(&rows).next() else { return Ok(()) };
            if let Some(number) = number {
                (told.progress)(look.row(number, &mut buf));
            }
            // The thread that was the last to look at a file says what it has come to.
            if let Some(look) = Arc::into_inner(look) {
                let seen = look.end();
                match finding(seen) {
                    Some((finding, stat)) if matches!(finding.state, State::Deleted) => {
                        lock(&gone).push((finding, stat));
                    }
                    Some((finding, _)) => (told.found)(finding),
                    None => {}
                }
            }
        }
        Err(VerifyError::Cancelled)
    })?;
    let gone = gone.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    find_moved(gone).into_iter().for_each(told.found);

    let (next, looked_at) = (AtomicU64::new(0), AtomicU64::new(0));
    in_parallel(workers, || {
        let mut buf = vec![0; BLOB_LEN];
        loop {
            let folder = next.fetch_add(1, Relaxed);
            let Some(folder) = u8::try_from(folder).ok().filter(|_| folder < BLOB_FOLDERS) else {
                return Ok(());
            };
            for blob in store.blobs_in(folder).map_err(failed)? {
                if cancel.load(Relaxed) {
                    return Err(VerifyError::Cancelled);
                }
                let state = match store.look_at_blob(&blob, &mut buf) {
                    Ok(true) => None,
                    Ok(false) => Some(State::Damaged),
                    Err(error) => Some(State::Unreadable(error)),
                };
                let lost_bytes = if matches!(state, Some(State::Damaged)) { BLOB_LEN as u64 } else { 0 };
                if let Some(state) = state {
                    (told.found)(Finding { of: Of::Blob, path: blob.path, state, lost_bytes });
                }
                looked_at.fetch_add(1, Relaxed);
                (told.progress)(BLOB_LEN as u64);
            }
        }
    })?;
    summary.blobs = looked_at.into_inner();
    Ok(summary)
}

/// Does the same work on several threads; the first error.
fn in_parallel(workers: usize, work: impl Fn() -> Result<(), VerifyError> + Sync) -> Result<(), VerifyError> {
    thread::scope(|scope| {
        let mut others = Vec::new();
        for number in 1..workers.min(WORKERS_MAX) {
            let builder = thread::Builder::new().name(format!("verify-{number}"));
            match builder.spawn_scoped(scope, &work) {
                Ok(thread) => others.push(thread),
                // One worker is enough; the more there are, the sooner it is done.
                Err(error) => tracing::warn!(%error, "cannot start a worker thread"),
            }
        }
        let mut result = work();
        for thread in others {
            result = result.and(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        result
    })
}

/// All rows of all files, in order. A file without rows has one look of its own.
struct Rows {
    files: std::vec::IntoIter<Arc<HeldFile>>,
    /// The file, its next row and the number of its rows.
    at: Option<(Arc<Look>, u32, u32)>,
}

impl Iterator for Rows {
    type Item = (Arc<Look>, Option<u32>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((look, next, rows)) = self.at.take() {
            // The last one is handed out alone, so that nobody else holds the file then.
            if next + 1 < rows {
                self.at = Some((Arc::clone(&look), next + 1, rows));
            }
            return Some((look, Some(next)));
        }
        let held = self.files.next()?;
        let (look, rows) = (Arc::new(held.look()), held.rows());
        if rows == 0 {
            return Some((look, None));
        }
        if rows > 1 {
            self.at = Some((Arc::clone(&look), 1, rows));
        }
        Some((look, Some(0)))
    }
}

/// What is to be told of a file, and what it was like.
fn finding(seen: Seen) -> Option<(Finding, Stat)> {
    let Seen { header, stat, lost_bytes } = seen;
    let of = match (&header.working, &header.digest) {
        (Some(_), _) => Of::Unfinished,
        (None, Some(_)) => Of::File,
        (None, None) => Of::Own,
    };
    let is_whole = header.working.is_none();
    let (state, lost_bytes) = match stat {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (State::Deleted, header.stat.size),
        // A folder, a link or a pipe stands there.
        Err(error) if is_of_another_kind(&error) => (State::Edited, header.stat.size),
        Err(error) => (State::Unreadable(error), 0),
        Ok(stat) if is_whole && stat.size < header.stat.size => (State::Truncated, lost_bytes),
        Ok(stat) if is_whole && stat.size > header.stat.size => (State::Edited, lost_bytes),
        Ok(_) if lost_bytes == 0 => return None,
        Ok(stat) if is_whole && stat != header.stat => (State::Edited, lost_bytes),
        Ok(_) => (State::Damaged, lost_bytes),
    };
    let path = header.place()?;
    Some((Finding { of, path, state, lost_bytes }, header.stat))
}

fn is_of_another_kind(error: &io::Error) -> bool {
    // ELOOP is how O_NOFOLLOW refuses a link.
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::Other)
}

/// Looks for files that are gone under other names in the folders where they were.
fn find_moved(mut gone: Vec<(Finding, Stat)>) -> Vec<Finding> {
    let mut by_folder: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (n, (finding, _)) in gone.iter().enumerate() {
        let folder = finding.path.parent().map(Path::to_owned).unwrap_or_default();
        by_folder.entry(folder).or_default().push(n);
    }
    for (folder, numbers) in by_folder {
        let by_file: BTreeMap<(u64, u64), usize> =
            numbers.into_iter().map(|n| ((gone[n].1.device, gone[n].1.inode), n)).collect();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let stat = Stat::from(&metadata);
            if let Some(n) = by_file.get(&(stat.device, stat.inode))
                && gone[*n].1.is_unwritten(&stat)
                && metadata.is_file()
            {
                gone[*n].0.state = State::Moved(entry.path());
            }
        }
    }
    gone.into_iter().map(|(finding, _)| finding).collect()
}
