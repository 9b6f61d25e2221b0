//! The numbering of a version's blobs, of a body with its pages, or of a head's own items.

use std::collections::BTreeMap;

use megatorrent_core::blob::{BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::manifest::{
    Body, BodyCollection, Chunk, EntryPath, Extent, FileEntry, Item, Page, PageRef, Reference, Slice,
};
use megatorrent_core::tree::{Node, TreeRef};
use serde_json::{Map, Value, json};

use super::content::{self, native_entry};
use super::{Cases, Fault, Input, hex, repeat};
use crate::value::digest;

/// The names of a version's blobs in the order of their positions.
struct Blobs<'a> {
    names: Vec<[u8; 32]>,
    index: Input<'a>,
}

impl Blobs<'_> {
    fn tree(&mut self, tree: &TreeRef) -> Result<(), Fault> {
        self.visit(&tree.root())
    }

    /// A blob, then all that lies below it.
    fn visit(&mut self, node: &Node) -> Result<(), Fault> {
        self.names.push(node.blob.root.0);
        if node.height > 0 {
            let plain = self.index.bytes(&hex(&node.blob.root.0))?;
            node.children(&plain).iter().try_for_each(|child| self.visit(child))?;
        }
        Ok(())
    }

    fn items(&mut self, items: &[Item]) -> Result<(), Fault> {
        for item in items {
            let Item::File(file) = item else { continue };
            match &file.reference {
                Reference::Extents(extents) => {
                    for extent in extents {
                        if let Extent::Tree(tree) = extent {
                            self.tree(tree)?;
                        }
                    }
                }
                Reference::Chunks(chunks) => {
                    self.names.extend(chunks.iter().map(|chunk| *chunk.name().as_bytes()));
                }
                Reference::Symlink(_) | Reference::Folder => {}
            }
        }
        Ok(())
    }
}

pub(super) fn run(input: Input<'_>) -> Result<Value, Fault> {
    let mut blobs = Blobs { names: Vec::new(), index: input.object("index")? };
    let mut pages = Vec::new();
    if let Some(of_body) = input.optional("body") {
        let body = Body::from_cbor(&of_body.bytes("cbor")?).map_err(|_| Fault::Reject("malformed"))?;
        blobs.tree(&TreeRef::from_bytes(&of_body.array("tree")?).ok_or(Fault::Reject("depth"))?)?;
        blobs.names.extend(body.packs.values().map(|root| root.0));
        body.pages().try_for_each(|page| blobs.tree(&page.tree))?;
        for (page, cbor) in body.pages().zip(of_body.list("pages")?) {
            pages.push(blobs.names.len());
            let page = page.read(&body.packs, &cbor.as_bytes()?).map_err(|_| Fault::Reject("malformed"))?;
            blobs.items(&page.items)?;
        }
        body.ids.iter().try_for_each(|ids| blobs.tree(ids))?;
    } else {
        blobs.items(&content::items(input)?)?;
    }
    let names = blobs.names;
    let mut first = BTreeMap::new();
    for (position, name) in names.iter().enumerate() {
        first.entry(hex(name)).or_insert(position);
    }
    let first: Map<String, Value> = first.into_iter().map(|(name, at)| (name, at.into())).collect();
    Ok(json!({ "count": names.len(), "names": digest(&names.concat()), "first": first, "pages": pages }))
}

// --- cases --------------------------------------------------------------------------------------------------

const MIB: u64 = PLAIN_LEN as u64;

/// A blob whose root is this byte repeated.
fn blob(root: u8) -> BlobRef {
    BlobRef { root: Root([root; 32]), key: Secret::new([0xEE; 32]) }
}

fn tree(size: u64, depth: u8, root: u8) -> TreeRef {
    TreeRef::new(size, depth, blob(root)).expect("its size's depth")
}

/// An index blob's content.
fn links(roots: &[u8]) -> Value {
    let links: Vec<u8> = roots.iter().flat_map(|root| [[*root; 32], [0xEE; 32]].concat()).collect();
    hex(&links).into()
}

fn name(root: u8) -> String {
    hex(&[root; 32])
}

fn file(path: &str, size: u64, reference: Reference) -> Item {
    let path = EntryPath::new(path).expect("a path");
    Item::File(FileEntry { path, size, modified_ms: None, executable: false, reference, blake3: None })
}

fn of_trees(path: &str, trees: &[TreeRef]) -> Item {
    let size = trees.iter().map(|tree| tree.size).sum();
    file(path, size, Reference::Extents(trees.iter().cloned().map(Extent::Tree).collect()))
}

fn slice(pack: u32, offset: u32) -> Extent {
    Extent::Slice(Slice { pack, offset, length: 5, key: Secret::new([0xDD; 32]) })
}

