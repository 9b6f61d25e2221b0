//! Publishing a head of our own: find the newest, sign a newer one, make it durable, put it, read it back
//! (`docs/protocol.md` §6).

use alloc::vec::Vec;

use super::api::{DhtError, DhtOp, Draft, Event, JobResult, PublishError};
use super::dht::Purpose;
use super::{Node, Pending, RecordKey, record};
use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::manifest::{Head, HeadContent};
use crate::suite::Suite;

/// Tries at a put that somebody else's newer item refuses.
const TRIES_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Look for a head that another run or machine of the author's published.
    Find,
    /// Make the signed head durable: a sequence that was ever shown is never used again.
    Store,
    Put,
    ReadBack,
}

/// A publication under way.
pub(super) struct Publication {
    channel: PublicKey,
    draft: Draft,
    step: Step,
    tries: u32,
    /// The highest sequence that the DHT showed.
    found: Option<i64>,
    item: Option<SignedItem>,
    replicas: u32,
    is_read_back: bool,
}

impl<S: Suite> Node<S> {
    pub(super) fn publish(&mut self, draft: Draft) {
        let Some(identity) = &self.identity else {
            return self.actions.push_back(super::Action::Event(Event::PublishFailed {
                // Without an identity there is no channel to name but the draft's, which has none.
                channel: None,
                error: PublishError::NoIdentity,
            }));
        };
        let channel = identity.public_key();
        if self.publication.is_some() {
            return self.event(Event::PublishFailed { channel: Some(channel), error: PublishError::Busy });
        }
        self.follow(channel, draft.read_key.clone());
        self.publication = Some(Publication {
            channel,
            draft,
            step: Step::Find,
            tries: 0,
            found: None,
            item: None,
            replicas: 0,
            is_read_back: false,
        });
        self.dht.push(Purpose::Publish, DhtOp::Get(channel));
    }

    /// A get of the publication's found an item that is properly signed.
    pub(super) fn on_publish_item(&mut self, item: &SignedItem) {
        let Some(publication) = &mut self.publication else { return };
        publication.found = publication.found.max(Some(item.seq));
        publication.is_read_back |= publication.item.as_ref() == Some(item);
    }

    pub(super) fn on_publish_done(&mut self, result: &JobResult) {
        let Some(publication) = &mut self.publication else { return };
        match (publication.step, result) {
            (Step::Find, JobResult::DhtDone(Err(error))) => {
                let error = *error;
                self.fail_publication(PublishError::Dht(error));
            }
            (Step::Find, _) => self.sign_head(),
            (Step::Put, JobResult::DhtPut(Ok(0))) => self.fail_publication(PublishError::NoReplica),
            (Step::Put, JobResult::DhtPut(Ok(replicas))) => {
                publication.replicas = *replicas;
                publication.step = Step::ReadBack;
                let channel = publication.channel;
                self.dht.push(Purpose::Publish, DhtOp::Get(channel));
            }
            (Step::Put, JobResult::DhtPut(Err(DhtError::Stale | DhtError::CasMismatch)))
                if publication.tries < TRIES_MAX =>
            {
                publication.step = Step::Find;
                let channel = publication.channel;
                self.dht.push(Purpose::Publish, DhtOp::Get(channel));
            }
            (Step::Put, JobResult::DhtPut(Err(error))) => {
                let error = *error;
                self.fail_publication(PublishError::Dht(error));
            }
            (Step::ReadBack, _) if publication.is_read_back => {
                if let Some(done) = self.publication.take() {
                    self.event(Event::Published {
                        channel: done.channel,
                        sequence: done.item.map_or(0, |item| item.seq.unsigned_abs()),
                        replicas: done.replicas,
                        inline: matches!(done.draft.content, HeadContent::Inline(_)),
                    });
                }
            }
            (Step::ReadBack, _) => self.fail_publication(PublishError::NotReadBack),
            (step, result) => debug_assert!(false, "{result:?} does not answer {step:?}"),
        }
    }

    /// `max(known + 1, unix milliseconds)`, known from our own records and from the DHT.
    fn sign_head(&mut self) {
        let unix = self.unix().0;
        let (Some(publication), Some(identity)) = (&mut self.publication, &self.identity) else { return };
        let recorded = self.channels.get(&publication.channel).map_or(0, |c| c.sequence);
        let found = publication.found.map_or(0, i64::unsigned_abs);
        let sequence = unix.max(recorded.max(found).saturating_add(1));
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
        self.accept_own_head(item);
    }

    /// The head is durable, or could not be made so.
    pub(super) fn on_own_head_persisted(&mut self, channel: PublicKey, durable: bool) {
        let Some(publication) = &mut self.publication else { return };
        if publication.channel != channel || publication.step != Step::Store {
            return;
        }
        if !durable {
            return self.fail_publication(PublishError::NotDurable);
        }
        let Some(item) = publication.item.clone() else { return };
        publication.step = Step::Put;
        let cas = publication.found;
        self.dht.put(Purpose::Publish, item, cas);
    }

    fn fail_publication(&mut self, error: PublishError) {
        if let Some(publication) = self.publication.take() {
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
