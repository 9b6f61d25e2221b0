//! Contents: what of each swarm's newest version is here, what is missing of what is selected, and what the store has lost.
//!
//! The blobs in hand of all contents together are bounded ([`WANTED_MAX`]), so that channels whose seeds are gone cost
//! little, however many there are.

mod fetch;
mod files;
mod recheck;
mod selection;
mod walk;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;

use crate::blob::BlobRef;
use crate::identity::PublicKey;
use crate::ids::{BlobId, BlobName, InfoHash, Root, Topic};
use crate::limits::{CHANNELS_MAX, INDEX_KNOWN_MAX, WANTED_MAX, WANTED_PER_FETCH_MAX, WANTED_PER_FETCH_MIN};
use crate::manifest::HeadContent;
use crate::node::api::{Claim, Event, Held, Job, Stand};
use crate::node::cx::Pending;
use crate::time::Instant;
use crate::tree::TreeRef;
use fetch::{Ask, Fetch, Source};
use recheck::Recheck;
pub(crate) use selection::Urgency;
pub use selection::{FileRange, Priority, Selection, SelectionError, Target};

/// Where a blob stands in a swarm's newest version, and how urgently it is wanted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    topic: Topic,
    position: u64,
    is_index: bool,
    in_order: bool,
    urgency: Urgency,
    /// The byte of a data blob's content from which it is wanted first, where somebody says so.
    from: Option<u32>,
    /// The version, and the byte of its file at which a data blob's content begins.
    spot: Option<(u64, Spot)>,
}

/// A byte of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The file's number in the manifest.
    file: usize,
    /// Bytes before it.
    offset: u64,
}

impl Spot {
    pub(crate) const fn new(file: usize, offset: u64) -> Self {
        Self { file, offset }
    }

    /// The one `bytes` further on.
    pub(crate) const fn after(self, bytes: u64) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }
}

impl Place {
    #[cfg(test)]
    pub(crate) const fn new(topic: Topic, position: u64, is_index: bool) -> Self {
        Self { topic, position, is_index, in_order: false, urgency: Urgency::USUAL, from: None, spot: None }
    }

    /// Where the content is to stand that somebody says a data blob holds there.
    pub(crate) fn stand(&self, claim: &Claim) -> Option<Stand> {
        let (Some((version, Spot { file, offset })), Claim::Content(key, len)) = (self.spot, claim) else {
            return None;
        };
        Some(Stand { topic: self.topic, version, file, offset, key: key.clone(), len: *len })
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Its place in the order of `docs/protocol.md` §12.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Others are only known once it is here: an index blob, or one of the body.
    pub(crate) fn is_index(&self) -> bool {
        self.is_index
    }

    /// It is wanted before those that come after it, rather than by how rare it is.
    pub(crate) fn in_order(&self) -> bool {
        self.in_order
    }

    pub(crate) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// The byte of its content that is wanted before those that come after it, and these before all else.
    pub(crate) fn from(&self) -> Option<u32> {
        self.from
    }

    /// Whether it is the same place, however urgent.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.topic == other.topic && self.position == other.position
    }
}

/// A blob that is wanted: its name, and what else is known of it.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// A native blob with `len` bytes of content. `id`: what its author says that its id is, where that was said beside it.
    Native {
        blob: BlobRef,
        len: u32,
        id: Option<BlobId>,
        /// Where its content begins, if it is a file's.
        spot: Option<Spot>,
    },
    /// A pack, of which nothing but the name is known.
    Pack(Root),
    V5(BlobId),
}

impl Wanted {
    pub(crate) fn name(&self) -> BlobName {
        match self {
            Self::Native { blob, .. } => BlobName::Native(blob.root),
            Self::Pack(root) => BlobName::Native(*root),
            Self::V5(id) => BlobName::V5(*id),
        }
    }

    fn spot(&self) -> Option<Spot> {
        if let Self::Native { spot, .. } = self { *spot } else { None }
    }
}

