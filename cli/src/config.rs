//! The configuration file: TOML, whose keys are the long options of the commands on a node.
//!
//! Goals: one meaning for a flag, `MEGATORRENT_*` and a key, since one definition makes all three (`args.rs`); a mistake in the
//! file is an error that names its line. What the file says becomes the default of its option, so that the environment goes over
//! the file, and the command line over both. Non-goals: to apply a file that changed to a running node, which `serve` does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::{Cli, Command as Task, Serve};
use crate::exit::{Exit, Failure};
use crate::given::Given;

/// The file's name in a node's folder and in the user's.
const FILE_NAME: &str = "config.toml";
/// The user's folder below `$XDG_CONFIG_HOME`.
const USER_FOLDER: &str = "megatorrent";
/// A longer file is refused.
const FILE_LEN_MAX: u64 = 1 << 20;
/// How like a key another must be to be suggested, as clap has it for options.
const LIKENESS_MIN: f64 = 0.7;

/// A key of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Knob {
    /// The key, which is the long option too.
    pub(crate) name: &'static str,
    /// Commands whose option of this name means something else.
    except: &'static [&'static str],
    /// Whether a path, so that the file's folder is where a relative one begins.
    is_path: bool,
    /// Whether it may change while the node runs.
    pub(crate) is_reloadable: bool,
}

const fn knob(name: &'static str) -> Knob {
    Knob { name, except: &[], is_path: false, is_reloadable: false }
}

/// A key that may change while the node runs.
const fn dial(name: &'static str) -> Knob {
    Knob { is_reloadable: true, ..knob(name) }
}

/// All keys.
static KNOBS: [Knob; 17] = [
    Knob { is_path: true, ..knob(DATA) },
    knob("host"),
    knob("p2p-port"),
    knob("dht-port"),
    dial("upload-limit"),
    dial("download-limit"),
    dial("whole"),
    knob("bootstrap"),
    knob("dht"),
    dial("no-gateway"),
    // `ingest -o` is an entry, `ingest --copy` seals copies.
    Knob { is_path: true, except: &["ingest"], ..dial("output") },
    Knob { except: &["ingest"], ..dial("copy") },
    dial("in-order"),
    dial("timeout"),
    knob("port"),
    knob("rpc-host"),
    knob("allow-host"),
];

/// The key that says where the node's folder is.
const DATA: &str = "data";

impl Knob {
    /// This knob's option among those of a command.
    fn of<'a>(&self, command: &'a Command) -> Option<&'a Arg> {
        let is_other = self.except.contains(&command.get_name());
        command.get_arguments().find(|arg| !is_other && arg.get_long() == Some(self.name))
    }
}

/// A key of a file, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    knob: &'static Knob,
    values: Vec<String>,
    line: usize,
}

