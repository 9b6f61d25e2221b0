//! What keeps a head known: look-ups of a newer one, and puts of the newest.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::{Adopted, Heads, HeldHead, Upkeep};
use crate::bep44::SignedItem;
use crate::identity::PublicKey;
use crate::limits::{
    AWAITED_TIME, DHT_RETRY_INTERVAL, FRESH_COPIES_MIN, GOSSIP_POLL_INTERVAL, HEAD_PATIENCE_MIN,
    HEAD_RETRY_INTERVAL, ITEM_LIFETIME, REPUT_INTERVAL,
};
use crate::manifest::{Head, HeadContent};
use crate::node::api::{DhtError, DhtOp, Event, JobResult};
use crate::node::cx::Cx;
use crate::node::dht::{DhtQueue, Purpose};
use crate::node::timers::Timer;
use crate::time::Instant;

impl Upkeep {
    /// Since when a user waits for the head.
    fn awaited_since(&self, now: Instant) -> Option<Instant> {
        self.awaited.filter(|since| now.since(*since) < AWAITED_TIME)
    }

    /// The look-up under way has found this many copies of the newest head that it has brought.
    fn note_found(&mut self, now: Instant, copies: usize) {
        if self.is_looked_up {
            return;
        }
        if copies >= FRESH_COPIES_MIN {
            // A newer one would be at the same nodes.
            self.settled_due = Some(now);
        } else if copies == 1 {
            self.settled_due = Some(now + now.since(self.polled).max(HEAD_PATIENCE_MIN));
        }
    }

    /// Whether enough DHT nodes hold the newest head, and surely not by our own put (BEP 44): a copy does not tell its age,
    /// so a node that put it may be the one that keeps it alive, and puts it again.
    fn others_keep_it(&self, now: Instant, poll_interval: Duration) -> bool {
        let is_seen = self
            .copies
            .is_some_and(|(at, copies)| copies >= FRESH_COPIES_MIN && now.since(at) <= 2 * poll_interval);
        is_seen && self.put.is_none_or(|put| now.since(put) >= ITEM_LIFETIME)
    }
}

impl Heads {
    /// A head is durable and used from here on.
    pub(super) fn adopt(
        &mut self,
        cx: &mut Cx,
        channel: PublicKey,
        head: HeldHead,
        read: Head,
    ) -> Option<Adopted> {
        let (now, poll_interval) = (cx.now(), self.poll_interval());
        let upkeep = self.by_channel.get_mut(&channel)?;
        let adds_item = upkeep.head.as_ref().is_some_and(|known| head.adds_item_to(known));
        upkeep.head = Some(head);
        upkeep.put_due = Some(now + REPUT_INTERVAL);
        if adds_item {
            cx.set_timer_sooner(Timer::Channel(channel), now);
            return Some(Adopted::Item);
        }
        upkeep.root = match &read.content {
            HeadContent::Body(body) => Some(body.clone()),
            HeadContent::Inline(_) => None,
        };
        upkeep.copies = None;
        let polled = upkeep.polled;
        upkeep.poll_due =
            upkeep.poll_due.map(|due| if due > now { due.max(polled + poll_interval) } else { due });
        let (topic, sequence, content) = (upkeep.topic, read.sequence, read.content);
        Some(Adopted::Head { channel, topic, sequence, content })
    }

    /// A user has begun to follow a channel, or follows it again.
    pub(crate) fn note_awaited(&mut self, cx: &Cx, channel: &PublicKey) {
        if let Some(upkeep) = self.by_channel.get_mut(channel) {
            upkeep.awaited = Some(cx.now());
        }
    }

    /// When something of a channel's head is due next.
    pub(crate) fn due(&self, channel: &PublicKey) -> Option<Instant> {
        if self.is_paused(channel) { None } else { self.by_channel.get(channel)?.due() }
    }

