//! Which blobs are wanted, and of whom. A wanted blob is in exactly one state: queued, asked whole of one v5 peer, in flight
//! in segments, or being written.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::super::channels::contents::Place;
use super::queue::Queues;
use super::transfer::{Contribution, Fed, Request, Segment, Transfer};
use crate::buffer::Buffer;
use crate::ids::{BlobName, ConnId, Topic};
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Asked(ConnId),
    /// There is a [`Transfer`] for it.
    InFlight,
    Writing,
}

/// What somebody contributed to a blob that did not match, to be held against the right one.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    part: Contribution,
    /// SHA-256 of the part.
    digest: [u8; 32],
}

impl Suspect {
    pub(super) fn new(part: Contribution, digest: [u8; 32]) -> Self {
        Self { part, digest }
    }

    /// The part, if it is not what the right blob has there.
    pub(super) fn convict(self, digest_of: impl Fn(&Contribution) -> [u8; 32]) -> Option<Contribution> {
        (self.digest != digest_of(&self.part)).then_some(self.part)
    }
}

struct Want {
    /// Place in the queues, kept when the blob is queued again.
    order: u64,
    state: State,
    /// Where it stands, the most urgent first: in several swarms, or in one more than once.
    places: Vec<Place>,
    /// Whose bytes made it wrong, unless they are cleared.
    suspects: Vec<Suspect>,
    /// [`Transfer::takeovers`] of the transfers that were given up: patience that was gained is kept, also where somebody
    /// refuses the blob in between.
    takeovers: u32,
}

/// The wanted blobs. Bounded by what the contents have in hand ([`crate::limits::WANTED_MAX`]) and, for transfers, by the
/// receive buffers.
pub(super) struct Wants {
    by_id: BTreeMap<BlobName, Want>,
    /// Those that stand in more than one place.
    several: BTreeSet<BlobName>,
    queues: Queues,
    queued: usize,
    transfers: BTreeMap<BlobName, Transfer>,
    /// Their positions, which are asked for more often than they change.
    in_flight: Vec<(u64, BlobName)>,
    /// There may be a segment that nobody is asked for.
    may_have_orphans: bool,
    next_order: u64,
    /// Grows whenever there is something to ask for that there was not: a connection that was of no use may be now.
    epoch: u64,
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            several: BTreeSet::new(),
            queues: Queues::default(),
            queued: 0,
            transfers: BTreeMap::new(),
            in_flight: Vec::new(),
            may_have_orphans: false,
            next_order: 0,
            epoch: 1,
        }
    }
}

impl Wants {
    // --- what is wanted -------------------------------------------------------------------------------------

    pub(super) fn want(&mut self, id: BlobName, place: Place) {
        if let Some(want) = self.by_id.get_mut(&id) {
            if let Some(at) = want.places.iter().position(|known| known.is_same(&place)) {
                // Of a range and the file around it, the more urgent counts.
                if want.places[at].urgency() <= place.urgency() {
                    return;
                }
                want.places.remove(at);
            }
            let at = want.places.partition_point(|known| known.urgency() <= place.urgency());
            want.places.insert(at, place);
            if want.places.len() > 1 {
                self.several.insert(id);
            }
            if want.state == State::Queued {
                enqueue(&mut self.queues, want, id);
            }
            if let Some(transfer) = self.transfers.get_mut(&id) {
                transfer.set_place(want.places[0]);
                self.transfers_changed();
            }
            self.epoch += 1;
            return;
        }
        let order = self.next_order;
        self.next_order += 1;
        self.epoch += 1;
        self.queued += 1;
        self.queues.insert(order, id, place);
        let (state, places) = (State::Queued, [place].into());
        self.by_id.insert(id, Want { order, state, places, suspects: Vec::new(), takeovers: 0 });
    }

    /// What only one swarm wanted and nobody was asked for is dropped. What is in flight arrives and is stored, unless it is given
    /// up ([`Self::give_up_at`]).
    pub(super) fn drop_wants(&mut self, topic: &Topic) {
        let Self { by_id: wants, several, queues, queued, transfers, .. } = self;
        queues.forget(topic);
        wants.retain(|id, want| {
            let before = want.places.len();
            want.places.retain(|place| place.topic() != topic);
            if want.places.len() <= 1 {
                several.remove(id);
            }
            if let (Some(place), Some(transfer)) = (want.places.first(), transfers.get_mut(id)) {
                transfer.set_place(*place);
            }
            let is_gone = want.places.is_empty() && before > 0 && want.state == State::Queued;
            *queued -= usize::from(is_gone);
            !is_gone
        });
        self.transfers_changed();
    }

