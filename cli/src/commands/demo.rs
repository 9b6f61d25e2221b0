//! `demo`: a private swarm on this machine alone, step by step.
//!
//! Four nodes with folders, sockets and DHT of their own run in this process; they share nothing but 127.0.0.1.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures_lite::future;
use indicatif::HumanBytes;
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::blob::PLAIN_LEN;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::manifest::{Collection, EntryPath, FileEntry, HeadContent, Item, Manifest, Reference};
use megatorrent_core::node::{Command, Draft, Event, Target};
use megatorrent_core::uri;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::export::{Copies, Export, export};
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::ingest::ingest_in_place;
use megatorrent_runtime_smol::outputs::Plan;
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::args::Demo;
use crate::events::count;
use crate::exit::{Exit, Failure};
use crate::files::random_secret;
use crate::node::{self, Executor};
use crate::output::{News, Output};
use crate::service::jobs::publish;
use crate::signals::Interrupts;

/// Size of the file that is made where none is given: five full blobs and a piece.
const RANDOM_FILE_LEN: u64 = 5 * PLAIN_LEN as u64 + 123;
/// A step that moves nothing for so long has failed.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a download is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Threads that seal or open.
const WORKERS: usize = 2;

pub(crate) fn run(args: &Demo, output: Output) -> Result<(), Failure> {
    let interrupts = Interrupts::install()?;
    let folder = tempfile::Builder::new()
        .prefix("megatorrent-demo-")
        .tempdir()
        .map_err(|error| Failure::new(Exit::Other, format!("cannot make a temporary folder: {error}")))?;
    node::block_on(async |executor| {
        let stage = Stage { executor, folder: folder.path(), output, begun: Instant::now() };
        interrupts.guard(stage.play(args.file.as_deref())).await
    })
}

/// Where the demo takes place.
struct Stage<'a> {
    executor: &'a Executor,
    folder: &'a Path,
    output: Output,
    begun: Instant,
}

/// What goes round.
struct Show {
    original: PathBuf,
    size: u64,
    channel: PublicKey,
    read_key: Secret,
    bootstrap: PeerAddr,
}

