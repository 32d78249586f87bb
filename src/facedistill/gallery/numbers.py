"""Unit vectors as they are stored: float32, or int8 with the length that makes them unit vectors again."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facedistill.errors import UsageError, UserError

MOST = 127  # the largest int8
LARGEST = 8192  # dimensions
TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int8": np.dtype("i1")}


def require_precision(precision: str) -> None:
    if precision not in TYPES:
        raise UsageError(f"gallery: precision '{precision}'; expected {' or '.join(TYPES)}")


def unit(vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Return vectors (N, d) or one (d,) as unit rows, float32 (N, d).

    Raises UserError for another dimension, for a vector that is not finite, and for one of length 0.
    """
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        expected = "(N, d)" if dim is None else f"(N, {dim})"
        raise UserError(f"gallery: vectors of shape {rows.shape}; expected {expected}")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise UserError("gallery: a vector is not finite, or has length 0; the model is damaged or takes other pixels")
    return (rows / lengths).astype(np.float32)


def packed(rows: np.ndarray, precision: str) -> list[bytes]:
    """Return unit rows (N, d) as the bytes that are stored, one for each."""
    if precision == "int8":
        rows = np.rint(rows * (MOST / np.abs(rows).max(axis=1, keepdims=True)))
    return [row.tobytes() for row in rows.astype(TYPES[precision])]


def stored(blobs: Sequence[bytes], precision: str, dim: int) -> np.ndarray:
    """Return the numbers of stored vectors, float32 or int8 (N, d), without their lengths."""
    return np.frombuffer(b"".join(blobs), TYPES[precision]).reshape(len(blobs), dim)


def lengths(numbers: np.ndarray) -> np.ndarray:
    """Return what each row is divided by to have length 1, float32 (N,)."""
    if numbers.dtype == np.float32:
        return np.ones(len(numbers), np.float32)
    return np.sqrt(np.einsum("nd,nd->n", numbers, numbers, dtype=np.float32, casting="unsafe"))


def unpacked(numbers: np.ndarray) -> np.ndarray:
    """Return stored numbers as unit rows, float32 (N, d)."""
    if numbers.dtype == np.float32:
        return numbers
    return numbers.astype(np.float32) / lengths(numbers)[:, None]


def mapped(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, dim: int | None) -> np.ndarray:
    """Return `function` of unit rows as unit rows; it must give one vector for each."""
    found = unit(function(rows), dim)
    if len(found) != len(rows):
        raise UserError(f"gallery: {len(found):,} vectors were made of {len(rows):,}; expected one for each")
    return found
