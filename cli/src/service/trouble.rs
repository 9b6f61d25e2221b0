//! A channel's folder that fails, and when it is tried again.

use std::time::{Duration, Instant};

use crate::exit::Failure;

/// How long after a first failure its folder is tried again, after a second, and after each further one.
const AGAIN_AFTER: [Duration; 3] = [Duration::from_secs(10), Duration::from_mins(1), Duration::from_mins(5)];

/// What is wrong with the folder of a channel, if anything is.
#[derive(Debug, Default)]
pub(super) struct Trouble(Option<Known>);

#[derive(Debug)]
struct Known {
    failure: Failure,
    /// Whether it was a file that failed, and not the folder.
    of_file: bool,
    tries: usize,
    /// When it is tried again; `None`: it is being tried.
    due: Option<Instant>,
}

impl Trouble {
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.0.as_ref().map(|known| &known.failure)
    }

    /// The folder has failed. Whether that is news: the same words were not said before.
    pub(super) fn note(&mut self, failure: Failure, now: Instant) -> bool {
        let before = self.0.take();
        let is_news = before.as_ref().is_none_or(|known| known.failure.message != failure.message);
        let tries = before.map_or(0, |known| if known.due.is_none() { known.tries + 1 } else { known.tries });
        let after = AGAIN_AFTER[tries.min(AGAIN_AFTER.len() - 1)];
        self.0 = Some(Known { failure, of_file: false, tries, due: Some(now + after) });
        is_news
    }

    /// A file has failed, of which was told.
    pub(super) fn note_file(&mut self, failure: Failure, now: Instant) {
        self.note(failure, now);
        if let Some(known) = &mut self.0 {
            known.of_file = true;
        }
    }

    /// Whether the time has come to try it again; then it is being tried from here on.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.0.as_mut().and_then(|known| known.due.take_if(|due| *due <= now));
        due.is_some()
    }

    /// A user wants it tried at once.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(due) = self.0.as_mut().and_then(|known| known.due.as_mut()) {
            *due = now;
        }
    }

    /// It is being tried for another version, of which no file has failed yet.
    pub(super) fn begin(&mut self) {
        if let Some(known) = &mut self.0 {
            known.due = None;
            known.of_file = false;
        }
    }

    /// Whether it has failed and is not being tried.
    pub(super) fn rests(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.due.is_some())
    }

    /// It is all right.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// The folder is all right; a file that failed is still to be tried.
    pub(super) fn end_of_folder(&mut self) {
        self.0.take_if(|known| !known.of_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn failure(message: &str) -> Failure {
        Failure::new(Exit::Other, message.to_owned())
    }

    #[test]
    fn it_is_tried_again_less_and_less_often_and_told_once() {
        let (mut trouble, mut now) = (Trouble::default(), Instant::now());
        assert!(!trouble.take_due(now) && !trouble.rests());
        assert!(trouble.note(failure("no folder"), now));
        for secs in [10, 60, 300, 300] {
            now += Duration::from_secs(secs - 1);
            assert!(trouble.rests() && !trouble.take_due(now), "{secs} s");
            now += Duration::from_secs(1);
            assert!(trouble.take_due(now) && !trouble.rests(), "{secs} s");
            assert!(!trouble.note(failure("no folder"), now), "it was told");
        }
        assert!(trouble.note(failure("read-only"), now), "this was not");
        trouble.hurry(now);
        assert!(trouble.take_due(now));
        trouble.end_of_folder();
        assert!(trouble.failure().is_none());
        trouble.note_file(failure("no space"), now);
        trouble.end_of_folder();
        assert!(trouble.failure().is_some(), "the file is not there yet");
        trouble.begin();
        trouble.end_of_folder();
        assert!(trouble.failure().is_none(), "another version has other files");
        trouble.note_file(failure("no space"), now);
        trouble.end();
        assert!(trouble.note(failure("no folder"), now));
        assert!(trouble.take_due(now + Duration::from_secs(10)), "from the beginning");
    }
}
