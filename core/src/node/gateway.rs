//! The gateway: for nodes without a DHT, others put their heads there and look heads up (`docs/protocol.md` §12).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::api::{DhtError, DhtOp, JobResult};
use super::dht::Purpose;
use super::quotas::Quotas;
use super::{Node, Timer};
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

/// What a gateway does for others.
pub(super) struct Gateway {
    /// What each host may ask for.
    asked: Quotas,
    /// DHT operations that may begin for others, so that enough is left for what the node does of its own accord.
    favours: Bucket,
    /// Items being put, and who asked.
    puts: BTreeMap<PublicKey, (ConnId, SignedItem)>,
    /// Heads being looked up.
    look_ups: BTreeMap<PublicKey, LookUp>,
    /// The newest items that were put, so that a replayed older one is refused without a DHT operation.
    relayed: BTreeMap<PublicKey, i64>,
    /// Items that are kept alive.
    kept: BTreeMap<PublicKey, Kept>,
}

/// An item of another node's that is put again each hour. It is not looked up before, as a follower's head is: a gateway
/// does not poll, so it would not notice in time when nobody else keeps it any more.
struct Kept {
    item: SignedItem,
    /// Of the last PUBLISH.
    asked: Instant,
    due: Instant,
}

impl Gateway {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            asked: Quotas::new(FAVOURS_PER_MINUTE),
            favours: Bucket::new(FAVOURS_TOTAL_PER_MINUTE, FAVOURS_TOTAL_BURST, now),
            puts: BTreeMap::new(),
            look_ups: BTreeMap::new(),
            relayed: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Keeps an item alive for [`RELAYED_KEPT`] from now; at [`RELAYED_KEPT_MAX`] instead of the one asked for longest
    /// ago.
    fn keep(&mut self, item: SignedItem, now: Instant) {
        if self.kept.len() >= RELAYED_KEPT_MAX && !self.kept.contains_key(&item.key) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.asked).map(|(key, _)| *key);
            oldest.map(|key| self.kept.remove(&key));
        }
        self.kept.insert(item.key, Kept { item, asked: now, due: now + REPUT_INTERVAL });
    }

    /// Somebody has put a newer item.
    pub(super) fn stop_keeping(&mut self, key: &PublicKey) {
        self.kept.remove(key);
    }

    fn next_due(&self) -> Option<Instant> {
        self.kept.values().map(|kept| kept.due).min()
    }
}

#[derive(Default)]
struct LookUp {
    /// The newest so far.
    best: Option<SignedItem>,
    /// Who asked, with what tag and known sequence.
    waiting: Vec<(ConnId, Tag, u64)>,
}

impl<S: Suite> Node<S> {
    pub(super) fn on_publish_request(&mut self, conn: ConnId, item: SignedItem) {
        if let Err(why) = self.accept_publish(conn, &item) {
            return self.answer_publish(conn, Err(why.into()));
        }
        let key = item.key;
        self.dht.put(self.cx.now(), Purpose::Relay(key), item.clone(), None);
        self.gateway.puts.insert(key, (conn, item));
    }

