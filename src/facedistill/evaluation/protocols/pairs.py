"""The 10-fold pair protocol of LFW and similar sets, in insightface's form.

Scores are squared distances of unit embeddings; folds are contiguous in file order. On nine folds, the first threshold
of the best accuracy is chosen (a pair is the same person iff its distance < threshold) and applied to the tenth.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facedistill.errors import UserError
from facedistill.evaluation.figures import Figure
from facedistill.evaluation.metrics import Roc
from facedistill.evaluation.protocols.protocol import Protocol
from facedistill.evaluation.statistics import RESAMPLES, SEED, Estimate, Weights, draws, pair_weights, resampled_points
from facedistill.evaluation.verification import COUNTS, FIGURES, PLOTS, Verification

if TYPE_CHECKING:
    from facedistill.evaluation.options import Thresholds
    from facedistill.evaluation.sets import LabelledSet, Side

FOLDS = 10
FARS = (1e-1, 1e-2, 1e-3)

ACCURACY = Figure(
    "accuracy",
    "accuracy",
    "decides {} of the pairs correctly",
    headline=True,
    overview="always",
    grouped=True,
    bare=True,
    interval="ci95",
)
STD = Figure("std", "std of folds", bare=True, overview="never")


class Pairs(Protocol):
    """A list of pairs in ten folds: the same person or not."""

    name = "pairs"
    kinds = usual = ("pairs",)
    figures, counts, plots = (ACCURACY, STD, *FIGURES), COUNTS, PLOTS
    data: "LabelledSet"

    def refusal(self, probe: "Side", gallery: "Side") -> str | None:
        table, listed = gallery.table("images"), self.data.pair_list
        assert listed is not None
        if len(table) == len(listed):
            return None
        missing = sorted(set(self.data.dataset.keys) - set(table.keys))
        return (
            f"{listed.path}: {len(missing)} images cannot be read (number {missing[0]} of the distinct ones); "
            "pairs need all of them: get the file again"
        )

    def measure(self, probe: "Side", gallery: "Side") -> tuple[Verification, dict[str, Any]]:
        listed, o = self.data.pair_list, self.options
        assert listed is not None
        found = pair_protocol(
            probe.unit("images"),
            gallery.unit("images"),
            listed.pairs,
            listed.same,
            persons=gallery.table("images").labels if self.data.named else None,
            thresholds=o.threshold,
            fars=o.fars or FARS,
            resamples=o.resamples,
            seed=o.seed,
        )
        resampled = "identities" if self.data.named else "pairs"
        return found, {"threshold": o.threshold, "folds": FOLDS, "resampled": resampled}


def pair_protocol(
    probe: np.ndarray,
    gallery: np.ndarray,
    pairs: np.ndarray,
    same: np.ndarray,
    *,
    persons: np.ndarray | None = None,
    thresholds: "Thresholds" = "grid",
    fars: Sequence[float] = FARS,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Verification:
    """Evaluate `probe` embeddings against `gallery` embeddings of the same images on a list of pairs.

    If the two differ, both directions of each pair are measured and pooled within its fold, (i probe, j gallery) and
    (j probe, i gallery): twice as many comparisons. std is the fold standard deviation (ddof 0).
    Intervals: persons are resampled if `persons` is given, else pairs (a pair keeps its two directions and its fold).
    In each resample, the thresholds of the folds are chosen again on the weighted pairs, and the accuracy is the mean
    of the folds' weighted accuracies.

    Args:
        probe, gallery: unit rows, float (images, d); the same object for a symmetric evaluation.
        pairs: int64 (P, 2), rows of the embeddings; same: bool (P,), both in file order.
        persons: int64 (images,), the person on each image.
        thresholds: "grid" is 0 to 4 by 0.01; "exact" every boundary between two distances of the set.

    Raises:
        UserError: fewer pairs than folds.
    """
    if len(pairs) < FOLDS:
        raise UserError(f"pair evaluation: {len(pairs)} pairs; expected at least {FOLDS}, one for each fold")
    both = [pairs] if probe is gallery else [pairs, pairs[:, ::-1]]
    distance = np.concatenate([squared_distance(probe[p[:, 0]], gallery[p[:, 1]]) for p in both])
    pair = np.tile(np.arange(len(pairs)), len(both))
    same, fold = same[pair], fold_of(len(pairs))[pair]
    folds = FoldAccuracy(distance, same, fold, THRESHOLD_GRID if thresholds == "grid" else boundaries(distance))
    accuracies = folds()

    # One weight per pair; the two directions of a pair share it.
    clusters = pair[:, None] if persons is None else persons[pairs[pair]]
    weigh = pair_weights(clusters, same)
    number = int(clusters.max()) + 1

    def weights() -> Iterator[np.ndarray]:
        return (weigh(draw) for draw in draws(number, resamples, seed))

    resampled = np.array([_mean(folds(w)) for w in weights()])

    score = 1 - distance / 2
    genuine, impostor = (np.flatnonzero(kind)[np.argsort(-score[kind], kind="stable")] for kind in (same, ~same))
    roc = Roc.of(score[genuine], score[impostor])
    tar, at = resampled_points(
        score[genuine],
        score[impostor],
        fars,
        (Weights(w[genuine], w[impostor], w[impostor].sum()) for w in weights()),
        complete=True,
    )
    return Verification.at(
        roc,
        fars,
        tar,
        at,
        accuracy=Estimate(_mean(accuracies), resampled),
        std=float(np.std(accuracies)),
        decisions=folds.decisions(),
    )


THRESHOLD_GRID = np.arange(0, 4, 0.01)


def squared_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared euclidean distance of rows, float64 (P,)."""
    return np.square(a.astype(np.float64) - b.astype(np.float64)).sum(axis=1)


