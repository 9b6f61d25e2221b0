//! Plays a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobId, Secret};
use megatorrent_core::limits::BAN_TIME;
use megatorrent_core::manifest::FileEntry;
use megatorrent_core::node::Event;
use megatorrent_core::rng::Rng;
use megatorrent_core::time::Instant;
use megatorrent_core::uri;

use super::plan::{Act, Plan, What, secs};
use super::report::{Finding, Report, Sample};
use super::{Params, Scenario};
use crate::adversary::Adversaries;
use crate::faults::PartitionId;
use crate::host::HostId;
use crate::traffic::Traffic;
use crate::world::World;

/// How long the first publication may take.
const PUBLISH_TIME_MAX: Duration = Duration::from_mins(10);
/// How often the world's checks look at every host.
const CHECK_INTERVAL: Duration = secs(5);
/// How soon something that cannot happen yet is tried again.
const RETRY: Duration = secs(2);
/// Peers up to which each one's completion has a line of its own in the timeline.
const TOLD_ONE_BY_ONE_MAX: usize = 40;
/// Bytes of the file that each later version adds.
const UPDATE_LEN: usize = 5_000;

/// What is to be done at a time.
#[derive(Clone, Copy, Debug)]
enum Todo {
    Join(usize),
    Begin(usize),
    End(usize),
    Publish,
    Heal,
    Sample,
    Check,
}

/// A peer on the stage.
pub(super) struct Peer {
    pub(super) host: HostId,
    joined: Instant,
    /// It has gone for good.
    pub(super) left: bool,
    /// The highest sequence whose content it has reported complete since its last start.
    complete: u64,
    /// The highest sequence that it has reported.
    known: u64,
}

/// A run.
pub(super) struct Stage {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) author: HostId,
    pub(super) channel: PublicKey,
    /// The newest version's files, with their bytes.
    pub(super) files: Vec<(FileEntry, Vec<u8>)>,
    pub(super) peers: BTreeMap<usize, Peer>,
    /// Blobs that a fault has damaged on purpose: whose, and which.
    pub(super) rotten: BTreeSet<(HostId, BlobId)>,
    pub(super) report: Report,
    pub(super) start: Instant,
    by_host: BTreeMap<HostId, usize>,
    agenda: BTreeMap<(Instant, u64), Todo>,
    todos: u64,
    /// What is to be done and does not come again by itself.
    todos_once: usize,
    sample_interval: Duration,
    adversaries: Adversaries,
    partitions: BTreeMap<usize, PartitionId>,
    /// Peers that have to complete and have not.
    incomplete: BTreeSet<usize>,
    /// Peers that have completed the first version.
    completed_once: BTreeSet<usize>,
    newest: u64,
    first_head: Option<SignedItem>,
    /// When each version was durable at the author.
    versions: BTreeMap<u64, (usize, Instant)>,
    publishing: bool,
    healed: Option<Instant>,
    before: Traffic,
    /// Blobs that were stored and are lost.
    pub(super) lost: u64,
}

pub(super) fn play(scenario: Scenario, params: &Params) -> Report {
    let mut stage = Stage::open(scenario, params);
    while stage.report.finding.is_none() && !stage.is_over() {
        stage.step();
    }
    stage.close()
}

