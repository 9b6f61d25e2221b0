//! A version's blobs in a few cells, for a user's eyes.

use alloc::vec;
use alloc::vec::Vec;

use super::{State, Swarm, Swarms};
use crate::ids::Topic;
use crate::limits::HAVE_BLOBS_MAX;
use crate::node::api::BlobCell;
use crate::parts::PARTS;

impl Swarms {
    /// The blobs of a swarm's newest version, as far as they are known, in at most `cells_max` cells of one size but for the last.
    pub(crate) fn cells(&self, topic: &Topic, cells_max: usize) -> Vec<BlobCell> {
        let Some(swarm) = self.by_topic.get(topic) else { return Vec::new() };
        let version = swarm.availability.version();
        let mut theirs = self.members.iter().filter_map(|(_, member)| member.shares.get(topic)?.theirs());
        let is_somewhere = theirs.any(|theirs| theirs.is_all() && theirs.version() == version);
        cells(swarm, is_somewhere, cells_max)
    }

    /// Parts that are here of blobs of the newest version that are not whole.
    pub(crate) fn parts_stored(&self, topic: &Topic) -> u64 {
        let masks = self.by_topic.get(topic).into_iter().flat_map(|swarm| swarm.stored.under_way());
        masks.map(|(_, mask)| mask.len() as u64).sum()
    }
}

/// `is_somewhere`: one peer has every blob.
fn cells(swarm: &Swarm, is_somewhere: bool, cells_max: usize) -> Vec<BlobCell> {
    let total = usize::try_from(swarm.availability.total()).unwrap_or(HAVE_BLOBS_MAX).min(HAVE_BLOBS_MAX);
    let size = total.div_ceil(cells_max.max(1)).max(1);
    let mut cells = vec![BlobCell::default(); total.div_ceil(size)];
    let is_all = swarm.state == State::All;
    for position in 0..total {
        let cell = &mut cells[position / size];
        cell.blobs += 1;
        if is_all || swarm.stored.has(position) {
            cell.stored += 1;
            continue;
        }
        if u32::try_from(position).is_ok_and(|position| swarm.stored.is_under_way(position)) {
            cell.under_way += 1;
        }
        let is_seen =
            is_somewhere || (0..PARTS).all(|part| swarm.availability.count(position as u64, part) > 0);
        cell.unseen += u32::from(!is_seen);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::channels::swarms::availability::Availability;
    use crate::node::channels::swarms::share::Theirs;
    use crate::parts::Mask;
    use crate::time::Instant;

    #[test]
    fn each_cell_has_as_many_blobs_and_says_what_is_here() {
        let mut swarm = Swarm::new(None, Instant(0));
        let mut theirs = Theirs::new(5);
        theirs.add(3);
        swarm.availability = Availability::new(5, 5, [theirs].iter());
        swarm.state = State::Partial { is_missing: true };
        swarm.stored.add(0);
        swarm.stored.add_parts(2, Mask(1));
        let cell = |blobs, stored, under_way, unseen| BlobCell { blobs, stored, under_way, unseen };
        let found = [cell(2, 1, 0, 1), cell(2, 0, 1, 1), cell(1, 0, 0, 1)];
        assert_eq!(cells(&swarm, false, 3), found);
        assert_eq!(cells(&swarm, true, 1), [cell(5, 1, 1, 0)]);
        assert_eq!(cells(&swarm, true, 0).len(), 1);
        swarm.state = State::All;
        assert_eq!(cells(&swarm, false, 9), [cell(1, 1, 0, 0); 5]);
        swarm.availability = Availability::default();
        assert!(cells(&swarm, false, 9).is_empty());
    }
}
