"""How sure is an error? From the scores of this very data and those of known errors, with a precision asked for.

Scores are a mixture: most are sound, and a share is wrong. What wrong ones look like is known, because errors can be
made: compare an image with a person drawn at random. So the density of the whole and that of errors give the
probability that a score is one, as in the two-groups model of Efron, "Large-Scale Inference" (2010), chapter 2, with
the known group on the errors' side.
"""

from dataclasses import dataclass

import numpy as np

GRID = 512  # places at which densities are computed
FLOOR = 1e-12
MOST = 0.5  # the largest share of errors that is believed
STEPS = 200  # of expectation maximisation
NEWTON, RIDGE = 20, 1e-3  # steps of the logistic regression, and what keeps its weights small
SAME = 1e-5  # the spread of a feature that is the same for all


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


def parting(errors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the weights (k,) of the sum of k features that tells errors from others; errors have the lower sums.

    Logistic regression by Newton's method; both groups weigh the same. A share of errors among the others moves the
    threshold, but not the direction.

    Shapes: (M, k), (N, k) -> (k,)
    """
    if not len(errors) or not len(others):
        return np.zeros(others.shape[1])
    x = np.concatenate([errors, others])
    spread = x.std(0)
    spread[spread < SAME] = np.inf  # such a feature says nothing
    x = np.column_stack([(x - x.mean(0)) / spread, np.ones(len(x))])
    target = np.arange(len(x)) >= len(errors)
    mass = np.where(target, 0.5 / len(others), 0.5 / len(errors))
    weights = np.zeros(x.shape[1])
    for _ in range(NEWTON):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (mass * (chance - target)) + RIDGE * weights
        curve = (x * (mass * chance * (1 - chance))[:, None]).T @ x + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curve, slope)
    return weights[:-1] / spread


def judge(scores: np.ndarray, errors: np.ndarray, precision: float, low: bool) -> Verdict:
    """Return which of `scores` (N,) are errors, so that a share of `precision` of those flagged are.

    None is flagged whose own probability is less than half of that: sure findings do not pay for doubtful ones. If most
    scores are like those of errors, then the scores do not tell them apart, and none is flagged.

    Args:
        errors: scores of known errors, a sample (M,). low: errors have lower scores than sound ones; else higher.
    """
    if not len(scores) or not len(errors):
        return Verdict(np.zeros(len(scores)), np.zeros(len(scores), bool), 0.0, 0.0)
    sign = 1.0 if low else -1.0
    x, known = sign * scores.astype(np.float64), sign * errors.astype(np.float64)
    probability, share = _parted(x, known)
    if share > MOST:
        return Verdict(np.zeros(len(x)), np.zeros(len(x), bool), share, 0.0)
    order = np.argsort(-probability, kind="stable")
    sure = np.cumsum(probability[order]) / np.arange(1, len(order) + 1) >= precision
    count = int(np.flatnonzero(sure)[-1]) + 1 if sure.any() else 0
    flagged = np.zeros(len(scores), bool)
    flagged[order[:count]] = True
    flagged &= probability >= precision / 2  # however sure the others are
    power = float((known <= x[flagged].max()).mean()) if flagged.any() else 0.0
    return Verdict(probability, flagged, share, power)


def _parted(x: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the probability that each of `x` is an error, and the share of errors; errors have the lower scores.

    Expectation maximisation. The density of errors is that of the known ones. The density of sound scores is any that
    is nothing below the median of the known errors, and rises from there to its mode: so it cannot explain a hill of
    low scores where errors have theirs.
    """
    edges = np.linspace(min(x.min(), known.min()), max(x.max(), known.max()) + 1e-9, GRID + 1)
    counts = np.histogram(x, edges)[0].astype(np.float64)
    errors = _density(known, edges)
    middle = np.median(known)
    share = min(1.0, (2 * int((x <= middle).sum()) + 1) / len(x))  # a single error may be in the other half
    mode = int(np.argmax(np.where(edges[1:] > middle, _density(x, edges), -1)))
    sound = np.maximum(counts / len(x) - share * errors, 0)
    low = int(np.searchsorted(edges[1:], middle, "right"))
    for _ in range(STEPS):
        sound[: mode + 1] = -_falling(-sound[: mode + 1], np.ones(mode + 1))
        chance = share * errors / np.maximum(share * errors + (1 - share) * sound, FLOOR)
        chance[:low] = 1
        share = float(counts @ chance) / len(x)
        rest = counts * (1 - chance)
        sound = rest / max(rest.sum(), FLOOR)
    chance = np.minimum(_falling(chance, counts), 1.0)  # a better score is never more surely wrong
    return np.interp(x, (edges[1:] + edges[:-1]) / 2, chance), share


def _density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the mass between the edges of a Gaussian kernel estimate with Silverman's width, of sum 1."""
    step = edges[1] - edges[0]
    spread = min(values.std(), (np.subtract(*np.percentile(values, [75, 25]))) / 1.34) or values.std()
    width = max(0.9 * spread * len(values) ** -0.2 / step, 1.0)  # in steps
    reach = np.arange(-int(4 * width), int(4 * width) + 1)
    kernel = np.exp(-0.5 * (reach / width) ** 2)
    spreaded = np.convolve(np.histogram(values, edges)[0], kernel)[len(reach) // 2 :][: len(edges) - 1]
    return spreaded / max(spreaded.sum(), FLOOR)


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
