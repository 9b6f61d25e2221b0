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

import cbor
import v5
import v6
from v5_peer import read_text, report


def deal(kind, payload):
    """A message of v6 as `v6.decode` gives it; one of v5 with its payload."""
    if v6.GET_HEAD <= kind <= v6.HAVE:
        return v6.decode(kind, payload)
    return {"type": kind, "payload": payload}


# --- the channel ----------------------------------------------------------------------------------------------------


class Content:
    """A channel's version: its head, its files, and its blobs by position. `blob_of` brings a blob by its id."""

    def __init__(self, item, read_key, blob_of):
        value, key = bytes.fromhex(item["v"]), bytes.fromhex(item["k"])
        if not v5.verify(key, v5.item_signable(item["seq"], value), bytes.fromhex(item["sig"])):
            raise v5.Broken("a forged head")
        self.item, self.sequence, self.blob_of = item, item["seq"], blob_of
        self.topic = v6.topic(key, read_key or b"")
        document = v5.read_manifest(value, read_key)
        self.positions = []
        if "root" in document:
            document = v6.read_body(self.read(document["root"]))
        entries = [entry for one in document["collections"] for entry in one["items"] if isinstance(entry, dict)]
        self.files = [(entry, self.place(entry)) for entry in entries]

    def open(self, blob, key):
        """A native blob's plaintext."""
        return v6.open_native(self.blob_of(blob), key)

    def walk(self, root):
        """A tree's blobs as (height, bytes below, id, key), which take the next positions."""
        nodes = list(v6.walk(*v6.tree_of(root), self.open))
        self.positions += [blob for _, _, blob, _ in nodes]
        return nodes

    def read(self, root):
        """The stream that a tree holds."""
        leaves = [node for node in self.walk(root) if node[0] == 0]
        return b"".join(self.open(blob, key)[:length] for _, length, blob, key in leaves)

    def place(self, entry):
        """What brings an entry's content; its blobs take the next positions."""
        if "root" in entry:
            leaves = [node for node in self.walk(entry["root"]) if node[0] == 0]
            return [lambda node=node: self.open(node[2], node[3])[: node[1]] for node in leaves]
        self.positions += [bytes.fromhex(chunk["blobId"]) for chunk in entry["chunks"]]
        return [
            lambda chunk=chunk: v5.open_chunk(chunk, self.blob_of(bytes.fromhex(chunk["blobId"])))
            for chunk in entry["chunks"]
        ]

    def write(self, folder):
        """Writes all files below a folder."""
        for entry, parts in self.files:
            path = os.path.join(folder, entry["name"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                for part in parts:
                    out.write(part())


class Folder:
    """Blobs in files that are named by their ids."""

    def __init__(self, path):
        self.path = path
        os.makedirs(path, exist_ok=True)

    def get(self, blob):
        """A blob; None where it is not there."""
        path = os.path.join(self.path, blob.hex())
        return read_text(path) if os.path.exists(path) else None

    def put(self, blob, whole):
        """Keeps a blob that is what its id says."""
        if v5.blob_id(whole) != blob.hex():
            raise v5.Broken(f"blob {blob.hex()} is wrong")
        with open(os.path.join(self.path, blob.hex()), "wb") as out:
            out.write(whole)


def watch(channel, tag):
    """Names one channel among random ones."""
    tags = [tag] + [os.urandom(v6.TAG_LEN) for _ in range(v6.PADDING - 1)]
    v6.send(channel, "WATCH", tags=sorted(tags))


# --- fetch ----------------------------------------------------------------------------------------------------------


class Fetcher:
    """Asks a node for a channel's head, what it has, and its blobs."""

    def __init__(self, args):
        self.args = args
        self.blobs = Folder(args.blobs)
        self.read_key = bytes.fromhex(args.read_key) if args.read_key else None
        self.last_number = 0
        self.have, self.has_all = set(), False

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
            self.has_all |= said.get("all", False)
            bits = said.get("bitmap", b"")
            self.have |= {at for at in range(len(bits) * 8) if bits[at // 8] & 0x80 >> at % 8}
            self.have |= set(said.get("positions", []))
            report("have", sequence=said["sequence"], all=self.has_all, positions=sorted(self.have))
        return said

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
        content = Content(item, self.read_key, self.blob)
        wanted = [blob for blob in dict.fromkeys(content.positions) if self.blobs.get(blob) is None]
        for start in range(0, len(wanted), self.args.at_once):
            self.want(wanted[start : start + self.args.at_once])
        content.write(self.args.out)
        report("done", files=len(content.files), positions=len(content.positions), ranges=self.last_number)

    def blob(self, blob):
        """A blob, fetched where it lacks."""
        if self.blobs.get(blob) is None:
            self.want([blob])
        return self.blobs.get(blob)

    def ask(self, blob, start, end):
        """A range that is open, and what has come of it."""
        self.last_number += 1
        members = {"number": self.last_number, "blob": blob, "offset": start, "length": end - start}
        v6.send(self.channel, "WANT", **members)
        return {"number": self.last_number, "blob": blob, "start": start, "end": end, "got": b""}

    def want(self, blobs):
        """Fetches blobs, each in several ranges, all asked for at once."""
        step = -(-v5.BLOB_LEN // self.args.ranges)
        spans = [(start, min(start + step, v5.BLOB_LEN)) for start in range(0, v5.BLOB_LEN, step)]
        ranges = [self.ask(blob, *span) for blob in blobs for span in spans]
        if self.args.cancel:
            ranges += self.cancel(ranges)
        late = {one["number"] for one in ranges if one["end"] < one.get("asked", 0)}
        pending = {one["number"]: one for one in ranges if one["start"] < one["end"]}
        while pending:
            said = self.wait(lambda said: said["type"] == "PIECE")
            if said["number"] in pending:
                self.take(pending, said)
            elif said["number"] not in late:
                raise v5.Broken("a PIECE that nobody asked for")
        for blob in blobs:
            parts = sorted((one["start"], one["got"]) for one in ranges if one["blob"] == blob)
            self.blobs.put(blob, b"".join(part for _, part in parts))

    def cancel(self, ranges):
        """Cancels the second half of each range and asks for it anew."""
        again = []
        for one in ranges:
            one["asked"], middle = one["end"], (one["start"] + one["end"]) // 2
            one["end"] = middle
            v6.send(self.channel, "CANCEL", number=one["number"], offset=middle)
            again.append(self.ask(one["blob"], middle, one["asked"]))
        return again

    @staticmethod
    def take(pending, said):
        """The next bytes of a range."""
        one = pending[said["number"]]
        if said["offset"] != one["start"] + len(one["got"]):
            raise v5.Broken("a PIECE out of order")
        if not said["bytes"]:
            raise v5.Broken(f"blob {one['blob'].hex()} is refused")
        if said["offset"] + len(said["bytes"]) > one.get("asked", one["end"]):
            raise v5.Broken("more than was asked for")
        one["got"] = (one["got"] + said["bytes"])[: one["end"] - one["start"]]
        if len(one["got"]) == one["end"] - one["start"]:
            del pending[said["number"]]


# --- serve ----------------------------------------------------------------------------------------------------------


class Server:
    """Serves a channel from a folder of blobs, honestly or as its options say."""

    def __init__(self, args):
        self.args = args
        self.blobs = Folder(args.blobs)
        with open(args.channel, encoding="utf-8") as file:
            document = json.load(file)
        read_key = bytes.fromhex(document["read_key"]) if document["read_key"] else None
        self.content = Content(document["item"], read_key, self.blobs.get)
        positions = self.content.positions
        chosen = {"all": positions, "even": positions[::2], "odd": positions[1::2], "growing": positions[:1]}
        self.had = set(chosen[args.have])

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
        self.channel, self.had = channel, set(server.had)
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
        """REQUEST, which is for v5 peers"""
        report("request", id=said["payload"].decode("latin-1"))
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
        report("have", sequence=said["sequence"], all=said.get("all", False))

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
        else:
            self.tell(bitmap=v6.bitmap(self.places(self.had)))

    def tell(self, **members):
        """HAVE"""
        v6.send(self.channel, "HAVE", tag=self.tag, sequence=self.content.sequence, **members)

    def on_cancel(self, said):
        """Nothing is left of a range once it was answered."""
        report("cancel", number=said["number"])

    def on_want(self, want):
        """PIECEs in order, or what a bad peer makes of them."""
        has = want["blob"] in self.had
        report("want", id=want["blob"].hex(), offset=want["offset"], length=want["length"], had=has)
        blob = self.blobs.get(want["blob"]) if has and self.args.bad != "refuse" else None
        if self.args.bad == "stall":
            return
        if blob is None:
            self.piece(want["number"], want["offset"], b"")
            return
        if self.args.bad == "wrong-bytes":
            blob = bytes([blob[0] ^ 1]) + blob[1:-1] + bytes([blob[-1] ^ 1])
        for number, offset, part in self.cut(want, blob):
            self.piece(number, offset, part)
        if self.args.have == "growing":
            self.grow()

    def grow(self):
        """Has one blob more."""
        blob = next((blob for blob in self.content.positions if blob not in self.had), None)
        if blob is not None:
            self.had.add(blob)
            self.tell(positions=self.places({blob}))

    def places(self, blobs):
        """Every position of blobs: some have several."""
        return [at for at, blob in enumerate(self.content.positions) if blob in blobs]

    def cut(self, want, blob):
        """The PIECEs of a range as (number, offset, bytes)."""
        number, end, size = want["number"], want["offset"] + want["length"], self.args.piece
        pieces = [(number, at, blob[at : min(at + size, end)]) for at in range(want["offset"], end, size)]
        if self.args.bad == "out-of-order":
            return pieces[1:] + pieces[:1]
        if self.args.bad == "unasked":
            return [(number + 1000, *pieces[0][1:])]
        if self.args.bad == "long-piece":
            return [(number, want["offset"], bytes(v6.PIECE_LEN_MAX + 1))]
        if self.args.bad == "beyond":
            return pieces + [(number, end, b"more")]
        return pieces

    def piece(self, number, offset, part):
        """PIECE"""
        v6.send(self.channel, "PIECE", number=number, offset=offset, bytes=part)


# --- command line -----------------------------------------------------------------------------------------------------


BAD = ("refuse", "stall", "garbage-have", "wrong-bytes", "out-of-order", "unasked", "long-piece", "beyond")


def options(parser):
    """What fetching and serving have in common."""
    parser.add_argument("--channel", default="channel.json", help="the file that keeps the channel's head")
    parser.add_argument("--blobs", default="blobs", help="folder of blobs, each a file named by its id")
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
    fetch.add_argument("--ranges", type=int, default=1, help="ranges in which each blob is asked for")
    fetch.add_argument("--at-once", type=int, default=4, help="blobs asked for at once")
    fetch.add_argument("--cancel", action="store_true", help="cancel half of each range and ask for it anew")
    fetch.add_argument("--only-have", type=int, default=0, metavar="N", help="end once the node has N positions or all")
    fetch.set_defaults(run=lambda args: Fetcher(args).run())
    serve = commands.add_parser("serve", help="serve a channel that `fetch` kept")
    options(serve)
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=0, help="0: any free one, which the first line tells")
    serve.add_argument("--have", choices=("all", "even", "odd", "growing"), default="all", help="the positions whose blobs it has")
    serve.add_argument("--piece", type=int, default=v6.PIECE_LEN_MAX, help="bytes in a PIECE")
    serve.add_argument("--bad", choices=BAD, help="a rule to break")
    serve.set_defaults(run=lambda args: Server(args).run())
    return top


def main():
    """Parses, runs, says what went wrong."""
    args = parser().parse_args()
    try:
        return 1 if args.run(args) is False else 0
    except (OSError, ValueError, KeyError, v5.Broken, cbor.Malformed) as error:
        print(f"v6_peer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
