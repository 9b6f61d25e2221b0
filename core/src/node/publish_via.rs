//! The steps of a publication through gateways (`docs/protocol.md` §12): all of them are asked to look the channel up
//! and to put the head; it is read back through another than the first that took it, where there is another.
//!
//! All are asked at once. Once one has answered a step, the others get as long again. Who lets that pass or cannot be
//! dialled is asked in later steps too, but not waited for where another answers. So a dead gateway costs little, and once.

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
use crate::limits::{GATEWAY_PATIENCE_MIN, GATEWAY_TIMEOUT, GATEWAYS_MAX};
use crate::suite::Suite;
use crate::time::Instant;
use crate::uri;

/// What one gateway has to do in the step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// It is not asked yet: no connection is open.
    Waiting,
    Asked,
    /// It answered, or cannot answer any more.
    Done,
}

struct Use {
    addr: PeerAddr,
    task: Task,
    /// It took the head.
    took: bool,
    /// It could not be dialled, or let the time for a step pass, and has answered nothing since.
    is_late: bool,
}

/// The gateways of a publication.
pub(super) struct Via {
    uses: Vec<Use>,
    /// When the step under way began, and when its time is over.
    began: Instant,
    ends: Instant,
    /// Some gateway has answered it.
    is_answered: bool,
    /// What the last one that refused said.
    refusal: Option<String>,
    first_taker: Option<PeerAddr>,
}

impl Via {
    pub(super) fn new(gateways: &[PeerAddr], now: Instant) -> Self {
        let new =
            |addr: &PeerAddr| Use { addr: addr.clone(), task: Task::Waiting, took: false, is_late: false };
        let uses = gateways.iter().take(GATEWAYS_MAX).map(new).collect();
        Self { uses, began: now, ends: now, is_answered: false, refusal: None, first_taker: None }
    }

    /// A gateway was of use: how long the others have.
    fn answered(&mut self, now: Instant) -> Instant {
        if !core::mem::replace(&mut self.is_answered, true) {
            self.ends = self.ends.min(now + now.since(self.began).max(GATEWAY_PATIENCE_MIN));
        }
        self.ends
    }

    /// Whether nobody is waited for in this step.
    fn is_over(&self) -> bool {
        self.uses.iter().all(|gateway| gateway.task == Task::Done || (gateway.is_late && self.is_answered))
    }

    /// Gateways that took the head.
    fn takers(&self) -> u32 {
        u32::try_from(self.uses.iter().filter(|gateway| gateway.took).count()).unwrap_or(u32::MAX)
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
        (via.began, via.ends, via.is_answered) = (now, now + GATEWAY_TIMEOUT, false);
        self.timers.set(Timer::Publish, via.ends);
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
        if !matches!(step, Step::Find | Step::ReadBack) || !self.is_done_by(conn, true) {
            return;
        }
        if let Some(item) = item.filter(|item| item.key == channel && item.verify()) {
            self.on_publish_item(&item);
        }
        self.end_step_via();
    }

    pub(super) fn on_publish_answered(&mut self, conn: ConnId, answer: Result<(), String>) {
        let Some(addr) = self.conns.get(conn).map(|entry| entry.address().clone()) else { return };
        let Some(publication) = &mut self.publication else { return };
        let Some(via) = &mut publication.via else { return };
        let Some(gateway) = via.uses.iter_mut().find(|u| u.addr == addr) else { return };
        let took = answer.is_ok();
        if let Err(why) = answer {
            via.refusal = Some(why);
        } else {
            gateway.took = true;
            via.first_taker.get_or_insert(addr);
        }
        // Who takes it when the step is over is counted with the others.
        publication.replicas = via.takers();
        if publication.step == Step::Put && self.is_done_by(conn, took) {
            self.end_step_via();
        }
    }

    /// Takes note that the gateway at the other end has answered, and perhaps was of use. `false`: it was not asked.
    fn is_done_by(&mut self, conn: ConnId, is_use: bool) -> bool {
        let now = self.now;
        let Some(peer) = self.conns.get(conn).map(|entry| entry.address().clone()) else { return false };
        let Some(publication) = &mut self.publication else { return false };
        let Some(via) = &mut publication.via else { return false };
        let asked = via.uses.iter_mut().find(|u| u.addr == peer && u.task == Task::Asked);
        let Some(gateway) = asked else { return false };
        (gateway.task, gateway.is_late) = (Task::Done, false);
        if is_use && !publication.pauses {
            self.timers.set(Timer::Publish, via.answered(now));
        }
        true
    }

    /// A gateway cannot be dialled; it is tried again, but not waited for where another answers.
    pub(super) fn on_gateway_unreachable(&mut self, peer: &PeerAddr) {
        let via = self.publication.as_mut().and_then(|p| p.via.as_mut());
        if let Some(gateway) = via.and_then(|via| via.uses.iter_mut().find(|u| u.addr == *peer)) {
            gateway.is_late = true;
            self.end_step_via();
        }
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
        let uses = self.publication.iter_mut().filter_map(|p| p.via.as_mut()).flat_map(|v| &mut v.uses);
        for gateway in uses.filter(|gateway| gateway.task != Task::Done) {
            (gateway.task, gateway.is_late) = (Task::Done, true);
        }
        self.end_step_via();
    }

    /// Goes on once every gateway is done, or one has read the head back.
    fn end_step_via(&mut self) {
        let Some(publication) = self.publication.as_mut().filter(|p| !p.pauses) else { return };
        let (step, Some(via)) = (publication.step, &publication.via) else { return };
        let is_over = via.is_over();
        match step {
            Step::Find if is_over => self.sign_head(),
            Step::Put if is_over => {
                publication.replicas = via.takers();
                if publication.replicas > 0 {
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
