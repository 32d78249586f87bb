"""Images that one file holds as an array of pixels of one size, in memory once the file is read."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data.sources.reading import read_lines
from facedistill.data.sources.source import Source
from facedistill.errors import UserError
from facedistill.files import fingerprint

CLASSES = "classes.txt"
MOST_COMPRESSED = 1032  # times smaller than its content: deflate's limit


class ArraySource(Source):
    """Images and labels of two arrays. Keys are the images' numbers, class names the labels' digits, or the lines of
    `classes.txt` beside the file.

    The fingerprint covers the pixels. A copy in another process reads the file again.

    Subclasses define `arrays`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        images, labels = self.arrays()
        if not len(images):
            raise UserError(f"{path}: no images; a data set needs at least one")
        if len(images) != len(labels):
            raise UserError(f"{path}: {len(images):,} images, but {len(labels):,} labels; expected one label an image")
        self._images: np.ndarray | None = images
        self.keys = [str(i) for i in range(len(images))]
        if labels.ndim == 2:
            self.multi_hot, self.label_names = labels, _names(self.path, labels.shape[1])[: labels.shape[1]]
            self.labels, self.class_names = np.arange(len(images)), self.keys
            self.unlabelled = np.ones(len(images), dtype=bool)
        else:
            self.labels = labels.astype(np.int64)
            if self.labels.min() < 0:
                raise UserError(f"{path}: label {self.labels.min()}; expected numbers of classes, from 0")
            self.class_names = _names(self.path, int(self.labels.max()) + 1)
        self.fingerprint = fingerprint("arrays", images, labels.astype(np.int64))
        if (Path(self.path).with_name(CLASSES)).is_file():
            self.fingerprint = fingerprint(self.fingerprint, "\0".join([*self.class_names, *self.label_names]))

    @abstractmethod
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the images, uint8 (N, H, W) grey or (N, H, W, 3) RGB, and the labels: integers (N,), or bool (N, L) if
        an image may have several."""

    def read(self, i: int) -> np.ndarray:
        """Return image `i`, RGB uint8 (H, W, 3). Grey is repeated."""
        if self._images is None:
            self._images = self.arrays()[0]
        image = self._images[i]
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}


def _names(path: str, count: int) -> list[str]:
    """Return the names of classes or labels: the lines of classes.txt beside the file, else their numbers.

    Raises UserError if there are fewer lines, or two of one name. Classes of further lines have no image here.
    """
    beside = Path(path).with_name(CLASSES)
    if not beside.is_file():
        return [str(i) for i in range(count)]
    names = read_lines(beside)
    if len(names) < count or len(set(names)) < len(names):
        raise UserError(
            f"{beside}: {len(names)} names ({len(set(names))} different); expected {count} or more, one a line, "
            f"for the labels of {path}"
        )
    return names
