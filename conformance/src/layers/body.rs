//! File entries, paths, and the body in deterministic CBOR.

use megatorrent_core::manifest::{BodyError, EntryPath, HeadError, Manifest, Reference, entry};
use serde_json::{Value, json};

use super::content::{chunk_entry, collections, describe, tree_entry};
use super::{Cases, Fault, Input, Layer, hex, parse_error};
use crate::value::no_such_op;

pub(super) const LAYER: Layer = Layer {
    name: "body",
    about: "write: title, description, collections -> CBOR. read: cbor -> the same, and how it is written again; refused \
            (malformed, too-large). count: cbor -> how many collections, items and chunks it has; refused like read. entry: a file entry's JSON text -> how it is written; refused (malformed). path: text -> \
            true; refused (path).",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "write" => {
            let (title, description) = (input.text("title")?.into(), input.text("description")?.into());
            let manifest = Manifest { title, description, collections: collections(input)? };
            manifest.check().map_err(body_error)?;
            Ok(hex(&manifest.to_cbor()).into())
        }
        "read" => {
            let manifest = Manifest::from_cbor(&input.bytes("cbor")?).map_err(body_error)?;
            Ok(json!({
                "title": manifest.title,
                "description": manifest.description,
                "collections": describe(&manifest.collections),
                "written": hex(&manifest.to_cbor()),
            }))
        }
        "count" => {
            let manifest = Manifest::from_cbor(&input.bytes("cbor")?).map_err(body_error)?;
            let items: usize = manifest.collections.iter().map(|one| one.items.len()).sum();
            let chunks = manifest.files().map(|file| match &file.reference {
                Reference::Chunks(chunks) => chunks.len(),
                Reference::Tree(_) => 0,
            });
            let chunks: usize = chunks.sum();
            Ok(json!({ "collections": manifest.collections.len(), "items": items, "chunks": chunks }))
        }
        "entry" => match entry::from_json(input.text("text")?.as_bytes()) {
            Ok(file) => Ok(entry::to_json(&file).into()),
            Err(HeadError::Malformed(_)) => Err(Fault::Reject("malformed")),
            Err(other) => Err(Fault::BadVector(other.to_string())),
        },
        "path" => EntryPath::new(input.text("text")?).map(|_| true.into()).map_err(parse_error),
        _ => Err(no_such_op(op)),
    }
}

fn body_error(error: BodyError) -> Fault {
    match error {
        BodyError::Malformed(_) => Fault::Reject("malformed"),
        BodyError::TooLarge => Fault::Reject("too-large"),
        other => Fault::BadVector(format!("{other:?} has no class")),
    }
}

fn cases(cases: &mut Cases) {
    cases.section(6);
    entry_cases(cases);
    cases.section(5);
    path_cases(cases);
    let whole = json!({
        "title": "Ünïcode ✓",
        "description": "two lines\nof text",
        "collections": [
            { "title": "Season 1", "items": ["magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a", tree_entry("a/b.mkv", 77)] },
            { "title": "", "items": [chunk_entry("v5.bin", 5)] },
            { "title": "empty", "items": [] },
        ],
    });
    cases.accept("a whole body", "write", whole);
    let mut marked = tree_entry("bin/run", 1 << 20);
    marked["modified"] = 1_700_000_000_000_u64.into();
    marked["executable"] = true.into();
    let marked =
        json!({ "title": "", "description": "", "collections": [{ "title": "", "items": [marked] }] });
    cases.accept("a program with its time", "write", marked);
    cases.accept("an empty body", "write", json!({ "title": "", "description": "", "collections": [] }));
    file_cases(cases);
    super::body_cbor::cases(cases);
}

