//! Pages as bytes: what each part of an item is, and in which form it may stand.

use megatorrent_core::limits::{EXTENTS_MAX, MAGNET_LEN_MAX, PAGE_LEN_MAX, PATH_LEN_MAX};
use serde_json::{Value, json};

use super::body_cbor::filled;
use super::{Cases, hex};

pub(super) fn cases(cases: &mut Cases) {
    file_cases(cases);
    link_cases(cases);
    order_cases(cases);
    slice_cases(cases);
    chunk_cases(cases);
    length_cases(cases);
    said_cases(cases);
}

/// CBOR of a page of one file: path `aaaa` and, with members left out or changed, further ones.
fn page(path: &str, members: &[&str]) -> Value {
    json!({ "cbor": format!("81{}", file(path, members)) })
}

fn file(path: &str, members: &[&str]) -> String {
    assert!(path.len() < 24 && members.len() < 23);
    let path = format!("01{:02x}{}", 0x60 + path.len(), hex(path.as_bytes()));
    format!("{:02x}{path}{}", 0xa1 + members.len(), members.concat())
}

fn reference(size: u64, depth: u8) -> String {
    format!("5849{size:016x}{depth:02x}{}", "77".repeat(64))
}

/// The member of extents with one tree.
fn tree_of(size: u64, depth: u8) -> String {
    format!("0581{}", reference(size, depth))
}

fn file_cases(cases: &mut Cases) {
    let (size, tree, hash) = ("0201", tree_of(1, 0), format!("0a5820{}", "99".repeat(32)));
    cases.accept("one file", "read-page", page("aaaa", &[size, &tree]));
    cases.accept("a file with its time", "read-page", page("aaaa", &[size, "031b0000018bcfe56800", &tree]));
    cases.accept("a file of the first millisecond", "read-page", page("aaaa", &[size, "0300", &tree]));
    cases.accept("a program", "read-page", page("aaaa", &[size, "04f5", &tree]));
    cases.accept(
        "a program, its time and its hash",
        "read-page",
        page("aaaa", &[size, "0307", "04f5", &tree, &hash]),
    );
    cases.accept(
        "a file with unknown members",
        "read-page",
        page("aaaa", &[size, &tree, "0780", "0bf6", "2000"]),
    );
    cases.accept("an empty file", "read-page", page("aaaa", &["0200"]));
    cases.accept("an empty file of an empty stream", "read-page", page("aaaa", &["0200", &tree_of(0, 0)]));
    let two = format!("0582{}{}", reference(1, 0), reference(1 << 20, 0));
    cases.accept("a file of two trees", "read-page", page("aaaa", &["021a00100001", &two]));
    for (name, input) in [
        ("a path that leaves the folder", page("../a", &[size, &tree])),
        ("an absolute path", page("/aaa", &[size, &tree])),
        ("a file without a path", json!({ "cbor": format!("81a2{size}{tree}") })),
        ("a file without a size", page("aaaa", &[&tree])),
        ("a file of a byte without a reference", page("aaaa", &[size])),
        (
            "a file with two references",
            page("aaaa", &[size, &tree, &format!("0681{}", chunk("00", "11", "01"))]),
        ),
        ("a tree of another size", page("aaaa", &[size, &tree_of(2, 0)])),
        ("a size that is not the sum of two trees", page("aaaa", &["021a00100002", &two])),
        ("a tree of needless depth", page("aaaa", &[size, &tree_of(1, 1)])),
        ("a tree of a byte more than 2^60", {
            let size = (1_u64 << 60) + 1;
            page("aaaa", &[&format!("021b{size:016x}"), &tree_of(size, 4)])
        }),
        ("trees whose sum needs more than 64 bits", {
            let list: Vec<String> = (0..16).map(|_| reference(1 << 60, 4)).collect();
            page("aaaa", &["0200", &format!("0590{}", list.concat())])
        }),
        ("a tree reference cut short", page("aaaa", &[size, "058141ff"])),
        ("a tree reference that is no list", page("aaaa", &[size, &format!("05{}", reference(1, 0))])),
        ("a tree reference that is a text", page("aaaa", &[size, &tree.replacen("5849", "7849", 1)])),
        ("no extent, not left out", page("aaaa", &["0200", "0580"])),
        ("no chunk, not left out", page("aaaa", &["0200", "0680"])),
        ("executable that is false", page("aaaa", &[size, "04f4", &tree])),
        ("executable that is 1", page("aaaa", &[size, "0401", &tree])),
        ("a time that is negative", page("aaaa", &[size, "0320", &tree])),
        ("a time that is a float", page("aaaa", &[size, "03f93c00", &tree])),
        ("a size that is a float", page("aaaa", &["02f93c00", &tree])),
        ("a hash of 31 bytes", page("aaaa", &[size, &tree, &format!("0a581f{}", "99".repeat(31))])),
        ("members that descend", page("aaaa", &[&tree, size])),
        ("an item that is a number", json!({ "cbor": "8107" })),
        ("a page that is a map", json!({ "cbor": "a0" })),
        ("an empty page", json!({ "cbor": "80" })),
        ("bytes after a page", json!({ "cbor": format!("81{}00", file("aaaa", &[size, &tree])) })),
    ] {
        cases.reject(name, "read-page", input, "malformed");
    }
}

