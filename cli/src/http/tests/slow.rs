//! Who asks too much, or too slowly, is refused or bounded, and others are served meanwhile.

use std::time::Instant;

use super::*;
use crate::http::client::Client;
use crate::http::limits::{BODY_BYTES_MAX, CALLS_BURST, CALLS_MAX, REFUSALS_BURST, STREAMS_MAX};

const GET_DATA: &str = r#"{"method":"get_data"}"#;
const WAIT: &str = r#"{"method":"wait"}"#;
/// What a call takes at most beside those that misbehave: a hundred times what it takes.
const SOON: Duration = Duration::from_secs(1);

async fn is_served_soon(rig: &Rig) {
    let begun = Instant::now();
    assert_eq!(rig.call(GET_DATA).await.status, 200);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Lets the server's tasks do what they can at once.
async fn turns() {
    for _ in 0..1000 {
        future::yield_now().await;
    }
}

#[test]
fn five_hundred_slow_connections_keep_nobody_out() {
    run(async |rig| {
        let mut slow = Vec::new();
        for number in 0..500 {
            let mut stream = rig.connect().await;
            stream.write_all(b"POST /api/rpc HTTP/1.1\r\nHost: local").await.expect("it is sent");
            slow.push(stream);
            if number % 100 == 0 {
                is_served_soon(rig).await;
            }
        }
        is_served_soon(rig).await;
        // The oldest made room.
        let mut read = Vec::new();
        let _ = slow[0].read_to_end(&mut read).await;
        assert!(read.is_empty());
    });
}

/// Short times, of which `long` stays out of the way.
fn times(short: impl FnOnce(&mut Times, Duration)) -> Times {
    let mut times = Times::default();
    short(&mut times, Duration::from_millis(300));
    times
}

#[test]
fn a_head_a_body_and_a_pause_have_their_time() {
    run_with(times(|it, short| it.head = short), async |rig| {
        let mut half = rig.connect().await;
        half.write_all(b"GET /healthz HT").await.expect("it is sent");
        let mut idle = rig.connect().await;
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is sent");
        let mut read = Vec::new();
        idle.read_to_end(&mut read).await.expect("it ends");
        assert_eq!(Reply::parse(&read).status, 204);
        let _ = half.read_to_end(&mut read).await;
    });
    run_with(times(|it, short| it.body = short), async |rig| {
        let mut half = rig.begin("POST /api/rpc HTTP/1.1\r\nContent-Length: 99\r\nX:", "").await;
        let mut read = Vec::new();
        half.read_to_end(&mut read).await.expect("it ends");
        assert_eq!(Reply::parse(&read).status, 400, "two lengths are none");
        let mut half = rig.connect().await;
        let bearer = rig.bearer(Scope::Admin);
        let head = format!(
            "POST /api/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{bearer}\r\nContent-Length: 99\r\n\r\n{{"
        );
        half.write_all(head.as_bytes()).await.expect("it is sent");
        let begun = Instant::now();
        let mut read = Vec::new();
        half.read_to_end(&mut read).await.expect("it ends");
        assert_eq!(Reply::parse(&read).status, 408);
        assert!(begun.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut() {
    run_with(times(|it, short| it.stall = short), async |rig| {
        let bytes = 64 << 20;
        let call = format!("{{\"method\":\"long\",\"params\":{{\"bytes\":{bytes}}}}}");
        let mut stream = rig.begin("POST /api/rpc", &call).await;
        let mut read = vec![0];
        stream.read_exact(&mut read).await.expect("the answer begins");
        // Nothing tells it but the reading of it.
        Timer::after(Duration::from_secs(1)).await;
        let _ = stream.read_to_end(&mut read).await;
        assert!(read.len() < bytes, "{} bytes came", read.len());
        is_served_soon(rig).await;
        // Who takes some is not.
        let mut stream = rig.begin("POST /api/rpc", &call).await;
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            read += count;
            if read > bytes {
                break;
            }
        }
        assert!(read > bytes, "{read} bytes came");
    });
}

#[test]
fn a_long_body_is_refused_before_it_comes() {
    run(async |rig| {
        let bearer = rig.bearer(Scope::Admin);
        let head = format!(
            "POST /api/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{bearer}\r\n"
        );
        let announced = format!("{head}Content-Length: 104857600\r\n\r\n");
        assert_eq!(Reply::parse(&rig.send(announced.as_bytes()).await).status, 413);
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let chunked =
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(BODY_BYTES_MAX / 0x10000 + 1));
        assert_eq!(Reply::parse(&rig.send(chunked.as_bytes()).await).status, 413);
        let both = format!(
            "{head}Connection: close\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
        );
        assert!(Reply::parse(&rig.send(both.as_bytes()).await).status < 500);
        let most = format!("{GET_DATA}{}", " ".repeat(BODY_BYTES_MAX - GET_DATA.len()));
        assert_eq!(rig.call(&most).await.status, 200);
        // Whoever is not known is refused before all that.
        let unknown = "POST /api/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n";
        assert_eq!(Reply::parse(&rig.send(unknown.as_bytes()).await).status, 401);
        assert_eq!(
            Reply::parse(
                &rig.send(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)).as_bytes()).await
            )
            .status
                / 100,
            4
        );
    });
}

#[test]
fn a_reader_that_reads_nothing_costs_nothing_and_is_told_what_it_missed() {
    run(async |rig| {
        let mut stream = rig.begin("GET /api/events?after=0", "").await;
        turns().await;
        let count = 1_000_000;
        for number in 1..=count {
            rig.backend.push("news");
            if number % 1000 == 0 {
                future::yield_now().await;
            }
            if number % 100_000 == 0 {
                is_served_soon(rig).await;
            }
        }
        let text = read_until(&mut stream, &format!("id: {count}\n")).await;
        let missed = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: {\"missed\":"))
            .map(|it| it.trim_end_matches('}').parse::<u64>().expect("a number"));
        let (missed, told) = (missed.sum::<u64>(), text.matches("event: warning\n").count() as u64);
        assert_eq!(missed + told, count);
        assert!(missed > count / 2, "{missed}");
    });
}

