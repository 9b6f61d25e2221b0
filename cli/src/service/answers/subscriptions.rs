//! Answers about channels that are followed.

use std::path::{Path, PathBuf};

use megatorrent_core::identity::PublicKey;
use megatorrent_core::node::{Command, Event};
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::export;
use megatorrent_runtime_smol::state::Output as Folder;
use megatorrent_runtime_smol::survey::Survey;
use serde_json::{Value, json};

use super::page;
use crate::api::{
    AddSubscription, Answers, ApiError, Blobs, ChannelId, CheckSubscription, Counts, Done, FileInfo,
    FileState, Files, GetBlobs, GetFiles, GetSubscription, GetSubscriptions, MarkRead, PauseSubscription,
    RemoveSubscription, ResumeSubscription, Sort, Subscription, Subscriptions, Undo, Undoable,
};
use crate::exit::{Exit, Failure};
use crate::output::News;
use crate::service::Service;
use crate::service::channel::Channel;
use crate::service::records::Followed;
use crate::service::undo::{Back, UNDO_FOR};

/// Cells of a map of blobs at most.
const CELLS_MAX: usize = 600;

impl Service {
    /// Follows a channel, or changes how it is followed. The record is there before this returns.
    async fn follow(&self, uri: &ChannelUri, record: Followed, new: bool) -> Result<(), ApiError> {
        let it = &self.0;
        it.has_told.set(true);
        let key = uri.public_key;
        let (is_new, begins_anew) = match &record.output {
            Some(out_dir) => self.take_folder(key, out_dir.clone(), record.copy, new).await?,
            None => (false, false),
        };
        let goes_as_before = |old: &Channel| !begins_anew && old.goes_as(&record);
        let is_same = it.channels.borrow().get(&key).is_some_and(goes_as_before);
        let (paused, is_preview) = (record.paused, record.preview);
        if !is_same {
            self.replace(key, record, is_new).await?;
        } else if let Some(channel) = it.channels.borrow_mut().get_mut(&key) {
            channel.look_again();
        }
        let followed = self.command(Command::Follow { channel: key, read_key: uri.read_key.clone() }).await;
        if let Err(error) = followed {
            if !is_same {
                it.channels.borrow_mut().remove(&key);
                it.records.set_channel(ChannelId(key), None).await?;
            }
            return Err(error);
        }
        if begins_anew {
            // The node may think that it has what was there.
            self.command(Command::LookAgain(key)).await?;
        }
        if paused {
            self.command(Command::Pause(key)).await?;
        }
        for peer in &uri.bootstrap {
            // A peer that is refused now is found otherwise.
            drop(it.node.add_bootstrap(peer.clone()));
        }
        if !is_preview {
            let members = json!({ "channel": key.to_string() });
            it.reporter.of_channel(key).event(News::Followed, members, format!("channel {key} is followed"));
        }
        Ok(())
    }

    /// Puts a channel in the place of one that went elsewhere, or of none.
    async fn replace(&self, key: PublicKey, record: Followed, is_new: bool) -> Result<(), ApiError> {
        let it = &self.0;
        let mut record = record;
        self.number(&mut record);
        let old = it.channels.borrow_mut().remove(&key);
        let mut known = None;
        if let Some(mut old) = old {
            known = old.manifest().map(|(sequence, manifest)| (sequence, manifest.clone()));
            old.end().await;
        }
        it.records.set_channel(ChannelId(key), Some(&record)).await?;
        if record.output.is_some() {
            let selection = Self::first_selection(is_new, record.in_order);
            self.command(Command::Select { channel: key, selection }).await?;
        } else if record.preview {
            let selection = Self::first_selection(false, false);
            self.command(Command::Select { channel: key, selection }).await?;
        }
        // What came meanwhile found none, and made one for itself.
        let between = it.channels.borrow_mut().remove(&key);
        if let Some((sequence, manifest)) = between.as_ref().and_then(Channel::manifest) {
            known = Some((sequence, manifest.clone()));
        }
        let mut channel = Channel::new(key, record, is_new, &it.node, &it.bench, &it.reporter);
        if let Some((sequence, manifest)) = known {
            channel.on_event(&Event::Manifest { channel: key, sequence, manifest })?;
        }
        if let Some(record) = channel.take_new_record() {
            it.records.set_channel(ChannelId(key), Some(&record)).await?;
        }
        it.channels.borrow_mut().insert(key, channel);
        Ok(())
    }

