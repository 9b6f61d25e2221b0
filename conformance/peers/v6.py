"""What goes beyond v5 (docs/protocol.md §12), written from its description and from nothing else: messages in CBOR, tags,
the positions of a channel's blobs, trees (§3) and manifest bodies (§5)."""

import hashlib
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

import cbor
import v5

GET_HEAD, HEAD, WATCH = 0x10, 0x11, 0x12
WANT, PIECE, CANCEL, ASK_HAVE, HAVE = 0x13, 0x14, 0x15, 0x16, 0x17

VERSION = 6
TAG_LEN = 16
TAGS_MAX = 1056
PADDING = 32
PIECE_LEN_MAX = 65_520
POSITIONS_MAX = 4096
BITMAP_LEN_MAX = (1 << 18) // 8
MEBI = 1 << 20
FANOUT = 1024
DEPTH_MAX = 4
LINK_LEN = 64


# --- messages -------------------------------------------------------------------------------------------------------


def need(good, why):
    """Refuses."""
    if not good:
        raise cbor.Malformed(why)


def number(payload, name, bits, signed=False):
    """A member that is an integer of so many bits."""
    value = payload.get(name)
    low = -(1 << (bits - 1)) if signed else 0
    high = 1 << (bits - 1 if signed else bits)
    need(type(value) is int and low <= value < high, f"member {name}")
    return value


def fixed(payload, name, length):
    """A member that is a byte string of that length; `None`: of any."""
    value = payload.get(name)
    need(isinstance(value, bytes) and length in (None, len(value)), f"member {name}")
    return value


def array(payload, name, most):
    """The first elements of a member that is an array."""
    value = payload.get(name)
    need(isinstance(value, list) and not isinstance(value, cbor.Map), f"member {name}")
    return value[:most]


def read_get_head(p):
    look_up = fixed(p, 3, 32) if 3 in p else None
    return {"tag": fixed(p, 1, TAG_LEN), "known": number(p, 2, 64), "look_up": look_up}


def read_head(p):
    tag = fixed(p, 1, TAG_LEN)
    if 2 not in p:
        return {"tag": tag, "item": None}
    item = {"k": fixed(p, 2, 32), "seq": number(p, 3, 64, signed=True), "v": fixed(p, 4, None), "sig": fixed(p, 5, 64)}
    return {"tag": tag, "item": item}


def read_watch(p):
    tags = array(p, 1, TAGS_MAX)
    need(all(isinstance(tag, bytes) and len(tag) == TAG_LEN for tag in tags), "a tag")
    return {"tags": tags}


def read_want(p):
    offset, length = number(p, 3, 32), number(p, 4, 32)
    need(length > 0 and offset + length <= v5.BLOB_LEN, "the range")
    return {"number": number(p, 1, 32), "blob": fixed(p, 2, 32), "offset": offset, "length": length}


def read_cancel(p):
    return {"number": number(p, 1, 32), "offset": number(p, 2, 32)}


def read_ask_have(p):
    return {"tag": fixed(p, 1, TAG_LEN), "sequence": number(p, 2, 64)}


def read_have(p):
    about = read_ask_have(p)
    if 3 in p:
        return {**about, "bitmap": fixed(p, 3, None)[:BITMAP_LEN_MAX]}
    if 4 in p:
        positions = array(p, 4, POSITIONS_MAX)
        need(all(type(position) is int and 0 <= position < 1 << 32 for position in positions), "a position")
        return {**about, "positions": positions}
    need(p.get(5) is True, "what it has")
    return {**about, "all": True}


READERS = {
    GET_HEAD: ("GET_HEAD", read_get_head),
    HEAD: ("HEAD", read_head),
    WATCH: ("WATCH", read_watch),
    WANT: ("WANT", read_want),
    CANCEL: ("CANCEL", read_cancel),
    ASK_HAVE: ("ASK_HAVE", read_ask_have),
    HAVE: ("HAVE", read_have),
}


def decode(kind, payload):
    """What a message says, its name as `type`; `cbor.Malformed` where it does not parse."""
    if kind == PIECE:
        need(8 <= len(payload) <= 8 + PIECE_LEN_MAX, "the length")
        about = struct.unpack(">II", payload[:8])
        return {"type": "PIECE", "number": about[0], "offset": about[1], "bytes": payload[8:]}
    name, read = READERS[kind]
    members = cbor.loads(payload)
    need(isinstance(members, cbor.Map), "no map")
    return {"type": name, **read(members)}


