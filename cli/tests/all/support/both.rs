//! Runs a scenario twice, on a home without a node and beside `serve` on it, and compares what the commands say.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Running, ok, random_bytes, run, run_with_input, serve, stderr};

/// Options of a node on loopback, which the running one has too.
const NETWORK: [&str; 4] = ["-H", "127.0.0.1", "--dht", "server"];
/// The identity of somebody else.
pub(crate) const OTHERS: &str = "other.json";
/// When all files were changed: it is in their entries.
const CHANGED_SECS: u64 = 1_700_000_000;
/// Events that come as time and the network have it.
const CHANCE: [&str; 2] = ["progress", "status"];

/// A home, alone or with a node that runs on it, and what commands on it said.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    hub: Running,
    author: Running,
    address: String,
    node: RefCell<Option<Running>>,
    said: RefCell<Vec<String>>,
}

/// Lets the scenario happen both ways and compares.
pub(crate) fn both_ways(scenario: impl Fn(&Home)) {
    let keys = tempfile::tempdir().unwrap();
    ok(keys.path(), ["gen-key"]);
    ok(keys.path(), ["gen-key", "-k", OTHERS]);
    let [alone, beside] = [false, true].map(|is_beside| {
        let home = Home::new(keys.path());
        if is_beside {
            home.start();
        }
        scenario(&home);
        let said = home.said.take();
        home.end();
        said
    });
    assert_eq!(alone.len(), beside.len());
    let differ = alone.iter().zip(&beside).filter(|(alone, beside)| alone != beside);
    let differ: Vec<_> =
        differ.map(|(alone, beside)| format!("alone:\n{alone}\nbeside a node:\n{beside}")).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

impl Home {
    fn new(keys: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for key in ["identity.json", OTHERS] {
            fs::copy(keys.join(key), folder.path().join(key)).unwrap();
        }
        let hub = serve(folder.path(), "hub", &[]);
        let address = hub.ready();
        let author = serve(folder.path(), "author", &[&address]);
        author.ready();
        Self { folder, hub, author, address, node: RefCell::default(), said: RefCell::default() }
    }

    fn start(&self) {
        let args = ["serve", "-d", "home", "-T", "0", "-P", "0", "-b", &self.address];
        let node = Running::start(self.path(), args.iter().chain(&NETWORK));
        node.ready();
        *self.node.borrow_mut() = Some(node);
    }

    fn end(self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
        self.author.stop();
        self.hub.stop();
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The options of a command that has a node's.
    pub(crate) fn network(&self) -> Vec<&str> {
        NETWORK.into_iter().chain(["-b", &self.address]).collect()
    }

    /// The hub's address.
    pub(crate) fn hub(&self) -> &str {
        &self.address
    }

    /// Makes a file, always of the same age.
    pub(crate) fn write(&self, name: &str, len: usize) {
        let path = self.join(name);
        fs::write(&path, random_bytes(len as u64 + 1, len)).unwrap();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(CHANGED_SECS);
        File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
    }

    /// Runs a command on the home, in words and then as JSON where `args` say so; notes its code and what it said, to be the same both
    /// ways. Its stdout.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> String {
        self.run_with(code, args, None, ToOwned::to_owned)
    }

    /// The same for a command that tells what happens, in the order in which it does: its lines are compared without that.
    pub(crate) fn run_for_news<S: AsRef<OsStr>>(
        &self,
        code: i32,
        args: impl IntoIterator<Item = S>,
    ) -> String {
        self.run_with(code, args, None, sorted)
    }

    /// The same with something on stdin.
    pub(crate) fn run_with_input<S: AsRef<OsStr>>(
        &self,
        code: i32,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> String {
        self.run_with(code, args, Some(input), ToOwned::to_owned)
    }

    /// The same for an answer whose values are another's by nature: its members are compared.
    pub(crate) fn run_for_shape<S: AsRef<OsStr>>(
        &self,
        code: i32,
        args: impl IntoIterator<Item = S>,
    ) -> String {
        self.run_with(code, args, None, |text| {
            text.lines().map(|line| shape(&serde_json::from_str(line).unwrap())).collect()
        })
    }

    fn run_with<S: AsRef<OsStr>>(
        &self,
        code: i32,
        args: impl IntoIterator<Item = S>,
        input: Option<&[u8]>,
        view: impl Fn(&str) -> String,
    ) -> String {
        let mut args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        args.extend(["-d".into(), "home".into()]);
        let output = match input {
            None => run(self.path(), &args),
            Some(input) => run_with_input(self.path(), &args, input),
        };
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        let stdout = String::from_utf8(output.stdout.clone()).unwrap();
        let said = format!(
            "{}{}\n--- stderr\n{}",
            self.plain(&format!("{args:?}")),
            self.plain(&view(&stdout)),
            sorted(&self.plain(&stderr(&output)))
        );
        self.said.borrow_mut().push(said);
        stdout
    }

    /// What is left of a text without what is another's in every run: addresses, times, the folder, and events of chance.
    fn plain(&self, text: &str) -> String {
        let text = text.replace(&self.path().display().to_string(), "FOLDER");
        let is_chance = |line: &&str| {
            let event = serde_json::from_str::<Value>(line)
                .ok()
                .and_then(|it| it["event"].as_str().map(str::to_owned));
            event.is_some_and(|event| CHANCE.contains(&event.as_str()))
        };
        text.lines()
            .filter(|line| !is_chance(line))
            .map(|line| without_asking(&without_numbers(&without_replicas(line))) + "\n")
            .collect()
    }
}

/// Without when a channel was asked about last: a command's own node has had no time for it.
fn without_asking(line: &str) -> String {
    let (lately, up_to_date) = ("not asked lately", "up to date      ");
    line.replace("\"asked_unix_ms\":null", "\"asked_unix_ms\":TIME").replace(lately, up_to_date)
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Without how many nodes of the DHT took something, which is theirs to do.
fn without_replicas(line: &str) -> String {
    let plain = |line: &str, from: &str, to: &str| {
        let (before, rest) = line.split_once(from)?;
        Some(format!("{before}{from}…{}", &rest[rest.find(to)?..]))
    };
    let line = plain(line, "took it: ", ". `").unwrap_or_else(|| line.to_owned());
    plain(&line, "\"replicas\":", ",").unwrap_or(line)
}

/// Without times and ports: numbers of 13 digits and more, and those behind an address.
fn without_numbers(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(at);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        plain.push_str(before);
        let is_in_word = before.ends_with(|c: char| c.is_ascii_alphabetic());
        if !is_in_word && end >= 13 {
            plain.push_str("TIME");
        } else if plain.ends_with("127.0.0.1:") {
            plain.push_str("PORT");
        } else {
            plain.push_str(&digits[..end]);
        }
        rest = &digits[end..];
    }
    plain + rest
}

/// The members of an object and of those in it.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("{name}: {}", shape(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        _ => "…".into(),
    }
}
