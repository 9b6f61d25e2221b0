//! File entries, paths, and the body and its pages in deterministic CBOR.

use std::collections::BTreeMap;
use std::convert::Infallible;

use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::manifest::{
    AuthorStore, Body, BodyCollection, BodyError, Collection, EntryPath, FileEntry, HeadError, Item,
    Manifest, Page, PageRef, Reference, entry,
};
use megatorrent_core::tree::{Shape, TreeRef};
use serde_json::{Map, Value, json};

use super::content::{chunk_entry, describe_items, items, native_entry, tree_entry, tree_text};
use super::{Cases, Fault, Input, Layer, hex, parse_error};
use crate::value::{integer, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "body",
    about: "write-body: title, description, collections (title and pages: reference in 73 bytes, first, items, blobs), packs, ids, bytes \
            -> CBOR. read-body: cbor -> the same, and how it is written again; refused (malformed, too-large). count-body: cbor -> \
            how many collections, pages, items and packs it has; refused likewise. write-page: items -> CBOR. read-page: cbor -> \
            items, and how they are written again; refused (malformed). count-page: cbor -> how many items, extents and chunks it has; \
            refused likewise. page: cbor, what the body says (first, items, blobs, packs) -> true; refused (malformed). join: cbor of \
            a body and of all its pages -> bytes and items; refused (malformed). cut: count -> the pages of so many empty folders \
            `folder/NNNNN`: first, items, length and BLAKE3. entry: a file entry's JSON text -> how it is written; refused \
            (malformed). path: text -> true; refused (path).",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "write-body" => Ok(hex(&body(input)?.to_cbor()).into()),
        "read-body" => {
            let body = read_body(input)?;
            let mut shown = describe(&body);
            shown["written"] = hex(&body.to_cbor()).into();
            Ok(shown)
        }
        "count-body" => {
            let body = read_body(input)?;
            let (collections, pages) = (body.collections.len(), body.pages().count());
            let (items, packs) = (body.item_count(), body.packs.len());
            Ok(json!({ "collections": collections, "pages": pages, "items": items, "packs": packs }))
        }
        "write-page" => Ok(hex(&Page { items: items(input)? }.to_cbor()).into()),
        "read-page" => {
            let page = read_page(input)?;
            Ok(json!({ "items": describe_items(&page.items), "written": hex(&page.to_cbor()) }))
        }
        "count-page" => Ok(count(&read_page(input)?)),
        "page" => {
            let page = page_ref(input, vec![0; 73])?;
            let number = |pack: &Input<'_>| pack.value().as_u64().and_then(|pack| u32::try_from(pack).ok());
            let packs: Option<BTreeMap<u32, Root>> =
                input.list("packs")?.iter().map(|pack| Some((number(pack)?, Root([0; 32])))).collect();
            let packs = packs.ok_or_else(|| Fault::BadVector("a pack is no number".into()))?;
            page.read(&packs, &input.bytes("cbor")?).map(|_| true.into()).map_err(body_error)
        }
        "join" => join(input),
        "cut" => cut(usize::try_from(input.number("count")?).unwrap_or_default()),
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

fn read_body(input: Input<'_>) -> Result<Body, Fault> {
    Body::from_cbor(&input.bytes("cbor")?).map_err(body_error)
}

fn read_page(input: Input<'_>) -> Result<Page, Fault> {
    Page::from_cbor(&input.bytes("cbor")?).map_err(body_error)
}

fn tree(bytes: Vec<u8>) -> Result<TreeRef, Fault> {
    let bytes = bytes.try_into().map_err(|_| Fault::BadVector("a reference has 73 bytes".into()))?;
    TreeRef::from_bytes(&bytes).ok_or_else(|| Fault::BadVector("a reference's depth".into()))
}

fn page_ref(input: Input<'_>, reference: Vec<u8>) -> Result<PageRef, Fault> {
    let items = u32::try_from(input.number("items")?).map_err(|_| Fault::BadVector("many items".into()))?;
    let (first, blobs) = (input.text("first")?.into(), input.number("blobs")?);
    Ok(PageRef { tree: tree(reference)?, first, items, blobs })
}

/// The body that the members describe.
fn body(input: Input<'_>) -> Result<Body, Fault> {
    let page = |page: Input<'_>| page_ref(page, page.bytes("reference")?);
    let collection = |one: Input<'_>| {
        let pages = one.list("pages")?.into_iter().map(page).collect::<Result<_, _>>()?;
        Ok(BodyCollection { title: one.text("title")?.into(), pages })
    };
    let packs = input.object("packs")?.value().as_object().cloned().unwrap_or_default();
    let pack = |(number, _): (&String, &Value)| {
        let of_pack = input.object("packs")?.array(number)?;
        Ok((number.parse().map_err(|_| Fault::BadVector(format!("pack {number}")))?, Root(of_pack)))
    };
    Ok(Body {
        title: input.text("title")?.into(),
        description: input.text("description")?.into(),
        collections: input.list("collections")?.into_iter().map(collection).collect::<Result<_, Fault>>()?,
        packs: packs.iter().map(pack).collect::<Result<_, Fault>>()?,
        ids: input.optional("ids").map(|ids| tree(ids.as_bytes()?)).transpose()?,
        bytes: input.number("bytes")?,
    })
}

