//! Publishing our own head: find the newest, sign a newer one, make it durable, put it, read it back
//! (`docs/protocol.md` §11). Where there is no DHT, gateways do the first and the last two steps.

mod gateways;

use alloc::boxed::Box;
use alloc::string::String;
use core::mem;

use super::api::{DhtError, DhtOp, Draft, Event, JobResult, PublishError, Takers};
use super::conns::Conns;
use super::cx::Cx;
use super::dht::{DhtQueue, Purpose};
use super::peers::{Peers, Source};
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::identity::{Identity, PublicKey};
use crate::ids::{ConnId, Topic};
use crate::limits::{READ_BACK_PAUSE, READ_BACKS_MAX, SEQUENCE_SIGNED_MAX};
use crate::manifest::{Head, HeadContent};
use crate::suite::Suite;
use crate::time::UnixTime;
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
    Nothing,
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
    channel: PublicKey,
    topic: Topic,
    draft: Draft,
    phase: Phase,
    route: Route,
    tries: u32,
    /// The highest sequence found on the DHT.
    found: Option<i64>,
    /// [`Event::ClockBehind`] was emitted.
    is_clock_told: bool,
}

/// The publications of the node's identity, one at a time.
pub(super) struct Publications {
    identity: Option<Identity>,
    current: Option<Publication>,
}

impl Publications {
    pub(super) fn new(identity: Option<Identity>) -> Self {
        Self { identity, current: None }
    }

    /// The node's own channel.
    pub(super) fn channel(&self) -> Option<PublicKey> {
        self.identity.as_ref().map(Identity::public_key)
    }

    pub(super) fn is_active(&self) -> bool {
        self.current.is_some()
    }

    /// Returns the channel to publish a draft in; if that is impossible, an event says why.
    pub(super) fn admit(&self, cx: &mut Cx) -> Option<PublicKey> {
        let channel = self.channel();
        let error = match channel {
            // Without an identity there is no channel to name.
            None => PublishError::NoIdentity,
            Some(_) if self.current.is_some() => PublishError::Busy,
            Some(_) => return channel,
        };
        cx.event(Event::PublishFailed { channel, error });
        None
    }

