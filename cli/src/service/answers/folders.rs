//! Answers about what is on the node's disk and could be published.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use megatorrent_core::manifest::Manifest;

use super::{LISTED_MAX, check_absolute, page};
use crate::api::{
    Answers, ApiError, FileChange, Folder, FolderEntry, GetFolder, JobInfo, Plan, PlanPublication,
    PlannedFile, PublishFolder,
};
use crate::exit::{Exit, Failure};
use crate::service::Service;
use crate::service::jobs::Request;
use crate::service::jobs::folder::Tree;

/// Entries of a folder that are read; further ones are left out.
const READ_MAX: usize = 100_000;
/// Files that a plan lists.
const PLANNED_MAX: usize = 1_000;

fn entries(folder: &Path) -> Result<Vec<FolderEntry>, Failure> {
    let failed = |error| Failure::file("cannot read", folder, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)?.take(READ_MAX) {
        let entry = entry.map_err(failed)?;
        let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        if name.starts_with('.') || !(metadata.is_file() || metadata.is_dir()) {
            continue;
        }
        let size_bytes = if metadata.is_file() { metadata.len() } else { 0 };
        found.push(FolderEntry { name, folder: metadata.is_dir(), size_bytes });
    }
    found.sort_by_cached_key(|entry| (!entry.folder, entry.name.to_lowercase(), entry.name.clone()));
    Ok(found)
}

fn plan(tree: &Tree, before: Option<&Arc<Manifest>>) -> Plan {
    let known: BTreeMap<&str, (u64, Option<u64>)> = before
        .into_iter()
        .flat_map(|manifest| manifest.files())
        .map(|file| (file.path.as_str(), (file.size, file.modified_ms)))
        .collect();
    let change = |path: &str, size, modified_ms| match known.get(path) {
        None => Some(FileChange::New),
        Some(known) if *known != (size, modified_ms) => Some(FileChange::Changed),
        Some(_) => None,
    };
    let all = tree.files.iter().map(|leaf| PlannedFile {
        path: leaf.path.as_str().to_owned(),
        size_bytes: leaf.size,
        change: change(leaf.path.as_str(), leaf.size, leaf.modified_ms),
    });
    let mut listed: Vec<PlannedFile> = all.collect();
    let count = |wanted| listed.iter().filter(|file| file.change == Some(wanted)).count() as u64;
    let (added, changed) = (count(FileChange::New), count(FileChange::Changed));
    let files = listed.len() as u64;
    listed.truncate(PLANNED_MAX);
    Plan {
        files,
        size_bytes: tree.size,
        left_out: tree.left_out,
        added,
        changed,
        removed: known.len() as u64 - (files - added),
        listed,
    }
}

impl Answers<GetFolder> for Service {
    async fn answer(&self, call: GetFolder) -> Result<Folder, ApiError> {
        let path = match call.path {
            Some(path) => {
                check_absolute(&path)?;
                PathBuf::from(path)
            }
            None => std::env::home_dir().filter(|home| home.is_dir()).unwrap_or_else(|| self.0.home.clone()),
        };
        let read = path.clone();
        let found = smol::unblock(move || entries(&read)).await?;
        let (entries, total) = page(found, call.offset, call.limit);
        let parent = path.parent().map(|parent| parent.display().to_string());
        Ok(Folder { path: path.display().to_string(), parent, entries, total })
    }
}

impl Answers<PlanPublication> for Service {
    async fn answer(&self, call: PlanPublication) -> Result<Plan, ApiError> {
        check_absolute(&call.source)?;
        let before = call.channel.and_then(|channel| {
            let channels = self.0.channels.borrow();
            channels.get(&channel.0)?.manifest().map(|(_, manifest)| manifest.clone())
        });
        let source = PathBuf::from(call.source);
        let planned = smol::unblock(move || Tree::of(&source).map(|tree| plan(&tree, before.as_ref())));
        Ok(planned.await?)
    }
}

impl Answers<PublishFolder> for Service {
    async fn answer(&self, call: PublishFolder) -> Result<JobInfo, ApiError> {
        check_absolute(&call.source)?;
        if self.identity_of(&call.channel).await.is_none() {
            let message = format!("there is no identity for {} in the node's folder", call.channel);
            return Err(Failure::new(Exit::NotFound, message).into());
        }
        self.add_job(Request::PublishFolder(call)).await
    }
}

const _: () = assert!(PLANNED_MAX <= LISTED_MAX);
