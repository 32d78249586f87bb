"""The measurement of a verification protocol for one (probe model, gallery model), and its evaluation JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facedistill.evaluation.figures import Count, Figure, Target
from facedistill.evaluation.measurement import Measurement
from facedistill.evaluation.metrics import (
    OperatingPoint,
    Roc,
    auc,
    closest_far,
    eer,
    far_key,
    histogram,
    rates_at,
    roc_points,
    tar_at_far,
)
from facedistill.evaluation.statistics import Estimate

TAR = Figure(
    "tar_at_far",
    "TAR at FAR {}",
    "accepts {} of genuine pairs",
    headline=True,
    target=Target("FAR", obtained="far", decided_by="impostors"),
    calibrates=True,
)
EER = Figure("eer", "EER", "has an equal error rate of {}", bare=True, overview="never")
AUC = Figure("auc", "AUC", digits=3, bare=True, overview="never")
FIGURES = (TAR, EER, AUC)
COUNTS = (Count("pairs", "pairs"), Count("genuine", "of them genuine"))
PLOTS = ("roc", "det", "scores")


@dataclass(frozen=True)
class Verification(Measurement):
    """The measurement of one protocol; the resamples inside the estimates are for intervals and paired comparisons.

    Attributes:
        roc: counts of all pairs by score (cosine).
        tar_at_far: by name of the target FAR ("1e-3"); absent if the set cannot measure it (metrics.tar_at_far).
        thresholds: by the same names, the threshold in each resample.
        accuracy, std: of the folds, if the protocol has folds.
        sampled: the shares of genuine and impostor scores that intervals come from, if there are too many to hold.
        decisions: bool, whether each comparison is decided correctly at the threshold of its fold; not in the JSON.
    """

    roc: Roc
    tar_at_far: dict[str, tuple[OperatingPoint, Estimate]]
    thresholds: dict[str, Estimate] = field(default_factory=dict)
    accuracy: Estimate | None = None
    std: float | None = None
    sampled: dict[str, float] = field(default_factory=dict)
    decisions: np.ndarray | None = None

    @classmethod
    def at(
        cls, roc: Roc, fars: Sequence[float], tar: np.ndarray, thresholds: np.ndarray, **folds: Any
    ) -> "Verification":
        """Measure `roc` at each of `fars` that it can measure.

        Args:
            tar, thresholds: float64 (resamples, FARs), as statistics.resampled_points returns them; the thresholds
                in the scores of `roc`.
            folds: accuracy, std and decisions.
        """
        points = [(f, far_key(far), point) for f, far in enumerate(fars) if (point := tar_at_far(roc, far))]
        return cls(
            roc,
            tar_at_far={key: (point, Estimate(point.tar, tar[:, f])) for f, key, point in points},
            thresholds={key: Estimate(point.threshold, thresholds[:, f]) for f, key, point in points},
            **folds,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the measured keys of a result; keys that do not apply are absent, never null."""
        genuine, impostors = self.roc.pairs
        json: dict[str, Any] = {"pairs": genuine + impostors, "genuine": genuine}
        if self.accuracy is not None:
            json |= {"accuracy": self.accuracy.value, "std": self.std, "ci95": self.accuracy.ci95}
        if self.sampled:
            json["intervals_from"] = self.sampled
        json["tar_at_far"] = {key: self._at(key) for key in self.tar_at_far}
        json |= {"eer": eer(self.roc), "auc": auc(self.roc), "curves": _curves(self.roc)}
        return _without_none(json)

    def estimates(self) -> dict[str, Estimate]:
        found = {} if self.accuracy is None else {"accuracy": self.accuracy}
        return found | {f"tar_at_far.{key}": estimate for key, (_, estimate) in self.tar_at_far.items()}

    def rates_at(self, threshold: float) -> tuple[float, float]:
        """Return FAR and TAR if every pair with score >= `threshold` is accepted. Needs both kinds of pair."""
        return rates_at(self.roc, threshold)

    def at_thresholds_of(self, other: "Verification") -> dict[str, dict[str, float]]:
        """Return, by target FAR, the FAR and TAR of these pairs at the threshold calibrated on `other`."""
        if 0 in self.roc.pairs:
            return {}
        rates = {
            key: (point.threshold, *rates_at(self.roc, point.threshold)) for key, (point, _) in other.tar_at_far.items()
        }
        return {key: {"threshold": t, "far": far, "tar": tar} for key, (t, far, tar) in rates.items()}

    def _at(self, key: str) -> dict[str, Any]:
        point, estimate = self.tar_at_far[key]
        far, tar = closest_far(self.roc, float(key))
        return {
            "value": point.tar,
            "ci95": estimate.ci95,
            "impostors": point.impostors,
            "far": point.far,
            "threshold": point.threshold,
            "threshold_ci95": self.thresholds[key].ci95 if key in self.thresholds else None,
            "closest": {"tar": tar, "far": far},
        }


def _curves(roc: Roc) -> dict[str, Any] | None:
    """Return the curves of a report: the ROC, if there are both kinds of pair, and the histograms of the scores."""
    if not len(roc.scores):
        return None
    low, high, genuine, impostor = histogram(roc)
    scores = {"low": low, "high": high, "genuine": genuine, "impostor": impostor}
    if 0 in roc.pairs:
        return {"scores": scores}
    far, tar = roc_points(roc)
    return {"roc": {"far": far.tolist(), "tar": tar.tolist()}, "scores": scores}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value
