//! `verify`: a look at all that a home holds.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use indicatif::ProgressBar;
use megatorrent_runtime_smol::home::{self, Home};
use megatorrent_runtime_smol::store::Store;

use crate::args::Verify;
use crate::exit::{Exit, Failure};
use crate::face::{Face, show_while};
use crate::host::Host;
use crate::node;
use crate::output::{Output, show_progress};
use crate::service::jobs::{Progress, verify};
use crate::service::{Log, Reporter, Service};
use crate::signals::Interrupts;

pub(crate) fn run(args: &Verify, output: Output) -> Result<(), Failure> {
    let interrupts = Interrupts::install()?;
    if !args.data.dir.is_dir() {
        let message = format!("{} is no folder of a node: name one with -d", args.data.dir.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    if args.data.new {
        home::make(&args.data.dir)?;
    }
    if !args.repair {
        let store = Home::blobs_only(&args.data.dir)?;
        let bar = output.spinner();
        let looked = smol::block_on(look(&store, output, &bar, &interrupts));
        bar.finish_and_clear();
        return looked?.verdict();
    }
    node::block_on(async |executor| {
        let bar = output.spinner();
        let (mut face, found) = if let Some(face) = Face::find(&args.data.dir).await? {
            (face, None)
        } else {
            let mut options = node::options(&args.data, &args.network)?;
            // Before the node runs, which would find and mend some of it by itself.
            let found = look(&options.home.store, output, &bar, &interrupts).await?;
            node::limit(&mut options, &args.limits);
            node::listen(&mut options, &args.listen, 0);
            let service = Service::start_for_a_command(executor, options).await?;
            (Face::own(Host::open(executor, service, None)?), Some(found))
        };
        let timeout = Some(args.timeout).filter(|secs| *secs > 0).map(Duration::from_secs);
        let work = async {
            face.tell_ready(output).await?;
            face.repair(found.as_ref(), timeout, output, &bar).await
        };
        let repaired = interrupts.guard(work).await;
        bar.finish_and_clear();
        face.end().await;
        repaired
    })
}

/// Looks without a node: one may run on the folder.
async fn look(
    store: &Store,
    output: Output,
    bar: &ProgressBar,
    interrupts: &Interrupts,
) -> Result<verify::Found, Failure> {
    let (log, progress) = (Rc::new(Log::new()), Arc::new(Progress::default()));
    let reporter = Reporter::new(log.clone());
    let signal = Cell::new(None);
    // A signal asks the look to end, which is then waited for.
    let interrupted = async {
        signal.set(Some(interrupts.next().await));
        progress.cancel();
        future::pending().await
    };
    let looking = future::or(verify::look(store, &progress, &reporter), interrupted);
    let found = show_while(&log, output, bar, || show_progress(bar, &progress), looking).await;
    match signal.get() {
        Some(signal) => Err(Failure::signal(signal)),
        None => found,
    }
}
