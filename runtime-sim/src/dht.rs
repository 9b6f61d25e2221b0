//! The DHT as its clients see it: an ideal key-value store with replicas, loss, latency, staleness and expiry, which
//! applies the rules of real nodes (BEP 44, BEP 5). A real DHT's routing is below the protocol under test and is not
//! modelled.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{InfoHash, JobId};
use megatorrent_core::limits::ITEM_VALUE_LEN_MAX;
use megatorrent_core::node::{DhtError, DhtOp, Input, JobResult};
use megatorrent_core::rng::Rng;
use megatorrent_core::time::Instant;

use crate::config::DhtConfig;
use crate::dice::Dice;

/// Nodes that keep a copy of one item.
pub const REPLICAS: usize = 8;
/// How long an item is kept after its last put (BEP 44).
pub const ITEM_LIFETIME: Duration = Duration::from_hours(2);
/// How long an announced peer is kept.
pub const PEER_LIFETIME: Duration = Duration::from_mins(45);
/// Entries under one info-hash; the oldest makes room. Each announce adds one, as at nodes that distinguish announcers
/// by the random id of their query.
const PEERS_PER_HASH_MAX: usize = 500;
/// Keys and info-hashes stored; expired ones make room, then the first.
const TARGETS_MAX: usize = 100_000;
/// Peers in one node's answer to a look-up.
const PEERS_PER_ANSWER_MAX: u64 = 10;
/// Nodes that answer a look-up.
const LOOKUP_ANSWERS: u64 = 4;

/// The DHT that all hosts share.
pub struct Dht {
    config: DhtConfig,
    dice: Dice,
    up: bool,
    /// A planted bug: puts are not kept.
    loses_puts: bool,
    items: BTreeMap<PublicKey, [Option<Held<SignedItem>>; REPLICAS]>,
    peers: BTreeMap<InfoHash, VecDeque<Held<SocketAddr>>>,
}

#[derive(Clone)]
struct Held<T> {
    value: T,
    since: Instant,
}

impl<T> Held<T> {
    fn is_fresh(&self, now: Instant, lifetime: Duration) -> bool {
        now.since(self.since) < lifetime
    }
}

impl Dht {
    pub(crate) fn new(config: DhtConfig, rng: Rng) -> Self {
        let (items, peers) = (BTreeMap::new(), BTreeMap::new());
        Self { config, dice: Dice::new(rng), up: true, loses_puts: false, items, peers }
    }

    /// Takes the whole DHT away ([`DhtError::NoNodes`]), or brings it back with everything that it holds.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Plants a bug: puts are not kept, but reported as kept.
    pub(crate) fn lose_puts(&mut self) {
        self.loses_puts = true;
    }

    /// Adds an entry to an info-hash's peers, as anybody can: a dead address, a victim's, a duplicate.
    pub fn inject_peer(&mut self, now: Instant, info_hash: InfoHash, peer: SocketAddr) {
        make_room(&mut self.peers, &info_hash, |held| held.iter().any(|h| h.is_fresh(now, PEER_LIFETIME)));
        let held = self.peers.entry(info_hash).or_default();
        if held.len() >= PEERS_PER_HASH_MAX {
            held.pop_front();
        }
        held.push_back(Held { value: peer, since: now });
    }

    /// Replaces all copies of an item's channel, against all rules, as an attacker near the key can.
    pub fn replace(&mut self, now: Instant, item: &SignedItem) {
        let copies = std::array::from_fn(|_| Some(Held { value: item.clone(), since: now }));
        self.items.insert(item.key, copies);
    }

    /// The newest item that a replica holds for `channel`.
    pub fn newest(&self, now: Instant, channel: &PublicKey) -> Option<&SignedItem> {
        let copies = self.items.get(channel)?.iter().flatten();
        let fresh = copies.filter(|held| held.is_fresh(now, ITEM_LIFETIME));
        fresh.map(|held| &held.value).max_by_key(|item| item.seq)
    }

    /// Draws the time until an operation's packets reach the DHT's nodes; the answers take about as long again.
    pub(crate) fn reach(&mut self) -> Duration {
        Duration::from_millis(self.dice.draw(&self.config.latency_ms).div_ceil(2))
    }

