//! Limits that a node sets itself on what it sends and receives.

use std::time::Duration;

use crate::common::*;
use megatorrent_core::blob::BLOB_LEN;
use megatorrent_core::ids::Secret;
use megatorrent_sim::HostConfig;

/// Blobs of the channel: the file's, its index and the body.
const BLOBS: u32 = 17;
/// How long a blob takes where a limit holds.
const BLOB_TIME: Duration = Duration::from_secs(4);

/// How long a reader takes for the channel under limits of the author's node and of its own.
fn time_to_complete(author_uploads: Option<u64>, reader_downloads: Option<u64>) -> Duration {
    let mut world = world(90);
    let author = world.add_host(HostConfig {
        identity_seed: Some(Secret::new([7; 32])),
        upload_limit_bytes_per_sec: author_uploads,
        ..HostConfig::default()
    });
    let channel = world.channel(author).expect("it has an identity");
    let file = world.ingest(author, "film", &content("film", (BLOBS as usize - 2) * MIB));
    publish(&mut world, author, &[file]);
    let limited = HostConfig { download_limit_bytes_per_sec: reader_downloads, ..HostConfig::default() };
    let reader = world.add_host(limited);
    let start = world.now();
    world.follow(reader, channel, None);
    assert!(world.run_until(LIMIT, |world| world.is_complete(reader, &channel)));
    world.now().since(start)
}

#[test]
fn a_limit_is_kept_and_used() {
    let limit = Some(BLOB_LEN as u64 / BLOB_TIME.as_secs());
    let due = BLOB_TIME * BLOBS;
    assert!(time_to_complete(None, None) < due / 4, "the lines carry far more");
    for (upload, download) in [(limit, None), (None, limit), (limit, limit)] {
        let took = time_to_complete(upload, download);
        // What is saved up at the start comes at once; frames, control messages and finding the author take a moment.
        assert!(took > due * 98 / 100 && took < due * 104 / 100, "{took:?} of {due:?}");
    }
}
