//! The table of links, made for several look-ups at each event.

use std::collections::VecDeque;

use crate::link::{Link, LinkId};

/// Links by id. Ids ascend, so a link's place follows from its id; the oldest places are dropped once their links are
/// gone.
#[derive(Default)]
pub(crate) struct Links {
    /// The id of the first place.
    first: u64,
    places: VecDeque<Option<Box<Link>>>,
}

impl Links {
    /// Adds a link under the next id.
    pub(crate) fn add(&mut self, link: Link) -> LinkId {
        self.places.push_back(Some(Box::new(link)));
        LinkId(self.first + self.places.len() as u64 - 1)
    }

    pub(crate) fn get(&self, id: LinkId) -> Option<&Link> {
        self.places.get(self.place(id)?)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        let place = self.place(id)?;
        self.places.get_mut(place)?.as_deref_mut()
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Box<Link>> {
        let place = self.place(id)?;
        let removed = self.places.get_mut(place)?.take();
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        removed
    }

    /// The links in the order in which they were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        (self.first..).map(LinkId).zip(&self.places).filter_map(|(id, link)| Some((id, link.as_deref()?)))
    }

    /// The links in the order in which they were made, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.places.iter_mut().filter_map(|link| link.as_deref_mut())
    }

    fn place(&self, id: LinkId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::End;
    use std::time::Duration;

    #[test]
    fn a_link_is_found_until_it_is_removed_and_ids_are_not_used_twice() {
        let mut links = Links::default();
        let add = |links: &mut Links| links.add(Link::new(End::Closed, Duration::ZERO));
        let (first, second, third) = (add(&mut links), add(&mut links), add(&mut links));
        links.remove(second);
        assert!(links.get(first).is_some() && links.get(second).is_none() && links.get_mut(third).is_some());
        links.remove(first);
        assert!(links.get(first).is_none() && links.get(third).is_some());
        links.remove(third);
        let fourth = add(&mut links);
        assert!(fourth > third && links.get(third).is_none());
        assert_eq!(links.iter().map(|(id, _)| id).collect::<Vec<_>>(), [fourth]);
    }
}
