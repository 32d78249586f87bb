"""What a damaged gallery still holds, row by row, read without SQLite.

The tables' leaves are found page by page (https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1), so neither
the file's header nor the pages above them are needed. A row counts if its checksum is right. Committed pages of the
write-ahead log stand for those of the file (section 4).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facedistill.errors import UsageError, UserError
from facedistill.gallery import database, numbers
from facedistill.gallery.database import PAGE, checksum
from facedistill.gallery.names import read_name
from facedistill.gallery.store import Gallery, Threshold

LEAF = 13  # the kind of a page that holds rows of a table
INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes of a serial type
Row = tuple[Any, ...]


@dataclass
class Found:
    """Rows whose checksum is right: people and vectors by their ids."""

    about: Row | None = None
    people: dict[int, bytes] = field(default_factory=dict)
    vectors: dict[int, Row] = field(default_factory=dict)
    thresholds: list[Row] = field(default_factory=list)

    def take(self, number: int, row: Row) -> None:
        """Add a row of whichever table has its number of columns."""
        if checksum(*(row[:5] if len(row) == 8 else row[1:-1] if row[0] is None else row[:-1])) != row[-1]:
            return
        if len(row) == 8:
            self.about = row
        elif len(row) == 3:
            self.people[number] = row[1]
        elif len(row) == 6:
            self.vectors[number] = row
        elif len(row) == 9:
            self.thresholds.append(row)


def salvage(path: str | Path, out: str | Path) -> str:
    """Write a new gallery of all that is readable in a damaged one, and return what was found, in words.

    People whose name is lost are called "lost name 1" and so on.

    Raises:
        UsageError: `out` exists. UserError: `path` cannot be read, or even its space is lost.
    """
    path, out = Path(path), Path(out)
    if out.exists():
        raise UsageError(f"{out}: exists; name another file for what is readable of {path}")
    found = Found()
    try:
        pages = dict(enumerate(_split(path.read_bytes())))
        log = path.with_name(path.name + "-wal")
        pages |= _logged(log.read_bytes()) if log.exists() else {}
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; expected a damaged gallery") from e
    for place in pages:
        for number, row in _rows(pages, place):
            found.take(number, row)
    if found.about is None:
        raise UserError(f"{path}: nothing to salvage: the page that says which space its vectors are of is lost")
    lost = _write(found, out)
    told = f", {lost:,} of them with a lost name" if lost else ""
    people = len({row[1] for row in found.vectors.values()})
    return f"{out}: {len(found.vectors):,} vectors of {people:,} people are readable{told}"


def _write(found: Found, out: Path) -> int:
    """Make the gallery; return how many people have no name."""
    assert found.about is not None
    _, space, dim, precision, flip, *_ = found.about
    people: dict[int, list[Row]] = {}
    for _, row in sorted(found.vectors.items()):
        people.setdefault(row[1], []).append(row)
    with Gallery.create(out, space=space, dim=dim, precision=precision, flip=flip) as gallery, gallery.writing():
        for person, rows in people.items():
            known = found.people.get(person)
            name = f"lost name {person}" if known is None else read_name(known)
            for _, _, source, made_by, blob, _ in rows:
                vector = numbers.unpacked(numbers.stored([blob], precision, dim))
                gallery.add(name, vector, made_by=made_by, sources=[source])
        for probe, by, far, value, low, high, impostors, measured, _ in found.thresholds:
            interval = None if low is None or high is None else (low, high)
            gallery.set_threshold(**Threshold(probe, by, far, value, interval, impostors, measured)._asdict())
    return sum(person not in found.people for person in people)


def _split(content: bytes) -> list[bytes]:
    """Return the pages of the file; where its header is lost, of the size that galleries are made with."""
    size = int.from_bytes(content[16:18], "big") if content.startswith(database.MAGIC) else PAGE
    size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1):
        size = PAGE
    return [content[start : start + size].ljust(size, b"\0") for start in range(0, len(content), size)]


def _logged(content: bytes) -> dict[int, bytes]:
    """Return the pages that were committed to the write-ahead log, by their place in the file."""
    if len(content) < 32 or not (size := int.from_bytes(content[8:12], "big")):
        return {}
    salts = content[16:24]
    committed: dict[int, bytes] = {}
    open_pages: dict[int, bytes] = {}
    for start in range(32, len(content) - 24 - size + 1, 24 + size):
        number, commit = struct.unpack(">II", content[start : start + 8])
        if content[start + 8 : start + 16] != salts:
            break
        open_pages[number - 1] = content[start + 24 : start + 24 + size]
        if commit:
            committed |= open_pages
            open_pages = {}
    return committed


def _rows(pages: dict[int, bytes], place: int) -> Iterator[tuple[int, Row]]:
    """Yield the id and the values of every readable row of a page."""
    page = pages[place]
    head = 100 if place == 0 else 0
    if page[head] != LEAF:
        return
    count = int.from_bytes(page[head + 3 : head + 5], "big")
    for cell in range(head + 8, min(head + 8 + 2 * count, len(page) - 1), 2):
        try:
            start = int.from_bytes(page[cell : cell + 2], "big")
            size, start = _varint(page, start)
            number, start = _varint(page, start)
            yield number, _values(_payload(pages, page, start, size))
        except (IndexError, ValueError, KeyError, struct.error):
            continue


def _payload(pages: dict[int, bytes], page: bytes, start: int, size: int) -> bytes:
    """Return a row's bytes, which may go on in overflow pages."""
    usable = len(page)
    if size <= usable - 35:
        return page[start : start + size]
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    local = local if local <= usable - 35 else least
    found, then = page[start : start + local], int.from_bytes(page[start + local : start + local + 4], "big")
    while len(found) < size and then:
        following = pages[then - 1]
        found, then = found + following[4:], int.from_bytes(following[:4], "big")
    return found[:size]


def _values(payload: bytes) -> Row:
    """Return the values of a record. Raises ValueError for one that no table of a gallery has."""
    end, at = _varint(payload, 0)
    values: list[Any] = []
    where = end
    while at < end:
        kind, at = _varint(payload, at)
        size = INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        content = payload[where : where + size]
        if len(content) < size or kind in (10, 11):
            raise ValueError("a record that is cut off")
        where += size
        if kind == 0:
            values.append(None)
        elif kind in INTEGERS:
            values.append(int.from_bytes(content, "big", signed=True))
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind == 7:
            values.append(struct.unpack(">d", content)[0])
        else:
            values.append(content if kind % 2 == 0 else content.decode())
    if len(values) not in (3, 6, 8, 9):
        raise ValueError("a row of no table of a gallery")
    return tuple(values)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the number of up to nine bytes at `at`, and the place after it."""
    number = 0
    for i in range(8):
        byte = content[at + i]
        number = number << 7 | byte & 127
        if byte < 128:
            return number, at + i + 1
    return number << 8 | content[at + 8], at + 9