    /// What is in flight for this swarm and that nobody wants any more is given up at `at`, unless somebody does by then.
    pub(super) fn give_up_at(&mut self, topic: &Topic, at: Instant) {
        for (id, transfer) in self.transfers.iter_mut().filter(|(_, it)| it.place().topic() == topic) {
            if self.by_id.get(id).is_none_or(|want| want.places.is_empty()) {
                transfer.give_up_at(Some(at));
            }
        }
    }

    /// Gives up what is due for it: what peers were asked for, and the buffers.
    pub(super) fn give_up_due(&mut self, now: Instant) -> (Vec<Request>, Vec<Buffer>) {
        let (mut requests, mut due) = (Vec::new(), Vec::new());
        for (id, transfer) in &mut self.transfers {
            if self.by_id.get(id).is_some_and(|want| !want.places.is_empty()) {
                transfer.give_up_at(None);
            } else if transfer.given_up_at().is_some_and(|at| at <= now) {
                requests.extend(transfer.requests().cloned());
                due.push(*id);
            }
        }
        (requests, due.iter().filter_map(|id| self.give_up(id)).collect())
    }

    /// Asked whole of a v5 peer.
    pub(super) fn asked(&mut self, id: BlobName, place: &Place, conn: ConnId) {
        self.set(id, State::Asked(conn));
        self.queues.served(place.topic());
    }

    pub(super) fn writing(&mut self, id: BlobName) {
        self.set(id, State::Writing);
    }

    /// Asked in vain; whoever still wants it gets it from someone else.
    pub(super) fn requeue(&mut self, id: BlobName) {
        self.set(id, State::Queued);
    }

    fn set(&mut self, id: BlobName, state: State) {
        let Some(want) = self.by_id.get_mut(&id) else { return };
        let before = core::mem::replace(&mut want.state, state);
        self.queued -= usize::from(before == State::Queued);
        if state != State::Queued {
            for place in &want.places {
                self.queues.remove(want.order, place.topic());
            }
        } else if want.places.is_empty() {
            self.by_id.remove(&id);
            self.several.remove(&id);
        } else {
            self.epoch += 1;
            self.queued += 1;
            enqueue(&mut self.queues, want, id);
        }
    }

    /// It is stored: where it was wanted, and who is to be held against its bytes.
    pub(super) fn stored(&mut self, id: BlobName) -> (Vec<Place>, Vec<Suspect>) {
        self.set(id, State::Writing);
        self.several.remove(&id);
        self.by_id.remove(&id).map_or_else(Default::default, |want| (want.places, want.suspects))
    }

    /// Bytes of several peers made it wrong; it comes from one alone from here on.
    pub(super) fn suspect(&mut self, id: BlobName, suspects: Vec<Suspect>) {
        if let Some(want) = self.by_id.get_mut(&id) {
            want.suspects = suspects;
        }
    }

    /// Whether the v5 connection was asked for this blob.
    pub(super) fn is_asked(&self, id: &BlobName, conn: ConnId) -> bool {
        self.by_id.get(id).is_some_and(|want| want.state == State::Asked(conn))
    }

    // --- what to ask for ------------------------------------------------------------------------------------

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Blobs are missing, and nobody is asked for any.
    pub(super) fn is_starved(&self) -> bool {
        self.transfers.is_empty() && self.queued == self.by_id.len()
    }

    pub(super) fn is_queue_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// A queued blob.
    pub(super) fn example(&self) -> Option<BlobName> {
        self.queues.first()
    }

    /// The queued blobs of a swarm.
    pub(super) fn queued(&self, topic: &Topic) -> impl Iterator<Item = BlobName> {
        self.queues.of(topic).map(|(_, id, _)| *id)
    }

    /// The swarms of which blobs were queued since the last call.
    pub(super) fn take_gained(&mut self) -> BTreeSet<Topic> {
        self.queues.take_gained()
    }

