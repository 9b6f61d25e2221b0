//! Limits that a node sets itself on what it sends and receives.

use std::time::Duration;

use crate::main_job::common::*;
use megatorrent_core::ids::Secret;
use megatorrent_core::parts::{PART_LEN, PARTS};
use megatorrent_sim::{HostConfig, World};

/// Blobs of the file.
const BLOBS: usize = 15;
/// Parts that a reader needs: all of the file, and one each of the body, its page and the ids, whose other parts are filling.
const PARTS_NEEDED: usize = BLOBS * PARTS + 3;
/// Parts that come in a second where a limit holds.
const PARTS_PER_SEC: u32 = 4;

/// How long a reader takes for the channel under limits of the author's node and of its own.
fn time_to_complete(author_uploads: Option<u64>, reader_downloads: Option<u64>) -> Duration {
    let mut world = world(90);
    let author = world.add_host(HostConfig {
        identity_seed: Some(Secret::new([7; 32])),
        upload_limit_bytes_per_sec: author_uploads,
        ..HostConfig::default()
    });
    let channel = world.channel(author).expect("it has an identity");
    let file = world.ingest(author, "film", &content("film", BLOBS * MIB));
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
    let limit = Some(u64::from(PARTS_PER_SEC) * PART_LEN as u64);
    let due = Duration::from_secs(1) * u32::try_from(PARTS_NEEDED).expect("few") / PARTS_PER_SEC;
    assert!(time_to_complete(None, None) < due / 4, "the lines carry far more");
    for (upload, download) in [(limit, None), (None, limit), (limit, limit)] {
        let took = time_to_complete(upload, download);
        // What is saved up at the start comes at once; frames, control messages and finding the author take a moment.
        assert!(took > due * 98 / 100 && took < due * 104 / 100, "{took:?} of {due:?}");
    }
}

#[test]
fn slow_lines_bring_everybody_everything_and_little_twice() {
    for (limit, line) in [(Some(20_000), 20_000_000), (None, 20_000)] {
        let mut world = world(90);
        let author = world.add_host(HostConfig {
            identity_seed: Some(Secret::new([7; 32])),
            upload_limit_bytes_per_sec: limit,
            upload_bytes_per_sec: line,
            ..HostConfig::default()
        });
        let channel = world.channel(author).expect("it has an identity");
        let file = world.ingest(author, "film", &content("film", 6 * MIB));
        publish(&mut world, author, &[file]);
        let slow = HostConfig { upload_bytes_per_sec: 2_000, ..HostConfig::default() };
        let readers: Vec<_> = (0..3).map(|_| world.add_host(slow.clone())).collect();
        for reader in &readers {
            world.follow(*reader, channel, None);
        }
        // Three times 6 MiB at 20 kB/s take 944 s; the readers help with a tenth of that each.
        let all = |world: &World| readers.iter().all(|reader| world.is_complete(*reader, &channel));
        assert!(world.run_until(Duration::from_mins(25), all));
        for reader in &readers {
            let status = world.node(*reader).expect("it runs").status(world.now());
            assert!(status.bytes_duplicate < status.bytes_received / 10, "{status:?}");
        }
    }
}
