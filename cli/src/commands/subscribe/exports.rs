//! Writes a manifest's files, one after the other, as their blobs become complete.

use std::collections::BTreeSet;
use std::future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use megatorrent_core::ids::Topic;
use megatorrent_core::manifest::{FileEntry, Manifest};
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::export::{Export, ExportError, Exported, export, shown};
use megatorrent_runtime_smol::outputs::Plan;
use megatorrent_runtime_smol::state::State;
use megatorrent_runtime_smol::store::Store;
use serde_json::json;
use smol::Task;

use crate::args::Subscribe;
use crate::events;
use crate::exit::Failure;
use crate::output::{News, Output};

/// Threads that open and write one file. Each takes 1 MiB, and the node needs a processor too.
const WORKERS_MAX: usize = 2;

/// The files of one channel's newest manifest, on their way into the output folder.
pub(super) struct Exports {
    out_dir: PathBuf,
    topic: Topic,
    /// Whether the blobs are kept beside the files.
    copy: bool,
    store: Store,
    state: Arc<State>,
    output: Output,
    workers: usize,
    manifest: Option<Current>,
    running: Option<Running>,
    /// Bytes opened so far, over all files.
    bytes: Arc<AtomicU64>,
}

struct Current {
    channel_sequence: u64,
    manifest: Arc<Manifest>,
    /// Files whose blobs are stored and whose turn has not come.
    waiting: BTreeSet<usize>,
    /// Files that are written, or that failed.
    done: BTreeSet<usize>,
    files: usize,
    /// Whether the node says that this is the newest manifest and all its blobs are stored.
    complete: bool,
    /// The first failure.
    failure: Option<Failure>,
}

struct Running {
    sequence: u64,
    index: usize,
    entry: FileEntry,
    cancel: Arc<AtomicBool>,
    task: Task<Result<Exported, ExportError>>,
    result: Option<Result<Exported, ExportError>>,
}

impl Exports {
    pub(super) fn new(args: &Subscribe, topic: Topic, node: &Handle, output: Output) -> Self {
        Self {
            out_dir: args.output.clone(),
            topic,
            copy: args.copy,
            store: node.store().clone(),
            state: node.state().clone(),
            output,
            workers: thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX),
            manifest: None,
            running: None,
            bytes: Arc::default(),
        }
    }

    /// Goes over to a newer manifest. What the old one still has to write is dropped.
    pub(super) fn begin(&mut self, sequence: u64, manifest: Arc<Manifest>) -> Result<(), Failure> {
        if let Some(running) = &self.running {
            running.cancel.store(true, Ordering::Relaxed);
        }
        if !self.copy {
            let plan = Plan::new(manifest.clone(), self.out_dir.clone());
            plan.check(&self.store)?;
            self.store.begin_outputs(self.topic, sequence, plan);
        }
        let files = manifest.files().count();
        // Of two collections that have one path the first counts.
        let mut paths = BTreeSet::new();
        let repeated = manifest.files().enumerate().filter(|(_, file)| !paths.insert(file.path.as_str()));
        let done = repeated.map(|(file, _)| file).collect();
        self.manifest = Some(Current {
            channel_sequence: sequence,
            manifest,
            waiting: BTreeSet::new(),
            done,
            files,
            complete: false,
            failure: None,
        });
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

    /// All files' blobs are stored, and there is no newer manifest.
    pub(super) fn add_all(&mut self, sequence: u64) {
        if let Some(current) = self.current(sequence) {
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
        let Some(index) = current.waiting.pop_first() else { return };
        let entry =
            current.manifest.files().nth(index).expect("only indexes below the count are added").clone();
        let cancel = Arc::new(AtomicBool::new(false));
        let (store, state, out_dir) = (self.store.clone(), self.state.clone(), self.out_dir.clone());
        let (file, cancelled, bytes, workers, copy) =
            (entry.clone(), cancel.clone(), self.bytes.clone(), self.workers, self.copy);
        let manifest = current.manifest.clone();
        let task = smol::unblock(move || {
            let request = Export {
                entry: &file,
                packs: &manifest.packs,
                store: &store,
                state: &state,
                out_dir: &out_dir,
                workers,
                copy,
                sync: false,
            };
            export(
                &request,
                &|n| {
                    bytes.fetch_add(n, Ordering::Relaxed);
                },
                &cancelled,
            )
        });
        let sequence = current.channel_sequence;
        self.running = Some(Running { sequence, index, entry, cancel, task, result: None });
    }

    /// Waits until the file under way is written or has failed; for ever where none is.
    pub(super) async fn wait(&mut self) {
        match &mut self.running {
            Some(running) if running.result.is_none() => running.result = Some((&mut running.task).await),
            Some(_) => {}
            None => future::pending().await,
        }
    }

    /// Takes note of the file that [`Self::wait`] waited for, and begins the next.
    pub(super) fn finish_one(&mut self) -> Result<(), Failure> {
        let Some(Running { sequence, index, entry, result: Some(result), .. }) = self.running.take() else {
            return Ok(());
        };
        if let Some(current) = self.current(sequence) {
            current.done.insert(index);
            // Events may have added it again while it was written.
            current.waiting.remove(&index);
        }
        let told = match result {
            Ok(exported) => self.tell(sequence, &entry, exported),
            Err(ExportError::Cancelled) => Ok(()),
            Err(error) => {
                let failure = Failure::from(error);
                let told = events::warn(self.output, &failure.message);
                if let Some(current) = self.current(sequence) {
                    current.failure.get_or_insert(failure);
                }
                told
            }
        };
        self.start_next();
        told
    }

    fn tell(&self, sequence: u64, entry: &FileEntry, exported: Exported) -> Result<(), Failure> {
        let target = self.out_dir.join(entry.path.as_str());
        let written = exported == Exported::Written;
        let members = json!({
            "sequence": sequence, "path": entry.path.as_str(), "size": entry.size, "target": target,
            "written": written,
        });
        let text = format!("{} {}", shown(&target), if written { "written" } else { "is there already" });
        self.output.event(News::File, members, &text)
    }

    /// The path of a file in the channel, for a message.
    pub(super) fn file_name(&self, sequence: u64, file: usize) -> String {
        let current = self.manifest.as_ref().filter(|current| current.channel_sequence == sequence);
        let entry = current.and_then(|current| current.manifest.files().nth(file));
        entry.map_or_else(|| format!("file {file}"), |entry| entry.path.to_string())
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

    /// Whether nothing is left to do for the newest manifest.
    pub(super) fn is_done(&self) -> bool {
        self.running.is_none() && self.complete_sequence().is_some()
    }

    /// Whether some file of the newest manifest could not be written.
    pub(super) fn has_failed(&self) -> bool {
        self.manifest.as_ref().is_some_and(|current| current.failure.is_some())
    }

    /// The first failure among the newest manifest's files.
    pub(super) fn verdict(&mut self) -> Result<(), Failure> {
        self.manifest.as_mut().and_then(|current| current.failure.take()).map_or(Ok(()), Err)
    }

    /// Ends the work under way. What has come of a file stays under its working name, for the next time.
    pub(super) async fn cancel(&mut self) {
        self.manifest = None;
        self.store.end_outputs(&self.topic);
        if let Some(running) = self.running.take() {
            running.cancel.store(true, Ordering::Relaxed);
            if running.result.is_none() {
                drop(running.task.await);
            }
        }
    }
}
