//! Acts: a plan's faults and events, the end of each, and the healing.

use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::node::Command;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;

use super::plan::{Act, Fate, What};
use super::stage::{Peer, RETRY, Stage, Todo};
use crate::host::HostId;

/// Bytes of the file that each later version adds.
const UPDATE_LEN: usize = 5_000;

impl<S: Suite> Stage<S> {
    /// Returns the index of the peer that a number in the plan means, if it has joined.
    fn index(&self, peer: u64) -> Option<usize> {
        let index = usize::try_from(peer % self.plan.members.len() as u64).expect("below a length");
        self.peers.get(&index).filter(|peer| !peer.left && !peer.is_v5).map(|_| index)
    }

    pub(super) fn begin_act(&mut self, number: usize) {
        let Act { what, .. } = self.plan.acts[number].clone();
        let lasts = match &what {
            What::Crash { lasts, .. }
            | What::Partition { lasts, .. }
            | What::Stall { lasts, .. }
            | What::StoreFull { lasts, .. }
            | What::StoreFails { lasts, .. }
            | What::ProxyFails { lasts, .. }
            | What::DhtAway { lasts }
            | What::AuthorLeaves { lasts: Some(lasts) } => Some(*lasts),
            _ => None,
        };
        // An act after the healing ends by itself, except the faults that healing would end.
        let ends_healed = lasts.is_some() || (what == What::ForkedHead && self.plan.heals_forks);
        if self.healed.is_some() && ends_healed {
            return;
        }
        if self.must_wait(&what) {
            return self.agree(self.world.now() + RETRY, Todo::Begin(number));
        }
        if let Some(text) = self.apply(number, &what) {
            let lasting = lasts.map_or(String::new(), |lasts| format!(", for {:.1} s", lasts.as_secs_f64()));
            self.tell("act", format!("[{number}] {text}{lasting}"));
            if let Some(lasts) = lasts {
                self.agree(self.world.now() + lasts, Todo::End(number));
            }
        }
    }

    fn must_wait(&self, what: &What) -> bool {
        match what {
            What::AuthorLeaves { .. } => self.completed_once.is_empty() || self.publishing,
            What::Update => self.publishing,
            What::ForkedHead => {
                let is_behind = |peer: &Peer| !peer.left && !peer.is_v5 && peer.known < self.newest;
                self.publishing || self.peers.values().any(is_behind)
            }
            _ => false,
        }
    }

    /// Does an act; returns its line of the timeline. `None`: its target has not joined.
    fn apply(&mut self, number: usize, what: &What) -> Option<String> {
        Some(match what {
            What::AuthorLeaves { lasts } => {
                self.world.crash(self.author);
                format!("the author leaves{}", if lasts.is_none() { " for good" } else { "" })
            }
            What::Partition { share_percent, one_way, .. } => self.divide(number, *share_percent, *one_way),
            What::DhtAway { .. } => {
                self.world.dht_mut().set_up(false);
                "the DHT is away".into()
            }
            What::Introduce => {
                let author = self.world.address(self.author).into();
                for host in self.hosts().skip(1).collect::<Vec<_>>() {
                    self.world.command(host, Command::AddPeer(PeerAddr::clone(&author)));
                }
                "all peers get the author's address".into()
            }
            What::Update => {
                self.add_file(UPDATE_LEN);
                self.publish();
                format!("the author publishes version {}", self.version())
            }
            What::StaleHead => {
                let (now, item) = (self.world.now(), self.first_head.clone()?);
                self.world.dht_mut().replace(now, &item);
                "the DHT holds the first head again".into()
            }
            What::ForkedHead => self.fork_head()?,
            What::Attack(attack) => {
                self.adversaries.add(&mut self.world, *attack);
                self.report.adversaries += 1;
                format!("an adversary comes: {}", attack.name())
            }
            of_peer => return self.apply_to_peer(number, of_peer),
        })
    }

    /// Does an act on one peer.
    fn apply_to_peer(&mut self, number: usize, what: &What) -> Option<String> {
        Some(match what {
            What::Crash { peer, store, .. } => {
                let (index, _) = self.target(*peer)?;
                let fate = self.crash_with(index, *store);
                format!("peer {index} crashes{fate}")
            }
            What::Leave { peer } => {
                let (index, _) = self.target(*peer)?;
                self.leave(index);
                format!("peer {index} leaves for good")
            }
            What::Stall { peer, .. } => {
                let (index, host) = self.target(*peer)?;
                let others: Vec<_> = self.hosts().filter(|other| *other != host).collect();
                self.partitions.insert(number, self.world.partition(&[host], &others, false));
                format!("nothing passes from or to peer {index}")
            }
            What::LatencySpike { peer, latency } => {
                let (index, host) = self.target(*peer)?;
                self.world.set_latency(host, *latency);
                format!("peer {index}'s links take {} ms each way", latency.as_millis())
            }
            What::Reset { peer } => {
                let (index, host) = self.target(*peer)?;
                self.world.links_of(host).into_iter().for_each(|link| self.world.reset(link));
                format!("peer {index}'s connections are reset")
            }
            What::HalfOpen { peer } => {
                let (index, host) = self.target(*peer)?;
                self.world.links_of(host).into_iter().for_each(|link| self.world.half_open(link));
                format!("peer {index}'s connections fall silent")
            }
            What::ProxyFails { peer, .. } => {
                let (index, host) = self.target(*peer)?;
                self.world.set_proxy_dead(host, true);
                format!("peer {index}'s proxy dies")
            }
            What::Clock { peer, ahead_ms } => {
                let (index, host) = self.target(*peer)?;
                self.world.set_clock_ahead(host, *ahead_ms);
                format!("peer {index}'s clock is set {} s off", ahead_ms / 1000)
            }
            What::StoreFull { peer, .. } => {
                let (index, host) = self.target(*peer)?;
                self.world.store_mut(host).set_room(0);
                format!("peer {index}'s disk is full")
            }
            What::StoreFails { peer, .. } => {
                let (index, host) = self.target(*peer)?;
                self.world.store_mut(host).set_failing(true);
                format!("peer {index}'s disk fails")
            }
            _ => return None,
        })
    }

