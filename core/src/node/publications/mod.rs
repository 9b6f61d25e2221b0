//! Publishing our own heads, one in each channel at a time: find the newest, sign a newer one, make it durable, put it, read it back
//! (`docs/protocol.md` §11). Where there is no DHT, gateways do the first and the last two steps.

mod gateways;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::api::{Answer, DhtError, DhtOp, Draft, Event, JobResult, PublishError, Refusal, Takers};
use super::conns::Conns;
use super::cx::Cx;
use super::dht::{DhtQueue, Purpose};
use super::peers::{Peers, Source};
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::codec::Tag;
use crate::identity::{Identity, PublicKey};
use crate::ids::{CommandId, ConnId, Topic};
use crate::limits::{IDENTITIES_MAX, PUBLICATIONS_MAX, READ_BACK_PAUSE, READ_BACKS_MAX, SEQUENCE_SIGNED_MAX};
use crate::manifest::{Head, HeadContent};
use crate::suite::Suite;
use crate::time::UnixTime;
use crate::uri;
use gateways::{Gateways, Question};

/// Most puts of a head while the DHT refuses them for a newer item.
const TRIES_MAX: u32 = 3;

/// The other parts that a publication works with.
pub(super) struct Env<'a, S: Suite> {
    cx: &'a mut Cx,
    conns: &'a mut Conns<S>,
    peers: &'a mut Peers,
    dht: &'a mut DhtQueue,
}

impl<'a, S: Suite> Env<'a, S> {
    pub(super) fn new(
        cx: &'a mut Cx,
        conns: &'a mut Conns<S>,
        peers: &'a mut Peers,
        dht: &'a mut DhtQueue,
    ) -> Self {
        Self { cx, conns, peers, dht }
    }
}

/// A publication's request to the rest of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    /// Call [`Publications::sign`] with the highest sequence on record.
    Sign(PublicKey),
    /// Note that we put the newest head on the DHT.
    NotePut(PublicKey),
}

/// A head that was put and is being read back.
struct ReadBack {
    item: SignedItem,
    /// How many DHT nodes took it, without gateways.
    replicas: u32,
    /// How many look-ups have not found it.
    misses: u32,
    is_found: bool,
}

enum Phase {
    /// Looks for a head that the author published in another run or on another machine.
    Find,
    /// Makes the signed head durable: a sequence that was ever shown is never used again.
    Store(SignedItem),
    Put(SignedItem),
    ReadBack(ReadBack),
    /// Waits before it looks for the head again.
    Pause(ReadBack),
}

/// The way to the DHT.
enum Route {
    Own,
    Gateways(Box<Gateways>),
}

/// A publication in progress.
struct Publication {
    command: CommandId,
    topic: Topic,
    draft: Draft,
    phase: Phase,
    route: Route,
    tries: u32,
    /// The highest sequence found on the DHT.
    found: Option<i64>,
    /// How many nodes gave each sequence when the head was looked for last.
    copies: BTreeMap<i64, usize>,
    /// [`Event::ClockBehind`] was emitted.
    is_clock_told: bool,
}

impl Publication {
    /// Returns the gateways while the publication waits for their answers.
    fn asked(&mut self) -> Option<&mut Gateways> {
        match (&self.phase, &mut self.route) {
            (Phase::Find | Phase::Put(_) | Phase::ReadBack(_), Route::Gateways(gateways)) => Some(gateways),
            _ => None,
        }
    }

    /// Notes a properly signed item of the channel from the DHT or a gateway.
    fn on_item(&mut self, item: &SignedItem) {
        self.found = self.found.max(Some(item.seq));
        if matches!(self.phase, Phase::Find) {
            *self.copies.entry(item.seq).or_default() += 1;
        }
        if let Phase::ReadBack(read_back) | Phase::Pause(read_back) = &mut self.phase {
            read_back.is_found |= read_back.item == *item;
        }
    }
}

