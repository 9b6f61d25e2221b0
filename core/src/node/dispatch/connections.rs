//! The dispatcher's part for connections and peers' messages.

use alloc::collections::BTreeMap;

use super::Dispatcher;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::codec::{Message, Tag, VERSION};
use crate::conn::Incoming;
use crate::error::{CloseReason, Violation};
use crate::identity::PublicKey;
use crate::ids::{BlobId, ConnId, Topic};
use crate::node::api::{Action, Event};
use crate::node::channels::GetHead;
use crate::suite::Suite;
use crate::transport::Role;

impl<S: Suite> Dispatcher<S> {
    // --- connections ----------------------------------------------------------------------------------------

    pub(super) fn open(&mut self, role: Role, peer: PeerAddr) -> ConnId {
        let now = self.cx.now();
        let conn = self.conns.open(&mut self.cx, role, peer);
        let salt = self.conns.salt();
        self.peers.opened(conn, now);
        self.channels.opened(conn, now);
        self.downloads.opened(conn, salt, now);
        self.uploads.opened(conn);
        self.gossip.opened(conn, now);
        conn
    }

    /// Closes a connection from our side.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.forget(conn, reason) {
            self.cx.act(Action::Close(conn, reason));
        }
    }

    /// Takes a connection out of all tables: its buffers go back, and its requests go to other peers.
    pub(super) fn forget(&mut self, id: ConnId, reason: CloseReason) -> bool {
        let Some(closed) = self.conns.remove(&mut self.cx, id) else { return false };
        let (known_as, was_keyed) = (closed.known_as().cloned(), closed.was_keyed());
        let (went_unanswered, told) = (closed.went_unanswered(), closed.reason(reason));
        let (line, peer) = closed.into_parts();
        self.throttles.closed(id);
        self.peers.closed(id);
        self.gossip.closed(id);
        self.channels.closed(id);
        let (receiving, sending) = line.into_buffers();
        let has_brought = self.downloads.closed(&mut self.conns, id, receiving);
        self.uploads.closed(id, sending);
        if let Some(address) = known_as
            && self.peers.connection(&address).is_none_or(|conn| conn == id)
        {
            if went_unanswered {
                self.peers.unreached(&address);
            }
            // A peer that served and closed may serve again at once: some answer one request on each connection.
            let served = has_brought && reason == CloseReason::Remote && !self.downloads.is_empty();
            self.peers.ended(&self.cx, &address, served);
            self.with_publications(|publications, env| publications.on_gone(env, &address));
        }
        if self.conns.count() == (0, 0) {
            self.downloads.trim();
            self.uploads.trim();
        }
        if was_keyed {
            self.cx.event(Event::Disconnected { conn: id, peer, reason: told });
        }
        true
    }

    /// Bans a peer's address for a proven lie or a flood, and ends the connection.
    pub(super) fn shut_out(&mut self, conn: ConnId, violation: Violation) {
        let Some(address) = self.conns.address(conn).cloned() else { return };
        self.ban(&address, violation);
        self.close(conn, CloseReason::Violation(violation));
    }

    pub(super) fn on_violation(&mut self, conn: ConnId, violation: Violation) {
        match violation {
            // Without a ban the peer would come back and go on at once.
            Violation::Flood => self.shut_out(conn, violation),
            _ => match violation.wire_text() {
                Some(why) => self.conns.drain(&mut self.cx, conn, violation, why),
                None => self.close(conn, CloseReason::Violation(violation)),
            },
        }
    }

    // --- messages -------------------------------------------------------------------------------------------

    pub(super) fn on_incoming(&mut self, conn: ConnId, incoming: Incoming) {
        let (cx, conns) = (&mut self.cx, &mut self.conns);
        match incoming {
            Incoming::Nothing => {}
            Incoming::Open => {
                for (conn, reason) in conns.on_open(cx, &mut self.peers, conn) {
                    self.close(conn, reason);
                }
            }
            Incoming::Request => self.uploads.on_wanted(cx.now(), conn),
            Incoming::Cancelled => self.uploads.on_cancelled(cx, conns, conn),
            Incoming::Blob(id, buffer) => {
                if let Some(peer) = conns.address(conn) {
                    self.peers.speaks(peer, !conns.speaks_v6(conn));
                }
                self.downloads.on_blob(cx, conns, conn, id, buffer);
            }
            Incoming::Values(root, values) => {
                if let Err(violation) = self.downloads.on_values::<S>(root, values) {
                    self.shut_out(conn, violation);
                }
            }
            Incoming::Piece(piece) => self.downloads.on_piece(cx, conns, conn, &piece),
            Incoming::Late(len) => self.downloads.on_late(len),
            Incoming::Refused(root, mask) => self.downloads.on_refused(conns, conn, root, mask),
            Incoming::NotFound(id) => self.downloads.on_not_found(conns, conn, id),
            Incoming::Message(message) => self.on_message(conn, message),
            Incoming::PublishAnswered(answer) => {
                self.with_publications(|publications, env| publications.on_put_answered(env, conn, &answer));
            }
        }
    }

    fn on_message(&mut self, conn: ConnId, message: Message) {
        match message {
            Message::Hello { version, sequences, port, features: _ } => {
                let excess =
                    port.and_then(|port| self.conns.on_listen_port(&self.cx, &mut self.peers, conn, port));
                if let Some((conn, reason)) = excess {
                    self.close(conn, reason);
                }
                self.on_hello(conn, version, &sequences);
            }
            Message::FindPeers(_) => {
                let Some(asker) = self.conns.address(conn).cloned() else { return };
                let peers = self.peers.exchanged(&mut self.cx, &asker);
                self.conns.push(conn, &Message::Peers(peers));
            }
            Message::Peers(peers) => self.peers.on_peers(&self.cx, &self.conns, conn, peers),
            Message::Announce(id, addr, hops) => {
                let swarms = self.channels.swarms();
                let is_ours = |id: &BlobId| swarms.contains(&Topic(id.0));
                let (cx, conns) = (&mut self.cx, &mut self.conns);
                let found = self.gossip.on_announce(cx, conns, conn, (id, addr, hops), is_ours);
                if let Some((addr, source, referrer)) = found {
                    self.peers.told(&self.cx, addr, source, &referrer);
                }
            }
            Message::Publish(item) => {
                let is_outdated = self.channels.heads().forbids(&item);
                let (cx, conns, dht) = (&mut self.cx, &mut self.conns, &mut self.dht);
                if let Some(refused) = self.gateway.on_publish(cx, conns, dht, conn, item, is_outdated) {
                    // It may be a fork of a followed channel, which the user is told of.
                    self.channels.offer(&mut self.cx, refused);
                }
            }
            Message::GetHead { tag, known, look_up } => self.on_get_head(conn, (tag, known, look_up)),
            Message::Head(tag, item) => self.on_head(conn, tag, item),
            Message::Watch(tags) => {
                let common = self.channels.on_watch(conn, &tags);
                if let Some(addr) = self.conns.dialled(conn).filter(|_| !common.is_empty()) {
                    self.peers.remember(&mut self.cx, addr);
                }
                for (topic, tag) in common {
                    self.with_channels(|channels, env| channels.on_watched(env, conn, topic, tag));
                }
            }
            Message::AskHave(tag, version) => {
                self.with_channels(|channels, env| channels.on_ask_have(env, conn, tag, version));
            }
            Message::Have(tag, version, have) => {
                self.with_channels(|channels, env| channels.on_have(env, conn, (tag, version), have));
            }
            // The connection handles these itself.
            Message::Want(_)
            | Message::Parts { .. }
            | Message::Piece { .. }
            | Message::Cancel { .. }
            | Message::Error(_)
            | Message::Request(_)
            | Message::Data(_)
            | Message::Ok(_)
            | Message::Unknown(_)
            | Message::Empty => {}
        }
    }

    fn on_hello(&mut self, conn: ConnId, version: Option<u64>, sequences: &BTreeMap<PublicKey, u64>) {
        let is_v6 = version.is_some_and(|v| v >= VERSION);
        if self.conns.peer(conn).is_none() {
            return;
        }
        if let Some(addr) = self.conns.dialled(conn) {
            self.peers.speaks(addr, !is_v6);
        }
        let is_first = self.conns.on_hello(&mut self.cx, conn, is_v6);
        // A listener only answers the first HELLO, as a plain fetcher may not expect another one. A dialler names its channels
        // once it knows that the peer is v5.
        if is_first && (!is_v6 || self.conns.dialled(conn).is_none()) {
            let named = if is_v6 { BTreeMap::new() } else { self.channels.heads().public_sequences() };
            let hello = self.conns.hello(named);
            self.conns.push(conn, &hello);
        }
        if is_first && is_v6 {
            self.with_channels(|channels, env| channels.watch(env, conn));
            let topics = self.channels.heads().topics();
            self.gossip.announce_to(&mut self.cx, &mut self.conns, conn, topics);
        }
        self.with_publications(|publications, env| publications.on_ready(env, conn));
        self.with_channels(|channels, env| channels.on_sequences(env, sequences));
    }

    fn on_get_head(&mut self, conn: ConnId, asked: (Tag, u64, Option<PublicKey>)) {
        let (is_gateway, (tag, known, _)) = (self.gateway.is_on(), asked);
        let answer = self.with_channels(|channels, env| channels.on_get_head(env, conn, asked, is_gateway));
        if let GetHead::LookUp(channel) = answer {
            let asked = (tag, channel, known);
            self.gateway.look_up(&mut self.cx, &mut self.conns, &mut self.dht, conn, asked);
        }
    }

    fn on_head(&mut self, conn: ConnId, tag: Tag, item: Option<SignedItem>) {
        let judged = match &item {
            Some(item) => self.with_channels(|channels, env| channels.on_head(env, conn, &tag, item)),
            None => Ok(false),
        };
        match judged {
            Err(violation) => self.shut_out(conn, violation),
            Ok(is_unseen) => {
                let said = (&tag, item.as_ref());
                self.with_publications(|publications, env| publications.on_head(env, conn, said));
                item.filter(|_| is_unseen)
                    .into_iter()
                    .for_each(|item| self.channels.offer(&mut self.cx, item));
            }
        }
    }
}
