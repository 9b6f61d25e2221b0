//! Which blobs are wanted, and of whom. A wanted blob is in exactly one state: queued, asked of one connection, or
//! being written.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::identity::PublicKey;
use crate::ids::{BlobId, ConnId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Asked(ConnId),
    Writing,
}

struct Want {
    /// Place in the queue, kept when the blob is queued again.
    order: u64,
    state: State,
    /// The channels that want it.
    owners: Vec<PublicKey>,
}

/// The wanted blobs. Bounded by what the fetches have in hand ([`crate::limits::WANTED_PER_FETCH_MAX`] each).
#[derive(Default)]
pub(super) struct Scheduler {
    wants: BTreeMap<BlobId, Want>,
    queue: BTreeMap<u64, BlobId>,
    next_order: u64,
}

impl Scheduler {
    pub(super) fn want(&mut self, id: BlobId, owner: PublicKey) {
        if let Some(want) = self.wants.get_mut(&id) {
            if !want.owners.contains(&owner) {
                want.owners.push(owner);
            }
            return;
        }
        let order = self.next_order;
        self.next_order += 1;
        self.queue.insert(order, id);
        self.wants.insert(id, Want { order, state: State::Queued, owners: [owner].into() });
    }

    /// The channel's fetch is over: what only it wanted and nobody was asked for is dropped. What is on its way
    /// arrives and is stored.
    pub(super) fn drop_owner(&mut self, owner: &PublicKey) {
        let queue = &mut self.queue;
        self.wants.retain(|_, want| {
            want.owners.retain(|o| o != owner);
            let keep = !want.owners.is_empty() || want.state != State::Queued;
            if !keep {
                queue.remove(&want.order);
            }
            keep
        });
    }

    /// The first queued blob that is not among `lacks`.
    pub(super) fn pick(&self, lacks: &BTreeSet<BlobId>) -> Option<BlobId> {
        self.queue.values().find(|id| !lacks.contains(*id)).copied()
    }

    /// The first queued blobs.
    pub(super) fn queued(&self) -> impl Iterator<Item = BlobId> {
        self.queue.values().copied()
    }

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
        } else if want.owners.is_empty() {
            self.wants.remove(&id);
        } else {
            self.queue.insert(want.order, id);
        }
    }

    /// It is stored: who wanted it.
    pub(super) fn stored(&mut self, id: BlobId) -> Vec<PublicKey> {
        let Some(want) = self.wants.remove(&id) else { return Vec::new() };
        self.queue.remove(&want.order);
        want.owners
    }

    /// Whether the connection was asked for this blob.
    pub(super) fn is_asked(&self, id: &BlobId, conn: ConnId) -> bool {
        self.wants.get(id).is_some_and(|w| w.state == State::Asked(conn))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    pub(super) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::ids::Secret;

    const CONN: ConnId = ConnId { slot: 0, generation: 0 };

    fn channel(n: u8) -> PublicKey {
        Identity::new(&Secret::new([n; 32]), None).public_key()
    }

    fn id(n: u8) -> BlobId {
        BlobId([n; 32])
    }

    #[test]
    fn a_blob_asked_in_vain_goes_back_to_its_place() {
        let mut s = Scheduler::default();
        (3..6).for_each(|n| s.want(id(n), channel(1)));
        s.asked(id(3), CONN);
        assert_eq!(s.pick(&BTreeSet::new()), Some(id(4)));
        assert!(s.is_asked(&id(3), CONN));
        s.requeue(id(3));
        assert_eq!(s.pick(&BTreeSet::new()), Some(id(3)));
        assert_eq!(s.pick(&BTreeSet::from([id(3), id(4)])), Some(id(5)));
    }

    #[test]
    fn a_dropped_owner_takes_only_its_own_queue_along() {
        let mut s = Scheduler::default();
        s.want(id(1), channel(1));
        s.want(id(1), channel(2));
        s.want(id(2), channel(1));
        s.want(id(3), channel(1));
        s.asked(id(3), CONN);
        s.drop_owner(&channel(1));
        assert_eq!(s.queued().collect::<Vec<_>>(), [id(1)]);
        assert!(s.is_asked(&id(3), CONN), "it is on its way");
        s.requeue(id(3));
        assert!(s.pick(&BTreeSet::from([id(1)])).is_none(), "nobody wants it any more");
        assert_eq!(s.stored(id(1)), [channel(2)]);
        assert!(s.is_empty() && s.is_queue_empty());
    }
}
