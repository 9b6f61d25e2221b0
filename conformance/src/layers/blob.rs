//! Blobs: native sealing, opening, and v5's chunks, which may be slices.

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::BlobId;
use megatorrent_core::manifest::{FileEntry, Reference, entry};
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, hex, repeat, secret};
use crate::value::{digest, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "blob",
    about: "seal: secret, content -> key (BLAKE3 keyed with the secret), id and blob. seal-under-key: key, content -> id and \
            blob. open: key, blob -> the plaintext; refused (tag). verify: id, blob -> true or false. chunk: a chunk of a v5 \
            file entry, blob -> the content; refused (malformed) where it contradicts itself, (tag) where it does not open.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "seal" => {
            let (mut buffer, length) = buffer(input)?;
            let link = blob::seal(&secret(input, "secret")?, &mut buffer, length);
            Ok(json!({ "key": hex(link.key.expose()), "id": link.id.to_hex(), "blob": digest(&buffer) }))
        }
        "seal-under-key" => {
            let (mut buffer, length) = buffer(input)?;
            let id = blob::seal_with_key(&secret(input, "key")?, &mut buffer, length);
            Ok(json!({ "id": id.to_hex(), "blob": digest(&buffer) }))
        }
        "open" => {
            let link = BlobRef { id: BlobId([0; 32]), key: secret(input, "key")? };
            let mut blob = whole_blob(input)?;
            if !blob::open(&link, &mut blob) {
                return Err(Fault::Reject("tag"));
            }
            Ok(digest(&blob[..PLAIN_LEN]))
        }
        "verify" => Ok(blob::verify(&BlobId(input.array("id")?), &input.bytes("blob")?).into()),
        "chunk" => open_chunk(input),
        _ => Err(no_such_op(op)),
    }
}

/// A blob's buffer with the content in front, and the content's length.
fn buffer(input: Input<'_>) -> Result<(Vec<u8>, usize), Fault> {
    let mut buffer = input.bytes("content")?;
    let length = buffer.len();
    buffer.resize(BLOB_LEN, 0);
    Ok((buffer, length))
}

fn whole_blob(input: Input<'_>) -> Result<Vec<u8>, Fault> {
    let blob = input.bytes("blob")?;
    if blob.len() == BLOB_LEN { Ok(blob) } else { Err(Fault::BadVector("a blob is 1 048 592 bytes".into())) }
}

/// Reads the chunk as part of an entry, as every chunk is read.
fn open_chunk(input: Input<'_>) -> Result<Value, Fault> {
    let chunk = input.object("chunk")?;
    let entry = json!({ "name": "f", "size": chunk.number("realSize")?, "chunks": [chunk.value()] });
    let entry: FileEntry =
        entry::from_json(entry.to_string().as_bytes()).map_err(|_| Fault::Reject("malformed"))?;
    let Reference::Chunks(chunks) = entry.reference else { return Err(Fault::BadVector("no chunk".into())) };
    let mut blob = whole_blob(input)?;
    let content = chunks[0].open(&mut blob).ok_or(Fault::Reject("tag"))?;
    Ok(digest(&blob[content]))
}

const KEY: &str = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f";
const NONCE: &str = "070000004041424344454647";

/// The bytes that ChaCha20-Poly1305 makes of `plain`.
fn sealed(key: &str, nonce: &str, plain: &Value) -> Value {
    json!({ "chacha20poly1305": { "key": key, "nonce": nonce, "plain": plain } })
}

fn cases(cases: &mut Cases) {
    cases.section(2);
    let secret = "55".repeat(32);
    for length in [0, 1, 16, PLAIN_LEN - 1, PLAIN_LEN] {
        let content = repeat("0001020304050607", length);
        let name = format!("{length} bytes of content");
        cases.accept(name.clone(), "seal", json!({ "secret": secret, "content": content }));
        cases.accept(
            format!("{name} under a known key"),
            "seal-under-key",
            json!({ "key": KEY, "content": content }),
        );
    }
    let other = json!({ "secret": "56".repeat(32), "content": "00" });
    cases.accept("another secret gives another key", "seal", other);
    let native = sealed(KEY, &"00".repeat(12), &repeat("616263", PLAIN_LEN));
    cases.accept("a native blob", "open", json!({ "key": KEY, "blob": native }));
    cases.reject("under another key", "open", json!({ "key": secret, "blob": native }), "tag");
    let damaged = json!({ "patch": native, "at": PLAIN_LEN + 15, "with": "00" });
    cases.reject("a damaged tag", "open", json!({ "key": KEY, "blob": damaged }), "tag");
    let verify = |id: &str| json!({ "id": id, "blob": repeat("00", BLOB_LEN) });
    // SHA-256 of 2^20 + 16 zeros, and of 2^20.
    let good = "a86ee907205f2af34454484ed36c48579b7ca92e1f80b3d4df208a2f9e620fc5";
    let short = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58";
    cases.accept("the id of what is there", "verify", verify(good));
    cases.accept("the id of a part of it", "verify", verify(short));
    chunk_cases(cases);
}

fn chunk_cases(cases: &mut Cases) {
    cases.section(4);
    let chunk = |offset: usize, length: usize, real_size: usize| {
        let id = "ab".repeat(32);
        json!({ "blobId": id, "offset": offset, "length": length, "key": KEY, "nonce": NONCE, "realSize": real_size })
    };
    let whole = sealed(KEY, NONCE, &repeat("76352062", PLAIN_LEN));
    let open = |chunk: Value, blob: &Value| json!({ "chunk": chunk, "blob": blob });
    cases.accept("v5's chunk of 5 bytes", "chunk", open(chunk(0, BLOB_LEN, 5), &whole));
    cases.accept("v5's full chunk", "chunk", open(chunk(0, BLOB_LEN, PLAIN_LEN), &whole));
    let mut other = chunk(0, BLOB_LEN, 5);
    other["nonce"] = "070000004041424344454648".into();
    cases.reject("another nonce", "chunk", open(other, &whole), "tag");
    let slice = |at: usize| {
        let sealed = sealed(KEY, NONCE, &hex(b"a slice of a shared blob").into());
        json!({ "patch": repeat("a55a", BLOB_LEN), "at": at, "with": sealed })
    };
    cases.accept("a slice", "chunk", open(chunk(48, 40, 24), &slice(48)));
    cases.accept("a slice with padding", "chunk", open(chunk(48, 40, 7), &slice(48)));
    cases.accept(
        "a slice at the blob's end",
        "chunk",
        open(chunk(BLOB_LEN - 40, 40, 24), &slice(BLOB_LEN - 40)),
    );
    let byte =
        json!({ "patch": repeat("a55a", BLOB_LEN), "at": 48, "with": sealed(KEY, NONCE, &"7a".into()) });
    cases.accept("a slice of a byte", "chunk", open(chunk(48, 17, 1), &byte));
    cases.accept("a slice of a byte without content", "chunk", open(chunk(48, 17, 0), &byte));
    cases.reject("a slice looked for at another place", "chunk", open(chunk(64, 40, 24), &slice(48)), "tag");
    for (name, wrong) in [
        ("a chunk that leaves its blob", chunk(16, BLOB_LEN, 1)),
        ("an offset beyond the blob", chunk(BLOB_LEN, 40, 1)),
        ("a length that overflows", chunk(4_294_967_295, 40, 1)),
        ("more content than the piece holds", chunk(0, 40, 25)),
        ("a piece shorter than its tag", chunk(0, 15, 0)),
        ("a piece that is a tag only", chunk(0, 16, 0)),
    ] {
        cases.reject(name, "chunk", open(wrong, &slice(0)), "malformed");
    }
}
