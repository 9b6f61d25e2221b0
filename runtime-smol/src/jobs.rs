//! Disk jobs on threads of their own: hashing, reading and writing blobs beside the network thread.
//!
//! Goals: every job gets exactly one answer, also after [`Jobs::stop`]; records are stored in the order in which they
//! were handed in. Non-goals: which job to do first (core starts no job that it could not wait for).
//!
//! The queues have no cap of their own, because core's caps bound them: a job that carries a blob or a part holds one of its buffers
//! for these ([`RECV_BUFFERS_MAX`](megatorrent_core::limits::RECV_BUFFERS_MAX),
//! [`SEND_BUFFERS_MAX`](megatorrent_core::limits::SEND_BUFFERS_MAX),
//! [`PARTS_UNDER_WAY_MAX`](megatorrent_core::limits::PARTS_UNDER_WAY_MAX),
//! [`PART_SEND_BUFFERS_MAX`](megatorrent_core::limits::PART_SEND_BUFFERS_MAX)), questions are bounded by
//! [`WANTED_PER_FETCH_MAX`](megatorrent_core::limits::WANTED_PER_FETCH_MAX) for each fetch, records by the
//! tables they belong to.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_io::Timer;
use megatorrent_core::ids::{BlobId, BlobName, JobId};
use megatorrent_core::node::{Held, Job, JobResult, RecordKey, Written};
use smol::channel::{self, Receiver, Sender};

use crate::queue::Queue;
use crate::signal::Signal;
use crate::state::State;
use crate::store::Store;

/// Least number of blob threads, so that one slow disk access does not hold up all others.
const WORKERS_MIN: usize = 2;
/// Most blob threads: beyond it they only wait for each other's disk.
const WORKERS_MAX: usize = 8;
/// How long jobs wait for threads that take none before another is woken, and twice that at most.
const PATIENCE: Duration = Duration::from_millis(10);
/// Stack of each thread. The work is shallow, and blobs are on the heap.
const STACK_LEN: usize = 512 * 1024;

type Answer = (JobId, JobResult);
type Record = (JobId, RecordKey, Option<Vec<u8>>);

/// The threads.
pub(crate) struct Jobs {
    blobs: Arc<Queue<(JobId, Job)>>,
    records: Sender<Record>,
    answers: Receiver<Answer>,
    pending: Cell<usize>,
    /// A job waits for a thread that is awake, while others sleep.
    is_left: Cell<bool>,
    left: Signal,
    threads: RefCell<Vec<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Starts the threads.
    pub(crate) fn start(store: &Store, state: &Arc<State>) -> io::Result<Self> {
        let (records, records_out) = channel::unbounded();
        let (answers_in, answers) = channel::unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let workers =
            thread::available_parallelism().map_or(WORKERS_MIN, usize::from).clamp(WORKERS_MIN, WORKERS_MAX);
        let blobs = Arc::new(Queue::new(workers));
        let mut threads = Vec::new();
        for _ in 0..workers {
            let (store, jobs, answers) = (store.clone(), Arc::clone(&blobs), answers_in.clone());
            let state = Arc::clone(state);
            threads.push(spawn("blobs", move || serve_blobs(&store, &state, &jobs, &answers))?);
        }
        let state = Arc::clone(state);
        threads.push(spawn("records", move || serve_records(&state, &records_out, &answers_in))?);
        if store.is_checking() {
            let (store, stopping) = (store.clone(), Arc::clone(&stopping));
            threads.push(spawn("check", move || check(&store, &stopping))?);
        }
        let threads = RefCell::new(threads);
        Ok(Self {
            blobs,
            records,
            answers,
            pending: Cell::new(0),
            is_left: Cell::default(),
            left: Signal::default(),
            threads,
            stopping,
        })
    }

    /// Hands a job to its thread. One that comes after [`Self::stop`] is answered at once: it has failed. (So has a DHT
    /// job, which is not for here.)
    pub(crate) fn submit(&self, id: JobId, job: Job) -> Result<(), JobResult> {
        let refused = match job {
            Job::Persist(key, value) => {
                self.records.try_send((id, key, value)).err().map(|_| JobResult::Persisted(false))
            }
            job => match self.blobs.push((id, job)) {
                Ok(is_left) => {
                    if is_left && !self.is_left.replace(true) {
                        self.left.notify();
                    }
                    None
                }
                Err((_, job)) => Some(failure(job)),
            },
        };
        if let Some(result) = refused {
            return Err(result);
        }
        self.pending.set(self.pending.get() + 1);
        Ok(())
    }

    /// Wakes threads for jobs that wait behind slow ones; never ends.
    pub(crate) async fn relieve(&self) -> Infallible {
        loop {
            self.left.wait_for(|| self.is_left.take().then_some(())).await;
            Timer::after(PATIENCE).await;
            while self.blobs.relieve() {
                Timer::after(PATIENCE).await;
            }
        }
    }

    /// The next answer.
    pub(crate) async fn answer(&self) -> Answer {
        let answer = self.answers.recv().await.expect("the threads end after this, in `stop`");
        self.pending.set(self.pending.get() - 1);
        answer
    }

