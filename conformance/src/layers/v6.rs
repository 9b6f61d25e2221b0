//! The protocol beyond v5: the messages in CBOR, channels' tags, and the numbering of a channel's blobs.

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::codec::{Have, Message, Tag, Want, kind};
use megatorrent_core::ids::{Root, Secret, Topic};
use megatorrent_core::limits::{HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX, PIECE_LEN_MAX, WATCH_TAGS_MAX};
use megatorrent_core::parts::{Mask, VALUES_LEN, Values};
use megatorrent_core::transport::Role;
use megatorrent_core::uri;
use serde_json::{Value, json};

use super::handshake::{finish, secrets};
use super::message::{decode, message};
use super::{
    Cases, Fault, Input, Layer, author, channel, hex, positions, public_key, repeat, secret, violation,
};
use crate::value::{digest, integer, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "v6",
    about: "decode: plaintext of a frame -> the message, and the plaintext with which it is sent; tags, positions and pairs are \
            joined, positions as u32, masks as u16. parts: root, plaintext of a PARTS -> its values; refused (root) where they give \
            another root. tag: dialler_secret, listener_secret (X25519), public_key, read_key (null: public) -> the connection's tag \
            key, the channel's topic, and its tag. positions: body (null: none; its cbor, its tree in 73 bytes and the cbor of its \
            pages), items (of a head without one), and the contents of the index blobs by root -> the number of positions, the \
            blobs' names (roots, and ids of v5 blobs) in their order, joined, the first position of each, and that of each page's items.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "decode" => decode(input),
        "parts" => parts(input),
        "tag" => {
            let tag_key = finish(input, Role::Dialler)?.tag_key;
            let read_key = input.optional("read_key").map(|_| secret(input, "read_key")).transpose()?;
            let topic = uri::topic(&public_key(input, "public_key")?, read_key.as_ref());
            Ok(describe_tag(&tag_key, &topic))
        }
        "positions" => positions::run(input),
        _ => Err(no_such_op(op)),
    }
}

fn describe_tag(tag_key: &Secret, topic: &Topic) -> Value {
    let tag = uri::tag(tag_key, topic);
    json!({ "tag_key": hex(tag_key.expose()), "topic": hex(&topic.0), "tag": hex(&tag.0) })
}

fn parts(input: Input<'_>) -> Result<Value, Fault> {
    let message = Message::decode(&input.bytes("plaintext")?).map_err(violation)?;
    let Message::Parts { values, .. } = message else { return Err(Fault::BadVector("no PARTS".into())) };
    if values.root().0 != input.array("root")? {
        return Err(Fault::Reject("root"));
    }
    Ok(digest(values.as_bytes()))
}

// --- messages -----------------------------------------------------------------------------------------------

/// Reads a message beyond v5; `None`: it is one of v5's.
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
        Message::Want(Want { number, root, mask, values, last_len }) => {
            let asked = json!({ "type": "WANT", "number": number, "root": hex(&root.0) });
            with(asked, json!({ "mask": mask.0, "values": values, "last_len": last_len }))
        }
        Message::Parts { number, values } => {
            json!({ "type": "PARTS", "number": number, "values": digest(values.as_bytes()) })
        }
        Message::Piece { number, part, half, bytes } => {
            json!({ "type": "PIECE", "number": number, "part": part, "half": half, "bytes": digest(bytes) })
        }
        Message::Cancel { number, mask } => json!({ "type": "CANCEL", "number": number, "mask": mask.0 }),
        Message::AskHave(tag, sequence) => {
            json!({ "type": "ASK_HAVE", "tag": hex(&tag.0), "sequence": integer(*sequence) })
        }
        Message::Have(tag, sequence, have) => {
            let about = json!({ "type": "HAVE", "tag": hex(&tag.0), "sequence": integer(*sequence) });
            with(about, describe_have(have))
        }
        _ => return None,
    })
}

fn describe_have(have: &Have) -> Value {
    let pair = |(at, mask): &(u32, Mask)| -> [u8; 6] {
        let bytes = [&at.to_be_bytes()[..], &mask.0.to_be_bytes()].concat();
        bytes.try_into().expect("four and two bytes")
    };
    json!({
        "replaces": have.replaces,
        "all": have.all,
        "bitmap": digest(&have.bitmap),
        "positions": digest(&joined(&have.positions, |at| at.to_be_bytes())),
        "under_way": digest(&joined(&have.under_way, pair)),
    })
}

