//! Heads: each followed channel's newest signed document, and what keeps it known: look-ups, puts, and pushing it to the
//! peers that watch the channel.
//!
//! A head is durable before it is used, so that a restart cannot be rolled back.

mod held;
mod pause;
mod push;
mod record;
mod upkeep;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::ids::{ConnId, JobId, Secret, Topic};
use crate::limits::{GOSSIP_CHANNELS_MAX, HEAD_LEN_MAX, HEAD_POLL_INTERVAL, HEAD_RETRY_INTERVAL};
use crate::manifest::{Head, HeadContent, HeadError};
use crate::node::api::{DhtError, Event, RecordKey};
use crate::node::cx::{Cx, Pending};
use crate::node::dht::Class;
use crate::node::table::ConnTable;
use crate::node::timers::Timer;
use crate::time::{Instant, UnixTime};
use crate::tree::{Shape, TreeRef};
use crate::uri;
pub(crate) use held::HeldHead;
use push::Told;
use record::Record;

/// How long after the disk did not take a head it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A followed channel's head, and when its upkeep is due.
struct Upkeep {
    read_key: Option<Secret>,
    topic: Topic,
    /// The newest durable head.
    head: Option<HeldHead>,
    /// The body that it refers to.
    root: Option<TreeRef>,
    /// A newer one that is being made durable.
    accepting: Option<(HeldHead, Head)>,
    /// A still newer one, or the item that carries that one, for afterwards.
    next: Option<HeldHead>,
    /// One that the store did not take, and when it is tried again: nobody may offer it a second time.
    untaken: Option<(Instant, HeldHead)>,
    refused: Option<(u64, HeadError)>,
    fork_reported: Option<u64>,
    /// When the head is looked up next. As with the puts below, `None`: it waits for its turn, and when it starts, the next
    /// one is due an interval later.
    poll_due: Option<Instant>,
    /// How soon it is looked up again while none is known.
    poll_interval: Duration,
    polled: Instant,
    /// The highest sequence in the look-up under way, and the number of nodes that gave it.
    poll_best: Option<(u64, usize)>,
    /// When a look-up last found the newest head, and the number of nodes that gave it.
    copies: Option<(Instant, usize)>,
    poll_error: Option<DhtError>,
    /// When a look-up last ended with an answer.
    answered: Option<UnixTime>,
    /// A look-up has ended or is as good as that, so that the newest head is known, as far as the DHT knows it.
    is_looked_up: bool,
    /// When the look-up under way is as good as ended, as it has brought a head.
    settled_due: Option<Instant>,
    /// Since when a user waits for it.
    awaited: Option<Instant>,
    put_due: Option<Instant>,
    /// When we last put the head.
    put: Option<Instant>,
}

impl Upkeep {
    fn new(channel: &PublicKey, read_key: Option<Secret>, now: Instant) -> Self {
        Self {
            topic: uri::topic(channel, read_key.as_ref()),
            read_key,
            head: None,
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
            answered: None,
            is_looked_up: false,
            settled_due: None,
            awaited: None,
            put_due: None,
            put: None,
        }
    }

    /// The newest head known, durable or about to be.
    fn newest(&self) -> Option<&HeldHead> {
        self.accepting.as_ref().map(|(head, _)| head).or(self.head.as_ref())
    }

    /// Whether a head is newer than all that is known, carried by an item where the newest is not, or shows that the author
    /// signed two of one sequence.
    fn is_news(&self, head: &HeldHead) -> bool {
        self.newest().is_none_or(|known| {
            let is_unreported = self.fork_reported != Some(head.sequence());
            let is_fork = head.is_fork_of(known) && is_unreported;
            head.sequence() > known.sequence() || is_fork || head.adds_item_to(known)
        })
    }

    /// When something of it is due next.
    fn due(&self) -> Option<Instant> {
        let untaken = self.untaken.as_ref().map(|(due, _)| *due);
        [self.poll_due, self.put_due, untaken, self.settled_due].into_iter().flatten().min()
    }
}

/// What following a channel has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Nothing: it was followed already.
    Before,
    /// It is followed, under this topic.
    Newly(Topic),
    /// It has another read key, and so another swarm: the one before, and this one.
    Moved(Topic, Topic),
}

/// What is durable from here on.
pub(crate) enum Adopted {
    /// A head, and what it names.
    Head { channel: PublicKey, topic: Topic, sequence: u64, content: HeadContent },
    /// The item that carries the newest head, which was known without one.
    Item,
}

/// The heads of all followed channels.
pub(crate) struct Heads {
    shape: Shape,
    /// Boxed, as a node of the tree has room for eleven, and most nodes follow fewer.
    by_channel: BTreeMap<PublicKey, Box<Upkeep>>,
    /// Those that are paused.
    paused: BTreeSet<PublicKey>,
    conns: ConnTable<Told>,
}

