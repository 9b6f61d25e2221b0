//! Writes a manifest's files, one after the other, as their blobs become complete: all but those that a user has deleted or edited.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Topic;
use megatorrent_core::manifest::{FileEntry, Manifest};
use megatorrent_core::node::{Command, Selection};
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::export::{Copies, Export, ExportError, Exported, export, shown};
use megatorrent_runtime_smol::outputs::Plan;
use megatorrent_runtime_smol::state::State;
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::survey::{Deed, Kept, Survey};
use serde_json::json;
use smol::Task;
use smol::channel::Sender;
use smol::lock::Semaphore;

use super::Reporter;
use super::withdrawn::{self, Withdrawn};
use crate::api::FileState;
use crate::exit::Failure;
use crate::node::Executor;
use crate::output::News;

/// Threads that open and write one file. Each takes 1 MiB, and the node needs a processor too.
const WORKERS_MAX: usize = 2;
/// How often a file's blobs are looked up again, as some were gone when it was to be written.
const LOOKS_MAX: u32 = 3;

/// Where a channel's files go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) channel: PublicKey,
    pub(super) out_dir: PathBuf,
    /// Whether the blobs are kept beside the files.
    pub(super) copy: bool,
    pub(super) in_order: bool,
    /// Whether what was deleted, edited or damaged is brought back.
    pub(super) restore: bool,
}

/// The files of one channel's newest manifest, on their way into the output folder.
pub(super) struct Exports {
    goal: Goal,
    node: Handle,
    store: Store,
    state: Arc<State>,
    bench: Bench,
    reporter: Reporter,
    workers: usize,
    /// Nothing was ever written to the folder, and nothing is in it.
    is_new: bool,
    /// Nothing is fetched until it was looked at.
    is_held: bool,
    manifest: Option<Current>,
    surveying: Option<Surveying>,
    running: Option<Running>,
    withdrawn: Withdrawn,
    /// Bytes opened so far, over all files.
    bytes: Arc<AtomicU64>,
}

struct Current {
    channel_sequence: u64,
    manifest: Arc<Manifest>,
    /// The folder was looked at, and what is wanted is selected.
    is_settled: bool,
    /// What is kept besides the files; known when it is settled.
    copies: Copies,
    /// Files that are left as a user has them.
    kept: BTreeSet<usize>,
    /// Files whose blobs are stored and whose turn has not come.
    waiting: BTreeSet<usize>,
    /// Files that are written, or that failed, or are left as they are.
    done: BTreeSet<usize>,
    /// Those that failed.
    failed: BTreeSet<usize>,
    files: usize,
    /// Whether the node says that this is the newest manifest and all its blobs that are selected are stored.
    complete: bool,
    /// The first failure.
    failure: Option<Failure>,
    /// What was said of those that failed, so that it is said once however often they are tried.
    told: BTreeMap<usize, String>,
    /// How often blobs of a file were gone when it was to be written.
    looks: BTreeMap<usize, u32>,
}

/// A look at the output folder under way.
struct Surveying {
    sequence: u64,
    cancel: Arc<AtomicBool>,
    task: Task<()>,
}

struct Running {
    sequence: u64,
    index: usize,
    entry: FileEntry,
    cancel: Arc<AtomicBool>,
    task: Task<()>,
}

/// Work of a channel that has ended; [`Exports::finish`] takes it.
pub(super) struct Finished {
    pub(super) channel: PublicKey,
    work: Work,
}

enum Work {
    Survey(u64, Result<Vec<Kept>, ExportError>),
    Export(u64, usize, Result<Exported, ExportError>),
}

/// What work needs that ends later.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) executor: Executor,
    /// Takes what has ended; its other end calls [`Exports::finish`].
    pub(super) finished: Sender<Finished>,
    /// How many files are written, and folders looked at, at once.
    pub(super) turns: Arc<Semaphore>,
}

impl Bench {
    fn run(&self, channel: PublicKey, work: impl FnOnce() -> Work + Send + 'static) -> Task<()> {
        let (finished, turns) = (self.finished.clone(), self.turns.clone());
        self.executor.spawn(async move {
            let turn = turns.acquire_arc().await;
            let work = smol::unblock(work).await;
            drop(turn);
            // Nobody is there to take it when the node ends.
            let _ = finished.try_send(Finished { channel, work });
        })
    }
}

impl Exports {
    pub(super) fn new(goal: Goal, is_new: bool, node: &Handle, bench: Bench, reporter: Reporter) -> Self {
        Self {
            goal,
            node: node.clone(),
            store: node.store().clone(),
            state: node.state().clone(),
            bench,
            reporter,
            workers: thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
            is_new,
            is_held: !is_new,
            manifest: None,
            surveying: None,
            running: None,
            withdrawn: Withdrawn::default(),
            bytes: Arc::default(),
        }
    }

