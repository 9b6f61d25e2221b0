"""Texts as docs/protocol.md §5 to §7 take and refuse them: paths, addresses, and the JSON of heads and entries.

Written from that document and from nothing else. What breaks a rule raises `Refused`.
"""

import base64
import json
import re
import struct

import addr
import v5

PATH_LEN_MAX, NAME_LEN_MAX = 4096, 255
EXTENTS_MAX = 4096
BOOTSTRAP_MAX = 32
JSON_DEPTH_MAX = 32
MAGNET_LEN_MAX, TITLE_LEN_MAX = 8192, 1024
BLOB_NUMBERS = {"offset": 0, "length": v5.BLOB_LEN, "realSize": None}
TREE_SIZE_MAX = 1 << 60
REFERENCE_LEN = 73


class Refused(Exception):
    """A rule is broken; the argument says which."""


def need(good, why):
    """Refuses."""
    if not good:
        raise Refused(why)


def is_control(letter):
    """Unicode's class Cc."""
    return letter < " " or "\x7f" <= letter <= "\x9f"


# --- paths (§5) -------------------------------------------------------------------------------------------------------


def check_path(path):
    """A file's path."""
    need(isinstance(path, str) and len(path.encode()) <= PATH_LEN_MAX, "the length")
    need(not any(map(is_control, path)), "a control character")
    for name in path.split("/"):
        need(1 <= len(name.encode()) <= NAME_LEN_MAX and name not in (".", ".."), "a component")


# --- channels' addresses (§7) -----------------------------------------------------------------------------------------


def read_hex(text, length):
    """Bytes from hex in either case."""
    need(isinstance(text, str) and re.fullmatch(f"[0-9a-fA-F]{{{2 * length}}}", text), f"no {length} bytes in hex")
    return bytes.fromhex(text)


def read_uri(text):
    """A channel's address."""
    found = re.fullmatch(r"(?:(?i:megatorrent)://)?([^/:?#]*)(?::([^/:?#]*))?/?(?:\?(.*))?", text, re.DOTALL)
    need(found, "no address of a channel")
    public = read_hex(found[1], 32)
    need(v5.is_channel_key(public), "no channel's key")
    read_key = None if found[2] is None else read_hex(found[2], 32).hex()
    members = (found[3] or "").split("&")
    values = [member.removeprefix("bootstrap=") for member in members if member.startswith("bootstrap=")]
    need(len(values) <= BOOTSTRAP_MAX, "too many bootstrap peers")
    bootstrap = [read_bootstrap(value) for value in values]
    query = "&".join("bootstrap=" + peer for peer in bootstrap)
    query = query and "?" + query
    bare = f"megatorrent://{public.hex()}"
    return {
        "public_key": public.hex(),
        "read_key": read_key,
        "bootstrap": bootstrap,
        "written": bare + (":" + read_key if read_key else "") + query,
        "written_without_read_key": bare + query,
    }


def read_bootstrap(value):
    """The one form of a bootstrap peer, whose address may be percent-encoded."""
    plain = re.sub("%5[bB]", "[", re.sub("%5[dD]", "]", re.sub("%3[aA]", ":", value)))
    need("%" not in plain, "a percent sign")
    try:
        return addr.read(plain)["written"]
    except addr.Refused as error:
        need(str(error) != "peer-addr", "no HOST:PORT")
        raise


# --- JSON as a signature sees it (§6) ---------------------------------------------------------------------------------


class Number(float):
    """A number that is no integer from 0 to 2^64 - 1."""


def read_json(raw):
    """Parses strictly; objects are lists of pairs within a tuple, so that they are no arrays."""
    try:
        text = raw.decode()
        check_depth(text)
        value = json.loads(
            text, parse_int=whole, parse_float=fraction, parse_constant=refuse_constant, object_pairs_hook=pairs
        )
        check_texts(value)
        return value
    except (ValueError, RecursionError) as error:
        raise Refused("no JSON") from error


def refuse_constant(name):
    raise Refused(f"the number {name}")


def whole(digits):
    return int(digits) if digits[0] != "-" and int(digits) < 1 << 64 else fraction(digits)


def fraction(digits):
    number = Number(digits)
    need(abs(number) != float("inf"), "a number that is too large")
    return number