impl Heads {
    pub(crate) fn new(shape: Shape) -> Self {
        let (by_channel, paused, conns) = (BTreeMap::new(), BTreeSet::new(), ConnTable::default());
        Self { shape, by_channel, paused, conns }
    }

    pub(crate) fn opened(&mut self, conn: ConnId) {
        self.conns.insert(conn, Told::default());
    }

    pub(crate) fn closed(&mut self, conn: ConnId) {
        self.conns.remove(conn);
    }

    // --- following ------------------------------------------------------------------------------------------

    /// The read key of a channel, where one is known.
    pub(crate) fn read_key(&self, channel: &PublicKey) -> Option<&Secret> {
        self.by_channel.get(channel)?.read_key.as_ref()
    }

    /// Whether a read key cannot be a channel's: it does not open the newest head, which the known one opens, and no newer
    /// one came that the known one does not open.
    pub(crate) fn contradicts(&self, channel: &PublicKey, read_key: Option<&Secret>) -> bool {
        let Some((upkeep, key)) = self.by_channel.get(channel).zip(read_key) else { return false };
        let is_outdated = matches!(upkeep.refused, Some((_, HeadError::ReadKeyWrong)));
        let opens = |head: &HeldHead| Head::from_json_in(self.shape, channel, Some(key), head.document());
        let is_wrong = |head: &HeldHead| matches!(opens(head), Err(HeadError::ReadKeyWrong));
        !is_outdated && upkeep.head.as_ref().is_some_and(is_wrong)
    }

    /// Begins to follow a channel, if there is room for it, or gives it the read key that was missing. `None`: there is no room.
    pub(crate) fn follow(
        &mut self,
        cx: &Cx,
        channel: PublicKey,
        read_key: Option<Secret>,
        has_room: bool,
    ) -> Option<Followed> {
        let now = cx.now();
        if let Some(upkeep) = self.by_channel.get_mut(&channel) {
            if read_key.is_none() || upkeep.read_key == read_key {
                return Some(Followed::Before);
            }
            // Another key means another swarm, and heads that can now be read.
            let before = upkeep.topic;
            upkeep.topic = uri::topic(&channel, read_key.as_ref());
            (upkeep.read_key, upkeep.refused, upkeep.poll_due) = (read_key, None, Some(now));
            self.conns.iter_mut().for_each(|(_, told)| told.forget(&channel));
            return Some(Followed::Moved(before, upkeep.topic));
        }
        if !has_room {
            return None;
        }
        let upkeep = Upkeep::new(&channel, read_key, now);
        let topic = upkeep.topic;
        self.by_channel.insert(channel, Box::new(upkeep));
        Some(Followed::Newly(topic))
    }

    /// Follows a channel no longer, and deletes its record; its topic, and that job.
    pub(crate) fn unfollow(&mut self, cx: &mut Cx, channel: &PublicKey) -> Option<(Topic, JobId)> {
        let upkeep = self.by_channel.remove(channel)?;
        self.paused.remove(channel);
        self.conns.iter_mut().for_each(|(_, told)| told.forget(channel));
        let job = cx.persist(Pending::Record, RecordKey::Channel(*channel), None);
        Some((upkeep.topic, job))
    }

    /// Stores a channel's record as it is, also where no head is known yet. A head that is being stored stays in it.
    pub(crate) fn remember(&self, cx: &mut Cx, channel: PublicKey) -> Option<JobId> {
        let upkeep = self.by_channel.get(&channel)?;
        let is_paused = self.is_paused(&channel);
        Some(persist(cx, Pending::Record, channel, (upkeep.read_key.as_ref(), is_paused), upkeep.newest()))
    }

    /// Reads a channel's record. `None`: it does not parse.
    pub(crate) fn read_record(channel: PublicKey, value: &[u8]) -> Option<Record> {
        record::decode(channel, value)
    }

    /// Takes back a followed channel's durable head of an earlier run.
    pub(crate) fn restore(&mut self, cx: &mut Cx, channel: PublicKey, head: HeldHead) -> Option<Adopted> {
        let upkeep = self.by_channel.get(&channel)?;
        match Head::from_json_in(self.shape, &channel, upkeep.read_key.as_ref(), head.document()) {
            Ok(read) if read.sequence == head.sequence() => self.adopt(cx, channel, head, read),
            Ok(_) => None,
            Err(error) => {
                cx.event(Event::HeadRefused { channel, error });
                None
            }
        }
    }

    /// The newest durable head again, for a swarm that has just begun.
    pub(crate) fn adopt_again(&mut self, cx: &mut Cx, channel: PublicKey) -> Option<Adopted> {
        let upkeep = self.by_channel.get_mut(&channel)?;
        upkeep.root = None;
        let head = upkeep.head.take()?;
        self.restore(cx, channel, head)
    }

