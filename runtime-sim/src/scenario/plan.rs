//! Everything that will happen in a scenario, drawn before it begins.

use std::time::Duration;

use megatorrent_core::ids::Secret;
use megatorrent_core::rng::Rng;

use super::{BLOBS_MAX, PEERS_MAX, Params, Scenario, options};
use crate::adversary::Attack;
use crate::config::{HostConfig, WorldConfig};

/// All that will happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The physics.
    pub world: WorldConfig,
    /// The author's host.
    pub author: HostConfig,
    /// The peers, each with when it joins.
    pub members: Vec<Member>,
    /// Blobs of content in the first version.
    pub blobs: usize,
    /// Whether the channel is private.
    pub private: bool,
    /// What happens, each apart from the others, so that any of them can be left out.
    pub acts: Vec<Act>,
    /// When everything that can heal does. Times are since the channel's publication.
    pub heal_at: Duration,
    /// How long after `heal_at` every honest peer has to complete.
    pub bound: Duration,
    /// All peers join at once and nothing but the links limits them, so that the time has a known lower bound.
    pub is_measured: bool,
}

/// A peer.
#[derive(Clone, Debug)]
pub struct Member {
    /// When it joins.
    pub joins_at: Duration,
    /// Its host.
    pub config: HostConfig,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What can happen. A `peer` is any number: its remainder by the number of peers is the peer's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A peer's process is killed, and started again.
    Crash {
        /// Who.
        peer: u64,
        /// What becomes of its store meanwhile.
        store: Fate,
        /// For how long.
        lasts: Duration,
    },
    /// A peer goes for good.
    Leave {
        /// Who.
        peer: u64,
    },
    /// The author is gone for a while, or for good; not before some other peer has everything.
    AuthorLeaves {
        /// For how long; `None`: for good.
        lasts: Option<Duration>,
    },
    /// Nothing passes between two parts of the swarm, or nothing one way.
    Partition {
        /// Of a hundred hosts, how many are on the author's side.
        share_percent: u64,
        /// Only what comes from the author's side is lost.
        one_way: bool,
        /// For how long.
        lasts: Duration,
    },
    /// Nothing passes from or to a peer.
    Stall {
        /// Who.
        peer: u64,
        /// For how long.
        lasts: Duration,
    },
    /// All links of a peer become slow to arrive.
    LatencySpike {
        /// Who.
        peer: u64,
        /// One way.
        latency: Duration,
    },
    /// All connections of a peer are reset.
    Reset {
        /// Who.
        peer: u64,
    },
    /// All connections of a peer fall silent for ever, and nobody is told.
    HalfOpen {
        /// Who.
        peer: u64,
    },
    /// A peer's clock is set.
    Clock {
        /// Who.
        peer: u64,
        /// How far ahead of the world it then is; behind, where negative.
        ahead_ms: i64,
    },
    /// A peer's disk is full.
    StoreFull {
        /// Who.
        peer: u64,
        /// For how long.
        lasts: Duration,
    },
    /// A peer's disk takes nothing.
    StoreFails {
        /// Who.
        peer: u64,
        /// For how long.
        lasts: Duration,
    },
    /// No DHT node answers anybody.
    DhtAway {
        /// For how long.
        lasts: Duration,
    },
    /// The author publishes another version, with one file more.
    Update,
    /// All the DHT holds of the channel becomes its first head again.
    StaleHead,
    /// All the DHT holds of the channel becomes another head of the same sequence, properly signed; not before all
    /// peers that are up know the right one.
    ForkedHead,
    /// An adversary joins, for good.
    Attack(Attack),
}

/// What becomes of a store while its host is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Kept,
    /// It is lost.
    Wiped,
    /// A blob is lost.
    LosesBlob,
    /// A bit of a blob flips.
    Rots,
}

