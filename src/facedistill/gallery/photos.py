"""Photos by their paths, as a Source."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facedistill.data import IMAGE_SUFFIXES, Source, is_hidden
from facedistill.errors import UserError
from facedistill.files import fingerprint


class Photos(Source):
    """Photo files, and all photos in folders and in the folders inside them, of one person.

    Raises UserError for a path that does not exist, and if there is no photo.
    """

    def __init__(self, paths: Sequence[str | Path], name: str = "") -> None:
        self.path, self.class_names = ", ".join(map(str, paths)), [name]
        self.keys = list(dict.fromkeys(str(file) for path in paths for file in _files(Path(path))))
        if not self.keys:
            raise UserError(f"{self.path}: no photos ({' '.join(IMAGE_SUFFIXES)})")
        self.labels = np.zeros(len(self.keys), np.int64)
        self.fingerprint = fingerprint(*self.keys)

    def read(self, i: int) -> bytes:
        return Path(self.keys[i]).read_bytes()


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise UserError(f"{path}: no such photo or folder of photos")
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (
            Path(folder, name)
            for name in sorted(names)
            if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)
        )
