//! The server on real sockets of loopback, before an application that does next to nothing.

use std::cell::Cell;
use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use event_listener::Event as Signal;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use serde_json::{Map, Value, json};
use smol::{Async, Timer};
use tempfile::TempDir;

use super::Backend;
use super::listen::{ControlSocket, Listener};
use super::server::Server;
use super::token::Access;
use crate::api::{ApiError, EventKind, Scope};
use crate::node;
use crate::output::News;
use crate::service::Log;

mod client;
mod events;
mod guard;
mod random;
mod rpc;
mod slow;

/// How long a test may take.
const TEST_TIME: Duration = Duration::from_mins(2);

/// An application of a few methods.
struct Fake {
    log: Log,
    beats: Cell<u64>,
    go: Signal,
    may_go: Cell<bool>,
    waited: Cell<usize>,
}

impl Backend for Fake {
    async fn call(&self, scope: Scope, method: &str, params: Value) -> Result<Value, ApiError> {
        match method {
            "subtract" => {
                let of = |index: usize, name: &str| params.get(index).unwrap_or(&params[name]).as_i64();
                Ok(json!(of(0, "minuend").unwrap_or(0) - of(1, "subtrahend").unwrap_or(0)))
            }
            "sum" => {
                Ok(json!(params.as_array().into_iter().flatten().filter_map(Value::as_i64).sum::<i64>()))
            }
            "get_data" => Ok(json!(["hello", 5])),
            "update" | "notify_hello" | "notify_sum" => Ok(Value::Null),
            "echo" => Ok(params),
            "getLimits" => Ok(json!({ "upload_bytes_per_sec": 7, "download_bytes_per_sec": null })),
            "shutdown" if scope < Scope::Admin => Err(ApiError::out_of_scope(method, Scope::Admin)),
            "long" => {
                Ok("x".repeat(usize::try_from(params["bytes"].as_u64().unwrap_or(0)).unwrap_or(0)).into())
            }
            "wait" => {
                let go = self.go.listen();
                if !self.may_go.get() {
                    go.await;
                }
                self.waited.set(self.waited.get() + 1);
                Ok(Value::Null)
            }
            _ => Err(ApiError::no_method(method)),
        }
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn beat(&self) -> Value {
        json!({ "mode": "direct", "enforcement": "none", "change": self.beats.get() })
    }

    fn metrics(&self) -> String {
        "# TYPE megatorrent_up gauge\nmegatorrent_up 1\n".into()
    }

    fn is_ready(&self) -> bool {
        true
    }
}

impl Fake {
    fn push(&self, text: &str) -> u64 {
        let kind = EventKind { event: News::Warning, channel: None, job: None, members: Map::new() };
        self.log.push(kind, text.into())
    }

    /// Lets all calls of `wait` end.
    fn let_go(&self) {
        self.may_go.set(true);
        self.go.notify(usize::MAX);
    }
}

/// A server that runs, and what it stands on.
struct Rig {
    addr: SocketAddr,
    access: Rc<Access>,
    backend: Rc<Fake>,
    dir: TempDir,
    server: Cell<Option<Server<Fake>>>,
    _control: ControlSocket,
}

/// Runs a test before a server that answers for `node.example` too.
fn run(test: impl AsyncFnOnce(&Rig)) {
    node::block_on(async |executor| {
        let dir = tempfile::tempdir().expect("a folder");
        let access = Rc::new(Access::open(dir.path()).expect("a token"));
        let backend = Rc::new(Fake {
            log: Log::new(),
            beats: Cell::new(0),
            go: Signal::new(),
            may_go: Cell::new(false),
            waited: Cell::new(0),
        });
        let tcp = Listener::bind(None, Some(0)).expect("it listens");
        let addr = tcp.local_addr().expect("an address");
        let (control, unix) = ControlSocket::bind(dir.path()).expect("it listens");
        let hosts = vec!["node.example".to_owned()];
        let server = Server::start(executor, Rc::clone(&backend), Rc::clone(&access), hosts, vec![tcp, unix]);
        let server = Cell::new(Some(server));
        let rig = Rig { addr, access, backend, dir, server, _control: control };
        let late = async {
            Timer::after(TEST_TIME).await;
            panic!("the test takes too long");
        };
        future::or(test(&rig), late).await;
    });
}

/// An answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.get(9..12).and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "another program's socket")]
    async fn connect(&self) -> Async<TcpStream> {
        Async::<TcpStream>::connect(self.addr).await.expect("it connects")
    }

    /// Sends bytes, and reads all that comes back.
    async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        let mut read = Vec::new();
        // A refusal may come, and the connection end, before all is sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut read).await;
        read
    }

    /// Makes a request with these headers beside the host and the body's length.
    async fn ask(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let host = format!("Host: {}", self.addr);
        let has_host = headers.iter().any(|it| it.to_lowercase().starts_with("host:"));
        let mut text = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers.iter().copied().chain((!has_host).then_some(host.as_str())) {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() {
            let _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text.push_str("\r\n");
        text.push_str(body);
        Reply::parse(&self.send(text.as_bytes()).await)
    }

    fn bearer(&self, scope: Scope) -> String {
        format!("Authorization: Bearer {}", &*self.access.token(scope))
    }

    /// Makes a call with the token of a scope.
    async fn call_as(&self, scope: Scope, body: &str) -> Reply {
        let bearer = self.bearer(scope);
        self.ask("POST /api/rpc", &["Content-Type: application/json", &bearer], body).await
    }

    async fn call(&self, body: &str) -> Reply {
        self.call_as(Scope::Admin, body).await
    }

    /// Begins a request of which nobody reads the answer yet.
    async fn begin(&self, line: &str, body: &str) -> Async<TcpStream> {
        let mut stream = self.connect().await;
        let bearer = self.bearer(Scope::Admin);
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{bearer}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        stream
    }
}

/// Reads until this comes; all that was read.
async fn read_until(stream: &mut Async<TcpStream>, wanted: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await.expect("it reads");
        assert!(count > 0, "the stream ended without {wanted:?}: {}", String::from_utf8_lossy(&read));
        let searched = read.len().saturating_sub(wanted.len());
        read.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&read[searched..]).contains(wanted) {
            return String::from_utf8_lossy(&read).into_owned();
        }
    }
}