/// The inverse of [`body`].
fn describe(body: &Body) -> Value {
    let page = |page: &PageRef| {
        let reference = hex(&*page.tree.to_bytes());
        json!({ "reference": reference, "first": page.first, "items": page.items, "blobs": integer(page.blobs) })
    };
    let collection = |one: &BodyCollection| json!({ "title": one.title, "pages": one.pages.iter().map(page).collect::<Vec<_>>() });
    let packs: Map<String, Value> =
        body.packs.iter().map(|(number, root)| (number.to_string(), hex(&root.0).into())).collect();
    json!({
        "title": body.title,
        "description": body.description,
        "collections": body.collections.iter().map(collection).collect::<Vec<_>>(),
        "packs": packs,
        "ids": body.ids.as_ref().map(|ids| hex(&*ids.to_bytes())),
        "bytes": integer(body.bytes),
    })
}

fn count(page: &Page) -> Value {
    let (mut extents, mut chunks) = (0, 0);
    for item in &page.items {
        match item {
            Item::File(FileEntry { reference: Reference::Extents(list), .. }) => extents += list.len(),
            Item::File(FileEntry { reference: Reference::Chunks(list), .. }) => chunks += list.len(),
            _ => {}
        }
    }
    json!({ "items": page.items.len(), "extents": extents, "chunks": chunks })
}

fn join(input: Input<'_>) -> Result<Value, Fault> {
    let body = Body::from_cbor(&input.bytes("body")?).map_err(body_error)?;
    let texts = input.list("pages")?;
    let read = |(page, text): (&PageRef, Input<'_>)| {
        page.read(&body.packs, &text.as_bytes()?).map(Some).map_err(body_error)
    };
    let pages = body.pages().zip(texts).map(read).collect::<Result<Vec<_>, _>>()?;
    let manifest = Manifest::assemble(body, pages).map_err(body_error)?;
    let bytes: u64 = manifest.files().map(|file| file.size).sum();
    let items: usize = manifest.collections.iter().map(|one| one.items.len()).sum();
    Ok(json!({ "bytes": integer(bytes), "items": items }))
}

/// Blobs by their content's BLAKE3, without sealing.
#[derive(Default)]
struct Unsealed(BTreeMap<Root, Vec<u8>>);

impl AuthorStore for Unsealed {
    type Error = Infallible;

    fn open(&mut self, blob: &BlobRef) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.0.get(&blob.root).cloned())
    }

    fn store(&mut self, buf: &mut [u8], len: usize) -> Result<BlobRef, Infallible> {
        let root = Root(*blake3::hash(&buf[..len]).as_bytes());
        self.0.insert(root, buf[..len].to_vec());
        Ok(BlobRef { root, key: Secret::new([0; 32]) })
    }

    fn id(&mut self, _: &Root) -> Result<Option<BlobId>, Infallible> {
        Ok(None)
    }

    fn store_v5(&mut self, _: &Root, _: &BlobId) -> Result<(), Infallible> {
        Ok(())
    }
}

