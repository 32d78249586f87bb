"""Atomic writes, locks, fingerprints, names in one form, and the cache folder."""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from facedistill.errors import UsageError, UserError

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.(tmp|old)(\..*)?")
_FORGOTTEN = 24 * 3600  # seconds after which a temporary that nobody touches belongs to nobody
_STREAM = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_mine: set[str] = set()  # the temporaries that this process is writing


@contextmanager
def atomic_write(path: str | Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step, on failure it is removed.

    The temporary path may be written as a file or made a folder (an existing folder at `path` is then replaced). When
    the block ends, the new content is on the disk: files written one after the other survive a power cut in that order.
    A symbolic link stays, and its target is replaced. A pipe or a device is written to. Temporaries that killed
    processes left in the same folder are removed.

    Args:
        private: only this user may read the file, or list the folder if it is made here.

    Raises:
        UserError: the disk is full or the folder cannot be written; `path` then keeps its old content.
    """
    with (
        writing(path),
        _through(Path(path)) if _is_stream(Path(path)) else _replacing(Path(path), private) as temporary,
    ):
        yield temporary


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raise UserError that names `path` where the block cannot write."""
    try:
        yield
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; free some space or choose another --out") from e


def require_writable(path: Path, folder: bool = False) -> None:
    """Raise UserError now if `atomic_write(path)` could not write there after the work.

    Args:
        folder: the work makes a folder, not a file.
    """
    try:
        target = Path(os.path.realpath(path))
        if not _is_stream(path):
            tempfile.TemporaryFile(dir=next(parent for parent in target.parents if parent.exists())).close()
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another place") from e
    if target.exists() and target.is_dir() != folder:
        found, expected = ("a file", "a folder") if target.is_file() else ("a folder", "a file")
        raise UserError(f"cannot write {path}: it is {found}, and {expected} is to be made; choose another name")


@contextmanager
def _replacing(path: Path, private: bool) -> Iterator[Path]:
    path = Path(os.path.realpath(path))
    path.parent.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = _beside(path, f"tmp{path.suffix}")
    if private:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield temporary
        _set_modes(temporary, 0o600 if private else 0o666 & ~_umask())
        if path.exists() and not private:
            shutil.copymode(path, temporary)
        _to_disk(temporary)
        if temporary.is_dir() and path.exists():
            _replace_folder(temporary, path)
        else:
            os.replace(temporary, path)
        with suppress(OSError):  # some systems cannot do that with a folder
            _fsync(path.parent)
    finally:
        _remove(temporary)
        _mine.discard(temporary.name)


def _beside(path: Path, kind: str) -> Path:
    """Return a new name in the folder of `path`, from which another process sees whose it is; see `sweep`."""
    name = path.name if kind == "old" else path.name[:40]  # a name has at most 255 bytes
    name = f".{name}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.{kind}"
    _mine.add(name)
    return path.with_name(name)


def sweep(folder: Path) -> None:
    """Remove the temporaries of dead processes. The old folder of an interrupted `_replace_folder` comes back."""
    for entry in list(os.scandir(folder)):
        found = _TEMPORARY.fullmatch(entry.name)
        if not found or entry.name in _mine:
            continue
        with suppress(OSError):  # another process may be removing it
            host, process, kind = found[1], int(found[2]), found[3]
            dead = host == _HOST and not _is_running(process)
            if dead or time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN:
                place = folder / entry.name.split(f".{host}-")[0].removeprefix(".")
                if kind == "old" and not place.exists():
                    os.rename(entry.path, place)
                _remove(Path(entry.path))


def _is_running(process: int) -> bool:
    """Return whether another process of this number runs; True where that cannot be told."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return process != os.getpid()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _umask() -> int:
    found = os.umask(0o077)
    os.umask(found)
    return found


def _set_modes(path: Path, mode: int) -> None:
    """Give every file the permissions `mode`; libraries choose their own."""
    for file in _files(path):
        os.chmod(file, mode)


def _files(path: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]


def _to_disk(path: Path) -> None:
    """Wait until a file, or a folder with all in it, is on the disk."""
    for file in _files(path):
        _fsync(file)
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            _fsync(Path(folder))


def _fsync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _replace_folder(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another: in one step, or where the system has none, in two that `sweep` mends."""
    if _exchange(temporary, path):
        return  # `temporary` is now the old folder
    old = _beside(path, "old")
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(old, path)
        raise
    finally:
        _mine.discard(old.name)
    _remove(old)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two paths in one step, and return whether the system could."""
    names = [os.fsencode(p) for p in (a, b)]
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return library.renamex_np(*names, _EXCHANGE) == 0
        here = -100  # AT_FDCWD
        return library.renameat2(here, names[0], here, names[1], _EXCHANGE) == 0
    except (AttributeError, OSError, TypeError):  # no such function; no C library by that name (Windows)
        return False


def _is_stream(path: Path) -> bool:
    """Return whether the path is to be written to, not replaced: a pipe, a device, an open file (/dev/stdout)."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _descriptor(path: Path) -> int | None:
    """Return N of a path that leads to /dev/fd/N, as /dev/stdout does."""
    for _ in range(40):
        if found := _STREAM.fullmatch(os.path.abspath(path)):
            return int(found[1])
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return None


@contextmanager
def _through(path: Path) -> Iterator[Path]:
    """Yield a temporary file elsewhere, and write its content to a pipe or device."""
    with tempfile.TemporaryDirectory() as folder:
        yield (temporary := Path(folder) / (path.name or "stream"))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # its text comes first if the path is the stream
        number = _descriptor(path)
        where, ours = (path, True) if number is None else (number, False)
        with open(temporary, "rb") as source, open(where, "wb", closefd=ours) as target:
            shutil.copyfileobj(source, target)


def in_use(folder: Path) -> bool:
    """Return whether `folder` exists and holds anything except hidden files, which a killed process may have left."""
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())


def require_own(out: Path, sign: Path, source: Path, verb: str) -> None:
    """Check the folder that a verb writes; `sign` is there if the verb made it.

    Raises UsageError if it is inside the folder `source` that the verb reads, or holds something else.
    """
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{verb}: {out} is inside {source}, which stays as it is; choose another --out")
    if in_use(out) and not sign.exists():
        raise UsageError(f"{out} exists and `{verb}` did not make it; choose another --out")


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


@contextmanager
def held_folder(folder: Path, lock: Path, doing: str) -> Iterator[None]:
    """Make `folder` and that of the lock file `lock` in it, and hold the lock in the block.

    Raises UserError where another process holds it, or where nothing can be written.

    Args:
        doing: what the other process then does, e.g. "preparing this data set".
    """
    with ExitStack() as held:
        with writing(folder):
            lock.parent.mkdir(parents=True, exist_ok=True)
            free = held.enter_context(claimed(lock))
        if not free:
            raise UserError(f"{folder}: another process is {doing}; wait for it, or choose another --out")
        yield


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold the lock file `lock` in the block; wait while another process holds it."""
    while True:
        with claimed(lock) as mine:
            if mine:
                yield
                return
        time.sleep(0.02)


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


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which keyboards type it.

    Folders that come from a Mac may be named in the decomposed form. The two look the same: one person, one class.
    """
    return unicodedata.normalize("NFC", name)


def cache_dir() -> Path:
    """Return the folder for data that can be computed again: $FACEDISTILL_CACHE, else ~/.cache/facedistill."""
    return Path(os.environ.get("FACEDISTILL_CACHE") or Path.home() / ".cache" / "facedistill")
