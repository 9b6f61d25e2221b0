//! Blobs that come whole, by REQUEST and DATA: v5 blobs from any peer, and native ones from v5 peers. Such a blob can only be
//! checked when all of it is here, so it comes from one peer alone.

use super::super::api::{Job, Written};
use super::super::channels::contents::Place;
use super::super::conns::Conns;
use super::super::cx::{Cx, Pending};
use super::super::timers::Timer;
use super::{Downloads, Outcome};
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::error::CloseReason;
use crate::ids::{BlobId, BlobName, ConnId, Root};
use crate::limits::{DOWNLOAD_CONNECTIONS_MAX, STALL_BYTES_MIN, STALL_TIMEOUT, WINDOW_MAX};
use crate::parts::Mask;
use crate::suite::Suite;
use crate::time::Instant;
use alloc::vec::Vec;
use core::mem;

impl Downloads {
    /// Whether a connection may be asked for a whole blob more: each holds a buffer.
    pub(super) fn may_ask_whole<S: Suite>(&self, conns: &Conns<S>, conn: ConnId) -> bool {
        let (Some(line), Some(requests)) = (self.lines.get(conn), conns.get(conn)) else { return false };
        let had = requests.outstanding();
        let asked = |id: &&ConnId| conns.get(**id).is_some_and(|requests| requests.outstanding() > 0);
        had < line.window && (had > 0 || conns.ids().iter().filter(asked).count() < DOWNLOAD_CONNECTIONS_MAX)
    }

    /// Asks a peer for a whole blob.
    pub(super) fn ask_whole<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (name, id): (BlobName, BlobId),
        place: &Place,
    ) {
        let now = cx.now();
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get_mut(conn)) else { return };
        if requests.outstanding() == 0 {
            line.checked = (requests.progress_bytes(), now);
            cx.set_timer_sooner(Timer::Conn(conn), now + STALL_TIMEOUT);
        }
        requests.request(id);
        line.rate.begin(now);
        self.wants.asked_whole(&name, place, conn, now);
        self.lend_buffer(conns, conn);
        self.sum_up(conns, conn);
    }

    /// Whether the requests of a connection bring too little, or when they are looked at next.
    pub(crate) fn check<S: Suite>(
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

    // --- buffers --------------------------------------------------------------------------------------------

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

    /// A buffer is free: for a connection that waits for one.
    pub(crate) fn give_back<S: Suite>(&mut self, conns: &mut Conns<S>, buffer: Buffer) {
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

    /// What a blob that was asked for by an id is wanted as.
    fn name_of(&self, conn: ConnId, id: BlobId) -> Option<BlobName> {
        let is_it = |name: &BlobName| self.wants.get(name).is_some_and(|want| want.id() == Some(id));
        self.wants.busy_with(conn).into_iter().find(is_it)
    }

    /// A blob came over a connection, not yet checked.
    pub(crate) fn on_blob<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        id: BlobId,
        buffer: Buffer,
    ) {
        let now = cx.now();
        let name = self.name_of(conn, id);
        let (Some(line), Some(peer)) = (self.lines.get_mut(conn), conns.address(conn)) else { return };
        let is_last = conns.get(conn).is_none_or(|requests| requests.outstanding() == 0);
        line.rate.add(now, buffer.blob().len(), is_last);
        line.note_brought(now);
        line.brought += 1;
        line.window = (line.window + 1).min(WINDOW_MAX);
        let peer = peer.clone();
        self.is_due = true;
        self.lend_buffer(conns, conn);
        let is_wanted = name.filter(|name| {
            let is_first = self.wants.get(name).is_some_and(|want| !want.is_writing());
            self.wants.not_asked_whole(name, conn, true) && is_first
        });
        let Some(name) = is_wanted else {
            self.bytes_duplicate += self.blob_len as u64;
            return self.give_back(conns, buffer);
        };
        cx.job(Pending::WriteBlob(name, conn, peer), Job::WriteBlob(name, id, buffer));
        self.sum_up(conns, conn);
    }

    /// The peer does not have a blob that it was asked for.
    pub(crate) fn on_not_found<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, id: BlobId) {
        self.is_due = true;
        if let Some(name) = self.name_of(conn, id) {
            self.wants.not_asked_whole(&name, conn, false);
            if let Some(line) = self.lines.get_mut(conn) {
                line.refused.insert(name);
            }
        }
        self.lend_buffer(conns, conn);
        self.sum_up(conns, conn);
    }

    /// The store holds all of a native blob that may be wanted: it says what that is, and nothing more is asked for.
    fn finish_found<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, root: Root) {
        let name = BlobName::Native(root);
        let dropped = self.wants.with_transfer(&name, super::transfer::Transfer::found_whole);
        let (others, buffers): (Vec<ConnId>, Vec<Buffer>) = dropped.unwrap_or_default();
        self.part_pool.give_all_back(buffers);
        for other in others {
            self.cancel(conns, other, root, Mask::ALL);
        }
        self.finish_if_here(cx, root);
    }

    /// The store holds a blob after all, which may be wanted.
    pub(crate) fn on_found_whole<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        name: BlobName,
    ) -> Vec<Outcome> {
        self.is_due |= self.wants.get(&name).is_some();
        match name {
            BlobName::Native(root) => {
                self.finish_found(cx, conns, root);
                Vec::new()
            }
            // What comes of it meanwhile counts as come twice.
            BlobName::V5(_) => {
                self.wants.remove(&name).into_iter().map(|(place, _)| Outcome::Stored(place)).collect()
            }
        }
    }

    /// The store has taken a blob, or not.
    pub(crate) fn on_blob_written<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        name: BlobName,
        (conn, peer): (ConnId, PeerAddr),
        (buffer, written): (Buffer, Written),
    ) -> Vec<Outcome> {
        self.give_back(conns, buffer);
        self.wants.not_written(&name);
        let mut outcome = Vec::new();
        match (written, name) {
            (Written::Stored, BlobName::V5(_)) => {
                self.bytes_received += self.blob_len as u64;
                outcome.push(Outcome::Brought(peer));
                outcome.extend(self.wants.remove(&name).into_iter().map(|(place, _)| Outcome::Stored(place)));
            }
            (Written::Stored, BlobName::Native(root)) => {
                self.bytes_received += self.blob_len as u64;
                outcome.push(Outcome::Brought(peer));
                self.finish_found(cx, conns, root);
            }
            // What the id names, its author says wrongly that it is this blob. No peer is to blame.
            (Written::NotOfRoot, _) => self.wants.forget_id(&name),
            (Written::Mismatch, _) => outcome.push(Outcome::Lie(conn, peer)),
            (Written::NoSpace | Written::Failed, _) => self.let_store_rest(cx, written),
        }
        outcome
    }
}
