//! What a connection reports to the layer above.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::buffer::Buffer;
use crate::codec::Message;
use crate::ids::{BlobId, BlobName};

/// One thing that the peer's bytes amounted to.
#[derive(Debug)]
pub enum Incoming {
    /// Nothing to act on.
    Nothing,
    /// The handshake is done: messages go in both directions.
    Open,
    /// A message for the layer above. Never REQUEST, DATA, OK, ERROR, WANT, PIECE or CANCEL.
    Message(Message),
    /// The peer's answer to our PUBLISH: it has put the item on the DHT, or says why not.
    PublishAnswered(Result<(), String>),
    /// The peer asked for a blob or a range of one; it waits in its lane.
    Request,
    /// The peer no longer wants a range: buffers may be free.
    Cancelled,
    /// Bytes of a range that was asked for.
    Piece(Piece),
    /// This many bytes of a range that was cancelled in the meantime.
    Late(usize),
    /// The peer does not serve a range of this blob.
    Refused(BlobName),
    /// The oldest request's blob, not yet checked against its id.
    Blob(BlobId, Buffer),
    /// The peer does not have the oldest request's blob.
    NotFound(BlobId),
}

/// Bytes of a range that was asked for.
pub struct Piece {
    /// The blob.
    pub blob: BlobName,
    /// Where in the blob the bytes lie.
    pub offset: u32,
    /// The message's plaintext, and the place of the bytes in it.
    plaintext: Vec<u8>,
    part: Range<usize>,
}

impl Piece {
    pub(super) fn new(blob: BlobName, offset: u32, plaintext: Vec<u8>, part: Range<usize>) -> Self {
        Self { blob, offset, plaintext, part }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.plaintext[self.part.clone()]
    }

    /// Counts the bytes beyond the place where the range was cut.
    pub fn surplus(&self) -> usize {
        self.plaintext.len() - self.part.end
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("blob", &self.blob)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
