//! Downloads: which connection is asked for which blob, and what becomes of the bytes.
//!
//! Swarms are served in turn. Among the blobs of a swarm that a peer has, the rarest among the connected peers comes first,
//! random ones among equals; index blobs before all, and in order where the content is played. A connection is asked for
//! as many blobs at once as it brings in [`WINDOW_TIME`]. Each byte is asked of one peer at a time, so that none comes
//! twice but those in flight when a segment is taken over (`takeover.rs`).

mod asking;
mod candidates;
mod dropped;
mod interest;
mod places;
mod queue;
mod rate;
mod takeover;
mod transfer;
mod wants;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use sha2::{Digest, Sha256};

use super::api::{Event, Job, Written};
use super::channels::contents::{Place, Wanted};
use super::channels::swarms::Swarms;
use super::conns::Conns;
use super::cx::{Cx, Pending};
use super::pool::Pool;
use super::table::ConnTable;
use super::timers::Timer;
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::conn::Piece;
use crate::error::CloseReason;
use crate::ids::{BlobId, BlobName, ConnId, Topic};
use crate::limits::{
    RECV_BUFFERS_MAX, REFUSED_MAX, STALL_BYTES_MIN, STALL_TIMEOUT, USELESS_AFTER, USELESS_LOADING_AFTER,
    WINDOW_MAX, WINDOW_START,
};
use crate::suite::Suite;
use crate::time::Instant;
use candidates::Candidate;
use rate::Rate;
pub(crate) use transfer::Contribution;
use transfer::Fed;
use wants::{Suspect, Wants};

/// A connection is asked for what it brings in this time, beside one blob: enough for round trips through Tor.
const WINDOW_TIME: Duration = Duration::from_secs(1);
/// How long the store rests after it had no room or failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What a connection brings.
struct Line {
    /// Requests that may be outstanding with a v5 peer. It begins at one, since some peers answer one request and close,
    /// and would lose the answer with a second request unread; each blob proves room for another.
    window: usize,
    blobs_brought: u64,
    /// Blobs that the peer said it does not have.
    refused: BTreeSet<BlobName>,
    /// Of a v6 peer, the swarms of which it may have a queued blob (`interest.rs`).
    interests: BTreeSet<Topic>,
    /// Makes its choices among equally rare blobs other than those of other connections.
    salt: u64,
    /// How fast it brings the ranges that it is asked for, and when it last brought some.
    rate: Rate,
    brought: Instant,
    /// Progress of v5 requests at the last check, and when that was.
    checked: (u64, Instant),
    waits_for_buffer: bool,
}

/// What became of a blob that was written.
#[derive(Default)]
pub(super) struct Outcome {
    /// Where it was wanted.
    places: Vec<Place>,
    /// Who brought it.
    by: Vec<PeerAddr>,
    /// Whose bytes were wrong.
    lies: Vec<Contribution>,
}

impl Outcome {
    pub(super) fn into_parts(self) -> (Vec<Place>, Vec<PeerAddr>, Vec<Contribution>) {
        (self.places, self.by, self.lies)
    }
}

/// All downloads.
pub(super) struct Downloads {
    blob_len: usize,
    wants: Wants,
    pool: Pool,
    lines: ConnTable<Line>,
    candidates: ConnTable<Candidate>,
    /// v5 connections that wait for a receive buffer, each at most once.
    waiters: VecDeque<ConnId>,
    store_rests: bool,
    /// Something has changed so that more may be asked for.
    is_due: bool,
    /// A swarm may have too few places that had not before.
    are_claims_due: bool,
    /// How long the first bytes of a range usually take.
    usual_wait: Duration,
    bytes_received: u64,
    bytes_duplicate: u64,
}

impl Downloads {
    /// Downloads of blobs of `blob_len` bytes.
    pub(super) fn new(blob_len: usize) -> Self {
        Self {
            blob_len,
            wants: Wants::default(),
            pool: Pool::new(RECV_BUFFERS_MAX, blob_len),
            lines: ConnTable::default(),
            candidates: ConnTable::default(),
            waiters: VecDeque::new(),
            store_rests: false,
            is_due: false,
            are_claims_due: false,
            usual_wait: Duration::ZERO,
            bytes_received: 0,
            bytes_duplicate: 0,
        }
    }

