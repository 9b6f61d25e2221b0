//! Which connection is asked for which blob.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;

use super::Downloads;
use super::candidates::Candidate;
use super::takeover::REVIEW_INTERVAL;
use super::transfer::Request;
use crate::buffer::Buffer;
use crate::ids::{BlobName, ConnId, Topic};
use crate::limits::{DOWNLOAD_CONNECTIONS_MAX, STALL_TIMEOUT, TRANSFERS_MAX};
use crate::node::channels::contents::{Place, Urgency};
use crate::node::channels::swarms::Swarms;
use crate::node::conns::Conns;
use crate::node::cx::Cx;
use crate::node::timers::Timer;
use crate::suite::Suite;

/// Up to this many connected peers that have everything, they are left to what nobody else has.
const SCARCE_SEEDS_MAX: usize = 3;

/// What came of trying to ask a connection for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    /// It has nothing that is missing.
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

/// In which order connections are asked, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AskOrder {
    outstanding: usize,
    preference: Preference,
    slowness: Reverse<u32>,
    lot: u64,
    conn: ConnId,
}

impl AskOrder {
    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }
}

/// In which order a peer is asked for blobs, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BlobOrder {
    urgency: Urgency,
    is_data: bool,
    /// Where blobs are wanted in order, their place in it.
    order: u64,
    availability: u16,
    lot: u64,
}

