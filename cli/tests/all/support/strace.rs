//! Runs the binary under `strace`, which makes system calls fail or kills the process at them.
//!
//! `strace` counts calls thread by thread, so the n-th call is that of each thread which comes that far. What should not have
//! been hit (a pipe, a socket, an event counter) is known from the log, and such a run says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, megatorrent};

/// The calls that change what is on the disk.
const CALLS: [&str; 12] = [
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "fdatasync",
    "syncfs",
    "fallocate",
    "ftruncate",
];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Io,
    NoSpace,
    ReadOnly,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Kill, Self::Io, Self::NoSpace, Self::ReadOnly];

    fn injection(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::Io => "error=EIO",
            Self::NoSpace => "error=ENOSPC",
            Self::ReadOnly => "error=EROFS",
        }
    }

    /// The exit code that README.md gives to it.
    fn code(self) -> Option<i32> {
        match self {
            Self::Kill => None,
            Self::Io => Some(1),
            Self::NoSpace => Some(7),
            Self::ReadOnly => Some(6),
        }
    }

    /// What a message says of it, in small letters.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Kill => &[],
            Self::Io => &["input/output error"],
            Self::NoSpace => &["no space"],
            Self::ReadOnly => &["read-only file system"],
        }
    }
}

/// Whose calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of the first thread.
    First,
    /// Those of each thread.
    Each,
    /// Those on one file.
    File(PathBuf),
}

/// One fault at one call.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) scope: Scope,
    pub(crate) call: &'static str,
    pub(crate) number: usize,
    pub(crate) fault: Fault,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, call, number, fault } = self;
        write!(f, "{fault:?} at {call} {number} of {scope:?}")
    }
}

/// Whether processes can be traced here; says so where not.
pub(crate) fn is_possible() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let why = match &traced {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: strace is not installed, or may not trace here: {}", why.trim());
    false
}

/// A command under `strace`, which writes to `log`.
fn traced<S: AsRef<OsStr>>(folder: &Path, log: &Path, case: Option<&Case>, args: &[S]) -> Command {
    let program = megatorrent();
    let mut command = Command::new("strace");
    // The tracer is a grandchild: the command is ours to wait for and to signal.
    command.args(["-D", "-y", "-q", "-o"]).arg(log).arg("-e").arg(format!("trace={}", CALLS.join(",")));
    if case.is_none_or(|case| case.scope != Scope::First) {
        command.arg("-f");
    }
    if let Some(Case { scope, call, number, fault }) = case {
        command.arg("-e").arg(format!("inject={call}:{}:when={number}", fault.injection()));
        if let Scope::File(path) = scope {
            command.arg("-P").arg(path);
        }
    }
    command.arg(program.get_program()).args(args).arg("--json");
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command under `strace` that has not ended.
pub(crate) struct Traced {
    log: PathBuf,
    case: Option<Case>,
    pub(crate) child: Child,
    /// Whether it has written its first line.
    said_ready: Arc<AtomicBool>,
    streams: [thread::JoinHandle<Vec<u8>>; 2],
}

/// What became of a command under `strace`.
pub(crate) struct Ended {
    case: Option<Case>,
    pub(crate) output: Output,
    /// Whether it had to be killed.
    hangs: bool,
    /// What was hit; nothing where the command had fewer calls.
    hit: Vec<String>,
}

fn reader(mut stream: impl Read + Send + 'static, began: Arc<AtomicBool>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut bytes, mut buf) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            bytes.extend_from_slice(&buf[..n]);
            began.store(true, Relaxed);
        }
        bytes
    })
}

impl Traced {
    pub(crate) fn start<S: AsRef<OsStr>>(folder: &Path, log: &Path, case: Option<&Case>, args: &[S]) -> Self {
        let mut child = traced(folder, log, case, args).spawn().unwrap();
        let said_ready = Arc::<AtomicBool>::default();
        let streams = [
            reader(child.stdout.take().unwrap(), said_ready.clone()),
            reader(child.stderr.take().unwrap(), Arc::default()),
        ];
        Self { log: log.to_owned(), case: case.cloned(), child, said_ready, streams }
    }

    /// Waits until it has written its first line (`true`) or has ended.
    pub(crate) fn is_running(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && self.child.try_wait().unwrap().is_none() {
            if self.said_ready.load(Relaxed) {
                return true;
            }
            thread::sleep(Duration::from_millis(2)); // std has no wait with a deadline
        }
        false
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let mut hangs = false;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    hangs = true;
                    self.child.kill().unwrap();
                    break self.child.wait().unwrap();
                }
                None => thread::sleep(Duration::from_millis(2)), // std has no wait with a deadline
            }
        };
        // The tracer has these too: when they end, its log is whole.
        let [stdout, stderr] = self.streams.map(|stream| stream.join().unwrap());
        let hit = calls(&self.log).into_iter().filter(|call| call.is_injected).map(|call| call.on).collect();
        let output = Output { status, stdout, stderr };
        Ended { case: self.case, output, hangs, hit }
    }
}

/// Runs a command to its end.
pub(crate) fn run<S: AsRef<OsStr>>(folder: &Path, log: &Path, case: Option<&Case>, args: &[S]) -> Ended {
    Traced::start(folder, log, case, args).end()
}

