//! One channel that is followed: what is known of it, what is done about its files, and what there is to say of it.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use megatorrent_core::identity::PublicKey;
use megatorrent_core::manifest::{FileEntry, Manifest};
use megatorrent_core::node::{DhtError, Event, Target, TargetStatus};
use megatorrent_core::parts::PARTS;
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::state::Output;
use serde_json::json;

use super::Reporter;
use super::exports::{Bench, Exports, Finished, Goal};
use super::jobs::verify::Found;
use super::own_folder;
use super::records::{Followed, Known};
use super::trouble::Trouble;
use crate::api::{ChannelId, Difference, FileChange, FileState, State, Subscription};
use crate::clock;
use crate::events;
use crate::exit::{Exit, Failure};
use crate::output::News;

/// How often progress is told at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Without a byte for so long, a channel waits for peers.
const WAITING_AFTER: Duration = Duration::from_secs(30);

/// Over which time its rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// How long the DHT's word on what is newest holds.
const ASKED_LATELY_MS: u64 = 60 * 60 * 1_000;
/// How long a channel is looked at.
const PREVIEW_MS: u64 = 30 * 60 * 1_000;

/// About the bytes of a version that are here.
fn here_bytes(status: &TargetStatus) -> u64 {
    // In parts, as on a slow line a blob takes long.
    let stored = u128::from(status.blobs_stored) * PARTS as u128 + u128::from(status.parts_stored);
    let all = u128::from(status.blobs_total.max(1)) * PARTS as u128;
    u64::try_from(u128::from(status.content_bytes) * stored.min(all) / all).unwrap_or(u64::MAX)
}

/// A channel that is followed.
pub(super) struct Channel {
    pub(super) record: Followed,
    key: PublicKey,
    node: Handle,
    reporter: Reporter,
    /// `None`: it is seeded alone.
    exports: Option<Exports>,
    manifest: Option<(u64, Arc<Manifest>)>,
    title: String,
    files: u64,
    size_bytes: u64,
    is_forked: bool,
    /// Why its newest head, body or a page cannot be used.
    refused: Option<Failure>,
    /// Why its files cannot be written.
    trouble: Trouble,
    is_full: bool,
    /// Sequence of the newest manifest whose files are all written, or failed.
    told_complete: Option<u64>,
    completed_unix_ms: Option<u64>,
    /// Whether a manifest was ever read.
    is_readable: bool,
    /// Whether the record has changed and is to be kept.
    is_record_new: bool,
    /// What the last look-up of the head brought, where it brought none.
    not_found: Option<NotFound>,
    last_progress: Progress,
    last_change: Instant,
    /// When progress was told last, and which.
    told_progress: Option<(Instant, (u64, u64))>,
    /// The state that was told last.
    told_state: Option<State>,
    /// How files differ from the version that was marked as seen, by their paths.
    changes: BTreeMap<String, FileChange>,
    /// Bytes that were here over the last seconds.
    here: VecDeque<(Instant, u64)>,
}

/// What moves while a download does.
#[derive(Clone, PartialEq, Eq, Default)]
struct Progress {
    sequence: u64,
    blobs: u64,
    blobs_total: u64,
    parts: u64,
    exported_bytes: u64,
    looked_at_bytes: u64,
}

/// Why no head was found.
#[derive(Clone, Copy)]
enum NotFound {
    /// The DHT answered and has none.
    NoHead,
    /// The DHT did not answer.
    NoDht(DhtError),
}

