//! Who is shut out for a proven lie, and for how long.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::crowd::same_host;
use crate::addr::PeerAddr;
use crate::limits::{BAN_TIME, BANS_MAX, BANS_PER_HOST_MAX};
use crate::time::UnixTime;

/// The bans, by address. Whoever has [`BANS_PER_HOST_MAX`] of them on one public host is shut out with all its ports.
#[derive(Default)]
pub(super) struct Bans {
    until: BTreeMap<PeerAddr, UnixTime>,
}

impl Bans {
    /// Bans an address; gives the one whose ban made room, if one did.
    pub(super) fn add(&mut self, addr: PeerAddr, until: UnixTime) -> Option<PeerAddr> {
        self.until.insert(addr, until);
        if self.until.len() <= BANS_MAX {
            return None;
        }
        let first = self.until.iter().min_by_key(|(_, until)| **until).map(|(addr, _)| addr.clone())?;
        self.until.remove(&first);
        Some(first)
    }

    /// Takes back a ban of an earlier run. `false`: it has ended. A clock that was wrong then makes it no longer than
    /// a new one.
    pub(super) fn restore(&mut self, addr: &PeerAddr, until: UnixTime, unix: UnixTime) -> bool {
        let lasts = unix < until;
        if lasts {
            self.add(addr.clone(), until.min(unix.plus(BAN_TIME)));
        }
        lasts
    }

    /// Whether an address is banned, or its host.
    pub(super) fn has(&self, addr: &PeerAddr, unix: UnixTime) -> bool {
        if self.until.is_empty() {
            return false;
        }
        // Behind a private address there may be all of a laboratory, or of Tor.
        let host = if addr.is_public() { same_host(addr) } else { addr.clone()..=addr.clone() };
        let mut in_force = self.until.range(host).filter(|(_, until)| unix < **until);
        self.until.get(addr).is_some_and(|until| unix < *until)
            || in_force.nth(BANS_PER_HOST_MAX - 1).is_some()
    }

    /// Takes out the bans that have ended.
    pub(super) fn take_ended(&mut self, unix: UnixTime) -> Vec<PeerAddr> {
        let ended: Vec<_> =
            self.until.iter().filter(|(_, until)| **until <= unix).map(|(a, _)| a.clone()).collect();
        self.until.retain(|_, until| *until > unix);
        ended
    }

    /// When the next ban ends.
    pub(super) fn next_end(&self) -> Option<UnixTime> {
        self.until.values().min().copied()
    }

    /// Bans in force.
    pub(super) fn count(&self, unix: UnixTime) -> usize {
        self.until.values().filter(|until| unix < **until).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_liar_behind_a_nat_shuts_out_itself_and_one_who_changes_ports_its_host() {
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
        let (mut bans, a) = (Bans::default(), addr("9.9.9.9:1"));
        assert!(!bans.restore(&a, UnixTime(10), UnixTime(10)));
        assert!(bans.restore(&a, UnixTime(u64::MAX), UnixTime(10)));
        assert_eq!(bans.next_end(), Some(UnixTime(10).plus(BAN_TIME)));
    }
}
