//! Publishing a head of our own: find the newest, sign a newer one, make it durable, put it, read it back
//! (`docs/protocol.md` §11). Through gateways, `publish_via.rs` has the steps that differ.

use alloc::vec::Vec;

use super::api::{DhtError, DhtOp, Draft, Event, JobResult, PublishError, Takers};
use super::dht::Purpose;
use super::publish_via::Via;
use super::{Node, Pending, RecordKey, Timer, record};
use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::limits::{READ_BACK_PAUSE, READ_BACKS_MAX, SEQUENCE_SIGNED_MAX};
use crate::manifest::{Head, HeadContent};
use crate::suite::Suite;
use crate::time::UnixTime;

/// Tries at a put that somebody else's newer item refuses.
const TRIES_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look for a head that another run or machine of the author's published.
    Find,
    /// Make the signed head durable: a sequence that was ever shown is never used again.
    Store,
    Put,
    ReadBack,
}

/// A publication under way.
pub(super) struct Publication {
    pub(super) channel: PublicKey,
    draft: Draft,
    pub(super) step: Step,
    tries: u32,
    /// The highest sequence that the DHT showed.
    pub(super) found: Option<i64>,
    /// The author was told that the clock is behind the channel.
    is_clock_told: bool,
    pub(super) item: Option<SignedItem>,
    /// DHT nodes that took it, without gateways.
    replicas: u32,
    pub(super) is_read_back: bool,
    /// How often it was looked for in vain after it was put.
    pub(super) misses: u32,
    /// It is looked for again after a pause.
    pub(super) pauses: bool,
    /// The gateways, where there is no DHT of our own.
    pub(super) via: Option<Via>,
}

impl<S: Suite> Node<S> {
    pub(super) fn publish(&mut self, draft: Draft) {
        let Some(identity) = &self.identity else {
            // Without an identity there is no channel to name.
            return self.event(Event::PublishFailed { channel: None, error: PublishError::NoIdentity });
        };
        let channel = identity.public_key();
        if self.publication.is_some() {
            return self.event(Event::PublishFailed { channel: Some(channel), error: PublishError::Busy });
        }
        self.follow(channel, draft.read_key.clone());
        let via = (!draft.gateways.is_empty()).then(|| Via::new(&draft.gateways, self.now));
        self.publication = Some(Publication {
            channel,
            draft,
            step: Step::Find,
            tries: 0,
            found: None,
            is_clock_told: false,
            item: None,
            replicas: 0,
            is_read_back: false,
            misses: 0,
            pauses: false,
            via,
        });
        self.begin_step(Step::Find);
    }

    /// Begins a step that the DHT or the gateways answer.
    pub(super) fn begin_step(&mut self, step: Step) {
        let Some(publication) = &mut self.publication else { return };
        publication.step = step;
        if publication.via.is_some() {
            return self.begin_step_via();
        }
        match (step, publication.item.clone()) {
            (Step::Find | Step::ReadBack, _) => {
                let channel = publication.channel;
                self.dht.push(self.now, Purpose::Publish, DhtOp::Get(channel));
            }
            (Step::Put, Some(item)) => {
                let cas = publication.found;
                self.dht.put(self.now, Purpose::Publish, item, cas);
            }
            (Step::Put | Step::Store, _) => {}
        }
    }

    /// A properly signed item of the channel came back.
    pub(super) fn on_publish_item(&mut self, item: &SignedItem) {
        let Some(publication) = &mut self.publication else { return };
        publication.found = publication.found.max(Some(item.seq));
        publication.is_read_back |= publication.item.as_ref() == Some(item);
    }

    pub(super) fn on_publish_done(&mut self, result: &JobResult) {
        let Some(publication) = &mut self.publication else { return };
        match (publication.step, result) {
            (Step::Find, JobResult::DhtDone(Err(error))) => self.fail_publication(PublishError::Dht(*error)),
            (Step::Find, _) => self.sign_head(),
            (Step::Put, JobResult::DhtPut(Ok(0))) => self.fail_publication(PublishError::NoReplica),
            (Step::Put, JobResult::DhtPut(Ok(replicas))) => {
                publication.replicas = *replicas;
                let channel = publication.channel;
                self.note_put(&channel);
                self.begin_step(Step::ReadBack);
            }
            (Step::Put, JobResult::DhtPut(Err(DhtError::Stale | DhtError::CasMismatch)))
                if publication.tries < TRIES_MAX =>
            {
                self.begin_step(Step::Find);
            }
            (Step::Put, JobResult::DhtPut(Err(error))) => self.fail_publication(PublishError::Dht(*error)),
            (Step::ReadBack, _) => self.end_read_back(),
            (step, result) => debug_assert!(false, "{result:?} does not answer {step:?}"),
        }
    }