/// Symlinks and empty folders, and what may not stand beside them.
fn link_cases(cases: &mut Cases) {
    let (target, folder) = ("08622e2e", "09f5");
    cases.accept("a symlink", "read-page", page("a/b", &[target]));
    cases.accept("a symlink with its time", "read-page", page("a/b", &["0307", target]));
    cases.accept("an empty folder", "read-page", page("a/b", &[folder]));
    cases.accept("an empty folder with its time", "read-page", page("a/b", &["0307", folder]));
    let hash = format!("0a5820{}", "99".repeat(32));
    let chunks = format!("0681{}", chunk("00", "11", "00"));
    let tree = tree_of(0, 0);
    for (kind, member) in [("a symlink", target), ("an empty folder", folder)] {
        for (name, before, behind) in [
            ("a size", Some("0200"), None),
            ("executable", Some("04f5"), None),
            ("extents", Some(&*tree), None),
            ("chunks", Some(&*chunks), None),
            ("a hash", None, Some(&*hash)),
        ] {
            let members: Vec<&str> = before.into_iter().chain([member]).chain(behind).collect();
            cases.reject(format!("{kind} with {name}"), "read-page", page("aaaa", &members), "malformed");
        }
    }
    for (name, members) in [
        ("a symlink that is an empty folder", &[target, folder][..]),
        ("a symlink to nothing", &["0860"][..]),
        ("a symlink whose target is bytes", &["08422e2e"][..]),
        ("an empty folder that is false", &["09f4"][..]),
    ] {
        cases.reject(name, "read-page", page("aaaa", members), "malformed");
    }
    let link = |length: usize| {
        let front = format!("81a20161610879{length:04x}");
        json!({ "cbor": filled(&front, "61", length) })
    };
    cases.accept("a target of 4096 bytes", "count-page", link(PATH_LEN_MAX));
    cases.reject("a target of 4097 bytes", "count-page", link(PATH_LEN_MAX + 1), "malformed");
}

fn order_cases(cases: &mut Cases) {
    let folders = |paths: &[&str]| {
        let all: Vec<String> = paths.iter().map(|path| file(path, &["09f5"])).collect();
        json!({ "cbor": format!("{:02x}{}", 0x80 + paths.len(), all.concat()) })
    };
    cases.accept(
        "paths in the order of their bytes",
        "read-page",
        folders(&["B", "a.txt", "a/b", "a0", "é"]),
    );
    cases.accept("paths that differ in case only", "read-page", folders(&["A", "a"]));
    cases.accept("paths that differ in normal form only", "read-page", folders(&["e\u{301}", "\u{e9}"]));
    for (name, paths) in [
        ("one path twice", &["a", "a"][..]),
        ("paths that descend", &["b", "a"][..]),
        ("paths in the order of their components", &["a", "a/b", "a.txt"][..]),
        ("a file where another needs a folder", &["a", "a/b"][..]),
        ("a file where another needs a folder, others between them", &["a", "a.txt", "a/b/c"][..]),
    ] {
        cases.reject(name, "read-page", folders(paths), "malformed");
    }
    let magnet = |uri: &str| format!("{:02x}{}", 0x60 + uri.len(), hex(uri.as_bytes()));
    let read = |items: &[String]| json!({ "cbor": format!("{:02x}{}", 0x80 + items.len(), items.concat()) });
    let (a, z) = (file("a", &["09f5"]), file("z", &["09f5"]));
    cases.accept(
        "a magnet between files",
        "read-page",
        read(&[a.clone(), magnet("magnet:?xt=urn:btih"), z.clone()]),
    );
    cases.accept("a magnet of nothing", "read-page", read(&[magnet("magnet:?")]));
    for (name, items) in [
        ("a magnet before a file", vec![magnet("magnet:?x"), a]),
        ("a magnet twice", vec![magnet("magnet:?x"), magnet("magnet:?x")]),
        ("a magnet and a file of one name", vec![magnet("magnet:?x"), file("magnet:?x", &["09f5"])]),
        ("an item that is no magnet", vec![magnet("a")]),
        ("a magnet in capitals", vec![magnet("MAGNET:?xt=urn:btih")]),
        ("a magnet with a line's end", vec![magnet("magnet:?xt=urn:btih\n")]),
    ] {
        cases.reject(name, "read-page", read(&items), "malformed");
    }
}

