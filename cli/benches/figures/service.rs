//! What the API of an idle node costs, beside an empty process and a server that only says hello.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use hyper::Response;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use smol::{Async, LocalExecutor};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::Outcome;
use crate::process::{Process, run};
use crate::report::{Goal, Report};

/// The ceilings and the floor that the project set itself.
const READY_MS_MAX: f64 = 30.0;
const RESIDENT_MIB_MAX: f64 = 14.0;
const EVENT_MS_MAX: f64 = 50.0;
const RATE_RATIO_MIN: f64 = 1.0 / 3.0;

/// Starts, and events.
const TIMES: usize = 20;
/// How long an idle node is left alone before its memory is read.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// Connections that ask at once, each for the next answer when it has one, and for how long.
const CONNECTIONS: usize = 16;
const RATE_TIME: Duration = Duration::from_secs(2);

pub(crate) fn service(folder: &Path, runs: usize, report: &mut Report) -> Outcome<()> {
    report.heading("The API of an idle node");
    let folder = folder.join("service");
    fs::create_dir(&folder)?;
    run(&folder, &["gen-key"])?;
    starts(&folder, report)?;
    let node = Process::start(&folder, &args("node"))?;
    node.ready()?;
    let api = Api::of(&folder.join("node"))?;
    events(&folder, &api, report)?;
    rates(&api, runs, report)?;
    node.terminate()?;
    Ok(fs::remove_dir_all(&folder)?)
}

fn args(name: &str) -> [&str; 11] {
    ["serve", "-d", name, "-H", "127.0.0.1", "-T", "0", "-P", "0", "--dht", "server"]
}

/// An empty process and a node, in turns.
fn starts(folder: &Path, report: &Report) -> Outcome<()> {
    let (mut empty_ms, mut first_ms, mut ready_ms, mut resident_mib) = (vec![], vec![], vec![], vec![]);
    for number in 0..=TIMES {
        let begun = Instant::now();
        Command::new("true").status()?;
        let empty = begun.elapsed();
        let name = format!("start-{number}");
        let (first, node) = ready(folder, &name)?;
        node.terminate()?;
        let (again, node) = ready(folder, &name)?;
        let api = Api::of(&folder.join(&name))?;
        let mut connection = api.connect()?;
        connection.ask(&api.call("getStatus", "{}"))?;
        // The first pair warms up.
        if number > 0 {
            empty_ms.push(empty.as_secs_f64() * 1e3);
            first_ms.push(first.as_secs_f64() * 1e3);
            ready_ms.push(again.as_secs_f64() * 1e3);
        }
        if number > TIMES - 5 {
            drop(connection);
            thread::sleep(IDLE_TIME);
            resident_mib.push(node.resident_mib()?);
        }
        node.terminate()?;
    }
    report.figure("an empty process: start to end", "ms", &empty_ms, Goal::None);
    report.figure("serve: start to ready, its folder made", "ms", &first_ms, Goal::AtMost(READY_MS_MAX));
    report.figure("serve: start to ready, again", "ms", &ready_ms, Goal::AtMost(READY_MS_MAX));
    report.figure(
        "serve: resident memory after a call",
        "MiB",
        &resident_mib,
        Goal::AtMost(RESIDENT_MIB_MAX),
    );
    Ok(())
}

/// A node, and how long it took to say that it is ready, which it is when its API is.
fn ready(folder: &Path, name: &str) -> Outcome<(Duration, Process)> {
    let node = Process::start(folder, &args(name))?;
    let (at, _) = node.event_named("ready")?;
    Ok((at - node.started(), node))
}

/// From the call that makes an event to the event at a reader.
#[expect(clippy::disallowed_methods, reason = "another program's socket")]
fn events(folder: &Path, api: &Api, report: &Report) -> Outcome<()> {
    let key: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("identity.json"))?)?;
    let channel = key["publicKey"].as_str().ok_or("an identity has a key")?;
    // A job of a channel that is not followed: its events come at once, and nothing is written.
    let fetch = api.call("fetch", &format!("{{\"channel\":\"{channel}\"}}"));
    let mut stream = TcpStream::connect(api.addr)?;
    let head = format!(
        "GET /api/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
        api.addr, api.token
    );
    stream.write_all(head.as_bytes())?;
    let told = lines_of(stream);
    while !told.recv_timeout(Duration::from_secs(10))?.1.contains("event: beat") {}
    let mut caller = api.connect()?;
    let mut times_ms = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        caller.ask(&fetch)?;
        let at = loop {
            let (at, line) = told.recv_timeout(Duration::from_secs(10))?;
            if line.contains("event: job") {
                break at;
            }
        };
        times_ms.push((at - begun).as_secs_f64() * 1e3);
        // The job's end is an event too.
        while !told.recv_timeout(Duration::from_secs(10))?.1.contains("\"failed\"") {}
    }
    report.figure(
        "an event: from the call that makes it to a reader",
        "ms",
        &times_ms,
        Goal::AtMost(EVENT_MS_MAX),
    );
    Ok(())
}

