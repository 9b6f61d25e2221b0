//! `flash-crowd` against the honest bound: peers × blobs × seeds, over blobs of true size without weight.

use std::time::Instant;

use megatorrent_sim::scenario::{Params, Report, Scenario, run};

use crate::measure::{forget_peak, number, peak, processor_time};
use crate::table::percent;

/// The most that the last peer's time may be of the honest bound, in thousandths, and the blobs from which on it is the lower one.
const RATIO_MAX: u64 = 1400;
const RATIO_MAX_OF_MANY: (usize, u64) = (128, 1300);
/// The most duplicates, and the most control bytes, of a hundred bytes of content, from this many blobs on.
const WASTE_MAX: (usize, f64) = (32, 3.0);

/// Runs all and prints a line for each. Marks what is above its goal with `!`.
pub(crate) fn table(peers: &[usize], blobs: &[usize], seeds: &[u64]) {
    println!("flash-crowd over null crypto, blobs of 1 MiB: the last peer's time against the honest bound");
    println!("`!` is above the goal; a goal for duplicates and control begins at {} blobs", WASTE_MAX.0);
    println!(
        "{:>6} {:>6} {:>5} {:>8} {:>8} {:>8} {:>10} {:>11} {:>12} {:>11} {:>10} {:>10} {:>9}",
        "peers",
        "blobs",
        "seed",
        "last s",
        "bound s",
        "ratio",
        "fluid",
        "discovery s",
        "duplicates",
        "control",
        "real s",
        "processor",
        "peak MiB"
    );
    for &peers in peers {
        for &blobs in blobs {
            for &seed in seeds {
                forget_peak();
                let (began, began_on_processor) = (Instant::now(), processor_time());
                let params = Params {
                    seed,
                    peers: Some(peers),
                    blobs: Some(blobs),
                    null: true,
                    weight: number("WEIGHT", false),
                    ..Params::default()
                };
                let report = run(Scenario::FlashCrowd, &params);
                let processor = processor_time().saturating_sub(began_on_processor).as_secs_f64();
                line(&report, began.elapsed().as_secs_f64(), processor);
            }
        }
    }
}

fn line(report: &Report, real: f64, processor: f64) {
    let seconds = |time: Option<std::time::Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
    let (ratio, fluid) =
        (report.ratio_permille().unwrap_or(u64::MAX), report.fluid_ratio_permille().unwrap_or(u64::MAX));
    let ratio_max = if report.blobs >= RATIO_MAX_OF_MANY.0 { RATIO_MAX_OF_MANY.1 } else { RATIO_MAX };
    let (duplicates, control) =
        (report.duplicates_permille as f64 / 10.0, percent(report.traffic.control, report.traffic.data));
    let mark = |is_above| if is_above { '!' } else { ' ' };
    let waste_mark = |share: f64| mark(report.blobs >= WASTE_MAX.0 && share > WASTE_MAX.1);
    println!(
        "{:>6} {:>6} {:>5} {:>8.2} {:>8.2} {:>7}{} {:>10} {:>11.2} {:>9.1} %{} {:>8.2} %{} {:>10.1} {:>10.1} {:>9}{}",
        report.peers,
        report.blobs,
        report.params.seed,
        seconds(report.last()),
        seconds(report.honest_bound),
        ratio,
        mark(ratio > ratio_max),
        fluid,
        seconds(report.discovery),
        duplicates,
        waste_mark(duplicates),
        control,
        waste_mark(control),
        real,
        processor,
        peak() >> 20,
        report.finding.as_ref().map_or(String::new(), |finding| format!("  FAILED: {}", finding.text))
    );
}
