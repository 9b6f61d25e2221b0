//! The channels that are followed: their heads, their content, their swarms.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::api::{ChannelStatus, DhtError, DhtOp, Event, Job, JobResult};
use super::dht::{Class, Purpose};
use super::fetch::{Ask, Fetch};
use super::recheck::Recheck;
use super::{Node, Pending, STORE_RETRY, Timer, record};
use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::ids::{BlobId, InfoHash, JobId, Secret, Topic};
use crate::limits::{
    ANNOUNCE_INTERVAL, ASK_AGAIN_INTERVAL, BLOB_LOOKUPS, CHANNELS_MAX, DHT_RETRY_INTERVAL, FRESH_COPIES_MIN,
    GOSSIP_POLL_INTERVAL, HEAD_POLL_INTERVAL, HEAD_RETRY_INTERVAL, ITEM_LIFETIME, LOOKUP_INTERVAL_MAX,
    LOOKUP_INTERVAL_MIN, REPUT_INTERVAL,
};
use crate::manifest::{Head, HeadContent, HeadError};
use crate::suite::Suite;
use crate::time::Instant;
use crate::uri;

/// A followed channel.
pub(super) struct Channel {
    pub(super) read_key: Option<Secret>,
    pub(super) topic: Topic,
    /// The highest sequence that is durable; 0 before the first.
    pub(super) sequence: u64,
    /// Its head.
    pub(super) item: Option<SignedItem>,
    root: Option<crate::tree::TreeRef>,
    /// A newer head that is being made durable.
    accepting: Option<(SignedItem, Head)>,
    /// A still newer one, for afterwards.
    next: Option<SignedItem>,
    /// One that the store did not take, and when it is tried again: nobody may offer it a second time.
    untaken: Option<(Instant, SignedItem)>,
    refused: Option<(i64, HeadError)>,
    fork_reported: Option<i64>,
    /// When the head is looked up next. As with the other two look-ups and puts below, `None`: it waits for its turn, and when
    /// it starts, the next one is due an interval later.
    poll_due: Option<Instant>,
    /// How soon it is looked up again while none is known.
    poll_interval: Duration,
    polled: Instant,
    /// The highest sequence in the look-up under way, and how many nodes gave it.
    poll_best: Option<(i64, usize)>,
    /// When a look-up last found the newest head, and how many nodes gave it.
    copies: Option<(Instant, usize)>,
    poll_error: Option<DhtError>,
    /// A look-up has ended, so that the newest head is known, as far as the DHT knows it.
    is_looked_up: bool,
    put_due: Option<Instant>,
    /// When we last put the head.
    put: Option<Instant>,
    /// When peers are looked up next.
    lookup_due: Option<Instant>,
    /// How soon they are looked up again while there is no head, or blobs lack and none arrive.
    lookup_interval: Duration,
    /// When peers that lacked blobs are asked again, if none arrive until then, and how long after the last time.
    ask_due: Option<Instant>,
    ask_interval: Duration,
    /// Blobs stored then.
    ask_stored: u64,
    fetch: Option<Fetch>,
    /// It fetches what the store has lost: the manifest and its files were told of before.
    is_refetch: bool,
    pub(super) recheck: Recheck,
    /// Some blob of the newest version is not stored.
    is_lacking: bool,
    complete_reported: bool,
    announced: Vec<InfoHash>,
}

impl Channel {
    fn new(channel: PublicKey, read_key: Option<Secret>, now: Instant) -> Self {
        Self {
            topic: uri::topic(&channel, read_key.as_ref()),
            read_key,
            sequence: 0,
            item: None,
            root: None,
            accepting: None,
            next: None,
            untaken: None,
            refused: None,
            fork_reported: None,
            poll_due: Some(now),
            poll_interval: HEAD_RETRY_INTERVAL,
            polled: now,
            poll_best: None,
            copies: None,
            poll_error: None,
            is_looked_up: false,
            put_due: None,
            put: None,
            lookup_due: Some(now),
            lookup_interval: LOOKUP_INTERVAL_MIN,
            ask_due: None,
            ask_interval: LOOKUP_INTERVAL_MIN,
            ask_stored: 0,
            fetch: None,
            is_refetch: false,
            recheck: Recheck::new(now),
            is_lacking: false,
            complete_reported: false,
            announced: Vec::new(),
        }
    }

