#!/usr/bin/python3
"""Checks the conformance vectors with Python's own hashes, a BLAKE3 of its own and OpenSSL's ciphers: nothing here is shared
with core.

    check_vectors.py [FOLDER]        check every vector; one JSON line, exit code 1 where something differs
    check_vectors.py --write-foreign write vectors/foreign/heads.json, heads that this program signed
"""

import hashlib
import json
import os
import struct
import sys

sys.dont_write_bytecode = True  # the tree stays clean

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

import addr
import blake3_tree
import bodies
import cbor
import messages
import rules
import v5
import v6

VECTORS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "vectors")
FOREIGN = os.path.join("foreign", "heads.json")
SCHEMA = 2
EXACT_MAX = 1 << 53
SEED = bytes(range(32))
READ_KEY = b"\x7a" * 32
SPELLED_OUT_MAX = 2048
CONTROL_LEN_MAX = 64 * 1024
PEERS_MAX = 64


class Reject(Exception):
    """The input is refused; the class is the argument."""


# --- values ---------------------------------------------------------------------------------------------------------


def data(value):
    """The bytes that hex or a description stands for (conformance/README.md)."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    if "repeat" in value:
        pattern, length = data(value["repeat"]), value["length"]
        return (pattern * (length // max(len(pattern), 1) + 1))[:length]
    if "chacha20poly1305" in value:
        sealed = value["chacha20poly1305"]
        return ChaCha20Poly1305(data(sealed["key"])).encrypt(data(sealed["nonce"]), data(sealed["plain"]), None)
    if "keystream" in value:
        stream = value["keystream"]
        return keystream(data(stream["key"]), data(stream["nonce"]), stream["length"])
    if "native" in value:
        return native(data(value["native"]["key"]), data(value["native"]["content"]))
    if "counter" in value:
        return bytes(n & 255 for n in range(value["counter"]))
    if "cut" in value:
        return data(value["cut"])[value["at"] : value["at"] + value["length"]]
    whole, part = data(value["patch"]), data(value["with"])
    return whole[: value["at"]] + part + whole[value["at"] + len(part) :]


def digest(whole):
    """How an output stands in the vectors."""
    if len(whole) <= SPELLED_OUT_MAX:
        return whole.hex()
    sha = hashlib.sha256(whole).hexdigest()
    return {"length": len(whole), "sha256": sha, "head": whole[:32].hex(), "tail": whole[-32:].hex()}


def integer(number):
    """How an integer stands in the vectors."""
    return number if number is None or abs(number) <= EXACT_MAX else str(number)


def private_key(seed):
    """An Ed25519 key from its seed in hex."""
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))


# --- layers: each operation gives the output, or raises Reject --------------------------------------------------------


def identity_sign(i):
    private = private_key(i["seed"])
    return {"public_key": v5.raw_public(private).hex(), "signature": private.sign(data(i["message"])).hex()}


def identity_verify(i):
    if not v5.is_channel_key(data(i["public_key"])):
        raise Reject("public-key")
    return v5.verify(data(i["public_key"]), data(i["message"]), data(i["signature"]))


def identity_file(i):
    try:
        document = json.loads(i["text"])
        v5.signing_key(document)
    except (ValueError, KeyError, v5.Broken) as error:
        raise Reject("identity") from error
    return {"public_key": document["publicKey"], "read_key": document.get("readKey")}


def identity_content_secret(i):
    return blake3_tree.derive_key("megatorrent 2026-11 channel content secret", data(i["seed"])).hex()


def keystream(key, nonce, length, block=0):
    """ChaCha20's, from a block on."""
    return Cipher(algorithms.ChaCha20(key, struct.pack("<I", block) + nonce), None).encryptor().update(bytes(length))


def native(key, content):
    """A native blob: the gap is keystream under an all-ones nonce, the seal's nonce is zero."""
    filling = keystream(key, b"\xff" * 12, v6.MEBI - len(content))
    return ChaCha20Poly1305(key).encrypt(bytes(12), content + filling, None)


