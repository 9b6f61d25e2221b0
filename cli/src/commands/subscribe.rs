//! `subscribe`: a channel's files into a folder.
//!
//! The node fetches and verifies; this command writes each file whose blobs are there, and decides when to end.

mod exports;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_lite::future;
use indicatif::ProgressBar;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::Secret;
use megatorrent_core::node::{Command, DhtError, Event, Target};
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::export;
use megatorrent_runtime_smol::losses::LossNews;
use megatorrent_runtime_smol::state::Output as Folder;
use megatorrent_runtime_smol::survey::Survey;
use megatorrent_runtime_smol::{Handle, Options};
use serde_json::json;

use self::exports::Exports;
use crate::args::{ListenArgs, Subscribe};
use crate::choices::{self, Choices};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::{News, Output, count_bytes};
use crate::signals::{Interrupts, Signal};
use crate::{events, node};

/// The time without progress after which `--once` gives up, where `--timeout` names none.
const ONCE_TIMEOUT: Duration = Duration::from_mins(2);
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &Subscribe, output: Output) -> Result<(), Failure> {
    let uri = channel_uri(args, output)?;
    let interrupts = Interrupts::install()?;
    node::block_on(async |executor| {
        let mut options = node::options(&args.data, &args.network)?;
        options.bootstrap.extend(uri.bootstrap.iter().cloned());
        node::limit(&mut options, &args.limits);
        if args.once && options.dht == DhtMode::Auto {
            // Who soon leaves stores nothing for others: each look-up that meets a node which has left waits for it.
            options.dht = DhtMode::Client;
        }
        if args.data.new {
            export::forget_output(&options.home.state, &args.output)?;
        }
        let goal = Goal::new(args, &uri)?;
        let signal = goal.pursue(executor, options, &args.listen, &interrupts, output).await?;
        end(signal, args.once, output)
    })
}

/// What is to come about: a channel's files in a folder.
#[derive(Clone)]
pub(crate) struct Goal {
    pub(crate) channel: PublicKey,
    pub(crate) read_key: Option<Secret>,
    pub(crate) out_dir: PathBuf,
    /// Whether the blobs are kept beside the files.
    pub(crate) copy: bool,
    pub(crate) in_order: bool,
    /// Whether what was deleted, edited or damaged is brought back.
    pub(crate) restore: bool,
    /// End as soon as the newest manifest is complete.
    pub(crate) once: bool,
    /// Give up after so long without progress.
    pub(crate) timeout: Option<Duration>,
}

impl Goal {
    fn new(args: &Subscribe, uri: &ChannelUri) -> Result<Self, Failure> {
        let out_dir = std::path::absolute(&args.output)
            .map_err(|error| Failure::file("cannot find", &args.output, &error))?;
        let timeout = args.timeout.map(Duration::from_secs).or(args.once.then_some(ONCE_TIMEOUT));
        Ok(Self {
            channel: uri.public_key,
            read_key: uri.read_key.clone(),
            out_dir,
            copy: args.copy,
            in_order: args.in_order,
            restore: false,
            once: args.once,
            timeout: timeout.filter(|timeout| !timeout.is_zero()),
        })
    }

    /// Runs a node until it has come about, or a signal asks for the end.
    pub(crate) async fn pursue(
        self,
        executor: &node::Executor,
        mut options: Options,
        listen: &ListenArgs,
        interrupts: &Interrupts,
        output: Output,
    ) -> Result<Option<Signal>, Failure> {
        let home = &options.home;
        let is_new = Survey { store: &home.store, state: &home.state, out_dir: &self.out_dir }.is_new()?;
        choices::hold_all(&mut options)?;
        options.selections.retain(|(channel, _)| *channel != self.channel);
        let first = Exports::first_selection(is_new, self.in_order);
        options.selections.push((self.channel, first));
        let folder = Folder { channel: self.channel, folder: self.out_dir.clone(), copy: self.copy };
        options.home.state.note_output(&folder)?;
        let node = node::start_listening(executor, options, listen, 0, output).await?;
        if !self.once {
            node.store().sync_behind();
        }
        let (channel, read_key) = (self.channel, self.read_key.clone());
        let mut follower = Follower::new(self, is_new, &node, output)?;
        node.command(Command::Follow { channel, read_key });
        let ended = future::or(async { follower.follow().await.map(|()| None) }, async {
            Ok(Some(interrupts.next().await))
        })
        .await;
        follower.exports.cancel().await;
        follower.bar.finish_and_clear();
        drop(follower);
        node.shutdown().await;
        ended
    }
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

/// What is known of a channel, and what was done about it.
struct Follower<'a> {
    once: bool,
    timeout: Option<Duration>,
    channel: PublicKey,
    node: &'a Handle,
    output: Output,
    exports: Exports,
    choices: Choices,
    bar: ProgressBar,
    /// Sequence of the newest manifest whose files are all written, or failed.
    told_complete: Option<u64>,
    /// Whether a manifest was ever read.
    readable: bool,
    /// Whether there was ever a connection to a peer.
    met_peer: bool,
    /// What the last look-up of the head brought, where it brought none.
    not_found: Option<NotFound>,
    last_progress: Progress,
    status: events::Status,
    last_change: Instant,
}

