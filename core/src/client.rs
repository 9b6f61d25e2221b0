//! A peer without a node: it says and hears messages over a [`Link`], and keeps no rule of its own about them. With it
//! tests, testers of live nodes and other programs stand opposite a node, honest or hostile.
//!
//! Bytes go in by [`Client::feed`] and come out as messages by [`Client::hear`]; messages go in by [`Client::send`] and
//! come out as bytes by [`Client::take_output`]:
//!
//! ```
//! use megatorrent_core::client::{Client, Heard};
//! use megatorrent_core::codec::Message;
//! use megatorrent_core::rng::Rng;
//! use megatorrent_core::transport::Role;
//!
//! let mut alice: Client = Client::new(Role::Dialler, &mut Rng::new([1; 32]));
//! let mut bob: Client = Client::new(Role::Listener, &mut Rng::new([2; 32]));
//! let hello = Message::Hello { version: Some(6), sequences: [].into(), port: None, features: 0 };
//! alice.send(&hello); // It waits for the end of the handshake.
//!
//! bob.feed(&alice.take_output());
//! assert_eq!(bob.hear()?, Some(Heard::Open));
//! alice.feed(&bob.take_output());
//! assert_eq!(alice.hear()?, Some(Heard::Open));
//! bob.feed(&alice.take_output());
//! assert_eq!(bob.hear()?, Some(Heard::Message(hello)));
//! assert_eq!(bob.hear()?, None);
//! # Ok::<(), megatorrent_core::error::Violation>(())
//! ```

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::codec::{Message, Tag};
use crate::error::Violation;
use crate::ids::{SessionId, Topic};
use crate::rng::Rng;
use crate::suite::{RealSuite, Suite};
use crate::transport::{Link, Received, Role};
use crate::uri;
use crate::wire::TAG_LEN;

/// What a [`Client`] hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The handshake is done.
    Open,
    /// A message.
    Message(Message),
    /// A message that a node would end the connection for: it does not parse, or not as this version's.
    Malformed(Violation),
}

/// One end of a connection that no node has.
pub struct Client<S: Suite = RealSuite> {
    link: Link<S>,
    /// Bytes that came, of which the first `read` were read.
    inbox: Vec<u8>,
    read: usize,
    /// Where a message longer than a control message goes; empty: none is admitted.
    large: Vec<u8>,
    /// Plaintexts that wait to be sealed.
    waiting: VecDeque<Vec<u8>>,
}

impl<S: Suite> Client<S> {
    /// One end of a stream on which nothing has moved yet. It admits control messages only.
    pub fn new(role: Role, rng: &mut Rng) -> Self {
        let link = Link::v5(role, rng);
        Self { link, inbox: Vec::new(), read: 0, large: Vec::new(), waiting: VecDeque::new() }
    }

    /// Admits messages with a whole blob too, from here on, whether or not one was asked for.
    pub fn admit_blobs(&mut self) {
        if self.large.is_empty() {
            self.large = vec![0; 1 + S::BLOB_LEN + TAG_LEN];
        }
    }

    /// Whether messages go in both directions.
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// What both ends call the connection; `None` unless it is open.
    pub fn session_id(&self) -> Option<SessionId> {
        self.link.session_id()
    }

    /// What a channel is called on this connection; `None` unless it is open.
    pub fn tag(&self, topic: &Topic) -> Option<Tag> {
        self.link.tag_key().map(|key| uri::tag(key, topic))
    }

    // --- in -------------------------------------------------------------------------------------------------

