//! What the store has lost. A content whose selected blobs are all here is not looked at again until a peer asks for one: where
//! the store is then without it, all of them are looked up, as after a start. What is missing is wanted, fetched and told of
//! again.
//!
//! A node does not keep the ids of all blobs that it has, so it cannot tell a blob that it lost from one that never was.
//! Hence a look-up is silent until some blob is known to be missing, and there are few of them: one for a content at a time,
//! and after each the next waits longer, from [`RECHECK_INTERVAL_MIN`] to [`RECHECK_INTERVAL_MAX`]. So neither a disk that
//! loses the same blob over and over nor a peer that asks for what is nowhere keeps a node busy. Where the store itself has found a
//! blob damaged, the look-up begins at once, or [`RECHECK_DAMAGED_INTERVAL`] after the last.
//!
//! What is out of reach (a disk that is not there) is not fetched: peers are told that it is gone, and again that it is here once
//! the store is back.

use alloc::vec::Vec;
use core::time::Duration;

use super::fetch::{Ask, Fetch, Source};
use super::{Contents, Effect};
use crate::ids::Topic;
use crate::limits::{
    RECHECK_DAMAGED_INTERVAL, RECHECK_INTERVAL_MAX, RECHECK_INTERVAL_MIN, RECHECK_TURN, RECHECKS_MAX,
    WANTED_PER_FETCH_MAX,
};
use crate::manifest::HeadContent;
use crate::node::api::Event;
use crate::node::cx::Cx;
use crate::node::timers::Timer;
use crate::time::Instant;

/// When a content's blobs are looked up again.
pub(super) struct Recheck {
    /// When the next look-up begins; `None`: no blob was asked for in vain.
    due: Option<Instant>,
    /// It begins no sooner.
    not_before: Instant,
    /// It begins no sooner where a blob was found damaged.
    damaged_not_before: Instant,
    interval: Duration,
    /// A blob was found damaged while nothing could be looked up.
    is_damaged: bool,
    /// The look-up under way.
    fetch: Option<Fetch>,
}

impl Recheck {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: None,
            not_before: now,
            damaged_not_before: now,
            interval: RECHECK_INTERVAL_MIN,
            is_damaged: false,
            fetch: None,
        }
    }

    pub(super) fn fetch(&self) -> Option<&Fetch> {
        self.fetch.as_ref()
    }

    pub(super) fn fetch_mut(&mut self) -> Option<&mut Fetch> {
        self.fetch.as_mut()
    }

    /// Nothing is looked up or fetched any more: what was found damaged meanwhile makes a look-up due.
    pub(super) fn line_up_again(&mut self) {
        if self.is_damaged && self.fetch.is_none() {
            self.due = Some(self.due.map_or(self.damaged_not_before, |due| due.min(self.damaged_not_before)));
        }
    }

    /// The look-up under way is of no interest any more.
    pub(super) fn end(&mut self) {
        (self.due, self.fetch) = (None, None);
    }

    fn begin(&mut self, now: Instant, fetch: Fetch) {
        (self.due, self.fetch, self.is_damaged) = (None, Some(fetch), false);
        self.not_before = now + self.interval;
        self.damaged_not_before = now + RECHECK_DAMAGED_INTERVAL;
        self.interval = (self.interval * 2).min(RECHECK_INTERVAL_MAX);
    }
}

impl Contents {
    /// The store is without a blob that a peer asked for. `may_mean`: whether it can be one of a content, which has chunk
    /// lists or none.
    pub(crate) fn on_asked_in_vain(&mut self, cx: &mut Cx, may_mean: impl Fn(&Topic, bool) -> bool) {
        for (topic, content) in &mut self.by_topic {
            let recheck = &mut content.recheck;
            let is_idle = recheck.due.is_none() && recheck.fetch.is_none();
            if may_mean(topic, content.has_chunks) && is_idle && content.fetch.is_satisfied() {
                let due = cx.now().max(recheck.not_before);
                recheck.due = Some(due);
                cx.set_timer_sooner(Timer::Swarm(*topic), due);
            }
        }
    }