impl Stage {
    fn open(scenario: Scenario, params: &Params) -> Self {
        let plan = Plan::draw(scenario, params);
        let mut world = World::new(params.seed, plan.world.clone());
        let author = world.add_host(plan.author.clone());
        let channel = world.channel(author).expect("the plan gives the author an identity");
        if let Some(bug) = params.bug {
            world.plant(bug);
        }
        let rng = Rng::new([0; 32]).fork(&format!("stage {}", params.seed));
        let read_key = plan.author.read_key.as_ref().filter(|_| plan.private);
        let topic = uri::topic(&channel, read_key).info_hash();
        let mut stage = Self {
            report: Report::new(scenario, params, &plan),
            adversaries: Adversaries::new(rng.fork("adversaries"), topic, author),
            plan,
            world,
            author,
            channel,
            files: Vec::new(),
            peers: BTreeMap::new(),
            rotten: BTreeSet::new(),
            start: Instant(u64::MAX),
            by_host: BTreeMap::new(),
            agenda: BTreeMap::new(),
            todos: 0,
            todos_once: 0,
            sample_interval: Duration::from_millis(500),
            partitions: BTreeMap::new(),
            incomplete: BTreeSet::new(),
            completed_once: BTreeSet::new(),
            newest: 0,
            first_head: None,
            versions: BTreeMap::new(),
            publishing: false,
            healed: None,
            before: Traffic::default(),
            lost: 0,
        };
        // The last blob is not full, as with most files.
        let len = stage.plan.blobs * PLAIN_LEN - usize::try_from(rng.fork("length").below(1000)).unwrap_or(0);
        stage.add_file(len);
        stage.world.take_news();
        stage.world.take_stranger_events();
        stage.publish();
        stage.begin();
        stage
    }

    /// Waits until the channel is published, then sets the agenda.
    fn begin(&mut self) {
        let end = self.world.now() + PUBLISH_TIME_MAX;
        while self.publishing && self.world.now() < end {
            self.step();
        }
        if self.publishing {
            return self.object("publication", "the first version is not on the DHT");
        }
        self.start = self.world.now();
        self.before = self.world.traffic();
        self.first_head = self.world.dht().newest(self.start, &self.channel).cloned();
        self.tell("act", format!("the author has published {} blobs", self.plan.blobs));
        for index in 0..self.plan.members.len() {
            self.incomplete.insert(index);
            self.agree(self.start + self.plan.members[index].joins_at, Todo::Join(index));
        }
        let is_asked =
            |index: &usize| self.report.params.only.as_ref().is_none_or(|only| only.contains(index));
        for index in (0..self.plan.acts.len()).filter(is_asked).collect::<Vec<_>>() {
            self.agree(self.start + self.plan.acts[index].at, Todo::Begin(index));
        }
        self.agree(self.start + self.plan.heal_at, Todo::Heal);
        self.agree(self.start, Todo::Sample);
        self.agree(self.start, Todo::Check);
    }

    fn agree(&mut self, at: Instant, todo: Todo) {
        self.todos += 1;
        self.todos_once += usize::from(!matches!(todo, Todo::Sample | Todo::Check));
        self.agenda.insert((at, self.todos), todo);
    }

    /// Does the next thing: of the agenda, the adversaries, or the world.
    fn step(&mut self) {
        let never = Instant(u64::MAX);
        let agenda = self.agenda.first_key_value().map_or(never, |((at, _), _)| *at);
        let adversaries = self.adversaries.deadline().unwrap_or(never);
        let world = self.world.next_at().unwrap_or(never);
        if agenda <= adversaries.min(world) {
            self.world.skip_to(agenda);
            let Some((_, todo)) = self.agenda.pop_first() else { return };
            self.todos_once -= usize::from(!matches!(todo, Todo::Sample | Todo::Check));
            self.perform(todo);
        } else if adversaries <= world {
            self.world.skip_to(adversaries);
            let up = self.peers.values().map(|peer| peer.host).chain([self.author]);
            let victims: Vec<HostId> = up.filter(|host| self.world.node(*host).is_some()).collect();
            self.adversaries.wake(&mut self.world, &victims);
        } else {
            self.world.step();
        }
        self.hear();
        for event in self.world.take_stranger_events() {
            self.adversaries.handle(&mut self.world, event);
        }
    }

    fn perform(&mut self, todo: Todo) {
        match todo {
            Todo::Join(index) => self.join(index),
            Todo::Begin(index) => self.begin_act(index),
            Todo::End(index) => self.end_act(index),
            Todo::Publish => self.publish(),
            Todo::Heal => self.heal(),
            Todo::Sample => {
                self.sample();
                self.agree(self.world.now() + self.sample_interval, Todo::Sample);
            }
            Todo::Check => {
                self.world.check();
                self.agree(self.world.now() + CHECK_INTERVAL, Todo::Check);
            }
        }
    }

