//! A look at all that a home holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use futures_lite::future;
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::verify::{Finding, Of, State, Summary, Told, verify};
use serde_json::{Value, json};

use super::Progress;
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::News;
use crate::service::Reporter;

/// Most threads that look; each takes 1 MiB.
const WORKERS_MAX: usize = 8;

/// What was found, and told.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) wrong: u64,
    pub(crate) gone: u64,
    /// Those of them that were ingested and are not a channel's to give back, and those of these that are not gone.
    pub(crate) own: u64,
    pub(crate) own_wrong: u64,
    /// Stored blobs.
    pub(crate) blobs: u64,
    /// Where the files of channels are.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) summary: Value,
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

    pub(crate) fn verdict(&self) -> Result<(), Failure> {
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
pub(crate) fn are(number: u64, what: &str) -> String {
    format!("{} {}", count(number, what), if number == 1 { "is" } else { "are" })
}

/// Looks at all that is held, tells what is not as it was, and what there was.
pub(crate) async fn look(
    store: &Store,
    progress: &Arc<Progress>,
    reporter: &Reporter,
) -> Result<Found, Failure> {
    progress.set_step("reading");
    let workers = thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let (sender, findings) = smol::channel::unbounded();
    let (store, at) = (store.clone(), progress.clone());
    let work = smol::unblock(move || {
        let told = Told {
            total: &|bytes| at.set_total(bytes),
            progress: &|bytes| at.add(bytes),
            // Whoever took them is gone where this fails: the job has ended.
            found: &|finding| drop(sender.try_send(finding)),
        };
        verify(&store, workers, told, at.cancelled())
    });
    let mut found = Found::default();
    let telling = async {
        while let Ok(finding) = findings.recv().await {
            found.note(&finding);
            tell(&finding, reporter);
        }
    };
    let (summary, ()) = future::zip(work, telling).await;
    found.summary = say(summary?, &found, reporter);
    Ok(found)
}

fn tell(finding: &Finding, reporter: &Reporter) {
    let moved_to = if let State::Moved(to) = &finding.state { Some(to) } else { None };
    let members = json!({
        "of": finding.of.name(), "path": finding.path, "state": finding.state.name(),
        "lost_bytes": finding.lost_bytes, "moved_to": moved_to,
    });
    reporter.event(News::Found, members, with_advice(finding));
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

fn say(summary: Summary, found: &Found, reporter: &Reporter) -> Value {
    let Summary { files, blobs } = summary;
    let members = json!({ "files": files, "blobs": blobs, "wrong": found.wrong, "gone": found.gone });
    let text = format!("{} and {} looked at", count(files, "held file"), count(blobs, "stored blob"));
    reporter.event(News::Checked, members.clone(), text);
    members
}
