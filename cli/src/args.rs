//! The command line. Doc comments here are what `--help` shows.
#![allow(rustdoc::broken_intra_doc_links, reason = "`[default: …]` is clap's convention, not a link")]

pub(crate) mod control;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::limits::RATE_LIMIT_MIN;
use megatorrent_sim::scenario::{BLOBS_MAX, PEERS_MAX, Scenario};

/// The identity's file where `-k` names none.
pub(crate) const IDENTITY_FILE: &str = "identity.json";
/// The longest `--bound`: a day.
const BOUND_SECS_MAX: u64 = 86_400;
/// The node's folder where `-d` names none.
const DATA_DIR: &str = "megatorrent-data";
/// The folder for downloads where `-o` names none.
const DOWNLOADS_DIR: &str = "megatorrent-downloads";

const EXIT_CODES: &str = "\
Exit codes:
  0 ok, 1 other, 2 usage, 3 not found or no peers, 4 timeout, 5 integrity or signature,
  6 permission (or a running node holds the folder, or the read key is missing or wrong),
  7 no space, 8 network, 130 SIGINT, 143 SIGTERM. A second SIGINT ends at once.";

/// What every command that runs a node tells.
const NODE_NEWS: &str = r#"  {"event":"ready","p2p","dht","channels"}         it listens
  {"event":"head","channel","sequence"}            a newer head was verified
  {"event":"manifest","channel","sequence","title","files","size"}
  {"event":"progress","channel","blobs","blobs_total","content_bytes","waiting","dht_lag_secs"}
                      how much of a channel is here, and what it waits for
  {"event":"file","sequence","path","size","target","written"}
                      a file is whole; written: it was not there before
  {"event":"complete","channel","sequence"}        everything is there
  {"event":"followed","channel"}                   a channel is followed
  {"event":"unfollowed","channel"}                 it is not any more
  {"event":"withdrawn","channel","sequence","path","target","why"}
                      a file that was deleted or edited where it stood, and is not fetched again; why: which
  {"event":"status","inbound","outbound","peers_known","bytes_received","bytes_sent","dht_late",
   "dht_lag_secs"}    at once and each minute: connections, addresses, bytes of blobs, how many
                      DHT operations wait longer than they should, and how long the latest does
  {"event":"loss","state","path","message"}        a file or a disk cannot be read; state: disk_failed,
                      no_handles, folder_absent, deleted, changed or damaged
  {"event":"recovered","state","path","message"}   it can be read again
  {"event":"warning","message"}                    a fork, a ban, a full disk, a file in the way
  {"event":"stopped"}                              ended by a signal"#;

const EXAMPLES: &str = "\
Examples:
  megatorrent demo                                 see it work, offline, in a few seconds
  megatorrent gen-key                              make an identity: identity.json
  megatorrent ingest -i film.mkv -o film.json      encrypt a file into megatorrent-data
  megatorrent publish -i film.json --title Films   sign a channel and put it on the DHT
  megatorrent serve                                seed it
  megatorrent subscribe megatorrent://PUBLICKEY    fetch it elsewhere, and follow it";

/// Publish signed channels of encrypted files, and follow them, with no server in between
///
/// Data goes to stdout, words and progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "megatorrent", override_usage = "megatorrent [OPTIONS] <COMMAND>", arg_required_else_help = true, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    /// Write JSON to stdout: one object, or one per line (NDJSON, each with an `event`) from commands that go on. The last
    /// line of a failure is {"event":"error","exit_code","message"}
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// No words and no progress on stderr, only warnings and errors
    #[arg(short, long, global = true, display_order = 901)]
    pub(crate) quiet: bool,
    /// Log more to stderr: -v info, -vv debug (shows peers' addresses), -vvv trace
    #[arg(short, long, global = true, display_order = 902, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// The configuration file, for commands on a node [default: config.toml in the node's folder, else
    /// megatorrent/config.toml in $XDG_CONFIG_HOME]
    #[arg(long, global = true, display_order = 899, value_name = "FILE", env = "MEGATORRENT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print the version; with -v also the commit, and the ciphers with the code that they run on this processor. With --json:
    /// {"version","commit","ciphers"}, these each {"name","for","crate","backend"}
    #[arg(short = 'V', long, display_order = 903)]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// What to run; `None`: tell the version. Ends the program where the command line does not say.
    pub(crate) fn task(self) -> Option<Command> {
        match self.command {
            Some(_) if !self.version => self.command,
            None if self.version => None,
            Some(_) => usage(ErrorKind::ArgumentConflict, "--version takes no command"),
            None => usage(ErrorKind::MissingSubcommand, "a command is missing; --help lists them"),
        }
    }
}

