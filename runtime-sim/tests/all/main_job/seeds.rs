//! Whole worlds drawn from a seed: first faults of all kinds, then a time in which everything must heal.

use std::time::Duration;

use crate::main_job::common::*;
use megatorrent_core::rng::Rng;
use megatorrent_sim::HostId;

const FAULTS: u64 = 40;

/// The seeds of which each run tries all; `SIM_SEEDS=FROM..TO` tries others.
fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("SIM_SEEDS").ok();
    let Some(text) = wanted else { return 0..12 };
    let (from, to) = text.split_once("..").expect("SIM_SEEDS is FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

#[test]
fn every_world_heals() {
    for seed in seeds() {
        let first = live(seed);
        assert_eq!(first, live(seed), "seed {seed} gives one trace");
    }
}

/// One world's life: its trace hash.
fn live(seed: u64) -> [u8; 32] {
    let mut rng = Rng::new([0; 32]).fork(&format!("faults {seed}"));
    let blobs = 1 + draw(&mut rng, 6);
    let mut swarm = Swarm::new(seed, blobs);
    let followers: Vec<HostId> = (0..=draw(&mut rng, 3)).map(|_| swarm.follower()).collect();
    let hosts: Vec<HostId> = followers.iter().copied().chain([swarm.author]).collect();
    for _ in 0..FAULTS {
        swarm.world.run_for(Duration::from_millis(rng.below(4_000)));
        swarm.world.check();
        let host = hosts[draw(&mut rng, hosts.len())];
        fault(&mut swarm, host, &mut rng);
    }
    swarm.world.dht_mut().set_up(true);
    for host in hosts {
        swarm.world.store_mut(host).set_room(usize::MAX);
        swarm.world.start(host);
    }
    for follower in followers {
        // It may have crashed before it could note what it was told.
        swarm.world.follow(follower, swarm.channel, None);
        swarm.assert_completes(follower);
    }
    swarm.world.trace_hash()
}

fn fault(swarm: &mut Swarm, host: HostId, rng: &mut Rng) {
    let links = swarm.world.links_of(host);
    match rng.below(9) {
        0 => swarm.world.crash(host),
        1..=3 => swarm.world.start(host),
        4 => links.into_iter().for_each(|link| swarm.world.reset(link)),
        5 => links.into_iter().for_each(|link| swarm.world.half_open(link)),
        6 => swarm.world.store_mut(host).set_room(draw(rng, 4)),
        7 => swarm.world.dht_mut().set_up(rng.below(2) == 0),
        _ => {
            // A blob is lost while the node is down; never the author's, as nobody else may have it.
            let may_lose = host != swarm.author && swarm.world.node(host).is_none();
            let lost = swarm.world.store(host).blob_ids().next().filter(|_| may_lose);
            lost.map(|id| swarm.world.store_mut(host).remove(&id));
        }
    }
}

fn draw(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).expect("below the bound")
}
