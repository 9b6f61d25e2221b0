//! Megatorrent's protocol core: every rule of the protocol as state machines and pure functions, with bytes and time
//! going in and actions coming out.
//!
//! # Goals
//! - Every decision of a node is made here, so that a real network and a simulator drive the same code.
//! - The same seed and the same inputs give the same actions, to the byte.
//! - Peer bytes, manifests and DHT items are hostile: each bad one has a named end, none can make it panic, and all
//!   memory that they can claim is bounded by [`limits`].
//!
//! # Non-goals
//! - Sockets, files, clocks, randomness of the operating system, threads and `async`: a driver owns those.
//!
//! # Layers
//! ```text
//! bytes → transport::Link (handshake, frames, ciphers) → codec (Message) → conn (one connection) → node (all decisions)
//! beside them, pure: identity, uri, bep44, blob, parts, tree, manifest
//! ```
//! Each layer is usable alone and knows nothing of those above it: [`client`] is a peer made of the first two, and
//! [`conn`] shows a client made of the first three.
//!
//! # Driving a node
//! [`node::Node`] lists its methods by class. A driver owns the sockets and does three things: it hands in what
//! happened, it carries out what [`node::Node::poll`] says, and it moves bytes where a connection has room or a
//! chunk. This one drives two nodes over a pipe in memory until both are keyed:
//!
//! ```
//! use megatorrent_core::ids::{CommandId, ConnId};
//! use megatorrent_core::node::{Action, Command, Config, DhtError, Event, Input, Job, JobResult, Node};
//! use megatorrent_core::time::{Instant, UnixTime};
//!
//! /// Carries out what a node asks for: here, whatever needs no network is refused.
//! fn drain(node: &mut Node, now: Instant, open: &mut Vec<ConnId>, dial: &mut Option<megatorrent_core::ids::JobId>) {
//!     while let Some(action) = node.poll() {
//!         match action {
//!             Action::Dial(job, _addr) => *dial = Some(job),
//!             Action::Job(id, Job::Dht(_)) => {
//!                 node.handle(now, Input::Done(id, JobResult::DhtDone(Err(DhtError::Disabled))));
//!             }
//!             Action::Event(Event::Connected { conn, .. }) => open.push(conn),
//!             // A real driver reads blobs, writes records and wakes its socket tasks here.
//!             _ => {}
//!         }
//!     }
//! }
//!
//! /// Moves what `from` has to send into `to`.
//! fn carry(now: Instant, from: (&mut Node, ConnId), to: (&mut Node, ConnId)) {
//!     loop {
//!         let chunk = from.0.send_chunk(now, from.1).to_vec();
//!         let space = to.0.recv_space(to.1);
//!         let n = chunk.len().min(space.len());
//!         if n == 0 {
//!             return; // Nothing to send, or no room: a real driver waits for Writable or Readable.
//!         }
//!         space[..n].copy_from_slice(&chunk[..n]);
//!         to.0.received(now, to.1, n);
//!         from.0.sent(now, from.1, n);
//!     }
//! }
//!
//! let now = Instant(0);
//! let mut node = |seed| Node::new(Config::default(), [seed; 32], now, UnixTime(1_700_000_000_000));
//! let (mut alice, mut bob) = (node(1), node(2));
//! let (mut alice_open, mut bob_open, mut dial) = (Vec::new(), Vec::new(), None);
//!
//! // Alice follows a channel, so she wants peers, and Bob is one.
//! let channel = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse()?;
//! alice.handle(now, Input::Command(CommandId(1), Command::AddPeer("192.0.2.1:6881".parse()?)));
//! alice.handle(now, Input::Command(CommandId(2), Command::Follow { channel, read_key: None }));
//! drain(&mut alice, now, &mut alice_open, &mut dial);
//!
//! // The dial succeeds: each side gets a connection.
//! let to_bob = alice.dialed(now, dial.expect("Alice dials Bob"), true).expect("there is room");
//! let to_alice = bob.accept(now, "192.0.2.2:50000".parse()?).expect("there is room");
//! carry(now, (&mut alice, to_bob), (&mut bob, to_alice));
//! carry(now, (&mut bob, to_alice), (&mut alice, to_bob));
//!
//! drain(&mut alice, now, &mut alice_open, &mut dial);
//! drain(&mut bob, now, &mut bob_open, &mut dial);
//! assert_eq!((alice_open, bob_open), (vec![to_bob], vec![to_alice]));
//! // `deadline` says when to wake a node and why: Alice looks for the channel's head at once, then again later.
//! assert_eq!(alice.deadline(), Some((now, "channel look-up")));
//! alice.handle(now, Input::Wake);
//! drain(&mut alice, now, &mut Vec::new(), &mut dial);
//! assert!(alice.deadline().is_some_and(|(at, _why)| at > now));
//! # Ok::<(), megatorrent_core::error::ParseError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that meets the unexpected shall fail"))]

extern crate alloc;

pub mod addr;
mod base32;
mod base64;
pub mod bep44;
pub mod blob;
mod bucket;
pub mod buffer;
pub mod client;
pub mod codec;
pub mod conn;
pub mod error;
mod hex;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod node;
pub mod parts;
pub mod rng;
pub mod suite;
pub mod time;
pub mod transport;
pub mod tree;
pub mod uri;
mod wire;

/// What a driver or a foreign interface holds may move between threads.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<node::Node>();
    is_send::<node::Input>();
    is_send::<node::Action>();
    is_send::<conn::Conn>();
    is_send::<conn::Incoming>();
    is_send::<transport::Link<suite::RealSuite>>();
    is_send::<client::Client>();
    is_send::<identity::Identity>();
    is_send::<buffer::Buffer>();
    is_send::<rng::Rng>();
};