fn usage(kind: ErrorKind, message: &str) -> ! {
    Cli::command().error(kind, message).exit()
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    GenKey(GenKey),
    Ingest(Ingest),
    Publish(Publish),
    Serve(Serve),
    Subscribe(Subscribe),
    Verify(Verify),
    Status(control::Status),
    Add(control::Add),
    /// Stop following a channel; its files stay
    Rm(control::One),
    /// Let a channel rest: nothing of it is fetched, served or asked for
    Pause(control::OneOrAll),
    /// Go on with a channel
    Resume(control::OneOrAll),
    Ls(control::Ls),
    /// List the peers that are connected
    Peers(control::Folder),
    /// List the peers that are banned
    Bans(control::Folder),
    Limit(control::Limit),
    Settings(control::Settings),
    /// End the node that runs on the folder
    Shutdown(control::Folder),
    /// Say what is amiss with mode, ports, DHT, clock, disk and descriptors, each with a next step
    Doctor(control::Folder),
    Token(control::Token),
    Identity(control::Identity),
    Demo(Demo),
    Simulate(Simulate),
    Completions(Completions),
    Man(Man),
    #[command(hide = true)]
    Healthz(Healthz),
}

/// Make an identity: the key that signs a channel, and the read key of its private form
///
/// Prints the public key and both URIs. The file is readable by you alone and never overwritten.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent gen-key
  megatorrent gen-key -k ~/keys/films.json
  megatorrent gen-key --json

With --json: {\"identity\",\"public_key\",\"public_uri\",\"private_uri\"}")]
pub(crate) struct GenKey {
    /// The identity file to make
    #[arg(short = 'k', long = "key", value_name = "FILE", default_value = IDENTITY_FILE)]
    pub(crate) key: PathBuf,
}

/// Encrypt a file into blobs and write its entry, for `publish`
///
/// Equal content under one identity gives equal blobs, so that a file ingested again, or in a new version, shares the
/// blobs that did not change. Works beside a node that runs on the same folder.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent ingest -i film.mkv -o film.json
  tar c photos | megatorrent ingest -i - --name photos.tar -o photos.json
  megatorrent ingest -i notes.txt --v5 > notes.json

