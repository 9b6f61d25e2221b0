//! Pushing heads (`docs/protocol.md` §12): a head goes at once to each peer that watches its channel.

use alloc::collections::{BTreeMap, BTreeSet};

use super::super::swarms::Swarms;
use super::{Heads, HeldHead};
use crate::bep44::SignedItem;
use crate::codec::{Message, Tag};
use crate::conn::Conn;
use crate::error::Violation;
use crate::identity::PublicKey;
use crate::ids::{ConnId, Topic};
use crate::node::conns::Conns;
use crate::suite::Suite;

/// What a v6 peer and we told each other of heads.
#[derive(Default)]
pub(super) struct Told {
    /// Channels that the peer watches, of those that we follow.
    watched: BTreeSet<PublicKey>,
    /// The sequences that the peer has, as far as we know.
    has: BTreeMap<PublicKey, u64>,
    /// Channels whose head is to be sent once there is room.
    due: BTreeSet<PublicKey>,
    /// Swarms whose head the peer is to be asked for once there is room, and their names.
    asks: BTreeMap<Topic, Tag>,
}

impl Told {
    pub(super) fn forget(&mut self, channel: &PublicKey) {
        self.watched.remove(channel);
        self.has.remove(channel);
        self.due.remove(channel);
    }

    /// Notes that the peer has a head of this sequence. `true`: that is new.
    fn note(&mut self, channel: PublicKey, sequence: u64) -> bool {
        let is_new = self.has.get(&channel).is_none_or(|known| *known < sequence);
        if is_new {
            self.has.insert(channel, sequence);
        }
        is_new
    }
}

impl Heads {
    /// The peer watches these channels, and no others any more.
    pub(crate) fn keep_watched(&mut self, conn: ConnId, channels: &BTreeSet<PublicKey>) {
        if let Some(told) = self.conns.get_mut(conn) {
            told.watched.retain(|channel| channels.contains(channel));
        }
    }

    /// Notes that the peer watches a channel that we follow. `true`: that is new.
    pub(crate) fn note_watched(&mut self, conn: ConnId, channel: PublicKey) -> bool {
        self.conns.get_mut(conn).is_some_and(|told| told.watched.insert(channel))
    }

    /// Asks a peer for a newer head than is known of a swarm's channel, as soon as there is room. Of a swarm without a head it
    /// tells that we are part of it.
    pub(crate) fn ask<S: Suite>(
        &mut self,
        conns: &mut Conns<S>,
        conn: ConnId,
        (topic, tag): (Topic, Tag),
        channel: Option<PublicKey>,
    ) {
        let known = channel.map_or(0, |channel| self.newest_sequence(&channel));
        let (Some(told), Some(line)) = (self.conns.get_mut(conn), conns.get_mut(conn)) else { return };
        if line.has_control_room() {
            line.push(&Message::GetHead { tag, known, look_up: None });
        } else {
            told.asks.insert(topic, tag);
        }
    }

    /// Whether the last look-up found the newest head on the DHT. What peers told us of a channel does not prove that.
    pub(crate) fn is_on_dht(&self, channel: &PublicKey) -> bool {
        self.by_channel.get(channel).is_some_and(|upkeep| upkeep.copies.is_some())
    }

    /// Answers GET_HEAD.
    pub(crate) fn answer<S: Suite>(
        &mut self,
        conns: &mut Conns<S>,
        conn: ConnId,
        tag: Tag,
        channel: PublicKey,
        known: u64,
    ) {
        let item = self.item(&channel).filter(|item| item.seq.unsigned_abs() > known);
        let sequence = item.as_ref().map_or(known, |item| item.seq.unsigned_abs());
        if let Some(told) = self.conns.get_mut(conn) {
            told.has.insert(channel, sequence);
        }
        if let Some(line) = conns.get_mut(conn) {
            line.push(&Message::Head(tag, item));
        }
    }

    /// The item that carries the newest durable head.
    fn item(&self, channel: &PublicKey) -> Option<SignedItem> {
        self.by_channel.get(channel)?.head.as_ref()?.item().cloned()
    }

    /// A peer sends a channel's head. `true`: it is news, and to be offered.
    ///
    /// # Errors
    /// It is forged: an honest peer checks a head before it passes it on.
    pub(crate) fn on_head<S: Suite>(
        &mut self,
        conns: &mut Conns<S>,
        conn: ConnId,
        channel: PublicKey,
        item: &SignedItem,
    ) -> Result<bool, Violation> {
        let Some(upkeep) = self.by_channel.get(&channel) else { return Ok(false) };
        let is_known = upkeep.head.as_ref().and_then(HeldHead::item) == Some(item);
        if item.key != channel || !(is_known || item.verify()) {
            return Err(Violation::ForgedHead);
        }
        let head = HeldHead::of_item(item.clone());
        let is_news = upkeep.is_news(&head);
        if self.conns.get_mut(conn).is_some_and(|told| told.note(channel, head.sequence()))
            && let Some(line) = conns.get_mut(conn)
        {
            line.was_news(u64::MAX);
        }
        Ok(is_news)
    }

    /// A newer head is durable: everybody who watches is told, and v5 peers of its sequence.
    pub(crate) fn spread<S: Suite>(&mut self, conns: &mut Conns<S>, swarms: &Swarms, channel: PublicKey) {
        let v5_hello = conns.hello(self.public_sequences());
        let is_public = self.by_channel.get(&channel).is_some_and(|upkeep| upkeep.read_key.is_none());
        for id in conns.ids() {
            if conns.speaks_v6(id) {
                if let Some(told) = self.conns.get_mut(id).filter(|told| told.watched.contains(&channel)) {
                    told.due.insert(channel);
                    self.send_due(conns, swarms, id);
                }
            } else if is_public
                && conns.has_said_hello(id)
                && let Some(line) = conns.get_mut(id).filter(|line| line.has_control_room())
            {
                line.push(&v5_hello);
            }
        }
    }

    /// Asks for the heads that there was no room to ask for, as far as there is room.
    pub(crate) fn ask_due<S: Suite>(&mut self, conns: &mut Conns<S>, swarms: &Swarms, conn: ConnId) {
        while conns.get(conn).is_some_and(Conn::has_control_room)
            && let Some(asked) = self.conns.get_mut(conn).and_then(|told| told.asks.pop_first())
        {
            if swarms.is_shared(conn, &asked.0) {
                self.ask(conns, conn, asked, swarms.channel(&asked.0));
            }
        }
    }

    /// Sends the heads that are due, as far as there is room.
    pub(crate) fn send_due<S: Suite>(&mut self, conns: &mut Conns<S>, swarms: &Swarms, conn: ConnId) {
        let (Some(told), Some(line)) = (self.conns.get_mut(conn), conns.get_mut(conn)) else { return };
        while line.has_control_room() {
            let Some(channel) = told.due.pop_first() else { return };
            let Some(upkeep) = self.by_channel.get(&channel) else { continue };
            let item = upkeep.head.as_ref().and_then(HeldHead::item);
            let (Some(tag), Some(item)) = (swarms.tag(conn, &upkeep.topic), item) else { continue };
            if told.note(channel, item.seq.unsigned_abs()) {
                line.push(&Message::Head(tag, Some(item.clone())));
            }
        }
    }
}
