//! How the places of transfers are shared between swarms. Peers that take requests and bring nothing hold the places of what they
//! were asked for, whole minutes where they vanished without a word: those of one swarm are not to keep another from
//! beginning.
//!
//! Where there is no room for a further transfer, a swarm that has far less than its share takes a place of one that has more
//! than its own. Swarms of which something comes have equal shares. A silent one keeps a part of that, so that what waits for
//! its turn at busy peers is not given up with what is lost, and what has begun is given up of silent ones only.

use alloc::collections::BTreeMap;
use core::mem;
use core::time::Duration;

use super::super::channels::swarms::Swarms;
use super::super::conns::Conns;
use super::super::cx::Cx;
use super::Downloads;
use super::asking::AskOrder;
use super::wants::Wants;
use crate::ids::{BlobName, Topic};
use crate::limits::{STALL_TIMEOUT, TRANSFERS_MAX};
use crate::suite::Suite;
use crate::time::Instant;

/// A swarm is silent where nothing has come of it for this long, and for three times what first bytes usually take.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// A silent swarm keeps one of this many places of an equal share, and at least one place.
const SILENT_SHARE: usize = 4;
/// A swarm that has at least half of its share takes a place only of one that has this many more.
const UNFAIR: usize = 3;

/// What one swarm has.
struct Held {
    places: usize,
    /// How long nothing has come.
    waited: Duration,
}

/// Who has which places.
struct Places {
    by_topic: BTreeMap<Topic, Held>,
    patience: Duration,
}

impl Places {
    fn of(wants: &Wants, now: Instant, patience: Duration) -> Self {
        let mut by_topic: BTreeMap<Topic, Held> = BTreeMap::new();
        for transfer in wants.transfers().values() {
            let nothing = Held { places: 0, waited: Duration::MAX };
            let held = by_topic.entry(*transfer.place().topic()).or_insert(nothing);
            held.places += 1;
            held.waited = held.waited.min(transfer.waited(now));
        }
        Self { by_topic, patience }
    }

    fn is_silent(&self, held: &Held) -> bool {
        held.waited >= self.patience
    }

    /// The swarm that gives a place up for one more transfer of `taker`.
    fn giver(&self, taker: &Topic) -> Option<Topic> {
        let holds = self.by_topic.get(taker);
        if holds.is_some_and(|held| self.is_silent(held)) {
            return None;
        }
        let own = holds.map_or(0, |held| held.places);
        let others = || self.by_topic.iter().filter(|(topic, _)| *topic != taker);
        let (swarms, silent) =
            (1 + others().count(), others().filter(|(_, held)| self.is_silent(held)).count());
        let of_silent = (TRANSFERS_MAX / swarms / SILENT_SHARE).max(1);
        let (rest, moving) = (TRANSFERS_MAX.saturating_sub(silent * of_silent), swarms - silent);
        let keeps = |held: &Held| match self.is_silent(held) {
            true if held.waited >= STALL_TIMEOUT => 0,
            // Who has none may have another's last one.
            true => of_silent - usize::from(own == 0),
            false => (rest / moving).max(1),
        };
        let above = others().filter_map(|(topic, held)| {
            let above = held.places.checked_sub(keeps(held)).filter(|above| *above > 0)?;
            Some((self.is_silent(held), above, held.places, *topic))
        });
        let (_, _, places, giver) = above.max()?;
        let share = rest.div_ceil(moving).max(1);
        (own * 2 < share || (own < share && places >= own + UNFAIR)).then_some(giver)
    }
}

impl Downloads {
    /// Begins transfers of swarms that have too few places, in places of others.
    pub(super) fn claim_places<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) {
        if mem::take(&mut self.are_claims_due) {
            while !self.has_room_for_transfer() && self.claim_place(cx, conns, swarms).is_some() {}
        }
    }

    fn claim_place<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, swarms: &Swarms) -> Option<()> {
        let (now, patience) = (cx.now(), SILENT_AFTER + self.usual_wait * 3);
        let places = Places::of(&self.wants, now, patience);
        let may_take = |topic: &Topic| places.giver(topic).is_some();
        if !self.lines.iter().any(|(_, line)| line.interests.iter().any(may_take)) {
            return None;
        }
        let order = self.ask_order(cx, conns, swarms);
        let (conn, (blob, place)) = order.iter().map(AskOrder::conn).find_map(|conn| {
            let found = self.pick_and_forget(conns, swarms, conn, may_take)?;
            Some((conn, found))
        })?;
        let giver = places.giver(place.topic())?;
        let is_silent = places.by_topic.get(&giver).is_some_and(|held| places.is_silent(held));
        let given_up = self.wants.youngest(&giver, now, is_silent)?;
        self.give_place_up(conns, &given_up, is_silent.then_some(now + patience));
        let buffer = self.pool.take()?;
        self.begin(cx, conns, conn, (blob, place), buffer);
        Some(())
    }

    /// Gives a transfer up. What it was asked of is asked for nothing until `back_off`, unless something comes of it.
    fn give_place_up<S: Suite>(&mut self, conns: &mut Conns<S>, blob: &BlobName, back_off: Option<Instant>) {
        for request in self.wants.requests(blob) {
            self.cut(conns, &request, 0);
            if let (Some(until), Some(candidate)) = (back_off, self.candidates.get_mut(request.conn())) {
                candidate.back_off_until(until);
            }
        }
        if let Some(buffer) = self.wants.give_up(blob) {
            self.pool.give_back(buffer);
        }
    }
}
