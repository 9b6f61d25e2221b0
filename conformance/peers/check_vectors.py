#!/usr/bin/python3
"""Checks the conformance vectors with Python's own hashes and OpenSSL's ciphers: nothing here is shared with core.

    check_vectors.py [FOLDER]        check every vector; one JSON line, exit code 1 where something differs
    check_vectors.py --write-foreign write vectors/foreign/heads.json, heads that this program signed

What it cannot check it counts as skipped and names: BLAKE3 (keys of native blobs, content secrets) is not in Python's
library.
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


class Skip(Exception):
    """What Python's library cannot check."""


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


# --- layers: each operation gives the output, or raises Reject or Skip ------------------------------------------------


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
    raise Skip("BLAKE3 is not in Python's library")


def native(key, content):
    """A native blob: the gap is keystream under an all-ones nonce, the seal's nonce is zero."""
    gap = bytes(v6.MEBI - len(content))
    keystream = Cipher(algorithms.ChaCha20(key, bytes(4) + b"\xff" * 12), None).encryptor().update(gap)
    blob = ChaCha20Poly1305(key).encrypt(bytes(12), content + keystream, None)
    return {"id": v5.blob_id(blob), "blob": digest(blob)}


def blob_seal_under_key(i):
    return native(data(i["key"]), data(i["content"]))


def blob_open(i):
    try:
        return digest(ChaCha20Poly1305(data(i["key"])).decrypt(bytes(12), data(i["blob"]), None))
    except Exception as error:
        raise Reject("tag") from error


def blob_verify(i):
    return v5.blob_id(data(i["blob"])) == i["id"]


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
    parts = {"size": integer(size), "depth": depth, "id": blob.hex(), "key": key.hex()}
    return {**parts, "blobs": integer(blob_count(size, depth))}


def tree_children(i):
    root, plain = tree_read(i), data(i["plain"])
    nodes, offset, height = [], 0, root["depth"] - 1
    for length, blob, key in v6.children(root["size"], root["depth"], plain):
        about = {"height": height, "offset": offset, "length": length}
        nodes.append({"id": blob.hex(), "key": key.hex(), **about})
        offset += length
    return nodes


def refused(read, *arguments, reject="malformed"):
    """What `read` gives; what it refuses is of one class."""
    try:
        return read(*arguments)
    except rules.Refused as error:
        raise Reject(reject) from error
    except addr.Refused as error:
        raise Reject(str(error)) from error


def body_of(i):
    try:
        return refused(bodies.read, data(i["cbor"]))
    except bodies.TooLarge as error:
        raise Reject("too-large") from error


def body_read(i):
    body = body_of(i)
    return {**body, "written": bodies.write(body).hex()}


def body_count(i):
    collections = body_of(i)["collections"]
    items = [item for one in collections for item in one["items"]]
    chunks = sum(len(item.get("chunks", [])) for item in items if isinstance(item, dict))
    return {"collections": len(collections), "items": len(items), "chunks": chunks}


def body_write(i):
    return bodies.write(i).hex()


def body_entry(i):
    entry = refused(lambda: rules.read_entry(rules.read_json(i["text"].encode())))
    return v5.canonical(entry).decode()


def body_path(i):
    refused(rules.check_path, i["text"], reject="path")
    return True


def head_write(i):
    private = private_key(i["seed"])
    content = dict(i["content"], timestamp=i["timestamp"])
    if "root" in content:
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
    for name in ("bytes", "bitmap"):
        if name in said:
            shown[name] = digest(said[name])
    if "tags" in said:
        shown.update(count=len(said["tags"]), tags=digest(b"".join(said["tags"])))
    if "positions" in said:
        shown["positions"] = digest(struct.pack(f">{len(said['positions'])}I", *said["positions"]))
    return shown


def v6_tag(i):
    dialler, listener = data(i["dialler_secret"]), data(i["listener_secret"])
    public = v5.raw_public(v5.X25519PrivateKey.from_private_bytes(listener))
    key = v6.tag_key(v5.shared_secret(dialler, public))
    topic = v6.topic(data(i["public_key"]), data(i["read_key"] or ""))
    return {"tag_key": key.hex(), "topic": topic.hex(), "tag": v6.tag(key, topic).hex()}


def v6_positions(i):
    ids = []
    for file in ([i["body"]] if i["body"] else []) + i["files"]:
        if "chunks" in file:
            ids += map(bytes.fromhex, file["chunks"])
        else:
            root = v6.read_reference(bytes.fromhex(file["tree"]))
            ids += [blob for _, _, blob, _ in v6.walk(*root, lambda blob, key: data(i["index"][blob.hex()]))]
    first = {}
    for position, blob in enumerate(ids):
        first.setdefault(blob.hex(), position)
    return {"count": len(ids), "ids": digest(b"".join(ids)), "first": first}


# --- checks that need the expectation ---------------------------------------------------------------------------------


def check_seal(case):
    """All of a native blob but its key's derivation."""
    expect = case["expect"]
    return native(bytes.fromhex(expect["key"]), data(case["input"]["content"])) == {
        name: expect[name] for name in ("id", "blob")
    }


def check_tree(case):
    """A tree's shape and reference; the ids of its blobs follow from keys that are BLAKE3's."""
    expect, size = case["expect"], len(data(case["input"]["content"]))
    parts = tree_read({"reference": expect["reference"]})
    return parts == expect["parts"] and parts["size"] == size and len(expect["ids"]) == parts["blobs"] and (
        expect["ids"][-1] == parts["id"]
    )


WITH_EXPECTATION = {
    ("blob", "seal"): check_seal,
    ("tree", "write"): check_tree,
}


def check(layer, case):
    """Whether the case comes out the same here."""
    special = WITH_EXPECTATION.get((layer, case["op"]))
    if special:
        return special(case)
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
    wrong, checked, skipped = [], 0, {}
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
            try:
                if check(vectors["layer"], case):
                    checked += 1
                else:
                    wrong.append(f"{name}: {case['name']}")
            except Skip as why:
                skipped[str(why)] = skipped.get(str(why), 0) + 1
    print(json.dumps({"checked": checked, "skipped": skipped, "wrong": wrong}, ensure_ascii=False))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
