//! Runs other programs: the real `megatorrent`, the v5 peer in Python, and a DHT of a few nodes, all on loopback.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use futures_lite::StreamExt;
use futures_lite::future::block_on;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id, MutableItem};
use serde_json::Value;

/// The longest that a test waits for anything, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// Debian's Python: the one whose packages `scripts/test` installs.
const PYTHON: &str = "/usr/bin/python3";
/// How long a DHT node of the tests waits for an answer; loopback needs a fraction of it.
const DHT_TIMEOUT: Duration = Duration::from_millis(500);

/// A program of `peers/`, to be run by Python.
///
/// # Panics
/// Where Python or its `cryptography` package is missing, with what to do about it.
pub(crate) fn python(program: &str) -> Command {
    static USABLE: OnceLock<bool> = OnceLock::new();
    let usable = USABLE.get_or_init(|| {
        Command::new(PYTHON).args(["-c", "import cryptography"]).status().is_ok_and(|status| status.success())
    });
    assert!(
        *usable,
        "{PYTHON} with the package cryptography is needed: run scripts/test, or `apt-get install python3 python3-cryptography`"
    );
    let mut command = Command::new(PYTHON);
    command.arg(format!("{}/peers/{program}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// The v5 peer with these arguments, in `folder`.
pub(crate) fn v5_peer(folder: &Path, args: &[&str]) -> Command {
    let mut command = python("v5_peer.py");
    command.current_dir(folder).args(args);
    command
}

/// The v6 peer with these arguments, in `folder`.
pub(crate) fn v6_peer(folder: &Path, args: &[&str]) -> Command {
    let mut command = python("v6_peer.py");
    command.current_dir(folder).args(args);
    command
}

/// `megatorrent --json` with these arguments, in `folder`, with none of the caller's settings.
pub(crate) fn megatorrent(folder: &Path, args: &[&str]) -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BINARY.get_or_init(build));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MEGATORRENT_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).arg("--json").args(args);
    command
}

/// Builds the program as these tests were built, and says where it is.
fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--package", "megatorrent", "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "megatorrent";
        message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    });
    executable
        .unwrap_or_else(|| panic!("megatorrent does not build: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a program to its end.
pub(crate) fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}

/// Runs a program to its end, which must succeed; returns its output.
pub(crate) fn ok(command: Command) -> String {
    let said = format!("{command:?}");
    let output = run(command);
    assert!(output.status.success(), "{said}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the programs write UTF-8")
}

/// A program that goes on and writes JSON lines; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            let values =
                stdout.lines().map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
            values.map(|value| sender.send(value)).all(|sent| sent.is_ok())
        });
        Self { stdin: child.stdin.take(), child, lines }
    }

    /// The next line for which `wanted` holds; those before it are passed over.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if wanted(&line) {
                return line;
            }
            passed.push(line.to_string());
        }
        panic!("no {what}; passed over:\n{}", passed.join("\n"));
    }

    /// The next line with that `event`.
    pub(crate) fn event(&self, name: &str) -> Value {
        self.wait_for(name, |line| line["event"] == name)
    }

    /// All lines so far that were not waited for.
    pub(crate) fn rest(&self) -> Vec<Value> {
        self.lines.try_iter().collect()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Ends the program's standard input, for which some programs wait.
    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits for the program's end; returns the lines that were not waited for.
    pub(crate) fn finish(&mut self) -> (ExitStatus, Vec<Value>) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        // The channel closes when the program closes its output, which it does by ending.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            lines.push(line);
        }
        assert!(Instant::now() < deadline, "the program goes on; it said {lines:?}");
        (self.child.wait().expect("it is our child"), lines)
    }

    /// The most memory that the program had at once, in KiB (Linux).
    pub(crate) fn memory_peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node of ours that seeds `folder/data`; its address.
pub(crate) fn serve(folder: &Path, args: &[&str]) -> (Running, String) {
    let args = [&["serve", "-d", "data", "-H", "127.0.0.1", "-T", "0"], args].concat();
    let node = Running::start(megatorrent(folder, &args));
    let address = node.event("ready")["p2p"].as_str().expect("it listens").to_owned();
    (node, address)
}

