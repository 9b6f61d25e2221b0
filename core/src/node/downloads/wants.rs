//! Which blobs are wanted, where they stand, and what is known of each: of a native blob its [`Transfer`], of a v5 blob who is asked
//! for it. A blob is in the queues of its swarms while something of it is missing that nobody is asked for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::super::channels::contents::{Place, Wanted};
use super::queue::{Class, Queues};
use super::transfer::Transfer;
use crate::ids::{BlobId, BlobName, ConnId, Root, Topic};
use crate::node::api::Claim;
use crate::parts::{self, Mask};
use crate::time::Instant;

/// A wanted blob.
pub(super) struct Want {
    /// Place in the queues, kept when the blob is queued again.
    order: u64,
    is_queued: bool,
    /// Where it stands, the most urgent first: in several swarms, or in one more than once; and what it is said to hold there.
    places: Vec<(Place, Claim)>,
    /// Its id: a v5 blob's name, or what the author of a native one says.
    id: Option<BlobId>,
    /// Who is asked for the whole of it.
    asked: Vec<(ConnId, Instant)>,
    /// The whole of it came and is being written.
    is_writing: bool,
    /// What of a native blob is here and under way.
    transfer: Transfer,
    /// When what is under way is given up, as nobody wants the blob any more.
    given_up_at: Option<Instant>,
}

impl Want {
    pub(super) fn id(&self) -> Option<BlobId> {
        self.id
    }

    pub(super) fn places(&self) -> &[(Place, Claim)] {
        &self.places
    }

    pub(super) fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// The whole of it came and is being written.
    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
    }

    pub(super) fn asked(&self) -> &[(ConnId, Instant)] {
        &self.asked
    }

    /// Nothing of it is here or under way.
    pub(super) fn is_untouched(&self) -> bool {
        !self.is_writing && self.asked.is_empty() && !self.transfer.is_begun()
    }

    /// Nobody is asked for any of it.
    fn is_idle(&self) -> bool {
        !self.is_writing && self.asked.is_empty() && self.transfer.is_idle()
    }

    /// Whether something is missing that nobody is asked for.
    fn is_to_be_asked(&self, name: &BlobName) -> bool {
        let is_missing = match name {
            BlobName::Native(_) => !self.transfer.unasked().is_empty(),
            BlobName::V5(_) => true,
        };
        is_missing && !self.is_writing && self.asked.is_empty() && !self.places.is_empty()
    }
}

/// The wanted blobs. Bounded by what the contents have in hand ([`crate::limits::WANTED_MAX`]).
pub(super) struct Wants {
    by_name: BTreeMap<BlobName, Want>,
    queues: Queues,
    /// Blobs of which nobody is asked.
    idle: usize,
    /// Blobs of which something is under way.
    busy: BTreeSet<BlobName>,
    /// Parts of them, of all together.
    parts_under_way: usize,
    next_order: u64,
    /// Grows whenever there is something to ask for that there was not: a connection that was of no use may be now.
    epoch: u64,
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            queues: Queues::default(),
            idle: 0,
            busy: BTreeSet::new(),
            parts_under_way: 0,
            next_order: 0,
            epoch: 1,
        }
    }
}

/// What a blob is said to hold at a place, and the parts that must come from peers.
fn claim(wanted: &Wanted, part_len: usize, takes_all: bool) -> (Claim, Mask) {
    let claim = match wanted {
        Wanted::Native { blob, len, .. } => Claim::Content(blob.key.clone(), *len),
        Wanted::Pack(_) | Wanted::V5(_) => Claim::Pack,
    };
    let needed = needed(&claim, part_len, takes_all);
    (claim, needed)
}

fn needed(claim: &Claim, part_len: usize, takes_all: bool) -> Mask {
    match claim {
        Claim::Content(_, len) if !takes_all => parts::needed(*len as usize, part_len),
        Claim::Content(..) | Claim::Pack => Mask::ALL,
    }
}

impl Wants {
    // --- what is wanted -------------------------------------------------------------------------------------