/// The lines of a stream, each with when it came.
fn lines_of(stream: TcpStream) -> Receiver<(Instant, String)> {
    let (sender, lines) = channel();
    let reader = BufReader::new(stream);
    thread::spawn(move || {
        reader.lines().map_while(Result::ok).try_for_each(|line| sender.send((Instant::now(), line)))
    });
    lines
}

/// `getStatus` and hello, in turns.
fn rates(api: &Api, runs: usize, report: &Report) -> Outcome<()> {
    let hello = hello()?;
    let greeting = format!("GET / HTTP/1.1\r\nHost: {hello}\r\n\r\n");
    let call = api.call("getStatus", "{}");
    let (mut hellos, mut calls, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=runs {
        let hello_rate = rate(hello, &greeting)?;
        let call_rate = rate(api.addr, &call)?;
        if number > 0 {
            hellos.push(hello_rate);
            calls.push(call_rate);
            ratios.push(call_rate / hello_rate);
        }
    }
    let of = format!("{CONNECTIONS} connections");
    report.figure(&format!("hyper's hello world, {of}"), "/s", &hellos, Goal::None);
    report.figure(&format!("getStatus, {of}"), "/s", &calls, Goal::None);
    report.figure("getStatus: of hello's rate", "", &ratios, Goal::AtLeast(RATE_RATIO_MIN));
    Ok(())
}

/// Answers a second.
fn rate(addr: SocketAddr, request: &str) -> Outcome<f64> {
    let connections: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| Connection::open(addr)).collect();
    let mut connections = connections?;
    let (begun, mut answers) = (Instant::now(), 0_u32);
    while begun.elapsed() < RATE_TIME {
        for connection in &mut connections {
            connection.send(request)?;
        }
        for connection in &mut connections {
            connection.receive()?;
            answers += 1;
        }
    }
    Ok(f64::from(answers) / begun.elapsed().as_secs_f64())
}

/// A server as the node's is made, which says hello, on a thread of its own.
#[expect(clippy::disallowed_methods, reason = "no node's socket")]
fn hello() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        let executor = LocalExecutor::new();
        let serving = async {
            let listener = Async::new(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.get_ref().set_nodelay(true);
                let service =
                    service_fn(async |_| Ok::<_, Infallible>(Response::new("Hello, World!".to_owned())));
                let mut builder = Builder::new();
                builder.timer(SmolTimer::new());
                let connection = builder.serve_connection(FuturesIo::new(stream), service);
                executor.spawn(async { drop(connection.await) }).detach();
            }
        };
        smol::block_on(executor.run(serving));
    });
    Ok(addr)
}

/// The way to a node's API.
struct Api {
    addr: SocketAddr,
    token: String,
}

impl Api {
    fn of(dir: &Path) -> Outcome<Self> {
        let addr = fs::read_to_string(dir.join("api-address"))?.trim().parse()?;
        Ok(Self { addr, token: fs::read_to_string(dir.join("api-token"))?.trim().to_owned() })
    }

    fn connect(&self) -> Outcome<Connection> {
        Connection::open(self.addr)
    }

    fn call(&self, method: &str, params: &str) -> String {
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}");
        format!(
            "POST /api/rpc HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.addr,
            self.token,
            body.len()
        )
    }
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    #[expect(clippy::disallowed_methods, reason = "another program's socket")]
    fn open(addr: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, request: &str) -> Outcome<()> {
        self.send(request)?;
        self.receive()
    }

    fn send(&mut self, request: &str) -> Outcome<()> {
        Ok(self.0.get_mut().write_all(request.as_bytes())?)
    }

    /// Takes an answer, which must be a good one.
    fn receive(&mut self) -> Outcome<()> {
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(format!("a call was answered by {line:?}").into());
        }
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        if body.starts_with(b"{") && !body.windows(9).any(|it| it == b"\"result\":") {
            return Err(String::from_utf8_lossy(&body).into_owned().into());
        }
        Ok(())
    }
}
