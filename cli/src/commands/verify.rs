//! `verify`: a look at all that a home holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures_lite::future;
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::verify::{Finding, Of, State, Summary, Told, VerifyError, verify};
use serde_json::json;

use crate::args::Verify;
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::{News, Output, count_bytes};
use crate::signals::Interrupts;

/// Most threads that look; each takes 1 MiB.
const WORKERS_MAX: usize = 8;

pub(crate) fn run(args: &Verify, output: Output) -> Result<(), Failure> {
    let interrupts = Interrupts::install()?;
    if !args.data.dir.is_dir() {
        let message = format!("{} is no folder of a node: name one with -d", args.data.dir.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    let store = Home::blobs_only(&args.data.dir)?;
    let found = look(&store, output, &interrupts)?;
    found.verdict()
}

/// What was found, and told.
#[derive(Default)]
struct Found {
    wrong: u64,
    gone: u64,
    unfinished: u64,
    /// The first failure to tell of it.
    failure: Option<Failure>,
}

impl Found {
    fn note(&mut self, finding: &Finding) {
        match finding.of {
            // What is not there yet is fetched as if it had never been.
            Of::Unfinished => self.unfinished += 1,
            _ if finding.state.is_gone() => self.gone += 1,
            _ => self.wrong += 1,
        }
    }

    fn verdict(self) -> Result<(), Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let (wrong, gone) = (self.wrong + self.unfinished, self.gone);
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
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(failure) = found.failure {
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
    let members = json!({ "files": files, "blobs": blobs, "wrong": found.wrong + found.unfinished, "gone": found.gone });
    let text = format!("{} and {} looked at", count(files, "held file"), count(blobs, "stored blob"));
    output.event(News::Checked, members, &text)
}