    /// A blob is missing. `takes_all`: also the parts that could be made here.
    pub(super) fn want(&mut self, wanted: &Wanted, place: Place, part_len: usize, takes_all: bool) {
        let name = wanted.name();
        let (claim, needed) = claim(wanted, part_len, takes_all);
        let id = match wanted {
            Wanted::Native { id, .. } => *id,
            Wanted::Pack(_) => None,
            Wanted::V5(id) => Some(*id),
        };
        if !self.by_name.contains_key(&name) {
            let want = Want {
                order: self.next_order,
                is_queued: false,
                places: Vec::new(),
                id,
                asked: Vec::new(),
                is_writing: false,
                transfer: Transfer::default(),
                given_up_at: None,
            };
            self.next_order += 1;
            self.idle += 1;
            self.by_name.insert(name, want);
        }
        self.change(&name, |want| {
            want.id = want.id.or(id);
            if let Some(at) = want.places.iter().position(|(known, _)| known.is_same(&place)) {
                // Of a range and the file around it, the more urgent counts.
                if want.places[at].0.urgency() <= place.urgency() {
                    return;
                }
                want.places.remove(at);
            }
            let at = want.places.partition_point(|(known, _)| known.urgency() <= place.urgency());
            want.places.insert(at, (place, claim));
            want.transfer.need(needed);
            want.given_up_at = None;
        });
        self.requeue(&name);
    }

    /// Reckons again which parts must come from peers.
    pub(super) fn need_again(&mut self, part_len: usize, takes_all: bool) {
        let names: Vec<BlobName> = self.by_name.keys().copied().collect();
        for name in names {
            self.change(&name, |want| {
                let needed = want.places.iter().map(|(_, claim)| needed(claim, part_len, takes_all));
                if let Some(needed) = needed.reduce(|all, mask| all | mask) {
                    want.transfer.set_needed(needed);
                }
            });
            self.requeue(&name);
        }
    }

    /// What only one swarm wanted and nobody was asked for is dropped. What is in flight arrives and is stored, unless it is given
    /// up ([`Self::give_up_at`]).
    pub(super) fn drop_wants(&mut self, topic: &Topic) {
        self.queues.forget(topic);
        let of_topic = |want: &&Want| want.places.iter().any(|(place, _)| place.topic() == topic);
        let names: Vec<BlobName> =
            self.by_name.iter().filter(|(_, want)| of_topic(want)).map(|(name, _)| *name).collect();
        for name in names {
            self.change(&name, |want| want.places.retain(|(place, _)| place.topic() != topic));
        }
    }

    /// What is in flight and nobody wants any more is given up at `at`, unless somebody does by then.
    pub(super) fn give_up_at(&mut self, at: Instant) {
        for name in &self.busy {
            if let Some(want) = self.by_name.get_mut(name).filter(|want| want.places.is_empty()) {
                want.given_up_at.get_or_insert(at);
            }
        }
    }

    /// The blobs that are due to be given up.
    pub(super) fn due_to_give_up(&self, now: Instant) -> Vec<BlobName> {
        let is_due = |want: &Want| want.given_up_at.is_some_and(|at| at <= now);
        self.busy.iter().filter(|name| self.by_name.get(name).is_some_and(is_due)).copied().collect()
    }

    /// Takes a blob out, and what it was wanted for.
    pub(super) fn remove(&mut self, name: &BlobName) -> Vec<(Place, Claim)> {
        self.change(name, |want| want.is_writing = true);
        self.busy.remove(name);
        self.by_name.remove(name).map_or_else(Vec::new, |want| want.places)
    }

    pub(super) fn get(&self, name: &BlobName) -> Option<&Want> {
        self.by_name.get(name)
    }

    /// Changes a blob's transfer.
    pub(super) fn with_transfer<T>(
        &mut self,
        name: &BlobName,
        step: impl FnOnce(&mut Transfer) -> T,
    ) -> Option<T> {
        self.change(name, |want| step(&mut want.transfer))
    }

    /// A connection is asked for the whole blob.
    pub(super) fn asked_whole(&mut self, name: &BlobName, place: &Place, conn: ConnId, now: Instant) {
        self.change(name, |want| want.asked.push((conn, now)));
        self.queues.served(place.topic());
    }

