//! Which blobs are wanted, and of whom. A wanted blob is in exactly one state: queued, asked whole of one v5 peer, on
//! its way in ranges, or being written.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::transfer::{Contribution, Run, Source, Transfer};
use crate::buffer::Buffer;
use crate::identity::PublicKey;
use crate::ids::{BlobId, ConnId};

/// Queued blobs that are looked at for one request, from the first on.
const PICK_SCAN_MAX: usize = 4096;

/// Where a blob stands in a channel's newest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) channel: PublicKey,
    /// Its place in the order of `docs/protocol.md` §12.
    pub(super) position: u64,
    /// Others are only known once it is there: an index blob, or one of the body.
    pub(super) is_index: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Asked(ConnId),
    /// There is a [`Transfer`] for it.
    Moving,
    Writing,
}

/// What somebody contributed to a blob that did not match, to be held against the right one.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) part: Contribution,
    /// SHA-256 of the part.
    pub(super) digest: [u8; 32],
}

struct Want {
    /// Place in the queue, kept when the blob is queued again.
    order: u64,
    state: State,
    /// Where it stands: in several channels, or in one more than once.
    places: Vec<Place>,
    /// Whose bytes made it wrong, unless they are cleared.
    suspects: Vec<Suspect>,
    /// [`Transfer::takeovers`] of the transfers that were given up: patience that was gained is kept, whoever refuses
    /// the blob in between.
    takeovers: u32,
}

/// The wanted blobs. Bounded by what the fetches have in hand ([`crate::limits::WANTED_PER_FETCH_MAX`] each) and, for
/// transfers, by the receive buffers.
pub(super) struct Scheduler {
    wants: BTreeMap<BlobId, Want>,
    /// Those that stand in more than one place.
    several: BTreeSet<BlobId>,
    queue: BTreeMap<u64, (BlobId, Place)>,
    transfers: BTreeMap<BlobId, Transfer>,
    /// Their positions, which are asked for more often than they change.
    moving: Vec<(u64, BlobId)>,
    /// There may be a run that nobody is asked for.
    may_have_orphans: bool,
    next_order: u64,
    /// Grows whenever there is something to ask for that there was not: a connection that was of no use may be now.
    pub(super) epoch: u64,
}

impl Default for Scheduler {
    fn default() -> Self {
        let (wants, queue, transfers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let several = BTreeSet::new();
        let (moving, may_have_orphans) = (Vec::new(), false);
        Self { wants, several, queue, transfers, moving, may_have_orphans, next_order: 0, epoch: 1 }
    }
}

impl Scheduler {
    pub(super) fn want(&mut self, id: BlobId, place: Place) {
        if let Some(want) = self.wants.get_mut(&id) {
            if !want.places.contains(&place) {
                want.places.push(place);
                self.several.insert(id);
                self.epoch += 1;
            }
            return;
        }
        let order = self.next_order;
        self.next_order += 1;
        self.epoch += 1;
        self.queue.insert(order, (id, place));
        let (state, places) = (State::Queued, [place].into());
        self.wants.insert(id, Want { order, state, places, suspects: Vec::new(), takeovers: 0 });
    }

    /// The channel's fetch is over: what only it wanted and nobody was asked for is dropped. What is on its way
    /// arrives and is stored.
    pub(super) fn drop_owner(&mut self, owner: &PublicKey) {
        let Self { wants, several, queue, transfers, .. } = self;
        wants.retain(|id, want| {
            want.places.retain(|place| place.channel != *owner);
            if want.places.len() <= 1 {
                several.remove(id);
            }
            if let (Some(place), Some(transfer)) = (want.places.first(), transfers.get_mut(id)) {
                transfer.place = *place;
            }
            let is_queued = want.state == State::Queued;
            match want.places.first() {
                Some(place) if is_queued => drop(queue.insert(want.order, (*id, *place))),
                None if is_queued => drop(queue.remove(&want.order)),
                _ => {}
            }
            !want.places.is_empty() || !is_queued
        });
        self.transfers_changed();
    }

