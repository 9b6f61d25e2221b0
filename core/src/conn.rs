//! One connection: handshake, then messages in both directions (`docs/protocol.md` §8–10).
//!
//! It knows no other connection, no peer's reputation and no policy: the node above tells it what to ask for and
//! judges what it reports. Three lanes go out: control frames first, then the answers to the peer's requests, strictly
//! in the order of the requests, then pieces of the ranges that it asked for. Each method leaves the connection as it was or reports a [`Violation`], after which
//! the connection is over.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::ops::Range;
use core::time::Duration;

use crate::bep44::SignedItem;
use crate::bucket::Bucket;
use crate::buffer::Buffer;
use crate::codec::{self, Message, kind};
use crate::error::Violation;
use crate::ids::{BlobId, Secret, SessionId};
use crate::limits::{
    ANSWERS_LOADED_MAX, CONTROL_LEN_MAX, CONTROL_QUEUE_MAX, REQUESTS_QUEUED_MAX, UNASKED_BYTES_BURST,
    UNASKED_BYTES_PER_MINUTE, UNASKED_MESSAGE_BYTES,
};
use crate::ranges::{Asking, Brought, Owed};
use crate::rng::Rng;
use crate::suite::{RealSuite, Suite};
use crate::time::Instant;
use crate::transport::{Link, Received, Role};

/// What bytes from the peer amounted to.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Nothing to act on.
    Nothing,
    /// The handshake is done: messages may be sent.
    Open,
    /// A message that the node answers or uses. Never REQUEST, DATA, OK, ERROR, PIECE or CANCEL.
    Message(Message),
    /// The peer has put the item on the DHT that we asked it to put, or says why not.
    PublishAnswered(Result<(), String>),
    /// The peer asked for a blob or a range of one; it waits in its lane.
    Request,
    /// The peer no longer wants a range: buffers may be free.
    Cancelled,
    /// Bytes of a range that was asked for.
    Piece(Piece),
    /// Bytes of a range that was cancelled meanwhile.
    Late(usize),
    /// The peer does not serve a range of this blob.
    Refused(BlobId),
    /// The oldest request's blob, not yet checked against its id.
    Blob(BlobId, Buffer),
    /// The peer does not have the oldest request's blob.
    NotFound(BlobId),
}

/// Bytes of a range that was asked for.
pub(crate) struct Piece {
    pub(crate) blob: BlobId,
    /// Where in the blob they lie.
    pub(crate) offset: u32,
    /// The opened frame, and where in it they are.
    frame: Vec<u8>,
    part: Range<usize>,
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.frame[self.part.clone()]
    }

    /// Bytes that lie beyond where the range was cut.
    pub(crate) fn surplus(&self) -> usize {
        self.frame.len() - self.part.end
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

/// What is asked beside blobs: at most one of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Peers,
    Publish,
}

/// An answer that the peer waits for.
enum Answer {
    /// Not yet asked of the store.
    Queued(BlobId),
    /// The store reads it.
    Reading(BlobId),
    /// To send.
    Ready(Buffer),
    /// The store does not have it.
    Missing,
}

/// A blob on its way in.
struct Assembly {
    buffer: Buffer,
    filled: usize,
    /// The byte in front of the blob's next part, which the next message's type byte overwrites.
    before: u8,
}

impl Assembly {
    fn new(buffer: Buffer) -> Self {
        Self { buffer, filled: 0, before: 0 }
    }

    /// Where a message with the next part lies.
    fn region(&mut self) -> &mut [u8] {
        self.buffer.message_from(self.filled)
    }

