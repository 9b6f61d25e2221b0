//! What `docs/protocol.md` says in numbers and bytes is what core does.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

use megatorrent_conformance::{Outcome, load};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef};
use megatorrent_core::codec::{Message, Want};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::limits;
use megatorrent_core::manifest::{
    Body, BodyCollection, EntryPath, Extent, FileEntry, Head, HeadContent, Item, Page, PageRef, Reference,
};
use megatorrent_core::parts::{Mask, Values};
use megatorrent_core::tree::TreeRef;

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).expect("it is there")
}

#[test]
fn the_example_of_a_blob_has_its_root_and_id() {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let file = load(vectors.as_ref(), "blob").expect("committed");
    let case =
        file.cases.iter().find(|case| case.name == "the example of docs/protocol.md").expect("it is there");
    let Outcome::Expect(blob) = &case.outcome else { panic!("it is refused") };
    let document = document();
    for name in ["root", "id"] {
        let hash = blob[name].as_str().expect("hex");
        assert!(document.contains(&format!("`{hash}`")), "{name}: {hash}");
    }
}

/// A limit as a number: of bytes or things, or milliseconds.
trait Limit {
    fn number(self) -> u128;
}

macro_rules! limits_of {
    ($($type:ty),*) => { $(impl Limit for $type { fn number(self) -> u128 { self.into() } })* };
}

limits_of!(u8, u32, u64);

impl Limit for usize {
    fn number(self) -> u128 {
        self as u128
    }
}

impl Limit for Duration {
    fn number(self) -> u128 {
        self.as_millis()
    }
}

macro_rules! limits {
    ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), limits::$name.number())),*]) };
}

/// `65 536`, `2^18`, `8 MiB`, `10 s`, …: of `at most 2 min` the last two words.
fn number(text: &str) -> u128 {
    if let Some(power) = text.strip_prefix("2^") {
        return 1 << power.parse::<u32>().expect("a power");
    }
    let units =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];
    let unit =
        units.iter().find(|(unit, _)| text.strip_suffix(unit).is_some_and(|front| front.ends_with(' ')));
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u128>().expect("a number") * unit.map_or(1, |(_, factor)| *factor)
}

#[test]
fn its_limits_are_those_of_core() {
    let known = limits!(
        CONTROL_LEN_MAX DATA_LEN_MAX PIECE_LEN_MAX WANTS_MAX HAVE_BLOBS_MAX HAVE_POSITIONS_MAX WATCH_PADDING WATCH_TAGS_MAX
        ANNOUNCE_HOPS_MAX PEERS_MAX GOSSIP_CHANNELS_MAX TEXT_LEN_MAX JSON_DEPTH_MAX CBOR_DEPTH_MAX ITEM_VALUE_LEN_MAX
        SEQUENCE_STEP_MAX SEQUENCE_SIGNED_MAX TREE_DEPTH_MAX BODY_LEN_MAX COLLECTIONS_MAX ITEMS_MAX CONTENT_BYTES_MAX
        PAGE_LEN_MAX PAGE_ITEMS_MAX PAGE_LEN_MIN PAGE_CUT EXTENTS_MAX PACKS_MAX TITLE_LEN_MAX DESCRIPTION_LEN_MAX
        MAGNET_LEN_MAX PATH_LEN_MAX NAME_LEN_MAX BOOTSTRAP_MAX HANDSHAKE_TIMEOUT HELLO_WAIT KEEP_ALIVE IDLE_TIMEOUT
        REQUESTS_QUEUED_MAX WINDOW_MAX PART_WINDOW_MAX HAVE_INTERVAL_MIN HAVE_INTERVAL_MAX HAVES_PER_MINUTE HAVES_BURST
        STALL_TIMEOUT STALL_BYTES_MIN SILENCE_MAX HAVE_UNDER_WAY_MAX UNASKED_BYTES_PER_MINUTE UNASKED_BYTES_BURST UNASKED_MESSAGE_BYTES HAVE_POSITION_BYTES
        ANNOUNCE_INTERVAL REPUT_INTERVAL FRESH_COPIES_MIN
    );
    let document = document();
    let (_, section) = document.split_once("## §15 Limits").expect("it has one");
    let (section, _) = section.split_once("\n## ").expect("others follow");
    let mut said = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names: Vec<&str> = cells[1].split(", ").map(|name| name.trim_matches('`')).collect();
        let values: Vec<&str> = cells[2].split(", ").collect();
        assert_eq!(names.len(), values.len(), "{row}");
        said.extend(names.into_iter().zip(values.into_iter().map(number)));
    }
    assert_eq!(said, known);
}

