//! The queues of wanted blobs, one for each swarm. They are served in turn, and first the one whose deadline is nearest, so that
//! swarms whose seeds are gone cost the others nothing. Within a queue blobs stand by classes, so that few are looked at for each
//! request.

use alloc::collections::{BTreeMap, BTreeSet};
use core::mem;

use super::super::channels::contents::{Place, Urgency};
use crate::ids::{BlobName, Topic};
use crate::time::Instant;

/// The end of time, for a swarm without deadlines.
const NEVER: Instant = Instant(u64::MAX);

/// When a swarm has its turn: the nearest deadline, then who waited longest.
type Turn = (Instant, u64);

/// Which blobs of a swarm come before which; the least comes first. How rare they are decides among those of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    urgency: Urgency,
    is_data: bool,
    /// Where blobs are wanted in order, their place in it.
    position: u64,
    is_untouched: bool,
}

impl Class {
    fn new(place: &Place, is_untouched: bool) -> Self {
        let position = if place.in_order() { place.position() } else { u64::MAX };
        Self { urgency: place.urgency(), is_data: !place.is_index(), position, is_untouched }
    }
}

#[derive(Default)]
struct Queue {
    /// By class, then by when they were wanted first, which a blob keeps when it is queued again.
    blobs: BTreeMap<(Class, u64), (BlobName, Place)>,
    classes: BTreeMap<u64, Class>,
    deadlines: BTreeSet<(Instant, u64)>,
    turn: Option<Turn>,
    /// The last turn that it had.
    served: u64,
}

/// All queues.
#[derive(Default)]
pub(super) struct Queues {
    by_topic: BTreeMap<Topic, Queue>,
    /// Swarms with queued blobs, in turn.
    turns: BTreeSet<(Turn, Topic)>,
    /// Swarms with blobs that were queued since somebody looked.
    gained: BTreeSet<Topic>,
    /// Turns so far.
    count: u64,
}

impl Queues {
    pub(super) fn insert(&mut self, order: u64, name: BlobName, place: Place, is_untouched: bool) {
        let topic = *place.topic();
        self.remove(order, &topic);
        let count = self.count;
        let queue = self.by_topic.entry(topic).or_insert_with(|| Queue { served: count, ..Queue::default() });
        queue.deadlines.extend(place.urgency().deadline().map(|deadline| (deadline, order)));
        let class = Class::new(&place, is_untouched);
        queue.classes.insert(order, class);
        queue.blobs.insert((class, order), (name, place));
        self.gained.insert(topic);
        self.line_up(topic);
    }

    /// A queued blob was begun, or nothing of it is here or under way any more.
    pub(super) fn set_untouched(&mut self, order: u64, topic: &Topic, is_untouched: bool) {
        if let Some(queue) = self.by_topic.get_mut(topic)
            && let Some(class) = queue.classes.get_mut(&order)
            && let Some(blob) = queue.blobs.remove(&(*class, order))
        {
            class.is_untouched = is_untouched;
            queue.blobs.insert((*class, order), blob);
        }
    }

    /// The swarms of which blobs were queued since the last call.
    pub(super) fn take_gained(&mut self) -> BTreeSet<Topic> {
        mem::take(&mut self.gained)
    }

    pub(super) fn remove(&mut self, order: u64, topic: &Topic) {
        let Some(queue) = self.by_topic.get_mut(topic) else { return };
        let Some(class) = queue.classes.remove(&order) else { return };
        queue.blobs.remove(&(class, order));
        if let Some(deadline) = class.urgency.deadline() {
            queue.deadlines.remove(&(deadline, order));
        }
        self.line_up(*topic);
    }

    /// A swarm has had its turn.
    pub(super) fn served(&mut self, topic: &Topic) {
        self.count += 1;
        if let Some(queue) = self.by_topic.get_mut(topic) {
            queue.served = self.count;
            self.line_up(*topic);
        }
    }

    /// Nothing is wanted for a swarm any more.
    pub(super) fn forget(&mut self, topic: &Topic) {
        if let Some(turn) = self.by_topic.remove(topic).and_then(|queue| queue.turn) {
            self.turns.remove(&(turn, *topic));
        }
    }

    fn line_up(&mut self, topic: Topic) {
        let Some(queue) = self.by_topic.get_mut(&topic) else { return };
        let deadline = queue.deadlines.first().map_or(NEVER, |(deadline, _)| *deadline);
        let turn = (!queue.blobs.is_empty()).then_some((deadline, queue.served));
        if turn == queue.turn {
            return;
        }
        if let Some(old) = queue.turn.take() {
            self.turns.remove(&(old, topic));
        }
        queue.turn = turn;
        self.turns.extend(turn.map(|turn| (turn, topic)));
    }

    /// The swarms with queued blobs, in turn.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Topic> {
        self.turns.iter().map(|(_, topic)| topic)
    }

    /// When a swarm with queued blobs has its turn; the least comes first.
    pub(super) fn turn(&self, topic: &Topic) -> Option<Turn> {
        self.by_topic.get(topic)?.turn
    }

    /// The queued blobs of a swarm by class, those wanted longest first.
    pub(super) fn of(&self, topic: &Topic) -> impl Iterator<Item = (Class, &BlobName, &Place)> {
        let blobs = self.by_topic.get(topic).into_iter().flat_map(|queue| &queue.blobs);
        blobs.map(|((class, _), (name, place))| (*class, name, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Root;
    use alloc::vec::Vec;

    fn topic(n: u8) -> Topic {
        Topic([n; 32])
    }

    fn insert(queues: &mut Queues, order: u64, n: u8) {
        queues.insert(order, BlobName::Native(Root([n; 32])), Place::new(topic(n), order, false), true);
    }

    fn turns(queues: &Queues) -> Vec<Topic> {
        queues.in_turn().copied().collect()
    }

    #[test]
    fn swarms_are_served_in_turn_however_many_blobs_they_want() {
        let mut queues = Queues::default();
        (0..100).for_each(|order| insert(&mut queues, order, 1));
        insert(&mut queues, 100, 2);
        assert_eq!(turns(&queues), [topic(1), topic(2)]);
        queues.served(&topic(1));
        assert_eq!(turns(&queues), [topic(2), topic(1)]);
        queues.served(&topic(2));
        insert(&mut queues, 101, 3);
        assert_eq!(turns(&queues), [topic(1), topic(2), topic(3)], "a newcomer waits for one round");
        queues.remove(100, &topic(2));
        assert_eq!(turns(&queues), [topic(1), topic(3)]);
        queues.forget(&topic(1));
        assert_eq!(turns(&queues), [topic(3)]);
        queues.remove(101, &topic(3));
        assert!(turns(&queues).is_empty());
    }

    #[test]
    fn what_has_begun_comes_first_and_then_what_was_wanted_first() {
        let mut queues = Queues::default();
        (0..3).for_each(|order| insert(&mut queues, order, 1));
        let positions =
            |queues: &Queues| queues.of(&topic(1)).map(|(_, _, at)| at.position()).collect::<Vec<_>>();
        queues.set_untouched(2, &topic(1), false);
        assert_eq!(positions(&queues), [2, 0, 1]);
        queues.set_untouched(2, &topic(1), true);
        assert_eq!(positions(&queues), [0, 1, 2]);
        queues.set_untouched(1, &topic(1), false);
        insert(&mut queues, 1, 1);
        assert_eq!(positions(&queues), [0, 1, 2]);
    }
}
