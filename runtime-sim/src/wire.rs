//! One connection's wire as somebody speaks it who is no node: core's handshake, frames and ciphers, and no rule beyond
//! them.

use std::marker::PhantomData;

use megatorrent_core::codec::{Message, Tag};
use megatorrent_core::error::Violation;
use megatorrent_core::ids::Topic;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::Suite;
use megatorrent_core::transport::frame::{self, Frame, FrameReader, TAG_LEN};
use megatorrent_core::transport::{KEY_LEN, Open, Role, Session};
use megatorrent_core::uri;

/// What bytes amounted to.
pub enum Incoming {
    /// Both keys are known: frames can be sealed.
    Keyed,
    /// A frame was opened: its type byte and payload.
    Plaintext(Vec<u8>),
}

/// A connection's state.
pub struct Wire<S: Suite> {
    handshake: Option<S::Handshake>,
    key: Vec<u8>,
    session: Option<Session<S::Sealer, S::Opener>>,
    reader: FrameReader,
    /// Where a frame longer than a control frame goes; empty: none is taken.
    large: Vec<u8>,
    suite: PhantomData<S>,
}

impl<S: Suite> Wire<S> {
    /// A connection that takes control frames only, and the bytes to send at once.
    pub fn new(role: Role, rng: &mut Rng) -> (Self, [u8; KEY_LEN]) {
        let handshake = S::handshake(role, rng);
        let key = S::public_key(&handshake);
        let wire = Self {
            handshake: Some(handshake),
            key: Vec::new(),
            session: None,
            reader: FrameReader::default(),
            large: Vec::new(),
            suite: PhantomData,
        };
        (wire, key)
    }

    /// Takes frames with a whole blob too.
    pub(crate) fn take_blobs(&mut self) {
        self.large = vec![0; 1 + S::BLOB_LEN + TAG_LEN];
    }

    /// Reads from the front of `bytes` until something is complete; `None`: all is read.
    ///
    /// # Errors
    /// What the other end broke; then the connection is of no more use.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Incoming>, Violation> {
        if let Some(handshake) = self.handshake.take() {
            let (key, rest) = bytes.split_at((KEY_LEN - self.key.len()).min(bytes.len()));
            self.key.extend(key);
            *bytes = rest;
            let Ok(key) = self.key.as_slice().try_into() else {
                self.handshake = Some(handshake);
                return Ok(None);
            };
            self.session = Some(S::finish(handshake, key)?);
            return Ok(Some(Incoming::Keyed));
        }
        let Some(Session { opener, .. }) = &mut self.session else { return Ok(None) };
        while !bytes.is_empty() {
            let space = self.reader.space(&mut self.large);
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            *bytes = &bytes[n..];
            let plaintext = match self.reader.filled(n, self.large.len())? {
                Some(Frame::Small(mut frame)) => opener.open(&mut frame)?.to_vec(),
                Some(Frame::Large(len)) => opener.open(&mut self.large[..len])?.to_vec(),
                None => continue,
            };
            return Ok(Some(Incoming::Plaintext(plaintext)));
        }
        Ok(None)
    }

    /// What a channel is called on this connection; `None` before it is keyed.
    pub fn tag(&self, topic: &Topic) -> Option<Tag> {
        self.session.as_ref().map(|session| uri::tag(&session.tag_key, topic))
    }

    /// A message as a sealed frame, a DATA with a whole blob too; empty before the connection is keyed.
    pub fn seal(&mut self, message: &Message) -> Vec<u8> {
        let Some(Session { sealer, .. }) = &mut self.session else { return Vec::new() };
        let mut wire = Vec::new();
        frame::seal(sealer, &[&message.encode()], &mut wire);
        wire
    }
}