    /// Notes an output folder; whether nothing was ever written to it, and nothing is in it, and whether it takes the place of one that had
    /// files.
    async fn take_folder(
        &self,
        channel: PublicKey,
        folder: PathBuf,
        copy: bool,
        new: bool,
    ) -> Result<(bool, bool), ApiError> {
        let (store, state) = (self.0.node.store().clone(), self.0.node.state().clone());
        let taken = smol::unblock(move || {
            let begins_anew = new && export::forget_output(&store, &state, &folder)?;
            let is_new = Survey { store: &store, state: &state, out_dir: &folder }.is_new()?;
            state.note_output(&Folder { channel, folder, copy })?;
            Ok::<_, Failure>((is_new, begins_anew))
        });
        Ok(taken.await?)
    }

    fn info(&self, channel: &ChannelId) -> Result<Subscription, ApiError> {
        let channels = self.0.channels.borrow();
        channels.get(&channel.0).map(Channel::info).ok_or_else(|| not_followed(channel))
    }

    /// The channel that is named; all where none is.
    fn named(&self, channel: Option<ChannelId>) -> Result<Vec<PublicKey>, ApiError> {
        let channels = self.0.channels.borrow();
        match channel {
            Some(channel) if !channels.contains_key(&channel.0) => Err(not_followed(&channel)),
            Some(channel) => Ok(vec![channel.0]),
            None => Ok(channels.keys().copied().collect()),
        }
    }

    /// Changes a channel's record, and keeps it.
    async fn change(&self, channel: PublicKey, change: impl FnOnce(&mut Followed)) -> Result<(), ApiError> {
        let record = {
            let mut channels = self.0.channels.borrow_mut();
            let Some(channel) = channels.get_mut(&channel) else { return Ok(()) };
            change(&mut channel.record);
            channel.record.clone()
        };
        self.0.records.set_channel(ChannelId(channel), Some(&record)).await?;
        self.0.reporter.of_channel(channel).event(News::Changed, Value::Null, "");
        Ok(())
    }

    async fn set_paused(&self, channel: PublicKey, paused: bool) -> Result<(), ApiError> {
        self.command(if paused { Command::Pause(channel) } else { Command::Resume(channel) }).await?;
        self.change(channel, |record| record.paused = paused).await
    }
}

fn not_followed(channel: &ChannelId) -> ApiError {
    ApiError::not_found(format!("channel {channel} is not followed; getSubscriptions lists those that are"))
}

impl Answers<AddSubscription> for Service {
    async fn answer(&self, call: AddSubscription) -> Result<Subscription, ApiError> {
        let uri: ChannelUri = call.uri.trim().parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let before = self.0.channels.borrow().get(&uri.public_key).map(|channel| channel.record.clone());
        if call.preview {
            if before.as_ref().is_none_or(|before| before.preview) {
                let record = before.unwrap_or_else(|| Followed { preview: true, ..Followed::seeded() });
                self.follow(&uri, record, false).await?;
            }
            return self.info(&ChannelId(uri.public_key));
        }
        let before = before.unwrap_or_else(Followed::seeded);
        let added_unix_ms =
            if before.preview { Followed::seeded().added_unix_ms } else { before.added_unix_ms };
        let (output, unnamed) = match &call.output {
            Some(output) if !Path::new(output).is_absolute() => {
                let message = format!("{output:?}: name the output folder by its absolute path");
                return Err(Failure::new(Exit::Usage, message).into());
            }
            Some(output) => (output.into(), false),
            None => match before.output.clone() {
                Some(output) => (output, before.unnamed),
                None => (self.own_folder(&uri.public_key), true),
            },
        };
        let record = Followed {
            output: Some(output),
            unnamed,
            copy: call.copy,
            in_order: call.in_order,
            preview: false,
            added_unix_ms,
            ..before
        };
        self.follow(&uri, record, call.new).await?;
        self.info(&ChannelId(uri.public_key))
    }
}

