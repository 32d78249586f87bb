"""The SQLite file of a gallery: its schema and migrations, connections, transactions, and errors in plain words."""

import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from facedistill.errors import UserError

APPLICATION = 0x46414345  # "FACE", the file's application_id
MAGIC = b"SQLite format 3\0"
PAGE = 16384  # bytes; seven float32 vectors of 512 dimensions fill it
PATIENCE = 60.0  # seconds to wait while another process writes
SIDE_FILES = ("-wal", "-shm", "-journal")
# One text for each version of the schema, from version 1. A text that was released never changes; a change is added.
MIGRATIONS = [
    """
    CREATE TABLE gallery (
        id TEXT NOT NULL, space TEXT NOT NULL, dim INTEGER NOT NULL, precision TEXT NOT NULL, flip TEXT NOT NULL,
        generation INTEGER NOT NULL, erasing INTEGER NOT NULL, checksum INTEGER NOT NULL);
    CREATE TABLE people (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, checksum INTEGER NOT NULL);
    CREATE TABLE vectors (
        id INTEGER PRIMARY KEY AUTOINCREMENT, person INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        source BLOB NOT NULL, made_by TEXT NOT NULL, vector BLOB NOT NULL, checksum INTEGER NOT NULL,
        UNIQUE (source, made_by, person));
    CREATE INDEX vectors_of_a_person ON vectors (person);
    CREATE TABLE thresholds (
        probe TEXT NOT NULL, gallery TEXT NOT NULL, far REAL NOT NULL, value REAL NOT NULL, low REAL, high REAL,
        impostors INTEGER, measured TEXT NOT NULL, checksum INTEGER NOT NULL, UNIQUE (probe, gallery, far));
    """
]
WORDS = {
    "SQLITE_FULL": "the disk is full; nothing was changed: free some space and run the command again",
    "SQLITE_IOERR": "the disk cannot be written or read, or is full; nothing was changed: free some space and run the "
    "command again",
    "SQLITE_BUSY": "another process has been writing for a minute; run the command again when it is done",
    "SQLITE_LOCKED": "another process has been writing for a minute; run the command again when it is done",
    "SQLITE_READONLY": "cannot be written; make the file and its folder writable",
    "SQLITE_CANTOPEN": "cannot be opened; make its folder readable and writable",
    "SQLITE_TOOBIG": "a value is too large for the file",
}


class NothingThere(UserError):
    """There is no file, or one in which no gallery was ever committed."""


def checksum(*values: object) -> int:
    """Return the CRC-32 of a row's values: numbers, texts and bytes, the longest last."""
    last = values[-1]
    content = last if isinstance(last, bytes) else repr(last).encode()
    return zlib.crc32(content, zlib.crc32(repr(values[:-1]).encode()))


def damaged(path: Path, what: object) -> UserError:
    """Return the error of a file that is not as it was written."""
    rescue = f"`facedistill show {path} --salvage FILE` writes a gallery of all that is readable"
    reason = " ".join(str(what).split())[:200]
    return UserError(f"{path}: damaged ({reason}); restore a copy of it, or {rescue}")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn SQLite's errors in the block into one line each."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (UnicodeDecodeError, OverflowError) as e:  # of a text or number in a damaged file, or of SQLite's message
        raise damaged(path, e) from e
    except sqlite3.Error as e:
        name = getattr(e, "sqlite_errorname", "") or ""
        known = next((words for code, words in WORDS.items() if name.startswith(code)), None)
        if name.startswith("SQLITE_IOERR_CORRUPT") or known is None:
            raise damaged(path, e) from e
        raise UserError(f"{path}: {known}") from e


