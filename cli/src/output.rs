//! What a user sees: data on stdout, words and progress on stderr.
//!
//! Under `--json` every line on stdout is one JSON object. Commands that stream write objects with an `event` member;
//! a failure is the last line, `{"event":"error","exit_code":…,"message":…}`, for every command.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::{Exit, Failure, exit_of};

/// How often a bar is drawn.
const BAR_HZ: u8 = 10;

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

    /// The result of a command: `object` under `--json`, `text` otherwise.
    pub(crate) fn result(self, object: &Value, text: &str) -> Result<(), Failure> {
        if self.json { self.line(&object.to_string()) } else { self.line(text) }
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
    pub(crate) fn event(self, event: &str, members: Value, text: &str) -> Result<(), Failure> {
        if !self.json {
            self.note(text);
            return Ok(());
        }
        let mut object = json!({ "event": event });
        if let (Value::Object(object), Value::Object(members)) = (&mut object, members) {
            object.extend(members);
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
            let object =
                json!({ "event": "error", "exit_code": failure.exit as u8, "message": failure.message });
            // The command has failed already; that nobody reads why changes nothing.
            let _ = self.line(&object.to_string());
        }
    }

    /// A bar that counts bytes up to `total_bytes`, shown only where stderr is a terminal. Words written while it
    /// stands go through [`ProgressBar::suspend`].
    pub(crate) fn bytes_bar(self, total_bytes: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        );
        self.bar(Some(total_bytes), style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// A line that changes while something of unknown length goes on.
    pub(crate) fn spinner(self) -> ProgressBar {
        let bar = self.bar(None, ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn bar(self, total: Option<u64>, style: ProgressStyle) -> ProgressBar {
        let target = if self.quiet || self.json || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(BAR_HZ)
        };
        ProgressBar::with_draw_target(total, target).with_style(style)
    }

    fn stderr(text: &str) {
        // Nothing is left to tell a user whose stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Logs to stderr: warnings, and more with each `-v`. The DHT crate warns about ordinary network weather, so that only
/// its errors are shown.
pub(crate) fn init_log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let targets = Targets::new().with_default(LevelFilter::WARN).with_targets([
        ("megatorrent", level),
        ("megatorrent_core", level),
        ("megatorrent_runtime_smol", level),
        ("mainline", LevelFilter::ERROR),
    ]);
    let layer =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false).with_filter(targets);
    tracing_subscriber::registry().with(layer).init();
}

/// A usage error that clap cannot see.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}
