//! A node's news in words and JSON: what `serve` and `subscribe` both tell.

use std::time::Duration;

use indicatif::HumanBytes;
use megatorrent_core::node::{Event, NodeStatus};
use megatorrent_runtime_smol::losses::LossNews;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{News, Output};
use crate::service::Reporter;
use crate::service::jobs::publish;

/// How late a DHT operation is before a user is told in words: what a busy minute delays is nothing to speak of.
const LAG_MIN: Duration = Duration::from_secs(30);

/// Tells what concerns the whole node or any channel. Files and completeness are told by whoever writes the files.
pub(crate) fn report(event: &Event, reporter: &Reporter) {
    match event {
        Event::Head { channel, sequence } => {
            let members = json!({ "channel": channel.to_string(), "sequence": sequence });
            reporter.event(News::Head, members, format!("channel {channel}: sequence {sequence}"));
        }
        Event::Manifest { channel, sequence, manifest } => {
            let files = manifest.files().count();
            let size: u64 = manifest.files().map(|file| file.size).sum();
            let title = title(manifest);
            let members = json!({
                "channel": channel.to_string(), "sequence": sequence, "title": title, "files": files, "size": size,
            });
            let text =
                format!("channel {channel}: {title:?}, {}, {}", count(files, "file"), HumanBytes(size));
            reporter.event(News::Manifest, members, text);
        }
        Event::Fork { channel, sequence } => reporter.warn(format!(
            "channel {channel} has two manifests with sequence {sequence}: its author's key is used twice, or in \
             other hands too"
        )),
        Event::BlobsLost { target, sequence } => reporter.warn(format!(
            "{target}: blobs of sequence {sequence} are gone from the folder of the node (-d), or damaged; \
             they are fetched again. Check the disk"
        )),
        Event::Banned { peer, violation, until } => {
            let seconds = until.0 / 1000;
            reporter.warn(format!("{peer} {violation} and is banned until {seconds} (Unix time)"));
        }
        Event::StoreFull { no_space: true } => {
            reporter.warn("no space is left for blobs; fetching goes on when there is some");
        }
        Event::StoreFull { no_space: false } => {
            reporter.warn("the disk takes no blobs (see the log above); fetching goes on when it does");
        }
        Event::HeadRefused { channel, error } => reporter.warn(format!("channel {channel}: {error}")),
        Event::BodyRefused { channel, error, .. } => reporter.warn(format!("channel {channel}: {error}")),
        Event::PageRefused { channel, error, .. } => {
            reporter.warn(format!("channel {channel}: some files cannot be had: {error}"));
        }
        Event::ClockBehind { channel, sequence, unix, .. } => {
            reporter.of_channel(*channel).warn(publish::behind(*sequence, *unix));
        }
        _ => {}
    }
}

/// Tells what cannot be read, and what can again.
pub(crate) fn report_loss(news: &LossNews, reporter: &Reporter) {
    let text = news.to_string();
    let event = if news.is_back { News::Recovered } else { News::Loss };
    let members = json!({ "state": news.loss.name(), "path": news.path, "message": text });
    reporter.event(event, members, text);
}

pub(crate) fn members(status: NodeStatus) -> Value {
    json!({
        "inbound": status.inbound, "outbound": status.outbound, "peers_known": status.peers_known,
        "bytes_received": status.bytes_received, "bytes_sent": status.bytes_sent, "dht_late": status.dht_late,
        "dht_lag_secs": status.dht_lag_secs,
    })
}

/// In words, if it is considerable.
pub(crate) fn lag(status: NodeStatus) -> Option<String> {
    let lag_secs = status.dht_lag_secs;
    (lag_secs >= LAG_MIN.as_secs()).then(|| {
        format!(
            "the DHT is behind: {} of announces and look-ups wait, the longest for {lag_secs} s; others find this \
             node's channels later",
            count(status.dht_late, "operation"),
        )
    })
}

/// The channel's title, or else its first collection's.
pub(crate) fn title(manifest: &megatorrent_core::manifest::Manifest) -> &str {
    let collection = manifest.collections.first().map_or("", |collection| &collection.title);
    if manifest.title.is_empty() { collection } else { &manifest.title }
}

/// The end of a command that was asked to end.
pub(crate) fn stopped(output: Output) -> Result<(), Failure> {
    output.event(News::Stopped, Value::Null, "stopped")
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(dht_lag_secs: u64) -> NodeStatus {
        NodeStatus { dht_late: 3, dht_lag_secs, ..NodeStatus::default() }
    }

    #[test]
    fn a_lag_is_always_in_json_and_in_words_when_it_matters() {
        assert_eq!(members(status(7))["dht_lag_secs"], 7);
        assert_eq!(lag(status(LAG_MIN.as_secs() - 1)), None);
        let words = lag(status(45)).expect("it is considerable");
        assert!(words.contains("3 operations") && words.contains("45 s"), "{words}");
    }
}
