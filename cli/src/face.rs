//! What a command talks to: the node that runs on the folder, or one that the command starts for itself. Both answer alike.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_lite::future;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::api::{
    self, AddPeer, Answers, Call, ChannelId, Event, Fetch, FileInfo, GetFiles, GetJob, GetOptions, GetStatus,
    GetSubscription, JobId, JobInfo, JobState,
};
use crate::events;
use crate::exit::{Exit, Failure};
use crate::given::Given;
use crate::host::Host;
use crate::http::client::{Client, Notice, Notices, Process};
use crate::output::{News, Output, count_bytes};
use crate::service::jobs::Progress;
use crate::service::jobs::verify::Found;
use crate::service::{Log, Reporter, Service};

/// Events that are taken at once.
const EVENTS_AT_ONCE: usize = 1_000;
/// How often progress is shown where no event says it.
const TICK: Duration = Duration::from_millis(200);

/// A node, and the events of it that were taken.
pub(crate) struct Face {
    node: Node,
    /// The number of the last event that was taken.
    last: u64,
    told: Told,
}

/// What was shown of channels since the command began.
#[derive(Default)]
struct Told {
    news: Vec<(ChannelId, News)>,
    files: BTreeSet<(ChannelId, String)>,
}

impl Told {
    fn note(&mut self, event: &Event) {
        let Some(channel) = event.kind.channel else { return };
        if event.kind.event == News::File {
            let path = event.kind.members.get("path").and_then(Value::as_str);
            self.files.extend(path.map(|path| (channel, path.to_owned())));
        }
        if !self.news.contains(&(channel, event.kind.event)) {
            self.news.push((channel, event.kind.event));
        }
    }
}

enum Node {
    /// It runs in this process.
    Own(Box<Host>),
    /// It runs on the folder in another.
    Other(Box<(Client, Notices)>),
}

impl Face {
    /// A node that this process runs.
    pub(crate) fn own(host: Host) -> Self {
        Self { node: Node::Own(Box::new(host)), last: 0, told: Told::default() }
    }

    /// The node that runs on a folder; `None`: none does.
    pub(crate) async fn find(dir: &Path) -> Result<Option<Self>, Failure> {
        let Some(client) = Client::find(dir).await? else { return Ok(None) };
        let last = client.call(&GetStatus {}).await?.last_event;
        let notices = client.events(Some(last)).await?;
        Ok(Some(Self { node: Node::Other(Box::new((client, notices))), last, told: Told::default() }))
    }

    /// The node that runs on a folder, for a command with options of a node: those must be the running one's, and nodes to begin with
    /// are passed on.
    pub(crate) async fn beside(dir: &Path, given: &Given) -> Result<Option<Self>, Failure> {
        let Some(face) = Self::find(dir).await? else { return Ok(None) };
        if let Node::Other(other) = &face.node {
            given.check(&other.0.call(&GetOptions {}).await?, dir)?;
            for peer in &given.bootstrap {
                // A peer that is refused is no reason to do nothing.
                let _ = other.0.call(&AddPeer { address: peer.to_string() }).await;
            }
        }
        Ok(Some(face))
    }

    /// The process of the node, where it is another one.
    pub(crate) async fn process(&self) -> Option<Process> {
        match &self.node {
            Node::Other(other) => other.0.process().await,
            Node::Own(_) => None,
        }
    }

    /// The node, where it is this process's own.
    pub(crate) fn service(&self) -> Option<&Service> {
        if let Node::Own(host) = &self.node { Some(&host.service) } else { None }
    }

    pub(crate) async fn call<C: Call>(&self, call: C) -> Result<C::Answer, Failure>
    where
        Service: Answers<C>,
    {
        Ok(match &self.node {
            Node::Own(host) => host.service.answer(call).await?,
            Node::Other(other) => other.0.call(&call).await?,
        })
    }

    /// The events since those that were taken; waits for one.
    pub(crate) async fn events(&mut self) -> Result<Vec<Event>, Failure> {
        match &mut self.node {
            Node::Own(host) => {
                let log = host.service.log();
                log.wait(self.last).await;
                let after = log.after(self.last, EVENTS_AT_ONCE);
                self.last = after.events.last().map_or(log.last(), |event| event.number);
                Ok(after.events)
            }
            Node::Other(other) => loop {
                let gone = || {
                    Failure::new(Exit::Network, "the node has ended; start it again with `megatorrent serve`")
                };
                match other.1.next().await.ok_or_else(gone)?? {
                    Notice::Event(event) => {
                        self.last = event.number;
                        return Ok(vec![event]);
                    }
                    Notice::Missed(missed) => {
                        tracing::warn!(missed, "events came faster than they were shown");
                    }
                    Notice::Beat(beat) => tracing::trace!(%beat, "the node lives"),
                }
            },
        }
    }

