//! `subscribe`: a channel's files into a folder.

use std::time::Duration;

use futures_lite::future;
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::dht::DhtMode;

use crate::api::{AddSubscription, ChannelId, Fetch};
use crate::args::Subscribe;
use crate::events;
use crate::exit::Failure;
use crate::face::Face;
use crate::files;
use crate::given::Given;
use crate::host::Host;
use crate::node;
use crate::output::Output;
use crate::service::Service;
use crate::signals::{Interrupts, Signal};

/// The time without progress after which `--once` gives up, where `--timeout` names none.
const ONCE_TIMEOUT: Duration = Duration::from_mins(2);

pub(crate) fn run(args: &Subscribe, given: &Given, output: Output) -> Result<(), Failure> {
    let uri = channel_uri(args, output)?;
    let call = AddSubscription {
        uri: uri.to_secret_string().to_string(),
        output: args.output.as_deref().map(node::absolute).transpose()?,
        copy: args.fetch.copy,
        in_order: args.fetch.in_order,
        new: args.data.new,
        preview: false,
    };
    let timeout = args.timeout.or(args.once.then_some(ONCE_TIMEOUT.as_secs())).filter(|secs| *secs > 0);
    let wait = Fetch { channel: ChannelId(uri.public_key), timeout_secs: timeout, patient: !args.once };
    let interrupts = Interrupts::install()?;
    node::block_on(async |executor| {
        let mut face = match Face::beside(&args.data.dir, given).await? {
            Some(face) => face,
            None => start(executor, args, &uri).await?,
        };
        let is_other = face.service().is_none();
        let bar = output.spinner();
        let work = async {
            face.tell_ready(output).await?;
            face.call(call).await?;
            face.fetch(wait, args.once, output, &bar).await.map(|()| None)
        };
        let ended = future::or(work, async { Ok(Some(interrupts.next().await)) }).await;
        bar.finish_and_clear();
        face.end().await;
        if is_other && matches!(ended, Ok(Some(_))) {
            output.note("the node goes on with the channel; `megatorrent rm` ends that");
        }
        end(ended?, args.once, output)
    })
}

/// A node of this process for it.
async fn start(executor: &node::Executor, args: &Subscribe, uri: &ChannelUri) -> Result<Face, Failure> {
    let mut options = node::options(&args.data, &args.network)?;
    options.bootstrap.extend(uri.bootstrap.iter().cloned());
    node::limit(&mut options, &args.limits);
    if args.once && options.dht == DhtMode::Auto {
        // Who soon leaves stores nothing for others: each look-up that meets a node which has left waits for it.
        options.dht = DhtMode::Client;
    }
    node::listen(&mut options, &args.listen);
    let service = Service::start_for_a_command(executor, options).await?;
    if !args.once {
        service.node().store().sync_behind();
    }
    Ok(Face::own(Host::open(executor, service, None)?))
}

/// Following until a signal is what the command is for; being interrupted before `--once` was done is not.
fn end(signal: Option<Signal>, once: bool, output: Output) -> Result<(), Failure> {
    match signal {
        None => Ok(()),
        Some(signal) if once => {
            let mut failure = Failure::signal(signal);
            failure.message.push_str("; started again, it goes on from the blobs that it has");
            Err(failure)
        }
        Some(_) => events::stopped(output),
    }
}

/// The channel's address with its read key, from wherever the two are given.
fn channel_uri(args: &Subscribe, output: Output) -> Result<ChannelUri, Failure> {
    let read_key = args.secret_file.as_deref().map(files::read_read_key).transpose()?;
    let from_stdin = args.uri == files::STDIN;
    if from_stdin && args.secret_file.as_deref().is_some_and(files::is_stdin) {
        return Err(Failure::usage("stdin gives the URI or the read key, not both"));
    }
    let parse =
        |text: &str| text.trim().parse::<ChannelUri>().map_err(|error| Failure::usage(error.to_string()));
    let mut uri =
        if from_stdin { parse(&files::read_secret_text(files::STDIN.as_ref())?)? } else { parse(&args.uri)? };
    if uri.read_key.is_some() && !from_stdin {
        output.warn(
            "while this runs, other users of this machine can see the read key in the list of processes; \
             `subscribe -` reads the URI from stdin instead",
        );
    }
    if read_key.is_some() {
        uri.read_key = read_key;
    }
    Ok(uri)
}
