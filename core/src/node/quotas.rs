//! What strangers may ask of us, counted for each host: who opens more connections, or comes again, has no more of it.

use alloc::collections::BTreeMap;

use super::peers::same_host;
use crate::addr::PeerAddr;
use crate::bucket::Bucket;
use crate::ids::ConnId;
use crate::limits::QUOTA_HOSTS_MAX;
use crate::time::Instant;

/// For whom something is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Payer {
    /// The first address of a public host: of an IPv4 address, an IPv6 /64 or a name.
    Host(PeerAddr),
    /// A connection with a private address, behind which there may be all of a laboratory, or of Tor.
    Conn(ConnId),
}

/// A quota that each host has.
pub(super) struct Quotas {
    per_minute: u64,
    /// Of those who asked for something lately; whoever is not in it has all of its quota.
    used: BTreeMap<Payer, Bucket>,
}

impl Quotas {
    /// So many a minute on average, and as many at once after a quiet time.
    pub(super) fn new(per_minute: u64) -> Self {
        Self { per_minute, used: BTreeMap::new() }
    }

    /// Takes one for whoever is at the other end of a connection, if there is one left.
    pub(super) fn take(&mut self, conn: ConnId, peer: &PeerAddr, now: Instant) -> bool {
        let payer =
            if peer.is_public() { Payer::Host(same_host(peer).start().clone()) } else { Payer::Conn(conn) };
        if !self.used.contains_key(&payer) {
            self.make_room(now);
        }
        let new = || Bucket::new(self.per_minute, self.per_minute, now);
        self.used.entry(payer).or_insert_with(new).take(now)
    }

    /// At [`QUOTA_HOSTS_MAX`] those are forgotten who have all of their quota again; where there are none, who has most
    /// left, as it gains least by it.
    fn make_room(&mut self, now: Instant) {
        if self.used.len() < QUOTA_HOSTS_MAX {
            return;
        }
        self.used.retain(|_, bucket| bucket.missing(now) > 0);
        if self.used.len() >= QUOTA_HOSTS_MAX {
            let least = self.used.iter().min_by_key(|(_, bucket)| bucket.missing(now));
            let least = least.map(|(payer, _)| payer.clone());
            least.map(|payer| self.used.remove(&payer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use core::time::Duration;

    const PER_MINUTE: u64 = 3;

    fn addr(text: &str) -> PeerAddr {
        text.parse().expect("valid")
    }

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 0 }
    }

    /// How many each of two connections, with these addresses, gets at once.
    fn taken(first: &str, second: &str) -> [usize; 2] {
        let mut quotas = Quotas::new(PER_MINUTE);
        [(1, first), (2, second)]
            .map(|(slot, peer)| (0..10).filter(|_| quotas.take(conn(slot), &addr(peer), Instant(5))).count())
    }

    #[test]
    fn a_host_has_one_quota_however_many_connections_it_opens() {
        for (host, other) in
            [("9.9.9.9", "9.9.9.10"), ("[2a00::1]", "[2a00:0:0:1::1]"), ("a.example", "b.example")]
        {
            let at = |host: &str, port: u16| format!("{host}:{port}");
            assert_eq!(taken(&at(host, 1), &at(host, 2)), [3, 0], "{host}");
            assert_eq!(taken(&at(host, 1), &at(other, 1)), [3, 3], "{host} and {other}");
        }
        assert_eq!(taken("[2a00::1]:1", "[2a00::2]:1"), [3, 0], "one /64");
        assert_eq!(taken("127.0.0.1:1", "127.0.0.1:2"), [3, 3], "of a private address, a connection has one");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_first_who_used_least() {
        let mut quotas = Quotas::new(PER_MINUTE);
        let host = |n: usize| addr(&format!("9.{}.{}.{}:1", n >> 16, (n >> 8) & 255, n & 255));
        let mut take = |n: usize, secs: u64| {
            let is_taken = quotas.take(conn(1), &host(n), Instant(0) + Duration::from_secs(secs));
            assert!(quotas.used.len() <= QUOTA_HOSTS_MAX);
            is_taken
        };
        (0..QUOTA_HOSTS_MAX).for_each(|n| assert!(take(n, 0) && (n == 7 || take(n, 0))));
        assert!(take(QUOTA_HOSTS_MAX, 0), "a newcomer has its quota");
        assert!((0..3).all(|_| take(7, 0)) && !take(7, 0), "in the place of who used least");
        assert!(take(8, 0) && !take(8, 0), "others are still known");
        let later = 120;
        assert!(take(QUOTA_HOSTS_MAX + 1, later));
        assert_eq!(quotas.used.len(), 1, "who has all again need not be known");
    }
}
