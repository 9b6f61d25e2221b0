//! The simulator: many nodes of `megatorrent-core` in one thread and in virtual time, reproducible from one number.
//!
//! # Goals
//! - The nodes are the real ones: core seals, frames and opens every byte, and the links cut the stream at arbitrary
//!   places. Core is driven like a real driver does, by its public methods alone. For thousands of nodes, a world over
//!   [`NullSuite`] has checksums in place of ciphers, and content of zeros has no weight there; nothing else differs.
//! - One `u64` draws everything. Two runs of one seed have the same [`World::trace_hash`], on any machine.
//! - No tick: the clock jumps from event to event, and a node is woken exactly at its own deadline, so that chance never
//!   makes up for a forgotten one. No step visits all nodes.
//! - Checkers run all the way: a node that exceeds a cap, reuses a job, spins, or lets a sequence go back ends the run.
//!
//! # Non-goals
//! - The simulator implements no rule of the protocol. The DHT is an ideal key-value store with a real one's faults and
//!   rules; TCP is a pair of byte pipes with latency, a bounded window, resets and half-open links.
//!
//! # Example
//! ```
//! use megatorrent_core::ids::Secret;
//! use megatorrent_sim::{HostConfig, World, WorldConfig};
//! use std::time::Duration;
//!
//! let mut world = World::new(1, WorldConfig::default());
//! let seed = Some(Secret::new([7; 32]));
//! let author = world.add_host(HostConfig { identity_seed: seed, ..HostConfig::default() });
//! let reader = world.add_host(HostConfig::default());
//! let file = world.ingest(author, "hello.txt", b"Hello!");
//! world.publish(author, "Greetings", &[file.clone()], false);
//! let channel = world.channel(author).expect("it has an identity");
//! world.follow(reader, channel, None);
//! assert!(world.run_until(Duration::from_secs(60), |world| world.is_complete(reader, &channel)));
//! assert_eq!(world.read_file(reader, &file).as_deref(), Some(&b"Hello!"[..]));
//! ```

#![forbid(unsafe_code)]

mod adversary;
mod announces;
mod author;
mod checker;
mod config;
mod dht;
mod dice;
mod faults;
mod host;
mod link;
mod net;
mod null;
pub mod picture;
mod queue;
pub mod scenario;
pub mod shrink;
mod sparse;
mod store;
mod stranger;
mod table;
mod trace;
mod traffic;
mod v5;
mod world;

pub use adversary::Attack;
pub use checker::Checker;
pub use config::{DhtConfig, HostConfig, WorldConfig};
pub use dht::{Dht, ITEM_LIFETIME, PEER_LIFETIME, REPLICAS};
pub use faults::{Bug, Cap, PartitionId};
pub use host::HostId;
pub use link::LinkId;
pub use net::DIAL_TIMEOUT;
pub use null::{NullDirection, NullHandshake, NullSuite};
pub use store::Store;
pub use stranger::StrangerEvent;
pub use traffic::Traffic;
pub use world::{LISTEN_PORT, News, World};
