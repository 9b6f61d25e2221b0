//! Everything that will happen in a scenario, drawn before it begins.

use std::time::Duration;

use megatorrent_core::addr::{OnionAddr, PeerAddr};
use megatorrent_core::ids::Secret;
use megatorrent_core::rng::Rng;

use super::{Crypto, LIARS_OF_A_KIND, PEERS_MAX, Params, Scenario, V5_BLOBS_MAX, options};
use crate::adversary::Attack;
use crate::config::{HostConfig, WorldConfig};
use crate::world::LISTEN_PORT;

/// Everything that will happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The physics.
    pub world: WorldConfig,
    /// The author's host.
    pub author: HostConfig,
    /// The peers, each with the time at which it joins.
    pub members: Vec<Member>,
    /// How many members, the first ones, are there before the author publishes, as its gateways. 0: it publishes by its own
    /// DHT.
    pub gateways: usize,
    /// Further gateways that store nothing.
    pub false_gateways: usize,
    /// Blobs of content in the first version.
    pub blobs: usize,
    /// Each blob of content is its own file, as a v5 head lists them.
    pub lists_chunks: bool,
    /// Whether the channel is private.
    pub private: bool,
    /// The acts, independent of each other, so that any of them can be left out.
    pub acts: Vec<Act>,
    /// Forks heal as well: the author publishes once more, and no head is forked afterwards. Where they do not, a peer keeps
    /// a forked head that it meets first.
    pub heals_forks: bool,
    /// When everything heals that can. Times are since the channel's publication.
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
    /// Earlier members whose addresses it gets.
    pub knows: Vec<usize>,
    /// It is a plain v5 peer.
    pub is_v5: bool,
}

impl Member {
    /// What kind of peer it is.
    pub fn kind(&self) -> Kind {
        match &self.config {
            _ if self.is_v5 => Kind::V5,
            config if config.gateway => Kind::Gateway,
            config if config.name.is_some() => Kind::OnionOnly,
            config if !config.dht => Kind::WithoutDht,
            _ => Kind::Peer,
        }
    }
}

/// Kinds of hosts, which some scenarios compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The author.
    Author,
    /// A node with a DHT.
    Peer,
    /// A gateway.
    Gateway,
    /// A node with an onion name, without a DHT or an IP address.
    OnionOnly,
    /// A node without a DHT.
    WithoutDht,
    /// A plain v5 peer.
    V5,
}

impl Kind {
    /// Its name in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Author => "the author",
            Self::Peer => "v6 peers",
            Self::Gateway => "gateways",
            Self::OnionOnly => "onion-only peers",
            Self::WithoutDht => "peers without a DHT",
            Self::V5 => "v5 peers",
        }
    }
}

/// An act, and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The time.
    pub at: Duration,
    /// The act.
    pub what: What,
}

