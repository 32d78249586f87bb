"""The vectors of a gallery as arrays to search in: read from the database once, and what came since added."""

import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from facedistill.errors import UserError
from facedistill.gallery import numbers
from facedistill.gallery.database import checksum, damaged, told

READ = 8192  # vectors read from the database at a time


class Rows:
    """N vectors, as they are stored, in the order in which they were added.

    Attributes:
        parts: arrays (n, d) of float32 or int8, N rows together. people: int64 (N,), the id of each row's person.
        generation, last: which rows these are: a count of the gallery's changes, and the id of the last vector.
    """

    def __init__(self, parts: list[np.ndarray], people: np.ndarray, generation: int, last: int) -> None:
        self.parts, self.people, self.generation, self.last = parts, people, generation, last
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self.people)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the place of a first row, and up to `size` rows from it. The first blocks are smaller."""
        place, now = 0, min(size, 64)
        for part in self.parts:
            at = 0
            while at < len(part):
                yield place + at, part[at : at + now]
                at, now = at + now, min(2 * now, size)
            place += len(part)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at `places` as they are stored, (n, d)."""
        if len(self.parts) == 1:
            return self.parts[0][places]
        found = np.empty((len(places), self.parts[0].shape[1]), self.parts[0].dtype)
        part = np.searchsorted(self._ends, places, side="right")
        for number, rows in enumerate(self.parts):
            inside = part == number
            found[inside] = rows[places[inside] - (self._ends[number] - len(rows))]
        return found

    @cached_property
    def by_person(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The places of all rows, person by person; the persons' ids, ascending; and where each begins (and an end)."""
        order = np.argsort(self.people, kind="stable")
        ids, starts = np.unique(self.people[order], return_index=True)
        return order, ids, np.append(starts, len(order))


class RowsCache:
    """The rows of the gallery `db` at `path`, read when they are first needed, and again when they have changed."""

    def __init__(self, path: Path, db: sqlite3.Connection, space: str, precision: str, dim: int) -> None:
        self.path, self._db, self._space, self._precision, self._dim = path, db, space, precision, dim
        self._rows: Rows | None = None

    def close(self) -> None:
        self._rows = None

    def state(self) -> tuple[int, int]:
        """Return the gallery's generation and the id of its last vector.

        Raises UserError if another process has changed its space.
        """
        sql = "SELECT space, dim, generation, (SELECT coalesce(max(id), 0) FROM vectors) FROM gallery"
        with told(self.path):
            space, dim, generation, last = self._db.execute(sql).fetchone()
        if (space, dim) != (self._space, self._dim):
            raise UserError(f"{self.path}: another process has changed it to space {space}; open it again")
        return generation, last

    def current(self) -> Rows:
        """Return the rows as they are now. Raises UserError if one differs from its checksum."""
        generation, last = self.state()
        if self._rows is None or self._rows.generation != generation:
            self._rows = self._read(generation, last)
        elif self._rows.last != last:
            self._rows = self._with_new(self._rows, last)
        return self._rows

    def _read(self, generation: int, last: int) -> Rows:
        vectors, people = read_vectors(self.path, self._db, self._precision, self._dim, 0, last)
        return Rows([vectors], people, generation, last)

    def _with_new(self, rows: Rows, last: int) -> Rows:
        vectors, people = read_vectors(self.path, self._db, self._precision, self._dim, rows.last, last)
        return Rows([*rows.parts, vectors], np.concatenate([rows.people, people]), rows.generation, last)


def read_vectors(
    path: Path, db: sqlite3.Connection, precision: str, dim: int, after: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors with ids above `after`, up to `last`, as they are stored, and the ids of their people."""
    blocks = list(vector_blocks(path, db, precision, dim, after, last))
    if not blocks:
        return np.zeros((0, dim), numbers.TYPES[precision]), np.zeros(0, np.int64)
    vectors, people = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return vectors, people


def vector_blocks(
    path: Path, db: sqlite3.Connection, precision: str, dim: int, after: int, last: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the vectors that `read_vectors` returns, block by block."""
    sql = "SELECT person, source, made_by, vector, checksum FROM vectors WHERE id > ? AND id <= ? ORDER BY id"
    with told(path):
        cursor = db.execute(sql, (after, last))
        while block := cursor.fetchmany(READ):
            if any(checksum(*row[:-1]) != row[-1] for row in block):
                raise damaged(path, "a vector differs from its checksum")
            try:
                vectors = numbers.stored([row[3] for row in block], precision, dim)
            except ValueError as e:
                raise damaged(path, "a vector of another size") from e
            yield vectors, np.array([row[0] for row in block], np.int64)
