//! Pausing a channel: its head stays, and its swarm and its content are dropped until it goes on.

use super::super::api::Refusal;
use super::super::conns::Conns;
use super::super::dht::Purpose;
use super::super::timers::Timer;
use super::{Channels, Env};
use crate::identity::PublicKey;
use crate::ids::{ConnId, JobId};
use crate::suite::Suite;

impl Channels {
    /// Pauses a channel; the job that stores that.
    pub(crate) fn pause<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
    ) -> Result<JobId, Refusal> {
        self.stop(env, channel);
        self.heads.remember(env.cx, channel).ok_or(Refusal::NotFollowed)
    }

    /// Stops all that goes on in a channel, and keeps its head.
    pub(super) fn stop<S: Suite>(&mut self, env: &mut Env<'_, S>, channel: PublicKey) {
        let Some(topic) = self.heads.topic(&channel).filter(|_| self.heads.pause(channel)) else { return };
        env.cx.cancel_timer(Timer::Channel(channel));
        for purpose in [Purpose::Poll(channel), Purpose::Reput(channel)] {
            env.dht.forget(|of| *of == purpose);
            env.dht.abandon(purpose);
        }
        self.drop_swarm(env, &topic);
        self.swarms.rewatch_all(env.cx, env.conns);
    }

    /// Goes on with a paused channel; the job that stores that.
    pub(crate) fn resume<S: Suite>(
        &mut self,
        env: &mut Env<'_, S>,
        channel: PublicKey,
    ) -> Result<JobId, Refusal> {
        let topic = self.heads.topic(&channel).ok_or(Refusal::NotFollowed)?;
        if self.heads.resume(env.cx, channel) {
            self.swarms.join(env.cx, env.conns, topic, Some(channel));
            if let Some(adopted) = self.heads.adopt_again(env.cx, channel) {
                self.adopt(env, adopted);
            }
            self.note_awaited(env, channel);
            env.cx.set_timer_sooner(Timer::Channel(channel), env.cx.now());
            env.cx.set_timer_sooner(Timer::Swarm(topic), env.cx.now());
        }
        self.heads.remember(env.cx, channel).ok_or(Refusal::NotFollowed)
    }

    /// Whether a peer may be given what is stored: while a channel is paused, it must share another one, as far as it can say so.
    pub(crate) fn may_serve<S: Suite>(&self, conns: &Conns<S>, conn: ConnId) -> bool {
        self.heads.count_paused() == 0 || !conns.speaks_v6(conn) || self.swarms.shared(conn).next().is_some()
    }
}