/// What moves while a download does.
#[derive(Clone, PartialEq, Eq, Default)]
struct Progress {
    sequence: u64,
    blobs: u64,
    blobs_total: u64,
    exported_bytes: u64,
    looked_at_bytes: u64,
}

/// Why a look-up brought no head.
#[derive(Clone, Copy)]
enum NotFound {
    /// The DHT answered and has none.
    NoHead,
    /// The DHT did not answer.
    NoDht(DhtError),
}

/// What the follower waits for.
enum Happening {
    Event(Event),
    Loss(LossNews),
    Exported,
    Tick,
}

impl<'a> Follower<'a> {
    fn new(goal: Goal, is_new: bool, node: &'a Handle, output: Output) -> Result<Self, Failure> {
        Ok(Self {
            once: goal.once,
            timeout: goal.timeout,
            channel: goal.channel,
            node,
            output,
            choices: Choices::new(node, Some(&goal.channel), output)?,
            exports: Exports::new(goal, is_new, node, output),
            bar: output.spinner(),
            told_complete: None,
            readable: false,
            met_peer: false,
            not_found: None,
            last_progress: Progress::default(),
            status: events::Status::default(),
            last_change: Instant::now(),
        })
    }

    /// Ends when `--once` is done, or with a failure.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut tick = smol::Timer::interval(TICK);
        loop {
            let event = async { Happening::Event(self.node.next_event().await) };
            let exported = async {
                self.exports.wait().await;
                Happening::Exported
            };
            let ticked = async {
                futures_lite::StreamExt::next(&mut tick).await;
                Happening::Tick
            };
            let loss = async { Happening::Loss(self.node.next_loss().await) };
            match future::or(future::or(event, exported), future::or(loss, ticked)).await {
                Happening::Event(event) => {
                    self.choices.on_event(&event).await?;
                    self.on_event(&event)?;
                }
                Happening::Loss(news) => self.bar.suspend(|| events::report_loss(&news, self.output))?,
                Happening::Exported => self.bar.suspend(|| self.exports.finish_one())?,
                Happening::Tick => self.on_tick()?,
            }
            if self.is_complete()? && self.once {
                return self.exports.verdict();
            }
        }
    }

    fn on_event(&mut self, event: &Event) -> Result<(), Failure> {
        self.bar.suspend(|| events::report(event, self.output))?;
        let ours = Target::Channel(self.channel);
        match event {
            Event::Connected { .. } => self.met_peer = true,
            Event::Head { channel, .. } if *channel == self.channel => self.exports.hold(),
            Event::BlobsLost { target, .. } if *target == ours => self.exports.survey(),
            Event::HeadNotFound { channel, error } if *channel == self.channel => {
                self.not_found = Some(error.map_or(NotFound::NoHead, NotFound::NoDht));
            }
            Event::HeadRefused { channel, error } if *channel == self.channel && !self.readable => {
                return Err((*error).into());
            }
            Event::Manifest { channel, sequence, manifest } if *channel == self.channel => {
                self.readable = true;
                self.exports.begin(*sequence, manifest.clone())?;
            }
            Event::FileComplete { target, sequence, file } if *target == ours => {
                self.exports.add(*sequence, *file);
            }
            Event::Complete { target, .. } | Event::SelectionComplete { target, .. } if *target == ours => {
                // Told at once, not with the next tick.
                return self.on_tick();
            }
            Event::BodyRefused { channel, error, .. } if *channel == self.channel => {
                return self.refused(&error.to_string());
            }
            Event::PageRefused { channel, error, .. } if *channel == self.channel => {
                return self.refused(&format!("some files of the channel cannot be had: {error}"));
            }
            Event::FileRefused { target, sequence, file } if *target == ours => {
                let name = self.exports.file_name(*sequence, *file);
                return self.refused(&format!("{name}: its index does not hold what the channel says"));
            }
            Event::StoreFull { no_space } if self.once => {
                let exit = if *no_space { Exit::NoSpace } else { Exit::Other };
                let nameless = || Failure::new(exit, "the folder of the node (-d) takes no more blobs");
                return Err(self.node.store().last_failure().map_or_else(nameless, |it| Failure::from(&*it)));
            }
            _ => {}
        }
        Ok(())
    }

    /// The author published what nobody can read: the end of `--once`; a follower waits for the next manifest.
    fn refused(&self, why: &str) -> Result<(), Failure> {
        if self.once {
            return Err(Failure::new(Exit::Integrity, why));
        }
        self.bar.suspend(|| events::warn(self.output, why))
    }

    fn on_tick(&mut self) -> Result<(), Failure> {
        let (told, node_status) = (&mut self.status, self.node.status());
        self.bar.suspend(|| told.tell(node_status, self.output))?;
        let Some(status) = self.node.channel_status(&self.channel) else { return Ok(()) };
        if status.satisfied && self.exports.is_settled(status.sequence) {
            // An event may have been dropped while this command was busy.
            self.exports.add_all(status.sequence);
        }
        let progress = Progress {
            sequence: status.sequence,
            blobs: status.blobs_stored,
            blobs_total: status.blobs_total,
            exported_bytes: self.exports.bytes(),
            looked_at_bytes: self.node.store().looked_at_bytes(),
        };
        let looked_at_before = self.last_progress.looked_at_bytes;
        if progress != self.last_progress || self.exports.is_surveying() {
            if (progress.blobs, progress.blobs_total)
                != (self.last_progress.blobs, self.last_progress.blobs_total)
            {
                let lag_secs = node_status.dht_lag_secs;
                self.show(&progress, status.content_bytes, status.waiting.as_deref(), lag_secs)?;
            }
            self.last_progress = progress.clone();
            self.last_change = Instant::now();
        }
        let is_looking = self.exports.is_surveying() || progress.looked_at_bytes > looked_at_before;
        let looking = is_looking.then(|| "looking at what stands in the output folder".to_owned());
        let words = [looking.or_else(|| status.waiting.clone()), events::lag(node_status)];
        self.bar.set_message(words.into_iter().flatten().collect::<Vec<_>>().join("; "));
        match self.timeout {
            Some(timeout) if self.last_change.elapsed() >= timeout && !self.is_idle(status.satisfied) => {
                Err(self.gave_up(timeout, status.waiting.as_deref()))
            }
            _ => Ok(()),
        }
    }

    fn show(
        &self,
        progress: &Progress,
        content_bytes: u64,
        waiting: Option<&str>,
        dht_lag_secs: u64,
    ) -> Result<(), Failure> {
        if content_bytes > 0 {
            count_bytes(&self.bar, content_bytes);
        }
        let share =
            u128::from(content_bytes) * u128::from(progress.blobs) / u128::from(progress.blobs_total.max(1));
        self.bar.set_position(u64::try_from(share).unwrap_or(content_bytes));
        if !self.output.is_json() {
            return Ok(());
        }
        let members = json!({
            "channel": self.channel.to_string(), "blobs": progress.blobs, "blobs_total": progress.blobs_total,
            "waiting": waiting, "dht_lag_secs": dht_lag_secs,
        });
        self.output.event(News::Progress, members, "")
    }

    /// Whether nothing is expected to move.
    fn is_idle(&self, complete: bool) -> bool {
        complete && self.exports.is_done()
    }

    fn gave_up(&self, timeout: Duration, waiting: Option<&str>) -> Failure {
        let waiting = waiting.unwrap_or("its files");
        let (exit, what) = if self.readable && self.met_peer {
            (Exit::Timeout, format!("still waiting for {waiting}"))
        } else if self.last_progress.sequence > 0 {
            (Exit::NotFound, format!("no peer was found; waiting for {waiting}"))
        } else {
            match self.not_found {
                Some(NotFound::NoDht(error)) => {
                    (Exit::Network, format!("the channel cannot be looked up: {error}"))
                }
                Some(NotFound::NoHead) => (Exit::NotFound, "nobody has published this channel".to_owned()),
                None => (Exit::NotFound, format!("waiting for {waiting}")),
            }
        };
        let seconds = timeout.as_secs();
        let message = format!(
            "gave up after {seconds} s without progress: {what}. -b HOST:PORT names a node to begin with"
        );
        // A head that could not be stored is as good as none.
        match self.node.state().last_failure().map(|error| Failure::from(&*error)) {
            Some(cause) if !self.readable => {
                Failure::new(cause.exit, format!("{message}. {}", cause.message))
            }
            _ => Failure::new(exit, message),
        }
    }

    /// Whether nothing is left to do for the newest manifest; tells once for each that all its files are written.
    fn is_complete(&mut self) -> Result<bool, Failure> {
        let Some(sequence) = self.exports.complete_sequence() else { return Ok(false) };
        if self.told_complete != Some(sequence) && !self.exports.has_failed() {
            self.told_complete = Some(sequence);
            // What lies at its place after a power cut, and is not whole, must be known to be ours.
            self.node.state().flush()?;
            let members = json!({ "channel": self.channel.to_string(), "sequence": sequence });
            let text = match self.exports.kept() {
                0 => format!("sequence {sequence} is complete"),
                kept => {
                    let files = events::count(kept, "file");
                    format!("sequence {sequence} is complete, without {files} that you deleted or edited")
                }
            };
            self.bar.suspend(|| self.output.event(News::Complete, members, &text))?;
        }
        Ok(true)
    }
}
