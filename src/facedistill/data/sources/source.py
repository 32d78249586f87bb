"""A Source: images with class names, in whatever form they are stored."""

from abc import ABC, abstractmethod
from itertools import compress

import numpy as np


class Source(ABC):
    """Random access to images with labels. Implementations pickle cheaply and open their files once per process.

    Attributes:
        path: where it came from, for messages.
        keys: a unique, stable name for every image.
        labels: int64 (N,), index into `class_names`.
        class_names: one name per class; order is deterministic.
        fingerprint: 16 hex characters that change with keys, labels, class names or (where cheap) image sizes. The same
            on every machine.
        stamp: changes when the files do, whatever is in them; "" where there are none, or the fingerprint covers their
            contents. Of this machine alone.
    """

    path: str
    keys: list[str]
    labels: np.ndarray
    class_names: list[str]
    fingerprint: str
    stamp: str = ""

    @abstractmethod
    def read(self, i: int) -> bytes | np.ndarray:
        """Return image `i` as encoded bytes (JPEG, PNG, ...) or as RGB uint8 (H, W, 3)."""

    def __len__(self) -> int:
        return len(self.keys)


def classes_with_images(labels: np.ndarray, class_names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Leave out the classes of which no image is there: the labels counted anew, and the names that remain."""
    used = np.bincount(labels, minlength=len(class_names)) > 0
    if used.all():
        return labels, class_names
    return (np.cumsum(used) - 1)[labels], list(compress(class_names, used))
