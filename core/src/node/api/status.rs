//! What a node shows to its user.

use alloc::string::String;

use super::super::channels::contents::Target;
use crate::ids::Topic;
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
    /// Bytes of content that the newest version names; 0 before it is known.
    pub content_bytes: u64,
    /// Whether all of them are stored, and the version is known to be the newest.
    pub complete: bool,
    /// Whether everything selected is stored.
    pub satisfied: bool,
    /// What it waits for, in words; `None` when complete.
    pub waiting: Option<String>,
    /// The body's reference, where the head does not carry the content itself; of a swarm without a head, its tree.
    pub root: Option<TreeRef>,
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