/// The members of two objects.
fn with(mut object: Value, more: Value) -> Value {
    if let (Some(members), Value::Object(more)) = (object.as_object_mut(), more) {
        members.extend(more);
    }
    object
}

fn joined<T, const N: usize>(list: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    list.iter().flat_map(bytes).collect()
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
    parts_cases(cases);
    have_cases(cases);
    refused_have_cases(cases);
    tag_cases(cases);
    positions::cases(cases);
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
        ("CANCEL of the highest number and every part", "a2 011affffffff 0219ffff"),
        ("CANCEL of no part", "a2 0109 0200"),
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
        ("without a mask", "a1 0109"),
        ("of a negative number", "a2 0120 0200"),
        ("of a number of 2^32", "a2 011b0000000100000000 0200"),
        ("of a mask of 2^16", "a2 0109 021a00010000"),
        ("of a negative mask", "a2 0109 0220"),
        ("of a float", "a2 01f94880 0200"),
        ("of a mask that is a float", "a2 0109 02fb3ff0000000000000"),
        ("of a mask that is bytes", "a2 0109 02420001"),
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
    let root = Root([0xBB; 32]);
    let of = |mask, values, last_len| {
        written(&Message::Want(Want { number: 1, root, mask: Mask(mask), values, last_len }))
    };
    cases.accept("WANT of a whole blob and its values", "decode", of(0xFFFF, true, None));
    cases.accept("WANT of the first part", "decode", of(1, false, None));
    cases.accept("WANT of the last part", "decode", of(0x8000, false, None));
    cases.accept("WANT of 4096 bytes of the second part", "decode", of(2, false, Some(4096)));
    cases.accept("WANT of all of the third part but 4096 bytes", "decode", of(7, true, Some(61_440)));
    let highest = Want { number: u32::MAX, root, mask: Mask(1), values: false, last_len: None };
    cases.accept("WANT of the highest number", "decode", written(&Message::Want(highest)));
    let blob = format!("025820{}", "bb".repeat(32));
    let with = |members: &str| raw(kind::WANT, &format!("a4 0101 {blob} {members}"));
    for (name, input) in [
        ("of no part", with("0300 04f5")),
        ("of a mask of 2^16", with("031a00010000 04f5")),
        ("of a negative mask", with("0320 04f5")),
        ("of a mask that is a float", with("03f93c00 04f5")),
        ("of a mask that is a list", with("038101 04f5")),
        ("of no values, in so many words", with("0301 04f4")),
        ("of values, as a number", with("0301 0401")),
        ("of values, as null", with("0301 04f6")),
        ("of none of the last part", with("0301 0500")),
        ("of 4095 bytes of the last part", with("0301 05190fff")),
        ("of 4097 bytes of the last part", with("0301 05191001")),
        ("of 65536 bytes of the last part", with("0301 051a00010000")),
        ("of 69632 bytes of the last part", with("0301 051a00011000")),
        ("of 2^32 bytes of the last part", with("0301 051b0000000100000000")),
        ("of a negative length of the last part", with("0301 05390fff")),
        ("of a length that is a float", with("0301 05fb40b0000000000000")),
        ("of a length that is null", with("0301 05f6")),
        ("with a length in place of the values", with("0301 04191000")),
    ] {
        cases.reject(format!("WANT {name}"), "decode", input, "malformed");
    }
    for (name, payload) in [
        ("without a root", "a2 0101 0301".to_owned()),
        ("without a number", format!("a2 {blob} 0301")),
        ("without a mask", format!("a2 0101 {blob}")),
        ("of a number of 2^32", format!("a3 011b0000000100000000 {blob} 0301")),
        ("of a root of 31 bytes", format!("a3 0101 02581f{} 0301", "bb".repeat(31))),
        ("of a root of 33 bytes", format!("a3 0101 025821{} 0301", "bb".repeat(33))),
        ("of a root in 64 digits", format!("a3 0101 027840{} 0301", hex("bb".repeat(32).as_bytes()))),
    ] {
        cases.reject(format!("WANT {name}"), "decode", raw(kind::WANT, &payload), "malformed");
    }
}

