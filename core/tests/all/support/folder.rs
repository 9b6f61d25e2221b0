//! Channels of several files, none of whose blobs a node has at first. Each blob has a short name: `body`, `page`, the file's path
//! with a star for its index blob, and with a number for a data blob: `a*`, `a0`, `a1`.

use std::collections::BTreeSet;
use std::ops::Range;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BlobRef, PLAIN_LEN};
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobName, Root, Secret, Topic};
use megatorrent_core::manifest::{Chunk, Extent, FileEntry, Head, HeadContent, Item, Reference};
use megatorrent_core::node::{Command, FileRange, Priority, Selection, TargetStatus};
use megatorrent_core::parts::Mask;
use megatorrent_core::tree::TreeRef;
use megatorrent_core::uri;

use super::content::{BlobMap, Blobs, SECRET, Sealed, data, file, item};
use super::member::{self, Member};
use super::{Bench, UNIX, identity};

/// A file: its path, and the numbers of its data blobs. Files may have some in common.
pub(crate) type Spec<'a> = (&'a str, &'a [u8]);

/// One version of the channel of [`identity`].
pub(crate) struct Folder {
    pub(crate) channel: PublicKey,
    pub(crate) sequence: u64,
    content: HeadContent,
    /// By position.
    named: Vec<(String, BlobName)>,
    blobs: BlobMap,
}