    /// Whether nothing was ever written to its folder, and no manifest was read.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Writes to another folder, of which the same holds.
    pub(super) fn move_to(&mut self, out_dir: PathBuf) {
        self.goal.out_dir = out_dir;
    }

    /// What is fetched before the folder was looked at.
    pub(super) fn first_selection(is_new: bool, in_order: bool) -> Selection {
        if is_new { Selection { in_order, ..Selection::default() } } else { withdrawn::nothing() }
    }

    /// There is a newer version, and what is in the folder was not looked at for it.
    pub(super) fn hold(&mut self) {
        if !self.is_new {
            self.is_held = true;
            let channel = self.goal.channel;
            self.node.command(Command::Select { channel, selection: withdrawn::nothing() });
        }
    }

    /// Goes over to a newer manifest. What the old one still has to write is dropped.
    pub(super) fn begin(&mut self, sequence: u64, manifest: Arc<Manifest>) -> Result<(), Failure> {
        if let Some(running) = &self.running {
            running.cancel.store(true, Ordering::Relaxed);
        }
        let files = manifest.files().count();
        // Of two collections that have one path the first counts.
        let mut paths = BTreeSet::new();
        let repeated = manifest.files().enumerate().filter(|(_, file)| !paths.insert(file.path.as_str()));
        let done = repeated.map(|(file, _)| file).collect();
        self.manifest = Some(Current {
            channel_sequence: sequence,
            manifest,
            is_settled: false,
            copies: Copies::None,
            kept: BTreeSet::new(),
            waiting: BTreeSet::new(),
            done,
            failed: BTreeSet::new(),
            files,
            complete: false,
            failure: None,
            told: BTreeMap::new(),
            looks: BTreeMap::new(),
        });
        if std::mem::take(&mut self.is_new) {
            return self.settle(sequence, &[]);
        }
        self.survey();
        Ok(())
    }

    /// Looks at what is in the folder.
    pub(super) fn survey(&mut self) {
        self.end_survey();
        let Some(current) = &self.manifest else { return };
        let (sequence, manifest) = (current.channel_sequence, current.manifest.clone());
        let (store, state, out_dir) = (self.store.clone(), self.state.clone(), self.goal.out_dir.clone());
        let cancel = Arc::new(AtomicBool::new(false));
        let cancelled = cancel.clone();
        let task = self.bench.run(self.goal.channel, move || {
            let survey = Survey { store: &store, state: &state, out_dir: &out_dir };
            Work::Survey(sequence, survey.kept(&manifest, &cancelled))
        });
        self.surveying = Some(Surveying { sequence, cancel, task });
    }

    /// Brings back what was deleted, edited or damaged: looks at the folder, and from then on leaves nothing as a user made it.
    pub(super) fn restore(&mut self) {
        self.goal.restore = true;
        self.begin_again();
    }

    /// Looks at the folder, and at each file again.
    pub(super) fn begin_again(&mut self) {
        if let Some(current) = &mut self.manifest {
            current.is_settled = false;
            current.complete = false;
            current.done.clear();
            current.failed.clear();
            current.failure = None;
        }
        self.is_held = true;
        self.survey();
    }

    fn end_survey(&mut self) {
        if let Some(surveying) = self.surveying.take() {
            surveying.cancel.store(true, Ordering::Relaxed);
            surveying.task.detach();
        }
    }

    pub(super) fn is_surveying(&self) -> bool {
        self.surveying.is_some()
    }

    /// The folder was looked at: fetches what no deed of the user's speaks against, and lets parts be opened into their places.
    fn settle(&mut self, sequence: u64, kept: &[Kept]) -> Result<(), Failure> {
        let goal = &self.goal;
        let Some(current) = self.manifest.as_mut().filter(|it| it.channel_sequence == sequence) else {
            return Ok(());
        };
        let (kept, restored): (&[Kept], BTreeSet<usize>) = if goal.restore {
            let edited = kept.iter().filter(|one| one.deed == Deed::Edited);
            (&[], edited.map(|one| one.file).collect())
        } else {
            (kept, BTreeSet::new())
        };
        let left: BTreeSet<usize> = kept.iter().map(|one| one.file).collect();
        let is_other = left != current.kept;
        if !current.is_settled {
            let plan = Plan::new(current.manifest.clone(), goal.out_dir.clone()).restoring(restored);
            plan.check(&self.store, &self.state, &left)?;
            current.is_settled = true;
            if goal.copy {
                current.copies = self.store.copies_of(&goal.out_dir);
            }
            let topic = topic_of(&self.node, &goal.channel);
            if let Some(topic) = topic.filter(|_| current.copies != Copies::Blobs) {
                self.store.begin_outputs(topic, sequence, plan);
            }
        } else if !is_other {
            return Ok(());
        }
        let files = current.manifest.files().enumerate().filter(|(n, _)| left.contains(n));
        // A copy that is kept is as much the channel's as what was made of it.
        let paths = files.filter(|_| !goal.copy).map(|(_, entry)| entry.path.as_str().to_owned());
        let selection = withdrawn::all_but(paths, goal.in_order);
        current.done.extend(&left);
        current.waiting.retain(|file| !current.done.contains(file));
        current.kept = left;
        if let Some(failure) = withdrawn::edited(kept) {
            current.failure.get_or_insert(failure);
        }
        let (channel, manifest) = (goal.channel, current.manifest.clone());
        if std::mem::take(&mut self.is_held) || is_other {
            self.node.command(Command::Select { channel, selection });
        }
        self.withdrawn.tell((&channel, sequence), &manifest, kept, &self.reporter);
        self.start_next();
        Ok(())
    }