def pairs(members):
    names = [name for name, _ in members]
    need(len(names) == len(set(names)), "a member twice")
    return (members,)


def check_depth(text):
    """Arrays and objects around one another, looked for outside strings."""
    depth = 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token, 0)
        need(depth <= JSON_DEPTH_MAX, "it nests too deep")


def check_texts(value):
    """No half of a surrogate pair."""
    if isinstance(value, str):
        value.encode()
    for part in value[0] if isinstance(value, tuple) else value if isinstance(value, list) else ():
        for text in part if isinstance(value, tuple) else (part,):
            check_texts(text)


def write_json(value, is_sorted):
    """What `JSON.stringify` writes; sorted: members by their names' UTF-16 code units."""
    if isinstance(value, tuple):
        members = sorted(value[0], key=lambda member: member[0].encode("utf-16-be")) if is_sorted else value[0]
        return "{" + ",".join(f"{write_json(n, is_sorted)}:{write_json(v, is_sorted)}" for n, v in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write_json(item, is_sorted) for item in value) + "]"
    if isinstance(value, Number):
        return write_number(value)
    return json.dumps(value, ensure_ascii=False)


def write_number(number):
    """ECMA-262, Number::toString. Python's `repr` has the same digits."""
    if number == 0:
        return "0"
    mantissa, _, exponent = repr(abs(float(number))).partition("e")
    whole_part, _, part = mantissa.partition(".")
    point = len(whole_part) + int(exponent or 0)
    digits = (whole_part + part).lstrip("0")
    point -= len(whole_part + part) - len(digits)
    digits = digits.rstrip("0")
    sign = "-" if number < 0 else ""
    if len(digits) <= point <= 21:
        return sign + digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = "." + digits[1:] if digits[1:] else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"


def member(value, name):
    """A member of an object; None where it is not there, `Null` where it is null."""
    need(isinstance(value, tuple), "no object")
    return next((Null if part is None else part for each, part in value[0] if each == name), None)


Null = object()


def natural(value, why):
    """An integer from 0 to 2^64 - 1."""
    need(type(value) is int, why)
    return value


# --- what heads and entries say (§6) ----------------------------------------------------------------------------------


def read_tree(raw):
    """A tree's reference of 73 bytes: size, depth, root, key."""
    need(len(raw) == REFERENCE_LEN, "another length")
    size, depth, root, key = struct.unpack(">QB32s32s", raw)
    need(depth == depth_of(size), "another depth than the size's")
    return size, depth, root, key


def read_tree_text(text):
    """The same as base64url without padding, which has one form."""
    need(isinstance(text, str) and re.fullmatch("[A-Za-z0-9_-]{98}", text), "no 98 characters of base64url")
    raw = base64.urlsafe_b64decode(text + "==")
    need(base64.urlsafe_b64encode(raw).decode() == text + "==", "bits too many")
    return read_tree(raw)


def depth_of(size):
    """The least depth that holds a stream."""
    return next((depth for depth in range(5) if size <= 1 << 20 + 10 * depth and size <= TREE_SIZE_MAX), None)


def read_chunk(value):
    """A chunk in JSON."""
    chunk = {"blobId": read_hex(member(value, "blobId"), 32).hex(), "key": read_hex(member(value, "key"), 32).hex()}
    chunk["nonce"] = read_hex(member(value, "nonce"), 12).hex()
    for name, absent in BLOB_NUMBERS.items():
        number = member(value, name)
        chunk[name] = natural(absent if number is None else number, name)
    root = member(value, "blake3")
    if root is not None:
        chunk["blake3"] = read_hex(root, 32).hex()
        place = chunk["offset"], chunk["length"], chunk["nonce"]
        need(place == (0, v5.BLOB_LEN, "00" * 12), "a root beside what is no native data blob")
    return chunk


def check_chunks(chunks, size):
    """Chunks within their blobs that hold `size` bytes together (§4)."""
    need(len(chunks) <= EXTENTS_MAX, "too many chunks")
    for chunk in chunks:
        need(max(chunk[name] for name in BLOB_NUMBERS) < 1 << 32, "a number of more than 32 bits")
        need(chunk["offset"] + chunk["length"] <= v5.BLOB_LEN and chunk["length"] > v5.TAG_LEN, "a chunk's place")
        need(chunk["realSize"] <= chunk["length"] - v5.TAG_LEN, "a chunk's content")
    need(sum(chunk["realSize"] for chunk in chunks) == size, "the sum of the chunks")


