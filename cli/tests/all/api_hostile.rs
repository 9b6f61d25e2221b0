//! Who asks a real node badly is refused or bounded, and others are served meanwhile.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
#![allow(clippy::disallowed_methods, reason = "the tests are other programs, which connect as they like")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::api::{Api, JSON, Reply, serve_alone};
use crate::support::{MIB, ok, ok_json};
use serde_json::{Value, json};

const GET_STATUS: &[u8] = br#"{"method":"getStatus"}"#;
/// What a call takes at most beside those that misbehave, in the middle of several; some thousand times what it takes alone.
const SOON: Duration = Duration::from_millis(500);
/// What the memory of a node may grow by, whatever comes: sockets' buffers are the kernel's.
const GROWTH_MIB_MAX: f64 = 40.0;

fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The middle of nine calls.
fn assert_soon(api: &Api, when: &str) {
    let mut times: Vec<Duration> = (0..9).map(|_| api.status_time()).collect();
    times.sort_unstable();
    assert!(times[4] < SOON, "{when}: {times:?}");
}

#[test]
fn other_origins_hosts_and_tokens_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let change = br#"{"method":"setLimits","params":{"upload_bytes_per_sec":1048576}}"#;
    let bearer = api.bearer();
    let wrong = format!("Authorization: Bearer mt_{}", "A".repeat(43));
    for (status, headers) in [
        (421, vec!["Host: evil.example", &bearer]),
        (421, vec!["Host: localhost.evil.example:3000", &bearer]),
        (403, vec!["Origin: http://evil.example", &bearer]),
        (403, vec!["Origin: null", &bearer]),
        (403, vec!["Origin: http://127.0.0.1:1", &bearer]),
        (403, vec!["Sec-Fetch-Site: cross-site", &bearer]),
        (403, vec!["Sec-Fetch-Site: same-site", &bearer]),
        (401, vec![]),
        (401, vec![&wrong]),
        (401, vec!["Authorization: Basic YTpi"]),
        (401, vec!["Cookie: megatorrent=x; session=y"]),
        (400, vec![&bearer, &bearer]),
    ] {
        let reply = api.ask("POST /api/rpc", &[&[JSON][..], &headers].concat(), change);
        assert_eq!(reply.status, status, "{headers:?}: {reply:?}");
        assert!(!reply.head.contains("access-control-"), "{reply:?}");
    }
    // What a page of another site asks before it sends is answered by no permission.
    let preflight = ["Origin: http://evil.example", "Access-Control-Request-Method: POST"];
    let reply = api.ask("OPTIONS /api/rpc", &preflight, b"");
    assert!(reply.status >= 400 && !reply.head.contains("access-control-"), "{reply:?}");
    assert_eq!(api.call("getLimits", &json!({}))["upload_bytes_per_sec"], Value::Null);
    node.stop();
}

#[test]
fn a_cookie_serves_its_own_page_alone_until_the_token_is_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let link = api.call("createLoginLink", &json!({}))["path"].as_str().unwrap().to_owned();
    let login = api.ask(&format!("GET /{link}"), &[], b"");
    assert_eq!((login.status, login.header("location")), (303, Some("./")));
    assert_eq!(api.ask(&format!("GET /{link}"), &[], b"").status, 403, "it serves once");
    // The head is in lower case, which a cookie's value is not.
    let raw = {
        let link = api.call("createLoginLink", &json!({}))["path"].as_str().unwrap().to_owned();
        let text = [api.head(&format!("GET /{link}"), &[]).as_bytes(), b"\r\n"].concat();
        String::from_utf8(api.send(&text)).unwrap()
    };
    let set = raw.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = format!("Cookie: {}", set.split(';').next().unwrap());
    let own = format!("Origin: http://{}", api.addr);
    let post =
        |headers: &[&str]| api.ask("POST /api/rpc", &[&[JSON, &cookie], headers].concat(), GET_STATUS).status;
    assert_eq!(post(&[&own]), 200);
    assert_eq!(post(&[]), 403, "a form of another page says no origin");
    assert_eq!(post(&["Origin: http://evil.example"]), 403);
    assert_eq!(post(&[&own, "Sec-Fetch-Site: cross-site"]), 403);
    let form = ["Content-Type: text/plain", cookie.as_str(), own.as_str()];
    assert_eq!(api.ask("POST /api/rpc", &form, GET_STATUS).status, 415);
    let old = api.bearer();
    api.call("rotateToken", &json!({}));
    assert_eq!(post(&[&own]), 401);
    assert_eq!(api.ask("POST /api/rpc", &[JSON, &old], GET_STATUS).status, 401);
    assert_eq!(Api::of(&api.dir).post(GET_STATUS).status, 200);
    node.stop();
}

#[test]
fn a_scope_may_do_what_it_says_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let document = api.document();
    let scopes = ["read", "control", "admin"];
    for (rank, scope) in scopes.iter().enumerate() {
        let token = ok(folder.path(), ["token", "-d", "node", "show", "--scope", scope]).trim().to_owned();
        let api = Api { token, addr: api.addr, dir: api.dir.clone() };
        for method in document["methods"].as_array().unwrap() {
            let name = method["name"].as_str().unwrap();
            let needed = scopes.iter().position(|it| method["x-scope"] == *it).unwrap();
            let error = api.try_call(name, &json!({ "no such parameter": 1 })).unwrap_err();
            let expected = if rank < needed { -32_006 } else { -32_602 };
            assert_eq!(error["code"], expected, "{scope} {name}: {error}");
        }
    }
    node.stop();
}

