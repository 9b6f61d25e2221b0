//! Who has what (`docs/protocol.md` §12): a node asks the peers that watch a channel what they have of its newest
//! version, tells those that ask, and counts how rare each blob is among its connections.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use super::scheduler::Place;
use super::{Node, Timer};
use crate::codec::{Have, Message, Tag};
use crate::identity::PublicKey;
use crate::ids::ConnId;
use crate::limits::{HAVE_BLOBS_MAX, HAVE_BYTES_MAX, HAVE_INTERVAL, HAVE_POSITION_BYTES, HAVE_POSITIONS_MAX};
use crate::suite::Suite;
use crate::time::Instant;

/// Of so many new positions in one HAVE is looked whether somebody else is waited for.
const NEWS_MAX: usize = 64;

/// Positions, up to [`HAVE_BLOBS_MAX`]; those beyond are left out. Takes memory up to the highest one in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions(Vec<u8>);

impl Positions {
    /// `true`: it is new.
    fn add(&mut self, position: usize) -> bool {
        if position >= HAVE_BLOBS_MAX {
            return false;
        }
        if self.0.len() <= position / 8 {
            self.0.resize(position / 8 + 1, 0);
        }
        let (byte, bit) = (&mut self.0[position / 8], 0x80 >> (position % 8));
        let is_new = *byte & bit == 0;
        *byte |= bit;
        is_new
    }

    fn has(&self, position: usize) -> bool {
        self.0.get(position / 8).is_some_and(|byte| byte & (0x80 >> (position % 8)) != 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let bytes = self.0.iter().enumerate().filter(|(_, byte)| **byte != 0);
        bytes.flat_map(|(i, byte)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| i * 8 + bit)
        })
    }
}

/// What we have of a channel's version, in the order in which it was stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    positions: Positions,
    log: Vec<u32>,
}