The entry holds the file's keys: whoever reads it can decrypt the file.
With --json and -o: {\"entry\",\"path\",\"size\",\"blobs\"}. Without -o stdout is the entry itself.")]
pub(crate) struct Ingest {
    /// The file to read; `-` is stdin
    #[arg(short = 'i', long = "input", value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The file's path in the channel, with `/` between folders; needed for stdin [default: the file's name]
    #[arg(long, value_name = "PATH")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The identity under whose secret the blobs are sealed [default: identity.json, or a fresh secret if there is
    /// none]
    #[arg(short = 'k', long = "key", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Where to write the entry [default: stdout]
    #[arg(short = 'o', long = "output", value_name = "ENTRY")]
    pub(crate) output: Option<PathBuf>,
    /// Write the entry as v5's list of chunks, which v5 readers know
    #[arg(long)]
    pub(crate) v5: bool,
    /// Seal under a fresh secret, so that nobody can tell that this is the same content as another ingest
    #[arg(long)]
    pub(crate) unlinkable: bool,
    /// Keep a copy, so that the file itself may be changed, moved or deleted; as much space again, unless the file system shares bytes
    #[arg(long)]
    pub(crate) copy: bool,
    /// Overwrite ENTRY if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

/// Sign a channel's new manifest and put it on the DHT
///
/// The manifest lists the entries given and replaces what the channel listed before. Keep `serve` running afterwards:
/// it puts the head again each hour and hands out the blobs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent publish -i film.json --title Films
  megatorrent publish -i a.json b.json --private
  megatorrent publish -i a.json -b 192.0.2.7:6881
  megatorrent publish -i a.json -s read.key

Prints the channel's URI. With --private or -s it contains the read key: whoever has it can read the channel.
With --json: {\"uri\",\"public_key\",\"sequence\",\"inline\",\"private\"} and \"replicas\": the DHT nodes that took the head.
With --gateway instead of that: \"gateways\", how many took it, and \"read_back_by_another\": whether another than the first
that took it found it on the DHT. Where none could, the first read it back itself.
Where this computer's clock is behind the channel, also \"clock_ms\": its time in milliseconds since 1970, as the sequence
counts it.")]
pub(crate) struct Publish {
    /// Entries that `ingest` wrote; `-` is stdin
    #[arg(short = 'i', long = "input", value_name = "ENTRY", num_args = 1.., required = true)]
    pub(crate) entries: Vec<PathBuf>,
    /// The identity that signs
    #[arg(short = 'k', long = "key", value_name = "FILE", default_value = IDENTITY_FILE)]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The title of the collection
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) title: String,
    /// Seal the manifest with the identity's read key, so that only holders of the private URI can read it
    #[arg(long)]
    pub(crate) private: bool,
    /// Seal the manifest with the read key (64 hex digits) in FILE; `-` is stdin. A key itself is refused here
    #[arg(short = 's', long = "secret-file", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Let this node put the head on the DHT, and use none here; may be given again: the more the better, as one
    /// then reads back what another put, and who does not answer is not waited for
    #[arg(long = "gateway", value_name = "HOST:PORT")]
    pub(crate) gateways: Vec<PeerAddr>,
    /// Leave out the blobs' SHA-256 ids, by which v5 peers and other stores know them: the channel is then fetched from v6
    /// peers only
    #[arg(long)]
    pub(crate) no_ids: bool,
    /// Publish although this computer's clock says a time before this program was made, or after 2100
    #[arg(long)]
    pub(crate) any_clock: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Seed what a folder holds and follow its channels, until SIGINT or SIGTERM
///
/// Re-announces every 15 minutes and puts the heads of its channels on the DHT again every hour.
#[derive(Args, Debug)]
#[command(after_help = format!("\
Examples:
  megatorrent serve
  megatorrent serve -d /srv/megatorrent -T 7000 --upload-limit 2M
  megatorrent serve -H 127.0.0.1 -T 0 --dht server     a private swarm's first node

With --json, one line each:
{NODE_NEWS}

Without --json the status is told only where DHT operations are 30 s late or more.
A clean end on SIGINT or SIGTERM is exit code 0."))]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Put and look up no heads on the DHT for peers that have none
    #[arg(
        long,
        env = "MEGATORRENT_NO_GATEWAY",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
        action = ArgAction::Set
    )]
    pub(crate) no_gateway: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Fetch a channel's files, verify them, and follow the channel
///
/// Files appear in OUT when they are complete; a file of yours that stands in the way is never overwritten. What was
/// fetched is served on while the command runs. Started again, it goes on from the blobs that it has.
#[derive(Args, Debug)]
#[command(after_help = format!("\
Examples:
  megatorrent subscribe megatorrent://PUBLICKEY --once -o downloads
  megatorrent subscribe megatorrent://PUBLICKEY -s read.key      a private channel, its key from a file
  megatorrent subscribe - < private.uri                          a URI with its read key, from stdin

With --json, one line each:
{NODE_NEWS}

