//! The names of files that are not whole, and the numbers in them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::table::Table;

/// How the names of files that are not whole begin and end; 16 hexadecimal digits stand between.
pub(crate) const WORKING_PREFIX: &str = ".mt-";
pub(crate) const WORKING_SUFFIX: &str = ".part";

/// The name of a file until it is whole, by its number.
pub(crate) fn working_name(number: u64) -> String {
    format!("{WORKING_PREFIX}{number:016x}{WORKING_SUFFIX}")
}

/// Removes a file that is not whole from a folder; whether it is gone for sure.
pub(crate) fn remove(folder: &Path, number: u64) -> bool {
    match fs::remove_file(folder.join(working_name(number))) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound && folder.is_dir(),
    }
}

/// The folder of a file that was begun, as the beginning of its table says. `None`: it has none.
pub(crate) fn begun_in(new: &Path) -> Option<PathBuf> {
    if let Ok(Some(table)) = Table::open(new.to_owned(), |_, _| {}) {
        return table.header().path()?.parent().map(Path::to_owned);
    }
    let bytes = fs::read(new).ok()?;
    Some(PathBuf::from(OsString::from_vec(bytes))).filter(|path| path.is_absolute())
}

/// A number that no other file has.
pub(crate) fn free_number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::store::Store;

    #[test]
    fn what_a_killed_process_had_only_begun_is_removed_once_its_folder_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let (home, out) = (dir.path().join("home"), dir.path().join("out"));
        drop(Store::open(&home, false).expect("opens"));
        let new = home.join("held/00000000000000ff.new");
        fs::write(&new, out.as_os_str().as_bytes()).expect("written");
        drop(Store::open(&home, false).expect("opens"));
        assert!(new.exists(), "its folder is not mounted");

        let (part, other) = (out.join(working_name(255)), out.join(working_name(256)));
        fs::create_dir(&out).expect("made");
        fs::write(&part, [0; 100]).expect("written");
        fs::write(&other, "another home's").expect("written");
        drop(Store::open(&home, false).expect("opens"));
        assert_eq!((part.exists(), new.exists(), other.exists()), (false, false, true));
    }
}
