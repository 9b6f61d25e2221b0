//! Answers: their bodies, and the headers that all of them carry.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::Stream;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::connection::Busy;
use crate::api::ApiError;
use crate::exit::{Exit, Failure};

/// What carries an answer, or a request of our own.
pub(super) struct Payload {
    content: Content,
    /// While it lives, the connection is not idle.
    busy: Option<Rc<Busy>>,
}

enum Content {
    Whole(Option<Bytes>),
    Stream(Pin<Box<dyn Stream<Item = Bytes>>>),
}

impl Payload {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { content: Content::Whole((!bytes.is_empty()).then_some(bytes)), busy: None }
    }

    pub(super) fn stream(stream: impl Stream<Item = Bytes> + 'static) -> Self {
        Self { content: Content::Stream(Box::pin(stream)), busy: None }
    }

    pub(super) fn keep_busy(&mut self, busy: Rc<Busy>) {
        self.busy = Some(busy);
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64)),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

pub(super) type Answer = Response<Payload>;

/// An answer with the headers that say what a browser must not do with it.
pub(super) fn answer(status: StatusCode, content_type: &'static str, payload: Payload) -> Answer {
    let mut answer = Response::new(payload);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    protect(headers);
    answer
}

fn protect(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let all = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

pub(super) fn json(bytes: impl Into<Bytes>) -> Answer {
    answer(StatusCode::OK, "application/json", Payload::whole(bytes))
}

pub(super) fn text(content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    answer(StatusCode::OK, content_type, Payload::whole(text))
}

pub(super) fn empty(status: StatusCode) -> Answer {
    answer(status, "", Payload::whole(Bytes::new()))
}

/// Why a request was not looked at any further.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// A header that tells a program what to do.
    pub(super) header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), header: None }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(super) fn too_many(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with(header::RETRY_AFTER, "1")
    }

    pub(super) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with(header::RETRY_AFTER, "1")
    }

    /// Whether the caller could have known better.
    pub(super) fn is_callers_fault(&self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS
    }

    /// The answer, in the form of a call's error. The connection ends with it: what else came on it is not worth reading.
    pub(super) fn into_answer(self) -> Answer {
        let exit = match self.status {
            StatusCode::NOT_FOUND => Exit::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
                Exit::Permission
            }
            StatusCode::REQUEST_TIMEOUT => Exit::Timeout,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Exit::Other,
            _ => Exit::Usage,
        };
        let error = ApiError::from(Failure::new(exit, self.message));
        let body = json!({ "error": error }).to_string();
        let mut answer = answer(self.status, "application/json", Payload::whole(body));
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Some((name, value)) = self.header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}