    /// A file's blobs are stored.
    pub(super) fn add(&mut self, sequence: u64, file: usize) {
        if let Some(current) = self.current(sequence)
            && file < current.files
            && !current.done.contains(&file)
        {
            current.waiting.insert(file);
        }
        self.start_next();
    }

    /// All blobs that are selected are stored, and there is no newer manifest.
    pub(super) fn add_all(&mut self, sequence: u64) {
        if let Some(current) = self.current(sequence).filter(|current| current.is_settled) {
            current.complete = true;
            let Current { waiting, done, .. } = current;
            waiting.extend((0..current.files).filter(|file| !done.contains(file)));
        }
        self.start_next();
    }

    fn current(&mut self, sequence: u64) -> Option<&mut Current> {
        self.manifest.as_mut().filter(|current| current.channel_sequence == sequence)
    }

    fn start_next(&mut self) {
        let (None, Some(current)) = (&self.running, &mut self.manifest) else { return };
        if !current.is_settled {
            return;
        }
        let Some(index) = current.waiting.pop_first() else { return };
        let entry =
            current.manifest.files().nth(index).expect("only indexes below the count are added").clone();
        let cancel = Arc::new(AtomicBool::new(false));
        let (store, state, goal) = (self.store.clone(), self.state.clone(), self.goal.clone());
        let (file, cancelled, bytes, workers) =
            (entry.clone(), cancel.clone(), self.bytes.clone(), self.workers);
        let topic = topic_of(&self.node, &goal.channel);
        let manifest = current.manifest.clone();
        let (sequence, copies) = (current.channel_sequence, current.copies);
        let task = self.bench.run(goal.channel, move || {
            let request = Export {
                entry: &file,
                packs: &manifest.packs,
                store: &store,
                state: &state,
                out_dir: &goal.out_dir,
                workers,
                copies,
                topic,
                restore: goal.restore,
                sync: false,
            };
            let progress = |n| {
                bytes.fetch_add(n, Ordering::Relaxed);
            };
            Work::Export(sequence, index, export(&request, &progress, &cancelled))
        });
        self.running = Some(Running { sequence, index, entry, cancel, task });
    }

    /// Takes what has ended, and begins the next.
    pub(super) fn finish(&mut self, finished: Finished) -> Result<(), Failure> {
        let (sequence, index, result) = match finished.work {
            Work::Survey(sequence, kept) => {
                if self.surveying.as_ref().is_none_or(|it| it.sequence != sequence) {
                    return Ok(());
                }
                self.surveying = None;
                return match kept {
                    Err(ExportError::Cancelled) => Ok(()),
                    kept => self.settle(sequence, &kept?),
                };
            }
            Work::Export(sequence, index, result) => (sequence, index, result),
        };
        let is_it = |it: &mut Running| (it.sequence, it.index) == (sequence, index);
        let Some(Running { entry, .. }) = self.running.take_if(is_it) else { return Ok(()) };
        let (node, channel) = (self.node.clone(), self.goal.channel);
        if let Some(current) = self.current(sequence) {
            if matches!(result, Err(ExportError::Missing(_) | ExportError::Vanished(_))) {
                let looks = current.looks.entry(index).or_default();
                *looks += 1;
                if *looks <= LOOKS_MAX {
                    current.complete = false;
                    node.command(Command::LookAgain(channel));
                    self.start_next();
                    return Ok(());
                }
            }
            current.done.insert(index);
            // Events may have added it again while it was written.
            current.waiting.remove(&index);
        }
        match result {
            Ok(exported) => self.tell(sequence, &entry, &exported),
            Err(ExportError::Cancelled) => {}
            Err(error) => {
                let (failure, reporter) = (Failure::from(error), self.reporter.clone());
                if let Some(current) = self.current(sequence) {
                    if current.told.insert(index, failure.message.clone()).as_ref() != Some(&failure.message)
                    {
                        reporter.warn(&failure.message);
                    }
                    current.failed.insert(index);
                    current.failure.get_or_insert(failure);
                }
            }
        }
        self.start_next();
        Ok(())
    }

