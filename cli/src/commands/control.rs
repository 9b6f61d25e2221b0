//! What asks and steers a node: one call each, to the node that runs on the folder, or to one for the moment.

use std::time::Duration;

use futures_lite::future;
use indicatif::HumanBytes;
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::Options;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::home::Home;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{self, ChannelId};
use crate::args::DataArgs;
use crate::args::control::{
    Add, Folder, Identity, IdentityCommand, Limit, Ls, One, OneOrAll, Scope, Setting, Settings, Status,
    Token, TokenCommand,
};
use crate::config::Invocation;
use crate::events;
use crate::exit::{Exit, Failure};
use crate::face::Face;
use crate::files;
use crate::host::Host;
use crate::http::token::read_token;
use crate::node::{self, Executor};
use crate::output::Output;
use crate::service::Service;
use crate::signals::Interrupts;

/// How often `status --watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long `shutdown` waits for the end of the node.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Does `work` with the node that runs on a folder; where none does, with one that speaks to nobody.
fn with_node<T>(
    data: &DataArgs,
    work: impl AsyncFnOnce(&mut Face) -> Result<T, Failure>,
) -> Result<T, Failure> {
    node::block_on(async |executor| {
        let mut face = match Face::find(&data.dir).await? {
            Some(face) => face,
            None => start(executor, data).await?,
        };
        let done = work(&mut face).await;
        face.end().await;
        done
    })
}

async fn start(executor: &Executor, data: &DataArgs) -> Result<Face, Failure> {
    let mut options = Options::new(Home::open(node::prepare(data)?)?);
    // It keeps and shows what the next `serve` goes by.
    let served = Invocation::of_this_process().as_served(&data.dir)?;
    node::limit(&mut options, &served.limits);
    options.gateway = !served.no_gateway;
    options.dht = DhtMode::Off;
    let service = Service::start_for_a_command(executor, options).await?;
    Ok(Face::own(Host::open(executor, service, None)?))
}

/// Prints an answer: itself under `--json`, words otherwise, and of none no line.
fn print(answer: &impl Serialize, words: &str, output: Output) -> Result<(), Failure> {
    if words.is_empty() && !output.is_json() {
        return Ok(());
    }
    output.result(&object(answer)?, words)
}

fn object(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer)
        .map_err(|error| Failure::new(Exit::Other, format!("an answer is no JSON: {error}")))
}

fn channel(text: &str) -> Result<ChannelId, Failure> {
    let key = match text.parse::<ChannelUri>() {
        Ok(uri) => Ok(uri.public_key),
        Err(_) => text.parse(),
    };
    key.map(ChannelId).map_err(|_| Failure::usage(format!("{text:?} is no channel's public key, and no URI")))
}

pub(crate) fn status(args: &Status, output: Output) -> Result<(), Failure> {
    let interrupts = Interrupts::install()?;
    with_node(&args.data, async |face| {
        let show = async {
            loop {
                let status = face.call(api::GetStatus {}).await?;
                let words = status_words(&status, face.service().is_some());
                if !args.watch {
                    return print(&status, &words, output);
                }
                output.view(&object(&status)?, &words)?;
                smol::Timer::after(WATCH_INTERVAL).await;
            }
        };
        let ended = async {
            interrupts.next().await;
            Ok(())
        };
        future::or(show, ended).await
    })
}

fn status_words(status: &api::NodeStatus, is_own: bool) -> String {
    let or_none = |it: &Option<String>| it.clone().unwrap_or_else(|| "none".into());
    let node = if is_own {
        format!("none runs on {}", status.home)
    } else {
        format!("runs on {} since {}", status.home, crate::clock::utc(status.started_unix_ms))
    };
    format!(
        "node    {node}\npeers   {} in, {} out, {} known; TCP {}\ndht     {} nodes; UDP {}\n\
         rates   {}/s down, {}/s up; {} received, {} sent\nfollows {}\njobs    {} under way\napi     {}",
        status.inbound,
        status.outbound,
        status.peers_known,
        or_none(&status.p2p),
        status.dht_nodes,
        or_none(&status.dht),
        HumanBytes(status.receive_bytes_per_sec),
        HumanBytes(status.send_bytes_per_sec),
        HumanBytes(status.bytes_received),
        HumanBytes(status.bytes_sent),
        follows_words(&status.channels),
        status.jobs,
        or_none(&status.api),
    )
}

/// How many channels there are, and of each state that one has.
fn follows_words(counts: &api::Counts) -> String {
    let states = [
        (counts.conflict, "in conflict"),
        (counts.needs_key, "without their key"),
        (counts.folder_missing, "without their folder"),
        (counts.needs_space, "without space"),
        (counts.looking, "looked for"),
        (counts.arriving, "arriving"),
        (counts.waiting_for_peers, "waiting for peers"),
        (counts.new, "new"),
        (counts.up_to_date + counts.not_asked_lately, "up to date"),
        (counts.paused, "paused"),
    ];
    let states = states.into_iter().filter(|(count, _)| *count > 0);
    let states: Vec<_> = states.map(|(count, state)| format!("{count} {state}")).collect();
    let all = events::count(counts.all, "channel");
    if states.is_empty() { all } else { format!("{all}: {}", states.join(", ")) }
}