impl Folder {
    /// Files that are trees.
    pub(crate) fn new(sequence: u64, files: &[Spec<'_>]) -> Self {
        Self::build(sequence, files, Builder::tree)
    }

    /// Files that are lists of v5 chunks.
    pub(crate) fn of_chunks(sequence: u64, files: &[Spec<'_>]) -> Self {
        Self::build(sequence, files, Builder::chunks)
    }

    /// Files that are trees of this many data blobs, which no peer has.
    pub(crate) fn of_many(sequence: u64, files: &[(&str, usize)]) -> Self {
        let mut builder = Builder::default();
        let mut items = Vec::new();
        for (n, (path, count)) in files.iter().enumerate() {
            let made_up = |i: usize| {
                let mut root = [0xEE; 32];
                root[..8].copy_from_slice(&(i as u64).to_be_bytes());
                root[8] = u8::try_from(n).expect("few");
                BlobRef { root: Root(root), key: SECRET }
            };
            let blobs: Vec<BlobRef> = (0..*count).map(made_up).collect();
            items.push(builder.tree(path, &blobs));
        }
        builder.finish(sequence, items)
    }

    /// Files that are trees; the index blob of one is not what the key that the manifest has for it gives.
    pub(crate) fn with_broken(sequence: u64, files: &[Spec<'_>], broken: &str) -> Self {
        Self::build(sequence, files, |builder, path, blobs| {
            let mut item = builder.tree(path, blobs);
            if let Item::File(FileEntry { reference: Reference::Extents(extents), .. }) = &mut item
                && let [Extent::Tree(tree)] = &mut extents[..]
                && path == broken
            {
                tree.blob.key = Secret::new([0xBB; 32]);
            }
            item
        })
    }

    fn build(
        sequence: u64,
        files: &[Spec<'_>],
        reference: impl Fn(&mut Builder, &str, &[BlobRef]) -> Item,
    ) -> Self {
        let mut builder = Builder::default();
        let mut items = Vec::new();
        for (path, numbers) in files {
            let blobs: Vec<(BlobRef, Vec<u8>)> = numbers.iter().map(|n| data(&identity(), *n)).collect();
            let links: Vec<BlobRef> = blobs.iter().map(|(link, _)| link.clone()).collect();
            builder.sealed.0.extend(blobs.into_iter().map(|(link, blob)| (link.root.into(), blob)));
            items.push(reference(&mut builder, path, &links));
        }
        builder.finish(sequence, items)
    }

    /// Adds the blobs of an earlier version for the peers that have this one.
    pub(crate) fn after(mut self, earlier: &Self) -> Self {
        self.blobs.extend(earlier.blobs.clone());
        self
    }

    pub(crate) fn head(&self) -> SignedItem {
        item(&identity(), self.sequence.cast_signed(), &self.content)
    }

    /// Its head as a document.
    pub(crate) fn document(&self) -> Vec<u8> {
        Head::to_json(&identity(), self.sequence, UNIX.0, &self.content, None).into_bytes()
    }

    pub(crate) fn topic(&self) -> Topic {
        uri::topic(&self.channel, None)
    }

    pub(crate) fn blobs(&self) -> &BlobMap {
        &self.blobs
    }

    // --- blobs by name --------------------------------------------------------------------------------------

    pub(crate) fn blob_name(&self, name: &str) -> BlobName {
        self.named[self.position(name) as usize].1
    }

    pub(crate) fn root(&self, name: &str) -> Root {
        self.blob_name(name).root().expect("it is native")
    }

    pub(crate) fn position(&self, name: &str) -> u32 {
        let at = self.named.iter().position(|(known, _)| known == name);
        u32::try_from(at.unwrap_or_else(|| panic!("no blob is called {name}"))).expect("few")
    }

    pub(crate) fn positions(&self, names: &[&str]) -> Vec<u32> {
        names.iter().map(|name| self.position(name)).collect()
    }

    /// The first name of a blob.
    pub(crate) fn name(&self, id: &BlobName) -> &str {
        let named = self.named.iter().find(|(_, known)| known == id);
        named.map_or("another channel's", |(name, _)| name)
    }

    /// The names of the blobs of which parts were asked for, in order, each once.
    pub(crate) fn names(&self, asked: &[(BlobName, Mask)]) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        asked.iter().filter(|(blob, _)| seen.insert(*blob)).map(|(blob, _)| self.name(blob)).collect()
    }

    /// The names of the blobs in the node's store, by position.
    pub(crate) fn stored(&self, bench: &Bench) -> Vec<&str> {
        let stored = self.named.iter().filter(|(_, id)| bench.world.store.blobs.contains_key(id));
        stored.map(|(name, _)| name.as_str()).collect()
    }

    // --- the node -------------------------------------------------------------------------------------------

    /// Gives the DHT the head.
    pub(crate) fn publish(&self, bench: &mut Bench) {
        bench.world.heads.insert(self.channel, (self.head(), 8));
    }

    /// A peer that has all of it.
    pub(crate) fn seed(&self, bench: &mut Bench, port: u16) -> Member {
        let mut seed = Member::join(bench, port, &[self.channel]);
        seed.version = self.sequence;
        seed.say_have(bench, member::all());
        seed
    }

    /// Gives the DHT the head, and lets the node look it up.
    pub(crate) fn follow(&self, bench: &mut Bench) {
        self.publish(bench);
        bench.command(Command::Follow { channel: self.channel, read_key: None });
        bench.sleep_until(bench.now);
    }

    /// Gives the node's store the blobs whose name fits.
    pub(crate) fn store(&self, bench: &mut Bench, fits: impl Fn(&str) -> bool) {
        let ids: BTreeSet<BlobName> =
            self.named.iter().filter(|(name, _)| fits(name)).map(|(_, id)| *id).collect();
        let blobs = self.blobs.iter().filter(|(id, _)| ids.contains(id));
        bench.world.store.blobs.extend(blobs.map(|(id, blob)| (*id, blob.clone())));
    }

    /// Gives the node's store the body, its page and all index blobs.
    pub(crate) fn store_index(&self, bench: &mut Bench) {
        self.store(bench, |name| name == "body" || name == "page" || name.ends_with('*'));
    }

    pub(crate) fn select(&self, bench: &mut Bench, selection: Selection) {
        bench.command(Command::Select { channel: self.channel, selection });
    }

    pub(crate) fn status(&self, bench: &Bench) -> TargetStatus {
        bench.node.channel_status(&self.channel).expect("it is followed")
    }

    /// Whether everything selected is stored, and whether everything is.
    pub(crate) fn extent(&self, bench: &Bench) -> (bool, bool) {
        let status = self.status(bench);
        (status.satisfied, status.complete)
    }
}

impl Blobs for Folder {
    fn blob(&self, id: &BlobName) -> &[u8] {
        self.blobs.get(id).unwrap_or_else(|| panic!("{} is nowhere", self.name(id)))
    }
}

/// Selects these files alone.
pub(crate) fn only(paths: &[&str]) -> Selection {
    let files = paths.iter().map(|path| ((*path).to_string(), Priority::Normal)).collect();
    Selection { others: Priority::Skip, files, ..Selection::default() }
}

/// Selects these blobs of a file, by their place in it.
pub(crate) fn range(path: &str, blobs: Range<u64>) -> FileRange {
    let bytes = blobs.start * PLAIN_LEN as u64..blobs.end * PLAIN_LEN as u64;
    FileRange { path: path.to_string(), bytes, deadline: None }
}

#[derive(Default)]
struct Builder {
    named: Vec<(String, BlobName)>,
    sealed: Sealed,
}

impl Builder {
    fn tree(&mut self, path: &str, blobs: &[BlobRef]) -> Item {
        let size = PLAIN_LEN as u64 * blobs.len() as u64;
        let tree = self.sealed.tree(blobs.iter().cloned(), size);
        assert!(tree.depth <= 1, "positions are those of trees of one level");
        let index = (tree.depth == 1).then(|| (format!("{path}*"), tree.blob.root.into()));
        self.named.extend(index);
        self.name_data(path, blobs.iter().map(|blob| blob.root.into()));
        file(path, size, tree.into())
    }

    fn chunks(&mut self, path: &str, blobs: &[BlobRef]) -> Item {
        let real_size = u32::try_from(PLAIN_LEN).expect("2^20");
        let mut chunks = Vec::new();
        for link in blobs {
            let blob = &self.sealed.0[&link.root.into()];
            let id = blob::id(blob);
            self.sealed.0.insert(id.into(), blob.clone());
            chunks.push(Chunk { root: None, ..Chunk::from_ref(link, id, real_size) });
        }
        self.name_data(path, chunks.iter().map(Chunk::name));
        file(path, PLAIN_LEN as u64 * blobs.len() as u64, Reference::Chunks(chunks))
    }

    fn name_data(&mut self, path: &str, blobs: impl Iterator<Item = BlobName>) {
        self.named.extend(blobs.enumerate().map(|(n, name)| (format!("{path}{n}"), name)));
    }

    fn finish(mut self, sequence: u64, items: Vec<Item>) -> Folder {
        let before: BTreeSet<BlobName> = self.sealed.0.keys().copied().collect();
        let body = self.sealed.body(items, false);
        let body_name = BlobName::Native(body.blob.root);
        let page = self.sealed.0.keys().find(|name| !before.contains(name) && **name != body_name);
        self.named.insert(0, ("body".to_string(), body_name));
        self.named.insert(1, ("page".to_string(), *page.expect("there is one page")));
        let Self { named, sealed: Sealed(blobs) } = self;
        let channel = identity().public_key();
        Folder { channel, sequence, content: HeadContent::Body(body), named, blobs }
    }
}

/// A tree of data blobs with these numbers, without a manifest: its reference, and its blobs.
pub(crate) fn tree(numbers: &[u8]) -> (TreeRef, BlobMap) {
    let mut sealed = Sealed::default();
    let blobs: Vec<(BlobRef, Vec<u8>)> = numbers.iter().map(|n| data(&identity(), *n)).collect();
    let size = PLAIN_LEN as u64 * blobs.len() as u64;
    let tree = sealed.tree(blobs.iter().map(|(link, _)| link.clone()), size);
    sealed.0.extend(blobs.into_iter().map(|(link, blob)| (link.root.into(), blob)));
    (tree, sealed.0)
}

/// The secret of a read key.
pub(crate) const READ_KEY: Secret = Secret::new([8; 32]);
