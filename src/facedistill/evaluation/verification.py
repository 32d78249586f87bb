"""What a verification protocol measured for one (probe model, gallery model), and its form in the evaluation JSON."""

from dataclasses import dataclass
from typing import Any

from facedistill.evaluation.metrics import OperatingPoint, Roc, auc, eer, rates_at
from facedistill.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Verification:
    """The measurement of one protocol; the resamples inside the estimates are for paired comparisons.

    Attributes:
        roc: counts of all pairs by score (cosine).
        tar_at_far: by name of the target FAR ("1e-3"); absent where the set cannot measure it (metrics.tar_at_far).
        accuracy, std: of the folds, where the protocol has folds.
    """

    roc: Roc
    tar_at_far: dict[str, tuple[OperatingPoint, Estimate]]
    accuracy: Estimate | None = None
    std: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The measured keys of a result; absent where they do not apply, never null."""
        genuine, impostors = self.roc.pairs
        json: dict[str, Any] = {"pairs": genuine + impostors, "genuine": genuine}
        if self.accuracy is not None:
            json |= {"accuracy": self.accuracy.value, "std": self.std, "ci95": self.accuracy.ci95}
        json["tar_at_far"] = {
            key: {
                "value": point.tar,
                "ci95": estimate.ci95,
                "impostors": point.impostors,
                "far": point.far,
                "threshold": point.threshold,
            }
            for key, (point, estimate) in self.tar_at_far.items()
        }
        json |= {"eer": eer(self.roc), "auc": auc(self.roc)}
        return _without_none(json)

    def at_thresholds_of(self, other: "Verification") -> dict[str, dict[str, float]]:
        """By target FAR: FAR and TAR that these pairs get at the threshold calibrated on `other`."""
        if 0 in self.roc.pairs:
            return {}
        rates = {
            key: (point.threshold, *rates_at(self.roc, point.threshold)) for key, (point, _) in other.tar_at_far.items()
        }
        return {key: {"threshold": t, "far": far, "tar": tar} for key, (t, far, tar) in rates.items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value