    /// Begins to publish a draft in a channel that [`Self::admit`] named, and that the node follows under `topic`.
    pub(super) fn begin<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
        topic: Topic,
        draft: Draft,
    ) -> Next {
        let route = if draft.gateways.is_empty() {
            Route::Own
        } else {
            Route::Gateways(Box::new(Gateways::new(&draft.gateways, env.cx.now())))
        };
        let (phase, tries, found, is_clock_told) = (Phase::Find, 0, None, false);
        self.current = Some(Publication { channel, topic, draft, phase, route, tries, found, is_clock_told });
        self.begin_phase(env, Phase::Find)
    }

    /// Begins a phase that the DHT or the gateways answer.
    fn begin_phase<S: Suite>(&mut self, env: &mut Env<'_, S>, phase: Phase) -> Next {
        let Some(current) = &mut self.current else { return Next::Nothing };
        let (channel, topic) = (current.channel, current.topic);
        current.phase = phase;
        match (&mut current.route, &current.phase) {
            (Route::Own, Phase::Find | Phase::ReadBack(_)) => {
                env.dht.push(env.cx.now(), Purpose::Publish, DhtOp::Get(channel));
            }
            (Route::Own, Phase::Put(item)) => {
                env.dht.put(env.cx.now(), Purpose::Publish, item.clone(), current.found);
            }
            (Route::Gateways(gateways), Phase::Find) => {
                gateways.begin(env.cx, Question::LookUp { channel, topic, known: 0 }, None);
                return self.ask_gateways(env);
            }
            (Route::Gateways(gateways), Phase::Put(item)) => {
                gateways.begin(env.cx, Question::Put(item.clone()), None);
                return self.ask_gateways(env);
            }
            (Route::Gateways(gateways), Phase::ReadBack(ReadBack { item, misses, .. })) => {
                let known = item.seq.unsigned_abs().saturating_sub(1);
                gateways.begin(env.cx, Question::LookUp { channel, topic, known }, Some(*misses));
                return self.ask_gateways(env);
            }
            (_, Phase::Store(_) | Phase::Pause(_)) => {}
        }
        Next::Nothing
    }

    // --- signing --------------------------------------------------------------------------------------------

    /// Signs the head with the sequence `max(known + 1, unix milliseconds)`, known from our records and the DHT. The caller
    /// makes it durable, and then calls [`Self::on_stored`].
    pub(super) fn sign(&mut self, cx: &mut Cx, recorded: u64) -> Option<SignedItem> {
        let (Some(current), Some(identity)) = (&mut self.current, &self.identity) else { return None };
        let unix = cx.unix().0;
        let found = current.found.map_or(0, i64::unsigned_abs);
        let known = recorded.max(found);
        let sequence = unix.max(known.saturating_add(1));
        if sequence > SEQUENCE_SIGNED_MAX {
            self.fail(cx, PublishError::SequenceTooHigh);
            return None;
        }
        let mut nonce = [0; 12];
        cx.rng().fill(&mut nonce);
        let seal = current.draft.read_key.as_ref().map(|key| (key, nonce));
        let text = Head::to_json(identity, sequence, unix, &current.draft.content, seal);
        let item =
            i64::try_from(sequence).ok().and_then(|seq| SignedItem::sign(identity, seq, text.into_bytes()));
        let Some(item) = item else {
            self.fail(cx, PublishError::TooLarge);
            return None;
        };
        current.phase = Phase::Store(item.clone());
        current.tries += 1;
        if unix < known && !mem::replace(&mut current.is_clock_told, true) {
            let channel = current.channel;
            cx.event(Event::ClockBehind { channel, sequence, unix: UnixTime(unix) });
        }
        Some(item)
    }

    /// Fails the publication, as the signed head cannot be used and was not made durable.
    pub(super) fn fail_unusable(&mut self, cx: &mut Cx) {
        self.fail(cx, PublishError::NotDurable);
    }

    /// Whether the head of a channel and a sequence is being made durable for a publication, which fails where it is not.
    pub(super) fn is_storing(&self, channel: &PublicKey, sequence: u64) -> bool {
        let is_it =
            |phase: &Phase| matches!(phase, Phase::Store(item) if item.seq.unsigned_abs() == sequence);
        self.current.as_ref().is_some_and(|p| p.channel == *channel && is_it(&p.phase))
    }

    /// Fails a publication whose channel is unfollowed, which deletes the record, unless others may have seen its head.
    pub(super) fn on_unfollowed(&mut self, cx: &mut Cx, dht: &mut DhtQueue, channel: &PublicKey) {
        let current = self.current.as_ref().filter(|current| current.channel == *channel);
        let is_over = match current.map(|current| &current.phase) {
            Some(Phase::Store(_)) => true,
            // Where the DHT, or gateways, are being asked already, the answer decides what comes next.
            Some(Phase::Find | Phase::Put(_)) => dht.forget(|purpose| *purpose == Purpose::Publish),
            Some(Phase::ReadBack(_) | Phase::Pause(_)) | None => false,
        };
        if is_over {
            self.fail_unfollowed(cx);
        }
    }

    /// Fails the publication, as its channel is not followed any more and there is nothing to sign for.
    pub(super) fn fail_unfollowed(&mut self, cx: &mut Cx) {
        self.fail(cx, PublishError::Unfollowed);
    }

    /// Takes note that the signed head is durable, or could not be made so.
    pub(super) fn on_stored<S: Suite>(&mut self, env: &mut Env<'_, S>, durable: bool) -> Next {
        match &self.current {
            Some(Publication { phase: Phase::Store(item), .. }) if durable => {
                let put = Phase::Put(item.clone());
                self.begin_phase(env, put)
            }
            _ => {
                self.fail(env.cx, PublishError::NotDurable);
                Next::Nothing
            }
        }
    }

    // --- the DHT --------------------------------------------------------------------------------------------

    /// Takes a properly signed item of the channel from the DHT.
    pub(super) fn on_dht_item<S: Suite>(&mut self, env: &mut Env<'_, S>, item: &SignedItem) -> Next {
        self.on_item(item);
        if matches!(&self.current, Some(Publication { phase: Phase::ReadBack(read_back), .. }) if read_back.is_found)
        {
            // Whoever else has the head changes nothing: the rest of the look-up is not waited for.
            env.dht.abandon(Purpose::Publish);
            self.end_read_back(env.cx);
        }
        Next::Nothing
    }

    /// Notes a properly signed item of the channel from the DHT or a gateway.
    fn on_item(&mut self, item: &SignedItem) {
        let Some(current) = &mut self.current else { return };
        current.found = current.found.max(Some(item.seq));
        if let Phase::ReadBack(read_back) | Phase::Pause(read_back) = &mut current.phase {
            read_back.is_found |= read_back.item == *item;
        }
    }

    /// Takes the DHT's answer to the current phase.
    pub(super) fn on_dht_done<S: Suite>(&mut self, env: &mut Env<'_, S>, result: &JobResult) -> Next {
        let Some(current) = &self.current else { return Next::Nothing };
        let (channel, tries) = (current.channel, current.tries);
        match (&current.phase, result) {
            (Phase::Find, JobResult::DhtDone(Err(error))) => self.fail(env.cx, PublishError::Dht(*error)),
            (Phase::Find, _) => return Next::Sign(channel),
            (Phase::Put(_), JobResult::DhtPut(Ok(0))) => self.fail(env.cx, PublishError::NoReplica),
            (Phase::Put(item), JobResult::DhtPut(Ok(replicas))) => {
                let item = item.clone();
                let read_back = ReadBack { item, replicas: *replicas, misses: 0, is_found: false };
                let _nothing = self.begin_phase(env, Phase::ReadBack(read_back));
                return Next::NotePut(channel);
            }
            (Phase::Put(_), JobResult::DhtPut(Err(DhtError::Stale | DhtError::CasMismatch)))
                if tries < TRIES_MAX =>
            {
                return self.begin_phase(env, Phase::Find);
            }
            (Phase::Put(_), JobResult::DhtPut(Err(error))) => self.fail(env.cx, PublishError::Dht(*error)),
            (Phase::ReadBack(_), _) => self.end_read_back(env.cx),
            (_, result) => debug_assert!(false, "no operation is in flight that {result:?} answers"),
        }
        Next::Nothing
    }

    /// Ends a read-back. A look-up may not reach the nodes that hold the head, and some nodes store it late, so it is tried a
    /// few times.
    fn end_read_back(&mut self, cx: &mut Cx) {
        let Some(mut current) = self.current.take() else { return };
        let Phase::ReadBack(mut read_back) = current.phase else {
            self.current = Some(current);
            return;
        };
        read_back.misses += 1;
        if read_back.is_found || read_back.misses >= READ_BACKS_MAX {
            current.phase = Phase::Find;
            return finish(cx, &current, &read_back);
        }
        cx.set_timer_in(Timer::Publish, READ_BACK_PAUSE);
        current.phase = Phase::Pause(read_back);
        self.current = Some(current);
    }

    /// Goes on after a pause, or when gateways take too long.
    pub(super) fn on_timer<S: Suite>(&mut self, env: &mut Env<'_, S>) -> Next {
        let Some(mut current) = self.current.take() else { return Next::Nothing };
        match current.phase {
            Phase::Pause(read_back) if read_back.is_found => {
                current.phase = Phase::Find;
                finish(env.cx, &current, &read_back);
                Next::Nothing
            }
            Phase::Pause(read_back) => {
                current.phase = Phase::Find;
                self.current = Some(current);
                self.begin_phase(env, Phase::ReadBack(read_back))
            }
            Phase::Find | Phase::Store(_) | Phase::Put(_) | Phase::ReadBack(_) => {
                if let Route::Gateways(gateways) = &mut current.route {
                    gateways.on_late();
                }
                self.current = Some(current);
                self.end_gateways(env)
            }
        }
    }

    fn fail(&mut self, cx: &mut Cx, error: PublishError) {
        if let Some(publication) = self.current.take() {
            cx.cancel_timer(Timer::Publish);
            cx.event(Event::PublishFailed { channel: Some(publication.channel), error });
        }
    }

    // --- gateways -------------------------------------------------------------------------------------------

    /// Returns the publication's gateways while it waits for their answers.
    fn gateways(&mut self) -> Option<&mut Gateways> {
        match self.current.as_mut()? {
            Publication { phase: Phase::Find | Phase::Put(_) | Phase::ReadBack(_), route, .. } => match route
            {
                Route::Gateways(gateways) => Some(gateways),
                Route::Own => None,
            },
            Publication { phase: Phase::Store(_) | Phase::Pause(_), .. } => None,
        }
    }

    /// Asks all connected gateways, and dials the others.
    fn ask_gateways<S: Suite>(&mut self, env: &mut Env<'_, S>) -> Next {
        for addr in self.gateways().map(|gateways| gateways.addrs()).unwrap_or_default() {
            env.peers.add(env.cx, addr.clone(), Source::Configured);
            if let Some(conn) = env.peers.connection(&addr) {
                let next = self.on_hello(env, conn);
                if next != Next::Nothing {
                    return next;
                }
            }
        }
        Next::Nothing
    }

    /// Asks a peer that has sent its HELLO, if it is a gateway.
    pub(super) fn on_hello<S: Suite>(&mut self, env: &mut Env<'_, S>, conn: ConnId) -> Next {
        let Some(gateways) = self.gateways() else { return Next::Nothing };
        if gateways.ask(env.cx, env.conns, conn) {
            return Next::Nothing;
        }
        self.end_gateways(env)
    }

    /// Takes a HEAD, which may be a gateway's answer.
    pub(super) fn on_head<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        item: Option<&SignedItem>,
    ) -> Next {
        let Some(current) = &mut self.current else { return Next::Nothing };
        let (channel, Route::Gateways(gateways)) = (current.channel, &mut current.route) else {
            return Next::Nothing;
        };
        let (signed, pauses) = match &current.phase {
            Phase::Find => (None, false),
            Phase::ReadBack(read_back) => (Some(&read_back.item), false),
            Phase::Pause(read_back) => (Some(&read_back.item), true),
            Phase::Store(_) | Phase::Put(_) => return Next::Nothing,
        };
        let Some(addr) = env.conns.address(conn).cloned() else {
            return Next::Nothing;
        };
        if !gateways.answered(env.cx, &addr, true, pauses) {
            return Next::Nothing;
        }
        if let Some(item) = item.filter(|item| item.key == channel && item.verify()) {
            if signed == Some(item) {
                gateways.note_reader(&addr);
            }
            self.on_item(item);
        }
        self.end_gateways(env)
    }

    /// Takes the answer to our PUBLISH.
    pub(super) fn on_put_answered<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        conn: ConnId,
        answer: Result<(), String>,
    ) -> Next {
        let Some(addr) = env.conns.address(conn).cloned() else {
            return Next::Nothing;
        };
        let Some(current) = &mut self.current else { return Next::Nothing };
        let Route::Gateways(gateways) = &mut current.route else { return Next::Nothing };
        let is_use = answer.is_ok();
        // A gateway that takes the head after the phase counts too.
        if gateways.put_answered(&addr, answer)
            && matches!(current.phase, Phase::Put(_))
            && gateways.answered(env.cx, &addr, is_use, false)
        {
            return self.end_gateways(env);
        }
        Next::Nothing
    }

    /// Takes note that a gateway cannot be dialled, or that its connection is gone.
    pub(super) fn on_gone<S: Suite>(&mut self, env: &mut Env<'_, S>, peer: &PeerAddr) -> Next {
        let Some(current) = &mut self.current else { return Next::Nothing };
        let is_asking = matches!(current.phase, Phase::Find | Phase::Put(_) | Phase::ReadBack(_));
        let Route::Gateways(gateways) = &mut current.route else { return Next::Nothing };
        if gateways.on_gone(env.cx, peer, is_asking) { self.end_gateways(env) } else { Next::Nothing }
    }

    /// Goes on once every gateway is done or one has read the head back.
    fn end_gateways<S: Suite>(&mut self, env: &mut Env<'_, S>) -> Next {
        let Some(current) = &self.current else { return Next::Nothing };
        let Route::Gateways(gateways) = &current.route else { return Next::Nothing };
        let is_over = gateways.is_over();
        match &current.phase {
            Phase::Find if is_over && gateways.are_all_late() => {
                self.fail(env.cx, PublishError::Gateways(None));
            }
            Phase::Find if is_over => return Next::Sign(current.channel),
            Phase::Put(item) if is_over => {
                if gateways.count_takers() > 0 {
                    let read_back = ReadBack { item: item.clone(), replicas: 0, misses: 0, is_found: false };
                    return self.begin_phase(env, Phase::ReadBack(read_back));
                }
                let refusal = gateways.refusal();
                self.fail(env.cx, PublishError::Gateways(refusal));
            }
            Phase::ReadBack(read_back) if is_over || read_back.is_found => self.end_read_back(env.cx),
            Phase::Find | Phase::Store(_) | Phase::Put(_) | Phase::ReadBack(_) | Phase::Pause(_) => {}
        }
        Next::Nothing
    }
}

/// Ends the publication, which succeeded if the head was read back.
fn finish(cx: &mut Cx, publication: &Publication, read_back: &ReadBack) {
    cx.cancel_timer(Timer::Publish);
    let channel = publication.channel;
    cx.event(if read_back.is_found {
        Event::Published {
            channel,
            sequence: read_back.item.seq.unsigned_abs(),
            takers: match &publication.route {
                Route::Own => Takers::DhtNodes(read_back.replicas),
                Route::Gateways(gateways) => gateways.takers(),
            },
            inline: matches!(publication.draft.content, HeadContent::Inline(_)),
        }
    } else {
        Event::PublishFailed { channel: Some(channel), error: PublishError::NotReadBack }
    });
}
