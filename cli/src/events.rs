//! A node's news in words and JSON: what `serve` and `subscribe` both tell.

use indicatif::HumanBytes;
use megatorrent_core::node::Event;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::Output;

/// Tells what concerns the whole node or any channel. Files and completeness are the command's own news.
pub(crate) fn report(event: &Event, output: Output) -> Result<(), Failure> {
    match event {
        Event::Head { channel, sequence } => {
            let members = json!({ "channel": channel.to_string(), "sequence": sequence });
            output.event("head", members, &format!("channel {channel}: sequence {sequence}"))
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
            output.event("manifest", members, &text)
        }
        Event::Fork { channel, sequence } => warn(
            output,
            &format!(
                "channel {channel} has two manifests with sequence {sequence}: its author's key is used twice, or in \
                 other hands too"
            ),
        ),
        Event::Banned { peer, violation, until } => {
            let seconds = until.0 / 1000;
            warn(output, &format!("{peer} {violation} and is banned until {seconds} (Unix time)"))
        }
        Event::StoreFull { no_space: true } => {
            warn(output, "no space is left for blobs; fetching goes on when there is some")
        }
        Event::StoreFull { no_space: false } => {
            warn(output, "the disk takes no blobs (see the log above); fetching goes on when it does")
        }
        Event::HeadRefused { channel, error } => warn(output, &format!("channel {channel}: {error}")),
        Event::BodyRefused { channel, error, .. } => warn(output, &format!("channel {channel}: {error}")),
        _ => Ok(()),
    }
}

/// A warning, which under `--json` is an event too.
pub(crate) fn warn(output: Output, text: &str) -> Result<(), Failure> {
    output.warn(text);
    if output.is_json() { output.event("warning", json!({ "message": text }), "") } else { Ok(()) }
}

/// The channel's title, or else its first collection's.
fn title(manifest: &megatorrent_core::manifest::Manifest) -> &str {
    let collection = manifest.collections.first().map_or("", |collection| &collection.title);
    if manifest.title.is_empty() { collection } else { &manifest.title }
}

/// The end of a command that was asked to end.
pub(crate) fn stopped(output: Output) -> Result<(), Failure> {
    output.event("stopped", Value::Null, "stopped")
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: impl TryInto<u64>, what: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
