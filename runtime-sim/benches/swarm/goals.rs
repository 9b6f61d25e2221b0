//! What `flash-crowd` shall come to, over blobs of true size without weight.
#![allow(dead_code, reason = "the benchmark and the test each use a part")]

use megatorrent_sim::scenario::{Params, Report, Scenario, run};

/// The most that the last peer's time may be of the honest bound, in thousandths.
pub(crate) fn ratio_max(blobs: usize) -> u64 {
    if blobs >= 128 { 1300 } else { 1400 }
}

/// The most duplicates, and the most bytes of control messages, in thousandths of the content; less content has no goal.
pub(crate) fn waste_max(blobs: usize) -> Option<u64> {
    (blobs >= 32).then_some(30)
}

pub(crate) fn play(seed: u64, peers: usize, blobs: usize, weight: bool) -> Report {
    let (peers, blobs) = (Some(peers), Some(blobs));
    run(Scenario::FlashCrowd, &Params { seed, peers, blobs, null: true, weight, ..Params::default() })
}

/// What a run came to; the last is in thousandths of the content.
pub(crate) struct Figures {
    pub(crate) ratio: u64,
    pub(crate) fluid_ratio: u64,
    pub(crate) duplicates: u64,
    pub(crate) control: u64,
}

impl Figures {
    pub(crate) fn of(report: &Report) -> Self {
        let traffic = report.traffic;
        Self {
            ratio: report.ratio_permille().unwrap_or(u64::MAX),
            fluid_ratio: report.fluid_ratio_permille().unwrap_or(u64::MAX),
            duplicates: report.duplicates_permille,
            control: traffic.control * 1000 / traffic.data.max(1),
        }
    }

    /// Whether the ratio, the duplicates and the control messages are each above their goal.
    pub(crate) fn above(&self, blobs: usize) -> [bool; 3] {
        let is_waste = |share: u64| waste_max(blobs).is_some_and(|most| share > most);
        [self.ratio > ratio_max(blobs), is_waste(self.duplicates), is_waste(self.control)]
    }
}
