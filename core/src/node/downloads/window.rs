//! How many parts a connection is asked for at once.

use core::time::Duration;

use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::{Downloads, Line};
use crate::ids::ConnId;
use crate::limits::{PART_WINDOW_GROWS_FOR, PART_WINDOW_MAX, PART_WINDOW_SEED, PART_WINDOW_START};
use crate::suite::Suite;

/// A connection is asked for what it brings in this time, beside what it brings while a request is on its way.
const WINDOW_TIME: Duration = Duration::from_millis(250);
/// Parts beyond that, so that a slow connection is never without a request.
const WINDOW_SPARE: usize = 2;

/// The window of a connection of which the rate is not known.
#[derive(Debug)]
pub(super) struct Start {
    parts: usize,
    /// Every part has come in time.
    is_growing: bool,
    /// Few others may be asked.
    is_one_of_few: bool,
    /// It is one of few seeds, beside others that may be asked.
    is_scarce: bool,
}

impl Default for Start {
    fn default() -> Self {
        Self { parts: PART_WINDOW_START, is_growing: true, is_one_of_few: true, is_scarce: false }
    }
}

impl Line {
    /// Parts of `part_len` bytes that may be asked for at once.
    pub(super) fn part_window(&self, part_len: usize) -> usize {
        let least = if self.start.is_scarce { PART_WINDOW_SEED } else { 0 };
        let start = match self.rate.bytes_per_sec() {
            _ if self.start.is_growing && self.start.is_one_of_few => self.start.parts,
            0 => PART_WINDOW_START,
            _ => 0,
        };
        self.rate_window(part_len).max(start).max(least).min(PART_WINDOW_MAX)
    }

    /// The same as far as the rate tells; 0 before it is known.
    fn rate_window(&self, part_len: usize) -> usize {
        let rate = self.rate.bytes_per_sec();
        if rate == 0 {
            return 0;
        }
        let bytes = u128::from(rate) * self.in_time().as_millis() / 1000;
        usize::try_from(bytes / part_len as u128).unwrap_or(PART_WINDOW_MAX).saturating_add(WINDOW_SPARE)
    }

    fn in_time(&self) -> Duration {
        WINDOW_TIME + self.nearest.unwrap_or_default() * 2
    }

    /// What was asked for of a part came, and took so long. `is_short`: it was less than a part, which says nothing of the rate.
    pub(super) fn note_took(&mut self, took: Duration, is_short: bool, part_len: usize) {
        if took > self.in_time() || (!is_short && self.rate_window(part_len) > self.start.parts) {
            self.start.is_growing = false;
        } else {
            self.start.parts = (self.start.parts + 1).min(PART_WINDOW_MAX);
        }
    }
}

impl Downloads {
    /// Lets windows follow how many seeds and others may be asked.
    pub(super) fn fit_windows<S: Suite>(&mut self, conns: &Conns<S>, swarms: &Swarms) {
        let are_scarce = self.are_seeds_scarce(swarms);
        let askable = self.candidates.iter().filter(|(_, candidate)| candidate.is_askable()).count();
        let is_one_of_few = askable <= PART_WINDOW_GROWS_FOR;
        let mut changed = alloc::vec::Vec::<ConnId>::new();
        for (conn, line) in self.lines.iter_mut() {
            let is_scarce = are_scarce && swarms.is_seed(conn);
            if (line.start.is_scarce, line.start.is_one_of_few) != (is_scarce, is_one_of_few) {
                (line.start.is_scarce, line.start.is_one_of_few) = (is_scarce, is_one_of_few);
                changed.push(conn);
            }
        }
        for conn in changed {
            self.sum_up(conns, conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    const PART: usize = 65_536;

    fn line() -> Line {
        Line::new(0, Instant(0))
    }

    #[test]
    fn a_window_grows_by_each_part_that_comes_in_time() {
        let mut line = line();
        (0..6).for_each(|_| line.note_took(Duration::from_millis(50), false, PART));
        assert_eq!(line.part_window(PART), PART_WINDOW_START + 6);
        line.start.is_one_of_few = false;
        assert_eq!(line.part_window(PART), PART_WINDOW_START);
        line.start.is_scarce = true;
        assert_eq!(line.part_window(PART), PART_WINDOW_SEED);
    }

    #[test]
    fn a_part_that_comes_late_ends_the_growth() {
        let mut line = line();
        line.note_took(Duration::from_millis(50), false, PART);
        line.note_took(Duration::from_millis(400), false, PART);
        line.note_took(Duration::from_millis(50), false, PART);
        assert_eq!((line.part_window(PART), line.start.is_growing), (PART_WINDOW_START, false));
    }
}
