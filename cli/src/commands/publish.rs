//! `publish`: entries into a signed manifest, and its head onto the DHT.

use std::path::Path;
use std::time::Duration;

use futures_lite::future;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{
    Collection, FileEntry, FormError, HeadContent, Item, Manifest, Reference, entry,
};
use megatorrent_core::node::{Answer, Command, DhtError, Draft, Event, PublishError, Refusal, Takers};
use megatorrent_core::time::UnixTime;
use megatorrent_core::tree::Shape;
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::events::News as Told;
use megatorrent_runtime_smol::export::data_blobs;
use megatorrent_runtime_smol::ingest::AuthorBlobs;
use megatorrent_runtime_smol::store::Store;
use megatorrent_runtime_smol::{Handle, Runtime};
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::{Dht, Publish};
use crate::choices;
use crate::clock;
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::node;
use crate::output::Output;
use crate::signals::Interrupts;

/// Data blobs of a tree whose presence is checked; of a longer tree only the top is.
const CHECKED_BLOBS_MAX: usize = 16_384;
/// How long to look for a node of the DHT.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long putting and reading back may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_mins(3);

/// What the node says when the head is out.
pub(super) struct Published {
    pub(super) sequence: u64,
    pub(super) takers: Takers,
    pub(super) inline: bool,
    /// What our clock said, where it is behind the channel.
    pub(super) clock: Option<UnixTime>,
}

pub(crate) fn run(args: &Publish, output: Output) -> Result<(), Failure> {
    let other_key = args.secret_file.as_deref().map(files::read_read_key).transpose()?;
    if args.network.dht == Dht::Off && args.gateways.is_empty() {
        return Err(Failure::usage(
            "a channel is published on the DHT: leave out --dht off, or name a --gateway",
        ));
    }
    if !args.any_clock {
        clock::check(clock::now_ms())?;
    }
    let identity = files::read_identity(&args.key)?;
    let read_key = match other_key {
        Some(key) => Some(key),
        None if args.private => Some(own_read_key(&identity, &args.key)?),
        None => None,
    };
    let manifest = manifest(args)?;
    let interrupts = Interrupts::install()?;
    let (public_key, private) = (identity.public_key(), read_key.is_some());
    let published = node::block_on(async |executor| {
        let mut options = node::options(&args.data, &args.network)?;
        choices::hold_all(&mut options)?;
        warn_of_missing_blobs(&manifest, &options.home.store, output);
        let content =
            head_content(&manifest, &options.home.store, &identity.content_secret(), private, !args.no_ids)?;
        options.identity = Some(identity);
        if !args.gateways.is_empty() {
            // They take the place of the DHT.
            options.dht = DhtMode::Off;
        }
        let node = Runtime::start(executor, options).await?;
        let draft = Draft { content, read_key: read_key.clone(), gateways: args.gateways.clone() };
        let published = interrupts.guard(publish(&node, &public_key, draft, output)).await;
        node.shutdown().await;
        published
    })?;

    let uri = ChannelUri { public_key, read_key, bootstrap: Vec::new() };
    let text = if private { uri.to_secret_string() } else { Zeroizing::new(uri.to_public_string()) };
    let mut object = json!({
        "uri": *text, "public_key": public_key.to_string(), "sequence": published.sequence,
        "inline": published.inline, "private": private,
    });
    match published.takers {
        Takers::DhtNodes(count) => object["replicas"] = count.into(),
        Takers::Gateways { count, read_back_by_another } => {
            object["gateways"] = count.into();
            object["read_back_by_another"] = read_back_by_another.into();
        }
    }
    if let Some(clock) = published.clock {
        object["clock_ms"] = clock.0.into();
    }
    output.result(&object, &text)?;
    output.note(&format!(
        "published sequence {}; took it: {}. `megatorrent serve` keeps it on the DHT and hands out the blobs",
        published.sequence,
        words(published.takers),
    ));
    if private {
        output.warn("the URI contains the read key: whoever has it can read the channel");
    }
    Ok(())
}

/// Who took a head.
pub(super) fn words(takers: Takers) -> String {
    match takers {
        Takers::DhtNodes(nodes) => count(nodes, "DHT node"),
        Takers::Gateways { count: gateways, read_back_by_another: true } => {
            format!("{}, and another than the first read it back", count(gateways, "gateway"))
        }
        Takers::Gateways { count: gateways, read_back_by_another: false } => {
            format!("{}, and only the first says that the DHT has it", count(gateways, "gateway"))
        }
    }
}

fn own_read_key(identity: &Identity, path: &Path) -> Result<Secret, Failure> {
    identity.read_key().cloned().ok_or_else(|| {
        let message =
            format!("{} has no read key (it is a v5 identity): give one with -s FILE", path.display());
        Failure::new(Exit::NotFound, message)
    })
}

/// One collection with the entries in the order given.
fn manifest(args: &Publish) -> Result<Manifest, Failure> {
    let mut items = Vec::with_capacity(args.entries.len());
    for path in &args.entries {
        let file = entry::from_json(&files::read_entry(path)?).map_err(|error| {
            Failure::new(Exit::Integrity, format!("{} is no entry of `ingest`: {error}", path.display()))
        })?;
        items.push(Item::File(file));
    }
    let collections = vec![Collection { title: args.title.clone(), items }];
    let manifest = Manifest { collections, ..Manifest::default() };
    manifest.check().map_err(|error| Failure::usage(format!("these entries make no channel: {error}")))?;
    Ok(manifest)
}

/// Nobody can fetch what the author does not have; another node may have it, though, so this is no failure.
fn warn_of_missing_blobs(manifest: &Manifest, store: &Store, output: Output) {
    let dir = store.root().display();
    for file in manifest.files().filter(|file| !is_stored(file, store)) {
        output.warn(&format!(
            "blobs of {} are not in {dir}: `megatorrent ingest` it there, or nobody can fetch it",
            file.path
        ));
    }
}

