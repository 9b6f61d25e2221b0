//! Bytes that a caller brings, such as a folder that was dropped on a page: they are written to a folder of the node's, from which they
//! are published like any other.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use megatorrent_core::manifest::EntryPath;
use rustix::fs::OFlags;

use super::{Service, doctor};
use crate::api::{Answers, ApiError, CreateUpload, Done, RemoveUpload, Upload, WriteUpload, Written};
use crate::exit::{Exit, Failure};

/// The folder of all uploads, in the node's.
const FOLDER: &str = "uploads";
/// Uploads that are there at once.
const UPLOADS_MAX: usize = 1_000;
/// Bytes of one call: in base64 they fit into a body.
const PIECE_BYTES: usize = 512 * 1024;
/// What an upload leaves free.
const SPARE_BYTES: u64 = 1 << 30;
/// Digits of an upload's name.
const NAME_LEN: usize = 16;

fn is_name(name: &str) -> bool {
    name.len() == NAME_LEN && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Service {
    fn uploads_dir(&self) -> PathBuf {
        self.0.home.join(FOLDER)
    }

    fn upload_dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.uploads_dir().join(name);
        if !is_name(name) || !dir.is_dir() {
            return Err(Failure::new(Exit::NotFound, format!("there is no upload {name:?}")));
        }
        Ok(dir)
    }
}

fn create(dir: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::file("cannot create a folder in", dir, &error);
    fs::create_dir_all(dir).map_err(failed)?;
    let count = fs::read_dir(dir).map_err(failed)?.take(UPLOADS_MAX).count();
    if count >= UPLOADS_MAX {
        let message = format!("{UPLOADS_MAX} uploads are in {}; remove some", dir.display());
        return Err(Failure::new(Exit::Other, message));
    }
    let mut bytes = [0; NAME_LEN / 2];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Exit::Other, format!("the system gives no random bytes: {error}")))?;
    let name = base16ct::lower::encode_string(&bytes);
    fs::create_dir(dir.join(&name)).map_err(failed)?;
    Ok(name)
}

/// Writes bytes at a place up to the end of a file; its length then.
fn write(dir: &Path, path: &EntryPath, offset: u64, bytes: &[u8]) -> Result<u64, Failure> {
    let target = dir.join(path.as_str());
    let failed = |error| Failure::file("cannot write", &target, &error);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default();
    let open = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(&target);
    let file = open.map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if offset > len {
        let message = format!("{path} has {len} bytes so far: nothing can be written at {offset}");
        return Err(Failure::usage(message));
    }
    file.write_all_at(bytes, offset).map_err(failed)?;
    Ok(len.max(offset + bytes.len() as u64))
}

impl Answers<CreateUpload> for Service {
    async fn answer(&self, _: CreateUpload) -> Result<Upload, ApiError> {
        let dir = self.uploads_dir();
        let made = dir.clone();
        let name = smol::unblock(move || create(&made)).await?;
        let folder = dir.join(&name).display().to_string();
        let free_bytes = doctor::free_bytes(&self.0.home);
        Ok(Upload { upload: name, folder, piece_bytes: PIECE_BYTES as u64, free_bytes })
    }
}

impl Answers<WriteUpload> for Service {
    async fn answer(&self, call: WriteUpload) -> Result<Written, ApiError> {
        let dir = self.upload_dir(&call.upload)?;
        let path = EntryPath::new(&call.path)
            .map_err(|error| Failure::usage(format!("{:?}: {error}", call.path)))?;
        let written = smol::unblock(move || {
            let bytes = Base64::decode_vec(&call.data)
                .map_err(|_| Failure::usage("the bytes are no base64 with padding"))?;
            if bytes.len() > PIECE_BYTES {
                return Err(Failure::usage(format!("one call takes at most {PIECE_BYTES} bytes")));
            }
            if doctor::free_bytes(&dir).is_some_and(|free| free < SPARE_BYTES + bytes.len() as u64) {
                let message = "there is less than 1 GiB left on the node's disk: make room, or publish less";
                return Err(Failure::new(Exit::NoSpace, message));
            }
            write(&dir, &path, call.offset, &bytes)
        });
        Ok(Written { size_bytes: written.await? })
    }
}

impl Answers<RemoveUpload> for Service {
    async fn answer(&self, call: RemoveUpload) -> Result<Done, ApiError> {
        let dir = self.upload_dir(&call.upload)?;
        let removed = smol::unblock(move || {
            fs::remove_dir_all(&dir).map_err(|error| Failure::file("cannot remove", &dir, &error))
        });
        removed.await?;
        Ok(Done {})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use super::*;

    #[test]
    fn a_file_grows_piece_by_piece_and_has_no_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = EntryPath::new("a/b").unwrap();
        assert_eq!(write(dir.path(), &path, 0, b"12").unwrap(), 2);
        assert_eq!(write(dir.path(), &path, 2, b"34").unwrap(), 4);
        assert_eq!(write(dir.path(), &path, 1, b"x").unwrap(), 4);
        assert_eq!(write(dir.path(), &path, 5, b"6").unwrap_err().exit, Exit::Usage);
        assert_eq!(fs::read(dir.path().join("a/b")).unwrap(), b"1x34");
        std::os::unix::fs::symlink("/nowhere/at/all", dir.path().join("link")).unwrap();
        assert!(write(dir.path(), &EntryPath::new("link").unwrap(), 0, b"x").is_err());
    }

    #[test]
    fn an_upload_is_named_by_digits_alone() {
        let dir = tempfile::tempdir().unwrap();
        let name = create(dir.path()).unwrap();
        assert!(is_name(&name) && dir.path().join(&name).is_dir());
        for wrong in ["", "..", "../../etc/passwd", "0123456789abcdeF", "0123456789abcdef0"] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
