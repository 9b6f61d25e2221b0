//! What the store has lost. A complete channel's blobs are not looked at again until a peer asks for one: where the store
//! then lacks it, all of them are looked up, as after a start. What lacks is wanted, fetched and told of again.
//!
//! A node does not keep the ids of all blobs that it has, so it cannot tell a blob that it lost from one that never was.
//! Hence a look-up is silent until some blob is known to lack, and there are few of them: one for a channel at a time, and
//! after each the next waits longer, from [`RECHECK_INTERVAL_MIN`] to [`RECHECK_INTERVAL_MAX`]. So neither a disk that
//! loses the same blob over and over nor a peer that asks for what is nowhere keeps a node busy.

use alloc::vec::Vec;
use core::time::Duration;

use super::api::Event;
use super::fetch::{Ask, Fetch};
use super::{Node, Timer};
use crate::identity::PublicKey;
use crate::ids::ConnId;
use crate::limits::{RECHECK_INTERVAL_MAX, RECHECK_INTERVAL_MIN};
use crate::manifest::Head;
use crate::suite::Suite;
use crate::time::Instant;

/// When a complete channel's blobs are looked up again.
pub(super) struct Recheck {
    /// When the next look-up begins; `None`: nobody asked for a blob in vain.
    pub(super) due: Option<Instant>,
    /// It begins no sooner.
    not_before: Instant,
    interval: Duration,
    /// The look-up under way.
    pub(super) fetch: Option<Fetch>,
}

impl Recheck {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: None, not_before: now, interval: RECHECK_INTERVAL_MIN, fetch: None }
    }

    fn begin(&mut self, now: Instant, fetch: Fetch) {
        (self.due, self.fetch) = (None, Some(fetch));
        self.not_before = now + self.interval;
        self.interval = (self.interval * 2).min(RECHECK_INTERVAL_MAX);
    }
}

impl<S: Suite> Node<S> {
    /// The store lacks a blob that a peer asked for: it may be one of a channel that both follow, or one that v5 peers
    /// look for.
    pub(super) fn on_asked_in_vain(&mut self, conn: ConnId) {
        let now = self.cx.now();
        let Some(entry) = self.conns.get(conn) else { return };
        let (gossip, is_v6) = (&entry.gossip, entry.gossip.is_on());
        for (channel, state) in &mut self.channels {
            let may_mean =
                if is_v6 { gossip.shares.contains_key(channel) } else { state.has_announced_chunks() };
            let is_idle = state.recheck.due.is_none() && state.recheck.fetch.is_none();
            if may_mean && is_idle && state.is_complete() {
                let due = now.max(state.recheck.not_before);
                state.recheck.due = Some(due);
                self.cx.set_timer_sooner(Timer::Channel(*channel), due);
            }
        }
    }

    pub(super) fn begin_recheck(&mut self, channel: PublicKey) {
        let now = self.cx.now();
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let head = state
            .item
            .as_ref()
            .map(|item| Head::from_json_in(S::SHAPE, &channel, state.read_key.as_ref(), &item.value));
        let Some(Ok(head)) = head.filter(|_| state.is_complete()) else {
            state.recheck.due = None;
            return;
        };
        let mut asks = Vec::new();
        state.recheck.begin(now, Fetch::new(channel, head.sequence, head.content, &mut asks));
        self.on_recheck_asks(channel, asks);
    }

    /// Lets a look-up go on.
    pub(super) fn with_recheck(&mut self, channel: PublicKey, step: impl FnOnce(&mut Fetch, &mut Vec<Ask>)) {
        let state = self.channels.get_mut(&channel);
        let Some(fetch) = state.and_then(|state| state.recheck.fetch.as_mut()) else { return };
        let mut asks = Vec::new();
        step(fetch, &mut asks);
        self.on_recheck_asks(channel, asks);
    }

    fn on_recheck_asks(&mut self, channel: PublicKey, mut asks: Vec<Ask>) {
        let Some(state) = self.channels.get_mut(&channel) else { return };
        if asks.iter().any(|ask| matches!(ask, Ask::Want(..))) {
            return self.on_lost(channel, asks);
        }
        if state.recheck.fetch.as_ref().is_some_and(|fetch| fetch.is_complete() || fetch.is_refused()) {
            // All is there, or cannot be told from what is.
            state.recheck.fetch = None;
        }
        asks.retain(|ask| !matches!(ask, Ask::Event(_)));
        self.on_asks(channel, asks);
    }

    /// Blobs lack: the look-up becomes the channel's fetch, and peers no longer count on what they were told.
    fn on_lost(&mut self, channel: PublicKey, asks: Vec<Ask>) {
        let Some(state) = self.channels.get_mut(&channel) else { return };
        let Some(fetch) = state.recheck.fetch.take() else { return };
        let sequence = fetch.sequence;
        state.refetch(fetch, self.cx.now());
        self.cx.event(Event::BlobsLost { channel, sequence });
        self.take_back_all(channel);
        self.begin_holders(channel, sequence);
        self.cx.set_timer_sooner(Timer::Channel(channel), self.cx.now());
        self.on_asks(channel, asks);
    }
}
