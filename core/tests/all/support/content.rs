//! Channels and their blobs.

use std::collections::BTreeMap;
use std::convert::Infallible;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, NONCE_LEN, PLAIN_LEN};
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret};
use megatorrent_core::manifest::{
    AuthorStore, Chunk, Collection, EntryPath, FileEntry, Head, HeadContent, Item, Manifest, Reference,
};
use megatorrent_core::node::Command;
use megatorrent_core::parts::{self, PART_LEN, PARTS};
use megatorrent_core::rng::Rng;
use megatorrent_core::tree::{Shape, TreeRef, TreeWriter};

use super::{Bench, UNIX, identity};

pub(crate) const SECRET: Secret = Secret::new([1; 32]);
/// The sequence of a [`Content`]'s head.
pub(crate) const SEQUENCE: u64 = 5;
/// Bytes of a whole blob's parts, in the type of rates.
pub(crate) const BLOB_BYTES: u64 = (PARTS * PART_LEN) as u64;

// --- single blobs -----------------------------------------------------------------------------------------------

/// Bytes of content in a single blob.
const SHORT: u32 = 1000;

/// A v5 blob of little content.
pub(crate) fn sealed(fill: u8) -> (Chunk, Vec<u8>) {
    let mut blob = vec![fill; BLOB_LEN];
    let nonce = [fill; NONCE_LEN];
    let id = blob::seal_v5(&SECRET, &nonce, &mut Rng::new([fill; 32]), &mut blob, SHORT as usize);
    let link = BlobRef { root: Root([0; 32]), key: SECRET };
    (Chunk { root: None, nonce, ..Chunk::from_ref(&link, id, SHORT) }, blob)
}

/// A native blob of little content, as a v5 reader would be told of it.
pub(crate) fn sealed_native(fill: u8) -> (Chunk, Vec<u8>) {
    let mut blob = vec![fill; BLOB_LEN];
    let link = blob::seal(&SECRET, &mut blob, SHORT as usize);
    (Chunk::from_ref(&link, blob::id(&blob), SHORT), blob)
}

/// A head as a signed item.
pub(crate) fn item(author: &Identity, sequence: i64, content: &HeadContent) -> SignedItem {
    let text = Head::to_json(author, sequence.unsigned_abs(), UNIX.0, content, None);
    SignedItem::sign(author, sequence, text.into_bytes()).expect("it fits")
}

/// The head of a channel of one file with one chunk, as v5 reads it.
pub(crate) fn item_of(chunk: &Chunk, sequence: i64) -> SignedItem {
    let file = file("file", u64::from(SHORT), Reference::Chunks(vec![chunk.clone()]));
    item(&identity(), sequence, &HeadContent::Inline(vec![collection(vec![file])]))
}

pub(crate) fn file(path: &str, size: u64, reference: Reference) -> Item {
    let path = EntryPath::new(path).expect("valid");
    Item::File(FileEntry { path, size, modified_ms: None, executable: false, reference, blake3: None })
}

pub(crate) fn collection(items: Vec<Item>) -> Collection {
    Collection { title: String::new(), items }
}

// --- an author's blobs ------------------------------------------------------------------------------------------

/// A source of blobs for members.
pub(crate) trait Blobs {
    /// A blob's bytes.
    fn blob(&self, name: &BlobName) -> &[u8];
}

pub(crate) type BlobMap = BTreeMap<BlobName, Vec<u8>>;

impl Blobs for BlobMap {
    fn blob(&self, name: &BlobName) -> &[u8] {
        &self[name]
    }
}

/// What an author has sealed.
#[derive(Default)]
pub(crate) struct Sealed(pub(crate) BlobMap);

impl Sealed {
    pub(crate) fn seal(&mut self, buf: &mut [u8], len: usize) -> BlobRef {
        let link = blob::seal(&SECRET, buf, len);
        self.0.insert(link.root.into(), buf.to_vec());
        link
    }

    /// A tree of data blobs.
    pub(crate) fn tree(&mut self, blobs: impl IntoIterator<Item = BlobRef>, size: u64) -> TreeRef {
        let mut store = |buf: &mut [u8], len: usize| Ok::<BlobRef, Infallible>(self.seal(buf, len));
        let mut writer = TreeWriter::new();
        for blob in blobs {
            let Ok(()) = writer.push(blob, &mut store);
        }
        let Ok(tree) = writer.finish(size, &mut store);
        tree
    }

    /// A body with these items in one collection.
    pub(crate) fn body(&mut self, items: Vec<Item>, with_ids: bool) -> TreeRef {
        let manifest = Manifest { collections: vec![collection(items)], ..Manifest::default() };
        manifest.store(Shape::REAL, with_ids, self).expect("readers take it")
    }
}

