//! What the machine's own primitives allow, by the same crates and functions as the node.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use megatorrent_core::blob::{self, BLOB_LEN, PLAIN_LEN, TAG_LEN};
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::PIECE_LEN_MAX;
use megatorrent_core::parts::{self, PART_LEN};
use megatorrent_core::transport::{Handshake, Open, Opener, Role, Seal, Sealer, Session};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Outcome;
use crate::input::{self, Stream};

/// How long each primitive runs.
const TIME: Duration = Duration::from_millis(200);
/// What each thread writes; no more, since the disk has to take it later.
const FILE_MIB: usize = 64;
/// Bytes of a blob in a frame.
const FRAME_LEN: usize = PIECE_LEN_MAX;
/// What the measurements of one run leave on the disk: two threads, writing and reading, for ingest and for transfer.
pub(crate) const FILES_MIB: u64 = 8 * TRIES as u64 * FILE_MIB as u64;
/// How often each part of a limit is measured; the best counts, since whatever else runs only slows it down.
pub(crate) const TRIES: usize = 3;
/// Bytes that one connection carries.
const TCP_LEN: usize = 512 << 20;

/// Work that a core does again and again on 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    /// ChaCha20-Poly1305, as the transport seals frames of half a part.
    Seal,
    /// ChaCha20-Poly1305, as the transport opens them.
    Open,
    /// SHA-256, as a v5 blob is verified and a native one gets its id.
    Sha256,
    /// All that makes a native blob: its key by BLAKE3, ChaCha20-Poly1305, its root and values by BLAKE3.
    MakeBlob,
    /// Parts are checked against the blob's values, by BLAKE3.
    Check,
    /// Parts are opened, by ChaCha20.
    Crypt,
    /// Parts are sealed again and compared with the blob's values, as a file that is held in place is served.
    Reseal,
    /// A copy within memory.
    Copy,
    /// A new file is written by parts; the page cache takes them.
    FileWrite,
    /// A file that is in the page cache is read by parts.
    FileRead,
    /// Loopback TCP, a part at a time; sender and receiver together are one unit of work.
    Loopback,
}

impl Primitive {
    pub(crate) const ALL: [Self; 11] = [
        Self::Seal,
        Self::Open,
        Self::Sha256,
        Self::MakeBlob,
        Self::Check,
        Self::Crypt,
        Self::Reseal,
        Self::Copy,
        Self::FileWrite,
        Self::FileRead,
        Self::Loopback,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seal => "ChaCha20-Poly1305 seal, 32 KiB at a time",
            Self::Open => "ChaCha20-Poly1305 open, 32 KiB at a time",
            Self::Sha256 => "SHA-256",
            Self::MakeBlob => "a native blob made: key, seal, root",
            Self::Check => "parts checked: BLAKE3",
            Self::Crypt => "parts opened: ChaCha20",
            Self::Reseal => "parts sealed again and compared",
            Self::Copy => "memcpy",
            Self::FileWrite => "file written to the page cache",
            Self::FileRead => "file read from the page cache",
            Self::Loopback => "loopback TCP, both ends",
        }
    }

    /// Bytes per second, in MB, of `cores` cores at once. Files go into a fresh folder in `folder`.
    pub(crate) fn measure(self, cores: usize, folder: &Path) -> Outcome<f64> {
        match self {
            Self::Loopback => loopback(cores),
            Self::FileWrite => files(cores, folder, true),
            Self::FileRead => files(cores, folder, false),
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
                    for frame in buf[..PLAIN_LEN].chunks_mut(FRAME_LEN) {
                        black_box(sealer.seal(frame));
                    }
                })
            }
            Self::Open => opening(),
            Self::Sha256 => timed(move || {
                black_box(blob::id(&buf[..PLAIN_LEN]));
            }),
            Self::MakeBlob => timed(move || {
                black_box(blob::seal_valued(&secret, &mut buf, PLAIN_LEN));
            }),
            Self::Check => {
                let (_, values) = blob::seal_valued(&secret, &mut buf, PLAIN_LEN);
                timed(move || {
                    let mut parts = buf[..PLAIN_LEN].chunks(PART_LEN).enumerate();
                    assert!(parts.all(|(part, bytes)| values.check(part, bytes)), "these are its values");
                })
            }
            Self::Crypt => timed(move || {
                for (part, bytes) in buf[..PLAIN_LEN].chunks_mut(PART_LEN).enumerate() {
                    parts::crypt(&secret, part * PART_LEN, bytes);
                }
            }),
            Self::Reseal => {
                let content = buf[..PLAIN_LEN].to_vec();
                let (blob, values) = blob::seal_valued(&secret, &mut buf, PLAIN_LEN);
                Box::new(move || {
                    buf[..PLAIN_LEN].copy_from_slice(&content);
                    let start = Instant::now();
                    for (part, bytes) in buf[..PLAIN_LEN].chunks_mut(PART_LEN).enumerate() {
                        assert!(parts::reseal_part(&blob.key, &values, part, bytes), "it is the content");
                    }
                    start.elapsed()
                })
            }
            Self::Copy => {
                let mut to = vec![0; BLOB_LEN];
                timed(move || black_box(&mut to).copy_from_slice(black_box(&buf)))
            }
            Self::FileWrite | Self::FileRead | Self::Loopback => unreachable!("these need more than memory"),
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

