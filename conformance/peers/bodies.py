"""Bodies and pages (docs/protocol.md §5), read strictly: what is not the one encoding of what it says is refused.

Written from that document and from RFC 8949, and from nothing else.
"""

import base64
import struct

import blake3_tree
import cbor
import rules

FORMAT = 2
BODY_LEN_MAX, PAGE_LEN_MAX = 8 << 20, 256 << 10
COLLECTIONS_MAX, ITEMS_MAX, PAGE_ITEMS_MAX, PACKS_MAX = 10_000, 1 << 20, 1 << 16, 1 << 16
BYTES_MAX = 1 << 60
DESCRIPTION_LEN_MAX = 64 << 10
SKIPPED_DEPTH_MAX = 16
ID_LEN = 32
PAGE_LEN_MIN, PAGE_CUT = 16 << 10, 256


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

    def keys(self):
        """The type and argument of each key of a map, ascending by their encoding; its value is read meanwhile."""
        previous = b""
        for _ in range(self.argument(5)):
            start = self.at
            kind, _, argument = self.strict_head()
            key = self.raw[start : self.at]
            need(key > previous, "keys that do not ascend")
            previous = key
            yield kind, argument

    def map(self, readers):
        """The members that `readers` know; others are skipped. Keys are integers."""
        members = {}
        for kind, argument in self.keys():
            need(kind in (0, 1), "a key that is no integer")
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

    # --- pages --------------------------------------------------------------------------------------------------------

    def chunk(self):
        need(self.argument(4) == 6, "a chunk of another number of fields")
        blob, offset, length = self.bytes(32), self.uint(), self.uint()
        key, nonce, real_size = self.bytes(32), self.bytes(12), self.uint()
        place = {"blobId": blob.hex(), "offset": offset, "length": length}
        return {**place, "key": key.hex(), "nonce": nonce.hex(), "realSize": real_size}

    def tree(self):
        raw = self.bytes(rules.REFERENCE_LEN)
        rules.read_tree(raw)
        return raw

    def next_is(self, kind):
        """Whether the next item is of this type."""
        return self.at < len(self.raw) and self.raw[self.at] >> 5 == kind

    def extent(self):
        """An extent as an entry's JSON has it, and its size."""
        if not self.next_is(4):
            raw = self.tree()
            return tree_text(raw), rules.read_tree(raw)[0]
        need(self.argument(4) == 4, "a slice of another number of fields")
        pack, offset, length, key = self.uint(), self.uint(), self.uint(), self.bytes(32)
        rules.check_slice(pack, offset, length)
        return [pack, offset, length, key.hex()], length

    def true(self):
        need(self.strict_head()[:2] == (7, 21), "a mark that is not true")
        return True

    def item(self):
        if self.next_is(3):
            uri = self.string()
            rules.check_magnet(uri)
            return uri
        readers = {1: self.string, 2: self.uint, 3: self.uint, 4: self.true, 8: self.filled_string, 9: self.true}
        readers[5] = lambda: self.filled_array(rules.EXTENTS_MAX, self.extent)
        readers[6] = lambda: self.filled_array(rules.EXTENTS_MAX, self.chunk)
        readers[10] = lambda: self.bytes(32).hex()
        file = self.map(readers)
        need(1 in file, "no path")
        rules.check_path(file[1])
        entry = {"name": file[1], "size": file.get(2, 0)}
        names = {3: "modified", 4: "executable", 8: "target", 9: "folder", 10: "blake3"}
        entry.update({names[key]: value for key, value in file.items() if key in names})
        if 8 in file or 9 in file:
            need(len(file.keys() & {2, 4, 5, 6, 8, 9, 10}) == 1, "members of another kind")
            need(len(file.get(8, "").encode()) <= rules.PATH_LEN_MAX, "a target")
            return entry
        need(2 in file and not (5 in file and 6 in file), "no size, or two references")
        if 6 in file:
            rules.check_chunks(file[6], file[2])
            return {**entry, "chunks": file[6]}
        extents = file.get(5, [])
        need(sum(size for _, size in extents) == file[2], "another size than the sum of the extents")
        return {**entry, "extents": [one for one, _ in extents]}

    def page(self):
        items = self.filled_array(PAGE_ITEMS_MAX, self.item)
        need(self.at == len(self.raw), "bytes after the end")
        names = [name_of(item).encode() for item in items]
        need(all(a < b for a, b in zip(names, names[1:])), "names that do not ascend")
        rules.check_paths([item for item in items if isinstance(item, dict)])
        return items

    # --- bodies -------------------------------------------------------------------------------------------------------

    def page_ref(self):
        need(self.argument(4) == 4, "a page of another number of fields")
        page = {"reference": self.tree(), "first": self.string(), "items": self.uint(), "blobs": self.uint()}
        need(rules.read_tree(page["reference"])[0] <= PAGE_LEN_MAX, "a page that is too long")
        need(1 <= page["items"] <= PAGE_ITEMS_MAX, "a page's items")
        try:
            rules.check_magnet(page["first"])
        except rules.Refused:
            rules.check_path(page["first"])
        return page

    def collection(self):
        one = self.map({1: self.filled_string, 2: lambda: self.filled_array(ITEMS_MAX, self.page_ref)})
        need(len(one.get(1, "").encode()) <= rules.TITLE_LEN_MAX, "a title")
        firsts = [page["first"].encode() for page in one.get(2, [])]
        need(all(a < b for a, b in zip(firsts, firsts[1:])), "pages that do not ascend")
        return {"title": one.get(1, ""), "pages": one.get(2, [])}

    def packs(self):
        packs = {}
        for kind, number in self.keys():
            need(kind == 0 and number < 1 << 32, "no pack's number")
            packs[number] = self.bytes(32)
        need(1 <= len(packs) <= PACKS_MAX, "no packs or too many")
        return packs

    def sums(self):
        need(self.argument(4) == 2, "no two sums")
        return self.uint(), self.uint()

    def body(self):
        readers = {0: self.uint, 1: self.filled_string, 2: self.filled_string}
        readers[3] = lambda: self.filled_array(COLLECTIONS_MAX, self.collection)
        body = self.map({**readers, 4: self.packs, 6: self.tree, 11: self.sums})
        need(self.at == len(self.raw), "bytes after the end")
        need(body.get(0) == FORMAT, "another format")
        title, description = body.get(1, ""), body.get(2, "")
        need(len(title.encode()) <= rules.TITLE_LEN_MAX, "the title")
        need(len(description.encode()) <= DESCRIPTION_LEN_MAX, "the description")
        collections, packs = body.get(3, []), body.get(4, {})
        pages = [page for one in collections for page in one["pages"]]
        items = sum(page["items"] for page in pages)
        need((11 in body) == (items > 0), "sums of nothing, or none of something")
        total, said = body.get(11, (0, 0))
        need(total <= BYTES_MAX and said == items <= ITEMS_MAX, "the sums")
        positions = blobs_of(len(self.raw)) + len(packs)
        positions += sum(blobs_of(rules.read_tree(page["reference"])[0]) + page["blobs"] for page in pages)
        need(positions < 1 << 64, "more blobs than 64 bits count")
        if 6 in body:
            need(rules.read_tree(body[6])[0] == ID_LEN * positions, "not one id for each blob")
        about = {"title": title, "description": description, "collections": collections}
        return {**about, "packs": packs, "ids": body.get(6), "bytes": total}


