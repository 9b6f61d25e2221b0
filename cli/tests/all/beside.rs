//! Commands beside a node that runs on their home: its options, its configuration file, and that nobody can tell the difference.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::api::{Api, serve_with};
use crate::support::{Running, megatorrent_in, ok, ok_json, run, serve, stderr, subscribe_args};
use serde_json::{Value, json};

/// A folder with an identity and an entry in the home `node`, on which `serve` runs with these options.
fn served(options: &[&str]) -> (tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("note"), "hello").unwrap();
    ok(folder.path(), ["ingest", "-i", "note", "-d", "node", "-o", "note.json"]);
    let args = ["serve", "-d", "node", "-P", "0"];
    let node = Running::start(folder.path(), args.iter().chain(options));
    node.ready();
    (folder, node)
}

/// Words with which each command is refused that has these options of a node beside the one that runs.
fn refusals(folder: &Path, options: &[&str], variable: Option<(&str, &str)>, are_all: bool) -> Vec<String> {
    let uri = format!("megatorrent://{}", "a1".repeat(32));
    let key = ok_json(folder, ["identity", "-d", "node", "list"]);
    assert!(key["identities"].is_array());
    let publish = ["publish", "-d", "node", "-i", "note.json"];
    let subscribe = ["subscribe", &uri, "-d", "node", "--once", "--timeout", "1"];
    let verify = ["verify", "-d", "node"];
    let repair = ["verify", "-d", "node", "--repair", "--timeout", "1"];
    let mut commands = vec![&subscribe[..], &verify, &repair];
    if are_all {
        commands.push(&publish);
    }
    let refused = commands.into_iter().map(|command| {
        let mut program = megatorrent_in(folder);
        let output = program.args(command).args(options).envs(variable).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{command:?} {options:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
        stderr(&output)
    });
    refused.collect()
}

#[test]
fn an_option_that_is_another_than_the_running_nodes_is_refused_with_what_to_do() {
    let options = ["-H", "127.0.0.1", "-T", "0", "--dht", "server", "--upload-limit", "2M"];
    let (folder, node) = served(&options);
    let status = ok_json(folder.path(), ["status", "-d", "node"]);
    let port = status["p2p"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let cases: [(&[&str], &str, &str, &str, bool); 8] = [
        (&["-H", "127.0.0.2"], "--host 127.0.0.1", "--host 127.0.0.2", "shutdown", false),
        (&["-T", "7"], &format!("--p2p-port {port}"), "--p2p-port 7", "shutdown", false),
        (&["-D", "7"], &format!("--dht-port {port}"), "--dht-port 7", "shutdown", false),
        (&["--dht", "client"], "--dht server", "--dht client", "shutdown", true),
        (
            &["--upload-limit", "3M"],
            "--upload-limit 2000000",
            "--upload-limit 3000000",
            "limit --upload",
            false,
        ),
        (
            &["--download-limit", "3M"],
            "--download-limit none",
            "--download-limit 3000000",
            "limit --d",
            false,
        ),
        (&["--whole"], "--whole false", "--whole true", "settings whole true", false),
        (&["--upload-limit", "1M", "-H", "127.0.0.1"], "2000000", "1000000", "leave it out", false),
    ];
    for (given, has, said, advice, are_all) in cases {
        for refused in refusals(folder.path(), given, None, are_all) {
            assert!([has, said, advice].iter().all(|words| refused.contains(words)), "{given:?}: {refused}");
        }
    }
    for refused in refusals(folder.path(), &[], Some(("MEGATORRENT_DHT", "off")), false) {
        assert!(refused.contains("--dht server") && refused.contains("MEGATORRENT_DHT=off"), "{refused}");
    }
    node.stop();
}

#[test]
fn an_option_that_is_the_running_nodes_is_fine() {
    let options = ["-H", "127.0.0.1", "-T", "0", "--dht", "server", "--upload-limit", "2M", "--whole"];
    let (folder, node) = served(&options);
    let status = ok_json(folder.path(), ["status", "-d", "node"]);
    let port = status["p2p"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let same =
        ["verify", "-d", "node", "-H", "127.0.0.1", "--dht", "server", "--upload-limit", "2000k", "--whole"];
    ok(folder.path(), same.iter().chain(&["-T", "0", "-D", "0"]));
    ok(folder.path(), same.iter().chain(&["-T", &port, "-D", &port, "--repair"]));
    // What a later command has changed counts.
    ok(folder.path(), ["limit", "-d", "node", "--upload", "3M"]);
    assert_eq!(run(folder.path(), same).status.code(), Some(6));
    ok(folder.path(), same.iter().map(|it| if *it == "2000k" { "3M" } else { it }));
    node.stop();
}

#[test]
fn a_node_to_begin_with_is_a_hint_that_is_passed_on() {
    let (folder, node) = served(&["-H", "127.0.0.1", "-T", "0", "--dht", "server"]);
    let hub = serve(folder.path(), "hub", &[]);
    let address = hub.ready();
    // The running node knows nobody: without the hint its head has nowhere to go, and another finds none.
    let args = ["publish", "-d", "node", "-i", "note.json", "-b", &address];
    let uri = ok_json(folder.path(), args)["uri"].clone();
    let uri = uri.as_str().unwrap();
    let reader =
        ["subscribe", uri, "-d", "reader", "-o", "out", "--once", "-H", "127.0.0.1", "--dht", "server", "-b"];
    ok(folder.path(), reader.iter().chain(&[address.as_str()]));
    assert_eq!(fs::read(folder.path().join("out/note")).unwrap(), b"hello");
    node.stop();
    hub.stop();
}

#[test]
fn two_channels_are_published_through_one_node_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let hub = serve(path, "hub", &[]);
    let address = hub.ready();
    let node = serve(path, "node", &[&address]);
    node.ready();
    let channels = ["films", "notes"];
    for name in channels {
        fs::write(path.join(name), name).unwrap();
        ok(path, ["gen-key", "-k", &format!("{name}.key")]);
        let entry = format!("{name}.json");
        ok(path, ["ingest", "-i", name, "-k", &format!("{name}.key"), "-d", "node", "-o", &entry]);
    }
    let uris = thread::scope(|scope| {
        // Each twice, so that publications of one channel take turns beside the other's.
        let publications: Vec<_> = channels.into_iter().chain(channels).collect();
        let publications = publications.into_iter().map(|name| {
            let (key, entry) = (format!("{name}.key"), format!("{name}.json"));
            let publish = move || {
                ok_json(path, ["publish", "-i", &entry, "-k", &key, "-d", "node", "--title", name, "-q"])
            };
            (name, scope.spawn(publish))
        });
        let publications: Vec<_> = publications.collect();
        publications.into_iter().map(|(name, it)| (name, it.join().unwrap())).collect::<Vec<_>>()
    });
    for (name, published) in &uris {
        let same: Vec<_> = uris.iter().filter(|(other, _)| other == name).map(|(_, it)| it).collect();
        assert_eq!(same[0]["uri"], same[1]["uri"]);
        assert_ne!(same[0]["sequence"], same[1]["sequence"], "each has a number of its own");
        let uri = published["uri"].as_str().unwrap();
        let args = subscribe_args("reader", uri, &address);
        ok(path, args.iter().map(String::as_str).chain(["--once"]));
        assert_eq!(fs::read_to_string(path.join("reader-out").join(name)).unwrap(), *name);
    }
    assert_ne!(uris[0].1["uri"], uris[1].1["uri"]);
    node.stop();
    hub.stop();
}

#[test]
fn a_subscribe_that_is_interrupted_leaves_the_channel_to_the_node_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let uri = ok_json(folder.path(), ["gen-key"])["public_uri"].as_str().unwrap().to_owned();
    let node = serve_with(folder.path(), "node", &[]);
    for (option, code) in [(None, 0), (Some("--once"), 130)] {
        let mut reader =
            Running::start(folder.path(), ["subscribe", &uri, "-d", "node"].into_iter().chain(option));
        until("it is followed", || ok_json(folder.path(), ["ls", "-d", "node"])["total"] == 1);
        reader.signal("INT");
        assert_eq!(reader.wait().code(), Some(code), "{}", reader.said());
        until("it says so", || reader.said().contains("the node goes on with the channel; `megatorrent rm`"));
        assert_eq!(ok_json(folder.path(), ["ls", "-d", "node"])["total"], 1);
        ok(folder.path(), ["rm", &uri, "-d", "node"]);
        assert_eq!(ok_json(folder.path(), ["ls", "-d", "node"])["total"], 0);
    }
    node.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_outside_the_nodes_container_is_heard_too() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_with(folder.path(), "node", &[]);
    // Neither sees the other's process.
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-current-user", "--pid", "--fork"]);
    let is_possible =
        Command::new("unshare").args(["--user", "--map-current-user", "--pid", "--fork", "true"]).status();
    if !is_possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no namespaces can be made here");
        return;
    }
    let status = unshare.arg(env!("CARGO_BIN_EXE_megatorrent")).args(["status", "-d", "node", "--json"]);
    let output = status.current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["api"].is_string());
    node.stop();
}

