//! One channel that is followed: what is known of it, what is done about its files, and what there is to say of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use megatorrent_core::identity::PublicKey;
use megatorrent_core::manifest::{FileEntry, Manifest};
use megatorrent_core::node::{DhtError, Event, Target, TargetStatus};
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::Handle;
use serde_json::json;

use super::Reporter;
use super::exports::{Bench, Exports, Finished, Goal};
use super::jobs::verify::Found;
use super::records::Followed;
use crate::api::{ChannelId, State, Subscription};
use crate::clock;
use crate::events::{self, count};
use crate::exit::{Exit, Failure};
use crate::output::News;

/// How often progress is told at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Without a byte for so long, a channel waits for peers.
const WAITING_AFTER: Duration = Duration::from_secs(30);

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
    failure: Option<Failure>,
    is_full: bool,
    /// Sequence of the newest manifest whose files are all written, or failed.
    told_complete: Option<u64>,
    completed_unix_ms: Option<u64>,
    /// Whether a manifest was ever read.
    is_readable: bool,
    /// What the last look-up of the head brought, where it brought none.
    not_found: Option<NotFound>,
    last_progress: Progress,
    last_change: Instant,
    /// When progress was told last, and which.
    told_progress: Option<(Instant, (u64, u64))>,
}

/// What moves while a download does.
#[derive(Clone, PartialEq, Eq, Default)]
struct Progress {
    sequence: u64,
    blobs: u64,
    blobs_total: u64,
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
            failure: None,
            is_full: false,
            told_complete: None,
            completed_unix_ms: None,
            is_readable: false,
            not_found: None,
            last_progress: Progress::default(),
            last_change: Instant::now(),
            told_progress: None,
        }
    }

    /// Whether its files go where a record says, and as it says.
    pub(super) fn goes_as(&self, record: &Followed) -> bool {
        let goal = |it: &Followed| (it.output.clone(), it.copy, it.in_order);
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
                self.manifest = Some((*sequence, manifest.clone()));
                events::title(manifest).clone_into(&mut self.title);
                self.files = manifest.files().count() as u64;
                self.size_bytes = manifest.files().map(|file| file.size).sum();
                if let Some(exports) = &mut self.exports {
                    exports.begin(*sequence, manifest.clone())?;
                }
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

    /// Whether it has another title than its record says; the record then has it.
    pub(super) fn take_new_title(&mut self) -> bool {
        let is_new = !self.title.is_empty() && self.title != self.record.title;
        if is_new {
            self.record.title.clone_from(&self.title);
        }
        is_new
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
        if let Some(exports) = &mut self.exports {
            exports.restore();
        }
    }

    /// Looks how far it is, and tells it.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let Some(status) = self.node.channel_status(&self.key) else { return Ok(()) };
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
            exported_bytes: self.exports.as_ref().map_or(0, Exports::bytes),
            looked_at_bytes: self.node.store().looked_at_bytes(),
        };
        if progress != self.last_progress {
            if progress.blobs > self.last_progress.blobs {
                self.is_full = false;
            }
            self.last_progress = progress;
            self.last_change = Instant::now();
        } else if self.exports.as_ref().is_some_and(Exports::is_surveying) {
            self.last_change = Instant::now();
        }
        self.tell_progress(&status);
        self.tell_complete(&status)
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
        let sequence = match &self.exports {
            Some(exports) => exports.complete_sequence().filter(|_| !exports.has_failed()),
            None => status.satisfied.then_some(status.sequence),
        };
        let Some(sequence) = sequence.filter(|sequence| self.told_complete != Some(*sequence)) else {
            return Ok(());
        };
        self.told_complete = Some(sequence);
        self.completed_unix_ms = Some(clock::now_ms());
        // What lies at its place after a power cut, and is not whole, must be known to be ours.
        self.node.state().flush()?;
        let members = json!({ "channel": self.key.to_string(), "sequence": sequence });
        let text = match self.exports.as_ref().map_or(0, Exports::kept) {
            0 => format!("sequence {sequence} is complete"),
            kept => {
                let files = count(kept, "file");
                format!("sequence {sequence} is complete, without {files} that you deleted or edited")
            }
        };
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
        if let Some(failure) = refused.or(self.failure.as_ref().filter(|_| !patient)) {
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
            return Some(self.exports.as_mut().map_or(Ok(()), Exports::verdict));
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

    /// What there is to say of it.
    pub(super) fn info(&self) -> Subscription {
        let status = self.node.channel_status(&self.key);
        let sequence = status.as_ref().map_or(0, |status| status.sequence);
        let uri = ChannelUri { public_key: self.key, read_key: None, bootstrap: Vec::new() };
        let complete = self.told_complete.is_some_and(|told| told == sequence);
        let failure = self.refused.as_ref().or(self.failure.as_ref());
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
            files: self.files,
            size_bytes: self.size_bytes,
            blobs: status.as_ref().map_or(0, |status| status.blobs_stored),
            blobs_total: status.as_ref().map_or(0, |status| status.blobs_total),
            output: self.record.output.as_ref().map(|output| output.display().to_string()),
            copy: self.record.copy,
            in_order: self.record.in_order,
            added_unix_ms: self.record.added_unix_ms,
            completed_unix_ms: self.completed_unix_ms,
            unread: complete && sequence > self.record.read_sequence,
        }
    }

    /// The first word that holds.
    fn state(&self, status: Option<&TargetStatus>, complete: bool) -> State {
        let sequence = status.map_or(0, |status| status.sequence);
        let is_locked = self.refused.as_ref().is_some_and(|failure| failure.exit == Exit::Permission);
        match () {
            () if self.is_forked => State::Conflict,
            () if is_locked => State::NeedsKey,
            () if self.failure.as_ref().is_some_and(|failure| failure.exit != Exit::NoSpace) => {
                State::FolderMissing
            }
            () if self.is_full || self.failure.is_some() => State::NeedsSpace,
            () if self.record.paused => State::Paused,
            () if sequence == 0 => State::Looking,
            () if complete && sequence > self.record.read_sequence => State::New,
            () if complete => State::UpToDate,
            () if self.last_change.elapsed() >= WAITING_AFTER => State::WaitingForPeers,
            () => State::Arriving,
        }
    }

    /// A failure of its folder; it is looked at again with the next version.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.reporter.warn(&failure.message);
        self.failure = Some(failure);
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
