"""A folder per identity: PATH/identity/image.jpg."""

import os
from pathlib import Path

import numpy as np

from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError
from facedistill.files import fingerprint

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def is_image(name: str) -> bool:
    """Return True for the name of a file that has an image's extension and is not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not os.path.basename(name).startswith(".")


class FolderSource(Source):
    """A folder PATH/identity/image.jpg; classes and files in sorted order on any file system, hidden ones skipped.

    Keys are "identity/image.jpg". The fingerprint covers names and file sizes, not contents.
    Raises UserError for an identity without an image and for a folder without identities.
    """

    expected = "a folder per identity"

    @classmethod
    def opens(cls, path: Path) -> bool:
        return path.is_dir()

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.class_names = sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
        if not self.class_names:
            raise UserError(f"{path}: no identities; expected a folder per identity, each holding its images")
        self.keys, labels, files = [], [], []
        for label, name in enumerate(self.class_names):
            images = sorted(_images(os.path.join(path, name)))
            if not images:
                raise UserError(_no_image(Path(path) / name))
            self.keys += [f"{name}/{image}" for image, _ in images]
            files += [file for _, file in images]
            labels += [label] * len(images)
        self.labels = np.array(labels, dtype=np.int64)
        names = "\0".join(self.keys).encode("utf-8", "surrogateescape")
        sizes, times = np.array(files, dtype=np.int64).T
        self.fingerprint, self.stamp = fingerprint("folder", names, sizes), fingerprint(times)

    def read(self, i: int) -> bytes:
        with open(os.path.join(self.path, self.keys[i]), "rb") as f:
            return f.read()


def _images(folder: str) -> list[tuple[str, tuple[int, int]]]:
    return [(e.name, size_and_time(e)) for e in os.scandir(folder) if is_image(e.name) and e.is_file()]


def _no_image(identity: Path) -> str:
    if any(e.is_dir() for e in os.scandir(identity)):
        return f"{identity}: no image, but folders; expected PATH/identity/image.jpg: is PATH perhaps {identity}?"
    return f"{identity}: this identity has no image ({' '.join(IMAGE_SUFFIXES)}); add some or remove the folder"
