//! What a connection reports to the layer above.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::buffer::Buffer;
use crate::codec::Message;
use crate::ids::{BlobId, Root};
use crate::parts::{Mask, Values};

/// One thing that the peer's bytes amounted to.
#[derive(Debug)]
pub enum Incoming {
    /// Nothing to act on.
    Nothing,
    /// The handshake is done: messages go in both directions.
    Open,
    /// A message for the layer above. Never REQUEST, DATA, OK, ERROR, WANT, PARTS, PIECE or CANCEL.
    Message(Message),
    /// The peer's answer to our PUBLISH: it has put the item on the DHT, or says why not.
    PublishAnswered(Result<(), String>),
    /// The peer asked for a blob or parts of one; they wait in their lane.
    Request,
    /// The peer no longer wants some parts: buffers may be free.
    Cancelled,
    /// The values of a blob that was asked for, not yet checked.
    Values(Root, Box<Values>),
    /// Half a part that was asked for.
    Piece(Piece),
    /// This many bytes of parts that were cancelled before.
    Late(usize),
    /// The peer does not serve these parts of a blob.
    Refused(Root, Mask),
    /// The oldest REQUEST's blob, not yet checked.
    Blob(BlobId, Buffer),
    /// The peer does not have the oldest REQUEST's blob.
    NotFound(BlobId),
}

/// Half a part that was asked for, not yet checked.
pub struct Piece {
    /// The blob.
    pub root: Root,
    /// The part.
    pub part: usize,
    /// Whether it is the part's second half.
    pub is_second: bool,
    /// The message's plaintext, and where the bytes begin in it.
    plaintext: Vec<u8>,
    start: usize,
}

impl Piece {
    pub(super) fn new(root: Root, part: u8, half: u8, plaintext: Vec<u8>, start: usize) -> Self {
        Self { root, part: part.into(), is_second: half == 1, plaintext, start }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.plaintext[self.start..]
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, part, is_second, .. } = self;
        write!(f, "Piece {{ {root:?}, {part}, {is_second} }}")
    }
}
