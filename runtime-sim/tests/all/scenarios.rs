//! Scenarios end well, twice the same, and the checkers see what is planted to be seen.

use std::collections::BTreeSet;
use std::time::Duration;

use megatorrent_sim::picture;
use megatorrent_sim::scenario::{
    Crypto, Kind, Member, Params, Plan, REAL_PEERS_MAX, Report, Scenario, What, run,
};
use megatorrent_sim::shrink::shrink;
use megatorrent_sim::{Attack, Bug, Cap, Checker};

/// Seeds of random worlds that are tried at each run.
const SEEDS: [u64; 8] = [0, 1, 2, 7, 13, 27, 42, 643];
/// Further ones, which every commit draws for itself.
const FRESH_SEEDS: u64 = 6;

/// One in this many random worlds is played with weight too.
const SEEDS_PER_WEIGHED: usize = 10;

/// How much longer the last peer takes where a fifth of all hosts is hostile: never less long, and not for ever.
const SLOWDOWN_PERMILLE: std::ops::RangeInclusive<u64> = 1_001..=15_000;

fn params(seed: u64, peers: usize, blobs: usize) -> Params {
    Params { seed, peers: Some(peers), blobs: Some(blobs), ..Params::default() }
}

fn assert_passes(report: &Report) {
    if let Some(finding) = &report.finding {
        panic!("{finding:?}\n{}\n{:#?}", report.command(), report.timeline);
    }
}

/// Random worlds that once did not end well: seed, peers, blobs, and whether with null crypto.
const FAILED_ONCE: [(u64, usize, usize, bool); 5] = [
    // The author knows its gateway only, whose copy of a blob rots, so that all others shut the gateway out.
    (30467, 8, 1, false),
    (32037, 2, 6, false),
    // A flood over a slow line keeps a REQUEST open.
    (31068, 1, 3, true),
    (33640, 3, 3, true),
    // Nobody but a gateway with a slow uplink can be reached.
    (82957, 5, 5, false),
];

/// Plays twice and compares all that was seen.
fn twice(scenario: Scenario, params: &Params) -> Report {
    let report = run(scenario, params);
    assert_passes(&report);
    let again = run(scenario, params);
    assert_eq!(report.trace_hash, again.trace_hash, "{} has two traces", report.command());
    assert_eq!(report, again);
    report
}

#[test]
fn every_named_scenario_ends_with_everybody_complete() {
    for scenario in Scenario::ALL {
        let report = twice(scenario, &params(5, 8, 3));
        assert!(report.completions.len() + 2 >= report.peers, "{}", report.command());
        assert!(report.traffic.data > 0 && !report.samples.is_empty());
    }
}

/// The commit's hash as a number, so that each commit looks where none has looked before. `SIM_COMMIT` names it;
/// without it, these are the seeds of no commit.
fn fresh_seeds() -> impl Iterator<Item = u64> {
    let commit = std::env::var("SIM_COMMIT").unwrap_or_default();
    let digits = commit.get(..12).unwrap_or_default();
    let first = u64::from_str_radix(digits, 16).unwrap_or(1_000_000);
    first..first + FRESH_SEEDS
}

#[test]
fn random_worlds_heal_and_repeat() {
    for (n, seed) in SEEDS.into_iter().chain(fresh_seeds()).enumerate() {
        let params = Params { seed, ..Params::default() };
        let report = twice(Scenario::Random, &params);
        println!("{}: {} acts, {} virtual seconds", report.command(), report.acts, report.took.as_secs());
        if n % SEEDS_PER_WEIGHED == 0 {
            weighed(Scenario::Random, &params);
        }
    }
}

/// Plays without weight and with it, and compares all that was seen.
fn weighed(scenario: Scenario, params: &Params) -> Report {
    let [light, heavy] =
        [false, true].map(|weight| run(scenario, &Params { null: true, weight, ..params.clone() }));
    assert_passes(&light);
    assert_eq!(light.trace_hash, heavy.trace_hash, "{} is another run with weight", light.command());
    assert_eq!(light, Report { params: light.params.clone(), ..heavy });
    light
}

