//! What an idle node holds in memory: for each connection, and for each channel. The figures are in `docs/benchmarks.md`.

use std::time::Duration;

use crate::support::content::Content;
use crate::support::crowd::Crowd;
use crate::support::heap::bytes_of;
use crate::support::{Bench, CONFIG, author, identity};
use megatorrent_core::node::{Command, Event};

/// Bytes that an authenticated v6 connection may take on which nothing waits, and whose peer has all of the one channel that
/// the node follows.
const CONNECTION_BYTES_MAX: u64 = 4864;
/// Bytes that a channel may take whose head nobody has found.
const HEADLESS_BYTES_MAX: u64 = 2304;
/// Bytes that a complete channel may take, with its head.
const COMPLETE_BYTES_MAX: u64 = 4864;

const CONNECTIONS: [usize; 2] = [100, 1000];
/// The author of the channel that all nodes follow is not among them.
const CHANNELS: u8 = 240;
/// In this time look-ups end, and buffers that were needed are free.
const SETTLE_TIME: Duration = Duration::from_mins(30);

/// What a node that serves one channel takes with so many connections.
fn with_connections(count: usize) -> u64 {
    let mut bench = Bench::answering(CONFIG, None);
    let content = Content::new(&identity(), 1);
    content.seed(&mut bench);
    let crowd = Crowd::connect(&mut bench, &content, count);
    drop(crowd);
    bytes_of(bench.node)
}

#[test]
fn an_idle_connection_takes_little() {
    let alone = with_connections(0);
    for count in CONNECTIONS {
        let each = (with_connections(count) - alone) / count as u64;
        println!("{count} idle connections: {each} bytes each");
        assert!(each <= CONNECTION_BYTES_MAX, "{each} bytes for each of {count} connections");
    }
}

/// What a node takes for each channel that it follows, where the DHT has the heads of all, and the store their content, or not.
fn each_channel(has_heads: bool) -> u64 {
    let content = Content::new(&identity(), 1);
    let with = |count: u8| {
        let mut bench = Bench::answering(CONFIG, None);
        bench.world.ends_lookups = true;
        content.seed(&mut bench);
        for author in (10..10 + count).map(author) {
            if has_heads {
                content.publish_as(&mut bench, &author);
            }
            bench.command(Command::Follow { channel: author.public_key(), read_key: None });
        }
        bench.sleep(SETTLE_TIME);
        let complete = bench.count(|event| matches!(event, Event::Complete { .. }));
        assert_eq!(complete, if has_heads { 1 + usize::from(count) } else { 1 });
        // They hold the manifests.
        bench.events.clear();
        bytes_of(bench.node)
    };
    (with(CHANNELS) - with(0)) / u64::from(CHANNELS)
}

#[test]
fn an_idle_channel_takes_little_with_a_head_or_without() {
    for (what, has_heads, most) in
        [("without a head", false, HEADLESS_BYTES_MAX), ("that are complete", true, COMPLETE_BYTES_MAX)]
    {
        let each = each_channel(has_heads);
        println!("channels {what}: {each} bytes each");
        assert!(each <= most, "{each} bytes for each of the channels {what}");
    }
}