fn cut(folders: usize) -> Result<Value, Fault> {
    let folder = |n: usize| {
        let path = EntryPath::new(&format!("folder/{n:05}")).map_err(parse_error)?;
        let reference = Reference::Folder;
        let file = FileEntry { path, size: 0, modified_ms: None, executable: false, reference, blake3: None };
        Ok(Item::File(file))
    };
    let items = (0..folders).map(folder).collect::<Result<_, Fault>>()?;
    let collections = vec![Collection { title: String::new(), items }];
    let (manifest, mut blobs) = (Manifest { collections, ..Manifest::default() }, Unsealed::default());
    let stored = manifest.store(Shape::REAL, false, &mut blobs);
    let tree = stored.map_err(|error| Fault::BadVector(format!("{error:?}")))?;
    let body = Body::from_cbor(&blobs.0[&tree.blob.root]).map_err(body_error)?;
    let page = |page: &PageRef| json!({ "first": page.first, "items": page.items, "length": page.tree.size, "blake3": hex(&page.tree.blob.root.0) });
    Ok(body.pages().map(page).collect())
}

fn cases(cases: &mut Cases) {
    cases.section(6);
    entry_cases(cases);
    cases.section(5);
    path_cases(cases);
    write_cases(cases);
    for count in [0, 1, 700, 2000, 20_000] {
        cases.accept(format!("the pages of {count} folders"), "cut", json!({ "count": count }));
    }
    super::body_cbor::cases(cases);
    super::page_cbor::cases(cases);
}

fn write_cases(cases: &mut Cases) {
    let page = |first: &str, size: u64, items: u32, blobs: u64| {
        let reference = format!("{size:016x}00{}{}", "11".repeat(32), "22".repeat(32));
        json!({ "reference": reference, "first": first, "items": items, "blobs": blobs })
    };
    let ids = |blobs: u64| format!("{:016x}00{}{}", blobs * 32, "33".repeat(32), "44".repeat(32));
    let whole = json!({
        "title": "Ünïcode ✓",
        "description": "two lines\nof text",
        "collections": [
            { "title": "Season 1", "pages": [page("a/b", 20_000, 300, 1200), page("c", 5, 1, 0)] },
            { "title": "", "pages": [page("magnet:?xt=urn:btih:0", 262_144, 65_536, 7)] },
            { "title": "empty", "pages": [] },
        ],
        "packs": { "0": "aa".repeat(32), "24": "bb".repeat(32), "4294967295": "aa".repeat(32) },
        "ids": ids(1 + 3 + 3 + 1207),
        "bytes": integer(1_u64 << 60),
    });
    cases.accept("a whole body", "write-body", whole);
    let empty =
        json!({ "title": "", "description": "", "collections": [], "packs": {}, "ids": null, "bytes": 0 });
    cases.accept("an empty body", "write-body", empty);
    let mut program = tree_entry("bin/run", 1 << 20);
    program["modified"] = 1_700_000_000_000_u64.into();
    program["executable"] = true.into();
    program["blake3"] = "99".repeat(32).into();
    let key = "88".repeat(32);
    let joined = json!({ "name": "joined", "size": 100 + 17 + 1, "extents": [[3, 64, 100, key], tree_text(17), [300, 1_048_544, 1, key]] });
    let items = json!([
        program,
        { "name": "empty", "size": 0, "extents": [] },
        { "name": "folder", "size": 0, "folder": true, "modified": 5 },
        joined,
        { "name": "link", "size": 0, "target": "../bin/run" },
        "magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a88a",
        chunk_entry("v5.bin", 5),
    ]);
    cases.accept("a page of all kinds", "write-page", json!({ "items": items }));
}