    /// Whether the last look-up found the newest head on the DHT.
    pub(super) fn is_found(&self) -> bool {
        self.copies.is_some()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.fetch.as_ref().is_some_and(Fetch::is_complete)
    }

    /// Whether v5 peers look for its chunks.
    pub(super) fn has_announced_chunks(&self) -> bool {
        !self.announced.is_empty()
    }

    /// Blobs that were stored are to be fetched again.
    pub(super) fn refetch(&mut self, fetch: Fetch, now: Instant) {
        (self.fetch, self.is_refetch) = (Some(fetch), true);
        (self.is_lacking, self.complete_reported) = (false, false);
        self.seek_peers(now);
    }

    /// Blobs lack as of now: peers are looked up and asked often at first.
    fn seek_peers(&mut self, now: Instant) {
        (self.lookup_due, self.lookup_interval) = (Some(now), LOOKUP_INTERVAL_MIN);
        (self.ask_due, self.ask_interval) = (Some(now), LOOKUP_INTERVAL_MIN);
    }

    /// Whether a head is newer than all that is known, or shows that the author signed two of one sequence.
    pub(super) fn is_news(&self, item: &SignedItem) -> bool {
        self.newest().is_none_or(|known| {
            let is_fork = item.seq == known.seq && item.value != known.value;
            item.seq > known.seq || (is_fork && self.fork_reported != Some(item.seq))
        })
    }

    pub(super) fn fetch(&self) -> Option<&Fetch> {
        self.fetch.as_ref()
    }

    /// The version of which blobs lack.
    pub(super) fn lacks(&self) -> Option<u64> {
        self.fetch
            .as_ref()
            .filter(|fetch| self.is_lacking && !fetch.is_complete())
            .map(|fetch| fetch.sequence)
    }

    /// Single blobs to look up beside the topic: those that only v5 peers may have.
    fn blobs_looked_up(&self) -> usize {
        let has_chunks =
            self.fetch.as_ref().is_some_and(|f| !f.is_complete() && f.chunk_ids().next().is_some());
        if has_chunks { BLOB_LOOKUPS } else { 0 }
    }

    /// How long after a look-up of peers the next is due, where so many channels are followed: the rarer the more often none
    /// brought a blob; of a complete channel now and then, for the sake of news.
    fn next_lookup(&mut self, channels: usize) -> Duration {
        let most = if self.is_complete() { ANNOUNCE_INTERVAL } else { LOOKUP_INTERVAL_MAX };
        let most = most.max(Class::Lookup.time_for(channels * (1 + self.blobs_looked_up())));
        let next = if self.is_complete() { most } else { self.lookup_interval };
        self.lookup_interval = (next * 2).min(most);
        next
    }

    /// Whether enough DHT nodes hold the newest head, and surely not by our own put (BEP 44): a copy does not tell its age,
    /// so whoever's put it may be keeps it alive, and puts it again.
    fn others_keep_it(&self, now: Instant, poll_interval: Duration) -> bool {
        let is_seen = self
            .copies
            .is_some_and(|(at, copies)| copies >= FRESH_COPIES_MIN && now.since(at) <= 2 * poll_interval);
        is_seen && self.put.is_none_or(|put| now.since(put) >= ITEM_LIFETIME)
    }

    /// The sequence of the newest head known, durable or about to be; 0 for none.
    pub(super) fn newest_seq(&self) -> u64 {
        self.newest().map_or(0, |item| item.seq.unsigned_abs())
    }

    /// The newest head known, durable or about to be.
    fn newest(&self) -> Option<&SignedItem> {
        self.accepting.as_ref().map(|(item, _)| item).or(self.item.as_ref())
    }
}

impl<S: Suite> Node<S> {
    /// Begins to follow a channel, or gives it the read key that it lacked.
    pub(super) fn follow(&mut self, channel: PublicKey, read_key: Option<Secret>) {
        if self.begin_to_follow(channel, read_key) {
            // The subscription outlives the process, also where no head is known yet.
            let item = self.channels.get(&channel).and_then(|c| c.item.clone());
            self.persist_channel(Pending::Record, channel, item.as_ref());
        }
    }

