//! What a user sees: data on stdout, words and progress on stderr.
//!
//! Under `--json` every line on stdout is one JSON object. Commands that stream write objects with an `event` member;
//! a failure is the last line, `{"event":"error","exit_code":…,"message":…}`, for every command.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::api::Event;
use crate::exit::{Failure, exit_of};
use crate::service::jobs::Progress;

/// How often a bar is drawn.
const BAR_HZ: u8 = 10;
/// To the terminal's first place, and what removes the rest of a line, and all below.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// How often a spinner turns.
const SPINNER_INTERVAL: Duration = Duration::from_millis(200);

/// Names for pieces of news, in one place, so that a test can look for each in the `--help`.
macro_rules! news {
    ($($name:ident = $text:literal,)*) => {
        /// A piece of news: the `event` of a line of JSON. The `--help` of each command says which of them it tells, with
        /// what members.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum News { $($name,)* }

        impl News {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

news! {
    Ready = "ready",
    Head = "head",
    Manifest = "manifest",
    Progress = "progress",
    File = "file",
    Complete = "complete",
    Withdrawn = "withdrawn",
    Status = "status",
    Loss = "loss",
    Recovered = "recovered",
    Warning = "warning",
    Note = "note",
    Job = "job",
    Followed = "followed",
    Unfollowed = "unfollowed",
    Changed = "changed",
    Stopped = "stopped",
    Error = "error",
    Found = "found",
    Checked = "checked",
    Repaired = "repaired",
    Step = "step",
    Verified = "verified",
    Simulation = "simulation",
    Timeline = "timeline",
    LeftOut = "left_out",
    Result = "result",
}

impl News {
    /// Whether commands show it under `--json`. Those that it is not for say by their end what came of a job, or have words alone.
    pub(crate) fn is_for_commands(self) -> bool {
        !matches!(self, Self::Note | Self::Job | Self::Changed)
    }
}

/// Where a command's words and data go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether stdout carries JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether somebody reads the words at a terminal.
    pub(crate) fn is_watched(self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// The result of a command: `object` under `--json`, `text` otherwise.
    pub(crate) fn result(self, object: &Value, text: &str) -> Result<(), Failure> {
        if self.json { self.line(&object.to_string()) } else { self.line(text) }
    }

    /// What is so now, in place of what was shown before where stdout is a terminal; otherwise after it.
    pub(crate) fn view(self, object: &Value, text: &str) -> Result<(), Failure> {
        if self.json || !io::stdout().is_terminal() {
            return self.result(object, text);
        }
        let lines: String = text.lines().flat_map(|line| [line, CLEAR_LINE, "\n"]).collect();
        self.line(&format!("{HOME}{lines}{CLEAR_BELOW}"))
    }

    /// A line of data.
    #[expect(clippy::unused_self, reason = "the one way to stdout; `Output` says who may write there")]
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| {
            Failure::new(exit_of(error.kind()), format!("cannot write to standard output: {error}"))
        })
    }

    /// A piece of news: a line of NDJSON, with `event` in front, under `--json`; `text` on stderr otherwise.
    pub(crate) fn event(self, event: News, members: Value, text: &str) -> Result<(), Failure> {
        if !self.json {
            self.note(text);
            return Ok(());
        }
        let mut object = json!({ "event": event.name() });
        if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
            object.extend(members);
        }
        self.line(&object.to_string())
    }

    /// An event of a node: a line of NDJSON, or words on stderr where it has any.
    pub(crate) fn show(self, event: &Event) -> Result<(), Failure> {
        let (name, text) = (event.kind.event, &event.text);
        if matches!(name, News::Warning | News::Loss) {
            self.warn(text);
        }
        if !self.json {
            if !text.is_empty() && !matches!(name, News::Warning | News::Loss) {
                self.note(text);
            }
            return Ok(());
        }
        if !name.is_for_commands() {
            return Ok(());
        }
        let mut object = json!({ "event": name.name() });
        if let Value::Object(object) = &mut object {
            object.extend(event.kind.members.clone());
        }
        self.line(&object.to_string())
    }

    /// Words on stderr; not under `--quiet`.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            Self::stderr(text);
        }
    }

    /// A warning on stderr.
    #[expect(clippy::unused_self, reason = "beside `note`, which asks whether the user wants words")]
    pub(crate) fn warn(self, text: &str) {
        Self::stderr(&format!("warning: {text}"));
    }

    /// Says on stderr, and under `--json` on stdout, why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        Self::stderr(&format!("error: {failure}"));
        if self.json {
            let (event, exit_code) = (News::Error.name(), failure.exit as u8);
            let object = json!({ "event": event, "exit_code": exit_code, "message": failure.message });
            // The command has failed already; that nobody reads why changes nothing.
            let _ = self.line(&object.to_string());
        }
    }

    /// A line that changes while something of unknown length goes on, shown only where stderr is a terminal. Words written while it stands go through
    /// [`ProgressBar::suspend`].
    pub(crate) fn spinner(self) -> ProgressBar {
        let target = if self.is_watched() {
            ProgressDrawTarget::stderr_with_hz(BAR_HZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let bar = bar.with_style(ProgressStyle::default_spinner()).with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(SPINNER_INTERVAL);
        bar
    }

    fn stderr(text: &str) {
        // Nothing is left to tell a user whose stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Turns a spinner into a bar that counts bytes up to `total_bytes`.
pub(crate) fn count_bytes(bar: &ProgressBar, total_bytes: u64) {
    let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    bar.set_length(total_bytes);
}

/// Shows how far work is.
pub(crate) fn show_progress(bar: &ProgressBar, progress: &Progress) {
    if let Some(total) = progress.total_bytes() {
        count_bytes(bar, total);
        bar.set_position(progress.done_bytes());
    }
}

/// Logs to stderr: warnings, and more with each `-v`. The DHT crate repeats ordinary network weather ("could not
/// bootstrap") twice a second, and commands tell of it themselves, so that its errors are shown from `-v` on.
pub(crate) fn init_log(verbose: u8) {
    let (level, dht) = match verbose {
        0 => (LevelFilter::WARN, LevelFilter::OFF),
        1 => (LevelFilter::INFO, LevelFilter::ERROR),
        2 => (LevelFilter::DEBUG, LevelFilter::ERROR),
        _ => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    let targets = Targets::new().with_default(LevelFilter::WARN).with_targets([
        ("megatorrent", level),
        ("megatorrent_core", level),
        ("megatorrent_runtime_smol", level),
        ("mainline", dht),
    ]);
    let layer =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_filter(targets);
    tracing_subscriber::registry().with(layer).init();
}
