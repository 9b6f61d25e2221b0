//! The counters that Prometheus reads.

use std::fmt::Write as _;

use super::Service;
use crate::api::Counts;

/// A metric: its name after `megatorrent_`, what it is, whether it only grows, its value.
type Metric = (&'static str, &'static str, bool, u64);

impl Service {
    /// The text format of Prometheus, version 0.0.4.
    pub(crate) fn metrics(&self) -> String {
        let it = &self.0;
        let status = it.node.status();
        let metrics: [Metric; 12] = [
            ("received_bytes_total", "Bytes of blobs received.", true, status.bytes_received),
            ("sent_bytes_total", "Bytes of blobs sent.", true, status.bytes_sent),
            (
                "duplicate_bytes_total",
                "Bytes of blobs received that were not wanted any more.",
                true,
                status.bytes_duplicate,
            ),
            ("inbound_connections", "Connections that peers opened.", false, status.inbound as u64),
            ("outbound_connections", "Connections that the node opened.", false, status.outbound as u64),
            ("known_peers", "Addresses known.", false, status.peers_known as u64),
            ("bans", "Bans in force.", false, status.bans as u64),
            ("dht_nodes", "Nodes in the DHT's routing table.", false, it.node.dht_nodes() as u64),
            ("dht_late_operations", "DHT operations that are due and wait.", false, status.dht_late as u64),
            ("dht_lag_seconds", "By how much the most overdue of them is late.", false, status.dht_lag_secs),
            ("active_jobs", "Jobs that are queued or under way.", false, it.jobs.borrow().active() as u64),
            ("events_total", "Events so far.", true, it.log.last()),
        ];
        let mut text = String::new();
        for (name, help, grows, value) in metrics {
            let kind = if grows { "counter" } else { "gauge" };
            let _ = write!(
                text,
                "# HELP megatorrent_{name} {help}\n# TYPE megatorrent_{name} {kind}\nmegatorrent_{name} {value}\n"
            );
        }
        let mut counts = Counts::default();
        it.channels.borrow().values().for_each(|channel| counts.add(channel.info().state));
        text.push_str("# HELP megatorrent_channels Channels by state.\n# TYPE megatorrent_channels gauge\n");
        let counts = serde_json::to_value(counts).expect("numbers are JSON");
        for (state, count) in counts.as_object().into_iter().flatten().filter(|(state, _)| *state != "all") {
            let _ = writeln!(text, "megatorrent_channels{{state=\"{state}\"}} {count}");
        }
        text
    }
}
