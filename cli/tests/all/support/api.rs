//! Asks a node's API as another program does: over TCP, with the token that lies in the node's folder.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, Running};

pub(crate) const JSON: &str = "Content-Type: application/json";

/// A `serve` on loopback with an API at a free port, alone in the world, in the folder `name` below `folder`.
pub(crate) fn serve_alone(folder: &Path, name: &str) -> Running {
    serve_with(folder, name, &[])
}

pub(crate) fn serve_with(folder: &Path, name: &str, more: &[&str]) -> Running {
    let args = ["serve", "-d", name, "-H", "127.0.0.1", "-T", "0", "-P", "0", "--dht", "off"];
    let node = Running::start(folder, args.iter().chain(more));
    node.ready();
    node
}

/// The way to a node's API.
pub(crate) struct Api {
    pub(crate) addr: SocketAddr,
    pub(crate) dir: PathBuf,
    pub(crate) token: String,
}

/// An answer. Its head is in lower case.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.get(9..12).and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Api {
    /// The API of the node that runs in a folder.
    pub(crate) fn of(dir: &Path) -> Self {
        let addr = fs::read_to_string(dir.join("api-address")).unwrap();
        let token = fs::read_to_string(dir.join("api-token")).unwrap().trim().to_owned();
        Self { addr: addr.lines().next().unwrap().parse().unwrap(), dir: dir.to_owned(), token }
    }

    #[expect(clippy::disallowed_methods, reason = "another program's socket")]
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own, and reads all that comes back.
    pub(crate) fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // A refusal may come, and the connection end, before all is sent.
        let _ = stream.write_all(bytes);
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read);
        read
    }

    /// The head of a request. The host is named where `headers` name none.
    pub(crate) fn head(&self, line: &str, headers: &[&str]) -> String {
        let mut text = format!("{line} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|it| it.to_lowercase().starts_with("host:")) {
            let _ = write!(text, "Host: {}\r\n", self.addr);
        }
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text
    }

    pub(crate) fn ask(&self, line: &str, headers: &[&str], body: &[u8]) -> Reply {
        let mut text = self.head(line, headers);
        if !body.is_empty() {
            let _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        Reply::parse(&self.send(&[text.as_bytes(), b"\r\n", body].concat()))
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// Posts a body as the admin.
    pub(crate) fn post(&self, body: &[u8]) -> Reply {
        self.ask("POST /api/rpc", &[JSON, &self.bearer()], body)
    }

    /// Makes a call; its result, or its error.
    pub(crate) fn try_call(&self, method: &str, params: &Value) -> Result<Value, Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut answer = self.post(body.as_bytes()).json();
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(answer["error"].take()),
        }
    }

    /// Makes a call that must succeed.
    pub(crate) fn call(&self, method: &str, params: &Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// How long `getStatus` takes, on a connection of its own.
    pub(crate) fn status_time(&self) -> Duration {
        let begun = Instant::now();
        self.call("getStatus", &json!({}));
        begun.elapsed()
    }

    /// The OpenRPC document.
    pub(crate) fn document(&self) -> Value {
        self.ask("GET /api/openrpc.json", &[&self.bearer()], b"").json()
    }
}
