//! What was answered outlives the process, however it ends; and many channels make it neither slow nor large.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
#![allow(clippy::disallowed_methods, reason = "the tests are other programs, which connect as they like")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::api::{Api, JSON, Reply, serve_alone, serve_with};
use crate::support::stranger::Line;
use crate::support::{MIB, PATIENCE, Running, Swarm, ok_json, random_bytes, run, serve_args, stderr};
use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::codec::Message;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, Secret};
use serde_json::{Value, json};

/// Channels that a large node follows.
const CHANNELS: usize = 1000;
const BUSY_PEERS: usize = 50;
const ANSWER_TIME_MAX: Duration = Duration::from_millis(100);
const RESIDENT_MIB_MAX: f64 = 128.0;
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// A channel's address and key; each number has its own.
fn channel(number: u64) -> (String, String) {
    let secret: [u8; 32] = random_bytes(number, 32).try_into().unwrap();
    let key = Identity::new(&Secret::new(secret), None).public_key().to_string();
    (format!("megatorrent://{key}"), key)
}

/// What the answers so far have said.
#[derive(Default)]
struct Model {
    /// Whether each channel that is followed rests.
    channels: BTreeMap<String, bool>,
    identities: BTreeSet<String>,
    upload: Option<u64>,
    jobs: BTreeSet<u64>,
}

/// One change. A node that is killed meanwhile may have made it or not.
#[derive(Clone, Debug)]
enum Change {
    Follow(u64),
    Unfollow(String),
    Pause(String),
    Resume(String),
    Limit(u64),
    Identity,
    Ingest,
}

impl Change {
    /// The change with this number.
    fn draw(number: u64, model: &Model) -> Self {
        let bytes = random_bytes(number, 16);
        let pick =
            |at: usize| model.channels.keys().nth(bytes[at] as usize % model.channels.len().max(1)).cloned();
        match (bytes[0] % 8, pick(1)) {
            (0, Some(key)) => Self::Unfollow(key),
            (1, Some(key)) => Self::Pause(key),
            (2, Some(key)) => Self::Resume(key),
            (3, _) => Self::Limit(1 << 20 | number),
            (4, _) => Self::Identity,
            (5, _) => Self::Ingest,
            _ => Self::Follow(number),
        }
    }

    fn call(&self, folder: &Path) -> (&'static str, Value) {
        match self {
            Self::Follow(number) => ("addSubscription", json!({ "uri": channel(*number).0 })),
            Self::Unfollow(key) => ("removeSubscription", json!({ "channel": key })),
            Self::Pause(key) => ("pauseSubscription", json!({ "channel": key })),
            Self::Resume(key) => ("resumeSubscription", json!({ "channel": key })),
            Self::Limit(rate) => ("setLimits", json!({ "upload_bytes_per_sec": rate })),
            Self::Identity => ("createIdentity", json!({})),
            Self::Ingest => ("ingest", json!({ "file": folder.join("film") })),
        }
    }

    fn take(&self, answer: &Value, model: &mut Model) {
        match self {
            Self::Follow(number) => drop(model.channels.insert(channel(*number).1, false)),
            Self::Unfollow(key) => drop(model.channels.remove(key)),
            Self::Pause(key) => drop(model.channels.insert(key.clone(), true)),
            Self::Resume(key) => drop(model.channels.insert(key.clone(), false)),
            Self::Limit(rate) => model.upload = Some(*rate),
            Self::Identity => drop(model.identities.insert(answer["channel"].as_str().unwrap().to_owned())),
            Self::Ingest => drop(model.jobs.insert(answer["id"].as_u64().unwrap())),
        }
    }
}

/// Makes a call of a node that may end meanwhile.
fn attempt(api: &Api, change: &Change, folder: &Path) -> Option<Value> {
    let (method, params) = change.call(folder);
    let body = json!({ "method": method, "params": params }).to_string();
    let mut stream = std::net::TcpStream::connect(api.addr).ok()?;
    let head = api.head("POST /api/rpc", &[JSON, &api.bearer(), &format!("Content-Length: {}", body.len())]);
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
    let mut read = Vec::new();
    stream.read_to_end(&mut read).ok()?;
    if !read.windows(4).any(|it| it == b"\r\n\r\n") {
        return None;
    }
    let mut answer: Value = serde_json::from_slice(&Reply::parse(&read).body).ok()?;
    assert!(answer.get("result").is_some(), "{change:?}: {answer}");
    Some(answer["result"].take())
}

