//! Whatever a caller sends to a real node's API, it gets words of the described form, and the node goes on.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
#![allow(clippy::disallowed_methods, reason = "the tests are other programs, which connect as they like")]

use std::time::{Duration, Instant};

use crate::support::api::{Api, JSON, serve_alone};
use crate::support::schema::{anything, check, method, params};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// How long each test draws cases.
const TIME: Duration = Duration::from_secs(2);
/// Cases that are drawn at least, however slow the machine is.
const CASES_MIN: usize = 40;
/// What would end the test with its node, or its login.
const ENDS: [&str; 2] = ["shutdown", "rotateToken"];

/// Draws until the time is over. `API_SEED=random` draws others each time.
fn draw<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, mut take: impl FnMut(T)) {
    let is_random = std::env::var("API_SEED").is_ok_and(|it| it == "random");
    let mut runner = if is_random { TestRunner::default() } else { TestRunner::deterministic() };
    let begun = Instant::now();
    let mut drawn = 0;
    while drawn < CASES_MIN || begun.elapsed() < TIME {
        drawn += 1;
        take(strategy.new_tree(&mut runner).expect("nothing is filtered out").current());
    }
    println!("{drawn} cases");
}

/// A node that must live, say nothing of a panic, and end as it should.
fn with_node(test: impl FnOnce(&Api)) {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    test(&api);
    api.call("getStatus", &json!({}));
    let said = node.said();
    assert!(!said.contains("panicked"), "{said}");
    node.stop();
}

/// Checks one answer of a call to `name`, which may be no method.
fn assert_answer(document: &Value, name: Option<&str>, answer: &Value, request: &str) {
    let parts = ["result", "error"].map(|part| answer.get(part).is_some());
    assert!(parts[0] != parts[1], "{request}: {answer}");
    let schema = match answer.get("error") {
        Some(_) => json!({ "$ref": "#/components/schemas/ApiError" }),
        None => method(document, name.unwrap_or_else(|| panic!("{request}: {answer}")))["result"]["schema"]
            .clone(),
    };
    let value = answer.get("error").unwrap_or(&answer["result"]);
    check(document, &schema, value).unwrap_or_else(|why| panic!("{request}: {why}"));
    assert_ne!(answer["error"]["code"], -32_603, "a fault of the program: {request}: {answer}");
}

/// A call of some method, with parameters that mostly fit.
fn call(document: &Value) -> BoxedStrategy<(String, Value)> {
    let methods = document["methods"].as_array().unwrap().iter();
    let methods = methods.filter(|it| !ENDS.contains(&it["name"].as_str().unwrap()));
    let calls = methods.map(|method| {
        let name = method["name"].as_str().unwrap().to_owned();
        params(document, method).prop_map(move |params| (name.clone(), params)).boxed()
    });
    proptest::strategy::Union::new(calls).boxed()
}

#[test]
fn any_parameters_of_any_method_get_an_answer_of_its_schema() {
    with_node(|api| {
        let document = api.document();
        draw(&call(&document), |(name, params)| {
            let request =
                json!({ "jsonrpc": "2.0", "id": "x", "method": name, "params": params }).to_string();
            let reply = api.post(request.as_bytes());
            assert_eq!(reply.status, 200, "{request}");
            assert_eq!(reply.json()["id"], "x");
            assert_answer(&document, Some(&name), &reply.json(), &request);
        });
    });
}

#[test]
fn batches_and_notifications_are_answered_one_by_one_or_not_at_all() {
    with_node(|api| {
        let document = api.document();
        let item = prop_oneof![
            4 => (call(&document), any::<u32>()).prop_map(|((name, params), id)| (Some(name.clone()), json!({ "jsonrpc": "2.0", "id": id, "method": name, "params": params }))),
            2 => call(&document).prop_map(|(name, params)| (None, json!({ "jsonrpc": "2.0", "method": name, "params": params }))),
            1 => anything().prop_map(|value| (None, value)),
        ];
        draw(&proptest::collection::vec(item, 1..8), |items| {
            let request =
                Value::from(items.iter().map(|(_, item)| item.clone()).collect::<Vec<_>>()).to_string();
            let reply = api.post(request.as_bytes());
            // What has an array or an object for its parameters; anything else is no notification, but no call.
            let is_silent = |item: &Value| {
                let has_form = matches!(item["params"], Value::Null | Value::Array(_) | Value::Object(_));
                item["jsonrpc"] == "2.0" && item["method"].is_string() && item.get("id").is_none() && has_form
            };
            let asked: Vec<_> = items.iter().filter(|(_, item)| !is_silent(item)).collect();
            if asked.is_empty() {
                assert_eq!((reply.status, reply.body.len()), (204, 0), "{request}");
                return;
            }
            assert_eq!(reply.status, 200, "{request}");
            let answers = reply.json();
            assert_eq!(answers.as_array().unwrap().len(), asked.len(), "{request}: {answers}");
            for ((name, _), answer) in asked.iter().zip(answers.as_array().unwrap()) {
                assert_answer(&document, name.as_deref(), answer, &request);
            }
        });
    });
}

#[test]
fn broken_bodies_and_wrong_heads_are_refused_with_a_documented_status() {
    with_node(|api| {
        let whole = json!({ "jsonrpc": "2.0", "id": 1, "method": "getSubscriptions", "params": { "search": "\u{e9}" } });
        let whole = whole.to_string().into_bytes();
        let len = whole.len();
        let body = prop_oneof![
            3 => (0..len).prop_map({ let whole = whole.clone(); move |end| whole[..end].to_vec() }),
            3 => (0..len, any::<u8>()).prop_map({ let whole = whole.clone(); move |(at, byte)| {
                let mut body = whole.clone();
                body[at] = byte;
                body
            } }),
            1 => proptest::collection::vec(any::<u8>(), 0..200),
            1 => (1_usize..50_000).prop_map(|depth| b"[".repeat(depth)),
            1 => Just(b"{\"method\":\"getStatus\",\"method\":\"shutdown\"".to_vec()),
        ];
        let line = select(vec![
            "POST /api/rpc",
            "POST /api/rpc",
            "POST /api/rpc",
            "GET /api/rpc",
            "PUT /api/rpc",
            "POST /api/events",
            "POST /api/openrpc.json",
            "DELETE /metrics",
            "POST /login",
            "POST /",
            "OPTIONS /api/rpc",
        ]);
        let kind = select(vec![
            JSON,
            JSON,
            JSON,
            "Content-Type: application/JSON; charset=utf-8",
            "Content-Type: text/plain",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Type: multipart/form-data; boundary=x",
            "X-None: 1",
            "Content-Type: \u{e9}",
            "Content-Encoding: gzip\r\nContent-Type: application/json",
        ]);
        draw(&(line, kind, body), |(line, kind, body)| {
            let reply = api.ask(line, &[kind, &api.bearer()], &body);
            let asked = format!("{line} {kind} {:?}", String::from_utf8_lossy(&body));
            assert!(
                matches!(reply.status, 200 | 204 | 400 | 404 | 405 | 413 | 415 | 429),
                "{asked}: {reply:?}"
            );
            if reply.status == 200 {
                let answer = reply.json();
                assert!(
                    answer.get("result").is_some() != answer.get("error").is_some() || answer.is_array(),
                    "{asked}: {answer}"
                );
            } else if reply.status != 204 {
                assert!(reply.json()["error"]["message"].is_string(), "{asked}");
            }
        });
    });
}