/// How long a scenario's peers have to complete once all is healed.
const BOUND: Duration = Duration::from_mins(20);

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Plan {
    /// The plan of a scenario: equal parameters give equal plans. Every peer and act has a random number generator of
    /// its own, so that fewer of them leave the others as they are.
    pub fn draw(scenario: Scenario, params: &Params) -> Self {
        let rng = Rng::new([0; 32]).fork(&format!("plan {scenario} {}", params.seed));
        let (peers, blobs) = match scenario {
            Scenario::FlashCrowd => (20, 32),
            Scenario::Hostile => (32, 8),
            Scenario::UpdatePush => (30, 2),
            Scenario::Random => options::sizes(&mut rng.fork("sizes")),
            Scenario::AuthorLeaves | Scenario::Partition | Scenario::Churn | Scenario::Nat => (16, 12),
        };
        let peers = params.peers.unwrap_or(peers).clamp(1, PEERS_MAX);
        let blobs = params.blobs.unwrap_or(blobs).clamp(1, BLOBS_MAX);
        let mut plan = Self::calm(peers, blobs);
        match scenario {
            Scenario::FlashCrowd => plan.flash_crowd(),
            Scenario::AuthorLeaves => plan.author_leaves(),
            Scenario::Partition => plan.partition(),
            Scenario::Churn => plan.churn(&rng),
            Scenario::Hostile => plan.hostile(),
            Scenario::Nat => plan.nat(&rng),
            Scenario::UpdatePush => plan.update_push(),
            Scenario::Random => options::draw(&mut plan, &rng),
        }
        plan
    }

    /// A swarm to which nothing happens.
    fn calm(peers: usize, blobs: usize) -> Self {
        let author = HostConfig {
            identity_seed: Some(Secret::new([7; 32])),
            read_key: Some(Secret::new([8; 32])),
            ..HostConfig::default()
        };
        let member = Member { joins_at: Duration::ZERO, config: HostConfig::default() };
        Self {
            world: WorldConfig::default(),
            author,
            members: vec![member; peers],
            blobs,
            private: false,
            acts: Vec::new(),
            heal_at: Duration::ZERO,
            bound: BOUND,
            is_measured: false,
        }
    }

    fn act(&mut self, at: Duration, what: What) {
        self.acts.push(Act { at, what });
    }

    fn flash_crowd(&mut self) {
        self.world.latency_ms = 10..=60;
        self.world.window_bytes = 1 << 20;
        self.is_measured = true;
        for config in self.members.iter_mut().map(|member| &mut member.config).chain([&mut self.author]) {
            config.upload_bytes_per_sec = 2_000_000;
            config.download_bytes_per_sec = Some(8_000_000);
        }
    }

    fn author_leaves(&mut self) {
        self.author.upload_bytes_per_sec = 4_000_000;
        let half = self.members.len() / 2;
        self.members.iter_mut().skip(half.max(1)).for_each(|member| member.joins_at = secs(60));
        self.act(secs(1), What::AuthorLeaves { lasts: None });
        self.heal_at = secs(60);
    }

    fn partition(&mut self) {
        self.author.upload_bytes_per_sec = 4_000_000;
        self.act(secs(4), What::Partition { share_percent: 50, one_way: false, lasts: secs(40) });
        self.act(secs(50), What::Partition { share_percent: 30, one_way: true, lasts: secs(30) });
        self.heal_at = secs(80);
    }

    fn churn(&mut self, rng: &Rng) {
        self.author.upload_bytes_per_sec = 4_000_000;
        self.heal_at = secs(180);
        for (index, member) in self.members.iter_mut().enumerate() {
            member.joins_at = Duration::from_millis(rng.fork(&format!("join {index}")).below(60_000));
        }
        for index in 0..2 * self.members.len() {
            let mut rng = rng.fork(&format!("act {index}"));
            let at = secs(5 + rng.below(150));
            let peer = rng.u64();
            let lasts = Duration::from_millis(500 + rng.below(40_000));
            let what = match rng.below(20) {
                0 => What::Leave { peer },
                1..=4 => What::Crash { peer, store: Fate::Wiped, lasts },
                5 => What::Crash { peer, store: Fate::LosesBlob, lasts },
                _ => What::Crash { peer, store: Fate::Kept, lasts },
            };
            self.act(at, what);
        }
    }

    fn hostile(&mut self) {
        // Honest hosts are four of five, the author among them.
        let adversaries = self.members.len().div_ceil(4);
        for attack in Attack::ALL.into_iter().cycle().take(adversaries) {
            self.act(Duration::ZERO, What::Attack(attack));
        }
        self.act(secs(20), What::Update);
        self.act(secs(60), What::StaleHead);
        self.act(secs(90), What::ForkedHead);
        for (index, member) in self.members.iter_mut().enumerate() {
            member.joins_at = secs(index as u64 % 4 * 10);
        }
        self.heal_at = secs(100);
        // Bans and dead addresses are waited out, none for longer than half an hour.
        self.bound = Duration::from_mins(30);
    }

    fn nat(&mut self, rng: &Rng) {
        for (index, member) in self.members.iter_mut().enumerate() {
            member.config.nat = rng.fork(&format!("nat {index}")).below(3) < 2;
        }
    }

    fn update_push(&mut self) {
        self.world.latency_ms = 20..=80;
        for at in [60, 100, 140] {
            self.act(secs(at), What::Update);
        }
        self.heal_at = secs(140);
    }
}