    /// The queued blob of the least rank, of the first of these swarms in turn that has one with a rank; and those that were looked
    /// at in vain.
    pub(super) fn pick_of<R: Ord>(
        &self,
        topics: impl Iterator<Item = Topic>,
        mut rank: impl FnMut(u64, &BlobName, &Place) -> Option<R>,
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

    /// The queued blob of the least rank, of the swarm whose turn it is of all that have one with a rank.
    pub(super) fn pick<R: Ord>(
        &self,
        mut rank: impl FnMut(u64, &BlobName, &Place) -> Option<R>,
    ) -> Option<(BlobName, Place)> {
        self.queues.in_turn().find_map(|topic| self.best_of(topic, &mut rank))
    }

    fn best_of<R: Ord>(
        &self,
        topic: &Topic,
        rank: &mut impl FnMut(u64, &BlobName, &Place) -> Option<R>,
    ) -> Option<(BlobName, Place)> {
        let ranked = self.queues.of(topic).filter_map(|(order, id, place)| {
            let mut ranked = |place: &Place| rank(order, id, place).map(|rank| (rank, (*id, *place)));
            let others = self.places(id).iter().filter(|other| other.topic() == topic);
            ranked(place).or_else(|| others.clone().find_map(&mut ranked))
        });
        ranked.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, best)| best)
    }

    /// Where a blob stands that has more than one place.
    pub(super) fn places(&self, id: &BlobName) -> &[Place] {
        if self.several.is_empty() || !self.several.contains(id) {
            return &[];
        }
        self.by_id.get(id).map_or(&[], |want| &want.places)
    }

    // --- transfers ------------------------------------------------------------------------------------------

    pub(super) fn transfers(&self) -> &BTreeMap<BlobName, Transfer> {
        &self.transfers
    }

    /// A queued blob is to come in segments.
    pub(super) fn begin(&mut self, id: BlobName, place: Place, buffer: Buffer) {
        self.may_have_orphans = true;
        let want = self.by_id.get(&id);
        let is_alone = want.is_some_and(|want| !want.suspects.is_empty());
        let takeovers = want.map_or(0, |want| want.takeovers);
        self.set(id, State::InFlight);
        self.queues.served(place.topic());
        let earlier = self.transfers.insert(id, Transfer::new(place, buffer, is_alone, takeovers));
        debug_assert!(earlier.is_none(), "a queued blob is not in flight");
        self.transfers_changed();
    }

    fn transfers_changed(&mut self) {
        self.in_flight.clear();
        self.in_flight.extend(self.transfers.iter().map(|(id, transfer)| (transfer.place().position(), *id)));
    }

    /// The transfers of blobs at these positions of a swarm.
    pub(super) fn transfers_at(
        &self,
        topic: Topic,
        positions: &[u64],
    ) -> impl Iterator<Item = (BlobName, &Transfer)> {
        let in_flight = self.in_flight.iter().filter(|(position, _)| positions.contains(position));
        let transfers = in_flight.filter_map(|(_, id)| Some((*id, self.transfers.get(id)?)));
        transfers.filter(move |(_, transfer)| *transfer.place().topic() == topic)
    }

    /// Whether there is a segment that nobody is asked for.
    pub(super) fn has_orphans(&mut self) -> bool {
        let mut segments = self.transfers.values().flat_map(Transfer::segments);
        self.may_have_orphans = self.may_have_orphans && segments.any(Segment::is_orphan);
        self.may_have_orphans
    }

    /// A segment of which nobody is asked and that `may_bring` takes, by its blob and index.
    pub(super) fn orphan(&self, may_bring: impl Fn(&BlobName, &Place) -> bool) -> Option<(BlobName, usize)> {
        if !self.may_have_orphans {
            return None;
        }
        self.transfers.iter().find_map(|(id, transfer)| {
            let at = transfer.segments().iter().position(Segment::is_orphan)?;
            may_bring(id, transfer.place()).then_some((*id, at))
        })
    }

    /// Somebody is asked for a segment.
    pub(super) fn ask(&mut self, id: &BlobName, at: usize, request: Request) {
        if let Some(transfer) = self.transfers.get_mut(id) {
            transfer.ask(at, request);
        }
    }

    /// Bytes of a blob came over a connection.
    pub(super) fn feed(
        &mut self,
        id: &BlobName,
        conn: ConnId,
        offset: u32,
        bytes: &[u8],
        now: Instant,
    ) -> Fed {
        let transfer = self.transfers.get_mut(id);
        transfer.map_or(Fed::Unwanted, |transfer| transfer.feed(conn, offset, bytes, now))
    }

    /// A segment's rest goes to another peer: see [`Transfer::take_over`].
    pub(super) fn take_over(
        &mut self,
        id: &BlobName,
        at: usize,
        from: u32,
    ) -> Option<(Option<Request>, usize)> {
        self.may_have_orphans = true;
        self.transfers.get_mut(id).map(|transfer| transfer.take_over(at, from))
    }

    /// The whole blob has come and is being written.
    pub(super) fn take_whole(&mut self, id: &BlobName) -> Option<(Buffer, Vec<Contribution>)> {
        if !self.transfers.get(id)?.is_whole() {
            return None;
        }
        let transfer = self.transfers.remove(id)?;
        self.transfers_changed();
        self.writing(*id);
        Some(transfer.finish())
    }

    /// A connection brings nothing more of these blobs (`None`: of any). What nothing has come of, or must come from one
    /// peer alone, is queued again; its buffers.
    pub(super) fn release(&mut self, conn: ConnId, only: Option<&BlobName>) -> Vec<Buffer> {
        let mut affected: Vec<BlobName> = Vec::new();
        for (id, transfer) in &mut self.transfers {
            if only.is_none_or(|only| only == id) && transfer.release(conn) {
                affected.push(*id);
            }
        }
        if !affected.is_empty() {
            self.may_have_orphans = true;
            self.epoch += 1;
        }
        affected.into_iter().filter_map(|id| self.give_up_idle(&id)).collect()
    }

    fn give_up_idle(&mut self, id: &BlobName) -> Option<Buffer> {
        let transfer = self.transfers.get(id)?;
        let is_wanted = self.by_id.get(id).is_some_and(|want| !want.places.is_empty());
        let is_useless = transfer.is_worthless() || !is_wanted;
        (transfer.is_abandoned() && is_useless).then(|| self.give_up(id))?
    }

    /// What of a swarm was asked for last, and of what nothing has come if need be: the blob that is given up for another swarm.
    pub(super) fn youngest(&self, topic: &Topic, now: Instant, may_have_begun: bool) -> Option<BlobName> {
        let fits = |it: &Transfer| it.place().topic() == topic && (may_have_begun || !it.has_begun());
        let transfers = self.transfers.iter().filter(|(_, transfer)| fits(transfer));
        transfers.min_by_key(|(_, transfer)| transfer.loss(now)).map(|(id, _)| *id)
    }

    /// What peers are asked for of a blob.
    pub(super) fn requests(&self, id: &BlobName) -> Vec<Request> {
        self.transfers.get(id).into_iter().flat_map(Transfer::requests).cloned().collect()
    }

    /// Gives a transfer up; its buffer.
    pub(super) fn give_up(&mut self, id: &BlobName) -> Option<Buffer> {
        let transfer = self.transfers.remove(id)?;
        if let Some(want) = self.by_id.get_mut(id) {
            want.takeovers = transfer.takeovers();
        }
        let (buffer, _) = transfer.finish();
        self.transfers_changed();
        self.requeue(*id);
        Some(buffer)
    }

    /// Gives up a transfer of which nobody is asked any more, for the sake of others.
    pub(super) fn give_up_abandoned(&mut self) -> Option<Buffer> {
        let id = self.transfers.iter().find(|(_, transfer)| transfer.is_abandoned()).map(|(id, _)| *id)?;
        self.give_up(&id)
    }
}