    /// The run is over once all has happened and everybody is complete, or the bound is passed.
    fn is_over(&mut self) -> bool {
        let Some(healed) = self.healed else { return false };
        let is_settled = self.todos_once == 0 && !self.publishing;
        if is_settled && self.incomplete.is_empty() {
            return true;
        }
        if self.world.now() <= healed + self.plan.bound {
            return false;
        }
        // A wrong byte explains more than what it leads to.
        self.check_stores();
        if self.report.finding.is_none() {
            let text = self.explain_incomplete();
            self.object("liveness", &text);
        }
        true
    }

    fn close(mut self) -> Report {
        self.sample();
        if self.report.finding.is_none() {
            self.world.check();
            self.check_stores();
            self.check_files();
        }
        self.tell("end", "the end".into());
        self.report.took = self.world.now().since(self.start);
        self.report.traffic = difference(self.world.traffic(), self.before);
        self.report.flows = self.world.flows().map(|(from, to, bytes)| (from.0, to.0, bytes)).collect();
        self.report.duplicates_permille = self.duplicates_permille();
        self.report.lower_bound = self.lower_bound();
        self.report.trace_hash = self.world.trace_hash();
        self.report.trace_len = self.world.trace_len();
        self.report
    }

    // --- the channel ------------------------------------------------------------------------------------------

    fn read_key(&self) -> Option<Secret> {
        self.plan.author.read_key.clone().filter(|_| self.plan.private)
    }

    fn add_file(&mut self, len: usize) {
        let name = format!("file-{}", self.files.len());
        let mut content = vec![0; len];
        Rng::new([0; 32]).fork(&format!("content {} {name}", self.report.params.seed)).fill(&mut content);
        let entry = self.world.ingest(self.author, &name, &content);
        self.files.push((entry, content));
    }

    fn publish(&mut self) {
        self.publishing = true;
        if self.world.node(self.author).is_none() {
            return self.agree(self.world.now() + RETRY, Todo::Publish);
        }
        let files: Vec<FileEntry> = self.files.iter().map(|(entry, _)| entry.clone()).collect();
        self.world.publish(self.author, "Simulated", &files, self.plan.private);
    }

    // --- peers ------------------------------------------------------------------------------------------------

    fn join(&mut self, index: usize) {
        let host = self.world.add_host(self.plan.members[index].config.clone());
        let joined = self.world.now();
        self.by_host.insert(host, index);
        self.peers.insert(index, Peer { host, joined, left: false, complete: 0, known: 0 });
        self.world.follow(host, self.channel, self.read_key());
        let at = self.plan.members[index].joins_at;
        let crowd = self.plan.members.iter().filter(|member| member.joins_at == at).count();
        let is_first = self.plan.members.iter().position(|member| member.joins_at == at) == Some(index);
        if crowd == 1 {
            self.tell("act", format!("peer {index} joins"));
        } else if is_first {
            self.tell("act", format!("{crowd} peers join"));
        }
    }

    /// Starts a peer again, and tells it what to follow, which it may not have noted.
    pub(super) fn restart(&mut self, index: usize) {
        let Some(peer) = self.peers.get(&index).filter(|peer| !peer.left) else { return };
        let host = peer.host;
        if self.world.node(host).is_none() {
            self.world.start(host);
            self.world.follow(host, self.channel, self.read_key());
        }
    }

    pub(super) fn crash(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.complete = 0;
        self.world.crash(peer.host);
        self.recount(index);
    }

    /// A peer leaves for good.
    pub(super) fn leave(&mut self, index: usize) {
        self.crash(index);
        if let Some(peer) = self.peers.get_mut(&index) {
            peer.left = true;
        }
        self.recount(index);
    }

