//! A file into blobs, and its entry.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::EXTENTS_MAX;
use megatorrent_core::manifest::{Chunk, EntryPath, Extent, FileEntry, Reference, entry};
use megatorrent_runtime_smol::export::{self, ExportError};
use megatorrent_runtime_smol::ingest::{ingest, ingest_in_place};
use megatorrent_runtime_smol::store::Store;
use serde_json::{Value, json};

use super::Progress;
use crate::api;
use crate::exit::{Exit, Failure};
use crate::files;

/// Most threads that seal and store; each takes 1 MiB.
const WORKERS_MAX: usize = 9;

/// What is to be made of an input.
pub(crate) struct Wish {
    /// The path in the channel.
    pub(crate) path: EntryPath,
    /// What the blobs are sealed under.
    pub(crate) secret: Secret,
    pub(crate) v5: bool,
    pub(crate) copy: bool,
}

impl Wish {
    pub(crate) fn of(call: &api::Ingest) -> Result<Self, Failure> {
        let secret = match &call.identity {
            Some(identity) if !call.unlinkable => files::read_identity(identity.as_ref())?.content_secret(),
            _ => files::random_secret()?,
        };
        let path = entry_path(call.name.as_deref(), Path::new(&call.file))?;
        Ok(Self { path, secret, v5: call.v5, copy: call.copy })
    }
}

/// The file's path in the channel: what was named, or the name of the input.
pub(crate) fn entry_path(name: Option<&str>, input: &Path) -> Result<EntryPath, Failure> {
    let name = match name {
        Some(name) => name,
        None if files::is_stdin(input) => {
            return Err(Failure::usage("stdin has no name: give one with --name"));
        }
        None => input.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Failure::usage(format!("{} has no name in UTF-8: give one with --name", input.display()))
        })?,
    };
    EntryPath::new(name)
        .map_err(|error| Failure::usage(format!("{name:?}: {error}; give another with --name")))
}

/// Reads the input to its end: `path`, `size`, `blobs` and the `entry`, which holds the file's keys. Waits for the disk.
pub(crate) fn run(input: &Path, wish: &Wish, store: &Store, progress: &Progress) -> Result<Value, Failure> {
    progress.set_step("reading");
    let input = Input::open(input)?;
    if let Some(metadata) = &input.metadata {
        progress.set_total(metadata.len());
    }
    let file = sealed(input, wish, store, progress)?;
    let (size, blobs) = (file.size, file.reference.blob_count());
    let text = entry::to_json(&file);
    let entry: Value = serde_json::from_str(&text).expect("an entry is JSON");
    Ok(json!({ "path": wish.path.as_str(), "size": size, "blobs": blobs, "entry": entry, "text": text }))
}

/// Reads a file to its end, for its entry in a manifest. Waits for the disk.
pub(super) fn entry_of(
    input: &Path,
    wish: &Wish,
    store: &Store,
    progress: &Progress,
) -> Result<FileEntry, Failure> {
    sealed(Input::open(input)?, wish, store, progress)
}

fn sealed(input: Input, wish: &Wish, store: &Store, progress: &Progress) -> Result<FileEntry, Failure> {
    let (modified_ms, executable) = input.metadata.as_ref().map_or((None, false), attributes);
    // What is sealed of a pipe has no other place than the folder of the node.
    let shared = if wish.copy { input.share(store)? } else { None };
    let in_place = input.metadata.as_ref().filter(|_| !wish.copy).map(|_| input.path.clone());
    let extents = seal(input, shared.clone().or(in_place).as_deref(), store, &wish.secret, progress);
    if let (Err(_), Some(copy)) = (&extents, &shared) {
        store.unshare(copy);
    }
    let extents = extents?;
    let reference =
        if wish.v5 { Reference::Chunks(chunks(&extents, store)?) } else { Reference::Extents(extents) };
    let size = reference.size().unwrap_or_default();
    let path = wish.path.clone();
    Ok(FileEntry { path, size, modified_ms, executable, reference, blake3: None })
}

fn seal(
    input: Input,
    in_place: Option<&Path>,
    store: &Store,
    secret: &Secret,
    progress: &Progress,
) -> Result<Vec<Extent>, Failure> {
    // One more than there are processors, since one at a time reads the input and those that wait for it seal nothing.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX - 1) + 1;
    let tell = |bytes| progress.add(bytes);
    Ok(match in_place {
        Some(path) => ingest_in_place(path, store, secret, workers, &tell, progress.cancelled())?,
        None => ingest(input.reader, store, secret, workers, &tell, progress.cancelled())?,
    })
}

/// What is read, and what the file system says of it where it is a file.
struct Input {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    metadata: Option<Metadata>,
    /// The file, where it is one.
    shareable: Option<File>,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        let at = path.to_owned();
        if files::is_stdin(path) {
            return Ok(Self { path: at, reader: Box::new(io::stdin()), metadata: None, shareable: None });
        }
        let fail = |error: io::Error| Failure::file("cannot read", path, &error);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            let path = path.display();
            return Err(Failure::usage(format!("{path} is a folder: ingest its files one by one")));
        }
        let metadata = metadata.is_file().then_some(metadata);
        let shareable = metadata.as_ref().and_then(|_| file.try_clone().ok());
        Ok(Self { path: at, reader: Box::new(file), metadata, shareable })
    }

    /// A copy in the node's folder that shares the file's bytes, where the file system can do that.
    fn share(&self, store: &Store) -> Result<Option<PathBuf>, Failure> {
        self.shareable.as_ref().map_or(Ok(None), |file| Ok(store.share(file)?))
    }
}

/// Modification time in milliseconds since 1970, and whether the owner may execute the file.
pub(super) fn attributes(metadata: &Metadata) -> (Option<u64>, bool) {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    #[cfg(unix)]
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
    #[cfg(not(unix))]
    let executable = false;
    (since.and_then(|since| u64::try_from(since.as_millis()).ok()), executable)
}

/// The data blobs as v5's chunk list.
fn chunks(extents: &[Extent], store: &Store) -> Result<Vec<Chunk>, Failure> {
    let blobs = export::data_blobs(extents, store, EXTENTS_MAX)?.ok_or_else(|| {
        let message =
            format!("a v5 list has at most {EXTENTS_MAX} chunks; leave out --v5 for a file of this size");
        Failure::new(Exit::Other, message)
    })?;
    let chunk = |(blob, len): &(BlobRef, u32)| {
        let failed = |error: io::Error| Failure::file("cannot read a blob in", store.root(), &error);
        let id = store.id_of(&blob.root).map_err(failed)?;
        Ok(Chunk::from_ref(blob, id.ok_or(ExportError::Missing(blob.root.into()))?, *len))
    };
    blobs.iter().map(chunk).collect()
}
