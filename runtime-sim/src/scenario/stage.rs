//! Plays a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::BAN_TIME;
use megatorrent_core::manifest::FileEntry;
use megatorrent_core::node::{Answer, Command, Event, Refusal};
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;

use super::bound::{Lines, needed, part_len};
use super::plan::{Kind, Plan, secs};
use super::report::{Exchange, Finding, Report, Sample};
use super::{Params, Scenario};
use crate::adversary::{Adversaries, Attack};
use crate::checker::{Checker, caught};
use crate::faults::PartitionId;
use crate::host::HostId;
use crate::traffic::{Traffic, has_open_frames};
use crate::v5;
use crate::world::{News, World};

/// Longest first publication.
const PUBLISH_TIME_MAX: Duration = Duration::from_mins(10);
/// How often the world's checks look at every host.
const CHECK_INTERVAL: Duration = secs(5);
/// How soon an act that cannot happen yet is tried again.
pub(super) const RETRY: Duration = secs(2);
/// Bytes by which the blobs of a weightless content differ.
const MARK_LEN: usize = 32;
/// Most peers for which each completion has its own line in the timeline.
const TOLD_ONE_BY_ONE_MAX: usize = 40;

/// An entry of the agenda.
#[derive(Clone, Copy, Debug)]
pub(super) enum Todo {
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
    /// It is a plain v5 peer.
    pub(super) is_v5: bool,
    /// It has gone for good.
    pub(super) left: bool,
    /// The highest sequence whose content it has reported complete since its last start.
    complete: u64,
    /// The highest sequence that it has reported.
    pub(super) known: u64,
    /// The number of the version; a republished version has another sequence.
    version: usize,
}

/// A run.
pub(super) struct Stage<S: Suite> {
    pub(super) plan: Plan,
    pub(super) world: World<S>,
    pub(super) author: HostId,
    pub(super) channel: PublicKey,
    /// The newest version's files, with their bytes.
    pub(super) files: Vec<(FileEntry, Vec<u8>)>,
    /// How many files the first version has; each later one has one more.
    first_files: usize,
    pub(super) peers: BTreeMap<usize, Peer>,
    /// Hosts on whose disks a blob has rotted, even if it is gone since.
    pub(super) rotted: BTreeSet<HostId>,
    pub(super) report: Report,
    pub(super) start: Instant,
    by_host: BTreeMap<HostId, usize>,
    agenda: BTreeMap<(Instant, u64), Todo>,
    todos: u64,
    /// How many entries of the agenda do not repeat themselves.
    todos_once: usize,
    sample_interval: Duration,
    pub(super) adversaries: Adversaries<S>,
    v5: v5::Peers<S>,
    /// The gateways through which the author publishes; empty: its own DHT.
    gateways: Vec<PeerAddr>,
    pub(super) partitions: BTreeMap<usize, PartitionId>,
    /// Peers that still have to complete.
    incomplete: BTreeSet<usize>,
    /// Peers that have had a connection.
    connected_once: BTreeSet<usize>,
    /// Peers that have completed the first version.
    pub(super) completed_once: BTreeSet<usize>,
    pub(super) newest: u64,
    pub(super) first_head: Option<SignedItem>,
    /// When each version was durable at the author.
    versions: BTreeMap<u64, (usize, Instant)>,
    pub(super) publishing: bool,
    /// The DHT held a forked head.
    pub(super) has_forked: bool,
    pub(super) healed: Option<Instant>,
    before: Traffic,
    rng: Rng,
}

pub(super) fn play<S: Suite>(scenario: Scenario, params: &Params) -> Report {
    let mut stage = Stage::<S>::new(scenario, params);
    if let Err((checker, text)) = caught(|| stage.play()) {
        stage.object(checker, &text);
    }
    stage.close()
}