    /// `true`: there is something new to remember.
    fn begin_to_follow(&mut self, channel: PublicKey, read_key: Option<Secret>) -> bool {
        let now = self.now;
        let is_new = !self.channels.contains_key(&channel);
        if is_new && self.channels.len() >= CHANNELS_MAX {
            let error = HeadError::Malformed("too many channels are followed");
            self.event(Event::HeadRefused { channel, error });
            return false;
        }
        let state = self
            .channels
            .entry(channel)
            .or_insert_with(|| Box::new(Channel::new(channel, read_key.clone(), now)));
        let is_new_key = read_key.is_some() && state.read_key != read_key;
        if is_new_key {
            // Another key means another swarm, and heads that can now be read.
            state.topic = uri::topic(&channel, read_key.as_ref());
            state.read_key = read_key;
            state.refused = None;
            (state.poll_due, state.lookup_due) = (Some(now), Some(now));
            self.watch_anew();
        } else if is_new {
            self.watch_anew();
        }
        self.timers.set_sooner(Timer::Channel(channel), now);
        is_new || is_new_key
    }

    /// Takes a channel back from its record.
    pub(super) fn restore_channel(&mut self, channel: PublicKey, value: &[u8]) -> bool {
        let Some((read_key, item)) = record::decode_channel(channel, value) else { return false };
        self.begin_to_follow(channel, read_key.clone());
        if let Some(item) = item {
            match Head::from_json_in(S::SHAPE, &channel, read_key.as_ref(), &item.value) {
                Ok(head) => self.adopt(channel, item, head),
                Err(error) => self.event(Event::HeadRefused { channel, error }),
            }
        }
        true
    }

    // --- heads ------------------------------------------------------------------------------------------------

    pub(super) fn on_dht_item(&mut self, job: JobId, item: SignedItem) {
        let Some(purpose) = self.dht.purpose(job) else { return };
        // Many nodes hold the head that is known; its signature was checked when it came first.
        let newest = self.channels.get(&item.key).and_then(|c| c.newest());
        if newest != Some(&item) && !item.verify() {
            return;
        }
        match purpose {
            Purpose::Poll(channel) if item.key == channel => {
                if let Some(state) = self.channels.get_mut(&channel) {
                    let (best, copies) = state.poll_best.unwrap_or((item.seq, 0));
                    if item.seq >= best {
                        let copies = if item.seq == best { copies } else { 0 };
                        state.poll_best = Some((item.seq, copies + 1));
                    }
                }
                self.offer_head(item);
            }
            Purpose::Publish => self.on_publish_item(&item),
            Purpose::LookUpHead(channel) if item.key == channel => self.on_looked_up_item(channel, &item),
            _ => {}
        }
    }

    /// We have put the newest head, so it is ours to keep.
    pub(super) fn note_put(&mut self, channel: &PublicKey) {
        if let Some(state) = self.channels.get_mut(channel) {
            state.put = Some(self.now);
        }
    }

    /// A properly signed item of a followed channel: taken if it is newer than all that is known.
    pub(super) fn offer_head(&mut self, item: SignedItem) {
        let channel = item.key;
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if let Some(known) = state.newest() {
            if item.seq == known.seq && item.value != known.value && state.fork_reported != Some(item.seq) {
                state.fork_reported = Some(item.seq);
                return self.event(Event::Fork { channel, sequence: item.seq.unsigned_abs() });
            }
            if item.seq <= known.seq {
                return;
            }
        }
        match Head::from_item_in(S::SHAPE, &item, state.read_key.as_ref(), state.newest_seq()) {
            Err(error) if state.refused == Some((item.seq, error)) => {}
            Err(error) => {
                state.refused = Some((item.seq, error));
                self.event(Event::HeadRefused { channel, error });
            }
            Ok(_) if state.accepting.is_some() => {
                if state.next.as_ref().is_none_or(|next| next.seq < item.seq) {
                    state.next = Some(item);
                }
            }
            Ok(head) => self.make_durable(item, head),
        }
    }

    /// A head that we signed ourselves.
    pub(super) fn accept_own_head(&mut self, item: SignedItem) {
        let read_key = self.channels.get(&item.key).and_then(|c| c.read_key.clone());
        match Head::from_json_in(S::SHAPE, &item.key, read_key.as_ref(), &item.value) {
            Ok(head) => self.make_durable(item, head),
            Err(_) => self.on_own_head_persisted(item.key, false),
        }
    }