fn v5_chunk(id: u8) -> Chunk {
    Chunk {
        id: BlobId([id; 32]),
        root: None,
        offset: 0,
        length: 1_048_592,
        key: Secret::new([0xCC; 32]),
        nonce: [0x0B; 12],
        real_size: 7,
    }
}

/// A body of pages whose trees are of one blob: the first one's root is `first`, and so on. `ids`: the root of the ids' tree.
fn with_body(packs: &[(u32, u8)], pages: Vec<Vec<Item>>, first: u8, ids: Option<u8>, index: &Value) -> Value {
    let pages: Vec<Page> = pages.into_iter().map(|items| Page { items }).collect();
    let said = pages.iter().zip(first..).map(|(page, root)| PageRef {
        tree: tree(page.to_cbor().len() as u64, 0, root),
        first: page.items[0].name().into(),
        items: u32::try_from(page.items.len()).expect("few"),
        blobs: page.items.iter().map(Item::blob_count).sum(),
    });
    let sizes = pages.iter().flat_map(|page| &page.items).map(|item| match item {
        Item::File(file) => file.size,
        Item::Magnet(_) => 0,
    });
    let mut body = Body {
        collections: vec![BodyCollection { title: String::new(), pages: said.collect() }],
        packs: packs.iter().map(|(number, root)| (*number, Root([*root; 32]))).collect(),
        bytes: sizes.sum(),
        ..Body::default()
    };
    let blobs: u64 = body.pages().map(|page| 1 + page.blobs).sum();
    let positions = 1 + packs.len() as u64 + blobs;
    body.ids = ids.map(|root| tree(32 * positions, 0, root));
    let cbor = body.to_cbor();
    let own = hex(&*tree(cbor.len() as u64, 0, 1).to_bytes());
    let pages: Vec<String> = pages.iter().map(|page| hex(&page.to_cbor())).collect();
    json!({ "body": { "cbor": hex(&cbor), "tree": own, "pages": pages }, "index": index })
}

pub(super) fn cases(cases: &mut Cases) {
    let position = |name: &str, cases: &mut Cases, input| cases.accept(name, "positions", input);
    let one = with_body(&[], vec![vec![of_trees("a", &[tree(0, 0, 3)])]], 2, None, &json!({}));
    position("positions of a body, its page and one empty file", cases, one);
    let index = json!({ name(20): links(&[21, 22]), name(30): links(&[31, 32, 30]) });
    let first = vec![
        of_trees("a", &[tree(2 * MIB, 1, 20)]),
        file("b", 0, Reference::Folder),
        file("c", 14, Reference::Chunks(vec![v5_chunk(40), v5_chunk(41)])),
        file("d", 0, Reference::Extents(Vec::new())),
        file("e", 10, Reference::Extents(vec![slice(9, 0), slice(300, 0)])),
    ];
    let mixed =
        vec![slice(9, 32), Extent::Tree(tree(7, 0, 50)), slice(9, 64), Extent::Tree(tree(MIB, 0, 51))];
    let second = vec![
        file("f", 10 + 7 + MIB, Reference::Extents(mixed)),
        file("g", 0, Reference::Symlink("a".into())),
        of_trees("h", &[tree(3 * MIB, 1, 30), tree(MIB, 0, 21)]),
        Item::Magnet("magnet:?xt=urn:btih:cccccccccccccccccccccccccccccccccccccccc".into()),
    ];
    // The names ascend, and a URI comes after `h`.
    let all = with_body(&[(300, 12), (9, 11)], vec![first, second], 2, Some(13), &index);
    position("positions of a body, packs, pages, trees, chunks, slices and ids", cases, all);
    let ten = (0..10).map(|n| of_trees(&format!("{n}"), &[tree(1, 0, 3)])).collect();
    position("positions of one content ten times", cases, with_body(&[], vec![ten], 2, Some(4), &json!({})));
    let deep = of_trees("a", &[tree(1026 * MIB, 2, 20), tree(1, 0, 6)]);
    let index = json!({
        name(20): links(&[21, 22]),
        name(21): repeat(&format!("{}{}", name(4), "ee".repeat(32)), PLAIN_LEN / 16),
        name(22): links(&[5, 7]),
    });
    position(
        "positions of a tree of depth 2, in preorder",
        cases,
        with_body(&[], vec![vec![deep]], 2, None, &index),
    );
    let v5 = content::chunk_entry("b", 7);
    let items = json!([native_entry("a", 5), v5, "magnet:?xt=urn:btih:x", native_entry("c", 6)]);
    let head = json!({ "body": null, "items": items, "index": {} });
    position("positions of a head's own files, by root and by id", cases, head);
    let none = json!({ "body": null, "items": [], "index": {} });
    position("positions of a head without files", cases, none);
}
