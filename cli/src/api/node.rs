//! Requests and answers about the node itself.

use std::fmt;

use megatorrent_core::node::PeerSource;
use megatorrent_runtime_smol::dht::DhtMode;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Counts, Event};

/// Asks how the node is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetStatus {}

/// How the node is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NodeStatus {
    /// The program's version.
    pub(crate) version: String,
    /// Since when it runs: milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    /// How peers see it.
    pub(crate) mode: Mode,
    /// The node's folder, as an absolute path.
    pub(crate) home: String,
    /// Where it takes peers; null: nowhere.
    pub(crate) p2p: Option<String>,
    /// Its DHT's UDP address; null: it has none, or not yet.
    pub(crate) dht: Option<String>,
    /// Where the API listens for browsers and programs; null: on the control socket alone.
    pub(crate) api: Option<String>,
    /// Nodes in the DHT's routing table.
    pub(crate) dht_nodes: u64,
    /// DHT operations that are due and wait.
    pub(crate) dht_late: u64,
    /// By how many seconds the most overdue of them is late.
    pub(crate) dht_lag_secs: u64,
    /// Connections that peers opened.
    pub(crate) inbound: u64,
    /// Connections that the node opened.
    pub(crate) outbound: u64,
    /// Addresses known.
    pub(crate) peers_known: u64,
    /// Bans in force.
    pub(crate) bans: u64,
    /// Bytes of blobs received since the start.
    pub(crate) bytes_received: u64,
    /// Bytes of blobs sent since the start.
    pub(crate) bytes_sent: u64,
    /// Bytes of blobs received that were not wanted any more.
    pub(crate) bytes_duplicate: u64,
    /// Bytes of blobs received a second, over the last seconds.
    pub(crate) receive_bytes_per_sec: u64,
    /// Bytes of blobs sent a second, likewise.
    pub(crate) send_bytes_per_sec: u64,
    /// Bytes free where the node's folder lies; null: the system does not say.
    pub(crate) free_bytes: Option<u64>,
    /// Channels by state.
    pub(crate) channels: Counts,
    /// Jobs that are queued or under way.
    pub(crate) jobs: u64,
    /// Whether, since its start, it has told the network no more than that it exists: no channel was followed, looked at or published.
    pub(crate) told_nothing: bool,
    /// The number of the last event.
    pub(crate) last_event: u64,
}

/// How peers see the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// They see its IP address.
    Direct,
}

/// Asks what is amiss.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetDoctor {}

/// What was looked at, in a fixed order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Doctor {
    pub(crate) checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Check {
    /// What: mode, ports, dht, clock, disk or descriptors.
    pub(crate) name: String,
    /// Whether it is as it should be.
    pub(crate) good: bool,
    /// What was found.
    pub(crate) finding: String,
    /// What to do next; null where it is as it should be.
    pub(crate) next: Option<String>,
}

/// Asks for the events after a number.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetEvents {
    /// The number of the last event that the caller has; 0: it has none.
    #[serde(default)]
    pub(crate) after: u64,
    /// How many at most; the service has a bound of its own.
    #[serde(default)]
    pub(crate) limit: Option<u64>,
}

/// Events, in order.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the words of the API")]
pub(crate) struct Events {
    pub(crate) events: Vec<Event>,
    /// Events after the caller's number that are not kept any more.
    pub(crate) missed: u64,
    /// Whether the caller's number is of an earlier life of the node: what came before its start is lost, and a new snapshot is due.
    pub(crate) restarted: bool,
    /// The number of the last event there is.
    pub(crate) last: u64,
}

/// Asks for the peers that are connected.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetPeers {}

/// The peers that are connected.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Peers {
    pub(crate) peers: Vec<Peer>,
}

/// A peer that is connected.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: String,
    /// Whether this node opened the connection.
    pub(crate) outbound: bool,
    /// For how many seconds it is connected.
    pub(crate) connected_secs: u64,
    /// Bytes of blobs received from it.
    pub(crate) bytes_received: u64,
    /// Bytes of blobs sent to it.
    pub(crate) bytes_sent: u64,
    /// The channels that both follow, by their keys.
    pub(crate) channels: Vec<super::ChannelId>,
    /// How its address was found; null: it called, and does not say where it listens.
    pub(crate) found: Option<Found>,
    /// Whether both have shown who they are.
    pub(crate) ready: bool,
    /// Blobs and parts that it was asked for and that have not come.
    pub(crate) wanted_of_it: u64,
    /// Blobs and parts that it waits for.
    pub(crate) wanted_of_us: u64,
}

/// How a peer's address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    /// By the user: an option, or an address.
    Named,
    /// It served in an earlier run.
    Remembered,
    /// By the DHT.
    Dht,
    /// It told of itself.
    Announced,
    /// Another peer told of it.
    Exchanged,
}

impl From<PeerSource> for Found {
    fn from(source: PeerSource) -> Self {
        match source {
            PeerSource::Configured => Self::Named,
            PeerSource::Remembered => Self::Remembered,
            PeerSource::Dht => Self::Dht,
            PeerSource::Announced => Self::Announced,
            PeerSource::Exchanged => Self::Exchanged,
        }
    }
}