/// An act. A `peer` is any number: its remainder by the number of peers is the peer's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A peer's process is killed, and started again.
    Crash {
        /// The peer.
        peer: u64,
        /// What happens to its store meanwhile.
        store: Fate,
        /// The duration.
        lasts: Duration,
    },
    /// A peer leaves for good.
    Leave {
        /// The peer.
        peer: u64,
    },
    /// The author leaves for a while, or for good; not before another peer has everything.
    AuthorLeaves {
        /// The duration; `None`: for good.
        lasts: Option<Duration>,
    },
    /// Nothing passes between two parts of the swarm, in one or both directions.
    Partition {
        /// How many of a hundred hosts are on the author's side.
        share_percent: u64,
        /// Only what comes from the author's side is lost.
        one_way: bool,
        /// The duration.
        lasts: Duration,
    },
    /// Nothing passes from or to a peer.
    Stall {
        /// The peer.
        peer: u64,
        /// The duration.
        lasts: Duration,
    },
    /// All links of a peer get a high latency.
    LatencySpike {
        /// The peer.
        peer: u64,
        /// The one-way latency.
        latency: Duration,
    },
    /// All connections of a peer are reset.
    Reset {
        /// The peer.
        peer: u64,
    },
    /// All connections of a peer fall silent for ever, and neither end is told.
    HalfOpen {
        /// The peer.
        peer: u64,
    },
    /// A peer's proxy dies: all its connections drop, its dials fail, and no host reaches it.
    ProxyFails {
        /// The peer.
        peer: u64,
        /// The duration.
        lasts: Duration,
    },
    /// A peer's clock is set.
    Clock {
        /// The peer.
        peer: u64,
        /// How far ahead of the world it is set; behind, where negative.
        ahead_ms: i64,
    },
    /// A peer's disk is full.
    StoreFull {
        /// The peer.
        peer: u64,
        /// The duration.
        lasts: Duration,
    },
    /// A peer's disk takes nothing.
    StoreFails {
        /// The peer.
        peer: u64,
        /// The duration.
        lasts: Duration,
    },
    /// No DHT node answers.
    DhtAway {
        /// The duration.
        lasts: Duration,
    },
    /// The author publishes another version, with one more file.
    Update,
    /// The channel's first head replaces all copies on the DHT.
    StaleHead,
    /// Another head of the same sequence, properly signed, replaces all copies on the DHT; not before all peers that are up
    /// know the right one.
    ForkedHead,
    /// All peers that are there get the author's address, as of a bootstrap peer.
    Introduce,
    /// An adversary joins, for good.
    Attack(Attack),
}

/// What happens to a store while its host is down.
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

