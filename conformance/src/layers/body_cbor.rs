//! Bodies as bytes: what each part of one is, in which form it may stand, and how long it may be.

use megatorrent_core::limits::{
    BODY_LEN_MAX, COLLECTIONS_MAX, DESCRIPTION_LEN_MAX, MAGNET_LEN_MAX, PAGE_ITEMS_MAX, PAGE_LEN_MAX,
    TITLE_LEN_MAX,
};
use serde_json::{Value, json};

use super::{Cases, hex, repeat};

pub(super) fn cases(cases: &mut Cases) {
    form_cases(cases);
    skipped_cases(cases);
    page_cases(cases);
    sum_cases(cases);
    pack_cases(cases);
    ids_cases(cases);
    length_cases(cases);
    join_cases(cases);
}

fn form_cases(cases: &mut Cases) {
    let read = |cbor: &str| json!({ "cbor": cbor });
    cases.accept("the shortest body", "read-body", read("a10002"));
    cases.accept("a title", "read-body", read("a20002016161"));
    cases.accept("an unknown key", "read-body", read("a200021864f6"));
    cases.accept("an unknown key with nested content", "read-body", read("a2000218648201a161616162"));
    cases.accept("an unknown negative key", "read-body", read("a2000220820102"));
    for (name, cbor) in [
        ("nothing", ""),
        ("no map", "80"),
        ("no format", "a0"),
        ("another format", "a10001"),
        ("a later format", "a10003"),
        ("format in two bytes", "a1001802"),
        ("a length that is not the shortest", "b8010002"),
        ("an indefinite map", "bf0002ff"),
        ("an indefinite text", "a20002017f6161ff"),
        ("a key twice", "a200020002"),
        ("keys that descend", "a20161610002"),
        ("a negative key before a positive one", "a22000 0002"),
        ("bytes after the end", "a1000200"),
        ("a map that ends early", "a20002"),
        ("a text that ends early", "a20002016261"),
        ("a text that is no UTF-8", "a200020161ff"),
        ("a title that is bytes", "a20002014161"),
        ("an empty title that is not left out", "a200020160"),
        ("an empty list that is not left out", "a200020380"),
        ("a text as key", "a20002616100"),
        ("a float in a longer form below an unknown key", "a200021864fb3ff8000000000000"),
        ("a list of 2^32 - 1", "a20002039affffffff"),
        ("a list of 2^64 - 1", "a20002039bffffffffffffffff"),
        ("a reserved head", "a200021864fc"),
    ] {
        cases.reject(name, "read-body", read(&cbor.replace(' ', "")), "malformed");
    }
    let deep = format!("a200021864{}00", "81".repeat(1000));
    cases.reject("nested 1000 deep", "read-body", read(&deep), "malformed");
    let length = usize::try_from(BODY_LEN_MAX + 1).expect("8 MiB");
    cases.reject("a byte more than 8 MiB", "read-body", json!({ "cbor": repeat("00", length) }), "too-large");
}

/// Values of unknown keys: they are skipped, but must be deterministic CBOR that does not nest too deep.
fn skipped_cases(cases: &mut Cases) {
    let skipped = |value: &str| json!({ "cbor": format!("a200021864{value}") });
    let lists = |count: usize, inner: &str| skipped(&("81".repeat(count) + inner));
    cases.accept("15 lists and a number", "read-body", lists(15, "07"));
    cases.reject("16 lists and a number", "read-body", lists(16, "07"), "malformed");
    cases.accept("16 lists, the last of them empty", "read-body", lists(15, "80"));
    cases.reject("17 lists, the last of them empty", "read-body", lists(16, "80"), "malformed");
    cases.accept("15 maps and a number", "read-body", skipped(&("a100".repeat(15) + "07")));
    cases.reject("16 maps and a number", "read-body", skipped(&("a100".repeat(16) + "07")), "malformed");
    cases.accept("15 tags and a number", "read-body", skipped(&("c1".repeat(15) + "07")));
    cases.reject("16 tags and a number", "read-body", skipped(&("c1".repeat(16) + "07")), "malformed");
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
        cases.accept(format!("skipped: {name}"), "read-body", skipped(&value.replace(' ', "")));
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
        cases.reject(format!("skipped: {name}"), "read-body", skipped(value), "malformed");
    }
}