/// Puts a wanted blob into the queue of each swarm that wants it.
fn enqueue(queues: &mut Queues, want: &Want, id: BlobName) {
    // Of several places in one swarm the first, as the most urgent, is that of the queue.
    for place in want.places.iter().rev() {
        queues.insert(want.order, id, *place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { slot: 0, generation: 0 };

    fn place(n: u8) -> Place {
        at(n, 0)
    }

    fn at(n: u8, position: u64) -> Place {
        Place::new(Topic([n; 32]), position, false)
    }

    fn id(n: u8) -> BlobName {
        BlobName([n; 32])
    }

    fn first(wants: &Wants, missing: &[u8]) -> Option<BlobName> {
        wants.pick(|order, id, _| (!missing.contains(&id.0[0])).then_some(order)).map(|(id, _)| id)
    }

    #[test]
    fn what_is_in_flight_has_its_place_in_the_newest_version() {
        let mut wants = Wants::default();
        let (old, new) = (at(1, 7), at(1, 3));
        wants.want(id(1), old);
        wants.begin(id(1), old, Buffer::new());
        wants.drop_wants(old.topic());
        wants.want(id(1), new);
        let at = |position: u64| wants.transfers_at(*new.topic(), &[position]).count();
        assert_eq!((at(7), at(3)), (0, 1));
    }

    #[test]
    fn a_blob_asked_in_vain_goes_back_to_its_place() {
        let mut wants = Wants::default();
        (3..6).for_each(|n| wants.want(id(n), place(1)));
        wants.asked(id(3), &place(1), CONN);
        assert_eq!(first(&wants, &[]), Some(id(4)));
        assert!(wants.is_asked(&id(3), CONN));
        let epoch = wants.epoch();
        wants.requeue(id(3));
        assert!(wants.epoch() > epoch, "a peer that had nothing to bring may have this");
        assert_eq!(first(&wants, &[]), Some(id(3)));
        assert_eq!(first(&wants, &[3, 4]), Some(id(5)));
    }

    #[test]
    fn a_blob_in_several_places_is_asked_of_a_peer_that_has_any_of_them() {
        let mut wants = Wants::default();
        let later = at(1, 7);
        wants.want(id(1), place(1));
        let epoch = wants.epoch();
        wants.want(id(1), later);
        wants.want(id(1), later);
        assert!(wants.epoch() > epoch, "a peer that had nothing to bring may have this");
        assert_eq!(wants.pick(|_, _, at| (*at == later).then_some(0)), Some((id(1), later)));
        wants.begin(id(1), later, Buffer::new());
        assert_eq!(wants.orphan(|id, _| wants.places(id) == [place(1), later]), Some((id(1), 0)));
        assert_eq!(wants.stored(id(1)).0, [place(1), later]);
        assert!(wants.places(&id(1)).is_empty());
    }

    #[test]
    fn a_dropped_swarm_takes_only_its_own_queue_along() {
        let mut wants = Wants::default();
        wants.want(id(1), place(1));
        wants.want(id(1), place(2));
        wants.want(id(2), place(1));
        wants.want(id(3), place(1));
        wants.asked(id(3), &place(1), CONN);
        wants.drop_wants(place(1).topic());
        assert_eq!((wants.queued(place(1).topic()).count(), wants.example()), (0, Some(id(1))));
        assert!(wants.pick(|_, _, p| p.is_same(&place(2)).then_some(0)).is_some());
        assert!(wants.is_asked(&id(3), CONN), "it is in flight");
        wants.requeue(id(3));
        assert!(first(&wants, &[1]).is_none(), "nobody wants it any more");
        assert_eq!(wants.stored(id(1)).0, [place(2)]);
        assert!(wants.is_empty() && wants.is_queue_empty());
    }

    #[test]
    fn swarms_are_picked_from_in_turn_and_one_of_no_use_costs_the_others_nothing() {
        let mut wants = Wants::default();
        (0..100).for_each(|n| wants.want(id(n), place(1)));
        wants.want(id(200), place(2));
        let both = || [place(1), place(2)].into_iter().map(|place| *place.topic());
        let any = |order: u64, _: &BlobName, _: &Place| Some(order);
        let (blob, first) = wants.pick_of(both(), any).0.expect("one of the first swarm");
        assert_eq!((blob, *first.topic()), (id(0), *place(1).topic()));
        wants.begin(blob, first, Buffer::new());
        assert_eq!(wants.pick_of(both(), any).0.map(|(id, _)| id), Some(id(200)), "the other's turn");
        let only_second = |order, _: &BlobName, at: &Place| at.is_same(&place(2)).then_some(order);
        assert_eq!(wants.pick(only_second).map(|(id, _)| id), Some(id(200)));
        wants.requeue(blob);
        wants.asked(id(200), &place(2), CONN);
        let none = |_, _: &BlobName, _: &Place| None::<u64>;
        let in_vain = Vec::from([*place(2).topic(), *place(1).topic()]);
        assert_eq!(
            wants.pick_of(both(), none),
            (None, in_vain),
            "one has none queued, the other none with a rank"
        );
    }

    #[test]
    fn what_a_lost_connection_brought_is_kept_unless_it_is_nothing() {
        let mut wants = Wants::default();
        for n in 1..=2 {
            wants.want(id(n), place(1));
            wants.begin(id(n), place(1), Buffer::new());
            let peer = "127.0.0.1:1".parse().expect("an address");
            wants.ask(&id(n), 0, Request::new(CONN, peer, 0, Instant(0)));
        }
        wants.feed(&id(1), CONN, 0, b"bytes", Instant(0));
        assert_eq!(wants.release(CONN, None).len(), 1, "the other's buffer is free");
        assert_eq!(first(&wants, &[]), Some(id(2)));
        assert_eq!(wants.orphan(|_, _| true), Some((id(1), 1)));
        wants.take_over(&id(1), 1, 5);
        assert!(wants.give_up_abandoned().is_some() && wants.give_up_abandoned().is_none());
        assert_eq!(first(&wants, &[]), Some(id(1)));
        wants.begin(id(1), place(1), Buffer::new());
        assert_eq!(wants.transfers()[&id(1)].takeovers(), 1, "the patience that was gained is not lost");
    }
}
