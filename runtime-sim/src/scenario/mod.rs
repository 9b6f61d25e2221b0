//! Scenarios: whole swarms with a story, drawn from one number, run, checked and reported.
//!
//! A [`Plan`] says everything that will happen; it is drawn from a [`Scenario`] and its [`Params`] alone. [`run`] plays
//! it in two phases. In the *safety* phase faults happen, and no checker may object. Then everything is healed, except that
//! peers that left for good stay away and adversaries stay; in the *liveness* phase every honest node must complete within a
//! bound.

mod acts;
mod bound;
mod checks;
mod options;
mod plan;
mod report;
mod stage;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use bound::DISCOVERY_MAX;
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::suite::RealSuite;
pub use plan::{Act, Fate, Kind, Member, Plan, What};
pub use report::{Entry, Exchange, Finding, Peaceful, Report, Sample};

use crate::faults::Bug;
use crate::null::NullSuite;

/// A named scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// All peers come at once, and nothing goes wrong: measured against the lower bound of its links.
    FlashCrowd,
    /// The author leaves for good as soon as one other peer has everything.
    AuthorLeaves,
    /// The swarm falls into two halves, later one way only, and heals.
    Partition,
    /// Peers come, crash, lose their disks and come back.
    Churn,
    /// A fifth of all hosts are adversaries of every kind; the same swarm is played without them too.
    Hostile,
    /// One peer downloads from the author, whose node limits what it sends, among [`LIARS_OF_A_KIND`] adversaries of each kind; the
    /// same is played without them too.
    Liars,
    /// Two thirds of the peers can dial, but not be dialled.
    Nat,
    /// Connected subscribers get new versions.
    UpdatePush,
    /// The author and some peers have an onion name only: no DHT, no IP address. The author publishes through gateways.
    OnionOnly,
    /// The author and half of the peers have no DHT; of their gateways, one leaves and one lies.
    Gateway,
    /// A third of the peers speak plain v5: one answer for each connection. The author leaves.
    Mixed,
    /// Everything is drawn: sizes, rates, which faults happen at all.
    Random,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Self; 12] = [
        Self::FlashCrowd,
        Self::AuthorLeaves,
        Self::Partition,
        Self::Churn,
        Self::Hostile,
        Self::Liars,
        Self::Nat,
        Self::UpdatePush,
        Self::OnionOnly,
        Self::Gateway,
        Self::Mixed,
        Self::Random,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlashCrowd => "flash-crowd",
            Self::AuthorLeaves => "author-leaves",
            Self::Partition => "partition",
            Self::Churn => "churn",
            Self::Hostile => "hostile",
            Self::Liars => "liars",
            Self::Nat => "nat",
            Self::UpdatePush => "update-push",
            Self::OnionOnly => "onion-only",
            Self::Gateway => "gateway",
            Self::Mixed => "mixed",
            Self::Random => "random",
        }
    }

    /// Most blobs that it allows.
    fn blobs_max(self) -> usize {
        if self == Self::Mixed { V5_BLOBS_MAX } else { BLOBS_MAX }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        known.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|scenario| scenario.name()).collect();
            format!("there is no scenario {text:?}; there are {}", names.join(", "))
        })
    }
}

/// The parameters of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// The seed that draws everything.
    pub seed: u64,
    /// Peers beside the author; `None`: the scenario's own number.
    pub peers: Option<usize>,
    /// Blobs of content; `None`: the scenario's own number.
    pub blobs: Option<usize>,
    /// The plan's acts that happen, by index; `None`: all.
    pub only: Option<Vec<usize>>,
    /// Whether to use null crypto even for few peers. [`Scenario::Mixed`] cannot: v5 is its ciphers.
    pub null: bool,
    /// Whether zeros take memory, which changes nothing but a run's cost: see [`crate::WorldConfig::has_weight`].
    pub weight: bool,
    /// The virtual time from the healing in which every peer must complete; `None`: the scenario's own bound.
    pub bound: Option<Duration>,
    /// A bug planted in the simulator, to see that a checker finds it.
    pub bug: Option<Bug>,
}