    /// A user says that the store may have lost blobs: all are looked up again, and what is missing is fetched.
    pub(crate) fn look_up_anew(&mut self, topic: Topic, head: HeadContent) -> Vec<Effect> {
        let own = self.by_topic.get(&topic).map_or(0, |content| content.fetch.in_hand());
        let (number, in_hand_max) = (self.next_fetch(), self.in_hand_max(own));
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        if !content.fetch.knows_files() {
            return Vec::new();
        }
        content.recheck.end();
        let (mut asks, selection) = (Vec::new(), content.fetch.selection());
        content.fetch = Fetch::new(number, Source::Head(head), selection, in_hand_max, &mut asks);
        (content.is_refetch, content.is_reselected, content.is_told) = (true, true, false);
        self.in_hand = self.in_hand - own + content.fetch.in_hand();
        self.active.insert(topic);
        let asks = self.begun(topic, asks);
        [Effect::DropWants, Effect::TakeBack, Effect::Seek].into_iter().chain(asks).collect()
    }

    /// The store has found a blob damaged, which may be one of any content.
    pub(crate) fn on_damaged(&mut self) {
        for content in self.by_topic.values_mut() {
            content.recheck.is_damaged = true;
            if content.fetch.is_satisfied() {
                content.recheck.line_up_again();
            }
        }
    }

    /// What the store could not read it may read again.
    pub(crate) fn look_again(&mut self, topic: Topic) -> Vec<Effect> {
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        if let Some(fetch) = content.recheck.fetch_mut() {
            let mut asks = Vec::new();
            fetch.look_again(&mut asks);
            return self.after_recheck(topic, asks);
        }
        if content.fetch.is_satisfied() || content.fetch.is_refused() {
            return Vec::new();
        }
        self.step(topic, Fetch::look_again)
    }

