"""A Source: images with class names, in whatever form they are stored."""

from abc import ABC, abstractmethod

import numpy as np


class Source(ABC):
    """Random access to images with labels. Implementations pickle cheaply and open their files once per process.

    Attributes:
        path: where it came from, for messages.
        keys: a unique, stable name for every image.
        labels: int64 (N,), index into `class_names`.
        class_names: one name per class; order is deterministic.
        fingerprint: 16 hex characters that change with keys, labels, class names or (where cheap) image sizes.
    """

    path: str
    keys: list[str]
    labels: np.ndarray
    class_names: list[str]
    fingerprint: str

    @abstractmethod
    def read(self, i: int) -> bytes | np.ndarray:
        """Return image `i` as encoded bytes (JPEG, PNG, ...) or as RGB uint8 (H, W, 3)."""

    def __len__(self) -> int:
        return len(self.keys)
