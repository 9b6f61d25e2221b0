//! A node's folder `DIR`: blobs, state, and the DHT's routing table.
//!
//! ```text
//! DIR/                 0700
//! ├─ store.id          made once: a folder without it is no node's, such as one whose disk is not mounted
//! ├─ blobs/ab/<name>   the blobs: a native one by its root, a v5 one by its id (`store`)
//! ├─ blobs/boot        when they were last written (`store`)
//! ├─ blobs/format      in which form (`store`)
//! ├─ partial/<root>    native blobs of which parts are here (`store::native`)
//! ├─ state.redb        what core must remember (`state`), 0600
//! └─ dht_state.json    addresses of DHT nodes, to start from
//! ```

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::state::{State, StateError};
use crate::store::{Store, StoreError};

/// DHT nodes kept in `dht_state.json`; further ones are left out.
const DHT_NODES_MAX: usize = 512;
/// Longest `dht_state.json` that is read; a longer one is ignored.
const DHT_STATE_LEN_MAX: u64 = 64 * 1024;
const DHT_STATE: &str = "dht_state.json";
/// The file that makes a folder a node's: 32 hexadecimal digits.
pub(crate) const STORE_ID: &str = "store.id";
/// Longest `store.id` that is read.
const STORE_ID_LEN_MAX: u64 = 256;

/// Why `DIR` cannot be used.
#[derive(Debug)]
pub enum HomeError {
    /// The folder cannot be created.
    Folder(PathBuf, io::Error),
    /// The folder exists, and is no node's.
    NotANode(PathBuf),
    /// The blob store.
    Store(StoreError),
    /// The state; [`StateError::Held`] where another node runs on this folder.
    State(StateError),
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => {
                write!(f, "cannot create {}: {error}; name another folder (-d)", path.display())
            }
            Self::NotANode(path) => write!(
                f,
                "{} exists and is no node's folder (it has no {STORE_ID}): if its disk is not mounted, mount it; to make it \
                 a node's, say --new",
                path.display()
            ),
            Self::Store(error) => error.fmt(f),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HomeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotANode(_) => None,
            Self::Folder(_, error) => Some(error),
            Self::Store(error) => Some(error),
            Self::State(error) => Some(error),
        }
    }
}

/// An open `DIR`. While it lives, no other process can open the same one.
#[derive(Debug)]
pub struct Home {
    /// The folder.
    pub dir: PathBuf,
    /// Its blobs.
    pub store: Store,
    /// Its state.
    pub state: State,
}

impl Home {
    /// Opens `dir`, creating it, for its owner alone, where there is none. One that exists must be a node's ([`make`]).
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        prepare(dir)?;
        // The state first: it tells whether somebody else is at home.
        let state = State::open(dir).map_err(HomeError::State)?;
        let store = Store::open(dir, false).map_err(HomeError::Store)?;
        Ok(Self { dir: dir.to_owned(), store, state })
    }

    /// The blobs alone, also beside a running node.
    pub fn blobs_only(dir: &Path) -> Result<Store, HomeError> {
        prepare(dir)?;
        Store::open(dir, false).map_err(HomeError::Store)
    }
}

/// Makes a folder a node's, also one that exists.
///
/// # Errors
/// It cannot be created, or written to.
pub fn make(dir: &Path) -> Result<(), HomeError> {
    let failed = |e| HomeError::Folder(dir.to_owned(), e);
    create_folder(dir).map_err(failed)?;
    match write_id(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        written => written.map_err(failed),
    }
}

/// Makes a folder that is not there, and refuses one that is no node's.
fn prepare(dir: &Path) -> Result<(), HomeError> {
    let failed = |e| HomeError::Folder(dir.to_owned(), e);
    if fs::symlink_metadata(dir).is_ok_and(|it| !it.is_symlink()) || dir.exists() {
        return match read_id(dir).map_err(failed)? {
            Some(_) => Ok(()),
            None if dir.is_dir() => Err(HomeError::NotANode(dir.to_owned())),
            None => Err(failed(io::ErrorKind::NotADirectory.into())),
        };
    }
    create_with_id(dir).map_err(failed)
}

/// Makes a folder that appears with its id: another process may make it at the same time.
fn create_with_id(dir: &Path) -> io::Result<()> {
    let Some(name) = dir.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}-new", std::process::id()));
    let hidden = dir.with_file_name(hidden);
    create_folder(&hidden)?;
    let made = match write_id(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // After a power cut, a folder without its id would be refused.
        _ => File::open(&hidden).and_then(|it| it.sync_all()).and_then(|()| fs::rename(&hidden, dir)),
    };
    if made.is_err() {
        let _ = fs::remove_file(hidden.join(STORE_ID));
        let _ = fs::remove_dir(&hidden);
    }
    // Somebody else was sooner.
    made.or_else(|error| if matches!(read_id(dir), Ok(Some(_))) { Ok(()) } else { Err(error) })
}

fn create_folder(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn write_id(dir: &Path) -> io::Result<()> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| io::Error::other(e.to_string()))?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join(STORE_ID))?;
    writeln!(file, "{}", crate::held::table::hex(&id))?;
    file.sync_all()
}

/// What tells a node's folder from all others; `None`: it is no node's.
pub(crate) fn read_id(dir: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(dir.join(STORE_ID))
        .and_then(|file| file.take(STORE_ID_LEN_MAX).read_to_string(&mut text))
    {
        // An empty one was torn by a power cut, and is this folder's all the same.
        Ok(_) => Ok(Some(text.trim().to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The DHT nodes (`ip:port`) known at the end of an earlier run. A file that is missing, damaged or too long gives
/// none: the DHT then starts from its bootstrap nodes.
pub fn load_dht_state(dir: &Path) -> Vec<String> {
    let mut text = Vec::new();
    let read = File::open(dir.join(DHT_STATE))
        .and_then(|file| file.take(DHT_STATE_LEN_MAX + 1).read_to_end(&mut text));
    if read.is_err() || text.len() as u64 > DHT_STATE_LEN_MAX {
        return Vec::new();
    }
    let nodes: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
    nodes.into_iter().filter(|node| node.parse::<SocketAddr>().is_ok()).take(DHT_NODES_MAX).collect()
}

/// Replaces `dht_state.json` as a whole.
pub fn save_dht_state(dir: &Path, nodes: &[String]) -> io::Result<()> {
    let text = serde_json::to_vec(&nodes[..nodes.len().min(DHT_NODES_MAX)])?;
    let temp = dir.join(".dht_state.json.part");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(&text)?;
    // Without it, a power cut could leave the new name with no content.
    file.sync_data()?;
    fs::rename(&temp, dir.join(DHT_STATE))
}
