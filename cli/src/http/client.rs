//! Calls to the node that runs on a folder, through its control socket.

use std::future::Future;
use std::io;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use futures_lite::future;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
#[cfg(any(target_os = "linux", target_os = "android"))]
use rustix::process::PidfdFlags;
use serde_json::{Value, json};
use smol::Async;
use smol_hyper::rt::FuturesIo;

use super::answer::Payload;
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::credentials::Credentials;
use super::listen::{CONTROL_SOCKET, connect_control};
use crate::api::{ApiError, Call, Event};
use crate::exit::{Exit, Failure, exit_of};

/// Longest answer that is taken.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Longest line of an event stream.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The way to the node that runs on a folder. Each call has a connection of its own, so that calls do not wait for each other.
pub(crate) struct Client {
    dir: PathBuf,
}

/// What an event stream tells.
#[derive(Debug)]
pub(crate) enum Notice {
    Event(Event),
    /// So many events are not kept any more; 0: those of an earlier life of the node, uncounted.
    Missed(u64),
    /// The node lives; in which mode.
    Beat(Value),
}

impl Client {
    /// The node that runs on `dir`; `None`: none does.
    pub(crate) async fn find(dir: &Path) -> Result<Option<Self>, Failure> {
        let found = connect_control(dir)
            .await
            .map_err(|error| Failure::file("cannot connect to", &dir.join(CONTROL_SOCKET), &error))?;
        Ok(found.map(|_| Self { dir: dir.to_owned() }))
    }

    /// The node's process, so that its end can be waited for. `None`: the system does not show it, or it has ended.
    pub(crate) async fn process(&self) -> Option<Process> {
        let stream = connect_control(&self.dir).await.ok()??;
        Process::behind(&stream)
    }

    /// Makes a call.
    pub(crate) async fn call<C: Call>(&self, call: &C) -> Result<C::Answer, ApiError> {
        let params = serde_json::to_value(call).map_err(|error| ApiError::internal(error.to_string()))?;
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": C::NAME, "params": params }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/rpc")
            .header("content-type", "application/json")
            .body(Payload::whole(body))
            .expect("the request's parts are constants");
        let mut exchange = self.exchange(request).await?;
        let body = exchange.collect().await?;
        let mut answer: Value = serde_json::from_slice(&body).map_err(not_understood)?;
        match answer.get_mut("result").map(Value::take) {
            Some(result) => serde_json::from_value(result).map_err(not_understood),
            None => Err(refused(answer)),
        }
    }

    /// The events after a number; from here on where none is given.
    pub(crate) async fn events(&self, after: Option<u64>) -> Result<Notices, ApiError> {
        let uri = after.map_or_else(|| "/api/events".into(), |number| format!("/api/events?after={number}"));
        let request =
            Request::builder().uri(uri).body(Payload::whole("")).expect("a number belongs in a query");
        let mut exchange = self.exchange(request).await?;
        if exchange.answer.status() != StatusCode::OK {
            let body = exchange.collect().await?;
            return Err(refused(serde_json::from_slice(&body).map_err(not_understood)?));
        }
        Ok(Notices { exchange, read: Vec::new(), searched: 0, name: String::new(), data: String::new() })
    }

    async fn exchange(&self, request: Request<Payload>) -> Result<Exchange, ApiError> {
        let stream = connect_control(&self.dir).await.map_err(|error| lost(&error))?;
        let stream = stream.ok_or_else(|| ApiError::not_found("the node on this folder has just ended"))?;
        Exchange::begin(stream, request).await.map_err(|error| lost(&io::Error::other(error)))
    }
}

