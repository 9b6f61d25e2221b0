//! The dispatcher's part for users' commands, and for publications.

use alloc::vec;

use super::Dispatcher;
use crate::identity::PublicKey;
use crate::ids::CommandId;
use crate::node::api::{Command, Draft, PublishError, Refusal};
use crate::node::commands::{After, Outcome};
use crate::node::publications::{self, Next, Publications};
use crate::suite::Suite;

impl<S: Suite> Dispatcher<S> {
    pub(super) fn on_command(&mut self, id: CommandId, command: Command) {
        let outcome = match self.commands.admit(id) {
            Err(refusal) => Err(refusal),
            Ok(()) if self.is_shut_down => Err(Refusal::Shutdown),
            Ok(()) => self.carry_out(id, command),
        };
        self.commands.begin(&mut self.cx, id, outcome);
    }

    fn carry_out(&mut self, id: CommandId, command: Command) -> Outcome {
        match command {
            Command::Follow { channel, read_key } => {
                let job = self.with_channels(|channels, env| channels.follow(env, channel, read_key))?;
                return Ok(After::Records(vec![job]));
            }
            Command::Unfollow(channel) => {
                let job = self.with_channels(|channels, env| channels.unfollow(env, channel));
                let (cx, dht) = (&mut self.cx, &mut self.dht);
                self.publications.give_up(cx, dht, channel, PublishError::Unfollowed);
                return Ok(After::Records(vec![job?]));
            }
            Command::Select { channel, selection } => {
                self.with_channels(|channels, env| channels.select(env, channel, selection))?;
            }
            Command::LookAgain(channel) => {
                self.with_channels(|channels, env| channels.look_up_anew(env, &channel))?;
            }
            Command::LookUp(channel) => {
                self.with_channels(|channels, env| channels.look_up_head(env, &channel))?;
            }
            Command::Join { topic, tree, selection } => {
                self.with_channels(|channels, env| channels.join(env, topic, tree, selection))?;
            }
            Command::Leave(topic) => self.with_channels(|channels, env| channels.leave(env, topic))?,
            Command::AddIdentity(identity) => self.publications.add_identity(identity)?,
            Command::RemoveIdentity(channel) => self.publications.remove_identity(&channel)?,
            Command::Publish { channel, draft } => return self.publish(id, channel, draft),
            Command::AddPeer(addr) => self.peers.configure(&self.cx, &addr)?,
            Command::Unban(addr) => {
                let jobs = self.peers.unban(&mut self.cx, &addr).ok_or(Refusal::NotBanned)?;
                return Ok(After::Records(jobs));
            }
            Command::Pause(channel) => {
                let job = self.with_channels(|channels, env| channels.pause(env, channel))?;
                let (cx, dht) = (&mut self.cx, &mut self.dht);
                self.publications.give_up(cx, dht, channel, PublishError::Paused);
                return Ok(After::Records(vec![job]));
            }
            Command::Resume(channel) => {
                let job = self.with_channels(|channels, env| channels.resume(env, channel))?;
                return Ok(After::Records(vec![job]));
            }
            Command::Configure(config) => self.configure(*config),
        }
        Ok(After::Now)
    }

    fn publish(&mut self, id: CommandId, channel: PublicKey, draft: Draft) -> Outcome {
        self.publications.admit(&channel)?;
        if self.channels.heads().is_paused(&channel) {
            return Err(PublishError::Paused.into());
        }
        let read_key = draft.read_key.clone();
        let topic = self.with_channels(|channels, env| channels.follow_own(env, channel, read_key))?;
        if draft.gateways.is_empty() {
            // It begins with a look-up of its own, which says what one of the upkeep would.
            self.channels.note_looked_up(&self.cx, channel);
        }
        self.with_publications(|publications, env| publications.begin(env, id, (channel, topic), draft));
        Ok(After::Publication)
    }

    /// Lets publications go on, and does what they ask for next.
    pub(super) fn with_publications<N: IntoIterator<Item = Next>>(
        &mut self,
        step: impl FnOnce(&mut Publications, &mut publications::Env<'_, S>) -> N,
    ) {
        let mut env = publications::Env::new(&mut self.cx, &mut self.conns, &mut self.peers, &mut self.dht);
        for next in step(&mut self.publications, &mut env) {
            match next {
                Next::Sign(channel) if !self.channels.heads().is_followed(&channel) => {
                    self.publications.fail_unfollowed(&mut self.cx, channel);
                }
                Next::Sign(channel) if self.channels.heads().is_paused(&channel) => {
                    self.publications.fail_paused(&mut self.cx, channel);
                }
                Next::Sign(channel) => {
                    let recorded = self.channels.heads().sequence(&channel);
                    let signed = self.publications.sign(&mut self.cx, channel, recorded);
                    if signed.is_some_and(|item| !self.channels.accept_own(&mut self.cx, item)) {
                        self.publications.fail_unusable(&mut self.cx, channel);
                    }
                }
                Next::NotePut(channel) => {
                    self.with_channels(|channels, env| channels.note_put(env, &channel));
                }
            }
        }
    }
}
