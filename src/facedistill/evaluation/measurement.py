"""What every protocol returns: numbers for the JSON, and their resamples for paired comparisons."""

from abc import ABC, abstractmethod
from typing import Any

from facedistill.evaluation.statistics import Estimate


class Measurement(ABC):
    """The result of one protocol for one (probe model, gallery model)."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The measured keys of a result, as fractions; absent where they do not apply, never null."""

    @abstractmethod
    def estimates(self) -> dict[str, Estimate]:
        """Every number that two models may be compared in, by its path in the JSON: "accuracy", "tar_at_far.1e-3"."""
