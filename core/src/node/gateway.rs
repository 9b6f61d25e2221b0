//! The gateway: puts and looks up heads on the DHT for nodes that have no DHT (`docs/protocol.md` §12).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::api::{DhtError, DhtOp, JobResult};
use super::conns::Conns;
use super::cx::Cx;
use super::dht::{DhtQueue, Purpose};
use super::quotas::Quotas;
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::bucket::Bucket;
use crate::codec::{Message, Tag};
use crate::identity::PublicKey;
use crate::ids::ConnId;
use crate::limits::{
    FAVOURS_PER_MINUTE, FAVOURS_TOTAL_BURST, FAVOURS_TOTAL_PER_MINUTE, GATEWAY_JOBS_MAX, RELAYED_KEPT,
    RELAYED_KEPT_MAX, RELAYED_MAX, REPUT_INTERVAL,
};
use crate::suite::Suite;
use crate::time::Instant;

/// Why an item is refused that is not newer than what is known.
const TOO_LOW: &str = "Sequence Too Low";

/// DHT operations on behalf of other nodes.
pub(super) struct Gateway {
    /// Whether the node is a gateway at all.
    is_on: bool,
    /// How much each host may ask for.
    asked: Quotas,
    /// DHT operations that may begin for others, so that enough are left for the node itself.
    favours: Bucket,
    /// Items being put, and the connections that asked.
    puts: BTreeMap<PublicKey, (ConnId, SignedItem)>,
    /// Heads being looked up.
    look_ups: BTreeMap<PublicKey, LookUp>,
    /// The newest items that were put, so that a replayed older one, and another of the same sequence, are refused without a
    /// DHT operation.
    relayed: BTreeMap<PublicKey, Relayed>,
    /// Items that are kept alive.
    kept: BTreeMap<PublicKey, Kept>,
}

/// What is remembered of an item that was put for another node.
struct Relayed {
    seq: i64,
    /// SHA-256 of its value.
    value: [u8; 32],
    at: Instant,
}

impl Relayed {
    fn new(item: &SignedItem, at: Instant) -> Self {
        Self { seq: item.seq, value: Sha256::digest(&item.value).into(), at }
    }

    /// Whether an item is older, or another one of the same sequence.
    fn forbids(&self, item: &SignedItem) -> bool {
        let is_same = || Sha256::digest(&item.value)[..] == self.value;
        item.seq < self.seq || (item.seq == self.seq && !is_same())
    }
}

/// Another node's item, which is put again each hour. Unlike a follower's head it is not looked up first: a gateway does
/// not poll, so it would notice too late that no other node keeps the item alive.
struct Kept {
    item: SignedItem,
    /// When the last PUBLISH came.
    asked: Instant,
    due: Instant,
}

impl Gateway {
    pub(super) fn new(is_on: bool, now: Instant) -> Self {
        Self {
            is_on,
            asked: Quotas::new(FAVOURS_PER_MINUTE),
            favours: Bucket::new(FAVOURS_TOTAL_PER_MINUTE, FAVOURS_TOTAL_BURST, now),
            puts: BTreeMap::new(),
            look_ups: BTreeMap::new(),
            relayed: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Keeps an item alive for [`RELAYED_KEPT`]. At [`RELAYED_KEPT_MAX`] it replaces the one whose PUBLISH is oldest.
    fn keep(&mut self, item: SignedItem, now: Instant) {
        if self.kept.len() >= RELAYED_KEPT_MAX && !self.kept.contains_key(&item.key) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.asked).map(|(key, _)| *key);
            oldest.map(|key| self.kept.remove(&key));
        }
        self.kept.insert(item.key, Kept { item, asked: now, due: now + REPUT_INTERVAL });
    }

    /// Takes the result of putting a kept item again: drops it where the DHT holds a newer one.
    pub(super) fn on_kept(&mut self, key: &PublicKey, result: &JobResult) {
        if matches!(result, JobResult::DhtPut(Err(DhtError::Stale))) {
            self.kept.remove(key);
        }
    }

