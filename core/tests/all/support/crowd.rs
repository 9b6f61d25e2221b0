//! Idle peers of a node: they follow its channel, have all of it, and say nothing but that they are alive.

use std::time::Duration;

use megatorrent_core::codec::Message;
use megatorrent_core::limits::{KEEP_ALIVE, KEPT_CONNECTIONS};
use megatorrent_core::node::Command;
use megatorrent_core::uri;

use super::content::{Content, SEQUENCE};
use super::member;
use super::peer::Peer;
use super::{Bench, addr};

/// Time between two of them, so that not all have the same deadline.
const APART: Duration = Duration::from_millis(10);

pub(crate) struct Crowd {
    pub(crate) peers: Vec<Peer>,
}

impl Crowd {
    /// Connects `size` peers to a node that has all of the channel: those that it wants it dials, the others come to it. Some
    /// time later nothing waits between them.
    pub(crate) fn connect(bench: &mut Bench, content: &Content, size: usize) -> Self {
        Self::gather(bench, content, size, KEPT_CONNECTIONS)
    }

    /// The same where the node knows nobody: all come to it, and it goes on looking for peers.
    pub(crate) fn come(bench: &mut Bench, content: &Content, size: usize) -> Self {
        Self::gather(bench, content, size, 0)
    }

    fn gather(bench: &mut Bench, content: &Content, size: usize, dialled: usize) -> Self {
        let mut crowd = Self { peers: Vec::with_capacity(size) };
        for number in 0..size {
            let port = u16::try_from(number + 1).expect("few");
            let peer = if number < dialled {
                bench.command(Command::AddPeer(addr(port)));
                Peer::listen(bench, &addr(port))
            } else {
                Peer::dial(bench, addr(port))
            };
            crowd.join(bench, content, peer);
            bench.sleep(APART);
        }
        crowd.pass(bench, Duration::from_secs(5));
        assert_eq!(bench.status().inbound + bench.status().outbound, size);
        crowd
    }

    fn join(&mut self, bench: &mut Bench, content: &Content, mut peer: Peer) {
        let tag = peer.tag(&uri::topic(&content.channel, None));
        peer.say_hello(bench, 6);
        peer.send(bench, &Message::Watch(vec![tag]));
        peer.send(bench, &Message::Have(tag, SEQUENCE, member::all()));
        self.peers.push(peer);
    }

    /// Lets time pass, less than they may be silent: what the node says is heard, and each says that it is alive.
    pub(crate) fn pass(&mut self, bench: &mut Bench, time: Duration) {
        assert!(time <= KEEP_ALIVE);
        bench.sleep(time);
        for peer in &mut self.peers {
            peer.receive(bench);
            peer.send_keep_alive(bench);
        }
        bench.events.clear();
    }
}
