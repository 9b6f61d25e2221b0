//! `verify`: a look at all that a home holds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use megatorrent_core::identity::PublicKey;
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::home::{self, Home};
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::verify::{Finding, Of, State, Summary, Told, VerifyError, verify};
use serde_json::json;

use super::subscribe::Goal;
use crate::args::Verify;
use crate::choices;
use crate::events::{self, count};
use crate::exit::{Exit, Failure};
use crate::node;
use crate::output::{News, Output, count_bytes};
use crate::signals::Interrupts;

/// Most threads that look; each takes 1 MiB.
const WORKERS_MAX: usize = 8;
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &Verify, output: Output) -> Result<(), Failure> {
    let interrupts = Interrupts::install()?;
    if !args.data.dir.is_dir() {
        let message = format!("{} is no folder of a node: name one with -d", args.data.dir.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    if args.data.new {
        home::make(&args.data.dir)?;
    }
    if args.repair {
        return repair(args, output, &interrupts);
    }
    let store = Home::blobs_only(&args.data.dir)?;
    let found = look(&store, output, &interrupts)?;
    found.verdict()
}

/// Looks, and lets each channel whose folder lacks something fetch it as `subscribe` does.
fn repair(args: &Verify, output: Output, interrupts: &Interrupts) -> Result<(), Failure> {
    // That a node runs on the folder is told before the long look.
    let home = Home::open(&args.data.dir)?;
    let found = look(&home.store, output, interrupts)?;
    let goals = goals(&home, &found, Duration::from_secs(args.timeout))?;
    drop(home);
    let (mut folders, mut failure) = (0, None);
    node::block_on(async |executor| {
        for goal in goals {
            folders += 1;
            let mut options = node::options(&args.data, &args.network)?;
            node::limit(&mut options, &args.limits);
            match goal.pursue(executor, options, &args.listen, interrupts, output).await {
                Ok(None) => {}
                Ok(Some(signal)) => return Err(Failure::signal(signal)),
                // The others have their turn.
                Err(error) => {
                    output.warn(&error.message);
                    failure.get_or_insert(error);
                }
            }
        }
        Ok(())
    })?;
    if found.blobs > 0 {
        let again = node::block_on(async |executor| fetch_blobs(executor, args, interrupts, output).await);
        failure = failure.or(again.err());
    }
    let left = found.own + u64::from(failure.is_some());
    let members = json!({ "folders": folders, "left": left });
    let text = format!("{} looked through for what was missing", count(folders, "folder"));
    output.event(News::Repaired, members, &text)?;
    match failure {
        Some(failure) => Err(failure),
        None if found.own > 0 => {
            let message =
                format!("{} not as it was and is yours: nothing is written over it", are(found.own, "file"));
            Err(Failure::new(if found.own_wrong > 0 { Exit::Integrity } else { Exit::NotFound }, message))
        }
        None => Ok(()),
    }
}

/// Fetches the blobs of channels that have no output folder.
async fn fetch_blobs(
    executor: &node::Executor,
    args: &Verify,
    interrupts: &Interrupts,
    output: Output,
) -> Result<(), Failure> {
    let mut options = node::options(&args.data, &args.network)?;
    node::limit(&mut options, &args.limits);
    choices::hold_all(&mut options)?;
    let with_folders: BTreeSet<PublicKey> =
        options.home.state.outputs()?.into_iter().map(|known| known.channel).collect();
    let node = node::start_listening(executor, options, &args.listen, 0, output).await?;
    let mut channels = node.channels();
    channels.retain(|channel| !with_folders.contains(channel));
    let timeout = Some(Duration::from_secs(args.timeout)).filter(|timeout| !timeout.is_zero());
    let fetched = future::or(wait_for(&node, channels, timeout, output), async {
        Err(Failure::signal(interrupts.next().await))
    })
    .await;
    node.shutdown().await;
    fetched
}

/// Waits until all blobs of channels are here, or none comes any more.
async fn wait_for(
    node: &Handle,
    channels: Vec<PublicKey>,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let (mut last, mut since) = (None, Instant::now());
    loop {
        let states: Vec<_> = channels.iter().filter_map(|channel| node.channel_status(channel)).collect();
        let Some(missing) = states.iter().find(|status| !status.satisfied) else { return Ok(()) };
        let stored: u64 = states.iter().map(|status| status.blobs_stored).sum();
        if last.replace(stored) != Some(stored) {
            since = Instant::now();
        }
        if timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
            let waiting = missing.waiting.as_deref().unwrap_or("its blobs");
            let message = format!("{} lacks blobs; still waiting for {waiting}", missing.target);
            return Err(Failure::new(Exit::Timeout, message));
        }
        let event = async { Some(node.next_event().await) };
        let ticked = async {
            smol::Timer::after(TICK).await;
            None
        };
        if let Some(event) = future::or(event, ticked).await {
            events::report(&event, output)?;
        }
    }
}

/// The channels and folders in which something is missing. A stored blob may be any channel's.
fn goals(home: &Home, found: &Found, timeout: Duration) -> Result<Vec<Goal>, Failure> {
    let mut goals = Vec::new();
    for known in home.state.outputs()? {
        let real = known.folder.canonicalize().unwrap_or_else(|_| known.folder.clone());
        let has_lost = found.blobs > 0 || found.paths.iter().any(|path| path.starts_with(&real));
        if !has_lost && !home.state.has_changed_below(&known.folder)? {
            continue;
        }
        goals.push(Goal {
            channel: known.channel,
            read_key: None,
            out_dir: known.folder,
            copy: known.copy,
            in_order: false,
            restore: true,
            once: true,
            timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
        });
    }
    Ok(goals)
}

/// What was found, and told.
#[derive(Default)]
struct Found {
    wrong: u64,
    gone: u64,
    /// Those of them that were ingested and are not a channel's to give back, and those of these that are not gone.
    own: u64,
    own_wrong: u64,
    /// Stored blobs.
    blobs: u64,
    /// Where the files of channels are.
    paths: Vec<PathBuf>,
    /// The first failure to tell of it.
    failure: Option<Failure>,
}

impl Found {
    fn note(&mut self, finding: &Finding) {
        let is_gone = finding.state.is_gone() && finding.of != Of::Unfinished;
        *(if is_gone { &mut self.gone } else { &mut self.wrong }) += 1;
        match finding.of {
            Of::Own => {
                self.own += 1;
                self.own_wrong += u64::from(!is_gone);
            }
            Of::Blob => self.blobs += 1,
            Of::File | Of::Unfinished => self.paths.push(finding.path.clone()),
        }
    }

    fn verdict(self) -> Result<(), Failure> {
        let (wrong, gone) = (self.wrong, self.gone);
        let what = match (wrong, gone) {
            (0, 0) => return Ok(()),
            (0, gone) => format!("{} gone", are(gone, "file")),
            (wrong, 0) => format!("{} not as it was", are(wrong, "thing")),
            (wrong, gone) => format!("{} not as it was, and {} gone", are(wrong, "thing"), are(gone, "file")),
        };
        let exit = if wrong > 0 { Exit::Integrity } else { Exit::NotFound };
        Err(Failure::new(exit, format!("{what}; --repair fetches what a channel has of it")))
    }
}

/// `1 file is`, `2 files are`.
fn are(number: u64, what: &str) -> String {
    format!("{} {}", count(number, what), if number == 1 { "is" } else { "are" })
}

/// Looks at all that is held, tells what is not as it was, and what there was.
fn look(store: &Store, output: Output, interrupts: &Interrupts) -> Result<Found, Failure> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let bar = output.spinner();
    let found = Arc::new(Mutex::new(Found::default()));
    let cancel = Arc::new(AtomicBool::new(false));
    let work = {
        let (store, bar, found, cancel) = (store.clone(), bar.clone(), found.clone(), cancel.clone());
        smol::unblock(move || {
            let told = Told {
                total: &|bytes| count_bytes(&bar, bytes),
                progress: &|bytes| bar.inc(bytes),
                found: &|finding| {
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.note(&finding);
                    if let Err(failure) = bar.suspend(|| tell(&finding, output)) {
                        found.failure.get_or_insert(failure);
                        cancel.store(true, Ordering::Relaxed);
                    }
                },
            };
            verify(&store, workers, told, &cancel)
        })
    };
    let summary = smol::block_on(until_interrupted(work, &cancel, interrupts));
    bar.finish_and_clear();
    let mut found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(failure) = found.failure.take() {
        return Err(failure);
    }
    say(summary?, &found, output)?;
    Ok(found)
}