def tree_text(raw):
    """A tree as a head has it."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def blobs_of(size):
    """The blobs of a tree, index blobs included."""
    level = max(-(-size >> 20), 1)
    total = level
    while level > 1:
        level = -(-level // 1024)
        total += level
    return total


def name_of(item):
    """What an item is sorted by."""
    return item if isinstance(item, str) else item["name"]


def blobs_of_item(item):
    """Blobs of an item (§12); a slice has none."""
    if isinstance(item, str):
        return 0
    trees = [one for one in item.get("extents", []) if isinstance(one, str)]
    return len(item.get("chunks", [])) + sum(blobs_of(rules.read_tree_text(tree)[0]) for tree in trees)


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


def read_body(raw):
    """A body; references and roots are bytes."""
    if len(raw) > BODY_LEN_MAX:
        raise TooLarge
    try:
        return Reader(raw).body()
    except cbor.Malformed as error:
        raise rules.Refused("no CBOR") from error


def read_page(raw):
    """A page's items, as entries in JSON (README) and URIs."""
    need(len(raw) <= PAGE_LEN_MAX, "a page that is too long")
    try:
        return Reader(raw).page()
    except cbor.Malformed as error:
        raise rules.Refused("no CBOR") from error


def check_page(items, page, packs):
    """Whether a page is what the body says of it."""
    need(name_of(items[0]) == page["first"] and len(items) == page["items"], "another first item or number of items")
    need(sum(map(blobs_of_item, items)) == page["blobs"], "another number of blobs")
    slices = {one[0] for item in items if isinstance(item, dict) for one in item.get("extents", []) if isinstance(one, list)}
    need(slices <= set(packs), "a slice in no pack")
    return slices