    /// The sequence is stored before the head is used, so that a restart cannot be rolled back.
    fn make_durable(&mut self, item: SignedItem, head: Head) {
        let channel = item.key;
        self.persist_channel(Pending::Head(channel), channel, Some(&item));
        if let Some(state) = self.channels.get_mut(&channel) {
            state.accepting = Some((item, head));
        }
    }

    pub(super) fn on_head_persisted(&mut self, channel: PublicKey, durable: bool) {
        let is_own = self.is_storing_own(&channel);
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let Some((item, head)) = state.accepting.take() else { return };
        let next = state.next.take();
        if durable {
            self.adopt(channel, item, head);
            self.spread_head(channel);
            self.announce_own();
        } else if !is_own {
            let due = self.now + STORE_RETRY;
            state.untaken = Some((due, item));
            self.timers.set_sooner(Timer::Channel(channel), due);
        }
        self.on_own_head_persisted(channel, durable);
        if let Some(next) = next {
            self.offer_head(next);
        }
    }

    /// A durable head: fetch what it names.
    fn adopt(&mut self, channel: PublicKey, item: SignedItem, head: Head) {
        let now = self.now;
        let poll_interval = self.poll_interval();
        let Some(state) = self.channels.get_mut(&channel) else { return };
        state.sequence = head.sequence;
        state.item = Some(item);
        state.root = if let HeadContent::Root(root) = &head.content { Some(root.clone()) } else { None };
        state.put_due = Some(now + REPUT_INTERVAL);
        state.copies = None;
        let polled = state.polled;
        state.poll_due =
            state.poll_due.map(|due| if due > now { due.max(polled + poll_interval) } else { due });
        state.seek_peers(now);
        state.complete_reported = false;
        for hash in core::mem::take(&mut state.announced) {
            self.dht.stop_announcing(Purpose::AnnounceBlob(hash));
        }
        self.dht.announce(Purpose::Announce(state.topic.info_hash()), now);
        self.scheduler.drop_owner(&channel);
        self.event(Event::Head { channel, sequence: head.sequence });
        let mut asks = Vec::new();
        let fetch = Fetch::new(channel, head.sequence, head.content, &mut asks);
        if let Some(state) = self.channels.get_mut(&channel) {
            (state.fetch, state.is_refetch, state.is_lacking) = (Some(fetch), false, false);
            state.recheck = Recheck::new(now);
        }
        self.begin_holders(channel, head.sequence);
        self.on_asks(channel, asks);
        self.timers.set_sooner(Timer::Channel(channel), now);
    }

    /// Peers named their newest sequences.
    pub(super) fn on_gossip(&mut self, sequences: &BTreeMap<PublicKey, u64>) {
        for (channel, sequence) in sequences {
            let Some(state) = self.channels.get_mut(channel) else { continue };
            if *sequence > state.newest_seq()
                && let Some(due) = &mut state.poll_due
            {
                *due = (*due).min(self.now.max(state.polled + GOSSIP_POLL_INTERVAL));
                self.timers.set_sooner(Timer::Channel(*channel), *due);
            }
        }
    }

    // --- content ----------------------------------------------------------------------------------------------

    /// Lets a channel's fetch go on, and does what it then asks for.
    pub(super) fn with_fetch(&mut self, channel: PublicKey, step: impl FnOnce(&mut Fetch, &mut Vec<Ask>)) {
        let Some(fetch) = self.channels.get_mut(&channel).and_then(|c| c.fetch.as_mut()) else { return };
        let mut asks = Vec::new();
        let stored = fetch.stored.len();
        step(fetch, &mut asks);
        let (has_more, total) = (fetch.stored.len() > stored || fetch.is_complete(), fetch.blobs_total);
        if fetch.is_complete() {
            fetch.stored.forget();
        }
        self.note_total(channel, total);
        self.on_asks(channel, asks);
        if has_more {
            self.tell_stored(channel);
        }
    }

