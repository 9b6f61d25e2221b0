//! The checkers of the whole swarm.

use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::error::Violation;
use megatorrent_core::suite::Suite;

use super::stage::Stage;
use crate::checker::Checker;
use crate::faults::Bug;
use crate::host::HostId;

impl<S: Suite> Stage<S> {
    /// No wrong byte is stored: each blob in a store is the author's of that id, or has that hash.
    pub(super) fn check_stores(&mut self) {
        let author = self.world.store(self.author);
        let mut wrong = None;
        for host in self.hosts() {
            let store = self.world.store(host);
            wrong = store.taken_wrongly().first().map(|id| (host, *id)).or(wrong);
            for id in store.blob_ids() {
                let bytes = store.blob(&id).unwrap_or_default();
                let is_right =
                    host != self.author && author.blob(&id) == Some(bytes) || S::verify_blob(&id, bytes);
                if !is_right && !store.rotten().contains(&id) {
                    wrong = Some((host, id));
                }
            }
        }
        if let Some((host, id)) = wrong {
            self.object(
                Checker::Stores,
                &format!("host {} has stored wrong bytes as blob {id}", host.0),
            );
        }
    }

    /// No wrong byte is delivered: a peer that says that it is complete has the author's bytes.
    pub(super) fn check_files(&mut self) {
        let mut objection = None;
        for (index, peer) in &self.peers {
            let is_rotten = !self.world.store(peer.host).rotten().is_empty();
            if peer.left || is_rotten || !self.is_complete(peer) {
                continue;
            }
            for (entry, content) in &self.files {
                let mut delivered = self.world.read_file(peer.host, entry);
                if let Some(byte) = delivered.as_mut().and_then(|bytes| bytes.first_mut())
                    && self.world.planted() == Some(Bug::DeliverWrong)
                {
                    *byte ^= 1;
                }
                let path = entry.path.as_str();
                match delivered {
                    Some(bytes) if bytes == *content => {}
                    Some(_) => objection = Some(format!("peer {index} delivers other bytes as {path}")),
                    None => objection = Some(format!("peer {index} is complete and cannot read {path}")),
                }
            }
        }
        if let Some(text) = objection {
            self.object(Checker::Files, &text);
        }
    }

    /// No honest host is banned, except for a wrong blob that its disk has damaged.
    pub(super) fn check_ban(&mut self, by: HostId, banned: &PeerAddr, violation: Violation) {
        let victims: Vec<HostId> = self.hosts().filter(|host| self.may_be(*host, banned)).collect();
        let is_due = |host: &HostId| violation == Violation::WrongBlob && self.rotted.contains(host);
        if victims.is_empty() || victims.iter().any(is_due) {
            return;
        }
        // A wrong byte explains more than its consequences.
        self.check_stores();
        let text = format!("host {} bans {banned}, which is honest: it {violation}", by.0);
        self.object(Checker::Bans, &text);
    }

    /// Whether peers see a host under an address. They see all hosts that have a name under their own proxy's address.
    fn may_be(&self, host: HostId, addr: &PeerAddr) -> bool {
        let name = self.world.name(host);
        match addr {
            PeerAddr::Ip(ip) if ip.ip().is_loopback() => name.is_some(),
            PeerAddr::Ip(ip) => name.is_none() && ip.ip() == self.world.address(host).ip(),
            PeerAddr::Onion(..) | PeerAddr::I2p(..) | PeerAddr::Dns(..) => name == Some(addr),
        }
    }

    /// Content between hosts that no store needed, in thousandths.
    pub(super) fn duplicates_permille(&self) -> u64 {
        let stored: u64 =
            self.peers.values().map(|peer| self.world.store(peer.host).blob_count() as u64).sum();
        let useful = (stored + self.lost) * S::BLOB_LEN as u64;
        let sent: u64 = self.world.flows().map(|(_, _, bytes)| bytes).sum();
        sent.saturating_sub(useful) * 1000 / sent.max(1)
    }

    /// `max(F/u_seed, F/d_min, N·F/(u_seed + Σu_i))` for a channel of F bytes, N peers and their links' rates.
    pub(super) fn lower_bound(&self) -> Option<Duration> {
        if !self.plan.is_measured {
            return None;
        }
        let bytes = (self.world.store(self.author).blob_count() * S::BLOB_LEN) as u64;
        let configs = || self.plan.members.iter().map(|member| &member.config);
        let seed = self.plan.author.upload_bytes_per_sec.max(1);
        let slowest = configs().filter_map(|config| config.download_bytes_per_sec).min().unwrap_or(u64::MAX);
        let all = seed.saturating_add(configs().map(|config| config.upload_bytes_per_sec).sum());
        let micros = |bytes: u64, rate: u64| u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let bound = micros(bytes, seed)
            .max(micros(bytes, slowest))
            .max(micros(bytes * self.plan.members.len() as u64, all));
        u64::try_from(bound).ok().map(Duration::from_micros)
    }
}
