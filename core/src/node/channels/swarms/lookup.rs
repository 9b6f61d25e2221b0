//! When the DHT is asked for peers of a swarm, and when connected ones are asked again for what they were missing.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::{State, Swarm, Swarms};
use crate::ids::{BlobId, InfoHash, Topic};
use crate::limits::{
    ANNOUNCE_INTERVAL, ASK_AGAIN_INTERVAL, AWAITED_TIME, BLOB_LOOKUPS, DHT_RETRY_INTERVAL,
    LOOKUP_INTERVAL_MAX, LOOKUP_INTERVAL_MIN,
};
use crate::node::api::DhtOp;
use crate::node::cx::Cx;
use crate::node::dht::{Class, DhtQueue, Purpose};
use crate::node::timers::Timer;
use crate::time::Instant;

pub(super) struct LookUp {
    /// When peers are looked up next. `None`: the look-up waits for its turn, and when it starts, the next one is due an
    /// interval later.
    due: Option<Instant>,
    /// How soon they are looked up again while there is no head, or blobs are missing and none arrive.
    interval: Duration,
    /// When peers that did not have the missing blobs are asked again, if none arrive until then, and how long after the
    /// last time.
    ask_due: Option<Instant>,
    ask_interval: Duration,
    /// Blobs stored then.
    ask_stored: u64,
    /// Since when a user waits for them.
    awaited: Option<Instant>,
    /// Single blobs to look up beside the topic: those that only v5 peers may have.
    has_chunks: bool,
}

impl LookUp {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: Some(now),
            interval: LOOKUP_INTERVAL_MIN,
            ask_due: None,
            ask_interval: LOOKUP_INTERVAL_MIN,
            ask_stored: 0,
            awaited: None,
            has_chunks: false,
        }
    }

    /// Blobs are missing as of now: peers are looked up and asked often at first.
    fn seek(&mut self, now: Instant) {
        (self.due, self.interval) = (Some(now), LOOKUP_INTERVAL_MIN);
        (self.ask_due, self.ask_interval) = (Some(now), LOOKUP_INTERVAL_MIN);
    }
}

impl Swarm {
    fn blobs_looked_up(&self) -> usize {
        if self.look_up.has_chunks && !self.state.is_satisfied() { BLOB_LOOKUPS } else { 0 }
    }

    /// How long after a look-up of peers the next is due, in a node of this many swarms: the rarer the more often none
    /// brought a blob; of a complete one now and then, for the sake of news.
    fn next_look_up(&mut self, swarms: usize) -> Duration {
        let is_all = self.state.is_satisfied();
        let most = if is_all { ANNOUNCE_INTERVAL } else { LOOKUP_INTERVAL_MAX };
        let most = most.max(Class::Lookup.time_for(swarms * (1 + self.blobs_looked_up())));
        let next = if is_all { most } else { self.look_up.interval };
        self.look_up.interval = (next * 2).min(most);
        next
    }
}

impl Swarms {
    /// Another version is fetched, or what was lost of this one: peers are looked for.
    pub(crate) fn seek(&mut self, cx: &Cx, topic: &Topic) {
        if let Some(swarm) = self.by_topic.get_mut(topic) {
            swarm.look_up.has_chunks = false;
            swarm.look_up.seek(cx.now());
        }
    }

    /// A user has begun to follow the swarm's channel, or follows it again.
    pub(crate) fn note_awaited(&mut self, cx: &Cx, topic: &Topic) {
        if let Some(swarm) = self.by_topic.get_mut(topic) {
            swarm.look_up.awaited = Some(cx.now());
        }
    }

    /// It is known whether the content has blobs that v5 peers know one by one.
    pub(crate) fn set_has_chunks(&mut self, topic: &Topic, has_chunks: bool) {
        if let Some(swarm) = self.by_topic.get_mut(topic) {
            swarm.look_up.has_chunks = has_chunks;
        }
    }

    /// When a swarm's peers are to be looked up or asked again.
    pub(crate) fn due(&self, topic: &Topic) -> Option<Instant> {
        let look_up = &self.by_topic.get(topic)?.look_up;
        [look_up.due, look_up.ask_due].into_iter().flatten().min()
    }

    /// Whether peers are to be asked again for what they were missing: while blobs are missing and none have arrived. Once some
    /// arrive, peers are looked for often again. `stored` blobs are here.
    pub(crate) fn is_to_ask_again(&mut self, cx: &Cx, topic: &Topic, stored: u64) -> bool {
        let now = cx.now();
        let Some(swarm) = self.by_topic.get_mut(topic) else { return false };
        let look_up = &mut swarm.look_up;
        let is_due = look_up.ask_due.take_if(|due| *due <= now).is_some();
        if !is_due || !matches!(swarm.state, State::Partial { .. }) {
            return false;
        }
        let due = now + look_up.ask_interval;
        look_up.ask_due = Some(due);
        look_up.ask_interval = (look_up.ask_interval * 2).min(ASK_AGAIN_INTERVAL);
        let before = mem::replace(&mut look_up.ask_stored, stored);
        if stored > before {
            look_up.interval = LOOKUP_INTERVAL_MIN;
            look_up.due = look_up.due.map(|_| due);
        }
        stored <= before
    }

    /// Looks peers up, if that is due: under the topic, and under the first of the missing blobs where v5 peers may have them.
    pub(crate) fn look_up(
        &mut self,
        cx: &Cx,
        dht: &mut DhtQueue,
        topic: Topic,
        missing: impl Iterator<Item = BlobId>,
    ) {
        let (now, swarms) = (cx.now(), self.len());
        let Some(swarm) = self.by_topic.get_mut(&topic) else { return };
        if swarm.look_up.due.take_if(|due| *due <= now).is_none() {
            return;
        }
        let hash = topic.info_hash();
        if !dht.push(now, Purpose::Lookup(topic, hash), DhtOp::Lookup(hash)) {
            swarm.look_up.due = Some(now + swarm.next_look_up(swarms));
        }
        let blobs: Vec<InfoHash> =
            missing.take(swarm.blobs_looked_up()).map(|blob| blob.info_hash()).collect();
        for hash in &blobs {
            dht.push(now, Purpose::Lookup(topic, *hash), DhtOp::Lookup(*hash));
        }
        if let Some(since) = swarm.look_up.awaited.filter(|since| now.since(*since) < AWAITED_TIME) {
            for hash in [hash].into_iter().chain(blobs) {
                dht.note_awaited(Purpose::Lookup(topic, hash), since);
            }
        }
    }

    /// A look-up has started: the next is due an interval later.
    pub(crate) fn on_look_up_started(&mut self, cx: &Cx, topic: &Topic, hash: InfoHash) {
        let swarms = self.len();
        if let Some(swarm) = self.by_topic.get_mut(topic).filter(|_| hash == topic.info_hash()) {
            swarm.look_up.due = Some(cx.now() + swarm.next_look_up(swarms));
        }
    }

    /// A look-up has failed: it is due again before long.
    pub(crate) fn on_look_up_failed(&mut self, cx: &mut Cx, topic: Topic) {
        let Some(swarm) = self.by_topic.get_mut(&topic) else { return };
        if let Some(due) = &mut swarm.look_up.due {
            *due = (*due).min(cx.now() + DHT_RETRY_INTERVAL);
            cx.set_timer_sooner(Timer::Swarm(topic), *due);
        }
    }
}
