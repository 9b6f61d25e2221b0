//! One table of deadlines, so that finding the next one does not visit every connection.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::identity::PublicKey;
use crate::ids::{ConnId, Topic};
use crate::time::Instant;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A connection's handshake, stall, idle time or keep-alive.
    Conn(ConnId),
    /// A channel's head is due to be looked up or put.
    Channel(PublicKey),
    /// A swarm's peers are due to be looked up or asked again, or its content to be checked.
    Swarm(Topic),
    /// The DHT budget has room again, or an announce is due.
    Dht,
    /// A peer's back-off ends.
    Dial,
    /// A peer may be asked for peers again.
    Seek,
    /// A useless connection may be given up for another.
    Rotation,
    /// A ban ends.
    Bans,
    /// The back-off after a failure of the store ends.
    Store,
    /// Our own name is due to be announced again.
    Announce,
    /// An item that we put for another node is due to be put again.
    Keep,
    /// A step of a publication through gateways takes too long, or its pause is over.
    Publish(PublicKey),
    /// Transfers are checked for slow peers.
    Review,
    /// An upload slot has been held for so long that it does not count any more.
    Uploads,
    /// The next HAVEs may go out.
    Have,
    /// The next WATCHes may go out.
    Watch,
    /// Connections that wait for a rate limit get their shares.
    Throttle,
}

impl Timer {
    fn reason(self) -> &'static str {
        match self {
            Self::Conn(_) => "connection",
            Self::Channel(_) => "channel look-up",
            Self::Swarm(_) => "peer look-up",
            Self::Dht => "DHT budget",
            Self::Dial => "dial back-off",
            Self::Seek => "search for peers",
            Self::Rotation => "rotation of connections",
            Self::Bans => "end of a ban",
            Self::Store => "store retry",
            Self::Announce => "announce",
            Self::Keep => "upkeep of relayed items",
            Self::Publish(_) => "publication",
            Self::Review => "transfer review",
            Self::Uploads => "upload slot",
            Self::Have => "HAVE",
            Self::Watch => "WATCH",
            Self::Throttle => "rate limit",
        }
    }
}

/// Deadlines by timer; setting one again moves it.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        match self.at.insert(timer, at) {
            Some(old) if old == at => return,
            Some(old) => drop(self.due.remove(&(old, timer))),
            None => {}
        }
        self.due.insert((at, timer));
    }

    /// Moves the deadline to `at` if that is sooner.
    pub(super) fn set_sooner(&mut self, timer: Timer, at: Instant) {
        if self.at.get(&timer).is_none_or(|old| at < *old) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(old) = self.at.remove(&timer) {
            self.due.remove(&(old, timer));
        }
    }

    /// Takes the next deadline that has passed.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        (at <= now).then(|| {
            self.cancel(timer);
            timer
        })
    }

    pub(super) fn next(&self) -> Option<(Instant, &'static str)> {
        self.due.first().map(|(at, timer)| (*at, timer.reason()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_has_one_deadline_and_fires_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Dht, Instant(9));
        timers.set(Timer::Dht, Instant(5));
        timers.set_sooner(Timer::Dht, Instant(7));
        timers.set(Timer::Dial, Instant(6));
        assert_eq!(timers.next().map(|n| n.0), Some(Instant(5)));
        assert_eq!(timers.pop_due(Instant(4)), None);
        assert_eq!(timers.pop_due(Instant(9)), Some(Timer::Dht));
        timers.cancel(Timer::Dial);
        assert_eq!((timers.pop_due(Instant(9)), timers.next()), (None, None));
    }
}