pub(crate) fn add(args: &Add, output: Output) -> Result<(), Failure> {
    let uri = if args.uri == files::STDIN {
        files::read_secret_text(files::STDIN.as_ref())?.trim().to_owned()
    } else {
        args.uri.clone()
    };
    let call = api::AddSubscription {
        uri,
        output: args.output.as_deref().map(node::absolute).transpose()?,
        copy: args.fetch.copy,
        in_order: args.fetch.in_order,
        new: args.data.new,
        preview: false,
    };
    with_node(&args.data, async |face| {
        let added = face.call(call).await?;
        let words = format!(
            "channel {} is followed; its files go to {}",
            added.channel,
            added.output.as_deref().unwrap_or("no folder")
        );
        print(&added, &words, output)
    })
}

pub(crate) fn rm(args: &One, output: Output) -> Result<(), Failure> {
    let channel = channel(&args.channel)?;
    with_node(&args.data, async |face| {
        let removed = face.call(api::RemoveSubscription { channel }).await?;
        print(&removed, &format!("channel {channel} is not followed any more; its files stay"), output)
    })
}

pub(crate) fn pause(args: &OneOrAll, output: Output) -> Result<(), Failure> {
    let channel = args.channel.as_deref().map(channel).transpose()?;
    with_node(&args.data, async |face| {
        let paused = face.call(api::PauseSubscription { channel }).await?;
        print(&paused, "paused", output)
    })
}

pub(crate) fn resume(args: &OneOrAll, output: Output) -> Result<(), Failure> {
    let channel = args.channel.as_deref().map(channel).transpose()?;
    with_node(&args.data, async |face| {
        let resumed = face.call(api::ResumeSubscription { channel }).await?;
        print(&resumed, "resumed", output)
    })
}

pub(crate) fn ls(args: &Ls, output: Output) -> Result<(), Failure> {
    with_node(&args.data, async |face| {
        let call = api::GetSubscriptions { search: args.search.clone(), ..Default::default() };
        let found = face.call(call).await?;
        let lines = found.subscriptions.iter().map(|one| {
            let state = serde_json::to_value(one.state).unwrap_or_default();
            let state = state.as_str().unwrap_or_default().replace('_', " ");
            let size = HumanBytes(one.size_bytes).to_string();
            format!("{}  {state:<18} {size:>11}  {}", one.channel, one.title)
        });
        print(&found, &lines.collect::<Vec<_>>().join("\n"), output)
    })
}

pub(crate) fn peers(args: &Folder, output: Output) -> Result<(), Failure> {
    with_node(&args.data, async |face| {
        let found = face.call(api::GetPeers {}).await?;
        let lines = found.peers.iter().map(|peer| {
            let way = if peer.outbound { "out" } else { "in" };
            let (down, up) = (HumanBytes(peer.bytes_received), HumanBytes(peer.bytes_sent));
            format!("{:<44} {way:<3} {:>7} s  {down} down, {up} up", peer.address, peer.connected_secs)
        });
        print(&found, &lines.collect::<Vec<_>>().join("\n"), output)
    })
}

pub(crate) fn bans(args: &Folder, output: Output) -> Result<(), Failure> {
    with_node(&args.data, async |face| {
        let found = face.call(api::GetBans {}).await?;
        let lines = found.bans.iter().map(|ban| {
            let until = crate::clock::utc(ban.until_unix_ms);
            format!("{:<44} until {until}  {}", ban.address, ban.why.as_deref().unwrap_or_default())
        });
        print(&found, &lines.collect::<Vec<_>>().join("\n"), output)
    })
}

pub(crate) fn limit(args: &Limit, output: Output) -> Result<(), Failure> {
    with_node(&args.data, async |face| {
        let call = api::SetLimits {
            upload_bytes_per_sec: args.upload.map(|rate| api::Limit(rate.0)),
            download_bytes_per_sec: args.download.map(|rate| api::Limit(rate.0)),
        };
        let is_change = args.upload.is_some() || args.download.is_some();
        let limits = if is_change { face.call(call).await? } else { face.call(api::GetLimits {}).await? };
        let words =
            |rate: Option<u64>| rate.map_or("without a limit".into(), |it| format!("{it} bytes a second"));
        let text = format!(
            "upload    {}\ndownload  {}",
            words(limits.upload_bytes_per_sec),
            words(limits.download_bytes_per_sec)
        );
        print(&limits, &text, output)
    })
}