fn entry_cases(cases: &mut Cases) {
    let text = |entry: &Value| json!({ "text": entry.to_string() });
    cases.accept("a tree's entry", "entry", text(&tree_entry("a/b", 9)));
    cases.accept("v5's entry", "entry", text(&chunk_entry("f", 9)));
    cases.accept("v5's empty file", "entry", json!({ "text": r#"{"name":"f","size":0,"chunks":[]}"# }));
    let mut more = tree_entry("f", 1);
    more["comment"] = "ignored".into();
    cases.accept("a member more", "entry", text(&more));
    let with = |mut entry: Value, name: &str, value: Value| {
        entry[name] = value;
        text(&entry)
    };
    let root = tree_entry("f", 9)["root"].clone();
    cases.accept("an entry with chunks and root", "entry", with(chunk_entry("f", 9), "root", root));
    cases.accept(
        "an entry with a root, and null for chunks",
        "entry",
        with(tree_entry("f", 9), "chunks", Value::Null),
    );
    cases.accept("executable that is not true", "entry", with(tree_entry("f", 9), "executable", 1.into()));
    for (name, input) in [
        ("a size that is not the chunks'", with(chunk_entry("f", 9), "size", 8.into())),
        ("a size that is not the tree's", with(tree_entry("f", 9), "size", 8.into())),
        ("a negative size", with(tree_entry("f", 9), "size", (-9).into())),
        ("a size that is a fraction", with(tree_entry("f", 9), "size", 9.5.into())),
        ("a name that leaves the folder", with(tree_entry("f", 9), "name", "../f".into())),
        ("an absolute name", with(tree_entry("f", 9), "name", "/f".into())),
        ("no reference", json!({ "text": r#"{"name":"f","size":0}"# })),
        ("no name", json!({ "text": r#"{"size":0,"chunks":[]}"# })),
        ("a member twice", json!({ "text": r#"{"name":"f","name":"g","size":0,"chunks":[]}"# })),
        ("no JSON", json!({ "text": "entry" })),
    ] {
        cases.reject(format!("entry with {name}"), "entry", input, "malformed");
    }
}

fn path_cases(cases: &mut Cases) {
    for path in [
        "a",
        "a/b/c.txt",
        "Ünïcode/日本語.mp3",
        ".hidden",
        "a..b",
        "console.log",
        "COM10",
        "COM",
        "LPT⁴",
        "NULL",
        "xNUL",
        "CLOCK$",
        "KEYBD$",
        "a b",
        " a",
        "<a>|b?c*\"d",
        "x\u{61c}y",
        "x\u{200b}y",
        "x\u{200e}y",
        "x\u{2027}y",
        "x\u{202f}y",
        "x\u{2065}y",
        "x\u{206a}y",
    ] {
        cases.accept(format!("path {path:?}"), "path", json!({ "text": path }));
    }
    refused_paths(cases);
    path_lengths(cases);
}

fn refused_paths(cases: &mut Cases) {
    for path in [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "..\\a",
        "C:/a",
        "a:stream",
        "a\0b",
        "a\nb",
        "\u{85}",
        "f.",
        "f ",
        "dir /f",
        "NUL",
        "nul.txt",
        "a/aux",
        "Lpt1.x",
        "con .txt",
        "PRN",
        "COM0",
        "com9.tar.gz",
        "COM¹",
        "lpt²",
        "LPT³.x",
        "CONIN$",
        "conout$.txt",
        "x\u{1f}y",
        "x\u{7f}y",
        "x\u{9f}y",
        "x\u{2028}y",
        "x\u{202a}y",
        "x\u{202e}gpj.exe",
        "x\u{2066}y",
        "x\u{2069}y",
    ] {
        cases.reject(format!("path {path:?}"), "path", json!({ "text": path }), "path");
    }
}

fn path_lengths(cases: &mut Cases) {
    cases.accept("a name of 255 bytes", "path", json!({ "text": "n".repeat(255) }));
    cases.reject("a name of 256 bytes", "path", json!({ "text": "n".repeat(256) }), "path");
    cases.accept("a name of 255 bytes in fewer letters", "path", json!({ "text": "é".repeat(127) + "n" }));
    cases.reject("a name of 256 bytes in fewer letters", "path", json!({ "text": "é".repeat(128) }), "path");
    let names = |last: usize| [vec!["n".repeat(255); 3], vec!["n".repeat(254), "n".repeat(last)]].concat();
    cases.accept("a path of 1024 bytes", "path", json!({ "text": names(1).join("/") }));
    cases.reject("a path of 1025 bytes", "path", json!({ "text": names(2).join("/") }), "path");
    let deep = |count: usize| vec!["d"; count].join("/");
    cases.accept("32 components", "path", json!({ "text": deep(32) }));
    cases.reject("33 components", "path", json!({ "text": deep(33) }), "path");
}

/// CBOR of a body with one file: path `aaaa` and, with members left out or changed, a tree of one byte.
pub(super) fn file_body(path: &str, members: &[&str]) -> Value {
    assert!(path.len() < 24 && members.len() < 23);
    let path = format!("01{:02x}{}", 0x60 + path.len(), hex(path.as_bytes()));
    let file = format!("{:02x}{path}{}", 0xa1 + members.len(), members.concat());
    json!({ "cbor": format!("a200010381a10281{file}") })
}

pub(super) fn tree_of(size: u64, depth: u8) -> String {
    format!("055849{size:016x}{depth:02x}{}", "77".repeat(64))
}

fn file_cases(cases: &mut Cases) {
    let size = "0201";
    let tree = tree_of(1, 0);
    let two_files = |first: &str, second: &str| {
        let file = |path: &str| format!("a301{:02x}{}{size}{tree}", 0x60 + path.len(), hex(path.as_bytes()));
        json!({ "cbor": format!("a200010381a10282{}{}", file(first), file(second)) })
    };
    cases.accept("one file", "read", file_body("aaaa", &[size, &tree]));
    cases.accept("two files", "read", two_files("a/b", "a/c"));
    for (name, input) in [
        ("a path that leaves the folder", file_body("../a", &[size, &tree])),
        ("an absolute path", file_body("/aaa", &[size, &tree])),
        ("a file without a size", file_body("aaaa", &[&tree])),
        ("a file without a reference", file_body("aaaa", &[size])),
        ("a file with two references", file_body("aaaa", &[size, &tree, "0680"])),
        ("a tree of another size", file_body("aaaa", &[size, &tree_of(2, 0)])),
        ("a tree of needless depth", file_body("aaaa", &[size, &tree_of(1, 1)])),
        ("a tree reference cut short", file_body("aaaa", &[size, "0541ff"])),
        ("executable that is false", file_body("aaaa", &[size, "04f4", &tree])),
        ("two files of one path", two_files("a", "a")),
        ("a file where another needs a folder", two_files("a", "a/b")),
        ("an item that is no magnet", json!({ "cbor": "a200010381a102816161" })),
    ] {
        cases.reject(name, "read", input, "malformed");
    }
}
