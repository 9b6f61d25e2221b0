//! The checkers that look at the whole swarm, and the acts that need to know what they look at.

use std::time::Duration;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::identity::Identity;
use megatorrent_core::manifest::{Head, HeadContent};

use super::plan::Fate;
use super::stage::Stage;
use crate::faults::Bug;

impl Stage {
    /// No wrong byte is stored: whatever a store holds is the author's blob of that id, or has that hash.
    pub(super) fn check_stores(&mut self) {
        let author = self.world.store(self.author);
        let mut wrong = None;
        for host in self.hosts() {
            let store = self.world.store(host);
            wrong = store.taken_wrongly().first().map(|id| (host, *id)).or(wrong);
            for id in store.blob_ids() {
                let bytes = store.blob(&id).unwrap_or_default();
                let is_right =
                    host != self.author && author.blob(&id) == Some(bytes) || blob::verify(&id, bytes);
                if !is_right && !self.rotten.contains(&(host, id)) {
                    wrong = Some((host, id));
                }
            }
        }
        if let Some((host, id)) = wrong {
            self.object("stores", &format!("host {} has stored wrong bytes as blob {}", host.0, id.to_hex()));
        }
    }

    /// No wrong byte is delivered: whoever says that it is complete has the author's bytes.
    pub(super) fn check_files(&mut self) {
        let mut objection = None;
        for (index, peer) in &self.peers {
            let is_rotten = self.rotten.iter().any(|(host, _)| *host == peer.host);
            if peer.left || is_rotten || !self.world.is_complete(peer.host, &self.channel) {
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
            self.object("files", &text);
        }
    }

    /// Content on the wire beyond what is stored, in thousandths.
    pub(super) fn duplicates_permille(&self) -> u64 {
        let stored: u64 =
            self.peers.values().map(|peer| self.world.store(peer.host).blob_count() as u64).sum();
        let useful = (stored + self.lost) * BLOB_LEN as u64;
        // Frames add a few bytes to each blob, which are nobody's duplicates.
        let sent = self.world.traffic().data;
        let framing = sent / (BLOB_LEN as u64 + 21) * 21;
        sent.saturating_sub(useful + framing) * 1000 / sent.max(1)
    }

    /// `max(F/u_seed, F/d_min, N·F/(u_seed + Σu_i))` for a channel of F bytes, N peers and their links' rates.
    pub(super) fn lower_bound(&self) -> Option<Duration> {
        if !self.plan.is_measured {
            return None;
        }
        let bytes = (self.world.store(self.author).blob_count() * BLOB_LEN) as u64;
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

    // --- acts -------------------------------------------------------------------------------------------------

    /// Crashes a peer, and does to its store what is planned: what is told of it.
    pub(super) fn crash_with(&mut self, index: usize, store: Fate) -> &'static str {
        self.crash(index);
        let Some(host) = self.peers.get(&index).map(|peer| peer.host) else { return "" };
        let first = self.world.store(host).blob_ids().next();
        match (store, first) {
            (Fate::Wiped, _) => {
                self.lost += self.world.store(host).blob_count() as u64;
                self.world.wipe(host);
                self.rotten.retain(|(rotten, _)| *rotten != host);
                " and loses its disk"
            }
            (Fate::LosesBlob, Some(id)) => {
                self.lost += 1;
                self.world.store_mut(host).remove(&id);
                self.rotten.remove(&(host, id));
                " and loses a blob"
            }
            (Fate::Rots, Some(id)) => {
                self.world.store_mut(host).corrupt(&id);
                self.rotten.insert((host, id));
                " and a blob on its disk rots"
            }
            (Fate::Kept | Fate::LosesBlob | Fate::Rots, _) => "",
        }
    }

    /// Signs another head with the newest one's sequence and puts it in the place of all copies.
    pub(super) fn fork_head(&mut self) -> Option<String> {
        let now = self.world.now();
        let newest = self.world.dht().newest(now, &self.channel)?.clone();
        let seed = self.plan.author.identity_seed.as_ref()?;
        let identity = Identity::new(seed, self.plan.author.read_key.clone());
        let (sequence, nothing) = (newest.seq.unsigned_abs(), HeadContent::Inline(Vec::new()));
        let key = self.plan.author.read_key.as_ref().filter(|_| self.plan.private);
        let text = Head::to_json(&identity, sequence, sequence, &nothing, key.map(|key| (key, [1; 12])));
        let forked = SignedItem::sign(&identity, newest.seq, text.into_bytes())?;
        self.world.dht_mut().replace(now, &forked);
        Some("the DHT holds another head of the newest sequence".into())
    }
}
