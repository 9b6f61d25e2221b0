//! What goes beyond v5: the messages in CBOR, channels' tags, and the numbering of a channel's blobs.

use std::collections::BTreeMap;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{BLOB_LEN, PLAIN_LEN};
use megatorrent_core::codec::{Have, Message, Tag, kind};
use megatorrent_core::ids::{BlobId, Secret, Topic};
use megatorrent_core::limits::{HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX, PIECE_LEN_MAX, WATCH_TAGS_MAX};
use megatorrent_core::transport::Role;
use megatorrent_core::tree::{Node, TreeRef};
use megatorrent_core::uri;
use serde_json::{Map, Value, json};

use super::handshake::{finish, secrets};
use super::message::{decode, message};
use super::{Cases, Fault, Input, Layer, author, channel, hex, public_key, repeat, secret};
use crate::value::{digest, integer, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "v6",
    about: "decode: plaintext of a frame -> the message, and the plaintext with which it is sent; tags and positions are \
            joined, positions as u32. tag: dialler_secret, listener_secret (X25519), public_key, read_key (null: public) -> \
            the connection's tag key, the channel's topic, and its tag. positions: body (null: none) and files, each a tree \
            reference or a list of blob ids, and the plaintexts of the index blobs by id -> the number of positions, the \
            ids in their order, joined, and the first position of each.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "decode" => decode(input),
        "tag" => {
            let tag_key = finish(input, Role::Dialler)?.tag_key;
            let read_key = input.optional("read_key").map(|_| secret(input, "read_key")).transpose()?;
            let topic = uri::topic(&public_key(input, "public_key")?, read_key.as_ref());
            Ok(describe_tag(&tag_key, &topic))
        }
        "positions" => positions(input),
        _ => Err(no_such_op(op)),
    }
}

fn describe_tag(tag_key: &Secret, topic: &Topic) -> Value {
    let tag = uri::tag(tag_key, topic);
    json!({ "tag_key": hex(tag_key.expose()), "topic": hex(&topic.0), "tag": hex(&tag.0) })
}

// --- positions ----------------------------------------------------------------------------------------------

fn positions(input: Input<'_>) -> Result<Value, Fault> {
    let mut ids = Vec::new();
    for file in input.optional("body").into_iter().chain(input.list("files")?) {
        if file.optional("chunks").is_some() {
            ids.extend(chunk_ids(file)?);
        } else {
            let tree = TreeRef::from_bytes(&file.array("tree")?).ok_or(Fault::Reject("depth"))?;
            visit(&tree.root(), input.object("index")?, &mut ids)?;
        }
    }
    let mut first = BTreeMap::new();
    for (position, id) in ids.iter().enumerate() {
        first.entry(id.to_hex()).or_insert(position);
    }
    let first: Map<String, Value> = first.into_iter().map(|(id, position)| (id, position.into())).collect();
    Ok(json!({ "count": ids.len(), "ids": digest(&joined(&ids, |id| id.0)), "first": first }))
}

fn chunk_ids(file: Input<'_>) -> Result<Vec<BlobId>, Fault> {
    let ids = file.list("chunks")?.into_iter().map(|id| {
        let bytes = id.as_bytes()?.try_into();
        bytes.map(BlobId).map_err(|_| Fault::BadVector("a blob id has 32 bytes".into()))
    });
    ids.collect()
}

/// A blob, then all that lies below it.
fn visit(node: &Node, index: Input<'_>, ids: &mut Vec<BlobId>) -> Result<(), Fault> {
    ids.push(node.link.id);
    if node.height > 0 {
        let plain = index.bytes(&node.link.id.to_hex())?;
        for child in node.children(&plain) {
            visit(&child, index, ids)?;
        }
    }
    Ok(())
}

fn joined<T, const N: usize>(list: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    list.iter().flat_map(bytes).collect()
}

// --- messages -----------------------------------------------------------------------------------------------