#[test]
fn weight_changes_nothing() {
    for scenario in [
        Scenario::FlashCrowd,
        Scenario::Churn,
        Scenario::Hostile,
        Scenario::Gateway,
        Scenario::UpdatePush,
        Scenario::Random,
    ] {
        for seed in [1, 2] {
            let report = weighed(scenario, &params(seed, 8, 3));
            assert_eq!(report.crypto, Crypto::Null);
            assert!(report.traffic.data > 8 << 20, "true lengths are on the wire: {:?}", report.traffic);
        }
    }
}

#[test]
fn random_worlds_that_failed_once_heal_and_repeat() {
    for (seed, peers, blobs, null) in FAILED_ONCE {
        twice(Scenario::Random, &Params { null, ..params(seed, peers, blobs) });
    }
}

#[test]
fn different_seeds_are_different_worlds() {
    let [a, b] = [1, 2].map(|seed| run(Scenario::FlashCrowd, &params(seed, 3, 1)));
    assert_ne!(a.trace_hash, b.trace_hash);
}

// --- what each scenario shows -------------------------------------------------------------------------------

#[test]
fn hostile_hosts_are_there_harm_nobody_and_what_they_cost_is_shown() {
    let report = run(Scenario::Hostile, &params(3, 4 * Attack::ALL.len(), 2));
    assert_passes(&report);
    assert_eq!(report.adversaries, Attack::ALL.len(), "one of each kind, a fifth of all hosts");
    assert_eq!(report.completions.len(), report.peers);
    assert!(report.timeline.iter().any(|entry| entry.kind == "ban"), "whoever serves a wrong blob is banned");
    assert!(report.timeline.iter().any(|entry| entry.text.contains("another head of the newest sequence")));
    let peaceful = report.peaceful.as_ref().expect("the same swarm without them");
    assert!(peaceful.last.is_some() && peaceful.median.is_some() && !peaceful.samples.is_empty());
    let slowdown = report.slowdown_permille();
    assert!(slowdown.is_some_and(|permille| SLOWDOWN_PERMILLE.contains(&permille)), "{slowdown:?}");
    let svg = picture::svg(&report, "commit");
    assert!(svg.contains("without adversaries") && svg.contains("times as long"));
}

#[test]
fn only_the_adversaries_are_missing_from_the_swarm_that_the_hostile_one_is_compared_with() {
    let plan = Plan::draw(Scenario::Hostile, &params(3, 8, 1));
    let attacks = plan.acts.iter().filter(|act| matches!(act.what, What::Attack(_))).count();
    let peaceful: Vec<usize> = (attacks..plan.acts.len()).collect();
    let report = run(Scenario::Hostile, &Params { only: Some(peaceful), ..params(3, 8, 1) });
    assert_passes(&report);
    assert_eq!((report.adversaries, report.slowdown_permille()), (0, Some(1000)));
}

#[test]
fn who_has_only_an_onion_name_publishes_is_updated_and_seeds() {
    let report = run(Scenario::OnionOnly, &params(2, 12, 4));
    assert_passes(&report);
    assert_eq!(report.completions.len(), 12);
    assert_eq!(report.updates.iter().map(Vec::len).collect::<Vec<_>>(), [12, 12]);
    let anyone = |_| true;
    assert!(report.sent(|from| from == Kind::OnionOnly, anyone) > 0, "{:?}", report.exchanges);
    assert!(report.sent(|from| from == Kind::Author, anyone) > 0, "the author seeds under its name");
    assert!(report.timeline.iter().any(|entry| entry.text.contains("proxy dies")));
}

#[test]
fn nodes_without_a_dht_do_with_the_gateways_that_are_left() {
    let report = run(Scenario::Gateway, &params(2, 12, 4));
    assert_passes(&report);
    let has = |text: &str| report.timeline.iter().any(|entry| entry.text.contains(text));
    assert!(report.adversaries == 1 && has("peer 0 leaves for good") && has("version 3 is on the DHT"));
    assert_eq!(report.updates.last().map(Vec::len), Some(11), "all but the gateway that left");
    assert!(report.sent(|from| from == Kind::Gateway, |to| to == Kind::WithoutDht) > 0);
}

