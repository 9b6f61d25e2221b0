//! Downloads: which connection is asked for what, and what becomes of the bytes.
//!
//! Swarms are served in turn. Among the blobs of a swarm of which a peer has something, index blobs come first, then those
//! that have begun, then the rarest among the connected peers, random ones among equals; in order where the content is
//! played. A connection is asked for what it brings in the time that a request needs, and a little more.
//!
//! Native blobs come by parts, each checked alone (`native.rs`, `transfer.rs`): a wrong part is a lie of the peer that sent it. v5
//! blobs come whole (`whole.rs`). What takes too long is asked of another peer too (`again.rs`), and so are the last parts
//! (`last.rs`).

mod again;
mod asking;
mod candidates;
mod dropped;
mod interest;
mod last;
mod moves;
mod native;
mod queue;
mod rate;
mod transfer;
mod wants;
mod whole;
mod window;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::api::{Event, Written};
use super::channels::contents::{Place, Wanted};
use super::channels::swarms::Swarms;
use super::conns::Conns;
use super::cx::Cx;
use super::pool::Pool;
use super::table::ConnTable;
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::ids::{BlobId, BlobName, ConnId, Topic};
use crate::limits::{
    PARTS_UNDER_WAY_MAX, RECV_BUFFERS_MAX, REFUSED_MAX, USELESS_AFTER, USELESS_LOADING_AFTER, WINDOW_START,
};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;
use candidates::Candidate;
use rate::Rate;
use wants::Wants;
use window::Start;

/// A pause longer than this says nothing of how long parts take.
const PART_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the store rests after it had no room or failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What a connection brings.
struct Line {
    /// Whole blobs that may be asked for at once. It begins at one, since some v5 peers answer one request and close, and
    /// would lose the answer with a second request unread; each blob proves room for another.
    window: usize,
    /// Blobs and parts that it brought, and how often it made room for another peer, having brought nothing.
    brought: u64,
    withheld: u32,
    /// Blobs that the peer said it does not have, or not the parts that it was asked for.
    refused: BTreeSet<BlobName>,
    /// Of a v6 peer, the swarms of which it may have something that is missing (`interest.rs`).
    interests: BTreeSet<Topic>,
    /// Makes its choices among equally rare blobs other than those of other connections.
    salt: u64,
    /// How fast it brings what it is asked for, and when it last brought something.
    rate: Rate,
    /// The window of parts before that is known.
    start: Start,
    brought_at: Instant,
    /// When it was asked for something while nothing else was outstanding, and the shortest time that this ever took to come.
    asked_idle: Option<Instant>,
    nearest: Option<Duration>,
    /// Progress of requests for whole blobs at the last check, and when that was.
    checked: (u64, Instant),
    waits_for_buffer: bool,
}

impl Line {
    fn new(salt: u64, now: Instant) -> Self {
        Self {
            window: WINDOW_START,
            brought: 0,
            withheld: 0,
            refused: BTreeSet::new(),
            interests: BTreeSet::new(),
            salt,
            rate: Rate::default(),
            start: Start::default(),
            brought_at: now,
            asked_idle: None,
            nearest: None,
            checked: (0, now),
            waits_for_buffer: false,
        }
    }

    /// Something came.
    fn note_brought(&mut self, now: Instant) {
        self.brought_at = now;
        if let Some(asked) = self.asked_idle.take() {
            let took = now.since(asked);
            self.nearest = Some(self.nearest.map_or(took, |nearest| nearest.min(took)));
        }
    }
}

/// What came of something that was written.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A blob that is wanted at a place is stored.
    Stored(Place),
    /// It is here, but is not what it was said to hold.
    Unfit(Place),
    /// These parts of it are here.
    Parts(Place, Mask),
    /// A peer brought it, which is worth to be remembered.
    Brought(PeerAddr),
    /// What this peer sent was wrong.
    Lie(ConnId, PeerAddr),
}

/// All downloads.
pub(super) struct Downloads {
    blob_len: usize,
    part_len: usize,
    /// Parts that could be made here are asked for too, so that peers learn no lengths.
    takes_all: bool,
    wants: Wants,
    /// Buffers for whole blobs, and for parts.
    pool: Pool,
    part_pool: Pool,
    lines: ConnTable<Line>,
    candidates: ConnTable<Candidate>,
    /// Connections that wait for a buffer, each at most once.
    waiters: VecDeque<ConnId>,
    store_rests: bool,
    /// Something has changed so that more may be asked for.
    is_due: bool,
    /// How long the first bytes of what is asked for usually take.
    usual_wait: Duration,
    /// When a part was stored last, and how far apart they usually are.
    stored_at: Instant,
    part_time: Duration,
    /// Parts that connections were asked for which have fallen silent.
    parts_quiet: usize,
    bytes_received: u64,
    bytes_duplicate: u64,
}

