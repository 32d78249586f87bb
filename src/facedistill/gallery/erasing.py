"""Erase what forgotten people left: free pages, the write-ahead log, and the caches beside a gallery."""

import sqlite3
from pathlib import Path

from facedistill.errors import UserError
from facedistill.files import sweep
from facedistill.gallery import index, mapped

CACHES = (mapped.SUFFIX, index.SUFFIX)


def erase(path: Path, db: sqlite3.Connection, required: bool) -> None:
    """Write the gallery's file anew without free pages, empty its log, and remove its caches.

    Args:
        required: raise UserError where that is not possible now; else a later opening does it.
    """
    try:
        db.execute("VACUUM")
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]  # waits for those who write a cache
        sweep(path.parent)  # caches that a killed process was writing
        for suffix in CACHES:
            path.with_name(path.name + suffix).unlink(missing_ok=True)  # others may be reading it: no overwriting
        if not busy:
            db.execute("UPDATE gallery SET erasing = 0")
            return
        reason = "another process keeps reading it"
    except (sqlite3.Error, OSError) as e:
        reason = str(e)
    if required:
        raise UserError(
            f"{path}: forgotten, but the bytes could not be erased yet ({reason}); the next command that opens the "
            "gallery erases them"
        )
