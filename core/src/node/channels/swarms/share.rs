//! What a peer and we told each other of a swarm.

use alloc::vec::Vec;

use super::positions::{Positions, Stored};
use crate::codec::{Have, Tag};
use crate::limits::{HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX};
use crate::time::Instant;

/// What a peer has of a version.
#[derive(Debug)]
pub(super) struct Theirs {
    version: u64,
    is_all: bool,
    positions: Positions,
}

impl Theirs {
    /// Nothing, as far as it said.
    pub(super) fn new(version: u64) -> Self {
        Self { version, is_all: false, positions: Positions::default() }
    }

    pub(super) fn all(version: u64) -> Self {
        Self { version, is_all: true, positions: Positions::default() }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// `true`: it was not said before. Of a peer that has all, nothing is.
    pub(super) fn add(&mut self, position: usize) -> bool {
        !self.is_all && self.positions.add(position)
    }

    /// The positions that were said; none where the peer has all.
    pub(super) fn listed(&self) -> impl Iterator<Item = usize> {
        self.positions.iter()
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
    told_all: u64,
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
        Self { tag, theirs: None, asked_them: 0, asked_us: 0, told: 0, told_all: 0, told_at: None }
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

    pub(super) fn set_theirs(&mut self, theirs: Theirs) {
        self.theirs = Some(theirs);
    }

    /// Whether the peer has a blob of a version, as far as it said; beyond what HAVE tells it may.
    pub(super) fn has(&self, version: u64, position: u64) -> bool {
        let Some(theirs) = self.theirs.as_ref().filter(|theirs| theirs.version == version) else {
            return false;
        };
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        theirs.is_all || position >= HAVE_BLOBS_MAX || theirs.positions.has(position)
    }

    /// The version of which the peer has all.
    pub(super) fn all_of(&self) -> Option<u64> {
        self.theirs.as_ref().filter(|theirs| theirs.is_all).map(|theirs| theirs.version)
    }

    /// Memory that the peer's positions take.
    pub(super) fn bytes(&self) -> usize {
        self.theirs.as_ref().map_or(0, |theirs| theirs.positions.bitmap().len())
    }

    // --- asking it ------------------------------------------------------------------------------------------

    /// Whether the peer is to be asked what it has of a version: once, and not where it has all.
    pub(super) fn is_to_be_asked(&self, version: u64) -> bool {
        self.asked_them != version && self.all_of() != Some(version)
    }

    pub(super) fn asked(&mut self, version: u64) {
        self.asked_them = version;
    }

    // --- telling it -----------------------------------------------------------------------------------------

    /// Another version is the newest: what was said of earlier ones no longer counts. A peer may have learnt of it before us.
    pub(super) fn begin_version(&mut self, version: u64) {
        self.theirs = self.theirs.take().filter(|theirs| theirs.version >= version);
        self.told = 0;
    }

    /// We have lost some of what we told that we have.
    pub(super) fn take_back_all(&mut self) {
        (self.asked_them, self.told_all) = (0, 0);
    }

    /// The peer asks what we have of a version. `false`: it is told already. A peer that said that it has all has lost some.
    pub(super) fn on_asked(&mut self, version: u64) -> bool {
        let had_all = self.all_of() == Some(version);
        // Each version is told once, but to a peer that had all of it.
        if version > self.asked_us {
            (self.asked_us, self.told, self.told_all, self.told_at) = (version, 0, 0, None);
        } else if version < self.asked_us || !had_all {
            return false;
        }
        if had_all {
            (self.theirs, self.told, self.told_all) = (None, 0, 0);
        }
        true
    }

    /// Whether the peer knows all that there is to say of a version.
    pub(super) fn knows_all(&self, version: u64) -> bool {
        self.told_all == version || self.all_of() == Some(version)
    }

    /// That we have all of a version, which is said unasked too, so that a peer that is missing something knows it at once.
    pub(super) fn tell_all(&mut self, version: u64, now: Instant) -> Have {
        (self.told_all, self.told_at) = (version, Some(now));
        Have::All
    }

    /// Whether the peer asked for a version, and there is something that it was not told.
    pub(super) fn is_behind(&self, version: u64, stored: &Stored) -> bool {
        self.asked_us == version && self.told < stored.len()
    }

    /// When the peer was last told something.
    pub(super) fn told_at(&self) -> Option<Instant> {
        self.told_at
    }

    /// The next part of what we have stored of a version.
    pub(super) fn tell_more(&mut self, version: u64, stored: &Stored, now: Instant) -> Tell {
        let news = stored.since(self.told);
        let have = if self.told == 0 && news.len() * 4 > stored.bitmap().len() {
            self.told = stored.len();
            Have::Bitmap(stored.bitmap().to_vec())
        } else {
            let news = &news[..news.len().min(HAVE_POSITIONS_MAX)];
            self.told += news.len();
            // What the peer has too, it need not know of us.
            let unknown = news.iter().filter(|position| !self.has(version, u64::from(**position)));
            let unknown: Vec<u32> = unknown.copied().collect();
            if unknown.is_empty() {
                return Tell::Nothing;
            }
            Have::Positions(unknown)
        };
        self.told_at = Some(now);
        Tell::Now(have)
    }
}
