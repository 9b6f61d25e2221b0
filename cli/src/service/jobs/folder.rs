//! A folder into a channel's newest version: every file is encrypted where it lies, and then all are signed together.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use megatorrent_core::identity::Identity;
use megatorrent_core::manifest::{EntryPath, FileEntry, Item};
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::store::Store;
use serde_json::Value;

use super::publish::{Turns, Version};
use super::{Progress, ingest, publish};
use crate::api;
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::service::Reporter;

/// Files of one channel at most.
const FILES_MAX: usize = 100_000;
/// Folders in folders at most.
const DEPTH_MAX: usize = 64;

/// What is in a folder, as it would be published.
#[derive(Debug, Default)]
pub(in crate::service) struct Tree {
    /// In the order of their paths in the channel.
    pub(in crate::service) files: Vec<Leaf>,
    pub(in crate::service) size: u64,
    /// Names that begin with a dot, links and what is no file.
    pub(in crate::service) left_out: u64,
}

/// A file that would be published.
#[derive(Debug)]
pub(in crate::service) struct Leaf {
    /// Its path in the channel.
    pub(in crate::service) path: EntryPath,
    pub(in crate::service) file: PathBuf,
    pub(in crate::service) size: u64,
    pub(in crate::service) modified_ms: Option<u64>,
}

impl Tree {
    /// Looks through a folder; a file alone is a folder of one. Waits for the disk.
    pub(in crate::service) fn of(source: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::file("cannot read", source, &error);
        let metadata = fs::metadata(source).map_err(failed)?;
        let mut tree = Self::default();
        if metadata.is_dir() {
            tree.add_folder(source, "", 0)?;
        } else {
            let name = source.file_name().unwrap_or_default();
            tree.add(source.to_owned(), name, "", &metadata, 0)?;
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        if tree.files.is_empty() {
            let message = format!("{}: there is no file in it that could be published", source.display());
            return Err(Failure::new(Exit::NotFound, message));
        }
        Ok(tree)
    }

    fn add_folder(&mut self, folder: &Path, under: &str, depth: usize) -> Result<(), Failure> {
        let failed = |error| Failure::file("cannot read", folder, &error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Of a link, this is the link itself.
            let metadata = entry.metadata().map_err(failed)?;
            self.add(entry.path(), &entry.file_name(), under, &metadata, depth)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        file: PathBuf,
        name: &OsStr,
        under: &str,
        metadata: &Metadata,
        depth: usize,
    ) -> Result<(), Failure> {
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_hidden || !(metadata.is_file() || metadata.is_dir()) {
            self.left_out += 1;
            return Ok(());
        }
        let bad = |why: String| Failure::usage(format!("{}: {why}", file.display()));
        let name = name.to_str().ok_or_else(|| bad("its name is no UTF-8; rename it".into()))?;
        let path = if under.is_empty() { name.to_owned() } else { format!("{under}/{name}") };
        if metadata.is_dir() {
            if depth >= DEPTH_MAX {
                return Err(bad(format!("more than {DEPTH_MAX} folders lie in each other")));
            }
            return self.add_folder(&file, &path, depth + 1);
        }
        if self.files.len() >= FILES_MAX {
            return Err(bad(format!(
                "a channel has at most {FILES_MAX} files; publish a part of the folder"
            )));
        }
        let path = EntryPath::new(&path).map_err(|error| bad(error.to_string()))?;
        self.size += metadata.len();
        let (modified_ms, _) = ingest::attributes(metadata);
        self.files.push(Leaf { path, file, size: metadata.len(), modified_ms });
        Ok(())
    }
}

/// Encrypts what is in a folder and publishes it: what `publish` prints, and how much it is.
pub(in crate::service) async fn run(
    call: &api::PublishFolder,
    identity: Identity,
    node: &Handle,
    progress: &Arc<Progress>,
    reporter: &Reporter,
    turns: &Turns,
) -> Result<Value, Failure> {
    clock::check(clock::now_ms())?;
    let read_key = if call.private { identity.read_key().cloned() } else { None };
    if call.private && read_key.is_none() {
        let message = "the channel's identity has no read key, so that it cannot be private";
        return Err(Failure::new(Exit::NotFound, message));
    }
    progress.set_step("taking in");
    let (source, store, secret) =
        (PathBuf::from(&call.source), node.store().clone(), identity.content_secret());
    let seen = progress.clone();
    let sealed = smol::unblock(move || {
        let tree = Tree::of(&source)?;
        seen.set_total(tree.size);
        seen.set_step("encrypting");
        let wish = |path| ingest::Wish { path, secret: secret.clone(), v5: false, copy: false };
        let entries = tree.files.into_iter().map(|leaf| entry(&leaf.file, &wish(leaf.path), &store, &seen));
        let entries: Vec<FileEntry> = entries.collect::<Result<_, _>>()?;
        Ok::<_, Failure>((entries, tree.size, tree.left_out))
    });
    let (entries, size, left_out) = sealed.await?;
    let files = entries.len();
    let manifest = publish::manifest_of(call.title.clone(), entries.into_iter().map(Item::File).collect())?;
    progress.set_step("looking for the DHT");
    publish::join(node).await?;
    let version = Version { identity, read_key, manifest, gateways: Vec::new(), with_ids: true };
    let mut object = publish::put_out(version, node, progress, reporter, turns).await?;
    (object["files"], object["size"], object["left_out"]) = (files.into(), size.into(), left_out.into());
    Ok(object)
}

fn entry(file: &Path, wish: &ingest::Wish, store: &Store, progress: &Progress) -> Result<FileEntry, Failure> {
    if progress.cancelled().load(Ordering::Relaxed) {
        return Err(Failure::new(Exit::Other, "cancelled"));
    }
    ingest::entry_of(file, wish, store, progress)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_files_without_what_is_hidden_or_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        for (name, text) in [("a", "12"), ("b/c/d", "3"), ("b/.hidden", "4"), (".git", "5")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let tree = Tree::of(dir.path()).unwrap();
        let paths: Vec<&str> = tree.files.iter().map(|leaf| leaf.path.as_str()).collect();
        assert_eq!((paths, tree.size, tree.left_out), (vec!["a", "b/c/d"], 3, 3));
        let one = Tree::of(&dir.path().join("b/c/d")).unwrap();
        assert_eq!((one.files[0].path.as_str(), one.size), ("d", 1));
        fs::remove_file(dir.path().join("b/c/d")).unwrap();
        assert_eq!(Tree::of(&dir.path().join("b")).unwrap_err().exit, Exit::NotFound);
        assert_eq!(Tree::of(&dir.path().join("none")).unwrap_err().exit, Exit::NotFound);
    }
}
