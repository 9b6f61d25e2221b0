//! A node's folder `DIR`: blobs, state, and the DHT's routing table.
//!
//! ```text
//! DIR/                 0700
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

/// Why `DIR` cannot be used.
#[derive(Debug)]
pub enum HomeError {
    /// The folder cannot be created.
    Folder(PathBuf, io::Error),
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
            Self::Store(error) => error.fmt(f),
            Self::State(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HomeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
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
    /// Opens `dir`, creating it, for its owner alone, where there is none.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        create_folder(dir)?;
        // The state first: it tells whether somebody else is at home.
        let state = State::open(dir).map_err(HomeError::State)?;
        let store = Store::open(dir, false).map_err(HomeError::Store)?;
        Ok(Self { dir: dir.to_owned(), store, state })
    }

    /// The blobs alone, also beside a running node.
    pub fn blobs_only(dir: &Path) -> Result<Store, HomeError> {
        create_folder(dir)?;
        Store::open(dir, false).map_err(HomeError::Store)
    }
}

fn create_folder(dir: &Path) -> Result<(), HomeError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(|e| HomeError::Folder(dir.to_owned(), e))
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
