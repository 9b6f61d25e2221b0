//! A node that follows a channel, whose peers watch it too and say anything.

#[path = "../../core/tests/all/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use megatorrent_core::codec::{EXACT_STEP, Have, Message, Tag, Want};
use megatorrent_core::ids::{BlobName, Root};
use megatorrent_core::limits::{HAVE_BLOBS_MAX, PIECE_LEN_MAX};
use megatorrent_core::node::Config;
use megatorrent_core::parts::{Mask, PART_LEN, Values};
use megatorrent_core::uri;
use megatorrent_fuzz::{Serving, byte_strings, check, near, number};
use support::content::{Content, SEQUENCE};
use support::peer::{Peer, deliver};
use support::{Bench, CONFIG, addr, identity};

/// Connections of one case.
const PEERS: usize = 3;
/// The tag of the vectors.
const SOME_TAG: [u8; 16] = [0xa5; 16];

fn plaintexts() -> &'static [Vec<u8>] {
    static PLAINTEXTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PLAINTEXTS.get_or_init(|| {
        [("message", "decode"), ("v6", "decode"), ("v6", "parts")]
            .iter()
            .flat_map(|(layer, op)| byte_strings(layer, op, "plaintext"))
            .collect()
    })
}

/// A channel of two blobs, of which the node has the first.
fn content() -> &'static (Content, [Values; 2]) {
    static CONTENT: OnceLock<(Content, [Values; 2])> = OnceLock::new();
    CONTENT.get_or_init(|| {
        let content = Content::new(&identity(), 2);
        let values = [0, 1].map(|n: usize| Values::of(&content.data[n].1));
        (content, values)
    })
}

/// A peer, what it was asked for and what it asked for.
struct Stranger {
    peer: Peer,
    tag: Tag,
    wants: Vec<(Root, Serving)>,
    /// Blobs and parts by number.
    asked: BTreeMap<u32, Vec<(Root, Mask)>>,
    bytes: u64,
}

impl Stranger {
    fn join(bench: &mut Bench, port: u16) -> Self {
        let mut peer = Peer::dial(bench, addr(port));
        let tag = peer.tag(&uri::topic(&identity().public_key(), None));
        peer.say_hello(bench, 6);
        peer.send(bench, &Message::Watch(vec![tag]));
        Self { peer, tag, wants: Vec::new(), asked: BTreeMap::new(), bytes: 0 }
    }

    /// Says what was encoded.
    fn say(&mut self, bench: &mut Bench, plaintext: &[u8]) {
        if let Ok(Message::Want(want)) = Message::decode(plaintext) {
            self.asked.entry(want.number).or_default().push((want.root, want.mask));
            self.bytes += (want.mask.len() * PART_LEN) as u64;
        }
        self.peer.send_plaintext(bench, plaintext);
    }

    /// Brings what comes next of one WANT.
    fn serve(&mut self, bench: &mut Bench, n: usize) {
        let (content, values) = content();
        let Some(at) = n.checked_rem(self.wants.len()) else { return };
        let (root, serving) = &mut self.wants[at];
        let Some(n) = (0..2).find(|n| content.root(*n) == *root) else { return };
        match serving.next(&values[n], |part| content.part(n, part)) {
            Some(message) => self.peer.send(bench, &message),
            None => drop(self.wants.remove(at)),
        }
    }

    /// Takes what the node says, which is what was asked for and true.
    fn hear(&mut self, bench: &mut Bench) {
        let (content, _) = content();
        for message in self.peer.receive(bench) {
            match message {
                Message::Want(want) => self.wants.push((want.root, Serving::new(want))),
                Message::Parts { number, values: told } => {
                    let roots = self.asked[&number].iter().map(|(root, _)| *root);
                    assert!(roots.into_iter().any(|root| told.root() == root));
                }
                Message::Piece { number, part, half, bytes } if !bytes.is_empty() => {
                    let asked = self.asked[&number].iter();
                    let mut of = asked.filter(|(_, mask)| mask.has(part.into())).map(|(root, _)| *root);
                    let start = usize::from(half) * PIECE_LEN_MAX;
                    let right = |root: Root| {
                        let n = (0..2).find(|n| content.root(*n) == root);
                        n.is_none_or(|n| content.part(n, part.into())[start..].starts_with(&bytes))
                    };
                    assert!(of.any(right), "{number} {part} {half}");
                    self.bytes = self.bytes.checked_sub(bytes.len() as u64).expect("it was asked for");
                }
                _ => {}
            }
        }
    }
}

fn narrow(input: &mut Unstructured<'_>, edges: &[u64]) -> Result<u32> {
    Ok(u32::try_from(number(input, edges)?).unwrap_or(u32::MAX))
}

fn have(input: &mut Unstructured<'_>, positions: &[u64]) -> Result<Have> {
    let bits: usize = input.int_in_range(0..=40)?;
    let mut have = Have {
        replaces: input.arbitrary()?,
        all: input.ratio(1, 4)?,
        bitmap: vec![input.arbitrary()?; bits],
        ..Have::default()
    };
    for _ in 0..input.int_in_range(0..=3)? {
        have.positions.push(narrow(input, positions)?);
        have.under_way.push((narrow(input, positions)?, Mask(input.arbitrary()?)));
    }
    Ok(have)
}