/// What a content asks of the rest of the node.
#[derive(Debug)]
pub(crate) enum Effect {
    Job(Pending, Job),
    Event(Event),
    /// A blob is missing.
    Want(Wanted, Place),
    /// What the author says that ids of native blobs are.
    Claims(Vec<(BlobId, Root)>),
    /// Nothing that was wanted for the content is wanted any more.
    DropWants,
    /// Whether v5 peers may have its blobs, known to them one by one.
    HasChunks(bool),
    /// Another version is here than before, or less of it.
    Version(u64, Progress),
    /// More of the version is here.
    Progress(Progress),
    /// What peers were told that we have no longer counts.
    TakeBack,
    /// Peers are asked what they have, though nothing is missing: that alone takes back that we have all.
    AskHave,
    /// Blobs are missing where none were: peers are looked for.
    Seek,
}

/// How much of a version is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    Part,
    /// All that is selected.
    Selected,
    All,
}

/// What of a version is here: positions found since the last look, the blobs in all, and how much of it that makes.
pub(crate) type Progress = (Vec<u64>, u64, Coverage);

struct Content {
    target: Target,
    version: u64,
    fetch: Fetch,
    /// It fetches what the store has lost, or what was selected later: the manifest was told of before.
    is_refetch: bool,
    /// It fetches what was selected later.
    is_reselected: bool,
    recheck: Recheck,
    /// That all is here was told of.
    is_told: bool,
    /// It has chunk lists, whose blobs v5 peers look for one by one.
    has_chunks: bool,
    /// The blobs that are announced for them.
    announced: Vec<InfoHash>,
    /// What a swarm without a head is about.
    tree: Option<TreeRef>,
}

/// The contents of all swarms, by topic.
pub(crate) struct Contents {
    by_topic: BTreeMap<Topic, Box<Content>>,
    /// What is selected of channels, where it is not everything.
    selections: BTreeMap<PublicKey, Selection>,
    /// Contents that are not satisfied.
    active: BTreeSet<Topic>,
    /// Blobs in hand of all contents.
    in_hand: usize,
    /// Contents whose blobs are looked up again, and some that were.
    rechecks: Vec<Topic>,
    /// Fetches so far.
    fetches: u64,
    /// Stored blobs that others are known by; at [`INDEX_KNOWN_MAX`] they are forgotten.
    index: BTreeSet<Root>,
}

impl Contents {
    pub(crate) fn new() -> Self {
        let (by_topic, selections) = (BTreeMap::new(), BTreeMap::new());
        let (active, rechecks) = (BTreeSet::new(), Vec::new());
        Self { by_topic, selections, active, in_hand: 0, rechecks, fetches: 0, index: BTreeSet::new() }
    }

    // --- beginning and ending -------------------------------------------------------------------------------

