#!/usr/bin/python3
"""A v5 peer for tests and for trying things by hand; `v5_peer.py -h` lists what it does.

Results go to standard output, one JSON document a line. The exit code is 0 where all went well, 1 otherwise.
"""

import argparse
import json
import os
import socket
import sys
import threading

sys.dont_write_bytecode = True  # the tree stays clean

import hostile
import v5

output = threading.Lock()


def report(event, **members):
    """One JSON line."""
    with output:
        print(json.dumps({"event": event, **members}), flush=True)


def read_text(path):
    """A file's bytes; `-` is standard input."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def sequences(texts):
    """`PUBLICKEY=SEQUENCE` arguments as a map."""
    return {key: int(number) for key, number in (text.split("=") for text in texts)}


# --- serve ------------------------------------------------------------------------------------------------------


class Server:
    """Serves a folder of blobs, honestly or as its options say."""

    def __init__(self, args):
        self.args = args

    def run(self):
        """Accepts until it is killed or its standard input ends (with --until-eof)."""
        with socket.create_server((self.args.host, self.args.port)) as listener:
            report("listening", port=listener.getsockname()[1])
            accept = threading.Thread(target=self.accept, args=(listener,), daemon=True)
            accept.start()
            if self.args.until_eof:
                sys.stdin.read()
            else:
                accept.join()

    def accept(self, listener):
        """A thread for each connection."""
        while True:
            sock, address = listener.accept()
            threading.Thread(target=self.connection, args=(sock, address), daemon=True).start()

    def connection(self, sock, address):
        """One connection from handshake to end."""
        peer = f"{address[0]}:{address[1]}"
        report("connected", peer=peer)
        try:
            with sock:
                sock.settimeout(self.args.timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.converse(v5.Channel(sock, dialler=False), peer)
            report("closed", peer=peer, why="done")
        except Exception as error:  # whatever a stranger sends ends his connection and nothing else
            report("closed", peer=peer, why=str(error) or type(error).__name__)

    def converse(self, channel, peer):
        """Answers until the other side ends the stream, or after one answer with --one-request."""
        if not self.args.no_hello:
            channel.send_json(v5.HELLO, v5.hello(sequences(self.args.gossip), bare=self.args.hello_bare))
        while message := channel.receive():
            kind, payload = message
            if kind == v5.HELLO:
                document = json.loads(payload)
                report("hello", peer=peer, document=document)
                if document.get("v", 5) < 5:
                    channel.send(v5.ERROR, b"Protocol Version Mismatch")
                    return
            elif kind == v5.REQUEST:
                self.answer(channel, peer, payload.decode("ascii"))
                if self.args.one_request:
                    return
            elif kind == v5.FIND_PEERS:
                report("find_peers", peer=peer, id=payload.decode("ascii"))
                channel.send_json(v5.PEERS, self.args.peer)
            elif kind == v5.PUBLISH:
                report("publish", peer=peer, item=json.loads(payload))
                channel.send(v5.ERROR, b"Not a Gateway")
            elif kind == v5.ANNOUNCE:
                report("announce", peer=peer, document=json.loads(payload))
            else:
                report("message", peer=peer, type=kind, length=len(payload))

    def answer(self, channel, peer, blob):
        """DATA, in pieces where asked to, or ERROR."""
        if self.args.stall:
            report("request", peer=peer, id=blob, answer="none")
            return
        path = os.path.join(self.args.blobs, blob)
        if not v5.is_blob_id(blob) or not os.path.exists(path):
            report("request", peer=peer, id=blob, answer="Not Found")
            channel.send(v5.ERROR, b"Not Found")
            return
        data = read_text(path)
        wrong = blob in self.args.wrong_blob or "all" in self.args.wrong_blob
        if wrong:
            data = bytes([data[0] ^ 1]) + data[1:]
        report("request", peer=peer, id=blob, answer="wrong" if wrong else "data")
        if self.args.long_data:
            data = data[:1] + data
        size = -(-len(data) // self.args.split)
        size = min(size, v5.BLOB_LEN)  # what one frame takes
        for start in range(0, len(data), size):
            channel.send(v5.DATA, data[start : start + size])


# --- fetch ------------------------------------------------------------------------------------------------------


class Fetcher:
    """Fetches blobs and writes those whose SHA-256 is right."""

    def __init__(self, args):
        self.args = args
        self.stored = 0
        os.makedirs(args.blobs, exist_ok=True)

    def run(self):
        """Whether all blobs came."""
        wanted = list(self.args.id)
        for entry in self.args.entry:
            wanted += [chunk["blobId"] for chunk in json.loads(read_text(entry))["chunks"]]
        groups = [[blob] for blob in wanted] if self.args.one_request else [wanted]
        for group in groups:
            sock = socket.create_connection((self.args.host, self.args.port), timeout=self.args.timeout)
            with sock:
                self.fetch(v5.Channel(sock, dialler=True), group)
        report("done", wanted=len(wanted), stored=self.stored)
        return self.stored == len(wanted)

    def fetch(self, channel, blobs):
        """All of `blobs` over one connection."""
        if not self.args.no_hello:
            channel.send_json(v5.HELLO, v5.hello(sequences(self.args.gossip), bare=self.args.hello_bare))
        if self.args.pipeline:
            # From a second thread: the answers must be read while requests are still being written.
            asking = threading.Thread(target=lambda: [channel.send(v5.REQUEST, b.encode()) for b in blobs], daemon=True)
            asking.start()
        for blob in blobs:
            if not self.args.pipeline:
                channel.send(v5.REQUEST, blob.encode())
            self.receive(channel, blob)

    def receive(self, channel, blob):
        """The answer to one request; what else comes in between is reported."""
        data = b""
        while message := channel.receive():
            kind, payload = message
            if kind == v5.DATA:
                data += payload
                if v5.blob_id(data) == blob:
                    with open(os.path.join(self.args.blobs, blob), "wb") as out:
                        out.write(data)
                    self.stored += 1
                    report("blob", id=blob, length=len(data))
                    return
                if len(data) >= v5.BLOB_LEN:
                    report("wrong", id=blob, length=len(data))
                    return
            elif kind == v5.ERROR:
                report("error", id=blob, text=payload.decode("latin-1"))
                return
            elif kind == v5.HELLO:
                report("hello", document=json.loads(payload))
            else:
                report("message", type=kind, length=len(payload))
        raise v5.Broken("the other side closed before it answered")


# --- documents --------------------------------------------------------------------------------------------------


def ingest(args):
    """Cuts a file into blobs; the entry goes to --entry or to standard output."""
    write_out(args.entry, v5.compact(v5.ingest(args.file, args.blobs)))


def assemble(args):
    """Puts a file together again from its entry and its blobs."""
    v5.assemble(json.loads(read_text(args.entry)), args.blobs, args.out)
    report("assembled", out=args.out)


def gen_key(args):
    """A fresh identity file."""
    identity = v5.generate_identity()
    with open(os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(v5.compact(identity))
    report("identity", publicKey=identity["publicKey"])


def read_key(args):
    """The read key of --read-key-file, or None."""
    return bytes.fromhex(read_text(args.read_key_file).decode().strip()) if args.read_key_file else None


def sign(args):
    """Signs a manifest over entries and magnets; with --item the BEP 44 item around it."""
    private = v5.signing_key(json.loads(read_text(args.identity)))
    items = [json.loads(read_text(path)) for path in args.entry] + args.magnet
    nonce = os.urandom(24 if args.secretbox else 12)
    text = v5.make_manifest(
        private,
        args.sequence,
        args.sequence if args.timestamp is None else args.timestamp,
        [{"title": args.title, "items": items}],
        in_order=args.in_order,
        read_key=read_key(args),
        nonce=nonce,
    )
    write_out(args.out, v5.compact(v5.sign_item(private, args.sequence, text)) if args.item else text)


def verify(args):
    """Verifies a manifest and prints it with its content in the clear."""
    print(json.dumps(v5.read_manifest(read_text(args.file), read_key(args))), flush=True)


def write_out(path, data):
    """To a file, or as a line to standard output."""
    if path is None:
        sys.stdout.buffer.write(data + b"\n")
    else:
        with open(path, "wb") as out:
            out.write(data)


# --- command line -----------------------------------------------------------------------------------------------


def connection_options(parser):
    """What serving and fetching have in common."""
    parser.add_argument("--blobs", default="blobs", help="folder of blobs, each a file named by its id")
    parser.add_argument("--one-request", action="store_true", help="one request on each connection")
    parser.add_argument("--no-hello", action="store_true", help="send no HELLO")
    parser.add_argument("--hello-bare", action="store_true", help="send the gossip map bare, without `sequences` and `v`")
    parser.add_argument("--gossip", action="append", default=[], metavar="KEY=SEQ", help="a sequence to tell in HELLO")
    parser.add_argument("--timeout", type=float, default=30, help="seconds that one socket call may take")


def serve_options(parser):
    """serve"""
    connection_options(parser)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one, which the first line tells")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    parser.add_argument("--split", type=int, default=1, metavar="N", help="send each blob in N DATA messages")
    parser.add_argument("--wrong-blob", action="append", default=[], metavar="ID", help="lie about this blob, or `all`")
    parser.add_argument("--long-data", action="store_true", help="send a byte more than a blob")
    parser.add_argument("--stall", action="store_true", help="take requests and never answer")
    parser.add_argument("--peer", action="append", default=[], metavar="HOST:PORT", help="a peer to name in PEERS")
    parser.set_defaults(run=lambda args: Server(args).run())


def fetch_options(parser):
    """fetch"""
    connection_options(parser)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("id", nargs="*")
    parser.add_argument("--entry", action="append", default=[], metavar="FILE", help="fetch the blobs of a v5 entry")
    parser.add_argument("--pipeline", action="store_true", help="ask for all before the first answer")
    parser.set_defaults(run=lambda args: Fetcher(args).run())


def manifest_options(parser):
    """manifest"""
    actions = parser.add_subparsers(required=True)
    one = actions.add_parser("sign", help="sign a manifest")
    one.add_argument("--identity", required=True)
    one.add_argument("--sequence", type=int, required=True)
    one.add_argument("--timestamp", type=int)
    one.add_argument("--title", default="")
    one.add_argument("--in-order", action="store_true", help="sign the document's own order of members, not the sorted")
    one.add_argument("--secretbox", action="store_true", help="encrypt with XSalsa20-Poly1305 and a 24-byte nonce")
    one.add_argument("--read-key-file", help="encrypt under the key in this file (64 hex digits)")
    one.add_argument("--item", action="store_true", help="write the BEP 44 item around the manifest, as PUBLISH has it")
    one.add_argument("--magnet", action="append", default=[])
    one.add_argument("--out")
    one.add_argument("entry", nargs="*")
    one.set_defaults(run=sign)
    two = actions.add_parser("verify", help="verify a manifest")
    two.add_argument("--read-key-file")
    two.add_argument("file")
    two.set_defaults(run=verify)


def bad_options(parser):
    """bad"""
    parser.add_argument("kind", choices=hostile.KINDS)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--timeout", type=float, default=5, help="seconds of silence after which a step is left")
    parser.add_argument("--connections", type=int, default=1000, help="for idle, slow-loris; messages for flood")
    parser.add_argument("--seconds", type=float, default=15, help="how long slow-loris lasts")
    parser.add_argument("--seed", type=int, default=1, help="for what is random")
    parser.add_argument("--entry", help="for beyond-v5: a v5 entry whose blobs the target has")
    parser.set_defaults(run=hostile.run)


def parser():
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    serve_options(commands.add_parser("serve", help="serve a folder of blobs"))
    fetch_options(commands.add_parser("fetch", help="fetch blobs from a peer"))
    one = commands.add_parser("ingest", help="cut a file into v5 blobs")
    one.add_argument("file")
    one.add_argument("--blobs", default="blobs")
    one.add_argument("--entry")
    one.set_defaults(run=ingest)
    two = commands.add_parser("assemble", help="put a file together from a v5 entry")
    two.add_argument("entry")
    two.add_argument("out")
    two.add_argument("--blobs", default="blobs")
    two.set_defaults(run=assemble)
    three = commands.add_parser("gen-key", help="write a fresh identity file")
    three.add_argument("file")
    three.set_defaults(run=gen_key)
    manifest_options(commands.add_parser("manifest", help="sign and verify manifests"))
    bad_options(commands.add_parser("bad", help="send hostile input to a peer"))
    return top


def main():
    """Parses, runs, says what went wrong."""
    args = parser().parse_args()
    try:
        return 1 if args.run(args) is False else 0
    except (OSError, ValueError, KeyError, v5.Broken) as error:
        print(f"v5_peer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
