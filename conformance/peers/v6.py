"""What goes beyond v5 (docs/protocol.md §12), written from its description and from nothing else: messages, tags, the
positions of a channel's blobs, parts (§2) and trees (§3)."""

import hashlib
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

import bodies
import cbor
import rules
import v5

GET_HEAD, HEAD, WATCH = 0x10, 0x11, 0x12
WANT, PIECE, CANCEL, ASK_HAVE, HAVE, PARTS = 0x13, 0x14, 0x15, 0x16, 0x17, 0x18

VERSION = 6
TAG_LEN = 16
TAGS_MAX = 1056
PADDING = 32
PIECE_LEN_MAX = 32_768
PART_LEN, PART_COUNT, ALL_PARTS = 65_536, 16, 0xFFFF
VALUES_LEN = 528
CUT_STEP = 4096
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


def true(payload, name):
    """Whether a member is there, which is then true."""
    need(name not in payload or payload.get(name) is True, f"member {name}")
    return name in payload


def read_want(p):
    asked = {"number": number(p, 1, 32), "root": fixed(p, 2, 32), "mask": number(p, 3, 16), "values": true(p, 4)}
    need(asked["mask"] > 0, "no part")
    last_len = number(p, 5, 32) if 5 in p else None
    need(last_len is None or (0 < last_len < PART_LEN and last_len % CUT_STEP == 0), "the last part's length")
    return {**asked, "last_len": last_len}


def read_cancel(p):
    return {"number": number(p, 1, 32), "mask": number(p, 2, 16)}


def read_ask_have(p):
    return {"tag": fixed(p, 1, TAG_LEN), "sequence": number(p, 2, 64)}


def numbers(payload, name, most):
    """The first natural numbers of a member that may be missing."""
    listed = array(payload, name, most) if name in payload else []
    need(all(type(value) is int and 0 <= value < 1 << 32 for value in listed), f"a number of member {name}")
    return listed


def read_have(p):
    pairs = numbers(p, 6, 2 * POSITIONS_MAX)
    need(6 not in p or len(p.get(6)) % 2 == 0, "half a pair")
    need(all(mask < 1 << 16 for mask in pairs[1::2]), "a mask")
    said = {"replaces": true(p, 7), "all": true(p, 5), "bitmap": fixed(p, 3, None)[:BITMAP_LEN_MAX] if 3 in p else b""}
    under_way = list(zip(pairs[::2], pairs[1::2]))
    return {**read_ask_have(p), **said, "positions": numbers(p, 4, POSITIONS_MAX), "under_way": under_way}


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
        need(6 <= len(payload) <= 6 + PIECE_LEN_MAX, "the length")
        asked, part, half = struct.unpack(">IBB", payload[:6])
        need(part < PART_COUNT and half < 2, "the place")
        return {"type": "PIECE", "number": asked, "part": part, "half": half, "bytes": payload[6:]}
    if kind == PARTS:
        need(len(payload) == 4 + VALUES_LEN, "the length")
        return {"type": "PARTS", "number": int.from_bytes(payload[:4], "big"), "values": payload[4:]}
    name, read = READERS[kind]
    members = cbor.loads(payload)
    need(isinstance(members, cbor.Map), "no map")
    return {"type": name, **read(members)}


def encode(said):
    """The type byte and payload of what `decode` gives."""
    name = said["type"]
    if name == "PIECE":
        return PIECE, struct.pack(">IBB", said["number"], said["part"], said["half"]) + said["bytes"]
    if name == "PARTS":
        return PARTS, struct.pack(">I", said["number"]) + said["values"]
    if name == "GET_HEAD":
        fields = [said["tag"], said["known"], said["look_up"]]
    elif name == "HEAD":
        fields = [said["tag"], *(said["item"][part] for part in ("k", "seq", "v", "sig") if said["item"])]
    elif name == "WATCH":
        fields = [said["tags"]]
    elif name == "WANT":
        fields = [said["number"], said["root"], said["mask"], said.get("values") or None, said.get("last_len")]
    elif name == "CANCEL":
        fields = [said["number"], said["mask"]]
    elif name == "ASK_HAVE":
        fields = [said["tag"], said["sequence"]]
    else:
        pairs = [number for pair in said.get("under_way", []) for number in pair]
        what = (said.get("bitmap"), said.get("positions"), said.get("all"), pairs, said.get("replaces"))
        fields = [said["tag"], said["sequence"], *(one or None for one in what)]
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


def walk(size, height, root, key, plain_of):
    """A tree's blobs, each before what it links to: (height, size, root, key). `plain_of` opens an index blob, and is told how
    long its content is."""
    yield height, size, root, key
    if height > 0:
        length = LINK_LEN * -(-size // (MEBI * FANOUT ** (height - 1)))
        for part, below, below_key in children(size, height, plain_of(root, key, length)):
            yield from walk(part, height - 1, below, below_key, plain_of)


def extents_of(entry):
    """What an item names (§3, §4) as (kind, what): trees as a reference's fields, slices, and chunks."""
    if isinstance(entry, str):
        return
    for chunk in entry.get("chunks", []):
        yield "chunk", chunk
    for extent in entry.get("extents", []):
        yield ("tree", rules.read_tree_text(extent)) if isinstance(extent, str) else ("slice", extent)


def names_of(entry, plain_of):
    """The names of an item's blobs, in the order of their positions: a slice has none."""
    for kind, what in extents_of(entry):
        if kind == "tree":
            yield from (root for _, _, root, _ in walk(*what, plain_of))
        elif kind == "chunk":
            yield bytes.fromhex(what.get("blake3") or what["blobId"])


def positions_of_body(body, own, pages, plain_of):
    """The names of all blobs of a version with a body, and where the items of each page begin, by the body's counts. `own`: the
    body's tree; `pages`: the items of each."""
    trees = [page["reference"] for one in body["collections"] for page in one["pages"]]
    counts = [page["blobs"] for one in body["collections"] for page in one["pages"]]
    names = [root for _, _, root, _ in walk(*own, plain_of)]
    names += [body["packs"][number] for number in sorted(body["packs"])]
    for tree in trees:
        names += [root for _, _, root, _ in walk(*rules.read_tree(tree), plain_of)]
    starts = [len(names) + sum(counts[:n]) for n in range(len(counts))]
    for items in pages:
        names += [name for item in items for name in names_of(item, plain_of)]
    if body["ids"]:
        names += [root for _, _, root, _ in walk(*rules.read_tree(body["ids"]), plain_of)]
    return names, starts


# --- parts ----------------------------------------------------------------------------------------------------------


def parts_of(mask):
    """The numbers of the parts that a mask means."""
    return [part for part in range(PART_COUNT) if mask >> part & 1]


def crypt(key, offset, piece):
    """Opens, or seals, what lies at a multiple of 64 bytes in a native blob (§2)."""
    start = struct.pack("<I", 1 + offset // 64) + bytes(12)
    return Cipher(algorithms.ChaCha20(key, start), None).encryptor().update(piece)


def seal_native(key, content):
    """The native blob of a content under a key (§2)."""
    filling = Cipher(algorithms.ChaCha20(key, bytes(4) + b"\xff" * 12), None).encryptor().update(bytes(MEBI - len(content)))
    return ChaCha20Poly1305(key).encrypt(bytes(12), content + filling, None)
