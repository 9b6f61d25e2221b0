//! Trees: their shape for each size, and how they are written.

use megatorrent_core::blob::{self, BLOB_LEN, BLOB_REF_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{Root, Secret};
use megatorrent_core::tree::{FANOUT, Node, TREE_REF_LEN, TreeRef, TreeWriter};
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, hex, repeat, secret};
use crate::value::{integer, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "tree",
    about: "write: secret, content -> the reference in 73 bytes and its parts, and the roots of all blobs in the order in \
            which they come to be. shape: size, depth -> the number of blobs; refused (depth) where the depth is not the \
            least. children: reference and the content of its top blob -> the nodes below. read: 73 bytes -> its parts.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "write" => write(&secret(input, "secret")?, &input.bytes("content")?),
        "shape" => {
            let link = BlobRef { root: Root([0; 32]), key: Secret::new([0; 32]) };
            let depth = u8::try_from(input.number("depth")?).map_err(|_| Fault::Reject("depth"))?;
            let tree = TreeRef::new(input.number("size")?, depth, link).ok_or(Fault::Reject("depth"))?;
            Ok(integer(tree.blob_count()))
        }
        "children" => {
            let root = read(input)?.root();
            Ok(root.children(&input.bytes("plain")?).iter().map(node).collect())
        }
        "read" => Ok(parts(&read(input)?)),
        _ => Err(no_such_op(op)),
    }
}

fn read(input: Input<'_>) -> Result<TreeRef, Fault> {
    TreeRef::from_bytes(&input.array("reference")?).ok_or(Fault::Reject("depth"))
}

fn parts(tree: &TreeRef) -> Value {
    json!({
        "size": integer(tree.size),
        "depth": tree.depth,
        "root": hex(&tree.blob.root.0),
        "key": hex(tree.blob.key.expose()),
        "blobs": integer(tree.blob_count()),
    })
}

fn node(node: &Node) -> Value {
    json!({
        "root": hex(&node.blob.root.0),
        "key": hex(node.blob.key.expose()),
        "height": node.height,
        "offset": integer(node.offset),
        "length": integer(node.len),
    })
}

fn write(secret: &Secret, content: &[u8]) -> Result<Value, Fault> {
    let mut roots = Vec::new();
    let mut seal = |buffer: &mut [u8], length: usize| -> Result<BlobRef, Fault> {
        let at = blob::seal(secret, buffer, length);
        roots.push(hex(&at.root.0));
        Ok(at)
    };
    let mut writer = TreeWriter::new();
    let mut buffer = vec![0; BLOB_LEN];
    // An empty stream is one empty blob.
    for chunk in content.chunks(PLAIN_LEN).chain(content.is_empty().then_some(&[][..])) {
        buffer[..chunk.len()].copy_from_slice(chunk);
        let link = seal(&mut buffer, chunk.len())?;
        writer.push(link, &mut seal)?;
    }
    let tree = writer.finish(content.len() as u64, &mut seal)?;
    Ok(json!({ "reference": hex(&*tree.to_bytes()), "parts": parts(&tree), "roots": roots }))
}

const MIB: u64 = PLAIN_LEN as u64;

fn cases(cases: &mut Cases) {
    cases.section(3);
    let write =
        |length: usize| json!({ "secret": "55".repeat(32), "content": repeat("00010203040506", length) });
    for length in [0, 1, PLAIN_LEN - 1, PLAIN_LEN, PLAIN_LEN + 1, 3 * PLAIN_LEN + 5] {
        cases.accept(format!("a stream of {length} bytes"), "write", write(length));
    }
    shape_cases(cases);
    let reference = |size: u64, depth: u8| {
        let bytes = [&size.to_be_bytes()[..], &[depth], &[0x11; 32], &[0x22; 32]].concat();
        assert_eq!(bytes.len(), TREE_REF_LEN);
        hex(&bytes)
    };
    cases.accept("a reference", "read", json!({ "reference": reference(5 * MIB, 1) }));
    cases.reject("a reference of needless depth", "read", json!({ "reference": reference(MIB, 1) }), "depth");
    cases.accept("a reference to 2^60 bytes", "read", json!({ "reference": reference(1 << 60, 4) }));
    let beyond = json!({ "reference": reference((1 << 60) + 1, 4) });
    cases.reject("a reference to a byte more than 2^60", "read", beyond, "depth");
    let links: Vec<u8> = (1..=3_u8).flat_map(|i| [[i; 32], [i | 0x80; 32]].concat()).collect();
    let children = json!({ "reference": reference(2 * MIB + 7, 1), "plain": hex(&links) });
    cases.accept("children of an index blob", "children", children);
    let span = FANOUT as u64 * MIB;
    let plain = hex(&links[..2 * BLOB_REF_LEN]);
    let children = json!({ "reference": reference(span + 1, 2), "plain": plain });
    cases.accept("children of an index blob over index blobs", "children", children);
}

fn shape_cases(cases: &mut Cases) {
    let span = FANOUT as u64 * MIB;
    let shape = |size: u64, depth: u8| json!({ "size": integer(size), "depth": depth });
    for (size, depth) in [
        (0, 0),
        (1, 0),
        (MIB, 0),
        (MIB + 1, 1),
        (span, 1),
        (span + 1, 2),
        (span * FANOUT as u64, 2),
        (span * FANOUT as u64 + 1, 3),
        (span * (FANOUT * FANOUT) as u64, 3),
        (span * (FANOUT * FANOUT) as u64 + 1, 4),
        (1 << 60, 4),
    ] {
        cases.accept(format!("{size} bytes at depth {depth}"), "shape", shape(size, depth));
    }
    for (size, depth) in
        [(0, 1), (MIB, 1), (MIB + 1, 0), (span, 2), (span + 1, 1), ((1 << 60) + 1, 4), (1, 5), (1, 255)]
    {
        cases.reject(format!("{size} bytes not at depth {depth}"), "shape", shape(size, depth), "depth");
    }
}