/// A slice as it stands in a page.
fn slice(pack: &str, offset: &str, length: &str) -> String {
    format!("84{pack}{offset}{length}5820{}", "88".repeat(32))
}

fn slice_cases(cases: &mut Cases) {
    let list = |size: &str, extents: &[String]| {
        page("aaaa", &[size, &format!("05{:02x}{}", 0x80 + extents.len(), extents.concat())])
    };
    let one = |offset: &str, length: &str| list(&format!("02{length}"), &[slice("07", offset, length)]);
    cases.accept("a slice of a byte", "read-page", one("00", "01"));
    cases.accept(
        "a slice of the highest pack",
        "read-page",
        list("0201", &[slice("1affffffff", "10", "01")]),
    );
    cases.accept("a slice of all of a pack", "read-page", one("00", "1a000ffff0"));
    cases.accept("a slice at a pack's end", "read-page", one("1a000fffe0", "10"));
    let mixed = [slice("07", "10", "05"), reference(1, 0), slice("07", "10", "05"), slice("00", "10", "02")];
    cases.accept("slices and a tree, one slice twice", "read-page", list("020d", &mixed));
    for (name, input) in [
        ("a slice of nothing", one("00", "00")),
        ("a slice that begins at 8", one("08", "01")),
        ("a slice of a byte more than a pack", one("00", "1a000ffff1")),
        ("a slice that leaves its pack", one("1a000fffe0", "11")),
        ("a slice in a pack's last bytes", one("1a000ffff0", "01")),
        ("a slice whose end needs more than 32 bits", one("1afffffff0", "1affffffff")),
        ("a slice of pack 2^32", list("0201", &[slice("1b0000000100000000", "00", "01")])),
        ("a slice at 2^32", one("1b0000000100000000", "01")),
        ("a size that is not the sum of slices and trees", list("020e", &mixed)),
        ("a slice of three fields", list("0201", &["83070001".to_owned()])),
        ("a slice of five fields", list("0201", &[format!("85{}00", &slice("07", "00", "01")[2..])])),
        ("a slice with a key of 31 bytes", list("0201", &[format!("84070001581f{}", "88".repeat(31))])),
        ("a slice whose pack is negative", list("0201", &[slice("20", "00", "01")])),
        ("an extent that is a map", list("0201", &["a0".to_owned()])),
        ("an extent that is a number", list("0201", &["01".to_owned()])),
    ] {
        cases.reject(name, "read-page", input, "malformed");
    }
    let many = |count: usize| {
        let front = format!("81a30161610219{count:04x}0599{count:04x}");
        let one = slice("07", "00", "01");
        json!({ "cbor": filled(&front, &one, count * one.len() / 2) })
    };
    cases.accept("4096 extents", "count-page", many(EXTENTS_MAX));
    cases.reject("4097 extents", "count-page", many(EXTENTS_MAX + 1), "malformed");
}

/// A chunk of a blob, as it stands in a page.
fn chunk(offset: &str, length: &str, real_size: &str) -> String {
    let (id, key, nonce) = ("33".repeat(32), "44".repeat(32), "55".repeat(12));
    format!("865820{id}{offset}{length}5820{key}4c{nonce}{real_size}")
}

