//! Channels, each in three parts: its *head* (what its author signed last), its *swarm* (who else is there, and who has what) and
//! its *content* (what of the newest version is here, and what is missing). A swarm can stand alone: then it is about one tree,
//! and has no head.
//!
//! This file knows the three, and translates between them.

pub(crate) mod contents;
pub(crate) mod heads;
mod messages;
mod pause;
mod status;
pub(crate) mod swarms;

use alloc::vec::Vec;
use core::time::Duration;

use super::api::{Event, Held, Refusal, StoreNews};
use super::conns::Conns;
use super::cx::Cx;
use super::dht::{DhtQueue, Purpose};
use super::downloads::Downloads;
use super::timers::Timer;
use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::ids::{BlobName, ConnId, JobId, Root, Secret, Topic};
use crate::limits::CHANNELS_MAX;
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;
use crate::tree::{Shape, TreeRef};
use contents::{Contents, Effect, Place, Selection, SelectionError};
use heads::{Adopted, Followed, Heads};
pub(super) use messages::GetHead;
use swarms::{STANDALONE_VERSION, Swarms};

/// What channels work with.
pub(super) struct Env<'a, S: Suite> {
    cx: &'a mut Cx,
    conns: &'a mut Conns<S>,
    downloads: &'a mut Downloads,
    dht: &'a mut DhtQueue,
}

impl<'a, S: Suite> Env<'a, S> {
    pub(super) fn new(
        cx: &'a mut Cx,
        conns: &'a mut Conns<S>,
        downloads: &'a mut Downloads,
        dht: &'a mut DhtQueue,
    ) -> Self {
        Self { cx, conns, downloads, dht }
    }
}

/// The channels that are followed, and the swarms that stand alone.
pub(super) struct Channels {
    heads: Heads,
    swarms: Swarms,
    contents: Contents,
}

impl Channels {
    pub(super) fn new(shape: Shape, now: Instant) -> Self {
        Self { heads: Heads::new(shape), swarms: Swarms::new(now), contents: Contents::new() }
    }

    pub(super) fn opened(&mut self, conn: ConnId, now: Instant) {
        self.heads.opened(conn);
        self.swarms.opened(conn, now);
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.heads.closed(conn);
        self.swarms.closed(conn);
    }

    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    pub(super) fn swarms(&self) -> &Swarms {
        &self.swarms
    }

    pub(super) fn is_empty(&self) -> bool {
        self.swarms.len() == 0
    }

    // --- following ------------------------------------------------------------------------------------------