/// A configuration file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Config {
    /// Reads a file. `None`: there is none.
    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let fail = |error: &io::Error| Failure::file("cannot read", path, error);
        match fs::metadata(path) {
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(fail(&error)),
            Ok(found) if found.len() > FILE_LEN_MAX => {
                return Err(Failure::usage(format!("{} is longer than a MiB", path.display())));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(path).map_err(|error| fail(&error))?;
        Self::parse(path, &text).map(Some)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let wrong = |at: usize, why: &str| {
            Failure::usage(format!("{}, line {}: {why}", path.display(), line_of(text, at)))
        };
        let table = DeTable::parse(text)
            .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message()))?;
        let mut program = Cli::command();
        program.build();
        let mut entries = Vec::new();
        for (key, value) in table.get_ref() {
            let at = key.span().start;
            let knob = find(key.get_ref()).map_err(|why| wrong(at, &why))?;
            let option = program.get_subcommands().find_map(|command| knob.of(command));
            let option = option.expect("a test looks each knob's option up");
            let mut values = texts(value, takes_many(option))
                .map_err(|why| wrong(at, &format!("{}: {why}", knob.name)))?;
            check(option, &values).map_err(|why| wrong(at, &format!("{}: {why}", knob.name)))?;
            if knob.is_path {
                let folder = path.parent().unwrap_or(Path::new(""));
                for value in &mut values {
                    // TOML is UTF-8; a folder that is not keeps its relative paths out.
                    let joined = folder.join(&*value).into_os_string().into_string();
                    *value = joined
                        .map_err(|_| wrong(at, "the file's folder has no UTF-8 name: give a full path"))?;
                }
            }
            entries.push(Entry { knob, values, line: line_of(text, at) });
        }
        entries.sort_by_key(|entry| entry.line);
        Ok(Self { path: path.to_owned(), entries })
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.knob.name == name)
    }

    /// Lets what the file says be the default of each command's options.
    fn fill(&self, program: Command) -> Command {
        program.mut_subcommands(|mut command| {
            for entry in &self.entries {
                let Some(id) = entry.knob.of(&command).map(|arg| arg.get_id().clone()) else { continue };
                command = command.mut_arg(id, |arg| arg.default_values(entry.values.clone()));
            }
            command
        })
    }

    /// No file.
    pub(crate) fn none() -> Self {
        Self { path: PathBuf::new(), entries: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The keys about which a newer reading of the file says something else; each says whether a running node can follow.
    pub(crate) fn changes(&self, newer: &Self) -> Vec<&'static Knob> {
        let said = |config: &Self, knob: &Knob| config.entry(knob.name).map(|entry| entry.values.clone());
        KNOBS.iter().filter(|knob| said(self, knob) != said(newer, knob)).collect()
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn find(key: &str) -> Result<&'static Knob, String> {
    if let Some(knob) = KNOBS.iter().find(|knob| knob.name == key) {
        return Ok(knob);
    }
    let likeness = |knob: &Knob| strsim::jaro_winkler(key, knob.name);
    let nearest = KNOBS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let hint = if let Some(knob) = nearest.filter(|knob| likeness(knob) >= LIKENESS_MIN) {
        format!("did you mean {:?}?", knob.name)
    } else {
        let names: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
        format!("the keys are {}", names.join(", "))
    };
    Err(format!("there is no key {key:?}; {hint}"))
}

fn takes_many(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append)
}

/// A value's texts, as a command line would have them.
fn texts(value: &Spanned<DeValue<'_>>, many: bool) -> Result<Vec<String>, String> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "this number is too large".to_owned()),
        DeValue::Float(_) => Err("a number with a fraction is nothing here".to_owned()),
        DeValue::Datetime(_) => Err("a date is nothing here".to_owned()),
        DeValue::Array(_) => Err("it takes one value, not a list".to_owned()),
        DeValue::Table(_) => Err("it takes a value; the file has no sections".to_owned()),
    };
    match value.get_ref() {
        DeValue::Array(values) if many => values.iter().map(|value| one(value.get_ref())).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// Whether an option takes these values, as its own parser judges.
fn check(option: &Arg, values: &[String]) -> Result<(), String> {
    let name = option.get_long().expect("a knob's option has its name");
    let scratch = Command::new("config").no_binary_name(true).disable_help_flag(true);
    // Without its variable: only what the file says is judged.
    let scratch = scratch.arg(option.clone().required(false).env(None::<&str>));
    let args = values.iter().map(|value| format!("--{name}={value}"));
    match scratch.try_get_matches_from(args) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            let first = first.trim().trim_start_matches("error: ");
            Err(first.lines().map(str::trim).collect::<Vec<_>>().join(" "))
        }
    }
}

/// A command line, with the environment, as it was given.
pub(crate) struct Invocation {
    args: Vec<OsString>,
    matches: ArgMatches,
    cli: Cli,
}

