//! The gateways of a publication (`docs/protocol.md` §12). All of them are asked to look the channel up and to put the head.
//! The head is read back through another gateway than the first that took it. Only where no other can be expected to find it
//! is the first asked too, and the outcome says so.
//!
//! All are asked at once. Once one has answered a question, the others get as long again. A gateway that is late or cannot be
//! dialled is asked later questions too, but not waited for where another answers, or where the first that took the head is
//! left to read it back. So a dead gateway costs little time, and only once.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::api::Takers;
use super::super::conns::Conns;
use super::super::cx::Cx;
use super::super::timers::Timer;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::codec::Message;
use crate::identity::PublicKey;
use crate::ids::{ConnId, Topic};
use crate::limits::{GATEWAY_PATIENCE_MIN, GATEWAY_TIMEOUT, GATEWAYS_MAX};
use crate::suite::Suite;
use crate::time::Instant;
use crate::uri;

/// The question that all gateways are asked at one time.
pub(super) enum Question {
    /// Look the channel up on the DHT: what is its head, above the known sequence?
    LookUp { channel: PublicKey, topic: Topic, known: u64 },
    /// Put the head on the DHT.
    Put(SignedItem),
}

/// The state of one gateway with the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has not been asked yet: no connection is open.
    Waiting,
    Asked,
    /// It answered, cannot answer any more, or is spared the question.
    Done,
}

struct Gateway {
    addr: PeerAddr,
    phase: Phase,
    /// It was asked to put the head, and has not answered that.
    owes_put: bool,
    /// It took the head.
    took: bool,
    /// It speaks v5, so it can put a head, but not look one up.
    is_v5: bool,
    /// It could not be reached or was late with an answer, and has answered nothing since.
    is_late: bool,
}

impl Gateway {
    fn new(addr: &PeerAddr) -> Self {
        let (phase, owes_put, took, is_v5, is_late) = (Phase::Waiting, false, false, false, false);
        Self { addr: addr.clone(), phase, owes_put, took, is_v5, is_late }
    }
}

/// The gateways, and the current question.
pub(super) struct Gateways {
    /// The channel of the publication.
    channel: PublicKey,
    all: Vec<Gateway>,
    question: Option<Question>,
    /// When the question was asked, and when its time is over.
    began: Instant,
    ends: Instant,
    /// A gateway has answered it.
    is_answered: bool,
    /// The first gateway that took the head is not asked, as others read it back.
    spares_taker: bool,
    /// The longest time until the first answer to a question.
    pace: Duration,
    /// The text of the last refusal.
    refusal: Option<String>,
    first_taker: Option<PeerAddr>,
    /// A gateway other than the first that took the head has found it.
    is_read_by_another: bool,
}

impl Gateways {
    pub(super) fn new(channel: PublicKey, addrs: &[PeerAddr], now: Instant) -> Self {
        Self {
            channel,
            all: addrs.iter().take(GATEWAYS_MAX).map(Gateway::new).collect(),
            question: None,
            began: now,
            ends: now,
            is_answered: false,
            spares_taker: false,
            pace: Duration::ZERO,
            refusal: None,
            first_taker: None,
            is_read_by_another: false,
        }
    }

    pub(super) fn addrs(&self) -> Vec<PeerAddr> {
        self.all.iter().map(|gateway| gateway.addr.clone()).collect()
    }

    /// Begins a question. `misses`: it reads back a head that this many look-ups have not found.
    pub(super) fn begin(&mut self, cx: &mut Cx, question: Question, misses: Option<u32>) {
        self.spares_taker = misses.is_some_and(|misses| self.has_other_reader(misses));
        for at in 0..self.all.len() {
            let is_spared = self.spares_taker && self.is_first_taker(&self.all[at].addr);
            self.all[at].phase = if is_spared { Phase::Done } else { Phase::Waiting };
        }
        (self.question, self.began, self.is_answered) = (Some(question), cx.now(), false);
        self.wait(cx);
    }

    /// Whether another gateway than the first that took the head can be expected to read it back. A peer that did not take it
    /// may be no gateway, or may see another DHT, so it tries only once.
    fn has_other_reader(&self, misses: u32) -> bool {
        let may_read = |g: &&Gateway| !g.is_late && !g.is_v5 && (g.took || misses == 0);
        self.all.iter().filter(may_read).any(|g| !self.is_first_taker(&g.addr))
    }

    fn is_first_taker(&self, addr: &PeerAddr) -> bool {
        self.first_taker.as_ref() == Some(addr)
    }

