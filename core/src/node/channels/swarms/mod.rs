//! Swarms: the topics under which peers meet, which of them each connection has in common with us, who has which blobs
//! (`docs/protocol.md` §12), and when the DHT is asked for more peers.
//!
//! A swarm belongs to a channel, or stands alone: then it has no head, and its one version is [`STANDALONE_VERSION`].

mod availability;
mod have;
mod lookup;
mod map;
mod positions;
mod share;
mod watch;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use crate::bucket::Bucket;
use crate::codec::Tag;
use crate::identity::PublicKey;
use crate::ids::{ConnId, Topic};
use crate::limits::{HAVE_INTERVAL_MIN, HAVES_BURST, HAVES_PER_MINUTE};
use crate::node::conns::Conns;
use crate::node::cx::Cx;
use crate::node::table::ConnTable;
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;
use availability::Availability;
use lookup::LookUp;
use positions::Stored;
use share::Share;

/// The version of a swarm without a head.
pub(crate) const STANDALONE_VERSION: u64 = 1;

/// How much of the newest version is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No version is known.
    Nothing,
    /// It is being looked up in the store, or fetched; whether some blob is known to be missing.
    Partial {
        is_missing: bool,
    },
    /// All that is selected.
    Satisfied,
    All,
}

impl State {
    /// Whether nothing is missing that is wanted.
    fn is_satisfied(self) -> bool {
        matches!(self, Self::Satisfied | Self::All)
    }
}

struct Swarm {
    /// The channel that it belongs to.
    channel: Option<PublicKey>,
    state: State,
    /// What of the newest version is here, unless all is.
    stored: Stored,
    /// Which version is the newest, and who else has which blobs of it.
    availability: Availability,
    look_up: LookUp,
}

impl Swarm {
    fn new(channel: Option<PublicKey>, now: Instant) -> Self {
        Self {
            channel,
            state: State::Nothing,
            stored: Stored::default(),
            availability: Availability::default(),
            look_up: LookUp::new(now),
        }
    }

    /// The version of which blobs are missing.
    fn missing(&self) -> Option<u64> {
        let is_missing = self.state == State::Partial { is_missing: true };
        is_missing.then(|| self.availability.version())
    }

    /// Whether it matters which blobs of a version a peer has: blobs of it are missing, or would be if more were selected.
    /// A peer that `was_asked` answers once for each version, and tells the rest as it gets it.
    fn may_miss(&self, version: u64, was_asked: bool) -> bool {
        let may = match self.state {
            State::Partial { is_missing } => is_missing || was_asked,
            State::Satisfied => true,
            State::Nothing | State::All => false,
        };
        may && version == self.availability.version()
    }
}

/// What a v6 peer and we told each other.
struct Member {
    /// Our swarms by their names on this connection.
    tags: BTreeMap<Tag, Topic>,
    /// Those that the peer watches, in boxes: a map of one has room for eleven.
    shares: BTreeMap<Topic, Box<Share>>,
    /// There was no room to ask what the peer has.
    ask_due: bool,
    /// HAVEs sent to it.
    haves_out: Bucket,
}

/// The swarms that the node is part of.
pub(crate) struct Swarms {
    by_topic: BTreeMap<Topic, Box<Swarm>>,
    members: ConnTable<Member>,
    /// Swarms of which peers may be told more.
    have_due: BTreeSet<Topic>,
    /// When peers were last told.
    told_at: Instant,
    /// How often peers are told at most.
    have_interval: Duration,
    /// When the next WATCH to everybody may follow.
    watch_next: Instant,
}

