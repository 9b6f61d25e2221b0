"""What a hostile stranger can send to a peer's port. Each kind prints what the other side did with it."""

import json
import os
import random
import resource
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cbor
import v5
import v6

NESTED = 100_000
# Small enough for a control frame, so that the nesting reaches the JSON parser.
NESTED_SMALL = 60_000
SETTLE_SECONDS = 0.3
PARALLEL = 16
# A request for a blob that nobody has: its answer shows that the connection still works.
PROBE = bytes([v5.REQUEST]) + b"0" * 64
KINDS_OF_MESSAGE = [*range(0x00, 0x20), 0x42, 0x7F, 0x80, 0xFE, 0xFF]
# X25519 points of small order (RFC 7748 §6.1 and the list in "May the Fourth Be With You", CCS 2017).
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def connect(args):
    """A socket to the target, with a time limit for each of its calls."""
    sock = socket.create_connection((args.host, args.port), timeout=args.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def deliver(sock, data):
    """Sends; False where the other side has closed already."""
    try:
        sock.sendall(data)
        return True
    except (BrokenPipeError, ConnectionResetError):
        return False


def reaction(channel):
    """What comes back on an encrypted connection until it ends: the messages' types and texts, and how it ended.

    After an ERROR only a moment's silence is waited for: it answers the probe, or announces the end.
    """
    answers = []
    while True:
        try:
            message = channel.receive()
        except (TimeoutError, socket.timeout):
            return {"outcome": "open", "answers": answers}
        except (ConnectionError, v5.Broken):
            return {"outcome": "closed", "answers": answers}
        if message is None:
            return {"outcome": "closed", "answers": answers}
        kind, payload = message
        answers.append({"type": kind, "text": payload[:100].decode("latin-1"), "length": len(payload)})
        if kind == v5.ERROR:
            channel.sock.settimeout(SETTLE_SECONDS)


def raw_reaction(sock):
    """The same for a connection that has no keys: how many bytes came back, and how it ended."""
    got = 0
    while True:
        try:
            piece = sock.recv(1 << 16)
        except (TimeoutError, socket.timeout):
            return {"outcome": "open", "bytes": got}
        except ConnectionError:
            return {"outcome": "closed", "bytes": got}
        if not piece:
            return {"outcome": "closed", "bytes": got}
        got += len(piece)


def raw(args, data):
    """Opens a connection, sends plain bytes, reports."""
    with connect(args) as sock:
        deliver(sock, data)
        return raw_reaction(sock)


def after_handshake(args, *plains):
    """Opens an encrypted connection, sends plaintexts as frames and a harmless request after them, reports."""
    try:
        with connect(args) as sock:
            channel = v5.Channel(sock, dialler=True)
            deliver(sock, b"".join(map(channel.frame, plains)) + channel.frame(PROBE))
            return reaction(channel)
    except (OSError, v5.Broken) as error:
        return {"outcome": "refused", "why": str(error)}


def past_frames(args, wire):
    """Opens an encrypted connection, sends bytes that no frame made, reports."""
    with connect(args) as sock:
        channel = v5.Channel(sock, dialler=True)
        deliver(sock, wire)
        return reaction(channel)


def each(args, cases):
    """`after_handshake` for many (description, plaintext) pairs, some at a time, reported in order."""
    about, plains = zip(*cases)
    with ThreadPoolExecutor(PARALLEL) as pool:
        yield from zip(about, pool.map(lambda plain: after_handshake(args, plain), plains))


def http(args):
    """A browser's request."""
    yield {}, raw(args, b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n")


def random_bytes(args):
    """Bytes without meaning: in place of the handshake, and after it."""
    dice = random.Random(args.seed)
    for length in (1, 31, 32, 33, 36, 52, 1000, 100_000):
        yield {"length": length}, raw(args, dice.randbytes(length))
    for length in (1, 4, 20, 1000):
        yield {"after_handshake": length}, past_frames(args, dice.randbytes(length))


def low_order(args):
    """X25519 keys that make every shared secret zero."""
    for point in LOW_ORDER:
        yield {"point": point}, raw(args, bytes.fromhex(point))


def length_4gib(args):
    """A length field of 4 GiB - 1, and the smallest ones above what a request-less connection may send."""
    for length in (0xFFFFFFFF, 0x80000000, v5.FRAME_LEN_MAX + 1, v5.FRAME_LEN_MAX):
        yield {"length": length}, past_frames(args, length.to_bytes(4, "big") + bytes(1 << 16))


def short_frame(args):
    """Length fields below the tag's 16 bytes."""
    for length in (0, 1, 15):
        yield {"length": length}, past_frames(args, length.to_bytes(4, "big") + bytes(length))


def traversal_request(args):
    """REQUEST for what is no blob id."""
    names = (
        "../../identity.json",
        "../identity.json",
        "/etc/passwd",
        "..",
        "",
        "../" * 21 + "x",
        "%2e%2e/identity.json",
        "A" * 64,
        "0" * 63 + "\0",
        "0" * 65,
    )
    yield from each(args, [({"request": name}, bytes([v5.REQUEST]) + name.encode()) for name in names])


def deep_json(args):
    """JSON nested 100 000 deep, and as deep as a control frame holds, in each message that carries JSON."""
    cases = []
    for kind, front, back in (
        (v5.HELLO, '{"v":5,"gossip":', "}"),
        (v5.PEERS, "", ""),
        (v5.PUBLISH, '{"k":', "}"),
        (v5.ANNOUNCE, '{"blobId":', "}"),
    ):
        for depth in (NESTED, NESTED_SMALL, 1000):
            for text in ("[" * depth, front + "[" * (depth // 2) + "]" * (depth // 2) + back, '{"a":' * (depth // 5)):
                cases.append(({"type": kind, "length": len(text)}, bytes([kind]) + text.encode()))
    yield from each(args, cases)


def garbage(args):
    """Each type of message, known or not, with payloads that mean nothing."""
    dice = random.Random(args.seed)
    payloads = [b"", b"\0", b"{", b"{}", b"[]", b"null", b"\xff\xfe", b'{"v":4}', b'{"v":"5"}', b'{"v":-1,"gossip":7}']
    payloads += [b'{"gossip":{"x":1e400}}', b'["' + b"a" * 5000 + b'"]', b"9" * 400, b'{"k":"00","seq":1,"v":"","sig":""}']
    payloads += [dice.randbytes(length) for length in (1, 32, 64, 1000, 60_000)]
    yield from each(
        args,
        [
            ({"type": kind, "length": len(payload)}, bytes([kind]) + payload)
            for kind in KINDS_OF_MESSAGE
            for payload in payloads
        ],
    )


def beyond_v5(args):
    """What v6's messages can be made to say; `legal`: the connection must go on."""
    tag, lacking = os.urandom(v6.TAG_LEN), os.urandom(32)
    with open(args.entry, encoding="utf-8") as file:
        stored = bytes.fromhex(json.load(file)["chunks"][0]["blake3"])

    def said(name, **members):
        kind, payload = v6.encode({"type": name, **members})
        return bytes([kind]) + payload

    def want(number, root=lacking, mask=v6.ALL_PARTS, values=True, last_len=None):
        return said("WANT", number=number, root=root, mask=mask, values=values, last_len=last_len)

    def raw_want(members):
        return bytes([v6.WANT]) + cbor.dumps({1: 1, 2: stored, 3: 1, **members})

    def piece(length, part=0, half=0):
        return said("PIECE", number=0, part=part, half=half, bytes=bytes(length))

    def cancel(number, mask=v6.ALL_PARTS):
        return said("CANCEL", number=number, mask=mask)

    def have(**members):
        return said("HAVE", tag=tag, sequence=7, **members)

    def raw_have(members):
        return bytes([v6.HAVE]) + cbor.dumps({1: tag, 2: 7, **members})

    lawless = {
        "unasked PIECE": [piece(1000)],
        "unasked PIECE without bytes": [piece(0)],
        "PIECE that is too long": [piece(v6.PIECE_LEN_MAX + 1)],
        "PIECE that fits no frame": [piece(1 << 16)],
        "PIECE of part 16": [piece(1000, part=16)],
        "PIECE of half 2": [piece(1000, half=2)],
        "unasked PARTS": [said("PARTS", number=0, values=bytes(v6.VALUES_LEN))],
        "PARTS that are too short": [said("PARTS", number=0, values=bytes(v6.VALUES_LEN - 1))],
        "WANT of nothing": [raw_want({3: 0})],
        "WANT of part 16": [raw_want({3: 1 << 16})],
        "WANT of none of the last part": [raw_want({5: 0})],
        "WANT of an odd length of the last part": [raw_want({5: 5000})],
        "WANT of more than the last part": [raw_want({5: v6.PART_LEN})],
        "WANT of too many blobs": [want(number, stored) for number in range(300)],
        "WANT with an open number": [want(1, stored), want(1, stored)],
        "WANT with an open number after a CANCEL of some parts": [want(1, stored), cancel(1, 0xF000), want(1, stored)],
        "HAVE of garbage": [bytes([v6.HAVE]) + os.urandom(100)],
        "HAVE of a bitmap that is a number": [raw_have({3: 7})],
        "HAVE of half a pair": [raw_have({6: [1]})],
        "HAVE of a mask of 2^16": [raw_have({6: [1, 1 << 16]})],
        "HAVE that is not all": [raw_have({5: False})],
        "HAVE that takes nothing back": [raw_have({7: False})],
        "ASK_HAVE without a tag": [bytes([v6.ASK_HAVE]) + cbor.dumps({2: 7})],
        "WATCH of short tags": [said("WATCH", tags=[tag[1:]])],
        "CANCEL without a mask": [bytes([v6.CANCEL]) + cbor.dumps({1: 7})],
        "HAVE nested 60 000 deep": [bytes([v6.HAVE]) + b"\x81" * NESTED_SMALL],
    }
    pairs = [(2**32 - 1, v6.ALL_PARTS)] * 5000
    legal = {
        "WANT of a blob that it lacks": [want(1)],
        "WANT of a blob that it lacks, 60 times": [want(number) for number in range(60)],
        "WANT of 4096 bytes": [want(1, stored, 1, False, 4096)],
        "WANT of values and the last part": [want(1, stored, 0x8000)],
        "WANT and CANCEL": [want(1, stored), cancel(1)],
        "WANT with a number that was cancelled": [want(1, stored, 0x8000), cancel(1, 0x8000), want(1, stored, 1, False, 4096)],
        "CANCEL of unknown numbers": [cancel(number) for number in range(1000)],
        "CANCEL of no part": [cancel(1, 0)],
        "HAVE of an unknown channel": [have(all=True), have(bitmap=b"\xff" * 60_000), have(positions=[2**32 - 1] * 5000)],
        "HAVE of an unknown channel's blobs under way": [have(under_way=pairs), have(replaces=True)],
        "ASK_HAVE of an unknown channel": [said("ASK_HAVE", tag=tag, sequence=7)] * 100,
        "WATCH of random tags": [said("WATCH", tags=[os.urandom(v6.TAG_LEN) for _ in range(1056)])] * 10,
        "HEAD that nobody asked for": [said("HEAD", tag=tag, item=None)] * 100,
    }
    hello = bytes([v5.HELLO]) + json.dumps(v6.hello()).encode()
    for steps, is_legal in ((lawless, False), (legal, True)):
        for step, plains in steps.items():
            yield {"step": step, "legal": is_legal}, after_handshake(args, hello, *plains)
    for _ in range(PARALLEL):
        with connect(args) as sock:
            channel = v5.Channel(sock, dialler=True)
            deliver(sock, b"".join(map(channel.frame, [hello, *(want(number, stored) for number in range(60))])))
    yield {"step": "WANTs whose answers nobody reads"}, {"outcome": "dropped"}


def flood(args):
    """Thousands of empty and unknown messages, and of requests whose answers nobody reads."""
    for plain in (b"", b"\x99", bytes([v5.REQUEST]) + b"0" * 64, bytes([v5.FIND_PEERS]) + b"0" * 64):
        with connect(args) as sock:
            channel = v5.Channel(sock, dialler=True)
            sock.settimeout(min(args.timeout, 2))
            sent = 0
            try:
                while sent < args.connections:
                    sock.sendall(b"".join(channel.frame(plain) for _ in range(500)))
                    sent += 500
                outcome = "taken"
            except (TimeoutError, socket.timeout):
                outcome = "paused"
            except ConnectionError:
                outcome = "closed"
        yield {"plain": plain[:1].hex(), "sent": sent}, {"outcome": outcome}


def hold(args, handshake):
    """Connections that say nothing (or nothing after the handshake) until our standard input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held, refused = [], 0
    for _ in range(args.connections):
        try:
            sock = connect(args)
            if handshake:
                v5.Channel(sock, dialler=True)
            held.append(sock)
        except (OSError, v5.Broken):
            refused += 1
    yield {"connections": len(held)}, {"outcome": "held", "refused": refused}
    sys.stdin.read()
    for sock in held:
        sock.close()


def idle(args):
    """Connections that never send a byte."""
    yield from hold(args, handshake=False)


def idle_keyed(args):
    """Connections that finish the handshake and then never send a byte."""
    yield from hold(args, handshake=True)


def slow_loris(args):
    """Connections that send a byte at a time, half of them within the handshake, half within a frame."""
    socks = []
    for index in range(args.connections):
        try:
            sock = connect(args)
            if index % 2:
                v5.Channel(sock, dialler=True)
                sock.sendall((60_000).to_bytes(4, "big"))
            socks.append(sock)
        except (OSError, v5.Broken):
            pass
    yield {"connections": len(socks)}, {"outcome": "started"}
    closed, ends = 0, time.monotonic() + args.seconds
    while socks and time.monotonic() < ends:
        for sock in list(socks):
            if not deliver(sock, os.urandom(1)):
                closed += 1
                socks.remove(sock)
        time.sleep(0.5)  # the slowness is what is being tried
    yield {"connections": len(socks)}, {"outcome": "ended", "closed": closed}


KINDS = {
    "http": http,
    "random": random_bytes,
    "low-order": low_order,
    "length-4gib": length_4gib,
    "short-frame": short_frame,
    "traversal-request": traversal_request,
    "deep-json": deep_json,
    "garbage": garbage,
    "beyond-v5": beyond_v5,
    "flood": flood,
    "idle": idle,
    "idle-keyed": idle_keyed,
    "slow-loris": slow_loris,
}


def run(args):
    """Runs one kind against the target; one JSON line for each connection or step."""
    for about, outcome in KINDS[args.kind](args):
        print(json.dumps({"kind": args.kind, **about, **outcome}), flush=True)
