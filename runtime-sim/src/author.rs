//! Publishing and reading within the world, as a command-line program does with files, but with bytes.

use std::convert::Infallible;
use std::marker::PhantomData;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::blob::BlobRef;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret};
use megatorrent_core::manifest::{
    AuthorStore, Collection, EntryPath, Extent, FileEntry, HeadContent, Item, Manifest, Reference,
};
use megatorrent_core::node::{Command, Draft, Written};
use megatorrent_core::suite::Suite;
use megatorrent_core::tree::{Cursor, Shape, Step, TreeRef};

use crate::host::HostId;
use crate::store::{Pool, Store};
use crate::world::World;

/// Data blobs of a file that is listed without an index blob.
const LISTED_MAX: usize = 16;

/// An author, and the store for its blobs.
struct Press<'a, S> {
    secret: Secret,
    store: &'a mut Store,
    pool: &'a mut Pool,
    suite: PhantomData<S>,
}

impl<S: Suite> Press<'_, S> {
    fn blob(&mut self, buf: &mut [u8], len: usize) -> BlobRef {
        let blob = S::seal_blob(&self.secret, buf, len);
        let written = self.store.write::<S>(self.pool, blob.root.into(), buf);
        assert_eq!(written, Written::Stored, "the author's store takes the author's blobs");
        blob
    }

    /// As `ingest` does: a short file is listed without an index blob.
    fn extents(&mut self, content: &[u8]) -> Vec<Extent> {
        if content.len() > LISTED_MAX * S::PLAIN_LEN || S::SHAPE != Shape::REAL {
            return vec![Extent::Tree(self.tree(content))];
        }
        content.chunks(S::PLAIN_LEN).map(|part| Extent::Tree(self.tree(part))).collect()
    }

    fn tree(&mut self, content: &[u8]) -> TreeRef {
        let Ok(tree) = TreeRef::write(S::SHAPE, content, |buf, len| Ok::<_, Infallible>(self.blob(buf, len)));
        tree
    }
}

impl<S: Suite> AuthorStore for Press<'_, S> {
    type Error = Infallible;

    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.store.open::<S>(blob))
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, Infallible> {
        Ok(self.blob(buf, len))
    }

    fn id(&mut self, root: &Root) -> Result<Option<BlobId>, Infallible> {
        let id = self.store.blob(&BlobName::Native(*root)).map(|blob| S::id_of(&blob));
        if let Some(id) = id {
            self.pool.note_id(*root, id);
        }
        Ok(id)
    }

    fn store_v5(&mut self, root: &Root, id: &BlobId) -> Result<(), Infallible> {
        if let Some(blob) = self.store.blob(&BlobName::Native(*root)) {
            self.store.write::<S>(self.pool, BlobName::V5(*id), &blob);
        }
        Ok(())
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
        let extents = self.press(id).1.extents(content);
        FileEntry {
            path: EntryPath::new(path).expect("the caller names a valid path"),
            size: content.len() as u64,
            modified_ms: None,
            executable: false,
            reference: Reference::Extents(extents),
            blake3: None,
        }
    }

    /// Publishes a channel of one collection. A private one is sealed with the identity's read key.
    ///
    /// # Panics
    /// Where the host has no identity, its store has no room, no channel can list `files`, or a private channel has no
    /// read key.
    pub fn publish(&mut self, id: HostId, title: &str, files: &[FileEntry], private: bool) {
        self.publish_via(id, title, files, private, Vec::new());
    }

    /// Like [`Self::publish`], through gateways.
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
        let items = files.iter().cloned().map(Item::File).collect();
        let manifest = Manifest {
            title: title.into(),
            description: String::new(),
            collections: vec![Collection { title: title.into(), items }],
            ..Manifest::default()
        };
        let content = HeadContent::of(&manifest, S::SHAPE, private, S::SHAPE == Shape::REAL, &mut press)
            .expect("the caller's files make a channel");
        let channel = identity.public_key();
        self.command(id, Command::Publish { channel, draft: Draft { content, read_key, gateways } });
    }

    /// Reads a file from a host's store; `None` while a blob is missing or does not open.
    pub fn read_file(&self, id: HostId, file: &FileEntry) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        self.read_blobs(id, file, |_, bytes| content.extend_from_slice(bytes))?;
        Some(content)
    }

    /// Reads a file's data blobs in order; `None` where one is missing or does not open.
    pub(crate) fn read_blobs(
        &self,
        id: HostId,
        file: &FileEntry,
        mut read: impl FnMut(BlobName, &[u8]),
    ) -> Option<()> {
        match &file.reference {
            Reference::Extents(extents) => {
                for extent in extents {
                    let Extent::Tree(tree) = extent else { return None };
                    self.read_tree(id, tree, &mut read)?;
                }
                Some(())
            }
            Reference::Symlink(_) | Reference::Folder => Some(()),
            Reference::Chunks(chunks) => {
                let store = self.store(id);
                for chunk in chunks {
                    // A plain v5 peer knows a native blob by its id alone.
                    let held = |name: BlobName| store.blob(&name).map(|blob| (name, blob));
                    let (name, mut blob) = held(chunk.name()).or_else(|| held(chunk.id.into()))?;
                    let range = chunk.open(&mut blob)?;
                    read(name, &blob[range]);
                }
                Some(())
            }
        }
    }

    fn read_tree(&self, id: HostId, tree: &TreeRef, mut read: impl FnMut(BlobName, &[u8])) -> Option<()> {
        let mut cursor = Cursor::whole(tree);
        loop {
            match cursor.step() {
                Step::Blob(node) if node.height > 0 => {}
                Step::Blob(node) => {
                    let mut names = self.pool.names_of(node.blob.root);
                    let open = |name| Some((name, self.store(id).open_as::<S>(name, &node.blob)?));
                    let (name, plain) = names.find_map(open)?;
                    read(name, &plain[node.part(&(0..tree.size))]);
                }
                Step::NeedsIndex(node) => {
                    let plain = self.store(id).open::<S>(&node.blob)?;
                    assert!(cursor.open(&node.blob.root, &plain), "a blob's plaintext has one length");
                }
                Step::End => return Some(()),
            }
        }
    }
}
