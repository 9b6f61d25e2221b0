//! The API of a real node, as other programs meet it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
#![allow(clippy::disallowed_methods, reason = "the tests are other programs, which connect as they like")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use crate::support::api::{Api, serve_alone};
use crate::support::schema::{assert_answers, check, method};
use crate::support::{Swarm, ok_json, random_bytes, serve, stderr};
use serde_json::{Value, json};

/// The seeds' three requests, word for word; "..." stands for an address there.
const SEEDS: [(&str, &str); 3] = [
    ("addSubscription", r#"{ "method": "addSubscription", "params": { "uri": "..." } }"#),
    ("getSubscriptions", r#"{ "method": "getSubscriptions" }"#),
    ("getStatus", r#"{ "method": "getStatus" }"#),
];

#[test]
fn the_requests_of_the_first_description_get_what_the_document_states() {
    let folder = tempfile::tempdir().unwrap();
    let uri = ok_json(folder.path(), ["gen-key"])["public_uri"].as_str().unwrap().to_owned();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let document = api.document();
    for (name, request) in SEEDS {
        let reply = api.post(request.replace("...", &uri).as_bytes());
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        let answer = reply.json();
        assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), ["result"], "{answer}");
        assert_answers(&document, name, &answer["result"]);
    }
    let found = api.call("getSubscriptions", &json!({}));
    assert_eq!((&found["total"], &found["subscriptions"][0]["uri"]), (&json!(1), &json!(uri)));
    let home = api.call("getStatus", &json!({}))["home"].as_str().unwrap().to_owned();
    assert_eq!(Path::new(&home), folder.path().canonicalize().unwrap().join("node"));
    let output = found["subscriptions"][0]["output"].as_str().unwrap().to_owned();
    assert!(Path::new(&output).starts_with(&home), "{output}");
    node.stop();
}

#[test]
fn the_document_lists_what_is_answered_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let _node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let document = api.document();
    assert_eq!(api.call("rpc.discover", &json!({})), document);
    let methods = document["methods"].as_array().unwrap();
    let names: BTreeSet<&str> = methods.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), methods.len());
    for name in &names {
        // Each is there: it takes its parameters, and no other.
        let error = api.try_call(name, &json!({ "no such parameter": 1 })).unwrap_err();
        assert_eq!(error["code"], -32_602, "{name}: {error}");
        check(&document, &json!({ "$ref": "#/components/schemas/ApiError" }), &error).unwrap();
        let positional = api.try_call(name, &json!([1])).unwrap_err();
        assert_eq!(positional["code"], -32_602, "{name}: {positional}");
        for param in method(&document, name)["params"].as_array().unwrap() {
            assert_eq!(
                param["required"],
                json!(param["schema"].get("default").is_none() && is_needed(name, param))
            );
        }
        // What is nearly its name is not.
        for other in [name.to_uppercase(), format!("{name} "), format!("{name}s"), name[1..].to_owned()] {
            if !names.contains(other.as_str()) {
                assert_eq!(api.try_call(&other, &json!({})).unwrap_err()["code"], -32_601, "{other}");
            }
        }
    }
    // Those of the program's own words are all there.
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/mod.rs")).unwrap();
    let table = source.split("\nmethods! {").nth(1).unwrap().split("\n}").next().unwrap();
    let stated: BTreeSet<&str> = table.lines().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(stated, names);
}

/// Limits and settings have no default: what is left out stays.
fn is_needed(method: &str, param: &Value) -> bool {
    !matches!(method, "setLimits" | "setSettings") || param["required"] == true
}

