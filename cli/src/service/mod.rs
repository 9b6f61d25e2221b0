//! The application: what a user means by "my node".
//!
//! Goals: subscriptions with their folders, publications, jobs, limits and settings, kept over restarts; every change an event with a
//! number. Non-goals: the protocol, which is core's, and how a call comes in, which is the faces' business.

mod answers;
mod backup;
mod channel;
mod doctor;
mod exports;
pub(crate) mod jobs;
mod links;
mod log;
mod metrics;
mod own_folder;
mod rates;
mod records;
mod reporter;
mod trouble;
mod undo;
mod uploads;
mod withdrawn;
mod work;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use event_listener::Event as Changed;
use futures_lite::StreamExt;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::node::{Command, Config, Event, Refusal, Selection};
use megatorrent_runtime_smol::events::News as NodeNews;
use megatorrent_runtime_smol::survey::Survey;
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use serde_json::json;
use smol::Task;
use smol::channel::Receiver;
use smol::lock::Semaphore;

pub(crate) use log::Log;
pub(crate) use reporter::Reporter;

use self::channel::{Channel, channel_of};
use self::exports::{Bench, Finished};
use self::jobs::Jobs;
use self::jobs::publish::Turns;
use self::links::Links;
use self::rates::Rates;
pub(crate) use self::records::Changes;
use self::records::{Followed, Records};
use self::undo::UndoTable;
use crate::api::{self, ApiError, ChannelId, Limits, Settings};
use crate::clock;
use crate::events;
use crate::exit::{Exit, Failure};
use crate::http::token::Access;
use crate::node::Executor;
use crate::output::News;

/// How often channels and jobs are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How often the node's status is an event.
const STATUS_INTERVAL: Duration = Duration::from_mins(1);

/// The application on a running node. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Service(Rc<Inner>);

pub(crate) struct Inner {
    executor: Executor,
    node: Handle,
    /// The node's folder, as programs elsewhere can name it.
    home: PathBuf,
    log: Rc<Log>,
    reporter: Reporter,
    records: Records,
    bench: Bench,
    channels: RefCell<BTreeMap<PublicKey, Channel>>,
    jobs: RefCell<Jobs>,
    publishing: Turns,
    /// Jobs that keep disk and processors busy take turns; of the others some run at once.
    heavy: Arc<Semaphore>,
    light: Arc<Semaphore>,
    undo: RefCell<UndoTable>,
    links: RefCell<Links>,
    config: RefCell<Config>,
    rates: RefCell<Rates>,
    asked: Asked,
    /// Keys of the configuration file that wait for a restart.
    waiting: RefCell<Vec<&'static str>>,
    started_unix_ms: u64,
    /// Where the API listens.
    api: Cell<Option<SocketAddr>>,
    /// Who may use it.
    access: RefCell<Option<Rc<Access>>>,
    /// Whether the network was told of a channel, in this life.
    has_told: Cell<bool>,
    /// The highest number that a channel has.
    numbers: Cell<u64>,
    is_ending: Cell<bool>,
    ending: Changed,
    tasks: RefCell<Vec<Task<()>>>,
    /// Records on their way to the disk.
    keeping: RefCell<Vec<Task<()>>>,
}

/// What was asked for at the start.
struct Asked {
    /// `None`: to listen nowhere.
    host: Option<IpAddr>,
    dht: api::DhtPart,
}

impl Service {
    /// Starts a node that stays, and goes on with all that an earlier one left.
    pub(crate) async fn start(executor: &Executor, options: Options) -> Result<Self, Failure> {
        Self::open(executor, options, true).await
    }

    /// Starts a node that a command has for itself: the jobs that one which stays has left are not begun, and none is kept.
    pub(crate) async fn start_for_a_command(executor: &Executor, options: Options) -> Result<Self, Failure> {
        Self::open(executor, options, false).await
    }

