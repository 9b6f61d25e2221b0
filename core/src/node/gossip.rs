//! News between peers (`docs/protocol.md` §10 and §12): which channels both follow, and their newest heads.
//!
//! To a v5 peer a node names its public channels by their keys. To a v6 peer it names channels by tags only, padded
//! with random ones: a peer recognises the channels it knows and learns nothing of others. A head goes at once to
//! each peer that watches its channel.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::conns::Entry;
use super::have::Share;
use super::{Node, Timer};
use crate::bep44::SignedItem;
use crate::codec::{Message, Tag, VERSION};
use crate::error::Violation;
use crate::identity::PublicKey;
use crate::ids::{ConnId, Topic};
use crate::limits::{GOSSIP_CHANNELS_MAX, KEEP_ALIVE, WATCH_BYTES_PER_SEC, WATCH_PADDING};
use crate::suite::Suite;
use crate::uri;

/// What two v6 peers tell each other over one connection.
#[derive(Default)]
pub(super) struct Gossip {
    /// Whether the peer's HELLO offered it.
    is_on: bool,
    /// Our channels by their names on this connection.
    tags: BTreeMap<Tag, PublicKey>,
    /// Channels that the peer watches, of those that we follow.
    watched: BTreeSet<PublicKey>,
    /// The sequences that the peer has, as far as we know.
    has: BTreeMap<PublicKey, i64>,
    /// Channels whose head is to be sent once there is room.
    due: BTreeSet<PublicKey>,
    /// There was no room to ask what the peer has.
    pub(super) ask_due: bool,
    /// What both told each other of the blobs of channels that the peer watches.
    pub(super) shares: BTreeMap<PublicKey, Share>,
}

impl Gossip {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The channel of ours that the peer means.
    pub(super) fn channel(&self, tag: &Tag) -> Option<PublicKey> {
        self.tags.get(tag).copied()
    }

    /// Whether the peer has said of next to no blob that it has it.
    pub(super) fn is_poor(&self) -> bool {
        self.shares.values().all(Share::is_poor)
    }

    /// What a channel is called on this connection.
    pub(super) fn tag(&self, channel: &PublicKey) -> Option<Tag> {
        self.tags.iter().find(|(_, key)| *key == channel).map(|(tag, _)| *tag)
    }
}

impl<S: Suite> Node<S> {
    /// The HELLO for a peer of a version that is not known, or is v6: it names no channel.
    pub(super) fn first_hello(&self) -> Message {
        Message::Hello { version: Some(VERSION), sequences: BTreeMap::new(), port: self.config.listen_port }
    }

    /// The HELLO for a v5 peer: the sequences of the public channels that we follow, the newest [`GOSSIP_CHANNELS_MAX`].
    fn v5_hello(&self) -> Message {
        let public = self.channels.iter().filter(|(_, c)| c.read_key.is_none() && c.sequence > 0);
        let mut newest: Vec<(u64, PublicKey)> = public.map(|(key, c)| (c.sequence, *key)).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let sequences = newest.into_iter().take(GOSSIP_CHANNELS_MAX).map(|(seq, key)| (key, seq)).collect();
        Message::Hello { version: Some(VERSION), sequences, port: self.config.listen_port }
    }

    pub(super) fn on_hello(
        &mut self,
        conn: ConnId,
        version: Option<u64>,
        sequences: &BTreeMap<PublicKey, u64>,
    ) {
        let is_v6 = version.is_some_and(|v| v >= VERSION);
        let answer = if is_v6 { self.first_hello() } else { self.v5_hello() };
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let is_first = !mem::replace(&mut entry.speaks_hello, true);
        if entry.is_outbound() {
            entry.is_v5 = !is_v6;
            self.peers.speaks(&entry.peer, !is_v6);
        }
        // A listener answers the first HELLO; it sends none unasked, as a plain fetcher may not expect one. A dialler
        // names its channels once it knows that the peer is v5.
        if is_first && (!entry.is_outbound() || !is_v6) {
            entry.conn.push(&answer);
        }
        if is_first && is_v6 {
            entry.gossip.is_on = true;
            self.cx.set_timer_sooner(Timer::Conn(conn), self.cx.now() + KEEP_ALIVE);
            self.watch(conn);
            self.announce_to(conn);
        }
        self.with_publications(|publications, env| publications.on_hello(env, conn));
        self.assign_due = true;
        self.peers.seek_soon(&self.cx);
        self.on_gossip(sequences);
    }

    /// Names our channels to a peer, and asks for the heads of those that it knows; how many names these were.
    fn watch(&mut self, conn: ConnId) -> Option<usize> {
        let topics: Vec<(PublicKey, Topic)> = self.channels.iter().map(|(key, c)| (*key, c.topic)).collect();
        let random: Vec<[u8; 32]> = (0..WATCH_PADDING).map(|_| self.cx.rng().bytes_32()).collect();
        let entry = self.conns.get_mut(conn).filter(|e| e.gossip.is_on)?;
        let key = entry.conn.tag_key()?;
        let tags: BTreeMap<Tag, PublicKey> =
            topics.iter().map(|(k, topic)| (uri::tag(key, topic), *k)).collect();
        // In order of value, the random ones cannot be told from the others.
        let padding = WATCH_PADDING - tags.len() % WATCH_PADDING;
        let random = random.iter().take(padding).map(|bytes| Tag(core::array::from_fn(|i| bytes[i])));
        let all: BTreeSet<Tag> = tags.keys().copied().chain(random).collect();
        entry.gossip.tags = tags;
        let count = all.len();
        entry.conn.push(&Message::Watch(all.into_iter().collect()));
        self.wake_driver(conn);
        Some(count)
    }