    // --- connections ----------------------------------------------------------------------------------------

    /// A connection was opened; `salt` is random.
    pub(super) fn opened(&mut self, conn: ConnId, salt: u64, now: Instant) {
        let line = Line {
            window: WINDOW_START,
            blobs_brought: 0,
            refused: BTreeSet::new(),
            interests: BTreeSet::new(),
            salt,
            rate: Rate::default(),
            brought: now,
            checked: (0, now),
            waits_for_buffer: false,
        };
        self.lines.insert(conn, line);
        self.candidates.insert(conn, Candidate::default());
    }

    /// A connection is gone: what it was asked for goes to others. `requested` were asked of it as a v5 peer, and `buffer` is
    /// the one that it held. Whether it ever brought a blob.
    pub(super) fn closed<S: Suite>(
        &mut self,
        conns: &mut Conns<S>,
        conn: ConnId,
        requested: impl Iterator<Item = BlobName>,
        buffer: Option<Buffer>,
    ) -> bool {
        for blob in requested {
            if self.wants.is_asked(&blob, conn) {
                self.wants.requeue(blob);
            }
        }
        if let Some(buffer) = buffer {
            self.give_back(conns, buffer);
        }
        self.release(conns, conn, None);
        self.candidates.remove(conn);
        self.lines.remove(conn).is_some_and(|line| line.blobs_brought > 0)
    }

    /// Frees the memory of buffers that nobody uses.
    pub(super) fn trim(&mut self) {
        self.pool.trim();
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
        let outstanding = outstanding(conns, conn);
        let window = if conns.speaks_v6(conn) { window(line, self.blob_len) } else { line.window };
        let has_room = (outstanding == 0 || outstanding < window) && line.refused.len() < REFUSED_MAX;
        candidate.set_load(outstanding, has_room, line.rate.bytes_per_sec());
    }

    /// A peer may have something that it did not have.
    pub(super) fn may_have_more(&mut self, conn: ConnId) {
        if let Some(candidate) = self.candidates.get_mut(conn) {
            candidate.set_nothing_useful_at(0);
        }
        (self.is_due, self.are_claims_due) = (true, true);
    }

    /// Whether a connection ever brought a blob.
    pub(super) fn has_brought(&self, conn: ConnId) -> bool {
        self.lines.get(conn).is_some_and(|line| line.blobs_brought > 0)
    }

    /// Whether a connection is asked for nothing, and has nothing that is missing.
    pub(super) fn is_of_no_use<S: Suite>(&self, conns: &Conns<S>, conn: ConnId) -> bool {
        let has_nothing = |candidate: &Candidate| candidate.has_nothing_useful(self.wants.epoch());
        let is_needed = || !self.is_empty() && !self.candidates.get(conn).is_some_and(has_nothing);
        outstanding(conns, conn) == 0 && !is_needed()
    }

    /// Whether a connection that was opened at a time has brought nothing for so long that another may have its place.
    pub(super) fn is_useless<S: Suite>(
        &self,
        now: Instant,
        conns: &Conns<S>,
        conn: ConnId,
        opened: Instant,
    ) -> bool {
        let is_loading = outstanding(conns, conn) > 0;
        let patience = if is_loading { USELESS_LOADING_AFTER } else { USELESS_AFTER };
        !self.has_brought(conn) && now.since(opened) >= patience
    }

    /// Whether blobs were asked for or brought over a connection.
    pub(super) fn uses<S: Suite>(&self, conns: &Conns<S>, conn: ConnId) -> bool {
        self.has_brought(conn) || outstanding(conns, conn) > 0
    }

