//! Eight big channels whose seeds are gone, and a ninth.

use std::time::Duration;

use megatorrent_sim::{HostConfig, HostId, World};

use crate::dead_channels::scene::{Author, Death, Small, author, die, physics, stored, time_to_complete};

/// More data blobs than a fetch has in hand at once, as a channel of over 1 GiB has.
const BLOBS: usize = 1100;
const NINTH_BLOBS: usize = 32;

#[derive(Clone, Copy, Debug)]
enum When {
    TreeKnown,
    HalfFetched,
}

#[derive(Clone, Copy, Debug)]
struct Story {
    when: When,
    death: Death,
    /// Peers that follow the dead channels and have nothing of them.
    empty_handed: usize,
    /// The ninth is followed this long after the last seed is gone; `None`: while four of the seeds are there.
    after: Option<Duration>,
    /// The ninth's seed follows the dead ones too.
    seed_follows: bool,
}

struct Scene {
    world: World<Small>,
    follower: HostId,
    dead: Vec<Author>,
    ninth: Author,
}

impl Scene {
    fn new(seed: u64, blobs: usize) -> Self {
        let mut world = World::<Small>::with_suite(seed, physics());
        let dead = (0..8).map(|n| author(&mut world, n, blobs)).collect();
        let ninth = author(&mut world, 8, NINTH_BLOBS);
        world.run_for(Duration::from_mins(1));
        let follower = world.add_host(HostConfig::default());
        Self { world, follower, dead, ninth }
    }

    fn is_due(&self, author: &Author, when: When) -> bool {
        let has = stored(&self.world, self.follower, &author.channel);
        match when {
            When::TreeKnown => has >= author.tree_blobs,
            When::HalfFetched => has >= author.data_blobs / 2,
        }
    }

    /// The follower follows the eight, whose seeds go as soon as it has of each what the story says. `on_death` is told how
    /// many are left.
    fn let_them_die(&mut self, story: &Story, others: &[HostId], mut on_death: impl FnMut(&mut Self, usize)) {
        for author in &self.dead {
            self.world.follow(self.follower, author.channel, None);
        }
        let limit = self.world.now() + Duration::from_mins(30);
        let mut alive = core::mem::take(&mut self.dead);
        while !alive.is_empty() {
            assert!(self.world.now() < limit, "{story:?}");
            self.world.run_for(Duration::from_millis(5));
            let (due, left): (Vec<_>, Vec<_>) =
                alive.into_iter().partition(|author| self.is_due(author, story.when));
            die(&mut self.world, &due, story.death, others);
            alive = left;
            if !due.is_empty() {
                on_death(self, alive.len());
            }
            self.dead.extend(due);
        }
    }

    /// How long the ninth takes in this story.
    fn time(mut self, story: &Story) -> Duration {
        let (channel, follower) = (self.ninth.channel, self.follower);
        let empty_handed: Vec<HostId> =
            (0..story.empty_handed).map(|_| self.world.add_host(HostConfig::default())).collect();
        let others: Vec<HostId> = empty_handed.iter().copied().chain([follower, self.ninth.host]).collect();
        let mut began = None;
        self.let_them_die(story, &others, |scene, left| {
            if story.after.is_none() && left <= 4 && began.is_none() {
                began = Some(scene.world.now());
                scene.world.follow(follower, channel, None);
            }
        });
        let seed = Some(self.ninth.host).filter(|_| story.seed_follows);
        for host in empty_handed.into_iter().chain(seed) {
            self.dead.iter().for_each(|author| self.world.follow(host, author.channel, None));
        }
        self.world.run_for(story.after.unwrap_or_default());
        let began = began.unwrap_or_else(|| {
            self.world.follow(follower, channel, None);
            self.world.now()
        });
        let took = time_to_complete(&mut self.world, follower, &channel, began).expect("it completes");
        assert!(
            self.dead.iter().all(|author| !self.world.is_complete(follower, &author.channel)),
            "{story:?}"
        );
        took
    }

    /// How long the ninth takes in a world where nothing else is followed.
    fn time_alone(mut self) -> Duration {
        let began = self.world.now();
        self.world.follow(self.follower, self.ninth.channel, None);
        time_to_complete(&mut self.world, self.follower, &self.ninth.channel, began).expect("it completes")
    }
}

fn the_ninth_is_in_time(when: When, death: Death, count: usize) {
    let secs = |n| Some(Duration::from_secs(n));
    let stories = [
        (0, secs(0), false),
        (0, None, false),
        (10, secs(60), false),
        (0, secs(3), true),
        (5, secs(0), true),
    ];
    for (seed, (empty_handed, after, seed_follows)) in (1..).zip(stories.into_iter().take(count)) {
        let story = Story { when, death, empty_handed, after, seed_follows };
        let alone = Scene::new(seed, 1).time_alone();
        let took = Scene::new(seed, BLOBS).time(&story);
        let bound = alone * 6 / 5 + Duration::from_millis(500);
        assert!(took <= bound, "{story:?}: {took:?} instead of {alone:?}");
    }
}

#[test]
fn a_ninth_is_in_time_where_eight_seeds_close_once_it_is_known_what_they_have() {
    the_ninth_is_in_time(When::TreeKnown, Death::Closes, 5);
}

#[test]
fn a_ninth_is_in_time_where_eight_seeds_close_halfway() {
    the_ninth_is_in_time(When::HalfFetched, Death::Closes, 2);
}

#[test]
fn a_ninth_is_in_time_where_eight_seeds_vanish_once_it_is_known_what_they_have() {
    the_ninth_is_in_time(When::TreeKnown, Death::Vanishes, 5);
}

#[test]
fn a_ninth_is_in_time_where_eight_seeds_vanish_halfway() {
    the_ninth_is_in_time(When::HalfFetched, Death::Vanishes, 2);
}