    /// Begins to follow a channel, or gives it the read key that was missing; the subscription outlives the process. Returns the
    /// job that makes it durable.
    pub(super) fn follow<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        key: Option<Secret>,
    ) -> Result<JobId, Refusal> {
        if self.heads.contradicts(&channel, key.as_ref()) {
            return Err(Refusal::WrongKey);
        }
        self.begin_to_follow(env, channel, key)?;
        self.note_awaited(env, channel);
        self.heads.remember(env.cx, channel).ok_or(Refusal::NotFollowed)
    }

    /// Follows a channel in which a head is about to be published, perhaps under another read key than before.
    pub(super) fn follow_own<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        key: Option<Secret>,
    ) -> Result<Topic, Refusal> {
        if self.begin_to_follow(env, channel, key)? {
            self.heads.remember(env.cx, channel);
        }
        self.note_awaited(env, channel);
        self.heads.topic(&channel).ok_or(Refusal::NotFollowed)
    }

    fn note_awaited<S: Suite>(&mut self, env: &mut Env<'_, S>, channel: PublicKey) {
        if let Some(topic) = self.heads.topic(&channel) {
            self.heads.note_awaited(env.cx, &channel);
            self.swarms.note_awaited(env.cx, &topic);
            env.dht.note_awaited(Purpose::Poll(channel), env.cx.now());
            env.dht.note_awaited(Purpose::Lookup(topic, topic.info_hash()), env.cx.now());
        }
    }

    /// `true`: there is something new to remember.
    fn begin_to_follow<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        read_key: Option<Secret>,
    ) -> Result<bool, Refusal> {
        let has_room = self.has_room();
        let followed = self.heads.follow(env.cx, channel, read_key, has_room);
        let followed = followed.ok_or(Refusal::TooManyChannels)?;
        match followed {
            Followed::Before => {}
            Followed::Newly(topic) => {
                self.swarms.join(env.cx, env.conns, topic, Some(channel));
                env.cx.set_timer_sooner(Timer::Swarm(topic), env.cx.now());
            }
            Followed::Moved(..) if self.heads.is_paused(&channel) => {}
            Followed::Moved(before, topic) => {
                self.drop_swarm(env, &before);
                self.swarms.join(env.cx, env.conns, topic, Some(channel));
                env.cx.set_timer_sooner(Timer::Swarm(topic), env.cx.now());
                if let Some(adopted) = self.heads.adopt_again(env.cx, channel) {
                    self.adopt(env, adopted);
                }
            }
        }
        env.cx.set_timer_sooner(Timer::Channel(channel), env.cx.now());
        Ok(followed != Followed::Before)
    }

    /// Whether another channel can be followed, or swarm joined.
    fn has_room(&self) -> bool {
        self.swarms.len() + self.heads.count_paused() < CHANNELS_MAX
    }

    /// Takes a channel back from its record. `false`: it does not parse, or there is no room for it.
    pub(super) fn restore<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        value: &[u8],
    ) -> bool {
        let Some((read_key, head, is_paused)) = Heads::read_record(channel, value) else { return false };
        if self.begin_to_follow(env, channel, read_key).is_err() {
            return false;
        }
        if is_paused {
            self.stop(env, channel);
        }
        if let Some(adopted) = head.and_then(|head| self.heads.restore(env.cx, channel, head)) {
            self.adopt(env, adopted);
        }
        true
    }

    /// Stops following a channel; the job that deletes its record.
    pub(super) fn unfollow<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
    ) -> Result<JobId, Refusal> {
        self.contents.forget_selection(&channel);
        let (topic, job) = self.heads.unfollow(env.cx, &channel).ok_or(Refusal::NotFollowed)?;
        env.cx.cancel_timer(Timer::Channel(channel));
        let is_of = |p: &Purpose| [Purpose::Poll(channel), Purpose::Reput(channel)].contains(p);
        env.dht.forget(is_of);
        self.drop_swarm(env, &topic);
        self.swarms.rewatch_all(env.cx, env.conns);
        Ok(job)
    }

    /// What is fetched of a channel, in this version and later ones.
    pub(super) fn select<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        selection: Selection,
    ) -> Result<(), SelectionError> {
        let topic = self.heads.topic(&channel).filter(|_| !self.heads.is_paused(&channel));
        let head = self.heads.read(&channel).map(|head| head.content);
        let effects = self.contents.select(channel, topic, selection, head)?;
        if let Some(topic) = topic {
            self.on_content(env, topic, effects);
        }
        Ok(())
    }

    /// All that is selected of a channel is looked up in the store again.
    pub(super) fn look_up_anew<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: &PublicKey,
    ) -> Result<(), Refusal> {
        let topic = self.heads.topic(channel).ok_or(Refusal::NotFollowed)?;
        if let Some(head) = self.heads.read(channel).filter(|_| !self.heads.is_paused(channel)) {
            let effects = self.contents.look_up_anew(topic, head.content);
            self.on_content(env, topic, effects);
        }
        Ok(())
    }

    /// A user asks for a newer head.
    pub(super) fn look_up_head<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: &PublicKey,
    ) -> Result<(), Refusal> {
        self.heads.topic(channel).ok_or(Refusal::NotFollowed)?;
        self.heads.poll_soon(env.cx, channel);
        Ok(())
    }

    /// Becomes part of a swarm without a head, or changes what is fetched of it.
    pub(super) fn join<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        topic: Topic,
        tree: TreeRef,
        selection: Selection,
    ) -> Result<(), SelectionError> {
        self.may_join(&topic, &tree, &selection)?;
        let now = env.cx.now();
        env.cx.set_timer_sooner(Timer::Swarm(topic), now);
        if !self.swarms.join(env.cx, env.conns, topic, None) {
            let effects = self.contents.select_tree(topic, tree, selection);
            self.on_content(env, topic, effects);
            return Ok(());
        }
        env.dht.announce(Purpose::Announce(topic.info_hash()), now);
        self.swarms.seek(env.cx, &topic);
        self.swarms.note_awaited(env.cx, &topic);
        let effects = self.contents.begin_tree(now, topic, STANDALONE_VERSION, tree, selection);
        self.on_content(env, topic, effects);
        Ok(())
    }

    fn may_join(&self, topic: &Topic, tree: &TreeRef, selection: &Selection) -> Result<(), SelectionError> {
        selection.check()?;
        match self.swarms.contains(topic) {
            true if self.swarms.channel(topic).is_some() => Err(SelectionError::IsChannel),
            false if self.heads.is_of_paused(topic) => Err(SelectionError::IsChannel),
            true if !self.contents.is_about(topic, tree) => Err(SelectionError::OtherTree),
            false if !self.has_room() => Err(SelectionError::TooManySwarms),
            _ => Ok(()),
        }
    }

    /// Leaves a swarm without a head.
    pub(super) fn leave<S: Suite>(&mut self, env: &mut Env<'_, S>, topic: Topic) -> Result<(), Refusal> {
        if !self.swarms.contains(&topic) || self.swarms.channel(&topic).is_some() {
            return Err(Refusal::NotFollowed);
        }
        self.drop_swarm(env, &topic);
        self.swarms.rewatch_all(env.cx, env.conns);
        Ok(())
    }

    /// A swarm is of no interest any more.
    fn drop_swarm<S: Suite>(&mut self, env: &mut Env<'_, S>, topic: &Topic) {
        self.drop_content(env, topic);
        env.downloads.cancel_wants(env.cx, env.conns, topic);
        self.swarms.leave(topic);
        env.dht.stop_announcing(Purpose::Announce(topic.info_hash()));
        env.dht.forget(|purpose| matches!(purpose, Purpose::Lookup(of, _) if of == topic));
        env.cx.cancel_timer(Timer::Swarm(*topic));
    }

    fn drop_content<S: Suite>(&mut self, env: &mut Env<'_, S>, topic: &Topic) {
        for hash in self.contents.drop_content(topic) {
            env.dht.stop_announcing(Purpose::AnnounceBlob(hash));
        }
        env.downloads.drop_wants(topic);
    }

    // --- heads ----------------------------------------------------------------------------------------------

    /// A signed document from elsewhere.
    pub(super) fn offer_document(&mut self, cx: &mut Cx, channel: PublicKey, document: Vec<u8>) {
        self.heads.offer_document(cx, channel, document);
    }

    /// A properly signed item.
    pub(super) fn offer(&mut self, cx: &mut Cx, item: SignedItem) {
        let (channel, head) = (item.key, heads::HeldHead::of_item(item));
        self.heads.offer(cx, channel, head);
    }

    /// A head that we signed. `false`: it cannot be used.
    pub(super) fn accept_own(&mut self, cx: &mut Cx, item: SignedItem) -> bool {
        self.heads.accept_own(cx, item)
    }

    /// A head is durable, or the store did not take it: then it is tried again, unless it is `given_up`. `true`: it is used
    /// from here on.
    pub(super) fn on_persisted<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        (channel, sequence): (PublicKey, u64),
        durable: bool,
        given_up: bool,
    ) -> bool {
        let adopted = self.heads.on_persisted(env.cx, (channel, sequence), durable, given_up);
        let is_head = matches!(adopted, Some(Adopted::Head { .. }));
        if let Some(adopted) = adopted {
            self.adopt(env, adopted);
            if !self.heads.is_paused(&channel) {
                self.heads.spread(env.conns, &self.swarms, channel);
            }
        }
        is_head
    }

    /// The head that came while another one was being made durable has its turn.
    pub(super) fn offer_next(&mut self, cx: &mut Cx, channel: PublicKey) {
        self.heads.offer_next(cx, channel);
    }

    /// A durable head: what it names is fetched.
    fn adopt<S: Suite>(&mut self, env: &mut Env<'_, S>, adopted: Adopted) {
        let Adopted::Head { channel, topic, sequence, content } = adopted else { return };
        let now = env.cx.now();
        if self.heads.is_paused(&channel) {
            return env.cx.event(Event::Head { channel, sequence });
        }
        self.drop_content(env, &topic);
        env.dht.announce(Purpose::Announce(topic.info_hash()), now);
        env.cx.event(Event::Head { channel, sequence });
        self.swarms.seek(env.cx, &topic);
        let effects = self.contents.begin(now, topic, channel, sequence, content);
        self.on_content(env, topic, effects);
        env.cx.set_timer_sooner(Timer::Channel(channel), now);
        env.cx.set_timer_sooner(Timer::Swarm(topic), now);
    }

    /// A channel's head is being looked up by others than its upkeep, whose next look-up is due an interval later.
    pub(super) fn note_looked_up(&mut self, cx: &Cx, channel: PublicKey) {
        self.heads.on_dht_started(cx, Purpose::Poll(channel));
    }

    /// We have put the newest head.
    pub(super) fn note_put<S: Suite>(&mut self, env: &mut Env<'_, S>, channel: &PublicKey) {
        self.heads.note_put(env.cx, channel);
        if let Some(topic) = self.heads.topic(channel) {
            self.report_satisfied(env, topic);
        }
    }

    // --- contents -------------------------------------------------------------------------------------------

    /// The store's word on which blobs are stored.
    pub(super) fn on_have_job<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        (topic, fetch): (Topic, u64),
        ids: &[BlobName],
        have: &[Held],
    ) {
        let effects = self.contents.on_have(topic, fetch, ids, have);
        self.on_content(env, topic, effects);
    }

    /// A blob was opened, or could not be.
    pub(super) fn on_opened<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        (topic, fetch): (Topic, u64),
        id: BlobName,
        plain: Option<&[u8]>,
    ) {
        let effects = self.contents.on_opened(topic, fetch, id, plain);
        self.on_content(env, topic, effects);
    }

    /// A blob that was to be opened is out of reach.
    pub(super) fn on_out_of_reach<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        (topic, fetch): (Topic, u64),
        name: BlobName,
    ) {
        let effects = self.contents.on_out_of_reach(topic, fetch, name);
        self.on_content(env, topic, effects);
    }

    /// The store has news that no job asked for.
    pub(super) fn on_store_news<S: Suite>(&mut self, env: &mut Env<'_, S>, news: StoreNews) {
        if news == StoreNews::Damaged {
            self.contents.on_damaged();
        }
        for topic in self.contents.topics() {
            let again = if news == StoreNews::Back { self.contents.look_again(topic) } else { Vec::new() };
            self.on_content(env, topic, again);
        }
    }

    /// A blob that was wanted at a place is stored.
    pub(super) fn on_stored<S: Suite>(&mut self, env: &mut Env<'_, S>, place: &Place, id: BlobName) {
        let effects = self.contents.on_stored(*place.topic(), id);
        self.on_content(env, *place.topic(), effects);
    }

    /// A blob that was wanted at a place is here, but is not what its reference promises.
    pub(super) fn on_unfit<S: Suite>(&mut self, env: &mut Env<'_, S>, place: &Place, name: BlobName) {
        let effects = self.contents.on_unfit(*place.topic(), name);
        self.on_content(env, *place.topic(), effects);
    }

    /// Whether others are known by a stored blob.
    pub(super) fn is_index(&self, root: &Root) -> bool {
        self.contents.is_index(root)
    }

    /// A part takes so long to come.
    pub(super) fn set_part_time(&mut self, time: Duration) {
        self.swarms.set_part_time(time);
    }

    /// Parts of a blob that is wanted at a place are here: peers are told.
    pub(super) fn on_parts<S: Suite>(&mut self, env: &mut Env<'_, S>, place: &Place, mask: Mask) {
        if self.swarms.on_parts(place.topic(), place.position(), mask) {
            self.swarms.tell_stored(env.cx, env.conns, *place.topic());
        }
    }

    /// The store is without a blob that a peer asked for: it may be one of a swarm that both are in, or one that v5 peers look
    /// for.
    pub(super) fn on_asked_in_vain<S: Suite>(&mut self, env: &mut Env<'_, S>, conn: ConnId) {
        let (is_v6, swarms) = (env.conns.speaks_v6(conn), &self.swarms);
        let may_mean = |topic: &Topic, has_chunks: bool| {
            if is_v6 { swarms.is_shared(conn, topic) } else { has_chunks }
        };
        self.contents.on_asked_in_vain(env.cx, may_mean);
    }

    /// Does what a content asks for.
    fn on_content<S: Suite>(&mut self, env: &mut Env<'_, S>, topic: Topic, effects: Vec<Effect>) {
        let mut has_more = false;
        for effect in effects {
            match effect {
                Effect::Job(pending, job) => {
                    env.cx.job(pending, job);
                }
                Effect::Event(event) => env.cx.event(event),
                Effect::Want(wanted, place) => {
                    if env.downloads.is_empty() {
                        env.cx.set_timer_sooner(Timer::Swarm(topic), env.cx.now());
                    }
                    env.downloads.want(&wanted, place);
                    self.swarms.on_missing(env.conns, topic);
                }
                Effect::Claims(claims) => env.cx.note_ids(claims),
                Effect::DropWants => env.downloads.drop_wants_soon(env.cx.now(), &topic),
                Effect::HasChunks(has_chunks) => self.swarms.set_has_chunks(&topic, has_chunks),
                Effect::Version(version, progress) => {
                    self.swarms.begin_version(env.cx, env.conns, topic, version, progress);
                }
                Effect::Progress(progress) => has_more = self.swarms.on_progress(topic, progress),
                Effect::TakeBack => self.swarms.take_back_all(env.cx, topic),
                Effect::AskHave => self.swarms.ask_all(env.conns, topic),
                Effect::Seek => {
                    self.swarms.seek(env.cx, &topic);
                    env.cx.set_timer_sooner(Timer::Swarm(topic), env.cx.now());
                }
            }
        }
        self.report_satisfied(env, topic);
        if has_more {
            self.swarms.tell_stored(env.cx, env.conns, topic);
        }
        if let Some(due) = self.contents.due(&topic) {
            env.cx.set_timer_sooner(Timer::Swarm(topic), due);
        }
    }

    /// A content is satisfied when all that is selected of the newest version is stored, and that is known to be the newest.
    fn report_satisfied<S: Suite>(&mut self, env: &mut Env<'_, S>, topic: Topic) {
        let channel = self.swarms.channel(&topic);
        if channel.is_some_and(|channel| !self.heads.is_newest_known(&channel)) {
            return;
        }
        if let Some((event, chunks)) = self.contents.report_satisfied(topic) {
            let now = env.cx.now();
            let mut announced = chunks;
            announced.retain(|hash| env.dht.announce(Purpose::AnnounceBlob(*hash), now));
            self.contents.note_announced(&topic, announced);
            env.cx.event(event);
        }
    }

    // --- time -----------------------------------------------------------------------------------------------

    /// A channel's head is to be looked up or put. `is_own`: it is the node's own channel.
    pub(super) fn on_channel_timer<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        is_own: bool,
    ) {
        self.heads.on_timer(env.cx, env.dht, channel, is_own);
        if let Some(topic) = self.heads.topic(&channel) {
            self.report_satisfied(env, topic);
        }
        self.wait_for_channel(env.cx, channel);
    }

    fn wait_for_channel(&self, cx: &mut Cx, channel: PublicKey) {
        if let Some(due) = self.heads.due(&channel) {
            cx.set_timer(Timer::Channel(channel), due);
        }
    }

    /// A swarm's peers are to be looked up or asked again, or its content looked at. `true`: peers are needed more than
    /// before.
    pub(super) fn on_swarm_timer<S: Suite>(&mut self, env: &mut Env<'_, S>, topic: Topic) -> bool {
        let now = env.cx.now();
        let (stored, ..) = self.contents.numbers(&topic);
        let asks_again = self.swarms.is_to_ask_again(env.cx, &topic, stored);
        if asks_again {
            env.downloads.ask_all_again(env.conns, &self.swarms);
        }
        self.swarms.look_up(env.cx, env.dht, topic, env.downloads.queued(&topic));
        if self.contents.due(&topic).is_some_and(|due| due <= now) {
            let channel = self.swarms.channel(&topic);
            let head = channel.and_then(|channel| self.heads.read(&channel)).map(|head| head.content);
            let effects = self.contents.recheck(now, topic, head);
            self.on_content(env, topic, effects);
        }
        self.wait_for_swarm(env.cx, topic);
        asks_again
    }

    fn wait_for_swarm(&self, cx: &mut Cx, topic: Topic) {
        let due = [self.swarms.due(&topic), self.contents.due(&topic)];
        if let Some(due) = due.into_iter().flatten().min() {
            cx.set_timer(Timer::Swarm(topic), due);
        }
    }

    /// Peers may be told which swarms we are in, or what was stored since they were told last.
    pub(super) fn on_watch_timer<S: Suite>(&mut self, env: &mut Env<'_, S>) {
        self.swarms.rewatch_all(env.cx, env.conns);
    }

    pub(super) fn on_have_timer<S: Suite>(&mut self, env: &mut Env<'_, S>) {
        self.swarms.tell_due(env.cx, env.conns);
    }
}