fn chunk_cases(cases: &mut Cases) {
    let whole = "1a00100010";
    let list = |size: &str, chunks: &[String]| {
        page("aaaa", &[size, &format!("06{:02x}{}", 0x80 + chunks.len(), chunks.concat())])
    };
    cases.accept("a chunk list", "read-page", list("0205", &[chunk("00", whole, "05")]));
    let two = [chunk("00", whole, "1a00100000"), chunk("1830", "1828", "07")];
    cases.accept("a full chunk and one of a piece", "read-page", list("021a00100007", &two));
    cases.accept("a chunk without content", "read-page", list("0200", &[chunk("00", whole, "00")]));
    cases.accept("a chunk of a byte", "read-page", list("0201", &[chunk("00", "11", "01")]));
    cases.accept("a chunk at the blob's end", "read-page", list("0201", &[chunk("1a000fffff", "11", "01")]));
    for (name, input) in [
        ("a size above the sum of two chunks", list("021a00100008", &two)),
        ("a size above the sum of its chunks", list("0206", &[chunk("00", whole, "05")])),
        ("a chunk of a tag only", list("0200", &[chunk("00", "10", "00")])),
        ("a chunk that holds more than its piece", list("0202", &[chunk("00", "11", "02")])),
        ("a chunk that leaves its blob", list("0201", &[chunk("1a00100000", "11", "01")])),
        ("a chunk at 2^32", list("0201", &[chunk("1b0000000100000000", "11", "01")])),
        ("a chunk of seven fields", list("0205", &[format!("87{}00", &chunk("00", whole, "05")[2..])])),
        ("a chunk of five fields", list("0205", &[format!("85{}", &chunk("00", whole, "05")[2..])])),
        ("a chunk that is a map", list("0205", &[format!("a3{}", &chunk("00", whole, "05")[2..])])),
        ("a chunk whose id is a text", list("0205", &[chunk("00", whole, "05").replacen("5820", "7820", 1)])),
        ("a chunk whose offset is a float", list("0205", &[chunk("f90000", whole, "05")])),
        ("a chunk with a nonce of 11 bytes", {
            let short = chunk("00", whole, "05")
                .replace(&format!("4c{}", "55".repeat(12)), &format!("4b{}", "55".repeat(11)));
            list("0205", &[short])
        }),
        ("a chunk in an endless list", list("0205", &[format!("9f{}ff", &chunk("00", whole, "05")[2..])])),
    ] {
        cases.reject(name, "read-page", input, "malformed");
    }
}

fn length_cases(cases: &mut Cases) {
    let magnet = |length: usize| {
        let front = format!("8179{length:04x}{}", hex(b"magnet:?"));
        json!({ "cbor": filled(&front, "61", length - "magnet:?".len()) })
    };
    cases.accept("a magnet of 8192 bytes", "count-page", magnet(MAGNET_LEN_MAX));
    cases.reject("a magnet of 8193 bytes", "count-page", magnet(MAGNET_LEN_MAX + 1), "malformed");
    let skipped = |length: usize| {
        let front = format!("81a3016161020018645a{:08x}", length - 14);
        json!({ "cbor": filled(&front, "00", length - 14) })
    };
    cases.accept("a page's 256 KiB", "count-page", skipped(PAGE_LEN_MAX));
    cases.reject("a page's 256 KiB and a byte", "count-page", skipped(PAGE_LEN_MAX + 1), "malformed");
}

/// What the body says of a page.
fn said_cases(cases: &mut Cases) {
    let items = [
        file("a", &["0201", &tree_of(1, 0)]),
        file("b", &["021a00100001", &tree_of((1 << 20) + 1, 1)]),
        file("c", &["0201", &format!("0581{}", slice("07", "00", "01"))]),
        file("d", &["0201", &format!("0681{}", chunk("00", "11", "01"))]),
        file("e", &["09f5"]),
    ];
    let cbor = format!("85{}", items.concat());
    let page = |first: &str, items: u32, blobs: u64, packs: &[u32]| json!({ "cbor": cbor, "first": first, "items": items, "blobs": blobs, "packs": packs });
    // A tree of one blob, one of three, a slice that has none, a chunk.
    cases.accept("a page that is what the body says", "page", page("a", 5, 5, &[7]));
    cases.accept("packs that other pages need", "page", page("a", 5, 5, &[0, 7, 300]));
    for (name, input) in [
        ("a page that begins with another item", page("b", 5, 5, &[7])),
        ("a page with an item more than the body says", page("a", 4, 5, &[7])),
        ("a page with an item less than the body says", page("a", 6, 5, &[7])),
        ("a page with a blob more than the body says", page("a", 5, 4, &[7])),
        ("a page with a blob less than the body says", page("a", 5, 6, &[7])),
        ("a slice in a pack that the body does not have", page("a", 5, 5, &[8])),
    ] {
        cases.reject(name, "page", input, "malformed");
    }
}
