//! Shrinking: the shortest scenario that still fails, found by leaving things out.

use crate::scenario::{Crypto, Params, Plan, Report, Scenario, run};

/// Most runs of a shrink; the shortest scenario by then is its answer.
pub const RUNS_MAX: usize = 200;

/// Finds the shortest scenario that fails like `failed`, by the same checker or at the same line: with fewer acts, then fewer
/// peers, then fewer blobs, over and over until none can go. Calls `told` with each shorter one. Returns the report of the
/// shortest, which is `failed` itself where nothing can be left out.
pub fn shrink(failed: &Report, mut told: impl FnMut(&Report)) -> Report {
    let mut search = Search { best: failed.clone(), runs: 0, told: &mut told };
    while search.drop_acts() | search.lower(PEERS) | search.lower(BLOBS) {}
    search.best
}

struct Search<'a> {
    best: Report,
    runs: usize,
    told: &'a mut dyn FnMut(&Report),
}

/// A size that can be lowered: how it is read from a report, and set.
type Size = (fn(&Report) -> usize, fn(&mut Params, usize));

const PEERS: Size = (|report| report.peers, |params, peers| params.peers = Some(peers));
const BLOBS: Size = (|report| report.blobs, |params, blobs| params.blobs = Some(blobs));

impl Search<'_> {
    /// Runs with other parameters; keeps them, and returns `true`, where the same checker objects.
    fn try_with(&mut self, params: &Params) -> bool {
        if self.runs == RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let report = run(self.best.scenario, &self.existing(params));
        let checker = |report: &Report| report.finding.as_ref().map(|finding| finding.checker.clone());
        let is_same = checker(&report) == checker(&self.best);
        if is_same {
            (self.told)(&report);
            self.best = report;
        }
        is_same
    }

    /// Returns the parameters without the acts that the plan has not: fewer peers can mean fewer acts.
    fn existing(&self, params: &Params) -> Params {
        let acts = Plan::draw(self.best.scenario, params).acts.len();
        let only = params.only.as_ref().map(|only| only.iter().copied().filter(|act| *act < acts).collect());
        Params { only, ..params.clone() }
    }

    /// Fixes the sizes for the command that repeats the run, whatever the seed would draw; and the suite, which would depend
    /// on the number of nodes.
    fn params(&self) -> Params {
        let (peers, blobs) = (Some(self.best.peers), Some(self.best.blobs));
        Params { peers, blobs, null: self.best.crypto == Crypto::Null, ..self.best.params.clone() }
    }

    /// Leaves out acts: first large parts of the list, then single ones.
    fn drop_acts(&mut self) -> bool {
        let mut has_shrunk = false;
        let mut acts = self.acts();
        let mut part = acts.len();
        while part > 0 {
            let mut at = 0;
            while at < acts.len() {
                let mut fewer = acts.clone();
                fewer.drain(at..(at + part).min(acts.len()));
                if self.try_with(&Params { only: Some(fewer.clone()), ..self.params() }) {
                    acts = fewer;
                    has_shrunk = true;
                } else {
                    at += part;
                }
            }
            part /= 2;
        }
        has_shrunk
    }

    /// The acts that happen.
    fn acts(&self) -> Vec<usize> {
        let all = (0..Plan::draw(self.best.scenario, &self.best.params).acts.len()).collect();
        self.best.params.only.clone().unwrap_or(all)
    }

    /// Lowers a size: to one, else halves the way there, else by one.
    fn lower(&mut self, (size, set): Size) -> bool {
        let start = size(&self.best);
        let mut low = 1;
        while low < size(&self.best) {
            let mut params = Params { only: Some(self.acts()), ..self.params() };
            set(&mut params, low);
            if !self.try_with(&params) {
                // Below the best, above what passes.
                low += (size(&self.best) - low).div_ceil(2).max(1);
            }
        }
        size(&self.best) < start
    }
}

/// The report of a scenario, shrunk where it fails.
pub fn run_and_shrink(scenario: Scenario, params: &Params, told: impl FnMut(&Report)) -> Report {
    let report = run(scenario, params);
    if report.finding.is_some() { shrink(&report, told) } else { report }
}
