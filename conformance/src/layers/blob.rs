//! Blobs and their parts: native sealing, opening, v5's chunks, and slices of packs.

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret};
use megatorrent_core::manifest::{Extent, FileEntry, Reference, entry};
use megatorrent_core::parts::{self, PART_LEN, Values};
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, hex, repeat, secret};
use crate::value::{digest, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "blob",
    about: "seal: secret, content -> key (BLAKE3 keyed with the secret), root, id, values and blob. seal-under-key: key, content -> \
            the same but the key. open: key, blob -> the plaintext; refused (tag). verify: root or id, blob -> true or false. \
            fits: key, length, blob -> the root of a blob that is what the key and its first bytes, as content, make; refused (filling). \
            root: values -> the root that they give. part: values, part, sealed, key -> the part's plaintext; refused (part) \
            where it is not what its value says. chunk: a chunk of a v5 file entry, blob -> the content; refused (malformed) where it \
            contradicts itself, (tag) where it does not open. slice: [pack, offset, length, key], pack -> the content; refused \
            likewise.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "seal" => {
            let (mut buffer, length) = buffer(input)?;
            let sealed = blob::seal(&secret(input, "secret")?, &mut buffer, length);
            let mut about = about(&buffer);
            about["key"] = hex(sealed.key.expose()).into();
            Ok(about)
        }
        "seal-under-key" => {
            let (mut buffer, length) = buffer(input)?;
            blob::seal_with_key(&secret(input, "key")?, &mut buffer, length);
            Ok(about(&buffer))
        }
        "open" => {
            let mut blob = whole_blob(input)?;
            open(&secret(input, "key")?, &mut blob)?;
            Ok(digest(&blob[..PLAIN_LEN]))
        }
        "verify" => {
            let name = match input.optional("root") {
                Some(_) => BlobName::Native(Root(input.array("root")?)),
                None => BlobName::V5(BlobId(input.array("id")?)),
            };
            Ok(blob::verify(&name, &input.bytes("blob")?).into())
        }
        "fits" => fits(input),
        "root" => Ok(hex(&values(input)?.root().0).into()),
        "part" => open_part(input),
        "chunk" => open_chunk(input),
        "slice" => open_slice(input),
        _ => Err(no_such_op(op)),
    }
}

/// The names and values of a sealed blob, and the blob.
fn about(blob: &[u8]) -> Value {
    let values = Values::of(blob);
    json!({
        "root": hex(&values.root().0),
        "id": blob::id(blob).to_hex(),
        "values": hex(values.as_bytes()),
        "blob": digest(blob),
    })
}

fn open(key: &Secret, blob: &mut [u8]) -> Result<(), Fault> {
    let at = BlobRef { root: Root([0; 32]), key: key.clone() };
    if blob::open(&at, blob) { Ok(()) } else { Err(Fault::Reject("tag")) }
}

fn fits(input: Input<'_>) -> Result<Value, Fault> {
    let (key, sealed) = (secret(input, "key")?, whole_blob(input)?);
    let length = usize::try_from(input.number("length")?).map_err(|_| Fault::BadVector("too long".into()))?;
    let mut again = sealed.clone();
    parts::crypt(&key, 0, &mut again[..PLAIN_LEN]);
    let root = blob::seal_with_key(&key, &mut again, length);
    if again == sealed { Ok(hex(&root.0).into()) } else { Err(Fault::Reject("filling")) }
}

fn values(input: Input<'_>) -> Result<Values, Fault> {
    input.array("values").map(Values::from_bytes)
}

fn open_part(input: Input<'_>) -> Result<Value, Fault> {
    let part = usize::try_from(input.number("part")?).map_err(|_| Fault::Reject("part"))?;
    let mut bytes = input.bytes("sealed")?;
    if !values(input)?.check(part, &bytes) {
        return Err(Fault::Reject("part"));
    }
    parts::crypt(&secret(input, "key")?, part * PART_LEN, &mut bytes);
    Ok(digest(&bytes))
}