    /// The queued blob of the least rank; `rank` gets each one's place in the queue.
    pub(super) fn pick<R: Ord>(
        &self,
        mut rank: impl FnMut(u64, &BlobId, &Place) -> Option<R>,
    ) -> Option<(BlobId, Place)> {
        let queued = self.queue.iter().take(PICK_SCAN_MAX);
        let ranked = queued.filter_map(|(order, (id, place))| {
            let mut ranked = |place| rank(*order, id, place).map(|rank| (rank, (*id, *place)));
            ranked(place).or_else(|| self.places(id).iter().find_map(ranked))
        });
        ranked.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, best)| best)
    }

    /// Where a blob stands that has more than one place.
    pub(super) fn places(&self, id: &BlobId) -> &[Place] {
        if self.several.is_empty() || !self.several.contains(id) {
            return &[];
        }
        self.wants.get(id).map_or(&[], |want| &want.places)
    }

    /// The first queued blobs.
    pub(super) fn queued(&self) -> impl Iterator<Item = BlobId> {
        self.queue.values().map(|(id, _)| *id)
    }

    /// Asked whole of a v5 peer.
    pub(super) fn asked(&mut self, id: BlobId, conn: ConnId) {
        self.set(id, State::Asked(conn));
    }

    pub(super) fn writing(&mut self, id: BlobId) {
        self.set(id, State::Writing);
    }

    /// Asked in vain; whoever still wants it gets it from someone else.
    pub(super) fn requeue(&mut self, id: BlobId) {
        self.set(id, State::Queued);
    }

    fn set(&mut self, id: BlobId, state: State) {
        let Some(want) = self.wants.get_mut(&id) else { return };
        want.state = state;
        if state != State::Queued {
            self.queue.remove(&want.order);
        } else if let Some(place) = want.places.first() {
            self.epoch += 1;
            self.queue.insert(want.order, (id, *place));
        } else {
            self.wants.remove(&id);
            self.several.remove(&id);
        }
    }

    /// It is stored: who wanted it, and who is to be held against its bytes.
    pub(super) fn stored(&mut self, id: BlobId) -> (Vec<Place>, Vec<Suspect>) {
        let Some(want) = self.wants.remove(&id) else { return (Vec::new(), Vec::new()) };
        self.queue.remove(&want.order);
        self.several.remove(&id);
        (want.places, want.suspects)
    }

    /// Bytes of several peers made it wrong; it comes from one alone from here on.
    pub(super) fn suspect(&mut self, id: BlobId, suspects: Vec<Suspect>) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.suspects = suspects;
        }
    }

    /// Whether the v5 connection was asked for this blob.
    pub(super) fn is_asked(&self, id: &BlobId, conn: ConnId) -> bool {
        self.wants.get(id).is_some_and(|w| w.state == State::Asked(conn))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Blobs lack, and nobody is asked for any.
    pub(super) fn is_starved(&self) -> bool {
        self.transfers.is_empty() && self.queue.len() == self.wants.len()
    }

    pub(super) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    // --- transfers ----------------------------------------------------------------------------------------------

    pub(super) fn transfers(&self) -> &BTreeMap<BlobId, Transfer> {
        &self.transfers
    }

    pub(super) fn transfer_mut(&mut self, id: &BlobId) -> Option<&mut Transfer> {
        self.transfers.get_mut(id)
    }

    /// A queued blob is to come in ranges.
    pub(super) fn begin(&mut self, id: BlobId, place: Place, buffer: Buffer) {
        self.may_have_orphans = true;
        let want = self.wants.get(&id);
        let is_alone = want.is_some_and(|want| !want.suspects.is_empty());
        let takeovers = want.map_or(0, |want| want.takeovers);
        self.set(id, State::Moving);
        let mut transfer = Transfer::new(place, buffer, is_alone);
        transfer.takeovers = takeovers;
        let earlier = self.transfers.insert(id, transfer);
        debug_assert!(earlier.is_none(), "a queued blob is not on its way");
        self.transfers_changed();
    }

    fn transfers_changed(&mut self) {
        self.moving.clear();
        self.moving.extend(self.transfers.iter().map(|(id, transfer)| (transfer.place.position, *id)));
    }

    /// The transfers of blobs at these positions of a channel.
    pub(super) fn transfers_at(
        &self,
        channel: PublicKey,
        positions: &[u64],
    ) -> impl Iterator<Item = (BlobId, &Transfer)> {
        let moving = self.moving.iter().filter(|(position, _)| positions.contains(position));
        let transfers = moving.filter_map(|(_, id)| Some((*id, self.transfers.get(id)?)));
        transfers.filter(move |(_, transfer)| transfer.place.channel == channel)
    }

    /// Whether there is a run that nobody is asked for.
    pub(super) fn has_orphans(&mut self) -> bool {
        let mut runs = self.transfers.values().flat_map(|transfer| &transfer.runs);
        self.may_have_orphans = self.may_have_orphans && runs.any(Run::is_orphan);
        self.may_have_orphans
    }

    /// A run of which nobody is asked and that `may_bring` takes, by its blob and index.
    pub(super) fn orphan(
        &self,
        mut may_bring: impl FnMut(&BlobId, &Place) -> bool,
    ) -> Option<(BlobId, usize)> {
        if !self.may_have_orphans {
            return None;
        }
        self.transfers.iter().find_map(|(id, transfer)| {
            let at = transfer.runs.iter().position(Run::is_orphan)?;
            may_bring(id, &transfer.place).then_some((*id, at))
        })
    }

    /// Somebody is asked for a run.
    pub(super) fn adopt(&mut self, id: &BlobId, at: usize, source: Source) {
        if let Some(run) = self.transfers.get_mut(id).and_then(|transfer| transfer.runs.get_mut(at)) {
            run.source = Some(source);
        }
    }

    /// The whole blob has come and is being written.
    pub(super) fn take_whole(&mut self, id: &BlobId) -> Option<(Buffer, Vec<Contribution>)> {
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
    pub(super) fn release(&mut self, conn: ConnId, only: Option<&BlobId>) -> Vec<Buffer> {
        let affected: Vec<BlobId> = self
            .transfers
            .iter_mut()
            .filter(|(id, transfer)| {
                only.is_none_or(|only| only == *id) && transfer.runs.iter().any(|run| run.is_of(conn))
            })
            .map(|(id, transfer)| {
                transfer.orphan_all_of(conn);
                *id
            })
            .collect();
        if !affected.is_empty() {
            self.may_have_orphans = true;
            self.epoch += 1;
        }
        affected.into_iter().filter_map(|id| self.give_up_idle(&id)).collect()
    }

    fn give_up_idle(&mut self, id: &BlobId) -> Option<Buffer> {
        let transfer = self.transfers.get(id)?;
        let is_wanted = self.wants.get(id).is_some_and(|want| !want.places.is_empty());
        let is_useless = transfer.is_empty() || transfer.is_alone || !is_wanted;
        (transfer.is_abandoned() && is_useless).then(|| self.give_up(id))?
    }

    fn give_up(&mut self, id: &BlobId) -> Option<Buffer> {
        let transfer = self.transfers.remove(id)?;
        if let Some(want) = self.wants.get_mut(id) {
            want.takeovers = transfer.takeovers;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::ids::Secret;
    use crate::time::Instant;

    const CONN: ConnId = ConnId { slot: 0, generation: 0 };

    fn place(n: u8) -> Place {
        let channel = Identity::new(&Secret::new([n; 32]), None).public_key();
        Place { channel, position: 0, is_index: false }
    }

    fn id(n: u8) -> BlobId {
        BlobId([n; 32])
    }

    fn first(s: &Scheduler, lacks: &[u8]) -> Option<BlobId> {
        s.pick(|order, id, _| (!lacks.contains(&id.0[0])).then_some(order)).map(|(id, _)| id)
    }

    #[test]
    fn a_blob_asked_in_vain_goes_back_to_its_place() {
        let mut s = Scheduler::default();
        (3..6).for_each(|n| s.want(id(n), place(1)));
        s.asked(id(3), CONN);
        assert_eq!(first(&s, &[]), Some(id(4)));
        assert!(s.is_asked(&id(3), CONN));
        let epoch = s.epoch;
        s.requeue(id(3));
        assert!(s.epoch > epoch, "whoever had nothing to bring may have this");
        assert_eq!(first(&s, &[]), Some(id(3)));
        assert_eq!(first(&s, &[3, 4]), Some(id(5)));
    }

    #[test]
    fn a_blob_in_several_places_is_asked_of_whoever_has_any_of_them() {
        let mut s = Scheduler::default();
        let later = Place { position: 7, ..place(1) };
        s.want(id(1), place(1));
        let epoch = s.epoch;
        s.want(id(1), later);
        s.want(id(1), later);
        assert!(s.epoch > epoch, "whoever had nothing to bring may have this");
        assert_eq!(s.pick(|_, _, at| (*at == later).then_some(0)), Some((id(1), later)));
        s.begin(id(1), later, Buffer::new());
        assert_eq!(s.orphan(|id, _| s.places(id) == [place(1), later]), Some((id(1), 0)));
        assert_eq!(s.stored(id(1)).0, [place(1), later]);
        assert!(s.places(&id(1)).is_empty());
    }

    #[test]
    fn a_dropped_owner_takes_only_its_own_queue_along() {
        let mut s = Scheduler::default();
        s.want(id(1), place(1));
        s.want(id(1), place(2));
        s.want(id(2), place(1));
        s.want(id(3), place(1));
        s.asked(id(3), CONN);
        s.drop_owner(&place(1).channel);
        assert_eq!(s.queued().collect::<Vec<_>>(), [id(1)]);
        assert!(s.pick(|_, _, p| (p.channel == place(2).channel).then_some(0)).is_some());
        assert!(s.is_asked(&id(3), CONN), "it is on its way");
        s.requeue(id(3));
        assert!(first(&s, &[1]).is_none(), "nobody wants it any more");
        assert_eq!(s.stored(id(1)).0, [place(2)]);
        assert!(s.is_empty() && s.is_queue_empty());
    }

    #[test]
    fn what_a_lost_connection_brought_is_kept_unless_it_is_nothing() {
        let mut s = Scheduler::default();
        let source = |conn| Source {
            conn,
            peer: "127.0.0.1:1".parse().expect("an address"),
            range: 0,
            asked: Instant(0),
            moved: Instant(0),
        };
        for n in 1..=2 {
            s.want(id(n), place(1));
            s.begin(id(n), place(1), Buffer::new());
            s.adopt(&id(n), 0, source(CONN));
        }
        s.transfer_mut(&id(1)).expect("begun").feed(CONN, 0, b"bytes", Instant(0));
        assert_eq!(s.release(CONN, None).len(), 1, "the other's buffer is free");
        assert_eq!(first(&s, &[]), Some(id(2)));
        assert_eq!(s.orphan(|_, _| true), Some((id(1), 1)));
        s.transfer_mut(&id(1)).expect("begun").takeovers = 3;
        assert!(s.give_up_abandoned().is_some() && s.give_up_abandoned().is_none());
        assert_eq!(first(&s, &[]), Some(id(1)));
        s.begin(id(1), place(1), Buffer::new());
        assert_eq!(s.transfers()[&id(1)].takeovers, 3, "the patience that was gained is not lost");
    }
}
