//! What a peer and we told each other of a swarm.

use alloc::collections::BTreeMap;
use core::mem;

use super::positions::{Positions, Stored};
use crate::codec::{Have, Tag};
use crate::limits::{HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX, HAVE_UNDER_WAY_TOLD_MAX};
use crate::parts::Mask;
use crate::time::Instant;

/// What a peer has of a version.
#[derive(Debug)]
pub(super) struct Theirs {
    version: u64,
    is_all: bool,
    positions: Positions,
    /// Parts of blobs that the peer does not have whole.
    under_way: BTreeMap<u32, Mask>,
}

impl Theirs {
    /// Nothing, as far as it said.
    pub(super) fn new(version: u64) -> Self {
        Self { version, is_all: false, positions: Positions::default(), under_way: BTreeMap::new() }
    }

    pub(super) fn all(version: u64) -> Self {
        Self { is_all: true, ..Self::new(version) }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether the peer has every blob.
    pub(super) fn is_all(&self) -> bool {
        self.is_all
    }

    /// The peer has a blob: what it had of it before. `None`: that is no news. Of a peer that has all, nothing is.
    pub(super) fn add(&mut self, position: usize) -> Option<Mask> {
        if self.is_all || !self.positions.add(position) {
            return None;
        }
        let parts = u32::try_from(position).ok().and_then(|position| self.under_way.remove(&position));
        Some(parts.unwrap_or_default())
    }

    /// The peer has parts of a blob: what it had of it before, and has. `None`: that is no news. At most `blobs_max` such blobs are
    /// noted.
    pub(super) fn add_parts(&mut self, position: u32, mask: Mask, blobs_max: usize) -> Option<(Mask, Mask)> {
        let is_full = self.under_way.len() >= blobs_max && !self.under_way.contains_key(&position);
        if self.is_all
            || is_full
            || position as usize >= HAVE_BLOBS_MAX
            || self.positions.has(position as usize)
        {
            return None;
        }
        if mask == Mask::ALL {
            return self.add(position as usize).map(|before| (before, mask));
        }
        let known = self.under_way.entry(position).or_default();
        let before = *known;
        *known = before | mask;
        (*known != before).then_some((before, *known))
    }

    /// The positions of blobs of which the peer has something, and the parts; none where it has all.
    pub(super) fn listed(&self) -> impl Iterator<Item = (usize, Mask)> {
        let whole = self.positions.iter().map(|position| (position, Mask::ALL));
        whole.chain(self.under_way.iter().map(|(position, mask)| (*position as usize, *mask)))
    }

    /// The parts of a blob that the peer has.
    fn parts(&self, position: u64) -> Mask {
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        if self.is_all || at >= HAVE_BLOBS_MAX || self.positions.has(at) {
            return Mask::ALL;
        }
        u32::try_from(position).ok().and_then(|at| self.under_way.get(&at)).copied().unwrap_or_default()
    }
}

/// One swarm as both ends of a connection see it.
#[derive(Debug)]
pub(super) struct Share {
    /// What the swarm is called on this connection.
    tag: Tag,
    theirs: Option<Theirs>,
    /// The version that we last asked for.
    asked_them: u64,
    /// The version that the peer last asked for, and how much of our log it was told.
    asked_us: u64,
    told: usize,
    /// The peer has taken back what it said: it has lost blobs, and may ask of the same version again.
    may_ask_again: bool,
    /// The parts of blobs under way that it was told.
    told_parts: BTreeMap<u32, Mask>,
    told_all: u64,
    /// It was told of blobs that we have lost, and does not know that.
    takes_back: bool,
    told_at: Option<Instant>,
}

/// What a peer is to be told.
pub(super) enum Tell {
    Nothing,
    /// Something, but not yet.
    Later,
    Now(Have),
}

impl Share {
    pub(super) fn new(tag: Tag) -> Self {
        Self {
            tag,
            theirs: None,
            asked_them: 0,
            asked_us: 0,
            told: 0,
            may_ask_again: false,
            told_parts: BTreeMap::new(),
            told_all: 0,
            takes_back: false,
            told_at: None,
        }
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    // --- what the peer has ----------------------------------------------------------------------------------

    pub(super) fn theirs(&self) -> Option<&Theirs> {
        self.theirs.as_ref()
    }

    /// What it has of a version, to be changed and given back by [`Self::set_theirs`].
    pub(super) fn take_theirs(&mut self) -> Option<Theirs> {
        self.theirs.take()
    }

    /// The peer takes back what it said of a version.
    pub(super) fn took_back(&mut self) {
        self.may_ask_again = true;
    }

    pub(super) fn set_theirs(&mut self, theirs: Theirs) {
        self.theirs = Some(theirs);
    }

    /// The parts that the peer has of a blob of a version, as far as it said; beyond what HAVE tells it may have all.
    pub(super) fn parts(&self, version: u64, position: u64) -> Mask {
        let theirs = self.theirs.as_ref().filter(|theirs| theirs.version == version);
        theirs.map_or(Mask::NONE, |theirs| theirs.parts(position))
    }

    /// The version of which the peer has all.
    pub(super) fn all_of(&self) -> Option<u64> {
        self.theirs.as_ref().filter(|theirs| theirs.is_all).map(|theirs| theirs.version)
    }

    /// Memory that the peer's positions take.
    pub(super) fn bytes(&self) -> usize {
        self.theirs.as_ref().map_or(0, |theirs| theirs.positions.bitmap().len())
    }

    /// Counts the blobs of which the peer told parts.
    pub(super) fn under_way(&self) -> usize {
        self.theirs.as_ref().map_or(0, |theirs| theirs.under_way.len())
    }

    // --- asking it ------------------------------------------------------------------------------------------

    /// Whether the peer is to be asked what it has of a version: once, and not where it has all.
    pub(super) fn is_to_be_asked(&self, version: u64) -> bool {
        self.asked_them != version && self.all_of() != Some(version)
    }

    /// Whether the peer was asked last what it has of a version.
    pub(super) fn was_asked(&self, version: u64) -> bool {
        self.asked_them == version
    }

    pub(super) fn asked(&mut self, version: u64) {
        self.asked_them = version;
    }

    // --- telling it -----------------------------------------------------------------------------------------

    /// Another version is the newest: what was said of earlier ones no longer counts. A peer may have learnt of it before us.
    pub(super) fn begin_version(&mut self, version: u64) {
        self.theirs = self.theirs.take().filter(|theirs| theirs.version >= version);
        (self.told, self.told_parts) = (0, BTreeMap::new());
    }

    /// We have lost some of what we told that we have: the peer is asked again, and told again.
    pub(super) fn take_back_all(&mut self) {
        self.takes_back |= self.told > 0 || self.told_all > 0 || !self.told_parts.is_empty();
        (self.asked_them, self.told_all, self.told) = (0, 0, 0);
        self.told_parts = BTreeMap::new();
    }

    /// The peer asks what we have of a version. `false`: it is told already. A peer that said that it has all has lost some; what one
    /// said since it took back the rest counts.
    pub(super) fn on_asked(&mut self, version: u64) -> bool {
        let took_back = mem::take(&mut self.may_ask_again);
        let had_all = self.all_of() == Some(version);
        // Each version is told once, but to a peer that has lost some of it.
        if version < self.asked_us || (version == self.asked_us && !had_all && !took_back) {
            return false;
        }
        if had_all {
            self.theirs = None;
        }
        if version > self.asked_us {
            (self.asked_us, self.told_at) = (version, None);
        }
        (self.told, self.told_all, self.told_parts) = (0, 0, BTreeMap::new());
        true
    }

    /// Whether the peer knows all that there is to say of a version.
    pub(super) fn knows_all(&self, version: u64) -> bool {
        self.told_all == version || self.all_of() == Some(version)
    }

    /// That we have all of a version, which is said unasked too, so that a peer that is missing something knows it at once.
    pub(super) fn tell_all(&mut self, version: u64, now: Instant) -> Have {
        (self.told_all, self.told_at, self.told_parts) = (version, Some(now), BTreeMap::new());
        self.takes_back = false;
        Have { all: true, ..Have::default() }
    }

    /// Whether there is something that the peer was not told: that we have lost blobs, or more of a version that it asked for.
    pub(super) fn is_behind(&self, version: u64, stored: &Stored) -> bool {
        let has_news = || self.told < stored.len() || self.parts_to_tell(version, stored).next().is_some();
        self.takes_back || (self.asked_us == version && has_news())
    }

    /// The parts of blobs under way that the peer was not told, and that it does not have itself.
    fn parts_to_tell<'a>(
        &'a self,
        version: u64,
        stored: &'a Stored,
    ) -> impl Iterator<Item = (u32, Mask)> + 'a {
        let news = stored.under_way().map(move |(position, mask)| {
            let known = self.told_parts.get(&position).copied().unwrap_or_default();
            (position, mask - known - self.parts(version, position.into()))
        });
        news.filter(|(_, mask)| !mask.is_empty())
    }

