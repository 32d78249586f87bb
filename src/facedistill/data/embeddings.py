"""A table of embeddings, and the functions that combine the embeddings of an image and its mirror image."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facedistill.data.npz import stop_if_larger
from facedistill.errors import UserError
from facedistill.files import atomic_write

MOST_COMPRESSED = 200  # times smaller than its content; embeddings hardly shrink, repeated names do
Flip = Literal["sum", "concat", "none"]


@dataclass
class Embeddings:
    """A table of raw embeddings (the model's offset subtracted), one row for each readable image.

    Attributes:
        keys: the key of each image in its data set.
        class_names: all classes of the data set, even those without a row; labels: int64 (N,), index into them.
        vectors: float32 (N, F, d); F = 2: the image and its mirror image, F = 1: the image alone.
        space, model, data: space id, and fingerprints of model and data; "" if unknown.
    """

    keys: list[str]
    class_names: list[str]
    labels: np.ndarray
    vectors: np.ndarray
    space: str = ""
    model: str = ""
    data: str = ""

    def __len__(self) -> int:
        return len(self.keys)

    def fused(self, flip: Flip) -> np.ndarray:
        """Return unit embeddings, float32 (N, d), or (N, 2d) for "concat": see `fuse`."""
        return fuse(self.vectors, flip)

    def save(self, path: str | Path) -> None:
        """Write one uncompressed .npz atomically, with an array for each attribute, readable without pickle.

        Embeddings are biometric data: only this user may read the file.
        """
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        arrays["checksum"] = np.asarray(_checksum(arrays))
        with atomic_write(path, private=True) as temporary, open(temporary, "wb") as f:
            np.savez(f, **arrays)

    @classmethod
    def load(cls, path: str | Path, saved: bool = False) -> "Embeddings":
        """Read what `save` wrote, or a table made by hand: keys, class_names, labels and vectors (N, d) or (N, F, d).

        Args:
            saved: only what `save` wrote, which has a checksum.

        Raises:
            UserError: an array is missing, the shapes do not fit, or the checksum is another.
        """
        expected = "expected an .npz with keys (N,), class_names (C,), labels (N,) and vectors (N, d) or (N, F, d)"
        try:
            stop_if_larger(path, MOST_COMPRESSED)
            with np.load(path, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            checksum = found.pop("checksum", None)
            if saved or checksum is not None:
                wanted = {f.name: found[f.name] for f in fields(cls)}
                if str(checksum) != _checksum(wanted):
                    raise ValueError("its checksum differs; the file is damaged")
            vectors = found["vectors"].astype(np.float32, copy=False)
            if found["labels"].size and not np.issubdtype(found["labels"].dtype, np.integer):
                raise ValueError(f"labels are {found['labels'].dtype}, not integers")
            labels = found["labels"].astype(np.int64, copy=False)
            texts = {name: str(found[name]) for name in ("space", "model", "data") if name in found}
            keys, class_names = found["keys"].tolist(), found["class_names"].tolist()
        except KeyError as e:
            raise UserError(f"{path}: no array {e}; {expected}") from e
        except Exception as e:  # a damaged archive raises almost anything
            raise UserError(f"{path}: not a table of embeddings ({e or type(e).__name__}); {expected}") from e
        if vectors.ndim == 2:
            vectors = vectors[:, None]
        for name in ("keys", "class_names"):
            if found[name].ndim != 1:
                raise UserError(f"{path}: {name} of shape {found[name].shape}; {expected}")
        if not keys or vectors.ndim != 3 or len(vectors) != len(keys) or labels.shape != (len(keys),):
            raise UserError(f"{path}: {len(keys)} keys, labels {labels.shape}, vectors {vectors.shape}; {expected}")
        if not 0 <= labels.min() <= labels.max() < len(class_names):
            raise UserError(f"{path}: labels {labels.min()} to {labels.max()} for {len(class_names)} class names")
        return cls([str(k) for k in keys], [str(c) for c in class_names], labels, vectors, **texts)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return 64 hex characters of the SHA-256 of arrays: names, types, shapes and content."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {arrays[name].shape} ".encode())
        digest.update(np.atleast_1d(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def combine(vectors: np.ndarray, flip: Flip) -> np.ndarray:
    """Combine raw embeddings (N, F, d) into one per image, not normalised: (N, d), or (N, F d) for "concat".

    "sum" adds the embeddings of image and mirror image, "concat" concatenates them, and "none" takes the image's alone.
    Without mirror images (F = 1) all three are the same.
    """
    if flip == "concat":
        return vectors.reshape(len(vectors), -1)
    return vectors.sum(axis=1) if flip == "sum" else vectors[:, 0]


def fuse(vectors: np.ndarray, flip: Flip) -> np.ndarray:
    """Return the rows of `combine`, normalised, float32. A zero embedding stays zero."""
    combined = combine(vectors, flip)
    norms = np.linalg.norm(combined, axis=1, keepdims=True)
    return np.ascontiguousarray(combined / np.maximum(norms, 1e-12), dtype=np.float32)
