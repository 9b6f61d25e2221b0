//! Entries into a signed manifest, and its head onto the DHT.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{
    Collection, FileEntry, FormError, HeadContent, Item, Manifest, Reference, entry,
};
use megatorrent_core::node::{Answer, Command, DhtError, Draft, PublishError, Refusal, Takers};
use megatorrent_core::time::UnixTime;
use megatorrent_core::tree::Shape;
use megatorrent_core::uri::ChannelUri;
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::export::data_blobs;
use megatorrent_runtime_smol::ingest::AuthorBlobs;
use megatorrent_runtime_smol::store::Store;
use serde_json::{Value, json};
use smol::lock::{Mutex, MutexGuardArc};

use super::Progress;
use crate::api;
use crate::clock;
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::service::Reporter;

/// Data blobs of a tree whose presence is checked; of a longer tree only the top is.
const CHECKED_BLOBS_MAX: usize = 16_384;
/// How long to look for a node of the DHT.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long putting and reading back may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_mins(3);

/// Publications of one channel follow each other: the later one gets the higher sequence.
#[derive(Debug, Default)]
pub(crate) struct Turns(RefCell<BTreeMap<PublicKey, Arc<Mutex<()>>>>);

impl Turns {
    async fn of(&self, channel: PublicKey) -> MutexGuardArc<()> {
        let turn = {
            let mut channels = self.0.borrow_mut();
            channels.retain(|_, turn| Arc::strong_count(turn) > 1);
            channels.entry(channel).or_default().clone()
        };
        turn.lock_arc().await
    }
}

/// What `publish` prints: the channel's `uri` and `public_key`, `sequence`, `inline`, `private`, and who took the head.
pub(crate) async fn run(
    call: &api::Publish,
    node: &Handle,
    progress: &Progress,
    reporter: &Reporter,
    turns: &Turns,
) -> Result<Value, Failure> {
    progress.set_step("signing");
    if !call.any_clock {
        clock::check(clock::now_ms())?;
    }
    let identity = files::read_identity(call.identity.as_ref())?;
    let read_key = read_key(call, &identity)?;
    let manifest = manifest(call)?;
    let gateways = call
        .gateways
        .iter()
        .map(|text| text.parse().map_err(|_| Failure::usage(format!("{text:?} is no gateway's HOST:PORT"))));
    let gateways: Vec<_> = gateways.collect::<Result<_, _>>()?;
    let version = Version { identity, read_key, manifest, gateways, with_ids: !call.no_ids };
    put_out(version, node, progress, reporter, turns).await
}

/// What is to be signed and put out, and how.
pub(super) struct Version {
    pub(super) identity: Identity,
    /// `None`: the channel is public.
    pub(super) read_key: Option<Secret>,
    pub(super) manifest: Manifest,
    /// Nodes that put the head on the DHT; none: this one does.
    pub(super) gateways: Vec<PeerAddr>,
    pub(super) with_ids: bool,
}

/// Signs a version and puts it out: what `publish` prints.
pub(super) async fn put_out(
    version: Version,
    node: &Handle,
    progress: &Progress,
    reporter: &Reporter,
    turns: &Turns,
) -> Result<Value, Failure> {
    progress.set_step("signing");
    let Version { identity, read_key, manifest, gateways, with_ids } = version;
    let (public_key, private) = (identity.public_key(), read_key.is_some());
    warn_of_missing_blobs(&manifest, node.store(), reporter);
    let secret = identity.content_secret();
    let content = head_content(&manifest, node.store(), &secret, private, with_ids)?;
    let via = !gateways.is_empty();
    let draft = Draft { content, read_key: read_key.clone(), gateways };
    if !via {
        progress.set_step("looking for the DHT");
        join(node).await?;
    }
    progress.set_step("publishing");
    let _turn = turns.of(public_key).await;
    node.command(Command::AddIdentity(Box::new(identity))).await?;
    let put = put(node, &public_key, draft).await;
    let _ = node.command(Command::RemoveIdentity(public_key)).await;
    let Put { sequence, takers, inline } = put?;
    let uri = ChannelUri { public_key, read_key, bootstrap: Vec::new() };
    let text = if private { uri.to_secret_string().to_string() } else { uri.to_public_string() };
    let mut object = json!({
        "uri": text, "public_key": public_key.to_string(), "sequence": sequence, "inline": inline,
        "private": private, "taken_by": words(takers),
    });
    match takers {
        Takers::DhtNodes(count) => object["replicas"] = count.into(),
        Takers::Gateways { count, read_back_by_another } => {
            object["gateways"] = count.into();
            object["read_back_by_another"] = read_back_by_another.into();
        }
    }
    let now_ms = clock::now_ms();
    if sequence > now_ms {
        object["clock_ms"] = now_ms.into();
    }
    Ok(object)
}

/// A head that is out.
pub(crate) struct Put {
    pub(crate) sequence: u64,
    pub(crate) takers: Takers,
    pub(crate) inline: bool,
}