/// Reads the slice as part of an entry, as every slice is read.
fn open_slice(input: Input<'_>) -> Result<Value, Fault> {
    let slice = input.object("slice")?.value();
    let entry = json!({ "name": "f", "size": slice[2], "extents": [slice] });
    let entry = entry::from_json(entry.to_string().as_bytes()).map_err(|_| Fault::Reject("malformed"))?;
    let Reference::Extents(extents) = entry.reference else {
        return Err(Fault::BadVector("no extent".into()));
    };
    let Extent::Slice(slice) = &extents[0] else { return Err(Fault::BadVector("no slice".into())) };
    let mut pack = input.bytes("pack")?;
    let content = slice.open(&mut pack).ok_or(Fault::Reject("tag"))?;
    Ok(digest(&pack[content]))
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
    for length in [0, 1, 16, PART_LEN - 1, PART_LEN, PART_LEN + 1, PLAIN_LEN - 1, PLAIN_LEN] {
        let content = repeat("0001020304050607", length);
        let name = format!("{length} bytes of content");
        cases.accept(name.clone(), "seal", json!({ "secret": secret, "content": content }));
        cases.accept(
            format!("{name} under a known key"),
            "seal-under-key",
            json!({ "key": KEY, "content": content }),
        );
    }
    let short = json!({ "secret": "07".repeat(32), "content": hex(b"a short file") });
    cases.accept("the example of docs/protocol.md", "seal", short);
    let other = json!({ "secret": "56".repeat(32), "content": "00" });
    cases.accept("another secret gives another key", "seal", other);
    let native = sealed(KEY, &"00".repeat(12), &repeat("616263", PLAIN_LEN));
    cases.accept("a native blob", "open", json!({ "key": KEY, "blob": native }));
    cases.reject("under another key", "open", json!({ "key": secret, "blob": native }), "tag");
    let damaged = json!({ "patch": native, "at": PLAIN_LEN + 15, "with": "00" });
    cases.reject("a damaged tag", "open", json!({ "key": KEY, "blob": damaged }), "tag");
    let verify = |name: &str, hash: &str| json!({ name: hash, "blob": repeat("00", BLOB_LEN) });
    // SHA-256 of 2^20 + 16 zeros, and of 2^20; BLAKE3 of the same.
    let good = "a86ee907205f2af34454484ed36c48579b7ca92e1f80b3d4df208a2f9e620fc5";
    let short = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58";
    cases.accept("the id of what is there", "verify", verify("id", good));
    cases.accept("the id of a part of it", "verify", verify("id", short));
    let root = |length: usize| hex(blake3::hash(&vec![0; length]).as_bytes());
    cases.accept("the root of what is there", "verify", verify("root", &root(BLOB_LEN)));
    cases.accept("the root of a part of it", "verify", verify("root", &root(PLAIN_LEN)));
    cases.accept("its id as its root", "verify", verify("root", good));
    filling_cases(cases);
    part_cases(cases);
    chunk_cases(cases);
    slice_cases(cases);
}

/// The sealed blob of some content under [`KEY`].
fn native(content: &[u8]) -> Vec<u8> {
    let mut blob = content.to_vec();
    blob.resize(BLOB_LEN, 0);
    let key = Secret::new(core::array::from_fn(|i| 0x80 + u8::try_from(i).expect("below 32")));
    assert_eq!(hex(key.expose()), KEY);
    blob::seal_with_key(&key, &mut blob, content.len());
    blob
}

/// Blobs whose filling is what the key makes, and others. Every one of them opens.
fn filling_cases(cases: &mut Cases) {
    let seal = |plain: &Value| sealed(KEY, &"00".repeat(12), plain);
    let fits = |length: usize, blob: &Value| json!({ "key": KEY, "length": length, "blob": blob });
    let full = seal(&repeat("616263", PLAIN_LEN));
    cases.accept("a full blob has no filling", "fits", fits(PLAIN_LEN, &full));
    cases.reject("a full blob taken for a shorter one", "fits", fits(PLAIN_LEN - 1, &full), "filling");
    let zeros = seal(&json!({ "patch": repeat("00", PLAIN_LEN), "at": 0, "with": "78" }));
    cases.reject("filling of zeros", "fits", fits(1, &zeros), "filling");
    cases.reject(
        "filling of zeros, and no content",
        "fits",
        fits(0, &seal(&repeat("00", PLAIN_LEN))),
        "filling",
    );
    // The right filling but for its last bit.
    let mut plain = native(b"x");
    let key = Secret::new(core::array::from_fn(|i| 0x80 + u8::try_from(i).expect("below 32")));
    parts::crypt(&key, 0, &mut plain[..PLAIN_LEN]);
    let tail = hex(&[plain[PLAIN_LEN - 1] ^ 1]);
    let filling = json!({ "keystream": { "key": KEY, "nonce": "ff".repeat(12), "length": PLAIN_LEN - 1 } });
    let right = json!({ "patch": repeat("78", PLAIN_LEN), "at": 1, "with": filling });
    cases.accept("the filling of a byte", "fits", fits(1, &seal(&right)));
    cases.reject("the filling of a byte, taken for two", "fits", fits(2, &seal(&right)), "filling");
    let wrong = json!({ "patch": right, "at": PLAIN_LEN - 1, "with": tail });
    cases.reject("filling whose last bit is wrong", "fits", fits(1, &seal(&wrong)), "filling");
}