    /// Becomes a gateway, or stops being one: what is under way is answered, and nothing is kept alive any more.
    pub(super) fn set_on(&mut self, cx: &mut Cx, is_on: bool) {
        self.is_on = is_on;
        if !is_on {
            self.kept.clear();
            self.wait_to_keep(cx);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    // --- putting --------------------------------------------------------------------------------------------

    /// Takes a peer's PUBLISH. `is_outdated`: the head that is known of its channel is newer, or another one of the same
    /// sequence. Returns the item where it is refused for such a reason though it is properly signed.
    pub(super) fn on_publish<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        dht: &mut DhtQueue,
        conn: ConnId,
        item: SignedItem,
        is_outdated: bool,
    ) -> Option<SignedItem> {
        let peer = conns.peer(conn)?;
        if let Err(why) = self.accept(cx, conn, peer, &item, is_outdated) {
            answer(conns, conn, Err(why.into()));
            return Some(item).filter(|_| why == TOO_LOW);
        }
        let key = item.key;
        dht.put(cx.now(), Purpose::Relay(key), item.clone(), None);
        self.puts.insert(key, (conn, item));
        None
    }

    fn accept(
        &mut self,
        cx: &Cx,
        conn: ConnId,
        peer: &PeerAddr,
        item: &SignedItem,
        is_outdated: bool,
    ) -> Result<(), &'static str> {
        if !self.is_on {
            return Err("Not a Gateway");
        }
        if !self.asked.take(conn, peer, cx.now()) {
            return Err("Too Many Requests");
        }
        if !item.verify() {
            return Err("Invalid Signature");
        }
        if is_outdated || self.relayed.get(&item.key).is_some_and(|relayed| relayed.forbids(item)) {
            return Err(TOO_LOW);
        }
        let has_room = self.pending() < GATEWAY_JOBS_MAX && !self.puts.contains_key(&item.key);
        if !has_room || !self.favours.take(cx.now()) {
            return Err("Busy");
        }
        Ok(())
    }

    /// Counts the puts and look-ups in flight.
    fn pending(&self) -> usize {
        self.puts.len() + self.look_ups.len()
    }

