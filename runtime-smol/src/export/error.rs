//! What becomes of a file that is written out, in words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use megatorrent_core::ids::BlobName;

use crate::state::StateError;
use crate::store::{StoreError, is_no_space};

/// What became of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exported {
    /// It was written.
    Written,
    /// It was written, and what stood there has this name.
    SetAside(PathBuf),
    /// It stood there with the right content.
    AlreadyThere,
}

/// Why the file was not written. The target is as it was.
#[derive(Debug)]
pub enum ExportError {
    /// Something else stands at this path.
    Exists(PathBuf),
    /// A symbolic link, or a file, stands where a folder of the path should be.
    NotAFolder(PathBuf),
    /// This name or this symlink cannot be made here; why.
    Refused(PathBuf, &'static str),
    /// Another process is writing this file.
    Busy(PathBuf),
    /// A blob is not stored (any more).
    Missing(BlobName),
    /// The file that was under way is gone: what had come of it must come again.
    Vanished(PathBuf),
    /// A blob is stored and whole, and does not open to what the entry promises: the channel's entry is wrong.
    Unreadable(BlobName),
    /// The entry's size is not that of its reference.
    Inconsistent(PathBuf),
    /// The output folder had files, and is not there or is another, empty one.
    OutputAbsent(PathBuf),
    /// No space or quota is left at this path.
    NoSpace(PathBuf),
    /// The disk failed: what was done, to what, and the system's error.
    Io(&'static str, PathBuf, io::Error),
    /// The record of the files that we wrote failed.
    State(StateError),
    /// It was cancelled.
    Cancelled,
}

impl ExportError {
    pub(crate) fn new(what: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        if is_no_space(&error) {
            Self::NoSpace(path.to_owned())
        } else {
            Self::Io(what, path.to_owned(), error)
        }
    }
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace(path) => Self::NoSpace(path),
            StoreError::Io(what, path, error) => Self::Io(what, path, error),
            StoreError::Format(path) => Self::Io("use", path, io::ErrorKind::Unsupported.into()),
        }
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(
                f,
                "{} exists and is not the channel's: move it away, or name another output folder (-o)",
                shown(path)
            ),
            Self::NotAFolder(path) => write!(
                f,
                "{} is a link or a file where the channel has a folder: move it away, or name another output folder \
                 (-o)",
                shown(path)
            ),
            Self::Refused(path, why) => write!(f, "{} is not made: {why}", shown(path)),
            Self::Busy(path) => write!(f, "another process is writing {}", shown(path)),
            Self::Missing(id) => write!(f, "blob {id} is not stored: it must be fetched again"),
            Self::Vanished(path) => {
                write!(f, "what had come of {} is gone: it must be fetched again", shown(path))
            }
            Self::Unreadable(id) => {
                write!(
                    f,
                    "blob {id} does not hold what the channel says: its author must publish the file anew"
                )
            }
            Self::Inconsistent(path) => write!(
                f,
                "the channel gives {} two different sizes: its author must publish the file anew",
                shown(path)
            ),
            Self::OutputAbsent(path) => write!(
                f,
                "{} had files that were fetched, and is not there or is another, empty folder: mount its disk or bring \
                 it back; to begin anew there, say --new",
                shown(path)
            ),
            Self::NoSpace(path) => {
                write!(
                    f,
                    "no space is left for {}: free some, or name another output folder (-o)",
                    shown(path)
                )
            }
            Self::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", shown(path)),
            Self::State(error) => error.fmt(f),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// A path for a screen: what would make it look like another is escaped.
pub fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let escape =
        |c: char| if c.is_control() || reorders(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Whether a screen would show what follows in another order (Unicode's bidirectional marks, embeddings, overrides and
/// isolates), or on another line.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl std::error::Error for ExportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, error) => Some(error),
            Self::State(error) => Some(error),
            _ => None,
        }
    }
}
