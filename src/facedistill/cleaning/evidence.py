"""How sure is an error? From the scores of this very data and those of known errors, with a precision asked for.

Scores of images are a mixture: most are sound, and a share is wrong. What wrong ones look like is known, because errors
can be made: compare an image with a person drawn at random. So the density of the whole and that of errors give the
probability that a score is one, as in the two-groups model of Efron, "Large-Scale Inference" (2010), chapter 2, with the
known group on the errors' side.
"""

from dataclasses import dataclass

import numpy as np

GRID = 512  # places at which densities are computed
FLOOR = 1e-9


@dataclass
class Verdict:
    """
    Attributes:
        probability: float64 (N,), that each is an error. flagged: bool (N,), those to act on.
        share: of errors in the data, estimated. power: share of the known errors that would be flagged.
    """

    probability: np.ndarray
    flagged: np.ndarray
    share: float
    power: float

    def spread(self, judged: np.ndarray) -> "Verdict":
        """Return the verdict for all, of which only those that are `judged`, bool (N,), were; the others are sound."""
        probability, flagged = np.zeros(len(judged)), np.zeros(len(judged), bool)
        probability[judged], flagged[judged] = self.probability, self.flagged
        return Verdict(probability, flagged, self.share, self.power)


def judge(scores: np.ndarray, errors: np.ndarray, precision: float, low: bool) -> Verdict:
    """Return which of `scores` (N,) are errors, so that a share of `precision` of those flagged are.

    Args:
        errors: scores of known errors, a sample (M,). low: errors have lower scores than sound ones; else higher.
    """
    if not len(scores) or not len(errors):
        return Verdict(np.zeros(len(scores)), np.zeros(len(scores), bool), 0.0, 0.0)
    sign = 1.0 if low else -1.0
    x, known = sign * scores.astype(np.float64), sign * errors.astype(np.float64)
    middle = np.median(known)  # half of the errors lie below, and no sound ones
    share = float(min(1.0, 2 * (x < middle).mean()))
    grid = np.linspace(min(x.min(), known.min()), max(x.max(), known.max()), GRID)
    whole = _density(x, grid)
    ratio = np.where(grid <= middle, 1.0, share * _density(known, grid) / np.maximum(whole, FLOOR))
    probability = np.interp(x, grid, np.minimum(_falling(ratio, whole), 1.0))  # a better score is never more surely wrong
    order = np.argsort(-probability, kind="stable")
    sure = np.cumsum(probability[order]) / np.arange(1, len(order) + 1) >= precision
    count = int(np.flatnonzero(sure)[-1]) + 1 if sure.any() else 0
    flagged = np.zeros(len(scores), bool)
    flagged[order[:count]] = True
    power = float((known <= x[flagged].max()).mean()) if count else 0.0
    return Verdict(probability, flagged, share, power)


def _density(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """A Gaussian kernel estimate on the grid, with Silverman's width."""
    spread = min(values.std(), (np.subtract(*np.percentile(values, [75, 25]))) / 1.34) or values.std() or 1e-3
    width = max(0.9 * spread * len(values) ** -0.2, (grid[-1] - grid[0]) / GRID, 1e-6)
    counts, _ = np.histogram(values, bins=np.append(grid, 2 * grid[-1] - grid[-2]))
    reach = np.arange(-4 * width, 4 * width + 1e-12, max(grid[1] - grid[0], 1e-12))
    kernel = np.exp(-0.5 * (reach / width) ** 2)
    return np.convolve(counts, kernel / kernel.sum(), mode="same")[: len(grid)] / len(values)


def _falling(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the falling sequence nearest to `values` (isotonic regression, by pooling neighbours that rise)."""
    levels: list[list[float]] = []  # value, weight, length
    for value, weight in zip(values.tolist(), np.maximum(weights, FLOOR).tolist(), strict=True):
        levels.append([value, weight, 1])
        while len(levels) > 1 and levels[-2][0] < levels[-1][0]:
            v, w, n = levels.pop()
            above = levels[-1]
            total = above[1] + w
            levels[-1] = [(above[0] * above[1] + v * w) / total, total, above[2] + n]
    return np.concatenate([np.full(int(n), v) for v, _, n in levels])