/// What a peer says that knows the channel and both of its blobs.
fn said(input: &mut Unstructured<'_>, tag: Tag) -> Result<Vec<u8>> {
    let (content, values) = content();
    let number = if input.ratio(3, 4)? { input.int_in_range(0..=4)? } else { narrow(input, &[])? };
    let n: usize = input.int_in_range(0..=1)?;
    let sequence = if input.ratio(3, 4)? { SEQUENCE } else { megatorrent_fuzz::number(input, &[SEQUENCE])? };
    let message = match input.int_in_range(0..=9)? {
        0 => {
            let mut plaintext = near(input, plaintexts())?;
            if let Some(at) = plaintext.windows(16).position(|bytes| bytes == SOME_TAG) {
                plaintext[at..at + 16].copy_from_slice(&tag.0);
            }
            return Ok(plaintext);
        }
        1 | 2 => {
            let (part, half): (u8, u8) = (input.int_in_range(0..=16)?, input.int_in_range(0..=2)?);
            let start = usize::from(half % 2) * PIECE_LEN_MAX;
            let mut bytes = content.part(n, usize::from(part % 16))[start..][..PIECE_LEN_MAX].to_vec();
            if input.ratio(1, 4)? {
                let len = megatorrent_fuzz::number(input, &[PIECE_LEN_MAX as u64])?;
                bytes.resize(usize::try_from(len).unwrap_or(usize::MAX).min(PIECE_LEN_MAX + 1), 0);
            }
            Message::Piece { number, part, half, bytes }
        }
        3 => Message::Parts { number, values: Box::new(values[n].clone()) },
        4 => Message::Cancel { number, mask: Mask(input.arbitrary()?) },
        5 => {
            let positions = [content.position(0).into(), content.position(1).into(), HAVE_BLOBS_MAX as u64];
            Message::Have(tag, sequence, have(input, &positions)?)
        }
        6 => Message::AskHave(tag, sequence),
        7 => Message::GetHead { tag, known: sequence, look_up: None },
        _ => {
            let last_len = if input.ratio(1, 4)? {
                Some(narrow(input, &[EXACT_STEP.into(), PART_LEN as u64])?)
            } else {
                None
            };
            let root = if input.ratio(1, 8)? { Root([9; 32]) } else { content.root(n) };
            let (mask, values) = (Mask(input.arbitrary()?), input.arbitrary()?);
            Message::Want(Want { number, root, mask, values, last_len })
        }
    };
    Ok(message.encode())
}

/// One thing that happens.
fn step(
    input: &mut Unstructured<'_>,
    bench: &mut Bench,
    strangers: &mut Vec<Stranger>,
    port: u16,
) -> Result<()> {
    if strangers.is_empty() || (strangers.len() < PEERS && input.ratio(1, 16)?) {
        strangers.push(Stranger::join(bench, port));
    }
    let Some(at) = usize::from(input.arbitrary::<u8>()?).checked_rem(strangers.len()) else { return Ok(()) };
    let stranger = &mut strangers[at];
    match input.int_in_range(0..=63)? {
        0 => bench.node.disconnected(bench.now, stranger.peer.conn),
        1 => {
            let len = input.int_in_range(0..=64)?;
            deliver(bench, stranger.peer.conn, input.bytes(len.min(input.len()))?);
        }
        2 | 3 => bench.sleep(Duration::from_millis(input.int_in_range(0..=3000)?)),
        4..=11 => stranger.hear(bench),
        12..=59 => stranger.serve(bench, input.arbitrary::<u8>()?.into()),
        _ => {
            let plaintext = said(input, stranger.tag)?;
            stranger.say(bench, &plaintext);
        }
    }
    bench.drain();
    Ok(())
}

/// Nothing but the channel's own blobs is stored, and nothing is held for a peer that is gone.
fn check_node(bench: &mut Bench, strangers: &mut Vec<Stranger>) {
    let (content, _) = content();
    for (conn, _) in std::mem::take(&mut bench.closed) {
        strangers.retain(|stranger| stranger.peer.conn != conn);
        assert!(bench.node.recv_space(conn).is_empty(), "a closed connection takes no bytes");
    }
    let store = &bench.world.store;
    assert!(store.under_way.keys().all(|root| content.data.iter().any(|(name, _)| *name == (*root).into())));
}

#[test]
fn whatever_peers_say_a_node_stores_and_sends_only_what_is_true_and_asked_for() {
    check!(250, |input| {
        let (content, _) = content();
        let mut bench = Bench::answering(Config { takes_all: input.arbitrary()?, ..CONFIG }, None);
        bench.world.ends_lookups = true;
        let (first, blob) = &content.data[0];
        bench.world.store.blobs.insert(*first, blob.clone());
        content.follow(&mut bench);
        let mut strangers = vec![Stranger::join(&mut bench, 1)];
        if input.ratio(3, 4)? {
            let all = Message::Have(strangers[0].tag, SEQUENCE, Have { all: true, ..Have::default() });
            strangers[0].say(&mut bench, &all.encode());
        }
        let mut port = 1;
        while !input.is_empty() {
            port += 1;
            let went = step(input, &mut bench, &mut strangers, port);
            check_node(&mut bench, &mut strangers);
            if went.is_err() {
                break;
            }
        }
        let unaltered = |(name, blob): &(BlobName, Vec<u8>)| {
            bench.world.store.blobs.get(name).is_none_or(|stored| stored == blob)
        };
        assert!(content.data.iter().all(unaltered));
        bench.node.shutdown(bench.now);
        bench.drain();
        let status = bench.status();
        assert_eq!((status.inbound, status.outbound), (0, 0));
        Ok(())
    });
}
