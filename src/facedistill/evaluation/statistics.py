"""Confidence intervals by the bootstrap.

Pairs that share a person are not independent, so persons (clusters) are drawn with replacement, not pairs. A person
drawn w_a times gives each of its genuine pairs the weight w_a, and an impostor pair of persons a and b the weight
w_a w_b. The threshold is derived again in every resample. Draw r depends only on (seed, r, number of clusters): two
models that are evaluated on the same set are resampled alike, so their difference has a paired interval.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facedistill.evaluation.metrics import FAR_SLACK

RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A number with its value in every resample, float64 (resamples,); NaN if a resample lacks a kind of pair."""

    value: float
    resampled: np.ndarray

    @property
    def ci95(self) -> list[float] | None:
        """[2.5%, 97.5%] quantiles of the resamples; None if none of them has a value."""
        finite = self.resampled[np.isfinite(self.resampled)]
        return [float(q) for q in np.quantile(finite, [0.025, 0.975])] if len(finite) else None

    def to_json(self) -> dict[str, Any]:
        """Return {"value", "ci95"}; without resamples, only the value."""
        ci95 = self.ci95
        return {"value": self.value} | ({"ci95": ci95} if ci95 else {})


def paired_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return a - b, resample by resample. Both must come from the same set with the same seed."""
    return Estimate(a.value - b.value, a.resampled - b.resampled)


def draws(clusters: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[np.ndarray]:
    """Yield, for each resample, how often each cluster is drawn: int64 (clusters,), sum = clusters."""
    for r in range(resamples):
        rng = np.random.default_rng([seed, r])
        yield np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)


def resampled_mean(
    values: np.ndarray, clusters: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """Return the mean of `values` (N,) in each resample of their `clusters` (int64 (N,)): float64 (resamples,).

    NaN in a resample that draws no value. Values that are NaN are ignored.
    """
    known = np.isfinite(values)
    cluster = np.unique(clusters, return_inverse=True)[1]
    number = int(cluster.max(initial=-1)) + 1
    total = np.bincount(cluster[known], values[known], number)
    count = np.bincount(cluster[known], minlength=number)
    sums = [(draw @ total, draw @ count) for draw in draws(number, resamples, seed)]
    return np.array([top / bottom if bottom else np.nan for top, bottom in sums], dtype=np.float64)


@dataclass(frozen=True)
class Weights:
    """The weights of one resample.

    Attributes:
        genuine, impostor: one weight for each given score, in the same order.
        impostor_total: the weight of all impostor pairs, including those whose scores are not held.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    impostor_total: float


class TooFewImpostors(Exception):
    """The impostor scores that are held do not reach down to the threshold of a resample: hold more of them."""


def resampled_points(
    genuine: np.ndarray, impostor: np.ndarray, fars: Sequence[float], weights: Iterator[Weights], complete: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return TAR and threshold at each FAR in each resample, both float64 (resamples, FARs); see metrics.tar_at_far.

    Args:
        genuine, impostor: scores, both descending; `impostor` may be only the highest ones (then complete=False).
        weights: one per resample, for scores in that order.

    Raises:
        TooFewImpostors: see there; only if not `complete`.
    """
    # The genuine pairs that pass if the threshold is impostor score i, or just above it; where its ties begin.
    ascending = genuine[::-1]
    at = len(genuine) - np.searchsorted(ascending, impostor, side="left")
    above = len(genuine) - np.searchsorted(ascending, impostor, side="right")
    tie = np.searchsorted(-impostor, -impostor, side="left")
    tar, thresholds = [], []
    for w in weights:
        accepted, passed = np.append(0, np.cumsum(w.impostor)), np.append(0, np.cumsum(w.genuine))
        if passed[-1] == 0 or w.impostor_total == 0:
            tar.append(np.full(len(fars), np.nan))
            thresholds.append(np.full(len(fars), np.nan))
            continue
        refused = np.searchsorted(accepted[1:], np.asarray(fars) * w.impostor_total * FAR_SLACK, side="right")
        if not complete and refused.max() >= len(impostor):
            raise TooFewImpostors
        before = accepted[tie[refused]]  # the weight of all impostors that score higher than the first refused one
        last = np.searchsorted(accepted[1:], before)  # and the lowest of them that is in this resample
        tar.append(passed[np.where(before > 0, at[last], above[refused])] / passed[-1])
        thresholds.append(np.where(before > 0, impostor[last], np.nextafter(impostor[refused], np.inf)))
    shape = (-1, len(fars))
    return np.reshape(np.array(tar), shape), np.reshape(np.array(thresholds, dtype=np.float64), shape)


def pair_weights(clusters: np.ndarray, same: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that maps a draw to the weights of a list of pairs.

    Args:
        clusters: int64 (P, 2), the person on either side; or (P, 1) if persons are unknown, so each pair is a cluster.
        same: bool (P,).
    """
    first, last = clusters[:, 0], clusters[:, -1]
    square = ~same & (clusters.shape[1] == 2)

    def weigh(draw: np.ndarray) -> np.ndarray:
        return np.where(square, draw[first] * draw[last], draw[first])

    return weigh
