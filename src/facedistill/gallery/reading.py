"""The vectors of a gallery as arrays: read when they are first needed, and again when they have changed."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from facedistill.errors import UserError
from facedistill.gallery import database, mapped, numbers
from facedistill.gallery.database import checksum, damaged, told
from facedistill.gallery.index import SUFFIX, Index
from facedistill.gallery.mapped import Damaged, Mapped
from facedistill.gallery.rows import Rows
from facedistill.progress import say

READ = 4096  # vectors read from the database at a time
LARGE = 64 << 20  # bytes of vectors from which they are mapped from a file
GROWN = 8  # all rows are read again when more than one for each 8 came since


class RowsCache:
    """The rows of the gallery `db` at `path`, read when they are first needed, and again when they have changed."""

    def __init__(self, path: Path, db: sqlite3.Connection, space: str, precision: str, dim: int) -> None:
        self.path, self._db, self._space, self._precision, self._dim = path, db, space, precision, dim
        self._file = path.with_name(path.name + mapped.SUFFIX)
        self._rows: Rows | None = None
        self._index: tuple[list[object], Index] | None = None

    def close(self) -> None:
        self._rows = self._index = None

    def index(self, rows: Rows) -> Index:
        """Return the index of the rows, made if it is absent, stale or damaged."""
        about = self.about(rows.generation)
        if self._index is None or self._index[0] != about:
            with database.snapshot(self._db):  # whoever erases waits until the file is there
                self._index = about, Index(self.path.with_name(self.path.name + SUFFIX), rows, about)
        return self._index[1]

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

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that the block reads of the gallery is of one moment."""
        with told(self.path), database.snapshot(self._db):
            yield

    def current(self) -> Rows:
        """Return the rows as they are now. Raises UserError if one differs from its checksum."""
        with self.moment():
            generation, last = self.state()
            rows = self._rows
            if rows is None or rows.generation != generation:
                rows = self._mapped(generation, last)
            if rows is None or self._grown(rows, last):
                rows = self._read(generation, last)
            if rows.last != last:
                vectors, people = _together(self._blocks(rows.last, last), self._precision, self._dim)
                people = np.concatenate([rows.people, people])
                later = np.concatenate([*rows.parts[1:], vectors])
                rows = Rows([rows.parts[0], later], people, generation, last, rows.file)
            self._rows = rows
        return rows

    def _grown(self, rows: Rows, last: int) -> bool:
        """Return whether so many vectors came since the first part was read that all are better read again."""
        (new,) = self._db.execute("SELECT count(*) FROM vectors WHERE id > ? AND id <= ?", (rows.last, last)).fetchone()
        return len(rows) + new > len(rows.parts[0]) * (1 + 1 / GROWN)

    def renew(self) -> None:
        """Read the rows from the gallery again: the file of mapped ones is damaged."""
        say(f"{self._file}: this cache of the gallery's vectors is damaged; it is made anew")
        self._file.unlink(missing_ok=True)
        self._rows = None

    def _mapped(self, generation: int, last: int) -> Rows | None:
        """Return the rows of the file beside the gallery, or None if it is absent, damaged, or of another moment."""
        try:
            file = Mapped(self._file, self._precision, self._dim)
        except FileNotFoundError:
            return None
        except (Damaged, OSError):
            self.renew()
            return None
        if file.about.get("about") != self.about(generation) or file.about["last"] > last:
            return None
        return Rows([file.rows], file.people, generation, file.about["last"], file)

    def about(self, generation: int) -> list[object]:
        (gallery,) = self._db.execute("SELECT id FROM gallery").fetchone()
        return [gallery, generation, self._precision, self._dim]

    def _read(self, generation: int, last: int) -> Rows:
        """Read all rows from the gallery: into memory, or of a large gallery into a file that is mapped."""
        require_whole(self.path, self._db)
        (count,) = self._db.execute("SELECT count(*) FROM vectors").fetchone()
        if count * self._dim * numbers.TYPES[self._precision].itemsize > LARGE:
            about = {"about": self.about(generation), "last": last}
            try:
                mapped.write(self._file, about, self._blocks(0, last))
                if rows := self._mapped(generation, last):  # else another process has put its own there since
                    return rows
            except UserError as e:
                if str(self._file) not in str(e):
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
