//! One connection above its [`Link`]: it matches answers with questions and chooses what goes out next
//! (`docs/protocol.md` §10 and §12).
//!
//! It knows no other connection, no peer's reputation and no policy: the layer above tells it what to ask for, reads
//! blobs for it, and judges what it reports. It sends in three lanes: control messages first, then the answers to the
//! peer's requests, strictly in their order, then the parts that the peer wants.
//!
//! - **Bytes in**: [`Conn::recv_space`], then [`Conn::received`], which says what they amounted to. Space is empty while
//!   too much waits for the peer or for us: back-pressure. [`Conn::take_readable`] tells when there is space again.
//! - **Bytes out**: [`Conn::send_chunk`], then [`Conn::sent`]. Nothing is sealed before bytes are asked for. After an empty
//!   chunk, [`Conn::take_writable`] tells when there are more.
//! - **Asking**: [`Conn::request`] (with a buffer, see [`Conn::needs_buffer`]), [`Conn::want`], [`Conn::ask_for_peers`],
//!   [`Conn::ask_to_publish`].
//! - **Answering**: [`Conn::waiting_blob`] and [`Conn::waiting_parts`] name what to read, [`Conn::reading_blob`],
//!   [`Conn::blob_done`], [`Conn::reading_part`] and [`Conn::part_done`] take it.
//!
//! After a [`Violation`] nothing more is read; queued messages, and the reason ([`Conn::drain`]), may still be sent unless
//! the link is dead.
//!
//! # A client
//! A node in memory serves a blob; this connection says HELLO, asks for it and gets it:
//!
//! ```
//! use megatorrent_core::blob::{self, BLOB_LEN, PLAIN_LEN};
//! use megatorrent_core::codec::{Message, VERSION};
//! use megatorrent_core::conn::{Conn, Incoming};
//! use megatorrent_core::node::{Action, Config, Input, Job, JobResult, Node};
//! use megatorrent_core::transport::{Link, Role};
//! use megatorrent_core::{buffer::Buffer, ids::Secret, rng::Rng, time::{Instant, UnixTime}};
//!
//! let mut stored = vec![7; BLOB_LEN];
//! blob::seal(&Secret::new([3; 32]), &mut stored, PLAIN_LEN);
//! let id = blob::id(&stored);
//! let now = Instant(0);
//! let mut node = Node::new(Config::default(), [1; 32], now, UnixTime(1_700_000_000_000));
//! let end = node.accept(now, "192.0.2.2:50000".parse()?).expect("there is room");
//! let mut conn: Conn = Conn::new(Link::v5(Role::Dialler, &mut Rng::new([2; 32])), now);
//! conn.push(&Message::Hello { version: Some(VERSION), sequences: [].into(), port: None, features: 0 });
//! conn.request(id);
//! conn.give_buffer(Buffer::new());
//! let fetched = 'fetched: loop {
//!     // What the connection has to say goes to the node, whose driver answers from the store,
//!     let chunk = conn.send_chunk(now);
//!     let space = node.recv_space(end);
//!     let n = chunk.len().min(space.len());
//!     space[..n].copy_from_slice(&chunk[..n]);
//!     node.received(now, end, n);
//!     conn.sent(now, n);
//!     while let Some(action) = node.poll() {
//!         if let Action::Job(job, Job::ReadBlob(asked, mut buffer)) = action {
//!             buffer.blob_mut().copy_from_slice(&stored);
//!             node.handle(now, Input::Done(job, JobResult::BlobRead(buffer, asked == id.into())));
//!         }
//!     }
//!     // and what the node has to say comes back.
//!     let chunk = node.send_chunk(now, end);
//!     let space = conn.recv_space();
//!     let n = chunk.len().min(space.len());
//!     space[..n].copy_from_slice(&chunk[..n]);
//!     node.sent(now, end, n);
//!     let mut said = conn.received(now, n).expect("a node keeps the rules");
//!     while !matches!(said, Incoming::Nothing) {
//!         if let Incoming::Blob(of, buffer) = said {
//!             break 'fetched (of, buffer);
//!         }
//!         said = conn.received(now, 0).expect("a node keeps the rules");
//!     }
//! };
//! assert!(fetched.0 == id && blob::verify(&id.into(), fetched.1.blob()));
//! # Ok::<(), megatorrent_core::error::ParseError>(())
//! ```

mod answers;
mod incoming;
mod lanes;
mod owed;
mod requests;
mod unasked;
mod wanted;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

pub use incoming::{Incoming, Piece};
use lanes::Lanes;
use requests::{Answered, Question, Requests};
use unasked::Unasked;
use wanted::{Brought, Wanted};

