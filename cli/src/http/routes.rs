//! What is where, and how it is asked for. Nothing here knows in which folder of a proxy it lies.

use std::rc::Rc;

use futures_lite::future;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use smol::Timer;
use zeroize::Zeroizing;

use super::answer::{self, Answer, Payload, Refusal};
use super::connection::Slot;
use super::events::events;
use super::guard::{self, Peer};
use super::limits::{
    BODIES_BYTES_MAX, BODY_BYTES_MAX, CALLS_MAX, CONTROL_BODY_BYTES_MAX, LOGIN_BODY_BYTES_MAX, STREAMS_MAX,
};
use super::server::{Inner, Place};
use super::token::Login;
use super::{Backend, files, page, rpc};

/// What browsers say in place of `Last-Event-ID` when they connect again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers a request.
pub(super) async fn answer<B: Backend>(
    server: Rc<Inner<B>>,
    peer: Peer,
    slot: Rc<Slot>,
    request: Request<Incoming>,
) -> Answer {
    let busy = slot.busy();
    let (head, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    let mut answer = match route(&server, peer, &slot, &head, body).await {
        Ok(answer) => answer,
        Err(refusal) => {
            slot.has_unread.set(has_body);
            let told = !refusal.is_callers_fault() || server.may_ask_why(peer);
            let refusal =
                if told { refusal } else { Refusal::too_many("too many requests that were refused") };
            refusal.into_answer()
        }
    };
    answer.body_mut().keep_busy(busy);
    answer
}

async fn route<B: Backend>(
    server: &Rc<Inner<B>>,
    peer: Peer,
    slot: &Slot,
    head: &Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    let host = guard::host(peer, &head.uri, &head.headers, &server.allowed_hosts)?;
    let path = head.uri.path();
    // What needs no login.
    if let "/healthz" | "/readyz" | "/login" = path {
        guard::origin(peer, &head.method, &head.headers, host, None)?;
        return match path {
            "/login" if head.method == Method::POST => {
                check_type(&head.headers)?;
                let (body, _place) = collect(server, peer, LOGIN_BODY_BYTES_MAX, slot, body).await?;
                exchange(server, &body)
            }
            "/login" => log_in(server, head),
            "/readyz" => ready(server, head),
            _ => allow(head, &[Method::GET, Method::HEAD], "GET, HEAD")
                .map(|()| answer::empty(StatusCode::NO_CONTENT)),
        };
    }
    // Files of the page say nothing of the node, and a link may lead to it from anywhere.
    if let Some(asset) = page::find(path) {
        allow(head, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        return Ok(page::file(asset, head));
    }
    // The code is the login. A link may be followed from any page.
    if let Some(code) = path.strip_prefix("/files/") {
        allow(head, &[Method::GET, Method::HEAD], "GET, HEAD")?;
        return files::file(server, head, code).await;
    }
    if !matches!(path, "/api/rpc" | "/api/events" | "/api/openrpc.json" | "/metrics") {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {path:?}")));
    }
    let login = guard::login(peer, &head.headers, &server.access)?;
    guard::origin(peer, &head.method, &head.headers, host, Some(&login))?;
    if path != "/api/rpc" && !server.may_call(&login, 1) {
        return Err(Refusal::too_many("too many requests a second"));
    }
    match path {
        "/api/rpc" => {
            allow(head, &[Method::POST], "POST")?;
            check_type(&head.headers)?;
            let bytes_max = if peer.is_control() { CONTROL_BODY_BYTES_MAX } else { BODY_BYTES_MAX };
            let (body, place) = collect(server, peer, bytes_max, slot, body).await?;
            call(server, peer, login, body, place).await
        }
        "/api/events" => stream(server, peer, login, head),
        "/metrics" => allow(head, &[Method::GET, Method::HEAD], "GET, HEAD")
            .map(|()| answer::text("text/plain; version=0.0.4; charset=utf-8", server.backend.metrics())),
        _ => allow(head, &[Method::GET, Method::HEAD], "GET, HEAD")
            .map(|()| answer::json(server.description.to_string())),
    }
}

fn allow(head: &Parts, methods: &[Method], names: &'static str) -> Result<(), Refusal> {
    if methods.contains(&head.method) {
        return Ok(());
    }
    let message = format!("{} takes {names}", head.uri.path());
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message).with(header::ALLOW, names))
}

fn ready<B: Backend>(server: &Inner<B>, head: &Parts) -> Result<Answer, Refusal> {
    allow(head, &[Method::GET, Method::HEAD], "GET, HEAD")?;
    if server.backend.is_ready() && !server.is_closing() {
        Ok(answer::empty(StatusCode::NO_CONTENT))
    } else {
        Ok(answer::empty(StatusCode::SERVICE_UNAVAILABLE))
    }
}

fn log_in<B: Backend>(server: &Inner<B>, head: &Parts) -> Result<Answer, Refusal> {
    allow(head, &[Method::GET], "GET, POST")?;
    let cookie = query(head, "code").and_then(|code| server.access.redeem(code)).ok_or_else(|| {
        Refusal::new(StatusCode::FORBIDDEN, "this link was used, or is too old: have the node make another")
    })?;
    let mut answer = answer::empty(StatusCode::SEE_OTHER);
    set_cookie(&mut answer, &cookie);
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("./"));
    Ok(answer)
}

