//! How much longer a download from one honest peer takes beside liars: 64 MiB at 8 MB/s, without weight.
#![allow(dead_code, reason = "the benchmark and the test each use a part")]

use megatorrent_sim::Attack;
use megatorrent_sim::scenario::{LIARS_OF_A_KIND, Params, Report, Scenario, run};

/// The most that the time may be of that without liars, in thousandths: beside one, and beside [`LIARS_OF_A_KIND`].
pub(crate) fn slowdown_max(attack: Attack, count: usize) -> u64 {
    let is_slow = matches!(
        attack,
        Attack::SlowLoris | Attack::Trickle | Attack::Silence | Attack::ValuesWithheld
    );
    match (count, is_slow) {
        (1, false) => 1_100,
        (1, true) | (_, false) => 1_300,
        (_, true) => 2_000,
    }
}

/// Downloads beside so many liars of a kind, and again without them.
pub(crate) fn play(seed: u64, attack: Attack, count: usize) -> Report {
    assert!(count <= LIARS_OF_A_KIND);
    let kind = Attack::ALL.iter().position(|it| *it == attack).expect("it is among all");
    let first = kind * LIARS_OF_A_KIND;
    let only = Some((first..first + count).collect());
    run(Scenario::Liars, &Params { seed, only, null: true, ..Params::default() })
}

/// Says how long it took, beside whom.
pub(crate) fn line(report: &Report, attack: Attack) -> String {
    let seconds = |time: Option<std::time::Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
    let without = report.peaceful.as_ref().and_then(|peaceful| peaceful.last);
    let slowdown = report.slowdown_permille().unwrap_or(u64::MAX);
    let mark = if slowdown > slowdown_max(attack, report.adversaries) { '!' } else { ' ' };
    format!(
        "{:>30} {:>6} {:>5} {:>9.2} {:>9.2} {:>9}{mark} {:>10}{}",
        attack.name(),
        report.adversaries,
        report.params.seed,
        seconds(report.last()),
        seconds(without),
        slowdown,
        report.duplicates_permille,
        report.finding.as_ref().map_or(String::new(), |finding| format!("  FAILED: {}", finding.text))
    )
}