    /// The swarms that have a content.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        self.by_topic.keys().copied().collect()
    }

    /// When a content's blobs are looked up again.
    pub(crate) fn due(&self, topic: &Topic) -> Option<Instant> {
        self.by_topic.get(topic)?.recheck.due
    }

    /// Begins the look-up that is due. `head` is what the channel's newest head names.
    pub(crate) fn recheck(&mut self, now: Instant, topic: Topic, head: Option<HeadContent>) -> Vec<Effect> {
        let (number, has_room) = (self.next_fetch(), self.has_room_for_recheck());
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        content.recheck.due = (!has_room).then_some(now + RECHECK_TURN);
        if !has_room {
            return Vec::new();
        }
        let source = head.map(Source::Head).or_else(|| content.tree.clone().map(Source::Tree));
        let Some(source) = source.filter(|_| content.fetch.is_satisfied()) else { return Vec::new() };
        let mut asks = Vec::new();
        let selection = content.fetch.selection();
        let fetch = Fetch::new(number, source, selection, WANTED_PER_FETCH_MAX, &mut asks);
        content.recheck.begin(now, fetch);
        self.rechecks.push(topic);
        self.after_recheck(topic, asks)
    }

    /// Each look-up holds a manifest and has blobs in hand, so few are under way at once, whatever strangers ask for.
    fn has_room_for_recheck(&mut self) -> bool {
        let by_topic = &self.by_topic;
        let is_under_way = |topic: &Topic| by_topic.get(topic).is_some_and(|it| it.recheck.fetch.is_some());
        self.rechecks.retain(is_under_way);
        self.rechecks.len() < RECHECKS_MAX
    }

    /// Takes note of what a look-up has come to.
    pub(super) fn after_recheck(&mut self, topic: Topic, mut asks: Vec<Ask>) -> Vec<Effect> {
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        let is_out_of_reach = content.recheck.fetch.as_ref().is_some_and(Fetch::is_out_of_reach);
        if is_out_of_reach || asks.iter().any(|ask| matches!(ask, Ask::Want { .. })) {
            return self.on_lost(topic, asks);
        }
        let Some(fetch) = content.recheck.fetch.take() else { return Vec::new() };
        let number = fetch.number();
        if fetch.is_satisfied() && content.fetch.has_all() && !fetch.has_all() {
            return self.on_less(topic, fetch);
        }
        // Otherwise all is here, or cannot be told from what is.
        if !fetch.is_satisfied() && !fetch.is_refused() {
            content.recheck.fetch = Some(fetch);
        }
        content.recheck.line_up_again();
        asks.retain(|ask| matches!(ask, Ask::Have(_) | Ask::Open(..)));
        asks.into_iter().filter_map(|ask| content.effect(topic, number, ask)).collect()
    }

    /// All that is selected is here, and what else was, nobody knows any more: peers are told of that alone.
    fn on_less(&mut self, topic: Topic, fetch: Fetch) -> Vec<Effect> {
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        (content.fetch, content.is_told) = (fetch, false);
        let told = self.begun(topic, Vec::new());
        [Effect::TakeBack].into_iter().chain(told).chain([Effect::AskHave]).collect()
    }

    /// Blobs are missing, or out of reach: the look-up becomes the content's fetch, and peers no longer count on what they were told.
    fn on_lost(&mut self, topic: Topic, asks: Vec<Ask>) -> Vec<Effect> {
        let Some(content) = self.by_topic.get_mut(&topic) else { return Vec::new() };
        let Some(fetch) = content.recheck.fetch.take() else { return Vec::new() };
        self.in_hand = self.in_hand - content.fetch.in_hand() + fetch.in_hand();
        content.fetch = fetch;
        (content.is_refetch, content.is_reselected, content.is_told) = (true, false, false);
        self.active.insert(topic);
        let (target, sequence) = (content.target, content.version);
        let is_missing = asks.iter().any(|ask| matches!(ask, Ask::Want { .. }));
        let lost = is_missing.then_some([Effect::Event(Event::BlobsLost { target, sequence }), Effect::Seek]);
        // A want makes peers be asked.
        let ask = (!is_missing).then_some(Effect::AskHave);
        let asks = self.begun(topic, asks);
        [Effect::TakeBack].into_iter().chain(lost.into_iter().flatten()).chain(asks).chain(ask).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobRef;
    use crate::ids::{BlobName, Root, Secret};
    use crate::node::api::Held;
    use crate::node::channels::contents::Selection;
    use crate::node::cx::Pending;
    use crate::rng::Rng;
    use crate::time::UnixTime;
    use crate::tree::TreeRef;

    fn tree(n: u8) -> TreeRef {
        TreeRef::new(1, 0, BlobRef { root: Root([n; 32]), key: Secret::new([n; 32]) }).expect("one blob")
    }

    fn asked(effects: &[Effect]) -> Option<u64> {
        effects.iter().find_map(|effect| match effect {
            Effect::Job(Pending::Have(_, number, _), _) => Some(*number),
            _ => None,
        })
    }

    #[test]
    fn a_peer_that_asks_for_what_is_nowhere_makes_few_contents_be_looked_up_at_once() {
        const CONTENTS: u8 = 20;
        let (now, mut contents) = (Instant(0), Contents::new());
        let mut cx = Cx::new(Rng::new([0; 32]), now, UnixTime(0));
        let topics = (0..CONTENTS).map(|n| Topic([n; 32]));
        for (topic, n) in topics.clone().zip(0..) {
            let begun = contents.begin_tree(now, topic, 1, tree(n), Selection::default());
            let number = asked(&begun).expect("the store is asked");
            contents.on_have(topic, number, &[BlobName::Native(Root([n; 32]))], &[Held::Whole]);
            assert!(contents.is_satisfied(&topic));
        }
        contents.on_asked_in_vain(&mut cx, |_, _| true);
        let look_up_due = |contents: &mut Contents, now| -> Vec<(Topic, u64)> {
            let due = topics.clone().filter(|topic| contents.due(topic).is_some_and(|due| due <= now));
            let due: Vec<Topic> = due.collect();
            due.into_iter().filter_map(|it| Some((it, asked(&contents.recheck(now, it, None))?))).collect()
        };
        let (mut now, mut all) = (now, 0);
        while all < usize::from(CONTENTS) {
            let begun = look_up_due(&mut contents, now);
            assert!((1..=RECHECKS_MAX).contains(&begun.len()));
            assert!(look_up_due(&mut contents, now).is_empty(), "the others wait");
            for (topic, number) in &begun {
                contents.on_have(*topic, *number, &[BlobName::Native(Root(topic.0))], &[Held::Whole]);
            }
            (now, all) = (now + RECHECK_TURN, all + begun.len());
        }
    }
}
