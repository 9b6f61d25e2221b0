//! What cannot be read: why, what the user is told of it, and when it is tried again.
//!
//! `Loss::of` alone sorts the system's errors. The user is told once of each file, and once when it is back. It is tried again after
//! `RETRIES`, and as soon as its folder changes: a look at the folder's metadata each second, and only while something is
//! lost. A watch by inotify would cost a descriptor for each folder, is not told of mounts, and is blind on network file systems.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use megatorrent_core::node::StoreNews;
use rustix::io::Errno;
use smol::channel::{self, Receiver, Sender};

use crate::store::lock;

/// How long after something could not be read it is tried again: the first, the second and each further time.
const RETRIES: [Duration; 3] = [Duration::from_secs(10), Duration::from_mins(1), Duration::from_mins(5)];
/// How soon file descriptors are looked for again.
const HANDLES_RETRY: Duration = Duration::from_secs(1);
/// How often the folders of what is lost are looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often and how long a worker waits for a file descriptor before it gives up.
const HANDLE_WAITS: u32 = 3;
const HANDLE_WAIT: Duration = Duration::from_millis(20);
/// News kept for a user who is late; at the cap the oldest makes room.
const NEWS_MAX: usize = 1024;
/// Files remembered of which the user was told that they were changed; at the cap they are told of again.
const TOLD_MAX: usize = 4096;

/// Why something cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The disk failed.
    DiskFailed,
    /// The process has no file descriptors left, which says nothing of the file.
    NoHandles,
    /// Its folder is not there, or is another one than it was: a disk is not mounted.
    FolderAbsent,
    /// Its folder is there without it.
    Deleted,
    /// It was changed since.
    Changed,
    /// Nobody has changed it, and the disk gives other bytes than were written.
    Damaged,
}

impl Loss {
    /// The loss of a file, of which the folder is as it was (`has_folder`) or not.
    pub(crate) fn of(error: &io::Error, has_folder: impl FnOnce() -> bool) -> Self {
        let errno = Errno::from_io_error(error);
        if is_no_handles(error) {
            return Self::NoHandles;
        }
        let is_absent = matches!(
            errno,
            Some(
                Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::LOOP
                    | Errno::ISDIR
                    | Errno::NODEV
                    | Errno::NXIO
                    | Errno::STALE
                    | Errno::NOTCONN
            )
        ) || error.kind() == io::ErrorKind::NotFound;
        match is_absent {
            true if has_folder() => Self::Deleted,
            true => Self::FolderAbsent,
            false => Self::DiskFailed,
        }
    }

    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskFailed => "disk_failed",
            Self::NoHandles => "no_handles",
            Self::FolderAbsent => "folder_absent",
            Self::Deleted => "deleted",
            Self::Changed => "changed",
            Self::Damaged => "damaged",
        }
    }

    /// Whether the bytes are there as far as anybody knows, so that they need not come from peers.
    pub(crate) fn is_out_of_reach(self) -> bool {
        matches!(self, Self::DiskFailed | Self::NoHandles | Self::FolderAbsent)
    }
}

/// News of what cannot be read.
#[derive(Clone, Debug)]
pub struct LossNews {
    /// Why it could not be read.
    pub loss: Loss,
    /// The file, or the node's folder.
    pub path: PathBuf,
    /// The system's words.
    pub error: Option<String>,
    /// It can be read again.
    pub is_back: bool,
}

impl fmt::Display for LossNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = crate::export::shown(&self.path);
        if self.is_back {
            return match self.loss {
                Loss::NoHandles => f.write_str("there are file descriptors again"),
                _ => write!(f, "{path} can be read again and is served"),
            };
        }
        let error = self.error.as_deref().unwrap_or("the disk failed");
        match self.loss {
            Loss::DiskFailed => write!(
                f,
                "{path} cannot be read ({error}): check the disk and who may read it. It is tried again after 10 s, 1 min and \
                 each 5 min"
            ),
            Loss::NoHandles => write!(
                f,
                "this process has no file descriptors left ({error}), so {path} waits: raise the limit (ulimit -n)"
            ),
            Loss::FolderAbsent => write!(
                f,
                "{path} is out of reach, as its folder is not there or is another one: mount its disk, or bring the \
                 folder back. Nothing of it is forgotten or fetched again meanwhile"
            ),
            Loss::Deleted => write!(f, "{path} is gone from its folder, and is not served any more"),
            Loss::Changed => {
                write!(f, "{path} was changed: what it no longer holds is withdrawn, and not written over")
            }
            Loss::Damaged => write!(
                f,
                "{path} gives other bytes than were written, though nobody has changed it: they are fetched again. \
                 Check the disk"
            ),
        }
    }
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// File descriptors.
    Handles,
    /// The node's folder.
    Home,
    /// Blobs of the store.
    Blobs,
    /// A file that is held in place, by its number.
    File(u64),
    /// Some parts of one.
    Parts(u64),
}

