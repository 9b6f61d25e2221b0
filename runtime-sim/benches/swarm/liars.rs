//! How much longer a download from one honest peer takes beside liars: 64 MiB at 8 MB/s, without weight.
#![allow(dead_code, reason = "the benchmark and the test each use a part")]

use std::time::Duration;

use megatorrent_sim::Attack;
use megatorrent_sim::scenario::{LIARS_OF_A_KIND, Params, Report, Scenario, run};

/// The most that the time may be of that without liars, in thousandths: beside one of a kind, and beside several.
pub(crate) fn slowdown_max(attack: Attack, count: usize) -> u64 {
    let is_slow =
        matches!(attack, Attack::SlowLoris | Attack::Trickle | Attack::Silence | Attack::ValuesWithheld);
    match (count, is_slow) {
        (1, false) => 1_100,
        (1, true) | (_, false) => 1_300,
        (_, true) => 2_000,
    }
}

/// Downloads beside so many liars of a kind, and again without them. `is_introduced`: the peer gets the honest one's address at
/// once; else it finds it on the DHT, among the liars'.
pub(crate) fn play(seed: u64, attack: Attack, count: usize, is_introduced: bool) -> Report {
    assert!(count <= LIARS_OF_A_KIND, "the scenario has no more of a kind");
    let kind = Attack::ALL.iter().position(|it| *it == attack).expect("it is among all");
    let first = kind * LIARS_OF_A_KIND;
    let introduction = is_introduced.then_some(Attack::ALL.len() * LIARS_OF_A_KIND);
    let only = Some((first..first + count).chain(introduction).collect());
    run(Scenario::Liars, &Params { seed, only, null: true, ..Params::default() })
}

/// Runs all kinds and prints a line for each.
pub(crate) fn table(counts: &[usize], seeds: &[u64]) {
    println!("a download of 64 MiB from one honest peer that sends 8 MB/s, beside liars of one kind");
    println!("slowdown and duplicates are in thousandths; `!` is above the goal; seconds are virtual");
    println!(
        "{:>30} {:>6} {:>6} {:>5} {:>9} {:>9} {:>9} {:>11}",
        "kind", "liars", "found", "seed", "last s", "without", "slowdown", "duplicates"
    );
    for is_introduced in [true, false] {
        for &count in counts {
            for (attack, &seed) in Attack::ALL.iter().flat_map(|it| seeds.iter().map(move |seed| (it, seed)))
            {
                println!("{}", line(&play(seed, *attack, count, is_introduced), *attack, is_introduced));
            }
        }
    }
}

/// Says how long it took, beside whom.
pub(crate) fn line(report: &Report, attack: Attack, is_introduced: bool) -> String {
    let seconds = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
    let without = report.peaceful.as_ref().and_then(|peaceful| peaceful.last);
    let slowdown = report.slowdown_permille();
    let is_above = slowdown.is_none_or(|slowdown| slowdown > slowdown_max(attack, report.adversaries));
    format!(
        "{:>30} {:>6} {:>6} {:>5} {:>9.2} {:>9.2} {:>8}{} {:>11}{}",
        attack.name(),
        report.adversaries,
        if is_introduced { "told" } else { "DHT" },
        report.params.seed,
        seconds(report.last()),
        seconds(without),
        slowdown.map_or("-".into(), |slowdown| slowdown.to_string()),
        if is_above { '!' } else { ' ' },
        report.duplicates_permille,
        report.finding.as_ref().map_or(String::new(), |finding| format!("  FAILED: {}", finding.text))
    )
}