    /// Whether the v5 requests of a connection bring too little, or when they are looked at next.
    pub(super) fn check<S: Suite>(
        &mut self,
        now: Instant,
        conns: &Conns<S>,
        conn: ConnId,
    ) -> Result<Option<Instant>, CloseReason> {
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get(conn)) else {
            return Ok(None);
        };
        if requests.outstanding() == 0 {
            return Ok(None);
        }
        let (bytes, at) = line.checked;
        if now >= at + STALL_TIMEOUT {
            if requests.progress_bytes() < bytes + STALL_BYTES_MIN {
                return Err(CloseReason::Stalled);
            }
            line.checked = (requests.progress_bytes(), now);
        }
        Ok(Some(line.checked.1 + STALL_TIMEOUT))
    }

    // --- what is wanted -------------------------------------------------------------------------------------

    /// A blob is missing.
    pub(super) fn want(&mut self, wanted: Wanted, place: Place) {
        self.wants.want(wanted.name(), place);
        (self.is_due, self.are_claims_due) = (true, true);
    }

    /// Whether nothing is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Blobs are missing, and nobody is asked for any.
    pub(super) fn is_starved(&self) -> bool {
        self.wants.is_starved()
    }

    /// A blob that is missing.
    pub(super) fn example(&self) -> Option<BlobId> {
        self.wants.example().and_then(v5_id)
    }

    /// Blobs of a swarm that are missing, and of which nobody is asked.
    pub(super) fn queued(&self, topic: &Topic) -> impl Iterator<Item = BlobId> {
        self.wants.queued(topic).filter_map(v5_id)
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
        let is_usable =
            |id: &&ConnId| outstanding(conns, **id) > 0 || self.pick(conns, swarms, **id).is_some();
        (open.len(), open.iter().filter(is_usable).count())
    }

    // --- buffers for v5 -------------------------------------------------------------------------------------

    /// Gives a connection the buffer for its next blob, now or when one is free; takes back what it no longer needs.
    fn lend_buffer<S: Suite>(&mut self, conns: &mut Conns<S>, id: ConnId) {
        let (Some(line), Some(requests)) = (self.lines.get_mut(id), conns.get_mut(id)) else { return };
        if let Some(unused) = requests.take_unused_buffer() {
            self.give_back(conns, unused);
        } else if requests.needs_buffer() {
            match self.pool.take() {
                Some(buffer) => requests.give_buffer(buffer),
                None if mem::replace(&mut line.waits_for_buffer, true) => {}
                None => self.waiters.push_back(id),
            }
        }
    }

    /// A receive buffer is free: for a v5 connection that waits for one, or for a further transfer.
    pub(super) fn give_back<S: Suite>(&mut self, conns: &mut Conns<S>, buffer: Buffer) {
        self.is_due = true;
        while let Some(id) = self.waiters.pop_front() {
            let (Some(line), Some(requests)) = (self.lines.get_mut(id), conns.get_mut(id)) else { continue };
            line.waits_for_buffer = false;
            if requests.needs_buffer() {
                requests.give_buffer(buffer);
                return;
            }
        }
        self.pool.give_back(buffer);
    }

    // --- what comes -----------------------------------------------------------------------------------------

    /// A v5 peer's blob.
    pub(super) fn on_blob<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        id: BlobName,
        buffer: Buffer,
    ) {
        let end = u32::try_from(buffer.blob().len()).expect("a blob is 2^20 bytes or shorter");
        let (Some(line), Some(peer)) = (self.lines.get_mut(conn), conns.address(conn)) else { return };
        line.blobs_brought += 1;
        line.window = (line.window + 1).min(WINDOW_MAX);
        let part = Contribution::new(conn, peer.clone(), 0, end);
        self.wants.writing(id);
        self.is_due = true;
        self.lend_buffer(conns, conn);
        cx.job(Pending::Write(id, [part].into()), Job::WriteBlob(id, buffer));
    }

    pub(super) fn on_piece<S: Suite>(&mut self, cx: &mut Cx, conns: &Conns<S>, conn: ConnId, piece: &Piece) {
        let (now, bytes) = (cx.now(), piece.bytes());
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get(conn)) else { return };
        line.rate.add(now, bytes.len(), requests.ranges() == 0);
        line.brought = now;
        if let Some(candidate) = self.candidates.get_mut(conn) {
            // A connection that had stalled and goes on is of use again.
            self.is_due |= candidate.is_backed_off(now);
            candidate.back_off_until(now);
        }
        self.bytes_duplicate += piece.surplus() as u64;
        match self.wants.feed(&piece.blob, conn, piece.offset, bytes, now) {
            Fed::Unwanted => self.bytes_duplicate += bytes.len() as u64,
            Fed::First(waited) => self.usual_wait = (self.usual_wait * 7 + waited) / 8,
            Fed::More => {}
        }
        if let Some((buffer, parts)) = self.wants.take_whole(&piece.blob) {
            self.are_claims_due = true;
            for part in &parts {
                if let Some(line) = self.lines.get_mut(part.conn()) {
                    line.blobs_brought += 1;
                }
            }
            cx.job(Pending::Write(piece.blob, parts), Job::WriteBlob(piece.blob, buffer));
        }
        self.sum_up(conns, conn);
        // A range has ended, or a transfer: there is room for another.
        self.is_due |= self.candidates.get(conn).is_some_and(Candidate::has_room);
    }

    /// Bytes came that nobody wants any more.
    pub(super) fn on_late(&mut self, len: usize) {
        self.bytes_duplicate += len as u64;
    }

    /// A v5 peer does not have a blob that it was asked for.
    pub(super) fn on_not_found<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, id: BlobName) {
        if let Some(line) = self.lines.get_mut(conn) {
            line.refused.insert(id);
        }
        self.wants.requeue(id);
        self.lend_buffer(conns, conn);
        self.is_due = true;
    }

    /// The peer does not serve a range that it was asked for.
    pub(super) fn on_refused<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, id: BlobName) {
        if let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get(conn)) {
            line.refused.insert(id);
            if requests.ranges() == 0 {
                line.rate.end();
            }
        }
        self.release(conns, conn, Some(&id));
    }

    /// A connection brings nothing more, of one blob or of any.
    fn release<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, only: Option<&BlobName>) {
        for buffer in self.wants.release(conn, only) {
            self.give_back(conns, buffer);
        }
        (self.is_due, self.are_claims_due) = (true, true);
    }

    // --- what was written -----------------------------------------------------------------------------------

    /// The store has taken a blob, or not; the buffer is given back afterwards ([`Self::give_back`]).
    pub(super) fn on_written(
        &mut self,
        cx: &mut Cx,
        id: BlobName,
        parts: Vec<Contribution>,
        buffer: &Buffer,
        written: Written,
    ) -> Outcome {
        match written {
            Written::Stored => {
                self.bytes_received += self.blob_len as u64;
                let (places, suspects) = self.wants.stored(id);
                let digest_of = |part: &Contribution| digest(part, buffer);
                let lies = suspects.into_iter().filter_map(|suspect| suspect.convict(digest_of)).collect();
                let by = parts.iter().map(|part| part.peer().clone()).collect();
                Outcome { places, by, lies }
            }
            Written::Mismatch => self.on_mismatch(id, parts, buffer),
            Written::NoSpace | Written::Failed => {
                self.wants.requeue(id);
                if !mem::replace(&mut self.store_rests, true) {
                    cx.event(Event::StoreFull { no_space: written == Written::NoSpace });
                }
                cx.set_timer_in(Timer::Store, STORE_RETRY);
                Outcome::default()
            }
        }
    }

    /// One peer alone has lied. Of several, one may have: the right blob will tell which.
    fn on_mismatch(&mut self, id: BlobName, parts: Vec<Contribution>, buffer: &Buffer) -> Outcome {
        self.wants.requeue(id);
        if parts.len() == 1 {
            return Outcome { lies: parts, ..Outcome::default() };
        }
        let suspect = |part: Contribution| {
            let digest = digest(&part, buffer);
            Suspect::new(part, digest)
        };
        self.wants.suspect(id, parts.into_iter().map(suspect).collect());
        Outcome::default()
    }

    /// The store is tried again.
    pub(super) fn on_store_timer(&mut self) {
        (self.store_rests, self.is_due) = (false, true);
    }
}

fn v5_id(name: BlobName) -> Option<BlobId> {
    match name {
        BlobName::V5(id) => Some(id),
        BlobName::Native(_) => None,
    }
}

/// Blobs that a connection is asked for.
fn outstanding<S: Suite>(conns: &Conns<S>, conn: ConnId) -> usize {
    conns.get(conn).map_or(0, |requests| requests.outstanding() + requests.ranges())
}

/// Blobs that a v6 peer may be asked for at once.
fn window(line: &Line, blob_len: usize) -> usize {
    let bytes = line.rate.bytes_per_sec().saturating_mul(WINDOW_TIME.as_secs());
    usize::try_from(bytes / blob_len as u64).map_or(WINDOW_MAX, |blobs| (1 + blobs).min(WINDOW_MAX))
}

fn digest(part: &Contribution, buffer: &Buffer) -> [u8; 32] {
    Sha256::digest(part.of(buffer.blob())).into()
}