/// The identity of a folder, and when it was changed last.
type Look = Option<(u64, u64, i64, i64)>;

struct Waiting {
    loss: Loss,
    path: PathBuf,
    failures: usize,
    retry_at: Instant,
    /// What the folder was like when it was looked at last.
    look: Look,
}

#[derive(Default)]
struct Inner {
    waiting: BTreeMap<What, Waiting>,
    /// Files of which the user was told that their bytes are others.
    told: BTreeSet<(u64, bool)>,
    news: VecDeque<LossNews>,
    is_damaged: bool,
    is_back: bool,
}

/// All losses of a store.
pub(crate) struct Losses {
    inner: Mutex<Inner>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl fmt::Debug for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Losses").finish_non_exhaustive()
    }
}

impl Default for Losses {
    fn default() -> Self {
        let (wake, woken) = channel::bounded(1);
        Self { inner: Mutex::default(), wake, woken }
    }
}

impl Losses {
    /// Something cannot be read. The user is told of it once.
    pub(crate) fn note(&self, what: What, path: &Path, loss: Loss, error: &io::Error) {
        let mut inner = lock(&self.inner);
        let now = Instant::now();
        let waiting = inner.waiting.entry(what).or_insert_with(|| Waiting {
            loss,
            path: path.to_owned(),
            failures: 0,
            retry_at: now,
            look: None,
        });
        let is_new = waiting.failures == 0 || waiting.loss != loss;
        if now < waiting.retry_at && !is_new {
            return;
        }
        waiting.loss = loss;
        let wait = RETRIES[waiting.failures.min(RETRIES.len() - 1)];
        waiting.retry_at = now + if what == What::Handles { HANDLES_RETRY } else { wait };
        waiting.failures += 1;
        waiting.look = look_at(path, loss);
        // What is asked for elsewhere is not waited for.
        inner.is_back |= is_new && loss == Loss::DiskFailed;
        if is_new {
            let news =
                LossNews { loss, path: path.to_owned(), error: Some(error.to_string()), is_back: false };
            inner.tell(news);
        }
        drop(inner);
        let _ = self.wake.try_send(());
    }

    /// Bytes are not what they were. `is_damaged`: though nobody has changed the file, so that they are wanted again.
    pub(crate) fn note_wrong(&self, number: u64, path: &Path, is_damaged: bool) {
        let mut inner = lock(&self.inner);
        inner.is_damaged |= is_damaged;
        if inner.told.len() >= TOLD_MAX {
            inner.told.clear();
        }
        if inner.told.insert((number, is_damaged)) {
            let loss = if is_damaged { Loss::Damaged } else { Loss::Changed };
            inner.tell(LossNews { loss, path: path.to_owned(), error: None, is_back: false });
        }
        drop(inner);
        let _ = self.wake.try_send(());
    }

    /// It can be read.
    pub(crate) fn clear(&self, what: What) {
        let mut inner = lock(&self.inner);
        let Some(Waiting { loss, path, .. }) = inner.waiting.remove(&what) else { return };
        inner.is_back = true;
        inner.tell(LossNews { loss, path, error: None, is_back: true });
        drop(inner);
        let _ = self.wake.try_send(());
    }

    /// It is of no interest any more.
    pub(crate) fn forget(&self, what: What) {
        lock(&self.inner).waiting.remove(&what);
    }

    /// Whether it is worth a try.
    pub(crate) fn may_try(&self, what: What) -> bool {
        lock(&self.inner).waiting.get(&what).is_none_or(|it| it.retry_at <= Instant::now())
    }

    /// What is to be tried again by now, or because its folder has changed.
    pub(crate) fn due(&self) -> Vec<What> {
        let all: Vec<(What, PathBuf, Loss)> =
            lock(&self.inner).waiting.iter().map(|(what, it)| (*what, it.path.clone(), it.loss)).collect();
        // A look may take its time on a disk that hangs.
        let look = |(what, path, loss): (What, PathBuf, Loss)| (what, look_at(&path, loss));
        let looks: Vec<(What, Look)> = all.into_iter().map(look).collect();
        let now = Instant::now();
        let mut inner = lock(&self.inner);
        let mut due = Vec::new();
        for (what, look) in looks {
            let Some(waiting) = inner.waiting.get_mut(&what) else { continue };
            if waiting.look != look {
                (waiting.look, waiting.retry_at) = (look, now);
            }
            if waiting.retry_at <= now {
                due.push(what);
            }
        }
        // Blobs that do not come back are fetched.
        inner.is_back |= !due.is_empty();
        due
    }