def join(body, pages):
    """What a body and its pages say together."""
    used, total, count = set(), 0, 0
    for page, raw in zip((page for one in body["collections"] for page in one["pages"]), pages, strict=True):
        items = read_page(raw)
        used |= check_page(items, page, body["packs"])
        total += sum(item["size"] for item in items if isinstance(item, dict))
        count += len(items)
    need(total == body["bytes"], "the sum of bytes")
    need(used == set(body["packs"]), "a pack that no slice is in")
    return {"bytes": total, "items": count}


def members(*pairs):
    """The pairs that are not left out."""
    return {key: value for key, value in pairs if value not in ("", [], {}, None, False)}


def encode_item(entry):
    """An item as CBOR takes it."""
    if isinstance(entry, str):
        return entry

    def extent(one):
        if isinstance(one, str):
            return base64.urlsafe_b64decode(one + "==")
        return one[:3] + [bytes.fromhex(one[3])]

    def chunk(one):
        blob, key, nonce = (bytes.fromhex(one[name]) for name in ("blobId", "key", "nonce"))
        return [blob, one["offset"], one["length"], key, nonce, one["realSize"]]

    file = {1: entry["name"]}
    if "target" not in entry and "folder" not in entry:
        file[2] = entry["size"]
    if "modified" in entry:
        file[3] = entry["modified"]
    references = ((5, list(map(extent, entry.get("extents", [])))), (6, list(map(chunk, entry.get("chunks", [])))))
    marks = ((8, entry.get("target")), (9, entry.get("folder")))
    hashed = bytes.fromhex(entry["blake3"]) if "blake3" in entry else None
    return {**file, **members((4, entry.get("executable")), *references, *marks, (10, hashed))}


def write_page(items):
    """The one encoding of a page."""
    return cbor.dumps([encode_item(item) for item in items])


def write_body(body):
    """The one encoding of a body."""
    pages = [page for one in body["collections"] for page in one["pages"]]

    def collection(one):
        refs = [[page["reference"], page["first"], page["items"], page["blobs"]] for page in one["pages"]]
        return members((1, one["title"]), (2, refs))

    collections = [collection(one) for one in body["collections"]]
    packs = dict(sorted(body["packs"].items()))
    sums = [body["bytes"], sum(page["items"] for page in pages)] if pages else None
    texts = ((1, body["title"]), (2, body["description"]))
    return cbor.dumps({0: FORMAT, **members(*texts, (3, collections), (4, packs), (6, body["ids"]), (11, sums))})


def cut(items):
    """The pages into which a writer cuts a collection: lists of items."""
    pages, page, length = [], [], 0
    for item in sorted(items, key=lambda item: name_of(item).encode()):
        encoded = len(cbor.dumps(encode_item(item)))
        if page and len(cbor.head(4, len(page) + 1)) + length + encoded > PAGE_LEN_MAX:
            pages.append(page)
            page, length = [], 0
        page.append(item)
        length += encoded
        ends = int.from_bytes(blake3_tree.digest(name_of(item).encode())[:4], "big") % PAGE_CUT == 0
        if ends and len(cbor.head(4, len(page))) + length >= PAGE_LEN_MIN:
            pages.append(page)
            page, length = [], 0
    return pages + [page] if page else pages