use crate::bep44::SignedItem;
use crate::buffer::Buffer;
use crate::codec::{self, Message, kind};
use crate::error::Violation;
use crate::ids::{BlobId, Root, Secret, SessionId};
use crate::parts::{Mask, PART_LEN, Values};
use crate::suite::RealSuite;
use crate::time::Instant;
use crate::transport::{Ciphers, Link, Received, Role};

/// A connection's state machine.
pub struct Conn<C: Ciphers = RealSuite> {
    link: Link<C>,
    /// Our REQUESTs, FIND_PEERS and PUBLISH.
    requests: Requests,
    /// Our WANTs.
    wanted: Wanted,
    /// What waits to be sent.
    lanes: Lanes,
    unasked: Unasked,
    /// Nothing more is read, and no blob is sent.
    is_over: bool,
    /// The driver got empty space, or nothing to send, and waits to be told.
    waits_to_read: bool,
    waits_to_write: bool,
    last_moved: Instant,
    last_received: Instant,
    last_sent_frame: Instant,
    /// When the peer last took bytes, or we had none for it.
    last_taken: Instant,
    /// When the bytes of a part that are in flight were given to the link, and whether the peer took the last ones at once.
    part_given: Option<Instant>,
    is_prompt: bool,
    progress_bytes: u64,
    blob_bytes_out: u64,
}

/// A peer that takes the bytes of a part within this time is prompt.
const PROMPT: Duration = Duration::from_millis(1);

impl<C: Ciphers> Conn<C> {
    /// A connection over a link on which nothing has moved yet.
    pub fn new(link: Link<C>, now: Instant) -> Self {
        Self::with_parts(link, PART_LEN, now)
    }

    /// [`Self::new`], in a suite with parts of another length.
    pub(crate) fn with_parts(link: Link<C>, part_len: usize, now: Instant) -> Self {
        Self {
            link,
            requests: Requests::default(),
            wanted: Wanted::new(part_len),
            lanes: Lanes::default(),
            unasked: Unasked::new(now),
            is_over: false,
            waits_to_read: false,
            waits_to_write: false,
            last_moved: now,
            last_received: now,
            last_sent_frame: now,
            last_taken: now,
            part_given: None,
            is_prompt: false,
            progress_bytes: 0,
            blob_bytes_out: 0,
        }
    }

    // --- what it is -----------------------------------------------------------------------------------------

    /// Which end of the stream this is.
    pub fn role(&self) -> Role {
        self.link.role()
    }

    /// Whether messages go in both directions: the handshake is done, and the connection is not over.
    pub fn is_open(&self) -> bool {
        self.link.is_open() && !self.is_over
    }

    /// The connection's id, the same at both ends; `None` before the handshake is done.
    pub fn session_id(&self) -> Option<SessionId> {
        self.link.session_id()
    }

    /// The connection's secret for naming channels ([`crate::uri::tag`]); `None` before the handshake is done.
    pub fn tag_key(&self) -> Option<&Secret> {
        self.link.tag_key()
    }

    /// When bytes last moved in either direction.
    pub fn last_moved(&self) -> Instant {
        self.last_moved
    }

    /// When bytes last came.
    pub fn last_received(&self) -> Instant {
        self.last_received
    }

    /// When we last sent a message, or had none to send.
    pub fn last_sent_frame(&self) -> Instant {
        self.last_sent_frame
    }

    /// Bytes received while requests were outstanding, without unsolicited messages.
    pub fn progress_bytes(&self) -> u64 {
        self.progress_bytes
    }

    /// Takes the number of bytes of blobs that were sealed since the last call.
    pub fn take_blob_bytes_out(&mut self) -> u64 {
        mem::take(&mut self.blob_bytes_out)
    }

    // --- bytes in -------------------------------------------------------------------------------------------

    /// Whether there is room for the peer's bytes.
    fn may_read(&self) -> bool {
        let has_buffer = !self.requests.needs_buffer() || self.link.is_inside_message();
        let has_room = self.lanes.has_room() && has_buffer;
        !self.is_over && (has_room || !self.link.is_open())
    }

    /// Returns where the stream's next bytes go; empty: do not read until [`Self::take_readable`] says so.
    pub fn recv_space(&mut self) -> &mut [u8] {
        if !self.may_read() {
            self.waits_to_read = true;
            return &mut [];
        }
        self.link.recv_space(self.requests.region())
    }

