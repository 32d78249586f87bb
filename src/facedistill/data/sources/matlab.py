"""Cell arrays of text in MATLAB's .mat files (version 5 to 7, not 7.3), read as data with bounds.

A file: 128 bytes of header, then elements, each (type uint32, bytes uint32, content), filled up to 8 bytes; up to 4
bytes of content may stand in the second half of the tag. A matrix consists of elements: flags, dimensions, name and
content (MathWorks, "MAT-File Format", chapter 1). scipy reads them too, but a damaged file can end its process.
"""

import math
import struct
import zlib
from collections.abc import Iterator

HEADER, PLACE_OF_ORDER = 128, 126
COMPRESSED, MATRIX = 15, 14
INT32 = 5
CELL, CHAR = 1, 4  # classes of a matrix
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}  # of text, by the type of its element
MOST = 256 << 20  # bytes of a variable that is stored compressed


def cells_of_text(data: bytes, variable: str) -> tuple[tuple[int, ...], list[str]]:
    """Return the shape of a cell array of texts, and the texts column by column.

    Raises ValueError for a file that is none, that lacks the variable, or whose variable is something else.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[PLACE_OF_ORDER:HEADER])
    if order is None:
        raise ValueError("no header of MATLAB's version 5 to 7")
    for kind, content in _elements(data[HEADER:], order):
        if kind == COMPRESSED:
            kind, content = next(_elements(_decompressed(content), order))
        if kind == MATRIX:
            of, shape, name, rest = _matrix(content, order)
            if name == variable:
                if of != CELL:
                    raise ValueError(f"{variable} is no cell array")
                texts = [_text(inner, order) for _, inner in rest]
                if math.prod(shape) != len(texts):
                    raise ValueError(f"{len(texts)} cells, but {shape} are announced")
                return shape, texts
    raise ValueError(f"no variable {variable}")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ValueError("it ends within an element")
        kind, count = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # the short form
            kind, count, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if count > 4:
                raise ValueError("a short element of more than 4 bytes")
        else:
            start = at + 8
            after = start + (count if kind == COMPRESSED else -(-count // 8) * 8)
        if start + count > len(data):
            raise ValueError("an element is longer than the file")
        yield kind, data[start : start + count]
        at = after


def _matrix(content: bytes, order: str) -> tuple[int, tuple[int, ...], str, Iterator[tuple[int, bytes]]]:
    """Return class, shape, name, and the elements of the content."""
    parts = _elements(content, order)
    try:
        (_, flags), (kind, sides), (_, name) = next(parts), next(parts), next(parts)
    except StopIteration:
        raise ValueError("a matrix without flags, dimensions or name") from None
    if len(flags) != 8 or kind != INT32 or len(sides) % 4:
        raise ValueError("a matrix with damaged flags or dimensions")
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    if min(shape, default=-1) < 0:
        raise ValueError(f"dimensions {shape}")
    return struct.unpack_from(f"{order}I", flags)[0] & 0xFF, shape, name.decode("latin-1"), parts


def _text(content: bytes, order: str) -> str:
    """Return the text of a character matrix of one row, or of a cell array that holds one."""
    of, _, _, rest = _matrix(content, order)
    inner = list(rest)
    if len(inner) == 1 and of == CHAR and inner[0][0] in ENCODINGS:
        encoding = ENCODINGS[inner[0][0]]
        return inner[0][1].decode(encoding if encoding != "utf-16" else {"<": "utf-16-le", ">": "utf-16-be"}[order])
    raise ValueError("a cell that is no text")


def _decompressed(content: bytes) -> bytes:
    try:
        unpacked = zlib.decompressobj()
        found = unpacked.decompress(content, MOST)
    except zlib.error as e:
        raise ValueError(f"a compressed variable is damaged: {e}") from e
    if unpacked.unconsumed_tail:
        raise ValueError(f"a variable of more than {MOST:,} bytes")
    return found