/// What a message beyond v5 says; `None`: it is one of v5's.
pub(super) fn describe(message: &Message) -> Option<Value> {
    Some(match message {
        Message::GetHead { tag, known, look_up } => {
            let look_up = look_up.map(|key| key.to_string());
            json!({ "type": "GET_HEAD", "tag": hex(&tag.0), "known": integer(*known), "look_up": look_up })
        }
        Message::Head(tag, item) => {
            let item = item.as_ref().map(super::message::describe_item);
            json!({ "type": "HEAD", "tag": hex(&tag.0), "item": item })
        }
        Message::Watch(tags) => {
            json!({ "type": "WATCH", "count": tags.len(), "tags": digest(&joined(tags, |tag| tag.0)) })
        }
        Message::Want { id, blob, range } => {
            let length = range.end - range.start;
            json!({ "type": "WANT", "number": id, "blob": blob.to_hex(), "offset": range.start, "length": length })
        }
        Message::Piece { id, offset, bytes } => {
            json!({ "type": "PIECE", "number": id, "offset": offset, "bytes": digest(bytes) })
        }
        Message::Cancel { id, from } => json!({ "type": "CANCEL", "number": id, "offset": from }),
        Message::AskHave(tag, sequence) => {
            json!({ "type": "ASK_HAVE", "tag": hex(&tag.0), "sequence": integer(*sequence) })
        }
        Message::Have(tag, sequence, have) => {
            let (name, have) = match have {
                Have::All => ("all", true.into()),
                Have::Bitmap(bits) => ("bitmap", digest(bits)),
                Have::Positions(list) => ("positions", digest(&joined(list, |p| p.to_be_bytes()))),
            };
            json!({ "type": "HAVE", "tag": hex(&tag.0), "sequence": integer(*sequence), name: have })
        }
        _ => return None,
    })
}

const TAG: Tag = Tag([0xA5; 16]);

/// The tag as member 1.
fn tag_member() -> String {
    format!("0150{}", hex(&TAG.0))
}

/// A message whose payload is this hex; white space in it means nothing.
fn raw(kind: u8, payload: &str) -> Value {
    json!({ "plaintext": format!("{kind:02x}{}", payload.replace(' ', "")) })
}

/// A message as core writes it.
fn written(message: &Message) -> Value {
    json!({ "plaintext": hex(&message.encode()) })
}

fn cases(cases: &mut Cases) {
    cases.section(12);
    head_cases(cases);
    watch_cases(cases);
    cbor_cases(cases);
    want_cases(cases);
    piece_cases(cases);
    have_cases(cases);
    tag_cases(cases);
    position_cases(cases);
}

fn head_cases(cases: &mut Cases) {
    let key = author().public_key();
    let item = || SignedItem::sign(&author(), 7, b"value".to_vec()).expect("short");
    let tag = tag_member();
    cases.accept("GET_HEAD", "decode", written(&Message::GetHead { tag: TAG, known: 7, look_up: None }));
    let look_up = Message::GetHead { tag: TAG, known: u64::MAX, look_up: Some(key) };
    cases.accept("GET_HEAD with a public key and the highest sequence", "decode", written(&look_up));
    let small_order = format!("035820{}01", "00".repeat(31));
    for (name, payload) in [
        ("without a sequence", format!("a1{tag}")),
        ("without a tag", "a10207".into()),
        ("of a negative sequence", format!("a2{tag}0220")),
        ("of a sequence that is a text", format!("a2{tag}026137")),
        ("of the lowest number", format!("a2{tag}023bffffffffffffffff")),
        ("with a public key of 31 bytes", format!("a3{tag}020703581f{}", "11".repeat(31))),
        ("with a public key that is no point", format!("a3{tag}0207{small_order}")),
        ("with null for a public key", format!("a3{tag}020703f6")),
    ] {
        cases.reject(format!("GET_HEAD {name}"), "decode", raw(kind::GET_HEAD, &payload), "malformed");
    }
    cases.accept("HEAD, none newer", "decode", written(&Message::Head(TAG, None)));
    cases.accept("HEAD", "decode", written(&Message::Head(TAG, Some(item()))));
    let mut forged = item();
    forged.seq = 8;
    cases.accept(
        "HEAD whose signature does not verify",
        "decode",
        written(&Message::Head(TAG, Some(forged))),
    );
    let mut negative = item();
    negative.seq = -1;
    cases.accept("HEAD with a negative seq", "decode", written(&Message::Head(TAG, Some(negative))));
    cases.accept(
        "HEAD without a public key says none newer",
        "decode",
        raw(kind::HEAD, &format!("a2{tag}0307")),
    );
    let (key, sig) = (format!("025820{}", hex(key.as_bytes())), format!("055840{}", hex(&item().signature)));
    for (name, payload) in [
        ("without seq", format!("a4{tag}{key}044176{sig}")),
        ("without v", format!("a4{tag}{key}0307{sig}")),
        ("without sig", format!("a4{tag}{key}0307044176")),
        ("with a seq of 2^63", format!("a5{tag}{key}031b8000000000000000044176{sig}")),
        ("whose v is a text", format!("a5{tag}{key}0307046176{sig}")),
        ("with a sig of 63 bytes", format!("a5{tag}{key}030704417605583f{}", "11".repeat(63))),
        ("without a tag", format!("a4{key}0307044176{sig}")),
    ] {
        cases.reject(format!("HEAD {name}"), "decode", raw(kind::HEAD, &payload), "malformed");
    }
}