    /// Notes whether a peer has still to complete.
    fn recount(&mut self, index: usize) {
        let is_done = self.peers.get(&index).is_some_and(|peer| peer.left || peer.complete >= self.newest);
        if is_done {
            self.incomplete.remove(&index);
        } else {
            self.incomplete.insert(index);
        }
    }

    // --- news -------------------------------------------------------------------------------------------------

    /// Takes in what nodes have reported.
    fn hear(&mut self) {
        for (host, event) in self.world.take_news() {
            if host == self.author {
                self.hear_author(event);
            } else if let Some(&index) = self.by_host.get(&host) {
                self.hear_peer(index, event);
            }
        }
    }

    fn hear_author(&mut self, event: Event) {
        match event {
            Event::Head { sequence, .. } if sequence > self.newest => {
                self.newest = sequence;
                let version = self.files.len() - 1;
                self.versions.insert(sequence, (version, self.world.now()));
                (0..self.plan.members.len()).for_each(|index| self.recount(index));
            }
            Event::Published { .. } => {
                self.publishing = false;
                if self.files.len() > 1 {
                    self.tell("head", format!("version {} is on the DHT", self.files.len() - 1));
                }
            }
            Event::PublishFailed { error, .. } => {
                self.tell("head", format!("the author tries again to publish: {error}"));
                self.agree(self.world.now() + RETRY, Todo::Publish);
            }
            _ => {}
        }
    }

    fn hear_peer(&mut self, index: usize, event: Event) {
        let now = self.world.now();
        let Some(peer) = self.peers.get_mut(&index) else { return };
        match event {
            Event::Head { sequence, .. } if sequence > peer.known => {
                peer.known = sequence;
                if let Some(&(version @ 1.., since)) = self.versions.get(&sequence) {
                    let updates = &mut self.report.updates;
                    updates.resize(updates.len().max(version), Vec::new());
                    updates[version - 1].push(now.since(since));
                }
            }
            Event::ChannelComplete { sequence, .. } => {
                peer.complete = peer.complete.max(sequence);
                let (host, took) = (peer.host, now.since(peer.joined));
                self.recount(index);
                if self.completed_once.insert(index) {
                    self.report.completions.push((host.0, took));
                    self.tell_completion(index, took);
                }
            }
            Event::Banned { peer, violation, .. } => {
                let minutes = BAN_TIME.as_secs() / 60;
                self.tell("ban", format!("peer {index} bans {peer} for {minutes} minutes: it {violation}"));
            }
            Event::Fork { .. } => {
                self.tell("head", format!("peer {index} has proof of two heads with one sequence"));
            }
            _ => {}
        }
    }

    fn tell_completion(&mut self, index: usize, took: Duration) {
        let (done, all) = (self.completed_once.len(), self.plan.members.len());
        if all <= TOLD_ONE_BY_ONE_MAX {
            let text = format!("peer {index} is complete, {:.1} s after it joined", took.as_secs_f64());
            self.tell("peer", text);
        } else if done * 10 / all > (done - 1) * 10 / all {
            self.tell("peer", format!("{done} of {all} peers are complete"));
        }
    }

    // --- acts -------------------------------------------------------------------------------------------------

    /// The index of the peer that a number in the plan means, if it is there.
    fn index(&self, peer: u64) -> Option<usize> {
        let index = usize::try_from(peer % self.plan.members.len() as u64).expect("below a length");
        self.peers.get(&index).filter(|peer| !peer.left).map(|_| index)
    }

