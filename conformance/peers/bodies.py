"""Manifest bodies (docs/protocol.md §5), read strictly: what is not the one encoding of what it says is refused.

Written from that document and from RFC 8949, and from nothing else.
"""

import struct

import cbor
import rules

FORMAT = 1
BODY_LEN_MAX = 8 << 20
COLLECTIONS_MAX, ITEMS_MAX, CHUNKS_MAX = 10_000, 100_000, 100_000
DESCRIPTION_LEN_MAX = 64 << 10
SKIPPED_DEPTH_MAX = 16
REFERENCE_LEN = 73


class TooLarge(Exception):
    """The body is longer than any may be."""


def need(good, why):
    """Refuses."""
    rules.need(good, why)


class Reader(cbor.Reader):
    """Reads deterministic items (RFC 8949 §4.2.1)."""

    def strict_head(self):
        """Major type, additional information and argument, in the shortest form."""
        kind, info, argument = self.head()
        need(argument is not None, "an indefinite length, or a break")
        if kind != 7:
            need(info < 24 or argument >= (24 if info == 24 else 1 << (4 << info - 24)), "a longer form than needed")
        elif info == 24:
            need(argument >= 32, "a simple value in two bytes")
        elif info > 24:
            need(not fits_shorter(info, argument), "a float in a longer form than needed")
        return kind, info, argument

    def argument(self, wanted):
        """The argument of an item of one type."""
        kind, _, argument = self.strict_head()
        need(kind == wanted, "another type")
        return argument

    def uint(self):
        return self.argument(0)

    def bytes(self, length):
        need(self.argument(2) == length, "another length")
        return self.take(length)

    def string(self):
        try:
            return self.take(self.argument(3)).decode()
        except UnicodeDecodeError as error:
            raise rules.Refused("a text that is no UTF-8") from error

    def filled_string(self):
        string = self.string()
        need(string, "an empty text")
        return string

    def array(self, most, read):
        count = self.argument(4)
        need(count <= most, "too many")
        return [read() for _ in range(count)]

    def filled_array(self, most, read):
        items = self.array(most, read)
        need(items, "an empty array")
        return items

    def map(self, readers):
        """The members that `readers` know; others are skipped. Keys are integers, ascending by their encoding."""
        members, previous = {}, b""
        for _ in range(self.argument(5)):
            start = self.at
            kind, _, argument = self.strict_head()
            key = self.raw[start : self.at]
            need(kind in (0, 1), "a key that is no integer")
            need(key > previous, "keys that do not ascend")
            previous = key
            if kind == 0 and argument in readers:
                members[argument] = readers[argument]()
            else:
                self.skip(SKIPPED_DEPTH_MAX)
        return members

    def skip(self, depth):
        """The value of an unknown key. Every item is a level, a number too."""
        need(depth > 0, "it nests too deep")
        kind, _, argument = self.strict_head()
        if kind in (2, 3):
            piece = self.take(argument)
            if kind == 3:
                self.text(piece)
        elif kind == 4:
            for _ in range(argument):
                self.skip(depth - 1)
        elif kind == 5:
            previous = b""
            for _ in range(argument):
                start = self.at
                self.skip(depth - 1)
                key = self.raw[start : self.at]
                need(key > previous, "keys that do not ascend")
                previous = key
                self.skip(depth - 1)
        elif kind == 6:
            self.skip(depth - 1)

    # --- a body's parts -----------------------------------------------------------------------------------------------

    def chunk(self):
        need(self.argument(4) == 6, "a chunk of another number of fields")
        blob, offset, length = self.bytes(32), self.uint(), self.uint()
        key, nonce, real_size = self.bytes(32), self.bytes(12), self.uint()
        place = {"blobId": blob.hex(), "offset": offset, "length": length}
        return {**place, "key": key.hex(), "nonce": nonce.hex(), "realSize": real_size}

    def true(self):
        need(self.strict_head()[:2] == (7, 21), "executable that is not true")
        return True

    def item(self):
        if self.raw[self.at : self.at + 1] and self.raw[self.at] >> 5 == 3:
            uri = self.string()
            rules.check_magnet(uri)
            return uri
        readers = {1: self.string, 2: self.uint, 3: self.uint, 4: self.true}
        readers.update({5: lambda: self.bytes(REFERENCE_LEN), 6: lambda: self.array(CHUNKS_MAX, self.chunk)})
        file = self.map(readers)
        need(1 in file and 2 in file and (5 in file) != (6 in file), "a file's path, size and reference")
        rules.check_path(file[1])
        entry = {"name": file[1], "size": file[2]}
        if 3 in file:
            entry["modified"] = file[3]
        if 4 in file:
            entry["executable"] = True
        if 5 in file:
            size, depth, blob, key = struct.unpack(">QB32s32s", file[5])
            need(size == file[2] and depth == rules.depth_of(size), "a tree of another size or depth")
            entry["root"] = {"depth": depth, "id": blob.hex(), "key": key.hex(), "size": size}
        else:
            rules.check_chunks(file[6], file[2])
            entry["chunks"] = file[6]
        return entry

    def collection(self):
        one = self.map({1: self.filled_string, 2: lambda: self.filled_array(ITEMS_MAX, self.item)})
        need(len(one.get(1, "").encode()) <= rules.TITLE_LEN_MAX, "a title")
        return {"title": one.get(1, ""), "items": one.get(2, [])}

    def body(self):
        readers = {0: self.uint, 1: self.filled_string, 2: self.filled_string}
        body = self.map({**readers, 3: lambda: self.filled_array(COLLECTIONS_MAX, self.collection)})
        need(self.at == len(self.raw), "bytes after the end")
        need(body.get(0) == FORMAT, "another format")
        title, description = body.get(1, ""), body.get(2, "")
        need(len(title.encode()) <= rules.TITLE_LEN_MAX, "the title")
        need(len(description.encode()) <= DESCRIPTION_LEN_MAX, "the description")
        return {"title": title, "description": description, "collections": body.get(3, [])}


