//! Bodies as bytes: what each part of one is, in which form it may stand, and how long it may be.

use megatorrent_core::limits::{
    BODY_LEN_MAX, COLLECTIONS_MAX, DESCRIPTION_LEN_MAX, ITEMS_MAX, MAGNET_LEN_MAX, TITLE_LEN_MAX,
};
use serde_json::{Value, json};

use super::body::{file_body, tree_of};
use super::{Cases, hex, repeat};

pub(super) fn cases(cases: &mut Cases) {
    form_cases(cases);
    skipped_cases(cases);
    part_cases(cases);
    chunk_cases(cases);
    length_cases(cases);
    count_cases(cases);
}

fn form_cases(cases: &mut Cases) {
    let read = |cbor: &str| json!({ "cbor": cbor });
    cases.accept("the shortest body", "read", read("a10001"));
    cases.accept("a title", "read", read("a20001016161"));
    cases.accept("an unknown key", "read", read("a200011864f6"));
    cases.accept("an unknown key with nested content", "read", read("a2000118648201a161616162"));
    cases.accept("an unknown negative key", "read", read("a2000120820102"));
    for (name, cbor) in [
        ("nothing", ""),
        ("no map", "80"),
        ("no format", "a0"),
        ("another format", "a10002"),
        ("format in two bytes", "a1001801"),
        ("a length that is not the shortest", "b8010001"),
        ("an indefinite map", "bf0001ff"),
        ("an indefinite text", "a20001017f6161ff"),
        ("a key twice", "a200010001"),
        ("keys that descend", "a20161610001"),
        ("a negative key before a positive one", "a22000 0001"),
        ("bytes after the end", "a1000100"),
        ("a map that ends early", "a20001"),
        ("a text that ends early", "a20001016261"),
        ("a text that is no UTF-8", "a200010161ff"),
        ("a title that is bytes", "a20001014161"),
        ("an empty title that is not left out", "a200010160"),
        ("an empty list that is not left out", "a200010380"),
        ("a text as key", "a20001616100"),
        ("a float in a longer form below an unknown key", "a200011864fb3ff8000000000000"),
        ("a list of 2^32 - 1", "a20001039affffffff"),
        ("a list of 2^64 - 1", "a20001039bffffffffffffffff"),
        ("a reserved head", "a200011864fc"),
    ] {
        cases.reject(name, "read", read(&cbor.replace(' ', "")), "malformed");
    }
    let deep = format!("a200011864{}00", "81".repeat(1000));
    cases.reject("nested 1000 deep", "read", read(&deep), "malformed");
    let length = usize::try_from(BODY_LEN_MAX + 1).expect("8 MiB");
    cases.reject("a byte more than 8 MiB", "read", json!({ "cbor": repeat("00", length) }), "too-large");
}

/// Values of unknown keys: they are skipped, but must be deterministic CBOR that does not nest too deep.
fn skipped_cases(cases: &mut Cases) {
    let skipped = |value: &str| json!({ "cbor": format!("a200011864{value}") });
    let lists = |count: usize, inner: &str| skipped(&("81".repeat(count) + inner));
    cases.accept("15 lists and a number", "read", lists(15, "07"));
    cases.reject("16 lists and a number", "read", lists(16, "07"), "malformed");
    cases.accept("16 lists, the last of them empty", "read", lists(15, "80"));
    cases.reject("17 lists, the last of them empty", "read", lists(16, "80"), "malformed");
    cases.accept("15 maps and a number", "read", skipped(&("a100".repeat(15) + "07")));
    cases.reject("16 maps and a number", "read", skipped(&("a100".repeat(16) + "07")), "malformed");
    cases.accept("15 tags and a number", "read", skipped(&("c1".repeat(15) + "07")));
    cases.reject("16 tags and a number", "read", skipped(&("c1".repeat(16) + "07")), "malformed");
    for (name, value) in [
        ("the usual not-a-number", "f97e00"),
        ("a not-a-number with a payload that two bytes hold", "f97e01"),
        ("a not-a-number with its sign", "f9fe00"),
        ("a not-a-number with a payload that needs four bytes", "fa7fc00001"),
        ("a not-a-number with a payload that needs eight bytes", "fb7ff8000000000001"),
        ("infinity", "f97c00"),
        ("minus zero", "f98000"),
        ("a float that needs four bytes", "fa3f800001"),
        ("a float that needs eight bytes", "fb3ff0000000000001"),
        ("an integer as a float", "f93c00"),
        ("the least number below zero", "3bffffffffffffffff"),
        ("undefined", "f7"),
        ("simple value 0", "e0"),
        ("simple value 19", "f3"),
        ("simple value 32", "f820"),
        ("simple value 255", "f8ff"),
        ("bytes", "43010203"),
        ("a tag of two bytes", "d81800"),
        ("a map whose keys are of several types", "a500f5200161610280 03f404"),
    ] {
        cases.accept(format!("skipped: {name}"), "read", skipped(&value.replace(' ', "")));
    }
    for (name, value) in [
        ("the usual not-a-number in four bytes", "fa7fc00000"),
        ("the usual not-a-number in eight bytes", "fb7ff8000000000000"),
        ("infinity in four bytes", "fa7f800000"),
        ("one in four bytes", "fa3f800000"),
        ("minus zero in eight bytes", "fb8000000000000000"),
        ("false in two bytes", "f814"),
        ("simple value 0 in two bytes", "f800"),
        ("simple value 24", "f818"),
        ("simple value 31", "f81f"),
        ("a break", "ff"),
        ("a list that never ends", "9f00ff"),
        ("bytes that never end", "5f4100ff"),
        ("a tag in a longer form", "d80500"),
        ("a text that is no UTF-8", "61ff"),
        ("bytes that end early", "4401"),
        ("a map whose keys descend", "a201000000"),
        ("a map with a key twice", "a200000001"),
    ] {
        cases.reject(format!("skipped: {name}"), "read", skipped(value), "malformed");
    }
}

