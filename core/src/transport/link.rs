//! One end of a stream: a handshake, then messages in both directions.
//!
//! A message is a type byte and a payload, or nothing at all. Only the link knows how it lies in the stream, which end
//! speaks first, and which keys seal it. The link knows neither what a message means nor what time it is.
//!
//! - **In**: read bytes into [`Link::recv_space`], then call [`Link::received`].
//! - **Out**: give messages while [`Link::is_idle`], write [`Link::send_chunk`], then call [`Link::sent`]. A message is
//!   sealed when it is given, so a caller that waits until bytes are asked for can drop it until then.
//!
//! A violation leaves a dead link, which takes and gives nothing more.

use alloc::vec::Vec;
use core::mem;

use super::frame::{self, Frame, FrameReader};
use super::{Ciphers, Open, Role, Session};
use crate::buffer::Buffer;
use crate::error::Violation;
use crate::ids::{Secret, SessionId};
use crate::rng::Rng;
use crate::wire::KEY_LEN;

/// One thing that the peer's bytes amounted to.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Nothing complete.
    Nothing,
    /// The handshake is done: messages go in both directions.
    Open,
    /// A message's plaintext.
    Message(Vec<u8>),
    /// A message longer than a control message: this many bytes at the front of the large region are its plaintext.
    Large(usize),
}

/// One end of a stream: `docs/protocol.md` §8 and §9.
pub struct Link<C: Ciphers> {
    role: Role,
    state: State<C>,
    out: Out,
}

enum State<C: Ciphers> {
    /// The first `have` bytes of the peer's key are there.
    Handshake {
        ours: C::Handshake,
        theirs: [u8; KEY_LEN],
        have: usize,
    },
    Open {
        session: Session<C::Sealer, C::Opener>,
        reader: FrameReader,
    },
    /// A rule was broken.
    Dead,
}

/// The bytes in flight, and how many of them are sent.
enum Out {
    Nothing,
    Bytes(Vec<u8>, usize),
    Blob(Buffer, usize),
}

impl<C: Ciphers> Link<C> {
    /// A link over protocol v5's transport: both ends send a key at once.
    pub fn v5(role: Role, rng: &mut Rng) -> Self {
        let ours = C::handshake(role, rng);
        let out = Out::Bytes(C::public_key(&ours).to_vec(), 0);
        Self { role, state: State::Handshake { ours, theirs: [0; KEY_LEN], have: 0 }, out }
    }

    /// Which end of the stream this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether messages go in both directions: the handshake is done, and no rule was broken.
    pub fn is_open(&self) -> bool {
        self.session().is_some()
    }