def encode(said):
    """The type byte and payload of what `decode` gives."""
    name = said["type"]
    if name == "PIECE":
        return PIECE, struct.pack(">II", said["number"], said["offset"]) + said["bytes"]
    if name == "GET_HEAD":
        fields = [said["tag"], said["known"], said["look_up"]]
    elif name == "HEAD":
        fields = [said["tag"], *(said["item"][part] for part in ("k", "seq", "v", "sig") if said["item"])]
    elif name == "WATCH":
        fields = [said["tags"]]
    elif name == "WANT":
        fields = [said["number"], said["blob"], said["offset"], said["length"]]
    elif name == "CANCEL":
        fields = [said["number"], said["offset"]]
    else:
        fields = [said["tag"], said["sequence"], said.get("bitmap"), said.get("positions"), said.get("all")]
    kind = next(kind for kind, (known, _) in READERS.items() if known == name)
    return kind, cbor.dumps({key: value for key, value in enumerate(fields, 1) if value is not None})


def send(channel, name, **members):
    """Sends one message."""
    channel.send(*encode({"type": name, **members}))


def hello(port=None):
    """The HELLO document, which names no channel."""
    document = {"v": VERSION, "gossip": {"sequences": {}}}
    return document if port is None else {**document, "port": port}


def topic(public_key, read_key=b""):
    """A channel's topic (§7)."""
    return hashlib.blake2b(b"megatorrent topic" + public_key, digest_size=32, key=read_key).digest()


def tag_key(shared):
    """What names channels on a connection (§8)."""
    return hashlib.blake2b(shared + b"T", digest_size=32).digest()


def session_id(shared):
    """What both ends call a connection (§8)."""
    return hashlib.blake2b(shared + b"I", digest_size=32).digest()


def tag(key, channel_topic):
    """A channel's name on a connection."""
    return hashlib.blake2b(channel_topic, digest_size=TAG_LEN, key=key).digest()


def bitmap(positions):
    """HAVE's bits, the first byte's highest for position 0."""
    bits = bytearray(max(positions, default=-1) // 8 + 1)
    for position in positions:
        bits[position // 8] |= 0x80 >> position % 8
    return bytes(bits)


# --- trees and positions ------------------------------------------------------------------------------------------


def depth_of(size):
    """The least depth of a tree that holds so many bytes."""
    return next((depth for depth in range(DEPTH_MAX + 1) if size <= MEBI * FANOUT**depth), None)


def read_reference(raw):
    """Size, depth, and the top blob's id and key, from 73 bytes."""
    size, depth, blob, key = struct.unpack(">QB32s32s", raw)
    if depth_of(size) != depth:
        raise v5.Broken("a tree of another depth than its size's")
    return size, depth, blob, key


def children(size, height, plain):
    """What an index blob over `size` bytes links to: (size, id, key) of each, all of height less one."""
    span = MEBI * FANOUT ** (height - 1)
    for index in range(-(-size // span)):
        link = plain[index * LINK_LEN : (index + 1) * LINK_LEN]
        yield min(size - index * span, span), link[:32], link[32:]


def walk(size, height, blob, key, plain_of):
    """A tree's blobs, each before what it links to: (height, size, id, key). `plain_of` opens an index blob."""
    yield height, size, blob, key
    if height > 0:
        for part, below, below_key in children(size, height, plain_of(blob, key)):
            yield from walk(part, height - 1, below, below_key, plain_of)


def read_body(raw):
    """A manifest body as a head would say it (§6). It is taken to be well-formed."""
    reader = cbor.Reader(raw)
    members = reader.item()
    if reader.at != len(raw) or members.get(0) != 1:
        raise v5.Broken("a body of another format")
    collections = [
        {"title": one.get(1, ""), "items": [body_item(item) for item in one.get(2, [])]} for one in members.get(3, [])
    ]
    return {"title": members.get(1, ""), "description": members.get(2, ""), "collections": collections}


def body_item(item):
    """A magnet URI, or a file's entry."""
    if isinstance(item, str):
        return item
    entry = {"name": item.get(1), "size": item.get(2)}
    if 3 in item:
        entry["modified"] = item.get(3)
    if item.get(4):
        entry["executable"] = True
    if 5 in item:
        size, depth, blob, key = read_reference(item.get(5))
        entry["root"] = {"depth": depth, "id": blob.hex(), "key": key.hex(), "size": size}
    else:
        names = ("blobId", "offset", "length", "key", "nonce", "realSize")
        plain = lambda field: field.hex() if isinstance(field, bytes) else field
        entry["chunks"] = [dict(zip(names, map(plain, chunk))) for chunk in item.get(6)]
    return entry


def tree_of(root):
    """Size, depth, id and key of a head's `root`."""
    return root["size"], root["depth"], bytes.fromhex(root["id"]), bytes.fromhex(root["key"])


def open_native(blob, key):
    """A native blob's plaintext."""
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), blob, None)
    except InvalidTag as error:
        raise v5.Broken("a blob that does not open") from error