    async fn open(executor: &Executor, mut options: Options, keeps_jobs: bool) -> Result<Self, Failure> {
        let found = Followed::all(&options.home.state)?;
        let config = Self::as_changed(&mut options)?;
        let asked = Asked { host: options.listen.map(|addr| addr.ip()), dht: options.dht.into() };
        let (new, failures) = Self::look_at_folders(&found, &mut options);
        let home = std::path::absolute(&options.home.dir).unwrap_or_else(|_| options.home.dir.clone());
        let node = Runtime::start(executor, options).await?;
        let follows_none = node.channels().is_empty();
        let started_unix_ms = clock::now_ms();
        let log = Rc::new(Log::of_life(started_unix_ms));
        let (finished, ended) = smol::channel::unbounded();
        let turns = thread::available_parallelism().map_or(1, usize::from);
        let bench = Bench { executor: executor.clone(), finished, turns: Arc::new(Semaphore::new(turns)) };
        let records = Records::new(node.state().clone());
        let jobs = Jobs::restore(records.jobs()?, keeps_jobs);
        let service = Self(Rc::new(Inner {
            executor: executor.clone(),
            // Without a DHT the node is no gateway, whatever is wished for a time with one.
            config: RefCell::new(Config { gateway: config.gateway, ..node.config().clone() }),
            node,
            home,
            reporter: Reporter::new(log.clone()),
            log,
            records,
            bench,
            channels: RefCell::default(),
            jobs: RefCell::new(jobs),
            publishing: Turns::default(),
            heavy: Arc::new(Semaphore::new(1)),
            light: Arc::new(Semaphore::new(jobs::LIGHT_JOBS_MAX)),
            undo: RefCell::default(),
            links: RefCell::default(),
            rates: RefCell::default(),
            asked,
            waiting: RefCell::default(),
            started_unix_ms,
            api: Cell::new(None),
            access: RefCell::default(),
            has_told: Cell::new(!found.is_empty() || !follows_none),
            numbers: Cell::new(found.iter().map(|(_, record)| record.number).max().unwrap_or(0)),
            is_ending: Cell::new(false),
            ending: Changed::new(),
            tasks: RefCell::default(),
            keeping: RefCell::default(),
        }));
        service.adopt(found, &new);
        for (key, failure) in failures {
            if let Some(channel) = service.0.channels.borrow_mut().get_mut(&key) {
                channel.fail(failure);
            }
        }
        service.run(ended);
        Ok(service)
    }

    /// Lets calls of earlier runs change what this one was started with; what is changed at run time, as it begins.
    fn as_changed(options: &mut Options) -> Result<Config, Failure> {
        let mut config = Config {
            upload_bytes_per_sec: options.upload_bytes_per_sec,
            download_bytes_per_sec: options.download_bytes_per_sec,
            gateway: options.gateway,
            takes_all: options.takes_all,
            ..Config::default()
        };
        records::changed(&options.home.state)?.apply(&mut config);
        options.upload_bytes_per_sec = config.upload_bytes_per_sec;
        options.download_bytes_per_sec = config.download_bytes_per_sec;
        (options.gateway, options.takes_all) = (config.gateway, config.takes_all);
        Ok(config)
    }

    /// Says which output folders are new, and which cannot be used; lets nothing be fetched into others before they were looked at.
    fn look_at_folders(
        found: &[(PublicKey, Followed)],
        options: &mut Options,
    ) -> (BTreeSet<PublicKey>, Vec<(PublicKey, Failure)>) {
        let (store, state) = (options.home.store.clone(), &options.home.state);
        let mut new = BTreeSet::new();
        let mut failures = Vec::new();
        for (channel, record) in found {
            if record.preview {
                options.selections.push((*channel, exports::Exports::first_selection(false, false)));
            }
            if let Some(out_dir) = &record.output {
                match (Survey { store: &store, state, out_dir }).is_new() {
                    Ok(true) => drop(new.insert(*channel)),
                    Ok(false) => {}
                    Err(error) => failures.push((*channel, Failure::from(error))),
                }
                let selection = Self::first_selection(new.contains(channel), record.in_order);
                options.selections.push((*channel, selection));
            }
        }
        (new, failures)
    }