    /// Waits until there is something to do, or to look at again.
    pub(crate) async fn changed(&self) {
        let woken = async {
            let _ = self.woken.recv().await;
        };
        let is_waiting = !lock(&self.inner).waiting.is_empty();
        if is_waiting {
            let look = async {
                async_io::Timer::after(LOOK_INTERVAL).await;
            };
            futures_lite::FutureExt::or(woken, look).await;
        } else {
            woken.await;
        }
    }

    /// What core is to be told.
    pub(crate) fn take_store_news(&self) -> Vec<StoreNews> {
        let mut inner = lock(&self.inner);
        let damaged = std::mem::take(&mut inner.is_damaged).then_some(StoreNews::Damaged);
        let back = std::mem::take(&mut inner.is_back).then_some(StoreNews::Back);
        damaged.into_iter().chain(back).collect()
    }

    /// What the user is to be told.
    pub(crate) fn take_news(&self) -> Vec<LossNews> {
        lock(&self.inner).news.drain(..).collect()
    }
}

impl Inner {
    fn tell(&mut self, news: LossNews) {
        tracing::info!("{news}");
        if self.news.len() >= NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }
}

/// What the folder is like in which something stands, or the next one above that is there.
fn look_at(path: &Path, loss: Loss) -> Look {
    let mut folders = path.ancestors().skip(1);
    folders.find_map(|folder| {
        let it = fs::metadata(folder).ok()?;
        // What else happens in a folder does not mend a disk.
        let changed = if loss == Loss::DiskFailed { (0, 0) } else { (it.mtime(), it.mtime_nsec()) };
        Some((it.dev(), it.ino(), changed.0, changed.1))
    })
}

pub(crate) fn is_no_handles(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Opens something, and waits a little where there are no file descriptors.
pub(crate) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut waits = 0;
    loop {
        match open() {
            Err(error) if is_no_handles(&error) && waits < HANDLE_WAITS => {
                waits += 1;
                thread::sleep(HANDLE_WAIT * waits);
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn each_error_has_a_name() {
        for (errno, has_folder, loss) in [
            (Errno::IO, true, Loss::DiskFailed),
            (Errno::ACCESS, true, Loss::DiskFailed),
            (Errno::MFILE, false, Loss::NoHandles),
            (Errno::NFILE, true, Loss::NoHandles),
            (Errno::NOENT, true, Loss::Deleted),
            (Errno::NOENT, false, Loss::FolderAbsent),
            (Errno::STALE, false, Loss::FolderAbsent),
        ] {
            assert_eq!(Loss::of(&error(errno), || has_folder), loss, "{errno}");
        }
    }

    #[test]
    fn the_user_is_told_once_of_a_loss_and_once_of_its_end() {
        let (losses, path) = (Losses::default(), Path::new("/nowhere/film"));
        for _ in 0..3 {
            losses.note(What::File(1), path, Loss::DiskFailed, &error(Errno::IO));
        }
        assert!(!losses.may_try(What::File(1)) && losses.due().is_empty());
        let told = losses.take_news();
        assert!(matches!(&told[..], [news] if news.to_string().contains("/nowhere/film")), "{told:?}");
        losses.clear(What::File(1));
        losses.clear(What::File(1));
        assert!(matches!(&losses.take_news()[..], [news] if news.is_back));
        assert_eq!(losses.take_store_news(), [StoreNews::Back]);
        assert!(losses.may_try(What::File(1)) && losses.take_store_news().is_empty());
    }

    #[test]
    fn it_is_tried_again_when_its_folder_changes() {
        let dir = tempfile::tempdir().expect("a folder");
        let (losses, path) = (Losses::default(), dir.path().join("disk/film"));
        losses.note(What::File(1), &path, Loss::FolderAbsent, &error(Errno::NOENT));
        assert!(losses.due().is_empty());
        fs::create_dir(dir.path().join("disk")).expect("made");
        assert_eq!(losses.due(), [What::File(1)]);
        assert!(losses.may_try(What::File(1)));
        losses.note(What::File(1), &path, Loss::FolderAbsent, &error(Errno::NOENT));
        assert_eq!((losses.due(), losses.take_news().len()), (Vec::new(), 1));
    }
}