#[test]
fn v5_and_v6_peers_complete_from_each_other() {
    let report = run(Scenario::Mixed, &params(2, 12, 2));
    assert_passes(&report);
    assert_eq!(report.completions.len(), 12);
    let is_v5 = |kind| kind == Kind::V5;
    let (to_v6, to_v5) =
        (report.sent(is_v5, |kind| !is_v5(kind)), report.sent(|kind| kind == Kind::Peer, is_v5));
    assert!(to_v6 > 0 && to_v5 > 0, "{:?}", report.exchanges);
}

#[test]
fn null_crypto_is_asked_for_or_needed_and_always_said() {
    let asked = Params { null: true, ..params(4, 60, 8) };
    assert_eq!(asked.crypto(Scenario::Churn), Crypto::Null);
    let report = twice(Scenario::Churn, &asked);
    assert!(report.command().ends_with(" --null") && report.traffic.data > 0);
    assert!(picture::svg(&report, "commit").contains("null crypto, blobs of 1 MiB without weight"));
    assert_eq!(params(4, REAL_PEERS_MAX, 8).crypto(Scenario::Churn), Crypto::Real);
    assert_eq!(params(4, REAL_PEERS_MAX + 1, 8).crypto(Scenario::Churn), Crypto::Null);
    assert_eq!(asked.crypto(Scenario::Mixed), Crypto::Real, "v5 peers know no other");
}

#[test]
fn a_swarm_outlives_its_author() {
    let report = run(Scenario::AuthorLeaves, &params(4, 6, 2));
    assert_passes(&report);
    let position = |text: &str| report.timeline.iter().position(|entry| entry.text.contains(text));
    let left = position("the author leaves for good").expect("it leaves");
    let joined = report.timeline.iter().rposition(|entry| entry.text.contains("join")).expect("they join");
    assert!(left < joined, "some join when it is gone");
    assert_eq!(report.completions.len(), 6);
}

