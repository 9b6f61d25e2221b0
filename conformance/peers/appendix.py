#!/usr/bin/python3
"""Reads the small channel in the appendix of docs/protocol.md from its head down to the file; the exit code is 0 where every
byte follows from what stands above it. Nothing here is shared with core.
"""

import os
import re
import sys

sys.dont_write_bytecode = True  # the tree stays clean

import blake3_tree
import bodies
import rules
import v5
import v6

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "protocol.md")
SEED = bytes(range(32))
SECRET = blake3_tree.derive_key("megatorrent 2026-11 channel content secret", SEED)


def need(good, why):
    """Refuses."""
    if not good:
        raise v5.Broken(why)


def read(text):
    """The appendix as (name, value) in its order: bytes, or what stands behind a colon."""
    entries = []
    for line in text.splitlines():
        if counted := re.fullmatch(r" *(.*), (\d+) bytes", line):
            entries.append([counted[1], b"", int(counted[2])])
        elif re.fullmatch("  [0-9a-f]+", line):
            entries[-1][1] += bytes.fromhex(line)
        else:
            name, value = line.split(": ", 1)
            entries.append([name.strip(), value, None])
    for name, value, length in entries:
        need(length is None or len(value) == length, f"{name}: another length")
    return [(name, value) for name, value, _ in entries]


def blobs_of(entries):
    """What is said of each blob by its position, the first entry of each being its content."""
    blobs, current = {}, None
    for name, value in entries:
        if found := re.match(r"position (\d+), .*: content", name):
            current = blobs[int(found[1])] = {"content": value}
        elif current is not None:
            current.setdefault(name, value)
    return blobs


def check_blob(said):
    """A blob's names and bytes follow from its content and the channel's secret."""
    content, key = said["content"], blake3_tree.keyed(SECRET, said["content"])
    blob = v6.seal_native(key, content)
    need(said["key"] == key.hex() and said["root"] == blake3_tree.digest(blob).hex(), "the key or the root")
    need(said["id"] == v5.blob_id(blob), "the id")
    need(said["its first bytes"] == blob[:64] and said["its last bytes"] == blob[-64:], "the blob's bytes")
    reference = rules.read_tree(said["TreeRef"])
    need(reference == (len(content), 0, bytes.fromhex(said["root"]), key), "the reference")
    return blob


def main():
    """From the head down."""
    with open(DOCUMENT, encoding="utf-8") as file:
        entries = read(file.read().split("## Appendix")[1].split("```text\n")[1].split("```")[0])
    said, blobs = dict(entries), blobs_of(entries)
    sealed = {position: check_blob(blob) for position, blob in blobs.items()}
    public_key = v5.raw_public(v5.Ed25519PrivateKey.from_private_bytes(SEED))
    need(said["public key"] == public_key.hex() and said["content secret"] == SECRET.hex(), "the author's keys")
    text = said["head, and the item's v"].encode()
    head = v5.read_manifest(text)
    need(v5.verify(public_key, v5.item_signable(head["sequence"], text), said["the item's sig"]), "the item")
    need(rules.read_tree_text(head["body"]) == rules.read_tree(blobs[0]["TreeRef"]), "the head's body")
    body = bodies.read_body(blobs[0]["content"])
    page, own = body["collections"][0]["pages"][0], rules.read_tree(blobs[0]["TreeRef"])
    need(page["reference"] == blobs[1]["TreeRef"] and body["ids"] == blobs[3]["TreeRef"], "the body's trees")
    items = bodies.read_page(blobs[1]["content"])
    bodies.join(body, [blobs[1]["content"]])
    need(items == [{"name": "a", "size": 12, "extents": [bodies.tree_text(blobs[2]["TreeRef"])]}], "the page's file")
    names, _ = v6.positions_of_body(body, own, [items], None)
    need(names == [bytes.fromhex(blobs[n]["root"]) for n in range(4)], "the positions")
    ids = bytes(32) + b"".join(bytes.fromhex(blobs[n]["id"]) for n in (1, 2))
    need(blobs[3]["content"] == ids and blobs[2]["content"] == b"a short file", "the ids or the file")
    want, parts = (said[name] for name in ("WANT of the file's only bytes", "PARTS in answer"))
    asked = v6.decode(want[0], want[1:])
    expected = {"number": 0, "root": names[2], "mask": 1, "values": True, "last_len": 4096}
    need(asked == {"type": "WANT", **expected}, "the WANT")
    values = v6.decode(parts[0], parts[1:])["values"]
    need(blake3_tree.root_of(values) == names[2] and values == blake3_tree.values_of(sealed[2]), "the PARTS")
    return 0


if __name__ == "__main__":
    sys.exit(main())