impl<S: Suite> Stage<S> {
    fn new(scenario: Scenario, params: &Params) -> Self {
        let plan = Plan::draw(scenario, params);
        let mut world = World::with_suite(params.seed, plan.world.clone());
        let author = world.add_host(plan.author.clone());
        let identity = world.identity(author).expect("the plan gives the author one");
        let channel = identity.public_key();
        if let Some(bug) = params.bug {
            world.plant(bug);
        }
        let rng = Rng::new([0; 32]).fork(&format!("stage {}", params.seed));
        let read_key = plan.author.read_key.clone().filter(|_| plan.private);
        Self {
            report: Report::new(scenario, params, &plan),
            adversaries: Adversaries::new(rng.fork("adversaries"), author, identity, read_key),
            v5: v5::Peers::new(rng.fork("v5")),
            gateways: Vec::new(),
            plan,
            world,
            author,
            channel,
            files: Vec::new(),
            first_files: 1,
            peers: BTreeMap::new(),
            rotted: BTreeSet::new(),
            start: Instant(u64::MAX),
            by_host: BTreeMap::new(),
            agenda: BTreeMap::new(),
            todos: 0,
            todos_once: 0,
            sample_interval: Duration::from_millis(500),
            partitions: BTreeMap::new(),
            incomplete: BTreeSet::new(),
            connected_once: BTreeSet::new(),
            completed_once: BTreeSet::new(),
            newest: 0,
            first_head: None,
            versions: BTreeMap::new(),
            publishing: false,
            has_forked: false,
            healed: None,
            before: Traffic::default(),
            rng,
        }
    }

    /// Plays to the end, or until a checker objects, which may be by a panic.
    fn play(&mut self) {
        self.open();
        while self.report.finding.is_none() && !self.is_over() {
            self.step();
        }
        if self.report.finding.is_none() {
            self.world.check();
            self.check_stores();
            self.check_files();
        }
    }

    fn open(&mut self) {
        self.world.take_news();
        self.world.take_stranger_events();
        // The last blob is not full, as with most files.
        let missing = usize::try_from(self.rng.fork("length").below(1000)).unwrap_or(0);
        let files = if self.plan.lists_chunks { self.plan.blobs } else { 1 };
        for _ in 0..files {
            self.add_file(self.plan.blobs / files * S::PLAIN_LEN - missing);
        }
        self.first_files = files;
        self.open_gateways();
        self.publish();
        self.begin();
    }

    /// Adds the author's gateways, honest and false ones, before it publishes.
    fn open_gateways(&mut self) {
        for index in 0..self.plan.gateways {
            self.incomplete.insert(index);
            self.join(index);
            self.gateways.push(self.world.address(self.peers[&index].host).into());
        }
        for _ in 0..self.plan.false_gateways {
            self.gateways.push(self.adversaries.add(&mut self.world, Attack::FalseGateway).into());
            self.report.adversaries += 1;
        }
    }

