"""An array in a cache: a plain .npy whose last bytes, after the array, are a checksum of its name and its content."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

READ = 1 << 22  # bytes at a time


class ArrayWriter:
    """Writes an array into an open file, which will be called `name`, as its rows come.

    Args:
        kind: as numpy writes it, e.g. "<f4".
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], kind: str, name: str) -> None:
        self.file, self.shape, self.kind, self.done = file, shape, kind, 0
        self.checksum = hashlib.sha256(name.encode())
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})

    def add(self, places: Sequence[int], rows: np.ndarray) -> None:
        """Write `rows` at `places`, which ascend. Places that are passed over hold NaN."""
        if len(places):
            missing = np.nan if self.kind[1] == "f" else 0
            block = np.full((places[-1] + 1 - self.done, *self.shape[1:]), missing, self.kind)
            block[np.asarray(places) - self.done] = rows
            self._write(block)

    def end(self) -> None:
        """Fill the places after the last row, and write the checksum."""
        if self.done < self.shape[0]:
            self._write(np.full((self.shape[0] - self.done, *self.shape[1:]), np.nan, self.kind))
        self.file.write(self.checksum.digest())

    def _write(self, block: np.ndarray) -> None:
        content = block.tobytes()
        self.file.write(content)
        self.checksum.update(content)
        self.done += len(block)


def save_array(path: Path, array: np.ndarray, kind: str, name: str) -> None:
    """Write an array to `path`, which will be called `name`."""
    with open(path, "wb") as file:
        writer = ArrayWriter(file, array.shape, kind, name)
        writer.add(range(len(array)), array)
        writer.end()


def load_array(path: Path, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Return the array, memory-mapped; changes to it stay in memory. Raises ValueError or OSError if it is not whole.

    Args:
        shape, kind: that it must have; `kind` as numpy writes it, e.g. "<f4".
    """
    try:
        found = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError:
        raise
    except Exception as e:  # a damaged header makes numpy raise almost anything
        raise ValueError(f"no array: {e or type(e).__name__}") from e
    if not isinstance(found, np.memmap) or (found.dtype.str, found.shape) != (kind, shape):
        raise ValueError(f"another array, for {kind} {list(shape)}")
    checksum, at = hashlib.sha256(path.name.encode()), found.offset
    if not found.flags.c_contiguous:
        raise ValueError("its numbers are in another order")
    with open(path, "rb") as file:
        file.seek(at)
        left = found.nbytes
        while left and (part := file.read(min(READ, left))):
            checksum.update(part)
            left -= len(part)
        if file.read() != checksum.digest():
            raise ValueError("its checksum differs")
    return found