    /// Does an operation of the host with the address `from`; returns its inputs, each with the delay after `now`. The answer
    /// to the job comes last.
    pub(crate) fn perform(
        &mut self,
        now: Instant,
        from: IpAddr,
        job: JobId,
        op: DhtOp,
    ) -> Vec<(Duration, Input)> {
        let news: Vec<Input> = match &op {
            _ if !self.up => Vec::new(),
            DhtOp::Get(key) => self.get(now, key).into_iter().map(|item| Input::DhtItem(job, item)).collect(),
            DhtOp::Lookup(hash) => {
                self.lookup(now, hash).into_iter().map(|peers| Input::DhtPeers(job, peers)).collect()
            }
            DhtOp::Put(..) | DhtOp::Announce(..) => Vec::new(),
        };
        let result = match op {
            DhtOp::Put(item, cas) => {
                JobResult::DhtPut(if self.up { self.put(now, &item, cas) } else { Err(DhtError::NoNodes) })
            }
            DhtOp::Announce(hash, port) if self.up => {
                self.inject_peer(now, hash, SocketAddr::new(from, port));
                JobResult::DhtDone(Ok(()))
            }
            _ => JobResult::DhtDone(if self.up { Ok(()) } else { Err(DhtError::NoNodes) }),
        };
        let mut answers: Vec<_> = news.into_iter().map(|input| (self.reach(), input)).collect();
        let slowest = answers.iter().map(|(after, _)| *after).max().unwrap_or_default();
        answers.push((slowest.max(self.reach()), Input::Done(job, result)));
        answers
    }

    fn is_lost(&mut self) -> bool {
        self.dice.below(100) < self.config.loss_percent
    }

    /// Puts an item by BEP 44's rules: refuses a bad signature, a long value, a sequence below the stored one (302), and any
    /// but the expected one (301). An equal sequence is accepted.
    fn put(&mut self, now: Instant, item: &SignedItem, cas: Option<i64>) -> Result<u32, DhtError> {
        if item.value.len() > ITEM_VALUE_LEN_MAX {
            return Err(DhtError::TooLarge);
        }
        if !item.verify() {
            return Err(DhtError::Failed); // a real client learns no reason
        }
        make_room(&mut self.items, &item.key, |copies| {
            copies.iter().flatten().any(|held| held.is_fresh(now, ITEM_LIFETIME))
        });
        let (mut stored, mut stale, mut unexpected) = (0, 0, 0);
        for replica in 0..REPLICAS {
            if self.is_lost() {
                continue;
            }
            let copy = &mut self.items.entry(item.key).or_default()[replica];
            let known =
                copy.as_ref().filter(|held| held.is_fresh(now, ITEM_LIFETIME)).map(|held| held.value.seq);
            if known.is_some_and(|seq| cas.is_some_and(|cas| cas != seq)) {
                unexpected += 1;
            } else if known.is_some_and(|seq| seq > item.seq) {
                stale += 1;
            } else {
                stored += 1;
                if !self.loses_puts {
                    *copy = Some(Held { value: item.clone(), since: now });
                }
            }
        }
        match (stored, stale, unexpected) {
            (0, 0, 0) => Err(DhtError::NoNodes),
            _ if stored >= stale + unexpected => Ok(stored),
            _ if stale >= unexpected => Err(DhtError::Stale),
            _ => Err(DhtError::CasMismatch),
        }
    }

    /// Returns the replicas' answers in any order; one that missed a put answers with its older copy.
    fn get(&mut self, now: Instant, key: &PublicKey) -> Vec<SignedItem> {
        let copies = self.items.get(key).cloned().unwrap_or_default();
        let fresh = copies.into_iter().flatten().filter(|held| held.is_fresh(now, ITEM_LIFETIME));
        let items: Vec<_> = fresh.map(|held| held.value).collect();
        items.into_iter().filter(|_| !self.is_lost()).collect()
    }

    /// Returns some nodes' answers, each a random part of the known peers; a peer may be in all of them, and twice in one.
    fn lookup(&mut self, now: Instant, info_hash: &InfoHash) -> Vec<Vec<PeerAddr>> {
        let Some(known) = self.peers.get_mut(info_hash) else { return Vec::new() };
        // The oldest come first.
        while known.front().is_some_and(|held| !held.is_fresh(now, PEER_LIFETIME)) {
            known.pop_front();
        }
        let answer_len = PEERS_PER_ANSWER_MAX.min(known.len() as u64);
        let mut answers = Vec::new();
        for _ in 0..LOOKUP_ANSWERS {
            if known.is_empty() || self.dice.below(100) < self.config.loss_percent {
                continue;
            }
            let pick = |_| {
                let index = self.dice.below(known.len() as u64);
                known[usize::try_from(index).expect("below the length")].value.into()
            };
            answers.push((0..answer_len).map(pick).collect());
        }
        answers
    }
}