impl AuthorStore for Sealed {
    type Error = Infallible;

    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, Infallible> {
        let sealed = self.0.get(&blob.root.into()).cloned();
        Ok(sealed.map(|mut bytes| {
            parts::crypt(&blob.key, 0, &mut bytes);
            bytes
        }))
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, Infallible> {
        Ok(self.seal(buf, len))
    }

    fn id(&mut self, root: &Root) -> Result<Option<BlobId>, Infallible> {
        Ok(self.0.get(&(*root).into()).map(|bytes| blob::id(bytes)))
    }

    fn store_v5(&mut self, root: &Root, id: &BlobId) -> Result<(), Infallible> {
        let bytes = self.0.get(&(*root).into()).cloned();
        self.0.extend(bytes.map(|bytes| ((*id).into(), bytes)));
        Ok(())
    }
}

/// A data blob with this much content, in which every eight bytes differ.
pub(crate) fn data_of(author: &Identity, n: u8, len: usize) -> (BlobRef, Vec<u8>) {
    let [first, ..] = *author.public_key().as_bytes();
    let start = u64::from_be_bytes([first, n, 0, 0, 0, 0, 0, 0]);
    let mut blob: Vec<u8> = (0..BLOB_LEN as u64 / 8).flat_map(|word| (start + word).to_be_bytes()).collect();
    let link = blob::seal(&SECRET, &mut blob, len);
    (link, blob)
}

/// A full data blob.
pub(crate) fn data(author: &Identity, n: u8) -> (BlobRef, Vec<u8>) {
    data_of(author, n, PLAIN_LEN)
}

// --- a channel --------------------------------------------------------------------------------------------------

/// A channel of one file whose index a node has stored already: only data blobs are missing.
pub(crate) struct Content {
    pub(crate) channel: PublicKey,
    head: SignedItem,
    root: HeadContent,
    /// The body, its page and the index blobs.
    index: BlobMap,
    pub(crate) data: Vec<(BlobName, Vec<u8>)>,
}

impl Content {
    /// Its file fills this many blobs.
    pub(crate) fn new(author: &Identity, blobs: u8) -> Self {
        Self::of_len(author, usize::from(blobs) * PLAIN_LEN)
    }

    /// Its file has this many bytes.
    pub(crate) fn of_len(author: &Identity, len: usize) -> Self {
        let lens = (0..len.div_ceil(PLAIN_LEN)).map(|n| (len - n * PLAIN_LEN).min(PLAIN_LEN));
        let data: Vec<_> =
            lens.enumerate().map(|(n, len)| data_of(author, u8::try_from(n).expect("few"), len)).collect();
        let mut sealed = Sealed::default();
        let tree = sealed.tree(data.iter().map(|(link, _)| link.clone()), len as u64);
        let root = HeadContent::Body(sealed.body(vec![file("file", len as u64, tree.into())], false));
        let head = item(author, SEQUENCE.cast_signed(), &root);
        let data = data.into_iter().map(|(link, blob)| (link.root.into(), blob)).collect();
        Self { channel: author.public_key(), head, root, index: sealed.0, data }
    }

    /// The DHT has the head of another author's channel, which has the same content.
    pub(crate) fn publish_as(&self, bench: &mut Bench, author: &Identity) {
        let head = item(author, SEQUENCE.cast_signed(), &self.root);
        bench.world.heads.insert(author.public_key(), (head, 1));
    }

    /// Gives the DHT the channel's head, and the node its index.
    pub(crate) fn publish(&self, bench: &mut Bench) {
        bench.world.store.blobs.extend(self.index.clone());
        bench.world.heads.insert(self.channel, (self.head.clone(), 1));
    }

    /// Gives the node the channel's index, and no data.
    pub(crate) fn follow(&self, bench: &mut Bench) {
        self.publish(bench);
        bench.command(Command::Follow { channel: self.channel, read_key: None });
        bench.sleep_until(bench.now);
    }

    /// Gives the node all of the channel.
    pub(crate) fn seed(&self, bench: &mut Bench) {
        bench.world.store.blobs.extend(self.data.iter().cloned());
        self.follow(bench);
    }

    pub(crate) fn name(&self, n: usize) -> BlobName {
        self.data[n].0
    }

    pub(crate) fn root(&self, n: usize) -> Root {
        self.name(n).root().expect("it is native")
    }

    /// Returns a data blob's position (`docs/protocol.md` §12).
    pub(crate) fn position(&self, n: usize) -> u32 {
        u32::try_from(self.index.len() + n).expect("few")
    }

    /// Returns which data blob has a name.
    pub(crate) fn number(&self, name: &BlobName) -> usize {
        self.data.iter().position(|(data, _)| data == name).expect("a blob of the channel")
    }

    /// Bytes of a part.
    pub(crate) fn part(&self, n: usize, part: usize) -> &[u8] {
        &self.data[n].1[part * PART_LEN..][..PART_LEN]
    }

    /// Counts the data blobs that the node has stored unaltered.
    pub(crate) fn stored(&self, bench: &Bench) -> usize {
        self.data.iter().filter(|(name, blob)| bench.world.store.blobs.get(name) == Some(blob)).count()
    }
}

impl Blobs for Content {
    fn blob(&self, name: &BlobName) -> &[u8] {
        &self.data[self.number(name)].1
    }
}