impl Params {
    /// Returns the crypto with which a scenario is played.
    pub fn crypto(&self, scenario: Scenario) -> Crypto {
        let is_large = self.peers.is_some_and(|peers| peers > REAL_PEERS_MAX);
        let is_null = scenario != Scenario::Mixed && (self.null || is_large);
        if is_null { Crypto::Null } else { Crypto::Real }
    }

    /// Refuses parameters that the scenario has not, and that a run would ignore.
    ///
    /// # Errors
    /// A text for a user that says what there is instead.
    pub fn check(&self, scenario: Scenario) -> Result<(), String> {
        if self.null && scenario == Scenario::Mixed {
            return Err("mixed has v5 peers, and v5 is its own ciphers: there is no --null of it".into());
        }
        let most = scenario.blobs_max();
        if let Some(blobs) = self.blobs.filter(|blobs| *blobs > most) {
            return Err(format!("{scenario} has at most {most} blobs, not {blobs}"));
        }
        let acts = Plan::draw(scenario, self).acts.len();
        let Some(none) = self.only.iter().flatten().find(|act| **act >= acts) else { return Ok(()) };
        let there_are = match acts {
            0 => "no events".into(),
            1 => "event 0 alone".into(),
            _ => format!("events 0 to {}", acts - 1),
        };
        Err(format!(
            "there is no event {none} to be left: {scenario} has {there_are} with this seed and these sizes"
        ))
    }
}

/// The nodes' suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// The protocol's own.
    Real,
    /// Checksums in place of ciphers, and content of which most bytes are zeros, so that a swarm may be large. Every length
    /// is the real one.
    Null,
}

impl Crypto {
    /// A description for the first line of a report.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Real => "real crypto, blobs of 1 MiB",
            Self::Null => "null crypto, blobs of 1 MiB without weight",
        }
    }
}

/// Most peers for which a scenario is played with real crypto: more would take too much time and memory.
/// [`Scenario::Mixed`] has no other crypto.
pub const REAL_PEERS_MAX: usize = 100;

/// Most peers of a scenario.
pub const PEERS_MAX: usize = 10_000;
/// Most blobs of a scenario.
pub const BLOBS_MAX: usize = 4_096;
/// Adversaries of each kind in [`Scenario::Liars`]: those of kind `n` of [`crate::Attack::ALL`] are the acts from `n` times this on.
pub const LIARS_OF_A_KIND: usize = 12;
/// Chunks that a v5 head has room for in a DHT item, each as a file of its own.
const V5_BLOBS_MAX: usize = 2;

/// Plays a scenario to its end, or until a checker or an assertion of core objects. Those that tell what adversaries cost are played
/// again without them, to compare.
pub fn run(scenario: Scenario, params: &Params) -> Report {
    let mut report = play(scenario, params);
    if matches!(scenario, Scenario::Hostile | Scenario::Liars) && report.finding.is_none() {
        let peaceful =
            play(scenario, &Params { only: Some(peaceful_acts(scenario, params)), ..params.clone() });
        if peaceful.finding.is_some() {
            return peaceful;
        }
        report.compare(peaceful);
    }
    report
}

fn play(scenario: Scenario, params: &Params) -> Report {
    match params.crypto(scenario) {
        Crypto::Real => stage::play::<RealSuite>(scenario, params),
        Crypto::Null => stage::play::<NullSuite<PLAIN_LEN>>(scenario, params),
    }
}

/// Returns the acts that happen, except the adversaries' arrivals.
fn peaceful_acts(scenario: Scenario, params: &Params) -> Vec<usize> {
    let acts = Plan::draw(scenario, params).acts;
    let is_asked = |index: &usize| params.only.as_ref().is_none_or(|only| only.contains(index));
    let is_attack = |index: &usize| matches!(acts[*index].what, What::Attack(_));
    (0..acts.len()).filter(|index| is_asked(index) && !is_attack(index)).collect()
}
