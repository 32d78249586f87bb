"""Reading a file at offsets, from any thread and any process, and never more than is there."""

import io
import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

_lock = threading.Lock()  # for systems without os.pread: seek and read belong together


class ReadAt:
    """A callable (count, offset) -> bytes on one file, opened once per process. It pickles as the path alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._opened: tuple[int, BinaryIO | None] = (-1, None)

    def __call__(self, count: int, offset: int) -> bytes:
        """Return up to `count` bytes from `offset`, fewer only at the end of the file.

        A count that a file gives takes no memory: it is compared with the bytes that are there first.
        """
        pid, file = self._opened  # a local name keeps the file open while another thread replaces it
        if file is None or pid != os.getpid():
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - lives as long as this object
            self._opened = (os.getpid(), file)
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{self.path} is not a regular file")
        count = min(count, status.st_size - offset)
        if count <= 0 or offset < 0:
            return b""
        if hasattr(os, "pread"):
            return os.pread(file.fileno(), count, offset)
        with _lock:
            file.seek(offset)
            return file.read(count)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_opened": (-1, None)}


class Bounded(io.FileIO):
    """A file for a library that reads as many bytes as the file says: never more than are there."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "rb")
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        there = max(0, self._size - self.tell())
        return super().read(there if size is None or size < 0 else min(size, there)) or b""