fn is_stored(file: &FileEntry, store: &Store) -> bool {
    match &file.reference {
        Reference::Chunks(chunks) => chunks.iter().all(|chunk| store.has(&chunk.name())),
        Reference::Extents(extents) => match data_blobs(extents, store, CHECKED_BLOBS_MAX) {
            Ok(Some(blobs)) => blobs.iter().all(|(blob, _)| store.has(&blob.root.into())),
            // A long one is not looked through; a slice's pack is known to the manifest alone.
            Ok(None) => true,
            Err(_) => false,
        },
        Reference::Symlink(_) | Reference::Folder => true,
    }
}

/// What the head carries; a body is stored.
pub(super) fn head_content(
    manifest: &Manifest,
    store: &Store,
    secret: &Secret,
    private: bool,
    with_ids: bool,
) -> Result<HeadContent, Failure> {
    let blobs = &mut AuthorBlobs { store, secret };
    HeadContent::of(manifest, Shape::REAL, private, with_ids, blobs).map_err(|error| match error {
        FormError::Manifest(error) => Failure::usage(error.to_string()),
        FormError::Store(error) => error.into(),
    })
}

async fn publish(
    node: &Handle,
    channel: &PublicKey,
    draft: Draft,
    output: Output,
) -> Result<Published, Failure> {
    let spinner = output.spinner();
    spinner.set_message("looking for the DHT");
    let late =
        || Failure::new(Exit::Network, "no node of the DHT answers; name one that does with -b HOST:PORT");
    let is_via = !draft.gateways.is_empty();
    if !is_via {
        within(JOIN_TIMEOUT, late, async {
            let joined = async {
                node.dht_joined().await;
                Ok(())
            };
            let unreachable = async {
                let why = node.dht_unreachable().await;
                let message = format!(
                    "no node of the DHT can be reached: {why}; name one that answers with -b HOST:PORT"
                );
                Err(Failure::new(Exit::Network, message))
            };
            future::or(joined, unreachable).await
        })
        .await?;
    }
    spinner.set_message("publishing");
    let late = || {
        let who = if is_via { "gateways" } else { "DHT" };
        Failure::new(Exit::Timeout, format!("the {who} took too long to store the head; try again"))
    };
    let tell = |text: &str| spinner.suspend(|| output.warn(text));
    let published = within(PUBLISH_TIMEOUT, late, outcome(node, channel, draft, tell)).await?;
    spinner.finish_and_clear();
    Ok(published)
}

/// Publishes a draft. `tell` takes a warning, at once.
pub(super) async fn outcome(
    node: &Handle,
    channel: &PublicKey,
    draft: Draft,
    tell: impl Fn(&str),
) -> Result<Published, Failure> {
    let is_via = !draft.gateways.is_empty();
    let mut events = node.events_after(node.newest_event());
    let answer = node.command(Command::Publish { channel: *channel, draft });
    let mut clock = None;
    let mut warn = |news: &Told| {
        if let Told::Event(Event::ClockBehind { channel: of, sequence, unix, .. }) = news
            && of == channel
        {
            clock = Some(*unix);
            tell(&behind(*sequence, *unix));
        }
    };
    let told = async {
        loop {
            warn(&events.next().await.news);
        }
    };
    let answer = future::or(told, answer).await;
    while let Some(next) = events.try_next() {
        warn(&next.news);
    }
    match answer {
        Ok(Answer::Published { sequence, takers, inline }) => {
            Ok(Published { sequence, takers, inline, clock })
        }
        Ok(_) => Err(Failure::new(Exit::Other, "the node did not say what became of the head")),
        Err(refusal) => {
            let hint = hint(&refusal, is_via);
            let is_disk = refusal == Refusal::Publish(PublishError::NotDurable);
            let cause = node.state().last_failure().filter(|_| is_disk);
            let mut failure = Failure::from(refusal);
            failure.message.push_str(hint);
            if let Some(cause) = cause {
                let cause = Failure::from(&*cause);
                failure = Failure::new(cause.exit, format!("{}: {}", failure.message, cause.message));
            }
            Err(failure)
        }
    }
}

fn behind(sequence: u64, unix: UnixTime) -> String {
    format!(
        "this computer's clock says {}, and the channel has reached {}, so the next number after it is taken ({sequence}). \
         Set the clock if it is behind; if it was ahead once, nothing need be done",
        clock::utc(unix.0),
        clock::utc(sequence.saturating_sub(1))
    )
}

/// What to do next.
fn hint(refusal: &Refusal, is_via: bool) -> &'static str {
    let Refusal::Publish(error) = refusal else { return "" };
    match error {
        PublishError::Dht(DhtError::Stale | DhtError::CasMismatch) => {
            "; another of your nodes may be publishing too: try again"
        }
        PublishError::NotReadBack if is_via => {
            "; gateways took it, so it may be there all the same: try again, or name another --gateway"
        }
        PublishError::Dht(_) | PublishError::NoReplica | PublishError::NotReadBack => {
            "; try again, or name a node to begin with (-b HOST:PORT)"
        }
        PublishError::Gateways(None) => {
            "; --gateway takes the address and the TCP port of a node that serves: check it, or name another"
        }
        PublishError::Gateways(Some(_)) => {
            "; try again later, or name another --gateway: any node that serves without --no-gateway"
        }
        _ => "",
    }
}

async fn within<T>(
    limit: Duration,
    late: impl FnOnce() -> Failure,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    future::or(work, async {
        smol::Timer::after(limit).await;
        Err(late())
    })
    .await
}
