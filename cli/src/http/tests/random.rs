//! Whatever comes is answered with words or an end, and the server goes on.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

const CASES: usize = 300;

fn json_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["2.0", "echo", "subtract", "sum", "getLimits", "rpc.discover"])
            .prop_map(Value::from),
    ];
    let name = prop_oneof![
        prop::sample::select(vec!["jsonrpc", "method", "params", "id"]).prop_map(str::to_owned),
        any::<String>(),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((name.clone(), inner), 0..6).prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

/// Pieces of requests in any order, and noise.
fn http_like(rig: &Rig) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET ".to_owned(),
        "POST ".into(),
        "/api/rpc ".into(),
        "/api/openrpc.json ".into(),
        "/metrics ".into(),
        "/login?code=x ".into(),
        "HTTP/1.1\r\n".into(),
        "HTTP/1.0\r\n".into(),
        "Host: localhost\r\n".into(),
        "Content-Length: 7\r\n".into(),
        "Transfer-Encoding: chunked\r\n".into(),
        "Expect: 100-continue\r\n".into(),
        "Content-Type: application/json\r\n".into(),
        "Cookie: a; b=c\r\n".into(),
        "Origin: null\r\n".into(),
        "Connection: upgrade\r\nUpgrade: h2c\r\n".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "\r\n".into(),
        "\r\n\r\n".into(),
        "0\r\n\r\n".into(),
        "{}".into(),
        format!("{}\r\n", rig.bearer(Scope::Admin)),
    ]);
    let noise = vec(any::<u8>(), 0..40);
    let part = prop_oneof![8 => piece.prop_map(String::into_bytes), 1 => noise];
    vec(part, 0..16).prop_map(|parts| parts.concat())
}

fn draw<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> S::Value {
    strategy.new_tree(runner).expect("nothing is filtered out").current()
}

#[test]
fn any_bytes_are_refused_or_answered() {
    run(async |rig| {
        let mut runner = TestRunner::deterministic();
        let strategy = http_like(rig);
        for _ in 0..CASES {
            let bytes = draw(&strategy, &mut runner);
            let mut stream = rig.connect().await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
            let mut read = Vec::new();
            let _ = stream.read_to_end(&mut read).await;
            assert!(read.is_empty() || read.starts_with(b"HTTP/1."), "{bytes:?}");
            assert!(read.get(9) != Some(&b'5'), "{bytes:?}: {read:?}");
        }
        assert_eq!(rig.call(r#"{"method":"get_data"}"#).await.status, 200);
    });
}

#[test]
fn any_json_gets_an_answer_of_the_right_form() {
    run(async |rig| {
        let mut runner = TestRunner::deterministic();
        let strategy = json_like();
        for _ in 0..CASES {
            let request = draw(&strategy, &mut runner);
            let reply = rig.call(&request.to_string()).await;
            assert!(matches!(reply.status, 200 | 204), "{request}: {reply:?}");
            if reply.status == 204 {
                continue;
            }
            let answers = match reply.json() {
                Value::Array(answers) => answers,
                answer => vec![answer],
            };
            for answer in answers {
                let parts = ["result", "error"].map(|name| answer.get(name).is_some());
                assert!(parts[0] != parts[1], "{request}: {answer}");
            }
        }
    });
}