fn watch_cases(cases: &mut Cases) {
    let watch = |payload: &str| raw(kind::WATCH, payload);
    cases.accept("WATCH", "decode", written(&Message::Watch([Tag([1; 16]), Tag([2; 16])].into())));
    cases.accept("WATCH of nothing", "decode", watch("a10180"));
    cases.accept("WATCH of one tag twice", "decode", written(&Message::Watch([TAG, TAG].into())));
    // A tag of bytes 0x50 has a head of 0x50 too.
    let many = |count: usize| {
        let header = format!("12a10199{count:04x}");
        json!({ "plaintext": { "patch": repeat("50", 6 + 17 * count), "at": 0, "with": header } })
    };
    cases.accept("WATCH with as many tags as are read", "decode", many(WATCH_TAGS_MAX));
    cases.accept("WATCH with one tag more", "decode", many(WATCH_TAGS_MAX + 1));
    for (name, payload) in [
        ("with a tag of 15 bytes", format!("a10181 4f{}", "11".repeat(15))),
        ("with a tag of 17 bytes", format!("a10181 51{}", "11".repeat(17))),
        ("with a tag that is a text", format!("a10181 70{}", "61".repeat(16))),
        ("with a tag in place of a list", format!("a101 50{}", "11".repeat(16))),
        ("without a list", "a0".into()),
        ("whose list ends early", format!("a10182 50{}", "11".repeat(16))),
    ] {
        cases.reject(format!("WATCH {name}"), "decode", watch(&payload), "malformed");
    }
}