    /// [`Self::with_fetch`], unless a fetch of another version has taken its place: an answer for the one is none for the
    /// other.
    pub(super) fn with_fetch_of(
        &mut self,
        channel: PublicKey,
        sequence: u64,
        step: impl FnOnce(&mut Fetch, &mut Vec<Ask>),
    ) {
        let is_it = |fetch: &Fetch| fetch.sequence == sequence;
        let Some(state) = self.channels.get(&channel) else { return };
        // A look-up runs only where the fetch is complete, and waits for nothing.
        if state.recheck.fetch.as_ref().is_some_and(is_it) {
            self.with_recheck(channel, step);
        } else if state.fetch.as_ref().is_some_and(is_it) {
            self.with_fetch(channel, step);
        }
    }

    pub(super) fn on_asks(&mut self, channel: PublicKey, asks: Vec<Ask>) {
        let state = self.channels.get(&channel);
        let sequence = state.and_then(|c| c.fetch()).map_or(0, |fetch| fetch.sequence);
        let is_refetch = state.is_some_and(|state| state.is_refetch);
        for ask in asks {
            match ask {
                Ask::Have(ids) => self.job(Pending::Have(channel, sequence, ids.clone()), Job::Have(ids)),
                Ask::Open(link) => self.job(Pending::Open(channel, sequence, link.id), Job::OpenBlob(link)),
                Ask::Want(id, place) => {
                    if self.scheduler.is_empty() {
                        self.timers.set_sooner(Timer::Channel(channel), self.now);
                    }
                    self.scheduler.want(id, place);
                    self.assign_due = true;
                    self.on_lacking(channel);
                }
                Ask::Event(Event::Manifest { .. } | Event::FileComplete { .. }) if is_refetch => {}
                Ask::Event(event) => self.event(event),
            }
        }
        self.report_complete(channel);
    }

    /// A blob of the newest version lacks: for the first, peers are asked what they have.
    fn on_lacking(&mut self, channel: PublicKey) {
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if !core::mem::replace(&mut state.is_lacking, true) {
            self.ask_who_has(channel);
        }
    }

    /// A channel is complete when all blobs of its newest head are stored, and that head is known to be the newest.
    fn report_complete(&mut self, channel: PublicKey) {
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let is_newest = state.is_looked_up && state.accepting.is_none();
        if !state.is_complete() || !is_newest || state.complete_reported {
            return;
        }
        state.complete_reported = true;
        let sequence = state.sequence;
        let chunks: Vec<BlobId> = state.fetch.iter().flat_map(Fetch::chunk_ids).collect();
        state.announced = chunks.iter().map(BlobId::info_hash).collect();
        for hash in chunks.iter().map(BlobId::info_hash) {
            self.dht.announce(Purpose::AnnounceBlob(hash), self.now);
        }
        self.event(Event::ChannelComplete { channel, sequence });
    }

    // --- the DHT ----------------------------------------------------------------------------------------------

    /// How often a known head is looked up.
    fn poll_interval(&self) -> Duration {
        HEAD_POLL_INTERVAL.max(Class::Poll.time_for(self.channels.len()))
    }

    pub(super) fn on_channel_timer(&mut self, channel: PublicKey) {
        let now = self.now;
        let is_due = |due: &mut Instant| *due <= now;
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if let Some((_, item)) = state.untaken.take_if(|(due, _)| *due <= now) {
            self.offer_head(item);
        }
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if state.poll_due.take_if(is_due).is_some()
            && !self.dht.push(now, Purpose::Poll(channel), DhtOp::Get(channel))
        {
            state.poll_due = Some(now + HEAD_RETRY_INTERVAL);
        }
        if state.put_due.take_if(is_due).is_some() {
            self.put_again(channel);
        }
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if state.ask_due.take_if(is_due).is_some() {
            self.ask_peers_again(channel);
        }
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if state.lookup_due.take_if(is_due).is_some() {
            self.look_up_peers(channel);
        }
        if self.channels.get(&channel).and_then(|state| state.recheck.due).is_some_and(|due| due <= now) {
            self.begin_recheck(channel);
        }
        self.wait_for_channel(channel);
    }

    /// Sets the timer for what is due next.
    fn wait_for_channel(&mut self, channel: PublicKey) {
        let Some(state) = self.channels.get(&channel) else { return };
        let untaken = state.untaken.as_ref().map(|(due, _)| *due);
        let due =
            [state.poll_due, state.put_due, state.ask_due, state.lookup_due, state.recheck.due, untaken];
        if let Some(next) = due.into_iter().flatten().min() {
            self.timers.set(Timer::Channel(channel), next);
        }
    }

