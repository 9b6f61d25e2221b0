//! Naming our swarms to peers, and recognising theirs. To a v6 peer a node names swarms by tags only, padded with random ones:
//! a peer recognises the swarms it knows and learns nothing of others.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::Swarms;
use super::share::Share;
use crate::codec::{Message, Tag};
use crate::ids::{ConnId, Topic};
use crate::limits::{WATCH_BYTES_PER_SEC, WATCH_PADDING};
use crate::node::conns::Conns;
use crate::node::cx::Cx;
use crate::node::timers::Timer;
use crate::suite::Suite;
use crate::uri;

impl Swarms {
    /// Names our swarms to a peer; how many names these were.
    pub(crate) fn watch<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
    ) -> Option<usize> {
        let random: Vec<[u8; 32]> = (0..WATCH_PADDING).map(|_| cx.rng().bytes_32()).collect();
        let member = self.members.get_mut(conn).filter(|_| conns.speaks_v6(conn))?;
        let line = conns.get_mut(conn)?;
        let key = line.tag_key()?;
        let tags: BTreeMap<Tag, Topic> =
            self.by_topic.keys().map(|topic| (uri::tag(key, topic), *topic)).collect();
        // In order of value, the random ones cannot be told from the others.
        let padding = WATCH_PADDING - tags.len() % WATCH_PADDING;
        let random = random.iter().take(padding).map(|bytes| Tag(core::array::from_fn(|i| bytes[i])));
        let all: BTreeSet<Tag> = tags.keys().copied().chain(random).collect();
        member.tags = tags;
        let count = all.len();
        line.push(&Message::Watch(all.into_iter().collect()));
        Some(count)
    }

    /// Names our swarms, which have changed, to everybody. A node in many swarms does so the less often, the more there are.
    pub(crate) fn rewatch_all<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>) {
        if cx.now() < self.watch_next {
            return cx.set_timer_sooner(Timer::Watch, self.watch_next);
        }
        let told = conns.ids().into_iter().filter_map(|id| self.watch(cx, conns, id)).max();
        let bytes = (told.unwrap_or(0) * size_of::<Tag>()) as u64;
        self.watch_next = cx.now() + Duration::from_secs(bytes) / WATCH_BYTES_PER_SEC;
    }

    /// The swarms that a peer is part of, and no others any more: those that we are part of too.
    pub(crate) fn on_watch(&mut self, conn: ConnId, tags: &[Tag]) -> BTreeMap<Topic, Tag> {
        let Some(member) = self.members.get_mut(conn) else { return BTreeMap::new() };
        let common: BTreeMap<Topic, Tag> =
            tags.iter().filter_map(|tag| member.tags.get(tag).map(|topic| (*topic, *tag))).collect();
        let (kept, gone) =
            mem::take(&mut member.shares).into_iter().partition(|(topic, _)| common.contains_key(topic));
        member.shares = kept;
        self.forget_shares(&gone);
        common
    }

    /// The peer is part of a swarm that we are part of too.
    pub(crate) fn on_watched<S: Suite>(
        &mut self,
        cx: &mut Cx,
        conns: &mut Conns<S>,
        conn: ConnId,
        topic: Topic,
        tag: Tag,
    ) {
        let Some(member) = self.members.get_mut(conn) else { return };
        member.shares.entry(topic).or_insert_with(|| Box::new(Share::new(tag)));
        self.ask_have(conns, conn, topic);
        self.tell_peer(cx, conns, conn, topic);
    }
}
