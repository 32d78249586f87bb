"""Images that are copies of others: exact ones by content, altered ones near in embedding and in pixels."""

from dataclasses import dataclass

import numpy as np

from facedistill.cleaning.evidence import judge
from facedistill.cleaning.neighbours import nearest
from facedistill.cleaning.pictures import Pictures, apart

NEIGHBOURS = 8  # of each image, whose pixels are compared


@dataclass
class Copies:
    """Pairs of images that may be the same.

    Attributes:
        pairs: int64 (P, 2), the first image first. scores: (P,), how far the pixels are apart, see `apart`; -inf for
            the same content. probability: (P,). flagged: bool (P,).
    """

    pairs: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    flagged: np.ndarray


def find_copies(units: np.ndarray, pictures: Pictures, known: np.ndarray, precision: float) -> Copies:
    """Judge which images are copies of others. `known`: how far copies are from their originals, see `altered`."""
    first, exact = _same_content(pictures.content)
    _, places = nearest(units[first], units[first], NEIGHBOURS, leave_out_self=True)
    pairs = np.stack([np.repeat(first, places.shape[1]), first[places.ravel()]], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    scores = apart(pictures.small[pairs[:, 0]], pictures.small[pairs[:, 1]])
    verdict = judge(scores, known, precision, low=True)
    sure = np.ones(len(exact))
    return Copies(
        np.concatenate([exact, pairs]),
        np.concatenate([-np.inf * sure, scores]),
        np.concatenate([sure, verdict.probability]),
        np.concatenate([sure > 0, verdict.flagged]),
    )


def _same_content(content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first image of each content, int64 (U,), and pairs of it with each of its exact copies (E, 2)."""
    _, first, inverse = np.unique(content, return_index=True, return_inverse=True)
    of = first[inverse]
    later = np.flatnonzero(of != np.arange(len(content)))
    return np.sort(first), np.stack([of[later], later], axis=1)


def first_of_groups(pairs: np.ndarray, count: int) -> np.ndarray:
    """Return the first member, int64 (N,), of the group that `pairs` (P, 2) join each of N things to."""
    parent = np.arange(count)
    while len(pairs):
        low = np.minimum(parent[pairs[:, 0]], parent[pairs[:, 1]])
        before = parent.copy()
        for column in (0, 1):
            np.minimum.at(parent, parent[pairs[:, column]], low)
            np.minimum.at(parent, pairs[:, column], low)
        parent = parent[parent]
        if (parent == before).all():
            break
    return parent