/// Opens frames; only that counts.
fn opening() -> Box<dyn FnMut() -> Duration> {
    let (mut sealer, mut opener) = ciphers();
    let mut frame = vec![0; FRAME_LEN + TAG_LEN];
    Box::new(move || {
        let mut took = Duration::ZERO;
        for _ in 0..PLAIN_LEN / FRAME_LEN {
            let tag = sealer.seal(&mut frame[..FRAME_LEN]);
            frame[FRAME_LEN..].copy_from_slice(&tag);
            let start = Instant::now();
            assert!(opener.open(&mut frame).is_ok(), "what was sealed opens");
            took += start.elapsed();
        }
        took
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

/// Writes new files, or reads them again, a part at a time.
fn files(cores: usize, folder: &Path, write: bool) -> Outcome<f64> {
    let folder = tempfile::tempdir_in(folder)?.keep();
    input::warm_page_cache(&folder, 2 * (cores * FILE_MIB) as u64)?;
    let barrier = Barrier::new(cores);
    let rate = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|number| {
                let (path, barrier) = (folder.join(number.to_string()), &barrier);
                scope.spawn(move || file(&path, barrier, write))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("files do not panic")).sum::<Result<f64, _>>()
    });
    // Not removed: see `settle`.
    input::settle(&[&folder])?;
    Ok(rate?)
}

fn file(path: &Path, barrier: &Barrier, write: bool) -> std::io::Result<f64> {
    let (mut part, content) = (vec![0; PART_LEN], vec![7; PART_LEN]);
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let offsets = || (0..FILE_MIB << 20).step_by(PART_LEN).map(|at| at as u64);
    let write_all = || offsets().try_for_each(|at| file.write_all_at(&content, at));
    let start;
    if write {
        barrier.wait();
        start = Instant::now();
        write_all()?;
    } else {
        write_all()?;
        barrier.wait();
        start = Instant::now();
        offsets().try_for_each(|at| file.read_exact_at(&mut part, at))?;
    }
    Ok(mb((FILE_MIB << 20) as f64) / start.elapsed().as_secs_f64())
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
                let buf = vec![1; PART_LEN];
                let pinned = pin(0);
                barrier.wait();
                (0..TCP_LEN / PART_LEN).try_for_each(|_| sender.write_all(&buf))?;
                pinned
            });
            receivers.push(scope.spawn(move || -> std::io::Result<f64> {
                let mut buf = vec![0; PART_LEN];
                let pinned = pin(0);
                barrier.wait();
                let start = Instant::now();
                (0..TCP_LEN / PART_LEN).try_for_each(|_| receiver.read_exact(&mut buf))?;
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