/// Each part of a body, read and not only written.
fn part_cases(cases: &mut Cases) {
    let (size, tree) = ("0201", tree_of(1, 0));
    let magnet = hex(b"magnet:?xt=urn:btih:0");
    let read = |cbor: String| json!({ "cbor": cbor });
    cases.accept("a description", "read", read(format!("a200010269{}", hex("two\nlines".as_bytes()))));
    cases.accept("a title and a description", "read", read("a3000101616102 6162".replace(' ', "")));
    cases.accept("a magnet", "read", read(format!("a200010381a1028175{magnet}")));
    cases.accept(
        "a titled collection",
        "read",
        read(format!("a200010381a201615402 8175{magnet}").replace(' ', "")),
    );
    cases.accept("a collection with neither title nor items", "read", read("a200010381a0".into()));
    cases.accept("a file with its time", "read", file_body("aaaa", &[size, "031b0000018bcfe56800", &tree]));
    cases.accept("a file of the first millisecond", "read", file_body("aaaa", &[size, "0300", &tree]));
    cases.accept("a program", "read", file_body("aaaa", &[size, "04f5", &tree]));
    cases.accept("a program and its time", "read", file_body("aaaa", &[size, "0307", "04f5", &tree]));
    cases.accept("a file with an unknown member", "read", file_body("aaaa", &[size, &tree, "0780"]));
    cases.accept("an empty file", "read", file_body("aaaa", &["0200", &tree_of(0, 0)]));
    for (name, input) in [
        ("a time that is negative", file_body("aaaa", &[size, "0320", &tree])),
        ("a time that is a float", file_body("aaaa", &[size, "03f93c00", &tree])),
        ("executable that is 1", file_body("aaaa", &[size, "0401", &tree])),
        ("a size that is a float", file_body("aaaa", &["02f93c00", &tree])),
        ("a tree reference that is a text", file_body("aaaa", &[size, &tree.replacen("0558", "0578", 1)])),
        ("a tree of a byte more than 2^62", {
            let size = (1_u64 << 62) + 1;
            file_body("aaaa", &[&format!("021b{size:016x}"), &tree_of(size, 3)])
        }),
        ("a file with the references in the wrong order", file_body("aaaa", &[size, "0680", &tree])),
        ("an empty list of items that is not left out", read("a200010381a10280".into())),
        ("an empty title of a collection that is not left out", read("a200010381a10160".into())),
        ("a collection that is a list", read("a20001038180".into())),
        ("a magnet in capitals", read(format!("a200010381a1028175{}", hex(b"MAGNET:?xt=urn:btih:0")))),
        ("a magnet with a line's end", read(format!("a200010381a1028175{}", hex(b"magnet:?xt=urn:btih:\n")))),
    ] {
        cases.reject(name, "read", input, "malformed");
    }
    cases.accept("a magnet of nothing", "read", read(format!("a200010381a1028168{}", hex(b"magnet:?"))));
    cases.accept("paths that differ in case only", "read", two_paths("a", "A"));
    cases.accept("paths that differ in normal form only", "read", two_paths("\u{e9}", "e\u{301}"));
    cases.reject("a folder after the file of its name", "read", two_paths("a/b", "a"), "malformed");
}

/// A body of two files of a byte.
fn two_paths(first: &str, second: &str) -> Value {
    let file =
        |path: &str| format!("a301{:02x}{}0201{}", 0x60 + path.len(), hex(path.as_bytes()), tree_of(1, 0));
    json!({ "cbor": format!("a200010381a10282{}{}", file(first), file(second)) })
}

/// A chunk of a blob, as it stands in a body.
fn chunk(offset: &str, length: &str, real_size: &str) -> String {
    let (id, key, nonce) = ("33".repeat(32), "44".repeat(32), "55".repeat(12));
    format!("865820{id}{offset}{length}5820{key}4c{nonce}{real_size}")
}

