//! What a user has chosen by deeds: a file that was deleted from an output folder, or edited there, is not fetched again by itself.
//!
//! Until the folder was looked at nothing of a channel is fetched that has one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::limits::SELECTED_FILES_MAX;
use megatorrent_core::manifest::Manifest;
use megatorrent_core::node::{Command, Event, Priority, Selection, Target};
use megatorrent_runtime_smol::export::{ExportError, shown};
use megatorrent_runtime_smol::state::StateError;
use megatorrent_runtime_smol::survey::{Deed, Kept, Survey};
use megatorrent_runtime_smol::{Handle, Options};
use serde_json::json;

use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::{News, Output};

/// Files that are named in words at once; further ones are counted.
const NAMED_MAX: usize = 10;

/// Nothing is fetched but what says which files there are.
pub(crate) fn nothing() -> Selection {
    Selection { others: Priority::Skip, ..Selection::default() }
}

/// All files are fetched but these.
pub(crate) fn all_but(paths: impl Iterator<Item = String>, in_order: bool) -> Selection {
    let files = paths.take(SELECTED_FILES_MAX).map(|path| (path, Priority::Skip)).collect();
    Selection { files, in_order, ..Selection::default() }
}

/// Lets a node fetch nothing of the channels that have output folders.
pub(crate) fn hold_all(options: &mut Options) -> Result<(), Failure> {
    let channels: BTreeSet<PublicKey> =
        options.home.state.outputs()?.into_iter().map(|output| output.channel).collect();
    options.selections = channels.into_iter().map(|channel| (channel, nothing())).collect();
    Ok(())
}

/// Tells which files are left as a user has them, each once while it is so.
#[derive(Default)]
pub(crate) struct Teller(BTreeSet<(PathBuf, &'static str)>);

impl Teller {
    pub(crate) fn tell(
        &mut self,
        (channel, sequence): (&PublicKey, u64),
        manifest: &Manifest,
        kept: &[Kept],
        output: Output,
    ) -> Result<(), Failure> {
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
            if !output.is_json() && named > NAMED_MAX {
                continue;
            }
            let path = manifest.files().nth(one.file).map(|entry| entry.path.as_str());
            let members = json!({
                "channel": channel.to_string(), "sequence": sequence, "path": path, "target": one.path,
                "why": one.deed.name(),
            });
            output.event(News::Withdrawn, members, &words(one))?;
        }
        if named > NAMED_MAX {
            output
                .note(&format!("and {} more that were deleted or edited", count(named - NAMED_MAX, "file")));
        }
        Ok(())
    }
}

fn words(kept: &Kept) -> String {
    let what = match kept.deed {
        Deed::Deleted => "was deleted here and is not fetched again",
        Deed::Edited => "was edited here, is not served any more as far as it differs, and stays as it is",
    };
    format!("{} {what}; `verify --repair` brings it back", shown(&kept.path))
}

/// The choices of channels that have output folders and are not under way into one.
pub(crate) struct Choices {
    node: Handle,
    output: Output,
    folders: BTreeMap<PublicKey, Vec<PathBuf>>,
    manifests: BTreeMap<PublicKey, (u64, Arc<Manifest>)>,
    tellers: BTreeMap<PublicKey, Teller>,
}

impl Choices {
    /// Of all channels but one.
    pub(crate) fn new(node: &Handle, except: Option<&PublicKey>, output: Output) -> Result<Self, StateError> {
        let mut folders: BTreeMap<PublicKey, Vec<PathBuf>> = BTreeMap::new();
        for known in node.state().outputs()?.into_iter().filter(|known| except != Some(&known.channel)) {
            folders.entry(known.channel).or_default().push(known.folder);
        }
        let (manifests, tellers) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { node: node.clone(), output, folders, manifests, tellers })
    }

    /// Lets nothing be fetched of a version before its folders were looked at, and then what no choice speaks against.
    pub(crate) async fn on_event(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Head { channel, .. } if self.folders.contains_key(channel) => {
                self.node.command(Command::Select { channel: *channel, selection: nothing() });
            }
            Event::Manifest { channel, sequence, manifest } if self.folders.contains_key(channel) => {
                self.manifests.insert(*channel, (*sequence, manifest.clone()));
                self.choose(*channel).await?;
            }
            Event::BlobsLost { target: Target::Channel(channel), .. } => self.choose(*channel).await?,
            _ => {}
        }
        Ok(())
    }

    async fn choose(&mut self, channel: PublicKey) -> Result<(), Failure> {
        let (Some(folders), Some((sequence, manifest))) =
            (self.folders.get(&channel).cloned(), self.manifests.get(&channel).cloned())
        else {
            return Ok(());
        };
        let (store, state, of) = (self.node.store().clone(), self.node.state().clone(), manifest.clone());
        let kept = smol::unblock(move || {
            let kept = folders.iter().map(|folder| {
                let survey = Survey { store: &store, state: &state, out_dir: folder };
                survey.kept(&of, &AtomicBool::new(false))
            });
            kept.collect::<Result<Vec<_>, ExportError>>()
        });
        // What is as it was in one folder is to be had.
        let mut everywhere = kept.await?.into_iter();
        let mut kept = everywhere.next().unwrap_or_default();
        for other in everywhere {
            kept.retain(|one| other.iter().any(|it| it.file == one.file));
        }
        let files: BTreeSet<usize> = kept.iter().map(|one| one.file).collect();
        let named = manifest.files().enumerate().filter(|(n, _)| files.contains(n));
        let selection = all_but(named.map(|(_, entry)| entry.path.as_str().to_owned()), false);
        self.node.command(Command::Select { channel, selection });
        let teller = self.tellers.entry(channel).or_default();
        teller.tell((&channel, sequence), &manifest, &kept, self.output)
    }
}

/// A failure for files that were edited and are in the way.
pub(crate) fn edited(kept: &[Kept]) -> Option<Failure> {
    let one = kept.iter().find(|one| one.deed == Deed::Edited)?;
    Some(Failure::new(Exit::Other, words(one)))
}