    /// Puts the head again, unless others do.
    fn put_again(&mut self, channel: PublicKey) {
        let (now, poll_interval) = (self.now, self.poll_interval());
        let is_own = self.identity.as_ref().is_some_and(|identity| identity.public_key() == channel);
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let Some(item) = state.item.clone() else { return };
        if !is_own && state.others_keep_it(now, poll_interval) {
            state.put_due = Some(now + REPUT_INTERVAL);
        } else if !self.dht.put(now, Purpose::Reput(channel), item, None) {
            state.put_due = Some(now + DHT_RETRY_INTERVAL);
        }
    }

    /// While blobs lack and none arrive, peers are asked again for what they lacked; once some arrive, whoever is looked for
    /// afterwards is looked for often again.
    fn ask_peers_again(&mut self, channel: PublicKey) {
        let now = self.now;
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let Some(fetch) = state.fetch.as_ref().filter(|fetch| !fetch.is_complete()) else { return };
        let due = now + state.ask_interval;
        state.ask_due = Some(due);
        state.ask_interval = (state.ask_interval * 2).min(ASK_AGAIN_INTERVAL);
        let stored = core::mem::replace(&mut state.ask_stored, fetch.blobs_stored);
        if fetch.blobs_stored > stored {
            state.lookup_interval = LOOKUP_INTERVAL_MIN;
            state.lookup_due = state.lookup_due.map(|_| due);
        } else {
            self.conns.forget_lacks(now);
            self.assign_due = true;
            self.note_all();
        }
    }

    fn look_up_peers(&mut self, channel: PublicKey) {
        let (now, channels) = (self.now, self.channels.len());
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let topic = state.topic.info_hash();
        if !self.dht.push(now, Purpose::Lookup(channel, topic), DhtOp::Lookup(topic)) {
            state.lookup_due = Some(now + state.next_lookup(channels));
        }
        let blobs = self.scheduler.queued().take(state.blobs_looked_up());
        for hash in blobs.map(|id| id.info_hash()) {
            self.dht.push(now, Purpose::Lookup(channel, hash), DhtOp::Lookup(hash));
        }
    }

    /// An operation has started: the next of its kind is due an interval later, however long it has waited, so that
    /// channels that were all due at once are not all due at once again.
    pub(super) fn on_dht_started(&mut self, purpose: Purpose) {
        let (now, poll_interval, channels) = (self.now, self.poll_interval(), self.channels.len());
        let (Purpose::Poll(channel) | Purpose::Reput(channel) | Purpose::Lookup(channel, _)) = purpose else {
            return;
        };
        let Some(state) = self.channels.get_mut(&channel) else { return };
        match purpose {
            Purpose::Poll(_) => {
                let interval = if state.newest().is_some() { poll_interval } else { state.poll_interval };
                (state.polled, state.poll_due) = (now, Some(now + interval));
            }
            Purpose::Reput(_) => (state.put, state.put_due) = (Some(now), Some(now + REPUT_INTERVAL)),
            Purpose::Lookup(_, hash) if hash == state.topic.info_hash() => {
                state.lookup_due = Some(now + state.next_lookup(channels));
            }
            _ => {}
        }
        self.wait_for_channel(channel);
    }

    pub(super) fn on_dht_done(&mut self, job: JobId, result: &JobResult) {
        let Some(purpose) = self.dht.purpose(job) else { return };
        self.dht.finished(job);
        match (purpose, result) {
            (Purpose::Publish, result) => self.on_publish_done(result),
            (Purpose::Relay(key), result) => self.on_relay_done(key, result),
            (Purpose::Keep(key), JobResult::DhtPut(Err(DhtError::Stale))) => self.gateway.stop_keeping(&key),
            (Purpose::LookUpHead(channel), _) => self.on_head_looked_up(channel),
            (Purpose::Poll(channel), JobResult::DhtDone(done)) => self.on_poll_done(channel, done.err()),
            // Without a DHT nothing is tried sooner.
            (_, JobResult::DhtDone(Err(DhtError::Disabled)) | JobResult::DhtPut(Err(DhtError::Disabled))) => {
            }
            (Purpose::Announce(_) | Purpose::AnnounceBlob(_), JobResult::DhtDone(Err(_))) => {
                self.dht.retry_announce(purpose, self.now + DHT_RETRY_INTERVAL);
            }
            // Somebody has a newer head (the next look-up finds it), or nobody answers.
            (Purpose::Reput(channel), JobResult::DhtPut(Err(_))) => self.retry(channel, |c| &mut c.put_due),
            (Purpose::Lookup(channel, _), JobResult::DhtDone(Err(_))) => {
                self.retry(channel, |c| &mut c.lookup_due);
            }
            _ => {}
        }
    }

