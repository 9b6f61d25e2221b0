//! `ingest`: a file into blobs, and its entry.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use indicatif::{HumanBytes, ProgressBar};
use megatorrent_core::ids::Secret;
use megatorrent_runtime_smol::home::Home;
use serde_json::{Value, json};

use crate::args::{IDENTITY_FILE, Ingest};
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::output::{Output, show_progress};
use crate::service::jobs::Progress;
use crate::service::jobs::ingest::{self, Wish};
use crate::signals::Interrupts;
use crate::{files, node};

/// How long an interrupted ingest may take to end by itself. A read from a terminal or a pipe may never return.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often progress is shown.
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Ingest, output: Output) -> Result<(), Failure> {
    let path = ingest::entry_path(args.name.as_deref(), &args.input)?;
    if let Some(entry) = args.output.as_deref().filter(|entry| !args.force && entry.exists()) {
        let message = format!("{} exists; --force overwrites it", entry.display());
        return Err(Failure::new(Exit::Other, message));
    }
    let interrupts = Interrupts::install()?;
    if !files::is_stdin(&args.input) {
        std::fs::File::open(&args.input)
            .map_err(|error| Failure::file("cannot read", &args.input, &error))?;
    }
    let wish = Wish { path, secret: content_secret(args, output)?, v5: args.v5, copy: args.copy };
    let store = Home::blobs_only(node::prepare(&args.data)?)?;
    let (bar, progress) = (output.spinner(), Arc::new(Progress::default()));
    bar.set_message(wish.path.to_string());
    let (input, at) = (args.input.clone(), progress.clone());
    let work = smol::unblock(move || ingest::run(&input, &wish, &store, &at));
    let result = smol::block_on(until_interrupted(work, &progress, &bar, &interrupts));
    bar.finish_and_clear();
    give(args, &result?, output)
}

/// Writes the entry where it is to be.
fn give(args: &Ingest, result: &Value, output: Output) -> Result<(), Failure> {
    let (path, size) = (result["path"].as_str().unwrap_or_default(), result["size"].as_u64().unwrap_or(0));
    let blobs = result["blobs"].as_u64().unwrap_or(0);
    let text = result["text"].as_str().unwrap_or_default().to_owned();
    output.note(&format!("{path}: {} in {}", HumanBytes(size), count(blobs, "blob")));
    let Some(entry) = &args.output else {
        return output.line(&text);
    };
    let text = text + "\n";
    let written = if args.force { files::replace(entry, &text) } else { files::write_new(entry, &text) };
    written.map_err(|error| Failure::file("cannot write", entry, &error))?;
    output.note(&format!("entry written to {}; it holds the file's keys", entry.display()));
    if output.is_json() {
        let object = json!({ "entry": entry, "path": path, "size": size, "blobs": blobs });
        output.line(&object.to_string())?;
    }
    Ok(())
}

/// The secret under which the blobs get their keys.
fn content_secret(args: &Ingest, output: Output) -> Result<Secret, Failure> {
    if args.unlinkable {
        return files::random_secret();
    }
    match &args.key {
        Some(key) => Ok(files::read_identity(key)?.content_secret()),
        None if Path::new(IDENTITY_FILE).exists() => {
            Ok(files::read_identity(Path::new(IDENTITY_FILE))?.content_secret())
        }
        None => {
            output.note(&format!(
                "there is no {IDENTITY_FILE}: sealing under a fresh secret, so that ingesting this file again will \
                 give other blobs (`megatorrent gen-key` makes an identity)"
            ));
            files::random_secret()
        }
    }
}

async fn until_interrupted(
    mut work: smol::Task<Result<Value, Failure>>,
    progress: &Progress,
    bar: &ProgressBar,
    interrupts: &Interrupts,
) -> Result<Value, Failure> {
    let showing = async {
        loop {
            smol::Timer::after(TICK).await;
            show_progress(bar, progress);
        }
    };
    let interrupted = async { Err(interrupts.next().await) };
    let ended = future::or(async { Ok((&mut work).await) }, future::or(interrupted, showing)).await;
    match ended {
        Ok(result) => result,
        Err(signal) => {
            progress.cancel();
            let timeout = async {
                smol::Timer::after(CANCEL_TIMEOUT).await;
            };
            future::or(async { drop(work.await) }, timeout).await;
            Err(Failure::signal(signal))
        }
    }
}
