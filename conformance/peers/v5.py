"""Protocol v5 for Python, written from the description of its wire and from nothing else.

It shares no code with the Rust tree, so that both agree only where the description says enough. It needs Python 3.11
and the `cryptography` package (Debian: python3-cryptography). Sections named below are those of docs/protocol.md.
"""

import hashlib
import json
import os
import re
import struct

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.poly1305 import Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PLAIN_LEN = 1 << 20
TAG_LEN = 16
BLOB_LEN = PLAIN_LEN + TAG_LEN
FRAME_LEN_MAX = 1 + BLOB_LEN + TAG_LEN
ITEM_VALUE_LEN_MAX = 996

HELLO, REQUEST, DATA, FIND_PEERS, PEERS = 0x01, 0x02, 0x03, 0x04, 0x05
PUBLISH, ANNOUNCE, OK, ERROR = 0x06, 0x07, 0x08, 0xFF


class Broken(Exception):
    """The other side broke a rule, or a document is not what it should be."""


# --- handshake and frames -------------------------------------------------------------------------------------


def raw_public(private):
    """The 32 bytes of a private key's public half."""
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def shared_secret(own, theirs):
    """X25519; `own` and `theirs` are 32 bytes each. A low-order point is refused."""
    try:
        return X25519PrivateKey.from_private_bytes(own).exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError as error:
        raise Broken("low-order X25519 key") from error


def session_keys(shared):
    """The key the dialler seals with, and the key the listener seals with."""
    return tuple(hashlib.blake2b(shared + role, digest_size=32).digest() for role in (b"C", b"S"))


def frame_nonce(counter):
    """The frame counter as a 96-bit little-endian number."""
    return counter.to_bytes(12, "little")


def seal_frame(key, counter, plaintext):
    """A whole frame: length and ciphertext."""
    sealed = ChaCha20Poly1305(key).encrypt(frame_nonce(counter), plaintext, None)
    return struct.pack(">I", len(sealed)) + sealed


class Channel:
    """One encrypted connection over a connected socket."""

    def __init__(self, sock, dialler):
        self.sock = sock
        own = X25519PrivateKey.generate()
        sock.sendall(raw_public(own))
        theirs = self._exactly(32)
        if theirs is None:
            raise Broken("closed during the handshake")
        try:
            shared = own.exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError as error:
            raise Broken("low-order X25519 key") from error
        self.shared = shared
        client, server = session_keys(shared)
        self.seal_key, self.open_key = (client, server) if dialler else (server, client)
        self.sealed = self.opened = 0

    def _exactly(self, length):
        """`length` bytes; None where the stream ends before the first."""
        got = bytearray()
        while len(got) < length:
            piece = self.sock.recv(min(length - len(got), 1 << 16))
            if not piece:
                if got:
                    raise Broken("the stream ended within a frame")
                return None
            got += piece
        return bytes(got)

    def frame(self, plaintext):
        """Seals the next frame without sending it."""
        frame = seal_frame(self.seal_key, self.sealed, plaintext)
        self.sealed += 1
        return frame

    def send(self, kind, payload=b""):
        """Sends one message."""
        self.sock.sendall(self.frame(bytes([kind]) + payload))

    def send_json(self, kind, value):
        """Sends one message whose payload is JSON."""
        self.send(kind, json.dumps(value, separators=(",", ":")).encode())

    def receive(self):
        """The next message as (type, payload); None at the end of the stream. Empty frames are passed over."""
        while True:
            header = self._exactly(4)
            if header is None:
                return None
            (length,) = struct.unpack(">I", header)
            if not TAG_LEN <= length <= FRAME_LEN_MAX:
                raise Broken(f"a frame of {length} bytes")
            sealed = self._exactly(length)
            if sealed is None:
                raise Broken("the stream ended within a frame")
            try:
                plain = ChaCha20Poly1305(self.open_key).decrypt(frame_nonce(self.opened), sealed, None)
            except InvalidTag as error:
                raise Broken("a frame that does not open") from error
            self.opened += 1
            if plain:
                return plain[0], plain[1:]


def hello(sequences=None, bare=False, version=5):
    """The HELLO document; `sequences` maps public keys in hex to sequence numbers."""
    gossip = dict(sequences or {})
    return {"gossip": gossip} if bare else {"v": version, "gossip": {"sequences": gossip}}