/// What a node says that it has.
fn found(api: &Api) -> Model {
    let mut model = Model::default();
    for one in api.call("getSubscriptions", &json!({}))["subscriptions"].as_array().unwrap() {
        model.channels.insert(one["channel"].as_str().unwrap().to_owned(), one["state"] == "paused");
    }
    for one in api.call("getIdentities", &json!({}))["identities"].as_array().unwrap() {
        model.identities.insert(one["channel"].as_str().unwrap().to_owned());
    }
    model.upload = api.call("getLimits", &json!({}))["upload_bytes_per_sec"].as_u64();
    model.jobs = jobs(api).iter().map(|job| job["id"].as_u64().unwrap()).collect();
    model
}

fn jobs(api: &Api) -> Vec<Value> {
    api.call("getJobs", &json!({}))["jobs"].as_array().unwrap().clone()
}

/// Checks that all that was answered is there, and that nothing else is but perhaps the last change.
fn assert_kept(model: &mut Model, found: Model, last: Option<&Change>, when: &str) {
    let own = match last {
        Some(Change::Follow(number)) => Some(channel(*number).1),
        Some(Change::Unfollow(key) | Change::Pause(key) | Change::Resume(key)) => Some(key.clone()),
        _ => None,
    };
    let others = |it: &BTreeMap<String, bool>| {
        it.iter()
            .filter(|(key, _)| Some(*key) != own.as_ref())
            .map(|(key, paused)| (key.clone(), *paused))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(&found.channels), others(&model.channels), "{when}");
    let may_be = if let Some(Change::Limit(rate)) = last { Some(*rate) } else { model.upload };
    assert!(
        found.upload == model.upload || found.upload == may_be,
        "{when}: {:?} {:?}",
        found.upload,
        model.upload
    );
    assert!(found.identities.is_superset(&model.identities) && found.jobs.is_superset(&model.jobs), "{when}");
    assert!(
        found.identities.len()
            <= model.identities.len() + usize::from(matches!(last, Some(Change::Identity))),
        "{when}"
    );
    *model = found;
}

/// Kills a node again and again while it makes changes, and looks each time whether it has kept what it answered.
fn killed_and_started_again(kills: u64, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("film"), random_bytes(1, MIB + 5)).unwrap();
    let mut model = Model::default();
    let (mut last, mut number) = (None::<Change>, seed);
    for kill in 0..kills {
        let mut node = serve_alone(folder.path(), "node");
        let api = Api::of(&folder.path().join("node"));
        assert_kept(&mut model, found(&api), last.take().as_ref(), &format!("seed {seed}, kill {kill}"));
        // From within the first call to some later one.
        let delay = Duration::from_micros(u64::from(random_bytes(seed + kill, 1)[0]) * 250);
        let pid = rustix::process::Pid::from_raw(i32::try_from(node.pid()).unwrap()).unwrap();
        let killer = thread::spawn(move || {
            thread::sleep(delay); // the moment is what the test draws
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        loop {
            number += 1;
            let change = Change::draw(number, &model);
            let Some(answer) = attempt(&api, &change, folder.path()) else {
                last = Some(change);
                break;
            };
            change.take(&answer, &mut model);
        }
        killer.join().unwrap();
        node.wait();
    }
    // Then it goes on: all jobs come to their end.
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    assert_kept(&mut model, found(&api), last.as_ref(), "the end");
    println!(
        "{} channels, {} identities, {} jobs of {} changes",
        model.channels.len(),
        model.identities.len(),
        model.jobs.len(),
        number - seed
    );
    let deadline = Instant::now() + PATIENCE;
    while jobs(&api).iter().any(|job| job["state"] != "done") {
        assert!(Instant::now() < deadline, "{:?}", jobs(&api));
        thread::sleep(Duration::from_millis(5)); // a look is cheap, and an event may have been told already
    }
    node.stop();
}

#[test]
fn what_was_answered_outlives_a_kill_at_any_moment() {
    killed_and_started_again(24, 1);
}

#[test]
#[ignore = "takes a minute; scripts/soak runs it"]
fn what_was_answered_outlives_five_hundred_kills() {
    let seed = std::env::var("KILL_SEED").ok().and_then(|it| it.parse().ok());
    killed_and_started_again(500, seed.unwrap_or(1000));
}

fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Follows many channels, some of them at once.
fn follow_many(api: &Api) {
    for start in (0..CHANNELS).step_by(50) {
        let one = |number: usize| json!({ "jsonrpc": "2.0", "id": number, "method": "addSubscription", "params": { "uri": channel(number as u64 + 1_000_000).0 } });
        let batch: Vec<Value> = (start..start + 50).map(one).collect();
        let reply = api.post(Value::from(batch).to_string().as_bytes());
        let answers = reply.json();
        assert!(answers.as_array().unwrap().iter().all(|it| it.get("result").is_some()), "{answers}");
    }
}

/// The middle of nine times.
fn median(mut take: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            take();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[4]
}

/// Lets peers ask for blobs, each as fast as it gets them; they have got some.
fn be_busy(api: &Api, addr: SocketAddr, ids: &[BlobId]) {
    for _ in 0..BUSY_PEERS {
        let ids = ids.to_vec();
        let mut line = Line::dial(addr).unwrap();
        thread::spawn(move || {
            for id in ids.iter().cycle() {
                let asked = line.send(&Message::Request(*id));
                if asked.is_err() || line.receive().is_err() {
                    return;
                }
            }
        });
    }
    let begun = Instant::now();
    while api.call("getStatus", &json!({}))["bytes_sent"].as_u64() < Some(2 << 20) {
        assert!(begun.elapsed() < PATIENCE, "no peer is served");
        thread::yield_now();
    }
}

#[test]
fn a_thousand_channels_and_fifty_busy_peers_leave_it_quick_small_and_soon_ended() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 20 * MIB, &["--copy"]);
    swarm.publish(&[&entry], &[]);
    let id = |path: &PathBuf| blob::id(&fs::read(path).unwrap()[..BLOB_LEN]);
    let ids: Vec<BlobId> = crate::support::blobs(&swarm.join("author")).iter().map(id).collect();
    let limit = ["--upload-limit".to_owned(), "8M".to_owned()];
    let mut node =
        Running::start(swarm.path(), [&serve_args("author", &[&swarm.address])[..], &limit].concat());
    let addr = node.ready().parse().unwrap();
    let api = Api::of(&swarm.join("author"));
    follow_many(&api);

    be_busy(&api, addr, &ids);
    for (method, params) in [
        ("getStatus", json!({})),
        ("getSubscriptions", json!({ "sort": "title", "limit": 60 })),
        ("getSubscriptions", json!({})),
        ("getPeers", json!({})),
    ] {
        let time = median(|| drop(api.call(method, &params)));
        println!("{method} {params}: {time:?}");
        assert!(time < ANSWER_TIME_MAX, "{method} {params}: {time:?}");
    }
    let resident = resident_mib(node.pid());
    println!("{resident:.1} MiB");
    assert!(resident < RESIDENT_MIB_MAX, "{resident} MiB");
    assert_eq!(api.call("getStatus", &json!({}))["channels"]["all"], CHANNELS + 1);
    let begun = Instant::now();
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    println!("ended in {:?}", begun.elapsed());
    assert!(begun.elapsed() < END_TIME_MAX, "{:?}", begun.elapsed());

    let again = serve_with(swarm.path(), "author", &[]);
    assert_eq!(Api::of(&swarm.join("author")).call("getStatus", &json!({}))["channels"]["all"], CHANNELS + 1);
    again.stop();
}

