//! Where a file goes that a user edited and has asked the channel's version back for.

use std::path::PathBuf;

use rustix::fs::{self as sys, RenameFlags};
use rustix::io::Errno;

use super::{ExportError, Stands, Target, rename};

/// What is put behind the name.
const SUFFIX: &str = ".edited";
/// Bytes of the longest name.
const NAME_LEN_MAX: usize = 255;
/// Names that are tried.
const TRIES: u32 = 10_000;

/// Gives the file beside the target its name, where something else may stand; the name that this has from then on.
pub(super) fn take_place(
    target: &Target,
    name: &str,
    stands: Stands,
) -> Result<Option<PathBuf>, ExportError> {
    let aside = match stands {
        Stands::Edited => Some(set_aside(target)?),
        Stands::Nothing | Stands::Ours => None,
    };
    rename(target, name, stands == Stands::Ours)?;
    Ok(aside)
}

/// Renames what stands at the target to a name that nothing has.
fn set_aside(target: &Target) -> Result<PathBuf, ExportError> {
    let folder = &target.folder.fd;
    for number in 1..=TRIES {
        let name = aside_name(&target.name, number);
        match sys::renameat_with(folder, &target.name, folder, &name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(target.path.with_file_name(name)),
            Err(Errno::EXIST) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                if sys::statat(folder, &name, sys::AtFlags::SYMLINK_NOFOLLOW).is_err() {
                    let renamed = sys::renameat(folder, &target.name, folder, &name);
                    renamed.map_err(|e| ExportError::new("set aside", &target.path, e))?;
                    return Ok(target.path.with_file_name(name));
                }
            }
            Err(error) => return Err(ExportError::new("set aside", &target.path, error)),
        }
    }
    Err(ExportError::Exists(target.path.clone()))
}

fn aside_name(name: &str, number: u32) -> String {
    let suffix = if number == 1 { SUFFIX.to_owned() } else { format!("{SUFFIX}-{number}") };
    let mut len = name.len().min(NAME_LEN_MAX - suffix.len());
    while !name.is_char_boundary(len) {
        len -= 1;
    }
    format!("{}{suffix}", &name[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_as_long_as_names_may_be_is_cut() {
        assert_eq!(
            (aside_name("film", 1), aside_name("film", 12)),
            ("film.edited".into(), "film.edited-12".into())
        );
        let name = aside_name(&"\u{e9}".repeat(127), 2);
        assert!(name.len() <= NAME_LEN_MAX && name.ends_with("\u{e9}.edited-2"), "{name}");
    }
}