fn entry_cases(cases: &mut Cases) {
    let text = |entry: &Value| json!({ "text": entry.to_string() });
    cases.accept("a tree's entry", "entry", text(&tree_entry("a/b", 9)));
    cases.accept("v5's entry", "entry", text(&chunk_entry("f", 9)));
    cases.accept("v5's entry of a native blob", "entry", text(&native_entry("f", 9)));
    cases.accept("v5's empty file", "entry", json!({ "text": r#"{"name":"f","size":0,"chunks":[]}"# }));
    cases.accept("a folder's entry", "entry", json!({ "text": r#"{"name":"f","size":0,"folder":true}"# }));
    cases.accept("a symlink's entry", "entry", json!({ "text": r#"{"name":"f","size":0,"target":"g"}"# }));
    let mut more = tree_entry("f", 1);
    more["comment"] = "ignored".into();
    cases.accept("a member more", "entry", text(&more));
    let with = |mut entry: Value, name: &str, value: Value| {
        entry[name] = value;
        text(&entry)
    };
    cases.accept("executable that is not true", "entry", with(tree_entry("f", 9), "executable", 1.into()));
    for (name, input) in [
        ("a size that is not the chunks'", with(chunk_entry("f", 9), "size", 8.into())),
        ("a size that is not the tree's", with(tree_entry("f", 9), "size", 8.into())),
        ("a negative size", with(tree_entry("f", 9), "size", (-9).into())),
        ("a size that is a fraction", with(tree_entry("f", 9), "size", 9.5.into())),
        ("a name that leaves the folder", with(tree_entry("f", 9), "name", "../f".into())),
        ("an absolute name", with(tree_entry("f", 9), "name", "/f".into())),
        ("chunks and extents", with(chunk_entry("f", 9), "extents", json!([tree_text(9)]))),
        ("no reference", json!({ "text": r#"{"name":"f","size":0}"# })),
        ("no name", json!({ "text": r#"{"size":0,"chunks":[]}"# })),
        ("a member twice", json!({ "text": r#"{"name":"f","name":"g","size":0,"chunks":[]}"# })),
        ("no JSON", json!({ "text": "entry" })),
    ] {
        cases.reject(format!("entry with {name}"), "entry", input, "malformed");
    }
    native_cases(cases);
}

/// What stands beside the root of a native blob.
fn native_cases(cases: &mut Cases) {
    let with = |name: &str, value: Value| {
        let mut entry = native_entry("f", 9);
        entry["chunks"][0][name] = value;
        json!({ "text": entry.to_string() })
    };
    let mut short = native_entry("f", 9);
    for name in ["offset", "length"] {
        short["chunks"][0].as_object_mut().expect("a chunk").remove(name);
    }
    let short = json!({ "text": short.to_string() });
    cases.accept("entry of a native blob without offset and length", "entry", short);
    for (name, input) in [
        ("a root beside an offset", {
            let mut entry = native_entry("f", 9);
            (entry["chunks"][0]["offset"], entry["chunks"][0]["length"]) = (16.into(), 1_048_576.into());
            json!({ "text": entry.to_string() })
        }),
        ("a root beside a length", with("length", 1_048_576.into())),
        ("a root beside a nonce", with("nonce", format!("{}01", "00".repeat(11)).into())),
        ("a root of 31 bytes", with("blake3", "66".repeat(31).into())),
        ("a root that is null", with("blake3", Value::Null)),
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
        "...",
        "a b",
        " a",
        "<a>|b?c*\"d",
        "NUL",
        "a/aux.txt",
        "a\\b",
        "..\\a",
        "C:/a",
        "a:stream",
        "f.",
        "dir /f ",
        "x\u{61c}y",
        "x\u{200b}y",
        "x\u{2028}y",
        "x\u{202e}gpj.exe",
        "x\u{2069}y",
        "x\u{a0}y",
        "magnet:?x",
    ] {
        cases.accept(format!("path {path:?}"), "path", json!({ "text": path }));
    }
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
        "a/..",
        "a\0b",
        "a\nb",
        "x\u{1f}y",
        "x\u{7f}y",
        "x\u{80}y",
        "x\u{85}y",
        "x\u{9f}y",
    ] {
        cases.reject(format!("path {path:?}"), "path", json!({ "text": path }), "path");
    }
    path_lengths(cases);
}

fn path_lengths(cases: &mut Cases) {
    cases.accept("a name of 255 bytes", "path", json!({ "text": "n".repeat(255) }));
    cases.reject("a name of 256 bytes", "path", json!({ "text": "n".repeat(256) }), "path");
    cases.accept("a name of 255 bytes in fewer letters", "path", json!({ "text": "é".repeat(127) + "n" }));
    cases.reject("a name of 256 bytes in fewer letters", "path", json!({ "text": "é".repeat(128) }), "path");
    let deep = |last: &str| "d/".repeat(2047) + last;
    cases.accept("a path of 4096 bytes", "path", json!({ "text": deep("ff") }));
    cases.reject("a path of 4097 bytes", "path", json!({ "text": deep("fff") }), "path");
}