Without --json the status is told only where DHT operations are 30 s late or more."))]
pub(crate) struct Subscribe {
    /// The channel: megatorrent://PUBLICKEY[:READKEY][?bootstrap=HOST:PORT]; `-` reads it from stdin
    #[arg(value_name = "URI")]
    pub(crate) uri: String,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Where the files go
    #[arg(short = 'o', long = "output", value_name = "OUT", env = "MEGATORRENT_OUTPUT", default_value = DOWNLOADS_DIR)]
    pub(crate) output: PathBuf,
    /// End as soon as the newest manifest is complete
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// Give up after so long without progress; 0 never does [default: 120 with --once, 0 otherwise]
    #[arg(long, value_name = "SECONDS", env = "MEGATORRENT_TIMEOUT")]
    pub(crate) timeout: Option<u64>,
    /// The read key (64 hex digits) of a private channel, in FILE; `-` is stdin
    #[arg(short = 's', long = "secret-file", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Look at all that a folder holds: every file byte by byte, every stored blob
///
/// Names each file that was edited, moved, truncated or deleted, that is damaged or cannot be read, and each damaged blob. What
/// is not right is not served from then on; what is right again is. Works beside a node that runs on the same folder, but for
/// --repair, which runs a node of its own to fetch what is gone.
#[derive(Args, Debug)]
#[command(after_help = format!("\
Examples:
  megatorrent verify
  megatorrent verify -d /srv/megatorrent --json
  megatorrent verify --repair

With --repair, files of channels that were deleted, edited or damaged are fetched into their output folders as the channel has
them. A file that was edited is kept beside as NAME.edited. Files that were ingested are yours and not touched.

With --json, one line each:
  {{\"event\":\"found\",\"of\",\"path\",\"state\",\"lost_bytes\",\"moved_to\"}}
                      of: file, unfinished, own (ingested where it lies) or blob; state: edited, truncated,
                      moved, deleted, unreadable or damaged; moved_to: its path, or null
  {{\"event\":\"checked\",\"files\",\"blobs\",\"wrong\",\"gone\"}}
and with --repair, for each folder of a channel in which something is missing:
{NODE_NEWS}
  {{\"event\":\"progress\",\"channel\",\"blobs\",\"blobs_total\",\"content_bytes\",\"waiting\",\"dht_lag_secs\"}}
  {{\"event\":\"file\",\"sequence\",\"path\",\"size\",\"target\",\"written\"}}
  {{\"event\":\"repaired\",\"folders\",\"left\"}}
                      left: things that are not as they were, as they are yours or nobody gave them

Exit codes: 0 all is as it was, or is again; 3 files are gone, 5 something else is not as it was; with --repair 3, 4 and 8 too
where a channel or its peers are not found, stop answering or cannot be reached, 6 where a node runs on the folder."))]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Fetch from peers what is gone, and write it where it was
    #[arg(long)]
    pub(crate) repair: bool,
    /// With --repair, give up after so long without progress; 0 never does
    #[arg(long, value_name = "SECONDS", env = "MEGATORRENT_TIMEOUT", default_value_t = 120)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Show the whole thing at work: a private swarm on this machine alone, offline
///
/// A bootstrap node, an author and two subscribers with real sockets and a real DHT on 127.0.0.1, in a temporary folder.
/// The second subscriber gets its blobs after the author has gone. Every byte is compared.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent demo
  megatorrent demo film.mkv

With --json, one line each: {\"event\":\"step\",\"seconds\",\"text\"}, then
{\"event\":\"verified\",\"size\",\"sha256\",\"seconds\"}")]
pub(crate) struct Demo {
    /// The file to send round [default: a random one of several blobs]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Run a whole swarm in virtual time, with faults and attackers, reproducible from one number
///
/// The peers are the real protocol core; their links, disks, clocks and DHT are simulated, in this process, without a
/// socket. Checkers watch all the way: a wrong byte, a cap passed or a peer that does not complete fails the run, which
/// is then shrunk to the shortest scenario that still fails.
#[derive(Args, Debug)]
#[command(after_help = "\
Scenarios:
  flash-crowd    all peers come at once; the time is compared with the honest bound of the links
  author-leaves  the author goes for good as soon as one other peer has everything
  partition      the swarm falls into two halves, later one way only, and heals
  churn          peers come, crash, lose their disks and come back
  hostile        a fifth of all hosts are attackers of every kind
  liars          one peer downloads from an honest one, among twelve attackers of every kind
  nat            two thirds of the peers cannot be dialled
  update-push    connected subscribers get new versions
  onion-only     the author and some peers have an onion name alone, without a DHT or an IP address
  gateway        the author and half of the peers have no DHT; of their gateways one leaves and one lies
  mixed          a third of the peers speak plain v5; always with real crypto, and at most 2 blobs
  random         everything is drawn from the seed

Examples:
  megatorrent simulate
  megatorrent simulate --scenario churn --peers 30 --seed 7 --picture churn.html
  megatorrent simulate --scenario random --seed 42 --json

With --json, one line each: {\"event\":\"simulation\",\"scenario\",\"seed\",\"commit\",\"mode\"}, then
{\"event\":\"timeline\",\"seconds\",\"kind\",\"text\"} for what happened,
{\"event\":\"left_out\",\"count\"} where that is too much, then
  {\"event\":\"result\",\"scenario\",\"seed\",\"peers\",\"adversaries\",\"blobs\",\"complete\",\"median_ms\",\"last_ms\",
   \"fluid_bound_ms\",\"honest_bound_ms\",\"discovery_ms\",\"ratio_permille\",\"fluid_ratio_permille\",
   \"without_adversaries\",\"exchanges\",\"completions_ms\",\"updates_ms\",
   \"content_bytes\",\"control_bytes\",\"handshake_bytes\",\"duplicates_permille\",\"dials\",\"dht_operations\",
   \"virtual_ms\",\"trace_entries\",\"trace_hash\",\"again\"}
or where a checker objects an error with exit code 5, with the command that shows it again.
A picture is tried before the run: where it cannot be written, the code tells why as everywhere. If it then cannot be
written after all, what the run has shown is told nevertheless.
Exit codes: 0 everybody is complete, 2 usage, 3 the picture's folder is not there, 5 a checker objects, 6 the picture may
not be written, 7 there is no space for it, 1 other.")]
pub(crate) struct Simulate {
    /// The scenario's name
    #[arg(long, value_name = "NAME", default_value = "flash-crowd")]
    pub(crate) scenario: Scenario,
    /// Peers beside the author [default: the scenario's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=PEERS_MAX as u64).map(to_usize))]
    pub(crate) peers: Option<usize>,
    /// Blobs of content [default: the scenario's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=BLOBS_MAX as u64).map(to_usize))]
    pub(crate) blobs: Option<usize>,
    /// Small blobs and null crypto, as always above 100 peers but in mixed: much faster, and the first line says it
    #[arg(long)]
    pub(crate) null: bool,
    /// The number that everything is drawn from [default: a random one]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Of the plan's events, by the number in the timeline, let only these happen: a list with commas, or `none`
    #[arg(long, value_name = "LIST")]
    pub(crate) only: Option<Only>,
    /// The virtual time in which everybody must be complete, after all faults have ended [default: the scenario's, 20 or 30
    /// minutes]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=BOUND_SECS_MAX))]
    pub(crate) bound: Option<u64>,
    /// Draw the run: FILE.svg is the picture alone, FILE.html a page with the numbers and the timeline too
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
    /// Do not look for a shorter scenario where the run fails
    #[arg(long)]
    pub(crate) no_shrink: bool,
}

/// Print what lets a shell complete this program's commands and options
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent completions bash > ~/.local/share/bash-completion/completions/megatorrent
  megatorrent completions fish > ~/.config/fish/completions/megatorrent.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Write a man page for each command
///
/// Prints each page's path. With --json: {"pages"}, a list of them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  megatorrent man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The folder, which is made where there is none
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

/// Ask a node on this machine whether it is well: exit code 0 where it says so, else 1
#[derive(Args, Debug)]
pub(crate) struct Healthz {
    /// Where its API listens
    #[arg(value_name = "ADDR", env = "MEGATORRENT_HEALTHZ", default_value = "127.0.0.1:3000")]
    pub(crate) address: SocketAddr,
}

/// Some of a plan's events.
#[derive(Clone, Debug)]
pub(crate) struct Only(pub(crate) Vec<usize>);

impl std::str::FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let numbers =
            text.split(',').map(|part| part.trim().parse().map_err(|_| format!("{part:?} is no number")));
        numbers.collect::<Result<_, _>>().map(Self)
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    /// The node's folder: blobs and state
    #[arg(short = 'd', long = "data", value_name = "DIR", env = "MEGATORRENT_DATA", default_value = DATA_DIR)]
    pub(crate) dir: PathBuf,
    /// Take DIR for a node's folder although it exists and is none, such as an empty one. Otherwise it is refused, as a disk may
    /// not be mounted; a folder that does not exist is made
    #[arg(long)]
    pub(crate) new: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ListenArgs {
    /// The address to listen on and to dial from [default: all, IPv4 and IPv6]
    #[arg(short = 'H', long = "host", value_name = "ADDR", env = "MEGATORRENT_HOST")]
    pub(crate) host: Option<IpAddr>,
    /// The TCP port for peers; 0 is any free one [default: 6881 for serve, 0 for subscribe]
    #[arg(short = 'T', long = "p2p-port", value_name = "P2P_PORT", env = "MEGATORRENT_P2P_PORT")]
    pub(crate) p2p_port: Option<u16>,
    /// The UDP port for the DHT; 0 is any free one [default: the TCP port's number]
    #[arg(short = 'D', long = "dht-port", value_name = "DHT_PORT", env = "MEGATORRENT_DHT_PORT")]
    pub(crate) dht_port: Option<u16>,
}

#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// Keep a copy besides, so that what is done to the files takes nothing from those who fetch them from here; twice the space, unless
    /// the file system shares bytes
    #[arg(
        long,
        env = "MEGATORRENT_COPY",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
        action = ArgAction::Set
    )]
    pub(crate) copy: bool,
    /// Fetch the blobs in the order of their bytes, to play a file while it comes, rather than the rarest first
    #[arg(
        long,
        env = "MEGATORRENT_IN_ORDER",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
        action = ArgAction::Set
    )]
    pub(crate) in_order: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ApiArgs {
    /// The TCP port of the API; 0 is any free one [default: 3000 if it is free, or else any]
    #[arg(short = 'P', long = "port", value_name = "PORT", env = "MEGATORRENT_PORT")]
    pub(crate) port: Option<u16>,
    /// The address of the API. Others than loopback let all who have the token command this node [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", env = "MEGATORRENT_RPC_HOST")]
    pub(crate) rpc_host: Option<IpAddr>,
    /// A name by which a proxy in front of the API calls it; may be given again
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct LimitArgs {
    /// Bytes a second to send at most, over all connections, such as 500k or 20M [default: without a limit]
    #[arg(long = "upload-limit", value_name = "RATE", env = "MEGATORRENT_UPLOAD_LIMIT", value_parser = rate)]
    pub(crate) upload: Option<u64>,
    /// Bytes a second to receive at most, likewise [default: without a limit]
    #[arg(long = "download-limit", value_name = "RATE", env = "MEGATORRENT_DOWNLOAD_LIMIT", value_parser = rate)]
    pub(crate) download: Option<u64>,
    /// Fetch blobs whole, also what could be made here, so that peers learn no lengths; a short file then costs a MiB
    #[arg(
        long,
        env = "MEGATORRENT_WHOLE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true,
        action = ArgAction::Set
    )]
    pub(crate) whole: bool,
}

/// Bytes a second: a number, with k, M or G for thousands, millions or thousands of millions.
fn rate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a rate is a number of bytes a second, such as 65536, 500k or 20M".to_owned())?;
    match number.checked_mul(unit) {
        None => Err("no network is that fast: leave the option out".to_owned()),
        Some(rate) if rate < RATE_LIMIT_MIN => Err(format!(
            "the lowest limit is {RATE_LIMIT_MIN} bytes a second; without the option there is none"
        )),
        Some(rate) => Ok(rate),
    }
}

#[derive(Args, Debug)]
pub(crate) struct NetworkArgs {
    /// A node to begin with: its UDP port is its DHT, its TCP port its peer port; may be given again,
    /// or several with commas between them
    #[arg(
        short = 'b',
        long = "bootstrap",
        value_name = "HOST:PORT",
        env = "MEGATORRENT_BOOTSTRAP",
        value_delimiter = ','
    )]
    pub(crate) bootstrap: Vec<PeerAddr>,
    /// The part to take in the DHT
    #[arg(long, value_enum, env = "MEGATORRENT_DHT", default_value_t = Dht::Auto)]
    pub(crate) dht: Dht,
}

/// The part to take in the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dht {
    /// Store for others where others can reach us; always where the address is private; `publish` and `--once` only ask
    Auto,
    /// None
    Off,
    /// Store for others
    Server,
    /// Only ask
    Client,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::News;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_each_piece_of_news() {
        let mut command = Cli::command();
        let help: String = command.get_subcommands_mut().map(|c| c.render_long_help().to_string()).collect();
        let (all, top) = (News::ALL, command.render_long_help().to_string());
        for name in all.iter().filter(|news| news.is_for_commands()).map(|news| news.name()) {
            let entry = format!("{{\"event\":\"{name}\"");
            assert!(help.contains(&entry) || top.contains(&entry), "{name} is in no --help");
        }
    }

    #[test]
    fn a_rate_is_a_number_with_a_unit() {
        for (text, bytes_per_sec) in
            [("1024", 1024), ("500k", 500_000), ("500K", 500_000), ("20M", 20_000_000), ("1G", 1_000_000_000)]
        {
            assert_eq!(rate(text), Ok(bytes_per_sec), "{text}");
        }
        for text in ["", "M", "0", "0M", "1023", "-5M", "1.5M", "20m", "5 M", "20MB", "99999999999999G", "∞"]
        {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