def about(blob):
    """A blob's names and values. The root is computed twice: of the bytes, and of the values."""
    values, root = blake3_tree.values_of(blob), blake3_tree.digest(blob)
    assert blake3_tree.root_of(values) == root
    return {"root": root.hex(), "id": v5.blob_id(blob), "values": values.hex(), "blob": digest(blob)}


def blob_seal(i):
    content = data(i["content"])
    key = blake3_tree.keyed(data(i["secret"]), content)
    return {"key": key.hex(), **about(native(key, content))}


def blob_seal_under_key(i):
    return about(native(data(i["key"]), data(i["content"])))


def blob_open(i):
    try:
        return digest(ChaCha20Poly1305(data(i["key"])).decrypt(bytes(12), data(i["blob"]), None))
    except Exception as error:
        raise Reject("tag") from error


def blob_verify(i):
    blob = data(i["blob"])
    return blake3_tree.digest(blob).hex() == i["root"] if "root" in i else v5.blob_id(blob) == i["id"]


def blob_fits(i):
    key, blob = data(i["key"]), data(i["blob"])
    content = ChaCha20Poly1305(key).decrypt(bytes(12), blob, None)[: i["length"]]
    if native(key, content) != blob:
        raise Reject("filling")
    return blake3_tree.digest(blob).hex()


def blob_root(i):
    return blake3_tree.root_of(data(i["values"])).hex()


