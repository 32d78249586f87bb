"""A large gallery's vectors in a file beside it, memory-mapped: a cache that is made anew when it is stale or damaged.

The file holds biometric data, so only this user may read it. Its layout: a JSON line padded to 4096 bytes, the rows as
they are stored, the ids of their people (int64), and a sum of every block's words (uint64), by which damage is told
when the block is first read.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.files import atomic_write
from facedistill.gallery import numbers

SUFFIX = "-vectors"  # after the gallery's name
HEAD = 4096
BLOCK = 4096  # rows that have a sum together
FORMAT = 1


class Damaged(Exception):
    """The cache is not as it was written."""


def write(path: Path, about: dict[str, Any], blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the rows and their people, block by block, with all that says which gallery's they are.

    Raises UserError if the disk is full or the folder cannot be written.
    """
    people: list[np.ndarray] = []
    sums: list[int] = []
    with atomic_write(path, private=True) as temporary, open(temporary, "r+b") as file:
        file.write(bytes(HEAD))
        for rows in _even(blocks, people):
            file.write(rows.data)
            sums.append(word_sum(rows))
        tail = np.concatenate([np.zeros(0, np.int64), *people]).astype("<i8").tobytes()
        tail += np.array(sums, "<u8").tobytes()
        file.write(tail)
        file.seek(0)
        head = about | {"format": FORMAT, "rows": sum(map(len, people))}
        file.write(json.dumps(head | {"checksum": _checksum(head, tail)}).encode().ljust(HEAD))


def _checksum(head: dict[str, Any], tail: bytes) -> int:
    return zlib.crc32(tail, zlib.crc32(json.dumps(head).encode()))


def _even(blocks: Iterable[tuple[np.ndarray, np.ndarray]], people: list[np.ndarray]) -> Iterable[np.ndarray]:
    """Yield the rows in blocks of BLOCK, the last one shorter; add their people to the list."""
    left: list[np.ndarray] = []
    for rows, owners in blocks:
        people.append(owners)
        left.append(rows)
        if sum(map(len, left)) >= BLOCK:
            together = np.concatenate(left)
            whole = len(together) // BLOCK * BLOCK
            yield from (together[start : start + BLOCK] for start in range(0, whole, BLOCK))
            left = [together[whole:]]
    if sum(map(len, left)):
        yield np.concatenate(left)


def word_sum(rows: np.ndarray) -> int:
    """Return the sum of a block's bytes as words of 64 bits, modulo 2^64. It is as fast as memory."""
    content = np.ascontiguousarray(rows).view(np.uint8).ravel()
    content = np.pad(content, (0, -len(content) % 8)) if len(content) % 8 else content
    return int(content.view("<u8").sum(dtype=np.uint64))


class Mapped:
    """The file at `path`.

    Attributes:
        about: what `write` was given. rows: memory-mapped (N, d). people: int64 (N,).

    Raises:
        Damaged: it is not as it was written. OSError: it cannot be read.
    """

    def __init__(self, path: Path, precision: str, dim: int) -> None:
        with open(path, "rb") as file:
            try:
                self.about = json.loads(file.read(HEAD))
                expected = self.about.pop("checksum")
                count = self.about["rows"]
                size = count * dim * numbers.TYPES[precision].itemsize
                file.seek(HEAD + size)
                tail = file.read()
                if self.about["format"] != FORMAT or expected != _checksum(self.about, tail):
                    raise Damaged(path)
                self.people = np.frombuffer(tail[: 8 * count], "<i8")
                self._sums = np.frombuffer(tail[8 * count :], "<u8")
                shape = (count, dim)  # copy on write: torch warns of arrays that it may not write
                self.rows = np.memmap(file, numbers.TYPES[precision], mode="c", offset=HEAD, shape=shape)
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                raise Damaged(path) from e
        self._good = np.zeros(len(self._sums), bool)

    def check(self, start: int, stop: int) -> None:
        """Raise Damaged if a row from `start` to `stop` is not as it was written. Each block is looked at once."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if not self._good[block]:
                if word_sum(self.rows[block * BLOCK : (block + 1) * BLOCK]) != self._sums[block]:
                    raise Damaged("a block of vectors")
                self._good[block] = True