    fn tell(&self, sequence: u64, entry: &FileEntry, exported: &Exported) {
        let target = self.goal.out_dir.join(entry.path.as_str());
        let written = *exported != Exported::AlreadyThere;
        if let Exported::SetAside(aside) = exported {
            let text = format!("{}: what you made of it is kept as {}", shown(&target), shown(aside));
            self.reporter.warn(text);
        }
        let members = json!({
            "sequence": sequence, "path": entry.path.as_str(), "size": entry.size, "target": target,
            "written": written,
        });
        let text = format!("{} {}", shown(&target), if written { "written" } else { "is there already" });
        self.reporter.event(News::File, members, text);
    }

    /// The path of a file in the channel, for a message.
    pub(super) fn file_name(&self, sequence: u64, file: usize) -> String {
        let current = self.manifest.as_ref().filter(|current| current.channel_sequence == sequence);
        let entry = current.and_then(|current| current.manifest.files().nth(file));
        entry.map_or_else(|| format!("file {file}"), |entry| entry.path.to_string())
    }

    /// Whether a file of the newest manifest is in its place, or was left as a user has it.
    pub(super) fn is_written(&self, file: usize) -> bool {
        let is_not = |it: &Current| it.kept.contains(&file) || it.failed.contains(&file);
        self.manifest.as_ref().is_some_and(|it| it.done.contains(&file) && !is_not(it))
    }

    /// How far a file of the newest manifest is.
    pub(super) fn file_state(&self, file: usize) -> FileState {
        match &self.manifest {
            Some(it) if it.failed.contains(&file) => FileState::Failed,
            Some(it) if it.kept.contains(&file) => FileState::Kept,
            Some(it) if it.done.contains(&file) => FileState::Here,
            _ => FileState::Missing,
        }
    }

    /// A file's place.
    pub(super) fn target(&self, entry: &FileEntry) -> PathBuf {
        self.goal.out_dir.join(entry.path.as_str())
    }

    /// Bytes opened so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The newest manifest's sequence, where all its files are written or failed.
    pub(super) fn complete_sequence(&self) -> Option<u64> {
        let current = self.manifest.as_ref()?;
        (current.complete && current.done.len() == current.files).then_some(current.channel_sequence)
    }

    /// Whether it writes this version.
    pub(super) fn has_begun(&self, sequence: u64) -> bool {
        self.manifest.as_ref().is_some_and(|it| it.channel_sequence == sequence)
    }

    /// Whether the folder was looked at for this version.
    pub(super) fn is_settled(&self, sequence: u64) -> bool {
        self.manifest.as_ref().is_some_and(|it| it.channel_sequence == sequence && it.is_settled)
    }

    /// The failure of a file of this version, once all others are in their places.
    pub(super) fn file_failure(&self, sequence: u64) -> Option<&Failure> {
        self.complete_sequence().filter(|complete| *complete == sequence)?;
        self.manifest.as_ref().filter(|it| !it.failed.is_empty())?.failure.as_ref()
    }

    /// Whether all of this version is in its place, or was left as a user has it.
    pub(super) fn is_in_place(&self, sequence: u64) -> bool {
        self.complete_sequence() == Some(sequence)
            && self.manifest.as_ref().is_some_and(|it| it.failed.is_empty())
    }

    /// Files that are left as a user has them.
    pub(super) fn kept(&self) -> usize {
        self.manifest.as_ref().map_or(0, |current| current.kept.len())
    }

    /// Whether some file of the newest manifest could not be written.
    pub(super) fn has_failed(&self) -> bool {
        self.manifest.as_ref().is_some_and(|current| current.failure.is_some())
    }

    /// The first failure among the newest manifest's files.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        self.manifest.as_ref().and_then(|current| current.failure.clone()).map_or(Ok(()), Err)
    }

    /// Ends the work under way. What has come of a file stays under its working name, for the next time.
    pub(super) async fn cancel(&mut self) {
        self.manifest = None;
        self.end_survey();
        if let Some(topic) = topic_of(&self.node, &self.goal.channel) {
            self.store.end_outputs(&topic);
        }
        if let Some(running) = self.running.take() {
            running.cancel.store(true, Ordering::Relaxed);
            running.task.await;
        }
    }
}

/// The topic of a channel that the node follows.
fn topic_of(node: &Handle, channel: &PublicKey) -> Option<Topic> {
    node.channel_status(channel).map(|status| status.topic)
}