    // --- newer heads ----------------------------------------------------------------------------------------

    /// A properly signed head of a channel: taken if the channel is followed and it is newer than all that is known.
    pub(crate) fn offer(&mut self, cx: &mut Cx, channel: PublicKey, head: HeldHead) {
        if self.is_paused(&channel) {
            return;
        }
        let Some(upkeep) = self.by_channel.get_mut(&channel) else { return };
        let sequence = head.sequence();
        if let Some(known) = upkeep.newest() {
            if head.is_fork_of(known) && upkeep.fork_reported != Some(sequence) {
                upkeep.fork_reported = Some(sequence);
                return cx.event(Event::Fork { channel, sequence });
            }
            if sequence <= known.sequence() && !head.adds_item_to(known) {
                return;
            }
        }
        let known = upkeep.newest().map_or(0, HeldHead::sequence);
        match head.read(self.shape, &channel, upkeep.read_key.as_ref(), known) {
            Err(error) if upkeep.refused == Some((sequence, error)) => {}
            Err(error) => {
                upkeep.refused = Some((sequence, error));
                cx.event(Event::HeadRefused { channel, error });
            }
            Ok(_) if upkeep.accepting.is_some() => {
                if upkeep.next.as_ref().is_none_or(|next| next.sequence() < sequence) {
                    upkeep.next = Some(head);
                }
            }
            Ok(read) => self.make_durable(cx, channel, head, read),
        }
    }

    /// A channel's signed document, which came from elsewhere than BEP 44.
    pub(crate) fn offer_document(&mut self, cx: &mut Cx, channel: PublicKey, document: Vec<u8>) {
        let Some(upkeep) = self.by_channel.get(&channel) else { return };
        let read = if document.len() > HEAD_LEN_MAX {
            Err(HeadError::Malformed("it is too long"))
        } else {
            Head::from_json_in(self.shape, &channel, upkeep.read_key.as_ref(), &document)
        };
        match read {
            Ok(head) => self.offer(cx, channel, HeldHead::of_document(head.sequence, document)),
            Err(error) => cx.event(Event::HeadRefused { channel, error }),
        }
    }

    /// A head that we signed ourselves. `false`: it cannot be used.
    pub(crate) fn accept_own(&mut self, cx: &mut Cx, item: SignedItem) -> bool {
        let (channel, head) = (item.key, HeldHead::of_item(item));
        let Some(upkeep) = self.by_channel.get(&channel) else { return false };
        let read = Head::from_json_in(self.shape, &channel, upkeep.read_key.as_ref(), head.document());
        match read {
            Ok(read) => self.make_durable(cx, channel, head, read),
            Err(_) => return false,
        }
        true
    }

    fn make_durable(&mut self, cx: &mut Cx, channel: PublicKey, head: HeldHead, read: Head) {
        let is_paused = self.is_paused(&channel);
        if let Some(upkeep) = self.by_channel.get_mut(&channel) {
            let pending = Pending::Head(channel, head.sequence());
            persist(cx, pending, channel, (upkeep.read_key.as_ref(), is_paused), Some(&head));
            upkeep.accepting = Some((head, read));
        }
    }

    /// A head is durable, or the store did not take it: then it is tried again, unless it is `given_up`.
    pub(crate) fn on_persisted(
        &mut self,
        cx: &mut Cx,
        (channel, sequence): (PublicKey, u64),
        durable: bool,
        given_up: bool,
    ) -> Option<Adopted> {
        let upkeep = self.by_channel.get_mut(&channel)?;
        // A head of our own takes the place of one that is being stored.
        let (head, read) = upkeep.accepting.take_if(|(head, _)| head.sequence() == sequence)?;
        if durable {
            return self.adopt(cx, channel, head, read);
        }
        if !given_up {
            let due = cx.now() + RETRY;
            upkeep.untaken = Some((due, head));
            cx.set_timer_sooner(Timer::Channel(channel), due);
        }
        None
    }

    /// The head that came while another one was being made durable has its turn.
    pub(crate) fn offer_next(&mut self, cx: &mut Cx, channel: PublicKey) {
        if let Some(next) = self.by_channel.get_mut(&channel).and_then(|upkeep| upkeep.next.take()) {
            self.offer(cx, channel, next);
        }
    }

    // --- for others -----------------------------------------------------------------------------------------

    /// The channels followed.
    pub(crate) fn channels(&self) -> impl Iterator<Item = PublicKey> {
        self.by_channel.keys().copied()
    }

    pub(crate) fn is_followed(&self, channel: &PublicKey) -> bool {
        self.by_channel.contains_key(channel)
    }