    /// The next answer, if there is one already.
    pub(crate) fn try_answer(&self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.pending.set(self.pending.get() - 1);
        Some(answer)
    }

    /// Jobs that were not answered yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.get()
    }

    /// Lets the threads finish what they have and waits for them. Answers still come.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.blobs.close();
        self.records.close();
        let threads = self.threads.take();
        smol::unblock(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a worker thread had panicked");
                }
            }
        })
        .await;
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_LEN).spawn(work)
}

fn serve_blobs(store: &Store, state: &State, jobs: &Queue<(JobId, Job)>, answers: &Sender<Answer>) {
    while let Some((id, job)) = jobs.pop() {
        if answers.try_send((id, perform(store, state, job))).is_err() {
            return; // Nobody waits for answers any more.
        }
    }
}

fn perform(store: &Store, state: &State, job: Job) -> JobResult {
    match job {
        Job::ReadBlob(id, mut buffer) => {
            let found = or_warn(read_by_id(store, state, &id, buffer.blob_mut()), "a blob cannot be read");
            JobResult::BlobRead(buffer, found.unwrap_or_default())
        }
        Job::WriteBlob(name, id, buffer) => {
            let written = store.verify_and_write(&name, &id, buffer.blob());
            JobResult::BlobWritten(buffer, written)
        }
        Job::ReadPart(root, part, mut buffer) => {
            let read = store.read_part(&root, part, buffer.blob_mut());
            let values = or_warn(read, "a part of a blob cannot be read").flatten();
            JobResult::PartRead(buffer, values.map(Box::new))
        }
        Job::WritePart(root, part, values, mut buffer, stand) => {
            let written = store.write_part(&root, part, &values, buffer.blob_mut(), stand.as_deref());
            JobResult::PartWritten(buffer, written)
        }
        Job::FinishBlob(root, claims) => JobResult::BlobFinished(store.finish(&root, &claims)),
        Job::Have(names) => JobResult::Have(names.iter().map(|name| store.held(name)).collect()),
        Job::OpenBlob(blob, len) => {
            let content = or_warn(store.open_blob(&blob, len), "a blob cannot be read").flatten();
            JobResult::Opened(content)
        }
        Job::NoteIds(ids) => {
            or_warn(state.note_ids(&ids), "ids of blobs cannot be noted");
            JobResult::IdsNoted
        }
        job @ (Job::Persist(..) | Job::Dht(_)) => failure(job),
    }
}

/// Reads the v5 blob with an id, or the native one of which an author says that it has it, once it is known to.
fn read_by_id(store: &Store, state: &State, id: &BlobId, buf: &mut [u8]) -> io::Result<bool> {
    if store.read(&BlobName::V5(*id), buf)? {
        return Ok(true);
    }
    match or_warn(state.root_of(id), "the ids of blobs cannot be read").flatten() {
        Some(root) => store.read_by_id(id, &root, buf),
        None => Ok(false),
    }
}

fn or_warn<T, E: fmt::Display>(result: Result<T, E>, what: &str) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "{what}")).ok()
}

/// The answer to a job that cannot be done.
fn failure(job: Job) -> JobResult {
    match job {
        Job::ReadBlob(_, buffer) => JobResult::BlobRead(buffer, false),
        Job::WriteBlob(_, _, buffer) => JobResult::BlobWritten(buffer, Written::Failed),
        Job::ReadPart(_, _, buffer) => JobResult::PartRead(buffer, None),
        Job::WritePart(_, _, _, buffer, _) => JobResult::PartWritten(buffer, Written::Failed),
        Job::FinishBlob(..) => JobResult::BlobFinished(Err(Written::Failed)),
        Job::Have(names) => JobResult::Have(vec![Held::Nothing; names.len()]),
        Job::OpenBlob(..) => JobResult::Opened(None),
        Job::NoteIds(_) => JobResult::IdsNoted,
        Job::Persist(..) => JobResult::Persisted(false),
        Job::Dht(op) => crate::dht::failed(&op, megatorrent_core::node::DhtError::Failed),
    }
}

fn serve_records(state: &State, jobs: &Receiver<Record>, answers: &Sender<Answer>) {
    while let Ok((id, key, value)) = jobs.recv_blocking() {
        let stored = state.persist(&key, value.as_deref());
        if let Err(error) = &stored {
            tracing::error!(%error, "a record cannot be stored");
        }
        if answers.try_send((id, JobResult::Persisted(stored.is_ok()))).is_err() {
            return;
        }
    }
}

/// The machine may have gone down while blobs were written: hash all of them once, beside the node's work.
fn check(store: &Store, stopping: &AtomicBool) {
    match store.check_all(stopping) {
        Ok(Some(removed)) => tracing::info!(removed, "all blobs are checked"),
        Ok(None) => tracing::info!("the check of all blobs goes on at the next start"),
        Err(error) => {
            tracing::warn!(%error, "the blobs cannot all be checked; each is checked when it is used");
        }
    }
}
