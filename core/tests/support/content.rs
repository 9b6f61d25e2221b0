//! Channels and their blobs.

use std::convert::Infallible;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobName, Secret};
use megatorrent_core::limits::PIECE_LEN_MAX;
use megatorrent_core::manifest::{
    Chunk, Collection, EntryPath, FileEntry, Head, HeadContent, Item, Manifest, Reference,
};
use megatorrent_core::node::Command;
use megatorrent_core::tree::TreeWriter;
use sha2::{Digest, Sha256};

use super::{Bench, UNIX, identity};

pub(crate) const SECRET: Secret = Secret::new([1; 32]);
/// The sequence of a [`Content`]'s head.
pub(crate) const SEQUENCE: u64 = 5;
/// A blob's length, in the type of ranges.
pub(crate) const BLOB_END: u32 = 1_048_592;
/// The longest piece.
pub(crate) const PIECE_MAX: u32 = 65_520;
const _: () = assert!(BLOB_END as usize == BLOB_LEN && PIECE_MAX as usize == PIECE_LEN_MAX);

/// A sealed blob of 1000 bytes of content, the rest filling.
pub(crate) fn sealed(fill: u8) -> (BlobRef, Vec<u8>) {
    let mut blob = vec![fill; BLOB_LEN];
    let link = blob::seal(&SECRET, &mut blob, 1000);
    (link, blob)
}

/// A head as a signed item.
pub(crate) fn item(author: &Identity, sequence: i64, content: &HeadContent) -> SignedItem {
    let text = Head::to_json(author, sequence.unsigned_abs(), UNIX.0, content, None);
    SignedItem::sign(author, sequence, text.into_bytes()).expect("it fits")
}

/// The head of a channel of one file with one chunk, as v5 reads it.
pub(crate) fn item_of(link: &BlobRef, sequence: i64) -> SignedItem {
    let file = file(1000, Reference::Chunks(vec![Chunk::from_ref(link, 1000)]));
    item(&identity(), sequence, &HeadContent::Inline(vec![file]))
}

fn file(size: u64, reference: Reference) -> Collection {
    let path = EntryPath::new("file").expect("valid");
    let file = FileEntry { path, size, modified_ms: None, executable: false, reference };
    Collection { title: String::new(), items: vec![Item::File(file)] }
}

/// A source of blobs for members.
pub(crate) trait Blobs {
    /// A blob's bytes.
    fn blob(&self, id: &BlobName) -> &[u8];
}

/// A channel of one file whose index a node has stored already: only data blobs are missing.
pub(crate) struct Content {
    pub(crate) channel: PublicKey,
    head: SignedItem,
    root: HeadContent,
    /// The body and the index blobs.
    index: Vec<(BlobName, Vec<u8>)>,
    pub(crate) data: Vec<(BlobName, Vec<u8>)>,
}

impl Content {
    pub(crate) fn new(author: &Identity, blobs: u8) -> Self {
        let data: Vec<(BlobName, Vec<u8>)> = (0..blobs).map(|n| data(author, n)).collect();
        let mut index = Vec::new();
        let mut store = |buffer: &mut [u8], len: usize| {
            let link = blob::seal(&SECRET, buffer, len);
            index.push((blob.root, buffer.to_vec()));
            Ok::<BlobRef, Infallible>(link)
        };
        let mut writer = TreeWriter::new();
        for (id, _) in &data {
            // No test opens them.
            let Ok(()) = writer.push(BlobRef { id: *id, key: SECRET }, &mut store);
        }
        let size = PLAIN_LEN as u64 * u64::from(blobs);
        let Ok(tree) = writer.finish(size, &mut store);
        let collections = vec![file(size, Reference::Tree(tree))];
        let mut body = Manifest { collections, ..Manifest::default() }.to_cbor();
        let len = body.len();
        body.resize(BLOB_LEN, 0);
        let mut writer = TreeWriter::new();
        let Ok(link) = store(&mut body, len);
        let Ok(()) = writer.push(link, &mut store);
        let Ok(root) = writer.finish(len as u64, &mut store);
        let root = HeadContent::Root(root);
        let head = item(author, SEQUENCE.cast_signed(), &root);
        Self { channel: author.public_key(), head, root, index, data }
    }

    /// The DHT has the head of another author's channel, which has the same content.
    pub(crate) fn publish_as(&self, bench: &mut Bench, author: &Identity) {
        let head = item(author, SEQUENCE.cast_signed(), &self.root);
        bench.world.heads.insert(author.public_key(), (head, 1));
    }

    /// Gives the DHT the channel's head, and the node its index.
    pub(crate) fn publish(&self, bench: &mut Bench) {
        bench.world.blobs.extend(self.index.iter().cloned());
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
        bench.world.blobs.extend(self.data.iter().cloned());
        self.follow(bench);
    }

    pub(crate) fn id(&self, n: usize) -> BlobName {
        self.data[n].0
    }

    /// Returns a data blob's position (`docs/protocol.md` §12).
    pub(crate) fn position(&self, n: usize) -> u32 {
        u32::try_from(self.index.len() + n).expect("few")
    }

    /// Returns which data blob has an id.
    pub(crate) fn number(&self, id: &BlobName) -> usize {
        self.data.iter().position(|(data, _)| data == id).expect("a blob of the channel")
    }

    /// Counts the data blobs that the node has stored unaltered.
    pub(crate) fn stored(&self, bench: &Bench) -> usize {
        self.data.iter().filter(|(id, blob)| bench.world.blobs.get(id) == Some(blob)).count()
    }
}

impl Blobs for Content {
    fn blob(&self, id: &BlobName) -> &[u8] {
        &self.data[self.number(id)].1
    }
}

/// A blob in which every eight bytes differ, so that misplaced ones are noticed.
pub(crate) fn data(author: &Identity, n: u8) -> (BlobName, Vec<u8>) {
    let [first, ..] = *author.public_key().as_bytes();
    let start = u64::from_be_bytes([first, n, 0, 0, 0, 0, 0, 0]);
    let blob: Vec<u8> = (0..BLOB_LEN as u64 / 8).flat_map(|word| (start + word).to_be_bytes()).collect();
    (BlobName(Sha256::digest(&blob).into()), blob)
}