impl Answers<GetSubscriptions> for Service {
    async fn answer(&self, call: GetSubscriptions) -> Result<Subscriptions, ApiError> {
        let mut counts = Counts::default();
        let mut found: Vec<Subscription> = self.0.channels.borrow().values().map(Channel::info).collect();
        found.retain(|one| !one.preview);
        for one in &found {
            counts.add(one.state);
        }
        let search = call.search.as_deref().map(str::to_lowercase).unwrap_or_default();
        found.retain(|one| {
            (search.is_empty()
                || one.title.to_lowercase().contains(&search)
                || one.channel.to_string().contains(&search))
                && (call.states.is_empty() || call.states.contains(&one.state))
        });
        match call.sort {
            Sort::Added => found.sort_by_key(|one| (one.added_unix_ms, one.channel)),
            Sort::Title => found.sort_by_cached_key(|one| (one.title.to_lowercase(), one.channel)),
            Sort::State => found.sort_by_key(|one| (one.state, one.channel)),
            Sort::Here => found.sort_by_key(|one| (one.here_bytes, one.channel)),
            Sort::Changed => found.sort_by_key(|one| (one.sequence, one.channel)),
            Sort::Size => found.sort_by_key(|one| (one.size_bytes, one.channel)),
        }
        if call.descending {
            found.reverse();
        }
        let (subscriptions, total) = page(found, call.offset, call.limit);
        Ok(Subscriptions { subscriptions, total, counts })
    }
}

impl Answers<GetSubscription> for Service {
    async fn answer(&self, call: GetSubscription) -> Result<Subscription, ApiError> {
        self.info(&call.channel)
    }
}

impl Answers<RemoveSubscription> for Service {
    async fn answer(&self, call: RemoveSubscription) -> Result<Undoable, ApiError> {
        let key = call.channel.0;
        let read_key = self.0.node.read_key(&key);
        let channel = self.0.channels.borrow_mut().remove(&key);
        let mut channel = channel.ok_or_else(|| not_followed(&call.channel))?;
        channel.end().await;
        self.command(Command::Unfollow(key)).await?;
        self.0.records.set_channel(call.channel, None).await?;
        let back = Back::Follow(key, read_key, Box::new(channel.record.clone()));
        if channel.record.preview {
            return Ok(Undoable { undo: 0, for_ms: 0 });
        }
        let undo = self.0.undo.borrow_mut().add(back);
        let text = format!("channel {key} is not followed any more; its files stay");
        let members = json!({ "channel": key.to_string() });
        self.0.reporter.of_channel(key).event(News::Unfollowed, members, text);
        Ok(undoable(undo))
    }
}

fn undoable(undo: u64) -> Undoable {
    Undoable { undo, for_ms: u64::try_from(UNDO_FOR.as_millis()).unwrap_or(u64::MAX) }
}

impl Answers<PauseSubscription> for Service {
    async fn answer(&self, call: PauseSubscription) -> Result<Undoable, ApiError> {
        let mut paused = Vec::new();
        for key in self.named(call.channel)? {
            let is_paused = self.0.channels.borrow().get(&key).is_none_or(|channel| channel.record.paused);
            if !is_paused {
                self.set_paused(key, true).await?;
                paused.push(key);
            }
        }
        Ok(undoable(self.0.undo.borrow_mut().add(Back::Resume(paused))))
    }
}

impl Answers<ResumeSubscription> for Service {
    async fn answer(&self, call: ResumeSubscription) -> Result<Done, ApiError> {
        for key in self.named(call.channel)? {
            self.set_paused(key, false).await?;
        }
        Ok(Done {})
    }
}

