"""A folder per class, of faces a person: PATH/class/image.jpg."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facedistill.data.sources.metadata import METADATA, lists_images, metadata_above
from facedistill.data.sources.reading import IMAGE_SUFFIXES, is_hidden, is_image, read_file
from facedistill.data.sources.source import Source, classes_of_folders
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError, some
from facedistill.files import fingerprint

EXPECTED = "expected PATH/class/image.jpg"


class NoClasses(UserError):
    """The folder is not a folder per class."""


class FolderSource(Source):
    """A folder PATH/class/image.jpg; classes and files in sorted order on any file system, hidden ones skipped.

    Keys are "class/image.jpg". The fingerprint covers names and file sizes, not contents. A link that leads nowhere
    is an unreadable image.

    Raises UserError for a class without an image, for images in folders inside a class's, for a folder without
    classes, and if the labels are in a metadata.csv.
    """

    expected = "a folder per class"

    @classmethod
    def opens(cls, path: Path) -> bool:
        return path.is_dir()

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if listed := metadata_above(Path(path)):
            raise UserError(_listed(self.path, listed))
        self.class_names = sorted(entry.name for entry in _entries(self.path) if _is_folder(entry))
        if not self.class_names:
            raise NoClasses(
                f"{path}: no classes; expected a folder per class (of faces: per person), each holding its images"
            )
        self.keys, labels, files = [], [], []
        for label, name in enumerate(self.class_names):
            images = sorted(_images(os.path.join(self.path, name), name))
            if not any(key.count("/") == 1 for key, _ in images):
                raise NoClasses(_no_image(Path(path) / name))
            self.keys += [key for key, _ in images]
            files += [file for _, file in images]
            labels += [label] * len(images)
        classes_of_folders(path, self.keys, EXPECTED)
        self.labels = np.array(labels, dtype=np.int64)
        names = "\0".join(self.keys).encode("utf-8", "surrogateescape")
        sizes, times = np.array(files, dtype=np.int64).T
        self.fingerprint, self.stamp = fingerprint("folder", names, sizes), fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(os.path.join(self.path, self.keys[i]))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield what a person put into a folder."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_hidden(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder. Raises UserError for a link to nowhere that may be a class."""
    if entry.is_dir():
        return True
    if entry.is_symlink() and not os.path.exists(entry) and "." not in entry.name:
        raise UserError(f"{entry.path}: a link that leads nowhere; restore what it names, or remove it")
    return False


def _images(folder: str, key: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield key, size and time of the images in a folder and in those inside it; a dead link is one of them."""
    for entry in _entries(folder):
        name = f"{key}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):  # a link may lead back up
            yield from _images(entry.path, name)
        elif is_image(entry.name):
            yield name, size_and_time(entry)
        elif entry.name in METADATA and lists_images(Path(entry)):
            raise UserError(_listed(folder, Path(entry)))


def _listed(folder: str, metadata: Path) -> str:
    return f"{folder}: the labels of these images are in {metadata}; is PATH perhaps {metadata.parent}?"


def _no_image(identity: Path) -> str:
    entries = list(_entries(str(identity)))
    if any(_is_folder(entry) for entry in entries):
        return f"{identity}: no image, but folders; {EXPECTED}: is PATH perhaps {identity}?"
    if entries:
        inside = some(sorted(entry.name for entry in entries))
        return f"{identity}: no image ({' '.join(IMAGE_SUFFIXES)}), but {inside}; {EXPECTED}"
    return f"{identity}: this class has no image ({' '.join(IMAGE_SUFFIXES)}); add some or remove the folder"
