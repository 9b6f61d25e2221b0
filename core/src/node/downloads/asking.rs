//! Which connection is asked for what.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;

use super::Downloads;
use super::again::REVIEW_INTERVAL;
use super::wants::Want;
use crate::ids::{BlobName, ConnId, Root, Topic};
use crate::limits::{PARTS_UNDER_WAY_MAX, REFUSED_MAX};
use crate::node::channels::contents::Place;
use crate::node::channels::swarms::{Swarms, View};
use crate::node::conns::Conns;
use crate::node::cx::Cx;
use crate::node::timers::Timer;
use crate::parts::Mask;
use crate::suite::Suite;

/// Up to this many connected peers that have everything, they are left to what nobody else has.
const SCARCE_SEEDS_MAX: usize = 3;

/// What came of trying to ask a connection for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    /// It has nothing that is missing.
    Useless,
    /// It may have, but enough is under way.
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
struct AskOrder {
    outstanding: usize,
    preference: Preference,
    slowness: Reverse<u32>,
    lot: u64,
    conn: ConnId,
}

impl Downloads {
    /// What a peer has of a blob, as far as it said, and the place of which it said so; for v5 peers we guess.
    pub(super) fn has_of<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        name: &BlobName,
        want: &Want,
    ) -> Option<(Place, Mask)> {
        if self.lines.get(conn).is_none_or(|line| line.refused.contains(name)) {
            return None;
        }
        if !conns.speaks_v6(conn) {
            let place = want.places().first().filter(|_| want.id().is_some())?;
            return Some((place.0, Mask::ALL));
        }
        let told = |place: &Place| swarms.view(conn, place.topic()).parts(place.position());
        let mut places = want.places().iter().map(|(place, _)| (*place, told(place)));
        // A v5 blob has no parts.
        let is_any = |mask: Mask| if name.root().is_some() { !mask.is_empty() } else { mask == Mask::ALL };
        places.find(|(_, mask)| is_any(*mask))
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
        let is_alone = |(name, place): (BlobName, Place)| {
            let want = self.wants.get(&name);
            want.is_some_and(|want| rarity(&swarms.view(conn, place.topic()), &name, want, &place) == 0)
        };
        if best.is_some_and(is_alone) { Preference::First } else { Preference::Last }
    }

    /// Spreads what is missing over the connections, first over those that are asked for least. `true`: some peer turned out
    /// to have nothing useful.
    pub(crate) fn assign<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) -> bool {
        self.note_interests(swarms);
        if self.store_rests || !mem::take(&mut self.is_due) {
            return false;
        }
        self.count_quiet(cx.now(), conns);
        self.fit_windows(conns, swarms);
        let mut is_any_useless = false;
        loop {
            let (epoch, is_scarce) = (self.wants.epoch(), self.are_seeds_scarce(swarms));
            let mut progress = false;
            for AskOrder { conn, .. } in self.ask_order(cx, conns, swarms, is_scarce) {
                match self.assign_to(cx, conns, swarms, conn, is_scarce) {
                    Asked::Yes => progress = true,
                    Asked::Useless => {
                        if let Some(candidate) = self.candidates.get_mut(conn) {
                            candidate.set_nothing_useful_at(epoch);
                            is_any_useless = true;
                        }
                    }
                    Asked::Full => {}
                }
            }
            if !progress {
                break;
            }
            cx.set_timer_sooner(Timer::Review, cx.now() + REVIEW_INTERVAL);
        }
        is_any_useless
    }

    /// Whether seeds are few. Where there is nobody else, there is nothing to leave to others.
    pub(super) fn are_seeds_scarce(&self, swarms: &Swarms) -> bool {
        let askable = || self.candidates.iter().filter(|(_, candidate)| candidate.is_askable());
        let seeds = askable().filter(|(id, _)| swarms.is_seed(*id)).count();
        seeds <= SCARCE_SEEDS_MAX && seeds < askable().count()
    }

    /// The connections that may be asked for more, in the order in which they are.
    fn ask_order<S: Suite>(
        &self,
        cx: &mut Cx,
        conns: &Conns<S>,
        swarms: &Swarms,
        is_scarce: bool,
    ) -> Vec<AskOrder> {
        let (now, epoch, salt) = (cx.now(), self.wants.epoch(), cx.rng().u64());
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

    /// Asks a connection for parts of one blob more, or for one blob more.
    fn assign_to<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        is_scarce: bool,
    ) -> Asked {
        let most = self.room(conns, conn, 0).min(PARTS_UNDER_WAY_MAX.saturating_sub(self.under_way()));
        if most == 0 && conns.speaks_v6(conn) {
            return Asked::Full;
        }
        let Some((name, place)) = self.pick_and_forget(conns, swarms, conn) else {
            return self.ask_for_asked(cx, conns, swarms, conn, is_scarce);
        };
        match (name, self.wants.get(&name).and_then(Want::id)) {
            (BlobName::Native(root), _) if conns.speaks_v6(conn) => {
                let mask = self.choose_parts(swarms, conn, (root, &place), most);
                if mask.is_empty() {
                    return Asked::Full;
                }
                self.ask_for_parts(cx, conns, conn, (root, &place), mask);
                Asked::Yes
            }
            (_, Some(id)) if self.may_ask_whole(conns, conn) => {
                self.ask_whole(cx, conns, conn, (name, id), &place);
                Asked::Yes
            }
            _ => Asked::Full,
        }
    }

    /// Asks a peer that has nothing else for what others were asked for and have not begun to bring.
    fn ask_for_asked<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
        is_scarce: bool,
    ) -> Asked {
        if let Some((root, place, mask)) = self.index_under_way(conns, swarms, conn) {
            self.ask_for_parts(cx, conns, conn, (root, &place), mask);
            return Asked::Yes;
        }
        if self.ask_for_last(cx, conns, swarms, conn) {
            return Asked::Yes;
        }
        if self.move_here(cx, conns, swarms, conn, is_scarce) { Asked::Full } else { Asked::Useless }
    }

    /// How many parts more a peer may be asked for, with some to spare.
    pub(super) fn room<S: Suite>(&self, conns: &Conns<S>, conn: ConnId, spare: usize) -> usize {
        let (Some(line), Some(requests)) = (self.lines.get(conn), conns.get(conn)) else { return 0 };
        if line.refused.len() >= REFUSED_MAX || !requests.may_want() {
            return 0;
        }
        (line.part_window(self.part_len) + spare).saturating_sub(requests.parts_outstanding())
    }

    /// Which of the missing parts of a blob a peer is asked for, up to `most`: in order where the content is played, else others
    /// than other nodes ask for first.
    fn choose_parts(
        &self,
        swarms: &Swarms,
        conn: ConnId,
        (root, place): (Root, &Place),
        most: usize,
    ) -> Mask {
        let want = self.wants.get(&BlobName::Native(root));
        let (Some(line), Some(want)) = (self.lines.get(conn), want) else { return Mask::NONE };
        let has = swarms.view(conn, place.topic()).parts(place.position());
        let mut parts: Vec<usize> = (want.transfer().unasked() & has).iter().collect();
        if let Some(from) = place.from() {
            // What a player has sought stands at the range's beginning, and then comes what follows it. A peer brings the parts of one
            // request in their order.
            let from = from as usize / self.part_len;
            if parts.iter().any(|part| *part >= from) {
                parts.retain(|part| *part >= from);
            }
        } else if !place.in_order() && place.urgency().deadline().is_none() {
            let salt = line.salt ^ self.wants.epoch();
            let view = swarms.view(conn, place.topic());
            parts.sort_by_key(|part| (view.availability(place.position(), *part), mix(*part as u64, salt)));
        }
        parts.iter().take(most).fold(Mask::NONE, |mask, part| mask | Mask::one(*part))
    }

    /// The queued blob of which a peer is best asked.
    pub(super) fn pick<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
    ) -> Option<(BlobName, Place)> {
        self.look(conns, swarms, conn).0
    }

    /// The queued blob of which a peer is best asked, and the swarms of which a v6 peer has none.
    pub(super) fn look<S: Suite>(
        &self,
        conns: &Conns<S>,
        swarms: &Swarms,
        conn: ConnId,
    ) -> (Option<(BlobName, Place)>, Vec<Topic>) {
        let Some(line) = self.lines.get(conn) else { return (None, Vec::new()) };
        let is_v6 = conns.speaks_v6(conn);
        let salt = line.salt ^ self.wants.epoch();
        // Most blobs that are looked at are of one swarm: what is known of it is looked up once.
        let mut of = None;
        let rank = |name: &BlobName, want: &Want, place: &Place| {
            let view = match of {
                Some((topic, view)) if topic == *place.topic() => view,
                _ => of.insert((*place.topic(), swarms.view(conn, place.topic()))).1,
            };
            let position = place.position();
            let has_some = match name {
                BlobName::Native(_) if is_v6 => {
                    !(view.parts(position) & want.transfer().unasked()).is_empty()
                }
                // A v5 peer is asked for the whole of it.
                BlobName::Native(_) => want.id().is_some() && want.transfer().is_idle(),
                BlobName::V5(_) => !is_v6 || view.has(position),
            };
            (has_some && !line.refused.contains(name)).then(|| {
                let availability = if place.in_order() { 0 } else { rarity(&view, name, want, place) };
                (availability, mix(position, salt))
            })
        };
        if is_v6 {
            self.wants.pick_of(line.interests.iter().copied(), rank)
        } else {
            (self.wants.pick(rank), Vec::new())
        }
    }
}

/// How many connected peers have the rarest part of a blob that is missing and that a peer has.
fn rarity(view: &View<'_>, name: &BlobName, want: &Want, place: &Place) -> u16 {
    let position = place.position();
    let parts = match name {
        BlobName::Native(_) => view.parts(position) & want.transfer().unasked(),
        BlobName::V5(_) => Mask::one(0),
    };
    parts.iter().map(|part| view.availability(position, part)).min().unwrap_or_default()
}

/// Spreads numbers: a random order among equals, which is another for each salt.
fn mix(value: u64, salt: u64) -> u64 {
    let x = (value ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (x >> 32)
}
