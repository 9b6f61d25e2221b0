//! `flash-crowd` against the honest bound: peers × blobs × seeds.

use std::time::{Duration, Instant};

use megatorrent_sim::scenario::Report;

use crate::goals::{Figures, play};
use crate::measure::{forget_peak, peak, processor_time};

/// Runs all and prints a line for each.
pub(crate) fn table(peers: &[usize], blobs: &[usize], seeds: &[u64], weight: bool) {
    let of = if weight { "with" } else { "without" };
    println!(
        "flash-crowd against the honest bound: checksums in place of ciphers, blobs of 1 MiB {of} weight"
    );
    println!(
        "ratios and shares are in thousandths; `!` is above the goal; seconds are virtual, then this machine's"
    );
    println!(
        "{:>6} {:>6} {:>5} {:>9} {:>9} {:>7} {:>7} {:>11} {:>11} {:>8} {:>8} {:>11} {:>9}",
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
        "processor s",
        "peak MiB"
    );
    for &peers in peers {
        for &blobs in blobs {
            for &seed in seeds {
                forget_peak();
                let (began, began_on_processor) = (Instant::now(), processor_time());
                let report = play(seed, peers, blobs, weight);
                line(&report, began.elapsed(), processor_time().saturating_sub(began_on_processor));
            }
        }
    }
}

fn line(report: &Report, real: Duration, processor: Duration) {
    let seconds = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
    let figures = Figures::of(report);
    let marks = figures.above(report.blobs).map(|is_above| if is_above { '!' } else { ' ' });
    println!(
        "{:>6} {:>6} {:>5} {:>9.2} {:>9.2} {:>6}{} {:>7} {:>11.2} {:>10}{} {:>7}{} {:>8.1} {:>11.1} {:>9}{}",
        report.peers,
        report.blobs,
        report.params.seed,
        seconds(report.last()),
        seconds(report.honest_bound),
        figures.ratio,
        marks[0],
        figures.fluid_ratio,
        seconds(report.discovery),
        figures.duplicates,
        marks[1],
        figures.control,
        marks[2],
        real.as_secs_f64(),
        processor.as_secs_f64(),
        peak() >> 20,
        report.finding.as_ref().map_or(String::new(), |finding| format!("  FAILED: {}", finding.text))
    );
}