impl Stage<'_> {
    async fn play(&self, file: Option<&Path>) -> Result<(), Failure> {
        let (original, size) = self.original(file)?;
        let hub = self.start("bootstrap", None, None).await?;
        let bootstrap = address(&hub);
        self.step(&format!("bootstrap node on {bootstrap}: it knows the DHT and no content"))?;

        let identity = Identity::new(&random_secret()?, Some(random_secret()?));
        let (channel, secret) = (identity.public_key(), identity.content_secret());
        let read_key = identity.read_key().cloned().expect("the identity was made with a read key");
        let show = Show { original, size, channel, read_key, bootstrap };
        let entry = self.ingest(&show, secret.clone()).await?;
        let author = self.start("author", Some(identity), Some(&show)).await?;
        self.publish(&show, &author, entry, &secret).await?;

        let first = self.start("first", None, Some(&show)).await?;
        let digest = self.subscribe(&show, &first, "first").await?;
        let sent = first.status().bytes_sent;
        author.shutdown().await;
        drop(author);
        remove(&self.folder.join("author"))?;
        self.step("the author leaves and takes its blobs along")?;

        let second = self.start("second", None, Some(&show)).await?;
        let again = self.subscribe(&show, &second, "second").await?;
        let handed_on = first.status().bytes_sent - sent;
        for node in [&second, &first, &hub] {
            node.shutdown().await;
        }
        if digest != again || handed_on < show.size {
            return Err(Failure::new(
                Exit::Integrity,
                "the second subscriber did not get its blobs from the first",
            ));
        }
        self.curtain(&show, &digest, handed_on)
    }

    fn curtain(&self, show: &Show, digest: &str, handed_on: u64) -> Result<(), Failure> {
        let blobs = handed_on.div_ceil(PLAIN_LEN as u64 + 16);
        self.output.note(&format!(
            "\n      author (gone)          bootstrap\n          │                  (DHT only)\n          │ {}\n          ▼\n   \
             first subscriber ─── {blobs} blobs ───▶ second subscriber\n",
            HumanBytes(show.size),
        ));
        let seconds = self.seconds();
        let object = json!({
            "event": News::Verified.name(), "size": show.size, "sha256": digest, "seconds": seconds,
        });
        let text = format!(
            "verified: both copies equal the original, {} bytes, SHA-256 {digest}, in {seconds:.1} s",
            show.size
        );
        self.output.result(&object, &text)
    }

    fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn step(&self, text: &str) -> Result<(), Failure> {
        let seconds = self.seconds();
        self.output.event(
            News::Step,
            json!({ "seconds": seconds, "text": text }),
            &format!("{seconds:6.2} s  {text}"),
        )
    }

    /// The file that goes round, and its size.
    fn original(&self, file: Option<&Path>) -> Result<(PathBuf, u64), Failure> {
        if let Some(path) = file {
            let metadata = fs::metadata(path).map_err(|error| Failure::file("cannot read", path, &error))?;
            return Ok((path.to_owned(), metadata.len()));
        }
        let path = self.folder.join("random.bin");
        let mut content = vec![0; usize::try_from(RANDOM_FILE_LEN).expect("a few MiB fit")];
        getrandom::fill(&mut content).map_err(|error| {
            Failure::new(Exit::Other, format!("the system has no randomness to give: {error}"))
        })?;
        File::create_new(&path)
            .and_then(|mut file| file.write_all(&content))
            .map_err(|error| Failure::file("cannot write", &path, &error))?;
        self.step(&format!("made a file of {RANDOM_FILE_LEN} random bytes"))?;
        Ok((path, RANDOM_FILE_LEN))
    }

    async fn start(
        &self,
        name: &str,
        identity: Option<Identity>,
        show: Option<&Show>,
    ) -> Result<Handle, Failure> {
        let mut options = Options::new(Home::open(&self.folder.join(name))?);
        options.identity = identity;
        options.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        options.dht = DhtMode::Server;
        options.bootstrap = show.map(|show| show.bootstrap.clone()).into_iter().collect();
        Ok(Runtime::start(self.executor, options).await?)
    }

    async fn ingest(&self, show: &Show, secret: Secret) -> Result<FileEntry, Failure> {
        let original = show.original.clone();
        let store = Home::blobs_only(&self.folder.join("author"))?;
        let extents = smol::unblock(move || {
            ingest_in_place(&original, &store, &secret, WORKERS, &|_| {}, &AtomicBool::new(false))
        });
        let reference = Reference::Extents(extents.await?);
        self.step(&format!(
            "author encrypts {} into {}",
            HumanBytes(show.size),
            count(reference.blob_count(), "blob")
        ))?;
        let name = show.original.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let path = EntryPath::new(name).or_else(|_| EntryPath::new("file")).expect("a plain name is a path");
        Ok(FileEntry { path, size: show.size, modified_ms: None, executable: false, reference, blake3: None })
    }

    async fn publish(
        &self,
        show: &Show,
        author: &Handle,
        entry: FileEntry,
        secret: &Secret,
    ) -> Result<(), Failure> {
        let collections = vec![Collection { title: "Demo".into(), items: vec![Item::File(entry)] }];
        let manifest = Manifest { collections, ..Manifest::default() };
        let content: HeadContent = publish::head_content(&manifest, author.store(), secret, true, true)?;
        author.dht_joined().await;
        let draft = Draft { content, read_key: Some(show.read_key.clone()), gateways: Vec::new() };
        let takers = publish::put(author, &show.channel, draft).await?.takers;
        self.step(&format!(
            "author signs the private channel {}… and puts its head on the DHT ({})",
            &show.channel.to_string()[..8],
            publish::words(takers),
        ))
    }

    /// Fetches the channel, writes its file and compares it; the SHA-256 of what both hold.
    async fn subscribe(&self, show: &Show, node: &Handle, name: &str) -> Result<String, Failure> {
        self.step(&format!("{name} subscriber starts, knowing the channel's URI and the bootstrap node"))?;
        let read_key = Some(show.read_key.clone());
        node.command(Command::Follow { channel: show.channel, read_key });
        let out_dir = self.folder.join(format!("{name}-out"));
        let manifest = complete(node, show, &out_dir).await?;
        self.step(&format!("{name} subscriber has all blobs"))?;
        let entry = manifest
            .files()
            .next()
            .cloned()
            .ok_or_else(|| Failure::new(Exit::Integrity, "the manifest that arrived has no file"))?;
        let (store, state) = (node.store().clone(), node.state().clone());
        let original = show.original.clone();
        let digest = smol::unblock(move || {
            let (entry, store, state, out_dir) = (&entry, &store, &state, out_dir.as_path());
            let packs = &manifest.packs;
            let request = Export {
                entry,
                packs,
                store,
                state,
                out_dir,
                workers: WORKERS,
                copies: Copies::None,
                topic: None,
                restore: false,
                sync: false,
            };
            export(&request, &|_| {}, &AtomicBool::new(false))?;
            compare(&original, &out_dir.join(entry.path.as_str()))
        })
        .await?;
        self.step(&format!("{name} subscriber decrypted its copy; it equals the original"))?;
        Ok(digest)
    }
}