    /// Says where the node listens.
    pub(crate) async fn tell_ready(&self, output: Output) -> Result<(), Failure> {
        let status = self.call(GetStatus {}).await?;
        let text = format!(
            "ready: peers on TCP {}, DHT {}, following {}",
            status.p2p.as_deref().unwrap_or("none"),
            status.dht.as_ref().map_or("off or not yet there".into(), |addr| format!("on UDP {addr}")),
            events::count(status.channels.all, "channel"),
        );
        let members = json!({ "p2p": status.p2p, "dht": status.dht, "channels": status.channels.all });
        output.event(News::Ready, members, &text)
    }

    /// Tells where the page is, with a link that logs a browser in. It is for a human who looks now, and in no output for programs.
    pub(crate) async fn tell_page(&self, output: Output) -> Result<(), Failure> {
        if !output.is_watched() {
            return Ok(());
        }
        let Some(api) = self.call(GetStatus {}).await?.api else { return Ok(()) };
        let link = self.call(api::CreateLoginLink {}).await?;
        output.note(&format!(
            "page: http://{api}/{} (once, within {} minutes; `megatorrent token link` prints another)",
            link.path,
            link.valid_secs / 60
        ));
        Ok(())
    }

    /// Publishes; what came of it.
    pub(crate) async fn publish(
        &mut self,
        call: api::Publish,
        output: Output,
        bar: &ProgressBar,
    ) -> Result<Value, Failure> {
        let job = self.call(call).await?;
        // Its result is one object; what a user is to look at has no place on stdout.
        let show = |event: &Event| {
            if event.kind.event == News::Warning {
                bar.suspend(|| output.warn(&event.text));
            }
            false
        };
        self.finish(job.id, output, bar, show).await
    }

    /// Brings back what is gone. What was `found` already is not looked for again, where the node is this process's own.
    pub(crate) async fn repair(
        &mut self,
        found: Option<&Found>,
        timeout: Option<Duration>,
        output: Output,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        if let (Some(service), Some(found)) = (self.service().cloned(), found) {
            let progress = Progress::default();
            let reporter = Reporter::new(service.log().clone());
            let work = service.repair(found, timeout, &progress, &reporter);
            return show_while(service.log(), output, bar, (|| {}, is_of_repair), work).await.map(drop);
        }
        let call = api::Verify { repair: true, timeout_secs: timeout.map(|it| it.as_secs()) };
        let job = self.call(call).await?;
        self.finish(job.id, output, bar, is_of_repair).await.map(drop)
    }

    /// Waits until a channel's files are in their places; where that is not to be the `end`, for ever.
    pub(crate) async fn fetch(
        &mut self,
        call: Fetch,
        end: bool,
        output: Output,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        loop {
            let job = self.call(call).await?;
            let is_of_it = |event: &Event| event.kind.channel.is_none_or(|it| it == call.channel);
            let result = self.finish(job.id, output, bar, is_of_it).await;
            if self.service().is_none() {
                let told = self.tell_known(call.channel, output, bar).await;
                // Of a channel that is gone there is nothing to say beside that.
                if result.is_ok() {
                    told?;
                }
            }
            if end || result.is_err() {
                return result.map(drop);
            }
            // Until there is a newer version.
            while !self
                .show_next(output, bar, is_of_it)
                .await?
                .iter()
                .any(|event| event.kind.event == News::Head && event.kind.channel == Some(call.channel))
            {
            }
        }
    }

    /// Says of a channel what the running node said before this command began, as a node that starts would say it.
    async fn tell_known(
        &mut self,
        channel: ChannelId,
        output: Output,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let told = std::mem::take(&mut self.told);
        let known = self.call(GetSubscription { channel }).await?;
        if known.sequence == 0 {
            return Ok(());
        }
        let (key, sequence) = (channel.to_string(), known.sequence);
        let tell = |news, members, text: String| {
            if told.news.contains(&(channel, news)) && news != News::File {
                return Ok(());
            }
            bar.suspend(|| output.event(news, members, &text))
        };
        let members = json!({ "channel": key, "sequence": sequence });
        tell(News::Head, members.clone(), events::head_text(&key, sequence))?;
        let text = events::manifest_text(&key, &known.title, known.files, known.size_bytes);
        let about = json!({
            "channel": key, "sequence": sequence, "title": known.title, "files": known.files,
            "size": known.size_bytes,
        });
        tell(News::Manifest, about, text)?;
        let there = self.files_there(channel).await?;
        for (file, target) in
            there.iter().filter(|(file, _)| !told.files.contains(&(channel, file.path.clone())))
        {
            let members = json!({
                "sequence": sequence, "path": file.path, "size": file.size_bytes, "target": target,
                "written": false,
            });
            tell(News::File, members, format!("{target} is there already"))?;
        }
        if known.complete && known.output.is_some() {
            let kept = known.files.saturating_sub(there.len() as u64);
            tell(News::Complete, members, events::complete_text(sequence, kept))?;
        }
        Ok(())
    }

