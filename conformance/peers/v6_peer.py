#!/usr/bin/python3
"""A v6 peer for tests and for trying things by hand; `v6_peer.py -h` lists what it does.

It knows one channel at a time, kept in a file: {"item": a BEP 44 item as PUBLISH has it, "read_key": hex or null}.
Results go to standard output, one JSON document a line. The exit code is 0 where all went well, 1 otherwise.
"""

import argparse
import json
import os
import socket
import sys
import threading

sys.dont_write_bytecode = True  # the tree stays clean

import blake3_tree
import bodies
import cbor
import rules
import v5
import v6
from v5_peer import read_text, report

HALF_LEN = v6.PIECE_LEN_MAX


def deal(kind, payload):
    """A message of v6 as `v6.decode` gives it; one of v5 with its payload."""
    if v6.GET_HEAD <= kind <= v6.PARTS:
        return v6.decode(kind, payload)
    return {"type": kind, "payload": payload}


# --- the channel ----------------------------------------------------------------------------------------------------


class Content:
    """A channel's version: its head, its files, and its blobs by position. `native` brings a native blob by its root, the
    length of its content and its key, `by_id` a v5 blob by its id, `pack` a pack by its root."""

    def __init__(self, item, read_key, native, by_id, pack):
        value, key = bytes.fromhex(item["v"]), bytes.fromhex(item["k"])
        if not v5.verify(key, v5.item_signable(item["seq"], value), bytes.fromhex(item["sig"])):
            raise v5.Broken("a forged head")
        self.item, self.sequence = item, item["seq"]
        self.native, self.by_id, self.pack = native, by_id, pack
        self.topic = v6.topic(key, read_key or b"")
        document = v5.read_manifest(value, read_key)
        self.packs, self.ids = {}, b""
        if "body" in document:
            self.read_body(rules.read_tree_text(document["body"]))
        else:
            items = [item for one in document["collections"] for item in one["items"]]
            self.files = [item for item in items if isinstance(item, dict)]
            self.positions = [name for item in items for name in v6.names_of(item, self.data)]
        chunks = [what for file in self.files for kind, what in v6.extents_of(file) if kind == "chunk"]
        self.v5_blobs = {bytes.fromhex(chunk["blobId"]) for chunk in chunks if "blake3" not in chunk}

    def read_body(self, own):
        """The items of all pages, and the positions; what does not belong together is refused."""
        raw = self.stream(own)
        body, self.pages = bodies.read_body(raw), []
        said = [page for one in body["collections"] for page in one["pages"]]
        for page in said:
            items = bodies.read_page(self.stream(rules.read_tree(page["reference"])))
            bodies.check_page(items, page, body["packs"])
            self.pages.append(items)
        self.packs = body["packs"]
        self.files = [item for items in self.pages for item in items if isinstance(item, dict)]
        self.positions, starts = v6.positions_of_body(body, own, self.pages, self.data)
        self.ids = self.stream(rules.read_tree(body["ids"])) if body["ids"] else b""
        report("body", pages=len(said), starts=starts, ids=len(self.ids) // 32)

    def leaves(self, tree):
        """A tree's data blobs as (root, key, bytes of content)."""
        return [(root, key, size) for height, size, root, key in v6.walk(*tree, self.data) if height == 0]

    def data(self, root, key, length):
        """A native blob's content."""
        return v6.crypt(key, 0, self.native(root, length, key)[:length])

    def stream(self, tree):
        """The stream that a tree holds."""
        return b"".join(self.data(*leaf) for leaf in self.leaves(tree))

    def pieces(self, entry):
        """An entry's content, a blob's or a slice's at a time."""
        for kind, what in v6.extents_of(entry):
            if kind == "tree":
                yield from map(lambda leaf: self.data(*leaf), self.leaves(what))
            elif kind == "chunk" and "blake3" in what:
                yield self.data(bytes.fromhex(what["blake3"]), bytes.fromhex(what["key"]), what["realSize"])
            elif kind == "chunk":
                yield v5.open_chunk(what, self.by_id(bytes.fromhex(what["blobId"])))
            else:
                number, offset, length, key = what
                chunk = {"blobId": "", "offset": offset, "length": length + v5.TAG_LEN, "key": key, "nonce": "00" * 12}
                yield v5.open_chunk({**chunk, "realSize": length}, self.pack(self.packs[number]))

    def write(self, folder):
        """Writes all files below a folder."""
        for entry in self.files:
            path = os.path.join(folder, entry["name"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if entry.get("folder"):
                os.makedirs(path, exist_ok=True)
            elif "target" in entry:
                os.symlink(entry["target"], path)
            else:
                with open(path, "wb") as out:
                    for piece in self.pieces(entry):
                        out.write(piece)


class Folder:
    """Blobs in files that are named by their roots, or v5 blobs by their ids."""

    def __init__(self, path):
        self.path = path
        os.makedirs(path, exist_ok=True)

    def get(self, name):
        """A blob; None where it is not there."""
        path = os.path.join(self.path, name.hex())
        return read_text(path) if os.path.exists(path) else None

    def put(self, name, whole):
        """Keeps a blob."""
        with open(os.path.join(self.path, name.hex()), "wb") as out:
            out.write(whole)


def watch(channel, tag):
    """Names one channel among random ones."""
    tags = [tag] + [os.urandom(v6.TAG_LEN) for _ in range(v6.PADDING - 1)]
    v6.send(channel, "WATCH", tags=sorted(tags))


# --- fetch ----------------------------------------------------------------------------------------------------------


class Asked:
    """A WANT that is open, and what has come of it."""

    def __init__(self, root, mask, values, last_len):
        self.root, self.left, self.values, self.got = root, set(v6.parts_of(mask)), values, {}
        last = max(self.left)
        self.lengths = {part: last_len if part == last and last_len else v6.PART_LEN for part in self.left}
        self.cancelled = set()

    def take(self, said):
        """Half a part; the part and its bytes once both are there."""
        part, half, piece = said["part"], said["half"], said["bytes"]
        if part == 0 and half == 0 and not piece:
            raise v5.Broken(f"blob {self.root.hex()} is refused")
        before = self.got.get(part)
        if part not in self.left or self.values or half != (before is not None):
            raise v5.Broken("a PIECE of what was not asked for, or out of order")
        due = self.lengths[part] - HALF_LEN if half else min(self.lengths[part], HALF_LEN)
        if len(piece) != due:
            raise v5.Broken("a PIECE of another length")
        self.got[part] = (before or b"") + piece
        if len(self.got[part]) < self.lengths[part]:
            return None
        self.left.discard(part)
        return part, self.got.pop(part)


class Fetcher:
    """Asks a node for a channel's head, what it has, and its blobs."""

    def __init__(self, args):
        self.args = args
        self.blobs = Folder(args.blobs)
        self.read_key = bytes.fromhex(args.read_key) if args.read_key else None
        self.asked, self.values, self.parts = {}, {}, {}
        self.wants = self.requests = 0
        self.have, self.has_all, self.under_way = set(), False, {}

    def run(self):
        """Fetches the channel, or tells what the node has of it."""
        with socket.create_connection((self.args.host, self.args.port), timeout=self.args.timeout) as sock:
            self.channel = v5.Channel(sock, dialler=True)
            self.channel.send_json(v5.HELLO, v6.hello())
            self.wait(lambda said: said["type"] == v5.HELLO)
            topic = v6.topic(bytes.fromhex(self.args.public_key), self.read_key or b"")
            self.tag = v6.tag(v6.tag_key(self.channel.shared), topic)
            watch(self.channel, self.tag)
            item = self.head()
            self.ask_have(item["seq"])
            if not self.args.only_have:
                self.fetch(item)

    def next(self):
        """The next message; what the node asks of us meanwhile is answered, what it has is noted."""
        message = self.channel.receive()
        if message is None:
            raise v5.Broken("the other side closed before it answered")
        said = deal(*message)
        if said["type"] == v5.HELLO:
            said["document"] = json.loads(said["payload"])
            if said["document"].get("v", 5) < v6.VERSION:
                raise v5.Broken("a v5 peer")
        elif said["type"] == "GET_HEAD":
            v6.send(self.channel, "HEAD", tag=said["tag"], item=None)
        elif said["type"] == "HAVE" and said["tag"] == self.tag:
            self.note(said)
        return said

    def note(self, said):
        """What a HAVE adds, or takes back."""
        if said["replaces"]:
            self.have, self.has_all, self.under_way = set(), False, {}
        self.has_all |= said["all"]
        bits = said["bitmap"]
        self.have |= {at for at in range(len(bits) * 8) if bits[at // 8] & 0x80 >> at % 8}
        self.have |= set(said["positions"])
        for at, mask in said["under_way"]:
            self.under_way[at] = self.under_way.get(at, 0) | mask
        report("have", sequence=said["sequence"], all=self.has_all, positions=sorted(self.have), under_way=self.under_way)

    def wait(self, wanted):
        """The next message for which `wanted` holds."""
        while not wanted(said := self.next()):
            pass
        return said

    def head(self):
        """The newest head, by GET_HEAD."""
        v6.send(self.channel, "GET_HEAD", tag=self.tag, known=0, look_up=None)
        item = self.wait(lambda said: said["type"] == "HEAD" and said["item"])["item"]
        item = {name: part.hex() if isinstance(part, bytes) else part for name, part in item.items()}
        report("head", sequence=item["seq"])
        with open(self.args.channel, "w", encoding="utf-8") as out:
            json.dump({"item": item, "read_key": self.args.read_key}, out)
        return item

    def ask_have(self, sequence):
        """Waits until the node has all, or as many positions as asked for."""
        v6.send(self.channel, "ASK_HAVE", tag=self.tag, sequence=sequence)
        enough = lambda: self.has_all or len(self.have) >= self.args.only_have > 0
        while not enough():
            self.next()

    def fetch(self, item):
        """All blobs, then the files."""
        content = Content(item, self.read_key, self.native, self.by_id, self.pack)
        content.write(self.args.out)
        for number, root in content.packs.items():
            self.pack(root)
            report("pack", number=number)
        ids = content.ids
        for at in range(len(ids) // 32):
            said, blob = ids[32 * at : 32 * (at + 1)], self.blobs.get(content.positions[at])
            if any(said) and v5.blob_id(blob) != said.hex():
                raise v5.Broken(f"position {at} has another id than the channel says")
        counts = {"files": len(content.files), "positions": len(content.positions), "ids": len(ids) // 32}
        report("done", **counts, wants=self.wants, requests=self.requests)

    # --- v5 blobs

    def by_id(self, blob):
        """A v5 blob, by REQUEST and DATA."""
        if self.blobs.get(blob) is None:
            self.requests += 1
            self.channel.send(v5.REQUEST, blob.hex().encode())
            whole = b""
            while len(whole) < v5.BLOB_LEN:
                said = self.wait(lambda said: said["type"] in (v5.DATA, v5.ERROR))
                if said["type"] == v5.ERROR:
                    raise v5.Broken(f"blob {blob.hex()}: {said['payload'].decode()}")
                whole += said["payload"]
            if v5.blob_id(whole) != blob.hex():
                raise v5.Broken(f"blob {blob.hex()} is wrong")
            self.blobs.put(blob, whole)
        return self.blobs.get(blob)

    # --- native blobs and packs

    def pack(self, root):
        """A pack, all of whose parts are wanted."""
        return self.native(root, v6.MEBI, None)

    def native(self, root, length, key):
        """A native blob, by WANT, each part checked against its value."""
        if self.blobs.get(root) is None:
            needed = -(-max(length, 1) // v6.PART_LEN) if self.args.needed else v6.PART_COUNT
            rest = length - (needed - 1) * v6.PART_LEN
            last_len = -(-max(rest, 1) // v6.CUT_STEP) * v6.CUT_STEP if self.args.needed else v6.PART_LEN
            self.want(root, needed, last_len if last_len < v6.PART_LEN else None)
            whole = b"".join(self.parts.pop((root, part)) for part in range(needed))
            if self.args.needed and key:
                whole = self.complete(root, key, v6.crypt(key, 0, whole)[:length])
            else:
                whole += self.values[root][-v5.TAG_LEN :]
            self.blobs.put(root, whole)
        return self.blobs.get(root)

    def complete(self, root, key, content):
        """The blob that the key and the content make (§2), every part compared with its value."""
        whole = v6.seal_native(key, content)
        if blake3_tree.values_of(whole) != self.values[root]:
            raise v5.Broken(f"blob {root.hex()} is not what its content and key make")
        return whole

    def want(self, root, needed, last_len):
        """Fetches the first parts of a blob, some in each WANT, all asked for at once; some are cancelled and asked for anew."""
        numbers, step = [], self.args.parts
        for first in range(0, needed, step):
            parts = range(first, min(first + step, needed))
            is_last = parts[-1] == needed - 1
            numbers.append(self.ask(root, parts, first == 0, last_len if is_last else None))
        if self.args.cancel:
            numbers += [number for old in numbers for number in self.cancel(old)]
        # The values may come after parts that were asked for under another number.
        is_open = lambda asked: asked.left - asked.cancelled
        while root not in self.values or any(is_open(self.asked[number]) for number in numbers):
            said = self.wait(lambda said: said["type"] in ("PIECE", "PARTS"))
            if said["number"] not in self.asked:
                raise v5.Broken("an answer to what was not asked")
            asked = self.asked[said["number"]]
            if said["type"] == "PARTS":
                self.take_values(asked, said["values"])
            elif found := asked.take(said):
                self.parts[root, found[0]] = found[1]
        self.check(root, needed)

    def ask(self, root, parts, values, last_len):
        """Sends a WANT; its number."""
        self.wants += 1
        mask = sum(1 << part for part in parts)
        v6.send(self.channel, "WANT", number=self.wants, root=root, mask=mask, values=values, last_len=last_len)
        self.asked[self.wants] = Asked(root, mask, values, last_len)
        return self.wants

    def cancel(self, number):
        """Cancels the second half of a WANT's parts and asks for them anew."""
        asked = self.asked[number]
        gone = sorted(asked.left)[len(asked.left) // 2 :]
        asked.cancelled |= set(gone)
        v6.send(self.channel, "CANCEL", number=number, mask=sum(1 << part for part in gone))
        # With all that is left the values are cancelled too.
        values, last_len = asked.values and len(gone) == len(asked.left), asked.lengths[gone[-1]]
        yield self.ask(asked.root, gone, values, last_len if last_len < v6.PART_LEN else None)

    def take_values(self, asked, values):
        """PARTS, which are checked against the root at once."""
        if not asked.values or blake3_tree.root_of(values) != asked.root:
            raise v5.Broken("PARTS that were not asked for, or of another root")
        asked.values, self.values[asked.root] = False, values

    def check(self, root, needed):
        """Whether each whole part is what its value says; a cut one is checked with the whole blob."""
        for part in range(needed):
            piece, value = self.parts[root, part], self.values[root][32 * part : 32 * (part + 1)]
            if len(piece) == v6.PART_LEN and blake3_tree.part_value(part, piece) != value:
                raise v5.Broken(f"part {part} of blob {root.hex()} is wrong")


# --- serve ----------------------------------------------------------------------------------------------------------


LOW_PARTS, HIGH_PARTS = 0x00FF, 0xFF00


class Server:
    """Serves a channel from a folder of blobs, honestly or as its options say."""

    def __init__(self, args):
        self.args = args
        self.blobs = Folder(args.blobs)
        with open(args.channel, encoding="utf-8") as file:
            document = json.load(file)
        read_key = bytes.fromhex(document["read_key"]) if document["read_key"] else None
        get = self.blobs.get
        self.content = Content(document["item"], read_key, lambda root, _length, _key: get(root), get, get)
        positions = self.content.positions
        chosen = {"even": positions[::2], "odd": positions[1::2], "growing": positions[:1]}
        self.had = set(chosen.get(args.have, positions))
        self.mask = {"low": LOW_PARTS, "high": HIGH_PARTS}.get(args.have, v6.ALL_PARTS)

    def run(self):
        """Accepts until it is killed."""
        with socket.create_server((self.args.host, self.args.port)) as listener:
            report("listening", port=listener.getsockname()[1], positions=len(self.content.positions))
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=self.connection, args=(sock,), daemon=True).start()

    def connection(self, sock):
        """One connection from handshake to end."""
        report("connected")
        try:
            with sock:
                sock.settimeout(self.args.timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Visit(self, v5.Channel(sock, dialler=False)).run()
            report("closed", why="done")
        except Exception as error:  # whatever a stranger sends ends his connection and nothing else
            report("closed", why=str(error) or type(error).__name__)


class Visit:
    """One connection of a server."""

    def __init__(self, server, channel):
        self.args, self.content, self.blobs = server.args, server.content, server.blobs
        self.channel, self.had, self.mask = channel, set(server.had), server.mask
        self.tag = v6.tag(v6.tag_key(channel.shared), self.content.topic)

    def run(self):
        """Answers until the other side ends the stream."""
        while message := self.channel.receive():
            said = deal(*message)
            answer = getattr(self, f"on_{said['type']}".lower(), None)
            if answer:
                answer(said)
            else:
                report("message", type=said["type"])

    def on_1(self, said):
        """HELLO"""
        report("hello", document=json.loads(said["payload"]))
        self.channel.send_json(v5.HELLO, v6.hello())
        watch(self.channel, self.tag)

    def on_2(self, said):
        """REQUEST, by which v5 blobs travel"""
        blob = bytes.fromhex(said["payload"].decode())
        has = blob in self.content.v5_blobs & self.had
        report("request", id=blob.hex(), had=has)
        if has and self.args.bad != "refuse":
            self.channel.send(v5.DATA, self.blobs.get(blob))
            self.grow()
        else:
            self.channel.send(v5.ERROR, b"Not Found")

    def on_watch(self, said):
        """Whether the peer follows the channel too."""
        report("watch", tags=len(said["tags"]), common=self.tag in said["tags"])

    def on_get_head(self, said):
        """The head, where it is newer."""
        is_newer = said["tag"] == self.tag and self.content.sequence > said["known"]
        item = self.content.item
        item = {name: bytes.fromhex(item[name]) if name != "seq" else item[name] for name in ("k", "seq", "v", "sig")}
        v6.send(self.channel, "HEAD", tag=said["tag"], item=item if is_newer else None)

    def on_have(self, said):
        """What the peer has."""
        report("have", sequence=said["sequence"], all=said["all"])

    def on_ask_have(self, said):
        """What we have, or garbage."""
        report("ask_have", sequence=said["sequence"], common=said["tag"] == self.tag)
        if said["tag"] != self.tag or said["sequence"] != self.content.sequence:
            return
        if self.args.bad == "garbage-have":
            self.channel.send(v6.HAVE, cbor.dumps({1: self.tag, 2: said["sequence"], 3: "garbage"}))
        elif self.args.have == "all":
            self.tell(all=True)
        elif self.args.have == "odd":
            self.tell(positions=self.places(self.had))
        elif self.args.have in ("low", "high"):
            self.tell(positions=self.places(self.content.v5_blobs))
            native = self.places(self.had - self.content.v5_blobs)
            self.tell(under_way=[(at, self.mask) for at in native])
        elif self.args.have == "replaced":
            self.had = set(self.content.positions[::2])
            self.tell(bitmap=b"\xff" * (len(self.content.positions) // 8 + 1))
            self.tell(replaces=True, positions=self.places(self.had))
        else:
            self.tell(bitmap=v6.bitmap(self.places(self.had)))

    def tell(self, **members):
        """HAVE"""
        v6.send(self.channel, "HAVE", tag=self.tag, sequence=self.content.sequence, **members)

    def on_cancel(self, said):
        """Nothing is left of a want once it was answered."""
        report("cancel", number=said["number"], mask=said["mask"])

    def on_want(self, want):
        """PARTS and PIECEs, or what a bad peer makes of them."""
        has = want["root"] in self.had - self.content.v5_blobs and want["mask"] & ~self.mask == 0
        shown = {name: want[name] for name in ("mask", "values", "last_len")}
        report("want", root=want["root"].hex(), had=has, **shown)
        blob = self.blobs.get(want["root"]) if has and self.args.bad != "refuse" else None
        if self.args.bad == "stall":
            return
        if blob is None:
            self.piece(want["number"], 0, 0, b"")
            return
        if want["values"] and self.args.bad != "no-values":
            values = blake3_tree.values_of(blob)
            if self.args.bad == "wrong-values":
                values = values[:-1] + bytes([values[-1] ^ 1])
            v6.send(self.channel, "PARTS", number=want["number"], values=values)
        for number, part, half, piece in self.cut(want, blob):
            self.piece(number, part, half, piece)
        self.grow()

    def grow(self):
        """Has one blob more."""
        blob = next((blob for blob in self.content.positions if blob not in self.had), None)
        if self.args.have == "growing" and blob is not None:
            self.had.add(blob)
            self.tell(positions=self.places({blob}))

    def places(self, blobs):
        """Every position of blobs: some have several."""
        return [at for at, blob in enumerate(self.content.positions) if blob in blobs]

    def cut(self, want, blob):
        """The PIECEs of a want as (number, part, half, bytes)."""
        number, pieces = want["number"], []
        parts = v6.parts_of(want["mask"])
        for part in parts:
            length = want["last_len"] if part == parts[-1] and want["last_len"] else v6.PART_LEN
            whole = blob[part * v6.PART_LEN :][:length]
            pieces += [(number, part, half, whole[half * HALF_LEN :][:HALF_LEN]) for half in range(-(-length // HALF_LEN))]
        if self.args.order == "reverse":
            pieces.sort(key=lambda piece: (-piece[1], piece[2]))
        elif self.args.order == "halves":
            pieces.sort(key=lambda piece: piece[2])
        return self.spoil(number, pieces)

    def spoil(self, number, pieces):
        """What a bad peer makes of them."""
        _, part, half, first = pieces[0]
        if self.args.bad == "wrong-bytes":
            return [(number, part, half, bytes([first[0] ^ 1]) + first[1:]), *pieces[1:]]
        if self.args.bad == "out-of-order":
            return [(number, part, 1, first), *pieces]
        if self.args.bad == "unasked":
            return [(number + 1000, part, half, first)]
        if self.args.bad == "long-piece":
            return [(number, part, half, bytes(v6.PIECE_LEN_MAX + 1))]
        if self.args.bad == "short-piece":
            return [(number, part, half, first[:-1]), *pieces[1:]]
        if self.args.bad == "twice":
            return [pieces[0], *pieces]
        if self.args.bad == "beyond":
            return pieces + [pieces[-1]]
        return pieces

    def piece(self, number, part, half, piece):
        """PIECE"""
        v6.send(self.channel, "PIECE", number=number, part=part, half=half, bytes=piece)


# --- command line -----------------------------------------------------------------------------------------------------


BAD = ("refuse", "stall", "garbage-have", "wrong-bytes", "wrong-values", "no-values", "out-of-order", "unasked")
BAD += ("long-piece", "short-piece", "twice", "beyond")
HAVE = ("all", "even", "odd", "growing", "low", "high", "replaced")


def options(parser):
    """What fetching and serving have in common."""
    parser.add_argument("--channel", default="channel.json", help="the file that keeps the channel's head")
    parser.add_argument("--blobs", default="blobs", help="folder of blobs, each a file named by its root, or a v5 blob's id")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that one socket call may take")


def parser():
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    fetch = commands.add_parser("fetch", help="fetch a channel and its blobs from a node that follows it")
    options(fetch)
    fetch.add_argument("host")
    fetch.add_argument("port", type=int)
    fetch.add_argument("public_key")
    fetch.add_argument("--read-key", help="of a private channel, in hex")
    fetch.add_argument("--out", default="out", help="folder for the files")
    fetch.add_argument("--parts", type=int, default=16, help="parts in each WANT")
    fetch.add_argument("--needed", action="store_true", help="ask only for what holds content, and make the rest of each blob")
    fetch.add_argument("--cancel", action="store_true", help="cancel half of each WANT and ask for it anew")
    fetch.add_argument("--only-have", type=int, default=0, metavar="N", help="end once the node has N positions or all")
    fetch.set_defaults(run=lambda args: Fetcher(args).run())
    serve = commands.add_parser("serve", help="serve a channel that `fetch` kept")
    options(serve)
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=0, help="0: any free one, which the first line tells")
    serve.add_argument("--have", choices=HAVE, default="all", help="the positions whose blobs it has, or the parts of each")
    serve.add_argument("--order", choices=("ascending", "reverse", "halves"), default="ascending", help="of a WANT's answer")
    serve.add_argument("--bad", choices=BAD, help="a rule to break")
    serve.set_defaults(run=lambda args: Server(args).run())
    return top


def main():
    """Parses, runs, says what went wrong."""
    args = parser().parse_args()
    try:
        return 1 if args.run(args) is False else 0
    except (OSError, ValueError, KeyError, v5.Broken, rules.Refused, cbor.Malformed) as error:
        print(f"v6_peer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