/// A text of fewer than 2^16 bytes.
fn text(text: &str) -> String {
    let head = match text.len() {
        len @ 0..24 => format!("{:02x}", 0x60 + len),
        len @ 24..256 => format!("78{len:02x}"),
        len => format!("79{len:04x}"),
    };
    head + &hex(text.as_bytes())
}

fn reference(size: u64, depth: u8) -> String {
    format!("5849{size:016x}{depth:02x}{}", "77".repeat(64))
}

/// A page's reference in a body.
fn page(size: u64, first: &str, items: &str, blobs: &str) -> String {
    format!("84{}{}{items}{blobs}", reference(size, 0), text(first))
}

/// A body of one collection of these pages, with further members behind it.
fn body(pages: &[String], count: &str, members: &[&str]) -> Value {
    assert!(pages.len() < 24);
    let list = format!("{:02x}{}", 0x80 + pages.len(), pages.concat());
    let sums = format!("0b8200{count}");
    let head = 0xa3 + members.len();
    json!({ "cbor": format!("{head:02x}00020381a102{list}{}{sums}", members.concat()) })
}

fn page_cases(cases: &mut Cases) {
    let one = page(5, "a", "01", "00");
    let read = |pages: &[String], count: &str| body(pages, count, &[]);
    cases.accept("a page", "read-body", read(std::slice::from_ref(&one), "01"));
    cases.accept("two pages", "read-body", read(&[one.clone(), page(5, "b", "02", "07")], "03"));
    let longest = page(PAGE_LEN_MAX as u64, "a", "01", "00");
    cases.accept("a page of 256 KiB", "read-body", read(&[longest], "01"));
    let full = page(5, "a", "1a00010000", "00");
    cases.accept("a page of 65 536 items", "read-body", read(std::slice::from_ref(&full), "1a00010000"));
    let magnet = page(5, "magnet:?x", "01", "00");
    cases.accept("a page that begins with a magnet", "read-body", read(&[magnet], "01"));
    for (name, input) in [
        ("a page of a byte more than 256 KiB", read(&[page(PAGE_LEN_MAX as u64 + 1, "a", "01", "00")], "01")),
        ("a page without items", read(&[page(5, "a", "00", "00"), page(5, "b", "01", "00")], "01")),
        ("a page of 65 537 items", read(&[page(5, "a", "1a00010001", "00")], "1a00010001")),
        ("a page that begins with no name", read(&[page(5, "../a", "01", "00")], "01")),
        ("a page that begins with a nothing", read(&[page(5, "", "01", "00")], "01")),
        ("pages that descend", read(&[page(5, "b", "01", "00"), one.clone()], "02")),
        ("two pages with one first name", read(&[one.clone(), one.clone()], "02")),
        ("a page of three fields", read(&[format!("83{}{}01", reference(5, 0), text("a"))], "01")),
        ("a page of five fields", read(&[format!("85{}00", &one[2..])], "01")),
        ("a page whose depth is not its size's", read(&[one.replacen("000500", "000501", 1)], "01")),
        ("a page whose reference is a text", read(&[one.replacen("5849", "7849", 1)], "01")),
        ("a page whose number of items is 2^32", read(&[page(5, "a", "1b0000000100000000", "00")], "01")),
        ("a page whose blobs are a float", read(&[page(5, "a", "01", "f90000")], "01")),
        ("blobs that are more than 64 bits count", {
            let most = "1bffffffffffffffff";
            read(&[page(5, "a", "01", most), page(5, "b", "01", most)], "02")
        }),
        ("an empty list of pages that is not left out", json!({ "cbor": "a200020381a10280" })),
        ("an empty title of a collection that is not left out", json!({ "cbor": "a200020381a10160" })),
        ("a collection that is a list", json!({ "cbor": "a20002038180" })),
    ] {
        cases.reject(name, "read-body", input, "malformed");
    }
    cases.accept("a collection with neither title nor pages", "read-body", json!({ "cbor": "a200020381a0" }));
}