impl Swarms {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            by_topic: BTreeMap::new(),
            members: ConnTable::default(),
            have_due: BTreeSet::new(),
            told_at: now,
            have_interval: HAVE_INTERVAL_MIN,
            watch_next: now,
        }
    }

    pub(crate) fn opened(&mut self, conn: ConnId, now: Instant) {
        let haves_out = Bucket::new(HAVES_PER_MINUTE, HAVES_BURST, now);
        let (tags, shares) = (BTreeMap::new(), BTreeMap::new());
        self.members.insert(conn, Member { tags, shares, ask_due: false, haves_out });
    }

    /// A connection is gone: what its peer has is no longer at hand.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        if let Some(member) = self.members.remove(conn) {
            self.forget_shares(&member.shares);
        }
    }

    fn forget_shares(&mut self, shares: &BTreeMap<Topic, Box<Share>>) {
        for (topic, share) in shares {
            if let (Some(theirs), Some(swarm)) = (share.theirs(), self.by_topic.get_mut(topic)) {
                swarm.availability.remove(theirs);
            }
        }
    }

    // --- being part of one ----------------------------------------------------------------------------------

    /// The node is part of a swarm from here on, and says so. `false`: it was before.
    pub(crate) fn join<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        topic: Topic,
        channel: Option<PublicKey>,
    ) -> bool {
        if self.by_topic.contains_key(&topic) {
            return false;
        }
        self.by_topic.insert(topic, Box::new(Swarm::new(channel, cx.now())));
        self.rewatch_all(cx, conns);
        true
    }

    /// The node is no longer part of a swarm.
    pub(crate) fn leave(&mut self, topic: &Topic) {
        self.by_topic.remove(topic);
        self.have_due.remove(topic);
        for (_, member) in self.members.iter_mut() {
            member.shares.remove(topic);
            // Until the next WATCH the peer may still use its name.
            member.tags.retain(|_, named| named != topic);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// The channel that a swarm belongs to.
    pub(crate) fn channel(&self, topic: &Topic) -> Option<PublicKey> {
        self.by_topic.get(topic)?.channel
    }

    pub(crate) fn contains(&self, topic: &Topic) -> bool {
        self.by_topic.contains_key(topic)
    }

    // --- who has what ---------------------------------------------------------------------------------------

    /// The swarm that a peer means.
    pub(crate) fn topic(&self, conn: ConnId, tag: &Tag) -> Option<Topic> {
        self.members.get(conn)?.tags.get(tag).copied()
    }

    /// What a swarm is called on a connection.
    pub(crate) fn tag(&self, conn: ConnId, topic: &Topic) -> Option<Tag> {
        let tags = &self.members.get(conn)?.tags;
        tags.iter().find(|(_, known)| *known == topic).map(|(tag, _)| *tag)
    }

    /// The swarms that a peer watches too.
    pub(crate) fn shared(&self, conn: ConnId) -> impl Iterator<Item = Topic> {
        self.members.get(conn).into_iter().flat_map(|member| member.shares.keys().copied())
    }

    pub(crate) fn is_shared(&self, conn: ConnId, topic: &Topic) -> bool {
        self.members.get(conn).is_some_and(|member| member.shares.contains_key(topic))
    }

    /// Whether nobody is connected who is part of a swarm, as far as we know.
    pub(crate) fn is_alone(&self, topic: &Topic) -> bool {
        !self.members.iter().any(|(_, member)| member.shares.contains_key(topic))
    }

    /// The newest version of a swarm; 0 before there is one.
    pub(crate) fn version(&self, topic: &Topic) -> u64 {
        self.by_topic.get(topic).map_or(0, |swarm| swarm.availability.version())
    }

    /// One swarm as seen over one connection.
    pub(crate) fn view(&self, conn: ConnId, topic: &Topic) -> View<'_> {
        View {
            share: self.members.get(conn).and_then(|member| member.shares.get(topic)).map(Box::as_ref),
            availability: self.by_topic.get(topic).map(|swarm| &swarm.availability),
        }
    }

    /// Whether a peer has all of some swarm's newest version.
    pub(crate) fn is_seed(&self, conn: ConnId) -> bool {
        let Some(member) = self.members.get(conn) else { return false };
        member.shares.iter().any(|(topic, share)| share.all_of().is_some_and(|of| of == self.version(topic)))
    }
}

/// A swarm as seen over one connection.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    share: Option<&'a Share>,
    availability: Option<&'a Availability>,
}

impl View<'_> {
    /// Whether the peer said that it has a blob of the newest version.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.parts(position) == Mask::ALL
    }

    /// The parts of a blob of the newest version that the peer said it has.
    pub(crate) fn parts(&self, position: u64) -> Mask {
        let version = self.availability.map_or(0, Availability::version);
        self.share.map_or(Mask::NONE, |share| share.parts(version, position))
    }

    /// How many connected peers have a part of a blob, but those that have all of the version.
    pub(crate) fn availability(&self, position: u64, part: usize) -> u16 {
        self.availability.map_or(0, |availability| availability.count(position, part))
    }
}