impl Channel {
    /// `is_new`: nothing was ever written to its folder, and nothing is in it.
    pub(super) fn new(
        key: PublicKey,
        record: Followed,
        is_new: bool,
        node: &Handle,
        bench: &Bench,
        reporter: &Reporter,
    ) -> Self {
        let reporter = reporter.of_channel(key);
        let exports = record.output.as_ref().map(|out_dir| {
            let goal = Goal {
                channel: key,
                out_dir: out_dir.clone(),
                copy: record.copy,
                in_order: record.in_order,
                restore: false,
            };
            Exports::new(goal, is_new, node, bench.clone(), reporter.clone())
        });
        Self {
            record,
            key,
            node: node.clone(),
            reporter,
            exports,
            manifest: None,
            title: String::new(),
            files: 0,
            size_bytes: 0,
            is_forked: false,
            refused: None,
            trouble: Trouble::default(),
            is_full: false,
            told_complete: None,
            completed_unix_ms: None,
            is_readable: false,
            is_record_new: false,
            not_found: None,
            last_progress: Progress::default(),
            last_change: Instant::now(),
            told_progress: None,
            told_state: None,
            changes: BTreeMap::new(),
            here: VecDeque::new(),
        }
    }

    /// Whether its files go where a record says, and as it says.
    pub(super) fn goes_as(&self, record: &Followed) -> bool {
        let goal = |it: &Followed| (it.output.clone(), it.copy, it.in_order, it.preview);
        goal(&self.record) == goal(record)
    }

