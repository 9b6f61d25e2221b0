//! JSON-RPC 2.0: the examples of its section 7, and the bounds.

use super::*;
use crate::http::limits::BATCH_MAX;

/// Each request of the specification with its answer; an empty one: none.
const EXAMPLES: &[(&str, &str)] = &[
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#,
        r#"{"jsonrpc": "2.0", "result": 19, "id": 1}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}"#,
        r#"{"jsonrpc": "2.0", "result": -19, "id": 2}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#,
        r#"{"jsonrpc": "2.0", "result": 19, "id": 3}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}"#,
        r#"{"jsonrpc": "2.0", "result": 19, "id": 4}"#,
    ),
    (r#"{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}"#, ""),
    (r#"{"jsonrpc": "2.0", "method": "foobar"}"#, ""),
    (
        r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32601}, "id": "1"}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}"#,
    ),
    (
        r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}"#,
    ),
    (
        r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]"#,
        r#"{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}"#,
    ),
    ("[]", r#"{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}"#),
    ("[1]", r#"[{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]"#),
    (
        "[1,2,3]",
        r#"[{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]"#,
    ),
    (
        r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
            {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
            {"foo": "boo"},
            {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
            {"jsonrpc": "2.0", "method": "get_data", "id": "9"}]"#,
        r#"[{"jsonrpc": "2.0", "result": 7, "id": "1"}, {"jsonrpc": "2.0", "result": 19, "id": "2"},
            {"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32601}, "id": "5"},
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]"#,
    ),
    (
        r#"[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]}, {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]"#,
        "",
    ),
];

/// Leaves an error's code alone: its words are ours.
fn without_words(mut answer: Value) -> Value {
    match &mut answer {
        Value::Array(answers) => {
            for answer in answers {
                *answer = without_words(answer.take());
            }
        }
        Value::Object(members) => {
            if let Some(error) = members.get_mut("error") {
                assert!(error["message"].is_string() && error["data"]["exit_code"].is_u64(), "{error}");
                *error = json!({ "code": error["code"] });
            }
        }
        _ => panic!("{answer}"),
    }
    answer
}

#[test]
fn the_specifications_examples_are_answered_as_it_says() {
    run(async |rig| {
        for (request, expected) in EXAMPLES {
            let reply = rig.call(request).await;
            if expected.is_empty() {
                assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{request}");
            } else {
                let expected: Value = serde_json::from_str(expected).expect("it is JSON");
                assert_eq!(reply.status, 200);
                assert_eq!(without_words(reply.json()), expected, "{request}");
            }
        }
    });
}

#[test]
fn ids_come_back_as_they_were() {
    run(async |rig| {
        for id in ["null", "0", "-7", "1.5", "18446744073709551615", "\"\"", "\"\\u0000\\u00e9\""] {
            let reply = rig.call(&format!(r#"{{"jsonrpc":"2.0","method":"get_data","id":{id}}}"#)).await;
            assert_eq!(reply.json()["id"], serde_json::from_str::<Value>(id).expect("it is JSON"));
            assert!(reply.json()["result"].is_array(), "{reply:?}");
        }
        for id in ["true", "[]", "{}"] {
            let reply = rig.call(&format!(r#"{{"jsonrpc":"2.0","method":"get_data","id":{id}}}"#)).await;
            assert_eq!(
                (&reply.json()["id"], &reply.json()["error"]["code"]),
                (&Value::Null, &json!(-32_600))
            );
        }
    });
}

#[test]
fn the_plain_form_gets_a_plain_answer() {
    run(async |rig| {
        let reply = rig.call(r#"{"method":"echo","params":{"a":[1]}}"#).await;
        assert_eq!(reply.json(), json!({ "result": { "a": [1] } }));
        let reply = rig.call(r#"{"method":"nothing","params":{}}"#).await.json();
        assert_eq!(reply["error"]["code"], -32_601);
        assert_eq!(reply.as_object().map(Map::len), Some(1));
        for bad in ["{}", r#"{"method":7}"#, r#"{"method":"echo","params":"a"}"#, "7", "\"a\"", "null"] {
            assert_eq!(rig.call(bad).await.json()["error"]["code"], -32_600, "{bad}");
        }
        assert_eq!(rig.call("").await.json()["error"]["code"], -32_700);
        assert_eq!(rig.call(&"[".repeat(100_000)).await.json()["error"]["code"], -32_700);
    });
}

#[test]
fn a_batch_is_bounded_in_calls_and_in_its_answers() {
    run(async |rig| {
        let call = r#"{"jsonrpc":"2.0","method":"get_data","id":1}"#;
        let most = format!("[{}]", vec![call; BATCH_MAX].join(","));
        assert_eq!(rig.call(&most).await.json().as_array().map(Vec::len), Some(BATCH_MAX));
        let more = format!("[{}]", vec![call; BATCH_MAX + 1].join(","));
        assert_eq!(rig.call(&more).await.json()["error"]["code"], -32_600);
        let long = r#"{"jsonrpc":"2.0","method":"long","params":{"bytes":9000000},"id":1}"#;
        let answers = rig.call(&format!("[{}]", [long; 4].join(","))).await.json();
        let made = answers.as_array().expect("a list").iter().filter(|it| it["result"].is_string()).count();
        assert_eq!((made, &answers[3]["error"]["code"]), (2, &json!(-32_001)));
    });
}

#[test]
fn the_description_is_served_and_discovered() {
    run(async |rig| {
        let file = rig.ask("GET /api/openrpc.json", &[&rig.bearer(Scope::Read)], "").await.json();
        let reply = rig.call(r#"{"jsonrpc":"2.0","method":"rpc.discover","id":1}"#).await.json();
        assert_eq!(file, reply["result"]);
        assert!(file["methods"].as_array().is_some_and(|methods| !methods.is_empty()));
    });
}
