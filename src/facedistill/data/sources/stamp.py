"""Stamps: the sizes and times of files. A cache on this machine needs them beside the fingerprint of the data."""

import os
from collections.abc import Iterable

import numpy as np

from facedistill.files import fingerprint

MISSING = (-1, -1)


def size_and_time(file: str | os.PathLike) -> tuple[int, int]:
    """Return a file's length in bytes and the time of its last change in nanoseconds; MISSING if there is no file."""
    try:
        stat = os.stat(file)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return MISSING
    return stat.st_size, stat.st_mtime_ns


def stamp_of(files: Iterable[str | os.PathLike]) -> str:
    """Return 16 hex characters that change when one of `files` does."""
    return fingerprint(np.fromiter((number for file in files for number in size_and_time(file)), dtype=np.int64))
