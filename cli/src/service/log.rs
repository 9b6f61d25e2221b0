//! What happened, numbered, for any number of readers.
//!
//! A reader is a number: that of the last event it has. Nothing is kept for it, so who reads slowly costs nothing, and is told how much
//! it missed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use event_listener::Event as Changed;

use crate::api::{Event, EventKind};
use crate::clock;

/// Events that are kept; the oldest makes room for a newer one.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// Bytes of kept events, counted by their members and words; the oldest make room.
pub(crate) const EVENTS_BYTES_MAX: usize = 4 << 20;

/// The log of one node's life. Numbers begin at 1.
pub(crate) struct Log {
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
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            kept: RefCell::default(),
            kept_bytes: Cell::new(0),
            last: Cell::new(0),
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

    /// The number of the last event; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last.get()
    }

    /// At most `limit` events after the one with this number. A number that was never given counts as one of another life: all
    /// that is kept comes.
    pub(crate) fn after(&self, number: u64, limit: usize) -> After {
        let number = if number > self.last.get() { 0 } else { number };
        let kept = self.kept.borrow();
        let first = kept.front().map_or(self.last.get() + 1, |(event, _)| event.number);
        let skipped = usize::try_from((number + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let events = kept.iter().skip(skipped).take(limit).map(|(event, _)| event.clone()).collect();
        After { events, missed: first.saturating_sub(number + 1) }
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
    let members = event.kind.members.iter();
    size_of::<Event>()
        + event.text.len()
        + members.map(|(name, value)| name.len() + value_weight(value)).sum::<usize>()
}

fn value_weight(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    let own = size_of::<Value>();
    match value {
        Value::String(text) => own + text.len(),
        Value::Array(values) => own + values.iter().map(value_weight).sum::<usize>(),
        Value::Object(members) => {
            own + members.iter().map(|(name, value)| name.len() + value_weight(value)).sum::<usize>()
        }
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

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
        // A number of another life.
        assert_eq!(numbers(&log.after(99, 10)), [1, 2, 3]);
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
