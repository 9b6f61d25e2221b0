//! A thousand followed channels, nine hundred of them dead.

use std::time::Duration;

use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_sim::{HostConfig, HostId, World};

use crate::dead_channels::scene::{
    Author, Death, RATE, Small, author, die, lose_data, physics, stored, time_to_follow,
};

/// Channels by what is left of them.
struct Channels {
    /// Not even a head is found.
    silent: u16,
    /// A head, but no peer that has anything.
    bodiless: u16,
    /// What is in them is known and a part of it is here, the rest is gone.
    half: u16,
    /// All of them is there, and here.
    live: u16,
}

/// Data blobs of a channel that comes to life.
const BLOBS: usize = 64;

struct Scene {
    world: World<Small>,
    follower: HostId,
    /// Live channels that the follower does not follow yet.
    next: Vec<Author>,
    alone: Duration,
}

impl Scene {
    /// The follower follows channels, and then their seeds are gone.
    fn new(seed: u64, channels: &Channels, death: Death) -> Self {
        let mut world = World::<Small>::with_suite(seed, physics());
        let mut authors =
            |from: u16, n: u16, blobs| (from..from + n).map(|n| author(&mut world, n, blobs)).collect();
        let bodiless: Vec<Author> = authors(0, channels.bodiless, 2);
        let half: Vec<Author> = authors(1000, channels.half, 66);
        let live: Vec<Author> = authors(2000, channels.live, 2);
        let next: Vec<Author> = authors(3000, 9, BLOBS);
        for author in &half {
            lose_data(&mut world, author);
        }
        world.run_for(Duration::from_mins(1));
        let config = HostConfig { upload_bytes_per_sec: 20 * RATE, ..HostConfig::default() };
        let follower = world.add_host(config);
        die(&mut world, &bodiless, death, &[follower]);
        let mut scene = Self { world, follower, next, alone: Duration::ZERO };
        scene.alone = scene.time_of_next();
        for n in 0..channels.silent {
            let mut secret = [9; 32];
            secret[..2].copy_from_slice(&n.to_be_bytes());
            let silent = Identity::new(&Secret::new(secret), None).public_key();
            scene.world.follow(follower, silent, None);
        }
        for author in bodiless.iter().chain(&half).chain(&live) {
            scene.world.follow(follower, author.channel, None);
        }
        scene.settle(&half, &live);
        die(&mut scene.world, &half, death, &[follower]);
        scene
    }

    /// Waits until the follower has of all channels what there is.
    fn settle(&mut self, half: &[Author], live: &[Author]) {
        let has_tree =
            |world: &World<Small>, a: &Author| stored(world, self.follower, &a.channel) >= a.tree_blobs;
        let limit = self.world.now() + Duration::from_hours(2);
        let is_settled = |world: &World<Small>| {
            half.iter().all(|author| has_tree(world, author))
                && live.iter().all(|author| world.is_complete(self.follower, &author.channel))
        };
        while !is_settled(&self.world) {
            assert!(self.world.now() < limit, "it does not get what there is");
            self.world.run_for(Duration::from_mins(1));
        }
    }

    fn time_of_next(&mut self) -> Duration {
        let next = self.next.pop().expect("one is left");
        time_to_follow(&mut self.world, self.follower, next.channel).expect("it completes")
    }

    fn a_live_one_takes_as_long_as_alone(&mut self, when: &str) {
        let took = self.time_of_next();
        assert!(took * 10 <= self.alone * 11, "{when}: {took:?} instead of {:?}", self.alone);
    }
}

fn run(seed: u64, channels: &Channels, death: Death) {
    let mut scene = Scene::new(seed, channels, death);
    for minutes in [0, 1, 10, 60] {
        scene.world.run_for(Duration::from_mins(minutes));
        scene.a_live_one_takes_as_long_as_alone(&format!("{minutes} min later"));
    }
    scene.world.crash(scene.follower);
    scene.world.start(scene.follower);
    for secs in [0, 10, 60, 600] {
        scene.world.run_for(Duration::from_secs(secs));
        scene.a_live_one_takes_as_long_as_alone(&format!("{secs} s after a restart"));
    }
}

#[test]
fn of_a_hundred_channels_ninety_dead_ones_cost_a_live_one_nothing() {
    for (seed, death) in [(1, Death::Closes), (2, Death::Vanishes)] {
        run(seed, &Channels { silent: 45, bodiless: 15, half: 30, live: 9 }, death);
    }
}

#[test]
#[ignore = "takes 5 min; scripts/soak runs it"]
fn of_a_thousand_channels_nine_hundred_dead_ones_cost_a_live_one_nothing() {
    for (seed, death) in [(1, Death::Closes), (2, Death::Vanishes)] {
        run(seed, &Channels { silent: 450, bodiless: 150, half: 300, live: 99 }, death);
    }
}