    /// Takes `n` bytes that were written to [`Self::recv_space`], and returns one thing that they amounted to. There may be
    /// more: call it again, with 0 bytes, until it returns [`Incoming::Nothing`].
    ///
    /// # Errors
    /// The rule that the peer broke; the connection is over.
    pub fn received(&mut self, now: Instant, n: usize) -> Result<Incoming, Violation> {
        if n > 0 {
            (self.last_moved, self.last_received) = (now, now);
        }
        if self.requests.outstanding() > 0 {
            self.progress_bytes += n as u64;
        }
        if self.is_over {
            return Ok(Incoming::Nothing);
        }
        let incoming = self.take(n);
        self.is_over |= incoming.is_err();
        incoming
    }

    fn take(&mut self, n: usize) -> Result<Incoming, Violation> {
        match self.link.received(n, self.requests.region())? {
            Received::Nothing => Ok(Incoming::Nothing),
            Received::Open => Ok(Incoming::Open),
            Received::Message(plaintext) => self.on_message(plaintext),
            Received::Large(len) => {
                if self.requests.region().first() != Some(&kind::DATA) {
                    return Err(Violation::FrameLong);
                }
                self.requests.on_data_in_place(len - 1).map(blob_or_nothing)
            }
        }
    }

    fn on_message(&mut self, plaintext: Vec<u8>) -> Result<Incoming, Violation> {
        match plaintext.split_first() {
            Some((&kind::DATA, part)) => return self.requests.on_data(part).map(blob_or_nothing),
            Some((&kind::PIECE, _)) => return self.on_piece(plaintext),
            _ => {}
        }
        let len = plaintext.len();
        match Message::decode(&plaintext)? {
            Message::Want(want) => self.lanes.owed.want(&want).map(|()| Incoming::Request),
            Message::Cancel { number, mask } => {
                self.lanes.owed.cancel(number, mask);
                Ok(Incoming::Cancelled)
            }
            Message::Parts { number, values } => self.on_values(number, values),
            Message::Request(id) => {
                self.lanes.answers.owe(id);
                Ok(Incoming::Request)
            }
            Message::Error(text) => self.on_error(text, len),
            Message::Peers(peers) => {
                self.requests.on_answer(Question::Peers)?;
                Ok(Incoming::Message(Message::Peers(peers)))
            }
            Message::Ok(_) => {
                self.requests.on_answer(Question::Publish)?;
                Ok(Incoming::PublishAnswered(Ok(())))
            }
            Message::Empty | Message::Unknown(_) => self.on_unasked(len).map(|()| Incoming::Nothing),
            message => self.on_unasked(len).map(|()| Incoming::Message(message)),
        }
    }

    fn on_values(&mut self, number: u32, values: Box<Values>) -> Result<Incoming, Violation> {
        Ok(match self.wanted.take_values(number)? {
            Brought::Wanted(root) => Incoming::Values(root, values),
            Brought::Refused(..) | Brought::Late => Incoming::Nothing,
        })
    }

    fn on_piece(&mut self, plaintext: Vec<u8>) -> Result<Incoming, Violation> {
        let (number, part, half, bytes) = codec::split_piece(&plaintext[1..]).ok_or(Violation::Malformed)?;
        let len = bytes.len();
        Ok(match self.wanted.take(number, part, half, len)? {
            Brought::Wanted(root) => {
                Incoming::Piece(Piece::new(root, part, half, plaintext, 1 + codec::PIECE_HEADER_LEN))
            }
            Brought::Refused(root, left) => Incoming::Refused(root, left),
            Brought::Late => Incoming::Late(len),
        })
    }

    fn on_error(&mut self, text: String, len: usize) -> Result<Incoming, Violation> {
        match self.requests.on_error() {
            Answered::Blob(id) => Ok(Incoming::NotFound(id)),
            Answered::Question(Question::Peers) => Ok(Incoming::Nothing),
            Answered::Question(Question::Publish) => Ok(Incoming::PublishAnswered(Err(text))),
            Answered::Nothing => self.on_unasked(len).map(|()| Incoming::Nothing),
        }
    }

    /// Counts an unsolicited message of `len` bytes, which is no progress either.
    fn on_unasked(&mut self, len: usize) -> Result<(), Violation> {
        self.progress_bytes = self.progress_bytes.saturating_sub(len as u64);
        self.unasked.take(len, self.last_received)
    }

    /// Notes that `bytes` of the peer's last message were unseen, so they do not count as unsolicited.
    pub fn was_news(&mut self, bytes: u64) {
        self.unasked.give_back(bytes);
    }

    // --- what we ask for ------------------------------------------------------------------------------------

    /// Asks for a blob.
    pub fn request(&mut self, id: BlobId) {
        self.requests.ask_for(id);
        self.push(&Message::Request(id));
    }