fn part_cases(cases: &mut Cases) {
    let blob = native(&(0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>());
    let values = hex(Values::of(&blob).as_bytes());
    cases.accept("the root that values give", "root", json!({ "values": values }));
    cases.accept("values of zeros give a root too", "root", json!({ "values": "00".repeat(528) }));
    let other = values.replacen(&values[..2], "00", 1);
    cases.accept("another value gives another root", "root", json!({ "values": other }));
    let other = format!("{}00", &values[..1054]);
    cases.accept("another tag gives another root", "root", json!({ "values": other }));
    let content = json!({ "counter": 200_000 });
    let part = |part: usize, at: usize, length: usize| {
        let sealed =
            json!({ "cut": { "native": { "key": KEY, "content": content } }, "at": at, "length": length });
        json!({ "values": values, "part": part, "sealed": sealed, "key": KEY })
    };
    for n in [0, 1, 3, 15] {
        cases.accept(format!("part {n}"), "part", part(n, n * PART_LEN, PART_LEN));
    }
    for (name, input) in [
        ("a part at another place", part(1, 0, PART_LEN)),
        ("a part from the middle of two", part(0, 16, PART_LEN)),
        ("a part that is a byte short", part(0, 0, PART_LEN - 1)),
        ("a part that is a byte too long", part(0, 0, PART_LEN + 1)),
        ("a part of nothing", part(0, 0, 0)),
        ("a part beyond the last", part(16, 15 * PART_LEN, PART_LEN)),
        ("the tag as a part", part(16, PLAIN_LEN, 16)),
    ] {
        cases.reject(name, "part", input, "part");
    }
    let mut damaged = part(2, 2 * PART_LEN, PART_LEN);
    damaged["sealed"] = json!({ "patch": damaged["sealed"], "at": PART_LEN - 1, "with": "00" });
    cases.reject("a part with a wrong byte", "part", damaged, "part");
    let mut other = part(2, 2 * PART_LEN, PART_LEN);
    other["values"] = "00".repeat(528).into();
    cases.reject("a part under other values", "part", other, "part");
}

fn slice_cases(cases: &mut Cases) {
    cases.section(3);
    let content = b"a slice of a pack";
    let pack = |at: usize| {
        let sealed = sealed(KEY, &"00".repeat(12), &hex(content).into());
        json!({ "patch": repeat("a55a", BLOB_LEN), "at": at, "with": sealed })
    };
    let open =
        |offset: u64, length: u64, pack: &Value| json!({ "slice": [7, offset, length, KEY], "pack": pack });
    let last = PLAIN_LEN as u64 - 48;
    cases.accept("a slice of a pack", "slice", open(48, 17, &pack(48)));
    cases.accept("a slice at a pack's beginning", "slice", open(0, 17, &pack(0)));
    cases.accept("a slice that ends where the last 16 bytes begin", "slice", {
        let at = PLAIN_LEN - 48;
        let sealed = sealed(KEY, &"00".repeat(12), &repeat("61", 32));
        open(last, 32, &json!({ "patch": repeat("a55a", BLOB_LEN), "at": at, "with": sealed }))
    });
    cases.reject("a slice of another length", "slice", open(48, 16, &pack(48)), "tag");
    cases.reject("a slice of a pack at another place", "slice", open(64, 17, &pack(48)), "tag");
    for (name, offset, length) in [
        ("a slice of nothing", 48, 0),
        ("a slice that begins between multiples of 16", 40, 17),
        ("a slice that ends a byte too late", last, 33),
        ("a slice in the last 16 bytes", PLAIN_LEN as u64, 1),
        ("a slice whose end is beyond all numbers", 0xffff_fff0, 0xffff_ffff),
        ("a slice at 2^32", 1 << 32, 17),
    ] {
        cases.reject(name, "slice", open(offset, length, &pack(48)), "malformed");
    }
    let with = |slice: Value| json!({ "slice": slice, "pack": pack(48) });
    cases.reject("a slice without a key", "slice", with(json!([7, 48, 17])), "malformed");
    cases.reject(
        "a slice with a key of 31 bytes",
        "slice",
        with(json!([7, 48, 17, "11".repeat(31)])),
        "malformed",
    );
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