def fits_shorter(info, bits):
    """Whether a float of 4 or 8 bytes (26, 27) keeps all its bits in half of them."""
    exponent_len, mantissa_len, lost = {25: (5, 10, 0), 26: (8, 23, 13), 27: (11, 52, 29)}[info]
    if info == 25:
        return False
    mantissa = bits & (1 << mantissa_len) - 1
    if bits >> mantissa_len & (1 << exponent_len) - 1 == (1 << exponent_len) - 1:
        return mantissa % (1 << lost) == 0
    long, short = {26: (">f", ">e"), 27: (">d", ">f")}[info]
    number = struct.unpack(long, bits.to_bytes(4 if info == 26 else 8, "big"))[0]
    try:
        return struct.unpack(short, struct.pack(short, number))[0] == number
    except OverflowError:
        return False


def read(raw):
    """A body as a head would say it (§6)."""
    if len(raw) > BODY_LEN_MAX:
        raise TooLarge
    try:
        body = Reader(raw).body()
    except cbor.Malformed as error:
        raise rules.Refused("no CBOR") from error
    items = [item for one in body["collections"] for item in one["items"]]
    need(len(items) <= ITEMS_MAX, "too many items")
    files = [item for item in items if isinstance(item, dict)]
    need(sum(len(file.get("chunks", [])) for file in files) <= CHUNKS_MAX, "too many chunks")
    rules.check_paths(files)
    return body


def write(body):
    """The one encoding of a body."""

    def members(*pairs):
        return {key: value for key, value in pairs if value not in ("", [], None)}

    def item(entry):
        if isinstance(entry, str):
            return entry
        file = {**members((1, entry["name"])), 2: entry["size"]}
        file.update(members((3, entry.get("modified")), (4, entry.get("executable") or None)))
        if "root" in entry:
            root = entry["root"]
            ids = bytes.fromhex(root["id"]), bytes.fromhex(root["key"])
            file[5] = struct.pack(">QB32s32s", root["size"], root["depth"], *ids)
        else:
            file[6] = [
                [bytes.fromhex(one["blobId"]), one["offset"], one["length"], bytes.fromhex(one["key"]),
                 bytes.fromhex(one["nonce"]), one["realSize"]]
                for one in entry["chunks"]
            ]  # fmt: skip
        return file

    collections = [members((1, one["title"]), (2, [item(entry) for entry in one["items"]])) for one in body["collections"]]
    return cbor.dumps({0: FORMAT, **members((1, body["title"]), (2, body["description"]), (3, collections))})