/// Connections that do not go on: half a head, half a body, an answer that is not read, an event stream that is not read.
fn slow(api: &Api, number: usize) -> TcpStream {
    let mut stream = api.connect();
    let head = format!("POST /api/rpc HTTP/1.1\r\nHost: {}\r\n{JSON}\r\n{}\r\n", api.addr, api.bearer());
    let text = match number % 4 {
        0 => head[..head.len() / 2].to_owned(),
        1 => format!("{head}Content-Length: 1000\r\n\r\n{{\"method\":"),
        2 => format!("GET /api/openrpc.json HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n", api.addr, api.bearer())
            .repeat(60),
        _ => format!("GET /api/events?after=0 HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n", api.addr, api.bearer()),
    };
    // It may be turned away.
    let _ = stream.write_all(text.as_bytes());
    stream
}

#[test]
fn five_hundred_slow_connections_of_each_kind_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    assert_soon(&api, "alone");
    let before = resident_mib(node.pid());
    let mut open = Vec::new();
    for number in 0..500 {
        open.push(slow(&api, number));
    }
    // Those that know the token and hold a place have a second before others may take it.
    let begun = Instant::now();
    let head = format!("{}\r\n", api.head("GET /api/openrpc.json", &[&api.bearer()]));
    // Who is turned away may hear nothing but a reset.
    while !api.send(head.as_bytes()).starts_with(b"HTTP/1.1 200") {
        assert!(begun.elapsed() < Duration::from_secs(3), "others have no place");
        thread::yield_now();
    }
    assert_soon(&api, "beside slow ones");
    let grown = resident_mib(node.pid()) - before;
    assert!(grown < GROWTH_MIB_MAX, "{grown} MiB more");
    drop(open);
    assert_soon(&api, "after slow ones");
    node.stop();
}

#[test]
fn a_hundred_megabytes_are_refused_and_not_held() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let before = resident_mib(node.pid());
    let bearer = api.bearer();
    let piece = vec![b' '; MIB];
    for (status, framing, login) in [
        (413, "Content-Length: 104857600", bearer.as_str()),
        (413, "Transfer-Encoding: chunked", &bearer),
        (401, "Content-Length: 104857600", "X-None: 1"),
        (401, "Transfer-Encoding: chunked", "X-None: 1"),
    ] {
        let mut stream = api.connect();
        let head = api.head("POST /api/rpc", &[JSON, login, framing]);
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        for _ in 0..100 {
            let sent = if framing.contains("chunked") {
                [format!("{MIB:x}\r\n").as_bytes(), &piece, b"\r\n"].concat()
            } else {
                piece.clone()
            };
            if stream.write_all(&sent).is_err() {
                break;
            }
        }
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        // A reset may overtake the answer, since nobody waits for a hundred megabytes.
        assert!(
            read.is_empty() || Reply::parse(&read).status == status,
            "{framing} {login}: {}",
            String::from_utf8_lossy(&read)
        );
        assert_soon(&api, framing);
    }
    let grown = resident_mib(node.pid()) - before;
    assert!(grown < GROWTH_MIB_MAX, "{grown} MiB more");
    node.stop();
}

/// Lets a node tell events that nobody reads, as jobs that fail at once.
fn tell_events(api: &Api, pid: u32, channel: &Value, count: u64) {
    let before = resident_mib(pid);
    let mut unread = Vec::new();
    for _ in 0..8 {
        let mut stream = api.connect();
        let head = api.head("GET /api/events?after=0", &[&api.bearer()]);
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        unread.push(stream);
    }
    let fetch = json!({ "jsonrpc": "2.0", "method": "fetch", "params": { "channel": channel } });
    let batch = Value::from(vec![fetch; 100]).to_string();
    let first = api.call("getStatus", &json!({}))["last_event"].as_u64().unwrap();
    let mut last = first;
    while last - first < count {
        assert_eq!(api.post(batch.as_bytes()).status, 204);
        let before = last;
        let begun = Instant::now();
        last = api.call("getStatus", &json!({}))["last_event"].as_u64().unwrap();
        assert!(last > before, "no event is told");
        assert!(begun.elapsed() < SOON, "{:?} after {} events", begun.elapsed(), last - first);
    }
    let grown = resident_mib(pid) - before;
    println!("{} events, {grown:.1} MiB more", last - first);
    assert!(grown < GROWTH_MIB_MAX, "{grown} MiB more");
    let events = api.call("getEvents", &json!({ "after": first }));
    assert!(events["missed"].as_u64().unwrap() > count / 2);
}

#[test]
fn events_that_nobody_reads_are_bounded() {
    unread_events(50_000);
}

#[test]
#[ignore = "takes ten seconds; scripts/soak runs it"]
fn a_million_events_that_nobody_reads_are_bounded() {
    unread_events(1_000_000);
}

fn unread_events(count: u64) {
    let folder = tempfile::tempdir().unwrap();
    let node = serve_alone(folder.path(), "node");
    let api = Api::of(&folder.path().join("node"));
    let channel = ok_json(folder.path(), ["gen-key"])["public_key"].clone();
    tell_events(&api, node.pid(), &channel, count);
    node.stop();
}