def blob_part(i):
    number, sealed, values = i["part"], data(i["sealed"]), data(i["values"])
    is_part = number < blake3_tree.PARTS and len(sealed) == blake3_tree.PART_LEN
    if not is_part or blake3_tree.part_value(number, sealed) != values[32 * number : 32 * (number + 1)]:
        raise Reject("part")
    stream = keystream(data(i["key"]), bytes(12), len(sealed), 1 + number * blake3_tree.PART_LEN // 64)
    return digest(bytes(a ^ b for a, b in zip(sealed, stream)))


def blob_slice(i):
    (extent, length), pack = refused(rules.read_extent, i["slice"]), data(i["pack"])
    piece = pack[extent[1] : extent[1] + length + v5.TAG_LEN]
    try:
        return digest(ChaCha20Poly1305(bytes.fromhex(extent[3])).decrypt(bytes(12), piece, None))
    except Exception as error:
        raise Reject("tag") from error


def blob_chunk(i):
    chunk, blob = i["chunk"], data(i["blob"])
    end = chunk["offset"] + chunk["length"]
    if end > len(blob) or chunk["length"] <= v5.TAG_LEN or chunk["realSize"] > chunk["length"] - v5.TAG_LEN:
        raise Reject("malformed")
    try:
        return digest(v5.open_chunk(chunk, blob))
    except v5.Broken as error:
        raise Reject("tag") from error


def blob_count(size, depth):
    """Data blobs and index blobs."""
    level = max(-(-size // v6.MEBI), 1)
    total = level
    for _ in range(depth):
        level = -(-level // v6.FANOUT)
        total += level
    return total


def tree_shape(i):
    size = int(i["size"])
    if v6.depth_of(size) != i["depth"]:
        raise Reject("depth")
    return integer(blob_count(size, i["depth"]))


def tree_read(i):
    try:
        size, depth, blob, key = v6.read_reference(data(i["reference"]))
    except v5.Broken as error:
        raise Reject("depth") from error
    parts = {"size": integer(size), "depth": depth, "root": blob.hex(), "key": key.hex()}
    return {**parts, "blobs": integer(blob_count(size, depth))}


def tree_children(i):
    root, plain = tree_read(i), data(i["plain"])
    nodes, offset, height = [], 0, root["depth"] - 1
    for length, blob, key in v6.children(root["size"], root["depth"], plain):
        place = {"height": height, "offset": offset, "length": length}
        nodes.append({"root": blob.hex(), "key": key.hex(), **place})
        offset += length
    return nodes


def tree_write(i):
    secret, content, roots = data(i["secret"]), data(i["content"]), []

    def seal(piece):
        key = blake3_tree.keyed(secret, piece)
        roots.append(blake3_tree.digest(native(key, piece)))
        return roots[-1] + key

    level, depth = [seal(content[at : at + v6.MEBI]) for at in range(0, max(len(content), 1), v6.MEBI)], 0
    while len(level) > 1:
        links = [level[at : at + v6.FANOUT] for at in range(0, len(level), v6.FANOUT)]
        level, depth = [seal(b"".join(some)) for some in links], depth + 1
    reference = struct.pack(">QB", len(content), depth) + level[0]
    parts = tree_read({"reference": reference.hex()})
    return {"reference": reference.hex(), "parts": parts, "roots": [root.hex() for root in roots]}


def refused(read, *arguments, reject="malformed"):
    """What `read` gives; what it refuses is of one class."""
    try:
        return read(*arguments)
    except rules.Refused as error:
        raise Reject(reject) from error
    except addr.Refused as error:
        raise Reject(str(error)) from error


def body_of(cbor_value):
    try:
        return refused(bodies.read_body, data(cbor_value))
    except bodies.TooLarge as error:
        raise Reject("too-large") from error


def body_shown(body):
    def page(one):
        return {**one, "reference": one["reference"].hex(), "blobs": integer(one["blobs"])}

    collections = [{**one, "pages": list(map(page, one["pages"]))} for one in body["collections"]]
    packs = {str(number): root.hex() for number, root in body["packs"].items()}
    ids = body["ids"] and body["ids"].hex()
    return {**body, "collections": collections, "packs": packs, "ids": ids, "bytes": integer(body["bytes"])}


def body_write_body(i):
    def page(one):
        return {**one, "reference": data(one["reference"])}

    collections = [{**one, "pages": list(map(page, one["pages"]))} for one in i["collections"]]
    packs = {int(number): data(root) for number, root in i["packs"].items()}
    ids = i["ids"] and data(i["ids"])
    body = {**i, "collections": collections, "packs": packs, "ids": ids, "bytes": int(i["bytes"])}
    return bodies.write_body(body).hex()


def body_read_body(i):
    body = body_of(i["cbor"])
    return {**body_shown(body), "written": bodies.write_body(body).hex()}


def body_count_body(i):
    body = body_of(i["cbor"])
    pages = [page for one in body["collections"] for page in one["pages"]]
    counts = {"collections": len(body["collections"]), "pages": len(pages), "packs": len(body["packs"])}
    return {**counts, "items": sum(page["items"] for page in pages)}


def body_write_page(i):
    return bodies.write_page(i["items"]).hex()


def body_read_page(i):
    items = refused(bodies.read_page, data(i["cbor"]))
    return {"items": items, "written": bodies.write_page(items).hex()}


def body_count_page(i):
    items = refused(bodies.read_page, data(i["cbor"]))
    files = [item for item in items if isinstance(item, dict)]
    counts = {name: sum(len(file.get(name, [])) for file in files) for name in ("extents", "chunks")}
    return {"items": len(items), **counts}


def body_page(i):
    items = refused(bodies.read_page, data(i["cbor"]))
    refused(bodies.check_page, items, i, i["packs"])
    return True


def body_join(i):
    sums = refused(bodies.join, body_of(i["body"]), [data(page) for page in i["pages"]])
    return {**sums, "bytes": integer(sums["bytes"])}


def body_cut(i):
    pages = bodies.cut([{"name": f"folder/{n:05}", "size": 0, "folder": True} for n in range(i["count"])])

    def shown(page):
        raw = bodies.write_page(page)
        hashed = blake3_tree.digest(raw).hex()
        return {"first": page[0]["name"], "items": len(page), "length": len(raw), "blake3": hashed}

    return list(map(shown, pages))


def body_entry(i):
    entry = refused(lambda: rules.read_any_entry(rules.read_json(i["text"].encode())))
    return v5.canonical(entry).decode()


def body_path(i):
    refused(rules.check_path, i["text"], reject="path")
    return True


def head_write(i):
    private = private_key(i["seed"])
    content = dict(i["content"], timestamp=i["timestamp"])
    if "body" in content:
        content["collections"] = []
    document = {"publicKey": v5.raw_public(private).hex(), "sequence": i["sequence"]}
    if i["read_key"] is None:
        document.update(content)
    else:
        nonce = data(i["nonce"])
        sealed = v5.seal_content(data(i["read_key"]), nonce, v5.canonical(content))
        document.update(encrypted=True, nonce=nonce.hex(), ciphertext=sealed.hex())
    return v5.sign_manifest(private, document, in_order=False).decode()


def head_of(raw, public_key, read_key):
    """A head's content as the vectors show it (§6)."""
    document = rules.read_json(raw)
    if rules.read_hex(rules.member(document, "publicKey"), 32) != public_key:
        raise Reject("other-channel")
    signature = rules.read_hex(rules.member(document, "signature"), 64)
    unsigned = ([pair for pair in document[0] if pair[0] != "signature"],)
    covered = [rules.write_json(unsigned, is_sorted).encode() for is_sorted in (False, True)]
    if not any(v5.verify(public_key, text, signature) for text in covered):
        raise Reject("signature")
    sequence = rules.natural(rules.member(document, "sequence"), "the sequence")
    is_private = rules.member(document, "encrypted") is True
    inner = open_head(document, read_key) if is_private else document
    timestamp = rules.natural(rules.member(inner, "timestamp"), "the timestamp")
    about = {"sequence": integer(sequence), "timestamp": integer(timestamp), "private": is_private}
    return {**about, "content": rules.read_content(inner)}


def open_head(document, read_key):
    """What a private head seals."""
    nonce, sealed = (rules.member(document, name) for name in ("nonce", "ciphertext"))
    rules.need(isinstance(nonce, str) and len(nonce) in (24, 48), "the nonce's length")
    rules.need(isinstance(sealed, str) and len(sealed) % 2 == 0, "half a byte")
    nonce, sealed = rules.read_hex(nonce, len(nonce) // 2), rules.read_hex(sealed, len(sealed) // 2)
    if read_key is None:
        raise Reject("read-key-missing")
    try:
        plain = v5.open_content(read_key, nonce, sealed)
    except v5.Broken as error:
        raise Reject("read-key-wrong") from error
    return rules.read_json(plain)


def head_read(i):
    read_key = data(i["read_key"]) if i["read_key"] else None
    return refused(head_of, i["text"].encode(), data(i["public_key"]), read_key)


def head_item(i):
    if not bep44_verify(i):
        raise Reject("signature")
    shown = refused(head_of, data(i["value"]), data(i["public_key"]), None)
    if int(shown["sequence"]) != int(i["seq"]):
        raise Reject("sequence-mismatch")
    if int(shown["sequence"]) > int(i["known"]) + 2**53:
        raise Reject("sequence-ahead")
    return shown


def bep44_sign(i):
    value = data(i["value"])
    if len(value) > v5.ITEM_VALUE_LEN_MAX:
        raise Reject("too-large")
    covered = v5.item_signable(int(i["seq"]), value)
    return {"covered": digest(covered), "signature": private_key(i["seed"]).sign(covered).hex()}


def bep44_verify(i):
    value, seq = data(i["value"]), int(i["seq"])
    good = v5.verify(data(i["public_key"]), v5.item_signable(seq, value), data(i["signature"]))
    return good and seq >= 0 and len(value) <= v5.ITEM_VALUE_LEN_MAX


def uri_topic(i):
    topic = v6.topic(data(i["public_key"]), data(i["read_key"] or ""))
    return {"topic": topic.hex(), "info_hash": topic[:20].hex()}


def uri_parse(i):
    return refused(rules.read_uri, i["text"], reject="uri")


def uri_peer(i):
    return refused(addr.read, i["text"])


def keys_of(i):
    """Both public keys, and the keys of both directions."""
    dialler, listener = data(i["dialler_secret"]), data(i["listener_secret"])
    public = [v5.raw_public(v5.X25519PrivateKey.from_private_bytes(secret)) for secret in (dialler, listener)]
    shared = v5.shared_secret(dialler, public[1])
    assert shared == v5.shared_secret(listener, public[0])
    return public, v5.session_keys(shared)


def handshake_exchange(i):
    public, (client, server) = keys_of(i)
    shared = v5.shared_secret(data(i["dialler_secret"]), public[1])
    return {
        "tag_key": v6.tag_key(shared).hex(),
        "session_id": v6.session_id(shared).hex(),
        "dialler_public": public[0].hex(),
        "listener_public": public[1].hex(),
        "dialler_frame": v5.seal_frame(client, 0, b"").hex(),
        "listener_frame": v5.seal_frame(server, 0, b"").hex(),
    }


def handshake_finish(i):
    try:
        v5.shared_secret(data(i["secret"]), data(i["their_public"]))
    except v5.Broken as error:
        raise Reject("low-order-key") from error
    return True


def frame_key(i):
    return keys_of(i)[1][0 if i["sender"] == "dialler" else 1]


def frame_seal(i):
    key = frame_key(i)
    return digest(b"".join(v5.seal_frame(key, i["skip"] + n, data(text)) for n, text in enumerate(i["plaintexts"])))


def frame_open(i):
    key, wire, plaintexts = frame_key(i), data(i["wire"]), []
    while wire:
        (length,) = struct.unpack(">I", wire[:4])
        nonce = v5.frame_nonce(i["skip"] + len(plaintexts))
        try:
            plaintexts.append(ChaCha20Poly1305(key).decrypt(nonce, wire[4 : 4 + length], None).hex())
        except Exception as error:
            raise Reject("tag") from error
        wire = wire[4 + length :]
    return plaintexts


def frame_lengths(i):
    wire, lengths = data(i["wire"]), []
    longest = v5.FRAME_LEN_MAX if i["data_admitted"] else CONTROL_LEN_MAX + v5.TAG_LEN
    while wire:
        (length,) = struct.unpack(">I", wire[:4])
        if length < v5.TAG_LEN:
            raise Reject("frame-short")
        if length > longest:
            raise Reject("frame-long")
        lengths.append(length)
        wire = wire[4 + length :]
    return lengths


def message_decode(i):
    plain = data(i["plaintext"])
    try:
        shown, sent = refused(messages.decode, plain)
    except messages.OldVersion as error:
        raise Reject("version") from error
    if "sequences" in shown:
        shown["features"] = integer(shown["features"])
        shown["sequences"] = {key: integer(sequence) for key, sequence in shown["sequences"].items()}
    if "bytes" in shown:
        shown["bytes"] = digest(shown["bytes"])
    return {"message": shown, "sent": digest(sent)}


def v6_decode(i):
    plain = data(i["plaintext"])
    try:
        said = v6.decode(plain[0], plain[1:])
        if any(not v5.is_channel_key(key) for key in (said.get("look_up"), (said.get("item") or {}).get("k")) if key):
            raise Reject("malformed")
    except cbor.Malformed as error:
        raise Reject("malformed") from error
    kind, payload = v6.encode(said)
    return {"message": v6_shown(said), "sent": digest(bytes([kind]) + payload)}


def v6_shown(said):
    """A message as the vectors show it."""
    shown = {name: part.hex() if isinstance(part, bytes) else part for name, part in said.items()}
    shown.update({name: integer(said[name]) for name in ("known", "sequence", "seq") if name in said})
    if said["type"] == "HEAD" and said["item"]:
        item = said["item"]
        good = item["seq"] >= 0 and v5.verify(item["k"], v5.item_signable(item["seq"], item["v"]), item["sig"])
        shown["item"] = {**v6_shown({"type": "", **item}), "verifies": good}
        del shown["item"]["type"]
    for name in ("bytes", "bitmap", "values"):
        if isinstance(said.get(name), bytes):
            shown[name] = digest(said[name])
    if "tags" in said:
        shown.update(count=len(said["tags"]), tags=digest(b"".join(said["tags"])))
    if "positions" in said:
        shown["positions"] = digest(struct.pack(f">{len(said['positions'])}I", *said["positions"]))
        shown["under_way"] = digest(b"".join(struct.pack(">IH", *pair) for pair in said["under_way"]))
    return shown


def v6_parts(i):
    plain = data(i["plaintext"])
    values = v6.decode(plain[0], plain[1:])["values"]
    if blake3_tree.root_of(values).hex() != i["root"]:
        raise Reject("root")
    return digest(values)


def v6_tag(i):
    dialler, listener = data(i["dialler_secret"]), data(i["listener_secret"])
    public = v5.raw_public(v5.X25519PrivateKey.from_private_bytes(listener))
    key = v6.tag_key(v5.shared_secret(dialler, public))
    topic = v6.topic(data(i["public_key"]), data(i["read_key"] or ""))
    return {"tag_key": key.hex(), "topic": topic.hex(), "tag": v6.tag(key, topic).hex()}


def v6_positions(i):
    index, starts = {root: data(plain) for root, plain in i["index"].items()}, []

    def plain_of(root, _key, _length):
        return index[root.hex()]

    if i["body"]:
        body = body_of(i["body"]["cbor"])
        pages = [refused(bodies.read_page, data(page)) for page in i["body"]["pages"]]
        own = rules.read_tree(data(i["body"]["tree"]))
        names, starts = v6.positions_of_body(body, own, pages, plain_of)
    else:
        names = [name for item in i["items"] for name in v6.names_of(item, plain_of)]
    first = {}
    for position, name in enumerate(names):
        first.setdefault(name.hex(), position)
    return {"count": len(names), "names": digest(b"".join(names)), "first": first, "pages": starts}


def check(layer, case):
    """Whether the case comes out the same here."""
    operation = globals()[f"{layer}_{case['op'].replace('-', '_')}"]
    try:
        output = operation(case["input"])
    except Reject as reject:
        return case.get("reject") == str(reject)
    return "expect" in case and output == case["expect"]


# --- heads for core to read -------------------------------------------------------------------------------------------


def foreign_heads():
    """The same content in both orders of members, in the clear and in both encryptions."""
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    entry = {"name": "Ünïcode.bin", "size": 5, "chunks": []}
    chunk = {"blobId": "ab" * 32, "offset": 0, "length": v5.BLOB_LEN, "key": "cd" * 32, "nonce": "ef" * 12, "realSize": 5}
    entry["chunks"].append(chunk)
    collections = [{"title": 'a "title"\n/', "items": ["magnet:?xt=urn:btih:" + "c" * 40, entry]}]
    heads = []
    for in_order in (False, True):
        for nonce in (None, bytes(range(12)), bytes(range(24))):
            key = None if nonce is None else READ_KEY
            text = v5.make_manifest(private, 1_700_000_000_000, 1_700_000_000_001, collections, in_order, key, nonce)
            kind = "public" if nonce is None else {12: "ChaCha20-Poly1305", 24: "XSalsa20-Poly1305"}[len(nonce)]
            name = f"{kind}, members in {'the document’s own order' if in_order else 'sorted order'}"
            heads.append({"name": name, "read_key": key and key.hex(), "text": text.decode()})
    return heads


def foreign_text():
    return json.dumps(foreign_heads(), indent=2, ensure_ascii=False) + "\n"


def main():
    """Checks a folder, or writes the heads."""
    if sys.argv[1:] == ["--write-foreign"]:
        with open(os.path.join(VECTORS, FOREIGN), "w", encoding="utf-8") as out:
            out.write(foreign_text())
        return 0
    folder = sys.argv[1] if len(sys.argv) > 1 else VECTORS
    wrong, checked = [], 0
    with open(os.path.join(folder, FOREIGN), encoding="utf-8") as file:
        if file.read() != foreign_text():
            wrong.append("foreign/heads.json is not what --write-foreign writes")
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".json"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            vectors = json.load(file)
        assert vectors["schema"] == SCHEMA, f"{name}: schema {vectors['schema']}"
        for case in vectors["cases"]:
            if check(vectors["layer"], case):
                checked += 1
            else:
                wrong.append(f"{name}: {case['name']}")
    print(json.dumps({"checked": checked, "wrong": wrong}, ensure_ascii=False))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