/// Asks how fast bytes of blobs came and went.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetRates {
    /// Over the last 24 hours rather than the last ten minutes.
    #[serde(default)]
    pub(crate) day: bool,
}

/// Rates, the oldest first. They begin with the node's start.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RateHistory {
    /// Over how many seconds each was taken.
    pub(crate) step_secs: u64,
    pub(crate) samples: Vec<RateSample>,
}

/// The rates over a while.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RateSample {
    /// When it ended: milliseconds since 1970.
    pub(crate) unix_ms: u64,
    pub(crate) receive_bytes_per_sec: u64,
    pub(crate) send_bytes_per_sec: u64,
}

/// Asks for the peers that are banned.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetBans {}

/// The peers that are banned.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Bans {
    pub(crate) bans: Vec<Ban>,
}

/// A peer that is banned.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Ban {
    pub(crate) address: String,
    /// The rule that it broke, where it is known.
    pub(crate) why: Option<String>,
    /// When it ends: milliseconds since 1970.
    pub(crate) until_unix_ms: u64,
}

/// Lifts a ban.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveBan {
    pub(crate) address: String,
}

/// Tries a peer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddPeer {
    /// `HOST:PORT`.
    pub(crate) address: String,
}

/// Asks what the node goes by.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetOptions {}

/// What a node goes by, as its options say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NodeOptions {
    /// The address that it was told to listen on; null: it listens nowhere.
    pub(crate) host: Option<String>,
    /// The TCP port for peers.
    pub(crate) p2p_port: Option<u16>,
    /// The UDP port of the DHT; null where there is none, or not yet.
    pub(crate) dht_port: Option<u16>,
    /// The part that it takes in the DHT.
    pub(crate) dht: DhtPart,
    /// Bytes sent a second at most; null: without a limit.
    pub(crate) upload_bytes_per_sec: Option<u64>,
    /// Bytes received a second at most; null: without a limit.
    pub(crate) download_bytes_per_sec: Option<u64>,
    /// Whether blobs are fetched whole.
    pub(crate) whole: bool,
    /// Whether heads are put and looked up on the DHT for peers that have none.
    pub(crate) gateway: bool,
}

/// The part that a node takes in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DhtPart {
    /// Stores for others where others can reach it.
    Auto,
    /// None.
    Off,
    /// Stores for others.
    Server,
    /// Only asks.
    Client,
}

impl From<DhtMode> for DhtPart {
    fn from(mode: DhtMode) -> Self {
        match mode {
            DhtMode::Auto => Self::Auto,
            DhtMode::Off => Self::Off,
            DhtMode::Server => Self::Server,
            DhtMode::Client => Self::Client,
        }
    }
}

impl fmt::Display for DhtPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// Asks for the limits.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetLimits {}

/// Bytes a second, over all connections to peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Sent at most; null: without a limit.
    pub(crate) upload_bytes_per_sec: Option<u64>,
    /// Received at most; null: without a limit.
    pub(crate) download_bytes_per_sec: Option<u64>,
}

/// Changes limits. What is left out stays.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetLimits {
    /// Bytes sent a second at most; null: without a limit.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub(crate) upload_bytes_per_sec: Option<Limit>,
    /// Bytes received a second at most; null: without a limit.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub(crate) download_bytes_per_sec: Option<Limit>,
}

/// A limit: a number, or null for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Limit(pub(crate) Option<u64>);

/// Null is a limit too: only what is left out is none of the request's business.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Limit>, D::Error> {
    Option::deserialize(from).map(|limit| Some(Limit(limit)))
}

/// Asks for the settings.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetSettings {}

/// What can be changed while the node runs, and what waits for its next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Whether heads are put and looked up on the DHT for peers that have none.
    pub(crate) gateway: bool,
    /// Whether blobs are fetched whole, so that peers learn no lengths.
    pub(crate) whole: bool,
    /// Keys of the configuration file that say something else than at the node's start, and apply after a restart alone.
    pub(crate) restart: Vec<String>,
}

/// Changes settings. What is left out stays.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whole: Option<bool>,
}

/// Replaces the API's token.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateToken {}

/// Makes a link that logs a browser in.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateLoginLink {}

/// A link that logs a browser in, once.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LoginLink {
    /// The link's path and query, below where the API listens.
    pub(crate) path: String,
    /// For how many seconds it can be used.
    pub(crate) valid_secs: u64,
}

/// Ends the node.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shutdown {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_left_out_is_not_one_that_is_lifted() {
        let set: SetLimits = serde_json::from_str(r#"{"upload_bytes_per_sec":null}"#).expect("it parses");
        assert_eq!((set.upload_bytes_per_sec, set.download_bytes_per_sec), (Some(Limit(None)), None));
        assert_eq!(serde_json::to_string(&set).expect("it is JSON"), r#"{"upload_bytes_per_sec":null}"#);
    }
}
