//! Asking peers what they have, and telling them what we have.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::super::contents::{Coverage, Progress};
use super::availability::Availability;
use super::positions::{Positions, Stored};
use super::share::{Share, Tell, Theirs};
use super::{Member, State, Swarm, Swarms};
use crate::bucket::Bucket;
use crate::codec::{Have, Message, Tag};
use crate::ids::{ConnId, Topic};
use crate::limits::{
    HAVE_BYTES_MAX, HAVE_INTERVAL_MAX, HAVE_INTERVAL_MIN, HAVE_POSITION_BYTES, HAVE_UNDER_WAY_MAX,
};
use crate::node::conns::Conns;
use crate::node::cx::Cx;
use crate::node::timers::Timer;
use crate::parts::Mask;
use crate::suite::Suite;

impl Swarms {
    // --- what we have ---------------------------------------------------------------------------------------

    /// A swarm's newest version is another, or less of it is here than before: what was said of others no longer counts.
    pub(crate) fn begin_version<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        topic: Topic,
        version: u64,
        (stored, total, coverage): Progress,
    ) {
        for (_, member) in self.members.iter_mut() {
            if let Some(share) = member.shares.get_mut(&topic) {
                share.begin_version(version);
            }
        }
        if let Some(swarm) = self.by_topic.get_mut(&topic) {
            (swarm.state, swarm.stored) = (State::Partial { is_missing: false }, Stored::default());
        }
        self.count(topic, version, total);
        self.on_progress(topic, (stored, total, coverage));
        self.tell_stored(cx, conns, topic);
    }

    /// Counts again which peers have what.
    fn count(&mut self, topic: Topic, version: u64, total: u64) {
        let theirs = self.members.iter().filter_map(|(_, member)| member.shares.get(&topic)?.theirs());
        let availability = Availability::new(version, total, theirs);
        if let Some(swarm) = self.by_topic.get_mut(&topic) {
            swarm.availability = availability;
        }
    }

    /// More blobs of the newest version are stored, or known to exist. `true`: peers can be told of it.
    pub(crate) fn on_progress(&mut self, topic: Topic, (stored, total, coverage): Progress) -> bool {
        let Some(swarm) = self.by_topic.get_mut(&topic) else { return false };
        let before = swarm.stored.len();
        for position in stored {
            swarm.stored.add(position);
        }
        let has_more = swarm.stored.len() > before || coverage == Coverage::All;
        match coverage {
            // More was selected.
            Coverage::Part if swarm.state == State::Satisfied => {
                swarm.state = State::Partial { is_missing: false };
            }
            Coverage::Part => {}
            Coverage::Selected => swarm.state = State::Satisfied,
            // That all is here is said in fewer words.
            Coverage::All => (swarm.state, swarm.stored) = (State::All, Stored::default()),
        }
        let version = swarm.availability.version();
        if swarm.availability.total() != total {
            self.count(topic, version, total);
        }
        has_more
    }

    /// A part takes so long to come: peers are told at three times of it.
    pub(crate) fn set_part_time(&mut self, time: Duration) {
        self.have_interval = (time * 3).clamp(HAVE_INTERVAL_MIN, HAVE_INTERVAL_MAX);
    }

    /// Parts of a blob of the newest version are here. `true`: peers can be told of it.
    pub(crate) fn on_parts(&mut self, topic: &Topic, position: u64, mask: Mask) -> bool {
        self.by_topic.get_mut(topic).is_some_and(|swarm| swarm.stored.add_parts(position, mask))
    }

    /// A blob of the newest version is missing: for the first, peers are asked what they have.
    pub(crate) fn on_missing<S: Suite>(&mut self, conns: &mut Conns<S>, topic: Topic) {
        let Some(swarm) = self.by_topic.get_mut(&topic) else { return };
        if swarm.state != (State::Partial { is_missing: true }) {
            swarm.state = State::Partial { is_missing: true };
            for id in conns.ids() {
                self.ask_have(conns, id, topic);
            }
        }
    }

    /// We have lost blobs of a swarm's newest version: peers are asked again what they have, which tells them, and are
    /// told again what we have.
    pub(crate) fn take_back_all(&mut self, cx: &mut Cx, topic: Topic) {
        for (_, member) in self.members.iter_mut() {
            if let Some(share) = member.shares.get_mut(&topic) {
                share.take_back_all();
            }
        }
        self.tell_later(cx, topic);
    }

    // --- asking ---------------------------------------------------------------------------------------------

    /// Asks a peer what it has of a swarm of which blobs are missing, once for each version.
    pub(super) fn ask_have<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, topic: Topic) {
        if let Some(version) = self.by_topic.get(&topic).and_then(|swarm| swarm.missing()) {
            self.ask(conns, conn, topic, version);
        }
    }

    /// Asks every peer what it has of a swarm's newest version.
    pub(crate) fn ask_all<S: Suite>(&mut self, conns: &mut Conns<S>, topic: Topic) {
        let version = self.version(&topic);
        for id in conns.ids() {
            self.ask(conns, id, topic, version);
        }
    }

    fn ask<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId, topic: Topic, version: u64) {
        let (Some(member), Some(line)) = (self.members.get_mut(conn), conns.get_mut(conn)) else { return };
        let Some(share) = member.shares.get_mut(&topic).filter(|share| share.is_to_be_asked(version)) else {
            return;
        };
        if !line.has_control_room() {
            member.ask_due = true;
            return;
        }
        share.asked(version);
        line.push(&Message::AskHave(share.tag(), version));
    }

    /// There may be room for the questions that had none.
    pub(crate) fn ask_again<S: Suite>(&mut self, conns: &mut Conns<S>, conn: ConnId) {
        let Some(member) = self.members.get_mut(conn) else { return };
        if mem::take(&mut member.ask_due) {
            let topics: Vec<Topic> = member.shares.keys().copied().collect();
            for topic in topics {
                self.ask_have(conns, conn, topic);
            }
        }
    }

    /// A peer says what it has, of a version of which blobs are missing here: the swarm, and whether it took back what it had said
    /// before. `None`: it changes nothing.
    pub(crate) fn on_have<S: Suite>(
        &mut self,
        conns: &mut Conns<S>,
        conn: ConnId,
        tag: Tag,
        version: u64,
        have: Have,
    ) -> Option<(Topic, bool)> {
        let member = self.members.get_mut(conn)?;
        let topic = *member.tags.get(&tag)?;
        let swarm = self.by_topic.get_mut(&topic)?;
        let (room, under_way_max) = room_for(member, &topic);
        let share = member.shares.get_mut(&topic)?;
        // Of other versions than ours, and where nothing can be missing, only what takes no room is kept.
        let is_needed = swarm.may_miss(version, share.was_asked(version));
        if version < swarm.availability.version() || (!is_needed && !have.all && !have.replaces) {
            return None;
        }
        let earlier = share.take_theirs();
        if let Some(earlier) = earlier.as_ref().filter(|theirs| theirs.version() != version) {
            swarm.availability.remove(earlier);
        }
        let mut theirs = earlier.filter(|it| it.version() == version).unwrap_or_else(|| Theirs::new(version));
        if have.replaces {
            swarm.availability.remove(&theirs);
            theirs = Theirs::new(version);
            share.took_back();
        }
        let (mut count, replaces) = (u64::from(have.all), have.replaces);
        // Positions that the version does not have are never asked for; the bound holds for them too.
        let listed = have.positions.iter().map(|position| *position as usize);
        for position in Positions::from_bitmap(have.bitmap).iter().chain(listed) {
            if position / 8 < room
                && let Some(before) = theirs.add(position)
            {
                swarm.availability.change(position, before, Mask::ALL);
                count += 1;
            }
        }
        for (position, mask) in have.under_way {
            if let Some((before, after)) = theirs.add_parts(position, mask, under_way_max) {
                swarm.availability.change(position as usize, before, after);
                count += 1;
            }
        }
        if have.all {
            swarm.availability.remove(&theirs);
            theirs = Theirs::all(version);
        }
        share.set_theirs(theirs);
        if let Some(line) = conns.get_mut(conn) {
            line.was_news(count * HAVE_POSITION_BYTES);
        }
        if replaces {
            // It was not asked for what it is told of unasked.
            self.ask_have(conns, conn, topic);
        }
        (count > 0).then_some((topic, replaces))
    }

    // --- telling --------------------------------------------------------------------------------------------

    /// A peer asks what we have.
    pub(crate) fn on_ask_have<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        tag: Tag,
        version: u64,
    ) {
        let Some(member) = self.members.get_mut(conn) else { return };
        let Some(topic) = member.tags.get(&tag).copied() else { return };
        let Some(share) = member.shares.get_mut(&topic) else { return };
        if share.on_asked(version) {
            self.tell_peer(cx, conns, conn, topic);
        }
    }

    /// More of a swarm is stored: peers that asked are told, all at the same times; that all is here, at once.
    pub(crate) fn tell_stored<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, topic: Topic) {
        if self.by_topic.get(&topic).is_some_and(|swarm| swarm.state == State::All) {
            return self.tell_peers(cx, conns, topic);
        }
        self.have_due.insert(topic);
        self.tell_due(cx, conns);
    }

    /// Tells of the swarms of which there is more to tell, not more often than each interval.
    pub(crate) fn tell_due<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>) {
        let next = self.told_at + self.have_interval;
        if cx.now() < next {
            return cx.set_timer_sooner(Timer::Have, next);
        }
        self.told_at = cx.now();
        let due: BTreeSet<Topic> = mem::take(&mut self.have_due);
        for topic in due {
            self.tell_peers(cx, conns, topic);
        }
    }

    fn tell_peers<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, topic: Topic) {
        for id in conns.ids() {
            self.tell_peer(cx, conns, id, topic);
        }
    }

    /// Tells a peer what it does not know yet, not more often than each interval; that all is here, at once.
    pub(super) fn tell_peer<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        topic: Topic,
    ) {
        let Some(swarm) = self.by_topic.get(&topic).filter(|swarm| swarm.state != State::Nothing) else {
            return;
        };
        let (Some(member), Some(line)) = (self.members.get_mut(conn), conns.get_mut(conn)) else { return };
        let Some(share) = member.shares.get_mut(&topic) else { return };
        let version = swarm.availability.version();
        if share.knows_all(version) {
            return;
        }
        if !line.has_control_room() {
            return self.tell_later(cx, topic);
        }
        let have = match next_have(cx, swarm, share, &mut member.haves_out, self.have_interval) {
            Tell::Nothing => return,
            Tell::Later => return self.tell_later(cx, topic),
            Tell::Now(have) => have,
        };
        let has_more = share.is_behind(version, &swarm.stored);
        line.push(&Message::Have(share.tag(), version, have));
        if has_more {
            self.tell_later(cx, topic);
        }
    }

    fn tell_later(&mut self, cx: &mut Cx, topic: Topic) {
        self.have_due.insert(topic);
        cx.set_timer_sooner(Timer::Have, self.told_at + self.have_interval);
    }
}

/// What the peer's other swarms leave for one: memory for positions, and blobs under way.
fn room_for(member: &Member, topic: &Topic) -> (usize, usize) {
    let others =
        || member.shares.iter().filter(|(other, _)| *other != topic).map(|(_, share)| share.as_ref());
    let room = HAVE_BYTES_MAX.saturating_sub(others().map(Share::bytes).sum());
    (room, HAVE_UNDER_WAY_MAX.saturating_sub(others().map(Share::under_way).sum()))
}

/// What a peer is told next.
fn next_have(cx: &Cx, swarm: &Swarm, share: &mut Share, haves_out: &mut Bucket, interval: Duration) -> Tell {
    let (now, version) = (cx.now(), swarm.availability.version());
    if swarm.state == State::All {
        return Tell::Now(share.tell_all(version, now));
    }
    if !share.is_behind(version, &swarm.stored) {
        return Tell::Nothing;
    }
    if share.told_at().is_some_and(|at| at + interval > now) || !haves_out.take(now) {
        return Tell::Later;
    }
    share.tell_more(version, &swarm.stored, now)
}