/// The same message in every form of CBOR that is read, and in those that are not.
fn cbor_cases(cases: &mut Cases) {
    let cancel = |payload: &str| raw(kind::CANCEL, payload);
    for (name, payload) in [
        ("CANCEL", "a2 0109 021903e8"),
        ("CANCEL of the highest number at the highest offset", "a2 011affffffff 021affffffff"),
        ("CANCEL with keys that descend", "a2 021903e8 0109"),
        ("CANCEL with an unknown key", "a3 0109 021903e8 0363616263"),
        ("CANCEL with unknown keys that are no integers", "a5 616109 0109 f5f6 021903e8 8001"),
        ("CANCEL with a float that is like a key", "a4 0109 f93c0007 021903e8 fb3ff000000000000007"),
        (
            "CANCEL with an unknown value that is a float, an undefined and a tagged one",
            "a5 0109 021903e8 03f97e00 04f7 05c11a00000001",
        ),
        ("CANCEL with the first key again", "a3 0109 021903e8 010a"),
        ("CANCEL with heads that are not the shortest", "b90002 18011a00000009 1900021b00000000000003e8"),
        ("CANCEL in an indefinite map", "bf 0109 021903e8 ff"),
        (
            "CANCEL with an unknown value of indefinite length",
            "a3 0109 021903e8 03 9f 5f4101ff 7f6161ff bf0001ff ff",
        ),
        ("CANCEL with bytes after the map", "a2 0109 021903e8 00ff"),
    ] {
        cases.accept(name, "decode", cancel(payload));
    }
    refused_cbor_cases(cases);
    let deep = |depth: usize| cancel(&format!("a3 0109 0200 03 {} 00", "81".repeat(depth)));
    cases.accept("CANCEL nested 16 deep", "decode", deep(15));
    cases.reject("CANCEL nested 17 deep", "decode", deep(16), "malformed");
    cases.reject(
        "CANCEL nested 60 000 deep",
        "decode",
        json!({ "plaintext": {
        "patch": repeat("81", 60_000), "at": 0, "with": "15a30109020003" } }),
        "malformed",
    );
}

fn refused_cbor_cases(cases: &mut Cases) {
    for (name, payload) in [
        ("without payload", ""),
        ("that is no map", "82 01 02"),
        ("that is a number", "09"),
        ("that is a tagged map", "c1 a2 0109 0200"),
        ("without a number", "a1 0200"),
        ("without an offset", "a1 0109"),
        ("of a negative number", "a2 0120 0200"),
        ("of a number of 2^32", "a2 011b0000000100000000 0200"),
        ("at an offset of 2^32", "a2 0109 021b0000000100000000"),
        ("of a float", "a2 01f94880 0200"),
        ("at a float", "a2 0109 02fb0000000000000000"),
        ("of a number that is a text", "a2 016139 0200"),
        ("of a number that is bytes", "a2 014109 0200"),
        ("of a number that is true", "a2 01f5 0200"),
        ("of a tagged number", "a2 01c109 0200"),
        ("that ends within the map", "a2 0109 02"),
        ("that ends within a head", "a2 0109 0219"),
        ("in an indefinite map without an end", "bf 0109 0200"),
        ("with a key without a value", "bf 0109 0200 03 ff"),
        ("with a break in a map of two", "a2 0109 ff"),
        ("with a reserved head", "a3 0109 0200 031c"),
        ("with a text that is no UTF-8", "a3 0109 0200 0361ff"),
        ("with a text that ends early", "a3 0109 0200 036261"),
        ("with a text of 2^63 bytes", "a3 0109 0200 037b8000000000000000"),
        ("with a list of 2^32 - 1", "a3 0109 0200 039affffffff"),
        ("with a map of 2^64 - 1", "a3 0109 0200 03bbffffffffffffffff"),
        ("with an indefinite text that holds bytes", "a3 0109 0200 037f4161ff"),
    ] {
        cases.reject(format!("CANCEL {name}"), "decode", raw(kind::CANCEL, payload), "malformed");
    }
}