/// Begins the session of a browser whose user typed a token in.
fn exchange<B: Backend>(server: &Inner<B>, body: &[u8]) -> Result<Answer, Refusal> {
    let Exchange { token } = serde_json::from_slice(body)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body is {\"token\": TOKEN}"))?;
    let token = Zeroizing::new(token);
    let cookie = server.access.exchange(token.trim()).ok_or_else(|| {
        let message = "this is not the node's token, or no longer; `megatorrent token show` prints it";
        Refusal::new(StatusCode::FORBIDDEN, message)
    })?;
    let mut answer = answer::empty(StatusCode::NO_CONTENT);
    set_cookie(&mut answer, &cookie);
    Ok(answer)
}

/// What `POST login` takes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    token: String,
}

fn set_cookie(answer: &mut Answer, cookie: &str) {
    let mut cookie = HeaderValue::from_str(cookie).expect("names and values of cookies are ASCII");
    cookie.set_sensitive(true);
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
}

/// The value of a parameter in the query, as it stands there.
fn query<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    let mut pairs = head.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

async fn call<B: Backend>(
    server: &Rc<Inner<B>>,
    peer: Peer,
    login: Login,
    body: Zeroizing<Vec<u8>>,
    place: Place,
) -> Result<Answer, Refusal> {
    // Meanwhile the token may have been rotated.
    if !server.access.holds(&login) {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the login ended"));
    }
    let request = rpc::Request::parse(&body);
    drop((body, place));
    if !server.may_call(&login, request.calls()) {
        return Err(Refusal::too_many("too many calls a second"));
    }
    let count = if peer.is_control() { &server.counts.control_calls } else { &server.counts.calls };
    let mut place = Place::none(count);
    if !place.take(1, CALLS_MAX) {
        return Err(Refusal::busy("too many calls are under way"));
    }
    // A caller that goes away does not cut a change in half.
    let (sender, receiver) = smol::channel::bounded(1);
    let (backend, description) = (Rc::clone(&server.backend), Rc::clone(&server.description));
    server.spawn(async move {
        let text = request.answer(&*backend, &description, login.scope).await;
        drop(place);
        // Nobody waits for it any more.
        let _ = sender.try_send(text);
    });
    match receiver.recv().await {
        Ok(Some(text)) => Ok(answer::json(text)),
        Ok(None) => Ok(answer::empty(StatusCode::NO_CONTENT)),
        Err(_) => Err(Refusal::busy("the node ends")),
    }
}

/// JSON alone: other types are what forms of other sites' pages can send.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    };
    let good = types.next().is_some_and(is_json) && types.next().is_none();
    if good && !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body is `Content-Type: application/json`, not packed",
    ))
}

/// Reads a body, which is bounded in length and time.
async fn collect<B: Backend>(
    server: &Inner<B>,
    peer: Peer,
    bytes_max: usize,
    slot: &Slot,
    body: Incoming,
) -> Result<(Zeroizing<Vec<u8>>, Place), Refusal> {
    let late = async {
        Timer::after(server.times.body).await;
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long"))
    };
    future::or(read(server, peer, bytes_max, slot, body), late).await
}

async fn read<B: Backend>(
    server: &Inner<B>,
    peer: Peer,
    bytes_max: usize,
    slot: &Slot,
    mut body: Incoming,
) -> Result<(Zeroizing<Vec<u8>>, Place), Refusal> {
    let too_long =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_long());
    }
    let mut place = Place::none(&server.counts.body_bytes);
    let mut bytes = Zeroizing::new(Vec::new());
    loop {
        slot.wait_for_caller();
        let frame = future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        slot.go_on();
        let Some(frame) = frame else { break };
        let broken = |_| Refusal::new(StatusCode::BAD_REQUEST, "the body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(too_long());
        }
        if !peer.is_control() && !place.take(data.len(), BODIES_BYTES_MAX) {
            return Err(Refusal::busy("too many requests come at once"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, place))
}

fn stream<B: Backend>(
    server: &Rc<Inner<B>>,
    peer: Peer,
    login: Login,
    head: &Parts,
) -> Result<Answer, Refusal> {
    allow(head, &[Method::GET], "GET")?;
    let header = head.headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default());
    let after = match header.or_else(|| query(head, "after")) {
        None => server.backend.log().last(),
        Some(number) => number
            .parse()
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the last event is named by its number"))?,
    };
    let mut place = Place::none(&server.counts.streams);
    // Streams on the control socket are as many as its connections at most.
    if !peer.is_control() && !place.take(1, STREAMS_MAX) {
        return Err(Refusal::busy("too many event streams are open; all tabs can share one"));
    }
    let payload = Payload::stream(events(Rc::clone(server), login, after, place));
    let mut answer = answer::answer(StatusCode::OK, "text/event-stream", payload);
    // Said to nginx: pass each event on as it comes.
    answer.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(answer)
}
