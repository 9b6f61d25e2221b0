//! How often something may happen: so many times a second, and some at once after a pause.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::limits::{REFUSALS_BURST, REFUSALS_PER_SEC, REFUSED_ADDRESSES_MAX};

/// A rate, and when the next one would be due if all came evenly (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    interval: Duration,
    burst: u32,
    due: Option<Instant>,
}

impl Rate {
    pub(super) fn new(per_sec: u32, burst: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_sec, burst, due: None }
    }

    /// Takes `count` of them, all or none; a count above the burst only when none was taken for a while.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> bool {
        let due = self.due.map_or(now, |due| due.max(now));
        let ahead = self.interval * self.burst.saturating_sub(count);
        if due.saturating_duration_since(now) > ahead {
            return false;
        }
        self.due = Some(due + self.interval * count);
        true
    }

    /// Whether it is as if nothing had been taken.
    fn is_rested(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

/// Refusals, counted for each address.
#[derive(Default)]
pub(super) struct Refusals {
    rates: BTreeMap<IpAddr, Rate>,
}

impl Refusals {
    /// Counts a refusal; whether the caller is told why.
    pub(super) fn count(&mut self, ip: IpAddr, now: Instant) -> bool {
        let mut key = site(ip);
        if !self.rates.contains_key(&key) && self.rates.len() >= REFUSED_ADDRESSES_MAX {
            self.rates.retain(|_, rate| !rate.is_rested(now));
            if self.rates.len() >= REFUSED_ADDRESSES_MAX {
                key = Ipv6Addr::UNSPECIFIED.into();
            }
        }
        self.rates.entry(key).or_insert_with(|| Rate::new(REFUSALS_PER_SEC, REFUSALS_BURST)).take(1, now)
    }
}

/// An IPv6 caller has a /64 at least.
fn site(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut rate = Rate::new(10, 5);
        let now = Instant::now();
        assert!((0..5).all(|_| rate.take(1, now)) && !rate.take(1, now));
        let later = now + Duration::from_millis(100);
        assert!(rate.take(1, later) && !rate.take(1, later));
        let rested = now + Duration::from_mins(1);
        assert!(rate.take(100, rested) && !rate.take(1, rested));
    }

    #[test]
    fn addresses_beyond_the_bound_share_a_count() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for number in 0..100_000_u32 {
            refusals.count(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert!(refusals.rates.len() <= REFUSED_ADDRESSES_MAX + 1);
        assert!(!refusals.count("203.0.113.1".parse().expect("an address"), now));
        // One /64 is one caller.
        assert_eq!(site("2001:db8::1".parse().expect("v6")), site("2001:db8::ffff:1".parse().expect("v6")));
    }
}