/// The text of the appendix, as it grows.
struct Appendix {
    identity: Identity,
    text: String,
}

impl Appendix {
    fn line(&mut self, name: &str, value: &str) {
        writeln!(self.text, "{name}: {value}").expect("a text takes all");
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        writeln!(self.text, "{name}, {} bytes", bytes.len()).expect("a text takes all");
        for line in bytes.chunks(64) {
            writeln!(self.text, "  {}", hex(line)).expect("a text takes all");
        }
    }

    /// Seals a content of one blob and says all of it; the stream's reference and the blob's values.
    fn blob(&mut self, name: &str, content: &[u8]) -> (TreeRef, [u8; 32], Values) {
        let mut blob = content.to_vec();
        blob.resize(BLOB_LEN, 0);
        let at: BlobRef = blob::seal(&self.identity.content_secret(), &mut blob, content.len());
        let (id, values) = (blob::id(&blob), Values::of(&blob));
        let tree = TreeRef::new(content.len() as u64, 0, at.clone()).expect("it fits a blob");
        self.bytes(&format!("{name}: content"), content);
        self.line("  key ", &hex(at.key.expose()));
        self.line("  root", &hex(&at.root.0));
        self.line("  id  ", &id.to_hex());
        self.bytes("  its first bytes", &blob[..64]);
        self.bytes("  its last bytes", &blob[BLOB_LEN - 64..]);
        self.bytes("  TreeRef", &*tree.to_bytes());
        (tree, id.0, values)
    }
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn small_channel() -> String {
    let seed: [u8; 32] = core::array::from_fn(|i| u8::try_from(i).expect("below 32"));
    let identity = Identity::new(&Secret::new(seed), None);
    let mut out = Appendix { identity, text: String::new() };
    let (key, secret) = (out.identity.public_key().to_string(), hex(out.identity.content_secret().expose()));
    out.line("public key", &key);
    out.line("content secret", &secret);
    let content = b"a short file";
    let (tree, file_id, values) = out.blob("position 2, the file", content);
    let root = tree.blob.root;
    let reference = Reference::Extents(vec![Extent::Tree(tree)]);
    let path = EntryPath::new("a").expect("a path");
    let size = content.len() as u64;
    let file = FileEntry { path, size, modified_ms: None, executable: false, reference, blake3: None };
    let page = Page { items: vec![Item::File(file)] };
    let (tree, page_id, _) = out.blob("position 1, the page", &page.to_cbor());
    let ids = [[0; 32], page_id, file_id].concat();
    let (ids, ..) = out.blob("position 3, the ids", &ids);
    let page = PageRef { tree, first: "a".into(), items: 1, blobs: 1 };
    let collections = vec![BodyCollection { title: String::new(), pages: vec![page] }];
    let body = Body { collections, ids: Some(ids), bytes: size, ..Body::default() };
    let (tree, ..) = out.blob("position 0, the body", &body.to_cbor());
    let now = 1_700_000_000_000;
    let head = Head::to_json(&out.identity, now, now, &HeadContent::Body(tree), None);
    out.line("head, and the item's v", &head);
    let item = SignedItem::sign(&out.identity, i64::try_from(now).expect("small"), head.into_bytes());
    out.bytes("the item's sig", &item.expect("it fits").signature);
    let want = Want { number: 0, root, mask: Mask(1), values: true, last_len: Some(4096) };
    out.bytes("WANT of the file's only bytes", &Message::Want(want).encode());
    out.bytes("PARTS in answer", &Message::Parts { number: 0, values: Box::new(values) }.encode());
    out.text
}

#[test]
fn its_small_channel_is_what_core_makes() {
    let (document, made) = (document(), small_channel());
    let (_, appendix) = document.split_once("## Appendix").expect("it has one");
    let said = appendix.split("```").nth(1).expect("a block").trim_start_matches("text\n");
    assert!(said == made, "the appendix is to be:\n{made}");
}

#[test]
fn a_program_that_shares_no_code_reads_its_small_channel() {
    let report = crate::support::python("appendix.py").output().expect("python3 runs");
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
}