    /// The large region: it admits a whole blob only while one is outstanding.
    fn region_for<'a>(assembly: &'a mut Option<Self>, outstanding: &VecDeque<(BlobId, u64)>) -> &'a mut [u8] {
        match assembly {
            Some(assembly) if !outstanding.is_empty() => assembly.region(),
            _ => &mut [],
        }
    }

    /// A DATA was opened in [`Self::region`]; its payload is `len` bytes.
    fn opened_in_place(&mut self, len: usize) {
        self.region()[0] = self.before;
        self.advance(len);
    }

    fn append(&mut self, part: &[u8]) -> Result<(), Violation> {
        let rest = &mut self.buffer.blob_mut()[self.filled..];
        rest.get_mut(..part.len()).ok_or(Violation::DataLong)?.copy_from_slice(part);
        self.advance(part.len());
        Ok(())
    }

    fn advance(&mut self, len: usize) {
        self.filled += len;
        self.before = self.region()[0];
    }
}

/// A connection's state machine.
pub(crate) struct Conn<S: Suite = RealSuite> {
    link: Link<S>,
    assembly: Option<Assembly>,
    /// Requests of ours by age: the blob, and its place among all we asked.
    outstanding: VecDeque<(BlobId, u64)>,
    /// Other questions of ours by age, with their places among all we asked.
    questions: VecDeque<(Question, u64)>,
    asked: u64,
    /// Plaintexts, sealed once bytes are asked for.
    control: VecDeque<Vec<u8>>,
    answers: VecDeque<Answer>,
    /// Ranges of ours and of the peer's; both empty unless the peer speaks v6.
    asking: Asking,
    owed: Owed,
    /// Bytes of blobs that were sealed since somebody looked.
    pub(crate) blob_bytes_out: u64,
    /// What the peer may say unasked, in bytes, and what the last message took of it.
    unasked: Bucket,
    last_cost: u64,
    draining: bool,
    /// The driver was given empty space and waits for word.
    pub(crate) read_paused: bool,
    /// The driver was given nothing to send and waits for word.
    pub(crate) write_idle: bool,
    /// When bytes last moved in either direction, and when they last came.
    pub(crate) last_moved: Instant,
    pub(crate) last_received: Instant,
    /// Bytes received while requests were outstanding, without what was said unasked.
    pub(crate) progress_bytes: u64,
    /// When a frame was last begun.
    pub(crate) last_sent_frame: Instant,
    /// When the peer last took bytes, or had none to take.
    last_taken: Instant,
}

impl<S: Suite> Conn<S> {
    pub(crate) fn new(role: Role, rng: &mut Rng, now: Instant) -> Self {
        Self {
            link: Link::v5(role, rng),
            assembly: None,
            outstanding: VecDeque::new(),
            questions: VecDeque::new(),
            asked: 0,
            control: VecDeque::new(),
            answers: VecDeque::new(),
            asking: Asking::default(),
            owed: Owed::default(),
            blob_bytes_out: 0,
            unasked: Bucket::new(UNASKED_BYTES_PER_MINUTE, UNASKED_BYTES_BURST, now),
            last_cost: 0,
            draining: false,
            read_paused: false,
            write_idle: false,
            last_moved: now,
            last_received: now,
            progress_bytes: 0,
            last_sent_frame: now,
            last_taken: now,
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.link.role()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.link.is_open() && !self.draining
    }

    /// What both ends call the connection; `None` before the handshake is done.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        self.link.session_id()
    }

    // --- bytes in -------------------------------------------------------------------------------------------

    /// Whether the peer's bytes have somewhere to go.
    fn may_read(&self) -> bool {
        let has_room = self.control.len() < CONTROL_QUEUE_MAX
            && self.answers.len() < REQUESTS_QUEUED_MAX
            && (self.assembly.is_some() || self.outstanding.is_empty() || self.link.is_inside_message());
        !self.draining && (has_room || !self.link.is_open())
    }

    pub(crate) fn recv_space(&mut self) -> &mut [u8] {
        if !self.may_read() {
            self.read_paused = true;
            return &mut [];
        }
        self.link.recv_space(Assembly::region_for(&mut self.assembly, &self.outstanding))
    }

