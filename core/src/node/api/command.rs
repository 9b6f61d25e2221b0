//! What a user tells a node, and what the node answers.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::super::channels::contents::{Selection, SelectionError};
use super::{Config, DhtError};
use crate::addr::PeerAddr;
use crate::identity::{Identity, PublicKey};
use crate::ids::{Secret, Topic};
use crate::tree::TreeRef;

/// A user's command. Each gets exactly one answer ([`super::Action::Answer`]): [`Answer::Done`] where nothing else is said, or a
/// [`Refusal`].
#[derive(Debug)]
pub enum Command {
    /// Follow a channel: look its head up, fetch everything that it names, seed it, and stay up to date. A later command may
    /// add a read key that the first had not. Answered once the channel's record is durable; where it could not be made so, the
    /// channel is followed until the process ends.
    Follow {
        /// The channel.
        channel: PublicKey,
        /// The read key of a private channel.
        read_key: Option<Secret>,
    },
    /// Stop following a channel: delete its record, drop its wants, and stop serving it. Stored blobs stay. A publication in it of
    /// which nothing was put yet fails. Answered once the record is deleted.
    Unfollow(PublicKey),
    /// Fetch these parts of a channel, in this order, in its newest version and later ones; may come before
    /// [`Command::Follow`]. A refused selection changes nothing. Answered at once.
    Select {
        /// The channel.
        channel: PublicKey,
        /// The parts to fetch.
        selection: Selection,
    },
    /// Look up in the store again all that is selected of a channel, as it may have lost some: what is missing is fetched, and told
    /// of again. No effect before the channel's files are known. Answered at once.
    LookAgain(PublicKey),
    /// Ask the DHT for a newer head of a channel at once rather than when it is due; while it is paused, or was asked a moment ago,
    /// no sooner than that allows. Answered at once.
    LookUp(PublicKey),
    /// Join a swarm without a head, which is about one tree: fetch the tree, and serve it. A later command changes the
    /// selection. Answered at once.
    Join {
        /// The topic under which its peers meet.
        topic: Topic,
        /// The tree that it shares.
        tree: TreeRef,
        /// The parts to fetch; the tree's path is empty.
        selection: Selection,
    },
    /// Leave a swarm without a head. Answered at once.
    Leave(Topic),
    /// Take an identity to publish with, in place of one with the same public key. Answered at once. The node keeps it in memory
    /// alone, and wipes it when it is removed or the node ends.
    AddIdentity(Box<Identity>),
    /// Forget an identity. A publication that has to sign once more fails. Answered at once.
    RemoveIdentity(PublicKey),
    /// Sign and publish a new head, and follow the channel. Publications in different channels run side by side. Answered with
    /// [`Answer::Published`].
    Publish {
        /// The channel, of which the node has the identity.
        channel: PublicKey,
        /// The content.
        draft: Draft,
    },
    /// A peer to try, from configuration or a URI. Answered at once.
    AddPeer(PeerAddr),
    /// Lift the ban of an address; where its host is banned with all its ports, all of the host's. Answered once the records are
    /// deleted.
    Unban(PeerAddr),
    /// Neither ask for anything of a channel nor serve, look up or announce it. Its record stays, and says so in later runs too; its
    /// blobs stay, and are given to no v6 peer with which no other channel is shared. v5 has no channels, so a v5 peer that names
    /// a blob gets it. A publication in it of which nothing was put yet fails. Answered once the record is durable.
    Pause(PublicKey),
    /// Go on with a paused channel. Answered once the record is durable.
    Resume(PublicKey),
    /// Change the settings, with effect on what stands. Answered at once.
    Configure(Box<Config>),
}