impl Answers<CheckSubscription> for Service {
    async fn answer(&self, call: CheckSubscription) -> Result<Done, ApiError> {
        for key in self.named(call.channel)? {
            if let Some(channel) = self.0.channels.borrow_mut().get_mut(&key) {
                channel.hurry();
            }
            self.command(Command::LookUp(key)).await?;
        }
        Ok(Done {})
    }
}

impl Answers<Undo> for Service {
    async fn answer(&self, call: Undo) -> Result<Done, ApiError> {
        let back = self.0.undo.borrow_mut().take(call.undo);
        match back {
            Some(Back::Follow(public_key, read_key, record)) => {
                let uri = ChannelUri { public_key, read_key, bootstrap: Vec::new() };
                self.follow(&uri, *record, false).await?;
            }
            Some(Back::Resume(channels)) => {
                for key in channels {
                    self.set_paused(key, false).await?;
                }
            }
            None => return Err(ApiError::not_found("it cannot be taken back any more")),
        }
        Ok(Done {})
    }
}

impl Answers<MarkRead> for Service {
    async fn answer(&self, call: MarkRead) -> Result<Done, ApiError> {
        for key in self.named(call.channel)? {
            let sequence = self.0.node.channel_status(&key).map_or(0, |status| status.sequence);
            let is_read =
                self.0.channels.borrow().get(&key).is_none_or(|it| it.record.read_sequence >= sequence);
            if !is_read {
                if let Some(channel) = self.0.channels.borrow_mut().get_mut(&key) {
                    channel.note_read();
                }
                self.change(key, |record| record.read_sequence = sequence).await?;
            }
        }
        Ok(Done {})
    }
}

impl Answers<GetFiles> for Service {
    async fn answer(&self, call: GetFiles) -> Result<Files, ApiError> {
        let channels = self.0.channels.borrow();
        let channel = channels.get(&call.channel.0).ok_or_else(|| not_followed(&call.channel))?;
        let Some((sequence, manifest)) = channel.manifest() else {
            return Ok(Files { sequence: 0, files: Vec::new(), total: 0 });
        };
        let under = if call.under.is_empty() { String::new() } else { format!("{}/", call.under) };
        let mut found = std::collections::BTreeMap::<String, FileInfo>::new();
        for (index, file) in manifest.files().enumerate() {
            let Some(rest) = file.path.as_str().strip_prefix(&under) else { continue };
            let folder = rest.split_once('/').map(|(folder, _)| folder);
            let path = format!("{under}{}", folder.unwrap_or(rest));
            let info = found.entry(path.clone()).or_insert_with(|| FileInfo {
                path,
                size_bytes: 0,
                folder: folder.is_some(),
                target: folder.is_none().then(|| channel.target_of(index, file)).flatten(),
                state: FileState::Here,
                change: None,
                files: 0,
                files_here: 0,
            });
            let state = channel.file_state(index);
            info.size_bytes += file.size;
            info.state = info.state.min(state);
            info.change = info.change.max(channel.change_of(file.path.as_str()));
            info.files += 1;
            info.files_here += u64::from(state == FileState::Here);
        }
        let (files, total) = page(found.into_values().collect(), call.offset, call.limit);
        Ok(Files { sequence, files, total })
    }
}

impl Answers<GetBlobs> for Service {
    async fn answer(&self, call: GetBlobs) -> Result<Blobs, ApiError> {
        if !self.0.channels.borrow().contains_key(&call.channel.0) {
            return Err(not_followed(&call.channel));
        }
        let cells = call.cells.and_then(|cells| usize::try_from(cells).ok()).unwrap_or(CELLS_MAX);
        let found = self.0.node.cells(&call.channel.0, cells.clamp(1, CELLS_MAX));
        let mut blobs = Blobs::default();
        for cell in found {
            blobs.blobs.push(cell.blobs);
            blobs.here.push(cell.stored);
            blobs.under_way.push(cell.under_way);
            blobs.unseen.push(cell.unseen);
        }
        Ok(blobs)
    }
}
