"""Every image of a labelled set against every other: what can measure a FAR of 1e-5 (DESIGN.md 7.3).

LFW's 7,701 distinct images make 8,101 genuine and 29.6 million impostor pairs. Scores come in tiles of a matrix
product and are rounded to multiples of 2^-20, about the precision of a float32 dot product: then equal embeddings
tie whatever the tiling, and a histogram over the multiples is exact, in 32 MB for any number of pairs.
Beyond it only the genuine scores and the highest impostor scores are held, with their persons, for the bootstrap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from facedistill.evaluation.metrics import Roc, far_key, tar_at_far
from facedistill.evaluation.statistics import (
    RESAMPLES,
    SEED,
    Estimate,
    TooFewImpostors,
    Weights,
    draws,
    resampled_tar,
)
from facedistill.evaluation.verification import Verification

FARS = (1e-2, 1e-3, 1e-4, 1e-5)
GRID = 2**20
BINS = 2 * GRID + 2  # bin 0: no comparison; bin b: score (b - 1) / GRID - 1
TILE = (1024, 4096)
HELD = 10_000  # impostor scores held at least


def all_pairs(
    probe: np.ndarray,
    gallery: np.ndarray,
    labels: np.ndarray,
    *,
    fars: Sequence[float] = FARS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verification:
    """Evaluate `probe` embeddings against `gallery` embeddings of the same images; a pair is genuine iff labels agree.

    An image is never compared with itself. Symmetric (`probe is gallery`): each unordered pair once. Otherwise both
    directions, (i probe, j gallery) and (j probe, i gallery), pooled. Intervals: persons are resampled.

    Args:
        probe, gallery: unit rows, float32 (N, d).
        labels: int64 (N,), any numbers.
    """
    person = np.unique(labels, return_inverse=True)[1]
    images = np.bincount(person)
    impostors = (len(person) ** 2 - int((images**2).sum())) // (2 if probe is gallery else 1)
    held = max(2 * int(max(fars) * impostors), HELD)
    while True:
        scores = collect(probe, gallery, person, held)
        weights = (_weights(scores, draw, draw * images) for draw in draws(len(images), resamples, seed))
        try:
            tar = resampled_tar(scores.genuine, scores.impostor, fars, weights, scores.complete)
            break
        except TooFewImpostors:
            held *= 2
    points = {far_key(far): (tar_at_far(scores.roc, far), tar[:, f]) for f, far in enumerate(fars)}
    return Verification(
        roc=scores.roc,
        tar_at_far={key: (point, Estimate(point.tar, values)) for key, (point, values) in points.items() if point},
    )


@dataclass(frozen=True)
class Scores:
    """Counts of all scores, and the single scores that the bootstrap needs (as bins, int32, descending).

    Attributes:
        genuine: (G,) all of them; genuine_person: int32 (G,).
        impostor: (M,) the highest; impostor_persons: int32 (2, M), probe and gallery.
        complete: whether these are all the impostor pairs there are.
        directions: how often each unordered pair of images is compared: 1 or 2.
    """

    roc: Roc
    genuine: np.ndarray
    genuine_person: np.ndarray
    impostor: np.ndarray
    impostor_persons: np.ndarray
    complete: bool
    directions: int


def collect(probe: np.ndarray, gallery: np.ndarray, person: np.ndarray, held: int) -> Scores:
    """Compare all images tile by tile; hold the genuine scores and at least the `held` highest impostor scores."""
    symmetric = probe is gallery
    person = person.astype(np.int32)
    genuine_counts, impostor_counts = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    cut = 1  # the bin from which on impostor scores are held; rises as more of them are seen
    genuine, impostor = [], []
    for rows, columns, bins in _tiles(probe, gallery):
        i, j = np.nonzero(person[rows][:, None] == person[columns][None, :])
        one = bins[i, j] > 0
        genuine.append(np.stack([bins[i, j][one].astype(np.int32), person[rows][i[one]]]))
        bins[i, j] = 0
        impostor_counts += np.bincount(bins.ravel(), minlength=BINS)
        impostor_counts[0] = 0
        cut = _cut(impostor_counts, held)
        i, j = np.nonzero(bins >= cut)
        impostor.append(np.stack([bins[i, j].astype(np.int32), person[rows][i], person[columns][j]]))
    genuine_bin, genuine_person = _descending(np.concatenate(genuine, axis=1))
    impostor_bin, *impostor_persons = _descending(np.concatenate(impostor, axis=1), cut)
    genuine_counts = np.bincount(genuine_bin, minlength=BINS)
    used = np.flatnonzero(genuine_counts + impostor_counts)
    return Scores(
        roc=Roc((used - 1) / GRID - 1, genuine_counts[used], impostor_counts[used]),
        genuine=genuine_bin,
        genuine_person=genuine_person,
        impostor=impostor_bin,
        impostor_persons=np.stack(impostor_persons),
        complete=cut == 1,
        directions=1 if symmetric else 2,
    )


def _tiles(probe: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield rows, columns and the bins (int64) of their scores; 0 where a pair is not, or no longer, to be compared."""
    for top in range(0, len(probe), TILE[0]):
        rows = slice(top, min(top + TILE[0], len(probe)))
        for left in range(top if probe is gallery else 0, len(gallery), TILE[1]):
            columns = slice(left, min(left + TILE[1], len(gallery)))
            score = probe[rows] @ gallery[columns].T
            bins = np.clip(np.rint(score * np.float32(GRID)), -GRID, GRID).astype(np.int64) + (GRID + 1)
            i, j = np.arange(len(probe))[rows][:, None], np.arange(len(gallery))[columns][None, :]
            if probe is gallery and left < rows.stop:
                bins[i >= j] = 0
            elif left < rows.stop and top < columns.stop:
                bins[i == j] = 0
            yield rows, columns, bins


def _cut(counts: np.ndarray, held: int) -> int:
    """The highest bin at or above which at least `held` scores lie; 1 (all of them) if there are fewer."""
    at_least = np.cumsum(counts[:0:-1])  # at_least[k]: scores in bin BINS - 1 - k or higher
    return max(1, BINS - 1 - int(np.searchsorted(at_least, held)))


def _descending(columns: np.ndarray, cut: int = 0) -> np.ndarray:
    """Columns of (bin, ...) with the bin at least `cut`, highest bin first."""
    columns = columns[:, columns[0] >= cut]
    return columns[:, np.argsort(-columns[0], kind="stable")]


def _weights(scores: Scores, draw: np.ndarray, images: np.ndarray) -> Weights:
    """`draw`: how often each person is drawn; `images`: that times the person's images."""
    draw = draw.astype(np.int32)
    pairs = int(images.sum()) ** 2 - int((images**2).sum())
    probe, gallery = scores.impostor_persons
    return Weights(draw[scores.genuine_person], draw[probe] * draw[gallery], pairs * scores.directions / 2)
