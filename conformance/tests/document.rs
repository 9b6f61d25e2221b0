//! What `docs/protocol.md` says in numbers and bytes is what core does.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use megatorrent_conformance::{Outcome, load};
use megatorrent_core::limits;

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
        HAVE_UNDER_WAY_MAX UNASKED_BYTES_PER_MINUTE UNASKED_BYTES_BURST UNASKED_MESSAGE_BYTES HAVE_POSITION_BYTES
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
