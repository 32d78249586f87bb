"""The vectors of a gallery as arrays to search in: read when they are first needed, and what came since added."""

import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from facedistill.errors import UserError
from facedistill.gallery import database, mapped, numbers
from facedistill.gallery.database import checksum, damaged, told
from facedistill.gallery.mapped import Damaged, Mapped
from facedistill.progress import say

READ = 4096  # vectors read from the database at a time
LARGE = 64 << 20  # bytes of vectors from which they are mapped from a file
GROWN = 8  # the file is written anew when more than this part of its rows came since


class Rows:
    """N vectors, as they are stored, in the order in which they were added.

    Attributes:
        parts: arrays (n, d) of float32 or int8, N rows together. people: int64 (N,), the id of each row's person.
        generation, last: which rows these are: a count of the gallery's changes, and the id of the last vector.
    """

    def __init__(
        self, parts: list[np.ndarray], people: np.ndarray, generation: int, last: int, file: Mapped | None = None
    ) -> None:
        self.parts, self.people, self.generation, self.last, self.file = parts, people, generation, last, file
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return len(self.people)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the place of a first row, and up to `size` rows from it. The first blocks are smaller.

        Raises Damaged if a mapped row is not as it was written.
        """
        place, now = 0, min(size, 64)
        for part in self.parts:
            at = 0
            while at < len(part):
                if self.file and not place:
                    self.file.check(at, min(at + now, len(part)))
                yield place + at, part[at : at + now]
                at, now = at + now, min(2 * now, size)
            place += len(part)

    def check(self) -> None:
        """Raise Damaged if a mapped row is not as it was written."""
        if self.file:
            self.file.check(0, len(self.parts[0]))

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
        self._file = path.with_name(path.name + mapped.SUFFIX)
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
        with told(self.path), database.snapshot(self._db):
            generation, last = self.state()
            if self._rows is None or self._rows.generation != generation:
                self._rows = self._mapped(generation) or self._read(generation, last)
            if self._rows.last != last:
                vectors, people = _together(self._blocks(self._rows.last, last), self._precision, self._dim)
                rows = self._rows
                if len(people) > len(rows) // GROWN:
                    self._rows = self._read(generation, last)
                else:
                    people = np.concatenate([rows.people, people])
                    self._rows = Rows([*rows.parts, vectors], people, generation, last, rows.file)
        return self._rows

    def renew(self) -> None:
        """Read the rows from the gallery again: the file of mapped ones is damaged."""
        say(f"{self._file}: this cache of the gallery's vectors is damaged; it is made anew")
        self._file.unlink(missing_ok=True)
        self._rows = None

    def _mapped(self, generation: int) -> Rows | None:
        """Return the rows of the file beside the gallery, or None if it is absent, stale or damaged."""
        try:
            file = Mapped(self._file, self._precision, self._dim)
        except FileNotFoundError:
            return None
        except (Damaged, OSError):
            self.renew()
            return None
        if file.about.get("about") != self._about(generation):
            return None
        return Rows([file.rows], file.people, generation, file.about["last"], file)

    def _about(self, generation: int) -> list[object]:
        (gallery,) = self._db.execute("SELECT id FROM gallery").fetchone()
        return [gallery, generation, self._precision, self._dim]

    def _read(self, generation: int, last: int) -> Rows:
        """Read all rows from the gallery: into memory, or of a large gallery into a file that is mapped."""
        require_whole(self.path, self._db)
        (count,) = self._db.execute("SELECT count(*) FROM vectors").fetchone()
        if count * self._dim * numbers.TYPES[self._precision].itemsize > LARGE:
            about = {"about": self._about(generation), "last": last}
            try:
                mapped.write(self._file, about, self._blocks(0, last))
                file = Mapped(self._file, self._precision, self._dim)
                return Rows([file.rows], file.people, generation, last, file)
            except (Damaged, OSError, UserError) as e:
                if isinstance(e, UserError) and str(self._file) not in str(e):
                    raise
                say(f"{self._file}: the vectors are not cached ({str(e).partition(';')[0]}); they are held in memory")
        vectors, people = _together(self._blocks(0, last), self._precision, self._dim)
        return Rows([vectors], people, generation, last)

    def _blocks(self, after: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the vectors with ids above `after`, up to `last`, as they are stored, and the ids of their people."""
        sql = "SELECT person, source, made_by, vector, checksum FROM vectors WHERE id > ? AND id <= ? ORDER BY id"
        cursor = self._db.execute(sql, (after, last))
        while block := cursor.fetchmany(READ):
            if any(checksum(*row[:-1]) != row[-1] for row in block):
                raise damaged(self.path, "a vector differs from its checksum")
            try:
                vectors = numbers.stored([row[3] for row in block], self._precision, self._dim)
            except (TypeError, ValueError) as e:
                raise damaged(self.path, "a vector of another size") from e
            yield vectors, np.array([row[0] for row in block], np.int64)


def _together(
    blocks: Iterator[tuple[np.ndarray, np.ndarray]], precision: str, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    parts = [(np.zeros((0, dim), numbers.TYPES[precision]), np.zeros(0, np.int64)), *blocks]
    vectors, people = (np.concatenate(part) for part in zip(*parts, strict=True))
    return vectors, people


def require_whole(path: Path, db: sqlite3.Connection) -> None:
    """Raise UserError if SQLite finds the file's pages, indexes or references damaged."""
    with told(path):
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok" or db.execute("PRAGMA foreign_key_check").fetchone():
            raise damaged(path, found if found != "ok" else "a vector of nobody")
