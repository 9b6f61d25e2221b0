//! News for any number of readers: a ring of bounded size in which each piece has a number.

use std::collections::VecDeque;
use std::rc::Rc;

use megatorrent_core::node::Event;

use crate::losses::LossNews;

/// News kept for readers that are late.
pub(crate) const EVENTS_MAX: usize = 4096;

/// What a node has to tell.
#[derive(Clone, Debug)]
pub enum News {
    /// An event of core's.
    Event(Event),
    /// Something cannot be read, or can be again: told of each file once, and once when it is back.
    Loss(LossNews),
}

impl News {
    /// Whether it is about a mere connection.
    fn is_minor(&self) -> bool {
        let Self::Event(event) = self else { return false };
        matches!(event, Event::Connected { .. } | Event::Disconnected { .. } | Event::DialFailed { .. })
    }
}

/// A piece of news, its number, and how many before it the reader has missed, as it was too slow.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The first piece has 1, and each further one the next number.
    pub number: u64,
    /// Pieces between the reader's last one and this one that made room before it came to them.
    pub missed: u64,
    /// The piece.
    pub news: Rc<News>,
}

/// The newest news.
#[derive(Default)]
pub(crate) struct Ring {
    kept: VecDeque<(u64, Rc<News>)>,
    newest: u64,
}

impl Ring {
    /// At the cap, the oldest piece of news about a mere connection makes room, or else the oldest of all.
    pub(crate) fn push(&mut self, news: News) {
        if self.kept.len() >= EVENTS_MAX {
            let minor = self.kept.iter().position(|(_, news)| news.is_minor());
            self.kept.remove(minor.unwrap_or(0));
        }
        self.newest += 1;
        self.kept.push_back((self.newest, Rc::new(news)));
    }

    /// The number of the newest piece; 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The first piece after one with this number.
    pub(crate) fn after(&self, number: u64) -> Option<Numbered> {
        let at = self.kept.partition_point(|(kept, _)| *kept <= number);
        let (next, news) = self.kept.get(at)?;
        Some(Numbered { number: *next, missed: next - number - 1, news: Rc::clone(news) })
    }
}

#[cfg(test)]
mod tests {
    use megatorrent_core::ids::ConnId;

    use super::*;

    fn connected(slot: u32) -> News {
        let peer = "127.0.0.1:1".parse().expect("an address");
        News::Event(Event::Connected { conn: ConnId { slot, generation: 0 }, peer, outbound: true })
    }

    fn full() -> News {
        News::Event(Event::StoreFull { no_space: true })
    }

    #[test]
    fn news_that_matter_outlive_a_flood_of_connections() {
        let mut ring = Ring::default();
        ring.push(full());
        for slot in 0..u32::try_from(EVENTS_MAX).expect("small") {
            ring.push(connected(slot));
        }
        let first = ring.after(0).expect("it is kept");
        assert_eq!((first.number, first.missed, ring.kept.len()), (1, 0, EVENTS_MAX));
        let second = ring.after(1).expect("it is kept");
        assert_eq!((second.number, second.missed), (3, 1));

        let mut ring = Ring::default();
        for _ in 0..=EVENTS_MAX {
            ring.push(full());
        }
        assert_eq!(ring.kept.len(), EVENTS_MAX, "bounded also where all matter");
        assert_eq!(ring.after(0).map(|next| (next.number, next.missed)), Some((2, 1)));
    }

    #[test]
    fn readers_follow_by_number_each_at_its_own_pace() {
        let mut ring = Ring::default();
        (0..5).for_each(|slot| ring.push(connected(slot)));
        let read = |from: u64| {
            let next = |number: &u64| ring.after(*number).map(|next| next.number);
            std::iter::successors(next(&from), next).collect::<Vec<_>>()
        };
        assert_eq!((read(0), read(3), read(5)), (vec![1, 2, 3, 4, 5], vec![4, 5], vec![]));
        assert_eq!(ring.newest(), 5);
    }
}