    fn target(&self, peer: u64) -> Option<(usize, HostId)> {
        let index = self.index(peer)?;
        Some((index, self.peers[&index].host))
    }

    pub(super) fn end_act(&mut self, number: usize) {
        if let Some(partition) = self.partitions.remove(&number) {
            self.world.heal(partition);
        }
        match self.plan.acts[number].what.clone() {
            What::Crash { peer, .. } => {
                if let Some(index) = self.index(peer) {
                    self.restart(index);
                }
            }
            What::AuthorLeaves { .. } => self.restart_author(),
            What::StoreFull { peer, .. } => {
                if let Some((_, host)) = self.target(peer) {
                    self.world.store_mut(host).set_room(usize::MAX);
                }
            }
            What::StoreFails { peer, .. } => {
                if let Some((_, host)) = self.target(peer) {
                    self.world.store_mut(host).set_failing(false);
                }
            }
            What::ProxyFails { peer, .. } => {
                if let Some((_, host)) = self.target(peer) {
                    self.world.set_proxy_dead(host, false);
                }
            }
            What::DhtAway { .. } => self.world.dht_mut().set_up(true),
            _ => {}
        }
    }

    /// Ends all faults that can end. Peers that have left for good stay away, and adversaries stay.
    pub(super) fn heal(&mut self) {
        self.healed = Some(self.world.now());
        for number in 0..self.plan.acts.len() {
            self.end_unless_author_gone(number);
        }
        for index in 0..self.plan.members.len() {
            self.restart(index);
            if let Some(peer) = self.peers.get(&index) {
                self.world.set_latency(peer.host, Duration::from_millis(*self.plan.world.latency_ms.start()));
            }
        }
        let stays = |act: &Act| {
            matches!(act.what, What::Update | What::Attack(_) | What::StaleHead | What::ForkedHead)
        };
        self.check_stores();
        if self.has_forked && self.plan.heals_forks && !self.publishing {
            self.publish();
            self.tell(
                "heal",
                "the author publishes once more, as there are two heads of one sequence".into(),
            );
        }
        if !self.plan.acts.iter().all(stays) {
            self.tell("heal", "all that can heal is healed".into());
        }
    }

    fn end_unless_author_gone(&mut self, number: usize) {
        if !matches!(self.plan.acts[number].what, What::AuthorLeaves { lasts: None }) {
            self.end_act(number);
        }
    }

    /// Crashes a peer, and does the planned damage to its store; returns the line of the timeline.
    fn crash_with(&mut self, index: usize, store: Fate) -> &'static str {
        self.crash(index);
        let Some(host) = self.peers.get(&index).map(|peer| peer.host) else { return "" };
        let first = self.world.store(host).blob_ids().next();
        match (store, first) {
            (Fate::Wiped, _) => {
                self.world.wipe(host);
                " and loses its disk"
            }
            (Fate::LosesBlob, Some(id)) => {
                self.world.store_mut(host).remove(&id);
                " and loses a blob"
            }
            (Fate::Rots, Some(id)) => {
                self.world.store_mut(host).corrupt(&id);
                self.rotted.insert(host);
                " and a blob on its disk rots"
            }
            (Fate::Kept | Fate::LosesBlob | Fate::Rots, _) => "",
        }
    }

    /// Signs another head with the newest one's sequence, and replaces all copies by it.
    fn fork_head(&mut self) -> Option<String> {
        let now = self.world.now();
        let newest = self.world.dht().newest(now, &self.channel)?;
        let forked = self.adversaries.fork(newest.seq)?;
        self.world.dht_mut().replace(now, &forked);
        self.has_forked = true;
        Some("the DHT holds another head of the newest sequence".into())
    }

    fn divide(&mut self, number: usize, share_percent: u64, one_way: bool) -> String {
        let mut rng = Rng::new([0; 32]).fork(&format!("sides {} {number}", self.report.params.seed));
        let (near, far): (Vec<_>, Vec<_>) =
            self.hosts().partition(|host| *host == self.author || rng.below(100) < share_percent);
        self.partitions.insert(number, self.world.partition(&near, &far, one_way));
        let how = if one_way { "nothing passes from" } else { "nothing passes between" };
        let to = if one_way { "to" } else { "and" };
        format!("{how} {} hosts, the author among them, {to} {} others", near.len(), far.len())
    }
}