    /// Counts the unanswered REQUESTs.
    pub fn outstanding(&self) -> usize {
        self.requests.outstanding()
    }

    /// Takes the blobs of the unanswered REQUESTs; the connection is over.
    pub fn take_outstanding(&mut self) -> impl Iterator<Item = BlobId> + use<C> {
        self.requests.take_outstanding()
    }

    /// Whether a request is outstanding without a buffer for its blob: nothing is read until [`Self::give_buffer`].
    pub fn needs_buffer(&self) -> bool {
        self.requests.needs_buffer()
    }

    /// Gives the buffer for the next blob.
    ///
    /// # Panics
    /// Where it has one already.
    pub fn give_buffer(&mut self, buffer: Buffer) {
        self.requests.give_buffer(buffer);
    }

    /// Takes an unused buffer back once nothing is outstanding.
    pub fn take_unused_buffer(&mut self) -> Option<Buffer> {
        self.requests.take_unused_buffer()
    }

    /// Asks a v6 peer for parts of a blob, and for its values before them. `last_len`: bytes of the last of these parts, where not
    /// all are wanted.
    ///
    /// # Panics
    /// Where `mask` is empty.
    pub fn want(&mut self, root: Root, mask: Mask, values: bool, last_len: Option<u32>) {
        let message = self.wanted.ask(root, mask, values, last_len);
        self.push(&message);
    }

    /// Gives up parts of a blob.
    pub fn cancel(&mut self, root: &Root, mask: Mask) {
        for message in self.wanted.cancel(root, mask) {
            self.push(&message);
        }
    }

    /// Counts the parts asked for that have not come whole.
    pub fn parts_outstanding(&self) -> usize {
        self.wanted.open_parts()
    }

    /// Counts the blobs and parts that the peer waits for.
    pub(crate) fn owed(&self) -> usize {
        let (answers, parts) = self.slots();
        let waiting: usize = self.waiting_parts().map(|(_, mask, _)| mask.len()).sum();
        answers + parts + waiting + usize::from(self.waiting_blob().is_some())
    }

    /// Whether some bytes of a message have come and the rest has not.
    pub fn is_inside_message(&self) -> bool {
        self.link.is_inside_message()
    }

    /// Whether [`Self::want`] may be called: few WANTs are open.
    pub fn may_want(&self) -> bool {
        self.wanted.has_room()
    }

    /// Asks for peers; the return value is as in [`Self::ask_to_publish`].
    pub fn ask_for_peers(&mut self, id: BlobId) -> bool {
        self.ask(Question::Peers, &Message::FindPeers(id))
    }

    /// Asks the peer to put an item on the DHT. Asks nothing and returns `false` while an earlier question of this kind is
    /// unanswered, or too much waits to be sent.
    pub fn ask_to_publish(&mut self, item: SignedItem) -> bool {
        self.ask(Question::Publish, &Message::Publish(item))
    }

    fn ask(&mut self, question: Question, message: &Message) -> bool {
        let may = self.has_control_room() && !self.requests.is_asked(question);
        if may {
            self.requests.ask(question);
            self.push(message);
        }
        may
    }

    // --- messages out ---------------------------------------------------------------------------------------

    /// Whether we may queue a control message that answers nothing.
    pub fn has_control_room(&self) -> bool {
        self.is_open() && self.lanes.has_control_room()
    }

    /// Queues a control message; before the end of the handshake it waits. [`Self::recv_space`] bounds the messages that the
    /// peer can provoke, [`Self::has_control_room`] and the number of our requests bound our own.
    ///
    /// # Panics
    /// Where the message is longer than [`crate::limits::CONTROL_LEN_MAX`].
    pub fn push(&mut self, message: &Message) {
        self.lanes.push(message);
    }

    /// Queues an empty message, which shows that we are alive.
    pub fn push_keep_alive(&mut self, now: Instant) {
        self.push(&Message::Empty);
        self.last_sent_frame = now;
    }

    /// Queues the reason and ends the connection after it: nothing more is read, no blob is sent.
    pub fn drain(&mut self, why: &'static str) {
        self.push(&Message::Error(why.into()));
        self.is_over = true;
    }

    /// Whether the connection is over and has sent all that it can.
    pub fn is_drained(&self) -> bool {
        self.is_over && self.link.is_idle() && (!self.lanes.has_control() || self.link.is_dead())
    }

    // --- what the peer asks for -----------------------------------------------------------------------------

    /// The blob of the next request, to be read.
    pub fn waiting_blob(&self) -> Option<BlobId> {
        self.lanes.answers.next_to_read()
    }