fn piece_cases(cases: &mut Cases) {
    let piece = |part: u8, half: u8, bytes: &[u8]| {
        written(&Message::Piece { number: 9, part, half, bytes: bytes.to_vec() })
    };
    cases.accept("PIECE", "decode", piece(3, 0, b"bytes of a blob"));
    cases.accept("PIECE of the last half", "decode", piece(15, 1, b"bytes of a blob"));
    cases.accept("PIECE that refuses", "decode", piece(0, 0, b""));
    cases.accept("PIECE without bytes of another half", "decode", piece(0, 1, b""));
    let highest = [&[0xFF; 4][..], &[15, 1, 0xFF]].concat();
    cases.accept("PIECE with the highest numbers", "decode", message(kind::PIECE, highest));
    let long = |length: usize| json!({ "plaintext": { "patch": repeat("5a", 7 + length), "at": 0, "with": "14000000010001" } });
    cases.accept("PIECE of 32768 bytes", "decode", long(PIECE_LEN_MAX));
    cases.reject("PIECE of 32769 bytes", "decode", long(PIECE_LEN_MAX + 1), "malformed");
    cases.reject("PIECE of as many bytes as fit the frame", "decode", long(65_529), "malformed");
    for (name, payload) in [
        ("without payload", &[][..]),
        ("that ends before its half", &[0; 5]),
        ("of part 16", &[0, 0, 0, 9, 16, 0, 0x5A]),
        ("of part 255", &[0, 0, 0, 9, 255, 0, 0x5A]),
        ("of half 2", &[0, 0, 0, 9, 0, 2, 0x5A]),
        ("of half 255", &[0, 0, 0, 9, 0, 255, 0x5A]),
        ("that refuses in part 16", &[0, 0, 0, 9, 16, 0]),
    ] {
        cases.reject(format!("PIECE {name}"), "decode", message(kind::PIECE, payload), "malformed");
    }
}

fn parts_cases(cases: &mut Cases) {
    let mut blob = vec![0; BLOB_LEN];
    blob[..12].copy_from_slice(b"a short file");
    let sealed = blob::seal(&Secret::new([7; 32]), &mut blob, 12);
    let (root, values) = (hex(&sealed.root.0), *Values::of(&blob).as_bytes());
    let written_parts = |values: [u8; VALUES_LEN]| {
        written(&Message::Parts { number: 9, values: Box::new(Values::from_bytes(values)) })
    };
    cases.accept("PARTS", "decode", written_parts(values));
    cases.accept("PARTS of zeros", "decode", written_parts([0; VALUES_LEN]));
    let payload = |length: usize| message(kind::PARTS, vec![0x5A; length]);
    cases.accept("PARTS with the highest number", "decode", message(kind::PARTS, [0xFF; 4 + VALUES_LEN]));
    cases.reject("PARTS without payload", "decode", payload(0), "malformed");
    cases.reject("PARTS without values", "decode", payload(4), "malformed");
    cases.reject("PARTS without a tag", "decode", payload(4 + VALUES_LEN - 16), "malformed");
    cases.reject("PARTS a byte too short", "decode", payload(4 + VALUES_LEN - 1), "malformed");
    cases.reject("PARTS a byte too long", "decode", payload(4 + VALUES_LEN + 1), "malformed");
    let of_root = |root: &str, values: [u8; VALUES_LEN]| {
        let mut input = written_parts(values);
        input["root"] = root.into();
        input
    };
    cases.accept("PARTS of the example's root", "parts", of_root(&root, values));
    let change = |at: usize| {
        let mut wrong = values;
        wrong[at] ^= 1;
        of_root(&root, wrong)
    };
    for (name, at) in [
        ("a wrong first value", 0),
        ("a wrong value in the middle", 7 * 32 + 31),
        ("a wrong last value", 15 * 32 + 31),
        ("a wrong tag", 512),
        ("a tag whose last bit is wrong", VALUES_LEN - 1),
    ] {
        cases.reject(format!("PARTS with {name}"), "parts", change(at), "root");
    }
    let mut swapped = values;
    swapped[..64].rotate_left(32);
    cases.reject("PARTS with two values in the other order", "parts", of_root(&root, swapped), "root");
    let id = blob::id(&blob).to_hex();
    cases.reject("PARTS under the blob's id", "parts", of_root(&id, values), "root");
}