def is_blob_id(text):
    """Whether this is a blob id as it stands in messages and file entries."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


# --- blobs ----------------------------------------------------------------------------------------------------


def seal_chunk(content, key, nonce, filler):
    """A blob out of up to 2^20 bytes of content; `filler` supplies the rest of the plaintext."""
    plain = content + filler[: PLAIN_LEN - len(content)]
    if len(plain) != PLAIN_LEN:
        raise Broken("a chunk holds at most 2^20 bytes and is filled up to them")
    return ChaCha20Poly1305(key).encrypt(nonce, plain, None)


def blob_id(blob):
    """Lowercase hex SHA-256."""
    return hashlib.sha256(blob).hexdigest()


def ingest(path, blobs):
    """Cuts a file into blobs below the folder `blobs`; the file entry."""
    chunks, size = [], 0
    os.makedirs(blobs, exist_ok=True)
    with open(path, "rb") as file:
        while content := file.read(PLAIN_LEN):
            key, nonce = os.urandom(32), os.urandom(12)
            blob = seal_chunk(content, key, nonce, os.urandom(PLAIN_LEN - len(content)))
            with open(os.path.join(blobs, blob_id(blob)), "wb") as out:
                out.write(blob)
            chunks.append(
                {
                    "blobId": blob_id(blob),
                    "offset": 0,
                    "length": BLOB_LEN,
                    "key": key.hex(),
                    "nonce": nonce.hex(),
                    "realSize": len(content),
                }
            )
            size += len(content)
    return {"name": os.path.basename(path), "size": size, "chunks": chunks}


def open_chunk(chunk, blob):
    """The content of one chunk out of its whole blob."""
    sealed = blob[chunk["offset"] : chunk["offset"] + chunk["length"]]
    if len(sealed) != chunk["length"]:
        raise Broken("a chunk that leaves its blob")
    try:
        plain = ChaCha20Poly1305(bytes.fromhex(chunk["key"])).decrypt(bytes.fromhex(chunk["nonce"]), sealed, None)
    except InvalidTag as error:
        raise Broken(f"blob {chunk['blobId']} does not open") from error
    if chunk["realSize"] > len(plain):
        raise Broken("a chunk shorter than its realSize")
    return plain[: chunk["realSize"]]


def assemble(entry, blobs, out):
    """Writes the file of `entry` from the folder `blobs` to `out`."""
    written = 0
    with open(out, "wb") as file:
        for chunk in entry["chunks"]:
            if not is_blob_id(chunk["blobId"]):
                raise Broken("a blob id that is not 64 hex digits")
            with open(os.path.join(blobs, chunk["blobId"]), "rb") as source:
                blob = source.read()
            if blob_id(blob) != chunk["blobId"]:
                raise Broken(f"blob {chunk['blobId']} is damaged")
            written += file.write(open_chunk(chunk, blob))
    if written != entry["size"]:
        raise Broken(f"the entry names {entry['size']} bytes, its chunks hold {written}")


# --- identities, manifests, DHT items ---------------------------------------------------------------------------


def generate_identity():
    """An identity file's document."""
    seed = os.urandom(32)
    private = Ed25519PrivateKey.from_private_bytes(seed)
    return {"publicKey": raw_public(private).hex(), "secretKey": (seed + raw_public(private)).hex()}


def signing_key(identity):
    """The signing key of an identity document."""
    secret = bytes.fromhex(identity["secretKey"])
    private = Ed25519PrivateKey.from_private_bytes(secret[:32])
    if raw_public(private) != secret[32:] or secret[32:].hex() != identity["publicKey"]:
        raise Broken("an identity whose halves do not belong together")
    return private


# The points of small order in their canonical encodings (§1).
SMALL_ORDER = {
    bytes.fromhex(point)
    for point in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
}


def verify(public_key, message, signature):
    """Whether an Ed25519 signature is good; all bytes. OpenSSL computes R and compares its encoding, so it refuses any
    other encoding and whatever holds with the cofactor only; small order it does not look for."""
    if not is_channel_key(public_key) or signature[:32] in SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def is_channel_key(public_key):
    """Whether 32 bytes are the canonical encoding of a point that is not of small order."""
    return is_point(public_key) and public_key not in SMALL_ORDER