fn chunk_cases(cases: &mut Cases) {
    let whole = "1a00100010";
    let list = |size: &str, chunks: &[String]| {
        file_body("aaaa", &[size, &format!("06{:02x}{}", 0x80 + chunks.len(), chunks.concat())])
    };
    cases.accept("a chunk list", "read", list("0205", &[chunk("00", whole, "05")]));
    let two = [chunk("00", whole, "1a00100000"), chunk("1830", "1828", "07")];
    cases.accept("a full chunk and a slice", "read", list("021a00100007", &two));
    cases.accept("an empty chunk list", "read", list("0200", &[]));
    cases.accept("a chunk without content", "read", list("0200", &[chunk("00", whole, "00")]));
    cases.accept("a slice of a byte", "read", list("0201", &[chunk("00", "11", "01")]));
    cases.accept("a slice at the blob's end", "read", list("0201", &[chunk("1a000fffff", "11", "01")]));
    for (name, input) in [
        ("a size below the sum of its chunks", list("0206", &two)),
        ("a size above the sum of its chunks", list("0206", &[chunk("00", whole, "05")])),
        ("a size and no chunk", list("0201", &[])),
        ("a slice of a tag only", list("0200", &[chunk("00", "10", "00")])),
        ("a slice that holds more than its piece", list("0202", &[chunk("00", "11", "02")])),
        ("a slice that leaves its blob", list("0201", &[chunk("1a00100000", "11", "01")])),
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
        cases.reject(name, "read", input, "malformed");
    }
}

/// A body of these bytes in front and `filler`, again and again, behind them, which takes `length` bytes.
fn filled(front: &str, filler: &str, length: usize) -> Value {
    let at = front.len() / 2;
    // The pattern is cut where the front ends, so that it begins anew behind it.
    let cut = filler.len() - (2 * at) % filler.len();
    let filler = format!("{}{}", &filler[cut..], &filler[..cut]);
    json!({ "patch": repeat(&filler, at + length), "at": 0, "with": front })
}

fn length_cases(cases: &mut Cases) {
    let body = |cbor: Value| json!({ "cbor": cbor });
    let title = |length: usize| body(filled(&format!("a200010179{length:04x}"), "61", length));
    cases.accept("a title of 1024 bytes", "count", title(TITLE_LEN_MAX));
    cases.reject("a title of 1025 bytes", "count", title(TITLE_LEN_MAX + 1), "malformed");
    let title = |length: usize| body(filled(&format!("a200010381a10179{length:04x}"), "61", length));
    cases.accept("a collection's title of 1024 bytes", "count", title(TITLE_LEN_MAX));
    cases.reject("a collection's title of 1025 bytes", "count", title(TITLE_LEN_MAX + 1), "malformed");
    let description = |length: usize| body(filled(&format!("a20001027a{length:08x}"), "61", length));
    cases.accept("a description of 64 KiB", "count", description(DESCRIPTION_LEN_MAX));
    cases.reject("a description of a byte more", "count", description(DESCRIPTION_LEN_MAX + 1), "malformed");
    let magnet = |length: usize| {
        let front = format!("a200010381a1028179{length:04x}{}", hex(b"magnet:?"));
        body(filled(&front, "61", length - "magnet:?".len()))
    };
    cases.accept("a magnet of 8192 bytes", "count", magnet(MAGNET_LEN_MAX));
    cases.reject("a magnet of 8193 bytes", "count", magnet(MAGNET_LEN_MAX + 1), "malformed");
    let length = usize::try_from(BODY_LEN_MAX).expect("8 MiB");
    let skipped =
        |length: usize| body(filled(&format!("a2000118645a{:08x}", length - 10), "00", length - 10));
    cases.accept("a body of 8 MiB", "count", skipped(length));
    cases.reject("a body of 8 MiB and a byte", "count", skipped(length + 1), "too-large");
}

fn count_cases(cases: &mut Cases) {
    let body = |cbor: Value| json!({ "cbor": cbor });
    let collections = |count: usize| body(filled(&format!("a200010399{count:04x}"), "a0", count));
    cases.accept("10 000 collections", "count", collections(COLLECTIONS_MAX));
    cases.reject("10 001 collections", "count", collections(COLLECTIONS_MAX + 1), "malformed");
    let magnet = format!("68{}", hex(b"magnet:?"));
    let one = |count: usize| body(filled(&format!("a200010381a1029a{count:08x}"), &magnet, 9 * count));
    cases.accept("100 000 items", "count", one(ITEMS_MAX));
    cases.reject("100 001 items", "count", one(ITEMS_MAX + 1), "malformed");
    // The second collection's head takes as many bytes as a magnet.
    let (half, first) = (ITEMS_MAX / 2, "a200010382a10299c350");
    let two = |count: usize| {
        let all = filled(first, &magnet, 9 * (half + 1 + count));
        body(
            json!({ "patch": all, "at": first.len() / 2 + 9 * half, "with": format!("a2016261610299{count:04x}") }),
        )
    };
    cases.accept("100 000 items in two collections", "count", two(half));
    cases.reject("100 001 items in two collections", "count", two(half + 1), "malformed");
}
