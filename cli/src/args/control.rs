//! The command line of what asks and steers a node.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{DataArgs, FetchArgs, rate};

/// Show how the node is
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent status
  megatorrent status --watch

With --json: what the API's getStatus answers; with --watch one line each second.")]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Go on showing it, until SIGINT
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Follow a channel, and return at once
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent add megatorrent://PUBLICKEY
  megatorrent add - -o films < private.uri

With --json: what the API's addSubscription answers.")]
pub(crate) struct Add {
    /// The channel: megatorrent://PUBLICKEY[:READKEY][?bootstrap=HOST:PORT]; `-` reads it from stdin
    #[arg(value_name = "URI")]
    pub(crate) uri: String,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Where the files go [default: downloads/TITLE in the node's folder; the channel's key where it has no title]
    #[arg(short = 'o', long = "output", value_name = "OUT", env = "MEGATORRENT_OUTPUT")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
}

/// One channel, or all.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// The channel's public key, or its URI
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: String,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// One channel, or all.
#[derive(Args, Debug)]
pub(crate) struct OneOrAll {
    /// The channel's public key, or its URI [default: all channels]
    #[arg(value_name = "CHANNEL")]
    pub(crate) channel: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// List the channels that are followed
#[derive(Args, Debug)]
#[command(after_help = "With --json: what the API's getSubscriptions answers.")]
pub(crate) struct Ls {
    /// Those alone whose title or key has this in it
    #[arg(value_name = "TEXT")]
    pub(crate) search: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// The node's folder alone.
#[derive(Args, Debug)]
pub(crate) struct Folder {
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Show or change the limits on bytes a second, from now on and for later runs
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent limit
  megatorrent limit --upload 2M --download none")]
pub(crate) struct Limit {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Bytes a second to send at most, such as 500k or 20M; `none` lifts the limit
    #[arg(long, value_name = "RATE", value_parser = limit)]
    pub(crate) upload: Option<Rate>,
    /// Bytes a second to receive at most, likewise
    #[arg(long, value_name = "RATE", value_parser = limit)]
    pub(crate) download: Option<Rate>,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(pub(crate) Option<u64>);

fn limit(text: &str) -> Result<Rate, String> {
    if text == "none" { Ok(Rate(None)) } else { rate(text).map(|it| Rate(Some(it))) }
}

/// Show or change settings, from now on and for later runs
///
/// What the configuration file says anew and only a restart applies is shown too: addresses, ports, the part in the DHT.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent settings
  megatorrent settings whole true

With --json: what the API's getSettings answers.")]
pub(crate) struct Settings {
    /// Which to change: `gateway`, to put and look up heads on the DHT for peers that have none; `whole`, to fetch blobs whole, so
    /// that peers learn no lengths
    #[arg(value_enum, requires = "value")]
    pub(crate) setting: Option<Setting>,
    /// What it is to be
    #[arg(value_name = "true|false")]
    pub(crate) value: Option<bool>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Setting {
    /// Whether heads are put and looked up for peers that have no DHT
    Gateway,
    /// Whether blobs are fetched whole
    Whole,
}

/// Show or replace the token of the API
#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) what: TokenCommand,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print the token alone
    Show {
        /// What its holder may do
        #[arg(long, value_enum, default_value_t = Scope::Admin)]
        scope: Scope,
    },
    /// Print a link that logs a browser in to the page, once and within five minutes
    Link,
    /// Make another one: who has the old one is refused from then on
    Rotate,
}

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Scope {
    /// Look
    Read,
    /// Follow, publish, pause
    Control,
    /// Keys, tokens, settings, the end of the node
    Admin,
}

/// List, back up and take over the identities in the node's folder
#[derive(Args, Debug)]
pub(crate) struct Identity {
    #[command(subcommand)]
    pub(crate) what: IdentityCommand,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// List them
    List,
    /// Make one
    New,
    /// Write a backup, sealed by a passphrase
    Export {
        /// The channel's public key
        channel: String,
        /// The file to make
        file: PathBuf,
        /// The passphrase, in a file; `-` is stdin
        #[arg(short = 'p', long, value_name = "FILE")]
        passphrase_file: PathBuf,
    },
    /// Take over an identity's file, or a backup
    Import {
        file: PathBuf,
        /// The passphrase of a backup, in a file; `-` is stdin
        #[arg(short = 'p', long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}
