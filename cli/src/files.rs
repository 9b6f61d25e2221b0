//! The small files a command reads and writes: identities, read keys, entries.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// The argument that stands for stdin.
pub(crate) const STDIN: &str = "-";
/// Longest identity, key or URI that is read.
const SMALL_LEN_MAX: u64 = 64 * 1024;
/// Longest entry that is read: a v5 entry is some 280 bytes for each MiB of its file.
const ENTRY_LEN_MAX: u64 = 64 << 20;

/// Files that are not written to the end are called `.mt-RANDOM.part`.
const PREFIX: &str = ".mt-";
const SUFFIX: &str = ".part";
const RANDOM_LEN: usize = 6;

/// Whether `path` stands for stdin.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Reads an identity file.
pub(crate) fn read_identity(path: &Path) -> Result<Identity, Failure> {
    let text = read_secret_text(path).map_err(|failure| {
        if failure.exit == Exit::NotFound {
            let message =
                format!("there is no identity at {}; `megatorrent gen-key` makes one", path.display());
            return Failure::new(Exit::NotFound, message);
        }
        failure
    })?;
    Identity::from_json(&text)
        .map_err(|error| Failure::new(Exit::Integrity, format!("{}: {error}", path.display())))
}

/// Reads a read key, 64 hex digits, from a file or stdin. A key in place of the file's name is refused.
pub(crate) fn read_read_key(path: &Path) -> Result<Secret, Failure> {
    if path.to_str().is_some_and(|text| Secret::from_hex(text).is_ok()) {
        return Err(Failure::new(
            Exit::Usage,
            "-s takes a file that holds the key, not the key: all programs on this machine can read a command line. \
             Write the key into a file that only you can read and name the file, or give `-s -` and the key on stdin",
        ));
    }
    let text = read_secret_text(path)?;
    Secret::from_hex(text.trim())
        .map_err(|error| Failure::new(Exit::Integrity, format!("{}: {error}", path.display())))
}

/// Reads a small text that may hold a secret; the text is wiped when dropped.
pub(crate) fn read_secret_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    read_limited(path, SMALL_LEN_MAX, &mut bytes)?;
    let text = str::from_utf8(&bytes)
        .map_err(|_| Failure::new(Exit::Integrity, format!("{} is not text", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads an entry's text.
pub(crate) fn read_entry(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    read_limited(path, ENTRY_LEN_MAX, &mut bytes)?;
    Ok(bytes)
}

fn read_limited(path: &Path, limit_bytes: u64, into: &mut Vec<u8>) -> Result<(), Failure> {
    let fail = |error: io::Error| Failure::file("cannot read", path, &error);
    let read = if is_stdin(path) {
        io::stdin().lock().take(limit_bytes + 1).read_to_end(into)
    } else {
        fs::File::open(path).map_err(fail)?.take(limit_bytes + 1).read_to_end(into)
    };
    read.map_err(fail)?;
    if into.len() as u64 > limit_bytes {
        let message = format!("{} is longer than the {limit_bytes} bytes that it may have", path.display());
        return Err(Failure::new(Exit::Integrity, message));
    }
    Ok(())
}

/// Writes a file that holds secrets: readable by its owner alone, durable, and never over another one.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let (file, folder) = written(path, text)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    sync_folder(&folder).inspect_err(|_| {
        // What was not reported would stand in the way of the next attempt.
        let _ = fs::remove_file(path);
    })
}

/// Replaces `path` by a file that holds secrets: whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (file, folder) = written(path, text)?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(&folder)
}

/// Replaces `path` by a file that says something of this process, whole or not at all: after a power cut it is worth nothing.
pub(crate) fn replace_fleeting(path: &Path, text: &str) -> io::Result<()> {
    let (mut file, _) = beside(path)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A file beside `path` that holds the text durably, and their folder.
fn written(path: &Path, text: &str) -> io::Result<(NamedTempFile, PathBuf)> {
    let (mut file, folder) = beside(path)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok((file, folder))
}

/// An empty file beside `path`, and their folder.
fn beside(path: &Path) -> io::Result<(NamedTempFile, PathBuf)> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let file = builder.prefix(PREFIX).rand_bytes(RANDOM_LEN).suffix(SUFFIX).tempfile_in(folder)?; // made with mode 0600
    Ok((file, folder.to_owned()))
}

/// Removes what killed processes left in a folder that nobody else writes to.
pub(crate) fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        if random.is_some_and(|random| random.len() == RANDOM_LEN) {
            // One that stays is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Waits until the names in a folder have reached the disk. A file system that cannot say so has the file all the same.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match fs::File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// 32 bytes from the operating system.
pub(crate) fn random_secret() -> Result<Secret, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| {
        Failure::new(Exit::Other, format!("the system has no randomness to give: {error}"))
    })?;
    Ok(Secret::new(*bytes))
}
