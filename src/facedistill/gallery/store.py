"""The gallery: people, their vectors, and thresholds, in one SQLite file."""

import hashlib
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

import numpy as np

from facedistill.errors import UsageError, UserError, closest, printable
from facedistill.gallery import database, numbers
from facedistill.gallery.database import checksum, damaged, told
from facedistill.gallery.erasing import erase
from facedistill.gallery.mapped import Damaged
from facedistill.gallery.names import read_name, stored_name
from facedistill.gallery.reading import RowsCache, require_whole
from facedistill.gallery.search import By, Hit, search

Precision = Literal["float32", "int8"]
BLOCK = 4096  # vectors replaced at a time


class Threshold(NamedTuple):
    """The score from which a comparison of one pair of models is accepted.

    Attributes:
        probe, gallery: fingerprints of the model that embeds probes, and of the one that enrolled.
        far: the false-accept rate of one comparison that `value`, a cosine, was calibrated for.
        interval: of the value, 95%; None if unknown.
        impostors: how many comparisons of different people decide the value; None if unknown.
        measured: the data and protocol.
    """

    probe: str
    gallery: str
    far: float
    value: float
    interval: tuple[float, float] | None = None
    impostors: int | None = None
    measured: str = ""


class Gallery:
    """People and their vectors in one embedding space, in one SQLite file that this user alone may read.

    Several processes may read and write it at once. A process that is killed loses nothing that was added before, and
    leaves nothing half added. No photo is stored. Use an object in the thread that made it.

    Attributes:
        path: the file. space: the id of the embedding space. dim: of a vector, twice a model's for flip "concat".
        precision: "float32", or "int8", a quarter of the size. flip: how a mirror image's embedding is used.

    Make it with `create` or `open`.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path, self._db = path, db
        with told(path):
            row = db.execute("SELECT id, space, dim, precision, flip, checksum FROM gallery").fetchone()
        if row is None or checksum(*row[:-1]) != row[-1] or row[3] not in numbers.TYPES:
            raise damaged(path, "its description differs from its checksum")
        self.id, self.space, self.dim, self.precision, self.flip, _ = row
        self._rows = RowsCache(path, db, self.space, self.precision, self.dim)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        space: str,
        dim: int,
        precision: Precision = "float32",
        flip: str = "sum",
    ) -> "Gallery":
        """Make an empty gallery at `path`, or open the one that is there if it has the same description.

        Raises:
            UsageError: an unknown precision, or a dimension below 1.
            UserError: the file is something else or of another space, or it cannot be written.
        """
        numbers.require_precision(precision)
        if not 0 < dim <= numbers.LARGEST:
            raise UsageError(f"gallery: dimension {dim}; expected 1 to {numbers.LARGEST:,}")
        path = Path(path)
        db = database.create(path)
        with told(path):
            if database.is_empty(db):
                described = (uuid.uuid4().hex, space, int(dim), precision, flip)
                with database.transaction(db):
                    if database.is_empty(db):  # another process may have been faster
                        database.migrate(db)
                        values = (*described, 0, 0, checksum(*described))
                        db.execute("INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.close()
        found = cls.open(path)
        for what, asked in (("space", space), ("dim", dim), ("precision", precision), ("flip", flip)):
            if getattr(found, what) != asked:
                found.close()
                raise UserError(
                    f"{path}: is a gallery of {what} {getattr(found, what)}, not {asked}; name another file"
                )
        return found

    @classmethod
    def open(cls, path: str | Path) -> "Gallery":
        """Open the gallery at `path`. What another process began to erase and was killed in, is erased.

        Raises:
            UserError: no such file, no gallery, a damaged one, or one of a newer schema.
        """
        gallery = cls(Path(path), database.connect(Path(path)))
        gallery.finish_erasing()
        return gallery

    def close(self) -> None:
        """Close the file. The gallery cannot be used afterwards."""
        self._rows.close()
        self._db.close()

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        """The number of vectors."""
        return self._one("SELECT count(*) FROM vectors")

    def names(self) -> list[str]:
        """Return the names of all people, sorted.

        Raises UserError if one differs from its checksum.
        """
        with told(self.path):
            rows = self._db.execute("SELECT name, checksum FROM people").fetchall()
        if any(checksum(name) != found for name, found in rows):
            raise damaged(self.path, "a name differs from its checksum")
        return sorted(read_name(name) for name, _ in rows)

    def models(self) -> dict[str, int]:
        """Return the fingerprints of the models that made the vectors, with the number of vectors."""
        with told(self.path):
            rows = self._db.execute("SELECT made_by, count(*) FROM vectors GROUP BY made_by ORDER BY 2 DESC, 1")
            return dict(rows.fetchall())

    def sources_by(self, made_by: str) -> dict[bytes, str]:
        """Return the hash of every source of a model's vectors, with the person."""
        sql = "SELECT source, name FROM vectors JOIN people ON person = people.id WHERE made_by = ?"
        with told(self.path):
            return {source: read_name(name) for source, name in self._db.execute(sql, (made_by,))}

    def add(self, name: str, vectors: np.ndarray, *, made_by: str, sources: Sequence[bytes] | None = None) -> int:
        """Add vectors of a person, in one transaction, and return how many are new.

        Args:
            vectors: (N, d) or (d,), of any length but 0. They are stored as unit vectors.
            made_by: the fingerprint of the model.
            sources: a hash for each vector of what it was made of. A vector of a source that the person already has by
                the same model is not added again. None: a hash of the vector.

        Raises:
            UserError: the vectors or the name do not fit, the gallery has changed its space meanwhile, or it cannot be
                written; nothing is then added.
        """
        rows = numbers.unit(vectors, self.dim)
        sources = [hashlib.sha256(row.tobytes()).digest()[:16] for row in rows] if sources is None else sources
        stored, blobs = stored_name(name), numbers.packed(rows, self.precision)
        with self.writing():
            found = self._person(stored)
            taken = set(self._sources(found, made_by)) if found else set()
            new = {s: blob for s, blob in zip(sources, blobs, strict=True) if s not in taken}
            if not new:
                return 0
            person = (
                found
                or self._db.execute(
                    "INSERT INTO people (name, checksum) VALUES (?, ?)", (stored, checksum(stored))
                ).lastrowid
            )
            self._db.executemany(
                "INSERT INTO vectors (person, source, made_by, vector, checksum) VALUES (?, ?, ?, ?, ?)",
                [(person, s, made_by, blob, checksum(person, s, made_by, blob)) for s, blob in new.items()],
            )
            return len(new)

    def forget(self, *names: str) -> int:
        """Remove people, their vectors, and every trace of both from the file, and return how many vectors went.

        Deleted bytes are overwritten, the file is written anew (VACUUM), its write-ahead log is emptied, and the caches
        beside it are removed. Copies that other programs made are out of reach.

        Raises:
            UserError: a name that the gallery lacks, and nothing is removed; or the disk is full, or another process
                keeps reading, and the next opening erases what is left.
        """
        with self.writing():
            before = len(self)
            for name in dict.fromkeys(names):
                person = self._person(stored_name(name))
                if person is None:
                    near = closest(name, self.names())
                    raise UserError(f"{self.path}: nobody named '{printable(name)}'{near}; nobody was forgotten")
                self._db.execute("DELETE FROM people WHERE id = ?", (person,))
            self._db.execute("UPDATE gallery SET generation = generation + 1, erasing = 1")
            removed = before - len(self)
        self.finish_erasing(required=True)
        return removed

    def finish_erasing(self, required: bool = False) -> None:
        """Erase what forgotten people left in the file and beside it, if anything is left.

        Args:
            required: raise UserError where that is not possible now.
        """
        if self._one("SELECT erasing FROM gallery"):
            self._rows.close()
            erase(self.path, self._db, required)

    def replace_vectors(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        *,
        space: str,
        made_by: str,
        dim: int | None = None,
    ) -> int:
        """Put every vector through `function`, in one transaction, and return how many there are.

        The thresholds are of the old space, so they are removed. If one person has vectors of one source by several
        models, one of them stays.

        Args:
            function: unit rows, float32 (N, d) -> (N, `dim`), of any length but 0; N is at most 4096.
            space, made_by: of the new vectors. dim: None: as it was.

        Raises:
            UserError: what `function` gives does not fit, or the file cannot be written; nothing is then changed.
        """
        dim = dim or self.dim
        with self.writing():
            for ids, rows, kept in self._blocks():
                blobs = numbers.packed(numbers.mapped(function, rows, dim), self.precision)
                self._db.executemany(
                    "UPDATE OR REPLACE vectors SET made_by = ?, vector = ?, checksum = ? WHERE id = ?",
                    [
                        (made_by, blob, checksum(person, source, made_by, blob), row)
                        for row, (person, source), blob in zip(ids, kept, blobs, strict=True)
                    ],
                )
            self._db.execute("DELETE FROM thresholds")
            described = (self.id, space, dim, self.precision, self.flip)
            self._db.execute(
                "UPDATE gallery SET space = ?, dim = ?, generation = generation + 1, checksum = ?",
                (space, dim, checksum(*described)),
            )
        self.space, self.dim = space, dim
        self._rows.close()
        self._rows = RowsCache(self.path, self._db, space, self.precision, dim)
        return len(self)

    @property
    def thresholds(self) -> dict[tuple[str, str], list[Threshold]]:
        """The thresholds of every pair (probe model, gallery model), by fingerprints; ascending rates."""
        with told(self.path):
            rows = self._db.execute("SELECT * FROM thresholds ORDER BY probe, gallery, far").fetchall()
        found: dict[tuple[str, str], list[Threshold]] = {}
        for *values, crc in rows:
            if checksum(*values) != crc:
                raise damaged(self.path, "a threshold differs from its checksum")
            probe, gallery, far, value, low, high, impostors, measured = values
            interval = None if low is None or high is None else (low, high)
            one = Threshold(probe, gallery, far, value, interval, impostors, measured)
            found.setdefault((probe, gallery), []).append(one)
        return found

    def set_threshold(
        self,
        probe: str,
        gallery: str,
        *,
        far: float,
        value: float,
        interval: Sequence[float] | None = None,
        impostors: int | None = None,
        measured: str = "",
    ) -> None:
        """Keep a pair's threshold; one of the same pair and rate is replaced. See `Threshold`.

        Raises UserError for a rate outside 0..1 or a value that is no cosine.
        """
        if not 0 < far < 1 or not -1.001 <= value <= 1.001:
            raise UserError(
                f"gallery: threshold {value} at a false-accept rate of {far}; expected a cosine, and 0 to 1"
            )
        low, high = (None, None) if interval is None else (float(interval[0]), float(interval[1]))
        row = (probe, gallery, float(far), float(value), low, high, impostors, measured)
        with self.writing():
            sql = "INSERT OR REPLACE INTO thresholds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            self._db.execute(sql, (*row, checksum(*row)))

    def matrix(self, made_by: str | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return all vectors, or those that one model made, as unit rows, float32 (N, d); the person of each, int64
        (N,), an index into the names; and the names. Rows are ordered by name, and then as they were added.

        A large float32 gallery is memory-mapped if its rows have that order.
        """
        with self._rows.moment():
            rows, names = self._rows.current(), self.names()
            ids = self._people(names)
            made = [] if made_by is None else self._db.execute("SELECT made_by FROM vectors ORDER BY id").fetchall()
        try:
            rows.check()
        except Damaged:
            self._rows.renew()
            return self.matrix(made_by)
        at = {person: place for place, person in enumerate(ids)}
        people = np.array([at[person] for person in rows.people.tolist()], np.int64)
        order = np.argsort(people, kind="stable")
        if made_by is not None:
            order = order[np.array([made[place] == (made_by,) for place in order.tolist()], bool)]
        as_added = len(rows.parts) == 1 and np.array_equal(order, np.arange(len(rows)))
        return numbers.unpacked(rows.parts[0] if as_added else rows.take(order)), people[order], names

    def search(
        self,
        probes: np.ndarray,
        top: int = 5,
        by: By = "best",
        k: int = 3,
        together: bool = False,
        index: bool = False,
    ) -> list[list[Hit]]:
        """Return, for each probe, the `top` people whose vectors are nearest, the nearest first.

        The search is exact: the result is that of float64 products over all vectors. Equal scores are ordered by name.

        Args:
            probes: (P, d) or (d,). by: the score of a person is the "best" cosine of the person's vectors, their
                "mean", or the mean of the `k` best ("top-mean").
            together: the probes are of one person. There is one answer, for the means of each vector's cosines with
                them: a stranger's mean is no higher than a stranger's single cosine, so a threshold still holds.
            index: let the index beside the gallery name the candidates. It is made if it is absent, which takes
                minutes for large galleries, and may miss somebody: see `index_recall`. Needs usearch.
        """
        rows = numbers.unit(probes, self.dim)
        if together:
            rows = rows.mean(axis=0, keepdims=True)
        return search(self._rows, self._names_of, rows, top, by, k, index)

    def index_recall(self) -> float:
        """Return the share of probes whose nearest vector the index finds; it is made if it is absent.

        The probes are enrolled vectors, moved at random to a cosine of 0.6.
        """
        return self._rows.index(self._rows.current()).recall

    def check(self) -> None:
        """Raise UserError if anything in the file differs from what was written."""
        require_whole(self.path, self._db)
        _ = self.names(), self.thresholds
        for _, _, _, _ in self.contents():
            pass

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction for all that the block adds or removes: all of it is committed, or nothing.

        Raises UserError if the gallery was upgraded to another space since it was opened.
        """
        with told(self.path), database.transaction(self._db):
            space, dim = self._db.execute("SELECT space, dim FROM gallery").fetchone()
            if (space, dim) != (self.space, self.dim):
                raise UserError(f"{self.path}: another process has changed it to space {space}; open it again")
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """All that the block reads is of one moment."""
        with self._rows.moment():
            yield

    def contents(self) -> Iterator[tuple[str, str, list[bytes], np.ndarray]]:
        """Yield, person by person in the order of names, and model by model: name, model, sources, unit rows (n, d).

        Raises UserError if a vector differs from its checksum.
        """
        sql = "SELECT made_by, source, vector, checksum FROM vectors WHERE person = ? ORDER BY made_by, id"
        for name, person in zip(names := self.names(), self._people(names), strict=True):
            with told(self.path):
                rows = self._db.execute(sql, (person,)).fetchall()
            if any(checksum(person, source, made_by, blob) != crc for made_by, source, blob, crc in rows):
                raise damaged(self.path, "a vector differs from its checksum")
            for made_by, group in groupby(rows, key=lambda row: row[0]):
                _, sources, blobs, _ = zip(*group, strict=True)
                vectors = numbers.unpacked(numbers.stored(blobs, self.precision, self.dim))
                yield name, made_by, list(sources), vectors

    def _one(self, sql: str, *values: object) -> int:
        with told(self.path):
            return self._db.execute(sql, values).fetchone()[0]

    def _person(self, stored: bytes) -> int | None:
        row = self._db.execute("SELECT id FROM people WHERE name = ?", (stored,)).fetchone()
        return row and row[0]

    def _people(self, names: Sequence[str]) -> list[int]:
        """Return the ids of people."""
        with told(self.path):
            ids = {read_name(name): person for person, name in self._db.execute("SELECT id, name FROM people")}
        return [ids[name] for name in names]

    def _names_of(self, people: Sequence[int]) -> dict[int, str]:
        """Return the names of people by their ids. Raises UserError if one differs from its checksum."""
        found = {}
        with told(self.path):
            for person in people:
                row = self._db.execute("SELECT name, checksum FROM people WHERE id = ?", (person,)).fetchone()
                if row is None or checksum(row[0]) != row[1]:
                    raise damaged(self.path, "a name differs from its checksum")
                found[person] = read_name(row[0])
        return found

    def _sources(self, person: int, made_by: str) -> Iterator[bytes]:
        sql = "SELECT source FROM vectors WHERE person = ? AND made_by = ?"
        return (source for (source,) in self._db.execute(sql, (person, made_by)))

    def _blocks(self) -> Iterator[tuple[list[int], np.ndarray, list[tuple[int, bytes]]]]:
        """Yield ids, unit rows float32 (n, d), and (person, source) of each, in the order they were added."""
        sql = "SELECT id, person, source, made_by, vector, checksum FROM vectors WHERE id > ? ORDER BY id LIMIT ?"
        last = 0
        while block := self._db.execute(sql, (last, BLOCK)).fetchall():
            if any(checksum(*row[1:-1]) != row[-1] for row in block):
                raise damaged(self.path, "a vector differs from its checksum")
            last = block[-1][0]
            rows = numbers.unpacked(numbers.stored([row[4] for row in block], self.precision, self.dim))
            yield [row[0] for row in block], rows, [(row[1], row[2]) for row in block]
