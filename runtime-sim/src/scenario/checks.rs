//! The checkers of the whole swarm.

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::error::Violation;
use megatorrent_core::ids::BlobName;
use megatorrent_core::manifest::FileEntry;
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
                let is_right = host != self.author && store.has_same(author, &id)
                    || store.blob(&id).is_some_and(|bytes| S::verify_blob(&id, &bytes));
                if !is_right && !store.rotten().contains(&id) {
                    wrong = Some((host, id));
                }
            }
        }
        if let Some((host, id)) = wrong {
            self.object(Checker::Stores, &format!("host {} has stored wrong bytes as blob {id}", host.0));
        }
    }

    /// No wrong byte is delivered: a peer that says that it is complete has the author's bytes.
    pub(super) fn check_files(&mut self) {
        let mut objection = None;
        // For each file, a peer that delivers it, and the blobs that it is made of.
        let mut right: Vec<Option<(HostId, Vec<BlobName>)>> = vec![None; self.files.len()];
        for (index, peer) in &self.peers {
            let is_rotten = !self.world.store(peer.host).rotten().is_empty();
            if peer.left || is_rotten || !self.is_complete(peer) {
                continue;
            }
            for ((entry, content), right) in self.files.iter().zip(&mut right) {
                if right.as_ref().is_some_and(|(other, blobs)| self.have_same(peer.host, *other, blobs)) {
                    continue;
                }
                let path = entry.path.as_str();
                match self.delivers(peer.host, entry, content) {
                    Some((blobs, true)) => *right = Some((peer.host, blobs)),
                    Some(_) => objection = Some(format!("peer {index} delivers other bytes as {path}")),
                    None => objection = Some(format!("peer {index} is complete and cannot read {path}")),
                }
            }
        }
        if let Some(text) = objection {
            self.object(Checker::Files, &text);
        }
    }

    /// Whether two hosts have the same bytes as each of some blobs.
    fn have_same(&self, host: HostId, other: HostId, blobs: &[BlobName]) -> bool {
        let [store, other] = [host, other].map(|host| self.world.store(host));
        blobs.iter().all(|blob| store.has_same(other, blob))
    }

    /// Reads a file from a host's store: the data blobs that it is made of, and whether their bytes are `content`. `None`: it
    /// cannot be read.
    fn delivers(&self, host: HostId, file: &FileEntry, content: &[u8]) -> Option<(Vec<BlobName>, bool)> {
        let is_bug = self.world.planted() == Some(Bug::DeliverWrong);
        let (mut blobs, mut rest, mut is_right) = (Vec::new(), content, !is_bug || content.is_empty());
        self.world.read_blobs(host, file, |blob, bytes| {
            blobs.push(blob);
            let expected = rest.split_off(..bytes.len());
            is_right &= expected == Some(bytes);
        })?;
        Some((blobs, is_right && rest.is_empty()))
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

    /// Content between hosts that no store took, in thousandths.
    pub(super) fn duplicates_permille(&self) -> u64 {
        let useful: u64 = self.peers.values().map(|peer| self.world.store(peer.host).fetched()).sum();
        let sent: u64 = self.world.flows().map(|(_, _, bytes)| bytes).sum();
        sent.saturating_sub(useful) * 1000 / sent.max(1)
    }
}