    /// Whether a rule was broken.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead)
    }

    /// The secret for naming channels on this link; `None` unless it is open.
    pub fn tag_key(&self) -> Option<&Secret> {
        self.session().map(|session| &session.tag_key)
    }

    /// The link's id, the same at both ends; `None` unless it is open.
    pub fn session_id(&self) -> Option<SessionId> {
        self.session().map(|session| session.session_id)
    }

    fn session(&self) -> Option<&Session<C::Sealer, C::Opener>> {
        match &self.state {
            State::Open { session, .. } => Some(session),
            State::Handshake { .. } | State::Dead => None,
        }
    }

    // --- bytes in -------------------------------------------------------------------------------------------

    /// Returns where the stream's next bytes go; empty only where the link is dead.
    ///
    /// `large` is the large region, in which a message longer than a control message is received and opened in place. Its
    /// length is that of the longest admitted message and [`frame::TAG_LEN`] bytes more; where it is empty, none is
    /// admitted. It must be the same from such a message's first byte to its last ([`Self::is_inside_message`]).
    pub fn recv_space<'a>(&'a mut self, large: &'a mut [u8]) -> &'a mut [u8] {
        match &mut self.state {
            State::Handshake { theirs, have, .. } => &mut theirs[*have..],
            State::Open { reader, .. } => reader.space(large),
            State::Dead => &mut [],
        }
    }

    /// Takes `n` bytes that were written to [`Self::recv_space`], with the same large region, and returns one thing that they
    /// amounted to. There may be more: call it again, with 0 bytes, until it returns [`Received::Nothing`].
    ///
    /// # Errors
    /// The rule that the peer broke; the link is dead.
    ///
    /// # Panics
    /// Where `n` is more than there was space for.
    pub fn received(&mut self, n: usize, large: &mut [u8]) -> Result<Received, Violation> {
        assert!(n <= self.recv_space(large).len(), "more was received than there was space for");
        let received = self.advance(n, large);
        if received.is_err() {
            self.state = State::Dead;
        }
        received
    }

    fn advance(&mut self, n: usize, large: &mut [u8]) -> Result<Received, Violation> {
        match &mut self.state {
            State::Handshake { theirs, have, .. } => {
                *have += n;
                if theirs[*have..].is_empty() { self.finish_handshake() } else { Ok(Received::Nothing) }
            }
            State::Open { session, reader } => match reader.filled(n, large.len())? {
                None => Ok(Received::Nothing),
                Some(Frame::Small(mut sealed)) => {
                    let len = session.opener.open(&mut sealed)?.len();
                    sealed.truncate(len);
                    Ok(Received::Message(sealed))
                }
                Some(Frame::Large(len)) => Ok(Received::Large(session.opener.open(&mut large[..len])?.len())),
            },
            State::Dead => Ok(Received::Nothing),
        }
    }

    /// Derives the keys, as the peer's key is whole.
    fn finish_handshake(&mut self) -> Result<Received, Violation> {
        let State::Handshake { ours, theirs, .. } = mem::replace(&mut self.state, State::Dead) else {
            return Ok(Received::Nothing);
        };
        let session = C::finish(ours, theirs)?;
        self.state = State::Open { session, reader: FrameReader::default() };
        Ok(Received::Open)
    }

    /// Whether a message has begun to arrive and is not whole.
    pub fn is_inside_message(&self) -> bool {
        matches!(&self.state, State::Open { reader, .. } if reader.is_inside_frame())
    }

    // --- bytes out ------------------------------------------------------------------------------------------

    /// Whether nothing is in flight. Messages given then, one after the other, travel together.
    pub fn is_idle(&self) -> bool {
        matches!(self.out, Out::Nothing) || self.is_dead()
    }

    /// Seals a message behind those in flight; its plaintext comes in parts.
    ///
    /// Seals nothing, uses no nonce and returns `false` where the link is not open or a blob is in flight.
    pub fn send(&mut self, plaintext: &[&[u8]]) -> bool {
        let State::Open { session, .. } = &mut self.state else { return false };
        if matches!(self.out, Out::Nothing) {
            self.out = Out::Bytes(Vec::new(), 0);
        }
        let Out::Bytes(wire, _) = &mut self.out else { return false };
        frame::seal(&mut session.sealer, plaintext, wire);
        true
    }

    /// Seals a message of type `kind` whose payload is a whole blob, in the blob's buffer. [`Self::sent`] gives it back.
    ///
    /// # Errors
    /// The buffer, unchanged, where the link is not open or not idle.
    pub fn send_blob(&mut self, kind: u8, mut buffer: Buffer) -> Result<(), Buffer> {
        match (&mut self.state, &self.out) {
            (State::Open { session, .. }, Out::Nothing) => {
                frame::seal_data(&mut session.sealer, kind, &mut buffer);
                self.out = Out::Blob(buffer, 0);
                Ok(())
            }
            _ => Err(buffer),
        }
    }

    /// Returns the next bytes to write; empty where nothing is in flight.
    pub fn send_chunk(&self) -> &[u8] {
        match &self.out {
            _ if self.is_dead() => &[],
            Out::Nothing => &[],
            Out::Bytes(bytes, at) => &bytes[*at..],
            Out::Blob(buffer, at) => &buffer.frame()[*at..],
        }
    }

    /// Notes that `n` bytes of [`Self::send_chunk`] were written; returns the buffer of a blob that is sent.
    pub fn sent(&mut self, n: usize) -> Option<Buffer> {
        let (len, at) = match &mut self.out {
            Out::Nothing => return None,
            Out::Bytes(bytes, at) => (bytes.len(), at),
            Out::Blob(buffer, at) => (buffer.frame().len(), at),
        };
        *at = (*at + n).min(len);
        if *at < len {
            return None;
        }
        match mem::replace(&mut self.out, Out::Nothing) {
            Out::Blob(buffer, _) => Some(buffer),
            Out::Nothing | Out::Bytes(..) => None,
        }
    }

    /// Whether a blob is in flight.
    pub fn is_sending_blob(&self) -> bool {
        matches!(self.out, Out::Blob(..))
    }

    /// Returns the buffer of the blob in flight; the link is over.
    pub fn into_buffer(self) -> Option<Buffer> {
        match self.out {
            Out::Blob(buffer, _) => Some(buffer),
            Out::Nothing | Out::Bytes(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BLOB_LEN;
    use crate::limits::CONTROL_LEN_MAX;
    use crate::rng::Rng;
    use crate::suite::RealSuite;
    use crate::wire::TAG_LEN;
    use alloc::vec;
    use proptest::prelude::*;

    type Real = Link<RealSuite>;

    /// Moves what `from` has to `to`, in pieces of the given sizes (repeated); returns what came, large messages as small
    /// ones.
    fn pump(
        from: &mut Real,
        to: &mut Real,
        pieces: &[usize],
        large: &mut [u8],
    ) -> Result<Vec<Received>, Violation> {
        let mut received = Vec::new();
        for piece in pieces.iter().cycle() {
            let chunk = from.send_chunk();
            let space = to.recv_space(large);
            let n = chunk.len().min(space.len()).min(*piece);
            if n == 0 {
                break;
            }
            space[..n].copy_from_slice(&chunk[..n]);
            from.sent(n);
            match to.received(n, large)? {
                Received::Nothing => {}
                Received::Large(len) => received.push(Received::Message(large[..len].to_vec())),
                other => received.push(other),
            }
            assert_eq!(to.received(0, large), Ok(Received::Nothing), "one thing at a time, and no more");
        }
        Ok(received)
    }

    fn shaking(seed: u8) -> (Real, Real) {
        let mut rng = Rng::new([seed; 32]);
        (Link::v5(Role::Dialler, &mut rng), Link::v5(Role::Listener, &mut rng))
    }

    fn open(seed: u8) -> (Real, Real) {
        let (mut dialler, mut listener) = shaking(seed);
        assert_eq!(pump(&mut dialler, &mut listener, &[32], &mut []), Ok(vec![Received::Open]));
        assert_eq!(pump(&mut listener, &mut dialler, &[32], &mut []), Ok(vec![Received::Open]));
        (dialler, listener)
    }

    fn message(text: &[u8]) -> Received {
        Received::Message(text.to_vec())
    }

    proptest! {
        #[test]
        fn every_split_of_the_bytes_gives_the_same_messages(
            lens in prop::collection::vec(prop_oneof![0usize..300, Just(CONTROL_LEN_MAX), Just(CONTROL_LEN_MAX + 9)], 1..6),
            pieces in prop::collection::vec(prop_oneof![1usize..64, 1usize..70_000], 1..8),
            dialler_sends in any::<bool>(),
        ) {
            let (mut a, mut b) = shaking(1);
            let mut large = vec![0; CONTROL_LEN_MAX + 9 + TAG_LEN];
            prop_assert_eq!(pump(&mut a, &mut b, &pieces, &mut large), Ok(vec![Received::Open]));
            prop_assert_eq!(pump(&mut b, &mut a, &pieces, &mut large), Ok(vec![Received::Open]));
            let (from, to) = if dialler_sends { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let mut sent = Vec::new();
            for (fill, len) in (1..).zip(lens) {
                let plaintext = vec![fill; len];
                prop_assert!(from.send(&[&plaintext[..len / 2], &plaintext[len / 2..]]));
                sent.push(Received::Message(plaintext));
            }
            prop_assert_eq!(pump(from, to, &pieces, &mut large), Ok(sent));
            prop_assert!(from.is_idle());
        }
    }

    #[test]
    fn a_message_refused_before_the_link_is_open_uses_no_nonce() {
        let (mut dialler, mut listener) = shaking(1);
        for _ in 0..3 {
            assert!(!dialler.send(&[b"too soon"]));
            assert!(dialler.send_blob(3, Buffer::new()).is_err(), "the buffer comes back");
        }
        assert_eq!(pump(&mut dialler, &mut listener, &[32], &mut []), Ok(vec![Received::Open]));
        assert!(!dialler.send(&[b"still"]), "it has sent its key, but not got the peer's");
        assert_eq!(pump(&mut listener, &mut dialler, &[32], &mut []), Ok(vec![Received::Open]));
        assert!(dialler.send(&[b"now"]));
        assert_eq!(pump(&mut dialler, &mut listener, &[9], &mut []), Ok(vec![message(b"now")]));
    }

    #[test]
    fn messages_given_together_travel_together_and_none_behind_a_blob() {
        let (mut dialler, mut listener) = open(1);
        assert!(dialler.is_idle() && dialler.send(&[b"one"]) && !dialler.is_idle());
        let one = dialler.send_chunk().len();
        assert!(dialler.send(&[b"two"]));
        assert_eq!(dialler.send_chunk().len(), 2 * one);
        let busy = dialler.send_blob(3, Buffer::new());
        assert!(busy.is_err());
        assert_eq!(
            pump(&mut dialler, &mut listener, &[999], &mut []),
            Ok(vec![message(b"one"), message(b"two")])
        );

        let mut blob = Buffer::new();
        blob.blob_mut().fill(7);
        assert!(dialler.send_blob(3, blob).is_ok() && dialler.is_sending_blob());
        assert!(!dialler.send(&[b"three"]));
        let len = dialler.send_chunk().len();
        assert!(dialler.sent(len - 1).is_none() && !dialler.is_idle());
        assert!(dialler.sent(1).is_some_and(|buffer| buffer.blob().len() == BLOB_LEN));
        assert!(dialler.is_idle() && dialler.into_buffer().is_none());
    }

    #[test]
    fn a_blob_is_sealed_in_its_buffer_and_opened_in_another() {
        let (mut dialler, mut listener) = open(1);
        let mut blob = Buffer::new();
        for (i, byte) in blob.blob_mut().iter_mut().enumerate() {
            *byte = u8::try_from(i % 251).expect("below 251");
        }
        let content = blob.blob().to_vec();
        assert!(listener.send_blob(3, blob).is_ok());
        let mut landed = Buffer::new();
        let got = pump(&mut listener, &mut dialler, &[65_536, 1, 999], landed.message_from(0));
        assert!(got == Ok(vec![Received::Message([&[3], &content[..]].concat())]));
        assert!(landed.blob() == content);
    }

    #[test]
    fn a_violation_leaves_a_dead_link() {
        let flip = |wire: &mut [u8]| wire[5] ^= 1;
        let lengthen = |wire: &mut [u8]| wire[0] = 0xFF;
        let shorten = |wire: &mut [u8]| wire[..4].fill(0);
        for (harm, violation) in [
            (flip as fn(&mut [u8]), Violation::Tag),
            (lengthen, Violation::FrameLong),
            (shorten, Violation::FrameShort),
        ] {
            let (mut dialler, mut listener) = open(1);
            assert!(dialler.send(&[b"text"]) && listener.send(&[b"on its way"]));
            let mut wire = dialler.send_chunk().to_vec();
            harm(&mut wire);
            assert_eq!(feed(&mut listener, &wire), Err(violation));
            assert_is_dead(listener);
        }
        let (_, mut listener) = shaking(1);
        assert_eq!(feed(&mut listener, &[0; KEY_LEN]), Err(Violation::LowOrderKey));
        assert_is_dead(listener);
    }

    fn feed(to: &mut Real, mut wire: &[u8]) -> Result<(), Violation> {
        while !wire.is_empty() {
            let space = to.recv_space(&mut []);
            let n = space.len().min(wire.len());
            assert!(n > 0, "there is space until it is dead");
            space[..n].copy_from_slice(&wire[..n]);
            wire = &wire[n..];
            to.received(n, &mut [])?;
        }
        Ok(())
    }

    fn assert_is_dead(mut link: Real) {
        assert!(link.is_dead() && !link.is_open() && link.is_idle() && !link.is_inside_message());
        assert!(link.recv_space(&mut [0; 9]).is_empty() && link.send_chunk().is_empty());
        assert_eq!(link.received(0, &mut []), Ok(Received::Nothing));
        assert!(!link.send(&[b"text"]) && link.send_blob(3, Buffer::new()).is_err());
        assert!(link.session_id().is_none() && link.tag_key().is_none());
    }

    #[test]
    fn a_large_message_is_admitted_only_where_there_is_room_for_it() {
        let text = vec![7; CONTROL_LEN_MAX + 1];
        for (room, is_admitted) in
            [(0, false), (text.len() + TAG_LEN - 1, false), (text.len() + TAG_LEN, true)]
        {
            let (mut dialler, mut listener) = open(1);
            assert!(dialler.send(&[&text]));
            let got = pump(&mut dialler, &mut listener, &[999], &mut vec![0; room]);
            assert_eq!(got, if is_admitted { Ok(vec![message(&text)]) } else { Err(Violation::FrameLong) });
        }
    }

    #[test]
    fn both_ends_have_one_session_id_and_no_other_link_has_it() {
        let ids = [1, 2, 3].map(|seed| {
            let (dialler, listener) = open(seed);
            assert!(dialler.tag_key() == listener.tag_key() && dialler.tag_key().is_some());
            assert_eq!(dialler.session_id(), listener.session_id());
            dialler.session_id().expect("it is open")
        });
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        let (dialler, _) = shaking(1);
        assert!(dialler.session_id().is_none() && dialler.tag_key().is_none());
    }
}
