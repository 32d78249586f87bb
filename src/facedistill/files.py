"""Atomic writes, locks, fingerprints, and the cache folder."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from facedistill.errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one rename, on failure it is removed.

    The temporary path may be written as a file or made a folder (an existing folder at `path` is then replaced).
    Raises UserError when the disk is full or the folder cannot be written; `path` then keeps its old content.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; free some space or choose another --out") from e
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink()


def _replace_folder(temporary: Path, path: Path) -> None:
    if not path.exists():
        os.rename(temporary, path)
        return
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def in_use(folder: Path) -> bool:
    """Return whether `folder` exists and holds anything except hidden files, which a killed process may have left."""
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())


@contextmanager
def claimed(lock: Path) -> Iterator[bool]:
    """Yield whether this process now holds the lock file `lock`. The lock ends with the block or with the process."""
    held = FileLock(lock, blocking=False)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


def fingerprint(*parts: object) -> str:
    """Return 16 hex characters of the SHA-256 of `parts` (bytes, numpy arrays, or anything with a stable str)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            data = f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            data = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def cache_dir() -> Path:
    """Return the folder for data that can be computed again: $FACEDISTILL_CACHE, else ~/.cache/facedistill."""
    return Path(os.environ.get("FACEDISTILL_CACHE") or Path.home() / ".cache" / "facedistill")