#[test]
fn streams_and_calls_are_bounded_and_the_control_socket_stays_free() {
    run(async |rig| {
        let mut open = Vec::new();
        for _ in 0..STREAMS_MAX {
            let mut stream = rig.begin("GET /api/events", "").await;
            read_until(&mut stream, "beat").await;
            open.push(stream);
        }
        let more = rig.ask("GET /api/events", &[&rig.bearer(Scope::Admin)], "").await;
        assert_eq!((more.status, more.header("retry-after")), (503, Some("1")));
        for _ in 0..CALLS_MAX {
            open.push(rig.begin("POST /api/rpc", WAIT).await);
        }
        let mut refused = rig.call(GET_DATA).await.status;
        while refused == 200 {
            turns().await;
            refused = rig.call(GET_DATA).await.status;
        }
        assert_eq!(refused, 503);
        let client = Client::find(rig.dir.path()).await.expect("it looks").expect("a node is there");
        client.call(&crate::api::GetLimits {}).await.expect("an answer");
        assert_eq!(rig.ask("GET /healthz", &[], "").await.status, 204);
        rig.backend.let_go();
        while rig.call(GET_DATA).await.status != 200 {
            turns().await;
        }
    });
}

#[test]
fn a_caller_that_goes_away_does_not_end_its_call() {
    run(async |rig| {
        let stream = rig.begin("POST /api/rpc", r#"{"jsonrpc":"2.0","method":"wait"}"#).await;
        while rig.backend.go.total_listeners() == 0 {
            future::yield_now().await;
        }
        drop(stream);
        turns().await;
        rig.backend.let_go();
        while rig.backend.waited.get() == 0 {
            future::yield_now().await;
        }
    });
}

#[test]
fn calls_a_second_are_bounded_but_for_the_admin() {
    run(async |rig| {
        let batch = format!("[{}]", [r#"{"jsonrpc":"2.0","method":"update"}"#; 100].join(","));
        let mut passed = 0;
        let limited = loop {
            let reply = rig.call_as(Scope::Read, &batch).await;
            if reply.status != 204 {
                break reply;
            }
            passed += 100;
            assert!(passed < CALLS_BURST * 20, "there is no limit");
        };
        assert!(passed >= CALLS_BURST);
        assert_eq!((limited.status, limited.header("retry-after")), (429, Some("1")));
        assert_eq!(rig.call(&batch).await.status, 204);
        assert_eq!(rig.call_as(Scope::Control, &batch).await.status, 204);
    });
}

#[test]
fn who_is_refused_again_and_again_hears_less_and_keeps_nobody_out() {
    run(async |rig| {
        let mut refused = 0;
        while rig.ask("GET /metrics", &["Authorization: Bearer x"], "").await.status == 401 {
            refused += 1;
            assert!(refused < REFUSALS_BURST * 20, "there is no limit");
        }
        assert!(refused >= REFUSALS_BURST);
        is_served_soon(rig).await;
    });
}

#[test]
fn the_end_waits_for_answers_under_way() {
    run(async |rig| {
        let mut waiting = rig.begin("POST /api/rpc", WAIT).await;
        let mut idle = rig.connect().await;
        while rig.backend.go.total_listeners() == 0 {
            future::yield_now().await;
        }
        let server = rig.server.take().expect("it runs");
        let begun = Instant::now();
        let released = async {
            turns().await;
            rig.backend.let_go();
            read_until(&mut waiting, r#"{"result":null}"#).await
        };
        future::zip(server.close(), released).await;
        assert!(begun.elapsed() < SOON);
        let _ = idle.read_to_end(&mut Vec::new()).await;
    });
}