impl Downloads {
    /// Whether the peer may have a blob: v6 peers tell us; for v5 peers we guess.
    pub(super) fn may_have<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        id: &BlobName,
        place: &Place,
    ) -> bool {
        if self.lines.get(conn).is_none_or(|line| line.refused.contains(id)) {
            return false;
        }
        let says_so = |place: &Place| swarms.view(conn, place.topic()).has(place.position());
        !conns.speaks_v6(conn) || says_so(place) || self.wants.places(id).iter().any(says_so)
    }

    /// Where seeds are few, they are asked for what nobody else has, and others for the rest.
    fn preference<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        is_scarce_seed: bool,
    ) -> Preference {
        if !is_scarce_seed {
            return Preference::Usual;
        }
        let best = self.pick(conns, swarms, conn);
        let is_alone =
            |(_, place): (BlobName, Place)| swarms.availability(place.topic(), place.position()) == 0;
        if best.is_some_and(is_alone) { Preference::First } else { Preference::Last }
    }

    /// Spreads what is missing over the connections, first over those that are asked for least. `true`: some peer turned out
    /// to have nothing useful.
    pub(crate) fn assign<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) -> bool {
        self.note_interests(swarms);
        if self.store_rests {
            return false;
        }
        let is_any_useless = mem::take(&mut self.is_due) && self.ask_in_turn(cx, conns, swarms);
        self.claim_places(cx, conns, swarms);
        is_any_useless
    }

    /// Asks each connection for one blob more, again and again while there is room.
    fn ask_in_turn<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) -> bool {
        let mut is_any_useless = false;
        // What makes room for one sees to it that this is looked at again.
        while self.has_room_for_more() {
            let epoch = self.wants.epoch();
            let order = self.ask_order(cx, conns, swarms);
            let mut progress = false;
            for AskOrder { conn, .. } in order {
                match self.assign_to(cx, conns, swarms, conn) {
                    Asked::Yes => progress = true,
                    Asked::Useless => {
                        if let Some(candidate) = self.candidates.get_mut(conn) {
                            candidate.set_nothing_useful_at(epoch);
                            is_any_useless = true;
                        }
                    }
                    Asked::Full if !self.has_ready_v5() => return is_any_useless,
                    // A v5 connection takes a buffer only when its blob comes.
                    Asked::Later | Asked::Full => {}
                }
            }
            if !progress {
                break;
            }
        }
        is_any_useless
    }

    /// The connections that may be asked for one blob more, in the order in which they are.
    pub(super) fn ask_order<S: Suite>(
        &self,
        cx: &mut Cx,
        conns: &Conns<S>,
        swarms: &Swarms,
    ) -> Vec<AskOrder> {
        let (now, epoch, salt) = (cx.now(), self.wants.epoch(), cx.rng().u64());
        let askable = || self.candidates.iter().filter(|(_, candidate)| candidate.is_askable());
        let seeds = askable().filter(|(id, _)| swarms.is_seed(*id)).count();
        // Where there is nobody else, there is nothing to leave to others.
        let is_scarce = seeds <= SCARCE_SEEDS_MAX && seeds < askable().count();
        let useful = self.candidates.iter().filter(|(_, candidate)| candidate.is_useful(now, epoch));
        let ordered = useful.map(|(conn, candidate)| {
            let lot = mix(u64::from(conn.slot), salt);
            let is_scarce_seed = is_scarce && swarms.is_seed(conn);
            AskOrder {
                outstanding: candidate.outstanding(),
                preference: self.preference(conns, swarms, conn, is_scarce_seed),
                slowness: Reverse(candidate.speed()),
                lot,
                conn,
            }
        });
        let mut order: Vec<AskOrder> = ordered.collect();
        order.sort_unstable();
        order
    }

    /// Whether anything can be asked for at all, whoever has it.
    fn has_room_for_more(&mut self) -> bool {
        self.has_room_for_transfer() || self.wants.has_orphans() || self.has_ready_v5()
    }

    fn has_ready_v5(&self) -> bool {
        self.candidates.iter().any(|(_, candidate)| candidate.is_v5() && candidate.has_room())
    }

    pub(super) fn has_room_for_transfer(&self) -> bool {
        self.pool.has_free() && self.wants.transfers().len() < TRANSFERS_MAX
    }

    /// Asks a connection for one blob more.
    fn assign_to<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
    ) -> Asked {
        if !conns.speaks_v6(conn) {
            return self.assign_to_v5(cx, conns, swarms, conn);
        }
        let may_bring = |id: &BlobName, place: &Place| self.may_have(conns, swarms, conn, id, place);
        if let Some((blob, at)) = self.wants.orphan(may_bring) {
            self.ask_for_segment(cx, conns, conn, &blob, at);
            return Asked::Yes;
        }
        if !self.has_room_for_transfer() && !self.wants.has_orphans() {
            return Asked::Full;
        }
        let Some(found) = self.pick_and_forget(conns, swarms, conn, |_| true) else { return Asked::Useless };
        if self.wants.transfers().len() >= TRANSFERS_MAX {
            match self.wants.give_up_abandoned() {
                Some(buffer) => self.pool.give_back(buffer),
                None => return Asked::Full,
            }
        }
        let Some(buffer) = self.pool.take() else { return Asked::Full };
        self.begin(cx, conns, conn, found, buffer);
        Asked::Yes
    }

    /// Begins the transfer of a blob.
    pub(super) fn begin<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        (blob, place): (BlobName, Place),
        buffer: Buffer,
    ) {
        self.wants.begin(blob, place, buffer);
        self.ask_for_segment(cx, conns, conn, &blob, 0);
        cx.set_timer_sooner(Timer::Review, cx.now() + REVIEW_INTERVAL);
    }

    /// The queued blob that is best asked of a peer.
    pub(super) fn pick<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
    ) -> Option<(BlobName, Place)> {
        self.look(conns, swarms, conn, |_| true).0
    }

    /// The queued blob that is best asked of a peer, and the swarms of which a v6 peer has none, of those that are `fit`.
    pub(super) fn look<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        fit: impl Fn(&Topic) -> bool,
    ) -> (Option<(BlobName, Place)>, Vec<Topic>) {
        let Some(line) = self.lines.get(conn) else { return (None, Vec::new()) };
        let is_v6 = conns.speaks_v6(conn);
        let salt = line.salt ^ self.wants.epoch();
        // Most blobs that are looked at are of one swarm: what is known of it is looked up once.
        let mut of = None;
        let rank = |order: u64, id: &BlobName, place: &Place| {
            let view = match of {
                Some((topic, view)) if topic == *place.topic() => view,
                _ => of.insert((*place.topic(), swarms.view(conn, place.topic()))).1,
            };
            let position = place.position();
            let has = !is_v6 || view.has(position);
            (has && !line.refused.contains(id)).then(|| {
                let (order, availability) =
                    if place.in_order() { (order, 0) } else { (u64::MAX, view.availability(position)) };
                let (urgency, is_data) = (place.urgency(), !place.is_index());
                BlobOrder { urgency, is_data, order, availability, lot: mix(position, salt) }
            })
        };
        if is_v6 {
            self.wants.pick_of(line.interests.iter().copied().filter(fit), rank)
        } else {
            (self.wants.pick(rank), Vec::new())
        }
    }

    pub(super) fn ask_for_segment<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        blob: &BlobName,
        at: usize,
    ) {
        let now = cx.now();
        let Some(bounds) = self.wants.transfers().get(blob).and_then(|transfer| transfer.bounds(at)) else {
            return;
        };
        let Some(peer) = conns.address(conn).cloned() else { return };
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get_mut(conn)) else { return };
        let range = requests.want(*blob, bounds);
        line.rate.begin(now);
        if requests.outstanding() + requests.ranges() == 1 {
            line.brought = now;
        }
        self.wants.ask(blob, at, Request::new(conn, peer, range, now));
        self.sum_up(conns, conn);
    }

    fn assign_to_v5<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
    ) -> Asked {
        let now = cx.now();
        let is_asked = |candidate: &Candidate| candidate.is_v5() && candidate.outstanding() > 0;
        let downloading = self.candidates.iter().filter(|(_, candidate)| is_asked(candidate)).count();
        let Some((blob, place)) = self.pick(conns, swarms, conn) else { return Asked::Useless };
        let (Some(line), Some(requests)) = (self.lines.get_mut(conn), conns.get_mut(conn)) else {
            return Asked::Useless;
        };
        let had = requests.outstanding();
        if had == 0 && downloading >= DOWNLOAD_CONNECTIONS_MAX {
            return Asked::Later;
        }
        let BlobName::V5(id) = blob else { return Asked::Useless };
        requests.request(id);
        if had == 0 {
            line.checked = (requests.progress_bytes(), now);
            cx.set_timer_sooner(Timer::Conn(conn), now + STALL_TIMEOUT);
        }
        self.wants.asked(blob, &place, conn);
        self.lend_buffer(conns, conn);
        self.sum_up(conns, conn);
        Asked::Yes
    }
}

/// Spreads numbers: a random order among equals, which is another for each salt.
fn mix(value: u64, salt: u64) -> u64 {
    let x = (value ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (x >> 32)
}
