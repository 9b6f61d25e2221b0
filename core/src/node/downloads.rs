//! Fetching: which connection is asked for which blob, what becomes of the bytes, and who takes over from whom.
//!
//! Among the blobs that a peer has, the rarest among the connected peers comes first, random ones among equals; index
//! blobs before all, and in order where the channel is played. A connection is asked for as many blobs at once as it
//! brings in [`WINDOW_TIME`]. Each byte is asked of one peer at a time, so that none comes twice but those under way
//! when a range is taken from a slow peer ([`Node::review`]).

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;
use core::time::Duration;

use sha2::{Digest, Sha256};

use super::conns::Entry;
use super::have::{Holders, Share};
use super::readiness::Readiness;
use super::scheduler::{Place, Suspect};
use super::transfer::{Contribution, Fed, Source, Transfer};
use super::{Event, Job, Node, Pending, STORE_RETRY, Timer, Written};
use crate::buffer::Buffer;
use crate::conn::Piece;
use crate::error::{CloseReason, Violation};
use crate::identity::PublicKey;
use crate::ids::{BlobId, ConnId};
use crate::limits::{
    DOWNLOAD_CONNECTIONS_MAX, LACKS_MAX, SILENCE_MAX, STALL_TIMEOUT, TRANSFERS_MAX, WINDOW_MAX,
};
use crate::suite::Suite;
use crate::time::Instant;

/// A connection is asked for what it brings in this time, beside one blob: enough for round trips through Tor.
const WINDOW_TIME: Duration = Duration::from_secs(1);
/// How often transfers are looked at for peers that take too long.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// A range is taken over where it would take longer than this, and longer than three times what the other needs.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same where nothing else is left to ask for.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(2);
/// Each time that a blob's range was taken over doubles the patience, so many times.
const TAKEOVERS_COUNTED: u32 = 6;
/// Up to so many connected peers that have everything, they are left to what nobody else has.
const SCARCE_SEEDS_MAX: usize = 3;
/// Of so many that wait for an index blob, one goes to a peer that has just got it.
const INDEX_MOVED_ONE_IN: u64 = 6;
/// A peer that has everything and lets us wait this long is asked for something else once another has the blob.
const SEED_PATIENCE: Duration = Duration::from_millis(500);

/// What came of trying to ask a connection for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Asked,
    /// It has nothing that lacks.
    Useless,
    /// It may have, but enough v5 peers are asked already.
    Later,
    /// There is no room for a further blob.
    Full,
}

/// Who is asked first, of connections that are asked for equally much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    First,
    Usual,
    Last,
}

/// A channel as seen over one connection.
#[derive(Clone, Copy)]
struct View<'a> {
    share: Option<&'a Share>,
    sequence: u64,
    holders: Option<&'a Holders>,
    in_order: bool,
}

impl<S: Suite> Entry<S> {
    /// Blobs asked for.
    pub(super) fn outstanding(&self) -> usize {
        self.conn.outstanding() + self.conn.ranges()
    }

    /// Blobs that may be asked for at once.
    fn window(&self) -> usize {
        if !self.gossip.is_on() {
            return self.window;
        }
        let bytes = self.rate.bytes_per_sec().saturating_mul(WINDOW_TIME.as_secs());
        usize::try_from(bytes / S::BLOB_LEN as u64).map_or(WINDOW_MAX, |blobs| (1 + blobs).min(WINDOW_MAX))
    }

    /// It brought nothing for long, and is left alone for a while.
    fn rests(&self, now: Instant) -> bool {
        now < self.rests_until
    }

    pub(super) fn has_room(&self) -> bool {
        let idle = self.outstanding() == 0;
        self.is_askable() && (idle || self.outstanding() < self.window()) && self.lacks.len() < LACKS_MAX
    }
}

impl<S: Suite> Node<S> {
    // --- asking -------------------------------------------------------------------------------------------------

    /// Whether the peer may have a blob: a v6 peer says what it has, of a v5 peer it is guessed.
    pub(super) fn may_have(&self, entry: &Entry<S>, id: &BlobId, place: &Place) -> bool {
        if entry.lacks.contains(id) {
            return false;
        }
        if !entry.gossip.is_on() {
            return true;
        }
        let says_so = |place: &Place| {
            let View { share, sequence, .. } = self.view(entry, &place.channel);
            share.is_some_and(|share| share.has(sequence, place.position))
        };
        says_so(place) || self.scheduler.places(id).iter().any(says_so)
    }

