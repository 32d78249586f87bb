"""Compare every image of a labelled set with every other: enough pairs to measure a FAR of 1e-5.

LFW's 7,701 distinct images make 8,101 genuine and 29.6 million impostor pairs. Scores are computed in tiles of a matrix
product and rounded to multiples of 2^-20, about the precision of a float32 dot product. So equal embeddings tie for any
tiling, and a histogram over the multiples is exact, in 32 MB for any number of pairs. All figures come from it. Beside
it, only the genuine scores and the highest impostor scores are held, with their persons, for the bootstrap. If they are
more than MOST_HELD, the intervals come from a random share of them, and the result says which: memory has a bound for
any number of images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.evaluation.metrics import Roc
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.statistics import RESAMPLES, SEED, TooFewImpostors, Weights, draws, resampled_points
from facedistill.evaluation.verification import COUNTS, FIGURES, PLOTS, Verification

if TYPE_CHECKING:
    from facedistill.evaluation.sets import Side

FARS = (1e-2, 1e-3, 1e-4, 1e-5)
SCORE_GRID = 2**20
BINS = 2 * SCORE_GRID + 2  # bin 0: no comparison; bin b: score (b - 1) / SCORE_GRID - 1
TILE = (1024, 4096)
HELD_IMPOSTORS = 10_000  # the least number of impostor scores that are held
MOST_HELD = 2**21  # the most genuine scores, the most highest impostor scores, and the most of a share of the next ones
ALL = 2**30  # a score is in a share if its random number below ALL is below the share's


class AllPairs(Protocol):
    """Every image against every other: the same person or not."""

    name = "all-pairs"
    kinds = usual = ("labels",)
    figures, counts, plots = FIGURES, COUNTS, PLOTS
    compares_all = True

    def measure(self, probe: "Side", gallery: "Side") -> tuple[Verification, dict[str, Any]]:
        found = all_pairs(
            probe.unit("images"),
            gallery.unit("images"),
            gallery.table("images").labels,
            fars=self.options.fars or FARS,
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        return found, {"resampled": "identities"}


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
    directions = 1 if probe is gallery else 2

    def pairs(weight: np.ndarray) -> float:
        """Return the number of impostor comparisons if each person has `weight` images."""
        return (int(weight.sum()) ** 2 - int((weight**2).sum())) * directions / 2

    def weigh(scores: Scores) -> Iterator[Weights]:
        return (scores.weights(draw, pairs(draw * images)) for draw in draws(len(images), resamples, seed))

    return measure(partial(collect, probe, gallery, person), weigh, int(pairs(images)), fars)


@dataclass(frozen=True)
class Scores:
    """Counts of all scores, and the individual scores that the bootstrap needs (as bins, int32, descending).

    Attributes:
        genuine: (G,) all of them; genuine_person: int32 (G,).
        impostor: (M,) the highest; impostor_persons: int32 (2, M), probe and gallery.
        complete: True if all impostor pairs are held, or a share of them.
        times: for how many impostor scores each one stands: 1, or more if it is one of a share. int32 (M,).
        sampled: the shares, "genuine" and "impostors"; empty if all needed scores are held.
    """

    roc: Roc
    genuine: np.ndarray
    genuine_person: np.ndarray
    impostor: np.ndarray
    impostor_persons: np.ndarray
    complete: bool
    times: np.ndarray
    sampled: dict[str, float]

    def weights(self, draw: np.ndarray, impostor_total: float) -> Weights:
        """Return the weights of the resample in which each person is drawn as often as `draw` says."""
        draw = draw.astype(np.int32)
        first, second = self.impostor_persons
        return Weights(draw[self.genuine_person], draw[first] * draw[second] * self.times, impostor_total)


def measure(
    collect: Callable[[int], Scores],
    weigh: Callable[[Scores], Iterator[Weights]],
    impostors: int,
    fars: Sequence[float],
) -> Verification:
    """Return the Verification of any number of scores.

    Args:
        collect: makes all comparisons and holds at least the given number of the highest impostor scores.
        weigh: yields the weights of each resample.
        impostors: the number of impostor comparisons.
    """
    held = max(2 * int(max(fars) * impostors), HELD_IMPOSTORS)
    while True:
        scores = collect(held)
        try:
            tar, bins = resampled_points(scores.genuine, scores.impostor, fars, weigh(scores), scores.complete)
        except TooFewImpostors:
            held *= 2
        else:
            return Verification.at(scores.roc, fars, tar, score_of(bins), sampled=scores.sampled)


def collect(probe: np.ndarray, gallery: np.ndarray, person: np.ndarray, held: int) -> Scores:
    """Compare all images tile by tile; hold the genuine scores and at least the `held` highest impostor scores."""
    person = person.astype(np.int32)
    tally = Tally(held)
    for rows, columns, bins in tiles(probe, gallery):
        first, second = person[rows][:, None], person[columns][None, :]
        tally.add(bins, first == second, first, second)
    return tally.scores()


class Share:
    """Scores with their persons, or a random share of them that fits into memory. Columns: bin, persons, random number.

    Attributes:
        limit: the share holds the scores whose random number is below it.
        top: scores in this bin or a higher one are held whatever their random number.
        cut: lower scores are not held.
    """

    def __init__(self) -> None:
        self.limit, self.top, self.cut = ALL, BINS, 1
        self.parts: list[np.ndarray] = []
        self.pending = 0
        self.rng = np.random.default_rng(SEED)

    def add(self, bins: np.ndarray, *persons: np.ndarray) -> None:
        """Add scores; all arguments are (M,)."""
        number = self.rng.integers(ALL, size=len(bins), dtype=np.int32)
        part = np.stack([bins.astype(np.int32), *persons, number])
        self.parts.append(part if self.limit == ALL else part[:, self._chosen(part)])
        self.pending += self.parts[-1].shape[1]
        if self.pending > 2 * MOST_HELD:
            self.parts = [self.held()]
            self.pending = 0

    def held(self) -> np.ndarray:
        """Return the held scores; halve the share until it has at most MOST_HELD of them."""
        found = np.concatenate(self.parts, axis=1)
        found = found[:, self._chosen(found)]
        while np.count_nonzero(found[0] < self.top) > MOST_HELD:
            self.limit //= 2
            found = found[:, self._chosen(found)]
        return found

    def _chosen(self, columns: np.ndarray) -> np.ndarray:
        return (columns[0] >= self.top) | ((columns[0] >= self.cut) & (columns[-1] < self.limit))


class Tally:
    """A count of comparisons that holds the genuine scores and at least the `held` highest impostor scores, or a share
    of them."""

    def __init__(self, held: int) -> None:
        self.wanted = held
        self.genuine_counts, self.impostor_counts = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.genuine, self.impostor = Share(), Share()

    def add(self, bins: np.ndarray, same: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        """Count comparisons in an array of any shape.

        Args:
            bins: int64, of the scores; 0 where there is no comparison. It is overwritten.
            same: bool, whether the comparison is genuine.
            first, second: int32, the persons; they may have fewer dimensions, to be broadcast. Genuine comparisons
                belong to `first`.
        """
        first, second = np.broadcast_to(first, bins.shape), np.broadcast_to(second, bins.shape)
        at = np.nonzero(same & (bins > 0))
        np.add.at(self.genuine_counts, bins[at], 1)
        self.genuine.add(bins[at], first[at])
        bins[same] = 0
        self.impostor_counts += np.bincount(bins.ravel(), minlength=BINS)
        self.impostor_counts[0] = 0
        # Both rise as more are seen.
        self.impostor.top, self.impostor.cut = _cuts(self.impostor_counts, min(self.wanted, MOST_HELD), self.wanted)
        at = np.nonzero(bins >= self.impostor.cut)
        self.impostor.add(bins[at], first[at], second[at])

    def scores(self) -> Scores:
        """Return the counts and the held scores."""
        genuine, genuine_person, _ = _descending(self.genuine.held())
        impostor, first, second, _ = _descending(self.impostor.held())
        shares = {"genuine": self.genuine.limit / ALL, "impostors": self.impostor.limit / ALL}
        used = np.flatnonzero(self.genuine_counts + self.impostor_counts)
        return Scores(
            roc=Roc(score_of(used), self.genuine_counts[used], self.impostor_counts[used]),
            genuine=genuine,
            genuine_person=genuine_person,
            impostor=impostor,
            impostor_persons=np.stack([first, second]),
            complete=self.impostor.cut == 1,
            times=np.where(impostor >= self.impostor.top, 1, ALL // self.impostor.limit).astype(np.int32),
            sampled={} if set(shares.values()) == {1.0} else shares,
        )


def bins_of(score: np.ndarray) -> np.ndarray:
    """Return the bin of each float32 score, int64."""
    return np.clip(np.rint(score * np.float32(SCORE_GRID)), -SCORE_GRID, SCORE_GRID).astype(np.int64) + (SCORE_GRID + 1)


def first_bin(threshold: float) -> int:
    """Return the lowest bin whose score reaches a threshold: a score, or just above one that must not pass."""
    return math.ceil(threshold * SCORE_GRID) + SCORE_GRID + 1


def score_of(bins: np.ndarray) -> np.ndarray:
    """Return the score of a bin, float64."""
    return (bins - 1) / SCORE_GRID - 1


def tiles(probe: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield rows, columns and the bins (int64) of their scores; 0 where a pair must not be compared (again)."""
    for top in range(0, len(probe), TILE[0]):
        rows = slice(top, min(top + TILE[0], len(probe)))
        for left in range(top if probe is gallery else 0, len(gallery), TILE[1]):
            columns = slice(left, min(left + TILE[1], len(gallery)))
            bins = bins_of(probe[rows] @ gallery[columns].T)
            i, j = np.arange(len(probe))[rows][:, None], np.arange(len(gallery))[columns][None, :]
            if probe is gallery and left < rows.stop:
                bins[i >= j] = 0
            elif left < rows.stop and top < columns.stop:
                bins[i == j] = 0
            yield rows, columns, bins


def _cuts(counts: np.ndarray, *numbers: int) -> tuple[int, ...]:
    """Return, for each number, the highest bin at or above which so many scores lie; 1 (all) if there are fewer."""
    at_least = np.cumsum(counts[:0:-1])  # at_least[k]: scores in bin BINS - 1 - k or higher
    return tuple(max(1, BINS - 1 - int(np.searchsorted(at_least, number))) for number in numbers)


def _descending(columns: np.ndarray) -> np.ndarray:
    """Return the columns of (bin, ...), highest bin first."""
    return columns[:, np.argsort(-columns[0], kind="stable")]
