//! One connection: handshake, then messages in both directions (`docs/protocol.md` §8–10).
//!
//! It knows no other connection, no peer's reputation and no policy: the node above tells it what to ask for and
//! judges what it reports. Two lanes go out: control frames first, then the answers to the peer's requests, strictly
//! in the order of the requests. Each method leaves the connection as it was or reports a [`Violation`], after which
//! the connection is over.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::bep44::SignedItem;
use crate::buffer::Buffer;
use crate::codec::{Message, kind};
use crate::error::Violation;
use crate::frame::{self, Frame, FrameReader, HEADER_LEN, TAG_LEN};
use crate::ids::{BlobId, Secret};
use crate::limits::{
    ANSWERS_LOADED_MAX, CONTROL_QUEUE_MAX, KEEP_ALIVE, REQUESTS_QUEUED_MAX, UNKNOWN_MESSAGES_MAX,
};
use crate::rng::Rng;
use crate::suite::{Open, RealSuite, Suite};
use crate::time::Instant;
use crate::transport::{KEY_LEN, Role, Session};

/// What bytes from the peer amounted to.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Nothing to act on.
    Nothing,
    /// The peer's ephemeral key; the connection is keyed.
    Keyed([u8; KEY_LEN]),
    /// A message that the node answers or uses. Never REQUEST, DATA, OK or ERROR.
    Message(Message),
    /// The peer has put the item on the DHT that we asked it to put, or says why not.
    PublishAnswered(Result<(), String>),
    /// The peer asked for a blob; it waits in the answers' lane.
    Request,
    /// The oldest request's blob, not yet checked against its id.
    Blob(BlobId, Buffer),
    /// The peer does not have the oldest request's blob.
    NotFound(BlobId),
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

/// What is on its way out.
enum Out {
    Nothing,
    Control(Vec<u8>, usize),
    Data(Buffer, usize),
}

enum Phase<S: Suite> {
    /// The peer's key so far.
    Handshake {
        ours: Option<S::Handshake>,
        theirs: [u8; KEY_LEN],
        have: usize,
    },
    Open(Session<S::Sealer, S::Opener>),
}

/// A blob on its way in.
struct Assembly {
    buffer: Buffer,
    filled: usize,
    /// The byte in front of the blob's next part, which the next frame's type byte overwrites while it is opened.
    before: u8,
}

impl Assembly {
    fn new(buffer: Buffer) -> Self {
        Self { buffer, filled: 0, before: 0 }
    }

    /// Where a frame with the next part lies, from its type byte on.
    fn region(&mut self) -> &mut [u8] {
        &mut self.buffer.frame_mut()[HEADER_LEN + self.filled..]
    }

    fn region_len(&self) -> usize {
        self.buffer.frame().len() - HEADER_LEN - self.filled
    }

    /// A DATA frame was opened in [`Self::region`]; its payload is `len` bytes.
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
    phase: Phase<S>,
    role: Role,
    own_key: [u8; KEY_LEN],
    their_key: Option<[u8; KEY_LEN]>,
    reader: FrameReader,
    assembly: Option<Assembly>,
    /// Requests of ours by age: the blob, and its place among all we asked.
    outstanding: VecDeque<(BlobId, u64)>,
    /// Other questions of ours by age, with their places among all we asked.
    questions: VecDeque<(Question, u64)>,
    asked: u64,
    control: VecDeque<Vec<u8>>,
    answers: VecDeque<Answer>,
    out: Out,
    /// Blobs that the peer said it lacks.
    pub(crate) lacks: BTreeSet<BlobId>,
    meaningless: u32,
    /// When the last empty frame came that was not too soon after the one before it.
    last_keep_alive: Instant,
    draining: bool,
    /// The driver was given empty space and waits for word.
    pub(crate) read_paused: bool,
    /// The driver was given nothing to send and waits for word.
    pub(crate) write_idle: bool,
    /// When bytes last moved in either direction.
    pub(crate) last_moved: Instant,
    /// Bytes received while requests were outstanding.
    pub(crate) progress_bytes: u64,
    /// When a frame was last begun.
    pub(crate) last_sent_frame: Instant,
}

