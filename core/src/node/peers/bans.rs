//! Bans for a proven lie or a flood.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::api::{BanStatus, Event, RecordKey};
use super::super::cx::{Cx, Pending};
use super::super::timers::Timer;
use super::netgroup::same_host;
use crate::addr::PeerAddr;
use crate::error::Violation;
use crate::ids::JobId;
use crate::limits::{BAN_TIME, BANS_MAX, BANS_PER_HOST_MAX};
use crate::time::UnixTime;

/// The bans, by address. A public host with [`BANS_PER_HOST_MAX`] of them is banned with all its ports.
#[derive(Default)]
pub(super) struct Bans {
    until: BTreeMap<PeerAddr, UnixTime>,
    /// What the peers did, of those that did it in this run.
    violations: BTreeMap<PeerAddr, Violation>,
}

impl Bans {
    /// Bans an address. The event follows once the ban is durable.
    pub(super) fn ban(&mut self, cx: &mut Cx, addr: &PeerAddr, violation: Violation) {
        // More lies that the peer told before the ban cause no second event.
        if !self.has(addr, cx.unix()) {
            let until = cx.unix().plus(BAN_TIME);
            let room = self.add(addr.clone(), until);
            self.violations.insert(addr.clone(), violation);
            if let Some(room) = room {
                cx.persist(Pending::Record, RecordKey::Ban(room), None);
            }
            let event = Event::Banned { peer: addr.clone(), violation, until };
            cx.persist(Pending::Ban(event), RecordKey::Ban(addr.clone()), Some(encode_time(until)));
        }
        self.wait(cx);
    }

    /// Restores a ban from its record, or deletes the record of one that has ended. `false`: the record does not parse. A
    /// wrong clock at that time makes the ban no longer than a new one.
    pub(super) fn restore(&mut self, cx: &mut Cx, addr: &PeerAddr, value: &[u8]) -> bool {
        let Some(until) = decode_time(value) else { return false };
        if cx.unix() < until {
            self.add(addr.clone(), until.min(cx.unix().plus(BAN_TIME)));
            self.wait(cx);
        } else {
            cx.persist(Pending::Record, RecordKey::Ban(addr.clone()), None);
        }
        true
    }

    /// Lifts the bans that have ended, and waits for the next one to end.
    pub(super) fn end(&mut self, cx: &mut Cx) {
        for over in self.take_ended(cx.unix()) {
            cx.persist(Pending::Record, RecordKey::Ban(over), None);
        }
        self.wait(cx);
    }

    /// Lifts the ban of an address, or all bans of its host where that is banned; the jobs that delete their records.
    pub(super) fn lift(&mut self, cx: &mut Cx, addr: &PeerAddr) -> Option<Vec<JobId>> {
        if !self.has(addr, cx.unix()) {
            return None;
        }
        let mut lifted = Vec::from([addr.clone()]);
        self.until.remove(addr);
        if self.has(addr, cx.unix()) {
            lifted.extend(self.until.range(same_host(addr)).map(|(other, _)| other.clone()));
        }
        let mut jobs = Vec::new();
        for addr in lifted {
            self.until.remove(&addr);
            self.violations.remove(&addr);
            jobs.push(cx.persist(Pending::Record, RecordKey::Ban(addr), None));
        }
        self.wait(cx);
        Some(jobs)
    }

    /// The bans in force.
    pub(super) fn statuses(&self, unix: UnixTime) -> Vec<BanStatus> {
        let in_force = self.until.iter().filter(|(_, until)| unix < **until);
        let status = |(peer, until): (&PeerAddr, &UnixTime)| {
            let violation = self.violations.get(peer).copied();
            BanStatus { peer: peer.clone(), violation, until: *until }
        };
        in_force.map(status).collect()
    }

    fn wait(&self, cx: &mut Cx) {
        match self.next_end() {
            Some(end) => {
                let left = Duration::from_millis(end.0.saturating_sub(cx.unix().0));
                cx.set_timer_in(Timer::Bans, left.max(Duration::from_millis(1)));
            }
            None => cx.cancel_timer(Timer::Bans),
        }
    }

