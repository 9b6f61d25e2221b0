//! Swarm options: every size and rate of a world, drawn from one number. Whole kinds of faults are switched off at random,
//! so that the others occur without them.

use std::time::Duration;

use megatorrent_core::blob::BLOB_LEN;
use megatorrent_core::rng::Rng;

use super::V5_BLOBS_MAX;
use super::plan::{Fate, Plan, What, onion, secs};
use crate::adversary::Attack;
use crate::config::{DhtConfig, HostConfig, WorldConfig};

/// Blobs of a random world's channel besides its content, about.
const INDEX_BLOBS: usize = 4;
/// Uplinks in worlds with plain v5 peers, which give up a connection whose blob takes minutes.
const V5_UPLOAD_MIN: u64 = 160_000;
/// Longest safety phase.
const SAFETY_SECS_MAX: u64 = 240;

/// Peers and blobs.
pub(super) fn sizes(rng: &Rng) -> (usize, usize) {
    let mut sizes = rng.fork("sizes");
    let (peers, blobs) = (1 + small(&mut sizes, 10), 1 + small(&mut sizes, 8));
    (peers, if has_v5(rng) { blobs.min(V5_BLOBS_MAX) } else { blobs })
}

/// Draws whether there are plain v5 peers, if everything else admits them.
fn has_v5(rng: &Rng) -> bool {
    is_one_in(&mut rng.fork("plain v5"), 4)
}

/// Draws everything but the sizes. `admits_v5`: the nodes can speak with v5 peers.
pub(super) fn draw(plan: &mut Plan, rng: &Rng, admits_v5: bool) {
    plan.world = world(&mut rng.fork("world"));
    let mut options = rng.fork("options");
    plan.private = is_one_in(&mut options, 4);
    let (limits_up, limits_down, has_nat) = (flip(&mut options), flip(&mut options), flip(&mut options));
    let joins_late = flip(&mut options);
    plan.heal_at = secs(10 + options.below(SAFETY_SECS_MAX - 10));
    let safety_ms = u64::try_from(plan.heal_at.as_millis()).expect("a few minutes");
    for (index, member) in plan.members.iter_mut().enumerate() {
        let mut rng = rng.fork(&format!("member {index}"));
        member.config.nat = has_nat && is_one_in(&mut rng, 3);
        member.config.dht = true;
        if limits_up {
            member.config.upload_bytes_per_sec = 20_000 << rng.below(10);
        }
        if limits_down {
            member.config.download_bytes_per_sec = Some(100_000 << rng.below(8));
        }
        if joins_late {
            member.joins_at = Duration::from_millis(rng.below(safety_ms));
        }
        if flip(&mut rng) {
            member.config.clock_ahead_ms = offset(&mut rng, 600_000);
        }
    }
    acts(plan, rng, &mut options, safety_ms);
    kinds(plan, &mut rng.fork("kinds"), safety_ms);
    plan.heals_forks = true;
    if admits_v5 && plan.blobs <= V5_BLOBS_MAX && has_v5(rng) {
        v5(plan, &mut rng.fork("v5 peers"));
    }
    plan.bound += serving_time(plan);
}

/// Returns how long the reachable members take to send everything to all members: the unreachable ones have no other
/// source, however little those send.
fn serving_time(plan: &Plan) -> Duration {
    let rate = |config: &HostConfig| {
        let limit = config.upload_limit_bytes_per_sec.unwrap_or(u64::MAX);
        config.upload_bytes_per_sec.min(limit)
    };
    let reachable = plan.members.iter().map(|member| &member.config).filter(|config| !config.nat);
    let bytes_per_sec = reachable.map(rate).fold(0, u64::saturating_add);
    let bytes = ((plan.blobs + INDEX_BLOBS) * plan.members.len() * BLOB_LEN) as u64;
    secs(bytes.checked_div(bytes_per_sec).unwrap_or_default())
}

/// Makes some members plain v5 peers, which read no private channel and no head that lists more than the first version's
/// files. They find others by the DHT alone. The first member, whose address members with a name get, and gateways stay v6.
fn v5(plan: &mut Plan, rng: &mut Rng) {
    plan.private = false;
    plan.lists_chunks = true;
    let is_update = |act: &super::Act| act.what == What::Update;
    plan.acts.iter_mut().filter(|act| is_update(act)).for_each(|act| act.what = What::ForkedHead);
    for member in plan.members.iter_mut().skip(plan.gateways.max(1)) {
        member.is_v5 = flip(rng) && member.config.name.is_none();
        member.config.nat &= !member.is_v5;
    }
    for member in &mut plan.members {
        member.config.upload_bytes_per_sec = member.config.upload_bytes_per_sec.max(V5_UPLOAD_MIN);
    }
}