    /// `n` bytes were written to [`Self::recv_space`]; one thing that they amounted to. Whoever wants all asks again, with
    /// 0 bytes, until there is nothing.
    pub(crate) fn received(&mut self, now: Instant, n: usize) -> Result<Incoming, Violation> {
        if n > 0 {
            (self.last_moved, self.last_received) = (now, now);
        }
        if !self.outstanding.is_empty() {
            self.progress_bytes += n as u64;
        }
        if self.draining {
            return Ok(Incoming::Nothing);
        }
        match self.link.received(n, Assembly::region_for(&mut self.assembly, &self.outstanding))? {
            Received::Nothing => Ok(Incoming::Nothing),
            Received::Open => Ok(Incoming::Open),
            Received::Message(plain) => self.on_message(plain),
            Received::Large(len) => {
                let assembly = self.assembly.as_mut().ok_or(Violation::UnaskedData)?;
                if assembly.region()[0] != kind::DATA {
                    return Err(Violation::FrameLong);
                }
                assembly.opened_in_place(len - 1);
                Ok(self.take_blob())
            }
        }
    }

    fn on_message(&mut self, plain: Vec<u8>) -> Result<Incoming, Violation> {
        match plain.split_first() {
            Some((&kind::DATA, part)) => return self.on_data(part),
            Some((&kind::PIECE, _)) => return self.on_piece(plain),
            _ => {}
        }
        let len = plain.len();
        match Message::decode(&plain)? {
            Message::Want { id, blob, range } => {
                self.owed.want(id, blob, range)?;
                Ok(Incoming::Request)
            }
            Message::Cancel { id, from } => {
                self.owed.cancel(id, from);
                Ok(Incoming::Cancelled)
            }
            Message::Request(id) => {
                self.answers.push_back(Answer::Queued(id));
                Ok(Incoming::Request)
            }
            Message::Error(text) => self.answered_by_error(text, len),
            Message::Peers(peers) => {
                self.take_question(Question::Peers).ok_or(Violation::Unasked)?;
                Ok(Incoming::Message(Message::Peers(peers)))
            }
            Message::Ok(_) => {
                self.take_question(Question::Publish).ok_or(Violation::Unasked)?;
                Ok(Incoming::PublishAnswered(Ok(())))
            }
            Message::Empty | Message::Unknown(_) => self.on_unasked(len).map(|()| Incoming::Nothing),
            message => self.on_unasked(len).map(|()| Incoming::Message(message)),
        }
    }

    fn on_data(&mut self, part: &[u8]) -> Result<Incoming, Violation> {
        if self.outstanding.is_empty() {
            return Err(Violation::UnaskedData);
        }
        let assembly = self.assembly.as_mut().ok_or(Violation::UnaskedData)?;
        assembly.append(part)?;
        Ok(self.take_blob())
    }

    fn on_piece(&mut self, plain: Vec<u8>) -> Result<Incoming, Violation> {
        let (id, offset, bytes) = codec::split_piece(&plain[1..]).ok_or(Violation::Malformed)?;
        let len = bytes.len();
        Ok(match self.asking.take(id, offset, len)? {
            Brought::Bytes { blob, offset, len } => {
                let start = 1 + codec::PIECE_HEADER_LEN;
                Incoming::Piece(Piece { blob, offset, frame: plain, part: start..start + len })
            }
            Brought::Refused(blob) => Incoming::Refused(blob),
            Brought::Late => Incoming::Late(len),
        })
    }

    /// The peer said so much that it was not asked for.
    fn on_unasked(&mut self, len: usize) -> Result<(), Violation> {
        self.last_cost = len as u64 + UNASKED_MESSAGE_BYTES;
        // Nor does it bring what was asked for.
        self.progress_bytes = self.progress_bytes.saturating_sub(len as u64);
        if self.unasked.take_n(self.last_cost, self.last_received) { Ok(()) } else { Err(Violation::Flood) }
    }

    /// So many bytes of its last message were news.
    pub(crate) fn was_news(&mut self, bytes: u64) {
        self.unasked.give_back(bytes.min(mem::take(&mut self.last_cost)));
    }

