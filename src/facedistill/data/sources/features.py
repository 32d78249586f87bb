"""Samples that are vectors of features and no images: of speech, of text, or another network's embeddings."""

from pathlib import Path

import numpy as np

from facedistill.data.embeddings import Embeddings
from facedistill.data.sources.source import Source
from facedistill.errors import UserError
from facedistill.files import fingerprint


class FeatureSource(Source):
    """An .npz with keys (N,), class_names (C,), labels (N,) and vectors (N, d) or (N, F, d): `features:speech.npz`.

    It is the form that `embed --out` writes. Of several vectors of a sample, e.g. of an image and its mirror image, the
    mean counts.

    Raises UserError if the file is no such table, or a number is NaN or infinite.
    """

    expected = "features:FILE.npz"
    takes_options = True

    @classmethod
    def open(cls, argument: str) -> "FeatureSource":
        return cls(argument.removeprefix("path="))

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise UserError(f"features {path}: no such file; expected {self.expected}")
        table = Embeddings.load(path)
        self.path, self.keys, self.class_names, self.labels = path, table.keys, table.class_names, table.labels
        self.vectors = np.ascontiguousarray(table.vectors.mean(1), dtype=np.float32)
        self.features = self.vectors.shape[1]
        if not self.features:
            raise UserError(f"{path}: vectors of shape {table.vectors.shape}; expected at least one feature a sample")
        bad = np.flatnonzero(~np.isfinite(self.vectors).all(1))
        if len(bad):
            raise UserError(
                f"{path}: {len(bad):,} samples have a feature that is NaN or infinite, the first is {self.keys[bad[0]]}"
            )
        names = "\0".join([*self.keys, *self.class_names])
        self.fingerprint = fingerprint("features", names, self.labels, self.vectors)

    def read(self, i: int) -> np.ndarray:
        return self.vectors[i]
