//! Whether each connection is to be asked for blobs, at hand for all of them at once.
//!
//! Each time that there is room for one blob more, every connection is looked at. What is looked at lies here side by
//! side, since what a connection is made of lies far apart. It follows from the connection: whoever changes that calls
//! [`Node::note`].

use super::Node;
use super::conns::Entry;
use crate::ids::ConnId;
use crate::suite::Suite;
use crate::time::Instant;

/// Of so many choices one pays no heed to how fast peers were.
const EXPLORED_ONE_IN: u64 = 8;

/// What is to be known of a connection that may be asked for blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    /// One blob more may be asked for.
    pub(super) has_room: bool,
    pub(super) is_v5: bool,
    /// The peer has everything of some channel.
    pub(super) is_seed: bool,
    /// Blobs asked for.
    pub(super) outstanding: usize,
    /// It brought nothing for long, and is left alone until then.
    pub(super) rests_until: Instant,
    /// The scheduler's epoch in which the peer had nothing that lacks.
    pub(super) dry: u64,
    bytes_per_sec: u64,
    was_in_vain: bool,
}

impl Readiness {
    /// How good it is to ask, beside others that are asked for as much: roughly how fast it is, as its line and those whom
    /// it serves allow. One that was not tried, and now and then any, counts as the best; one that was tried and has
    /// never brought anything, as the worst.
    pub(super) fn speed(&self, lot: u64) -> u32 {
        match self.bytes_per_sec {
            0 if self.was_in_vain => 0,
            0 => u32::MAX,
            _ if lot.is_multiple_of(EXPLORED_ONE_IN) => u32::MAX,
            rate => rate.ilog2(),
        }
    }
}

impl<S: Suite> Node<S> {
    /// A connection has changed.
    pub(super) fn note(&mut self, id: ConnId) {
        let readiness = self.conns.get(id).and_then(|entry| self.readiness(entry));
        self.conns.set_readiness(id, readiness);
    }

    /// Every connection may have changed.
    pub(super) fn note_all(&mut self) {
        for id in self.conns.ids() {
            self.note(id);
        }
    }

    fn readiness(&self, entry: &Entry<S>) -> Option<Readiness> {
        entry.is_askable().then(|| Readiness {
            has_room: entry.has_room(),
            is_v5: !entry.gossip.is_on(),
            is_seed: self.is_seed(entry),
            outstanding: entry.outstanding(),
            rests_until: entry.rests_until,
            dry: entry.dry,
            bytes_per_sec: entry.rate.bytes_per_sec(),
            was_in_vain: entry.was_in_vain,
        })
    }

    /// The connections that may be asked for blobs.
    pub(super) fn ready(&self) -> impl Iterator<Item = (ConnId, &Readiness)> {
        debug_assert!(
            self.conns
                .entries()
                .all(|(id, entry)| self.readiness(entry).as_ref() == self.conns.readiness(id)),
            "who changes a connection notes it"
        );
        self.conns.ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_asked_in_vain_comes_last_and_who_was_not_asked_yet_first() {
        let fresh = Readiness {
            has_room: true,
            is_v5: false,
            is_seed: false,
            outstanding: 0,
            rests_until: Instant(0),
            dry: 0,
            bytes_per_sec: 0,
            was_in_vain: false,
        };
        let mute = Readiness { was_in_vain: true, ..fresh };
        let [slow, quick] = [20_000, 2_000_000].map(|bytes_per_sec| Readiness { bytes_per_sec, ..mute });
        let explored = EXPLORED_ONE_IN;
        let usual = explored + 1;
        let order = [mute, slow, quick, fresh].map(|ready| ready.speed(usual));
        assert!(order.is_sorted() && order[1] > order[0] && order[2] > order[1], "{order:?}");
        assert_eq!(slow.speed(explored), fresh.speed(usual), "now and then");
        assert_eq!(mute.speed(explored), 0, "never");
    }
}