    /// Connections that may be asked for blobs, and of them those that are asked or have what lacks.
    pub(super) fn usable(&self) -> (usize, usize) {
        let open: Vec<&Entry<S>> = self.conns.entries().map(|(_, e)| e).filter(|e| e.is_askable()).collect();
        let usable = open.iter().filter(|e| e.outstanding() > 0 || self.pick(e).is_some()).count();
        (open.len(), usable)
    }

    /// Where seeds are few, they are asked for what nobody else has, and others for the rest.
    fn preference(&self, conn: ConnId, is_scarce_seed: bool) -> Preference {
        let Some(entry) = self.conns.get(conn).filter(|_| is_scarce_seed) else { return Preference::Usual };
        let best = self.pick(entry);
        if best.is_some_and(|(_, place)| self.rarity(&place) == 0) {
            Preference::First
        } else {
            Preference::Last
        }
    }

    /// Whether the peer has everything of some channel.
    pub(super) fn is_seed(&self, entry: &Entry<S>) -> bool {
        let has_all = |(key, share): (&PublicKey, &Share)| {
            share.all_of().is_some_and(|of| self.holders.get(key).is_some_and(|h| h.sequence == of))
        };
        entry.gossip.shares.iter().any(has_all)
    }

    /// Spreads what lacks over the connections, first over those that are asked for least.
    pub(super) fn assign_requests(&mut self) {
        if self.store_rests || !mem::take(&mut self.assign_due) {
            return;
        }
        let now = self.now;
        // What frees one sees to it that this is looked at again.
        while self.has_room_for_more() {
            let (epoch, salt) = (self.scheduler.epoch, self.rng.u64());
            let (seeds, open) = self
                .ready()
                .fold((0, 0), |(seeds, open), (_, ready)| (seeds + usize::from(ready.is_seed), open + 1));
            // Where there is nobody else, there is nothing to leave to others.
            let scarce = seeds <= SCARCE_SEEDS_MAX && seeds < open;
            let useful = |(_, ready): &(ConnId, &Readiness)| {
                ready.has_room && now >= ready.rests_until && ready.dry != epoch
            };
            let ranked = |(id, ready): (ConnId, &Readiness)| {
                let lot = mix(u64::from(id.slot), salt);
                let preference = self.preference(id, scarce && ready.is_seed);
                (ready.outstanding, preference, Reverse(ready.speed(lot)), lot, id)
            };
            let mut candidates: Vec<_> = self.ready().filter(useful).map(ranked).collect();
            candidates.sort_unstable();
            let mut progress = false;
            for (.., conn) in candidates {
                match self.assign_to(conn) {
                    Ask::Asked => progress = true,
                    Ask::Useless => self.on_useless(conn, epoch),
                    Ask::Full if !self.has_ready_v5() => return,
                    // A v5 connection takes a buffer only when its blob comes.
                    Ask::Later | Ask::Full => {}
                }
            }
            if !progress {
                return;
            }
        }
    }

    /// Whether anything can be asked for at all, whoever has it.
    fn has_room_for_more(&mut self) -> bool {
        self.has_room_for_transfer() || self.scheduler.has_orphans() || self.has_ready_v5()
    }

    fn has_ready_v5(&self) -> bool {
        self.ready().any(|(_, ready)| ready.is_v5 && ready.has_room)
    }

    fn has_room_for_transfer(&self) -> bool {
        self.recv_pool.has_free() && self.scheduler.transfers().len() < TRANSFERS_MAX
    }