#[test]
fn a_client_made_from_the_document_runs_through_every_method() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let uri = ok_json(path, ["gen-key"])["private_uri"].as_str().unwrap().to_owned();
    fs::write(path.join("film"), random_bytes(1, 3 << 20)).unwrap();
    let mut node = serve_alone(path, "node");
    let api = Api::of(&path.join("node"));
    fs::write(path.join("openrpc.json"), api.document().to_string()).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/api");
    let python = |script: &str, args: &[&str]| {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-B").arg(scripts.join(script)).args(args).current_dir(path);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    fs::write(path.join("megatorrent_api.py"), python("generate.py", &["openrpc.json"])).unwrap();
    let called =
        python("every_method.py", &[&format!("http://{}", api.addr), &path.display().to_string(), &uri]);
    let document: Value = serde_json::from_slice(&fs::read(path.join("openrpc.json")).unwrap()).unwrap();
    let names = document["methods"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap());
    assert_eq!(called.lines().collect::<BTreeSet<_>>(), names.collect::<BTreeSet<_>>());
    // The last one was `shutdown`.
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn event_numbers_go_on_over_a_restart_and_the_loss_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let old = api.call("getStatus", &json!({}))["last_event"].as_u64().unwrap();
    let own = api.call("getEvents", &json!({ "after": old }));
    assert_eq!((&own["restarted"], &own["missed"]), (&json!(false), &json!(0)));
    node.stop();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let events = api.call("getEvents", &json!({ "after": old }));
    assert_eq!(events["restarted"], true, "{events}");
    let first = events["events"][0]["number"].as_u64().unwrap();
    assert!(first > old && first < 1 << 53, "{first} after {old}");
    // A browser sends the header by itself.
    let mut stream = api.connect();
    let head = api.head("GET /api/events", &[&api.bearer(), &format!("Last-Event-ID: {old}")]);
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let mut read = String::new();
    let mut buffer = [0; 4096];
    while !read.contains("event: beat") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{read}");
        read.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(
        read.contains("event: reset\ndata: {\"message\":") && read.contains(&format!("id: {first}\n")),
        "{read}"
    );
    let started = api.call("getStatus", &json!({}))["started_unix_ms"].to_string();
    assert!(read.contains(&format!("\"started_unix_ms\":{started}")), "{read}");
    node.stop();
}

#[test]
fn a_link_leads_to_a_file_that_has_arrived_until_it_is_revoked() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film.mp4", 3 << 20, &[]);
    let uri = swarm.publish(&[&entry], &[])["uri"].as_str().unwrap().to_owned();
    let _author = swarm.serve_author();
    let node = serve(swarm.path(), "reader", &[&swarm.address]);
    node.ready();
    let api = Api::of(&swarm.join("reader"));
    let document = api.document();
    let channel = api.call("addSubscription", &json!({ "uri": uri }))["channel"].clone();
    let file = json!({ "channel": channel, "path": "film.mp4" });
    node.event("complete");
    let link = api.call("createFileLink", &file);
    assert_answers(&document, "createFileLink", &link);
    assert_eq!((&link["valid_secs"], &link["size_bytes"]), (&json!(12 * 3600), &json!(3 << 20)));
    let first = format!("GET /{}", link["path"].as_str().unwrap());
    let content = fs::read(swarm.join("film.mp4")).unwrap();
    let reply = api.ask(&first, &[], b"");
    assert!(reply.status == 200 && reply.body == content);
    let part = api.ask(&first, &["Range: bytes=1000000-1999999"], b"");
    assert!(part.status == 206 && part.body == content[1_000_000..2_000_000]);
    assert_answers(&document, "getFiles", &api.call("getFiles", &json!({ "channel": channel })));
    assert_answers(&document, "getPeers", &api.call("getPeers", &json!({})));
    // One by its path, all of a channel, all by another token.
    assert_eq!(api.call("revokeFileLinks", &json!({ "path": link["path"] }))["links"], 1);
    assert_eq!(api.ask(&first, &[], b"").status, 404);
    let again = || format!("GET /{}", api.call("createFileLink", &file)["path"].as_str().unwrap());
    let others = [again(), again()];
    assert_eq!(api.call("revokeFileLinks", &json!({ "channel": channel }))["links"], 2);
    let last = again();
    assert_eq!(api.ask(&last, &[], b"").status, 200);
    api.call("removeSubscription", &json!({ "channel": channel }));
    for old in others.iter().chain([&last]) {
        assert_eq!(api.ask(old, &[], b"").status, 404);
    }
    node.stop();
}

#[test]
fn files_are_named_by_absolute_paths_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let film = folder.path().join("film");
    fs::write(&film, "film").unwrap();
    let identity = api.call("createIdentity", &json!({}));
    for file in [json!("/dev/zero"), json!(pipe), json!("film"), json!(folder.path())] {
        for (method, params) in [
            ("ingest", json!({ "file": file })),
            ("ingest", json!({ "file": film, "identity": file })),
            ("publish", json!({ "entries": [], "identity": file })),
            ("importIdentity", json!({ "file": file })),
        ] {
            let error = api.try_call(method, &params).unwrap_err();
            assert_eq!(error["data"]["exit_code"], 2, "{method} {params}: {error}");
        }
    }
    let relative = json!({ "channel": identity["channel"], "file": "backup", "passphrase": "correct horse" });
    assert_eq!(api.try_call("exportIdentity", &relative).unwrap_err()["data"]["exit_code"], 2);
    let error =
        api.try_call("addSubscription", &json!({ "uri": identity["uri"], "output": "here" })).unwrap_err();
    assert_eq!(error["data"]["exit_code"], 2);
    assert_eq!(api.call("getJobs", &json!({}))["jobs"], json!([]));
    node.stop();
}
