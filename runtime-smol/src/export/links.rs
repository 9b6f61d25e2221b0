//! Symlinks and empty folders.

use std::path::PathBuf;

use rustix::fs as sys;
use rustix::io::Errno;

use super::{Export, ExportError, Exported, Folder, Target};

/// Makes a symlink whose target stays in the output folder.
///
/// `..` may only come first in the target. Then the system finds what the text says: the folders on the way up are real, as no
/// link below the output folder is followed when they are made. A link further down the target stays inside by the same rule.
pub(super) fn symlink(request: &Export<'_>, text: &str) -> Result<Exported, ExportError> {
    let path = request.entry.path.as_str();
    if !stays_inside(path, text) {
        let why = "it is a symlink that leads out of the output folder, or could";
        return Err(ExportError::Refused(request.out_dir.join(path), why));
    }
    let target = Target::open(request.out_dir, path)?;
    match sys::symlinkat(text, &target.folder.fd, &target.name) {
        Ok(()) => Ok(Exported::Written),
        Err(Errno::EXIST) => {
            let found = sys::readlinkat(&target.folder.fd, &target.name, Vec::new());
            let is_same = found.is_ok_and(|found| found.as_bytes() == text.as_bytes());
            if is_same { Ok(Exported::AlreadyThere) } else { Err(ExportError::Exists(target.path)) }
        }
        Err(error) => Err(ExportError::new("make the symlink", &target.path, error)),
    }
}

/// Makes an empty folder; one that is there stays as it is.
pub(super) fn folder(request: &Export<'_>) -> Result<Exported, ExportError> {
    let (mut folder, mut path) = (Folder::open(request.out_dir)?, PathBuf::from(request.out_dir));
    for name in request.entry.path.as_str().split('/') {
        path.push(name);
        folder = folder.child(name, &path)?;
    }
    Ok(Exported::Written)
}

fn stays_inside(path: &str, target: &str) -> bool {
    let (mut depth, mut goes_up) = (path.matches('/').count(), true);
    !target.chars().any(char::is_control)
        && target.split('/').all(|name| match name {
            ".." if goes_up && depth > 0 => {
                depth -= 1;
                true
            }
            "" | ".." => false,
            _ => {
                goes_up = false;
                true
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_in_the_output_folder() {
        for (path, target, good) in [
            ("a", "b", true),
            ("a/b", "../c", true),
            ("a/b/c", "../../d/e", true),
            ("a", "./b", true),
            ("a", "..", false),
            ("a", "../a", false),
            ("a/b", "../../c", false),
            ("a/b", "c/../../../d", false),
            ("a/b/c", "up/../x", false),
            ("a", "./..", false),
            ("a", "/etc/passwd", false),
            ("a", "b//c", false),
            ("a", "b\n", false),
            ("a", "b/", false),
        ] {
            assert_eq!(stays_inside(path, target), good, "{path} -> {target}");
        }
    }
}
