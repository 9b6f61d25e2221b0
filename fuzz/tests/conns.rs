//! One connection with a peer that says anything, and asks for and brings parts under any numbers (`docs/protocol.md` §12).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use megatorrent_core::client::Client;
use megatorrent_core::codec::{EXACT_STEP, Message, Want};
use megatorrent_core::conn::{Conn, Incoming};
use megatorrent_core::ids::Root;
use megatorrent_core::limits::{PIECE_LEN_MAX, WANTS_MAX};
use megatorrent_core::parts::{Mask, PART_LEN, PARTS, VALUES_LEN, Values};
use megatorrent_core::rng::Rng;
use megatorrent_core::time::Instant;
use megatorrent_core::transport::{Link, Role};
use megatorrent_fuzz::{Serving, byte_strings, check, near, number};

const NOW: Instant = Instant(0);
/// Blobs that are asked for.
const BLOBS: u8 = 3;
/// A WANT's last part is cut after at most this many steps.
const STEPS_MAX: u32 = 15;

fn plaintexts() -> &'static [Vec<u8>] {
    static PLAINTEXTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PLAINTEXTS.get_or_init(|| {
        [("message", "decode"), ("v6", "decode"), ("v6", "parts")]
            .iter()
            .flat_map(|(layer, op)| byte_strings(layer, op, "plaintext"))
            .collect()
    })
}

/// What was asked of the peer and has not come.
#[derive(Default)]
struct Due {
    bytes: u64,
    values: u64,
    parts: usize,
}

/// Our end of a connection, what it is due, and the peer.
struct Line {
    conn: Conn,
    peer: Client,
    due: BTreeMap<Root, Due>,
    wants: Vec<Serving>,
    is_over: bool,
}

impl Line {
    fn new() -> Self {
        let mut rng = Rng::new([1; 32]);
        let conn = Conn::new(Link::v5(Role::Dialler, &mut rng), NOW);
        let peer = Client::new(Role::Listener, &mut rng);
        let mut line = Self { conn, peer, due: BTreeMap::new(), wants: Vec::new(), is_over: false };
        line.take();
        line.bring();
        assert!(line.conn.is_open() && line.peer.is_open());
        line
    }

    /// The peer takes all that we have to say.
    fn take(&mut self) {
        loop {
            let chunk = self.conn.send_chunk(NOW);
            if chunk.is_empty() {
                break;
            }
            self.peer.feed(chunk);
            let len = chunk.len();
            assert!(self.conn.sent(NOW, len).is_none());
        }
        while self.peer.hear().expect("we keep the rules").is_some() {}
    }

    /// What the peer has to say comes.
    fn bring(&mut self) {
        let wire = self.peer.take_output();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let space = self.conn.recv_space();
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            let mut received = self.conn.received(NOW, n);
            loop {
                match received {
                    Ok(Incoming::Nothing) => break,
                    Ok(incoming) => self.note(&incoming),
                    Err(_) => {
                        self.is_over = true;
                        assert!(self.conn.recv_space().is_empty());
                        return;
                    }
                }
                received = self.conn.received(NOW, 0);
            }
            if n == 0 {
                // Too much waits for the peer.
                return;
            }
        }
    }

    /// Checks that it was asked for, and has not come before.
    fn note(&mut self, incoming: &Incoming) {
        let due = |root: &Root| "it was never asked for".to_owned() + &format!(": {root:?}");
        match incoming {
            Incoming::Piece(piece) => {
                let (len, of) = (piece.bytes().len(), self.due.get_mut(&piece.root));
                assert!(piece.part < PARTS && (1..=PIECE_LEN_MAX).contains(&len));
                let of = of.unwrap_or_else(|| panic!("{}", due(&piece.root)));
                of.bytes = of.bytes.checked_sub(len as u64).expect("no more comes than was asked for");
            }
            Incoming::Values(root, _) => {
                let of = self.due.get_mut(root).unwrap_or_else(|| panic!("{}", due(root)));
                of.values = of.values.checked_sub(1).expect("values come once");
            }
            Incoming::Refused(root, mask) => {
                assert!(self.due.get(root).is_some_and(|of| of.parts >= mask.len()));
            }
            Incoming::Blob(..) | Incoming::NotFound(_) | Incoming::PublishAnswered(_) => {
                panic!("nobody asked: {incoming:?}");
            }
            _ => {}
        }
    }

    fn ask(&mut self, root: Root, mask: Mask, values: bool, last_len: Option<u32>) {
        if mask.is_empty() || !self.conn.may_want() {
            return;
        }
        self.conn.want(root, mask, values, last_len);
        let due = self.due.entry(root).or_default();
        let last = last_len.map_or(PART_LEN, |len| len as usize);
        due.bytes += ((mask.len() - 1) * PART_LEN + last) as u64;
        due.values += u64::from(values);
        due.parts += mask.len();
        let number = u32::try_from(self.wants.len()).expect("few");
        self.wants.push(Serving::new(Want { number, root, mask, values, last_len }));
    }

    /// The peer brings what comes next of one WANT.
    fn serve(&mut self, n: usize) {
        static PART: OnceLock<Vec<u8>> = OnceLock::new();
        let Some(n) = n.checked_rem(self.wants.len()) else { return };
        let part = PART.get_or_init(|| vec![7; PART_LEN]);
        let message = self.wants[n].next(&Values::from_bytes([7; VALUES_LEN]), |_| part);
        if let Some(message) = message {
            self.peer.send(&message);
            self.bring();
        }
    }

    fn check(&self) {
        let asked: usize = self.due.values().map(|due| due.parts).sum();
        assert!(self.conn.parts_outstanding() <= asked);
        assert!(self.conn.waiting_parts().count() <= 2 * WANTS_MAX);
        assert!(self.conn.waiting_blob().is_none() || self.conn.owes_answers());
    }
}