/// Draws special members: gateways, through which the author then publishes, and members with only an onion name; or some
/// leave for good. Some have low rate limits.
fn kinds(plan: &mut Plan, rng: &mut Rng, safety_ms: u64) {
    let (has_gateways, has_names, has_limits) = (is_one_in(rng, 3), is_one_in(rng, 3), is_one_in(rng, 3));
    if has_gateways {
        plan.publish_via(1 + small(rng, 3));
        plan.false_gateways = usize::from(plan.gateways > 1 && flip(rng));
        plan.author.name = flip(rng).then(|| onion(0));
        plan.members.iter_mut().take(plan.gateways).for_each(|gateway| gateway.config.nat = false);
    }
    if has_names {
        names(plan, rng);
    }
    if has_limits {
        for member in &mut plan.members {
            let mut limit = || flip(rng).then(|| 100_000 << rng.below(6));
            member.config.upload_limit_bytes_per_sec = limit();
            member.config.download_limit_bytes_per_sec = limit();
        }
    }
    if !has_gateways && !has_names && flip(rng) {
        let at = Duration::from_millis(rng.below(safety_ms));
        plan.act(at, What::Leave { peer: rng.u64() });
    }
}

/// Gives some members an onion name, no DHT and no IP address. They get the first member's address, so that nothing may
/// make them ban it.
fn names(plan: &mut Plan, rng: &mut Rng) {
    let Some(first) = plan.members.first_mut() else { return };
    first.config.nat = false;
    let joins_at = first.joins_at;
    for (index, member) in plan.members.iter_mut().enumerate().skip(plan.gateways.max(1)) {
        if is_one_in(rng, 3) {
            member.config.nat = false;
            member.config.dht = false;
            member.config.name = Some(onion(index + 1));
            member.knows = vec![0];
            member.joins_at = member.joins_at.max(joins_at);
        }
    }
    for act in &mut plan.acts {
        if let What::Crash { store: store @ Fate::Rots, .. } = &mut act.what {
            *store = Fate::LosesBlob;
        }
    }
}

fn world(rng: &mut Rng) -> WorldConfig {
    let latency_min = rng.below(50);
    let disk_min = rng.below(1_000);
    WorldConfig {
        latency_ms: latency_min..=latency_min + rng.below(400),
        window_bytes: (32 * 1024) << rng.below(6),
        cut_bytes_max: 2048 << rng.below(6),
        disk_us: disk_min..=disk_min + rng.below(50_000),
        dht: DhtConfig { latency_ms: 20..=100 + rng.below(6_000), loss_percent: rng.below(50) },
        ..WorldConfig::default()
    }
}

/// Draws the acts: any number of each kind that is switched on, at any time of the safety phase.
fn acts(plan: &mut Plan, rng: &Rng, options: &mut Rng, safety_ms: u64) {
    let kinds: Vec<u64> = (0..KINDS).filter(|_| flip(options)).collect();
    let count = options.below(24);
    for index in 0..count {
        let mut rng = rng.fork(&format!("act {index}"));
        if kinds.is_empty() {
            break;
        }
        let kind = kinds[small(&mut rng, kinds.len())];
        let at = Duration::from_millis(rng.below(safety_ms));
        let what = act(kind, &mut rng);
        plan.acts.push(super::Act { at, what });
    }
}

/// Kinds of acts that can be switched off.
const KINDS: u64 = 15;

fn act(kind: u64, rng: &mut Rng) -> What {
    let peer = rng.u64();
    let lasts = Duration::from_millis(200 + rng.below(60_000));
    match kind {
        0 => What::Crash { peer, store: Fate::Kept, lasts },
        1 => {
            let fates = [Fate::Wiped, Fate::LosesBlob, Fate::Rots];
            What::Crash { peer, store: fates[small(rng, fates.len())], lasts }
        }
        2 => What::AuthorLeaves { lasts: Some(lasts) },
        3 => What::Partition { share_percent: rng.below(100), one_way: flip(rng), lasts },
        4 => What::Stall { peer, lasts },
        5 => What::LatencySpike { peer, latency: Duration::from_millis(rng.below(5_000)) },
        6 => What::Reset { peer },
        7 => What::HalfOpen { peer },
        8 => What::Clock { peer, ahead_ms: offset(rng, 3_600_000) },
        9 => What::StoreFull { peer, lasts },
        10 => What::StoreFails { peer, lasts },
        11 => What::DhtAway { lasts },
        12 => [What::Update, What::StaleHead, What::ForkedHead][small(rng, 3)].clone(),
        13 => What::ProxyFails { peer, lasts },
        _ => What::Attack(Attack::ALL[small(rng, Attack::ALL.len())]),
    }
}

/// Draws a number below `bound`.
fn small(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).expect("below the bound")
}

fn flip(rng: &mut Rng) -> bool {
    is_one_in(rng, 2)
}

fn is_one_in(rng: &mut Rng, n: u64) -> bool {
    rng.below(n) == 0
}

/// Draws a time from `-max` to `max`, in milliseconds.
fn offset(rng: &mut Rng, max: u64) -> i64 {
    i64::try_from(rng.below(2 * max + 1)).expect("hours") - i64::try_from(max).expect("hours")
}
