//! What peers say of channels and swarms, and what the DHT answers.

use alloc::collections::{BTreeMap, BTreeSet};

use super::super::api::{DhtError, JobResult};
use super::super::dht::Purpose;
use super::{Channels, Env, Topic};
use crate::bep44::SignedItem;
use crate::codec::{Have, Message, Tag};
use crate::error::Violation;
use crate::identity::PublicKey;
use crate::ids::ConnId;
use crate::suite::Suite;

/// What GET_HEAD comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GetHead {
    Answered,
    /// It is a favour: the gateway is to look the channel up.
    LookUp(PublicKey),
}

impl Channels {
    // --- HELLO ----------------------------------------------------------------------------------------------

    /// Names our swarms to a peer that has just come.
    pub(crate) fn watch<S: Suite>(&mut self, env: &mut Env<'_, S>, conn: ConnId) {
        self.swarms.watch(env.cx, env.conns, conn);
    }

    /// A peer names sequences.
    pub(crate) fn on_sequences<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        sequences: &BTreeMap<PublicKey, u64>,
    ) {
        self.heads.on_gossip(env.cx, sequences);
    }

    // --- WATCH, GET_HEAD, HEAD ------------------------------------------------------------------------------

    /// A peer names its swarms: those that we have in common.
    pub(crate) fn on_watch(&mut self, conn: ConnId, tags: &[Tag]) -> BTreeMap<Topic, Tag> {
        let common = self.swarms.on_watch(conn, tags);
        let channels: BTreeSet<PublicKey> =
            common.keys().filter_map(|topic| self.swarms.channel(topic)).collect();
        self.heads.keep_watched(conn, &channels);
        common
    }

    /// The peer is part of a swarm that we are part of too.
    pub(crate) fn on_watched<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        topic: Topic,
        tag: Tag,
    ) {
        let channel = self.swarms.channel(&topic);
        let is_new = match channel {
            Some(channel) => self.heads.note_watched(conn, channel),
            None => !self.swarms.is_shared(conn, &topic),
        };
        if is_new {
            self.heads.ask(env.conns, conn, (topic, tag), channel);
        }
        self.swarms.on_watched(env.cx, env.conns, conn, topic, tag);
    }

    /// A peer asks for a head. `may_look_up`: we look heads up for others.
    pub(crate) fn on_get_head<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        (tag, known, look_up): (Tag, u64, Option<PublicKey>),
        may_look_up: bool,
    ) -> GetHead {
        let topic = self.swarms.topic(conn, &tag);
        let ours = topic.and_then(|topic| self.swarms.channel(&topic));
        match (ours, look_up) {
            (None, Some(channel)) if topic.is_none() => return GetHead::LookUp(channel),
            (Some(channel), Some(_)) if may_look_up && !self.heads.is_on_dht(&channel) => {
                return GetHead::LookUp(channel);
            }
            (Some(channel), _) => self.heads.answer(env.conns, conn, tag, channel, known),
            (None, _) => {
                if let Some(line) = env.conns.get_mut(conn) {
                    line.push(&Message::Head(tag, None));
                }
            }
        }
        if let (Some(topic), None) = (topic, look_up) {
            // It may have named the swarm before we were part of it.
            self.on_watched(env, conn, topic, tag);
        }
        GetHead::Answered
    }

    /// A peer sends the head of the channel that a tag means. `true`: it is news, and to be offered ([`Self::offer`]).
    ///
    /// # Errors
    /// It is forged.
    pub(crate) fn on_head<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        tag: &Tag,
        item: &SignedItem,
    ) -> Result<bool, Violation> {
        let topic = self.swarms.topic(conn, tag);
        match topic.and_then(|topic| self.swarms.channel(&topic)) {
            Some(channel) => self.heads.on_head(env.conns, conn, channel, item),
            None => Ok(false),
        }
    }

    // --- ASK_HAVE, HAVE -------------------------------------------------------------------------------------

    pub(crate) fn on_ask_have<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        tag: Tag,
        version: u64,
    ) {
        self.swarms.on_ask_have(env.cx, env.conns, conn, tag, version);
    }

    pub(crate) fn on_have<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        (tag, version): (Tag, u64),
        have: Have,
    ) {
        if let Some((topic, replaces)) = self.swarms.on_have(env.conns, conn, tag, version, have) {
            env.downloads.has_more_of(conn, topic, replaces);
        }
    }

    /// There is room on a connection for what had none.
    pub(crate) fn on_room<S: Suite>(&mut self, env: &mut Env<'_, S>, conn: ConnId) {
        self.heads.ask_due(env.conns, &self.swarms, conn);
        self.heads.send_due(env.conns, &self.swarms, conn);
        self.swarms.ask_again(env.conns, conn);
    }

    // --- the DHT --------------------------------------------------------------------------------------------

    /// A look-up of a head has found a properly signed item of its channel.
    pub(crate) fn on_polled<S: Suite>(&mut self, env: &mut Env<'_, S>, item: SignedItem) {
        self.heads.on_polled(env.cx, item);
    }

    /// An operation has started: what recurs is due an interval later.
    pub(crate) fn on_dht_started<S: Suite>(&mut self, env: &mut Env<'_, S>, purpose: Purpose) {
        match purpose {
            Purpose::Poll(channel) | Purpose::Reput(channel) => {
                self.heads.on_dht_started(env.cx, purpose);
                self.wait_for_channel(env.cx, channel);
            }
            Purpose::Lookup(topic, hash) => {
                self.swarms.on_look_up_started(env.cx, &topic, hash);
                self.wait_for_swarm(env.cx, topic);
            }
            _ => {}
        }
    }

    /// An operation has ended. Without a DHT nothing is tried sooner.
    pub(crate) fn on_dht_done<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        purpose: Purpose,
        result: &JobResult,
    ) {
        match (purpose, result) {
            (Purpose::Poll(channel), JobResult::DhtDone(done)) => {
                self.heads.on_poll_done(env.cx, channel, done.err());
                if let Some(topic) = self.heads.topic(&channel) {
                    self.report_satisfied(env, topic);
                }
            }
            (Purpose::Reput(channel), _) => self.heads.on_put_done(env.cx, channel, result),
            (Purpose::Lookup(topic, _), JobResult::DhtDone(Err(error))) if *error != DhtError::Disabled => {
                self.swarms.on_look_up_failed(env.cx, topic);
            }
            _ => {}
        }
    }
}
