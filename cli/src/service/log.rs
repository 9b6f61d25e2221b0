//! What happened, numbered, for any number of readers.
//!
//! A reader is a number: that of the last event it has. Nothing is kept for it, so who reads slowly costs nothing, and is told how much
//! it missed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use event_listener::Event as Changed;
use serde_json::{Map, Value};

use crate::api::{Event, EventKind};
use crate::clock;

/// Events that are kept; the oldest makes room for a newer one.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// Bytes of kept events, counted by their members and words; the oldest make room.
pub(crate) const EVENTS_BYTES_MAX: usize = 4 << 20;

/// Numbers that a node's life has for each millisecond of it: more events than a life has, so that a later life's numbers are higher.
const NUMBERS_PER_MS: u64 = 1_000;

/// The log of one node's life.
pub(crate) struct Log {
    /// The number before the first.
    base: u64,
    kept: RefCell<VecDeque<(Event, usize)>>,
    kept_bytes: Cell<usize>,
    last: Cell<u64>,
    changed: Changed,
}

/// Events after a number.
#[derive(Debug, PartialEq)]
pub(crate) struct After {
    pub(crate) events: Vec<Event>,
    /// Events after that number that are not kept any more.
    pub(crate) missed: u64,
    /// Whether the number is of another life of the node, whose later events nobody can have. What is told begins with this one's first.
    pub(crate) restarted: bool,
}

impl Log {
    /// A log whose numbers begin at 1.
    pub(crate) fn new() -> Self {
        Self::after_number(0)
    }

    /// The log of a node that was started at this time: no number of an earlier life comes again. They fit into the 53 bits of a
    /// number in JavaScript.
    pub(crate) fn of_life(started_unix_ms: u64) -> Self {
        Self::after_number(started_unix_ms.saturating_mul(NUMBERS_PER_MS))
    }

    fn after_number(base: u64) -> Self {
        Self {
            base,
            kept: RefCell::default(),
            kept_bytes: Cell::new(0),
            last: Cell::new(base),
            changed: Changed::new(),
        }
    }

    /// Adds an event; its number.
    pub(crate) fn push(&self, kind: EventKind, text: String) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        let event = Event { number, unix_ms: clock::now_ms(), kind, text };
        let bytes = weight(&event);
        let mut kept = self.kept.borrow_mut();
        kept.push_back((event, bytes));
        let mut total = self.kept_bytes.get() + bytes;
        while kept.len() > EVENTS_MAX || (total > EVENTS_BYTES_MAX && kept.len() > 1) {
            total -= kept.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.kept_bytes.set(total);
        self.changed.notify(usize::MAX);
        number
    }

    /// The number before that of the first event.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The number of the last event; before the first, the one before its number.
    pub(crate) fn last(&self) -> u64 {
        self.last.get()
    }

    /// At most `limit` events after the one with this number; after 0, all that are kept.
    pub(crate) fn after(&self, number: u64, limit: usize) -> After {
        let is_own = (self.base..=self.last.get()).contains(&number);
        let restarted = !is_own && number != 0;
        let number = if is_own { number } else { self.base };
        let kept = self.kept.borrow();
        let first = kept.front().map_or(self.last.get() + 1, |(event, _)| event.number);
        let skipped = usize::try_from((number + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let events = kept.iter().skip(skipped).take(limit).map(|(event, _)| event.clone()).collect();
        After { events, missed: first.saturating_sub(number + 1), restarted }
    }

    /// Waits until there is an event after the one with this number.
    pub(crate) async fn wait(&self, number: u64) {
        loop {
            let changed = self.changed.listen();
            if self.last.get() > number {
                return;
            }
            changed.await;
        }
    }
}

/// About the bytes that an event takes.
fn weight(event: &Event) -> usize {
    size_of::<Event>() + event.text.len() + map_weight(&event.kind.members)
}

/// A map has room for eleven members at once.
fn map_weight(members: &Map<String, Value>) -> usize {
    let rooms = members.len().div_ceil(11) * 11 * (size_of::<String>() + size_of::<Value>());
    rooms + members.iter().map(|(name, value)| name.len() + value_weight(value)).sum::<usize>()
}

/// What a value takes beside its own place.
fn value_weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|it| size_of::<Value>() + value_weight(it)).sum(),
        Value::Object(members) => map_weight(members),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::News;

    fn push(log: &Log, text: &str) -> u64 {
        log.push(
            EventKind { event: News::Warning, channel: None, job: None, members: Map::new() },
            text.into(),
        )
    }

    fn numbers(after: &After) -> Vec<u64> {
        after.events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_reader_gets_what_came_after_its_number() {
        let log = Log::new();
        for text in ["a", "b", "c"] {
            push(&log, text);
        }
        assert_eq!(numbers(&log.after(1, 10)), [2, 3]);
        assert_eq!(numbers(&log.after(0, 2)), [1, 2]);
        assert!(log.after(3, 10).events.is_empty());
    }

    #[test]
    fn a_number_of_another_life_is_known_for_one() {
        let earlier = Log::of_life(1_700_000_000_000);
        let old = push(&earlier, "old");
        let log = Log::of_life(1_700_000_000_007);
        let first = push(&log, "new");
        assert!(first > old && first < 1 << 53);
        // The clock may have gone back meanwhile.
        for number in [old, first + 1, 7] {
            let after = log.after(number, 10);
            assert_eq!((numbers(&after), after.missed, after.restarted), (vec![first], 0, true));
        }
        for number in [0, first - 1] {
            let after = log.after(number, 10);
            assert_eq!((numbers(&after), after.missed, after.restarted), (vec![first], 0, false));
        }
        assert!(!log.after(first, 10).restarted && log.after(first, 10).events.is_empty());
    }

    #[test]
    fn what_is_too_much_is_missed_and_counted() {
        let log = Log::new();
        for _ in 0..EVENTS_MAX + 5 {
            push(&log, "");
        }
        let after = log.after(2, 1);
        assert_eq!((numbers(&after), after.missed), (vec![6], 3));
        assert_eq!(log.after(5, 1).missed, 0);
    }

    #[test]
    fn long_events_make_room_by_their_bytes() {
        let log = Log::new();
        let text = "x".repeat(EVENTS_BYTES_MAX / 4);
        for _ in 0..9 {
            push(&log, &text);
        }
        assert!(log.after(0, 100).events.len() < 5);
        assert!(log.kept_bytes.get() <= EVENTS_BYTES_MAX);
    }

    #[test]
    fn waiting_ends_with_the_next_event() {
        let log = Log::new();
        push(&log, "a");
        smol::block_on(async {
            log.wait(0).await;
            futures_lite::future::zip(log.wait(1), async { push(&log, "b") }).await;
        });
    }
}
