"""Folders of images named <person>_<...>.jpg: the parts of TinyFace and QMUL-SurvFace."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from facedistill.data.sources.reading import is_hidden, is_image, read_file
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError
from facedistill.files import fingerprint

PERSON = re.compile(r"(\d+)_")
Files = dict[str, tuple[int, int]]  # size and time of every image, by its key: "Probe/12_3.jpg"


class NumberedFaces(Source):
    """The images of one part of a set, in sorted order.

    The fingerprint covers names and file sizes, not contents.

    Args:
        kind: of the set, for the fingerprint.
        classes: the class name of every image. class_names: of the whole set, so that the labels of its parts agree.
    """

    def __init__(self, kind: str, path: Path, files: Files, classes: Iterable[str], class_names: list[str]) -> None:
        numbers = {name: label for label, name in enumerate(class_names)}
        self.path, self.keys, self.class_names = str(path), list(files), class_names
        self.labels = np.array([numbers[name] for name in classes], dtype=np.int64)
        names = "\0".join(self.keys).encode("utf-8", "surrogateescape")
        sizes, times = np.array(list(files.values()), dtype=np.int64).T
        self.fingerprint = fingerprint(kind, names, sizes, "\0".join(class_names))
        self.stamp = fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(os.path.join(self.path, self.keys[i]))


def images_below(root: Path, folder: str, expected: str) -> Files:
    """Return the images in a folder of `root`, at any depth. Raises UserError if there are none."""
    found = {}
    for parent, folders, names in os.walk(root / folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        inside = Path(parent).relative_to(root).as_posix()
        for name in filter(is_image, names):
            found[f"{inside}/{name}"] = size_and_time(os.path.join(parent, name))
    if not found:
        raise UserError(f"{root / folder}: no images; {expected}")
    return dict(sorted(found.items()))


def person_of(root: Path, key: str) -> int:
    """Return the person in the name of an image. Raises UserError if there is none."""
    person = PERSON.match(key.rpartition("/")[2])
    if person is None:
        raise UserError(f"{root / key}: no person in the file's name; expected <id>_<n>.jpg, e.g. 12_3.jpg")
    return int(person[1])
