"""The worst errors: the impostor pairs that score highest and the genuine pairs that score lowest."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

TILE = (512, 2048)
CHUNK = 2**14  # listed pairs scored at once


class Scored(NamedTuple):
    """A pair of images, `a` a row of the probes and `b` one of the gallery, and its cosine."""

    a: int
    b: int
    score: float


Errors = tuple[list[Scored], list[Scored]]  # false accepts and false rejects, the worst first


def worst_errors(probe: np.ndarray, gallery: np.ndarray, labels: np.ndarray, count: int = 12) -> Errors:
    """Compare every image with every other, in tiles; return the `count` worst impostor and genuine pairs.

    An image is never compared with itself. Symmetric (`probe is gallery`): each unordered pair once. Otherwise both
    (i probe, j gallery) and (j probe, i gallery). A list holds each pair of confused persons, or each rejected person,
    at most once: else one person under two names, or one image of somebody else, would fill it.

    Args:
        probe, gallery: unit rows (N, d) of the same images. labels: int64 (N,).
    """
    person = np.unique(labels, return_inverse=True)[1]
    accepts, rejects = _Worst(count), _Worst(count)
    for top, left, score, genuine, impostor in _tiles(probe, gallery, person):
        i, j = np.nonzero(impostor & (score > accepts.least))
        persons = np.sort([person[top + i], person[left + j]], axis=0)
        accepts.add(top + i, left + j, score[i, j], once=persons[0] * len(person) + persons[1])
        i, j = np.nonzero(genuine & (-score > rejects.least))
        rejects.add(top + i, left + j, -score[i, j], once=person[top + i])
    return accepts.pairs(), rejects.pairs(-1)


def worst_pairs(probe: np.ndarray, gallery: np.ndarray, pairs: np.ndarray, same: np.ndarray, count: int = 12) -> Errors:
    """Return the worst of a list of pairs, int64 (P, 2), rows of both embeddings; same: bool (P,).

    If `probe` and `gallery` differ, both directions of each pair are compared, as in pairs.pair_protocol.
    """
    accepts, rejects = _Worst(count), _Worst(count)
    for directed in [pairs] if probe is gallery else [pairs, pairs[:, ::-1]]:
        for start in range(0, len(pairs), CHUNK):
            a, b = directed[start : start + CHUNK].T
            score = np.einsum("nd,nd->n", probe[a], gallery[b])
            once = a * len(gallery) + b
            for worst, kind, sign in ((accepts, ~same, 1), (rejects, same, -1)):
                of = kind[start : start + CHUNK]
                worst.add(a[of], b[of], sign * score[of], once[of])
    return accepts.pairs(), rejects.pairs(-1)


class _Worst:
    """The `count` pairs of the highest badness among all that were added, at most one for each value of `once`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.columns = [np.empty(0, kind) for kind in (np.int64, np.int64, np.float32, np.int64)]

    @property
    def least(self) -> float:
        """The badness that a pair must exceed to be kept."""
        badness = self.columns[2]
        return float(badness.min(initial=np.inf)) if len(badness) == self.count else -np.inf

    def add(self, a: np.ndarray, b: np.ndarray, badness: np.ndarray, once: np.ndarray) -> None:
        """Add pairs; all arguments are (M,)."""
        columns = [np.concatenate(both) for both in zip(self.columns, (a, b, badness, once))]
        order = np.argsort(-columns[2], kind="stable")
        first = np.sort(np.unique(columns[3][order], return_index=True)[1])[: self.count]
        self.columns = [column[order[first]] for column in columns]

    def pairs(self, sign: int = 1) -> list[Scored]:
        """Return the pairs, the worst first; their score is `sign` times the badness."""
        a, b, badness, _ = self.columns
        return [Scored(*pair) for pair in zip(a.tolist(), b.tolist(), (sign * badness).tolist())]


def _tiles(
    probe: np.ndarray, gallery: np.ndarray, person: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield first row and column, scores, and which of these are genuine and which impostor pairs to compare."""
    image = np.arange(len(person))
    for top in range(0, len(person), TILE[0]):
        rows = slice(top, top + TILE[0])
        for left in range(top if probe is gallery else 0, len(person), TILE[1]):
            columns = slice(left, left + TILE[1])
            i, j = image[rows, None], image[columns]
            compared = i < j if probe is gallery else i != j
            same = person[rows, None] == person[columns]
            yield top, left, probe[rows] @ gallery[columns].T, same & compared, ~same & compared
