//! Every bound of the server, and why it is what it is.

use std::time::Duration;

/// Connections over TCP. One more takes the place of the one that has waited longest for a request, or else of the one whose caller
/// has done nothing for longest.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Connections on the control socket, likewise. Commands open one for each call.
pub(super) const CONTROL_CONNECTIONS_MAX: usize = 64;
/// Event streams of all callers over TCP: a page needs one for all of its tabs.
pub(super) const STREAMS_MAX: usize = 32;
/// Files that are read at once through links.
pub(super) const FILES_MAX: usize = 32;
/// Bytes of a file that are read at once.
pub(super) const FILE_PIECE_BYTES: usize = 64 * 1024;
/// Calls under way over TCP, and as many again on the control socket: long work is a job, so that a call is soon answered.
pub(super) const CALLS_MAX: usize = 64;

/// How long a request's head may take, which is also how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// How long a request's body may take.
const BODY_TIME: Duration = Duration::from_secs(20);
/// How long a caller may take nothing of an answer.
pub(super) const STALL_TIME: Duration = Duration::from_secs(20);
/// How long a caller may take for each step.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) stall: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { head: HEAD_TIME, body: BODY_TIME, stall: STALL_TIME }
    }
}

/// How long a caller may do nothing while others find no place.
pub(super) const STUCK_TIME: Duration = Duration::from_secs(1);
/// Bytes that buy a caller who takes an answer slowly another second.
pub(super) const SLOWEST_BYTES_PER_SEC: u64 = 4096;
/// How long a refused caller's body is read and thrown away, so that the refusal reaches it before a reset does.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much of it.
pub(super) const LINGER_BYTES_MAX: usize = 256 * 1024;
/// How long the end waits for answers that are under way.
pub(super) const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How long accepting rests when the process has no descriptor left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hyper's buffer for each direction of a connection; the longest head too.
pub(super) const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
pub(super) const HEADERS_MAX: usize = 64;
/// Longest body over TCP. As JSON it takes up to sixteen times as much memory.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// A body by which somebody logs in: who sends it is not known yet, and a token is short.
pub(super) const LOGIN_BODY_BYTES_MAX: usize = 1 << 10;
/// Longest body on the control socket: the longest entry that `publish` reads (`files`), and some.
pub(super) const CONTROL_BODY_BYTES_MAX: usize = 72 << 20;
/// Bytes of all bodies over TCP that are held at once.
pub(super) const BODIES_BYTES_MAX: usize = 16 << 20;
/// Calls in a batch.
pub(super) const BATCH_MAX: usize = 100;
/// Bytes of a batch's answers. Calls after that are not made.
pub(super) const BATCH_ANSWER_BYTES_MAX: usize = 16 << 20;

/// Calls a second of all that log in with one scope, or by cookie. The admin token and the control socket have no such limit:
/// they may end the node too.
pub(super) const CALLS_PER_SEC: u32 = 500;
/// Calls that may come at once after a pause.
pub(super) const CALLS_BURST: u32 = 1000;
/// Refusals a second that a caller's address is told the reason of.
pub(super) const REFUSALS_PER_SEC: u32 = 20;
/// Refusals that may come at once.
pub(super) const REFUSALS_BURST: u32 = 100;
/// Addresses whose refusals are counted apart; further ones share a count.
pub(super) const REFUSED_ADDRESSES_MAX: usize = 1024;

/// How often an event stream says that the node lives, and in which mode.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Events that are taken from the log at once.
pub(super) const EVENTS_AT_ONCE_MAX: usize = 64;

/// Browsers that are logged in; one more ends the oldest one's session.
pub(super) const SESSIONS_MAX: usize = 32;
/// How long a browser stays logged in.
pub(super) const SESSION_TIME: Duration = Duration::from_hours(7 * 24);
/// Login codes that wait to be used; one more ends the oldest.
pub(super) const CODES_MAX: usize = 16;
/// How long a login code can be used.
pub(super) const CODE_TIME: Duration = Duration::from_mins(5);
