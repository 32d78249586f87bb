"""Erase what forgotten people left: free pages, the write-ahead log, and the caches beside a gallery."""

import sqlite3
import time
from pathlib import Path

from facedistill.errors import UserError
from facedistill.files import sweep
from facedistill.gallery import database, index, mapped

CACHES = (mapped.SUFFIX, index.SUFFIX)


def erase(path: Path, db: sqlite3.Connection, required: bool) -> None:
    """Write the gallery's file anew without free pages, empty its log, and remove its caches.

    Args:
        required: raise UserError where that is not possible now; else a later opening does it.
    """
    try:
        db.execute("VACUUM")
        emptied = _empty_log(db)  # waits for those who write a cache
        sweep(path.parent)  # caches that a killed process was writing
        for suffix in CACHES:
            path.with_name(path.name + suffix).unlink(missing_ok=True)  # others may be reading it: no overwriting
        if emptied:
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


def _empty_log(db: sqlite3.Connection) -> bool:
    """Return whether the log was emptied within the time to wait for other processes.

    SQLite waits for readers and writers by itself, but not for another checkpoint: then it answers "busy" at once.
    """
    end = time.monotonic() + database.PATIENCE
    while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
