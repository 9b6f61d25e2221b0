//! The settings of worlds and hosts.

use core::ops::RangeInclusive;
use core::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::ids::Secret;

/// The world's physics. Ranges are drawn from the world's seed.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// One-way latency of a link, in milliseconds; drawn once for each link, so that its bytes stay in order.
    pub latency_ms: RangeInclusive<u64>,
    /// Bytes that one direction of a link holds, in flight or arrived and not read. A full pipe takes no more.
    pub window_bytes: usize,
    /// Longest piece in which bytes cross a link; each piece's length is drawn between 1 and this.
    pub cut_bytes_max: usize,
    /// Shortest piece, so that fewer events move the same bytes.
    pub cut_bytes_min: usize,
    /// The backlog of a host's uplink, as the time to send it: further bytes wait in their sockets, the links' in turn.
    pub uplink_queue: Duration,
    /// The duration of a store's job, in microseconds.
    pub disk_us: RangeInclusive<u64>,
    /// Whether zeros on links and in stores take memory. Nothing that happens depends on it.
    pub has_weight: bool,
    /// The DHT.
    pub dht: DhtConfig,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            latency_ms: 5..=120,
            window_bytes: 256 * 1024,
            cut_bytes_max: 64 * 1024,
            cut_bytes_min: 1,
            uplink_queue: Duration::from_millis(100),
            disk_us: 50..=8_000,
            has_weight: false,
            dht: DhtConfig::default(),
        }
    }
}

/// How the DHT behaves.
#[derive(Clone, Debug)]
pub struct DhtConfig {
    /// The duration of an operation, in milliseconds.
    pub latency_ms: RangeInclusive<u64>,
    /// How many of a hundred replicas an operation does not reach; one that a put does not reach keeps its older copy.
    pub loss_percent: u64,
}

impl Default for DhtConfig {
    fn default() -> Self {
        Self { latency_ms: 60..=2_500, loss_percent: 10 }
    }
}

/// A host: its node's settings and surroundings.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Seed of the identity that it publishes under.
    pub identity_seed: Option<Secret>,
    /// The identity's read key.
    pub read_key: Option<Secret>,
    /// Whether others can connect to it.
    pub listens: bool,
    /// Its onion or I2P name, which hides its IP address.
    pub name: Option<PeerAddr>,
    /// Whether it has a DHT.
    pub dht: bool,
    /// Whether it is a gateway.
    pub gateway: bool,
    /// Bytes that it can send each second, over all its links; 0 counts as 1.
    pub upload_bytes_per_sec: u64,
    /// Bytes that it can receive each second, over all its links; `None`: no limit.
    pub download_bytes_per_sec: Option<u64>,
    /// Its node's limit on bytes sent each second; `None`: no limit.
    pub upload_limit_bytes_per_sec: Option<u64>,
    /// Its node's limit on bytes received each second.
    pub download_limit_bytes_per_sec: Option<u64>,
    /// Whether it is behind a NAT unawares: it dials, and dials to it time out.
    pub nat: bool,
    /// How far its wall clock is ahead of the world's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Blobs that its store has room for.
    pub store_blobs_max: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            identity_seed: None,
            read_key: None,
            listens: true,
            name: None,
            dht: true,
            gateway: false,
            upload_bytes_per_sec: 20_000_000,
            download_bytes_per_sec: None,
            upload_limit_bytes_per_sec: None,
            download_limit_bytes_per_sec: None,
            nat: false,
            clock_ahead_ms: 0,
            store_blobs_max: usize::MAX,
        }
    }
}