    /// A connection has nothing that lacks; it may know who has.
    fn on_useless(&mut self, conn: ConnId, epoch: u64) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.dry = epoch;
        self.note(conn);
        // Before, it could not be asked for peers.
        self.seek_soon();
    }

    /// Asks a connection for one blob more.
    fn assign_to(&mut self, conn: ConnId) -> Ask {
        let Some(entry) = self.conns.get(conn) else { return Ask::Useless };
        if !entry.gossip.is_on() {
            return self.assign_to_v5(conn);
        }
        if let Some((blob, at)) = self.scheduler.orphan(|id, place| self.may_have(entry, id, place)) {
            self.ask_for_run(conn, &blob, at);
            return Ask::Asked;
        }
        if !self.has_room_for_transfer() && !self.scheduler.has_orphans() {
            return Ask::Full;
        }
        let Some(entry) = self.conns.get(conn) else { return Ask::Useless };
        let Some((blob, place)) = self.pick(entry) else { return Ask::Useless };
        if self.scheduler.transfers().len() >= TRANSFERS_MAX {
            match self.scheduler.give_up_abandoned() {
                Some(buffer) => self.recv_pool.give_back(buffer),
                None => return Ask::Full,
            }
        }
        let Some(buffer) = self.recv_pool.take() else { return Ask::Full };
        self.scheduler.begin(blob, place, buffer);
        self.ask_for_run(conn, &blob, 0);
        self.timers.set_sooner(Timer::Review, self.now + REVIEW_INTERVAL);
        Ask::Asked
    }

    /// The queued blob that is best asked of a peer.
    fn pick(&self, entry: &Entry<S>) -> Option<(BlobId, Place)> {
        let salt = entry.salt ^ self.scheduler.epoch;
        // Most queued blobs are of one channel: what is known of it is looked up once.
        let mut of: Option<(PublicKey, View<'_>)> = None;
        self.scheduler.pick(|order, id, place| {
            let view = match of {
                Some((channel, view)) if channel == place.channel => view,
                _ => of.insert((place.channel, self.view(entry, &place.channel))).1,
            };
            let has =
                !entry.gossip.is_on() || view.share.is_some_and(|s| s.has(view.sequence, place.position));
            (has && !entry.lacks.contains(id)).then(|| {
                let rarity = || view.holders.map_or(0, |holders| holders.count(place.position));
                let (order, rarity) = if view.in_order { (order, 0) } else { (u64::MAX, rarity()) };
                (!place.is_index, order, rarity, mix(place.position, salt))
            })
        })
    }

    fn view<'a>(&'a self, entry: &'a Entry<S>, channel: &PublicKey) -> View<'a> {
        let holders = self.holders.get(channel);
        View {
            share: entry.gossip.shares.get(channel),
            sequence: holders.map_or(0, |holders| holders.sequence),
            holders,
            in_order: self.in_order.contains(channel),
        }
    }

    fn ask_for_run(&mut self, conn: ConnId, blob: &BlobId, at: usize) {
        let now = self.now;
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let Some(run) = self.scheduler.transfers().get(blob).and_then(|t| t.runs.get(at)) else { return };
        let range = entry.conn.want(*blob, run.start..run.end);
        entry.rate.begin(now);
        if entry.outstanding() == 1 {
            entry.brought = now;
        }
        let peer = entry.address().clone();
        self.scheduler.adopt(blob, at, Source { conn, peer, range, asked: now, moved: now });
        self.note(conn);
        self.wake_driver(conn);
    }

    fn assign_to_v5(&mut self, conn: ConnId) -> Ask {
        let now = self.now;
        let downloading = self.ready().filter(|(_, ready)| ready.is_v5 && ready.outstanding > 0).count();
        let Some(entry) = self.conns.get(conn) else { return Ask::Useless };
        let had = entry.conn.outstanding();
        let Some((blob, _)) = self.pick(entry) else { return Ask::Useless };
        if had == 0 && downloading >= DOWNLOAD_CONNECTIONS_MAX {
            return Ask::Later;
        }
        let Some(entry) = self.conns.get_mut(conn) else { return Ask::Useless };
        entry.conn.request(blob);
        self.scheduler.asked(blob, conn);
        if had == 0 {
            entry.checked = (entry.conn.progress_bytes(), now);
            self.timers.set_sooner(Timer::Conn(conn), now + STALL_TIMEOUT);
        }
        self.lend_recv_buffer(conn);
        self.note(conn);
        self.wake_driver(conn);
        Ask::Asked
    }

    // --- buffers for v5 -----------------------------------------------------------------------------------------

    /// Gives a connection the buffer for its next blob, now or when one is free; takes back what it no longer needs.
    fn lend_recv_buffer(&mut self, id: ConnId) {
        let Some(entry) = self.conns.get_mut(id) else { return };
        if let Some(unused) = entry.conn.take_unused_buffer() {
            self.give_back_recv(unused);
        } else if entry.conn.needs_buffer() {
            match self.recv_pool.take() {
                Some(buffer) => entry.conn.give_buffer(buffer),
                None if mem::replace(&mut entry.waits_for_recv, true) => {}
                None => self.conns.recv_waiters.push_back(id),
            }
        }
    }

    /// A receive buffer is free: for a v5 connection that waits for one, or for a further transfer.
    pub(super) fn give_back_recv(&mut self, buffer: Buffer) {
        self.assign_due = true;
        while let Some(id) = self.conns.recv_waiters.pop_front() {
            let Some(entry) = self.conns.get_mut(id) else { continue };
            entry.waits_for_recv = false;
            if entry.conn.needs_buffer() {
                entry.conn.give_buffer(buffer);
                return self.wake_driver(id);
            }
        }
        self.recv_pool.give_back(buffer);
    }

    // --- what comes ---------------------------------------------------------------------------------------------

    /// A v5 peer's blob.
    pub(super) fn on_blob(&mut self, conn: ConnId, id: BlobId, buffer: Buffer) {
        let end = u32::try_from(buffer.blob().len()).expect("a blob is 2^20 bytes or shorter");
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.blobs_served += 1;
        entry.window = (entry.window + 1).min(WINDOW_MAX);
        let part = Contribution { conn, peer: entry.address().clone(), start: 0, end };
        self.peers.speaks(&part.peer, !entry.gossip.is_on());
        self.scheduler.writing(id);
        self.assign_due = true;
        self.lend_recv_buffer(conn);
        self.write(id, buffer, [part].into());
    }

    fn write(&mut self, id: BlobId, buffer: Buffer, parts: Vec<Contribution>) {
        self.job(Pending::Write(id, parts), Job::WriteBlob(id, buffer));
    }

    pub(super) fn on_piece(&mut self, conn: ConnId, piece: &Piece) {
        let now = self.now;
        let bytes = piece.bytes();
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.rate.add(now, bytes.len(), entry.conn.ranges() == 0);
        entry.brought = now;
        // A connection that had stalled and goes on is of use again.
        self.assign_due |= entry.rests(now);
        entry.rests_until = now;
        let transfer = self.scheduler.transfer_mut(&piece.blob);
        self.bytes_duplicate += piece.surplus() as u64;
        match transfer.map_or(Fed::Unwanted, |transfer| transfer.feed(conn, piece.offset, bytes, now)) {
            Fed::Unwanted => self.bytes_duplicate += bytes.len() as u64,
            Fed::First(waited) => self.usual_wait = (self.usual_wait * 7 + waited) / 8,
            Fed::More => {}
        }
        if let Some((buffer, parts)) = self.scheduler.take_whole(&piece.blob) {
            for part in &parts {
                if let Some(entry) = self.conns.get_mut(part.conn) {
                    entry.blobs_served += 1;
                }
            }
            self.write(piece.blob, buffer, parts);
        }
        // A range has ended, or a transfer: there is room for another.
        self.assign_due |= self.conns.get(conn).is_some_and(Entry::has_room);
    }

    /// A v5 peer does not have a blob that it was asked for.
    pub(super) fn on_not_found(&mut self, conn: ConnId, id: BlobId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.lacks.insert(id);
        self.scheduler.requeue(id);
        self.lend_recv_buffer(conn);
        self.assign_due = true;
    }

    /// The peer does not serve a range that it was asked for.
    pub(super) fn on_refused(&mut self, conn: ConnId, id: BlobId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.lacks.insert(id);
        if entry.conn.ranges() == 0 {
            entry.rate.end();
        }
        self.release(conn, Some(&id));
    }

    /// A connection brings nothing more, of one blob or of any.
    pub(super) fn release(&mut self, conn: ConnId, only: Option<&BlobId>) {
        for buffer in self.scheduler.release(conn, only) {
            self.give_back_recv(buffer);
        }
        self.assign_due = true;
    }

    // --- what was written ---------------------------------------------------------------------------------------

    pub(super) fn on_blob_written(
        &mut self,
        id: BlobId,
        parts: Vec<Contribution>,
        buffer: Buffer,
        written: Written,
    ) {
        match written {
            Written::Stored => self.on_blob_stored(id, &parts, &buffer),
            Written::Mismatch => self.on_mismatch(id, parts, &buffer),
            Written::NoSpace | Written::Failed => {
                self.scheduler.requeue(id);
                if !mem::replace(&mut self.store_rests, true) {
                    self.event(Event::StoreFull { no_space: written == Written::NoSpace });
                }
                self.timers.set(Timer::Store, self.now + STORE_RETRY);
            }
        }
        self.give_back_recv(buffer);
    }

    fn on_blob_stored(&mut self, id: BlobId, parts: &[Contribution], buffer: &Buffer) {
        self.bytes_received += S::BLOB_LEN as u64;
        for part in parts {
            self.peers.served(&part.peer);
            self.remember(&part.peer);
        }
        let (places, suspects) = self.scheduler.stored(id);
        for Suspect { part, digest } in suspects {
            if digest != digest_of(buffer, &part) {
                self.on_wrong_bytes(&part);
            }
        }
        for place in places {
            self.with_fetch(place.channel, |fetch, asks| fetch.on_blob(id, asks));
        }
    }

    /// One peer alone has lied. Of several, one may have: the right blob will tell which.
    fn on_mismatch(&mut self, id: BlobId, parts: Vec<Contribution>, buffer: &Buffer) {
        self.scheduler.requeue(id);
        if let [liar] = &parts[..] {
            return self.on_wrong_bytes(liar);
        }
        let suspect = |part| Suspect { digest: digest_of(buffer, &part), part };
        self.scheduler.suspect(id, parts.into_iter().map(suspect).collect());
    }

    fn on_wrong_bytes(&mut self, part: &Contribution) {
        self.ban(&part.peer, Violation::WrongBlob);
        self.close(part.conn, CloseReason::Violation(Violation::WrongBlob));
    }

    // --- taking over --------------------------------------------------------------------------------------------

    /// Looks for ranges that take too long, and for idle peers that may bring them sooner.
    pub(super) fn review(&mut self) {
        if self.scheduler.transfers().is_empty() {
            return;
        }
        self.timers.set(Timer::Review, self.now + REVIEW_INTERVAL);
        self.find_stalled();
        let now = self.now;
        let mut idle: Vec<(Reverse<u64>, ConnId)> = self
            .conns
            .entries()
            .filter(|(_, e)| e.gossip.is_on() && e.has_room() && !e.rests(now) && e.conn.ranges() == 0)
            .map(|(id, e)| (Reverse(e.rate.bytes_per_sec()), id))
            .collect();
        // Who has proven to bring something comes first: whoever takes over and brings nothing costs the most.
        idle.sort_unstable();
        for (_, conn) in idle {
            self.take_over(conn);
        }
    }

    /// Connections that were asked for ranges and bring nothing: others get what they were asked for.
    fn find_stalled(&mut self) {
        let now = self.now;
        let silent_for =
            |e: &Entry<S>| if e.conn.ranges() > 0 { now.since(e.brought) } else { Duration::ZERO };
        let silent: Vec<(ConnId, Duration)> = self
            .conns
            .entries()
            .map(|(id, e)| (id, silent_for(e)))
            .filter(|(_, silent_for)| *silent_for >= STALL_TIMEOUT)
            .collect();
        for (conn, silent_for) in silent {
            if silent_for >= SILENCE_MAX {
                self.close(conn, CloseReason::Stalled);
            } else if let Some(entry) = self.conns.get_mut(conn) {
                entry.rests_until = now + STALL_TIMEOUT;
                self.note(conn);
            }
        }
    }

    /// Lets an idle peer bring (a part of) the range that would take longest.
    fn take_over(&mut self, helper: ConnId) {
        let Some((blob, at, from)) = self.slowest_run_for(helper) else { return };
        let Some(transfer) = self.scheduler.transfer_mut(&blob) else { return };
        let (source, is_begun) = (transfer.runs[at].source.clone(), transfer.runs[at].is_begun());
        let rest = transfer.orphan(at, from);
        transfer.takeovers += 1;
        if let Some(Source { conn, range, .. }) = source {
            if let Some(entry) = self.conns.get_mut(conn) {
                entry.was_in_vain |= !is_begun;
            }
            self.cut(conn, range, from);
        }
        self.ask_for_run(helper, &blob, rest);
        self.assign_due = true;
    }

    /// The blob, the run and where the helper's part begins.
    fn slowest_run_for(&self, helper: ConnId) -> Option<(BlobId, usize, u32)> {
        let entry = self.conns.get(helper)?;
        let is_end = self.scheduler.is_queue_empty();
        let mut slowest = None;
        for (id, transfer) in self.scheduler.transfers() {
            for (at, run) in transfer.runs.iter().enumerate() {
                let Some(source) = run.source.as_ref().filter(|_| !run.is_whole()) else { continue };
                let left = self.time_left(source, run.is_begun());
                let whole = u64::from(run.end - run.next);
                let helper_time = entry.rate.time_for(whole / 2).unwrap_or_default();
                // What has begun, at the end, is not waiting for its turn any more.
                let patience = if is_end && run.is_begun() { PATIENCE_AT_THE_END } else { PATIENCE };
                let patience = patience + self.usual_wait * 3;
                // Whoever takes over gets more time than the one before, so that slow peers all around come to an end.
                let patience = patience * (1 << transfer.takeovers.min(TAKEOVERS_COUNTED));
                let is_slow = left > patience && left > helper_time * 3;
                let may = !run.is_begun() || transfer.can_split();
                if source.conn != helper && is_slow && may && self.may_have(entry, id, &transfer.place) {
                    // What has begun goes on at its front.
                    let is_silent = self.conns.get(source.conn).is_none_or(|e| e.rests(self.now));
                    let middle = run.next + (run.end - run.next) / 2;
                    let from = if run.is_begun() && !is_silent { middle } else { run.next };
                    slowest = slowest.max(Some((left, Reverse(*id), at, from)));
                }
            }
        }
        slowest.map(|(_, Reverse(id), at, from)| (id, at, from))
    }

    /// How long a peer is likely to take for all that it was asked for.
    fn time_left(&self, source: &Source, is_begun: bool) -> Duration {
        let Some(entry) = self.conns.get(source.conn) else { return Duration::MAX };
        let waited = self.now.since(source.moved);
        match entry.rate.time_for(entry.conn.range_bytes()) {
            Some(time) if is_begun => time.max(waited),
            _ => waited,
        }
    }

    /// A peer that lacks some has got these blobs: a peer that has everything, and has not come to them, is asked for
    /// what nobody else has instead.
    pub(super) fn relieve_seeds(&mut self, conn: ConnId, channel: PublicKey, positions: &[u64]) {
        let sequence = self.holders.get(&channel).map_or(0, |holders| holders.sequence);
        let all_of = |e: &Entry<S>| e.gossip.shares.get(&channel).and_then(Share::all_of);
        let is_seed = |e: &Entry<S>| all_of(e) == Some(sequence);
        if self.conns.get(conn).is_none_or(is_seed) {
            return;
        }
        for (id, place, source) in self.waiting_runs(channel, positions) {
            if self.now.since(source.asked) < SEED_PATIENCE || source.conn == conn {
                continue;
            }
            let has_room = self.conns.get(conn).is_some_and(|e| e.has_room() && !e.rests(self.now));
            // Everybody waits for the same index blobs, and hears at once who has got one: not all go there.
            let goes_there = has_room && (!place.is_index || self.rng.below(INDEX_MOVED_ONE_IN) == 0);
            let is_at_seed = self.conns.get(source.conn).is_some_and(is_seed);
            if goes_there && (is_at_seed || place.is_index) {
                self.cut(source.conn, source.range, 0);
                self.ask_for_run(conn, &id, 0);
            } else if !has_room && is_at_seed && self.has_rarer(source.conn, &place) {
                self.cut(source.conn, source.range, 0);
                self.release(source.conn, Some(&id));
            } else {
                continue;
            }
            self.assign_due = true;
        }
    }

    /// The blobs at the positions of which one peer was asked for all, and nothing has come.
    fn waiting_runs(&self, channel: PublicKey, positions: &[u64]) -> Vec<(BlobId, Place, Source)> {
        let waiting = |(id, transfer): (BlobId, &Transfer)| {
            let [run] = &transfer.runs[..] else { return None };
            let source = run.source.clone().filter(|_| !run.is_begun());
            Some((id, transfer.place, source?))
        };
        self.scheduler.transfers_at(channel, positions).filter_map(waiting).collect()
    }

    /// Whether a queued blob that the peer has is rarer than the one at a place.
    fn has_rarer(&self, conn: ConnId, place: &Place) -> bool {
        let other = self.conns.get(conn).and_then(|entry| self.pick(entry));
        other.is_some_and(|(_, other)| !place.is_index && self.rarity(&other) < self.rarity(place))
    }

    /// From `from` on, a range is no longer wanted of a peer.
    fn cut(&mut self, conn: ConnId, range: u32, from: u32) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.conn.cut(range, from);
        if entry.conn.ranges() == 0 {
            entry.rate.end();
        }
        self.note(conn);
        self.wake_driver(conn);
    }
}

fn digest_of(buffer: &Buffer, part: &Contribution) -> [u8; 32] {
    Sha256::digest(&buffer.blob()[part.start as usize..part.end as usize]).into()
}

/// Spreads numbers: a random order among equals, which is another for each salt.
fn mix(value: u64, salt: u64) -> u64 {
    let x = (value ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (x >> 32)
}
