//! Channels of several files, none of whose blobs a node has at first. Each blob has a short name: `body`, the file's path with
//! a star for its index blob, and with a number for a data blob: `a*`, `a0`, `a1`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Range;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::codec::Have;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::ids::{BlobName, Secret, Topic};
use megatorrent_core::manifest::{
    Chunk, Collection, EntryPath, FileEntry, Head, HeadContent, Item, Manifest, Reference,
};
use megatorrent_core::node::{Command, FileRange, Priority, Selection, TargetStatus};
use megatorrent_core::tree::{TreeRef, TreeWriter};
use megatorrent_core::uri;

use super::content::{Blobs, SECRET, data, item};
use super::member::Member;
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
    blobs: BTreeMap<BlobName, Vec<u8>>,
}

impl Folder {
    /// Files that are trees.
    pub(crate) fn new(sequence: u64, files: &[Spec<'_>]) -> Self {
        Self::build(sequence, files, Builder::tree)
    }

    /// Files that are chunk lists.
    pub(crate) fn of_chunks(sequence: u64, files: &[Spec<'_>]) -> Self {
        Self::build(sequence, files, Builder::chunks)
    }

    /// Files that are trees of this many data blobs, which no peer has.
    pub(crate) fn of_many(sequence: u64, files: &[(&str, usize)]) -> Self {
        let mut builder = Builder::default();
        let mut items = Vec::new();
        for (n, (path, count)) in files.iter().enumerate() {
            let made_up = |i: usize| {
                let mut id = [0xEE; 32];
                id[..8].copy_from_slice(&(i as u64).to_be_bytes());
                id[8] = u8::try_from(n).expect("few");
                BlobName(id)
            };
            let ids: Vec<BlobName> = (0..*count).map(made_up).collect();
            items.push(builder.tree(path, &ids));
        }
        builder.finish(sequence, items)
    }

    /// Files that are trees; the index blob of one does not open under the key that the manifest has.
    pub(crate) fn with_broken(sequence: u64, files: &[Spec<'_>], broken: &str) -> Self {
        Self::build(sequence, files, |builder, path, ids| {
            let mut item = builder.tree(path, ids);
            if let Item::File(FileEntry { reference: Reference::Tree(tree), .. }) = &mut item
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
        reference: impl Fn(&mut Builder, &str, &[BlobName]) -> Item,
    ) -> Self {
        let mut builder = Builder::default();
        let mut items = Vec::new();
        for (path, numbers) in files {
            let blobs: Vec<(BlobName, Vec<u8>)> = numbers.iter().map(|n| data(&identity(), *n)).collect();
            let ids: Vec<BlobName> = blobs.iter().map(|(id, _)| *id).collect();
            builder.blobs.extend(blobs);
            items.push(reference(&mut builder, path, &ids));
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

    // --- blobs by name --------------------------------------------------------------------------------------

    pub(crate) fn id(&self, name: &str) -> BlobName {
        self.named[self.position(name) as usize].1
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

    /// The names of the blobs asked for, in order.
    pub(crate) fn names(&self, asked: &[(BlobName, Range<u32>)]) -> Vec<&str> {
        asked.iter().map(|(id, _)| self.name(id)).collect()
    }

    /// The names of the blobs in the node's store, by position.
    pub(crate) fn stored(&self, bench: &Bench) -> Vec<&str> {
        let stored = self.named.iter().filter(|(_, id)| bench.world.blobs.contains_key(id));
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
        seed.say_have(bench, Have::All);
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
        bench.world.blobs.extend(blobs.map(|(id, blob)| (*id, blob.clone())));
    }

    /// Gives the node's store the body and all index blobs.
    pub(crate) fn store_index(&self, bench: &mut Bench) {
        self.store(bench, |name| name == "body" || name.ends_with('*'));
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
    blobs: BTreeMap<BlobName, Vec<u8>>,
}

impl Builder {
    fn seal(&mut self, buffer: &mut [u8], len: usize) -> BlobRef {
        let link = blob::seal(&SECRET, buffer, len);
        self.blobs.insert(blob.root, buffer.to_vec());
        link
    }

    fn tree(&mut self, path: &str, ids: &[BlobName]) -> Item {
        let mut index = Vec::new();
        let mut store = |buffer: &mut [u8], len: usize| {
            let link = self.seal(buffer, len);
            index.push((format!("{path}*"), blob.root));
            Ok::<BlobRef, Infallible>(link)
        };
        let mut writer = TreeWriter::new();
        for id in ids {
            // No test opens them.
            let Ok(()) = writer.push(BlobRef { id: *id, key: SECRET }, &mut store);
        }
        let Ok(tree) = writer.finish(PLAIN_LEN as u64 * ids.len() as u64, &mut store);
        assert!(index.len() <= 1, "positions are those of trees of one level");
        self.named.extend(index);
        self.name_data(path, ids);
        file(path, tree.size, Reference::Tree(tree))
    }

    fn chunks(&mut self, path: &str, ids: &[BlobName]) -> Item {
        self.name_data(path, ids);
        let real_size = u32::try_from(PLAIN_LEN).expect("2^20");
        let chunk = |id: &BlobName| Chunk::from_ref(&BlobRef { id: *id, key: SECRET }, real_size);
        let size = PLAIN_LEN as u64 * ids.len() as u64;
        file(path, size, Reference::Chunks(ids.iter().map(chunk).collect()))
    }

    fn name_data(&mut self, path: &str, ids: &[BlobName]) {
        let named = ids.iter().enumerate().map(|(n, id)| (format!("{path}{n}"), *id));
        self.named.extend(named);
    }

    fn finish(mut self, sequence: u64, items: Vec<Item>) -> Folder {
        let collections = vec![Collection { title: String::new(), items }];
        let mut body = Manifest { collections, ..Manifest::default() }.to_cbor();
        let len = body.len();
        body.resize(BLOB_LEN, 0);
        let link = self.seal(&mut body, len);
        self.named.insert(0, ("body".to_string(), blob.root));
        let root = TreeRef::new(len as u64, 0, link).expect("one blob");
        let Self { named, blobs } = self;
        let channel = identity().public_key();
        Folder { channel, sequence, content: HeadContent::Root(root), named, blobs }
    }
}

fn file(path: &str, size: u64, reference: Reference) -> Item {
    let path = EntryPath::new(path).expect("valid");
    Item::File(FileEntry { path, size, modified_ms: None, executable: false, reference })
}

/// A tree of data blobs with these numbers, without a manifest: its reference, and its blobs.
pub(crate) fn tree(numbers: &[u8]) -> (TreeRef, BTreeMap<BlobName, Vec<u8>>) {
    let mut builder = Builder::default();
    let blobs: Vec<(BlobName, Vec<u8>)> = numbers.iter().map(|n| data(&identity(), *n)).collect();
    let ids: Vec<BlobName> = blobs.iter().map(|(id, _)| *id).collect();
    builder.blobs.extend(blobs);
    let Item::File(FileEntry { reference: Reference::Tree(tree), .. }) = builder.tree("tree", &ids) else {
        unreachable!("it is made of a tree")
    };
    (tree, builder.blobs)
}

impl Blobs for BTreeMap<BlobName, Vec<u8>> {
    fn blob(&self, id: &BlobName) -> &[u8] {
        &self[id]
    }
}

/// The secret of a read key.
pub(crate) const READ_KEY: Secret = Secret::new([8; 32]);