fn want_cases(cases: &mut Cases) {
    let blob = format!("025820{}", "bb".repeat(32));
    let end = u32::try_from(BLOB_LEN).expect("small");
    let of = |id, range| written(&Message::Want { id, blob: BlobId([0xBB; 32]), range });
    cases.accept("WANT of a whole blob", "decode", of(0, 0..end));
    cases.accept("WANT of one byte", "decode", of(u32::MAX, 0..1));
    cases.accept("WANT of a blob's last byte", "decode", of(1, end - 1..end));
    let raw = |offset: &str, length: &str| raw(kind::WANT, &format!("a4 0101 {blob} 03{offset} 04{length}"));
    for (name, input) in [
        ("of nothing", raw("00", "00")),
        ("of nothing at the blob's end", raw("1a00100010", "00")),
        ("of a byte more than a blob", raw("00", "1a00100011")),
        ("beyond the blob", raw("1a00100010", "01")),
        ("that leaves the blob", raw("1a0010000f", "02")),
        ("whose end does not fit 32 bits", raw("1affffffff", "1affffffff")),
        ("from a negative offset", raw("20", "01")),
        ("of a negative length", raw("00", "20")),
        ("from a float", raw("f90000", "01")),
        ("of 2^32 bytes", raw("00", "1b0000000100000000")),
    ] {
        cases.reject(format!("WANT {name}"), "decode", input, "malformed");
    }
    for (name, payload) in [
        ("without a blob", "a3 0101 0300 0401".to_owned()),
        ("without a number", format!("a3 {blob} 0300 0401")),
        ("without a length", format!("a3 0101 {blob} 0300")),
        ("of an id of 31 bytes", format!("a4 0101 02581f{} 0300 0401", "bb".repeat(31))),
        ("of an id of 64 digits", format!("a4 0101 027840{} 0300 0401", hex("bb".repeat(32).as_bytes()))),
    ] {
        cases.reject(format!("WANT {name}"), "decode", super::v6::raw(kind::WANT, &payload), "malformed");
    }
}

fn piece_cases(cases: &mut Cases) {
    let piece = |bytes: &[u8]| written(&Message::Piece { id: 9, offset: 61_696, bytes: bytes.to_vec() });
    cases.accept("PIECE", "decode", piece(b"bytes of a blob"));
    cases.accept("PIECE that refuses", "decode", piece(b""));
    cases.accept("PIECE with the highest numbers", "decode", message(kind::PIECE, [0xFF; 9]));
    let long = |length: usize| json!({ "plaintext": { "patch": repeat("5a", 9 + length), "at": 0, "with": "140000000100000000" } });
    cases.accept("PIECE of 65 520 bytes", "decode", long(PIECE_LEN_MAX));
    cases.reject("PIECE of 65 521 bytes", "decode", long(PIECE_LEN_MAX + 1), "malformed");
    cases.reject("PIECE without payload", "decode", message(kind::PIECE, b""), "malformed");
    cases.reject("PIECE that ends within its offset", "decode", message(kind::PIECE, [0; 7]), "malformed");
}

fn have_cases(cases: &mut Cases) {
    let tag = tag_member();
    cases.accept("ASK_HAVE", "decode", written(&Message::AskHave(TAG, 1_700_000_000_000)));
    let have = |have| written(&Message::Have(TAG, 7, have));
    cases.accept("HAVE of all", "decode", have(Have::All));
    cases.accept("HAVE of positions 0, 7 and 8", "decode", have(Have::Bitmap([0x81, 0x80].into())));
    cases.accept("HAVE of nothing, in a bitmap", "decode", have(Have::Bitmap([].into())));
    cases.accept(
        "HAVE of a list of positions",
        "decode",
        have(Have::Positions([0, 70_000, u32::MAX].into())),
    );
    cases.accept("HAVE of nothing, in a list", "decode", have(Have::Positions([].into())));
    let with = |members: &str| raw(kind::HAVE, &format!("a4{tag}0207{members}"));
    cases.accept("HAVE with a bitmap and a list", "decode", with("048101034107"));
    let long = |front: &str, filler: &str, length: usize| {
        let front = format!("17a3{tag}0207{front}");
        json!({ "plaintext": { "patch": repeat(filler, front.len() / 2 + length), "at": 0, "with": front } })
    };
    let bytes = HAVE_BLOBS_MAX / 8;
    let bitmap = |length: usize| long(&format!("0359{length:04x}"), "aa", length);
    cases.accept("HAVE with as long a bitmap as is read", "decode", bitmap(bytes));
    cases.accept("HAVE with a bitmap a byte longer", "decode", bitmap(bytes + 1));
    let list = |count: usize| long(&format!("0499{count:04x}"), "07", count);
    cases.accept("HAVE with as many positions as are read", "decode", list(HAVE_POSITIONS_MAX));
    cases.accept("HAVE with one position more", "decode", list(HAVE_POSITIONS_MAX + 1));
    for (kind, what, payload) in [
        (kind::ASK_HAVE, "ASK_HAVE without a sequence", format!("a1{tag}")),
        (kind::ASK_HAVE, "ASK_HAVE of a negative sequence", format!("a2{tag}0220")),
        (kind::ASK_HAVE, "ASK_HAVE with a short tag", format!("a2014f{}0207", "a5".repeat(15))),
        (kind::HAVE, "HAVE of what, it does not say", format!("a2{tag}0207")),
        (kind::HAVE, "HAVE of all, or not", format!("a3{tag}020705f4")),
        (kind::HAVE, "HAVE of all, as a number", format!("a3{tag}02070501")),
        (kind::HAVE, "HAVE with a bitmap that is a list", format!("a3{tag}0207038101")),
        (kind::HAVE, "HAVE with a list that is a bitmap", format!("a3{tag}0207044101")),
        (kind::HAVE, "HAVE of a negative position", format!("a3{tag}0207048120")),
        (kind::HAVE, "HAVE of position 2^32", format!("a3{tag}020704811b0000000100000000")),
        (kind::HAVE, "HAVE of a position that is a float", format!("a3{tag}02070481f93c00")),
        (kind::HAVE, "HAVE without a sequence", format!("a2{tag}05f5")),
        (kind::HAVE, "HAVE without a tag", "a2020705f5".into()),
    ] {
        cases.reject(what, "decode", raw(kind, &payload), "malformed");
    }
}