    /// What is fetched before the output folder was looked at.
    fn first_selection(is_new: bool, in_order: bool) -> Selection {
        exports::Exports::first_selection(is_new, in_order)
    }

    /// Takes the channels of earlier runs, those too that only the node knows.
    fn adopt(&self, found: Vec<(PublicKey, Followed)>, new: &BTreeSet<PublicKey>) {
        let it = &self.0;
        let mut found: BTreeMap<_, _> = found.into_iter().collect();
        let mut channels = it.channels.borrow_mut();
        for key in it.node.channels() {
            let mut record = found.remove(&key).unwrap_or_else(Followed::seeded);
            if record.preview {
                // Whoever looked at it is gone.
                drop(it.node.command(Command::Unfollow(key)));
                self.forget(key);
                continue;
            }
            let is_numbered = self.number(&mut record);
            if record.paused {
                drop(it.node.command(Command::Pause(key)));
            }
            let mut channel =
                Channel::new(key, record, new.contains(&key), &it.node, &it.bench, &it.reporter);
            if is_numbered {
                channel.note_record();
            }
            channels.insert(key, channel);
        }
        // A record that was written before its channel was followed, as the process ended between the two.
        drop(channels);
        for (key, _) in found {
            self.forget(key);
        }
    }

    /// Removes a channel's record, behind the work.
    fn forget(&self, key: PublicKey) {
        self.spawn(|it| async move {
            let _ = it.0.records.set_channel(ChannelId(key), None).await;
        });
    }

    /// Gives a channel a number, if it has none; whether it had none.
    fn number(&self, record: &mut Followed) -> bool {
        let is_new = record.number == 0;
        if is_new {
            self.0.numbers.set(self.0.numbers.get() + 1);
            record.number = self.0.numbers.get();
        }
        is_new
    }

