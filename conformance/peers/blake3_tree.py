"""BLAKE3 and the values of its subtrees, from the BLAKE3 paper (section 2) and docs/protocol.md §2.

Many chunks are hashed at once: a word of each is a lane of 64 bits in one long integer, of which 32 are used.
"""

import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
KEYED_HASH, DERIVE_CONTEXT, DERIVE_MATERIAL = 16, 32, 64
CHUNK_LEN, BLOCK_LEN = 1024, 64
PART_LEN, PARTS = 1 << 16, 16


def lanes(words):
    """One word a lane."""
    return int.from_bytes(b"".join(struct.pack("<Q", word) for word in words), "little")


def words_of(lane, count):
    return struct.unpack(f"<{count}Q", lane.to_bytes(8 * count, "little"))


def compress(value, block, counters, block_len, flags, count):
    """The new values of `count` lanes."""
    every = lanes([1] * count)
    mask = every * 0xFFFFFFFF
    state = list(value) + [every * word for word in IV[:4]] + [counters, 0, every * block_len, every * flags]
    block = list(block)

    def rotate(word, by):
        return (word >> by | word << 32 - by) & mask

    def mix(a, b, c, d, x, y):
        state[a] = state[a] + state[b] + x & mask
        state[d] = rotate(state[d] ^ state[a], 16)
        state[c] = state[c] + state[d] & mask
        state[b] = rotate(state[b] ^ state[c], 12)
        state[a] = state[a] + state[b] + y & mask
        state[d] = rotate(state[d] ^ state[a], 8)
        state[c] = state[c] + state[d] & mask
        state[b] = rotate(state[b] ^ state[c], 7)

    for _ in range(7):
        for n in range(4):
            mix(n, 4 + n, 8 + n, 12 + n, block[2 * n], block[2 * n + 1])
        for n in range(4):
            mix(n, 4 + (n + 1) % 4, 8 + (n + 2) % 4, 12 + (n + 3) % 4, block[8 + 2 * n], block[9 + 2 * n])
        block = [block[n] for n in PERMUTATION]
    return [state[n] ^ state[n + 8] for n in range(8)]


def whole_chunks(raw, first, key, flags):
    """The values of chunks of full length, of which the first has this number."""
    count = len(raw) // CHUNK_LEN
    if count == 0:
        return []
    every, counters = lanes([1] * count), lanes(range(first, first + count))
    value = [every * word for word in key]
    for at in range(0, CHUNK_LEN, BLOCK_LEN):
        block = []
        for word in range(at, at + BLOCK_LEN, 4):
            lane = b"".join(raw[n + word : n + word + 4] + b"\0\0\0\0" for n in range(0, len(raw), CHUNK_LEN))
            block.append(int.from_bytes(lane, "little"))
        edge = (CHUNK_START if at == 0 else 0) | (CHUNK_END if at == CHUNK_LEN - BLOCK_LEN else 0)
        value = compress(value, block, counters, BLOCK_LEN, flags | edge, count)
    return list(zip(*(words_of(lane, count) for lane in value)))


def chunk(raw, number, key, flags, is_root=False):
    """The value of one chunk of any length."""
    value, blocks = list(key), [raw[at : at + BLOCK_LEN] for at in range(0, len(raw), BLOCK_LEN)] or [b""]
    for n, block in enumerate(blocks):
        last = n == len(blocks) - 1
        edge = (CHUNK_START if n == 0 else 0) | (CHUNK_END | (ROOT if is_root else 0) if last else 0)
        words = struct.unpack("<16I", block.ljust(BLOCK_LEN, b"\0"))
        value = compress(value, words, number, len(block), flags | edge, 1)
    return tuple(value)


def parents(values, key, flags, is_root):
    """The value above pairs of values; a last one without its pair stays."""
    pairs = list(zip(values[::2], values[1::2]))
    count = len(pairs)
    block = [lanes([pair[n // 8][n % 8] for pair in pairs]) for n in range(16)]
    value = [lanes([word] * count) for word in key]
    value = compress(value, block, 0, BLOCK_LEN, flags | PARENT | (ROOT if is_root else 0), count)
    above = list(zip(*(words_of(lane, count) for lane in value)))
    return above + values[2 * count :]


def merged(values, key, flags, is_root):
    while len(values) > 1:
        values = parents(values, key, flags, is_root and len(values) == 2)
    return values[0]


def packed(words):
    return struct.pack("<8I", *words)


def unpacked(raw):
    return struct.unpack("<8I", raw)


def digest(raw, key=IV, flags=0):
    """The hash of some bytes."""
    if len(raw) <= CHUNK_LEN:
        return packed(chunk(raw, 0, key, flags, is_root=True))
    # The last chunk may be full too; it has at least one byte.
    full = (len(raw) - 1) // CHUNK_LEN
    values = whole_chunks(raw[: full * CHUNK_LEN], 0, key, flags)
    values.append(chunk(raw[full * CHUNK_LEN :], full, key, flags))
    return packed(merged(values, key, flags, is_root=True))


def keyed(key, raw):
    return digest(raw, unpacked(key), KEYED_HASH)


def derive_key(context, material):
    return digest(material, unpacked(digest(context.encode(), flags=DERIVE_CONTEXT)), DERIVE_MATERIAL)


# --- parts of blobs (docs/protocol.md §2) -----------------------------------------------------------------------------


def part_value(number, part):
    """The value of a part: that of its subtree."""
    return packed(merged(whole_chunks(part, number * PART_LEN // CHUNK_LEN, IV, 0), IV, 0, is_root=False))


def values_of(blob):
    """A blob's values: those of its parts, then its tag."""
    parts = [part_value(n, blob[n * PART_LEN : (n + 1) * PART_LEN]) for n in range(PARTS)]
    return b"".join(parts) + blob[PARTS * PART_LEN :]


def root_of(values):
    """The root that values give."""
    parts = [unpacked(values[32 * n : 32 * (n + 1)]) for n in range(PARTS)]
    tag = chunk(values[32 * PARTS :], PARTS * PART_LEN // CHUNK_LEN, IV, 0)
    return packed(merged([merged(parts, IV, 0, is_root=False), tag], IV, 0, is_root=True))
