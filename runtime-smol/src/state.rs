//! What a node must remember: `DIR/state.redb`, a table for each kind of record.
//!
//! The values are core's own business ([`RecordKey`]); this file only keeps them. One process holds the database at a
//! time, by a lock that ends with the process. A commit is whole or not there at all, whatever ends the process.

use std::cell::RefCell;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobId, Root};
use megatorrent_core::node::RecordKey;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use crate::store::lock;

/// Bytes of pages that the database keeps in memory.
const CACHE_BYTES: usize = 1 << 20;
/// The form of the tables and their keys; a database with another number is refused.
const VERSION: u8 = 2;

/// The name of a database that is being made.
const NEW: &str = "state.redb.new";

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const CHANNELS: Table = TableDefinition::new("channels");
const BANS: Table = TableDefinition::new("bans");
const PEERS: Table = TableDefinition::new("peers");
const FILES: Table = TableDefinition::new("files");
/// Which native blob has an id, as its author says: id to root.
const IDS: Table = TableDefinition::new("ids");
/// Where the files of channels go: channel and path of the output folder to how.
const OUTPUTS: Table = TableDefinition::new("outputs");
/// The device and inode of each output folder that files were written into.
const OUTPUT_FOLDERS: Table = TableDefinition::new("output_folders");
/// Records of the application above the node: name to bytes.
const APPLICATION: Table = TableDefinition::new("application");
const META: Table = TableDefinition::new("meta");
const VERSION_KEY: &[u8] = b"version";

/// Why the state cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// Another process holds it.
    Held(PathBuf),
    /// It was written in another form: its version.
    Version(PathBuf, u8),
    /// It is damaged, or no state at all.
    Corrupt(PathBuf, String),
    /// The disk failed or is full.
    Io(PathBuf, io::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(path) => {
                let process = holder(path).map(|pid| format!(" (process {pid})")).unwrap_or_default();
                write!(
                    f,
                    "{} is held by a running node{process}: stop that node, or use another folder (-d)",
                    path.display()
                )
            }
            Self::Version(path, version) => write!(
                f,
                "{} has form {version}, which this program does not know (it writes form {VERSION}): use the program \
                 that wrote it, or another folder (-d)",
                path.display()
            ),
            Self::Corrupt(path, why) => write!(
                f,
                "{} is damaged ({why}): restore it from a copy, or move it away to start anew (the blobs stay, the \
                 subscriptions are lost)",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

/// The process that has a file's lock, where the system says it (proc(5): `/proc/locks`).
fn holder(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let of_file = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut of_file =
        of_file.filter(|words| words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&place.as_str()));
    // A process of another namespace is called 0, or -1.
    of_file.find_map(|words| words[4].parse().ok().filter(|pid| *pid > 0))
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

/// A file that was written into an output folder: enough to know later that it is ours and unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Bytes.
    pub size: u64,
    /// Modification time, as the file system gives it back: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// BLAKE3 over all that the channel said of the file.
    pub digest: [u8; 32],
    /// The boot in which it was written; `None` when it has reached the disk since.
    pub boot: Option<String>,
}

/// An output folder of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The channel.
    pub channel: PublicKey,
    /// The folder.
    pub folder: PathBuf,
    /// Whether the blobs are kept beside the files.
    pub copy: bool,
}

impl FileRecord {
    pub(crate) fn of(found: &fs::Metadata, digest: [u8; 32], boot: Option<String>) -> Self {
        let modified = (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0));
        Self { size: found.len(), modified, digest, boot }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(52 + 36);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.modified.0.to_be_bytes());
        bytes.extend_from_slice(&self.modified.1.to_be_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(self.boot.as_deref().unwrap_or("").as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (seconds, rest) = rest.split_first_chunk::<8>()?;
        let (nanos, rest) = rest.split_first_chunk::<4>()?;
        let (digest, boot) = rest.split_first_chunk::<32>()?;
        Some(Self {
            size: u64::from_be_bytes(*size),
            modified: (i64::from_be_bytes(*seconds), u32::from_be_bytes(*nanos)),
            digest: *digest,
            boot: Some(str::from_utf8(boot).ok()?.to_owned()).filter(|boot| !boot.is_empty()),
        })
    }
}

/// The database, open. Calls wait for the disk: they belong on a worker thread.
///
/// After a failure of the disk the database takes nothing more; it is opened anew for the next call, so that a full disk costs what
/// came while it was full.
pub struct State {
    /// `None`: it could not be opened anew.
    database: RwLock<Option<Database>>,
    path: PathBuf,
    has_failed: AtomicBool,
    last_failure: Mutex<Option<Arc<StateError>>>,
}