    /// An ERROR answers what was asked first, unless that is a request whose blob has begun to arrive.
    fn answered_by_error(&mut self, text: String, len: usize) -> Result<Incoming, Violation> {
        let blob = self.outstanding.front().map(|(_, place)| *place);
        let question = self.questions.front().map(|(question, place)| (*question, *place));
        Ok(match (blob, question) {
            (_, Some((question, place))) if blob.is_none_or(|blob| place < blob) => {
                self.questions.pop_front();
                match question {
                    Question::Peers => Incoming::Nothing,
                    Question::Publish => Incoming::PublishAnswered(Err(text)),
                }
            }
            (Some(_), _) if self.assembly.as_ref().is_none_or(|a| a.filled == 0) => {
                self.outstanding.pop_front().map_or(Incoming::Nothing, |(id, _)| Incoming::NotFound(id))
            }
            // A remark that answers nothing.
            _ => self.on_unasked(len).map(|()| Incoming::Nothing)?,
        })
    }

    fn take_question(&mut self, question: Question) -> Option<()> {
        let at = self.questions.iter().position(|(asked, _)| *asked == question)?;
        self.questions.remove(at).map(|_| ())
    }

    fn take_blob(&mut self) -> Incoming {
        match self.assembly.take() {
            Some(whole) if whole.filled == whole.buffer.blob().len() => {
                let (id, _) = self.outstanding.pop_front().expect("DATA is admitted only for a request");
                Incoming::Blob(id, whole.buffer)
            }
            part => {
                self.assembly = part;
                Incoming::Nothing
            }
        }
    }

    // --- requests of ours -----------------------------------------------------------------------------------

    /// Whether a receive buffer lacks for the requests that are outstanding.
    pub(crate) fn needs_buffer(&self) -> bool {
        self.assembly.is_none() && !self.outstanding.is_empty()
    }

    /// Gives the buffer for the next blob.
    pub(crate) fn give_buffer(&mut self, buffer: Buffer) {
        assert!(self.assembly.is_none(), "one blob arrives at a time");
        self.assembly = Some(Assembly::new(buffer));
    }

    /// Takes an unused buffer back once nothing is outstanding.
    pub(crate) fn take_unused_buffer(&mut self) -> Option<Buffer> {
        if self.outstanding.is_empty() { self.assembly.take().map(|a| a.buffer) } else { None }
    }

