//! What the machine's own primitives allow, by the same crates and functions as the node.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use megatorrent_core::blob::{self, BLOB_LEN, PLAIN_LEN};
use megatorrent_core::ids::{BlobName, Secret};
use megatorrent_core::transport::{Handshake, Open, Opener, Role, Seal, Sealer, Session};
use megatorrent_runtime_smol::store::Store;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Outcome;
use crate::input::{self, Stream};

/// How long each primitive runs.
const TIME: Duration = Duration::from_millis(200);
/// Most blobs that each thread writes, since the disk has to take them later.
const FILES_MAX: usize = 64;
/// What the measurements of one run leave on the disk: two threads, writing and reading, for ingest and for transfer.
pub(crate) const FILES_MIB: u64 = 8 * TRIES as u64 * FILES_MAX as u64;
/// How often each part of a limit is measured; the best counts, since whatever else runs only slows it down.
pub(crate) const TRIES: usize = 3;
/// Bytes that one connection carries.
const TCP_LEN: usize = 512 << 20;

/// Work that a core does again and again on 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    /// ChaCha20-Poly1305, as the transport seals a DATA frame.
    Seal,
    /// ChaCha20-Poly1305, as the transport opens one.
    Open,
    /// SHA-256, as a received blob is verified.
    Sha256,
    /// BLAKE3 keyed, as a native blob gets its key.
    Blake3,
    /// All that makes a native blob: BLAKE3, ChaCha20-Poly1305, SHA-256.
    MakeBlob,
    /// A copy within memory.
    Copy,
    /// The store writes new blobs: create, write, rename; the page cache takes them.
    StoreWrite,
    /// The store reads blobs that are in the page cache.
    StoreRead,
    /// Loopback TCP; sender and receiver together are one unit of work.
    Loopback,
}

impl Primitive {
    pub(crate) const ALL: [Self; 9] = [
        Self::Seal,
        Self::Open,
        Self::Sha256,
        Self::Blake3,
        Self::MakeBlob,
        Self::Copy,
        Self::StoreWrite,
        Self::StoreRead,
        Self::Loopback,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seal => "ChaCha20-Poly1305 seal",
            Self::Open => "ChaCha20-Poly1305 open",
            Self::Sha256 => "SHA-256",
            Self::Blake3 => "BLAKE3 keyed",
            Self::MakeBlob => "BLAKE3 + seal + SHA-256",
            Self::Copy => "memcpy",
            Self::StoreWrite => "blob files written to the page cache",
            Self::StoreRead => "blob files read from the page cache",
            Self::Loopback => "loopback TCP, both ends",
        }
    }

    /// Bytes per second, in MB, of `cores` cores at once. Files go into a fresh folder in `folder`.
    pub(crate) fn measure(self, cores: usize, folder: &Path) -> Outcome<f64> {
        match self {
            Self::Loopback => loopback(cores),
            Self::StoreWrite => store(cores, folder, true),
            Self::StoreRead => store(cores, folder, false),
            _ => Ok(on_cores(cores, |_| self.in_memory())),
        }
    }

    /// The work of one thread on its own buffer; each call does [`PLAIN_LEN`] bytes and returns the time that counts.
    fn in_memory(self) -> Box<dyn FnMut() -> Duration> {
        let mut buf = vec![0; BLOB_LEN];
        Stream::new(1).fill(&mut buf);
        let secret = Secret::new([7; 32]);
        match self {
            Self::Seal => {
                let (mut sealer, _) = ciphers();
                timed(move || {
                    black_box(sealer.seal(&mut buf[..PLAIN_LEN]));
                })
            }
            Self::Open => {
                let (mut sealer, mut opener) = ciphers();
                Box::new(move || {
                    let tag = sealer.seal(&mut buf[..PLAIN_LEN]);
                    buf[PLAIN_LEN..].copy_from_slice(&tag);
                    let start = Instant::now();
                    assert!(opener.open(&mut buf).is_ok(), "what was sealed opens");
                    start.elapsed()
                })
            }
            Self::Sha256 => timed(move || {
                black_box(blob::id(&buf[..PLAIN_LEN]));
            }),
            Self::Blake3 => timed(move || {
                black_box(blake3::keyed_hash(&[7; 32], &buf[..PLAIN_LEN]));
            }),
            Self::MakeBlob => timed(move || {
                black_box(blob::seal(&secret, &mut buf[..BLOB_LEN], PLAIN_LEN));
            }),
            Self::Copy => {
                let mut to = vec![0; BLOB_LEN];
                timed(move || black_box(&mut to).copy_from_slice(black_box(&buf)))
            }
            Self::StoreWrite | Self::StoreRead | Self::Loopback => {
                unreachable!("these need more than memory")
            }
        }
    }
}

fn timed(mut work: impl FnMut() + 'static) -> Box<dyn FnMut() -> Duration> {
    Box::new(move || {
        let start = Instant::now();
        work();
        start.elapsed()
    })
}