fn root(input: &mut Unstructured<'_>) -> Result<Root> {
    Ok(Root([input.int_in_range(1..=BLOBS)?; 32]))
}

fn narrow(input: &mut Unstructured<'_>, edges: &[u64]) -> Result<u32> {
    Ok(u32::try_from(number(input, edges)?).unwrap_or(u32::MAX))
}

/// What a peer says that knows how many WANTs it has got.
fn said(input: &mut Unstructured<'_>, wants: u64) -> Result<Vec<u8>> {
    let number = if input.ratio(3, 4)? { input.int_in_range(0..=8)? } else { narrow(input, &[wants])? };
    let message = match input.int_in_range(0..=6)? {
        0 => return near(input, plaintexts()),
        1 | 2 => {
            let len = match input.int_in_range(0..=3)? {
                0 => megatorrent_fuzz::number(input, &[PIECE_LEN_MAX as u64])? % (PIECE_LEN_MAX as u64 + 2),
                1 => u64::from(EXACT_STEP),
                _ => PIECE_LEN_MAX as u64,
            };
            let bytes = vec![7; usize::try_from(len).expect("short")];
            let (part, half) = (input.int_in_range(0..=16)?, input.int_in_range(0..=2)?);
            Message::Piece { number, part, half, bytes }
        }
        3 => {
            Message::Parts { number, values: Box::new(Values::from_bytes([input.arbitrary()?; VALUES_LEN])) }
        }
        4 => Message::Cancel { number, mask: Mask(input.arbitrary()?) },
        _ => {
            let last_len = if input.arbitrary()? {
                Some(narrow(input, &[0, EXACT_STEP.into(), PART_LEN as u64])?)
            } else {
                None
            };
            let (root, mask, values) = (root(input)?, Mask(input.arbitrary()?), input.arbitrary()?);
            Message::Want(Want { number, root, mask, values, last_len })
        }
    };
    Ok(message.encode())
}

#[test]
fn a_peer_brings_no_more_than_was_asked_for_and_asks_for_no_more_than_is_allowed() {
    check!(3000, |input| {
        let mut line = Line::new();
        while !input.is_empty() && !line.is_over {
            match input.int_in_range(0..=31)? {
                0..=3 => {
                    let mask = if input.arbitrary()? { Mask(3) } else { Mask(input.arbitrary()?) };
                    let steps: u32 = input.int_in_range(1..=STEPS_MAX)?;
                    let last_len = input.arbitrary::<bool>()?.then_some(steps * EXACT_STEP);
                    let (root, values) = (root(input)?, input.arbitrary()?);
                    line.ask(root, mask, values, last_len);
                }
                4 => line.conn.cancel(&root(input)?, Mask(input.arbitrary()?)),
                5 => {
                    let next = line.conn.waiting_parts().next();
                    if let Some((root, mask, _)) = next {
                        let part = mask.last().expect("something waits");
                        line.conn.reading_part(&root, part);
                        assert!(line.conn.part_done(&root, part, None).is_none());
                    }
                }
                6 => line.take(),
                7..=28 => line.serve(input.arbitrary::<u8>()?.into()),
                _ => {
                    let plaintext = said(input, line.wants.len() as u64)?;
                    line.peer.send_plaintext(plaintext);
                    line.bring();
                }
            }
            line.check();
        }
        line.take();
        Ok(())
    });
}