/// The content of a new head; its blobs are stored already.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The content.
    pub content: crate::manifest::HeadContent,
    /// Seal it under this key (a private channel).
    pub read_key: Option<Secret>,
    /// Nodes that put it on the DHT for this one, at most [`crate::limits::GATEWAYS_MAX`]; empty: the node puts it itself.
    pub gateways: Vec<PeerAddr>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It is done.
    Done,
    /// The draft is signed, durable and on the DHT, and was read back.
    Published {
        /// The new head's sequence.
        sequence: u64,
        /// The DHT nodes or gateways that took it.
        takers: Takers,
        /// Whether it is inline (a v5 reader can use it) rather than a pointer to a body.
        inline: bool,
    },
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// As many channels are followed and swarms joined as can be ([`crate::limits::CHANNELS_MAX`]).
    TooManyChannels,
    /// The read key does not open the channel's newest head, which another one opens.
    WrongKey,
    /// The store did not take the record, or did not delete it.
    NotDurable,
    /// The channel is not followed, or the swarm not joined.
    NotFollowed,
    /// The selection cannot be.
    Selection(SelectionError),
    /// The draft is not on the DHT.
    Publish(PublishError),
    /// As many identities are known as can be ([`crate::limits::IDENTITIES_MAX`]).
    TooManyIdentities,
    /// No such identity is known.
    NoIdentity,
    /// The peer is banned.
    Banned,
    /// The address is not banned.
    NotBanned,
    /// The address is the node's own.
    Ourselves,
    /// As many peers are known as can be, and each has a better claim.
    TooManyPeers,
    /// A command with the same number has no answer yet.
    NumberInUse,
    /// As many commands have no answer yet as may be ([`crate::limits::COMMANDS_MAX`]).
    TooManyCommands,
    /// The node is shutting down.
    Shutdown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyChannels => "the node follows as many channels as it can",
            Self::WrongKey => "the read key does not open the channel, and another one does",
            Self::NotDurable => "the node's state could not be stored",
            Self::NotFollowed => "the node does not follow it",
            Self::Selection(error) => return error.fmt(f),
            Self::Publish(error) => return error.fmt(f),
            Self::TooManyIdentities => "the node has as many identities as it can",
            Self::NoIdentity => "the node has no such identity",
            Self::Banned => "the peer is banned",
            Self::NotBanned => "the address is not banned",
            Self::Ourselves => "the address is the node's own",
            Self::TooManyPeers => "the node knows as many peers as it can",
            Self::NumberInUse => "a command with this number is under way",
            Self::TooManyCommands => "too many commands are under way",
            Self::Shutdown => "the node is shutting down",
        })
    }
}

impl core::error::Error for Refusal {}

impl From<SelectionError> for Refusal {
    fn from(error: SelectionError) -> Self {
        Self::Selection(error)
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

/// The nodes that took a published head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takers {
    /// This many remote DHT nodes hold it.
    DhtNodes(u32),
    /// Gateways, each of which says that other DHT nodes hold it.
    Gateways {
        /// The number of gateways.
        count: u32,
        /// Whether a gateway other than the first that took it has found it on the DHT. Otherwise only the first one
        /// says that it is there.
        read_back_by_another: bool,
    },
}

/// Why a draft could not be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The node has no identity for the channel.
    NoIdentity,
    /// Another publication in the channel is in progress.
    Busy,
    /// As many publications are in progress as may be ([`crate::limits::PUBLICATIONS_MAX`]).
    TooMany,
    /// The head does not fit a BEP 44 value.
    TooLarge,
    /// The next sequence is above [`crate::limits::SEQUENCE_SIGNED_MAX`].
    SequenceTooHigh,
    /// The new sequence could not be made durable, so nothing was put.
    NotDurable,
    /// The channel was unfollowed before anything was put.
    Unfollowed,
    /// The channel is paused.
    Paused,
    /// The node shut down before the head was read back: it may be on the DHT.
    Shutdown,
    /// The DHT did not take it.
    Dht(DhtError),
    /// No remote node holds it.
    NoReplica,
    /// It was put, but reading it back found nothing or an older head.
    NotReadBack,
    /// No gateway put it; the text is the last answer.
    Gateways(Option<String>),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIdentity => f.write_str("there is no identity to sign with"),
            Self::Busy => f.write_str("another publication in the channel is in progress"),
            Self::TooMany => f.write_str("too many publications are in progress"),
            Self::TooLarge => f.write_str("the head does not fit the 996 bytes of a DHT item"),
            Self::SequenceTooHigh => f.write_str(
                "its next sequence is above 2^53, which not every program reads: begin another channel",
            ),
            Self::NotDurable => f.write_str("the new sequence could not be stored, so nothing was published"),
            Self::Unfollowed => f.write_str("the channel was unfollowed meanwhile"),
            Self::Paused => f.write_str("the channel is paused"),
            Self::Shutdown => f.write_str("the node shut down before it was read back"),
            Self::Dht(error) => write!(f, "{error}"),
            Self::NoReplica => f.write_str("no other DHT node stored the head"),
            Self::NotReadBack => f.write_str("the head could not be read back from the DHT"),
            Self::Gateways(None) => f.write_str("no gateway answered"),
            Self::Gateways(Some(why)) => write!(f, "no gateway took it; the last one said: {why}"),
        }
    }
}