    /// What failed is due again before long.
    fn retry(&mut self, channel: PublicKey, due: impl Fn(&mut Channel) -> &mut Option<Instant>) {
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if let Some(due) = due(state) {
            *due = (*due).min(self.now + DHT_RETRY_INTERVAL);
            self.timers.set_sooner(Timer::Channel(channel), *due);
        }
    }

    fn on_poll_done(&mut self, channel: PublicKey, error: Option<DhtError>) {
        let (now, poll_interval) = (self.now, self.poll_interval());
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let best = state.poll_best.take();
        state.poll_error = error;
        // Without a DHT there is nothing newer to be learnt from it.
        state.is_looked_up |= matches!(error, None | Some(DhtError::Disabled));
        match state.newest().map(|item| item.seq) {
            None => {
                state.poll_interval = (state.poll_interval * 2).min(poll_interval);
                self.event(Event::HeadNotFound { channel, error });
            }
            Some(seq) if error.is_none() && best.is_none_or(|(best, _)| best < seq) => {
                state.copies = None;
                // The DHT has lost our head or holds an older one.
                let soon = state.put.map_or(now, |put| now.max(put + DHT_RETRY_INTERVAL));
                if let Some(due) = &mut state.put_due {
                    *due = soon.min(*due);
                    self.timers.set_sooner(Timer::Channel(channel), *due);
                }
            }
            Some(seq) => {
                state.copies = best.filter(|(best, _)| *best == seq).map(|(_, copies)| (now, copies));
            }
        }
        self.report_complete(channel);
    }

    // --- for a user's eyes ------------------------------------------------------------------------------------

    /// A followed channel's state.
    pub fn channel_status(&self, channel: &PublicKey) -> Option<ChannelStatus> {
        let state = self.channels.get(channel)?;
        let count = |f: fn(&Fetch) -> u64| state.fetch.as_ref().map_or(0, f);
        let complete = state.is_complete() && state.is_looked_up && state.accepting.is_none();
        Some(ChannelStatus {
            channel: *channel,
            private: state.read_key.is_some(),
            sequence: state.sequence,
            blobs_stored: count(|f| f.blobs_stored),
            blobs_total: count(|f| f.blobs_total),
            content_bytes: count(|f| f.content_bytes),
            complete,
            waiting: (!complete).then(|| self.waiting(state)),
            root: state.root.clone(),
        })
    }

    /// What a channel waits for: "no peers" says why.
    fn waiting(&self, state: &Channel) -> String {
        if let (None, Some((_, error))) = (&state.item, state.refused) {
            return error.to_string();
        }
        let Some(fetch) = &state.fetch else {
            return match state.poll_error {
                Some(error) => format!("the channel's head: {error}"),
                None if state.is_looked_up => "the channel's head: the DHT has none".into(),
                None => "the channel's head: looking it up on the DHT".into(),
            };
        };
        if fetch.is_refused() || fetch.is_complete() {
            let what = if fetch.is_complete() {
                "the DHT's word that no newer head exists"
            } else {
                fetch.waiting()
            };
            return what.into();
        }
        let (open, usable) = self.usable();
        let peers = match (self.peers.known(), open, usable) {
            _ if self.store_rests => "the store has no room or fails".into(),
            (0, ..) => "no peer is known: nobody announced the channel and none was named".into(),
            (known, 0, _) => format!("{known} peers are known, none could be reached yet"),
            (_, open, 0) => format!("{open} peers are connected, none has what lacks"),
            (_, _, usable) => format!("{usable} peers are asked"),
        };
        format!("{}: {peers}", fetch.waiting())
    }
}