#[test]
fn an_update_is_known_to_all_and_measured() {
    let report = run(Scenario::UpdatePush, &params(6, 10, 1));
    assert_passes(&report);
    assert_eq!(report.updates.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn no_swarm_is_faster_than_its_links() {
    let report = run(Scenario::FlashCrowd, &params(1, 6, 8));
    assert_passes(&report);
    assert!(report.fluid_ratio_permille().is_some_and(|ratio| ratio >= 1000), "{report:?}");
    assert!(
        report.honest_bound > report.fluid_bound && report.ratio_permille() < report.fluid_ratio_permille()
    );
    assert!(report.discovery.is_some_and(|discovery| discovery > Duration::ZERO));
}

// --- checkers that must see ---------------------------------------------------------------------------------

fn planted(scenario: Scenario, bug: Bug) -> Report {
    let bug = Some(bug);
    // Frames can be read, and adversaries are so many that one floods announces.
    let read_along = || Params { bug, null: true, ..params(1, 28, 1) };
    // So many that the author has not sent all of them when the swarm is divided.
    let blobs = if scenario == Scenario::Partition { 20 } else { 3 };
    match bug {
        Some(Bug::HopsKept | Bug::QuotaPassed) => run(scenario, &read_along()),
        _ => run(scenario, &Params { bug, ..params(1, 6, blobs) }),
    }
}

#[test]
fn every_planted_bug_is_found_by_its_checker_and_what_happened_until_then_is_told() {
    for (bug, scenario, checker, words) in [
        (Bug::StoreUnchecked, Scenario::Hostile, Checker::Stores, "wrong bytes"),
        (Bug::DeliverWrong, Scenario::FlashCrowd, Checker::Files, "other bytes"),
        (Bug::JobTwice, Scenario::FlashCrowd, Checker::Jobs, "is answered but not open"),
        (Bug::JobLost, Scenario::FlashCrowd, Checker::Jobs, "no answer"),
        (Bug::CapPassed(Cap::Jobs), Scenario::FlashCrowd, Checker::Caps, "jobs of kind"),
        (Bug::CapPassed(Cap::Connections), Scenario::FlashCrowd, Checker::Caps, "0 sockets"),
        (Bug::CapPassed(Cap::Addresses), Scenario::FlashCrowd, Checker::Caps, "addresses known"),
        (Bug::CapPassed(Cap::Bans), Scenario::Hostile, Checker::Caps, "bans"),
        (Bug::CapPassed(Cap::DhtOperations), Scenario::FlashCrowd, Checker::Caps, "DHT operations"),
        (Bug::EndUnheard, Scenario::Churn, Checker::Connections, "node and sockets disagree"),
        (Bug::WakeLost, Scenario::FlashCrowd, Checker::Wakes, "spins at one instant"),
        (Bug::StoredUnsaid, Scenario::FlashCrowd, Checker::Blobs, "fetched again, though it is stored"),
        (Bug::PutLost, Scenario::FlashCrowd, Checker::Publication, "not on the DHT"),
        (Bug::SequenceBack, Scenario::UpdatePush, Checker::Sequences, "sequence went back"),
        (Bug::HopsKept, Scenario::OnionOnly, Checker::Announces, "for 6 hops"),
        (Bug::QuotaPassed, Scenario::Hostile, Checker::Announces, "exceeds a connection's quota"),
        (Bug::ReadWrong, Scenario::FlashCrowd, Checker::Bans, "which is honest: it served a wrong blob"),
        (Bug::NeverHeals, Scenario::Partition, Checker::Liveness, "not complete"),
    ] {
        let report = planted(scenario, bug);
        let found = report.finding.as_ref();
        let is_it = found.is_some_and(|found| found.checker == checker && found.text.contains(words));
        assert!(is_it, "{bug:?} in {scenario}: {found:?}");
        assert!(!report.samples.is_empty() && report.trace_len > 0, "{bug:?}: {report:?}");
        let has_begun = report.timeline.iter().any(|entry| entry.text.contains("has published"));
        // Those that need a download or more come after the publication.
        let is_late =
            matches!(bug, Bug::StoreUnchecked | Bug::StoredUnsaid | Bug::ReadWrong | Bug::EndUnheard)
                || matches!(
                    bug,
                    Bug::JobLost | Bug::SequenceBack | Bug::QuotaPassed | Bug::CapPassed(Cap::Bans)
                );
        assert!(has_begun && report.took > Duration::ZERO || !is_late, "{bug:?}: {:?}", report.timeline);
        let svg = picture::svg(&report, "commit");
        assert!(svg.contains(&format!("FAILED ({checker})")), "{bug:?}");
    }
    assert_eq!(Bug::ALL.len(), 18 + 1, "each but one has a line above");
    let [once, again] = [(); 2].map(|()| planted(Scenario::FlashCrowd, Bug::SeedIgnored));
    assert_ne!(once.trace_hash, again.trace_hash, "what does not hang on the seed alone is in the trace");
}

// --- shrinking and drawing ----------------------------------------------------------------------------------

#[test]
fn a_failing_scenario_shrinks_to_the_shortest_that_fails() {
    let failed = planted(Scenario::Partition, Bug::NeverHeals);
    assert_eq!((failed.peers, failed.blobs, failed.acts), (6, 20, 2));
    let mut steps = 0;
    let shortest = shrink(&failed, |_| steps += 1);
    assert!(steps > 0);
    assert_eq!(shortest.finding.as_ref().map(|finding| &finding.checker), Some(&Checker::Liveness));
    assert_eq!(shortest.params.only.as_ref().map(Vec::len), Some(1), "one act is enough");
    // Whether fewer peers still fail is up to who happens to be cut off from whom.
    assert!(shortest.peers <= failed.peers && shortest.blobs <= failed.blobs);
    let passes = |params: Params| run(shortest.scenario, &params).finding.is_none();
    let (peers, blobs) = (shortest.peers - 1, shortest.blobs - 1);
    assert!(peers == 0 || passes(Params { peers: Some(peers), ..shortest.params.clone() }));
    assert!(blobs == 0 || passes(Params { blobs: Some(blobs), ..shortest.params.clone() }));
    let again = run(shortest.scenario, &shortest.params);
    assert_eq!(again.trace_hash, shortest.trace_hash, "its command repeats it");
}

#[test]
fn a_bound_that_nobody_keeps_fails_and_is_part_of_what_repeats_it() {
    let bound = Some(Duration::from_secs(1));
    let report = run(Scenario::FlashCrowd, &Params { bound, ..params(1, 3, 8) });
    assert_eq!(report.finding.as_ref().map(|finding| &finding.checker), Some(&Checker::Liveness));
    assert!(report.command().ends_with(" --bound 1"), "{}", report.command());
}

#[test]
fn what_a_scenario_has_not_is_refused() {
    let check = |scenario, params: Params| params.check(scenario).err().unwrap_or_default();
    let only = |act| Params { only: Some(vec![0, act]), ..params(1, 6, 2) };
    assert!(check(Scenario::Partition, only(2)).contains("partition has events 0 to 1"));
    assert!(check(Scenario::AuthorLeaves, only(7)).contains("no event 7"));
    assert!(check(Scenario::FlashCrowd, only(0)).contains("has no events"));
    assert!(check(Scenario::Mixed, params(1, 6, 5)).contains("at most 2 blobs, not 5"));
    assert!(check(Scenario::Mixed, Params { null: true, ..params(1, 6, 2) }).contains("no --null"));
    for scenario in Scenario::ALL {
        assert_eq!(params(1, 6, 2).check(scenario), Ok(()));
    }
    assert_eq!(only(1).check(Scenario::Partition), Ok(()));
}

#[test]
fn a_shrunk_run_leaves_out_the_acts_that_fewer_peers_have_not() {
    let bug = Some(Bug::CapPassed(Cap::Addresses));
    let failed = run(Scenario::Churn, &Params { bug, null: true, ..params(1, 6, 1) });
    let shortest = shrink(&failed, |shorter| assert_eq!(shorter.params.check(shorter.scenario), Ok(())));
    assert_eq!(shortest.finding.map(|finding| finding.checker), Some(Checker::Caps));
    assert_eq!(shortest.params.only, Some(Vec::new()), "no act is needed");
}

#[test]
fn fewer_acts_leave_the_others_as_they_are() {
    let all = Plan::draw(Scenario::Random, &params(9, 4, 2));
    let fewer = Plan::draw(Scenario::Random, &params(9, 2, 1));
    assert_eq!(all.acts, fewer.acts);
}

#[test]
fn random_worlds_have_every_kind_of_peer_and_act() {
    let (mut kinds, mut acts) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..300 {
        let plan = Plan::draw(Scenario::Random, &Params { seed, ..Params::default() });
        kinds.extend(plan.members.iter().map(Member::kind));
        acts.extend(plan.acts.iter().map(|act| match act.what {
            What::Attack(attack) => format!("{attack:?}"),
            ref what => format!("{:?}", std::mem::discriminant(what)),
        }));
        let null = Plan::draw(Scenario::Random, &Params { seed, null: true, ..Params::default() });
        assert!(null.members.iter().all(|member| !member.is_v5), "v5 peers know no null crypto");
    }
    let drawn = [Kind::Peer, Kind::Gateway, Kind::OnionOnly, Kind::V5];
    assert!(kinds.into_iter().eq(drawn), "none is without a DHT but for its name");
    // All kinds of acts but the attacks themselves, and each attack.
    assert_eq!(acts.len(), 16 + Attack::ALL.len(), "{acts:?}");
}

#[test]
fn a_picture_is_whole_and_says_what_it_shows() {
    let report = run(Scenario::Churn, &params(2, 5, 2));
    let svg = picture::svg(&report, "<commit>");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for words in
        ["churn: 5 peers, 2 blobs", "seed 2", "&lt;commit&gt;", "[s]", "[%]", "[bytes/s]", "peers complete"]
    {
        assert!(svg.contains(words), "{words}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "every number is one");
    let html = picture::html(&report, "<commit>");
    assert!(html.contains(&svg) && html.contains(&report.command()) && html.ends_with("</html>\n"));
    assert!(html.contains(&report.trace_hex()));
}