    /// A channel's files that are in their places, and these.
    async fn files_there(&self, channel: ChannelId) -> Result<Vec<(FileInfo, String)>, Failure> {
        let (mut there, mut folders) = (Vec::new(), vec![String::new()]);
        while let Some(under) = folders.pop() {
            let call = GetFiles { channel, under, offset: 0, limit: None };
            for file in self.call(call).await?.files {
                match file.target.clone() {
                    _ if file.folder => folders.push(file.path),
                    Some(target) => there.push((file, target)),
                    None => {}
                }
            }
        }
        Ok(there)
    }

    /// Shows events until a job is over; what came of it.
    async fn finish(
        &mut self,
        job: JobId,
        output: Output,
        bar: &ProgressBar,
        is_shown: impl Fn(&Event) -> bool,
    ) -> Result<Value, Failure> {
        loop {
            let info = self.call(GetJob { job }).await?;
            if info.state.is_over() {
                let last = self.call(GetStatus {}).await?.last_event;
                self.show_until(last, output, bar, &is_shown).await?;
                return outcome(info);
            }
            if let Some(total) = info.total_bytes {
                count_bytes(bar, total);
                bar.set_position(info.done_bytes);
            } else if !info.step.is_empty() {
                bar.set_message(info.step);
            }
            self.show_next(output, bar, &is_shown).await?;
        }
    }

    /// Shows the next events, which it returns.
    async fn show_next(
        &mut self,
        output: Output,
        bar: &ProgressBar,
        is_shown: impl Fn(&Event) -> bool,
    ) -> Result<Vec<Event>, Failure> {
        let events = self.events().await?;
        for event in &events {
            if event.kind.event == News::Progress {
                show_bar(event, bar);
            }
            self.told.note(event);
            if is_shown(event) && event.kind.event != News::Job {
                bar.suspend(|| output.show(event))?;
            }
        }
        Ok(events)
    }

    /// Shows the events up to one with this number.
    async fn show_until(
        &mut self,
        number: u64,
        output: Output,
        bar: &ProgressBar,
        is_shown: impl Fn(&Event) -> bool,
    ) -> Result<(), Failure> {
        while self.last < number {
            self.show_next(output, bar, &is_shown).await?;
        }
        Ok(())
    }

    /// Ends the node, where it is this process's own.
    pub(crate) async fn end(self) {
        if let Node::Own(host) = self.node {
            host.end().await;
        }
    }
}

/// What a node says as it starts to follow is no news of what was mended.
fn is_of_repair(event: &Event) -> bool {
    !matches!(event.kind.event, News::Head | News::Manifest)
}

fn outcome(info: JobInfo) -> Result<Value, Failure> {
    match (info.state, info.error) {
        (JobState::Done, _) => Ok(info.result.unwrap_or_default()),
        (_, Some(error)) => Err(error.into()),
        _ => Err(Failure::new(Exit::Other, format!("job {} was cancelled", info.id))),
    }
}

/// Shows how far a channel is.
fn show_bar(event: &Event, bar: &ProgressBar) {
    let number = |name: &str| event.kind.members.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (content_bytes, blobs, total) = (number("content_bytes"), number("blobs"), number("blobs_total"));
    if content_bytes > 0 {
        count_bytes(bar, content_bytes);
    }
    let share = u128::from(content_bytes) * u128::from(blobs) / u128::from(total.max(1));
    bar.set_position(u64::try_from(share).unwrap_or(content_bytes));
    let waiting = event.kind.members.get("waiting").and_then(Value::as_str).unwrap_or_default();
    bar.set_message(waiting.to_owned());
}

/// Shows what `work` tells in a log while it goes on, where it `is_shown`, and calls `tick` now and then.
pub(crate) async fn show_while<T>(
    log: &Log,
    output: Output,
    bar: &ProgressBar,
    (tick, is_shown): (impl Fn(), impl Fn(&Event) -> bool),
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut last = log.base();
    let mut work = Box::pin(work);
    loop {
        let turn = async {
            let late = async {
                smol::Timer::after(TICK).await;
            };
            future::or(log.wait(last), late).await;
            None
        };
        let ended = future::or(async { Some((&mut work).await) }, turn).await;
        tick();
        loop {
            let events = log.after(last, EVENTS_AT_ONCE).events;
            if events.is_empty() {
                break;
            }
            for event in events {
                last = event.number;
                if is_shown(&event) {
                    bar.suspend(|| output.show(&event))?;
                }
            }
        }
        if let Some(result) = ended {
            return result;
        }
    }
}
