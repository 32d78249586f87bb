"""Reading a file at offsets, from any thread and any process."""

import os
import threading
from pathlib import Path
from typing import BinaryIO

_TURN = threading.Lock()


class ReadAt:
    """A callable (count, offset) -> bytes on one file, opened once per process. It pickles as the path alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._opened: tuple[int, BinaryIO | None] = (-1, None)

    def __call__(self, count: int, offset: int) -> bytes:
        """Return up to `count` bytes from `offset`, fewer only at the end of the file."""
        pid, file = self._opened  # a local name keeps the file open while another thread replaces it
        if file is None or pid != os.getpid():
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - lives as long as this object
            self._opened = (os.getpid(), file)
        if hasattr(os, "pread"):
            return os.pread(file.fileno(), count, offset)
        with _TURN:  # Windows: the threads share one position
            file.seek(offset)
            return file.read(count)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_opened": (-1, None)}
