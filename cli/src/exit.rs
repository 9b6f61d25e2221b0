//! Exit codes, and the failures that lead to them.

use std::fmt;
use std::io;
use std::path::Path;

use megatorrent_core::manifest::HeadError;
use megatorrent_core::node::{DhtError, PublishError, Refusal};
use megatorrent_runtime_smol::StartError;
use megatorrent_runtime_smol::export::ExportError;
use megatorrent_runtime_smol::home::HomeError;
use megatorrent_runtime_smol::ingest::IngestError;
use megatorrent_runtime_smol::state::StateError;
use megatorrent_runtime_smol::store::StoreError;
use megatorrent_runtime_smol::verify::VerifyError;

use crate::signals::Signal;

/// What a failed command's exit code says. 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Whatever has no code of its own.
    Other = 1,
    /// The command line asks for what cannot be (clap uses the same code).
    Usage = 2,
    /// A file, a channel or its peers were not found.
    NotFound = 3,
    /// No progress within `--timeout`.
    Timeout = 4,
    /// A signature, a manifest or content is not what it should be.
    Integrity = 5,
    /// Not allowed: by the file system, by a running node that holds the folder, or for want of the read key.
    Permission = 6,
    /// No space or quota left.
    NoSpace = 7,
    /// The network or the DHT cannot be reached.
    Network = 8,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The code that has this number; [`Self::Other`] where none has.
    pub(crate) fn from_code(code: u8) -> Self {
        const ALL: [Exit; 10] = [
            Exit::Other,
            Exit::Usage,
            Exit::NotFound,
            Exit::Timeout,
            Exit::Integrity,
            Exit::Permission,
            Exit::NoSpace,
            Exit::Network,
            Exit::Interrupted,
            Exit::Terminated,
        ];
        ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Other)
    }
}

/// Why a command failed: a message that tells what happened, to what, and what to do next.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// For the user.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// A mistake in the command line that clap cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// `what` (such as "cannot read") failed on `path`.
    pub(crate) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(exit_of(error.kind()), format!("{what} {}: {error}", path.display()))
    }

    /// A signal asked a command to end before its work was done.
    pub(crate) fn signal(signal: Signal) -> Self {
        match signal {
            Signal::Int => Self::new(Exit::Interrupted, "interrupted"),
            Signal::Term => Self::new(Exit::Terminated, "terminated"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        Self::new(exit_of_store(error), error.to_string())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::from(&error)
    }
}

impl From<&StateError> for Failure {
    fn from(error: &StateError) -> Self {
        let exit = match error {
            StateError::Held(_) => Exit::Permission,
            StateError::Version(..) | StateError::Corrupt(..) => Exit::Integrity,
            StateError::Io(_, error) => exit_of(error.kind()),
        };
        Self::new(exit, error.to_string())
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::NotANode(_) => Self::new(Exit::NotFound, error.to_string()),
            HomeError::Folder(_, ref cause) => Self::new(exit_of(cause.kind()), error.to_string()),
            HomeError::Store(error) => error.into(),
            HomeError::State(error) => error.into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Listen { error, .. } | StartError::DhtPort { error, .. } => {
                match exit_of(error.kind()) {
                    Exit::Permission => Exit::Permission,
                    _ => Exit::Network,
                }
            }
            StartError::System(..) => Exit::Other,
            StartError::State(_) => Exit::Integrity,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        let exit = match &error {
            IngestError::Read(error) => exit_of(error.kind()),
            IngestError::Store(error) => exit_of_store(error),
            IngestError::Changed(_) | IngestError::Cancelled => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let exit = match &error {
            ExportError::State(error) => return Self::from(error),
            ExportError::Unreadable(_) | ExportError::Inconsistent(_) | ExportError::Refused(..) => {
                Exit::Integrity
            }
            ExportError::NoSpace(_) => Exit::NoSpace,
            ExportError::OutputAbsent(_) => Exit::NotFound,
            ExportError::Io(_, _, error) => exit_of(error.kind()),
            _ => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Store(error) => error.into(),
            VerifyError::Cancelled => Self::new(Exit::Other, error.to_string()),
        }
    }
}

impl From<HeadError> for Failure {
    fn from(error: HeadError) -> Self {
        let exit = match error {
            HeadError::ReadKeyMissing | HeadError::ReadKeyWrong => Exit::Permission,
            _ => Exit::Integrity,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Refusal> for Failure {
    /// Of a draft.
    fn from(refusal: Refusal) -> Self {
        let exit = match &refusal {
            Refusal::Publish(error) => exit_of_publication(error),
            _ => Exit::Other,
        };
        Self::new(exit, format!("the channel is not published: {refusal}"))
    }
}

fn exit_of_publication(error: &PublishError) -> Exit {
    match error {
        PublishError::Dht(DhtError::Stale | DhtError::CasMismatch | DhtError::TooLarge) => Exit::Other,
        PublishError::Dht(_)
        | PublishError::NoReplica
        | PublishError::NotReadBack
        | PublishError::Gateways(_) => Exit::Network,
        _ => Exit::Other,
    }
}

fn exit_of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::NoSpace(_) => Exit::NoSpace,
        StoreError::Format(_) => Exit::Integrity,
        StoreError::Io(_, _, error) => exit_of(error.kind()),
    }
}

/// The exit code for an operating system's error.
pub(crate) fn exit_of(kind: io::ErrorKind) -> Exit {
    use io::ErrorKind as Kind;
    match kind {
        Kind::NotFound => Exit::NotFound,
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Exit::Permission,
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Exit::NoSpace,
        Kind::TimedOut => Exit::Timeout,
        Kind::AddrInUse
        | Kind::AddrNotAvailable
        | Kind::ConnectionRefused
        | Kind::HostUnreachable
        | Kind::NetworkDown
        | Kind::NetworkUnreachable => Exit::Network,
        _ => Exit::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_map_to_their_codes() {
        assert_eq!(exit_of(io::ErrorKind::NotFound) as u8, 3);
        assert_eq!(exit_of(io::ErrorKind::PermissionDenied) as u8, 6);
        assert_eq!(exit_of(io::ErrorKind::StorageFull) as u8, 7);
        assert_eq!(exit_of(io::ErrorKind::AddrInUse) as u8, 8);
        assert_eq!(exit_of(io::ErrorKind::InvalidData) as u8, 1);
    }
}