/// Key 11, and that it is there exactly where there is an item.
fn sum_cases(cases: &mut Cases) {
    let one = page(5, "a", "01", "00");
    let with = |sums: &str| {
        let head = if sums.is_empty() { "a2" } else { "a3" };
        json!({ "cbor": format!("{head}00020381a10281{one}{sums}") })
    };
    cases.accept("2^60 bytes", "read-body", with("0b821b100000000000000001"));
    for (name, input) in [
        ("more than 2^60 bytes", with("0b821b100000000000000101")),
        ("no sums", with("")),
        ("an item less than the pages have", with("0b820000")),
        ("an item more than the pages have", with("0b820002")),
        ("sums of one number", with("0b8101")),
        ("sums of three numbers", with("0b83000100")),
        ("sums that are negative", with("0b822001")),
        ("sums of nothing that are not left out", json!({ "cbor": "a200020b820000" })),
        ("items without a page", json!({ "cbor": "a200020b820001" })),
    ] {
        cases.reject(name, "read-body", input, "malformed");
    }
    let full = PAGE_ITEMS_MAX / 16 * 16;
    let pages: Vec<String> = (0..17_u8)
        .map(|n| page(5, &char::from(b'a' + n).to_string(), &format!("1a{full:08x}"), "00"))
        .collect();
    cases.accept("2^20 items", "count-body", body(&pages[..16], "1a00100000", &[]));
    let mut more = pages[..16].to_vec();
    more.push(page(5, "z", "01", "00"));
    cases.reject("2^20 items and one", "count-body", body(&more, "1a00100001", &[]), "malformed");
}

fn pack_cases(cases: &mut Cases) {
    let root = format!("5820{}", "66".repeat(32));
    let with = |table: &str| json!({ "cbor": format!("a2000204{table}") });
    cases.accept("a pack", "read-body", with(&format!("a107{root}")));
    cases.accept("two packs of one root", "read-body", with(&format!("a207{root}1818{root}")));
    cases.accept("the highest number of a pack", "read-body", with(&format!("a11affffffff{root}")));
    for (name, table) in [
        ("no pack, not left out", "a0".to_owned()),
        ("one pack's number twice", format!("a207{root}07{root}")),
        ("one pack's number in two forms", format!("a207{root}1807{root}")),
        ("packs that descend", format!("a208{root}07{root}")),
        ("a pack of number 2^32", format!("a11b0000000100000000{root}")),
        ("a pack of a negative number", format!("a120{root}")),
        ("a pack whose number is a text", format!("a16137{root}")),
        ("a pack whose root has 31 bytes", format!("a107581f{}", "66".repeat(31))),
        ("a pack whose root is a text", format!("a1077820{}", "66".repeat(32))),
        ("packs that are a list", format!("81{root}")),
    ] {
        cases.reject(name, "read-body", with(&table), "malformed");
    }
    let reserved = json!({ "cbor": "a40002 0580 0700 0c07".replace(' ', "") });
    cases.accept("reserved keys are read over", "read-body", reserved);
}

fn ids_cases(cases: &mut Cases) {
    let root = format!("5820{}", "66".repeat(32));
    let pages = [page(5, "a", "01", "05"), page(5, "b", "01", "00")];
    let with = |blobs: u64| {
        let (packs, ids) = (format!("04a107{root}"), format!("06{}", reference(32 * blobs, 0)));
        body(&pages, "02", &[&packs, &ids])
    };
    // The body's blob, the pack, two pages, five blobs of items.
    cases.accept("an id for each blob", "read-body", with(9));
    cases.reject("an id too few", "read-body", with(8), "malformed");
    cases.reject("an id too many", "read-body", with(10), "malformed");
    let ids = |cbor: &str| json!({ "cbor": format!("a2000206{cbor}") });
    cases.accept("the id of the body alone", "read-body", ids(&reference(32, 0)));
    cases.reject("ids of 31 bytes", "read-body", ids(&reference(31, 0)), "malformed");
    cases.reject("ids of needless depth", "read-body", ids(&reference(32, 1)), "malformed");
}