    /// Asks for a blob.
    pub(crate) fn request(&mut self, id: BlobId) {
        self.outstanding.push_back((id, self.asked));
        self.asked += 1;
        self.push(&Message::Request(id));
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// What was asked for and did not come; the connection is over.
    pub(crate) fn take_outstanding(&mut self) -> impl Iterator<Item = BlobId> + use<S> {
        mem::take(&mut self.outstanding).into_iter().map(|(id, _)| id)
    }

    /// Asks a v6 peer for a range of a blob; the range's number.
    pub(crate) fn want(&mut self, blob: BlobId, range: Range<u32>) -> u32 {
        let (id, message) = self.asking.ask(blob, range);
        self.push(&message);
        id
    }

    /// Of a range asked for, nothing from `from` on is wanted any more.
    pub(crate) fn cut(&mut self, id: u32, from: u32) {
        if let Some(message) = self.asking.cut(id, from) {
            self.push(&message);
        }
    }

    /// Ranges asked for that have not come whole.
    pub(crate) fn ranges(&self) -> usize {
        self.asking.open()
    }

    /// Bytes of ranges asked for that have not come.
    pub(crate) fn range_bytes(&self) -> u64 {
        self.asking.open_bytes()
    }

    /// Asks for peers, unless an answer is still owed.
    pub(crate) fn ask_for_peers(&mut self, id: BlobId) {
        self.ask(Question::Peers, &Message::FindPeers(id));
    }

    /// Asks the peer to put an item on the DHT. `false`: an earlier one is not answered yet.
    pub(crate) fn ask_to_publish(&mut self, item: SignedItem) -> bool {
        self.ask(Question::Publish, &Message::Publish(item))
    }

    fn ask(&mut self, question: Question, message: &Message) -> bool {
        let is_free = self.questions.iter().all(|(asked, _)| *asked != question);
        if is_free && self.has_control_room() {
            self.questions.push_back((question, self.asked));
            self.asked += 1;
            self.push(message);
        }
        is_free
    }

    /// The connection's secret for naming channels; `None` before it is keyed.
    pub(crate) fn tag_key(&self) -> Option<&Secret> {
        self.link.tag_key()
    }

    // --- messages and answers out ---------------------------------------------------------------------------

    /// Whether a control message may be queued without an answer being owed.
    pub(crate) fn has_control_room(&self) -> bool {
        self.is_open() && self.control.len() < CONTROL_QUEUE_MAX
    }

    /// Queues a control message, which waits for the end of the handshake. What peers can provoke is bounded by
    /// [`Self::may_read`], what we begin by [`Self::has_control_room`] and the request window.
    pub(crate) fn push(&mut self, message: &Message) {
        let plaintext = message.encode();
        assert!(plaintext.len() <= CONTROL_LEN_MAX, "our own messages are cut before");
        self.control.push_back(plaintext);
    }

    pub(crate) fn push_keep_alive(&mut self) {
        self.push(&Message::Empty);
    }

    /// The next of the peer's requests that the store should be asked for, if few enough wait loaded.
    pub(crate) fn next_to_read(&self) -> Option<BlobId> {
        let mut loaded = self.answers.iter().take(ANSWERS_LOADED_MAX);
        loaded.find_map(|a| if let Answer::Queued(id) = a { Some(*id) } else { None })
    }

    /// Blobs that wait for a turn: that of the next request, and those of the ranges.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = BlobId> {
        self.next_to_read().into_iter().chain(self.owed.waiting())
    }

    /// Blobs that are being read or sent for the peer, as answers to requests and for ranges.
    pub(crate) fn turns(&self) -> (usize, usize) {
        let in_turn = |a: &&Answer| matches!(a, Answer::Reading(_) | Answer::Ready(_));
        let sending = usize::from(self.link.is_sending_blob());
        (self.answers.iter().filter(in_turn).count() + sending, self.owed.turns())
    }

    /// Takes the buffer of a range that is being sent: others wait for one.
    pub(crate) fn unload(&mut self) -> Option<Buffer> {
        self.owed.unload()
    }

    /// A buffer that is no longer needed.
    pub(crate) fn take_spent(&mut self) -> Option<Buffer> {
        self.owed.spent.pop()
    }

    /// The store is asked for a blob that [`Self::waiting`] named.
    pub(crate) fn reading(&mut self, id: BlobId) {
        let mut next = self.answers.iter_mut().take(ANSWERS_LOADED_MAX);
        match next.find(|a| matches!(a, Answer::Queued(queued) if *queued == id)) {
            Some(answer) => *answer = Answer::Reading(id),
            None => self.owed.loading(&id),
        }
    }

    /// The store answered; `None` where it has no such blob. Gives the buffer back where nobody waits for it.
    pub(crate) fn read_done(&mut self, id: BlobId, blob: Option<Buffer>) -> Option<Buffer> {
        let waiting =
            self.answers.iter_mut().find(|a| matches!(a, Answer::Reading(reading) if *reading == id));
        match (waiting, blob) {
            (Some(answer), Some(buffer)) => {
                *answer = Answer::Ready(buffer);
                None
            }
            (Some(answer), None) => {
                *answer = Answer::Missing;
                None
            }
            (None, blob) => self.owed.loaded(&id, blob),
        }
    }

    /// Ends the connection after what is queued, and says why: no more is read, no answer is sent.
    pub(crate) fn drain(&mut self, why: &'static str) {
        self.push(&Message::Error(why.into()));
        self.draining = true;
    }

