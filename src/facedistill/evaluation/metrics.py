"""Metrics of the scores of genuine and impostor pairs: TAR at a FAR, EER, AUC. Pure numpy.

A pair is accepted if its score is at or above the threshold. FAR is the share of impostor pairs accepted,
TAR the share of genuine pairs accepted. Pairs of equal score are always accepted or refused together.
"""

import math
from dataclasses import dataclass

import numpy as np

# far * pairs is an integer for the usual targets, but 1e-3 is not a binary fraction: without this slack, a product of
# 2.9999999 would lose a pair.
FAR_SLACK = 1 + 1e-12


def far_key(far: float) -> str:
    """Return the name of a FAR in the evaluation JSON: 0.001 -> "1e-3", 0.025 -> "2.5e-2"."""
    mantissa, exponent = f"{far:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


@dataclass(frozen=True)
class Roc:
    """The numbers of genuine and impostor pairs at each score: all that the metrics need, for any number of pairs.

    Attributes:
        scores: (K,) distinct scores, ascending.
        genuine, impostor: int64 (K,), pairs at each score.
    """

    scores: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray

    @classmethod
    def of(cls, genuine: np.ndarray, impostor: np.ndarray) -> "Roc":
        """Count two lists of scores (one number per pair, same dtype)."""
        scores, inverse = np.unique(np.concatenate([genuine, impostor]), return_inverse=True)
        counts = [np.bincount(part, minlength=len(scores)) for part in np.split(inverse, [len(genuine)])]
        return cls(scores, *counts)

    @property
    def pairs(self) -> tuple[int, int]:
        """The numbers of genuine and impostor pairs."""
        return int(self.genuine.sum()), int(self.impostor.sum())

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return FAR and TAR, float64 (K + 1,): nothing accepted, then the threshold at each score, descending."""
        far, tar = (np.append(0, np.cumsum(counts[::-1])) / counts.sum() for counts in (self.impostor, self.genuine))
        return far, tar


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates. `impostors`: the number of impostor pairs that the target FAR lets pass,
    floor(far * impostor pairs). This count decides the threshold: with only 3, the threshold means nothing."""

    threshold: float
    far: float
    tar: float
    impostors: int


def tar_at_far(roc: Roc, far: float) -> OperatingPoint | None:
    """Return TAR at the largest threshold whose FAR is the highest possible one up to `far`.

    The threshold is the lowest impostor score at or above which at most far * impostors lie: impostor pairs alone
    calibrate it, genuine pairs do not move it. With ties, the FAR obtained may be well below the target. If too many
    impostors tie at the highest score, FAR is 0 and the threshold lies just above that score.

    None if not measurable: without genuine pairs, or with fewer than 1 / far impostor pairs, because then no impostor
    may pass and the value would rest on the single highest impostor score.
    """
    genuine, impostors = roc.pairs
    allowed = math.floor(far * impostors * FAR_SLACK)
    if genuine == 0 or allowed < 1:
        return None
    scores, counts = roc.scores[roc.impostor > 0], roc.impostor[roc.impostor > 0]
    accepted = np.cumsum(counts[::-1])[::-1]
    first = int(np.searchsorted(-accepted, -allowed))
    just_above = np.nextafter(scores[-1], np.asarray(np.inf, scores.dtype))
    threshold = float(scores[first] if first < len(scores) else just_above)
    got_far, got_tar = rates_at(roc, threshold)
    return OperatingPoint(threshold, got_far, got_tar, allowed)


def rates_at(roc: Roc, threshold: float) -> tuple[float, float]:
    """Return FAR and TAR if every pair with score >= `threshold` is accepted. Needs both kinds of pair."""
    first = int(np.searchsorted(roc.scores.astype(np.float64), threshold))
    genuine, impostors = roc.pairs
    return float(roc.impostor[first:].sum() / impostors), float(roc.genuine[first:].sum() / genuine)


def closest_far(roc: Roc, far: float) -> tuple[float, float]:
    """Return FAR and TAR at the point of the ROC whose FAR is closest to `far`; of ties, the highest TAR.

    This is the number that insightface prints, on the points that scikit-learn's roc_curve keeps: it drops a threshold
    between two equal steps. Needs both kinds of pair. The FAR obtained may lie above the target, so `tar_at_far` is the
    better definition.
    """
    turns = (np.diff(roc.genuine[::-1]) != 0) | (np.diff(roc.impostor[::-1]) != 0)
    turns[:1] = True  # roc_curve always keeps its first two points and its last
    fars, tars = (rates[np.r_[True, turns, True]] for rates in roc.curve())
    last = len(fars) - 1 - int(np.abs(fars - far)[::-1].argmin())
    return float(fars[last]), float(tars[last])


def roc_points(roc: Roc, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return FAR and TAR at up to `count` points of the ROC for a plot, with FARs evenly spaced on a log axis.

    Each is the last point up to one of the FARs from 1 / impostors to 1. Points of FAR 0 are not on that axis and are
    left out. Needs both kinds of pair.
    """
    far, tar = roc.curve()
    targets = np.geomspace(1 / roc.pairs[1], 1, count)
    chosen = np.unique(np.searchsorted(far, targets * FAR_SLACK, side="right")) - 1
    chosen = chosen[far[chosen] > 0]
    return far[chosen], tar[chosen]


def histogram(roc: Roc, bins: int = 100) -> tuple[float, float, list[int], list[int]]:
    """Return the lowest and highest score, and the numbers of genuine and impostor pairs in `bins` equal parts.

    If all scores are equal, low and high lie 0.5 below and above them. Needs a pair.
    """
    edges = np.histogram_bin_edges(roc.scores, bins)
    inner = np.searchsorted(roc.scores, edges[1:-1])
    genuine, impostor = ([int(part.sum()) for part in np.split(kind, inner)] for kind in (roc.genuine, roc.impostor))
    return float(edges[0]), float(edges[-1]), genuine, impostor


def auc(roc: Roc) -> float | None:
    """Return the chance that a genuine pair scores above an impostor pair; ties count half. None without both kinds."""
    genuine, impostors = roc.pairs
    if genuine == 0 or impostors == 0:
        return None
    below = np.cumsum(roc.impostor) - roc.impostor
    return float((roc.genuine * (below + 0.5 * roc.impostor)).sum() / genuine / impostors)


def eer(roc: Roc) -> float | None:
    """Return the error at FAR = 1 - TAR, on the ROC with straight lines between thresholds. None without both kinds."""
    if 0 in roc.pairs:
        return None
    far, tar = roc.curve()
    gap = far + tar - 1  # from -1 to 1, never falling
    right = int(np.searchsorted(gap, 0))
    if gap[right] == 0:
        return float(far[right])
    share = -gap[right - 1] / (gap[right] - gap[right - 1])
    return float(far[right - 1] + share * (far[right] - far[right - 1]))