def check_slice(pack, offset, length):
    """A slice within its pack (§3)."""
    need(max(pack, offset, length) < 1 << 32, "a number of more than 32 bits")
    need(length > 0 and offset % 16 == 0 and offset + length + 16 <= 1 << 20, "a slice's place")


def read_extent(value):
    """An extent in the JSON of an entry, and its size: a tree's text, or a slice."""
    if isinstance(value, str):
        return value, read_tree_text(value)[0]
    need(isinstance(value, list) and len(value) == 4, "neither a tree nor a slice")
    pack, offset, length = (natural(number, "a slice's number") for number in value[:3])
    check_slice(pack, offset, length)
    return [pack, offset, length, read_hex(value[3], 32).hex()], length


def read_common(value):
    """What every entry has."""
    path, size = member(value, "name"), natural(member(value, "size"), "size")
    check_path(path)
    entry = {"name": path, "size": size}
    modified = member(value, "modified")
    if modified is not None:
        entry["modified"] = natural(modified, "modified")
    if member(value, "executable") is True:
        entry["executable"] = True
    return entry


def read_entry(value):
    """A file entry in the JSON of a head; as it is written, its members sorted by name."""
    entry, chunks = read_common(value), member(value, "chunks")
    need(isinstance(chunks, list), "no chunks")
    entry["chunks"] = [read_chunk(chunk) for chunk in chunks]
    check_chunks(entry["chunks"], entry["size"])
    return {name: entry[name] for name in sorted(entry)}


def read_any_entry(value):
    """An entry of any form (README)."""
    forms = [name for name in ("chunks", "extents", "target", "folder") if member(value, name) is not None]
    need(len(forms) == 1, "no reference, or several")
    if forms == ["chunks"]:
        return read_entry(value)
    entry, reference = read_common(value), member(value, forms[0])
    size = 0
    if forms == ["extents"]:
        need(isinstance(reference, list) and len(reference) <= EXTENTS_MAX, "no list of extents")
        extents = [read_extent(one) for one in reference]
        reference, size = [one for one, _ in extents], sum(length for _, length in extents)
    elif forms == ["target"]:
        need(isinstance(reference, str) and 0 < len(reference.encode()) <= PATH_LEN_MAX, "a target")
    else:
        need(reference is True, "a folder that is none")
    need(size == entry["size"], "another size than the sum of the extents")
    entry[forms[0]] = reference
    hashed = member(value, "blake3")
    if hashed is not None:
        entry["blake3"] = read_hex(hashed, 32).hex()
    need(forms == ["extents"] or not {"executable", "blake3"} & set(entry), "members of another kind")
    return {name: entry[name] for name in sorted(entry)}


def check_magnet(uri):
    """A magnet URI."""
    need(uri.startswith("magnet:?") and len(uri.encode()) <= MAGNET_LEN_MAX, "no magnet URI")
    need(not any(map(is_control, uri)), "a control character")


def check_paths(entries):
    """No path twice, none that is a folder of another."""
    paths = [entry["name"] for entry in entries]
    need(len(paths) == len(set(paths)), "a path twice")
    folders = {path[: at.start()] for path in paths for at in re.finditer("/", path)}
    need(folders.isdisjoint(paths), "a file where another needs a folder")


def read_collection(value):
    """A collection in JSON."""
    title, items = member(value, "title"), member(value, "items")
    title = "" if title is None else title
    need(isinstance(title, str) and len(title.encode()) <= TITLE_LEN_MAX, "a title")
    need(isinstance(items, list), "no items")
    for item in items:
        if isinstance(item, str):
            check_magnet(item)
    return {"title": title, "items": [item if isinstance(item, str) else read_entry(item) for item in items]}


def read_content(value):
    """The content of a head, or of what it seals."""
    body = member(value, "body")
    if body is not None:
        read_tree_text(body)
        return {"body": body}
    collections = member(value, "collections")
    need(isinstance(collections, list), "no collections")
    collections = [read_collection(one) for one in collections]
    check_paths([item for one in collections for item in one["items"] if isinstance(item, dict)])
    return {"collections": collections}