impl Invocation {
    /// That of this process. Ends the program where it is wrong, or asks for help.
    pub(crate) fn of_this_process() -> Self {
        Self::try_of(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    fn try_of(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let command = Cli::command();
        let matches = command.clone().try_get_matches_from(&args)?;
        // Whether a command has the option, only its definition says in every build.
        let has_dir = |name: &str| {
            command
                .find_subcommand(name)
                .is_some_and(|it| it.get_arguments().any(|arg| arg.get_id() == "dir"))
        };
        let lacks_dir =
            |(name, given): (&str, &ArgMatches)| has_dir(name) && given.get_one::<PathBuf>("dir").is_none();
        if matches.subcommand().is_some_and(lacks_dir) {
            let why = "neither XDG_DATA_HOME nor HOME says where the node's folder is: name one with -d";
            return Err(Cli::command().error(ErrorKind::MissingRequiredArgument, why));
        }
        let cli = Cli::from_arg_matches(&matches)?;
        Ok(Self { args, matches, cli })
    }

    /// What `serve` would go by on a folder, with the same configuration file and environment.
    pub(crate) fn as_served(&self, home: &Path) -> Result<Serve, Failure> {
        let mut args: Vec<OsString> = vec!["megatorrent".into(), "serve".into(), "-d".into(), home.into()];
        if let Some(config) = &self.cli.config {
            args.extend(["--config".into(), config.into()]);
        }
        let served = Self::try_of(args).map_err(|error| Failure::usage(error.to_string()))?;
        match served.with_file()?.command {
            Some(Task::Serve(serve)) => Ok(serve),
            _ => unreachable!("that is the command above"),
        }
    }

    /// What it says of a node without a file.
    pub(crate) fn given(&self) -> Given {
        self.matches.subcommand().map(|(_, matches)| Given::of(matches)).unwrap_or_default()
    }

    /// What it says without a file.
    pub(crate) fn cli(&self) -> &Cli {
        &self.cli
    }

    /// What it says over its configuration file, which is read anew each time.
    pub(crate) fn with_file(&self) -> Result<Cli, Failure> {
        match self.config()? {
            None => Ok(Cli::from_arg_matches(&self.matches).expect("it was read before")),
            Some(config) => self.over(&config),
        }
    }

    /// What it says over a file. Where a running node reads its file again, this is what counts from then on.
    pub(crate) fn over(&self, config: &Config) -> Result<Cli, Failure> {
        let said = config.fill(Cli::command()).try_get_matches_from(&self.args);
        said.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
            // Each value was judged alone when the file was read.
            Failure::usage(format!("with {}: {error}", config.path.display()))
        })
    }

    /// The configuration file of a command on a node: the one that is named, else that in the node's folder, else the user's.
    pub(crate) fn config(&self) -> Result<Option<Config>, Failure> {
        let Some((_, given)) = self.matches.subcommand() else { return Ok(None) };
        // Other commands have no node, and so no folder.
        let Ok(Some(home)) = given.try_get_one::<PathBuf>("dir") else { return Ok(None) };
        if let Some(path) = &self.cli.config {
            let found = Config::read(path)?;
            let absent = || Failure::new(Exit::NotFound, format!("there is no file {}", path.display()));
            return found.ok_or_else(absent).map(Some);
        }
        let path = home.join(FILE_NAME);
        if let Some(config) = Config::read(&path)? {
            if let Some(entry) = config.entry(DATA) {
                return Err(Failure::usage(format!(
                    "{}, line {}: the file stands in the node's folder, so it cannot say where that is; give it by \
                     --config, or put it into $XDG_CONFIG_HOME/{USER_FOLDER}",
                    path.display(),
                    entry.line
                )));
            }
            return Ok(Some(config));
        }
        let Some(path) = user_file() else { return Ok(None) };
        // Whoever runs as another user with the caller's `HOME` has no way into it, and so no file there.
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Ok(None);
        }
        let Some(config) = Config::read(&path)? else { return Ok(None) };
        // The folder that the user's file names may have a file of its own, which then would not be read.
        let is_default = given.value_source("dir") == Some(ValueSource::DefaultValue);
        if let Some(entry) = config.entry(DATA).filter(|_| is_default) {
            let other = Path::new(&entry.values[0]).join(FILE_NAME);
            if other.exists() {
                return Err(Failure::usage(format!(
                    "{}, line {}: that folder has a {FILE_NAME} too; one file is read, so name it by --config",
                    path.display(),
                    entry.line
                )));
            }
        }
        Ok(Some(config))
    }
}

/// The user's own file.
fn user_file() -> Option<PathBuf> {
    let full = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = full("XDG_CONFIG_HOME").or_else(|| full("HOME").map(|home| home.join(".config")))?;
    Some(folder.join(USER_FOLDER).join(FILE_NAME))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests;
