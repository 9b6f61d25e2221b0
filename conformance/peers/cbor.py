"""CBOR (RFC 8949) as docs/protocol.md §5 and §12 use it.

A decoder that takes every well-formed item, and a writer of the shortest heads.
"""

import struct

DEPTH_MAX = 16


class Malformed(Exception):
    """What does not parse."""


class Map(list):
    """A map as its pairs in the order of the wire: Python's own would take 1, 1.0 and True for one key."""

    def get(self, name, default=None):
        """The value of the first integer key `name`."""
        return next((value for key, value in self if type(key) is int and key == name), default)

    def __contains__(self, name):
        return any(type(key) is int and key == name for key, _ in self)


class Tagged:
    """A value with a tag, which means nothing here."""


BREAK = object()


class Reader:
    """Reads items from bytes."""

    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, length):
        """The next bytes."""
        piece = self.raw[self.at : self.at + length]
        if len(piece) < length:
            raise Malformed("it ends early")
        self.at += length
        return piece

    def head(self):
        """Major type, additional information, argument; None: of indefinite length."""
        first = self.take(1)[0]
        kind, info = first >> 5, first & 31
        if info < 24:
            return kind, info, info
        if info < 28:
            return kind, info, int.from_bytes(self.take(1 << (info - 24)), "big")
        if info == 31 and kind in (2, 3, 4, 5, 7):
            return kind, info, None
        raise Malformed("a reserved head")

    def item(self, depth=DEPTH_MAX):
        """The next item, in which so many arrays, maps and tags may nest."""
        value = self.item_or_break(depth)
        if value is BREAK:
            raise Malformed("a break where an item belongs")
        return value

    def item_or_break(self, depth):
        """The next item, or `BREAK`."""
        kind, info, argument = self.head()
        if kind == 0:
            return argument
        if kind == 1:
            return -1 - argument
        if kind in (2, 3):
            return self.string(kind, argument)
        if kind == 7:
            return self.simple(info, argument)
        if depth == 0:
            raise Malformed("it nests too deep")
        if kind == 6:
            self.item(depth - 1)
            return Tagged()
        items = self.items(argument, 1 if kind == 4 else 2, depth - 1)
        return items if kind == 4 else Map(zip(items[::2], items[1::2]))

    def items(self, count, each, depth):
        """`count` times `each` items; `None`: up to a break, which may not stand within those that belong together."""
        items = []
        while count is None or len(items) < count * each:
            item = self.item_or_break(depth)
            if item is BREAK:
                if count is None and len(items) % each == 0:
                    return items
                raise Malformed("a break where an item belongs")
            items.append(item)
        return items

    def string(self, kind, length):
        """Bytes or a text, whole or in segments up to a break."""
        if length is not None:
            piece = self.take(length)
            return piece if kind == 2 else self.text(piece)
        whole = b"" if kind == 2 else ""
        while True:
            inner, info, length = self.head()
            if (inner, info) == (7, 31):
                return whole
            if inner != kind or length is None:
                raise Malformed("a segment of another type")
            whole += self.string(kind, length)

    @staticmethod
    def text(piece):
        """UTF-8."""
        try:
            return piece.decode()
        except UnicodeDecodeError as error:
            raise Malformed("a text that is no UTF-8") from error

    def simple(self, info, argument):
        """A float, a simple value, or the break."""
        if argument is None:
            return BREAK
        if info in (25, 26, 27):
            form = {25: ">e", 26: ">f", 27: ">d"}[info]
            return struct.unpack(form, argument.to_bytes(1 << (info - 24), "big"))[0]
        if info > 23 or argument not in (20, 21, 22, 23):
            raise Malformed("a simple value without meaning")
        return {20: False, 21: True}.get(argument)


def loads(raw):
    """The first item; what follows it is left alone."""
    return Reader(raw).item()


def head(kind, argument):
    """A head in its shortest form."""
    if argument < 24:
        return bytes([kind << 5 | argument])
    width = next(width for width in range(4) if argument < 1 << (8 << width))
    return bytes([kind << 5 | 24 + width]) + argument.to_bytes(1 << width, "big")


def dumps(value):
    """An item; a `dict` is written in its own order of keys."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(dumps(key) + dumps(member) for key, member in value.items())
    return head(4, len(value)) + b"".join(map(dumps, value))
