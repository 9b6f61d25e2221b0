//! The steps of a publication through gateways (`docs/protocol.md` §12): all of them are asked to look the channel up
//! and to put the head; it is read back through another than the first that took it, where there is another.

use alloc::string::String;
use alloc::vec::Vec;

use super::api::PublishError;
use super::peers::Source;
use super::publish::Step;
use super::{Node, Timer};
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::codec::{Message, Tag};
use crate::ids::ConnId;
use crate::limits::{GATEWAY_TIMEOUT, GATEWAYS_MAX};
use crate::suite::Suite;
use crate::uri;

/// What one gateway has to do in the step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// It is not asked yet: no connection is open.
    Waiting,
    Asked,
    Done,
}

struct Use {
    addr: PeerAddr,
    task: Task,
    /// It took the head.
    took: bool,
}

/// The gateways of a publication.
pub(super) struct Via {
    uses: Vec<Use>,
    /// What the last one that refused said.
    refusal: Option<String>,
    first_taker: Option<PeerAddr>,
}

impl Via {
    pub(super) fn new(gateways: &[PeerAddr]) -> Self {
        let uses = gateways.iter().take(GATEWAYS_MAX);
        let uses = uses.map(|addr| Use { addr: addr.clone(), task: Task::Waiting, took: false }).collect();
        Self { uses, refusal: None, first_taker: None }
    }

    /// Whether another gateway than the first that took the head can read it back.
    fn may_read_back(&self, addr: &PeerAddr) -> bool {
        self.uses.len() == 1 || self.first_taker.as_ref() != Some(addr)
    }
}

impl<S: Suite> Node<S> {
    pub(super) fn begin_step_via(&mut self) {
        let now = self.now;
        let Some(publication) = &mut self.publication else { return };
        let (step, Some(via)) = (publication.step, &mut publication.via) else { return };
        if step == Step::Store {
            return;
        }
        let addrs: Vec<PeerAddr> = via.uses.iter().map(|u| u.addr.clone()).collect();
        for at in 0..via.uses.len() {
            let skip = step == Step::ReadBack && !via.may_read_back(&via.uses[at].addr);
            via.uses[at].task = if skip { Task::Done } else { Task::Waiting };
        }
        self.timers.set(Timer::Publish, now + GATEWAY_TIMEOUT);
        for addr in &addrs {
            self.peers.add(addr.clone(), Source::Configured, now);
            if let Some(conn) = self.peers.connection(addr) {
                self.ask_gateway(conn);
            }
        }
    }

    /// Asks a gateway for its part in the step under way, once it has said HELLO.
    pub(super) fn ask_gateway(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn).filter(|e| e.speaks_hello) else { return };
        let Some(publication) = &mut self.publication else { return };
        let (channel, step, item) = (publication.channel, publication.step, publication.item.clone());
        let Some(via) = &mut publication.via else { return };
        let Some(gateway) = via.uses.iter_mut().find(|u| u.addr == *entry.address()) else { return };
        if gateway.task != Task::Waiting {
            return;
        }
        let topic = self.channels.get(&channel).map(|c| c.topic);
        match (step, topic, entry.conn.tag_key(), item) {
            (Step::Put, _, _, Some(item)) => {
                if !entry.conn.ask_to_publish(item) {
                    return;
                }
            }
            (Step::Find | Step::ReadBack, Some(topic), Some(key), item) if entry.gossip.is_on() => {
                let known = item.map_or(0, |item| item.seq.unsigned_abs().saturating_sub(1));
                let tag = uri::tag(key, &topic);
                entry.conn.push(&Message::GetHead { tag, known, look_up: Some(channel) });
            }
            // A v5 gateway can put, but not look up.
            _ => {
                gateway.task = Task::Done;
                return self.end_step_via();
            }
        }
        gateway.task = Task::Asked;
        self.wake_driver(conn);
    }

    /// A HEAD came in; perhaps a gateway's answer.
    pub(super) fn on_gateway_head(&mut self, conn: ConnId, _tag: Tag, item: Option<SignedItem>) {
        let Some(publication) = &self.publication else { return };
        let (channel, step) = (publication.channel, publication.step);
        if !matches!(step, Step::Find | Step::ReadBack) || self.done_by(conn).is_none() {
            return;
        }
        if let Some(item) = item.filter(|item| item.key == channel && item.verify()) {
            self.on_publish_item(&item);
        }
        self.end_step_via();
    }

    pub(super) fn on_publish_answered(&mut self, conn: ConnId, answer: Result<(), String>) {
        let Some(addr) = self.done_by(conn) else { return };
        let Some(via) = self.publication.as_mut().and_then(|p| p.via.as_mut()) else { return };
        if let Err(why) = answer {
            via.refusal = Some(why);
        } else {
            via.first_taker.get_or_insert(addr.clone());
            if let Some(gateway) = via.uses.iter_mut().find(|u| u.addr == addr) {
                gateway.took = true;
            }
        }
        self.end_step_via();
    }

    /// Marks the gateway at the other end as done, if it was asked.
    fn done_by(&mut self, conn: ConnId) -> Option<PeerAddr> {
        let peer = self.conns.get_mut(conn)?.address().clone();
        let via = self.publication.as_mut()?.via.as_mut()?;
        let gateway = via.uses.iter_mut().find(|u| u.addr == peer && u.task == Task::Asked)?;
        gateway.task = Task::Done;
        Some(peer)
    }

    /// The connection with a gateway is gone: what it was asked is not answered.
    pub(super) fn on_gateway_gone(&mut self, peer: &PeerAddr) {
        let via = self.publication.as_mut().and_then(|p| p.via.as_mut());
        let gateway = via.and_then(|v| v.uses.iter_mut().find(|u| u.addr == *peer && u.task == Task::Asked));
        if let Some(gateway) = gateway {
            gateway.task = Task::Done;
            self.end_step_via();
        }
    }

    pub(super) fn on_gateways_late(&mut self) {
        for gateway in self.publication.iter_mut().filter_map(|p| p.via.as_mut()).flat_map(|v| &mut v.uses) {
            gateway.task = Task::Done;
        }
        self.end_step_via();
    }

    /// Goes on once every gateway is done, or one has read the head back.
    fn end_step_via(&mut self) {
        let Some(publication) = self.publication.as_mut().filter(|p| !p.pauses) else { return };
        let (step, Some(via)) = (publication.step, &publication.via) else { return };
        let is_over = via.uses.iter().all(|u| u.task == Task::Done);
        match step {
            Step::Find if is_over => self.sign_head(),
            Step::Put if is_over => {
                let took = via.uses.iter().filter(|u| u.took).count();
                publication.replicas = u32::try_from(took).unwrap_or(u32::MAX);
                if took > 0 {
                    self.begin_step(Step::ReadBack);
                } else {
                    let refusal = via.refusal.clone();
                    self.fail_publication(PublishError::Gateways(refusal));
                }
            }
            Step::ReadBack if is_over || publication.is_read_back => self.end_read_back(),
            Step::Find | Step::Put | Step::ReadBack | Step::Store => {}
        }
    }
}
