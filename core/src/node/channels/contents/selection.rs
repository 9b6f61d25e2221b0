//! Which parts of a content are fetched, and in which order.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

use crate::limits::{SELECTED_FILES_MAX, SELECTED_RANGES_MAX};
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
    pub(crate) fn is_bounded(&self) -> bool {
        self.files.len() <= SELECTED_FILES_MAX && self.ranges.len() <= SELECTED_RANGES_MAX
    }

    pub(super) fn priority(&self, path: &str) -> Priority {
        self.files.get(path).copied().unwrap_or(self.others)
    }
}

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
