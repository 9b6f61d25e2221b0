//! A run's report.

use std::time::Duration;

use super::bound::DISCOVERY_MAX;
use super::{Crypto, Kind, Params, Plan, Scenario};
use crate::checker::Checker;
use crate::traffic::Traffic;

/// Entries of a timeline; later ones are only counted.
const ENTRIES_MAX: usize = 4_000;
/// Most samples; when there are that many, every other one is dropped and the interval doubles.
const SAMPLES_MAX: usize = 720;

/// A checker's objection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The checker.
    pub checker: Checker,
    /// What it found, where and when.
    pub text: String,
}

/// An entry of the timeline, for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Since the channel was published.
    pub at: Duration,
    /// `act`, `heal`, `peer`, `head`, `ban` or `end`.
    pub kind: &'static str,
    /// The event in words.
    pub text: String,
}

/// The state of the swarm at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since the channel was published.
    pub at: Duration,
    /// Peers that have joined and are up.
    pub up: usize,
    /// Peers that have everything.
    pub complete: usize,
    /// Blobs that peers have stored, over all of them.
    pub blobs_stored: u64,
    /// The traffic since the channel was published.
    pub traffic: Traffic,
}

/// Bytes of content that one kind of hosts sent to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The senders.
    pub from: Kind,
    /// The receivers.
    pub to: Kind,
    /// The bytes.
    pub bytes: u64,
}

/// The same swarm without its adversaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peaceful {
    /// See [`Report::median`].
    pub median: Option<Duration>,
    /// See [`Report::last`].
    pub last: Option<Duration>,
    /// The swarm over time.
    pub samples: Vec<Sample>,
}

/// A run's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The scenario.
    pub scenario: Scenario,
    /// Its parameters.
    pub params: Params,
    /// The nodes' suite.
    pub crypto: Crypto,
    /// Peers besides the author, without adversaries.
    pub peers: usize,
    /// Hosts that are adversaries.
    pub adversaries: usize,
    /// Blobs of content.
    pub blobs: usize,
    /// Acts of the plan, whether or not they were asked for.
    pub acts: usize,
    /// The timeline.
    pub timeline: Vec<Entry>,
    /// Entries beyond its bound.
    pub entries_left_out: usize,
    /// The swarm over time.
    pub samples: Vec<Sample>,
    /// For each peer that completed the first version: its host's number, and how long after it joined.
    pub completions: Vec<(u32, Duration)>,
    /// For each later version: how long after it was durable at the author each peer knew its head, in ascending order.
    pub updates: Vec<Vec<Duration>>,
    /// The traffic after the channel was published.
    pub traffic: Traffic,
    /// Bytes of content by sender and receiver; number 0 is the author.
    pub flows: Vec<(u32, u32, u64)>,
    /// Bytes of content by the kinds of sender and receiver, where peers are of several kinds.
    pub exchanges: Vec<Exchange>,
    /// The run of the same swarm without its adversaries, if there was one.
    pub peaceful: Option<Peaceful>,
    /// Content on the wire that no store took, in thousandths of all content on the wire.
    pub duplicates_permille: u64,
    /// The least time in which the links could carry everything to all peers, where nothing else limits them.
    pub fluid_bound: Option<Duration>,
    /// That, and the time in which a part crosses the swarm, and three round trips.
    pub honest_bound: Option<Duration>,
    /// How long after the publication half of the peers had a connection; `None`: never.
    pub discovery: Option<Duration>,
    /// Virtual time from the publication to the end.
    pub took: Duration,
    /// The trace hash, equal for two runs of one seed.
    pub trace_hash: [u8; 32],
    /// Entries that the trace covers.
    pub trace_len: u64,
    /// A checker's objection; `None`: none objected.
    pub finding: Option<Finding>,
}

impl Report {
    pub(super) fn new(scenario: Scenario, params: &Params, plan: &Plan) -> Self {
        Self {
            scenario,
            params: params.clone(),
            crypto: params.crypto(scenario),
            peers: plan.members.len(),
            adversaries: 0,
            blobs: plan.blobs,
            acts: plan.acts.len(),
            timeline: Vec::new(),
            entries_left_out: 0,
            samples: Vec::new(),
            completions: Vec::new(),
            updates: Vec::new(),
            traffic: Traffic::default(),
            flows: Vec::new(),
            exchanges: Vec::new(),
            peaceful: None,
            duplicates_permille: 0,
            fluid_bound: None,
            honest_bound: None,
            discovery: None,
            took: Duration::ZERO,
            trace_hash: [0; 32],
            trace_len: 0,
            finding: None,
        }
    }