    /// Does what is due. `is_own`: the channel is the node's own.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx, dht: &mut DhtQueue, channel: PublicKey, is_own: bool) {
        let now = cx.now();
        if self.is_paused(&channel) {
            return;
        }
        let Some(upkeep) = self.by_channel.get_mut(&channel) else { return };
        if let Some((_, head)) = upkeep.untaken.take_if(|(due, _)| *due <= now) {
            self.offer(cx, channel, head);
        }
        let Some(upkeep) = self.by_channel.get_mut(&channel) else { return };
        upkeep.is_looked_up |= upkeep.settled_due.take_if(|due| *due <= now).is_some();
        if upkeep.poll_due.take_if(|due| *due <= now).is_some() {
            if !dht.push(now, Purpose::Poll(channel), DhtOp::Get(channel)) {
                upkeep.poll_due = Some(now + HEAD_RETRY_INTERVAL);
            } else if let Some(since) = upkeep.awaited_since(now) {
                dht.note_awaited(Purpose::Poll(channel), since);
            }
        }
        if upkeep.put_due.take_if(|due| *due <= now).is_some() {
            self.put_again(cx, dht, channel, is_own);
        }
    }

    /// Puts the head again, unless others do.
    fn put_again(&mut self, cx: &Cx, dht: &mut DhtQueue, channel: PublicKey, is_own: bool) {
        let (now, poll_interval) = (cx.now(), self.poll_interval());
        let Some(upkeep) = self.by_channel.get_mut(&channel) else { return };
        let Some(item) = upkeep.head.as_ref().and_then(HeldHead::item).cloned() else { return };
        if !is_own && upkeep.others_keep_it(now, poll_interval) {
            upkeep.put_due = Some(now + REPUT_INTERVAL);
        } else if !dht.put(now, Purpose::Reput(channel), item, None) {
            upkeep.put_due = Some(now + DHT_RETRY_INTERVAL);
        }
    }

    /// We have put the newest head, so it is ours to keep, and the DHT has been asked for a newer one.
    pub(crate) fn note_put(&mut self, cx: &Cx, channel: &PublicKey) {
        if let Some(upkeep) = self.by_channel.get_mut(channel) {
            (upkeep.put, upkeep.is_looked_up) = (Some(cx.now()), true);
            upkeep.answered = Some(cx.unix());
        }
    }

    /// Peers named their newest sequences.
    pub(crate) fn on_gossip(&mut self, cx: &mut Cx, sequences: &BTreeMap<PublicKey, u64>) {
        for (channel, sequence) in sequences {
            let newest =
                self.by_channel.get(channel).map(|upkeep| upkeep.newest().map_or(0, HeldHead::sequence));
            if newest.is_some_and(|newest| *sequence > newest) {
                self.poll_soon(cx, channel);
            }
        }
    }

    /// Looks a head up as soon as it may be after the last look-up.
    pub(crate) fn poll_soon(&mut self, cx: &mut Cx, channel: &PublicKey) {
        if let Some(upkeep) = self.by_channel.get_mut(channel)
            && let Some(due) = &mut upkeep.poll_due
        {
            *due = (*due).min(cx.now().max(upkeep.polled + GOSSIP_POLL_INTERVAL));
            cx.set_timer_sooner(Timer::Channel(*channel), *due);
        }
    }

    // --- the DHT's answers ----------------------------------------------------------------------------------

    /// Whether an item is the newest head that is known of its channel: then its signature was checked before.
    pub(crate) fn is_newest(&self, item: &SignedItem) -> bool {
        let newest = self.by_channel.get(&item.key).and_then(|upkeep| upkeep.newest());
        newest.and_then(HeldHead::item) == Some(item)
    }

    /// A look-up has found a properly signed item of its channel.
    pub(crate) fn on_polled(&mut self, cx: &mut Cx, item: SignedItem) {
        let (channel, head) = (item.key, HeldHead::of_item(item));
        if let Some(upkeep) = self.by_channel.get_mut(&channel) {
            let (best, copies) = upkeep.poll_best.unwrap_or((head.sequence(), 0));
            if head.sequence() >= best {
                let copies = if head.sequence() == best { copies } else { 0 };
                upkeep.poll_best = Some((head.sequence(), copies + 1));
                upkeep.note_found(cx.now(), copies + 1);
            }
            if let Some(due) = upkeep.settled_due {
                cx.set_timer_sooner(Timer::Channel(channel), due);
            }
        }
        self.offer(cx, channel, head);
    }

    /// An operation has started: the next of its kind is due an interval later, however long it has waited, so that
    /// channels that were all due at once are not all due at once again.
    pub(crate) fn on_dht_started(&mut self, cx: &Cx, purpose: Purpose) {
        let (now, poll_interval) = (cx.now(), self.poll_interval());
        let (Purpose::Poll(channel) | Purpose::Reput(channel)) = purpose else { return };
        let Some(upkeep) = self.by_channel.get_mut(&channel) else { return };
        if let Purpose::Poll(_) = purpose {
            let interval = if upkeep.newest().is_some() { poll_interval } else { upkeep.poll_interval };
            (upkeep.polled, upkeep.poll_due) = (now, Some(now + interval));
        } else {
            (upkeep.put, upkeep.put_due) = (Some(now), Some(now + REPUT_INTERVAL));
        }
    }

    /// A put has failed: somebody has a newer head (the next look-up finds it), or nobody answers.
    pub(crate) fn on_put_done(&mut self, cx: &mut Cx, channel: PublicKey, result: &JobResult) {
        let retries = matches!(result, JobResult::DhtPut(Err(error)) if *error != DhtError::Disabled);
        let Some(upkeep) = self.by_channel.get_mut(&channel).filter(|_| retries) else { return };
        if let Some(due) = &mut upkeep.put_due {
            *due = (*due).min(cx.now() + DHT_RETRY_INTERVAL);
            cx.set_timer_sooner(Timer::Channel(channel), *due);
        }
    }

    /// A look-up has ended.
    pub(crate) fn on_poll_done(&mut self, cx: &mut Cx, channel: PublicKey, error: Option<DhtError>) {
        let (now, poll_interval) = (cx.now(), self.poll_interval());
        let Some(upkeep) = self.by_channel.get_mut(&channel) else { return };
        let best = upkeep.poll_best.take();
        upkeep.poll_error = error;
        if error.is_none() {
            upkeep.answered = Some(cx.unix());
        }
        // Without a DHT there is nothing newer to be learnt from it.
        upkeep.is_looked_up |= matches!(error, None | Some(DhtError::Disabled));
        upkeep.settled_due = None;
        match upkeep.newest().map(HeldHead::sequence) {
            None => {
                upkeep.poll_interval = (upkeep.poll_interval * 2).min(poll_interval);
                cx.event(Event::HeadNotFound { channel, error });
            }
            Some(sequence) if error.is_none() && best.is_none_or(|(best, _)| best < sequence) => {
                upkeep.copies = None;
                // The DHT has lost our head or holds an older one.
                let soon = upkeep.put.map_or(now, |put| now.max(put + DHT_RETRY_INTERVAL));
                if let Some(due) = &mut upkeep.put_due {
                    *due = soon.min(*due);
                    cx.set_timer_sooner(Timer::Channel(channel), *due);
                }
            }
            Some(sequence) => {
                upkeep.copies = best.filter(|(best, _)| *best == sequence).map(|(_, copies)| (now, copies));
            }
        }
    }
}