/// Bytes of these in front and `filler`, again and again, behind them, which takes `length` bytes.
pub(super) fn filled(front: &str, filler: &str, length: usize) -> Value {
    let at = front.len() / 2;
    // The pattern is cut where the front ends, so that it begins anew behind it.
    let cut = filler.len() - (2 * at) % filler.len();
    let filler = format!("{}{}", &filler[cut..], &filler[..cut]);
    json!({ "patch": repeat(&filler, at + length), "at": 0, "with": front })
}

fn length_cases(cases: &mut Cases) {
    let body = |cbor: Value| json!({ "cbor": cbor });
    let title = |length: usize| body(filled(&format!("a200020179{length:04x}"), "61", length));
    cases.accept("a title of 1024 bytes", "count-body", title(TITLE_LEN_MAX));
    cases.reject("a title of 1025 bytes", "count-body", title(TITLE_LEN_MAX + 1), "malformed");
    let title = |length: usize| body(filled(&format!("a200020381a10179{length:04x}"), "61", length));
    cases.accept("a collection's title of 1024 bytes", "count-body", title(TITLE_LEN_MAX));
    cases.reject("a collection's title of 1025 bytes", "count-body", title(TITLE_LEN_MAX + 1), "malformed");
    let description = |length: usize| body(filled(&format!("a20002027a{length:08x}"), "61", length));
    cases.accept("a description of 64 KiB", "count-body", description(DESCRIPTION_LEN_MAX));
    cases.reject(
        "a description of a byte more",
        "count-body",
        description(DESCRIPTION_LEN_MAX + 1),
        "malformed",
    );
    let first = |length: usize| {
        let name = format!("magnet:?{}", "a".repeat(length - "magnet:?".len()));
        let page = page(5, &name, "01", "00");
        body(format!("a300020381a10281{page}0b820001").into())
    };
    cases.accept("a first name of 8192 bytes", "count-body", first(MAGNET_LEN_MAX));
    cases.reject("a first name of 8193 bytes", "count-body", first(MAGNET_LEN_MAX + 1), "malformed");
    let length = usize::try_from(BODY_LEN_MAX).expect("8 MiB");
    let skipped =
        |length: usize| body(filled(&format!("a2000218645a{:08x}", length - 10), "00", length - 10));
    cases.accept("a body of 8 MiB", "count-body", skipped(length));
    cases.reject("a body of 8 MiB and a byte", "count-body", skipped(length + 1), "too-large");
    let collections = |count: usize| body(filled(&format!("a200020399{count:04x}"), "a0", count));
    cases.accept("10 000 collections", "count-body", collections(COLLECTIONS_MAX));
    cases.reject("10 001 collections", "count-body", collections(COLLECTIONS_MAX + 1), "malformed");
}

/// A body and its pages: the sums that only both together tell.
fn join_cases(cases: &mut Cases) {
    let root = format!("5820{}", "66".repeat(32));
    let file = |name: &str| format!("a301{}02050581{}", text(name), reference(5, 0));
    let slice = |pack: u8| format!("a30161730201058184{pack:02x}00015820{}", "88".repeat(32));
    let pages = [format!("82{}{}", file("a"), file("b")), format!("82{}{}", file("c"), slice(7))];
    let length = |page: &String| page.len() as u64 / 2;
    let whole = |bytes: &str, packs: &str, second: &str| {
        let refs = [page(length(&pages[0]), "a", "02", "02"), page(length(&pages[1]), "c", "02", second)];
        let sums = format!("0b82{bytes}04");
        let body = format!("a400020381a10282{}04{packs}{sums}", refs.concat());
        json!({ "body": body, "pages": pages })
    };
    let packs = format!("a107{root}");
    cases.accept("a body and two pages", "join", whole("10", &packs, "01"));
    for (name, input) in [
        ("a byte more than the files have", whole("11", &packs, "01")),
        ("a byte less than the files have", whole("0f", &packs, "01")),
        ("a pack that no slice is in", whole("10", &format!("a207{root}08{root}"), "01")),
        ("a slice in a pack that there is not", whole("10", &format!("a108{root}"), "01")),
        ("a blob more than a page's items have", whole("10", &packs, "02")),
    ] {
        cases.reject(name, "join", input, "malformed");
    }
}