/// The v5 peer serving `folder/blobs`; its address.
pub(crate) fn v5_serve(folder: &Path, args: &[&str]) -> (Running, String) {
    let peer = Running::start(v5_peer(folder, &[&["serve"], args].concat()));
    let port = peer.event("listening")["port"].as_u64().expect("a number");
    (peer, format!("127.0.0.1:{port}"))
}

/// The v6 peer serving `folder/channel.json` from `folder/blobs`; its address.
pub(crate) fn v6_serve(folder: &Path, args: &[&str]) -> (Running, String) {
    let peer = Running::start(v6_peer(folder, &[&["serve"], args].concat()));
    let port = peer.event("listening")["port"].as_u64().expect("a number");
    (peer, format!("127.0.0.1:{port}"))
}

/// Host and port, as the v5 peer's arguments.
pub(crate) fn split(address: &str) -> (&str, &str) {
    address.rsplit_once(':').expect("host:port")
}

/// A DHT on loopback.
pub(crate) struct Swarm {
    nodes: Vec<AsyncDht>,
    /// The address of one of its nodes.
    pub(crate) bootstrap: String,
}

impl Swarm {
    pub(crate) fn new() -> Self {
        let first = Self::node(None);
        let bootstrap = format!("127.0.0.1:{}", block_on(first.info()).local_addr().port());
        let others = (0..2).map(|_| Self::node(Some(&bootstrap)));
        let swarm = Self { nodes: std::iter::once(first).chain(others).collect(), bootstrap };
        for node in &swarm.nodes[1..] {
            assert!(block_on(node.bootstrapped()));
        }
        swarm
    }

    #[expect(clippy::disallowed_methods, reason = "other programs' DHT nodes, by the address of one")]
    fn node(bootstrap: Option<&String>) -> AsyncDht {
        let mut builder = Dht::builder();
        builder.server_mode().bind_address(Ipv4Addr::LOCALHOST).port(0).request_timeout(DHT_TIMEOUT);
        match bootstrap {
            None => builder.no_bootstrap(),
            Some(address) => builder.bootstrap(&[address]),
        };
        builder.build().expect("loopback has room").as_async()
    }

    fn last(&self) -> &AsyncDht {
        self.nodes.last().expect("it has nodes")
    }

    /// Puts a signed item in the form of PUBLISH.
    pub(crate) fn put(&self, item: &Value) {
        let bytes = |name: &str| base16ct::lower::decode_vec(item[name].as_str().expect("hex")).expect("hex");
        let (key, signature) =
            (bytes("k").try_into().expect("32 bytes"), bytes("sig").try_into().expect("64 bytes"));
        let seq = item["seq"].as_i64().expect("a number");
        let item = MutableItem::new_signed_unchecked(key, signature, &bytes("v"), seq, None);
        let stored = block_on(self.last().put_mutable(item, None)).expect("the DHT takes it");
        assert!(stored.stored_at > 1, "a node besides our own holds it");
    }

    /// The newest value under a key in hex.
    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        let key: [u8; 32] = base16ct::lower::decode_vec(key).expect("hex").try_into().expect("32 bytes");
        let items = self.last().get_mutable(&key, None, None);
        let items: Vec<MutableItem> = block_on(items.collect());
        items.iter().max_by_key(|item| item.seq()).expect("the DHT has it").value().to_vec()
    }

    /// Announces that the peer at `address` has a blob, as v5 peers do.
    pub(crate) fn announce(&self, blob_id: &str, address: &str) {
        let id = Id::from_bytes(base16ct::lower::decode_vec(&blob_id[..40]).expect("hex")).expect("20 bytes");
        let port = split(address).1.parse().expect("a port");
        block_on(self.last().announce_peer(id, Some(port))).expect("the DHT takes it");
    }
}

/// A file of that length whose content does not repeat.
pub(crate) fn write_file(path: &Path, length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    let mut content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    content.truncate(length);
    fs::write(path, &content).expect("written");
    content
}

/// The JSON in a file.
pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("written")).expect("JSON")
}