    /// The median time from a peer's joining to its completion; `None`: less than half completed.
    pub fn median(&self) -> Option<Duration> {
        let mut times: Vec<_> = self.completions.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        times.get(self.peers.div_ceil(2).saturating_sub(1)).copied()
    }

    /// The longest time from a peer's joining to its completion, of those that completed.
    pub fn last(&self) -> Option<Duration> {
        self.completions.iter().map(|(_, time)| *time).max()
    }

    /// The slowest peer's time in thousandths of the honest bound, both counted from discovery, at most [`DISCOVERY_MAX`]
    /// after the peers came.
    pub fn ratio_permille(&self) -> Option<u64> {
        Some(permille(self.last()?.saturating_sub(self.counted_from()), self.honest_bound?))
    }

    /// When a swarm that keeps to the honest bound has ended, from the publication on.
    pub fn honest_end(&self) -> Option<Duration> {
        Some(self.counted_from() + self.honest_bound?)
    }

    fn counted_from(&self) -> Duration {
        self.discovery.unwrap_or(DISCOVERY_MAX).min(DISCOVERY_MAX)
    }

    /// The slowest peer's time, discovery included, in thousandths of the fluid bound.
    pub fn fluid_ratio_permille(&self) -> Option<u64> {
        Some(permille(self.last()?, self.fluid_bound?))
    }

    /// Bytes of content that hosts of some kinds sent to hosts of others.
    pub fn sent(&self, from: impl Fn(Kind) -> bool, to: impl Fn(Kind) -> bool) -> u64 {
        let counted = self.exchanges.iter().filter(|exchange| from(exchange.from) && to(exchange.to));
        counted.map(|exchange| exchange.bytes).sum()
    }

    /// The slowest peer's time in thousandths of that without adversaries.
    pub fn slowdown_permille(&self) -> Option<u64> {
        Some(permille(self.last()?, self.peaceful.as_ref()?.last?))
    }

    /// Adds the run of the same swarm without adversaries.
    pub(super) fn compare(&mut self, peaceful: Self) {
        let (median, last) = (peaceful.median(), peaceful.last());
        self.peaceful = Some(Peaceful { median, last, samples: peaceful.samples });
    }

    /// The `megatorrent simulate` command that repeats this run.
    pub fn command(&self) -> String {
        let mut command = format!(
            "megatorrent simulate --scenario {} --peers {} --blobs {} --seed {}",
            self.scenario, self.peers, self.blobs, self.params.seed
        );
        if self.crypto == Crypto::Null {
            command.push_str(" --null");
        }
        if let Some(bound) = self.params.bound {
            command.push_str(" --bound ");
            command.push_str(&bound.as_secs().to_string());
        }
        if let Some(only) = &self.params.only {
            let list: Vec<_> = only.iter().map(usize::to_string).collect();
            let list = if list.is_empty() { "none".into() } else { list.join(",") };
            command.push_str(" --only ");
            command.push_str(&list);
        }
        command
    }

    /// The trace hash as 64 hex digits.
    pub fn trace_hex(&self) -> String {
        base16ct::lower::encode_string(&self.trace_hash)
    }

    pub(super) fn tell(&mut self, at: Duration, kind: &'static str, text: String) {
        if self.timeline.len() < ENTRIES_MAX {
            self.timeline.push(Entry { at, kind, text });
        } else {
            self.entries_left_out += 1;
        }
    }

    /// Keeps a sample. `true`: the interval has doubled.
    pub(super) fn sample(&mut self, sample: Sample) -> bool {
        self.samples.push(sample);
        if self.samples.len() < SAMPLES_MAX {
            return false;
        }
        let mut index = 0;
        self.samples.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        true
    }
}

/// A time in thousandths of another.
fn permille(time: Duration, of: Duration) -> u64 {
    u64::try_from(time.as_micros() * 1000 / of.as_micros().max(1)).unwrap_or(u64::MAX)
}