    fn begin_act(&mut self, number: usize) {
        let Act { what, .. } = self.plan.acts[number].clone();
        if self.must_wait(&what) {
            return self.agree(self.world.now() + RETRY, Todo::Begin(number));
        }
        let lasts = match &what {
            What::Crash { lasts, .. }
            | What::Partition { lasts, .. }
            | What::Stall { lasts, .. }
            | What::StoreFull { lasts, .. }
            | What::StoreFails { lasts, .. }
            | What::DhtAway { lasts }
            | What::AuthorLeaves { lasts: Some(lasts) } => Some(*lasts),
            _ => None,
        };
        // What comes after the healing heals by itself, but for the faults that healing would end.
        if self.healed.is_some() && lasts.is_some() {
            return;
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
                self.publishing || self.peers.values().any(|peer| !peer.left && peer.known < self.newest)
            }
            _ => false,
        }
    }

    /// Does an act; what is then told of it. `None`: it is aimed at nobody.
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
            What::Update => {
                self.add_file(UPDATE_LEN);
                self.publish();
                format!("the author publishes version {}", self.files.len() - 1)
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

    /// Does an act that is aimed at one peer.
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

    fn end_act(&mut self, number: usize) {
        if let Some(partition) = self.partitions.remove(&number) {
            self.world.heal(partition);
        }
        match self.plan.acts[number].what.clone() {
            What::Crash { peer, .. } => {
                if let Some(index) = self.index(peer) {
                    self.restart(index);
                }
            }
            What::AuthorLeaves { .. } => self.world.start(self.author),
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
            What::DhtAway { .. } => self.world.dht_mut().set_up(true),
            _ => {}
        }
    }

    /// Ends all that can end. What has left for good stays away, and adversaries stay.
    fn heal(&mut self) {
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
        if !self.plan.acts.iter().all(stays) {
            self.tell("heal", "all that can heal is healed".into());
        }
    }

    fn end_unless_author_gone(&mut self, number: usize) {
        if !matches!(self.plan.acts[number].what, What::AuthorLeaves { lasts: None }) {
            self.end_act(number);
        }
    }

    /// The author and all peers.
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> {
        [self.author].into_iter().chain(self.peers.values().map(|peer| peer.host))
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

    // --- telling ----------------------------------------------------------------------------------------------

    pub(super) fn tell(&mut self, kind: &'static str, text: String) {
        let at = self.world.now().since(self.start);
        self.report.tell(at, kind, text);
    }

    /// A checker objects: the run ends.
    pub(super) fn object(&mut self, checker: &'static str, text: &str) {
        let at = self.world.now().since(self.start).as_secs_f64();
        self.report.finding.get_or_insert(Finding { checker, text: format!("{text} (at {at:.1} s)") });
    }

    fn sample(&mut self) {
        let blobs = self.peers.values().map(|peer| self.world.store(peer.host).blob_count() as u64).sum();
        let sample = Sample {
            at: self.world.now().since(self.start),
            up: self.peers.values().filter(|peer| self.world.node(peer.host).is_some()).count(),
            complete: self.peers.values().filter(|peer| !peer.left && peer.complete >= self.newest).count(),
            blobs_stored: blobs,
            traffic: difference(self.world.traffic(), self.before),
        };
        if self.report.sample(sample) {
            self.sample_interval *= 2;
        }
    }

    fn explain_incomplete(&self) -> String {
        let word = |index: &usize| {
            let Some(peer) = self.peers.get(index) else { return format!("peer {index} has not joined") };
            let status = self.world.node(peer.host).and_then(|node| node.channel_status(&self.channel));
            let status = status.map_or("is down or follows nothing".into(), |status| {
                let waiting = status.waiting.unwrap_or_default();
                format!("has {} of {} blobs ({waiting})", status.blobs_stored, status.blobs_total)
            });
            format!("peer {index} {status}")
        };
        let words: Vec<_> = self.incomplete.iter().take(5).map(word).collect();
        let (count, bound) = (self.incomplete.len(), self.plan.bound.as_secs());
        let publishing = if self.publishing { "; the author is still publishing" } else { "" };
        format!(
            "{count} peers are not complete {bound} s after the healing: {}{publishing}",
            words.join("; ")
        )
    }
}

fn difference(now: Traffic, before: Traffic) -> Traffic {
    Traffic {
        handshake: now.handshake - before.handshake,
        control: now.control - before.control,
        data: now.data - before.data,
        dht_ops: now.dht_ops - before.dht_ops,
        dials: now.dials - before.dials,
    }
}