    /// Asks the gateway on a connection, once it has sent its HELLO. `false`: it cannot answer this question.
    pub(super) fn ask<S: Suite>(&mut self, cx: &mut Cx, conns: &mut Conns<S>, conn: ConnId) -> bool {
        let Some(address) = conns.address(conn).filter(|_| conns.has_said_hello(conn)) else { return true };
        let Some(at) = self.all.iter().position(|g| g.addr == *address) else { return true };
        if self.all[at].phase != Phase::Waiting {
            return true;
        }
        let is_v6 = conns.speaks_v6(conn);
        let Some(line) = conns.get_mut(conn) else { return true };
        match (&self.question, line.tag_key()) {
            (Some(Question::Put(item)), _) => {
                if !line.ask_to_publish(item.clone()) {
                    return true;
                }
                self.all[at].owes_put = true;
            }
            (Some(Question::LookUp { channel, topic, known }), Some(key)) if is_v6 => {
                let (tag, known, look_up) = (uri::tag(key, topic), *known, Some(*channel));
                line.push(&Message::GetHead { tag, known, look_up });
            }
            _ => {
                (self.all[at].phase, self.all[at].is_v5) = (Phase::Done, true);
                return false;
            }
        }
        self.all[at].phase = Phase::Asked;
        self.wait(cx);
        true
    }

    /// Sets the question's time, which depends on the gateways that may still answer, while none has answered.
    fn wait(&mut self, cx: &mut Cx) {
        if !self.is_answered {
            self.ends = self.began + self.limit();
            cx.set_timer(Timer::Publish(self.channel), self.ends);
        }
    }

    /// Returns how long the question may take while no gateway has answered it. Where none of the rest can be reached, that is
    /// long enough to dial them once more; where the first that took the head can read it back itself, the others get twice
    /// the pace.
    fn limit(&self) -> Duration {
        let is_lost = |g: &Gateway| g.phase == Phase::Done || (g.is_late && g.phase == Phase::Waiting);
        if self.all.iter().all(is_lost) {
            GATEWAY_PATIENCE_MIN
        } else if self.spares_taker {
            (2 * self.pace).clamp(GATEWAY_PATIENCE_MIN, GATEWAY_TIMEOUT)
        } else {
            GATEWAY_TIMEOUT
        }
    }

    /// Notes a gateway's answer, which may be of use. `false`: it was not asked.
    pub(super) fn answered(&mut self, cx: &mut Cx, addr: &PeerAddr, is_use: bool, pauses: bool) -> bool {
        let asked = self.all.iter_mut().find(|g| g.addr == *addr && g.phase == Phase::Asked);
        let Some(gateway) = asked else { return false };
        (gateway.phase, gateway.is_late) = (Phase::Done, false);
        if pauses {
            return true;
        }
        if !is_use {
            self.wait(cx);
            return true;
        }
        if !self.is_answered {
            self.is_answered = true;
            let took = cx.now().since(self.began);
            self.pace = self.pace.max(took);
            self.ends = self.ends.min(cx.now() + took.max(GATEWAY_PATIENCE_MIN));
        }
        cx.set_timer(Timer::Publish(self.channel), self.ends);
        true
    }

    /// Notes an answer to our PUBLISH. `false`: it is not from a gateway that owes one.
    pub(super) fn put_answered(&mut self, addr: &PeerAddr, answer: &Result<(), String>) -> bool {
        let owes = |g: &&mut Gateway| g.addr == *addr && g.owes_put;
        let Some(gateway) = self.all.iter_mut().find(owes) else { return false };
        gateway.owes_put = false;
        match answer {
            Ok(()) => {
                gateway.took = true;
                self.first_taker.get_or_insert_with(|| addr.clone());
            }
            Err(why) => self.refusal = Some(why.clone()),
        }
        true
    }

    /// Notes that a gateway has found the head.
    pub(super) fn note_reader(&mut self, addr: &PeerAddr) {
        self.is_read_by_another |= !self.is_first_taker(addr);
    }

    /// Notes that a gateway is gone, which will not answer its question. One that was not asked yet is dialled again, but not
    /// waited for where another answers. `is_asking`: a question is open. `false`: nothing has changed.
    pub(super) fn on_gone(&mut self, cx: &mut Cx, peer: &PeerAddr, is_asking: bool) -> bool {
        let Some(gateway) = self.all.iter_mut().find(|g| g.addr == *peer) else { return false };
        gateway.owes_put = false;
        match gateway.phase {
            Phase::Asked => gateway.phase = Phase::Done,
            Phase::Waiting => gateway.is_late = true,
            Phase::Done => return false,
        }
        if is_asking {
            self.wait(cx);
        }
        true
    }

    /// Ends the question's time.
    pub(super) fn on_late(&mut self) {
        for gateway in self.all.iter_mut().filter(|g| g.phase != Phase::Done) {
            (gateway.phase, gateway.is_late) = (Phase::Done, true);
        }
    }

    /// Whether no gateway is waited for.
    pub(super) fn is_over(&self) -> bool {
        let has_other = self.is_answered || self.spares_taker;
        self.all.iter().all(|g| g.phase == Phase::Done || (g.is_late && has_other))
    }

    pub(super) fn are_all_late(&self) -> bool {
        self.all.iter().all(|gateway| gateway.is_late)
    }

    pub(super) fn count_takers(&self) -> u32 {
        u32::try_from(self.all.iter().filter(|gateway| gateway.took).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn takers(&self) -> Takers {
        Takers::Gateways { count: self.count_takers(), read_back_by_another: self.is_read_by_another }
    }

    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.clone()
    }
}