impl Stored {
    pub(super) fn add(&mut self, position: u64) {
        if let Ok(position) = u32::try_from(position)
            && self.positions.add(position as usize)
        {
            self.log.push(position);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    /// All is stored, which is said in fewer words.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What a peer has of a channel's version.
#[derive(Debug)]
struct Theirs {
    sequence: u64,
    is_all: bool,
    positions: Positions,
}

/// What a peer and we told each other of a channel.
#[derive(Debug)]
pub(super) struct Share {
    /// What the channel is called on this connection.
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

impl Share {
    pub(super) fn new(tag: Tag) -> Self {
        Self { tag, theirs: None, asked_them: 0, asked_us: 0, told: 0, told_all: 0, told_at: None }
    }

    /// Whether the peer has a blob of version `sequence`, as far as it said; beyond what HAVE tells it may.
    pub(super) fn has(&self, sequence: u64, position: u64) -> bool {
        let Some(theirs) = self.theirs.as_ref().filter(|theirs| theirs.sequence == sequence) else {
            return false;
        };
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        theirs.is_all || position >= HAVE_BLOBS_MAX || theirs.positions.has(position)
    }

    /// Whether the peer has said of next to no blob that it has it.
    pub(super) fn is_poor(&self) -> bool {
        self.theirs.as_ref().is_none_or(|theirs| !theirs.is_all && theirs.positions.iter().nth(2).is_none())
    }

    /// Memory that the peer's positions take.
    fn bytes(&self) -> usize {
        self.theirs.as_ref().map_or(0, |theirs| theirs.positions.0.len())
    }

    /// The version of which the peer has all.
    pub(super) fn all_of(&self) -> Option<u64> {
        self.theirs.as_ref().filter(|theirs| theirs.is_all).map(|theirs| theirs.sequence)
    }
}

/// How many connected peers have each blob of a version that we fetch.
#[derive(Debug, Default)]
pub(super) struct Holders {
    pub(super) sequence: u64,
    /// The blobs of the version, as far as we know; positions beyond them are not counted, as anybody can claim them.
    total: u64,
    counts: Vec<u16>,
}

impl Holders {
    /// Peers that have every blob are not counted: they make none rarer than another.
    pub(super) fn count(&self, position: u64) -> u16 {
        usize::try_from(position).ok().and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }

    fn change(&mut self, position: usize, by: i16) {
        if position as u64 >= self.total {
            return;
        }
        if self.counts.len() <= position {
            self.counts.resize(position + 1, 0);
        }
        self.counts[position] = self.counts[position].saturating_add_signed(by);
    }

    fn change_all(&mut self, theirs: &Theirs, by: i16) {
        if theirs.sequence == self.sequence && !theirs.is_all {
            theirs.positions.iter().for_each(|position| self.change(position, by));
        }
    }
}

impl<S: Suite> Node<S> {
    /// A channel's newest version is another: what was said of others no longer counts.
    pub(super) fn begin_holders(&mut self, channel: PublicKey, sequence: u64) {
        for entry in self.conns.entries_mut() {
            let Some(share) = entry.gossip.shares.get_mut(&channel) else { continue };
            // A peer may have learnt of the version before us.
            share.theirs = share.theirs.take().filter(|theirs| theirs.sequence >= sequence);
            share.told = 0;
        }
        self.count_holders(channel, sequence);
        self.note_all();
        self.tell_stored(channel);
    }

    /// Counts again who has what.
    fn count_holders(&mut self, channel: PublicKey, sequence: u64) {
        let total = self.channels.get(&channel).and_then(|c| c.fetch()).map_or(0, |fetch| fetch.blobs_total);
        let mut holders = Holders { sequence, total, counts: vec![] };
        for (_, entry) in self.conns.entries() {
            if let Some(theirs) = entry.gossip.shares.get(&channel).and_then(|share| share.theirs.as_ref()) {
                holders.change_all(theirs, 1);
            }
        }
        self.holders.insert(channel, holders);
    }

    /// The channel's fetch has gone on: it may know of more blobs.
    pub(super) fn note_total(&mut self, channel: PublicKey, total: u64) {
        let counted = self.holders.get(&channel).filter(|holders| holders.total != total);
        if let Some(sequence) = counted.map(|holders| holders.sequence) {
            self.count_holders(channel, sequence);
        }
    }

    /// Blobs of the channel lack: who has them?
    pub(super) fn ask_who_has(&mut self, channel: PublicKey) {
        for id in self.conns.ids() {
            self.ask_have(id, channel);
        }
    }

    /// Asks a peer what it has of a channel of which blobs lack, once for each version.
    pub(super) fn ask_have(&mut self, conn: ConnId, channel: PublicKey) {
        let Some(sequence) = self.channels.get(&channel).and_then(|c| c.lacks()) else {
            return;
        };
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(share) = entry.gossip.shares.get_mut(&channel) else { return };
        if share.asked_them == sequence || share.all_of() == Some(sequence) {
            return;
        }
        if !entry.conn.has_control_room() {
            entry.gossip.ask_due = true;
            return;
        }
        share.asked_them = sequence;
        entry.conn.push(&Message::AskHave(share.tag, sequence));
        self.wake_driver(conn);
    }

    /// There may be room for the questions that had none.
    pub(super) fn ask_again(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if mem::take(&mut entry.gossip.ask_due) {
            let channels: Vec<PublicKey> = entry.gossip.shares.keys().copied().collect();
            for channel in channels {
                self.ask_have(conn, channel);
            }
        }
    }

    pub(super) fn on_ask_have(&mut self, conn: ConnId, tag: Tag, sequence: u64) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(channel) = entry.gossip.channel(&tag) else { return };
        let Some(share) = entry.gossip.shares.get_mut(&channel) else { return };
        // Each version is told once, but to who had all of it and has lost some.
        if sequence > share.asked_us {
            (share.asked_us, share.told, share.told_all, share.told_at) = (sequence, 0, 0, None);
        } else if sequence < share.asked_us || share.all_of() != Some(sequence) {
            return;
        }
        if share.all_of() == Some(sequence) {
            (share.theirs, share.told, share.told_all) = (None, 0, 0);
        }
        self.tell_peer(conn, channel);
    }

    /// We have lost blobs of a channel's newest version: peers are asked again what they have, which tells them, and are
    /// told again what we have.
    pub(super) fn take_back_all(&mut self, channel: PublicKey) {
        for entry in self.conns.entries_mut() {
            if let Some(share) = entry.gossip.shares.get_mut(&channel) {
                (share.asked_them, share.told_all) = (0, 0);
            }
        }
    }

    pub(super) fn on_have(&mut self, conn: ConnId, tag: Tag, sequence: u64, have: Have) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(channel) = entry.gossip.channel(&tag) else { return };
        let others = entry.gossip.shares.iter().filter(|(key, _)| **key != channel);
        let room = HAVE_BYTES_MAX.saturating_sub(others.map(|(_, share)| share.bytes()).sum());
        let Some(share) = entry.gossip.shares.get_mut(&channel) else { return };
        let holders = self.holders.entry(channel).or_default();
        // Of other versions than ours, and where nothing lacks, only what takes no room is kept.
        let lacks = self.channels.get(&channel).and_then(|c| c.lacks()) == Some(sequence);
        if sequence < holders.sequence || (!lacks && have != Have::All) {
            return;
        }
        if let Some(earlier) = share.theirs.as_ref().filter(|theirs| theirs.sequence != sequence) {
            holders.change_all(earlier, -1);
        }
        let theirs = share.theirs.take().filter(|theirs| theirs.sequence == sequence);
        let mut theirs =
            theirs.unwrap_or(Theirs { sequence, is_all: false, positions: Positions::default() });
        let (mut news, mut news_count) = (Vec::new(), 0);
        let mut add = |position: usize| {
            // Positions that the version does not have are never asked for; the bound holds for them too.
            if !theirs.is_all && position / 8 < room && theirs.positions.add(position) {
                holders.change(position, 1);
                news_count += 1;
                if news.len() < NEWS_MAX {
                    news.push(position as u64);
                }
            }
        };
        match have {
            Have::All => {
                holders.change_all(&theirs, -1);
                theirs = Theirs { sequence, is_all: true, positions: Positions::default() };
            }
            Have::Bitmap(bits) => Positions(bits).iter().for_each(add),
            Have::Positions(positions) => positions.iter().for_each(|position| add(*position as usize)),
        }
        share.theirs = Some(theirs);
        entry.conn.was_news(news_count * HAVE_POSITION_BYTES);
        entry.dry = 0;
        self.assign_due = true;
        self.relieve_seeds(conn, channel, &news);
    }

    /// A connection is gone: what its peer has is no longer at hand.
    pub(super) fn forget_shares(&mut self, shares: &BTreeMap<PublicKey, Share>) {
        for (channel, share) in shares {
            if let (Some(theirs), Some(holders)) = (&share.theirs, self.holders.get_mut(channel)) {
                holders.change_all(theirs, -1);
            }
        }
    }

    /// More of a channel is stored: those that asked are told, all at the same times; that all is there, at once.
    pub(super) fn tell_stored(&mut self, channel: PublicKey) {
        let fetch = self.channels.get(&channel).and_then(|c| c.fetch());
        if fetch.is_some_and(super::fetch::Fetch::is_complete) {
            return self.tell_peers(channel);
        }
        self.have_due.insert(channel);
        self.tell_due();
    }

    /// Tells of the channels of which there is more to tell, not more often than each [`HAVE_INTERVAL`].
    pub(super) fn tell_due(&mut self) {
        let next = self.told_at + HAVE_INTERVAL;
        if self.cx.now() < next {
            return self.cx.set_timer_sooner(Timer::Have, next);
        }
        self.told_at = self.cx.now();
        for channel in mem::take(&mut self.have_due) {
            self.tell_peers(channel);
        }
    }

    fn tell_peers(&mut self, channel: PublicKey) {
        for id in self.conns.ids() {
            self.tell_peer(id, channel);
        }
    }

    /// Tells a peer what it does not know yet, not more often than each [`HAVE_INTERVAL`]; that all is there, at once.
    pub(super) fn tell_peer(&mut self, conn: ConnId, channel: PublicKey) {
        let now = self.cx.now();
        let Some(state) = self.channels.get(&channel) else { return };
        let Some(fetch) = state.fetch() else { return };
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(share) = entry.gossip.shares.get_mut(&channel) else { return };
        let sequence = fetch.sequence;
        if share.told_all == sequence || share.all_of() == Some(sequence) {
            return;
        }
        if !entry.conn.has_control_room() {
            return self.tell_later(channel);
        }
        let have = if fetch.is_complete() {
            // Also unasked, so that who lacks something knows it at once.
            share.told_all = sequence;
            Have::All
        } else if share.asked_us != sequence || share.told >= fetch.stored.len() {
            return;
        } else if share.told_at.is_some_and(|at| at + HAVE_INTERVAL > now) || !entry.haves_out.take(now) {
            return self.tell_later(channel);
        } else {
            let news = &fetch.stored.log[share.told..];
            let bitmap = &fetch.stored.positions.0;
            if share.told == 0 && news.len() * 4 > bitmap.len() {
                share.told = fetch.stored.len();
                Have::Bitmap(bitmap.clone())
            } else {
                let news = &news[..news.len().min(HAVE_POSITIONS_MAX)];
                share.told += news.len();
                // What the peer has too, it need not know of us.
                let lacks = |position: &&u32| !share.has(sequence, u64::from(**position));
                let news: Vec<u32> = news.iter().filter(lacks).copied().collect();
                if news.is_empty() {
                    return;
                }
                Have::Positions(news)
            }
        };
        share.told_at = Some(now);
        let has_more = share.told < fetch.stored.len();
        entry.conn.push(&Message::Have(share.tag, sequence, have));
        self.wake_driver(conn);
        if has_more {
            self.tell_later(channel);
        }
    }

    fn tell_later(&mut self, channel: PublicKey) {
        self.have_due.insert(channel);
        self.cx.set_timer_sooner(Timer::Have, self.told_at + HAVE_INTERVAL);
    }

    /// How rare a blob is among the connected peers.
    pub(super) fn rarity(&self, place: &Place) -> u16 {
        self.holders.get(&place.channel).map_or(0, |holders| holders.count(place.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_bounded_and_ordered() {
        let mut positions = Positions::default();
        assert!(positions.add(70) && positions.add(0) && !positions.add(70));
        assert!(!positions.add(HAVE_BLOBS_MAX) && !positions.has(HAVE_BLOBS_MAX));
        assert!(positions.has(0) && positions.has(70) && !positions.has(71) && !positions.has(100_000));
        assert_eq!(positions.iter().collect::<Vec<_>>(), [0, 70]);
        assert_eq!((positions.0[0], positions.0.len()), (0x80, 9));
    }

    #[test]
    fn who_has_all_counts_for_no_blob() {
        let mut holders = Holders { sequence: 5, total: 5, counts: vec![] };
        let mut theirs = Theirs { sequence: 5, is_all: false, positions: Positions::default() };
        theirs.positions.add(3);
        holders.change_all(&theirs, 1);
        assert_eq!((holders.count(3), holders.count(4)), (1, 0));
        holders.change_all(&theirs, -1);
        theirs.is_all = true;
        holders.change_all(&theirs, 1);
        assert_eq!(holders.count(3), 0);
        theirs = Theirs { sequence: 4, is_all: false, positions: theirs.positions };
        holders.change_all(&theirs, 1);
        assert_eq!(holders.count(3), 0, "another version's positions mean other blobs");
        theirs.sequence = 5;
        theirs.positions.add(HAVE_BLOBS_MAX - 1);
        holders.change_all(&theirs, 1);
        assert_eq!((holders.count(3), holders.counts.len()), (1, 4), "no blob has the other position");
    }
}