/// How long a scenario's peers have to complete after the healing.
const BOUND: Duration = Duration::from_mins(20);
pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Plan {
    /// Draws the plan of a scenario: equal parameters give equal plans. Every peer and act has its own random number
    /// generator, so that leaving some out does not change the others.
    pub fn draw(scenario: Scenario, params: &Params) -> Self {
        let rng = Rng::new([0; 32]).fork(&format!("plan {scenario} {}", params.seed));
        let (peers, blobs) = match scenario {
            Scenario::FlashCrowd => (20, 32),
            // Enough for an adversary of each kind.
            Scenario::Hostile => (4 * Attack::ALL.len(), 8),
            Scenario::Liars => (1, 64),
            Scenario::UpdatePush => (30, 2),
            Scenario::OnionOnly | Scenario::Gateway => (12, 6),
            Scenario::Mixed => (12, V5_BLOBS_MAX),
            Scenario::Random => options::sizes(&rng),
            Scenario::AuthorLeaves | Scenario::Partition | Scenario::Churn | Scenario::Nat => (16, 12),
        };
        let peers = params.peers.unwrap_or(peers).clamp(1, PEERS_MAX);
        let blobs = params.blobs.unwrap_or(blobs).clamp(1, scenario.blobs_max());
        let mut plan = Self::calm(peers, blobs);
        match scenario {
            Scenario::FlashCrowd => plan.flash_crowd(),
            Scenario::AuthorLeaves => plan.author_leaves(),
            Scenario::Partition => plan.partition(),
            Scenario::Churn => plan.churn(&rng),
            Scenario::Hostile => plan.hostile(),
            Scenario::Liars => plan.liars(),
            Scenario::Nat => plan.nat(&rng),
            Scenario::UpdatePush => plan.update_push(),
            Scenario::OnionOnly => plan.onion_only(),
            Scenario::Gateway => plan.gateway(),
            Scenario::Mixed => plan.mixed(),
            Scenario::Random => options::draw(&mut plan, &rng, params.crypto(scenario) == Crypto::Real),
        }
        plan.bound = params.bound.unwrap_or(plan.bound);
        plan.world.has_weight = params.weight;
        plan
    }

    /// Makes a swarm without acts.
    fn calm(peers: usize, blobs: usize) -> Self {
        let author = HostConfig {
            identity_seed: Some(Secret::new([7; 32])),
            read_key: Some(Secret::new([8; 32])),
            ..HostConfig::default()
        };
        let config = HostConfig::default();
        let member = Member { joins_at: Duration::ZERO, config, knows: Vec::new(), is_v5: false };
        Self {
            world: WorldConfig::default(),
            author,
            members: vec![member; peers],
            gateways: 0,
            false_gateways: 0,
            blobs,
            lists_chunks: false,
            private: false,
            acts: Vec::new(),
            heals_forks: false,
            heal_at: Duration::ZERO,
            bound: BOUND,
            is_measured: false,
        }
    }

    pub(super) fn act(&mut self, at: Duration, what: What) {
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
        // Peers wait for bans and the back-offs of dead addresses to end, at most half an hour.
        self.bound = Duration::from_mins(30);
    }

    fn liars(&mut self) {
        self.world.latency_ms = 10..=60;
        self.world.window_bytes = 2 << 20;
        self.author.upload_limit_bytes_per_sec = Some(8_000_000);
        for attack in Attack::ALL {
            (0..LIARS_OF_A_KIND).for_each(|_| self.act(Duration::ZERO, What::Attack(attack)));
        }
        // They are there first.
        self.act(secs(10), What::Introduce);
        self.heal_at = secs(10);
        self.members.iter_mut().for_each(|member| member.joins_at = secs(10));
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

    /// Makes the first members gateways, and the author a node that reaches the DHT only through them.
    pub(super) fn publish_via(&mut self, gateways: usize) {
        self.gateways = gateways.min(self.members.len());
        self.members.iter_mut().take(gateways).for_each(|member| member.config.gateway = true);
        self.author.dht = false;
    }

    fn onion_only(&mut self) {
        self.publish_via(2);
        self.author.name = Some(onion(0));
        // So that other peers have to seed too.
        self.author.upload_bytes_per_sec = 2_000_000;
        let gateways = self.gateways;
        for (index, member) in self.members.iter_mut().enumerate().skip(gateways) {
            member.joins_at = secs(index as u64 % 4 * 10);
            if index % 3 > 0 {
                member.config.dht = false;
                member.config.name = Some(onion(index + 1));
                member.knows = vec![index % gateways];
            }
        }
        let (peer, lasts) = (gateways as u64 + 2, secs(30));
        self.act(secs(50), What::ProxyFails { peer, lasts });
        for at in [60, 100] {
            self.act(secs(at), What::Update);
        }
        self.heal_at = secs(110);
    }

    fn gateway(&mut self) {
        self.publish_via(3);
        self.false_gateways = 1;
        let gateways = self.gateways;
        for (index, member) in self.members.iter_mut().enumerate().skip(gateways) {
            member.joins_at = secs(index as u64 % 4 * 10);
            if index % 2 > 0 {
                member.config.dht = false;
                member.knows = vec![index % gateways, (index + 1) % gateways];
            }
        }
        self.act(secs(15), What::Update);
        if gateways > 1 {
            self.act(secs(25), What::Leave { peer: 0 });
        }
        for at in [45, 150] {
            self.act(secs(at), What::Update);
        }
        self.heal_at = secs(160);
    }

    fn mixed(&mut self) {
        self.lists_chunks = true;
        for (index, member) in self.members.iter_mut().enumerate() {
            member.is_v5 = index % 3 == 1;
            // The first v6 peers find only v5 peers, and the last v5 peers find no author.
            let joins_at = match index % 6 {
                1 => 0,
                4 => 90,
                _ => 40 + index as u64 % 5,
            };
            member.joins_at = secs(joins_at);
        }
        self.act(secs(10), What::AuthorLeaves { lasts: None });
        self.heal_at = secs(90);
    }
}

/// Returns an onion name, another one for each number.
pub(super) fn onion(number: usize) -> PeerAddr {
    let mut public_key = [0; 32];
    public_key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PeerAddr::Onion(OnionAddr::from_public_key(public_key), LISTEN_PORT)
}