    /// Sets its own tasks going.
    fn run(&self, ended: Receiver<Finished>) {
        self.spawn(|it| async move { it.follow_events().await });
        self.spawn(|it| async move {
            while let Ok(finished) = ended.recv().await {
                it.finish(finished);
            }
        });
        self.spawn(|it| async move {
            let mut ticks = smol::Timer::interval_at(Instant::now(), TICK);
            let mut told = None;
            while ticks.next().await.is_some() {
                it.tick(&mut told);
            }
        });
        for job in self.0.jobs.borrow().queued() {
            self.begin(job);
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(&self, work: impl FnOnce(Self) -> F) {
        let task = self.0.executor.spawn(work(self.clone()));
        self.0.tasks.borrow_mut().push(task);
    }

    async fn follow_events(&self) {
        let mut events = self.0.node.events_after(0);
        loop {
            let next = events.next().await;
            if next.missed > 0 {
                tracing::warn!(next.missed, "events came faster than they were taken");
            }
            match &*next.news {
                NodeNews::Event(event) => self.on_event(event),
                NodeNews::Loss(loss) => events::report_loss(loss, &self.0.reporter),
            }
        }
    }

    fn on_event(&self, event: &Event) {
        let it = &self.0;
        let of = channel_of(event);
        let reporter = of.map_or_else(|| it.reporter.clone(), |channel| it.reporter.of_channel(channel));
        events::report(event, &reporter);
        let mut channels = it.channels.borrow_mut();
        if let Event::StoreFull { .. } = event {
            channels.values_mut().for_each(Channel::note_full);
        }
        let Some(key) = of else { return };
        if !channels.contains_key(&key) && it.node.channel_status(&key).is_some() {
            // A channel of one's own, which publishing follows.
            let mut record = Followed::seeded();
            self.number(&mut record);
            let mut channel = Channel::new(key, record, false, &it.node, &it.bench, &it.reporter);
            channel.note_record();
            channels.insert(key, channel);
        }
        let Some(channel) = channels.get_mut(&key) else { return };
        if let Err(failure) = channel.on_event(event) {
            channel.fail(failure);
        }
        if let Some(record) = channel.take_new_record() {
            drop(channels);
            self.keep(key, record);
        }
    }

    /// Keeps a channel's record, behind the work.
    fn keep(&self, key: PublicKey, record: Followed) {
        let it = self.clone();
        let task = self.0.executor.spawn(async move {
            // It may not be followed any more.
            if !it.0.channels.borrow().contains_key(&key) {
                return;
            }
            let _ = it.0.records.set_channel(ChannelId(key), Some(&record)).await;
        });
        let mut keeping = self.0.keeping.borrow_mut();
        keeping.retain(|task| !task.is_finished());
        keeping.push(task);
    }

    fn finish(&self, finished: Finished) {
        let mut channels = self.0.channels.borrow_mut();
        let Some(channel) = channels.get_mut(&finished.channel) else { return };
        if let Err(failure) = channel.finish(finished) {
            channel.fail(failure);
        }
    }

    fn tick(&self, told: &mut Option<Instant>) {
        let it = &self.0;
        for (key, channel) in it.channels.borrow_mut().iter_mut() {
            if let Err(failure) = channel.look() {
                channel.fail(failure);
            }
            if let Some(record) = channel.take_new_record() {
                self.keep(*key, record);
            }
        }
        self.end_previews();
        for job in it.jobs.borrow_mut().moved() {
            self.tell_job(&job);
        }
        it.rates.borrow_mut().note(&it.node.status());
        self.0.undo.borrow_mut().forget();
        if told.is_none_or(|told| told.elapsed() >= STATUS_INTERVAL) {
            *told = Some(Instant::now());
            let status = it.node.status();
            it.reporter.event(News::Status, events::members(status), events::lag(status).unwrap_or_default());
        }
        it.tasks.borrow_mut().retain(|task| !task.is_finished());
    }

    /// Ends previews that nobody made a subscription of.
    fn end_previews(&self) {
        let channels = self.0.channels.borrow();
        let old: Vec<PublicKey> =
            channels.iter().filter(|(_, channel)| channel.is_old_preview()).map(|(key, _)| *key).collect();
        drop(channels);
        for key in old {
            self.spawn(|it| async move {
                let call = api::RemoveSubscription { channel: ChannelId(key) };
                let _ = api::Answers::answer(&it, call).await;
            });
        }
    }

    fn tell_job(&self, job: &api::JobInfo) {
        let members = json!({
            "kind": job.kind, "state": job.state, "step": job.step, "done_bytes": job.done_bytes,
            "total_bytes": job.total_bytes,
        });
        self.0.reporter.of_job(job.id).event(News::Job, members, "");
    }

    /// The events.
    pub(crate) fn log(&self) -> &Rc<Log> {
        &self.0.log
    }

    /// When it was started: milliseconds since 1970.
    pub(crate) fn started_unix_ms(&self) -> u64 {
        self.0.started_unix_ms
    }

    /// The node below.
    pub(crate) fn node(&self) -> &Handle {
        &self.0.node
    }

    /// Says where the API listens.
    pub(crate) fn set_api(&self, addr: SocketAddr) {
        self.0.api.set(Some(addr));
    }

    /// Says who may use the API.
    pub(crate) fn set_access(&self, access: Rc<Access>) {
        *self.0.access.borrow_mut() = Some(access);
    }

    fn access(&self) -> Result<Rc<Access>, Failure> {
        let access = self.0.access.borrow().clone();
        access.ok_or_else(|| Failure::new(Exit::NotFound, "this node has no API that others could use"))
    }

    /// Waits until a caller asks for the end.
    pub(crate) async fn ending(&self) {
        loop {
            let ending = self.0.ending.listen();
            if self.0.is_ending.get() {
                return;
            }
            ending.await;
        }
    }

    /// Ends all that is under way and the node. What is not over goes on at the next start.
    pub(crate) async fn end(&self) {
        let it = &self.0;
        it.jobs.borrow().cancel_work();
        let keeping = std::mem::take(&mut *it.keeping.borrow_mut());
        for task in keeping {
            task.await;
        }
        let mut channels = std::mem::take(&mut *it.channels.borrow_mut());
        for (key, channel) in &mut channels {
            // What it has come to may not have been told yet.
            let _ = channel.look();
            if let Some(record) = channel.take_new_record() {
                let _ = it.records.set_channel(ChannelId(*key), Some(&record)).await;
            }
            channel.end().await;
        }
        let tasks = std::mem::take(&mut *it.tasks.borrow_mut());
        drop(tasks);
        it.node.shutdown().await;
    }

    /// The folder for a channel whose user names none, until its title is known.
    fn own_folder(&self, channel: &PublicKey) -> PathBuf {
        self.0.home.join(own_folder::DOWNLOADS).join(channel.to_string())
    }

    fn limits(&self) -> Limits {
        let config = self.0.config.borrow();
        Limits {
            upload_bytes_per_sec: config.upload_bytes_per_sec,
            download_bytes_per_sec: config.download_bytes_per_sec,
        }
    }

    fn settings(&self) -> Settings {
        let config = self.0.config.borrow();
        let restart = self.0.waiting.borrow().iter().map(|key| (*key).to_owned()).collect();
        Settings { gateway: config.gateway, whole: config.takes_all, restart }
    }

    /// Says which keys of the configuration file wait for a restart.
    pub(crate) fn wait_for_restart(&self, keys: Vec<&'static str>) {
        let is_new = *self.0.waiting.borrow() != keys;
        self.0.waiting.replace(keys);
        if is_new {
            self.tell_changed();
        }
    }

    /// Lets the node go by what a call changes, now and in later runs.
    async fn configure(&self, change: Changes) -> Result<(), ApiError> {
        let kept = records::changed(self.0.node.state()).map_err(Failure::from)?.with(change);
        self.go_by(change, Some(kept)).await
    }

    /// Lets the node go by what a configuration file says anew. What a call has changed before gives way, also in later runs.
    pub(crate) async fn reconfigure(&self, change: Changes) -> Result<(), ApiError> {
        let before = records::changed(self.0.node.state()).map_err(Failure::from)?;
        let kept = before.with(change.of_what(before));
        self.go_by(change, Some(kept).filter(|kept| *kept != before)).await
    }

    async fn go_by(&self, change: Changes, kept: Option<Changes>) -> Result<(), ApiError> {
        let mut config = self.0.config.borrow().clone();
        change.apply(&mut config);
        let gateway = config.gateway && self.0.asked.dht != api::DhtPart::Off;
        self.command(Command::Configure(Box::new(Config { gateway, ..config.clone() }))).await?;
        *self.0.config.borrow_mut() = config;
        if let Some(kept) = kept {
            self.0.records.set_changed(&kept).await?;
        }
        self.tell_changed();
        Ok(())
    }

    fn tell_changed(&self) {
        let members = json!({ "limits": self.limits(), "settings": self.settings() });
        self.0.reporter.event(News::Changed, members, "");
    }

    async fn command(&self, command: Command) -> Result<(), ApiError> {
        self.0.node.command(command).await.map(drop).map_err(|refusal| refused(&refusal).into())
    }
}

fn refused(refusal: &Refusal) -> Failure {
    let exit = match refusal {
        Refusal::NotFollowed | Refusal::NotBanned => Exit::NotFound,
        Refusal::WrongKey => Exit::Permission,
        Refusal::Selection(_) => Exit::Usage,
        _ => Exit::Other,
    };
    Failure::new(exit, refusal.to_string())
}