    /// Waits until the channel is published, then sets the agenda.
    fn begin(&mut self) {
        let end = self.world.now() + PUBLISH_TIME_MAX;
        while self.publishing && self.world.now() < end {
            self.step();
        }
        if self.publishing {
            return self.object(Checker::Publication, "the first version is not on the DHT");
        }
        self.start = self.world.now();
        self.before = self.world.traffic();
        self.first_head = self.world.dht().newest(self.start, &self.channel).cloned();
        self.tell("act", format!("the author has published {} blobs", self.plan.blobs));
        for peer in self.peers.values_mut() {
            peer.joined = self.start;
        }
        for index in self.plan.gateways..self.plan.members.len() {
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

    pub(super) fn agree(&mut self, at: Instant, todo: Todo) {
        self.todos += 1;
        self.todos_once += usize::from(!matches!(todo, Todo::Sample | Todo::Check));
        self.agenda.insert((at, self.todos), todo);
    }

    /// Does the next step of the agenda, the adversaries, the v5 peers, or the world.
    fn step(&mut self) {
        let never = Instant(u64::MAX);
        let agenda = self.agenda.first_key_value().map_or(never, |((at, _), _)| *at);
        let adversaries = self.adversaries.deadline().unwrap_or(never);
        let v5 = self.v5.deadline().unwrap_or(never);
        let world = self.world.next_at().unwrap_or(never);
        if agenda <= adversaries.min(v5).min(world) {
            self.world.skip_to(agenda);
            let Some((_, todo)) = self.agenda.pop_first() else { return };
            self.todos_once -= usize::from(!matches!(todo, Todo::Sample | Todo::Check));
            self.perform(todo);
        } else if adversaries <= v5.min(world) {
            self.world.skip_to(adversaries);
            let up = self.peers.values().map(|peer| peer.host).chain([self.author]);
            let victims: Vec<HostId> = up.filter(|host| self.world.node(*host).is_some()).collect();
            self.adversaries.wake(&mut self.world, &victims);
        } else if v5 <= world {
            self.world.skip_to(v5);
            self.v5.wake(&mut self.world);
        } else {
            self.world.step();
        }
        self.hear();
        for (side, event) in self.world.take_socket_events() {
            if !self.v5.handle(&mut self.world, side, event) {
                self.adversaries.handle(&mut self.world, side, event);
            }
        }
        for (host, sequence) in self.v5.take_completed() {
            self.completed(self.by_host[&host], sequence);
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

    /// Ends the run once all acts have happened and every peer is complete, or the bound has passed.
    fn is_over(&mut self) -> bool {
        let Some(healed) = self.healed else { return false };
        let is_settled = self.todos_once == 0 && !self.publishing;
        if is_settled && self.incomplete.is_empty() {
            return true;
        }
        if self.world.now() <= healed + self.plan.bound {
            return false;
        }
        // A wrong byte explains more than its consequences.
        self.check_stores();
        if self.report.finding.is_none() {
            let text = self.explain_incomplete();
            self.object(Checker::Liveness, &text);
        }
        true
    }

    /// Makes the report, even of a run that ended in the middle.
    fn close(mut self) -> Report {
        self.sample();
        self.tell("end", "the end".into());
        self.report.took = self.world.now().since(self.start);
        self.report.traffic = difference(self.world.traffic(), self.before);
        self.report.flows = self.world.flows().map(|(from, to, bytes)| (from.0, to.0, bytes)).collect();
        self.report.exchanges = self.exchanges();
        self.report.duplicates_permille = self.duplicates_permille();
        self.measure();
        self.report.trace_hash = self.world.trace_hash();
        self.report.trace_len = self.world.trace_len();
        self.report
    }

    /// Compares a swarm that only its links limit with what they allow.
    fn measure(&mut self) {
        if self.plan.is_measured {
            let lines = Lines::of(&self.plan);
            let content = needed::<S>(self.plan.blobs);
            self.report.fluid_bound = Some(lines.fluid(content));
            self.report.honest_bound = Some(lines.honest(content, part_len::<S>()));
        }
    }

    // --- the channel ------------------------------------------------------------------------------------------

    fn read_key(&self) -> Option<Secret> {
        self.plan.author.read_key.clone().filter(|_| self.plan.private)
    }

    pub(super) fn add_file(&mut self, len: usize) {
        let name = format!("file-{}", self.files.len());
        let mut content = vec![0; len];
        let mut rng = Rng::new([0; 32]).fork(&format!("content {} {name}", self.report.params.seed));
        if has_open_frames::<S>() {
            mark::<S>(&mut content, &mut rng);
        } else {
            rng.fill(&mut content);
        }
        let entry = self.world.ingest(self.author, &name, &content);
        self.files.push((entry, content));
    }

    pub(super) fn publish(&mut self) {
        self.publishing = true;
        if self.world.node(self.author).is_none() {
            return self.agree(self.world.now() + RETRY, Todo::Publish);
        }
        let files: Vec<FileEntry> = self.files.iter().map(|(entry, _)| entry.clone()).collect();
        let gateways = self.gateways.clone();
        self.world.publish_via(self.author, "Simulated", &files, self.plan.private, gateways);
    }

    /// The number of the newest version, from 0.
    pub(super) fn version(&self) -> usize {
        self.files.len() - self.first_files
    }

    // --- peers ------------------------------------------------------------------------------------------------

    fn join(&mut self, index: usize) {
        let member = self.plan.members[index].clone();
        let (joined, is_v5) = (self.world.now(), member.is_v5);
        let host = if is_v5 {
            self.v5.add(&mut self.world, member.config, self.channel)
        } else {
            self.world.add_host(member.config)
        };
        self.by_host.insert(host, index);
        self.peers
            .insert(index, Peer { host, joined, is_v5, left: false, complete: 0, known: 0, version: 0 });
        self.instruct(index);
        if index < self.plan.gateways {
            return;
        }
        let at = self.plan.members[index].joins_at;
        let others = self.plan.members.iter().enumerate().skip(self.plan.gateways);
        let crowd: Vec<usize> =
            others.filter(|(_, member)| member.joins_at == at).map(|(index, _)| index).collect();
        match crowd[..] {
            [_] => self.tell("act", format!("peer {index} joins")),
            [first, ..] if first == index => self.tell("act", format!("{} peers join", crowd.len())),
            _ => {}
        }
    }

    /// Starts a peer again, and tells it to follow the channel, as it may not have a record of that.
    pub(super) fn restart(&mut self, index: usize) {
        let Some(peer) = self.peers.get(&index).filter(|peer| !peer.left && !peer.is_v5) else { return };
        let host = peer.host;
        if self.world.node(host).is_none() {
            self.world.start(host);
            self.instruct(index);
        }
    }

    /// Starts the author's node again, and gives it its gateways' addresses.
    pub(super) fn restart_author(&mut self) {
        if self.world.node(self.author).is_none() {
            self.world.start(self.author);
            for gateway in self.gateways.clone() {
                self.world.command(self.author, Command::AddPeer(gateway));
            }
        }
    }

    /// Tells a peer's node to follow the channel, and gives it its known addresses.
    fn instruct(&mut self, index: usize) {
        let host = self.peers[&index].host;
        self.world.follow(host, self.channel, self.read_key());
        for known in &self.plan.members[index].knows {
            let Some(known) = self.peers.get(known).map(|peer| peer.host) else { continue };
            self.world.command(host, Command::AddPeer(self.world.address(known).into()));
        }
    }

    pub(super) fn crash(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.complete = 0;
        self.world.crash(peer.host);
        self.recount(index);
    }

    /// Makes a peer leave for good.
    pub(super) fn leave(&mut self, index: usize) {
        self.crash(index);
        if let Some(peer) = self.peers.get_mut(&index) {
            peer.left = true;
        }
        self.recount(index);
    }

    /// Notes whether a peer still has to complete.
    fn recount(&mut self, index: usize) {
        let is_done = self.peers.get(&index).is_some_and(|peer| peer.left || peer.complete >= self.newest);
        if is_done {
            self.incomplete.remove(&index);
        } else {
            self.incomplete.insert(index);
        }
    }

    // --- events -----------------------------------------------------------------------------------------------

    /// Takes the nodes' events.
    fn hear(&mut self) {
        for (host, news) in self.world.take_news() {
            let event = match news {
                News::Event(event) => event,
                News::Answer(answer) if host == self.author => {
                    self.hear_answer(answer);
                    continue;
                }
                News::Answer(_) => continue,
            };
            if let Event::Banned { peer, violation, .. } = &event {
                self.check_ban(host, peer, *violation);
            }
            if host == self.author {
                self.hear_author(&event);
            } else if let Some(&index) = self.by_host.get(&host) {
                self.hear_peer(index, event);
            }
        }
    }

    fn hear_author(&mut self, event: &Event) {
        if let Event::Head { sequence, .. } = event
            && *sequence > self.newest
        {
            self.newest = *sequence;
            let version = self.version();
            self.versions.insert(*sequence, (version, self.world.now()));
            (0..self.plan.members.len()).for_each(|index| self.recount(index));
        }
    }

    fn hear_answer(&mut self, answer: Result<Answer, Refusal>) {
        match answer {
            Ok(Answer::Published { .. }) => {
                self.publishing = false;
                if self.version() > 0 {
                    self.tell("head", format!("version {} is on the DHT", self.version()));
                }
            }
            Err(Refusal::Publish(error)) => {
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
                if let Some(&(version, since)) = self.versions.get(&sequence)
                    && version > peer.version
                {
                    peer.version = version;
                    let updates = &mut self.report.updates;
                    updates.resize(updates.len().max(version), Vec::new());
                    updates[version - 1].push(now.since(since));
                }
            }
            Event::Complete { sequence, .. } => self.completed(index, sequence),
            Event::Connected { .. } => self.connected(index),
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

    fn connected(&mut self, index: usize) {
        if self.connected_once.insert(index)
            && self.connected_once.len() == self.plan.members.len().div_ceil(2)
        {
            self.report.discovery = Some(self.world.now().since(self.start));
        }
    }

    fn completed(&mut self, index: usize, sequence: u64) {
        let now = self.world.now();
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.complete = peer.complete.max(sequence);
        let (host, took) = (peer.host, now.since(peer.joined));
        self.recount(index);
        if self.completed_once.insert(index) {
            self.report.completions.push((host.0, took));
            self.tell_completion(index, took);
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

    // --- hosts ------------------------------------------------------------------------------------------------

    /// The author and all peers.
    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> {
        [self.author].into_iter().chain(self.peers.values().map(|peer| peer.host))
    }

    /// Whether a peer has all of the newest version.
    pub(super) fn is_complete(&self, peer: &Peer) -> bool {
        let of_node = || self.world.is_complete(peer.host, &self.channel);
        if peer.is_v5 { peer.complete >= self.newest } else { of_node() }
    }

    /// Returns the content between kinds of hosts, where peers are of several kinds.
    fn exchanges(&self) -> Vec<Exchange> {
        let kinds: BTreeSet<Kind> = self.plan.members.iter().map(super::Member::kind).collect();
        if kinds.len() < 2 {
            return Vec::new();
        }
        let kind = |host: HostId| {
            self.by_host.get(&host).map_or(Kind::Author, |index| self.plan.members[*index].kind())
        };
        let mut sent: BTreeMap<(Kind, Kind), u64> = BTreeMap::new();
        for (from, to, bytes) in self.world.flows() {
            *sent.entry((kind(from), kind(to))).or_default() += bytes;
        }
        sent.into_iter().map(|((from, to), bytes)| Exchange { from, to, bytes }).collect()
    }

    // --- reporting --------------------------------------------------------------------------------------------

    pub(super) fn tell(&mut self, kind: &'static str, text: String) {
        let at = self.world.now().since(self.start);
        self.report.tell(at, kind, text);
    }

    /// Ends the run with a checker's objection.
    pub(super) fn object(&mut self, checker: Checker, text: &str) {
        let at = self.world.now().since(self.start).as_secs_f64();
        self.report.finding.get_or_insert(Finding { checker, text: format!("{text} (at {at:.1} s)") });
    }

    fn sample(&mut self) {
        let blobs = self.peers.values().map(|peer| self.world.store(peer.host).blob_count() as u64).sum();
        let sample = Sample {
            at: self.world.now().since(self.start),
            up: self.peers.values().filter(|peer| peer.is_v5 || self.world.node(peer.host).is_some()).count(),
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
            if peer.is_v5 {
                return format!(
                    "peer {index} speaks v5 and has {} blobs",
                    self.world.store(peer.host).blob_count()
                );
            }
            let status = self.world.node(peer.host).and_then(|node| node.channel_status(&self.channel));
            let status = status.map_or("is down or follows nothing".into(), |status| {
                let waiting = status.waiting.unwrap_or_default();
                format!("has {} of {} blobs ({waiting})", status.blobs_stored, status.blobs_total)
            });
            format!("peer {index} {status}")
        };
        let words: Vec<_> = self.incomplete.iter().take(5).map(word).collect();
        let (count, bound) = (self.incomplete.len(), self.plan.bound.as_secs());
        if count == 0 {
            let what = if self.publishing { "the author is still publishing" } else { "an act still waits" };
            return format!("all are complete {bound} s after the healing, but {what}");
        }
        let publishing = if self.publishing { "; the author is still publishing" } else { "" };
        format!(
            "{count} peers are not complete {bound} s after the healing: {}{publishing}",
            words.join("; ")
        )
    }
}

/// Makes each blob of a content of zeros another one.
fn mark<S: Suite>(content: &mut [u8], rng: &mut Rng) {
    for blob in content.chunks_mut(S::PLAIN_LEN) {
        let len = blob.len().min(MARK_LEN);
        rng.fill(&mut blob[..len]);
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