// --- at a terminal ----------------------------------------------------------------------------------------

/// A command at a terminal, as `script` makes one.
#[cfg(target_os = "linux")]
fn at_a_terminal(folder: &Path, command: &str) -> Command {
    let binary = env!("CARGO_BIN_EXE_megatorrent");
    let mut script = Command::new("script");
    let command =
        format!("exec timeout --foreground {} {binary} {command}", crate::support::PATIENCE.as_secs());
    script.args(["-qefc", &command, "/dev/null"]).current_dir(folder);
    script.env("HOME", folder).stdin(Stdio::null()).stdout(Stdio::piped());
    script
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_at_a_terminal_prints_a_link_that_logs_a_browser_in() {
    let folder = tempfile::tempdir().unwrap();
    let serve = "serve -d node -H 127.0.0.1 -T 0 -P 0 --dht off";
    let mut script = at_a_terminal(folder.path(), serve).spawn().unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines().map_while(Result::ok);
    let link = lines.find(|line| line.contains("/login?code=")).unwrap();
    let api = Api::of(&folder.path().join("node"));
    let path =
        link.split_whitespace().find_map(|word| word.strip_prefix(&format!("http://{}", api.addr))).unwrap();
    let text = api.send(format!("{}\r\n", api.head(&format!("GET {path}"), &[])).as_bytes());
    let text = String::from_utf8(text).unwrap();
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(api.ask("GET /metrics", &[&cookie], b"").status, 200);
    assert_eq!(api.ask("GET /metrics", &[], b"").status, 401);
    ok(folder.path(), ["shutdown", "-d", "node"]);
    lines.for_each(drop);
    assert!(script.wait().unwrap().success());
    // A log keeps what it is told, so it is told nothing.
    let node = serve_with(folder.path(), "node", &[]);
    assert!(!node.said().contains("login"), "{}", node.said());
    node.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_status_that_is_watched_stays_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_with(folder.path(), "node", &[]);
    let mut script = at_a_terminal(folder.path(), "status -d node --watch").spawn().unwrap();
    let lines = BufReader::new(script.stdout.take().unwrap()).lines().map_while(Result::ok);
    let seen: Vec<_> = lines.filter(|line| line.contains("runs on")).take(2).collect();
    assert!(seen.iter().all(|line| line.contains("\x1b[H")), "{seen:?}");
    script.kill().unwrap();
    script.wait().unwrap();
    // Elsewhere each look is a text of its own.
    let watch = Running::start(folder.path(), ["status", "-d", "node", "--watch"]);
    assert_eq!(watch.line()["home"], watch.line()["home"]);
    watch.stop();
    node.stop();
}

// --- the configuration file -------------------------------------------------------------------------------

fn said(event: &Value) -> &str {
    event["message"].as_str().unwrap_or_default()
}

/// Lets a node read its file again.
fn reload(node: &Running, file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    node.signal("HUP");
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_hangup_lets_the_file_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    fs::write(&file, "upload-limit = \"2M\"\n").unwrap();
    let node = serve_with(folder.path(), "node", &["--config", "node.toml", "--download-limit", "5M"]);
    let limits = || {
        let limits = ok_json(folder.path(), ["limit", "-d", "node"]);
        (limits["upload_bytes_per_sec"].clone(), limits["download_bytes_per_sec"].clone())
    };
    assert_eq!(limits(), (2_000_000.into(), 5_000_000.into()));

    reload(
        &node,
        &file,
        "upload-limit = \"3M\"\ndownload-limit = \"1M\"\nwhole = true\np2p-port = 7\nport = 8\n",
    );
    let warned = [node.event("warning"), node.event("warning")];
    for (event, key) in warned.iter().zip(["p2p-port", "port"]) {
        assert!(said(event).contains(key) && said(event).contains("restart to apply"), "{event}");
    }
    // The command line goes over the file.
    until("the file applies", || limits() == (3_000_000.into(), 5_000_000.into()));
    let settings = ok_json(folder.path(), ["settings", "-d", "node"]);
    assert_eq!((&settings["whole"], &settings["restart"]), (&true.into(), &json!(["p2p-port", "port"])));
    let changed = ok(folder.path(), ["settings", "gateway", "false", "-d", "node"]);
    assert!(changed.contains("restart  to apply p2p-port, port"), "{changed}");

    for broken in ["upload-limit = \"fast\"\n", "uplod-limit = \"4M\"\n", "upload-limit\n"] {
        reload(&node, &file, broken);
        let warned = node.event("warning");
        assert!(said(&warned).contains("line 1") && said(&warned).contains("nothing is changed"), "{warned}");
    }
    assert_eq!(limits().0, 3_000_000);

    // What a command has set gives way to a file that says something else since, and only then.
    ok(folder.path(), ["limit", "-d", "node", "--upload", "9M"]);
    reload(&node, &file, "upload-limit = \"3M\"\nwhole = false\np2p-port = 7\nport = 8\n");
    until("`whole` applies", || ok_json(folder.path(), ["settings", "-d", "node"])["whole"] == false);
    assert_eq!(limits().0, 9_000_000);
    fs::remove_file(&file).unwrap();
    node.signal("HUP");
    assert!(said(&node.event("warning")).contains("there is no file"));
    reload(&node, &file, "");
    until("a limit is lifted", || limits().0.is_null());
    // The file says again what the node was started with.
    assert_eq!(ok_json(folder.path(), ["settings", "-d", "node"])["restart"], json!([]));
    node.stop();
}

#[test]
fn the_api_can_be_set_up_by_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    fs::write(&file, "port = 0\nrpc-host = \"127.0.0.3\"\nallow-host = [\"node.example\"]\n").unwrap();
    let args = ["serve", "-d", "node", "--config", "node.toml", "-H", "127.0.0.1", "-T", "0", "--dht", "off"];
    let node = Running::start(folder.path(), args);
    node.ready();
    let status = ok_json(folder.path(), ["status", "-d", "node"]);
    assert!(status["api"].as_str().unwrap().starts_with("127.0.0.3:"), "{status}");
    node.stop();
}