    /// The whole blob will not come over a connection, or has come over it. `false`: it was not asked for it.
    pub(super) fn not_asked_whole(&mut self, name: &BlobName, conn: ConnId, is_writing: bool) -> bool {
        let was_asked = self.change(name, |want| {
            let before = want.asked.len();
            want.asked.retain(|(asked, _)| *asked != conn);
            want.is_writing |= is_writing;
            want.asked.len() < before
        });
        was_asked.unwrap_or_default()
    }

    /// The store did not take the whole blob.
    pub(super) fn not_written(&mut self, name: &BlobName) {
        self.change(name, |want| want.is_writing = false);
    }

    /// A native blob turned out not to have the id that its author says.
    pub(super) fn forget_id(&mut self, name: &BlobName) {
        self.change(name, |want| want.id = None);
    }

    /// A blob is no longer wanted at places that `are_done`.
    pub(super) fn forget_places(&mut self, name: &BlobName, are_done: impl Fn(&Place) -> bool) {
        self.change(name, |want| want.places.retain(|(place, _)| !are_done(place)));
    }

    /// A swarm has had its turn.
    pub(super) fn served(&mut self, topic: &Topic) {
        self.queues.served(topic);
    }

    /// Lets `step` change a blob, and brings queues and counts up to date.
    fn change<T>(&mut self, name: &BlobName, step: impl FnOnce(&mut Want) -> T) -> Option<T> {
        let want = self.by_name.get_mut(name)?;
        let (was_idle, was_under_way) = (want.is_idle(), want.transfer.under_way());
        let was_untouched = want.is_untouched();
        let result = step(want);
        let is_idle = want.is_idle();
        self.parts_under_way = self.parts_under_way + want.transfer.under_way() - was_under_way;
        self.idle = self.idle + usize::from(is_idle) - usize::from(was_idle);
        let is_to_be_asked = want.is_to_be_asked(name);
        if is_to_be_asked && !want.is_queued {
            self.epoch += 1;
        } else if !is_to_be_asked && want.is_queued {
            want.is_queued = false;
            for (place, _) in &want.places {
                self.queues.remove(want.order, place.topic());
            }
        } else if want.is_queued && want.is_untouched() != was_untouched {
            for (place, _) in &want.places {
                self.queues.set_untouched(want.order, place.topic(), !was_untouched);
            }
        }
        if is_idle {
            self.busy.remove(name);
        } else {
            self.busy.insert(*name);
        }
        let is_gone = is_idle && want.places.is_empty();
        if is_to_be_asked && !want.is_queued {
            self.requeue(name);
        }
        if is_gone {
            self.idle -= 1;
            self.by_name.remove(name);
        }
        Some(result)
    }

    /// Puts a blob into the queues of its swarms, at its most urgent place in each.
    fn requeue(&mut self, name: &BlobName) {
        let Some(want) = self.by_name.get_mut(name).filter(|want| want.is_to_be_asked(name)) else { return };
        want.is_queued = true;
        self.epoch += 1;
        for (place, _) in want.places.iter().rev() {
            self.queues.insert(want.order, *name, *place, want.is_untouched());
        }
    }

    // --- what to ask for ------------------------------------------------------------------------------------

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether something is missing that nobody is asked for.
    pub(super) fn is_any_queued(&self) -> bool {
        self.queues.in_turn().any(|topic| self.queues.of(topic).next().is_some())
    }

    /// Blobs are missing, and nobody is asked for any.
    pub(super) fn is_starved(&self) -> bool {
        self.idle == self.by_name.len()
    }

    /// The id of a queued blob that v5 peers may have.
    pub(super) fn example(&self) -> Option<BlobId> {
        let names = self.queues.in_turn().flat_map(|topic| self.queues.of(topic)).map(|(_, name, _)| name);
        names.take(EXAMPLES).find_map(|name| self.by_name.get(name)?.id)
    }

