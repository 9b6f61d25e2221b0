//! The output folder itself: one that had files and is gone is more likely a disk that is not mounted than a wish for another copy.

use std::path::{Path, PathBuf};

use super::ExportError;
use crate::held::table::folder_id;
use crate::outputs::real_path;
use crate::state::State;
use crate::store::{Store, is_empty};

/// Refuses an output folder that had files and is not there, or is another, empty one: nothing is made below a mount point.
///
/// # Errors
/// [`ExportError::OutputAbsent`], or those of the state.
pub fn check_output(state: &State, out_dir: &Path) -> Result<(), ExportError> {
    let path = absolute(out_dir)?;
    let Some(known) = state.output(&path).map_err(ExportError::State)? else { return Ok(()) };
    match folder_id(out_dir) {
        Some(found) if found == known => Ok(()),
        // A disk may come back under another number.
        Some(found) if !is_empty(out_dir).map_err(|e| ExportError::new("list", out_dir, e))? => {
            state.persist_output(&path, Some(found)).map_err(ExportError::State)
        }
        _ => Err(ExportError::OutputAbsent(out_dir.to_owned())),
    }
}

/// Takes an output folder as one that never had files, where it would be refused ([`check_output`]): what was in it is nobody's deed, and is
/// held no longer. Whether that was so.
///
/// # Errors
/// Those of the state.
pub fn forget_output(store: &Store, state: &State, out_dir: &Path) -> Result<bool, ExportError> {
    match check_output(state, out_dir) {
        Err(ExportError::OutputAbsent(_)) => {}
        other => return other.map(|()| false),
    }
    let real = real_path(out_dir);
    store.held_files().forget_below(&real);
    state.forget_files_below(&real).map_err(ExportError::State)?;
    // Last, so that it is done again where it was cut short.
    state.persist_output(&absolute(out_dir)?, None).map_err(ExportError::State)?;
    Ok(true)
}

/// A file was written into the folder.
pub(super) fn remember(state: &State, out_dir: &Path) -> Result<(), ExportError> {
    let path = absolute(out_dir)?;
    if state.output(&path).map_err(ExportError::State)?.is_none() {
        state.persist_output(&path, folder_id(out_dir)).map_err(ExportError::State)?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, ExportError> {
    std::path::absolute(path).map_err(|e| ExportError::new("find", path, e))
}