    /// The channels that we follow have changed. Who follows many tells so the less often, the more there are.
    pub(super) fn watch_anew(&mut self) {
        if self.cx.now() < self.watch_next {
            return self.cx.set_timer_sooner(Timer::Watch, self.watch_next);
        }
        let told = self.conns.ids().into_iter().filter_map(|id| self.watch(id)).max();
        let bytes = (told.unwrap_or(0) * size_of::<Tag>()) as u64;
        self.watch_next = self.cx.now() + Duration::from_secs(bytes) / WATCH_BYTES_PER_SEC;
    }

    /// The channels that the peer follows; it follows no others any more.
    pub(super) fn on_watch(&mut self, conn: ConnId, tags: &[Tag]) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let gossip = &mut entry.gossip;
        let common: BTreeMap<PublicKey, Tag> =
            tags.iter().filter_map(|tag| gossip.tags.get(tag).map(|key| (*key, *tag))).collect();
        gossip.watched.retain(|channel| common.contains_key(channel));
        let (kept, gone) =
            mem::take(&mut gossip.shares).into_iter().partition(|(channel, _)| common.contains_key(channel));
        gossip.shares = kept;
        let reached = Some(&entry.peer).filter(|_| entry.is_outbound() && !common.is_empty()).cloned();
        self.forget_shares(&gone);
        if let Some(addr) = reached {
            self.peers.remember(&mut self.cx, &addr);
        }
        for (channel, tag) in common {
            self.on_watched(conn, channel, tag);
        }
    }

    /// The peer follows a channel that we follow too.
    fn on_watched(&mut self, conn: ConnId, channel: PublicKey, tag: Tag) {
        let known = self.channels.get(&channel).map_or(0, |c| c.newest_seq());
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if entry.gossip.watched.insert(channel) {
            entry.conn.push(&Message::GetHead { tag, known, look_up: None });
        }
        entry.gossip.shares.entry(channel).or_insert_with(|| Share::new(tag));
        self.ask_have(conn, channel);
        self.tell_peer(conn, channel);
    }

    pub(super) fn on_get_head(&mut self, conn: ConnId, tag: Tag, known: u64, look_up: Option<PublicKey>) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(channel) = entry.gossip.tags.get(&tag).copied() else {
            return match look_up {
                Some(channel) => {
                    let asked = (tag, channel, known);
                    self.gateway.look_up(&mut self.cx, &mut self.conns, &mut self.dht, conn, asked);
                }
                None => entry.conn.push(&Message::Head(tag, None)),
            };
        };
        // What peers told us of the channel does not prove that it is on the DHT.
        let is_found = self.channels.get(&channel).is_some_and(|c| c.is_found());
        if look_up.is_some() && self.gateway.is_on() && !is_found {
            let asked = (tag, channel, known);
            return self.gateway.look_up(&mut self.cx, &mut self.conns, &mut self.dht, conn, asked);
        }
        let item = self.channels.get(&channel).and_then(|c| c.item.clone());
        let item = item.filter(|item| item.seq.unsigned_abs() > known);
        let seq = item.as_ref().map_or(i64::try_from(known).unwrap_or(i64::MAX), |item| item.seq);
        entry.gossip.has.insert(channel, seq);
        entry.conn.push(&Message::Head(tag, item));
        if look_up.is_none() {
            // It may have named the channel before we followed it.
            self.on_watched(conn, channel, tag);
        }
    }

    pub(super) fn on_head(&mut self, conn: ConnId, tag: Tag, item: Option<SignedItem>) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(channel) = entry.gossip.tags.get(&tag).copied() else {
            return self.with_publications(|p, env| p.on_head(env, conn, item.as_ref()));
        };
        let Some(item) = item else { return self.with_publications(|p, env| p.on_head(env, conn, None)) };
        let state = self.channels.get(&channel);
        let is_known = state.is_some_and(|c| c.item.as_ref() == Some(&item));
        if item.key != channel || !(is_known || item.verify()) {
            // An honest peer checks a head before it passes it on.
            return self.shut_out(conn, Violation::ForgedHead);
        }
        if entry.gossip.has.get(&channel).is_none_or(|seq| *seq < item.seq) {
            entry.gossip.has.insert(channel, item.seq);
            entry.conn.was_news(u64::MAX);
        }
        let is_news = state.is_none_or(|c| c.is_news(&item));
        self.with_publications(|p, env| p.on_head(env, conn, Some(&item)));
        if is_news {
            self.offer_head(item);
        }
    }

    /// A newer head of ours is durable: tell everybody who watches.
    pub(super) fn spread_head(&mut self, channel: PublicKey) {
        let v5_hello = self.v5_hello();
        let is_public = self.channels.get(&channel).is_some_and(|c| c.read_key.is_none());
        for id in self.conns.ids() {
            let Some(entry) = self.conns.get_mut(id) else { continue };
            if entry.gossip.is_on {
                if entry.gossip.watched.contains(&channel) {
                    entry.gossip.due.insert(channel);
                    self.send_heads(id);
                }
            } else if is_public && entry.speaks_hello && entry.conn.has_control_room() {
                entry.conn.push(&v5_hello);
            }
            self.wake_driver(id);
        }
    }

    /// Sends the heads that are due, as far as there is room.
    pub(super) fn send_heads(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Entry { gossip, conn, .. } = entry;
        while conn.has_control_room() {
            let Some(channel) = gossip.due.pop_first() else { return };
            let tag = gossip.tag(&channel);
            let item = self.channels.get(&channel).and_then(|c| c.item.clone());
            let (Some(tag), Some(item)) = (tag, item) else { continue };
            if gossip.has.get(&channel).is_none_or(|seq| *seq < item.seq) {
                gossip.has.insert(channel, item.seq);
                conn.push(&Message::Head(tag, Some(item)));
            }
        }
    }
}