def is_point(public_key):
    """Whether 32 bytes encode a point of Ed25519's curve (RFC 8032 §5.1.3) in its one form."""
    p = 2**255 - 19
    y = int.from_bytes(public_key, "little") & ((1 << 255) - 1)
    u, v = (y * y - 1) % p, (-121665 * pow(121666, -1, p) * y * y + 1) % p
    square = u * pow(v, -1, p) % p
    has_sign = public_key[31] > 127
    return y < p and (not has_sign if square == 0 else pow(square, (p - 1) // 2, p) == 1)


def by_name(value):
    """The same with the members of all objects sorted by their names' UTF-16 code units."""
    if isinstance(value, dict):
        return {name: by_name(value[name]) for name in sorted(value, key=lambda name: name.encode("utf-16-be"))}
    return [by_name(item) for item in value] if isinstance(value, list) else value


def canonical(value):
    """Compact JSON with members sorted by name at every depth."""
    return compact(by_name(value))


def compact(value):
    """Compact JSON in the document's own order."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def sign_manifest(private, document, in_order):
    """Adds the signature; `in_order`: over the document's own order of members instead of the sorted one."""
    text = compact if in_order else canonical
    signed = dict(document, signature=private.sign(text(document)).hex())
    return text(signed)


def seal_content(read_key, nonce, plain):
    """The ciphertext of a private manifest: a 12-byte nonce is ChaCha20-Poly1305, a 24-byte one is secretbox."""
    if len(nonce) == 12:
        return ChaCha20Poly1305(read_key).encrypt(nonce, plain, None)
    return secretbox(read_key, nonce, plain)


def open_content(read_key, nonce, sealed):
    """The inverse of `seal_content`."""
    if len(nonce) == 24:
        return secretbox_open(read_key, nonce, sealed)
    try:
        return ChaCha20Poly1305(read_key).decrypt(nonce, sealed, None)
    except (InvalidTag, ValueError) as error:
        raise Broken("the read key does not open it") from error


def make_manifest(private, sequence, timestamp, collections, in_order=False, read_key=None, nonce=None):
    """A manifest's signed JSON text."""
    content = {"collections": collections, "timestamp": timestamp}
    document = {"publicKey": raw_public(private).hex(), "sequence": sequence}
    if read_key is None:
        document.update(content)
    else:
        plain = compact(content) if in_order else canonical(content)
        document.update(encrypted=True, nonce=nonce.hex(), ciphertext=seal_content(read_key, nonce, plain).hex())
    return sign_manifest(private, document, in_order)


def read_manifest(text, read_key=None):
    """A verified manifest with its content in the clear."""
    document = json.loads(text)
    signature = bytes.fromhex(document.get("signature", ""))
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    public_key = bytes.fromhex(document["publicKey"])
    if not any(verify(public_key, form(unsigned), signature) for form in (canonical, compact)):
        raise Broken("the signature does not verify in either order of members")
    if unsigned.get("encrypted"):
        if read_key is None:
            raise Broken("a private manifest and no read key")
        nonce, sealed = bytes.fromhex(unsigned["nonce"]), bytes.fromhex(unsigned["ciphertext"])
        unsigned.update(json.loads(open_content(read_key, nonce, sealed)))
    return unsigned


def item_signable(sequence, value, salt=b""):
    """What a BEP 44 mutable item's signature covers."""
    front = b"4:salt%d:%s" % (len(salt), salt) if salt else b""
    return front + b"3:seqi%de1:v%d:%s" % (sequence, len(value), value)


def sign_item(private, sequence, value):
    """A BEP 44 mutable item in the form of PUBLISH."""
    if len(value) > ITEM_VALUE_LEN_MAX:
        raise Broken(f"{len(value)} bytes do not fit a DHT item")
    signature = private.sign(item_signable(sequence, value))
    return {"k": raw_public(private).hex(), "seq": sequence, "v": value.hex(), "sig": signature.hex()}


# --- NaCl's secretbox -------------------------------------------------------------------------------------------


def _salsa20_rounds(words):
    x = list(words)

    def mix(a, b, c, distance):
        total = (x[a] + x[b]) & 0xFFFFFFFF
        x[c] ^= ((total << distance) | (total >> (32 - distance))) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        mix(a, d, b, 7)
        mix(b, a, c, 9)
        mix(c, b, d, 13)
        mix(d, c, a, 18)

    for _ in range(10):
        for row in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)):
            quarter(*row)
        for row in ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            quarter(*row)
    return x


def _salsa20_state(key, block):
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", block)
    c = struct.unpack("<4I", b"expand 32-byte k")
    return (c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3])


def _xsalsa20_stream(key, nonce, length):
    x = _salsa20_rounds(_salsa20_state(key, nonce[:16]))
    subkey = struct.pack("<8I", x[0], x[5], x[10], x[15], x[6], x[7], x[8], x[9])
    stream = bytearray()
    for counter in range((length + 63) // 64):
        state = _salsa20_state(subkey, nonce[16:] + struct.pack("<Q", counter))
        rounds = _salsa20_rounds(state)
        stream += struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(rounds, state)))
    return bytes(stream[:length])


def secretbox(key, nonce, plain):
    """XSalsa20-Poly1305: the tag, then the ciphertext."""
    stream = _xsalsa20_stream(key, nonce, 32 + len(plain))
    cipher = bytes(a ^ b for a, b in zip(plain, stream[32:]))
    return Poly1305.generate_tag(stream[:32], cipher) + cipher


def secretbox_open(key, nonce, sealed):
    """The inverse of `secretbox`."""
    tag, cipher = sealed[:16], sealed[16:]
    stream = _xsalsa20_stream(key, nonce, 32 + len(cipher))
    try:
        Poly1305.verify_tag(stream[:32], cipher, tag)
    except (InvalidSignature, ValueError) as error:
        raise Broken("the read key does not open it") from error
    return bytes(a ^ b for a, b in zip(cipher, stream[32:]))
