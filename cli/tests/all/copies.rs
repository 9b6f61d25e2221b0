//! `--copy` where two files can share their bytes: an XFS of its own, in a file, which each process mounts for itself alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs::{self, File};
use std::process::Command;

use crate::support::{MIB, Swarm, megatorrent, stderr, subscribe_args};

const IMAGE_LEN: u64 = 400 << 20;

/// The image with an XFS that was made, unless that cannot be.
fn image(swarm: &Swarm) -> bool {
    let image = swarm.join("image");
    File::create(&image).and_then(|file| file.set_len(IMAGE_LEN)).unwrap();
    fs::create_dir(swarm.join("xfs")).unwrap();
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let is_made = succeeds(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
    if !is_made {
        eprintln!("skipped: mkfs.xfs (xfsprogs) is not installed");
        return false;
    }
    let can_mount = succeeds(&mut inside(swarm, &Command::new("true")));
    if !can_mount {
        eprintln!("skipped: mounting an image needs root, loop devices and XFS in the kernel");
    }
    can_mount
}

/// A command to which the XFS is mounted.
fn inside(swarm: &Swarm, command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "sh", "-c", "mount -o loop image xfs && exec \"$@\"", "sh"]);
    unshare.arg(command.get_program()).args(command.get_args()).current_dir(swarm.path());
    unshare
}

/// What a program prints, to which the XFS is mounted.
fn printed(swarm: &Swarm, mut command: Command, args: &[&str]) -> String {
    command.args(args);
    let output = inside(swarm, &command).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn shell(swarm: &Swarm, script: &str) -> String {
    printed(swarm, Command::new("sh"), &["-c", script])
}

#[test]
fn copies_share_the_bytes_of_what_was_fetched_and_outlive_it() {
    let swarm = Swarm::new();
    if !image(&swarm) {
        return;
    }
    let entry = swarm.ingest("film", 32 * MIB, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let author = swarm.serve_author();
    let args = subscribe_args("xfs/reader", uri, &swarm.address);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--once", "--copy"]);
    printed(&swarm, megatorrent(), &args);

    let look =
        "cmp film xfs/reader-out/film && ls xfs/reader/copies | wc -l && du -s xfs/reader/blobs | cut -f1";
    let mut found = shell(&swarm, look);
    found.push_str(&shell(&swarm, "sync xfs && df --output=used xfs | tail -1"));
    let found: Vec<u64> = found.split_whitespace().map(|number| number.parse().unwrap()).collect();
    // The index and the body, and the empty file system.
    let content_kib = 32 * 1024;
    assert!(
        matches!(found[..], [1, blobs, used] if blobs < content_kib / 4 && used < content_kib * 2),
        "{found:?}"
    );

    // Whatever becomes of the file, and of the author, others get it from the copy; it is not fetched again by itself.
    author.stop();
    let edit = "dd if=/dev/zero of=xfs/reader-out/film bs=1M count=20 conv=notrunc status=none";
    let binary = megatorrent().get_program().to_str().unwrap().to_owned();
    let address = &swarm.address;
    let node = format!("-H 127.0.0.1 --dht server -b {address}");
    let serves =
        format!("{binary} serve -d xfs/reader -T 0 {node} >serve.log 2>&1 & trap 'kill $!; wait' EXIT");
    let fetches = format!("{binary} subscribe '{uri}' -d second -o second-out --once --timeout 100 {node}");
    shell(&swarm, &format!("{edit}; {serves}; {fetches}"));
    swarm.assert_equal("second", "film");
    let kept = shell(&swarm, "ls xfs/reader/copies | wc -l; head -c 5 xfs/reader-out/film | od -An -tx1");
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["1", "00", "00", "00", "00", "00"]);
}