/// Signs a draft and puts it out, with an identity that the node has.
pub(crate) async fn put(node: &Handle, channel: &PublicKey, draft: Draft) -> Result<Put, Failure> {
    let via = !draft.gateways.is_empty();
    let late = async {
        smol::Timer::after(PUBLISH_TIMEOUT).await;
        let who = if via { "gateways" } else { "DHT" };
        Err(Failure::new(Exit::Timeout, format!("the {who} took too long to store the head; try again")))
    };
    let answer = async {
        match node.command(Command::Publish { channel: *channel, draft }).await {
            Ok(Answer::Published { sequence, takers, inline }) => Ok(Put { sequence, takers, inline }),
            Ok(_) => Err(Failure::new(Exit::Other, "the node did not say what became of the head")),
            Err(refusal) => Err(publish_failure(refusal, via, node)),
        }
    };
    future::or(answer, late).await
}

fn publish_failure(refusal: Refusal, via: bool, node: &Handle) -> Failure {
    let hint = if let Refusal::Publish(error) = &refusal { hint(error, via) } else { "" };
    let is_disk = refusal == Refusal::Publish(PublishError::NotDurable);
    let cause = node.state().last_failure().filter(|_| is_disk);
    let mut failure = Failure::from(refusal);
    failure.message.push_str(hint);
    match cause.map(|cause| Failure::from(&*cause)) {
        Some(cause) => Failure::new(cause.exit, format!("{}: {}", failure.message, cause.message)),
        None => failure,
    }
}

/// Waits for a node of the DHT, or tells why there is none.
pub(super) async fn join(node: &Handle) -> Result<(), Failure> {
    let joined = async {
        node.dht_joined().await;
        Ok(())
    };
    let unreachable = async {
        let why = node.dht_unreachable().await;
        let message =
            format!("no node of the DHT can be reached: {why}; name one that answers with -b HOST:PORT");
        Err(Failure::new(Exit::Network, message))
    };
    let late = async {
        smol::Timer::after(JOIN_TIMEOUT).await;
        let stays = node.local_addr().is_some();
        let own = node.dht_addr().filter(|_| stays && node.config().private_dht);
        Err(Failure::new(Exit::Network, nobody_answers(own)))
    };
    future::or(joined, future::or(unreachable, late)).await
}

/// `own`: the DHT's address of a node that stays, where the network is a private one.
fn nobody_answers(own: Option<SocketAddrV4>) -> String {
    let message = "no node of the DHT answers; name one that does with -b HOST:PORT";
    match own {
        None => message.into(),
        Some(addr) => format!(
            "{message}. Where this is the first node of a network of your own, start a second one with -b {addr}: others keep a head"
        ),
    }
}

fn read_key(call: &api::Publish, identity: &Identity) -> Result<Option<Secret>, Failure> {
    match &call.read_key {
        Some(text) => Secret::from_hex(text.trim())
            .map(Some)
            .map_err(|error| Failure::new(Exit::Integrity, format!("the read key: {error}"))),
        None if call.private => own_read_key(identity, call.identity.as_ref()).map(Some),
        None => Ok(None),
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
fn manifest(call: &api::Publish) -> Result<Manifest, Failure> {
    let mut items = Vec::with_capacity(call.entries.len());
    for (number, value) in call.entries.iter().enumerate() {
        let text = value.to_string();
        let file = entry::from_json(text.as_bytes()).map_err(|error| {
            let number = number + 1;
            Failure::new(Exit::Integrity, format!("entry {number} is no entry of `ingest`: {error}"))
        })?;
        items.push(Item::File(file));
    }
    manifest_of(call.title.clone(), items)
}

/// One collection.
pub(super) fn manifest_of(title: String, items: Vec<Item>) -> Result<Manifest, Failure> {
    let collections = vec![Collection { title, items }];
    let manifest = Manifest { collections, ..Manifest::default() };
    manifest.check().map_err(|error| Failure::usage(format!("these entries make no channel: {error}")))?;
    Ok(manifest)
}

/// Nobody can fetch what the author does not have; another node may have it, though, so this is no failure.
fn warn_of_missing_blobs(manifest: &Manifest, store: &Store, reporter: &Reporter) {
    let dir = store.root().display();
    for file in manifest.files().filter(|file| !is_stored(file, store)) {
        reporter.warn(format!(
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
pub(crate) fn head_content(
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

/// Who took a head.
pub(crate) fn words(takers: Takers) -> String {
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

/// What a user is told where the clock is behind the channel.
pub(crate) fn behind(sequence: u64, unix: UnixTime) -> String {
    format!(
        "this computer's clock says {}, and the channel has reached {}, so the next number after it is taken ({sequence}). \
         Set the clock if it is behind; if it was ahead once, nothing need be done",
        clock::utc(unix.0),
        clock::utc(sequence.saturating_sub(1))
    )
}

/// What to do next.
fn hint(error: &PublishError, is_via: bool) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_of_a_network_is_told_how_it_gets_a_second() {
        assert!(!nobody_answers(None).contains("second"));
        let own = "192.168.1.10:6881".parse().expect("an address");
        assert!(nobody_answers(Some(own)).contains("start a second one with -b 192.168.1.10:6881"));
    }
}
