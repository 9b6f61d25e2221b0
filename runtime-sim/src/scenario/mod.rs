//! Scenarios: whole swarms with a story, drawn from one number, run, checked and told.
//!
//! A [`Plan`] says everything that will happen; it is drawn from a [`Scenario`] and its [`Params`] alone. [`run`] plays
//! it in two phases: in the *safety* phase faults happen and no checker may object; then all is healed, but for what
//! left for good and for the adversaries, and in the *liveness* phase every honest node must complete within a bound.

mod checks;
mod options;
mod plan;
mod report;
mod stage;

use std::fmt;
use std::str::FromStr;

pub use plan::{Act, Fate, Member, Plan, What};
pub use report::{Entry, Finding, Report, Sample};

use crate::faults::Bug;

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
    /// A fifth of all hosts are adversaries of every kind.
    Hostile,
    /// Two thirds of the peers can dial, but not be dialled.
    Nat,
    /// Connected subscribers get new versions.
    UpdatePush,
    /// Everything is drawn: sizes, rates, which faults happen at all.
    Random,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::FlashCrowd,
        Self::AuthorLeaves,
        Self::Partition,
        Self::Churn,
        Self::Hostile,
        Self::Nat,
        Self::UpdatePush,
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
            Self::Nat => "nat",
            Self::UpdatePush => "update-push",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// What a scenario is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Draws everything.
    pub seed: u64,
    /// Peers beside the author; `None`: the scenario's own number.
    pub peers: Option<usize>,
    /// Blobs of content; `None`: the scenario's own number.
    pub blobs: Option<usize>,
    /// Of the plan's acts, by index, those that happen; `None`: all.
    pub only: Option<Vec<usize>>,
    /// A bug planted in the simulator, to see that a checker finds it.
    pub bug: Option<Bug>,
}

/// Most peers that a scenario takes.
pub const PEERS_MAX: usize = 10_000;
/// Most blobs that a scenario takes.
pub const BLOBS_MAX: usize = 4_096;

/// How the simulator is built, for the first line of whatever tells of a run.
pub const MODE: &str = "real crypto, blobs of 1 MiB";

/// Plays a scenario to its end.
///
/// # Panics
/// Where a checker of the world or an assertion of core objects; [`run_caught`] makes a [`Finding`] of it.
pub fn run(scenario: Scenario, params: &Params) -> Report {
    stage::play(scenario, params)
}

/// Plays a scenario to its end; a panic is one more finding.
pub fn run_caught(scenario: Scenario, params: &Params) -> Report {
    let played = std::panic::catch_unwind(|| run(scenario, params));
    played.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text =
            text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        let plan = Plan::draw(scenario, params);
        Report::broken(scenario, params, &plan, Finding { checker: "assertion", text: text.to_owned() })
    })
}
