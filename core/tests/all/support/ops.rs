//! What a driver, peers and the DHT might do to a node, in any order, as bytes spell it.

use std::sync::OnceLock;
use std::time::Duration;

use arbitrary::Arbitrary;
use megatorrent_core::codec::{EXACT_STEP, Have, Message, Want};
use megatorrent_core::ids::{BlobId, JobId, Root};
use megatorrent_core::limits::PIECE_LEN_MAX;
use megatorrent_core::node::{Command, DhtError, DhtOp, Held, Input, Job, JobResult, StoreNews, Written};
use megatorrent_core::parts::{Mask, PART_LEN, VALUES_LEN, Values};
use megatorrent_core::transport::Role;
use megatorrent_core::uri;

use super::content::{SEQUENCE, item_of, sealed, sealed_native};
use super::peer::{Peer, deliver};
use super::{Bench, addr, identity};

/// One thing.
#[derive(Arbitrary, Debug)]
pub(crate) enum Op {
    Accept(u8),
    Dialed(u8, bool),
    Bytes(u8, Vec<u8>),
    Send(u8),
    Disconnect(u8),
    Answer(u8, bool),
    Stray(u64),
    Wait(u16),
    Peers(u8, [u8; 4], u16),
    Gossip(u8, u64),
    AddPeer(u16),
    Request(u8, u8),
    Garbage(u8, u8, Vec<u8>),
    /// A peer watches the channel and says that it speaks v6.
    Join(u8),
    Say(u8, Said),
}

/// What a v6 peer says of blobs: plausible, or not.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Said {
    Want {
        number: u8,
        root: Name,
        mask: u16,
        values: bool,
        cut: u8,
    },
    Parts {
        number: u8,
        is_true: bool,
    },
    /// `len`: how much of the half; 255: all of it.
    Piece {
        number: u8,
        part: u8,
        half: u8,
        len: u8,
        is_true: bool,
    },
    Cancel {
        number: u8,
        mask: u16,
    },
    Have {
        bits: u8,
        positions: u8,
        under_way: [(u8, u16); 2],
    },
    AskHave,
}

/// A native blob.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Name {
    /// The one that the channel names in some versions.
    Known,
    Other(u8),
}

pub(crate) fn pick(len: usize, n: u8) -> Option<usize> {
    usize::from(n).checked_rem(len)
}

/// The blob of [`Name::Known`], and its values.
fn known() -> (Root, &'static [u8], &'static Values) {
    static KNOWN: OnceLock<(Root, Vec<u8>, Values)> = OnceLock::new();
    let (root, blob, values) = KNOWN.get_or_init(|| {
        let (chunk, blob) = sealed_native(2);
        let values = Values::of(&blob);
        (chunk.root.expect("it is native"), blob, values)
    });
    (*root, blob, values)
}

/// An answer of the kind that fits. `good`: as things should go; otherwise `n` chooses.
fn answer(job: Job, good: bool, n: u8) -> JobResult {
    let (_, blob, values) = known();
    let written = match n % 4 {
        _ if good => Written::Stored,
        0 => Written::Mismatch,
        1 => Written::NoSpace,
        2 => Written::Failed,
        _ => Written::NotOfRoot,
    };
    match job {
        Job::ReadBlob(_, buffer) => JobResult::BlobRead(buffer, good),
        Job::WriteBlob(_, _, buffer) => JobResult::BlobWritten(buffer, written),
        Job::ReadPart(_, part, mut buffer) => {
            buffer.blob_mut().copy_from_slice(&blob[part * PART_LEN..][..PART_LEN]);
            JobResult::PartRead(buffer, good.then(|| Box::new(values.clone())))
        }
        Job::WritePart(_, _, _, buffer, _) => JobResult::PartWritten(buffer, written),
        Job::FinishBlob(_, claims) if good => {
            JobResult::BlobFinished(Ok(vec![n.is_multiple_of(2); claims.len()]))
        }
        Job::FinishBlob(..) => JobResult::BlobFinished(Err(written)),
        Job::Have(names, _) => {
            let held = |at: usize| match (good, (usize::from(n) + at) % 3) {
                (false, _) | (_, 0) => Held::Nothing,
                (true, 2) if n > 200 => Held::OutOfReach,
                (_, 1) => Held::Parts(Mask(u16::from(n) << 3 | 1), Box::new(values.clone())),
                _ => Held::Whole,
            };
            JobResult::Have((0..names.len()).map(held).collect())
        }
        Job::NoteIds(_) => JobResult::IdsNoted,
        Job::OpenBlob(..) if !good && n.is_multiple_of(2) => JobResult::OutOfReach,
        Job::OpenBlob(_, len) => JobResult::Opened(good.then(|| vec![0; len as usize])),
        Job::Persist(..) => JobResult::Persisted(good),
        Job::Dht(DhtOp::Put(..)) => JobResult::DhtPut(if good { Ok(1) } else { Err(DhtError::Stale) }),
        Job::Dht(_) => JobResult::DhtDone(if good { Ok(()) } else { Err(DhtError::NoNodes) }),
    }
}