impl Ended {
    /// Whether it was a fault of the disk, and of nothing else, that befell it.
    pub(crate) fn says_something(&self) -> bool {
        if self.was_killed() {
            return !self.hangs || self.hit.iter().all(|on| on.starts_with('/'));
        }
        !self.hit.is_empty() && self.hit.iter().all(|on| on.starts_with('/'))
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.output.status.signal() == Some(9)
    }

    /// Whether it reported success.
    pub(crate) fn is_success(&self) -> bool {
        self.output.status.code() == Some(0)
    }

    /// Checks how it ended: without a panic, by a documented code, with a message that names what happened, and to what.
    pub(crate) fn check(&self) -> Result<(), String> {
        let said = super::stderr(&self.output);
        let fault = self.case.as_ref().map(|case| case.fault);
        if self.hangs {
            return Err(format!("it hangs: {said}"));
        }
        if said.contains("panicked") {
            return Err(format!("it panicked: {said}"));
        }
        if self.was_killed() && fault == Some(Fault::Kill) || self.is_success() {
            return Ok(());
        }
        let Some(code) = self.output.status.code() else {
            return Err(format!("it ended by {:?}: {said}", self.output.status));
        };
        let expected = fault.and_then(Fault::code);
        if expected != Some(code) {
            return Err(format!("code {code} in place of {expected:?}: {said}"));
        }
        let error = said.lines().filter(|line| line.starts_with("error: ")).collect::<String>();
        let names_what =
            fault.is_some_and(|f| f.words().iter().any(|word| error.to_lowercase().contains(word)));
        if !names_what || !error.contains('/') {
            return Err(format!("no word of what happened, and to what (hit {:?}): {said}", self.hit));
        }
        Ok(())
    }
}

/// One call of a log.
struct Call {
    thread: u32,
    name: String,
    /// The file, by its path, or what else it was made on.
    on: String,
    is_injected: bool,
}

fn calls(log: &Path) -> Vec<Call> {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut unfinished: BTreeMap<u32, Call> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let (thread, rest) = match line.split_once(' ').and_then(|(t, rest)| Some((t.parse().ok()?, rest))) {
            Some((thread, rest)) => (thread, rest.trim_start()),
            None => (0, line),
        };
        let is_injected = line.ends_with("(INJECTED)");
        if rest.starts_with("<... ") {
            calls.extend(unfinished.remove(&thread).map(|call| Call { is_injected, ..call }));
            continue;
        }
        let Some((name, args)) = rest.split_once('(').filter(|(name, _)| CALLS.contains(name)) else {
            continue;
        };
        let in_brackets = args.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(on, _)| on);
        let on = if name.starts_with("rename") { "/" } else { in_brackets.unwrap_or("") };
        let call = Call { thread, name: name.to_owned(), on: on.to_owned(), is_injected };
        if rest.ends_with("<unfinished ...>") {
            unfinished.insert(thread, call);
        } else {
            calls.push(call);
        }
    }
    calls
}

/// The calls of a clean run, from which the cases come.
pub(crate) struct Plan {
    /// How many calls each kind has at most in one thread, by whose they are.
    counts: Vec<(Scope, &'static str, usize)>,
}

impl Plan {
    /// Looks at two clean runs: files that both have are named, so that each of their calls can be hit alone.
    pub(crate) fn new(logs: [&Path; 2]) -> Self {
        let [calls, others] = logs.map(calls);
        let files = |calls: &[Call]| -> BTreeSet<String> {
            calls
                .iter()
                .filter(|call| call.on.len() > 1 && call.on.starts_with('/'))
                .map(|call| call.on.clone())
                .collect()
        };
        let first = calls.first().map_or(0, |call| call.thread);
        let count = |name: &str, wanted: &dyn Fn(&Call) -> bool| {
            let mut threads: BTreeMap<u32, usize> = BTreeMap::new();
            for call in calls.iter().filter(|call| call.name == name && wanted(call)) {
                *threads.entry(call.thread).or_default() += 1;
            }
            threads.into_values().max().unwrap_or(0)
        };
        let mut counts = Vec::new();
        for name in CALLS {
            counts.push((Scope::First, name, count(name, &|call| call.thread == first)));
            counts.push((Scope::Each, name, count(name, &|_| true)));
            for file in files(&calls).intersection(&files(&others)) {
                counts.push((Scope::File(file.into()), name, count(name, &|call| call.on == *file)));
            }
        }
        counts.retain(|(_, _, count)| *count > 0);
        Self { counts }
    }

    /// Every fault at every call.
    pub(crate) fn all(&self) -> Vec<Case> {
        self.cases(|count| (1..=count).collect())
    }

    /// Every fault at the first, the last and one other call of each kind.
    pub(crate) fn some(&self, seed: usize) -> Vec<Case> {
        self.cases(|count| BTreeSet::from([1, 1 + seed % count, count]).into_iter().collect())
    }

    fn cases(&self, numbers: impl Fn(usize) -> Vec<usize>) -> Vec<Case> {
        let mut cases = Vec::new();
        for (scope, call, count) in &self.counts {
            for number in numbers(*count) {
                for fault in Fault::ALL {
                    cases.push(Case { scope: scope.clone(), call, number, fault });
                }
            }
        }
        cases
    }
}
