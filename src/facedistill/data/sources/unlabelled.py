"""Images of unknown people: any data set whose labels are ignored, or a folder of images in folders of any depth."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from facedistill.data.sources.reading import is_hidden, is_image, read_file
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError
from facedistill.files import fingerprint


class UnlabelledSource(Source):
    """The images of `original`, each of them a class of its own, named by its key."""

    expected = "unlabelled:DATA"
    takes_data = True

    @classmethod
    def of(cls, argument: str, open_original: Callable[[str], Source]) -> "UnlabelledSource":
        """Open the data set that `argument` names. In a folder, every image counts, however deep it lies."""
        if not argument:
            raise UserError(
                "data unlabelled: no data set; expected unlabelled:PATH, a folder of images or any data set"
            )
        return cls(open_original(argument))

    def __init__(self, original: Source) -> None:
        self.original, self.path, self.keys = original, original.path, original.keys
        self.class_names, self.labels = original.keys, np.arange(len(original))
        self.fingerprint, self.stamp = fingerprint("unlabelled", original.fingerprint), original.stamp
        self.unlabelled = self.extra = np.ones(len(original), dtype=bool)
        self.features = original.features

    def read(self, i: int) -> bytes | np.ndarray:
        return self.original.read(i)


class LooseImages(Source):
    """All images in a folder and in the folders inside it, in the order of their paths; one class."""

    def __init__(self, path: str) -> None:
        self.path, files = path, dict(sorted(_images(path, "")))
        self.keys, self.class_names = list(files), ["nobody"]
        if not files:
            raise UserError(f"{path}: no images; expected a folder with images in it, or in folders inside it")
        self.labels = np.zeros(len(files), dtype=np.int64)
        sizes, times = np.array(list(files.values()), dtype=np.int64).T
        names = "\0".join(self.keys).encode("utf-8", "surrogateescape")
        self.fingerprint, self.stamp = fingerprint("loose", names, sizes), fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(Path(self.path, self.keys[i]))


def _images(folder: str, below: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield path, size and time of every image; a link to a folder that leads back up is not followed."""
    place = os.path.realpath(folder)
    if place in above:
        return
    with os.scandir(folder) as entries:
        for entry in (entry for entry in entries if not is_hidden(entry.name)):
            if entry.is_dir():
                yield from _images(entry.path, f"{below}{entry.name}/", (*above, place))
            elif is_image(entry.name):
                yield f"{below}{entry.name}", size_and_time(entry)
