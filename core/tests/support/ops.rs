//! What a driver, peers and the DHT might do to a node, in any order, as bytes spell it.

use std::time::Duration;

use arbitrary::Arbitrary;
use megatorrent_core::blob::BLOB_LEN;
use megatorrent_core::codec::Message;
use megatorrent_core::ids::{BlobName, JobId};
use megatorrent_core::node::{Command, DhtError, DhtOp, Input, Job, JobResult, Written};
use megatorrent_core::transport::Role;

use super::content::{item_of, sealed};
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
}

pub(crate) fn pick(len: usize, n: u8) -> Option<usize> {
    usize::from(n).checked_rem(len)
}

fn answer(job: Job, good: bool) -> JobResult {
    match job {
        Job::ReadBlob(_, buffer) => JobResult::BlobRead(buffer, good),
        Job::WriteBlob(_, buffer) => {
            JobResult::BlobWritten(buffer, if good { Written::NoSpace } else { Written::Mismatch })
        }
        Job::Have(ids) => JobResult::Have(vec![good; ids.len()]),
        Job::OpenBlob(_) => JobResult::Opened(good.then(|| vec![0; BLOB_LEN - 16])),
        Job::Persist(..) => JobResult::Persisted(good),
        Job::Dht(DhtOp::Put(..)) => JobResult::DhtPut(if good { Ok(1) } else { Err(DhtError::Stale) }),
        Job::Dht(_) => JobResult::DhtDone(if good { Ok(()) } else { Err(DhtError::NoNodes) }),
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
        Op::Bytes(n, bytes) => with_peer(bench, peers, n, &|b, p| deliver(b, p.conn, &bytes)),
        Op::Send(n) => with_peer(bench, peers, n, &|b, p| {
            let len = b.node.send_chunk(b.now, p.conn).len();
            b.node.sent(b.now, p.conn, len);
        }),
        Op::Disconnect(n) => with_peer(bench, peers, n, &|b, p| b.node.disconnected(b.now, p.conn)),
        Op::Answer(n, good) => {
            if let Some((id, job)) = pick(bench.jobs.len(), n).and_then(|at| bench.jobs.remove(at)) {
                if let Job::Dht(DhtOp::Get(_)) = &job {
                    bench.handle(Input::DhtItem(id, item_of(&sealed(1).0, i64::from(n))));
                }
                bench.handle(Input::Done(id, answer(job, good)));
            }
        }
        Op::Stray(id) => {
            let stray = JobId(u64::MAX - id);
            bench.handle(Input::Done(stray, JobResult::Persisted(true)));
            bench.handle(Input::DhtItem(stray, item_of(&sealed(1).0, 1)));
        }
        Op::Wait(ms) => bench.sleep(Duration::from_millis(u64::from(ms))),
        Op::Peers(n, ip, port) => {
            if let Some((id, _)) = pick(bench.jobs.len(), n).map(|at| &bench.jobs[at]) {
                let found = std::net::SocketAddr::from((ip, port)).into();
                bench.handle(Input::DhtPeers(*id, vec![found]));
            }
        }
        Op::Gossip(n, seq) => with_peer(bench, peers, n, &|b, p| {
            p.send(
                b,
                &Message::Hello {
                    version: Some(5),
                    sequences: [(identity().public_key(), seq)].into(),
                    port: None,
                },
            );
        }),
        Op::AddPeer(port) => bench.command(Command::AddPeer(addr(port))),
        Op::Request(n, id) => {
            with_peer(bench, peers, n, &|b, p| p.send(b, &Message::Request(BlobName([id; 32]))));
        }
        Op::Garbage(n, kind, payload) => with_peer(bench, peers, n, &|b, p| {
            p.send_plaintext(b, &[&[kind], &payload[..]].concat());
        }),
    }
}