/// The publications, by channel, and the identities that sign.
#[derive(Default)]
pub(super) struct Publications {
    /// Boxed, so that no move leaves a copy of a secret behind.
    identities: BTreeMap<PublicKey, Box<Identity>>,
    running: BTreeMap<PublicKey, Publication>,
    /// The commands whose publications have ended, and how.
    ended: Vec<(CommandId, Result<Answer, Refusal>)>,
}

impl Publications {
    /// Takes an identity, in place of one with the same public key.
    pub(super) fn add_identity(&mut self, identity: Box<Identity>) -> Result<(), Refusal> {
        let channel = identity.public_key();
        if self.identities.len() >= IDENTITIES_MAX && !self.is_own(&channel) {
            return Err(Refusal::TooManyIdentities);
        }
        self.identities.insert(channel, identity);
        Ok(())
    }

    /// Forgets an identity.
    pub(super) fn remove_identity(&mut self, channel: &PublicKey) -> Result<(), Refusal> {
        self.identities.remove(channel).map(drop).ok_or(Refusal::NoIdentity)
    }

    /// Whether a channel is the node's own: it has the identity.
    pub(super) fn is_own(&self, channel: &PublicKey) -> bool {
        self.identities.contains_key(channel)
    }

    pub(super) fn is_active(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether a draft can be published in a channel.
    pub(super) fn admit(&self, channel: &PublicKey) -> Result<(), PublishError> {
        match self.running.len() {
            _ if !self.is_own(channel) => Err(PublishError::NoIdentity),
            _ if self.running.contains_key(channel) => Err(PublishError::Busy),
            PUBLICATIONS_MAX.. => Err(PublishError::TooMany),
            _ => Ok(()),
        }
    }

    /// Begins to publish a draft in a channel that [`Self::admit`] admits, and that the node follows under `topic`.
    pub(super) fn begin<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        command: CommandId,
        (channel, topic): (PublicKey, Topic),
        draft: Draft,
    ) -> Option<Next> {
        let route = if draft.gateways.is_empty() {
            Route::Own
        } else {
            Route::Gateways(Box::new(Gateways::new(channel, &draft.gateways, env.cx.now())))
        };
        let (phase, tries, found, copies, is_clock_told) = (Phase::Find, 0, None, BTreeMap::new(), false);
        let publication =
            Publication { command, topic, draft, phase, route, tries, found, copies, is_clock_told };
        self.running.insert(channel, publication);
        self.begin_phase(env, channel, Phase::Find)
    }