    /// The head was looked for. A look-up may miss the nodes that hold it, and a put takes its time at some, so it is
    /// looked for again a few times.
    pub(super) fn end_read_back(&mut self) {
        let Some(publication) = &mut self.publication else { return };
        publication.misses += 1;
        if publication.is_read_back || publication.misses >= READ_BACKS_MAX {
            return self.finish_publication();
        }
        publication.pauses = true;
        self.timers.set(Timer::Publish, self.now + READ_BACK_PAUSE);
    }

    /// A pause is over, or gateways take too long.
    pub(super) fn on_publish_timer(&mut self) {
        let Some(publication) = &mut self.publication else { return };
        if !core::mem::take(&mut publication.pauses) {
            self.on_gateways_late();
        } else if publication.is_read_back {
            self.finish_publication();
        } else {
            self.begin_step(Step::ReadBack);
        }
    }

    /// The last step is over: published, if the head was read back.
    fn finish_publication(&mut self) {
        let Some(done) = self.publication.take() else { return };
        self.timers.cancel(Timer::Publish);
        let channel = done.channel;
        self.event(if done.is_read_back {
            Event::Published {
                channel,
                sequence: done.item.map_or(0, |item| item.seq.unsigned_abs()),
                takers: done.via.map_or(Takers::DhtNodes(done.replicas), |via| via.takers()),
                inline: matches!(done.draft.content, HeadContent::Inline(_)),
            }
        } else {
            Event::PublishFailed { channel: Some(channel), error: PublishError::NotReadBack }
        });
    }

    /// `max(known + 1, unix milliseconds)`, known from our own records and from the DHT.
    pub(super) fn sign_head(&mut self) {
        let unix = self.unix().0;
        let (Some(publication), Some(identity)) = (&mut self.publication, &self.identity) else { return };
        let recorded = self.channels.get(&publication.channel).map_or(0, |c| c.sequence);
        let found = publication.found.map_or(0, i64::unsigned_abs);
        let known = recorded.max(found);
        let sequence = unix.max(known.saturating_add(1));
        if sequence > SEQUENCE_SIGNED_MAX {
            return self.fail_publication(PublishError::SequenceTooHigh);
        }
        let mut nonce = [0; 12];
        self.rng.fill(&mut nonce);
        let seal = publication.draft.read_key.as_ref().map(|key| (key, nonce));
        let text = Head::to_json(identity, sequence, unix, &publication.draft.content, seal);
        let item =
            i64::try_from(sequence).ok().and_then(|seq| SignedItem::sign(identity, seq, text.into_bytes()));
        let Some(item) = item else { return self.fail_publication(PublishError::TooLarge) };
        publication.item = Some(item.clone());
        publication.step = Step::Store;
        publication.tries += 1;
        if unix < known && !core::mem::replace(&mut publication.is_clock_told, true) {
            let channel = publication.channel;
            self.event(Event::ClockBehind { channel, sequence, unix: UnixTime(unix) });
        }
        self.accept_own_head(item);
    }

    /// Whether a head of ours is being made durable.
    pub(super) fn is_storing_own(&self, channel: &PublicKey) -> bool {
        self.publication.as_ref().is_some_and(|p| p.channel == *channel && p.step == Step::Store)
    }

    /// The head is durable, or could not be made so.
    pub(super) fn on_own_head_persisted(&mut self, channel: PublicKey, durable: bool) {
        if !self.is_storing_own(&channel) {
            return;
        }
        if durable {
            self.begin_step(Step::Put);
        } else {
            self.fail_publication(PublishError::NotDurable);
        }
    }

    pub(super) fn fail_publication(&mut self, error: PublishError) {
        if let Some(publication) = self.publication.take() {
            self.timers.cancel(Timer::Publish);
            self.event(Event::PublishFailed { channel: Some(publication.channel), error });
        }
    }

    /// The record of a channel with `item` as its newest head.
    pub(super) fn persist_channel(
        &mut self,
        pending: Pending,
        channel: PublicKey,
        item: Option<&SignedItem>,
    ) {
        let Some(state) = self.channels.get(&channel) else { return };
        let value: Vec<u8> = record::encode_channel(state.read_key.as_ref(), item);
        self.persist(pending, RecordKey::Channel(channel), Some(value));
    }
}
