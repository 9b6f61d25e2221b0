//! Which parts of a content are fetched, and in which order.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;
use core::ops::Range;

use crate::hex;
use crate::identity::PublicKey;
use crate::ids::Topic;
use crate::limits::{PATH_LEN_MAX, SELECTED_FILES_MAX, SELECTED_RANGES_MAX};
use crate::time::Instant;

/// How much a file is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// It is not fetched.
    Skip,
    /// It is fetched after all others.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// It is fetched before all others.
    High,
}

/// Bytes of a file that are needed before all others, whatever the file's priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// The file's path; of a content that is one tree, empty.
    pub path: String,
    /// The bytes; those beyond the file's end are left out.
    pub bytes: Range<u64>,
    /// By when they are needed: what is due first is asked for first. `None`: after all that has a deadline.
    pub deadline: Option<Instant>,
}

/// What is fetched of a content. A path that it does not have means nothing until a version has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The priority of the files that `files` does not name.
    pub others: Priority,
    /// The priorities of files by path, at most [`SELECTED_FILES_MAX`].
    pub files: BTreeMap<String, Priority>,
    /// What is needed first, at most [`SELECTED_RANGES_MAX`].
    pub ranges: Vec<FileRange>,
    /// The blobs of a file are fetched in the order of their bytes, to play it meanwhile, rather than the rarest first.
    pub in_order: bool,
}

impl Selection {
    /// Whether it is within its limits.
    pub(crate) fn check(&self) -> Result<(), SelectionError> {
        let mut paths = self.files.keys().chain(self.ranges.iter().map(|range| &range.path));
        if self.files.len() > SELECTED_FILES_MAX {
            return Err(SelectionError::TooManyFiles);
        }
        if self.ranges.len() > SELECTED_RANGES_MAX {
            return Err(SelectionError::TooManyRanges);
        }
        if paths.any(|path| path.len() > PATH_LEN_MAX) { Err(SelectionError::PathTooLong) } else { Ok(()) }
    }

    pub(super) fn priority(&self, path: &str) -> Priority {
        self.files.get(path).copied().unwrap_or(self.others)
    }
}

/// What is fetched and served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A channel.
    Channel(PublicKey),
    /// A swarm without a head. It has one version, whose sequence is 1, and that has one file, number 0.
    Swarm(Topic),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => write!(f, "channel {channel}"),
            Self::Swarm(topic) => write!(f, "swarm {}", hex::encode(&topic.0)),
        }
    }
}

/// Why a selection is refused; the one before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectionError {
    /// It names more files than [`SELECTED_FILES_MAX`].
    TooManyFiles,
    /// It names more ranges than [`SELECTED_RANGES_MAX`].
    TooManyRanges,
    /// It names a path longer than [`PATH_LEN_MAX`].
    PathTooLong,
    /// As many channels have a selection as can be followed, and this is none of them.
    TooManySelections,
    /// As many channels are followed and swarms joined as can be.
    TooManySwarms,
    /// The topic is that of a channel that is followed.
    IsChannel,
    /// The swarm is joined already, and is about another tree.
    OtherTree,
}

impl fmt::Display for SelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyFiles => "the selection names too many files",
            Self::TooManyRanges => "the selection names too many ranges",
            Self::PathTooLong => "the selection names a path that is longer than any file's",
            Self::TooManySelections => "too many channels have a selection",
            Self::TooManySwarms => "too many channels are followed and swarms joined",
            Self::IsChannel => "the swarm is that of a channel that is followed",
            Self::OtherTree => "the swarm is joined already, for another tree",
        })
    }
}

impl core::error::Error for SelectionError {}

/// How urgently a blob is wanted; the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    /// By when it is needed; [`NEVER`] where nobody says so.
    deadline: Instant,
    is_outside_ranges: bool,
    priority: Reverse<Priority>,
}

/// The end of time.
const NEVER: Instant = Instant(u64::MAX);

impl Urgency {
    /// Of a blob that is wanted as usual.
    pub(crate) const USUAL: Self =
        Self { deadline: NEVER, is_outside_ranges: true, priority: Reverse(Priority::Normal) };

    pub(super) fn of_range(deadline: Option<Instant>) -> Self {
        let deadline = deadline.unwrap_or(NEVER);
        Self { deadline, is_outside_ranges: false, priority: Reverse(Priority::High) }
    }

    pub(super) fn of_file(priority: Priority) -> Self {
        Self { priority: Reverse(priority), ..Self::USUAL }
    }

    /// By when it is needed, if somebody says so.
    pub(crate) fn deadline(self) -> Option<Instant> {
        Some(self.deadline).filter(|deadline| *deadline != NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_first_then_ranges_then_priorities() {
        let order = [
            Urgency::of_range(Some(Instant(1))),
            Urgency::of_range(Some(Instant(2))),
            Urgency::of_range(None),
            Urgency::of_file(Priority::High),
            Urgency::of_file(Priority::Normal),
            Urgency::of_file(Priority::Low),
        ];
        assert!(order.is_sorted());
        assert_eq!((order[0].deadline(), order[2].deadline()), (Some(Instant(1)), None));
    }
}