    /// Takes bytes that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
    }

    /// What the bytes amount to, one thing after the other; `None`: nothing more.
    ///
    /// # Errors
    /// What the other end broke; nothing more is heard or sent.
    pub fn hear(&mut self) -> Result<Option<Heard>, Violation> {
        loop {
            let space = self.link.recv_space(&mut self.large);
            let rest = &self.inbox[self.read..];
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            self.read += n;
            match self.link.received(n, &mut self.large)? {
                Received::Nothing if n > 0 => {}
                Received::Nothing => {
                    (self.inbox, self.read) = (Vec::new(), 0);
                    return Ok(None);
                }
                Received::Open => return Ok(Some(Heard::Open)),
                Received::Message(plaintext) => return Ok(Some(heard(&plaintext))),
                Received::Large(len) => return Ok(Some(heard(&self.large[..len]))),
            }
        }
    }

    // --- out ------------------------------------------------------------------------------------------------

    /// Says a message, a whole blob's DATA too. Before the end of the handshake it waits for it. After a REQUEST, messages
    /// with a whole blob are admitted.
    pub fn send(&mut self, message: &Message) {
        if matches!(message, Message::Request(_)) {
            self.admit_blobs();
        }
        self.send_plaintext(message.encode());
    }

    /// As [`Self::send`], of any bytes as a message's plaintext.
    pub fn send_plaintext(&mut self, plaintext: impl Into<Vec<u8>>) {
        self.waiting.push_back(plaintext.into());
    }

    /// Says nothing, so that the other end sees that we are alive.
    pub fn keep_alive(&mut self) {
        self.send(&Message::Empty);
    }

    /// Takes the bytes to write: what the handshake has to say, then, once it is done, all messages.
    pub fn take_output(&mut self) -> Vec<u8> {
        if self.link.is_open() {
            for plaintext in self.waiting.drain(..) {
                self.link.send(&[&plaintext]);
            }
        }
        let output = self.link.send_chunk().to_vec();
        self.link.sent(output.len());
        output
    }
}

fn heard(plaintext: &[u8]) -> Heard {
    Message::decode(plaintext).map_or_else(Heard::Malformed, Heard::Message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BLOB_LEN;
    use crate::ids::BlobId;

    fn open() -> (Client, Client) {
        let mut rng = Rng::new([1; 32]);
        let (mut a, mut b) = (Client::new(Role::Dialler, &mut rng), Client::new(Role::Listener, &mut rng));
        b.feed(&a.take_output());
        a.feed(&b.take_output());
        assert_eq!((a.hear(), b.hear()), (Ok(Some(Heard::Open)), Ok(Some(Heard::Open))));
        assert!(a.session_id() == b.session_id() && a.tag(&Topic([1; 32])) == b.tag(&Topic([1; 32])));
        (a, b)
    }

    fn hear_all(client: &mut Client) -> Result<Vec<Heard>, Violation> {
        core::iter::from_fn(|| client.hear().transpose()).collect()
    }

    #[test]
    fn a_client_says_what_a_node_never_would_and_hears_it() {
        let (mut a, mut b) = open();
        a.send_plaintext([0x99, 1, 2]);
        a.send_plaintext(*b"\x02../../identity.json");
        a.keep_alive();
        for byte in a.take_output() {
            b.feed(&[byte]);
        }
        let malformed = Heard::Malformed(Violation::Malformed);
        let others = [Message::Unknown(0x99), Message::Empty].map(Heard::Message);
        assert_eq!(hear_all(&mut b), Ok(vec![others[0].clone(), malformed, others[1].clone()]));
    }

    #[test]
    fn a_blob_is_heard_only_where_it_was_asked_for() {
        for admits in [true, false] {
            let (mut a, mut b) = open();
            let data = Message::Data(vec![7; BLOB_LEN]);
            a.send(&data);
            if admits {
                b.send(&Message::Request(BlobId([1; 32])));
            }
            b.feed(&a.take_output());
            let want = if admits { Ok(vec![Heard::Message(data)]) } else { Err(Violation::FrameLong) };
            assert!(hear_all(&mut b) == want);
            b.send(&Message::Empty);
            assert_eq!((b.hear(), b.is_open()), (Ok(None), admits));
            assert_eq!(b.take_output().is_empty(), !admits, "a dead link says nothing");
        }
    }
}