    /// The ids of a swarm's queued blobs, where they have one.
    pub(super) fn queued_ids(&self, topic: &Topic) -> impl Iterator<Item = BlobId> {
        self.queues.of(topic).filter_map(|(_, name, _)| self.by_name.get(name)?.id)
    }

    /// The swarms of which blobs were queued since the last call.
    pub(super) fn take_gained(&mut self) -> BTreeSet<Topic> {
        self.queues.take_gained()
    }

    /// The queued blob of the first class and in it of the least rank, of the first of these swarms in turn that has one with a
    /// rank; and those that were looked at in vain.
    pub(super) fn pick_of<R: Ord>(
        &self,
        topics: impl Iterator<Item = Topic>,
        mut rank: impl FnMut(&BlobName, &Want, &Place) -> Option<R>,
    ) -> (Option<(BlobName, Place)>, Vec<Topic>) {
        let mut turns: Vec<_> = topics.map(|topic| (self.queues.turn(&topic), topic)).collect();
        turns.sort_unstable();
        let mut in_vain = Vec::new();
        for (_, topic) in turns {
            let best = self.best_of(&topic, &mut rank);
            if best.is_some() {
                return (best, in_vain);
            }
            in_vain.push(topic);
        }
        (None, in_vain)
    }

    /// The same, of all swarms.
    pub(super) fn pick<R: Ord>(
        &self,
        mut rank: impl FnMut(&BlobName, &Want, &Place) -> Option<R>,
    ) -> Option<(BlobName, Place)> {
        self.queues.in_turn().find_map(|topic| self.best_of(topic, &mut rank))
    }

    fn best_of<R: Ord>(
        &self,
        topic: &Topic,
        rank: &mut impl FnMut(&BlobName, &Want, &Place) -> Option<R>,
    ) -> Option<(BlobName, Place)> {
        let mut best: Option<(Class, R, (BlobName, Place))> = None;
        for (class, name, place) in self.queues.of(topic) {
            if best.as_ref().is_some_and(|(of_best, ..)| *of_best < class) {
                break;
            }
            let Some(want) = self.by_name.get(name) else { continue };
            let others = want.places.iter().map(|(place, _)| place).filter(|it| it.topic() == topic);
            let mut places = [place].into_iter().chain(others.skip(1));
            let ranked = places.find_map(|place| Some((rank(name, want, place)?, *place)));
            if let Some((rank, place)) = ranked
                && best.as_ref().is_none_or(|(_, least, _)| rank < *least)
            {
                best = Some((class, rank, (*name, place)));
            }
        }
        best.map(|(.., best)| best)
    }

    /// The blobs of which something is under way.
    pub(super) fn busy(&self) -> impl Iterator<Item = (&BlobName, &Want)> {
        self.busy.iter().filter_map(|name| Some((name, self.by_name.get(name)?)))
    }

    /// The blobs of which a connection is asked for something.
    pub(super) fn busy_with(&self, conn: ConnId) -> Vec<BlobName> {
        let is_asked = |want: &Want| {
            let of_parts = || want.transfer.requests().iter().any(|request| request.conn() == conn);
            want.asked.iter().any(|(asked, _)| *asked == conn) || of_parts()
        };
        self.busy().filter(|(_, want)| is_asked(want)).map(|(name, _)| *name).collect()
    }

    /// The native blobs of which all that must come from peers is here.
    pub(super) fn to_be_finished(&self) -> Vec<Root> {
        let is_due = |want: &Want| want.transfer.is_to_be_finished();
        let due = self.by_name.iter().filter(|(_, want)| is_due(want));
        due.filter_map(|(name, _)| name.root()).collect()
    }

    /// Counts the parts under way, of all blobs.
    pub(super) fn parts_under_way(&self) -> usize {
        self.parts_under_way
    }
}

