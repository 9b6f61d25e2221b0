//! The steps of a publication through gateways (`docs/policy.md`): all of them are asked to look the channel up
//! and to put the head; it is read back through another than the first that took it. Only where no other can be expected
//! to, the first is asked for it too, and the outcome says so.
//!
//! All are asked at once. Once one has answered a step, the others get as long again. Who lets that pass or cannot be
//! dialled is asked in later steps too, but not waited for where another answers, or where the first that took the head
//! is left to read it back. So a dead gateway costs little, and once.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::api::{PublishError, Takers};
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
    /// It speaks v5, so it can put a head, but not look one up.
    is_v5: bool,
    /// It could not be reached, or let the time for a step pass, and has answered nothing since.
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
    /// The longest that a step took until one answered.
    pace: Duration,
    /// What the last one that refused said.
    refusal: Option<String>,
    first_taker: Option<PeerAddr>,
    /// In the step under way the first that took the head is not asked, as others read it back.
    spares_taker: bool,
    /// Another than the first that took the head has found it.
    is_read_by_another: bool,
}

impl Via {
    pub(super) fn new(gateways: &[PeerAddr], now: Instant) -> Self {
        let new = |addr: &PeerAddr| Use {
            addr: addr.clone(),
            task: Task::Waiting,
            took: false,
            is_v5: false,
            is_late: false,
        };
        Self {
            uses: gateways.iter().take(GATEWAYS_MAX).map(new).collect(),
            began: now,
            ends: now,
            is_answered: false,
            pace: Duration::ZERO,
            refusal: None,
            first_taker: None,
            spares_taker: false,
            is_read_by_another: false,
        }
    }

    /// A gateway was of use: how long the others have.
    fn answered(&mut self, now: Instant) -> Instant {
        if !core::mem::replace(&mut self.is_answered, true) {
            let took = now.since(self.began);
            self.pace = self.pace.max(took);
            self.ends = self.ends.min(now + took.max(GATEWAY_PATIENCE_MIN));
        }
        self.ends
    }

    /// Whether nobody is waited for in this step.
    fn is_over(&self) -> bool {
        let has_other = self.is_answered || self.spares_taker;
        self.uses.iter().all(|gateway| gateway.task == Task::Done || (gateway.is_late && has_other))
    }

    /// How long the step may take while nobody has answered it. Where all who are left cannot be reached, it is long
    /// enough to dial them once more; where the first that took the head can read it back itself, the others get twice
    /// what a step took.
    fn limit(&self) -> Duration {
        let is_lost =
            |gateway: &Use| gateway.task == Task::Done || (gateway.is_late && gateway.task == Task::Waiting);
        if self.uses.iter().all(is_lost) {
            GATEWAY_PATIENCE_MIN
        } else if self.spares_taker {
            (2 * self.pace).clamp(GATEWAY_PATIENCE_MIN, GATEWAY_TIMEOUT)
        } else {
            GATEWAY_TIMEOUT
        }
    }

    fn count_takers(&self) -> u32 {
        u32::try_from(self.uses.iter().filter(|gateway| gateway.took).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn takers(&self) -> Takers {
        Takers::Gateways { count: self.count_takers(), read_back_by_another: self.is_read_by_another }
    }

    fn is_first_taker(&self, addr: &PeerAddr) -> bool {
        self.first_taker.as_ref() == Some(addr)
    }

    /// Whether another than the first that took the head can be expected to read it back. Who did not take it may
    /// be no gateway, or not see what it is to find, so it tries only once.
    fn has_other_reader(&self, misses: u32) -> bool {
        let may_read = |u: &&Use| !u.is_late && !u.is_v5 && (u.took || misses == 0);
        self.uses.iter().filter(may_read).any(|u| !self.is_first_taker(&u.addr))
    }
}

impl<S: Suite> Node<S> {
    pub(super) fn begin_step_via(&mut self) {
        let now = self.now;
        let Some(publication) = &mut self.publication else { return };
        let (step, misses, Some(via)) = (publication.step, publication.misses, &mut publication.via) else {
            return;
        };
        if step == Step::Store {
            return;
        }
        via.spares_taker = step == Step::ReadBack && via.has_other_reader(misses);
        let addrs: Vec<PeerAddr> = via.uses.iter().map(|u| u.addr.clone()).collect();
        for at in 0..via.uses.len() {
            let is_spared = via.spares_taker && via.is_first_taker(&via.uses[at].addr);
            via.uses[at].task = if is_spared { Task::Done } else { Task::Waiting };
        }
        (via.began, via.is_answered) = (now, false);
        self.wait_for_gateways();
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
                (gateway.task, gateway.is_v5) = (Task::Done, true);
                return self.end_step_via();
            }
        }
        gateway.task = Task::Asked;
        self.wait_for_gateways();
        self.wake_driver(conn);
    }

    /// While nobody has answered the step, its time depends on who may.
    fn wait_for_gateways(&mut self) {
        let Some(publication) = self.publication.as_mut().filter(|p| !p.pauses && p.step != Step::Store)
        else {
            return;
        };
        if let Some(via) = publication.via.as_mut().filter(|via| !via.is_answered) {
            via.ends = via.began + via.limit();
            self.timers.set(Timer::Publish, via.ends);
        }
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
            self.note_reader(conn, &item);
        }
        self.end_step_via();
    }

    fn note_reader(&mut self, conn: ConnId, item: &SignedItem) {
        let Some(entry) = self.conns.get(conn) else { return };
        let Some(publication) = self.publication.as_mut().filter(|p| p.item.as_ref() == Some(item)) else {
            return;
        };
        if let Some(via) = &mut publication.via {
            via.is_read_by_another |= !via.is_first_taker(entry.address());
        }
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
        } else {
            self.wait_for_gateways();
        }
        true
    }

    /// A gateway cannot be dialled, or the connection with it is gone: what it was asked is not answered. Who was not
    /// asked yet is tried again, but not waited for where another answers.
    pub(super) fn on_gateway_gone(&mut self, peer: &PeerAddr) {
        let via = self.publication.as_mut().and_then(|p| p.via.as_mut());
        let Some(gateway) = via.and_then(|via| via.uses.iter_mut().find(|u| u.addr == *peer)) else {
            return;
        };
        match gateway.task {
            Task::Asked => gateway.task = Task::Done,
            Task::Waiting => gateway.is_late = true,
            Task::Done => return,
        }
        self.wait_for_gateways();
        self.end_step_via();
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
            Step::Find if is_over && via.uses.iter().all(|gateway| gateway.is_late) => {
                self.fail_publication(PublishError::Gateways(None));
            }
            Step::Find if is_over => self.sign_head(),
            Step::Put if is_over => {
                if via.count_takers() > 0 {
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