    /// Begins a phase that the DHT or the gateways answer.
    fn begin_phase<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        phase: Phase,
    ) -> Option<Next> {
        let current = self.running.get_mut(&channel)?;
        let topic = current.topic;
        current.phase = phase;
        if matches!(current.phase, Phase::Find) {
            current.copies.clear();
        }
        match (&mut current.route, &current.phase) {
            (Route::Own, Phase::Find | Phase::ReadBack(_)) => {
                env.dht.push(env.cx.now(), Purpose::Publish(channel), DhtOp::Get(channel));
            }
            (Route::Own, Phase::Put(item)) => {
                let cas = most_common(&current.copies);
                env.dht.put(env.cx.now(), Purpose::Publish(channel), item.clone(), cas);
            }
            (Route::Gateways(gateways), Phase::Find) => {
                gateways.begin(env.cx, Question::LookUp { channel, topic, known: 0 }, None);
                return self.ask_gateways(env, channel);
            }
            (Route::Gateways(gateways), Phase::Put(item)) => {
                gateways.begin(env.cx, Question::Put(item.clone()), None);
                return self.ask_gateways(env, channel);
            }
            (Route::Gateways(gateways), Phase::ReadBack(ReadBack { item, misses, .. })) => {
                let known = item.seq.unsigned_abs().saturating_sub(1);
                gateways.begin(env.cx, Question::LookUp { channel, topic, known }, Some(*misses));
                return self.ask_gateways(env, channel);
            }
            (_, Phase::Store(_) | Phase::Pause(_)) => {}
        }
        None
    }

    // --- the end --------------------------------------------------------------------------------------------

    /// Takes the commands whose publications have ended, and how.
    pub(super) fn take_ended(&mut self) -> Vec<(CommandId, Result<Answer, Refusal>)> {
        mem::take(&mut self.ended)
    }

    /// Ends a publication: the only way out of the table.
    fn end(&mut self, cx: &mut Cx, channel: PublicKey, result: Result<Answer, PublishError>) {
        if let Some(publication) = self.running.remove(&channel) {
            cx.cancel_timer(Timer::Publish(channel));
            self.ended.push((publication.command, result.map_err(Refusal::Publish)));
        }
    }

    fn fail(&mut self, cx: &mut Cx, channel: PublicKey, error: PublishError) {
        self.end(cx, channel, Err(error));
    }

    /// Ends all publications, as nothing goes on.
    pub(super) fn shutdown(&mut self, cx: &mut Cx) {
        for channel in self.running.keys().copied().collect::<Vec<_>>() {
            self.fail(cx, channel, PublishError::Shutdown);
        }
    }

    /// Ends a publication that was read back, or was not.
    fn finish(&mut self, cx: &mut Cx, channel: PublicKey, read_back: &ReadBack) {
        let Some(publication) = self.running.get(&channel) else { return };
        let published = Answer::Published {
            sequence: read_back.item.seq.unsigned_abs(),
            takers: match &publication.route {
                Route::Own => Takers::DhtNodes(read_back.replicas),
                Route::Gateways(gateways) => gateways.takers(),
            },
            inline: matches!(publication.draft.content, HeadContent::Inline(_)),
        };
        let is_found = read_back.is_found;
        self.end(cx, channel, is_found.then_some(published).ok_or(PublishError::NotReadBack));
    }

    // --- signing --------------------------------------------------------------------------------------------

    /// Signs the head with the sequence `max(known + 1, unix milliseconds)`, known from our records and the DHT. The caller
    /// makes it durable, and then calls [`Self::on_stored`].
    pub(super) fn sign(&mut self, cx: &mut Cx, channel: PublicKey, recorded: u64) -> Option<SignedItem> {
        let current = self.running.get_mut(&channel)?;
        let Some(identity) = self.identities.get(&channel) else {
            self.fail(cx, channel, PublishError::NoIdentity);
            return None;
        };
        let unix = cx.unix().0;
        let found = current.found.map_or(0, i64::unsigned_abs);
        let known = recorded.max(found);
        let sequence = unix.max(known.saturating_add(1));
        if sequence > SEQUENCE_SIGNED_MAX {
            self.fail(cx, channel, PublishError::SequenceTooHigh);
            return None;
        }
        let mut nonce = [0; 12];
        cx.rng().fill(&mut nonce);
        let seal = current.draft.read_key.as_ref().map(|key| (key, nonce));
        let text = Head::to_json(identity, sequence, unix, &current.draft.content, seal);
        let item =
            i64::try_from(sequence).ok().and_then(|seq| SignedItem::sign(identity, seq, text.into_bytes()));
        let Some(item) = item else {
            self.fail(cx, channel, PublishError::TooLarge);
            return None;
        };
        current.phase = Phase::Store(item.clone());
        current.tries += 1;
        if unix < known && !mem::replace(&mut current.is_clock_told, true) {
            let command = current.command;
            cx.event(Event::ClockBehind { command, channel, sequence, unix: UnixTime(unix) });
        }
        Some(item)
    }

    /// Fails the publication, as the signed head cannot be used and was not made durable.
    pub(super) fn fail_unusable(&mut self, cx: &mut Cx, channel: PublicKey) {
        self.fail(cx, channel, PublishError::NotDurable);
    }

    /// Whether the head of a channel and a sequence is being made durable for a publication, which fails where it is not.
    pub(super) fn is_storing(&self, channel: &PublicKey, sequence: u64) -> bool {
        let is_it =
            |phase: &Phase| matches!(phase, Phase::Store(item) if item.seq.unsigned_abs() == sequence);
        self.running.get(channel).is_some_and(|current| is_it(&current.phase))
    }

    /// Fails a publication for a reason such as that its channel is unfollowed, which deletes the record, unless others may have
    /// seen its head.
    pub(super) fn give_up(
        &mut self,
        cx: &mut Cx,
        dht: &mut DhtQueue,
        channel: PublicKey,
        error: PublishError,
    ) {
        let is_over = match self.running.get(&channel).map(|current| &current.phase) {
            Some(Phase::Store(_)) => true,
            // Where the DHT, or gateways, are being asked already, the answer decides what comes next.
            Some(Phase::Find | Phase::Put(_)) => dht.forget(|purpose| *purpose == Purpose::Publish(channel)),
            Some(Phase::ReadBack(_) | Phase::Pause(_)) | None => false,
        };
        if is_over {
            self.fail(cx, channel, error);
        }
    }

    /// Fails the publication, as its channel is not followed any more and there is nothing to sign for.
    pub(super) fn fail_unfollowed(&mut self, cx: &mut Cx, channel: PublicKey) {
        self.fail(cx, channel, PublishError::Unfollowed);
    }

    /// Fails the publication, as its channel is paused.
    pub(super) fn fail_paused(&mut self, cx: &mut Cx, channel: PublicKey) {
        self.fail(cx, channel, PublishError::Paused);
    }

    /// Takes note that the signed head is durable, or could not be made so.
    pub(super) fn on_stored<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        durable: bool,
    ) -> Option<Next> {
        match self.running.get(&channel) {
            Some(Publication { phase: Phase::Store(item), .. }) if durable => {
                let put = Phase::Put(item.clone());
                return self.begin_phase(env, channel, put);
            }
            _ => self.fail(env.cx, channel, PublishError::NotDurable),
        }
        None
    }

    // --- the DHT --------------------------------------------------------------------------------------------

    /// Takes a properly signed item of a channel from the DHT.
    pub(super) fn on_dht_item<S: Suite>(&mut self, env: &mut Env<'_, S>, item: &SignedItem) -> Option<Next> {
        let current = self.running.get_mut(&item.key)?;
        current.on_item(item);
        if matches!(&current.phase, Phase::ReadBack(read_back) if read_back.is_found) {
            // Whoever else has the head changes nothing: the rest of the look-up is not waited for.
            env.dht.abandon(Purpose::Publish(item.key));
            self.end_read_back(env.cx, item.key);
        }
        None
    }

    /// Takes the DHT's answer to the current phase.
    pub(super) fn on_dht_done<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        result: &JobResult,
    ) -> Option<Next> {
        let current = self.running.get(&channel)?;
        let failed = match (&current.phase, result) {
            (Phase::Find, JobResult::DhtDone(Err(error))) => Some(PublishError::Dht(*error)),
            (Phase::Find, _) => return Some(Next::Sign(channel)),
            (Phase::Put(_), JobResult::DhtPut(Ok(0))) => Some(PublishError::NoReplica),
            (Phase::Put(item), JobResult::DhtPut(Ok(replicas))) => {
                let item = item.clone();
                let read_back = ReadBack { item, replicas: *replicas, misses: 0, is_found: false };
                let _nothing = self.begin_phase(env, channel, Phase::ReadBack(read_back));
                return Some(Next::NotePut(channel));
            }
            (Phase::Put(_), JobResult::DhtPut(Err(DhtError::Stale | DhtError::CasMismatch)))
                if current.tries < TRIES_MAX =>
            {
                return self.begin_phase(env, channel, Phase::Find);
            }
            (Phase::Put(_), JobResult::DhtPut(Err(error))) => Some(PublishError::Dht(*error)),
            (Phase::ReadBack(_), _) => {
                self.end_read_back(env.cx, channel);
                None
            }
            (_, result) => {
                debug_assert!(false, "no operation is in flight that {result:?} answers");
                None
            }
        };
        if let Some(error) = failed {
            self.fail(env.cx, channel, error);
        }
        None
    }

    /// Ends a read-back. A look-up may not reach the nodes that hold the head, and some nodes store it late, so it is tried a
    /// few times.
    fn end_read_back(&mut self, cx: &mut Cx, channel: PublicKey) {
        let Some(current) = self.running.get_mut(&channel) else { return };
        let Phase::ReadBack(mut read_back) = mem::replace(&mut current.phase, Phase::Find) else {
            debug_assert!(false, "only a head that is being read back is read back");
            return;
        };
        read_back.misses += 1;
        if read_back.is_found || read_back.misses >= READ_BACKS_MAX {
            return self.finish(cx, channel, &read_back);
        }
        cx.set_timer_in(Timer::Publish(channel), READ_BACK_PAUSE);
        current.phase = Phase::Pause(read_back);
    }

    /// Goes on after a pause, or when gateways take too long.
    pub(super) fn on_timer<S: Suite>(&mut self, env: &mut Env<'_, S>, channel: PublicKey) -> Option<Next> {
        let current = self.running.get_mut(&channel)?;
        match mem::replace(&mut current.phase, Phase::Find) {
            Phase::Pause(read_back) if read_back.is_found => {
                self.finish(env.cx, channel, &read_back);
                None
            }
            Phase::Pause(read_back) => self.begin_phase(env, channel, Phase::ReadBack(read_back)),
            phase => {
                current.phase = phase;
                if let Route::Gateways(gateways) = &mut current.route {
                    gateways.on_late();
                }
                self.end_gateways(env, channel)
            }
        }
    }

    // --- gateways -------------------------------------------------------------------------------------------

    /// Lets each publication take a step.
    fn for_each(&mut self, mut step: impl FnMut(&mut Self, PublicKey) -> Option<Next>) -> Vec<Next> {
        let channels: Vec<PublicKey> = self.running.keys().copied().collect();
        channels.into_iter().filter_map(|channel| step(self, channel)).collect()
    }

    /// Asks all connected gateways, and dials the others.
    fn ask_gateways<S: Suite>(&mut self, env: &mut Env<'_, S>, channel: PublicKey) -> Option<Next> {
        let gateways = self.running.get_mut(&channel)?.asked()?;
        for addr in gateways.addrs() {
            env.peers.add(env.cx, addr.clone(), Source::Configured);
            if let Some(conn) = env.peers.connection(&addr) {
                let next = self.ask_gateway(env, channel, conn);
                if next.is_some() {
                    return next;
                }
            }
        }
        None
    }

    fn ask_gateway<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        conn: ConnId,
    ) -> Option<Next> {
        let gateways = self.running.get_mut(&channel)?.asked()?;
        if gateways.ask(env.cx, env.conns, conn) { None } else { self.end_gateways(env, channel) }
    }

    /// Asks a peer that has sent its HELLO, or has room for another question, if it is a gateway.
    pub(super) fn on_ready<S: Suite>(&mut self, env: &mut Env<'_, S>, conn: ConnId) -> Vec<Next> {
        self.for_each(|publications, channel| publications.ask_gateway(env, channel, conn))
    }

    /// Takes a HEAD, which may be a gateway's answer.
    pub(super) fn on_head<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        (tag, item): (&Tag, Option<&SignedItem>),
    ) -> Vec<Next> {
        self.for_each(|publications, channel| {
            let current = publications.running.get_mut(&channel)?;
            let addr = env.conns.address(conn)?;
            let key = env.conns.get(conn)?.tag_key()?;
            let Route::Gateways(gateways) = &mut current.route else { return None };
            if uri::tag(key, &current.topic) != *tag {
                return None;
            }
            let (signed, pauses) = match &current.phase {
                Phase::Find => (None, false),
                Phase::ReadBack(read_back) => (Some(&read_back.item), false),
                Phase::Pause(read_back) => (Some(&read_back.item), true),
                Phase::Store(_) | Phase::Put(_) => return None,
            };
            if !gateways.answered(env.cx, addr, true, pauses) {
                return None;
            }
            if let Some(item) = item.filter(|item| item.key == channel && item.verify()) {
                if signed == Some(item) {
                    gateways.note_reader(addr);
                }
                current.on_item(item);
            }
            publications.end_gateways(env, channel)
        })
    }

    /// Takes the answer to our PUBLISH: that of the publication which asked the gateway last. Others may ask it from then on.
    pub(super) fn on_put_answered<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        answer: &Result<(), String>,
    ) -> Vec<Next> {
        let mut next = self.for_each(|publications, channel| {
            let current = publications.running.get_mut(&channel)?;
            let addr = env.conns.address(conn)?;
            let Route::Gateways(gateways) = &mut current.route else { return None };
            // A gateway that takes the head after the phase counts too.
            let is_over = gateways.put_answered(addr, answer)
                && matches!(current.phase, Phase::Put(_))
                && gateways.answered(env.cx, addr, answer.is_ok(), false);
            if is_over { publications.end_gateways(env, channel) } else { None }
        });
        next.extend(self.on_ready(env, conn));
        next
    }

    /// Takes note that a gateway cannot be dialled, or that its connection is gone.
    pub(super) fn on_gone<S: Suite>(&mut self, env: &mut Env<'_, S>, peer: &PeerAddr) -> Vec<Next> {
        self.for_each(|publications, channel| {
            let current = publications.running.get_mut(&channel)?;
            let is_asking = matches!(current.phase, Phase::Find | Phase::Put(_) | Phase::ReadBack(_));
            let Route::Gateways(gateways) = &mut current.route else { return None };
            if gateways.on_gone(env.cx, peer, is_asking) {
                publications.end_gateways(env, channel)
            } else {
                None
            }
        })
    }

    /// Goes on once every gateway is done or one has read the head back.
    fn end_gateways<S: Suite>(&mut self, env: &mut Env<'_, S>, channel: PublicKey) -> Option<Next> {
        let current = self.running.get(&channel)?;
        let Route::Gateways(gateways) = &current.route else { return None };
        let is_over = gateways.is_over();
        match &current.phase {
            Phase::Find if is_over && gateways.are_all_late() => {
                self.fail(env.cx, channel, PublishError::Gateways(None));
            }
            Phase::Find if is_over => return Some(Next::Sign(channel)),
            Phase::Put(item) if is_over => {
                if gateways.count_takers() > 0 {
                    let read_back = ReadBack { item: item.clone(), replicas: 0, misses: 0, is_found: false };
                    return self.begin_phase(env, channel, Phase::ReadBack(read_back));
                }
                let refusal = gateways.refusal();
                self.fail(env.cx, channel, PublishError::Gateways(refusal));
            }
            Phase::ReadBack(read_back) if is_over || read_back.is_found => {
                self.end_read_back(env.cx, channel);
            }
            Phase::Find | Phase::Store(_) | Phase::Put(_) | Phase::ReadBack(_) | Phase::Pause(_) => {}
        }
        None
    }
}

/// The sequence that most nodes hold, as far as was found. Where a put has reached only some of them, or a follower has put an older
/// head again, it is not the highest.
fn most_common(copies: &BTreeMap<i64, usize>) -> Option<i64> {
    copies.iter().max_by_key(|(seq, count)| (**count, **seq)).map(|(seq, _)| *seq)
}
