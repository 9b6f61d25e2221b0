//! A part's own table of what it knows of each connection.

use alloc::vec::Vec;

use crate::ids::ConnId;

/// One value for each open connection, by slot. A lookup with the id of an earlier connection in the slot finds nothing.
pub(super) struct ConnTable<T> {
    slots: Vec<Option<(u32, T)>>,
}

impl<T> Default for ConnTable<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

impl<T> ConnTable<T> {
    pub(super) fn insert(&mut self, conn: ConnId, value: T) {
        let slot = conn.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some((conn.generation, value));
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        let (_, value) = slot.take_if(|(generation, _)| *generation == conn.generation)?;
        Some(value)
    }

    pub(super) fn get(&self, conn: ConnId) -> Option<&T> {
        let (generation, value) = self.slots.get(conn.slot as usize)?.as_ref()?;
        (*generation == conn.generation).then_some(value)
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(conn.slot as usize)?.as_mut()?;
        (*generation == conn.generation).then_some(value)
    }

    /// In the order of the slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        (0..).zip(&self.slots).filter_map(|(slot, value)| {
            let (generation, value) = value.as_ref()?;
            Some((ConnId { slot, generation: *generation }, value))
        })
    }

    /// In the order of the slots.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut T)> {
        (0..).zip(&mut self.slots).filter_map(|(slot, value)| {
            let (generation, value) = value.as_mut()?;
            Some((ConnId { slot, generation: *generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_used_again_is_another_connection() {
        let mut table = ConnTable::default();
        let [first, second] = [0, 1].map(|generation| ConnId { slot: 3, generation });
        table.insert(first, 'a');
        assert_eq!((table.get(first), table.get(second)), (Some(&'a'), None));
        assert_eq!((table.remove(second), table.remove(first), table.remove(first)), (None, Some('a'), None));
        table.insert(second, 'b');
        assert!(table.get_mut(first).is_none() && table.get_mut(second).is_some());
        assert_eq!(table.iter().collect::<Vec<_>>(), [(second, &'b')]);
    }
}