impl Downloads {
    /// Downloads of blobs of `blob_len` bytes in parts of `part_len`.
    pub(super) fn new(blob_len: usize, part_len: usize, takes_all: bool) -> Self {
        Self {
            blob_len,
            part_len,
            takes_all,
            wants: Wants::default(),
            pool: Pool::new(RECV_BUFFERS_MAX, blob_len),
            part_pool: Pool::new(PARTS_UNDER_WAY_MAX, part_len),
            lines: ConnTable::default(),
            candidates: ConnTable::default(),
            waiters: VecDeque::new(),
            store_rests: false,
            is_due: false,
            usual_wait: Duration::ZERO,
            stored_at: Instant(0),
            part_time: Duration::ZERO,
            parts_quiet: 0,
            bytes_received: 0,
            bytes_duplicate: 0,
        }
    }

    // --- connections ----------------------------------------------------------------------------------------

    /// A connection was opened; `salt` is random.
    pub(super) fn opened(&mut self, conn: ConnId, salt: u64, now: Instant) {
        self.lines.insert(conn, Line::new(salt, now));
        self.candidates.insert(conn, Candidate::default());
    }

    /// A connection is gone: what it was asked for goes to others. `buffer` is the one that it held. Whether it ever brought
    /// anything.
    pub(super) fn closed<S: Suite>(
        &mut self,
        conns: &mut Conns<S>,
        conn: ConnId,
        buffer: Option<Buffer>,
    ) -> bool {
        if let Some(buffer) = buffer {
            self.give_back(conns, buffer);
        }
        self.release_all(conn);
        self.candidates.remove(conn);
        self.lines.remove(conn).is_some_and(|line| line.brought > 0)
    }

    /// A connection brings nothing more of what it was asked for.
    fn release_all(&mut self, conn: ConnId) {
        for name in self.wants.busy_with(conn) {
            self.wants.not_asked_whole(&name, conn, false);
            let buffers = self.wants.with_transfer(&name, |transfer| transfer.release(conn, Mask::ALL));
            self.part_pool.give_all_back(buffers.into_iter().flatten());
        }
        self.is_due = true;
    }

