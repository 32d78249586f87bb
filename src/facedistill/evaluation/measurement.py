"""The result of a protocol: numbers for the JSON, and their resamples for paired comparisons."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from facedistill.evaluation.statistics import Estimate


class Measurement(ABC):
    """The result of one protocol for one (probe model, gallery model)."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the measured keys of a result; keys that do not apply are absent, never null."""

    @abstractmethod
    def estimates(self) -> dict[str, Estimate]:
        """Return the numbers in which two models can be compared, by path: "accuracy", "tar_at_far.1e-3"."""


@dataclass(frozen=True)
class Values(Measurement):
    """A measurement that consists of figures alone.

    Attributes:
        figures: by their paths, "share" or "share.5" in a family.
        counts: the numbers of items that they were counted over.
        curves: the data of the plots.
    """

    figures: Mapping[str, Estimate]
    counts: Mapping[str, int] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        json: dict[str, Any] = dict(self.counts)
        for path, estimate in self.figures.items():
            key, _, of = path.partition(".")
            if of:
                json.setdefault(key, {})[of] = estimate.to_json()
            else:
                json[key] = estimate.to_json()
        return json | ({"curves": dict(self.curves)} if self.curves else {})

    def estimates(self) -> dict[str, Estimate]:
        return dict(self.figures)
