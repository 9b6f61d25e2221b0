//! The node: every decision, over all connections.
//!
//! # How to drive it
//! Methods fall into four classes; any order is safe, none blocks, none calls back.
//! - **Control in**: [`Node::handle`], [`Node::accept`], [`Node::dialed`], [`Node::disconnected`], [`Node::set_clock`],
//!   [`Node::shutdown`].
//! - **Control out**: [`Node::poll`] until `None` after anything went in; [`Node::deadline`] says when to hand in
//!   [`Input::Wake`] if nothing else happens. While an action waits, the deadline is now.
//! - **Data in**: [`Node::recv_space`], fill some of it from the socket, [`Node::received`]. Empty space: do not read
//!   that socket until [`Action::Readable`] names it.
//! - **Data out**: [`Node::send_chunk`], write some of it, [`Node::sent`]. Empty chunk: nothing until
//!   [`Action::Writable`] names the connection. An empty slice of either kind may have set a deadline.
//!
//! A call on a connection that is gone changes nothing. Time never goes back: an earlier `now` counts as the latest.
//!
//! # How it is made
//! Each part (a *leaf*) owns its state, and its own table of what it knows of each connection. Its methods take the context of
//! the call (`cx.rs`) and what they need of other leaves as arguments; what concerns others they return. Only the dispatcher
//! (`dispatch/`) knows all leaves. [`Node`] is what a driver sees of it: whatever comes in, it moves the clock first, and
//! afterwards begins what has become possible, so that no leaf has to see to that.

mod api;
mod channels;
mod commands;
mod conns;
mod cx;
mod dht;
mod dispatch;
mod downloads;
mod gateway;
mod gossip;
mod peers;
mod pool;
mod publications;
mod quotas;
mod table;
mod throttle;
mod timers;
mod uploads;

use alloc::vec::Vec;

pub use api::*;
pub use channels::contents::{FileRange, Priority, Selection, SelectionError, Target};

use crate::addr::PeerAddr;
use crate::identity::PublicKey;
use crate::ids::{ConnId, JobId, Secret, Topic};
use crate::suite::{RealSuite, Suite};
use crate::time::{Instant, UnixTime};
use dispatch::Dispatcher;

/// A node; over the real suite unless a simulator names another one.
pub struct Node<S: Suite = RealSuite>(Dispatcher<S>);

impl Node {
    /// `seed` is 32 bytes of full entropy; `unix` is the wall time at `now`, from which the node reckons wall time.
    pub fn new(config: Config, seed: [u8; 32], now: Instant, unix: UnixTime) -> Self {
        Self::with_suite(config, seed, now, unix)
    }
}

impl<S: Suite> Node<S> {
    /// [`Node::new`] over another suite.
    pub fn with_suite(config: Config, seed: [u8; 32], now: Instant, unix: UnixTime) -> Self {
        Self(Dispatcher::new(config, seed, now, unix))
    }

    /// Takes back a record of an earlier run, before anything else. `false`: it does not parse, or there is no room for it, and it is left alone.
    pub fn restore(&mut self, key: &RecordKey, value: &[u8]) -> bool {
        self.0.restore(key, value)
    }

    /// A call from outside, and what it makes possible.
    fn step<T>(&mut self, now: Instant, call: impl FnOnce(&mut Dispatcher<S>) -> T) -> T {
        self.0.advance_to(now);
        let result = call(&mut self.0);
        self.0.flush();
        result
    }

    // --- control --------------------------------------------------------------------------------------------

    /// Control in: an input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.step(now, |leaves| leaves.handle(input));
    }

    /// Control out: the next action.
    pub fn poll(&mut self) -> Option<Action> {
        self.0.poll()
    }

    /// Control out: when to hand in [`Input::Wake`], and why; now, while an action waits.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        self.0.deadline()
    }

    /// Control in: the wall clock was set; `unix` is the wall time at `now`.
    pub fn set_clock(&mut self, now: Instant, unix: UnixTime) {
        self.step(now, |leaves| leaves.set_clock(unix));
    }

    /// Control in: closes every connection and ends every publication; the driver drains the actions and ends. Nothing is begun
    /// afterwards.
    pub fn shutdown(&mut self, now: Instant) {
        self.step(now, Dispatcher::shutdown);
    }

    /// Control in: a stream that others opened. `None`: no room for it, drop it.
    pub fn accept(&mut self, now: Instant, peer: PeerAddr) -> Option<ConnId> {
        self.step(now, |leaves| leaves.accept(peer))
    }

    /// Control in: the answer to [`Action::Dial`]. `None`: drop the stream, if there is one.
    pub fn dialed(&mut self, now: Instant, job: JobId, connected: bool) -> Option<ConnId> {
        self.step(now, |leaves| leaves.dialed(job, connected))
    }

    /// Control in: the stream ended or failed.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId) {
        self.step(now, |leaves| leaves.disconnected(conn));
    }

    // --- data -----------------------------------------------------------------------------------------------

    /// Data in: where the socket's next bytes go; empty: do not read it until [`Action::Readable`].
    pub fn recv_space(&mut self, conn: ConnId) -> &mut [u8] {
        self.0.recv_space(conn)
    }

    /// Data in: `n` bytes were read into [`Self::recv_space`].
    pub fn received(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.step(now, |leaves| leaves.received(conn, n));
    }

    /// Data out: the next bytes to write; empty: nothing until [`Action::Writable`].
    pub fn send_chunk(&mut self, now: Instant, conn: ConnId) -> &[u8] {
        self.0.advance_to(now);
        self.0.send_chunk(conn)
    }

    /// Data out: `n` bytes of [`Self::send_chunk`] were written.
    pub fn sent(&mut self, now: Instant, conn: ConnId, n: usize) {
        self.step(now, |leaves| leaves.sent(conn, n));
    }

    // --- for a user's eyes ----------------------------------------------------------------------------------

    /// The channels followed.
    pub fn channels(&self) -> Vec<PublicKey> {
        self.0.channels()
    }

    /// The read key of a followed channel, where one is known.
    pub fn read_key(&self, channel: &PublicKey) -> Option<&Secret> {
        self.0.read_key(channel)
    }

    /// The states of all channels followed and swarms joined.
    pub fn targets(&self) -> Vec<TargetStatus> {
        self.0.targets()
    }

    /// The connections.
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        self.0.peers(now)
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<BanStatus> {
        self.0.bans()
    }

    /// Counters.
    pub fn status(&self, now: Instant) -> NodeStatus {
        self.0.status(now)
    }

    /// A followed channel's state.
    pub fn channel_status(&self, channel: &PublicKey) -> Option<TargetStatus> {
        self.0.channel_status(channel)
    }

    /// The blobs of a followed channel's newest version, as far as they are known, in the order of the content and at most
    /// `cells_max` cells. Blobs whose places are beyond what peers tell of are left out.
    pub fn cells(&self, channel: &PublicKey, cells_max: usize) -> Vec<BlobCell> {
        self.0.cells(channel, cells_max)
    }

    /// The state of a swarm without a head that the node has joined.
    pub fn swarm_status(&self, topic: &Topic) -> Option<TargetStatus> {
        self.0.swarm_status(topic)
    }
}