    pub(crate) fn topic(&self, channel: &PublicKey) -> Option<Topic> {
        self.by_channel.get(channel).map(|upkeep| upkeep.topic)
    }

    /// The topics of the channels that have a head.
    pub(crate) fn topics(&self) -> impl Iterator<Item = Topic> {
        let active = self.by_channel.iter().filter(|(channel, _)| !self.is_paused(channel));
        active.filter(|(_, upkeep)| upkeep.head.is_some()).map(|(_, upkeep)| upkeep.topic)
    }

    /// The sequence of the newest durable head; 0 before the first.
    pub(crate) fn sequence(&self, channel: &PublicKey) -> u64 {
        let head = self.by_channel.get(channel).and_then(|upkeep| upkeep.head.as_ref());
        head.map_or(0, HeldHead::sequence)
    }

    /// The sequence of the newest head known, durable or about to be; 0 for none.
    pub(crate) fn newest_sequence(&self, channel: &PublicKey) -> u64 {
        self.by_channel.get(channel).and_then(|upkeep| upkeep.newest()).map_or(0, HeldHead::sequence)
    }

    /// Whether a channel's newest head known is newer than an item, or another one of the same sequence.
    pub(crate) fn forbids(&self, item: &SignedItem) -> bool {
        let newest = self.by_channel.get(&item.key).and_then(|upkeep| upkeep.newest());
        newest.is_some_and(|known| {
            let sequence = item.seq.unsigned_abs();
            sequence < known.sequence() || (sequence == known.sequence() && item.value != known.document())
        })
    }

    /// Whether the durable head is the newest, as far as the DHT knows.
    pub(crate) fn is_newest_known(&self, channel: &PublicKey) -> bool {
        self.by_channel.get(channel).is_some_and(|upkeep| {
            let durable = upkeep.head.as_ref().map(HeldHead::sequence);
            upkeep.is_looked_up && durable == upkeep.newest().map(HeldHead::sequence)
        })
    }

    /// What the newest durable head says.
    pub(crate) fn read(&self, channel: &PublicKey) -> Option<Head> {
        let upkeep = self.by_channel.get(channel)?;
        let document = upkeep.head.as_ref()?.document();
        Head::from_json_in(self.shape, channel, upkeep.read_key.as_ref(), document).ok()
    }

    /// The body that the newest durable head refers to, where it does not carry the content itself.
    pub(crate) fn root(&self, channel: &PublicKey) -> Option<&TreeRef> {
        self.by_channel.get(channel)?.root.as_ref()
    }

    /// When the DHT last said which head is the newest.
    pub(crate) fn answered(&self, channel: &PublicKey) -> Option<UnixTime> {
        self.by_channel.get(channel)?.answered
    }

    pub(crate) fn is_private(&self, channel: &PublicKey) -> bool {
        self.by_channel.get(channel).is_some_and(|upkeep| upkeep.read_key.is_some())
    }

    /// Why there is no head yet.
    pub(crate) fn waiting(&self, channel: &PublicKey) -> String {
        match self
            .by_channel
            .get(channel)
            .map(|upkeep| (&upkeep.refused, upkeep.poll_error, upkeep.is_looked_up))
        {
            Some((Some((_, error)), ..)) => error.to_string(),
            Some((None, Some(error), _)) => alloc::format!("the channel's head: {error}"),
            Some((None, None, true)) => "the channel's head: the DHT has none".into(),
            Some((None, None, false)) | None => "the channel's head: looking it up on the DHT".into(),
        }
    }

    /// The sequences of the public channels, the newest [`GOSSIP_CHANNELS_MAX`], for a v5 peer.
    pub(crate) fn public_sequences(&self) -> BTreeMap<PublicKey, u64> {
        let is_told = |key: &PublicKey, upkeep: &Upkeep| upkeep.read_key.is_none() && !self.is_paused(key);
        let public = self.by_channel.iter().filter(|(key, upkeep)| is_told(key, upkeep));
        let mut newest: Vec<(u64, PublicKey)> =
            public.filter_map(|(key, upkeep)| Some((upkeep.head.as_ref()?.sequence(), *key))).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.into_iter().take(GOSSIP_CHANNELS_MAX).map(|(sequence, key)| (key, sequence)).collect()
    }

    /// How often a known head is looked up.
    fn poll_interval(&self) -> Duration {
        HEAD_POLL_INTERVAL.max(Class::Poll.time_for(self.by_channel.len()))
    }
}

fn persist(
    cx: &mut Cx,
    pending: Pending,
    channel: PublicKey,
    (read_key, is_paused): (Option<&Secret>, bool),
    head: Option<&HeldHead>,
) -> JobId {
    let record = record::encode(read_key, head, is_paused);
    cx.persist(pending, RecordKey::Channel(channel), Some(record))
}