    /// Takes note of what concerns the channel.
    pub(super) fn on_event(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Head { .. } => {
                self.refused = None;
                if let Some(exports) = &mut self.exports {
                    exports.hold();
                }
            }
            Event::BlobsLost { .. } => {
                if let Some(exports) = &mut self.exports {
                    exports.survey();
                }
            }
            Event::HeadNotFound { error, .. } => {
                self.not_found = Some(error.map_or(NotFound::NoHead, NotFound::NoDht));
            }
            Event::HeadRefused { error, .. } if !self.is_readable => self.refused = Some((*error).into()),
            Event::Fork { .. } => self.is_forked = true,
            Event::Manifest { sequence, manifest, .. } => {
                self.is_readable = true;
                self.refused = None;
                self.compare(*sequence, manifest);
                self.manifest = Some((*sequence, manifest.clone()));
                events::title(manifest).clone_into(&mut self.title);
                self.files = manifest.files().count() as u64;
                self.size_bytes = manifest.files().map(|file| file.size).sum();
                self.note_known();
                self.trouble.begin();
                self.begin(*sequence, manifest.clone())?;
            }
            Event::FileComplete { sequence, file, .. } => {
                if let Some(exports) = &mut self.exports {
                    exports.add(*sequence, *file);
                }
            }
            Event::BodyRefused { error, .. } => self.refuse(error.to_string()),
            Event::PageRefused { error, .. } => {
                self.refuse(format!("some files of the channel cannot be had: {error}"));
            }
            Event::FileRefused { sequence, file, .. } => {
                let name = self
                    .exports
                    .as_ref()
                    .map_or_else(|| format!("file {file}"), |exports| exports.file_name(*sequence, *file));
                let why = format!("{name}: its index does not hold what the channel says");
                self.reporter.warn(&why);
                self.refuse(why);
            }
            _ => {}
        }
        self.look()
    }

    /// Goes over to a version.
    fn begin(&mut self, sequence: u64, manifest: Arc<Manifest>) -> Result<(), Failure> {
        self.name_folder()?;
        self.exports.as_mut().map_or(Ok(()), |exports| exports.begin(sequence, manifest))
    }

    /// Tries its folder again, which has failed.
    fn try_again(&mut self) -> Result<(), Failure> {
        match (&self.manifest, &mut self.exports) {
            (Some((sequence, _)), Some(exports)) if exports.has_begun(*sequence) => exports.begin_again(),
            (Some((sequence, manifest)), _) => return self.begin(*sequence, manifest.clone()),
            (None, _) => {}
        }
        Ok(())
    }

    /// A user wants it looked at now rather than when it is due.
    pub(super) fn hurry(&mut self) {
        self.trouble.hurry(Instant::now());
    }

    /// Gives the folder that the user did not name its name, before anything is in it.
    fn name_folder(&mut self) -> Result<(), Failure> {
        let Some(exports) = self.exports.as_mut().filter(|it| self.record.unnamed && it.is_new()) else {
            return Ok(());
        };
        let Some(downloads) = self.record.output.as_deref().and_then(Path::parent) else { return Ok(()) };
        let Some(folder) = own_folder::make(downloads, &self.title, &self.key) else { return Ok(()) };
        let output = Output { channel: self.key, folder: folder.clone(), copy: self.record.copy };
        self.node.state().note_output(&output)?;
        exports.move_to(folder.clone());
        self.record.output = Some(folder);
        self.record.unnamed = false;
        self.is_record_new = true;
        Ok(())
    }

    /// Notes how a version differs from the one that was marked as seen.
    fn compare(&mut self, sequence: u64, manifest: &Manifest) {
        let Some((before, old)) = &self.manifest else {
            // What it came after is not known any more.
            if self.record.known.sequence != sequence {
                self.record.known.difference = None;
            }
            return;
        };
        if *before >= sequence {
            return;
        }
        let is_read = self.record.read_sequence >= *before;
        let earlier = if is_read { BTreeMap::new() } else { std::mem::take(&mut self.changes) };
        let is_known = is_read || self.record.known.difference.is_some();
        let old: BTreeMap<&str, &FileEntry> = old.files().map(|file| (file.path.as_str(), file)).collect();
        let (mut difference, mut found) = (Difference::default(), 0_u64);
        self.changes.clear();
        for file in manifest.files() {
            let path = file.path.as_str();
            let known = old.get(path);
            found += u64::from(known.is_some());
            let change = match (earlier.get(path), known) {
                (Some(FileChange::New), _) | (_, None) => FileChange::New,
                (Some(FileChange::Changed), _) => FileChange::Changed,
                (None, Some(known)) if known.reference != file.reference => FileChange::Changed,
                (None, Some(_)) => continue,
            };
            let count = match change {
                FileChange::New => &mut difference.added,
                FileChange::Changed => &mut difference.changed,
            };
            *count += 1;
            self.changes.insert(path.to_owned(), change);
        }
        difference.removed = (old.len() as u64).saturating_sub(found);
        self.record.known.difference = is_known.then_some(difference);
        self.is_record_new = true;
    }

    /// How a file of the newest version differs from the version that was marked as seen.
    pub(super) fn change_of(&self, path: &str) -> Option<FileChange> {
        self.changes.get(path).copied()
    }

    /// How far a file of the newest version is.
    pub(super) fn file_state(&self, index: usize) -> FileState {
        self.exports.as_ref().map_or(FileState::Missing, |exports| exports.file_state(index))
    }

    /// The newest version was marked as seen.
    pub(super) fn note_read(&mut self) {
        self.changes.clear();
        self.record.known.difference = None;
    }

    /// Its record has changed.
    pub(super) fn note_record(&mut self) {
        self.is_record_new = true;
    }

    /// Whether it was looked at for long enough.
    pub(super) fn is_old_preview(&self) -> bool {
        let age_ms = clock::now_ms().saturating_sub(self.record.added_unix_ms);
        self.record.preview && age_ms >= PREVIEW_MS
    }

    fn refuse(&mut self, why: String) {
        self.refused = Some(Failure::new(Exit::Integrity, why));
    }

    /// The store has no room, or fails. With the next blob that it takes this is over.
    pub(super) fn note_full(&mut self) {
        self.is_full = true;
    }

    /// Takes what has ended of its work, and begins the next.
    pub(super) fn finish(&mut self, finished: Finished) -> Result<(), Failure> {
        if let Some(exports) = &mut self.exports {
            exports.finish(finished)?;
        }
        self.look()
    }

    /// Its record, if it has another title or folder than the one that was kept.
    pub(super) fn take_new_record(&mut self) -> Option<Followed> {
        let mut is_new = std::mem::take(&mut self.is_record_new);
        if !self.title.is_empty() && self.title != self.record.title {
            self.record.title.clone_from(&self.title);
            is_new = true;
        }
        is_new.then(|| self.record.clone())
    }

    /// Remembers what there is to say of the newest version that was read.
    fn note_known(&mut self) {
        let sequence = self.manifest.as_ref().map_or(0, |(sequence, _)| *sequence);
        let before = Some(&self.record.known).filter(|known| known.sequence == sequence);
        let complete = before.and_then(|known| known.complete).or_else(|| {
            let blobs = self.node.channel_status(&self.key).map_or(0, |status| status.blobs_total);
            let is_complete = self.told_complete == Some(sequence);
            self.completed_unix_ms.filter(|_| is_complete).map(|unix_ms| (blobs, unix_ms))
        });
        let difference = self.record.known.difference;
        let known = Known { sequence, files: self.files, size_bytes: self.size_bytes, complete, difference };
        if known != self.record.known {
            self.record.known = known;
            self.is_record_new = true;
        }
    }

    /// Whether something of it is among what was found, or is missing from its folder. A stored blob may be any channel's.
    pub(super) fn has_lost(&self, found: &Found) -> Result<bool, Failure> {
        let Some(folder) = &self.record.output else { return Ok(found.blobs > 0) };
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let has_lost = found.blobs > 0 || found.paths.iter().any(|path| path.starts_with(&real));
        Ok(has_lost || self.node.state().has_changed_below(folder)?)
    }

    /// The newest version that was read, and its number.
    pub(super) fn manifest(&self) -> Option<(u64, &Arc<Manifest>)> {
        self.manifest.as_ref().map(|(sequence, manifest)| (*sequence, manifest))
    }

    /// Where a file of the newest version lies, if all of it is there.
    pub(super) fn target_of(&self, index: usize, file: &FileEntry) -> Option<String> {
        let exports = self.exports.as_ref().filter(|exports| exports.is_written(index))?;
        Some(exports.target(file).display().to_string())
    }

    /// Brings back what was deleted, edited or damaged in its folder.
    pub(super) fn restore(&mut self) {
        // It is told again that all is there.
        self.told_complete = None;
        if let Some(exports) = &mut self.exports {
            exports.restore();
        }
    }

    /// Looks at its folder anew, where all was done: a user may have changed what is there since.
    pub(super) fn look_again(&mut self) {
        if let Some(exports) = self.exports.as_mut().filter(|exports| exports.complete_sequence().is_some()) {
            self.told_complete = None;
            exports.begin_again();
        }
    }

    /// Looks how far it is, and tells it.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let Some(status) = self.node.channel_status(&self.key) else { return Ok(()) };
        if !self.record.paused && self.trouble.take_due(Instant::now()) {
            self.try_again()?;
        }
        if let Some(exports) = &mut self.exports
            && status.satisfied
            && exports.is_settled(status.sequence)
        {
            // An event may have been dropped while the node was busy.
            exports.add_all(status.sequence);
        }
        let progress = Progress {
            sequence: status.sequence,
            blobs: status.blobs_stored,
            blobs_total: status.blobs_total,
            parts: status.parts_stored,
            exported_bytes: self.exports.as_ref().map_or(0, Exports::bytes),
            looked_at_bytes: self.node.store().looked_at_bytes(),
        };
        if progress != self.last_progress {
            // What was under way when the store failed may be kept after that.
            if progress.blobs > self.last_progress.blobs && !status.store_rests {
                self.is_full = false;
            }
            self.last_progress = progress;
            self.last_change = Instant::now();
        } else if self.exports.as_ref().is_some_and(Exports::is_surveying) {
            self.last_change = Instant::now();
        }
        self.note_rate(&status);
        self.tell_progress(&status);
        if !self.trouble.rests() {
            self.tell_complete(&status)?;
            self.note_trouble(&status);
        }
        self.tell_state(&status);
        Ok(())
    }

    /// Looks whether its folder does what it should.
    fn note_trouble(&mut self, status: &TargetStatus) {
        let Some(exports) = &self.exports else { return self.trouble.end() };
        let sequence = status.sequence;
        if let Some(failure) = exports.file_failure(sequence) {
            self.trouble.note_file(failure.clone(), Instant::now());
        } else if exports.is_in_place(sequence) {
            self.trouble.end();
        } else if exports.is_settled(sequence) && !exports.is_surveying() {
            self.trouble.end_of_folder();
        }
    }

    /// Notes how much is here, while more comes.
    fn note_rate(&mut self, status: &TargetStatus) {
        let now = Instant::now();
        while self.here.front().is_some_and(|(at, _)| now - *at > RATE_WINDOW) {
            self.here.pop_front();
        }
        if !status.satisfied || !self.here.is_empty() {
            self.here.push_back((now, here_bytes(status)));
        }
    }

    /// Bytes of it that came a second; 0 until a second has shown it, since what was published here is there at once.
    fn rate(&self) -> u64 {
        let (Some(first), Some(last)) = (self.here.front(), self.here.back()) else { return 0 };
        let ms = u64::try_from((last.0 - first.0).as_millis()).unwrap_or(u64::MAX);
        if ms < 1_000 { 0 } else { last.1.saturating_sub(first.1).saturating_mul(1_000) / ms }
    }

    /// Tells that its state is another.
    fn tell_state(&mut self, status: &TargetStatus) {
        let state = self.state(Some(status), self.is_complete(status.sequence));
        if self.told_state.replace(state).is_some_and(|told| told != state) {
            self.reporter.event(News::Changed, json!({ "state": state }), "");
        }
    }

    /// Tells how many blobs are here, where that has changed; what comes within a moment is told at once.
    fn tell_progress(&mut self, status: &TargetStatus) {
        let blobs = (status.blobs_stored, status.blobs_total);
        let told = self.told_progress.unwrap_or((self.last_change, (0, 0)));
        let is_due =
            self.told_progress.is_none() || told.0.elapsed() >= PROGRESS_INTERVAL || status.satisfied;
        if blobs == told.1 || !is_due {
            return;
        }
        self.told_progress = Some((Instant::now(), blobs));
        let members = json!({
            "channel": self.key.to_string(), "blobs": status.blobs_stored, "blobs_total": status.blobs_total,
            "content_bytes": status.content_bytes, "waiting": status.waiting,
            "dht_lag_secs": self.node.status().dht_lag_secs,
        });
        self.reporter.event(News::Progress, members, "");
    }

    /// Tells once for each version that all that is wanted of it is in its place.
    fn tell_complete(&mut self, status: &TargetStatus) -> Result<(), Failure> {
        if self.record.preview {
            return Ok(());
        }
        let sequence = match &self.exports {
            Some(exports) => exports.complete_sequence().filter(|_| !exports.has_failed()),
            None => status.satisfied.then_some(status.sequence),
        };
        let Some(sequence) = sequence.filter(|sequence| self.told_complete != Some(*sequence)) else {
            return Ok(());
        };
        // What lies at its place after a power cut, and is not whole, must be known to be ours.
        self.node.state().flush()?;
        self.told_complete = Some(sequence);
        self.completed_unix_ms = Some(clock::now_ms());
        self.note_known();
        let members = json!({ "channel": self.key.to_string(), "sequence": sequence });
        let kept = self.exports.as_ref().map_or(0, Exports::kept);
        let text = events::complete_text(sequence, kept as u64);
        self.reporter.event(News::Complete, members, text);
        Ok(())
    }

    /// The end of waiting for it: all that is wanted is in its place, or why that will not come about. `None`: it may still.
    /// `patient`: a newer version, or space, is waited for.
    pub(super) fn verdict(
        &mut self,
        timeout: Option<Duration>,
        patient: bool,
    ) -> Option<Result<(), Failure>> {
        let refused = self.refused.as_ref().filter(|_| !patient || !self.is_readable);
        if let Some(failure) = refused.or(self.trouble.failure().filter(|_| !patient)) {
            return Some(Err(failure.clone()));
        }
        if self.is_full && !patient {
            let nameless = || Failure::new(Exit::Other, "the folder of the node (-d) takes no more blobs");
            let failure = self.node.store().last_failure().map_or_else(nameless, |it| Failure::from(&*it));
            return Some(Err(failure));
        }
        let status = self.node.channel_status(&self.key)?;
        let is_done = match &self.exports {
            Some(exports) => exports.complete_sequence().is_some(),
            None => status.satisfied,
        };
        if is_done {
            return Some(self.exports.as_ref().map_or(Ok(()), Exports::verdict));
        }
        let timeout = timeout.filter(|timeout| self.last_change.elapsed() >= *timeout)?;
        Some(Err(self.gave_up(timeout, status.waiting.as_deref())))
    }

    fn gave_up(&self, timeout: Duration, waiting: Option<&str>) -> Failure {
        let waiting = waiting.unwrap_or("its files");
        let has_met_peer = self.node.status().bytes_received > 0;
        let (exit, what) = if self.is_readable && has_met_peer {
            (Exit::Timeout, format!("still waiting for {waiting}"))
        } else if self.last_progress.sequence > 0 {
            (Exit::NotFound, format!("no peer was found; waiting for {waiting}"))
        } else {
            match self.not_found {
                Some(NotFound::NoDht(error)) => {
                    (Exit::Network, format!("the channel cannot be looked up: {error}"))
                }
                Some(NotFound::NoHead) => (Exit::NotFound, "nobody has published this channel".to_owned()),
                None => (Exit::NotFound, format!("waiting for {waiting}")),
            }
        };
        let seconds = timeout.as_secs();
        let message = format!(
            "gave up after {seconds} s without progress: {what}. -b HOST:PORT names a node to begin with"
        );
        // A head that could not be stored is as good as none.
        match self.node.state().last_failure().map(|error| Failure::from(&*error)) {
            Some(cause) if !self.is_readable => {
                Failure::new(cause.exit, format!("{message}. {}", cause.message))
            }
            _ => Failure::new(exit, message),
        }
    }

    /// Whether all of a version that is wanted is in its place, but for what a user made of it.
    fn is_complete(&self, sequence: u64) -> bool {
        let is_in_place = |exports: &Exports| exports.is_in_place(sequence);
        self.told_complete == Some(sequence) || self.exports.as_ref().is_some_and(is_in_place)
    }

    /// What there is to say of it.
    pub(super) fn info(&self) -> Subscription {
        let status = self.node.channel_status(&self.key);
        let sequence = status.as_ref().map_or(0, |status| status.sequence);
        let uri = ChannelUri { public_key: self.key, read_key: None, bootstrap: Vec::new() };
        // Until it is read, what was known of it holds.
        let known = Some(&self.record.known).filter(|it| self.manifest.is_none() && it.sequence == sequence);
        let known_complete = known.and_then(|known| known.complete);
        let complete = known_complete.is_some() || self.is_complete(sequence);
        // A node that is told to let it rest does not count them.
        let resting = Some(&self.record.known).filter(|it| self.record.paused && it.sequence == sequence);
        let counted = known_complete.or_else(|| resting.and_then(|known| known.complete));
        let blobs = |now: fn(&TargetStatus) -> u64| counted.map_or(status.as_ref().map_or(0, now), |it| it.0);
        let failure = self.refused.as_ref().or(self.trouble.failure());
        Subscription {
            channel: ChannelId(self.key),
            uri: uri.to_public_string(),
            private: status.as_ref().is_some_and(|status| status.private),
            title: if self.title.is_empty() { self.record.title.clone() } else { self.title.clone() },
            state: self.state(status.as_ref(), complete),
            waiting: status.as_ref().and_then(|status| status.waiting.clone()),
            failure: failure.map(|failure| failure.message.clone()),
            sequence,
            complete,
            files: known.map_or(self.files, |known| known.files),
            size_bytes: known.map_or(self.size_bytes, |known| known.size_bytes),
            blobs: blobs(|status| status.blobs_stored),
            blobs_total: blobs(|status| status.blobs_total),
            output: self.record.output.as_ref().map(|output| output.display().to_string()),
            copy: self.record.copy,
            in_order: self.record.in_order,
            added_unix_ms: self.record.added_unix_ms,
            completed_unix_ms: known_complete.map(|it| it.1).or(self.completed_unix_ms),
            unread: complete && sequence > self.record.read_sequence,
            asked_unix_ms: status.as_ref().and_then(|status| status.asked).map(|asked| asked.0),
            here_bytes: if complete {
                known.map_or(self.size_bytes, |known| known.size_bytes)
            } else {
                status.as_ref().map_or(0, here_bytes)
            },
            receive_bytes_per_sec: self.rate(),
            difference: self.record.known.difference,
            kept_files: self.exports.as_ref().map_or(0, Exports::kept) as u64,
            preview: self.record.preview,
            number: self.record.number,
        }
    }

    /// The first word that holds.
    fn state(&self, status: Option<&TargetStatus>, complete: bool) -> State {
        let sequence = status.map_or(0, |status| status.sequence);
        let asked = status.and_then(|status| status.asked).map_or(0, |asked| asked.0);
        let is_fresh = clock::now_ms().saturating_sub(asked) < ASKED_LATELY_MS;
        let is_locked = self.refused.as_ref().is_some_and(|failure| failure.exit == Exit::Permission);
        match () {
            () if self.is_forked => State::Conflict,
            () if is_locked => State::NeedsKey,
            () if self.trouble.failure().is_some_and(|failure| failure.exit != Exit::NoSpace) => {
                State::FolderMissing
            }
            () if self.is_full || self.trouble.failure().is_some() => State::NeedsSpace,
            () if self.record.paused => State::Paused,
            () if sequence == 0 => State::Looking,
            () if complete && sequence > self.record.read_sequence => State::New,
            () if complete && !is_fresh => State::NotAskedLately,
            () if complete => State::UpToDate,
            () if self.last_change.elapsed() >= WAITING_AFTER => State::WaitingForPeers,
            () => State::Arriving,
        }
    }

    /// A failure of its folder, which is tried again later.
    pub(super) fn fail(&mut self, failure: Failure) {
        let message = failure.message.clone();
        if self.trouble.note(failure, Instant::now()) {
            self.reporter.warn(message);
        }
    }

    /// Ends what is under way. What has come of a file stays under its working name, for the next time.
    pub(super) async fn end(&mut self) {
        if let Some(exports) = &mut self.exports {
            exports.cancel().await;
        }
    }
}

/// The channel that an event is about, if it is about one.
pub(super) fn channel_of(event: &Event) -> Option<PublicKey> {
    let of = |target: &Target| if let Target::Channel(channel) = target { Some(*channel) } else { None };
    match event {
        Event::Head { channel, .. }
        | Event::HeadRefused { channel, .. }
        | Event::Fork { channel, .. }
        | Event::HeadNotFound { channel, .. }
        | Event::Manifest { channel, .. }
        | Event::BodyRefused { channel, .. }
        | Event::PageRefused { channel, .. } => Some(*channel),
        Event::FileComplete { target, .. }
        | Event::FileRefused { target, .. }
        | Event::Complete { target, .. }
        | Event::SelectionComplete { target, .. }
        | Event::BlobsLost { target, .. } => of(target),
        _ => None,
    }
}