    /// A channel's newest version is this one from here on.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        topic: Topic,
        channel: PublicKey,
        version: u64,
        content: HeadContent,
    ) -> Vec<Effect> {
        let selection = self.selections.get(&channel).cloned().unwrap_or_default();
        self.begin_fetch(
            now,
            topic,
            (Target::Channel(channel), version),
            Source::Head(content),
            selection,
            None,
        )
    }

    /// A swarm without a head is about this tree.
    pub(crate) fn begin_tree(
        &mut self,
        now: Instant,
        topic: Topic,
        version: u64,
        tree: TreeRef,
        selection: Selection,
    ) -> Vec<Effect> {
        let source = Source::Tree(tree.clone());
        self.begin_fetch(now, topic, (Target::Swarm(topic), version), source, selection, Some(tree))
    }

    fn begin_fetch(
        &mut self,
        now: Instant,
        topic: Topic,
        (target, version): (Target, u64),
        source: Source,
        selection: Selection,
        tree: Option<TreeRef>,
    ) -> Vec<Effect> {
        self.drop_content(&topic);
        self.active.insert(topic);
        let mut asks = Vec::new();
        let fetch = Fetch::new(self.next_fetch(), source, selection, self.in_hand_max(0), &mut asks);
        self.in_hand += fetch.in_hand();
        let content = Content {
            target,
            version,
            fetch,
            is_refetch: false,
            is_reselected: false,
            recheck: Recheck::new(now),
            is_told: false,
            has_chunks: false,
            announced: Vec::new(),
            tree,
        };
        self.by_topic.insert(topic, Box::new(content));
        self.begun(topic, asks)
    }

    /// A swarm's content is of no interest any more; the blobs that were announced one by one.
    pub(crate) fn drop_content(&mut self, topic: &Topic) -> Vec<InfoHash> {
        self.active.remove(topic);
        let Some(content) = self.by_topic.remove(topic) else { return Vec::new() };
        self.in_hand -= content.fetch.in_hand();
        content.announced
    }

    /// The number of another fetch.
    fn next_fetch(&mut self) -> u64 {
        self.fetches += 1;
        self.fetches
    }

    /// Blobs that a content may have in hand that has `own` now.
    fn in_hand_max(&self, own: usize) -> usize {
        let share = WANTED_MAX / self.active.len().max(1);
        let left = WANTED_MAX.saturating_sub(self.in_hand - own);
        share.min(left).clamp(WANTED_PER_FETCH_MIN, WANTED_PER_FETCH_MAX)
    }

    // --- answers --------------------------------------------------------------------------------------------

    /// The store's word on which blobs are stored.
    pub(crate) fn on_have(
        &mut self,
        topic: Topic,
        number: u64,
        ids: &[BlobName],
        have: &[Held],
    ) -> Vec<Effect> {
        self.step_of(topic, number, |fetch, asks| fetch.on_have(ids, have, asks))
    }

    /// A blob was opened, or could not be.
    pub(crate) fn on_opened(
        &mut self,
        topic: Topic,
        number: u64,
        id: BlobName,
        plain: Option<&[u8]>,
    ) -> Vec<Effect> {
        self.step_of(topic, number, |fetch, asks| fetch.on_opened(id, plain, asks))
    }

    /// A blob that was to be opened is out of reach.
    pub(crate) fn on_out_of_reach(&mut self, topic: Topic, number: u64, name: BlobName) -> Vec<Effect> {
        self.step_of(topic, number, |fetch, asks| fetch.on_out_of_reach(name, asks))
    }

    /// A blob that was wanted is stored.
    pub(crate) fn on_stored(&mut self, topic: Topic, id: BlobName) -> Vec<Effect> {
        self.step(topic, |fetch, asks| fetch.on_stored(id, asks))
    }

    /// A blob that was wanted came whole, and is not what its key and its content's length make: the author's fault.
    pub(crate) fn on_unfit(&mut self, topic: Topic, name: BlobName) -> Vec<Effect> {
        self.step(topic, |fetch, asks| fetch.on_unfit(name, asks))
    }

    /// Lets the fetch or the look-up of a number go on: an answer to one is none to another.
    fn step_of(
        &mut self,
        topic: Topic,
        number: u64,
        step: impl FnOnce(&mut Fetch, &mut Vec<Ask>),
    ) -> Vec<Effect> {
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        match content.recheck.fetch_mut() {
            Some(fetch) if fetch.number() == number => {
                let mut asks = Vec::new();
                step(fetch, &mut asks);
                self.after_recheck(topic, asks)
            }
            _ if content.fetch.number() == number => self.step(topic, step),
            _ => Vec::new(),
        }
    }

    fn step(&mut self, topic: Topic, step: impl FnOnce(&mut Fetch, &mut Vec<Ask>)) -> Vec<Effect> {
        let own = self.by_topic.get(&topic).map_or(0, |content| content.fetch.in_hand());
        let in_hand_max = self.in_hand_max(own);
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        let mut asks = Vec::new();
        content.fetch.set_in_hand_max(in_hand_max);
        step(&mut content.fetch, &mut asks);
        self.in_hand = self.in_hand - own + content.fetch.in_hand();
        self.after(topic, asks)
    }

    /// A fetch has begun, or was begun anew.
    fn begun(&mut self, topic: Topic, asks: Vec<Ask>) -> Vec<Effect> {
        self.translate(topic, asks, Effect::Version)
    }

    /// A fetch has gone on.
    fn after(&mut self, topic: Topic, asks: Vec<Ask>) -> Vec<Effect> {
        self.translate(topic, asks, |_, progress| Effect::Progress(progress))
    }

    /// Takes note of what a step has come to, and translates what it asks for.
    fn translate(
        &mut self,
        topic: Topic,
        mut asks: Vec<Ask>,
        tell: impl FnOnce(u64, Progress) -> Effect,
    ) -> Vec<Effect> {
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        if content.fetch.is_satisfied() || content.fetch.is_refused() {
            self.active.remove(&topic);
            content.recheck.line_up_again();
        }
        content.fetch.begin_claims(&mut asks);
        let told = tell(content.version, content.fetch.take_progress());
        let index = content.fetch.take_index();
        if self.index.len() + index.len() > INDEX_KNOWN_MAX {
            self.index.clear();
        }
        self.index.extend(index);
        let has_manifest = asks.iter().any(|ask| matches!(ask, Ask::Manifest(_)));
        let has_chunks = has_manifest.then(|| Effect::HasChunks(content.fetch.has_chunks()));
        let number = content.fetch.number();
        let asks = asks.into_iter().filter_map(|ask| content.effect(topic, number, ask));
        [told].into_iter().chain(has_chunks).chain(asks).collect()
    }

    // --- what it has come to --------------------------------------------------------------------------------

    /// Blobs of a content that are stored and that it names, as far as they are known, and the bytes of its files.
    pub(crate) fn numbers(&self, topic: &Topic) -> (u64, u64, u64) {
        self.by_topic.get(topic).map_or((0, 0, 0), |content| content.fetch.numbers())
    }

    /// Whether others are known by a stored blob.
    pub(crate) fn is_index(&self, root: &Root) -> bool {
        self.index.contains(root)
    }

    /// Whether every blob of a content is stored.
    pub(crate) fn has_all(&self, topic: &Topic) -> bool {
        self.by_topic.get(topic).is_some_and(|content| content.fetch.has_all())
    }

    /// Whether all that is selected of a content is stored.
    pub(crate) fn is_satisfied(&self, topic: &Topic) -> bool {
        self.by_topic.get(topic).is_some_and(|content| content.fetch.is_satisfied())
    }

    /// What a content is doing, in words, and whether it waits for blobs; `None`: there is none.
    pub(crate) fn waiting(&self, topic: &Topic) -> Option<(&'static str, bool)> {
        let fetch = &self.by_topic.get(topic)?.fetch;
        Some((fetch.waiting(), !fetch.is_satisfied() && !fetch.is_refused()))
    }

    /// That all that is selected is stored, where that was not told yet: the event, and the blobs of its chunk lists. The content
    /// must be known to be the newest.
    pub(crate) fn report_satisfied(&mut self, topic: Topic) -> Option<(Event, Vec<InfoHash>)> {
        let content = self.by_topic.get_mut(&topic)?;
        if !content.fetch.is_satisfied() || mem::replace(&mut content.is_told, true) {
            return None;
        }
        let chunks = content.fetch.take_chunks();
        content.has_chunks = !chunks.is_empty();
        let (target, sequence) = (content.target, content.version);
        let event = if content.fetch.has_all() {
            Event::Complete { target, sequence }
        } else {
            Event::SelectionComplete { target, sequence }
        };
        Some((event, chunks))
    }

    /// These blobs are announced one by one, until the content is dropped.
    pub(crate) fn note_announced(&mut self, topic: &Topic, blobs: Vec<InfoHash>) {
        if let Some(content) = self.by_topic.get_mut(topic) {
            content.announced.extend(blobs);
        }
    }

    // --- choosing -------------------------------------------------------------------------------------------

    /// What is fetched of a channel, from here on and in later versions.
    pub(crate) fn select(
        &mut self,
        channel: PublicKey,
        topic: Option<Topic>,
        selection: Selection,
        head: Option<HeadContent>,
    ) -> Result<Vec<Effect>, SelectionError> {
        selection.check()?;
        if selection == Selection::default() {
            self.selections.remove(&channel);
        } else if self.selections.len() >= CHANNELS_MAX && !self.selections.contains_key(&channel) {
            return Err(SelectionError::TooManySelections);
        } else {
            self.selections.insert(channel, selection.clone());
        }
        let source = head.map(Source::Head);
        Ok(topic.map_or_else(Vec::new, |topic| self.select_of(topic, selection, source)))
    }

    /// Whether a swarm without a head is about this tree.
    pub(crate) fn is_about(&self, topic: &Topic, tree: &TreeRef) -> bool {
        self.by_topic.get(topic).is_some_and(|content| content.tree.as_ref() == Some(tree))
    }

    /// What a swarm without a head is about.
    pub(crate) fn tree(&self, topic: &Topic) -> Option<TreeRef> {
        self.by_topic.get(topic)?.tree.clone()
    }

    /// What is fetched of a swarm without a head; the selection is within its limits.
    pub(crate) fn select_tree(&mut self, topic: Topic, tree: TreeRef, selection: Selection) -> Vec<Effect> {
        self.select_of(topic, selection, Some(Source::Tree(tree)))
    }

    fn select_of(&mut self, topic: Topic, selection: Selection, source: Option<Source>) -> Vec<Effect> {
        let own = self.by_topic.get(&topic).map_or(0, |content| content.fetch.in_hand());
        let (number, in_hand_max) = (self.next_fetch(), self.in_hand_max(own));
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        let (mut asks, mut effects) = (Vec::new(), Vec::new());
        let has_all = content.fetch.has_all();
        if !content.fetch.select(selection.clone(), &mut asks) {
            content.recheck.end();
            let Some(source) = source.filter(|_| !has_all) else { return Vec::new() };
            content.fetch = Fetch::new(number, source, selection, in_hand_max, &mut asks);
            content.is_refetch = true;
            effects.push(Effect::Seek);
        }
        (content.is_reselected, content.is_told) = (true, false);
        self.active.insert(topic);
        self.in_hand = self.in_hand - own + content.fetch.in_hand();
        effects.extend(self.after(topic, asks));
        effects
    }

    /// A channel is not followed any more.
    pub(crate) fn forget_selection(&mut self, channel: &PublicKey) {
        self.selections.remove(channel);
    }
}