def create(path: Path) -> sqlite3.Connection:
    """Return a connection to the new file at `path`, readable by this user alone, with the newest schema.

    Where it exists already, and whole, it is opened as it is.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        _require_file(path)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place") from e
    with told(path):
        db = _connected(path, "rw")
        try:
            if is_empty(db):
                os.chmod(path, 0o600)
                db.execute(f"PRAGMA page_size = {PAGE}")
                db.execute("PRAGMA journal_mode = WAL")
            else:
                require_gallery(db, path)
        except BaseException:
            db.close()
            raise
    return db


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the gallery at `path`; of an older schema, it is brought to the newest.

    A gallery in a place that cannot be written is opened for reading.

    Raises:
        UserError: no such file, no gallery, a newer schema, or a damaged file.
    """
    _require_file(path)
    with told(path):
        db = _connected(path, _mode(path))
        try:
            require_gallery(db, path)
            if db.execute("PRAGMA user_version").fetchone()[0] < len(MIGRATIONS):
                migrate(db)
            _require_schema(db, path)
        except BaseException:
            db.close()
            raise
    return db


def _mode(path: Path) -> str:
    """Return how SQLite opens the file. In a place that cannot be written, it can make no files beside it."""
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return "rw"
    return "ro" if path.with_name(path.name + "-wal").exists() else "ro&immutable=1"


def _require_file(path: Path) -> None:
    """Raise UserError unless a SQLite file lies at `path`, or an empty one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path}: not a file; expected a gallery, which is one file")
        with open(path, "rb") as file:
            start = file.read(len(MAGIC))
    except FileNotFoundError as e:
        raise NothingThere(
            f"{path}: no such gallery; `facedistill enroll {path} PHOTOS --model TEACHER` makes one"
        ) from e
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; expected a gallery") from e
    if start and start != MAGIC:
        raise UserError(
            f"{path}: not a gallery, or its beginning is lost; expected a file that `facedistill enroll` made. "
            f"`facedistill show {path} --salvage FILE` writes a gallery of what is readable"
        )


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=PATIENCE, isolation_level=None)
    for setting in (
        "foreign_keys = ON",
        "synchronous = FULL",
        "secure_delete = ON",
        "trusted_schema = OFF",  # the file may be any other person's
        "cell_size_check = ON",
        "temp_store = MEMORY",  # VACUUM's copy of biometric data never touches the disk
    ):
        db.execute(f"PRAGMA {setting}")
    return db


def require_gallery(db: sqlite3.Connection, path: Path) -> None:
    """Raise UserError unless the file is a gallery whose schema this version knows."""
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if is_empty(db):
        raise NothingThere(f"{path}: an empty file; `facedistill enroll {path} PHOTOS --model TEACHER` makes a gallery")
    if application != APPLICATION:
        raise UserError(f"{path}: another program's SQLite file; expected one that `facedistill enroll` made")
    if version > len(MIGRATIONS):
        raise UserError(
            f"{path}: made by a newer facedistill (schema {version}; this one knows {len(MIGRATIONS)}); update "
            "facedistill: pip install -U facedistill"
        )


def is_empty(db: sqlite3.Connection) -> bool:
    """Return whether nothing was ever committed to the file."""
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema to the newest version in one transaction; another process may have done it meanwhile."""
    with transaction(db):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        for text in MIGRATIONS[version:]:
            _run(db, text)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _run(db: sqlite3.Connection, text: str) -> None:
    for statement in text.split(";"):  # executescript would end the transaction
        db.execute(statement)


@cache
def _schema(migrations: tuple[str, ...]) -> list[tuple[str, ...]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    for text in migrations:
        _run(db, text)
    return _tables(db)


def _tables(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def _require_schema(db: sqlite3.Connection, path: Path) -> None:
    """Raise UserError if tables, indexes or triggers are not those of a gallery."""
    if _tables(db) != _schema(tuple(MIGRATIONS)):
        raise damaged(path, "its tables are not those of a gallery")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block is committed, or nothing of it. Inside another transaction, it is a part of that."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(sqlite3.Error):  # the first error is the one to tell
                db.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """All that the block reads is of one moment."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("COMMIT")