async fn until_interrupted(
    mut work: smol::Task<Result<Summary, VerifyError>>,
    cancel: &AtomicBool,
    interrupts: &Interrupts,
) -> Result<Summary, Failure> {
    let ended = future::or(async { Ok((&mut work).await) }, async { Err(interrupts.next().await) }).await;
    match ended {
        Ok(result) => Ok(result?),
        Err(signal) => {
            cancel.store(true, Ordering::Relaxed);
            drop(work.await);
            Err(Failure::signal(signal))
        }
    }
}

fn tell(finding: &Finding, output: Output) -> Result<(), Failure> {
    let moved_to = if let State::Moved(to) = &finding.state { Some(to) } else { None };
    let members = json!({
        "of": finding.of.name(), "path": finding.path, "state": finding.state.name(),
        "lost_bytes": finding.lost_bytes, "moved_to": moved_to,
    });
    output.event(News::Found, members, &with_advice(finding))
}

/// What is to be done about it, where it is not `--repair` that does it.
fn with_advice(finding: &Finding) -> String {
    let advice = match (finding.of, &finding.state) {
        (Of::Own, State::Edited | State::Truncated) => {
            "; it is yours and stays as it is: `ingest` and `publish` it again to give it out as it is now"
        }
        (Of::Own, State::Damaged) => "; it is yours and stays as it is: restore it from a copy",
        (Of::Own, State::Deleted | State::Moved(_)) => {
            "; it is yours: put it back, or `ingest` it where it is"
        }
        _ => "",
    };
    format!("{finding}{advice}")
}

fn say(summary: Summary, found: &Found, output: Output) -> Result<(), Failure> {
    let Summary { files, blobs } = summary;
    let members = json!({ "files": files, "blobs": blobs, "wrong": found.wrong, "gone": found.gone });
    let text = format!("{} and {} looked at", count(files, "held file"), count(blobs, "stored blob"));
    output.event(News::Checked, members, &text)
}