/// Queued blobs that are looked at for one with an id.
const EXAMPLES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { slot: 0, generation: 0 };
    const NOW: Instant = Instant(0);

    fn at(n: u8, position: u64) -> Place {
        Place::new(Topic([n; 32]), position, false)
    }

    fn name(n: u8) -> BlobName {
        BlobName::Native(Root([n; 32]))
    }

    fn want(wants: &mut Wants, n: u8, place: Place) {
        wants.want(&Wanted::Pack(Root([n; 32])), place, parts::PART_LEN, false);
    }

    fn ask(wants: &mut Wants, n: u8, mask: Mask) {
        wants.with_transfer(&name(n), |transfer| transfer.ask(CONN, mask, None, NOW));
    }

    fn first(wants: &Wants) -> Option<BlobName> {
        wants.pick(|_, want, _| Some(want.order)).map(|(name, _)| name)
    }

    #[test]
    fn a_blob_is_queued_while_something_of_it_is_missing_that_nobody_is_asked_for() {
        let mut wants = Wants::default();
        (1..=2).for_each(|n| want(&mut wants, n, at(1, 0)));
        ask(&mut wants, 1, Mask::first(15));
        assert_eq!((first(&wants), wants.parts_under_way(), wants.is_starved()), (Some(name(1)), 15, false));
        ask(&mut wants, 1, Mask::one(15));
        assert_eq!(first(&wants), Some(name(2)));
        let epoch = wants.epoch();
        wants.with_transfer(&name(1), |transfer| transfer.release(CONN, Mask::ALL));
        assert!(wants.epoch() > epoch, "a peer that had nothing to bring may have this");
        assert_eq!((first(&wants), wants.parts_under_way(), wants.is_starved()), (Some(name(1)), 0, true));
    }

    #[test]
    fn a_blob_in_several_places_is_asked_of_a_peer_that_has_any_of_them() {
        let mut wants = Wants::default();
        let later = at(1, 7);
        want(&mut wants, 1, at(1, 0));
        let epoch = wants.epoch();
        want(&mut wants, 1, later);
        want(&mut wants, 1, later);
        assert!(wants.epoch() > epoch, "a peer that had nothing to bring may have this");
        assert_eq!(wants.pick(|_, _, at| (*at == later).then_some(0)), Some((name(1), later)));
        let places: Vec<Place> = wants.remove(&name(1)).into_iter().map(|(place, _)| place).collect();
        assert_eq!((places, wants.is_empty()), (Vec::from([at(1, 0), later]), true));
    }

    #[test]
    fn a_dropped_swarm_takes_only_its_own_queue_along() {
        let mut wants = Wants::default();
        want(&mut wants, 1, at(1, 0));
        want(&mut wants, 1, at(2, 0));
        (2..=3).for_each(|n| want(&mut wants, n, at(1, 0)));
        ask(&mut wants, 3, Mask::one(0));
        wants.drop_wants(at(1, 0).topic());
        assert_eq!(wants.pick(|_, _, at| Some(at.position())), Some((name(1), at(2, 0))));
        assert!(wants.get(&name(2)).is_none() && wants.get(&name(3)).is_some(), "one is in flight");
        wants.give_up_at(NOW);
        assert_eq!(wants.due_to_give_up(NOW), [name(3)]);
        wants.with_transfer(&name(3), Transfer::give_up);
        assert!(wants.get(&name(3)).is_none(), "nobody wants it any more");
    }

    #[test]
    fn swarms_are_picked_from_in_turn_and_one_of_no_use_costs_the_others_nothing() {
        let mut wants = Wants::default();
        (0..100).for_each(|n| want(&mut wants, n, at(1, 0)));
        want(&mut wants, 200, at(2, 0));
        let both = || [at(1, 0), at(2, 0)].into_iter().map(|place| *place.topic());
        let any = |_: &BlobName, want: &Want, _: &Place| Some(want.order);
        assert_eq!(wants.pick_of(both(), any).0, Some((name(0), at(1, 0))));
        ask(&mut wants, 0, Mask::ALL);
        wants.served(at(1, 0).topic());
        assert_eq!(wants.pick_of(both(), any).0, Some((name(200), at(2, 0))), "the other's turn");
        let none = |_: &BlobName, _: &Want, _: &Place| None::<u64>;
        assert_eq!(wants.pick_of(both(), none), (None, Vec::from([*at(2, 0).topic(), *at(1, 0).topic()])));
    }
}