/// Makes room for `key` in a full table: expired entries go first, then the first one.
fn make_room<K: Ord + Copy, V>(table: &mut BTreeMap<K, V>, key: &K, mut is_fresh: impl FnMut(&V) -> bool) {
    if table.len() < TARGETS_MAX || table.contains_key(key) {
        return;
    }
    table.retain(|_, value| is_fresh(value));
    if table.len() >= TARGETS_MAX {
        table.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use megatorrent_core::identity::Identity;
    use megatorrent_core::ids::Secret;

    const JOB: JobId = JobId(1);
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn dht(loss_percent: u64) -> Dht {
        Dht::new(DhtConfig { loss_percent, ..DhtConfig::default() }, Rng::new([1; 32]))
    }

    fn item(seq: i64) -> SignedItem {
        let identity = Identity::new(&Secret::new([3; 32]), None);
        SignedItem::sign(&identity, seq, b"value".to_vec()).expect("short enough")
    }

    fn at(secs: u64) -> Instant {
        Instant(0) + Duration::from_secs(secs)
    }

    fn put(dht: &mut Dht, now: Instant, item: SignedItem, cas: Option<i64>) -> Result<u32, DhtError> {
        match dht.perform(now, HERE, JOB, DhtOp::Put(item, cas)).pop() {
            Some((_, Input::Done(JOB, JobResult::DhtPut(result)))) => result,
            other => panic!("not the answer to a put: {other:?}"),
        }
    }

    fn sequences(dht: &mut Dht, now: Instant) -> Vec<i64> {
        let answers = dht.perform(now, HERE, JOB, DhtOp::Get(item(1).key));
        let items = answers.into_iter().filter_map(|(_, input)| match input {
            Input::DhtItem(JOB, item) => Some(item.seq),
            _ => None,
        });
        items.collect()
    }

    #[test]
    fn puts_follow_the_rules_of_real_nodes() {
        let mut dht = dht(0);
        assert_eq!(put(&mut dht, at(0), item(5), None), Ok(8));
        assert_eq!(put(&mut dht, at(0), item(5), None), Ok(8), "an equal sequence is a refresh");
        assert_eq!(put(&mut dht, at(0), item(4), None), Err(DhtError::Stale));
        assert_eq!(put(&mut dht, at(0), item(6), Some(4)), Err(DhtError::CasMismatch));
        assert_eq!(put(&mut dht, at(0), item(6), Some(5)), Ok(8));
        assert_eq!(put(&mut dht, at(0), SignedItem { seq: 7, ..item(6) }, None), Err(DhtError::Failed));
        let long = SignedItem { value: vec![0; ITEM_VALUE_LEN_MAX + 1], ..item(7) };
        assert_eq!(put(&mut dht, at(0), long, None), Err(DhtError::TooLarge));
        assert_eq!(sequences(&mut dht, at(0)), [6; REPLICAS]);
        dht.set_up(false);
        assert_eq!(put(&mut dht, at(0), item(8), None), Err(DhtError::NoNodes));
    }

    #[test]
    fn items_expire_two_hours_after_their_last_put() {
        let mut dht = dht(0);
        assert_eq!(put(&mut dht, at(0), item(5), None), Ok(8));
        assert_eq!(sequences(&mut dht, at(7199)).len(), REPLICAS);
        assert!(sequences(&mut dht, at(7200)).is_empty());
        assert_eq!(put(&mut dht, at(7200), item(4), None), Ok(8), "an expired item is no obstacle");
    }

    #[test]
    fn a_replica_that_missed_a_put_answers_with_its_older_copy() {
        let mut dht = dht(30);
        for seq in 1..=3 {
            assert!(put(&mut dht, at(0), item(seq), None).is_ok_and(|stored| stored > 0));
        }
        let seen: Vec<i64> = (0..10).flat_map(|_| sequences(&mut dht, at(1))).collect();
        assert!(seen.contains(&3) && seen.iter().any(|seq| *seq < 3), "{seen:?}");
    }

    #[test]
    fn look_ups_repeat_peers_and_forget_them() {
        let mut dht = dht(0);
        let hash = InfoHash([9; 20]);
        for port in [1, 2, 2] {
            dht.perform(at(0), HERE, JOB, DhtOp::Announce(hash, port));
        }
        let peers = |dht: &mut Dht, now| {
            let answers = dht.perform(now, HERE, JOB, DhtOp::Lookup(hash)).into_iter();
            let peers = answers.filter_map(|(_, input)| match input {
                Input::DhtPeers(JOB, peers) => Some(peers),
                _ => None,
            });
            peers.flatten().map(|peer| peer.port()).collect::<Vec<_>>()
        };
        let found = peers(&mut dht, at(1));
        assert!(found.contains(&1) && found.contains(&2) && found.len() > 3, "{found:?}");
        assert!(peers(&mut dht, at(45 * 60)).is_empty());
    }
}
