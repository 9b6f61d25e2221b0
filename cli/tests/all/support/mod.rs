//! Runs the real binary: commands to their end, nodes until a test has seen what it waits for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

pub(crate) mod api;
pub(crate) mod both;
pub(crate) mod disk;
pub(crate) mod schema;
pub(crate) mod strace;
pub(crate) mod stranger;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that a test waits for anything, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) const MIB: usize = 1 << 20;

/// The binary in `folder`, where the user's home is too.
pub(crate) fn megatorrent_in(folder: &Path) -> Command {
    let mut command = megatorrent();
    command.current_dir(folder).env("HOME", folder).env("XDG_DATA_HOME", folder.join("share"));
    command
}

/// The binary, with none of the caller's settings, and without a user's home.
pub(crate) fn megatorrent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_megatorrent"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEGATORRENT_") {
            command.env_remove(name);
        }
    }
    command.env_remove("HOME").env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end in `folder`.
pub(crate) fn run<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Output {
    megatorrent_in(folder).args(args).output().unwrap()
}

/// Runs a command to its end in `folder` with `input` on stdin.
pub(crate) fn run_with_input<S: AsRef<OsStr>>(
    folder: &Path,
    args: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Output {
    let mut command = megatorrent_in(folder);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A child that ends before it has read everything closes the pipe, which is its right.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs a command that must succeed; its stdout.
pub(crate) fn ok<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> String {
    let output = run(folder, args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must succeed, with `--json`; the last object on its stdout.
pub(crate) fn ok_json<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Value {
    ok_lines(folder, args).pop().unwrap()
}

/// Runs a command that must succeed, with `--json`; all objects on its stdout, events as its `--help` lists them.
pub(crate) fn ok_lines<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Vec<Value> {
    let mut args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
    let help = help(&args[0]);
    args.push("--json".into());
    let lines =
        ok(folder, args).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    lines.iter().filter(|line| line.get("event").is_some()).for_each(|event| assert_listed(&help, event));
    lines
}

/// What a command wrote to stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command's `--help` says.
pub(crate) fn help(command: impl AsRef<OsStr>) -> String {
    String::from_utf8(megatorrent().arg(command).arg("--help").output().unwrap().stdout).unwrap()
}

/// Checks that a command's `--help` lists an event of that name, with these members and no others.
pub(crate) fn assert_listed(help: &str, event: &Value) {
    let (object, name) = (event.as_object().unwrap(), event["event"].as_str().unwrap());
    let at = help.find(&format!("{{\"event\":\"{name}\""));
    let entry = &help[at.unwrap_or_else(|| panic!("--help lists no {event}:\n{help}"))..];
    let quoted = entry[..entry.find('}').unwrap()].split('"').skip(1).step_by(2);
    let mut listed: Vec<&str> = quoted.filter(|word| *word != name).collect();
    listed.sort_unstable();
    let mut members: Vec<&str> = object.keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(listed, members, "what --help lists, and {event}");
}

/// A command that goes on, run with `--json`; killed when dropped.
pub(crate) struct Running {
    help: String,
    child: Child,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Self {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let help = help(&args[0]);
        let mut command = megatorrent_in(folder);
        command.args(args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let collected = Arc::new(Mutex::new(String::new()));
        let (errors, sink) = (BufReader::new(child.stderr.take().unwrap()), collected.clone());
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let mut sink = sink.lock().unwrap();
                sink.push_str(&line);
                sink.push('\n');
            }
        });
        Self { help, child, lines, stderr: collected }
    }

    /// The next event for which `wanted` holds; those before it are passed over.
    pub(crate) fn event_where(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line).unwrap();
                    assert_listed(&self.help, &event);
                    if wanted(&event) {
                        return event;
                    }
                    passed.push_str(&line);
                    passed.push('\n');
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {what}; passed over:\n{passed}stderr:\n{}", self.stderr.lock().unwrap());
                }
            }
        }
    }

    /// The next line, of a command that tells no events.
    pub(crate) fn line(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("no line; stderr:\n{}", self.said()));
        serde_json::from_str(&line).unwrap()
    }

    /// The next event of that name.
    pub(crate) fn event(&self, name: &str) -> Value {
        self.event_where(name, |event| event["event"] == name)
    }

    /// The address for others' `-b`, from the ready line.
    pub(crate) fn ready(&self) -> String {
        self.event("ready")["p2p"].as_str().unwrap().to_owned()
    }

    /// What it has written to stderr so far.
    pub(crate) fn said(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running; stderr:\n{}", self.stderr.lock().unwrap());
            thread::sleep(Duration::from_millis(5)); // std has no wait with a deadline
        }
    }

    /// Ends it by a signal and checks that it went cleanly.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.wait().code(), Some(0), "stderr:\n{}", self.stderr.lock().unwrap());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `len` bytes that look random, always the same for one `seed` (xorshift64).
pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The arguments of a node on loopback with its data in `name`, on ports that are free.
pub(crate) fn serve_args(name: &str, bootstrap: &[&str]) -> Vec<String> {
    let args = ["serve", "-d", name, "-H", "127.0.0.1", "-T", "0", "-P", "0", "--dht", "server"];
    let bootstrap = bootstrap.iter().flat_map(|address| ["-b", address]);
    args.into_iter().chain(bootstrap).map(ToString::to_string).collect()
}

/// A node on loopback with its data in `name`.
pub(crate) fn serve(folder: &Path, name: &str, bootstrap: &[&str]) -> Running {
    Running::start(folder, serve_args(name, bootstrap))
}

/// The arguments of a subscriber on loopback, with its data in `NAME` and its files in `NAME-out`.
pub(crate) fn subscribe_args(name: &str, uri: &str, bootstrap: &str) -> Vec<String> {
    let out = format!("{name}-out");
    let host = ["-H", "127.0.0.1", "--dht", "server", "-b", bootstrap];
    ["subscribe", uri, "-d", name, "-o", &out].iter().chain(&host).map(ToString::to_string).collect()
}

/// A folder with an author's identity, a bootstrap node, and files as asked.
pub(crate) struct Swarm {
    pub(crate) folder: tempfile::TempDir,
    /// Runs as long as the others may need it.
    _bootstrap: Running,
    pub(crate) address: String,
}

impl Swarm {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        ok(folder.path(), ["gen-key"]);
        let bootstrap = serve(folder.path(), "bootstrap", &[]);
        let address = bootstrap.ready();
        Self { folder, _bootstrap: bootstrap, address }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a file of `len` bytes and ingests it into the author's folder; the entry's name.
    pub(crate) fn ingest(&self, name: &str, len: usize, extra: &[&str]) -> String {
        fs::write(self.path().join(name), random_bytes(len as u64 + 1, len)).unwrap();
        let entry = format!("{name}.json");
        let args = ["ingest", "-i", name, "-d", "author", "-k", "identity.json", "-o", &entry];
        ok(self.path(), args.iter().chain(extra));
        entry
    }

    /// Publishes entries from the author's folder; what `publish --json` says.
    pub(crate) fn publish(&self, entries: &[&str], extra: &[&str]) -> Value {
        let args = ["publish", "-d", "author", "-b", &self.address, "-i"];
        ok_json(self.path(), args.iter().chain(entries).chain(extra))
    }

    /// The author's node.
    pub(crate) fn serve_author(&self) -> Running {
        let node = serve(self.path(), "author", &[&self.address]);
        node.ready();
        node
    }

    /// Whether the subscriber's file is the author's.
    pub(crate) fn assert_equal(&self, subscriber: &str, name: &str) {
        let got = fs::read(self.path().join(format!("{subscriber}-out")).join(name)).unwrap();
        assert!(got == fs::read(self.path().join(name)).unwrap(), "{name} differs");
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// The blobs that a node's folder holds.
pub(crate) fn blobs(dir: &Path) -> Vec<PathBuf> {
    let Ok(folders) = fs::read_dir(dir.join("blobs")) else { return Vec::new() };
    let mut blobs: Vec<_> = folders
        .map(Result::unwrap)
        .filter(|f| f.path().is_dir())
        .flat_map(|f| fs::read_dir(f.path()).unwrap().map(|b| b.unwrap().path()))
        .filter(|b| b.file_name().unwrap().len() == 64)
        .collect();
    blobs.sort();
    blobs
}