    fn accept_publish(&mut self, conn: ConnId, item: &SignedItem) -> Result<(), &'static str> {
        if !self.config.gateway {
            return Err("Not a Gateway");
        }
        let now = self.cx.now();
        let Some(entry) = self.conns.get(conn) else { return Err("Closed") };
        if !self.gateway.asked.take(conn, &entry.peer, now) {
            return Err("Too Many Requests");
        }
        if !item.verify() {
            return Err("Invalid Signature");
        }
        let followed = self.channels.get(&item.key).map_or(0, |c| c.newest_seq());
        let relayed = self.gateway.relayed.get(&item.key).map_or(0, |seq| seq.unsigned_abs());
        if item.seq.unsigned_abs() < followed.max(relayed) {
            return Err("Sequence Too Low");
        }
        let pending = self.gateway.puts.len() + self.gateway.look_ups.len();
        let has_room = pending < GATEWAY_JOBS_MAX && !self.gateway.puts.contains_key(&item.key);
        if !has_room || !self.gateway.favours.take(now) {
            return Err("Busy");
        }
        Ok(())
    }

    fn answer_publish(&mut self, conn: ConnId, answer: Result<String, String>) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.conn.push(&match answer {
            Ok(text) => Message::Ok(text),
            Err(why) => Message::Error(why),
        });
        self.wake_driver(conn);
    }

    pub(super) fn on_relay_done(&mut self, key: PublicKey, result: &JobResult) {
        let Some((conn, item)) = self.gateway.puts.remove(&key) else { return };
        let answer = match result {
            JobResult::DhtPut(Ok(0)) => Err("Not Stored: no other DHT node took it".into()),
            JobResult::DhtPut(Ok(nodes)) => Ok(format!("Stored at {nodes} nodes")),
            JobResult::DhtPut(Err(DhtError::Stale)) => Err("Sequence Too Low".into()),
            JobResult::DhtPut(Err(error)) => Err(format!("Not Stored: {error}")),
            _ => Err("Not Stored".into()),
        };
        if answer.is_ok() {
            if self.gateway.relayed.len() >= RELAYED_MAX {
                self.gateway.relayed.pop_first();
            }
            self.gateway.relayed.insert(key, item.seq);
            self.gateway.keep(item.clone(), self.cx.now());
            self.wait_to_keep();
            if self.channels.contains_key(&key) {
                self.offer_head(item);
            }
        }
        self.answer_publish(conn, answer);
    }

    /// Puts the relayed items again that are due.
    pub(super) fn keep_relayed(&mut self) {
        let now = self.cx.now();
        let channels = &self.channels;
        // A channel that is followed is kept up as such.
        let is_wanted = |key: &PublicKey, kept: &Kept| {
            now.since(kept.asked) < RELAYED_KEPT && !channels.contains_key(key)
        };
        self.gateway.kept.retain(|key, kept| is_wanted(key, kept));
        for (key, kept) in self.gateway.kept.iter_mut().filter(|(_, kept)| kept.due <= now) {
            kept.due = now + REPUT_INTERVAL;
            self.dht.put(self.cx.now(), Purpose::Keep(*key), kept.item.clone(), None);
        }
        self.wait_to_keep();
    }

    fn wait_to_keep(&mut self) {
        match self.gateway.next_due() {
            Some(due) => self.cx.set_timer(Timer::Keep, due),
            None => self.cx.cancel_timer(Timer::Keep),
        }
    }

    /// A peer asks for the head of a channel that we do not follow.
    pub(super) fn look_up_head(&mut self, conn: ConnId, tag: Tag, channel: PublicKey, known: u64) {
        let now = self.cx.now();
        let pending = self.gateway.puts.len() + self.gateway.look_ups.len();
        let is_begun = self.gateway.look_ups.contains_key(&channel);
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let gateway = &mut self.gateway;
        let is_done = self.config.gateway
            && gateway.asked.take(conn, &entry.peer, now)
            && (is_begun || (pending < GATEWAY_JOBS_MAX && gateway.favours.take(now)));
        if !is_done {
            return entry.conn.push(&Message::Head(tag, None));
        }
        let waiting = &mut self.gateway.look_ups.entry(channel).or_default().waiting;
        if waiting.len() < GATEWAY_JOBS_MAX {
            waiting.push((conn, tag, known));
        }
        self.dht.push(self.cx.now(), Purpose::LookUpHead(channel), DhtOp::Get(channel));
    }

    pub(super) fn on_looked_up_item(&mut self, channel: PublicKey, item: &SignedItem) {
        if let Some(look_up) = self.gateway.look_ups.get_mut(&channel)
            && look_up.best.as_ref().is_none_or(|best| best.seq < item.seq)
        {
            look_up.best = Some(item.clone());
        }
    }

    pub(super) fn on_head_looked_up(&mut self, channel: PublicKey) {
        let Some(LookUp { best, waiting }) = self.gateway.look_ups.remove(&channel) else { return };
        for (conn, tag, known) in waiting {
            let Some(entry) = self.conns.get_mut(conn) else { continue };
            let newer = best.clone().filter(|item| item.seq.unsigned_abs() > known);
            entry.conn.push(&Message::Head(tag, newer));
            self.wake_driver(conn);
        }
    }
}