    /// Takes the DHT's answer to a put for a peer, and answers the peer; returns the item if the DHT took it.
    pub(super) fn on_relayed<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        key: PublicKey,
        result: &JobResult,
    ) -> Option<SignedItem> {
        let (conn, item) = self.puts.remove(&key)?;
        let said = match result {
            JobResult::DhtPut(Ok(0)) => Err("Not Stored: no other DHT node took it".into()),
            JobResult::DhtPut(Ok(nodes)) => Ok(format!("Stored at {nodes} nodes")),
            JobResult::DhtPut(Err(DhtError::Stale)) => Err(TOO_LOW.into()),
            JobResult::DhtPut(Err(error)) => Err(format!("Not Stored: {error}")),
            _ => Err("Not Stored".into()),
        };
        let stored = said.is_ok().then(|| item.clone());
        if said.is_ok() {
            self.remember(&item, cx.now());
        }
        if said.is_ok() && self.is_on {
            self.keep(item, cx.now());
            self.wait_to_keep(cx);
        }
        answer(conns, conn, said);
        stored
    }

    /// Remembers an item that was put; at [`RELAYED_MAX`] instead of the one that was put longest ago.
    fn remember(&mut self, item: &SignedItem, now: Instant) {
        if self.relayed.len() >= RELAYED_MAX && !self.relayed.contains_key(&item.key) {
            let oldest = self.relayed.iter().min_by_key(|(_, relayed)| relayed.at).map(|(key, _)| *key);
            oldest.map(|key| self.relayed.remove(&key));
        }
        self.relayed.insert(item.key, Relayed::new(item, now));
    }

    // --- keeping alive --------------------------------------------------------------------------------------

    /// Puts the due relayed items again. A followed channel has its own upkeep.
    pub(super) fn keep_relayed(
        &mut self,
        cx: &mut Cx,
        dht: &mut DhtQueue,
        is_followed: impl Fn(&PublicKey) -> bool,
    ) {
        let now = cx.now();
        self.kept.retain(|key, kept| now.since(kept.asked) < RELAYED_KEPT && !is_followed(key));
        for (key, kept) in self.kept.iter_mut().filter(|(_, kept)| kept.due <= now) {
            kept.due = now + REPUT_INTERVAL;
            dht.put(now, Purpose::Keep(*key), kept.item.clone(), None);
        }
        self.wait_to_keep(cx);
    }

    fn wait_to_keep(&self, cx: &mut Cx) {
        cx.set_or_cancel_timer(Timer::Keep, self.kept.values().map(|kept| kept.due).min());
    }

    // --- looking up -----------------------------------------------------------------------------------------

    /// Looks up the head of a channel for a peer, where we do not follow the channel.
    pub(super) fn look_up<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        dht: &mut DhtQueue,
        conn: ConnId,
        asked: (Tag, PublicKey, u64),
    ) {
        let (tag, channel, known) = asked;
        let is_begun = self.look_ups.contains_key(&channel);
        let Some(peer) = conns.peer(conn) else { return };
        let is_done = self.is_on
            && self.asked.take(conn, peer, cx.now())
            && (is_begun || (self.pending() < GATEWAY_JOBS_MAX && self.favours.take(cx.now())));
        if !is_done {
            return conns.push(conn, &Message::Head(tag, None));
        }
        let waiting = &mut self.look_ups.entry(channel).or_default().waiting;
        if waiting.len() < GATEWAY_JOBS_MAX {
            waiting.push((conn, tag, known));
        }
        dht.push(cx.now(), Purpose::LookUpHead(channel), DhtOp::Get(channel));
    }

    /// Takes a properly signed item that the DHT gave for a look-up.
    pub(super) fn on_item(&mut self, channel: PublicKey, item: &SignedItem) {
        if let Some(look_up) = self.look_ups.get_mut(&channel)
            && look_up.best.as_ref().is_none_or(|best| best.seq < item.seq)
        {
            look_up.best = Some(item.clone());
        }
    }

    /// Ends a look-up: the peers that asked get its head.
    pub(super) fn on_looked_up<S: Suite>(&mut self, conns: &mut Conns<S>, channel: PublicKey) {
        let Some(LookUp { best, waiting }) = self.look_ups.remove(&channel) else { return };
        for (conn, tag, known) in waiting {
            let Some(line) = conns.get_mut(conn) else { continue };
            let newer = best.clone().filter(|item| item.seq.unsigned_abs() > known);
            line.push(&Message::Head(tag, newer));
        }
    }
}

/// Answers a PUBLISH.
fn answer<S: Suite>(conns: &mut Conns<S>, conn: ConnId, answer: Result<String, String>) {
    let Some(line) = conns.get_mut(conn) else { return };
    line.push(&match answer {
        Ok(text) => Message::Ok(text),
        Err(why) => Message::Error(why),
    });
}

#[derive(Default)]
struct LookUp {
    /// The newest item so far.
    best: Option<SignedItem>,
    /// The connections that asked, with their tag and known sequence.
    waiting: Vec<(ConnId, Tag, u64)>,
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::identity::Identity;
    use crate::ids::Secret;

    fn item(author: usize, seq: i64) -> SignedItem {
        let mut secret = [1; 32];
        secret[..8].copy_from_slice(&(author as u64).to_be_bytes());
        let key = Identity::new(&Secret::new(secret), None).public_key();
        SignedItem { key, seq, value: Vec::new(), signature: [0; 64] }
    }

    #[test]
    fn the_item_that_was_put_longest_ago_is_forgotten_first_and_none_for_a_newer_of_its_channel() {
        let mut gateway = Gateway::new(true, Instant(0));
        let at = |n: usize| Instant(0) + Duration::from_secs(n as u64);
        for n in 0..RELAYED_MAX {
            gateway.remember(&item(n, 5), at(n));
        }
        gateway.remember(&item(0, 6), at(RELAYED_MAX));
        assert_eq!(gateway.relayed.len(), RELAYED_MAX);
        gateway.remember(&item(RELAYED_MAX, 5), at(RELAYED_MAX + 1));
        let seq = |n: usize| gateway.relayed.get(&item(n, 0).key).map(|relayed| relayed.seq);
        assert_eq!((gateway.relayed.len(), seq(0), seq(1), seq(2)), (RELAYED_MAX, Some(6), None, Some(5)));
        assert_eq!(seq(RELAYED_MAX), Some(5));
    }
}
