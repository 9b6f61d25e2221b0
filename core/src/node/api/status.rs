//! What a node shows to its user.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::channels::contents::Target;
use crate::addr::PeerAddr;
use crate::error::Violation;
use crate::ids::{ConnId, Topic};
use crate::time::UnixTime;
use crate::tree::TreeRef;

/// The state of a channel or a swarm without a head, to show to a user.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// Whose it is.
    pub target: Target,
    /// The topic under which its peers meet.
    pub topic: Topic,
    /// Whether a read key is known.
    pub private: bool,
    /// Highest sequence seen; 0 before the first head.
    pub sequence: u64,
    /// Blobs of the newest version that are stored, as far as its trees are known.
    pub blobs_stored: u64,
    /// Blobs that the newest version names, index blobs included; 0 before it is known.
    pub blobs_total: u64,
    /// Parts of 64 KiB that are stored of blobs that are not whole yet.
    pub parts_stored: u64,
    /// Bytes of content that the newest version names; 0 before it is known.
    pub content_bytes: u64,
    /// Whether all of them are stored, and the version is known to be the newest.
    pub complete: bool,
    /// Whether everything selected is stored.
    pub satisfied: bool,
    /// Whether the channel is paused ([`super::Command::Pause`]).
    pub paused: bool,
    /// When the DHT last said which head is the newest; `None`: it has not yet, in this node's life.
    pub asked: Option<UnixTime>,
    /// What it waits for, in words; `None` when complete.
    pub waiting: Option<String>,
    /// Whether the store had no room or failed, and is left alone for a while, so that nothing is asked for.
    pub store_rests: bool,
    /// The body's reference, where the head does not carry the content itself; of a swarm without a head, its tree.
    pub root: Option<TreeRef>,
}

/// Blobs of a version that lie next to each other in the order of the content, to show to a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobCell {
    /// How many.
    pub blobs: u32,
    /// Those that are here.
    pub stored: u32,
    /// Those of which parts are here, and not all.
    pub under_way: u32,
    /// Those that are neither here nor with any peer that is connected.
    pub unseen: u32,
}

/// A node's counters, to show to a user.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeStatus {
    /// Connections that peers opened.
    pub inbound: usize,
    /// Connections that the node opened.
    pub outbound: usize,
    /// Addresses known.
    pub peers_known: usize,
    /// Bans in force.
    pub bans: usize,
    /// Blob bytes received and stored.
    pub bytes_received: u64,
    /// Blob bytes sent.
    pub bytes_sent: u64,
    /// Blob bytes received that were not wanted any more.
    pub bytes_duplicate: u64,
    /// DHT operations that are due and have not started, because the budget is used up or the most are in flight.
    pub dht_late: usize,
    /// By how many seconds the most overdue of them is late; 0 where none is.
    pub dht_lag_secs: u64,
}

/// How the address of a peer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// The user named it, in configuration or a URI.
    Configured,
    /// It served in an earlier run.
    Remembered,
    /// The DHT.
    Dht,
    /// The peer told its own address.
    Announced,
    /// Another peer told of it.
    Exchanged,
}

/// A connection, to show to a user.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The connection.
    pub conn: ConnId,
    /// The address under which the peer is known: the one dialled, the one at which it says that it listens, or its socket's.
    pub address: PeerAddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// How its address was found; `None`: it is not known, as the peer came to us and does not say where it listens.
    pub found: Option<PeerSource>,
    /// How long the connection has been open.
    pub open_for: Duration,
    /// Bytes received over it.
    pub bytes_received: u64,
    /// Bytes sent over it.
    pub bytes_sent: u64,
    /// The channels and swarms that it watches too.
    pub shared: Vec<Target>,
    /// Whether the handshake is done.
    pub is_keyed: bool,
    /// Whether it speaks the messages beyond v5; `None` while that is not known.
    pub speaks_v6: Option<bool>,
    /// Blobs and parts that we have asked it for and that have not come.
    pub wanted_of_it: usize,
    /// Blobs and parts that it waits for.
    pub wanted_of_us: usize,
}

/// A ban in force, to show to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanStatus {
    /// The address.
    pub peer: PeerAddr,
    /// The rule that the peer broke; `None`: it did so in an earlier run.
    pub violation: Option<Violation>,
    /// When the ban ends.
    pub until: UnixTime,
}