pub(crate) fn settings(args: &Settings, output: Output) -> Result<(), Failure> {
    with_node(&args.data, async |face| {
        let of = |setting| args.value.filter(|_| args.setting == Some(setting));
        let settings = if args.setting.is_some() {
            face.call(api::SetSettings { gateway: of(Setting::Gateway), whole: of(Setting::Whole) }).await?
        } else {
            face.call(api::GetSettings {}).await?
        };
        let restart = if settings.restart.is_empty() {
            String::new()
        } else {
            let keys = settings.restart.join(", ");
            format!("\nrestart  to apply {keys}: the configuration file says something else now")
        };
        let words = format!("gateway  {}\nwhole    {}{restart}", settings.gateway, settings.whole);
        print(&settings, &words, output)
    })
}

/// Ends the node that runs; where none does there is nothing to end.
pub(crate) fn shutdown(args: &Folder, output: Output) -> Result<(), Failure> {
    smol::block_on(async {
        let Some(face) = Face::find(&args.data.dir).await? else {
            let message = format!("no node runs on {}", args.data.dir.display());
            return Err(Failure::new(Exit::NotFound, message));
        };
        let process = face.process().await;
        let done = face.call(api::Shutdown {}).await?;
        let ended = async {
            match &process {
                Some(process) => process.ended().await,
                None => future::pending().await,
            }
            "the node has ended"
        };
        let late = async {
            smol::Timer::after(if process.is_some() { END_TIMEOUT } else { Duration::ZERO }).await;
            "the node is ending"
        };
        print(&done, future::or(ended, late).await, output)
    })
}

pub(crate) fn doctor(args: &Folder, output: Output) -> Result<(), Failure> {
    with_node(&args.data, async |face| {
        let found = face.call(api::GetDoctor {}).await?;
        let lines = found.checks.iter().map(|check| {
            let mark = if check.good { "ok " } else { "!  " };
            let next = check.next.as_ref().map(|next| format!("\n   {:<12} {next}", "")).unwrap_or_default();
            format!("{mark}{:<12} {}{next}", check.name, check.finding)
        });
        print(&found, &lines.collect::<Vec<_>>().join("\n"), output)
    })
}

pub(crate) fn token(args: &Token, output: Output) -> Result<(), Failure> {
    match &args.what {
        TokenCommand::Show { scope } => {
            let scope = match scope {
                Scope::Read => api::Scope::Read,
                Scope::Control => api::Scope::Control,
                Scope::Admin => api::Scope::Admin,
            };
            let token = read_token(&args.data.dir, scope).map_err(|mut failure| {
                if failure.exit == Exit::NotFound {
                    failure.message.push_str("; the first `megatorrent serve` on the folder makes one");
                }
                failure
            })?;
            output.result(&json!({ "token": *token }), &token)
        }
        TokenCommand::Link => with_node(&args.data, async |face| {
            let (status, link) =
                (face.call(api::GetStatus {}).await?, face.call(api::CreateLoginLink {}).await?);
            let none =
                || Failure::new(Exit::NotFound, "no node with a page runs here; `megatorrent serve` is one");
            let url = format!("http://{}/{}", status.api.ok_or_else(none)?, link.path);
            output.result(&json!({ "url": url, "valid_secs": link.valid_secs }), &url)
        }),
        TokenCommand::Rotate => with_node(&args.data, async |face| {
            let done = face.call(api::RotateToken {}).await?;
            print(&done, "there is another token; `megatorrent token show` prints it", output)
        }),
    }
}

pub(crate) fn identity(args: &Identity, output: Output) -> Result<(), Failure> {
    let passphrase = |file: &std::path::Path| {
        files::read_secret_text(file).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
    };
    with_node(&args.data, async |face| match &args.what {
        IdentityCommand::List => {
            let found = face.call(api::GetIdentities {}).await?;
            let lines = found.identities.iter().map(|one| format!("{}  {}", one.channel, one.file));
            print(&found, &lines.collect::<Vec<_>>().join("\n"), output)
        }
        IdentityCommand::New => {
            let made = face.call(api::CreateIdentity {}).await?;
            print(&made, &format!("{}\nidentity  {}", made.uri, made.file), output)
        }
        IdentityCommand::Export { channel: text, file, passphrase_file } => {
            let call = api::ExportIdentity {
                channel: channel(text)?,
                file: node::absolute(file)?,
                passphrase: passphrase(passphrase_file)?,
            };
            let done = face.call(call).await?;
            print(
                &done,
                &format!("backup written to {}; keep the passphrase elsewhere", file.display()),
                output,
            )
        }
        IdentityCommand::Import { file, passphrase_file } => {
            let call = api::ImportIdentity {
                file: node::absolute(file)?,
                passphrase: passphrase_file.as_deref().map(passphrase).transpose()?,
            };
            let made = face.call(call).await?;
            print(&made, &format!("{}\nidentity  {}", made.uri, made.file), output)
        }
    })
}
