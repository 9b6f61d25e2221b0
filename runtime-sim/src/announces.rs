//! The checker of ANNOUNCE gossip (`docs/protocol.md` §12): it reads frames in worlds whose suite does not encrypt.
//!
//! A node passes a name on with fewer hops than the name came with, so by induction no name goes further than its first
//! hops allow; it passes no IP address on; and over one connection it sends no more than the quota.

use std::collections::{BTreeMap, VecDeque};

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::codec::Message;
use megatorrent_core::ids::BlobId;
use megatorrent_core::limits::{ANNOUNCE_HOPS_MAX, ANNOUNCES_PER_MINUTE, CONTROL_QUEUE_MAX};
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;

use crate::checker::check;
use crate::faults::Bug;
use crate::host::HostId;
use crate::link::{LinkId, Side};
use crate::world::World;

/// Announces that are remembered, over all nodes; the oldest makes room. A forgotten one counts as heard with the most
/// hops.
const HEARD_MAX: usize = 1 << 18;

type Heard = (HostId, BlobId, PeerAddr);

/// The announces over links.
#[derive(Default)]
pub(crate) struct Announces {
    /// The most hops with which each name was sent to each node.
    heard: BTreeMap<Heard, u8>,
    by_age: VecDeque<Heard>,
    /// How many announces a node has sent over a link, and when it sent the first.
    sent: BTreeMap<(LinkId, Side), (u64, Instant)>,
}

impl Announces {
    fn hear(&mut self, heard: Heard, hops: u8) {
        let known = self.heard.insert(heard.clone(), hops);
        if let Some(known) = known {
            self.heard.insert(heard, hops.max(known));
        } else {
            self.by_age.push_back(heard);
            if self.by_age.len() > HEARD_MAX
                && let Some(oldest) = self.by_age.pop_front()
            {
                self.heard.remove(&oldest);
            }
        }
    }

    /// Counts announces that a node sends over one link; returns by how many they exceed the quota.
    fn count(&mut self, from: (LinkId, Side), n: u64, now: Instant) -> u64 {
        let (count, since) = self.sent.entry(from).or_insert((0, now));
        *count += n;
        let minutes_ms =
            u64::try_from(now.since(*since).as_millis()).unwrap_or(u64::MAX) * ANNOUNCES_PER_MINUTE;
        // When the first was sent, as many as are sealed together may have waited for the socket with it, and as many
        // behind them.
        let most = ANNOUNCES_PER_MINUTE + 2 * CONTROL_QUEUE_MAX as u64 + minutes_ms / 60_000;
        count.saturating_sub(most)
    }

    /// Forgets a link that is gone.
    pub(crate) fn forget(&mut self, link: LinkId) {
        for side in [Side::Dialer, Side::Listener] {
            self.sent.remove(&(link, side));
        }
    }
}

impl<S: Suite> World<S> {
    /// Checks the announces that were sent from an end of a link, given by their plaintexts.
    pub(crate) fn announced(&mut self, link: LinkId, side: Side, frames: Vec<Vec<u8>>) {
        let Some(hosts) = self.links.get(link).map(|link| link.hosts) else { return };
        let sender = self.links.get(link).and_then(|link| link.node_at(side)).map(|(host, _)| host);
        for frame in frames {
            let Ok(Message::Announce(id, addr, hops)) = Message::decode(&frame) else { continue };
            if let Some(host) = sender {
                self.check_announce(host, (link, side), id, &addr, hops);
            }
            if let Some(to) = hosts[side.other() as usize] {
                self.announces.hear((to, id, addr), hops);
            }
        }
    }

    fn check_announce(&mut self, host: HostId, from: (LinkId, Side), id: BlobId, addr: &PeerAddr, hops: u8) {
        let bug = self.planted();
        let is_own = self.name(host) == Some(addr);
        check!(
            Announces,
            matches!(addr, PeerAddr::Onion(..) | PeerAddr::I2p(..)),
            "host {} passes the IP address {addr} on",
            host.0
        );
        if !is_own {
            let heard = self.announces.heard.get(&(host, id, addr.clone()));
            let heard = heard.copied().unwrap_or(ANNOUNCE_HOPS_MAX);
            let hops = hops + u8::from(bug == Some(Bug::HopsKept));
            check!(
                Announces,
                hops < heard,
                "host {} passes {addr} on for {hops} hops, and heard it with {heard}",
                host.0
            );
        }
        let n = if bug == Some(Bug::QuotaPassed) { 10 } else { 1 };
        let over = self.announces.count(from, n, self.now());
        check!(Announces, over == 0, "host {} exceeds a connection's quota by {over} announces", host.0);
    }
}
