//! The trace: a hash over all events, to compare two runs.

use blake2::Blake2b;
use blake2::digest::{Digest, consts::U32};
use megatorrent_core::node::{Action, Answer, Event, Job, Takers};
use megatorrent_core::time::Instant;

use crate::host::HostId;

/// A hash over (time, host, kind, count) of everything that passed between the nodes and their world.
///
/// Two runs of one seed have the same trace, on any machine. So the numbers of the kinds must stay the same between commits
/// that are compared.
pub(crate) struct Trace {
    hash: Blake2b<U32>,
    /// Entries that are not hashed yet, so that the hash gets whole blocks.
    waiting: Vec<u8>,
    entries: u64,
}

/// Bytes of an entry: time, host, kind, count.
const ENTRY_LEN: usize = 8 + 4 + 1 + 8;
/// Bytes that are hashed at once.
const WAITING_MAX: usize = 128 * ENTRY_LEN;

/// The kind of an event.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Started = 1,
    Crashed = 2,
    Woken = 3,
    Received = 4,
    Sent = 5,
    Accepted = 6,
    Dialed = 7,
    Disconnected = 8,
    Answered = 9,
    Dial = 20,
    Close = 21,
    Readable = 22,
    Writable = 23,
    ReadBlob = 30,
    WriteBlob = 31,
    Have = 32,
    OpenBlob = 33,
    Persist = 34,
    Dht = 35,
    FinishBlob = 36,
    NoteIds = 37,
    Head = 40,
    Complete = 41,
    Published = 42,
    Connection = 43,
    Banned = 44,
    Answer = 45,
    OtherEvent = 59,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { hash: Blake2b::new(), waiting: Vec::with_capacity(WAITING_MAX), entries: 0 }
    }

    pub(crate) fn record(&mut self, now: Instant, host: HostId, kind: Kind, count: u64) {
        let mut entry = [0; ENTRY_LEN];
        entry[..8].copy_from_slice(&now.0.to_le_bytes());
        entry[8..12].copy_from_slice(&host.0.to_le_bytes());
        entry[12] = kind as u8;
        entry[13..].copy_from_slice(&count.to_le_bytes());
        self.waiting.extend_from_slice(&entry);
        if self.waiting.len() >= WAITING_MAX {
            self.hash.update(&self.waiting);
            self.waiting.clear();
        }
        self.entries += 1;
    }

    pub(crate) fn record_action(&mut self, now: Instant, host: HostId, action: &Action) {
        let (kind, count) = match action {
            Action::Dial(job, addr) => (Kind::Dial, job.0 ^ u64::from(addr.port())),
            Action::Close(conn, _) => (Kind::Close, u64::from(conn.slot)),
            Action::Readable(conn) => (Kind::Readable, u64::from(conn.slot)),
            Action::Writable(conn) => (Kind::Writable, u64::from(conn.slot)),
            Action::Job(_, job) => of_job(job),
            Action::Event(event) => of_event(event),
            Action::Answer(id, answer) => match answer {
                Ok(Answer::Published { takers, .. }) => {
                    let (Takers::DhtNodes(count) | Takers::Gateways { count, .. }) = takers;
                    (Kind::Published, u64::from(*count))
                }
                _ => (Kind::Answer, id.0),
            },
        };
        self.record(now, host, kind, count);
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.hash.clone().chain_update(&self.waiting).finalize().into()
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }
}

fn of_job(job: &Job) -> (Kind, u64) {
    match job {
        Job::ReadBlob(id, _) => (Kind::ReadBlob, u64::from(id.0[0])),
        Job::WriteBlob(id, ..) => (Kind::WriteBlob, u64::from(id.as_bytes()[0])),
        Job::Have(ids, _) => (Kind::Have, ids.len() as u64),
        Job::ReadPart(root, part, _) => (Kind::ReadBlob, u64::from(root.0[0]) << 4 | *part as u64),
        Job::WritePart(root, part, ..) => (Kind::WriteBlob, u64::from(root.0[0]) << 4 | *part as u64),
        Job::FinishBlob(root, _) => (Kind::FinishBlob, u64::from(root.0[0])),
        Job::NoteIds(ids) => (Kind::NoteIds, ids.len() as u64),
        Job::OpenBlob(blob, _) => (Kind::OpenBlob, u64::from(blob.root.0[0])),
        Job::Persist(_, value) => (Kind::Persist, value.as_ref().map_or(0, |value| value.len() as u64)),
        Job::Dht(_) => (Kind::Dht, 1),
    }
}

fn of_event(event: &Event) -> (Kind, u64) {
    match event {
        Event::Head { sequence, .. } => (Kind::Head, *sequence),
        Event::FileComplete { file, .. } => (Kind::Complete, *file as u64),
        Event::Complete { sequence, .. } => (Kind::Complete, *sequence),
        Event::Connected { conn, .. } | Event::Disconnected { conn, .. } => {
            (Kind::Connection, u64::from(conn.slot))
        }
        Event::Banned { until, .. } => (Kind::Banned, until.0),
        _ => (Kind::OtherEvent, 0),
    }
}