#[test]
fn of_two_nodes_on_one_folder_one_runs_and_the_other_says_who_does() {
    let folder = tempfile::tempdir().unwrap();
    ok_json(folder.path(), ["gen-key"]);
    for round in 0..4 {
        let args = ["serve", "-d", "node", "-H", "127.0.0.1", "-T", "0", "-P", "0", "--dht", "off"];
        // What a killed one left.
        let _ = fs::remove_file(folder.path().join("node/api-address"));
        let racers = [(); 2].map(|()| {
            let folder = folder.path().to_owned();
            thread::spawn(move || {
                let mut child = crate::support::megatorrent();
                let child = child.current_dir(folder).args(args).stdout(std::process::Stdio::piped());
                child.stderr(std::process::Stdio::piped()).spawn().unwrap()
            })
        });
        let mut children = racers.map(|it| it.join().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let ended = loop {
            if let Some(ended) = (0..2).find(|it| children[*it].try_wait().unwrap().is_some()) {
                break ended;
            }
            assert!(Instant::now() < deadline, "both run");
            thread::sleep(Duration::from_millis(1)); // std has no wait for either
        };
        let [first, second] = children;
        let (loser, mut winner) = if ended == 0 { (first, second) } else { (second, first) };
        let loser = loser.wait_with_output().unwrap();
        assert_eq!(loser.status.code(), Some(6), "{}", stderr(&loser));
        assert!(stderr(&loser).contains("is held by a running node"), "{}", stderr(&loser));
        let api = loop {
            if folder.path().join("node/api-address").exists() {
                break Api::of(&folder.path().join("node"));
            }
            assert!(Instant::now() < deadline, "the other one has no API");
            thread::yield_now();
        };
        assert_eq!(api.call("getStatus", &json!({}))["mode"], "direct");
        // A third one, while the winner runs, in words for whoever looks for it.
        let third = run(folder.path(), args);
        assert_eq!(third.status.code(), Some(6), "round {round}: {}", stderr(&third));
        assert!(stderr(&third).contains(&winner.id().to_string()), "{}", stderr(&third));
        // A killed one leaves its lock and socket behind, which hold nobody.
        winner.kill().unwrap();
        winner.wait().unwrap();
    }
}