    /// The parts of blobs to be read, those asked for longest first, and whether no more than one PIECE of the last is wanted.
    pub fn waiting_parts(&self) -> impl Iterator<Item = (Root, Mask, bool)> {
        self.lanes.owed.waiting()
    }

    /// Counts what is being read or sent for the peer: blobs as answers to requests, and parts.
    pub fn slots(&self) -> (usize, usize) {
        (self.lanes.answers.slots() + usize::from(self.link.is_sending_blob()), self.lanes.owed.slots())
    }

    /// Marks the blob of [`Self::waiting_blob`] as being read.
    pub fn reading_blob(&mut self, id: BlobId) {
        self.lanes.answers.reading(id);
    }

    /// Marks a part that [`Self::waiting_parts`] named as being read.
    pub fn reading_part(&mut self, root: &Root, part: usize) {
        self.lanes.owed.loading(root, part);
    }

    /// Takes the store's answer; `None`: it has no such blob. Gives the buffer back where the peer does not wait for it.
    pub fn blob_done(&mut self, id: BlobId, blob: Option<Buffer>) -> Option<Buffer> {
        self.lanes.answers.read_done(id, blob).err().flatten()
    }

    /// Takes the store's answer; `None`: it does not have the part. Gives the buffer back likewise.
    pub fn part_done(
        &mut self,
        root: &Root,
        part: usize,
        found: Option<(Buffer, Box<Values>)>,
    ) -> Option<Buffer> {
        self.lanes.owed.loaded(root, part, found)
    }

    /// Takes the buffer of a part that is being sent; the part waits for another slot.
    pub fn unload(&mut self) -> Option<Buffer> {
        self.lanes.owed.unload()
    }

    /// Takes a buffer that the connection is done with.
    pub fn take_spent(&mut self) -> Option<Buffer> {
        self.lanes.owed.take_spent()
    }

    /// Whether the peer waits for an answer of ours.
    pub fn owes_answers(&self) -> bool {
        self.lanes.owes_answers()
    }

    // --- bytes out ------------------------------------------------------------------------------------------

    /// Returns the next bytes to write; empty: nothing until [`Self::take_writable`] says so.
    pub fn send_chunk(&mut self, now: Instant) -> &[u8] {
        if self.link.is_idle() {
            (self.last_sent_frame, self.last_taken) = (now, now);
            if self.link.is_open() && !self.lanes.give_control(&mut self.link) && !self.is_over {
                let given = self.lanes.give_blob(&mut self.link, self.is_prompt);
                self.part_given = (given > 0).then_some(now);
                self.blob_bytes_out += given as u64;
            }
        }
        let chunk = self.link.send_chunk();
        self.waits_to_write |= chunk.is_empty();
        chunk
    }

    /// Notes that `n` bytes of [`Self::send_chunk`] were written; returns the buffer of a blob that is sent.
    pub fn sent(&mut self, now: Instant, n: usize) -> Option<Buffer> {
        (self.last_moved, self.last_taken) = (now, now);
        let buffer = self.link.sent(n);
        if self.link.is_idle()
            && let Some(given) = self.part_given.take()
        {
            self.is_prompt = now.since(given) <= PROMPT;
        }
        buffer
    }

    /// Whether the peer has taken nothing of the bytes in flight for `time`: more would only wait behind them.
    pub fn is_stuck(&self, now: Instant, time: Duration) -> bool {
        !self.link.is_idle() && now.since(self.last_taken) >= time
    }

    // --- wake-ups of the driver -----------------------------------------------------------------------------

    /// Whether a driver that got no space may read again; says so once.
    pub fn take_readable(&mut self) -> bool {
        let ready = self.waits_to_read && self.may_read();
        self.waits_to_read &= !ready;
        ready
    }

    /// Whether a driver that got no chunk may write again; says so once.
    pub fn take_writable(&mut self) -> bool {
        let waits = self.lanes.has_control() || (self.lanes.has_blob() && !self.is_over);
        let ready = self.waits_to_write && (!self.link.is_idle() || (waits && self.link.is_open()));
        self.waits_to_write &= !ready;
        ready
    }

    /// Returns all buffers that it holds: the one for receiving, and those for sending. The connection is over.
    pub fn into_buffers(mut self) -> (Option<Buffer>, Vec<Buffer>) {
        let sending = self.link.into_buffer().into_iter().chain(self.lanes.into_buffers());
        (self.requests.take_buffer(), sending.collect())
    }
}

fn blob_or_nothing(whole: Option<(BlobId, Buffer)>) -> Incoming {
    whole.map_or(Incoming::Nothing, |(id, buffer)| Incoming::Blob(id, buffer))
}

#[cfg(test)]
mod tests;