    /// Adds a ban; returns the address whose ban made room, if one did.
    fn add(&mut self, addr: PeerAddr, until: UnixTime) -> Option<PeerAddr> {
        self.until.insert(addr, until);
        if self.until.len() <= BANS_MAX {
            return None;
        }
        let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(addr, _)| addr.clone())?;
        self.until.remove(&first);
        self.violations.remove(&first);
        Some(first)
    }

    /// Whether an address or its host is banned.
    pub(super) fn has(&self, addr: &PeerAddr, unix: UnixTime) -> bool {
        if self.until.is_empty() {
            return false;
        }
        // All of a laboratory, or of Tor, may share a private address.
        let host = if addr.is_public() { same_host(addr) } else { addr.clone()..=addr.clone() };
        let mut in_force = self.until.range(host).filter(|(_, until)| unix < **until);
        self.until.get(addr).is_some_and(|until| unix < *until)
            || in_force.nth(BANS_PER_HOST_MAX - 1).is_some()
    }

    /// Takes out the bans that have ended.
    fn take_ended(&mut self, unix: UnixTime) -> Vec<PeerAddr> {
        let ended: Vec<_> =
            self.until.iter().filter(|(_, until)| **until <= unix).map(|(a, _)| a.clone()).collect();
        self.until.retain(|_, until| *until > unix);
        self.violations.retain(|addr, _| self.until.contains_key(addr));
        ended
    }

    /// Returns when the next ban ends.
    fn next_end(&self) -> Option<UnixTime> {
        self.until.values().min().copied()
    }

    /// Counts the bans in force.
    pub(super) fn count(&self, unix: UnixTime) -> usize {
        self.until.values().filter(|until| unix < **until).count()
    }
}

fn encode_time(time: UnixTime) -> Vec<u8> {
    time.0.to_be_bytes().to_vec()
}

fn decode_time(bytes: &[u8]) -> Option<UnixTime> {
    Some(UnixTime(u64::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::super::super::api::{Action, Job};
    use super::*;
    use crate::rng::Rng;
    use crate::time::Instant;
    use alloc::format;

    fn addr(text: &str) -> PeerAddr {
        text.parse().expect("valid")
    }

    #[test]
    fn bans_end_and_are_bounded() {
        let mut bans = Bans::default();
        let at = |n: usize| addr(&format!("9.{}.{}.{}:1", n >> 16, (n >> 8) & 255, n & 255));
        bans.add(at(1), UnixTime(10));
        assert!(bans.has(&at(1), UnixTime(9)) && !bans.has(&at(1), UnixTime(10)));
        assert_eq!(bans.next_end(), Some(UnixTime(10)));
        assert_eq!((bans.count(UnixTime(9)), bans.take_ended(UnixTime(10))), (1, [at(1)].into()));
        let ended: Vec<_> = (0..=BANS_MAX).filter_map(|n| bans.add(at(n), UnixTime(n as u64 + 1))).collect();
        assert_eq!(ended, [at(0)]);
    }

    #[test]
    fn one_lie_bans_one_port_and_lies_from_several_ports_ban_the_host() {
        let unix = UnixTime(0);
        for (host, other, lies_alone) in [
            ("9.9.9.9", "9.9.9.10", false),
            ("[2a00::1]", "[2a00:0:0:1::1]", false),
            ("a.example", "b.example", false),
            ("127.0.0.1", "127.0.0.2", true),
            ("10.0.0.1", "10.0.0.2", true),
        ] {
            let mut bans = Bans::default();
            for port in 1..BANS_PER_HOST_MAX {
                bans.add(addr(&format!("{host}:{port}")), UnixTime(10));
            }
            assert!(
                bans.has(&addr(&format!("{host}:1")), unix) && !bans.has(&addr(&format!("{host}:99")), unix)
            );
            bans.add(addr(&format!("{host}:50")), UnixTime(5));
            assert_eq!(bans.has(&addr(&format!("{host}:99")), unix), !lies_alone, "{host}");
            assert!(!bans.has(&addr(&format!("{other}:99")), unix));
            assert!(!bans.has(&addr(&format!("{host}:99")), UnixTime(5)), "one of them has ended");
        }
    }

    #[test]
    fn a_restored_ban_lasts_no_longer_than_a_new_one() {
        let unix = UnixTime(10);
        let (mut bans, a) = (Bans::default(), addr("9.9.9.9:1"));
        let mut cx = Cx::new(Rng::new([0; 32]), Instant(0), unix);
        assert!(!bans.restore(&mut cx, &a, b"no time"));
        assert!(bans.restore(&mut cx, &a, &encode_time(unix)) && bans.next_end().is_none());
        assert!(matches!(cx.poll(), Some(Action::Job(_, Job::Persist(RecordKey::Ban(_), None)))));
        assert!(bans.restore(&mut cx, &a, &encode_time(UnixTime(u64::MAX))));
        assert_eq!(bans.next_end(), Some(unix.plus(BAN_TIME)));
    }
}
