//! Files that links lead to, whole or in part, so that a player can go to any place of them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures_lite::{Stream, stream};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use rustix::fs::OFlags;

use super::answer::{Answer, Payload, Refusal, answer};
use super::limits::{FILE_PIECE_BYTES, FILES_MAX};
use super::server::{Inner, Place};
use super::{Backend, LinkedFile};

/// What a browser keeps as a file, and does not show: a page of a channel's author would have this node's origin.
const OTHER: &str = "application/octet-stream";
/// Types that play or show no more than themselves, by the end of a name.
const TYPES: [(&str, &str); 17] = [
    ("avif", "image/avif"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("mkv", "video/x-matroska"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("png", "image/png"),
    ("txt", "text/plain; charset=utf-8"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
];

/// The type that a file is served as.
pub(crate) fn content_type(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    TYPES.iter().find(|(name, _)| Some(*name) == end.as_deref()).map_or(OTHER, |(_, kind)| kind)
}

/// What a file may do in a browser that shows it: nothing but show itself.
const POLICY: &str =
    "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox";

/// A file that is open, and what changes with its content.
struct Open {
    file: File,
    len: u64,
    tag: String,
}

fn open(path: &Path) -> Option<Open> {
    // Whatever lies there meanwhile, it is not waited for.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = format!("\"{:x}-{:x}\"", metadata.len(), modified.as_nanos());
    Some(Open { file, len: metadata.len(), tag })
}

/// The part of a file that a request wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// From a byte on, so many.
    Part(u64, u64),
    /// Beyond its end.
    Nothing,
}

fn wanted(headers: &HeaderMap, len: u64, tag: &str) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(tag) {
        return Wanted::Whole;
    }
    // What is not understood, or asks for several parts, is answered by all of it (RFC 9110, 14.2).
    text(header::RANGE).map_or(Wanted::Whole, |range| part(range, len).unwrap_or(Wanted::Whole))
}

fn part(range: &str, len: u64) -> Option<Wanted> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let count = last.parse::<u64>().ok()?.min(len);
        return Some(if count == 0 { Wanted::Nothing } else { Wanted::Part(len - count, count) });
    }
    let first = first.parse::<u64>().ok()?;
    let last = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    let end = last.saturating_add(1).min(len);
    Some(if first < end { Wanted::Part(first, end - first) } else { Wanted::Nothing })
}

/// Answers with what a link's code leads to. Whoever has the code may have it.
pub(super) async fn file<B: Backend>(server: &Inner<B>, head: &Parts, code: &str) -> Result<Answer, Refusal> {
    let gone = || Refusal::new(StatusCode::NOT_FOUND, "this link is too old, was ended, or its file is gone");
    let LinkedFile { target, name } = server.backend.linked(code).ok_or_else(gone)?;
    let mut place = Place::none(&server.counts.files);
    if !place.take(1, FILES_MAX) {
        return Err(Refusal::busy("too many files are read at once"));
    }
    let open = smol::unblock(move || open(&target)).await.ok_or_else(gone)?;
    let (status, start, count) = match wanted(&head.headers, open.len, &open.tag) {
        Wanted::Whole => (StatusCode::OK, 0, open.len),
        Wanted::Part(start, count) => (StatusCode::PARTIAL_CONTENT, start, count),
        Wanted::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let is_head = head.method == Method::HEAD || count == 0;
    let range = match status {
        StatusCode::PARTIAL_CONTENT => Some(format!("bytes {start}-{}/{}", start + count - 1, open.len)),
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{}", open.len)),
        _ => None,
    };
    let tag = open.tag;
    let payload =
        if is_head { Payload::whole("") } else { Payload::stream(pieces(open.file, start, count, place)) };
    let mut answer = answer(status, content_type(&name), payload);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, count.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in [
        (header::ETAG, Some(tag)),
        (header::CONTENT_RANGE, range),
        (header::CONTENT_DISPOSITION, Some(disposition(&name))),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(answer)
}

/// What a browser calls the file, and whether it may show it (RFC 6266).
fn disposition(name: &str) -> String {
    let how = if content_type(name) == OTHER { "attachment" } else { "inline" };
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("{how}; filename*=UTF-8''{encoded}")
}

/// A part of a file, piece by piece. It ends early where the file does: the connection then ends with it.
fn pieces(file: File, start: u64, count: u64, place: Place) -> impl Stream<Item = Bytes> + 'static {
    let state = (Arc::new(file), start, count, place);
    stream::unfold(state, async |(file, start, left, place)| {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(FILE_PIECE_BYTES);
        if len == 0 {
            return None;
        }
        let reading = Arc::clone(&file);
        let piece = smol::unblock(move || {
            let mut piece = vec![0; len];
            let count = reading.read_at(&mut piece, start).ok()?;
            piece.truncate(count);
            Some(piece)
        });
        let piece = piece.await.filter(|piece| !piece.is_empty())?;
        let count = piece.len() as u64;
        Some((piece.into(), (file, start + count, left - count, place)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (range, expected) in [
            ("bytes=0-", Wanted::Part(0, 10)),
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=3-5", Wanted::Part(3, 3)),
            ("bytes=9-100", Wanted::Part(9, 1)),
            ("bytes=-3", Wanted::Part(7, 3)),
            ("bytes=-100", Wanted::Part(0, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-3", Wanted::Whole),
            ("bytes=1-2,4-5", Wanted::Whole),
            ("bytes=x-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("pages=1-2", Wanted::Whole),
            ("bytes=0-18446744073709551615", Wanted::Part(0, 10)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(range));
            assert_eq!(wanted(&headers, 10, "\"a\""), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Some(Wanted::Nothing));
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-1"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"b\""));
        assert_eq!(wanted(&headers, 10, "\"a\""), Wanted::Whole);
        assert_eq!(wanted(&headers, 10, "\"b\""), Wanted::Part(1, 1));
    }

    #[test]
    fn a_page_is_never_shown() {
        for name in ["index.html", "a.svg", "a.js", "a.pdf", "mp4", "a.MP4.xml", ""] {
            assert!(content_type(name) == OTHER && disposition(name).starts_with("attachment"), "{name}");
        }
        assert_eq!(content_type("a.b.MP4"), "video/mp4");
        assert_eq!(disposition("\u{e9}\"\r\n.txt"), "inline; filename*=UTF-8''%C3%A9%22%0D%0A.txt");
    }
}