/// A dialler's sealer and its listener's opener.
fn ciphers() -> (Sealer, Opener) {
    let dialler = Handshake::from_secret(Role::Dialler, [1; 32]);
    let listener = Handshake::from_secret(Role::Listener, [2; 32]);
    let (to_listener, to_dialler) = (dialler.public_key(), listener.public_key());
    let Session { sealer, .. } = dialler.finish(to_dialler).expect("an honest key");
    let Session { opener, .. } = listener.finish(to_listener).expect("an honest key");
    (sealer, opener)
}

/// Runs the same work on several threads at once, for [`TIME`]; the sum of their rates in MB/s.
fn on_cores(cores: usize, make: impl Fn(usize) -> Box<dyn FnMut() -> Duration> + Sync) -> f64 {
    let barrier = Barrier::new(cores);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|number| {
                let (make, barrier) = (&make, &barrier);
                scope.spawn(move || {
                    let mut work = make(number);
                    work();
                    barrier.wait();
                    let (mut calls, mut counted, start) = (0.0, Duration::ZERO, Instant::now());
                    while start.elapsed() < TIME {
                        counted += work();
                        calls += 1.0;
                    }
                    mb(calls * PLAIN_LEN as f64) / counted.as_secs_f64()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the work does not panic")).sum()
    })
}

/// Writes, or reads again, blobs through the node's own store.
fn store(cores: usize, folder: &Path, write: bool) -> Outcome<f64> {
    let folder = tempfile::tempdir_in(folder)?.keep();
    let store = Store::open(&folder, false)?;
    input::warm_page_cache(&folder, 2 * (cores * FILES_MAX) as u64)?;
    let barrier = Barrier::new(cores);
    let rate = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|number| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || store_blobs(store, number, barrier, write))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("the store does not panic"))
            .sum::<Result<f64, _>>()
    });
    // Not removed: see `settle`.
    input::settle(&[&folder])?;
    Ok(rate?)
}

fn store_blobs(store: &Store, thread: usize, barrier: &Barrier, write: bool) -> Result<f64, std::io::Error> {
    let mut stream = Stream::new(2 + thread as u64);
    let mut blob = vec![0; BLOB_LEN];
    stream.fill(&mut blob);
    // Each has an id of its own, and the right one, as some of the reads are checked.
    let mut name = |number: usize| {
        blob[..8].copy_from_slice(&number.to_be_bytes());
        BlobName::V5(blob::id(&blob))
    };
    let ids: Vec<_> = (0..FILES_MAX).map(&mut name).collect();
    let mut store_all = || {
        ids.iter().enumerate().try_for_each(|(number, id)| {
            blob[..8].copy_from_slice(&number.to_be_bytes());
            store.write(id, &blob).map_err(std::io::Error::other)
        })
    };
    let start;
    if write {
        barrier.wait();
        start = Instant::now();
        store_all()?;
    } else {
        store_all()?;
        barrier.wait();
        start = Instant::now();
        for id in &ids {
            assert!(store.read(id, &mut blob)?, "it was just written");
        }
    }
    Ok(mb((FILES_MAX * BLOB_LEN) as f64) / start.elapsed().as_secs_f64())
}

/// One connection for each core. On one core, both ends share it.
#[expect(clippy::disallowed_methods, reason = "the machine's TCP is measured, without a node")]
fn loopback(cores: usize) -> Outcome<f64> {
    let mut pairs = Vec::new();
    for _ in 0..cores {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let sender = TcpStream::connect(listener.local_addr()?)?;
        sender.set_nodelay(true)?;
        pairs.push((sender, listener.accept()?.0));
    }
    let barrier = Barrier::new(2 * cores);
    let pin = |_: usize| -> std::io::Result<()> {
        let mut set = CpuSet::new();
        set.set(0);
        if cores == 1 { Ok(sched_setaffinity(None, &set)?) } else { Ok(()) }
    };
    let rate = thread::scope(|scope| {
        let mut receivers = Vec::new();
        for (sender, receiver) in &mut pairs {
            let barrier = &barrier;
            scope.spawn(move || -> std::io::Result<()> {
                let buf = vec![1; BLOB_LEN];
                let pinned = pin(0);
                barrier.wait();
                (0..TCP_LEN / PLAIN_LEN).try_for_each(|_| sender.write_all(&buf[..PLAIN_LEN]))?;
                pinned
            });
            receivers.push(scope.spawn(move || -> std::io::Result<f64> {
                let mut buf = vec![0; BLOB_LEN];
                let pinned = pin(0);
                barrier.wait();
                let start = Instant::now();
                (0..TCP_LEN / PLAIN_LEN).try_for_each(|_| receiver.read_exact(&mut buf[..PLAIN_LEN]))?;
                pinned.map(|()| mb(TCP_LEN as f64) / start.elapsed().as_secs_f64())
            }));
        }
        receivers
            .into_iter()
            .map(|thread| thread.join().expect("sockets do not panic"))
            .sum::<Result<f64, _>>()
    });
    Ok(rate?)
}

pub(crate) fn mb(bytes: f64) -> f64 {
    bytes / 1e6
}
