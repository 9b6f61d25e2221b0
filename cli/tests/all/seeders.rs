//! One download from several seeders between separate processes on loopback, of which some fail.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::support::stranger::{Liar, Lie, Line};
use crate::support::{MIB, Running, Swarm};
use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::codec::Message;
use megatorrent_core::ids::BlobId;
use megatorrent_core::uri::{ChannelUri, topic};
use serde_json::Value;

/// Bytes a second that each seeder sends, so that the download takes a few seconds.
const UPLOAD_LIMIT: &str = "6M";

/// A seeder with a folder of its own that holds what the author's holds.
fn seeder(swarm: &Swarm, name: &str) -> (Running, String) {
    copy_folder(&swarm.join("author"), &swarm.join(name));
    let args = ["serve", "-d", name, "-H", "127.0.0.1", "-T", "0", "-P", "0", "--dht", "server"];
    let more = ["-b", &swarm.address, "--upload-limit", UPLOAD_LIMIT];
    let node = Running::start(swarm.path(), args.iter().chain(&more));
    let address = node.ready();
    (node, address)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Of two honest seeders one is killed while it serves; of the two others one sends garbage and one nothing.
#[test]
fn a_download_completes_from_the_seeder_that_is_left() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 48 * MIB, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let uri = published["uri"].as_str().unwrap();
    let channel: ChannelUri = uri.parse().unwrap();
    let topic = topic(&channel.public_key, None);

    let (mut victim, victim_address) = seeder(&swarm, "victim");
    let (_seeder, seeder_address) = seeder(&swarm, "seeder");
    let garbage = Liar::start(topic, Lie::Garbage).unwrap();
    let silent = Liar::start(topic, Lie::Silence).unwrap();

    let (garbage_address, silent_address) = (garbage.address.to_string(), silent.address.to_string());
    let mut args = crate::support::subscribe_args("reader", uri, &swarm.address);
    for address in [&victim_address, &seeder_address, &garbage_address, &silent_address] {
        args.extend(["-b".to_owned(), address.clone()]);
    }
    let mut reader = Running::start(swarm.path(), args);
    let warnings = RefCell::new(Vec::new());
    let note = |event: &Value| {
        if event["event"] == "warning" {
            warnings.borrow_mut().push(event["message"].as_str().unwrap().to_owned());
        }
    };
    reader.event_where("a third of the blobs", |event| {
        note(event);
        event["event"] == "progress" && event["blobs"].as_u64() >= Some(16)
    });
    victim.signal("KILL");
    victim.wait();
    let left = reader.event_where("the rest", |event| {
        note(event);
        event["event"] == "progress"
    });
    assert!(left["blobs"].as_u64() < left["blobs_total"].as_u64(), "it was killed in the middle");
    reader.event_where("completion", |event| {
        note(event);
        event["event"] == "complete"
    });
    swarm.assert_equal("reader", "film");

    let banned: Vec<String> =
        warnings.into_inner().into_iter().filter(|warning| warning.contains("is banned")).collect();
    assert!(matches!(&banned[..], [one] if one.starts_with(&garbage_address)), "{banned:?}");
    assert!(garbage.asked() > 0 && silent.asked() > 0, "both were believed at first");
    reader.signal("TERM");
    assert_eq!(reader.wait().code(), Some(0));
}

/// A peer that takes nothing for a while fills its socket. When it goes on, the limit is soon reached with nothing else
/// under way: the node's own deadline must wake it.
#[test]
fn a_limited_seeder_goes_on_by_itself_after_its_peer_was_slow() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 20 * MIB, &["--copy"]);
    swarm.publish(&[&entry], &[]);
    let args = [
        "serve",
        "-d",
        "author",
        "-H",
        "127.0.0.1",
        "-T",
        "0",
        "-P",
        "0",
        "--dht",
        "off",
        "--upload-limit",
        "16M",
    ];
    let node = Running::start(swarm.path(), args);
    let mut line = Line::dial(node.ready().parse().unwrap()).unwrap();
    let id = |path: &PathBuf| blob::id(&fs::read(path).unwrap()[..BLOB_LEN]);
    let ids: Vec<BlobId> = crate::support::blobs(&swarm.join("author")).iter().map(id).collect();
    // The page, the index blob and the data; the author cannot say the ids of the body and of the list of ids.
    let named = ids.len() - 2;
    assert!(named > 20);
    for id in &ids {
        line.send(&Message::Request(*id)).unwrap();
    }
    thread::sleep(Duration::from_millis(300)); // nothing tells when the other end's socket is full
    line.set_patience(Duration::from_secs(10)).unwrap();
    let (mut blobs, mut unknown) = (0, 0);
    while blobs + unknown < ids.len() {
        match line.receive().expect("it goes on") {
            Message::Data(blob) => {
                assert_eq!(blob.len(), BLOB_LEN);
                blobs += 1;
            }
            Message::Error(_) => unknown += 1,
            _ => {}
        }
    }
    assert_eq!(blobs, named);
}
