//! What a command talks to: the node that runs on the folder, or one that the command starts for itself. Both answer alike.

use std::path::Path;
use std::time::Duration;

use futures_lite::future;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::api::{self, Answers, Call, Event, Fetch, GetJob, GetStatus, JobId, JobInfo, JobState};
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::host::Host;
use crate::http::client::{Client, Notice, Notices};
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
        Self { node: Node::Own(Box::new(host)), last: 0 }
    }

    /// The node that runs on a folder; `None`: none does.
    pub(crate) async fn find(dir: &Path) -> Result<Option<Self>, Failure> {
        let Some(client) = Client::find(dir).await? else { return Ok(None) };
        let last = client.call(&GetStatus {}).await?.last_event;
        let notices = client.events(Some(last)).await?;
        Ok(Some(Self { node: Node::Other(Box::new((client, notices))), last }))
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
            count(status.channels.all, "channel"),
        );
        let members = json!({ "p2p": status.p2p, "dht": status.dht, "channels": status.channels.all });
        output.event(News::Ready, members, &text)
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
            return show_while(service.log(), output, bar, || {}, work).await.map(drop);
        }
        let call = api::Verify { repair: true, timeout_secs: timeout.map(|it| it.as_secs()) };
        let job = self.call(call).await?;
        self.finish(job.id, output, bar, |_| true).await.map(drop)
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
            let result = self.finish(job.id, output, bar, |_| true).await;
            if end || result.is_err() {
                return result.map(drop);
            }
            // Until there is a newer version.
            while !self
                .show_next(output, bar, |_| true)
                .await?
                .iter()
                .any(|event| event.kind.event == News::Head && event.kind.channel == Some(call.channel))
            {
            }
        }
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

/// Shows what `work` tells in a log while it goes on, and calls `tick` now and then.
pub(crate) async fn show_while<T>(
    log: &Log,
    output: Output,
    bar: &ProgressBar,
    tick: impl Fn(),
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut last = 0;
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
        while last < log.last() {
            for event in log.after(last, EVENTS_AT_ONCE).events {
                last = event.number;
                bar.suspend(|| output.show(&event))?;
            }
        }
        if let Some(result) = ended {
            return result;
        }
    }
}
