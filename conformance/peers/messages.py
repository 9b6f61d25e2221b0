"""The messages of v5 (docs/protocol.md §10): what a plaintext says, and how it is sent again.

Written from that document and from nothing else.
"""

import json
import re

import addr
import rules
import v5

VERSION_MIN = 5
CHANNELS_MAX, PEERS_MAX, HOPS_MAX, TEXT_LEN_MAX = 256, 64, 6, 256
NAMES = {1: "HELLO", 2: "REQUEST", 3: "DATA", 4: "FIND_PEERS", 5: "PEERS", 6: "PUBLISH", 7: "ANNOUNCE", 8: "OK", 255: "ERROR"}


class OldVersion(Exception):
    """A HELLO of a version that is not spoken."""


def read_json(raw):
    """JSON of a message: of a member that occurs twice the last counts."""
    try:
        return json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise rules.Refused("no JSON") from error


def is_natural(value, below):
    """Whether a JSON value is an integer from 0 on."""
    return type(value) is int and 0 <= value < below


def is_key(text):
    """Whether a member's name is a channel's key."""
    return re.fullmatch("[0-9a-fA-F]{64}", text) is not None and v5.is_channel_key(bytes.fromhex(text))


def read_hello(raw):
    hello = read_json(raw)
    rules.need(isinstance(hello, dict), "no object")
    version = None
    if "v" in hello:
        version = hello["v"]
        rules.need(is_natural(version, 1 << 64), "the version")
        if version < VERSION_MIN:
            raise OldVersion
    gossip = hello.get("gossip", {})
    rules.need(isinstance(gossip, dict), "the gossip")
    named = gossip.get("sequences")
    named = sorted((named if isinstance(named, dict) else gossip).items())[:CHANNELS_MAX]
    sequences = {key.lower(): seq for key, seq in named if is_key(key) and is_natural(seq, 1 << 64)}
    port, features = hello.get("port"), hello.get("features")
    return {
        "v": version,
        "sequences": sequences,
        "port": port if is_natural(port, 1 << 16) and port else None,
        "features": features if is_natural(features, 1 << 64) else 0,
    }


def read_id(raw):
    rules.need(re.fullmatch(b"[0-9a-fA-F]{64}", raw), "no blob id")
    return {"id": raw.decode().lower()}


def read_peers(raw):
    listed, peers = read_json(raw), []
    rules.need(isinstance(listed, list), "no array")
    for peer in listed[:PEERS_MAX]:
        try:
            shown = addr.read(peer) if isinstance(peer, str) else None
        except addr.Refused:
            continue
        if shown and shown["exchanged"]:
            peers.append(shown["written"])
    return {"peers": peers}


def read_publish(raw):
    item = read_json(raw)
    rules.need(isinstance(item, dict), "no object")
    key, signature = rules.read_hex(item.get("k"), 32), rules.read_hex(item.get("sig"), 64)
    value, seq = item.get("v"), item.get("seq")
    rules.need(isinstance(value, str) and len(value) % 2 == 0, "the value")
    value = rules.read_hex(value, len(value) // 2)
    rules.need(type(seq) is int and -(1 << 63) <= seq < 1 << 63 and v5.is_channel_key(key), "the sequence or the key")
    good = seq >= 0 and len(value) <= v5.ITEM_VALUE_LEN_MAX
    good = good and v5.verify(key, v5.item_signable(seq, value), signature)
    return {"item": {"k": key.hex(), "seq": seq, "v": value.hex(), "sig": signature.hex(), "verifies": good}}


def read_announce(raw):
    said = read_json(raw)
    rules.need(isinstance(said, dict) and isinstance(said.get("peerAddress"), str), "no address")
    blob, hops = rules.read_hex(said.get("blobId"), 32), said.get("hops")
    try:
        peer = addr.read(said["peerAddress"])["written"]
    except addr.Refused as error:
        rules.need(str(error) != "peer-addr", "no HOST:PORT")
        raise
    return {"id": blob.hex(), "peer": peer, "hops": min(hops, HOPS_MAX) if is_natural(hops, 1 << 64) else 0}


def read_text(raw):
    return {"text": raw[:TEXT_LEN_MAX].decode(errors="replace")}


READERS = {
    1: read_hello,
    2: read_id,
    3: lambda raw: {"bytes": raw},
    4: read_id,
    5: read_peers,
    6: read_publish,
    7: read_announce,
    8: read_text,
    255: read_text,
}


def payload(said):
    """How a message's payload is written: JSON is compact, its members sorted by name."""
    if said["type"] == "HELLO":
        members = {"gossip": {"sequences": said["sequences"]}, "v": said["v"], "port": said["port"]}
        members["features"] = said["features"] or None
        return v5.canonical({name: value for name, value in members.items() if value is not None})
    if said["type"] == "PEERS":
        return v5.canonical(said["peers"])
    if said["type"] == "PUBLISH":
        return v5.canonical({name: said["item"][name] for name in ("k", "seq", "v", "sig")})
    if said["type"] == "ANNOUNCE":
        return v5.canonical({"blobId": said["id"], "peerAddress": said["peer"], "hops": said["hops"]})
    return said["bytes"] if "bytes" in said else (said.get("id") or said.get("text", "")).encode()


def decode(plain):
    """What a plaintext says, and the plaintext with which it is sent."""
    if not plain:
        return {"type": "empty"}, b""
    if plain[0] not in NAMES:
        return {"type": "unknown", "byte": plain[0]}, plain[:1]
    try:
        said = {"type": NAMES[plain[0]], **READERS[plain[0]](plain[1:])}
    except addr.Refused:
        # An ANNOUNCE of a name that whoever passed it on need not have verified.
        return {"type": "unknown", "byte": plain[0]}, plain[:1]
    return said, plain[:1] + payload(said)