    /// When the peer was last told something.
    pub(super) fn told_at(&self) -> Option<Instant> {
        self.told_at
    }

    /// The next part of what we have stored of a version.
    pub(super) fn tell_more(&mut self, version: u64, stored: &Stored, now: Instant) -> Tell {
        let mut have = Have { replaces: mem::take(&mut self.takes_back), ..Have::default() };
        if self.asked_us != version {
            return self.tell(have, now);
        }
        let news = stored.since(self.told);
        if self.told == 0 && news.len() * 4 > stored.bitmap().len() {
            self.told = stored.len();
            have.bitmap = stored.bitmap().to_vec();
        } else {
            let news = &news[..news.len().min(HAVE_POSITIONS_MAX)];
            self.told += news.len();
            // What the peer has too, it need not know of us.
            let is_unknown = |at: &&u32| self.parts(version, u64::from(**at)) != Mask::ALL;
            have.positions = news.iter().filter(is_unknown).copied().collect();
        }
        have.under_way = self.parts_to_tell(version, stored).take(HAVE_UNDER_WAY_TOLD_MAX).collect();
        self.told_parts.retain(|position, _| stored.is_under_way(*position));
        for (position, mask) in &have.under_way {
            let told = self.told_parts.entry(*position).or_default();
            *told = *told | *mask;
        }
        self.tell(have, now)
    }

    fn tell(&mut self, have: Have, now: Instant) -> Tell {
        if have == Have::default() {
            return Tell::Nothing;
        }
        self.told_at = Some(now);
        Tell::Now(have)
    }
}