/// A node's address, for the others.
fn address(node: &Handle) -> PeerAddr {
    node.local_addr().expect("the demo's nodes listen").into()
}

/// Follows a channel until all its blobs are stored.
async fn complete(node: &Handle, show: &Show, out_dir: &Path) -> Result<Arc<Manifest>, Failure> {
    let ours = &show.channel;
    let topic = uri::topic(ours, Some(&show.read_key));
    let mut found = None;
    let mut moved = (node.status().bytes_received, Instant::now());
    loop {
        let tick = async {
            smol::Timer::after(TICK).await;
            None
        };
        match future::or(async { Some(node.next_event().await) }, tick).await {
            Some(Event::Manifest { channel, sequence, manifest }) if channel == *ours => {
                node.store().begin_outputs(topic, sequence, Plan::new(manifest.clone(), out_dir.to_owned()));
                found = Some(manifest);
            }
            Some(Event::HeadRefused { channel, error }) if channel == *ours => return Err(error.into()),
            Some(Event::Complete { target, .. }) if target == Target::Channel(*ours) => {
                return found
                    .ok_or_else(|| Failure::new(Exit::Other, "a channel was complete before it was known"));
            }
            _ => {}
        }
        let bytes = node.status().bytes_received;
        if bytes != moved.0 {
            moved = (bytes, Instant::now());
        } else if moved.1.elapsed() >= STALL_TIMEOUT {
            let waiting = node.channel_status(ours).and_then(|status| status.waiting).unwrap_or_default();
            let message = format!("no progress within {} s ({waiting})", STALL_TIMEOUT.as_secs());
            return Err(Failure::new(Exit::Timeout, message));
        }
    }
}

/// Compares two files byte by byte; their SHA-256 in hex where they are equal.
fn compare(original: &Path, copy: &Path) -> Result<String, Failure> {
    let open = |path: &Path| {
        File::open(path).map(BufReader::new).map_err(|error| Failure::file("cannot read", path, &error))
    };
    let (mut left, mut right) = (open(original)?, open(copy)?);
    let mut hash = Sha256::new();
    let (mut expected, mut got) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let len =
            fill(&mut left, &mut expected).map_err(|error| Failure::file("cannot read", original, &error))?;
        let copied =
            fill(&mut right, &mut got).map_err(|error| Failure::file("cannot read", copy, &error))?;
        if expected[..len] != got[..copied] {
            return Err(Failure::new(
                Exit::Integrity,
                format!("{} differs from the original", copy.display()),
            ));
        }
        if len == 0 {
            return Ok(base16ct::lower::encode_string(&hash.finalize()));
        }
        hash.update(&expected[..len]);
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn remove(folder: &Path) -> Result<(), Failure> {
    fs::remove_dir_all(folder).map_err(|error| Failure::file("cannot remove", folder, &error))
}
