"""Work in a forked child that at its Nth operation on files is killed, or finds its disk full, read-only or emptied."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}


Fault = Callable[[str], None]  # what happens at an operation, by its name


def operations(work: Callable[[], object]) -> int:
    """Do the work in a child, and return the number of its operations: opening, syncing, renaming, removing."""
    done, count = _child(work, None, lambda what: None)
    assert done == 0, f"the work itself fails: exit {done}"
    return count


def killed(work: Callable[[], object], at: int) -> bool:
    """Kill the work with SIGKILL before that operation; return whether it got so far."""
    return _child(work, at, lambda what: os.kill(os.getpid(), signal.SIGKILL))[0] == -signal.SIGKILL


def full(work: Callable[[], object], at: int) -> int:
    """Let that operation and all later ones that write fail, as on a full disk; return the exit code: 3 a UserError."""
    return _child(work, at, lambda what: _refuse(errno.ENOSPC) if what in ("open", "os.mkdir", "fsync") else None)[0]


def read_only(work: Callable[[], object]) -> int:
    """Let every operation fail, as on a disk that is mounted read-only; return the exit code: 3 a UserError."""
    return _child(work, 1, lambda what: _refuse(errno.EROFS))[0]


def emptied(work: Callable[[], object], folder: Path, at: int) -> int:
    """Remove the folder, with all that is in it, before that operation; return the exit code: 3 a UserError."""
    left = [folder]

    def remove(what: str) -> None:
        if left:
            shutil.rmtree(left.pop())  # its own operations find nothing left to do

    return _child(work, at, remove)[0]


def _refuse(error: int) -> None:
    raise OSError(error, os.strerror(error))


def _child(work: Callable[[], object], at: int | None, fault: Fault) -> tuple[int, int]:
    reading, writing = os.pipe()
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            code = _do(work, at, fault, writing)
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status), int(said or b"0")


def _do(work: Callable[[], object], at: int | None, fault: Fault, pipe: int) -> int:
    from facedistill.errors import UserError

    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    count, sync = 0, os.fsync

    def step(what: str) -> None:
        nonlocal count
        count += 1
        if at is not None and count >= at:
            fault(what)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS or (event == "open" and _writes(arguments)):
            step(event)

    def fsync(number: int) -> None:
        step("fsync")
        sync(number)

    os.fsync = fsync  # type: ignore[assignment]  # it raises no event
    sys.addaudithook(hook)
    try:
        work()
    except UserError:
        return 3
    os.write(pipe, str(count).encode())
    return 0


def _writes(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return writes and isinstance(path, str | bytes | Path) and not os.fsdecode(path).startswith(("/dev/", "/proc/"))