impl State {
    /// Opens `dir/state.redb`, readable by its owner alone, creating it where there is none.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join("state.redb");
        let failed = |e| StateError::Io(path.clone(), e);
        loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Self::with_file(file, path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(state) = Self::create(dir, &path)? {
                return Ok(state);
            }
        }
    }

    /// Makes a database, which gets its name when it is one: what ends the process before leaves nothing that is damaged. `None`: another
    /// process has made it meanwhile.
    fn create(dir: &Path, path: &Path) -> Result<Option<Self>, StateError> {
        let failed = |e| StateError::Io(path.to_owned(), e);
        let new = dir.join(NEW);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&new).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(StateError::Held(path.to_owned())),
            // Without locks, nothing tells of another process.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Who had the lock before may have given this very file its name.
        if path.try_exists().map_err(failed)? {
            return Ok(None);
        }
        file.set_len(0).map_err(failed)?;
        let state = Self::with_file(file, path.to_owned())?;
        fs::rename(&new, path).and_then(|()| File::open(dir)?.sync_all()).map_err(failed)?;
        Ok(Some(state))
    }

    fn with_file(file: File, path: PathBuf) -> Result<Self, StateError> {
        let database = RwLock::new(Some(open_file(file, &path)?));
        let state =
            Self { database, path, has_failed: AtomicBool::new(false), last_failure: Mutex::default() };
        state.prepare()?;
        Ok(state)
    }

    /// Does something with the database.
    fn run<T>(&self, operation: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StateError> {
        if self.has_failed.load(Relaxed) {
            self.open_anew()?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let lost = || StateError::Io(self.path.clone(), io::Error::other("it could not be opened anew"));
        let database = database.as_ref().ok_or_else(lost)?;
        let result = guarded(&self.path, || operation(database));
        if let Err(StateError::Io(..)) = result {
            self.has_failed.store(true, Relaxed);
        }
        result
    }

    fn open_anew(&self) -> Result<(), StateError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if !self.has_failed.load(Relaxed) {
            return Ok(());
        }
        // First the old one, which holds the lock.
        drop(database.take());
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.map_err(|e| StateError::Io(self.path.clone(), e))?;
        *database = Some(open_file(file, &self.path)?);
        self.has_failed.store(false, Relaxed);
        Ok(())
    }

    /// Why a record could not be stored last, if one could not.
    pub fn last_failure(&self) -> Option<Arc<StateError>> {
        lock(&self.last_failure).clone()
    }

    /// All records, to be handed to core before anything else. A key that does not parse is left out.
    pub fn records(&self) -> Result<Vec<(RecordKey, Vec<u8>)>, StateError> {
        self.run(|database| {
            let read = database.begin_read()?;
            let mut records = Vec::new();
            for (table, parse) in
                [(CHANNELS, parse_channel as fn(&[u8]) -> _), (BANS, parse_ban), (PEERS, parse_peer)]
            {
                for row in read.open_table(table)?.iter()? {
                    let (key, value) = row?;
                    records.extend(parse(key.value()).map(|key| (key, value.value().to_vec())));
                }
            }
            Ok(records)
        })
    }

    /// Stores a record durably, or removes it (`None`). When this returns, no crash undoes it.
    pub fn persist(&self, key: &RecordKey, value: Option<&[u8]>) -> Result<(), Arc<StateError>> {
        let (table, key) = match key {
            RecordKey::Channel(channel) => (CHANNELS, channel.as_bytes().to_vec()),
            RecordKey::Ban(peer) => (BANS, peer.to_string().into_bytes()),
            RecordKey::Peer(peer) => (PEERS, peer.to_string().into_bytes()),
        };
        let stored = self.put(table, &key, value, Durability::Immediate);
        stored.map_err(|error| {
            let error = Arc::new(error);
            *lock(&self.last_failure) = Some(error.clone());
            error
        })
    }

    /// Notes which native blobs have these ids, as their author says. A crash may undo it: it is noted again when the channel's
    /// content is looked at.
    pub fn note_ids(&self, ids: &[(BlobId, Root)]) -> Result<(), StateError> {
        self.run(|database| {
            let mut write = database.begin_write()?;
            write.set_durability(Durability::None)?;
            {
                let mut table = write.open_table(IDS)?;
                for (id, root) in ids {
                    table.insert(&id.0[..], &root.0[..])?;
                }
            }
            Ok(write.commit()?)
        })
    }

    /// Which native blob has an id, as an author says.
    pub fn root_of(&self, id: &BlobId) -> Result<Option<Root>, StateError> {
        self.run(|database| {
            let value = database.begin_read()?.open_table(IDS)?.get(&id.0[..])?;
            Ok(value.and_then(|value| value.value().try_into().ok()).map(Root))
        })
    }

    /// What is known of the file that was written at `path`.
    pub fn file(&self, path: &Path) -> Result<Option<FileRecord>, StateError> {
        self.run(|database| {
            let read = database.begin_read()?;
            let value = read.open_table(FILES)?.get(path.as_os_str().as_bytes())?;
            Ok(value.and_then(|value| FileRecord::from_bytes(value.value())))
        })
    }

    /// Remembers a file that was written at `path`. It becomes durable with the next [`Self::persist`] or [`Self::flush`], or when the
    /// state is dropped: one that is lost costs a comparison of the file with its blobs, not the file.
    pub fn persist_file(&self, path: &Path, record: &FileRecord) -> Result<(), StateError> {
        self.put(FILES, path.as_os_str().as_bytes(), Some(&record.to_bytes()), Durability::None)
    }

    /// Whether a file was ever written below a folder.
    pub fn has_files_below(&self, folder: &Path) -> Result<bool, StateError> {
        self.any_file_below(folder, |_, _| true)
    }

    /// Whether a file that was written below a folder is not there, or not as it was written.
    pub fn has_changed_below(&self, folder: &Path) -> Result<bool, StateError> {
        let folder = crate::outputs::real_path(folder);
        let is_as_written = |path: &Path, record: &FileRecord| {
            fs::symlink_metadata(path).is_ok_and(|found| {
                let now = FileRecord::of(&found, record.digest, None);
                found.is_file() && (now.size, now.modified) == (record.size, record.modified)
            })
        };
        self.any_file_below(&folder, |path, record| !is_as_written(path, record))
    }

    /// Forgets what was written below a folder. It becomes durable as a file's record does.
    pub(crate) fn forget_files_below(&self, folder: &Path) -> Result<(), StateError> {
        let below = RefCell::new(Vec::new());
        self.any_file_below(folder, |path, _| {
            below.borrow_mut().push(path.to_owned());
            false
        })?;
        for path in below.into_inner() {
            self.put(FILES, path.as_os_str().as_bytes(), None, Durability::None)?;
        }
        Ok(())
    }

    fn any_file_below(
        &self,
        folder: &Path,
        is_wanted: impl Fn(&Path, &FileRecord) -> bool,
    ) -> Result<bool, StateError> {
        let below = folder.join("x");
        let prefix = below.as_os_str().as_bytes();
        let prefix = &prefix[..prefix.len() - 1];
        self.run(|database| {
            let table = database.begin_read()?.open_table(FILES)?;
            for row in table.range(prefix..)? {
                let (path, record) = row?;
                if !path.value().starts_with(prefix) {
                    break;
                }
                let name = Path::new(std::ffi::OsStr::from_bytes(path.value()));
                if FileRecord::from_bytes(record.value()).is_some_and(|record| is_wanted(name, &record)) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Remembers where a channel's files go. It becomes durable as a file's record does.
    pub fn note_output(&self, output: &Output) -> Result<(), StateError> {
        let key = [output.channel.as_bytes(), output.folder.as_os_str().as_bytes()].concat();
        self.put(OUTPUTS, &key, Some(&[u8::from(output.copy)]), Durability::None)
    }

    /// Stores a record of the application durably (`None`: deletes it). What it holds is the application's own business.
    pub fn set_application(&self, name: &str, value: Option<&[u8]>) -> Result<(), StateError> {
        self.put(APPLICATION, name.as_bytes(), value, Durability::Immediate)
    }

    /// The application's records whose names begin so, in the order of their names.
    pub fn application(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        self.run(|database| {
            let table = match database.begin_read()?.open_table(APPLICATION) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut records = Vec::new();
            for row in table.range(prefix.as_bytes()..)? {
                let (name, value) = row?;
                let Ok(name) = str::from_utf8(name.value()) else { continue };
                if !name.starts_with(prefix) {
                    break;
                }
                records.push((name.to_owned(), value.value().to_vec()));
            }
            Ok(records)
        })
    }

    /// Where channels' files go.
    pub fn outputs(&self) -> Result<Vec<Output>, StateError> {
        self.run(|database| {
            let table = match database.begin_read()?.open_table(OUTPUTS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut outputs = Vec::new();
            for row in table.iter()? {
                let (key, copy) = row?;
                let Some((channel, path)) = key.value().split_first_chunk::<32>() else { continue };
                let Ok(channel) = PublicKey::from_bytes(*channel) else { continue };
                let folder = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
                outputs.push(Output { channel, folder, copy: copy.value() == [1] });
            }
            Ok(outputs)
        })
    }

    /// The device and inode that an output folder had when files were written into it.
    pub(crate) fn output(&self, path: &Path) -> Result<Option<(u64, u64)>, StateError> {
        self.run(|database| {
            let table = match database.begin_read()?.open_table(OUTPUT_FOLDERS) {
                Ok(table) => table,
                // Nobody has written files yet.
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let value = table.get(path.as_os_str().as_bytes())?;
            let id = value.and_then(|value| <[u8; 16]>::try_from(value.value()).ok());
            let id = id.map(u128::from_be_bytes);
            #[expect(clippy::cast_possible_truncation, reason = "two halves")]
            Ok(id.map(|id| ((id >> 64) as u64, id as u64)))
        })
    }

    /// Remembers what an output folder is, or forgets it (`None`).
    pub(crate) fn persist_output(&self, path: &Path, id: Option<(u64, u64)>) -> Result<(), StateError> {
        let value = id.map(|(device, inode)| (u128::from(device) << 64 | u128::from(inode)).to_be_bytes());
        let value = value.as_ref().map(|value| &value[..]);
        self.put(OUTPUT_FOLDERS, path.as_os_str().as_bytes(), value, Durability::Immediate)
    }

    /// Makes all that was remembered durable.
    pub fn flush(&self) -> Result<(), StateError> {
        self.run(|database| Ok(database.begin_write()?.commit()?))
    }

    fn put(
        &self,
        table: Table,
        key: &[u8],
        value: Option<&[u8]>,
        durability: Durability,
    ) -> Result<(), StateError> {
        self.run(|database| {
            let mut write = database.begin_write()?;
            write.set_durability(durability)?;
            {
                let mut table = write.open_table(table)?;
                match value {
                    Some(value) => drop(table.insert(key, value)?),
                    None => drop(table.remove(key)?),
                }
            }
            Ok(write.commit()?)
        })
    }

    /// Creates the tables of a new database, and refuses one of another form.
    fn prepare(&self) -> Result<(), StateError> {
        let found = self.run(|database| {
            let read = database.begin_read()?;
            match read.open_table(META) {
                Ok(meta) => {
                    Ok(Some(meta.get(VERSION_KEY)?.and_then(|v| v.value().first().copied()).unwrap_or(0)))
                }
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        match found {
            Some(VERSION) => Ok(()),
            Some(other) => Err(StateError::Version(self.path.clone(), other)),
            None => self.run(|database| {
                let write = database.begin_write()?;
                for table in [CHANNELS, BANS, PEERS, FILES, IDS, OUTPUTS, OUTPUT_FOLDERS] {
                    drop(write.open_table(table)?);
                }
                write.open_table(META)?.insert(VERSION_KEY, [VERSION].as_slice())?;
                Ok(write.commit()?)
            }),
        }
    }
}

impl Drop for State {
    /// Makes the last file records durable.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.path).finish()
    }
}

fn open_file(file: File, path: &Path) -> Result<Database, StateError> {
    guarded(path, || {
        redb::Builder::new().set_cache_size(CACHE_BYTES).create_file(file).map_err(redb::Error::from)
    })
}

/// Runs a database operation. The database has assertions about its file's content, so a damaged file may make it
/// panic: here that is an error like any other, and the caller stops using the state.
fn guarded<T>(path: &Path, operation: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StateError> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => result.map_err(|error| sort_error(path, error)),
        Err(_) => {
            Err(StateError::Corrupt(path.to_owned(), "the database cannot make sense of it".to_owned()))
        }
    }
}

fn sort_error(path: &Path, error: redb::Error) -> StateError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StateError::Held(path),
        // What redb says of a file that does not begin as a database does.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            StateError::Corrupt(path, error.to_string())
        }
        redb::Error::Io(error) => StateError::Io(path, error),
        redb::Error::PreviousIo => StateError::Io(path, io::Error::other("the disk failed before")),
        error => StateError::Corrupt(path, error.to_string()),
    }
}

fn parse_channel(key: &[u8]) -> Option<RecordKey> {
    PublicKey::from_bytes(key.try_into().ok()?).ok().map(RecordKey::Channel)
}

fn parse_ban(key: &[u8]) -> Option<RecordKey> {
    parse_addr(key).map(RecordKey::Ban)
}

fn parse_peer(key: &[u8]) -> Option<RecordKey> {
    parse_addr(key).map(RecordKey::Peer)
}

fn parse_addr(key: &[u8]) -> Option<PeerAddr> {
    str::from_utf8(key).ok()?.parse().ok()
}
