//! What a user has chosen by deeds: a file that was deleted from an output folder, or edited there, is not fetched again by itself.
//!
//! Until the folder was looked at nothing of a channel is fetched that has one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::limits::SELECTED_FILES_MAX;
use megatorrent_core::manifest::Manifest;
use megatorrent_core::node::{Priority, Selection};
use megatorrent_runtime_smol::export::shown;
use megatorrent_runtime_smol::survey::{Deed, Kept};
use serde_json::json;

use super::Reporter;
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::News;

/// Files that are named in words at once; further ones are counted.
const NAMED_MAX: usize = 10;

/// Nothing is fetched but what says which files there are.
pub(super) fn nothing() -> Selection {
    Selection { others: Priority::Skip, ..Selection::default() }
}

/// All files are fetched but these.
pub(super) fn all_but(paths: impl Iterator<Item = String>, in_order: bool) -> Selection {
    let files = paths.take(SELECTED_FILES_MAX).map(|path| (path, Priority::Skip)).collect();
    Selection { files, in_order, ..Selection::default() }
}

/// Tells which files are left as a user has them, each once while it is so.
#[derive(Default)]
pub(super) struct Withdrawn(BTreeSet<(PathBuf, &'static str)>);

impl Withdrawn {
    pub(super) fn tell(
        &mut self,
        (channel, sequence): (&PublicKey, u64),
        manifest: &Manifest,
        kept: &[Kept],
        reporter: &Reporter,
    ) {
        let before = std::mem::take(&mut self.0);
        let mut named = 0;
        for one in kept {
            let key = (one.path.clone(), one.deed.name());
            let is_new = !before.contains(&key);
            self.0.insert(key);
            if !is_new {
                continue;
            }
            named += 1;
            let path = manifest.files().nth(one.file).map(|entry| entry.path.as_str());
            let members = json!({
                "channel": channel.to_string(), "sequence": sequence, "path": path, "target": one.path,
                "why": one.deed.name(),
            });
            let text = if named > NAMED_MAX { String::new() } else { words(one) };
            reporter.event(News::Withdrawn, members, text);
        }
        if named > NAMED_MAX {
            let more = count(named - NAMED_MAX, "file");
            reporter.note(format!("and {more} more that were deleted or edited"));
        }
    }
}

fn words(kept: &Kept) -> String {
    let what = match kept.deed {
        Deed::Deleted => "was deleted here and is not fetched again",
        Deed::Edited => "was edited here, is not served any more as far as it differs, and stays as it is",
    };
    format!("{} {what}; `verify --repair` brings it back", shown(&kept.path))
}

/// A failure for files that were edited and are in the way.
pub(super) fn edited(kept: &[Kept]) -> Option<Failure> {
    let one = kept.iter().find(|one| one.deed == Deed::Edited)?;
    Some(Failure::new(Exit::Other, words(one)))
}
