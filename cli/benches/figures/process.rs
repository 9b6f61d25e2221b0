//! The real binary as child processes, with the time, processor and memory that each takes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use crate::Outcome;

/// The longest that any event is waited for.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often a process's peak memory is read while it lives: the system forgets it at the process's end.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

/// What a process took in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// Processor seconds, user and system.
    pub(crate) cpu_secs: f64,
    /// `VmHWM`, as last seen before its end.
    pub(crate) peak_mib: f64,
}

/// A command under way, run with `--json`; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    started: Instant,
    lines: Receiver<(Instant, String)>,
    stderr: Arc<Mutex<String>>,
    peak_kib: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    sampler: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_megatorrent"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MEGATORRENT_"))
        {
            command.env_remove(name);
        }
        command.current_dir(folder).args(args).arg("--json");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn()?;
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send((Instant::now(), line)))
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (errors, sink) = (BufReader::new(child.stderr.take().expect("it is piped")), Arc::clone(&stderr));
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                sink.lock().expect("nobody panics with it").push_str(&(line + "\n"));
            }
        });
        let (peak_kib, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (pid, peak, end) = (child.id(), Arc::clone(&peak_kib), Arc::clone(&ended));
        let sampler = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                peak.fetch_max(memory_kib(pid, "VmHWM:").unwrap_or(0), Ordering::Relaxed);
                thread::sleep(SAMPLE_INTERVAL);
            }
        });
        let name = args.first().copied().unwrap_or_default().to_owned();
        Ok(Self { name, child, started, lines, stderr, peak_kib, ended, sampler: Some(sampler) })
    }

    /// When it was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Waits for the next event for which `wanted` holds: the event, and when it came.
    pub(crate) fn event(&self, wanted: impl Fn(&Value) -> bool) -> Outcome<(Instant, Value)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((at, line)) = self.lines.recv_timeout(left) else {
                let stderr = self.stderr.lock().expect("nobody panics with it");
                return Err(
                    format!("`{}` did not tell what was waited for; it said: {stderr}", self.name).into()
                );
            };
            let event = serde_json::from_str(&line)?;
            if wanted(&event) {
                return Ok((at, event));
            }
        }
    }

    /// Waits for the next event of that name.
    pub(crate) fn event_named(&self, name: &str) -> Outcome<(Instant, Value)> {
        self.event(|event| event["event"] == name)
    }

    /// The address for others' `-b`.
    pub(crate) fn ready(&self) -> Outcome<String> {
        let (_, event) = self.event_named("ready")?;
        Ok(event["p2p"].as_str().ok_or("a ready line names the TCP address")?.to_owned())
    }

    /// Processor seconds so far.
    pub(crate) fn cpu_secs(&self) -> Outcome<f64> {
        cpu_secs(self.child.id())
    }

    /// Processor time so far of all its threads that live, to the nanosecond.
    pub(crate) fn cpu_time(&self) -> Outcome<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += stat.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory.
    pub(crate) fn resident_mib(&self) -> Outcome<f64> {
        Ok(mib(memory_kib(self.child.id(), "VmRSS:").ok_or("the process has ended")?))
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn finish(mut self) -> Outcome<Usage> {
        let pid = self.pid();
        // Its end is seen before it is taken note of, so that the system still knows what it used.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let (wall, cpu_secs) = (self.started.elapsed(), self.cpu_secs()?);
        let status = self.child.wait()?;
        if !status.success() {
            let stderr = self.stderr.lock().expect("nobody panics with it");
            return Err(format!("`{}` failed ({status}): {stderr}", self.name).into());
        }
        self.stop_sampling();
        Ok(Usage { wall, cpu_secs, peak_mib: mib(self.peak_kib.load(Ordering::Relaxed)) })
    }

    /// Ends it by SIGTERM.
    pub(crate) fn terminate(self) -> Outcome<Usage> {
        kill_process(self.pid(), Signal::TERM)?;
        self.finish()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn stop_sampling(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            drop(sampler.join());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.stop_sampling();
    }
}

/// Runs a command to its end.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Outcome<Usage> {
    Process::start(folder, args)?.finish()
}

fn memory_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// User and system time from `/proc/PID/stat` (proc(5): fields 14 and 15, counted from behind the name).
fn cpu_secs(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("a process's stat holds its name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|n| n.parse().unwrap_or(0)).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
