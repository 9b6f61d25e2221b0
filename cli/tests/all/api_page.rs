//! What the page needs of the API: to look before anything is fetched, and to publish what a browser brings.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::api::Api;
use crate::support::schema::assert_answers;
use crate::support::{PATIENCE, Running, Swarm, random_bytes, serve};
use serde_json::{Value, json};

/// Asks until the answer is as `wanted` says.
fn until(api: &Api, method: &str, params: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = api.call(method, params);
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{method}: {answer}");
        sleep(Duration::from_millis(20));
    }
}

fn node(swarm: &Swarm, name: &str) -> (Running, Api) {
    let node = serve(swarm.path(), name, &[&swarm.address]);
    node.ready();
    let api = Api::of(&swarm.join(name));
    (node, api)
}

fn published(api: &Api, source: &str, channel: &Value) -> Value {
    let call = json!({ "source": source, "channel": channel, "title": "Films", "private": true });
    let job = api.call("publishFolder", &call)["id"].clone();
    let over = |job: &Value| ["done", "failed"].contains(&job["state"].as_str().unwrap());
    let job = until(api, "getJob", &json!({ "job": job }), over);
    assert_eq!(job["state"], "done", "{job}");
    job["result"].clone()
}

#[test]
fn a_preview_fetches_no_file_and_becomes_a_subscription() {
    let swarm = Swarm::new();
    let folder = swarm.join("films");
    fs::create_dir_all(folder.join("one")).unwrap();
    fs::write(folder.join("one/film"), random_bytes(7, 3 << 20)).unwrap();
    fs::write(folder.join("notes"), "first").unwrap();
    let source = folder.to_str().unwrap();
    let (_author, author) = node(&swarm, "author");
    let channel = author.call("createIdentity", &json!({}))["channel"].clone();
    let uri = published(&author, source, &channel)["uri"].clone();

    let own = until(&author, "getSubscription", &json!({ "channel": channel }), |it| it["complete"] == true);
    assert_eq!((&own["unread"], &own["state"]), (&json!(false), &json!("up_to_date")));

    let (_reader, reader) = node(&swarm, "reader");
    let document = reader.document();
    assert_eq!(reader.call("getStatus", &json!({}))["told_nothing"], true);
    let preview = json!({ "uri": uri, "preview": true });
    assert_answers(&document, "addSubscription", &reader.call("addSubscription", &preview));
    let one = json!({ "channel": channel });
    let seen = until(&reader, "getSubscription", &one, |it| it["files"] == 2);
    assert_eq!((&seen["preview"], &seen["title"]), (&json!(true), &json!("Films")));
    let files = reader.call("getFiles", &one);
    assert_eq!(files["files"][1]["path"], "one");
    let status = reader.call("getStatus", &json!({}));
    assert_eq!((&status["channels"]["all"], &status["told_nothing"]), (&json!(0), &json!(false)));
    assert!(status["bytes_received"].as_u64().unwrap() < 1 << 20, "{status}");
    assert_eq!(reader.call("getSubscriptions", &json!({}))["total"], 0);

    let followed = reader.call("addSubscription", &json!({ "uri": uri }));
    assert_eq!((&followed["preview"], &followed["number"]), (&json!(false), &seen["number"]));
    let here = until(&reader, "getSubscription", &one, |it| it["complete"] == true);
    assert_eq!((&here["state"], &here["here_bytes"]), (&json!("new"), &here["size_bytes"]));
    assert!(here["asked_unix_ms"].is_u64(), "{here}");
    let blobs = reader.call("getBlobs", &json!({ "channel": channel, "cells": 2 }));
    assert_eq!((&blobs["here"], blobs["blobs"].as_array().unwrap().len()), (&blobs["blobs"], 2));
    assert_answers(&document, "getBlobs", &blobs);
    reader.call("markRead", &one);

    // The next version differs from the one that was seen.
    fs::write(folder.join("notes"), "second").unwrap();
    fs::write(folder.join("more"), "new").unwrap();
    fs::remove_file(folder.join("one/film")).unwrap();
    published(&author, source, &channel);
    let new = until(&reader, "getSubscription", &one, |it| it["state"] == "new");
    assert_eq!(new["difference"], json!({ "added": 1, "changed": 1, "removed": 1 }));
    let files = reader.call("getFiles", &one);
    let changes: Vec<&Value> = files["files"].as_array().unwrap().iter().map(|it| &it["change"]).collect();
    assert_eq!(changes, [&json!("new"), &json!("changed")], "{files}");
    assert_answers(&document, "getFiles", &files);
    reader.call("markRead", &one);
    assert_eq!(reader.call("getSubscription", &one)["difference"], Value::Null);
}

#[test]
fn a_preview_ends_with_its_node_or_when_it_is_removed() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("film", 3 << 20, &[]);
    let uri = swarm.publish(&[&entry], &[])["uri"].clone();
    let _author = swarm.serve_author();
    let preview = json!({ "uri": uri, "preview": true });
    let (reader, api) = node(&swarm, "reader");
    let one = json!({ "channel": api.call("addSubscription", &preview)["channel"] });
    api.call("removeSubscription", &one);
    assert_eq!(api.try_call("getSubscription", &one).unwrap_err()["data"]["exit_code"], 3);
    api.call("addSubscription", &preview);
    until(&api, "getSubscription", &one, |it| it["files"] == 1);
    reader.stop();
    let (reader, api) = node(&swarm, "reader");
    until(&api, "getSubscriptions", &json!({}), |it| it["total"] == 0);
    assert!(api.try_call("getSubscription", &one).is_err());
    assert!(api.call("getStatus", &json!({}))["bytes_received"].as_u64().unwrap() < 1 << 20);
    reader.stop();
}

#[test]
fn a_folder_that_failed_is_named_and_tried_again_when_a_user_asks() {
    let swarm = Swarm::new();
    let entries = [swarm.ingest("film", 3 << 20, &[]), swarm.ingest("notes", 1000, &[])];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let uri = swarm.publish(&entries, &[])["uri"].clone();
    let _author = swarm.serve_author();
    let (reader, api) = node(&swarm, "reader");
    let out = swarm.join("out");
    // What is in the way of a file cannot be written over.
    fs::create_dir_all(out.join("notes/mine")).unwrap();
    let follow = json!({ "uri": uri, "output": out });
    let one = json!({ "channel": api.call("addSubscription", &follow)["channel"] });
    let in_state = |api: &Api, state: &str| until(api, "getSubscription", &one, |it| it["state"] == state);
    let failed = in_state(&api, "folder_missing");
    assert!(failed["failure"].as_str().unwrap().contains("notes"), "{failed}");
    fs::remove_dir_all(out.join("notes")).unwrap();
    api.call("checkSubscription", &one);
    assert_eq!(in_state(&api, "new")["failure"], Value::Null);
    api.call("markRead", &one);

    // A folder that is gone while no node looks.
    reader.stop();
    fs::rename(&out, swarm.join("away")).unwrap();
    let (_reader, api) = node(&swarm, "reader");
    in_state(&api, "folder_missing");
    fs::rename(swarm.join("away"), &out).unwrap();
    api.call("checkSubscription", &one);
    in_state(&api, "up_to_date");

    // What a user made of a file is theirs, and nothing is amiss.
    fs::write(out.join("notes"), "mine").unwrap();
    api.call("addSubscription", &follow);
    let kept = until(&api, "getSubscription", &one, |it| it["kept_files"] == 1);
    assert_eq!((&kept["state"], &kept["complete"]), (&json!("up_to_date"), &json!(true)), "{kept}");
}