fn tag_cases(cases: &mut Cases) {
    let (dialler, listener) = secrets();
    let tag = |read_key: Value| json!({ "dialler_secret": dialler, "listener_secret": listener, "public_key": channel(), "read_key": read_key });
    cases.accept("a public channel's tag", "tag", tag(Value::Null));
    cases.accept("a private channel's tag", "tag", tag("7a".repeat(32).into()));
    let other = json!({ "dialler_secret": "01".repeat(32), "listener_secret": "02".repeat(32), "public_key": channel(), "read_key": null });
    cases.accept("the public channel's tag on another connection", "tag", other);
}

fn position_cases(cases: &mut Cases) {
    const MIB: u64 = PLAIN_LEN as u64;
    let tree = |size: u64, depth: u8, id: u8| {
        let reference = [&size.to_be_bytes()[..], &[depth], &[id; 32], &[0xEE; 32]].concat();
        json!({ "tree": hex(&reference) })
    };
    let id = |id: u8| hex(&[id; 32]);
    let link = |id: u8| [[id; 32], [0xEE; 32]].concat();
    // Bytes after the links mean nothing, so that there may be links of other files.
    let links = |ids: &[u8]| {
        let links: Vec<u8> = ids.iter().flat_map(|id| link(*id)).collect();
        json!({ "patch": repeat("ff", PLAIN_LEN), "at": 0, "with": hex(&links) })
    };
    let one = json!({ "body": null, "files": [tree(0, 0, 1)], "index": {} });
    cases.accept("positions of one empty file", "positions", one);
    let files = json!({
        "body": tree(2 * MIB, 1, 1),
        "files": [
            tree(7, 0, 4),
            tree(3 * MIB, 1, 5),
            { "chunks": [id(9), id(10), id(9)] },
            { "chunks": [] },
            tree(MIB, 0, 4),
        ],
        "index": { id(1): links(&[2, 3]), id(5): links(&[8, 7, 6]) },
    });
    cases.accept("positions of a body, trees, and chunk lists", "positions", files);
    let ten = json!({ "body": null, "files": vec![tree(1, 0, 3); 10], "index": {} });
    cases.accept("positions of one content ten times", "positions", ten);
    let deep = json!({
        "body": null,
        "files": [tree(16_386 * MIB, 2, 1), tree(1, 0, 6)],
        "index": { id(1): links(&[2, 3]), id(2): repeat(&hex(&link(4)), PLAIN_LEN), id(3): links(&[5, 7]) },
    });
    cases.accept("positions of a tree of depth 2, in preorder", "positions", deep);
}