    /// Whether a draining connection has sent all it had.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining && self.link.is_idle() && (self.control.is_empty() || self.link.is_dead())
    }

    /// Whether the peer waits for an answer of ours.
    pub(crate) fn owes_answers(&self) -> bool {
        !self.answers.is_empty() || !self.owed.is_empty()
    }

    // --- bytes out ------------------------------------------------------------------------------------------

    /// A frame waits of which the peer has taken nothing for so long: what follows would wait behind it.
    pub(crate) fn is_stuck(&self, now: Instant, time: Duration) -> bool {
        !self.link.is_idle() && now.since(self.last_taken) >= time
    }

    pub(crate) fn send_chunk(&mut self, now: Instant) -> &[u8] {
        if self.link.is_idle() {
            self.give_link(now);
        }
        let chunk = self.link.send_chunk();
        self.write_idle |= chunk.is_empty();
        chunk
    }

    /// Nothing is on its way: the link gets all control messages that wait, or else an answer, or else a piece.
    fn give_link(&mut self, now: Instant) {
        (self.last_sent_frame, self.last_taken) = (now, now);
        if !self.link.is_open() {
            return;
        }
        if !self.control.is_empty() {
            for plaintext in self.control.drain(..) {
                self.link.send(&[&plaintext]);
            }
            return;
        }
        if self.draining {
            return;
        }
        match self.answers.front() {
            Some(Answer::Ready(_)) => {
                if let Some(Answer::Ready(buffer)) = self.answers.pop_front() {
                    self.blob_bytes_out += buffer.blob().len() as u64;
                    self.link.send_blob(kind::DATA, buffer).expect("the link is open and idle");
                }
            }
            Some(Answer::Missing) => {
                self.answers.pop_front();
                self.link.send(&[&Message::Error("Not Found".into()).encode()]);
            }
            Some(Answer::Queued(_) | Answer::Reading(_)) | None => {
                let sent = self.owed.send_piece(|piece| {
                    let header = codec::piece_header(piece.id, piece.offset);
                    self.link.send(&[&[kind::PIECE], &header, piece.bytes]);
                    piece.bytes.len()
                });
                self.blob_bytes_out += sent.unwrap_or_default() as u64;
            }
        }
    }

    /// `n` bytes of [`Self::send_chunk`] are on their way; the buffer of a blob that is through.
    pub(crate) fn sent(&mut self, now: Instant, n: usize) -> Option<Buffer> {
        (self.last_moved, self.last_taken) = (now, now);
        self.link.sent(n)
    }

    // --- word to the driver ---------------------------------------------------------------------------------

    /// Whether a driver that waits may read again. Clears the wait.
    pub(crate) fn take_readable(&mut self) -> bool {
        let ready = self.read_paused && self.may_read();
        self.read_paused &= !ready;
        ready
    }

    /// Whether a driver that waits may write again. Clears the wait.
    pub(crate) fn take_writable(&mut self) -> bool {
        let answer = matches!(self.answers.front(), Some(Answer::Ready(_) | Answer::Missing));
        let answer = (answer || self.owed.has_piece()) && !self.draining;
        let waits = self.link.is_open() && (!self.control.is_empty() || answer);
        let ready = self.write_idle && (waits || !self.link.is_idle());
        self.write_idle &= !ready;
        ready
    }

    /// All buffers it holds: the one for receiving, and those for sending. The connection is over.
    pub(crate) fn into_buffers(self) -> (Option<Buffer>, Vec<Buffer>) {
        let mut sending: Vec<Buffer> = Vec::new();
        for answer in self.answers {
            if let Answer::Ready(buffer) = answer {
                sending.push(buffer);
            }
        }
        sending.extend(self.link.into_buffer());
        sending.extend(self.owed.into_buffers());
        (self.assembly.map(|a| a.buffer), sending)
    }
}

#[cfg(test)]
mod tests;
