//! `ingest`: a file into blobs, and its entry.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use futures_lite::future;
use indicatif::{HumanBytes, ProgressBar};
use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::EXTENTS_MAX;
use megatorrent_core::manifest::{Chunk, EntryPath, Extent, FileEntry, Reference, entry};
use megatorrent_runtime_smol::export::{self, ExportError};
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::{ingest, ingest_in_place};
use megatorrent_runtime_smol::store::Store;
use serde_json::json;

use super::gen_key::random_secret;
use crate::args::{IDENTITY_FILE, Ingest};
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::signals::Interrupts;
use crate::{files, node};

/// Most threads that seal and store; each takes 1 MiB.
const WORKERS_MAX: usize = 9;
/// How long an interrupted ingest may take to end by itself. A read from a terminal or a pipe may never return.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &Ingest, output: Output) -> Result<(), Failure> {
    let path = entry_path(args)?;
    if let Some(entry) = args.output.as_deref().filter(|entry| !args.force && entry.exists()) {
        let message = format!("{} exists; --force overwrites it", entry.display());
        return Err(Failure::new(Exit::Other, message));
    }
    let interrupts = Interrupts::install()?;
    let input = Input::open(&args.input)?;
    let secret = content_secret(args, output)?;
    let store = Home::blobs_only(node::prepare(&args.data)?)?;

    let bar = input.metadata.as_ref().map_or_else(|| output.spinner(), |m| output.bytes_bar(m.len()));
    bar.set_message(path.to_string());
    let (modified_ms, executable) = input.metadata.as_ref().map_or((None, false), attributes);
    // What is sealed of a pipe has no other place than the folder of the node.
    let shared = if args.copy { input.share(&store)? } else { None };
    let in_place = input.metadata.as_ref().filter(|_| !args.copy).map(|_| args.input.clone());
    let in_place = shared.clone().or(in_place);
    let extents = smol::block_on(seal(input, in_place, store.clone(), secret, bar.clone(), &interrupts));
    if let (Err(_), Some(copy)) = (&extents, &shared) {
        store.unshare(copy);
    }
    let extents = extents?;
    bar.finish_and_clear();

    let reference =
        if args.v5 { Reference::Chunks(chunks(&extents, &store)?) } else { Reference::Extents(extents) };
    let (size, blobs) = (reference.size().unwrap_or_default(), reference.blob_count());
    let file = FileEntry { path: path.clone(), size, modified_ms, executable, reference, blake3: None };
    let text = entry::to_json(&file);
    output.note(&format!("{path}: {} in {}", HumanBytes(size), count(blobs, "blob")));
    let Some(entry) = &args.output else {
        return output.line(&text);
    };
    let text = text + "\n";
    let written = if args.force { files::replace(entry, &text) } else { files::write_new(entry, &text) };
    written.map_err(|error| Failure::file("cannot write", entry, &error))?;
    output.note(&format!("entry written to {}; it holds the file's keys", entry.display()));
    if output.is_json() {
        let object = json!({ "entry": entry, "path": path.as_str(), "size": size, "blobs": blobs });
        output.line(&object.to_string())?;
    }
    Ok(())
}

/// The file's path in the channel: `--name`, or the name of the input.
fn entry_path(args: &Ingest) -> Result<EntryPath, Failure> {
    let name = match &args.name {
        Some(name) => name.as_str(),
        None if files::is_stdin(&args.input) => {
            return Err(Failure::usage("stdin has no name: give one with --name"));
        }
        None => args.input.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Failure::usage(format!("{} has no name in UTF-8: give one with --name", args.input.display()))
        })?,
    };
    EntryPath::new(name)
        .map_err(|error| Failure::usage(format!("{name:?}: {error}; give another with --name")))
}

/// The secret under which the blobs get their keys.
fn content_secret(args: &Ingest, output: Output) -> Result<Secret, Failure> {
    if args.unlinkable {
        return random_secret();
    }
    match &args.key {
        Some(key) => Ok(files::read_identity(key)?.content_secret()),
        None if Path::new(IDENTITY_FILE).exists() => {
            Ok(files::read_identity(Path::new(IDENTITY_FILE))?.content_secret())
        }
        None => {
            output.note(&format!(
                "there is no {IDENTITY_FILE}: sealing under a fresh secret, so that ingesting this file again will \
                 give other blobs (`megatorrent gen-key` makes an identity)"
            ));
            random_secret()
        }
    }
}

/// What is read, and what the file system says of it where it is a file.
struct Input {
    reader: Box<dyn Read + Send>,
    metadata: Option<Metadata>,
    /// The file, where it is one.
    shareable: Option<File>,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        if files::is_stdin(path) {
            return Ok(Self { reader: Box::new(io::stdin()), metadata: None, shareable: None });
        }
        let fail = |error: io::Error| Failure::file("cannot read", path, &error);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(Failure::usage(format!(
                "{} is a folder: ingest its files one by one",
                path.display()
            )));
        }
        let metadata = metadata.is_file().then_some(metadata);
        let shareable = metadata.as_ref().and_then(|_| file.try_clone().ok());
        Ok(Self { reader: Box::new(file), metadata, shareable })
    }

    /// A copy in the node's folder that shares the file's bytes, where the file system can do that.
    fn share(&self, store: &Store) -> Result<Option<PathBuf>, Failure> {
        self.shareable.as_ref().map_or(Ok(None), |file| Ok(store.share(file)?))
    }
}

/// Modification time in milliseconds since 1970, and whether the owner may execute the file.
fn attributes(metadata: &Metadata) -> (Option<u64>, bool) {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    #[cfg(unix)]
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
    #[cfg(not(unix))]
    let executable = false;
    (since.and_then(|since| u64::try_from(since.as_millis()).ok()), executable)
}

async fn seal(
    input: Input,
    in_place: Option<PathBuf>,
    store: Store,
    secret: Secret,
    bar: ProgressBar,
    interrupts: &Interrupts,
) -> Result<Vec<Extent>, Failure> {
    // One more than there are processors, since one at a time reads the input and those that wait for it seal nothing.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX - 1) + 1;
    let cancel = Arc::new(AtomicBool::new(false));
    let cancelled = cancel.clone();
    let mut work = smol::unblock(move || {
        let progress = |bytes| bar.inc(bytes);
        match &in_place {
            Some(path) => ingest_in_place(path, &store, &secret, workers, &progress, &cancelled),
            None => ingest(input.reader, &store, &secret, workers, &progress, &cancelled),
        }
    });
    let interrupted =
        future::or(async { Ok((&mut work).await) }, async { Err(interrupts.next().await) }).await;
    match interrupted {
        Ok(result) => Ok(result?),
        Err(signal) => {
            cancel.store(true, Ordering::Relaxed);
            let timeout = async {
                smol::Timer::after(CANCEL_TIMEOUT).await;
            };
            future::or(async { drop(work.await) }, timeout).await;
            Err(Failure::signal(signal))
        }
    }
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