fn have_cases(cases: &mut Cases) {
    let tag = tag_member();
    cases.accept("ASK_HAVE", "decode", written(&Message::AskHave(TAG, 1_700_000_000_000)));
    let have = |have| written(&Message::Have(TAG, 7, have));
    let nothing = Have::default;
    cases.accept("HAVE of nothing", "decode", have(nothing()));
    cases.accept("HAVE of all", "decode", have(Have { all: true, ..nothing() }));
    let bitmap = |bits: &[u8]| Have { bitmap: bits.into(), ..nothing() };
    cases.accept("HAVE of positions 0, 7 and 8", "decode", have(bitmap(&[0x81, 0x80])));
    let positions = [0, 70_000, u32::MAX].into();
    cases.accept("HAVE of a list of positions", "decode", have(Have { positions, ..nothing() }));
    let under_way = |pairs: &[(u32, u16)]| Have {
        under_way: pairs.iter().map(|(at, mask)| (*at, Mask(*mask))).collect(),
        ..nothing()
    };
    let pairs = [(3, 5), (70_000, 0xFFFF), (u32::MAX, 0x8000), (3, 2)];
    cases.accept("HAVE of blobs under way", "decode", have(under_way(&pairs)));
    cases.accept("HAVE of a blob of which no part is there", "decode", have(under_way(&[(3, 0)])));
    cases.accept("HAVE that takes all back", "decode", have(Have { replaces: true, ..nothing() }));
    let all = Have {
        replaces: true,
        all: true,
        bitmap: [0x81].into(),
        positions: [7].into(),
        under_way: [(9, Mask(1))].into(),
    };
    cases.accept("HAVE of everything that it can say", "decode", have(all));
    let with = |members: &str| raw(kind::HAVE, &format!("a4{tag}0207{members}"));
    cases.accept("HAVE of nothing, in a bitmap and a list", "decode", with("034004 80"));
    cases.accept("HAVE of nothing, in a list of pairs", "decode", with("0680 0840"));
    let long = |front: &str, filler: &str, length: usize| {
        let front = format!("17a3{tag}0207{front}");
        json!({ "plaintext": { "patch": repeat(filler, front.len() / 2 + length), "at": 0, "with": front } })
    };
    let bytes = HAVE_BLOBS_MAX / 8;
    let bitmap = |length: usize| long(&format!("0359{length:04x}"), "aa", length);
    cases.accept("HAVE with as long a bitmap as is read", "decode", bitmap(bytes));
    cases.accept("HAVE with a bitmap a byte longer", "decode", bitmap(bytes + 1));
    let list = |key: u8, count: usize| long(&format!("{key:02x}99{count:04x}"), "07", count);
    cases.accept("HAVE with as many positions as are read", "decode", list(4, HAVE_POSITIONS_MAX));
    cases.accept("HAVE with one position more", "decode", list(4, HAVE_POSITIONS_MAX + 1));
    cases.accept("HAVE with as many pairs as are read", "decode", list(6, 2 * HAVE_POSITIONS_MAX));
    cases.accept("HAVE with one pair more", "decode", list(6, 2 * HAVE_POSITIONS_MAX + 2));
    cases.reject(
        "HAVE with half a pair more than is read",
        "decode",
        list(6, 2 * HAVE_POSITIONS_MAX + 1),
        "malformed",
    );
}

fn refused_have_cases(cases: &mut Cases) {
    let tag = tag_member();
    let have = |members: &str| format!("a3{tag}0207{members}");
    for (what, payload) in [
        ("without a sequence", format!("a1{tag}")),
        ("of a negative sequence", format!("a2{tag}0220")),
        ("with a short tag", format!("a2014f{}0207", "a5".repeat(15))),
    ] {
        cases.reject(format!("ASK_HAVE {what}"), "decode", raw(kind::ASK_HAVE, &payload), "malformed");
    }
    for (what, payload) in [
        ("of all, or not", have("05f4")),
        ("of all, as a number", have("0501")),
        ("of all, as null", have("05f6")),
        ("that takes nothing back, in so many words", have("07f4")),
        ("that takes all back, as a number", have("0701")),
        ("with a bitmap that is a list", have("038101")),
        ("with a bitmap that is a text", have("036161")),
        ("with a list that is a bitmap", have("044101")),
        ("with a list that is a map", have("04a10101")),
        ("of a negative position", have("048120")),
        ("of position 2^32", have("04811b0000000100000000")),
        ("of a position that is a float", have("0481f93c00")),
        ("of one number in place of a pair", have("068103")),
        ("of a pair and a half", have("0683030103")),
        ("of a mask of 2^16", have("0682031a00010000")),
        ("of a negative mask", have("06820320")),
        ("of a mask that is a float", have("068203f93c00")),
        ("of parts at a negative position", have("06822001")),
        ("of parts at position 2^32", have("06821b000000010000000001")),
        ("of parts in a map", have("06a10301")),
        ("of parts in pairs that are lists", have("0682820301820401")),
        ("without a sequence", format!("a2{tag}05f5")),
        ("without a tag", "a2020705f5".into()),
    ] {
        cases.reject(format!("HAVE {what}"), "decode", raw(kind::HAVE, &payload), "malformed");
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