fn message(peer: &Peer, said: Said) -> Message {
    let tag = peer.tag(&uri::topic(&identity().public_key(), None));
    let (root, blob, values) = known();
    match said {
        Said::Want { number, root: name, mask, values, cut } => {
            let root = match name {
                Name::Known => root,
                Name::Other(n) => Root([n; 32]),
            };
            // Mostly all of the last part; else also lengths that are none.
            let last_len = (cut > 200).then(|| u32::from(cut - 201) * EXACT_STEP);
            Message::Want(Want { number: number.into(), root, mask: Mask(mask), values, last_len })
        }
        Said::Parts { number, is_true } => {
            let values = if is_true { values.clone() } else { Values::from_bytes([number; VALUES_LEN]) };
            Message::Parts { number: (number % 4).into(), values: Box::new(values) }
        }
        Said::Piece { number, part, half, len, is_true } => {
            let (part, half) = (part % 17, half % 3);
            let start = usize::from(part % 16) * PART_LEN + usize::from(half % 2) * PIECE_LEN_MAX;
            let len = if len == u8::MAX || is_true { PIECE_LEN_MAX } else { usize::from(len) };
            let mut bytes = blob[start..start + len].to_vec();
            if let Some(first) = bytes.first_mut().filter(|_| !is_true) {
                *first ^= 1;
            }
            Message::Piece { number: (number % 4).into(), part, half, bytes }
        }
        Said::Cancel { number, mask } => Message::Cancel { number: number.into(), mask: Mask(mask) },
        Said::Have { bits, positions, under_way } => {
            let have = Have {
                replaces: bits & 1 != 0,
                all: bits & 2 != 0,
                bitmap: vec![bits; usize::from(bits % 3)],
                positions: (0..u32::from(positions % 4)).collect(),
                under_way: under_way.map(|(at, mask)| ((at % 4).into(), Mask(mask))).into(),
            };
            Message::Have(tag, SEQUENCE, have)
        }
        Said::AskHave => Message::AskHave(tag, SEQUENCE),
    }
}

pub(crate) fn with_peer(bench: &mut Bench, peers: &mut [Peer], n: u8, act: &dyn Fn(&mut Bench, &mut Peer)) {
    if let Some(at) = pick(peers.len(), n) {
        act(bench, &mut peers[at]);
    }
}

pub(crate) fn apply(bench: &mut Bench, peers: &mut Vec<Peer>, op: Op) {
    match op {
        Op::Accept(port) => {
            if bench.node.accept(bench.now, addr(u16::from(port))).is_some() {
                bench.drain();
                peers.push(Peer::dial(bench, addr(u16::from(port) + 300)));
            }
        }
        Op::Dialed(n, good) => {
            if let Some(at) = pick(bench.dials.len(), n) {
                let (job, _) = bench.dials.remove(at);
                if let Some(conn) = bench.node.dialed(bench.now, job, good) {
                    peers.push(Peer::shake(bench, conn, Role::Listener));
                }
            }
        }
        Op::Answer(n, good) => {
            if let Some((id, job)) = pick(bench.jobs.len(), n).and_then(|at| bench.jobs.remove(at)) {
                if let Job::Dht(DhtOp::Get(_)) = &job {
                    let (chunk, _) = if n.is_multiple_of(2) { sealed_native(2) } else { sealed(1) };
                    bench.handle(Input::DhtItem(id, item_of(&chunk, SEQUENCE.cast_signed())));
                }
                bench.handle(Input::Done(id, answer(job, good, n)));
            }
        }
        Op::Stray(id) => {
            let stray = JobId(u64::MAX - id);
            bench.handle(Input::Done(stray, JobResult::Persisted(true)));
            bench.handle(Input::DhtItem(stray, item_of(&sealed(1).0, 1)));
            let news = if id.is_multiple_of(2) { StoreNews::Damaged } else { StoreNews::Back };
            bench.handle(Input::Store(news));
        }
        Op::Wait(ms) => bench.sleep(Duration::from_millis(u64::from(ms))),
        Op::Peers(n, ip, port) => {
            if let Some((id, _)) = pick(bench.jobs.len(), n).map(|at| &bench.jobs[at]) {
                let found = std::net::SocketAddr::from((ip, port)).into();
                bench.handle(Input::DhtPeers(*id, vec![found]));
            }
        }
        Op::AddPeer(port) => drop(bench.command(Command::AddPeer(addr(port)))),
        of_peer => apply_to_peer(bench, peers, of_peer),
    }
}

/// What a peer says, or how its bytes come.
fn apply_to_peer(bench: &mut Bench, peers: &mut [Peer], op: Op) {
    match op {
        Op::Bytes(n, bytes) => with_peer(bench, peers, n, &|b, p| deliver(b, p.conn, &bytes)),
        Op::Send(n) => with_peer(bench, peers, n, &|b, p| {
            let len = b.node.send_chunk(b.now, p.conn).len();
            b.node.sent(b.now, p.conn, len);
        }),
        Op::Disconnect(n) => with_peer(bench, peers, n, &|b, p| b.node.disconnected(b.now, p.conn)),
        Op::Gossip(n, seq) => with_peer(bench, peers, n, &|b, p| {
            p.send(
                b,
                &Message::Hello {
                    version: Some(5),
                    sequences: [(identity().public_key(), seq)].into(),
                    port: None,
                    features: seq,
                },
            );
        }),
        Op::Request(n, id) => {
            with_peer(bench, peers, n, &|b, p| p.send(b, &Message::Request(BlobId([id; 32]))));
        }
        Op::Garbage(n, kind, payload) => with_peer(bench, peers, n, &|b, p| {
            p.send_plaintext(b, &[&[kind], &payload[..]].concat());
        }),
        Op::Join(n) => with_peer(bench, peers, n, &|b, p| {
            p.say_hello(b, 6);
            let tag = p.tag(&uri::topic(&identity().public_key(), None));
            p.send(b, &Message::Watch(vec![tag]));
        }),
        Op::Say(n, said) => with_peer(bench, peers, n, &|b, p| {
            let message = message(p, said);
            p.send(b, &message);
        }),
        other => unreachable!("{other:?} is not of a peer"),
    }
}