impl<S: Suite> Conn<S> {
    pub(crate) fn new(role: Role, rng: &mut Rng, now: Instant) -> Self {
        let ours = S::handshake(role, rng);
        let own_key = S::public_key(&ours);
        Self {
            phase: Phase::Handshake { ours: Some(ours), theirs: [0; KEY_LEN], have: 0 },
            role,
            own_key,
            their_key: None,
            reader: FrameReader::default(),
            assembly: None,
            outstanding: VecDeque::new(),
            questions: VecDeque::new(),
            asked: 0,
            control: VecDeque::from([own_key.to_vec()]),
            answers: VecDeque::new(),
            out: Out::Nothing,
            lacks: BTreeSet::new(),
            meaningless: 0,
            last_keep_alive: now,
            draining: false,
            read_paused: false,
            write_idle: false,
            last_moved: now,
            progress_bytes: 0,
            last_sent_frame: now,
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_)) && !self.draining
    }

    /// The ephemeral public key that we sent.
    pub(crate) fn own_key(&self) -> &[u8; KEY_LEN] {
        &self.own_key
    }

    /// The ephemeral public key that the peer sent; `None` before it did.
    pub(crate) fn their_key(&self) -> Option<[u8; KEY_LEN]> {
        self.their_key
    }

    // --- bytes in -------------------------------------------------------------------------------------------

    /// Whether the peer's bytes have somewhere to go.
    fn may_read(&self) -> bool {
        !self.draining
            && self.control.len() < CONTROL_QUEUE_MAX
            && self.answers.len() < REQUESTS_QUEUED_MAX
            && (self.assembly.is_some() || self.outstanding.is_empty() || self.reader.is_inside_frame())
    }

    pub(crate) fn recv_space(&mut self) -> &mut [u8] {
        if !self.may_read() {
            self.read_paused = true;
            return &mut [];
        }
        match &mut self.phase {
            Phase::Handshake { theirs, have, .. } => &mut theirs[*have..],
            Phase::Open(_) => self.reader.space(match &mut self.assembly {
                Some(assembly) => assembly.region(),
                None => &mut [],
            }),
        }
    }

    pub(crate) fn received(&mut self, now: Instant, n: usize) -> Result<Incoming, Violation> {
        self.last_moved = now;
        if !self.outstanding.is_empty() {
            self.progress_bytes += n as u64;
        }
        match &mut self.phase {
            Phase::Handshake { ours, theirs, have } => {
                *have += n;
                if *have < KEY_LEN {
                    return Ok(Incoming::Nothing);
                }
                let theirs = *theirs;
                let ours = ours.take().expect("present until the phase changes");
                self.their_key = Some(theirs);
                self.phase = Phase::Open(S::finish(ours, theirs)?);
                Ok(Incoming::Keyed(theirs))
            }
            Phase::Open(Session { opener, .. }) => {
                let large_len = match &self.assembly {
                    Some(assembly) if !self.outstanding.is_empty() => assembly.region_len(),
                    _ => 0,
                };
                match self.reader.filled(n, large_len)? {
                    None => Ok(Incoming::Nothing),
                    Some(Frame::Small(mut sealed)) => {
                        let len = opener.open(&mut sealed)?.len();
                        self.on_small(&sealed[..len])
                    }
                    Some(Frame::Large(len)) => {
                        let assembly = self.assembly.as_mut().ok_or(Violation::UnaskedData)?;
                        let plain = opener.open(&mut assembly.region()[..len])?;
                        if plain[0] != kind::DATA {
                            return Err(Violation::FrameLong);
                        }
                        assembly.opened_in_place(len - TAG_LEN - 1);
                        Ok(self.take_blob())
                    }
                }
            }
        }
    }

    fn on_small(&mut self, plain: &[u8]) -> Result<Incoming, Violation> {
        if let Some((&kind::DATA, part)) = plain.split_first() {
            return self.on_data(part);
        }
        match Message::decode(plain)? {
            Message::Request(id) => {
                self.answers.push_back(Answer::Queued(id));
                Ok(Incoming::Request)
            }
            Message::Error(text) => Ok(self.answered_by_error(text)),
            Message::Peers(peers) => {
                self.take_question(Question::Peers).ok_or(Violation::Unasked)?;
                Ok(Incoming::Message(Message::Peers(peers)))
            }
            Message::Ok(_) => {
                self.take_question(Question::Publish).ok_or(Violation::Unasked)?;
                Ok(Incoming::PublishAnswered(Ok(())))
            }
            Message::Empty => self.on_empty(),
            Message::Unknown(_) => self.on_meaningless(),
            message => Ok(Incoming::Message(message)),
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

    fn on_meaningless(&mut self) -> Result<Incoming, Violation> {
        self.meaningless += 1;
        if self.meaningless > UNKNOWN_MESSAGES_MAX { Err(Violation::Chatter) } else { Ok(Incoming::Nothing) }
    }

    /// An empty frame keeps the connection alive; one that comes sooner than that takes means nothing.
    fn on_empty(&mut self) -> Result<Incoming, Violation> {
        let now = self.last_moved;
        if now.since(self.last_keep_alive) < KEEP_ALIVE / 2 {
            return self.on_meaningless();
        }
        self.last_keep_alive = now;
        Ok(Incoming::Nothing)
    }

    /// An ERROR answers what was asked first, unless that is a request whose blob has begun to arrive.
    fn answered_by_error(&mut self, text: String) -> Incoming {
        let blob = self.outstanding.front().map(|(_, place)| *place);
        let question = self.questions.front().map(|(question, place)| (*question, *place));
        match (blob, question) {
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
            _ => Incoming::Nothing,
        }
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
        match &self.phase {
            Phase::Open(session) => Some(&session.tag_key),
            Phase::Handshake { .. } => None,
        }
    }

    // --- messages and answers out ---------------------------------------------------------------------------

    /// Whether a control message may be queued without an answer being owed.
    pub(crate) fn has_control_room(&self) -> bool {
        self.is_open() && self.control.len() < CONTROL_QUEUE_MAX
    }

    /// Queues a control message. What peers can provoke is bounded by [`Self::may_read`], what we begin by
    /// [`Self::has_control_room`] and the request window.
    pub(crate) fn push(&mut self, message: &Message) {
        let Phase::Open(Session { sealer, .. }) = &mut self.phase else { return };
        let (kind, payload) = message.encode();
        self.control.push_back(frame::seal(sealer, kind, &payload));
    }

    pub(crate) fn push_keep_alive(&mut self) {
        if let Phase::Open(Session { sealer, .. }) = &mut self.phase {
            self.control.push_back(frame::seal_empty(sealer));
        }
    }

    /// The next of the peer's requests that the store should be asked for, if few enough wait loaded.
    pub(crate) fn next_to_read(&self) -> Option<BlobId> {
        let mut loaded = self.answers.iter().take(ANSWERS_LOADED_MAX);
        loaded.find_map(|a| if let Answer::Queued(id) = a { Some(*id) } else { None })
    }

    /// The store was asked for what [`Self::next_to_read`] named.
    pub(crate) fn reading(&mut self, id: BlobId) {
        let next = self.answers.iter_mut().find(|a| matches!(a, Answer::Queued(queued) if *queued == id));
        if let Some(answer) = next {
            *answer = Answer::Reading(id);
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
            (None, blob) => blob,
        }
    }

    /// Ends the connection after what is queued, and says why: no more is read, no answer is sent.
    pub(crate) fn drain(&mut self, why: &'static str) {
        self.push(&Message::Error(why.into()));
        self.draining = true;
    }

    /// Whether a draining connection has sent all it had.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining && self.control.is_empty() && matches!(self.out, Out::Nothing)
    }

    /// Whether the peer waits for an answer of ours.
    pub(crate) fn owes_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    // --- bytes out ------------------------------------------------------------------------------------------

    pub(crate) fn send_chunk(&mut self, now: Instant) -> &[u8] {
        if matches!(self.out, Out::Nothing) {
            self.begin_frame(now);
        }
        match &self.out {
            Out::Nothing => {
                self.write_idle = true;
                &[]
            }
            Out::Control(bytes, at) => &bytes[*at..],
            Out::Data(buffer, at) => &buffer.frame()[*at..],
        }
    }

    fn begin_frame(&mut self, now: Instant) {
        self.last_sent_frame = now;
        // Frames are sealed when queued (control) or here (data), but a frame's nonce is its place on the wire: so
        // an answer is begun only when no sealed control frame waits.
        if let Some(bytes) = self.control.pop_front() {
            self.out = Out::Control(bytes, 0);
            return;
        }
        if self.draining {
            return;
        }
        let Phase::Open(Session { sealer, .. }) = &mut self.phase else { return };
        match self.answers.front() {
            Some(Answer::Ready(_)) => {
                if let Some(Answer::Ready(mut buffer)) = self.answers.pop_front() {
                    frame::seal_data(sealer, kind::DATA, &mut buffer);
                    self.out = Out::Data(buffer, 0);
                }
            }
            Some(Answer::Missing) => {
                self.answers.pop_front();
                let (kind, payload) = Message::Error("Not Found".into()).encode();
                self.out = Out::Control(frame::seal(sealer, kind, &payload), 0);
            }
            Some(Answer::Queued(_) | Answer::Reading(_)) | None => {}
        }
    }

    /// `n` bytes of [`Self::send_chunk`] are on their way; the buffer of a blob that is through.
    pub(crate) fn sent(&mut self, now: Instant, n: usize) -> Option<Buffer> {
        self.last_moved = now;
        match &mut self.out {
            Out::Nothing => None,
            Out::Control(bytes, at) => {
                *at = (*at + n).min(bytes.len());
                if *at == bytes.len() {
                    self.out = Out::Nothing;
                }
                None
            }
            Out::Data(buffer, at) => {
                *at = (*at + n).min(buffer.frame().len());
                if *at < buffer.frame().len() {
                    return None;
                }
                match mem::replace(&mut self.out, Out::Nothing) {
                    Out::Data(buffer, _) => Some(buffer),
                    Out::Nothing | Out::Control(..) => None,
                }
            }
        }
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
        let answer =
            matches!(self.answers.front(), Some(Answer::Ready(_) | Answer::Missing)) && !self.draining;
        let ready = self.write_idle && (!self.control.is_empty() || answer);
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
        if let Out::Data(buffer, _) = self.out {
            sending.push(buffer);
        }
        (self.assembly.map(|a| a.buffer), sending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BLOB_LEN;
    use alloc::vec;

    const NOW: Instant = Instant(0);

    /// Moves all bytes that `from` has to `to`, at most `piece` at a time; what they amounted to.
    fn pump(from: &mut Conn, to: &mut Conn, piece: usize) -> Result<Vec<Incoming>, Violation> {
        let mut incoming = Vec::new();
        loop {
            let chunk = from.send_chunk(NOW).to_vec();
            if chunk.is_empty() {
                return Ok(incoming);
            }
            let space = to.recv_space();
            let n = space.len().min(chunk.len()).min(piece);
            if n == 0 {
                return Ok(incoming);
            }
            space[..n].copy_from_slice(&chunk[..n]);
            from.sent(NOW, n);
            let got = to.received(NOW, n)?;
            if !matches!(got, Incoming::Nothing) {
                incoming.push(got);
            }
        }
    }

    fn keyed(piece: usize) -> (Conn, Conn) {
        let mut rng = Rng::new([5; 32]);
        let mut dialler = Conn::new(Role::Dialler, &mut rng, NOW);
        let mut listener = Conn::new(Role::Listener, &mut rng, NOW);
        assert!(matches!(pump(&mut dialler, &mut listener, piece).as_deref(), Ok([Incoming::Keyed(_)])));
        assert!(matches!(pump(&mut listener, &mut dialler, piece).as_deref(), Ok([Incoming::Keyed(_)])));
        (dialler, listener)
    }

    fn blob(fill: u8) -> Buffer {
        let mut buffer = Buffer::new();
        buffer.blob_mut().fill(fill);
        buffer.blob_mut()[BLOB_LEN - 1] = 0xEE;
        buffer
    }

    fn serve(conn: &mut Conn, fill: u8) {
        let id = conn.next_to_read().expect("a request waits");
        conn.reading(id);
        assert!(conn.read_done(id, Some(blob(fill))).is_none());
    }

    #[test]
    fn a_blob_arrives_whole_whatever_the_pieces() {
        for piece in [999, 65_536, usize::MAX] {
            let (mut dialler, mut listener) = keyed(piece);
            dialler.request(BlobId([1; 32]));
            dialler.give_buffer(Buffer::new());
            assert!(matches!(pump(&mut dialler, &mut listener, piece).as_deref(), Ok([Incoming::Request])));
            serve(&mut listener, 7);
            let mut got = pump(&mut listener, &mut dialler, piece).expect("honest");
            let Some(Incoming::Blob(id, buffer)) = got.pop() else { panic!("no blob") };
            assert_eq!((id, got.len()), (BlobId([1; 32]), 0));
            assert!(buffer.blob() == blob(7).blob());
        }
    }

    #[test]
    fn data_split_over_frames_of_any_size_is_joined() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        let content: Vec<u8> = (0..BLOB_LEN).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
        dialler.request(BlobId([1; 32]));
        dialler.give_buffer(Buffer::new());
        let mut got = Vec::new();
        let mut rest = &content[..];
        for len in [1, 500, 0, 65_000, 300_000, 65_535, 65_536, 400_000, usize::MAX] {
            let (part, after) = rest.split_at(len.min(rest.len()));
            rest = after;
            let Phase::Open(Session { sealer, .. }) = &mut listener.phase else { panic!("open") };
            let mut frame = u32::try_from(part.len() + 17).expect("small").to_be_bytes().to_vec();
            frame.push(kind::DATA);
            frame.extend(part);
            let tag = sealer.seal(&mut frame[4..]);
            frame.extend(tag);
            listener.control.push_back(frame);
            got.extend(pump(&mut listener, &mut dialler, 10_000).expect("honest"));
        }
        assert!(matches!(&got[..], [Incoming::Blob(_, buffer)] if buffer.blob() == content));
    }

    #[test]
    fn answers_keep_the_order_of_the_requests() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        for i in 1..=3 {
            dialler.request(BlobId([i; 32]));
        }
        pump(&mut dialler, &mut listener, usize::MAX).expect("honest");
        for id in [1, 2].map(|i| BlobId([i; 32])) {
            assert_eq!(listener.next_to_read(), Some(id));
            listener.reading(id);
        }
        assert_eq!(listener.next_to_read(), None, "two are loaded at most");
        assert!(listener.read_done(BlobId([2; 32]), Some(blob(2))).is_none());
        assert!(listener.send_chunk(NOW).is_empty(), "the first answer is not there yet");
        assert!(listener.read_done(BlobId([1; 32]), None).is_none());
        assert!(listener.take_writable());
        dialler.give_buffer(Buffer::new());
        let got = pump(&mut listener, &mut dialler, usize::MAX).expect("honest");
        assert!(
            matches!(&got[..], [Incoming::NotFound(a), Incoming::Blob(b, _)] if (a.0[0], b.0[0]) == (1, 2))
        );
    }

    #[test]
    fn a_late_answer_of_the_store_gives_its_buffer_back() {
        let (_, mut listener) = keyed(usize::MAX);
        assert!(listener.read_done(BlobId([1; 32]), Some(Buffer::new())).is_some());
    }

    #[test]
    fn reading_pauses_at_each_bound_and_resumes() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        for i in 0..=REQUESTS_QUEUED_MAX {
            dialler.request(BlobId([u8::try_from(i).expect("few"); 32]));
        }
        pump(&mut dialler, &mut listener, usize::MAX).expect("honest");
        assert!(listener.recv_space().is_empty() && !listener.take_readable());
        serve(&mut listener, 1);
        listener.send_chunk(NOW);
        assert!(listener.take_readable() && !listener.recv_space().is_empty());

        assert!(dialler.recv_space().is_empty(), "no buffer for what is outstanding");
        dialler.give_buffer(Buffer::new());
        assert!(dialler.take_readable() && !dialler.recv_space().is_empty());
    }

    #[test]
    fn blobs_that_nobody_asked_for_are_refused_before_memory_is_taken() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        listener.push(&Message::Data(b"x".to_vec()));
        assert_eq!(pump(&mut listener, &mut dialler, 64).map(|_| ()), Err(Violation::UnaskedData));
        let (mut dialler, _) = keyed(usize::MAX);
        dialler.recv_space().copy_from_slice(&1_048_609_u32.to_be_bytes());
        assert_eq!(dialler.received(NOW, 4).map(|_| ()), Err(Violation::FrameLong));
    }

    #[test]
    fn more_than_a_blob_is_refused() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        dialler.request(BlobId([1; 32]));
        dialler.give_buffer(Buffer::new());
        for _ in 0..BLOB_LEN / 60_000 {
            listener.push(&Message::Data(vec![0; 60_000]));
            assert!(pump(&mut listener, &mut dialler, usize::MAX).is_ok());
        }
        listener.push(&Message::Data(vec![0; 60_000]));
        assert_eq!(pump(&mut listener, &mut dialler, usize::MAX).map(|_| ()), Err(Violation::DataLong));
    }

    #[test]
    fn unasked_answers_and_chatter_end_the_connection() {
        for message in [Message::Ok("x".into()), Message::Peers(vec![])] {
            let (mut dialler, mut listener) = keyed(usize::MAX);
            listener.push(&message);
            assert_eq!(pump(&mut listener, &mut dialler, 64).map(|_| ()), Err(Violation::Unasked));
        }
        let (mut dialler, mut listener) = keyed(usize::MAX);
        for _ in 0..UNKNOWN_MESSAGES_MAX {
            listener.push(&Message::Unknown(0x99));
            assert!(pump(&mut listener, &mut dialler, 64).is_ok());
        }
        listener.push(&Message::Unknown(0x99));
        assert_eq!(pump(&mut listener, &mut dialler, 64).map(|_| ()), Err(Violation::Chatter));
    }

    #[test]
    fn an_error_answers_what_was_asked_first() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        dialler.ask_for_peers(BlobId([9; 32]));
        dialler.request(BlobId([1; 32]));
        dialler.give_buffer(Buffer::new());
        listener.push(&Message::Error("what?".into()));
        listener.push(&Message::Error("Not Found".into()));
        let got = pump(&mut listener, &mut dialler, 64).expect("honest");
        assert!(matches!(&got[..], [Incoming::NotFound(id)] if id.0[0] == 1));
    }

    #[test]
    fn draining_sends_the_reason_and_reads_no_more() {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        listener.drain("Protocol Version Mismatch");
        assert!(listener.recv_space().is_empty() && !listener.is_drained());
        let got = pump(&mut listener, &mut dialler, 64).expect("honest");
        assert!(got.is_empty(), "a remark that answers nothing");
        assert!(listener.is_drained());
    }
}
