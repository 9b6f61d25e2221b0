//! The stream of events: server-sent events, numbered, with a beat in between.
//!
//! Nothing is kept for a reader but its number. One that reads too slowly is told how many events it missed, and then goes on.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Instant;

use futures_lite::{Stream, future, stream};
use hyper::body::Bytes;
use serde_json::Value;
use smol::Timer;

use super::Backend;
use super::limits::{BEAT_INTERVAL, EVENTS_AT_ONCE_MAX};
use super::server::{Inner, Place};
use super::token::Login;

/// How soon a browser connects again: at once, nearly.
const FIRST: &str = "retry: 1000\n\n";

struct Reader<B: Backend> {
    server: Rc<Inner<B>>,
    login: Login,
    /// The number of the last event that it has.
    after: u64,
    /// What the last beat said, and when the next is due.
    beat: Option<(Value, Instant)>,
    _place: Place,
}

/// The events after a number, for as long as the caller's login holds and the server runs.
pub(super) fn events<B: Backend>(
    server: Rc<Inner<B>>,
    login: Login,
    after: u64,
    place: Place,
) -> impl Stream<Item = Bytes> + 'static {
    let reader = Reader { server, login, after, beat: None, _place: place };
    stream::unfold(reader, async |mut reader| reader.next().await.map(|bytes| (bytes, reader)))
}

impl<B: Backend> Reader<B> {
    /// What is to be said next; `None`: nothing any more.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.server.is_closing() || !self.server.access.holds(&self.login) {
                return None;
            }
            let mut text = String::new();
            self.tell_events(&mut text);
            self.tell_beat(&mut text);
            if !text.is_empty() {
                return Some(text.into());
            }
            self.wait().await;
        }
    }

    fn tell_events(&mut self, text: &mut String) {
        let log = self.server.backend.log();
        if self.after > log.last() {
            // A number of another life of the node: all that is kept is new.
            self.after = 0;
        }
        let found = log.after(self.after, EVENTS_AT_ONCE_MAX);
        if found.missed > 0 {
            self.after += found.missed;
            put(text, "missed", Some(self.after), &format!("{{\"missed\":{}}}", found.missed));
        }
        for event in found.events {
            self.after = event.number;
            let data = serde_json::to_string(&event).expect("an event's members have names that are text");
            put(text, event.kind.event.name(), Some(event.number), &data);
        }
    }

    /// Adds a beat where one is due, or what it says has changed.
    fn tell_beat(&mut self, text: &mut String) {
        let now = Instant::now();
        let beat = self.server.backend.beat();
        match &self.beat {
            None => text.push_str(FIRST),
            Some((told, due)) if *told == beat && now < *due => return,
            Some(_) => {}
        }
        put(text, "beat", None, &beat.to_string());
        self.beat = Some((beat, now + BEAT_INTERVAL));
    }

    async fn wait(&self) {
        let due = self.beat.as_ref().map_or_else(Instant::now, |(_, due)| *due);
        let beat = async {
            Timer::at(due).await;
        };
        let news = self.server.backend.log().wait(self.after);
        let end = future::or(self.server.access.rotated(), self.server.closing());
        future::or(news, future::or(beat, end)).await;
    }
}

/// Adds one event. JSON has no line breaks, so that it takes one line.
fn put(text: &mut String, name: &str, number: Option<u64>, data: &str) {
    if let Some(number) = number {
        let _ = writeln!(text, "id: {number}");
    }
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
}