    /// Frees the memory of buffers that nobody uses.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
        self.part_pool.trim();
    }

    /// A connection has changed. `true`: it may be asked for blobs from here on.
    pub(super) fn on_touched<S: Suite>(&mut self, conns: &Conns<S>, conn: ConnId) -> bool {
        let Some(candidate) = self.candidates.get_mut(conn) else { return false };
        let is_new = candidate.set_askable(conns.is_askable(conn), !conns.speaks_v6(conn));
        if is_new {
            self.may_have_more(conn);
        }
        self.sum_up(conns, conn);
        is_new
    }

    /// What a connection was asked for has changed: whether there is room for more is summed up again.
    fn sum_up<S: Suite>(&mut self, conns: &Conns<S>, conn: ConnId) {
        let (Some(candidate), Some(line)) = (self.candidates.get_mut(conn), self.lines.get(conn)) else {
            return;
        };
        let Some(requests) = conns.get(conn) else { return };
        let (blobs, parts) = (requests.outstanding(), requests.parts_outstanding());
        let has_room = if conns.speaks_v6(conn) {
            parts < line.part_window(self.part_len) && requests.may_want()
        } else {
            blobs == 0 || blobs < line.window
        };
        let has_room = has_room && line.refused.len() < REFUSED_MAX;
        candidate.set_load(blobs * crate::parts::PARTS + parts, has_room, line.rate.bytes_per_sec());
    }

    /// A peer may have something that it did not have.
    pub(super) fn may_have_more(&mut self, conn: ConnId) {
        if let Some(candidate) = self.candidates.get_mut(conn) {
            candidate.set_nothing_useful_at(0);
        }
        self.is_due = true;
    }

    /// Whether a connection ever brought a part or a blob.
    pub(super) fn has_brought(&self, conn: ConnId) -> bool {
        self.lines.get(conn).is_some_and(|line| line.brought > 0)
    }

    /// Whether a connection is asked for nothing, and has nothing that is missing.
    pub(super) fn is_of_no_use<S: Suite>(&self, conns: &Conns<S>, conn: ConnId) -> bool {
        let has_nothing = |candidate: &Candidate| candidate.has_nothing_useful(self.wants.epoch());
        let is_needed = || !self.is_empty() && !self.candidates.get(conn).is_some_and(has_nothing);
        !is_asked(conns, conn) && !is_needed()
    }

    /// Whether a connection that was opened at a time has brought nothing for so long that another may have its place.
    pub(super) fn is_useless<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        conn: ConnId,
        opened: Instant,
    ) -> bool {
        let patience = if is_asked(conns, conn) { USELESS_LOADING_AFTER } else { USELESS_AFTER };
        !self.has_brought(conn) && now.since(opened) >= patience
    }

    /// Whether something was asked for or brought over a connection.
    pub(super) fn uses<S: Suite>(&self, conns: &Conns<S>, conn: ConnId) -> bool {
        self.has_brought(conn) || is_asked(conns, conn)
    }

    // --- what is wanted -------------------------------------------------------------------------------------

    /// A blob is missing.
    pub(super) fn want(&mut self, wanted: &Wanted, place: Place) {
        self.wants.want(wanted, place, self.part_len, self.takes_all);
        self.is_due = true;
    }

    /// Blobs are taken whole from here on, or the parts that hold content: those that are wanted already too.
    pub(super) fn set_takes_all(&mut self, cx: &mut Cx, takes_all: bool) {
        if mem::replace(&mut self.takes_all, takes_all) != takes_all {
            self.wants.need_again(self.part_len, takes_all);
            self.is_due = true;
            self.finish_what_is_here(cx);
        }
    }

    /// Whether nothing is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Blobs are missing, and nobody is asked for any.
    pub(super) fn is_starved(&self) -> bool {
        self.wants.is_starved()
    }

    /// The id of a blob that is missing and that v5 peers may have.
    pub(super) fn example(&self) -> Option<BlobId> {
        self.wants.example()
    }

    /// The ids of a swarm's blobs that are missing, and that v5 peers may have.
    pub(super) fn queued(&self, topic: &Topic) -> impl Iterator<Item = BlobId> {
        self.wants.queued_ids(topic)
    }

    /// Blob bytes received and stored, and those that nobody wanted any more.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_received, self.bytes_duplicate)
    }

    /// Whether the store takes no blobs at the moment.
    pub(super) fn store_rests(&self) -> bool {
        self.store_rests
    }

    /// Connections that may be asked for blobs, and of them those that are asked or have what is missing.
    pub(super) fn usable<S: Suite>(&self, conns: &Conns<S>, swarms: &Swarms) -> (usize, usize) {
        let open: Vec<ConnId> = conns.ids().into_iter().filter(|id| conns.is_askable(*id)).collect();
        let is_usable = |id: &&ConnId| is_asked(conns, **id) || self.pick(conns, swarms, **id).is_some();
        (open.len(), open.iter().filter(is_usable).count())
    }

    /// How long a part takes to come, as far as parts of late show.
    pub(super) fn part_time(&self) -> Duration {
        self.part_time
    }

    fn note_stored(&mut self, now: Instant) {
        let since = now.since(self.stored_at).min(PART_TIME_MAX);
        // What the line can do counts, not what little there is to fetch at the moment.
        let weight = if since < self.part_time { 2 } else { 64 };
        (self.stored_at, self.part_time) = (now, (self.part_time * (weight - 1) + since) / weight);
    }

    // --- the store ------------------------------------------------------------------------------------------

    /// The store has no room or fails: it is left alone for a while.
    fn let_store_rest(&mut self, cx: &mut Cx, why: Written) {
        if !mem::replace(&mut self.store_rests, true) {
            cx.event(Event::StoreFull { no_space: why == Written::NoSpace });
        }
        cx.set_timer_in(Timer::Store, STORE_RETRY);
    }

    /// The store is tried again.
    pub(super) fn on_store_timer(&mut self, cx: &mut Cx) {
        (self.store_rests, self.is_due) = (false, true);
        self.finish_what_is_here(cx);
    }
}

/// Whether a connection is asked for something.
fn is_asked<S: Suite>(conns: &Conns<S>, conn: ConnId) -> bool {
    conns.get(conn).is_some_and(|requests| requests.outstanding() + requests.parts_outstanding() > 0)
}
