//! Publishing and reading within the world: what a command-line program does with files, done with bytes.

use std::convert::Infallible;
use std::marker::PhantomData;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::blob::Link;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::ITEM_VALUE_LEN_MAX;
use megatorrent_core::manifest::{
    Chunk, Collection, EntryPath, FileEntry, Head, HeadContent, Item, Manifest, Reference,
};
use megatorrent_core::node::{Command, Draft, Written};
use megatorrent_core::suite::Suite;
use megatorrent_core::tree::{Cursor, Shape, Step, TreeRef, TreeWriter};

use crate::host::HostId;
use crate::store::{Pool, Store};
use crate::world::World;

/// As many digits as a sequence or timestamp has for the next centuries.
const LONG_NUMBER: u64 = 9_999_999_999_999;

/// Whose content it is, and where its blobs go.
struct Press<'a, S> {
    secret: Secret,
    store: &'a mut Store,
    pool: &'a mut Pool,
    suite: PhantomData<S>,
}

impl<S: Suite> Press<'_, S> {
    fn blob(&mut self, buf: &mut [u8], len: usize) -> Link {
        let link = S::seal_blob(&self.secret, buf, len);
        let written = self.store.write::<S>(self.pool, link.id, buf);
        assert_eq!(written, Written::Stored, "the author's store takes the author's blobs");
        link
    }

    fn tree(&mut self, content: &[u8]) -> TreeRef {
        let mut writer = TreeWriter::new_in(S::SHAPE);
        let buf = &mut vec![0; S::BLOB_LEN][..];
        // An empty stream has one blob too.
        for part in content.chunks(S::PLAIN_LEN).chain(content.is_empty().then_some(&[][..])) {
            buf[..part.len()].copy_from_slice(part);
            let link = self.blob(buf, part.len());
            let Ok(()) = writer.push(link, |buf, len| Ok::<_, Infallible>(self.blob(buf, len)));
        }
        let Ok(tree) =
            writer.finish(content.len() as u64, |buf, len| Ok::<_, Infallible>(self.blob(buf, len)));
        tree
    }
}

impl<S: Suite> World<S> {
    fn press(&mut self, id: HostId) -> (Identity, Press<'_, S>) {
        let host = &mut self.hosts[id.index()];
        let identity = host.identity().expect("only a host with an identity is an author");
        let secret = identity.content_secret();
        (identity, Press { secret, store: &mut host.store, pool: &mut self.pool, suite: PhantomData })
    }

    /// Turns bytes into blobs in the store of a host that has an identity, and returns the file's entry.
    ///
    /// # Panics
    /// Where the host has no identity, its store has no room, or `path` is no [`EntryPath`].
    pub fn ingest(&mut self, id: HostId, path: &str, content: &[u8]) -> FileEntry {
        let tree = self.press(id).1.tree(content);
        FileEntry {
            path: EntryPath::new(path).expect("the caller names a valid path"),
            size: content.len() as u64,
            modified_ms: None,
            executable: false,
            reference: Reference::Tree(tree),
        }
    }

    /// Publishes a channel of one collection, inline where the head then fits a DHT item, as a body otherwise. A
    /// private one is sealed with the identity's read key.
    ///
    /// # Panics
    /// Where the host has no identity, its store has no room, or a private channel has no read key.
    pub fn publish(&mut self, id: HostId, title: &str, files: &[FileEntry], private: bool) {
        self.publish_via(id, title, files, private, Vec::new());
    }

    /// Publishes as [`Self::publish`] does, through gateways.
    ///
    /// # Panics
    /// As [`Self::publish`] does.
    pub fn publish_via(
        &mut self,
        id: HostId,
        title: &str,
        files: &[FileEntry],
        private: bool,
        gateways: Vec<PeerAddr>,
    ) {
        let (identity, mut press) = self.press(id);
        let read_key =
            private.then(|| identity.read_key().expect("a private channel has a read key").clone());
        let collections = |files: Vec<FileEntry>| {
            vec![Collection { title: title.into(), items: files.into_iter().map(Item::File).collect() }]
        };
        let seal = read_key.as_ref().map(|key| (key, [0; 12]));
        let fits = |content: &HeadContent| {
            let json = Head::to_json(&identity, LONG_NUMBER, LONG_NUMBER, content, seal);
            json.len() <= ITEM_VALUE_LEN_MAX
        };
        let v5_files: Option<Vec<FileEntry>> = files.iter().map(as_v5).collect();
        let inline = v5_files.map(|files| HeadContent::Inline(collections(files)));
        let content = inline.filter(fits).unwrap_or_else(|| {
            let body = Manifest {
                title: title.into(),
                description: String::new(),
                collections: collections(files.to_vec()),
            };
            HeadContent::Root(press.tree(&body.to_cbor()))
        });
        self.command(id, Command::Publish(Draft { content, read_key, gateways }));
    }

    /// A file's bytes from a host's store; `None` while a blob is missing or does not open.
    pub fn read_file(&self, id: HostId, file: &FileEntry) -> Option<Vec<u8>> {
        match &file.reference {
            Reference::Tree(tree) => self.read_tree(id, tree),
            Reference::Chunks(chunks) => {
                let mut content = Vec::new();
                for chunk in chunks {
                    let mut blob = self.store(id).blob(&chunk.id)?.to_vec();
                    let range = chunk.open(&mut blob)?;
                    content.extend_from_slice(&blob[range]);
                }
                Some(content)
            }
        }
    }

    fn read_tree(&self, id: HostId, tree: &TreeRef) -> Option<Vec<u8>> {
        let mut cursor = Cursor::whole(tree);
        let mut content = Vec::new();
        loop {
            match cursor.step() {
                Step::Blob(node) if node.height > 0 => {}
                Step::Blob(node) => {
                    let plain = self.store(id).open::<S>(&node.link)?;
                    content.extend_from_slice(&plain[node.part(&(0..tree.size))]);
                }
                Step::NeedsIndex(node) => {
                    let plain = self.store(id).open::<S>(&node.link)?;
                    assert!(cursor.open(&node.link.id, &plain), "a blob's plaintext has one length");
                }
                Step::End => return Some(content),
            }
        }
    }
}

/// v5's form of a file of one blob of v5's length; the list of a longer one's chunks would not be short, so it has none here.
fn as_v5(file: &FileEntry) -> Option<FileEntry> {
    let Reference::Tree(TreeRef { size, depth: 0, link, shape: Shape::REAL }) = &file.reference else {
        return None;
    };
    let size = u32::try_from(*size).expect("a tree of depth 0 is one blob");
    Some(FileEntry { reference: Reference::Chunks(vec![Chunk::from_link(link, size)]), ..file.clone() })
}