impl Content {
    /// The channel that it is of. One tree alone has neither a manifest nor a body.
    fn channel(&self) -> Option<PublicKey> {
        match self.target {
            Target::Channel(channel) => Some(channel),
            Target::Swarm(_) => None,
        }
    }

    /// Where the contents of blobs are to stand that the fetch, or the look-up, of a number has in hand.
    fn stands(&self, topic: Topic, number: u64, names: &[BlobName]) -> BTreeMap<Root, Stand> {
        let looked_up = self.recheck.fetch().filter(|fetch| fetch.number() == number);
        let (fetch, version) = (looked_up.unwrap_or(&self.fetch), self.version);
        let stand = |name: &BlobName| {
            let (Spot { file, offset }, key, len) = fetch.stand_of(name)?;
            Some((name.root()?, Stand { topic, version, file, offset, key: key.clone(), len }))
        };
        names.iter().filter_map(stand).collect()
    }

    /// What an ask of the fetch, or the look-up, of a number means to the rest of the node.
    fn effect(&self, topic: Topic, number: u64, ask: Ask) -> Option<Effect> {
        let (target, sequence) = (self.target, self.version);
        Some(match ask {
            Ask::Have(ids) => {
                let stands = self.stands(topic, number, &ids);
                Effect::Job(Pending::Have(topic, number, ids.clone()), Job::Have(ids, stands))
            }
            Ask::Open(blob, len) => {
                Effect::Job(Pending::Open(topic, number, blob.root.into()), Job::OpenBlob(blob, len))
            }
            Ask::Want { wanted, position, is_index, urgency, from } => {
                let in_order = self.fetch.is_in_order();
                let spot = wanted.spot().map(|spot| (sequence, spot));
                Effect::Want(wanted, Place { topic, position, is_index, in_order, urgency, from, spot })
            }
            Ask::DropWants => Effect::DropWants,
            Ask::Claims(claims) => Effect::Claims(claims),
            Ask::Manifest(_) | Ask::PageRefused(_) if self.is_refetch => return None,
            // What was told of files before is told again only where more of them were selected.
            Ask::FileComplete(_) if self.is_refetch && !self.is_reselected => return None,
            Ask::Manifest(manifest) => {
                Effect::Event(Event::Manifest { channel: self.channel()?, sequence, manifest })
            }
            Ask::BodyRefused(error) => {
                Effect::Event(Event::BodyRefused { channel: self.channel()?, sequence, error })
            }
            Ask::PageRefused(error) => {
                Effect::Event(Event::PageRefused { channel: self.channel()?, sequence, error })
            }
            Ask::FileComplete(file) => Effect::Event(Event::FileComplete { target, sequence, file }),
            Ask::FileRefused(file) => Effect::Event(Event::FileRefused { target, sequence, file }),
        })
    }
}
