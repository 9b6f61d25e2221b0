//! Native blobs, which come by parts.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::super::api::{Claim, Job, Written};
use super::super::channels::contents::Place;
use super::super::conns::Conns;
use super::super::cx::{Cx, Pending};
use super::wants::Want;
use super::{Downloads, Outcome};
use crate::addr::PeerAddr;
use crate::buffer::Buffer;
use crate::codec::EXACT_STEP;
use crate::conn::Piece;
use crate::error::Violation;
use crate::ids::{BlobName, ConnId, Root, Secret};
use crate::parts::{Mask, Values};
use crate::suite::Suite;

/// A peer is remembered again after so many parts.
const PARTS_PER_MEMORY: u64 = 64;

impl Downloads {
    /// Asks a v6 peer for parts of a blob, and for its values while they are not here.
    pub(super) fn ask_for_parts<S: Suite>(
        &mut self,
        cx: &Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (root, place): (Root, &Place),
        mask: Mask,
    ) {
        let (now, name) = (cx.now(), BlobName::Native(root));
        let Some(want) = self.wants.get(&name) else { return };
        let len = self.short(want, place).map(|(_, len)| len.max(1).next_multiple_of(EXACT_STEP as usize));
        let len = len.filter(|len| *len < self.part_len && mask == Mask::one(0));
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get_mut(conn)) else { return };
        let needs_values = self.wants.with_transfer(&name, |transfer| {
            transfer.ask(conn, mask, len, now);
            transfer.values().is_none()
        });
        let Some(needs_values) = needs_values else { return };
        if requests.outstanding() + requests.parts_outstanding() == 0 {
            (line.asked_idle, line.brought_at) = (Some(now), now);
        }
        requests.want(root, mask, needs_values, len.and_then(|len| u32::try_from(len).ok()));
        line.rate.begin(now);
        self.wants.served(place.topic());
        self.sum_up(conns, conn);
    }

    /// The content of an index blob or a document of less than a part, of which the rest can be made here: its key and length. How
    /// long it is tells a peer no more than how many blobs there are, which it knows.
    fn short(&self, want: &Want, place: &Place) -> Option<(Secret, usize)> {
        if self.takes_all || !place.is_index() || want.transfer().needs_all() {
            return None;
        }
        want.places().iter().find_map(|(_, claim)| match claim {
            Claim::Content(key, len) if (*len as usize) < self.part_len => Some((key.clone(), *len as usize)),
            _ => None,
        })
    }

    /// The store holds parts of a blob from an earlier time. Values that it has garbled would make honest peers liars.
    pub(crate) fn on_held<S: Suite>(
        &mut self,
        cx: &mut Cx,
        root: Root,
        mask: Mask,
        values: &Values,
    ) -> Vec<(Place, Mask)> {
        if S::root_of(values) != root {
            return Vec::new();
        }
        let name = BlobName::Native(root);
        self.wants.with_transfer(&name, |transfer| transfer.found(mask, values.clone()));
        self.finish_if_here(cx, root);
        self.places_of_parts(root)
    }

    /// The parts of a blob that are here, at each of its places.
    fn places_of_parts(&self, root: Root) -> Vec<(Place, Mask)> {
        let Some(want) = self.wants.get(&BlobName::Native(root)) else { return Vec::new() };
        want.places().iter().map(|(place, _)| (*place, want.transfer().here())).collect()
    }

    /// A blob's values came over a connection.
    ///
    /// # Errors
    /// They are not those of the blob.
    pub(crate) fn on_values<S: Suite>(&mut self, root: Root, values: Box<Values>) -> Result<(), Violation> {
        if S::root_of(&values) != root {
            return Err(Violation::WrongBlob);
        }
        self.wants.with_transfer(&BlobName::Native(root), |transfer| transfer.set_values(*values));
        Ok(())
    }

    /// Half a part came over a connection.
    pub(crate) fn on_piece<S: Suite>(&mut self, cx: &mut Cx, conns: &Conns<S>, conn: ConnId, piece: &Piece) {
        let (now, bytes, name) = (cx.now(), piece.bytes(), BlobName::Native(piece.root));
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get(conn)) else { return };
        line.rate.add(now, bytes.len(), requests.parts_outstanding() == 0);
        line.note_brought(now);
        if let Some(candidate) = self.candidates.get_mut(conn) {
            // A connection that had stalled and goes on is of use again.
            self.is_due |= candidate.is_backed_off(now);
            candidate.back_off_until(now);
        }
        let request = self.wants.get(&name).and_then(|want| want.transfer().request_of(conn, piece.part));
        let half_len = self.part_len.div_ceil(2);
        if let Some(request) = request.filter(|request| piece.is_second || request.len().is_some()) {
            line.note_took(now.since(request.asked()), request.len().is_some(), self.part_len);
        }
        match request.map(|request| (request.is_begun(), request.asked(), request.len())) {
            Some((_, asked, len)) if !piece.is_second => {
                self.usual_wait = (self.usual_wait * 7 + now.since(asked)) / 8;
                if self.keep_half(conn, piece) && len.is_some_and(|len| len <= half_len) {
                    self.complete::<S>(cx, conns, conn, (piece, &[]), len);
                }
            }
            Some((true, _, len)) => self.complete(cx, conns, conn, (piece, bytes), len),
            // There was no buffer for the first half, or it was given up.
            _ => self.bytes_duplicate += bytes.len() as u64,
        }
        self.sum_up(conns, conn);
        self.is_due = true;
    }

    /// Keeps the first half of a part. `false`: there is no room.
    fn keep_half(&mut self, conn: ConnId, piece: &Piece) -> bool {
        let (name, bytes) = (BlobName::Native(piece.root), piece.bytes());
        let Some(mut buffer) = self.part_pool.take() else {
            // All of them are with the store, or at other halves: the part is asked for again.
            self.bytes_duplicate += bytes.len() as u64;
            self.wants.with_transfer(&name, |it| it.release(conn, Mask::one(piece.part)));
            return false;
        };
        buffer.blob_mut()[..bytes.len()].copy_from_slice(bytes);
        let unused = self.wants.with_transfer(&name, |it| it.keep_half(conn, piece.part, buffer));
        self.part_pool.give_all_back(unused.flatten());
        true
    }

    /// What was asked for of a part is here with the last `bytes` of it: the part is completed where only `len` bytes were asked
    /// for, checked and written.
    fn complete<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &Conns<S>,
        conn: ConnId,
        (piece, bytes): (&Piece, &[u8]),
        len: Option<usize>,
    ) {
        let (name, root, part) = (BlobName::Native(piece.root), piece.root, piece.part);
        let came = self.wants.with_transfer(&name, |transfer| {
            let buffer = transfer.take_half(conn, part)?;
            let values = transfer.values().cloned();
            Some((buffer, values.filter(|_| transfer.came(conn, part))))
        });
        let Some((mut buffer, values)) = came.flatten() else { return };
        let (Some(values), Some(peer)) = (values, conns.address(conn).cloned()) else {
            self.bytes_duplicate += len.unwrap_or(self.part_len) as u64;
            return self.part_pool.give_back(buffer);
        };
        buffer.blob_mut()[self.part_len.div_ceil(2)..][..bytes.len()].copy_from_slice(bytes);
        if let Some(len) = len
            && !self.complete_short::<S>(root, part, &values, buffer.blob_mut())
        {
            self.bytes_duplicate += len as u64;
            self.part_pool.give_back(buffer);
            self.wants.with_transfer(&name, |transfer| transfer.came_out_wrong(part));
            return;
        }
        let len = len.unwrap_or(self.part_len);
        let mut places = self.wants.get(&name).into_iter().flat_map(Want::places);
        let stand = places.find_map(|(place, claim)| place.stand(claim)).map(Box::new);
        let job = Job::WritePart(root, part, values, buffer, stand);
        cx.job(Pending::WritePart(root, part, len, conn, peer), job);
    }

    /// Makes the rest of a part of which only the content was asked for. `false`: it does not fit the blob's values, and whether the
    /// peer or the author lies is not known.
    fn complete_short<S: Suite>(&self, root: Root, part: usize, values: &Values, buf: &mut [u8]) -> bool {
        let want = self.wants.get(&BlobName::Native(root));
        let place = want.and_then(|want| want.places().iter().find(|(place, _)| place.is_index()));
        let short = want.zip(place).and_then(|(want, (place, _))| self.short(want, place));
        short.is_some_and(|(key, len)| S::complete_part(&key, values, len, part, buf))
    }

    /// Bytes of parts came that were cancelled before.
    pub(crate) fn on_late(&mut self, len: usize) {
        self.bytes_duplicate += len as u64;
    }

    /// The peer does not serve parts of a blob that it said it has.
    pub(crate) fn on_refused<S: Suite>(&mut self, conns: &Conns<S>, conn: ConnId, root: Root, mask: Mask) {
        let name = BlobName::Native(root);
        self.release(conn, root, mask);
        if let Some(line) = self.lines.get_mut(conn) {
            line.refused.insert(name);
            if conns.get(conn).is_none_or(|requests| requests.parts_outstanding() == 0) {
                line.rate.end();
            }
        }
        self.is_due = true;
        self.sum_up(conns, conn);
    }

    // --- what is written ------------------------------------------------------------------------------------

    /// The store has taken a part that a peer brought, or not.
    pub(crate) fn on_part_written<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        (root, part, len): (Root, usize, usize),
        (conn, peer): (ConnId, PeerAddr),
        (buffer, written): (Buffer, Written),
    ) -> Vec<Outcome> {
        self.part_pool.give_back(buffer);
        self.is_due = true;
        let (name, is_stored) = (BlobName::Native(root), written == Written::Stored);
        let dropped = self.wants.with_transfer(&name, |transfer| transfer.written(part, is_stored));
        let (others, buffers) = dropped.unwrap_or_default();
        self.part_pool.give_all_back(buffers);
        for other in others {
            self.cancel(conns, other, root, Mask::one(part));
        }
        let mut outcome = Vec::new();
        match written {
            Written::Stored => {
                self.bytes_received += len as u64;
                self.note_stored(cx.now());
                if let Some(line) = self.lines.get_mut(conn) {
                    if line.brought % PARTS_PER_MEMORY == 0 {
                        outcome.push(Outcome::Brought(peer));
                    }
                    line.brought += 1;
                }
                let places = self.places_of_parts(root).into_iter();
                outcome.extend(places.map(|(place, mask)| Outcome::Parts(place, mask)));
                self.finish_if_here(cx, root);
            }
            Written::Mismatch | Written::NotOfRoot => outcome.push(Outcome::Lie(conn, peer)),
            Written::NoSpace | Written::Failed => self.let_store_rest(cx, written),
        }
        outcome
    }

    /// Parts of a blob will not come over a connection.
    pub(super) fn release(&mut self, conn: ConnId, root: Root, mask: Mask) {
        let buffers =
            self.wants.with_transfer(&BlobName::Native(root), |transfer| transfer.release(conn, mask));
        self.part_pool.give_all_back(buffers.into_iter().flatten());
    }

    /// Parts are no longer wanted of a peer.
    pub(super) fn cancel<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, root: Root, mask: Mask) {
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get_mut(conn)) else { return };
        requests.cancel(&root, mask);
        if requests.parts_outstanding() == 0 {
            line.rate.end();
            line.asked_idle = None;
        }
        self.sum_up(conns, conn);
    }

    /// Lets the store make a blob whole once all that must come from peers is here.
    pub(super) fn finish_if_here(&mut self, cx: &mut Cx, root: Root) {
        let name = BlobName::Native(root);
        if !self.wants.get(&name).is_some_and(|want| want.transfer().is_to_be_finished()) {
            return;
        }
        self.wants.with_transfer(&name, |transfer| transfer.set_finishing(true));
        let mut claims: Vec<Claim> = Vec::new();
        for (_, claim) in self.wants.get(&name).into_iter().flat_map(Want::places) {
            if !claims.contains(claim) {
                claims.push(claim.clone());
            }
        }
        cx.job(Pending::Finish(root, claims.clone()), Job::FinishBlob(root, claims));
    }

    /// The store takes blobs again: those of which all is here are made whole.
    pub(super) fn finish_what_is_here(&mut self, cx: &mut Cx) {
        for root in self.wants.to_be_finished() {
            self.finish_if_here(cx, root);
        }
    }

    /// The store has made a blob whole, and says which of the claims are right, or could not.
    pub(crate) fn on_finished(
        &mut self,
        cx: &mut Cx,
        (root, claims): (Root, &[Claim]),
        finished: Result<Vec<bool>, Written>,
    ) -> Vec<Outcome> {
        let name = BlobName::Native(root);
        self.is_due = true;
        self.wants.with_transfer(&name, |transfer| transfer.set_finishing(false));
        let rights = match finished {
            Ok(rights) => rights,
            Err(why @ (Written::NoSpace | Written::Failed)) => {
                self.let_store_rest(cx, why);
                return Vec::new();
            }
            Err(_) => {
                self.wants.with_transfer(&name, super::transfer::Transfer::lost);
                return Vec::new();
            }
        };
        let mut outcome = Vec::new();
        let places = self.wants.get(&name).map_or_else(Vec::new, |want| want.places().to_vec());
        let mut is_left = false;
        for (place, claim) in places {
            match claims.iter().position(|known| *known == claim).and_then(|at| rights.get(at)) {
                Some(true) => outcome.push(Outcome::Stored(place)),
                Some(false) => outcome.push(Outcome::Unfit(place)),
                None => is_left = true,
            }
        }
        if is_left {
            // Somebody else wants it meanwhile, and says something else of it.
            if rights.contains(&true) {
                self.wants.with_transfer(&name, super::transfer::Transfer::made_whole);
            }
            let is_done = |it: &Outcome, place: &Place| matches!(it, Outcome::Stored(at) | Outcome::Unfit(at) if at == place);
            self.wants.forget_places(&name, |place| outcome.iter().any(|it| is_done(it, place)));
            self.finish_if_here(cx, root);
        } else {
            self.wants.remove(&name);
        }
        outcome
    }
}