def fold_of(pairs: int) -> np.ndarray:
    """Return the fold of each pair, int64 (pairs,): contiguous, the first ones longer by one if need be."""
    sizes = pairs // FOLDS + (np.arange(FOLDS) < pairs % FOLDS)
    return np.repeat(np.arange(FOLDS), sizes)


def boundaries(distance: np.ndarray) -> np.ndarray:
    """Return all thresholds that decide differently, ascending: below all, between distinct distances, above all."""
    d = np.unique(distance)
    middle = d[:-1] + np.diff(d) / 2
    middle = np.where(middle > d[:-1], middle, d[1:])  # neighbouring floats have no number between them
    return np.concatenate([d[:1], middle, d[-1:] + 1])


class FoldAccuracy:
    """Accuracy of each fold at the threshold that is best on the others; called once for each weighting of the pairs.

    A pair counts as the same person from the first threshold above its distance on, so one histogram over
    (fold, that threshold) holds the accuracy at all thresholds.
    """

    def __init__(self, distance: np.ndarray, same: np.ndarray, fold: np.ndarray, thresholds: np.ndarray) -> None:
        self.shape = (FOLDS, len(thresholds) + 1)
        self.above = np.searchsorted(thresholds, distance, side="right")  # the first threshold above each distance
        self.cell = fold * self.shape[1] + self.above
        self.sign = np.where(same, 1, -1)
        self.fold = fold

    def __call__(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Return float64 (folds,); NaN for a fold without weight. `weights`: integers (P,)."""
        w = np.ones(len(self.cell)) if weights is None else weights.astype(np.float64)
        correct = self._correct(w)
        total = np.bincount(self.fold, w, FOLDS)
        right = correct[np.arange(FOLDS), _best(correct)]
        return np.divide(right, total, out=np.full(FOLDS, np.nan), where=total > 0)

    def decisions(self) -> np.ndarray:
        """Return whether each pair, unweighted, is decided correctly at the threshold of its fold: bool (P,)."""
        best = _best(self._correct(np.ones(len(self.cell))))
        return (self.above <= best[self.fold]) == (self.sign > 0)

    def _correct(self, w: np.ndarray) -> np.ndarray:
        """Return the weight of the correct decisions in each fold at each threshold: float64 (folds, thresholds)."""
        gain = np.bincount(self.cell, w * self.sign, self.shape[0] * self.shape[1]).reshape(self.shape)
        impostors = np.bincount(self.fold, w * (self.sign < 0), FOLDS)
        return impostors[:, None] + np.cumsum(gain, axis=1)[:, :-1]


def _best(correct: np.ndarray) -> np.ndarray:
    """Return, for each fold, the first threshold that is best on the other folds."""
    return (correct.sum(axis=0) - correct).argmax(axis=1)


def _mean(accuracies: np.ndarray) -> float:
    """Return the mean over the folds that have pairs; at least one always does."""
    return float(np.nanmean(accuracies)) if np.isfinite(accuracies).any() else float("nan")