/// The process at the other end of a control socket.
pub(crate) struct Process {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    handle: Async<OwnedFd>,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Process {
    fn behind(stream: &Async<UnixStream>) -> Option<Self> {
        let pid = Credentials::of(stream).ok()?.pid?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self { handle: Async::new_nonblocking(handle).ok()? })
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        // What cannot be waited for is not waited for.
        let _ = self.handle.readable().await;
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Process {
    fn behind(_: &Async<UnixStream>) -> Option<Self> {
        None
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {}
}

type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// A request's answer, and what carries it.
struct Exchange {
    answer: Response<Incoming>,
    /// Moves bytes while the answer is read; `None`: it is done.
    driver: Option<Driver>,
}

impl Exchange {
    async fn begin(stream: Async<UnixStream>, request: Request<Payload>) -> hyper::Result<Self> {
        let (mut sender, connection) = http1::handshake(FuturesIo::new(stream)).await?;
        let mut driver: Driver = Box::pin(async {
            // What breaks the connection breaks the answer too, which says so.
            let _ = connection.await;
        });
        let mut driving = Some(&mut driver);
        let mut sending = std::pin::pin!(sender.send_request(request));
        let answer = future::poll_fn(|cx| {
            if driving.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
                driving = None;
            }
            sending.as_mut().poll(cx)
        })
        .await?;
        let is_over = driving.is_none();
        Ok(Self { answer, driver: (!is_over).then_some(driver) })
    }

    /// The next bytes; `None`: there are no more.
    async fn bytes(&mut self) -> Result<Option<Bytes>, ApiError> {
        let Self { answer, driver } = self;
        loop {
            let frame = future::poll_fn(|cx| {
                if driver.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
                    *driver = None;
                }
                Pin::new(answer.body_mut()).poll_frame(cx)
            });
            match frame.await {
                None => return Ok(None),
                Some(Err(error)) => return Err(lost(&io::Error::other(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    async fn collect(&mut self) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.bytes().await? {
            if bytes.len() > ANSWER_BYTES_MAX - all.len() {
                return Err(ApiError::internal("the node's answer is too long".into()));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// An event stream.
pub(crate) struct Notices {
    exchange: Exchange,
    /// What came and is no whole line yet, and how much of it was looked at.
    read: Vec<u8>,
    searched: usize,
    /// The event whose lines are coming.
    name: String,
    data: String,
}

impl Notices {
    /// What comes next; `None`: the node has ended the stream. Whoever wants more asks again after the last event's number.
    pub(crate) async fn next(&mut self) -> Option<Result<Notice, ApiError>> {
        loop {
            while let Some(line) = self.line() {
                if let Some(notice) = self.take(&line) {
                    return Some(notice);
                }
            }
            match self.exchange.bytes().await {
                Ok(Some(bytes)) if self.read.len() <= LINE_BYTES_MAX => self.read.extend_from_slice(&bytes),
                Ok(Some(_)) => return Some(Err(ApiError::internal("an event is too long".into()))),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.read[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.read.len();
            return None;
        };
        let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..=end);
        self.searched = 0;
        Some(line)
    }

    fn take(&mut self, line: &str) -> Option<Result<Notice, ApiError>> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return (!data.is_empty()).then(|| read_notice(&name, &data).map_err(not_understood));
        }
        match line.split_once(": ") {
            Some(("event", name)) => name.clone_into(&mut self.name),
            Some(("data", data)) => data.clone_into(&mut self.data),
            _ => {}
        }
        None
    }
}

fn read_notice(name: &str, data: &str) -> Result<Notice, serde_json::Error> {
    match name {
        "reset" => Ok(Notice::Missed(0)),
        "missed" => {
            let value: Value = serde_json::from_str(data)?;
            Ok(Notice::Missed(value["missed"].as_u64().unwrap_or_default()))
        }
        "beat" => serde_json::from_str(data).map(Notice::Beat),
        _ => serde_json::from_str(data).map(Notice::Event),
    }
}

fn lost(error: &io::Error) -> ApiError {
    let exit = match exit_of(error.kind()) {
        Exit::Permission => Exit::Permission,
        _ => Exit::Network,
    };
    let message =
        format!("the node on this folder does not answer ({error}); it may just have ended: try again");
    Failure::new(exit, message).into()
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_understood(error: serde_json::Error) -> ApiError {
    let message = format!(
        "the node on this folder answers what this program does not understand ({error}); it may be of another version: \
         restart it"
    );
    ApiError::internal(message)
}

/// The error in an answer without a result.
fn refused(mut answer: Value) -> ApiError {
    serde_json::from_value(answer["error"].take()).unwrap_or_else(not_understood)
}
